/**
 * The linearizable reads of this node's clients: each waits until the leader has confirmed an
 * index and this replica has applied it (ReadIndex, Raft thesis section 6.4). Used by `group.ts`.
 *
 * ```text
 *   add ─▶ waiting ──start(id)──▶ asked ──confirm(id, index)──▶ confirmed ──applied──▶ done(null)
 *             ▲                     │
 *             └─────────────────────┘ lost, or no answer in time: asked again under a new id
 * ```
 *
 * @module
 */

import { DkvError } from "./errors.ts";
import type { Index } from "./message.ts";
import { SlidingMap } from "./slidingmap.ts";

/** Called once: with null when this replica's state may be read, or with the reason why not. */
export type ReadDone = (error: DkvError | null) => void;

interface Query {
  readonly done: ReadDone;
  readonly deadlineTick: number;
}

interface Round {
  readonly queries: Query[];
  readonly startedTick: number;
}

/** Every linearizable read of this node's clients that is not answered. */
export class Queries {
  readonly #queriesMax: number;
  /** Not asked yet; all of them share the next round. */
  #waiting: Query[] = [];
  /** Asked, by the id of their round. */
  readonly #rounds = new SlidingMap<Round>();
  /** Confirmed for an index that is not applied yet. */
  #confirmed: { index: Index; queries: Query[] }[] = [];
  #lastId: number;
  #size = 0;

  constructor(options: { queriesMax: number; firstId: number }) {
    this.#queriesMax = options.queriesMax;
    this.#lastId = options.firstId;
  }

  get size(): number {
    return this.#size;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  /** @throws {DkvError} OVERLOADED if too many wait already. */
  add(done: ReadDone, deadlineTick: number): void {
    if (this.#size >= this.#queriesMax) {
      throw new DkvError(
        "OVERLOADED",
        `Too many reads wait on this node: ${this.#size}, at most ${this.#queriesMax}`,
      );
    }
    this.#size++;
    this.#waiting.push({ done, deadlineTick });
  }

  /** Starts a round with everything that waits; its id was never used before (raft-pitfalls R2). */
  start(tick: number): number {
    const id = ++this.#lastId;
    this.#rounds.set(id, { queries: this.#waiting, startedTick: tick });
    this.#waiting = [];
    return id;
  }

  /** The round's reads may be answered once `index` is applied. */
  confirm(id: number, index: Index): void {
    const round = this.#rounds.get(id);
    if (round === undefined) return;
    this.#rounds.delete(id);
    this.#confirmed.push({ index, queries: round.queries });
  }

  /** The round will not be confirmed: its reads wait for the next one. */
  lose(id: number): void {
    const round = this.#rounds.get(id);
    if (round === undefined) return;
    this.#rounds.delete(id);
    this.#waiting = [...round.queries, ...this.#waiting];
  }

  /** Loses the rounds that started before `tick`: their messages, or the answers, were lost. */
  loseBefore(tick: number): void {
    const lost: number[] = [];
    this.#rounds.forEach(({ startedTick }, id) => {
      if (startedTick < tick) lost.push(id);
    });
    for (const id of lost) this.lose(id);
  }

  /** Answers what is confirmed up to the applied index. */
  applied(index: Index): void {
    if (this.#confirmed.length === 0) return;
    const ready = this.#confirmed.filter((group) => group.index <= index);
    this.#confirmed = this.#confirmed.filter((group) => group.index > index);
    for (const { queries } of ready) {
      for (const query of queries) this.#end(query, null);
    }
  }

  /** Gives up on those whose deadline has come. */
  expire(tick: number): void {
    if (this.#size === 0) return;
    this.#waiting = this.#expired(this.#waiting, tick);
    this.#rounds.forEach((round, id) => {
      const queries = this.#expired(round.queries, tick);
      this.#rounds.set(id, { ...round, queries });
    });
    this.#confirmed = this.#confirmed.map(({ index, queries }) => ({
      index,
      queries: this.#expired(queries, tick),
    }));
  }

  /** Ends all of them: the node stops. */
  close(): void {
    const error = new DkvError("SHUTTING_DOWN", "The node is stopping");
    const all = [
      ...this.#waiting,
      ...this.#rounds.values().flatMap(({ queries }) => queries),
      ...this.#confirmed.flatMap(({ queries }) => queries),
    ];
    this.#waiting = [];
    this.#rounds.clear();
    this.#confirmed = [];
    for (const query of all) this.#end(query, error);
  }

  #expired(queries: Query[], tick: number): Query[] {
    if (!queries.some((query) => query.deadlineTick <= tick)) return queries;
    return queries.filter((query) => {
      if (query.deadlineTick > tick) return true;
      this.#end(
        query,
        new DkvError(
          "NO_LEADER",
          "The read could not be confirmed before its deadline: the cluster has no leader that " +
            "this node can reach. A serializable read is answered without one",
        ),
      );
      return false;
    });
  }

  #end(query: Query, error: DkvError | null): void {
    this.#size--;
    query.done(error);
  }
}
