/**
 * The messages of the `Pipeline` stream as bytes. Plain puts and gets, the path of nearly every
 * operation, are read and written by hand; whatever says more goes through the general codec, one
 * operation at a time. Used by `grpc.ts` and `pipeline.ts`.
 *
 * Protobuf messages may be concatenated, so an operation with its tag is itself a whole request, and
 * a result with its tag a whole response:
 *
 * ```text
 *   request   client │ done_below │ operation │ operation │ operation
 *                                   plain       plain       └ general.decode(these bytes alone)
 * ```
 *
 * @module
 */

import type { Buffer } from "node:buffer";
import type { Key, PutOperation, StoredEntry } from "./batch.ts";
import type { WireHeader } from "./call.ts";
import {
  type fromDelete,
  fromOptionalEntry,
  fromPut,
  type fromTransact,
  toKey,
  type WireDelete,
  type WireGet,
  type WireInteger,
  type WirePut,
  type WireTransact,
} from "./convert.ts";
import {
  messageOf,
  orNull,
  readPlainGet,
  readPlainPut,
  writeEntry,
  writeHeader,
} from "./plaincodec.ts";
import type { ResultOf } from "./results.ts";
import { Pen, Reader } from "./wire.ts";

/** A `PipelineRequest`. */
export interface WirePipelineRequest {
  client: Key;
  doneBelow: WireInteger;
  operations: WirePipelineOperation[];
}

/** A `PipelineOperation`: one of the four at most. A plain put is what the service takes already. */
export interface WirePipelineOperation {
  id: WireInteger;
  sequence: WireInteger;
  timeoutMs: WireInteger;
  put?: WirePut | PutOperation | null;
  get?: WireGet | null;
  delete?: WireDelete | null;
  transact?: WireTransact | null;
}

/** A `PipelineResult`: one of the five. Those of puts and gets are as the service gives them. */
export interface WirePipelineResult {
  id: WireInteger;
  error?: { code: string; message: string };
  put?: ResultOf<"put">;
  get?: { entry: StoredEntry | null };
  delete?: ReturnType<typeof fromDelete>;
  transact?: ReturnType<typeof fromTransact>;
}

/** A `PipelineResponse`. */
export interface WirePipelineResponse {
  header: WireHeader;
  results: readonly WirePipelineResult[];
}

/** What reads and writes everything. */
export interface GeneralCodec {
  decode(
    request: Buffer,
  ): Omit<WirePipelineRequest, "client"> & { client: Buffer };
  encode(response: { results: readonly object[] }): Uint8Array;
}

// Tags: a field's number × 8 and its wire type, 0 for numbers and 2 for everything else here.
const REQUEST_CLIENT = 1 << 3 | 2;
const REQUEST_DONE_BELOW = 2 << 3;
const REQUEST_OPERATIONS = 3 << 3 | 2;
const OPERATION_ID = 1 << 3;
const OPERATION_SEQUENCE = 2 << 3;
const OPERATION_TIMEOUT_MS = 3 << 3;
const OPERATION_PUT = 4 << 3 | 2;
const OPERATION_GET = 5 << 3 | 2;

// Fields of the answer.
const RESPONSE_RESULTS = 2;
const RESULT_ID = 1;
const RESULT_PUT = 3;
const RESULT_GET = 4;

/** Reads requests and writes responses. */
export class PipelineCodec {
  readonly #general: GeneralCodec;
  readonly #pen = new Pen();

  constructor(general: GeneralCodec) {
    this.#general = general;
  }

  /** @throws if the bytes are no `PipelineRequest`. Values are views of them. */
  decode(bytes: Buffer): WirePipelineRequest {
    const request = orNull((bytes) => this.#decode(bytes), bytes);
    if (request !== null) return request;
    // What is wrong with it, or too large for a number, the general codec says.
    const general = this.#general.decode(bytes);
    return { ...general, client: toKey(general.client) };
  }

  #decode(bytes: Buffer): WirePipelineRequest {
    const request: WirePipelineRequest = {
      client: "",
      doneBelow: 0,
      operations: [],
    };
    const reader = new Reader(bytes);
    let start = 0;
    for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
      if (tag === REQUEST_OPERATIONS) {
        const outer = reader.enter();
        const { end } = reader;
        const plain = orNull(readPlain, reader);
        reader.moveTo(end, outer); // It may have given up anywhere.
        if (plain !== null) request.operations.push(plain);
        else {
          const alone = bytes.subarray(start, reader.at);
          request.operations.push(...this.#general.decode(alone).operations);
        }
      } else if (tag === REQUEST_CLIENT) request.client = reader.latin1();
      else if (tag === REQUEST_DONE_BELOW) request.doneBelow = reader.int64();
      else reader.skip(tag);
      start = reader.at;
    }
    return request;
  }

  encode({ header, results }: WirePipelineResponse): Buffer {
    const pen = this.#pen;
    pen.reset();
    writeHeader(pen, header);
    for (const result of results) {
      if (!writePlain(pen, result)) {
        pen.raw(this.#general.encode({ results: [toWire(result)] }));
      }
    }
    return messageOf(pen);
  }
}

/** A put of a key and a value, or a read of a key as it is now; null if it is anything else. */
function readPlain(reader: Reader): WirePipelineOperation | null {
  let id = 0;
  let sequence = 0;
  let timeoutMs = 0;
  let put: PutOperation | null = null;
  let get: WireGet | null = null;
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    const isFirst = put === null && get === null;
    if (tag === OPERATION_ID) id = reader.int64();
    else if (tag === OPERATION_SEQUENCE) sequence = reader.int64();
    else if (tag === OPERATION_TIMEOUT_MS) timeoutMs = reader.int64();
    else if (tag === OPERATION_PUT && isFirst) {
      const outer = reader.enter();
      put = readPlainPut(reader);
      if (put === null) return null;
      reader.leave(outer);
    } else if (tag === OPERATION_GET && isFirst) {
      const outer = reader.enter();
      get = readPlainGet(reader);
      if (get === null) return null;
      reader.leave(outer);
    } else return null;
  }
  if (put !== null) return { id, sequence, timeoutMs, put };
  return { id, sequence, timeoutMs, get };
}

/** As proto-loader takes it. */
function toWire(result: WirePipelineResult): object {
  const { id, put, get } = result;
  if (put !== undefined) return { id, put: fromPut(put) };
  if (get === undefined) return result;
  return { id, get: { entry: fromOptionalEntry(get.entry) } };
}

/** Writes what `readPlain`'s operations are answered with; false if it is anything else. */
function writePlain(pen: Pen, result: WirePipelineResult): boolean {
  const { id, put, get } = result;
  if (typeof id !== "number") return false;
  if (put !== undefined && put.previous === null) {
    const opened = pen.open(RESPONSE_RESULTS);
    pen.int64(RESULT_ID, id);
    const inner = pen.open(RESULT_PUT);
    pen.int64(2, put.revision);
    pen.int64(3, put.version);
    pen.close(inner);
    pen.close(opened);
    return true;
  }
  if (get === undefined) return false;
  const { entry } = get;
  const opened = pen.open(RESPONSE_RESULTS);
  pen.int64(RESULT_ID, id);
  const inner = pen.open(RESULT_GET);
  if (entry !== null) {
    const body = pen.open(2);
    writeEntry(pen, entry);
    pen.close(body);
  }
  pen.close(inner);
  pen.close(opened);
  return true;
}
