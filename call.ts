/**
 * What every gRPC handler shares: its context, deadlines, errors as statuses, and whether a slow
 * client takes more. Used by `grpc.ts` and the modules that serve one stream each.
 *
 * @module
 */

import type { Buffer } from "node:buffer";
import * as grpc from "@grpc/grpc-js";
import { setImmediate } from "node:timers";
import { LIMITS, type Settings } from "./config.ts";
import { toInteger, type WireInteger } from "./convert.ts";
import { depart, sessionOf } from "./departures.ts";
import {
  AssertionError,
  DkvError,
  ERROR_TABLE,
  type ErrorCode,
} from "./errors.ts";
import type { CallOptions, Service } from "./service.ts";

// deno-lint-ignore no-explicit-any -- the untyped edge: what proto-loader makes of a message
export type Wire = any;
export type ServerStream = grpc.ServerWritableStream<Wire, Wire>;
export type DuplexStream = grpc.ServerDuplexStream<Wire, Wire>;

const KIB = 1024;

/** Deadlines are kept this much early, so that the node's own answer arrives before gRPC gives up. */
const DEADLINE_MARGIN_MS = 30;

/** What the handlers need of the node. */
export interface GrpcOptions {
  service: Service;
  nodeId: string;
  settings: Settings;
  status(): Record<string, unknown>;
  /** Called with a broken invariant or damaged data: the node stops. */
  onDefect(error: unknown): void;
  log(text: string, fields: Record<string, unknown>): void;
}

/** A `Header`. */
export interface WireHeader {
  readonly revision: number;
  readonly nodeId: string;
  readonly leader: string;
}

/** What a handler of any API is given. */
export interface UnaryContext {
  /** The header of a response made now. */
  header(): object;
  /** Converts anything thrown into an error for the caller. */
  toStatus(error: unknown): grpc.ServiceError;
}

/** What the handlers of `proto/kvstore.proto` are given. */
export interface Context extends GrpcOptions, UnaryContext {
  header(): WireHeader;
  /** As `toStatus`, for those who tell errors inside a stream. */
  toError(error: unknown): DkvError;
}

/** Serves a call of one request and one response; the header is added unless the handler made one. */
export type Handler<Request, Given extends UnaryContext> = (
  wire: Request,
  context: Given,
  options: CallOptions,
) => Promise<Record<string, unknown>>;

/** A handler as grpc-js calls it. */
export function unary<Request, Given extends UnaryContext>(
  context: Given,
  handler: Handler<Request, Given>,
) {
  return async (
    call: grpc.ServerUnaryCall<Request | Unreadable, unknown>,
    callback: grpc.sendUnaryData<unknown>,
  ): Promise<void> => {
    try {
      if (call.request instanceof Unreadable) throw call.request.error;
      const response = await handler(call.request, context, {
        timeoutMs: timeoutOf(call),
      });
      const answer = { header: context.header(), ...response };
      depart(call, () => callback(null, answer));
    } catch (error) {
      callback(context.toStatus(error));
    }
  };
}

/** What a read says about the state that it wants to see. */
export function toReadOptions(
  wire: { revision: WireInteger; serializable: boolean },
): { revision: number; serializable: boolean } {
  return {
    revision: toInteger(wire.revision, "revision"),
    serializable: wire.serializable,
  };
}

/** Bytes that are written to a stream between two looks at what its peer takes. */
const UNCHECKED_BYTES_MAX = 64 * KIB;

/**
 * A stream that knows whether its other side keeps up. Writes on Deno's HTTP/2 streams complete at
 * once whatever the peer does, and what it does not read piles up in native memory; so before more
 * than some bytes are written, by default {@linkcode UNCHECKED_BYTES_MAX}, look at the window that
 * the peer grants.
 */
export class Outlet {
  readonly #call: ServerStream | DuplexStream;
  readonly #uncheckedBytesMax: number;
  #uncheckedBytes = 0;
  /** Writes of this turn of the loop: the window does not know of them yet. */
  #fresh = 0;

  constructor(
    call: ServerStream | DuplexStream,
    uncheckedBytesMax: number = UNCHECKED_BYTES_MAX,
  ) {
    this.#call = call;
    this.#uncheckedBytesMax = uncheckedBytesMax;
  }

  /** False if the peer is behind: ask again a little later. */
  hasRoom(): boolean {
    if (this.#uncheckedBytes < this.#uncheckedBytesMax) return true;
    if (this.#fresh > 0) return false;
    const window = sessionOf(this.#call)?.state.remoteWindowSize;
    if (typeof window === "number" && window <= 0) return false;
    this.#uncheckedBytes = 0;
    return true;
  }

  /** Writes a message of about so many bytes. */
  write(message: Wire, bytes: number): void {
    this.#uncheckedBytes += bytes;
    if (this.#uncheckedBytes >= this.#uncheckedBytesMax) {
      this.#fresh++;
      setImmediate(() => this.#fresh--);
    }
    if (!this.#call.cancelled) this.#call.write(message);
  }
}

/** How long to wait before looking again whether a slow client takes more. */
export const ROOM_POLL_MS = 5;

/** An outlet of watches: if it had no room, it tells when there is some again. */
export class WatchOutlet extends Outlet {
  readonly #onRoom: () => void;
  readonly #isWatching: () => boolean;
  #poll: ReturnType<typeof setTimeout> | undefined;

  /** `isWatching`: whether anybody wants room. */
  constructor(
    call: DuplexStream,
    options: { isWatching: () => boolean; onRoom: () => void },
  ) {
    super(call);
    this.#isWatching = options.isWatching;
    this.#onRoom = options.onRoom;
  }

  override hasRoom(): boolean {
    const hasRoom = super.hasRoom();
    if (!hasRoom) this.#poll ??= setTimeout(() => this.#look(), ROOM_POLL_MS);
    return hasRoom;
  }

  /** The stream has ended. */
  close(): void {
    clearTimeout(this.#poll);
  }

  #look(): void {
    this.#poll = undefined;
    if (this.#isWatching() && this.hasRoom()) this.#onRoom();
  }
}

/**
 * Serves a stream of renewals: they are worked on at the same time and answered in their order. What
 * `renew` rejects with ends the stream.
 */
export function serveRenewals<Request>(
  call: DuplexStream,
  { renew, toStatus: statusOf }: {
    renew: (wire: Request | Unreadable) => Promise<Wire>;
    toStatus: (error: unknown) => grpc.ServiceError;
  },
): void {
  let last = Promise.resolve();
  let waiting = 0;
  call.on("data", (wire: Request | Unreadable) => {
    if (waiting >= LIMITS.pipelineInFlightMax) {
      const text = `Too many renewals wait on this stream: ${waiting}`;
      call.emit("error", toStatus(new DkvError("OVERLOADED", text)));
      return;
    }
    waiting++;
    const renewed = renew(wire);
    // It is looked at below, perhaps later.
    renewed.catch(() => {});
    last = last.then(async () => {
      const response = await renewed;
      waiting--;
      if (!call.cancelled) call.write(response);
    }).catch((error) => {
      if (!call.cancelled) call.emit("error", statusOf(error));
    });
  });
  call.on("end", () => void last.then(() => call.end()));
  call.on("error", () => {}); // The client vanished; what it asked for has been done or will be.
}

/** Stands in the place of a request that could not be read. */
export class Unreadable {
  readonly error: DkvError;

  constructor(error: DkvError) {
    this.error = error;
  }
}

/** The same service, but a bad request becomes an error with a code instead of a bare INTERNAL. */
export function checkedDefinition(
  definition: grpc.ServiceDefinition,
  bytesMaxOf: (method: string) => number,
): grpc.ServiceDefinition {
  const methods = Object.entries(definition).map(([name, method]) => {
    const bytesMax = bytesMaxOf(name);
    const requestDeserialize = (bytes: Buffer) => {
      if (bytes.length > bytesMax) {
        const text =
          `The request is too large: ${bytes.length} bytes, at most ${bytesMax}`;
        return new Unreadable(new DkvError("REQUEST_TOO_LARGE", text));
      }
      try {
        return method.requestDeserialize(bytes);
      } catch (cause) {
        const text = `The request is not a ${name} message: ${
          (cause as Error).message
        }`;
        return new Unreadable(new DkvError("MALFORMED", text, { cause }));
      }
    };
    return [name, { ...method, requestDeserialize }];
  });
  return Object.fromEntries(methods);
}

/** The client's deadline, a little early; null if it has none. */
export function timeoutOf(
  call: { getDeadline(): grpc.Deadline },
): number | null {
  const deadline = call.getDeadline();
  if (deadline === Infinity) return null;
  const leftMs = Number(deadline) - Date.now();
  // A margin in proportion: a short deadline must not be eaten by it.
  return leftMs - Math.min(DEADLINE_MARGIN_MS, leftMs / 5);
}

/**
 * Anything thrown as an error for the caller. Damaged data and broken invariants end the node; any
 * other surprise costs the one call that met it.
 */
export function toError(
  error: unknown,
  { onDefect, log }: Pick<GrpcOptions, "onDefect" | "log">,
): DkvError {
  const ends = error instanceof AssertionError ||
    error instanceof DkvError && error.code === "DATA_CORRUPT";
  if (ends) onDefect(error);
  if (error instanceof DkvError) return error;
  const { message, stack } = error as Error;
  if (!ends) log("a call met a defect", { error: stack ?? message });
  return new DkvError("INTERNAL", `The node has a defect: ${message}`, {
    cause: error,
  });
}

/** An error as a gRPC status, its stable code in the trailer `dkv-code`. */
export function toStatus(error: DkvError): grpc.ServiceError {
  const metadata = new grpc.Metadata();
  metadata.set("dkv-code", error.code);
  return Object.assign(new Error(error.message), {
    code: ERROR_TABLE[error.code].grpc as grpc.status,
    details: error.message,
    metadata,
  });
}

/** What grpc-js itself refuses, and with which code we do. */
const REFUSALS: readonly [start: string, code: ErrorCode][] = [
  ["Received message", "REQUEST_TOO_LARGE"],
  ["Sent message", "REQUEST_TOO_LARGE"],
  ["Failed to decompress", "MALFORMED"],
  ["Invalid grpc-timeout", "MALFORMED"],
];

/** A server interceptor: gives what grpc-js itself refuses a stable code too. */
export function codeRefusals(
  _method: unknown,
  call: grpc.ServerInterceptingCallInterface,
): grpc.ServerInterceptingCall {
  const { sendStatus } = call;
  call.sendStatus = (status) => {
    const { details = "" } = status;
    // Errors of our own carry their code already.
    const refusal = status.metadata?.get("dkv-code").length
      ? undefined
      : REFUSALS.find(([start]) => details.startsWith(start));
    if (refusal === undefined) return sendStatus.call(call, status);
    const { code, metadata } = toStatus(new DkvError(refusal[1], details));
    sendStatus.call(call, { code, details, metadata });
  };
  // The type wants a layer around the call; the call itself will do and costs nothing.
  return call as grpc.ServerInterceptingCall;
}

/** An error inside a stream. */
export function fromError(
  { code, message }: DkvError,
): { code: string; message: string } {
  return { code, message };
}
