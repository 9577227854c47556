/** What a server has for a connection at one time leaves in one piece, and nothing of it is lost. */

import * as grpc from "@grpc/grpc-js";
import { assertEquals, assertLess } from "@std/assert";
import { Buffer } from "node:buffer";
import * as net from "node:net";
import { makeGrpcServer, onSession, openWindows } from "../grpcserver.ts";
import { joinCalls, joinWrites } from "../joinedwrites.ts";
import { needs } from "./needs.ts";

const asIs = (bytes: Buffer): Buffer => bytes;
const METHOD = {
  path: "/t.T/Talk",
  requestStream: false,
  responseStream: true,
  requestSerialize: asIs,
  requestDeserialize: asIs,
  responseSerialize: asIs,
  responseDeserialize: asIs,
};
const STREAMS = 50;

/** Opens streams to a server that then says something on all of them at once. */
async function talk(
  message: Buffer,
  options: { isJoined: boolean },
): Promise<{ writes: number; received: Buffer[] }> {
  const server = makeGrpcServer();
  const open: grpc.ServerWritableStream<Buffer, Buffer>[] = [];
  let writes = 0;
  server.addService({ Talk: METHOD }, {
    Talk: (call: grpc.ServerWritableStream<Buffer, Buffer>) => {
      call.sendMetadata(new grpc.Metadata());
      open.push(call);
    },
  });
  const credentials = grpc.ServerCredentials.createInsecure();
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync(
      "127.0.0.1:0",
      credentials,
      (error, port) => error ? reject(error) : resolve(port),
    )
  );
  if (options.isJoined) onSession(server, joinWrites);
  const write = net.Socket.prototype.write;
  const client = new grpc.Client(
    `127.0.0.1:${port}`,
    grpc.credentials.createInsecure(),
    { "grpc.use_local_subchannel_pool": 1 },
  );
  try {
    const streams = Array.from(
      { length: STREAMS },
      () =>
        client.makeServerStreamRequest(
          METHOD.path,
          asIs,
          asIs,
          Buffer.alloc(0),
        ),
    );
    const isOpen = Promise.all(
      streams.map((stream) =>
        new Promise((resolve) => stream.once("metadata", resolve))
      ),
    );
    const received = Promise.all(
      streams.map((stream) =>
        new Promise<Buffer>((resolve, reject) => {
          stream.once("data", resolve);
          stream.on("error", reject);
        })
      ),
    );
    await isOpen;
    net.Socket.prototype.write = function (
      this: net.Socket,
      ...given: Parameters<typeof write>
    ) {
      if (this.localPort === port) writes++;
      return write.apply(this, given);
    } as typeof write;
    for (const call of open) call.write(message);
    return { received: await received, writes };
  } finally {
    net.Socket.prototype.write = write;
    for (const call of open) call.end();
    client.close();
    server.forceShutdown();
  }
}

needs(
  ["net", "env", "read"],
  "joinedwrites: frames of one time are one write",
  async () => {
    const message = Buffer.from("changed");
    const alone = await talk(message, { isJoined: false });
    const joined = await talk(message, { isJoined: true });
    const all = Array.from({ length: STREAMS }, () => message);
    assertEquals([alone.received, joined.received], [all, all]);
    assertLess(joined.writes, alone.writes / 4);
  },
  { sanitizeOps: false, sanitizeResources: false },
);

needs(
  ["net", "env", "read"],
  "joinedwrites: what is large arrives whole",
  async () => {
    const message = Buffer.alloc(100_000, "0123456789abcdef");
    const { received } = await talk(message, { isJoined: true });
    assertEquals(received.length, STREAMS);
    assertEquals(received.every((bytes) => bytes.equals(message)), true);
  },
  { sanitizeOps: false, sanitizeResources: false },
);

/** A server that takes what comes, and how often a client's socket is written to meanwhile. */
async function writesOf(
  path: string,
  message: Buffer,
): Promise<{ writes: number; received: Buffer }> {
  const server = makeGrpcServer();
  const method = { ...METHOD, path, requestStream: true, responseStream: true };
  const { promise, resolve } = Promise.withResolvers<Buffer>();
  server.addService({ Talk: method }, {
    Talk: (call: grpc.ServerDuplexStream<Buffer, Buffer>) => {
      call.sendMetadata(new grpc.Metadata());
      call.on("data", resolve);
    },
  });
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync(
      "127.0.0.1:0",
      grpc.ServerCredentials.createInsecure(),
      (error, port) => error ? reject(error) : resolve(port),
    )
  );
  onSession(server, openWindows);
  const client = new grpc.Client(
    `127.0.0.1:${port}`,
    grpc.credentials.createInsecure(),
    { "grpc.use_local_subchannel_pool": 1 },
  );
  const write = net.Socket.prototype.write;
  let writes = 0;
  try {
    const call = client.makeBidiStreamRequest(path, asIs, asIs);
    call.on("error", () => {}); // It is cut below.
    await new Promise((resolve) => call.once("metadata", resolve));
    net.Socket.prototype.write = function (
      this: net.Socket,
      ...given: Parameters<typeof write>
    ) {
      if (this.remotePort === port) writes++;
      return write.apply(this, given);
    } as typeof write;
    call.write(message);
    return { received: await promise, writes };
  } finally {
    net.Socket.prototype.write = write;
    client.close();
    server.forceShutdown();
  }
}

needs(
  ["net", "env", "read"],
  "joinedwrites: calls of a known path join too, others stay as they are",
  async () => {
    const message = Buffer.alloc(200_000, "0123456789abcdef");
    joinCalls("/t.T/Known");
    const alone = await writesOf("/t.T/Other", message);
    const joined = await writesOf("/t.T/Known", message);
    assertEquals(alone.received.equals(message), true);
    assertEquals(joined.received.equals(message), true);
    assertLess(joined.writes, alone.writes / 2);
  },
  { sanitizeOps: false, sanitizeResources: false },
);
