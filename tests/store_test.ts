/**
 * The store, one test for each promise; those that name a pitfall are of raft-pitfalls.
 *
 * @module
 */

import {
  assert,
  assertEquals,
  assertNotEquals,
  assertThrows,
} from "@std/assert";
import type {
  KeyRange,
  ModifyOperation,
  Operation,
  Request,
  WriteId,
} from "../batch.ts";
import { AssertionError, DkvError } from "../errors.ts";
import {
  type Applied,
  EMPTY_STATE,
  type Result,
  Store,
  type StoreLimits,
} from "../store.ts";
import { emptyStore, FakeRows, TEST_LIMITS } from "./fake_rows.ts";

const ALL: KeyRange = { start: "", end: null };
const LIST = {
  revision: 0,
  limit: 0,
  keysOnly: false,
  reverse: false,
  bytesMax: Infinity,
};

function bytes(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

function put(key: string, value = "v", lease = 0n): Request & Operation {
  return {
    type: "put",
    key,
    value: bytes(value),
    lease,
    returnPrevious: false,
  };
}

function del(key: string): Request & Operation {
  return {
    type: "delete",
    range: { start: key, end: key + "\0" },
    returnPrevious: false,
  };
}

function modify(
  key: string,
  operand: string,
  options: Partial<ModifyOperation> = {},
): ModifyOperation {
  return {
    type: "modify",
    key,
    function: "add",
    encoding: "decimal",
    operand: bytes(operand),
    lease: null,
    returnPrevious: false,
    ...options,
  };
}

function addUser(user: string, password: string): Request {
  return { type: "changeUsers", change: { type: "addUser", user, password } };
}

function transact(...then: Operation[]): Request {
  return { type: "transact", compares: [], then, else: [] };
}

/** Revisions count from 1 here: easier to follow. */
const START = { ...EMPTY_STATE, revision: 0 };

/** A store with its rows, fed one entry at a time. */
class Fed {
  readonly rows = new FakeRows();
  readonly limits: StoreLimits;
  store: Store;
  timeMs = 0;

  constructor(limits: Partial<StoreLimits> = {}) {
    this.limits = { ...TEST_LIMITS, ...limits };
    this.store = Store.load(this.rows, START, this.limits);
  }

  apply(...commands: (Request | [WriteId, Request])[]): Applied {
    return this.store.apply({
      index: this.store.appliedIndex + 1,
      term: 1,
      batch: {
        timeMs: this.timeMs,
        commands: commands.map((one, id) =>
          Array.isArray(one)
            ? { origin: 1, id, writeId: one[0], request: one[1] }
            : { origin: 1, id, writeId: null, request: one }
        ),
      },
    });
  }

  /** Applies one command. */
  do(command: Request | [WriteId, Request]): Result {
    return this.apply(command).results[0]!.result;
  }

  reload(): void {
    this.store = Store.load(this.rows, this.store.state, this.limits);
  }
}

/** "ok", or the code of the error. */
function outcome(result: Result): string {
  return result.type === "error" ? result.code : "ok";
}

function codeOf(read: () => unknown): string {
  try {
    read();
    return "ok";
  } catch (error) {
    assert(error instanceof DkvError, `${error}`);
    return error.code;
  }
}

function write(client: string, sequence: number, doneBelow = 0): WriteId {
  return { client, sequence, doneBelow };
}

Deno.test("store: revisions start at 1, one for each change; a delete of nothing takes none", () => {
  const fed = new Fed();
  assertEquals(fed.store.revision, 0);
  assertEquals(fed.do(put("a")), {
    type: "put",
    revision: 1,
    version: 1,
    previous: null,
  });
  assertEquals(fed.do(put("a")), {
    type: "put",
    revision: 2,
    version: 2,
    previous: null,
  });
  assertEquals(fed.do(del("b")), {
    type: "delete",
    revision: 2,
    deleted: 0,
    previous: [],
  });
  assertEquals(fed.do(del("a")), {
    type: "delete",
    revision: 3,
    deleted: 1,
    previous: [],
  });
  assertEquals(fed.do(put("a")), {
    type: "put",
    revision: 4,
    version: 1,
    previous: null,
  });
  assertEquals(fed.store.get("a", 0)!.createRevision, 4);
});

Deno.test("store: an empty one is at revision 1, as in etcd", () => {
  const { store } = emptyStore();
  assertEquals(store.revision, 1);
  const events = [put("a"), put("b")].flatMap((request, at) => {
    const command = { origin: 1, id: at, writeId: null, request };
    const batch = { timeMs: 0, commands: [command] };
    return store.apply({ index: at + 1, term: 1, batch }).events;
  });
  assertEquals(events.map(({ modRevision }) => modRevision), [2, 3]);
  assertEquals(
    store.list({ start: "", end: null }, {
      revision: 1,
      limit: 0,
      keysOnly: false,
      reverse: false,
      bytesMax: Infinity,
    }).entries,
    [],
  );
  for (const [fromRevision, found] of [[1, 2], [2, 2], [3, 1]] as const) {
    const page = store.history({
      fromRevision,
      fromPosition: 0,
      range: { start: "", end: null },
      withPrevious: false,
      noPuts: false,
      noDeletes: false,
      eventsMax: 10,
      bytesMax: Infinity,
      rowsMax: 10,
    });
    assertEquals(page.events.length, found, `from ${fromRevision}`);
  }
});

Deno.test("store: reads at a negative, future or compacted revision are refused, each with its code", () => {
  const fed = new Fed();
  fed.apply(put("a"), put("a"), put("a"), { type: "compact", revision: 2 });
  const expected: [number, string][] = [
    [-1, "REVISION_INVALID"],
    [0.5, "REVISION_INVALID"],
    [0, "ok"],
    [1, "REVISION_COMPACTED"],
    [2, "ok"],
    [3, "ok"],
    [4, "REVISION_FUTURE"],
  ];
  for (const [revision, code] of expected) {
    assertEquals(
      codeOf(() => fed.store.get("a", revision)),
      code,
      `get at ${revision}`,
    );
    assertEquals(
      codeOf(() => fed.store.count(ALL, revision)),
      code,
      `count at ${revision}`,
    );
    assertEquals(
      codeOf(() => fed.store.list(ALL, { ...LIST, revision })),
      code,
      `list at ${revision}`,
    );
  }
});

Deno.test("store: compaction is refused for revisions that are invalid, future or done", () => {
  const fed = new Fed();
  fed.apply(put("a"), put("a"), put("a"));
  const expected: [number, string][] = [
    [0, "REVISION_INVALID"],
    [-3, "REVISION_INVALID"],
    [4, "REVISION_FUTURE"],
    [2, "ok"],
    [2, "REVISION_COMPACTED"],
    [1, "REVISION_COMPACTED"],
    [3, "ok"],
  ];
  for (const [revision, code] of expected) {
    assertEquals(
      outcome(fed.do({ type: "compact", revision })),
      code,
      `compact ${revision}`,
    );
  }
});

Deno.test("store: a list of keys reads no values", () => {
  const fed = new Fed();
  fed.apply(put("a"), put("b"), put("a"));
  for (const revision of [0, 2]) {
    const { entries } = fed.store.list(ALL, {
      ...LIST,
      revision,
      keysOnly: true,
    });
    assertEquals(entries.map((entry) => entry.key), ["a", "b"]);
    assertEquals(entries[0]!.version, revision === 2 ? 1 : 2);
  }
  assertEquals(fed.rows.valuesRead, 0);
});

Deno.test("store: pages of a list keep to their bytes, and join up to the whole", () => {
  const fed = new Fed();
  for (let i = 0; i < 20; i++) {
    fed.do(put(`k${String(i).padStart(2, "0")}`, "x".repeat(i * 20)));
  }
  for (const reverse of [false, true]) {
    const keys: string[] = [];
    let range = ALL;
    for (let more = true; more;) {
      const page = fed.store.list(range, { ...LIST, reverse, bytesMax: 600 });
      const size = page.entries.reduce(
        (sum, one) => sum + one.key.length + one.value.length,
        0,
      );
      assert(page.entries.length > 0 && size <= 600, `page of ${size} bytes`);
      keys.push(...page.entries.map((entry) => entry.key));
      const last = keys.at(-1)!;
      range = reverse
        ? { start: "", end: last }
        : { start: last + "\0", end: null };
      more = page.more;
    }
    assertEquals(new Set(keys).size, 20);
    assertEquals(
      keys,
      keys.toSorted((a, b) => (a < b ? -1 : 1) * (reverse ? -1 : 1)),
    );
  }
  const page = fed.store.list(ALL, { ...LIST, reverse: true, bytesMax: 1 });
  assertEquals([page.entries.length, page.more], [1, true]);
});

Deno.test("store: a transaction that fails in its last operation has done nothing", () => {
  const fed = new Fed();
  fed.do(put("a", "old"));
  const before = fed.store.state;
  const result = fed.do({
    type: "transact",
    compares: [],
    then: [put("a", "new"), del("b"), put("c", "v", 99n)],
    else: [],
  });
  assertEquals(outcome(result), "LEASE_NOT_FOUND");
  assertEquals(fed.store.revision, before.revision);
  assertEquals(fed.store.get("a", 0)!.value, bytes("old"));
});

Deno.test("store: a key written twice in a transaction is refused, in either branch", () => {
  const fed = new Fed();
  const range: Operation = {
    type: "delete",
    range: { start: "a", end: null },
    returnPrevious: false,
  };
  const bad: Operation[][] = [
    [put("a"), put("b"), put("a")],
    [put("a"), del("a")],
    [range, put("b")],
    [modify("a", "1"), modify("a", "1")],
    [put("a"), modify("a", "1")],
    [modify("a", "1"), put("b"), del("a")],
    [range, modify("b", "1")],
  ];
  for (const operations of bad) {
    for (const branch of ["then", "else"] as const) {
      const request = {
        type: "transact",
        compares: [],
        then: [],
        else: [],
      } as const;
      const result = fed.do({ ...request, [branch]: operations });
      assertEquals(outcome(result), "DUPLICATE_KEY");
    }
  }
  const result = fed.do({
    type: "transact",
    compares: [],
    then: [range, del("b")],
    else: [],
  });
  assertEquals(outcome(result), "ok");
});

Deno.test("store: a modification makes a version of its own, and answers with it", () => {
  const fed = new Fed();
  const entry = {
    key: "n",
    value: bytes("1"),
    createRevision: 1,
    modRevision: 1,
    version: 1,
    lease: 0n,
  };
  const request = transact(modify("n", "1", { returnPrevious: true }));
  const { results, events } = fed.apply(request);
  const answer = { type: "transact", succeeded: true } as const;
  assertEquals(results[0]!.result, {
    ...answer,
    revision: 1,
    results: [{ type: "modify", entry, previous: null }],
  });
  assertEquals(events, [
    { ...entry, type: "put", previousPosition: 0, previous: null },
  ]);
  const second = { ...entry, value: bytes("2"), modRevision: 2, version: 2 };
  assertEquals(fed.do(request), {
    ...answer,
    revision: 2,
    results: [{ type: "modify", entry: second, previous: entry }],
  });
  // One that changes nothing is a write all the same.
  const third = fed.do(transact(modify("n", "2", { function: "max" })));
  assertEquals(third.type === "transact" && third.revision, 3);
  assertEquals(fed.store.get("n", 0)!.version, 3);
  fed.reload();
  assertEquals(fed.store.get("n", 1), entry);
  assertEquals(fed.store.get("n", 2), second);
});

Deno.test("store: a modification takes part in its transaction", () => {
  const fed = new Fed();
  fed.do(put("seats", "2"));
  const sell = (buyer: string): Request => ({
    type: "transact",
    compares: [{
      key: "seats",
      relation: "notEqual",
      target: { type: "value", value: bytes("0") },
    }],
    then: [
      modify("seats", "-1"),
      modify("buyers", `${buyer} `, { function: "append" }),
      { type: "get", key: "seats" },
    ],
    else: [{ type: "get", key: "buyers" }],
  });
  const values = ["ann", "ben", "cat"].map((buyer) => {
    const result = fed.do(sell(buyer));
    assert(result.type === "transact", outcome(result));
    return result.results.map((one) => {
      const entry = one.type === "modify" || one.type === "get"
        ? one.entry
        : null;
      return String.fromCharCode(...entry?.value ?? []);
    });
  });
  assertEquals(values, [
    ["1", "ann ", "1"],
    ["0", "ann ben ", "0"],
    ["ann ben "],
  ]);
  assertEquals(fed.store.revision, 3, "one revision for each that sold");
});

Deno.test("store: where a value is no number, or a sum too large, nothing of the transaction is done", () => {
  const fed = new Fed();
  fed.apply(put("text", "abc"), put("max", `${2n ** 63n - 1n}`));
  const { hash: _, ...before } = fed.store.state;
  const bad: [ModifyOperation, string][] = [
    [modify("text", "1"), "VALUE_INVALID"],
    [modify("max", "1"), "VALUE_INVALID"],
    [
      modify("text", "12345678", { encoding: "uint64le" }),
      "VALUE_INVALID",
    ],
  ];
  for (const [operation, code] of bad) {
    const result = fed.do(transact(put("a"), modify("n", "1"), operation));
    assertEquals(outcome(result), code);
  }
  const { hash: __, ...after } = fed.store.state;
  assertEquals({ ...after, appliedIndex: 0 }, { ...before, appliedIndex: 0 });
  // A branch that does not run is not judged.
  const asked = {
    type: "transact",
    compares: [{
      key: "text",
      relation: "equal",
      target: { type: "version", number: 0 },
    }],
    then: [modify("text", "1")],
    else: [],
  } as const;
  assertEquals(outcome(fed.do(asked)), "ok");
});

Deno.test("store: a modified key keeps its lease, gets another or loses it, as is said", () => {
  const fed = new Fed();
  for (const lease of [1n, 2n]) {
    fed.do({ type: "grant", lease, ttlMs: 1000 });
  }
  const keysOf = () => [fed.store.leaseKeys(1n), fed.store.leaseKeys(2n)];
  fed.do(transact(modify("n", "1")));
  assertEquals(keysOf(), [[], []]);
  fed.do(transact(modify("n", "1", { lease: 1n })));
  assertEquals(keysOf(), [["n"], []]);
  fed.do(transact(modify("n", "1")));
  assertEquals(keysOf(), [["n"], []]);
  assertEquals(fed.store.get("n", 0)!.lease, 1n);
  fed.do(transact(modify("n", "1", { lease: 2n })));
  assertEquals(keysOf(), [[], ["n"]]);
  fed.do(transact(modify("n", "1", { lease: 0n })));
  assertEquals(keysOf(), [[], []]);
  fed.do(transact(modify("n", "1", { lease: 1n })));
  fed.do({ type: "revoke", lease: 1n });
  assertEquals(fed.store.get("n", 0), null);
  // A key that comes back is new: it begins with the operand, and without a lease.
  fed.do(transact(modify("n", "7")));
  const entry = fed.store.get("n", 0)!;
  assertEquals([entry.value, entry.version, entry.lease], [bytes("7"), 1, 0n]);
});

Deno.test("store: a value grows to its bound, and what one transaction makes is bounded too", () => {
  const fed = new Fed({ valueBytesMax: 400, responseBytesMax: 1000 });
  const append = (key: string, count: number, previous = false) =>
    modify(key, "x".repeat(count), {
      function: "append",
      returnPrevious: previous,
    });
  assertEquals(outcome(fed.do(transact(append("a", 399)))), "ok");
  assertEquals(outcome(fed.do(transact(append("a", 2)))), "VALUE_TOO_LARGE");
  assertEquals(outcome(fed.do(transact(append("a", 1)))), "ok");
  assertEquals(fed.store.get("a", 0)!.value.length, 400);
  fed.apply(put("b", "x".repeat(399)), put("c", "x".repeat(399)));
  const two = [append("b", 1), append("c", 1)];
  assertEquals(
    outcome(fed.do(transact(...two, append("d", 201)))),
    "REQUEST_TOO_LARGE",
  );
  assertEquals(fed.store.get("b", 0)!.version, 1);
  // With what was replaced, two are too much already.
  assertEquals(
    outcome(fed.do(transact(append("b", 1, true), append("c", 1, true)))),
    "REQUEST_TOO_LARGE",
  );
  assertEquals(outcome(fed.do(transact(...two, append("d", 200)))), "ok");
});

Deno.test("store: what would answer with too much is refused before anything is done", () => {
  const fed = new Fed({ responseBytesMax: 1000 });
  for (const key of ["a", "b", "c"]) fed.do(put(key, "x".repeat(300)));
  const all = { type: "delete", range: ALL, returnPrevious: true } as const;
  assertEquals(outcome(fed.do(all)), "REQUEST_TOO_LARGE");
  const get = { type: "get", key: "a" } as const;
  const transact = { type: "transact", compares: [], else: [] } as const;
  assertEquals(
    outcome(fed.do({ ...transact, then: [put("d"), get, get, get] })),
    "REQUEST_TOO_LARGE",
  );
  assertEquals(fed.store.metrics.keys, 3);
  assertEquals(
    outcome(fed.do({ ...transact, then: [put("d"), get, get] })),
    "ok",
  );
  assertEquals(outcome(fed.do({ ...all, returnPrevious: false })), "ok");
  assertEquals(fed.store.metrics.keys, 0);
});

Deno.test("store: bad input becomes an error result, never an exception", () => {
  const fed = new Fed();
  const bad: [Request, string][] = [
    [put(""), "KEY_EMPTY"],
    [put("a", "v", 5n), "LEASE_NOT_FOUND"],
    [{ type: "revoke", lease: 0n }, "LEASE_NOT_FOUND"],
    [{ type: "keepAlive", lease: -1n }, "LEASE_NOT_FOUND"],
    [{ type: "grant", lease: 1n, ttlMs: 0 }, "LEASE_INVALID"],
    [{ type: "grant", lease: 1n, ttlMs: -5 }, "LEASE_INVALID"],
    [
      { type: "grant", lease: 1n, ttlMs: Number.MAX_SAFE_INTEGER + 1 },
      "LEASE_INVALID",
    ],
    [{ type: "grant", lease: -1n, ttlMs: 5 }, "LEASE_INVALID"],
    [{ type: "compact", revision: NaN }, "REVISION_INVALID"],
    [{ type: "identify", clusterId: "" }, "IDENTITY_MISMATCH"],
    [
      { type: "delete", range: { start: "b", end: "a" }, returnPrevious: true },
      "ok",
    ],
    [
      {
        type: "transact",
        compares: [],
        then: [{
          type: "list",
          range: ALL,
          limit: -1,
          keysOnly: false,
          reverse: true,
        }],
        else: [],
      },
      "ok",
    ],
  ];
  const modifications: [Partial<ModifyOperation>, string][] = [
    [{ key: "" }, "KEY_EMPTY"],
    [{ operand: bytes("one") }, "MALFORMED"],
    [{ operand: new Uint8Array(1 << 21) }, "MALFORMED"],
    [{ encoding: "uint64le" }, "MALFORMED"],
    [{ lease: 5n }, "LEASE_NOT_FOUND"],
    [{ lease: -1n }, "LEASE_NOT_FOUND"],
    [
      { function: "append", operand: new Uint8Array((1 << 20) + 1) },
      "VALUE_TOO_LARGE",
    ],
  ];
  for (const [part, code] of modifications) {
    bad.push([transact(modify("a", "1", part)), code]);
  }
  for (const [request, code] of bad) {
    assertEquals(outcome(fed.do(request)), code);
  }
  const ids = [write("", 1), write("c", 0), write("c", NaN), write("c", 1, -1)];
  for (const id of ids) {
    assertEquals(outcome(fed.do([id, put("a")])), "MALFORMED");
  }
  assertEquals(fed.store.revision, 0);
});

Deno.test("store: the cluster's identity is set once and survives a reload", () => {
  const fed = new Fed();
  assertEquals(outcome(fed.do({ type: "identify", clusterId: "one" })), "ok");
  fed.reload();
  assertEquals(outcome(fed.do({ type: "identify", clusterId: "one" })), "ok");
  assertEquals(
    outcome(fed.do({ type: "identify", clusterId: "two" })),
    "IDENTITY_MISMATCH",
  );
  assertEquals(fed.store.state.clusterId, "one");
});

Deno.test("store: users have a revision of their own, which survives a reload with them", () => {
  const fed = new Fed();
  fed.do(put("a"));
  assertEquals(fed.store.users.revision, 1);
  const { revision } = fed.store;
  assertEquals(outcome(fed.do(addUser("u", "hash"))), "ok");
  assertEquals(outcome(fed.do(addUser("u", "hash"))), "USER_EXISTS");
  const change = { type: "grantRole", user: "u", role: "root" } as const;
  assertEquals(outcome(fed.do({ type: "changeUsers", change })), "ok");
  for (let reloads = 0; reloads < 2; reloads++) {
    assertEquals(fed.store.revision, revision);
    assertEquals(fed.store.users.revision, 3);
    assertEquals(fed.store.users.userNames(), ["u"]);
    assertEquals(fed.store.users.rolesOf("u"), ["root"]);
    fed.reload();
  }
});

Deno.test("store: every kind of change changes the hash, and so does its content", () => {
  const base: Request[] = [
    { type: "grant", lease: 1n, ttlMs: 100 },
    put("a", "abcde"),
    put("a"),
  ];
  const last: (Request | null)[] = [
    null,
    put("b", "abcde"),
    put("b", "abcdf"),
    put("b", "abcdX"),
    put("b", ""),
    put("c", "abcde"),
    put("b", "abcde", 1n),
    transact(modify("n", "1")),
    transact(modify("n", "2")),
    transact(modify("n", "2", { lease: 1n })),
    del("a"),
    { type: "grant", lease: 2n, ttlMs: 100 },
    { type: "grant", lease: 2n, ttlMs: 101 },
    { type: "grant", lease: 2n ** 40n, ttlMs: 100 },
    { type: "keepAlive", lease: 1n },
    { type: "revoke", lease: 1n },
    { type: "compact", revision: 1 },
    { type: "compact", revision: 2 },
    { type: "identify", clusterId: "x" },
    { type: "changeUsers", change: { type: "addRole", role: "x" } },
    addUser("x", ""),
    addUser("y", ""),
    addUser("x", "hash"),
  ];
  const hashes = last.map((request) => {
    const fed = new Fed();
    fed.apply(...base, ...(request === null ? [] : [request]));
    assert(
      Number.isSafeInteger(fed.store.state.hash),
      `hash ${fed.store.state.hash}`,
    );
    return fed.store.state.hash;
  });
  assertEquals(new Set(hashes).size, last.length);
  const withId = new Fed();
  withId.apply(...base, [write("c", 1), put("b", "abcde")]);
  assert(
    !hashes.includes(withId.store.state.hash),
    "a session changes the hash",
  );
});

Deno.test("store: leases run out by log time alone, in the order of their deadlines", () => {
  const fed = new Fed();
  fed.apply(
    { type: "grant", lease: 5n, ttlMs: 20 },
    { type: "grant", lease: 3n, ttlMs: 10 },
    { type: "grant", lease: 4n, ttlMs: 10 },
    put("e", "v", 5n),
    put("d2", "v", 4n),
    put("d1", "v", 4n),
    put("c", "v", 3n),
  );
  fed.timeMs = 9;
  assertEquals(fed.apply().events, []);
  assertEquals([fed.store.dueLeases(9), fed.store.dueLeases(10)], [
    false,
    true,
  ]);
  fed.timeMs = 25;
  fed.reload();
  const { events } = fed.apply(put("z"));
  assertEquals(
    events.map((event) => [event.type, event.key, event.modRevision]),
    [
      ["delete", "c", 5],
      ["delete", "d1", 6],
      ["delete", "d2", 6],
      ["delete", "e", 7],
      ["put", "z", 8],
    ],
  );
  assertEquals(fed.store.metrics.leases, 0);
  fed.timeMs = 3;
  fed.apply();
  assertEquals(fed.store.state.timeMs, 25, "log time went back");
});

Deno.test("store: no more than 500 leases run out with one entry, the rest with the next", () => {
  const fed = new Fed();
  for (let i = 1n; i <= 800n; i++) {
    fed.do({ type: "grant", lease: i, ttlMs: 10 });
    fed.do(put(`k${i}`, "v", i));
  }
  fed.timeMs = 10;
  assertEquals(fed.apply().events.length, 500);
  assertEquals(fed.apply().events.length, 300);
});

Deno.test("store: keys leave a lease when they are put with another one or deleted", () => {
  const fed = new Fed();
  fed.apply({ type: "grant", lease: 1n, ttlMs: 10 }, {
    type: "grant",
    lease: 2n,
    ttlMs: 10,
  });
  fed.apply(
    put("a", "v", 1n),
    put("b", "v", 1n),
    put("c", "v", 1n),
    put("d", "v", 1n),
  );
  fed.apply(put("a", "v", 2n), put("b"), del("c"));
  fed.reload();
  assertEquals([fed.store.leaseKeys(1n), fed.store.leaseKeys(2n)], [["d"], [
    "a",
  ]]);
  assertEquals(fed.do({ type: "revoke", lease: 1n }), {
    type: "revoked",
    revision: 8,
    deleted: 1,
  });
  assertEquals(fed.store.list(ALL, LIST).entries.map((entry) => entry.key), [
    "a",
    "b",
  ]);
});

Deno.test("store: lease ids that it chooses are positive, different and the same on all replicas", () => {
  const grant: Request = { type: "grant", lease: 0n, ttlMs: 10 };
  const ids = [new Fed(), new Fed()].map((fed) =>
    Array.from({ length: 100 }, () => fed.apply(grant, grant, grant).results)
      .flat().map(({ result }) => result.type === "lease" ? result.lease : 0n)
  );
  assertEquals(ids[0], ids[1]);
  assertEquals(new Set(ids[0]).size, 300);
  for (const id of ids[0]!) assert(id > 0n && id < 2n ** 63n, `lease ${id}`);
});

Deno.test("store: leases are bounded", () => {
  const fed = new Fed({ leasesMax: 2 });
  const codes = [1n, 2n, 3n].map((lease) =>
    outcome(fed.do({ type: "grant", lease, ttlMs: 9 }))
  );
  assertEquals(codes, ["ok", "ok", "OVERLOADED"]);
});

Deno.test("store: a repeated write is answered with its first result and applied once", () => {
  const fed = new Fed();
  const requests: Request[] = [
    put("a", "first"),
    {
      type: "put",
      key: "a",
      value: bytes("x"),
      lease: 0n,
      returnPrevious: true,
    },
    { type: "delete", range: ALL, returnPrevious: true },
    {
      type: "transact",
      compares: [],
      then: [
        put("t"),
        { type: "get", key: "t" },
        { type: "list", range: ALL, limit: 1, keysOnly: true, reverse: false },
        del("q"),
      ],
      else: [],
    },
    transact(
      modify("n", "41"),
      modify("a", "+", { function: "append", returnPrevious: true }),
    ),
    transact(modify("n", "1", { returnPrevious: true })),
    { type: "grant", lease: 0n, ttlMs: 1000 },
    { type: "revoke", lease: 77n },
    { type: "compact", revision: 2 },
  ];
  fed.do({ type: "grant", lease: 77n, ttlMs: 1000 });
  const first = requests.map((request, i) =>
    fed.do([write("c", i + 1), request])
  );
  assert(
    first.every((result) => result.type !== "error"),
    JSON.stringify(first.map(outcome)),
  );
  const revision = fed.store.revision;
  const again = requests.map((request, i) =>
    fed.do([write("c", i + 1), request])
  );
  fed.reload();
  const reloaded = requests.map((request, i) =>
    fed.do([write("c", i + 1), request])
  );
  assertEquals(again, first);
  assertEquals(reloaded, first);
  assertEquals(fed.store.revision, revision);
});

Deno.test("store: a repetition within one entry is recognised as well", () => {
  const fed = new Fed();
  const { results } = fed.apply([write("c", 1), put("a")], [
    write("c", 1),
    put("a"),
  ]);
  assertEquals(results[0]!.result, results[1]!.result);
  assertEquals(fed.store.revision, 1);
});

Deno.test("store: the same sequence of another client is another write", () => {
  const fed = new Fed();
  fed.apply([write("c", 1), put("a")], [write("d", 1), put("a")]);
  assertEquals(fed.store.revision, 2);
});

Deno.test("store: a sequence that the client was answered for is stale, not applied again", () => {
  const fed = new Fed();
  fed.do([write("c", 1), put("a")]);
  fed.do([write("c", 3, 3), put("a")]);
  for (const reload of [false, true]) {
    if (reload) fed.reload();
    assertEquals(outcome(fed.do([write("c", 1), put("a")])), "SEQUENCE_STALE");
    assertEquals(outcome(fed.do([write("c", 2), put("a")])), "SEQUENCE_STALE");
  }
  assertEquals(fed.store.revision, 2);
});

Deno.test("store: what changed nothing is remembered too: a late copy takes no effect", () => {
  const fed = new Fed();
  const refused = [write("c", 1), put("a", "v", 9n)] as const;
  const nothing = [write("c", 2), {
    type: "delete",
    range: { start: "a", end: "b" },
    returnPrevious: false,
  }] as const;
  assertEquals(outcome(fed.do([...refused])), "LEASE_NOT_FOUND");
  const first = fed.do([...nothing]);
  fed.do({ type: "grant", lease: 9n, ttlMs: 1000 });
  fed.do(put("a"));
  for (const reload of [false, true]) {
    if (reload) fed.reload();
    assertEquals(outcome(fed.do([...refused])), "LEASE_NOT_FOUND");
    assertEquals(fed.do([...nothing]), first);
    assertEquals(fed.store.revision, 1);
  }
});

Deno.test("store: a big result is remembered without its entries", () => {
  const fed = new Fed();
  fed.do(put("a", "x".repeat(2000)));
  const request = { type: "delete", range: ALL, returnPrevious: true } as const;
  const first = fed.do([write("c", 1), request]);
  assert(
    first.type === "delete" && first.previous.length === 1,
    "first answer has the entry",
  );
  const again = fed.do([write("c", 1), request]);
  assertEquals(again, {
    type: "delete",
    revision: 2,
    deleted: 1,
    previous: [],
  });
});

Deno.test("store: results of one client are bounded until it says what it has seen", () => {
  const fed = new Fed({ sessionResultsMax: 2 });
  assertEquals(outcome(fed.do([write("c", 1), put("a")])), "ok");
  assertEquals(outcome(fed.do([write("c", 2), put("a")])), "ok");
  assertEquals(outcome(fed.do([write("c", 3), put("a")])), "OVERLOADED");
  assertEquals(
    outcome(fed.do([write("c", 2), put("a")])),
    "ok",
    "repetitions are answered",
  );
  assertEquals(outcome(fed.do([write("c", 3, 2), put("a")])), "ok");
  assertEquals(fed.store.revision, 3);
});

for (const reloads of [false, true]) {
  const name = reloads ? ", through restarts" : "";
  Deno.test(`store: a new client is refused until another was silent long enough${name}`, () => {
    const fed = new Fed({ sessionsMax: 2, sessionTtlMs: 100 });
    fed.do([write("a", 1), put("k")]);
    fed.timeMs = 50;
    fed.do([write("b", 1), put("k")]);
    if (reloads) fed.reload();
    assertEquals(outcome(fed.do([write("c", 1), put("k")])), "OVERLOADED");
    fed.do([write("a", 2), put("k")]);
    fed.timeMs = 149;
    assertEquals(outcome(fed.do([write("c", 1), put("k")])), "OVERLOADED");
    fed.do([write("a", 3), put("k")]);
    fed.timeMs = 150;
    if (reloads) fed.reload();
    fed.apply();
    assertEquals(
      fed.store.metrics.sessions,
      1,
      "b was silent for 100 ms, a was not",
    );
    assertEquals(outcome(fed.do([write("c", 1), put("k")])), "ok");
    assertEquals(fed.rows.sessions().map((row) => row.client).sort(), [
      "a",
      "c",
    ]);
  });
}

Deno.test("store F10: a tombstone at the compact revision stays for watchers, one below goes", () => {
  const fed = new Fed();
  fed.apply(put("a"), put("b"), del("a"), del("b"), put("c"));
  fed.do({ type: "compact", revision: 4 });
  while (fed.store.compactSlice(1)) fed.reload();
  const history = (fromRevision: number) =>
    fed.store.history({
      fromRevision,
      fromPosition: 0,
      range: ALL,
      withPrevious: true,
      noPuts: false,
      noDeletes: false,
      eventsMax: 100,
      bytesMax: Infinity,
      rowsMax: 100,
    }).events.map((event) => [event.type, event.key, event.modRevision]);
  assertEquals(history(4), [["delete", "b", 4], ["put", "c", 5]]);
  assertEquals(fed.rows.size, 2);
  fed.do({ type: "compact", revision: 5 });
  while (fed.store.compactSlice(1)) fed.reload();
  assertEquals(history(5), [["put", "c", 5]]);
  assertEquals(fed.rows.size, 1);
  assertEquals(fed.store.revision, 5, "the revision never goes down");
});

Deno.test("store F11: an entry does the same whether or not compacted rows were removed", () => {
  const [removed, kept] = [new Fed(), new Fed()];
  for (const fed of [removed, kept]) {
    fed.apply(put("a"), del("a"), put("b"), put("b"), put("c"));
    fed.do({ type: "compact", revision: 5 });
  }
  while (removed.store.compactSlice(10));
  assertNotEquals(removed.rows.size, kept.rows.size);
  const request: Request = {
    type: "transact",
    compares: [{
      key: "a",
      relation: "equal",
      target: { type: "version", number: 0 },
    }],
    then: [
      {
        type: "put",
        key: "a",
        value: bytes("n"),
        lease: 0n,
        returnPrevious: true,
      },
      { type: "list", range: ALL, limit: 0, keysOnly: false, reverse: false },
    ],
    else: [],
  };
  assertEquals(removed.do(request), kept.do(request));
  assertEquals(removed.store.state.hash, kept.store.state.hash);
});

Deno.test("store F12: an error of the disk inside apply is fatal, never an answer", () => {
  const fed = new Fed();
  fed.rows.failure = new DkvError("DISK_FULL", "no space");
  assertThrows(() => fed.do(put("a")), DkvError, "no space");
  assertThrows(
    () =>
      fed.do({ type: "transact", compares: [], then: [put("a")], else: [] }),
    DkvError,
  );
});

Deno.test("store: an entry out of order is a defect", () => {
  const { store } = new Fed();
  for (const index of [0, 2]) {
    assertThrows(
      () => store.apply({ index, term: 1, batch: null }),
      AssertionError,
    );
  }
});
