/**
 * Which measurements are made, in which order: within a round every system does a workload, one right
 * after the other, and each round begins with another system. Used by `main.ts`.
 *
 * ```text
 *   round 1   put 64: dkv etcd redis     put 256: dkv etcd redis   …
 *   round 2   put 64: etcd redis dkv     put 256: etcd redis dkv   …
 * ```
 *
 * @module
 */

import type { BenchOptions } from "./options.ts";
import type { Deployment, System, SystemName } from "./system.ts";
import type { Workload } from "./workloads.ts";

/** Nothing is asked of anybody between two measurements: what one has begun has ended by then. */
export const QUIET_MS = 100;
/** The longest warm-up before a measurement. */
const WARM_MS_MAX = 300;
/** Roughly, for the duration that is announced. */
const START_MS = 3000;
const PRELOAD_MS_PER_KEY = 0.07;

/** One measurement. */
export interface Step {
  readonly round: number;
  readonly workload: Workload;
  readonly system: System;
}

/** Before a measurement the same work is done for this long. */
export function warmMsOf(forMs: number): number {
  return Math.min(WARM_MS_MAX, forMs / 2);
}

/** All measurements, in order. */
export function stepsOf(
  systems: readonly System[],
  { workloads, rounds }: Pick<BenchOptions, "workloads" | "rounds">,
): Step[] {
  const all = Array.from({ length: rounds }, (_, at) => at);
  return all.flatMap((round) => roundOf(systems, { workloads, round }));
}

/** Those of one round, counted from 0. */
export function roundOf(
  systems: readonly System[],
  { workloads, round }: { workloads: readonly Workload[]; round: number },
): Step[] {
  const turn = rotated(systems, round);
  return workloads.flatMap((workload) =>
    turn.filter((system) => workload.can(system))
      .map((system) => ({ round, workload, system }))
  );
}

/** The same, begun somewhere else. */
export function rotated<T>(all: readonly T[], by: number): T[] {
  const first = all.length === 0 ? 0 : by % all.length;
  return [...all.slice(first), ...all.slice(0, first)];
}

/** How long a run will take, roughly; `starts` is how often something is started. */
export function durationMs(
  steps: number,
  { options: { forMs, keys }, starts }: {
    options: Pick<BenchOptions, "forMs" | "keys">;
    starts: number;
  },
): number {
  const each = warmMsOf(forMs) + forMs + QUIET_MS;
  return starts * (START_MS + PRELOAD_MS_PER_KEY * keys) + steps * each;
}

/** The clients of running systems that were asked for. */
export function chosen(
  deployments: readonly Deployment[],
  only: readonly SystemName[],
): System[] {
  return deployments.flatMap(({ systems }) => systems)
    .filter(({ name }) => only.includes(name));
}
