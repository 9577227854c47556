/** What people and pipes get to see. */

import { assert, assertEquals } from "@std/assert";
import { setColorEnabled } from "@std/fmt/colors";
import { Histogram } from "../bench.ts";
import { statusTable } from "../overview.ts";
import {
  Meter,
  type MeterOptions,
  Output,
  readable,
  table,
  timeText,
} from "../terminal.ts";

function bytes(...values: number[]): Uint8Array {
  return new Uint8Array(values);
}

Deno.test("terminal: what is stored cannot steer it", () => {
  const text = new TextEncoder().encode("ü\t\x1b[2J\x07\n\x9b😀");
  assertEquals(readable(text), "ü\\t\\x1b[2J\\x07\\n\\x9b😀");
  assertEquals(readable(text, { lines: true }), "ü\t\\x1b[2J\\x07\n\\x9b😀");
  assertEquals(readable(bytes(0x61, 0xff, 0x00)), "a\\xff\\x00");
});

Deno.test("terminal: output comes in order and whole", async () => {
  const got: number[] = [];
  // A pipe that takes a little at a time.
  const write = (part: Uint8Array) => {
    const taken = part.subarray(0, 1000);
    got.push(...taken);
    return Promise.resolve(taken.length);
  };
  const out = new Output({ write, isTerminal: () => false });
  const wanted: number[] = [];
  for (const size of [0, 10, 70_000, 1, 65_536, 65_535, 2]) {
    const part = new Uint8Array(size).map((_, at) => at * size);
    wanted.push(...part);
    await out.write(part);
  }
  await out.flush();
  assertEquals(got.length, wanted.length);
  assertEquals(new Uint8Array(got), new Uint8Array(wanted));
});

Deno.test("terminal: tables and times", () => {
  setColorEnabled(false);
  assertEquals(table(["A", "LONG"], [["aaa", "b"], ["c"]]), [
    "A    LONG",
    "aaa  b",
    "c",
  ]);
  assertEquals([7, 59.2, 760, 7500].map(timeText), [
    "0:07",
    "1:00",
    "12:40",
    "2:05:00",
  ]);
  setColorEnabled(true);
});

/** A clock that stands still unless it is told, and a screen of which every drawing is kept. */
class Watched {
  nowMs = 5000;
  readonly drawn: string[] = [];
  readonly options: MeterOptions = {
    now: () => this.nowMs,
    screen: {
      writeSync: (bytes) => {
        this.drawn.push(new TextDecoder().decode(bytes));
        return bytes.length;
      },
    },
  };

  /** The line on the screen. */
  get line(): string {
    const text = this.drawn.at(-1) ?? "";
    assert(text.startsWith("\r") && text.endsWith("\x1b[K"), text);
    return text.slice(1, -3);
  }
}

Deno.test("terminal: the meter shows share, rate and time left", () => {
  const watched = new Watched();
  const meter = new Meter("importing", watched.options);
  meter.update(0, 0);
  // Nothing has moved yet: there is no rate to tell.
  const bar = (full: number) => `[${"█".repeat(full)}${"─".repeat(24 - full)}]`;
  assertEquals(watched.line, `importing ${bar(0)}   0 %  0 records`);
  watched.nowMs += 99;
  meter.update(100, 0.1);
  assertEquals(watched.drawn.length, 1, "It is drawn ten times a second");
  watched.nowMs += 901;
  meter.update(18_440, 0.25);
  assertEquals(
    watched.line,
    `importing ${bar(6)}  25 %  18,440 records  18,440/s  0:03 left`,
  );
  // Both are those of the last few seconds: 12,000 records in the last six.
  watched.nowMs += 6000;
  meter.update(30_440, 0.3);
  assertEquals(
    watched.line,
    `importing ${bar(7)}  30 %  30,440 records  2,000/s  1:24 left`,
  );
  watched.nowMs += 500;
  assertEquals(meter.end(), 7.5);
  assertEquals(watched.line, "");
});

Deno.test("terminal: a meter without an end has no bar, one that nobody sees is silent", () => {
  const watched = new Watched();
  const meter = new Meter("importing", watched.options);
  meter.update(0, null);
  watched.nowMs += 2000;
  meter.update(1000, null);
  assertEquals(watched.line, "importing  1,000 records  500/s");
  const { length } = watched.drawn;
  const hidden = new Meter("importing", { ...watched.options, isShown: false });
  hidden.update(1, 0.5);
  const nowhere = new Meter("importing", { ...watched.options, screen: null });
  nowhere.update(1, 0.5);
  watched.nowMs += 1000;
  assertEquals([hidden.end(), nowhere.end()], [1, 1]);
  assertEquals(watched.drawn.length, length);
});

Deno.test("terminal: the table of nodes counts lag from the newest", () => {
  setColorEnabled(false);
  const members = [{
    memberId: "1",
    nodeId: "node3",
    address: "c:1",
    suffrage: "voter",
    matchIndex: 0,
    progress: "",
    connected: false,
  }];
  const status = (nodeId: string, appliedIndex: number) => ({
    nodeId,
    appliedIndex,
    cluster: "x",
    role: appliedIndex === 9 ? "leader" : "follower",
    leader: "node1",
    term: 4,
    revision: 3,
    compactRevision: 0,
    commitIndex: appliedIndex + 1,
    firstIndex: 1,
    lastIndex: 10,
    stateHash: "abc",
    keys: 2,
    diskBytes: 1024,
    version: "1.2.3",
    uptimeMs: 5,
    writeRefusal: appliedIndex === 9 ? "" : "full",
    members,
  });
  assertEquals(
    statusTable([
      { address: "a:1", status: status("node1", 9) },
      { address: "b:1", status: status("node2", 4) },
      { address: "c:1", error: "gone" },
      { address: "d:1", error: "gone" },
    ]),
    [
      "NODE   ADDRESS  ROLE         TERM  INDEX  LAG  REVISION  KEYS  HASH  SIZE   VERSION",
      "node1  a:1      leader       4     9      1    3         2     abc   1 KiB  1.2.3",
      "node2  b:1      follower     4     4      6    3         2     abc   1 KiB  1.2.3",
      "node3  c:1      unreachable",
      "?      d:1      unreachable",
      "node2 refuses writes: full",
    ],
  );
  setColorEnabled(true);
});

Deno.test("bench: quantiles are within a bucket of the truth", () => {
  const histogram = new Histogram();
  assertEquals(histogram.quantile(0.5), 0);
  for (let ms = 1; ms <= 1000; ms++) histogram.add(ms);
  const near = (quantile: number, truth: number) =>
    Math.abs(histogram.quantile(quantile) / truth - 1) <= 0.05;
  assertEquals([near(0.5, 500), near(0.99, 990)], [true, true]);
  assertEquals([histogram.max, histogram.quantile(1)], [1000, 1000]);
});
