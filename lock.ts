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

/** A lock that is held. Get one with `Client.lock`. */
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
