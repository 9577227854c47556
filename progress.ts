/**
 * What a leader knows of one follower: how far its log agrees, what to send next, and how much is
 * under way. Used by `leader.ts` alone. The three states are those of etcd's raft:
 *
 * ```text
 *             rejected, unreachable
 *   replicate ---------------------> probe ---- entries are gone ----> snapshot
 *       ^                             | ^                                 |
 *       +------- acknowledged --------+ +------- sent, or failed ---------+
 * ```
 *
 * @module
 */

import { assert } from "./errors.ts";
import type { Index } from "./message.ts";

/**
 * - `probe`: where the logs agree is not known; one append at a time looks for it.
 * - `replicate`: known; appends are sent ahead of their acknowledgements.
 * - `snapshot`: what the follower needs is no longer in the log; no appends until a snapshot arrived.
 */
export type ProgressState = "probe" | "replicate" | "snapshot";

/** How much may be under way to one follower (raft-pitfalls F1). */
export interface InflightLimits {
  readonly messagesMax: number;
  readonly bytesMax: number;
}

/** Sizes in the order of the index that settles them: appends under way, or entries not yet committed. */
export class Inflights {
  /** Rising indexes; those before #head are settled. */
  #queue: { index: Index; bytes: number }[] = [];
  #head = 0;
  #bytes = 0;

  /** How many are not settled. */
  get count(): number {
    return this.#queue.length - this.#head;
  }

  /** How many bytes are not settled. */
  get bytes(): number {
    return this.#bytes;
  }

  /** How many bytes the last one has that was added. */
  get lastBytes(): number {
    return this.count > 0 ? this.#queue.at(-1)!.bytes : 0;
  }

  /** Notes something that is settled when `index` is. */
  add(index: Index, bytes: number): void {
    const last = this.count > 0 ? this.#queue.at(-1)!.index : 0;
    assert(index > last, `Index ${index} in flight is not after ${last}`);
    this.#queue.push({ index, bytes });
    this.#bytes += bytes;
  }

  /** Settles everything up to and including `index`. */
  settle(index: Index): void {
    while (this.count > 0 && this.#queue[this.#head]!.index <= index) {
      this.#bytes -= this.#queue[this.#head]!.bytes;
      this.#head += 1;
    }
    if (this.#head * 2 > this.#queue.length) {
      this.#queue.splice(0, this.#head);
      this.#head = 0;
    }
  }

  /** Forgets everything. */
  clear(): void {
    this.#queue = [];
    this.#head = 0;
    this.#bytes = 0;
  }
}

/** One follower, as its leader sees it. */
export class Progress {
  /** The follower has on its disk what the leader has up to here. Never falls within a term. */
  #match: Index = 0;
  /** The next entry to send; always above #match (raft-pitfalls S10). */
  #next: Index;
  #state: ProgressState = "probe";
  /** Probing, and the one append is out (or must wait for a sign of life). */
  #paused = false;
  /** Ticks since the follower was heard. */
  #silentTicks: number;
  /** The highest commit index that an append told the follower, as far as it can use it. */
  #commitSent: Index = 0;
  /** An append is owed even if there is nothing new: it finds out what the follower has. */
  #owed = false;
  /** Ticks since an append was sent. */
  #quietTicks = 0;
  readonly #inflights = new Inflights();
  readonly #limits: InflightLimits;

  constructor(
    next: Index,
    options: { limits: InflightLimits; silentTicks: number },
  ) {
    this.#next = next;
    this.#limits = options.limits;
    this.#silentTicks = options.silentTicks;
  }

  get match(): Index {
    return this.#match;
  }
  get next(): Index {
    return this.#next;
  }
  get state(): ProgressState {
    return this.#state;
  }
  get silentTicks(): number {
    return this.#silentTicks;
  }
  get inflights(): Inflights {
    return this.#inflights;
  }

  /** No room for another append that carries entries. */
  get isFull(): boolean {
    return this.#inflights.count >= this.#limits.messagesMax ||
      this.#inflights.bytes >= this.#limits.bytesMax;
  }

  tick(): void {
    this.#silentTicks += 1;
    this.#quietTicks += 1;
  }

  /** The follower said something, so it lives. */
  heard(): void {
    this.#silentTicks = 0;
  }

  /**
   * What to send now, given the leader's last index and commit: entries, an empty append (which
   * tells the commit index, or finds out what was lost), or nothing. Null for `commit`: a commit index
   * alone is no reason to send.
   */
  due(
    lastIndex: Index,
    commit: Index | null,
  ): "entries" | "empty" | "nothing" {
    if (this.#state === "snapshot") return "nothing";
    if (this.#state === "probe") {
      if (this.#paused) return "nothing";
      return this.#next <= lastIndex ? "entries" : "empty";
    }
    if (this.#next <= lastIndex && !this.isFull) return "entries";
    if (this.#owed) return "empty";
    if (commit === null) return "nothing";
    return Math.min(commit, this.#next - 1) > this.#commitSent
      ? "empty"
      : "nothing";
  }

  /** Notes an append with entries up to `last` (next - 1 if empty) that told `commit`. */
  sent(last: Index, { bytes, commit }: { bytes: number; commit: Index }): void {
    assert(this.#state !== "snapshot", "Append sent while a snapshot is due");
    assert(
      last >= this.#next - 1,
      `Append up to ${last} sent, but next is ${this.#next}`,
    );
    this.#owed = false;
    this.#quietTicks = 0;
    if (this.#state === "probe") {
      // What a probe carries counts only once it is acknowledged: #next stays.
      this.#paused = true;
      return;
    }
    if (last >= this.#next) this.#inflights.add(last, bytes);
    this.#next = last + 1;
    this.#commitSent = Math.max(this.#commitSent, Math.min(commit, last));
  }

  /** The follower has everything up to `index`; true if that is news. */
  acknowledged(index: Index): boolean {
    if (index < this.#match) return false;
    const isNews = index > this.#match;
    this.#match = index;
    this.#next = Math.max(this.#next, index + 1);
    if (this.#state === "replicate") this.#inflights.settle(index);
    else if (this.#state === "probe") this.#becomeReplicate();
    return isNews;
  }

  /** The snapshot that was on its way has made the log usable again: `match` is in it. */
  caughtUp(): void {
    assert(this.#state === "snapshot", `Caught up while in ${this.#state}`);
    this.#becomeReplicate();
  }

  /**
   * The follower has no entry (rejected, term) as asked, and the logs may agree at `hint`; false
   * if the message is old news, for instance overtaken by an acknowledgement (raft-pitfalls S9).
   */
  rejected(rejected: Index, hint: Index): boolean {
    if (rejected <= this.#match) return false;
    if (this.#state === "replicate") {
      this.becomeProbe();
      return true;
    }
    if (this.#state === "snapshot" || this.#next - 1 !== rejected) return false;
    this.#next = Math.max(Math.min(rejected, hint + 1), this.#match + 1);
    this.#paused = false;
    return true;
  }

  /**
   * An answer to a heartbeat: the way is open, so what seems lost can be looked for. Not if an append
   * has just been sent, or each of many read rounds would repeat it.
   */
  answered(lastIndex: Index): void {
    if (this.#quietTicks === 0) return;
    this.#paused = false;
    if (this.#match < lastIndex) this.#owed = true;
  }

  /** Looks again for where the logs agree, from what is certain. */
  becomeProbe(): void {
    this.#reset("probe");
    this.#next = this.#match + 1;
  }

  /** Waits for a snapshot to arrive. */
  becomeSnapshot(): void {
    this.#reset("snapshot");
  }

  /** A snapshot up to `index` was sent, or not; either way wait for a sign of life before probing. */
  snapshotSent(index: Index, ok: boolean): void {
    if (this.#state !== "snapshot") return;
    this.#reset("probe");
    this.#next = ok ? Math.max(this.#match, index) + 1 : this.#match + 1;
    this.#paused = true;
  }

  assertInvariants(): void {
    assert(
      this.#next > this.#match,
      `Next ${this.#next} is not above match ${this.#match}`,
    );
    assert(
      this.#state === "replicate" || this.#inflights.count === 0,
      `${this.#inflights.count} appends in flight in ${this.#state}`,
    );
    assert(
      this.#inflights.count <= this.#limits.messagesMax,
      `${this.#inflights.count} appends in flight, at most ${this.#limits.messagesMax}`,
    );
    const { bytes, lastBytes, count } = this.#inflights;
    assert(
      count === 0 || bytes - lastBytes < this.#limits.bytesMax,
      `${bytes} bytes in flight, ${lastBytes} of them in the last append, at most ${this.#limits.bytesMax}`,
    );
  }

  #becomeReplicate(): void {
    this.#reset("replicate");
    this.#next = this.#match + 1;
  }

  #reset(state: ProgressState): void {
    this.#state = state;
    this.#paused = false;
    this.#owed = false;
    this.#commitSent = 0;
    this.#inflights.clear();
  }
}
