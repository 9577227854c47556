/**
 * A lock in the cluster: one holder at a time, the others wait in line. Used by `client.ts`.
 *
 * @module
 */

import { Candidacy, Holding, type QueueStore } from "./candidacy.ts";
import { DkvError } from "./errors.ts";
import type { Lease } from "./heldlease.ts";

/** How to wait for a lock, and for how long to hold it without a sign of life. */
export interface LockOptions {
  /** How long the lock outlives a holder that vanished. Default: 10,000; at least 1,000. */
  readonly ttlMs?: number;
  /** Give up waiting after this long. Default: never. */
  readonly waitMs?: number;
  /** Give up waiting when this is aborted; the call then rejects with the signal's reason. */
  readonly signal?: AbortSignal;
  /** What others see as the value of the holder's key. Default: empty. */
  readonly value?: string;
}

/** A lock that is held. Get one with `Client.lock`. */
export class Lock extends Holding {
  /** Gives the lock back. */
  async release(): Promise<void> {
    await this[Symbol.asyncDispose]();
  }
}

/**
 * Waits in line for a lock. `lease` is revoked if that fails.
 *
 * @internal
 */
export async function acquire(
  store: QueueStore,
  { name, lease, options }: {
    name: string;
    lease: Lease;
    options: LockOptions;
  },
): Promise<Lock> {
  const { value = "", waitMs, signal } = options;
  const late = new AbortController();
  const timer = waitMs === undefined ? undefined : setTimeout(() => {
    const text = `The lock ${name} was not free within ${waitMs} ms`;
    late.abort(new DkvError("DEADLINE_EXCEEDED", text));
  }, waitMs);
  const signals = signal === undefined ? [late.signal] : [signal, late.signal];
  try {
    const place = await Candidacy.win(store, {
      name,
      value,
      lease,
      signal: AbortSignal.any(signals),
    });
    return new Lock(name, place);
  } finally {
    clearTimeout(timer);
  }
}
