/**
 * What a transaction is made of, and how a command carries it (`proto/entry.proto`): comparisons,
 * and the operations that run if they hold or if they do not. Used by `batch.ts`, which puts it
 * into commands, and by whoever makes or runs transactions. Pure.
 *
 * @module
 */
import { unreachable } from "./errors.ts";
import { type ModifyOperation, readModify, writeModify } from "./modify.ts";
import {
  type Key,
  type KeyRange,
  malformed,
  type RangeOperation,
  readRange,
  readRangeOperation,
  unknownField,
  writeRange,
  writeRangeOperation,
} from "./ranges.ts";
import type { Pen, Reader } from "./wire.ts";

export type { ModifyOperation } from "./modify.ts";
export type { Key, KeyRange, RangeOperation, StoredEntry } from "./ranges.ts";

/** Stores a value under a key. */
export interface PutOperation {
  readonly type: "put";
  readonly key: Key;
  readonly value: Uint8Array;
  /** 0n means none, and detaches. */
  readonly lease: bigint;
  readonly returnPrevious: boolean;
}

/** Deletes every key of a range. */
export interface DeleteOperation {
  readonly type: "delete";
  readonly range: KeyRange;
  readonly returnPrevious: boolean;
}

/** Reads one key as the transaction has left it so far. */
export interface GetOperation {
  readonly type: "get";
  readonly key: Key;
}

/** Reads a range as the transaction has left it so far. */
export interface ListOperation {
  readonly type: "list";
  readonly range: KeyRange;
  /** At most this many entries; 0 means no limit. */
  readonly limit: number;
  readonly keysOnly: boolean;
  /** From the last key to the first. */
  readonly reverse: boolean;
}

/** One step of a transaction. */
export type Operation =
  | PutOperation
  | DeleteOperation
  | GetOperation
  | ListOperation
  | ModifyOperation
  | RangeOperation
  | TransactRequest;

export type CompareTarget =
  | {
    readonly type: "version" | "createRevision" | "modRevision";
    readonly number: number;
  }
  | { readonly type: "value"; readonly value: Uint8Array }
  | { readonly type: "lease"; readonly lease: bigint };

/**
 * A condition on one key. A key that does not exist has version 0, revisions 0, lease 0n and no
 * value: any comparison with its value is false.
 */
export interface Compare {
  readonly key: Key;
  /**
   * If there is one, the condition is on every key from `key` up to but not including it, null
   * meaning no upper bound; if there are none, on one that does not exist.
   */
  readonly end?: Key | null;
  readonly relation: "equal" | "notEqual" | "less" | "greater";
  readonly target: CompareTarget;
}

/**
 * Runs `then` if every comparison holds, otherwise `else`, in one revision. Inside another one, its
 * comparisons see what was there before the whole began (as in etcd).
 */
export interface TransactRequest {
  readonly type: "transact";
  readonly compares: readonly Compare[];
  readonly then: readonly Operation[];
  readonly else: readonly Operation[];
}

/** Writes a field with message Put. The commonest of all: its length is computed, so that nothing is moved. */
export function writePut(pen: Pen, field: number, put: PutOperation): void {
  const keyBytes = put.key.length;
  const valueBytes = put.value.length;
  pen.head(
    field,
    (keyBytes === 0 ? 0 : 1 + varintBytes(keyBytes) + keyBytes) +
      (valueBytes === 0 ? 0 : 1 + varintBytes(valueBytes) + valueBytes) +
      (put.lease === 0n ? 0 : 9) + (put.returnPrevious ? 2 : 0),
  );
  if (keyBytes !== 0) pen.latin1(1, put.key);
  if (valueBytes !== 0) pen.bytes(2, put.value);
  if (put.lease !== 0n) pen.sfixed64(3, put.lease);
  if (put.returnPrevious) pen.int64(4, 1);
}

/** How long a length below 2^31 is as a varint. */
function varintBytes(length: number): number {
  return length < 1 << 7
    ? 1
    : length < 1 << 14
    ? 2
    : length < 1 << 21
    ? 3
    : length < 1 << 28
    ? 4
    : 5;
}

export function writeDelete(pen: Pen, operation: DeleteOperation): void {
  writeRange(pen, 1, operation.range);
  if (operation.returnPrevious) pen.int64(2, 1);
}

/** Writes the fields of message Transact of `proto/entry.proto`. */
export function writeTransact(pen: Pen, request: TransactRequest): void {
  for (const compare of request.compares) writeCompare(pen, compare);
  for (const operation of request.then) writeOperation(pen, 2, operation);
  for (const operation of request.else) writeOperation(pen, 3, operation);
}

function writeOperation(pen: Pen, field: number, operation: Operation): void {
  const outer = pen.open(field);
  switch (operation.type) {
    case "put":
      writePut(pen, 1, operation);
      break;
    case "delete": {
      const start = pen.open(2);
      writeDelete(pen, operation);
      pen.close(start);
      break;
    }
    case "get": {
      const start = pen.open(3);
      if (operation.key !== "") pen.latin1(1, operation.key);
      pen.close(start);
      break;
    }
    case "list": {
      const start = pen.open(4);
      writeRange(pen, 1, operation.range);
      if (operation.limit !== 0) pen.int64(2, operation.limit);
      if (operation.keysOnly) pen.int64(3, 1);
      if (operation.reverse) pen.int64(4, 1);
      pen.close(start);
      break;
    }
    case "modify":
      writeModify(pen, 5, operation);
      break;
    case "range": {
      const start = pen.open(6);
      writeRangeOperation(pen, operation);
      pen.close(start);
      break;
    }
    case "transact": {
      const start = pen.open(7);
      writeTransact(pen, operation);
      pen.close(start);
      break;
    }
    default:
      unreachable(operation);
  }
  pen.close(outer);
}

/** In the order of the enum's numbers. */
const RELATIONS = ["equal", "notEqual", "less", "greater"] as const;

function writeCompare(pen: Pen, compare: Compare): void {
  const start = pen.open(1);
  if (compare.key !== "") pen.latin1(1, compare.key);
  const relation = RELATIONS.indexOf(compare.relation);
  if (relation !== 0) pen.int64(2, relation);
  const { target } = compare;
  switch (target.type) {
    case "version":
      pen.int64(3, target.number);
      break;
    case "createRevision":
      pen.int64(4, target.number);
      break;
    case "modRevision":
      pen.int64(5, target.number);
      break;
    case "value":
      pen.bytes(6, target.value);
      break;
    case "lease":
      pen.sfixed64(7, target.lease);
      break;
    default:
      unreachable(target);
  }
  const { end } = compare;
  if (typeof end === "string") pen.latin1(8, end);
  else if (end === null) pen.int64(9, 1);
  pen.close(start);
}

/** A message that is a string in field 1. */
export function readOneString(reader: Reader): string {
  let text = "";
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === (1 << 3 | 2)) text = reader.latin1();
    else unknownField(tag);
  }
  return text;
}

const EMPTY_VALUE = new Uint8Array(0);

export function readPut(reader: Reader): PutOperation {
  let key = "";
  let value = EMPTY_VALUE as Uint8Array;
  let lease = 0n;
  let returnPrevious = false;
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    switch (tag) {
      case 1 << 3 | 2:
        key = reader.latin1();
        break;
      case 2 << 3 | 2:
        value = reader.bytes();
        break;
      case 3 << 3 | 1:
        lease = reader.sfixed64();
        break;
      case 4 << 3:
        returnPrevious = reader.bool();
        break;
      default:
        unknownField(tag);
    }
  }
  return { type: "put", key, value, lease, returnPrevious };
}

export function readDelete(reader: Reader): DeleteOperation {
  let range: KeyRange = { start: "", end: "" };
  let returnPrevious = false;
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === (1 << 3 | 2)) range = readRange(reader);
    else if (tag === 2 << 3) returnPrevious = reader.bool();
    else unknownField(tag);
  }
  return { type: "delete", range, returnPrevious };
}

export function readTransact(reader: Reader): TransactRequest {
  const compares: Compare[] = [];
  const then: Operation[] = [];
  const otherwise: Operation[] = [];
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if ((tag & 7) !== 2 || tag >> 3 > 3) unknownField(tag);
    const outer = reader.enter();
    if (tag >> 3 === 1) compares.push(readCompare(reader));
    else if (tag >> 3 === 2) then.push(readOperation(reader));
    else otherwise.push(readOperation(reader));
    reader.leave(outer);
  }
  return { type: "transact", compares, then, else: otherwise };
}

function readOperation(reader: Reader): Operation {
  let operation: Operation | null = null;
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if ((tag & 7) !== 2) unknownField(tag);
    const outer = reader.enter();
    switch (tag >> 3) {
      case 1:
        operation = readPut(reader);
        break;
      case 2:
        operation = readDelete(reader);
        break;
      case 3:
        operation = { type: "get", key: readOneString(reader) };
        break;
      case 4:
        operation = readList(reader);
        break;
      case 5:
        operation = readModify(reader);
        break;
      case 6:
        operation = readRangeOperation(reader);
        break;
      case 7:
        operation = readTransact(reader);
        break;
      default:
        unknownField(tag);
    }
    reader.leave(outer);
  }
  if (operation === null) throw malformed("empty operation");
  return operation;
}

function readList(reader: Reader): ListOperation {
  let range: KeyRange = { start: "", end: "" };
  let limit = 0;
  let keysOnly = false;
  let reverse = false;
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === (1 << 3 | 2)) range = readRange(reader);
    else if (tag === 2 << 3) limit = reader.int64();
    else if (tag === 3 << 3) keysOnly = reader.bool();
    else if (tag === 4 << 3) reverse = reader.bool();
    else unknownField(tag);
  }
  return { type: "list", range, limit, keysOnly, reverse };
}

function readCompare(reader: Reader): Compare {
  let key = "";
  let relation = 0;
  let target: CompareTarget | null = null;
  let end: Key | null | undefined;
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    switch (tag) {
      case 1 << 3 | 2:
        key = reader.latin1();
        break;
      case 2 << 3:
        relation = reader.int64();
        break;
      case 3 << 3:
        target = { type: "version", number: reader.int64() };
        break;
      case 4 << 3:
        target = { type: "createRevision", number: reader.int64() };
        break;
      case 5 << 3:
        target = { type: "modRevision", number: reader.int64() };
        break;
      case 6 << 3 | 2:
        target = { type: "value", value: reader.bytes() };
        break;
      case 7 << 3 | 1:
        target = { type: "lease", lease: reader.sfixed64() };
        break;
      case 8 << 3 | 2:
        end = reader.latin1();
        break;
      case 9 << 3:
        end = reader.bool() ? null : end;
        break;
      default:
        unknownField(tag);
    }
  }
  const name = RELATIONS[relation];
  if (name === undefined) throw malformed(`relation ${relation}`);
  if (target === null) throw malformed("comparison without a target");
  return end === undefined
    ? { key, relation: name, target }
    : { key, end, relation: name, target };
}
