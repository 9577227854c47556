/**
 * Elections among programs: one leads, the others wait, everyone can see who leads. Used by
 * `client.ts`. (How the cluster itself elects its leader is in `election.ts`.)
 *
 * @module
 */

import type { Entry } from "./answers.ts";
import {
  Candidacy,
  Holding,
  type HoldingStore,
  prefixOf,
  type QueueStore,
  type WaitOptions,
} from "./candidacy.ts";
import { DkvError } from "./errors.ts";
import type { CallOptions, Value } from "./operations.ts";

/** How to stand for election. */
export type CampaignOptions = WaitOptions;

/**
 * One election. Get one with `Client.election`.
 *
 * ```ts
 * import { connect } from "./client.ts";
 *
 * await using kv = await connect("127.0.0.1:50051");
 * const election = kv.election("leader");
 * await using leadership = await election.campaign("worker 7");
 * console.log(`won with token ${leadership.token}`);
 * for await (const leader of election.observe()) {
 *   console.log(leader === null ? "nobody leads" : `${leader.text()} leads`);
 *   break;
 * }
 * ```
 */
export class Election {
  /** What is campaigned for. */
  readonly name: string;
  readonly #store: HoldingStore;

  /**
   * Use `Client.election`.
   *
   * @internal
   */
  constructor(name: string, store: HoldingStore) {
    this.name = name;
    this.#store = store;
  }

  /**
   * Stands for election and resolves when it is won. `value` is what everyone sees of the leader.
   *
   * @throws {DkvError} DEADLINE_EXCEEDED if it was not won within `waitMs`.
   */
  async campaign(
    value: Value,
    options: CampaignOptions = {},
  ): Promise<Leadership> {
    const { name } = this;
    const store = this.#store;
    const place = await Candidacy.win(store, { name, value, ...options });
    return new Leadership(store, { name, place });
  }

  /** The leader's entry, with what it said of itself as the value; null if nobody leads. */
  async leader(options: CallOptions = {}): Promise<Entry | null> {
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
   * nobody leads. Leaders that followed each other quickly may be passed over. `timeoutMs` is for
   * each look at the leader, not for all of it.
   */
  async *observe(
    options: CallOptions = {},
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

/**
 * A won election, until it is resigned or lost.
 *
 * ```ts
 * import { connect } from "./client.ts";
 *
 * await using kv = await connect("127.0.0.1:50051");
 * const leadership = await kv.election("leader").campaign("worker 7");
 * await leadership.proclaim("worker 7, at work");
 * if (!leadership.signal.aborted) {
 *   await kv.atomic().guard(leadership.guard).put("plan", "…").commit();
 * }
 * await leadership.resign();
 * ```
 */
export class Leadership extends Holding {
  readonly #store: QueueStore;

  /**
   * Use {@linkcode Election.campaign}.
   *
   * @internal
   */
  constructor(
    store: QueueStore,
    { name, place }: { name: string; place: Candidacy },
  ) {
    super(name, place);
    this.#store = store;
  }

  /**
   * Says something new to those who observe.
   *
   * @throws {DkvError} LEASE_NOT_FOUND if the leadership was lost.
   */
  async proclaim(value: Value, options: CallOptions = {}): Promise<void> {
    const { succeeded } = await this.#store.transact({
      compares: [this.guard],
      then: [{ type: "put", key: this.key, value, lease: this.lease }],
    }, options);
    if (succeeded) return;
    const text = `The leadership of ${this.name} is lost`;
    throw new DkvError("LEASE_NOT_FOUND", text);
  }

  /** Steps down: the next in line leads. */
  async resign(options: CallOptions = {}): Promise<void> {
    await this.leave(options);
  }
}
