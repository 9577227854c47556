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

/** After a turn. */
export function checkBounds(machine: Machine, clients: number): void {
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
    // Far below what is allowed: what is settled must also be let go.
    ["calls", pending.proposals + pending.queries, CALLS_PER_CLIENT * clients],
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
