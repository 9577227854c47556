/**
 * Keys and values as JSON: what `dkv export` writes, `dkv import` reads and `--json` prints. Used by
 * the modules of the command line.
 *
 *     {"key":"user/ann","value":"Ann"}
 *     {"keyBase64":"/wA=","valueBase64":"AAEC"}
 *
 * Text is text; bytes that are no UTF-8 stand as base64 in a field of another name, so that what was
 * exported comes back byte for byte.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import type { Change, Entry } from "./client.ts";
import { LIMITS } from "./config.ts";
import { Refusal } from "./arguments.ts";
import { utf8 } from "./terminal.ts";
import { entryText } from "./tupletext.ts";

const KIB = 1024;
/** A line with the largest key and value, every byte of them escaped as six. */
export const LINE_BYTES_MAX = 6 * (LIMITS.keyBytesMax + LIMITS.valueBytesMax) +
  64 * KIB;

const encoder = new TextEncoder();
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** One key and its value. */
export interface StoredRecord {
  readonly key: Uint8Array;
  readonly value: Uint8Array;
}

/** Lines that stand together in a file. */
export interface Lines {
  /** The number of the first, from 1. */
  readonly first: number;
  readonly lines: readonly string[];
  /** How many bytes of the file end with the last of them. */
  readonly endBytes: number;
}

/** Bytes as a field: `{ value: "Ann" }`, or `{ valueBase64: "AAEC" }`. */
export function field(
  name: string,
  bytes: Uint8Array,
): Readonly<Record<string, string>> {
  const text = utf8(bytes);
  if (text !== null) return { [name]: text };
  return { [`${name}Base64`]: Buffer.from(bytes).toString("base64") };
}

/** An entry as `--json` prints it. */
export function entryJson(
  entry: Entry,
  { keysOnly = false } = {},
): Readonly<Record<string, unknown>> {
  const { createRevision, modRevision, version, lease } = entry;
  const ofDeno = entryText(entry.keyBytes, entry.value);
  return {
    ...field("key", entry.keyBytes),
    ...(keysOnly ? {} : field("value", entry.value)),
    ...(ofDeno === null ? {} : {
      denoKey: ofDeno.key,
      ...(keysOnly ? {} : { denoValue: ofDeno.value }),
      ...(ofDeno.expires === null ? {} : { expires: ofDeno.expires }),
    }),
    createRevision,
    modRevision,
    version,
    ...(lease === 0n ? {} : { lease: lease.toString() }),
  };
}

/** A change as `--json` prints it. */
export function changeJson(
  { type, revision, keyBytes, entry }: Change,
): Readonly<Record<string, unknown>> {
  if (entry === null) return { type, revision, ...field("key", keyBytes) };
  return { type, revision, ...entryJson(entry) };
}

/** A record as a line, with its end. */
export function recordLine({ key, value }: StoredRecord): string {
  const record = { ...field("key", key), ...field("value", value) };
  return `${JSON.stringify(record)}\n`;
}

/**
 * The record of a line; null for an empty line. Fields that it does not know are passed over, so
 * that what `list --json` prints can be imported too.
 *
 * @throws {Refusal} with what is wrong, but not where.
 */
export function parseRecord(line: string): StoredRecord | null {
  if (line.trim() === "") return null;
  let fields: unknown;
  try {
    fields = JSON.parse(line);
  } catch {
    throw new Refusal("not JSON");
  }
  if (typeof fields !== "object" || fields === null || Array.isArray(fields)) {
    throw new Refusal("not an object");
  }
  const key = bytesOf(fields as Record<string, unknown>, "key");
  const value = bytesOf(fields as Record<string, unknown>, "value");
  if (key.length === 0) throw new Refusal("the key is empty");
  check("key", key.length, LIMITS.keyBytesMax);
  check("value", value.length, LIMITS.valueBytesMax);
  return { key, value };
}

function check(name: string, length: number, max: number): void {
  if (length <= max) return;
  throw new Refusal(
    `the ${name} is too large: ${length} bytes, at most ${max}`,
  );
}

function bytesOf(fields: Record<string, unknown>, name: string): Uint8Array {
  const { [name]: text, [`${name}Base64`]: base64 } = fields;
  if (text !== undefined && base64 !== undefined) {
    throw new Refusal(`both ${name} and ${name}Base64`);
  }
  if (typeof text === "string") {
    // Half of a surrogate pair has no bytes; it would become another text.
    if (!text.isWellFormed()) throw new Refusal(`${name} is no Unicode text`);
    return encoder.encode(text);
  }
  if (typeof base64 === "string") {
    const bytes = Buffer.from(base64, "base64");
    if (bytes.toString("base64") === base64) return new Uint8Array(bytes);
    throw new Refusal(`${name}Base64 is no base64`);
  }
  if (text === undefined && base64 === undefined) {
    throw new Refusal(`there is no ${name}`);
  }
  throw new Refusal(`${name} is not a text`);
}

/**
 * Splits bytes into lines, many at a time.
 *
 * @throws {Refusal} with the number of a line that is too long or no UTF-8.
 */
export async function* linesOf(
  chunks: AsyncIterable<Uint8Array>,
): AsyncGenerator<Lines, void, undefined> {
  /** Of a line that has not ended. */
  let rest: Uint8Array[] = [];
  let restBytes = 0;
  let endBytes = 0;
  let first = 1;
  for await (const chunk of chunks) {
    const end = chunk.lastIndexOf(0x0a) + 1;
    if (end > 0) {
      endBytes += restBytes + end;
      const lines = decode([...rest, chunk.subarray(0, end - 1)], first);
      yield { first, lines, endBytes };
      first += lines.length;
      rest = [];
      restBytes = 0;
    }
    // A copy: whoever reads may use the memory again.
    rest.push(chunk.slice(end));
    restBytes += chunk.length - end;
    if (restBytes > LINE_BYTES_MAX) {
      throw new Refusal(`${first}: longer than ${LINE_BYTES_MAX} bytes`);
    }
  }
  endBytes += restBytes;
  if (restBytes > 0) yield { first, lines: decode(rest, first), endBytes };
}

function decode(pieces: readonly Uint8Array[], first: number): string[] {
  const bytes = Buffer.concat(pieces);
  try {
    return strict.decode(bytes).split("\n");
  } catch {
    let line = first;
    let start = 0;
    // A line end is never part of a character, so one of the lines is at fault.
    for (let at = 0; at <= bytes.length; at++) {
      if (at < bytes.length && bytes[at] !== 0x0a) continue;
      if (utf8(bytes.subarray(start, at)) === null) break;
      start = at + 1;
      line++;
    }
    throw new Refusal(`${line}: not UTF-8`);
  }
}
