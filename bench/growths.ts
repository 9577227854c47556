/**
 * What grows, measured at several sizes: keys, nodes, the size of values, watchers. Always dkv and
 * its client library. Used by `growth.ts`.
 *
 * @module
 */

import { type Client, connect } from "../client.ts";
import { eventually, TestCluster } from "../tests/cluster.ts";
import type { Cleanup } from "./cleanup.ts";
import { closedLoop, inBulk, type Issue } from "./load.ts";
import { warmMsOf } from "./plan.ts";
import { usageOf } from "./usage.ts";
import { keyOf, valueOf } from "./workloads.ts";

const VALUE_BYTES = 100;
const IN_FLIGHT = 256;
const BULK = 1024;
const TIMEOUT_MS = 20_000;
/** A node with millions of keys takes its time. */
const BACK_MS_MAX = 5 * 60_000;
const STRIDE = 7919;
/** Keys in clusters that are about something else. */
const KEYS = 10_000;
const LARGE_KEYS = 64;
const WATCHED_IN_FLIGHT = 16;

/** Sizes of clusters. */
export const NODES = [1, 3, 5];
/** Sizes of values, and how many are in flight. */
export const VALUES = [
  [10, 256],
  [100, 256],
  [1024, 256],
  [10 * 1024, 64],
  [64 * 1024, 16],
  [256 * 1024, 8],
  [1024 * 1024, 4],
] as const;
/** Numbers of watchers. */
export const WATCHERS = [0, 1, 10, 100];

/** A cluster with so many keys. */
export interface AtKeys {
  readonly keys: number;
  /** Puts a second while they were stored, 1,024 in flight. */
  readonly loadPerSecond: number;
  /** With 256 in flight, on keys that exist. */
  readonly putsPerSecond: number;
  readonly getsPerSecond: number;
  /** Resident memory of the largest of the nodes. */
  readonly memoryBytes: number;
  /** Database with its write-ahead log, of the largest. */
  readonly fileBytes: number;
  /** From the start of a process that was stopped until it serves what it had applied. */
  readonly restartMs: number;
  /** From the start of a process without data until it has caught up, by a snapshot. */
  readonly snapshotMs: number;
}

/** A cluster of so many nodes, 256 in flight. */
export interface AtNodes {
  readonly nodes: number;
  readonly putsPerSecond: number;
  readonly getsPerSecond: number;
}

/** Values of so many bytes. */
export interface AtValues {
  readonly bytes: number;
  readonly inFlight: number;
  readonly putsPerSecond: number;
  readonly mibPerSecond: number;
}

/** So many watchers of all keys that change. */
export interface AtWatchers {
  readonly watchers: number;
  readonly putsPerSecond: number;
  readonly deliveriesPerSecond: number;
}

/** Tells a person how far it is. */
export type Tell = (text: string) => void;

/** What the parts need. */
export interface Ground {
  readonly cleanup: Cleanup;
  readonly forMs: number;
  readonly tell: Tell;
}

/** Rates, memory, file, restart and snapshot, while the number of keys grows. */
export async function growKeys(
  sizes: readonly number[],
  { cleanup, forMs, tell }: Ground,
): Promise<AtKeys[]> {
  const cluster = await cleanup.own(() => TestCluster.start());
  const client = await cleanup.own(() => clientOf(cluster));
  const value = valueOf(VALUE_BYTES);
  const found: AtKeys[] = [];
  let stored = 0;
  for (const keys of sizes) {
    const from = stored;
    const count = keys - from;
    const issue = (n: number) => client.put(keyOf(from + n), value);
    const elapsedMs = await inBulk(issue, { count, inFlight: BULK });
    stored = keys;
    await agreed(cluster);
    tell(`${keys} keys stored`);
    const rates = await ratesOf(client, { keys, forMs });
    const pids = cluster.ids.map((id) => cluster.node(id).pid);
    const usage = await usageOf(pids);
    const memory = [...usage.values()].map(({ rssBytes }) => rssBytes);
    const restartMs = await restart(cluster);
    tell(`${keys} keys: restarted in ${Math.round(restartMs)} ms`);
    const snapshotMs = await rejoin(cluster);
    tell(`${keys} keys: back from nothing in ${Math.round(snapshotMs)} ms`);
    found.push({
      keys,
      loadPerSecond: Math.round(1000 * count / elapsedMs),
      ...rates,
      memoryBytes: Math.max(...memory),
      fileBytes: await largestFile(cluster),
      restartMs: Math.round(restartMs),
      snapshotMs: Math.round(snapshotMs),
    });
  }
  return found;
}

/** Rates of clusters of different sizes. */
export async function growNodes(
  { cleanup, forMs, tell }: Ground,
): Promise<AtNodes[]> {
  const found: AtNodes[] = [];
  for (const nodes of NODES) {
    const rates = await cleanup.within(async (inner) => {
      const cluster = await inner.own(() => TestCluster.start({ nodes }));
      const client = await inner.own(() => clientOf(cluster));
      await store(client);
      return await ratesOf(client, { keys: KEYS, forMs });
    });
    found.push({ nodes, ...rates });
    tell(`${nodes} nodes measured`);
  }
  return found;
}

/** Rates for values of different sizes. */
export async function growValues(
  { cleanup, forMs, tell }: Ground,
): Promise<AtValues[]> {
  const cluster = await cleanup.own(() => TestCluster.start());
  const client = await cleanup.own(() => clientOf(cluster));
  const found: AtValues[] = [];
  for (const [bytes, inFlight] of VALUES) {
    const value = valueOf(bytes);
    // As many keys as never are changed twice at the same time.
    const keys = Math.max(LARGE_KEYS, inFlight);
    const issue = (n: number) => client.put(`value/${n % keys}`, value);
    const perSecond = await rate(issue, { inFlight, forMs });
    found.push({
      bytes,
      inFlight,
      putsPerSecond: perSecond,
      mibPerSecond: Number((perSecond * bytes / 2 ** 20).toPrecision(3)),
    });
    tell(`values of ${bytes} bytes measured`);
  }
  return found;
}

/** Rates while more and more watchers look on. */
export async function growWatchers(
  { cleanup, forMs, tell }: Ground,
): Promise<AtWatchers[]> {
  const cluster = await cleanup.own(() => TestCluster.start());
  const client = await cleanup.own(() => clientOf(cluster));
  const value = valueOf(VALUE_BYTES);
  const put = (n: number) => client.put(`watched/${n % KEYS}`, value);
  const found: AtWatchers[] = [];
  await closedLoop(put, { inFlight: WATCHED_IN_FLIGHT, forMs });
  for (const count of WATCHERS) {
    let delivered = 0;
    const watches = Array.from(
      { length: count },
      () => client.watch({ prefix: "watched/" }),
    );
    await Promise.all(watches.map((watch) => watch.started()));
    const taken = watches.map(async (watch) => {
      for await (const _ of watch) delivered++;
    });
    const startMs = performance.now();
    const load = { inFlight: WATCHED_IN_FLIGHT, forMs };
    const { count: changes } = await closedLoop(put, load);
    const putMs = performance.now() - startMs;
    await eventually(
      "every change is delivered",
      () => delivered >= changes * count,
      BACK_MS_MAX,
    );
    const elapsedMs = performance.now() - startMs;
    for (const watch of watches) await watch[Symbol.asyncDispose]();
    await Promise.allSettled(taken);
    found.push({
      watchers: count,
      putsPerSecond: Math.round(1000 * changes / putMs),
      deliveriesPerSecond: Math.round(1000 * delivered / elapsedMs),
    });
    tell(`${count} watchers measured`);
  }
  return found;
}

function clientOf(cluster: TestCluster): Promise<Client> {
  return connect(cluster.addresses, { timeoutMs: TIMEOUT_MS });
}

async function store(client: Client): Promise<void> {
  const value = valueOf(VALUE_BYTES);
  const issue = (n: number) => client.put(keyOf(n), value);
  await inBulk(issue, { count: KEYS, inFlight: BULK });
}

async function ratesOf(
  client: Client,
  { keys, forMs }: { keys: number; forMs: number },
): Promise<{ putsPerSecond: number; getsPerSecond: number }> {
  const value = valueOf(VALUE_BYTES);
  const load = { inFlight: IN_FLIGHT, forMs };
  const put = (n: number) => client.put(keyOf((n * STRIDE) % keys), value);
  const get = (n: number) => client.get(keyOf((n * STRIDE) % keys));
  return {
    putsPerSecond: await rate(put, load),
    getsPerSecond: await rate(get, load),
  };
}

async function rate(
  issue: Issue,
  { inFlight, forMs }: { inFlight: number; forMs: number },
): Promise<number> {
  await closedLoop(issue, { inFlight, forMs: warmMsOf(forMs) });
  const { perSecond } = await closedLoop(issue, { inFlight, forMs });
  return Number(perSecond.toPrecision(4));
}

async function largestFile(cluster: TestCluster): Promise<number> {
  const states = await Promise.all(
    cluster.ids.map((id) =>
      cluster.call<{ diskBytes: number }>(id, "Cluster.Status", {})
    ),
  );
  return Math.max(...states.map(({ diskBytes }) => diskBytes));
}

/** Stops a follower and starts it again. */
async function restart(cluster: TestCluster): Promise<number> {
  const id = await aFollower(cluster);
  await agreed(cluster);
  const { appliedIndex } = await cluster.status(id);
  await cluster.stop(id);
  const startMs = performance.now();
  await cluster.restart(id);
  await applied(cluster, { id, index: appliedIndex });
  const elapsedMs = performance.now() - startMs;
  await agreed(cluster);
  return elapsedMs;
}

/** Takes a follower's data away and starts it as a new member. */
async function rejoin(cluster: TestCluster): Promise<number> {
  const id = await aFollower(cluster);
  const { appliedIndex } = await cluster.status(await cluster.leader());
  await cluster.kill(id);
  await Deno.remove(cluster.dataDir(id), { recursive: true });
  const startMs = performance.now();
  await cluster.restart(id, ["--rejoin"]);
  await applied(cluster, { id, index: appliedIndex });
  const elapsedMs = performance.now() - startMs;
  await eventually("the node is a voter again", async () => {
    const { members } = await cluster.status(await cluster.leader());
    return members.length === cluster.ids.length &&
      members.some((member) =>
        member.nodeId === id && member.suffrage === "voter"
      );
  }, BACK_MS_MAX);
  await agreed(cluster);
  return elapsedMs;
}

async function aFollower(cluster: TestCluster): Promise<string> {
  const [id = ""] = await cluster.followers();
  return id;
}

async function applied(
  cluster: TestCluster,
  { id, index }: { id: string; index: number },
): Promise<void> {
  await eventually(`${id} has applied ${index}`, async () => {
    const { appliedIndex } = await cluster.status(id);
    return appliedIndex >= index;
  }, BACK_MS_MAX);
}

/** Followers are done with what the leader has acknowledged. */
async function agreed(cluster: TestCluster): Promise<void> {
  await eventually("all nodes have applied the same", async () => {
    const states = await Promise.all(
      cluster.ids.map((id) => cluster.status(id)),
    );
    const indexes = new Set(states.map(({ appliedIndex }) => appliedIndex));
    return indexes.size === 1;
  }, BACK_MS_MAX);
}
