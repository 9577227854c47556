/** Every call of `proto/kvstore.proto` on real nodes, and what it means. */

import {
  assert,
  assertEquals,
  assertGreater,
  assertGreaterOrEqual,
  assertLess,
  assertLessOrEqual,
  assertStringIncludes,
} from "@std/assert";
import { Buffer } from "node:buffer";
import { eventually } from "./cluster.ts";
import { bytes } from "./load.ts";
import { assertRefused, type Duplex, refused, type Rpc } from "./rpc.ts";
import { clusterSteps, type Steps } from "./steps.ts";

interface Header {
  readonly revision: string;
  readonly nodeId: string;
}

interface WireEntry {
  readonly key: Buffer;
  readonly value: Buffer;
  readonly createRevision: string;
  readonly modRevision: string;
  readonly version: string;
  readonly lease: string;
}

interface PutAnswer {
  readonly header: Header;
  readonly revision: string;
  readonly version: string;
  readonly previous: WireEntry | null;
}

interface GetAnswer {
  readonly header: Header;
  readonly entry: WireEntry | null;
}

interface DeleteAnswer {
  readonly header: Header;
  readonly revision: string;
  readonly deleted: string;
  readonly previous: WireEntry[];
}

interface ListAnswer {
  readonly revision: string;
  readonly entries: WireEntry[];
  readonly more: boolean;
}

interface TransactAnswer {
  readonly revision: string;
  readonly succeeded: boolean;
  readonly results: {
    readonly put?: PutAnswer;
    readonly get?: GetAnswer;
    readonly delete?: DeleteAnswer;
    readonly list?: ListAnswer;
    readonly modify?: ModifyAnswer;
  }[];
}

interface ModifyAnswer {
  readonly header: Header | null;
  readonly revision: string;
  readonly version: string;
  readonly value: Buffer;
  readonly previous: WireEntry | null;
}

interface WatchAnswer {
  readonly watchId: string;
  readonly created?: { readonly fromRevision: string };
  readonly events?: {
    readonly events: {
      readonly kind: "PUT" | "DELETE";
      readonly entry: WireEntry;
      readonly previous: WireEntry | null;
    }[];
    readonly throughRevision: string;
  };
  readonly cancelled?: {
    readonly error: { readonly code: string; readonly message: string } | null;
    readonly compactRevision: string;
  };
}

interface PipelineAnswer {
  readonly results: {
    readonly id: string;
    readonly error?: { readonly code: string; readonly message: string };
    readonly put?: PutAnswer;
    readonly get?: GetAnswer;
    readonly delete?: DeleteAnswer;
    readonly transact?: TransactAnswer;
  }[];
}

interface LeaseAnswer {
  readonly lease: string;
  readonly ttlMs: string;
  readonly error: { readonly code: string } | null;
}

interface TimeToLiveAnswer {
  readonly lease: string;
  readonly grantedTtlMs: string;
  readonly remainingMs: string;
  readonly keys: Buffer[];
}

function text(value: Uint8Array | undefined): string {
  return new TextDecoder().decode(value);
}

function put(
  rpc: Rpc,
  key: string,
  options: { value?: string; [field: string]: unknown } = {},
): Promise<PutAnswer> {
  const { value = "value", ...fields } = options;
  const request = { key: bytes(key), value: bytes(value), ...fields };
  return rpc.call<PutAnswer>("KeyValue.Put", request);
}

function get(rpc: Rpc, key: string, fields: object = {}): Promise<GetAnswer> {
  return rpc.call<GetAnswer>("KeyValue.Get", { key: bytes(key), ...fields });
}

async function value(
  rpc: Rpc,
  key: string,
  fields: object = {},
): Promise<string | null> {
  const { entry } = await get(rpc, key, fields);
  return entry === null ? null : text(entry.value);
}

function range(
  start: string,
  end = "",
): { start: Uint8Array; end: Uint8Array } {
  return { start: bytes(start), end: bytes(end) };
}

function list(rpc: Rpc, fields: object): Promise<ListAnswer[]> {
  return rpc.list<ListAnswer>("KeyValue.List", fields).all();
}

function keysOf(pages: readonly ListAnswer[]): string[] {
  return pages.flatMap(({ entries }) => entries.map(({ key }) => text(key)));
}

function transact(rpc: Rpc, fields: object): Promise<TransactAnswer> {
  return rpc.call<TransactAnswer>("KeyValue.Transact", fields);
}

function other(rpcs: readonly Rpc[], at: number): Rpc {
  return rpcs[at % rpcs.length]!;
}

const KEYS: Steps = {
  "a key has versions, a mutation one revision, on every node": async (
    { rpcs, cluster },
  ) => {
    const revisions: number[] = [];
    for (const [at, rpc] of rpcs.entries()) {
      const answer = await put(rpc, "versions", { value: `v${at}` });
      assertEquals(answer.version, String(at + 1));
      assertEquals(answer.header.nodeId, cluster.ids[at]);
      assertEquals(answer.previous, null);
      revisions.push(Number(answer.revision));
    }
    const [first = 0] = revisions;
    assertEquals(revisions, [first, first + 1, first + 2]);
    for (const rpc of rpcs) {
      const { entry } = await get(rpc, "versions");
      assertEquals(text(entry?.value), "v2");
      assertEquals(entry?.createRevision, String(first));
      assertEquals(entry?.modRevision, String(first + 2));
      assertEquals(entry?.version, "3");
      assertEquals(entry?.lease, "0");
    }
    const again = await put(rpcs[0], "versions", { returnPrevious: true });
    assertEquals(text(again.previous?.value), "v2");
    assertEquals(again.previous?.version, "3");
  },

  "a read sees what was acknowledged before, whichever node is asked": async (
    { rpcs },
  ) => {
    for (let round = 0; round < 30; round++) {
      await put(other(rpcs, round), "linear", { value: String(round) });
      assertEquals(await value(other(rpcs, round + 1), "linear"), `${round}`);
      assertEquals(await value(other(rpcs, round + 2), "linear"), `${round}`);
    }
    await eventually(
      "the serializable read catches up",
      async () =>
        await value(rpcs[2] ?? rpcs[0], "linear", { serializable: true }) ===
          "29",
    );
  },

  "a read at an old revision sees the past": async ({ rpcs }) => {
    const one = await put(rpcs[0], "past", { value: "one" });
    const two = await put(rpcs[0], "past", { value: "two" });
    const gone = await rpcs[0].call<DeleteAnswer>("KeyValue.Delete", {
      key: bytes("past"),
    });
    assertEquals(Number(gone.revision), Number(two.revision) + 1);
    for (const rpc of rpcs) {
      const at = (revision: string | number) =>
        value(rpc, "past", { revision });
      assertEquals(await at(one.revision), "one");
      assertEquals(await at(two.revision), "two");
      assertEquals(await at(gone.revision), null);
      assertEquals(await at(Number(one.revision) - 1), null);
      assertEquals(await at(0), null);
    }
    // A key that comes back is new.
    const back = await put(rpcs[0], "past");
    assertEquals(back.version, "1");
  },

  "a delete says what it deleted; one that deletes nothing takes no revision":
    async ({ rpcs }) => {
      for (const key of ["del/a", "del/b", "del/c"]) await put(rpcs[0], key);
      const { revision } = await put(rpcs[1] ?? rpcs[0], "del/d");
      const answer = await rpcs[0].call<DeleteAnswer>("KeyValue.Delete", {
        range: range("del/a", "del/c"),
        returnPrevious: true,
      });
      assertEquals(answer.deleted, "2");
      assertEquals(Number(answer.revision), Number(revision) + 1);
      assertEquals(answer.previous.map(({ key }) => text(key)), [
        "del/a",
        "del/b",
      ]);
      const nothing = await rpcs[0].call<DeleteAnswer>("KeyValue.Delete", {
        key: bytes("del/a"),
      });
      assertEquals(nothing.deleted, "0");
      assertEquals(nothing.revision, answer.revision);
      for (const rpc of rpcs) {
        assertEquals(
          keysOf(await list(rpc, { range: range("del/", "del0") })),
          [
            "del/c",
            "del/d",
          ],
        );
      }
    },

  "a write with an id is applied once, whichever nodes it is sent to": async (
    { rpcs },
  ) => {
    const client = bytes("client-1");
    const writeId = { client, sequence: 1 };
    const first = await put(rpcs[0], "once", { value: "a", writeId });
    const second = await put(rpcs[1] ?? rpcs[0], "once", {
      value: "a",
      writeId,
    });
    assertEquals(second.revision, first.revision);
    assertEquals(second.version, "1");
    // At the same time, through two nodes.
    const both = await Promise.all(
      rpcs.map((rpc) =>
        put(rpc, "once", { value: "b", writeId: { client, sequence: 2 } })
      ),
    );
    assertEquals(both.map(({ version }) => version), ["2", "2", "2"]);
    assertEquals((await get(rpcs[0], "once")).entry?.version, "2");
    // What was answered may be forgotten, and is then refused instead of repeated.
    await put(rpcs[0], "once", {
      writeId: { client, sequence: 3, doneBelow: 3 },
    });
    await assertRefused(put(rpcs[1] ?? rpcs[0], "once", { writeId }), {
      code: "SEQUENCE_STALE",
      says: [1, 3],
    });
    // The same number for something else is an error, not an answer.
    await assertRefused(
      rpcs[0].call("KeyValue.Delete", {
        key: bytes("once"),
        writeId: { client, sequence: 3 },
      }),
      { code: "SEQUENCE_STALE" },
    );
  },
};

const TRANSACTIONS: Steps = {
  "a transaction compares every target in every relation": async ({ rpcs }) => {
    const [rpc] = rpcs;
    await rpc.call("KeyValue.Grant", { lease: "77", ttlMs: 60_000 });
    const { revision } = await put(rpc, "cmp", { value: "m", lease: "77" });
    await put(rpc, "cmp", { value: "m", lease: "77" });
    const create = Number(revision);
    const targets: [string, (offset: number) => unknown][] = [
      ["version", (offset) => 2 + offset],
      ["createRevision", (offset) => create + offset],
      ["modRevision", (offset) => create + 1 + offset],
      ["lease", (offset) => 77 + offset],
      ["value", (offset) => bytes(String.fromCharCode(109 + offset))],
    ];
    /** Relation, what the other side is off by, whether it holds. */
    const cases: [string, number, boolean][] = [
      ["EQUAL", 0, true],
      ["EQUAL", 1, false],
      ["NOT_EQUAL", 0, false],
      ["NOT_EQUAL", 1, true],
      ["LESS", 1, true],
      ["LESS", 0, false],
      ["LESS", -1, false],
      ["GREATER", -1, true],
      ["GREATER", 0, false],
      ["GREATER", 1, false],
    ];
    for (const [target, at] of targets) {
      for (const [relation, offset, holds] of cases) {
        const { succeeded } = await transact(rpc, {
          compares: [{ key: bytes("cmp"), relation, [target]: at(offset) }],
        });
        assertEquals(succeeded, holds, `${target} ${relation} ${offset}`);
      }
    }
    // A key that does not exist has version 0 and no value.
    const absent = { key: bytes("cmp/absent") };
    const on = async (compare: object) =>
      (await transact(rpc, { compares: [{ ...absent, ...compare }] }))
        .succeeded;
    assert(await on({ version: 0 }));
    assert(!(await on({ value: bytes("") })));
    assert(!(await on({ relation: "NOT_EQUAL", value: bytes("x") })));
    await rpc.call("KeyValue.Revoke", { lease: "77" });
  },

  "a transaction runs then or else, in one revision, and answers each step":
    async ({ rpcs }) => {
      const rpc = other(rpcs, 1);
      for (const key of ["tx/a", "tx/b", "tx/c"]) await put(rpc, key);
      const { revision } = await put(rpc, "tx/z", { value: "old" });
      const request = {
        compares: [
          { key: bytes("tx/a"), version: 1 },
          { key: bytes("tx/z"), value: bytes("old") },
        ],
        then: [
          {
            put: {
              key: bytes("tx/z"),
              value: bytes("new"),
              returnPrevious: true,
            },
          },
          { delete: { range: range("tx/a", "tx/c"), returnPrevious: true } },
          { get: { key: bytes("tx/z") } },
          { list: { range: range("tx/", "tx0"), limit: 1, keysOnly: true } },
          { list: { range: range("tx/", "tx0"), reverse: true } },
        ],
        else: [{ get: { key: bytes("tx/z") } }],
      };
      const done = await transact(rpc, request);
      assert(done.succeeded);
      assertEquals(Number(done.revision), Number(revision) + 1);
      const [first, second, third, fourth, fifth] = done.results;
      assertEquals(text(first?.put?.previous?.value), "old");
      assertEquals(first?.put?.version, "2");
      assertEquals(second?.delete?.deleted, "2");
      assertEquals(second?.delete?.previous.length, 2);
      // A step sees what the steps before it did.
      assertEquals(text(third?.get?.entry?.value), "new");
      assertEquals(keysOf([fourth!.list!]), ["tx/c"]);
      assertEquals(fourth?.list?.entries[0]?.value.length, 0);
      assertEquals(fourth?.list?.more, true);
      assertEquals(keysOf([fifth!.list!]), ["tx/z", "tx/c"]);

      const lost = await transact(rpc, request);
      assert(!lost.succeeded);
      assertEquals(lost.revision, done.revision);
      assertEquals(text(lost.results[0]?.get?.entry?.value), "new");
      const { entry } = await get(rpcs[0], "tx/z");
      assertEquals(entry?.modRevision, done.revision);
    },

  "a transaction with an unknown lease does nothing at all": async (
    { rpcs: [rpc] },
  ) => {
    await assertRefused(
      transact(rpc, {
        then: [
          { put: { key: bytes("half/a"), value: bytes("1") } },
          { put: { key: bytes("half/b"), value: bytes("1"), lease: "987654" } },
        ],
      }),
      { code: "LEASE_NOT_FOUND", says: ["987654"] },
    );
    assertEquals(await value(rpc, "half/a"), null);
  },
};

function modify(
  rpc: Rpc,
  fields: object,
  more: object = {},
): Promise<TransactAnswer> {
  return transact(rpc, { then: [{ modify: fields }], ...more });
}

const MODIFICATIONS: Steps = {
  "increments through all nodes at once are all counted, and each is told its number":
    async ({ rpcs }) => {
      const key = bytes("mod/n");
      const answers = await Promise.all(
        Array.from(
          { length: 60 },
          (_, at) => modify(other(rpcs, at), { key, operand: bytes("1") }),
        ),
      );
      const numbers = answers.map(({ results: [first] }) =>
        Number(text(first?.modify?.value))
      );
      assertEquals(
        numbers.toSorted((a, b) => a - b),
        Array.from({ length: 60 }, (_, at) => at + 1),
      );
      for (const { revision, results: [first] } of answers) {
        assertEquals(first?.modify?.revision, revision);
        assertEquals(first?.modify?.version, text(first?.modify?.value));
        assertEquals(first?.modify?.previous, null);
      }
      for (const rpc of rpcs) assertEquals(await value(rpc, "mod/n"), "60");
    },

  "an increment with an id is applied once, whichever nodes it is sent to":
    async ({ rpcs }) => {
      const fields = { key: bytes("mod/once"), operand: bytes("5") };
      const writeId = { client: bytes("modifier"), sequence: 1 };
      const answers = [];
      for (const rpc of rpcs) {
        answers.push(await modify(rpc, fields, { writeId }));
      }
      const [first] = answers;
      assertEquals(text(first?.results[0]?.modify?.value), "5");
      for (const answer of answers) {
        assertEquals(answer.revision, first?.revision);
        assertEquals(answer.results, first?.results);
      }
      assertEquals(await value(rpcs[0], "mod/once"), "5");
    },

  "every function, in one revision, seen by a watch and kept by a lease":
    async ({ rpcs }) => {
      const rpc = other(rpcs, 1);
      await rpc.call("KeyValue.Grant", { lease: "78", ttlMs: 60_000 });
      const stream = other(rpcs, 2).duplex<WatchAnswer>("KeyValue.Watch");
      stream.send({ create: { watchId: 1, range: range("mod/f", "mod/g") } });
      await stream.expect();
      const le = (number: number) => [number, 0, 0, 0, 0, 0, 0, 0];
      const steps = [
        { key: bytes("mod/fa"), operand: bytes("-3"), lease: "78" },
        { key: bytes("mod/fb"), function: "MAX", operand: bytes("10") },
        { key: bytes("mod/fc"), function: "MIN", operand: bytes("10") },
        { key: bytes("mod/fd"), function: "APPEND", operand: bytes("xy") },
        {
          key: bytes("mod/fe"),
          encoding: "UINT64_LE",
          operand: new Uint8Array(le(200)),
        },
      ].map((one) => ({ modify: { ...one, returnPrevious: true } }));
      const first = await transact(rpc, { then: steps });
      for (const step of steps) {
        Object.assign(step.modify, { lease: undefined });
      }
      const second = await transact(rpc, { then: steps });
      const values = (answer: TransactAnswer) =>
        answer.results.map(({ modify }) => modify?.value);
      const [fe] = values(second).slice(-1);
      assertEquals([...fe ?? []], [144, 1, 0, 0, 0, 0, 0, 0]);
      assertEquals(values(second).slice(0, 4).map(text), [
        "-6",
        "10",
        "10",
        "xyxy",
      ]);
      assertEquals(
        second.results.map(({ modify }) => modify?.previous?.value),
        values(first),
      );
      assertEquals(
        first.results.map(({ modify }) => modify?.previous),
        steps.map(() => null),
      );
      const events = await eventsThrough(stream, second.revision);
      assertEquals(
        events.map(({ kind, entry: { key, value, modRevision } }) => [
          kind,
          text(key),
          modRevision,
          [...value],
        ]),
        [first, second].flatMap((answer) =>
          steps.map(({ modify: { key } }, at) => [
            "PUT",
            text(key),
            answer.revision,
            [...values(answer)[at] ?? []],
          ])
        ),
      );
      stream.cancel();
      // What says nothing about a lease leaves the key with the one it has.
      assertEquals((await get(rpc, "mod/fa")).entry?.lease, "78");
      await rpc.call("KeyValue.Revoke", { lease: "78" });
      assertEquals(await value(rpc, "mod/fa"), null);
      assertEquals(await value(rpc, "mod/fb"), "10");
    },

  "what is no number is refused with a code, and nothing is done": async (
    { rpcs: [rpc] },
  ) => {
    await put(rpc, "mod/text", { value: "abc" });
    const key = bytes("mod/text");
    const one = { key: bytes("mod/half"), operand: bytes("1") };
    const both = (fields: object) =>
      transact(rpc, { then: [{ modify: one }, { modify: fields }] });
    await assertRefused(both({ key, operand: bytes("1") }), {
      code: "VALUE_INVALID",
      says: ['"mod/text"', '"abc"'],
    });
    await assertRefused(both({ key, operand: bytes("1.5") }), {
      code: "MALFORMED",
      says: ['"1.5"'],
    });
    await assertRefused(both({ ...one, key: bytes("mod/half") }), {
      code: "DUPLICATE_KEY",
    });
    await put(rpc, "mod/max", { value: `${2n ** 63n - 1n}` });
    await assertRefused(both({ key: bytes("mod/max"), operand: bytes("1") }), {
      code: "VALUE_INVALID",
      says: ["9223372036854775807", "64 bits"],
    });
    assertEquals(await value(rpc, "mod/half"), null);
    assertEquals(await value(rpc, "mod/text"), "abc");
  },
};

const LISTS: Steps = {
  "a list comes in pages, all at one revision, while writes go on": async (
    { rpcs },
  ) => {
    const count = 2500;
    for (let at = 0; at < count; at += 125) {
      await transact(other(rpcs, at), {
        then: Array.from({ length: 125 }, (_, i) => ({
          put: {
            key: bytes(`page/${String(at + i).padStart(5, "0")}`),
            value: bytes("x"),
          },
        })),
      });
    }
    const { revision } = await put(rpcs[0], "page-end");
    const all = { range: range("page/", "page0") };
    const stream = rpcs[1]!.list<ListAnswer>("KeyValue.List", all);
    const pages = [await stream.expect()];
    await put(rpcs[0], "page/00001x");
    await rpcs[0].call("KeyValue.Delete", { key: bytes("page/02499") });
    pages.push(...await stream.all());
    assertGreater(pages.length, 2);
    const keys = keysOf(pages);
    assertEquals(keys.length, count);
    assertEquals(keys, [...keys].sort());
    assertEquals(
      new Set(pages.map((page) => page.revision)),
      new Set([revision]),
    );
    assert(pages.every(({ more }) => !more));

    const old = await list(rpcs[2]!, { ...all, revision, keysOnly: true });
    assertEquals(keysOf(old).length, count);
    assert(
      old.every(({ entries }) => entries.every((e) => e.value.length === 0)),
    );

    const limited = await list(rpcs[2]!, { ...all, limit: 1500 });
    assertEquals(keysOf(limited).length, 1500);
    assertEquals(limited.at(-1)?.more, true);
    const reverse = await list(rpcs[0], {
      ...all,
      revision,
      reverse: true,
      limit: 1100,
    });
    assertEquals(keysOf(reverse), keys.toReversed().slice(0, 1100));
    const exact = await list(rpcs[0], { ...all, revision, limit: count });
    assertEquals(exact.at(-1)?.more, false);
    // No end: to the last key. No range: everything.
    const rest = await list(rpcs[0], { range: range("page/02490"), limit: 3 });
    assertEquals(keysOf(rest)[0], "page/02490");
    assertGreater(
      keysOf(await list(rpcs[0], { keysOnly: true })).length,
      count,
    );
    await rpcs[0].call("KeyValue.Delete", all);
  },

  "an empty list is one empty page": async ({ rpcs: [rpc] }) => {
    const pages = await list(rpc, { range: range("nothing/", "nothing0") });
    assertEquals(pages.length, 1);
    assertEquals(pages[0]?.entries, []);
    const serializable = await list(rpc, {
      range: range("nothing/", "nothing0"),
      serializable: true,
    });
    assertEquals(serializable[0]?.more, false);
  },

  "a page is bounded in bytes as well": async ({ rpcs: [rpc] }) => {
    const big = "x".repeat(300_000);
    for (const key of ["big/a", "big/b", "big/c"]) {
      await put(rpc, key, { value: big });
    }
    const pages = await list(rpc, { range: range("big/", "big0") });
    assertEquals(keysOf(pages), ["big/a", "big/b", "big/c"]);
    assertGreaterOrEqual(pages.length, 2);
    await rpc.call("KeyValue.Delete", { range: range("big/", "big0") });
  },
};

/** Events from a watch stream up to and including a revision. */
async function eventsThrough(
  stream: Duplex<WatchAnswer>,
  revision: string,
): Promise<NonNullable<WatchAnswer["events"]>["events"]> {
  const events = [];
  while (true) {
    const answer = await stream.expect();
    if (!answer.events) continue;
    events.push(...answer.events.events);
    if (Number(answer.events.throughRevision) >= Number(revision)) {
      return events;
    }
  }
}

const WATCHES: Steps = {
  "a watch sees every change once, in order, on every node": async (
    { rpcs },
  ) => {
    const { revision } = await put(rpcs[0], "watch/before");
    const streams = rpcs.map((rpc) => {
      const stream = rpc.duplex<WatchAnswer>("KeyValue.Watch");
      stream.send({
        create: {
          watchId: 1,
          range: range("watch/", "watch0"),
          fromRevision: revision,
        },
      });
      return stream;
    });
    for (const stream of streams) {
      assertEquals((await stream.expect()).created?.fromRevision, revision);
    }
    for (let at = 0; at < 100; at++) {
      await put(other(rpcs, at), `watch/${at % 7}`, { value: String(at) });
      if (at % 10 === 0) await put(other(rpcs, at), "elsewhere");
    }
    const end = await put(rpcs[0], "watch/end");
    for (const stream of streams) {
      const events = await eventsThrough(stream, end.revision);
      assertEquals(events.map(({ entry }) => text(entry.value)), [
        "value",
        ...Array.from({ length: 100 }, (_, at) => String(at)),
        "value",
      ]);
      stream.cancel();
    }
  },

  "several watches share a stream: kinds, previous entries, cancelling": async (
    { rpcs: [rpc] },
  ) => {
    const stream = rpc.duplex<WatchAnswer>("KeyValue.Watch");
    const creates = [
      { watchId: 1, key: bytes("multi"), withPrevious: true },
      { watchId: 2, key: bytes("multi"), noPuts: true },
      { watchId: 3, key: bytes("multi"), noDeletes: true },
    ];
    for (const create of creates) stream.send({ create });
    for (const { watchId } of creates) {
      const answer = await stream.expect();
      assertEquals(answer.watchId, String(watchId));
      assert(answer.created);
    }
    await put(rpc, "multi", { value: "1" });
    await put(rpc, "multi", { value: "2" });
    await rpc.call("KeyValue.Delete", { key: bytes("multi") });
    const seen = new Map<string, string[]>();
    while ([...seen.values()].flat().length < 6) {
      const { watchId, events } = await stream.expect();
      for (const { kind, previous } of events?.events ?? []) {
        const what = `${kind} ${
          previous === null ? "-" : text(previous.value)
        }`;
        seen.set(watchId, [...seen.get(watchId) ?? [], what]);
      }
    }
    assertEquals(seen.get("1"), ["PUT -", "PUT 1", "DELETE 2"]);
    assertEquals(seen.get("2"), ["DELETE -"]);
    assertEquals(seen.get("3"), ["PUT -", "PUT -"]);

    stream.send({ cancel: { watchId: 1 } });
    const cancelled = await stream.expect();
    assertEquals(cancelled.watchId, "1");
    assert(cancelled.cancelled);
    assertEquals(cancelled.cancelled.error, null);
    await put(rpc, "multi", { value: "3" });
    assertEquals((await stream.expect()).watchId, "3");
    stream.cancel();
  },

  "a watch from the future waits for it; one from compacted history is told":
    async (
      { rpcs: [rpc] },
    ) => {
      const { revision } = await put(rpc, "future");
      const stream = rpc.duplex<WatchAnswer>("KeyValue.Watch");
      stream.send({
        create: {
          watchId: 1,
          key: bytes("future"),
          fromRevision: Number(revision) + 3,
        },
      });
      await stream.expect();
      for (let at = 1; at <= 3; at++) {
        await put(rpc, "future", { value: String(at) });
      }
      const { events } = await stream.expect();
      assertEquals(events?.events.map(({ entry }) => text(entry.value)), ["3"]);

      await rpc.call("KeyValue.Compact", { revision });
      await assertRefused(
        get(rpc, "future", { revision: Number(revision) - 1 }),
        {
          code: "REVISION_COMPACTED",
          says: [revision],
        },
      );
      assertEquals(await value(rpc, "future", { revision }), "value");
      stream.send({
        create: { watchId: 2, key: bytes("future"), fromRevision: 1 },
      });
      const answers = [await stream.expect()];
      while (!answers.at(-1)?.cancelled) answers.push(await stream.expect());
      const cancelled = answers.at(-1)?.cancelled;
      assertEquals(cancelled?.error?.code, "REVISION_COMPACTED");
      assertEquals(cancelled?.compactRevision, revision);
      stream.cancel();
      await assertRefused(rpc.call("KeyValue.Compact", { revision }), {
        code: "REVISION_COMPACTED",
      });
      await assertRefused(
        rpc.call("KeyValue.Compact", { revision: Number(revision) + 1000 }),
        { code: "REVISION_FUTURE", says: [Number(revision) + 1000] },
      );
    },
};

const PIPELINES: Steps = {
  "a pipeline answers every operation by its id, errors among them": async (
    { rpcs },
  ) => {
    for (const rpc of rpcs) {
      const stream = rpc.duplex<PipelineAnswer>("KeyValue.Pipeline");
      await put(rpc, "pipe/there", { value: "yes" });
      await put(rpc, "pipe/gone");
      const key = bytes("pipe/a");
      stream.send({
        client: bytes("pipe-client"),
        operations: [
          { id: 11, put: { key, value: bytes("1") } },
          { id: 12, get: { key: bytes("pipe/there") } },
          { id: 13, put: { key: new Uint8Array(), value: bytes("1") } },
          { id: 14, get: { key, revision: "999999999" } },
          {
            id: 15,
            transact: {
              then: [
                { get: { key: bytes("pipe/there") } },
                {
                  modify: {
                    key: bytes("pipe/n"),
                    function: "MAX",
                    operand: bytes("42"),
                  },
                },
              ],
            },
          },
          { id: 16 },
        ],
      });
      stream.send({
        operations: [{
          id: "9007199254740993",
          delete: { key: bytes("pipe/gone") },
        }],
      });
      const results = new Map<string, PipelineAnswer["results"][number]>();
      while (results.size < 7) {
        for (const result of (await stream.expect()).results) {
          assert(!results.has(result.id), `answered twice: ${result.id}`);
          results.set(result.id, result);
        }
      }
      assertEquals(results.get("13")?.error?.code, "KEY_EMPTY");
      assertEquals(results.get("14")?.error?.code, "REVISION_FUTURE");
      assertEquals(results.get("16")?.error?.code, "MALFORMED");
      assertStringIncludes(results.get("16")?.error?.message ?? "", "16");
      assert(Number(results.get("11")?.put?.revision) > 0);
      assertEquals(text(results.get("12")?.get?.entry?.value), "yes");
      const [step, count] = results.get("15")?.transact?.results ?? [];
      assertEquals(text(step?.get?.entry?.value), "yes");
      assertEquals(text(count?.modify?.value), "42");
      assertEquals(results.get("9007199254740993")?.delete?.deleted, "1");
      stream.end();
      assertEquals(await stream.next(), null);
    }
  },

  "a pipeline's writes with a sequence are applied once": async ({ rpcs }) => {
    const versions: (string | undefined)[] = [];
    for (const rpc of rpcs) {
      const stream = rpc.duplex<PipelineAnswer>("KeyValue.Pipeline");
      const operations = [1, 2].map((sequence) => ({
        id: sequence,
        sequence,
        put: { key: bytes("pipe/once"), value: bytes("x") },
      }));
      stream.send({ client: bytes("pipe-once"), operations });
      const results = [];
      while (results.length < 2) {
        results.push(...(await stream.expect()).results);
      }
      versions.push(...results.map((result) => result.put?.version));
      stream.cancel();
    }
    assertEquals(versions, ["1", "2", "1", "2", "1", "2"]);
  },
};

const LEASES: Steps = {
  "a lease has an exact id of 63 bits, given or chosen": async ({ rpcs }) => {
    const largest = "9223372036854775807";
    const given = await rpcs[0].call<LeaseAnswer>("KeyValue.Grant", {
      lease: largest,
      ttlMs: 60_000,
    });
    assertEquals(given.lease, largest);
    await assertRefused(
      rpcs[1]!.call("KeyValue.Grant", { lease: largest, ttlMs: 60_000 }),
      { code: "LEASE_EXISTS", says: [largest] },
    );
    const chosen = await rpcs[1]!.call<LeaseAnswer>("KeyValue.Grant", {
      ttlMs: 60_000,
    });
    assertGreater(BigInt(chosen.lease), 0n);
    await put(rpcs[2]!, "leased/a", { lease: chosen.lease });
    await put(rpcs[0], "leased/b", { lease: largest });
    await put(rpcs[0], "leased/c", { lease: largest });
    assertEquals((await get(rpcs[1]!, "leased/a")).entry?.lease, chosen.lease);
    for (const rpc of rpcs) {
      const left = await rpc.call<TimeToLiveAnswer>("KeyValue.TimeToLive", {
        lease: largest,
        withKeys: true,
      });
      assertEquals(left.lease, largest);
      assertEquals(left.grantedTtlMs, "60000");
      assertLessOrEqual(Number(left.remainingMs), 60_000);
      assertGreater(Number(left.remainingMs), 50_000);
      assertEquals(left.keys.map(text), ["leased/b", "leased/c"]);
    }
    // A put without a lease detaches.
    await put(rpcs[0], "leased/c");
    const revoked = await rpcs[1]!.call<{ deleted: string }>(
      "KeyValue.Revoke",
      { lease: largest },
    );
    assertEquals(revoked.deleted, "1");
    assertEquals(await value(rpcs[2]!, "leased/b"), null);
    assertEquals(await value(rpcs[2]!, "leased/c"), "value");
    await assertRefused(
      rpcs[0].call("KeyValue.TimeToLive", { lease: largest }),
      { code: "LEASE_NOT_FOUND", says: [largest] },
    );
    await assertRefused(rpcs[0].call("KeyValue.Revoke", { lease: largest }), {
      code: "LEASE_NOT_FOUND",
      says: [largest],
    });
    await rpcs[0].call("KeyValue.Revoke", { lease: chosen.lease });
  },

  "keys vanish with their lease, together and never early; keep-alives prevent it":
    async ({ rpcs }) => {
      const ttlMs = 1000;
      const grantedMs = performance.now();
      await rpcs[0].call("KeyValue.Grant", { lease: "100", ttlMs });
      await rpcs[0].call("KeyValue.Grant", { lease: "101", ttlMs });
      for (const key of ["exp/a", "exp/b", "exp/c"]) {
        await put(rpcs[1]!, key, { lease: "100" });
      }
      await put(rpcs[0], "kept", { lease: "101" });
      const stream = rpcs[2]!.duplex<LeaseAnswer>("KeyValue.KeepAlive");
      const watch = rpcs[1]!.duplex<WatchAnswer>("KeyValue.Watch");
      watch.send({ create: { watchId: 1, range: range("exp/", "exp0") } });
      await watch.expect();
      const expired = watch.expect();
      let over = false;
      void expired.then(() => over = true);
      while (!over) {
        stream.send({ lease: "101" });
        const { lease, ttlMs: left, error } = await stream.expect();
        assertEquals([lease, left, error], ["101", String(ttlMs), null]);
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
      assertGreaterOrEqual(performance.now() - grantedMs, ttlMs);
      assertLess(performance.now() - grantedMs, ttlMs + 3000);
      const { events } = await expired;
      assertEquals(
        events?.events.map(({ kind, entry }) => `${kind} ${text(entry.key)}`),
        ["DELETE exp/a", "DELETE exp/b", "DELETE exp/c"],
      );
      const revisions = events?.events.map(({ entry }) => entry.modRevision);
      assertEquals(new Set(revisions).size, 1);
      watch.cancel();

      // An ended lease is answered in its place and does not end the stream.
      for (const lease of ["100", "101", "0"]) stream.send({ lease });
      const errors = [];
      for (let at = 0; at < 3; at++) {
        errors.push((await stream.expect()).error?.code);
      }
      assertEquals(errors, ["LEASE_NOT_FOUND", undefined, "LEASE_INVALID"]);
      assertEquals(await value(rpcs[0], "kept"), "value");
      stream.end();
      assertEquals(await stream.next(), null);
      await eventually(
        "the lease ends without keep-alives",
        async () => await value(rpcs[0], "kept") === null,
      );
    },

  "a lease outlives a change of leader, and is not given its whole time again":
    async ({ rpcs, cluster }) => {
      const ttlMs = 3000;
      const grantedMs = performance.now();
      await rpcs[0].call("KeyValue.Grant", { lease: "200", ttlMs });
      await put(rpcs[0], "survivor", { lease: "200" });
      while (performance.now() - grantedMs < ttlMs + 6000) {
        const present = await value(rpcs[0], "survivor") !== null;
        const ageMs = performance.now() - grantedMs;
        if (!present) {
          assertGreaterOrEqual(ageMs, ttlMs);
          return;
        }
        const before = await cluster.leader();
        await rpcs[1]!.call("Cluster.TransferLeadership", {});
        assert(await cluster.leader(before) !== before);
        await new Promise((resolve) => setTimeout(resolve, 400));
      }
      throw new Error("the lease lives on: each leader starts its time again");
    },
};

const CLUSTER: Steps = {
  "status tells the same story on every node": async ({ rpcs, cluster }) => {
    await put(rpcs[0], "status");
    const states = await cluster.agreed();
    const leader = await cluster.leader();
    assertEquals(new Set(states.map(({ term }) => term)).size, 1);
    assertEquals(new Set(states.map(({ keys }) => keys)).size, 1);
    for (const [at, rpc] of rpcs.entries()) {
      const status = await rpc.call<
        & Record<string, string>
        & { header: Header; members: Record<string, unknown>[] }
      >("Cluster.Status", {});
      assertEquals(status.header.nodeId, cluster.ids[at]);
      assertEquals(status["cluster"], "test");
      assertEquals(status["leader"], leader);
      const leads = leader === cluster.ids[at];
      assertEquals(status["role"], leads ? "leader" : "follower");
      assertEquals(status["commitIndex"], status["appliedIndex"]);
      assertGreater(Number(status["diskBytes"]), 4096);
      assertGreater(Number(status["uptimeMs"]), 0);
      assertEquals(status["writeRefusal"], "");
      assert(/^[0-9a-f]{8,16}$/.test(status["stateHash"] ?? ""));
      assert(/^\d+\.\d+\.\d+/.test(status["version"] ?? ""));
      assertEquals(status.members.map(({ nodeId }) => nodeId), [
        ...cluster.ids,
      ]);
      for (const member of status.members) {
        assertEquals(member["suffrage"], "voter");
        assertEquals(member["connected"], true);
        assertEquals(member["address"], cluster.address(`${member["nodeId"]}`));
        if (!leads) continue;
        assertGreater(Number(member["matchIndex"]), 0);
      }
    }
  },

  "leadership goes where it is told, asked of any node": async (
    { rpcs, cluster },
  ) => {
    for (const [at, id] of cluster.ids.entries()) {
      const { leader } = await other(rpcs, at + 1).call<{ leader: string }>(
        "Cluster.TransferLeadership",
        { nodeId: id },
      );
      assertEquals(leader, id);
      assertEquals(await cluster.leader(), id);
      await put(other(rpcs, at), "after-transfer");
    }
    await assertRefused(
      rpcs[0].call("Cluster.TransferLeadership", { nodeId: "node9" }),
      { code: "MEMBERSHIP_REFUSED", says: ["node9"] },
    );
  },

  "the standard health service answers": async ({ rpcs }) => {
    for (const rpc of rpcs) {
      for (const service of ["", "kvstore.v1.KeyValue", "kvstore.v1.Cluster"]) {
        const answer = await rpc.call("Health.Check", { service });
        assertEquals(answer, { status: "SERVING" });
      }
    }
    const unknown = await refused(
      rpcs[0].call("Health.Check", { service: "none" }),
    );
    assertEquals(unknown.status, 5);
    const watch = rpcs[0].list<{ status: string }>("Health.Watch", {});
    assertEquals((await watch.expect()).status, "SERVING");
    const missing = rpcs[0].list<{ status: string }>("Health.Watch", {
      service: "none",
    });
    assertEquals((await missing.expect()).status, "SERVICE_UNKNOWN");
    watch.cancel();
    missing.cancel();
  },

  "reflection lists the services, so that grpcurl works": async (
    { rpcs: [rpc] },
  ) => {
    const LIST_SERVICES = Buffer.from([7 << 3 | 2, 1, "*".charCodeAt(0)]);
    for (const version of ["v1", "v1alpha"]) {
      const stream = rpc.raw(
        `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`,
      );
      stream.send(LIST_SERVICES);
      const names = (await stream.expect()).toString("latin1");
      assertStringIncludes(names, "kvstore.v1.KeyValue");
      assertStringIncludes(names, "kvstore.v1.Cluster");
      stream.cancel();
    }
  },

  "a node that stops says so to who watches its health": async (
    { rpcs, cluster },
  ) => {
    const watch = rpcs[2]!.list<{ status: string }>("Health.Watch", {});
    assertEquals((await watch.expect()).status, "SERVING");
    const stopped = cluster.stop("node3");
    assertEquals((await watch.expect()).status, "NOT_SERVING");
    assertEquals((await stopped).code, 0);
    await put(rpcs[0], "without-node3");
    await cluster.restart("node3");
    await eventually(
      "the node serves again",
      async () => await value(rpcs[2]!, "without-node3") === "value",
    );
  },
};

clusterSteps("api: every call, on every node", {
  protos: ["kvstore.proto", "health.proto"],
}, {
  ...KEYS,
  ...TRANSACTIONS,
  ...MODIFICATIONS,
  ...LISTS,
  ...WATCHES,
  ...PIPELINES,
  ...LEASES,
  ...CLUSTER,
});
