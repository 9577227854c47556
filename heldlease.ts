/**
 * A lease that is kept alive until it is given back: what a program's keys live and die with. Used
 * by `client.ts`, `lock.ts` and `leadership.ts`.
 *
 * ```text
 *   granted ──────── renewed ──────── renewed ─ ─ ─ ✗ no answer ─ ─ ─ ✗ ─ ─ ┐
 *      │◀──── ttl ─────┼──▶│                            counted from when    │
 *      └─ ttl / 3 ─────┘   the last renewal that worked was SENT  ───────────┴▶ lost
 * ```
 *
 * The time is counted from the sending, so this side gives up before the cluster does; except that a
 * program that stands still notices nothing, which is what fencing tokens are for.
 *
 * @module
 */

import { DkvError } from "./errors.ts";
import type { CallOptions } from "./operations.ts";
import { after, TIMER_MS_MAX } from "./timer.ts";

/**
 * What a lease needs of the cluster.
 *
 * @internal
 */
export interface LeaseCalls {
  keepAlive(
    lease: bigint,
    options: { readonly timeoutMs: number },
  ): Promise<{ ttlMs: number }>;
  revoke(lease: bigint, options: CallOptions): Promise<void>;
  /** Called when the lease is renewed no more. */
  ended(): void;
}

/** After how much of its time to live a lease is renewed. */
const RENEW_SHARE = 1 / 3;
/** Before a renewal that failed is tried again. */
const RETRY_MS = 100;

/**
 * A lease that this program keeps alive. Get one with `Client.lease`.
 *
 * ```ts
 * import { connect } from "./client.ts";
 *
 * await using kv = await connect("127.0.0.1:50051");
 * const lease = await kv.lease({ ttlMs: 10_000 });
 * lease.signal.addEventListener("abort", () => console.log("lost:", lease.signal.reason));
 * await kv.put("workers/7", "busy", { lease: lease.id });
 * await lease.revoke(); // The key goes with it.
 * ```
 */
export class Lease implements AsyncDisposable {
  /** What `put` takes as `lease`. */
  readonly id: bigint;
  /** How long it lives without being renewed. */
  readonly ttlMs: number;
  readonly #calls: LeaseCalls;
  readonly #lost = new AbortController();
  #renewal: ReturnType<typeof setTimeout> | undefined;
  #expiry: ReturnType<typeof setTimeout> | undefined;
  /** By this side's clock; set with each renewal. */
  #expiresMs = 0;
  #isReleased = false;

  /**
   * Use `Client.lease`. `sentMs` is when it was asked for, by `performance.now()`.
   *
   * @internal
   */
  constructor(
    calls: LeaseCalls,
    lease: { id: bigint; ttlMs: number; sentMs: number },
  ) {
    this.#calls = calls;
    this.id = lease.id;
    this.ttlMs = lease.ttlMs;
    this.#renewed(lease.sentMs);
  }

  /**
   * Is aborted when the lease is lost: it was revoked by somebody else, or could not be renewed in
   * time. The reason is a DkvError `LEASE_NOT_FOUND`.
   */
  get signal(): AbortSignal {
    return this.#lost.signal;
  }

  /**
   * Ends the lease and deletes its keys, in one revision. Without effect if it was lost. If it fails it
   * may be tried again; the lease is not renewed any more and ends by itself.
   */
  async revoke(options: CallOptions = {}): Promise<void> {
    if (this.#isReleased) return;
    this.#isReleased = true;
    this.#stop();
    if (this.signal.aborted) return;
    try {
      await this.#calls.revoke(this.id, options);
    } catch (error) {
      if (error instanceof DkvError && error.code === "LEASE_NOT_FOUND") return;
      this.#isReleased = false;
      throw error;
    }
  }

  /**
   * Renews no more: nobody can tell from here whether the lease still exists.
   *
   * @internal
   */
  fail(reason: unknown): void {
    this.#stop();
    if (!this.#isReleased && !this.signal.aborted) this.#lost.abort(reason);
  }

  /** Ends the lease and deletes its keys. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.revoke();
  }

  #renewed(sentMs: number): void {
    this.#expiresMs = sentMs + this.ttlMs;
    this.#renewIn(this.ttlMs * RENEW_SHARE);
    clearTimeout(this.#expiry);
    this.#expiry = after(this.#expiresMs - performance.now(), () => {
      const text = `Lease ${this.id} could not be renewed for ${this.ttlMs} ms`;
      this.fail(new DkvError("LEASE_NOT_FOUND", text));
    });
  }

  #renewIn(delayMs: number): void {
    clearTimeout(this.#renewal);
    this.#renewal = setTimeout(
      () => void this.#renew(),
      // A lease that is longer than any timer is renewed early.
      Math.min(delayMs, TIMER_MS_MAX),
    );
  }

  async #renew(): Promise<void> {
    const sentMs = performance.now();
    try {
      const timeoutMs = Math.max(1, this.#expiresMs - sentMs);
      await this.#calls.keepAlive(this.id, { timeoutMs });
      if (!this.#isReleased && !this.signal.aborted) this.#renewed(sentMs);
    } catch (error) {
      if (this.#isReleased || this.signal.aborted) return;
      const gone = error instanceof DkvError &&
        (error.code === "LEASE_NOT_FOUND" || error.code === "CANCELLED");
      if (gone) this.fail(error);
      else this.#renewIn(RETRY_MS); // Until `#expiry` ends it.
    }
  }

  #stop(): void {
    clearTimeout(this.#renewal);
    clearTimeout(this.#expiry);
    this.#calls.ended();
  }
}
