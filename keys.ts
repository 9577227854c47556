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
 * Each key has an id, a small integer, which says where its record stands in columns. Two ways lead
 * to it: a table for one key (`keytable.ts`) and a tree for those of a range.
 *
 * ```text
 *   get("b")     ──table──▶ 4 ┐   id   key   revision   position   …
 *                             ├─▶  4   "b"   11         10
 *   visit("a"…)  ──tree───▶ 7, 4   7   "a"   8          7
 * ```
 *
 * @module
 */
import sortedBtree from "sorted-btree";
import { assert } from "./errors.ts";
import { KeyTable } from "./keytable.ts";
import type { Key, KeyRange } from "./batch.ts";
import type { EventMeta } from "./rows.ts";

/** The package is CommonJS: its default export arrives inside another one. */
const BTree = sortedBtree.default;

/** The newest version of a key, as it was when it was asked for. */
export interface KeyRecord {
  /** Names the key to this index, until the key is forgotten. */
  readonly id: number;
  /** The revision of the newest version, be it a put or a delete. */
  readonly revision: number;
  /** The newest version's row. */
  readonly position: number;
  /** 0 if the newest version is a delete, as are `version` and `lease`. */
  readonly createRevision: number;
  readonly version: number;
  readonly lease: bigint;
}

/** Records are made room for so many at a time, and never move. */
const CHUNK_BITS = 13;
const CHUNK_RECORDS = 1 << CHUNK_BITS;
/** An id is a positive integer of 32 bits. Memory ends long before. */
const RECORDS_MAX = 2 ** 31 - 1;

/** The numbers of one record stand together: half a line of the processor's cache. */
const REVISION = 0;
const POSITION = 1;
const CREATE_REVISION = 2;
const VERSION = 3;
const RECORD_NUMBERS = 4;

class Chunk {
  readonly numbers = new Float64Array(CHUNK_RECORDS * RECORD_NUMBERS);
  readonly keys: Key[] = new Array<Key>(CHUNK_RECORDS).fill("");
  /** Pairs of revision and position, ascending, all below the newest revision. */
  older: (number[] | null)[] | null = null;
  leases: BigInt64Array | null = null;
}

/**
 * A record for each key: its newest version, and where the older ones are. In columns: with objects
 * the whole index takes a quarter more, and the garbage collector visits each of them.
 *
 * Ids are given from 1, and again when they are free: columns never shrink. In a record that is free
 * the revision is the id of the next free one.
 */
class Records {
  readonly #chunks: Chunk[] = [new Chunk()];
  /** Above all ids that were ever given. */
  #end = 1;
  /** The first free one below `#end`; 0 if there is none. */
  #free = 0;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Gives the id 0 to a key: one that is looked for among the others. */
  sought(key: Key): number {
    this.#chunks[0]!.keys[0] = key;
    return 0;
  }

  /** Gives a key with its first version an id. */
  add(row: EventMeta): number {
    const id = this.#free || this.#end;
    if (id === this.#end) {
      assert(id <= RECORDS_MAX, `Too many keys: more than ${RECORDS_MAX}`);
      if (id >>> CHUNK_BITS === this.#chunks.length) {
        this.#chunks.push(new Chunk());
      }
      this.#end++;
    } else this.#free = this.revision(id);
    this.#size++;
    this.#chunkOf(id).keys[id % CHUNK_RECORDS] = row.key;
    this.#write(id, row);
    return id;
  }

  /** Makes a key's next version the newest one. */
  append(id: number, row: EventMeta): void {
    const { numbers, older } = this.#chunkOf(id);
    const at = id % CHUNK_RECORDS;
    const from = at * RECORD_NUMBERS;
    const revision = numbers[from + REVISION]!;
    // Not as a condition of `assert`, whose message would be made of every version.
    if (row.revision <= revision) {
      assert(
        false,
        `Versions out of order: revision ${row.revision} after ${revision}`,
      );
    }
    const position = numbers[from + POSITION]!;
    const place = numbers[from + VERSION] === 0 ? -position : position;
    const before = older?.[at] ?? null;
    if (before === null) this.#setOlder(id, [revision, place]);
    else before.push(revision, place);
    this.#write(id, row);
  }

  /** Frees the id of a key that has no older versions. */
  remove(id: number): void {
    const { keys, numbers, leases } = this.#chunkOf(id);
    const at = id % CHUNK_RECORDS;
    keys[at] = "";
    numbers[at * RECORD_NUMBERS + REVISION] = this.#free;
    if (leases !== null) leases[at] = 0n;
    this.#free = id;
    this.#size--;
  }

  get(id: number): KeyRecord {
    const { numbers, leases } = this.#chunkOf(id);
    const at = id % CHUNK_RECORDS;
    const from = at * RECORD_NUMBERS;
    return {
      id,
      revision: numbers[from + REVISION]!,
      position: numbers[from + POSITION]!,
      createRevision: numbers[from + CREATE_REVISION]!,
      version: numbers[from + VERSION]!,
      lease: leases === null ? 0n : leases[at]!,
    };
  }

  key(id: number): Key {
    return this.#chunkOf(id).keys[id % CHUNK_RECORDS]!;
  }

  revision(id: number): number {
    return this.#number(id, REVISION);
  }

  version(id: number): number {
    return this.#number(id, VERSION);
  }

  older(id: number): readonly number[] | null {
    return this.#chunkOf(id).older?.[id % CHUNK_RECORDS] ?? null;
  }

  /** Forgets the first `end` numbers of `older`. */
  dropOlder(id: number, end: number): void {
    const older = this.older(id)!;
    this.#setOlder(id, end === older.length ? null : older.slice(end));
  }

  positionAt(id: number, revision: number): number {
    const { numbers, older } = this.#chunkOf(id);
    const at = id % CHUNK_RECORDS;
    const from = at * RECORD_NUMBERS;
    if (numbers[from + REVISION]! <= revision) {
      return numbers[from + VERSION] === 0 ? 0 : numbers[from + POSITION]!;
    }
    const before = older?.[at] ?? null;
    const found = olderAt(before, revision);
    return found < 0 ? 0 : Math.max(0, before![found + 1]!);
  }

  visitLeased(visit: (key: Key, lease: bigint) => void): void {
    for (const { keys, leases } of this.#chunks) {
      if (leases === null) continue;
      for (const [at, lease] of leases.entries()) {
        if (lease !== 0n) visit(keys[at]!, lease);
      }
    }
  }

  /** Throws if an invariant does not hold. For tests: it looks at every free id. */
  assertInvariants(): void {
    const chunks = (this.#end - 1 >>> CHUNK_BITS) + 1;
    assert(chunks === this.#chunks.length, `${this.#chunks.length} chunks`);
    let ids = this.#size;
    for (let id = this.#free; id !== 0; id = this.revision(id)) ids++;
    assert(ids === this.#end - 1, `${ids} ids, ${this.#end - 1} given`);
  }

  #chunkOf(id: number): Chunk {
    return this.#chunks[id >>> CHUNK_BITS]!;
  }

  #number(id: number, which: number): number {
    const from = id % CHUNK_RECORDS * RECORD_NUMBERS;
    return this.#chunkOf(id).numbers[from + which]!;
  }

  #setOlder(id: number, older: number[] | null): void {
    const chunk = this.#chunkOf(id);
    chunk.older ??= new Array<number[] | null>(CHUNK_RECORDS).fill(null);
    chunk.older[id % CHUNK_RECORDS] = older;
  }

  #write(id: number, row: EventMeta): void {
    const chunk = this.#chunkOf(id);
    const { numbers } = chunk;
    const at = id % CHUNK_RECORDS;
    const from = at * RECORD_NUMBERS;
    numbers[from + REVISION] = row.revision;
    numbers[from + POSITION] = row.position;
    numbers[from + CREATE_REVISION] = row.createRevision;
    numbers[from + VERSION] = row.version;
    if (chunk.leases === null) {
      if (row.lease === 0n) return;
      chunk.leases = new BigInt64Array(CHUNK_RECORDS);
    }
    chunk.leases[at] = row.lease;
  }
}

/** Latin1 strings: the order of code units is the order of bytes. */
function compareKeys(a: Key, b: Key): number {
  return a < b ? -1 : a === b ? 0 : 1;
}

export class KeyIndex {
  readonly #records = new Records();
  readonly #table = new KeyTable((id) => this.#records.key(id));
  /**
   * The ids in the order of their keys, for visits alone: to find one key among 100,000 here takes
   * seventeen comparisons, each of them a wait for memory.
   */
  readonly #tree = new BTree<number, undefined>(
    undefined,
    (a, b) => compareKeys(this.#records.key(a), this.#records.key(b)),
  );
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
    const id = this.#find(key);
    return id === 0 ? undefined : this.#records.get(id);
  }

  /** The record of a key that a visit shows. */
  record(id: number): KeyRecord {
    return this.#records.get(id);
  }

  /** False if the newest version of the key is a delete. */
  isLive(id: number): boolean {
    return this.#records.version(id) > 0;
  }

  /** Adds a key's next version; `found` is what `get` says of the key. */
  append(row: EventMeta, found: KeyRecord | undefined): void {
    const records = this.#records;
    if (found === undefined) {
      const id = records.add(row);
      this.#table.add(row.key, id);
      this.#tree.set(id, undefined);
      if (row.version > 0) this.#live++;
      return;
    }
    const { id } = found;
    const wasLive = this.isLive(id);
    records.append(id, row);
    this.#live += (row.version > 0 ? 1 : 0) - (wasLive ? 1 : 0);
  }

  /** The row of the version that was current at `revision`; 0 if the key did not exist then. */
  positionAt(id: number, revision: number): number {
    return this.#records.positionAt(id, revision);
  }

  /** Visits the ids of a range in key order until `visit` returns false. It must not add or remove keys. */
  visit(range: KeyRange, visit: (key: Key, id: number) => boolean): void {
    const { start, end } = range;
    const records = this.#records;
    const pair: (number | undefined)[] = [];
    for (const [id] of this.#tree.entries(records.sought(start), pair)) {
      const key = records.key(id);
      if (end !== null && key >= end) return;
      if (!visit(key, id)) return;
    }
  }

  /** The same from the last key to the first. */
  visitReverse(
    range: KeyRange,
    visit: (key: Key, id: number) => boolean,
  ): void {
    const { start, end } = range;
    const records = this.#records;
    const pair: (number | undefined)[] = [];
    const highest = end === null ? undefined : records.sought(end);
    for (const [id] of this.#tree.entriesReversed(highest, pair, true)) {
      const key = records.key(id);
      if (key < start) return;
      if (!visit(key, id)) return;
    }
  }

  /** Visits the keys that have a lease, in no order. */
  visitLeased(visit: (key: Key, lease: bigint) => void): void {
    this.#records.visitLeased(visit);
  }

  /** Forgets the versions that the one at `revision` superseded, and adds their positions to `removed`. */
  dropBefore(key: Key, options: { revision: number; removed: number[] }): void {
    const { revision, removed } = options;
    const id = this.#find(key);
    const older = this.#records.older(id);
    if (older === null) return;
    const end = this.#records.revision(id) <= revision
      ? older.length
      : olderAt(older, revision);
    if (end <= 0) return;
    for (let i = 1; i < end; i += 2) removed.push(Math.abs(older[i]!));
    this.#records.dropOlder(id, end);
  }

  /** Forgets the tombstone at `revision`, which must be the oldest version left. */
  dropTombstone(key: Key, revision: number): void {
    const records = this.#records;
    const id = this.#find(key);
    assert(id !== 0, `Tombstone of an unknown key at ${revision}`);
    const older = records.older(id);
    if (records.revision(id) === revision) {
      assert(
        records.version(id) === 0 && older === null,
        `No lone tombstone at ${revision}: version ${records.version(id)}`,
      );
      this.#tree.delete(id);
      this.#table.delete(key);
      records.remove(id);
      return;
    }
    assert(
      older !== null && older[0] === revision && older[1]! < 0,
      `No oldest tombstone at ${revision}: ${older?.slice(0, 2)}`,
    );
    records.dropOlder(id, 2);
  }

  /** The id of a key; 0 if there is none. */
  #find(key: Key): number {
    const id = this.#table.find(key);
    if (id !== 0 || this.#table.strays === 0) return id;
    const records = this.#records;
    const next = this.#tree.getPairOrNextHigher(records.sought(key));
    return next !== undefined && records.key(next[0]) === key ? next[0] : 0;
  }

  /** Throws if an invariant does not hold. For tests: it looks at every version. */
  assertInvariants(): void {
    const records = this.#records;
    let live = 0;
    this.#tree.checkValid(true);
    this.#table.assertInvariants();
    records.assertInvariants();
    for (const [id] of this.#tree.entries()) {
      const key = records.key(id);
      assert(this.#find(key) === id, `Cannot be found: ${key}`);
      if (this.isLive(id)) live++;
      const older = [...records.older(id) ?? [], records.revision(id)];
      for (let i = 2; i < older.length; i += 2) {
        assert(
          older[i]! > older[i - 2]!,
          `Versions of ${key} out of order: ${older[i - 2]} before ${older[i]}`,
        );
      }
      assert(records.older(id)?.length !== 0, `Empty list of versions: ${key}`);
    }
    assert(live === this.#live, `${this.#live} keys counted, ${live} there`);
    const { size } = this.#tree;
    const found = this.#table.size;
    assert(found === size, `${size} keys in order, ${found} in the table`);
    assert(
      records.size === size,
      `${size} keys in order, ${records.size} records`,
    );
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
