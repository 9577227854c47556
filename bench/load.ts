/**
 * The load: loops that each await their own operation (closed), and arrivals that wait for nobody
 * (open). Used by `workloads.ts` and `growth.ts`.
 *
 * @module
 */

import { type Sample, sampleOf } from "./statistics.ts";

/** Issues operation number `n`, counted from 0, and settles when it is answered. */
export type Issue = (n: number) => Promise<unknown>;

/** Arrivals that may wait to be issued because so many are not answered: a bound on memory. */
const OUTSTANDING_MAX = 20_000;

/**
 * As many loops as operations are in flight. When one fails the others stop, and when all have
 * stopped the first error is thrown: nothing of it runs on into the next measurement.
 */
export async function closedLoop(
  issue: Issue,
  { inFlight, forMs }: { inFlight: number; forMs: number },
): Promise<Sample> {
  const latenciesMs: number[] = [];
  const startMs = performance.now();
  const endMs = startMs + forMs;
  let next = 0;
  let failure: { error: unknown } | null = null;
  const loop = async () => {
    for (let now = performance.now(); now < endMs && failure === null;) {
      try {
        await issue(next++);
      } catch (error) {
        failure ??= { error };
        return;
      }
      const after = performance.now();
      latenciesMs.push(after - now);
      now = after;
    }
  };
  await Promise.all(Array.from({ length: inFlight }, loop));
  throwFailure(failure);
  return sampleOf(latenciesMs, performance.now() - startMs);
}

/** Issues `count` operations, at most `inFlight` at a time, and returns how long that took in ms. */
export async function inBulk(
  issue: Issue,
  { count, inFlight }: { count: number; inFlight: number },
): Promise<number> {
  const startMs = performance.now();
  let next = 0;
  const loop = async () => {
    try {
      while (next < count) await issue(next++);
    } finally {
      // Either all is done, or it failed and nobody begins anything more.
      next = count;
    }
  };
  const loops = Array.from({ length: inFlight }, loop);
  const settled = await Promise.allSettled(loops);
  for (const one of settled) if (one.status === "rejected") throw one.reason;
  return performance.now() - startMs;
}

/** Arrivals at a fixed rate. */
export class Schedule {
  /** How many there are: those before the end. */
  readonly count: number;
  readonly #startMs: number;
  readonly #stepMs: number;

  constructor(
    { startMs, perSecond, forMs }: {
      startMs: number;
      perSecond: number;
      forMs: number;
    },
  ) {
    this.#startMs = startMs;
    this.#stepMs = 1000 / perSecond;
    this.count = Math.max(1, Math.floor(forMs / this.#stepMs));
  }

  /** When arrival `n`, counted from 0, is due. */
  timeOf(n: number): number {
    return this.#startMs + n * this.#stepMs;
  }

  /** How many are due at a time, that time included. */
  dueBy(nowMs: number): number {
    if (nowMs < this.#startMs) return 0;
    const passed = Math.floor((nowMs - this.#startMs) / this.#stepMs) + 1;
    return Math.min(this.count, passed);
  }
}

/**
 * Operations at a fixed rate, whether or not earlier ones were answered. A latency counts from when
 * the operation was due, so an operation that had to wait behind a stall says so; timers of the
 * system add up to a millisecond, to every system alike.
 */
export async function openLoop(
  issue: Issue,
  { perSecond, forMs }: { perSecond: number; forMs: number },
): Promise<Sample> {
  const startMs = performance.now();
  const schedule = new Schedule({ startMs, perSecond, forMs });
  const latenciesMs: number[] = [];
  const all: Promise<void>[] = [];
  let outstanding = 0;
  let failure: { error: unknown } | null = null;
  const one = async (n: number) => {
    outstanding++;
    try {
      await issue(n);
      latenciesMs.push(performance.now() - schedule.timeOf(n));
    } catch (error) {
      failure ??= { error };
    }
    outstanding--;
  };
  for (let next = 0; next < schedule.count && failure === null;) {
    const due = schedule.dueBy(performance.now());
    while (next < due && outstanding < OUTSTANDING_MAX) all.push(one(next++));
    if (next < schedule.count) {
      await pause(schedule.timeOf(next) - performance.now());
    }
  }
  await Promise.all(all);
  throwFailure(failure);
  return sampleOf(latenciesMs, performance.now() - startMs);
}

/** At least a millisecond: a timer of less would keep the processor from the nodes. */
export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, Math.max(1, ms)));
}

function throwFailure(failure: { error: unknown } | null): void {
  if (failure !== null) throw failure.error;
}
