/** What operations mean, on a lone replica in memory: checks, pages, and promises that settle. */

import { assert, assertEquals, assertRejects } from "@std/assert";
import type { ModifyOperation } from "../batch.ts";
import { defaultSettings, LIMITS } from "../config.ts";
import { Disk } from "../disk.ts";
import { DkvError, type ErrorCode } from "../errors.ts";
import { Group } from "../group.ts";
import { simpleConfiguration } from "../members.ts";
import { keyAfter, Service } from "../service.ts";

/** A group of one, which leads, and whose turns run by themselves. */
function lone(): { service: Service; group: Group } {
  let isScheduled = false;
  const settings = defaultSettings();
  const group: Group = new Group({
    id: "default",
    member: "n1",
    disk: new Disk({
      path: ":memory:",
      bootstrap: simpleConfiguration(["n1"]),
    }),
    settings,
    seed: 1,
    origin: 1,
    clusterId: "c",
    outputs: {
      send: () => {},
      wake: () => {
        if (isScheduled) return;
        isScheduled = true;
        queueMicrotask(() => {
          isScheduled = false;
          group.turn();
        });
      },
      remind: () => {},
      shipSnapshot: () => {},
      installSnapshot: () => {},
      writeRefusal: () => null,
      diskExhausted: () => false,
      log: () => {},
    },
  });
  for (let at = 0; group.core.role !== "leader"; at++) {
    assert(at < 100, "it does not lead");
    group.tick();
    group.turn();
  }
  return { service: new Service(group, settings), group };
}

const NOW = { timeoutMs: null, revision: 0, serializable: false };
const WRITE = { timeoutMs: null, writeId: null };
const ALL = { start: "", end: null };

function put(service: Service, key: string, bytes = 1) {
  return service.put({
    type: "put",
    key,
    value: new Uint8Array(bytes),
    lease: 0n,
    returnPrevious: false,
  }, WRITE);
}

async function assertRefuses(
  run: () => Promise<unknown>,
  code: ErrorCode,
): Promise<void> {
  const error = await assertRejects(async () => await run(), DkvError);
  assertEquals(error.code, code);
}

Deno.test("service: the key after a key is the first that is greater", () => {
  assert(keyAfter("a") > "a");
  assert(keyAfter("a") < "a\x01");
  assert(keyAfter("\xff") > "\xff");
});

Deno.test("service: a transaction that only reads leaves no entry in the log", async () => {
  const { service, group } = lone();
  await put(service, "a");
  const before = group.core.lastIndex;
  const read = (key: string) => ({
    type: "transact",
    compares: [{
      key,
      relation: "equal",
      target: { type: "version", number: 1 },
    }],
    then: [{ type: "get", key }],
    else: [{
      type: "list",
      range: ALL,
      limit: 1,
      keysOnly: true,
      reverse: false,
    }],
  } as const);
  const writeId = { client: "c", sequence: 1, doneBelow: 1 };
  const options = { timeoutMs: null, writeId };
  const found = await service.transact(read("a"), options);
  assertEquals([found.revision, found.succeeded], [2, true]);
  assert(found.results[0]?.type === "get");
  assertEquals(found.results[0].entry?.key, "a");
  const missing = await service.transact(read("b"), options);
  assertEquals(missing.succeeded, false);
  assert(missing.results[0]?.type === "list");
  assertEquals(missing.results[0].entries.map(({ key }) => key), ["a"]);
  assertEquals(group.core.lastIndex, before);
  // One that might write does, even if what holds is only a read.
  await service.transact({
    ...read("a"),
    else: [{
      type: "delete",
      range: ALL,
      returnPrevious: false,
    }],
  }, options);
  assertEquals(group.core.lastIndex, before + 1);
});

Deno.test("service: leadership cannot go to nobody", async () => {
  const { service } = lone();
  await assertRefuses(
    () => service.transferLeadership("", { timeoutMs: 50 }),
    "MEMBERSHIP_REFUSED",
  );
});

Deno.test("service: a list goes on where its page ended, both ways, to its limit", async () => {
  const { service } = lone();
  const count = 2 * LIMITS.listPageEntries + 5;
  const keys = Array.from(
    { length: count },
    (_, at) => String(at).padStart(6, "0"),
  );
  await Promise.all(keys.map((key) => put(service, key)));
  const cases: { limit: number; pages: number; more: boolean }[] = [
    { limit: 0, pages: 3, more: false },
    { limit: 1, pages: 1, more: true },
    { limit: LIMITS.listPageEntries, pages: 1, more: true },
    { limit: LIMITS.listPageEntries + 1, pages: 2, more: true },
    { limit: count, pages: 3, more: false },
    { limit: count + 1, pages: 3, more: false },
  ];
  for (const reverse of [false, true]) {
    const order = reverse ? keys.toReversed() : keys;
    for (const { limit, pages, more } of cases) {
      const options = { ...NOW, range: ALL, limit, keysOnly: true, reverse };
      const found: string[] = [];
      const flags: boolean[] = [];
      for await (const page of service.list(options)) {
        found.push(...page.entries.map(({ key }) => key));
        flags.push(page.more);
        assertEquals(page.revision, 1 + count);
      }
      assertEquals(found, order.slice(0, limit === 0 ? count : limit));
      // Only the last page tells whether the limit left something out.
      const expected = Array.from(
        { length: pages },
        (_, at) => at === pages - 1 && more,
      );
      assertEquals(flags, expected, `limit ${limit}`);
    }
  }
});

Deno.test("service: a list stays at its revision while writes go on", async () => {
  const { service } = lone();
  const count = LIMITS.listPageEntries + 10;
  for (let at = 0; at < count; at++) void put(service, `k${10_000 + at}`);
  await put(service, "end");
  const options = {
    ...NOW,
    range: ALL,
    limit: 0,
    keysOnly: true,
    reverse: false,
  };
  let found = 0;
  for await (const page of service.list(options)) {
    found += page.entries.length;
    await put(service, `z${found}`);
    await service.delete({
      type: "delete",
      range: { start: "k", end: "l" },
      returnPrevious: false,
    }, WRITE);
  }
  assertEquals(found, count + 1);
});

Deno.test("service: bad requests are refused before anything is proposed", async () => {
  const { service, group } = lone();
  await put(service, "a");
  const { lastIndex } = group.core;
  const long = "k".repeat(LIMITS.keyBytesMax + 1);
  await assertRefuses(async () => await put(service, ""), "KEY_EMPTY");
  await assertRefuses(async () => await put(service, long), "KEY_TOO_LARGE");
  await assertRefuses(
    async () => await put(service, "a", LIMITS.valueBytesMax + 1),
    "VALUE_TOO_LARGE",
  );
  const modify = {
    type: "modify",
    key: "a",
    function: "add",
    encoding: "decimal",
    operand: new TextEncoder().encode("1"),
    lease: null,
    returnPrevious: false,
  } as const;
  const operand = new Uint8Array(LIMITS.valueBytesMax + 1);
  const twice = { key: "b" };
  const modifications: [Partial<ModifyOperation>, ErrorCode][] = [
    [{ key: "" }, "KEY_EMPTY"],
    [{ key: long }, "KEY_TOO_LARGE"],
    [{ operand: new Uint8Array(0) }, "MALFORMED"],
    [{ operand: new TextEncoder().encode("+1") }, "MALFORMED"],
    [{ encoding: "uint64le" }, "MALFORMED"],
    [{ operand }, "VALUE_TOO_LARGE"],
    [{ function: "append", operand }, "VALUE_TOO_LARGE"],
    [{ lease: -1n }, "LEASE_INVALID"],
    [twice, "DUPLICATE_KEY"],
  ];
  for (const [part, code] of modifications) {
    const then = [{ ...modify, ...twice }, { ...modify, ...part }];
    const request = { type: "transact", compares: [], else: [] } as const;
    await assertRefuses(
      async () => await service.transact({ ...request, then }, WRITE),
      code,
    );
  }
  await assertRefuses(
    async () => await service.get("a", { ...NOW, revision: 0.5 }),
    "REVISION_INVALID",
  );
  await assertRefuses(
    async () => await service.get("a", { ...NOW, revision: 99 }),
    "REVISION_FUTURE",
  );
  await assertRefuses(
    async () => await service.get("a", { ...NOW, timeoutMs: 0 }),
    "DEADLINE_EXCEEDED",
  );
  await assertRefuses(
    async () => await service.revoke(0n, { timeoutMs: null }),
    "LEASE_INVALID",
  );
  await assertRefuses(
    async () => await service.timeToLive(9n, { timeoutMs: null }),
    "LEASE_NOT_FOUND",
  );
  await assertRefuses(
    async () => await service.transferLeadership("n9", { timeoutMs: null }),
    "MEMBERSHIP_REFUSED",
  );
  assertEquals(group.core.lastIndex, lastIndex);
  assertEquals(group.pending, { proposals: 0, proposalBytes: 0, queries: 0 });
});

Deno.test("service: a sequence number belongs to one kind of write", async () => {
  const { service } = lone();
  const options = {
    timeoutMs: null,
    writeId: { client: "c", sequence: 1, doneBelow: 0 },
  };
  const request = {
    type: "put",
    key: "a",
    value: new Uint8Array(1),
    lease: 0n,
    returnPrevious: false,
  } as const;
  const first = await service.put(request, options);
  assertEquals(await service.put(request, options), first);
  await assertRefuses(
    async () =>
      await service.transact(
        { type: "transact", compares: [], then: [request], else: [] },
        options,
      ),
    "SEQUENCE_STALE",
  );
});

Deno.test("service: a lease's id is given or chosen, and its keys are told in order", async () => {
  const { service } = lone();
  const options = { timeoutMs: null };
  const { lease } = await service.grant({ lease: 0n, ttlMs: 5000 }, options);
  assert(lease > 0n);
  for (const key of ["b", "a"]) {
    const value = new Uint8Array(1);
    await service.put(
      { type: "put", key, value, lease, returnPrevious: false },
      WRITE,
    );
  }
  const info = await service.timeToLive(lease, options);
  assertEquals([info.ttlMs, info.keys()], [5000, ["a", "b"]]);
  assertEquals((await service.revoke(lease, options)).deleted, 2);
});
