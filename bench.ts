/**
 * `dkv bench`: how many puts and gets a cluster does for one client process, and how long each
 * takes. Small on purpose: enough to compare two machines or two networks. Used by `cli.ts`.
 *
 * @module
 */

import { type Arguments, EXIT, UsageError } from "./arguments.ts";
import type { Client } from "./client.ts";
import { LIMITS } from "./config.ts";
import { DkvError } from "./errors.ts";
import { connectTo, exitOf, type Invocation } from "./invocation.ts";
import { countText, note, oneLine, Stop, table } from "./terminal.ts";

const CLIENTS = 64;
const CLIENTS_MAX = 10_000;
const SECONDS = 3;
const SECONDS_MAX = 3600;
const VALUE_BYTES = 100;
/** Every caller writes and reads its own, so gets are of keys that exist. */
const KEYS_PER_CLIENT = 16;
/** Each bucket of a histogram is wider than the one before by this factor. */
const BUCKET_GROWTH = 1.05;
const LATENCY_MS_MIN = 0.01;

/** What one kind of operation came to. */
interface Measured {
  readonly operation: string;
  readonly count: number;
  readonly failed: number;
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

/** `dkv bench`: under a prefix of its own, which is deleted at the end. */
export async function bench(invocation: Invocation): Promise<number> {
  const { args } = invocation;
  args.take();
  const clients = args.number("clients", { min: 1, max: CLIENTS_MAX }) ??
    CLIENTS;
  const seconds = secondsOf(args);
  const valueBytes = args.number("value-bytes", {
    max: LIMITS.valueBytesMax,
  }) ?? VALUE_BYTES;
  const value = crypto.getRandomValues(
    new Uint8Array(Math.min(valueBytes, 64)),
  );
  using stop = new Stop();
  await using client = await connectTo(args, { stop });
  const prefix = `bench/${crypto.randomUUID()}/`;
  const load = new Load({
    client,
    prefix,
    clients,
    value: repeated(value, valueBytes),
  });
  try {
    const rows: Measured[] = [];
    for (const operation of ["put", "get"] as const) {
      rows.push(await load.run(operation, { seconds, signal: stop.signal }));
    }
    if (stop.told !== null) return exitOf(stop.told);
    await report(invocation, rows);
    const [error] = load.errors;
    if (error !== undefined) {
      note(`dkv: ${oneLine(error.message)} (${error.code})`);
    }
    return error === undefined ? EXIT.done : EXIT.error;
  } finally {
    await client.delete({ prefix });
  }
}

function secondsOf(args: Arguments): number {
  const text = args.text("seconds");
  if (text === undefined) return SECONDS;
  const seconds = Number(text);
  if (/^[0-9.]+$/.test(text) && seconds > 0 && seconds <= SECONDS_MAX) {
    return seconds;
  }
  throw new UsageError(
    `--seconds takes a number up to ${SECONDS_MAX}, not ${text}`,
  );
}

/** Random enough that nothing on the way can make it small. */
function repeated(bytes: Uint8Array, length: number): Uint8Array {
  const value = new Uint8Array(length);
  for (let at = 0; at < length; at += bytes.length) {
    value.set(bytes.subarray(0, length - at), at);
  }
  return value;
}

/** Callers that ask one thing after the other. */
class Load {
  /** The first few. */
  readonly errors: DkvError[] = [];
  readonly #client: Client;
  readonly #prefix: string;
  readonly #clients: number;
  readonly #value: Uint8Array;

  constructor(
    fields: {
      client: Client;
      prefix: string;
      clients: number;
      value: Uint8Array;
    },
  ) {
    this.#client = fields.client;
    this.#prefix = fields.prefix;
    this.#clients = fields.clients;
    this.#value = fields.value;
  }

  async run(
    operation: "put" | "get",
    { seconds, signal }: { seconds: number; signal: AbortSignal },
  ): Promise<Measured> {
    const histogram = new Histogram();
    const startMs = performance.now();
    const endMs = startMs + 1000 * seconds;
    let failed = 0;
    const caller = async (id: number) => {
      for (let at = 0; !signal.aborted; at++) {
        const beganMs = performance.now();
        if (beganMs >= endMs) return;
        const key = `${this.#prefix}${id}/${at % KEYS_PER_CLIENT}`;
        try {
          if (operation === "put") await this.#client.put(key, this.#value);
          else await this.#client.get(key);
          histogram.add(performance.now() - beganMs);
        } catch (error) {
          if (!(error instanceof DkvError)) throw error;
          failed++;
          if (this.errors.length < 10) this.errors.push(error);
        }
      }
    };
    await Promise.all(
      Array.from({ length: this.#clients }, (_, id) => caller(id)),
    );
    const elapsedMs = performance.now() - startMs;
    return {
      operation,
      count: histogram.count,
      failed,
      perSecond: Math.round(1000 * histogram.count / elapsedMs),
      p50Ms: rounded(histogram.quantile(0.5)),
      p99Ms: rounded(histogram.quantile(0.99)),
      maxMs: rounded(histogram.max),
    };
  }
}

function rounded(ms: number): number {
  return Number(ms.toPrecision(3));
}

/** Latencies in buckets, each 5 % wider than the one before: memory does not grow with time. */
export class Histogram {
  count = 0;
  max = 0;
  readonly #buckets: number[] = [];

  /** Takes a latency. */
  add(ms: number): void {
    this.count++;
    this.max = Math.max(this.max, ms);
    const at = Math.floor(
      Math.log(Math.max(1, ms / LATENCY_MS_MIN)) / Math.log(BUCKET_GROWTH),
    );
    this.#buckets[at] = (this.#buckets[at] ?? 0) + 1;
  }

  /** A share of all latencies is at most this, to within 5 %; 0 if there are none. */
  quantile(share: number): number {
    let left = Math.ceil(share * this.count);
    for (const [at, count = 0] of this.#buckets.entries()) {
      left -= count;
      if (left > 0) continue;
      return Math.min(this.max, LATENCY_MS_MIN * BUCKET_GROWTH ** (at + 1));
    }
    return this.max;
  }
}

async function report(
  { args, out }: Invocation,
  rows: readonly Measured[],
): Promise<void> {
  if (args.flag("json")) {
    for (const row of rows) await out.line(JSON.stringify(row));
    return;
  }
  const headings = ["OPERATION", "PER SECOND", "P50 MS", "P99 MS", "MAX MS"];
  const cells = rows.map(({ operation, perSecond, p50Ms, p99Ms, maxMs }) => [
    operation,
    countText(perSecond),
    String(p50Ms),
    String(p99Ms),
    String(maxMs),
  ]);
  for (const line of table(headings, cells)) await out.line(line);
  const failed = rows.reduce((sum, row) => sum + row.failed, 0);
  if (failed > 0) await out.line(`${countText(failed)} operations failed`);
}
