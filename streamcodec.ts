/**
 * Pages of `List` and changes of `Watch` as bytes. Written by hand from what the store gives, because
 * the general codec first makes an object of each entry and checks and converts every field of it.
 * Used by `grpc.ts` and `watchstream.ts`.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import type { StoredEntry } from "./batch.ts";
import type { WireHeader } from "./call.ts";
import type { WatchEvent } from "./store.ts";
import { Pen } from "./wire.ts";

/** A `ListResponse`. */
export interface WirePage {
  readonly header: WireHeader;
  readonly revision: number;
  readonly entries: readonly StoredEntry[];
  readonly more: boolean;
}

/** A `WatchResponse` with changes. */
export interface WireChanges {
  readonly header: WireHeader;
  /** As the client chose it: any 64-bit number, in decimal. */
  readonly watchId: string;
  readonly events: readonly WatchEvent[];
  readonly throughRevision: number;
}

const pen = new Pen();

/** Encodes a `ListResponse`. */
export function encodePage(page: WirePage): Buffer {
  pen.reset();
  writeHeader(page.header);
  writeNumber(2, page.revision);
  for (const entry of page.entries) writeEntry(3, entry);
  writeNumber(4, page.more ? 1 : 0);
  return finished();
}

/** Encodes a `WatchResponse`. */
export function encodeChanges(changes: WireChanges): Buffer {
  pen.reset();
  writeHeader(changes.header);
  writeWatchId(changes.watchId);
  const opened = pen.open(4);
  for (const event of changes.events) writeEvent(event);
  writeNumber(2, changes.throughRevision);
  pen.close(opened);
  return finished();
}

function writeHeader({ revision, nodeId, leader }: WireHeader): void {
  const opened = pen.open(1);
  writeNumber(1, revision);
  writeBytes(2, Buffer.from(nodeId));
  writeBytes(3, Buffer.from(leader));
  pen.close(opened);
}

function writeEvent(event: WatchEvent): void {
  const opened = pen.open(1);
  writeNumber(1, event.type === "put" ? 0 : 1);
  writeEntry(2, event);
  if (event.previous !== null) writeEntry(3, event.previous);
  pen.close(opened);
}

function writeEntry(field: number, entry: StoredEntry): void {
  const opened = pen.open(field);
  pen.latin1(1, entry.key);
  writeBytes(2, entry.value);
  writeNumber(3, entry.createRevision);
  writeNumber(4, entry.modRevision);
  writeNumber(5, entry.version);
  if (entry.lease !== 0n) writeBigint(6, entry.lease);
  pen.close(opened);
}

function writeWatchId(watchId: string): void {
  const number = Number(watchId);
  if (Number.isSafeInteger(number)) writeNumber(2, number);
  else writeBigint(2, BigInt(watchId));
}

/** As proto3 has it, what is 0 or empty is left out. */
function writeNumber(field: number, value: number): void {
  if (value !== 0) pen.int64(field, value);
}

function writeBytes(field: number, value: Uint8Array): void {
  if (value.length > 0) pen.bytes(field, value);
}

/** A field of type int64 that may use all bits. */
function writeBigint(field: number, value: bigint): void {
  const bytes = [field << 3];
  let left = BigInt.asUintN(64, value);
  for (; left > 0x7fn; left >>= 7n) bytes.push(Number(left & 0x7fn) | 0x80);
  bytes.push(Number(left));
  pen.raw(Uint8Array.from(bytes));
}

function finished(): Buffer {
  const bytes = pen.finish();
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
}
