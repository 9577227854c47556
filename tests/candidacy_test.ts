/**
 * Who is woken when a lock is given back: one of those in line, on a store that counts; that fifty in
 * line all have their turn, on a real one; and that holders who do not notice that they have lost a
 * lock change nothing, on a cluster that is tormented.
 *
 * @module
 */

import {
  assert,
  assertEquals,
  assertGreater,
  assertRejects,
} from "@std/assert";
import { setImmediate } from "node:timers";
import { type Change, Entry, type TransactResult } from "../answers.ts";
import type { HoldingStore } from "../candidacy.ts";
import type { Client, Lock } from "../client.ts";
import { DkvError } from "../errors.ts";
import { Lease } from "../heldlease.ts";
import { acquire } from "../lock.ts";
import type { CallOptions, Target, Transaction } from "../operations.ts";
import { clusterTest, eventually, type TestCluster } from "./cluster.ts";
import { Proxy } from "./proxy.ts";
import { Random } from "./sim/random.ts";

const encoder = new TextEncoder();

/** A watch of a {@linkcode CountingStore}. */
class FakeWatch implements AsyncIterableIterator<Change> {
  readonly #matches: (key: string) => boolean;
  readonly #end: () => void;
  /** It has had its event, or was aborted. */
  #isOver = false;
  readonly #event = Promise.withResolvers<IteratorResult<Change>>();

  constructor(
    target: Target & CallOptions,
    { end }: { end: (watch: FakeWatch) => void },
  ) {
    const { signal } = target;
    this.#matches = "key" in target
      ? (key) => key === target.key
      : (key) => "prefix" in target && key.startsWith(String(target.prefix));
    const abort = () => {
      this.#isOver = true;
      this.#event.reject(signal?.reason);
    };
    this.#event.promise.catch(() => {});
    signal?.addEventListener("abort", abort);
    this.#end = () => {
      signal?.removeEventListener("abort", abort);
      end(this);
    };
  }

  /** True if it wakes somebody. */
  tell(change: Change): boolean {
    if (this.#isOver || !this.#matches(change.key)) return false;
    this.#isOver = true;
    this.#event.resolve({ value: change, done: false });
    return true;
  }

  started(): Promise<number> {
    return Promise.resolve(0);
  }

  next(): Promise<IteratorResult<Change>> {
    return this.#event.promise;
  }

  return(): Promise<IteratorResult<Change>> {
    this.#end();
    return Promise.resolve({ value: undefined, done: true });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}

/** Keys in memory, of which every question and every wake-up is counted. */
class CountingStore implements HoldingStore {
  readonly watches = new Set<FakeWatch>();
  /** Since the last {@linkcode CountingStore.forget}. */
  counts = { woken: 0, lists: 0, gets: 0 };
  readonly #entries = new Map<string, Entry>();
  #revision = 0;

  forget(): void {
    this.counts = { woken: 0, lists: 0, gets: 0 };
  }

  get keys(): string[] {
    return [...this.#entries.keys()];
  }

  lease({ ttlMs }: { ttlMs: number }): Promise<Lease> {
    const id = BigInt(++this.#revision);
    return Promise.resolve(
      new Lease({
        keepAlive: () => Promise.resolve({ ttlMs }),
        revoke: (lease) => Promise.resolve(this.#revoke(lease)),
        ended: () => {},
      }, { id, ttlMs, sentMs: performance.now() }),
    );
  }

  transact({ then = [] }: Transaction): Promise<TransactResult> {
    const revision = ++this.#revision;
    for (const operation of then) {
      assert(operation.type === "put" && typeof operation.key === "string");
      const { key, lease = 0n } = operation;
      this.#entries.set(
        key,
        new Entry({
          keyBytes: encoder.encode(key),
          value: new Uint8Array(),
          createRevision: revision,
          modRevision: revision,
          version: 1,
          lease,
        }),
      );
    }
    return Promise.resolve({ revision, succeeded: true, results: [] });
  }

  get(key: string): Promise<Entry | null> {
    this.counts.gets++;
    return Promise.resolve(this.#entries.get(key) ?? null);
  }

  async *list(): AsyncGenerator<Entry> {
    this.counts.lists++;
    for (const entry of [...this.#entries.values()]) {
      yield await Promise.resolve(entry);
    }
  }

  watch(target: Target & CallOptions): FakeWatch {
    const end = (ended: FakeWatch) => this.watches.delete(ended);
    const watch = new FakeWatch(target, { end });
    this.watches.add(watch);
    return watch;
  }

  #revoke(lease: bigint): void {
    for (const [key, entry] of this.#entries) {
      if (entry.lease !== lease) continue;
      this.#entries.delete(key);
      const change: Change = {
        type: "delete",
        key,
        keyBytes: entry.keyBytes,
        revision: ++this.#revision,
        entry: null,
        previous: null,
      };
      for (const watch of this.watches) {
        if (watch.tell(change)) this.counts.woken++;
      }
    }
  }
}

/** Everything that nobody has to wait for has happened: nothing here takes time. */
function quiet(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

Deno.test("candidacy: what ends wakes the next in line, and nobody else", async () => {
  const store = new CountingStore();
  const count = 50;
  const held: (Lock | undefined)[] = [];
  const order: number[] = [];
  const stops = Array.from({ length: count }, () => new AbortController());
  const waiting: Promise<void>[] = [];
  for (const [at, { signal }] of stops.entries()) {
    waiting.push(
      acquire(store, "jobs", { signal }).then((lock) => {
        held[at] = lock;
        order.push(at);
      }),
    );
    await quiet();
  }
  assertEquals(order, [0]);
  // One for each: of the key before it, and the holder's of its own.
  assertEquals(store.watches.size, count);

  for (let at = 0; at + 1 < count; at++) {
    if (at === 20) {
      // Who gives up in the middle wakes the one behind it, who goes on waiting.
      store.forget();
      stops[30]?.abort(new Error("enough"));
      await assertRejects(() => waiting[30] as Promise<void>, Error, "enough");
      await quiet();
      assertEquals(store.counts, { woken: 1, lists: 1, gets: 1 });
      assertEquals(order.length, 21);
    }
    if (at === 30) continue;
    store.forget();
    await held[at]?.release();
    await quiet();
    // It looks whether it is the first, and then guards its place.
    assertEquals(store.counts, { woken: 1, lists: 1, gets: 1 });
    assertEquals(order.at(-1), at === 29 ? 31 : at + 1);
  }
  await held[count - 1]?.release();
  await quiet();
  assertEquals([store.keys, store.watches.size], [[], 0]);
});

clusterTest(
  "candidacy: fifty in line all have the lock once, in order",
  { nodes: 1 },
  async (cluster) => {
    const { connect } = await import("../client.ts");
    await using stack = new AsyncDisposableStack();
    const clients: Client[] = [];
    for (let at = 0; at < 5; at++) {
      clients.push(stack.use(await connect(cluster.addresses)));
    }
    const [kv] = clients;
    assert(kv !== undefined);
    const first = await kv.lock("jobs");
    const granted: string[] = [];
    let holders = 0;
    const waiting = Array.from({ length: 50 }, async (_, at) => {
      const lock = await clients[at % clients.length]?.lock("jobs");
      assert(lock !== undefined);
      assertEquals(++holders, 1, "somebody else has it");
      granted.push(lock.key);
      await kv.get("something else");
      holders--;
      await lock.release();
    });
    const all = Promise.all(waiting);
    all.catch(() => {});
    const queue = await eventually("all are in line", async () => {
      const entries = await Array.fromAsync(kv.list({ prefix: "jobs/" }));
      return entries.length === 51 && entries;
    });
    assertEquals(granted, []);
    await first.release();
    await all;
    const line = queue.toSorted((a, b) => a.createRevision - b.createRevision);
    assertEquals(granted, line.map(({ key }) => key).slice(1));
    assertEquals(await Array.fromAsync(kv.list({ prefix: "jobs/" })), []);
  },
);

/** Of the random faults below. */
const SEED = 20261129;
const TTL_MS = 1000;
/** Writes that a holder sends at once: those of a cut that come too late. */
const BURST = 4;

/** What several holders came to. */
class Ledger {
  /** Who got the lock last, and its token. */
  holder: { readonly at: number; readonly token: number } | null = null;
  readonly accepted: string[] = [];
  readonly refused: string[] = [];
}

/** A client whose way to each node can be cut. */
class Holder implements AsyncDisposable {
  readonly #at: number;
  readonly #proxies: readonly Proxy[];
  readonly #random: Random;
  readonly #ledger: Ledger;

  constructor(
    cluster: TestCluster,
    { at, ledger }: { at: number; ledger: Ledger },
  ) {
    this.#at = at;
    this.#ledger = ledger;
    this.#proxies = cluster.addresses.map((address) => new Proxy(address));
    this.#random = new Random(SEED + 1 + at);
  }

  /** Takes its turns until it is told to stop. */
  async run(stop: AbortSignal): Promise<void> {
    const { connect } = await import("../client.ts");
    const addresses = this.#proxies.map(({ address }) => address);
    await using kv = await connect(addresses, { timeoutMs: 20_000 });
    while (!stop.aborted) {
      let lock: Lock;
      try {
        lock = await kv.lock("jobs", { ttlMs: TTL_MS, signal: stop });
      } catch (error) {
        // Its place in line was lost while it was cut off.
        const isLost = error instanceof DkvError &&
          error.code === "LEASE_NOT_FOUND";
        if (!isLost && error !== stop.reason) throw error;
        continue;
      }
      this.#ledger.holder = { at: this.#at, token: lock.token };
      await this.#write(kv, lock);
      await lock.release();
    }
  }

  /** Never looks whether the lock is lost: only the token is in the way. */
  async #write(kv: Client, lock: Lock): Promise<void> {
    const bursts = this.#random.between(10, 60);
    for (let burst = 0; burst < bursts; burst++) {
      const writes = Array.from({ length: BURST }, async (_, at) => {
        const value = `${lock.token} ${this.#at} ${burst * BURST + at}`;
        const { ok } = await kv.atomic().guard(lock.guard)
          .put("report", value).commit();
        (ok ? this.#ledger.accepted : this.#ledger.refused).push(value);
        return ok;
      });
      if ((await Promise.all(writes)).includes(false)) return;
    }
  }

  cut(...directions: ("forward" | "back")[]): void {
    for (const proxy of this.#proxies) proxy.pause(...directions);
  }

  heal(): void {
    for (const proxy of this.#proxies) proxy.resume();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const proxy of this.#proxies) await proxy[Symbol.asyncDispose]();
  }
}

/** Cuts off whoever holds the lock until somebody else has it, and now and then stops the leader. */
async function torment(
  cluster: TestCluster,
  { holders, ledger }: { holders: readonly Holder[]; ledger: Ledger },
): Promise<void> {
  const random = new Random(SEED);
  const next = async () => {
    const { token } = ledger.holder ?? { token: 0 };
    await eventually(
      "another holder",
      () => ledger.holder !== null && ledger.holder.token > token,
    );
  };
  await next();
  for (let round = 0; round < 6; round++) {
    const isFrozen = round === 3;
    const leader = await cluster.leader();
    if (isFrozen) cluster.freeze(leader);
    const holder = holders[ledger.holder?.at ?? 0];
    const direction = random.pick(["forward", "back"] as const);
    const isWhole = random.chance(1, 2);
    holder?.cut(...(isWhole ? [] : [direction]));
    await next();
    holder?.heal();
    if (isFrozen) cluster.thaw(leader);
    await next();
  }
}

clusterTest(
  "candidacy: holders that do not notice that they have lost a lock change nothing",
  {},
  async (cluster) => {
    await using stack = new AsyncDisposableStack();
    const ledger = new Ledger();
    const holders = Array.from(
      { length: 4 },
      (_, at) => stack.use(new Holder(cluster, { at, ledger })),
    );
    const stop = new AbortController();
    const running = Promise.all(
      holders.map((holder) => holder.run(stop.signal)),
    );
    running.catch(() => {});
    try {
      await torment(cluster, { holders, ledger });
    } finally {
      stop.abort(new Error("enough"));
      await Promise.allSettled([running]);
    }
    await running;

    const { connect } = await import("../client.ts");
    const kv = stack.use(await connect(cluster.addresses));
    const last = await kv.get("report");
    assert(last !== null);
    const written: string[] = [];
    for await (const change of kv.watch({ key: "report", from: 1 })) {
      written.push(change.entry?.text() ?? "");
      if (change.revision === last.modRevision) break;
    }
    const tokens = written.map((value) => Number(value.split(" ")[0]));
    for (const [at, token] of tokens.entries()) {
      const before = tokens[at - 1] ?? 0;
      assert(token >= before, `seed ${SEED}: ${token} wrote after ${before}`);
    }
    // Nobody shares a token, nothing is applied twice, and the answers are true.
    const authors = written.map((value) => value.split(" ", 2).join(" "));
    assertEquals(new Set(authors).size, new Set(tokens).size);
    const all = new Set(written);
    assertEquals(all.size, written.length);
    assertEquals(ledger.accepted.filter((value) => !all.has(value)), []);
    assertEquals(ledger.refused.filter((value) => all.has(value)), []);
    // All this is nothing without those who came too late.
    assertGreater(ledger.refused.length, 0);
    assertGreater(new Set(tokens).size, 6);
  },
);
