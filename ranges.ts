/**
 * Keys and ranges of keys, and the read of a range with everything that etcd's `Range` can ask for: at a revision, filtered,
 * ordered, counted. What it is, how a command carries it (`proto/entry.proto`, message RangeRead),
 * and what is made of the keys found. Used by `transaction.ts`, `versions.ts` and `service.ts`.
 * Pure.
 *
 * ```text
 *   keys of the range that exist at the revision        counted: `count`
 *     └─▶ the first `limit`, unless they are filtered or ordered
 *           └─▶ filtered by their revisions
 *                 └─▶ ordered
 *                       └─▶ the first `limit`           `entries`; the rest: `more`
 * ```
 *
 * @module
 */
import { DkvError, unreachable } from "./errors.ts";
import type { Pen, Reader } from "./wire.ts";

/** A key: one latin1 code unit for each of its bytes, so that string order is byte order. */
export type Key = string;

/** The keys from `start` up to but not including `end`; null means no upper bound. */
export interface KeyRange {
  readonly start: Key;
  readonly end: Key | null;
}

/** One stored key and value, as it was after the put of `modRevision`. */
export interface StoredEntry {
  readonly key: Key;
  /** Empty where only keys were asked for. */
  readonly value: Uint8Array;
  /** The revision of the put that created the key (since it last did not exist). */
  readonly createRevision: number;
  /** The revision of the last put. */
  readonly modRevision: number;
  /** How many puts since creation: 1 for a new key. */
  readonly version: number;
  /** The lease the key is attached to; 0n means none. */
  readonly lease: bigint;
}

/** In the order of the enum's numbers. */
const ORDERS = ["none", "ascend", "descend"] as const;
/** In the order of the enum's numbers. */
const TARGETS = [
  "key",
  "version",
  "createRevision",
  "modRevision",
  "value",
] as const;

/** From the smallest to the largest or the other way round; `none` is the order of keys. */
export type SortOrder = typeof ORDERS[number];
/** What entries are ordered by. */
export type SortTarget = typeof TARGETS[number];

/** Reads a range; an empty one (`end` at or before `start`) is no mistake and holds nothing. */
export interface RangeOperation {
  readonly type: "range";
  readonly range: KeyRange;
  /** The state to read: 0 means now, inside a transaction as it has been left so far. */
  readonly revision: number;
  /** At most this many entries; 0 means no limit. */
  readonly limit: number;
  readonly sortOrder: SortOrder;
  /** As in etcd, any target but the key orders upwards where no order is named. */
  readonly sortTarget: SortTarget;
  readonly keysOnly: boolean;
  /** Only `count`, which filters do not change. */
  readonly countOnly: boolean;
  /** Entries outside these bounds are left out; 0 means no bound. */
  readonly modRevisionMin: number;
  readonly modRevisionMax: number;
  readonly createRevisionMin: number;
  readonly createRevisionMax: number;
}

/** What was read. */
export interface RangeResult {
  readonly entries: readonly StoredEntry[];
  /** How many keys the range has at that revision, whatever `limit` and filters leave of them. */
  readonly count: number;
  /** True if the limit left entries out. */
  readonly more: boolean;
  /** The revision of the store when it was read. */
  readonly revision: number;
}

/** True if all entries of the range must be seen before it is known which come first. */
export function needsAll(operation: RangeOperation): boolean {
  return operation.sortOrder !== "none" || operation.modRevisionMin !== 0 ||
    operation.modRevisionMax !== 0 || operation.createRevisionMin !== 0 ||
    operation.createRevisionMax !== 0;
}

/** True if keys are ordered or filtered by what stands in their values. */
export function needsValues({ sortTarget }: RangeOperation): boolean {
  return sortTarget === "value";
}

/** Filters, orders and cuts entries that come in the order of their keys. */
export function arrange(
  found: StoredEntry[],
  operation: RangeOperation,
): { entries: StoredEntry[]; more: boolean } {
  const entries = found.filter((entry) => passes(entry, operation));
  const { sortTarget, limit } = operation;
  const descends = operation.sortOrder === "descend";
  if (sortTarget !== "key") {
    const sign = descends ? -1 : 1;
    entries.sort((a, b) => sign * compareBy(sortTarget, [a, b]));
  } else if (descends) entries.reverse();
  const more = limit > 0 && entries.length > limit;
  return { entries: more ? entries.slice(0, limit) : entries, more };
}

function passes(entry: StoredEntry, operation: RangeOperation): boolean {
  const { modRevision, createRevision } = entry;
  const { modRevisionMin, modRevisionMax } = operation;
  const { createRevisionMin, createRevisionMax } = operation;
  return (modRevisionMin === 0 || modRevision >= modRevisionMin) &&
    (modRevisionMax === 0 || modRevision <= modRevisionMax) &&
    (createRevisionMin === 0 || createRevision >= createRevisionMin) &&
    (createRevisionMax === 0 || createRevision <= createRevisionMax);
}

function compareBy(
  target: Exclude<SortTarget, "key">,
  [a, b]: readonly [StoredEntry, StoredEntry],
): number {
  switch (target) {
    case "version":
    case "createRevision":
    case "modRevision":
      return a[target] - b[target];
    case "value":
      return compareBytes(a.value, b.value);
    default:
      return unreachable(target);
  }
}

/** Compares as bytes: negative, 0 or positive. */
export function compareBytes(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    if (a[i] !== b[i]) return a[i]! - b[i]!;
  }
  return a.length - b.length;
}

// ------------------------------------------------------------------ encoding

/** Writes message Range of `proto/entry.proto`. */
export function writeRange(pen: Pen, field: number, range: KeyRange): void {
  const start = pen.open(field);
  if (range.start !== "") pen.latin1(1, range.start);
  if (range.end !== null) pen.latin1(2, range.end);
  pen.close(start);
}

/** Reads what {@linkcode writeRange} wrote. */
export function readRange(reader: Reader): KeyRange {
  const outer = reader.enter();
  let start = "";
  let end: string | null = null;
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === (1 << 3 | 2)) start = reader.latin1();
    else if (tag === (2 << 3 | 2)) end = reader.latin1();
    else unknownField(tag);
  }
  reader.leave(outer);
  return { start, end };
}

/** Writes the fields of message RangeRead of `proto/entry.proto`. */
export function writeRangeOperation(pen: Pen, operation: RangeOperation): void {
  writeRange(pen, 1, operation.range);
  /** Fields 2 and up. */
  const numbers = [
    operation.revision,
    operation.limit,
    ORDERS.indexOf(operation.sortOrder),
    TARGETS.indexOf(operation.sortTarget),
    operation.keysOnly ? 1 : 0,
    operation.countOnly ? 1 : 0,
    operation.modRevisionMin,
    operation.modRevisionMax,
    operation.createRevisionMin,
    operation.createRevisionMax,
  ];
  for (const [at, number] of numbers.entries()) {
    if (number !== 0) pen.int64(at + 2, number);
  }
}

/**
 * Reads what {@linkcode writeRangeOperation} wrote. Bytes that are none end in `DkvError` MALFORMED.
 */
export function readRangeOperation(reader: Reader): RangeOperation {
  let range: KeyRange = { start: "", end: "" };
  const numbers = new Array<number>(12).fill(0);
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    const field = tag >> 3;
    if (tag === (1 << 3 | 2)) range = readRange(reader);
    else if ((tag & 7) === 0 && field >= 2 && field < numbers.length) {
      numbers[field] = reader.int64();
    } else unknownField(tag);
  }
  const sortOrder = ORDERS[numbers[4]!];
  const sortTarget = TARGETS[numbers[5]!];
  if (sortOrder === undefined) throw malformed(`order ${numbers[4]}`);
  if (sortTarget === undefined) throw malformed(`order by ${numbers[5]}`);
  return {
    type: "range",
    range,
    revision: numbers[2]!,
    limit: numbers[3]!,
    sortOrder,
    sortTarget,
    keysOnly: numbers[6] !== 0,
    countOnly: numbers[7] !== 0,
    modRevisionMin: numbers[8]!,
    modRevisionMax: numbers[9]!,
    createRevisionMin: numbers[10]!,
    createRevisionMax: numbers[11]!,
  };
}

export function malformed(what: string): DkvError {
  return new DkvError("MALFORMED", `Command is malformed: ${what}`);
}

/**
 * A field that this version does not know is an error, not something to pass over: a replica that
 * left out what another one applies would no longer be the same.
 */
export function unknownField(tag: number): never {
  throw malformed(`unknown field ${tag >> 3} of wire type ${tag & 7}`);
}
