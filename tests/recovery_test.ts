/** What a cluster of real processes survives. */

import {
  assert,
  assertEquals,
  assertLess,
  assertStringIncludes,
} from "@std/assert";
import { clusterTest, eventually, type TestCluster } from "./cluster.ts";
import { SETTINGS } from "../config.ts";
import { bytes, Writers } from "./load.ts";

async function put(
  cluster: TestCluster,
  id: string,
  key: string,
  value: string,
): Promise<number> {
  const { revision } = await cluster.call<{ revision: number }>(
    id,
    "KeyValue.Put",
    {
      key: bytes(key),
      value: bytes(value),
    },
  );
  return revision;
}

async function get(
  cluster: TestCluster,
  id: string,
  key: string,
  options: { serializable?: boolean } = {},
): Promise<string | null> {
  const request = { key: bytes(key), ...options };
  const { entry } = await cluster.call<{ entry: { value: Uint8Array } | null }>(
    id,
    "KeyValue.Get",
    request,
  );
  return entry === null ? null : new TextDecoder().decode(entry.value);
}

clusterTest(
  "cluster: kill -9 of the leader under load loses nothing",
  {},
  async (cluster) => {
    await using writers = new Writers(cluster);
    await writers.more(200);
    const leader = await cluster.leader();
    await cluster.kill(leader);
    await writers.more(200);
    assertLess(writers.longestGapMs, 5000, "writes flow again soon");
    await cluster.restart(leader);
    await writers.more(100);
    await writers.stop();
    await cluster.agreed();
    await writers.verify();
  },
);

clusterTest(
  "cluster: kill -9 of a follower under load loses nothing",
  {},
  async (cluster) => {
    await using writers = new Writers(cluster);
    await writers.more(100);
    const [follower = ""] = await cluster.followers();
    await cluster.kill(follower);
    await writers.more(200);
    await cluster.restart(follower);
    await writers.more(100);
    await writers.stop();
    await cluster.agreed();
    await writers.verify();
  },
);

clusterTest(
  "cluster: kill -9 of all at once under load loses nothing",
  {},
  async (cluster) => {
    await using writers = new Writers(cluster);
    for (let round = 0; round < 3; round++) {
      await writers.more(100);
      await cluster.killAll();
      await Promise.all(cluster.ids.map((id) => cluster.restart(id)));
    }
    await writers.more(50);
    await writers.stop();
    await cluster.agreed();
    await writers.verify();
  },
);

clusterTest(
  "cluster: keeps its data when it is stopped and started",
  {},
  async (cluster) => {
    const revision = await put(cluster, "node1", "kept", "yes");
    for (const id of cluster.ids) {
      assertEquals(
        (await cluster.stop(id)).code,
        0,
      );
    }
    await Promise.all(cluster.ids.map((id) => cluster.restart(id)));
    for (const id of cluster.ids) {
      assertEquals(
        await eventually("an answer", () => get(cluster, id, "kept")),
        "yes",
      );
    }
    const [state] = await cluster.agreed();
    assertEquals(state?.header.revision, revision);
  },
);

clusterTest(
  "cluster: a follower that was away too long gets a snapshot while the others serve",
  { settings: { catchUpEntries: 10 } },
  async (cluster) => {
    const [follower = ""] = await cluster.followers();
    await put(cluster, follower, "old", "value");
    await cluster.kill(follower);
    await using writers = new Writers(cluster);
    const { lastIndex } = await cluster.status(await cluster.leader());
    await eventually("the log forgets what the follower needs", async () => {
      const { firstIndex } = await cluster.status(await cluster.leader());
      return firstIndex > lastIndex + 1;
    });
    await cluster.restart(follower);
    await cluster.node(follower).waitForLine("installing a snapshot", 20_000);
    await writers.more(100);
    await writers.stop();
    await cluster.agreed();
    await writers.verify();
    assertEquals(
      await get(cluster, follower, "old", { serializable: true }),
      "value",
    );
    await cluster.kill(follower);
    await cluster.restart(follower);
    await eventually(
      "the follower is back",
      () => get(cluster, follower, "old"),
    );
    await cluster.agreed();
  },
);

clusterTest(
  "cluster: a leader that was stopped for a while gives no stale answer (raft-pitfalls E12)",
  {},
  async (cluster) => {
    const leader = await cluster.leader();
    await put(cluster, leader, "x", "before");
    cluster.freeze(leader);
    const others = cluster.ids.filter((id) => id !== leader);
    const [other = ""] = others;
    const successor = await eventually("another leader", async () => {
      const { leader: now } = await cluster.status(other);
      return others.includes(now) && now;
    });
    assert(successor !== leader);
    await put(cluster, other, "x", "after");
    // These wait in the old leader's socket, and are the first thing it sees when it goes on.
    const reads = Array.from({ length: 20 }, () => get(cluster, leader, "x"));
    cluster.thaw(leader);
    for (const read of await Promise.allSettled(reads)) {
      if (read.status === "fulfilled") assertEquals(read.value, "after");
    }
    assertEquals(
      await eventually("an answer", () => get(cluster, leader, "x")),
      "after",
    );
    await cluster.agreed();
  },
);

clusterTest(
  "cluster: a node that is cut off serves no linearizable read, and catches up",
  { proxied: true },
  async (cluster) => {
    const leader = await cluster.leader();
    await put(cluster, leader, "x", "before");
    await cluster.agreed();
    cluster.isolate(leader);
    await using writers = new Writers(cluster);
    const successor = await cluster.leader(leader);
    assert(successor !== leader);
    await put(cluster, successor, "x", "after");
    const answer = await get(cluster, leader, "x").catch((error) =>
      String(error)
    );
    assert(answer !== "before", "a stale read");
    assertEquals(
      await get(cluster, leader, "x", { serializable: true }),
      "before",
    );
    cluster.reconnect(leader);
    assertEquals(
      await eventually("an answer", () => get(cluster, leader, "x")),
      "after",
    );
    await writers.more(50);
    await writers.stop();
    await cluster.agreed();
    await writers.verify();
  },
);

clusterTest(
  "cluster: a link that works one way only does not stop it (raft-pitfalls E6)",
  { proxied: true },
  async (cluster) => {
    const leader = await cluster.leader();
    const { term } = await cluster.status(leader);
    const [follower = ""] = await cluster.followers();
    cluster.proxy(leader, follower).pause("forward");
    // The follower hears nothing from its leader; the other two serve as if it were down.
    const through = cluster.ids.filter((id) => id !== follower);
    await using writers = new Writers(cluster, { through });
    const { electionTicksMin, tickMs } = SETTINGS;
    const electionMs = 2 * electionTicksMin.default * tickMs.default;
    const startMs = performance.now();
    do await writers.more(100); while (
      performance.now() - startMs < 3 * electionMs
    );
    assertLess(writers.longestGapMs, electionMs, "the other two serve on");
    assertEquals((await cluster.status(leader)).term, term, "no new election");
    cluster.proxy(leader, follower).drop();
    cluster.proxy(leader, follower).resume("forward");
    await eventually("the follower serves again", async () => {
      await put(cluster, follower, "heard", "again");
      return true;
    });
    await writers.stop();
    await cluster.agreed();
    await writers.verify();
  },
);

/** Flips one bit in the middle of every page behind the first few. */
async function damage(path: string): Promise<void> {
  using file = await Deno.open(path, { read: true, write: true });
  const { size } = await file.stat();
  for (let at = 4096 * 2 + 2000; at < size; at += 4096) {
    const byte = new Uint8Array(1);
    await file.seek(at, Deno.SeekMode.Start);
    await file.read(byte);
    await file.seek(at, Deno.SeekMode.Start);
    await file.write(byte.map((value) => value ^ 0x10));
  }
}

clusterTest(
  "cluster: a damaged node refuses to start and says what to do, and that works (raft-pitfalls P12, P13)",
  {},
  async (cluster) => {
    await using writers = new Writers(cluster);
    await writers.more(300);
    const [victim = ""] = await cluster.followers();
    assertEquals((await cluster.stop(victim)).code, 0);
    await damage(`${cluster.dataDir(victim)}/default.db`);
    const refused = await cluster.restart(victim).then(
      () => null,
      () => cluster.node(victim).exited,
    );
    assert(refused !== null, "a damaged node started");
    assertEquals((await refused).code, 1);
    assertStringIncludes(cluster.node(victim).lines.join("\n"), "--rejoin");

    // Emptied, but under the old name: the others do not let it vote.
    await Deno.remove(cluster.dataDir(victim), { recursive: true });
    await cluster.restart(victim);
    await cluster.node(victim).waitForLine("new data directory", 10_000);
    assertEquals((await cluster.status(victim)).leader, "");
    await cluster.kill(victim);

    // As the message says.
    await Deno.remove(cluster.dataDir(victim), { recursive: true });
    await cluster.restart(victim, ["--rejoin"]);
    await eventually("the node is a voter again", async () => {
      // Also the node itself, which at first still reads of the member that it was.
      assertEquals(cluster.running().includes(victim), true);
      await cluster.status(victim);
      const { members } = await cluster.status(await cluster.leader());
      return members.some(({ nodeId, suffrage }) =>
        nodeId === victim && suffrage === "voter"
      ) &&
        members.length === 3;
    });
    await writers.more(100);
    await writers.stop();
    await cluster.agreed();
    await writers.verify();
    await cluster.kill(victim);
    await cluster.restart(victim);
    await cluster.agreed();
  },
);

clusterTest(
  "cluster: a node that stops refuses what comes too late, and has no defect",
  { nodes: 1 },
  async (cluster) => {
    await put(cluster, "node1", "a", "b");
    let isRunning = true;
    const codes = new Set<string>();
    let calls = 0;
    const ask = async (what: () => Promise<unknown>): Promise<void> => {
      while (isRunning) {
        calls++;
        try {
          await what();
        } catch (error) {
          const { code, metadata } = error as {
            code: number;
            metadata?: { get(name: string): unknown[] };
          };
          codes.add(String(metadata?.get("dkv-code")[0] ?? `grpc ${code}`));
          await new Promise((resolve) => setTimeout(resolve, 1));
        }
      }
    };
    const asking = [
      () => cluster.status("node1"),
      () => get(cluster, "node1", "a", { serializable: true }),
      () => get(cluster, "node1", "a"),
      () => put(cluster, "node1", "a", "c"),
    ].flatMap((what) => [ask(what), ask(what), ask(what), ask(what)]);
    await eventually("calls are under way", () => calls > 200);
    const { code } = await cluster.stop("node1");
    isRunning = false;
    await Promise.all(asking);
    assertEquals(code, 0);
    // CANCELLED and UNAVAILABLE, of the connection itself.
    const ofConnection = ["grpc 1", "grpc 14"];
    const expected = ["SHUTTING_DOWN", "OUTCOME_UNKNOWN", ...ofConnection];
    assertEquals([...codes].filter((code) => !expected.includes(code)), []);
    assert(codes.has("SHUTTING_DOWN"), [...codes].join());
    assertEquals(
      cluster.node("node1").lines.filter((line) => line.includes(" error ")),
      [],
    );
  },
);
