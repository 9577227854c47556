/**
 * Chance that repeats itself, and keys of which few are asked for often. Pure; used by
 * `workloads.ts`, so that every system is asked for the same keys in the same order.
 *
 * @module
 */

/** As in YCSB: the hottest of 100,000 keys gets about 8 % of all accesses. */
export const ZIPF_EXPONENT = 0.99;

/** Numbers from 0 up to but without 1, the same for the same seed (mulberry32). */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Ranks from 0, each with a probability proportional to 1 / (rank + 1) ^ exponent. */
export class Zipf {
  readonly #random: () => number;
  /** At each rank the probability of that rank or one below; the last is 1. */
  readonly #cumulative: Float64Array;

  constructor(
    count: number,
    { random, exponent = ZIPF_EXPONENT }: {
      random: () => number;
      exponent?: number;
    },
  ) {
    this.#random = random;
    this.#cumulative = new Float64Array(count);
    let sum = 0;
    for (let rank = 0; rank < count; rank++) {
      sum += (rank + 1) ** -exponent;
      this.#cumulative[rank] = sum;
    }
    for (let rank = 0; rank < count; rank++) {
      this.#cumulative[rank] = (this.#cumulative[rank] ?? 0) / sum;
    }
  }

  /** The next rank: the first whose cumulative probability exceeds a random number. */
  next(): number {
    const wanted = this.#random();
    let low = 0;
    let high = this.#cumulative.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#cumulative[middle] ?? 1) > wanted) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}
