/**
 * Leases of the store: the keys attached to one vanish together when it ends. This module knows
 * which leases there are, when they end (in log time) and which keys are attached; `store.ts`, its
 * only user, deletes the keys.
 *
 * @module
 */
import sortedBtree from "sorted-btree";
import { assert } from "./errors.ts";
import type { Key } from "./batch.ts";

/** The package is CommonJS: its default export arrives inside another one. */
const BTree = sortedBtree.default;

/** A lease on disk. Its keys are known from their own rows. */
export interface LeaseRow {
  readonly lease: bigint;
  /** What was granted. */
  readonly ttlMs: number;
  /** Log time at which it runs out. */
  readonly deadlineMs: number;
}

/** What the leases need of a disk. */
export interface LeaseRows {
  /** Inserts or replaces. */
  putLease(row: LeaseRow): void;
  removeLease(lease: bigint): void;
  leases(): LeaseRow[];
}

interface Lease extends LeaseRow {
  /** The keys whose newest version names this lease. */
  readonly keys: Set<Key>;
}

/** By deadline; leases with the same one by id, so that all replicas agree. */
function compareDeadlines(a: Lease, b: Lease): number {
  return a.deadlineMs - b.deadlineMs ||
    (a.lease < b.lease ? -1 : a.lease > b.lease ? 1 : 0);
}

const MASK_63 = (1n << 63n) - 1n;

export class Leases {
  readonly #rows: LeaseRows;
  readonly #byId = new Map<bigint, Lease>();
  /** The same leases, in the order in which they run out. */
  readonly #byDeadline = new BTree<Lease, undefined>(
    undefined,
    compareDeadlines,
  );

  /** Reads the leases from disk; their keys are attached afterwards. */
  constructor(rows: LeaseRows) {
    this.#rows = rows;
    for (const row of rows.leases()) this.#insert({ ...row, keys: new Set() });
  }

  get size(): number {
    return this.#byId.size;
  }

  get(lease: bigint): LeaseRow | undefined {
    return this.#byId.get(lease);
  }

  has(lease: bigint): boolean {
    return this.#byId.has(lease);
  }

  /** The lease that runs out next. */
  get next(): LeaseRow | undefined {
    return this.#byDeadline.minKey();
  }

  /** All ids, in the order in which the leases run out. */
  ids(): bigint[] {
    return this.#byDeadline.keysArray().map(({ lease }) => lease);
  }

  /** The attached keys in their order: a set's own order would not survive a restart. */
  keys(lease: bigint): Key[] {
    return [...this.#byId.get(lease)?.keys ?? []].sort();
  }

  /** Adds a new lease. */
  add(row: LeaseRow): void {
    assert(!this.#byId.has(row.lease), `Lease is there already: ${row.lease}`);
    this.#insert({ ...row, keys: new Set() });
    this.#rows.putLease(row);
  }

  /** Moves the deadline of a lease. */
  renew(lease: bigint, deadlineMs: number): void {
    const old = this.#byId.get(lease);
    assert(old !== undefined, `No such lease: ${lease}`);
    if (old.deadlineMs === deadlineMs) return;
    this.#byDeadline.delete(old);
    this.#insert({ ...old, deadlineMs });
    this.#rows.putLease({ lease, ttlMs: old.ttlMs, deadlineMs });
  }

  /** Removes a lease whose keys are gone. */
  remove(lease: bigint): void {
    const old = this.#byId.get(lease);
    assert(old !== undefined, `No such lease: ${lease}`);
    assert(
      old.keys.size === 0,
      `Lease ${lease} still has ${old.keys.size} keys`,
    );
    this.#byId.delete(lease);
    this.#byDeadline.delete(old);
    this.#rows.removeLease(lease);
  }

  attach(key: Key, lease: bigint): void {
    const found = this.#byId.get(lease);
    assert(found !== undefined, `Key attached to an unknown lease: ${lease}`);
    found.keys.add(key);
  }

  detach(key: Key, lease: bigint): void {
    const removed = this.#byId.get(lease)?.keys.delete(key) ?? false;
    assert(removed, `Key is not attached to lease ${lease}`);
  }

  /**
   * An id for a lease that a client lets the store choose: positive, not in use, and made of the
   * command's place in the log, so that all replicas choose the same. The multiplier is odd, so
   * different places give different ids modulo 2^63.
   */
  choose(index: number, place: number): bigint {
    const seed = BigInt(index) << 20n | BigInt(place);
    let lease = (seed * 0x9e3779b97f4a7c15n) & MASK_63;
    while (lease === 0n || this.#byId.has(lease)) {
      lease = (lease + 1n) & MASK_63;
    }
    return lease;
  }

  #insert(lease: Lease): void {
    this.#byId.set(lease.lease, lease);
    this.#byDeadline.set(lease, undefined);
  }
}
