/**
 * The way from this node to one other: dials, says hello, sends frames, counts what is not
 * acknowledged, notices silence, and dials again. Used by `peers.ts`, which has one for each node.
 *
 * ```text
 *            dial                 welcome, and no objection
 * waiting ─────────► dialling ─────────────────────────────► open
 *    ▲                  │                                      │
 *    └──────────────────┴──────── status, silence ─────────────┘
 * ```
 *
 * A write of grpc-js on Deno 2.9.3 completes whatever the other side does, so nothing but the bytes
 * acknowledged by the receiver bounds what piles up for a slow one.
 *
 * @module
 */

import type { Buffer } from "node:buffer";
import type * as grpc from "@grpc/grpc-js";
import type { Message } from "./message.ts";
import { assert, DkvError } from "./errors.ts";
import { type Envelope, messageBytes } from "./envelope.ts";
import { decodeReply, encodeFrame, type Frame, type Hello } from "./frame.ts";
import type { NodeId } from "./handshake.ts";
import {
  type Dial,
  dial,
  errorOf,
  type Log,
  type PeerLimits,
  toBuffer,
} from "./channel.ts";

/** What a {@linkcode Link} needs of its surroundings. */
export interface LinkOptions {
  readonly nodeId: NodeId;
  /** `host:port`, until {@linkcode Link.moveTo}. */
  readonly address: string;
  readonly limits: PeerLimits;
  readonly credentials: grpc.ChannelCredentials;
  readonly log: Log;
  /** What this node says of itself. */
  readonly hello: () => Hello;
  /** A reason not to talk to the node that answered, or null. */
  readonly judge: (welcome: Hello) => string | null;
  readonly onOpen: () => void;
  /** Messages were dropped, or those under way may be lost. Never called from within `send`. */
  readonly onUnreachable: () => void;
}

/** One try to reach the node, from dialling to its end. */
interface Attempt {
  readonly dial: Dial;
  readonly startedMs: number;
  /** Set once this node has said goodbye and waits for the other to close. */
  leaving: DkvError | null;
  /** Resolved when gRPC has reported the end of the call. */
  readonly ended: PromiseWithResolvers<void>;
}

/** A frame under way, to be counted off when it is acknowledged. */
interface Flight {
  /** The count of bytes sent, with this frame. */
  readonly endBytes: number;
  readonly messages: number;
}

/** The way to one node. */
export class Link {
  readonly #options: LinkOptions;
  #address: string;
  /** Where the node says that it is, if that is news: tried in turn with `#address`. */
  #told: string;
  #isToldNext = false;
  /** Where the node said that it was when it was last reached at `#address`: not always that. */
  #toldThere = "";
  /** Of the last dial. */
  #dialled: string;
  #state: "waiting" | "dialling" | "open" | "stopped" = "waiting";
  /** Null exactly while waiting or stopped. */
  #attempt: Attempt | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Failures since the link was last open. */
  #failures = 0;
  /** Since when there has been no connection, on the clock of `performance.now()`. */
  #awayMs = 0;
  /** The last reason logged for not being connected: a retry that fails the same way is not news. */
  #reason = "";

  /** Messages of this turn; all are sent by {@linkcode flush}. Empty unless open. */
  #queue: Envelope[] = [];
  #queueBytes = 0;
  /** Frames in the order they were sent; the ends rise. */
  readonly #flights: Flight[] = [];
  #flightMessages = 0;
  /** Of all frames after the hello; never below `#acknowledgedBytes`. */
  #sentBytes = 0;
  #acknowledgedBytes = 0;
  /** A message was dropped since the last flush. */
  #dropped = false;

  #ping = 0;
  /** When the other side last answered, on the clock of `performance.now()`. */
  #heardMs = 0;
  /** When {@linkcode tick} last ran: a gap means that this node itself stood still. */
  #tickedMs = 0;

  constructor(options: LinkOptions) {
    this.#options = options;
    this.#address = options.address;
    this.#told = options.address;
    this.#dialled = options.address;
  }

  /** `host:port` of the last dial. */
  get address(): string {
    return this.#dialled;
  }

  /** True between welcome and loss. */
  get open(): boolean {
    return this.#state === "open";
  }

  /** Bytes sent or queued and not acknowledged. */
  get unackedBytes(): number {
    return this.#sentBytes - this.#acknowledgedBytes + this.#queueBytes;
  }

  /** Dials for the first time. */
  start(): void {
    this.#tickedMs = performance.now();
    this.#awayMs = this.#tickedMs;
    this.#dial();
  }

  /** Takes a message for the next flush, or drops it if there is no room or no connection. */
  send(group: string, message: Message): void {
    const bytes = messageBytes(message);
    const { limits } = this.#options;
    assert(
      bytes <= limits.peerFrameBytesMax,
      `Message is too large: ${bytes} bytes, at most ${limits.peerFrameBytesMax}`,
    );
    if (this.#state !== "open" || !this.#hasRoom(bytes)) {
      this.#dropped = true;
      return;
    }
    this.#queue.push({ group, message });
    this.#queueBytes += bytes;
  }

  /** Sends what was taken since the last flush, and reports if something had to be dropped. */
  flush(): void {
    const queue = this.#queue;
    if (queue.length > 0) {
      this.#queue = [];
      this.#queueBytes = 0;
      let start = 0;
      let bytes = 0;
      for (const [i, { message }] of queue.entries()) {
        const size = messageBytes(message);
        if (i > start && bytes + size > this.#options.limits.peerFrameBytes) {
          this.#sendMessages(queue.slice(start, i));
          start = i;
          bytes = 0;
        }
        bytes += size;
      }
      this.#sendMessages(start === 0 ? queue : queue.slice(start));
    }
    if (this.#dropped) {
      this.#dropped = false;
      if (this.#state !== "stopped") this.#options.onUnreachable();
    }
  }

  /** The other node has just shown that it is up, and said where: try now instead of later. */
  nudge(told = this.#address): void {
    this.#told = told === this.#toldThere ? this.#address : told;
    this.#isToldNext = false;
    if (this.#state !== "waiting") return;
    this.#failures = 0;
    this.#dial();
  }

  /**
   * The node is elsewhere, or will be: a connection that is open lasts until it ends, then the new
   * address is dialled.
   */
  moveTo(address: string): void {
    if (address === this.#address) return;
    this.#address = address;
    this.#toldThere = "";
    const attempt = this.#attempt;
    if (this.#state === "dialling" && attempt !== null) {
      this.#lose(attempt, new DkvError("UNREACHABLE", "it has moved"));
    }
    this.nudge();
  }

  /** Looks at the clock; called every `peerPingMs`. */
  tick(): void {
    const now = performance.now();
    const { limits } = this.#options;
    const stoodStill = now - this.#tickedMs > 2 * limits.peerPingMs;
    this.#tickedMs = now;
    // After a pause of this process the answers wait in the socket, not yet read: not silence.
    if (stoodStill) this.#heardMs = now;
    const attempt = this.#attempt;
    if (attempt === null) return;
    if (this.#state === "open") {
      const silentMs = now - this.#heardMs;
      if (silentMs > limits.peerSilenceMsMax) {
        this.#lose(attempt, unreachableAfter("no answer", silentMs));
      } else {
        this.#ping++;
        this.#write(attempt, { type: "ping", id: this.#ping });
      }
    } else if (now - attempt.startedMs > limits.peerHandshakeMsMax) {
      const ms = now - attempt.startedMs;
      this.#lose(
        attempt,
        attempt.leaving ?? unreachableAfter("no welcome", ms),
      );
    }
  }

  /** Ends the connection and dials no more. Resolves when gRPC has let go. */
  async stop(): Promise<void> {
    this.#state = "stopped";
    clearTimeout(this.#timer);
    this.#forget();
    const attempt = this.#attempt;
    this.#attempt = null;
    if (attempt === null) return;
    attempt.dial.close();
    await attempt.ended.promise;
  }

  #hasRoom(bytes: number): boolean {
    const { limits } = this.#options;
    const messages = this.#flightMessages + this.#queue.length;
    // A message that is larger than the whole window may still travel alone.
    if (messages === 0) return true;
    return messages < limits.peerQueueMessagesMax &&
      this.unackedBytes + bytes <= limits.peerUnackedBytesMax;
  }

  #sendMessages(envelopes: readonly Envelope[]): void {
    assert(this.#attempt !== null, "Messages are queued only while connected");
    this.#write(this.#attempt, { type: "messages", envelopes });
    this.#flightMessages += envelopes.length;
  }

  /** Writes a frame that counts; the hello and the goodbye do not. */
  #write(attempt: Attempt, frame: Frame): void {
    const bytes = toBuffer(encodeFrame(frame));
    this.#sentBytes += bytes.length;
    this.#flights.push({
      endBytes: this.#sentBytes,
      messages: frame.type === "messages" ? frame.envelopes.length : 0,
    });
    attempt.dial.call.write(bytes);
  }

  #dial(): void {
    clearTimeout(this.#timer);
    this.#state = "dialling";
    const { limits, credentials, hello } = this.#options;
    this.#dialled = this.#isToldNext ? this.#told : this.#address;
    this.#isToldNext = !this.#isToldNext;
    const attempt: Attempt = {
      dial: dial(this.#dialled, { method: "Exchange", limits, credentials }),
      startedMs: performance.now(),
      leaving: null,
      ended: Promise.withResolvers(),
    };
    this.#attempt = attempt;
    const { call } = attempt.dial;
    call.on("data", (bytes: Buffer) => this.#receive(attempt, bytes));
    call.on("status", (status: grpc.StatusObject) => {
      attempt.ended.resolve();
      this.#lose(attempt, attempt.leaving ?? errorOf(status));
    });
    call.write(toBuffer(encodeFrame({ type: "hello", hello: hello() })));
  }

  #receive(attempt: Attempt, bytes: Buffer): void {
    if (attempt !== this.#attempt || attempt.leaving !== null) return;
    try {
      const reply = decodeReply(bytes);
      if (this.#state === "dialling") {
        if (reply.type !== "welcome") {
          throw new DkvError("MALFORMED", "answers before it has welcomed");
        }
        return this.#welcome(attempt, reply.hello);
      }
      if (reply.type !== "acknowledge") {
        throw new DkvError("MALFORMED", "welcomes a second time");
      }
      this.#acknowledge(reply.bytes);
    } catch (error) {
      if (!(error instanceof DkvError)) throw error;
      this.#lose(attempt, error);
    }
  }

  #welcome(attempt: Attempt, welcome: Hello): void {
    const { nodeId, judge, log, onOpen } = this.#options;
    const refusal = judge(welcome);
    if (refusal !== null) {
      // The other side accepted us and must learn why we leave; it then closes the stream.
      attempt.leaving = new DkvError("IDENTITY_MISMATCH", refusal);
      const { call } = attempt.dial;
      call.write(
        toBuffer(encodeFrame({ type: "goodbye", reason: refusal })),
      );
      call.end();
      return;
    }
    this.#state = "open";
    if (this.#dialled === this.#address) this.#toldThere = welcome.address;
    this.#failures = 0;
    this.#reason = "";
    this.#heardMs = performance.now();
    log("info", `connected to ${nodeId}`, {
      address: this.#dialled,
      version: welcome.softwareVersion,
    });
    onOpen();
  }

  #acknowledge(bytes: number): void {
    if (bytes < this.#acknowledgedBytes || bytes > this.#sentBytes) {
      throw new DkvError(
        "MALFORMED",
        `acknowledges ${bytes} bytes after ${this.#acknowledgedBytes} of ${this.#sentBytes}`,
      );
    }
    this.#heardMs = performance.now();
    this.#acknowledgedBytes = bytes;
    let done = 0;
    for (const flight of this.#flights) {
      if (flight.endBytes > bytes) break;
      this.#flightMessages -= flight.messages;
      done++;
    }
    if (done > 0) this.#flights.splice(0, done);
  }

  /** Ends an attempt, unless it has ended already, and waits for the next one. */
  #lose(attempt: Attempt, error: DkvError): void {
    if (attempt !== this.#attempt) return;
    const wasOpen = this.#state === "open";
    this.#attempt = null;
    this.#state = "waiting";
    this.#forget();
    attempt.dial.close();
    this.#report(error, wasOpen);
    const { limits, onUnreachable } = this.#options;
    const ceiling = Math.min(
      limits.peerBackoffMsMax,
      limits.peerBackoffMsMin * 2 ** Math.min(this.#failures, 30),
    );
    this.#failures++;
    // Half of it at random, so that nodes that lost each other do not dial in step.
    const waitMs = ceiling * (0.5 + Math.random() / 2);
    this.#timer = setTimeout(() => this.#dial(), waitMs);
    if (wasOpen) onUnreachable();
  }

  /** Forgets everything that belonged to the stream. */
  #forget(): void {
    this.#queue = [];
    this.#queueBytes = 0;
    this.#flights.length = 0;
    this.#flightMessages = 0;
    this.#sentBytes = 0;
    this.#acknowledgedBytes = 0;
  }

  #report(error: DkvError, wasOpen: boolean): void {
    const { nodeId, limits, log } = this.#options;
    const fields = { address: this.#dialled, code: error.code };
    const refused = error.code === "IDENTITY_MISMATCH";
    const now = performance.now();
    if (wasOpen) {
      this.#awayMs = now;
      if (error.code === "SHUTTING_DOWN") {
        return log("info", `${nodeId} shuts down`, {});
      }
      return log(
        "warn",
        `lost the connection to ${nodeId}: ${error.message}`,
        fields,
      );
    }
    const text = `${
      refused ? "refused" : "no"
    } connection to ${nodeId}: ${error.message}`;
    if (!refused && now - this.#awayMs < limits.peerQuietMs) {
      return log("debug", text, fields);
    }
    // How long it took is no other reason.
    const reason = `${error.code}: ${error.message.replace(/\d+/g, "")}`;
    if (reason === this.#reason) return;
    this.#reason = reason;
    log(refused ? "error" : "warn", text, fields);
  }
}

function unreachableAfter(what: string, ms: number): DkvError {
  return new DkvError("UNREACHABLE", `${what} for ${Math.round(ms)} ms`);
}
