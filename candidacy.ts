/**
 * A place in a queue of candidates, of whom the oldest has the say: the ground of locks and
 * elections. After etcd's `client/v3/concurrency`. Used by `lock.ts` and `leadership.ts`.
 *
 * ```text
 *   jobs/nightly/00c1…   created at revision 40   holds
 *   jobs/nightly/7f02…   created at revision 43   watches the key created at 40
 *   jobs/nightly/1b9e…   created at revision 51   watches the key created at 43
 * ```
 *
 * Each candidate has one key, named after its lease and attached to it, and watches only the one
 * before it, so the end of a holder wakes one candidate and not all. The revision that created the
 * key is the fencing token: it grows from holder to holder, and a write that compares it cannot be
 * made by one who has lost its place.
 *
 * @module
 */

import type { Change, Entry, TransactResult } from "./answers.ts";
import { DkvError } from "./errors.ts";
import type { Lease } from "./heldlease.ts";
import type {
  CallOptions,
  Compare,
  Key,
  Keys,
  Target,
  Transaction,
  Value,
} from "./operations.ts";
import { after } from "./timer.ts";

/** What a queue needs of the store. */
export interface QueueStore {
  get(key: Key, options?: { signal?: AbortSignal }): Promise<Entry | null>;
  list(
    options: Keys & CallOptions & { keysOnly?: boolean },
  ): AsyncIterable<Entry>;
  transact(
    transaction: Transaction,
    options?: CallOptions,
  ): Promise<TransactResult>;
  watch(
    options: Target & CallOptions & { noPuts?: boolean },
  ): AsyncIterableIterator<Change> & { started(): Promise<number> };
}

/** What those who want the first place need of it besides. */
export interface HoldingStore extends QueueStore {
  lease(options: { ttlMs: number; signal?: AbortSignal }): Promise<Lease>;
}

/** How to wait for the first place, and for how long to hold it without a sign of life. */
export interface WaitOptions {
  /** How long the place outlives a holder that vanished. Default: 10,000; at least 1,000. */
  readonly ttlMs?: number;
  /** Give up waiting after this long. Default: never. */
  readonly waitMs?: number;
  /** Give up waiting when this is aborted; the call then rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

/** Which queue to enter, and how. */
interface CandidacyOptions extends WaitOptions {
  /** The queue's name; its keys are `name/…`. */
  readonly name: string;
  /** What others see as the value of the candidate's key. */
  readonly value: Value;
}

const TTL_MS = 10_000;

/** One candidate. */
export class Candidacy {
  readonly key: string;
  /** The fencing token: the revision that created the key. */
  readonly token: number;
  readonly #store: QueueStore;
  readonly #name: string;
  readonly #lease: Lease;
  readonly #deleted = new AbortController();
  /** Ends the guarding of a place that is given up. */
  readonly #left = new AbortController();
  readonly #signal: AbortSignal;

  private constructor(
    store: QueueStore,
    { name, lease, key, token }: {
      name: string;
      lease: Lease;
      key: string;
      token: number;
    },
  ) {
    this.#store = store;
    this.#name = name;
    this.#lease = lease;
    this.key = key;
    this.token = token;
    this.#signal = AbortSignal.any([lease.signal, this.#deleted.signal]);
  }

  /**
   * Enters at the end of the queue, with a lease of its own, and resolves when nobody is before this
   * candidate any more.
   *
   * @throws the reason of the signal, or that of the loss; DkvError DEADLINE_EXCEEDED after `waitMs`.
   */
  static async win(
    store: HoldingStore,
    { name, value, ttlMs = TTL_MS, waitMs = Infinity, signal }:
      CandidacyOptions,
  ): Promise<Candidacy> {
    const late = new AbortController();
    const timer = after(waitMs, () => {
      const text = `${name} was not free within ${waitMs} ms`;
      late.abort(new DkvError("DEADLINE_EXCEEDED", text));
    });
    const either = signal === undefined
      ? late.signal
      : AbortSignal.any([signal, late.signal]);
    try {
      const lease = await store.lease({ ttlMs, signal: either });
      return await Candidacy.#enter(store, {
        name,
        value,
        lease,
        signal: either,
      });
    } catch (error) {
      // What is unknown then is only whether there was a place, which ends with its lease.
      throw either.aborted ? either.reason : error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** If it fails, the lease is given back. */
  static async #enter(
    store: QueueStore,
    { name, value, lease, signal }: {
      name: string;
      value: Value;
      lease: Lease;
      signal: AbortSignal;
    },
  ): Promise<Candidacy> {
    try {
      const key = prefixOf(name) + lease.id.toString(16).padStart(16, "0");
      const { revision } = await store.transact({
        then: [{ type: "put", key, value, lease: lease.id }],
      }, { signal: AbortSignal.any([lease.signal, signal]) });
      const place = new Candidacy(store, { name, lease, key, token: revision });
      await place.#first(signal);
      return place;
    } catch (error) {
      await giveBack(lease, error);
      // As there: with its lease the place is lost, whatever became of the put.
      throw lease.signal.aborted && !signal.aborted
        ? lease.signal.reason
        : error;
    }
  }

  /** Aborted when the place is lost: with its lease, or because somebody deleted its key. */
  get signal(): AbortSignal {
    return this.#signal;
  }

  /** Holds as long as the place is this candidate's: put it among the comparisons of a write. */
  get guard(): Compare {
    return { key: this.key, createRevision: this.token };
  }

  /** What the candidate's key lives and dies with. */
  get lease(): bigint {
    return this.#lease.id;
  }

  /** Gives the place up. */
  async leave(options: CallOptions): Promise<void> {
    this.#left.abort();
    await this.#lease.revoke(options);
  }

  async #first(signal: AbortSignal): Promise<void> {
    const either = AbortSignal.any([this.signal, signal]);
    while (true) {
      const before = await this.#before(either);
      if (before === null) break;
      await ended(this.#store, before, either);
    }
    void this.#guard();
  }

  /** The youngest candidate that is older; null if there is none. */
  async #before(signal: AbortSignal): Promise<Entry | null> {
    let before: Entry | null = null;
    let isThere = false;
    const keys = { prefix: prefixOf(this.#name), keysOnly: true, signal };
    for await (const entry of this.#store.list(keys)) {
      const { createRevision } = entry;
      if (createRevision === this.token) isThere = true;
      if (createRevision >= this.token) continue;
      if (before === null || createRevision > before.createRevision) {
        before = entry;
      }
    }
    if (!isThere) throw this.#lost();
    return before;
  }

  /** Notices when the key is deleted, by whomever. */
  async #guard(): Promise<void> {
    const own = { key: this.key, createRevision: this.token };
    const signal = AbortSignal.any([this.signal, this.#left.signal]);
    try {
      await ended(this.#store, own, signal);
      this.#deleted.abort(this.#lost());
    } catch (error) {
      // A client that was closed, say: nobody tells any more whether the place is still there.
      if (!signal.aborted) this.#deleted.abort(error);
    }
  }

  #lost(): DkvError {
    return new DkvError(
      "LEASE_NOT_FOUND",
      `The place in ${this.#name} is lost: its key ${this.key} was deleted`,
    );
  }
}

/** The first place in a queue, as its holder sees it: a lock, a leadership. */
export abstract class Holding implements AsyncDisposable {
  /** What is locked or led. */
  readonly name: string;
  readonly #place: Candidacy;

  /**
   * Use `Client.lock` or `Election.campaign`.
   *
   * @internal
   */
  constructor(name: string, place: Candidacy) {
    this.name = name;
    this.#place = place;
  }

  /** The fencing token: greater than that of every holder before. */
  get token(): number {
    return this.#place.token;
  }

  /** The holder's key in the store. */
  get key(): string {
    return this.#place.key;
  }

  /** The lease that the holder's key lives and dies with. */
  get lease(): bigint {
    return this.#place.lease;
  }

  /** Aborted when the place is lost. The work that depends on it must then stop. */
  get signal(): AbortSignal {
    return this.#place.signal;
  }

  /**
   * A comparison that holds as long as the place does. A transaction that contains it cannot take
   * effect after the place was lost, however late it arrives.
   */
  get guard(): Compare {
    return this.#place.guard;
  }

  /** Gives the place up. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.leave();
  }

  /** @internal */
  protected async leave(options: CallOptions = {}): Promise<void> {
    await this.#place.leave(options);
  }
}

/** What the keys of a queue begin with. */
export function prefixOf(name: string): string {
  return `${name}/`;
}

/** Resolves when the key that was created at this revision does not exist any more. */
async function ended(
  store: QueueStore,
  { key, createRevision }: Pick<Entry, "key" | "createRevision">,
  signal: AbortSignal,
): Promise<void> {
  while (true) {
    const watch = store.watch({ key, noPuts: true, signal });
    try {
      // First open, then look: what happens in between is not missed.
      await watch.started();
      const entry = await store.get(key, { signal });
      if (entry?.createRevision !== createRevision) return;
      await watch.next();
      return;
    } catch (error) {
      // Cut off for so long that the history is gone: look again.
      const isGone = error instanceof DkvError &&
        error.code === "REVISION_COMPACTED";
      if (!isGone) throw error;
    } finally {
      await watch.return?.();
    }
  }
}

/** How long one that gives up waiting waits for the cluster to hear of it. */
const GIVE_BACK_MS = 1000;

/** A lease that cannot be given back ends by itself; the first error is the one to tell. */
async function giveBack(lease: Lease, error: unknown): Promise<void> {
  try {
    await lease.revoke({ timeoutMs: GIVE_BACK_MS });
  } catch (second) {
    if (!(second instanceof DkvError)) {
      throw new AggregateError([error, second]);
    }
  }
}
