/** The language of `dkv txn`: what each clause means, and what is said about wrong ones. */

import { assertEquals, assertMatch, assertThrows } from "@std/assert";
import { UsageError } from "../arguments.ts";
import { parseTransaction } from "../txn.ts";

const NONE = { if: [], then: [], else: [] };

Deno.test("txn: conditions", () => {
  const cases: [string, object][] = [
    ["version(a/b) = 0", { key: "a/b", relation: "equal", version: 0 }],
    [
      'createRevision( "a)b" )!=7',
      { key: "a)b", relation: "notEqual", createRevision: 7 },
    ],
    ["modRevision(a b) < 9", { key: "a b", relation: "less", modRevision: 9 }],
    [
      'value(a) = " two words "',
      { key: "a", relation: "equal", value: " two words " },
    ],
    ["value(a) = x = y", { key: "a", relation: "equal", value: "x = y" }],
    ["value(a) > ", { key: "a", relation: "greater", value: "" }],
    ["lease(a) == 12", { key: "a", relation: "equal", lease: 12n }],
    ["exists(a)", { key: "a", relation: "greater", version: 0 }],
    ["missing(a)", { key: "a", relation: "equal", version: 0 }],
  ];
  for (const [text, compare] of cases) {
    const { compares } = parseTransaction({ ...NONE, if: [text] });
    assertEquals(compares, [compare as NonNullable<typeof compares>[number]]);
  }
});

Deno.test("txn: operations", () => {
  const cases: [string, object][] = [
    ["put a b", { type: "put", key: "a", value: "b" }],
    [
      'put  "a b"   "c\\n\\"d" --lease 7',
      { type: "put", key: "a b", value: 'c\n"d', lease: 7n },
    ],
    ['put a ""', { type: "put", key: "a", value: "" }],
    ['put a "--b"', { type: "put", key: "a", value: "--b" }],
    ["put a -5", { type: "put", key: "a", value: "-5" }],
    ["get a", { type: "get", key: "a" }],
    ["del a", { type: "delete", key: "a" }],
    ["del --prefix a/", { type: "delete", prefix: "a/" }],
    ["list a/", { type: "list", prefix: "a/", keysOnly: false }],
    [
      "list a/ --limit 3 --keys-only",
      { type: "list", prefix: "a/", keysOnly: true, limit: 3 },
    ],
    ["add n -1", { type: "modify", function: "add", key: "n", operand: -1n }],
    ["min n 5", { type: "modify", function: "min", key: "n", operand: 5n }],
    [
      "append t more",
      { type: "modify", function: "append", key: "t", operand: "more" },
    ],
  ];
  for (const [text, operation] of cases) {
    const { then } = parseTransaction({ ...NONE, then: [text] });
    assertEquals(then, [operation as NonNullable<typeof then>[number]], text);
  }
});

Deno.test("txn: a wrong clause is shown with what is wrong", () => {
  const wrong: [keyof typeof NONE, string, RegExp][] = [
    ["if", "", /write it like version\(KEY\) = 0/],
    ["if", "version a = 0", /write it like/],
    ["if", "version() = 0", /which key\?/],
    ["if", "version(a)", /compare it: = != < >/],
    ["if", "version(a) >= 1", /there is no relation >=, only = != < >/],
    ["if", "version(a) = x", /x is not a whole number/],
    ["if", "size(a) = 1", /there is no size, only version/],
    ["if", "exists(a) = 1", /exists is compared with nothing/],
    ["if", 'value(a) = "b', /not a JSON string/],
    ["then", "", /there is no operation, only put/],
    ["then", "put a", /put takes KEY and VALUE$/],
    ["then", "put a b c", /text with spaces stands in quotes/],
    ["then", 'put a "b', /a quote that is not closed/],
    ["then", 'put "a"b c', /a quote that is not closed/],
    ["then", "put a b --ttl 5", /put has no option --ttl/],
    ["then", "put a b --lease", /--lease takes a value/],
    ["then", "get", /get takes KEY/],
    ["then", "constructor a", /there is no constructor/],
    ["else", "add n 1.5", /1\.5 is not a whole number/],
    ["else", "max n 9223372036854775808", /not a whole number of 64 bits/],
  ];
  for (const [name, text, message] of wrong) {
    const error = assertThrows(
      () => parseTransaction({ ...NONE, [name]: [text] }),
      UsageError,
    );
    assertMatch(error.message, message, text);
  }
});
