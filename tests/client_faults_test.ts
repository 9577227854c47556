/**
 * One client against three real nodes whose network and processes fail, one fault after the other:
 * what it writes is applied once, what it watches is complete, what it holds stays held.
 *
 * @module
 */

import { assert, assertEquals, assertLess } from "@std/assert";
import type { Change, Client } from "../client.ts";
import { clusterTest, eventually, type TestCluster } from "./cluster.ts";

/** How long a client may go without an answer, while a majority is well. */
const GAP_MS_MAX = 8000;

/** Loops that count up, each on a key of its own: a put that is applied twice or not shows. */
class Counters {
  readonly #kv: Client;
  readonly #running: Promise<number>[];
  #stopping = false;
  /** Of all loops. */
  acknowledged = 0;

  constructor(kv: Client, loops: number) {
    this.#kv = kv;
    this.#running = Array.from({ length: loops }, (_, at) => this.#loop(at));
  }

  async #loop(at: number): Promise<number> {
    let count = 0;
    while (!this.#stopping) {
      const { version } = await this.#kv.put(`counter/${at}`, String(count));
      count++;
      assertEquals(version, count, `counter/${at}`);
      this.acknowledged++;
    }
    return count;
  }

  /** Waits until so many more were acknowledged. */
  async progress(count: number): Promise<void> {
    const goal = this.acknowledged + count;
    // A loop that fails ends the wait.
    const failed = Promise.race(this.#running);
    const reached = eventually(
      `${count} more writes`,
      () => this.acknowledged >= goal,
    );
    await Promise.race([reached, failed]);
  }

  /** Ends the loops and reads back what they counted. */
  async check(): Promise<void> {
    this.#stopping = true;
    const counts = await Promise.all(this.#running);
    for (const [at, count] of counts.entries()) {
      const entry = await this.#kv.get(`counter/${at}`);
      assertEquals(entry?.version, count);
      assertEquals(entry?.text(), String(count - 1));
    }
  }
}

/** What a person may do to a cluster; resolves when it is done, and undone by what it returns. */
interface Fault {
  readonly name: string;
  inflict(cluster: TestCluster): Promise<() => Promise<void> | void>;
}

const FAULTS: readonly Fault[] = [
  {
    name: "the leader is killed",
    async inflict(cluster) {
      const leader = await cluster.leader();
      await cluster.kill(leader);
      return () => cluster.restart(leader);
    },
  },
  {
    name: "the leader is frozen, and does later what it was told before",
    async inflict(cluster) {
      const leader = await cluster.leader();
      cluster.freeze(leader);
      return () => cluster.thaw(leader);
    },
  },
  {
    name: "a follower, from which things are read, is frozen",
    async inflict(cluster) {
      const [follower = ""] = await cluster.followers();
      cluster.freeze(follower);
      return () => cluster.thaw(follower);
    },
  },
  {
    name: "the leader is cut off from the others, not from its clients",
    async inflict(cluster) {
      const leader = await cluster.leader();
      cluster.isolate(leader);
      await cluster.leader(leader);
      return () => cluster.reconnect(leader);
    },
  },
  {
    name: "the leader hears the others, and they do not hear it",
    async inflict(cluster) {
      const leader = await cluster.leader();
      const others = cluster.ids.filter((id) => id !== leader);
      for (const id of others) {
        cluster.proxy(leader, id).pause("forward");
        cluster.proxy(id, leader).pause("back");
      }
      await cluster.leader(leader);
      return () => cluster.reconnect(leader);
    },
  },
  {
    name: "a follower is cut off",
    async inflict(cluster) {
      const [follower = ""] = await cluster.followers();
      cluster.isolate(follower);
      return () => cluster.reconnect(follower);
    },
  },
  {
    name: "the way to a follower is slow",
    async inflict(cluster) {
      const [follower = ""] = await cluster.followers();
      const leader = await cluster.leader();
      const proxies = [
        cluster.proxy(leader, follower),
        cluster.proxy(follower, leader),
      ];
      for (const proxy of proxies) proxy.delay(40);
      return () => {
        for (const proxy of proxies) proxy.delay(0);
      };
    },
  },
  {
    name: "every node is killed",
    async inflict(cluster) {
      await cluster.killAll();
      await Promise.all(cluster.ids.map((id) => cluster.restart(id)));
      return () => {};
    },
  },
];

/** Each counter's values, each once and in order. */
function assertComplete(changes: readonly Change[]): void {
  const versions = new Map<string, number>();
  for (const { key, entry } of changes) {
    const version = (versions.get(key) ?? 0) + 1;
    assertEquals(entry?.version, version, key);
    versions.set(key, version);
  }
}

clusterTest(
  "client: kills, frozen nodes, partitions, a slow node: nothing is lost, repeated or forgotten",
  { proxied: true },
  async (cluster) => {
    const { connect } = await import("../client.ts");
    await using kv = await connect(cluster.addresses, { timeoutMs: 20_000 });
    const watch = kv.watch({ prefix: "counter/" });
    await watch.started();
    const taken: Change[] = [];
    const taking = (async () => {
      for await (const change of watch) {
        if (change.key === "counter/end") return;
        taken.push(change);
      }
    })();
    taking.catch(() => {}); // Heard below.
    await using lease = await kv.lease({ ttlMs: 15_000 });
    await kv.put("held", "x", { lease: lease.id });
    await using lock = await kv.lock("faults", { ttlMs: 15_000 });

    const counters = new Counters(kv, 16);
    await counters.progress(100);
    for (const { name, inflict } of FAULTS) {
      const undo = await inflict(cluster);
      const startMs = performance.now();
      await counters.progress(100);
      const shown = (await kv.get("counter/0"))?.version ?? 0;
      assert(shown > 0, name);
      assertLess(performance.now() - startMs, GAP_MS_MAX, name);
      await undo();
      await counters.progress(100);
    }
    await counters.check();
    await kv.put("counter/end", "");
    await taking;
    assertEquals(taken.length, counters.acknowledged);
    assertComplete(taken);
    assertEquals((await kv.get("held"))?.text(), "x");
    assert(!lease.signal.aborted && !lock.signal.aborted);
    await cluster.agreed();
  },
);
