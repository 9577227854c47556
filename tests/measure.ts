/**
 * `deno task measure`: how fast a private three-node cluster on this machine is, client included.
 *
 *     deno task measure -- --seconds 5 --rounds 3
 *
 * Each row is the median of several rounds that take turns, so that a machine whose speed drifts
 * drifts for all rows alike. The status rows do next to nothing but one call of grpc-js: they tell
 * how fast the machine is at the time, so quote the others as ratios to them. Values are 100 bytes;
 * every write is on disk at a majority before it is acknowledged.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { type Client, connect } from "../client.ts";
import { taskArgs } from "../launch.ts";
import { eventually, TestCluster } from "./cluster.ts";
import { bytes } from "./load.ts";

const KEYS = 10_000;
const VALUE = new Uint8Array(100).fill(120);
const WARM_MS = 1000;

const options = parseArgs([...taskArgs(Deno.args)], {
  string: ["seconds", "rounds"],
});
const measureMs = 1000 * Number(options.seconds ?? 4);
const rounds = Number(options.rounds ?? 3);

interface Round {
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

interface Workload {
  readonly name: string;
  readonly inFlight: number;
  run(key: string): Promise<unknown>;
}

function workloads(
  client: Client,
  cluster: TestCluster,
  leader: string,
): Workload[] {
  const put = (key: string) => client.put(key, VALUE);
  const get = (key: string) => client.get(key);
  const unary = (key: string) =>
    cluster.call(
      leader,
      "KeyValue.Put",
      { key: bytes(key), value: VALUE },
      5000,
    );
  const status = () => cluster.call(leader, "Cluster.Status", {}, 5000);
  return [
    { name: "put, client library", inFlight: 1, run: put },
    { name: "put, client library", inFlight: 64, run: put },
    { name: "put, client library", inFlight: 256, run: put },
    { name: "put, unary calls", inFlight: 1, run: unary },
    { name: "put, unary calls", inFlight: 64, run: unary },
    { name: "get, client library", inFlight: 64, run: get },
    { name: "status, unary calls", inFlight: 1, run: status },
    { name: "status, unary calls", inFlight: 64, run: status },
  ];
}

async function measure(workload: Workload): Promise<Round> {
  await loops(workload, WARM_MS);
  const startMs = performance.now();
  const latenciesMs = await loops(workload, measureMs);
  const elapsedMs = performance.now() - startMs;
  const count = latenciesMs.length;
  latenciesMs.sort((a, b) => a - b);
  const at = (share: number) => latenciesMs[Math.floor(count * share)] ?? NaN;
  return {
    perSecond: 1000 * count / elapsedMs,
    p50Ms: at(0.5),
    p99Ms: at(0.99),
  };
}

/** As many loops as operations are in flight, each awaiting its own. */
async function loops(
  { inFlight, run }: Workload,
  forMs: number,
): Promise<number[]> {
  const latenciesMs: number[] = [];
  const endMs = performance.now() + forMs;
  let next = 0;
  const loop = async () => {
    for (let now = performance.now(); now < endMs;) {
      await run(`key/${next++ % KEYS}`);
      const after = performance.now();
      latenciesMs.push(after - now);
      now = after;
    }
  };
  await Promise.all(Array.from({ length: inFlight }, loop));
  return latenciesMs;
}

/** Kills the leader under load and tells how long no write was acknowledged. */
async function gapMs(client: Client, cluster: TestCluster): Promise<number> {
  let lastMs = performance.now();
  let longestMs = 0;
  let running = true;
  const load = Array.from({ length: 16 }, async (_, at) => {
    while (running) {
      await client.put(`gap/${at}`, VALUE).catch(() => {});
      const now = performance.now();
      longestMs = Math.max(longestMs, now - lastMs);
      lastMs = now;
    }
  });
  await new Promise((resolve) => setTimeout(resolve, 500));
  const leader = await cluster.leader();
  longestMs = 0;
  await cluster.kill(leader);
  await eventually(
    "writes flow again",
    () => longestMs > 100 && performance.now() - lastMs < 50,
  );
  await new Promise((resolve) => setTimeout(resolve, 500));
  running = false;
  await Promise.all(load);
  await cluster.restart(leader);
  await cluster.agreed();
  return longestMs;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? NaN;
}

async function main(): Promise<void> {
  await using cluster = await TestCluster.start();
  await using client = await connect(cluster.addresses);
  const all = workloads(client, cluster, await cluster.leader());
  const results = all.map((): Round[] => []);
  for (let round = 0; round < rounds; round++) {
    for (const [at, workload] of all.entries()) {
      results[at]?.push(await measure(workload));
    }
  }
  console.log(
    "workload              in flight   per second   p50 ms   p99 ms",
  );
  for (const [at, { name, inFlight }] of all.entries()) {
    const of = (pick: (round: Round) => number) =>
      median((results[at] ?? []).map(pick));
    console.log(
      name.padEnd(22) + String(inFlight).padStart(9) +
        of((r) => r.perSecond).toFixed(0).padStart(13) +
        of((r) => r.p50Ms).toFixed(2).padStart(9) +
        of((r) => r.p99Ms).toFixed(2).padStart(9),
    );
  }
  const gaps: number[] = [];
  for (let round = 0; round < rounds; round++) {
    gaps.push(await gapMs(client, cluster));
  }
  const shown = gaps.map((gap) => gap.toFixed(0)).join(", ");
  console.log(
    `leader killed under load: no write acknowledged for ${shown} ms`,
  );
}

await main();
Deno.exit();
