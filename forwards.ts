/**
 * The commands that other replicas forwarded to this leader and that wait for its next batch. Used
 * by `group.ts`; forgotten at every change of role.
 *
 * A command that was taken or refused once is not looked at again in this term, however often it
 * arrives (raft-pitfalls R8): its sender repeats itself when it hears nothing. What was refused
 * stays refused, because the sender has told its client so.
 *
 * @module
 */

import { decodeCommand } from "./batch.ts";
import { LIMITS } from "./config.ts";
import { DkvError } from "./errors.ts";
import type { MemberId, Message } from "./message.ts";
import { growsStore } from "./proposals.ts";

/** A forwarded command, encoded. */
export interface Forwarded {
  readonly from: MemberId;
  readonly origin: number;
  readonly id: number;
  readonly data: Uint8Array;
}

/** What became of a message's commands. */
export interface Refused {
  readonly ids: readonly number[];
  readonly code: "OVERLOADED" | "DISK_FULL";
}

/** The forwarded commands of one leadership. */
export class Forwards {
  /** In the order of their arrival. */
  #queue: Forwarded[] = [];
  #bytes = 0;
  /**
   * Ids that were taken or refused, by origin. Those below the floor are settled: a copy of them
   * that comes late is no news.
   */
  readonly #seen = new Map<number, { floor: number; ids: Set<number> }>();

  /** How many wait. */
  get size(): number {
    return this.#queue.length;
  }

  /**
   * Takes a message's commands in, except those seen before. `isFull`: refuse what needs space on
   * the disk. Returns what was refused, or null.
   *
   * @throws {DkvError} MALFORMED for a command that cannot be read: it must not get into the log.
   */
  take(
    message: Message & { type: "forward" },
    { isFull }: { isFull: boolean },
  ): Refused | null {
    const { from, origin, settledBelow } = message;
    const seen = this.#seenOf(origin, settledBelow);
    const ids: number[] = [];
    let code: Refused["code"] = "OVERLOADED";
    for (const { id, data } of message.commands) {
      if (id < seen.floor || seen.ids.has(id)) continue;
      seen.ids.add(id);
      const { request } = decodeCommand(data);
      if (isFull && growsStore(request)) {
        code = "DISK_FULL";
        ids.push(id);
      } else if (this.#bytes + data.length > LIMITS.pendingProposalBytesMax) {
        ids.push(id);
      } else {
        this.#queue.push({ from, origin, id, data });
        this.#bytes += data.length;
      }
    }
    return ids.length === 0 ? null : { ids, code };
  }

  /** The oldest ones, at least one if there is any, up to so many bytes. */
  next(bytesMax: number): Forwarded[] {
    let bytes = 0;
    const end = this.#queue.findIndex(({ data }, at) => {
      bytes += data.length;
      return at > 0 && bytes > bytesMax;
    });
    return end === -1 ? this.#queue : this.#queue.slice(0, end);
  }

  /** Marks what {@linkcode next} returned as appended. */
  appended(forwarded: readonly Forwarded[]): void {
    this.#queue = this.#queue.slice(forwarded.length);
    for (const { data } of forwarded) this.#bytes -= data.length;
  }

  /** This replica leads no more, or in another term: its senders learn so from the log. */
  clear(): void {
    this.#queue = [];
    this.#bytes = 0;
    this.#seen.clear();
  }

  #seenOf(
    origin: number,
    settledBelow: number,
  ): { floor: number; ids: Set<number> } {
    const seen = this.#seen.get(origin) ?? { floor: 0, ids: new Set() };
    this.#seen.set(origin, seen);
    seen.floor = Math.max(seen.floor, settledBelow);
    for (const id of seen.ids) {
      if (id >= seen.floor) break;
      seen.ids.delete(id);
    }
    return seen;
  }
}

/** What a client is told whose write the leader refused. */
export function refusalError(code: Refused["code"]): DkvError {
  switch (code) {
    case "DISK_FULL":
      return new DkvError(
        "DISK_FULL",
        "The leader's disk is nearly full. Nothing was changed; deletes are still accepted, and " +
          "writes again as soon as there is space",
      );
    case "OVERLOADED":
      return new DkvError(
        "OVERLOADED",
        "The leader has too many writes waiting. Nothing was changed",
      );
  }
}
