/**
 * Plain calls of grpc-js with messages of @grpc/proto-loader, as a program without a client library
 * makes them: the same code, and the same options, for dkv's API and for etcd's. Used by `dkv.ts`
 * and `etcd.ts`.
 *
 * @module
 */

import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { DkvError } from "../errors.ts";

/** A call that takes longer has failed. */
const CALL_MS_MAX = 20_000;
const MESSAGE_BYTES_MAX = 64 * 1024 * 1024;

type Method = grpc.MethodDefinition<object, object>;

/** The methods of .proto files, by service and name: `KV.Put`. */
export type Methods = ReadonlyMap<string, Method>;

/** Reads .proto files; their paths are relative to this folder. */
export function methodsOf(protos: readonly string[]): Methods {
  const paths = protos.map((proto) =>
    decodeURIComponent(new URL(proto, import.meta.url).pathname)
  );
  // The options that the documentation of proto-loader shows.
  const definitions = loadSync(paths, {
    keepCase: true,
    longs: String,
    enums: String,
    defaults: true,
    oneofs: true,
  });
  const methods = new Map<string, Method>();
  for (const [service, definition] of Object.entries(definitions)) {
    if ("format" in definition) continue;
    for (const [name, method] of Object.entries(definition)) {
      methods.set(`${service.split(".").at(-1)}.${name}`, method);
    }
  }
  return methods;
}

/** One connection to one process. */
export class Calls implements Disposable {
  readonly #client: grpc.Client;
  readonly #methods: Methods;

  constructor(address: string, methods: Methods) {
    this.#methods = methods;
    this.#client = new grpc.Client(
      address,
      grpc.credentials.createInsecure(),
      {
        "grpc.use_local_subchannel_pool": 1,
        "grpc.max_receive_message_length": MESSAGE_BYTES_MAX,
        "grpc.max_send_message_length": MESSAGE_BYTES_MAX,
        "grpc.initial_reconnect_backoff_ms": 50,
        "grpc.min_reconnect_backoff_ms": 50,
        "grpc.max_reconnect_backoff_ms": 200,
      },
    );
  }

  /** One request, one answer. */
  unary<Answer>(
    name: string,
    request: object,
    timeoutMs: number = CALL_MS_MAX,
  ): Promise<Answer> {
    const { path, requestSerialize, responseDeserialize } = this.#method(name);
    const deadline = Date.now() + timeoutMs;
    return new Promise((resolve, reject) => {
      this.#client.makeUnaryRequest(
        path,
        requestSerialize,
        responseDeserialize,
        request,
        new grpc.Metadata(),
        { deadline },
        (error, answer) => {
          if (error) reject(error);
          else resolve(answer as Answer);
        },
      );
    });
  }

  /** One request, a stream of answers, until its end. */
  async all<Answer>(name: string, request: object): Promise<Answer[]> {
    const { path, requestSerialize, responseDeserialize } = this.#method(name);
    const call = this.#client.makeServerStreamRequest(
      path,
      requestSerialize,
      responseDeserialize,
      request,
      new grpc.Metadata(),
      { deadline: Date.now() + CALL_MS_MAX },
    );
    return await new Promise((resolve, reject) => {
      const answers: Answer[] = [];
      call.on("data", (answer: Answer) => answers.push(answer));
      call.on("end", () => resolve(answers));
      call.on("error", reject);
    });
  }

  /** Streams both ways, until it is disposed of. */
  duplex<Answer>(
    name: string,
    onAnswer: (answer: Answer) => void,
  ): { send(request: object): void } & Disposable {
    const { path, requestSerialize, responseDeserialize } = this.#method(name);
    const call = this.#client.makeBidiStreamRequest(
      path,
      requestSerialize,
      responseDeserialize,
      new grpc.Metadata(),
    );
    call.on("data", onAnswer);
    // Cancelled by us at the end; what fails before shows as deliveries that never come.
    call.on("error", () => {});
    return {
      send: (request) => call.write(request),
      [Symbol.dispose]: () => call.cancel(),
    };
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }

  #method(name: string): Method {
    const method = this.#methods.get(name);
    if (method === undefined) {
      throw new DkvError("INTERNAL", `No method ${name}`);
    }
    return method;
  }
}
