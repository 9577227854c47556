/**
 * Log lines stay one line each, and what was counted is what is shown.
 *
 * @module
 */

import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { AssertionError } from "../errors.ts";
import { Histogram, Logger, type LogLevel, Metrics } from "../metrics.ts";

function capture(level?: LogLevel): { lines: string[]; log: Logger } {
  const lines: string[] = [];
  const log = new Logger({
    node: "node1",
    ...(level === undefined ? {} : { level }),
    sink: (line) => lines.push(line),
    now: () => Date.UTC(2026, 10, 22, 21, 45, 28, 123),
  });
  return { lines, log };
}

Deno.test("metrics: a log line has time, level, node, message and fields", () => {
  const { lines, log } = capture();
  log.info("became leader", { term: 3, lastIndex: 17 });
  log.error("Cannot write", { path: "a b", missing: undefined, empty: "" });
  assertEquals(lines, [
    "2026-11-22T21:45:28.123Z info  node1 became leader term=3 lastIndex=17",
    '2026-11-22T21:45:28.123Z error node1 Cannot write path="a b" empty=""',
  ]);
});

Deno.test("metrics: lines below the level are dropped", () => {
  for (
    const [level, expected] of [
      ["debug", 4],
      [undefined, 3],
      ["info", 3],
      ["warn", 2],
      ["error", 1],
    ] as const
  ) {
    const { lines, log } = capture(level);
    log.debug("a");
    log.info("b");
    log.warn("c");
    log.error("d");
    assertEquals(lines.length, expected, level);
    assertEquals(
      log.with({ group: "default" }).writes("debug"),
      expected === 4,
    );
    assertEquals(log.with({}).writes("error"), true);
  }
});

Deno.test("metrics: a line stays one line, whatever stands in it", () => {
  const { lines, log } = capture();
  log.warn("a\nb\r\x1b[31mc", {
    text: 'x="1"\n2',
    error: new Error("no\nway"),
    list: [1, 2n],
    big: 2n ** 63n,
    long: "l".repeat(10_000),
  });
  const [line = ""] = lines;
  assertEquals(/\p{Cc}/u.test(line), false);
  assertStringIncludes(
    line,
    String.raw`a b [31mc text="x=\"1\"\n2" error="no\nway"`,
  );
  assertStringIncludes(
    line,
    String.raw`list="[1,\"2\"]" big=9223372036854775808`,
  );
  assertEquals(line.length < 700, true);
});

Deno.test("metrics: a logger with fields adds them to each line", () => {
  const { lines, log } = capture();
  log.with({ group: "default" }).with({ peer: "node2" }).info("up", {
    peer: 3,
  });
  assertStringIncludes(lines[0] ?? "", "node1 up group=default peer=3");
});

Deno.test("metrics: a histogram counts a value in the first bucket that holds it", () => {
  const histogram = new Histogram([1, 2, 4]);
  for (const value of [0, 1, 1.5, 2, 4, 5, 100]) histogram.observe(value);
  assertEquals(histogram.cumulative(), [2, 4, 5, 7]);
  assertEquals([histogram.count, histogram.sum], [7, 113.5]);
  assertThrows(() => new Histogram([1, 1]), AssertionError, "1 before 1");
});

Deno.test("metrics: everything is rendered in the Prometheus format", async () => {
  const metrics = new Metrics();
  const puts = metrics.counter("dkv_operations_total", {
    help: "Operations answered.",
    labels: { kind: "put" },
  });
  const gets = metrics.counter("dkv_operations_total", {
    help: "Operations answered.",
    labels: { kind: "get" },
  });
  let keys = 1;
  metrics.gauge("dkv_keys", { help: "Keys.", read: () => keys });
  const turns = metrics.histogram("dkv_turn_seconds", {
    help: "Duration of a turn.",
    labels: { group: "default" },
    bounds: [0.5, 2],
  });
  puts.add();
  puts.add(2);
  gets.add(5);
  turns.observe(0.25);
  turns.observe(1);
  turns.observe(8);
  keys = 42;
  const text = await metrics.render();
  assertEquals(text.split("\n").filter((line) => line !== ""), [
    "# HELP dkv_operations_total Operations answered.",
    "# TYPE dkv_operations_total counter",
    'dkv_operations_total{kind="put"} 3',
    'dkv_operations_total{kind="get"} 5',
    "# HELP dkv_keys Keys.",
    "# TYPE dkv_keys gauge",
    "dkv_keys 42",
    "# HELP dkv_turn_seconds Duration of a turn.",
    "# TYPE dkv_turn_seconds histogram",
    'dkv_turn_seconds_bucket{group="default",le="0.5"} 1',
    'dkv_turn_seconds_bucket{group="default",le="2"} 2',
    'dkv_turn_seconds_bucket{group="default",le="+Inf"} 3',
    'dkv_turn_seconds_sum{group="default"} 9.25',
    'dkv_turn_seconds_count{group="default"} 3',
  ]);
});

Deno.test("metrics: a metric is registered once and under one type", () => {
  const metrics = new Metrics();
  const help = "Something.";
  metrics.counter("a_total", { help, labels: { x: "1", y: "2" } });
  const again = { help, labels: { y: "2", x: "1" } };
  assertThrows(
    () => metrics.counter("a_total", again),
    AssertionError,
    "twice",
  );
  assertThrows(
    () => metrics.gauge("a_total", { help, read: () => 1 }),
    AssertionError,
    "a_total is a counter and a gauge",
  );
  assertThrows(() => metrics.counter("b", { help }), AssertionError, "_total");
  assertThrows(
    () => metrics.gauge("b c", { help, read: () => 1 }),
    AssertionError,
    "b c is no name",
  );
  const counter = metrics.counter("c_total", { help });
  assertThrows(() => counter.add(-1), AssertionError, "-1");
});
