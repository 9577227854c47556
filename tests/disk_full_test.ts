/** What full disks cost: writes are refused, the rest goes on, and it heals by itself. */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { eventually, TestCluster } from "./cluster.ts";
import { bytes } from "./load.ts";
import { CLUSTER_NEEDS, has, needs, tempDir } from "./needs.ts";
import { Refusal, Rpc } from "./rpc.ts";
import { mayMount, SmallDisks } from "./small_disks.ts";

const MIB = 1024 * 1024;
/** Room for the reserve of the write-ahead log and a little more. */
const DISK_BYTES = 112 * MIB;
/** What the ballast leaves. */
const FREE_BYTES = 8 * MIB;

/** A cluster with a small file system for each node. */
class SmallCluster implements AsyncDisposable {
  readonly cluster: TestCluster;
  readonly disks: SmallDisks;
  readonly rpcs: ReadonlyMap<string, Rpc>;

  private constructor(
    cluster: TestCluster,
    { disks, rpcs }: { disks: SmallDisks; rpcs: ReadonlyMap<string, Rpc> },
  ) {
    this.cluster = cluster;
    this.disks = disks;
    this.rpcs = rpcs;
  }

  static async start(directory: string): Promise<SmallCluster> {
    const ids = ["node1", "node2", "node3"];
    const disks = new SmallDisks(directory, { ids, bytes: DISK_BYTES });
    try {
      const cluster = await TestCluster.start({
        dataDir: (id) => disks.dataDir(id),
      });
      const rpcs = await Promise.all(
        ids.map(async (id) =>
          [id, await Rpc.open(cluster.address(id))] as const
        ),
      );
      return new SmallCluster(cluster, { disks, rpcs: new Map(rpcs) });
    } catch (error) {
      disks[Symbol.dispose]();
      throw error;
    }
  }

  rpc(id: string): Rpc {
    const rpc = this.rpcs.get(id);
    assert(rpc !== undefined, id);
    return rpc;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const rpc of this.rpcs.values()) rpc[Symbol.dispose]();
    await this.cluster[Symbol.asyncDispose]();
    this.disks[Symbol.dispose]();
  }
}

/** Writes until a node refuses, and returns the refusal; what is not refused must be acknowledged. */
async function fill(rpc: Rpc, countMax = 120): Promise<Refusal | null> {
  const value = crypto.getRandomValues(new Uint8Array(65_536));
  const big = new Uint8Array(512 * 1024);
  for (let at = 0; at < big.length; at += value.length) big.set(value, at);
  for (let at = 0; at < countMax; at++) {
    try {
      const request = { key: bytes(`fill/${at % 50}`), value: big };
      await rpc.call("KeyValue.Put", request);
    } catch (error) {
      if (error instanceof Refusal) return error;
      throw error;
    }
  }
  return null;
}

async function put(rpc: Rpc, key: string): Promise<void> {
  const request = { key: bytes(key), value: bytes("value") };
  await rpc.call("KeyValue.Put", request, { timeoutMs: 3000 });
}

async function isThere(rpc: Rpc, key: string): Promise<boolean> {
  const { entry } = await rpc.call<{ entry: object | null }>("KeyValue.Get", {
    key: bytes(key),
  });
  return entry !== null;
}

async function allFull(small: SmallCluster): Promise<void> {
  const { cluster, disks } = small;
  const rpc = small.rpc("node1");
  await put(rpc, "kept");
  for (const id of cluster.ids) disks.addBallast(id, FREE_BYTES);
  const refusal = await eventually(
    "the disks are full",
    async () => await fill(rpc) ?? undefined,
  );
  assertEquals(refusal.code, "DISK_FULL", refusal.message);
  assertEquals(refusal.status, 8);
  assertStringIncludes(refusal.message, "disk");
  assertStringIncludes(refusal.message, "Nothing was changed");

  await eventually("every node says so", async () => {
    const states = await Promise.all(
      cluster.ids.map((id) => cluster.status(id)),
    );
    return states.every(({ writeRefusal }) => writeRefusal !== "");
  });
  // Reads, deletes and elections go on, on every node.
  for (const id of cluster.ids) {
    assert(await isThere(small.rpc(id), "kept"));
    const request = { key: bytes(`fill/${cluster.ids.indexOf(id)}`) };
    await small.rpc(id).call("KeyValue.Delete", request);
  }
  const leader = await cluster.leader();
  const [follower = ""] = cluster.ids.filter((id) => id !== leader);
  await small.rpc(follower).call("Cluster.TransferLeadership", {
    nodeId: follower,
  });
  assert(!(await isThere(small.rpc(leader), "fill/0")));

  for (const id of cluster.ids) disks.dropBallast(id);
  await eventually("writes are accepted again", async () => {
    await put(rpc, "after");
    return true;
  });
  for (const id of cluster.ids) assert(await isThere(small.rpc(id), "after"));
  await cluster.agreed();
  assertEquals(cluster.running(), [...cluster.ids]);
}

async function oneFull(small: SmallCluster): Promise<void> {
  const { cluster, disks } = small;
  const full = await cluster.leader();
  const [other = ""] = cluster.ids.filter((id) => id !== full);
  disks.addBallast(full, FREE_BYTES);
  // The leader is the one without space: another takes over, and clients of all go on.
  await eventually("another node leads", async () => {
    await fill(small.rpc(other), 10);
    const { leader } = await cluster.status(other);
    return leader !== "" && leader !== full;
  });
  for (let at = 0; at < 20; at++) await put(small.rpc(other), `one/${at}`);
  await put(small.rpc(full), "through-the-full-one");
  assertEquals(cluster.running(), [...cluster.ids]);
  disks.dropBallast(full);
  await eventually("the node has space again", async () => {
    const { writeRefusal } = await cluster.status(full);
    return writeRefusal === "";
  });
  await cluster.agreed();
  assert(await isThere(small.rpc(full), "one/19"));
}

/** A start leaves the index of the write-ahead log small: it must not need space later. */
async function allFullAfterStart(small: SmallCluster): Promise<void> {
  const { cluster, disks } = small;
  await cluster.killAll();
  await Promise.all(cluster.ids.map((id) => cluster.restart(id)));
  for (const id of cluster.ids) disks.addBallast(id, 0);
  const rpc = small.rpc("node1");
  const refusal = await eventually(
    "the disks are full",
    async () => await fill(rpc) ?? undefined,
  );
  assertEquals(refusal.code, "DISK_FULL", refusal.message);
  assertEquals(cluster.running(), [...cluster.ids]);
  for (const id of cluster.ids) disks.dropBallast(id);
  await eventually("writes are accepted again", async () => {
    await put(rpc, "after the start");
    return true;
  });
  await cluster.agreed();
}

const name = "disk full: writes are refused, the rest goes on, and it heals";
// Tried while tests are registered, because a test cannot be ignored once it runs.
if (has([...CLUSTER_NEEDS, "mount"]) && !mayMount()) {
  Deno.test.ignore(`${name} (ignored: needs the right to mount)`, () => {});
} else {
  needs([...CLUSTER_NEEDS, "mount"], name, async (test) => {
    await using dir = await tempDir();
    await using small = await SmallCluster.start(dir.path);
    const steps = {
      "on every node": allFull,
      "on the leader alone": oneFull,
      "on every node, soon after a start": allFullAfterStart,
    };
    for (const [step, run] of Object.entries(steps)) {
      const passed = await test.step({
        name: step,
        fn: () => run(small),
        sanitizeOps: false,
        sanitizeResources: false,
      });
      if (!passed) throw new Error(small.cluster.output());
    }
  }, { sanitizeOps: false, sanitizeResources: false });
}
