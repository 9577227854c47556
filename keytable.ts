/**
 * Finds the id of a key without comparing it with others: the part of the key index (`keys.ts`, its
 * only user) that has no order. The keys themselves are not here.
 *
 * ```text
 *   hash of "b"   101101…0110                 slots of the part   hash  id   from where it belongs
 *                 └─ part ──┘ └ slot 6                        5   …0101  7   0
 *                                                             6   …0101  9   1
 *                                                             7   …0110  4   1   ◄── "b" is 4
 *                                                             0     0    0   no key
 * ```
 *
 * A key stands in the first slots from where its hash wants it, and one that is farther from there
 * goes before one that is nearer. So all keys are near, three out of four slots may be taken, and a
 * search ends where the key would stand.
 *
 * @module
 */
import { assert } from "./errors.ts";
import type { Key } from "./batch.ts";

/** By the highest bits of the hash. */
const PART_BITS = 6;
const PARTS = 1 << PART_BITS;
const PART_SLOTS_MIN = 8;

/**
 * No key is farther than this from where it belongs. By chance none ever is: with hashes that spread
 * one in 10^15 would be. Keys chosen to meet there are strays, so that no search gets long.
 */
const DISTANCE_MAX = 64;

/** A slot is two numbers: the key's hash and its id. */
const HASH = 0;
const ID = 1;
const SLOT_BITS = 1;
const SLOT_NUMBERS = 1 << SLOT_BITS;

/**
 * Each part grows by itself, to twice its slots, from what stands in them: up to 20 ns for each of
 * its keys, 0.3 ms at a million keys in all.
 */
class Part {
  slots = new Int32Array(PART_SLOTS_MIN * SLOT_NUMBERS);
  /** How many slots are taken. */
  size = 0;
}

export class KeyTable {
  readonly #keyOf: (id: number) => Key;
  readonly #parts = Array.from({ length: PARTS }, () => new Part());
  #strays = 0;
  /** What `find` was asked last: a key that it does not find is often added next. */
  #soughtKey: Key = "";
  #soughtHash = hashOf("");

  /** `keyOf` tells the key of each id that was added. */
  constructor(keyOf: (id: number) => Key) {
    this.#keyOf = keyOf;
  }

  /** How many keys there are, strays included. For tests: it looks at every part. */
  get size(): number {
    return this.#parts.reduce((sum, { size }) => sum + size, this.#strays);
  }

  /** How many keys were added and not deleted, but cannot be found here. */
  get strays(): number {
    return this.#strays;
  }

  /** The id of a key; 0 if it is not there or a stray. */
  find(key: Key): number {
    const hash = hashOf(key);
    this.#soughtKey = key;
    this.#soughtHash = hash;
    const at = this.#find(key, hash);
    return at < 0 ? 0 : partOf(this.#parts, hash).slots[at + ID]!;
  }

  /** Adds a key that is not there. Ids are positive. */
  add(key: Key, id: number): void {
    const hash = key === this.#soughtKey ? this.#soughtHash : hashOf(key);
    const part = partOf(this.#parts, hash);
    const slots = part.slots.length / SLOT_NUMBERS;
    if (part.size >= slots * 3 / 4) this.#grow(part);
    this.#place(part, { hash, id });
  }

  /** Deletes a key that was added. */
  delete(key: Key): void {
    const hash = hashOf(key);
    let at = this.#find(key, hash);
    if (at < 0) {
      assert(this.#strays > 0, "Delete of a key that was not added");
      this.#strays--;
      return;
    }
    const part = partOf(this.#parts, hash);
    const { slots } = part;
    const last = slots.length - SLOT_NUMBERS;
    // What follows moves one slot nearer to where it belongs, so no mark needs to stay.
    for (;;) {
      const next = at + SLOT_NUMBERS & last;
      if (slots[next + ID] === 0 || distanceOf(slots, next) === 0) break;
      slots[at + HASH] = slots[next + HASH]!;
      slots[at + ID] = slots[next + ID]!;
      at = next;
    }
    slots[at + HASH] = slots[at + ID] = 0;
    part.size--;
  }

  /** Where the slot of a key begins in its part; negative if there is none. */
  #find(key: Key, hash: number): number {
    const { slots } = partOf(this.#parts, hash);
    const last = slots.length - SLOT_NUMBERS;
    let at = hash << SLOT_BITS & last;
    for (let distance = 0; distance <= DISTANCE_MAX; distance++) {
      const id = slots[at + ID]!;
      if (id === 0) return -1;
      if (slots[at + HASH] === hash) {
        if (this.#keyOf(id) === key) return at;
      } else if (distanceOf(slots, at) < distance) return -1;
      at = at + SLOT_NUMBERS & last;
    }
    return -1;
  }

  #place(part: Part, { hash, id }: { hash: number; id: number }): void {
    const { slots } = part;
    const last = slots.length - SLOT_NUMBERS;
    let at = hash << SLOT_BITS & last;
    for (let distance = 0; distance <= DISTANCE_MAX; distance++) {
      const otherId = slots[at + ID]!;
      if (otherId === 0) {
        slots[at + HASH] = hash;
        slots[at + ID] = id;
        part.size++;
        return;
      }
      const otherDistance = distanceOf(slots, at);
      if (otherDistance < distance) {
        const otherHash = slots[at + HASH]!;
        slots[at + HASH] = hash;
        slots[at + ID] = id;
        hash = otherHash;
        id = otherId;
        distance = otherDistance;
      }
      at = at + SLOT_NUMBERS & last;
    }
    this.#strays++;
  }

  #grow(part: Part): void {
    const old = part.slots;
    part.slots = new Int32Array(2 * old.length);
    part.size = 0;
    for (let at = 0; at < old.length; at += SLOT_NUMBERS) {
      const id = old[at + ID]!;
      if (id !== 0) this.#place(part, { hash: old[at + HASH]!, id });
    }
  }

  /** Throws if an invariant does not hold. For tests: it looks at every slot. */
  assertInvariants(): void {
    for (const [index, { slots, size }] of this.#parts.entries()) {
      let taken = 0;
      for (let at = 0; at < slots.length; at += SLOT_NUMBERS) {
        const id = slots[at + ID]!;
        if (id === 0) continue;
        taken++;
        const hash = slots[at + HASH]!;
        const key = this.#keyOf(id);
        assert(
          hashOf(key) === hash,
          `Hash of another key than ${key}: ${hash}`,
        );
        assert(hash >>> 32 - PART_BITS === index, `${key} in part ${index}`);
        assert(this.#find(key, hash) === at, `Cannot be found: ${key}`);
      }
      assert(taken === size, `${size} slots counted, ${taken} taken`);
    }
  }
}

function partOf(parts: readonly Part[], hash: number): Part {
  return parts[hash >>> 32 - PART_BITS]!;
}

/** How many slots after the one where it belongs a key stands. */
function distanceOf(slots: Int32Array, at: number): number {
  const last = slots.length - SLOT_NUMBERS;
  return (at - (slots[at + HASH]! << SLOT_BITS) & last) >> SLOT_BITS;
}

/** 32 bits of a string of latin1 code units, in the manner of MurmurHash3. */
export function hashOf(key: Key): number {
  const { length } = key;
  let hash = length;
  let at = 0;
  for (; at + 4 <= length; at += 4) {
    hash = mix(
      hash,
      key.charCodeAt(at) | key.charCodeAt(at + 1) << 8 |
        key.charCodeAt(at + 2) << 16 | key.charCodeAt(at + 3) << 24,
    );
  }
  let rest = 0;
  for (; at < length; at++) rest = rest << 8 | key.charCodeAt(at);
  hash = mix(hash, rest);
  hash = Math.imul(hash ^ hash >>> 16, 0x85ebca6b);
  hash = Math.imul(hash ^ hash >>> 13, 0xc2b2ae35);
  return hash ^ hash >>> 16;
}

function mix(hash: number, word: number): number {
  let mixed = Math.imul(word, 0xcc9e2d51);
  mixed = Math.imul(mixed << 15 | mixed >>> 17, 0x1b873593);
  const low = hash ^ mixed;
  return Math.imul(low << 13 | low >>> 19, 5) + 0xe6546b64 | 0;
}
