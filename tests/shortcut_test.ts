/**
 * Tests of `shortcut.ts`: whatever a client sends, it is answered as grpc-js alone would answer it.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { Buffer } from "node:buffer";
import type { OutgoingHttpHeaders } from "node:http2";
import { setImmediate } from "node:timers";
import { gzipSync } from "node:zlib";
import type * as Grpc from "@grpc/grpc-js";
import { LIMITS } from "../config.ts";
import { DkvError } from "../errors.ts";
import { needs } from "./needs.ts";

const PATH = "/test.Echo/Say";
const REQUEST_BYTES_MAX = 1000;
const SEND_BYTES_MAX = LIMITS.pipelineInFlightBytesMax;

/** A server that listens. */
interface Echo extends Disposable {
  readonly port: number;
  /** Requests that did not go through grpc-js. */
  readonly shortened: () => number;
}

/** Some messages cannot be read, and some answers not be written. */
function echoDefinition(): Grpc.ServiceDefinition {
  const read = (bytes: Buffer) => {
    if (bytes.includes("strange")) throw new Error("a strange message");
    return bytes;
  };
  return {
    Say: {
      path: PATH,
      requestStream: false,
      responseStream: false,
      requestSerialize: read,
      requestDeserialize: read,
      responseSerialize: ({ said }: { said: Buffer }) => {
        if (said.includes("unsayable")) throw new Error("cannot be said");
        return said;
      },
      responseDeserialize: read,
    },
  };
}

/** Answers with what it was told, and when it is told `fail`, with an error. */
async function listen(paths: ReadonlySet<string>): Promise<Echo> {
  const grpc = await import("@grpc/grpc-js");
  const { checkedDefinition, codeRefusals, toStatus, unary } = await import(
    "../call.ts"
  );
  const { takeShortcuts } = await import("../shortcut.ts");
  let shortened = 0;
  const context = {
    header: () => ({}),
    toStatus: (error: unknown) => toStatus(error as DkvError),
  };
  const serve = unary(context, (said: Buffer, _context, options) => {
    const { timeoutMs } = options;
    if (said.includes("fail")) {
      return Promise.reject(new DkvError("KEY_EMPTY", `é "${said}" 100 %`));
    }
    if (said.includes("huge")) {
      return Promise.resolve({ said: Buffer.alloc(SEND_BYTES_MAX + 1) });
    }
    if (said.includes("time")) {
      const isSet = timeoutMs !== null && timeoutMs > 0;
      return Promise.resolve({ said: Buffer.from(`time is set: ${isSet}`) });
    }
    return Promise.resolve({ said });
  });
  const server = new grpc.Server({
    interceptors: [codeRefusals],
    "grpc.max_receive_message_length": 50_000,
    "grpc.max_send_message_length": SEND_BYTES_MAX,
  });
  server.addService(
    checkedDefinition(echoDefinition(), () => REQUEST_BYTES_MAX),
    {
      Say: (
        call: Grpc.ServerUnaryCall<Buffer, unknown>,
        callback: Parameters<typeof serve>[1],
      ) => {
        if (call.metadata === undefined) shortened++;
        return serve(call, callback);
      },
    },
  );
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync(
      "127.0.0.1:0",
      grpc.ServerCredentials.createInsecure(),
      (error, port) => error ? reject(error) : resolve(port),
    )
  );
  takeShortcuts(server, paths);
  return {
    port,
    shortened: () => shortened,
    [Symbol.dispose]: () => server.forceShutdown(),
  };
}

/** A request as it goes over the wire. */
interface Sent {
  readonly what: string;
  /** Each is a frame of its own. */
  readonly pieces: readonly Buffer[];
  readonly headers?: OutgoingHttpHeaders;
  readonly isShort: boolean;
}

/** A message with its prefix. */
function framed(text: string | Buffer, flag = 0): Buffer {
  const body = Buffer.from(text);
  const prefix = Buffer.from([flag, 0, 0, 0, 0]);
  prefix.writeUInt32BE(body.length, 1);
  return Buffer.concat([prefix, body]);
}

function split(bytes: Buffer, at: number): Buffer[] {
  return [bytes.subarray(0, at), bytes.subarray(at)];
}

const HELLO = framed("hello");
const MAYBE: readonly Sent[] = [
  { what: "a message", pieces: [HELLO], isShort: true },
  { what: "an empty message", pieces: [framed("")], isShort: true },
  { what: "an error", pieces: [framed("fail")], isShort: true },
  { what: "a malformed one", pieces: [framed("strange")], isShort: true },
  { what: "a huge answer", pieces: [framed("huge")], isShort: true },
  { what: "no answer", pieces: [framed("unsayable")], isShort: true },
  {
    what: "one above the limit of the method",
    pieces: [framed(Buffer.alloc(REQUEST_BYTES_MAX + 1))],
    isShort: true,
  },
  {
    what: "one above the limit of the server",
    pieces: [framed(Buffer.alloc(60_000))],
    isShort: false,
  },
  {
    what: "one that is larger than a frame",
    pieces: [framed(Buffer.alloc(40_000))],
    isShort: false,
  },
  {
    what: "one that says it is huge",
    pieces: [Buffer.from([0, 255, 255, 255, 255, 1])],
    isShort: false,
  },
  { what: "nothing", pieces: [], isShort: false },
  { what: "half a prefix", pieces: [HELLO.subarray(0, 3)], isShort: false },
  { what: "half a message", pieces: [HELLO.subarray(0, 7)], isShort: false },
  ...Array.from({ length: HELLO.length - 1 }, (_, at) => ({
    what: `a message in pieces of ${at + 1} and more bytes`,
    pieces: split(HELLO, at + 1),
    isShort: false,
  })),
  {
    what: "two messages in a frame",
    pieces: [Buffer.concat([HELLO, HELLO])],
    isShort: false,
  },
  { what: "two messages", pieces: [HELLO, HELLO], isShort: false },
  {
    what: "a compressed message",
    pieces: [framed(gzipSync("hello"), 1)],
    headers: { "grpc-encoding": "gzip" },
    isShort: false,
  },
  {
    what: "compression that was not announced",
    pieces: [framed(gzipSync("hello"), 1)],
    isShort: false,
  },
  {
    what: "what only claims to be compressed",
    pieces: [framed("hello", 1)],
    headers: { "grpc-encoding": "gzip" },
    isShort: false,
  },
  {
    what: "a timeout",
    pieces: [framed("time")],
    headers: { "grpc-timeout": "20S" },
    isShort: true,
  },
  { what: "no timeout", pieces: [framed("time")], isShort: true },
  {
    what: "a timeout that is none",
    pieces: [HELLO],
    headers: { "grpc-timeout": "soon" },
    isShort: false,
  },
  {
    what: "another content type",
    pieces: [HELLO],
    headers: { "content-type": "text/plain" },
    isShort: false,
  },
  {
    what: "a method that nobody has",
    pieces: [HELLO],
    headers: { ":path": "/test.Echo/Shout" },
    isShort: false,
  },
  {
    what: "a content type with more to it",
    pieces: [HELLO],
    headers: { "content-type": "application/grpc;charset=x" },
    isShort: true,
  },
];

/** Everything that comes back. */
async function ask(port: number, { pieces, headers }: Sent): Promise<unknown> {
  const { connect } = await import("node:http2");
  const session = connect(`http://127.0.0.1:${port}`);
  try {
    const stream = session.request({
      ":method": "POST",
      ":path": PATH,
      "content-type": "application/grpc",
      te: "trailers",
      ...headers,
    });
    const parts: Buffer[] = [];
    let answered: object = {};
    let trailers: object = {};
    stream.on("response", (found) => answered = { ...found });
    stream.on("trailers", (found) => trailers = { ...found });
    stream.on("data", (bytes: Buffer) => parts.push(bytes));
    const closed = new Promise<void>((resolve) => {
      stream.on("close", resolve);
      stream.on("error", () => resolve());
    });
    for (const piece of pieces) {
      await new Promise<void>((resolve) =>
        stream.write(piece, () => resolve())
      );
    }
    stream.end();
    await closed;
    const body = Buffer.concat(parts).toString("hex");
    const bare = Object.entries(answered).filter(([name]) => name !== "date");
    return { answered: Object.fromEntries(bare), trailers, body };
  } finally {
    session.destroy();
  }
}

needs(
  ["net", "env"],
  "shortcut: what is sent is answered as by grpc-js alone",
  async (context) => {
    using plain = await listen(new Set());
    using short = await listen(new Set([PATH]));
    for (const sent of MAYBE) {
      await context.step(sent.what, async () => {
        const before = short.shortened();
        const expected = await ask(plain.port, sent);
        assertEquals(await ask(short.port, sent), expected);
        assertEquals(short.shortened() - before, sent.isShort ? 1 : 0);
      });
    }
    assertEquals(plain.shortened(), 0);
  },
);

needs(
  ["net", "env"],
  "shortcut: other methods go through grpc-js, and so do all of another grpc-js",
  async () => {
    using other = await listen(new Set(["/test.Echo/Other"]));
    const [first] = MAYBE;
    assert(first !== undefined);
    await ask(other.port, first);
    assertEquals(other.shortened(), 0);
    const { takeShortcuts } = await import("../shortcut.ts");
    takeShortcuts({} as Grpc.Server, new Set([PATH]));
  },
);

needs(
  ["net", "env"],
  "shortcut: clients that vanish in the middle of calls leave the others alone",
  async () => {
    using short = await listen(new Set([PATH]));
    const { connect } = await import("node:http2");
    const [first] = MAYBE;
    assert(first !== undefined);
    const expected = await ask(short.port, first);
    for (let round = 0; round < 20; round++) {
      const session = connect(`http://127.0.0.1:${short.port}`);
      session.on("error", () => {});
      const streams = Array.from({ length: 50 }, () =>
        session.request({
          ":method": "POST",
          ":path": PATH,
          "content-type": "application/grpc",
          te: "trailers",
        }));
      const answered = new Promise<void>((resolve) => {
        for (const stream of streams) stream.on("response", () => resolve());
      });
      const closed = streams.map((stream) =>
        new Promise<void>((resolve) => stream.on("close", resolve))
      );
      for (const [at, stream] of streams.entries()) {
        stream.on("error", () => {});
        stream.end(HELLO);
        if (at % 3 === 0) setImmediate(() => stream.close(8));
      }
      await answered;
      session.destroy();
      await Promise.all(closed);
    }
    assert(short.shortened() > 20);
    assertEquals(await ask(short.port, first), expected);
  },
);
