/**
 * Runs the simulator: `deno task sim` explores, `deno task sim --seed N` repeats one run.
 *
 * ```text
 *   --seed N          the first seed; a random one if absent, and then it is printed
 *   --seeds M         how many seeds; 1 with --seed, otherwise until --seconds have passed
 *   --seconds S       stop after so long; 60 unless --seeds is given
 *   --failures F      stop after so many failing seeds; 1 unless given
 *   --trace L         how many of the last events to print of a failing run; 60 unless given
 *   --without A,B     without these kinds of faults     --no-noise   without loss, duplicates, reordering
 *   --clients C  --watches W  --safety-ms MS            smaller runs
 *   --no-shorten      do not look for a shorter run of a failing seed
 * ```
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { taskArgs } from "../launch.ts";
import { type Fault, FAULTS, type Without } from "../tests/sim/plan.ts";
import {
  commandFor,
  type Outcome,
  runSeed,
  shorten,
} from "../tests/sim/run.ts";

const args = parseArgs([...taskArgs(Deno.args)], {
  string: [
    "seed",
    "seeds",
    "seconds",
    "failures",
    "trace",
    "without",
    "clients",
    "watches",
    "safety-ms",
  ],
  boolean: ["no-noise", "no-shorten"],
});

const totals = {
  seeds: 0,
  failures: 0,
  simulatedMs: 0,
  turns: 0,
  elections: 0,
  snapshots: 0,
  operations: { ok: 0, failed: 0, unknown: 0 },
  faults: new Map<string, number>(),
};

/** The number that an option was given, or something else. */
function number(name: keyof typeof args, otherwise: number): number {
  const text = args[name];
  if (text === undefined) return otherwise;
  const value = Number(text);
  if (Number.isInteger(value)) return value;
  console.error(`--${name} is not a whole number: ${text}`);
  Deno.exit(2);
}

function withoutFromArgs(): Without {
  const names = String(args["without"] ?? "").split(",").filter((name) =>
    name !== ""
  );
  const faults = names.map((name): Fault => {
    const fault = FAULTS.find((known) => known === name);
    if (fault !== undefined) return fault;
    console.error(`No such fault: ${name}. There are ${FAULTS.join(", ")}`);
    Deno.exit(2);
  });
  return {
    ...faults.length > 0 ? { faults } : {},
    ...args["no-noise"] ? { noise: true } : {},
    ...args["clients"] !== undefined ? { clients: number("clients", 1) } : {},
    ...args["watches"] !== undefined ? { watches: number("watches", 0) } : {},
    ...args["safety-ms"] !== undefined
      ? { safetyMs: number("safety-ms", 1000) }
      : {},
  };
}

function add(outcome: Outcome): void {
  totals.seeds++;
  totals.simulatedMs += outcome.simulatedMs;
  totals.turns += outcome.turns;
  totals.elections += outcome.elections;
  totals.snapshots += outcome.snapshots;
  for (const kind of ["ok", "failed", "unknown"] as const) {
    totals.operations[kind] += outcome.operations[kind];
  }
  for (const [fault, count] of outcome.faults) {
    totals.faults.set(fault, (totals.faults.get(fault) ?? 0) + count);
  }
}

function report(outcome: Outcome, without: Without): void {
  totals.failures++;
  const { plan: { seed }, error, simulatedMs } = outcome;
  console.log(
    `\nseed ${seed} fails after ${simulatedMs} ms: ${error?.message}`,
  );
  if (error?.name !== "Violation") console.log(error?.stack);
  console.log(`again:   ${commandFor(seed, without)}`);
  if (args["no-shorten"]) return print(outcome);
  const shorter = shorten(seed, without);
  console.log(`shorter: ${commandFor(seed, shorter)}`);
  const again = runSeed(seed, shorter);
  console.log(`         ${again.error?.message}`);
  print(again);
}

function print(outcome: Outcome): void {
  for (const line of outcome.trace(number("trace", 60))) console.log(line);
}

function summary(realMs: number): void {
  const { simulatedMs, operations, faults } = totals;
  console.log(
    `\n${totals.seeds} seeds, ${totals.failures} failures, ` +
      `${(simulatedMs / 3_600_000).toFixed(2)} simulated hours in ` +
      `${(realMs / 1000).toFixed(0)} s (${
        (simulatedMs / realMs).toFixed(0)
      } times real time)`,
  );
  console.log(
    `operations: ${operations.ok} ok, ${operations.failed} failed, ` +
      `${operations.unknown} unknown; ${totals.turns} turns, ${totals.elections} leaders, ` +
      `${totals.snapshots} snapshots`,
  );
  const kinds = [...faults].sort(([a], [b]) => a < b ? -1 : 1);
  console.log(
    `faults: ${kinds.map(([name, count]) => `${name} ${count}`).join(", ")}`,
  );
}

const isOne = args["seed"] !== undefined;
const first = number(
  "seed",
  crypto.getRandomValues(new Uint32Array(1))[0]! & 0x3fffffff,
);
const seeds = number("seeds", isOne ? 1 : Infinity);
const untilMs = number("seconds", seeds === Infinity ? 60 : 1_000_000) * 1000;
const failuresMax = number("failures", 1);
const without = withoutFromArgs();
const startMs = performance.now();
console.log(`first seed: ${first}`);
for (
  let seed = first;
  seed < first + seeds && performance.now() - startMs < untilMs &&
  totals.failures < failuresMax;
  seed++
) {
  const outcome = runSeed(seed, without);
  add(outcome);
  if (outcome.error !== null) report(outcome, without);
}
summary(performance.now() - startMs);
if (totals.failures > 0) Deno.exit(1);
