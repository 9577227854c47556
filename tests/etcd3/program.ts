/**
 * A program written for etcd, with the npm package etcd3: does what such programs do and prints what
 * came of it, a line for each thing. `tests/etcd3_test.ts` runs it on etcd and on dkv; the lines must
 * be the same.
 *
 *     deno run -A --config tests/etcd3/deno.json tests/etcd3/program.ts HOST:PORT,… [failover]
 *
 * With `failover` it then asks for the leader's death by a line, waits for a line on its standard
 * input, and goes on working.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { type Election, Etcd3, type IKeyValue, type Watcher } from "etcd3";

const FAILOVER_PUTS = 30;
/** How long a client may be without an answer after a leader's death. */
const FAILOVER_MS_MAX = 20_000;
const RETRY_MS = 50;

/** How long an observer may be without news. */
const OBSERVE_MS = 2000;
const [hosts = "", mode = ""] = Deno.args;
const client = new Etcd3({
  hosts: hosts.split(",").map((host) => `http://${host}`),
});

function tell(what: string, value: unknown): void {
  console.log(`${what}: ${JSON.stringify(value)}`);
}

/** What a promise comes to, with the class of its error. */
async function outcome(promise: PromiseLike<unknown>): Promise<unknown> {
  try {
    return await promise;
  } catch (error) {
    return `${(error as Error).constructor.name}: ${(error as Error).message}`;
  }
}

/** What tells entries apart but for revisions that depend on what was before. */
function entryOf({ key, value, version }: IKeyValue): string[] {
  return [key.toString(), value.toString(), version];
}

async function keys(): Promise<void> {
  for (const name of ["a", "b", "c", "d"]) {
    await client.put(`key/${name}`).value(`${name}1`);
  }
  tell("get", await client.get("key/a").string());
  tell("missing", await client.get("key/nothing").string());
  const bytes = Uint8Array.from({ length: 256 }, (_, at) => at);
  await client.put("bytes").value(Buffer.from(bytes));
  tell("bytes", await client.get("bytes").buffer());
  const previous = await client.put("key/a").value("a2").getPrevious();
  tell("previous", entryOf(previous));
  tell("all", await client.getAll().prefix("key/").strings());
  tell("keys", await client.getAll().prefix("key/").keys());
  tell("count", await client.getAll().prefix("key/").count());
  const sorted = client.getAll().prefix("key/").sort("Mod", "Descend");
  tell("newest", await sorted.limit(2).keys());
  const range = client.getAll().inRange({ start: "key/b", end: "key/d" });
  tell("range", await range.strings());
  const old = await client.getAll().prefix("key/").exec();
  await client.put("key/b").value("b2");
  const { revision } = old.header;
  tell("past", await client.get("key/b").revision(revision).string());
  const { prev_kvs } = await client.delete().key("key/b").getPrevious()
    .then((entries) => ({ prev_kvs: entries.map(entryOf) }));
  tell("deleted", prev_kvs);
  tell("delete all", (await client.delete().prefix("key/")).deleted);
  const inside = client.namespace("inside/");
  await inside.put("x").value(1);
  tell("namespace", [
    await inside.get("x").number(),
    await client.get("inside/x").string(),
  ]);
}

async function transactions(): Promise<void> {
  const create = () =>
    client.if("txn", "Version", "==", 0)
      .then(client.put("txn").value("made"))
      .else(client.get("txn"))
      .commit();
  tell("create", (await create()).succeeded);
  const again = await create();
  const found = again.responses[0]?.response_range?.kvs[0];
  tell("create again", [again.succeeded, found?.value.toString()]);
  const many = await client.if("txn", "Value", "==", "made")
    .and("txn", "Lease", "==", 0).and("none", "Create", "==", 0)
    .then(
      client.put("txn").value("changed"),
      client.delete().key("none"),
      client.get("txn"),
    ).commit();
  tell("then", [
    many.succeeded,
    many.responses.map((response) =>
      (response as unknown as { response: string }).response
    ),
    many.responses[2]?.response_range.kvs.map(entryOf),
  ]);
  const twice = client.if("txn", "Version", ">", 0)
    .then(client.put("txn").value(1), client.put("txn").value(2)).commit();
  tell("twice", await outcome(twice));
  await client.put("counter").value(0);
  const increment = () =>
    client.stm({ retries: 50 }).transact(async (tx) => {
      const value = await tx.get("counter").number() ?? 0;
      await tx.put("counter").value(value + 1);
    });
  await Promise.all(Array.from({ length: 5 }, increment));
  tell("counter", await client.get("counter").number());
}

async function leases(): Promise<void> {
  const lease = client.lease(30);
  await lease.put("leased/1").value("x");
  await lease.put("leased/2").value("y");
  const ID = await lease.grant();
  await lease.keepaliveOnce();
  const left = await client.leaseClient.leaseTimeToLive({ ID, keys: true });
  tell("time to live", [left.grantedTTL, left.keys.map(String).sort()]);
  await lease.revoke();
  tell("revoked", await client.getAll().prefix("leased/").keys());
  tell("revoke again", await outcome(client.leaseClient.leaseRevoke({ ID })));
  const put = client.put("leased/3").value("z").lease("12345");
  tell("no lease", await outcome(put.exec()));
  const short = client.lease(2, { autoKeepAlive: false });
  await short.put("leased/short").value("x");
  while (await client.get("leased/short").string() !== null) {
    await sleep(100);
  }
  tell("expired", true);
}

async function watches(): Promise<void> {
  const { header } = await client.put("watch/before").value(0);
  const heard: unknown[] = [];
  const watcher = await client.watch().prefix("watch/").withPreviousKV()
    .create();
  follow(watcher, heard);
  await client.put("watch/a").value(1);
  await client.put("watch/a").value(2);
  await client.delete().key("watch/a");
  await until(() => heard.length === 3);
  tell("watch", heard);
  await watcher.cancel();
  await client.put("watch/after").value(3);
  const past: unknown[] = [];
  // With listeners before it is connected: the past comes at once.
  const late = client.watch().prefix("watch/")
    .startRevision(header.revision).watcher();
  follow(late, past);
  await until(() => past.length === 5);
  tell("watch the past", past);
  await late.cancel();
}

function follow(watcher: Watcher, heard: unknown[]): void {
  watcher.on("put", (entry, previous) => {
    heard.push(["put", ...entryOf(entry), previous?.value.toString()]);
  });
  watcher.on("delete", (entry, previous) => {
    heard.push(["delete", entry.key.toString(), previous?.value.toString()]);
  });
}

async function coordination(): Promise<void> {
  const lock = client.lock("mutex").ttl(10);
  await lock.acquire();
  tell("second", await outcome(client.lock("mutex").ttl(10).acquire()));
  await lock.release();
  tell("do", await client.lock("mutex").do(() => Promise.resolve("done")));
  const elections = ["one", "two"].map((name) => ({
    name,
    election: client.election("post", 10),
  }));
  const [one, two] = elections.map(({ name, election }) => {
    const campaign = election.campaign(name);
    const elected = new Promise<void>((resolve, reject) => {
      campaign.on("elected", resolve);
      campaign.on("error", reject);
    });
    return { campaign, elected, election };
  });
  if (one === undefined || two === undefined) throw new Error("No candidates");
  await Promise.race([one.elected, two.elected]);
  const leader = await one.election.leader();
  tell("leader is a candidate", ["one", "two"].includes(leader ?? ""));
  const [winner, other] = leader === "one" ? [one, two] : [two, one];
  await winner.campaign.proclaim("proclaimed");
  tell("proclaimed", await heardOf(other.election, "proclaimed"));
  await winner.campaign.resign();
  await other.elected;
  tell("the other leads", await one.election.leader() !== "proclaimed");
  await other.campaign.resign();
}

/** Waits until an observer hears of a leader; one that etcd3 has left without news is asked anew. */
async function heardOf(election: Election, name: string): Promise<string> {
  while (true) {
    const observer = await election.observe();
    const end = performance.now() + OBSERVE_MS;
    while (observer.leader() !== name && performance.now() < end) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    const value = observer.leader();
    await observer.cancel();
    if (value === name) return value;
  }
}

/** Works on while the leader dies: nothing acknowledged is lost, watches and leases go on. */
async function failover(): Promise<void> {
  const lease = client.lease(5);
  lease.on("lost", () => tell("lease", "lost"));
  await lease.put("failover/leased").value("x");
  const heard: unknown[] = [];
  const watcher = await client.watch().prefix("failover/put/").create();
  watcher.on("put", ({ key }) => heard.push(key.toString()));
  const lock = client.lock("failover").ttl(10);
  await lock.acquire();
  console.log("kill the leader");
  await Deno.stdin.read(new Uint8Array(1));
  const startMs = performance.now();
  const expected: string[] = [];
  for (let at = 0; at < FAILOVER_PUTS; at++) {
    const key = `failover/put/${String(at).padStart(2, "0")}`;
    expected.push(key);
    // The same put again is no harm; the watch may hear of both.
    await retried(() => client.put(key).value(at));
  }
  tell("served again in time", performance.now() - startMs < FAILOVER_MS_MAX);
  const found = await retried(() =>
    client.getAll().prefix("failover/put/").keys()
  );
  tell("nothing is lost", same(found.sort(), expected));
  await until(() => new Set(heard).size === FAILOVER_PUTS);
  tell("watched in order", same([...new Set(heard)], expected));
  tell("leased", await retried(() => client.get("failover/leased").string()));
  await retried(() => lock.release());
  await retried(() =>
    client.lock("failover").ttl(10).do(() => Promise.resolve())
  );
  tell("lock", "released and taken");
  await retried(() => lease.revoke());
  await watcher.cancel();
}

async function retried<T>(call: () => PromiseLike<T>): Promise<T> {
  const endMs = performance.now() + FAILOVER_MS_MAX;
  for (;;) {
    try {
      return await call();
    } catch (error) {
      if (performance.now() > endMs) throw error;
      await sleep(RETRY_MS);
    }
  }
}

async function until(isTrue: () => boolean): Promise<void> {
  const endMs = performance.now() + FAILOVER_MS_MAX;
  while (!isTrue()) {
    if (performance.now() > endMs) throw new Error("It does not happen");
    await sleep(10);
  }
}

function same(left: unknown, right: unknown): boolean {
  return JSON.stringify(left) === JSON.stringify(right);
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

await keys();
await transactions();
await Promise.all([leases(), watches().then(coordination)]);
if (mode === "failover") await failover();
client.close();
// The connection to a node that is gone keeps etcd3 from ending.
Deno.exit(0);
