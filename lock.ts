/**
 * A lock in the cluster: one holder at a time, the others wait in line. Used by `client.ts`.
 *
 * @module
 */

import {
  Candidacy,
  Holding,
  type HoldingStore,
  type WaitOptions,
} from "./candidacy.ts";
import type { CallOptions } from "./operations.ts";

/** How to wait for a lock, and for how long to hold it without a sign of life. */
export interface LockOptions extends WaitOptions {
  /** What others see as the value of the holder's key. Default: empty. */
  readonly value?: string;
}

/**
 * A lock that is held. Get one with `Client.lock`.
 *
 * ```ts
 * import { connect } from "./client.ts";
 *
 * await using kv = await connect("127.0.0.1:50051");
 * const lock = await kv.lock("printer", { ttlMs: 5000, waitMs: 10_000 });
 * // Outside the store: hand the token over, and let a smaller one than the last be refused.
 * const job = { text: "…", token: lock.token };
 * // Inside: a guarded change takes effect only while the lock is held.
 * await kv.atomic().guard(lock.guard).put("printer-job", JSON.stringify(job)).commit();
 * await lock.release();
 * ```
 */
export class Lock extends Holding {
  /** Gives the lock back. */
  async release(options: CallOptions = {}): Promise<void> {
    await this.leave(options);
  }
}

/**
 * Waits in line for a lock.
 *
 * @internal
 */
export async function acquire(
  store: HoldingStore,
  name: string,
  { value = "", ...options }: LockOptions,
): Promise<Lock> {
  const place = await Candidacy.win(store, { name, value, ...options });
  return new Lock(name, place);
}
