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
} from "@std/assert";
import { Buffer } from "node:buffer";
import { clusterTest, eventually, type TestCluster } from "./cluster.ts";
import { packagePath, run, start } from "./kv/process.ts";
import { has } from "./needs.ts";

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
  const [node1 = "", node2 = "", node3 = ""] = cluster.ids.map((id) =>
    cluster.httpUrl(id)
  );
  const name = "transcript.js";
  const hasNode = has(["node"]);
  const [memory, builtin, npm, node] = await Promise.all([
    run(name, { args: ["builtin", ":memory:"] }),
    run(name, { args: ["builtin", node1], token: TOKENS.builtin }),
    run(name, { args: ["npm", node2], token: TOKENS.npm, client: "npm" }),
    hasNode
      ? run(name, {
        args: ["npm", node3, await packagePath()],
        token: TOKENS.node,
        client: "node",
      })
      : null,
  ]);
  assertMatch(memory, /^limits: 499500$/m);
  assertEquals(builtin, memory);
  assertEquals(npm, withoutBuiltin(memory));
  if (node !== null) assertEquals(node, withoutBuiltin(memory));
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
  cluster: TestCluster,
  id: string,
  ...steps: Step[]
): Promise<unknown> {
  const args = [cluster.httpUrl(id), JSON.stringify(steps)];
  return JSON.parse(await run("writer.ts", { args, token }));
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
  const waits = await Promise.all(
    cluster.ids.map((id) => does(cluster, id, ["gone", ["e", id], "x", 700])),
  );
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
  const args = [cluster.httpUrl("node2")];
  const watcher = start("watcher.ts", { args, token });
  await does(
    cluster,
    "node1",
    ["sleep", [], null, 1000],
    ["set", ["w", 1], "one"],
    ["sleep", [], null, 200],
    ["expire", ["w", 1], "two", 300],
    ["sleep", [], null, 900],
    ["set", ["w", 2], "end"],
  );
  const lines = (await watcher.output).trim().split("\n");
  assertEquals(lines, [
    "[null,null]",
    '["one",null]',
    '["two",null]',
    "[null,null]",
    '[null,"end"]',
  ]);
}

async function races(cluster: TestCluster): Promise<void> {
  const urls = cluster.ids.map((id) => cluster.httpUrl(id));
  const loads = ["add", "check"].map((kind) =>
    start("load.ts", { args: [kind, "16", kind, ...urls], token })
  );
  await new Promise((resolve) => setTimeout(resolve, 2500));
  for (const load of loads) await load.end();
  for (const [at, kind] of ["add", "check"].entries()) {
    const told = JSON.parse(await loads[at]!.output);
    const value = await run("read.ts", { args: [kind, urls[0]!], token });
    assertEquals([told.errors, told.repeated], [0, 0]);
    assertEquals(Number(value), told.acknowledged, kind);
    assert(told.acknowledged > 0);
  }
}

clusterTest("kvconnect: every client, everything", {
  kvConnect: KV_CONNECT,
}, async (cluster) => {
  await Promise.all([sameStory(cluster), exchange(cluster)]);
  await refusals(cluster);
  await Promise.all([expiry(cluster), watches(cluster)]);
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

clusterTest("kvconnect: nodes die, clients do not notice", {
  kvConnect: { databases: [{ name: "default", tokens: [token] }] },
}, async (cluster) => {
  const leader = await cluster.leader();
  const [follower = "", ...rest] = await cluster.followers();
  await does(cluster, leader, ["set", ["kept"], { a: 1 }]);
  const urls = [follower, ...rest].map((id) => cluster.httpUrl(id));
  const load = start("load.ts", { args: ["add", "8", "n", ...urls], token });
  const watcher = start("watcher.ts", { args: [urls[0]!], token });
  await new Promise((resolve) => setTimeout(resolve, 1200));
  await cluster.kill(leader);
  // Of the two that are left, both are asked, and they answer when one of them leads.
  await does(cluster, follower, ["set", ["w", 1], "later"]);
  await load.end();
  const told = JSON.parse(await load.output);
  assertEquals(told.errors, 0);
  const value = await run("read.ts", { args: ["n", urls[0]!], token });
  assertEquals(Number(value), told.acknowledged);
  await cluster.killAll();
  await Promise.all(cluster.ids.map((id) => cluster.restart(id)));
  assertEquals(await does(cluster, leader, ["get", ["kept"]]), { a: 1 });
  // The watch of before goes on.
  await does(cluster, follower, ["set", ["w", 2], "end"]);
  const lines = (await watcher.output).trim().split("\n");
  assertEquals(lines.at(-1), '["later","end"]');
});
