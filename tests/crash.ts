/**
 * `deno task crash`: kills nodes of a real cluster with SIGKILL at random moments under write load,
 * again and again, and checks after each kill that nothing acknowledged is lost and that the
 * replicas are equal.
 *
 *     deno task crash -- --runs 200 --seed 7 --seconds 1500
 *
 * SIGKILL leaves the system's page cache alone, so this proves the order of writes and of answers,
 * not the fsync; that is what the simulator's disk is for.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { TestCluster } from "./cluster.ts";
import { Writers } from "./load.ts";
import { taskArgs } from "../launch.ts";

/** A cluster is replaced after this many runs, so that old and young logs are both met. */
const RUNS_PER_CLUSTER = 20;
/** The kill comes at a random moment within this time. */
const LOAD_MS_MAX = 800;
const WRITES_AFTER = 50;

const options = parseArgs([...taskArgs(Deno.args)], {
  string: ["runs", "seed", "seconds"],
});
const runs = Number(options.runs ?? 200);
const seed = Number(options.seed ?? Date.now() % 1_000_000);
const endMs = performance.now() + 1000 * Number(options.seconds ?? 1500);

const VICTIMS = ["leader", "follower", "two", "all"] as const;
type Victims = typeof VICTIMS[number];

let state = seed >>> 0;

/** A whole number below `bound`, from the seed (xorshift). */
function random(bound: number): number {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  return (state >>> 0) % bound;
}

async function chosen(
  cluster: TestCluster,
  victims: Victims,
): Promise<string[]> {
  const leader = await cluster.leader();
  const followers = cluster.ids.filter((id) => id !== leader);
  switch (victims) {
    case "leader":
      return [leader];
    case "follower":
      return followers.slice(0, 1);
    case "two":
      return [leader, ...followers.slice(0, 1)];
    case "all":
      return [...cluster.ids];
  }
}

/** One kill and its verification; returns how many writes were acknowledged and the longest gap. */
async function crash(
  cluster: TestCluster,
  options: { run: number; victims: Victims },
): Promise<{ acknowledged: number; gapMs: number }> {
  await using writers = new Writers(cluster, { prefix: `run${options.run}` });
  await writers.more(10 + random(40));
  const killed = await chosen(cluster, options.victims);
  await new Promise((resolve) => setTimeout(resolve, random(LOAD_MS_MAX)));
  await Promise.all(killed.map((id) => cluster.kill(id)));
  // Sometimes the rest goes on alone for a while, sometimes everybody is back at once.
  if (killed.length === 1 && random(2) === 0) await writers.more(WRITES_AFTER);
  await Promise.all(killed.map((id) => cluster.restart(id)));
  await writers.more(WRITES_AFTER);
  await writers.stop();
  await cluster.agreed();
  await writers.verify();
  return { acknowledged: writers.acknowledged, gapMs: writers.longestGapMs };
}

async function main(): Promise<void> {
  console.log(`crash: ${runs} runs, seed ${seed}`);
  const startedMs = performance.now();
  let cluster: TestCluster | null = null;
  let acknowledged = 0;
  const gapsMs: number[] = [];
  let run = 0;
  try {
    for (; run < runs && performance.now() < endMs; run++) {
      if (cluster === null || run % RUNS_PER_CLUSTER === 0) {
        await cluster?.[Symbol.asyncDispose]();
        cluster = await TestCluster.start({
          // A short log now and then, so that snapshots are among what is interrupted.
          settings: random(2) === 0 ? { catchUpEntries: 50 } : {},
        });
      }
      const victims = VICTIMS[random(VICTIMS.length)] ?? "leader";
      const result = await crash(cluster, { run, victims });
      acknowledged += result.acknowledged;
      if (victims === "leader") gapsMs.push(result.gapMs);
      console.log(
        `run ${run} ${
          victims.padEnd(8)
        } ${result.acknowledged} writes acknowledged, ` +
          `longest gap ${Math.round(result.gapMs)} ms`,
      );
    }
  } catch (error) {
    console.error(
      `crash: run ${run} of seed ${seed} failed: ${(error as Error).message}`,
    );
    Deno.exitCode = 1;
  } finally {
    await cluster?.[Symbol.asyncDispose]();
  }
  gapsMs.sort((a, b) => a - b);
  const median = gapsMs[gapsMs.length >> 1] ?? 0;
  console.log(
    `crash: ${run} of ${runs} runs in ${
      Math.round((performance.now() - startedMs) / 1000)
    } s, ` +
      `${acknowledged} writes acknowledged and read back; after a leader's death writes flow ` +
      `again within ${Math.round(median)} ms (median), ${
        Math.round(gapsMs.at(-1) ?? 0)
      } ms (longest)`,
  );
  if (run < runs) Deno.exitCode = 1;
}

await main();
Deno.exit();
