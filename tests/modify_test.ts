/** What a modification makes of a value: numbers at their limits, texts that only look like numbers. */

import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { checkOperand, modified, type ModifyOperation } from "../modify.ts";
import { runs } from "./arbitrary.ts";

const INT64_MAX = "9223372036854775807";
const INT64_MIN = "-9223372036854775808";
const VALUE_BYTES_MAX = 30;

function bytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function uint64(number: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, number, true);
  return bytes;
}

function operation(
  name: ModifyOperation["function"],
  operand: Uint8Array,
  encoding: ModifyOperation["encoding"] = "decimal",
): ModifyOperation {
  return {
    type: "modify",
    key: "k",
    function: name,
    encoding,
    operand,
    lease: null,
    returnPrevious: false,
  };
}

/** The new value as text, or the code of the refusal. */
function decimal(
  present: string | null,
  name: ModifyOperation["function"],
  operand: string,
): string {
  const outcome = modified(operation(name, bytes(operand)), {
    present: present === null ? null : bytes(present),
    valueBytesMax: VALUE_BYTES_MAX,
  });
  return "code" in outcome ? outcome.code : new TextDecoder().decode(outcome);
}

/** The new value as a number, or the code of the refusal. */
function binary(
  present: Uint8Array | null,
  name: ModifyOperation["function"],
  operand: Uint8Array,
): bigint | string {
  const outcome = modified(operation(name, operand, "uint64le"), {
    present,
    valueBytesMax: VALUE_BYTES_MAX,
  });
  if ("code" in outcome) return outcome.code;
  assertEquals(outcome.length, 8);
  return new DataView(outcome.buffer, outcome.byteOffset).getBigUint64(0, true);
}

Deno.test("modify: decimal sums, from nothing to both ends of 64 bits", () => {
  const cases: [string | null, string, string][] = [
    [null, "5", "5"],
    [null, "-5", "-5"],
    ["0", "0", "0"],
    ["41", "1", "42"],
    ["41", "-100", "-59"],
    ["-1", "1", "0"],
    ["9007199254740993", "2", "9007199254740995"],
    [`${2n ** 63n - 2n}`, "1", INT64_MAX],
    [INT64_MAX, "1", "VALUE_INVALID"],
    [INT64_MAX, INT64_MAX, "VALUE_INVALID"],
    [INT64_MAX, INT64_MIN, "-1"],
    [INT64_MIN, "-1", "VALUE_INVALID"],
    [INT64_MIN, "1", "-9223372036854775807"],
  ];
  for (const [present, operand, expected] of cases) {
    assertEquals(
      decimal(present, "add", operand),
      expected,
      `${present} + ${operand}`,
    );
  }
});

Deno.test("modify: the smaller and the larger number, as numbers and not as texts", () => {
  const cases: [string | null, string, string, string][] = [
    [null, "7", "7", "7"],
    ["9", "10", "9", "10"],
    ["10", "9", "9", "10"],
    ["-9", "-10", "-10", "-9"],
    ["5", "5", "5", "5"],
    [INT64_MIN, INT64_MAX, INT64_MIN, INT64_MAX],
  ];
  for (const [present, operand, min, max] of cases) {
    assertEquals(decimal(present, "min", operand), min);
    assertEquals(decimal(present, "max", operand), max);
  }
});

Deno.test("modify: only what a person would write is a decimal number", () => {
  const none = [
    "",
    "-",
    "+1",
    "-0",
    "00",
    "01",
    "-01",
    " 1",
    "1 ",
    "1\n",
    "\n1",
    "1.0",
    "1e3",
    "0x1",
    "1_000",
    "１",
    "abc",
    "9223372036854775808",
    "-9223372036854775809",
    "1".repeat(20),
    "1".repeat(100_000),
  ];
  for (const text of none) {
    const shown = JSON.stringify(text.slice(0, 30));
    for (const name of ["add", "min", "max"] as const) {
      assertEquals(decimal(text, name, "1"), "VALUE_INVALID", shown);
      assertEquals(decimal("1", name, text), "MALFORMED", shown);
      assertEquals(decimal(null, name, text), "MALFORMED", shown);
    }
    const error = checkOperand(operation("add", bytes(text)));
    assertEquals(error?.code, "MALFORMED", shown);
  }
  for (const text of ["0", "-1", INT64_MAX, INT64_MIN]) {
    assertEquals(checkOperand(operation("add", bytes(text))), null);
  }
});

Deno.test("modify: 8 bytes wrap around, and compare without a sign", () => {
  const top = 2n ** 64n - 1n;
  const cases: [bigint | null, bigint, bigint, bigint, bigint][] = [
    [null, 5n, 5n, 5n, 5n],
    [1n, 2n, 3n, 1n, 2n],
    [top, 1n, 0n, 1n, top],
    [top, 2n, 1n, 2n, top],
    [top, top, top - 1n, top, top],
    [2n ** 63n, 2n ** 63n, 0n, 2n ** 63n, 2n ** 63n],
    [2n ** 63n, 1n, 2n ** 63n + 1n, 1n, 2n ** 63n],
  ];
  for (const [present, operand, add, min, max] of cases) {
    const before = present === null ? null : uint64(present);
    const by = uint64(operand);
    assertEquals(binary(before, "add", by), add);
    assertEquals(binary(before, "min", by), min);
    assertEquals(binary(before, "max", by), max);
  }
  for (const length of [0, 7, 9]) {
    const wrong = new Uint8Array(length);
    assertEquals(binary(wrong, "add", uint64(1n)), "VALUE_INVALID");
    assertEquals(binary(uint64(1n), "max", wrong), "MALFORMED");
  }
  // Views into larger buffers are read where they are.
  const view = new Uint8Array([9, 9, 9, ...uint64(41n), 9]).subarray(3, 11);
  assertEquals(binary(view, "add", uint64(1n)), 42n);
});

Deno.test("modify: bytes are joined up to the largest value, whatever they mean", () => {
  const joined = (present: string | null, operand: string) =>
    decimal(present, "append", operand);
  assertEquals(joined(null, "ab"), "ab");
  assertEquals(joined("", ""), "");
  assertEquals(joined("ab", "cd"), "abcd");
  assertEquals(joined("x".repeat(29), "y"), `${"x".repeat(29)}y`);
  assertEquals(joined("x".repeat(29), "yz"), "VALUE_TOO_LARGE");
  assertEquals(joined(null, "x".repeat(31)), "VALUE_TOO_LARGE");
  assertEquals(checkOperand(operation("append", bytes("no number"))), null);
  const present = bytes("ab");
  const before = { present, valueBytesMax: VALUE_BYTES_MAX };
  modified(operation("append", bytes("cd")), before);
  assertEquals(present, bytes("ab"), "the present value is nobody's to change");
});

Deno.test("modify: a refusal names key, value and limit in Latin-1, and never at length", () => {
  const key = "\xff".repeat(4096);
  const cases: [Partial<ModifyOperation>, Uint8Array, string[]][] = [
    [{ key: "sold" }, bytes("abc"), ['"sold"', '"abc"']],
    [{ key }, new Uint8Array(5000).fill(255), ["..."]],
    [{ operand: bytes("2") }, bytes(INT64_MAX), [INT64_MAX, " + 2"]],
    [{ encoding: "uint64le", operand: uint64(1n) }, bytes("abc"), ["3 bytes"]],
    [{ function: "append" }, new Uint8Array(30), ["31 bytes", "most 30"]],
    [{ operand: bytes("x\x01") }, bytes("1"), ['"x\\u0001"']],
  ];
  for (const [part, present, says] of cases) {
    const outcome = modified({ ...operation("add", bytes("1")), ...part }, {
      present,
      valueBytesMax: VALUE_BYTES_MAX,
    });
    assert("code" in outcome, JSON.stringify(part));
    const { message } = outcome;
    for (const text of says) assert(message.includes(text), message);
    assert(message.length < 300, message);
    assert(/^[\x20-\xff]*$/.test(message), message);
  }
});

Deno.test("modify: a sum of many operands does not depend on their order", () => {
  const int = fc.bigInt({ min: -(2n ** 55n), max: 2n ** 55n });
  const property = fc.property(fc.array(int, { maxLength: 50 }), (numbers) => {
    let present: string | null = null;
    for (const number of numbers) {
      present = decimal(present, "add", number.toString());
    }
    const sum = numbers.reduce((sum, number) => sum + number, 0n);
    assertEquals(present ?? "0", sum.toString());
  });
  fc.assert(property, runs(100));
});
