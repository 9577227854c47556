/** How words are split, and what is said about wrong ones. */

import {
  assert,
  assertEquals,
  assertMatch,
  assertStrictEquals,
  assertThrows,
} from "@std/assert";
import {
  type Arguments,
  closest,
  parse,
  toDurationMs,
  toLease,
  UsageError,
} from "../arguments.ts";
import { COMMANDS, SYNONYMS } from "../commands.ts";

function split(line: string): Arguments {
  const args = line.split(" ").filter((word) => word !== "");
  return parse(args, { commands: COMMANDS, synonyms: SYNONYMS });
}

Deno.test("arguments: words, options and what stands behind two dashes", () => {
  const args = split("lock a/b --ttl 30s --json -- make -j4 --json");
  assertEquals([args.command, args.words], ["lock", ["a/b"]]);
  assertEquals(args.after, ["make", "-j4", "--json"]);
  assertEquals(args.duration("ttl"), 30_000);
  assert(args.flag("json"));
  assertStrictEquals(args.text("wait"), undefined);
  // A task passes the first two dashes on.
  const task = split("-- put a 007");
  assertEquals(task.take("KEY", "VALUE"), ["a", "007"]);
  assertEquals(split("put t -- -5").take("KEY", "VALUE"), ["t", "-5"]);
  const txn = split("txn --if=version(a)=0 --then a --then b");
  assertEquals(txn.texts("if"), ["version(a)=0"]);
  assertEquals(txn.texts("then"), ["a", "b"]);
  assertEquals(split("list --prefix=").textOrEmpty("prefix"), "");
});

Deno.test("arguments: a wrong command or option suggests the right one", () => {
  const wrong: [string, RegExp][] = [
    ["gte a", /no command gte; did you mean get\?/],
    ["satus", /did you mean status\?/],
    ["transfer", /did you mean transfer-leader\?/],
    ["ls", /did you mean list\?/],
    ["frobnicate", /no command frobnicate$/],
    ["constructor", /no command constructor$/],
    ["list --limt 3", /no option --limt; did you mean --limit\?/],
    ["list --key", /did you mean --keys-only\?/],
    ["put a -5", /no option -5; a value that begins with a dash stands behind/],
    ["get a --rejoin", /get has no option --rejoin$/],
    ["get a --limit 5", /get has no option --limit$/],
  ];
  for (const [line, message] of wrong) {
    const error = assertThrows(() => split(line), UsageError);
    assertMatch(error.message, message, line);
  }
  assertEquals(closest("x", ["put", "get"]), undefined);
});

Deno.test("arguments: times, numbers, leases", () => {
  const times = { "0": 0, "800": 800, "5ms": 5, "5s": 5000, "2m": 120_000 };
  for (const [text, ms] of Object.entries({ ...times, "1h": 3_600_000 })) {
    assertEquals(toDurationMs(text, "it"), ms);
  }
  for (const text of ["", "5y", "-5s", "1.5s", "s", "9999999999"]) {
    assertThrows(() => toDurationMs(text, "it"), UsageError);
  }
  assertEquals(toLease("9223372036854775807", "it"), 2n ** 63n - 1n);
  for (const text of ["", "0", "-1", "x", "9223372036854775808"]) {
    assertThrows(() => toLease(text, "it"), UsageError);
  }
  assertEquals(split("list --limit 3").number("limit"), 3);
  for (const text of ["-3", "3.5", "x", "1e3", "12345678901234567"]) {
    const args = split(`list --limit=${text}`);
    assertThrows(() => args.number("limit"), UsageError);
  }
});
