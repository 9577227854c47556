/**
 * An atomic write of Deno KV as a person would explain it: the mutations one after the other on a
 * copy, V8's own reader for numbers, and what is different in the end. Used by `model.ts`.
 *
 * @module
 */

import { deserialize, serialize } from "node:v8";
import type { StoredEntry } from "../batch.ts";
import type { KvEncoding } from "../kvvalue.ts";
import type { MutateRequest, Mutation } from "../mutate.ts";

/** What a write comes to: what to put (null: delete) in this order, or why nothing is done. */
export type ModelMutate =
  | { readonly refused: "VALUE_INVALID" | "VALUE_TOO_LARGE" }
  | { readonly failedChecks: readonly number[] }
  | { readonly changes: readonly (readonly [string, Uint8Array | null])[] };

interface Value {
  readonly encoding: KvEncoding;
  readonly data: readonly number[];
  readonly expireAtMs: number;
}

type Values = Map<string, Value | null>;

const CODES: readonly KvEncoding[] = ["v8", "u64", "bytes"];

/** Works a write out; `revision` is the one that it would get. */
export function mutateModel(
  { database, nowMs, checks, mutations }: MutateRequest,
  { now, revision, valueBytesMax }: {
    now: ReadonlyMap<string, StoredEntry>;
    revision: number;
    valueBytesMax: number;
  },
): ModelMutate {
  const entry = (key: string) => now.get(`denokv/${database}/${key}`);
  const stored = (key: string) => {
    const found = entry(key);
    return found === undefined ? null : parse([...found.value]);
  };
  const seen = (key: string) => {
    const value = stored(key);
    const isOver = value !== null && value.expireAtMs !== 0 &&
      value.expireAtMs <= nowMs;
    return isOver ? null : value;
  };
  const failedChecks = checks.flatMap(({ key, versionstamp }, at) => {
    const present = seen(key) === null ? "" : stamp(entry(key)!.modRevision);
    return present === versionstamp ? [] : [at];
  });
  if (failedChecks.length > 0) return { failedChecks };

  const after: Values = new Map();
  const over = new Set<string>();
  // Keys are changed in the order in which the write speaks of them first.
  const order = [...checks.map(({ key }) => key)];
  for (const mutation of mutations) {
    const key = mutation.type === "setSuffixed"
      ? `${mutation.key}\x02${hex(stamp(revision))}\0`
      : mutation.key;
    order.push(key);
    if (mutation.type === "expire") {
      const value = stored(key);
      if (value?.expireAtMs !== mutation.expireAtMs) {
        over.add(expiryName(key, { ...mutation, database }));
      } else if (seen(key) === null) after.set(key, null);
      continue;
    }
    const before = after.has(key) ? after.get(key)! : seen(key);
    const next = changed(before, mutation);
    if (next === "impossible") return { refused: "VALUE_INVALID" };
    const isComputed = ["sum", "min", "max"].includes(mutation.type);
    if (isComputed && next !== null && next.data.length > valueBytesMax) {
      return { refused: "VALUE_TOO_LARGE" };
    }
    after.set(key, next);
  }

  const changes = differences(new Set(order), {
    database,
    after,
    stored,
    over: [...over],
  }).filter(([key, value]) => value !== null || now.has(key));
  const isSweep = mutations.some(({ type }) => type === "expire");
  if (changes.length === 0 && !isSweep) {
    changes.push([`denokv.commits/${database}`, new Uint8Array(0)]);
  }
  return { changes };
}

/** What to put and delete; an expiry that is deleted need not be there. */
function differences(
  keys: Iterable<string>,
  { database, after, stored, over }: {
    database: string;
    after: Values;
    stored: (key: string) => Value | null;
    over: readonly string[];
  },
): [string, Uint8Array | null][] {
  const changes: [string, Uint8Array | null][] = [];
  const gone = new Set(over);
  for (const key of keys) {
    if (!after.has(key)) continue;
    const [before, next] = [stored(key), after.get(key)!];
    if (next !== null || before !== null) {
      changes.push([`denokv/${database}/${key}`, next && unparse(next)]);
    }
    if ((before?.expireAtMs ?? 0) === (next?.expireAtMs ?? 0)) continue;
    if (before !== null && before.expireAtMs !== 0) {
      gone.add(expiryName(key, { ...before, database }));
    }
    if (next !== null && next.expireAtMs !== 0) {
      const name = expiryName(key, { ...next, database });
      changes.push([name, new Uint8Array(0)]);
    }
  }
  for (const key of gone) changes.push([key, null]);
  return changes;
}

function expiryName(
  key: string,
  { database, expireAtMs }: { database: string; expireAtMs: number },
): string {
  return `denokv.expiry/${database}/${number(expireAtMs)}${key}`;
}

function changed(
  before: Value | null,
  mutation: Exclude<Mutation, { type: "expire" }>,
): Value | null | "impossible" {
  if (mutation.type === "delete") return null;
  const { encoding, data } = mutation.value;
  const given = { encoding, data: [...data], expireAtMs: 0 };
  switch (mutation.type) {
    case "set":
    case "setSuffixed":
      return { ...given, expireAtMs: mutation.expireAtMs };
    case "min":
    case "max": {
      const [a, b] = [uint(before), uint(given)];
      if (b === null || before !== null && a === null) return "impossible";
      if (a === null) return given;
      return uintValue((a < b) === (mutation.type === "min") ? a : b);
    }
    case "sum":
      return summed(before, { ...mutation, given });
  }
}

function summed(
  before: Value | null,
  { given, min, max, clamp }: {
    given: Value;
    min: Uint8Array;
    max: Uint8Array;
    clamp: boolean;
  },
): Value | "impossible" {
  if (given.encoding === "u64") {
    const [a, b] = [before === null ? 0n : uint(before), uint(given)];
    return a === null || b === null ? "impossible" : uintValue(a + b);
  }
  const limits = [min, max].map((limit) =>
    limit.length === 0
      ? undefined
      : numeric({ encoding: "v8", data: [...limit] })
  );
  const by = numeric(given);
  const isOdd = limits.some((limit) =>
    limit === null || limit !== undefined && typeof limit !== typeof by
  );
  if (by === null || isOdd) return "impossible";
  if (before === null) return numericValue(by);
  const old = uint(before);
  const isUnbounded = min.length + max.length === 0 && !clamp;
  if (old !== null) {
    const isFit = typeof by === "bigint" && by >= 0n && by < 2n ** 64n;
    return isFit && isUnbounded ? uintValue(old + by) : "impossible";
  }
  const present = numeric(before);
  if (present === null || typeof present !== typeof by) return "impossible";
  // @ts-ignore: both are of one type.
  const total: number | bigint = present + by;
  const [least, most] = limits;
  const atLeast = least != null && total < least ? least : total;
  const bounded = most != null && atLeast > most ? most : atLeast;
  if (bounded !== total && !Number.isNaN(total) && !clamp) return "impossible";
  return numericValue(bounded);
}

// ------------------------------------------------------------------ bytes

function parse(bytes: number[]): Value {
  const [first = 0, ...rest] = bytes;
  const encoding = CODES[(first & 127) - 1];
  const isExpiring = first > 127;
  const expireAtMs = isExpiring
    ? Number(
      rest.slice(0, 8).reduce((sum, byte) => sum * 256n + BigInt(byte), 0n),
    )
    : 0;
  const data = isExpiring ? rest.slice(8) : rest;
  const isSound = encoding !== undefined &&
    (!isExpiring ||
      rest.length >= 8 && expireAtMs > 0 && Number.isSafeInteger(expireAtMs)) &&
    (encoding !== "u64" || data.length === 8);
  return isSound
    ? { encoding, data, expireAtMs }
    : { encoding: "bytes", data: bytes, expireAtMs: 0 };
}

function unparse({ encoding, data, expireAtMs }: Value): Uint8Array {
  const code = CODES.indexOf(encoding) + 1;
  if (expireAtMs === 0) return Uint8Array.from([code, ...data]);
  const time = [...number(expireAtMs)].map((unit) => unit.charCodeAt(0));
  return Uint8Array.from([code + 128, ...time, ...data]);
}

function uint(value: Value | null): bigint | null {
  if (value?.encoding !== "u64" || value.data.length !== 8) return null;
  return value.data.reduceRight((sum, byte) => sum * 256n + BigInt(byte), 0n);
}

function uintValue(total: bigint): Value {
  const data = Array.from(
    { length: 8 },
    (_, at) => Number(total >> BigInt(8 * at) & 255n),
  );
  return { encoding: "u64", data, expireAtMs: 0 };
}

function numeric(
  { encoding, data }: Pick<Value, "encoding" | "data">,
): number | bigint | null {
  if (encoding !== "v8") return null;
  try {
    const value = deserialize(Uint8Array.from(data));
    return typeof value === "number" || typeof value === "bigint"
      ? value
      : null;
  } catch {
    return null;
  }
}

function numericValue(value: number | bigint): Value {
  const data = typeof value === "bigint"
    ? [...serialize(value)]
    : Number.isNaN(value)
    ? [255, 15, 0x4e, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f]
    : [255, 15, 0x4e, ...new Uint8Array(Float64Array.of(value).buffer)];
  return { encoding: "v8", data, expireAtMs: 0 };
}

/** 8 bytes, big-endian, as latin1. */
function number(value: number): string {
  const digits = value.toString(16).padStart(16, "0").match(/../g) ?? [];
  return digits.map((two) => String.fromCharCode(parseInt(two, 16))).join("");
}

/** The versionstamp of a revision. */
export function stamp(revision: number): string {
  return `${number(revision)}\0\0`;
}

function hex(latin1: string): string {
  return [...latin1].map((unit) =>
    unit.charCodeAt(0).toString(16).padStart(2, "0")
  ).join("");
}
