/**
 * What the store keeps on disk: one row for each version of each key, and a small fixed state.
 * `store.ts` and its parts write them, `disk.ts` implements them. Types only, and the empty state.
 *
 * @module
 */
import type { Key } from "./batch.ts";
import type { LeaseRows } from "./leases.ts";
import type { SessionRows } from "./sessions.ts";
import type { UserRows } from "./users.ts";

/** A row without its value. A delete has `createRevision` 0, `version` 0 and `lease` 0n. */
export interface EventMeta {
  /** From 1, one more with each row, in the order of revisions and, within one, of operations. */
  readonly position: number;
  readonly revision: number;
  readonly key: Key;
  readonly type: "put" | "delete";
  readonly createRevision: number;
  readonly version: number;
  readonly lease: bigint;
}

/** One version of one key, as the disk keeps it. */
export interface EventRow extends EventMeta {
  /** Empty for a delete. */
  readonly value: Uint8Array;
}

/** The rows of the versions. */
export interface EventRows {
  appendEvent(row: EventRow): void;
  /** Throws `DkvError` DATA_CORRUPT on a bad checksum. */
  readEvent(position: number): EventRow;
  removeEvents(positions: readonly number[]): void;
  /** Up to `limit` rows at or after position `from`, ascending, without values. */
  scanEvents(from: number, limit: number): EventMeta[];
}

/**
 * What the store needs of a disk. Everything it writes belongs to the open transaction, together
 * with {@linkcode StoreState}. An exception is fatal to the node: it is never an answer (raft-pitfalls
 * F12).
 */
export interface Rows extends EventRows, LeaseRows, SessionRows, UserRows {}

/** What is saved with every commit beside the rows: small and fixed. */
export interface StoreState {
  readonly appliedIndex: number;
  readonly appliedTerm: number;
  /** The revision of the last change; 1 in an empty store, as in etcd. */
  readonly revision: number;
  /** The last position given to a row. */
  readonly position: number;
  /** Reads and watches below this revision are refused. */
  readonly compactRevision: number;
  /** Rows are removed up to this compact revision, or are being removed. Of this replica alone. */
  readonly physicalRevision: number;
  /** Where the removal goes on; 0 if it has reached `physicalRevision`. Of this replica alone. */
  readonly physicalPosition: number;
  /** Log time. */
  readonly timeMs: number;
  /** Digest of everything applied: equal on all replicas at an equal `appliedIndex`. */
  readonly hash: number;
  /** Empty until the cluster was identified. */
  readonly clusterId: string;
  /** Of users and roles; 1 while there was no change of them, as in etcd. */
  readonly userRevision: number;
}

export const EMPTY_STATE: StoreState = {
  appliedIndex: 0,
  appliedTerm: 0,
  revision: 1,
  position: 0,
  compactRevision: 0,
  physicalRevision: 0,
  physicalPosition: 0,
  timeMs: 0,
  hash: 0,
  clusterId: "",
  userRevision: 1,
};
