/**
 * Joins the HTTP/2 frames that a server has for a connection at the same time. Deno 2.9.3 hands each
 * frame to the system by itself: an answer is three, and a change that a client watches on 100
 * streams is 100, each of which wakes that client up. Used by `grpcserver.ts`.
 *
 * @module
 */

import type * as grpc from "@grpc/grpc-js";
import { Buffer } from "node:buffer";
import type { EventEmitter } from "node:events";

/** More than this is not joined: copying it would cost more than to write it in pieces. */
const JOINED_BYTES_MAX = 64 * 1024;

/** The part of Deno's HTTP/2 session that says what is to be written: nothing is the end of it. */
interface Outgoing {
  getOutgoingChunk(): Uint8Array | undefined;
}

/** For a server that listens, but has no connection yet. */
export function joinWrites(server: grpc.Server): void {
  // grpc-js does not show its HTTP/2 servers.
  const servers: Map<EventEmitter, unknown> = Reflect.get(
    server,
    "http2Servers",
  );
  for (const http2Server of servers.keys()) {
    http2Server.on("session", joinFrames);
  }
}

/** Elsewhere, and if Deno changes, there is no such part, and frames leave as they come. */
function joinFrames(session: object): void {
  for (const symbol of Object.getOwnPropertySymbols(session)) {
    const part: unknown = Reflect.get(session, symbol);
    if (!isOutgoing(part)) continue;
    const next = part.getOutgoingChunk.bind(part);
    part.getOutgoingChunk = () => joined(next);
    return;
  }
}

function isOutgoing(part: unknown): part is Outgoing {
  return typeof part === "object" && part !== null &&
    "getOutgoingChunk" in part && typeof part.getOutgoingChunk === "function";
}

/** All that there is, or as much as is joined. */
function joined(next: () => Uint8Array | undefined): Uint8Array | undefined {
  const first = next();
  if (!first?.length || first.length >= JOINED_BYTES_MAX) return first;
  let chunk = next();
  if (!chunk?.length) return first;
  const chunks = [first];
  let bytes = first.length;
  while (chunk?.length) {
    chunks.push(chunk);
    bytes += chunk.length;
    chunk = bytes < JOINED_BYTES_MAX ? next() : undefined;
  }
  return Buffer.concat(chunks, bytes);
}
