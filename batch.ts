/**
 * The commands that log entries carry and their encoding (`proto/entry.proto`). The service makes
 * commands, the group puts many encoded ones into one log entry, the store applies them. Pure.
 *
 * @module
 */
import { assert, unreachable } from "./errors.ts";
import { malformed, unknownField } from "./ranges.ts";
import {
  type DeleteOperation,
  type PutOperation,
  readDelete,
  readOneString,
  readPut,
  readTransact,
  type TransactRequest,
  writeDelete,
  writePut,
  writeTransact,
} from "./transaction.ts";
import { type MutateRequest, readMutate, writeMutate } from "./mutate.ts";
import {
  type ChangeUsersRequest,
  readChangeUsers,
  writeChangeUsers,
} from "./userchange.ts";
import { Pen, Reader } from "./wire.ts";

export type {
  Compare,
  CompareTarget,
  DeleteOperation,
  GetOperation,
  Key,
  KeyRange,
  ListOperation,
  ModifyOperation,
  Operation,
  PutOperation,
  RangeOperation,
  StoredEntry,
  TransactRequest,
} from "./transaction.ts";
export type { MutateRequest } from "./mutate.ts";
export type { Permission, UserChange } from "./userchange.ts";

/** What a command asks the store to do. */
export type Request =
  | PutOperation
  | DeleteOperation
  | TransactRequest
  | MutateRequest
  | ChangeUsersRequest
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
      return writePut(pen, 6, request);
    case "delete": {
      const start = pen.open(7);
      writeDelete(pen, request);
      return pen.close(start);
    }
    case "transact": {
      const start = pen.open(8);
      writeTransact(pen, request);
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
    case "mutate":
      return writeMutate(pen, 20, request);
    case "changeUsers":
      return writeChangeUsers(pen, 21, request);
    default:
      unreachable(request);
  }
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
    case 20:
      return readMutate(reader);
    case 21:
      return readChangeUsers(reader);
    default:
      return unknownField(field << 3 | 2);
  }
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
