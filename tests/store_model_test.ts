/**
 * The store beside a naive model under random logs, restarts and removals of compacted rows.
 *
 * @module
 */

import { assertEquals, assertThrows } from "@std/assert";
import { serialize } from "node:v8";
import fc from "fast-check";
import type {
  Compare,
  KeyRange,
  MutateRequest,
  Operation,
  Request,
  StoredEntry,
} from "../batch.ts";
import { DkvError } from "../errors.ts";
import { EMPTY_STATE, type Result, Store } from "../store.ts";
import { rangeReads, runs, transactions } from "./arbitrary.ts";
import { FakeRows, TEST_LIMITS } from "./fake_rows.ts";
import { stamp } from "./kvmodel.ts";
import { Model, type ModelEvent } from "./model.ts";

const ALL: KeyRange = { start: "", end: null };

const key = fc.constantFrom("a", "ab", "b", "b\0", "c", "\xff");
const bound = fc.constantFrom("", "a", "aa", "b", "b\0", "c", "\xff");
const range: fc.Arbitrary<KeyRange> = fc.oneof(
  key.map((start) => ({ start, end: start + "\0" })),
  fc.record({ start: bound, end: fc.option(bound) }),
);
const lease = fc.constantFrom(0n, 0n, 1n, 2n, 2n ** 62n);
const bytes = fc.uint8Array({ maxLength: 3 });
/** Small and large ones, so that sums overflow, and texts that only look like numbers. */
const decimal = fc.oneof(
  fc.constantFrom("0", "1", "-1", "7", "12345"),
  fc.constantFrom(`${2n ** 63n - 1n}`, `${-(2n ** 63n)}`),
  fc.constantFrom("01", "+1", "-0", " 1", "1\n", "1e3", "0x1", `${2n ** 63n}`),
).map((text) => new TextEncoder().encode(text));
const uint64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map((number) => {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, number, true);
  return bytes;
});
const value = fc.oneof(bytes, decimal, uint64);
const returnPrevious = fc.boolean();
const put = fc.record({
  type: fc.constant("put" as const),
  key,
  value,
  lease,
  returnPrevious,
});
const deletion = fc.record({
  type: fc.constant("delete" as const),
  range,
  returnPrevious,
});
const modification = fc.record({
  type: fc.constant("modify" as const),
  key,
  function: fc.constantFrom(
    "add",
    "add",
    "min",
    "max",
    "append",
    "keep",
    "set",
  ),
  encoding: fc.constantFrom("decimal", "decimal", "uint64le"),
  operand: value,
  lease: fc.option(lease),
  returnPrevious,
});
const operation: fc.Arbitrary<Operation> = fc.oneof(
  put,
  { weight: 2, arbitrary: modification },
  deletion,
  rangeReads(range, fc.nat(8)),
  fc.record({ type: fc.constant("get" as const), key }),
  fc.record({
    type: fc.constant("list" as const),
    range,
    limit: fc.nat(3),
    keysOnly: fc.boolean(),
    reverse: fc.boolean(),
  }),
);
const condition = {
  key,
  relation: fc.constantFrom<Compare["relation"][]>(
    "equal",
    "notEqual",
    "less",
    "greater",
  ),
  target: fc.oneof(
    fc.record({
      type: fc.constantFrom("version", "createRevision", "modRevision"),
      number: fc.nat(8),
    }),
    fc.record({ type: fc.constant("value" as const), value }),
    fc.record({ type: fc.constant("lease" as const), lease }),
  ),
};
const compare: fc.Arbitrary<Compare> = fc.oneof(
  fc.record(condition),
  fc.record({ ...condition, end: fc.option(bound) }),
);
const someLease = fc.constantFrom(1n, 2n, 2n ** 62n);

/** Stands for the versionstamp that a key of the database has before the batch. */
const PRESENT = "present";
const kvKey = fc.constantFrom("x", "x", "y");
/** What is one, what is none, and what is too large when something is added. */
const v8Number = fc.oneof(
  fc.constantFrom<unknown>(0, 1, -1, 3, 2 ** 31, -0.5, NaN, Infinity),
  fc.constantFrom<unknown>(0n, 1n, -1n, 2n ** 64n - 1n, 2n ** 64n),
  fc.constantFrom<unknown>(2n ** 127n, 2n ** 128n - 1n),
).map((one) => new Uint8Array(serialize(one)));
const kvValue = fc.oneof(
  {
    weight: 3,
    arbitrary: v8Number.map((data) => ({ encoding: "v8" as const, data })),
  },
  {
    weight: 3,
    arbitrary: uint64.map((data) => ({ encoding: "u64" as const, data })),
  },
  bytes.map((data) => ({ encoding: "bytes" as const, data })),
  fc.constant({
    encoding: "v8" as const,
    data: new Uint8Array(serialize("1")),
  }),
);
const limit = fc.oneof(
  { weight: 2, arbitrary: fc.constant(new Uint8Array(0)) },
  v8Number,
);
const expireAtMs = fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 4 }));
const mutation: fc.Arbitrary<MutateRequest["mutations"][number]> = fc.oneof(
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constantFrom(
        "set" as const,
        "set" as const,
        "setSuffixed" as const,
      ),
      key: kvKey,
      value: kvValue,
      expireAtMs,
    }),
  },
  fc.record({ type: fc.constant("delete" as const), key: kvKey }),
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constant("sum" as const),
      key: kvKey,
      value: kvValue,
      min: limit,
      max: limit,
      clamp: fc.boolean(),
    }),
  },
  fc.record({
    type: fc.constantFrom("min" as const, "max" as const),
    key: kvKey,
    value: kvValue,
  }),
);
const sweep = fc.record({
  type: fc.constant("expire" as const),
  key: kvKey,
  expireAtMs: fc.integer({ min: 1, max: 4 }),
});
const mutate: fc.Arbitrary<MutateRequest> = fc.record({
  type: fc.constant("mutate" as const),
  database: fc.constantFrom("d", "d", "d", "e"),
  nowMs: fc.nat(5),
  checks: fc.array(
    fc.record({
      key: kvKey,
      versionstamp: fc.oneof(
        { weight: 3, arbitrary: fc.constant(PRESENT) },
        fc.constant(""),
        fc.nat(12).map(stamp),
      ),
    }),
    { maxLength: 2 },
  ),
  mutations: fc.oneof(
    { weight: 4, arbitrary: fc.array(mutation, { maxLength: 4 }) },
    fc.array(sweep, { minLength: 1, maxLength: 3 }),
  ),
});
/** Somebody writes past Deno KV. */
const strange = fc.record({
  type: fc.constant("put" as const),
  key: fc.constantFrom("denokv/d/x", "denokv/d/y"),
  value: fc.oneof(bytes, kvValue.map(({ data }) => data)),
  lease,
  returnPrevious,
});
const request: fc.Arbitrary<Request> = fc.oneof(
  { weight: 6, arbitrary: mutate },
  { weight: 1, arbitrary: strange },
  { weight: 5, arbitrary: put },
  { weight: 2, arbitrary: deletion },
  {
    weight: 2,
    arbitrary: modification.map((one) => ({
      type: "transact" as const,
      compares: [],
      then: [one],
      else: [],
    })),
  },
  {
    weight: 3,
    arbitrary: transactions(compare, {
      operation,
      comparesMax: 2,
      operationsMax: 4,
    }),
  },
  fc.record({
    type: fc.constant("grant" as const),
    lease: someLease,
    ttlMs: fc.nat(9),
  }),
  fc.record({
    type: fc.constantFrom("revoke" as const, "keepAlive" as const),
    lease: someLease,
  }),
  fc.record({ type: fc.constant("compact" as const), revision: fc.nat(40) }),
);

type Action =
  | {
    readonly type: "batch";
    readonly afterMs: number;
    readonly requests: readonly Request[];
  }
  | { readonly type: "empty" | "reload" }
  | { readonly type: "slice"; readonly rows: number };

const action: fc.Arbitrary<Action> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      type: fc.constant("batch" as const),
      afterMs: fc.nat(4),
      requests: fc.array(request, { maxLength: 4 }),
    }),
  },
  fc.record({ type: fc.constantFrom("empty" as const, "reload" as const) }),
  fc.record({
    type: fc.constant("slice" as const),
    rows: fc.integer({ min: 1, max: 6 }),
  }),
);

/** Values as arrays of numbers, errors without their message. */
function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return [...value];
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null) return value;
  const members = Object.entries(value).filter(([name]) => name !== "message");
  return Object.fromEntries(members.map(([name, one]) => [name, plain(one)]));
}

/** Values grow beyond this by a few appends. */
const LIMITS = { ...TEST_LIMITS, valueBytesMax: 24 };

/** The request with the versionstamps that keys have at this moment. */
function withStamps(
  request: Request,
  now: ReadonlyMap<string, StoredEntry>,
): Request {
  if (request.type !== "mutate") return request;
  const { database } = request;
  const checks = request.checks.map(({ key, versionstamp }) => {
    const entry = now.get(`denokv/${database}/${key}`);
    const present = entry === undefined ? "" : stamp(entry.modRevision);
    return {
      key,
      versionstamp: versionstamp === PRESENT ? present : versionstamp,
    };
  });
  return { ...request, checks };
}

/** A store and its twin, which gets the same log but is never reloaded and never removes rows. */
class Pair {
  readonly model = new Model(LIMITS);
  readonly rows = new FakeRows();
  store = Store.load(this.rows, EMPTY_STATE, LIMITS);
  readonly twin = Store.load(new FakeRows(), EMPTY_STATE, LIMITS);
  #timeMs = 0;

  perform(action: Action): void {
    switch (action.type) {
      case "batch":
        this.#timeMs += action.afterMs;
        return this.#batch(action.requests);
      case "empty": {
        this.model.tick(this.#timeMs);
        return this.#apply(null, []);
      }
      case "reload": {
        const before = this.store.state;
        this.store = Store.load(this.rows, before, LIMITS);
        return assertEquals(this.store.state, before);
      }
      case "slice":
        this.store.compactSlice(action.rows);
        return;
    }
  }

  #batch(requests: readonly Request[]): void {
    this.model.tick(this.#timeMs);
    const { now } = this.model;
    const resolved = requests.map((request) => withStamps(request, now));
    this.#apply(resolved, resolved.map((request) => this.model.apply(request)));
  }

  #apply(requests: readonly Request[] | null, expected: unknown[]): void {
    const batch = requests === null ? null : {
      timeMs: this.#timeMs,
      commands: requests.map((request, id) => ({
        origin: 1,
        id,
        writeId: null,
        request,
      })),
    };
    const from = this.store.revision;
    const entry = { index: this.store.appliedIndex + 1, term: 1, batch };
    const { results, events } = this.store.apply(entry);
    this.twin.apply(entry);
    assertEquals(plain(results.map((one) => one.result)), plain(expected));
    const expectedEvents = this.model.events.filter((event) =>
      event.revision > from
    );
    assertEquals(
      plain(
        events.map((event) => ({
          ...event,
          previous: null,
          previousPosition: 0,
        })),
      ),
      plain(
        expectedEvents.map((event) =>
          toWatchEvent({ ...event, previous: null })
        ),
      ),
    );
    assertEquals(
      plain(events.map((event) => this.store.previousOf(event))),
      plain(expectedEvents.map((event) => event.previous)),
    );
  }

  check(): void {
    const { model, store, twin } = this;
    store.assertInvariants();
    assertEquals(store.revision, model.revision);
    assertEquals(store.state.hash, twin.state.hash);
    assertEquals(store.metrics.keys, model.now.size);
    for (const [lease, { ttlMs, deadlineMs }] of model.leases) {
      const remainingMs = Math.max(0, deadlineMs - model.timeMs);
      assertEquals(store.leaseInfo(lease), { lease, ttlMs, remainingMs });
      const keys = [...model.now.values()].filter((entry) =>
        entry.lease === lease
      );
      assertEquals(
        store.leaseKeys(lease),
        keys.map((entry) => entry.key).sort(),
      );
    }
    assertEquals(store.metrics.leases, model.leases.size);
    const deadlines = [...model.leases.values()].map((one) => one.deadlineMs);
    assertEquals(
      store.nextLeaseDeadlineMs,
      deadlines.length ? Math.min(...deadlines) : null,
    );
  }

  /** Every revision that can be read reads as the model has it; every other is refused. */
  checkReads(ranges: readonly KeyRange[]): void {
    const { model, store } = this;
    for (let revision = 0; revision <= model.revision; revision++) {
      if (revision !== 0 && revision < model.compactRevision) {
        const error = assertThrows(() => store.get("a", revision), DkvError);
        assertEquals((error as DkvError).code, "REVISION_COMPACTED");
        continue;
      }
      const keys = model.at(revision);
      for (const key of ["a", "ab", "b", "b\0", "c", "\xff", "none"]) {
        assertEquals(
          plain(store.get(key, revision)),
          plain(keys.get(key) ?? null),
        );
      }
      for (const range of ranges) this.#checkList(range, revision);
    }
  }

  #checkList(range: KeyRange, revision: number): void {
    const { model, store } = this;
    for (const limit of [0, 2]) {
      for (
        const [keysOnly, reverse] of [[false, false], [true, false], [
          false,
          true,
        ]] as const
      ) {
        const options = {
          revision,
          limit,
          keysOnly,
          reverse,
          bytesMax: Infinity,
        };
        const { entries, more } = store.list(range, options);
        assertEquals(
          plain({ entries, more }),
          plain(model.list(range, options)),
        );
      }
    }
    const count = model.list(range, {
      revision,
      limit: 0,
      keysOnly: true,
      reverse: false,
      bytesMax: Infinity,
    }).entries.length;
    assertEquals(store.count(range, revision), count);
  }

  /** History from the compact revision on is complete, however it is cut into pages. */
  checkHistory(eventsMax: number): void {
    const { model, store } = this;
    const first = Math.max(1, model.compactRevision);
    const found: unknown[] = [];
    for (let next = first, position = 0; next <= store.revision;) {
      const page = store.history({
        fromRevision: next,
        fromPosition: position,
        range: ALL,
        withPrevious: true,
        noPuts: false,
        noDeletes: false,
        eventsMax,
        bytesMax: Infinity,
        rowsMax: 1000,
      });
      found.push(
        ...page.events.map((event) => ({ ...event, previousPosition: 0 })),
      );
      next = page.throughRevision + 1;
      // Every other page has to find its place by itself.
      position = next % 2 === 0 ? page.nextPosition : 0;
    }
    const expected = model.events.filter((event) => event.revision >= first)
      .map((event) =>
        toWatchEvent(
          event.revision > model.compactRevision
            ? event
            : { ...event, previous: null },
        )
      );
    assertEquals(plain(found), plain(expected));
  }
}

function toWatchEvent(event: ModelEvent): unknown {
  const { type, revision, key, entry, previous } = event;
  const bare: StoredEntry = {
    key,
    value: new Uint8Array(0),
    createRevision: 0,
    modRevision: revision,
    version: 0,
    lease: 0n,
  };
  return { type, ...entry ?? bare, previousPosition: 0, previous };
}

Deno.test("store: does what the model does, through reloads and removal of rows", () => {
  const property = fc.property(
    fc.array(action, { minLength: 5, maxLength: 40 }),
    fc.array(range, { maxLength: 2 }),
    fc.integer({ min: 1, max: 5 }),
    (actions, ranges, eventsMax) => {
      const pair = new Pair();
      for (const action of actions) {
        pair.perform(action);
        pair.check();
      }
      pair.checkReads([...ranges, ALL]);
      pair.checkHistory(eventsMax);
      pair.perform({ type: "reload" });
      while (pair.store.compactSlice(3));
      pair.checkReads(ranges);
      pair.checkHistory(eventsMax);
    },
  );
  fc.assert(property, runs(500));
});

Deno.test("store: after removal there is nothing left that no read can reach", () => {
  const property = fc.property(
    fc.array(fc.oneof(put, deletion), { minLength: 1, maxLength: 40 }),
    fc.array(fc.nat(40), { maxLength: 4 }),
    (requests, compactions) => {
      const pair = new Pair();
      const plainPuts = requests.map((one) =>
        one.type === "put" ? { ...one, lease: 0n } : one
      );
      pair.perform({ type: "batch", afterMs: 0, requests: plainPuts });
      for (const revision of compactions) {
        pair.perform({
          type: "batch",
          afterMs: 0,
          requests: [{ type: "compact", revision }],
        });
        while (pair.store.compactSlice(2));
      }
      const { events, compactRevision } = pair.model;
      const reachable = events.filter((event, i) => {
        if (event.revision >= compactRevision) return true;
        const next = events.find((later, j) =>
          j > i && later.key === event.key
        );
        return event.type === "put" &&
          (next === undefined || next.revision > compactRevision);
      });
      assertEquals(pair.rows.size, reachable.length);
    },
  );
  fc.assert(property, runs(200));
});

Deno.test("store: replicas agree however their entries were cut, if the entries are the same", () => {
  const property = fc.property(
    fc.array(fc.array(request, { maxLength: 4 }), {
      minLength: 2,
      maxLength: 15,
    }),
    (batches) => {
      const stores = [new FakeRows(), new FakeRows()].map((rows) => ({
        rows,
        store: Store.load(rows, EMPTY_STATE, LIMITS),
      }));
      const results: Result[][] = [[], []];
      for (const [at, requests] of batches.entries()) {
        for (const [which, replica] of stores.entries()) {
          const commands = requests.map((request, id) => ({
            origin: 1,
            id,
            writeId: {
              client: `c${id}`,
              sequence: at + 1,
              doneBelow: Math.max(0, at - 2),
            },
            request,
          }));
          const applied = replica.store.apply({
            index: at + 1,
            term: 1,
            batch: { timeMs: at, commands },
          });
          results[which]!.push(...applied.results.map((one) => one.result));
          if (which === 1) {
            replica.store = Store.load(
              replica.rows,
              replica.store.state,
              LIMITS,
            );
          }
        }
        assertEquals(stores[0]!.store.state, stores[1]!.store.state);
      }
      assertEquals(plain(results[0]), plain(results[1]));
    },
  );
  fc.assert(property, runs(200));
});
