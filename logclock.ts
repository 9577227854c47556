/**
 * Log time, by which leases run out and history ages: what the leader counts and writes into its
 * entries. Used by `group.ts`.
 *
 * Every replica counts on from the newest entry that it received, applied or not, so that a new
 * leader neither sets time back, or leases would live on from leader to leader, nor ahead: what it
 * counted under an older leader is not the time of entries that it knows and has yet to apply.
 * Counting from the newest entry, a follower whose clock is fast gains no more than it can between
 * two entries, or leases would end early under it. Without a leader time stands still, since nobody
 * could renew a lease.
 *
 * ```text
 *   entry 7   time 1000      ticks: +50 +50 +50      entry 8   time 1180   = ticks, and since the last
 *   leader    ├────────────────┼───┼───┼───────────────┤
 *   follower       ├──── received, counts on ─ ─ ─ ─ ─ ─ ─ ─ ─ ┤ received
 * ```
 *
 * @module
 */

import { batchTimeMs } from "./batch.ts";
import type { LogStorage } from "./log.ts";
import type { Entry } from "./message.ts";
import type { StoreState } from "./rows.ts";

/** How a {@linkcode LogClock} counts. */
export interface LogClockOptions {
  /** Of the newest entry: see {@linkcode newestTimeMs}. */
  readonly timeMs: number;
  readonly tickMs: number;
  /** Whole milliseconds since the last tick; null where there is no clock to look at. */
  readonly sinceTickMs: (() => number) | null;
}

/** Log time as one replica knows it. All times are milliseconds. */
export class LogClock {
  readonly #options: LogClockOptions;
  #timeMs: number;
  /** Of the newest entry, written or received. */
  #writtenMs: number;

  constructor(options: LogClockOptions) {
    this.#options = options;
    this.#timeMs = options.timeMs;
    this.#writtenMs = options.timeMs;
  }

  /** Log time at the last tick, as far as this replica can tell. */
  get timeMs(): number {
    return this.#timeMs;
  }

  /** How far log time has gone on since it was last written into an entry. */
  get idleMs(): number {
    return this.#timeMs - this.#writtenMs;
  }

  tick({ hasLeader }: { hasLeader: boolean }): void {
    if (hasLeader) this.#timeMs += this.#options.tickMs;
  }

  /** A follower has put entries into its log. */
  received(entries: readonly Entry[]): void {
    const newest = entries.findLast(({ type }) => type === "batch");
    if (newest?.type === "batch") this.learn(batchTimeMs(newest.data));
  }

  /** The newest entry that this replica knows of has this time. */
  learn(timeMs: number): void {
    this.#timeMs = this.#atLastTick(timeMs);
    this.#writtenMs = timeMs;
  }

  /** As exact as can be: a lease that begins between two ticks must not end before its time. */
  get nextEntryMs(): number {
    return Math.max(this.#writtenMs, this.#timeMs + this.#sinceTickMs(0));
  }

  /** An entry of this time was written. */
  wrote(timeMs: number): void {
    this.#writtenMs = timeMs;
  }

  /**
   * What log time was at the last tick if it is this now. To take it for the time of the tick itself
   * would gain up to a tick with each change of leader. Where there is no clock the next tick may
   * come at once.
   */
  #atLastTick(timeMs: number): number {
    return timeMs - this.#sinceTickMs(this.#options.tickMs);
  }

  #sinceTickMs(otherwise: number): number {
    return this.#options.sinceTickMs?.() ?? otherwise;
  }
}

/** Of the newest entry of a log that carries a time, or of the state that the log continues. */
export function newestTimeMs(log: LogStorage, state: StoreState): number {
  for (let index = log.lastIndex; index > state.appliedIndex; index--) {
    const [entry] = log.entries(index, index + 1, Infinity);
    if (entry?.type === "batch") return batchTimeMs(entry.data);
  }
  return state.timeMs;
}
