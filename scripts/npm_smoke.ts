/**
 * What the npm package must be able to do: `npm.ts` compiles this against the installed package, with
 * strict types, and runs it under Node on three nodes: `node npm_smoke.js HOST:PORT,…`. Here it stands
 * on the source, so that it is checked with everything else.
 *
 * @module
 */

import { deepEqual, equal, ok, rejects } from "node:assert/strict";
import process from "node:process";
import {
  type Change,
  type Client,
  connect,
  DkvError,
  type Entry,
  type ErrorCode,
} from "../client.ts";

/** More than fits into the first call of a list. */
const KEYS = 1500;
const PREFIX = "smoke/";

async function main(endpoints: string): Promise<void> {
  await using kv = await connect(endpoints, { timeoutMs: 10_000 });
  equal(kv.endpoints.length, endpoints.split(",").length);
  const steps = [
    putsAndGets,
    listsAndBatches,
    compares,
    watches,
    leases,
    locks,
    elections,
    failures,
  ];
  for (const step of steps) {
    await step(kv);
    console.log(`✓ ${step.name}`);
  }
  const { deleted } = await kv.delete({ prefix: PREFIX });
  ok(deleted > KEYS, `${deleted} keys were deleted`);
}

async function putsAndGets(kv: Client): Promise<void> {
  const key = `${PREFIX}greeting`;
  const first = await kv.put(key, "hello");
  equal(first.version, 1);
  const second = await kv.put(key, new Uint8Array([0, 255]), {
    returnPrevious: true,
  });
  equal(second.revision, first.revision + 1);
  equal(second.previous?.text(), "hello");
  const entry: Entry | null = await kv.get(key);
  deepEqual(entry?.value, new Uint8Array([0, 255]));
  equal((await kv.get(key, { revision: first.revision }))?.text(), "hello");
  equal(await kv.get(`${PREFIX}none`), null);
  await kv.put(key, JSON.stringify({ planets: 8 }));
  deepEqual((await kv.get(key))?.json(), { planets: 8 });
  const large = new Uint8Array(1_000_000).fill(7);
  await kv.put(key, large);
  deepEqual((await kv.get(key, { serializable: false }))?.value, large);
}

async function listsAndBatches(kv: Client): Promise<void> {
  const keys = Array.from(
    { length: KEYS },
    (_, at) => `${PREFIX}list/${String(at).padStart(5, "0")}`,
  );
  await kv.batch(keys.map((key) => ({ type: "put", key, value: key })));
  const seen: string[] = [];
  for await (const { key } of kv.list({ prefix: `${PREFIX}list/` })) {
    seen.push(key);
  }
  deepEqual(seen, keys);
  const many = await kv.getMany([...keys.slice(0, 3), `${PREFIX}none`]);
  deepEqual(many.map((entry) => entry?.key ?? null), [
    ...keys.slice(0, 3),
    null,
  ]);
}

async function compares(kv: Client): Promise<void> {
  const key = `${PREFIX}seat/12A`;
  const book = (name: string) =>
    kv.atomic().check(key, null).put(key, name).commit();
  const both = await Promise.all([book("ann"), book("bob")]);
  equal(both.filter((result) => result.ok).length, 1);
  const { succeeded, results } = await kv.transact({
    compares: [{ key, version: 2 }],
    then: [{ type: "delete", key }],
    else: [{ type: "get", key }],
  });
  equal(succeeded, false);
  const [result] = results;
  ok(result?.type === "get");
  equal(result.entry?.version, 1);
}

async function watches(kv: Client): Promise<void> {
  const prefix = `${PREFIX}watch/`;
  const { revision } = await kv.put(`${prefix}a`, "1");
  const seen: Change[] = [];
  const watch = kv.watch({ prefix, from: revision, withPrevious: true });
  for await (const change of watch) {
    seen.push(change);
    if (seen.length === 1) await kv.put(`${prefix}b`, "2");
    if (seen.length === 2) await kv.delete(`${prefix}a`);
    if (seen.length === 3) break;
  }
  deepEqual(seen.map(({ type, key }) => [type, key]), [
    ["put", `${prefix}a`],
    ["put", `${prefix}b`],
    ["delete", `${prefix}a`],
  ]);
  equal(seen[2]?.previous?.text(), "1");
}

async function leases(kv: Client): Promise<void> {
  const key = `${PREFIX}worker`;
  {
    await using lease = await kv.lease({ ttlMs: 5000 });
    await kv.put(key, "busy", { lease: lease.id });
    const { keys, remainingMs } = await kv.timeToLive(lease.id, {
      withKeys: true,
    });
    equal(keys.length, 1);
    ok(remainingMs <= 5000);
  }
  equal(await kv.get(key), null);
}

async function locks(kv: Client): Promise<void> {
  const name = `${PREFIX}lock`;
  const first = await kv.lock(name, { ttlMs: 5000 });
  await rejects(kv.lock(name, { waitMs: 100 }), isCode("DEADLINE_EXCEEDED"));
  const next = kv.lock(name);
  const guarded = () =>
    kv.atomic().guard(first.guard).put(`${PREFIX}job`, "done").commit();
  equal((await guarded()).ok, true);
  await first.release();
  await using second = await next;
  ok(second.token > first.token, `${second.token} after ${first.token}`);
  equal((await guarded()).ok, false);
  equal(second.signal.aborted, false);
}

async function elections(kv: Client): Promise<void> {
  const election = kv.election(`${PREFIX}leader`);
  const leadership = await election.campaign("ann");
  for await (const leader of election.observe()) {
    equal(leader?.text() ?? null, "ann");
    break;
  }
  await leadership.resign();
  equal(await election.leader(), null);
}

async function failures(kv: Client): Promise<void> {
  await rejects(kv.put("", "x"), isCode("KEY_EMPTY"));
  await rejects(
    kv.put(`${PREFIX}large`, new Uint8Array(2_000_000)),
    isCode("VALUE_TOO_LARGE"),
  );
  const signal = AbortSignal.abort(new Error("no more"));
  await rejects(kv.get(`${PREFIX}a`, { signal }), /no more/);
  // What types must refuse. Never called.
  void (() => {
    // @ts-expect-error a value is text or bytes
    void kv.put("key", 1);
    // @ts-expect-error there is no such option
    void kv.get("key", { timeout: 1 });
    // @ts-expect-error a number, not any
    void kv.put("key", "").then(({ revision }): string => revision);
    // @ts-expect-error there is no such code
    isCode("NO_SUCH_CODE");
  });
}

function isCode(code: ErrorCode): (error: unknown) => boolean {
  return (error) => error instanceof DkvError && error.code === code;
}

await main(process.argv[2] ?? "");
