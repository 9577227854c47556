/**
 * `deno task scale`: what a client bears, on a private three-node cluster; about three minutes.
 *
 *     deno task scale -- --changes 100000 --keys 1000000
 *
 *   - A watch of so many changes, while the leader is killed three times: each once and in order.
 *   - So many small records imported by the command line, in one process.
 *   - All of them listed: the highest memory of the client's process.
 *
 * Ends with code 1 if a change is lost or repeated, or a record is missing.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { parseArgs } from "@std/cli/parse-args";
import { type Client, connect } from "../client.ts";
import { taskArgs } from "../launch.ts";
import { eventually, TestCluster } from "./cluster.ts";
import { endpoints, ROOT, run } from "./dkv.ts";

const LOOPS = 64;
const KILLS = 3;
const TIMEOUT_MS = 30_000;
const VALUE = new Uint8Array(100).fill(120);

const options = parseArgs([...taskArgs(Deno.args)], {
  string: ["changes", "keys"],
});
const changes = Number(options.changes ?? 100_000);
const keys = Number(options.keys ?? 1_000_000);

function seconds(sinceMs: number): string {
  return `${((performance.now() - sinceMs) / 1000).toFixed(1)} s`;
}

/** Writes `changes` times, each loop to a key of its own, so that a version counts its changes. */
async function write(kv: Client, progress: (done: number) => void) {
  let begun = 0;
  let done = 0;
  const loop = async (_: unknown, at: number) => {
    while (begun < changes) {
      begun++;
      await kv.put(`scale/${at}`, VALUE);
      progress(++done);
    }
  };
  await Promise.all(Array.from({ length: LOOPS }, loop));
}

/** Takes all changes; every key's versions must come in order, without a gap. */
async function take(
  changesOf: AsyncIterable<{
    readonly key: string;
    readonly revision: number;
    readonly entry: { readonly version: number } | null;
  }>,
): Promise<void> {
  const versions = new Map<string, number>();
  let count = 0;
  let last = 0;
  for await (const { key, revision, entry } of changesOf) {
    assert(revision > last, `revision ${revision} after ${last}`);
    last = revision;
    const version = (versions.get(key) ?? 0) + 1;
    assertEquals(entry?.version, version, key);
    versions.set(key, version);
    if (++count === changes) return;
  }
}

async function watched(cluster: TestCluster): Promise<void> {
  await using writer = await connect(cluster.addresses, {
    timeoutMs: TIMEOUT_MS,
  });
  await using watcher = await connect(cluster.addresses);
  const startMs = performance.now();
  await using watch = watcher.watch({ prefix: "scale/" });
  await watch.started();
  const taken = take(watch);
  let reached = 0;
  const written = write(writer, (done) => reached = done);
  for (let kill = 1; kill <= KILLS; kill++) {
    const goal = Math.floor(kill * changes / (KILLS + 1));
    await eventually(`${goal} changes`, () => reached >= goal, 600_000);
    const leader = await cluster.leader();
    await cluster.kill(leader);
    await cluster.leader(leader);
    await cluster.restart(leader);
  }
  await written;
  await taken;
  console.log(
    `watch: ${changes} changes, ${KILLS} leaders killed, each once and in order: ` +
      seconds(startMs),
  );
}

/** One record a line, as `dkv export` writes them. */
async function writeRecords(path: string): Promise<void> {
  using file = await Deno.open(path, { write: true, create: true });
  const value = "x".repeat(20);
  for (let at = 0; at < keys; at += 10_000) {
    const lines = Array.from(
      { length: Math.min(10_000, keys - at) },
      (_, line) => JSON.stringify({ key: `record/${at + line}`, value }),
    );
    const text = new TextEncoder().encode(lines.join("\n") + "\n");
    for (let sent = 0; sent < text.length;) {
      sent += await file.write(text.subarray(sent));
    }
  }
}

async function imported(cluster: TestCluster): Promise<void> {
  const path = cluster.path("records.jsonl");
  await writeRecords(path);
  const startMs = performance.now();
  const { code, err } = await run(["import", path], {
    env: endpoints(cluster),
  });
  assertEquals(code, 0, err);
  console.log(`import: ${keys} records: ${seconds(startMs)}`);
}

/** A process of its own, whose memory is that of one client. */
async function listed(cluster: TestCluster): Promise<void> {
  const startMs = performance.now();
  const { success, stdout, stderr } = await new Deno.Command("deno", {
    args: [
      "run",
      "-q",
      `--config=${ROOT}deno.json`,
      "--lock",
      "--frozen",
      "--no-prompt",
      "-P=test",
      `${ROOT}tests/scale_list.ts`,
      cluster.addresses.join(","),
    ],
    cwd: ROOT,
  }).output();
  assert(success, new TextDecoder().decode(stderr));
  const { entries, highestBytes } = JSON.parse(
    new TextDecoder().decode(stdout),
  ) as { entries: number; highestBytes: number };
  assertEquals(entries, keys);
  console.log(
    `list: ${entries} entries: ${seconds(startMs)}, ` +
      `${(highestBytes / 1e6).toFixed(0)} MB at most in the client's process`,
  );
}

await using cluster = await TestCluster.start();
await watched(cluster);
await imported(cluster);
await listed(cluster);
await cluster.agreed();
