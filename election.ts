/**
 * When to campaign and how the campaign goes: the election timeout, drawn at random from a seed, and
 * the votes counted so far. Used by `replicate.ts`.
 *
 * @module
 */

import { type VoteResult, voteResult } from "./members.ts";
import type { Configuration, MemberId } from "./message.ts";

/** One replica's clock and ballot box, the same ones for every campaign. */
export class Election {
  readonly #ticksMin: number;
  /** Of the election or pre-election under way. */
  readonly #votes = new Map<MemberId, boolean>();
  /** Ticks since the leader was heard, a vote was given or a campaign began. */
  #elapsed = 0;
  /** In [ticksMin, 2 * ticksMin). */
  #timeout = 0;
  #randomState: number;

  constructor(options: { seed: number; id: MemberId; ticksMin: number }) {
    this.#ticksMin = options.ticksMin;
    this.#randomState = mixSeed(options.seed, options.id);
    this.#drawTimeout();
  }

  /** A leader that was heard this recently is alive: its followers depose it for nobody. */
  get isRecent(): boolean {
    return this.#elapsed < this.#ticksMin;
  }

  /** Time passes; true if it is time to campaign. */
  tick(): boolean {
    this.#elapsed += 1;
    return this.#elapsed >= this.#timeout;
  }

  /** The leader was heard, or a vote was given: starts waiting afresh. */
  wait(): void {
    this.#elapsed = 0;
  }

  /** A new role: forgets the votes, and draws another timeout, so that split votes do not repeat (Raft paper, 5.2). */
  reset(): void {
    this.#votes.clear();
    this.#elapsed = 0;
    this.#drawTimeout();
  }

  /** True if the member has voted, either way. */
  hasVoteOf(id: MemberId): boolean {
    return this.#votes.has(id);
  }

  /** Counts a member's first vote; says what the votes have come to. */
  count(
    id: MemberId,
    options: { granted: boolean; configuration: Configuration },
  ): VoteResult {
    if (!this.#votes.has(id)) this.#votes.set(id, options.granted);
    return voteResult(options.configuration, this.#votes);
  }

  #drawTimeout(): void {
    // mulberry32: 32 bits of state, good enough to tell a few replicas apart.
    this.#randomState = (this.#randomState + 0x6d2b79f5) | 0;
    let x = this.#randomState;
    x = Math.imul(x ^ (x >>> 15), x | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    this.#timeout = this.#ticksMin + ((x ^ (x >>> 14)) >>> 0) % this.#ticksMin;
  }
}

/** Members that were given the same seed must not draw the same timeouts. */
function mixSeed(seed: number, id: MemberId): number {
  let hash = seed | 0;
  for (let i = 0; i < id.length; i += 1) {
    hash = Math.imul(hash ^ id.charCodeAt(i), 0x01000193);
  }
  return hash;
}
