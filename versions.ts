/**
 * The multi-version key space of a store: every change is a row that stays readable at its revision
 * until history is compacted. Used by `store.ts`, which says what changes; this module keeps the
 * index and the rows in step, reads the present and the past, and removes what is compacted.
 *
 * @module
 */
import { assert, DkvError } from "./errors.ts";
import type { Key, KeyRange, StoredEntry } from "./batch.ts";
import { KeyIndex, type KeyRecord } from "./keys.ts";
import {
  arrange,
  needsAll,
  needsValues,
  type RangeOperation,
  type RangeResult,
} from "./ranges.ts";
import { entryBytes } from "./results.ts";
import type { EventMeta, EventRow, EventRows, StoreState } from "./rows.ts";

/** How many rows are read at once where all are wanted. */
const SCAN_ROWS = 4096;
/** How many rows of history are read at once: most pages end early. */
const HISTORY_SCAN_ROWS = 256;
const EMPTY_VALUE: Uint8Array = new Uint8Array(0);

/** One change of one key: the entry after it. A delete has only `key` and `modRevision`. */
export interface WatchEvent extends StoredEntry {
  readonly type: "put" | "delete";
  /** The row of the entry before the change; 0 if there was none or if it was compacted. */
  readonly previousPosition: number;
  /** The entry before the change, for those who asked. Null as `apply` makes the event. */
  readonly previous: StoredEntry | null;
}

export interface ListOptions {
  /** 0 means now. */
  readonly revision: number;
  /** 0 means no limit. */
  readonly limit: number;
  readonly keysOnly: boolean;
  /** From the last key to the first. */
  readonly reverse: boolean;
  /** A page ends before it gets bigger than this, but has at least one entry if there is one. */
  readonly bytesMax: number;
}

/** One page of a list. Go on after its last key, at its revision. */
export interface ListPage {
  readonly entries: readonly StoredEntry[];
  /** True if `limit` or `bytesMax` left keys out. */
  readonly more: boolean;
  /** The revision it was read at. */
  readonly revision: number;
}

export interface HistoryOptions {
  /** The first revision wanted, from 1. */
  readonly fromRevision: number;
  /** `nextPosition` of the page before, which saves a search; 0 if there was none. */
  readonly fromPosition: number;
  readonly range: KeyRange;
  readonly withPrevious: boolean;
  readonly noPuts: boolean;
  readonly noDeletes: boolean;
  /** The page ends after the revision that reaches one of these bounds. */
  readonly eventsMax: number;
  readonly bytesMax: number;
  /** How many rows may be looked at, matching or not. */
  readonly rowsMax: number;
}

/** Whole revisions of history. */
export interface HistoryPage {
  readonly events: readonly WatchEvent[];
  /** Every matching change up to and including this revision is in this page or before it. */
  readonly throughRevision: number;
  readonly nextPosition: number;
}

/** What a change leaves behind. */
export interface Change {
  readonly type: "put" | "delete";
  readonly key: Key;
  /** What `record` says of the key: to look it up twice would cost as much as all the rest. */
  readonly record: KeyRecord | undefined;
  /** Empty for a delete. */
  readonly value: Uint8Array;
  readonly lease: bigint;
  /** The revision the change belongs to: the current one or the next. */
  readonly revision: number;
}

/** The entry that a put left behind. */
export function entryAfter(event: WatchEvent): StoredEntry {
  const { key, value, createRevision, modRevision, version, lease } = event;
  return { key, value, createRevision, modRevision, version, lease };
}

export class Versions {
  readonly #rows: EventRows;
  readonly #keys = new KeyIndex();
  #revision: number;
  #position: number;
  #compactRevision: number;
  #physicalRevision: number;
  #physicalPosition: number;

  /** Rebuilds the index from the rows' metadata, and shows each key that has a lease. */
  constructor(rows: EventRows, options: {
    state: StoreState;
    attach: (key: Key, lease: bigint) => void;
  }) {
    const { state, attach } = options;
    this.#rows = rows;
    this.#revision = state.revision;
    this.#position = state.position;
    this.#compactRevision = state.compactRevision;
    this.#physicalRevision = state.physicalRevision;
    this.#physicalPosition = state.physicalPosition;
    for (let from = 1, count = SCAN_ROWS; count === SCAN_ROWS;) {
      const page = rows.scanEvents(from, SCAN_ROWS);
      for (const row of page) this.#keys.append(row, this.#keys.get(row.key));
      count = page.length;
      from = (page.at(-1)?.position ?? 0) + 1;
      assert(
        from <= this.#position + 1,
        `Row ${from - 1} is beyond the last position ${this.#position}`,
      );
    }
    this.#keys.visitLeased(attach);
  }

  /** The revision of the last change. */
  get revision(): number {
    return this.#revision;
  }

  get compactRevision(): number {
    return this.#compactRevision;
  }

  /** How many keys exist now. */
  get size(): number {
    return this.#keys.live;
  }

  /** This module's part of the store's state. */
  get state(): Pick<
    StoreState,
    | "revision"
    | "position"
    | "compactRevision"
    | "physicalRevision"
    | "physicalPosition"
  > {
    return {
      revision: this.#revision,
      position: this.#position,
      compactRevision: this.#compactRevision,
      physicalRevision: this.#physicalRevision,
      physicalPosition: this.#physicalPosition,
    };
  }

  /** The record of a key that has any version: `version` is 0 if it does not exist now. */
  record(key: Key): KeyRecord | undefined {
    return this.#keys.get(key);
  }

  /** The record of a key that exists now. */
  find(key: Key): KeyRecord | undefined {
    const record = this.#keys.get(key);
    return record?.version === 0 ? undefined : record;
  }

  /** The entry in a row, which must be a put. */
  read(position: number): StoredEntry {
    const row = this.#rows.readEvent(position);
    assert(row.type === "put", `Row ${position} is no put`);
    return toEntry(row);
  }

  /** The keys of a range that exist now, in order. */
  keys(range: KeyRange): Key[] {
    const keys: Key[] = [];
    this.#keys.visit(range, (key, id) => {
      if (this.#keys.isLive(id)) keys.push(key);
      return true;
    });
    return keys;
  }

  /** The records of the keys of a range that exist now, in the order of the keys. */
  records(range: KeyRange): KeyRecord[] {
    const records: KeyRecord[] = [];
    this.#keys.visit(range, (_, id) => {
      if (this.#keys.isLive(id)) records.push(this.#keys.record(id));
      return true;
    });
    return records;
  }

  /** Makes a change, as a row and in the index. A key can change once in each revision. */
  change(change: Change): WatchEvent {
    const { type, key, value, revision } = change;
    assert(
      revision === this.#revision || revision === this.#revision + 1,
      `Change at revision ${revision}, the store is at ${this.#revision}`,
    );
    const { record } = change;
    const old = record?.version === 0 ? undefined : record;
    const put = type === "put";
    assert(put || old !== undefined, `Delete of a key that does not exist`);
    const createRevision = put ? old?.createRevision ?? revision : 0;
    const version = put ? (old?.version ?? 0) + 1 : 0;
    const lease = put ? change.lease : 0n;
    const previousPosition = old?.position ?? 0;
    const position = this.#position + 1;
    const row = {
      position,
      revision,
      key,
      type,
      createRevision,
      version,
      lease,
      value,
    };
    this.#rows.appendEvent(row);
    this.#keys.append(row, record);
    this.#position = position;
    this.#revision = revision;
    return {
      type,
      key,
      value,
      createRevision,
      modRevision: revision,
      version,
      lease,
      previousPosition,
      previous: null,
    };
  }

  /** Throws unless `revision` can be read; gives the one to read at. */
  #readable(revision: number): number {
    if (revision === 0) return this.#revision;
    if (!Number.isSafeInteger(revision) || revision < 0) {
      throw new DkvError(
        "REVISION_INVALID",
        `Revision is no positive integer: ${revision}`,
      );
    }
    if (revision > this.#revision) {
      throw new DkvError(
        "REVISION_FUTURE",
        `Cannot read at revision ${revision}: the store is at revision ${this.#revision}`,
      );
    }
    if (revision < this.#compactRevision) {
      throw this.#compacted(revision);
    }
    return revision;
  }

  #compacted(revision: number): DkvError {
    return new DkvError(
      "REVISION_COMPACTED",
      `Cannot read at revision ${revision}: compacted up to revision ${this.#compactRevision}`,
    );
  }

  /** Reads one key at a revision; 0 means now. */
  get(key: Key, revision: number): StoredEntry | null {
    const at = this.#readable(revision);
    const record = this.#keys.get(key);
    if (record === undefined) return null;
    const position = this.#keys.positionAt(record.id, at);
    return position === 0 ? null : this.read(position);
  }

  /** Counts the keys of a range at a revision; 0 means now. */
  count(range: KeyRange, revision: number): number {
    const at = this.#readable(revision);
    let count = 0;
    this.#keys.visit(range, (_, id) => {
      if (this.#keys.positionAt(id, at) !== 0) count++;
      return true;
    });
    return count;
  }

  /** Reads one page of a range. */
  list(range: KeyRange, options: ListOptions): ListPage {
    const { limit, keysOnly, reverse, bytesMax } = options;
    const revision = this.#readable(options.revision);
    const entries: StoredEntry[] = [];
    let bytes = 0;
    let more = false;
    const visit = (key: Key, id: number): boolean => {
      const position = this.#keys.positionAt(id, revision);
      if (position === 0) return true;
      more = limit > 0 && entries.length >= limit || bytes >= bytesMax;
      if (more) return false;
      const entry = keysOnly
        ? this.#entryWithoutValue(key, { id, position })
        : this.read(position);
      bytes += entryBytes(entry);
      more = bytes > bytesMax && entries.length > 0;
      if (!more) entries.push(entry);
      return !more;
    };
    if (reverse) this.#keys.visitReverse(range, visit);
    else this.#keys.visit(range, visit);
    return { entries, more, revision };
  }

  /**
   * Counts and reads a range at a revision, of which negative ones are older than all history (as in
   * a transaction of etcd's); null if the entries that it must hold are larger than
   * `bytesMax`.
   */
  range(operation: RangeOperation, bytesMax: number): RangeResult | null {
    const { range, limit, keysOnly, countOnly } = operation;
    if (operation.revision < 0) throw this.#compacted(operation.revision);
    const at = this.#readable(operation.revision);
    const takes = countOnly
      ? 0
      : limit === 0 || needsAll(operation)
      ? Infinity
      : limit + 1;
    const withoutValue = keysOnly && !needsValues(operation);
    const found: StoredEntry[] = [];
    let count = 0;
    let bytes = 0;
    this.#keys.visit(range, (key, id) => {
      const position = this.#keys.positionAt(id, at);
      if (position === 0) return true;
      count++;
      if (found.length >= takes) return true;
      const entry = withoutValue
        ? this.#entryWithoutValue(key, { id, position })
        : this.read(position);
      bytes += entryBytes(entry);
      found.push(entry);
      return bytes <= bytesMax;
    });
    if (bytes > bytesMax) return null;
    const { entries, more } = arrange(found, operation);
    const revision = this.#revision;
    if (!keysOnly || withoutValue) return { entries, count, more, revision };
    const bare = entries.map((entry) => ({ ...entry, value: EMPTY_VALUE }));
    return { entries: bare, count, more, revision };
  }

  #entryWithoutValue(
    key: Key,
    { id, position }: { id: number; position: number },
  ): StoredEntry {
    const record = this.#keys.record(id);
    if (record.position === position) {
      const { createRevision, revision: modRevision, version, lease } = record;
      return {
        key,
        value: EMPTY_VALUE,
        createRevision,
        modRevision,
        version,
        lease,
      };
    }
    const [row] = this.#rows.scanEvents(position, 1);
    assert(row?.position === position, `Row ${position} is missing`);
    return toEntry({ ...row, value: EMPTY_VALUE });
  }

  /**
   * Reads changes again, for watchers that are late: whole revisions, as many as the bounds allow
   * and at least one.
   */
  history(options: HistoryOptions): HistoryPage {
    const { fromRevision, eventsMax, bytesMax, rowsMax } = options;
    if (fromRevision > this.#revision) {
      return {
        events: [],
        throughRevision: this.#revision,
        nextPosition: this.#position + 1,
      };
    }
    this.#readable(fromRevision);
    const events: WatchEvent[] = [];
    let bytes = 0;
    let rows = 0;
    let lastRevision = fromRevision;
    let from = options.fromPosition || this.#positionOf(fromRevision);
    for (
      let page = this.#scanHistory(from);
      page.length > 0;
      page = this.#scanHistory(from)
    ) {
      for (const row of page) {
        const full = events.length >= eventsMax || bytes >= bytesMax ||
          rows >= rowsMax;
        if (full && row.revision > lastRevision) {
          return {
            events,
            throughRevision: row.revision - 1,
            nextPosition: row.position,
          };
        }
        rows++;
        lastRevision = row.revision;
        from = row.position + 1;
        if (!matches(row, options)) continue;
        const event = this.#historyEvent(row, options.withPrevious);
        events.push(event);
        bytes += entryBytes(event) +
          (event.previous === null ? 0 : entryBytes(event.previous));
      }
    }
    return {
      events,
      throughRevision: this.#revision,
      nextPosition: this.#position + 1,
    };
  }

  #scanHistory(from: number): EventMeta[] {
    return from > this.#position
      ? []
      : this.#rows.scanEvents(from, HISTORY_SCAN_ROWS);
  }

  #historyEvent(row: EventMeta, withPrevious: boolean): WatchEvent {
    const put = row.type === "put";
    const { key, createRevision, revision: modRevision, version, lease } = row;
    const value = put ? this.#rows.readEvent(row.position).value : EMPTY_VALUE;
    // The same rule as for a read at the revision before: the answer must not depend on how far
    // this replica has come with removing rows.
    const record = this.#keys.get(key);
    const previousPosition =
      record === undefined || modRevision - 1 < this.#compactRevision
        ? 0
        : this.#keys.positionAt(record.id, modRevision - 1);
    return {
      type: row.type,
      key,
      value,
      createRevision,
      modRevision,
      version,
      lease,
      previousPosition,
      previous: withPrevious && previousPosition !== 0
        ? this.read(previousPosition)
        : null,
    };
  }

  /**
   * The position of the first row at or after a revision. Every revision but the first, which is
   * the empty store's, has a row when it is made, so its position is at least its number less one.
   */
  #positionOf(revision: number): number {
    let low = Math.max(1, revision - 1);
    let high = this.#position + 1;
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      const [row] = this.#rows.scanEvents(middle, 1);
      if (row === undefined || row.revision >= revision) high = middle;
      else low = row.position + 1;
    }
    return low;
  }

  /** Refuses reads below `revision` from now on; rows go later, by `compactSlice`. */
  compact(revision: number): void {
    assert(
      revision > this.#compactRevision && revision <= this.#revision,
      `Cannot compact to ${revision}: compacted to ${this.#compactRevision}, at ${this.#revision}`,
    );
    this.#compactRevision = revision;
  }

  /**
   * Looks at up to `rowsMax` rows at or below the compact revision, and removes what they
   * superseded, and themselves if they are tombstones. A tombstone at the compact revision itself
   * stays until the next compaction, because a watch may start there (raft-pitfalls F10). Returns
   * true while there is more to do. No part of the replicated state: replicas may be at different
   * points.
   *
   * ```text
   *   compact 7      k: put 2   put 5   delete 6   put 9        j: put 3   delete 7
   *   row 5 drops 2, row 6 drops 5 and itself                   row 7 drops 3
   *   left           k: put 9                                   j: delete 7
   * ```
   */
  compactSlice(rowsMax: number): boolean {
    if (this.#physicalPosition === 0) {
      if (this.#physicalRevision === this.#compactRevision) return false;
      this.#physicalPosition = this.#positionOf(this.#physicalRevision);
      this.#physicalRevision = this.#compactRevision;
    }
    const target = this.#physicalRevision;
    const page = this.#rows.scanEvents(this.#physicalPosition, rowsMax);
    const removed: number[] = [];
    let done = page.length < rowsMax;
    for (const row of page) {
      done ||= row.revision > target;
      if (row.revision > target) break;
      this.#keys.dropBefore(row.key, { revision: row.revision, removed });
      if (row.type === "delete" && row.revision < target) {
        this.#keys.dropTombstone(row.key, row.revision);
        removed.push(row.position);
      }
      this.#physicalPosition = row.position + 1;
    }
    if (removed.length > 0) this.#rows.removeEvents(removed);
    if (done) this.#physicalPosition = 0;
    return !done || target !== this.#compactRevision;
  }

  /** Throws if an invariant does not hold. For tests. */
  assertInvariants(): void {
    this.#keys.assertInvariants();
  }
}

function toEntry(row: EventRow): StoredEntry {
  const { key, value, createRevision, revision: modRevision, version, lease } =
    row;
  return { key, value, createRevision, modRevision, version, lease };
}

function matches(row: EventMeta, options: HistoryOptions): boolean {
  const { range, noPuts, noDeletes } = options;
  if (row.type === "put" ? noPuts : noDeletes) return false;
  return row.key >= range.start && (range.end === null || row.key < range.end);
}
