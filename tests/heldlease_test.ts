/**
 * A lease that a program holds, on a cluster that answers as it is told to.
 *
 * @module
 */

import { assertEquals, assertRejects } from "@std/assert";
import { Candidacy, type HoldingStore } from "../candidacy.ts";
import { DkvError, OutcomeUnknownError } from "../errors.ts";
import { Lease } from "../heldlease.ts";

/** A lease whose revocations come to these, one after the other; null is success. */
function leaseOf(
  outcomes: (DkvError | null)[],
  { ttlMs = 10_000 } = {},
): Lease {
  return new Lease({
    keepAlive: () => Promise.reject(new DkvError("UNREACHABLE", "away")),
    revoke: () => {
      const outcome = outcomes.shift();
      if (outcome === undefined) throw new Error("one too many");
      return outcome === null ? Promise.resolve() : Promise.reject(outcome);
    },
    ended: () => {},
  }, { id: 1n, ttlMs, sentMs: performance.now() });
}

Deno.test("heldlease: what could not be given back can be tried again", async () => {
  const outcomes = [new DkvError("UNREACHABLE", "away"), null];
  const lease = leaseOf(outcomes);
  await assertRejects(() => lease.revoke(), DkvError, "away");
  await lease.revoke();
  await lease.revoke();
  assertEquals(outcomes, []);
});

Deno.test("heldlease: one that has ended meanwhile is given back", async () => {
  const outcomes = [new DkvError("LEASE_NOT_FOUND", "ended")];
  const lease = leaseOf(outcomes);
  await lease.revoke();
  await lease.revoke();
  assertEquals(outcomes, []);
});

Deno.test("heldlease: who enters a queue and loses the lease hears of the loss", async () => {
  const lease = leaseOf([], { ttlMs: 20 });
  const store: Pick<HoldingStore, "lease" | "transact"> = {
    lease: () => Promise.resolve(lease),
    transact: (_, { signal } = {}) => {
      const { promise, reject } = Promise.withResolvers<never>();
      signal?.addEventListener(
        "abort",
        () => reject(new OutcomeUnknownError(signal.reason)),
      );
      return promise;
    },
  };
  const lost = await assertRejects(
    () => Candidacy.win(store as HoldingStore, { name: "q", value: "" }),
    DkvError,
  );
  assertEquals(lost.code, "LEASE_NOT_FOUND");
});
