/**
 * The table of keys: against a map, while it grows and shrinks, and with keys that were chosen to
 * meet in one slot.
 *
 * @module
 */

import { assertEquals, assertLess, assertThrows } from "@std/assert";
import fc from "fast-check";
import { AssertionError } from "../errors.ts";
import { hashOf, KeyTable } from "../keytable.ts";
import { latin1, runs } from "./arbitrary.ts";
import { collidingKeys } from "./collisions.ts";

/** A table whose ids are places in a list of keys. */
class Table {
  readonly keys: string[] = [""];
  readonly table = new KeyTable((id) => this.keys[id]!);
  readonly model = new Map<string, number>();

  add(key: string): void {
    const id = this.keys.push(key) - 1;
    this.table.add(key, id);
    this.model.set(key, id);
  }

  delete(key: string): void {
    this.table.delete(key);
    this.model.delete(key);
  }

  compare(asked: Iterable<string>): void {
    this.table.assertInvariants();
    assertEquals(this.table.size, this.model.size);
    for (const key of asked) {
      assertEquals(this.table.find(key), this.model.get(key) ?? 0, key);
    }
  }
}

Deno.test("keytable: finds what a map finds, whatever comes and goes", () => {
  fc.assert(
    fc.property(
      fc.array(fc.oneof(latin1(3), latin1(20)), { maxLength: 400 }),
      (keys) => {
        const table = new Table();
        // A key comes when it is not there, and goes when it comes again.
        for (const key of keys) {
          if (table.model.has(key)) table.delete(key);
          else table.add(key);
        }
        table.compare(keys);
        assertEquals(table.table.strays, 0);
      },
    ),
    runs(200),
  );
});

Deno.test("keytable: grows, and keys that only count have room near where they belong", () => {
  const table = new Table();
  const name = (at: number) => `bench/${String(at).padStart(8, "0")}`;
  for (let at = 0; at < 100_000; at++) table.add(name(at));
  table.compare(Array.from({ length: 200_000 }, (_, at) => name(at)));
  assertEquals(table.table.strays, 0);
  for (let at = 0; at < 100_000; at += 2) table.delete(name(at));
  table.compare(Array.from({ length: 200_000 }, (_, at) => name(at)));
});

Deno.test("keytable: the hash is of all units and of the length, and all its bits depend on each", () => {
  const keys = ["", "\0", "\0\0", "\0\0\0\0", "\0\0\0\0\0", "abcd", "abcde"];
  assertEquals(new Set(keys.map(hashOf)).size, keys.length);
  const key = "config/nodes/17";
  for (let unit = 0; unit < key.length; unit++) {
    for (let bit = 0; bit < 8; bit++) {
      const other = String.fromCharCode(key.charCodeAt(unit) ^ 1 << bit);
      const changed = key.slice(0, unit) + other + key.slice(unit + 1);
      const differing = (hashOf(key) ^ hashOf(changed)) >>> 0;
      const bits = differing.toString(2).replaceAll("0", "").length;
      // Of 32, half by chance.
      assertLess(Math.abs(bits - 16), 14, `${unit} ${bit}`);
    }
  }
});

Deno.test("keytable: of keys with one hash a few are found, and the others are counted", () => {
  const keys = collidingKeys(7);
  assertEquals(keys.length, 128);
  assertEquals(new Set(keys.map(hashOf)).size, 1);
  const table = new Table();
  for (let at = 0; at < 3000; at++) table.add(`other/${at}`);
  for (const key of keys) table.add(key);
  const others = [...table.model.keys()].filter((key) => key.startsWith("o"));
  table.compare(others);
  const lost = () => keys.filter((key) => table.table.find(key) === 0);
  assertEquals(lost().length, table.table.strays);
  // 65 distances are allowed; others that belong there take some of them.
  assertLess(Math.abs(table.table.strays - (128 - 65)), 20);
  for (const key of keys.splice(0, 100)) table.delete(key);
  table.compare(others);
  assertEquals(lost().length, table.table.strays);
  for (const key of keys) table.delete(key);
  table.compare(others);
  assertEquals(table.table.strays, 0);
});

Deno.test("keytable: only what was added can be deleted", () => {
  const table = new Table();
  table.add("a");
  assertThrows(() => table.table.delete("b"), AssertionError, "not added");
});
