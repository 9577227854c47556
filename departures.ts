/**
 * Answers of unary calls on their way out: those that are ready at about the same time leave their
 * connection together. Used by `call.ts`.
 *
 * grpc-js and Deno write each answer in three pieces, and each piece with a call of the system:
 * headers and message at once, the trailers two callbacks of the event loop later, because the end
 * of a stream and its trailers are each put off by one. With many calls in flight that costs more
 * than to make the answers, and the client reads as many pieces. So the connection is corked
 * meanwhile:
 *
 * ```text
 *   first answer   cork   headers and messages of all that are ready
 *   + 1 callback          the streams end
 *   + 2 callbacks         trailers ─ uncork: one write ─ those that were ready too late
 * ```
 *
 * Only the order of callbacks is relied upon; were it another one, there would be more writes.
 *
 * @module
 */

import process from "node:process";
import { setImmediate } from "node:timers";

/** How many callbacks after an answer was given its connection is written to. */
export const DEPARTURE_CALLBACKS = 2;

/**
 * Answers that leave together. Not more: a client that has the first of many asks anew while the
 * others are being made.
 */
const TOGETHER_MAX = 64;

/** What is asked of the socket of a connection. */
export interface Corkable {
  cork(): void;
  uncork(): void;
}

/** The HTTP/2 session under a call. */
interface Session {
  readonly destroyed: boolean;
  readonly socket: Corkable;
  readonly state: { readonly remoteWindowSize?: number };
}

/** The answers of one connection. */
export class Departures {
  readonly #cork: () => void;
  readonly #uncork: () => void;
  readonly #waiting: (() => void)[] = [];
  #isCorked = false;
  /** How many more may join those that are about to leave. */
  #room = 0;

  constructor(socket: Corkable) {
    // Taken now: a session whose socket is gone does not give it any more.
    this.#cork = socket.cork.bind(socket);
    this.#uncork = socket.uncork.bind(socket);
  }

  /** Calls `answer`, which writes an answer, at once or when those before it have left. */
  add(answer: () => void): void {
    if (!this.#isCorked) this.#begin();
    if (this.#room === 0) {
      this.#waiting.push(answer);
      return;
    }
    this.#room--;
    answer();
  }

  #begin(): void {
    this.#isCorked = true;
    this.#room = TOGETHER_MAX;
    this.#cork();
    // Behind all that are ready now, so that each of the callbacks comes behind theirs.
    process.nextTick(() => {
      this.#room = 0;
      setImmediate(() => setImmediate(() => this.#leave()));
    });
  }

  #leave(): void {
    this.#isCorked = false;
    this.#uncork();
    for (const answer of this.#waiting.splice(0, TOGETHER_MAX)) {
      this.add(answer);
    }
  }
}

const known = new WeakMap<Session, Departures>();

/** Calls `answer`, which writes the answer to a call; see {@linkcode Departures}. */
export function depart(call: object, answer: () => void): void {
  const session = sessionOf(call);
  if (session === undefined || session.destroyed) return answer();
  let departures = known.get(session);
  if (departures === undefined) {
    departures = new Departures(session.socket);
    known.set(session, departures);
  }
  departures.add(answer);
}

/** Undefined if grpc-js has become another one: it does not show its HTTP/2 session. */
export function sessionOf(call: object): Session | undefined {
  const inner = call as { call?: { stream?: { session?: Session } } };
  return inner.call?.stream?.session;
}
