/**
 * A running digest of everything that a replica applied. Replicas that applied the same entries
 * have the same digest, and one that went astray keeps a different one for ever. Not for security:
 * whoever chooses keys and values can make collisions. Used by `store.ts` and its parts.
 *
 * @module
 */

/** The second lane keeps this many bits, so that both fit in a safe integer. */
const HIGH_MASK = (1 << 21) - 1;
const TWO_32 = 2 ** 32;

/** Two lanes of 32 bits in the manner of MurmurHash3, fed word by word. */
export class Digest {
  #low: number;
  #high: number;

  /** Goes on from a sealed value. */
  constructor(sealed: number) {
    this.#low = sealed % TWO_32 | 0;
    this.#high = Math.floor(sealed / TWO_32);
  }

  /** The digest as a safe integer. What follows goes on from exactly this value. */
  seal(): number {
    this.#high &= HIGH_MASK;
    return this.#high * TWO_32 + (this.#low >>> 0);
  }

  /** Adds a safe integer. */
  number(value: number): void {
    this.#word(value | 0);
    // A word for the high half only where there is one: most numbers are small.
    if (value > 0xffffffff || value < 0) this.#word(Math.floor(value / TWO_32));
  }

  /** Adds all 64 bits. */
  bigint(value: bigint): void {
    this.#word(Number(BigInt.asIntN(32, value)));
    this.#word(Number(BigInt.asIntN(32, value >> 32n)));
  }

  /** Adds a string of latin1 code units, with its length. */
  text(value: string): void {
    const length = value.length;
    this.#word(length);
    let at = 0;
    for (; at + 4 <= length; at += 4) {
      this.#word(
        value.charCodeAt(at) | value.charCodeAt(at + 1) << 8 |
          value.charCodeAt(at + 2) << 16 | value.charCodeAt(at + 3) << 24,
      );
    }
    for (; at < length; at++) this.#word(value.charCodeAt(at));
  }

  /** Adds bytes, with their length. */
  bytes(value: Uint8Array): void {
    const length = value.length;
    this.#word(length);
    let at = 0;
    for (; at + 4 <= length; at += 4) {
      this.#word(
        value[at]! | value[at + 1]! << 8 | value[at + 2]! << 16 |
          value[at + 3]! << 24,
      );
    }
    for (; at < length; at++) this.#word(value[at]!);
  }

  #word(word: number): void {
    let mixed = Math.imul(word, 0xcc9e2d51);
    mixed = Math.imul(mixed << 15 | mixed >>> 17, 0x1b873593);
    let low = this.#low ^ mixed;
    low = low << 13 | low >>> 19;
    this.#low = Math.imul(low, 5) + 0xe6546b64 | 0;
    const high = this.#high ^ word;
    this.#high = Math.imul(high << 7 | high >>> 25, 0x9e3779b1) ^ low;
  }
}
