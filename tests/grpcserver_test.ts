/** What the two ends of a connection let each other have under way. */

import * as grpc from "@grpc/grpc-js";
import { assertEquals } from "@std/assert";
import * as http2 from "node:http2";
import type { AddressInfo, Server } from "node:net";
import { LIMITS } from "../config.ts";
import { Endpoint } from "../endpoints.ts";
import { listenGrpc, makeGrpcServer, onSession } from "../grpcserver.ts";
import { needs } from "./needs.ts";
import { until } from "./stations.ts";

const MIB = 1024 * 1024;
/** What HTTP/2 grants to a connection by default. */
const DEFAULT_BYTES = 65_535;

/** What the other side of a session grants to a stream and to the connection, once it is more. */
async function windowsOf(
  session: http2.Http2Session,
): Promise<{ stream: number; connection: number }> {
  const connection = () => session.state.remoteWindowSize ?? 0;
  await until(() => connection() > DEFAULT_BYTES, "a wide window");
  return {
    stream: session.remoteSettings.initialWindowSize ?? 0,
    connection: connection(),
  };
}

needs(
  ["net", "env", "read"],
  "grpcserver: a message arrives without a wait in its middle",
  async () => {
    const server = makeGrpcServer();
    await listenGrpc(server, "127.0.0.1:0");
    const [listening] = Reflect.get(server, "http2Servers").keys();
    const { port } = (listening as Server).address() as AddressInfo;
    const session = http2.connect(`http://127.0.0.1:${port}`);
    try {
      const bytes = LIMITS.receiveWindowBytes;
      const granted = { stream: bytes, connection: bytes };
      assertEquals(await windowsOf(session), granted);
    } finally {
      session.destroy();
      server.forceShutdown();
    }
  },
  { sanitizeOps: false, sanitizeResources: false },
);

needs(
  ["net", "env", "read"],
  "grpcserver: a client library's answers arrive without a wait in their middle",
  async () => {
    const server = makeGrpcServer();
    const credentials = grpc.ServerCredentials.createInsecure();
    const { promise: port, resolve, reject } = Promise.withResolvers<number>();
    server.bindAsync(
      "127.0.0.1:0",
      credentials,
      (error, port) => error ? reject(error) : resolve(port),
    );
    const endpoint = new Endpoint(`127.0.0.1:${await port}`);
    const session = new Promise<http2.Http2Session>((resolve) =>
      onSession(server, resolve)
    );
    try {
      endpoint.client.waitForReady(Infinity, () => {});
      const granted = { stream: MIB, connection: MIB };
      assertEquals(await windowsOf(await session), granted);
    } finally {
      endpoint.reset();
      server.forceShutdown();
    }
  },
  { sanitizeOps: false, sanitizeResources: false },
);
