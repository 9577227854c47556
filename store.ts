/**
 * The replicated state of a group: keys with all their versions, leases and client sessions.
 * {@linkcode Store.apply} is a function of the state and the log entry alone; `group.ts` calls it,
 * `service.ts` reads from it, `disk.ts` keeps its rows.
 *
 * @module
 */
import type { Batch, Key, KeyRange, StoredEntry } from "./batch.ts";
import type { LeaseRow, LeaseRows } from "./leases.ts";
import type { Result } from "./results.ts";
import type { SessionRow, SessionRows } from "./sessions.ts";

export type { LeaseRow, SessionRow };
export type { OperationResult, Result } from "./results.ts";

/** One version of one key, as the disk keeps it. */
export interface EventRow extends EventMeta {
  /** Empty for a delete. */
  readonly value: Uint8Array;
}

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

/**
 * What the store needs of a disk. Everything it writes belongs to the open transaction, together
 * with {@linkcode StoreState}. An exception is fatal to the node: it is never an answer.
 */
export interface Rows extends LeaseRows, SessionRows {
  appendEvent(row: EventRow): void;
  /** Throws `DkvError` DATA_CORRUPT on a bad checksum. */
  readEvent(position: number): EventRow;
  removeEvents(positions: readonly number[]): void;
  /** Up to `limit` rows at or after position `from`, ascending, without values. */
  scanEvents(from: number, limit: number): EventMeta[];
}

/** What is saved with every commit beside the rows: small and fixed. */
export interface StoreState {
  readonly appliedIndex: number;
  readonly appliedTerm: number;
  /** The revision of the last change; 0 in an empty store. */
  readonly revision: number;
  /** The last position given to a row. */
  readonly position: number;
  /** Reads and watches below this revision are refused. */
  readonly compactRevision: number;
  /** Rows are removed up to this compact revision, or are being removed. Of this node alone. */
  readonly physicalRevision: number;
  /** Where the removal goes on; 0 if it has reached `physicalRevision`. Of this node alone. */
  readonly physicalPosition: number;
  /** Log time. */
  readonly timeMs: number;
  /** Digest of everything applied: equal on all replicas at an equal `appliedIndex`. */
  readonly hash: number;
  /** Empty until the cluster was identified. */
  readonly clusterId: string;
}

export const EMPTY_STATE: StoreState = {
  appliedIndex: 0,
  appliedTerm: 0,
  revision: 0,
  position: 0,
  compactRevision: 0,
  physicalRevision: 0,
  physicalPosition: 0,
  timeMs: 0,
  hash: 0,
  clusterId: "",
};

/** Bounds that `apply` depends on: they must be the same on all replicas. */
export interface StoreLimits {
  /** How many leases one entry may let run out; the rest wait for the next entry. */
  readonly leaseExpiriesPerEntryMax: number;
  readonly leasesMax: number;
  readonly sessionsMax: number;
  /** How many results are remembered for one client. */
  readonly sessionResultsMax: number;
  /** In log time: how long a client must have been silent before it may be forgotten. */
  readonly sessionTtlMs: number;
  /** How many bytes of old or listed entries one command may answer with. */
  readonly resultBytesMax: number;
}

export const STORE_LIMITS: StoreLimits = {
  leaseExpiriesPerEntryMax: 500,
  leasesMax: 1_000_000,
  sessionsMax: 10_000,
  sessionResultsMax: 4_096,
  sessionTtlMs: 3_600_000,
  resultBytesMax: 4 << 20,
};

/** One change of one key: the entry after it. A delete has only `key` and `modRevision`. */
export interface WatchEvent extends StoredEntry {
  readonly type: "put" | "delete";
  /** The row of the entry before the change; 0 if there was none. */
  readonly previousPosition: number;
  /** The entry before the change: filled in by the watchers for those who asked. */
  readonly previous: StoredEntry | null;
}

/** One entry of the log, decoded; `batch` is null for an empty or a configuration entry. */
export interface AppliedEntry {
  readonly index: number;
  readonly term: number;
  readonly batch: Batch | null;
}

/** What an entry did. */
export interface Applied {
  /** One for each command, in order. */
  readonly results: readonly {
    readonly origin: number;
    readonly id: number;
    readonly result: Result;
  }[];
  /** Whole revisions, ascending. Give them to `Watchers.publish` before the next `compactSlice`. */
  readonly events: readonly WatchEvent[];
}

export interface ListOptions {
  /** 0 means now. */
  readonly revision: number;
  /** 0 means no limit. */
  readonly limit: number;
  readonly keysOnly: boolean;
  readonly reverse: boolean;
  /** A page ends when it is at least this big; it always has one entry if there is one. */
  readonly bytesMax: number;
}

/** One page. Go on after its last key, at its revision. */
export interface ListPage {
  readonly entries: readonly StoredEntry[];
  /** True if `limit` or `bytesMax` left keys out. */
  readonly more: boolean;
  readonly revision: number;
}

export interface HistoryOptions {
  /** The first revision wanted. */
  readonly fromRevision: number;
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
  /** Every matching change up to and including this revision is in the page or before it. */
  readonly throughRevision: number;
}

export interface LeaseInfo {
  readonly lease: bigint;
  /** What was granted. */
  readonly ttlMs: number;
  /** What is left, in log time; 0 or less if the lease is about to run out. */
  readonly remainingMs: number;
}

export interface StoreMetrics {
  readonly keys: number;
  readonly sessions: number;
  readonly leases: number;
}

/*
 * class Store {
 *   static load(rows: Rows, state: StoreState, limits?: StoreLimits): Store;
 *   apply(entry: AppliedEntry): Applied;
 *   get state(): StoreState;
 *   get revision(): number; get compactRevision(): number; get timeMs(): number;
 *   get(key: Key, revision: number): StoredEntry | null;
 *   list(range: KeyRange, options: ListOptions): ListPage;
 *   count(range: KeyRange, revision: number): number;
 *   history(options: HistoryOptions): HistoryPage;
 *   leaseInfo(lease: bigint): LeaseInfo | null;
 *   leaseKeys(lease: bigint): Key[];
 *   dueLeases(timeMs: number): boolean;
 *   nextLeaseDeadlineMs(): number | null;
 *   compactSlice(rowsMax: number): boolean;
 *   metrics(): StoreMetrics;
 * }
 */
