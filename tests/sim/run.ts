/**
 * Runs seeds, and makes the run of a failing one shorter. Used by `scripts/sim.ts` and by
 * `tests/sim_test.ts`.
 *
 * @module
 */

import { LIMITS } from "../../config.ts";
import { Cluster } from "./cluster.ts";
import {
  type Fault,
  type Limits,
  type Plan,
  planOf,
  type Without,
} from "./plan.ts";

/** What a run has come to. */
export interface Outcome {
  readonly plan: Plan;
  /** Null: nothing is wrong. */
  readonly error: Error | null;
  readonly simulatedMs: number;
  readonly turns: number;
  readonly elections: number;
  readonly snapshots: number;
  readonly operations: { ok: number; failed: number; unknown: number };
  readonly faults: ReadonlyMap<string, number>;
  /** The last events. */
  readonly trace: (count: number) => string[];
}

/** Runs one seed. */
export function runSeed(seed: number, without: Without = {}): Outcome {
  const plan = planOf(seed, without);
  const cluster = new Cluster(plan);
  let error: Error | null = null;
  withLimits(plan.limits, () => {
    try {
      cluster.run();
    } catch (thrown) {
      error = thrown as Error;
    }
  });
  const { lost, duplicated, cut } = cluster.network.counts;
  return {
    plan,
    error,
    simulatedMs: cluster.clock.nowMs,
    turns: cluster.turns,
    elections: cluster.elections.count,
    snapshots: cluster.snapshots,
    operations: cluster.history.counts,
    faults: new Map<string, number>([
      ...cluster.faults.counts,
      ["messages lost", lost],
      ["messages duplicated", duplicated],
      ["messages cut off", cut],
    ]),
    trace: (count) => cluster.trace.last(count),
  };
}

/** Runs something under smaller bounds than the product's. */
function withLimits(changes: Limits, run: () => void): void {
  const limits = LIMITS as Record<string, number>;
  const before = { ...limits };
  Object.assign(limits, changes);
  try {
    run();
  } finally {
    Object.assign(limits, before);
  }
}

/** Takes away from a failing run what it does not need to fail. */
export function shorten(seed: number, without: Without = {}): Without {
  let shortest = without;
  const tryWithout = (more: Without): boolean => {
    const next = { ...shortest, ...more };
    if (runSeed(seed, next).error === null) return false;
    shortest = next;
    return true;
  };
  const failed = runSeed(seed, without);
  const safetyMs = Math.min(failed.plan.safetyMs, failed.simulatedMs);
  tryWithout({ safetyMs });
  for (const fault of failed.plan.faults.keys()) {
    const faults: Fault[] = [...shortest.faults ?? [], fault];
    tryWithout({ faults });
  }
  tryWithout({ noise: true });
  tryWithout({ watches: 0 });
  for (let clients = 1; clients < failed.plan.clients; clients++) {
    if (tryWithout({ clients })) break;
  }
  return shortest;
}

/** The command that runs a seed again. */
export function commandFor(seed: number, without: Without = {}): string {
  const { faults = [], clients, watches, safetyMs, noise } = without;
  return [
    `deno task sim --seed ${seed}`,
    ...faults.length > 0 ? [`--without ${faults.join(",")}`] : [],
    ...clients !== undefined ? [`--clients ${clients}`] : [],
    ...watches !== undefined ? [`--watches ${watches}`] : [],
    ...safetyMs !== undefined ? [`--safety-ms ${safetyMs}`] : [],
    ...noise ? ["--no-noise"] : [],
  ].join(" ");
}
