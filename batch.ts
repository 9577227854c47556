/**
 * The commands that log entries carry and their encoding (`proto/entry.proto`). The service makes
 * commands, the group puts many encoded ones into one log entry, the store applies them. Pure.
 *
 * @module
 */
import { assert, DkvError, unreachable } from "./errors.ts";
import { type ModifyOperation, readModify, writeModify } from "./modify.ts";
import { Pen, Reader } from "./wire.ts";

export type { ModifyOperation } from "./modify.ts";

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
  | ModifyOperation;

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
  readonly relation: "equal" | "notEqual" | "less" | "greater";
  readonly target: CompareTarget;
}

/** Runs `then` if every comparison holds, otherwise `else`, in one revision. */
export interface TransactRequest {
  readonly type: "transact";
  readonly compares: readonly Compare[];
  readonly then: readonly Operation[];
  readonly else: readonly Operation[];
}

/** What a command asks the store to do. */
export type Request =
  | PutOperation
  | DeleteOperation
  | TransactRequest
  | {
    readonly type: "grant";
    /** 0n: the store chooses. */
    readonly lease: bigint;
    readonly ttlMs: number;
  }
  | { readonly type: "revoke" | "keepAlive"; readonly lease: bigint }
  | {
    /** Refuse reads below this revision from now on. */
    readonly type: "compact";
    readonly revision: number;
  }
  | {
    /** Gives the group its cluster's identity, once. */
    readonly type: "identify";
    readonly clusterId: string;
  };

/** Makes a retried write safe; see `sessions.ts`. */
export interface WriteId {
  /** One latin1 code unit for each byte of the client's id. */
  readonly client: string;
  /** From 1, one more with each write of this client. */
  readonly sequence: number;
  /** Every sequence below this one has been answered to the client. */
  readonly doneBelow: number;
}

/** One request of one client, on its way through the log. */
export interface Command {
  /** Which start of which node proposed it; below 2^48. */
  readonly origin: number;
  /** Chosen by the origin, to find the waiting client again. */
  readonly id: number;
  /** Null: a repetition is not recognised. */
  readonly writeId: WriteId | null;
  readonly request: Request;
}

/** What one log entry carries. */
export interface Batch {
  /** Log time: the leader's count of milliseconds; see `Store.apply`. */
  readonly timeMs: number;
  readonly commands: readonly Command[];
}

const pen = new Pen();

/** The command as bytes: message Command of `proto/entry.proto`. */
export function encodeCommand(command: Command): Uint8Array {
  pen.reset();
  if (command.origin !== 0) pen.int64(1, command.origin);
  if (command.id !== 0) pen.int64(2, command.id);
  const { writeId } = command;
  if (writeId !== null) {
    pen.latin1(3, writeId.client);
    pen.int64(4, writeId.sequence);
    if (writeId.doneBelow !== 0) pen.int64(5, writeId.doneBelow);
  }
  writeRequest(command.request);
  return pen.finish();
}

function writeRequest(request: Request): void {
  switch (request.type) {
    case "put":
      return writePut(6, request);
    case "delete": {
      const start = pen.open(7);
      writeDelete(request);
      return pen.close(start);
    }
    case "transact": {
      const start = pen.open(8);
      for (const compare of request.compares) writeCompare(compare);
      for (const operation of request.then) writeOperation(2, operation);
      for (const operation of request.else) writeOperation(3, operation);
      return pen.close(start);
    }
    case "grant": {
      const start = pen.open(9);
      if (request.lease !== 0n) pen.sfixed64(1, request.lease);
      if (request.ttlMs !== 0) pen.int64(2, request.ttlMs);
      return pen.close(start);
    }
    case "revoke":
    case "keepAlive": {
      const start = pen.open(request.type === "revoke" ? 10 : 11);
      if (request.lease !== 0n) pen.sfixed64(1, request.lease);
      return pen.close(start);
    }
    case "compact": {
      const start = pen.open(12);
      if (request.revision !== 0) pen.int64(1, request.revision);
      return pen.close(start);
    }
    case "identify": {
      const start = pen.open(13);
      if (request.clusterId !== "") pen.latin1(1, request.clusterId);
      return pen.close(start);
    }
    default:
      unreachable(request);
  }
}

/** The commonest of all: its length is computed, so that nothing is moved. */
function writePut(field: number, put: PutOperation): void {
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

function writeDelete(operation: DeleteOperation): void {
  writeRange(1, operation.range);
  if (operation.returnPrevious) pen.int64(2, 1);
}

function writeRange(field: number, range: KeyRange): void {
  const start = pen.open(field);
  if (range.start !== "") pen.latin1(1, range.start);
  if (range.end !== null) pen.latin1(2, range.end);
  pen.close(start);
}

function writeOperation(field: number, operation: Operation): void {
  const outer = pen.open(field);
  switch (operation.type) {
    case "put":
      writePut(1, operation);
      break;
    case "delete": {
      const start = pen.open(2);
      writeDelete(operation);
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
      writeRange(1, operation.range);
      if (operation.limit !== 0) pen.int64(2, operation.limit);
      if (operation.keysOnly) pen.int64(3, 1);
      if (operation.reverse) pen.int64(4, 1);
      pen.close(start);
      break;
    }
    case "modify":
      writeModify(pen, 5, operation);
      break;
    default:
      unreachable(operation);
  }
  pen.close(outer);
}

/** In the order of the enum's numbers. */
const RELATIONS = ["equal", "notEqual", "less", "greater"] as const;

function writeCompare(compare: Compare): void {
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
  pen.close(start);
}

function malformed(what: string): DkvError {
  return new DkvError("MALFORMED", `Command is malformed: ${what}`);
}

/**
 * The command that {@linkcode encodeCommand} made bytes of. Values are views of `data`. Bytes that
 * are no command end in `DkvError` MALFORMED.
 */
export function decodeCommand(data: Uint8Array): Command {
  return readCommand(new Reader(data));
}

/** A client's commands come in a row: one string for all of them. */
let lastClient = "";

function readCommand(reader: Reader): Command {
  let origin = 0;
  let id = 0;
  let client: string | null = null;
  let sequence = 0;
  let doneBelow = 0;
  let request: Request | null = null;
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    switch (tag) {
      case 1 << 3:
        origin = reader.int64();
        break;
      case 2 << 3:
        id = reader.int64();
        break;
      case 3 << 3 | 2:
        client = lastClient = reader.latin1(lastClient);
        break;
      case 4 << 3:
        sequence = reader.int64();
        break;
      case 5 << 3:
        doneBelow = reader.int64();
        break;
      default:
        request = readRequest(reader, tag);
    }
  }
  if (request === null) throw malformed("no request");
  const writeId = client === null ? null : { client, sequence, doneBelow };
  return { origin, id, writeId, request };
}

/**
 * A field that this version does not know is an error, not something to pass over: a replica that
 * left out what another one applies would no longer be the same.
 */
function unknownField(tag: number): never {
  throw malformed(`unknown field ${tag >> 3} of wire type ${tag & 7}`);
}

function readRequest(reader: Reader, tag: number): Request {
  if ((tag & 7) !== 2) unknownField(tag);
  const outer = reader.enter();
  const request = readRequestBody(reader, tag >> 3);
  reader.leave(outer);
  return request;
}

function readRequestBody(reader: Reader, field: number): Request {
  switch (field) {
    case 6:
      return readPut(reader);
    case 7:
      return readDelete(reader);
    case 8:
      return readTransact(reader);
    case 9: {
      let lease = 0n;
      let ttlMs = 0;
      for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
        if (tag === (1 << 3 | 1)) lease = reader.sfixed64();
        else if (tag === 2 << 3) ttlMs = reader.int64();
        else unknownField(tag);
      }
      return { type: "grant", lease, ttlMs };
    }
    case 10:
    case 11: {
      let lease = 0n;
      for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
        if (tag === (1 << 3 | 1)) lease = reader.sfixed64();
        else unknownField(tag);
      }
      return { type: field === 10 ? "revoke" : "keepAlive", lease };
    }
    case 12: {
      let revision = 0;
      for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
        if (tag === 1 << 3) revision = reader.int64();
        else unknownField(tag);
      }
      return { type: "compact", revision };
    }
    case 13:
      return { type: "identify", clusterId: readOneString(reader) };
    default:
      return unknownField(field << 3 | 2);
  }
}

/** A message that is a string in field 1. */
function readOneString(reader: Reader): string {
  let text = "";
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === (1 << 3 | 2)) text = reader.latin1();
    else unknownField(tag);
  }
  return text;
}

const EMPTY_VALUE = new Uint8Array(0);

function readPut(reader: Reader): PutOperation {
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

function readDelete(reader: Reader): DeleteOperation {
  let range: KeyRange = { start: "", end: "" };
  let returnPrevious = false;
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === (1 << 3 | 2)) range = readRange(reader);
    else if (tag === 2 << 3) returnPrevious = reader.bool();
    else unknownField(tag);
  }
  return { type: "delete", range, returnPrevious };
}

function readRange(reader: Reader): KeyRange {
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

function readTransact(reader: Reader): TransactRequest {
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
      default:
        unknownField(tag);
    }
  }
  const name = RELATIONS[relation];
  if (name === undefined) throw malformed(`relation ${relation}`);
  if (target === null) throw malformed("comparison without a target");
  return { key, relation: name, target };
}

/**
 * A log entry's data: message Batch of `proto/entry.proto`. The commands are encoded already (they
 * may come from other nodes) and go in as they are.
 */
export function encodeBatch(
  timeMs: number,
  commands: readonly Uint8Array[],
): Uint8Array {
  assert(timeMs >= 0, `Log time is negative: ${timeMs}`);
  pen.reset();
  if (timeMs !== 0) pen.int64(1, timeMs);
  for (const command of commands) pen.bytes(2, command);
  return pen.finish();
}

/**
 * The batch that {@linkcode encodeBatch} made bytes of. Values are views of `data`. Bytes that are
 * no batch end in `DkvError` MALFORMED.
 */
export function decodeBatch(data: Uint8Array): Batch {
  const reader = new Reader(data);
  let timeMs = 0;
  const commands: Command[] = [];
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === 1 << 3) timeMs = reader.int64();
    else if (tag === (2 << 3 | 2)) {
      const outer = reader.enter();
      commands.push(readCommand(reader));
      reader.leave(outer);
    } else unknownField(tag);
  }
  return { timeMs, commands };
}

/** The log time of a batch; the rest is not looked at. */
export function batchTimeMs(data: Uint8Array): number {
  const reader = new Reader(data);
  return reader.tag() === 1 << 3 ? reader.int64() : 0;
}
