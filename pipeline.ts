/**
 * The `Pipeline` stream: batches of operations in, batches of answers out, in any order. What is
 * settled in one event-loop turn leaves as one message. Used by `grpc.ts`.
 *
 * ```text
 *   data ─▶ run ─▶ in flight ─▶ answered ─▶ flush, at the pace of the client
 *            └─ beyond the bound: refused ─▶ answered
 *                └─ far beyond: the stream ends
 * ```
 *
 * An operation counts until its answer has left, so a client that does not read fills the bound,
 * not the memory.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import type {
  DeleteOperation,
  Key,
  PutOperation,
  TransactRequest,
  WriteId,
} from "./batch.ts";
import { LIMITS } from "./config.ts";
import {
  checkWriteId,
  fromDelete,
  fromTransact,
  refuseWriteId,
  toDelete,
  toInteger,
  toKey,
  toPut,
  toTransact,
  type WireGet,
  type WireInteger,
} from "./convert.ts";
import { DkvError, unreachable } from "./errors.ts";
import { judged, type Result, resultBytes, type ResultOf } from "./results.ts";
import {
  type Context,
  type DuplexStream,
  fromError,
  Outlet,
  ROOM_POLL_MS,
  toReadOptions,
  toStatus,
  Unreadable,
} from "./call.ts";
import type { WriteWaiter } from "./service.ts";
import type {
  WirePipelineOperation,
  WirePipelineRequest,
  WirePipelineResult,
} from "./pipelinecodec.ts";

/** Where the operations of one request come from. */
interface Sender {
  readonly stream: PipelineStream;
  readonly client: string;
  readonly doneBelow: number;
}

/** What an operation costs in memory beside its keys and values, roughly. */
const OPERATION_OVERHEAD_BYTES = 64;
/** Answers up to this size together leave as one message; a larger one leaves alone. */
const MESSAGE_BYTES_MAX = 1024 * 1024;
/** Refusals wait for the client too: with this many of all kinds waiting, the stream ends. */
const WAITING_MAX = 4 * LIMITS.pipelineInFlightMax;
/** Looked at seldom, because at full speed the client's window is often used up for a moment. */
const UNCHECKED_BYTES_MAX = 1024 * 1024;

/** Serves one stream. */
export function servePipeline(call: DuplexStream, context: Context): void {
  const stream = new PipelineStream(call, context);
  call.on("data", (request: WirePipelineRequest | Unreadable) => {
    if (request instanceof Unreadable) stream.fail(request.error);
    else stream.take(request);
  });
  call.on("end", () => stream.end());
  call.on("error", () => {}); // The client vanished; what it sent is settled all the same.
}

/** What an operation came to, and about how much memory that holds. */
interface Answer extends WirePipelineResult {
  readonly bytes: number;
}

/** An operation that is not answered yet, and about how much memory it holds. */
interface Flight {
  readonly id: WireInteger;
  readonly bytes: number;
}

/** A read on its way. */
interface Reading extends Flight {
  readonly key: Key;
  readonly revision: number;
}

/** A write that the stream takes. */
type WriteRequest = PutOperation | DeleteOperation | TransactRequest;

/** A write on its way. There are thousands of them, so each is one object, without a promise. */
class Writing implements Flight, WriteWaiter {
  readonly id: WireInteger;
  readonly bytes: number;
  readonly type: WriteRequest["type"];
  readonly timeoutMs: number | null;
  readonly writeId: WriteId | null;
  readonly #stream: PipelineStream;

  /** @throws {DkvError} MALFORMED */
  constructor(operation: WirePipelineOperation, sender: Sender) {
    this.#stream = sender.stream;
    this.id = operation.id;
    this.bytes = requestBytes(operation);
    this.type = typeOf(operation);
    this.timeoutMs = toTimeoutMs(operation);
    this.writeId = toPipelineWriteId(operation, sender);
  }

  settle(outcome: Result | Error): void {
    this.#stream.settle(this, outcome);
  }
}

/** The operations of one client on their way. */
class PipelineStream {
  readonly #call: DuplexStream;
  readonly #context: Context;
  readonly #outlet: Outlet;
  /** Operations that are not answered, or whose answer has not left. */
  #inFlight = 0;
  /** Of their requests, then of their answers. */
  #inFlightBytes = 0;
  #answered: Answer[] = [];
  #isFlushSet = false;
  #isEnding = false;
  #hasFailed = false;

  constructor(call: DuplexStream, context: Context) {
    this.#call = call;
    this.#context = context;
    this.#outlet = new Outlet(call, UNCHECKED_BYTES_MAX);
  }

  take(request: WirePipelineRequest): void {
    if (this.#hasFailed) return;
    let sender: Sender;
    try {
      sender = {
        stream: this,
        client: request.client,
        doneBelow: toInteger(request.doneBelow, "done_below"),
      };
    } catch (error) {
      return this.fail(this.#context.toError(error));
    }
    const gets: WirePipelineGet[] = [];
    for (const operation of request.operations) {
      if (this.#inFlight >= WAITING_MAX) {
        const text = `Far too many operations wait on this stream: ` +
          `${this.#inFlight}, at most ${LIMITS.pipelineInFlightMax}`;
        return this.fail(new DkvError("OVERLOADED", text));
      }
      if (!this.#admits(operation)) continue;
      if (isGet(operation)) gets.push(operation);
      else this.#write(operation, sender);
    }
    if (gets.length > 0) this.#read(gets);
  }

  /** The client says no more: the stream ends when everything is answered. */
  end(): void {
    this.#isEnding = true;
    if (this.#inFlight === 0 && !this.#hasFailed) this.#call.end();
  }

  /** Ends the stream with an error; what is in flight is settled, but not answered. */
  fail(error: DkvError): void {
    if (this.#hasFailed) return;
    this.#hasFailed = true;
    this.#answered = [];
    this.#call.emit("error", toStatus(error));
  }

  /** A write is applied, or will never be. */
  settle(writing: Writing, outcome: Result | Error): void {
    const result = judged(outcome, writing.type);
    if (result instanceof Error) return this.#fail(writing, result);
    try {
      this.#land(writing, toAnswer(writing.id, result));
    } catch (error) {
      this.#fail(writing, error);
    }
  }

  /** Counts an operation; false if it was refused, since too much is in flight. */
  #admits(operation: WirePipelineOperation): boolean {
    const { id } = operation;
    const { pipelineInFlightMax: max } = LIMITS;
    let refusal = this.#bytesRefusal();
    if (this.#inFlight >= max) {
      const text = `Too many operations wait on this stream: ${this.#inFlight}`;
      refusal = new DkvError("OVERLOADED", `${text}, at most ${max}`);
    }
    this.#inFlight++;
    if (refusal !== null) {
      this.#refuse(id, refusal);
      return false;
    }
    this.#inFlightBytes += requestBytes(operation);
    return true;
  }

  #write(operation: WirePipelineOperation, sender: Sender): void {
    try {
      const request = toWrite(operation);
      this.#context.service.start(request, new Writing(operation, sender));
    } catch (error) {
      const { id } = operation;
      this.#fail({ id, bytes: requestBytes(operation) }, error);
    }
  }

  /** The reads of a message that may wait equally long share one question to the leader. */
  #read(gets: readonly WirePipelineGet[]): void {
    const waiting = new Map<number | null, Reading[]>();
    for (const operation of gets) {
      const { id, get } = operation;
      const bytes = requestBytes(operation);
      try {
        const { revision, serializable } = toReadOptions(get);
        const reading = { id, bytes, key: toKey(get.key), revision };
        this.#context.service.checkGet(reading.key, revision);
        const timeoutMs = toTimeoutMs(operation);
        const others = waiting.get(timeoutMs);
        if (serializable) this.#answerGet(reading);
        else if (others === undefined) waiting.set(timeoutMs, [reading]);
        else others.push(reading);
      } catch (error) {
        this.#fail({ id, bytes }, error);
      }
    }
    for (const [timeoutMs, readings] of waiting) {
      this.#whenReady(timeoutMs).then(
        () => readings.forEach((reading) => this.#answerGet(reading)),
        (error) => readings.forEach((reading) => this.#fail(reading, error)),
      );
    }
  }

  async #whenReady(timeoutMs: number | null): Promise<void> {
    await this.#context.service.ready({ timeoutMs, serializable: false });
  }

  /** Many reads become possible at once: each is counted before the next one reads. */
  #answerGet(reading: Reading): void {
    try {
      const refusal = this.#bytesRefusal();
      if (refusal !== null) throw refusal;
      const { id, key, revision } = reading;
      const entry = this.#context.service.getNow(key, revision);
      let bytes = OPERATION_OVERHEAD_BYTES;
      if (entry !== null) bytes += entry.key.length + entry.value.length;
      this.#land(reading, { id, get: { entry }, bytes });
    } catch (error) {
      this.#fail(reading, error);
    }
  }

  #land(flight: Flight, answer: Answer): void {
    this.#inFlightBytes -= flight.bytes;
    this.#answer(answer);
  }

  #fail(flight: Flight, error: unknown): void {
    this.#inFlightBytes -= flight.bytes;
    this.#refuse(flight.id, this.#context.toError(error));
  }

  /** Judges what waits already: a single operation as large as the bound still passes. */
  #bytesRefusal(): DkvError | null {
    const { pipelineInFlightBytesMax: max } = LIMITS;
    if (this.#inFlightBytes < max) return null;
    const text = `Too many bytes wait on this stream: ${this.#inFlightBytes}`;
    return new DkvError("OVERLOADED", `${text}, at most ${max}`);
  }

  #refuse(id: WireInteger, error: DkvError): void {
    const bytes = OPERATION_OVERHEAD_BYTES;
    this.#answer({ id, error: fromError(error), bytes });
  }

  #answer(answer: Answer): void {
    if (this.#hasFailed) return;
    this.#inFlightBytes += answer.bytes;
    this.#answered.push(answer);
    if (this.#isFlushSet) return;
    this.#isFlushSet = true;
    setImmediate(() => this.#flush());
  }

  #flush(): void {
    this.#isFlushSet = false;
    if (this.#hasFailed) return;
    const answered = this.#answered;
    let start = 0;
    while (start < answered.length && !this.#call.cancelled) {
      if (!this.#outlet.hasRoom()) {
        this.#answered = answered.slice(start);
        this.#isFlushSet = true;
        setTimeout(() => this.#flush(), ROOM_POLL_MS);
        return;
      }
      start = this.#send(answered, start);
    }
    if (this.#call.cancelled) this.#leave(answered.slice(start));
    this.#answered = [];
    if (this.#isEnding && this.#inFlight === 0) this.#call.end();
  }

  /** Sends one message with the answers from `start` on; returns where the next one starts. */
  #send(answered: readonly Answer[], start: number): number {
    let end = start;
    let bytes = 0;
    for (; end < answered.length; end++) {
      const more = answered[end]!.bytes;
      if (end > start && bytes + more > MESSAGE_BYTES_MAX) break;
      bytes += more;
    }
    const results = answered.slice(start, end);
    this.#leave(results);
    this.#outlet.write({ header: this.#context.header(), results }, bytes);
    return end;
  }

  #leave(answered: readonly Answer[]): void {
    this.#inFlight -= answered.length;
    for (const { bytes } of answered) this.#inFlightBytes -= bytes;
  }
}

type WirePipelineGet = WirePipelineOperation & { get: WireGet };

function isGet(operation: WirePipelineOperation): operation is WirePipelineGet {
  return Boolean(operation.get);
}

/** Null: the node's default. */
function toTimeoutMs({ timeoutMs }: WirePipelineOperation): number | null {
  return toInteger(timeoutMs, "timeout_ms") || null;
}

function typeOf(
  { put, delete: remove }: WirePipelineOperation,
): WriteRequest["type"] {
  return put ? "put" : remove ? "delete" : "transact";
}

/** @throws {DkvError} for what is wrong with it. */
function toWrite(operation: WirePipelineOperation): WriteRequest {
  const { put, delete: remove, transact } = operation;
  if (put && "type" in put) return put;
  const request = put ?? remove ?? transact;
  if (request) refuseWriteId(request, "pipeline");
  if (put) return toPut(put);
  if (remove) return toDelete(remove);
  if (transact) return toTransact(transact);
  throw new DkvError("MALFORMED", `The operation ${operation.id} is empty`);
}

/** How a write is answered. */
function toAnswer(
  id: WireInteger,
  result: ResultOf<WriteRequest["type"]>,
): Answer {
  const bytes = OPERATION_OVERHEAD_BYTES + resultBytes(result);
  switch (result.type) {
    case "put":
      return { id, put: result, bytes };
    case "delete":
      return { id, delete: fromDelete(result), bytes };
    case "transact":
      return { id, transact: fromTransact(result), bytes };
    default:
      return unreachable(result);
  }
}

/** How much an operation holds in memory until it is answered. */
function requestBytes(operation: WirePipelineOperation): number {
  let bytes = OPERATION_OVERHEAD_BYTES;
  const { put, transact } = operation;
  if (put) bytes += put.key.length + put.value.length;
  if (!transact) return bytes;
  for (const { value } of transact.compares) bytes += value?.length ?? 0;
  for (const step of [...transact.then, ...transact.else]) {
    bytes += OPERATION_OVERHEAD_BYTES;
    const { put, modify } = step;
    if (put) bytes += put.key.length + put.value.length;
    if (modify) bytes += modify.key.length + modify.operand.length;
  }
  return bytes;
}

function toPipelineWriteId(
  operation: WirePipelineOperation,
  sender: Sender,
): WriteId | null {
  const sequence = toInteger(operation.sequence, "sequence");
  if (sequence === 0) return null;
  const { client, doneBelow } = sender;
  return checkWriteId({ client, sequence, doneBelow });
}
