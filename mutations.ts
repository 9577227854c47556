/**
 * What an atomic write of Deno KV does: evaluated while its log entry is applied, from the state and
 * the command alone. Used by `store.ts`. Pure.
 *
 * ```text
 *   checks ──▶ mutations, in order, on an overlay ──▶ one put or delete for each key, and its expiry
 *     └─ one does not hold: nothing                └─ one is impossible: nothing
 * ```
 *
 * The overlay is there because a key may be mutated several times in one write but changes once in a
 * revision.
 *
 * @module
 */

import type { Key, StoredEntry } from "./batch.ts";
import { commitKey, entryKey, expiryKey } from "./kvspace.ts";
import {
  fromOperand,
  isExpired,
  type KvValue,
  openValue,
  type Operand,
  readV8Number,
  sealValue,
  type StoredKvValue,
  toOperand,
  versionstampOf,
} from "./kvvalue.ts";
import type { MutateRequest, Mutation } from "./mutate.ts";
import { type ErrorResult, refusal, type Result } from "./results.ts";
import type { StepState } from "./steps.ts";

/** What the write is evaluated on. */
export interface MutateState {
  /** The revision that the write gets if it changes anything. */
  readonly revision: number;
  /** The present entry of one of the store's keys. */
  read(key: Key): StoredEntry | null;
  /** A value that grew by `sum`. */
  readonly valueBytesMax: number;
}

/** One change of one of the store's keys; a null value deletes it. It exists then. */
export interface MutateChange {
  readonly key: Key;
  readonly value: Uint8Array | null;
}

/** What a write comes to. */
export type MutateOutcome =
  | ErrorResult
  | {
    readonly type: "failed";
    /** Which checks do not hold, from 0. */
    readonly checks: readonly number[];
  }
  | {
    readonly type: "changes";
    /** Each key once. Empty only if expired entries were to be removed and there are none. */
    readonly changes: readonly MutateChange[];
  };

/** A key that the write has to do with. */
interface Slot {
  /** In the store, expired or not. */
  readonly stored: StoredKvValue | null;
  readonly versionstamp: string;
  /** What a read sees now. */
  now: StoredKvValue | null;
  isTouched: boolean;
}

const EMPTY_VALUE: Uint8Array = new Uint8Array(0);

/** Does what {@linkcode evaluate} says. */
export function runMutate(request: MutateRequest, state: StepState): Result {
  const { versions, valueBytesMax } = state;
  const revision = versions.revision + 1;
  const read = (key: Key) => versions.get(key, 0);
  const outcome = evaluate(request, { revision, read, valueBytesMax });
  if (outcome.type === "error") return outcome;
  if (outcome.type === "failed") {
    const failedChecks = outcome.checks;
    return { type: "mutate", revision: versions.revision, failedChecks };
  }
  for (const { key, value } of outcome.changes) {
    if (value === null) {
      const range = { start: key, end: `${key}\0` };
      state.delete({ type: "delete", range, returnPrevious: false }, revision);
    } else {
      const put = { type: "put", key, value, lease: 0n } as const;
      state.put({ ...put, returnPrevious: false }, revision);
    }
  }
  return { type: "mutate", revision: versions.revision, failedChecks: [] };
}

/** Works out what a write does; does nothing. */
export function evaluate(
  request: MutateRequest,
  state: MutateState,
): MutateOutcome {
  const overlay = new Overlay(request, state);
  const failed: number[] = [];
  for (const [at, { key, versionstamp }] of request.checks.entries()) {
    if (overlay.slot(key).versionstamp !== versionstamp) failed.push(at);
  }
  if (failed.length > 0) return { type: "failed", checks: failed };
  for (const [at, mutation] of request.mutations.entries()) {
    const error = overlay.mutate(mutation);
    if (error === null) continue;
    const { code, message } = error;
    return refusal(code, `Mutation ${at}, ${mutation.type}: ${message}`);
  }
  return { type: "changes", changes: overlay.changes() };
}

class Overlay {
  readonly #request: MutateRequest;
  readonly #state: MutateState;
  readonly #slots = new Map<Key, Slot>();
  /** Keys of expiries that are over. */
  readonly #expiries = new Set<Key>();

  constructor(request: MutateRequest, state: MutateState) {
    this.#request = request;
    this.#state = state;
  }

  slot(key: Key): Slot {
    const known = this.#slots.get(key);
    if (known !== undefined) return known;
    const { database, nowMs } = this.#request;
    const entry = this.#state.read(entryKey(database, key));
    const stored = entry === null ? null : openValue(entry.value);
    const isSeen = stored !== null && !isExpired(stored, nowMs);
    const slot = {
      stored,
      versionstamp: isSeen && entry !== null
        ? versionstampOf(entry.modRevision)
        : "",
      now: isSeen ? stored : null,
      isTouched: false,
    };
    this.#slots.set(key, slot);
    return slot;
  }

  mutate(mutation: Mutation): ErrorResult | null {
    switch (mutation.type) {
      case "set": {
        const { key, value, expireAtMs } = mutation;
        this.#put(key, { ...value, expireAtMs });
        return null;
      }
      case "setSuffixed": {
        const { value, expireAtMs } = mutation;
        const key = mutation.key + versionSuffix(this.#state.revision);
        this.#put(key, { ...value, expireAtMs });
        return null;
      }
      case "delete":
        this.#put(mutation.key, null);
        return null;
      case "expire":
        this.#expire(mutation);
        return null;
      case "sum":
      case "min":
      case "max": {
        const { now } = this.slot(mutation.key);
        const value = mutation.type === "sum"
          ? sum(now, mutation)
          : extreme(now, mutation);
        if ("code" in value) return value;
        const { valueBytesMax } = this.#state;
        if (value.data.length > valueBytesMax) {
          return refusal(
            "VALUE_TOO_LARGE",
            `the result has ${value.data.length} bytes, at most ${valueBytesMax}`,
          );
        }
        this.#put(mutation.key, { ...value, expireAtMs: 0 });
        return null;
      }
    }
  }

  #put(key: Key, now: StoredKvValue | null): void {
    const slot = this.slot(key);
    slot.now = now;
    slot.isTouched = true;
  }

  #expire({ key, expireAtMs }: { key: Key; expireAtMs: number }): void {
    const { database, nowMs } = this.#request;
    const slot = this.slot(key);
    const isDue = slot.stored?.expireAtMs === expireAtMs &&
      isExpired(slot.stored, nowMs);
    if (isDue) this.#put(key, null);
    // What nothing stands behind, because somebody wrote past Deno KV, would come again for ever.
    if (slot.stored?.expireAtMs !== expireAtMs) {
      this.#expiries.add(expiryKey(database, { key, expireAtMs }));
    }
  }

  /** What is to be changed in the store. */
  changes(): MutateChange[] {
    const { database, mutations } = this.#request;
    const changes: MutateChange[] = [];
    for (const [key, { stored, now, isTouched }] of this.#slots) {
      if (!isTouched) continue;
      if (now !== null) {
        changes.push({ key: entryKey(database, key), value: sealValue(now) });
      } else if (stored !== null) {
        changes.push({ key: entryKey(database, key), value: null });
      }
      const before = stored?.expireAtMs ?? 0;
      const after = now?.expireAtMs ?? 0;
      if (before === after) continue;
      if (before !== 0) {
        this.#expiries.add(expiryKey(database, { key, expireAtMs: before }));
      }
      if (after !== 0) {
        const expiry = expiryKey(database, { key, expireAtMs: after });
        changes.push({ key: expiry, value: EMPTY_VALUE });
      }
    }
    for (const key of this.#expiries) {
      if (this.#state.read(key) !== null) changes.push({ key, value: null });
    }
    const isOfCluster = mutations.some(({ type }) => type === "expire");
    if (changes.length === 0 && !isOfCluster) {
      changes.push({ key: commitKey(database), value: EMPTY_VALUE });
    }
    return changes;
  }
}

/** A text part of a key: the versionstamp in hexadecimal. */
function versionSuffix(revision: number): string {
  const hex = Array.from(
    versionstampOf(revision),
    (unit) => unit.charCodeAt(0).toString(16).padStart(2, "0"),
  ).join("");
  return `\x02${hex}\0`;
}

// ------------------------------------------------------------------ arithmetic

function impossible(message: string): ErrorResult {
  return refusal("VALUE_INVALID", message);
}

/** The smaller or the larger of two KvU64. */
function extreme(
  now: KvValue | null,
  mutation: Extract<Mutation, { type: "min" | "max" }>,
): KvValue | ErrorResult {
  const { type, value } = mutation;
  const pair = u64Pair(now, value);
  if ("code" in pair) return pair;
  const { present, operand } = pair;
  if (present === null) return value;
  const isSmaller = operand < present;
  const isTaken = type === "min" ? isSmaller : !isSmaller;
  return fromOperand({ type: "u64", value: isTaken ? operand : present });
}

function u64Pair(
  now: KvValue | null,
  value: KvValue,
): { present: bigint | null; operand: bigint } | ErrorResult {
  const operand = toOperand(value);
  if (operand?.type !== "u64") return impossible("the operand is no KvU64");
  if (now === null) return { present: null, operand: operand.value };
  const present = toOperand(now);
  if (present?.type !== "u64") {
    return impossible("the stored value is no KvU64");
  }
  return { present: present.value, operand: operand.value };
}

function sum(
  now: KvValue | null,
  mutation: Extract<Mutation, { type: "sum" }>,
): KvValue | ErrorResult {
  const { value, clamp } = mutation;
  if (value.encoding === "u64") {
    const pair = u64Pair(now, value);
    if ("code" in pair) return pair;
    const total = (pair.present ?? 0n) + pair.operand;
    return fromOperand({ type: "u64", value: BigInt.asUintN(64, total) });
  }
  const operand = toOperand(value);
  if (operand === null) {
    return impossible("the operand is no number, bigint or KvU64");
  }
  const min = toLimit(mutation.min);
  const max = toLimit(mutation.max);
  if (min === null || max === null) {
    return impossible("a limit is no number or bigint");
  }
  for (const limit of [min, max]) {
    if (limit !== undefined && limit.type !== operand.type) {
      return impossible(
        `a ${operand.type} has a limit that is a ${limit.type}`,
      );
    }
  }
  if (now === null) return fromOperand(operand);
  const present = toOperand(now);
  if (present === null) {
    return impossible("the stored value is no number, bigint or KvU64");
  }
  const isBounded = min !== undefined || max !== undefined || clamp;
  return fromSum(add(present, { operand, isBounded }), { min, max, clamp });
}

/** Undefined: none; null: no number. */
function toLimit(data: Uint8Array): Operand | null | undefined {
  return data.length === 0 ? undefined : readV8Number(data);
}

function add(
  present: Operand,
  { operand, isBounded }: { operand: Operand; isBounded: boolean },
): Operand | ErrorResult {
  if (present.type === "number" && operand.type === "number") {
    return { type: "number", value: present.value + operand.value };
  }
  if (present.type === "bigint" && operand.type === "bigint") {
    return { type: "bigint", value: present.value + operand.value };
  }
  // Programs from before `sum` took other numbers than KvU64 give a bigint.
  if (
    present.type === "u64" && operand.type === "bigint" && !isBounded &&
    BigInt.asUintN(64, operand.value) === operand.value
  ) {
    const total = present.value + operand.value;
    return { type: "u64", value: BigInt.asUintN(64, total) };
  }
  return impossible(`a ${operand.type} is added to a ${present.type}`);
}

function fromSum(
  total: Operand | ErrorResult,
  { min, max, clamp }: {
    min: Operand | undefined;
    max: Operand | undefined;
    clamp: boolean;
  },
): KvValue | ErrorResult {
  if ("code" in total) return total;
  let bounded = total;
  if (min !== undefined && bounded.value < min.value) bounded = min;
  if (max !== undefined && bounded.value > max.value) bounded = max;
  if (bounded !== total && !clamp) {
    return impossible("the result is outside its limits");
  }
  return fromOperand(bounded);
}
