/**
 * The one meaning of each operation: validation, limits, deadlines, and where a request goes.
 * Adapters (`grpc.ts` and those to come) convert to and from these types and do nothing else.
 *
 * @module
 */

import type {
  DeleteOperation,
  Key,
  KeyRange,
  MutateRequest,
  PutOperation,
  RangeOperation,
  Request,
  StoredEntry,
  TransactRequest,
  WriteId,
} from "./batch.ts";
import {
  checkCount,
  checkKey,
  checkLease,
  checkLeaseOrNone,
  checkOperation,
  checkRange,
  checkRangeOperation,
  checkRevision,
  checkTransaction,
  printable,
} from "./checks.ts";
import { onlyReads } from "./conditions.ts";
import { LIMITS, type Settings } from "./config.ts";
import { assert, DkvError } from "./errors.ts";
import type { Group } from "./group.ts";
import { nodeOfMember } from "./identity.ts";
import type { RangeResult } from "./ranges.ts";
import { type MemberInfo, Membership } from "./membership.ts";
import { Passwords } from "./passwords.ts";
import { judged, type Result, type ResultOf } from "./results.ts";
import type {
  LeaseInfo,
  ListOptions as StoreListOptions,
  ListPage,
} from "./store.ts";
import type { PlainUserChange } from "./userchange.ts";
import type { Directory } from "./users.ts";
import type { Watch, WatchOptions } from "./watch.ts";

/** What a caller may say beside the request itself. */
export interface CallOptions {
  /** Give up after this long; null for the cluster's default. */
  readonly timeoutMs: number | null;
}

export interface WriteOptions extends CallOptions {
  /** Makes a retry safe; null: a repetition is not recognised. */
  readonly writeId: WriteId | null;
}

/** A write's options, and who hears what came of it. */
export interface WriteWaiter extends WriteOptions {
  /** Called once; what {@linkcode judged} makes of the outcome is for the client. */
  settle(outcome: Result | Error): void;
}

export interface ReadOptions extends CallOptions {
  /** Read as of this revision; 0 means now. */
  readonly revision: number;
  /** Answer from this node's own state, which may be stale. */
  readonly serializable: boolean;
}

export interface ListOptions extends ReadOptions {
  readonly range: KeyRange;
  /** 0 means no limit. */
  readonly limit: number;
  readonly keysOnly: boolean;
  readonly reverse: boolean;
}

export interface Page {
  readonly entries: readonly StoredEntry[];
  readonly revision: number;
  /** On the last page: true if the limit left keys out. */
  readonly more: boolean;
}

/** How far one replica is. */
export interface ReplicaState {
  readonly commitIndex: number;
  readonly appliedIndex: number;
  /** 0 if history was never compacted. */
  readonly compactRevision: number;
  /** Of everything that was applied; a safe integer. */
  readonly stateHash: number;
  /** It has no vote. */
  readonly isLearner: boolean;
}

/** The smallest key after `key`: with it, a single key is a range. */
export function keyAfter(key: Key): Key {
  return key + "\0";
}

/** The operations of one group, for every adapter. */
export class Service {
  readonly #group: Group;
  readonly #settings: Settings;
  readonly #membership: Membership;
  readonly #passwords = new Passwords();

  constructor(group: Group, settings: Settings) {
    this.#group = group;
    this.#settings = settings;
    this.#membership = new Membership(group, settings);
  }

  /** The id of the node that leads; empty if this node knows none. */
  get leader(): string {
    const { leader } = this.#group.core;
    return leader === null ? "" : nodeOfMember(leader);
  }

  /** The revision that this node's state is at. */
  get revision(): number {
    return this.#group.store.revision;
  }

  /** The Raft term that this node is in. */
  get term(): number {
    return this.#group.core.term;
  }

  /** Who may do what is not looked at yet: requests will be checked here, against {@linkcode users}. */
  get isAuthEnabled(): boolean {
    return false;
  }

  /** How far this node's replica is. */
  get replica(): ReplicaState {
    const { core, store, member, configuration } = this.#group;
    return {
      commitIndex: core.commit,
      appliedIndex: store.state.appliedIndex,
      compactRevision: store.state.compactRevision,
      stateHash: store.state.hash,
      isLearner: configuration.learners.includes(member),
    };
  }

  // ---------------------------------------------------------------- writes

  /**
   * Starts a write without a promise, for those who have thousands on their way; what is wrong with
   * it is thrown. The waiter hears of it in the middle of a turn of the group: it must not throw.
   */
  start(
    request: PutOperation | DeleteOperation | TransactRequest,
    waiter: WriteWaiter,
  ): void {
    if (request.type !== "transact") checkOperation(request);
    else if (this.#changesNothing(request)) {
      const settle = (outcome: Result | Error) => waiter.settle(outcome);
      return void this.#query(request, waiter).then(settle, settle);
    }
    this.#timeout(waiter); // Refuses what comes too late.
    this.#group.propose(request, waiter);
  }

  put(request: PutOperation, options: WriteOptions): Promise<ResultOf<"put">> {
    checkOperation(request);
    return this.#write(request, { ...options, expect: "put" });
  }

  delete(
    request: DeleteOperation,
    options: WriteOptions,
  ): Promise<ResultOf<"delete">> {
    checkOperation(request);
    return this.#write(request, { ...options, expect: "delete" });
  }

  transact(
    request: TransactRequest,
    options: WriteOptions & { serializable?: boolean },
  ): Promise<ResultOf<"transact">> {
    if (this.#changesNothing(request)) return this.#query(request, options);
    return this.#write(request, { ...options, expect: "transact" });
  }

  #changesNothing(request: TransactRequest): boolean {
    const operationsMax = this.#settings.transactionOperationsMax;
    checkTransaction(request, { operationsMax });
    return onlyReads(request);
  }

  /** An atomic write of Deno KV; its adapter has checked it. */
  mutate(
    request: MutateRequest,
    options: CallOptions,
  ): Promise<ResultOf<"mutate">> {
    return this.#write(request, {
      ...options,
      writeId: null,
      expect: "mutate",
    });
  }

  grant(
    { lease, ttlMs }: { lease: bigint; ttlMs: number },
    options: CallOptions,
  ): Promise<ResultOf<"lease">> {
    checkLeaseOrNone(lease);
    if (ttlMs < LIMITS.leaseTtlMsMin || ttlMs > LIMITS.leaseTtlMsMax) {
      throw new DkvError(
        "LEASE_INVALID",
        `A lease lives ${LIMITS.leaseTtlMsMin} to ${LIMITS.leaseTtlMsMax} ms, not ${ttlMs}`,
      );
    }
    const { leases } = this.#group.store.metrics;
    if (leases >= LIMITS.leasesMax) {
      throw new DkvError(
        "OVERLOADED",
        `Too many leases: ${leases}, at most ${LIMITS.leasesMax}`,
      );
    }
    return this.#write({ type: "grant", lease, ttlMs }, {
      ...options,
      writeId: null,
      expect: "lease",
    });
  }

  revoke(lease: bigint, options: CallOptions): Promise<ResultOf<"revoked">> {
    checkLease(lease);
    return this.#write({ type: "revoke", lease }, {
      ...options,
      writeId: null,
      expect: "revoked",
    });
  }

  /** Renews a lease through the log, so an answer means that the lease existed (raft-pitfalls R11). */
  keepAlive(lease: bigint, options: CallOptions): Promise<ResultOf<"lease">> {
    checkLease(lease);
    return this.#write({ type: "keepAlive", lease }, {
      ...options,
      writeId: null,
      expect: "lease",
    });
  }

  /** Resolves when what compaction has superseded is gone from this node's disk. */
  async compacted(options: CallOptions): Promise<void> {
    const isDone = () => {
      const { physicalRevision, physicalPosition, compactRevision } =
        this.#group.store.state;
      return physicalPosition === 0 && physicalRevision === compactRevision;
    };
    if (await this.#until(isDone, options)) return;
    throw new DkvError(
      "DEADLINE_EXCEEDED",
      "The history was cut, but its rows were not removed before the deadline",
    );
  }

  compact(revision: number, options: CallOptions): Promise<ResultOf<"done">> {
    checkRevision(revision);
    return this.#write({ type: "compact", revision }, {
      ...options,
      writeId: null,
      expect: "done",
    });
  }

  #write<Type extends Result["type"]>(
    request: Request,
    options: WriteOptions & { expect: Type },
  ): Promise<ResultOf<Type>> {
    const { promise, resolve, reject } = Promise.withResolvers<
      ResultOf<Type>
    >();
    const settle = (outcome: Result | Error) => {
      const result = judged(outcome, options.expect);
      if (result instanceof Error) reject(result);
      else resolve(result);
    };
    this.#timeout(options); // Refuses what comes too late.
    this.#group.propose(request, { ...options, settle });
    return promise;
  }

  // ---------------------------------------------------------------- reads

  async get(key: Key, options: ReadOptions): Promise<StoredEntry | null> {
    this.checkGet(key, options.revision);
    await this.ready(options);
    return this.getNow(key, options.revision);
  }

  /** Throws for what {@linkcode getNow} could not read. */
  checkGet(key: Key, revision: number): void {
    checkKey(key);
    checkRevision(revision);
  }

  /** What `get` reads, when this node is {@linkcode ready}: for those who count what they hold. */
  getNow(key: Key, revision: number): StoredEntry | null {
    return this.#group.store.get(key, revision);
  }

  /** One page of a range, when this node is {@linkcode ready}. */
  listNow(range: KeyRange, options: StoreListOptions): ListPage {
    return this.#group.store.list(range, options);
  }

  /** A transaction that changes nothing needs no entry of the log, and no write id. */
  async #query(
    request: TransactRequest,
    options: CallOptions & { serializable?: boolean },
  ): Promise<ResultOf<"transact">> {
    await this.ready({ serializable: false, ...options });
    const result = this.#group.store.query(request);
    if (result.type === "error") {
      throw new DkvError(result.code, result.message);
    }
    assert(result.type === "transact", `A query made a ${result.type}`);
    return result;
  }

  /** Reads a range in any way, as one answer. */
  async range(
    operation: RangeOperation,
    options: CallOptions & { serializable: boolean },
  ): Promise<RangeResult> {
    checkRangeOperation(operation);
    await this.ready(options);
    const read = this.#group.store.range(operation, LIMITS.rangeBytesMax);
    if (read !== null) return read;
    throw new DkvError(
      "REQUEST_TOO_LARGE",
      `The range is too large for one answer: more than ${LIMITS.rangeBytesMax} bytes of entries; ` +
        "read it in pieces",
    );
  }

  /** Pages in key order, all at one revision. */
  async *list(options: ListOptions): AsyncGenerator<Page> {
    checkRange(options.range);
    checkRevision(options.revision);
    checkCount("limit", options.limit);
    await this.ready(options);
    let { start, end } = options.range;
    let revision = options.revision;
    let left = options.limit === 0 ? Infinity : options.limit;
    while (true) {
      const limit = Math.min(left, LIMITS.listPageEntries);
      const page = this.#group.store.list({ start, end }, {
        revision,
        limit,
        keysOnly: options.keysOnly,
        reverse: options.reverse,
        bytesMax: LIMITS.listPageBytes,
      });
      revision = page.revision;
      left -= page.entries.length;
      const last = page.entries.at(-1);
      const done = !page.more || left === 0 || last === undefined;
      yield { entries: page.entries, revision, more: done && page.more };
      if (done) return;
      if (options.reverse) end = last.key;
      else start = keyAfter(last.key);
    }
  }

  /** Null if the lease does not exist. */
  async timeToLive(
    lease: bigint,
    options: CallOptions,
  ): Promise<LeaseInfo & { keys: () => readonly Key[] }> {
    checkLease(lease);
    await this.ready({ ...options, serializable: false });
    const info = this.#group.store.leaseInfo(lease);
    if (info === null) {
      throw new DkvError("LEASE_NOT_FOUND", `Lease ${lease} does not exist`);
    }
    return { ...info, keys: () => this.#group.store.leaseKeys(lease) };
  }

  /** All leases, the one that runs out next first. */
  async leases(options: CallOptions): Promise<readonly bigint[]> {
    await this.ready({ ...options, serializable: false });
    return this.#group.store.leaseIds();
  }

  /** Resolves when this replica's state may be read, by any number of reads that came before. */
  ready(
    options: { serializable: boolean; timeoutMs: number | null },
  ): Promise<void> | void {
    if (options.serializable) return;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#group.read(
      (error) => error === null ? resolve() : reject(error),
      this.#timeout(options),
    );
    return promise;
  }

  // ---------------------------------------------------------------- watches

  /**
   * Resolves when a watch may be opened here: this node knows of every write that was acknowledged
   * before, so that "from now on" leaves them out.
   *
   * @throws {DkvError} for a bad range or revision, NO_LEADER.
   */
  watchable(
    options: Pick<WatchOptions, "range" | "fromRevision"> & CallOptions,
  ): Promise<void> | void {
    checkRange(options.range);
    checkRevision(options.fromRevision);
    return this.ready({ ...options, serializable: false });
  }

  /**
   * Registers a watch and returns the function that ends it.
   *
   * @throws {DkvError} OVERLOADED if there are too many.
   */
  watch(options: WatchOptions): Watch {
    return this.#group.watchers.add(options);
  }

  /** A consumer that was full has room again. */
  resumeWatches(): void {
    this.#group.resumeWatches();
  }

  // ---------------------------------------------------------------- users and roles

  /** Changes users and roles; the password is hashed here, so that it goes no further. */
  async changeUsers(
    change: PlainUserChange,
    options: CallOptions,
  ): Promise<void> {
    const endMs = performance.now() + this.#timeout(options);
    const hashed = "password" in change
      ? {
        ...change,
        password: change.password === null
          ? ""
          : await this.#passwords.hash(change.password),
      }
      : change;
    await this.#write({ type: "changeUsers", change: hashed }, {
      timeoutMs: endMs - performance.now(),
      writeId: null,
      expect: "done",
    });
  }

  /** Users and roles, with every change that was acknowledged before. */
  async users(options: CallOptions): Promise<Directory> {
    await this.ready({ ...options, serializable: false });
    return this.#group.store.users;
  }

  /** Says what is missing before requests could be checked; in the end, that dkv cannot yet. */
  async enableAuth(options: CallOptions): Promise<never> {
    const roles = (await this.users(options)).rolesOf("root");
    if (roles === null) {
      throw new DkvError("ROOT_USER_MISSING", "There is no user root");
    }
    if (!roles.includes("root")) {
      throw new DkvError("ROOT_ROLE_MISSING", "User root lacks the role root");
    }
    throw new DkvError(
      "AUTH_UNSUPPORTED",
      "Authentication cannot be enabled: dkv keeps users and roles, but does not check requests " +
        "against them yet",
    );
  }

  // ---------------------------------------------------------------- cluster

  /** Moves leadership to a node and resolves when this node sees it there. */
  async transferLeadership(
    nodeId: string,
    options: CallOptions,
  ): Promise<string> {
    const { configuration, term: before } = this.#group.core;
    const target = nodeId === ""
      ? null
      : configuration.voters.find((member) => nodeOfMember(member) === nodeId);
    if (target === undefined) {
      throw new DkvError(
        "MEMBERSHIP_REFUSED",
        `Cannot lead: ${printable(nodeId)} is not a voter`,
      );
    }
    if (target === null && configuration.voters.length < 2) {
      throw new DkvError(
        "MEMBERSHIP_REFUSED",
        "Leadership cannot move: there is no other voter",
      );
    }
    if (target !== null && this.#group.core.leader === target) return nodeId;
    this.#group.transferLeadership(target);
    const hasMoved = () => {
      const { leader, term } = this.#group.core;
      return leader !== null && term > before &&
        (target === null || leader === target);
    };
    if (await this.#until(hasMoved, options)) return this.leader;
    throw new DkvError(
      "DEADLINE_EXCEEDED",
      "Leadership did not move before the deadline",
    );
  }

  /** The nodes that take part; `serializable`: as far as this node knows. */
  async members(
    options: CallOptions & { serializable: boolean },
  ): Promise<MemberInfo[]> {
    await this.ready(options);
    return this.#membership.list();
  }

  /** As `invitedAs` of {@linkcode MemberInfo}, of one node. */
  invitedAs(nodeId: string): string {
    return this.#membership.invitedAs(nodeId);
  }

  /**
   * Invites a node, by its name or, if that is not known, by its address: it takes part when it starts
   * with `--rejoin`. `hold`: without a vote, until promoted.
   */
  async addMember(
    nodeId: string,
    options: CallOptions & { hold: boolean; address: string },
  ): Promise<void> {
    await this.#changeable(options);
    const timeoutMs = this.#timeout(options);
    await this.#membership.add(nodeId, { ...options, timeoutMs });
  }

  /** Says where a node is from now on: the others dial it there. */
  async moveMember(
    nodeId: string,
    options: CallOptions & { address: string },
  ): Promise<void> {
    await this.#changeable(options);
    const timeoutMs = this.#timeout(options);
    await this.#membership.move(nodeId, { ...options, timeoutMs });
  }

  /** Removes a node: it ends when it learns of it. */
  async removeMember(nodeId: string, options: CallOptions): Promise<void> {
    await this.#changeable(options);
    const timeoutMs = this.#timeout(options);
    await this.#membership.remove(nodeId, { timeoutMs });
  }

  /** Gives a learner that has caught up its vote. */
  async promoteMember(nodeId: string, options: CallOptions): Promise<void> {
    await this.#changeable(options);
    const timeoutMs = this.#timeout(options);
    await this.#membership.promote(nodeId, { timeoutMs });
  }

  /** Without a leader, and before this node knows what is in force, nothing is planned. */
  #changeable(options: CallOptions): Promise<void> | void {
    return this.ready({ ...options, serializable: false });
  }

  /** Looks at every tick; false if it does not hold before the deadline. */
  async #until(holds: () => boolean, options: CallOptions): Promise<boolean> {
    const end = performance.now() + this.#timeout(options);
    while (performance.now() < end) {
      if (holds()) return true;
      await new Promise((resolve) =>
        setTimeout(resolve, this.#settings.tickMs)
      );
    }
    return false;
  }

  #timeout({ timeoutMs }: CallOptions): number {
    if (timeoutMs === null) return this.#settings.requestTimeoutMs;
    if (timeoutMs <= 0) {
      throw new DkvError(
        "DEADLINE_EXCEEDED",
        "The deadline had passed when the request arrived",
      );
    }
    return timeoutMs;
  }
}
