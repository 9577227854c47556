/**
 * Nothing that is held in memory grows beyond its bound. What the core counts (appends in flight,
 * entries not committed) is in its own invariants, which are looked at after each turn as well.
 *
 * @module
 */

import { LIMITS } from "../../../config.ts";
import type { Machine } from "../machine.ts";
import { must } from "../violation.ts";

/** What clients of a run may have under way at once, beside what retries add. */
const CALLS_PER_CLIENT = 60;

/** After a turn at `nowMs`; a call waits for `timeoutMs` at most. */
export function checkBounds(
  machine: Machine,
  options: { nowMs: number; clients: number; timeoutMs: number },
): void {
  const { nowMs, clients, timeoutMs } = options;
  const { pending, store, watchers } = machine.group!;
  const { sessions, leases } = store.metrics;
  const bounds: readonly [name: string, count: number, max: number][] = [
    ["proposals", pending.proposals, LIMITS.pendingProposalsMax],
    [
      "bytes of proposals",
      pending.proposalBytes,
      LIMITS.pendingProposalBytesMax,
    ],
    ["queries", pending.queries, LIMITS.pendingReadsMax],
    // Far below what is allowed: what is settled must also be let go. A process that slept finds
    // all at once what was asked of it meanwhile, and lets go of it in time.
    [
      "calls",
      pending.proposals + pending.queries,
      nowMs < machine.pausedUntilMs + 2 * timeoutMs
        ? Infinity
        : CALLS_PER_CLIENT * clients,
    ],
    ["sessions", sessions, LIMITS.sessionsMax],
    ["leases", leases, LIMITS.leasesMax],
    ["watches", watchers.metrics.watchers, LIMITS.watchersMax],
  ];
  for (const [name, count, max] of bounds) {
    must(
      count <= max,
      "memory is bounded",
      () => `${machine.name} has ${count} ${name}, at most ${max}`,
    );
  }
}
