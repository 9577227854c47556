/**
 * Calls to one node past the client library: any method of a .proto file, with what it should not be
 * sent too, and with the stable code of every refusal.
 *
 *     using rpc = await Rpc.open(cluster.address("node1"));
 *     await rpc.call("KeyValue.Put", { key: bytes("a"), value: bytes("1") });
 *     const stream = rpc.duplex("KeyValue.Watch");
 *
 * 64-bit integers come as decimal text, exact. grpc-js is imported when it is needed; see needs.ts.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import type * as Grpc from "@grpc/grpc-js";
import { assert, assertEquals, assertStringIncludes } from "@std/assert";

/** How long a test waits for an answer. */
const ANSWER_MS = 10_000;

/** A refusal as a client sees it. */
export class Refusal extends Error {
  override name = "Refusal";
  /** The trailer `dkv-code`; empty if there is none. */
  readonly code: string;
  /** The gRPC status. */
  readonly status: number;

  constructor({ code, status, details }: {
    code: string;
    status: number;
    details: string;
  }) {
    super(details);
    this.code = code;
    this.status = status;
  }
}

/** Runs a call that must be refused, and returns the refusal. */
export async function refused(call: Promise<unknown>): Promise<Refusal> {
  const outcome = await call.then((answer) => answer, (error) => error);
  assert(
    outcome instanceof Refusal,
    `expected a refusal, got ${JSON.stringify(outcome)} ${outcome}`,
  );
  return outcome;
}

/** Checks a refusal's code, and that its message names all of `parts`. */
export async function assertRefused(
  call: Promise<unknown>,
  { code, says = [] }: { code: string; says?: readonly (string | number)[] },
): Promise<void> {
  const refusal = await refused(call);
  assertEquals(refusal.code, code, refusal.message);
  for (const part of says) assertStringIncludes(refusal.message, String(part));
}

/** A stream of answers that a test takes one at a time, or leaves alone. */
export class Answers<Answer> {
  readonly #call: Grpc.ClientReadableStream<Answer>;
  readonly #waiting: Answer[] = [];
  #taker: PromiseWithResolvers<Answer | null> | null = null;
  /** Set at the end: null for a good one. */
  #end: Refusal | null | undefined;

  constructor(call: Grpc.ClientReadableStream<Answer>) {
    this.#call = call;
    call.on("data", (answer: Answer) => {
      if (this.#taker === null) this.#waiting.push(answer);
      else this.#give(answer);
    });
    call.on("error", () => {}); // The status says it.
    call.on("status", (status) => {
      this.#end = status.code === 0 ? null : toRefusal(status);
      if (this.#taker === null) return;
      if (this.#end === null) this.#give(null);
      else this.#taker.reject(this.#end);
    });
  }

  /** The next answer, or null at the end; throws a {@linkcode Refusal} if the call failed. */
  async next(timeoutMs: number = ANSWER_MS): Promise<Answer | null> {
    const answer = this.#waiting.shift();
    if (answer !== undefined) return answer;
    if (this.#end === null) return null;
    if (this.#end !== undefined) throw this.#end;
    const taker = Promise.withResolvers<Answer | null>();
    this.#taker = taker;
    const timer = setTimeout(
      () => taker.reject(new Error(`No answer within ${timeoutMs} ms`)),
      timeoutMs,
    );
    try {
      return await taker.promise;
    } finally {
      clearTimeout(timer);
      this.#taker = null;
    }
  }

  /** The next answer; there must be one. */
  async expect(timeoutMs?: number): Promise<Answer> {
    const answer = await this.next(timeoutMs);
    assert(answer !== null, "the stream ended");
    return answer;
  }

  /** All answers up to the end. */
  async all(): Promise<Answer[]> {
    const answers: Answer[] = [];
    for (let answer = await this.next(); answer; answer = await this.next()) {
      answers.push(answer);
    }
    return answers;
  }

  cancel(): void {
    this.#call.cancel();
  }

  #give(answer: Answer | null): void {
    this.#taker?.resolve(answer);
    this.#taker = null;
  }
}

/** Both ways. */
export class Duplex<Answer> extends Answers<Answer> {
  readonly #call: Grpc.ClientDuplexStream<unknown, Answer>;

  constructor(call: Grpc.ClientDuplexStream<unknown, Answer>) {
    super(call);
    this.#call = call;
  }

  /** Sends a message, or bytes that stand for one. */
  send(request: object | Buffer): void {
    this.#call.write(request);
  }

  /** Says that no more will be sent. */
  end(): void {
    this.#call.end();
  }
}

/** A connection to one node. */
export class Rpc implements Disposable {
  readonly #grpc: typeof Grpc;
  readonly #client: Grpc.Client;
  readonly #methods: ReadonlyMap<string, Grpc.MethodDefinition<object, object>>;

  private constructor(
    grpc: typeof Grpc,
    { client, methods }: {
      client: Grpc.Client;
      methods: ReadonlyMap<string, Grpc.MethodDefinition<object, object>>;
    },
  ) {
    this.#grpc = grpc;
    this.#client = client;
    this.#methods = methods;
  }

  /** `protos` are files of proto/; methods are called by service and name: `KeyValue.Put`. */
  static async open(
    address: string,
    protos: readonly string[] = ["kvstore.proto"],
  ): Promise<Rpc> {
    const grpc = await import("@grpc/grpc-js");
    const { loadSync } = await import("@grpc/proto-loader");
    const methods = new Map<string, Grpc.MethodDefinition<object, object>>();
    for (const proto of protos) {
      const path = new URL(`../proto/${proto}`, import.meta.url).pathname;
      const definitions = loadSync(decodeURIComponent(path), {
        longs: String,
        enums: String,
        defaults: true,
        oneofs: true,
      });
      for (const [service, definition] of Object.entries(definitions)) {
        if ("format" in definition) continue;
        for (const [name, method] of Object.entries(definition)) {
          methods.set(`${service.split(".").at(-1)}.${name}`, method);
        }
      }
    }
    const client = new grpc.Client(address, grpc.credentials.createInsecure(), {
      "grpc.use_local_subchannel_pool": 1,
      "grpc.max_receive_message_length": -1,
      "grpc.max_send_message_length": -1,
      "grpc.initial_reconnect_backoff_ms": 50,
      "grpc.min_reconnect_backoff_ms": 50,
      "grpc.max_reconnect_backoff_ms": 200,
    });
    return new Rpc(grpc, { client, methods });
  }

  /** One unary call; bytes stand for an encoded request. */
  call<Answer>(
    method: string,
    request: object | Buffer,
    { timeoutMs = ANSWER_MS, signal }: {
      timeoutMs?: number;
      signal?: AbortSignal;
    } = {},
  ): Promise<Answer> {
    const { path, responseDeserialize } = this.#method(method);
    return new Promise((resolve, reject) => {
      const call = this.#client.makeUnaryRequest(
        path,
        this.#serializer(method),
        responseDeserialize,
        request,
        new this.#grpc.Metadata(),
        { deadline: Date.now() + timeoutMs },
        (error, answer) => {
          if (error) reject(toRefusal(error));
          else resolve(answer as Answer);
        },
      );
      signal?.addEventListener("abort", () => call.cancel());
    });
  }

  /** One call with a stream of answers. */
  list<Answer>(method: string, request: object | Buffer): Answers<Answer> {
    const { path, responseDeserialize } = this.#method(method);
    return new Answers(
      this.#client.makeServerStreamRequest<object, Answer>(
        path,
        this.#serializer(method),
        responseDeserialize as (bytes: Buffer) => Answer,
        request,
      ),
    );
  }

  /** One call with streams both ways. */
  duplex<Answer>(method: string): Duplex<Answer> {
    const { path, responseDeserialize } = this.#method(method);
    return new Duplex(
      this.#client.makeBidiStreamRequest<unknown, Answer>(
        path,
        this.#serializer(method) as (value: unknown) => Buffer,
        responseDeserialize as (bytes: Buffer) => Answer,
      ),
    );
  }

  /** A stream of a service that has no file here, bytes both ways. */
  raw(path: string): Duplex<Buffer> {
    const itself = (bytes: unknown) => bytes as Buffer;
    return new Duplex(
      this.#client.makeBidiStreamRequest<unknown, Buffer>(path, itself, itself),
    );
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }

  #method(name: string): Grpc.MethodDefinition<object, object> {
    const method = this.#methods.get(name);
    assert(method !== undefined, `No method ${name}`);
    return method;
  }

  #serializer(name: string): (request: object) => Buffer {
    const { requestSerialize } = this.#method(name);
    return (request) =>
      Buffer.isBuffer(request) ? request : requestSerialize(request);
  }
}

function toRefusal(status: Grpc.StatusObject | Grpc.ServiceError): Refusal {
  const [code = ""] = status.metadata?.get("dkv-code") ?? [];
  return new Refusal({
    code: String(code),
    status: status.code,
    details: status.details,
  });
}
