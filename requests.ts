/**
 * The operations of a client on their way: queued, sent over one `Pipeline` stream, settled. Used
 * by `client.ts`.
 *
 * ```text
 *            one message for each turn            answer
 *   submit ─▶ queue ─────────────────▶ in flight ───────▶ settled
 *              ▲                           │
 *              ├── stream broke or silent ─┤
 *              └── pause ◀─ NO_LEADER, … ──┘
 * ```
 *
 * A message with a write in it goes to the leader, one that only reads to each follower in turn.
 *
 * A write keeps its sequence number on all its attempts, so the store applies it once. Of a write
 * whose answer is lost nobody knows the outcome until another attempt is answered.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { setImmediate } from "node:timers";
import type * as grpc from "@grpc/grpc-js";
import { type PipelineAnswer, readPipelineResponse } from "./answers.ts";
import {
  asIs,
  closedError,
  type Endpoint,
  type Endpoints,
  isReasonToLeave,
  isTransient,
  methodOf,
} from "./endpoints.ts";
import { assert, DkvError, OutcomeUnknownError } from "./errors.ts";
import {
  type EncodedOperation,
  encodeHead,
  type Frame,
  setTimeoutMs,
} from "./operations.ts";
import { SlidingMap } from "./slidingmap.ts";

/** Bounds of {@linkcode Requests}. The node allows twice as many operations on a stream. */
const IN_FLIGHT_MAX = 2048;
const IN_FLIGHT_BYTES_MAX = 8 * 1024 * 1024;
/** How far a write may be ahead of the oldest unanswered one: the store remembers 4096 results. */
const SEQUENCES_MAX = 4000;
/** What waits beyond that. Its size is the program's choice, up to here. */
const WAITING_BYTES_MAX = 256 * 1024 * 1024;
/** What an operation costs beside its bytes, roughly: with its promise and its place in the queue. */
const REQUEST_BYTES = 400;
/** A message is closed when it has this much. */
const MESSAGE_BYTES = 1024 * 1024;

/** What the node is given for one attempt; doubled with each. */
const ATTEMPT_MS = 1300;
/** How much later than that a node counts as dead. */
const GRACE_MS = 200;
/** How long an answer may be on its way; a node counts time in ticks, and not finer. */
const MARGIN_MS = 100;
/** With less time than this left, another attempt would only make the outcome unknown. */
const LAST_ATTEMPT_MS = 300;
/** How often deadlines are looked at. */
const SWEEP_MS = 25;
const PAUSE_MS_MIN = 20;
const PAUSE_MS_MAX = 500;

/** How to submit an operation. */
export interface SubmitOptions<Operation> {
  readonly operation: Operation;
  /** True if it may change something. */
  readonly write: boolean;
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
}

/** One operation that is not settled. */
interface Request {
  readonly encoded: EncodedOperation;
  readonly id: number;
  /** 0 for a read. */
  readonly sequence: number;
  readonly timeoutMs: number;
  /** Infinity until the turn ends in which it was issued. */
  deadlineMs: number;
  readonly resolve: (answer: PipelineAnswer) => void;
  readonly reject: (reason: unknown) => void;
  /** Ends the listening to an abort signal. */
  unlisten: (() => void) | null;
  attempts: number;
  /** When the node that has it counts as dead. */
  silentMs: number;
  /** Not sent again before. */
  pauseMs: number;
  /** True if an earlier attempt of this write may have taken effect. */
  unsure: boolean;
  /** Why the last attempt failed. */
  error: DkvError | null;
  settled: boolean;
}

/** A stream to one node and what was sent over it. */
interface Stream {
  readonly endpoint: Endpoint;
  readonly call: grpc.ClientDuplexStream<Buffer, Buffer>;
  /** By id. What was settled meanwhile stays until the node answers: the node still has it. */
  readonly inFlight: SlidingMap<Request>;
}

/** Every operation of a client that is not settled. */
export class Requests {
  readonly #endpoints: Endpoints;
  readonly #client: Uint8Array;
  /** Waiting to be sent, from `#head` on. */
  #queue: Request[] = [];
  #head = 0;
  /** Of what is in the queue or paused. */
  #waitingBytes = 0;
  /** Waiting for `pauseMs`. */
  #paused: Request[] = [];
  /** Where operations are sent. */
  readonly #open = new Map<Endpoint, Stream>();
  /** With the open ones, those that were left while operations were in flight. */
  readonly #streams = new Set<Stream>();
  #inFlight = 0;
  #inFlightBytes = 0;
  #lastId = 0;
  #lastSequence = 0;
  /** Writes that are not settled, by sequence. */
  readonly #writes = new SlidingMap<Request>();
  #scheduled = false;
  #searching = false;
  #sweeper: ReturnType<typeof setInterval>;
  #closed = false;

  constructor(endpoints: Endpoints, client: Uint8Array) {
    this.#endpoints = endpoints;
    this.#client = client;
    this.#sweeper = setInterval(() => this.#sweep(), SWEEP_MS);
  }

  /**
   * Sends an operation and resolves with its answer.
   *
   * @throws {DkvError} the node's, or {@linkcode OutcomeUnknownError}
   */
  submit<Operation>(
    encode: (frame: Frame, operation: Operation) => EncodedOperation,
    options: SubmitOptions<Operation>,
  ): Promise<PipelineAnswer> {
    return new Promise((resolve, reject) => {
      if (this.#closed) throw closedError();
      options.signal?.throwIfAborted();
      if (this.#waitingBytes > WAITING_BYTES_MAX) throw this.#overloaded();
      const id = this.#lastId + 1;
      const sequence = options.write ? this.#lastSequence + 1 : 0;
      const request: Request = {
        encoded: encode({ id, sequence }, options.operation),
        id,
        sequence,
        timeoutMs: options.timeoutMs,
        deadlineMs: Infinity,
        resolve,
        reject,
        unlisten: null,
        attempts: 0,
        silentMs: Infinity,
        pauseMs: 0,
        unsure: false,
        error: null,
        settled: false,
      };
      this.#lastId = id;
      if (options.write) {
        this.#lastSequence = sequence;
        this.#writes.set(sequence, request);
      }
      if (options.signal !== undefined) this.#listen(request, options.signal);
      this.#queue.push(request);
      this.#waitingBytes += sizeOf(request);
      this.#schedule();
    });
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#sweeper);
    for (const request of this.#unsettled()) {
      this.#fail(request, closedError());
    }
    this.#queue = [];
    for (const stream of this.#streams) stream.call.cancel();
    this.#streams.clear();
    this.#open.clear();
  }

  // ---------------------------------------------------------------- out

  /** Everything issued in one turn of the event loop leaves together. */
  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.#flush();
    });
  }

  #flush(): void {
    if (this.#closed) return;
    this.#setDeadlines();
    while (this.#head < this.#queue.length) {
      const { current } = this.#endpoints;
      if (current === null) return this.#search();
      const batch = this.#nextBatch();
      if (batch.length === 0) return;
      const reads = batch.every(({ sequence }) => sequence === 0);
      const endpoint = reads ? this.#endpoints.nextReader() : current;
      this.#send(this.#streamTo(endpoint ?? current), batch);
    }
    this.#queue = [];
    this.#head = 0;
  }

  /** Of what is new, at the end of the queue; to ask for the time for each would cost too much. */
  #setDeadlines(): void {
    const now = performance.now();
    for (let at = this.#queue.length - 1; at >= this.#head; at--) {
      const request = this.#queue[at] as Request;
      if (request.deadlineMs < Infinity) return;
      request.deadlineMs = now + request.timeoutMs;
    }
  }

  /** Takes from the queue what fits into one message and into the bounds. */
  #nextBatch(): Request[] {
    const batch: Request[] = [];
    let bytes = 0;
    while (this.#head < this.#queue.length && bytes < MESSAGE_BYTES) {
      const request = this.#queue[this.#head] as Request;
      const { length } = request.encoded.bytes;
      const full = this.#inFlight + batch.length >= IN_FLIGHT_MAX ||
        this.#inFlightBytes + bytes > IN_FLIGHT_BYTES_MAX ||
        request.sequence >= this.#settledBelow() + SEQUENCES_MAX;
      if (full && !request.settled) break;
      this.#head++;
      this.#waitingBytes -= sizeOf(request);
      if (request.settled) continue;
      batch.push(request);
      bytes += length;
    }
    if (this.#head > 1024 && this.#head > this.#queue.length / 2) {
      this.#queue = this.#queue.slice(this.#head);
      this.#head = 0;
    }
    return batch;
  }

  #send(stream: Stream, batch: readonly Request[]): void {
    const now = performance.now();
    const parts = [encodeHead(this.#client, this.#settledBelow())];
    for (const request of batch) {
      const { encoded, id } = request;
      const attemptMs = ATTEMPT_MS * 2 ** Math.min(request.attempts, 10);
      const leftMs = Math.min(attemptMs, request.deadlineMs - now);
      // A little less, so that the node's own answer arrives before time is up.
      setTimeoutMs(encoded, leftMs - Math.min(MARGIN_MS, leftMs / 4));
      request.silentMs = now + attemptMs + GRACE_MS;
      request.attempts++;
      stream.inFlight.set(id, request);
      this.#inFlightBytes += encoded.bytes.length;
      parts.push(encoded.bytes as Uint8Array<ArrayBuffer>);
    }
    this.#inFlight += batch.length;
    stream.call.write(Buffer.concat(parts));
  }

  #streamTo(endpoint: Endpoint): Stream {
    const open = this.#open.get(endpoint);
    if (open !== undefined) return open;
    const { path } = methodOf("KeyValue", "Pipeline");
    const call = endpoint.client.makeBidiStreamRequest<Buffer, Buffer>(
      path,
      asIs,
      asIs,
    );
    const stream: Stream = { endpoint, call, inFlight: new SlidingMap() };
    call.on("data", (bytes: Buffer) => this.#receive(stream, bytes));
    call.on("error", (status: grpc.ServiceError) => {
      this.#lose(stream, endpoint.toError(status));
    });
    call.on("end", () => this.#lose(stream, endpoint.toError({})));
    this.#streams.add(stream);
    this.#open.set(endpoint, stream);
    return stream;
  }

  #search(): void {
    if (this.#searching) return;
    this.#searching = true;
    this.#endpoints.find().then(() => this.#flush(), () => {}).finally(() =>
      this.#searching = false
    );
  }

  // ---------------------------------------------------------------- in

  #receive(stream: Stream, bytes: Buffer): void {
    try {
      const leader = readPipelineResponse(bytes, (id, answer) => {
        const request = stream.inFlight.get(id);
        if (request === undefined) return;
        stream.inFlight.delete(id);
        this.#landed(request);
        if (request.settled) return;
        if (answer instanceof DkvError) {
          this.#refused(stream, { request, error: answer });
        } else this.#settle(request).resolve(answer);
      });
      this.#endpoints.follow(leader);
    } catch (error) {
      if (!(error instanceof DkvError)) throw error;
      return this.#lose(stream, error);
    }
    if (!this.#isOpen(stream) && stream.inFlight.size === 0) {
      this.#drop(stream);
    }
    if (this.#head < this.#queue.length) this.#schedule();
  }

  /** The node's answer to one attempt is an error. */
  #refused(
    stream: Stream,
    { request, error }: { request: Request; error: DkvError },
  ): void {
    if (isReasonToLeave(error)) this.#leave(stream);
    if (!isTransient(error)) return this.#fail(request, error);
    if (error.code === "OUTCOME_UNKNOWN") request.unsure = true;
    this.#pause(request, error);
  }

  /** Sends an operation again after a while. */
  #pause(request: Request, error: DkvError): void {
    request.error = error;
    const pauseMs = Math.min(
      PAUSE_MS_MIN * 2 ** Math.min(request.attempts, 10),
      PAUSE_MS_MAX,
    );
    request.pauseMs = performance.now() + pauseMs * (0.5 + Math.random());
    const late = request.pauseMs + LAST_ATTEMPT_MS > request.deadlineMs;
    if (late) return this.#fail(request, error);
    this.#paused.push(request);
    this.#waitingBytes += sizeOf(request);
  }

  /** No more is sent over a stream; what is in flight may still be answered. */
  #leave(stream: Stream): void {
    if (!this.#isOpen(stream)) return;
    this.#open.delete(stream.endpoint);
    this.#endpoints.leave(stream.endpoint);
    if (stream.inFlight.size === 0) this.#drop(stream);
  }

  /** What is in flight on a stream will not be answered: it is sent again elsewhere. */
  #lose(stream: Stream, error: DkvError): void {
    if (!this.#streams.has(stream)) return;
    const lost = stream.inFlight.values();
    stream.inFlight.clear();
    this.#leave(stream);
    this.#drop(stream);
    stream.endpoint.reset();
    const again: Request[] = [];
    for (const request of lost) {
      this.#landed(request);
      if (request.settled) continue;
      request.unsure = request.sequence > 0;
      request.error = error;
      again.push(request);
    }
    this.#requeue(again);
  }

  #isOpen(stream: Stream): boolean {
    return this.#open.get(stream.endpoint) === stream;
  }

  #drop(stream: Stream): void {
    this.#streams.delete(stream);
    stream.call.cancel();
  }

  /** In front, in their old order. */
  #requeue(requests: readonly Request[]): void {
    if (requests.length === 0) return;
    this.#queue = [...requests, ...this.#queue.slice(this.#head)];
    this.#head = 0;
    for (const request of requests) this.#waitingBytes += sizeOf(request);
    this.#schedule();
  }

  #landed(request: Request): void {
    this.#inFlight--;
    this.#inFlightBytes -= request.encoded.bytes.length;
    assert(this.#inFlight >= 0, `${this.#inFlight} operations are in flight`);
  }

  // ---------------------------------------------------------------- ends

  #settle(request: Request): Request {
    assert(!request.settled, `Operation ${request.id} is settled twice`);
    request.settled = true;
    request.unlisten?.();
    if (request.sequence > 0) this.#writes.delete(request.sequence);
    return request;
  }

  /** Rejects; what may have taken effect in an earlier attempt does not become a clean failure. */
  #fail(request: Request, error: DkvError): void {
    const sent = request.sequence > 0 && this.#mayTakeEffect(request);
    const unknown = sent && !isJudgement(error) &&
      !(error instanceof OutcomeUnknownError);
    this.#settle(request).reject(
      unknown ? new OutcomeUnknownError(error) : error,
    );
  }

  #mayTakeEffect(request: Request): boolean {
    if (request.unsure) return true;
    for (const { inFlight } of this.#streams) {
      if (inFlight.get(request.id) === request) return true;
    }
    return false;
  }

  /** Every sequence below this one is settled. */
  #settledBelow(): number {
    return this.#writes.first ?? this.#lastSequence + 1;
  }

  *#unsettled(): Generator<Request> {
    for (const { inFlight } of this.#streams) {
      for (const request of inFlight.values()) {
        if (!request.settled) yield request;
      }
    }
    for (const waiting of [this.#queue.slice(this.#head), this.#paused]) {
      for (const request of waiting) if (!request.settled) yield request;
    }
  }

  #listen(request: Request, signal: AbortSignal): void {
    const abort = () => {
      const { reason } = signal;
      const sent = request.sequence > 0 && this.#mayTakeEffect(request);
      this.#settle(request).reject(
        sent ? new OutcomeUnknownError(reason) : reason,
      );
    };
    signal.addEventListener("abort", abort);
    request.unlisten = () => signal.removeEventListener("abort", abort);
  }

  #overloaded(): DkvError {
    return new DkvError(
      "OVERLOADED",
      `Too many bytes wait in this client: ${this.#waitingBytes}, at most ${WAITING_BYTES_MAX}`,
    );
  }

  // ---------------------------------------------------------------- time

  /** One timer for all deadlines. */
  #sweep(): void {
    const now = performance.now();
    for (const request of this.#unsettled()) {
      if (request.deadlineMs <= now) this.#expire(request);
    }
    for (const stream of this.#streams) {
      const inFlight = stream.inFlight.values();
      if (inFlight.every(({ silentMs }) => now < silentMs)) continue;
      const { address } = stream.endpoint;
      const text = `${address} does not answer`;
      this.#lose(stream, new DkvError("UNREACHABLE", text));
    }
    // With a node to talk to, they leave the queue as it is sent.
    if (this.#endpoints.current === null) this.#dropSettled();
    const due = this.#paused.filter(({ pauseMs }) => pauseMs <= now);
    if (due.length === 0) return;
    this.#paused = this.#paused.filter(({ pauseMs }) => pauseMs > now);
    for (const request of due) this.#waitingBytes -= sizeOf(request);
    this.#requeue(due.filter(({ settled }) => !settled));
  }

  #dropSettled(): void {
    const waiting = this.#queue.slice(this.#head);
    this.#queue = waiting.filter(({ settled }) => !settled);
    this.#head = 0;
    if (this.#queue.length === waiting.length) return;
    for (const request of waiting) {
      if (request.settled) this.#waitingBytes -= sizeOf(request);
    }
  }

  #expire(request: Request): void {
    if (request.error !== null) return this.#fail(request, request.error);
    const unreached = request.attempts === 0 &&
      this.#endpoints.current === null;
    if (unreached) return this.#fail(request, this.#endpoints.reason);
    const text = request.attempts > 0
      ? "No answer came before the deadline"
      : "The deadline passed before the operation could be sent: too many others are in flight";
    this.#fail(request, new DkvError("DEADLINE_EXCEEDED", text));
  }
}

/** About how much memory a request holds. */
function sizeOf({ encoded }: Request): number {
  return REQUEST_BYTES + encoded.bytes.length;
}

/** True if the cluster looked at the operation itself and would have refused each attempt alike. */
function isJudgement(error: DkvError): boolean {
  switch (error.code) {
    case "KEY_EMPTY":
    case "KEY_TOO_LARGE":
    case "VALUE_TOO_LARGE":
    case "VALUE_INVALID":
    case "REQUEST_TOO_LARGE":
    case "RANGE_INVERTED":
    case "REVISION_INVALID":
    case "LEASE_NOT_FOUND":
    case "LEASE_INVALID":
    case "TOO_MANY_OPERATIONS":
    case "DUPLICATE_KEY":
    case "MALFORMED":
      return true;
    default:
      return false;
  }
}
