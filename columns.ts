/**
 * The rows of the tables, to and from what stands in them, each with its checksum. Used by `disk.ts`.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { crc32 } from "node:zlib";
import { decodeConfiguration, encodeConfiguration } from "./entry.ts";
import type { LeaseRow } from "./leases.ts";
import type { Entry } from "./message.ts";
import type { EventMeta, EventRow } from "./rows.ts";
import type { SessionRow } from "./sessions.ts";
import { corruptError } from "./tables.ts";
import type { UserRow } from "./users.ts";

/** A row of `log`: idx, term, type, crc, data. */
export type LogRow = [number, number, number, number, Uint8Array];

/** A row of `event`: the columns of EVENT_COLUMNS, then the value if it was asked for. */
export type EventRowColumns = [
  position: number,
  revision: number,
  type: number,
  createRevision: number,
  version: number,
  lease: string | null,
  valueCrc: number,
  crc: number,
  key: Uint8Array,
  value: Uint8Array,
];

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
const EVENT_TYPES = ["put", "delete"] as const;
const EMPTY = new Uint8Array(0);

// Numbers first, then the key: one run over this buffer is the checksum of a row's columns.
const SCRATCH_KEY_AT = 56;
const scratch = Buffer.alloc(SCRATCH_KEY_AT + 64 * 1024);
const scratchView = new DataView(
  scratch.buffer,
  scratch.byteOffset,
  scratch.length,
);

/** The checksum of an event row without its value. Leaves the bytes of its key in the scratch. */
function sealEvent(meta: EventMeta, valueCrc: number): number {
  scratchView.setFloat64(0, meta.position);
  scratchView.setFloat64(8, meta.revision);
  scratchView.setFloat64(16, meta.createRevision);
  scratchView.setFloat64(24, meta.version);
  scratchView.setBigInt64(32, meta.lease);
  scratchView.setUint32(40, meta.type === "put" ? 0 : 1);
  scratchView.setUint32(44, valueCrc);
  const { key } = meta;
  const end = SCRATCH_KEY_AT + key.length;
  // Faster than `Buffer.write` for keys of a usual length.
  for (let at = 0; at < key.length; at++) {
    scratch[SCRATCH_KEY_AT + at] = key.charCodeAt(at);
  }
  return crc32(scratch.subarray(0, end));
}

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
  return crc32(data, crc32(scratch.subarray(0, 20)));
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

/** An event as the values of its row. */
export function eventColumns(event: EventRow): EventRowColumns {
  const valueCrc = crc32(event.value);
  const crc = sealEvent(event, valueCrc);
  const keyEnd = SCRATCH_KEY_AT + event.key.length;
  return [
    event.position,
    event.revision,
    EVENT_TYPES.indexOf(event.type),
    event.createRevision,
    event.version,
    event.lease === 0n ? null : event.lease.toString(),
    valueCrc,
    crc,
    new Uint8Array(scratch.subarray(SCRATCH_KEY_AT, keyEnd)),
    event.value,
  ];
}

/** An event row without its value. @throws {DkvError} DATA_CORRUPT, naming `path` */
export function eventOf(row: EventRowColumns, path: string): EventMeta {
  const type = EVENT_TYPES[row[2]];
  const meta = {
    position: row[0],
    revision: row[1],
    type: type ?? "put",
    createRevision: row[3],
    version: row[4],
    lease: row[5] === null ? 0n : BigInt(row[5]),
    key: latin1(row[8]),
  } as const;
  if (type === undefined || sealEvent(meta, row[6]) !== row[7]) {
    throw corruptError(path, `event row ${row[0]} fails its checksum`);
  }
  return meta;
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
