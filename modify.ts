/**
 * The step of a transaction that makes a key's new value out of its present one, so that nobody has
 * to read it first: what it is, how a command carries it (`proto/entry.proto`, message Modify), and
 * its arithmetic. Used by `batch.ts`, `store.ts` and `service.ts`. Pure.
 *
 * ```text
 *   present      function  encoding  operand    new
 *   absent       add       decimal   1          1
 *   41           add       decimal   1          42
 *   41           add       decimal   -100       -59
 *   41           max       decimal   7          41
 *   "41 seats"   add       decimal   1          refused
 *   2^63 - 1     add       decimal   1          refused
 *   2^64 - 1     add       uint64le  2          1
 *   ab           append    -         cd         abcd
 *   ab           keep      -         -          ab
 *   ab           set       -         cd         cd
 *   absent       keep, set                      refused
 * ```
 *
 * A decimal number is what a person would write, and only that: no `+`, no `-0`, no zeros in front,
 * no space or line end around it (as Redis has it). So equal numbers are equal values, and what is
 * no counter is not taken for one.
 *
 * @module
 */
import { DkvError, type ErrorCode, unreachable } from "./errors.ts";
import type { Pen, Reader } from "./wire.ts";

/** In the order of the enum's numbers. */
const FUNCTIONS = ["add", "min", "max", "append", "keep", "set"] as const;
/** In the order of the enum's numbers. */
const ENCODINGS = ["decimal", "uint64le"] as const;

/**
 * What becomes of the present value: the sum, the smaller or the larger number, both in a row, the
 * same again, or the operand. The last two want a present value, as etcd's puts that ignore the
 * value or the lease do.
 */
export type ModifyFunction = typeof FUNCTIONS[number];

/**
 * How value and operand stand for a number: as the text of a signed 64-bit integer, which must not
 * overflow; or as 8 bytes, little-endian and unsigned, whose sum wraps around (`Deno.KvU64`).
 */
export type ModifyEncoding = typeof ENCODINGS[number];

/** Stores what the function makes of the present value and the operand. */
export interface ModifyOperation {
  readonly type: "modify";
  /** One latin1 code unit for each byte. */
  readonly key: string;
  readonly function: ModifyFunction;
  /** Only numbers take notice of it. */
  readonly encoding: ModifyEncoding;
  /** A number in that encoding; for `append` and `set` any bytes, for `keep` none. */
  readonly operand: Uint8Array;
  /** The lease to attach the key to. Null: it keeps the one it has; 0n: it loses it. */
  readonly lease: bigint | null;
  readonly returnPrevious: boolean;
}

/** Why there is no new value. The message is Latin-1, because sessions remember it. */
export interface Refusal {
  readonly code: ErrorCode;
  readonly message: string;
}

const INT64_MIN = -(2n ** 63n);
const INT64_MAX = 2n ** 63n - 1n;
/** Of `INT64_MIN`. */
const DECIMAL_BYTES_MAX = 20;
const DECIMAL_REGEXP = /^(0|-?[1-9][0-9]*)$/;
const UINT64_BYTES = 8;
/** How much of a key or value a message shows. */
const SHOWN_BYTES = 40;

/** What is wrong with the operand by itself; null if nothing. */
export function checkOperand(operation: ModifyOperation): Refusal | null {
  const { encoding, operand } = operation;
  switch (operation.function) {
    case "append":
    case "keep":
    case "set":
      return null;
    case "add":
    case "min":
    case "max":
      break;
    default:
      unreachable(operation.function);
  }
  if (decode(operand, encoding) !== null) return null;
  return {
    code: "MALFORMED",
    message: `The operand of ${operation.function} is no ${nameOf(encoding)}: ${
      shown(operand, encoding)
    }`,
  };
}

/**
 * The new value; `present` is null if the key does not exist: then numbers begin with the operand.
 * A function of its arguments alone: all replicas come to the same bytes, or to the same refusal.
 */
export function modified(
  operation: ModifyOperation,
  { present, valueBytesMax }: {
    present: Uint8Array | null;
    valueBytesMax: number;
  },
): Uint8Array | Refusal {
  if (operation.function === "append") {
    return appended(operation, { present, valueBytesMax });
  }
  if (operation.function === "keep" || operation.function === "set") {
    if (present === null) {
      const message = `There is no key ${quoted(operation.key)}`;
      return { code: "KEY_NOT_FOUND", message };
    }
    return operation.function === "set" ? operation.operand : present.slice();
  }
  const error = checkOperand(operation);
  if (error !== null) return error;
  const { key, encoding, operand } = operation;
  if (present === null) return operand;
  const number = decode(present, encoding);
  if (number === null) {
    return {
      code: "VALUE_INVALID",
      message: `The value of the key ${quoted(key)} is no ${
        nameOf(encoding)
      }: ${shown(present, encoding)}`,
    };
  }
  const by = decode(operand, encoding)!;
  switch (operation.function) {
    case "add":
      return sum(operation, [number, by]);
    case "min":
      return by < number ? operand : present.slice();
    case "max":
      return by > number ? operand : present.slice();
  }
}

function sum(
  { key, encoding }: ModifyOperation,
  [number, by]: readonly [bigint, bigint],
): Uint8Array | Refusal {
  const total = number + by;
  if (encoding === "uint64le") {
    const bytes = new Uint8Array(UINT64_BYTES);
    new DataView(bytes.buffer).setBigUint64(0, total, true);
    return bytes;
  }
  if (total >= INT64_MIN && total <= INT64_MAX) {
    return latin1(total.toString());
  }
  return {
    code: "VALUE_INVALID",
    message: `The number at the key ${
      quoted(key)
    } has 64 bits at most, which ${number} + ${by} has not`,
  };
}

function appended(
  { key, operand }: ModifyOperation,
  { present, valueBytesMax }: {
    present: Uint8Array | null;
    valueBytesMax: number;
  },
): Uint8Array | Refusal {
  const before = present?.length ?? 0;
  const length = before + operand.length;
  if (length > valueBytesMax) {
    return {
      code: "VALUE_TOO_LARGE",
      message: `The value of the key ${
        quoted(key)
      } would be too large: ${length} bytes, at most ${valueBytesMax}`,
    };
  }
  if (present === null) return operand;
  const bytes = new Uint8Array(length);
  bytes.set(present);
  bytes.set(operand, before);
  return bytes;
}

// ------------------------------------------------------------------ numbers

/** The number that bytes stand for; null if for none. */
function decode(bytes: Uint8Array, encoding: ModifyEncoding): bigint | null {
  if (encoding === "uint64le") {
    if (bytes.length !== UINT64_BYTES) return null;
    const { buffer, byteOffset } = bytes;
    return new DataView(buffer, byteOffset, UINT64_BYTES)
      .getBigUint64(0, true);
  }
  if (bytes.length > DECIMAL_BYTES_MAX) return null;
  const text = String.fromCharCode(...bytes);
  if (!DECIMAL_REGEXP.test(text)) return null;
  const number = BigInt(text);
  return number >= INT64_MIN && number <= INT64_MAX ? number : null;
}

function latin1(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

function nameOf(encoding: ModifyEncoding): string {
  return encoding === "decimal"
    ? "decimal number of 64 bits"
    : "number of 8 bytes";
}

function shown(bytes: Uint8Array, encoding: ModifyEncoding): string {
  return encoding === "uint64le"
    ? `${bytes.length} bytes`
    : quoted(String.fromCharCode(...bytes.subarray(0, SHOWN_BYTES + 1)));
}

/** Cut when long; Latin-1 if the text is. */
function quoted(text: string): string {
  return JSON.stringify(
    text.length > SHOWN_BYTES ? `${text.slice(0, SHOWN_BYTES)}...` : text,
  );
}

// ------------------------------------------------------------------ encoding

/** Writes message Modify of `proto/entry.proto`. */
export function writeModify(
  pen: Pen,
  field: number,
  operation: ModifyOperation,
): void {
  const { key, operand, lease } = operation;
  const start = pen.open(field);
  if (key !== "") pen.latin1(1, key);
  const which = FUNCTIONS.indexOf(operation.function);
  if (which !== 0) pen.int64(2, which);
  const encoding = ENCODINGS.indexOf(operation.encoding);
  if (encoding !== 0) pen.int64(3, encoding);
  if (operand.length !== 0) pen.bytes(4, operand);
  if (lease !== null) pen.sfixed64(5, lease);
  if (operation.returnPrevious) pen.int64(6, 1);
  pen.close(start);
}

/**
 * Reads what {@linkcode writeModify} wrote. Bytes that are none end in `DkvError` MALFORMED, as do
 * functions and encodings that this version does not know.
 */
export function readModify(reader: Reader): ModifyOperation {
  let key = "";
  let which = 0;
  let how = 0;
  let operand: Uint8Array = new Uint8Array(0);
  let lease: bigint | null = null;
  let returnPrevious = false;
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === (1 << 3 | 2)) key = reader.latin1();
    else if (tag === 2 << 3) which = reader.int64();
    else if (tag === 3 << 3) how = reader.int64();
    else if (tag === (4 << 3 | 2)) operand = reader.bytes();
    else if (tag === (5 << 3 | 1)) lease = reader.sfixed64();
    else if (tag === 6 << 3) returnPrevious = reader.bool();
    else throw malformed(`unknown field ${tag >> 3} of wire type ${tag & 7}`);
  }
  const name = FUNCTIONS[which];
  if (name === undefined) throw malformed(`function ${which}`);
  const encoding = ENCODINGS[how];
  if (encoding === undefined) throw malformed(`encoding ${how}`);
  return {
    type: "modify",
    key,
    function: name,
    encoding,
    operand,
    lease,
    returnPrevious,
  };
}

function malformed(what: string): DkvError {
  return new DkvError("MALFORMED", `Command is malformed: ${what}`);
}
