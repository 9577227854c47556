/**
 * Deno KV on a cluster, through the clients that people use: the one in Deno, and `npm:@deno/kv` in
 * Deno and in Node.
 */

import {
  assert,
  assertEquals,
  assertGreaterOrEqual,
  assertLess,
  assertMatch,
  assertNotEquals,
  assertRejects,
} from "@std/assert";
import { Buffer } from "node:buffer";
import { serialize } from "node:v8";
import { clusterTest, eventually, TestCluster } from "./cluster.ts";
import { run as dkv, start as startDkv } from "./dkv.ts";
import { Balancer } from "./kv/balancer.ts";
import {
  type Client,
  clients,
  lastLine,
  type Program,
  run,
  start,
} from "./kv/process.ts";
import { Wire } from "./kv/wire.ts";
import { CLUSTER_NEEDS, needs, tempDir } from "./needs.ts";

const TOKENS = {
  builtin: "token-of-the-builtin-client",
  npm: "token-of-the-npm-client",
  node: "token-of-the-npm-client-in-node",
  other: "token-of-everything-else",
} as const;
const KV_CONNECT = {
  databases: Object.entries(TOKENS).map(([name, token]) => ({
    name,
    tokens: [token],
  })),
};
const token = TOKENS.other;
const SEED = Number(
  Deno.permissions.querySync({ name: "env", variable: "SEED" })
            .state === "granted" && Deno.env.get("SEED") ||
    crypto.getRandomValues(new Uint32Array(1))[0],
);

/** Sums of numbers and versionstamped keys are of Deno's own client alone. */
function withoutBuiltin(transcript: string): string {
  return transcript.split("\n")
    .filter((line) => !/^(sum|versionstamped):/.test(line)).join("\n");
}

async function sameStory(cluster: TestCluster): Promise<void> {
  const name = "transcript.js";
  const memory = await run(name, { args: [":memory:"] });
  assertMatch(memory, /^limits: 499500$/m);
  await Promise.all((await clients()).map(async (client, at) => {
    const args = [cluster.httpUrl(cluster.ids[at] ?? "")];
    const told = await run(name, { args, client, token: TOKENS[client] });
    assertEquals(
      told,
      client === "builtin" ? memory : withoutBuiltin(memory),
      client,
    );
  }));
}

/** A request of our own: status and text. */
async function post(
  url: string,
  { bearer, body, headers = {} }: {
    bearer: string;
    body?: string | Uint8Array<ArrayBuffer>;
    headers?: Record<string, string>;
  },
): Promise<{ status: number; text: string; type: string | null }> {
  const response = await fetch(url, {
    method: "POST",
    headers: { authorization: `Bearer ${bearer}`, ...headers },
    body: body ?? null,
  });
  const type = response.headers.get("content-type");
  return { status: response.status, text: await response.text(), type };
}

interface Metadata {
  readonly version: number;
  readonly databaseId: string;
  readonly endpoints: readonly { url: string; consistency: string }[];
  readonly token: string;
  readonly expiresAt: string;
}

async function metadata(
  url: string,
  versions: readonly number[] | null,
  bearer: string = token,
): Promise<Metadata> {
  const body = versions && JSON.stringify({ supportedVersions: versions });
  const { status, text, type } = await post(url, {
    bearer,
    ...(body === null ? {} : { body }),
  });
  assertEquals([status, type], [200, "application/json"]);
  return JSON.parse(text);
}

async function exchange(cluster: TestCluster): Promise<void> {
  const [url = "", other = ""] = cluster.ids.map((id) => cluster.httpUrl(id));
  const three = await metadata(url, [1, 2, 3]);
  assertEquals(Object.keys(three).sort(), [
    "databaseId",
    "endpoints",
    "expiresAt",
    "token",
    "version",
  ]);
  assertEquals(three.version, 3);
  assertEquals(three.endpoints, [{ url: "./v2", consistency: "strong" }]);
  assertGreaterOrEqual(
    Date.parse(three.expiresAt) - Date.now(),
    2 * 3_600_000,
  );
  assertMatch(three.databaseId, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
  // Every node says the same, so a client may go on at another one.
  const elsewhere = await metadata(other, [2, 3]);
  assertEquals(
    [elsewhere.databaseId, elsewhere.token],
    [three.databaseId, three.token],
  );
  assertEquals((await metadata(url, [2])).version, 2);
  const one = await metadata(url, null);
  assertEquals([one.version, one.endpoints[0]?.url], [1, `${url}/v2`]);
  const another = await metadata(url, [3], TOKENS.npm);
  assertNotEquals(another.databaseId, three.databaseId);
  assertNotEquals(another.token, three.token);
  const refused = async (body: string) =>
    (await post(url, { bearer: token, body })).status;
  assertEquals(await refused('{"supportedVersions":[4]}'), 400);
  assertEquals(await refused("{"), 400);
  for (const bearer of ["", "development", `${token}x`, three.token]) {
    assertEquals((await post(url, { bearer })).status, 401, bearer);
  }
}

/** Bytes from hexadecimal digits. */
function hex(text: string): Uint8Array<ArrayBuffer> {
  const pairs = text.replaceAll(" ", "").match(/../g) ?? [];
  return Uint8Array.from(pairs, (pair) => Number.parseInt(pair, 16));
}

/** What a client does wrong is told with 4xx, and is no reason to come again. */
async function refusals(cluster: TestCluster): Promise<void> {
  const url = cluster.httpUrl("node1");
  const { databaseId, token: bearer } = await metadata(url, [3]);
  const headers = {
    "x-denokv-version": "3",
    "x-denokv-database-id": databaseId,
  };
  const status = async (
    method: string,
    body: string | Uint8Array<ArrayBuffer>,
    more: { bearer?: string; headers?: Record<string, string> } = {},
  ) =>
    (await post(`${url}/v2/${method}`, { bearer, headers, body, ...more }))
      .status;
  assertEquals(await status("atomic_write", ""), 200);
  assertEquals(await status("atomic_write", "", { bearer: token }), 401);
  assertEquals(await status("atomic_write", "", { headers: {} }), 400);
  const wrong = { ...headers, "x-denokv-database-id": crypto.randomUUID() };
  assertEquals(await status("atomic_write", "", { headers: wrong }), 400);
  const old = { "x-transaction-domain-id": databaseId };
  assertEquals(await status("atomic_write", "", { headers: old }), 200);
  assertEquals(await status("nothing", ""), 404);
  const bad: [string, string, number][] = [
    ["a field that breaks off", "12 11 0a", 400],
    ["an empty key", "12 08 12 04 0a 00 10 03 18 01", 400],
    ["no value", "12 07 0a 03 02 61 00 18 01", 400],
    ["encoding 9", "12 0e 0a 03 02 61 00 12 05 0a 01 09 10 09 18 01", 400],
    ["a u64 of a byte", "12 0e 0a 03 02 61 00 12 05 0a 01 09 10 02 18 01", 400],
    ["mutation 7", "12 0e 0a 03 02 61 00 12 05 0a 01 09 10 03 18 07", 400],
    [
      "expiry -2",
      "12 19 0a 03 02 61 00 12 05 0a 01 09 10 03 18 01 20 fe ff ff ff ff ff ff ff ff 01",
      400,
    ],
    ["a versionstamp of 3 bytes", "0a 0a 0a 03 02 61 00 12 03 00 00 01", 400],
    ["a message for a queue", "1a 03 0a 01 61", 422],
    [
      "a sum of bytes",
      "12 0e 0a 03 02 61 00 12 05 0a 01 09 10 03 18 03",
      409,
    ],
  ];
  for (const [what, body, expected] of bad) {
    assertEquals(await status("atomic_write", hex(body)), expected, what);
  }
  const queue = hex("1a 03 0a 01 61");
  const { text } = await post(`${url}/v2/atomic_write`, {
    bearer,
    headers,
    body: queue,
  });
  assertEquals(text, "Queues are not served: enqueue() is refused\n");
  const large = new Uint8Array(9 * 1024 * 1024);
  assertEquals(await status("atomic_write", large), 413);
  assertEquals(await status("snapshot_read", hex("0a 00")), 400);
  assertEquals(
    await status("snapshot_read", hex("0a 0a 0a 02 02 61 12 01 ff 18 e9 07")),
    400,
  );
  const eleven = new Uint8Array(33).map((_, at) => hex("0a 01 0a")[at % 3]!);
  assertEquals(await status("watch", eleven), 400);
  const get = await fetch(`${url}/v2/watch`, { headers });
  await get.body?.cancel();
  assertEquals(get.status, 405);
}

type Step = readonly [string, readonly unknown[], unknown?, number?];

/** Runs steps at a node and gives what the last one gave. */
async function does(
  url: string,
  steps: readonly Step[],
  { client = "builtin", bearer = token }: {
    client?: Client;
    bearer?: string;
  } = {},
): Promise<unknown> {
  const args = [url, JSON.stringify(steps)];
  return JSON.parse(await run("writer.js", { args, token: bearer, client }));
}

/** Sets keys to texts that every client can read. */
async function sets(
  url: string,
  ...steps: readonly Step[]
): Promise<void> {
  await does(url, steps, { client: (await clients()).at(-1) ?? "npm" });
}

/** The store's keys that begin with a text, as latin1. */
async function keysOf(cluster: TestCluster, prefix: string) {
  const list = {
    range: { start: Buffer.from(prefix), end: Buffer.from(`${prefix}\xff`) },
    keysOnly: true,
  };
  const { results } = await cluster.call<
    { results: { list: { entries: { key: Uint8Array }[] } }[] }
  >("node1", "KeyValue.Transact", { then: [{ list }] });
  return (results[0]?.list.entries ?? []).map(({ key }) =>
    Buffer.from(key).toString("latin1")
  );
}

async function expiry(cluster: TestCluster): Promise<void> {
  const names = await clients();
  const waits = await Promise.all(cluster.ids.map((id, at) => {
    const client = names[at] ?? "builtin";
    return does(cluster.httpUrl(id), [["gone", ["e", id], "x", 700]], {
      client,
    });
  }));
  for (const wait of waits) {
    assertGreaterOrEqual(Number(wait), 650);
    assertLess(Number(wait), 2500);
  }
  // The entry, and what says when it expires, leave through the log.
  await eventually("no expired key", async () => {
    const keys = await keysOf(cluster, "denokv");
    assert(keys.some((key) => key.startsWith("denokv/builtin/")));
    return !keys.some((key) => key.includes("\x02e\0"));
  });
}

async function watches(cluster: TestCluster): Promise<void> {
  const url = cluster.httpUrl("node1");
  // The package says nothing as long as no key exists.
  await sets(url, ["set", ["w", 1], "zero"]);
  const watchers = (await clients()).map((client, at) => {
    const args = [cluster.httpUrl(cluster.ids[at] ?? "")];
    return start("watcher.js", { args, token, client });
  });
  const printed = (text: string) =>
    Promise.all(watchers.map((watcher) => watcher.printed(text)));
  await printed('["zero",null]');
  await sets(url, ["set", ["w", 1], "one"]);
  await printed('["one",null]');
  await sets(url, ["expire", ["w", 1], "two", 3000]);
  await printed("[null,null]");
  await sets(url, ["set", ["w", 2], "end"]);
  for (const { output } of watchers) {
    assertEquals((await output).trim().split("\n"), [
      '["zero",null]',
      '["one",null]',
      '["two",null]',
      "[null,null]",
      '[null,"end"]',
    ]);
  }
}

/** Starts programs that watch, and waits until they do: a client that opens has no patience. */
async function watchFrom(
  url: string,
  names: readonly Client[],
): Promise<Program[]> {
  // The package says nothing as long as no key exists.
  await sets(url, ["set", ["w", 1], "first"]);
  const watchers = names.map((client) =>
    start("watcher.js", { args: [url], token, client })
  );
  await Promise.all(
    watchers.map((watcher) => watcher.printed('["first",null]')),
  );
  return watchers;
}

/** What programs were told about increments of one key. */
interface Told {
  readonly acknowledged: number;
  readonly attempted: number;
  readonly errors: number;
  readonly written: readonly number[];
}

/** Starts programs of all clients that increment a key, 16 clients in all. */
async function incrementers(
  kind: "add" | "check",
  urls: readonly string[],
): Promise<() => Promise<Told>> {
  const names = await clients();
  const programs = names.map((client, at) => {
    const count = Math.floor((16 + at) / names.length);
    const args = [kind, String(count), kind, ...urls];
    return start("load.js", { args, token, client });
  });
  await Promise.all(programs.map((program) => program.printed("begun\n")));
  return async () => {
    for (const program of programs) await program.end();
    const told = await Promise.all(
      programs.map(async ({ output }): Promise<Told> =>
        JSON.parse(lastLine(await output))
      ),
    );
    const total = (what: "acknowledged" | "attempted" | "errors") =>
      told.reduce((sum, one) => sum + one[what], 0);
    return {
      acknowledged: total("acknowledged"),
      attempted: total("attempted"),
      errors: total("errors"),
      written: told.flatMap(({ written }) => written),
    };
  };
}

/** Each number was written once. */
function assertOnce({ acknowledged, written }: Told): void {
  assertEquals(written.length, acknowledged);
  assertEquals(new Set(written).size, written.length);
}

async function races(cluster: TestCluster): Promise<void> {
  const urls = cluster.ids.map((id) => cluster.httpUrl(id));
  const [add, check] = await Promise.all([
    incrementers("add", urls),
    incrementers("check", urls),
  ]);
  await new Promise((resolve) => setTimeout(resolve, 3000));
  const [added, checked] = await Promise.all([add(), check()]);
  assertEquals([added.errors, checked.errors], [0, 0]);
  assertOnce(checked);
  const value = (kind: string) => does(urls[0] ?? "", [["get", [kind]]]);
  assertEquals(await value("add"), added.acknowledged);
  assertEquals(await value("check"), checked.acknowledged);
}

/** Whose token is wrong is told so at once, whatever the client. */
async function wrongTokens(cluster: TestCluster): Promise<void> {
  const url = cluster.httpUrl("node3");
  await Promise.all((await clients()).map(async (client) => {
    const bearer = `${token}x`;
    await assertRejects(
      () => does(url, [], { client, bearer }),
      Error,
      "401",
      client,
    );
  }));
}

/** Deno's own client has no word for limits of sums, so they are sent by hand. */
async function sums(cluster: TestCluster): Promise<void> {
  const url = cluster.httpUrl("node2");
  const wire = await Wire.open(url, token);
  const key = Buffer.from("\x02s\0");
  const write = (mutation: Record<string, unknown>) =>
    wire.call("atomic_write", { mutations: [{ key, ...mutation }] });
  const value = () => does(url, [["get", ["s"]]]);
  const sum = (
    operand: unknown,
    { min, max, clamp = false }: {
      min?: unknown;
      max?: unknown;
      clamp?: boolean;
    },
  ) =>
    write({
      value: { data: serialize(operand), encoding: 1 },
      mutationType: 3,
      ...(min === undefined ? {} : { sumMin: serialize(min) }),
      ...(max === undefined ? {} : { sumMax: serialize(max) }),
      sumClamp: clamp,
    });
  await does(url, [["set", ["s"], 5]]);
  const cases: [Parameters<typeof sum>, number, unknown][] = [
    [[10, { max: 8, clamp: true }], 200, 8],
    [[1, { max: 8 }], 409, 8],
    [[-100, { min: -3, max: 8, clamp: true }], 200, -3],
    [[-1, { min: -3 }], 409, -3],
    [[2.5, { min: -3, max: 8 }], 200, -0.5],
    [[1, { max: 8n }], 409, -0.5],
    [[1n, {}], 409, -0.5],
  ];
  for (const [args, status, expected] of cases) {
    const text = JSON.stringify(
      args,
      (_, one) => typeof one === "bigint" ? `${one}n` : one,
    );
    const answer = await sum(...args);
    assertEquals([answer.status, await value()], [status, expected], text);
    if (status === 409) assertMatch(answer.text, /^Mutation 0, sum: .+/);
  }
  await write({ mutationType: 2 });
  await sum(-(2n ** 70n), {});
  assertEquals((await sum(1n, { min: -5n, clamp: true })).status, 200);
  assertEquals(await value(), "-5n");
  assertMatch(
    (await sum(9n, { max: 3n })).text,
    /^Mutation 0, sum: the result is outside its limits/,
  );
  const u64 = (number: bigint) => {
    const data = Buffer.alloc(8);
    data.writeBigUInt64LE(number);
    return { data, encoding: 2 };
  };
  await write({ mutationType: 1, value: u64(2n ** 64n - 2n) });
  await write({ mutationType: 3, value: u64(12n) });
  assertEquals(await value(), 10);
  await write({ mutationType: 5, value: u64(7n) });
  await write({ mutationType: 4, value: u64(3n) });
  assertEquals(await value(), 7);
}

/** What is written through Deno KV, seen through dkv. */
async function shown(cluster: TestCluster): Promise<void> {
  const url = cluster.httpUrl("node1");
  const key = ["shown", 1, true];
  const { versionstamp } = await does(url, [
    ["set", key, { a: [1, "x"] }],
  ]) as { versionstamp: string };
  const prefix = "denokv/other/\x02shown";
  const at = ["--endpoints", cluster.address("node2")];
  const { out } = await dkv(["list", prefix, "--json", ...at]);
  const entry = JSON.parse(out);
  assertEquals(entry.denoKey, 'denokv/other/["shown", 1, true]');
  assertEquals(entry.denoValue, '{ a: [ 1, "x" ] }');
  // A versionstamp is the revision, which rises with every write of anybody.
  const hex = entry.modRevision.toString(16).padStart(16, "0");
  assertEquals(versionstamp, `${hex}0000`);
  await dkv(["put", "between", "x", ...at]);
  const later = await does(url, [["set", key, 2]]) as { versionstamp: string };
  const revision = Number.parseInt(later.versionstamp.slice(0, 16), 16);
  assertGreaterOrEqual(revision, entry.modRevision + 2);
}

clusterTest("kvconnect: every client, everything", {
  kvConnect: KV_CONNECT,
}, async (cluster) => {
  await Promise.all([sameStory(cluster), exchange(cluster)]);
  await refusals(cluster);
  // By itself, since it looks at the time.
  await expiry(cluster);
  await Promise.all([
    watches(cluster),
    wrongTokens(cluster),
    sums(cluster),
  ]);
  await shown(cluster);
  await races(cluster);
  const urls = cluster.ids.map((id) => cluster.httpUrl(id));
  const equal = await run("differ.ts", {
    args: [String(SEED), "24", ...urls],
    token,
  });
  assertMatch(equal, /^equal: 24 sequences/);
  await cluster.agreed();
  assertEquals(cluster.output().includes(token), false);
});

const ONE_DATABASE = { databases: [{ name: "default", tokens: [token] }] };

clusterTest("kvconnect: nodes die, clients do not notice", {
  kvConnect: ONE_DATABASE,
}, async (cluster) => {
  const leader = await cluster.leader();
  const [follower = "", ...rest] = await cluster.followers();
  const all = cluster.ids.map((id) => cluster.httpUrl(id));
  const [url = "", ...others] = [follower, ...rest].map((id) =>
    cluster.httpUrl(id)
  );
  await does(cluster.httpUrl(leader), [["set", ["kept"], { a: 1 }]]);
  // Who is at a node that lives counts exactly; who is behind a balancer may send a sum twice.
  await using balancer = new Balancer(all);
  const [add, check] = await Promise.all([
    incrementers("add", [balancer.url]),
    incrementers("check", [url, ...others]),
  ]);
  const names = await clients();
  const watchers = await watchFrom(url, names);
  await new Promise((resolve) => setTimeout(resolve, 1500));
  await cluster.kill(leader);
  // Of the two that are left, both are asked, and they answer when one of them leads.
  await sets(url, ["set", ["w", 1], "later"]);
  const [added, checked] = await Promise.all([add(), check()]);
  assertEquals([added.errors, checked.errors], [0, 0]);
  assertOnce(checked);
  assertEquals(await does(url, [["get", ["check"]]]), checked.acknowledged);
  const count = Number(await does(url, [["get", ["add"]]]));
  assertGreaterOrEqual(count, added.acknowledged);
  assertGreaterOrEqual(balancer.writes, count);
  // The package's watch does not survive its node, so it ends here.
  await sets(url, ["set", ["w", 2], "end"]);
  for (const { output } of watchers) {
    const lines = (await output).trim().split("\n");
    assertEquals(lines.at(-1), '["later","end"]');
  }
});

clusterTest("kvconnect: all nodes are killed and come back", {
  kvConnect: ONE_DATABASE,
}, async (cluster) => {
  const [url = ""] = cluster.ids.map((id) => cluster.httpUrl(id));
  const names = await clients();
  await Promise.all(
    names.map((client) =>
      does(url, [["set", ["kept", client], { a: client }]], { client })
    ),
  );
  await using balancer = new Balancer(
    cluster.ids.map((id) => cluster.httpUrl(id)),
  );
  const check = await incrementers("check", [balancer.url]);
  const [watcher] = await watchFrom(url, ["builtin"]);
  assert(watcher !== undefined);
  await new Promise((resolve) => setTimeout(resolve, 1500));
  await cluster.killAll();
  await Promise.all(cluster.ids.map((id) => cluster.restart(id)));
  // Programs of before go on, and what was acknowledged is there.
  await sets(url, ["set", ["w", 1], "later"]);
  const checked = await check();
  assertEquals(checked.errors, 0);
  assertOnce({ ...checked, acknowledged: checked.written.length });
  const count = Number(await does(url, [["get", ["check"]]]));
  assertGreaterOrEqual(count, checked.acknowledged);
  assertGreaterOrEqual(checked.attempted, count);
  for (const client of names) {
    const steps: Step[] = [["get", ["kept", names.at(-1)]]];
    assertEquals(await does(url, steps, { client }), { a: names.at(-1) });
  }
  await sets(url, ["set", ["w", 2], "end"]);
  const lines = (await watcher.output).trim().split("\n");
  assertEquals(lines.at(-1), '["later","end"]');
});

/** A write at the leader that is in its log and cannot be committed, because the others stand still. */
async function stuckWrite(
  cluster: TestCluster,
  leader: string,
): Promise<{ answer: ReturnType<Wire["call"]> }> {
  const wire = await Wire.open(cluster.httpUrl(leader), token);
  for (const id of cluster.ids) if (id !== leader) cluster.freeze(id);
  const { lastIndex } = await cluster.status(leader);
  const mutation = {
    key: Buffer.from("\x02stuck\0"),
    value: { data: Buffer.from(leader), encoding: 3 },
    mutationType: 1,
  };
  const answer = wire.call("atomic_write", { mutations: [mutation] });
  await eventually(
    "the write in the log",
    async () => (await cluster.status(leader)).lastIndex > lastIndex,
  );
  return { answer };
}

clusterTest(
  "kvconnect: a write under way when its node is told to stop is answered",
  {
    kvConnect: ONE_DATABASE,
    // A leader whose followers stand still goes on leading for a second.
    settings: { electionTicksMin: 20 },
  },
  async (cluster) => {
    const thaw = (leader: string) => {
      for (const id of cluster.ids) if (id !== leader) cluster.thaw(id);
    };
    const first = await cluster.leader();
    const done = await stuckWrite(cluster, first);
    cluster.node(first).kill("SIGTERM");
    // What comes now is refused and may be sent elsewhere; what came before is waited for.
    await eventually("a refusal", async () => {
      const { status, body } = await fetch(cluster.httpUrl(first));
      await body?.cancel();
      return status === 503;
    });
    thaw(first);
    const { status, message } = await done.answer;
    assertEquals([status, message.status], [200, "WRITE_SUCCESS"]);
    assertEquals((await cluster.node(first).exited).code, 0);
    await cluster.restart(first);

    // Not for ever: then nobody knows, and the client must not send it again.
    const second = await cluster.leader();
    const unknown = await stuckWrite(cluster, second);
    assertEquals((await cluster.stop(second)).code, 0);
    const { status: outcome, text } = await unknown.answer;
    assertEquals(outcome, 409, text);
    assertMatch(text, /\(OUTCOME_UNKNOWN\)$/m);
    thaw(second);
  },
);

clusterTest("kvconnect: nodes are restarted one by one, no program notices", {
  kvConnect: ONE_DATABASE,
}, async (cluster) => {
  const urls = cluster.ids.map((id) => cluster.httpUrl(id));
  await using balancer = new Balancer(urls);
  const [add, check] = await Promise.all([
    incrementers("add", [balancer.url]),
    incrementers("check", [balancer.url]),
  ]);
  const watchers = await watchFrom(balancer.url, await clients());
  for (const id of cluster.ids) {
    assertEquals((await cluster.stop(id)).code, 0);
    await cluster.restart(id);
    await cluster.leader();
  }
  await sets(balancer.url, ["set", ["w", 2], "end"]);
  for (const { output } of watchers) {
    assertEquals(lastLine(await output), '["first","end"]');
  }
  const [added, checked] = await Promise.all([add(), check()]);
  assertEquals([added.errors, checked.errors], [0, 0]);
  assertOnce({ ...checked, acknowledged: checked.written.length });
  const count = Number(await does(balancer.url, [["get", ["add"]]]));
  assertGreaterOrEqual(count, added.acknowledged);
  assertGreaterOrEqual(balancer.writes, count);
});

/** However many pages it takes, a read is of one revision, and so are its ranges. */
async function oneRevision(cluster: TestCluster): Promise<void> {
  const wire = await Wire.open(cluster.httpUrl("node1"), token);
  const keys = Array.from({ length: 12 }, (_, at) => {
    return Buffer.from(`\x02big\0\x02${String.fromCharCode(97 + at)}\0`);
  });
  let isOver = false;
  const write = async () => {
    for (let round = 0; !isOver; round++) {
      const mutations = keys.map((key) => ({
        key,
        value: { data: Buffer.alloc(60_000, round), encoding: 3 },
        mutationType: 1,
      }));
      const { status } = await wire.call("atomic_write", { mutations });
      assertEquals(status, 200);
    }
  };
  const writing = Promise.all([write(), write(), write(), write()]);
  const stamps = new Set<string>();
  const bounds = {
    start: Buffer.from("\x02big\0\0"),
    end: Buffer.from("\x02big\0\xff", "latin1"),
  };
  try {
    while (stamps.size < 40) {
      const ranges = [false, true, false].map((reverse) => ({
        ...bounds,
        limit: 100,
        reverse,
      }));
      const { message } = await wire.call("snapshot_read", { ranges });
      const read = message.ranges as {
        values: { key: string; versionstamp: string }[];
      }[];
      const all = read.flatMap(({ values }) => values);
      if (all.length === 0) continue;
      const names = keys.map((key) => key.toString("base64"));
      assertEquals(
        read.map(({ values }) => values.map(({ key }) => key)),
        [names, names.toReversed(), names],
      );
      const found = new Set(all.map(({ versionstamp }) => versionstamp));
      assertEquals(found.size, 1);
      stamps.add(all[0]!.versionstamp);
    }
  } finally {
    isOver = true;
    await writing;
  }
}

clusterTest("kvconnect: limits are as high as the configuration says", {
  nodes: 1,
  kvConnect: {
    ...ONE_DATABASE,
    limits: {
      valueBytesMax: 500_000,
      payloadBytesMax: 900_000,
      checksMax: 300,
      mutationsMax: 2000,
      rangesMax: 20,
      entriesMax: 3000,
      watchedKeysMax: 30,
    },
  },
}, async (cluster) => {
  const wire = await Wire.open(cluster.httpUrl("node1"), token);
  const key = (at: number) => Buffer.from(`\x02${at}\0`);
  const many = <T>(count: number, one: (at: number) => T) =>
    Array.from({ length: count }, (_, at) => one(at));
  const set = (at: number, bytes: number) => ({
    key: key(at),
    value: { data: Buffer.alloc(bytes, 7), encoding: 3 },
    mutationType: 1,
  });
  const writes = (...mutations: unknown[]) =>
    wire.call("atomic_write", { mutations });
  const checks = (count: number) =>
    wire.call("atomic_write", {
      checks: many(count, () => ({ key: key(0), versionstamp: "" })),
    });
  const reads = (count: number, limit: number) =>
    wire.call("snapshot_read", {
      ranges: many(count, () => ({ start: key(0), end: key(1), limit })),
    });
  const watches = (count: number) =>
    wire.call("watch", { keys: many(count, (at) => ({ key: key(at) })) });
  const cases: [string, () => ReturnType<Wire["call"]>, number][] = [
    ["300 checks", () => checks(300), 200],
    ["301 checks", () => checks(301), 400],
    ["a value of 500,000", () => writes(set(0, 500_000)), 200],
    ["a value of 500,001", () => writes(set(0, 500_001)), 413],
    ["899,994 bytes", () => writes(set(0, 499_997), set(1, 399_997)), 200],
    ["900,001 bytes", () => writes(set(0, 499_997), set(1, 399_998)), 413],
    ["2,000 changes", () => writes(...many(2000, (at) => set(at, 1))), 200],
    ["2,001 changes", () => writes(...many(2001, (at) => set(at, 1))), 400],
    ["20 ranges", () => reads(20, 150), 200],
    ["21 ranges", () => reads(21, 1), 400],
    ["3,001 entries", () => reads(1, 3001), 400],
    ["30 keys watched", () => watches(30), 200],
    ["31 keys watched", () => watches(31), 400],
  ];
  for (const [what, call, status] of cases) {
    const answer = await call();
    assertEquals(answer.status, status, `${what}: ${answer.text}`);
  }
  const { message } = await wire.call("snapshot_read", {
    ranges: [{ start: Buffer.of(2), end: Buffer.of(3), limit: 3000 }],
  });
  const [range] = message.ranges as { values: unknown[] }[];
  assertEquals(range?.values.length, 2000);
  await oneRevision(cluster);
});

needs(
  CLUSTER_NEEDS,
  "kvconnect: tokens in a file, under the permissions of nodes and of the binary",
  async () => {
    await using dir = await tempDir();
    const tokenFile = `${dir.path}/tokens`;
    await Deno.writeTextFile(tokenFile, `${TOKENS.npm}\n${token}\n`);
    await using cluster = await TestCluster.start({
      nodes: 1,
      kvConnect: { databases: [{ name: "default", tokenFile }] },
    });
    const url = cluster.httpUrl("node1");
    await does(url, [["set", ["a"], 1]]);
    const rejected = () => does(url, [], { bearer: TOKENS.node });
    await assertRejects(rejected, Error, "401");
    assertEquals(await does(url, [["get", ["a"]]], { bearer: TOKENS.npm }), 1);
    // A token that is no longer there opens nothing after the next start.
    assertEquals((await cluster.stop("node1")).code, 0);
    await Deno.writeTextFile(tokenFile, `${TOKENS.npm}\n`);
    const options = { permissions: "compile" };
    const args = ["node", "--id", "node1", "--config", cluster.configPath];
    const child = startDkv(
      [...args, "--data", cluster.dataDir("node1")],
      options,
    );
    try {
      await eventually("the node", () => Wire.open(url, TOKENS.npm));
      assertEquals(
        await does(url, [["get", ["a"]]], { bearer: TOKENS.npm }),
        1,
      );
      await assertRejects(() => does(url, [["get", ["a"]]]), Error, "401");
    } finally {
      child.kill("SIGTERM");
      await child.output();
    }
  },
  { sanitizeOps: false, sanitizeResources: false },
);
