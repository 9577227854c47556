/**
 * Elections among programs: one leads, the others wait, everyone can see who leads. Used by
 * `client.ts`. (How the cluster itself elects its leader is in `election.ts`.)
 *
 * @module
 */

import type { Entry } from "./answers.ts";
import { Candidacy, Holding, prefixOf, type QueueStore } from "./candidacy.ts";
import { DkvError } from "./errors.ts";
import type { Lease } from "./heldlease.ts";
import type { Value } from "./operations.ts";

/**
 * What an election needs of the store.
 *
 * @internal
 */
export interface ElectionStore extends QueueStore {
  lease(options: { ttlMs: number; signal?: AbortSignal }): Promise<Lease>;
}

/** How to stand for election. */
export interface CampaignOptions {
  /** How long the leadership outlives a leader that vanished. Default: 10,000; at least 1,000. */
  readonly ttlMs?: number;
  /** Give up waiting when this is aborted; the call then rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

const TTL_MS = 10_000;

/** One election. Get one with `Client.election`. */
export class Election {
  /** What is campaigned for. */
  readonly name: string;
  readonly #store: ElectionStore;

  /**
   * Use `Client.election`.
   *
   * @internal
   */
  constructor(name: string, store: ElectionStore) {
    this.name = name;
    this.#store = store;
  }

  /** Stands for election and resolves when it is won. `value` is what everyone sees of the leader. */
  async campaign(
    value: Value,
    options: CampaignOptions = {},
  ): Promise<Leadership> {
    const { ttlMs = TTL_MS, signal } = options;
    const lease = await this.#store.lease({
      ttlMs,
      ...signal === undefined ? {} : { signal },
    });
    const { name } = this;
    const store = this.#store;
    const place = await Candidacy.win(store, { name, value, lease, signal });
    return new Leadership({ name, place, lease: lease.id, store });
  }

  /** The leader's entry, with what it said of itself as the value; null if nobody leads. */
  async leader(
    options: { readonly signal?: AbortSignal } = {},
  ): Promise<Entry | null> {
    let leader: Entry | null = null;
    const keys = { prefix: prefixOf(this.name), ...options };
    for await (const entry of this.#store.list(keys)) {
      if (leader === null || entry.createRevision < leader.createRevision) {
        leader = entry;
      }
    }
    return leader;
  }

  /**
   * The leader now, and again whenever that changes or the leader says something new; null while
   * nobody leads. Leaders that followed each other quickly may be passed over.
   */
  async *observe(
    options: { readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<Entry | null, void, undefined> {
    const target = { prefix: prefixOf(this.name), ...options };
    const changes = this.#store.watch(target);
    try {
      await changes.started();
      let leader = await this.leader(options);
      yield leader;
      for await (const { key, revision } of changes) {
        // Others come and go without being asked, and what was read may be newer than a change.
        const concerns = leader === null || key === leader.key;
        if (!concerns || revision <= (leader?.modRevision ?? 0)) continue;
        const next = await this.leader(options);
        if (next?.modRevision === leader?.modRevision) continue;
        leader = next;
        yield leader;
      }
    } finally {
      await changes.return?.();
    }
  }
}

/** A won election, until it is resigned or lost. */
export class Leadership extends Holding {
  readonly #lease: bigint;
  readonly #store: QueueStore;

  /**
   * Use {@linkcode Election.campaign}.
   *
   * @internal
   */
  constructor(
    { name, place, lease, store }: {
      name: string;
      place: Candidacy;
      lease: bigint;
      store: QueueStore;
    },
  ) {
    super(name, place);
    this.#lease = lease;
    this.#store = store;
  }

  /**
   * Says something new to those who observe.
   *
   * @throws {DkvError} LEASE_NOT_FOUND if the leadership was lost.
   */
  async proclaim(value: Value): Promise<void> {
    const { succeeded } = await this.#store.transact({
      compares: [this.guard],
      then: [{ type: "put", key: this.key, value, lease: this.#lease }],
    });
    if (succeeded) return;
    const text = `The leadership of ${this.name} is lost`;
    throw new DkvError("LEASE_NOT_FOUND", text);
  }

  /** Steps down: the next in line leads. */
  async resign(): Promise<void> {
    await this[Symbol.asyncDispose]();
  }
}
