/** The judge of torture on histories made by hand, and a short round with real processes. */

import { assert, assertEquals, assertThrows } from "@std/assert";
import { AssertionError } from "../errors.ts";
import { CLUSTER_NEEDS, needs } from "./needs.ts";
import { Random } from "./sim/random.ts";
import { Availability } from "./torture/availability.ts";
import { ClockDifference } from "./torture/clock.ts";
import { judge, readRound } from "./torture/judge.ts";
import { Deck, type FaultKind, FAULTS } from "./torture/nemesis.ts";
import {
  type Account,
  type Answer,
  COUNTER_KEYS,
  type Event,
  type Request,
  type TortureRecord,
} from "./torture/record.ts";
import { runRound } from "./torture/round.ts";

const NONE: Account = ["", 0];

/** What happened, to be changed by each test. */
interface Story {
  /** Each: name, times, request, and answer; null: unknown. A text: failed with this code. */
  operations: [string, number, number, Request, Answer | string | null][];
  /** In the order of the log. */
  events: Event[];
  /** Of the second node; the same unless given. */
  otherEvents?: Event[];
  watches: { watch: string; prefix: string; from: number; events: Event[] }[];
  finals: [key: string, value: string, version: number][];
  killed: string[];
}

const REGISTER = "t/r/0/0";
const [PUTS, SETS] = COUNTER_KEYS;
const MARKED = ["t/b/end", "t/c/end", "t/r/end"];
const AFTER: Account[] = [["90 w.0-6", 4], ["110 w.0-6", 4]];

/** A bit of everything, as it should be: what was asked and answered, */
const OPERATIONS: Story["operations"] = [
  ["w.0-1", 0, 1, { type: "put", key: REGISTER, value: "w.0-1" }, {
    type: "put",
    revision: 1,
    version: 1,
    previous: "",
  }],
  ["w.0-2", 2, 3, { type: "get", key: REGISTER }, {
    type: "got",
    value: "w.0-1",
    modRevision: 1,
  }],
  ["w.0-3", 4, 5, {
    type: "compareAndSet",
    key: REGISTER,
    expected: "w.0-1",
    value: "w.0-3",
  }, { type: "compared", revision: 2, succeeded: true, version: 2 }],
  ["w.0-4", 6, 7, { type: "delete", key: REGISTER }, {
    type: "deleted",
    revision: 3,
    deleted: 1,
    previous: "w.0-3",
  }],
  ["w.0-5", 8, 9, { type: "balances", bank: "0", list: false }, {
    type: "balances",
    revision: 3,
    accounts: [NONE, NONE, NONE, NONE, NONE],
  }],
  ["w.0-6", 10, 11, {
    type: "transfer",
    bank: "0",
    accounts: [0, 1],
    modRevisions: [0, 0],
    values: ["90 w.0-6", "110 w.0-6"],
  }, { type: "transferred", revision: 4, succeeded: true, accounts: [] }],
  ["w.0-7", 12, 13, { type: "balances", bank: "0", list: true }, {
    type: "balances",
    revision: 0,
    accounts: [...AFTER, NONE, NONE, NONE],
  }],
  ["w.0-8", 14, 15, { type: "put", key: PUTS, value: "w.0-8" }, {
    type: "put",
    revision: 5,
    version: 1,
  }],
  ["w.0-9", 16, 17, { type: "put", key: PUTS, value: "w.0-9" }, null],
  ["w.0-10", 18, 19, { type: "get", key: SETS }, {
    type: "got",
    value: "",
    modRevision: 0,
  }],
  ["w.0-11", 20, 21, {
    type: "increment",
    key: SETS,
    modRevision: 0,
    value: "w.0-11",
  }, { type: "compared", revision: 7, succeeded: true, version: 1 }],
  ["h.0-1", 100, 101, { type: "mark", keys: MARKED, value: "h.0-1" }, {
    type: "put",
    revision: 8,
    version: 1,
  }],
  ["h.0-2", 102, 103, { type: "mark", keys: ["t/end"], value: "h.0-2" }, {
    type: "put",
    revision: 9,
    version: 1,
  }],
];

/** and what changed. */
const EVENTS: Event[] = [
  [1, REGISTER, "w.0-1", 1],
  [2, REGISTER, "w.0-3", 2],
  [3, REGISTER, null, 0],
  [4, "t/b/0/0", "90 w.0-6", 1],
  [4, "t/b/0/1", "110 w.0-6", 1],
  [5, PUTS, "w.0-8", 1],
  [6, PUTS, "w.0-9", 2],
  [7, SETS, "w.0-11", 1],
  ...MARKED.map((key): Event => [8, key, "h.0-1", 1]),
  [9, "t/end", "h.0-2", 1],
];

function goodStory(): Story {
  const below = (prefix: string, from: number) => ({
    prefix,
    from,
    events: EVENTS.filter(([revision, key]) =>
      revision >= from && key.startsWith(prefix)
    ),
  });
  return structuredClone({
    operations: OPERATIONS,
    events: EVENTS,
    watches: [
      { watch: "w.0/watch", ...below("t/", 2) },
      { watch: "w.1/watch", ...below("t/b/", 1) },
    ],
    finals: [[PUTS, "w.0-9", 2], [SETS, "w.0-11", 1]],
    killed: [],
  });
}

function recordsOf(story: Story): TortureRecord[] {
  const { operations, events, otherEvents = events, watches } = story;
  return [
    ...operations.flatMap(([op, call, end, request, answer]) => {
      const records: TortureRecord[] = [{ t: "call", op, at: call, request }];
      if (answer === null) return records;
      const outcome = typeof answer === "string"
        ? { type: "failed", code: answer, message: "" } as const
        : { type: "ok", answer } as const;
      records.push({ t: "return", op, at: end, outcome });
      return records;
    }),
    ...watches.flatMap(({ watch, prefix, from, events }): TortureRecord[] => [
      { t: "watch", watch, prefix, from },
      { t: "events", watch, events },
    ]),
    ...story.killed.map((worker): TortureRecord => ({ t: "killed", worker })),
    { t: "history", node: "node1", events },
    { t: "history", node: "node2", events: otherEvents },
    ...story.finals.map(([key, value, version]): TortureRecord => ({
      t: "final",
      node: "node1",
      key,
      value,
      version,
    })),
  ];
}

function checksOf(story: Story): string[] {
  const { violations } = judge(readRound(recordsOf(story)));
  return [...new Set(violations.map(({ check }) => check))];
}

function answerOf(story: Story, name: string, answer: Answer | string | null) {
  const operation = story.operations.find(([op]) => op === name);
  assert(operation !== undefined, name);
  operation[4] = answer;
}

/** Takes an event out of everything that tells it. */
function forget(story: Story, gone: (event: Event) => boolean): void {
  const keep = (event: Event) => !gone(event);
  story.events = story.events.filter(keep);
  for (const watch of story.watches) watch.events = watch.events.filter(keep);
}

/** Puts an event into everything that tells it. */
function insert(story: Story, event: Event): void {
  const into = (events: Event[]) => {
    const at = events.findIndex(([revision]) => revision > event[0]);
    events.splice(at, 0, event);
  };
  into(story.events);
  for (const { prefix, events } of story.watches) {
    if (event[1].startsWith(prefix)) into(events);
  }
}

const GOOD: Record<string, (story: Story) => void> = {
  "a bit of everything": () => {},
  "an unknown write that never took effect": (story) => {
    forget(story, ([revision]) => revision === 6);
    story.finals[0] = ["t/c/puts", "w.0-8", 1];
  },
  "an unknown transfer that took effect": (story) => {
    answerOf(story, "w.0-6", null);
  },
  "an unknown delete that took effect": (story) => {
    answerOf(story, "w.0-4", null);
  },
  "a failed write without effect": (story) => {
    const request = { type: "put", key: "t/r/0/1", value: "w.0-12" } as const;
    story.operations.push(["w.0-12", 30, 31, request, "NO_LEADER"]);
  },
  "a watch of a process that was killed": (story) => {
    story.watches[0]!.events.length = 3;
    story.killed = ["w"];
  },
  "a comparison that was lost": (story) => {
    const request = {
      type: "compareAndSet",
      key: "t/r/0/0",
      expected: "w.0-1",
      value: "w.0-12",
    } as const;
    const answer = {
      type: "compared",
      revision: 7,
      succeeded: false,
      version: 0,
    };
    story.operations.push(["w.0-12", 30, 31, request, answer as Answer]);
  },
};

for (const [name, change] of Object.entries(GOOD)) {
  Deno.test(`torture: accepts ${name}`, () => {
    const story = goodStory();
    change(story);
    const { violations } = judge(readRound(recordsOf(story)));
    assertEquals(violations, []);
  });
}

const ONCE = "each write once";
const SERIAL = "transactions are serializable";
const WATCHES = "watches deliver everything once";
const HISTORY = "the history is one";
const END = "the end is the end of the history";

/** What is changed, and the checks that must notice: exactly these. */
const BAD: Record<string, [(story: Story) => void, string[]]> = {
  "a lost write": [
    (story) => forget(story, ([revision]) => revision === 7),
    [ONCE, END],
  ],
  "a write that was applied twice": [(story) => {
    insert(story, [7, "t/c/puts", "w.0-9", 3]);
    story.finals[0] = ["t/c/puts", "w.0-9", 3];
  }, [ONCE, END]],
  "an effect of what failed": [
    (story) => answerOf(story, "w.0-11", "NO_LEADER"),
    [ONCE, END],
  ],
  "an effect of a lost comparison": [(story) => {
    answerOf(story, "w.0-11", {
      type: "compared",
      revision: 7,
      succeeded: false,
      version: 0,
    });
  }, [ONCE, END]],
  "a change that nobody asked for": [
    (story) => insert(story, [7, "t/r/0/2", "w.9-9", 1]),
    [ONCE],
  ],
  "a delete that nobody asked for": [(story) => {
    const request = { type: "delete", key: "t/r/0/0" } as const;
    answerOf(story, "w.0-4", "NO_LEADER");
    story.operations.push(["w.0-12", 30, 31, request, "NO_LEADER"]);
  }, [ONCE]],
  "a delete that is not there": [
    (story) => forget(story, ([revision]) => revision === 3),
    [ONCE],
  ],
  "half a transaction": [(story) => {
    forget(story, ([, key]) => key === "t/b/0/1");
  }, [ONCE]],
  "a transaction in two revisions": [(story) => {
    forget(story, ([, key]) => key === "t/b/0/1");
    insert(story, [5, "t/b/0/1", "110 w.0-6", 1]);
  }, [ONCE]],
  "an answer with another version": [(story) => {
    answerOf(story, "w.0-8", { type: "put", revision: 5, version: 2 });
  }, [ONCE]],
  "a stale read of a register": [(story) => {
    const request = { type: "get", key: "t/r/0/0" } as const;
    const answer = { type: "got", value: "w.0-3", modRevision: 2 } as const;
    story.operations.push(["w.0-12", 30, 31, request, answer]);
  }, ["each key is linearizable"]],
  "a put that replaced what was not there": [(story) => {
    answerOf(story, "w.0-1", {
      type: "put",
      revision: 1,
      version: 1,
      previous: "w.0-3",
    });
  }, ["each key is linearizable"]],
  "a stale read of a counter": [(story) => {
    const request = { type: "get", key: "t/c/puts" } as const;
    const answer = { type: "got", value: "", modRevision: 0 } as const;
    story.operations.push(["w.0-12", 30, 31, request, answer]);
  }, ["reads are fresh"]],
  "a read of what never was": [(story) => {
    const request = { type: "get", key: "t/c/puts" } as const;
    const answer = { type: "got", value: "w.9-9", modRevision: 6 } as const;
    story.operations.push(["w.0-12", 30, 31, request, answer]);
  }, ["reads are fresh"]],
  "a read between the two writes of a transfer": [(story) => {
    answerOf(story, "w.0-7", {
      type: "balances",
      revision: 4,
      accounts: [["90 w.0-6", 4], NONE, NONE, NONE, NONE],
    });
  }, ["the sum of a bank stays", SERIAL]],
  "a stale read of a bank": [(story) => {
    answerOf(story, "w.0-7", {
      type: "balances",
      revision: 0,
      accounts: [NONE, NONE, NONE, NONE, NONE],
    });
  }, [SERIAL]],
  "a read of a bank with an old revision": [(story) => {
    answerOf(story, "w.0-7", {
      type: "balances",
      revision: 3,
      accounts: [["90 w.0-6", 4], ["110 w.0-6", 4], NONE, NONE, NONE],
    });
  }, ["revisions follow time", SERIAL]],
  "a transfer from what was not there": [(story) => {
    const [, , , request] = story.operations[5]!;
    assert(request.type === "transfer");
    story.operations[5]![3] = { ...request, modRevisions: [0, 3] };
  }, [SERIAL]],
  "revisions against time": [(story) => {
    const [first, , , , , , , eighth] = story.operations;
    [first![1], first![2], eighth![1], eighth![2]] = [15.2, 15.4, -2, -1];
    for (const at of [1, 2, 3]) {
      story.operations[at]![1] += 20;
      story.operations[at]![2] += 20;
    }
  }, ["revisions follow time"]],
  "a gap in a watch": [
    (story) => story.watches[0]!.events.splice(2, 1),
    [WATCHES],
  ],
  "a watch that delivers twice": [(story) => {
    const { events } = story.watches[0]!;
    events.splice(2, 0, events[2]!);
  }, [WATCHES]],
  "a watch out of order": [(story) => {
    const { events } = story.watches[0]!;
    [events[1], events[2]] = [events[2]!, events[1]!];
  }, [WATCHES]],
  "a watch that stops early": [
    (story) => story.watches[1]!.events.pop(),
    [WATCHES],
  ],
  "a killed watch with a gap": [(story) => {
    story.watches[0]!.events.splice(1, 1);
    story.killed = ["w"];
  }, [WATCHES]],
  "nodes that tell different things": [(story) => {
    story.otherEvents = story.events.map((event) =>
      event[0] === 5 ? [5, "t/c/puts", "w.0-7", 1] : event
    );
  }, [HISTORY]],
  "a node that tells less": [
    (story) => story.otherEvents = story.events.slice(1),
    [HISTORY],
  ],
  "a version that counts wrong": [(story) => {
    const wrong = (event: Event): Event =>
      event[0] === 2 ? [2, event[1], event[2], 3] : event;
    story.events = story.events.map(wrong);
    story.watches[0]!.events = story.watches[0]!.events.map(wrong);
  }, [HISTORY, ONCE]],
  "a history without its end": [
    (story) => forget(story, ([revision]) => revision === 9),
    [ONCE, END],
  ],
  "a node with another end": [
    (story) => story.finals[0] = ["t/c/puts", "w.0-8", 1],
    [END],
  ],
  "an error that no fault explains": [(story) => {
    const request = { type: "put", key: "t/r/0/1", value: "w.0-12" } as const;
    story.operations.push(["w.0-12", 30, 31, request, "REVISION_FUTURE"]);
  }, ["errors are those of faults"]],
};

for (const [name, [change, expected]] of Object.entries(BAD)) {
  Deno.test(`torture: refuses ${name}`, () => {
    const story = goodStory();
    change(story);
    assertEquals(checksOf(story), expected);
  });
}

Deno.test("torture: refuses a round without history, and keeps what was seen", () => {
  const records = recordsOf(goodStory()).filter(({ t }) => t !== "history");
  const seen = { t: "violation", check: "seen", text: "there" } as const;
  const { violations } = judge(readRound([...records, seen]));
  assertEquals(violations.map(({ check }) => check), ["seen", HISTORY]);
});

Deno.test("torture: a search that was given up is not a pass", () => {
  const { violations } = judge(readRound(recordsOf(goodStory())), 2);
  const checks = violations.map(({ check }) => check);
  assertEquals(checks, ["each key is linearizable", SERIAL]);
});

Deno.test("torture: counts what was asked", () => {
  const { counts, events, steps } = judge(readRound(recordsOf(goodStory())));
  assertEquals(counts, { ok: 12, failed: 0, unknown: 1 });
  assertEquals(events, 12);
  assert(steps > 0);
});

Deno.test("torture: times of another clock are widened by what is not known", () => {
  const clock = new ClockDifference();
  // Theirs is 1000 behind.
  clock.note({ sentMs: 1100, theirsMs: 105, receivedMs: 1120 });
  clock.note({ sentMs: 1200, theirsMs: 201, receivedMs: 1206 });
  assert(Math.abs(clock.uncertaintyMs - 6) < 0.1);
  for (const theirs of [0, 300]) {
    assert(clock.earliest(theirs) <= theirs + 1000);
    assert(clock.latest(theirs) >= theirs + 1000);
  }
  assertThrows(
    () => clock.note({ sentMs: 1300, theirsMs: 250, receivedMs: 1310 }),
    AssertionError,
    "drift",
  );
});

Deno.test("torture: waiting counts apart while a majority is untouched", () => {
  const availability = new Availability(3, 0);
  availability.touch(["node1"], 0);
  availability.acknowledged(10);
  availability.acknowledged(310);
  availability.touch(["node2"], 320);
  availability.acknowledged(2310);
  availability.release(["node2"], 2400);
  availability.acknowledged(5310);
  assertEquals(availability.longestMs, 3000);
  assertEquals(availability.longestUntouchedMs, 300);
  availability.acknowledged(8000);
  availability.acknowledged(8500);
  assertEquals(availability.longestUntouchedMs, 500);
});

Deno.test("torture: every kind of fault comes once before any comes again", () => {
  const all: FaultKind[] = Object.values(FAULTS).flat();
  const deck = new Deck(new Random(1));
  for (let round = 0; round < 3; round++) {
    const dealt = all.map(() => deck.deal(() => true));
    assertEquals(new Set(dealt).size, all.length);
  }
  const odd = new Deck(new Random(1));
  for (let at = 0; at < 5; at++) {
    assertEquals(odd.deal((kind) => kind === "wipe"), "wipe");
  }
});

/** What a short round has no time for. */
const SLOW: readonly FaultKind[] = [...FAULTS.data, "kill client"];

needs(
  [...CLUSTER_NEEDS],
  "torture: a short round with real processes",
  async () => {
    const seed = Number(
      new Date().toISOString().slice(0, 10).replaceAll("-", ""),
    );
    await using stack = new AsyncDisposableStack();
    const result = await runRound({
      round: 0,
      nodes: 3,
      settings: { catchUpEntries: 50 },
      smallDisks: false,
      loadMs: 6000,
      seed,
      random: new Random(seed),
      deck: new Deck(new Random(seed, "deck")),
      isWanted: (kind) => !SLOW.includes(kind),
      onRecord: () => {},
      stack,
      signal: new AbortController().signal,
    });
    const { violations, counts } = result.judgement;
    const text = violations.map(({ check, text, details }) =>
      [`${check}: ${text}`, ...details].join("\n  ")
    );
    if (violations.length > 0) {
      throw new Error([`seed ${seed}`, ...text, result.output].join("\n"));
    }
    assert(counts.ok > 0 && result.faults.size > 0, `seed ${seed}`);
  },
  { sanitizeOps: false, sanitizeResources: false },
);
