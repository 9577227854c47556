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
import type { Key, WriteId } from "./batch.ts";
import { LIMITS } from "./config.ts";
import {
  checkWriteId,
  fromDelete,
  fromOptionalEntry,
  fromPut,
  fromTransact,
  refuseWriteId,
  toDelete,
  toInteger,
  toKey,
  toPut,
  toTransact,
  type WireGet,
  type WireInteger,
  type WireTransact,
} from "./convert.ts";
import { DkvError } from "./errors.ts";
import { resultBytes } from "./results.ts";
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
import type {
  WirePipelineOperation,
  WirePipelineRequest,
  WirePipelineResult,
} from "./pipelinecodec.ts";

/** Who sends, for the operations of one request. */
interface Sender {
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
interface Answer {
  readonly result: WirePipelineResult;
  readonly bytes: number;
}

/** An operation that is not answered yet, and about how much memory it holds. */
interface Flight {
  readonly operation: WirePipelineOperation;
  readonly bytes: number;
}

/** A read on its way. */
interface Reading {
  readonly flight: Flight;
  readonly key: Key;
  readonly revision: number;
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
        client: request.client,
        doneBelow: toInteger(request.doneBelow, "done_below"),
      };
    } catch (error) {
      return this.fail(this.#context.toError(error));
    }
    const gets: Flight[] = [];
    for (const operation of request.operations) {
      if (this.#inFlight >= WAITING_MAX) {
        const text = `Far too many operations wait on this stream: ` +
          `${this.#inFlight}, at most ${LIMITS.pipelineInFlightMax}`;
        return this.fail(new DkvError("OVERLOADED", text));
      }
      const flight = this.#admit(operation);
      if (flight === null) continue;
      if (operation.get) gets.push(flight);
      else this.#write(flight, sender);
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

  /** Counts an operation; null if it was refused, since too much is in flight. */
  #admit(operation: WirePipelineOperation): Flight | null {
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
      return null;
    }
    const bytes = requestBytes(operation);
    this.#inFlightBytes += bytes;
    return { operation, bytes };
  }

  #write(flight: Flight, sender: Sender): void {
    const fail = (error: unknown) => this.#fail(flight, error);
    try {
      write(flight.operation, sender, this.#context)
        .then((answer) => this.#land(flight, answer), fail);
    } catch (error) {
      fail(error);
    }
  }

  /** The reads of a message that may wait equally long share one question to the leader. */
  #read(gets: readonly Flight[]): void {
    const waiting = new Map<number | null, Reading[]>();
    for (const flight of gets) {
      try {
        const { get } = flight.operation as WirePipelineGet;
        const { revision, serializable } = toReadOptions(get);
        const reading = { flight, key: toKey(get.key), revision };
        this.#context.service.checkGet(reading.key, revision);
        const timeoutMs = toTimeoutMs(flight.operation);
        const others = waiting.get(timeoutMs);
        if (serializable) this.#answerGet(reading);
        else if (others === undefined) waiting.set(timeoutMs, [reading]);
        else others.push(reading);
      } catch (error) {
        this.#fail(flight, error);
      }
    }
    for (const [timeoutMs, readings] of waiting) {
      this.#whenReady(timeoutMs).then(
        () => readings.forEach((reading) => this.#answerGet(reading)),
        (error) => readings.forEach(({ flight }) => this.#fail(flight, error)),
      );
    }
  }

  async #whenReady(timeoutMs: number | null): Promise<void> {
    await this.#context.service.ready({ timeoutMs, serializable: false });
  }

  /** Many reads become possible at once: each is counted before the next one reads. */
  #answerGet({ flight, key, revision }: Reading): void {
    try {
      const refusal = this.#bytesRefusal();
      if (refusal !== null) throw refusal;
      const entry = this.#context.service.getNow(key, revision);
      let bytes = OPERATION_OVERHEAD_BYTES;
      if (entry !== null) bytes += entry.key.length + entry.value.length;
      const get = { entry: fromOptionalEntry(entry) };
      const { id } = flight.operation;
      this.#land(flight, { result: { id, get }, bytes });
    } catch (error) {
      this.#fail(flight, error);
    }
  }

  #land(flight: Flight, answer: Answer): void {
    this.#inFlightBytes -= flight.bytes;
    this.#answer(answer);
  }

  #fail(flight: Flight, error: unknown): void {
    this.#inFlightBytes -= flight.bytes;
    this.#refuse(flight.operation.id, this.#context.toError(error));
  }

  /** Judges what waits already: a single operation as large as the bound still passes. */
  #bytesRefusal(): DkvError | null {
    const { pipelineInFlightBytesMax: max } = LIMITS;
    if (this.#inFlightBytes < max) return null;
    const text = `Too many bytes wait on this stream: ${this.#inFlightBytes}`;
    return new DkvError("OVERLOADED", `${text}, at most ${max}`);
  }

  #refuse(id: WireInteger, error: DkvError): void {
    const result = { id, error: fromError(error) };
    this.#answer({ result, bytes: OPERATION_OVERHEAD_BYTES });
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
    const sent = answered.slice(start, end);
    this.#leave(sent);
    this.#outlet.write({
      header: this.#context.header(),
      results: sent.map(({ result }) => result),
    }, bytes);
    return end;
  }

  #leave(answered: readonly Answer[]): void {
    this.#inFlight -= answered.length;
    for (const { bytes } of answered) this.#inFlightBytes -= bytes;
  }
}

type WirePipelineGet = WirePipelineOperation & { get: WireGet };

/** Null: the node's default. */
function toTimeoutMs({ timeoutMs }: WirePipelineOperation): number | null {
  return toInteger(timeoutMs, "timeout_ms") || null;
}

/** Starts a write; what is wrong with it is thrown at once. */
function write(
  operation: WirePipelineOperation,
  sender: Sender,
  { service }: Context,
): Promise<Answer> {
  const { id } = operation;
  const request = operation.put ?? operation.delete ?? operation.transact;
  if (!request) {
    throw new DkvError("MALFORMED", `The operation ${id} is empty`);
  }
  refuseWriteId(request, "pipeline");
  const options = {
    timeoutMs: toTimeoutMs(operation),
    writeId: toPipelineWriteId(operation, sender),
  };
  if (operation.put) {
    return service.put(toPut(operation.put), options).then((result) => ({
      result: { id, put: fromPut(result) },
      bytes: OPERATION_OVERHEAD_BYTES + (result.previous?.value.length ?? 0),
    }));
  }
  if (operation.delete) {
    return service.delete(toDelete(operation.delete), options)
      .then((result) => ({
        result: { id, delete: fromDelete(result) },
        bytes: OPERATION_OVERHEAD_BYTES + entryBytes(result.previous),
      }));
  }
  return service.transact(toTransact(request as WireTransact), options)
    .then((result) => ({
      result: { id, transact: fromTransact(result) },
      bytes: OPERATION_OVERHEAD_BYTES + resultBytes(result),
    }));
}

function entryBytes(
  entries: readonly { key: string; value: Uint8Array }[],
): number {
  let bytes = 0;
  for (const { key, value } of entries) bytes += key.length + value.length;
  return bytes;
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
  return sequence === 0 ? null : checkWriteId({ ...sender, sequence });
}
