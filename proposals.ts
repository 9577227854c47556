/**
 * The writes of this node's clients on their way through the log: queued, submitted to a leader,
 * settled. Used by `group.ts`.
 *
 * ```text
 *              submit(term)                     settle(id)
 *   add ─▶ queued ────────▶ submitted in term T ──────────▶ the client hears the result
 *             ▲                  │
 *             └──────────────────┘ an entry of a later term was applied, and this was not before it
 * ```
 *
 * The way back is safe: a leader appends a forwarded command only in the term that the forward
 * names. Entries of term T can no longer be committed behind an entry of a later term, so what was
 * submitted in T and is not applied by then never will be, and may be submitted again. Hence an
 * election delays a write instead of failing it, and no write is applied twice.
 *
 * @module
 */

import { encodeCommand, type Request, type WriteId } from "./batch.ts";
import { assert, DkvError } from "./errors.ts";
import type { Term } from "./message.ts";
import type { Result } from "./results.ts";
import { SlidingMap } from "./slidingmap.ts";

/** Who waits for a write. */
export interface Waiter {
  readonly writeId: WriteId | null;
  /** Called once, in a turn of the group, with the result or with the reason why there is none. */
  settle(outcome: Result | DkvError): void;
}

/** One write that is not settled. */
export interface Proposal {
  readonly id: number;
  /** True if applying it needs space on the disk. */
  readonly grows: boolean;
  /** The command, encoded. */
  readonly data: Uint8Array;
  readonly waiter: Waiter;
  readonly deadlineTick: number;
  /** The term it was submitted in; null while it is queued. */
  term: Term | null;
  /** When it was last sent to the leader. */
  sentTick: number;
}

/** The bounds and the name of a {@linkcode Proposals}. */
export interface ProposalsOptions {
  /** Which start of which node this is; part of every command. */
  origin: number;
  proposalsMax: number;
  bytesMax: number;
  /** One command, encoded: it must fit into one message between nodes. */
  commandBytesMax: number;
}

/** Every write of this node's clients that is not settled. */
export class Proposals {
  readonly #options: ProposalsOptions;
  /** All that are not settled, by id; ids rise, so the first is the oldest. */
  readonly #all = new SlidingMap<Proposal>();
  /** Those with term null, in the order in which they are to be submitted. */
  #queue: Proposal[] = [];
  /** None of them gives up before this tick. */
  #dueTick = Infinity;
  #lastId = 0;
  #bytes = 0;

  constructor(options: ProposalsOptions) {
    this.#options = options;
  }

  /** How many are not settled. */
  get size(): number {
    return this.#all.size;
  }

  /** Bytes of those that are not settled. */
  get bytes(): number {
    return this.#bytes;
  }

  /** How many wait to be submitted. */
  get queued(): number {
    return this.#queue.length;
  }

  /** Every id below this one is settled. */
  get settledBelow(): number {
    return this.#all.first ?? this.#lastId + 1;
  }

  /**
   * Takes a write in.
   *
   * @throws {DkvError} REQUEST_TOO_LARGE; OVERLOADED if too many, or too many bytes, wait already.
   */
  add(
    request: Request,
    { waiter, deadlineTick }: { waiter: Waiter; deadlineTick: number },
  ): void {
    const { origin, proposalsMax, bytesMax, commandBytesMax } = this.#options;
    if (this.#all.size >= proposalsMax) {
      throw new DkvError(
        "OVERLOADED",
        `Too many writes wait on this node: ${this.#all.size}, at most ${proposalsMax}`,
      );
    }
    const id = this.#lastId + 1;
    const { writeId } = waiter;
    const data = encodeCommand({ origin, id, writeId, request });
    if (data.length > commandBytesMax) {
      throw new DkvError(
        "REQUEST_TOO_LARGE",
        `The write is too large: ${data.length} bytes, at most ${commandBytesMax}`,
      );
    }
    if (this.#bytes + data.length > bytesMax) {
      throw new DkvError(
        "OVERLOADED",
        `Too many bytes of writes wait on this node: ${this.#bytes}, at most ${bytesMax}`,
      );
    }
    this.#lastId = id;
    this.#bytes += data.length;
    const grows = growsStore(request);
    const proposal = {
      id,
      grows,
      data,
      waiter,
      deadlineTick,
      term: null,
      sentTick: 0,
    };
    this.#all.set(id, proposal);
    this.#queue.push(proposal);
    if (deadlineTick < this.#dueTick) this.#dueTick = deadlineTick;
  }

  /** The oldest queued ones, at least one if there is any, up to so many bytes. */
  next(bytesMax: number): Proposal[] {
    let bytes = 0;
    const end = this.#queue.findIndex(({ data }, at) => {
      bytes += data.length;
      return at > 0 && bytes > bytesMax;
    });
    return end === -1 ? this.#queue : this.#queue.slice(0, end);
  }

  /** Marks what {@linkcode next} returned as submitted to the leader of `term`. */
  submitted(
    proposals: readonly Proposal[],
    { term, tick }: { term: Term; tick: number },
  ): void {
    const last = proposals.length - 1;
    assert(
      proposals[last] === this.#queue[last],
      `${proposals.length} writes were submitted out of order`,
    );
    this.#queue = this.#queue.slice(proposals.length);
    for (const proposal of proposals) {
      proposal.term = term;
      proposal.sentTick = tick;
    }
  }

  /** Those submitted in `term` and last sent before `tick`, up to so many bytes. */
  unanswered(
    term: Term,
    { before, bytesMax }: { before: number; bytesMax: number },
  ): Proposal[] {
    const found: Proposal[] = [];
    let bytes = 0;
    for (const proposal of this.#all.values()) {
      if (proposal.term !== term || proposal.sentTick >= before) continue;
      bytes += proposal.data.length;
      if (found.length > 0 && bytes > bytesMax) break;
      found.push(proposal);
    }
    return found;
  }

  /** Answers a client. Ids that are settled already, for example by their deadline, are ignored. */
  settle(id: number, outcome: Result | DkvError): void {
    const proposal = this.#all.get(id);
    if (proposal === undefined) return;
    this.#forget(proposal);
    if (proposal.term === null) this.#tidyQueue();
    proposal.waiter.settle(outcome);
  }

  /** Queues again what was submitted before `term`: an entry of `term` has been applied. */
  requeueBefore(term: Term): void {
    const lost: Proposal[] = [];
    for (const proposal of this.#all.values()) {
      if (proposal.term === null || proposal.term >= term) continue;
      proposal.term = null;
      lost.push(proposal);
    }
    if (lost.length > 0) this.#queue = [...lost, ...this.#queue];
  }

  /** Gives up on those whose deadline has come. */
  expire(tick: number): void {
    if (tick < this.#dueTick) return;
    const expired: Proposal[] = [];
    this.#dueTick = Infinity;
    for (const proposal of this.#all.values()) {
      const { deadlineTick } = proposal;
      if (deadlineTick <= tick) expired.push(proposal);
      else if (deadlineTick < this.#dueTick) this.#dueTick = deadlineTick;
    }
    this.#settleAll(expired, ({ term }) =>
      term === null
        ? new DkvError(
          "NO_LEADER",
          "The write was not submitted before its deadline: the cluster has no leader that " +
            "this node can reach, or it is overloaded. Nothing was changed",
        )
        : new DkvError(
          "OUTCOME_UNKNOWN",
          "The write was submitted but not confirmed before its deadline: it may or may not " +
            "take effect",
        ));
  }

  /** Ends the submitted ones: this replica's state was replaced, so it will not see them applied. */
  settleSubmittedUnknown(): void {
    const submitted = this.#all.values().filter(({ term }) => term !== null);
    this.#settleAll(submitted, () =>
      new DkvError(
        "OUTCOME_UNKNOWN",
        "This node fell behind and received a snapshot: the write may or may not have taken " +
          "effect",
      ));
  }

  /** Ends all of them: the node stops. */
  close(): void {
    this.#settleAll(
      this.#all.values(),
      ({ term }) =>
        term === null
          ? new DkvError(
            "SHUTTING_DOWN",
            "The node is stopping. Nothing was changed",
          )
          : new DkvError(
            "OUTCOME_UNKNOWN",
            "The node is stopping: the write was submitted and may or may not take effect",
          ),
    );
  }

  #settleAll(
    proposals: readonly Proposal[],
    outcome: (proposal: Proposal) => Result | DkvError,
  ): void {
    for (const proposal of proposals) this.#forget(proposal);
    if (proposals.some(({ term }) => term === null)) this.#tidyQueue();
    for (const proposal of proposals) {
      proposal.waiter.settle(outcome(proposal));
    }
  }

  #forget({ id, data }: Proposal): void {
    this.#all.delete(id);
    this.#bytes -= data.length;
  }

  /** Takes out of the queue what is settled. */
  #tidyQueue(): void {
    this.#queue = this.#queue.filter(({ id }) =>
      this.#all.get(id) !== undefined
    );
  }
}

/** What a node with a full disk refuses; the rest frees space or keeps promises. */
export function growsStore(request: Request): boolean {
  switch (request.type) {
    case "put":
    case "transact":
    case "mutate":
    case "grant":
      return true;
    case "delete":
    case "revoke":
    case "keepAlive":
    case "compact":
    case "identify":
      return false;
    case "changeUsers":
      return !/^(delete|revoke)/.test(request.change.type);
  }
}
