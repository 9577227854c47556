/**
 * Between the messages of `proto/kvstore.proto`, as proto-loader makes them, and the domain types
 * of `service.ts`. Used by `grpc.ts`.
 *
 * proto-loader is told to give 64-bit numbers as decimal strings, which are exact, bytes as
 * Buffers, and absent fields as their defaults.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import type {
  Compare,
  DeleteOperation,
  Key,
  KeyRange,
  ModifyOperation,
  Operation,
  PutOperation,
  StoredEntry,
  TransactRequest,
  WriteId,
} from "./batch.ts";
import { printable } from "./checks.ts";
import { LIMITS } from "./config.ts";
import { AssertionError, DkvError } from "./errors.ts";
import type { OperationResult, Result } from "./results.ts";
import { keyAfter } from "./service.ts";

// ------------------------------------------------------------------ shapes on the wire

/** A 64-bit number: decimal on the way in, number or decimal on the way out. */
export type WireInteger = string | number;

export interface WireRange {
  start: Buffer;
  end: Buffer;
}

export interface WireWriteId {
  client: Buffer;
  sequence: WireInteger;
  doneBelow: WireInteger;
}

export interface WirePut {
  key: Buffer | Key;
  value: Uint8Array;
  lease: WireInteger;
  returnPrevious: boolean;
  writeId: WireWriteId | null;
}

export interface WireGet {
  key: Buffer | Key;
  revision: WireInteger;
  serializable: boolean;
}

/** `key` or `range`, one of them. */
export interface WireTarget {
  key?: Buffer;
  range?: WireRange | null;
}

export interface WireDelete extends WireTarget {
  returnPrevious: boolean;
  writeId: WireWriteId | null;
}

export interface WireList {
  range: WireRange | null;
  revision: WireInteger;
  limit: WireInteger;
  keysOnly: boolean;
  reverse: boolean;
  serializable: boolean;
}

export interface WireCompare {
  key: Buffer;
  relation: string;
  version?: WireInteger;
  createRevision?: WireInteger;
  modRevision?: WireInteger;
  value?: Buffer;
  lease?: WireInteger;
}

export interface WireModify {
  key: Buffer;
  function: string;
  encoding: string;
  operand: Uint8Array;
  /** Absent: the key keeps its lease. */
  lease?: WireInteger;
  returnPrevious: boolean;
}

export interface WireOperation {
  put?: WirePut | null;
  get?: WireGet | null;
  delete?: WireDelete | null;
  list?: WireList | null;
  modify?: WireModify | null;
}

export interface WireTransact {
  compares: WireCompare[];
  then: WireOperation[];
  else: WireOperation[];
  writeId: WireWriteId | null;
}

// ------------------------------------------------------------------ in

/** A number that must be exact. */
export function toInteger(wire: WireInteger, name: string): number {
  const value = Number(wire);
  if (!Number.isSafeInteger(value)) {
    throw new DkvError(
      name.includes("revision") ? "REVISION_INVALID" : "MALFORMED",
      `${name} is out of range: ${wire}, at most ${Number.MAX_SAFE_INTEGER}`,
    );
  }
  return value;
}

export function toLease(wire: WireInteger): bigint {
  return wire === "0" ? 0n : BigInt(wire);
}

/** A key's bytes as the string of their latin1 code units, which sorts as the bytes do. */
export function toKey(bytes: Buffer | Key): Key {
  return typeof bytes === "string" ? bytes : bytes.toString("latin1");
}

export function toRange(wire: WireRange | null | undefined): KeyRange {
  if (wire === null || wire === undefined) return { start: "", end: null };
  const start = toKey(wire.start);
  const end = wire.end.length === 0 ? null : toKey(wire.end);
  if (end === null || end > start) return { start, end };
  throw new DkvError(
    "RANGE_INVERTED",
    `The range is empty: it ends at ${
      printable(end)
    }, which is not after its start ${printable(start)}`,
  );
}

/** The range that a request names: a single key is the range up to its successor. */
export function toTarget(wire: WireTarget): KeyRange {
  if (wire.range !== null && wire.range !== undefined) {
    return toRange(wire.range);
  }
  if (wire.key === undefined) {
    throw new DkvError(
      "MALFORMED",
      "The request names neither a key nor a range",
    );
  }
  const key = toKey(wire.key);
  if (key.length === 0) throw new DkvError("KEY_EMPTY", "The key is empty");
  return { start: key, end: keyAfter(key) };
}

export function toWriteId(wire: WireWriteId | null): WriteId | null {
  if (wire === null) return null;
  return checkWriteId({
    client: toKey(wire.client),
    sequence: toInteger(wire.sequence, "sequence"),
    doneBelow: toInteger(wire.doneBelow, "done_below"),
  });
}

/** A write inside something that is retried as a whole: an id of its own would be ignored. */
export function refuseWriteId(
  wire: { writeId: WireWriteId | null },
  within: string,
): void {
  if (wire.writeId === null) return;
  throw new DkvError(
    "MALFORMED",
    `A write inside a ${within} takes no write_id: the ${within} carries its own`,
  );
}

/** @throws {DkvError} MALFORMED */
export function checkWriteId(writeId: WriteId): WriteId {
  const { client, sequence, doneBelow } = writeId;
  if (client.length === 0 || client.length > LIMITS.clientIdBytesMax) {
    throw new DkvError(
      "MALFORMED",
      `The client id has ${client.length} bytes, expected 1 to ${LIMITS.clientIdBytesMax}`,
    );
  }
  if (sequence < 1 || doneBelow < 0 || doneBelow > sequence) {
    throw new DkvError(
      "MALFORMED",
      `The sequence ${sequence} must be at least 1, and done_below ${doneBelow} between 0 and it`,
    );
  }
  return writeId;
}

export function toPut(wire: WirePut): PutOperation {
  return {
    type: "put",
    key: toKey(wire.key),
    value: wire.value,
    lease: toLease(wire.lease),
    returnPrevious: wire.returnPrevious,
  };
}

export function toDelete(wire: WireDelete): DeleteOperation {
  return {
    type: "delete",
    range: toTarget(wire),
    returnPrevious: wire.returnPrevious,
  };
}

export function toTransact(wire: WireTransact): TransactRequest {
  return {
    type: "transact",
    compares: wire.compares.map(toCompare),
    then: wire.then.map(toOperation),
    else: wire.else.map(toOperation),
  };
}

const RELATIONS: ReadonlyMap<string, Compare["relation"]> = new Map([
  ["EQUAL", "equal"],
  ["NOT_EQUAL", "notEqual"],
  ["LESS", "less"],
  ["GREATER", "greater"],
]);

function toCompare(wire: WireCompare): Compare {
  const relation = RELATIONS.get(wire.relation);
  if (relation === undefined) {
    throw new DkvError(
      "MALFORMED",
      `A comparison has the unknown relation ${wire.relation}`,
    );
  }
  return { key: toKey(wire.key), relation, target: toCompareTarget(wire) };
}

function toCompareTarget(wire: WireCompare): Compare["target"] {
  if (wire.version !== undefined) {
    return { type: "version", number: toInteger(wire.version, "version") };
  }
  if (wire.createRevision !== undefined) {
    const number = toInteger(wire.createRevision, "create_revision");
    return { type: "createRevision", number };
  }
  if (wire.modRevision !== undefined) {
    return {
      type: "modRevision",
      number: toInteger(wire.modRevision, "mod_revision"),
    };
  }
  if (wire.value !== undefined) return { type: "value", value: wire.value };
  if (wire.lease !== undefined) {
    return { type: "lease", lease: toLease(wire.lease) };
  }
  throw new DkvError("MALFORMED", "A comparison names nothing to compare with");
}

const FUNCTIONS: ReadonlyMap<string, ModifyOperation["function"]> = new Map([
  ["ADD", "add"],
  ["MIN", "min"],
  ["MAX", "max"],
  ["APPEND", "append"],
]);

const ENCODINGS: ReadonlyMap<string, ModifyOperation["encoding"]> = new Map([
  ["DECIMAL", "decimal"],
  ["UINT64_LE", "uint64le"],
]);

function toModify(wire: WireModify): ModifyOperation {
  const name = FUNCTIONS.get(wire.function);
  const encoding = ENCODINGS.get(wire.encoding);
  if (name === undefined || encoding === undefined) {
    throw new DkvError(
      "MALFORMED",
      name === undefined
        ? `A modification has the unknown function ${wire.function}`
        : `A modification has the unknown encoding ${wire.encoding}`,
    );
  }
  return {
    type: "modify",
    key: toKey(wire.key),
    function: name,
    encoding,
    operand: wire.operand,
    lease: wire.lease === undefined ? null : toLease(wire.lease),
    returnPrevious: wire.returnPrevious,
  };
}

function toOperation(wire: WireOperation): Operation {
  const write = wire.put ?? wire.delete;
  if (write) refuseWriteId(write, "transaction");
  if (wire.put) return toPut(wire.put);
  if (wire.delete) return toDelete(wire.delete);
  if (wire.modify) return toModify(wire.modify);
  const read = wire.get ?? wire.list;
  if (!read) {
    throw new DkvError("MALFORMED", "An operation of the transaction is empty");
  }
  if (toInteger(read.revision, "revision") !== 0 || read.serializable) {
    throw new DkvError(
      "MALFORMED",
      "Inside a transaction a read takes no revision and is never serializable",
    );
  }
  if (wire.get) return { type: "get", key: toKey(wire.get.key) };
  const list = wire.list as WireList;
  return {
    type: "list",
    range: toRange(list.range),
    limit: toInteger(list.limit, "limit"),
    keysOnly: list.keysOnly,
    reverse: list.reverse,
  };
}

// ------------------------------------------------------------------ out

export function fromKey(key: Key): Buffer {
  return Buffer.from(key, "latin1");
}

export function fromLease(lease: bigint): WireInteger {
  return lease === 0n ? 0 : lease.toString();
}

export function fromEntry(entry: StoredEntry) {
  return {
    key: fromKey(entry.key),
    value: entry.value,
    createRevision: entry.createRevision,
    modRevision: entry.modRevision,
    version: entry.version,
    lease: fromLease(entry.lease),
  };
}

export function fromOptionalEntry(entry: StoredEntry | null) {
  return entry === null ? null : fromEntry(entry);
}

export function fromPut(result: Extract<Result, { type: "put" }>) {
  const { revision, version, previous } = result;
  return { revision, version, previous: fromOptionalEntry(previous) };
}

export function fromDelete(result: Extract<Result, { type: "delete" }>) {
  const { revision, deleted, previous } = result;
  return { revision, deleted, previous: previous.map(fromEntry) };
}

export function fromTransact(result: Extract<Result, { type: "transact" }>) {
  const { revision, succeeded, results } = result;
  return {
    revision,
    succeeded,
    results: results.map((part) => fromOperationResult(part, revision)),
  };
}

function fromOperationResult(result: OperationResult, revision: number) {
  switch (result.type) {
    case "put":
      return { put: fromPut({ ...result, revision }) };
    case "delete":
      return { delete: fromDelete({ ...result, revision }) };
    case "get":
      return { get: { entry: fromOptionalEntry(result.entry) } };
    case "list":
      return {
        list: {
          revision,
          entries: result.entries.map(fromEntry),
          more: result.more,
        },
      };
    case "range":
    case "transact":
      throw new AssertionError(`No native request asks for a ${result.type}`);
    case "modify":
      return {
        modify: {
          revision,
          version: result.entry.version,
          value: result.entry.value,
          previous: fromOptionalEntry(result.previous),
        },
      };
  }
}
