/** What an atomic write of Deno KV does, on a store in memory. */

import { assert, assertEquals } from "@std/assert";
import type { StoredEntry } from "../batch.ts";
import {
  commitKey,
  entryKey,
  expiredRange,
  expiryKey,
  expiryOf,
} from "../kvspace.ts";
import {
  fromOperand,
  type KvValue,
  openValue,
  type Operand,
  toOperand,
  versionstampOf,
} from "../kvvalue.ts";
import { evaluate } from "../mutations.ts";
import type { MutateCheck, Mutation } from "../mutate.ts";

const EMPTY = new Uint8Array(0);
const NOW = 1_000_000;
const TEXT: KvValue = { encoding: "bytes", data: new Uint8Array([1]) };

/** Applies what `evaluate` says. */
class Store {
  readonly entries = new Map<string, StoredEntry>();
  revision = 1;

  write(
    mutations: readonly Mutation[],
    { checks = [], nowMs = NOW }: {
      checks?: readonly MutateCheck[];
      nowMs?: number;
    } = {},
  ): string {
    const outcome = evaluate(
      { type: "mutate", database: "db", nowMs, checks, mutations },
      {
        revision: this.revision + 1,
        read: (key) => this.entries.get(key) ?? null,
        valueBytesMax: 100,
      },
    );
    if (outcome.type === "error") return outcome.message;
    if (outcome.type === "failed") return `failed ${outcome.checks}`;
    const { changes } = outcome;
    // A key changes once in a revision.
    assertEquals(new Set(changes.map(({ key }) => key)).size, changes.length);
    if (changes.length === 0) return "nothing";
    this.revision++;
    for (const { key, value } of changes) {
      if (value === null) assert(this.entries.delete(key), key);
      else {
        const modRevision = this.revision;
        const [createRevision, version] = [1, 1];
        this.entries.set(key, {
          key,
          value,
          createRevision,
          modRevision,
          version,
          lease: 0n,
        });
      }
    }
    return "ok";
  }

  value(key: string): Operand["value"] | null {
    const entry = this.entries.get(entryKey("db", key));
    if (entry === undefined) return null;
    return toOperand(openValue(entry.value))?.value ?? null;
  }

  has(key: string): boolean {
    return this.entries.has(entryKey("db", key));
  }

  /** Keys that say when something expires. */
  expiries(): string[] {
    return [...this.entries.keys()].filter((key) =>
      key.startsWith("denokv.expiry/")
    );
  }
}

function number(value: number): KvValue {
  return fromOperand({ type: "number", value });
}

function bigint(value: bigint): KvValue {
  return fromOperand({ type: "bigint", value });
}

function u64(value: bigint): KvValue {
  return fromOperand({ type: "u64", value });
}

function set(key: string, value = TEXT, expireAtMs = 0): Mutation {
  return { type: "set", key, value, expireAtMs };
}

function sum(
  value: KvValue,
  limits: { min?: KvValue; max?: KvValue; clamp?: boolean } = {},
): Mutation {
  return {
    type: "sum",
    key: "n",
    value,
    min: limits.min?.data ?? EMPTY,
    max: limits.max?.data ?? EMPTY,
    clamp: limits.clamp ?? false,
  };
}

Deno.test("mutations: checks look at what was before the write", () => {
  const store = new Store();
  const absent = { key: "a", versionstamp: "" };
  assertEquals(store.write([set("a")], { checks: [absent] }), "ok");
  const present = { key: "a", versionstamp: versionstampOf(store.revision) };
  const other = { key: "a", versionstamp: versionstampOf(store.revision + 1) };
  assertEquals(
    store.write([set("b")], { checks: [present, absent, other] }),
    "failed 1,2",
  );
  assertEquals(store.has("b"), false);
  const result = store.write([set("a"), { type: "delete", key: "a" }], {
    checks: [present],
  });
  assertEquals([result, store.has("a")], ["ok", false]);
});

Deno.test("mutations: later ones see what earlier ones did", () => {
  const store = new Store();
  store.write([set("n")]);
  const mutations = [
    { type: "delete", key: "n" } as const,
    sum(u64(1n)),
    sum(u64(2n)),
  ];
  assertEquals(store.write(mutations), "ok");
  assertEquals(store.value("n"), 3n);
});

Deno.test("mutations: one that is impossible leaves nothing behind", () => {
  const store = new Store();
  store.write([set("n")]);
  const before = store.revision;
  const text = store.write([set("a"), sum(u64(1n)), set("b")]);
  assertEquals(text, "Mutation 1, sum: the stored value is no KvU64");
  assertEquals([store.has("a"), store.has("b")], [false, false]);
  assertEquals(store.revision, before);
});

Deno.test("mutations: each commit has a revision, also one that changes nothing", () => {
  const store = new Store();
  assertEquals(store.write([]), "ok");
  assertEquals(store.write([{ type: "delete", key: "x" }]), "ok");
  assertEquals(store.revision, 3);
  assertEquals([...store.entries.keys()], [commitKey("db")]);
});

Deno.test("mutations: sums of numbers and bigints, with limits", () => {
  const cases: [KvValue | null, Mutation, number | bigint | string][] = [
    [null, sum(number(5), { max: number(3) }), 5],
    [number(5), sum(number(-7.5)), -2.5],
    [number(5), sum(number(5), { max: number(8), clamp: true }), 8],
    [number(5), sum(number(-9), { min: number(0), clamp: true }), 0],
    [number(5), sum(number(3), { max: number(8) }), 8],
    [
      number(5),
      sum(number(4), { max: number(8) }),
      "the result is outside its limits",
    ],
    [bigint(5n), sum(bigint(2n ** 70n)), 2n ** 70n + 5n],
    [bigint(5n), sum(bigint(-9n), { min: bigint(-1n), clamp: true }), -1n],
    [
      bigint(5n),
      sum(bigint(-9n), { min: bigint(-1n) }),
      "the result is outside its limits",
    ],
    [bigint(5n), sum(number(1)), "a number is added to a bigint"],
    [
      number(5),
      sum(number(1), { min: bigint(0n) }),
      "a number has a limit that is a bigint",
    ],
    [
      number(5),
      sum(number(1), { min: TEXT }),
      "a limit is no number or bigint",
    ],
    [u64(5n), sum(bigint(3n)), 8n],
    [u64(2n ** 64n - 1n), sum(u64(3n)), 2n],
    [u64(5n), sum(bigint(-3n)), "a bigint is added to a u64"],
    [u64(5n), sum(bigint(3n), { clamp: true }), "a bigint is added to a u64"],
    [bigint(5n), sum(u64(3n)), "the stored value is no KvU64"],
    [number(5), sum(TEXT), "the operand is no number, bigint or KvU64"],
    [TEXT, sum(number(1)), "the stored value is no number, bigint or KvU64"],
    [bigint(2n ** 760n), sum(bigint(2n ** 768n)), "the result has"],
  ];
  for (const [at, [before, mutation, expected]] of cases.entries()) {
    const store = new Store();
    if (before !== null) store.write([set("n", before)]);
    const text = store.write([mutation]);
    if (typeof expected === "string") {
      assert(text.startsWith(`Mutation 0, sum: ${expected}`), `${at}: ${text}`);
    } else assertEquals([text, store.value("n")], ["ok", expected], `${at}`);
  }
});

Deno.test("mutations: the smaller and the larger of two KvU64", () => {
  const store = new Store();
  const apply = (type: "min" | "max", value: KvValue) =>
    store.write([{ type, key: "n", value }]);
  apply("max", u64(5n));
  apply("max", u64(3n));
  assertEquals(store.value("n"), 5n);
  apply("max", u64(2n ** 63n));
  assertEquals(store.value("n"), 2n ** 63n);
  apply("min", u64(7n));
  assertEquals(store.value("n"), 7n);
  assertEquals(
    apply("min", bigint(1n)),
    "Mutation 0, min: the operand is no KvU64",
  );
});

Deno.test("mutations: a versionstamped key ends with the write's own", () => {
  const store = new Store();
  store.write([{
    type: "setSuffixed",
    key: "\x02log\0",
    value: TEXT,
    expireAtMs: 0,
  }]);
  assert(store.has("\x02log\0\x0200000000000000020000\0"));
});

Deno.test("mutations: what has expired counts as absent, and comes to an end once", () => {
  const store = new Store();
  store.write([set("a", TEXT, NOW + 10), set("n", u64(9n), NOW + 20)]);
  const [first = ""] = store.expiries();
  assertEquals(expiryOf("db", first), { key: "a", expireAtMs: NOW + 10 });
  const { start, end } = expiredRange("db", NOW + 10);
  assert(first >= start && first < end!);
  const before = expiredRange("db", NOW + 9);
  assert(first >= before.end!);

  const nowMs = NOW + 20;
  const checks = [{ key: "a", versionstamp: "" }];
  assertEquals(store.write([sum(u64(1n))], { checks, nowMs }), "ok");
  // It was not added to what had expired, and has no expiry of its own.
  assertEquals([store.value("n"), store.expiries().length], [1n, 1]);
  const sweep = [{ type: "expire", key: "a", expireAtMs: NOW + 10 } as const];
  assertEquals(store.write(sweep, { nowMs: NOW + 9 }), "nothing");
  assertEquals(store.write(sweep, { nowMs }), "ok");
  assertEquals(store.write(sweep, { nowMs }), "nothing");
  assertEquals([store.has("a"), store.expiries()], [false, []]);
});

Deno.test("mutations: an expiry follows its entry", () => {
  const store = new Store();
  store.write([set("a", TEXT, NOW + 10)]);
  store.write([set("a", TEXT, NOW + 10)]);
  assertEquals(store.expiries().length, 1);
  store.write([set("a", TEXT, NOW + 30)]);
  const key = expiryKey("db", { key: "a", expireAtMs: NOW + 30 });
  assertEquals(store.expiries(), [key]);
  const stale = [{ type: "expire", key: "a", expireAtMs: NOW + 10 } as const];
  assertEquals(store.write(stale, { nowMs: NOW + 20 }), "nothing");
  assert(store.has("a"));
  store.write([{ type: "delete", key: "a" }]);
  assertEquals(store.expiries(), []);
});

Deno.test("mutations: an expiry that nothing stands behind is removed", () => {
  const store = new Store();
  store.write([set("a", TEXT, NOW + 10)]);
  // Somebody writes past Deno KV, and the expiry stays.
  const key = entryKey("db", "a");
  const value = new Uint8Array([9, 9]);
  store.entries.set(key, { ...store.entries.get(key)!, value });
  const sweep = [{ type: "expire", key: "a", expireAtMs: NOW + 10 } as const];
  assertEquals(store.write(sweep, { nowMs: NOW + 20 }), "ok");
  assertEquals([store.has("a"), store.expiries()], [true, []]);
});
