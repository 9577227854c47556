/**
 * What a program can ask of the store, and how the hot part of it looks on the wire: one
 * `PipelineOperation` of `proto/kvstore.proto` as bytes. Used by `client.ts` and `requests.ts`.
 *
 * An operation is encoded when it is issued, so a caller may change its buffers afterwards, and is
 * sent again as the same bytes. By hand, because this is the path of every operation: lengths of
 * nested messages and the timeout are varints of fixed width, filled in afterwards.
 *
 * Encoding: https://protobuf.dev/programming-guides/encoding/
 *
 * @module
 */

import { DkvError, unreachable } from "./errors.ts";

/** Options of every operation. */
export interface CallOptions {
  /** Give up after this long. Default: that of the client, 5000. */
  readonly timeoutMs?: number;
  /** Give up when this is aborted; the operation then rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

/** A key: a string stands for its UTF-8 bytes. */
export type Key = string | Uint8Array;

/** A value: a string stands for its UTF-8 bytes. */
export type Value = string | Uint8Array;

/**
 * Anything that JSON can say, as a value; `Entry.json` reads it again.
 *
 * ```ts
 * import { connect, json } from "./client.ts";
 *
 * await using kv = await connect("127.0.0.1:50051");
 * await kv.put("flight/7", json({ seats: 180 }));
 * ```
 *
 * @throws {DkvError} MALFORMED if JSON has no words for it: undefined, a function, a bigint, a
 * circle.
 */
export function json(value: unknown): string {
  let text: string | undefined;
  let cause: unknown;
  try {
    text = JSON.stringify(value);
  } catch (error) {
    cause = error;
  }
  if (text !== undefined) return text;
  const why = cause instanceof Error
    ? cause.message.split("\n")[0]
    : typeof value;
  throw new DkvError("MALFORMED", `The value is no JSON: ${why}`, { cause });
}

/** Keys from `start` up to but without `end`, in the order of their bytes. */
export interface KeyRange {
  /** Default: from the very first key. */
  readonly start?: Key;
  /** Default: no upper bound. */
  readonly end?: Key;
}

/** Several keys: those that begin with a prefix, or those of a range. */
export type Keys = { readonly prefix: Key } | { readonly range: KeyRange };

/** One key or several. */
export type Target = { readonly key: Key } | Keys;

/** How a comparison relates what is stored to what is given. */
export type Relation = "equal" | "notEqual" | "less" | "greater";

/**
 * A condition on one key, for example `{ key: "seat/12A", version: 0 }`: there is no such key.
 * A key that does not exist has version 0, revisions 0, lease 0 and no value: any comparison with
 * its value is false.
 */
export type Compare =
  & {
    readonly key: Key;
    /** Default: equal. */
    readonly relation?: Relation;
  }
  & (
    | { readonly version: number }
    | { readonly createRevision: number }
    | { readonly modRevision: number }
    | { readonly value: Value }
    | { readonly lease: bigint }
  );

/** Stores a value. */
export interface PutOperation {
  /** Says which operation it is. */
  readonly type: "put";
  /** Where to store it. */
  readonly key: Key;
  /** What to store. */
  readonly value: Value;
  /** The lease to attach the key to. Default: none. */
  readonly lease?: bigint;
  /** Answer with the entry that was replaced. */
  readonly returnPrevious?: boolean;
}

/** Reads one key. */
export interface GetOperation {
  /** Says which operation it is. */
  readonly type: "get";
  /** What to read. */
  readonly key: Key;
}

/** Deletes one key or several. */
export type DeleteOperation = Target & {
  readonly type: "delete";
  /** Answer with the entries that were deleted. */
  readonly returnPrevious?: boolean;
};

/** Reads several keys. */
export type ListOperation = Keys & {
  readonly type: "list";
  /** Stop after this many; default: no limit. */
  readonly limit?: number;
  /** Leave values out. */
  readonly keysOnly?: boolean;
  /** From the last key to the first. */
  readonly reverse?: boolean;
};

/**
 * Computes a key's new value out of its present one, so that nobody has to read it first. A write
 * like a put: it creates the key, and makes a new version even of an equal value.
 *
 * - `add`: the sum of both numbers, `min` the smaller one, `max` the larger one; the operand if
 *   there is no such key;
 * - `append`: the bytes of both, the operand's behind.
 *
 * Where the present value is no number, or the sum is too large, the whole transaction is refused
 * with VALUE_INVALID and nothing is done.
 */
export type ModifyOperation =
  & {
    /** Says which operation it is. */
    readonly type: "modify";
    /** Whose value to change. */
    readonly key: Key;
    /** The lease to attach the key to; 0n detaches it. Default: it keeps the one it has. */
    readonly lease?: bigint;
    /** Answer with the entry that was replaced. */
    readonly returnPrevious?: boolean;
  }
  & (
    | {
      /** What to compute. */
      readonly function: "add" | "min" | "max";
      /** The other number. */
      readonly operand: number | bigint;
      /**
       * How numbers are stored: `decimal` as the text of a signed 64-bit integer, such as `-42`
       * (no `+`, no zeros in front, no spaces), which must not overflow; `uint64le` as 8 bytes,
       * little-endian and unsigned, whose sum wraps around. Default: decimal.
       */
      readonly encoding?: "decimal" | "uint64le";
    }
    | {
      /** Makes the value longer. */
      readonly function: "append";
      /** What to put behind it. */
      readonly operand: Value;
    }
  );

/** One step of a transaction. */
export type Operation =
  | PutOperation
  | GetOperation
  | DeleteOperation
  | ListOperation
  | ModifyOperation;

/** What to compare, and what to do then. */
export interface Transaction {
  /** All must hold for `then` to run; otherwise `else` runs. Default: none, so `then` runs. */
  readonly compares?: readonly Compare[];
  /** What runs if all comparisons hold, in order. */
  readonly then?: readonly Operation[];
  /** What runs otherwise. */
  readonly else?: readonly Operation[];
}

/** True if a transaction changes nothing, whatever its comparisons say. */
export function onlyReads(transaction: Transaction): boolean {
  const operations = [...transaction.then ?? [], ...transaction.else ?? []];
  return operations.every(({ type }) => type === "get" || type === "list");
}

/** What a pipelined operation carries beside itself. */
export interface Frame {
  readonly id: number;
  /** 0 for a read. */
  readonly sequence: number;
}

/** A `PipelineOperation`, ready to be put into a request. */
export interface EncodedOperation {
  /** With tag and length, as field `operations` of a `PipelineRequest`. */
  readonly bytes: Uint8Array;
  /** Where {@linkcode setTimeoutMs} writes. */
  readonly timeoutAt: number;
}

/** Larger operations are refused here, so that they cannot break the stream of all others. */
export const OPERATION_BYTES_MAX = 8 * 1024 * 1024;
/** Wide enough for {@linkcode OPERATION_BYTES_MAX}. */
const LENGTH_BYTES = 4;
const TIMEOUT_BYTES = 4;
const TIMEOUT_MS_MAX = 2 ** (7 * TIMEOUT_BYTES) - 1;
const SLAB_BYTES = 32 * 1024;

const encoder = new TextEncoder();

/** A key or value as bytes. */
export function toBytes(text: string | Uint8Array): Uint8Array {
  return typeof text === "string" ? encoder.encode(text) : text;
}

/** The range that a target names, as `Range` has it: an empty end is no upper bound. */
export function toRange(
  target: Keys,
): { start: Uint8Array; end: Uint8Array } {
  if ("prefix" in target) {
    const start = toBytes(target.prefix);
    return { start, end: prefixEnd(start) };
  }
  const { start = "", end = "" } = target.range;
  return { start: toBytes(start), end: toBytes(end) };
}

/** The first key behind all that begin with `prefix`; empty if there is none. */
export function prefixEnd(prefix: Uint8Array): Uint8Array {
  let length = prefix.length;
  while (length > 0 && prefix[length - 1] === 0xff) length--;
  const end = prefix.slice(0, length);
  if (length > 0) end[length - 1] = (end[length - 1] ?? 0) + 1;
  return end;
}

/** Encodes a put. */
export function encodePut(
  { id, sequence }: Frame,
  put: Omit<PutOperation, "type">,
): EncodedOperation {
  const timeoutAt = begin(id, sequence);
  writePut(4, put);
  return finish(timeoutAt);
}

/** Encodes a get. */
export function encodeGet(
  { id, sequence }: Frame,
  get: { key: Key; revision: number; serializable: boolean },
): EncodedOperation {
  const timeoutAt = begin(id, sequence);
  const at = open(5);
  writeBytes(1, get.key);
  writeNumber(2, get.revision);
  writeBoolean(3, get.serializable);
  close(at);
  return finish(timeoutAt);
}

/** Encodes a delete. */
export function encodeDelete(
  { id, sequence }: Frame,
  remove: Omit<DeleteOperation, "type"> & Target,
): EncodedOperation {
  const timeoutAt = begin(id, sequence);
  writeDelete(6, remove);
  return finish(timeoutAt);
}

/** Encodes a transaction. */
export function encodeTransaction(
  { id, sequence }: Frame,
  transaction: Transaction,
): EncodedOperation {
  const timeoutAt = begin(id, sequence);
  const at = open(7);
  for (const compare of transaction.compares ?? []) writeCompare(1, compare);
  for (const operation of transaction.then ?? []) writeOperation(2, operation);
  for (const operation of transaction.else ?? []) writeOperation(3, operation);
  close(at);
  return finish(timeoutAt);
}

/** Says how long the node may take, before the bytes are sent (again). */
export function setTimeoutMs(
  { bytes, timeoutAt }: EncodedOperation,
  timeoutMs: number,
): void {
  const ms = Math.max(1, Math.min(Math.ceil(timeoutMs), TIMEOUT_MS_MAX));
  setFixedVarint(bytes, timeoutAt, ms);
}

/** The fields of a `PipelineRequest` in front of its operations. */
export function encodeHead(
  client: Uint8Array,
  doneBelow: number,
): Uint8Array<ArrayBuffer> {
  start = end;
  writeBytes(1, client);
  writeNumber(2, doneBelow);
  return slab.subarray(start, end);
}

// ------------------------------------------------------------------ messages

function begin(id: number, sequence: number): number {
  start = end;
  reserve(64);
  slab[end++] = 3 << 3 | 2;
  end += LENGTH_BYTES;
  writeNumber(1, id);
  writeNumber(2, sequence);
  slab[end++] = 3 << 3;
  end += TIMEOUT_BYTES;
  return end - TIMEOUT_BYTES - start;
}

function finish(timeoutAt: number): EncodedOperation {
  const length = end - start - 1 - LENGTH_BYTES;
  if (length > OPERATION_BYTES_MAX) {
    throw new DkvError(
      "REQUEST_TOO_LARGE",
      `The request is too large: ${length} bytes, at most ${OPERATION_BYTES_MAX}`,
    );
  }
  const bytes = slab.subarray(start, end);
  setFixedVarint(bytes, 1, length);
  setFixedVarint(bytes, timeoutAt, 0);
  if (slab.length > SLAB_BYTES) {
    // What comes next must not keep a large message alive.
    slab = new Uint8Array(0);
    start = end = 0;
  }
  return { bytes, timeoutAt };
}

function writePut(field: number, put: Omit<PutOperation, "type">): void {
  const at = open(field);
  writeBytes(1, put.key);
  writeBytes(2, put.value);
  if (put.lease !== undefined) writeLease(3, put.lease);
  writeBoolean(4, put.returnPrevious);
  close(at);
}

function writeDelete(
  field: number,
  remove: Target & { returnPrevious?: boolean },
): void {
  const at = open(field);
  if ("key" in remove) writeBytes(1, remove.key, { always: true });
  else writeRange(2, remove);
  writeBoolean(3, remove.returnPrevious);
  close(at);
}

function writeRange(field: number, keys: Keys): void {
  const { start, end } = toRange(keys);
  const at = open(field);
  writeBytes(1, start);
  writeBytes(2, end);
  close(at);
}

function writeOperation(field: number, operation: Operation): void {
  const at = open(field);
  switch (operation.type) {
    case "put":
      writePut(1, operation);
      break;
    case "get": {
      const inner = open(2);
      writeBytes(1, operation.key);
      close(inner);
      break;
    }
    case "delete":
      writeDelete(3, operation);
      break;
    case "list": {
      const inner = open(4);
      writeRange(1, operation);
      writeNumber(3, operation.limit ?? 0);
      writeBoolean(4, operation.keysOnly);
      writeBoolean(5, operation.reverse);
      close(inner);
      break;
    }
    case "modify":
      writeModify(5, operation);
      break;
    default:
      unreachable(operation);
  }
  close(at);
}

const FUNCTIONS = { add: 0, min: 1, max: 2, append: 3 } as const;
const ENCODINGS = { decimal: 0, uint64le: 1 } as const;

function writeModify(field: number, operation: ModifyOperation): void {
  const at = open(field);
  writeBytes(1, operation.key);
  writeNumber(2, FUNCTIONS[operation.function]);
  if (operation.function === "append") writeBytes(4, operation.operand);
  else {
    const { operand, encoding = "decimal" } = operation;
    writeNumber(3, ENCODINGS[encoding]);
    writeBytes(4, encodeNumber(operand, encoding));
  }
  if (operation.lease !== undefined) writeLease(5, operation.lease);
  writeBoolean(6, operation.returnPrevious);
  close(at);
}

function encodeNumber(
  operand: number | bigint,
  encoding: keyof typeof ENCODINGS,
): Value {
  if (typeof operand === "number" && !Number.isSafeInteger(operand)) {
    throw new RangeError(`Expected a whole number below 2^53, not ${operand}`);
  }
  const number = BigInt(operand);
  const cut = encoding === "decimal"
    ? BigInt.asIntN(64, number)
    : BigInt.asUintN(64, number);
  if (cut !== number) {
    throw new RangeError(`A number in ${encoding} has 64 bits, not ${operand}`);
  }
  if (encoding === "decimal") return number.toString();
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, number, true);
  return bytes;
}

const RELATIONS = { equal: 0, notEqual: 1, less: 2, greater: 3 } as const;

function writeCompare(field: number, compare: Compare): void {
  const at = open(field);
  writeBytes(1, compare.key);
  writeNumber(2, RELATIONS[compare.relation ?? "equal"]);
  // A `oneof` says which it is by being there, so zeros are written too.
  if ("version" in compare) writeNumberAlways(3, compare.version);
  else if ("createRevision" in compare) {
    writeNumberAlways(4, compare.createRevision);
  } else if ("modRevision" in compare) {
    writeNumberAlways(5, compare.modRevision);
  } else if ("value" in compare) {
    writeBytes(6, compare.value, { always: true });
  } else if ("lease" in compare) writeLease(7, compare.lease);
  else unreachable(compare);
  close(at);
}

// ------------------------------------------------------------------ fields

/**
 * The message being written, from `start` to `end`: nothing here waits, so one is enough. What was
 * written before was handed out: an array of its own for each message would cost more than to
 * write it.
 */
let slab = new Uint8Array(SLAB_BYTES);
let start = 0;
let end = 0;

/** Makes room; the message may move to the beginning of a new slab. */
function reserve(bytes: number): void {
  if (end + bytes <= slab.length) return;
  const written = end - start;
  const needed = written + bytes;
  const larger = new Uint8Array(
    needed <= SLAB_BYTES / 4 ? SLAB_BYTES : Math.max(needed, 2 * written),
  );
  larger.set(slab.subarray(start, end));
  slab = larger;
  start = 0;
  end = written;
}

/** Begins a nested message; {@linkcode close} needs what this returns. */
function open(field: number): number {
  reserve(1 + LENGTH_BYTES);
  slab[end++] = field << 3 | 2;
  end += LENGTH_BYTES;
  return end - start;
}

function close(opened: number): void {
  const body = start + opened;
  setFixedVarint(slab, body - LENGTH_BYTES, end - body);
}

/** Four bytes wherever; a varint may have more bytes than it needs. */
function setFixedVarint(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value & 0x7f | 0x80;
  bytes[at + 1] = value >>> 7 & 0x7f | 0x80;
  bytes[at + 2] = value >>> 14 & 0x7f | 0x80;
  bytes[at + 3] = value >>> 21 & 0x7f;
}

/** Longer strings are encoded faster by TextEncoder. */
const SHORT_TEXT = 64;

function writeBytes(
  field: number,
  value: string | Uint8Array,
  { always = false } = {},
): void {
  if (value.length === 0 && !always) return;
  if (typeof value === "string") {
    if (value.length <= SHORT_TEXT && writeAscii(field, value)) return;
    value = encoder.encode(value);
  }
  reserve(12 + value.length);
  slab[end++] = field << 3 | 2;
  varint(value.length);
  slab.set(value, end);
  end += value.length;
}

/** Writes a short text if it is ASCII. */
function writeAscii(field: number, text: string): boolean {
  reserve(2 + text.length);
  const before = end;
  slab[end++] = field << 3 | 2;
  slab[end++] = text.length;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit >= 0x80) {
      end = before;
      return false;
    }
    slab[end++] = unit;
  }
  return true;
}

function writeBoolean(field: number, value: boolean | undefined): void {
  if (value !== true) return;
  reserve(2);
  slab[end++] = field << 3;
  slab[end++] = 1;
}

function writeNumber(field: number, value: number): void {
  if (value !== 0) writeNumberAlways(field, value);
}

function writeNumberAlways(field: number, value: number): void {
  if (!Number.isSafeInteger(value)) {
    throw new RangeError(`Expected a whole number below 2^53, not ${value}`);
  }
  reserve(11);
  slab[end++] = field << 3;
  if (value >= 0) varint(value);
  else varint64(BigInt(value));
}

function writeLease(field: number, lease: bigint): void {
  if (BigInt.asIntN(64, lease) !== lease) {
    throw new RangeError(`A lease id has 63 bits, not ${lease}`);
  }
  reserve(11);
  slab[end++] = field << 3;
  varint64(lease);
}

/** A safe integer, 0 or more. */
function varint(value: number): void {
  while (value >= 0x8000_0000) {
    slab[end++] = value % 128 | 0x80;
    value = Math.floor(value / 128);
  }
  while (value >= 0x80) {
    slab[end++] = value & 0x7f | 0x80;
    value >>>= 7;
  }
  slab[end++] = value;
}

function varint64(value: bigint): void {
  let rest = BigInt.asUintN(64, value);
  while (rest >= 0x80n) {
    slab[end++] = Number(rest & 0x7fn) | 0x80;
    rest >>= 7n;
  }
  slab[end++] = Number(rest);
}
