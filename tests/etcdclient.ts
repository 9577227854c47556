/**
 * etcd's services around the keys, called by name on one node. Used by tests with real clusters.
 *
 * @module
 */

import type * as Grpc from "@grpc/grpc-js";
import { assert } from "@std/assert";

const CALL_MS = 5000;

type Message = Record<string, unknown>;
type Call = (
  request: object,
  options: { deadline: number },
  callback: (error: Error | null, response: Message) => void,
) => Grpc.ClientUnaryCall;
type Stream = (request: object) => Grpc.ClientReadableStream<Message>;

/** etcd's services of one node, by name. */
export class EtcdClient {
  readonly #clients: ReadonlyMap<string, Grpc.Client>;

  private constructor(clients: ReadonlyMap<string, Grpc.Client>) {
    this.#clients = clients;
  }

  static async open(address: string): Promise<EtcdClient> {
    const grpc = await import("@grpc/grpc-js");
    const { loadSync } = await import("@grpc/proto-loader");
    const paths = ["rpc", "lock", "election"].map((name) =>
      decodeURIComponent(
        new URL(`../proto/etcd/${name}.proto`, import.meta.url).pathname,
      )
    );
    const proto = loadSync(paths, {
      keepCase: true,
      longs: String,
      enums: String,
      defaults: true,
    });
    const clients = new Map<string, Grpc.Client>();
    for (
      const name of [
        "etcdserverpb.Cluster",
        "etcdserverpb.Maintenance",
        "etcdserverpb.Auth",
        "v3lockpb.Lock",
        "v3electionpb.Election",
      ]
    ) {
      const Client = grpc.makeClientConstructor(
        proto[name] as Grpc.ServiceDefinition,
        name,
      );
      clients.set(
        name.slice(name.indexOf(".") + 1),
        new Client(address, grpc.credentials.createInsecure()),
      );
    }
    return new EtcdClient(clients);
  }

  call(method: string, request: object = {}): Promise<Message> {
    return this.begin(method, request).answer;
  }

  /** As `call`, for those who may cancel it. */
  begin(
    method: string,
    request: object,
  ): { answer: Promise<Message>; cancel: () => void } {
    const { promise, resolve, reject } = Promise.withResolvers<Message>();
    const call = this.#method<Call>(method)(
      request,
      { deadline: Date.now() + CALL_MS },
      (error, response) => error ? reject(error) : resolve(response),
    );
    return { answer: promise, cancel: () => call.cancel() };
  }

  stream(
    method: string,
    request: object = {},
  ): Grpc.ClientReadableStream<Message> {
    return this.#method<Stream>(method)(request);
  }

  close(): void {
    for (const client of this.#clients.values()) client.close();
  }

  #method<Type>(method: string): Type {
    const [service = "", name = ""] = method.split(".");
    const client = this.#clients.get(service);
    assert(client !== undefined, `No service ${service}`);
    const made = (client as unknown as Record<string, () => void>)[name];
    assert(made !== undefined, `No method ${method}`);
    return made.bind(client) as Type;
  }
}

/** A `Member`, in the part tests look at. */
export interface WireMember {
  ID: string;
  name: string;
  isLearner: boolean;
  peerURLs: string[];
  clientURLs: string[];
}
