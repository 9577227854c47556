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
const START_MS = 9000;
const PRELOAD_MS_PER_KEY = 0.2;

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
  const steps: Step[] = [];
  for (let round = 0; round < rounds; round++) {
    const first = round % Math.max(1, systems.length);
    const turn = [...systems.slice(first), ...systems.slice(0, first)];
    for (const workload of workloads) {
      for (const system of turn) {
        if (workload.can(system)) steps.push({ round, workload, system });
      }
    }
  }
  return steps;
}

/** How long a run will take, roughly. */
export function durationMs(
  steps: readonly Step[],
  { forMs, keys }: Pick<BenchOptions, "forMs" | "keys">,
): number {
  const each = warmMsOf(forMs) + forMs + QUIET_MS;
  return START_MS + PRELOAD_MS_PER_KEY * keys + steps.length * each;
}

/** The clients of running systems that were asked for. */
export function chosen(
  deployments: readonly Deployment[],
  only: readonly SystemName[],
): System[] {
  return deployments.flatMap(({ systems }) => systems)
    .filter(({ name }) => only.includes(name));
}
