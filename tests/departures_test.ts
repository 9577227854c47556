/**
 * Tests of `departures.ts`: how answers share writes, and that grpc-js and Deno still write an answer
 * in the callbacks that the module counts on.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { Buffer } from "node:buffer";
import { setImmediate } from "node:timers";
import { Departures } from "../departures.ts";
import { needs } from "./needs.ts";

/** Records what is asked of it. */
class Socket {
  readonly events: string[] = [];
  cork(): void {
    this.events.push("cork");
  }
  uncork(): void {
    this.events.push("uncork");
  }
}

/** How a stream tells its socket to write. */
type Writes = Record<"_write" | "_writev", (...given: unknown[]) => void>;

function nextCallback(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

async function callbacks(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await nextCallback();
}

Deno.test("departures: what is ready together leaves together, two callbacks later", async () => {
  const socket = new Socket();
  const departures = new Departures(socket);
  departures.add(() => socket.events.push("a"));
  departures.add(() => socket.events.push("b"));
  assertEquals(socket.events, ["cork", "a", "b"]);
  // The callbacks of the test come before those of what it tests.
  await callbacks(2);
  assertEquals(socket.events, ["cork", "a", "b"]);
  await nextCallback();
  assertEquals(socket.events, ["cork", "a", "b", "uncork"]);
});

Deno.test("departures: who comes too late leaves next, and nobody is forgotten or overtaken", async () => {
  const socket = new Socket();
  const departures = new Departures(socket);
  const numbers = Array.from({ length: 200 }, (_, at) => at);
  for (const at of numbers.slice(0, 150)) {
    departures.add(() => socket.events.push(`${at}`));
  }
  await nextCallback();
  for (const at of numbers.slice(150)) {
    departures.add(() => socket.events.push(`${at}`));
  }
  await callbacks(20);
  const groups = socket.events.join(" ").split("uncork").map((group) =>
    group.split(" ").filter((word) => word !== "" && word !== "cork")
  );
  assertEquals(groups.flat(), numbers.map(String));
  assertEquals(groups.map(({ length }) => length), [64, 64, 64, 8, 0]);
});

needs(
  ["net", "env"],
  "departures: a hundred answers of grpc-js are a few writes to the socket",
  async () => {
    const grpc = await import("@grpc/grpc-js");
    const { unary } = await import("../call.ts");
    const { sessionOf } = await import("../departures.ts");
    const same = (bytes: Buffer) => bytes;
    const method = {
      path: "/test.Echo/Say",
      requestStream: false,
      responseStream: false,
      requestSerialize: same,
      requestDeserialize: same,
      responseSerialize: ({ said }: { said: Buffer }) => said,
      responseDeserialize: same,
    };
    const COUNT = 100;
    const ready = Promise.withResolvers<void>();
    let arrived = 0;
    let writes = 0;
    const context = {
      header: () => ({}),
      toStatus: (error: unknown) => {
        throw error;
      },
    };
    const serve = unary(context, async (said: Buffer) => {
      if (++arrived === COUNT) ready.resolve();
      await ready.promise;
      return { said };
    });
    const server = new grpc.Server();
    server.addService({ Say: method }, {
      Say: (
        call: Parameters<typeof serve>[0],
        callback: Parameters<typeof serve>[1],
      ) => {
        const socket = sessionOf(call)?.socket as unknown as Writes;
        for (
          const name of arrived === 0 ? ["_write", "_writev"] as const : []
        ) {
          const write = socket[name];
          socket[name] = (...given: unknown[]) => {
            writes++;
            return write(...given);
          };
        }
        return serve(call, callback);
      },
    });
    const port = await new Promise<number>((resolve, reject) =>
      server.bindAsync(
        "127.0.0.1:0",
        grpc.ServerCredentials.createInsecure(),
        (error, port) => error ? reject(error) : resolve(port),
      )
    );
    const client = new grpc.Client(
      `127.0.0.1:${port}`,
      grpc.credentials.createInsecure(),
    );
    try {
      const say = (text: string) =>
        new Promise<string>((resolve, reject) =>
          client.makeUnaryRequest(
            method.path,
            (text: string) => Buffer.from(text),
            same,
            text,
            (error, answer) =>
              error ? reject(error) : resolve(`${answer?.toString()}`),
          )
        );
      const texts = Array.from({ length: COUNT }, (_, at) => `text ${at}`);
      assertEquals(await Promise.all(texts.map(say)), texts);
      // Uncorked they were three for each answer.
      assert(writes < 20, `${writes} writes`);
    } finally {
      client.close();
      server.forceShutdown();
    }
  },
);
