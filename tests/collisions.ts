/**
 * Keys with the same hash: what somebody who wants to slow a node down would store. Used by the tests
 * of the key index and of its table.
 *
 * @module
 */
import { hashOf } from "../keytable.ts";
import { Random } from "./sim/random.ts";

/** Two words of the hash: one alone never meets another. */
const BLOCK_UNITS = 8;

/**
 * 2^`blocks` keys with one hash. After two blocks with which the hash comes to the same it goes on
 * the same, so a choice of two for each block is enough.
 */
export function collidingKeys(blocks: number): string[] {
  const random = new Random(20261129);
  let keys = [""];
  for (let block = 1; block <= blocks; block++) {
    const rest = "\0".repeat((blocks - block) * BLOCK_UNITS);
    const [a, b] = collision(random, { before: keys[0]!, rest });
    keys = keys.flatMap((key) => [key + a, key + b]);
  }
  return keys;
}

/** Two blocks between `before` and `rest` that lead to the same hash; 80,000 are enough on average. */
function collision(
  random: Random,
  { before, rest }: { before: string; rest: string },
): [string, string] {
  for (const blocks = new Map<number, string>();;) {
    const units = Array.from({ length: BLOCK_UNITS }, () => random.below(256));
    const block = String.fromCharCode(...units);
    const hash = hashOf(before + block + rest);
    const other = blocks.get(hash);
    if (other !== undefined && other !== block) return [other, block];
    blocks.set(hash, block);
  }
}
