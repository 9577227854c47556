/**
 * The tables of a group's SQLite file: their schema, their prepared statements, and how errors of
 * SQLite become errors of dkv. Used by `disk.ts`; `columns.ts` knows what stands in the rows.
 *
 * @module
 */

import { DatabaseSync, type StatementSync } from "node:sqlite";
import { AssertionError, DkvError } from "./errors.ts";

/** The version of the tables below. A file with another one is refused. */
export const FORMAT = 3;

const SCHEMA = `
CREATE TABLE IF NOT EXISTS state (
  name TEXT PRIMARY KEY, data TEXT NOT NULL, crc INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS event (
  position INTEGER PRIMARY KEY, crc INTEGER NOT NULL, value_crc INTEGER NOT NULL,
  meta BLOB NOT NULL, value BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS lease (
  id TEXT PRIMARY KEY, ttl_ms INTEGER NOT NULL, deadline_ms INTEGER NOT NULL,
  crc INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS session (
  client BLOB PRIMARY KEY, crc INTEGER NOT NULL, data BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS user (
  kind TEXT NOT NULL, name BLOB NOT NULL, crc INTEGER NOT NULL, data BLOB NOT NULL,
  PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
PRAGMA user_version=${FORMAT};
`;

/**
 * SQLite keeps 16 MiB of pages, and the system the others: with 64 MiB, random reads among a million
 * keys were no faster, and each node was 50 MB larger.
 */
const CACHE_PRAGMA = "PRAGMA cache_size=-16384;";

/** Every statement that the disk runs, prepared once. */
export type Statements = ReturnType<typeof prepare>;

/** What a database in memory has in place of a file; Deno has these, its types do not yet. */
interface Serializable {
  serialize(): Uint8Array;
  deserialize(image: Uint8Array): void;
}

/** The whole database as bytes, what is not committed included. */
export function imageOf(db: DatabaseSync): Uint8Array {
  return (db as unknown as Serializable).serialize();
}

/** A page in the write-ahead log: its 4096 bytes and a header. */
export const FRAME_BYTES = 4096 + 24;
/** The index of that log grows by this much, for so many frames; the first block has a header. */
const INDEX_BLOCK_BYTES = 32_768;
const INDEX_BLOCK_FRAMES = 4096;
const INDEX_HEADER_FRAMES = 34;

/** An open file. */
export interface Tables {
  readonly db: DatabaseSync;
  readonly sql: Statements;
  /** How far the write-ahead log can grow without asking the disk for space. */
  readonly reserveBytes: number;
}

/** How to open a file. */
export interface TablesOptions {
  /** What a database in memory starts with. */
  readonly image?: Uint8Array | undefined;
  /** Space for the write-ahead log to take in advance. Default: none. */
  readonly reserveBytes?: number | undefined;
}

/** Opens or creates a file with the tables, durable commits and one open transaction. */
export function openTables(path: string, options: TablesOptions): Tables {
  const { image, reserveBytes = 0 } = options;
  const db = new DatabaseSync(path);
  if (image !== undefined) (db as unknown as Serializable).deserialize(image);
  db.exec(
    "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0; " +
      "PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON; " +
      CACHE_PRAGMA,
  );
  const version =
    Object.values(db.prepare("PRAGMA user_version").get() ?? {})[0];
  if (version !== 0 && version !== FORMAT) {
    throw new DkvError(
      "DATA_CORRUPT",
      `${path} has format ${version}, this version of dkv reads format ${FORMAT}: export the ` +
        "data with the version that wrote them, and import them into an empty cluster",
    );
  }
  if (version === 0) db.exec(SCHEMA);
  const reserved = path === ":memory:" ? 0 : reserve(db, path, reserveBytes);
  const sql = prepare(db);
  sql.begin.run();
  return { db, sql, reserveBytes: reserved };
}

/**
 * Makes the write-ahead log's file and its index large in advance, so that commits go on when the
 * disk is full. A transaction that is larger than the cache spills into them, and leaves them large
 * when it is rolled back. The index begins small with each start, so a large log is not enough. On
 * a small disk less is taken. Returns how much.
 */
function reserve(db: DatabaseSync, path: string, reserveBytes: number): number {
  for (const part of [1, 4, 16]) {
    const wanted = reserveBytes / part;
    if (wanted === 0 || spill(db, wanted)) return wanted;
    if (fileBytes(`${path}-wal`) >= wanted) {
      return Math.min(wanted, indexedBytes(path));
    }
    db.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  }
  return 0;
}

/** Fills the write-ahead log and empties it again; false if there is no space for that. */
function spill(db: DatabaseSync, bytes: number): boolean {
  try {
    db.exec("PRAGMA wal_checkpoint(PASSIVE)");
    db.exec(
      "PRAGMA cache_size=10; BEGIN IMMEDIATE; CREATE TABLE spill(data BLOB)",
    );
    const insert = db.prepare("INSERT INTO spill VALUES (zeroblob(1048576))");
    for (let at = 0; at < bytes; at += 1048576) insert.run();
    return true;
  } catch (error) {
    if (!isFull(error)) throw error;
    return false;
  } finally {
    if (db.isTransaction) db.exec("ROLLBACK");
    db.exec(CACHE_PRAGMA);
  }
}

/** How large the write-ahead log can grow before its index needs space. */
function indexedBytes(path: string): number {
  const blocks = Math.floor(fileBytes(`${path}-shm`) / INDEX_BLOCK_BYTES);
  return Math.max(0, blocks * INDEX_BLOCK_FRAMES - INDEX_HEADER_FRAMES) *
    FRAME_BYTES;
}

function fileBytes(path: string): number {
  try {
    return Deno.statSync(path).size;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return 0;
    throw error;
  }
}

function prepare(db: DatabaseSync) {
  const rows = (text: string): StatementSync => {
    const statement = db.prepare(text);
    // Arrays instead of objects: a third less time for each row that is read.
    (statement as StatementSync & { setReturnArrays(on: boolean): void })
      .setReturnArrays(true);
    return statement;
  };
  return {
    begin: db.prepare("BEGIN IMMEDIATE"),
    commit: db.prepare("COMMIT"),
    rollback: db.prepare("ROLLBACK"),
    checkpoint: rows("PRAGMA wal_checkpoint(PASSIVE)"),
    walFrames: rows("PRAGMA wal_checkpoint(NOOP)"),
    stateGet: rows("SELECT data, crc FROM state WHERE name = ?"),
    statePut: db.prepare("INSERT OR REPLACE INTO state VALUES (?, ?, ?)"),
    eventInsert: db.prepare("INSERT INTO event VALUES (?, ?, ?, ?, ?)"),
    eventPut: db.prepare("INSERT OR REPLACE INTO event VALUES (?, ?, ?, ?, ?)"),
    eventGet: rows(
      "SELECT position, crc, value_crc, meta, value FROM event " +
        "WHERE position <= ? ORDER BY position DESC LIMIT 1",
    ),
    eventScan: rows(
      "SELECT position, crc, value_crc, meta FROM event WHERE position >= " +
        "ifnull((SELECT max(position) FROM event WHERE position <= ?), 0) ORDER BY position",
    ),
    valueScan: rows("SELECT position, value_crc, value FROM event"),
    eventRemove: db.prepare("DELETE FROM event WHERE position = ?"),
    leasePut: db.prepare("INSERT OR REPLACE INTO lease VALUES (?, ?, ?, ?)"),
    leaseRemove: db.prepare("DELETE FROM lease WHERE id = ?"),
    leaseAll: rows("SELECT id, ttl_ms, deadline_ms, crc FROM lease"),
    sessionPut: db.prepare("INSERT OR REPLACE INTO session VALUES (?, ?, ?)"),
    sessionRemove: db.prepare("DELETE FROM session WHERE client = ?"),
    sessionAll: rows("SELECT client, crc, data FROM session"),
    userPut: db.prepare("INSERT OR REPLACE INTO user VALUES (?, ?, ?, ?)"),
    userRemove: db.prepare("DELETE FROM user WHERE kind = ? AND name = ?"),
    userAll: rows("SELECT kind, name, crc, data FROM user"),
  };
}

const SQLITE_BUSY = 5;
const SQLITE_CORRUPT = 11;
const SQLITE_FULL = 13;
const SQLITE_NOTADB = 26;
/** Extended: there is no space for the index of the write-ahead log. */
const SQLITE_IOERR_SHMSIZE = 10 + (19 << 8);

/** Says that a file is damaged, and the way out. */
export function corruptError(
  path: string,
  what: string,
  cause?: unknown,
): DkvError {
  return new DkvError(
    "DATA_CORRUPT",
    `${path} is damaged: ${what}. This node will not serve from it. Move its data directory ` +
      "away and start the node with --rejoin: it comes back as a new member and copies the " +
      "data from the others",
    { cause },
  );
}

/** Runs something on SQLite and turns what it throws into an error that names the file. */
export function translate<T>(path: string, run: () => T): T {
  try {
    return run();
  } catch (error) {
    if (error instanceof DkvError || error instanceof AssertionError) {
      throw error;
    }
    const { message } = error as Error;
    const code = codeOf(error);
    switch (code) {
      case SQLITE_CORRUPT:
      case SQLITE_NOTADB:
        throw corruptError(path, message ?? "not a database", error);
      case SQLITE_FULL:
        throw new DkvError("DISK_FULL", `No space left to write ${path}`, {
          cause: error,
        });
      case SQLITE_BUSY:
        throw new DkvError(
          "CONFIG_INVALID",
          `${path} is in use by another process: two nodes cannot share a data directory`,
          { cause: error },
        );
      default:
        throw new DkvError(
          "INTERNAL",
          `Cannot use ${path}: ${message ?? error}`,
          {
            cause: error,
          },
        );
    }
  }
}

function isFull(error: unknown): boolean {
  return codeOf(error) === SQLITE_FULL;
}

function codeOf(error: unknown): number {
  const { errcode, message } = error as { errcode?: number; message?: string };
  if (errcode === undefined) return codeOfMessage(message ?? "");
  return errcode === SQLITE_IOERR_SHMSIZE ? SQLITE_FULL : errcode & 0xff;
}

/** `exec` and opening give no error code in Deno, only SQLite's text (sqlite3_errstr). */
function codeOfMessage(message: string): number {
  if (/malformed|corrupt/.test(message)) return SQLITE_CORRUPT;
  if (/not a database/.test(message)) return SQLITE_NOTADB;
  if (/is full/.test(message)) return SQLITE_FULL;
  if (/is locked|busy/.test(message)) return SQLITE_BUSY;
  return 0;
}
