/**
 * A program written for etcd, with the npm package etcd3, on three nodes of dkv: it prints what it
 * prints on etcd, and works on when the leader dies. See `etcd3/program.ts`.
 */

import { assert, assertEquals } from "@std/assert";
import { TestCluster } from "./cluster.ts";
import { Etcd, missing } from "./etcd/program.ts";
import { CLUSTER_NEEDS, needs } from "./needs.ts";
import { cannotFetch, outcomeOf } from "./outcome.ts";

const ROOT = decodeURIComponent(new URL("..", import.meta.url).pathname);
const PROGRAM = "tests/etcd3/program.ts";
/** The package has a lock of its own: nobody else needs it. */
const CONFIG = ["-q", "--config=tests/etcd3/deno.json", "--frozen"];
const KILL = "kill the leader";
const RUN_MS_MAX = 60_000;

/** What must be printed last, by either. */
const AFTER_FAILOVER = [
  "served again in time: true",
  "nothing is lost: true",
  "watched in order: true",
  'leased: "x"',
  'lock: "released and taken"',
];

needs(CLUSTER_NEEDS, "etcd3: works as on etcd, and on", async (t) => {
  if (await isMissing(t)) return;
  await using cluster = await TestCluster.start();
  const onDkv = linesOf(cluster.addresses, async () => {
    await cluster.kill(await cluster.leader());
  });
  const [lines, expected] = await Promise.all([onDkv, onEtcd()]);
  const at = lines.indexOf(KILL);
  assert(at > 0, lines.join("\n"));
  assertEquals(lines.slice(at + 1), AFTER_FAILOVER);
  if (expected === null) return;
  // Leases run beside the rest.
  assertEquals(lines.slice(0, at).sort(), expected.sort());
}, {
  // Channels of grpc-js close a moment after they are told to.
  sanitizeOps: false,
  sanitizeResources: false,
});

/** What the program prints on a real etcd; null if there is none. */
async function onEtcd(): Promise<string[] | null> {
  if (missing("etcd") !== null) return null;
  await using etcd = await Etcd.start();
  return await linesOf([etcd.address]);
}

/** True if the package cannot be fetched, which a step that is ignored then tells. */
async function isMissing(t: Deno.TestContext): Promise<boolean> {
  return await cannotFetch(t, await outcomeOf(["cache", ...CONFIG, PROGRAM]));
}

/** Runs the program to its end; `killLeader` is called when it asks for that. */
async function linesOf(
  addresses: readonly string[],
  killLeader?: () => Promise<void>,
): Promise<string[]> {
  const mode = killLeader === undefined ? [] : ["failover"];
  const child = new Deno.Command("deno", {
    args: ["run", ...CONFIG, "-A", PROGRAM, addresses.join(), ...mode],
    cwd: ROOT,
    env: { NO_COLOR: "1" },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const timer = setTimeout(() => child.kill("SIGKILL"), RUN_MS_MAX);
  const stderr = new Response(child.stderr).text();
  const input = child.stdin.getWriter();
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of child.stdout) {
    const had = text.includes(KILL);
    text += decoder.decode(chunk, { stream: true });
    if (had || !text.includes(KILL)) continue;
    await killLeader?.();
    await input.write(new TextEncoder().encode("\n"));
  }
  const { code } = await child.status;
  clearTimeout(timer);
  await input.close().catch(() => {});
  assertEquals(code, 0, `${text}\n${await stderr}`);
  return text.trim().split("\n");
}
