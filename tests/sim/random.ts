/**
 * Chance from a seed: small integers only, so that every machine draws the same. Used by all of the
 * simulator.
 *
 * @module
 */

/** A stream of numbers; the same seed and label always give the same one. */
export class Random {
  #state: number;

  constructor(seed: number, label = "") {
    let state = seed | 0;
    for (let i = 0; i < label.length; i++) {
      state = Math.imul(state ^ label.charCodeAt(i), 0x01000193);
    }
    this.#state = state;
    // Neighbouring seeds differ in few bits only: the first draws would look alike.
    for (let i = 0; i < 4; i++) this.next();
  }

  /** 32 bits (mulberry32). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let x = this.#state;
    x = Math.imul(x ^ (x >>> 15), x | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return (x ^ (x >>> 14)) >>> 0;
  }

  /** From 0 to `end` - 1. */
  below(end: number): number {
    return this.next() % end;
  }

  /** From `min` to `max`, both included. */
  between(min: number, max: number): number {
    return min + this.below(max - min + 1);
  }

  /** True in `count` of `of` cases. */
  chance(count: number, of = 1000): boolean {
    return this.below(of) < count;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }

  /** `count` different ones of a list, in random order. */
  sample<T>(list: readonly T[], count: number): T[] {
    const rest = [...list];
    const taken: T[] = [];
    while (taken.length < count && rest.length > 0) {
      taken.push(...rest.splice(this.below(rest.length), 1));
    }
    return taken;
  }
}
