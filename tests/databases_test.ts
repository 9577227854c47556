/** Databases of Deno KV: what the configuration may say, and which token opens what. */

import {
  assert,
  assertEquals,
  assertMatch,
  assertNotEquals,
  assertThrows,
} from "@std/assert";
import { type Config, parseConfig } from "../config.ts";
import { Databases, DEVELOPMENT_TOKEN } from "../databases.ts";
import { DkvError } from "../errors.ts";
import { needs, tempDir } from "./needs.ts";

const A = "token-a-token-a-token-a";
const B = "token-b-token-b-token-b";

function config(
  databases: unknown,
  { http = "127.0.0.1:8051", limits, cluster = "dkv" }: {
    http?: string;
    limits?: object;
    cluster?: string;
  } = {},
): Config {
  const nodes = [{ id: "node1", address: "127.0.0.1:50051", http }];
  const kvConnect = { databases, limits };
  return parseConfig(JSON.stringify({ cluster, nodes, kvConnect }), "n.json");
}

/** The line that a mistake ends in. */
function lineOf(run: () => unknown): string {
  const error = assertThrows(run);
  assert(error instanceof DkvError);
  assertEquals(error.code, "CONFIG_INVALID");
  return error.message;
}

Deno.test("databases: a token opens its database, and nothing opens another", () => {
  const databases = new Databases(
    config([{ name: "a", tokens: [A] }, { name: "b", tokens: [B] }]),
  );
  const [a, b] = [databases.opened(A), databases.opened(B)];
  assertEquals([a?.database.name, b?.database.name], ["a", "b"]);
  assertNotEquals(a?.database.id, b?.database.id);
  assertEquals(databases.served(a?.dataToken ?? "")?.database.name, "a");
  assertEquals(databases.served(A), null);
  assertEquals(databases.opened(a?.dataToken ?? ""), null);
  for (const token of ["", "a", `${A} `, DEVELOPMENT_TOKEN]) {
    assertEquals([databases.opened(token), databases.served(token)], [
      null,
      null,
    ]);
  }
});

Deno.test("databases: identity and data tokens are the same everywhere and for ever", () => {
  const open = (cluster: string, tokens: string[]) =>
    new Databases(config([{ name: "a", tokens }], { cluster })).opened(A);
  assertEquals(open("dkv", [A]), open("dkv", [B, A]));
  // Data in the world depend on it.
  assertEquals(
    open("dkv", [A])?.database.id,
    "3eb924ba-1cf9-82ac-af3a-7978bc5dbbed",
  );
  assertNotEquals(open("dkv", [A])?.database.id, open("x", [A])?.database.id);
});

Deno.test("databases: without a token the own machine has one, others have none", () => {
  for (const http of ["127.0.0.1:8051", "localhost:8051", "[::1]:8051"]) {
    const databases = new Databases(config([{ name: "a" }], { http }));
    assertEquals(
      databases.opened(DEVELOPMENT_TOKEN)?.database.name,
      "a",
      http,
    );
    assertEquals(databases.opened("anything"), null);
  }
  for (const http of ["10.0.0.1:8051", "example.org:8051"]) {
    assertMatch(
      lineOf(() => config([{ name: "a" }], { http })),
      /^n\.json: kvConnect\.databases\[0\]: no token, which is allowed only/,
    );
    config([{ name: "a", tokens: [A] }], { http });
  }
});

Deno.test("databases: mistakes are told, and no token with them", () => {
  const cases: [unknown, RegExp][] = [
    [[], /kvConnect\.databases: empty, expected at least 1$/],
    [[{ name: "A" }], /databases\[0\]\.name: "A" is not a name/],
    [[{ name: "a/b", tokens: [A] }], /databases\[0\]\.name: .* is not a name/],
    [[{ name: "a", token: A }], /databases\[0\]\.token: unknown field/],
    [[{ name: "a", tokens: ["short"] }], /tokens\[0\]: is no token/],
    [[{ name: "a", tokens: [`${A} x`] }], /tokens\[0\]: is no token/],
    [[{ name: "a", tokens: [] }], /tokens: empty/],
    [
      [{ name: "a", tokens: [A] }, { name: "a", tokens: [B] }],
      /databases\[1\]: the name "a" is given twice$/,
    ],
    [
      [{ name: "a", tokens: [A] }, { name: "b", tokens: [A] }],
      /databases\[1\]: has the token of another database$/,
    ],
    [[{ name: "a" }, { name: "b" }], /databases\[1\]: has the token of/],
  ];
  for (const [databases, expected] of cases) {
    const line = lineOf(() => config(databases));
    assertMatch(line, expected);
    assertEquals(line.includes(A) || line.includes("short"), false);
  }
  const one = [{ name: "a", tokens: [A] }];
  assertMatch(
    lineOf(() => config(one, { limits: { valueBytesMax: 1000 } })),
    /limits\.valueBytesMax: 1000 is out of range, expected 65536 to 1024000$/,
  );
  assertEquals(
    config(one, { limits: { checksMax: 500 } }).kvConnect?.limits.checksMax,
    500,
  );
});

needs(["read", "write"], "databases: tokens may stand in a file", async () => {
  await using dir = await tempDir();
  const tokenFile = `${dir.path}/tokens`;
  const read = () => new Databases(config([{ name: "a", tokenFile }]));
  assertMatch(lineOf(read), /^Cannot read .*tokens of database a: /);
  await Deno.writeTextFile(tokenFile, `${A}\n${B}\n`);
  assertEquals(read().opened(B)?.database.name, "a");
  assertEquals(read().opened(DEVELOPMENT_TOKEN), null);
  await Deno.writeTextFile(tokenFile, `${A}\nshort\n`);
  const line = lineOf(read);
  assertMatch(line, /needs 1 to 16 lines, .*, not as in line 2$/);
  assertEquals(line.includes("short"), false);
  await Deno.writeTextFile(tokenFile, "\n");
  assertMatch(lineOf(read), /needs 1 to 16 lines/);
});
