/**
 * What one seed does: the size of the cluster, its clients, and its own subset of faults with its own
 * rates (swarm testing: a run with every fault at once reaches less than many runs with a few each).
 * Used by `cluster.ts`.
 *
 * @module
 */

import type { Settings } from "../../config.ts";
import type { ClientPlan } from "./clients.ts";
import type { NetworkPlan } from "./network.ts";
import { Random } from "./random.ts";

/** Everything that can go wrong beside the network's own loss, delay and duplication. */
export const FAULTS = [
  "crash",
  "crashSome",
  "crashAll",
  "crashInCommit",
  "failedCommit",
  "pause",
  "suspend",
  "partition",
  "oneWay",
  "clog",
  "slowDisk",
  "fullDisk",
  "damage",
  "wipe",
  "clockJump",
  "membership",
  "transfer",
  "unreachable",
] as const;

export type Fault = typeof FAULTS[number];

/** How often each fault comes by default, in ms between two. */
const MEAN_MS: Record<Fault, number> = {
  crash: 3000,
  crashSome: 8000,
  crashAll: 10_000,
  crashInCommit: 3000,
  failedCommit: 6000,
  pause: 3000,
  suspend: 5000,
  partition: 4000,
  oneWay: 3000,
  clog: 2000,
  slowDisk: 5000,
  fullDisk: 6000,
  damage: 5000,
  wipe: 7000,
  clockJump: 3000,
  membership: 3000,
  transfer: 2000,
  unreachable: 1000,
};

/** The bounds of config.ts that a run may change. */
export type Limits = {
  readonly [Name in (typeof LIMIT_NAMES)[number]]?: number;
};

const LIMIT_NAMES = [
  "appendBytesMax",
  "applyBytesMax",
  "batchBytesMax",
  "inflightMessagesMax",
  "inflightBytesMax",
  "uncommittedBytesMax",
  "watchSliceBytes",
] as const;

/** A run. */
export interface Plan {
  readonly seed: number;
  readonly machines: number;
  /** The first so many of them form the cluster at first. */
  readonly founders: number;
  readonly safetyMs: number;
  readonly settings: Partial<Settings>;
  /** Bounds of the product that are made small, so that they are met. */
  readonly limits: Limits;
  /** By machine; 1000 is right. */
  readonly clockRates: readonly number[];
  readonly network: NetworkPlan;
  readonly clients: number;
  /** Clients of Deno KV, beside the others. */
  readonly kvClients: number;
  readonly watches: number;
  readonly client: ClientPlan;
  /** Mean time between two of a kind; absent: never. */
  readonly faults: ReadonlyMap<Fault, number>;
}

/** What a person, or the search for a shorter run, takes away from a plan. */
export interface Without {
  readonly faults?: readonly Fault[];
  readonly clients?: number;
  readonly watches?: number;
  readonly safetyMs?: number;
  /** No loss, no duplicates, messages in order. */
  readonly noise?: boolean;
}

/** Draws a plan; what is taken away does not change the rest. */
export function planOf(seed: number, without: Without = {}): Plan {
  const random = new Random(seed, "plan");
  const founders = random.pick([1, 2, 3, 3, 3, 3, 3, 4, 5, 5, 5, 7]);
  const machines = Math.min(7, founders + random.pick([0, 0, 0, 1, 2]));
  const safetyMs = random.pick([4000, 8000, 8000, 15_000, 30_000]);
  const isSkewed = random.chance(300);
  const clockRates = Array.from(
    { length: machines },
    () => isSkewed ? random.between(950, 1050) : 1000,
  );
  const network = drawNetwork(random);
  const client = {
    thinkMsMax: random.pick([10, 50, 50, 200]),
    keys: random.between(1, 6),
    lostAnswers: random.pick([0, 0, 20, 100]),
    doubledWrites: random.pick([0, 0, 50, 300]),
    timeoutMs: random.pick([500, 2000, 5000]),
    moves: random.pick([0, 20, 300]),
  };
  const settings = {
    catchUpEntries: random.pick([10, 20, 50, 500]),
    historyRevisionsMax: random.pick([100, 500, 1_000_000]),
    historyMs: random.pick([2000, 3_600_000]),
  };
  const limits = random.chance(500) ? {} : drawLimits(random);
  const clients = random.between(2, 6);
  const watches = random.between(0, 4);
  // A stream of its own, so that it changes no other draw.
  const kv = new Random(seed, "atomic writes");
  const kvClients = kv.pick([0, 0, 1, 3]);
  const faults = drawFaults(random, { machines, founders });
  for (const fault of without.faults ?? []) faults.delete(fault);
  return {
    seed,
    machines,
    founders,
    safetyMs: without.safetyMs ?? safetyMs,
    settings,
    limits,
    clockRates,
    network: without.noise
      ? { ...network, losses: 0, duplicates: 0, isReordering: false }
      : network,
    clients: without.clients ?? clients,
    kvClients,
    watches: without.watches ?? watches,
    client,
    faults,
  };
}

function drawLimits(random: Random): Limits {
  const limits: { [name: string]: number } = {};
  for (const name of LIMIT_NAMES) {
    if (!random.chance(400)) continue;
    limits[name] = name === "inflightMessagesMax"
      ? random.pick([1, 2, 8])
      : random.pick([1, 100, 1000]);
  }
  return limits;
}

function drawNetwork(random: Random): NetworkPlan {
  const delayMsMax = random.pick([2, 5, 30, 100, 200]);
  return {
    delayMsMin: random.below(Math.min(delayMsMax, 10)),
    delayMsMax,
    losses: random.pick([0, 0, 0, 10, 100, 300]),
    duplicates: random.pick([0, 0, 20, 200, 500]),
    isReordering: random.chance(500),
  };
}

function drawFaults(
  random: Random,
  { machines, founders }: { machines: number; founders: number },
): Map<Fault, number> {
  const share = random.pick([100, 250, 400, 600]);
  const haste = random.pick([3, 10, 10, 20]);
  const faults = new Map<Fault, number>();
  for (const fault of FAULTS) {
    const isOn = random.chance(share);
    const meanMs = Math.floor(
      MEAN_MS[fault] * haste * random.pick([3, 10, 30]) / 100,
    );
    if (!isOn) continue;
    // With one replica, or two, there is no majority of good copies left.
    if ((fault === "damage" || fault === "wipe") && founders < 3) continue;
    if (fault === "membership" && machines < 2) continue;
    faults.set(fault, meanMs);
  }
  return faults;
}
