/**
 * `deno task kv:diff` and `deno task kv:bars`: what Deno KV over a cluster must bear, on a cluster of
 * its own.
 *
 *     diff   random sequences of 40 operations on the cluster and on `:memory:`, all answers equal
 *     bars   what one client sets in a second, and 16 clients that increment one key while the leader
 *            is killed again and again
 *
 * A client sends a write again by itself if its connection breaks, and its program does not learn of
 * it. With a check the second one fails. Sums without one go through a balancer that counts what is on
 * the wire: each of those may be applied once, and none twice.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { taskArgs } from "../launch.ts";
import { TestCluster } from "./cluster.ts";
import { Balancer } from "./kv/balancer.ts";
import { lastLine, run, start } from "./kv/process.ts";

const USAGE = `Usage: deno task kv:diff [-- --seed N --sequences 5000]
       deno task kv:bars [-- --seconds 30 --every 5 --only add|check|set]`;
const CLIENTS = 16;
const LOOPS = 64;

/** What an increment run came to. */
interface Increments {
  readonly acknowledged: number;
  readonly attempted: number;
  readonly errors: number;
  readonly longestMs: number;
  /** Numbers that were written with a check: each once, or two writes passed the same check. */
  readonly written: readonly number[];
}

async function main(): Promise<number> {
  const [mode = "", ...rest] = Deno.args;
  const { seed, sequences, seconds, every, only, help } = parseArgs(
    [...taskArgs(rest)],
    {
      string: ["seed", "sequences", "seconds", "every", "only"],
      boolean: ["help"],
      default: {
        seed: String(crypto.getRandomValues(new Uint32Array(1))[0]),
        sequences: "5000",
        seconds: "30",
        every: "5",
        only: "",
      },
    },
  );
  if (help || mode !== "diff" && mode !== "bars") {
    console.log(USAGE);
    return help ? 0 : 2;
  }
  await using cluster = await TestCluster.start({
    kvConnect: { databases: [{ name: "default" }] },
  });
  const urls = cluster.ids.map((id) => cluster.httpUrl(id));
  if (mode === "diff") {
    console.log(`${sequences} sequences, seed ${seed}`);
    const args = [seed, sequences, ...urls];
    console.log((await run("differ.ts", { args })).trim());
    return 0;
  }
  const times = { seconds: Number(seconds), every: Number(every) };
  let isGood = true;
  if (only === "" || only === "set") await rates(cluster, times.seconds / 3);
  if (only === "" || only === "add") isGood = await sums(cluster, times);
  if (only === "" || only === "check") {
    isGood = await checks(cluster, times) && isGood;
  }
  return isGood ? 0 : 1;
}

async function rates(cluster: TestCluster, seconds: number): Promise<void> {
  const leader = await cluster.leader();
  const [follower = leader] = await cluster.followers();
  for (const [role, id] of [["leader", leader], ["follower", follower]]) {
    const url = cluster.httpUrl(id ?? leader);
    const args = ["set", String(seconds), String(LOOPS), url];
    const { perSecond } = JSON.parse(await run("load.js", { args }));
    console.log(`kv.set, ${LOOPS} loops at the ${role}: ${perSecond}/s`);
  }
}

interface Times {
  readonly seconds: number;
  readonly every: number;
}

/** Sums without a check, through a balancer. True if the key says what was told and sent. */
async function sums(cluster: TestCluster, times: Times): Promise<boolean> {
  const urls = cluster.ids.map((id) => cluster.httpUrl(id));
  await using balancer = new Balancer(urls);
  const { told, value, kills } = await increments(cluster, {
    kind: "add",
    urls: [balancer.url],
    ...times,
  });
  const sent = balancer.writes;
  const isGood = told.acknowledged <= value && value <= sent;
  console.log(
    `sums: ${told.acknowledged} acknowledged <= ${value} in the store <= ${sent} sent, counted on ` +
      `the wire (programs attempted ${told.attempted}); ${
        rest(told, kills)
      }: ` +
      (isGood ? "as it must be" : "NOT AS IT MUST BE"),
  );
  return isGood;
}

/** Writes with a check, at the nodes themselves. True if each was applied once. */
async function checks(cluster: TestCluster, times: Times): Promise<boolean> {
  const urls = cluster.ids.map((id) => cluster.httpUrl(id));
  const { told, value, kills } = await increments(cluster, {
    kind: "check",
    urls,
    ...times,
  });
  const repeated = told.written.length - new Set(told.written).size;
  const isGood = repeated === 0 && told.acknowledged <= value &&
    value <= told.attempted;
  console.log(
    `checked writes: ${told.acknowledged} acknowledged <= ${value} in the store <= ` +
      `${told.attempted} attempted by programs, ${repeated} passed the same check twice; ` +
      `${rest(told, kills)}: ${isGood ? "as it must be" : "NOT AS IT MUST BE"}`,
  );
  return isGood;
}

function rest({ errors, longestMs }: Increments, kills: number): string {
  return `${kills} leaders killed, ${errors} errors, longest wait ${longestMs} ms`;
}

/** Lets clients increment a key while leaders die. */
async function increments(
  cluster: TestCluster,
  { kind, urls, seconds, every }: Times & {
    kind: "add" | "check";
    urls: readonly string[];
  },
): Promise<{ told: Increments; value: number; kills: number }> {
  const args = [kind, String(CLIENTS), kind, ...urls];
  const load = start("load.js", { args });
  let kills = 0;
  const end = performance.now() + seconds * 1000;
  while (performance.now() + every * 1000 < end) {
    await new Promise((resolve) => setTimeout(resolve, every * 1000));
    const leader = await cluster.leader();
    await cluster.kill(leader);
    kills++;
    await cluster.restart(leader);
  }
  await new Promise((resolve) =>
    setTimeout(resolve, Math.max(1, end - performance.now()))
  );
  await load.end();
  const told: Increments = JSON.parse(lastLine(await load.output));
  const steps = JSON.stringify([["get", [kind]]]);
  const url = cluster.httpUrl(await cluster.leader());
  const value = Number(await run("writer.js", { args: [url, steps] }));
  return { told, value, kills };
}

Deno.exit(await main());
