/**
 * A value of Deno KV as dkv stores it, and the numbers among such values. Used by `mutations.ts`,
 * which calculates with them, `kvconnect.ts`, which hands them to clients, and `tupletext.ts`, which
 * shows them. Pure.
 *
 * ```text
 *   byte    0           1 … 8                   …
 *           encoding    Unix ms, big-endian     data      bit 7 of the first byte: it expires
 *           encoding    data                              otherwise it does not
 * ```
 *
 * @module
 */

import { assert } from "./errors.ts";

/** How the data of a value is to be read. */
export type KvEncoding = "v8" | "u64" | "bytes";

/** In the order of the wire's numbers, from 1. */
const ENCODINGS: readonly KvEncoding[] = ["v8", "u64", "bytes"];

/** A value as clients know it. */
export interface KvValue {
  readonly encoding: KvEncoding;
  /** `v8`: what V8 serialized; `u64`: 8 bytes, little-endian; `bytes`: the bytes themselves. */
  readonly data: Uint8Array;
}

/** A value and how long it is to be seen. */
export interface StoredKvValue extends KvValue {
  /** Unix milliseconds from which on it is gone; 0 means never. */
  readonly expireAtMs: number;
}

/** A number that `sum` takes. */
export type Operand =
  | { readonly type: "number"; readonly value: number }
  | { readonly type: "bigint"; readonly value: bigint }
  | { readonly type: "u64"; readonly value: bigint };

const EXPIRES = 0x80;
const U64_BYTES = 8;
const EXPIRY_BYTES = 8;

/** The encoding's number on the wire, from 1. */
export function encodingNumber(encoding: KvEncoding): number {
  return ENCODINGS.indexOf(encoding) + 1;
}

/** The encoding of a number on the wire; null if there is none. */
export function encodingOf(number: number): KvEncoding | null {
  return ENCODINGS[number - 1] ?? null;
}

/** The value as it is stored. */
export function sealValue(value: StoredKvValue): Uint8Array {
  const { encoding, data, expireAtMs } = value;
  const head = expireAtMs === 0 ? 1 : 1 + EXPIRY_BYTES;
  const sealed = new Uint8Array(head + data.length);
  sealed[0] = encodingNumber(encoding);
  if (expireAtMs !== 0) {
    sealed[0] |= EXPIRES;
    viewOf(sealed).setBigUint64(1, BigInt(expireAtMs));
  }
  sealed.set(data, head);
  return sealed;
}

/**
 * The value that {@linkcode sealValue} made bytes of; its data is a view of them. What it did not
 * make, because somebody wrote it past Deno KV, is bytes that do not expire.
 */
export function openValue(sealed: Uint8Array): StoredKvValue {
  const asItIs = { encoding: "bytes", data: sealed, expireAtMs: 0 } as const;
  const first = sealed[0] ?? 0;
  const encoding = encodingOf(first & ~EXPIRES);
  const expires = (first & EXPIRES) !== 0;
  const head = expires ? 1 + EXPIRY_BYTES : 1;
  if (encoding === null || sealed.length < head) return asItIs;
  if (encoding === "u64" && sealed.length !== head + U64_BYTES) return asItIs;
  const expireAtMs = expires ? Number(viewOf(sealed).getBigUint64(1)) : 0;
  if (expires && (!Number.isSafeInteger(expireAtMs) || expireAtMs === 0)) {
    return asItIs;
  }
  return { encoding, data: sealed.subarray(head), expireAtMs };
}

/** True if a value is not to be seen any more. */
export function isExpired(value: StoredKvValue, nowMs: number): boolean {
  return value.expireAtMs !== 0 && value.expireAtMs <= nowMs;
}

/** The number that a value is; null if it is none. */
export function toOperand({ encoding, data }: KvValue): Operand | null {
  switch (encoding) {
    case "u64":
      return data.length === U64_BYTES
        ? { type: "u64", value: viewOf(data).getBigUint64(0, true) }
        : null;
    case "v8":
      return readV8Number(data);
    case "bytes":
      return null;
  }
}

/** A number as a value. */
export function fromOperand(operand: Operand): KvValue {
  switch (operand.type) {
    case "u64": {
      const data = new Uint8Array(U64_BYTES);
      viewOf(data).setBigUint64(0, operand.value, true);
      return { encoding: "u64", data };
    }
    case "number":
      return { encoding: "v8", data: writeV8Double(operand.value) };
    case "bigint":
      return { encoding: "v8", data: writeV8Bigint(operand.value) };
  }
}

// ------------------------------------------------------------------ V8's serialization format

/** What V8 writes before the version. */
const V8_VERSION = 0xff;
/** Every V8 since 2020 reads it. */
const WRITTEN_VERSION = 15;
const TAG = { int32: 0x49, uint32: 0x55, double: 0x4e, bigint: 0x5a } as const;
const DIGIT_BYTES = 8;
const NAN_BITS = 0x7ff8000000000000n;

/** A number or a bigint that V8 serialized; null for anything else. */
export function readV8Number(data: Uint8Array): Operand | null {
  if (data[0] !== V8_VERSION) return null;
  const version = readVarint(data, 1);
  if (version === null) return null;
  const body = version.end + 1;
  switch (data[version.end]) {
    case TAG.int32: {
      const number = wholeVarint(data, body);
      if (number === null) return null;
      return { type: "number", value: (number >>> 1) ^ -(number & 1) };
    }
    case TAG.uint32: {
      const number = wholeVarint(data, body);
      return number === null ? null : { type: "number", value: number };
    }
    case TAG.double:
      if (data.length !== body + 8) return null;
      return { type: "number", value: viewOf(data).getFloat64(body, true) };
    case TAG.bigint:
      return readV8Bigint(data, body);
    default:
      return null;
  }
}

function readV8Bigint(data: Uint8Array, at: number): Operand | null {
  const head = readVarint(data, at);
  if (head === null) return null;
  const isNegative = (head.value & 1) === 1;
  const bytes = head.value >>> 1;
  if (data.length !== head.end + bytes) return null;
  let hex = "";
  for (let i = data.length - 1; i >= head.end; i--) {
    hex += data[i]!.toString(16).padStart(2, "0");
  }
  const magnitude = hex === "" ? 0n : BigInt(`0x${hex}`);
  return { type: "bigint", value: isNegative ? -magnitude : magnitude };
}

function writeV8Double(value: number): Uint8Array {
  const data = new Uint8Array(3 + 8);
  data.set([V8_VERSION, WRITTEN_VERSION, TAG.double]);
  const view = viewOf(data);
  view.setFloat64(3, value, true);
  // Which bits a NaN has depends on the processor and on how far V8 has compiled: replicas must agree.
  if (Number.isNaN(value)) view.setBigUint64(3, NAN_BITS, true);
  return data;
}

/** V8 reads whole digits of 64 bits. */
function writeV8Bigint(value: bigint): Uint8Array {
  const isNegative = value < 0n;
  const hex = value === 0n ? "" : (isNegative ? -value : value).toString(16);
  const bytes = Math.ceil(hex.length / 2 / DIGIT_BYTES) * DIGIT_BYTES;
  const head = [V8_VERSION, WRITTEN_VERSION, TAG.bigint];
  let field = bytes * 2 + (isNegative ? 1 : 0);
  for (; field > 127; field >>>= 7) head.push(field & 127 | 128);
  head.push(field);
  const data = new Uint8Array(head.length + bytes);
  data.set(head);
  const digits = hex.padStart(bytes * 2, "0");
  for (let i = 0; i < bytes; i++) {
    const from = digits.length - 2 * (i + 1);
    data[head.length + i] = Number.parseInt(digits.slice(from, from + 2), 16);
  }
  return data;
}

/** A varint of at most 32 bits, and where it ends; null if there is none. */
function readVarint(
  data: Uint8Array,
  at: number,
): { value: number; end: number } | null {
  let value = 0;
  for (let shift = 0, i = at; shift < 35; shift += 7, i++) {
    const byte = data[i];
    if (byte === undefined) return null;
    value += (byte & 127) * 2 ** shift;
    if (byte < 128) {
      return value > 0xffffffff ? null : { value, end: i + 1 };
    }
  }
  return null;
}

/** A varint with nothing behind it. */
function wholeVarint(data: Uint8Array, at: number): number | null {
  const varint = readVarint(data, at);
  return varint?.end === data.length ? varint.value : null;
}

function viewOf(data: Uint8Array): DataView {
  return new DataView(data.buffer, data.byteOffset, data.length);
}

// ------------------------------------------------------------------ versionstamps

const VERSIONSTAMP_BYTES = 10;

/**
 * A revision as a versionstamp, one latin1 code unit for each of its 10 bytes: 8 bytes, big-endian,
 * and two zeros. Their order is that of revisions.
 */
export function versionstampOf(revision: number): string {
  assert(Number.isSafeInteger(revision), `Revision is unsafe: ${revision}`);
  let text = "\0\0";
  for (let i = 0, rest = revision; i < VERSIONSTAMP_BYTES - 2; i++) {
    text = String.fromCharCode(rest % 256) + text;
    rest = Math.floor(rest / 256);
  }
  return text;
}
