import { assert, assertEquals, assertThrows } from "@std/assert";
import { Log } from "../log.ts";
import { simpleConfiguration } from "../members.ts";
import type { Entry } from "../message.ts";
import { Disk } from "./replicas.ts";

const configuration = simpleConfiguration(["1"]);

/** Entries from an index on, one for each term given; batches of `bytes` bytes. */
function entries(from: number, terms: number[], bytes = 4): Entry[] {
  return terms.map((term, i) => ({
    type: "batch",
    index: from + i,
    term,
    data: new Uint8Array(bytes),
  }));
}

/** A log over a disk that keeps what the log hands out. */
function openLog(options: { recentBytesMax?: number } = {}) {
  const disk = new Disk(configuration);
  const log = new Log(disk, { applied: 0, commit: 0, ...options });
  function write() {
    const unwritten = log.takeUnwritten();
    if (unwritten === null) return null;
    disk.write({ type: "persist", hardState: null, ...unwritten });
    return unwritten;
  }
  function sync() {
    write();
    const index = disk.lastIndex;
    return log.persisted({ index, term: disk.term(index) });
  }
  return { disk, log, write, sync };
}

function apply(log: Log): void {
  for (;;) {
    const last = log.takeCommitted(1e9).at(-1);
    if (last === undefined) return;
    log.appliedTo(last.index);
  }
}

function indexes(list: readonly Entry[]): number[] {
  return list.map((entry) => entry.index);
}

Deno.test("Log hands out each entry once, and what it replaces", () => {
  const { log, write } = openLog();
  log.append(entries(1, [1, 1, 1]));
  assertEquals(write()?.entries.length, 3);
  assertEquals(write(), null);
  log.append(entries(2, [2]));
  assertEquals(log.lastIndex, 2);
  const second = write();
  assertEquals(second?.truncateFrom, 2);
  assertEquals(indexes(second!.entries), [2]);
});

Deno.test("Log replaces entries that were never handed out without a truncation", () => {
  const { log, write } = openLog();
  log.append(entries(1, [1, 1]));
  log.append(entries(2, [2, 2]));
  const unwritten = write();
  assertEquals(unwritten?.truncateFrom, null);
  assertEquals(unwritten?.entries.map((entry) => entry.term), [1, 2, 2]);
});

Deno.test("Log does not take an old write's end for a new entry's (P5)", () => {
  const { log, write } = openLog();
  log.append(entries(1, [1, 1, 1]));
  write();
  log.append(entries(2, [2, 2]));
  write();
  assertEquals(log.persisted({ index: 3, term: 1 }), false);
  assertEquals(log.stable, 0);
  assertEquals(log.persisted({ index: 1, term: 1 }), false);
  assertEquals(log.stable, 1);
  assertEquals(log.persisted({ index: 3, term: 2 }), true);
  assertEquals(log.stable, 3);
});

Deno.test("Log never replaces a committed entry", () => {
  const { log } = openLog();
  log.append(entries(1, [1, 1, 1]));
  log.commitTo(2);
  assertThrows(
    () => log.append(entries(2, [2])),
    Error,
    "Entry 2 would replace one that is committed (up to 2)",
  );
  assertThrows(() => log.append(entries(5, [2])), Error, "a hole after 3");
  assertThrows(() => log.commitTo(4), Error, "beyond the last entry 3");
});

Deno.test("findConflict is the first entry that is missing or differs", () => {
  const { log } = openLog();
  log.append(entries(1, [1, 1, 2]));
  assertEquals(log.findConflict(entries(1, [1, 1, 2])), 3);
  assertEquals(log.findConflict(entries(2, [1, 2, 2])), 2);
  assertEquals(log.findConflict(entries(2, [1, 3])), 1);
  assertEquals(log.findConflict([]), 0);
});

Deno.test("findAtMost skips whole terms", () => {
  const { log } = openLog();
  log.append(entries(1, [1, 3, 3, 3, 5, 5, 5]));
  assertEquals(log.findAtMost({ index: 6, term: 2 }), { index: 1, term: 1 });
  assertEquals(log.findAtMost({ index: 6, term: 4 }), { index: 4, term: 3 });
  assertEquals(log.findAtMost({ index: 99, term: 9 }), { index: 7, term: 5 });
  assertEquals(log.findAtMost({ index: 6, term: 0 }), { index: 0, term: 0 });
});

Deno.test("isUpToDate compares the last term, then the length (Raft paper, 5.4.1)", () => {
  const { log } = openLog();
  log.append(entries(1, [1, 2]));
  assert(log.isUpToDate({ index: 2, term: 2 }));
  assert(log.isUpToDate({ index: 1, term: 3 }));
  assert(!log.isUpToDate({ index: 1, term: 2 }));
  assert(!log.isUpToDate({ index: 9, term: 1 }));
});

Deno.test("Log keeps in memory what is not on disk or not applied, and little more", () => {
  const { log, sync } = openLog({ recentBytesMax: 100 });
  log.append(entries(1, Array(20).fill(1)));
  sync();
  assertEquals(log.entries(1, 21, 1e9).length, 20, "Nothing is applied");
  log.commitTo(20);
  apply(log);
  assert(log.entries(1, 21, 1e9).length < 20, "The front is on disk alone");
  const all: number[] = [];
  while (all.length < 20) {
    const next = (all.at(-1) ?? 0) + 1;
    all.push(...indexes(log.entries(next, 21, 50)));
  }
  assertEquals(all, Array.from({ length: 20 }, (_, i) => i + 1));
  assertEquals(log.term(1), 1);
  log.assertInvariants();
});

Deno.test("entries stops at the bytes, but returns one", () => {
  const { log } = openLog();
  log.append(entries(1, [1, 1, 1], 84));
  assertEquals(indexes(log.entries(1, 4, 200)), [1, 2]);
  assertEquals(indexes(log.entries(2, 4, 1)), [2]);
  assertEquals(log.entries(4, 4, 1), []);
  assertThrows(() => log.entries(3, 5, 1), Error, "outside 1..3");
});

Deno.test("takeCommitted hands out the next piece when the last is applied", () => {
  const { log } = openLog();
  log.append(entries(1, [1, 1, 1], 84));
  log.commitTo(3);
  assertEquals(indexes(log.takeCommitted(200)), [1, 2]);
  assertEquals(log.takeCommitted(200), []);
  log.appliedTo(2);
  assertEquals(indexes(log.takeCommitted(200)), [3]);
  assertThrows(() => log.appliedTo(4), Error, "only up to 3");
});

Deno.test("compactedTo moves the front; the term before it is still known", () => {
  const { disk, log, sync } = openLog();
  log.append(entries(1, [1, 2, 3, 3]));
  sync();
  log.commitTo(3);
  apply(log);
  disk.compact(2);
  log.compactedTo(2);
  assertEquals([log.firstIndex, log.lastIndex], [3, 4]);
  assertEquals([log.term(1), log.term(2), log.term(3)], [null, 2, 3]);
  assertThrows(() => log.compactedTo(4), Error, "beyond applied 3");
  log.assertInvariants();
});

Deno.test("reset keeps nothing of the old log (S1)", () => {
  const { log, sync } = openLog();
  log.append(entries(1, [1, 1, 1, 1, 1]));
  sync();
  log.append(entries(4, [2]));
  log.reset({ index: 3, term: 2, configuration });
  assertEquals([log.firstIndex, log.lastIndex, log.lastTerm], [4, 3, 2]);
  assertEquals([log.stable, log.commit, log.applied], [3, 3, 3]);
  assertEquals(log.takeUnwritten(), null);
  log.append(entries(4, [2]));
  assertEquals(log.takeUnwritten()?.truncateFrom, null);
  log.assertInvariants();
});

Deno.test("Log opens where the disk says", () => {
  const { disk, log, sync } = openLog();
  log.append(entries(1, [1, 2, 2, 2]));
  sync();
  disk.compact(2);
  const again = new Log(disk, { applied: 3, commit: 2 });
  assertEquals([again.firstIndex, again.lastIndex], [3, 4]);
  assertEquals([again.commit, again.applied, again.stable], [3, 3, 4]);
  assertThrows(
    () => new Log(disk, { applied: 5, commit: 0 }),
    Error,
    "commit 5",
  );
});
