/**
 * The gRPC server of a node, as grpc-js makes it: its bounds, and where it listens. Used by
 * `node.ts`.
 *
 * @module
 */

import * as grpc from "@grpc/grpc-js";
import type { EventEmitter } from "node:events";
import type { ServerHttp2Session } from "node:http2";
import { codeRefusals } from "./call.ts";
import { LIMITS } from "./config.ts";
import { DkvError } from "./errors.ts";
import { joinWrites } from "./joinedwrites.ts";
import { takeShortcuts } from "./shortcut.ts";

/** Methods that are called often; their handlers are made by `unary` of `call.ts`. */
const SHORTCUTS: ReadonlySet<string> = new Set([
  ...["Put", "Get", "Delete", "Transact"].map((name) =>
    `/kvstore.v1.KeyValue/${name}`
  ),
  ...["Put", "Range", "DeleteRange", "Txn"].map((name) =>
    `/etcdserverpb.KV/${name}`
  ),
]);

/** grpc-js prints what it also reports; only who asks for it in the environment wants both. */
export function quietGrpc(): void {
  for (const name of ["GRPC_NODE_VERBOSITY", "GRPC_VERBOSITY"]) {
    if (Deno.env.get(name)) return;
  }
  grpc.setLogVerbosity(grpc.logVerbosity.NONE);
}

/** A server with bounds. */
export function makeGrpcServer(): grpc.Server {
  return new grpc.Server({
    interceptors: [codeRefusals],
    "grpc.max_concurrent_streams": LIMITS.concurrentStreamsMax,
    "grpc.max_receive_message_length": LIMITS.pipelineInFlightBytesMax,
    "grpc.max_send_message_length": LIMITS.pipelineInFlightBytesMax,
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
  });
}

/**
 * Starts to listen.
 *
 * @throws {DkvError} CONFIG_INVALID if the address is taken.
 */
export async function listenGrpc(
  server: grpc.Server,
  address: string,
): Promise<void> {
  const credentials = grpc.ServerCredentials.createInsecure();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.bindAsync(
    address,
    credentials,
    (error) => error ? reject(error) : resolve(),
  );
  await promise.catch((cause) => {
    const taken = /EADDRINUSE/.test(cause.message);
    const reason = taken ? "another process does already" : cause.message;
    throw new DkvError(
      "CONFIG_INVALID",
      `Cannot listen on ${address}: ${reason}`,
      { cause },
    );
  });
  onSession(server, (session) => {
    joinWrites(session);
    openWindows(session);
  });
  takeShortcuts(server, SHORTCUTS);
}

/** Calls `listener` with each new connection of a server that listens. */
export function onSession(
  server: grpc.Server,
  listener: (session: ServerHttp2Session) => void,
): void {
  // grpc-js does not show its HTTP/2 servers.
  const servers: Map<EventEmitter, unknown> = Reflect.get(
    server,
    "http2Servers",
  );
  for (const http2Server of servers.keys()) http2Server.on("session", listener);
}

/**
 * How much a peer may send before it must wait for a word that it was received. With the 64 KiB of
 * HTTP/2 it waits several times in the middle of a message, and is sent as many words.
 */
export function openWindows(session: ServerHttp2Session): void {
  session.settings({ initialWindowSize: LIMITS.receiveWindowBytes });
  session.setLocalWindowSize(LIMITS.receiveWindowBytes);
}
