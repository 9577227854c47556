/**
 * A watch as a program sees it: an async iterator of changes that outlives nodes and connections.
 * Used by `client.ts`.
 *
 * ```text
 *   stream ─▶ changes, whole revisions ─▶ buffer ─▶ next()
 *     ▲                                    │
 *     └── from the first revision that ────┘
 *         has not been put in the buffer
 * ```
 *
 * The buffer is bounded: a program that is slower than the changes makes the stream end, and it is
 * opened again, from where it ended, when the buffer is empty. That costs nobody else anything,
 * whereas a stream that is held back would fill the window of the connection that all share.
 *
 * @module
 */

import type { Buffer } from "node:buffer";
import type * as grpc from "@grpc/grpc-js";
import { type Change, readWatchResponse } from "./answers.ts";
import {
  asIs,
  closedError,
  type Endpoint,
  type Endpoints,
  isReasonToLeave,
  isTransient,
  methodOf,
} from "./endpoints.ts";
import { DkvError, unreachable } from "./errors.ts";
import {
  type CallOptions,
  type Target,
  toBytes,
  toRange,
} from "./operations.ts";
import { within } from "./timer.ts";

/** How to watch. */
export interface WatchOptions {
  /** The first revision to deliver. Default: changes from now on. */
  readonly from?: number;
  /** Deliver with each change the entry that was replaced or deleted. */
  readonly withPrevious?: boolean;
  /** Leave out puts. */
  readonly noPuts?: boolean;
  /** Leave out deletes. */
  readonly noDeletes?: boolean;
  /** Ends the watch: the iterator then throws the signal's reason. */
  readonly signal?: AbortSignal;
}

/** How long a node may take to open a watch. */
const OPEN_MS = 1500;
const PAUSE_MS_MIN = 20;
const PAUSE_MS_MAX = 1000;
const BUFFER_BYTES_MAX = 4 * 1024 * 1024;
/** What a change costs beside its keys and values, roughly. */
const CHANGE_BYTES = 200;

/** Why a stream ended. */
type End =
  | { type: "full" }
  | { type: "stopped" }
  | { type: "failed"; error: DkvError };

/** Changes, in the order of their revisions, each once. */
export class Watch implements AsyncIterableIterator<Change>, AsyncDisposable {
  readonly #endpoints: Endpoints;
  readonly #target: Target;
  readonly #options: WatchOptions;
  readonly #onEnd: () => void;
  readonly #started = Promise.withResolvers<number>();
  /** Received and not yet taken. */
  #buffer: Change[] = [];
  #bufferBytes = 0;
  /** The first revision that has not been put in the buffer; 0 if the watch never was open. */
  #next: number;
  /** Waits for a change, or for room. */
  #waiters: ((outcome: void) => void)[] = [];
  #drained: (() => void) | null = null;
  #ended: { error: unknown } | null = null;
  /** Ends what is under way. */
  #interrupt: () => void = () => {};

  /**
   * Use `Client.watch`.
   *
   * @internal
   */
  constructor(
    target: Target,
    options: WatchOptions & { endpoints: Endpoints; onEnd: () => void },
  ) {
    this.#endpoints = options.endpoints;
    this.#onEnd = options.onEnd;
    this.#target = target;
    this.#options = options;
    this.#next = options.from ?? 0;
    this.#started.promise.catch(() => {}); // Who does not ask need not hear.
    const { signal } = options;
    if (signal?.aborted) this.#end(signal.reason);
    else {
      signal?.addEventListener("abort", this.#onAbort);
      void this.#run();
    }
  }

  /**
   * Resolves when the watch is open, with the first revision that it delivers. By default it waits as
   * long as the watch tries; giving up the wait does not end the watch.
   */
  async started(options: CallOptions = {}): Promise<number> {
    const { timeoutMs = Infinity, signal } = options;
    signal?.throwIfAborted();
    const text = `The watch was not open within ${timeoutMs} ms`;
    return await within(this.#started.promise, {
      timeoutMs,
      signal,
      late: () => new DkvError("DEADLINE_EXCEEDED", text),
    });
  }

  /** Waits for the next change. */
  async next(): Promise<IteratorResult<Change, undefined>> {
    while (true) {
      const change = this.#buffer.shift();
      if (change !== undefined) {
        this.#bufferBytes -= sizeOf(change);
        if (this.#buffer.length === 0) this.#drained?.();
        return { done: false, value: change };
      }
      if (this.#ended !== null) {
        const { error } = this.#ended;
        this.#ended = { error: undefined }; // An iterator throws once.
        if (error !== undefined) throw error;
        return { done: true, value: undefined };
      }
      await new Promise<void>((resolve) => this.#waiters.push(resolve));
    }
  }

  /** Ends the watch; what was received and not taken is dropped. */
  return(): Promise<IteratorResult<Change, undefined>> {
    this.#buffer = [];
    this.#end(undefined);
    return Promise.resolve({ done: true, value: undefined });
  }

  /**
   * Ends the watch with an error: of the client, when it is closed.
   *
   * @internal
   */
  fail(error: unknown): void {
    this.#end(error);
  }

  /** Makes it something for `for await`. */
  [Symbol.asyncIterator](): this {
    return this;
  }

  /** Ends the watch. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }

  readonly #onAbort = () => this.#end(this.#options.signal?.reason);

  #end(error: unknown): void {
    if (this.#ended !== null) return;
    this.#ended = { error };
    this.#options.signal?.removeEventListener("abort", this.#onAbort);
    this.#started.reject(error ?? closedError());
    this.#interrupt();
    this.#drained?.();
    this.#wake();
    this.#onEnd();
  }

  #wake(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const resolve of waiters) resolve();
  }

  /** One stream after the other, until the watch ends. */
  async #run(): Promise<void> {
    let pauseMs = PAUSE_MS_MIN;
    while (this.#ended === null) {
      let endpoint: Endpoint;
      try {
        endpoint = this.#endpoints.nextReader() ?? await this.#endpoints.find();
      } catch (error) {
        return this.#end(error);
      }
      if (this.#ended !== null) return;
      const before = this.#next;
      const end = await this.#stream(endpoint);
      if (this.#next > before) pauseMs = PAUSE_MS_MIN;
      switch (end.type) {
        case "stopped":
          return;
        case "full":
          await this.#drain();
          break;
        case "failed":
          if (!isTransient(end.error)) return this.#end(end.error);
          if (isReasonToLeave(end.error)) this.#endpoints.leave(endpoint);
          await this.#pause(pauseMs * (0.5 + Math.random()));
          pauseMs = Math.min(2 * pauseMs, PAUSE_MS_MAX);
          break;
        default:
          unreachable(end);
      }
    }
  }

  /** Receives changes from one node until that ends. */
  #stream(endpoint: Endpoint): Promise<End> {
    const { promise, resolve } = Promise.withResolvers<End>();
    const { path, requestSerialize } = methodOf("KeyValue", "Watch");
    const call: grpc.ClientDuplexStream<object, Buffer> = endpoint.client
      .makeBidiStreamRequest(path, requestSerialize, asIs);
    const failed = (error: DkvError) => resolve({ type: "failed", error });
    const silent = new DkvError("UNREACHABLE", "The node opens no watch");
    const timer = setTimeout(() => failed(silent), OPEN_MS);
    call.on("data", (bytes: Buffer) => {
      try {
        const end = this.#receive(bytes, () => clearTimeout(timer));
        if (end !== null) resolve(end);
      } catch (error) {
        failed(error as DkvError);
      }
    });
    call.on("error", (status: grpc.ServiceError) => {
      failed(endpoint.toError(status));
    });
    call.on("end", () => failed(endpoint.toError({})));
    this.#interrupt = () => resolve({ type: "stopped" });
    call.write(this.#request());
    return promise.finally(() => {
      clearTimeout(timer);
      call.removeAllListeners("data");
      call.cancel();
    });
  }

  #request(): object {
    const target = this.#target;
    const { withPrevious, noPuts, noDeletes } = this.#options;
    return {
      create: {
        watchId: 1,
        ...("key" in target
          ? { key: toBytes(target.key) }
          : { range: toRange(target) }),
        fromRevision: this.#next,
        withPrevious,
        noPuts,
        noDeletes,
      },
    };
  }

  /** Takes one message in; returns why the stream is to end, if it is. */
  #receive(bytes: Buffer, opened: () => void): End | null {
    const answer = readWatchResponse(bytes);
    if (answer === null) return null;
    switch (answer.type) {
      case "created":
        opened();
        this.#next = answer.fromRevision;
        this.#started.resolve(answer.fromRevision);
        return null;
      case "events":
        for (const change of answer.changes) {
          this.#buffer.push(change);
          this.#bufferBytes += sizeOf(change);
        }
        this.#next = Math.max(this.#next, answer.throughRevision + 1);
        this.#wake();
        return this.#bufferBytes > BUFFER_BYTES_MAX ? { type: "full" } : null;
      case "cancelled":
        return {
          type: "failed",
          error: answer.error ?? new DkvError("UNREACHABLE", "The watch ended"),
        };
      default:
        unreachable(answer);
    }
  }

  /** Resolves when the program has taken all changes, or the watch ended. */
  async #drain(): Promise<void> {
    if (this.#buffer.length === 0 || this.#ended !== null) return;
    await new Promise<void>((resolve) => this.#drained = resolve);
    this.#drained = null;
  }

  #pause(ms: number): Promise<void> {
    if (this.#ended !== null) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#interrupt = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

function sizeOf({ entry, previous, keyBytes }: Change): number {
  return CHANGE_BYTES + keyBytes.length + (entry?.value.length ?? 0) +
    (previous?.value.length ?? 0);
}
