/**
 * Stations: `Peers` over real sockets in one process, and what stands in for a peer that misbehaves.
 * Used by `peers_test.ts`.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import type * as Grpc from "@grpc/grpc-js";
import { DkvError, type ErrorCode } from "../errors.ts";
import {
  decodeFrame,
  decodeReply,
  encodeFrame,
  encodeReply,
  type Frame,
  type Hello,
  PROTOCOL_VERSION,
} from "../frame.ts";
import type { Message } from "../message.ts";
import type {
  Envelope,
  PeerLimits,
  Peers,
  PeersOptions,
  SnapshotSink,
  SnapshotSource,
} from "../peers.ts";

/** Fails a test that would wait for ever. */
const PATIENCE_MS = 10_000;

/** Short enough for tests, long enough for a busy machine. */
const QUICK: Partial<PeerLimits> = {
  peerPingMs: 50,
  peerBackoffMsMin: 10,
  peerBackoffMsMax: 50,
};

/** One node's side of the wire, without a node. */
export interface Station extends AsyncDisposable {
  readonly id: string;
  readonly port: number;
  readonly peers: Peers;
  /** What came, one element for each call of `onMessages`. */
  readonly received: { from: string; envelopes: readonly Envelope[] }[];
  readonly logs: { level: string; text: string }[];
  readonly unreachable: string[];
  readonly stop: () => Promise<void>;
}

export interface StationOptions {
  /** Default: a free port. */
  readonly bound?: Bound;
  readonly addresses: ReadonlyMap<string, string>;
  readonly identity?: Partial<PeersOptions["identity"]> | undefined;
  readonly limits?: Partial<PeerLimits> | undefined;
  readonly admit?: PeersOptions["admit"] | undefined;
  readonly invites?: PeersOptions["invites"];
  readonly mayReach?: PeersOptions["mayReach"];
  readonly onParted?: PeersOptions["onParted"];
  readonly snapshotSink?: PeersOptions["snapshotSink"] | undefined;
}

/** A server that listens but serves nothing yet. */
export interface Bound {
  readonly server: Grpc.Server;
  readonly port: number;
}

export async function bind(port = 0): Promise<Bound> {
  const grpc = await import("@grpc/grpc-js");
  const { Peers } = await import("../peers.ts");
  const server = new grpc.Server(Peers.serverOptions());
  const bound = await new Promise<number>((resolve, reject) =>
    server.bindAsync(
      `127.0.0.1:${port}`,
      grpc.ServerCredentials.createInsecure(),
      (error, bound) => error ? reject(error) : resolve(bound),
    )
  );
  return { server, port: bound };
}

/** Serves, but does not dial before `peers.start()`. */
export async function station(
  id: string,
  options: StationOptions,
): Promise<Station> {
  const { Peers } = await import("../peers.ts");
  const { server, port } = options.bound ?? await bind();
  const received: Station["received"] = [];
  const logs: Station["logs"] = [];
  const unreachable: string[] = [];
  const peers = new Peers({
    identity: identityOf(id, {
      address: `127.0.0.1:${port}`,
      ...options.identity,
    }),
    addresses: options.addresses,
    limits: { ...QUICK, ...options.limits },
    log: (level, text) => logs.push({ level, text }),
    onMessages: (from, envelopes) => received.push({ from, envelopes }),
    onUnreachable: (nodeId) => unreachable.push(nodeId),
    admit: options.admit ?? (() => null),
    ...(options.invites && { invites: options.invites }),
    ...(options.mayReach && { mayReach: options.mayReach }),
    ...(options.onParted && { onParted: options.onParted }),
    snapshotSink: options.snapshotSink ?? (() => {
      throw new DkvError("INTERNAL", "no snapshot is expected");
    }),
  });
  peers.addTo(server);
  const stop = async () => {
    await peers.stop();
    server.forceShutdown();
  };
  return {
    id,
    port,
    peers,
    received,
    logs,
    unreachable,
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

export interface ClusterOptions {
  readonly limits?: Partial<PeerLimits>;
  /** Further nodes that all know, and where they are. */
  readonly extra?: Readonly<Record<string, string>>;
  readonly identities?: Readonly<
    Record<string, Partial<PeersOptions["identity"]>>
  >;
  readonly admit?: (self: string, hello: Hello) => string | null;
  readonly snapshotSink?: PeersOptions["snapshotSink"];
}

/** Stations n1, n2, … that know and dial each other. */
export async function cluster(count: number, options: ClusterOptions = {}) {
  const bounds = await Promise.all(
    Array.from({ length: count }, () => bind()),
  );
  const everyone = new Map(
    bounds.map(({ port }, i) => [`n${i + 1}`, `127.0.0.1:${port}`]),
  );
  for (const entry of Object.entries(options.extra ?? {})) {
    everyone.set(...entry);
  }
  const make = async (id: string, bound: Bound): Promise<Station> => {
    const { admit } = options;
    const made = await station(id, {
      ...options,
      bound,
      admit: admit && ((hello) => admit(id, hello)),
      identity: options.identities?.[id],
      addresses: new Map([...everyone].filter(([other]) => other !== id)),
    });
    made.peers.start();
    return made;
  };
  const all: Station[] = [];
  for (const [i, bound] of bounds.entries()) {
    all.push(await make(`n${i + 1}`, bound));
  }
  return {
    all: all as [Station, Station, Station],
    /** A node that was stopped, on its old address. */
    async restart(id: string): Promise<Station> {
      const port = Number(everyone.get(id)?.split(":")[1]);
      const again = await make(id, await bind(port));
      all.push(again);
      return again;
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(all.map((node) => node.stop()));
    },
  };
}

export function identityOf(
  nodeId: string,
  changed: Partial<PeersOptions["identity"]> = {},
): PeersOptions["identity"] {
  return {
    clusterName: "test",
    fingerprint: "f",
    clusterId: () => "",
    nodeId,
    memberId: `${nodeId}-member`,
    incarnation: `${nodeId}-disk`,
    softwareVersion: "0.0.0",
    address: `${nodeId}:1`,
    ...changed,
  };
}

export function helloOf(nodeId: string, changed: Partial<Hello> = {}): Hello {
  const { clusterId, ...rest } = identityOf(nodeId);
  return {
    protocolVersion: PROTOCOL_VERSION,
    ...rest,
    clusterId: clusterId(),
    ...changed,
  };
}

export function hello(nodeId: string): Uint8Array {
  return encodeFrame({ type: "hello", hello: helloOf(nodeId) });
}

export function frameOf(message: Message): Uint8Array {
  return encodeFrame({
    type: "messages",
    envelopes: [{ group: "g", message }],
  });
}

/** Welcomes whoever dials, and then never acknowledges anything. */
export async function silentServer({ welcomes = true } = {}) {
  const { PEER_SERVICE } = await import("../channel.ts");
  const { server, port } = await bind();
  let hellos = 0;
  let messages = 0;
  server.addService({ Exchange: PEER_SERVICE.Exchange }, {
    Exchange: (call: Grpc.ServerDuplexStream<Buffer, Buffer>) => {
      call.on("error", () => {});
      call.on("data", (bytes: Buffer) => {
        const frame: Frame = decodeFrame(bytes);
        if (frame.type === "messages") messages += frame.envelopes.length;
        if (frame.type !== "hello") return;
        hellos++;
        if (!welcomes) return;
        const welcome = encodeReply({
          type: "welcome",
          hello: helloOf("mute"),
        });
        call.write(Buffer.from(welcome));
      });
    },
  });
  return {
    address: `127.0.0.1:${port}`,
    hellos: () => hellos,
    messages: () => messages,
    [Symbol.asyncDispose]() {
      server.forceShutdown();
      return Promise.resolve();
    },
  };
}

/** A call that says whatever a test wants. */
export async function rawCall(
  port: number,
  method: "Exchange" | "InstallSnapshot",
) {
  const grpc = await import("@grpc/grpc-js");
  const { dial, PEER_LIMITS } = await import("../channel.ts");
  const { call, close } = dial(`127.0.0.1:${port}`, {
    method,
    limits: PEER_LIMITS,
    credentials: grpc.credentials.createInsecure(),
  });
  const replies: ReturnType<typeof decodeReply>[] = [];
  call.on("data", (bytes: Buffer) => replies.push(decodeReply(bytes)));
  const status = new Promise<Grpc.StatusObject>((resolve) =>
    call.on("status", resolve)
  );
  return {
    replies,
    status,
    write: (bytes: Uint8Array) => call.write(Buffer.from(bytes)),
    end: () => call.end(),
    async [Symbol.asyncDispose]() {
      close();
      await status;
    },
  };
}

/** Keeps what it gets; waits where it is told to. */
export class TestSink implements SnapshotSink {
  readonly written: Uint8Array[] = [];
  writing = false;
  finishing = false;
  end: "finished" | "aborted" | null = null;
  readonly #gates: { write?: Promise<void>; finish?: Promise<void> };

  constructor(gates: { write?: Promise<void>; finish?: Promise<void> } = {}) {
    this.#gates = gates;
    gates.write?.catch(() => {});
  }

  async write(bytes: Uint8Array): Promise<void> {
    assertEquals(this.end, null);
    this.writing = true;
    await this.#gates.write;
    this.written.push(bytes);
  }

  async finish(): Promise<void> {
    assertEquals(this.end, null);
    this.finishing = true;
    await this.#gates.finish;
    this.end = "finished";
  }

  abort(): void {
    assertEquals(this.end, null);
    this.end = "aborted";
  }
}

export function snapshotMessage(): SnapshotSource["message"] {
  return {
    from: "n1-member",
    to: "n2-member",
    term: 3,
    type: "snapshot",
    meta: {
      index: 9,
      term: 2,
      configuration: {
        voters: ["n1-member", "n2-member"],
        votersOutgoing: [],
        learners: [],
        learnersNext: [],
      },
    },
  };
}

export const SNAPSHOT = snapshotMessage();

export function snapshotOf(
  content: Uint8Array,
  pieceBytes: number,
  onRead: (bytes: number) => void = () => {},
): SnapshotSource {
  async function* source(): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < content.length; at += pieceBytes) {
      const piece = content.subarray(at, at + pieceBytes);
      onRead(piece.length);
      yield await Promise.resolve(piece);
    }
  }
  return {
    group: "g",
    message: SNAPSHOT,
    source: source(),
    bytes: content.length,
  };
}

/** Its source gives one byte and then nothing, not even an end. */
export function hangingSnapshot(bytes: number): SnapshotSource {
  let reads = 0;
  const next = (): Promise<IteratorResult<Uint8Array>> => {
    if (reads++ > 0) return new Promise(() => {});
    return Promise.resolve({ done: false, value: new Uint8Array(1) });
  };
  const source = { [Symbol.asyncIterator]: () => ({ next }) };
  return { group: "g", message: SNAPSHOT, source, bytes };
}

export function heartbeat(readRound: number): Message {
  const head = { from: "n1-member", to: "n2-member", term: 1 };
  return { ...head, type: "heartbeat", commit: 0, readRound };
}

export function append(bytes: number): Message {
  return {
    from: "n1-member",
    to: "n2-member",
    term: 1,
    type: "append",
    previousIndex: 0,
    previousTerm: 0,
    entries: [{
      index: 1,
      term: 1,
      type: "batch",
      data: new Uint8Array(bytes),
    }],
    commit: 0,
  };
}

export function messages(node: Station): Envelope[] {
  return node.received.flatMap(({ envelopes }) => envelopes);
}

/** The heartbeats' numbers, in the order in which they came. */
export function rounds(node: Station): number[] {
  return messages(node).flatMap(({ message }) =>
    message.type === "heartbeat" ? [message.readRound] : []
  );
}

export function random(bytes: number): Uint8Array {
  const content = new Uint8Array(bytes);
  // One call may fill at most this much.
  for (let at = 0; at < bytes; at += 65536) {
    crypto.getRandomValues(content.subarray(at, at + 65536));
  }
  return content;
}

export async function connected(...nodes: Station[]): Promise<void> {
  const ids = nodes.map(({ id }) => id);
  await until(
    () =>
      nodes.every(({ id, peers }) =>
        ids.every((other) => other === id || peers.connected(other))
      ),
    `${ids.join(", ")} connected`,
  );
}

export async function until(
  condition: () => boolean,
  what: string,
): Promise<void> {
  const startMs = performance.now();
  while (!condition()) {
    if (performance.now() - startMs > PATIENCE_MS) {
      throw new Error(`Waited in vain for: ${what}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** Lets everything that is ready happen. */
export async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** grpc-js leaves timers of up to 250 ms to itself when a channel is closed while it connects; late on a busy machine. */
export async function settled(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 1000));
}

export async function assertFails(
  promise: Promise<unknown>,
  { code, text }: { code: ErrorCode; text: string },
): Promise<void> {
  const error = await assertRejects(() => promise, DkvError);
  assertEquals(error.code, code);
  assertStringIncludes(error.message, text);
}
