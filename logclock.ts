/**
 * Log time, by which leases run out and history ages: what the leader counts and writes into its
 * entries. Used by `group.ts`.
 *
 * Every replica counts on from the last entry it applied, so that a new leader does not set time
 * back: else leases would live on from leader to leader. Counting from the last entry, a follower
 * whose clock is fast gains no more than it can between two entries, or leases would end early under
 * it. Without a leader time stands still, since nobody could renew a lease.
 *
 * ```text
 *   entry 7   time 1000      ticks: +50 +50 +50      entry 8   time 1180   = ticks, and since the last
 *   leader    ├────────────────┼───┼───┼───────────────┤
 *   follower       ├──── learned, counts on ─ ─ ─ ─ ─ ─ ─ ─ ─ ┤ learned
 * ```
 *
 * @module
 */

/** How a {@linkcode LogClock} counts. */
export interface LogClockOptions {
  readonly tickMs: number;
  /** Whole milliseconds since the last tick; null where there is no clock to look at. */
  readonly sinceTickMs: (() => number) | null;
}

/** Log time as one replica knows it. All times are milliseconds. */
export class LogClock {
  readonly #options: LogClockOptions;
  #timeMs = 0;
  /** Of the last entry that this replica wrote as leader, or knew of when it began to lead. */
  #writtenMs = 0;

  constructor(options: LogClockOptions) {
    this.#options = options;
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

  /** A follower has applied an entry of this time. */
  learn(timeMs: number): void {
    this.#timeMs = this.#atLastTick(timeMs);
  }

  /** Begins a new role, from a state of this time. */
  begin(timeMs: number): void {
    this.#timeMs = Math.max(this.#timeMs, this.#atLastTick(timeMs));
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
