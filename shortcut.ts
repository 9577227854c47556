/**
 * Unary calls past grpc-js. Half of what its server does for a call is to be prepared for everything:
 * metadata, interceptors, compression, messages in pieces, timers. A call whose one message came in
 * one piece needs none of that, and is served here, straight on its HTTP/2 stream; any other is
 * handed to grpc-js as it came. Used by `grpcserver.ts`.
 *
 * ```text
 *   stream ─▶ path known, nothing unusual ─▶ first bytes are one whole message ─▶ handler
 *                 └─ else: grpc-js               └─ else: put back, grpc-js
 * ```
 *
 * The handlers are those that grpc-js was given, and clients see no difference.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import type {
  IncomingHttpHeaders,
  OutgoingHttpHeaders,
  ServerHttp2Stream,
} from "node:http2";
import type * as grpc from "@grpc/grpc-js";
import { toStatus } from "./call.ts";
import { LIMITS } from "./config.ts";
import { DkvError } from "./errors.ts";

/** Compression flag and length before each message. */
const PREFIX_BYTES = 5;

const UNIMPLEMENTED = 12;
const INTERNAL = 13;

const HEADERS: OutgoingHttpHeaders = {
  ":status": 200,
  "content-type": "application/grpc+proto",
  "grpc-accept-encoding": "identity,deflate,gzip",
  "grpc-encoding": "identity",
};
const REFUSAL_HEADERS: OutgoingHttpHeaders = {
  ":status": 200,
  "content-type": "application/grpc+proto",
};
const TRAILERS: OutgoingHttpHeaders = {
  "grpc-status": 0,
  "grpc-message": "OK",
};

/** `grpc-timeout`, as grpc-js takes it. */
const TIMEOUT = /^(\d{1,8})([HMSmun])$/;
const UNIT_MS: Readonly<Record<string, number>> = {
  H: 3_600_000,
  M: 60_000,
  S: 1000,
  m: 1,
  u: 0.001,
  n: 0.000_001,
};

/** As grpc-js keeps a handler. */
interface Method {
  readonly type: string;
  readonly path: string;
  readonly func: (call: Call, callback: Callback) => void;
  deserialize(bytes: Buffer): unknown;
  serialize(answer: unknown): Uint8Array;
}

type Callback = (
  error: Partial<grpc.StatusObject> | null,
  answer?: unknown,
) => void;

/** What handlers made by `unary` of `call.ts` ask of a call. */
interface Call {
  readonly request: unknown;
  getDeadline(): grpc.Deadline;
  readonly call: { readonly stream: ServerHttp2Stream };
}

type Listener = (
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
) => void;

/** What grpc-js keeps to itself. */
interface Inside {
  readonly handlers?: ReadonlyMap<string, Method>;
  readonly http2Servers?: ReadonlyMap<
    {
      listeners(event: "stream"): Listener[];
      off(event: "stream", listener: Listener): void;
      on(event: "stream", listener: Listener): void;
    },
    unknown
  >;
}

/**
 * Lets calls of these methods take the shortcut, on a server that listens already. Their handlers
 * must be made by `unary`. If grpc-js has become another one, nothing changes.
 */
export function takeShortcuts(
  server: grpc.Server,
  paths: ReadonlySet<string>,
): void {
  const { handlers, http2Servers } = server as unknown as Inside;
  if (handlers === undefined || http2Servers === undefined) return;
  for (const http2Server of http2Servers.keys()) {
    const [listener, ...others] = http2Server.listeners("stream");
    if (listener === undefined || others.length > 0) continue;
    http2Server.off("stream", listener);
    http2Server.on("stream", (stream, headers) => {
      const path = headers[":path"] ?? "";
      const method = paths.has(path) ? handlers.get(path) : undefined;
      const deadline = deadlineOf(headers);
      if (method?.type !== "unary" || deadline === null) {
        return listener.call(http2Server, stream, headers);
      }
      const giveBack = () => listener.call(http2Server, stream, headers);
      take(stream, { method, deadline, giveBack });
    });
  }
}

/** Null if there is anything unusual in the headers. */
function deadlineOf(headers: IncomingHttpHeaders): grpc.Deadline | null {
  const isPlain = headers["content-type"]?.startsWith("application/grpc") &&
    (headers["grpc-encoding"] ?? "identity") === "identity";
  if (!isPlain) return null;
  const timeout = headers["grpc-timeout"];
  if (timeout === undefined) return Infinity;
  const [, number, unit] = TIMEOUT.exec(String(timeout)) ?? [];
  if (number === undefined || unit === undefined) return null;
  return Date.now() + Math.trunc(Number(number) * (UNIT_MS[unit] ?? 0));
}

/** Waits for the message and for the end of the request. */
function take(
  stream: ServerHttp2Stream,
  { method, deadline, giveBack }: {
    method: Method;
    deadline: grpc.Deadline;
    giveBack: () => void;
  },
): void {
  let message: Buffer | null = null;
  const onData = (bytes: Buffer) => {
    if (message !== null) {
      stream.off("end", onEnd); // Nothing is done.
      return refuse(stream, unexpected("a second", method));
    }
    if (isWhole(bytes)) {
      message = bytes.subarray(PREFIX_BYTES);
      return;
    }
    stream.pause();
    stream.off("data", onData);
    stream.off("end", onEnd);
    stream.unshift(bytes);
    giveBack();
  };
  const onEnd = () => {
    if (message === null) return refuse(stream, unexpected("no", method));
    const request = method.deserialize(message);
    method.func(
      { request, getDeadline: () => deadline, call: { stream } },
      (error, answer) => {
        if (error) refuse(stream, error);
        else respond(stream, { method, answer });
      },
    );
  };
  // The client vanished; what it asked for has been done or will be.
  stream.on("error", () => {});
  stream.on("data", onData);
  stream.on("end", onEnd);
}

/** The words of grpc-js. */
function unexpected(what: string, { path }: Method) {
  const details =
    `Received ${what} request message for server streaming method ${path}`;
  return { code: UNIMPLEMENTED, details };
}

/** One message that is not compressed, and nothing else. */
function isWhole(bytes: Buffer): boolean {
  return bytes.length >= PREFIX_BYTES && bytes[0] === 0 &&
    bytes.readUInt32BE(1) === bytes.length - PREFIX_BYTES;
}

function respond(
  stream: ServerHttp2Stream,
  { method, answer }: { method: Method; answer: unknown },
): void {
  if (isOver(stream)) return;
  let bytes: Uint8Array;
  try {
    bytes = method.serialize(answer);
  } catch {
    const details = "Error serializing response";
    return refuse(stream, { code: INTERNAL, details });
  }
  const framedBytes = PREFIX_BYTES + bytes.length;
  const { pipelineInFlightBytesMax: max } = LIMITS;
  if (bytes.length > max) {
    const text = `Sent message larger than max (${framedBytes} vs. ${max})`;
    return refuse(stream, toStatus(new DkvError("REQUEST_TOO_LARGE", text)));
  }
  const framed = Buffer.allocUnsafe(framedBytes);
  framed[0] = 0;
  framed.writeUInt32BE(bytes.length, 1);
  framed.set(bytes, PREFIX_BYTES);
  stream.respond(HEADERS, { waitForTrailers: true });
  stream.once("wantTrailers", () => stream.sendTrailers(TRAILERS));
  stream.end(framed);
}

function refuse(
  stream: ServerHttp2Stream,
  { code, details = "", metadata }: Partial<grpc.StatusObject>,
): void {
  if (isOver(stream)) return;
  stream.respond({
    ...REFUSAL_HEADERS,
    "grpc-status": code,
    "grpc-message": encodeURI(details),
    ...metadata?.toHttp2Headers(),
  }, { endStream: true });
}

/** Answered, or nobody waits any more. */
function isOver(stream: ServerHttp2Stream): boolean {
  return stream.destroyed || stream.closed || stream.headersSent;
}
