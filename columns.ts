/**
 * The rows of the tables, to and from what stands in them, each with its checksum. Used by `disk.ts`;
 * those of events are in `blocks.ts`.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { crc32 } from "node:zlib";
import type { LeaseRow } from "./leases.ts";
import type { SessionRow } from "./sessions.ts";
import { corruptError } from "./tables.ts";
import type { UserRow } from "./users.ts";

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

/** The bytes of a column as the string of their latin1 code units, which sorts as the bytes do. */
export function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
    .toString("latin1");
}

/** The bytes of such a string. */
export function latin1Bytes(text: string): Uint8Array {
  return Buffer.from(text, "latin1");
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
