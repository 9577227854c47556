/**
 * The calls that create, renew, ask about and end leases. Used by `client.ts`; `heldlease.ts` keeps
 * a lease alive.
 *
 * @module
 */

import type * as grpc from "@grpc/grpc-js";
import { wireError } from "./answers.ts";
import {
  type Endpoint,
  type Endpoints,
  methodOf,
  type RetryOptions,
} from "./endpoints.ts";
import { DkvError } from "./errors.ts";

/** What is known of a lease. */
export interface LeaseStatus {
  /** Its id. */
  readonly lease: bigint;
  /** What was granted. */
  readonly ttlMs: number;
  /** What is left. */
  readonly remainingMs: number;
  /** The attached keys, if asked for. */
  readonly keys: readonly Uint8Array[];
}

/**
 * The lease calls of one client.
 *
 * @internal
 */
export class Leasing {
  readonly #endpoints: Endpoints;

  constructor(endpoints: Endpoints) {
    this.#endpoints = endpoints;
  }

  /** Creates a lease; without an id of the caller's it gets a random one. */
  async grant(
    lease: { readonly ttlMs: number; readonly lease?: bigint },
    options: RetryOptions,
  ): Promise<{ lease: bigint; ttlMs: number }> {
    // With an id of its own, a second attempt can tell that the first one succeeded.
    const { ttlMs, lease: id = randomLease() } = lease;
    const request = { lease: id.toString(), ttlMs };
    try {
      await this.#endpoints.change(
        { method: "Grant", request, done: "LEASE_EXISTS" },
        options,
      );
    } catch (error) {
      // A collision of random ids: as unlikely as it is, another one will do.
      const collided = error instanceof DkvError &&
        error.code === "LEASE_EXISTS";
      if (!collided || lease.lease !== undefined) throw error;
      return await this.grant(lease, options);
    }
    return { lease: id, ttlMs };
  }

  /** Ends a lease and deletes its keys. */
  async revoke(lease: bigint, options: RetryOptions): Promise<void> {
    const request = { lease: lease.toString() };
    await this.#endpoints.change(
      { method: "Revoke", request, done: "LEASE_NOT_FOUND" },
      options,
    );
  }

  /** Renews a lease once. */
  async keepAlive(
    lease: bigint,
    options: RetryOptions,
  ): Promise<{ ttlMs: number }> {
    return await this.#endpoints.retry(
      (endpoint, { attemptMs }) =>
        renew(endpoint, { lease, attemptMs, signal: options.signal }),
      options,
    );
  }

  /** Tells how long a lease still has. */
  async timeToLive(
    lease: bigint,
    options: RetryOptions & { readonly withKeys: boolean },
  ): Promise<LeaseStatus> {
    const { withKeys, signal } = options;
    const request = { lease: lease.toString(), withKeys };
    const answer = await this.#endpoints.retry(
      (endpoint, { attemptMs }) =>
        endpoint.call({
          service: "KeyValue",
          method: "TimeToLive",
          request,
          timeoutMs: attemptMs,
          signal,
        }),
      options,
    );
    return {
      lease,
      ttlMs: Number(answer["grantedTtlMs"]),
      remainingMs: Number(answer["remainingMs"]),
      keys: (answer["keys"] as Uint8Array[]).map((key) => new Uint8Array(key)),
    };
  }
}

/** One renewal over a stream of its own. */
function renew(
  endpoint: Endpoint,
  { lease, attemptMs, signal }: {
    lease: bigint;
    attemptMs: number;
    signal: AbortSignal | undefined;
  },
): Promise<{ ttlMs: number }> {
  const { promise, resolve, reject } = Promise.withResolvers<
    { ttlMs: number }
  >();
  const { path, requestSerialize, responseDeserialize } = methodOf(
    "KeyValue",
    "KeepAlive",
  );
  const call = endpoint.client.makeBidiStreamRequest(
    path,
    requestSerialize,
    responseDeserialize,
    { deadline: Date.now() + attemptMs },
  );
  const abort = () => call.cancel();
  signal?.addEventListener("abort", abort);
  call.on("data", (answer: Record<string, unknown>) => {
    const error = answer["error"] as { code: string; message: string } | null;
    if (error) reject(wireError(error.code, error.message));
    else resolve({ ttlMs: Number(answer["ttlMs"]) });
    call.end();
  });
  call.on(
    "error",
    (status: grpc.ServiceError) => reject(endpoint.toError(status)),
  );
  call.on("end", () => reject(endpoint.toError({})));
  call.write({ lease: lease.toString() });
  return promise.finally(() => signal?.removeEventListener("abort", abort));
}

/** 63 random bits, not 0. */
function randomLease(): bigint {
  const [bits = 0n] = crypto.getRandomValues(new BigUint64Array(1));
  return (bits >> 1n) | 1n;
}
