/**
 * One group's SQLite file: the replicated log, the hard state, the store's rows and the open
 * transaction that makes a turn's writes durable together.
 *
 * ```text
 *   turn 1                      turn 2
 *   BEGIN  log rows   COMMIT ── BEGIN  event rows of turn 1, log rows of turn 2   COMMIT ── BEGIN …
 *                       └ one fsync: now the turn's votes and acknowledgements may leave
 * ```
 *
 * What the store applied after a COMMIT becomes durable with the next one; after a crash the log
 * replays the difference, because the applied index is saved in the same transaction as the rows.
 *
 * Every row carries a CRC that is checked whenever the row is read. Any error that comes out of
 * here is fatal to the node: it stops and reads its disk afresh at the next start.
 *
 * @module
 */

import type { DatabaseSync, StatementSync } from "node:sqlite";
import { crc32 } from "node:zlib";
import { assert, DkvError } from "./errors.ts";
import type {
  Configuration,
  Entry,
  HardState,
  Index,
  SnapshotMeta,
  Term,
} from "./message.ts";
import type { LogStorage } from "./log.ts";
import { checkValues } from "./blocks.ts";
import {
  entryColumns,
  entryOf,
  latin1Bytes,
  type LeaseColumns,
  leaseColumns,
  leaseOf,
  type LogRow,
  type SessionColumns,
  sessionColumns,
  sessionOf,
  type UserColumns,
  userColumns,
  userOf,
} from "./columns.ts";
import { Events } from "./events.ts";
import {
  EMPTY_STATE,
  type EventMeta,
  type EventRow,
  type LeaseRow,
  type Rows,
  type SessionRow,
  type StoreState,
  type UserRow,
} from "./store.ts";
import {
  corruptError,
  imageOf,
  openTables,
  type Statements,
  translate,
} from "./tables.ts";
import { type CheckpointHelper, WriteAheadLog } from "./writeahead.ts";

/** Where this replica's log begins, and the configuration that was in force there. */
interface LogStart {
  readonly index: Index;
  readonly term: Term;
}

/** The configuration entry that was applied last, or the bootstrap configuration. */
interface AppliedConfiguration {
  readonly index: Index;
  readonly configuration: Configuration;
}

/** How to open a {@linkcode Disk}. */
export interface DiskOptions {
  /** The file, or ":memory:" for a simulated disk that keeps what was committed. */
  path: string;
  /** What a new file starts with. */
  bootstrap: Configuration;
  /** What a disk in memory holds at first: a {@linkcode Disk.copy}. */
  image?: Uint8Array;
  /** Space for the write-ahead log to take in advance, for when the disk is full. Default: none. */
  reserveBytes?: number;
  /** Makes the checkpoints; the disk closes it. Default: commits make them. */
  helper?: CheckpointHelper;
}

const EMPTY_HARD_STATE: HardState = { term: 0, vote: null, commit: 0 };

/** The rows of `state`, each a small JSON text. */
const STATE_NAMES = ["hard", "store", "configuration", "start"] as const;
type StateName = typeof STATE_NAMES[number];

/** The disk of one replica of one group. */
export class Disk implements LogStorage, Rows {
  readonly #path: string;
  readonly #bootstrap: Configuration;
  #db: DatabaseSync;
  #sql: Statements;
  #wal: WriteAheadLog;
  readonly #wantedReserveBytes: number;
  readonly #helper: CheckpointHelper | null;
  #hardState = EMPTY_HARD_STATE;
  #storeState: StoreState = EMPTY_STATE;
  #configuration: AppliedConfiguration;
  #start: LogStart = { index: 0, term: 0 };
  #lastIndex: Index = 0;
  /** Names of the `state` rows that differ from the open transaction. */
  #stale = new Set<StateName>();
  /** Made anew whenever the file is read anew. */
  #events: Events;
  /** True if the open transaction holds anything at all, or should. */
  #dirty = false;
  #logBytes = 0;

  /**
   * Opens or creates the file.
   *
   * @throws {DkvError} DATA_CORRUPT if the file is damaged, DISK_FULL, or CONFIG_INVALID if
   * another process has it open.
   */
  constructor(options: DiskOptions) {
    this.#path = options.path;
    this.#bootstrap = options.bootstrap;
    this.#configuration = { index: 0, configuration: options.bootstrap };
    this.#wantedReserveBytes = options.reserveBytes ?? 0;
    const helper = this.#helper = options.helper ?? null;
    const { db, sql, reserveBytes } = translate(
      this.#path,
      () => openTables(this.#path, options),
    );
    this.#db = db;
    this.#sql = sql;
    this.#events = new Events(sql, this.#path);
    this.#wal = new WriteAheadLog(this.#path, { sql, reserveBytes, helper });
    translate(this.#path, () => this.#load());
  }

  /** The file this disk lives in. */
  get path(): string {
    return this.#path;
  }

  // ---------------------------------------------------------------- log

  get firstIndex(): Index {
    return this.#start.index + 1;
  }

  get lastIndex(): Index {
    return this.#lastIndex;
  }

  term(index: Index): Term {
    if (index === this.#start.index) return this.#start.term;
    const row = translate(this.#path, () => this.#sql.logGet.get(index)) as
      | LogRow
      | undefined;
    assert(
      row !== undefined,
      `No log entry ${index}: the log holds ${this.firstIndex} to ${this.#lastIndex}`,
    );
    // The whole row, for its checksum: a wrong term could win an election that it must lose.
    return entryOf(row, this.#path).term;
  }

  entries(from: Index, to: Index, bytesMax: number): Entry[] {
    assert(
      from >= this.firstIndex && to <= this.#lastIndex + 1,
      `No log entries ${from} to ${to}: the log holds ${this.firstIndex} to ${this.#lastIndex}`,
    );
    return translate(this.#path, () => {
      const entries: Entry[] = [];
      let bytes = 0;
      for (const row of this.#sql.logRange.iterate(from, to)) {
        const entry = entryOf(row as unknown as LogRow, this.#path);
        bytes += entry.type === "batch" ? entry.data.length : 64;
        if (entries.length > 0 && bytes > bytesMax) break;
        entries.push(entry);
      }
      return entries;
    });
  }

  /** Writes entries into the open transaction, first dropping everything from `truncateFrom` on. */
  appendEntries(entries: readonly Entry[], truncateFrom: Index | null): void {
    translate(this.#path, () => {
      if (truncateFrom !== null && truncateFrom <= this.#lastIndex) {
        assert(
          truncateFrom > this.#storeState.appliedIndex,
          `Cannot cut the log at ${truncateFrom}: applied up to ${this.#storeState.appliedIndex}`,
        );
        this.#sql.logCut.run(truncateFrom);
        this.#lastIndex = truncateFrom - 1;
        this.#measureLog();
      }
      for (const entry of entries) this.#appendEntry(entry);
      this.#dirty = true;
    });
  }

  /** Bytes of the entries in the log. */
  get logBytes(): number {
    return this.#logBytes;
  }

  /** Drops entries up to and including `index` from the front of the log. */
  dropEntries(index: Index): void {
    assert(
      index >= this.#start.index && index <= this.#storeState.appliedIndex,
      `Cannot drop log entries up to ${index}: applied up to ${this.#storeState.appliedIndex}`,
    );
    const term = this.term(index);
    translate(this.#path, () => this.#sql.logDrop.run(index));
    this.#measureLog();
    this.#start = { index, term };
    this.#touch("start");
  }

  // ---------------------------------------------------------------- state

  get hardState(): HardState {
    return this.#hardState;
  }

  saveHardState(hardState: HardState): void {
    assert(
      hardState.term >= this.#hardState.term,
      `Term goes down: ${this.#hardState.term} to ${hardState.term}`,
    );
    this.#hardState = hardState;
    this.#touch("hard");
  }

  get storeState(): StoreState {
    return this.#storeState;
  }

  /** Saves what the store says of itself; durable, with its rows, at the next commit. */
  saveStoreState(state: StoreState): void {
    // A node that idles must not commit, and so sync, what has not changed.
    if (isSameState(state, this.#storeState)) return;
    this.#storeState = state;
    this.#touch("store");
  }

  /** The last configuration that was applied; later ones stand in the log. */
  get configuration(): AppliedConfiguration {
    return this.#configuration;
  }

  saveConfiguration(configuration: Configuration, index: Index): void {
    this.#configuration = { index, configuration };
    this.#touch("configuration");
  }

  // ---------------------------------------------------------------- rows of the store

  appendEvent(row: EventRow): void {
    this.#events.append(row);
    this.#dirty = true;
    if (this.#events.isFull) this.writeDown();
  }

  /** Gives SQLite the events that it has not yet. A commit does that too: better while nobody waits. */
  writeDown(): void {
    translate(this.#path, () => this.#events.writeDown());
  }

  readEvent(position: number): EventRow {
    return translate(this.#path, () => this.#events.read(position));
  }

  removeEvents(positions: readonly number[]): void {
    if (positions.length === 0) return;
    this.#write(() => this.#events.remove(positions));
  }

  scanEvents(from: number, limit: number): EventMeta[] {
    return translate(this.#path, () => this.#events.scan(from, limit));
  }

  putLease(row: LeaseRow): void {
    this.#write(() => this.#sql.leasePut.run(...leaseColumns(row)));
  }

  removeLease(lease: bigint): void {
    this.#write(() => this.#sql.leaseRemove.run(lease.toString()));
  }

  leases(): LeaseRow[] {
    return this.#rows<LeaseColumns>(this.#sql.leaseAll)
      .map((row) => leaseOf(row, this.#path));
  }

  putSession(row: SessionRow): void {
    this.#write(() => this.#sql.sessionPut.run(...sessionColumns(row)));
  }

  removeSession(client: string): void {
    this.#write(() => this.#sql.sessionRemove.run(latin1Bytes(client)));
  }

  sessions(): SessionRow[] {
    return this.#rows<SessionColumns>(this.#sql.sessionAll)
      .map((row) => sessionOf(row, this.#path));
  }

  putUser(row: UserRow): void {
    this.#write(() => this.#sql.userPut.run(...userColumns(row)));
  }

  removeUser({ kind, name }: Pick<UserRow, "kind" | "name">): void {
    this.#write(() => this.#sql.userRemove.run(kind, latin1Bytes(name)));
  }

  users(): UserRow[] {
    return this.#rows<UserColumns>(this.#sql.userAll)
      .map((row) => userOf(row, this.#path));
  }

  #write(run: () => void): void {
    translate(this.#path, run);
    this.#dirty = true;
  }

  #rows<Columns>(all: StatementSync): Columns[] {
    return translate(this.#path, () => all.all()) as unknown as Columns[];
  }

  // ---------------------------------------------------------------- durability

  /** True if something was written since the last commit. */
  get dirty(): boolean {
    return this.#dirty;
  }

  /**
   * Makes everything written so far durable, with one fsync.
   *
   * @throws {DkvError} if the disk refuses; the disk must not be used afterwards, since nobody
   * knows what it holds (raft-pitfalls P8).
   */
  commit(): void {
    if (!this.#dirty) return;
    translate(this.#path, () => {
      this.#commitPending();
      this.#wal.limit();
      this.#sql.begin.run();
    });
    this.#dirty = false;
  }

  /** Forgets what was not committed and reads the rest again: what a crash and a restart would do. */
  reopen(): void {
    translate(this.#path, () => {
      if (this.#db.isTransaction) this.#sql.rollback.run();
      this.#sql.begin.run();
      this.#load();
    });
  }

  /** Commits and closes the file. */
  close(): void {
    translate(this.#path, () => {
      this.commit();
      this.#helper?.close();
      this.#sql.commit.run();
      this.#db.close();
    });
  }

  /** Closes the file without committing: for a disk that failed. */
  abandon(): void {
    try {
      this.#helper?.close();
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

  /** After a disk was full: commits and tries to copy the write-ahead log into the file. */
  makeSpace(): void {
    translate(this.#path, () => {
      this.#commitPending();
      this.#wal.checkpoint();
      this.#sql.begin.run();
    });
    this.#dirty = false;
  }

  /**
   * Reads every page and every row once, checksums included.
   *
   * @throws {DkvError} DATA_CORRUPT
   */
  verify(): void {
    translate(this.#path, () => {
      const report = this.#db.prepare("PRAGMA quick_check(1)").get() as Record<
        string,
        unknown
      >;
      if (report["quick_check"] !== "ok") {
        throw this.#corrupt(String(report["quick_check"]));
      }
      for (
        const row of this.#sql.logRange.iterate(0, Number.MAX_SAFE_INTEGER)
      ) {
        entryOf(row as unknown as LogRow, this.#path);
      }
      for (const row of this.#sql.valueScan.iterate()) {
        checkValues(row as unknown as [number, number, Uint8Array], this.#path);
      }
    });
  }

  // ---------------------------------------------------------------- snapshots

  /**
   * Replaces everything by the state in `file`, keeping this replica's term and vote. The switch
   * is one rename, so a crash leaves either the old state or the new one (raft-pitfalls S6).
   */
  installSnapshot(file: string, meta: SnapshotMeta): void {
    assert(
      this.#path !== ":memory:",
      "A disk in memory installs bytes, not files",
    );
    const hardState = this.#hardState;
    translate(file, () => {
      const incoming = new Disk({ path: file, bootstrap: this.#bootstrap });
      try {
        incoming.#becomeSnapshot(meta, hardState);
      } finally {
        incoming.abandon();
      }
    });
    const helper = this.#helper;
    translate(this.#path, () => {
      helper?.settle(); // Or it would have a file open that is gone.
      this.#sql.commit.run();
      this.#db.close();
      removeIfPresent(`${this.#path}-wal`);
      removeIfPresent(`${this.#path}-shm`);
      Deno.renameSync(file, this.#path);
      syncFolder(this.#path);
      const { db, sql, reserveBytes } = openTables(this.#path, {
        reserveBytes: this.#wantedReserveBytes,
      });
      this.#db = db;
      this.#sql = sql;
      this.#wal = new WriteAheadLog(this.#path, { sql, reserveBytes, helper });
      this.#load();
    });
  }

  /** All that is committed, as bytes: what a disk in memory ships in place of a file. */
  copy(): Uint8Array {
    assert(!this.#dirty, "Cannot copy what is not committed");
    return translate(this.#path, () => {
      this.#sql.commit.run();
      const image = imageOf(this.#db);
      this.#sql.begin.run();
      return image;
    });
  }

  /** As {@linkcode installSnapshot}, for a disk in memory and the copy of another. */
  installCopy(image: Uint8Array, meta: SnapshotMeta): void {
    assert(this.#path === ":memory:", "A disk on files installs files");
    const hardState = this.#hardState;
    translate(this.#path, () => {
      const incoming = new Disk({
        path: this.#path,
        bootstrap: this.#bootstrap,
        image,
      });
      incoming.#becomeSnapshot(meta, hardState);
      this.#db.close();
      this.#db = incoming.#db;
      this.#sql = incoming.#sql;
      this.#wal = incoming.#wal;
      this.#sql.begin.run();
      this.#load();
    });
  }

  /**
   * Reads all of a copy of a disk's file, and says which state it holds. Damage must be found here:
   * it would end every replica that the copy is sent to.
   *
   * @throws {DkvError} DATA_CORRUPT
   */
  static describe(file: string, bootstrap: Configuration): SnapshotMeta {
    const disk = new Disk({ path: file, bootstrap });
    try {
      disk.verify();
      const { appliedIndex, appliedTerm } = disk.#storeState;
      const configuration = disk.#configuration.configuration;
      disk.#leaveWal();
      return { index: appliedIndex, term: appliedTerm, configuration };
    } finally {
      disk.abandon();
    }
  }

  /** Turns a copy of another replica's file into this replica's own, with an empty log. */
  #becomeSnapshot(meta: SnapshotMeta, hardState: HardState): void {
    const { appliedIndex, appliedTerm } = this.#storeState;
    if (appliedIndex !== meta.index || appliedTerm !== meta.term) {
      throw new DkvError(
        "DATA_CORRUPT",
        `The snapshot holds the state at index ${appliedIndex} of term ${appliedTerm}, ` +
          `not ${meta.index} of term ${meta.term} as announced`,
      );
    }
    this.verify();
    this.#sql.logDrop.run(Number.MAX_SAFE_INTEGER);
    this.#start = { index: meta.index, term: meta.term };
    this.#hardState = { ...hardState, commit: meta.index };
    for (const name of STATE_NAMES) this.#touch(name);
    this.commit();
    this.#leaveWal();
    if (this.#path !== ":memory:") syncFile(this.#path);
  }

  /** Folds the write-ahead log into the file, so that the file alone is the whole state. */
  #leaveWal(): void {
    this.#sql.commit.run();
    this.#db.exec("PRAGMA journal_mode=DELETE");
  }

  // ---------------------------------------------------------------- private

  #touch(name: StateName): void {
    this.#stale.add(name);
    this.#dirty = true;
  }

  /** Writes down what is held back and ends the open transaction. */
  #commitPending(): void {
    this.#events.writeDown();
    for (const name of this.#stale) {
      const data = JSON.stringify(this.#stateRow(name));
      this.#sql.statePut.run(name, data, crc32(data));
    }
    this.#stale.clear();
    this.#sql.commit.run();
  }

  #stateRow(name: StateName): unknown {
    switch (name) {
      case "hard":
        return this.#hardState;
      case "store":
        return this.#storeState;
      case "configuration":
        return this.#configuration;
      case "start":
        return this.#start;
    }
  }

  /** Reads what is held in memory from the committed rows. */
  #load(): void {
    this.#stale.clear();
    this.#events = new Events(this.#sql, this.#path);
    this.#dirty = false;
    this.#hardState = this.#loadState("hard") ?? EMPTY_HARD_STATE;
    this.#storeState = this.#loadState("store") ?? EMPTY_STATE;
    this.#start = this.#loadState("start") ?? { index: 0, term: 0 };
    this.#configuration = this.#loadState("configuration") ??
      { index: 0, configuration: this.#bootstrap };
    const last = this.#sql.logLast.get() as unknown as [number | null];
    this.#lastIndex = last[0] ?? this.#start.index;
    this.#measureLog();
    if (this.#lastIndex < this.#storeState.appliedIndex) {
      throw this.#corrupt(
        `the log ends at ${this.#lastIndex}, the store is at ${this.#storeState.appliedIndex}`,
      );
    }
  }

  #loadState<T>(name: StateName): T | undefined {
    const row = this.#sql.stateGet.get(name) as unknown as
      | [string, number]
      | undefined;
    if (row === undefined) return undefined;
    if (crc32(row[0]) !== row[1]) {
      throw this.#corrupt(`state row "${name}" fails its checksum`);
    }
    return JSON.parse(row[0]) as T;
  }

  #appendEntry(entry: Entry): void {
    assert(
      entry.index === this.#lastIndex + 1,
      `Log entry ${entry.index} does not follow ${this.#lastIndex}`,
    );
    const row = entryColumns(entry);
    this.#sql.logInsert.run(...row);
    this.#lastIndex = entry.index;
    this.#logBytes += row[4].length;
  }

  #measureLog(): void {
    const row = this.#sql.logBytes.get() as unknown as [number | null];
    this.#logBytes = row[0] ?? 0;
  }

  #pragma(name: string): number {
    const row = this.#db.prepare(`PRAGMA ${name}`).get();
    return Number(Object.values(row ?? {})[0] ?? 0);
  }

  #corrupt(what: string): DkvError {
    return corruptError(this.#path, what);
  }
}

function isSameState(a: StoreState, b: StoreState): boolean {
  const names = Object.keys(a) as (keyof StoreState)[];
  return names.every((name) => a[name] === b[name]);
}

function removeIfPresent(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** Makes a file's bytes durable. */
function syncFile(path: string): void {
  using file = Deno.openSync(path, { read: true, write: true });
  file.syncSync();
}

/** Makes a file's name durable: a rename is only on disk once its folder is (raft-pitfalls P9). */
function syncFolder(path: string): void {
  const slash = path.lastIndexOf("/");
  using folder = Deno.openSync(slash > 0 ? path.slice(0, slash) : ".");
  folder.syncSync();
}
