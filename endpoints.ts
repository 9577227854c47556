/**
 * The nodes a client knows, their connections, and the choice of the one to talk to. Used by
 * `client.ts`, `requests.ts`, `listing.ts` and `subscription.ts`.
 *
 * ```text
 *             find(): ask all, prefer the leader
 *   no current ─────────────────────────────────▶ current ◀─┐ follow(): an answer
 *       ▲                                            │  └───┘ names another leader
 *       └──── leave(): it broke, was silent, ────────┘
 *             or has no leader
 * ```
 *
 * Writes go to the current one. Reads go to one after the other of those others that serve: that
 * knew a leader when they were asked last, and were not left since. A node that does not serve is
 * asked again and again.
 *
 * @module
 */

import type { Buffer } from "node:buffer";
import * as grpc from "@grpc/grpc-js";
import { loadSync, type PackageDefinition } from "@grpc/proto-loader";
import { toStatus, wireError } from "./answers.ts";
import { DkvError, OutcomeUnknownError } from "./errors.ts";
import { within } from "./timer.ts";

/** How long a node may take to say how it is. */
const PROBE_MS = 1000;
/** How long the others are waited for when one that does not lead has answered. */
const PREFER_LEADER_MS = 150;
/** A node that was left is avoided this long, if there is another. */
const AVOID_MS = 2000;
/** How long a node may take to answer the first attempt of a call; doubled with each. */
const ATTEMPT_MS = 1500;
/** Before a second attempt; doubled with each. */
const PAUSE_MS = 20;
const BACKOFF_MS_MIN = 50;
const BACKOFF_MS_MAX = 1000;
const MESSAGE_BYTES_MAX = 32 * 1024 * 1024;
/**
 * What a node may send before it must wait for a word that it was received; by default 64 KiB. A node
 * holds as much for a client that does not read.
 */
const WINDOW_BYTES = 1024 * 1024;

/** Ends a connection whose other end is silent: a stopped process keeps its sockets open. */
const KEEPALIVE_MS = 3000;

const PROTO_PATH = `${import.meta.dirname}/proto/kvstore.proto`;
let loaded: PackageDefinition | null = null;

/** The definition of a method of `kvstore.v1`. Reads the proto file when first called. */
export function methodOf(
  service: "KeyValue" | "Cluster",
  name: string,
): grpc.MethodDefinition<unknown, unknown> {
  loaded ??= loadSync(PROTO_PATH, {
    longs: String,
    enums: String,
    defaults: true,
  });
  const definition = loaded[`kvstore.v1.${service}`] as grpc.ServiceDefinition;
  const method = definition[name];
  if (method === undefined) {
    throw new DkvError("INTERNAL", `There is no method ${service}.${name}`);
  }
  return method;
}

/** For messages that are encoded and decoded by hand. */
export const asIs = (bytes: Buffer): Buffer => bytes;

/** A unary call. */
export interface Call {
  readonly service: "KeyValue" | "Cluster";
  readonly method: string;
  readonly request: object;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

/** What an attempt of {@linkcode Endpoints.retry} should know. */
export interface Attempt {
  readonly attemptMs: number;
  /** True if an earlier attempt may have had effect. */
  readonly unsure: boolean;
}

/** Options of {@linkcode Endpoints.retry}. */
export interface RetryOptions {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  /** True if an attempt without an answer may have changed something. */
  readonly write?: boolean;
  /** True if any node that serves will do, one as well as the other. */
  readonly spread?: boolean;
}

/** One node. */
export class Endpoint {
  /** `host:port`. */
  readonly address: string;
  /** As the node calls itself; empty until it has answered once. */
  nodeId = "";
  /** It knew a leader when it was asked last, and was not left since. */
  serving = false;
  /** When it was left, by `performance.now()`. */
  leftMs = -Infinity;
  #client: grpc.Client | null = null;

  constructor(address: string) {
    this.address = address;
  }

  /** The connection, made when first needed. */
  get client(): grpc.Client {
    return this.#client ??= new grpc.Client(
      this.address,
      grpc.credentials.createInsecure(),
      {
        "grpc.use_local_subchannel_pool": 1,
        "grpc.enable_retries": 0,
        "grpc.enable_http_proxy": 0,
        "grpc.service_config_disable_resolution": 1,
        "grpc.initial_reconnect_backoff_ms": BACKOFF_MS_MIN,
        "grpc.max_reconnect_backoff_ms": BACKOFF_MS_MAX,
        "grpc.keepalive_time_ms": KEEPALIVE_MS,
        "grpc.keepalive_timeout_ms": KEEPALIVE_MS,
        "grpc.max_receive_message_length": MESSAGE_BYTES_MAX,
        "grpc.max_send_message_length": MESSAGE_BYTES_MAX,
        "grpc-node.flow_control_window": WINDOW_BYTES,
      },
    );
  }

  /**
   * Makes a unary call, once.
   *
   * @throws {DkvError} with the node's code; UNREACHABLE if the node cannot be reached or is silent.
   */
  call(call: Call): Promise<Record<string, unknown>> {
    const { promise, resolve, reject } = Promise.withResolvers<
      Record<string, unknown>
    >();
    const { path, requestSerialize, responseDeserialize } = methodOf(
      call.service,
      call.method,
    );
    const abort = () => running.cancel();
    const running = this.client.makeUnaryRequest(
      path,
      requestSerialize,
      responseDeserialize,
      call.request,
      new grpc.Metadata(),
      { deadline: Date.now() + call.timeoutMs },
      (error, response) => {
        call.signal?.removeEventListener("abort", abort);
        if (error) reject(this.toError(error));
        else resolve(response as Record<string, unknown>);
      },
    );
    call.signal?.addEventListener("abort", abort);
    return promise;
  }

  /** A status as an error; one that the node did not make itself is UNREACHABLE. */
  toError(status: Partial<grpc.StatusObject>): DkvError {
    const code = status.metadata?.get("dkv-code")[0];
    const details = plain(status.details ?? "the stream ended");
    if (code !== undefined) return wireError(String(code), details);
    switch (status.code) {
      case grpc.status.UNIMPLEMENTED:
      case grpc.status.RESOURCE_EXHAUSTED:
      case grpc.status.INVALID_ARGUMENT:
        return new DkvError("MALFORMED", `${this.address}: ${details}`);
      case grpc.status.DEADLINE_EXCEEDED:
        return new DkvError("UNREACHABLE", `${this.address} does not answer`);
      default:
        return new DkvError(
          "UNREACHABLE",
          `Cannot reach ${this.address}: ${details}`,
        );
    }
  }

  /** Drops the connection; the next call makes a new one. */
  reset(): void {
    this.#client?.close();
    this.#client = null;
  }
}

/** All nodes that a client knows. */
export class Endpoints {
  readonly all: readonly Endpoint[];
  #current: Endpoint | null = null;
  #finding: Promise<Endpoint> | null = null;
  /** Why there is no current one. */
  #reason: DkvError | null = null;
  #closed = false;
  /** Ends the pause between two searches. */
  #wake: () => void = () => {};
  /** Where the round of the readers is. */
  #turn = 0;
  /** Set while nodes that do not serve are asked how they are. */
  #recovery: ReturnType<typeof setInterval> | undefined;

  constructor(addresses: readonly string[]) {
    this.all = addresses.map((address) => new Endpoint(address));
  }

  /** The node to talk to, the leader if possible; null if one must be found first. */
  get current(): Endpoint | null {
    return this.#current;
  }

  /**
   * The node for the next read; null if one must be found first. They take turns, the current one
   * only if there is no other: the leader has all the writes, and of three nodes it is the one that
   * must ask another before it answers.
   */
  nextReader(): Endpoint | null {
    for (let tries = 0; tries < this.all.length; tries++) {
      this.#turn = (this.#turn + 1) % this.all.length;
      const endpoint = this.all[this.#turn] as Endpoint;
      if (endpoint.serving && endpoint !== this.#current) return endpoint;
    }
    return this.#current;
  }

  /** An answer named the leader: writes go there, if it serves. */
  follow(leader: string): void {
    if (leader === "" || this.#current?.nodeId === leader) return;
    const endpoint = this.all.find(({ nodeId }) => nodeId === leader);
    if (endpoint?.serving) this.#current = endpoint;
  }

  /** What was wrong when a node was last looked for. */
  get reason(): DkvError {
    const addresses = this.all.map(({ address }) => address).join(", ");
    return this.#reason ??
      new DkvError("UNREACHABLE", `Cannot reach any of ${addresses}`);
  }

  /**
   * Looks for a node until there is one; everyone who asks meanwhile gets the same.
   *
   * @throws {DkvError} CANCELLED when the client is closed.
   */
  find(): Promise<Endpoint> {
    if (this.#current !== null) return Promise.resolve(this.#current);
    return this.#finding ??= this.#find().finally(() => this.#finding = null);
  }

  /** Looks elsewhere, until the endpoint has said again that it serves. */
  leave(endpoint: Endpoint): void {
    if (this.#current === endpoint) this.#current = null;
    endpoint.leftMs = performance.now();
    this.#note(endpoint, { serving: false });
  }

  /**
   * Makes attempts until one succeeds or fails for good or time runs out, at nodes that seem to
   * live. `attempt` must be safe to repeat; it is told whether an earlier one may have had effect.
   *
   * @throws {DkvError} what the last attempt threw; OUTCOME_UNKNOWN for a write of which nobody knows.
   */
  async retry<Result>(
    attempt: (endpoint: Endpoint, options: Attempt) => Promise<Result>,
    options: RetryOptions,
  ): Promise<Result> {
    const { timeoutMs, signal, write = false, spread = false } = options;
    const deadlineMs = performance.now() + timeoutMs;
    let unsure = false;
    for (let tries = 0;; tries++) {
      try {
        signal?.throwIfAborted();
        const reader = spread ? this.nextReader() : null;
        const endpoint = reader ?? await this.#findUntil(deadlineMs, signal);
        const leftMs = Math.max(1, deadlineMs - performance.now());
        const attemptMs = Math.min(ATTEMPT_MS * 2 ** tries, leftMs);
        try {
          return await attempt(endpoint, { attemptMs, unsure });
        } catch (error) {
          if (!(error instanceof DkvError)) throw error;
          if (isReasonToLeave(error)) this.leave(endpoint);
          unsure ||= write && !isCertain(error);
          const pauseMs = PAUSE_MS * 2 ** Math.min(tries, 5) *
            (0.5 + Math.random());
          const late = performance.now() + pauseMs >= deadlineMs;
          if (late || !isTransient(error)) throw error;
          await delay(pauseMs, signal);
        }
      } catch (error) {
        const reason = signal?.aborted ? signal.reason : error;
        throw unsure ? new OutcomeUnknownError(reason) : reason;
      }
    }
  }

  /** A change that may be repeated; the error `done` after a lost answer means that it had succeeded. */
  async change(
    { method, request, done }: {
      method: string;
      request: object;
      done: DkvError["code"];
    },
    options: RetryOptions,
  ): Promise<void> {
    await this.retry(async (endpoint, { attemptMs, unsure }) => {
      try {
        await endpoint.call({
          service: "KeyValue",
          method,
          request,
          timeoutMs: attemptMs,
          signal: options.signal,
        });
      } catch (error) {
        const repeated = error instanceof DkvError && error.code === done;
        if (!unsure || !repeated) throw error;
      }
    }, { ...options, write: true });
  }

  close(): void {
    this.#closed = true;
    this.#current = null;
    clearInterval(this.#recovery);
    this.#wake();
    for (const endpoint of this.all) endpoint.reset();
  }

  async #findUntil(
    deadlineMs: number,
    signal: AbortSignal | undefined,
  ): Promise<Endpoint> {
    if (this.#current !== null) return this.#current;
    return await within(this.find(), {
      timeoutMs: deadlineMs - performance.now(),
      signal,
      late: () => this.reason,
    });
  }

  async #find(): Promise<Endpoint> {
    let backoffMs = BACKOFF_MS_MIN;
    while (true) {
      if (this.#closed) throw closedError();
      const found = await this.#probe();
      if (this.#closed) throw closedError();
      if (found !== null) {
        this.#reason = null;
        this.#current = found;
        return found;
      }
      await this.#pause(backoffMs * (0.5 + Math.random()));
      backoffMs = Math.min(2 * backoffMs, BACKOFF_MS_MAX);
    }
  }

  /** Asks all at once: the leader wins, then one that was not just left, then any that answers. */
  #probe(): Promise<Endpoint | null> {
    const { promise, resolve } = Promise.withResolvers<Endpoint | null>();
    const now = performance.now();
    let best: { endpoint: Endpoint; rank: number } | null = null;
    let open = this.all.length;
    const finish = () => {
      clearTimeout(timer);
      resolve(best?.endpoint ?? null);
    };
    let timer: ReturnType<typeof setTimeout> | undefined;
    const ask = async (endpoint: Endpoint) => {
      try {
        const { leads, serves } = await this.#ask(endpoint);
        const avoided = now - endpoint.leftMs < AVOID_MS;
        const rank = (leads ? 2 : serves ? 1 : 0) - (avoided ? 3 : 0);
        if (best === null || rank > best.rank) best = { endpoint, rank };
        if (rank === 2) return finish();
        if (!avoided) timer ??= setTimeout(finish, PREFER_LEADER_MS);
      } catch (error) {
        // A connection that failed would be tried again only after a pause of its own.
        endpoint.reset();
        this.leave(endpoint);
        if (error instanceof DkvError) this.#reason = this.#unreachable(error);
      } finally {
        if (--open === 0) finish();
      }
    };
    for (const endpoint of this.all) void ask(endpoint);
    return promise;
  }

  /** Asks a node how it is, and notes it. */
  async #ask(endpoint: Endpoint): Promise<{ leads: boolean; serves: boolean }> {
    const status = toStatus(
      await endpoint.call({
        service: "Cluster",
        method: "Status",
        request: {},
        timeoutMs: PROBE_MS,
      }),
    );
    endpoint.nodeId = status.nodeId;
    const serves = status.leader !== "";
    this.#note(endpoint, { serving: serves });
    return { leads: status.role === "leader", serves };
  }

  #note(endpoint: Endpoint, { serving }: { serving: boolean }): void {
    endpoint.serving = serving;
    if (serving || this.#closed) return;
    this.#recovery ??= setInterval(() => this.#recover(), AVOID_MS);
  }

  /** Asks those that do not serve; with the last one back there is nobody to ask. */
  #recover(): void {
    const left = this.all.filter(({ serving }) => !serving);
    if (left.length === 0) {
      clearInterval(this.#recovery);
      this.#recovery = undefined;
    }
    for (const endpoint of left) {
      this.#ask(endpoint).catch(() => endpoint.reset());
    }
  }

  #unreachable(error: DkvError): DkvError {
    if (error.code !== "UNREACHABLE" || this.all.length === 1) return error;
    const addresses = this.all.map(({ address }) => address).join(", ");
    return new DkvError(
      "UNREACHABLE",
      `Cannot reach any of ${addresses}: ${error.message}`,
    );
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

/** Of what grpc-js says about a failed connection, the part that helps. */
function plain(details: string): string {
  const match = details.match(
    /Last error: (?:Error: )?(.*?)\.? *(?:Resolution note:.*)?$/s,
  );
  return match?.[1] || details;
}

/** What every operation of a closed client ends with. */
export function closedError(): DkvError {
  return new DkvError("CANCELLED", "The client is closed");
}

/** True if another attempt, perhaps at another node, can succeed where this error occurred. */
export function isTransient(error: DkvError): boolean {
  switch (error.code) {
    case "NO_LEADER":
    case "NOT_LEADER":
    case "SHUTTING_DOWN":
    case "UNREACHABLE":
    case "OVERLOADED":
    case "OUTCOME_UNKNOWN":
      return true;
    default:
      return false;
  }
}

/** True if the node said that the attempt had no effect, or refused it. */
export function isCertain(error: DkvError): boolean {
  return error.noEffect && error.code !== "UNREACHABLE";
}

/** True if the node that answered so is no place to stay. */
export function isReasonToLeave(error: DkvError): boolean {
  return isTransient(error) && error.code !== "OVERLOADED";
}

function delay(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", done);
  });
}
