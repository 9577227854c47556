/**
 * The frames of a journal, to and from bytes: all that one sync made durable, under one checksum. Pure;
 * used by `journal.ts`.
 *
 * ```text
 *   frame    crc32 │ length │ number │ records ……………………… │ zeros to a multiple of 8
 *            4       4        8                               all numbers little-endian
 *
 *   records  1 state   length 4 │ term, vote and commit index as JSON
 *            2 cut     index 8                           the log ends before this index
 *            3 entry   index 8 │ term 8 │ type 1 │ length 4 │ data
 * ```
 *
 * The checksum covers all after itself but the zeros.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { crc32 } from "node:zlib";
import { decodeConfiguration, encodeConfiguration } from "./entry.ts";
import { unreachable } from "./errors.ts";
import type { Entry, HardState, Index } from "./message.ts";

/** One thing that a frame says. */
export type JournalRecord =
  | { readonly type: "state"; readonly hardState: HardState }
  | { readonly type: "cut"; readonly index: Index }
  | { readonly type: "entry"; readonly entry: Entry };

/** A frame that was read. */
export interface JournalFrame {
  /** One more than that of the frame before it. */
  readonly number: number;
  readonly records: readonly JournalRecord[];
  /** Of the whole frame, the zeros at its end included. */
  readonly bytes: number;
}

/** Frames begin at multiples of this, so that few places need be looked at in search of one. */
export const FRAME_ALIGNMENT = 8;

const HEADER_BYTES = 16;
const STATE = 1;
const CUT = 2;
const ENTRY = 3;
const STATE_HEADER_BYTES = 5;
const CUT_BYTES = 9;
const ENTRY_HEADER_BYTES = 22;
const ENTRY_TYPES = ["empty", "batch", "configuration"] as const;
const EMPTY = new Uint8Array(0);

/** A frame is made here if it fits; it is written before the next one is made. */
const scratch = Buffer.alloc(1024 * 1024);

/** A record with its variable part as bytes. */
interface Prepared {
  readonly record: JournalRecord;
  readonly data: Uint8Array;
}

/** The bytes of a frame, which hold until the next one is encoded. */
export function encodeFrame(
  number: number,
  records: readonly JournalRecord[],
): Uint8Array {
  const prepared = records.map((record) => ({ record, data: dataOf(record) }));
  const length = prepared.reduce(
    (sum, { record, data }) => sum + headerBytes(record) + data.length,
    HEADER_BYTES,
  );
  const bytes = aligned(length);
  const frame = bytes <= scratch.length
    ? scratch.subarray(0, bytes)
    : Buffer.alloc(bytes);
  frame.writeUInt32LE(length, 4);
  frame.writeDoubleLE(number, 8);
  let at = HEADER_BYTES;
  for (const one of prepared) at = write(frame, at, one);
  frame.fill(0, at);
  frame.writeUInt32LE(crc32(frame.subarray(4, length)), 0);
  return frame;
}

/** The whole and unharmed frame at a place; null if there is none. The data are views of `bytes`. */
export function decodeFrame(
  bytes: Uint8Array,
  at: number,
): JournalFrame | null {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const number = numberAt(buffer, at);
  if (number === null) return null;
  const length = buffer.readUInt32LE(at + 4);
  if (length < HEADER_BYTES || at + length > buffer.length) return null;
  const crc = crc32(buffer.subarray(at + 4, at + length));
  if (crc !== buffer.readUInt32LE(at)) return null;
  const records = readAll(buffer.subarray(at + HEADER_BYTES, at + length));
  return { number, records, bytes: aligned(length) };
}

/** True if there is a frame with a greater number from a place on. */
export function hasLaterFrame(
  bytes: Uint8Array,
  { from, number }: { from: number; number: number },
): boolean {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = from; at < buffer.length; at += FRAME_ALIGNMENT) {
    const found = numberAt(buffer, at);
    // Nearly all places are settled by their number.
    if (found === null || found <= number) continue;
    if (decodeFrame(bytes, at) !== null) return true;
  }
  return false;
}

/** What stands where the number of a frame would; null if it can be none. */
function numberAt(buffer: Buffer, at: number): number | null {
  if (at + HEADER_BYTES > buffer.length) return null;
  const number = buffer.readDoubleLE(at + 8);
  return Number.isSafeInteger(number) && number > 0 ? number : null;
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / FRAME_ALIGNMENT) * FRAME_ALIGNMENT;
}

function dataOf(record: JournalRecord): Uint8Array {
  switch (record.type) {
    case "state":
      return Buffer.from(JSON.stringify(record.hardState));
    case "cut":
      return EMPTY;
    case "entry":
      return entryData(record.entry);
    default:
      return unreachable(record);
  }
}

function entryData(entry: Entry): Uint8Array {
  switch (entry.type) {
    case "empty":
      return EMPTY;
    case "batch":
      return entry.data;
    case "configuration":
      return encodeConfiguration(entry.configuration);
    default:
      return unreachable(entry);
  }
}

function headerBytes({ type }: JournalRecord): number {
  switch (type) {
    case "state":
      return STATE_HEADER_BYTES;
    case "cut":
      return CUT_BYTES;
    case "entry":
      return ENTRY_HEADER_BYTES;
    default:
      return unreachable(type);
  }
}

/** Writes a record at a place and returns where the next one goes. */
function write(frame: Buffer, at: number, { record, data }: Prepared): number {
  switch (record.type) {
    case "state":
      frame[at] = STATE;
      frame.writeUInt32LE(data.length, at + 1);
      break;
    case "cut":
      frame[at] = CUT;
      frame.writeDoubleLE(record.index, at + 1);
      break;
    case "entry": {
      const { index, term, type } = record.entry;
      frame[at] = ENTRY;
      frame.writeDoubleLE(index, at + 1);
      frame.writeDoubleLE(term, at + 9);
      frame[at + 17] = ENTRY_TYPES.indexOf(type);
      frame.writeUInt32LE(data.length, at + 18);
      break;
    }
    default:
      unreachable(record);
  }
  const dataAt = at + headerBytes(record);
  frame.set(data, dataAt);
  return dataAt + data.length;
}

/** The records of a frame whose checksum is right: what does not fit was written by another format. */
function readAll(body: Buffer): JournalRecord[] {
  const records: JournalRecord[] = [];
  for (let at = 0; at < body.length;) {
    switch (body[at]) {
      case STATE: {
        const end = at + STATE_HEADER_BYTES + body.readUInt32LE(at + 1);
        const text = body.toString("utf8", at + STATE_HEADER_BYTES, end);
        records.push({ type: "state", hardState: JSON.parse(text) });
        at = end;
        break;
      }
      case CUT:
        records.push({ type: "cut", index: body.readDoubleLE(at + 1) });
        at += CUT_BYTES;
        break;
      default: {
        const dataAt = at + ENTRY_HEADER_BYTES;
        const end = dataAt + body.readUInt32LE(at + 18);
        const entry = entryOf(body, { at, data: body.subarray(dataAt, end) });
        records.push({ type: "entry", entry });
        at = end;
      }
    }
  }
  return records;
}

function entryOf(
  body: Buffer,
  { at, data }: { at: number; data: Uint8Array },
): Entry {
  const index = body.readDoubleLE(at + 1);
  const term = body.readDoubleLE(at + 9);
  const type = ENTRY_TYPES[body[at + 17] ?? -1];
  switch (type) {
    case "empty":
      return { index, term, type };
    case "batch":
      return { index, term, type, data };
    case "configuration":
      return { index, term, type, configuration: decodeConfiguration(data) };
    case undefined:
      throw new RangeError(`Entry ${index} has type ${body[at + 17]}`);
    default:
      return unreachable(type);
  }
}
