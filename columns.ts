/**
 * The rows of the tables, to and from what stands in them, each with its checksum. Used by `disk.ts`;
 * those of events are in `blocks.ts`.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { crc32 } from "node:zlib";
import { decodeConfiguration, encodeConfiguration } from "./entry.ts";
import type { LeaseRow } from "./leases.ts";
import type { Entry } from "./message.ts";
import type { SessionRow } from "./sessions.ts";
import { corruptError } from "./tables.ts";
import type { UserRow } from "./users.ts";

/** A row of `log`: idx, term, type, crc, data. */
export type LogRow = [number, number, number, number, Uint8Array];

/** A row of `lease`. */
export type LeaseColumns = [
  id: string,
  ttlMs: number,
  deadlineMs: number,
  crc: number,
];

/** A row of `session`. */
export type SessionColumns = [
  client: Uint8Array,
  crc: number,
  data: Uint8Array,
];

/** A row of `user`. */
export type UserColumns = [
  kind: string,
  name: Uint8Array,
  crc: number,
  data: Uint8Array,
];

const ENTRY_TYPES = ["empty", "batch", "configuration"] as const;
const EMPTY = new Uint8Array(0);

/** The numbers of a log row, for its checksum. */
const scratch = Buffer.alloc(20);
const scratchView = new DataView(scratch.buffer, scratch.byteOffset);

/** The checksum of a log row: its position and term as well as its data. */
function sealEntry(
  { index, term, type, data }: {
    index: number;
    term: number;
    type: number;
    data: Uint8Array;
  },
): number {
  scratchView.setFloat64(0, index);
  scratchView.setFloat64(8, term);
  scratchView.setUint32(16, type);
  return crc32(data, crc32(scratch));
}

/** The bytes of a column as the string of their latin1 code units, which sorts as the bytes do. */
export function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
    .toString("latin1");
}

/** The bytes of such a string. */
export function latin1Bytes(text: string): Uint8Array {
  return Buffer.from(text, "latin1");
}

/** A log entry as the values of its row. */
export function entryColumns(entry: Entry): LogRow {
  const data = entry.type === "batch"
    ? entry.data
    : entry.type === "configuration"
    ? encodeConfiguration(entry.configuration)
    : EMPTY;
  const { index, term } = entry;
  const type = ENTRY_TYPES.indexOf(entry.type);
  return [index, term, type, sealEntry({ index, term, type, data }), data];
}

/** @throws {DkvError} DATA_CORRUPT, naming `path` */
export function entryOf(row: LogRow, path: string): Entry {
  const [index, term, type, crc, data] = row;
  if (sealEntry({ index, term, type, data }) !== crc) {
    throw corruptError(path, `log row ${index} fails its checksum`);
  }
  switch (ENTRY_TYPES[type]) {
    case "empty":
      return { index, term, type: "empty" };
    case "batch":
      return { index, term, type: "batch", data };
    case "configuration": {
      const configuration = decodeConfiguration(data);
      return { index, term, type: "configuration", configuration };
    }
    default:
      throw corruptError(path, `log row ${index} has type ${type}`);
  }
}

export function leaseColumns(
  { lease, ttlMs, deadlineMs }: LeaseRow,
): LeaseColumns {
  const id = lease.toString();
  return [id, ttlMs, deadlineMs, crc32(`${id} ${ttlMs} ${deadlineMs}`)];
}

/** @throws {DkvError} DATA_CORRUPT, naming `path` */
export function leaseOf(row: LeaseColumns, path: string): LeaseRow {
  const [id, ttlMs, deadlineMs, crc] = row;
  if (crc32(`${id} ${ttlMs} ${deadlineMs}`) !== crc) {
    throw corruptError(path, `lease row ${id} fails its checksum`);
  }
  return { lease: BigInt(id), ttlMs, deadlineMs };
}

export function sessionColumns(row: SessionRow): SessionColumns {
  const client = latin1Bytes(row.client);
  return [client, crc32(row.data, crc32(client)), row.data];
}

/** @throws {DkvError} DATA_CORRUPT, naming `path` */
export function sessionOf(row: SessionColumns, path: string): SessionRow {
  const [client, crc, data] = row;
  if (crc32(data, crc32(client)) !== crc) {
    throw corruptError(path, "a session row fails its checksum");
  }
  return { client: latin1(client), data };
}

export function userColumns({ kind, name, data }: UserRow): UserColumns {
  const bytes = latin1Bytes(name);
  return [kind, bytes, crc32(data, crc32(bytes, crc32(kind))), data];
}

/** @throws {DkvError} DATA_CORRUPT, naming `path` */
export function userOf(row: UserColumns, path: string): UserRow {
  const [kind, name, crc, data] = row;
  const isSealed = crc32(data, crc32(name, crc32(kind))) === crc;
  if (!isSealed || (kind !== "user" && kind !== "role")) {
    throw corruptError(path, "the row of a user or role fails its checksum");
  }
  return { kind, name: latin1(name), data };
}
