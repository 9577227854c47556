/**
 * The etcd API of one server through grpc-js: calls whose outcome is an answer or an error, as data,
 * and streams. Used by `play.ts` and by tests of the etcd API.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import * as grpc from "@grpc/grpc-js";
import { type Methods, methodsOf } from "../../bench/calls.ts";

/** A call that takes longer has failed. */
const CALL_MS_MAX = 10_000;
const MESSAGE_BYTES_MAX = 64 * 1024 * 1024;

/** What came of a call: 64-bit integers as decimal text, bytes as latin1 text. */
export type Outcome =
  | { readonly answer: Answer }
  | { readonly error: { readonly code: string; readonly message: string } };

/** A message of a server. */
export type Answer = Readonly<Record<string, unknown>>;

type Method = grpc.MethodDefinition<object, object>;

let methods: Methods | null = null;

/** Services of etcd, by service and method: `KV.Put`. */
function methodNamed(name: string): Method {
  methods ??= methodsOf(
    ["rpc", "lock", "election"].map((name) => `../proto/etcd/${name}.proto`),
  );
  const method = methods.get(name);
  if (method === undefined) throw new Error(`No method ${name}`);
  return method;
}

/** Messages with bytes as latin1 text. */
export function readable(value: unknown): unknown {
  if (Buffer.isBuffer(value)) return value.toString("latin1");
  if (Array.isArray(value)) return value.map(readable);
  if (typeof value !== "object" || value === null) return value;
  const fields: Record<string, unknown> = {};
  for (const name in value) {
    fields[name] = readable((value as Record<string, unknown>)[name]);
  }
  return fields;
}

/** An error as its code's name and its text. */
export function errorOf(error: Partial<grpc.ServiceError>): Outcome {
  return {
    error: {
      code: grpc.status[error.code ?? 2] ?? "UNKNOWN",
      message: error.details ?? String(error),
    },
  };
}

/** A stream both ways. */
export interface Stream {
  send(request: object): void;
  /** Ends it without waiting. */
  cancel(): void;
}

/** Who hears what a stream says. */
export interface StreamEvents {
  onAnswer(answer: Answer): void;
  /** Once, however it ends. */
  onEnd(outcome: Outcome | null): void;
}

/** One connection to one server. */
export class Connection implements Disposable {
  readonly address: string;
  readonly #client: grpc.Client;

  constructor(address: string) {
    this.address = address;
    this.#client = new grpc.Client(
      address,
      grpc.credentials.createInsecure(),
      {
        "grpc.use_local_subchannel_pool": 1,
        "grpc.max_receive_message_length": MESSAGE_BYTES_MAX,
        "grpc.max_send_message_length": MESSAGE_BYTES_MAX,
      },
    );
  }

  /** One request, one answer or error; never rejects. */
  unary(
    name: string,
    request: object,
    timeoutMs: number = CALL_MS_MAX,
  ): Promise<Outcome> {
    const { path, requestSerialize, responseDeserialize } = methodNamed(name);
    const options = { deadline: Date.now() + timeoutMs };
    return new Promise((resolve) => {
      this.#client.makeUnaryRequest(
        path,
        requestSerialize,
        responseDeserialize,
        request,
        new grpc.Metadata(),
        options,
        (error, answer) => {
          resolve(
            error ? errorOf(error) : {
              answer: readable(answer) as Answer,
            },
          );
        },
      );
    });
  }

  /** The answer of a call that must not fail. */
  async ask(name: string, request: object): Promise<Answer> {
    const outcome = await this.unary(name, request);
    if ("answer" in outcome) return outcome.answer;
    const { code, message } = outcome.error;
    throw new Error(`${this.address}: ${name}: ${code}: ${message}`);
  }

  /** Streams both ways. */
  duplex(name: string, events: StreamEvents): Stream {
    const { path, requestSerialize, responseDeserialize } = methodNamed(name);
    const call = this.#client.makeBidiStreamRequest(
      path,
      requestSerialize,
      responseDeserialize,
      new grpc.Metadata(),
    );
    call.on("data", (answer) => events.onAnswer(readable(answer) as Answer));
    call.on("error", () => {}); // The status says it.
    call.on("status", (status) => {
      events.onEnd(status.code === 0 ? null : errorOf(status));
    });
    return {
      send: (request) => call.write(request),
      cancel: () => call.cancel(),
    };
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }
}
