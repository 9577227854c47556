/**
 * Pages of `List` and changes of `Watch` as bytes. Written by hand from what the store gives, because
 * the general codec first makes an object of each entry and checks and converts every field of it.
 * Used by `grpc.ts` and `watchstream.ts`.
 *
 * @module
 */

import type { Buffer } from "node:buffer";
import type { StoredEntry } from "./batch.ts";
import type { WireHeader } from "./call.ts";
import {
  messageOf,
  writeBigint,
  writeEntry,
  writeHeader,
} from "./plaincodec.ts";
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
  writeHeader(pen, page.header);
  writeNumber(2, page.revision);
  for (const entry of page.entries) writeEntryField(3, entry);
  writeNumber(4, page.more ? 1 : 0);
  return messageOf(pen);
}

/** Encodes a `WatchResponse`. */
export function encodeChanges(changes: WireChanges): Buffer {
  pen.reset();
  writeHeader(pen, changes.header);
  writeWatchId(changes.watchId);
  const opened = pen.open(4);
  for (const event of changes.events) writeEvent(event);
  writeNumber(2, changes.throughRevision);
  pen.close(opened);
  return messageOf(pen);
}

function writeEvent(event: WatchEvent): void {
  const opened = pen.open(1);
  writeNumber(1, event.type === "put" ? 0 : 1);
  const { previous } = event;
  writeEntryField(2, event);
  if (previous !== null) writeEntryField(3, previous);
  pen.close(opened);
}

function writeEntryField(field: number, entry: StoredEntry): void {
  const opened = pen.open(field);
  writeEntry(pen, entry);
  pen.close(opened);
}

function writeWatchId(watchId: string): void {
  const number = Number(watchId);
  if (Number.isSafeInteger(number)) writeNumber(2, number);
  else writeBigint(pen, { field: 2, value: BigInt(watchId) });
}

/** As proto3 has it, what is 0 or empty is left out. */
function writeNumber(field: number, value: number): void {
  if (value !== 0) pen.int64(field, value);
}
