/**
 * An atomic write of Deno KV as a command carries it (`proto/entry.proto`, message Mutate). What it
 * does is said in `mutations.ts`. Used by `batch.ts`. Pure.
 *
 * @module
 */

import { DkvError } from "./errors.ts";
import { encodingNumber, encodingOf, type KvValue } from "./kvvalue.ts";
import type { Pen, Reader } from "./wire.ts";

/** A condition on one key. Keys are those of the database, one latin1 code unit for each byte. */
export interface MutateCheck {
  readonly key: string;
  /** 10 bytes as latin1; empty: the key must not exist. */
  readonly versionstamp: string;
}

/** One change. Later ones see what earlier ones did. */
export type Mutation =
  | {
    /** `setSuffixed` stores under the key with the write's versionstamp behind it. */
    readonly type: "set" | "setSuffixed";
    readonly key: string;
    readonly value: KvValue;
    /** Unix milliseconds; 0 means never. */
    readonly expireAtMs: number;
  }
  | { readonly type: "delete"; readonly key: string }
  | {
    readonly type: "sum";
    readonly key: string;
    readonly value: KvValue;
    /** V8 values that bound the sum; empty: no bound. */
    readonly min: Uint8Array;
    readonly max: Uint8Array;
    /** Take the bound instead of refusing what is beyond it. */
    readonly clamp: boolean;
  }
  | {
    readonly type: "min" | "max";
    readonly key: string;
    readonly value: KvValue;
  }
  | {
    /** Removes the entry if it still expires at this moment. Of the cluster itself, not of clients. */
    readonly type: "expire";
    readonly key: string;
    readonly expireAtMs: number;
  };

/** Checks, then changes, all or nothing, in one revision. */
export interface MutateRequest {
  readonly type: "mutate";
  /** The name of a database. */
  readonly database: string;
  /** The wall clock of the node that took it: what expired before counts as absent. */
  readonly nowMs: number;
  readonly checks: readonly MutateCheck[];
  readonly mutations: readonly Mutation[];
}

/** In the order of the enum's numbers. */
const TYPES = [
  "set",
  "setSuffixed",
  "delete",
  "sum",
  "min",
  "max",
  "expire",
] as const;

const EMPTY: Uint8Array = new Uint8Array(0);

/** Writes message Mutate of `proto/entry.proto` as a field. */
export function writeMutate(
  pen: Pen,
  field: number,
  request: MutateRequest,
): void {
  const { database, nowMs, checks, mutations } = request;
  const start = pen.open(field);
  if (database !== "") pen.latin1(1, database);
  if (nowMs !== 0) pen.int64(2, nowMs);
  for (const { key, versionstamp } of checks) {
    const inner = pen.open(3);
    if (key !== "") pen.latin1(1, key);
    if (versionstamp !== "") pen.latin1(2, versionstamp);
    pen.close(inner);
  }
  for (const mutation of mutations) {
    const inner = pen.open(4);
    writeMutation(pen, mutation);
    pen.close(inner);
  }
  pen.close(start);
}

function writeMutation(pen: Pen, mutation: Mutation): void {
  const type = TYPES.indexOf(mutation.type);
  if (type !== 0) pen.int64(1, type);
  if (mutation.key !== "") pen.latin1(2, mutation.key);
  if ("value" in mutation) {
    const { encoding, data } = mutation.value;
    pen.int64(3, encodingNumber(encoding));
    if (data.length !== 0) pen.bytes(4, data);
  }
  if ("expireAtMs" in mutation && mutation.expireAtMs !== 0) {
    pen.int64(5, mutation.expireAtMs);
  }
  if (mutation.type !== "sum") return;
  if (mutation.min.length !== 0) pen.bytes(6, mutation.min);
  if (mutation.max.length !== 0) pen.bytes(7, mutation.max);
  if (mutation.clamp) pen.int64(8, 1);
}

/**
 * Reads what {@linkcode writeMutate} wrote. Bytes that are none end in `DkvError` MALFORMED, as do
 * fields, types and encodings that this version does not know.
 */
export function readMutate(reader: Reader): MutateRequest {
  let database = "";
  let nowMs = 0;
  const checks: MutateCheck[] = [];
  const mutations: Mutation[] = [];
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === (1 << 3 | 2)) database = reader.latin1();
    else if (tag === 2 << 3) nowMs = reader.int64();
    else if (tag === (3 << 3 | 2)) checks.push(readCheck(reader));
    else if (tag === (4 << 3 | 2)) mutations.push(readMutation(reader));
    else unknownField(tag);
  }
  return { type: "mutate", database, nowMs, checks, mutations };
}

function readCheck(reader: Reader): MutateCheck {
  const outer = reader.enter();
  let key = "";
  let versionstamp = "";
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === (1 << 3 | 2)) key = reader.latin1();
    else if (tag === (2 << 3 | 2)) versionstamp = reader.latin1();
    else unknownField(tag);
  }
  reader.leave(outer);
  return { key, versionstamp };
}

function readMutation(reader: Reader): Mutation {
  const outer = reader.enter();
  let which = 0;
  let key = "";
  let encodingNumber = 0;
  let data = EMPTY;
  let expireAtMs = 0;
  let min = EMPTY;
  let max = EMPTY;
  let clamp = false;
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === 1 << 3) which = reader.int64();
    else if (tag === (2 << 3 | 2)) key = reader.latin1();
    else if (tag === 3 << 3) encodingNumber = reader.int64();
    else if (tag === (4 << 3 | 2)) data = reader.bytes();
    else if (tag === 5 << 3) expireAtMs = reader.int64();
    else if (tag === (6 << 3 | 2)) min = reader.bytes();
    else if (tag === (7 << 3 | 2)) max = reader.bytes();
    else if (tag === 8 << 3) clamp = reader.bool();
    else unknownField(tag);
  }
  reader.leave(outer);
  const type = TYPES[which];
  if (type === undefined) throw malformed(`mutation ${which}`);
  if (type === "delete") return { type, key };
  if (type === "expire") return { type, key, expireAtMs };
  const encoding = encodingOf(encodingNumber);
  if (encoding === null) throw malformed(`encoding ${encodingNumber}`);
  const value = { encoding, data };
  switch (type) {
    case "set":
    case "setSuffixed":
      return { type, key, value, expireAtMs };
    case "sum":
      return { type, key, value, min, max, clamp };
    case "min":
    case "max":
      return { type, key, value };
  }
}

function unknownField(tag: number): never {
  throw malformed(`unknown field ${tag >> 3} of wire type ${tag & 7}`);
}

function malformed(what: string): DkvError {
  return new DkvError("MALFORMED", `Command is malformed: ${what}`);
}
