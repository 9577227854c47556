/**
 * What a run came to: every round's numbers, medians, and ratios pair by pair; the shape of
 * `results.json`. Pure; used by `main.ts`, `tables.ts`, `bars.ts` and `charts.ts`.
 *
 * @module
 */

import {
  type Metric,
  pairRatios,
  type Sample,
  type Spread,
  spread,
} from "./statistics.ts";
import { type SystemName, SYSTEMS } from "./system.ts";

/** A machine, as far as it matters. */
export interface Machine {
  /** As it calls itself. */
  readonly processor: string;
  readonly cores: number;
  readonly memoryGib: number;
  /** `linux 6.1.0`. */
  readonly system: string;
  readonly deno: string;
  /** How long the disk takes to sync 4 KiB behind a file: the floor under every put. */
  readonly syncP50Ms: number;
  readonly syncP99Ms: number;
}

/** All that one system did of one workload: one number for each round, null for one that failed. */
export interface Row {
  readonly workload: string;
  readonly system: SystemName;
  /** True if the rate is what it is by decision; see `workloads.ts`. */
  readonly paced: boolean;
  readonly perSecond: (number | null)[];
  readonly p50Ms: (number | null)[];
  readonly p99Ms: (number | null)[];
  readonly maxMs: (number | null)[];
  /** Why the last round that failed did. */
  error?: string;
}

/** How much more of something one system has than another, in the same round. */
export interface Ratio {
  readonly workload: string;
  readonly system: SystemName;
  readonly other: SystemName;
  readonly metric: Metric;
  /** Of the rounds in which both were measured. */
  readonly rounds: number;
  readonly spread: Spread;
}

/** What is known of a system besides its numbers. */
export interface Subject {
  readonly name: SystemName;
  readonly title: string;
  /** `etcd 3.4.23`; null if it is not installed. */
  readonly version: string | null;
  /** What share of one core its three processes take while they are idle. */
  readonly idleShare: number | null;
}

/** The shape of `results.json`. */
export interface Results {
  /** ISO 8601. */
  readonly startedAt: string;
  readonly machine: Machine;
  readonly seconds: number;
  readonly rounds: number;
  readonly keys: number;
  /** True if only one system ran at a time. */
  readonly apart: boolean;
  readonly subjects: readonly Subject[];
  readonly rows: readonly Row[];
  readonly ratios: readonly Ratio[];
}

/** Those whose ratios to all others are of interest. */
const BASES: readonly SystemName[] = ["dkv", "dkv-unary"];
/** What becomes a ratio. */
const METRICS: readonly Metric[] = ["perSecond", "p50Ms", "p99Ms"];

/** Collects samples, in whatever order they come. */
export class Rows {
  readonly #rows = new Map<string, Row>();

  /** All rows, in the order in which their first samples came. */
  get all(): readonly Row[] {
    return [...this.#rows.values()];
  }

  add(
    key: {
      workload: string;
      system: SystemName;
      paced: boolean;
      round: number;
    },
    outcome: Sample | { error: string },
  ): void {
    const row = this.#row(key);
    const { round } = key;
    const sample = "error" in outcome ? null : outcome;
    if ("error" in outcome) row.error = outcome.error;
    row.perSecond[round] = rounded(sample?.perSecond);
    row.p50Ms[round] = rounded(sample?.p50Ms);
    row.p99Ms[round] = rounded(sample?.p99Ms);
    row.maxMs[round] = rounded(sample?.maxMs);
  }

  #row(
    { workload, system, paced }: {
      workload: string;
      system: SystemName;
      paced: boolean;
    },
  ): Row {
    const key = `${workload}\n${system}`;
    let row = this.#rows.get(key);
    if (row === undefined) {
      const numbers = { perSecond: [], p50Ms: [], p99Ms: [], maxMs: [] };
      row = { workload, system, paced, ...numbers };
      this.#rows.set(key, row);
    }
    return row;
  }
}

/** One sentence. */
export function machineText(machine: Machine): string {
  const { processor, cores, memoryGib, system, deno } = machine;
  return `${processor}, ${cores} cores, ${memoryGib} GiB, ${system}, ` +
    `Deno ${deno}; a sync of 4 KiB takes ${machine.syncP50Ms} ms ` +
    `(p99 ${machine.syncP99Ms} ms).`;
}

/** A row's numbers without those that are missing. */
export function numbersOf(row: Row | undefined, metric: Metric): number[] {
  return row?.[metric].filter((value) => value !== null) ?? [];
}

/** The row of a workload and a system. */
export function rowOf(
  rows: readonly Row[],
  workload: string,
  system: SystemName,
): Row | undefined {
  return rows.find((row) => row.workload === workload && row.system === system);
}

/** Every ratio there is, of pairs that were measured next to each other. */
export function ratiosOf(rows: readonly Row[]): Ratio[] {
  const ratios: Ratio[] = [];
  const workloads = new Set(rows.map(({ workload }) => workload));
  for (const workload of workloads) {
    for (const system of BASES) {
      for (const other of SYSTEMS) {
        if (other === system) continue;
        for (const metric of METRICS) {
          const ours = byRound(rowOf(rows, workload, system), metric);
          const theirs = byRound(rowOf(rows, workload, other), metric);
          const values = pairRatios(ours, theirs);
          if (values.length === 0) continue;
          ratios.push({
            workload,
            system,
            other,
            metric,
            rounds: values.length,
            spread: roundedSpread(spread(values)),
          });
        }
      }
    }
  }
  return ratios;
}

/** The ratio of two systems, if both were measured. */
export function ratioOf(
  ratios: readonly Ratio[],
  wanted: Pick<Ratio, "workload" | "system" | "other" | "metric">,
): Ratio | undefined {
  return ratios.find((ratio) =>
    ratio.workload === wanted.workload && ratio.system === wanted.system &&
    ratio.other === wanted.other && ratio.metric === wanted.metric
  );
}

function byRound(row: Row | undefined, metric: Metric): Map<number, number> {
  const values = new Map<number, number>();
  for (const [round, value] of row?.[metric].entries() ?? []) {
    // Rounds that were interrupted leave holes.
    if (value !== null && value !== undefined) values.set(round, value);
  }
  return values;
}

function roundedSpread({ min, median, max }: Spread): Spread {
  const of = (value: number) => Number(value.toPrecision(3));
  return { min: of(min), median: of(median), max: of(max) };
}

/** Four digits are more than any measurement is worth. */
function rounded(value: number | undefined): number | null {
  if (value === undefined || !Number.isFinite(value)) return null;
  return Number(value.toPrecision(4));
}
