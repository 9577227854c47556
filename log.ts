/**
 * The replicated log as the core sees it: a recent part in memory, the rest behind `LogStorage`,
 * and the marks that move over it. Used by `replicate.ts` and `leader.ts`.
 *
 * ```text
 *   base   applied  applying   commit            lastIndex
 *    |        |        |         |                  |
 *    v        v        v         v                  v
 *   [.][x][x][x][x][x][x][x][x][x][x][x][x][x][x][x]
 *       ^        ^                    ^        ^
 *       |        |                    |        |
 *   firstIndex  recent (in memory   stable   handed
 *               from here on)       (on disk) (in a persist effect)
 * ```
 *
 * Always applied <= applying <= commit <= lastIndex and stable <= handed <= lastIndex. `commit` may be
 * ahead of `stable`: others may have an entry on their disks before this replica does.
 *
 * @module
 */

import { assert, unreachable } from "./errors.ts";
import type { Entry, Index, SnapshotMeta, Term } from "./message.ts";
import { membersOf } from "./members.ts";

/** What the core needs of the disk: reading back entries that were handed out in a persist effect. Synchronous. */
export interface LogStorage {
  /** Index of the first entry that can be read; 1 for a new log; one above the snapshot/truncation point otherwise. */
  readonly firstIndex: Index;
  /** Index of the last entry; `firstIndex - 1` if there is none. */
  readonly lastIndex: Index;
  /** Term of the entry at index; also answers for firstIndex - 1 (the truncation point). */
  term(index: Index): Term;
  /** Entries [from, to), stopping after bytesMax bytes but with at least one. */
  entries(from: Index, to: Index, bytesMax: number): Entry[];
}

/** A position and the term of the entry there. */
export interface Position {
  readonly index: Index;
  readonly term: Term;
}

/** What is to be written: entries that follow `truncateFrom` (or the end, if null). */
export interface Unwritten {
  readonly truncateFrom: Index | null;
  readonly entries: readonly Entry[];
}

/** Entries that are on disk and applied stay in memory up to this size, for followers that are a little behind. */
export const RECENT_BYTES_MAX = 8 * 1024 * 1024;

/** What an entry counts for in every limit: its data and a little for itself. */
export function entryBytes(entry: Entry): number {
  switch (entry.type) {
    case "empty":
      return 16;
    case "batch":
      return 16 + entry.data.byteLength;
    case "configuration":
      return 16 + 32 * membersOf(entry.configuration).length;
    default:
      return unreachable(entry);
  }
}

/** The log; see the picture at the top of the module. */
export class Log {
  readonly #storage: LogStorage;
  readonly #recentBytesMax: number;
  /** What comes before the first entry: (0, 0), or where compaction or a snapshot cut the log off. */
  #base: Position;
  /** Entries from #recentFirst to the end; all that are not stable or not applied are among them, or in storage if read at start. */
  #recent: Entry[] = [];
  #recentFirst: Index;
  #recentBytes = 0;
  /** Where entries that were handed out before are replaced; null if nowhere. */
  #truncateFrom: Index | null = null;
  #handed: Index;
  #stable: Index;
  #commit: Index;
  #applying: Index;
  #applied: Index;

  constructor(
    storage: LogStorage,
    options: { applied: Index; commit: Index; recentBytesMax?: number },
  ) {
    this.#storage = storage;
    this.#recentBytesMax = options.recentBytesMax ?? RECENT_BYTES_MAX;
    const base = storage.firstIndex - 1;
    this.#base = { index: base, term: storage.term(base) };
    this.#recentFirst = storage.lastIndex + 1;
    this.#handed = storage.lastIndex;
    this.#stable = storage.lastIndex;
    this.#applied = options.applied;
    this.#applying = options.applied;
    this.#commit = Math.max(options.commit, options.applied);
    this.assertInvariants();
  }

  get firstIndex(): Index {
    return this.#base.index + 1;
  }
  get lastIndex(): Index {
    return this.#recentFirst + this.#recent.length - 1;
  }
  get lastTerm(): Term {
    return this.mustTerm(this.lastIndex);
  }
  /** Everything up to here is on this replica's disk. */
  get stable(): Index {
    return this.#stable;
  }
  get commit(): Index {
    return this.#commit;
  }
  get applied(): Index {
    return this.#applied;
  }

  /** The term of the entry at `index`; null if the log does not reach there, or no longer. */
  term(index: Index): Term | null {
    if (index === this.#base.index) return this.#base.term;
    if (index < this.#base.index || index > this.lastIndex) return null;
    if (index >= this.#recentFirst) {
      return this.#recent[index - this.#recentFirst]!.term;
    }
    return this.#storage.term(index);
  }

  /** The term of the entry at `index`, which the log is known to hold. */
  mustTerm(index: Index): Term {
    const term = this.term(index);
    assert(
      term !== null,
      `No term at ${index}: the log is ${this.firstIndex}..${this.lastIndex}`,
    );
    return term;
  }

  /** True if the log has the entry (index, term), and so all that precede it (log matching). */
  has({ index, term }: Position): boolean {
    return this.term(index) === term;
  }

  /** True if a candidate whose log ends in `last` may lead (Raft paper, 5.4.1). */
  isUpToDate(last: Position): boolean {
    return last.term > this.lastTerm ||
      (last.term === this.lastTerm && last.index >= this.lastIndex);
  }

  /** Entries [from, to), fewer if they exceed `bytesMax`, at least one unless the range is empty. */
  entries(from: Index, to: Index, bytesMax: number): Entry[] {
    assert(
      from >= this.firstIndex && to <= this.lastIndex + 1,
      `Entries ${from}..${
        to - 1
      } outside ${this.firstIndex}..${this.lastIndex}`,
    );
    if (from >= to) return [];
    if (from < this.#recentFirst) {
      const end = Math.min(to, this.#recentFirst);
      const read = this.#storage.entries(from, end, bytesMax);
      assert(
        read.length > 0 && read[0]!.index === from,
        `Storage has no entry ${from}`,
      );
      return read;
    }
    const first = from - this.#recentFirst;
    const last = to - this.#recentFirst;
    let bytes = 0;
    let end = first;
    while (end < last) {
      bytes += entryBytes(this.#recent[end]!);
      if (bytes > bytesMax && end > first) break;
      end += 1;
    }
    return this.#recent.slice(first, end);
  }

  /**
   * The first of `entries` that this log lacks or holds with another term, as a position in
   * `entries`; their number if the log has them all.
   */
  findConflict(entries: readonly Entry[]): number {
    const position = entries.findIndex((entry) => !this.has(entry));
    return position === -1 ? entries.length : position;
  }

  /**
   * The last position at or below `index` whose term is at most `term`: the best guess where a log
   * that has `term` at `index` agrees with this one. It skips a whole term at a time, so that two logs
   * find each other in about as many round trips as they have terms that differ (etcd's raft).
   *
   * ```text
   *   leader    1 3 3 3 5 5 5 5 5
   *   follower  1 1 1 1 2 2          rejected at 6: hint (6, 2); leader: 1 is the last with term <= 2
   * ```
   */
  findAtMost({ index, term }: Position): Position {
    let at = Math.min(index, this.lastIndex);
    for (; at > this.#base.index; at -= 1) {
      const found = this.mustTerm(at);
      if (found <= term) return { index: at, term: found };
    }
    return at === this.#base.index ? this.#base : { index: at, term: 0 };
  }

  /** Appends entries at the end, or in place of what follows the entry before the first of them. */
  append(entries: readonly Entry[]): void {
    const from = entries[0]?.index;
    if (from === undefined) return;
    assert(
      from > this.#commit,
      `Entry ${from} would replace one that is committed (up to ${this.#commit})`,
    );
    assert(
      from <= this.lastIndex + 1,
      `Entry ${from} would leave a hole after ${this.lastIndex}`,
    );
    if (from <= this.lastIndex) this.#truncate(from);
    for (const entry of entries) {
      assert(
        entry.index === this.lastIndex + 1,
        `Entry ${entry.index} does not follow ${this.lastIndex}`,
      );
      this.#recent.push(entry);
      this.#recentBytes += entryBytes(entry);
    }
  }

  /** What was appended since the last call and must now be written. */
  takeUnwritten(): Unwritten | null {
    if (this.#handed === this.lastIndex && this.#truncateFrom === null) {
      return null;
    }
    const truncateFrom = this.#truncateFrom;
    const entries = this.#recent.slice(this.#handed + 1 - this.#recentFirst);
    this.#truncateFrom = null;
    this.#handed = this.lastIndex;
    return { truncateFrom, entries };
  }

  /**
   * The disk has everything up to (index, term). Says nothing about an entry that replaced that one
   * since it was handed out (raft-pitfalls P5). True if nothing handed out is left to be written.
   */
  persisted({ index, term }: Position): boolean {
    if (index > this.#handed || !this.has({ index, term })) return false;
    this.#stable = Math.max(this.#stable, index);
    this.#forget();
    return index === this.#handed;
  }

  /** Raises the commit index; true if it rose. */
  commitTo(index: Index): boolean {
    if (index <= this.#commit) return false;
    assert(
      index <= this.lastIndex,
      `Commit ${index} is beyond the last entry ${this.lastIndex}`,
    );
    this.#commit = index;
    return true;
  }

  /** The next committed entries to apply; none while earlier ones are being applied. */
  takeCommitted(bytesMax: number): Entry[] {
    if (this.#applying !== this.#applied) return [];
    const entries = this.entries(
      this.#applying + 1,
      this.#commit + 1,
      bytesMax,
    );
    this.#applying = entries.at(-1)?.index ?? this.#applying;
    return entries;
  }

  /** The state contains everything up to `index`. */
  appliedTo(index: Index): void {
    if (index < this.#applied) return; // Overtaken by a snapshot.
    assert(
      index <= this.#applying,
      `Applied ${index}, but handed out only up to ${this.#applying}`,
    );
    this.#applied = index;
    this.#forget();
  }

  /** Storage has dropped entries up to and including `index`. */
  compactedTo(index: Index): void {
    if (index <= this.#base.index) return;
    assert(
      index <= this.#applied && index <= this.#stable,
      `Compacted to ${index}, beyond applied ${this.#applied} or stable ${this.#stable}`,
    );
    this.#base = { index, term: this.mustTerm(index) };
    const gone = Math.min(
      Math.max(index + 1 - this.#recentFirst, 0),
      this.#recent.length,
    );
    this.#dropRecent(gone);
    this.#recentFirst = Math.max(this.#recentFirst, index + 1);
  }

  /** Starts afresh after a snapshot; nothing of the old log is kept (raft-pitfalls S1). */
  reset({ index, term }: SnapshotMeta): void {
    assert(
      index > this.#commit,
      `Snapshot ${index} is not beyond commit ${this.#commit}`,
    );
    this.#base = { index, term };
    this.#recent = [];
    this.#recentBytes = 0;
    this.#recentFirst = index + 1;
    this.#truncateFrom = null;
    this.#handed = index;
    this.#stable = index;
    this.#commit = index;
    this.#applying = index;
    this.#applied = index;
  }

  assertInvariants(): void {
    const marks = [
      ["base", this.#base.index],
      ["applied", this.#applied],
      ["applying", this.#applying],
      ["commit", this.#commit],
      ["lastIndex", this.lastIndex],
    ] as const;
    for (const [i, [name, index]] of marks.entries()) {
      const [lower, lowerIndex] = marks[i - 1] ?? ["zero", 0];
      assert(
        lowerIndex <= index,
        `${lower} ${lowerIndex} is above ${name} ${index}`,
      );
    }
    assert(
      this.#stable <= this.#handed && this.#handed <= this.lastIndex,
      `stable ${this.#stable}, handed ${this.#handed}, lastIndex ${this.lastIndex} out of order`,
    );
    assert(
      this.#recentFirst <= this.#stable + 1,
      `Entries after ${this.#stable} are neither on disk nor in memory`,
    );
  }

  #truncate(from: Index): void {
    if (from <= this.#handed) {
      this.#truncateFrom = Math.min(from, this.#truncateFrom ?? from);
      this.#handed = from - 1;
    }
    this.#stable = Math.min(this.#stable, from - 1);
    if (from <= this.#recentFirst) {
      this.#recent = [];
      this.#recentBytes = 0;
      this.#recentFirst = from;
      return;
    }
    for (const entry of this.#recent.splice(from - this.#recentFirst)) {
      this.#recentBytes -= entryBytes(entry);
    }
  }

  /** Lets go of the oldest entries in memory beyond the limit, if they are on disk and applied. */
  #forget(): void {
    if (this.#recentBytes <= this.#recentBytesMax) return;
    const settled = Math.min(this.#stable, this.#applied);
    // Down to three quarters, so that not every call moves the whole array.
    const target = this.#recentBytesMax * 3 / 4;
    let bytes = this.#recentBytes;
    let count = 0;
    while (bytes > target && this.#recentFirst + count <= settled) {
      bytes -= entryBytes(this.#recent[count]!);
      count += 1;
    }
    this.#dropRecent(count);
    this.#recentFirst += count;
  }

  #dropRecent(count: number): void {
    for (const entry of this.#recent.splice(0, count)) {
      this.#recentBytes -= entryBytes(entry);
    }
  }
}
