/**
 * The journal: what it gives back after a sync, after a crash at any byte and from damaged files, and
 * that it uses its files again.
 *
 * @module
 */

import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { AssertionError, DkvError } from "../errors.ts";
import { Journal, type JournalMark } from "../journal.ts";
import { decodeFrame, encodeFrame } from "../journalframe.ts";
import type { Entry } from "../message.ts";
import {
  type Segment,
  SegmentFiles,
  type Segments,
  SegmentsInMemory,
} from "../segments.ts";
import { needs, tempDir } from "./needs.ts";

const NEW: JournalMark = { start: 0, frame: 0, voidFrame: 0 };
const KIB = 1024;
const MIB = 1024 * KIB;

function open(
  segments: Segments,
  options: { mark?: JournalMark; segmentBytes?: number; reserve?: number } = {},
): Journal {
  const { mark = NEW, segmentBytes = 4 * KIB, reserve = 0 } = options;
  return new Journal({
    path: "group.db",
    segments,
    mark,
    segmentBytes,
    reserveBytes: reserve,
  });
}

function batch(index: number, term = 1, bytes = 20): Entry {
  const data = new Uint8Array(bytes).fill(index % 251);
  return { index, term, type: "batch", data };
}

/** All that a journal says of its log. */
function logOf(journal: Journal, first = 1): [number, number, number][] {
  const log: [number, number, number][] = [];
  for (let index = first; index <= journal.lastIndex; index++) {
    const entry = journal.entry(index);
    assertEquals([entry.index, entry.term], [index, journal.term(index)]);
    const bytes = entry.type === "batch" ? entry.data.length : 0;
    log.push([index, entry.term, bytes]);
  }
  return log;
}

/** A journal of some frames, one for each number of entries; their places in the first segment. */
function framesOf(segments: SegmentsInMemory, counts: readonly number[]) {
  const journal = open(segments, { segmentBytes: MIB });
  const ends: number[] = [];
  for (const count of counts) {
    for (let i = 0; i < count; i++) {
      journal.append(batch(journal.lastIndex + 1));
    }
    journal.sync();
    const bytes = segments.open(1).read(0, MIB);
    const begin = ends.at(-1) ?? 0;
    ends.push(begin + (decodeFrame(bytes, begin)?.bytes ?? 0));
  }
  return { journal, ends };
}

Deno.test("journal: entries of every kind, terms and votes come back after a start", () => {
  const segments = new SegmentsInMemory();
  const journal = open(segments);
  const configuration = {
    voters: ["a", "b"],
    votersOutgoing: [],
    learners: ["ü"],
    learnersNext: [],
  };
  const entries: Entry[] = [
    { index: 1, term: 1, type: "empty" },
    { index: 2, term: 1, type: "configuration", configuration },
    batch(3, 2, 0),
    batch(4, 2 ** 40, 3000),
  ];
  journal.saveHardState({ term: 2, vote: "ä", commit: 1 });
  journal.append(entries[0]!);
  journal.append(entries[1]!);
  journal.sync();
  journal.saveHardState({ term: 2 ** 40, vote: null, commit: 3 });
  journal.append(entries[2]!);
  journal.append(entries[3]!);
  assert(journal.dirty);
  // Before a sync they are read as well.
  assertEquals(journal.entry(4), entries[3]);
  journal.sync();
  assert(!journal.dirty);
  for (const one of [journal, open(segments)]) {
    assertEquals(one.frame, 2);
    assertEquals(one.lastIndex, 4);
    for (const entry of entries) {
      const read = one.entry(entry.index);
      assertEquals(
        read.type === "batch" ? { ...read, data: [...read.data] } : read,
        entry.type === "batch" ? { ...entry, data: [...entry.data] } : entry,
      );
    }
  }
  const again = open(segments);
  assertEquals(again.hardState, { term: 2 ** 40, vote: null, commit: 3 });
  assertEquals(again.bytes, journal.bytes);
  assertThrows(() => again.term(5), AssertionError, "the log holds 1 to 4");
});

Deno.test("journal: behaves as a list of entries, over cuts, drops, crashes and starts", () => {
  type Action =
    | { type: "append"; count: number; bytes: number }
    | { type: "cut"; back: number }
    | { type: "sync" | "commit" | "crash" | "restart" }
    | { type: "drop"; count: number };
  const action: fc.Arbitrary<Action> = fc.oneof(
    fc.record({
      type: fc.constant("append" as const),
      count: fc.nat(4),
      bytes: fc.nat(1500),
    }),
    fc.record({ type: fc.constant("cut" as const), back: fc.nat(3) }),
    fc.record({ type: fc.constant("drop" as const), count: fc.nat(6) }),
    fc.record({
      type: fc.constantFrom(
        "sync" as const,
        "commit" as const,
        "commit" as const,
        "crash" as const,
        "restart" as const,
      ),
    }),
  );
  const seen = { segments: 0, crashes: 0 };
  fc.assert(
    fc.property(
      fc.array(action, { minLength: 40, maxLength: 120 }),
      (actions) => {
        const segments = new SegmentsInMemory();
        let journal = open(segments);
        let mark = NEW;
        let term = 1;
        let start = 0;
        type Model = { log: [number, number, number][]; vote: string | null };
        let model: Model = { log: [], vote: null };
        let synced = model;
        for (const one of actions) {
          switch (one.type) {
            case "append":
              for (let i = 0; i < one.count; i++) {
                const index = journal.lastIndex + 1;
                journal.append(batch(index, term, one.bytes));
                model = {
                  ...model,
                  log: [...model.log, [index, term, one.bytes]],
                };
              }
              break;
            case "cut": {
              const index = Math.max(start + 1, journal.lastIndex - one.back);
              if (index > journal.lastIndex) break;
              term++;
              journal.cut(index);
              journal.saveHardState({ term, vote: `v${term}`, commit: 0 });
              const log = model.log.filter(([at]) => at < index);
              model = { log, vote: `v${term}` };
              break;
            }
            case "drop":
              start = Math.min(start + one.count, journal.lastIndex);
              journal.drop(start);
              break;
            case "sync":
              journal.sync();
              synced = model;
              break;
            case "commit":
              journal.sync();
              synced = model;
              mark = { start, frame: journal.frame, voidFrame: 0 };
              journal.release(start);
              break;
            default:
              if (one.type === "restart") {
                journal.sync();
                synced = model;
              } else seen.crashes++;
              journal.close();
              segments.crash();
              journal = open(segments, { mark });
              model = synced;
              ({ start } = mark);
              // Which the mark knows is in the rows.
              if (journal.hardState !== null) {
                assertEquals(journal.hardState.vote, model.vote);
              }
          }
          assertEquals(
            logOf(journal, start + 1),
            model.log.filter(([index]) => index > start),
          );
        }
        seen.segments = Math.max(seen.segments, ...segments.list());
      },
    ),
    { numRuns: 300 },
  );
  assert(seen.segments > 5 && seen.crashes > 50, JSON.stringify(seen));
});

Deno.test("journal: a frame that a crash interrupted is as if it had never been, wherever it broke off", () => {
  const whole = new SegmentsInMemory();
  const { ends } = framesOf(whole, [1, 3]);
  const [kept = 0, end = 0] = ends;
  const bytes = whole.open(1).read(0, end);
  for (let at = kept; at < end; at++) {
    const torn = new SegmentsInMemory();
    torn.open(1).write(0, bytes.subarray(0, at));
    torn.open(1).write(at, new Uint8Array(500));
    const journal = open(torn);
    // The frame ends with zeros that mean nothing.
    const isWhole = journal.lastIndex === 4;
    assert(isWhole ? at > end - 32 : journal.lastIndex === 1, `torn at ${at}`);
    journal.append(batch(journal.lastIndex + 1));
    journal.sync();
    assertEquals(logOf(open(torn)).length, isWhole ? 5 : 2);
  }
  // Sectors reach the disk in any order.
  for (let at = kept; at < end - 8; at += 8) {
    const torn = new SegmentsInMemory();
    torn.open(1).write(0, bytes);
    torn.open(1).write(at, new Uint8Array(8).fill(0xa5));
    assertEquals(open(torn).lastIndex, 1, `hole at ${at}`);
  }
});

Deno.test("journal: a broken frame with one after it is damage, and is never passed over (raft-pitfalls P12)", () => {
  const whole = new SegmentsInMemory();
  const { ends } = framesOf(whole, [1, 2, 1, 1]);
  const bytes = whole.open(1).read(0, ends[3]!);
  let found = 0;
  for (let at = 0; at < ends[2]!; at++) {
    const damaged = new SegmentsInMemory();
    damaged.open(1).write(0, bytes);
    damaged.open(1).write(at, Uint8Array.of(bytes[at]! ^ 0x10));
    try {
      // Of zeros that fill a frame up nothing depends.
      assertEquals(logOf(open(damaged)).length, 5, `byte ${at}`);
    } catch (error) {
      assert(error instanceof DkvError, String(error));
      assertEquals(error.code, "DATA_CORRUPT");
      found++;
    }
  }
  assert(found > ends[2]! - 3 * 8, `${found} of ${ends[2]}`);
});

Deno.test("journal: what the rows were saved after must be there", () => {
  const segments = new SegmentsInMemory();
  const { journal, ends } = framesOf(segments, [1, 1, 1]);
  const mark = { start: 0, frame: journal.frame, voidFrame: 0 };
  assertEquals(open(segments, { mark }).lastIndex, 3);
  segments.open(1).write(ends[1]!, new Uint8Array(100));
  assertThrows(
    () => open(segments, { mark }),
    DkvError,
    "the log ends at frame 2, the store was saved after frame 3",
  );
  assertThrows(
    () => open(new SegmentsInMemory(), { mark }),
    DkvError,
    "the log ends at frame 0",
  );
});

Deno.test("journal: a frame that changes while it is in use is not passed on", () => {
  const segments = new SegmentsInMemory();
  const { journal } = framesOf(segments, [1, 1]);
  segments.open(1).write(40, Uint8Array.of(0xee));
  assertThrows(() => journal.entry(1), DkvError, "fails its checksum");
  assertEquals(journal.entry(2).index, 2);
});

Deno.test("journal: a term and a vote are as new as the newest of rows and frames", () => {
  const segments = new SegmentsInMemory();
  const journal = open(segments);
  journal.saveHardState({ term: 1, vote: "a", commit: 0 });
  journal.sync();
  const mark = { start: 0, frame: journal.frame, voidFrame: 0 };
  assertEquals(open(segments, { mark }).hardState, null);
  journal.saveHardState({ term: 2, vote: "b", commit: 0 });
  journal.sync();
  assertEquals(open(segments, { mark }).hardState?.vote, "b");
});

Deno.test("journal: after a snapshot nothing of the old log comes back", () => {
  const segments = new SegmentsInMemory();
  const { journal } = framesOf(segments, [4, 4]);
  journal.saveHardState({ term: 3, vote: "a", commit: 0 });
  journal.append(batch(9));
  const mark = { start: 20, frame: journal.frame, voidFrame: journal.frame };
  // A crash before or after what follows: the rows decide.
  assertEquals(open(segments, { mark }).lastIndex, 20);
  journal.restart(20);
  assert(!journal.dirty);
  assertEquals([journal.lastIndex, journal.bytes], [20, 0]);
  journal.append(batch(21, 4));
  journal.sync();
  journal.release(20);
  const again = open(segments, { mark });
  assertEquals(logOf(again, 21).map(([index]) => index), [21]);
  // A cut of the whole log, before the snapshot's own entries.
  again.cut(21);
  again.append(batch(21, 5));
  again.sync();
  assertEquals(open(segments, { mark }).term(21), 5);
});

Deno.test("journal: the files of a log that a snapshot replaced are used again", () => {
  const segments = new SegmentsInMemory();
  const journal = open(segments);
  for (let index = 1; index <= 40; index++) {
    journal.append(batch(index, 1, 500));
    journal.sync();
  }
  journal.restart(20);
  journal.release(20);
  assert(segments.list().length <= 3, `${segments.list()}`);
});

Deno.test("journal: a file that is missing among others is damage", () => {
  const segments = new SegmentsInMemory();
  const journal = open(segments);
  for (let index = 1; index <= 40; index++) {
    journal.append(batch(index, 1, 500));
    journal.sync();
  }
  for (const number of segments.list().slice(0, -1)) {
    const copy = segments.copy();
    copy.remove(number);
    assertThrows(
      () => open(copy),
      DkvError,
      number === 1 ? "the log begins at entry" : "fails its checksum",
    );
  }
});

Deno.test("journal: a frame is made of what it holds and zeros, whatever was there before", () => {
  const records = [3, 4, 5, 6, 7, 8, 9, 10].map((bytes) => [
    { type: "entry" as const, entry: batch(1, 1, bytes) },
  ]);
  const fresh = records.map((one) => Uint8Array.from(encodeFrame(1, one)));
  encodeFrame(1, [{ type: "entry", entry: batch(250, 1, 500) }]);
  assertEquals(
    records.map((one) => Uint8Array.from(encodeFrame(1, one))),
    fresh,
  );
  assertEquals(fresh.map(({ length }) => length % 8), records.map(() => 0));
});

Deno.test("journal: files of dropped entries are used again, and not before the rows say so", () => {
  const segments = new SegmentsInMemory();
  const journal = open(segments);
  const fill = (count: number) => {
    for (let i = 0; i < count; i++) {
      journal.append(batch(journal.lastIndex + 1, 1, 500));
      journal.sync();
    }
  };
  fill(100);
  const before = segments.list();
  assert(before.length > 10, `${before}`);
  journal.drop(90);
  assertEquals(segments.list(), before);
  journal.release(90);
  const after = segments.list();
  assert(after.length <= 5 && after[0]! > before[0]!, `${after}`);
  assert(after.at(-1)! > before.at(-1)!, "some are spare");
  // Old frames lie in the spare files; the journal ends where it did.
  const mark = { start: 90, frame: journal.frame, voidFrame: 0 };
  assertEquals(logOf(open(segments, { mark }), 91).length, 10);
  fill(20);
  assertEquals(segments.list().length <= 8, true);
  assertEquals(logOf(open(segments, { mark }), 91).length, 30);
});

Deno.test("journal: an entry larger than a segment has one of its own", () => {
  const segments = new SegmentsInMemory();
  const journal = open(segments);
  for (const bytes of [10, 100_000, 10, 2 * MIB, 10]) {
    journal.append(batch(journal.lastIndex + 1, 1, bytes));
    journal.sync();
  }
  const again = open(segments);
  assertEquals(logOf(again).map(([, , bytes]) => bytes), [
    10,
    100_000,
    10,
    2 * MIB,
    10,
  ]);
});

/** A disk of so many bytes. */
class SmallDisk implements Segments {
  readonly inner = new SegmentsInMemory();
  bytesMax: number;

  constructor(bytesMax: number) {
    this.bytesMax = bytesMax;
  }

  list(): number[] {
    return this.inner.list();
  }

  open(number: number): Segment {
    const segment = this.inner.open(number);
    return {
      get bytes() {
        return segment.bytes;
      },
      read: (at, length) => segment.read(at, length),
      write: (at, bytes) => {
        const grows = Math.max(0, at + bytes.length - segment.bytes);
        if (this.#used + grows > this.bytesMax) {
          throw new DkvError("DISK_FULL", "No space left");
        }
        segment.write(at, bytes);
      },
      sync: () => segment.sync(),
      close: () => segment.close(),
    };
  }

  renumber(from: number, to: number): void {
    this.inner.renumber(from, to);
  }

  remove(number: number): void {
    this.inner.remove(number);
  }

  get #used(): number {
    return this.list().reduce(
      (sum, number) => sum + this.inner.open(number).bytes,
      0,
    );
  }
}

Deno.test("journal: on a full disk it says so while it still has space, and goes on when there is more", () => {
  const disk = new SmallDisk(20 * MIB);
  const options = { segmentBytes: 4 * MIB, reserve: 8 * MIB };
  const journal = open(disk, options);
  const write = () => {
    journal.append(batch(journal.lastIndex + 1, 1, 512 * KIB));
    journal.sync();
    while (journal.reserve());
  };
  assertEquals([journal.full, journal.exhausted], [false, false]);
  while (!journal.full) write();
  const atFull = journal.lastIndex;
  while (!journal.exhausted) write();
  assert(journal.lastIndex > atFull + 4, `${atFull} to ${journal.lastIndex}`);
  // Terms and votes have space for long.
  for (let term = 1; term <= 1000; term++) {
    journal.saveHardState({ term, vote: "a".repeat(100), commit: 0 });
    journal.sync();
  }
  disk.bytesMax = 64 * MIB;
  while (journal.reserve());
  assertEquals([journal.full, journal.exhausted], [false, false]);
  const again = open(disk.inner, options);
  assertEquals(again.lastIndex, journal.lastIndex);
  assertEquals(again.hardState?.term, 1000);
});

Deno.test("journal: dropped entries make a full disk fit for use again", () => {
  const disk = new SmallDisk(20 * MIB);
  const journal = open(disk, { segmentBytes: 4 * MIB, reserve: 8 * MIB });
  while (!journal.exhausted) {
    journal.append(batch(journal.lastIndex + 1, 1, 512 * KIB));
    journal.sync();
    while (journal.reserve());
  }
  journal.drop(journal.lastIndex - 1);
  journal.release(journal.lastIndex - 1);
  while (journal.reserve());
  assertEquals([journal.full, journal.exhausted], [false, false]);
});

needs(
  ["read", "write"],
  "journal: in real files, over starts, beside another journal",
  async () => {
    await using temp = await tempDir();
    const paths = ["one.db", "one.db2"].map((name) => `${temp.path}/${name}`);
    const journals = paths.map((path) =>
      open(new SegmentFiles(path), { reserve: 2 * MIB, segmentBytes: MIB })
    );
    for (const [at, journal] of journals.entries()) {
      for (let i = 0; i < 40; i++) {
        journal.append(batch(journal.lastIndex + 1, at + 1, 100 * KIB));
        journal.sync();
        journal.reserve();
      }
      journal.drop(30);
      journal.release(30);
      journal.close();
    }
    for (const [at, path] of paths.entries()) {
      const mark = { start: 30, frame: 40, voidFrame: 0 };
      const again = open(new SegmentFiles(path), { mark });
      assertEquals(
        logOf(again, 31).map(([, term]) => term),
        Array.from({ length: 10 }, () => at + 1),
      );
      again.close();
    }
  },
);
