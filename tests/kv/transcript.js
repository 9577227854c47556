/**
 * A program that uses everything of Deno KV and prints what it saw, one line for each thing. It runs
 * under every client on a cluster and on `:memory:`, whose lines are the right ones; versionstamps
 * are printed as their rank, and errors without their text. JavaScript, because Node runs it too.
 *
 *     transcript.js URL|:memory:
 *
 * @module
 */

import { args, isBuiltin, open } from "./open.js";

const { kv, KvU64 } = await open(args[0]);
const ranks = new Map([[null, "absent"]]);

function rank(versionstamp) {
  if (!ranks.has(versionstamp)) ranks.set(versionstamp, `#${ranks.size}`);
  return ranks.get(versionstamp);
}

function show(value) {
  if (typeof value === "bigint") return `${value}n`;
  if (value instanceof KvU64) return `KvU64 ${value.value}`;
  if (value instanceof Uint8Array) return `bytes ${[...value]}`;
  if (value instanceof Date) return `date ${value.getTime()}`;
  if (value instanceof RegExp) return String(value);
  if (value instanceof Map) return `map ${show([...value])}`;
  if (value instanceof Set) return `set ${show([...value])}`;
  if (Array.isArray(value)) return `[${value.map(show).join(", ")}]`;
  if (typeof value === "number" || value === undefined) {
    return Object.is(value, -0) ? "-0" : String(value);
  }
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const fields = Object.entries(value).map(([k, v]) => `${k}: ${show(v)}`);
  return `{${fields.join(", ")}}`;
}

function entry({ key, value, versionstamp }) {
  return `${show(key)} = ${show(value)} ${rank(versionstamp)}`;
}

/** The hexadecimal versionstamp in a key is another one on each store. */
function suffixed({ key, value }) {
  const isRight = /^[0-9a-f]{20}$/.test(key.at(-1));
  return `${show(key.slice(0, -1))} ${isRight} = ${show(value)}`;
}

let step = "";
function print(text) {
  console.log(`${step}: ${text}`);
}

async function expectError(name, run) {
  try {
    await run();
    print(`${name}: no error`);
  } catch {
    print(`${name}: error`);
  }
}

async function list(selector, options) {
  const iterator = kv.list(selector, options);
  const entries = [];
  for await (const one of iterator) entries.push(entry(one));
  print(
    `${show(selector)} ${
      show({ ...options, cursor: options?.cursor !== undefined })
    }: ${entries.join(" | ")}`,
  );
  return entries.length > 0 ? iterator.cursor : "";
}

const VALUES = [
  0,
  -0,
  1.5,
  NaN,
  -Infinity,
  2 ** 40,
  -(2 ** 31),
  2 ** 32 - 1,
  "",
  "text",
  "häß \u{1f600}",
  true,
  false,
  null,
  undefined,
  0n,
  -1n,
  2n ** 70n,
  new Uint8Array([]),
  new Uint8Array([0, 1, 255]),
  new KvU64(0n),
  new KvU64(2n ** 64n - 1n),
  [1, [2, "3"]],
  { a: { b: [null] } },
  new Date(5),
  /a+/g,
  new Map([[1, { a: 2 }]]),
  new Set(["x"]),
];
const PARTS = [
  new Uint8Array([]),
  new Uint8Array([0, 255, 1]),
  "",
  "a",
  "a\0b",
  "ä",
  -(2n ** 70n),
  -256n,
  -1n,
  0n,
  1n,
  255n,
  2n ** 70n,
  -Infinity,
  -1.5,
  0,
  1,
  1e300,
  false,
  true,
];

step = "values";
for (const [at, value] of VALUES.entries()) {
  const { ok, versionstamp } = await kv.set(["v", at], value);
  print(`${ok} ${rank(versionstamp)} ${entry(await kv.get(["v", at]))}`);
}
await list({ prefix: ["v"] }, { batchSize: 7 });

step = "keys";
for (const [at, part] of PARTS.toReversed().entries()) {
  await kv.set(["k", part], at);
}
await list({ prefix: ["k"] });
await list({ prefix: ["k"] }, { reverse: true, limit: 9, batchSize: 2 });
await list({ start: ["k", "a"], end: ["k", 1n] });
await list({ prefix: ["k"], start: ["k", 0n] }, { limit: 4 });
await list({ prefix: ["k"], end: ["k", 0n] }, { reverse: true });
await list({ prefix: ["nothing"] });
let cursor;
for (let page = 0; page < 4; page++) {
  cursor = await list({ prefix: ["k"] }, { limit: 6, cursor });
  if (cursor === "") break;
}
cursor = undefined;
for (let page = 0; page < 3; page++) {
  cursor = await list({ prefix: ["k"] }, { limit: 8, reverse: true, cursor });
  if (cursor === "") break;
}
const many = await kv.getMany([["k", "a"], ["none"], ["v", 3], ["k", "a"]]);
print(many.map(entry).join(" | "));
print(entry(await kv.get(["none"], { consistency: "eventual" })));

step = "atomic";
const first = await kv.atomic().check({ key: ["at"], versionstamp: null })
  .set(["at"], 1).set(["at"], 2).delete(["none"]).commit();
print(`${first.ok} ${rank(first.versionstamp)} ${entry(await kv.get(["at"]))}`);
const again = await kv.atomic().check({ key: ["at"], versionstamp: null })
  .set(["at"], 3).commit();
print(show(again));
const next = await kv.atomic()
  .check({ key: ["at"], versionstamp: first.versionstamp })
  .delete(["at"]).sum(["at"], 1n).sum(["at"], 2n)
  .set(["at2"], "x").delete(["at2"]).commit();
print(`${next.ok} ${next.versionstamp > first.versionstamp}`);
print(entry(await kv.get(["at"])));
print(entry(await kv.get(["at2"])));
const nothing = await kv.atomic().commit();
const nothing2 = await kv.atomic().check(await kv.get(["at"])).commit();
print(`${nothing.ok} ${nothing.versionstamp > next.versionstamp}`);
print(`${nothing2.ok} ${nothing2.versionstamp > nothing.versionstamp}`);
await kv.delete(["at"]);
await kv.delete(["at"]);
print(entry(await kv.get(["at"])));
step = "u64";
for (
  const [type, value] of [
    ["sum", 5n],
    ["sum", 2n ** 64n - 3n],
    ["max", 7n],
    ["max", 1n],
    ["min", 3n],
    ["min", 2n ** 64n - 1n],
  ]
) {
  await kv.atomic()[type](["u", type], value).commit();
  await kv.atomic()[type](["u"], value).commit();
  print(`${type} ${value}: ${entry(await kv.get(["u"]))}`);
}
for (const type of ["sum", "min", "max"]) {
  for (const at of [0, 9, 15, 19]) {
    await expectError(
      `${type} on ${show(VALUES[at])}`,
      () => kv.atomic()[type](["v", at], 1n).commit(),
    );
  }
}

step = "sum";
const sums = [
  { value: 5 },
  { value: -1.5 },
  { value: 10, max: 8, clamp: true },
  { value: -100, min: -3, clamp: true },
  { value: 100, max: 8 },
  { value: 1n },
  { value: 1, min: 1n },
  { value: new KvU64(1n) },
];
// The npm client has these for KvU64 alone.
if (isBuiltin) {
  for (const mutation of sums) {
    await expectError(
      show(mutation),
      () =>
        kv.atomic().mutate({ type: "sum", key: ["s"], ...mutation }).commit(),
    );
    print(entry(await kv.get(["s"])));
  }
  for (
    const mutation of [
      { value: 2n ** 70n },
      { value: -(2n ** 71n) },
      { value: 1n, max: 0n, clamp: true },
      { value: 5n, min: 2n, max: 3n, clamp: true },
      { value: -9n, min: 0n },
      { value: -3n, min: 0n },
      { value: 1 },
    ]
  ) {
    await expectError(
      show(mutation),
      () =>
        kv.atomic().mutate({ type: "sum", key: ["b"], ...mutation }).commit(),
    );
    print(entry(await kv.get(["b"])));
  }
  await kv.set(["u2"], new KvU64(5n));
  for (const value of [3n, -1n, 2n ** 64n]) {
    await expectError(
      show(value),
      () => kv.atomic().mutate({ type: "sum", key: ["u2"], value }).commit(),
    );
    print(entry(await kv.get(["u2"])));
  }
  // JavaScript writes small integers in another form than sums are in.
  await kv.set(["i"], -7);
  await kv.atomic().mutate({ type: "sum", key: ["i"], value: 2 ** 31 })
    .commit();
  print(entry(await kv.get(["i"])));

  step = "versionstamped";
  const stamped = await kv.atomic()
    .set(["log", kv.commitVersionstamp()], "a").set(["log2"], "b").commit();
  await kv.set(["log", kv.commitVersionstamp()], "c");
  for await (const one of kv.list({ prefix: ["log"] })) print(suffixed(one));
  const own = await kv.get(["log", stamped.versionstamp]);
  print(`${own.value} ${own.versionstamp === stamped.versionstamp}`);
}

step = "limits";
await expectError("key", () => kv.set(["x".repeat(2046)], 1));
await kv.set(["x".repeat(2044)], 1);
print(entry(await kv.get(["x".repeat(2044)])).length);
await expectError("value", () => kv.set(["big"], new Uint8Array(65537)));
await kv.set(["big"], new Uint8Array(65536).fill(7));
print((await kv.get(["big"])).value.length);
await expectError("payload", () => {
  const atomic = kv.atomic();
  for (let at = 0; at < 13; at++) {
    atomic.set(["big", at], new Uint8Array(65536));
  }
  return atomic.commit();
});
const tenChecks = kv.atomic();
for (let at = 0; at < 10; at++) {
  tenChecks.check({ key: ["none", at], versionstamp: null });
}
print((await tenChecks.set(["checked"], 1).commit()).ok);
const thousand = kv.atomic();
for (let at = 0; at < 1000; at++) thousand.set(["t", at], at);
print((await thousand.commit()).ok);
let sum = 0;
for await (const one of kv.list({ prefix: ["t"] }, { batchSize: 500 })) {
  sum += one.value;
}
print(sum);

kv.close();
