/**
 * One stream that another node has opened to this one: takes its frames, hands its messages over and
 * acknowledges them. The other end is a `Link`. Used by `peers.ts`.
 *
 * @module
 */

import type { Buffer } from "node:buffer";
import type * as grpc from "@grpc/grpc-js";
import { DkvError, unreachable } from "./errors.ts";
import type { Envelope } from "./envelope.ts";
import { decodeFrame, encodeReply, type Frame, type Hello } from "./frame.ts";
import type { NodeId } from "./handshake.ts";
import { type PeerLimits, refuse, toBuffer } from "./channel.ts";

/** A stream of frames as the accepting end has it. */
export type ServerCall = grpc.ServerDuplexStream<Buffer, Buffer>;

/** What an {@linkcode Inbound} needs of its surroundings. */
export interface InboundOptions {
  readonly limits: PeerLimits;
  /** What this node says of itself. */
  readonly hello: () => Hello;
  /** A reason to refuse the dialler, or null. */
  readonly judge: (hello: Hello) => string | null;
  /** The dialler was welcomed. */
  readonly onOpen: (inbound: Inbound, hello: Hello) => void;
  readonly onMessages: (nodeId: NodeId, envelopes: readonly Envelope[]) => void;
  /** Once, whoever ended it; the error is null if the dialler simply went away. */
  readonly onEnd: (inbound: Inbound, error: DkvError | null) => void;
}

/** One accepted stream, from its first byte to its end. */
export class Inbound {
  readonly #call: ServerCall;
  readonly #options: InboundOptions;
  /** Null until the dialler was welcomed. */
  #nodeId: NodeId | null = null;
  /** What the dialler claimed to be, for the log; not to be trusted. */
  #claim = "";
  #ended = false;
  /** Of all frames handed over, without the hello. */
  #bytes = 0;
  /** The part of `#bytes` that the dialler was told of. */
  #acknowledgedBytes = 0;
  #pong = 0;
  #unacknowledgedFrames = 0;
  /** When the dialler last wrote, on the clock of `performance.now()`. */
  #heardMs = performance.now();

  constructor(call: ServerCall, options: InboundOptions) {
    this.#call = call;
    this.#options = options;
    call.on("data", (bytes: Buffer) => this.#receive(bytes));
    call.on("end", () => {
      this.#close(null);
      call.end();
    });
    call.on("cancelled", () => this.#close(null));
    call.on("error", () => this.#close(null));
  }

  /** Who sends; null until it was welcomed. */
  get nodeId(): NodeId | null {
    return this.#nodeId;
  }

  /** The name that the dialler gave itself, known or not; empty before its hello. */
  get claim(): string {
    return this.#claim;
  }

  /** How long nothing was received. */
  silentMs(nowMs: number): number {
    return nowMs - this.#heardMs;
  }

  /** Counts silence from now on: this node itself stood still. */
  forgiveSilence(nowMs: number): void {
    this.#heardMs = nowMs;
  }

  /** Ends the stream with an error that the dialler sees. */
  end(error: DkvError): void {
    if (!this.#close(error)) return;
    refuse(this.#call, error);
  }

  #receive(bytes: Buffer): void {
    if (this.#ended) return;
    this.#heardMs = performance.now();
    let frame: Frame;
    try {
      frame = decodeFrame(bytes);
      this.#checkOrder(frame);
    } catch (error) {
      if (!(error instanceof DkvError)) throw error;
      return this.end(error);
    }
    // Errors from here on are defects of this node: they must not look like the dialler's.
    this.#handle(frame);
    if (frame.type === "hello") return;
    this.#bytes += bytes.length;
    this.#acknowledge(frame.type === "ping");
  }

  #checkOrder(frame: Frame): void {
    if ((frame.type === "hello") === (this.#nodeId === null)) return;
    throw new DkvError(
      "MALFORMED",
      frame.type === "hello"
        ? "Frame is a second hello"
        : "Frame is not a hello, and the first must be one",
    );
  }

  #handle(frame: Frame): void {
    switch (frame.type) {
      case "hello":
        return this.#welcome(frame.hello);
      case "messages":
        return this.#options.onMessages(this.#sender(), frame.envelopes);
      case "ping":
        this.#pong = frame.id;
        return;
      case "goodbye":
        return this.end(new DkvError("IDENTITY_MISMATCH", frame.reason));
      default:
        unreachable(frame);
    }
  }

  #sender(): NodeId {
    return this.#nodeId ?? this.#claim;
  }

  #welcome(hello: Hello): void {
    this.#claim = hello.nodeId;
    const refusal = this.#options.judge(hello);
    if (refusal !== null) {
      return this.end(new DkvError("IDENTITY_MISMATCH", refusal));
    }
    this.#nodeId = hello.nodeId;
    this.#call.write(
      toBuffer(encodeReply({ type: "welcome", hello: this.#options.hello() })),
    );
    this.#options.onOpen(this, hello);
  }

  /**
   * Seldom: after much, or when the dialler pings. An acknowledgement for each frame would double the
   * packets between two nodes that exchange a small frame for each batch.
   */
  #acknowledge(isPing: boolean): void {
    if (this.#ended) return;
    this.#unacknowledgedFrames += 1;
    const unackedBytes = this.#bytes - this.#acknowledgedBytes;
    const { peerAcknowledgeBytes, peerAcknowledgeFrames } =
      this.#options.limits;
    if (
      isPing || unackedBytes >= peerAcknowledgeBytes ||
      this.#unacknowledgedFrames >= peerAcknowledgeFrames
    ) this.#writeAcknowledgement();
  }

  #writeAcknowledgement(): void {
    this.#unacknowledgedFrames = 0;
    this.#acknowledgedBytes = this.#bytes;
    this.#call.write(
      toBuffer(
        encodeReply({
          type: "acknowledge",
          bytes: this.#bytes,
          pong: this.#pong,
        }),
      ),
    );
  }

  /** False if it was closed before. */
  #close(error: DkvError | null): boolean {
    if (this.#ended) return false;
    this.#ended = true;
    this.#options.onEnd(this, error);
    return true;
  }
}
