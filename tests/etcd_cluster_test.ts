/** etcd's services around the keys: members, maintenance, locks and elections, on a real cluster. */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { DatabaseSync } from "node:sqlite";
import { clusterTest, eventually, type TestCluster } from "./cluster.ts";
import { EtcdClient, type WireMember } from "./etcdclient.ts";
import { tempDir } from "./needs.ts";

clusterTest(
  "etcd: members, maintenance, locks and elections",
  {},
  async (cluster) => {
    const [leader, other] = [await cluster.leader(), ""];
    const follower = cluster.ids.find((id) => id !== leader) ?? other;
    const clients = [
      await EtcdClient.open(cluster.address(follower)),
      await EtcdClient.open(cluster.address(leader)),
    ] as const;
    try {
      await maintenance(clients, leader);
      await snapshot(cluster, { node: follower, client: clients[0] });
      await locks(cluster, clients[0]);
      await elections(cluster, clients[0]);
      await members(cluster, { client: clients[0], leader, follower });
    } finally {
      for (const client of clients) client.close();
    }
  },
);

async function maintenance(
  [client, atLeader]: readonly [EtcdClient, EtcdClient],
  leader: string,
): Promise<void> {
  const { members } = await client.call("Cluster.MemberList") as unknown as {
    members: WireMember[];
  };
  const idOf = new Map(members.map(({ name, ID }) => [name, ID]));
  const status = await client.call("Maintenance.Status");
  assertEquals(status["leader"], idOf.get(leader));
  const hashes = await Promise.all(
    [client, atLeader].map(async (one) =>
      (await one.call("Maintenance.HashKV"))["hash"]
    ),
  );
  assertEquals(hashes[0], hashes[1]);
  const refusal = await assertRejects(() =>
    client.call("Maintenance.MoveLeader", { targetID: idOf.get(leader) })
  );
  assert(/etcdserver: not leader/.test(String(refusal)), String(refusal));
  const auth = await client.call("Auth.AuthStatus");
  assertEquals(auth["enabled"], false);
}

/** A snapshot ends with its own digest, and holds what was acknowledged before. */
async function snapshot(
  cluster: TestCluster,
  { node, client }: { node: string; client: EtcdClient },
): Promise<void> {
  await cluster.call(node, "KeyValue.Put", { key: name, value: name });
  const { header } = await cluster.call<{ header: { revision: number } }>(
    node,
    "KeyValue.Delete",
    { key: name },
  );
  const blobs: Uint8Array[] = [];
  for await (const { blob } of client.stream("Maintenance.Snapshot")) {
    blobs.push(blob as Uint8Array);
  }
  const bytes = Buffer.concat(blobs);
  assertEquals(bytes.length % 512, 32);
  const file = bytes.subarray(0, -32);
  const digest = createHash("sha256").update(file).digest("hex");
  assertEquals(digest, bytes.subarray(-32).toString("hex"));
  await using dir = await tempDir();
  await Deno.writeFile(`${dir.path}/snapshot.db`, file);
  const db = new DatabaseSync(`${dir.path}/snapshot.db`);
  const row = db.prepare("SELECT data FROM state WHERE name = 'store'").get();
  db.close();
  const { revision } = JSON.parse(String(row?.["data"]));
  assertEquals(revision, header.revision);
}

async function grant(cluster: TestCluster, node: string): Promise<string> {
  const { lease } = await cluster.call<{ lease: number | string }>(
    node,
    "KeyValue.Grant",
    { lease: ++leases, ttlMs: 60_000 },
  );
  return String(lease);
}

let leases = 1000;

const name = new TextEncoder().encode("n");

/** The second waits for the first; a third that gives up leaves nothing behind. */
async function locks(cluster: TestCluster, client: EtcdClient): Promise<void> {
  const [node = ""] = cluster.ids;
  const [a, b, c] = [
    await grant(cluster, node),
    await grant(cluster, node),
    await grant(cluster, node),
  ];
  const first = await client.call("Lock.Lock", { name, lease: a });
  const third = client.begin("Lock.Lock", { name, lease: c });
  const gone = assertRejects(() => third.answer);
  const waiting = client.call("Lock.Lock", { name, lease: b });
  let isHeld = false;
  void waiting.then(() => isHeld = true);
  await eventually("both wait", async () => {
    return (await cluster.status(node)).keys === 3;
  });
  third.cancel();
  await gone;
  await eventually("the place is given up", async () => {
    return (await cluster.status(node)).keys === 2;
  });
  assert(!isHeld);
  await client.call("Lock.Unlock", { key: first["key"] });
  const second = await waiting;
  await client.call("Lock.Unlock", { key: second["key"] });
  const unknown = await assertRejects(() =>
    client.call("Lock.Lock", { name, lease: "999" })
  );
  assert(/requested lease not found/.test(String(unknown)), String(unknown));
}

async function elections(
  cluster: TestCluster,
  client: EtcdClient,
): Promise<void> {
  const [node = ""] = cluster.ids;
  const none = await assertRejects(() =>
    client.call("Election.Leader", { name })
  );
  assert(/election: no leader/.test(String(none)), String(none));
  const observed: string[] = [];
  const observer = client.stream("Election.Observe", { name });
  observer.on("error", () => {});
  observer.on("data", ({ kv }) => observed.push(kv.value.toString()));
  const campaign = async (value: string) => {
    const lease = await grant(cluster, node);
    const answer = await client.call("Election.Campaign", {
      name,
      lease,
      value: new TextEncoder().encode(value),
    });
    return answer["leader"];
  };
  const first = await campaign("one");
  await client.call("Election.Proclaim", {
    leader: first,
    value: new TextEncoder().encode("two"),
  });
  const next = campaign("three");
  await client.call("Election.Resign", { leader: first });
  await next;
  await eventually("all is observed", () => observed.includes("three"));
  observer.cancel();
  assertEquals(observed.filter((value) => value !== "one"), ["two", "three"]);
  const late = await assertRejects(() =>
    client.call("Election.Proclaim", { leader: first, value: name })
  );
  assert(/election: not leader/.test(String(late)), String(late));
}

/** A node is removed, ends, is added as a learner, comes back empty and is promoted. */
async function members(
  cluster: TestCluster,
  { client, leader, follower }: {
    client: EtcdClient;
    leader: string;
    follower: string;
  },
): Promise<void> {
  const list = async () =>
    (await client.call("Cluster.MemberList", { linearizable: true }))[
      "members"
    ] as WireMember[];
  const target = cluster.ids.find((id) => id !== leader && id !== follower);
  assert(target !== undefined);
  const { ID, peerURLs } = (await list()).find((one) => one.name === target) ??
    { ID: "", peerURLs: [] };
  await client.call("Cluster.MemberRemove", { ID });
  assertEquals((await list()).length, 2);
  await eventually("it ends", () => cluster.node(target).exit !== null);
  const unknown = await assertRejects(() =>
    client.call("Cluster.MemberRemove", { ID })
  );
  assert(/etcdserver: member not found/.test(String(unknown)));
  await client.call("Cluster.MemberAdd", { peerURLs, isLearner: true });
  await Deno.remove(cluster.dataDir(target), { recursive: true });
  await cluster.restart(target, ["--rejoin"]);
  await eventually(
    "it learns",
    async () =>
      (await list()).some((one) => one.name === target && one.isLearner),
  );
  await eventually("it is promoted", async () => {
    await client.call("Cluster.MemberPromote", { ID });
    return true;
  });
  assertEquals((await list()).filter(({ isLearner }) => isLearner), []);
}
