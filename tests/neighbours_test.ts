/** A cluster that changes its shape while it runs: a node moves, and one comes that no file names. */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { clusterTest, eventually, type TestCluster } from "./cluster.ts";
import { EtcdClient, type WireMember } from "./etcdclient.ts";

/** More than the log keeps: who comes later gets a snapshot. */
const WRITES = 60;
/** Of a follower that went on from the log instead. */
const SNAPSHOT_LINE = "sending a snapshot";

clusterTest(
  "neighbours: a node moves, and a node joins that no file of the others names",
  { settings: { catchUpEntries: 10 } },
  async (cluster) => {
    const leader = await cluster.leader();
    const [follower = "", moved = ""] = await cluster.followers();
    const client = await EtcdClient.open(cluster.address(follower));
    try {
      // Its file says where the other one is now, and will not be.
      const address = await cluster.relocate("node4");
      await move(cluster, { client, moved, leader });
      await write(cluster, { node: leader, count: WRITES });
      const added = await add(cluster, { client, address });
      await eventually(
        "the new node reaches the moved one",
        async () => (await memberOn(cluster, "node4", moved)).connected,
      );
      await restartAll(cluster);
      await votes(cluster, added);
      await remove(cluster, added);
    } finally {
      client.close();
    }
  },
);

clusterTest(
  "neighbours: a node that was down is led by one that moved, and by one that joined meanwhile",
  {},
  async (cluster) => {
    const [client, moved, away] = [
      await EtcdClient.open(cluster.address("node1")),
      "node2",
      "node3",
    ];
    try {
      await cluster.stop(away);
      await cluster.leader();
      const { ID } = named(await list(client), moved);
      const place = await cluster.relocate(moved);
      await client.call("Cluster.MemberUpdate", {
        ID,
        peerURLs: [`http://${place}`],
      });
      await cluster.stop(moved);
      await cluster.restart(moved);
      await leads(cluster, moved);
      await cluster.restart(away);
      await cluster.agreed();
      await cluster.stop(away);
      const address = await cluster.relocate("node4");
      await cluster.restart("node4", ["--rejoin"]);
      const { member } = await client.call("Cluster.MemberAdd", {
        peerURLs: [`http://${address}`],
      }) as unknown as { member: WireMember };
      await isKnownEverywhere(cluster, { ID: member.ID, address });
      await leads(cluster, "node4");
      await cluster.restart(away);
      await cluster.agreed();
    } finally {
      client.close();
    }
  },
);

async function leads(cluster: TestCluster, target: string): Promise<void> {
  await eventually(`${target} leads`, async () => {
    const { leader } = await cluster.status(target);
    if (leader === target) return true;
    await cluster.call(leader, "Cluster.TransferLeadership", {
      nodeId: target,
    });
    return false;
  });
}

/** An operator says where a node will be, and starts it there. */
async function move(
  cluster: TestCluster,
  { client, moved, leader }: {
    client: EtcdClient;
    moved: string;
    leader: string;
  },
): Promise<void> {
  const { ID } = named(await list(client), moved);
  const update = (peerURL: string) =>
    client.call("Cluster.MemberUpdate", { ID, peerURLs: [peerURL] });
  await refuses(
    () => update(`http://${cluster.address(leader)}`),
    /etcdserver: Peer URLs already exists/,
  );
  await refuses(() => update("http://nowhere"), /member URLs are invalid/);
  await refuses(
    () => update("http://127.99.0.1:1"),
    /no permission to connect/,
  );
  const before = cluster.address(moved);
  const address = await cluster.relocate(moved);
  assert(address !== before);
  await update(`http://${address}`);
  // It runs where it was, and is told that it should not.
  await cluster.node(moved).waitForLine(
    `look for this node at ${address}`,
    10_000,
  );
  await cluster.stop(moved);
  await cluster.restart(moved);
  for (const id of cluster.running()) {
    if (id === moved) continue;
    await eventually(`${id} reaches ${moved}`, async () => {
      const member = await memberOn(cluster, id, moved);
      return member.connected && member.address === address;
    });
    assertEquals(named(await listOn(cluster, id), moved).peerURLs, [
      `http://${address}`,
    ]);
  }
  await cluster.agreed();
}

/** A stranger is refused until it is invited by its address; then it becomes a voter. */
async function add(
  cluster: TestCluster,
  { client, address }: { client: EtcdClient; address: string },
): Promise<string> {
  const peerURLs = [`http://${address}`];
  await cluster.restart("node4", ["--rejoin"]);
  await cluster.node("node4").waitForLine('refuses "node4"', 10_000);
  const { member } = await client.call("Cluster.MemberAdd", {
    peerURLs,
  }) as unknown as { member: WireMember };
  assertEquals([member.name, member.peerURLs, member.clientURLs], [
    "",
    peerURLs,
    [],
  ]);
  await refuses(
    () => client.call("Cluster.MemberAdd", { peerURLs }),
    /etcdserver: Peer URLs already exists/,
  );
  await isKnownEverywhere(cluster, { ID: member.ID, address });
  await cluster.agreed();
  const lines = cluster.ids.flatMap((id) => [...cluster.node(id).lines]);
  assert(lines.some((line) => line.includes(SNAPSHOT_LINE)), "no snapshot");
  return member.ID;
}

/** On every node it is the same voter, with the number that it was invited with. */
async function isKnownEverywhere(
  cluster: TestCluster,
  { ID, address }: { ID: string; address: string },
): Promise<void> {
  const url = `http://${address}`;
  for (const id of cluster.running()) {
    await eventually(`${id} knows node4`, async () => {
      const one = (await listOn(cluster, id)).find(({ name }) =>
        name === "node4"
      );
      return one !== undefined && !one.isLearner;
    });
    const { ID: number, peerURLs, clientURLs } = named(
      await listOn(cluster, id),
      "node4",
    );
    assertEquals([number, peerURLs, clientURLs], [ID, [url], [url]]);
  }
}

/** What nodes know of one another is on their disks: the files of three still name neither place. */
async function restartAll(cluster: TestCluster): Promise<void> {
  await cluster.killAll();
  for (const id of cluster.ids) await cluster.restart(id);
  for (const id of cluster.ids) {
    await eventually(`${id} reaches all`, async () => {
      const { members } = await cluster.status(id);
      return members.length === 4 && members.every((one) => one.connected);
    });
  }
}

/** Of four, three must agree: without one of the others nothing goes without the new one. */
async function votes(cluster: TestCluster, ID: string): Promise<void> {
  const [gone = ""] = cluster.ids;
  await cluster.stop(gone);
  await write(cluster, { node: "node4", count: 1 });
  await cluster.restart(gone);
  const address = cluster.address("node4");
  await isKnownEverywhere(cluster, { ID, address });
}

async function remove(cluster: TestCluster, ID: string): Promise<void> {
  const client = await EtcdClient.open(cluster.address("node1"));
  try {
    await client.call("Cluster.MemberRemove", { ID });
  } finally {
    client.close();
  }
  await eventually("it ends", () => cluster.node("node4").exit !== null);
  for (const id of cluster.running()) {
    await eventually(
      `${id} knows three`,
      async () => (await listOn(cluster, id)).length === 3,
    );
  }
  await write(cluster, { node: "node1", count: 1 });
  await cluster.agreed();
}

async function refuses(
  ask: () => Promise<unknown>,
  reason: RegExp,
): Promise<void> {
  const error = await assertRejects(ask);
  assert(reason.test(String(error)), String(error));
}

async function write(
  cluster: TestCluster,
  { node, count }: { node: string; count: number },
): Promise<void> {
  const value = new TextEncoder().encode("v");
  for (let i = 0; i < count; i++) {
    const key = new TextEncoder().encode(`key${i}`);
    await eventually(
      "a write",
      () => cluster.call<object>(node, "KeyValue.Put", { key, value }),
    );
  }
}

async function memberOn(cluster: TestCluster, on: string, of: string) {
  const { members } = await cluster.status(on);
  const member = members.find(({ nodeId }) => nodeId === of);
  assert(member !== undefined, `${on} does not know ${of}`);
  return member;
}

async function list(client: EtcdClient): Promise<WireMember[]> {
  const { members } = await client.call("Cluster.MemberList");
  return members as WireMember[];
}

async function listOn(cluster: TestCluster, id: string): Promise<WireMember[]> {
  const client = await EtcdClient.open(cluster.address(id));
  try {
    return await list(client);
  } finally {
    client.close();
  }
}

function named(members: readonly WireMember[], name: string): WireMember {
  const member = members.find((one) => one.name === name);
  assert(member !== undefined, `No member ${name}`);
  return member;
}
