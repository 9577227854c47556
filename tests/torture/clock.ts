/**
 * The difference between two clocks that run equally fast, from messages back and forth, as far as
 * it can be known. Used by `crowd.ts` for each client process.
 *
 * ```text
 *   harness  sent ─────┐          ┌───▶ received      sent ≤ theirs + difference ≤ received
 *   worker             └─▶ theirs ┘
 * ```
 *
 * @module
 */

import { assert } from "../../errors.ts";

/** What `performance.now()` may be too small by, in milliseconds. */
const GRAIN_MS = 0.01;

/** Bounds of the difference: the harness's time is the worker's plus something between them. */
export class ClockDifference {
  #lowMs = -Infinity;
  #highMs = Infinity;

  /** Learns from one exchange. */
  note(
    { sentMs, theirsMs, receivedMs }: {
      sentMs: number;
      theirsMs: number;
      receivedMs: number;
    },
  ): void {
    this.#lowMs = Math.max(this.#lowMs, sentMs - theirsMs - GRAIN_MS);
    this.#highMs = Math.min(this.#highMs, receivedMs - theirsMs + GRAIN_MS);
    assert(
      this.#lowMs <= this.#highMs,
      `The clocks of two processes drift: ${this.#lowMs} > ${this.#highMs}`,
    );
  }

  /** How much is not known; infinite before the first exchange. */
  get uncertaintyMs(): number {
    return this.#highMs - this.#lowMs;
  }

  /** The earliest time of the harness that this moment of the worker can be. */
  earliest(theirsMs: number): number {
    return theirsMs + this.#lowMs;
  }

  /** The latest. */
  latest(theirsMs: number): number {
    return theirsMs + this.#highMs;
  }
}
