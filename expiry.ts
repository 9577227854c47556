/**
 * Removes entries of Deno KV that have expired: on the leader, through the log, in bounded slices.
 * Nobody waits for it, because reads leave expired entries out by themselves. Used by
 * `kvconnect.ts`.
 *
 * @module
 */

import { expiredRange, expiryOf } from "./kvspace.ts";
import { DkvError } from "./errors.ts";
import type { Service } from "./service.ts";

const SWEEP_MS = 500;
/** How many entries one command removes. */
const SLICE_ENTRIES = 250;
const SLICE_BYTES = 1024 * 1024;
/** How many commands one sweep makes for one database. */
const SLICES_MAX = 8;

/** What a {@linkcode Sweeper} needs. */
export interface SweeperOptions {
  readonly service: Service;
  readonly nodeId: string;
  /** Their names. */
  readonly databases: readonly string[];
  readonly onError: (error: unknown) => void;
}

/** Sweeps while it runs. */
export class Sweeper {
  readonly #options: SweeperOptions;
  #timer: ReturnType<typeof setInterval> | undefined;
  #isSweeping = false;

  constructor(options: SweeperOptions) {
    this.#options = options;
  }

  start(): void {
    this.#timer = setInterval(() => void this.#sweep(), SWEEP_MS);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  async #sweep(): Promise<void> {
    const { service, nodeId, databases, onError } = this.#options;
    if (this.#isSweeping || service.leader !== nodeId) return;
    this.#isSweeping = true;
    try {
      for (const database of databases) await this.#sweepDatabase(database);
    } catch (error) {
      // What is not removed now is removed later.
      if (!(error instanceof DkvError && error.noEffect)) onError(error);
    } finally {
      this.#isSweeping = false;
    }
  }

  async #sweepDatabase(database: string): Promise<void> {
    const { service } = this.#options;
    for (let slice = 0; slice < SLICES_MAX; slice++) {
      const nowMs = Date.now();
      const { entries, more } = service.listNow(
        expiredRange(database, nowMs),
        {
          revision: 0,
          limit: SLICE_ENTRIES,
          keysOnly: true,
          reverse: false,
          bytesMax: SLICE_BYTES,
        },
      );
      if (entries.length === 0) return;
      const mutations = entries.map(({ key }) => ({
        type: "expire" as const,
        ...expiryOf(database, key),
      }));
      await service.mutate(
        { type: "mutate", database, nowMs, checks: [], mutations },
        { timeoutMs: null },
      );
      if (!more) return;
    }
  }
}
