/** Keys and entries of Deno KV as people read them. */

import { assertEquals } from "@std/assert";
import { entryKey } from "../kvspace.ts";
import { sealValue } from "../kvvalue.ts";
import { decodeTupleKey, tupleText } from "../tuplekeys.ts";
import { entryText } from "../tupletext.ts";

/** Bytes from hexadecimal digits. */
function hex(text: string): Uint8Array {
  const pairs = text.replaceAll(" ", "").match(/../g) ?? [];
  return Uint8Array.from(pairs, (pair) => Number.parseInt(pair, 16));
}

Deno.test("tuplekeys: every kind of part", () => {
  const cases: [string, string][] = [
    [
      "02 62 00 21 bf f0 00 00 00 00 00 00 15 02 27 01 00 ff ff 00",
      '["b", 1, 2n, true, Uint8Array [0, 255]]',
    ],
    ["02 61 00 ff 62 00 26", '["a\\u0000b", false]'],
    ["14", "[0n]"],
    ["13 fe", "[-1n]"],
    ["12 fe ff", "[-256n]"],
    ["1d 09 40 00 00 00 00 00 00 00 00", "[1180591620717411303424n]"],
    ["0b f6 bf ff ff ff ff ff ff ff ff", "[-1180591620717411303424n]"],
    ["21 7f ff ff ff ff ff ff ff", "[-0]"],
    ["21 40 07 ff ff ff ff ff ff", "[-1.5]"],
  ];
  for (const [text, expected] of cases) {
    const parts = decodeTupleKey(hex(text));
    assertEquals(parts === null ? null : tupleText(parts), expected, text);
  }
});

Deno.test("tuplekeys: what is no key is none", () => {
  const cases = ["00", "02 61", "02 ff 00", "15", "1d 09 40", "21 00", "ff"];
  for (const text of cases) assertEquals(decodeTupleKey(hex(text)), null, text);
});

Deno.test("tupletext: an entry is what its program sees, anything else is not touched", () => {
  const bytes = (text: string) =>
    Uint8Array.from(text, (unit) => unit.charCodeAt(0));
  const key = bytes(entryKey("app", "\x02users\0\x21\xbf\xf0\0\0\0\0\0\0"));
  const value = (data: Uint8Array, expireAtMs = 0) =>
    sealValue({ encoding: "v8", data, expireAtMs });
  const name = hex("ff0f6f22046e616d652203416e6e7b01");
  assertEquals(entryText(key, value(name)), {
    key: 'denokv/app/["users", 1]',
    value: '{ name: "Ann" }',
    expires: null,
  });
  assertEquals(entryText(key, value(name, 1000)), {
    key: 'denokv/app/["users", 1]',
    value: '{ name: "Ann" } (expired)',
    expires: new Date(1000),
  });
  const u64 = sealValue({
    encoding: "u64",
    data: hex("0500000000000000"),
    expireAtMs: 0,
  });
  assertEquals(entryText(key, u64)?.value, "KvU64 5n");
  assertEquals(entryText(key, value(hex("ff0f")))?.value, "\\xff\\x0f");
  assertEquals(entryText(key, value(hex("ff0f22011b")))?.value, '"\\x1b"');
  for (const other of ["greeting", "denokv/", "denokv/app", "denokv/app/x"]) {
    assertEquals(entryText(bytes(other), name), null, other);
  }
});
