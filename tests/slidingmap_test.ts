/** The map of what is on its way, against one that is sorted anew for every question. */

import { assertEquals, assertLess } from "@std/assert";
import { SlidingMap } from "../slidingmap.ts";
import { Random } from "./sim/random.ts";

/** Does the same to both and compares all that can be asked. */
class Pair {
  readonly map = new SlidingMap<string>();
  readonly model = new Map<number, string>();

  set(key: number, value: string): void {
    this.map.set(key, value);
    this.model.set(key, value);
    this.compare([key]);
  }

  delete(key: number): void {
    this.map.delete(key);
    this.model.delete(key);
    this.compare([key]);
  }

  deleteBelow(limit: number): void {
    this.map.deleteBelow(limit);
    for (const key of this.keys()) if (key < limit) this.model.delete(key);
    this.compare([limit]);
  }

  keys(): number[] {
    return [...this.model.keys()].sort((a, b) => a - b);
  }

  compare(asked: readonly number[]): void {
    const keys = this.keys();
    assertEquals(this.map.size, keys.length);
    assertEquals(this.map.first, keys[0]);
    for (const key of [...asked, ...keys]) {
      for (const near of [key - 1, key, key + 1]) {
        assertEquals(this.map.get(near), this.model.get(near), `at ${near}`);
      }
    }
    const found: [number, string][] = [];
    this.map.forEach((value, key) => found.push([key, value]));
    assertEquals(found, keys.map((key) => [key, this.model.get(key)!]));
    assertEquals(this.map.values(), found.map(([, value]) => value));
  }
}

Deno.test("slidingmap: answers as a map does, whatever comes and goes", () => {
  const random = new Random(20261129);
  for (let round = 0; round < 40; round++) {
    const pair = new Pair();
    // From in order and without gaps to anything.
    const disorder = random.below(4);
    let next = random.below(3);
    for (let step = 0; step < 300; step++) {
      const keys = pair.keys();
      const grows = random.below(10) < (keys.length < 20 ? 7 : 4);
      if (random.below(100) === 0) pair.deleteBelow(next - random.below(10));
      else if (grows || keys.length === 0) {
        next += 1 + (disorder > 2 ? random.below(5) : 0);
        const late = disorder > 1 && random.below(5) === 0;
        pair.set(late ? random.below(next + 1) : next, `value ${step}`);
      } else {
        const at = disorder > 0 ? random.below(keys.length) : 0;
        pair.delete(keys[at]!);
      }
    }
    pair.map.clear();
    pair.model.clear();
    pair.compare([next]);
  }
});

Deno.test("slidingmap: one that stays does not keep the places of those that went", () => {
  const map = new SlidingMap<number>();
  const { heapUsed } = Deno.memoryUsage();
  map.set(0, 0);
  // With a place for each that ever was, this would take 50 MB.
  for (let key = 1; key < 3e6; key++) {
    map.set(key, key);
    if (key > 10) map.delete(key - 10);
  }
  assertLess(Deno.memoryUsage().heapUsed - heapUsed, 10e6);
  assertEquals([map.size, map.first, map.get(0)], [11, 0, 0]);
});
