/**
 * Linearizable reads without the log (Raft thesis, 6.4): the leader's rounds of confirmation and
 * the questions that a follower has open at its leader. Used by `leader.ts` and `replicate.ts`.
 *
 * A read may be answered at the commit index of the moment it arrived, once a majority has confirmed, after
 * that moment, that this leader still leads. All reads of one turn share a round:
 *
 * ```text
 *   add a, add b | flush: round 7 -> heartbeats | add c | flush: round 8 -> heartbeats
 *   a majority answered 8: a, b and c are ready, since an answer to 8 confirms 7 as well
 * ```
 *
 * A follower's question confirms as its answer would: of three nodes, it and the leader are enough.
 *
 * @module
 */

import { assert } from "./errors.ts";
import { committedIndex } from "./members.ts";
import type { Configuration, Index, MemberId } from "./message.ts";

/** More reads than this wait at a leader or for a leader at no time; the next ones are lost at once. */
export const READS_MAX = 16_384;

/** A read that waits at the leader. */
export interface Read {
  /** The follower that asked; null if it is the leader itself. */
  readonly from: MemberId | null;
  readonly id: number;
}

/** A read that may be answered when `index` is applied. */
export interface ReadAt extends Read {
  /** The leader's commit index when the read arrived, not any later one (raft-pitfalls R3). */
  readonly index: Index;
}

/** The leader's side. Lives as long as one leadership, so late answers cannot meet it in another one. */
export class ReadRounds {
  /** The newest round; only rises, so no answer can confirm a read that came after it (raft-pitfalls R2). */
  #round = 0;
  /** Wait for an entry of the own term to be committed (raft-pitfalls R1). */
  #held: Read[] = [];
  /** Arrived since the last round began. */
  #open: ReadAt[] = [];
  /** Rising rounds. */
  #waiting: { round: number; reads: ReadAt[] }[] = [];
  #count = 0;
  /** The newest round that each member has answered. */
  readonly #answered = new Map<MemberId, number>();

  get round(): number {
    return this.#round;
  }
  /** How many reads wait. */
  get count(): number {
    return this.#count;
  }

  /** Takes a read in; `index` is null while no entry of the own term is committed. False if there are too many. */
  add(read: Read, index: Index | null): boolean {
    if (this.#count >= READS_MAX) return false;
    this.#count += 1;
    if (index === null) this.#held.push(read);
    else this.#open.push({ ...read, index });
    return true;
  }

  /** An entry of the own term is committed at `index`: the held reads can take part in the next round. */
  release(index: Index): void {
    for (const read of this.#held) this.#open.push({ ...read, index });
    this.#held = [];
  }

  /** Begins a round if there are reads for one; true if heartbeats must carry it now. */
  begin(): boolean {
    if (this.#open.length === 0) return false;
    this.#round += 1;
    this.#waiting.push({ round: this.#round, reads: this.#open });
    this.#open = [];
    return true;
  }

  /** A member has answered a heartbeat of `round`. */
  answered(member: MemberId, round: number): void {
    assert(
      round <= this.#round,
      `Round ${round} answered, but the newest is ${this.#round}`,
    );
    if (round > (this.#answered.get(member) ?? 0)) {
      this.#answered.set(member, round);
    }
  }

  /** Takes out the reads that a majority has confirmed; the leader `id` confirms its own rounds. */
  takeConfirmed(configuration: Configuration, id: MemberId): ReadAt[] {
    if (this.#waiting.length === 0) return [];
    const confirmed = committedIndex(
      configuration,
      (member) => member === id ? this.#round : this.#answered.get(member) ?? 0,
    );
    const after = this.#waiting.findIndex((w) => w.round > confirmed);
    const taken = this.#waiting
      .splice(0, after === -1 ? this.#waiting.length : after)
      .flatMap((waiting) => waiting.reads);
    this.#count -= taken.length;
    return taken;
  }

  /** Takes out every read: the leadership is over. */
  takeAll(): Read[] {
    const all = [
      ...this.#waiting.flatMap((waiting) => waiting.reads),
      ...this.#open,
      ...this.#held,
    ];
    this.#waiting = [];
    this.#open = [];
    this.#held = [];
    this.#count = 0;
    return all;
  }
}

/** The follower's side: reads that were passed on to the leader. */
export class ReadForwards {
  /** In order of arrival: id to the tick it was sent at. */
  readonly #sent = new Map<number, number>();
  #ticks = 0;

  /** Notes a read; false if there are too many. */
  add(id: number): boolean {
    if (this.#sent.size >= READS_MAX) return false;
    assert(!this.#sent.has(id), `Read ${id} is waiting already`);
    this.#sent.set(id, this.#ticks);
    return true;
  }

  /** Takes a read out; false if nobody waits for it any more. */
  take(id: number): boolean {
    return this.#sent.delete(id);
  }

  /** Time passes: takes out the reads that have waited for more than `ticksMax`; message or answer was lost. */
  tick(ticksMax: number): number[] {
    this.#ticks += 1;
    const late: number[] = [];
    for (const [id, since] of this.#sent) {
      if (this.#ticks - since <= ticksMax) break;
      late.push(id);
    }
    for (const id of late) this.#sent.delete(id);
    return late;
  }

  /** Takes out every read: the leader is gone. */
  takeAll(): number[] {
    const all = [...this.#sent.keys()];
    this.#sent.clear();
    return all;
  }
}
