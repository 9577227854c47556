/**
 * What the handlers of the etcd v3 API share: their context, the numbers by which etcd knows clusters
 * and members, and streams that do not outrun their client. Used by `etcd.ts` and the modules that
 * serve one of etcd's services each.
 *
 * @module
 */

import { createHash } from "node:crypto";
import type { EventEmitter } from "node:events";
import type * as grpc from "@grpc/grpc-js";
import {
  type Handler,
  Outlet,
  ROOM_POLL_MS,
  type ServerStream,
  timeoutOf,
  toError,
  unary,
  type UnaryContext,
  Unreadable,
  type Wire,
} from "./call.ts";
import type { Config } from "./config.ts";
import type { DkvError } from "./errors.ts";
import { EtcdError, etcdStatus } from "./etcderrors.ts";
import type { CallOptions, Service } from "./service.ts";
import type { Snapshot } from "./snapshots.ts";

/** Numbers of members that are kept: more than there are members. */
const NUMBERS_MAX = 256;

/** What the adapter needs of the node. */
export interface EtcdOptions {
  readonly service: Service;
  readonly config: Config;
  /** Which node of the configuration this is. */
  readonly nodeId: string;
  /** The file of this node's state. */
  readonly disk: {
    bytes(): number;
    /** Why writes are refused; null if they are not. */
    writeRefusal(): string | null;
    /** A copy, of one moment; to be removed after use. */
    snapshot(): Promise<Snapshot>;
  };
  /** May this node connect to `host:port`? */
  mayReach(address: string): boolean;
  /** Called with a broken invariant or damaged data: the node stops. */
  onDefect(error: unknown): void;
  log(text: string, fields: Record<string, unknown>): void;
}

/** A `ResponseHeader`. 64-bit integers are decimal texts. */
export interface EtcdHeader {
  readonly cluster_id: string;
  readonly member_id: string;
  readonly revision: string;
  readonly raft_term: string;
}

/** What every handler of the etcd v3 API is given. */
export interface EtcdContext extends EtcdOptions, UnaryContext {
  /** At the revision given, or at this node's own. */
  header(revision?: number): EtcdHeader;
  /**
   * The number of a node: its members, one after the other, have the same. One that was invited by
   * address keeps the number that it had before it told its name.
   */
  memberNumber(nodeId: string): string;
  /** As `toStatus`, for errors told inside of streams. */
  toError(error: unknown): DkvError;
}

/** Serves a call of one request and one response. */
export type EtcdHandler = Handler<Wire, EtcdContext>;

/** Builds the context that all handlers of a node share. */
export function etcdContext(options: EtcdOptions): EtcdContext {
  const { service, config, nodeId } = options;
  const clusterNumber = hashNumber(["cluster", config.cluster]);
  const numbers = new Map<string, string>();
  const memberNumber = (id: string) => {
    const name = service.invitedAs(id);
    const known = numbers.get(name);
    if (known !== undefined) return known;
    if (numbers.size >= NUMBERS_MAX) numbers.clear();
    const number = hashNumber(["member", config.cluster, name]);
    numbers.set(name, number);
    return number;
  };
  return {
    ...options,
    memberNumber,
    header: (revision = service.revision) => ({
      cluster_id: clusterNumber,
      member_id: memberNumber(nodeId),
      revision: String(revision),
      raft_term: String(service.term),
    }),
    toError: (error) => toError(error, options),
    toStatus: (error) => {
      const isEtcd = error instanceof EtcdError;
      return etcdStatus(isEtcd ? error : toError(error, options));
    },
  };
}

/** The handlers of one service, as grpc-js calls them. */
export function unaries(
  context: EtcdContext,
  handlers: Readonly<Record<string, EtcdHandler>>,
): grpc.UntypedServiceImplementation {
  return Object.fromEntries(
    Object.entries(handlers).map((
      [name, handler],
    ) => [name, unary(context, handler)]),
  );
}

/** What a generator that answers a stream is told. */
export interface StreamCall extends CallOptions {
  /** Aborted when the client is gone. */
  readonly signal: AbortSignal;
}

/** A stream of responses: each with about how many bytes it has. */
export type Responses = AsyncGenerator<[response: object, bytes: number]>;

/**
 * Serves a call of one request and a stream of responses: the generator is asked for the next one
 * when the client has room for it, and is closed when the client is gone.
 */
export function serverStream(
  context: EtcdContext,
  respond: (wire: Wire, call: StreamCall) => Responses,
) {
  return async (call: ServerStream): Promise<void> => {
    try {
      if (call.request instanceof Unreadable) throw call.request.error;
      const outlet = new Outlet(call);
      const signal = signalOf(call);
      const responses = respond(call.request, {
        signal,
        timeoutMs: timeoutOf(call),
      });
      for await (const [response, bytes] of responses) {
        while (!outlet.hasRoom() && !signal.aborted) await pause(ROOM_POLL_MS);
        if (signal.aborted) return;
        outlet.write(response, bytes);
      }
      call.end();
    } catch (error) {
      if (!call.cancelled) call.emit("error", context.toStatus(error));
    }
  };
}

/** As `unary` of `call.ts`, for handlers that wait for others and must not outlive their client. */
export function waitingUnary(
  context: EtcdContext,
  handler: (wire: Wire, call: StreamCall) => Promise<Record<string, unknown>>,
) {
  return (
    call: grpc.ServerUnaryCall<Wire, unknown>,
    callback: grpc.sendUnaryData<unknown>,
  ): Promise<void> => {
    const signal = signalOf(call);
    const serve = unary<Wire, EtcdContext>(
      context,
      (wire, _context, options) => handler(wire, { ...options, signal }),
    );
    return serve(call, callback);
  };
}

/** Aborted when the client of a call is gone. */
export function signalOf(
  call: Pick<EventEmitter, "on"> & { readonly cancelled: boolean },
): AbortSignal {
  const controller = new AbortController();
  const abort = () => controller.abort();
  if (call.cancelled) abort();
  call.on("cancelled", abort);
  call.on("close", abort);
  call.on("error", abort);
  return controller.signal;
}

/** Resolves after so long. */
export function pause(delayMs: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, delayMs));
}

/** A number from 1 to 2^64 - 1 that stands for these texts, as decimal text. */
function hashNumber(texts: readonly string[]): string {
  const digest = createHash("sha256").update(JSON.stringify(texts)).digest();
  const number = digest.readBigUInt64BE(0);
  return String(number === 0n ? 1n : number);
}
