/**
 * The disk of one replica of one group: a journal with its log, term and vote, and a SQLite file with
 * the store's rows.
 *
 * ```text
 *   turn    append ─▶ journal ─ sync ─▶ votes and acknowledgements may leave
 *   apply   rows ─▶ the open transaction ············ COMMIT, once for many turns
 * ```
 *
 * What is acknowledged is in the journal. What the store applied becomes durable with the next commit,
 * which also says how far it is; after a crash the log replays the rest. So a commit is never ahead
 * of the journal, and the journal keeps what the last commit does not have.
 *
 * Everything carries a checksum that is checked whenever it is read. Any error that comes out of
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
import { entryBytes, type LogStorage } from "./log.ts";
import { checkValues } from "./blocks.ts";
import { Journal } from "./journal.ts";
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
import { SegmentFiles, type Segments, SegmentsInMemory } from "./segments.ts";
import {
  corruptError,
  imageOf,
  openTables,
  type Statements,
  type Tables,
  translate,
} from "./tables.ts";
import { type CheckpointHelper, WriteAheadLog } from "./writeahead.ts";

/** Where this replica's log begins, and which frames of its journal are older than the rows. */
interface LogStart {
  readonly index: Index;
  readonly term: Term;
  /** The last frame when the rows were committed. */
  readonly frame: number;
  /** Frames up to this one hold nothing any more: a snapshot took their place. */
  readonly voidFrame: number;
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
  image?: Uint8Array | undefined;
  /** What the journal of a disk in memory holds at first. */
  segments?: SegmentsInMemory;
  /** True for the copy of another replica's rows: it comes without a journal. */
  isCopy?: boolean;
  /** How large a segment of the journal gets. */
  segmentBytes?: number;
  /** How much of the log is applied until its rows should be committed. */
  commitBytes?: number;
  /** Space to take in advance, for when the disk is full. Default: none. */
  reserve?: Reserve;
  /** Makes the checkpoints; the disk closes it. Default: commits make them. */
  helper?: CheckpointHelper;
}

/** Bytes that stand ready. */
export interface Reserve {
  /** For SQLite's write-ahead log. */
  readonly walBytes: number;
  readonly journalBytes: number;
}

const NO_START: LogStart = { index: 0, term: 0, frame: 0, voidFrame: 0 };

/**
 * The rows are committed when so much has been applied since: seldom enough that it costs little, and
 * often enough that it takes few milliseconds and that a start has little to replay.
 */
const COMMIT_BYTES = 1024 * 1024;
/** When so many times that waits, they are committed even while somebody waits. */
const LATE_COMMITS = 8;

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
  readonly #segments: Segments;
  readonly #options: DiskOptions;
  #journal: Journal;
  readonly #helper: CheckpointHelper | null;
  #hardState = EMPTY_HARD_STATE;
  #storeState: StoreState = EMPTY_STATE;
  #configuration: AppliedConfiguration;
  #start = NO_START;
  /** Names of the `state` rows that differ from the open transaction. */
  #stale = new Set<StateName>();
  /** Made anew whenever the file is read anew. */
  #events: Events;
  /** True if the open transaction holds anything at all, or should. */
  #hasRows = false;
  /** Of the log, since the last commit. */
  #uncommittedBytes = 0;
  #isCommitWanted = false;

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
    this.#options = options;
    const helper = this.#helper = options.helper ?? null;
    this.#segments = options.segments ??
      (options.isCopy || this.#path === ":memory:"
        ? new SegmentsInMemory()
        : new SegmentFiles(this.#path));
    const { db, sql, reserveBytes } = translate(
      this.#path,
      () => this.#openTables(options.image),
    );
    this.#db = db;
    this.#sql = sql;
    this.#events = new Events(sql, this.#path);
    this.#wal = new WriteAheadLog(this.#path, { sql, reserveBytes, helper });
    this.#journal = translate(this.#path, () => this.#load());
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
    return this.#journal.lastIndex;
  }

  term(index: Index): Term {
    if (index === this.#start.index) return this.#start.term;
    return this.#journal.term(index);
  }

  entries(from: Index, to: Index, bytesMax: number): Entry[] {
    assert(
      from >= this.firstIndex && to <= this.lastIndex + 1,
      `No log entries ${from} to ${to}: the log holds ${this.firstIndex} to ${this.lastIndex}`,
    );
    return translate(this.#path, () => {
      const entries: Entry[] = [];
      let bytes = 0;
      for (let index = from; index < to; index++) {
        const entry = this.#journal.entry(index);
        bytes += entryBytes(entry);
        if (entries.length > 0 && bytes > bytesMax) break;
        entries.push(entry);
      }
      return entries;
    });
  }

  /** Adds entries to the log, first dropping everything from `truncateFrom` on. */
  appendEntries(entries: readonly Entry[], truncateFrom: Index | null): void {
    if (truncateFrom !== null && truncateFrom <= this.lastIndex) {
      assert(
        truncateFrom > this.#storeState.appliedIndex,
        `Cannot cut the log at ${truncateFrom}: applied up to ${this.#storeState.appliedIndex}`,
      );
      this.#journal.cut(truncateFrom);
    }
    for (const entry of entries) {
      assert(
        entry.index === this.lastIndex + 1,
        `Log entry ${entry.index} does not follow ${this.lastIndex}`,
      );
      this.#journal.append(entry);
      this.#uncommittedBytes += entryBytes(entry);
    }
  }

  /** Bytes of the entries in the log. */
  get logBytes(): number {
    return this.#journal.bytes;
  }

  /** Drops entries up to and including `index` from the front of the log. */
  dropEntries(index: Index): void {
    assert(
      index >= this.#start.index && index <= this.#storeState.appliedIndex,
      `Cannot drop log entries up to ${index}: applied up to ${this.#storeState.appliedIndex}`,
    );
    this.#start = { ...this.#start, index, term: this.term(index) };
    this.#journal.drop(index);
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
    this.#journal.saveHardState(hardState);
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
    this.#hasRows = true;
    if (this.#events.isFull) this.writeDown();
  }

  /** Gives SQLite the events that it has not yet. */
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
    this.#hasRows = true;
  }

  #rows<Columns>(all: StatementSync): Columns[] {
    return translate(this.#path, () => all.all()) as unknown as Columns[];
  }

  // ---------------------------------------------------------------- durability

  /** True if something was written since the last commit. */
  get dirty(): boolean {
    return this.#hasRows || this.#journal.dirty;
  }

  /** True if log, term and vote are durable as they are. */
  get isSynced(): boolean {
    return !this.#journal.dirty;
  }

  /**
   * Makes log, term and vote durable, with one fsync.
   *
   * @throws {DkvError} if the disk refuses; the disk must not be used afterwards, since nobody
   * knows what it holds (raft-pitfalls P8).
   */
  sync(): void {
    translate(this.#path, () => this.#journal.sync());
  }

  /**
   * Makes everything written so far durable.
   *
   * @throws {DkvError} as {@linkcode Disk.sync}
   */
  commit(): void {
    this.sync();
    if (!this.#hasRows) return;
    translate(this.#path, () => {
      this.#commitPending();
      this.#wal.limit();
      this.#sql.begin.run();
      this.#journal.release(this.#start.index);
    });
  }

  /** Asks for the next {@linkcode Disk.tidy} to commit. */
  commitSoon(): void {
    if (this.dirty) this.#isCommitWanted = true;
  }

  /** True if so much waits for a commit that a start would have to replay for long. */
  get isLate(): boolean {
    return this.#uncommittedBytes >= LATE_COMMITS * this.#commitBytes;
  }

  /** Does what has to be done at some time, and is better done while nobody waits. */
  tidy(): void {
    this.writeDown();
    translate(this.#path, () => this.#journal.reserve());
    const isDue = this.#uncommittedBytes >= this.#commitBytes;
    if (isDue || this.#isCommitWanted) this.commit();
  }

  /** Forgets what was not committed and reads the rest again: what a crash and a restart would do. */
  reopen(): void {
    translate(this.#path, () => {
      if (this.#db.isTransaction) this.#sql.rollback.run();
      this.#sql.begin.run();
      this.#journal.close();
      if (this.#segments instanceof SegmentsInMemory) this.#segments.crash();
      this.#journal = this.#load();
    });
  }

  /** Commits and closes the files. */
  close(): void {
    translate(this.#path, () => {
      this.commit();
      this.#helper?.close();
      this.#sql.commit.run();
      this.#db.close();
      this.#journal.close();
    });
  }

  /** Closes the files without committing: for a disk that failed. */
  abandon(): void {
    try {
      this.#helper?.close();
      this.#db.close();
      this.#journal.close();
    } catch {
      // The failure that led here has been reported; the process is about to end.
    }
  }

  /** Bytes of the file's pages, free ones included. */
  get bytes(): number {
    return this.#pragma("page_count") * this.#pragma("page_size");
  }

  /**
   * True if a file cannot grow for lack of space. What is written then goes into space that was
   * reserved in advance.
   */
  get full(): boolean {
    return this.#wal.full || this.#journal.full;
  }

  /** True if no file can grow and a reserve is nearly used up as well. */
  get exhausted(): boolean {
    return this.#wal.exhausted || this.#journal.exhausted;
  }

  /** After a disk was full: tries to take space again. */
  makeSpace(): void {
    this.sync();
    translate(this.#path, () => {
      this.#commitPending();
      this.#wal.checkpoint();
      this.#sql.begin.run();
      this.#journal.release(this.#start.index);
      this.#journal.reserve();
    });
  }

  /**
   * Reads every page and every row once, checksums included. All of the journal was read at the start.
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
    const { frame } = this.#journal;
    translate(file, () => {
      const incoming = openCopy(file, this.#bootstrap);
      try {
        incoming.#becomeSnapshot(meta, { hardState, frame });
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
      const { db, sql, reserveBytes } = this.#openTables();
      this.#db = db;
      this.#sql = sql;
      this.#wal = new WriteAheadLog(this.#path, { sql, reserveBytes, helper });
      this.#loadRows();
      this.#journal.restart(meta.index);
    });
  }

  /** All rows that are committed, as bytes: what a disk in memory ships in place of a file. */
  copy(): Uint8Array {
    assert(!this.#hasRows, "Cannot copy what is not committed");
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
    const { frame } = this.#journal;
    translate(this.#path, () => {
      const incoming = openCopy(this.#path, this.#bootstrap, image);
      incoming.#becomeSnapshot(meta, { hardState, frame });
      this.#db.close();
      this.#db = incoming.#db;
      this.#sql = incoming.#sql;
      this.#wal = incoming.#wal;
      this.#sql.begin.run();
      this.#loadRows();
      this.#journal.restart(meta.index);
    });
  }

  /**
   * Reads all of a copy of a disk's file, and says which state it holds. Damage must be found here:
   * it would end every replica that the copy is sent to.
   *
   * @throws {DkvError} DATA_CORRUPT
   */
  static describe(file: string, bootstrap: Configuration): SnapshotMeta {
    const disk = openCopy(file, bootstrap);
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
  #becomeSnapshot(
    meta: SnapshotMeta,
    { hardState, frame }: { hardState: HardState; frame: number },
  ): void {
    const { appliedIndex, appliedTerm } = this.#storeState;
    if (appliedIndex !== meta.index || appliedTerm !== meta.term) {
      throw new DkvError(
        "DATA_CORRUPT",
        `The snapshot holds the state at index ${appliedIndex} of term ${appliedTerm}, ` +
          `not ${meta.index} of term ${meta.term} as announced`,
      );
    }
    this.verify();
    const { index, term } = meta;
    this.#start = { index, term, frame, voidFrame: frame };
    this.#hardState = { ...hardState, commit: meta.index };
    for (const name of STATE_NAMES) this.#touch(name);
    this.#saveRows();
    this.#leaveWal();
    if (this.#path !== ":memory:") syncFile(this.#path);
  }

  /** Folds the write-ahead log into the file, so that the file alone is the whole state. */
  #leaveWal(): void {
    if (this.#db.isTransaction) this.#sql.commit.run();
    this.#db.exec("PRAGMA journal_mode=DELETE");
  }

  // ---------------------------------------------------------------- private

  get #commitBytes(): number {
    return this.#options.commitBytes ?? COMMIT_BYTES;
  }

  #touch(name: StateName): void {
    this.#stale.add(name);
    this.#hasRows = true;
  }

  #openTables(image?: Uint8Array): Tables {
    const reserveBytes = this.#options.reserve?.walBytes;
    return openTables(this.#path, { image, reserveBytes });
  }

  /** Ends the open transaction, which says what it has seen of the journal. All of that is durable. */
  #commitPending(): void {
    this.#start = { ...this.#start, frame: this.#journal.frame };
    this.#touch("start");
    // With the frames goes what they say of term and vote.
    this.#touch("hard");
    this.#saveRows();
    this.#hasRows = false;
    this.#uncommittedBytes = 0;
    this.#isCommitWanted = false;
  }

  /** Writes down what is held back and ends the open transaction. */
  #saveRows(): void {
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

  /** Reads what is held in memory from what is durable. */
  #load(): Journal {
    this.#loadRows();
    const { index: start, frame, voidFrame } = this.#start;
    const { isCopy = false, segmentBytes, reserve } = this.#options;
    const journal = new Journal({
      path: this.#path,
      segments: this.#segments,
      mark: isCopy
        ? { start, frame: 0, voidFrame: 0 }
        : { start, frame, voidFrame },
      segmentBytes,
      reserveBytes: reserve?.journalBytes,
    });
    this.#hardState = journal.hardState ?? this.#hardState;
    const { appliedIndex } = this.#storeState;
    if (!isCopy && journal.lastIndex < appliedIndex) {
      throw this.#corrupt(
        `the log ends at ${journal.lastIndex}, the store is at ${appliedIndex}`,
      );
    }
    return journal;
  }

  #loadRows(): void {
    this.#stale.clear();
    this.#events = new Events(this.#sql, this.#path);
    this.#hasRows = false;
    this.#uncommittedBytes = 0;
    this.#isCommitWanted = false;
    this.#hardState = this.#loadState("hard") ?? EMPTY_HARD_STATE;
    this.#storeState = this.#loadState("store") ?? EMPTY_STATE;
    this.#start = this.#loadState("start") ?? NO_START;
    this.#configuration = this.#loadState("configuration") ??
      { index: 0, configuration: this.#bootstrap };
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

  #pragma(name: string): number {
    const row = this.#db.prepare(`PRAGMA ${name}`).get();
    return Number(Object.values(row ?? {})[0] ?? 0);
  }

  #corrupt(what: string): DkvError {
    return corruptError(this.#path, what);
  }
}

/** Opens a copy of another replica's rows. */
function openCopy(
  path: string,
  bootstrap: Configuration,
  image?: Uint8Array,
): Disk {
  return new Disk({ path, bootstrap, image, isCopy: true });
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
