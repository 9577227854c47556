/**
 * What a node tells about itself: log lines, one for each thing that happened, and counters,
 * gauges and histograms in the Prometheus format.
 *
 *     2026-11-22T21:45:28.123Z info  node1 became leader term=3 lastIndex=17
 *
 * Counting is on the path of every operation, so a counter is a number in an object (prom-client's
 * own cost 0.05 to 0.8 µs for each observation); prom-client turns them into text when someone asks.
 *
 * Used by the node and everything that runs in it; the core reports through its effects instead.
 *
 * @module
 */

import type { Metric, Registry } from "prom-client";
import { assert } from "./errors.ts";

/** How much a line matters, least first. */
export const LOG_LEVELS = ["debug", "info", "warn", "error"] as const;

/** One of {@linkcode LOG_LEVELS}. */
export type LogLevel = (typeof LOG_LEVELS)[number];

/** What stands behind the message: `term=3`. A field that is undefined is left out. */
export type LogFields = Readonly<Record<string, unknown>>;

/** Takes a finished line, without its end. */
export type LogSink = (line: string, level: LogLevel) => void;

/** Options of {@linkcode Logger}. */
export interface LoggerOptions {
  /** Who speaks. */
  readonly node: string;
  /** Lines below this level are dropped. Default: info. */
  readonly level?: LogLevel;
  /** Where lines go. Default: standard error. */
  readonly sink?: LogSink;
  /** Milliseconds since 1970. Default: the system's clock. */
  readonly now?: () => number;
}

/** A value in a line is cut after this many characters, a message too. */
const LOG_VALUE_CHARACTERS_MAX = 500;

/** Writes log lines. */
export class Logger {
  readonly #node: string;
  readonly #rank: number;
  readonly #sink: LogSink;
  readonly #now: () => number;
  readonly #fields: LogFields;

  constructor(options: LoggerOptions, fields: LogFields = {}) {
    this.#node = options.node;
    this.#rank = LOG_LEVELS.indexOf(options.level ?? "info");
    this.#sink = options.sink ?? ((line) => console.error(line));
    this.#now = options.now ?? Date.now;
    this.#fields = fields;
  }

  /** A logger that adds fields to each line. */
  with(fields: LogFields): Logger {
    const level = LOG_LEVELS[this.#rank];
    assert(level !== undefined, `No log level has the rank ${this.#rank}`);
    return new Logger(
      { node: this.#node, level, sink: this.#sink, now: this.#now },
      { ...this.#fields, ...fields },
    );
  }

  /** True if a line of this level would be written: to spare the making of costly fields. */
  writes(level: LogLevel): boolean {
    return LOG_LEVELS.indexOf(level) >= this.#rank;
  }

  /** What only someone who hunts a defect wants to read. */
  debug(message: string, fields?: LogFields): void {
    this.#write("debug", message, fields);
  }

  /** What happens in a healthy cluster, seldom. */
  info(message: string, fields?: LogFields): void {
    this.#write("info", message, fields);
  }

  /** What an operator should know and the node copes with. */
  warn(message: string, fields?: LogFields): void {
    this.#write("warn", message, fields);
  }

  /** What the node cannot cope with. */
  error(message: string, fields?: LogFields): void {
    this.#write("error", message, fields);
  }

  #write(level: LogLevel, message: string, fields: LogFields = {}): void {
    if (!this.writes(level)) return;
    const time = new Date(this.#now()).toISOString();
    const parts = [time, level.padEnd(5), this.#node, oneLine(cut(message))];
    for (
      const [name, value] of Object.entries({ ...this.#fields, ...fields })
    ) {
      if (value !== undefined) parts.push(`${name}=${showValue(value)}`);
    }
    this.#sink(parts.join(" "), level);
  }
}

/** Only grows. */
export class Counter {
  #value = 0;

  get value(): number {
    return this.#value;
  }

  add(amount = 1): void {
    assert(amount >= 0, `A counter cannot grow by ${amount}`);
    this.#value += amount;
  }
}

/** Counts observations by size. */
export class Histogram {
  /** Upper bounds, ascending, each inclusive; above the last there is one more bucket. */
  readonly bounds: readonly number[];
  /** `counts[i]` observations were at most `bounds[i]` and above `bounds[i - 1]`. */
  readonly #counts: Float64Array;
  #sum = 0;

  constructor(bounds: readonly number[]) {
    for (const [at, bound] of bounds.entries()) {
      const before = bounds[at - 1] ?? -Infinity;
      assert(before < bound, `Bounds must ascend: ${before} before ${bound}`);
    }
    this.bounds = [...bounds];
    this.#counts = new Float64Array(bounds.length + 1);
  }

  observe(value: number): void {
    let bucket = 0;
    const { bounds } = this;
    // Few bounds, and most observations are small: a plain scan beats bisection.
    while (bucket < bounds.length && value > (bounds[bucket] ?? Infinity)) {
      bucket++;
    }
    this.#counts[bucket] = (this.#counts[bucket] ?? 0) + 1;
    this.#sum += value;
  }

  get sum(): number {
    return this.#sum;
  }

  get count(): number {
    return this.#counts.reduce((total, count) => total + count, 0);
  }

  /** For each bound, then for infinity: how many observations were at most that. */
  cumulative(): number[] {
    let total = 0;
    return Array.from(this.#counts, (count) => total += count);
  }
}

/** Bounds for durations in seconds, 0.25 ms to 10 s. */
export const DURATION_BOUNDS_S: readonly number[] = [
  0.00025,
  0.0005,
  0.001,
  0.0025,
  0.005,
  0.01,
  0.025,
  0.05,
  0.1,
  0.25,
  0.5,
  1,
  2.5,
  5,
  10,
];

/** Bounds for counts of things that are handled together, 1 to 4096. */
export const BATCH_BOUNDS: readonly number[] = [
  1,
  2,
  4,
  8,
  16,
  32,
  64,
  128,
  256,
  512,
  1024,
  2048,
  4096,
];

/** What a metric is called and what tells it from others of the same name. */
export interface MetricOptions {
  /** A sentence. */
  readonly help: string;
  /** For example `{ method: "Put" }`. */
  readonly labels?: Readonly<Record<string, string>>;
}

/** One number of a metric, as prom-client takes it. */
interface Sample {
  readonly labels: Record<string, string | number>;
  readonly value: number;
  /** Where it differs from the metric's: `…_bucket`, `…_sum`, `…_count`. */
  readonly metricName?: string;
}

/** All metrics of one name. */
interface Family {
  readonly type: "counter" | "gauge" | "histogram";
  readonly help: string;
  /** By labels, written as JSON: a combination exists once. */
  readonly members: Map<string, () => Sample[]>;
}

/** Different metrics of one node: more is a defect, such as a key used as a label. */
const METRICS_MAX = 1000;

/** The metrics of one node. */
export class Metrics {
  readonly #families = new Map<string, Family>();
  #count = 0;

  /** Registers a counter; its name ends in `_total`. */
  counter(name: string, options: MetricOptions): Counter {
    assert(name.endsWith("_total"), `Counter ${name} does not end in _total`);
    const counter = new Counter();
    const labels = { ...options.labels };
    this.#register("counter", name, {
      ...options,
      read: () => [{ labels, value: counter.value }],
    });
    return counter;
  }

  /** Registers a number that is read when someone asks. */
  gauge(name: string, options: MetricOptions & { read: () => number }): void {
    const labels = { ...options.labels };
    this.#register("gauge", name, {
      ...options,
      read: () => [{ labels, value: options.read() }],
    });
  }

  /** Registers a histogram; its name ends in its unit: `_seconds`, `_bytes`, `_count`. */
  histogram(
    name: string,
    options: MetricOptions & { bounds: readonly number[] },
  ): Histogram {
    const histogram = new Histogram(options.bounds);
    const labels = { ...options.labels };
    this.#register("histogram", name, {
      ...options,
      read: () => histogramSamples(name, labels, histogram),
    });
    return histogram;
  }

  /** Everything in the Prometheus text format, version 0.0.4. */
  async render(): Promise<string> {
    // Loaded when someone asks: a node starts sooner without it.
    const { Registry } = await import("prom-client");
    const registry: Registry = new Registry();
    for (const [name, family] of this.#families) {
      registry.registerMetric(asMetric(name, family));
    }
    return await registry.metrics();
  }

  #register(
    type: Family["type"],
    name: string,
    options: MetricOptions & { read: () => Sample[] },
  ): void {
    assert(/^[a-z][a-z0-9_]*$/.test(name), `${name} is no name for a metric`);
    assert(
      this.#count < METRICS_MAX,
      `More than ${METRICS_MAX} metrics: ${name}`,
    );
    this.#count++;
    let family = this.#families.get(name);
    if (family === undefined) {
      family = { type, help: options.help, members: new Map() };
      this.#families.set(name, family);
    }
    assert(family.type === type, `${name} is a ${family.type} and a ${type}`);
    const key = JSON.stringify(Object.entries(options.labels ?? {}).sort());
    assert(!family.members.has(key), `${name} ${key} is registered twice`);
    family.members.set(key, options.read);
  }
}

/** prom-client asks a metric for its name and, through `get`, for its numbers; no more. */
function asMetric(name: string, family: Family): Metric {
  const metric = {
    name,
    help: family.help,
    type: family.type,
    get: () =>
      Promise.resolve({
        name,
        help: family.help,
        type: family.type,
        aggregator: "sum",
        values: [...family.members.values()].flatMap((read) => read()),
      }),
  };
  return metric as unknown as Metric;
}

function histogramSamples(
  name: string,
  labels: Record<string, string>,
  histogram: Histogram,
): Sample[] {
  const samples: Sample[] = [];
  const cumulative = histogram.cumulative();
  for (const [at, value] of cumulative.entries()) {
    const le = histogram.bounds[at] ?? "+Inf";
    samples.push({
      labels: { ...labels, le },
      value,
      metricName: `${name}_bucket`,
    });
  }
  samples.push({ labels, value: histogram.sum, metricName: `${name}_sum` });
  samples.push({ labels, value: histogram.count, metricName: `${name}_count` });
  return samples;
}

/** A value as one word, or in quotes. */
function showValue(value: unknown): string {
  const text = cut(plainText(value));
  return /^[^\s"=\p{Cc}]+$/u.test(text) ? text : oneLine(JSON.stringify(text));
}

function plainText(value: unknown): string {
  if (typeof value === "string") return value;
  if (value instanceof Error) return value.message;
  if (typeof value !== "object" || value === null) return String(value);
  return JSON.stringify(
    value,
    (_, inner: unknown) => typeof inner === "bigint" ? `${inner}` : inner,
  );
}

function cut(text: string): string {
  if (text.length <= LOG_VALUE_CHARACTERS_MAX) return text;
  return `${text.slice(0, LOG_VALUE_CHARACTERS_MAX)}…`;
}

/** Texts from outside may hold line ends and terminal controls: a line stays one line. */
function oneLine(text: string): string {
  return text.replace(/[\s\p{Cc}]+/gu, " ");
}
