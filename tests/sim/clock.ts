/**
 * Simulated time: what is to happen, ordered by (time, sequence). Used by all of the simulator.
 *
 * @module
 */

import { assert } from "../../errors.ts";

interface Event {
  readonly atMs: number;
  readonly sequence: number;
  readonly run: () => void;
}

/** True time, in ms since the start of the run, and everything that waits for it. */
export class Clock {
  /** A binary heap. */
  readonly #events: Event[] = [];
  #sequence = 0;
  #nowMs = 0;

  get nowMs(): number {
    return this.#nowMs;
  }

  /** How many events wait. */
  get size(): number {
    return this.#events.length;
  }

  /** Runs something after `delayMs`; in the order of calls if at the same time. */
  after(delayMs: number, run: () => void): void {
    assert(delayMs >= 0, `Cannot run ${delayMs} ms ago`);
    const event = {
      atMs: this.#nowMs + delayMs,
      sequence: this.#sequence++,
      run,
    };
    const heap = this.#events;
    let at = heap.push(event) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(event, heap[parent]!)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = event;
  }

  /** Runs the next event, if it is due by `untilMs`; false if there is none. */
  step(untilMs: number): boolean {
    const heap = this.#events;
    const first = heap[0];
    if (first === undefined || first.atMs > untilMs) {
      this.#nowMs = Math.max(this.#nowMs, untilMs);
      return false;
    }
    const last = heap.pop()!;
    if (heap.length > 0) this.#sink(last);
    this.#nowMs = first.atMs;
    first.run();
    return true;
  }

  #sink(event: Event): void {
    const heap = this.#events;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      const right = child + 1;
      if (right < heap.length && isBefore(heap[right]!, heap[child]!)) {
        child = right;
      }
      if (!isBefore(heap[child]!, event)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = event;
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.sequence < b.sequence);
}
