/**
 * The watchers: each pitfall by its name, and random histories with slow consumers against a model.
 *
 * @module
 */

import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import type { KeyRange, Request } from "../batch.ts";
import { DkvError } from "../errors.ts";
import { EMPTY_STATE, Store, type WatchEvent } from "../store.ts";
import { type Watch, Watchers, type WatchOptions } from "../watch.ts";
import { runs } from "./arbitrary.ts";
import { FakeRows, TEST_LIMITS } from "./fake_rows.ts";
import { Model, type ModelEvent } from "./model.ts";

const ALL: KeyRange = { start: "", end: null };

function only(key: string): KeyRange {
  return { start: key, end: key + "\0" };
}

function put(key: string, value = "v"): Request {
  const bytes = Uint8Array.from(value, (character) => character.charCodeAt(0));
  return { type: "put", key, value: bytes, lease: 0n, returnPrevious: false };
}

function del(key: string): Request {
  return { type: "delete", range: only(key), returnPrevious: false };
}

/** A watcher's consumer that takes what the test lets it. */
class Consumer {
  readonly watch: Watch;
  readonly options: WatchOptions;
  /** How many events fit now. */
  room = Infinity;
  readonly events: WatchEvent[] = [];
  /** Of the last delivery. */
  through = 0;
  deliveries = 0;
  cancelled: { code: string; compactRevision: number } | null = null;

  constructor(watchers: Watchers, options: Partial<WatchOptions> = {}) {
    this.options = {
      range: ALL,
      fromRevision: 0,
      withPrevious: false,
      noPuts: false,
      noDeletes: false,
      hasRoom: () => this.room > 0,
      deliver: (events, through) => this.#deliver(events, through),
      cancel: ({ code }, compactRevision) => {
        assertEquals(this.cancelled, null, "cancelled twice");
        this.cancelled = { code, compactRevision };
      },
      ...options,
    };
    this.watch = watchers.add(this.options);
  }

  #deliver(events: readonly WatchEvent[], through: number): boolean {
    assertEquals(this.cancelled, null, "delivered after it was cancelled");
    if (this.room <= 0) return false;
    this.room -= events.length;
    this.deliveries++;
    const first = events[0]?.modRevision ?? Infinity;
    assert(
      first > this.through,
      `revision ${first} after through ${this.through}`,
    );
    assert(
      (events.at(-1)?.modRevision ?? 0) <= through && through >= this.through,
      `through ${through} after ${this.through}`,
    );
    this.events.push(...events);
    this.through = through;
    return true;
  }

  get seen(): string[] {
    return this.events.map((event) =>
      `${event.modRevision} ${event.type} ${event.key}`
    );
  }
}

/** Revisions count from 1 here: easier to follow. */
const START = { ...EMPTY_STATE, revision: 0 };

/** A store with watchers, fed entry by entry. */
class Fed {
  readonly rows = new FakeRows();
  readonly model = new Model(START);
  store = Store.load(this.rows, START, TEST_LIMITS);
  readonly watchers: Watchers;

  constructor(watchSliceBytes = 1 << 20, watchersMax = 100) {
    this.watchers = new Watchers(this.store, {
      watchersMax,
      watchSliceBytes,
      electionTicksMin: 1,
    });
  }

  apply(...requests: Request[]): void {
    this.watchers.publish(this.applyOnly(...requests));
  }

  /** As a replica does that hears of the entries only through a snapshot. */
  applyOnly(...requests: Request[]): readonly WatchEvent[] {
    for (const request of requests) this.model.apply(request);
    const commands = requests.map((request, id) => ({
      origin: 1,
      id,
      writeId: null,
      request,
    }));
    const index = this.store.appliedIndex + 1;
    return this.store.apply({ index, term: 1, batch: { timeMs: 0, commands } })
      .events;
  }

  pumpAll(): void {
    for (let i = 0; this.watchers.pump(); i++) {
      assert(i < 1000, "pump without end");
    }
  }
}

Deno.test("watch: a live watcher gets what its range and its filters let through", () => {
  const fed = new Fed();
  fed.apply(put("a"));
  const consumers = {
    all: new Consumer(fed.watchers),
    key: new Consumer(fed.watchers, { range: only("b") }),
    range: new Consumer(fed.watchers, { range: { start: "b", end: "c" } }),
    puts: new Consumer(fed.watchers, { noDeletes: true }),
    deletes: new Consumer(fed.watchers, { noPuts: true, range: only("a") }),
  };
  fed.apply(put("a"), put("b"), del("a"), put("bb"));
  fed.apply(put("c"));
  assertEquals(
    Object.fromEntries(
      Object.entries(consumers).map(([name, { seen }]) => [name, seen]),
    ),
    {
      all: ["2 put a", "3 put b", "4 delete a", "5 put bb", "6 put c"],
      key: ["3 put b"],
      range: ["3 put b", "5 put bb"],
      puts: ["2 put a", "3 put b", "5 put bb", "6 put c"],
      deletes: ["4 delete a"],
    },
  );
  assertEquals(consumers.all.deliveries, 2, "one delivery for each entry");
  assertEquals(consumers.key.through, 5, "through the whole entry");
});

Deno.test("watch: the entry before comes with live and with late events, read only if asked for", () => {
  const fed = new Fed();
  fed.apply(put("a", "1"), put("a", "2"));
  new Consumer(fed.watchers);
  fed.apply(put("a", "3"));
  assertEquals(fed.rows.valuesRead, 0);
  const live = new Consumer(fed.watchers, { withPrevious: true });
  fed.apply(del("a"));
  fed.apply(put("a", "5"));
  const late = new Consumer(fed.watchers, {
    withPrevious: true,
    fromRevision: 1,
  });
  fed.pumpAll();
  const previous = ({ events }: Consumer) =>
    events.map((event) =>
      event.previous === null
        ? null
        : String.fromCharCode(...event.previous.value)
    );
  assertEquals(previous(live), ["3", null]);
  assertEquals(previous(late), [null, "1", "2", "3", null]);
});

Deno.test("watch: a late watcher becomes live without a gap and without a repetition", () => {
  const fed = new Fed(200);
  for (let i = 0; i < 10; i++) fed.apply(put("a"), put("b"));
  const consumer = new Consumer(fed.watchers, {
    fromRevision: 3,
    range: only("a"),
  });
  assertEquals([consumer.watch.fromRevision, consumer.seen], [3, []]);
  assertEquals(fed.watchers.metrics, { watchers: 1, late: 1 });
  fed.watchers.pump();
  fed.apply(put("a"), put("b"));
  assertEquals(fed.watchers.metrics.late, 1, "not yet");
  fed.pumpAll();
  fed.apply(put("a"));
  assertEquals(fed.watchers.metrics, { watchers: 1, late: 0 });
  assertEquals(
    consumer.events.map((event) => event.modRevision),
    [3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23],
  );
});

Deno.test("watch: a revision is never cut in two, however small the pages", () => {
  const fed = new Fed(1);
  const keys = Array.from({ length: 20 }, (_, i) => `k${i}`);
  for (let i = 0; i < 3; i++) {
    const then = keys.map((key) => put(key)) as Extract<
      Request,
      { type: "put" }
    >[];
    fed.apply({ type: "transact", compares: [], then, else: [] });
  }
  const consumer = new Consumer(fed.watchers, { fromRevision: 1 });
  fed.pumpAll();
  assertEquals([consumer.events.length, consumer.deliveries], [60, 3]);
});

Deno.test("watch: one pump serves late watchers in turn, a bounded number of pages", () => {
  const fed = new Fed(1);
  for (let i = 0; i < 10; i++) fed.apply(put("a"));
  const consumers = Array.from(
    { length: 12 },
    () => new Consumer(fed.watchers, { fromRevision: 1 }),
  );
  assert(fed.watchers.pump(), "there is more to do");
  assertEquals(consumers.filter((one) => one.deliveries === 1).length, 8);
  fed.watchers.pump();
  assert(
    consumers.every((one) => one.deliveries >= 1),
    "a watcher was passed over",
  );
});

Deno.test("watch: nothing comes after stop, also when it is called within a delivery", () => {
  const fed = new Fed();
  const stopped = new Consumer(fed.watchers);
  stopped.watch.stop();
  stopped.watch.stop();
  const late = new Consumer(fed.watchers, { fromRevision: 1 });
  let count = 0;
  const self: Watch = fed.watchers.add({
    ...late.options,
    fromRevision: 0,
    deliver: () => {
      count++;
      self.stop();
      return true;
    },
  });
  fed.apply(put("a"));
  fed.apply(put("a"));
  fed.pumpAll();
  assertEquals([stopped.deliveries, count], [0, 1]);
  assertEquals(fed.watchers.metrics.watchers, 1);
});

Deno.test("watch: there are at most so many; ended ones do not count", () => {
  const fed = new Fed(1000, 2);
  fed.apply(put("a"));
  const first = new Consumer(fed.watchers);
  new Consumer(fed.watchers, { fromRevision: 1 });
  const add = () => new Consumer(fed.watchers);
  const error = assertThrows(add, DkvError, "at most 2");
  assertEquals((error as DkvError).code, "OVERLOADED");
  first.watch.stop();
  add();
});

Deno.test("watch: close ends all with a reason", () => {
  const fed = new Fed();
  fed.apply(put("a"));
  const consumers = [
    new Consumer(fed.watchers),
    new Consumer(fed.watchers, { range: only("a") }),
    new Consumer(fed.watchers, { fromRevision: 1 }),
  ];
  fed.watchers.close();
  assertEquals(
    consumers.map((one) => one.cancelled?.code),
    new Array(3).fill("SHUTTING_DOWN"),
  );
  assertEquals(fed.watchers.metrics.watchers, 0);
});

Deno.test("watch F6: a full consumer misses nothing, and is told when history has gone", () => {
  const fed = new Fed();
  const slow = new Consumer(fed.watchers);
  const lost = new Consumer(fed.watchers, { range: only("a") });
  slow.room = lost.room = 1;
  fed.apply(put("a"));
  fed.apply(put("a"), put("b"));
  fed.apply(put("a"));
  fed.pumpAll();
  assertEquals([slow.seen, lost.seen], [["1 put a"], ["1 put a"]]);
  slow.room = Infinity;
  fed.pumpAll();
  assertEquals(slow.seen, ["1 put a", "2 put a", "3 put b", "4 put a"]);
  fed.apply({ type: "compact", revision: 3 });
  fed.pumpAll();
  assertEquals(lost.cancelled, {
    code: "REVISION_COMPACTED",
    compactRevision: 3,
  });
  assertEquals(fed.watchers.metrics.watchers, 1);
});

Deno.test("watch F7: the lower bound of each watch survives the installation of a snapshot", () => {
  const fed = new Fed();
  const live = new Consumer(fed.watchers);
  const key = new Consumer(fed.watchers, { range: only("b") });
  const future = new Consumer(fed.watchers, { fromRevision: 6 });
  const late = new Consumer(fed.watchers, { fromRevision: 1 });
  late.room = 0;
  fed.apply(put("a"), put("b"));
  fed.applyOnly(put("a"), put("b"), { type: "compact", revision: 2 });
  fed.store = Store.load(fed.rows, fed.store.state, TEST_LIMITS);
  fed.watchers.rebase(fed.store);
  fed.apply(put("b"));
  fed.apply(put("b"));
  late.room = Infinity;
  fed.pumpAll();
  fed.apply(put("b"));
  assertEquals(live.seen, [
    "1 put a",
    "2 put b",
    "3 put a",
    "4 put b",
    "5 put b",
    "6 put b",
    "7 put b",
  ]);
  assertEquals(key.seen, [
    "2 put b",
    "4 put b",
    "5 put b",
    "6 put b",
    "7 put b",
  ]);
  assertEquals(future.seen, ["6 put b", "7 put b"]);
  assertEquals(late.cancelled, {
    code: "REVISION_COMPACTED",
    compactRevision: 2,
  });
});

Deno.test("watch F8: from a future, zero, negative or compacted revision", () => {
  const table: [number, string, string[]][] = [
    [-1, "REVISION_INVALID", []],
    [1.5, "REVISION_INVALID", []],
    [NaN, "REVISION_INVALID", []],
    [0, "", ["5 put a", "6 put a", "7 put a"]],
    [1, "REVISION_COMPACTED", []],
    [2, "REVISION_COMPACTED", []],
    [3, "", ["3 put a", "4 put a", "5 put a", "6 put a", "7 put a"]],
    [4, "", ["4 put a", "5 put a", "6 put a", "7 put a"]],
    [5, "", ["5 put a", "6 put a", "7 put a"]],
    [7, "", ["7 put a"]],
    [8, "", []],
  ];
  for (const [fromRevision, code, seen] of table) {
    const fed = new Fed();
    fed.apply(put("a"), put("a"), put("a"), put("a"), {
      type: "compact",
      revision: 3,
    });
    let consumer: Consumer;
    try {
      consumer = new Consumer(fed.watchers, { fromRevision });
    } catch (error) {
      assertEquals((error as DkvError).code, code, `from ${fromRevision}`);
      continue;
    }
    fed.pumpAll();
    fed.apply(put("a"), put("a"));
    fed.apply(put("a"));
    fed.pumpAll();
    assertEquals(consumer.cancelled?.code ?? "", code, `from ${fromRevision}`);
    assertEquals(consumer.seen, seen, `from ${fromRevision}`);
  }
});

Deno.test("watch F8: revision 0 of an empty store is before the first change", () => {
  const fed = new Fed();
  const consumers = [0, 1].map((fromRevision) =>
    new Consumer(fed.watchers, { fromRevision })
  );
  fed.apply(put("a"));
  for (const { seen } of consumers) assertEquals(seen, ["1 put a"]);
});

Deno.test("watch: a node that stands alone for too long ends its watches, once", () => {
  const fed = new Fed();
  const live = new Consumer(fed.watchers);
  fed.watchers.tick(false);
  fed.watchers.tick(false);
  fed.watchers.tick(true);
  fed.watchers.tick(false);
  fed.watchers.tick(false);
  assertEquals(live.cancelled, null, "never three ticks in a row");
  fed.watchers.tick(false);
  assertEquals(live.cancelled?.code, "NO_LEADER");
  const next = new Consumer(fed.watchers);
  fed.watchers.tick(false);
  fed.apply(put("a"));
  assertEquals([next.cancelled, next.seen], [null, ["1 put a"]]);
  assertEquals(live.seen, []);
});

Deno.test("watch F9: progress never runs ahead of events", () => {
  const fed = new Fed();
  const idle = new Consumer(fed.watchers, { range: only("z") });
  const full = new Consumer(fed.watchers);
  const future = new Consumer(fed.watchers, { fromRevision: 50 });
  full.room = 1;
  fed.apply(put("a"));
  fed.apply(put("a"));
  const progress = () =>
    [idle, full, future].map(({ watch }) => watch.progress());
  assertEquals(progress(), [2, null, 2]);
  full.room = Infinity;
  assertEquals(progress(), [2, null, 2], "late: events first");
  fed.pumpAll();
  assertEquals(full.seen, ["1 put a", "2 put a"]);
  assertEquals(progress(), [2, 2, 2]);
});

Deno.test("watch F10: a delete at the compact revision is delivered after rows were removed", () => {
  const fed = new Fed();
  fed.apply(put("a"), put("b"), del("a"), del("b"), {
    type: "compact",
    revision: 3,
  });
  while (fed.store.compactSlice(1));
  const consumer = new Consumer(fed.watchers, {
    fromRevision: 3,
    withPrevious: true,
  });
  fed.pumpAll();
  assertEquals(consumer.seen, ["3 delete a", "4 delete b"]);
  assertEquals(consumer.events.map((event) => event.previous?.key ?? null), [
    null,
    "b",
  ]);
});

const key = fc.constantFrom("a", "b", "c");
const request: fc.Arbitrary<Request> = fc.oneof(
  { weight: 4, arbitrary: key.map((one) => put(one)) },
  { weight: 2, arbitrary: key.map(del) },
  {
    weight: 1,
    arbitrary: fc.constant<Request>({
      type: "delete",
      range: ALL,
      returnPrevious: false,
    }),
  },
  {
    weight: 1,
    arbitrary: fc.nat(30).map((revision): Request => ({
      type: "compact",
      revision,
    })),
  },
);
const step = fc.oneof(
  { weight: 5, arbitrary: fc.array(request, { maxLength: 4 }) },
  { weight: 3, arbitrary: fc.record({ pumps: fc.nat(3), slice: fc.nat(4) }) },
  { weight: 2, arbitrary: fc.record({ consumer: fc.nat(5), room: fc.nat(6) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      fromRevision: fc.nat(20),
      key: fc.option(key),
      noPuts: fc.boolean(),
      noDeletes: fc.boolean(),
      withPrevious: fc.boolean(),
    }),
  },
  // A snapshot that skips these requests.
  {
    weight: 1,
    arbitrary: fc.record({ skipped: fc.array(request, { maxLength: 4 }) }),
  },
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

function perform(
  fed: Fed,
  options: { consumers: Consumer[]; step: Step },
): void {
  const { consumers, step } = options;
  if (Array.isArray(step)) {
    fed.apply(...step);
  } else if ("pumps" in step) {
    for (let i = 0; i < step.pumps; i++) fed.watchers.pump();
    if (step.slice > 0) fed.store.compactSlice(step.slice);
  } else if ("room" in step) {
    const consumer = consumers[step.consumer];
    if (consumer !== undefined) consumer.room = step.room;
  } else if ("skipped" in step) {
    fed.applyOnly(...step.skipped);
    fed.store = Store.load(fed.rows, fed.store.state, TEST_LIMITS);
    fed.watchers.rebase(fed.store);
  } else {
    const { key, ...options } = step;
    const range = key === null ? ALL : only(key);
    consumers.push(new Consumer(fed.watchers, { ...options, range }));
  }
}

/** What the consumer must have seen once it has caught up. */
function expected(model: Model, { options, watch }: Consumer): ModelEvent[] {
  const { range, noPuts, noDeletes } = options;
  return model.events.filter((event) =>
    event.revision >= watch.fromRevision &&
    event.key >= range.start && (range.end === null || event.key < range.end) &&
    !(event.type === "put" ? noPuts : noDeletes)
  );
}

Deno.test("watch: slow consumers see exactly the history from their start, or a right cancellation", () => {
  const property = fc.property(fc.array(step, { maxLength: 50 }), (steps) => {
    const fed = new Fed(150);
    const consumers: Consumer[] = [];
    for (const step of steps) perform(fed, { consumers, step });
    for (const consumer of consumers) consumer.room = Infinity;
    fed.pumpAll();
    fed.apply(put("a"), put("b"), put("c"), del("a"), del("b"), del("c"));
    const { compactRevision } = fed.model;
    for (const consumer of consumers) {
      const events = expected(fed.model, consumer);
      const seen = events.map((event) =>
        `${event.revision} ${event.type} ${event.key}`
      );
      if (consumer.cancelled === null) {
        assertEquals(consumer.seen, seen);
      } else {
        assertEquals(consumer.cancelled.code, "REVISION_COMPACTED");
        assert(
          consumer.cancelled.compactRevision <= compactRevision,
          "a compaction that was",
        );
        assertEquals(consumer.seen, seen.slice(0, consumer.seen.length));
        assert(
          consumer.through + 1 < compactRevision ||
            consumer.watch.fromRevision < compactRevision,
          "needed",
        );
      }
      for (const [i, event] of consumer.events.entries()) {
        const { entry, previous } = events[i]!;
        if (entry !== null) assertEquals([...event.value], [...entry.value]);
        if (!consumer.options.withPrevious) assertEquals(event.previous, null);
        else if (event.previous !== null) {
          assertEquals(event.previous.modRevision, previous?.modRevision);
        } else {
          assert(
            previous === null || event.modRevision <= compactRevision,
            "previous is missing",
          );
        }
      }
    }
  });
  fc.assert(property, runs(500));
});
