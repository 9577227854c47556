/**
 * The SQLite file of one replica of one group: the store's rows and, under a few names, what is saved
 * along with them, in one long transaction that ends with each commit. Used by `disk.ts`.
 *
 * Every row carries a CRC that is checked whenever the row is read.
 *
 * @module
 */

import type { DatabaseSync, StatementSync } from "node:sqlite";
import { crc32 } from "node:zlib";
import { checkValues } from "./blocks.ts";
import {
  latin1Bytes,
  type LeaseColumns,
  leaseColumns,
  leaseOf,
  type SessionColumns,
  sessionColumns,
  sessionOf,
  type UserColumns,
  userColumns,
  userOf,
} from "./columns.ts";
import { assert } from "./errors.ts";
import { Events } from "./events.ts";
import { folderOf, syncFolder } from "./folder.ts";
import type {
  EventMeta,
  EventRow,
  LeaseRow,
  Rows,
  SessionRow,
  UserRow,
} from "./store.ts";
import {
  corruptError,
  imageOf,
  openTables,
  type Statements,
  translate,
} from "./tables.ts";
import { type CheckpointHelper, WriteAheadLog } from "./writeahead.ts";

/** How to open a {@linkcode RowFile}. */
export interface RowFileOptions {
  /** The file, or ":memory:". */
  readonly path: string;
  /** What a file in memory holds at first: a {@linkcode RowFile.image}. */
  readonly image?: Uint8Array | undefined;
  /** Space for SQLite's write-ahead log to take in advance. Default: none. */
  readonly walReserveBytes?: number | undefined;
  /** Makes the checkpoints; closed with the file. Default: commits make them. */
  readonly helper?: CheckpointHelper | undefined;
}

/** What is saved along with the rows, each a small JSON text. */
export type SavedName = "hard" | "store" | "configuration" | "start";

/** An open file. */
export class RowFile implements Rows {
  readonly #options: RowFileOptions;
  readonly #path: string;
  #db: DatabaseSync;
  #sql: Statements;
  #wal: WriteAheadLog;
  #events: Events;
  /** Sessions whose rows differ from the open transaction: one changes with every entry. */
  readonly #sessions = new Map<string, () => Uint8Array>();
  /** What differs from the open transaction. */
  readonly #unsaved = new Map<SavedName, unknown>();
  /** True if the open transaction holds anything at all, or should. */
  #dirty = false;

  /**
   * Opens or creates the file.
   *
   * @throws {DkvError} DATA_CORRUPT if the file is damaged, DISK_FULL, or CONFIG_INVALID if
   * another process has it open.
   */
  constructor(options: RowFileOptions) {
    this.#options = options;
    this.#path = options.path;
    const { db, sql, wal } = this.#open();
    this.#db = db;
    this.#sql = sql;
    this.#wal = wal;
    this.#events = new Events(sql, this.#path);
  }

  // ---------------------------------------------------------------- rows

  appendEvent(row: EventRow): void {
    this.#events.append(row);
    this.#dirty = true;
    if (this.#events.isFull) this.#writeDown();
  }

  /** Gives SQLite the events that it has not yet, if they fill a block: better while nobody waits. */
  tidy(): void {
    if (this.#events.isEnough) this.#writeDown();
  }

  readEvent(position: number): EventRow {
    return this.#run(() => this.#events.read(position));
  }

  removeEvents(positions: readonly number[]): void {
    if (positions.length === 0) return;
    this.#write(() => this.#events.remove(positions));
  }

  scanEvents(from: number, limit: number): EventMeta[] {
    return this.#run(() => this.#events.scan(from, limit));
  }

  putLease(row: LeaseRow): void {
    this.#write(() => this.#sql.leasePut.run(...leaseColumns(row)));
  }

  removeLease(lease: bigint): void {
    this.#write(() => this.#sql.leaseRemove.run(lease.toString()));
  }

  leases(): LeaseRow[] {
    return this.#all<LeaseColumns>(this.#sql.leaseAll)
      .map((row) => leaseOf(row, this.#path));
  }

  putSession(client: string, data: () => Uint8Array): void {
    this.#sessions.set(client, data);
    this.#dirty = true;
  }

  removeSession(client: string): void {
    this.#sessions.delete(client);
    this.#write(() => this.#sql.sessionRemove.run(latin1Bytes(client)));
  }

  sessions(): SessionRow[] {
    this.#run(() => this.#writeSessions());
    return this.#all<SessionColumns>(this.#sql.sessionAll)
      .map((row) => sessionOf(row, this.#path));
  }

  putUser(row: UserRow): void {
    this.#write(() => this.#sql.userPut.run(...userColumns(row)));
  }

  removeUser({ kind, name }: Pick<UserRow, "kind" | "name">): void {
    this.#write(() => this.#sql.userRemove.run(kind, latin1Bytes(name)));
  }

  users(): UserRow[] {
    return this.#all<UserColumns>(this.#sql.userAll)
      .map((row) => userOf(row, this.#path));
  }

  // ---------------------------------------------------------------- what is saved along with them

  /** Saves a value with the next commit. */
  save(name: SavedName, value: unknown): void {
    this.#unsaved.set(name, value);
    this.#dirty = true;
  }

  /** A value as it was committed last; undefined if it never was. */
  saved<T>(name: SavedName): T | undefined {
    const row = this.#run(() => this.#sql.stateGet.get(name)) as unknown as
      | [string, number]
      | undefined;
    if (row === undefined) return undefined;
    if (crc32(row[0]) !== row[1]) {
      throw corruptError(this.#path, `state row "${name}" fails its checksum`);
    }
    return JSON.parse(row[0]) as T;
  }

  // ---------------------------------------------------------------- durability

  /** True if something was written since the last commit. */
  get dirty(): boolean {
    return this.#dirty;
  }

  /** Makes everything written so far durable. */
  commit(): void {
    this.#run(() => {
      this.#end();
      this.#wal.limit();
      this.#sql.begin.run();
    });
  }

  /** Commits, and copies SQLite's write-ahead log into the file if there is space for that. */
  checkpoint(): void {
    this.#run(() => {
      this.#end();
      this.#wal.checkpoint();
      this.#sql.begin.run();
    });
  }

  /** Forgets what was not committed. */
  rollback(): void {
    this.#run(() => {
      if (this.#db.isTransaction) this.#sql.rollback.run();
      this.#sql.begin.run();
      this.#forget();
    });
  }

  /** Closes the file, without what was not committed. */
  close(): void {
    this.#run(() => {
      this.#options.helper?.close();
      this.#sql.rollback.run();
      this.#db.close();
    });
  }

  /** As {@linkcode RowFile.close}, for a disk that failed. */
  abandon(): void {
    try {
      this.#options.helper?.close();
      this.#db.close();
    } catch {
      // The failure that led here has been reported; the process is about to end.
    }
  }

  /** Bytes of the file's pages, free ones included. */
  get bytes(): number {
    return this.#pragma("page_count") * this.#pragma("page_size");
  }

  /**
   * True if the file cannot grow for lack of space. What is committed then stays in the write-ahead
   * log, whose bytes on the disk were reserved when it was opened.
   */
  get full(): boolean {
    return this.#wal.full;
  }

  /** True if the file cannot grow and the reserve is nearly used up as well. */
  get exhausted(): boolean {
    return this.#wal.exhausted;
  }

  /**
   * Reads every page and every row once, checksums included.
   *
   * @throws {DkvError} DATA_CORRUPT
   */
  verify(): void {
    this.#run(() => {
      const report = this.#db.prepare("PRAGMA quick_check(1)").get() as Record<
        string,
        unknown
      >;
      if (report["quick_check"] !== "ok") {
        throw corruptError(this.#path, String(report["quick_check"]));
      }
      for (const row of this.#sql.valueScan.iterate()) {
        checkValues(row as unknown as [number, number, Uint8Array], this.#path);
      }
    });
  }

  // ---------------------------------------------------------------- copies

  /** All that is committed, as bytes. */
  image(): Uint8Array {
    assert(!this.#dirty, "Cannot copy what is not committed");
    return this.#run(() => {
      this.#sql.commit.run();
      const image = imageOf(this.#db);
      this.#sql.begin.run();
      return image;
    });
  }

  /** Commits and folds the write-ahead log into the file, so that the file alone is all there is. */
  fold(): void {
    this.#run(() => {
      this.#end();
      this.#db.exec("PRAGMA journal_mode=DELETE");
    });
  }

  /** Puts a folded file in the place of this one. It is one rename: a crash leaves the one or the other. */
  replaceBy(path: string): void {
    this.#run(() => {
      this.#options.helper?.settle(); // Or it would have a file open that is gone.
      this.#sql.rollback.run();
      this.#db.close();
      removeIfPresent(`${this.#path}-wal`);
      removeIfPresent(`${this.#path}-shm`);
      Deno.renameSync(path, this.#path);
      syncFolder(folderOf(this.#path));
    });
    ({ db: this.#db, sql: this.#sql, wal: this.#wal } = this.#open());
    this.#forget();
  }

  /** As {@linkcode RowFile.replaceBy}, for files in memory. The other one is this one from then on. */
  become(other: RowFile): void {
    this.#db.close();
    this.#db = other.#db;
    this.#sql = other.#sql;
    this.#wal = other.#wal;
    this.#run(() => this.#sql.begin.run());
    this.#forget();
  }

  // ---------------------------------------------------------------- private

  #open() {
    const { image, walReserveBytes, helper = null } = this.#options;
    const { db, sql, reserveBytes } = this.#run(() =>
      openTables(this.#path, { image, reserveBytes: walReserveBytes })
    );
    const wal = new WriteAheadLog(this.#path, { sql, reserveBytes, helper });
    return { db, sql, wal };
  }

  #forget(): void {
    this.#events = new Events(this.#sql, this.#path);
    this.#sessions.clear();
    this.#unsaved.clear();
    this.#dirty = false;
  }

  /** Writes down what is held back and ends the open transaction. */
  #end(): void {
    this.#events.writeDown();
    this.#writeSessions();
    for (const [name, value] of this.#unsaved) {
      const data = JSON.stringify(value);
      this.#sql.statePut.run(name, data, crc32(data));
    }
    this.#unsaved.clear();
    this.#sql.commit.run();
    this.#dirty = false;
  }

  #writeDown(): void {
    this.#run(() => this.#events.writeDown());
  }

  #writeSessions(): void {
    for (const [client, data] of this.#sessions) {
      const row = { client, data: data() };
      this.#sql.sessionPut.run(...sessionColumns(row));
    }
    this.#sessions.clear();
  }

  #run<T>(run: () => T): T {
    return translate(this.#path, run);
  }

  #write(run: () => void): void {
    this.#run(run);
    this.#dirty = true;
  }

  #all<Columns>(statement: StatementSync): Columns[] {
    return this.#run(() => statement.all()) as unknown as Columns[];
  }

  #pragma(name: string): number {
    const row = this.#db.prepare(`PRAGMA ${name}`).get();
    return Number(Object.values(row ?? {})[0] ?? 0);
  }
}

function removeIfPresent(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}
