/**
 * What the client sends, when and how often: against nodes of this test's own making, which answer
 * as they are told to.
 *
 * @module
 */

import type * as Grpc from "@grpc/grpc-js";
import {
  assert,
  assertEquals,
  assertGreaterOrEqual,
  assertLess,
  assertRejects,
} from "@std/assert";
import type { Client } from "../client.ts";
import { DkvError } from "../errors.ts";
import { eventually } from "./cluster.ts";
import { needs, NODE_NEEDS } from "./needs.ts";

/** An operation as it came over the wire. */
interface Operation {
  readonly id: number;
  readonly sequence: number;
  readonly timeoutMs: number;
}

interface Message {
  readonly client: Uint8Array;
  readonly doneBelow: number;
  readonly operations: readonly Operation[];
}

/** Takes one message; what it returns is sent back, for null nothing. */
type Behaviour = (message: Message) => object[] | null;

const done = ({ operations }: Message) =>
  operations.map(({ id }) => ({ id, put: { revision: 1, version: 1 } }));
const failing = (code: string) => ({ operations }: Message) =>
  operations.map(({ id }) => ({ id, error: { code, message: code } }));
const mute = () => null;

/** Waits for all, later; until then nobody need hear of those that fail. */
function all(promises: Promise<unknown>[]): Promise<unknown> {
  const every = Promise.all(promises);
  every.catch(() => {});
  return every;
}

/** A node that speaks the protocol and stores nothing. */
class FakeNode implements AsyncDisposable {
  readonly messages: Message[] = [];
  role: "leader" | "follower";
  behave: Behaviour;
  address = "";
  /** What it says of itself and of the leader. */
  nodeId = "";
  leader = "";
  /** Does not say how it is. */
  holdStatus = false;
  isAsked = false;
  readonly #server: Grpc.Server;
  #call: { write(message: object): void } | null = null;

  private constructor(
    server: Grpc.Server,
    options: { role: "leader" | "follower"; behave: Behaviour },
  ) {
    this.#server = server;
    this.role = options.role;
    this.behave = options.behave;
  }

  static async start(
    options: { role: "leader" | "follower"; behave: Behaviour },
  ): Promise<FakeNode> {
    const grpc = await import("@grpc/grpc-js");
    const { loadSync } = await import("@grpc/proto-loader");
    const path = new URL("../proto/kvstore.proto", import.meta.url).pathname;
    const definition = loadSync(path, { longs: Number, defaults: true });
    const server = new grpc.Server();
    const node = new FakeNode(server, options);
    const service = (name: string) =>
      definition[`kvstore.v1.${name}`] as Grpc.ServiceDefinition;
    server.addService(service("Cluster"), {
      Status: (_: unknown, answer: Grpc.sendUnaryData<object>) => {
        if (node.holdStatus) return void (node.isAsked = true);
        answer(null, { header: node.header, role: node.role, leader: "x" });
      },
    });
    server.addService(service("KeyValue"), {
      Pipeline: (call: Grpc.ServerDuplexStream<Message, object>) => {
        node.#call = call;
        call.on("data", (message: Message) => {
          node.messages.push(message);
          const results = node.behave(message);
          const { header } = node;
          if (results !== null) call.write({ header, results });
        });
        call.on("end", () => call.end());
        call.on("error", () => {});
      },
    });
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    server.bindAsync(
      "127.0.0.1:0",
      grpc.ServerCredentials.createInsecure(),
      (error, port) => error ? reject(error) : resolve(port),
    );
    node.address = `127.0.0.1:${await promise}`;
    return node;
  }

  get header(): object {
    return { revision: 1, nodeId: this.nodeId, leader: this.leader };
  }

  get operations(): Operation[] {
    return this.messages.flatMap(({ operations }) => operations);
  }

  /** Answers what was kept. */
  send(results: object[]): void {
    this.#call?.write({ results });
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#server.forceShutdown();
    return Promise.resolve();
  }
}

async function open(...nodes: FakeNode[]): Promise<Client> {
  const { connect } = await import("../client.ts");
  return await connect(nodes.map(({ address }) => address));
}

function test(name: string, fn: () => Promise<void>): void {
  needs(NODE_NEEDS, `requests: ${name}`, fn, {
    // Channels of grpc-js close a moment after they are told to.
    sanitizeOps: false,
    sanitizeResources: false,
  });
}

test("what is issued in one turn is one message, and says what was answered", async () => {
  await using node = await FakeNode.start({ role: "leader", behave: done });
  await using kv = await open(node);
  const puts = (count: number) =>
    Promise.all(Array.from({ length: count }, () => kv.put("a", "b")));
  await puts(100);
  await puts(3);
  assertEquals(node.messages.map(({ operations }) => operations.length), [
    100,
    3,
  ]);
  assertEquals(
    node.operations.map(({ sequence }) => sequence),
    Array.from({ length: 103 }, (_, at) => at + 1),
  );
  assertEquals(node.messages.map(({ doneBelow }) => doneBelow), [1, 101]);
  const [first] = node.messages;
  assertEquals(first?.client.length, 16);
});

test("a message holds about a megabyte, flight is bounded by count", async () => {
  await using node = await FakeNode.start({ role: "leader", behave: mute });
  await using kv = await open(node);
  const puts = all(Array.from(
    { length: 5000 },
    () => kv.put("a", "x".repeat(1000)),
  ));
  await eventually("a full flight", () => node.operations.length >= 2048);
  assertGreaterOrEqual(node.messages.length, 2);
  // Nothing more comes until something is answered.
  await kv.status();
  assertEquals(node.operations.length, 2048);
  const kept = node.messages.splice(0);
  node.behave = done;
  for (const message of kept) node.send(done(message));
  await puts;
  assertEquals(node.operations.length, 5000 - 2048);
});

test("what waits for a place in flight is bounded, and the program told", async () => {
  await using node = await FakeNode.start({ role: "leader", behave: mute });
  await using kv = await open(node);
  const value = new Uint8Array(1_400_000);
  const codes: string[] = [];
  const put = () =>
    kv.put("a", value).catch((error: DkvError) => codes.push(error.code));
  // 190 of them are within the bound of 256 MiB.
  const puts = Array.from({ length: 210 }, put);
  await kv.status();
  const { length } = codes;
  assertEquals(codes, Array(length).fill("OVERLOADED"));
  assert(length > 5 && length < 20, `${length} were refused`);
  await kv.close();
  await Promise.all(puts);
});

test("what was given up while nobody could be reached counts no more", async () => {
  const node = await FakeNode.start({ role: "leader", behave: mute });
  await using kv = await open(node);
  await node[Symbol.asyncDispose]();
  const value = new Uint8Array(1_400_000);
  const codes = new Set<string>();
  // Together more than may wait.
  for (let round = 0; round < 3; round++) {
    await Promise.all(
      Array.from(
        { length: 90 },
        () =>
          kv.put("a", value, { timeoutMs: 200 }).catch(({ code }: DkvError) =>
            codes.add(code)
          ),
      ),
    );
  }
  assertEquals(codes.has("OVERLOADED"), false, [...codes].join());
});

test("times that no timer bears do not end at once", async () => {
  const { connect } = await import("../client.ts");
  const node = await FakeNode.start({ role: "leader", behave: done });
  await node[Symbol.asyncDispose]();
  const stop = new AbortController();
  let ended = false;
  const away = connect(node.address, {
    timeoutMs: 2 ** 31,
    signal: stop.signal,
  }).catch((error) => {
    ended = true;
    throw error;
  });
  await using other = await FakeNode.start({ role: "leader", behave: done });
  await using kv = await open(other);
  await kv.put("a", "b");
  assertEquals(ended, false);
  stop.abort(new Error("enough"));
  await assertRejects(() => away, Error, "enough");
});

test("a node that is asked how it is hears of an abort", async () => {
  await using node = await FakeNode.start({ role: "leader", behave: mute });
  await using kv = await open(node);
  const stopped = AbortSignal.abort(new Error("stopped"));
  for (const address of [undefined, node.address]) {
    await assertRejects(
      () => kv.status(address, { signal: stopped }),
      Error,
      "stopped",
    );
  }
  node.holdStatus = true;
  const stop = new AbortController();
  const status = kv.status(node.address, { signal: stop.signal });
  await eventually("the question", () => node.isAsked);
  stop.abort(new Error("stopped midway"));
  await assertRejects(() => status, Error, "stopped midway");
});

test("a node that takes a write and stays silent is left, and the write sent again", async () => {
  await using silent = await FakeNode.start({ role: "leader", behave: mute });
  await using other = await FakeNode.start({ role: "follower", behave: done });
  await using kv = await open(silent, other);
  const start = performance.now();
  assertEquals((await kv.put("a", "b")).version, 1);
  assertLess(performance.now() - start, 4000);
  const [first] = silent.messages;
  const [second] = other.messages;
  assert(first !== undefined && second !== undefined);
  assertEquals([...second.client], [...first.client]);
  assertEquals(second.operations[0]?.sequence, first.operations[0]?.sequence);
  // The second attempt may take longer than the first.
  const timeouts = [first, second].map(({ operations }) =>
    operations[0]?.timeoutMs ?? 0
  );
  assertLess(timeouts[0] ?? 0, timeouts[1] ?? 0);
});

for (
  const code of ["NO_LEADER", "SHUTTING_DOWN", "OUTCOME_UNKNOWN", "OVERLOADED"]
) {
  test(`after ${code} the same write is sent again`, async () => {
    await using node = await FakeNode.start({
      role: "leader",
      behave: failing(code),
    });
    await using kv = await open(node);
    const put = kv.put("a", "b");
    await eventually("a second attempt", () => node.operations.length >= 2);
    node.behave = done;
    await put;
    assertEquals(
      new Set(node.operations.map(({ sequence }) => sequence)),
      new Set([1]),
    );
  });
}

test("what the cluster refuses for good is not sent again", async () => {
  await using node = await FakeNode.start({
    role: "leader",
    behave: failing("DISK_FULL"),
  });
  await using kv = await open(node);
  const error = await assertRejects(() => kv.put("a", "b"), DkvError);
  assertEquals([error.code, node.operations.length], ["DISK_FULL", 1]);
});

test("a refusal after an attempt without an answer leaves the outcome unknown", async () => {
  await using silent = await FakeNode.start({ role: "leader", behave: mute });
  await using other = await FakeNode.start({
    role: "follower",
    behave: failing("DISK_FULL"),
  });
  await using kv = await open(silent, other);
  const { OutcomeUnknownError } = await import("../client.ts");
  const error = await assertRejects(
    () => kv.put("a", "b"),
    OutcomeUnknownError,
  );
  assertEquals(error.code, "OUTCOME_UNKNOWN");
  assertEquals((error.cause as DkvError).code, "DISK_FULL");
});

test("a write that is stuck holds back those far behind it", async () => {
  await using node = await FakeNode.start({
    role: "leader",
    behave: (message) => done(message).filter(({ id }) => id !== 1),
  });
  await using kv = await open(node);
  let answered = 0;
  const stuck = kv.put("stuck", "");
  const others = Array.from(
    { length: 6000 },
    () => kv.put("a", "b").then(() => answered++),
  );
  const everything = all([stuck, ...others]);
  await eventually("as many as may pass", () => answered === 3999);
  await kv.status();
  assertEquals(answered, 3999);
  assertEquals(Math.max(...node.messages.map(({ doneBelow }) => doneBelow)), 1);
  node.behave = done;
  node.send([{ id: 1, put: { revision: 1, version: 1 } }]);
  await everything;
});

test("a big value waits for a place in flight alone, and nobody for its answer", async () => {
  await using node = await FakeNode.start({ role: "leader", behave: mute });
  await using kv = await open(node);
  const small = (count: number) =>
    Array.from({ length: count }, () => kv.put("a", "small"));
  const answer = (some: readonly Operation[]) =>
    node.send(
      some.map(({ id }) => ({ id, put: { revision: 1, version: 1 } })),
    );
  // Each once: on a slow machine the client may lose patience and send one again.
  const operations = () => [
    ...new Map(node.operations.map((one) => [one.sequence, one])).values(),
  ];
  const sent = () => operations().map(({ sequence }) => sequence);
  const sequences = (count: number) =>
    Array.from({ length: count }, (_, at) => at + 1);
  const before = small(3000);
  let isBigAnswered = false;
  const big = kv.put("b", new Uint8Array(1024 * 1024))
    .then(() => isBigAnswered = true);
  const after = small(500);
  const everything = all([...before, big, ...after]);
  await eventually("a full flight", () => sent().length === 2048);

  // One place more than for those before it: 2,047 of these are not answered yet.
  answer(operations().slice(0, 953));
  await eventually("the big one", () => sent().length === 3001);
  assertEquals(sent(), sequences(3001));
  answer(operations().slice(953, 1453));
  await eventually("those after it", () => sent().length === 3501);
  assertEquals(sent(), sequences(3501));

  const rest = operations().slice(1453);
  const isBig = ({ sequence }: Operation) => sequence === 3001;
  answer(rest.filter((operation) => !isBig(operation)));
  await Promise.all([...before, ...after]);
  assertEquals(isBigAnswered, false);
  answer(rest.filter(isBig));
  await everything;
});

/** A cluster of fakes, led by the first. */
async function startThree(
  stack: AsyncDisposableStack,
): Promise<[FakeNode, FakeNode, FakeNode]> {
  const start = async (nodeId: string) => {
    const role = nodeId === "n1" ? "leader" : "follower";
    const node = stack.use(await FakeNode.start({ role, behave: mixed }));
    node.nodeId = nodeId;
    node.leader = "n1";
    return node;
  };
  return [await start("n1"), await start("n2"), await start("n3")];
}

/** Answers puts and gets. */
const mixed = ({ operations }: Message) =>
  operations.map(({ id, sequence }) =>
    sequence > 0 ? { id, put: { revision: 1, version: 1 } } : { id, get: {} }
  );

/** How many operations came to each. */
function counts(nodes: readonly FakeNode[]): number[] {
  return nodes.map(({ operations }) => operations.length);
}

/** Reads until the client knows every follower. */
async function meetAll(kv: Client, nodes: readonly FakeNode[]): Promise<void> {
  await eventually("a read at each follower", async () => {
    await kv.get("a");
    return counts(nodes).slice(1).every((count) => count > 0);
  });
}

test("reads take turns at the followers, writes go to the leader", async () => {
  await using stack = new AsyncDisposableStack();
  const nodes = await startThree(stack);
  await using kv = await open(...nodes);
  await meetAll(kv, nodes);
  for (const node of nodes) node.messages.length = 0;
  for (let at = 0; at < 30; at++) await kv.get("a");
  assertEquals(counts(nodes), [0, 15, 15]);
  for (let at = 0; at < 30; at++) await kv.put("a", "b");
  assertEquals(counts(nodes), [30, 15, 15]);
  // A turn stays one message: with a write in it, the leader's.
  await Promise.all([kv.get("a"), kv.put("a", "b"), kv.get("a")]);
  assertEquals(counts(nodes), [33, 15, 15]);
  assertEquals(nodes[0].messages.at(-1)?.operations.length, 3);
});

test("writes follow the leader that an answer names", async () => {
  await using stack = new AsyncDisposableStack();
  const nodes = await startThree(stack);
  await using kv = await open(...nodes);
  await meetAll(kv, nodes);
  for (const node of nodes) node.leader = "n3";
  await kv.put("a", "b"); // Its answer names the new one.
  for (const node of nodes) node.messages.length = 0;
  for (let at = 0; at < 5; at++) await kv.put("a", "b");
  assertEquals(counts(nodes), [0, 0, 5]);
});

test("reads leave a node that does not serve, and come back when it does", async () => {
  await using stack = new AsyncDisposableStack();
  const nodes = await startThree(stack);
  await using kv = await open(...nodes);
  const [, sick] = nodes;
  sick.behave = failing("NO_LEADER");
  await eventually("a read at the sick node", async () => {
    await kv.get("a");
    return sick.operations.length > 0;
  });
  sick.messages.length = 0;
  for (let at = 0; at < 30; at++) await kv.get("a");
  assertEquals(sick.operations.length, 0);
  sick.behave = mixed;
  await eventually("a read at the node that is well again", async () => {
    await kv.get("a");
    return sick.operations.length > 0;
  });
});
