/**
 * Leases never end before their time, measured by true time and allowing for the fastest clock.
 * Used by `cluster.ts`.
 *
 * @module
 */

import type { Clock } from "../clock.ts";
import type { Applied, Expiry, Oracle } from "../oracle.ts";
import { must } from "../violation.ts";

/** A tick that comes late and with the next one. */
const SLACK_TICKS = 1;
/** As in `machine.ts`. */
const CATCH_UP_TICKS_MAX = 2;

interface Held {
  readonly ttlMs: number;
  /** The last renewal was asked for at this time. */
  renewedMs: number;
}

/** Who renewed what when. */
export class LeaseTimes {
  readonly #clock: Clock;
  readonly #oracle: Oracle;
  readonly #options: { fastestPerMille: number; tickMs: number };
  /** When each write was first asked for, by client and sequence. */
  readonly #calls = new Map<string, number>();
  readonly #leases = new Map<bigint, Held>();
  /** When a clock jumped, any machine's. */
  readonly #jumps: number[] = [];

  constructor(
    { clock, oracle }: { clock: Clock; oracle: Oracle },
    options: { fastestPerMille: number; tickMs: number },
  ) {
    this.#clock = clock;
    this.#oracle = oracle;
    this.#options = options;
  }

  /** A clock jumps ahead: its machine takes that for a few ticks, since nobody can know better. */
  jumped(): void {
    this.#jumps.push(this.#clock.nowMs);
  }

  /** A client asks for something for the first time. */
  called(client: string, sequence: number): void {
    this.#calls.set(`${client}/${sequence}`, this.#clock.nowMs);
  }

  /** A command was committed. */
  applied({ command: { request, writeId }, result, isChange }: Applied): void {
    if (!isChange || writeId === null || result.type !== "lease") return;
    const callMs = this.#calls.get(`${writeId.client}/${writeId.sequence}`);
    const { lease, ttlMs } = result;
    if (callMs === undefined) return;
    if (request.type === "grant") {
      this.#leases.set(lease, { ttlMs, renewedMs: callMs });
    } else if (request.type === "keepAlive") {
      const held = this.#leases.get(lease)!;
      held.renewedMs = Math.max(held.renewedMs, callMs);
    }
  }

  /** A lease ran out. */
  expired({ lease }: Expiry): void {
    const held = this.#leases.get(lease);
    if (held === undefined) return;
    this.#leases.delete(lease);
    const { fastestPerMille, tickMs } = this.#options;
    const lastedMs = this.#clock.nowMs - held.renewedMs;
    const jumps = this.#jumps.filter((atMs) => atMs >= held.renewedMs).length;
    const slackTicks = SLACK_TICKS + jumps * CATCH_UP_TICKS_MAX;
    const leastMs = Math.floor(held.ttlMs * 1000 / fastestPerMille) -
      slackTicks * tickMs;
    must(
      lastedMs >= leastMs,
      "leases last",
      () =>
        `lease ${lease} of ${held.ttlMs} ms ended ${lastedMs} ms after it was asked for, ` +
        `at index ${this.#oracle.index}`,
    );
  }
}
