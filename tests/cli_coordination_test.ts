/** Leases, locks and elections from the command line: what is held, what is lost, exit codes. */

import {
  assert,
  assertEquals,
  assertGreater,
  assertMatch,
  assertStringIncludes,
} from "@std/assert";
import { clusterTest, eventually, type TestCluster } from "./cluster.ts";
import { endpoints, Follower, run, runOn, start } from "./dkv.ts";
import { Proxy } from "./proxy.ts";

clusterTest(
  "cli: leases, locks around commands, elections",
  { nodes: 1 },
  async (cluster) => {
    await Promise.all([
      leases(cluster),
      renewals(cluster),
      locks(cluster),
      elections(cluster),
    ]);
  },
);

async function leases(cluster: TestCluster): Promise<void> {
  const on = (...args: string[]) => runOn(cluster, ...args);
  const granted = await on("lease", "grant", "60s", "--json");
  const { lease: id, ttlMs } = JSON.parse(granted.out);
  assertEquals([typeof id, ttlMs], ["string", 60_000]);
  const put = await on("put", "worker", "busy", "--lease", id, "--json");
  assertEquals([put.code, put.err], [0, ""]);

  const told = await on("lease", "ttl", id, "--keys", "--json");
  assertEquals([told.code, told.err], [0, ""]);
  const { remainingMs, ...rest } = JSON.parse(told.out);
  assertEquals(rest, {
    lease: id,
    grantedTtlMs: 60_000,
    keys: [{ key: "worker" }],
  });
  assert(0 < remainingMs && remainingMs <= 60_000, `${remainingMs} ms`);

  const keeping = start(["lease", "keep-alive", id], {
    env: endpoints(cluster),
  });
  const follower = new Follower(keeping.stdout);
  await follower.until(/lives for 60000 ms\n/);
  keeping.kill("SIGINT");
  assertEquals((await keeping.status).code, 0);
  await keeping.stderr.cancel();

  assertEquals((await on("lease", "revoke", id)).code, 0);
  const [value, ...gone] = await Promise.all([
    on("get", "worker"),
    on("lease", "revoke", id),
    on("lease", "ttl", id),
  ]);
  assertEquals(value.code, 1);
  for (const { code, out, err } of gone) {
    assertEquals([code, out], [1, ""]);
    assertStringIncludes(err, id);
  }
}

/** A renewal that nobody answers does not keep the command from ending. */
async function renewals(cluster: TestCluster): Promise<void> {
  const [address = ""] = cluster.addresses;
  await using proxy = new Proxy(address);
  const id = (await runOn(cluster, "lease", "grant", "6000")).out.trim();
  const line = ["lease", "keep-alive", id, "--timeout", "30s"];
  const keeping = start([...line, "--endpoints", proxy.address]);
  const follower = new Follower(keeping.stdout);
  await follower.until(/lives for 6000 ms\n/);
  proxy.pause();
  // Long after it was to be renewed.
  await eventually(
    "the end of the lease",
    async () => (await runOn(cluster, "lease", "ttl", id)).code === 1,
  );
  const startMs = performance.now();
  keeping.kill("SIGINT");
  assertEquals((await keeping.status).code, 130);
  assert(performance.now() - startMs < 2000, "it waited for an answer");
  assertEquals(await new Follower(keeping.stderr).rest(), "");
  await follower.rest();
}

async function locks(cluster: TestCluster): Promise<void> {
  const env = endpoints(cluster);
  const on = (...args: string[]) => runOn(cluster, ...args);
  const script = 'echo "$DKV_LOCK_KEY $DKV_LOCK_TOKEN"; exit 7';
  const first = await on("lock", "jobs/a", "--", "sh", "-c", script);
  assertEquals([first.code, first.err], [7, ""]);
  const [key = "", token = ""] = first.out.trim().split(" ");
  assertMatch(key, /^jobs\/a\/[0-9a-f]{16}$/);
  // What ran has given its lock back, as the next ones show.
  const absent = await on("lock", "jobs/a", "--", "no-such-command");
  assertEquals(absent.code, 127);
  assertEquals(absent.err, "dkv: no-such-command: no such command\n");
  const addresses = cluster.addresses.join(",");
  const narrow = await run(
    ["lock", "jobs/a", "--endpoints", addresses, "--", "true"],
    { permissions: "client" },
  );
  assertEquals([narrow.code, narrow.out], [4, ""]);
  assertMatch(
    narrow.err,
    /^dkv: a permission is missing: .*--allow-run.*\n$/,
  );
  assertEquals((await on("list", "jobs/")).code, 1);

  const sleeper =
    'trap "echo told; exit" TERM; echo $DKV_LOCK_TOKEN; sleep 60 > /dev/null 2>&1 & wait';
  const holder = start(["lock", "jobs/a", "--", "sh", "-c", sleeper], {
    env,
  });
  const follower = new Follower(holder.stdout);
  await follower.until(/\d+\n/);
  assertGreater(Number(follower.text), Number(token));
  const second = await on("lock", "jobs/a", "--wait", "200ms", "--", "true");
  assertEquals([second.code, second.out], [1, ""]);
  assertStringIncludes(second.err, "jobs/a was not free within 200 ms");
  // Who is told to end while it waits leaves the line.
  const queue = async () =>
    (await on("list", "jobs/", "--keys-only")).out.trim().split("\n");
  const patient = start(["lock", "jobs/a", "--", "true"], { env });
  const ended = patient.output();
  await eventually("a second in line", async () => (await queue()).length > 1);
  patient.kill("SIGTERM");
  const { code, signal, stderr } = await ended;
  assertEquals([code, signal, stderr.length], [143, null, 0]);
  assertEquals((await queue()).length, 1);
  const waiting = start(["lock", "jobs/a", "--", "echo", "mine"], { env });
  await eventually("another in line", async () => (await queue()).length > 1);

  // Somebody takes the lock away: the command may not go on.
  const queued = (await on("list", "jobs/", "--json")).out.trim().split("\n")
    .map((line) => JSON.parse(line))
    .sort((a, b) => a.createRevision - b.createRevision);
  assertEquals((await on("del", queued[0].key)).code, 0);
  await follower.until(/told\n/);
  assertEquals((await holder.status).code, 4);
  const why = await new Follower(holder.stderr).rest();
  assertMatch(why, /^dkv: jobs\/a\/\w+ is lost: [^\n]*was deleted\n$/);
  const { stdout } = await waiting.output();
  assertEquals(new TextDecoder().decode(stdout), "mine\n");
}

async function elections(cluster: TestCluster): Promise<void> {
  const env = endpoints(cluster);
  const nobody = await runOn(cluster, "elect", "team", "--leader");
  assertEquals([nobody.code, nobody.err], [1, "dkv: nobody leads team\n"]);
  const observing = start(["elect", "team", "--observe"], { env });
  const seen = new Follower(observing.stdout);
  await seen.until(/^-\n/);
  const ann = start(["elect", "team", "ann"], { env });
  await new Follower(ann.stdout).until(/team\/\w+\ttoken \d+\n/);
  await seen.until(/ann\n/);
  const bob = start(["elect", "team", "bob", "--json"], { env });
  assertEquals(
    (await runOn(cluster, "elect", "team", "--leader")).out,
    "ann",
  );
  ann.kill("SIGTERM");
  assertEquals((await ann.status).code, 0);
  await new Follower(bob.stdout).until(/"token":\d+/);
  await seen.until(/bob\n/);
  assert(!seen.text.includes("ann\nann"), seen.text);
  for (const child of [bob, observing]) {
    child.kill("SIGINT");
    assertEquals((await child.status).code, 0);
  }
  for (const child of [ann, bob, observing]) await child.stderr.cancel();
}
