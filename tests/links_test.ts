/**
 * The stand-ins behave as the packages whose names they bear, in the part we use.
 *
 * @module
 */

import * as standIn from "@std/assert";
import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { parseArgs } from "@std/cli/parse-args";
import { format } from "@std/fmt/bytes";
import * as colors from "@std/fmt/colors";

Deno.test("links: parseArgs reads options of each kind", () => {
  const args = parseArgs(
    "node --id node1 --data=/d -v --port 80 --peer a --peer=b --no-sync x"
      .split(" "),
    {
      string: ["id", "data"],
      boolean: ["verbose", "sync", "quiet"],
      collect: ["peer"],
      negatable: ["sync"],
      alias: { verbose: "v" },
      default: { port: 1, host: "h", sync: true },
    },
  );
  assertEquals<unknown>(args, {
    _: ["node", "x"],
    id: "node1",
    data: "/d",
    verbose: true,
    v: true,
    sync: false,
    quiet: false,
    port: 80,
    host: "h",
    peer: ["a", "b"],
  });
});

Deno.test("links: parseArgs keeps what is declared as text", () => {
  const options = { string: ["_", "value"] } as const;
  const { _, value } = parseArgs(["put", "007", "--value", "1e3"], options);
  assertEquals<unknown>([_, value], [["put", "007"], "1e3"]);
  assertEquals<unknown>(parseArgs(["7", "0x10", "-"])._, [7, 16, "-"]);
  assertEquals(parseArgs(["--value="], options).value, "");
  assertEquals(parseArgs(["--value"], options).value, "");
  assertEquals(parseArgs(["--value", "--other"], options).value, "");
  assertEquals(parseArgs([], options).value, undefined);
  assertEquals(
    parseArgs(["--value", "a=b\n", "--value=c=d"], options).value,
    "c=d",
  );
});

Deno.test("links: parseArgs stops at -- and, if told, at the first argument", () => {
  assertEquals<unknown>(parseArgs(["a", "--", "--b"]), { _: ["a", "--b"] });
  assertEquals<unknown>(parseArgs(["a", "--", "--b"], { "--": true }), {
    _: ["a"],
    "--": ["--b"],
  });
  const args = parseArgs(["-q", "put", "--x"], {
    boolean: ["q"],
    stopEarly: true,
  });
  assertEquals<unknown>(args, { _: ["put", "--x"], q: true });
});

Deno.test("links: parseArgs reads short options together and with a value", () => {
  assertEquals<unknown>(parseArgs(["-abc"]), {
    _: [],
    a: true,
    b: true,
    c: true,
  });
  assertEquals<unknown>(parseArgs(["-n5", "-m", "6", "-k=7"]), {
    _: [],
    n: 5,
    m: 6,
    k: 7,
  });
});

Deno.test("links: parseArgs takes true and false after a boolean, and nothing else", () => {
  const options = { boolean: "b" } as const;
  assertEquals<unknown>(parseArgs(["--b", "false"], options), {
    _: [],
    b: false,
  });
  assertEquals<unknown>(parseArgs(["--b", "x"], options), {
    _: ["x"],
    b: true,
  });
  assertEquals<unknown>(parseArgs(["--b=false"], options), { _: [], b: false });
});

Deno.test("links: parseArgs asks about what is not declared", () => {
  const seen: unknown[] = [];
  const args = parseArgs(["put", "--known", "1", "--other=2", "-x"], {
    string: ["known"],
    unknown: (arg, key, value) => {
      seen.push([arg, key, value]);
      return key === undefined;
    },
  });
  assertEquals<unknown>(args, { _: ["put"], known: "1" });
  assertEquals(seen, [
    ["put", undefined, undefined],
    ["--other=2", "other", 2],
    ["-x", "x", true],
  ]);
});

Deno.test("links: parseArgs does not touch prototypes", () => {
  const args = parseArgs(["--__proto__", "x", "--__proto__.polluted=1"]);
  assertEquals(Object.getPrototypeOf(args), Object.prototype);
  assertEquals(Object.hasOwn(Object.prototype, "polluted"), false);
});

Deno.test("links: every assertion can fail", async () => {
  const failing: (() => void)[] = [
    () => standIn.assert(0),
    () => standIn.assertEquals<unknown>({ a: [1] }, { a: [2] }),
    () => standIn.assertNotEquals([1], [1]),
    () => standIn.assertStrictEquals<unknown>([1], [1]),
    () => standIn.assertExists(null),
    () => standIn.assertGreater(1, 1),
    () => standIn.assertGreaterOrEqual(1, 2),
    () => standIn.assertLess(1, 1),
    () => standIn.assertLessOrEqual(2, 1),
    () => standIn.assertStringIncludes("abc", "d"),
    () => standIn.assertMatch("abc", /d/),
    () => standIn.assertThrows(() => {}),
    () =>
      standIn.assertThrows(() => {
        throw new TypeError("x");
      }, RangeError),
    () =>
      standIn.assertThrows(
        () => {
          throw new TypeError("x");
        },
        TypeError,
        "y",
      ),
    () => standIn.fail("x"),
  ];
  for (const check of failing) {
    let failed: unknown;
    try {
      check();
    } catch (error) {
      failed = error;
    }
    // Not with `assertThrows`, which is under test itself.
    if (!(failed instanceof standIn.AssertionError)) {
      throw new Error(`No failure: ${check}`);
    }
  }
  await assertRejects(
    () => standIn.assertRejects(() => Promise.resolve(1)),
    standIn.AssertionError,
  );
  await assertRejects(
    () => Promise.reject(new TypeError("x y")),
    TypeError,
    "y",
  );
});

Deno.test("links: every assertion can hold", () => {
  standIn.assertEquals(new Uint8Array([1, 2]), new Uint8Array([1, 2]));
  standIn.assertNotEquals(1, 2);
  standIn.assertStrictEquals("a", "a");
  standIn.assertExists(0);
  standIn.assertGreater(2, 1);
  standIn.assertGreaterOrEqual(2n, 2n);
  standIn.assertLess("a", "b");
  standIn.assertLessOrEqual(1, 1);
  standIn.assertMatch("abc", /b/);
  const error = assertThrows(() => standIn.fail("why"), Error, "why");
  assertStringIncludes(error.message, "Failed assertion: why");
});

Deno.test("links: colours can be switched off", () => {
  const before = colors.getColorEnabled();
  try {
    colors.setColorEnabled(true);
    assertEquals(colors.red("x"), "\x1b[31mx\x1b[39m");
    colors.setColorEnabled(false);
    assertEquals(colors.bold(colors.red("x")), "x");
    assert(!colors.getColorEnabled());
  } finally {
    colors.setColorEnabled(before);
  }
});

Deno.test("links: bytes are written for a person", () => {
  assertEquals(format(0), "0 B");
  assertEquals(format(1536, { binary: true }), "1.5 KiB");
  assertEquals(format(1337), "1.34 kB");
});
