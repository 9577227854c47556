/** Values of Deno KV: as they are stored, and the numbers that V8 writes. */

import { assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  fromOperand,
  isExpired,
  openValue,
  readV8Number,
  sealValue,
  toOperand,
  versionstampOf,
} from "../kvvalue.ts";
import { runs } from "./arbitrary.ts";

/** Bytes from hexadecimal digits. */
function hex(text: string): Uint8Array {
  const pairs = text.match(/../g) ?? [];
  return Uint8Array.from(pairs, (pair) => Number.parseInt(pair, 16));
}

Deno.test("kvvalue: what is sealed comes back", () => {
  const value = fc.record({
    encoding: fc.constantFrom("v8" as const, "u64" as const, "bytes" as const),
    data: fc.uint8Array({ minLength: 8, maxLength: 8 }),
    expireAtMs: fc.oneof(
      fc.constant(0),
      fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
    ),
  });
  fc.assert(
    fc.property(
      value,
      (one) => assertEquals(openValue(sealValue(one)), { ...one }),
    ),
    runs(300),
  );
});

Deno.test("kvvalue: whatever else stands in the store is bytes without an end", () => {
  for (
    const text of [
      "",
      "00",
      "04ff",
      "7b7d",
      "8001",
      "8100000000000000",
      "810000000000000000",
      "81ffffffffffffffff01",
      "020102",
      "8200000000000000010102",
    ]
  ) {
    const data = hex(text);
    assertEquals(
      openValue(data),
      { encoding: "bytes", data, expireAtMs: 0 },
      text,
    );
  }
});

Deno.test("kvvalue: an entry is gone from the millisecond on that it names", () => {
  const at = (expireAtMs: number) =>
    isExpired({ encoding: "v8", data: hex(""), expireAtMs }, 1000);
  assertEquals([at(0), at(999), at(1000), at(1001)], [
    false,
    true,
    true,
    false,
  ]);
});

Deno.test("kvvalue: numbers that V8 wrote are read", () => {
  const cases: [string, number | bigint][] = [
    ["ff104902", 1],
    ["ff0f4901", -1],
    ["ff0f49ffffffff0f", -(2 ** 31)],
    ["ff0f55ffffffff0f", 2 ** 32 - 1],
    ["ff0f4e000000000000f83f", 1.5],
    ["ff0f5a00", 0n],
    ["ff105a100500000000000000", 5n],
    ["ff0f5a110100000000000000", -1n],
    ["ff0f5a2000000000000000004000000000000000", 2n ** 70n],
  ];
  for (const [text, expected] of cases) {
    assertEquals(readV8Number(hex(text))?.value, expected, text);
  }
});

Deno.test("kvvalue: what is no number is none", () => {
  const cases = [
    "",
    "ff",
    "ff0f",
    "ff0f49",
    "ff0f4902ff",
    "ff0f4980808080808001",
    "ff0f4e00",
    "ff0f5a10ff",
    "ff0f220161",
    "0f4902",
    "ff0f54",
  ];
  for (const text of cases) assertEquals(readV8Number(hex(text)), null, text);
  assertEquals(toOperand({ encoding: "bytes", data: hex("ff104902") }), null);
});

Deno.test("kvvalue: numbers come back from their bytes", () => {
  const operand = fc.oneof(
    fc.record({
      type: fc.constant("number" as const),
      value: fc.double(),
    }),
    fc.record({ type: fc.constant("bigint" as const), value: fc.bigInt() }),
    fc.record({
      type: fc.constant("u64" as const),
      value: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    }),
  );
  fc.assert(
    fc.property(operand, (one) => {
      assertEquals(toOperand(fromOperand(one)), { ...one });
    }),
    runs(500),
  );
});

Deno.test("kvvalue: versionstamps rise with revisions", () => {
  assertEquals(versionstampOf(1), "\0\0\0\0\0\0\0\x01\0\0");
  assertEquals(versionstampOf(0x1234), "\0\0\0\0\0\0\x12\x34\0\0");
  const revisions = [1, 255, 256, 65_535, 2 ** 32, Number.MAX_SAFE_INTEGER];
  const stamps = revisions.map(versionstampOf);
  assertEquals([...stamps].sort(), stamps);
});

Deno.test("kvvalue: there is one NaN, whatever bits the processor gave it", () => {
  for (const bits of [0xfff8000000000000n, 0x7ff8000000000001n]) {
    const [value = 0] = new Float64Array(BigUint64Array.of(bits).buffer);
    const { data } = fromOperand({ type: "number", value });
    assertEquals(
      [...data],
      [0xff, 15, 0x4e, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f],
    );
  }
});
