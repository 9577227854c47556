/**
 * The key index: which version was current when, what may be dropped, and the order of keys; and all
 * of it against a plain map.
 *
 * @module
 */

import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { AssertionError } from "../errors.ts";
import { KeyIndex } from "../keys.ts";
import type { EventMeta } from "../rows.ts";
import { latin1, runs } from "./arbitrary.ts";
import { collidingKeys } from "./collisions.ts";

/** Adds a version; `version` 0 is a delete. Positions are ten times the revision. */
function add(
  keys: KeyIndex,
  key: string,
  [revision, version]: [number, number],
): void {
  keys.append({
    position: revision * 10,
    revision,
    key,
    type: version === 0 ? "delete" : "put",
    createRevision: version === 0 ? 0 : revision - version + 1,
    version,
    lease: 0n,
  }, keys.get(key));
  keys.assertInvariants();
}

/** put at 2 and 5, delete at 9, put at 11. */
function example(): KeyIndex {
  const keys = new KeyIndex();
  for (const version of [[2, 1], [5, 2], [9, 0], [11, 1]] as const) {
    add(keys, "k", [...version]);
  }
  return keys;
}

function positions(keys: KeyIndex, revisions: number[]): number[] {
  const { id } = keys.get("k")!;
  return revisions.map((revision) => keys.positionAt(id, revision));
}

Deno.test("keys: the version that was current at each revision", () => {
  const revisions = [1, 2, 3, 4, 5, 8, 9, 10, 11, 99];
  assertEquals(positions(example(), revisions), [
    0,
    20,
    20,
    20,
    50,
    50,
    0,
    0,
    110,
    110,
  ]);
});

Deno.test("keys: dropping what a version superseded leaves it and what follows", () => {
  for (
    const [revision, dropped, left] of [
      [2, [], [20, 50, 0, 110]],
      [5, [20], [0, 50, 0, 110]],
      [9, [20, 50], [0, 0, 0, 110]],
      [11, [20, 50, 90], [0, 0, 0, 110]],
    ] as const
  ) {
    const keys = example();
    const removed: number[] = [];
    keys.dropBefore("k", { revision, removed });
    keys.assertInvariants();
    assertEquals(removed, [...dropped]);
    assertEquals(positions(keys, [2, 5, 9, 11]), [...left]);
  }
});

Deno.test("keys: a tombstone goes only when it is the oldest version, and the key with it if it is the last", () => {
  const keys = example();
  assertThrows(() => keys.dropTombstone("k", 9), AssertionError);
  keys.dropBefore("k", { revision: 9, removed: [] });
  keys.dropTombstone("k", 9);
  keys.assertInvariants();
  assertEquals(positions(keys, [9, 11]), [0, 110]);
  assertThrows(() => keys.dropTombstone("k", 11), AssertionError);
  add(keys, "k", [12, 0]);
  assertThrows(() => keys.dropTombstone("k", 12), AssertionError);
  keys.dropBefore("k", { revision: 12, removed: [] });
  assertEquals([keys.live, keys.size], [0, 1]);
  keys.dropTombstone("k", 12);
  assertEquals([keys.live, keys.size], [0, 0]);
});

Deno.test("keys: order is that of bytes, both ways, and ends are respected", () => {
  const keys = new KeyIndex();
  const all = [
    "\0",
    "\0\0",
    "a",
    "a\0",
    "a\xff",
    "b",
    "\x7f",
    "\x80",
    "\xff",
    "\xff\xff",
  ];
  for (const [i, key] of all.toReversed().entries()) add(keys, key, [i + 1, 1]);
  const visit = (
    way: "visit" | "visitReverse",
    range: { start: string; end: string | null },
  ) => {
    const found: string[] = [];
    keys[way](range, (key) => found.push(key) > 0);
    return found;
  };
  for (const start of ["", ...all]) {
    for (const end of [...all, null]) {
      const inside = all.filter((key) =>
        key >= start && (end === null || key < end)
      );
      assertEquals(visit("visit", { start, end }), inside);
      assertEquals(visit("visitReverse", { start, end }), inside.toReversed());
    }
  }
  const first: string[] = [];
  keys.visit({ start: "a", end: null }, (key) => first.push(key) < 2);
  assertEquals(first, ["a", "a\0"]);
});

Deno.test("keys: versions must come in order", () => {
  assertThrows(
    () => add(example(), "k", [11, 2]),
    AssertionError,
    "11 after 11",
  );
});

/** An index and the plain list of each key's versions: does the same to both. */
class Pair {
  readonly keys = new KeyIndex();
  readonly model = new Map<string, EventMeta[]>();
  revision = 0;

  /** Versions count on through deletes here: the index does not care. */
  append(key: string, { lease }: { lease: bigint | null }): void {
    const versions = this.model.get(key) ?? [];
    const revision = ++this.revision;
    const isPut = lease !== null;
    const row: EventMeta = {
      position: revision * 10,
      revision,
      key,
      type: isPut ? "put" : "delete",
      createRevision: isPut ? versions[0]?.revision ?? revision : 0,
      version: isPut ? versions.length + 1 : 0,
      lease: lease ?? 0n,
    };
    this.keys.append(row, this.keys.get(key));
    this.model.set(key, [...versions, row]);
  }

  /** What a compaction does that has come to a version: `which` of them, if there are that many. */
  compact(key: string, which: number): void {
    const versions = this.model.get(key) ?? [];
    const row = versions[which];
    if (row === undefined) return;
    const removed: number[] = [];
    this.keys.dropBefore(key, { revision: row.revision, removed });
    const gone = versions.splice(0, which);
    assertEquals(removed, gone.map(({ position }) => position));
    if (row.type === "put") return;
    this.keys.dropTombstone(key, row.revision);
    versions.shift();
    if (versions.length === 0) this.model.delete(key);
  }

  compare(asked: readonly string[]): void {
    const { keys, model } = this;
    keys.assertInvariants();
    const order = [...model.keys()].sort();
    const live = order.filter((key) => model.get(key)!.at(-1)!.version > 0);
    assertEquals([keys.size, keys.live], [order.length, live.length]);
    for (const key of asked) this.#compareKey(key);
    const leased: [string, bigint][] = [];
    keys.visitLeased((key, lease) => leased.push([key, lease]));
    assertEquals(
      new Map(leased),
      new Map(
        order.map((key) => [key, model.get(key)!.at(-1)!.lease] as const)
          .filter(([, lease]) => lease !== 0n),
      ),
    );
    for (const start of asked.slice(0, 3)) {
      for (const end of [null, ...asked.slice(0, 3)]) {
        const inside = order.filter((key) =>
          key >= start && (end === null || key < end)
        );
        assertEquals(this.#visited("visit", { start, end }), inside);
        inside.reverse();
        assertEquals(this.#visited("visitReverse", { start, end }), inside);
      }
    }
  }

  #compareKey(key: string): void {
    const versions = this.model.get(key);
    const record = this.keys.get(key);
    assertEquals(record === undefined, versions === undefined, key);
    if (record === undefined || versions === undefined) return;
    const { revision, position, createRevision, version, lease } = versions
      .at(-1)!;
    const newest = { revision, position, createRevision, version, lease };
    assertEquals(record, { id: record.id, ...newest });
    const bounds = versions.flatMap((row) => [row.revision - 1, row.revision]);
    for (const at of bounds) {
      const current = versions.findLast((row) => row.revision <= at);
      const expected = current?.type === "put" ? current.position : 0;
      assertEquals(this.keys.positionAt(record.id, at), expected);
    }
  }

  #visited(
    way: "visit" | "visitReverse",
    range: { start: string; end: string | null },
  ): string[] {
    const { keys } = this;
    const visited: string[] = [];
    keys[way](range, (key, id) => {
      const record = keys.get(key)!;
      assertEquals(keys.record(id), record);
      assertEquals(keys.isLive(id), record.version > 0);
      return visited.push(key) > 0;
    });
    return visited;
  }
}

/** Twice as many as have a place in the table. */
const COLLIDING = collidingKeys(7);
const anyKey = fc.oneof(latin1(2), fc.constantFrom(...COLLIDING));
const anyStep = fc.record({
  key: fc.nat({ max: 200 }),
  lease: fc.option(fc.constantFrom(0n, 0n, 1n, 2n ** 63n - 1n), { freq: 2 }),
  compacts: fc.boolean(),
  which: fc.nat({ max: 4 }),
});

Deno.test("keys: do what a map of lists does, also with keys that were chosen to collide", () => {
  fc.assert(
    fc.property(
      fc.uniqueArray(anyKey, { minLength: 1, maxLength: 200 }),
      fc.array(anyStep, { maxLength: 400, size: "max" }),
      (names, steps) => {
        const pair = new Pair();
        // Enough at once that some are strays.
        for (const key of COLLIDING) pair.append(key, { lease: 0n });
        for (const { key, lease, compacts, which } of steps) {
          const name = names[key % names.length]!;
          if (compacts) pair.compact(name, which);
          else pair.append(name, { lease });
        }
        pair.compare([...names, ...COLLIDING]);
      },
    ),
    runs(60),
  );
});

Deno.test("keys: as many come and go as want to, and ids are used again", () => {
  const pair = new Pair();
  const name = (at: number) => `key/${at}`;
  const ids = () => [...pair.model.keys()].map((key) => pair.keys.get(key)!.id);
  // More than one chunk of records.
  for (let at = 0; at < 20_000; at++) pair.append(name(at), { lease: null });
  const first = new Set(ids());
  assertEquals(first.size, 20_000);
  for (let at = 0; at < 20_000; at += 2) pair.compact(name(at), 0);
  const asked = Array.from({ length: 40 }, (_, at) => name(at * 1001));
  pair.compare(asked);
  for (let at = 30_000; at < 40_000; at++) pair.append(name(at), { lease: 1n });
  pair.compare(asked);
  assertEquals(new Set(ids()), first);
});
