/** Log time: what a replica that leads next may not forget, and may not make up. */

import { assertEquals } from "@std/assert";
import { encodeBatch } from "../batch.ts";
import { LogClock, newestTimeMs } from "../logclock.ts";
import type { Entry } from "../message.ts";
import { EMPTY_STATE } from "../rows.ts";

const TICK_MS = 50;

function clock(timeMs: number): LogClock {
  return new LogClock({ tickMs: TICK_MS, sinceTickMs: () => 0, timeMs });
}

function batch(index: number, timeMs: number): Entry {
  return { type: "batch", index, term: 1, data: encodeBatch(timeMs, []) };
}

function empty(index: number): Entry {
  return { type: "empty", index, term: 1 };
}

/** The part of a log that is asked for its times. */
function logOf(entries: readonly Entry[]) {
  return {
    firstIndex: 1,
    lastIndex: entries.length,
    term: () => 1,
    entries: (from: number, to: number) => entries.slice(from - 1, to - 1),
  };
}

Deno.test("logclock: time goes on while somebody leads, and stands still otherwise", () => {
  const time = clock(1000);
  time.tick({ hasLeader: true });
  time.tick({ hasLeader: false });
  time.tick({ hasLeader: true });
  assertEquals(time.timeMs, 1000 + 2 * TICK_MS);
  assertEquals([time.nextEntryMs, time.idleMs], [1100, 100]);
  time.wrote(1100);
  assertEquals(time.idleMs, 0);
});

Deno.test("logclock: what an entry says counts when it arrives, not when it is applied", () => {
  const time = clock(600);
  // Under a leader that then vanished, without a trace in any log.
  for (let tick = 0; tick < 14; tick++) time.tick({ hasLeader: true });
  assertEquals(time.timeMs, 1300);
  time.received([batch(8, 630), empty(9)]);
  assertEquals(time.timeMs, 630, "the new leader's time is the log's");
  time.tick({ hasLeader: true });
  time.received([empty(10)]);
  assertEquals(time.timeMs, 680, "an entry without a time says nothing");
  assertEquals(time.nextEntryMs, 680);
});

Deno.test("logclock: a replica that starts takes up the time of its log", () => {
  const state = { ...EMPTY_STATE, appliedIndex: 1, timeMs: 500 };
  const entries = [batch(1, 500), batch(2, 700), batch(3, 791), empty(4)];
  assertEquals(newestTimeMs(logOf(entries), state), 791);
  assertEquals(newestTimeMs(logOf([batch(1, 500), empty(2)]), state), 500);
});
