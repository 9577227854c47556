/**
 * Leases of the store: keys attached to one vanish together when it ends. Used by `store.ts`.
 *
 * @module
 */

/** A lease on disk. Its keys are known from their own rows. */
export interface LeaseRow {
  readonly lease: bigint;
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
