/**
 * What dkv wants to reach beside others, and whether a run reached it. Pure; used by `tables.ts`.
 *
 * @module
 */

import { type Ratio, ratioOf, type Results } from "./results.ts";
import type { Metric } from "./statistics.ts";
import type { SystemName } from "./system.ts";

/** A bound on a ratio. */
export interface Bar {
  readonly workload: string;
  readonly system: SystemName;
  readonly other: SystemName;
  readonly metric: Metric;
  /** The ratio's median must not be below… */
  readonly atLeast?: number;
  /** …or above this. */
  readonly atMost?: number;
}

/** A bar, and what a run says to it. */
export interface Verdict {
  readonly bar: Bar;
  /** Missing if one of both was not measured. */
  readonly ratio?: Ratio;
  readonly met: boolean | null;
}

/** All of them. */
export const BARS: readonly Bar[] = [
  rate("put 64", "etcd", 6),
  rate("put 256", "etcd", 8),
  rate("put 1024", "etcd", 10),
  rate("put 64", "etcd-txn", 1.5),
  rate("put 256", "etcd-txn", 1.5),
  rate("put 1024", "etcd-txn", 1.5),
  latency("put 1", { metric: "p50Ms", atMost: 0.9 }),
  latency("put 256", { metric: "p99Ms", atMost: 1 }),
  rate("get 256", "etcd", 8),
  ...["put 64", "put 256", "get 64", "get 256"].map((workload) => ({
    ...rate(workload, "etcd", 1),
    system: "dkv-unary" as const,
  })),
  rate("put 256", "redis", 0.5),
];

/** Looks at each bar. */
export function verdictsOf({ ratios }: Pick<Results, "ratios">): Verdict[] {
  return BARS.map((bar) => {
    const ratio = ratioOf(ratios, bar);
    if (ratio === undefined) return { bar, met: null };
    const { median } = ratio.spread;
    const { atLeast = -Infinity, atMost = Infinity } = bar;
    return { bar, ratio, met: median >= atLeast && median <= atMost };
  });
}

function rate(workload: string, other: SystemName, atLeast: number): Bar {
  return { workload, system: "dkv", other, metric: "perSecond", atLeast };
}

function latency(
  workload: string,
  { metric, atMost }: { metric: Metric; atMost: number },
): Bar {
  return { workload, system: "dkv", other: "etcd", metric, atMost };
}
