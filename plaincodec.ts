/**
 * What the hand-written codecs of clients' messages have in common: requests that say nothing unusual,
 * and the parts of answers. Used by `pipelinecodec.ts`, `streamcodec.ts` and `unarycodec.ts`.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import type { PutOperation, StoredEntry } from "./batch.ts";
import type { WireHeader } from "./call.ts";
import type { WireGet } from "./convert.ts";
import { DkvError } from "./errors.ts";
import type { Pen, Reader } from "./wire.ts";

// Tags: a field's number × 8 and its wire type.
const KEY = 1 << 3 | 2;
const PUT_VALUE = 2 << 3 | 2;

const EMPTY: Uint8Array = new Uint8Array(0);

// ------------------------------------------------------------------ requests

/** Null if it cannot be read. */
export function orNull<From, T>(read: (from: From) => T, from: From): T | null {
  try {
    return read(from);
  } catch (error) {
    if (error instanceof DkvError) return null;
    throw error;
  }
}

/** A `PutRequest` of a key and a value; null if it says more. The value is a view. */
export function readPlainPut(reader: Reader): PutOperation | null {
  let key = "";
  let value = EMPTY;
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === KEY) key = reader.latin1();
    else if (tag === PUT_VALUE) value = reader.bytes();
    else return null;
  }
  return { type: "put", key, value, lease: 0n, returnPrevious: false };
}

/** A `GetRequest` of a key as it is now; null if it says more. */
export function readPlainGet(reader: Reader): WireGet | null {
  let key = "";
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === KEY) key = reader.latin1();
    else return null;
  }
  return { key, revision: 0, serializable: false };
}

// ------------------------------------------------------------------ answers

/** The first field of every answer. */
export function writeHeader(
  pen: Pen,
  { revision, nodeId, leader }: WireHeader,
): void {
  const opened = pen.open(1);
  pen.int64(1, revision);
  pen.bytes(2, Buffer.from(nodeId));
  pen.bytes(3, Buffer.from(leader));
  pen.close(opened);
}

/** The fields of an `Entry`. */
export function writeEntry(pen: Pen, entry: StoredEntry): void {
  pen.latin1(1, entry.key);
  pen.bytes(2, entry.value);
  pen.int64(3, entry.createRevision);
  pen.int64(4, entry.modRevision);
  pen.int64(5, entry.version);
  if (entry.lease !== 0n) writeBigint(pen, { field: 6, value: entry.lease });
}

/** A field of type int64 that may use all bits. */
export function writeBigint(
  pen: Pen,
  { field, value }: { field: number; value: bigint },
): void {
  const bytes = [field << 3];
  let left = BigInt.asUintN(64, value);
  for (; left > 0x7fn; left >>= 7n) bytes.push(Number(left & 0x7fn) | 0x80);
  bytes.push(Number(left));
  pen.raw(Uint8Array.from(bytes));
}

/** What the pen has written, as grpc-js wants it. */
export function messageOf(pen: Pen): Buffer {
  const bytes = pen.finish();
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
}
