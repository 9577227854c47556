/**
 * Clients that count: a load under which lost and repeated writes show.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import type { Client } from "../client.ts";
import { eventually } from "./cluster.ts";

/** Loops that count up, each on a key of its own: a put that is applied twice or not shows. */
export class Counters {
  readonly #kv: Client;
  readonly #running: Promise<number>[];
  #stopping = false;
  /** Of all loops. */
  acknowledged = 0;

  constructor(kv: Client, loops: number) {
    this.#kv = kv;
    this.#running = Array.from({ length: loops }, (_, at) => this.#loop(at));
  }

  async #loop(at: number): Promise<number> {
    let count = 0;
    while (!this.#stopping) {
      const { version } = await this.#kv.put(`counter/${at}`, String(count));
      count++;
      assertEquals(version, count, `counter/${at}`);
      this.acknowledged++;
    }
    return count;
  }

  /** Waits until so many more were acknowledged. */
  async progress(count: number): Promise<void> {
    const goal = this.acknowledged + count;
    // A loop that fails ends the wait.
    const failed = Promise.race(this.#running);
    const reached = eventually(
      `${count} more writes`,
      () => this.acknowledged >= goal,
    );
    await Promise.race([reached, failed]);
  }

  /** Ends the loops and reads back what they counted. */
  async check(): Promise<void> {
    this.#stopping = true;
    const counts = await Promise.all(this.#running);
    for (const [at, count] of counts.entries()) {
      const entry = await this.#kv.get(`counter/${at}`);
      assertEquals(entry?.version, count);
      assertEquals(entry?.text(), String(count - 1));
    }
  }
}
