/**
 * A watch of Deno KV: a body without end, in which each frame is the state of all watched keys at
 * one revision. Used by `kvconnect.ts`.
 *
 * A frame is made when the connection takes one, of what is there then: however slow a client is,
 * nothing waits for it in memory, and several changes become one frame.
 *
 * @module
 */

import { isExpired, type StoredKvValue } from "./kvvalue.ts";
import { type KvEntry, writeWatch } from "./kvmessages.ts";
import { keyAfter, type Service } from "./service.ts";

/** What a {@linkcode watchBody} is made of. */
export interface WatchBodyOptions {
  readonly service: Service;
  /** Keys of the store. */
  readonly keys: readonly string[];
  /** Reads one of them, expired or not. */
  readonly read: (key: string) => (KvEntry & StoredKvValue) | null;
  /** For what goes wrong while the body is made. */
  readonly onError: (error: unknown) => void;
}

/** How long a stream may be silent. */
const PING_MS = 5000;
const PING = new Uint8Array(4);

/**
 * Starts the watches and gives the body. The node must be ready to read.
 *
 * @throws {DkvError} OVERLOADED
 */
export function watchBody(options: WatchBodyOptions): ReadableStream {
  const watch = new KeysWatch(options);
  return new ReadableStream({
    pull: async (controller) => {
      const frame = await watch.next();
      if (frame === null) controller.close();
      else controller.enqueue(frame);
    },
    cancel: () => watch.stop(),
  }, { highWaterMark: 0 });
}

class KeysWatch {
  readonly #options: WatchBodyOptions;
  readonly #stops: (() => void)[] = [];
  /** There is something to tell. */
  #isDirty = true;
  #isEnded = false;
  /** When the next watched entry expires, in Unix milliseconds. */
  #nextExpiryMs = Infinity;
  #wake: (() => void) | null = null;

  constructor(options: WatchBodyOptions) {
    this.#options = options;
    try {
      for (const key of new Set(options.keys)) this.#watch(key);
    } catch (error) {
      this.stop();
      throw error;
    }
  }

  #watch(key: string): void {
    const { service } = this.#options;
    const { stop } = service.watch({
      range: { start: key, end: keyAfter(key) },
      fromRevision: service.revision + 1,
      withPrevious: false,
      noPuts: false,
      noDeletes: false,
      hasRoom: () => true,
      deliver: (events) => {
        if (events.length > 0) {
          this.#isDirty = true;
          this.#wake?.();
        }
        return true;
      },
      // The client comes again and gets everything anew.
      cancel: () => this.stop(),
    });
    this.#stops.push(stop);
  }

  stop(): void {
    this.#isEnded = true;
    for (const stop of this.#stops.splice(0)) stop();
    this.#wake?.();
  }

  /** The next frame; null at the end. */
  async next(): Promise<Uint8Array | null> {
    if (!this.#isDirty && !this.#isEnded) {
      const expiryMs = this.#nextExpiryMs - Date.now();
      await this.#sleep(Math.max(1, Math.min(PING_MS, expiryMs)));
      if (Date.now() >= this.#nextExpiryMs) this.#isDirty = true;
    }
    if (this.#isEnded) return null;
    if (!this.#isDirty) return PING;
    this.#isDirty = false;
    try {
      return this.#frame();
    } catch (error) {
      this.stop();
      this.#options.onError(error);
      return null;
    }
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #frame(): Uint8Array {
    const { keys, read } = this.#options;
    const nowMs = Date.now();
    this.#nextExpiryMs = Infinity;
    const entries = keys.map((key) => {
      const entry = read(key);
      if (entry === null || isExpired(entry, nowMs)) return null;
      if (entry.expireAtMs !== 0) {
        this.#nextExpiryMs = Math.min(this.#nextExpiryMs, entry.expireAtMs);
      }
      return entry;
    });
    return writeWatch(entries);
  }
}
