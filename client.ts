/**
 * The client: puts, gets, deletes, transactions, lists, watches and leases over any node of a
 * cluster.
 *
 * ```ts
 * import { connect } from "./client.ts";
 *
 * await using kv = await connect("127.0.0.1:50051,127.0.0.1:50052,127.0.0.1:50053");
 * await kv.put("greeting", "hello");
 * const entry = await kv.get("greeting");
 * console.log(entry?.text());
 * ```
 *
 * Writes go to the leader, and follow it; reads and watches to the followers in turn. All operations
 * issued in one turn of the event loop travel as one message. A failed attempt is repeated, at
 * another node, until the deadline; a write that is repeated is applied once. Errors are
 * {@linkcode DkvError}s with stable codes.
 *
 * @module
 */

import {
  type DeleteResult,
  type Entry,
  type ModifyResult,
  type NodeStatus,
  type OperationResult,
  type PutResult,
  toStatus,
  type TransactResult,
} from "./answers.ts";
import { parseEndpoints } from "./addresses.ts";
import { closedError, type Endpoint, Endpoints } from "./endpoints.ts";
import { DkvError } from "./errors.ts";
import { Atomic } from "./atomic.ts";
import { batch, type BatchOperation, getMany } from "./batches.ts";
import { Lease } from "./heldlease.ts";
import { type LeaseStatus, Leasing } from "./leasing.ts";
import { Election } from "./leadership.ts";
import { list, type ListOptions } from "./listing.ts";
import { acquire, type Lock, type LockOptions } from "./lock.ts";
import {
  type CallOptions,
  encodeDelete,
  encodeGet,
  encodePut,
  encodeTransaction,
  type Key,
  type Keys,
  onlyReads,
  type Target,
  type Transaction,
  type Value,
} from "./operations.ts";
import { Requests, type SubmitOptions } from "./requests.ts";
import { Watch, type WatchOptions } from "./subscription.ts";

export { BatchError, type BatchOperation } from "./batches.ts";
export type { Atomic, AtomicResult, Expected } from "./atomic.ts";
export type { Lease } from "./heldlease.ts";
export type { LeaseStatus } from "./leasing.ts";
export type { CampaignOptions, Election, Leadership } from "./leadership.ts";
export type { Holding, WaitOptions } from "./candidacy.ts";
export type { Lock, LockOptions } from "./lock.ts";
export { DkvError, type ErrorCode, OutcomeUnknownError } from "./errors.ts";
export type {
  Change,
  DeleteResult,
  Entry,
  MemberStatus,
  ModifyResult,
  NodeStatus,
  OperationResult,
  PutResult,
  TransactResult,
} from "./answers.ts";
export type { ListOptions } from "./listing.ts";
export type {
  CallOptions,
  Compare,
  DeleteOperation,
  GetOperation,
  Key,
  KeyRange,
  Keys,
  ListOperation,
  ModifyOperation,
  Operation,
  PutOperation,
  Relation,
  Target,
  Transaction,
  Value,
} from "./operations.ts";
export { json } from "./operations.ts";
export type { Watch, WatchOptions } from "./subscription.ts";

/** How long an operation may take unless it says otherwise. */
const TIMEOUT_MS = 5000;

/** Options of {@linkcode connect}. */
export interface ConnectOptions extends CallOptions {
  /** For connecting, and for every operation that names no time of its own. Default: 5000. */
  readonly timeoutMs?: number;
}

/** Options of {@linkcode Client.put}. */
export interface PutOptions extends CallOptions {
  /** The lease to attach the key to. Default: none, which detaches. */
  readonly lease?: bigint;
  /** Answer with the entry that was replaced. */
  readonly returnPrevious?: boolean;
}

/** Options of {@linkcode Client.get}. */
export interface GetOptions extends CallOptions {
  /** Read as of this revision. Default: now. */
  readonly revision?: number;
  /** Take the state of the node that answers, which may be stale, and staler than the last one's. */
  readonly serializable?: boolean;
}

/** Options of {@linkcode Client.delete}. */
export interface DeleteOptions extends CallOptions {
  /** Answer with the entries that were deleted. */
  readonly returnPrevious?: boolean;
}

/** Options of {@linkcode Client.grant}. */
export interface GrantOptions extends CallOptions {
  /** How long the lease lives without being renewed: 1 s to 365 days. */
  readonly ttlMs: number;
  /** The id to use. Default: a random one. */
  readonly lease?: bigint;
}

/** Options of {@linkcode Client.lease}. */
export interface LeaseOptions extends CallOptions {
  /** How long the lease outlives a program that vanished: 1 s to 365 days. */
  readonly ttlMs: number;
}

/**
 * Connects to a cluster through any of its nodes.
 *
 * ```ts
 * import { connect } from "./client.ts";
 *
 * await using kv = await connect(["127.0.0.1:50051", "127.0.0.1:50052"], { timeoutMs: 2000 });
 * console.log(kv.endpoints);
 * ```
 *
 * @param endpoints `host:port`, several of them in a list or separated by commas.
 * @throws {DkvError} CONFIG_INVALID if one can be no address; UNREACHABLE if none answers in time.
 */
export async function connect(
  endpoints: string | readonly string[],
  options: ConnectOptions = {},
): Promise<Client> {
  const { timeoutMs = TIMEOUT_MS, signal } = options;
  const all = new Endpoints(parseEndpoints(endpoints));
  try {
    await all.retry(() => Promise.resolve(), { timeoutMs, signal });
  } catch (error) {
    all.close();
    throw error;
  }
  return Client.over(all, timeoutMs);
}

/** A connection to a cluster, made by {@linkcode connect}. */
export class Client implements AsyncDisposable {
  readonly #endpoints: Endpoints;
  readonly #timeoutMs: number;
  readonly #requests: Requests;
  readonly #leasing: Leasing;
  readonly #watches = new Set<Watch>();
  readonly #leases = new Set<Lease>();
  #closed = false;

  private constructor(endpoints: Endpoints, timeoutMs: number) {
    this.#endpoints = endpoints;
    this.#timeoutMs = timeoutMs;
    const id = crypto.getRandomValues(new Uint8Array(16));
    this.#requests = new Requests(endpoints, id);
    this.#leasing = new Leasing(endpoints);
  }

  /** @internal */
  static over(endpoints: Endpoints, timeoutMs: number): Client {
    return new Client(endpoints, timeoutMs);
  }

  /** The addresses that this client was given. */
  get endpoints(): readonly string[] {
    return this.#endpoints.all.map(({ address }) => address);
  }

  // ---------------------------------------------------------------- keys

  /**
   * Stores a value under a key.
   *
   * ```ts
   * import { connect } from "./client.ts";
   *
   * await using kv = await connect("127.0.0.1:50051");
   * const { revision, version } = await kv.put("user/ann", "Ann");
   * const { previous } = await kv.put("user/ann", "Anne", { returnPrevious: true });
   * console.log(revision, version, previous?.text());
   * ```
   *
   * @throws {OutcomeUnknownError} if nobody knows whether it took effect.
   */
  put(key: Key, value: Value, options: PutOptions = {}): Promise<PutResult> {
    const operation = { key, value, ...options };
    return this.#requests.submit(
      encodePut,
      this.#write(operation, options),
    ) as Promise<PutResult>;
  }

  /**
   * Reads a key; null if there is no such key.
   *
   * ```ts
   * import { connect } from "./client.ts";
   *
   * await using kv = await connect("127.0.0.1:50051");
   * const entry = await kv.get("user/ann", { timeoutMs: 1000 });
   * console.log(entry === null ? "nobody" : `${entry.text()}, version ${entry.version}`);
   * ```
   */
  async get(key: Key, options: GetOptions = {}): Promise<Entry | null> {
    const { revision = 0, serializable = false } = options;
    const operation = { key, revision, serializable };
    const answer = await this.#requests.submit(
      encodeGet,
      { ...this.#times(options), operation, write: false },
    ) as { entry: Entry | null };
    return answer.entry;
  }

  /**
   * Deletes one key, or with `{ prefix }` or `{ range }` several, in one revision.
   *
   * ```ts
   * import { connect } from "./client.ts";
   *
   * await using kv = await connect("127.0.0.1:50051");
   * const { deleted } = await kv.delete({ prefix: "session/" });
   * await kv.delete("user/ann");
   * console.log(`${deleted} sessions`);
   * ```
   *
   * @throws {OutcomeUnknownError} if nobody knows whether it took effect.
   */
  delete(
    target: Key | Keys,
    options: DeleteOptions = {},
  ): Promise<DeleteResult> {
    const { returnPrevious = false } = options;
    const remove = isKey(target)
      ? { key: target, returnPrevious }
      : { ...target, returnPrevious };
    return this.#requests.submit(
      encodeDelete,
      this.#write(remove, options),
    ) as Promise<DeleteResult>;
  }

  /**
   * Compares, then runs one of two lists of operations, atomically and in one revision.
   *
   * ```ts
   * import { connect } from "./client.ts";
   *
   * await using kv = await connect("127.0.0.1:50051");
   * const { succeeded } = await kv.transact({
   *   compares: [{ key: "seat/12A", version: 0 }],
   *   then: [{ type: "put", key: "seat/12A", value: "ann" }],
   *   else: [{ type: "get", key: "seat/12A" }],
   * });
   * console.log(succeeded ? "booked" : "taken");
   * ```
   *
   * @throws {OutcomeUnknownError} if nobody knows whether it took effect.
   */
  transact(
    transaction: Transaction,
    options: CallOptions = {},
  ): Promise<TransactResult> {
    const write = !onlyReads(transaction);
    return this.#requests.submit(
      encodeTransaction,
      { ...this.#times(options), operation: transaction, write },
    ) as Promise<TransactResult>;
  }

  /**
   * A transaction in the making:
   *
   * ```ts
   * import { connect } from "./client.ts";
   *
   * await using kv = await connect("127.0.0.1:50051");
   * const { ok } = await kv.atomic()
   *   .check("seat/12A", null)
   *   .put("seat/12A", "ann")
   *   .commit();
   * console.log(ok ? "booked" : "taken");
   * ```
   */
  atomic(): Atomic<CallOptions> {
    return new Atomic((transaction, options) =>
      this.transact(transaction, options)
    );
  }

  /**
   * Does several things at once, each for itself and in no certain order, and resolves with their
   * results in the order of the operations. They travel together, which is faster than one after
   * the other; for all or nothing there is {@linkcode Client.atomic}.
   *
   * ```ts
   * import { connect } from "./client.ts";
   *
   * await using kv = await connect("127.0.0.1:50051");
   * const [put, got] = await kv.batch([
   *   { type: "put", key: "user/ann", value: "Ann" },
   *   { type: "get", key: "user/bob" },
   * ]);
   * console.log(put, got);
   * ```
   *
   * @throws {BatchError} when all are settled, if any failed.
   */
  async batch(
    operations: readonly BatchOperation[],
    options: CallOptions = {},
  ): Promise<OperationResult[]> {
    return await batch(this, operations, options);
  }

  /**
   * Reads several keys as they were at one moment; null for each that does not exist.
   *
   * ```ts
   * import { connect } from "./client.ts";
   *
   * await using kv = await connect("127.0.0.1:50051");
   * const [ann, bob] = await kv.getMany(["user/ann", "user/bob"]);
   * console.log(ann?.text(), bob?.text());
   * ```
   */
  async getMany(
    keys: readonly Key[],
    options: GetOptions = {},
  ): Promise<(Entry | null)[]> {
    return await getMany(this, keys, options);
  }

  /**
   * Adds to a number, in the store: nobody has to read it first. A key that does not exist counts
   * as 0. Resolves with the new number; `kv.get` shows it as text, such as `42`.
   *
   * ```ts
   * import { connect } from "./client.ts";
   *
   * await using kv = await connect("127.0.0.1:50051");
   * const sold = await kv.increment("sold");
   * const left = await kv.increment("left", -1);
   * console.log(sold, left);
   * ```
   *
   * @throws {DkvError} VALUE_INVALID if the value is no number, or would be no 64-bit number.
   */
  async increment(
    key: Key,
    by: number | bigint = 1,
    options: CallOptions = {},
  ): Promise<bigint> {
    return toNumber(
      await this.#modify(key, this.atomic().increment(key, by), options),
    );
  }

  /**
   * Lowers a number to `limit` if it is larger, or absent; resolves with the number then.
   *
   * ```ts
   * import { connect } from "./client.ts";
   *
   * await using kv = await connect("127.0.0.1:50051");
   * console.log(`never below ${await kv.min("price/lowest", 250)}`);
   * ```
   */
  async min(
    key: Key,
    limit: number | bigint,
    options: CallOptions = {},
  ): Promise<bigint> {
    return toNumber(
      await this.#modify(key, this.atomic().min(key, limit), options),
    );
  }

  /**
   * Raises a number to `limit` if it is smaller, or absent; resolves with the number then.
   *
   * ```ts
   * import { connect } from "./client.ts";
   *
   * await using kv = await connect("127.0.0.1:50051");
   * console.log(`never above ${await kv.max("price/highest", 250)}`);
   * ```
   */
  async max(
    key: Key,
    limit: number | bigint,
    options: CallOptions = {},
  ): Promise<bigint> {
    return toNumber(
      await this.#modify(key, this.atomic().max(key, limit), options),
    );
  }

  /**
   * Makes a value longer, in the store; a key that does not exist counts as empty.
   *
   * ```ts
   * import { connect } from "./client.ts";
   *
   * await using kv = await connect("127.0.0.1:50051");
   * const { value } = await kv.append("visitors", "ann\n");
   * console.log(new TextDecoder().decode(value));
   * ```
   */
  async append(
    key: Key,
    value: Value,
    options: CallOptions = {},
  ): Promise<ModifyResult> {
    return await this.#modify(key, this.atomic().append(key, value), options);
  }

  /**
   * Iterates over entries in key order, all at one revision, in constant memory.
   *
   * ```ts
   * import { connect } from "./client.ts";
   *
   * await using kv = await connect("127.0.0.1:50051");
   * for await (const entry of kv.list({ prefix: "user/" })) console.log(entry.key);
   * ```
   */
  list(options: ListOptions = {}): AsyncGenerator<Entry, void, undefined> {
    const { timeoutMs = this.#timeoutMs } = options;
    return list(this.#endpoints, { ...options, timeoutMs });
  }

  /**
   * Iterates over the changes of a key, of `{ prefix }` or of `{ range }`, each once and in order,
   * whatever happens to nodes and connections.
   *
   * ```ts
   * import { connect } from "./client.ts";
   *
   * await using kv = await connect("127.0.0.1:50051");
   * const { revision } = await kv.put("user/ann", "Ann");
   * for await (const change of kv.watch({ prefix: "user/", from: revision })) {
   *   console.log(change.type, change.key, change.revision);
   *   break; // Ends the watch, as does an aborted `signal`.
   * }
   * ```
   *
   * The iterator throws a DkvError `REVISION_COMPACTED` if the history it needs is gone.
   */
  watch(options: Target & WatchOptions): Watch {
    if (this.#closed) throw closedError();
    const watch = new Watch(options, {
      ...options,
      endpoints: this.#endpoints,
      onEnd: () => this.#watches.delete(watch),
    });
    this.#watches.add(watch);
    return watch;
  }

  // ---------------------------------------------------------------- coordination

  /**
   * Creates a lease and keeps it alive until it is revoked or disposed of: keys that are put with
   * its id vanish with it, at the latest `ttlMs` after this program has.
   *
   * ```ts
   * import { connect } from "./client.ts";
   *
   * await using kv = await connect("127.0.0.1:50051");
   * await using lease = await kv.lease({ ttlMs: 10_000 });
   * await kv.put("workers/7", "busy", { lease: lease.id });
   * ```
   */
  async lease(options: LeaseOptions): Promise<Lease> {
    const sentMs = performance.now();
    const { lease: id, ttlMs } = await this.grant(options);
    const lease = new Lease({
      keepAlive: (lease, options) => this.keepAlive(lease, options),
      revoke: (lease, options) => this.revoke(lease, options),
      ended: () => this.#leases.delete(lease),
    }, { id, ttlMs, sentMs });
    this.#leases.add(lease);
    return lease;
  }

  /**
   * Waits for a lock and holds it until it is released or disposed of.
   *
   * ```ts
   * import { connect } from "./client.ts";
   *
   * await using kv = await connect("127.0.0.1:50051");
   * await using lock = await kv.lock("jobs/nightly");
   * const done = await kv.atomic().guard(lock.guard).put("report", "…").commit();
   * console.log(lock.token, done.ok);
   * ```
   *
   * A holder that stood still for longer than `ttlMs` has lost its lock and may not know yet: so
   * put `lock.guard` into what the lock protects, and stop when `lock.signal` is aborted.
   *
   * @throws {DkvError} DEADLINE_EXCEEDED if it was not free within `waitMs`.
   */
  async lock(name: string, options: LockOptions = {}): Promise<Lock> {
    return await acquire(this, name, options);
  }

  /**
   * An election among programs: `campaign` to lead, `observe` who does.
   *
   * ```ts
   * import { connect } from "./client.ts";
   *
   * await using kv = await connect("127.0.0.1:50051");
   * await using leadership = await kv.election("leader").campaign("worker 7");
   * console.log(leadership.token);
   * ```
   */
  election(name: string): Election {
    return new Election(name, this);
  }

  // ---------------------------------------------------------------- leases

  /**
   * Creates a lease: keys attached to it vanish when it is revoked or runs out. Nothing renews it
   * but `keepAlive`; {@linkcode Client.lease} does that by itself.
   *
   * ```ts
   * import { connect } from "./client.ts";
   *
   * await using kv = await connect("127.0.0.1:50051");
   * const { lease } = await kv.grant({ ttlMs: 60_000 });
   * await kv.put("session/7", "ann", { lease });
   * await kv.keepAlive(lease);
   * const { remainingMs, keys } = await kv.timeToLive(lease, { withKeys: true });
   * console.log(remainingMs, keys.length);
   * await kv.revoke(lease);
   * ```
   */
  async grant(
    options: GrantOptions,
  ): Promise<{ lease: bigint; ttlMs: number }> {
    return await this.#leasing.grant(options, this.#times(options));
  }

  /** Ends a lease and deletes its keys, in one revision. */
  async revoke(lease: bigint, options: CallOptions = {}): Promise<void> {
    await this.#leasing.revoke(lease, this.#times(options));
  }

  /**
   * Renews a lease once.
   *
   * @throws {DkvError} LEASE_NOT_FOUND if it has ended.
   */
  async keepAlive(
    lease: bigint,
    options: CallOptions = {},
  ): Promise<{ ttlMs: number }> {
    return await this.#leasing.keepAlive(lease, this.#times(options));
  }

  /**
   * Tells how long a lease still has.
   *
   * @throws {DkvError} LEASE_NOT_FOUND if it has ended.
   */
  async timeToLive(
    lease: bigint,
    options: CallOptions & { readonly withKeys?: boolean } = {},
  ): Promise<LeaseStatus> {
    return await this.#leasing.timeToLive(lease, {
      withKeys: false,
      ...options,
      ...this.#times(options),
    });
  }

  // ---------------------------------------------------------------- cluster

  /**
   * Forgets history below a revision; current values stay. Nodes do it by themselves after a while
   * (`historyMs`), so this is for who knows that nobody needs it any more.
   *
   * ```ts
   * import { connect } from "./client.ts";
   *
   * await using kv = await connect("127.0.0.1:50051");
   * const { revision } = await kv.put("user/ann", "Ann");
   * await kv.compact(revision);
   * ```
   */
  async compact(revision: number, options: CallOptions = {}): Promise<void> {
    await this.#endpoints.change(
      { method: "Compact", request: { revision }, done: "REVISION_COMPACTED" },
      this.#times(options),
    );
  }

  /**
   * Asks a node how it is; without an address the one this client talks to.
   *
   * ```ts
   * import { connect } from "./client.ts";
   *
   * await using kv = await connect("127.0.0.1:50051");
   * for (const address of kv.endpoints) {
   *   const { nodeId, role, revision } = await kv.status(address);
   *   console.log(nodeId, role, revision);
   * }
   * ```
   *
   * @throws {DkvError} UNREACHABLE if it does not answer.
   */
  async status(
    address?: string,
    options: CallOptions = {},
  ): Promise<NodeStatus> {
    const ask = (endpoint: Endpoint, attemptMs: number) =>
      endpoint.call({
        service: "Cluster",
        method: "Status",
        request: {},
        timeoutMs: attemptMs,
        signal: options.signal,
      });
    const times = this.#times(options);
    if (address === undefined) {
      return toStatus(
        await this.#endpoints.retry(
          (endpoint, { attemptMs }) => ask(endpoint, attemptMs),
          times,
        ),
      );
    }
    const endpoint = this.#endpoints.all.find((endpoint) =>
      endpoint.address === address
    );
    if (endpoint === undefined) {
      throw new DkvError(
        "UNREACHABLE",
        `${address} is not among the endpoints of this client: ${
          this.endpoints.join(", ")
        }`,
      );
    }
    try {
      times.signal?.throwIfAborted();
      return toStatus(await ask(endpoint, times.timeoutMs));
    } catch (error) {
      throw times.signal?.aborted ? times.signal.reason : error;
    }
  }

  /**
   * Lets another node lead, or the one that is furthest, and resolves with the id of the new leader.
   *
   * ```ts
   * import { connect } from "./client.ts";
   *
   * await using kv = await connect("127.0.0.1:50051");
   * console.log(`${await kv.transferLeadership()} leads`);
   * ```
   *
   * @throws {DkvError} MEMBERSHIP_REFUSED if there is no such voter; DEADLINE_EXCEEDED if leadership
   * did not move.
   */
  async transferLeadership(
    nodeId = "",
    options: CallOptions = {},
  ): Promise<string> {
    const answer = await this.#endpoints.retry(
      (endpoint, { attemptMs }) =>
        endpoint.call({
          service: "Cluster",
          method: "TransferLeadership",
          request: { nodeId },
          timeoutMs: attemptMs,
          signal: options.signal,
        }),
      this.#times(options),
    );
    return String(answer["leader"]);
  }

  /** Ends everything: operations that are not settled reject with CANCELLED or as unknown. */
  close(): Promise<void> {
    if (this.#closed) return Promise.resolve();
    this.#closed = true;
    this.#requests.close();
    for (const watch of [...this.#watches]) watch.fail(closedError());
    for (const lease of [...this.#leases]) lease.fail(closedError());
    this.#endpoints.close();
    return Promise.resolve();
  }

  /** Ends everything, as `close` does. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #modify(
    key: Key,
    atomic: Atomic<CallOptions>,
    options: CallOptions,
  ): Promise<ModifyResult> {
    const { revision, results: [result] } = await atomic.commit(options);
    if (result?.type === "modify") return result;
    // The answer got lost, and was too big to be remembered: what it said can still be read.
    const entry = await this.get(key, { ...options, revision });
    const { version = 0, value = new Uint8Array(0) } = entry ?? {};
    return { revision, version, value, previous: null };
  }

  #times(
    { timeoutMs = this.#timeoutMs, signal }: CallOptions,
  ): { timeoutMs: number; signal: AbortSignal | undefined } {
    return { timeoutMs, signal };
  }

  #write<Operation>(
    operation: Operation,
    { timeoutMs = this.#timeoutMs, signal }: CallOptions,
  ): SubmitOptions<Operation> {
    return { operation, timeoutMs, signal, write: true };
  }
}

function toNumber({ value }: ModifyResult): bigint {
  return BigInt(new TextDecoder().decode(value));
}

function isKey(target: Key | Keys): target is Key {
  return typeof target === "string" || target instanceof Uint8Array;
}
