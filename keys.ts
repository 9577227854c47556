/**
 * The ordered index of a store's keys: for each key, where its versions are on disk. Values are not
 * here. Used by `versions.ts`.
 *
 * ```text
 *   revision   2    5    9    11          record   older [2,+1, 5,+4, 9,-8]   (revision, position)
 *   position   1    4    8    10                   now   revision 11, position 10, version 1
 *              put  put  del  put                  a negative position marks a tombstone
 * ```
 *
 * @module
 */
import sortedBtree from "sorted-btree";
import { assert } from "./errors.ts";
import type { Key, KeyRange } from "./batch.ts";
import type { EventMeta } from "./rows.ts";

/** The package is CommonJS: its default export arrives inside another one. */
const BTree = sortedBtree.default;

/** The newest version of a key, and where the older ones are. One of these for each key: small. */
export interface KeyRecord {
  /** The revision of the newest version, be it a put or a delete. */
  readonly revision: number;
  /** The newest version's row. */
  readonly position: number;
  /** 0 if the newest version is a delete, as are `version` and `lease`. */
  readonly createRevision: number;
  readonly version: number;
  readonly lease: bigint;
}

class Record implements KeyRecord {
  revision: number;
  position: number;
  createRevision: number;
  version: number;
  lease: bigint;
  /** Pairs of revision and position, ascending, all below `revision`; null if there are none. */
  older: number[] | null = null;

  constructor(row: EventMeta) {
    this.revision = row.revision;
    this.position = row.position;
    this.createRevision = row.createRevision;
    this.version = row.version;
    this.lease = row.lease;
  }
}

/** Latin1 strings: the order of code units is the order of bytes. */
function compareKeys(a: Key, b: Key): number {
  return a < b ? -1 : a === b ? 0 : 1;
}

export class KeyIndex {
  readonly #tree = new BTree<Key, Record>(undefined, compareKeys);
  /** How many records are no tombstones. */
  #live = 0;

  /** How many keys exist now. */
  get live(): number {
    return this.#live;
  }

  /** How many keys have any version, tombstones included. */
  get size(): number {
    return this.#tree.size;
  }

  get(key: Key): KeyRecord | undefined {
    return this.#tree.get(key);
  }

  /** Adds a key's next version; `found` is what `get` says of the key. */
  append(row: EventMeta, found: KeyRecord | undefined): void {
    const record = found as Record | undefined;
    if (record === undefined) {
      this.#tree.set(row.key, new Record(row));
      if (row.version > 0) this.#live++;
      return;
    }
    assert(
      row.revision > record.revision,
      `Versions out of order: revision ${row.revision} after ${record.revision}`,
    );
    const place = record.version === 0 ? -record.position : record.position;
    if (record.older === null) record.older = [record.revision, place];
    else record.older.push(record.revision, place);
    this.#live += (row.version > 0 ? 1 : 0) - (record.version > 0 ? 1 : 0);
    record.revision = row.revision;
    record.position = row.position;
    record.createRevision = row.createRevision;
    record.version = row.version;
    record.lease = row.lease;
  }

  /** The row of the version that was current at `revision`; 0 if the key did not exist then. */
  positionAt(record: KeyRecord, revision: number): number {
    if (record.revision <= revision) {
      return record.version === 0 ? 0 : record.position;
    }
    const at = olderAt((record as Record).older, revision);
    return at < 0 ? 0 : Math.max(0, (record as Record).older![at + 1]!);
  }

  /** Visits the records of a range in key order until `visit` returns false. It must not add or remove keys. */
  visit(
    range: KeyRange,
    visit: (key: Key, record: KeyRecord) => boolean,
  ): void {
    const { start, end } = range;
    const pair: (Key | Record)[] = [];
    for (const [key, record] of this.#tree.entries(start, pair)) {
      if (end !== null && key >= end) return;
      if (!visit(key, record)) return;
    }
  }

  /** The same from the last key to the first. */
  visitReverse(
    range: KeyRange,
    visit: (key: Key, record: KeyRecord) => boolean,
  ): void {
    const { start, end } = range;
    const pair: (Key | Record)[] = [];
    const highest = end ?? this.#tree.maxKey();
    if (highest === undefined) return;
    for (
      const [key, record] of this.#tree.entriesReversed(
        highest,
        pair,
        end !== null,
      )
    ) {
      if (key < start) return;
      if (!visit(key, record)) return;
    }
  }

  /** Forgets the versions that the one at `revision` superseded, and adds their positions to `removed`. */
  dropBefore(key: Key, options: { revision: number; removed: number[] }): void {
    const { revision, removed } = options;
    const record = this.#tree.get(key);
    const older = record?.older ?? null;
    if (record === undefined || older === null) return;
    const end = record.revision <= revision
      ? older.length
      : olderAt(older, revision);
    if (end <= 0) return;
    for (let i = 1; i < end; i += 2) removed.push(Math.abs(older[i]!));
    record.older = end === older.length ? null : older.slice(end);
  }

  /** Forgets the tombstone at `revision`, which must be the oldest version left. */
  dropTombstone(key: Key, revision: number): void {
    const record = this.#tree.get(key);
    assert(record !== undefined, `Tombstone of an unknown key at ${revision}`);
    if (record.revision === revision) {
      assert(
        record.version === 0 && record.older === null,
        `No lone tombstone at ${revision}: version ${record.version}`,
      );
      this.#tree.delete(key);
      return;
    }
    const older = record.older;
    assert(
      older !== null && older[0] === revision && older[1]! < 0,
      `No oldest tombstone at ${revision}: ${older?.slice(0, 2)}`,
    );
    record.older = older.length === 2 ? null : older.slice(2);
  }

  /** Throws if an invariant does not hold. For tests: it looks at every version. */
  assertInvariants(): void {
    let live = 0;
    this.#tree.checkValid();
    for (const [key, record] of this.#tree.entries()) {
      if (record.version > 0) live++;
      const older = [...record.older ?? [], record.revision];
      for (let i = 2; i < older.length; i += 2) {
        assert(
          older[i]! > older[i - 2]!,
          `Versions of ${key} out of order: ${older[i - 2]} before ${older[i]}`,
        );
      }
      assert(record.older?.length !== 0, `Empty list of versions: ${key}`);
    }
    assert(live === this.#live, `${this.#live} keys counted, ${live} there`);
  }
}

/** Where in `older` the last version at or before `revision` starts; negative if there is none. */
function olderAt(older: readonly number[] | null, revision: number): number {
  if (older === null) return -2;
  let low = 0;
  let high = older.length / 2;
  while (low < high) {
    const middle = low + high >>> 1;
    if (older[2 * middle]! <= revision) low = middle + 1;
    else high = middle;
  }
  return 2 * (low - 1);
}
