/**
 * Writers that keep account of every write they were promised. Used by the demo.
 *
 * @module
 */

import { type Client, DkvError } from "../client.ts";

/** A write that was acknowledged. */
export interface Acknowledged {
  readonly value: string;
  readonly revision: number;
}

/** After a refusal. */
const PAUSE_MS = 20;

/** Some writers, each putting one new key after the other. */
export class Load {
  readonly prefix: string;
  /** By key. */
  readonly acknowledged = new Map<string, Acknowledged>();
  /** When each acknowledgement came, in milliseconds since the start, ascending. */
  readonly timesMs: number[] = [];
  /** Writes of which nobody knows whether they happened: neither promised nor ruled out. */
  unknown = 0;
  /** Writes that certainly did not happen; the writer went on with the next key. */
  refused = 0;
  readonly #startedMs = performance.now();
  readonly #writers: Promise<void>[];
  #stopping = false;

  /** Starts to write, each writer through the client that comes next. */
  constructor(
    clients: readonly Client[],
    { prefix, writers }: { prefix: string; writers: number },
  ) {
    this.prefix = prefix;
    this.#writers = Array.from({ length: writers }, (_, at) => {
      const client = clients[at % clients.length];
      return client === undefined
        ? Promise.resolve()
        : this.#write(client, `${prefix}${at + 1}/`);
    });
    for (const writer of this.#writers) writer.catch(() => {}); // `stop` tells.
  }

  /** Milliseconds since the start. */
  get elapsedMs(): number {
    return performance.now() - this.#startedMs;
  }

  /** The longest time without an acknowledgement that ended after `sinceMs`. */
  gapMs(sinceMs: number): number {
    let gapMs = 0;
    for (const [at, timeMs] of this.timesMs.entries()) {
      const beforeMs = this.timesMs[at - 1] ?? timeMs;
      if (timeMs > sinceMs) gapMs = Math.max(gapMs, timeMs - beforeMs);
    }
    return gapMs;
  }

  /** Ends when every writer has its last answer. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await Promise.all(this.#writers);
  }

  async #write(client: Client, prefix: string): Promise<void> {
    for (let number = 1; !this.#stopping; number++) {
      const key = `${prefix}${number}`;
      const value = `value ${number}`;
      try {
        const { revision } = await client.put(key, value);
        this.acknowledged.set(key, { value, revision });
        this.timesMs.push(this.elapsedMs);
      } catch (error) {
        if (!(error instanceof DkvError)) throw error;
        if (error.noEffect) this.refused++;
        else this.unknown++;
        await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
      }
    }
  }
}
