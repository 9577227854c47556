/**
 * `deno task kv:diff` and `deno task kv:bars`: what Deno KV over a cluster must bear, on a cluster of
 * its own.
 *
 *     diff   random sequences of 40 operations on the cluster and on `:memory:`, all answers equal
 *     bars   16 clients increment one key while the leader is killed again and again, and what one
 *            client sets in a second
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { taskArgs } from "../launch.ts";
import { TestCluster } from "./cluster.ts";
import { run, start } from "./kv/process.ts";

const USAGE = `Usage: deno task kv:diff [-- --seed N --sequences 5000]
       deno task kv:bars [-- --seconds 30 --every 5 --only add|check|set]`;
const CLIENTS = 16;
const LOOPS = 64;

/** What an increment run came to. */
interface Increments {
  readonly acknowledged: number;
  readonly attempted: number;
  readonly errors: number;
  /** Writes with a check that passed although another one had. */
  readonly repeated: number;
  readonly longestMs: number;
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
  let isGood = true;
  if (only === "" || only === "set") await rates(cluster, Number(seconds) / 3);
  for (const kind of ["add", "check"] as const) {
    if (only !== "" && only !== kind) continue;
    const times = { seconds: Number(seconds), every: Number(every) };
    isGood = await increments(cluster, { kind, ...times }) && isGood;
  }
  return isGood ? 0 : 1;
}

async function rates(cluster: TestCluster, seconds: number): Promise<void> {
  const leader = await cluster.leader();
  const [follower = leader] = await cluster.followers();
  for (const [role, id] of [["leader", leader], ["follower", follower]]) {
    const url = cluster.httpUrl(id ?? leader);
    const args = ["set", String(seconds), String(LOOPS), url];
    const { perSecond } = JSON.parse(await run("load.ts", { args }));
    console.log(`kv.set, ${LOOPS} loops at the ${role}: ${perSecond}/s`);
  }
}

/** True if the key says what the clients were told. */
async function increments(
  cluster: TestCluster,
  { kind, seconds, every }: {
    kind: "add" | "check";
    seconds: number;
    every: number;
  },
): Promise<boolean> {
  const urls = cluster.ids.map((id) => cluster.httpUrl(id));
  const args = [kind, String(CLIENTS), kind, ...urls];
  const load = start("load.ts", { args });
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
  const told: Increments = JSON.parse(await load.output);
  const text = await run("read.ts", { args: [kind, urls[0] ?? ""] });
  const value = Number(text);
  // What a client sends again by itself after a broken connection is not counted: `add` may exceed
  // what was attempted by that, `check` may not.
  const isGood = value >= told.acknowledged && told.repeated === 0 &&
    (kind === "add" || value <= told.attempted);
  console.log(
    `${kind}: ${value}, acknowledged ${told.acknowledged}, attempted ${told.attempted}, ` +
      `errors ${told.errors}, leaders killed ${kills}, longest wait ${told.longestMs} ms: ` +
      (isGood ? "as told" : "NOT AS TOLD"),
  );
  return isGood;
}

Deno.exit(await main());
