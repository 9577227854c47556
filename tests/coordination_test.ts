/**
 * Leases, locks, elections and atomic changes of the client library against real nodes, also when
 * those who hold something are cut off.
 *
 * @module
 */

import {
  assert,
  assertEquals,
  assertGreater,
  assertRejects,
} from "@std/assert";
import type { Client, Entry } from "../client.ts";
import { DkvError } from "../errors.ts";
import { clusterTest, eventually, type TestCluster } from "./cluster.ts";
import { Proxy } from "./proxy.ts";

const TTL_MS = 1000;

async function open(
  cluster: TestCluster,
  addresses: readonly string[] = cluster.addresses,
): Promise<Client> {
  const { connect } = await import("../client.ts");
  return await connect(addresses, { timeoutMs: 10_000 });
}

/** Resolves when a signal is aborted, with its reason. */
function aborted(signal: AbortSignal): Promise<unknown> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve(signal.reason);
    signal.addEventListener("abort", () => resolve(signal.reason));
  });
}

async function keysOf(kv: Client, prefix: string): Promise<string[]> {
  return (await Array.fromAsync(kv.list({ prefix }))).map(({ key }) => key);
}

clusterTest(
  "coordination: atomic changes, batches, many keys at once",
  { nodes: 1 },
  async (cluster) => {
    await using kv = await open(cluster);
    const book = (who: string) =>
      kv.atomic().check("seat/12A", null).put("seat/12A", who)
        .put(`log/${who}`, "booked").commit();
    const [ann, ben] = [await book("ann"), await book("ben")];
    assertEquals([ann.ok, ben.ok], [true, false]);
    assertEquals(ben.results, []);
    assertEquals(await kv.get("log/ben"), null);

    const seat = await kv.get("seat/12A");
    assert(seat !== null);
    assertEquals([seat.text(), seat.modRevision], ["ann", ann.revision]);
    const moved = await kv.atomic().check("seat/12A", seat)
      .delete("seat/12A").put("seat/12B", "ann").commit();
    assert(moved.ok);
    const late = await kv.atomic().check("seat/12A", seat)
      .delete({ prefix: "" }).commit();
    assertEquals(late.ok, false);

    const results = await kv.batch([
      { type: "put", key: "b/1", value: "one", returnPrevious: true },
      { type: "get", key: "seat/12B" },
      { type: "delete", prefix: "log/" },
    ]);
    assertEquals(results.map(({ type }) => type), ["put", "get", "delete"]);
    assert(results[1]?.type === "get" && results[2]?.type === "delete");
    assertEquals([results[1].entry?.text(), results[2].deleted], ["ann", 1]);
    const { BatchError } = await import("../client.ts");
    const failed = await assertRejects(
      () =>
        kv.batch([
          { type: "put", key: "", value: "no key" },
          { type: "put", key: "b/2", value: "two" },
        ]),
      BatchError,
    );
    assert(failed.results[0] instanceof DkvError);
    assertEquals(failed.results[0].code, "KEY_EMPTY");
    assertEquals((await kv.get("b/2"))?.text(), "two");

    assertEquals(await kv.increment("sold"), 1n);
    const each = Array.from({ length: 50 }, () => kv.increment("sold", 2));
    const totals = (await Promise.all(each)).map(Number);
    assertEquals(
      totals.toSorted((a, b) => a - b),
      Array.from({ length: 50 }, (_, at) => 3 + 2 * at),
      "each sum is somebody's",
    );
    assertEquals((await kv.get("sold"))?.text(), "101");
    assertEquals(await kv.min("low", 2n ** 62n), 2n ** 62n);
    assertEquals([await kv.min("low", -5), await kv.min("low", 7)], [-5n, -5n]);
    assertEquals([await kv.max("high", 3), await kv.max("high", 1)], [3n, 3n]);
    await kv.append("text", "ab");
    const longer = await kv.append("text", "cd");
    assertEquals(new TextDecoder().decode(longer.value), "abcd");
    const sale = await kv.atomic().check("seat/1", null).put("seat/1", "ann")
      .increment("sold").commit();
    assert(sale.ok);
    const word = await assertRejects(() => kv.increment("text"), DkvError);
    assertEquals(word.code, "VALUE_INVALID");

    // One moment: whoever moves a value between two keys is seen before or after, never in between.
    let running = true;
    const mover = (async () => {
      for (let at = 0; running; at++) {
        await kv.atomic().put("m/0", `${at}`).put("m/299", `${at}`).commit();
      }
    })();
    await eventually("a first move", async () => await kv.get("m/0") !== null);
    const keys = Array.from({ length: 300 }, (_, at) => `m/${at}`);
    for (let round = 0; round < 20; round++) {
      const entries = await kv.getMany(keys);
      assertEquals(entries.length, 300);
      assertEquals(entries[1], null);
      assertEquals(entries[0]?.text(), entries[299]?.text());
    }
    running = false;
    await mover;
    assertEquals(await kv.getMany([]), []);
  },
);

clusterTest(
  "coordination: whoever waits may give up, by time or by signal",
  { nodes: 1 },
  async (cluster) => {
    await using kv = await open(cluster);
    const held = await kv.lock("taken");
    const elected = await kv.election("lead").campaign("first");
    for (
      const wait of [
        () => kv.lock("taken", { waitMs: 50 }),
        () => kv.election("lead").campaign("second", { waitMs: 50 }),
      ]
    ) {
      const late = await assertRejects(wait, DkvError, "within 50 ms");
      assertEquals(late.code, "DEADLINE_EXCEEDED");
    }
    // No timer bears so long.
    const stop = new AbortController();
    const patient = kv.lock("taken", { waitMs: 2 ** 31, signal: stop.signal });
    patient.catch(() => {});
    await eventually(
      "a second in line",
      async () =>
        (await Array.fromAsync(kv.list({ prefix: "taken/" }))).length === 2,
    );
    stop.abort(new Error("enough"));
    await assertRejects(() => patient, Error, "enough");
    assertEquals(held.signal.aborted, false);

    const stopped = AbortSignal.abort(new Error("stopped"));
    const signal = stopped;
    await assertRejects(() => kv.lock("free", { signal }), Error, "stopped");
    assertEquals(await Array.fromAsync(kv.list({ prefix: "free/" })), []);
    await assertRejects(
      () => elected.proclaim("more", { signal }),
      Error,
      "stopped",
    );
    await assertRejects(
      () => kv.election("lead").leader({ signal }),
      Error,
      "stopped",
    );
    await elected.resign({ timeoutMs: 2000 });
    assertEquals(await kv.election("lead").leader(), null);

    for (let at = 0; at < 10; at++) await kv.put(`listed/${at}`, "");
    const midway = new AbortController();
    const seen: string[] = [];
    await assertRejects(
      async () => {
        const entries = kv.list({ prefix: "listed/", signal: midway.signal });
        for await (const { key } of entries) {
          if (seen.push(key) === 3) midway.abort(new Error("stopped midway"));
        }
      },
      Error,
      "stopped midway",
    );
    assertEquals(seen, ["listed/0", "listed/1", "listed/2"]);

    await held.release({ timeoutMs: 2000 });
    await kv.lock("line");
    const leave = new AbortController();
    const inLine = kv.lock("line", { signal: leave.signal });
    inLine.catch(() => {});
    await eventually(
      "somebody in line",
      async () =>
        (await Array.fromAsync(kv.list({ prefix: "line/" }))).length === 2,
    );
    await cluster.kill("node1");
    const startMs = performance.now();
    leave.abort(new Error("no more"));
    await assertRejects(() => inLine, Error, "no more");
    const late = await assertRejects(
      () => kv.lock("nobody", { waitMs: 100 }),
      DkvError,
    );
    assertEquals(late.code, "DEADLINE_EXCEEDED");
    await using watch = kv.watch({ key: "a" });
    await assertRejects(
      () => watch.started({ timeoutMs: 100 }),
      DkvError,
      "was not open within 100 ms",
    );
    await assertRejects(() => watch.started({ signal }), Error, "stopped");
    assert(performance.now() - startMs < 4500, "it waited for longer");
  },
);

clusterTest(
  "coordination: a lease lives as long as its program wants",
  { nodes: 1 },
  async (cluster) => {
    await using kv = await open(cluster);
    const lease = await kv.lease({ ttlMs: TTL_MS });
    await kv.put("worker", "here", { lease: lease.id });
    const endMs = performance.now() + 2.5 * TTL_MS;
    while (performance.now() < endMs) {
      assert(await kv.get("worker") !== null, "the lease was not renewed");
    }
    assertEquals(lease.signal.aborted, false);
    await lease.revoke();
    await lease.revoke();
    assertEquals(await kv.get("worker"), null);
    assertEquals(lease.signal.aborted, false);

    const other = await kv.lease({ ttlMs: TTL_MS });
    await kv.revoke(other.id);
    const reason = await aborted(other.signal);
    assert(reason instanceof DkvError);
    assertEquals(reason.code, "LEASE_NOT_FOUND");
    await other.revoke();

    const leftMs = performance.now();
    const left = await open(cluster);
    const dropped = await left.lease({ ttlMs: TTL_MS });
    await left.put("worker", "gone", { lease: dropped.id });
    await left.close();
    assert(dropped.signal.aborted);
    await eventually(
      "the key of a client that left is gone",
      async () => await kv.get("worker") === null,
    );
    assertGreater(performance.now() - leftMs, TTL_MS * 0.9);
  },
);

clusterTest(
  "coordination: a lock goes from one to the next in line",
  { nodes: 1 },
  async (cluster) => {
    await using kv = await open(cluster);
    const first = await kv.lock("jobs", { value: "first" });
    assertEquals((await kv.get(first.key))?.text(), "first");
    const order: number[] = [];
    const tokens: number[] = [first.token];
    const waiting = [1, 2, 3].map(async (at) => {
      // In this order, so that it is known who is next.
      await eventually(
        "those before are in line",
        async () => (await keysOf(kv, "jobs/")).length === at,
      );
      await using lock = await kv.lock("jobs");
      order.push(at);
      tokens.push(lock.token);
    });
    await eventually(
      "all are in line",
      async () => (await keysOf(kv, "jobs/")).length === 4,
    );

    const late = await assertRejects(
      () => kv.lock("jobs", { waitMs: 50 }),
      DkvError,
    );
    assertEquals(late.code, "DEADLINE_EXCEEDED");
    const controller = new AbortController();
    const given = kv.lock("jobs", { signal: controller.signal });
    controller.abort(new Error("never mind"));
    await assertRejects(() => given, Error, "never mind");
    assertEquals((await keysOf(kv, "jobs/")).length, 4, "who gave up left");

    assertEquals(order, []);
    await first.release();
    await Promise.all(waiting);
    assertEquals(order, [1, 2, 3]);
    assertEquals(tokens, tokens.toSorted((a, b) => a - b));
    assertEquals(await keysOf(kv, "jobs/"), []);

    const taken = await kv.lock("jobs");
    await kv.delete(taken.key);
    const reason = await aborted(taken.signal);
    assert(reason instanceof DkvError);
    assertEquals(reason.code, "LEASE_NOT_FOUND");
    await taken.release();
  },
);

clusterTest(
  "coordination: of two that believe to hold a lock only one can write",
  { nodes: 1 },
  async (cluster) => {
    await using kv = await open(cluster);
    const [address] = cluster.addresses;
    assert(address !== undefined);
    await using proxy = new Proxy(address);
    await using cut = await open(cluster, [proxy.address]);

    const old = await cut.lock("jobs", { ttlMs: TTL_MS });
    // What the old holder sends now stands still on the way and arrives when it is too late.
    proxy.pause("forward");
    const lateWrite = cut.atomic().guard(old.guard).put("report", "old")
      .commit({ timeoutMs: 20_000 });
    const fresh = await kv.lock("jobs", { ttlMs: TTL_MS });
    assertGreater(fresh.token, old.token);
    assert(
      old.signal.aborted,
      "the old holder knows before the new one has it",
    );
    const written = await kv.atomic().guard(fresh.guard).put("report", "new")
      .commit();
    assert(written.ok);
    proxy.resume("forward");
    assertEquals((await lateWrite).ok, false);
    assertEquals((await kv.get("report"))?.text(), "new");
    await fresh.release();
  },
);

clusterTest(
  "coordination: elections are won in turn, and everyone sees by whom",
  { nodes: 1 },
  async (cluster) => {
    await using kv = await open(cluster);
    await using watcher = await open(cluster);
    const seen: (string | null)[] = [];
    const stop = new AbortController();
    const observing = (async () => {
      const leaders: AsyncIterable<Entry | null> = watcher.election("boss")
        .observe({ signal: stop.signal });
      for await (const leader of leaders) seen.push(leader?.text() ?? null);
    })();
    const sees = (who: string | null) =>
      eventually(`${who} is seen to lead`, () => seen.at(-1) === who);
    await sees(null);

    const election = kv.election("boss");
    assertEquals(await election.leader(), null);
    const ann = await election.campaign("ann");
    await sees("ann");
    const campaign = election.campaign("ben");
    await eventually(
      "ben stands for election",
      async () => (await keysOf(kv, "boss/")).length === 2,
    );
    await ann.proclaim("ann the great");
    await sees("ann the great");
    assertEquals((await election.leader())?.createRevision, ann.token);
    await ann.resign();
    const ben = await campaign;
    assertGreater(ben.token, ann.token);
    await sees("ben");
    const lost = await assertRejects(() => ann.proclaim("again"), DkvError);
    assertEquals(lost.code, "LEASE_NOT_FOUND");
    await ben.resign();
    await sees(null);
    stop.abort(new Error("enough"));
    await assertRejects(() => observing, Error, "enough");
  },
);

clusterTest(
  "coordination: a lock survives the cluster's leader",
  {},
  async (cluster) => {
    await using kv = await open(cluster);
    await using rival = await open(cluster);
    const lock = await kv.lock("jobs", { ttlMs: 5000 });
    const waiting = rival.lock("jobs");
    await eventually(
      "the rival is in line",
      async () => (await keysOf(kv, "jobs/")).length === 2,
    );
    await cluster.kill(await cluster.leader());
    const { ok } = await kv.atomic().guard(lock.guard).put("a", "b").commit();
    assert(ok);
    assertEquals(lock.signal.aborted, false);
    await lock.release();
    const next = await waiting;
    assertGreater(next.token, lock.token);
    await next.release();
  },
);
