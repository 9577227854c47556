/**
 * The client against real nodes: what it does, what it refuses, and what it says without a
 * majority. What it bears is in `client_faults_test.ts`.
 *
 * @module
 */

import {
  assert,
  assertEquals,
  assertGreaterOrEqual,
  assertLess,
  assertRejects,
} from "@std/assert";
import type { Change, Client, Entry } from "../client.ts";
import { LIMITS } from "../config.ts";
import { DkvError, type ErrorCode } from "../errors.ts";
import { clusterTest, type TestCluster } from "./cluster.ts";

/** grpc-js reads the environment when it is imported. */
async function open(
  cluster: TestCluster,
  options: { only?: string; timeoutMs?: number } = {},
): Promise<Client> {
  const { connect } = await import("../client.ts");
  const { only, timeoutMs = 10_000 } = options;
  const addresses = only === undefined
    ? cluster.addresses
    : [cluster.address(only)];
  return await connect(addresses, { timeoutMs });
}

async function rejectsWith(
  code: ErrorCode,
  promise: Promise<unknown>,
): Promise<DkvError> {
  const error = await assertRejects(() => promise, DkvError);
  assertEquals(error.code, code, error.message);
  return error;
}

async function collect(list: AsyncIterable<Entry>): Promise<string[]> {
  return (await Array.fromAsync(list)).map(({ key }) => key);
}

/** Takes changes until one is on `key`. */
async function takeUntil(
  watch: AsyncIterable<Change>,
  key: string,
): Promise<Change[]> {
  const changes: Change[] = [];
  for await (const change of watch) {
    changes.push(change);
    if (change.key === key) break;
  }
  return changes;
}

// ------------------------------------------------------------------ one node

clusterTest(
  "client: keys and values of every kind",
  { nodes: 1 },
  async (cluster) => {
    await using kv = await open(cluster);

    const first = await kv.put("greeting", "hello");
    assertEquals([first.version, first.previous], [1, null]);
    const second = await kv.put("greeting", "hi", { returnPrevious: true });
    assertEquals([second.revision, second.version], [first.revision + 1, 2]);
    assertEquals(second.previous?.text(), "hello");

    const entry = await kv.get("greeting");
    assert(entry !== null);
    assertEquals([entry.key, entry.text()], ["greeting", "hi"]);
    assertEquals(entry.createRevision, first.revision);
    assertEquals([entry.modRevision, entry.version], [second.revision, 2]);
    assertEquals(entry.lease, 0n);
    assertEquals(await kv.get("nobody"), null);

    const old = await kv.get("greeting", { revision: first.revision });
    assertEquals(old?.text(), "hello");
    const stale = await kv.get("greeting", { serializable: true });
    assertEquals(stale?.text(), "hi");

    const bytes = new Uint8Array([0, 255, 10]);
    await kv.put(bytes, bytes);
    assertEquals([...(await kv.get(bytes))?.value ?? []], [...bytes]);
    await kv.put("json", JSON.stringify({ "ä": [1] }));
    assertEquals((await kv.get("json"))?.json(), { "ä": [1] });
    await kv.put("empty", "");
    assertEquals((await kv.get("empty"))?.text(), "");
    const large = new Uint8Array(1024 * 1024).fill(7);
    await kv.put("large", large);
    assertEquals((await kv.get("large"))?.value.length, large.length);

    const gone = await kv.delete("greeting", { returnPrevious: true });
    assertEquals(gone.deleted, 1);
    assertEquals(gone.previous.map((entry) => entry.text()), ["hi"]);
    assertEquals((await kv.delete("greeting")).deleted, 0);
    for (const key of ["p/1", "p/2", "q"]) await kv.put(key, key);
    assertEquals((await kv.delete({ prefix: "p/" })).deleted, 2);
    const range = { start: "q", end: "r" };
    assertEquals((await kv.delete({ range })).deleted, 1);
  },
);

clusterTest(
  "client: a list over many pages is at one revision, both ways",
  { nodes: 1 },
  async (cluster) => {
    await using kv = await open(cluster);
    const keys = Array.from(
      { length: 3500 },
      (_, at) => `list/${String(at).padStart(5, "0")}`,
    );
    const value = "x".repeat(500);
    await Promise.all(keys.map((key) => kv.put(key, value)));

    const seen: string[] = [];
    for await (const entry of kv.list({ prefix: "list/" })) {
      // What is written behind its back does not show.
      if (seen.length % 500 === 0) await kv.put(`list/zz${seen.length}`, "");
      if (seen.length === 10) await kv.delete(keys[3400] ?? "");
      assertEquals(entry.value.length, 500);
      seen.push(entry.key);
    }
    assertEquals(seen, keys);

    await kv.delete({ range: { start: "list/z", end: "list0" } });
    keys.splice(3400, 1);
    const list = (options: object) =>
      collect(kv.list({ prefix: "list/", ...options }));
    assertEquals(await list({ reverse: true }), keys.toReversed());
    assertEquals(await list({ limit: 1234 }), keys.slice(0, 1234));
    assertEquals(
      await list({ serializable: true, limit: 2 }),
      keys.slice(0, 2),
    );
    const range = { start: keys[5] ?? "", end: keys[2000] ?? "" };
    assertEquals(
      await collect(kv.list({ range, keysOnly: true })),
      keys.slice(5, 2000),
    );
    const [bare] = await Array.fromAsync(kv.list({ keysOnly: true, limit: 1 }));
    assertEquals(bare?.value.length, 0);
    assertEquals(await collect(kv.list({ prefix: "nobody" })), []);

    const large = "y".repeat(300_000);
    for (let at = 0; at < 10; at++) await kv.put(`large/${at}`, large);
    const sizes = (await Array.fromAsync(kv.list({ prefix: "large/" })))
      .map((entry) => entry.value.length);
    assertEquals(sizes, Array(10).fill(300_000));
  },
);

clusterTest(
  "client: transactions, leases, compaction, status",
  { nodes: 1 },
  async (cluster) => {
    await using kv = await open(cluster);
    const seat = (name: string) =>
      kv.transact({
        compares: [{ key: "seat", version: 0 }],
        then: [{ type: "put", key: "seat", value: name }],
        else: [{ type: "get", key: "seat" }],
      });
    const [ann, bob] = await Promise.all([seat("ann"), seat("bob")]);
    assertEquals([ann.succeeded, bob.succeeded], [true, false]);
    const [taken] = bob.results;
    assert(taken?.type === "get");
    assertEquals(taken.entry?.text(), "ann");
    const all = await kv.transact({
      compares: [{ key: "seat", value: "ann" }, {
        key: "seat",
        relation: "greater",
        modRevision: 0,
      }],
      then: [
        { type: "list", prefix: "", limit: 5 },
        { type: "delete", key: "seat", returnPrevious: true },
      ],
    });
    assertEquals(all.results.map(({ type }) => type), ["list", "delete"]);

    const { lease } = await kv.grant({ ttlMs: 60_000 });
    await kv.put("leased", "x", { lease });
    assertEquals((await kv.get("leased"))?.lease, lease);
    assertEquals((await kv.keepAlive(lease)).ttlMs, 60_000);
    const left = await kv.timeToLive(lease, { withKeys: true });
    assertEquals(left.ttlMs, 60_000);
    assertGreaterOrEqual(left.remainingMs, 50_000);
    assertEquals(left.keys.map((key) => new TextDecoder().decode(key)), [
      "leased",
    ]);
    await kv.revoke(lease);
    assertEquals(await kv.get("leased"), null);
    await rejectsWith("LEASE_NOT_FOUND", kv.keepAlive(lease));
    await rejectsWith("LEASE_NOT_FOUND", kv.timeToLive(lease));
    await rejectsWith("LEASE_NOT_FOUND", kv.revoke(lease));
    const exact = 2n ** 63n - 2n;
    await kv.grant({ ttlMs: 60_000, lease: exact });
    const again = kv.grant({ ttlMs: 60_000, lease: exact });
    await rejectsWith("LEASE_EXISTS", again);

    const { revision } = await kv.put("a", "1");
    await kv.put("a", "2");
    await kv.compact(revision + 1);
    await rejectsWith("REVISION_COMPACTED", kv.get("a", { revision }));
    const late = kv.watch({ key: "a", from: 1 });
    await rejectsWith("REVISION_COMPACTED", late.next());

    const status = await kv.status();
    assertEquals([status.nodeId, status.role], ["node1", "leader"]);
    assertEquals(status.revision, revision + 1);
    assertEquals(status.members.map(({ nodeId }) => nodeId), ["node1"]);
    const named = await kv.status(cluster.address("node1"));
    assertEquals({ ...named, uptimeMs: 0 }, { ...status, uptimeMs: 0 });
    await rejectsWith("UNREACHABLE", kv.status("127.0.0.1:1"));
  },
);

clusterTest(
  "client: errors carry their codes",
  { nodes: 1 },
  async (cluster) => {
    await using kv = await open(cluster);
    await rejectsWith("KEY_EMPTY", kv.put("", "x"));
    await rejectsWith("KEY_EMPTY", kv.get(""));
    await rejectsWith("KEY_EMPTY", kv.delete(""));
    await rejectsWith("KEY_TOO_LARGE", kv.put("k".repeat(5000), "x"));
    await rejectsWith(
      "VALUE_TOO_LARGE",
      kv.put("k", "x".repeat(LIMITS.valueBytesMax + 1)),
    );
    await rejectsWith(
      "REQUEST_TOO_LARGE",
      kv.put("k", "x".repeat(9 * 2 ** 20)),
    );
    await rejectsWith("REVISION_FUTURE", kv.get("k", { revision: 1_000_000 }));
    await rejectsWith("LEASE_NOT_FOUND", kv.put("k", "x", { lease: 12345n }));
    await rejectsWith("LEASE_INVALID", kv.grant({ ttlMs: 1 }));
    const range = { start: "b", end: "a" };
    await rejectsWith("RANGE_INVERTED", kv.delete({ range }));
    await rejectsWith("RANGE_INVERTED", kv.list({ range }).next());
    await rejectsWith("RANGE_INVERTED", kv.watch({ range }).next());
    const put = { type: "put", key: "k", value: "x" } as const;
    await rejectsWith("DUPLICATE_KEY", kv.transact({ then: [put, put] }));
    await rejectsWith(
      "TOO_MANY_OPERATIONS",
      kv.transact({ then: Array(129).fill({ type: "get", key: "k" }) }),
    );
    // None of them disturbed the stream that they shared.
    assertEquals((await kv.put("k", "x")).version, 1);

    const { connect } = await import("../client.ts");
    await rejectsWith("CONFIG_INVALID", connect(""));
    await rejectsWith("CONFIG_INVALID", connect("127.0.0.1:99999"));
    const nobody = connect("127.0.0.1:1", { timeoutMs: 300 });
    await rejectsWith("UNREACHABLE", nobody);
    await kv.close();
    await rejectsWith("CANCELLED", kv.get("k"));
  },
);

clusterTest(
  "client: more operations and bytes than may be in flight, all at once",
  { nodes: 1 },
  async (cluster) => {
    await using kv = await open(cluster, { timeoutMs: 60_000 });
    const small = Array.from(
      { length: 12_000 },
      (_, at) => kv.put(`small/${at % 100}`, "x"),
    );
    const large = Array.from(
      { length: 24 },
      (_, at) => kv.put(`large/${at}`, new Uint8Array(1024 * 1024)),
    );
    const revisions = (await Promise.all([...small, ...large]))
      .map(({ revision }) => revision);
    assertEquals(new Set(revisions).size, revisions.length);
    assertEquals((await kv.get("small/7"))?.version, 120);
  },
);

clusterTest(
  "client: a watch that is read late brings every change once",
  { nodes: 1 },
  async (cluster) => {
    await using kv = await open(cluster);
    const watch = kv.watch({ prefix: "w/", withPrevious: true });
    const from = await watch.started();
    const value = new Uint8Array(100_000);
    // Several times what the client buffers, while nobody reads.
    for (let at = 0; at < 120; at++) await kv.put(`w/${at % 10}`, value);
    await kv.delete({ prefix: "w/" });
    await kv.put("w/end", "");
    const changes = await takeUntil(watch, "w/end");
    assertEquals(changes.length, 120 + 10 + 1);
    for (const [at, { revision, type, previous }] of changes.entries()) {
      if (at >= 130) break;
      assertEquals(revision, from + Math.min(at, 120));
      assertEquals(type, at < 120 ? "put" : "delete");
      assertEquals(previous === null, at < 10);
    }

    const history = kv.watch({ prefix: "w/", from, noDeletes: true });
    assertEquals((await takeUntil(history, "w/end")).length, 121);
    const stopping = new AbortController();
    const quiet = kv.watch({ key: "w/none", signal: stopping.signal });
    const next = quiet.next();
    stopping.abort(new Error("enough"));
    await assertRejects(() => next, Error, "enough");
    assertEquals((await quiet.next()).done, true);
  },
);

// ------------------------------------------------------------------ three nodes

clusterTest(
  "client: without a majority writes fail in time, and say what is known",
  {},
  async (cluster) => {
    await using kv = await open(cluster);
    await kv.put("a", "1");
    const survivor = (await cluster.followers())[0] ?? "";
    await using one = await open(cluster, { only: survivor });
    for (const id of cluster.ids) {
      if (id !== survivor) await cluster.kill(id);
    }
    const { OutcomeUnknownError } = await import("../client.ts");
    const start = performance.now();
    // Perhaps it was handed to the old leader.
    const first = await assertRejects(
      () => kv.put("a", "2", { timeoutMs: 1500 }),
      DkvError,
    );
    assert(["OUTCOME_UNKNOWN", "NO_LEADER"].includes(first.code), first.code);
    await rejectsWith("NO_LEADER", kv.get("a", { timeoutMs: 1500 }));
    assertLess(performance.now() - start, 4000);
    // By now the survivor knows that nobody leads: the write never left it.
    await rejectsWith("NO_LEADER", one.put("a", "3", { timeoutMs: 3000 }));
    const stale = await kv.get("a", { serializable: true });
    assertEquals(stale?.text(), "1");

    const reason = new Error("enough");
    const write = one.put("a", "4", { signal: AbortSignal.timeout(300) });
    const unknown = await assertRejects(() => write, OutcomeUnknownError);
    assertEquals((unknown.cause as Error).name, "TimeoutError");
    const read = one.get("a", { signal: AbortSignal.timeout(300) });
    await assertRejects(() => read, DOMException);
    const never = one.put("a", "5", { signal: AbortSignal.abort(reason) });
    await assertRejects(() => never, Error, "enough");
    const closing = one.put("a", "6");
    await new Promise((resolve) => setTimeout(resolve, 50));
    await one.close();
    await rejectsWith("OUTCOME_UNKNOWN", closing);

    await cluster.killAll();
    const { code } = await assertRejects(
      () => kv.get("a", { timeoutMs: 1000 }),
      DkvError,
    );
    assertEquals(code, "UNREACHABLE");
  },
);
