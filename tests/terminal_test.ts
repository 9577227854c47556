/** What people and pipes get to see. */

import { assertEquals } from "@std/assert";
import { setColorEnabled } from "@std/fmt/colors";
import { Histogram } from "../bench.ts";
import { statusTable } from "../overview.ts";
import { Output, readable, table, timeText } from "../terminal.ts";

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
