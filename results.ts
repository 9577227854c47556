/**
 * What the store answers to a command, and how the client sessions keep it on disk
 * (`proto/entry.proto`, message Result). Used by `store.ts`, `sessions.ts` and whoever answers
 * clients.
 *
 * @module
 */
import type { StoredEntry } from "./batch.ts";
import {
  DkvError,
  type ErrorCode,
  isErrorCode,
  unreachable,
} from "./errors.ts";
import type { RangeResult } from "./ranges.ts";
import type { Pen, Reader } from "./wire.ts";

/** The outcome of one operation inside a transaction. */
export type OperationResult =
  | {
    readonly type: "put";
    readonly version: number;
    /** The entry that was replaced, if asked for and if there was one. */
    readonly previous: StoredEntry | null;
  }
  | {
    readonly type: "delete";
    readonly deleted: number;
    /** Empty unless asked for; in key order. */
    readonly previous: readonly StoredEntry[];
  }
  | { readonly type: "get"; readonly entry: StoredEntry | null }
  | {
    readonly type: "list";
    readonly entries: readonly StoredEntry[];
    /** True if the limit, or the bound on the bytes of one transaction's results, left keys out. */
    readonly more: boolean;
  }
  | {
    readonly type: "modify";
    /** As the modification left it. */
    readonly entry: StoredEntry;
    /** The entry that was replaced, if asked for and if there was one. */
    readonly previous: StoredEntry | null;
  }
  | RangeResult & { readonly type: "range" }
  | {
    /** Of a transaction inside another one. */
    readonly type: "transact";
    readonly succeeded: boolean;
    readonly results: readonly OperationResult[];
  };

/** The outcome of one command. `revision` is its own, or the store's if it changed no key. */
export type Result =
  | {
    readonly type: "put";
    readonly revision: number;
    readonly version: number;
    readonly previous: StoredEntry | null;
  }
  | {
    readonly type: "delete";
    readonly revision: number;
    readonly deleted: number;
    readonly previous: readonly StoredEntry[];
  }
  | {
    readonly type: "transact";
    readonly revision: number;
    readonly succeeded: boolean;
    readonly results: readonly OperationResult[];
  }
  | { readonly type: "lease"; readonly lease: bigint; readonly ttlMs: number }
  | {
    readonly type: "revoked";
    readonly revision: number;
    readonly deleted: number;
  }
  | { readonly type: "done" }
  | {
    readonly type: "mutate";
    readonly revision: number;
    /** Which checks did not hold, from 0: then nothing was done. */
    readonly failedChecks: readonly number[];
  }
  | {
    /** Nothing was done. */
    readonly type: "error";
    readonly code: ErrorCode;
    readonly message: string;
  };

/** The outcome of a command of one type. */
export type ResultOf<Type extends Result["type"]> = Extract<
  Result,
  { type: Type }
>;

/** What its client is told of a write that was to end in a result of type `expect`. */
export function judged<Type extends Result["type"]>(
  outcome: Result | Error,
  expect: Type,
): ResultOf<Type> | Error {
  if (outcome instanceof Error) return outcome;
  if (outcome.type === expect) return outcome as ResultOf<Type>;
  if (outcome.type === "error") {
    return new DkvError(outcome.code, outcome.message);
  }
  return new DkvError(
    "SEQUENCE_STALE",
    `This sequence number belonged to a ${outcome.type}, not to a ${expect}`,
  );
}

/** A command that was refused. */
export type ErrorResult = Extract<Result, { type: "error" }>;

export function refusal(code: ErrorCode, message: string): ErrorResult {
  return { type: "error", code, message };
}

/** How many bytes the entries in a result count. */
export function resultBytes(result: Result): number {
  switch (result.type) {
    case "put":
      return result.previous === null ? 0 : entryBytes(result.previous);
    case "delete":
      return sumBytes(result.previous);
    case "transact":
      return sumResults(result.results);
    case "lease":
    case "revoked":
    case "done":
    case "mutate":
    case "error":
      return 0;
    default:
      return unreachable(result);
  }
}

function sumResults(results: readonly OperationResult[]): number {
  return results.reduce((sum, one) => sum + operationResultBytes(one), 0);
}

function operationResultBytes(result: OperationResult): number {
  const itself = 16;
  switch (result.type) {
    case "put":
      return itself +
        (result.previous === null ? 0 : entryBytes(result.previous));
    case "delete":
      return itself + sumBytes(result.previous);
    case "get":
      return itself + (result.entry === null ? 0 : entryBytes(result.entry));
    case "list":
    case "range":
      return itself + sumBytes(result.entries);
    case "transact":
      return itself + sumResults(result.results);
    case "modify":
      return itself + entryBytes(result.entry) +
        (result.previous === null ? 0 : entryBytes(result.previous));
    default:
      return unreachable(result);
  }
}

function sumBytes(entries: readonly StoredEntry[]): number {
  return entries.reduce((sum, entry) => sum + entryBytes(entry), 0);
}

/** How many bytes an entry counts where results and pages are bounded. */
export function entryBytes(entry: StoredEntry): number {
  return entry.key.length + entry.value.length + ENTRY_OVERHEAD_BYTES;
}

/** What an entry counts beside its key and value. */
const ENTRY_OVERHEAD_BYTES = 64;

/** The result without the entries in it: what is left of a big one in a session. */
export function stripResult(result: Result): Result {
  switch (result.type) {
    case "put":
      return { ...result, previous: null };
    case "delete":
      return { ...result, previous: [] };
    case "transact":
      return { ...result, results: [] };
    case "lease":
    case "revoked":
    case "done":
    case "mutate":
    case "error":
      return result;
    default:
      return unreachable(result);
  }
}

/** Writes the fields of message Result of `proto/entry.proto`. */
export function writeResult(pen: Pen, result: Result): void {
  switch (result.type) {
    case "put": {
      const start = pen.open(1);
      pen.int64(1, result.revision);
      pen.int64(2, result.version);
      if (result.previous !== null) writeEntry(pen, 3, result.previous);
      return pen.close(start);
    }
    case "delete": {
      const start = pen.open(2);
      pen.int64(1, result.revision);
      pen.int64(2, result.deleted);
      for (const entry of result.previous) writeEntry(pen, 3, entry);
      return pen.close(start);
    }
    case "transact": {
      const start = pen.open(3);
      pen.int64(1, result.revision);
      pen.int64(2, result.succeeded ? 1 : 0);
      for (const one of result.results) {
        const inner = pen.open(3);
        writeOperationResult(pen, one);
        pen.close(inner);
      }
      return pen.close(start);
    }
    case "lease": {
      const start = pen.open(4);
      pen.sfixed64(1, result.lease);
      pen.int64(2, result.ttlMs);
      return pen.close(start);
    }
    case "revoked": {
      const start = pen.open(5);
      pen.int64(1, result.revision);
      pen.int64(2, result.deleted);
      return pen.close(start);
    }
    case "done":
      return pen.close(pen.open(6));
    case "error": {
      const start = pen.open(7);
      pen.latin1(1, result.code);
      pen.latin1(2, result.message);
      return pen.close(start);
    }
    case "mutate": {
      const start = pen.open(20);
      pen.int64(1, result.revision);
      for (const at of result.failedChecks) pen.int64(2, at);
      return pen.close(start);
    }
    default:
      unreachable(result);
  }
}

function writeOperationResult(pen: Pen, result: OperationResult): void {
  switch (result.type) {
    case "put": {
      const start = pen.open(1);
      pen.int64(1, result.version);
      if (result.previous !== null) writeEntry(pen, 2, result.previous);
      return pen.close(start);
    }
    case "delete": {
      const start = pen.open(2);
      pen.int64(1, result.deleted);
      for (const entry of result.previous) writeEntry(pen, 2, entry);
      return pen.close(start);
    }
    case "get": {
      const start = pen.open(3);
      if (result.entry !== null) writeEntry(pen, 1, result.entry);
      return pen.close(start);
    }
    case "list": {
      const start = pen.open(4);
      for (const entry of result.entries) writeEntry(pen, 1, entry);
      pen.int64(2, result.more ? 1 : 0);
      return pen.close(start);
    }
    case "modify": {
      const start = pen.open(5);
      writeEntry(pen, 1, result.entry);
      if (result.previous !== null) writeEntry(pen, 2, result.previous);
      return pen.close(start);
    }
    case "range": {
      const start = pen.open(6);
      for (const entry of result.entries) writeEntry(pen, 1, entry);
      pen.int64(2, result.more ? 1 : 0);
      pen.int64(3, result.count);
      pen.int64(4, result.revision);
      return pen.close(start);
    }
    case "transact": {
      const start = pen.open(7);
      for (const one of result.results) {
        const inner = pen.open(1);
        writeOperationResult(pen, one);
        pen.close(inner);
      }
      pen.int64(2, result.succeeded ? 1 : 0);
      return pen.close(start);
    }
    default:
      unreachable(result);
  }
}

function writeEntry(pen: Pen, field: number, entry: StoredEntry): void {
  const start = pen.open(field);
  pen.latin1(1, entry.key);
  pen.bytes(2, entry.value);
  pen.int64(3, entry.createRevision);
  pen.int64(4, entry.modRevision);
  pen.int64(5, entry.version);
  if (entry.lease !== 0n) pen.sfixed64(6, entry.lease);
  pen.close(start);
}

function corrupt(what: string): DkvError {
  return new DkvError(
    "DATA_CORRUPT",
    `Remembered result is malformed: ${what}`,
  );
}

/** Reads what {@linkcode writeResult} wrote. Values are views of the reader's data. */
export function readResult(reader: Reader): Result {
  const tag = reader.tag();
  const outer = reader.enter();
  const result = tag >> 3 === 7
    ? readError(reader)
    : tag >> 3 === 20
    ? readMutated(reader)
    : readResultBody(reader, tag >> 3);
  reader.leave(outer);
  return result;
}

function readError(reader: Reader): Result {
  let code = "";
  let message = "";
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === (1 << 3 | 2)) code = reader.latin1();
    else if (tag === (2 << 3 | 2)) message = reader.latin1();
    else throw corrupt(`field ${tag >> 3} in an error`);
  }
  if (!isErrorCode(code)) throw corrupt(`error code ${JSON.stringify(code)}`);
  return { type: "error", code, message };
}

function readMutated(reader: Reader): Result {
  let revision = 0;
  const failedChecks: number[] = [];
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === 1 << 3) revision = reader.int64();
    else if (tag === 2 << 3) failedChecks.push(reader.int64());
    else throw corrupt(`field ${tag >> 3} in a mutation`);
  }
  return { type: "mutate", revision, failedChecks };
}

function readResultBody(reader: Reader, field: number): Result {
  const { first, second, entries, results, lease } = readFields(reader, field);
  switch (field) {
    case 1:
      return {
        type: "put",
        revision: first,
        version: second,
        previous: entries[0] ?? null,
      };
    case 2:
      return {
        type: "delete",
        revision: first,
        deleted: second,
        previous: entries,
      };
    case 3:
      return {
        type: "transact",
        revision: first,
        succeeded: second !== 0,
        results,
      };
    case 4:
      return { type: "lease", lease, ttlMs: second };
    case 5:
      return { type: "revoked", revision: first, deleted: second };
    case 6:
      return { type: "done" };
    default:
      throw corrupt(`field ${field}`);
  }
}

/** The results' messages share their shape: two numbers (or a lease and a number), then a list. */
function readFields(reader: Reader, field: number) {
  let first = 0;
  let second = 0;
  let lease = 0n;
  const entries: StoredEntry[] = [];
  const results: OperationResult[] = [];
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === 1 << 3) first = reader.int64();
    else if (tag === (1 << 3 | 1)) lease = reader.sfixed64();
    else if (tag === 2 << 3) second = reader.int64();
    else if (tag !== (3 << 3 | 2)) {
      throw corrupt(`field ${tag >> 3} in field ${field}`);
    } else if (field === 3) results.push(readOperationResult(reader));
    else entries.push(readEntry(reader));
  }
  return { first, second, lease, entries, results };
}

function readOperationResult(reader: Reader): OperationResult {
  const end = reader.enter();
  const field = reader.tag() >> 3;
  const outer = reader.enter();
  /** By field number. */
  const numbers = [0, 0, 0, 0, 0];
  const entries: StoredEntry[] = [];
  const results: OperationResult[] = [];
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if ((tag & 7) === 0 && tag >> 3 < numbers.length) {
      numbers[tag >> 3] = reader.int64();
    } else if ((tag & 7) !== 2) {
      throw corrupt(`field ${tag >> 3} in operation ${field}`);
    } else if (field === 7) results.push(readOperationResult(reader));
    else entries.push(readEntry(reader));
  }
  reader.leave(outer);
  reader.leave(end);
  const [, first = 0, second = 0, count = 0, revision = 0] = numbers;
  switch (field) {
    case 1:
      return { type: "put", version: first, previous: entries[0] ?? null };
    case 2:
      return { type: "delete", deleted: first, previous: entries };
    case 3:
      return { type: "get", entry: entries[0] ?? null };
    case 4:
      return { type: "list", entries, more: second !== 0 };
    case 5: {
      const [entry, previous = null] = entries;
      if (entry === undefined) throw corrupt("modification without an entry");
      return { type: "modify", entry, previous };
    }
    case 6:
      return { type: "range", entries, more: second !== 0, count, revision };
    case 7:
      return { type: "transact", succeeded: second !== 0, results };
    default:
      throw corrupt(`operation ${field}`);
  }
}

function readEntry(reader: Reader): StoredEntry {
  const outer = reader.enter();
  let key = "";
  let value: Uint8Array = new Uint8Array(0);
  const numbers = [0, 0, 0];
  let lease = 0n;
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === (1 << 3 | 2)) key = reader.latin1();
    else if (tag === (2 << 3 | 2)) value = reader.bytes();
    else if (tag === (6 << 3 | 1)) lease = reader.sfixed64();
    else if (tag >= 3 << 3 && tag <= 5 << 3 && (tag & 7) === 0) {
      numbers[(tag >> 3) - 3] = reader.int64();
    } else throw corrupt(`field ${tag >> 3} in an entry`);
  }
  reader.leave(outer);
  const [createRevision = 0, modRevision = 0, version = 0] = numbers;
  return { key, value, createRevision, modRevision, version, lease };
}
