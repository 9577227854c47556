/**
 * Blocks of events: what goes in comes out, whole or one at a time, and damage is noticed; and a disk
 * that keeps its events in them against a plain list.
 *
 * @module
 */

import {
  assert,
  assertEquals,
  assertLessOrEqual,
  assertThrows,
} from "@std/assert";
import fc from "fast-check";
import { Block, BlockMeta, blockOf, blocksOf } from "../blocks.ts";
import { Disk } from "../disk.ts";
import { DkvError } from "../errors.ts";
import type { EventRow } from "../rows.ts";
import { runs } from "./arbitrary.ts";

const PATH = "group.db";
const BOOTSTRAP = {
  voters: ["a"],
  votersOutgoing: [],
  learners: [],
  learnersNext: [],
};

/** A put or a delete, still without its position and with the distance to the revision before. */
const anyChange = fc.record({
  step: fc.nat({ max: 1 }),
  key: fc.uint8Array({ maxLength: 40 })
    .map((bytes) => String.fromCharCode(...bytes)),
  age: fc.nat({ max: 5 }),
  version: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 2 ** 40 })),
  lease: fc.oneof(
    fc.constant(0n),
    fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
  ),
  valueBytes: fc.oneof(fc.nat({ max: 200 }), fc.nat({ max: 5000 })),
});

/** Events from a position on, as a store makes them. */
function anyEvents(first: number): fc.Arbitrary<EventRow[]> {
  return fc.array(anyChange, { minLength: 1, maxLength: 60 }).map((changes) => {
    let revision = 10 + first;
    return changes.map(({ step, key, age, version, lease, valueBytes }, at) => {
      revision += step;
      const isPut = version > 0;
      return {
        position: first + at,
        revision,
        key,
        type: isPut ? "put" : "delete",
        createRevision: isPut ? revision - age : 0,
        version,
        lease: isPut ? lease : 0n,
        value: new Uint8Array(isPut ? valueBytes : 0).fill(at + 1),
      };
    });
  });
}

/** Values as arrays of numbers: views and copies alike. */
function plain(event: EventRow | undefined): unknown {
  return event && { ...event, value: [...event.value] };
}

function metaOf({ value: _, ...meta }: EventRow): unknown {
  return meta;
}

Deno.test("blocks: events come back, all of them and each by its position", () => {
  fc.assert(
    fc.property(anyEvents(7), (events) => {
      const blocks = blocksOf(events).map((row) => new Block(row, PATH));
      assertEquals(
        blocks.flatMap((block) => block.events()).map(plain),
        events.map(plain),
      );
      for (const event of events) {
        const { position } = event;
        const holders = blocks.filter((block) =>
          block.position <= position && position <= block.last
        );
        assertEquals(holders.length, 1);
        assertEquals(plain(holders[0]!.event(position)), plain(event));
      }
    }),
    runs(100),
  );
});

Deno.test("blocks: fill half a page, unless a single event is larger", () => {
  const small = Array.from({ length: 100 }, (_, at): EventRow => ({
    position: at + 1,
    revision: at + 2,
    key: `key/${at}`,
    type: "put",
    createRevision: at + 2,
    version: 1,
    lease: 0n,
    value: new Uint8Array(100),
  }));
  const sizes = blocksOf(small).map(([, , , meta, value]) =>
    meta.length + value.length
  );
  assertLessOrEqual(Math.max(...sizes), 2000);
  assertLessOrEqual(sizes.length, 8);
  const large = { ...small[1]!, value: new Uint8Array(1 << 20) };
  const blocks = blocksOf([small[0]!, large, small[2]!]);
  assertEquals(blocks.map(([position]) => position), [1, 2, 3]);
  // Its value is not copied.
  assert(blocks[1]![4] === large.value);
});

Deno.test("blocks: what was removed is gone, the rest stays where it was", () => {
  const some = fc.tuple(anyEvents(3), fc.array(fc.nat({ max: 59 })));
  fc.assert(
    fc.property(some, ([events, removed]) => {
      const left = events.filter((_, at) => !removed.includes(at));
      fc.pre(left.length > 0);
      const block = new Block(blockOf(3, left), PATH);
      assertEquals(block.position, 3);
      assertEquals(block.last, left.at(-1)!.position);
      assertEquals(block.events().map(plain), left.map(plain));
      for (const at of removed) {
        assertEquals(block.event(3 + at), undefined);
      }
    }),
    runs(100),
  );
});

Deno.test("blocks: a changed byte is noticed", () => {
  fc.assert(
    fc.property(anyEvents(1), fc.nat(), fc.boolean(), (events, at, inValue) => {
      const row = blockOf(1, events);
      const bytes = (inValue ? row[4] : row[3]).slice();
      fc.pre(bytes.length > 0);
      bytes[at % bytes.length]! ^= 1;
      row[inValue ? 4 : 3] = bytes as never;
      const error = assertThrows(() => new Block(row, PATH), DkvError);
      assertEquals(error.code, "DATA_CORRUPT");
      const [position, crc, valueCrc, meta] = row;
      if (inValue) new BlockMeta([position, crc, valueCrc, meta], PATH);
      const moved = blockOf(1, events);
      moved[0] = 2;
      assertThrows(() => new Block(moved, PATH), DkvError, "checksum");
    }),
    runs(100),
  );
});

/** What is done to a disk, in numbers whose meaning depends on what it holds. */
const anyStep = fc.record({
  kind: fc.constantFrom("append", "commit", "read", "remove", "scan", "reopen"),
  count: fc.integer({ min: 1, max: 300 }),
  at: fc.nat(),
  bytes: fc.nat({ max: 900 }),
});

Deno.test("blocks: a disk gives its events as a list would", () => {
  fc.assert(
    fc.property(fc.array(anyStep, { maxLength: 40 }), (steps) => {
      const disk = new Disk({ path: ":memory:", bootstrap: BOOTSTRAP });
      let held: EventRow[] = [];
      let durable: EventRow[] = [];
      let next = 1;
      let durableNext = 1;
      for (const { kind, count, at, bytes } of steps) {
        const one = held[at % held.length];
        if (kind === "append") {
          for (let i = 0; i < count; i++, next++) {
            const row: EventRow = {
              position: next,
              revision: next + 1,
              key: `k${at}`,
              type: "put",
              createRevision: next + 1,
              version: 1,
              lease: 0n,
              value: new Uint8Array(bytes).fill(next),
            };
            disk.rows.appendEvent(row);
            held.push(row);
          }
        } else if (kind === "commit") {
          disk.commit();
          [durable, durableNext] = [held.slice(), next];
        } else if (kind === "reopen") {
          disk.reopen();
          [held, next] = [durable.slice(), durableNext];
        } else if (kind === "scan") {
          const from = one?.position ?? at;
          assertEquals<unknown>(
            disk.rows.scanEvents(from, count),
            held.filter(({ position }) => position >= from).slice(0, count)
              .map(metaOf),
          );
        } else if (one !== undefined && kind === "read") {
          assertEquals(plain(disk.rows.readEvent(one.position)), plain(one));
        } else if (one !== undefined) {
          const gone = held.filter((_, i) => i % (1 + at % 4) === 0)
            .slice(0, count);
          disk.rows.removeEvents(
            gone.toReversed().map(({ position }) => position),
          );
          held = held.filter((row) => !gone.includes(row));
          assertThrows(() => disk.rows.readEvent(gone[0]!.position), DkvError);
        }
      }
      assertEquals<unknown>(
        disk.rows.scanEvents(0, Infinity),
        held.map(metaOf),
      );
      disk.abandon();
    }),
    runs(60),
  );
});
