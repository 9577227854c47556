/**
 * The disk of one replica of one group: a journal with its log, term and vote, and a SQLite file with
 * the store's rows.
 *
 * ```text
 *   turn    log, term, vote ─▶ journal ── sync ─▶ votes and acknowledgements may leave
 *   apply   rows ─▶ the open transaction ···················· COMMIT, once for many turns
 * ```
 *
 * What is acknowledged is in the journal. What the store applied becomes durable with the next commit,
 * along with how far that is; after a crash the log replays the rest. So no commit is ahead of the
 * journal, and the journal keeps what the last commit does not have.
 *
 * Any error that comes out of here is fatal to the node: it stops and reads its disk afresh at the
 * next start.
 *
 * @module
 */

import { assert, DkvError } from "./errors.ts";
import { Journal } from "./journal.ts";
import { entryBytes, type LogStorage } from "./log.ts";
import type {
  Configuration,
  Entry,
  HardState,
  Index,
  SnapshotMeta,
  Term,
} from "./message.ts";
import { RowFile } from "./rowfile.ts";
import { SegmentFiles, type Segments, SegmentsInMemory } from "./segments.ts";
import { EMPTY_STATE, type StoreState } from "./store.ts";
import { corruptError, translate } from "./tables.ts";
import type { CheckpointHelper } from "./writeahead.ts";

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

/** Bytes that stand ready for when the disk is full. */
export interface Reserve {
  /** For SQLite's write-ahead log. */
  readonly walBytes: number;
  readonly journalBytes: number;
}

/** How to open a {@linkcode Disk}. */
export interface DiskOptions {
  /** The file with the rows, or ":memory:" for a simulated disk that keeps what was made durable. */
  readonly path: string;
  /** What a new disk starts with. */
  readonly bootstrap: Configuration;
  /** The rows of a disk in memory at first: a {@linkcode Disk.copy}. */
  readonly image?: Uint8Array | undefined;
  /** The journal of a disk in memory. */
  readonly segments?: SegmentsInMemory;
  /** True for a copy of another replica's rows, which comes without a journal. */
  readonly isCopy?: boolean;
  /** How large a segment of the journal gets. */
  readonly segmentBytes?: number;
  /** How much of the log may be applied until its rows should be committed. */
  readonly commitBytes?: number;
  /** Default: none. */
  readonly reserve?: Reserve;
  /** Makes the checkpoints; the disk closes it. Default: commits make them. */
  readonly helper?: CheckpointHelper;
}

const EMPTY_HARD_STATE: HardState = { term: 0, vote: null, commit: 0 };
const EMPTY_START: LogStart = { index: 0, term: 0, frame: 0, voidFrame: 0 };
/**
 * Seldom enough that commits cost little, often enough that each takes few milliseconds and that a start
 * has little to replay.
 */
const COMMIT_BYTES = 4 * 1024 * 1024;
/** When so many times that waits, the rows are committed even while somebody waits. */
const LATE_COMMITS = 4;

/** The disk of one replica of one group. */
export class Disk implements LogStorage {
  /** Where the store's rows are. */
  readonly rows: RowFile;
  readonly #options: DiskOptions;
  readonly #path: string;
  readonly #segments: Segments;
  readonly #commitBytes: number;
  #journal: Journal;
  #hardState = EMPTY_HARD_STATE;
  #storeState: StoreState = EMPTY_STATE;
  #configuration: AppliedConfiguration;
  #start = EMPTY_START;
  /** Of the log, since the last commit. */
  #uncommittedBytes = 0;
  #isCommitWanted = false;

  /**
   * Opens or creates the files.
   *
   * @throws {DkvError} DATA_CORRUPT if they are damaged, DISK_FULL, or CONFIG_INVALID if
   * another process has them open.
   */
  constructor(options: DiskOptions) {
    const { path, image, helper, reserve, isCopy = false } = options;
    this.#options = options;
    this.#path = path;
    this.#commitBytes = options.commitBytes ?? COMMIT_BYTES;
    this.#configuration = { index: 0, configuration: options.bootstrap };
    const walReserveBytes = reserve?.walBytes;
    this.rows = new RowFile({ path, image, walReserveBytes, helper });
    this.#segments = options.segments ??
      (isCopy || path === ":memory:"
        ? new SegmentsInMemory()
        : new SegmentFiles(path));
    this.#journal = this.#load();
  }

  /** The file with the rows. */
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
    const entries: Entry[] = [];
    let bytes = 0;
    for (let index = from; index < to; index++) {
      const entry = this.#run(() => this.#journal.entry(index));
      bytes += entryBytes(entry);
      if (entries.length > 0 && bytes > bytesMax) break;
      entries.push(entry);
    }
    return entries;
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
    this.rows.save("start", this.#start);
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
  }

  get storeState(): StoreState {
    return this.#storeState;
  }

  /** Saves what the store says of itself; durable, with its rows, at the next commit. */
  saveStoreState(state: StoreState): void {
    // A node that idles must not commit, and so sync, what has not changed.
    if (isSameState(state, this.#storeState)) return;
    this.#storeState = state;
    this.rows.save("store", state);
  }

  /** The last configuration that was applied; later ones stand in the log. */
  get configuration(): AppliedConfiguration {
    return this.#configuration;
  }

  saveConfiguration(configuration: Configuration, index: Index): void {
    this.#configuration = { index, configuration };
    this.rows.save("configuration", this.#configuration);
  }

  // ---------------------------------------------------------------- durability

  /** True if something was written since the last commit. */
  get dirty(): boolean {
    return this.rows.dirty || this.#journal.dirty;
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
    this.#run(() => this.#journal.sync());
  }

  /**
   * Makes everything written so far durable.
   *
   * @throws {DkvError} as {@linkcode Disk.sync}
   */
  commit(): void {
    this.sync();
    if (!this.rows.dirty) return;
    this.#markFrame();
    this.rows.commit();
    this.#committed();
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
    this.rows.tidy();
    // On a full disk only `makeSpace` tries again: it costs more than a sync.
    if (!this.#journal.full) this.#run(() => this.#journal.reserve());
    const isDue = this.#uncommittedBytes >= this.#commitBytes;
    if (isDue || this.#isCommitWanted) this.commit();
  }

  /** Forgets what is not durable and reads the rest again: what a crash and a restart would do. */
  reopen(): void {
    this.rows.rollback();
    this.#journal.close();
    if (this.#segments instanceof SegmentsInMemory) this.#segments.crash();
    this.#journal = this.#load();
  }

  /** Commits and closes the files. */
  close(): void {
    this.commit();
    this.rows.close();
    this.#journal.close();
  }

  /** Closes the files without committing: for a disk that failed. */
  abandon(): void {
    this.rows.abandon();
    this.#journal.abandon();
  }

  /** Bytes of the rows' file, free pages included. */
  get bytes(): number {
    return this.rows.bytes;
  }

  /** True if a file cannot grow: what is written then goes into space that was reserved in advance. */
  get full(): boolean {
    return this.rows.full || this.#journal.full;
  }

  /** True if a file cannot grow and its reserve is nearly used up as well. */
  get exhausted(): boolean {
    return this.rows.exhausted || this.#journal.exhausted;
  }

  /** After a disk was full: commits, and tries to take space again. */
  makeSpace(): void {
    this.sync();
    this.#markFrame();
    this.rows.checkpoint();
    this.#committed();
    this.#run(() => this.#journal.reserve());
  }

  /**
   * Reads every row once, checksums included; all of the journal was read when it was opened.
   *
   * @throws {DkvError} DATA_CORRUPT
   */
  verify(): void {
    this.rows.verify();
  }

  // ---------------------------------------------------------------- snapshots

  /**
   * Replaces everything by the state in `file`, keeping this replica's term and vote. The switch
   * is one rename, so a crash leaves either the old state or the new one (raft-pitfalls S6): the new
   * rows say that the old journal holds nothing.
   */
  installSnapshot(file: string, meta: SnapshotMeta): void {
    assert(
      this.#path !== ":memory:",
      "A disk in memory installs bytes, not files",
    );
    const incoming = this.#openCopy({ path: file });
    try {
      incoming.#becomeSnapshot(meta, this);
    } finally {
      incoming.abandon();
    }
    this.#run(() => syncFile(file));
    this.rows.replaceBy(file);
    this.#restart();
  }

  /** All rows that are committed, as bytes: what a disk in memory ships in place of a file. */
  copy(): Uint8Array {
    return this.rows.image();
  }

  /** As {@linkcode installSnapshot}, for a disk in memory and the copy of another. */
  installCopy(image: Uint8Array, meta: SnapshotMeta): void {
    assert(this.#path === ":memory:", "A disk on files installs files");
    const incoming = this.#openCopy({ path: this.#path, image });
    incoming.#becomeSnapshot(meta, this);
    this.rows.become(incoming.rows);
    this.#restart();
  }

  /**
   * Reads all of a copy of a disk's rows, and says which state it holds. Damage must be found here:
   * it would end every replica that the copy is sent to.
   *
   * @throws {DkvError} DATA_CORRUPT
   */
  static describe(file: string, bootstrap: Configuration): SnapshotMeta {
    const disk = new Disk({ path: file, bootstrap, isCopy: true });
    try {
      disk.verify();
      const { appliedIndex, appliedTerm } = disk.#storeState;
      const configuration = disk.#configuration.configuration;
      disk.rows.fold();
      return { index: appliedIndex, term: appliedTerm, configuration };
    } finally {
      disk.abandon();
    }
  }

  // ---------------------------------------------------------------- private

  #run<T>(run: () => T): T {
    return translate(this.#path, run);
  }

  /** What is committed next has seen all of the journal, which is durable. */
  #markFrame(): void {
    this.#start = { ...this.#start, frame: this.#journal.frame };
    this.rows.save("start", this.#start);
    this.rows.save("hard", this.#hardState);
  }

  #committed(): void {
    this.#uncommittedBytes = 0;
    this.#isCommitWanted = false;
    this.#run(() => this.#journal.release(this.#start.index));
  }

  #openCopy({ path, image }: { path: string; image?: Uint8Array }): Disk {
    const { bootstrap } = this.#options;
    return new Disk({ path, bootstrap, image, isCopy: true });
  }

  /** Turns a copy of another replica's rows into those of this one, after all that it has written. */
  #becomeSnapshot(meta: SnapshotMeta, own: Disk): void {
    const { appliedIndex, appliedTerm } = this.#storeState;
    const { index, term } = meta;
    if (appliedIndex !== index || appliedTerm !== term) {
      throw new DkvError(
        "DATA_CORRUPT",
        `The snapshot holds the state at index ${appliedIndex} of term ${appliedTerm}, ` +
          `not ${index} of term ${term} as announced`,
      );
    }
    this.verify();
    const { frame } = own.#journal;
    this.rows.save("start", { index, term, frame, voidFrame: frame });
    this.rows.save("hard", { ...own.#hardState, commit: index });
    this.rows.save("configuration", this.#configuration);
    this.rows.fold();
  }

  /** Goes on from other rows, to which nothing in the journal belongs. */
  #restart(): void {
    this.#loadRows();
    this.#journal.restart(this.#start.index);
  }

  /** Reads what is held in memory from what is durable. */
  #load(): Journal {
    this.#loadRows();
    const { index: start, frame, voidFrame } = this.#start;
    const { isCopy = false, segmentBytes, reserve } = this.#options;
    const journal = this.#run(() =>
      new Journal({
        path: this.#path,
        segments: this.#segments,
        mark: isCopy
          ? { start, frame: 0, voidFrame: 0 }
          : { start, frame, voidFrame },
        segmentBytes,
        reserveBytes: reserve?.journalBytes,
      })
    );
    this.#hardState = journal.hardState ?? this.#hardState;
    const { appliedIndex } = this.#storeState;
    if (!isCopy && journal.lastIndex < appliedIndex) {
      throw corruptError(
        this.#path,
        `the log ends at ${journal.lastIndex}, the store is at ${appliedIndex}`,
      );
    }
    return journal;
  }

  #loadRows(): void {
    const { bootstrap } = this.#options;
    this.#uncommittedBytes = 0;
    this.#isCommitWanted = false;
    this.#hardState = this.rows.saved("hard") ?? EMPTY_HARD_STATE;
    this.#storeState = this.rows.saved("store") ?? EMPTY_STATE;
    this.#start = this.rows.saved("start") ?? EMPTY_START;
    this.#configuration = this.rows.saved("configuration") ??
      { index: 0, configuration: bootstrap };
  }
}

function isSameState(a: StoreState, b: StoreState): boolean {
  const names = Object.keys(a) as (keyof StoreState)[];
  return names.every((name) => a[name] === b[name]);
}

/** Makes a file's bytes durable. */
function syncFile(path: string): void {
  using file = Deno.openSync(path, { read: true, write: true });
  file.syncSync();
}
