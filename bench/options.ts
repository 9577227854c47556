/**
 * What the command lines of `deno task bench` and `deno task bench:growth` say. Pure; used by
 * `main.ts` and `growth.ts`.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { type SystemName, SYSTEMS } from "./system.ts";
import { type Workload, WORKLOADS, workloadsLike } from "./workloads.ts";

/** Of `deno task bench`. */
export interface BenchOptions {
  readonly only: readonly SystemName[];
  readonly workloads: readonly Workload[];
  readonly forMs: number;
  readonly rounds: number;
  readonly keys: number;
  /** Only one system runs at a time, started anew in each round. */
  readonly apart: boolean;
  /** Where results, chart and table go; relative to the checkout. */
  readonly out: string;
}

/** Of `deno task bench:growth`. */
export interface GrowthOptions {
  /** Numbers of keys, ascending. */
  readonly sizes: readonly number[];
  readonly parts: readonly GrowthPart[];
  readonly forMs: number;
  readonly out: string;
}

/** What can grow. */
export const GROWTH_PARTS = ["keys", "nodes", "values", "watchers"] as const;

/** One of {@linkcode GROWTH_PARTS}. */
export type GrowthPart = typeof GROWTH_PARTS[number];

/** The command line is not understood; the message says why. */
export class BadOption extends Error {}

export const BENCH_USAGE = `Usage: deno task bench [-- OPTIONS]

  --seconds S        how long each measurement takes (1.25)
  --rounds N         how often each is repeated, systems taking turns (5)
  --only A,B         these systems: ${SYSTEMS.join(", ")}
  --workloads A,B    these workloads, * for anything: "put *,get 256"
  --keys N           size of the key space (100000)
  --out DIR          where results.json, chart.svg and the table go
                     (bench; .tmp/bench unless everything is measured)
  --apart            one system runs at a time, started anew in each round
  --quick            one short round on fewer keys, under 90 s`;

export const GROWTH_USAGE = `Usage: deno task bench:growth [-- OPTIONS]

  --sizes A,B        numbers of keys (10000,100000,1000000)
  --parts A,B        of ${GROWTH_PARTS.join(", ")}; default: all
  --seconds S        how long each measurement takes (2)
  --out DIR          where growth.json, charts and the table go
                     (bench; .tmp/bench unless everything is measured)`;

/** Where a run leaves its results if it is not a whole one. */
const PARTIAL_OUT = ".tmp/bench";
const WHOLE_OUT = "bench";
const SECONDS_MAX = 600;
const ROUNDS_MAX = 1000;
const KEYS_MAX = 10_000_000;

/** Null if help was asked for. @throws {BadOption} */
export function benchOptions(args: readonly string[]): BenchOptions | null {
  const given = parse(
    args,
    ["seconds", "rounds", "only", "workloads", "keys", "out"],
    ["quick", "apart"],
  );
  if (given === null) return null;
  const { quick, apart } = given;
  const seconds = numberOf(given, "seconds", SECONDS_MAX);
  const rounds = numberOf(given, "rounds", ROUNDS_MAX);
  const keys = numberOf(given, "keys", KEYS_MAX);
  const only = given.only === undefined
    ? SYSTEMS
    : namesOf(given.only, SYSTEMS, "system");
  const workloads = given.workloads === undefined
    ? WORKLOADS
    : workloadsLike(given.workloads.split(","));
  if (workloads.length === 0) {
    const known = WORKLOADS.map(({ name }) => name).join(", ");
    throw new BadOption(`--workloads: none is like that. There are: ${known}`);
  }
  // The key space must exceed what is in flight: keys of a transaction differ.
  if (keys !== undefined && keys < 1024) {
    throw new BadOption(`--keys: ${keys}, at least 1024`);
  }
  const isPartial = quick || only.length < SYSTEMS.length ||
    workloads.length < WORKLOADS.length;
  return {
    only,
    workloads,
    forMs: 1000 * (seconds ?? (quick ? 0.3 : 1.25)),
    rounds: Math.ceil(rounds ?? (quick ? 1 : 5)),
    keys: Math.ceil(keys ?? (quick ? 10_000 : 100_000)),
    apart,
    out: given.out ?? (isPartial ? PARTIAL_OUT : WHOLE_OUT),
  };
}

/** Null if help was asked for. @throws {BadOption} */
export function growthOptions(args: readonly string[]): GrowthOptions | null {
  const given = parse(args, ["sizes", "parts", "seconds", "out"], []);
  if (given === null) return null;
  const sizes = (given.sizes ?? "10000,100000,1000000").split(",").map(Number)
    .sort((a, b) => a - b);
  for (const size of sizes) {
    if (Number.isSafeInteger(size) && size >= 1024 && size <= KEYS_MAX) {
      continue;
    }
    throw new BadOption(
      `--sizes takes numbers from 1024 to ${KEYS_MAX}, not ${given.sizes}`,
    );
  }
  const parts = given.parts === undefined
    ? GROWTH_PARTS
    : namesOf(given.parts, GROWTH_PARTS, "part");
  const isPartial = given.sizes !== undefined ||
    parts.length < GROWTH_PARTS.length;
  return {
    sizes,
    parts,
    forMs: 1000 * (numberOf(given, "seconds", SECONDS_MAX) ?? 2),
    out: given.out ?? (isPartial ? PARTIAL_OUT : WHOLE_OUT),
  };
}

function parse<Name extends string, Flag extends string>(
  args: readonly string[],
  names: readonly Name[],
  flags: readonly Flag[],
):
  | (
    & { readonly [N in Name]?: string | undefined }
    & { readonly [F in Flag]: boolean }
  )
  | null {
  let unknown = "";
  const given = parseArgs([...args], {
    string: [...names],
    boolean: [...flags, "help"],
    alias: { help: "h" },
    unknown: (arg) => {
      unknown ||= arg;
      return false;
    },
  });
  if (given.help) return null;
  if (unknown !== "") throw new BadOption(`Unknown option: ${unknown}`);
  return given as unknown as
    & { readonly [N in Name]?: string | undefined }
    & { readonly [F in Flag]: boolean };
}

function numberOf<Name extends string>(
  given: { readonly [N in Name]?: string | undefined },
  name: Name,
  max: number,
): number | undefined {
  const text = given[name];
  if (text === undefined) return undefined;
  const value = Number(text);
  if (text !== "" && value > 0 && value <= max) return value;
  throw new BadOption(`--${name} takes a number up to ${max}, not "${text}"`);
}

function namesOf<Name extends string>(
  text: string,
  known: readonly Name[],
  what: string,
): Name[] {
  const wanted = text.split(",").map((name) => name.trim());
  const strange = wanted.find((name) => !known.includes(name as Name));
  if (strange !== undefined) {
    throw new BadOption(
      `No ${what} is called "${strange}". There are: ${known.join(", ")}`,
    );
  }
  return known.filter((name) => wanted.includes(name));
}
