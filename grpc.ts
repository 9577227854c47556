/**
 * Serves `proto/kvstore.proto`: converts what comes over the wire, calls the service, converts
 * back, and maps errors through the one table. No meaning of any operation lives here.
 *
 * @module
 */

import type { Buffer } from "node:buffer";
import type * as grpc from "@grpc/grpc-js";
import { setImmediate } from "node:timers";
import { loadSync, type PackageDefinition } from "@grpc/proto-loader";
import { ReflectionService } from "@grpc/reflection";
import { LIMITS } from "./config.ts";
import {
  fromDelete,
  fromKey,
  fromOptionalEntry,
  fromPut,
  fromTransact,
  toDelete,
  toInteger,
  toKey,
  toLease,
  toPut,
  toRange,
  toTransact,
  toWriteId,
  type WireDelete,
  type WireGet,
  type WireInteger,
  type WireList,
  type WirePut,
  type WireTransact,
} from "./convert.ts";
import {
  checkedDefinition,
  type Context,
  type DuplexStream,
  fromError,
  type GrpcOptions,
  Outlet,
  ROOM_POLL_MS,
  serveRenewals,
  type ServerStream,
  timeoutOf,
  toError,
  toReadOptions,
  toStatus,
  unary,
  Unreadable,
  type Wire,
} from "./call.ts";
import { Health } from "./health.ts";
import { servePipeline } from "./pipeline.ts";
import { encodeChanges, encodePage, type WirePage } from "./streamcodec.ts";
import { PipelineCodec } from "./pipelinecodec.ts";
import type { CallOptions } from "./service.ts";
import { type GeneralUnaryCodec, getCodec, putCodec } from "./unarycodec.ts";
import { serveWatch } from "./watchstream.ts";

/** The public wire format; inside a compiled binary too. */
export const PROTO_PATH = `${import.meta.dirname}/proto/kvstore.proto`;

/** The services of one node, ready to be added to its server. */
export class GrpcAdapter {
  readonly #context: Context;
  readonly #health = new Health(["kvstore.v1.KeyValue", "kvstore.v1.Cluster"]);
  readonly #definition: PackageDefinition;

  constructor(options: GrpcOptions) {
    this.#definition = loadSync(PROTO_PATH, {
      longs: String,
      enums: String,
      defaults: true,
    });
    this.#context = {
      ...options,
      header: () => ({
        revision: options.service.revision,
        nodeId: options.nodeId,
        leader: options.service.leader,
      }),
      toError: (error) => toError(error, options),
      toStatus: (error) => toStatus(toError(error, options)),
    };
  }

  /** `reflectAlso`: what others have added to this server. */
  addTo(
    server: grpc.Server,
    { reflectAlso }: { reflectAlso: PackageDefinition },
  ): void {
    const requestBytesMax = this.#context.settings.requestBytesMax;
    for (const [name, handlers] of Object.entries(this.#handlers())) {
      const definition = this
        .#definition[`kvstore.v1.${name}`] as grpc.ServiceDefinition;
      const checked = checkedDefinition(
        quickDefinition(definition),
        (method) =>
          method === "Pipeline"
            ? LIMITS.pipelineInFlightBytesMax
            : requestBytesMax,
      );
      server.addService(checked, handlers);
    }
    this.#health.addTo(server);
    new ReflectionService({ ...this.#definition, ...reflectAlso })
      .addToServer(server);
  }

  /** Tells load balancers whether to come here. */
  setServing(serving: boolean): void {
    this.#health.status = serving ? "SERVING" : "NOT_SERVING";
  }

  #handlers(): Record<string, grpc.UntypedServiceImplementation> {
    const context = this.#context;
    return {
      KeyValue: {
        Put: unary(context, put),
        Get: unary(context, get),
        Delete: unary(context, remove),
        Transact: unary(context, transact),
        Grant: unary(context, grant),
        Revoke: unary(context, revoke),
        TimeToLive: unary(context, timeToLive),
        Compact: unary(context, compact),
        List: (call: ServerStream) => void serveList(call, context),
        KeepAlive: (call: DuplexStream) => serveKeepAlive(call, context),
        Watch: (call: DuplexStream) => serveWatch(call, context),
        Pipeline: (call: DuplexStream) => servePipeline(call, context),
      },
      Cluster: {
        Status: unary(
          context,
          (_wire, { status }) => Promise.resolve(status()),
        ),
        TransferLeadership: unary(context, transferLeadership),
      },
    };
  }
}

// ------------------------------------------------------------------ unary handlers

async function put(wire: WirePut, { service }: Context, options: CallOptions) {
  const writeId = toWriteId(wire.writeId);
  return fromPut(await service.put(toPut(wire), { ...options, writeId }));
}

async function get(wire: WireGet, { service }: Context, options: CallOptions) {
  const entry = await service.get(toKey(wire.key), {
    ...options,
    ...toReadOptions(wire),
  });
  return { entry: fromOptionalEntry(entry) };
}

async function remove(
  wire: WireDelete,
  { service }: Context,
  options: CallOptions,
) {
  const writeId = toWriteId(wire.writeId);
  return fromDelete(
    await service.delete(toDelete(wire), { ...options, writeId }),
  );
}

async function transact(
  wire: WireTransact,
  { service }: Context,
  options: CallOptions,
) {
  const writeId = toWriteId(wire.writeId);
  return fromTransact(
    await service.transact(toTransact(wire), { ...options, writeId }),
  );
}

async function grant(
  wire: { lease: WireInteger; ttlMs: WireInteger },
  { service }: Context,
  options: CallOptions,
) {
  const ttlMs = toInteger(wire.ttlMs, "ttl_ms");
  const granted = await service.grant(
    { lease: toLease(wire.lease), ttlMs },
    options,
  );
  return { lease: granted.lease.toString(), ttlMs: granted.ttlMs };
}

async function revoke(
  wire: { lease: WireInteger },
  { service }: Context,
  options: CallOptions,
) {
  const { deleted } = await service.revoke(toLease(wire.lease), options);
  return { deleted };
}

async function timeToLive(
  wire: { lease: WireInteger; withKeys: boolean },
  { service }: Context,
  options: CallOptions,
) {
  const info = await service.timeToLive(toLease(wire.lease), options);
  return {
    lease: info.lease.toString(),
    grantedTtlMs: info.ttlMs,
    remainingMs: info.remainingMs,
    keys: wire.withKeys ? info.keys().map(fromKey) : [],
  };
}

async function compact(
  wire: { revision: WireInteger },
  { service }: Context,
  options: CallOptions,
) {
  await service.compact(toInteger(wire.revision, "revision"), options);
  return {};
}

async function transferLeadership(
  wire: { nodeId: string },
  { service }: Context,
  options: CallOptions,
) {
  return { leader: await service.transferLeadership(wire.nodeId, options) };
}

// ------------------------------------------------------------------ streams

/** One page after the other, each when the one before has left: memory holds one page. */
async function serveList(call: ServerStream, context: Context): Promise<void> {
  try {
    if (call.request instanceof Unreadable) throw call.request.error;
    const wire = call.request as WireList;
    const pages = context.service.list({
      ...toReadOptions(wire),
      timeoutMs: timeoutOf(call),
      range: toRange(wire.range),
      limit: toInteger(wire.limit, "limit"),
      keysOnly: wire.keysOnly,
      reverse: wire.reverse,
    });
    const outlet = new Outlet(call);
    for await (const { entries, revision, more } of pages) {
      // One turn of the loop is usually enough for a client that reads.
      if (!outlet.hasRoom()) await new Promise((next) => setImmediate(next));
      while (!outlet.hasRoom() && !call.cancelled) await pause();
      if (call.cancelled) return;
      outlet.write(
        {
          header: context.header(),
          revision,
          entries,
          more,
        } satisfies WirePage,
        LIMITS.listPageBytes,
      );
    }
    call.end();
  } catch (error) {
    call.emit("error", toStatus(context.toError(error)));
  }
}

/** A lease that is gone does not end the stream. */
function serveKeepAlive(call: DuplexStream, context: Context): void {
  const renew = async (wire: { lease: WireInteger } | Unreadable) => {
    const lease = wire instanceof Unreadable ? "0" : String(wire.lease);
    try {
      if (wire instanceof Unreadable) throw wire.error;
      const { ttlMs } = await context.service.keepAlive(toLease(lease), {
        timeoutMs: null,
      });
      return { header: context.header(), lease, ttlMs };
    } catch (error) {
      return {
        header: context.header(),
        lease,
        error: fromError(context.toError(error)),
      };
    }
  };
  serveRenewals(call, { renew, toStatus: context.toStatus });
}

function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ROOM_POLL_MS));
}

// ------------------------------------------------------------------ the hot path

/** The same service, what is called most with codecs of its own. */
function quickDefinition(
  definition: grpc.ServiceDefinition,
): grpc.ServiceDefinition {
  const { Pipeline, Put, Get, List, Watch, ...others } = definition;
  if (!Pipeline || !Put || !Get || !List || !Watch) return definition;
  const pipeline = new PipelineCodec(codecOf(Pipeline));
  return {
    ...others,
    Pipeline: {
      ...Pipeline,
      requestDeserialize: (bytes) => pipeline.decode(bytes),
      responseSerialize: (response) => pipeline.encode(response),
    },
    Put: withCodec(Put, putCodec(codecOf(Put))),
    Get: withCodec(Get, getCodec(codecOf(Get))),
    List: { ...List, responseSerialize: encodePage },
    Watch: {
      ...Watch,
      responseSerialize: (response) =>
        "events" in response
          ? encodeChanges(response)
          : Watch.responseSerialize(response),
    },
  };
}

function codecOf(method: grpc.MethodDefinition<Wire, Wire>) {
  return {
    decode: method.requestDeserialize,
    encode: method.responseSerialize,
  };
}

function withCodec(
  method: grpc.MethodDefinition<Wire, Wire>,
  { decode, encode }: GeneralUnaryCodec<Wire, Wire>,
): grpc.MethodDefinition<Wire, Wire> {
  return {
    ...method,
    requestDeserialize: decode,
    responseSerialize: (answer) => encode(answer) as Buffer,
  };
}
