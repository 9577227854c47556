/**
 * Snapshots on their way from one node to another: `sendSnapshot` is the sender's end of an
 * `InstallSnapshot` call, `Arrival` the receiver's. Used by `peers.ts`.
 *
 * ```text
 * header: hello, group, message, size ──►
 *                                     ◄── welcome          (or the call ends with the reason)
 * data at 0, data at 256 KiB, … ────────►  sink.write
 *                                     ◄── written bytes    (at most 4 MiB behind)
 * sha256 ───────────────────────────────►  compare, sink.finish, deliver the message
 *                                     ◄── done
 * ```
 *
 * Whatever breaks in between, the sink is told to abort and the sender gets an error; there is no
 * resumption.
 *
 * @module
 */

import { createHash } from "node:crypto";
import type { Buffer } from "node:buffer";
import type * as grpc from "@grpc/grpc-js";
import type { SnapshotMeta } from "./message.ts";
import { assert, AssertionError, DkvError } from "./errors.ts";
import {
  decodeSnapshotChunk,
  decodeSnapshotReply,
  encodeSnapshotChunk,
  encodeSnapshotReply,
  type Hello,
  type SnapshotChunk,
  type SnapshotMessage,
  type SnapshotReply,
} from "./frame.ts";
import type { NodeId } from "./handshake.ts";
import {
  dial,
  errorOf,
  type PeerLimits,
  refuse,
  toBuffer,
  toDkvError,
} from "./channel.ts";
import type { ServerCall } from "./inbound.ts";

/** What a window of chunks may take beside its data. */
const HEADERS_BYTES_MAX = 64 * 1024;

/** Where an arriving snapshot is written. After `finish` or `abort` nothing more is called. */
export interface SnapshotSink {
  /** The next bytes, in order; the view is the sink's to keep. */
  write(bytes: Uint8Array): void | Promise<void>;
  /** Everything is there and its checksum is right: make it durable. */
  finish(): Promise<void>;
  /** Nothing more will come: remove what was written. Must not throw: there is nobody to tell. */
  abort(): void | Promise<void>;
}

/** A snapshot to send. */
export interface SnapshotSource {
  readonly group: string;
  /** Delivered to the receiving group after the snapshot was stored there. */
  readonly message: SnapshotMessage;
  /** The content, in order, in pieces of any size. Read once, never faster than it is sent. */
  readonly source: AsyncIterable<Uint8Array>;
  /** The size of the content. */
  readonly bytes: number;
  /** Gives the transfer up. */
  readonly signal?: AbortSignal;
}

/** What {@linkcode sendSnapshot} needs beside the snapshot. */
export interface SendOptions {
  readonly address: string;
  readonly limits: PeerLimits;
  readonly credentials: grpc.ChannelCredentials;
  readonly hello: Hello;
  /** A reason not to talk to the node that answered, or null. */
  readonly judge: (welcome: Hello) => string | null;
}

/**
 * Sends a snapshot. Resolves when the receiver has stored it and delivered its message.
 *
 * @throws {DkvError} `CANCELLED` if the signal was given; `DEADLINE_EXCEEDED` if nothing moved for
 *   `snapshotStallMsMax`; `UNREACHABLE`; `IDENTITY_MISMATCH`; what the receiver gave as its reason.
 */
export async function sendSnapshot(
  snapshot: SnapshotSource,
  options: SendOptions,
): Promise<void> {
  const departure = new Departure(snapshot, options);
  try {
    await departure.run();
  } finally {
    await departure.close();
  }
}

/** The sender's end of one transfer. */
class Departure {
  readonly #snapshot: SnapshotSource;
  readonly #options: SendOptions;
  readonly #dial: ReturnType<typeof dial>;
  /** Rejects when the transfer cannot go on; never resolves. */
  readonly #failure = Promise.withResolvers<never>();
  readonly #ended = Promise.withResolvers<void>();
  /** Replaced with each reply, to wake who waits for one. */
  #reply = Promise.withResolvers<void>();
  #welcomed = false;
  #done = false;
  #sentBytes = 0;
  /** As the receiver said; never above `#sentBytes`. */
  #writtenBytes = 0;
  readonly #abort = () =>
    this.#failure.reject(
      new DkvError("CANCELLED", "The transfer of the snapshot was given up"),
    );

  constructor(snapshot: SnapshotSource, options: SendOptions) {
    this.#snapshot = snapshot;
    this.#options = options;
    this.#failure.promise.catch(() => {});
    const { address, limits, credentials } = options;
    this.#dial = dial(address, {
      method: "InstallSnapshot",
      limits,
      credentials,
    });
    const { call } = this.#dial;
    call.on("data", (bytes: Buffer) => this.#receive(bytes));
    call.on("status", (status: grpc.StatusObject) => {
      this.#ended.resolve();
      this.#failure.reject(errorOf(status));
    });
    snapshot.signal?.addEventListener("abort", this.#abort);
    if (snapshot.signal?.aborted) this.#abort();
  }

  async run(): Promise<void> {
    const { group, message, bytes, source } = this.#snapshot;
    const { limits, hello } = this.#options;
    this.#write({ type: "header", hello, group, message, bytes });
    await this.#until(() => this.#welcomed, limits.snapshotStallMsMax);
    const hash = createHash("sha256");
    const iterator = source[Symbol.asyncIterator]();
    try {
      while (true) {
        const next = await this.#within(
          iterator.next(),
          limits.snapshotStallMsMax,
        );
        if (next.done) break;
        hash.update(next.value);
        await this.#sendPiece(next.value);
      }
    } finally {
      // Not awaited: a source that hangs must not hold up its own end.
      iterator.return?.().catch(() => {});
    }
    if (this.#sentBytes !== bytes) {
      throw new DkvError(
        "INTERNAL",
        `Snapshot has ${this.#sentBytes} bytes, announced were ${bytes}`,
      );
    }
    this.#write({ type: "end", sha256: hash.digest() });
    const all = () => this.#writtenBytes === bytes || this.#done;
    await this.#until(all, limits.snapshotStallMsMax);
    await this.#until(() => this.#done, limits.snapshotFinishMsMax);
  }

  /** Ends the call; resolves when gRPC has let go. */
  async close(): Promise<void> {
    this.#snapshot.signal?.removeEventListener("abort", this.#abort);
    this.#dial.close();
    await this.#ended.promise;
  }

  async #sendPiece(piece: Uint8Array): Promise<void> {
    const { limits } = this.#options;
    for (let at = 0; at < piece.length; at += limits.snapshotChunkBytes) {
      const data = piece.subarray(at, at + limits.snapshotChunkBytes);
      await this.#until(
        () =>
          this.#sentBytes - this.#writtenBytes + data.length <=
            limits.snapshotUnackedBytesMax,
        limits.snapshotStallMsMax,
      );
      this.#write({ type: "data", offset: this.#sentBytes, data });
      this.#sentBytes += data.length;
    }
  }

  #write(chunk: SnapshotChunk): void {
    this.#dial.call.write(toBuffer(encodeSnapshotChunk(chunk)));
  }

  #receive(bytes: Buffer): void {
    try {
      this.#take(decodeSnapshotReply(bytes));
    } catch (error) {
      this.#failure.reject(error);
    }
  }

  #take(reply: SnapshotReply): void {
    if (reply.type === "welcome") {
      const refusal = this.#options.judge(reply.hello);
      if (refusal !== null) throw new DkvError("IDENTITY_MISMATCH", refusal);
      this.#welcomed = true;
    } else {
      if (reply.bytes < this.#writtenBytes || reply.bytes > this.#sentBytes) {
        throw new DkvError(
          "MALFORMED",
          `The receiver has written ${reply.bytes} bytes after ${this.#writtenBytes} of ${this.#sentBytes}`,
        );
      }
      this.#writtenBytes = reply.bytes;
      this.#done ||= reply.done;
    }
    const woken = this.#reply;
    this.#reply = Promise.withResolvers();
    woken.resolve();
  }

  /** Waits until a condition on the replies holds; each reply starts the time anew. */
  async #until(condition: () => boolean, msMax: number): Promise<void> {
    // Also when there is nothing to wait for: a transfer that has failed must stop here.
    await this.#within(Promise.resolve(), msMax);
    while (!condition()) await this.#within(this.#reply.promise, msMax);
  }

  async #within<Value>(promise: Promise<Value>, msMax: number): Promise<Value> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        reject(
          new DkvError(
            "DEADLINE_EXCEEDED",
            `The snapshot did not move for ${msMax} ms: ${this.#writtenBytes} of ${this.#snapshot.bytes} bytes written`,
          ),
        );
      }, msMax);
    });
    try {
      return await Promise.race([this.#failure.promise, promise, late]);
    } finally {
      clearTimeout(timer);
    }
  }
}

/** What an {@linkcode Arrival} needs of its surroundings. */
export interface ArrivalOptions {
  readonly limits: PeerLimits;
  readonly hello: () => Hello;
  /** A reason to refuse the sender, or null. */
  readonly judge: (hello: Hello) => string | null;
  /** The sender was accepted: earlier arrivals from the same node end now. */
  readonly onOpen: (arrival: Arrival, nodeId: NodeId) => void;
  /** Throws to refuse the snapshot. */
  readonly sink: (
    nodeId: NodeId,
    snapshot: { group: string; meta: SnapshotMeta; bytes: number },
  ) => SnapshotSink;
  /** The snapshot is stored. */
  readonly onDelivered: (
    nodeId: NodeId,
    envelope: { group: string; message: SnapshotMessage },
  ) => void;
  /** Once; the error is null if the snapshot was delivered or the sender went away. */
  readonly onEnd: (arrival: Arrival, error: DkvError | null) => void;
}

/** The receiver's end of one transfer. */
export class Arrival {
  readonly #call: ServerCall;
  readonly #options: ArrivalOptions;
  readonly #hash = createHash("sha256");
  /** Chunks that wait for the sink; bounded by what the sender may send ahead. */
  readonly #queue: { chunk: SnapshotChunk; bytes: number }[] = [];
  /** As encoded: of those in the queue and of the one that is being handled. */
  #queueBytes = 0;
  #draining = false;
  #header: (SnapshotChunk & { type: "header" }) | null = null;
  /** Not null from the header on, until it has finished or was aborted. */
  #sink: SnapshotSink | null = null;
  #receivedBytes = 0;
  /** The checksum was right: the sink decides alone from here on. */
  #finishing = false;
  /** The sender will write no more. */
  #inputEnded = false;
  #ended = false;
  #claim = "";
  #movedMs = performance.now();

  constructor(call: ServerCall, options: ArrivalOptions) {
    this.#call = call;
    this.#options = options;
    call.on("data", (bytes: Buffer) => this.#receive(bytes));
    call.on("end", () => {
      this.#inputEnded = true;
      if (!this.#draining) this.#drain();
    });
    call.on("cancelled", () => this.#close(null));
    call.on("error", () => this.#close(null));
  }

  /** The name that the sender gave itself, known or not; empty before its header. */
  get claim(): string {
    return this.#claim;
  }

  /** How long nothing moved; 0 while the sink finishes. */
  stalledMs(nowMs: number): number {
    return this.#finishing ? 0 : nowMs - this.#movedMs;
  }

  /** Ends the transfer with an error that the sender sees; the sink is told to abort. */
  end(error: DkvError): void {
    if (!this.#close(error)) return;
    refuse(this.#call, error);
  }

  #receive(bytes: Buffer): void {
    if (this.#ended) return;
    this.#movedMs = performance.now();
    try {
      const chunk = decodeSnapshotChunk(bytes);
      const { limits } = this.#options;
      this.#queueBytes += bytes.length;
      // The sender counts what was written, so it cannot be further ahead than this.
      const max = limits.snapshotUnackedBytesMax + HEADERS_BYTES_MAX;
      if (this.#queueBytes > max) {
        throw new DkvError(
          "OVERLOADED",
          `Snapshot is ${this.#queueBytes} bytes ahead of the disk, at most ${max}`,
        );
      }
      this.#queue.push({ chunk, bytes: bytes.length });
    } catch (error) {
      return this.end(toDkvError(error));
    }
    if (!this.#draining) this.#drain();
  }

  /** Handles chunk after chunk; an {@linkcode AssertionError} in here stops the node. */
  async #drain(): Promise<void> {
    this.#draining = true;
    try {
      while (!this.#ended) {
        const next = this.#queue.shift();
        if (next === undefined) {
          if (!this.#inputEnded) break;
          throw new DkvError(
            "MALFORMED",
            `Snapshot breaks off after ${this.#receivedBytes} bytes`,
          );
        }
        await this.#handle(next.chunk);
        this.#queueBytes -= next.bytes;
        this.#movedMs = performance.now();
      }
    } catch (error) {
      if (error instanceof AssertionError) throw error;
      this.end(toDkvError(error));
    } finally {
      this.#draining = false;
      if (this.#ended) await this.#abortSink();
    }
  }

  async #handle(chunk: SnapshotChunk): Promise<void> {
    if ((chunk.type === "header") !== (this.#header === null)) {
      throw new DkvError(
        "MALFORMED",
        `Snapshot's ${chunk.type} is out of order`,
      );
    }
    if (chunk.type === "header") this.#open(chunk);
    else if (chunk.type === "data") await this.#take(chunk);
    else await this.#complete(chunk.sha256);
  }

  #open(header: SnapshotChunk & { type: "header" }): void {
    const { hello, judge, onOpen, sink } = this.#options;
    const { nodeId } = header.hello;
    this.#claim = nodeId;
    const refusal = judge(header.hello);
    if (refusal !== null) throw new DkvError("IDENTITY_MISMATCH", refusal);
    onOpen(this, nodeId);
    const { group, message, bytes } = header;
    this.#sink = sink(nodeId, { group, meta: message.meta, bytes });
    this.#header = header;
    this.#write({ type: "welcome", hello: hello() });
  }

  async #take(
    { offset, data }: { offset: number; data: Uint8Array },
  ): Promise<void> {
    const bytes = this.#header?.bytes ?? 0;
    if (offset !== this.#receivedBytes || offset + data.length > bytes) {
      throw new DkvError(
        "MALFORMED",
        `Snapshot has ${data.length} bytes at ${offset}, expected are those at ${this.#receivedBytes} of ${bytes}`,
      );
    }
    this.#hash.update(data);
    await this.#sink?.write(data);
    this.#receivedBytes += data.length;
    this.#write({ type: "written", bytes: this.#receivedBytes, done: false });
  }

  async #complete(sha256: Uint8Array): Promise<void> {
    const header = this.#header;
    assert(header !== null, "A transfer is completed after its header");
    if (this.#receivedBytes !== header.bytes) {
      throw new DkvError(
        "MALFORMED",
        `Snapshot ends after ${this.#receivedBytes} of ${header.bytes} bytes`,
      );
    }
    if (!this.#hash.digest().equals(sha256)) {
      throw new DkvError(
        "DATA_CORRUPT",
        `Snapshot of ${header.bytes} bytes does not have the checksum it was sent with`,
      );
    }
    this.#finishing = true;
    await this.#sink?.finish();
    this.#sink = null;
    const { group, message } = header;
    this.#options.onDelivered(this.#claim, { group, message });
    this.#write({ type: "written", bytes: this.#receivedBytes, done: true });
    if (this.#close(null)) this.#call.end();
  }

  #write(reply: SnapshotReply): void {
    if (!this.#ended) this.#call.write(toBuffer(encodeSnapshotReply(reply)));
  }

  /** False if it was closed before. */
  #close(error: DkvError | null): boolean {
    if (this.#ended) return false;
    this.#ended = true;
    this.#queue.length = 0;
    this.#options.onEnd(this, error);
    // While a chunk is being written, the sink is aborted after it.
    if (!this.#draining) this.#abortSink();
    return true;
  }

  async #abortSink(): Promise<void> {
    const sink = this.#sink;
    this.#sink = null;
    await sink?.abort();
  }
}
