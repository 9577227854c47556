/**
 * Keys of Deno KV for people: the parts of an encoded key, and how they are written. Used by
 * `tupletext.ts`. Pure.
 *
 * ```text
 *   01 bytes 00       Uint8Array        a 00 inside is 00 FF
 *   02 text 00        string            UTF-8, likewise
 *   0B … 1D           bigint            14 is 0n; 14 + n: n bytes; 14 - n: n bytes, inverted
 *                                       1D or 0B: a length (inverted for 0B) and as many bytes
 *   21 double         number            big-endian; all bits inverted, or only the sign
 *   26, 27            false, true
 * ```
 *
 * @module
 */

/** A part of a key, as programs know it. */
export type KeyPart = Uint8Array | string | bigint | number | boolean;

const TAG = {
  bytes: 0x01,
  text: 0x02,
  negative: 0x0b,
  zero: 0x14,
  positive: 0x1d,
  number: 0x21,
  false: 0x26,
  true: 0x27,
} as const;
const ESCAPE = 0xff;

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The parts of an encoded key; null if it is none. */
export function decodeTupleKey(key: Uint8Array): KeyPart[] | null {
  const parts: KeyPart[] = [];
  for (let at = 0; at < key.length;) {
    const part = readPart(key, at);
    if (part === null) return null;
    parts.push(part.value);
    at = part.end;
  }
  return parts;
}

/** `["users", 1, 2n, true, Uint8Array [0, 255]]`. */
export function tupleText(parts: readonly KeyPart[]): string {
  return `[${parts.map(partText).join(", ")}]`;
}

function partText(part: KeyPart): string {
  if (part instanceof Uint8Array) return `Uint8Array [${part.join(", ")}]`;
  if (typeof part === "string") return JSON.stringify(part);
  if (typeof part === "bigint") return `${part}n`;
  return Object.is(part, -0) ? "-0" : String(part);
}

interface Part {
  readonly value: KeyPart;
  /** Where the next one begins. */
  readonly end: number;
}

function readPart(key: Uint8Array, at: number): Part | null {
  const tag = key[at] ?? 0;
  switch (tag) {
    case TAG.bytes:
      return readBytes(key, at + 1);
    case TAG.text:
      return readText(key, at + 1);
    case TAG.number:
      return readNumber(key, at + 1);
    case TAG.false:
    case TAG.true:
      return { value: tag === TAG.true, end: at + 1 };
    case TAG.negative:
    case TAG.positive: {
      const isNegative = tag === TAG.negative;
      const length = (key[at + 1] ?? 0) ^ (isNegative ? 0xff : 0);
      return readBigint(key, { at: at + 2, length, isNegative });
    }
    default: {
      if (tag < TAG.negative || tag > TAG.positive) return null;
      const length = Math.abs(tag - TAG.zero);
      const isNegative = tag < TAG.zero;
      return readBigint(key, { at: at + 1, length, isNegative });
    }
  }
}

function readBytes(
  key: Uint8Array,
  start: number,
): { value: Uint8Array; end: number } | null {
  const bytes: number[] = [];
  for (let at = start; at < key.length; at++) {
    const byte = key[at]!;
    if (byte !== 0) bytes.push(byte);
    else if (key[at + 1] !== ESCAPE) {
      return { value: Uint8Array.from(bytes), end: at + 1 };
    } else {
      bytes.push(0);
      at++;
    }
  }
  return null;
}

function readText(key: Uint8Array, start: number): Part | null {
  const part = readBytes(key, start);
  if (part === null) return null;
  try {
    return { value: strict.decode(part.value), end: part.end };
  } catch {
    return null;
  }
}

function readNumber(key: Uint8Array, at: number): Part | null {
  if (at + 8 > key.length) return null;
  // A copy in a buffer of its own, whatever kind of array the key is.
  const bytes = new Uint8Array(8);
  bytes.set(key.subarray(at, at + 8));
  const isNegative = bytes[0]! < 0x80;
  if (isNegative) bytes.forEach((byte, i) => bytes[i] = byte ^ 0xff);
  else bytes[0]! ^= 0x80;
  return { value: new DataView(bytes.buffer).getFloat64(0), end: at + 8 };
}

function readBigint(
  key: Uint8Array,
  { at, length, isNegative }: {
    at: number;
    length: number;
    isNegative: boolean;
  },
): Part | null {
  if (at + length > key.length) return null;
  let magnitude = 0n;
  for (const byte of key.subarray(at, at + length)) {
    magnitude = magnitude << 8n | BigInt(isNegative ? byte ^ 0xff : byte);
  }
  return { value: isNegative ? -magnitude : magnitude, end: at + length };
}
