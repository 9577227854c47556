/** What clients should not send: each has a stable code and a message, and disturbs nobody else. */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { Buffer } from "node:buffer";
import { LIMITS, SETTINGS } from "../config.ts";
import type { ErrorCode } from "../errors.ts";
import { bytes } from "./load.ts";
import { assertRefused, type Duplex, refused, Rpc } from "./rpc.ts";
import { clusterSteps, type Steps } from "./steps.ts";

/** Method, request, code, and what the message must name: the limit and the value. */
type Case = readonly [
  method: string,
  request: object,
  code: ErrorCode,
  says?: readonly (string | number)[],
];

const { keyBytesMax, valueBytesMax, transactionOperationsMax } = LIMITS;
const REQUEST_BYTES_MAX = SETTINGS.requestBytesMax.default;
/** 2^60: a 64-bit number that no JavaScript number stands for safely. */
const INEXACT = "1152921504606846976";

const key = bytes("bad/key");
const value = bytes("value");
const noKey = new Uint8Array();
const longKey = new Uint8Array(keyBytesMax + 1).fill(97);
const longValue = new Uint8Array(valueBytesMax + 1);

function then(...operations: object[]): object {
  return { then: operations };
}

function range(start: string, end: string): object {
  return { start: bytes(start), end: bytes(end) };
}

const KEYS_AND_VALUES: readonly Case[] = [
  ["Put", { key: noKey, value }, "KEY_EMPTY"],
  ["Put", { key: longKey, value }, "KEY_TOO_LARGE", [
    keyBytesMax,
    keyBytesMax + 1,
  ]],
  ["Put", { key, value: longValue }, "VALUE_TOO_LARGE", [
    valueBytesMax,
    valueBytesMax + 1,
  ]],
  ["Get", { key: noKey }, "KEY_EMPTY"],
  ["Get", { key: longKey }, "KEY_TOO_LARGE", [keyBytesMax, keyBytesMax + 1]],
  ["Delete", { key: noKey }, "KEY_EMPTY"],
  ["Delete", {}, "MALFORMED", ["key", "range"]],
  ["Delete", { range: range("b", "a") }, "RANGE_INVERTED", ['"b"', '"a"']],
  ["Delete", { range: range("a", "a") }, "RANGE_INVERTED", ['"a"']],
  [
    "Delete",
    {
      range: { start: new Uint8Array(keyBytesMax + 2), end: noKey },
    },
    "KEY_TOO_LARGE",
    [keyBytesMax, keyBytesMax + 2],
  ],
];

const REVISIONS: readonly Case[] = [
  ["Get", { key, revision: 999_999_999 }, "REVISION_FUTURE", [999_999_999]],
  ["Get", { key, revision: -1 }, "REVISION_INVALID", [-1]],
  ["Get", { key, revision: INEXACT }, "REVISION_INVALID", [INEXACT]],
  ["Get", { key, revision: 1 }, "REVISION_COMPACTED", [1]],
  ["Compact", { revision: 0 }, "REVISION_INVALID", [0]],
  ["Compact", { revision: -3 }, "REVISION_INVALID", [-3]],
  ["Compact", { revision: INEXACT }, "REVISION_INVALID", [INEXACT]],
  ["Compact", { revision: 999_999_999 }, "REVISION_FUTURE", [999_999_999]],
  ["Compact", { revision: 1 }, "REVISION_COMPACTED", [1]],
];

const LEASES: readonly Case[] = [
  ["Put", { key, value, lease: 424_242 }, "LEASE_NOT_FOUND", [424_242]],
  ["Put", { key, value, lease: -1 }, "LEASE_INVALID", [-1]],
  ["Grant", { ttlMs: LIMITS.leaseTtlMsMin - 1 }, "LEASE_INVALID", [
    LIMITS.leaseTtlMsMin,
    LIMITS.leaseTtlMsMin - 1,
  ]],
  ["Grant", { ttlMs: LIMITS.leaseTtlMsMax + 1 }, "LEASE_INVALID", [
    LIMITS.leaseTtlMsMax,
    LIMITS.leaseTtlMsMax + 1,
  ]],
  ["Grant", {}, "LEASE_INVALID", [0]],
  ["Grant", { ttlMs: INEXACT }, "MALFORMED", [INEXACT]],
  ["Grant", { ttlMs: 5000, lease: -7 }, "LEASE_INVALID", [-7]],
  ["Revoke", { lease: 424_242 }, "LEASE_NOT_FOUND", [424_242]],
  ["Revoke", {}, "LEASE_INVALID", [0]],
  ["TimeToLive", { lease: 424_242 }, "LEASE_NOT_FOUND", [424_242]],
  ["TimeToLive", { lease: -1 }, "LEASE_INVALID", [-1]],
];

const MANY = Array.from({ length: transactionOperationsMax + 1 }, (_, at) => ({
  put: { key: bytes(`bad/many/${at}`), value },
}));
const COMPARES = MANY.map(({ put }) => ({ key: put.key, version: 0 }));

const TRANSACTIONS: readonly Case[] = [
  ["Transact", then(...MANY), "TOO_MANY_OPERATIONS", [
    "then",
    transactionOperationsMax,
    transactionOperationsMax + 1,
  ]],
  ["Transact", { else: MANY }, "TOO_MANY_OPERATIONS", ["else"]],
  ["Transact", { compares: COMPARES }, "TOO_MANY_OPERATIONS", ["compares"]],
  [
    "Transact",
    then({ put: { key, value } }, { put: { key, value } }),
    "DUPLICATE_KEY",
    ['"bad/key"'],
  ],
  [
    "Transact",
    then({ put: { key, value } }, { delete: { range: range("bad/", "bad0") } }),
    "DUPLICATE_KEY",
    ['"bad/key"'],
  ],
  [
    "Transact",
    { else: [{ delete: { key } }, { put: { key, value } }] },
    "DUPLICATE_KEY",
    ['"bad/key"'],
  ],
  ["Transact", then({}), "MALFORMED", ["empty"]],
  ["Transact", then({ delete: {} }), "MALFORMED", ["key", "range"]],
  ["Transact", then({ put: { key: noKey, value } }), "KEY_EMPTY"],
  ["Transact", then({ get: { key: longKey } }), "KEY_TOO_LARGE"],
  ["Transact", then({ get: { key, revision: 1 } }), "MALFORMED", ["revision"]],
  ["Transact", then({ list: { serializable: true } }), "MALFORMED", [
    "serializable",
  ]],
  ["Transact", then({ list: { range: range("b", "a") } }), "RANGE_INVERTED"],
  ["Transact", then({ list: { limit: -5 } }), "MALFORMED", ["limit", -5]],
  ["Transact", { compares: [{ key }] }, "MALFORMED", ["compare"]],
  ["Transact", { compares: [{ key: noKey, version: 1 }] }, "KEY_EMPTY"],
  [
    "Transact",
    { compares: [{ key, relation: 9, version: 1 }] },
    "MALFORMED",
    [9],
  ],
  [
    "Transact",
    { compares: [{ key, modRevision: INEXACT }] },
    "REVISION_INVALID",
    [INEXACT],
  ],
  [
    "Transact",
    then({ put: { key, value, writeId: { client: key, sequence: 1 } } }),
    "MALFORMED",
    ["write_id"],
  ],
];

const client = bytes("c");
const WRITE_IDS: readonly Case[] = [
  ["Put", { key, value, writeId: {} }, "MALFORMED", [0, 32]],
  [
    "Put",
    { key, value, writeId: { client: new Uint8Array(33), sequence: 1 } },
    "MALFORMED",
    [33, 32],
  ],
  ["Put", { key, value, writeId: { client } }, "MALFORMED", ["sequence 0"]],
  ["Put", { key, value, writeId: { client, sequence: -1 } }, "MALFORMED", [-1]],
  ["Put", { key, value, writeId: { client, sequence: INEXACT } }, "MALFORMED", [
    INEXACT,
  ]],
  [
    "Delete",
    { key, writeId: { client, sequence: 1, doneBelow: 2 } },
    "MALFORMED",
    [2],
  ],
];

/** A field of a kind that does not exist. */
const GARBAGE = Buffer.from([0x7f, 1, 2]);
const UNARY = [
  "KeyValue.Put",
  "KeyValue.Get",
  "KeyValue.Delete",
  "KeyValue.Transact",
  "KeyValue.Grant",
  "KeyValue.Revoke",
  "KeyValue.TimeToLive",
  "KeyValue.Compact",
  "Cluster.TransferLeadership",
];

interface StreamError {
  readonly code: string;
  readonly message: string;
}

interface WatchAnswer {
  readonly watchId: string;
  readonly created?: object;
  readonly cancelled?: { readonly error: StreamError | null };
}

interface PipelineAnswer {
  readonly results: { readonly id: string; readonly error?: StreamError }[];
}

function pipeline(rpc: Rpc): Duplex<PipelineAnswer> {
  return rpc.duplex<PipelineAnswer>("KeyValue.Pipeline");
}

async function pipelineResults(
  stream: Duplex<PipelineAnswer>,
  count: number,
): Promise<Map<string, StreamError | undefined>> {
  const results = new Map<string, StreamError | undefined>();
  let answered = 0;
  while (answered < count) {
    const answer = await stream.expect(30_000);
    answered += answer.results.length;
    for (const { id, error } of answer.results) results.set(id, error);
  }
  assertEquals(results.size, count, "every operation is answered once");
  return results;
}

async function runCases(
  rpcs: readonly Rpc[],
  cases: readonly Case[],
): Promise<void> {
  for (const [at, [method, request, code, says]] of cases.entries()) {
    const call = rpcs[at % rpcs.length]!.call(`KeyValue.${method}`, request);
    await assertRefused(call, { code, ...says ? { says } : {} });
  }
}

const TABLES: Steps = {
  "history is compacted": async ({ rpcs: [rpc] }) => {
    for (let at = 0; at < 3; at++) {
      await rpc.call("KeyValue.Put", { key, value });
    }
    const { header } = await rpc.call<{ header: { revision: string } }>(
      "KeyValue.Get",
      { key },
    );
    await rpc.call("KeyValue.Compact", { revision: header.revision });
  },
  "keys, values and ranges": ({ rpcs }) => runCases(rpcs, KEYS_AND_VALUES),
  "revisions": ({ rpcs }) => runCases(rpcs, REVISIONS),
  "leases": ({ rpcs }) => runCases(rpcs, LEASES),
  "transactions": ({ rpcs }) => runCases(rpcs, TRANSACTIONS),
  "write ids": ({ rpcs }) => runCases(rpcs, WRITE_IDS),

  "the largest that is allowed is accepted": async ({ rpcs: [rpc] }) => {
    const longest = longKey.subarray(1);
    await rpc.call("KeyValue.Put", {
      key: longest,
      value: longValue.subarray(1),
    });
    await rpc.call("KeyValue.Delete", { key: longest });
    await rpc.call("KeyValue.Transact", {
      then: MANY.slice(1),
      else: MANY.slice(1),
      compares: COMPARES.slice(1),
    });
  },

  "lists": async ({ rpcs: [rpc] }) => {
    const cases: [object, ErrorCode, (string | number)[]][] = [
      [{ range: range("b", "a") }, "RANGE_INVERTED", ['"b"', '"a"']],
      [{ revision: 999_999_999 }, "REVISION_FUTURE", [999_999_999]],
      [{ revision: 1 }, "REVISION_COMPACTED", [1]],
      [{ revision: -1 }, "REVISION_INVALID", [-1]],
      [{ revision: INEXACT }, "REVISION_INVALID", [INEXACT]],
      [{ limit: -1 }, "MALFORMED", ["limit", -1]],
      [{ limit: INEXACT }, "MALFORMED", ["limit", INEXACT]],
      [GARBAGE, "MALFORMED", ["List"]],
    ];
    for (const [request, code, says] of cases) {
      const stream = rpc.list("KeyValue.List", request);
      await assertRefused(stream.all(), { code, says });
    }
  },

  "bytes that are no message": async ({ rpcs }) => {
    for (const [at, method] of UNARY.entries()) {
      const [, name = ""] = method.split(".");
      await assertRefused(rpcs[at % rpcs.length]!.call(method, GARBAGE), {
        code: "MALFORMED",
        says: [name],
      });
    }
    for (const method of ["KeyValue.Watch", "KeyValue.Pipeline"]) {
      const stream = rpcs[0].duplex(method);
      stream.send(GARBAGE);
      await assertRefused(stream.all(), { code: "MALFORMED" });
    }
    const renewals = rpcs[0].duplex<{ error: StreamError }>(
      "KeyValue.KeepAlive",
    );
    renewals.send(GARBAGE);
    assertEquals((await renewals.expect()).error.code, "MALFORMED");
    renewals.cancel();
  },

  "messages that are too large": async ({ rpcs: [rpc] }) => {
    const bytesOf = (length: number) => {
      // Field 15, which Put does not have, so that nothing but the size is wrong.
      const message = Buffer.alloc(length);
      message[0] = 15 << 3 | 2;
      const rest = length - 5;
      for (let i = 0; i < 4; i++) {
        message[i + 1] = rest >> (7 * i) & 0x7f | (i < 3 ? 0x80 : 0);
      }
      return message;
    };
    for (const length of [REQUEST_BYTES_MAX + 1, 15 << 20, 20 << 20]) {
      const refusal = await refused(
        rpc.call("KeyValue.Put", bytesOf(length), { timeoutMs: 20_000 }),
      );
      assertEquals(refusal.code, "REQUEST_TOO_LARGE", refusal.message);
      assertEquals(refusal.status, 3);
      assertStringIncludes(refusal.message, String(length));
    }
    for (const method of ["KeyValue.Watch", "KeyValue.Pipeline"]) {
      const stream = rpc.duplex(method);
      stream.send(bytesOf(20 << 20));
      await assertRefused(stream.all(), { code: "REQUEST_TOO_LARGE" });
    }
    // At the limit it is a message like any other.
    await assertRefused(rpc.call("KeyValue.Put", bytesOf(REQUEST_BYTES_MAX)), {
      code: "KEY_EMPTY",
    });
  },
};

const STREAMS: Steps = {
  "watches": async ({ rpcs: [rpc] }) => {
    const stream = rpc.duplex<WatchAnswer>("KeyValue.Watch");
    const cases: [object, ErrorCode, (string | number)[]][] = [
      [{ key: noKey }, "KEY_EMPTY", []],
      [{}, "MALFORMED", ["key", "range"]],
      [{ range: range("b", "a") }, "RANGE_INVERTED", ['"b"']],
      [{ key, fromRevision: -1 }, "REVISION_INVALID", [-1]],
      [{ key, fromRevision: INEXACT }, "REVISION_INVALID", [INEXACT]],
      [{ key, fromRevision: 1 }, "REVISION_COMPACTED", [1]],
    ];
    for (const [at, [create, code, says]] of cases.entries()) {
      stream.send({ create: { watchId: at, ...create } });
      let answer = await stream.expect();
      if (answer.created) answer = await stream.expect();
      assertEquals(answer.watchId, String(at));
      assertEquals(answer.cancelled?.error?.code, code);
      for (const part of says) {
        assertStringIncludes(
          answer.cancelled?.error?.message ?? "",
          String(part),
        );
      }
    }
    // An id that is in use, and one that is not known: the good watch goes on.
    for (let at = 0; at < 2; at++) {
      stream.send({ create: { watchId: 50, key } });
    }
    // The first is opened when the leader has been asked, the second refused at once.
    const both = [await stream.expect(), await stream.expect()];
    assert(both.some(({ created }) => created));
    const twice = both.find(({ cancelled }) => cancelled);
    assertEquals(twice?.cancelled?.error?.code, "MALFORMED");
    assertStringIncludes(twice?.cancelled?.error?.message ?? "", "50");
    stream.send({ cancel: { watchId: 51 } });
    await rpc.call("KeyValue.Put", { key, value });
    assertEquals((await stream.expect()).watchId, "50");
    // A request that asks for nothing.
    stream.send({});
    await assertRefused(stream.all(), { code: "MALFORMED", says: ["empty"] });
  },

  "too many watches": async ({ rpcs: [rpc] }) => {
    const max = LIMITS.watchersPerStreamMax;
    const stream = rpc.duplex<WatchAnswer>("KeyValue.Watch");
    for (let at = 0; at <= max; at++) {
      stream.send({ create: { watchId: at, key: bytes(`bad/watch/${at}`) } });
    }
    const answers: WatchAnswer[] = [];
    for (let at = 0; at <= max; at++) answers.push(await stream.expect());
    assertEquals(answers.filter(({ created }) => created).length, max);
    const refused = answers.find(({ cancelled }) => cancelled);
    assertEquals(refused?.watchId, String(max));
    assertEquals(refused?.cancelled?.error?.code, "OVERLOADED");
    assertStringIncludes(refused?.cancelled?.error?.message ?? "", String(max));
    stream.cancel();
  },

  "operations of a pipeline": async ({ rpcs: [rpc] }) => {
    const stream = pipeline(rpc);
    const put = { key, value };
    const cases: [object, ErrorCode, string][] = [
      [{}, "MALFORMED", "empty"],
      [{ put: { key: longKey, value } }, "KEY_TOO_LARGE", `${keyBytesMax + 1}`],
      [{ put, sequence: -4 }, "MALFORMED", "-4"],
      [{ put, sequence: INEXACT }, "MALFORMED", INEXACT],
      [{ put, timeoutMs: -1 }, "DEADLINE_EXCEEDED", "deadline"],
      [{ put, timeoutMs: INEXACT }, "MALFORMED", INEXACT],
      [{ get: { key, revision: -1 } }, "REVISION_INVALID", "-1"],
      [{ delete: {} }, "MALFORMED", "range"],
      [
        { put: { ...put, writeId: { client, sequence: 1 } } },
        "MALFORMED",
        "write_id",
      ],
      [{ transact: then({}) }, "MALFORMED", "empty"],
      [{ transact: then(...MANY) }, "TOO_MANY_OPERATIONS", "129"],
    ];
    stream.send({
      client,
      operations: cases.map(([operation], id) => ({ id, ...operation })),
    });
    const results = await pipelineResults(stream, cases.length);
    for (const [id, [, code, says]] of cases.entries()) {
      const error = results.get(String(id));
      assertEquals(error?.code, code, error?.message);
      assertStringIncludes(error?.message ?? "", says);
    }
    // A sequence without a client, and a client with too long a name.
    stream.send({ operations: [{ id: 1, sequence: 1, put }] });
    assertEquals(
      (await pipelineResults(stream, 1)).get("1")?.code,
      "MALFORMED",
    );
    stream.send({ doneBelow: INEXACT });
    await assertRefused(stream.all(), { code: "MALFORMED", says: [INEXACT] });
  },

  "more operations than a pipeline takes are refused, the others done": async (
    { rpcs: [rpc] },
  ) => {
    const max = LIMITS.pipelineInFlightMax;
    const stream = pipeline(rpc);
    stream.send({
      operations: Array.from({ length: max + 500 }, (_, id) => ({
        id,
        put: { key: bytes(`bad/flood/${id % 100}`), value },
      })),
    });
    const results = await pipelineResults(stream, max + 500);
    const errors = [...results.values()].filter((error) => error !== undefined);
    assertEquals(errors.length, 500);
    for (const { code, message } of errors) {
      assertEquals(code, "OVERLOADED");
      assertStringIncludes(message, String(max));
    }
    stream.cancel();
  },
};

const DEADLINES_AND_ENDS: Steps = {
  "a deadline that has passed": async ({ rpcs: [rpc] }) => {
    const late = { key: bytes("bad/late"), value };
    const refusal = await refused(
      rpc.call("KeyValue.Put", late, { timeoutMs: -1 }),
    );
    assertEquals(refusal.status, 4);
    // Past the client library, which would not even send it.
    const stream = pipeline(rpc);
    stream.send({ operations: [{ id: 1, timeoutMs: -1, put: late }] });
    const results = await pipelineResults(stream, 1);
    assertEquals(results.get("1")?.code, "DEADLINE_EXCEEDED");
    stream.cancel();
    const { entry } = await rpc.call<{ entry: unknown }>("KeyValue.Get", {
      key: late.key,
    });
    assertEquals(entry, null);
  },

  "calls that are cancelled": async ({ rpcs: [rpc] }) => {
    const calls = Array.from({ length: 200 }, (_, at) => {
      const abort = new AbortController();
      const request = { key: bytes("bad/cancelled"), value };
      const call = rpc.call("KeyValue.Put", request, { signal: abort.signal });
      setTimeout(() => abort.abort(), at % 10);
      return call.then(() => 0, (refusal) => refusal.status);
    });
    const statuses = new Set(await Promise.all(calls));
    assert([...statuses].every((status) => status === 0 || status === 1));
    assert(statuses.has(1), "some were cancelled");
  },

  "clients that vanish in the middle of a stream leave nothing behind": async (
    { cluster, rpcs: [rpc] },
  ) => {
    const address = cluster.address("node1");
    const value = bytes("x".repeat(20_000));
    for (let at = 0; at < 100; at++) {
      await rpc.call("KeyValue.Put", { key: bytes(`bad/list/${at}`), value });
    }
    // More than a node allows at once, if those of vanished clients still counted.
    const rounds = LIMITS.watchersMax / LIMITS.watchersPerStreamMax + 3;
    for (let round = 0; round < rounds; round++) {
      const vanishing = await Rpc.open(address);
      const watch = vanishing.duplex<WatchAnswer>("KeyValue.Watch");
      for (let at = 0; at < LIMITS.watchersPerStreamMax; at++) {
        watch.send({ create: { watchId: at, key } });
      }
      for (let at = 0; at < LIMITS.watchersPerStreamMax; at++) {
        const { created, cancelled } = await watch.expect();
        assert(created, `round ${round}: ${JSON.stringify(cancelled)}`);
      }
      const stream = pipeline(vanishing);
      const operations = Array.from({ length: 200 }, (_, id) => ({
        id,
        put: { key: bytes(`bad/vanish/${id}`), value },
      }));
      stream.send({ operations });
      const list = vanishing.list("KeyValue.List", {});
      await list.expect();
      // As when the process ends: all at once, without a word.
      for (const call of [watch, stream, list]) call.cancel();
      vanishing[Symbol.dispose]();
    }
  },
};

clusterSteps("bad input: has a code and a message, and disturbs nobody", {}, {
  ...TABLES,
  ...STREAMS,
  ...DEADLINES_AND_ENDS,

  "after all of it every node still serves, and none was restarted": async (
    { cluster, rpcs },
  ) => {
    for (const [at, rpc] of rpcs.entries()) {
      const good = { key: bytes("good"), value: bytes(String(at)) };
      await rpc.call("KeyValue.Put", good);
      const { entry } = await rpc.call<{ entry: { value: Uint8Array } }>(
        "KeyValue.Get",
        { key: good.key },
      );
      assertEquals(Buffer.from(entry.value).toString(), String(at));
    }
    assertEquals(cluster.running(), [...cluster.ids]);
    await cluster.agreed();
    for (const id of cluster.ids) {
      const { lines } = cluster.node(id);
      const defects = lines.filter((line) => / error |defect/.test(line));
      assertEquals(defects, [], `${id} reports a defect`);
    }
  },
});
