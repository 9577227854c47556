/**
 * The messages of `proto/kvconnect.proto` as bytes. Used by `kvconnect.ts`.
 *
 * @module
 */

import type { Key } from "./batch.ts";
import { DkvError } from "./errors.ts";
import { encodingNumber, type KvValue } from "./kvvalue.ts";
import { Pen, Reader } from "./wire.ts";

/** An entry on its way to a client. Its key is that of the database. */
export interface KvEntry extends KvValue {
  readonly key: Key;
  /** 10 bytes as latin1. */
  readonly versionstamp: string;
}

export interface ReadRange {
  readonly start: Key;
  readonly end: Key;
  readonly limit: number;
  readonly reverse: boolean;
}

/** A mutation as it came: nothing of it is checked. */
export interface WireMutation {
  readonly key: Key;
  readonly value:
    | { readonly data: Uint8Array; readonly encoding: number }
    | null;
  readonly type: number;
  readonly expireAtMs: number;
  readonly min: Uint8Array;
  readonly max: Uint8Array;
  readonly clamp: boolean;
}

export interface AtomicWrite {
  readonly checks: readonly { key: Key; versionstamp: string }[];
  readonly mutations: readonly WireMutation[];
  /** How many. */
  readonly enqueues: number;
}

/** What became of a write. */
export type WriteOutput =
  | { readonly versionstamp: string }
  | { readonly failedChecks: readonly number[] };

const SUCCESS = 1;
const CHECK_FAILED = 2;
const EMPTY: Uint8Array = new Uint8Array(0);

const pen = new Pen();

/** A field from later than this protocol is passed over, one of the wrong type is not. */
function pass(reader: Reader, { tag, known }: { tag: number; known: number }) {
  if (tag >> 3 <= known) {
    throw new DkvError(
      "MALFORMED",
      `Request is malformed: field ${tag >> 3} has the wire type ${tag & 7}`,
    );
  }
  reader.skip(tag);
}

/** @throws {DkvError} MALFORMED, as do all that read. */
export function readSnapshotRead(data: Uint8Array): ReadRange[] {
  const reader = new Reader(data);
  const ranges: ReadRange[] = [];
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === (1 << 3 | 2)) ranges.push(readRange(reader));
    else pass(reader, { tag, known: 1 });
  }
  return ranges;
}

function readRange(reader: Reader): ReadRange {
  const outer = reader.enter();
  let [start, end] = ["", ""];
  let limit = 0;
  let reverse = false;
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === (1 << 3 | 2)) start = reader.latin1();
    else if (tag === (2 << 3 | 2)) end = reader.latin1();
    else if (tag === 3 << 3) limit = reader.int64();
    else if (tag === 4 << 3) reverse = reader.bool();
    else pass(reader, { tag, known: 4 });
  }
  reader.leave(outer);
  return { start, end, limit, reverse };
}

export function readAtomicWrite(data: Uint8Array): AtomicWrite {
  const reader = new Reader(data);
  const checks: { key: Key; versionstamp: string }[] = [];
  const mutations: WireMutation[] = [];
  let enqueues = 0;
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === (1 << 3 | 2)) checks.push(readCheck(reader));
    else if (tag === (2 << 3 | 2)) mutations.push(readMutation(reader));
    else if (tag === (3 << 3 | 2)) {
      reader.skip(tag);
      enqueues++;
    } else pass(reader, { tag, known: 3 });
  }
  return { checks, mutations, enqueues };
}

function readCheck(reader: Reader): { key: Key; versionstamp: string } {
  const outer = reader.enter();
  let [key, versionstamp] = ["", ""];
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === (1 << 3 | 2)) key = reader.latin1();
    else if (tag === (2 << 3 | 2)) versionstamp = reader.latin1();
    else pass(reader, { tag, known: 2 });
  }
  reader.leave(outer);
  return { key, versionstamp };
}

function readMutation(reader: Reader): WireMutation {
  const outer = reader.enter();
  let key = "";
  let value: WireMutation["value"] = null;
  let [type, expireAtMs] = [0, 0];
  let [min, max] = [EMPTY, EMPTY];
  let clamp = false;
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === (1 << 3 | 2)) key = reader.latin1();
    else if (tag === (2 << 3 | 2)) value = readValue(reader);
    else if (tag === 3 << 3) type = reader.int64();
    else if (tag === 4 << 3) expireAtMs = reader.int64();
    else if (tag === (5 << 3 | 2)) min = reader.bytes();
    else if (tag === (6 << 3 | 2)) max = reader.bytes();
    else if (tag === 7 << 3) clamp = reader.bool();
    else pass(reader, { tag, known: 7 });
  }
  reader.leave(outer);
  return { key, value, type, expireAtMs, min, max, clamp };
}

function readValue(reader: Reader): { data: Uint8Array; encoding: number } {
  const outer = reader.enter();
  let data = EMPTY;
  let encoding = 0;
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === (1 << 3 | 2)) data = reader.bytes();
    else if (tag === 2 << 3) encoding = reader.int64();
    else pass(reader, { tag, known: 2 });
  }
  reader.leave(outer);
  return { data, encoding };
}

/** The keys to watch. */
export function readWatch(data: Uint8Array): Key[] {
  const reader = new Reader(data);
  const keys: Key[] = [];
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag !== (1 << 3 | 2)) {
      pass(reader, { tag, known: 1 });
      continue;
    }
    const outer = reader.enter();
    let key = "";
    for (let inner = reader.tag(); inner !== 0; inner = reader.tag()) {
      if (inner === (1 << 3 | 2)) key = reader.latin1();
      else pass(reader, { tag: inner, known: 1 });
    }
    reader.leave(outer);
    keys.push(key);
  }
  return keys;
}

export function writeSnapshotRead(
  ranges: readonly (readonly KvEntry[])[],
): Uint8Array {
  pen.reset();
  for (const entries of ranges) {
    const start = pen.open(1);
    for (const entry of entries) writeEntry(1, entry);
    pen.close(start);
  }
  pen.int64(4, 1);
  pen.int64(8, SUCCESS);
  return pen.finish();
}

function writeEntry(field: number, entry: KvEntry): void {
  const start = pen.open(field);
  pen.latin1(1, entry.key);
  pen.bytes(2, entry.data);
  pen.int64(3, encodingNumber(entry.encoding));
  pen.latin1(4, entry.versionstamp);
  pen.close(start);
}

export function writeAtomicWrite(output: WriteOutput): Uint8Array {
  pen.reset();
  if ("versionstamp" in output) {
    pen.int64(1, SUCCESS);
    pen.latin1(2, output.versionstamp);
  } else {
    pen.int64(1, CHECK_FAILED);
    pen.bytes(4, packed(output.failedChecks));
  }
  return pen.finish();
}

/** Varints in a row. */
function packed(numbers: readonly number[]): Uint8Array {
  const bytes: number[] = [];
  for (let rest of numbers) {
    for (; rest > 127; rest >>>= 7) bytes.push(rest & 127 | 128);
    bytes.push(rest);
  }
  return Uint8Array.from(bytes);
}

/** One frame: the state of every watched key, null where there is none. */
export function writeWatch(entries: readonly (KvEntry | null)[]): Uint8Array {
  pen.reset();
  pen.int64(1, SUCCESS);
  for (const entry of entries) {
    const start = pen.open(2);
    pen.int64(1, 1);
    if (entry !== null) writeEntry(2, entry);
    pen.close(start);
  }
  const message = pen.finish();
  const frame = new Uint8Array(4 + message.length);
  new DataView(frame.buffer).setUint32(0, message.length, true);
  frame.set(message, 4);
  return frame;
}
