/**
 * Joins the HTTP/2 frames that a connection has to send at the same time. Deno 2.9.3 hands each frame
 * to the system by itself, and a frame has 16 KiB at most: an answer is three of them, a message of
 * 1,000 puts is ten, and a change that a client watches on 100 streams is 100, each of which wakes the
 * other side up. Used by `grpcserver.ts` and `channel.ts`.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { subscribe } from "node:diagnostics_channel";

/** More than this is not joined: copying it would cost more than to write it in pieces. */
const JOINED_BYTES_MAX = 64 * 1024;

/** The part of Deno's HTTP/2 session that says what is to be written: nothing is the end of it. */
interface Outgoing {
  getOutgoingChunk(): Uint8Array | undefined;
}

/** What Deno and Node tell of a call that begins. */
interface Created {
  readonly stream: { readonly session?: object };
  readonly headers: { readonly ":path"?: string };
}

/** Paths of the methods whose connections are joined. */
const paths = new Set<string>();
const known = new WeakSet<object>();

/** For the connections of all calls that this process will make of a method. */
export function joinCalls(path: string): void {
  if (paths.size === 0) {
    subscribe("http2.client.stream.created", (message) => {
      const { stream: { session }, headers } = message as Created;
      if (session === undefined || known.has(session)) return;
      if (!paths.has(headers[":path"] ?? "")) return;
      known.add(session);
      joinWrites(session);
    });
  }
  paths.add(path);
}

/** For one connection. Elsewhere, and if Deno changes, there is no such part: frames leave as they come. */
export function joinWrites(session: object): void {
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
