/**
 * What becomes of measurements: percentiles, medians, and ratios pair by pair. Pure; used by every
 * module of `bench/` that measures or reports.
 *
 * @module
 */

/** What one measurement came to. */
export interface Sample {
  /** Operations that were finished. */
  readonly count: number;
  /** Finished operations, or deliveries, in a second. */
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

/** Which number of a sample is meant. */
export type Metric = "perSecond" | "p50Ms" | "p99Ms";

/** How far values lie apart. */
export interface Spread {
  readonly min: number;
  readonly median: number;
  readonly max: number;
}

/** Latencies of a stretch of time, in any order, and how long it was. */
export function sampleOf(
  latenciesMs: readonly number[],
  elapsedMs: number,
): Sample {
  const sorted = Float64Array.from(latenciesMs).sort();
  return {
    count: sorted.length,
    perSecond: elapsedMs > 0 ? 1000 * sorted.length / elapsedMs : 0,
    p50Ms: percentile(sorted, 0.5),
    p99Ms: percentile(sorted, 0.99),
    maxMs: percentile(sorted, 1),
  };
}

/**
 * The smallest value that a share of all values does not exceed (nearest rank). NaN if there are
 * none.
 *
 * @param sorted ascending
 */
export function percentile(sorted: ArrayLike<number>, share: number): number {
  const rank = Math.ceil(share * sorted.length);
  const at = Math.min(sorted.length, Math.max(1, rank)) - 1;
  return sorted[at] ?? NaN;
}

/** The value in the middle; of an even number the mean of both. NaN if there are none. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const high = sorted[sorted.length >> 1] ?? NaN;
  const low = sorted[(sorted.length - 1) >> 1] ?? NaN;
  return (low + high) / 2;
}

/** Smallest, middle and largest. */
export function spread(values: readonly number[]): Spread {
  return {
    min: Math.min(...values),
    median: median(values),
    max: Math.max(...values),
  };
}

/** The median of each number, over rounds. */
export function medianSample(samples: readonly Sample[]): Sample {
  const of = (pick: (sample: Sample) => number) => median(samples.map(pick));
  return {
    count: of(({ count }) => count),
    perSecond: of(({ perSecond }) => perSecond),
    p50Ms: of(({ p50Ms }) => p50Ms),
    p99Ms: of(({ p99Ms }) => p99Ms),
    maxMs: of(({ maxMs }) => maxMs),
  };
}

/**
 * One ratio for each round in which both were measured: what drifts from round to round, such as
 * the speed of the machine, drifts for both.
 *
 * @param ours by round
 */
export function pairRatios(
  ours: ReadonlyMap<number, number>,
  theirs: ReadonlyMap<number, number>,
): number[] {
  const ratios: number[] = [];
  for (const [round, our] of ours) {
    const their = theirs.get(round);
    if (their === undefined) continue;
    const ratio = our / their;
    if (Number.isFinite(ratio)) ratios.push(ratio);
  }
  return ratios;
}
