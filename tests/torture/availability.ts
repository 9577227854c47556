/**
 * How long clients had to wait: the longest time in which no write was acknowledged, in all, and
 * while no fault touched a majority of the nodes. Fed by `round.ts` and `nemesis.ts`.
 *
 * ```text
 *   faults     ──leader killed──            ─────all killed─────
 *   answers  ││││           ││││││││││││││││                     │││││││
 *                 ▲ counts in both                  ▲ in all only
 * ```
 *
 * @module
 */

/** After a majority was touched, waiting counts as its consequence for so long. */
const AFTER_MS = 5000;

/** The longest gaps between acknowledged writes. */
export class Availability {
  readonly #nodes: number;
  /** How many faults touch a node now. */
  readonly #touched = new Map<string, number>();
  /** Since a majority is touched, or when it was last. */
  #majorityUntilMs = -Infinity;
  #lastMs: number;
  #longestMs = 0;
  #longestUntouchedMs = 0;

  constructor(nodes: number, nowMs: number) {
    this.#nodes = nodes;
    this.#lastMs = nowMs;
  }

  /** A fault begins that these nodes feel. */
  touch(ids: readonly string[], nowMs: number): void {
    for (const id of ids) {
      this.#touched.set(id, (this.#touched.get(id) ?? 0) + 1);
    }
    this.#note(nowMs);
  }

  /** It is over. */
  release(ids: readonly string[], nowMs: number): void {
    this.#note(nowMs);
    for (const id of ids) {
      const count = (this.#touched.get(id) ?? 0) - 1;
      if (count > 0) this.#touched.set(id, count);
      else this.#touched.delete(id);
    }
  }

  /** A write was acknowledged. Workers may tell a little late, so times may go back. */
  acknowledged(atMs: number): void {
    const gapMs = atMs - this.#lastMs;
    if (gapMs <= 0) return;
    this.#note(atMs);
    this.#longestMs = Math.max(this.#longestMs, gapMs);
    if (this.#majorityUntilMs + AFTER_MS < this.#lastMs) {
      this.#longestUntouchedMs = Math.max(this.#longestUntouchedMs, gapMs);
    }
    this.#lastMs = atMs;
  }

  get longestMs(): number {
    return this.#longestMs;
  }

  /** While a majority was not touched. */
  get longestUntouchedMs(): number {
    return this.#longestUntouchedMs;
  }

  #note(nowMs: number): void {
    const untouched = this.#nodes - this.#touched.size;
    const majority = Math.floor(this.#nodes / 2) + 1;
    if (untouched < majority) this.#majorityUntilMs = nowMs;
  }
}
