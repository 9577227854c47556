/**
 * Calls to other nodes: the service of proto/peer.proto as grpc-js wants it, the options of every
 * connection between nodes, and errors on their way through a gRPC status. Used by `link.ts`,
 * `transfer.ts` and `peers.ts`.
 *
 * Messages are given to grpc-js encoded and taken from it encoded: so their size is known before they
 * are sent, and a malformed one is answered by us, with a reason.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import * as grpc from "@grpc/grpc-js";
import { LIMITS } from "./config.ts";
import { DkvError, ERROR_TABLE, isErrorCode } from "./errors.ts";
import { joinCalls } from "./joinedwrites.ts";

const KIB = 1024;
const MIB = 1024 * KIB;
/** What gRPC may add to a frame's estimated size before it refuses it. */
const FRAME_SLACK_BYTES = 64 * KIB;
/** The trailer that carries the stable code. */
const CODE_TRAILER = "dkv-code";
/** Status texts become a header; longer ones are cut. */
const REASON_CHARACTERS_MAX = 1000;

/** The bounds of everything between nodes. */
export interface PeerLimits {
  /** The largest message. */
  readonly peerFrameBytesMax: number;
  /** Messages are put together into frames of about this size. */
  readonly peerFrameBytes: number;
  /** Sent or waiting, and not acknowledged: above it messages are dropped. */
  readonly peerUnackedBytesMax: number;
  /** The same in messages. */
  readonly peerQueueMessagesMax: number;
  /** A receiver acknowledges a ping, this many bytes, */
  readonly peerAcknowledgeBytes: number;
  /** or this many frames. */
  readonly peerAcknowledgeFrames: number;
  /** How often a dialler pings, and all timeouts here are looked at. */
  readonly peerPingMs: number;
  /** A dialler that hears nothing this long gives the connection up. */
  readonly peerSilenceMsMax: number;
  /** From dialling to the welcome. */
  readonly peerHandshakeMsMax: number;
  /** Streams that have not said hello yet. */
  readonly peerHandshakesMax: number;
  /** The wait after the first failure; doubles with each further one… */
  readonly peerBackoffMsMin: number;
  /** …up to this. */
  readonly peerBackoffMsMax: number;
  /** A node that is away for less starts, or starts again: not worth a line. */
  readonly peerQuietMs: number;
  /** One piece of a snapshot. */
  readonly snapshotChunkBytes: number;
  /** Sent and not yet written by the receiver. */
  readonly snapshotUnackedBytesMax: number;
  /** A snapshot that moves nothing this long is given up. */
  readonly snapshotStallMsMax: number;
  /** From the last byte until the receiver has installed the snapshot. */
  readonly snapshotFinishMsMax: number;
}

/** What nodes use; tests shorten the times. */
export const PEER_LIMITS: PeerLimits = {
  peerFrameBytesMax: LIMITS.peerFrameBytesMax,
  peerFrameBytes: 1 * MIB,
  peerUnackedBytesMax: LIMITS.peerUnackedBytesMax,
  peerQueueMessagesMax: 8192,
  peerAcknowledgeBytes: 256 * KIB,
  peerAcknowledgeFrames: 256,
  peerPingMs: 1000,
  peerSilenceMsMax: 5000,
  peerHandshakeMsMax: 3000,
  peerHandshakesMax: 64,
  peerBackoffMsMin: 50,
  peerBackoffMsMax: 1000,
  peerQuietMs: 3000,
  snapshotChunkBytes: LIMITS.snapshotChunkBytes,
  snapshotUnackedBytesMax: 4 * MIB,
  snapshotStallMsMax: 10_000,
  snapshotFinishMsMax: 60_000,
};

/** What the outside of a node may watch: see `metrics.ts` for lines of a log. */
export type Log = (
  level: "debug" | "info" | "warn" | "error",
  text: string,
  fields: Readonly<Record<string, string | number | boolean>>,
) => void;

const PACKAGE = "kvstore.peer.v1";

function bidirectional(method: string): grpc.MethodDefinition<Buffer, Buffer> {
  return {
    path: `/${PACKAGE}.Peer/${method}`,
    requestStream: true,
    responseStream: true,
    requestSerialize: itself,
    requestDeserialize: itself,
    responseSerialize: itself,
    responseDeserialize: itself,
  };
}

/** `kvstore.peer.v1.Peer`, for `server.addService`. */
export const PEER_SERVICE = {
  Exchange: bidirectional("Exchange"),
  InstallSnapshot: bidirectional("InstallSnapshot"),
} as const;

/** A call to another node, with the connection that it alone uses. */
export interface Dial {
  readonly call: grpc.ClientDuplexStream<Buffer, Buffer>;
  /** Ends both: the call at once, the connection within this event-loop turn. */
  readonly close: () => void;
}

/** Opens a call on a connection of its own, so that no attempt waits for the backoff of another. */
export function dial(
  address: string,
  { method, limits, credentials }: {
    method: keyof typeof PEER_SERVICE;
    limits: PeerLimits;
    credentials: grpc.ChannelCredentials;
  },
): Dial {
  const client = new grpc.Client(address, credentials, {
    ...messageOptions(limits),
    "grpc.use_local_subchannel_pool": 1,
    // A connection that failed is not tried again here but by a new dial. With a longer wait, grpc-js
    // would connect once more after this client was closed, and keep that connection for ever.
    "grpc.initial_reconnect_backoff_ms": 10,
    "grpc.max_reconnect_backoff_ms": 10,
    "grpc.keepalive_time_ms": 10_000,
    "grpc.keepalive_timeout_ms": 5000,
    "grpc.enable_retries": 0,
    "grpc.enable_http_proxy": 0,
    "grpc.service_config_disable_resolution": 1,
  });
  const { path, requestSerialize, responseDeserialize } = PEER_SERVICE[method];
  joinCalls(path);
  const call = client.makeBidiStreamRequest(
    path,
    requestSerialize,
    responseDeserialize,
  );
  // Every end of a call comes as its status too; without a listener "error" would throw.
  call.on("error", () => {});
  return {
    call,
    close() {
      call.cancel();
      // Not in the turn of the dial: grpc-js 1.14 resolves an address in the next one, and a client
      // that was closed before goes on to connect, again and again, without end.
      setImmediate(() => client.close());
    },
  };
}

/** The options a server needs that serves {@linkcode PEER_SERVICE}, beside those it has for its clients. */
export function messageOptions(limits: PeerLimits = PEER_LIMITS) {
  return {
    "grpc.max_receive_message_length": limits.peerFrameBytesMax +
      FRAME_SLACK_BYTES,
    "grpc.max_send_message_length": limits.peerFrameBytesMax +
      FRAME_SLACK_BYTES,
  };
}

/** The bytes as grpc-js wants them; not copied. */
export function toBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Ends a call of another node with an error. What was written before still arrives. */
export function refuse(
  call: grpc.ServerDuplexStream<Buffer, Buffer>,
  error: DkvError,
): void {
  const metadata = new grpc.Metadata();
  metadata.set(CODE_TRAILER, error.code);
  call.emit("error", {
    code: ERROR_TABLE[error.code].grpc,
    details: error.message.slice(0, REASON_CHARACTERS_MAX),
    metadata,
  });
}

/** The error that another node, or the way to it, ended a call with. */
export function errorOf(status: grpc.StatusObject): DkvError {
  const [code] = status.metadata.get(CODE_TRAILER);
  const details = status.details.slice(0, REASON_CHARACTERS_MAX);
  if (typeof code === "string" && isErrorCode(code)) {
    return new DkvError(code, details || `status ${status.code}`);
  }
  return new DkvError(
    "UNREACHABLE",
    plainReason(details) || `status ${status.code}`,
    { cause: status },
  );
}

/** What the system says of a connection, in words. */
const SYSTEM_REASONS: Readonly<Record<string, string>> = {
  ECONNREFUSED: "nobody listens there",
  ECONNRESET: "the connection broke",
  EPIPE: "the connection broke",
  ENOTFOUND: "there is no host of that name",
  EAI_AGAIN: "the host's name cannot be resolved now",
  ETIMEDOUT: "no answer",
  EHOSTUNREACH: "there is no way to the host",
  ENETUNREACH: "there is no way to the network",
};

/** grpc-js wraps the reason in phrases and times, so that no two are alike. */
function plainReason(details: string): string {
  const [system = ""] = details.match(/\bE[A-Z_]{3,}\b/) ?? [];
  const known = SYSTEM_REASONS[system];
  if (known !== undefined) return known;
  if (/Connection dropped|closed/i.test(details)) return "the connection broke";
  return details.replace(/^No connection established\. Last error: /, "")
    .replace(/\. Resolution note:.*$/s, "")
    .replace(/ \(\d{4}-\d\d-\d\dT[^)]*\)/g, "");
}

/** Any failure as one with a code. */
export function toDkvError(error: unknown): DkvError {
  if (error instanceof DkvError) return error;
  const text = error instanceof Error ? error.message : String(error);
  return new DkvError("INTERNAL", text, { cause: error });
}

function itself(bytes: Buffer): Buffer {
  return bytes;
}
