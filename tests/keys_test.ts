/**
 * The key index: which version was current when, what may be dropped, and the order of keys.
 *
 * @module
 */

import { assertEquals, assertThrows } from "@std/assert";
import { AssertionError } from "../errors.ts";
import { KeyIndex } from "../keys.ts";

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
