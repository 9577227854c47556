/**
 * The replicated state of a group: keys with all their versions (`versions.ts`), leases
 * (`leases.ts`), client sessions (`sessions.ts`), users and roles (`users.ts`).
 * {@linkcode Store.apply} is a function of the state and the log entry alone; `group.ts` calls it,
 * `service.ts` reads, `disk.ts` keeps the rows.
 *
 * @module
 */
import type {
  Batch,
  Command,
  DeleteOperation,
  Key,
  KeyRange,
  PutOperation,
  Request,
  StoredEntry,
  TransactRequest,
} from "./batch.ts";
import { onlyReads } from "./conditions.ts";
import { Digest } from "./digest.ts";
import { assert, unreachable } from "./errors.ts";
import { type LeaseRow, Leases } from "./leases.ts";
import { runMutate } from "./mutations.ts";
import type { RangeOperation, RangeResult } from "./ranges.ts";
import { type ErrorResult, refusal, type Result } from "./results.ts";
import type { Rows, StoreState } from "./rows.ts";
import {
  type LogPlace,
  type SessionLimits,
  type SessionRow,
  Sessions,
} from "./sessions.ts";
import {
  answerBytes,
  answerTooLarge,
  runTransaction,
  type StepState,
} from "./steps.ts";
import {
  type Directory,
  type UserLimits,
  type UserRow,
  Users,
} from "./users.ts";
import {
  type HistoryOptions,
  type HistoryPage,
  type ListOptions,
  type ListPage,
  Versions,
  type WatchEvent,
} from "./versions.ts";

export type {
  HistoryOptions,
  HistoryPage,
  LeaseRow,
  ListOptions,
  ListPage,
  SessionRow,
  UserRow,
  WatchEvent,
};
export type { OperationResult, Result } from "./results.ts";
export { EMPTY_STATE } from "./rows.ts";
export type { EventMeta, EventRow, Rows, StoreState } from "./rows.ts";

/** How many leases one entry may let run out; the rest wait for the next entry. */
const LEASE_EXPIRIES_PER_ENTRY_MAX = 500;

/** Bounds that `apply` depends on: they must be the same on all replicas. */
export interface StoreLimits extends SessionLimits, UserLimits {
  readonly leasesMax: number;
  /** A value that grew inside the store. */
  readonly valueBytesMax: number;
  /** How many bytes of entries one command may answer with. */
  readonly responseBytesMax: number;
}

/** One entry of the log, decoded; `batch` is null for an empty or a configuration entry. */
export interface AppliedEntry {
  readonly index: number;
  readonly term: number;
  readonly batch: Batch | null;
}

/** What became of one command. */
export interface AppliedResult {
  readonly origin: number;
  readonly id: number;
  readonly result: Result;
}

/** What an entry did. */
export interface Applied {
  /** One for each command, in order. */
  readonly results: readonly AppliedResult[];
  /** Whole revisions, ascending. Give them to `Watchers.publish` before anything else is done. */
  readonly events: readonly WatchEvent[];
}

export interface LeaseInfo {
  readonly lease: bigint;
  /** What was granted. */
  readonly ttlMs: number;
  /** What is left, in log time; 0 if the lease is about to run out. */
  readonly remainingMs: number;
}

export interface StoreMetrics {
  /** Keys that exist now. */
  readonly keys: number;
  readonly sessions: number;
  readonly leases: number;
}

/** What stands in the digest before a change that is no change of a key; see `users.ts` for more. */
const DIGEST_KIND = {
  grant: 1,
  renew: 2,
  end: 3,
  compact: 4,
  identify: 5,
} as const;

const EMPTY_VALUE: Uint8Array = new Uint8Array(0);

function unknownLease(lease: bigint): ErrorResult {
  return refusal("LEASE_NOT_FOUND", `Lease not found: ${lease}`);
}

export class Store {
  readonly #limits: StoreLimits;
  readonly #versions: Versions;
  readonly #leases: Leases;
  readonly #sessions: Sessions;
  readonly #users: Users;
  readonly #digest: Digest;
  /** What transactions see of this store. */
  readonly #steps: StepState;
  #appliedIndex: number;
  #appliedTerm: number;
  #timeMs: number;
  #hash: number;
  #clusterId: string;
  /** What the entry that is being applied has changed. */
  #events: WatchEvent[] = [];

  /** Rebuilds what is in memory from the rows and the state that was saved with them. */
  static load(rows: Rows, state: StoreState, limits: StoreLimits): Store {
    return new Store(rows, { state, limits });
  }

  private constructor(
    rows: Rows,
    options: { state: StoreState; limits: StoreLimits },
  ) {
    const { state, limits } = options;
    this.#limits = limits;
    this.#digest = new Digest(state.hash);
    this.#leases = new Leases(rows);
    this.#sessions = new Sessions(rows, { limits, digest: this.#digest });
    this.#users = new Users(rows, {
      limits,
      digest: this.#digest,
      revision: state.userRevision,
    });
    const attach = (key: Key, lease: bigint) => this.#leases.attach(key, lease);
    this.#versions = new Versions(rows, { state, attach });
    this.#steps = {
      versions: this.#versions,
      responseBytesMax: limits.responseBytesMax,
      valueBytesMax: limits.valueBytesMax,
      checkPut: (put) => this.#checkPut(put),
      put: (put, revision) => this.#doPut(put, revision),
      delete: (operation, revision) => this.#doDelete(operation, revision),
    };
    this.#appliedIndex = state.appliedIndex;
    this.#appliedTerm = state.appliedTerm;
    this.#timeMs = state.timeMs;
    this.#hash = state.hash;
    this.#clusterId = state.clusterId;
  }

  /** What must be saved with the rows: after each `apply` and each `compactSlice`. */
  get state(): StoreState {
    return {
      ...this.#versions.state,
      appliedIndex: this.#appliedIndex,
      appliedTerm: this.#appliedTerm,
      timeMs: this.#timeMs,
      hash: this.#hash,
      clusterId: this.#clusterId,
      userRevision: this.#users.revision,
    };
  }

  get revision(): number {
    return this.#versions.revision;
  }

  get compactRevision(): number {
    return this.#versions.compactRevision;
  }

  get appliedIndex(): number {
    return this.#appliedIndex;
  }

  /** Users and roles. */
  get users(): Directory {
    return this.#users;
  }

  get metrics(): StoreMetrics {
    return {
      keys: this.#versions.size,
      sessions: this.#sessions.size,
      leases: this.#leases.size,
    };
  }

  /**
   * Applies the next entry of the log. Everything depends on the state and the entry alone: no
   * clock (a batch carries log time), no chance, nothing of this replica (raft-pitfalls F11). An
   * exception is fatal to the replica: a part of the entry may have been applied.
   *
   * First log time advances, and leases that are due run out; then the commands, in order.
   */
  apply(entry: AppliedEntry): Applied {
    const { index, term, batch } = entry;
    assert(
      index === this.#appliedIndex + 1,
      `Entry ${index} after entry ${this.#appliedIndex}`,
    );
    this.#digest.number(index);
    this.#digest.number(term);
    const events: WatchEvent[] = [];
    this.#events = events;
    if (batch !== null && batch.timeMs > this.#timeMs) {
      this.#timeMs = batch.timeMs;
    }
    this.#digest.number(this.#timeMs);
    this.#expireLeases();
    this.#sessions.expire(this.#timeMs);
    const results: AppliedResult[] = [];
    for (const command of batch?.commands ?? []) {
      const at = { index, place: results.length, timeMs: this.#timeMs };
      results.push({
        origin: command.origin,
        id: command.id,
        result: this.#applyCommand(command, at),
      });
    }
    this.#sessions.flush();
    this.#appliedIndex = index;
    this.#appliedTerm = term;
    this.#hash = this.#digest.seal();
    return { results, events };
  }

  /** Leases run out in the order of their deadlines, each in a revision of its own. */
  #expireLeases(): void {
    for (let count = 0; count < LEASE_EXPIRIES_PER_ENTRY_MAX; count++) {
      const next = this.#leases.next;
      if (next === undefined || next.deadlineMs > this.#timeMs) return;
      this.#endLease(next.lease);
    }
  }

  /** Applies one command, at most once if it has a write id. */
  #applyCommand(command: Command, at: LogPlace): Result {
    const { writeId, request } = command;
    if (writeId === null) return this.#applyRequest(request, at);
    const answer = this.#sessions.admit(writeId, at);
    if (answer !== null) return answer;
    const result = this.#applyRequest(request, at);
    this.#sessions.remember(writeId, { result, at });
    return result;
  }

  #applyRequest(request: Request, at: LogPlace): Result {
    switch (request.type) {
      case "put":
        return this.#put(request);
      case "delete":
        return this.#delete(request);
      case "transact":
        return runTransaction(request, this.#steps);
      case "mutate":
        return runMutate(request, this.#steps);
      case "changeUsers":
        return this.#users.apply(request.change);
      case "grant":
        return this.#grant(request, at);
      case "revoke": {
        if (!this.#leases.has(request.lease)) {
          return unknownLease(request.lease);
        }
        const deleted = this.#endLease(request.lease);
        return { type: "revoked", revision: this.#versions.revision, deleted };
      }
      case "keepAlive": {
        const row = this.#leases.get(request.lease);
        if (row === undefined) return unknownLease(request.lease);
        this.#leases.renew(row.lease, this.#timeMs + row.ttlMs);
        this.#digest.number(DIGEST_KIND.renew);
        this.#digest.bigint(row.lease);
        return { type: "lease", lease: row.lease, ttlMs: row.ttlMs };
      }
      case "compact":
        return this.#compact(request.revision);
      case "identify":
        return this.#identify(request.clusterId);
      default:
        return unreachable(request);
    }
  }

  #put(put: PutOperation): Result {
    const error = this.#checkPut(put);
    if (error !== null) return error;
    const revision = this.#versions.revision + 1;
    const { event, previous } = this.#doPut(put, revision);
    return { type: "put", revision, version: event.version, previous };
  }

  #delete(operation: DeleteOperation): Result {
    const bytes = answerBytes(operation, {
      versions: this.#versions,
      bytesMax: this.#limits.responseBytesMax,
    });
    if (typeof bytes !== "number") return bytes;
    if (bytes > this.#limits.responseBytesMax) {
      return answerTooLarge(this.#limits);
    }
    const { deleted, previous } = this.#doDelete(
      operation,
      this.#versions.revision + 1,
    );
    return {
      type: "delete",
      revision: this.#versions.revision,
      deleted,
      previous,
    };
  }

  #checkPut(put: PutOperation): ErrorResult | null {
    if (put.key === "") return refusal("KEY_EMPTY", "Key is empty");
    if (put.lease !== 0n && !this.#leases.has(put.lease)) {
      return unknownLease(put.lease);
    }
    return null;
  }

  #doPut(
    put: PutOperation,
    revision: number,
  ): { event: WatchEvent; previous: StoredEntry | null } {
    const { key, value, lease } = put;
    const record = this.#versions.record(key);
    const previous =
      put.returnPrevious && record !== undefined && record.version !== 0
        ? this.#versions.read(record.position)
        : null;
    const oldLease = record?.lease ?? 0n;
    const event = this.#versions.change({
      type: "put",
      key,
      record,
      value,
      lease,
      revision,
    });
    if (oldLease !== lease) {
      if (oldLease !== 0n) this.#leases.detach(key, oldLease);
      if (lease !== 0n) this.#leases.attach(key, lease);
    }
    this.#publish(event);
    return { event, previous };
  }

  #doDelete(
    operation: DeleteOperation,
    revision: number,
  ): { deleted: number; previous: StoredEntry[] } {
    const keys = this.#versions.keys(operation.range);
    const previous: StoredEntry[] = [];
    for (const key of keys) {
      const event = this.#deleteKey(key, revision);
      if (operation.returnPrevious) {
        previous.push(this.#versions.read(event.previousPosition));
      }
    }
    return { deleted: keys.length, previous };
  }

  #deleteKey(key: Key, revision: number): WatchEvent {
    const record = this.#versions.record(key);
    const lease = record?.lease ?? 0n;
    if (lease !== 0n) this.#leases.detach(key, lease);
    const change = {
      type: "delete",
      key,
      record,
      value: EMPTY_VALUE,
      lease: 0n,
      revision,
    } as const;
    const event = this.#versions.change(change);
    this.#publish(event);
    return event;
  }

  /** Every change passes here: into the digest and out to the watchers. */
  #publish(event: WatchEvent): void {
    const digest = this.#digest;
    digest.number(event.modRevision);
    digest.text(event.key);
    digest.number(event.version);
    if (event.lease !== 0n) digest.bigint(event.lease);
    digest.bytes(event.value);
    this.#events.push(event);
  }

  #grant(request: { lease: bigint; ttlMs: number }, at: LogPlace): Result {
    const { ttlMs } = request;
    if (!Number.isSafeInteger(ttlMs) || ttlMs <= 0) {
      return refusal(
        "LEASE_INVALID",
        `Time to live is no positive integer: ${ttlMs} ms`,
      );
    }
    if (!Number.isSafeInteger(this.#timeMs + ttlMs)) {
      return refusal("LEASE_INVALID", `Time to live is too long: ${ttlMs} ms`);
    }
    if (request.lease < 0n) {
      return refusal("LEASE_INVALID", `Lease id is negative: ${request.lease}`);
    }
    if (this.#leases.has(request.lease)) {
      return refusal("LEASE_EXISTS", `Lease exists: ${request.lease}`);
    }
    if (this.#leases.size >= this.#limits.leasesMax) {
      return refusal(
        "OVERLOADED",
        `Too many leases: at most ${this.#limits.leasesMax}`,
      );
    }
    const lease = request.lease || this.#leases.choose(at.index, at.place);
    this.#leases.add({ lease, ttlMs, deadlineMs: this.#timeMs + ttlMs });
    this.#digest.number(DIGEST_KIND.grant);
    this.#digest.bigint(lease);
    this.#digest.number(ttlMs);
    return { type: "lease", lease, ttlMs };
  }

  /** Deletes a lease's keys, in one revision, and the lease. */
  #endLease(lease: bigint): number {
    const keys = this.#leases.keys(lease);
    const revision = this.#versions.revision + 1;
    for (const key of keys) this.#deleteKey(key, revision);
    this.#leases.remove(lease);
    this.#digest.number(DIGEST_KIND.end);
    this.#digest.bigint(lease);
    return keys.length;
  }

  #compact(revision: number): Result {
    const { compactRevision, revision: current } = this.#versions;
    if (!Number.isSafeInteger(revision) || revision <= 0) {
      return refusal(
        "REVISION_INVALID",
        `Revision is no positive integer: ${revision}`,
      );
    }
    if (revision > current) {
      return refusal(
        "REVISION_FUTURE",
        `Cannot compact to revision ${revision}: the store is at revision ${current}`,
      );
    }
    if (revision <= compactRevision) {
      return refusal(
        "REVISION_COMPACTED",
        `Cannot compact to revision ${revision}: compacted up to revision ${compactRevision}`,
      );
    }
    this.#versions.compact(revision);
    this.#digest.number(DIGEST_KIND.compact);
    this.#digest.number(revision);
    return { type: "done" };
  }

  #identify(clusterId: string): Result {
    if (clusterId === "") {
      return refusal("IDENTITY_MISMATCH", "Cluster id is empty");
    }
    if (this.#clusterId !== "" && this.#clusterId !== clusterId) {
      return refusal(
        "IDENTITY_MISMATCH",
        `Cluster is ${this.#clusterId} and cannot become ${clusterId}`,
      );
    }
    this.#clusterId = clusterId;
    this.#digest.number(DIGEST_KIND.identify);
    this.#digest.text(clusterId);
    return { type: "done" };
  }

  /**
   * Reads one key at a revision; 0 means now. Throws `DkvError` REVISION_INVALID, REVISION_FUTURE or
   * REVISION_COMPACTED, and DATA_CORRUPT if the row is damaged.
   */
  get(key: Key, revision: number): StoredEntry | null {
    return this.#versions.get(key, revision);
  }

  /** Answers a transaction that only reads, as of now, without an entry of the log. */
  query(request: TransactRequest): Result {
    assert(onlyReads(request), "A query writes nothing");
    return runTransaction(request, this.#steps);
  }

  /** Reads one page of a range; throws as {@linkcode Store.get} does. */
  list(range: KeyRange, options: ListOptions): ListPage {
    return this.#versions.list(range, options);
  }

  /**
   * Reads a range in any way; null if what must be held for it is larger than `bytesMax`. Throws as
   * {@linkcode Store.get} does.
   */
  range(operation: RangeOperation, bytesMax: number): RangeResult | null {
    return this.#versions.range(operation, bytesMax);
  }

  /** Counts the keys of a range at a revision; 0 means now. Throws as {@linkcode Store.get} does. */
  count(range: KeyRange, revision: number): number {
    return this.#versions.count(range, revision);
  }

  /** Reads changes again; throws as {@linkcode Store.get} does. */
  history(options: HistoryOptions): HistoryPage {
    return this.#versions.history(options);
  }

  /** The entry before a change that `apply` has just made. */
  previousOf(event: WatchEvent): StoredEntry | null {
    return event.previousPosition === 0
      ? null
      : this.#versions.read(event.previousPosition);
  }

  leaseInfo(lease: bigint): LeaseInfo | null {
    const row = this.#leases.get(lease);
    if (row === undefined) return null;
    const remainingMs = Math.max(0, row.deadlineMs - this.#timeMs);
    return { lease, ttlMs: row.ttlMs, remainingMs };
  }

  /** All leases; the one that runs out next comes first. */
  leaseIds(): bigint[] {
    return this.#leases.ids();
  }

  /** The keys attached to a lease, in order. */
  leaseKeys(lease: bigint): Key[] {
    return this.#leases.keys(lease);
  }

  /** The log time at which the next lease runs out; null if there is none. */
  get nextLeaseDeadlineMs(): number | null {
    return this.#leases.next?.deadlineMs ?? null;
  }

  /** True if a lease is due at log time `timeMs`: an entry must be proposed to end it. */
  dueLeases(timeMs: number): boolean {
    const { next } = this.#leases;
    return next !== undefined && next.deadlineMs <= timeMs;
  }

  /**
   * Removes rows that were compacted, looking at up to `rowsMax`; true while there is more to do.
   * Not part of the log: each replica does it when it has time, and saves its state afterwards.
   */
  compactSlice(rowsMax: number): boolean {
    return this.#versions.compactSlice(rowsMax);
  }

  /** Throws if an invariant does not hold. For tests: it looks at everything in memory. */
  assertInvariants(): void {
    this.#versions.assertInvariants();
  }
}
