/**
 * `deno task bench`: dkv beside what people would pick instead, measured in turn by one client
 * process. What it measures, and how, stands in README.md.
 *
 * @module
 */

import { chartOf } from "./charts.ts";
import type { Cleanup } from "./cleanup.ts";
import { startDkv } from "./dkv.ts";
import { startEtcd } from "./etcd.ts";
import { pause } from "./load.ts";
import { describeMachine } from "./machine.ts";
import { BENCH_USAGE, type BenchOptions, benchOptions } from "./options.ts";
import {
  chosen,
  durationMs,
  QUIET_MS,
  rotated,
  roundOf,
  type Step,
  stepsOf,
  warmMsOf,
} from "./plan.ts";
import { save, section } from "./output.ts";
import { startRedis } from "./redis.ts";
import {
  machineText,
  ratiosOf,
  type Results,
  Rows,
  type Subject,
} from "./results.ts";
import type { Sample } from "./statistics.ts";
import { numberText } from "./svg.ts";
import {
  type Deployment,
  type System,
  type SystemName,
  TITLES,
} from "./system.ts";
import { markdownOf, plainOf } from "./tables.ts";
import { idleShares } from "./usage.ts";
import { type Context, preload, type Workload } from "./workloads.ts";
import { runTask } from "./task.ts";

const IDLE_MS = 2000;
/** The end of a long error says nothing new. */
const ERROR_CHARACTERS_MAX = 160;

/** Null if it is not installed. */
type Start = () => Promise<Deployment | null>;

/** Which systems come with which processes. */
const STARTS: readonly {
  readonly names: readonly SystemName[];
  readonly start: Start;
}[] = [
  { names: ["dkv", "dkv-unary"], start: startDkv },
  { names: ["etcd", "etcd-txn"], start: startEtcd },
  { names: ["redis", "redis-wait"], start: startRedis },
];

/** Which systems come with which processes, as far as they were asked for. */
type Wanted = { readonly names: SystemName[]; readonly start: Start };

async function bench(
  options: BenchOptions,
  cleanup: Cleanup,
): Promise<number> {
  const startedAt = new Date().toISOString();
  const machine = await describeMachine();
  console.log(machineText(machine));
  const wanted = STARTS.map(({ names, start }): Wanted => ({
    names: names.filter((name) => options.only.includes(name)),
    start,
  })).filter(({ names }) => names.length > 0);
  const rows = new Rows();
  const subjects = options.apart
    ? await runApart(wanted, { options, cleanup, rows })
    : await runTogether(wanted, { options, cleanup, rows });
  await report({
    startedAt,
    machine,
    seconds: options.forMs / 1000,
    rounds: options.rounds,
    keys: options.keys,
    apart: options.apart,
    subjects,
    rows: rows.all,
    ratios: ratiosOf(rows.all),
  }, options.out);
  return 0;
}

/** Prints and writes what was found. */
async function report(results: Results, out: string): Promise<void> {
  console.log(`\n${plainOf(results)}`);
  const content = markdownOf(results);
  const files = {
    "results.json": `${JSON.stringify(results, null, 2)}\n`,
    "chart.svg": chartOf(results),
    ...await section(out, { name: "results", content }),
  };
  await save(out, files);
  console.log(`written: ${Object.keys(files).join(", ")} in ${out}`);
}

/** What a run needs besides systems. */
interface Setting {
  readonly options: BenchOptions;
  readonly cleanup: Cleanup;
  readonly rows: Rows;
}

/** All systems run all the time, so that those that are compared are measured within seconds. */
async function runTogether(
  wanted: readonly Wanted[],
  { options, cleanup, rows }: Setting,
): Promise<Subject[]> {
  const found: (Deployment | null)[] = [];
  for (const { names, start } of wanted) {
    const deployment = await cleanup.own(start);
    found.push(deployment);
    if (deployment === null) tellMissing(names);
  }
  const deployments = found.filter((deployment) => deployment !== null);
  const shares = await idleSharesOf(deployments);
  const steps = stepsOf(chosen(deployments, options.only), options);
  tellDuration(steps.length, { options, starts: deployments.length });
  for (const { bulk } of deployments) await preload(bulk, options.keys);
  await measureAll(rows, { options, steps });
  return wanted.flatMap(({ names }, at) => {
    const deployment = found[at] ?? null;
    const idleShare = deployment === null
      ? null
      : shares.get(deployment) ?? null;
    return subjectsOf(names, { deployment, idleShare });
  });
}

/** Each system runs alone: nothing of the others disturbs it, but the clock goes on meanwhile. */
async function runApart(
  wanted: readonly Wanted[],
  { options, cleanup, rows }: Setting,
): Promise<Subject[]> {
  const { rounds, only, workloads, keys } = options;
  const subjects = new Map<SystemName, Subject>();
  for (let round = 0; round < rounds; round++) {
    for (const { names, start } of rotated(wanted, round)) {
      await cleanup.within(async (inner) => {
        const deployment = await inner.own(start);
        const about = { deployment, idleShare: null };
        for (const subject of subjectsOf(names, about)) {
          subjects.set(subject.name, subject);
        }
        if (deployment === null) return round === 0 && tellMissing(names);
        const systems = chosen([deployment], only);
        const steps = roundOf(systems, { workloads, round });
        if (round === 0) {
          console.log(deployment.version);
          tellDuration(rounds * steps.length, { options, starts: rounds });
        }
        await preload(deployment.bulk, keys);
        await measureAll(rows, { options, steps });
      });
    }
  }
  return [...subjects.values()];
}

function subjectsOf(
  names: readonly SystemName[],
  { deployment, idleShare }: {
    deployment: Deployment | null;
    idleShare: number | null;
  },
): Subject[] {
  const version = deployment?.version ?? null;
  return names.map((name) => ({
    name,
    title: TITLES[name],
    version,
    idleShare,
  }));
}

function tellMissing(names: readonly SystemName[]): void {
  for (const name of names) console.log(`${TITLES[name]}: not installed`);
}

function tellDuration(
  steps: number,
  about: { options: BenchOptions; starts: number },
): void {
  const minutes = numberText(durationMs(steps, about) / 60_000);
  console.log(`${steps} measurements, about ${minutes} min`);
}

/** What running systems take while nobody asks them for anything. */
async function idleSharesOf(
  deployments: readonly Deployment[],
): Promise<Map<Deployment, number>> {
  const shares = new Map<Deployment, number>();
  // Alone it disturbs nobody.
  if (deployments.length < 2) return shares;
  const all = await idleShares(deployments.map(({ pids }) => pids), IDLE_MS);
  for (const [at, deployment] of deployments.entries()) {
    const share = Number((all[at] ?? NaN).toPrecision(2));
    if (Number.isNaN(share)) continue;
    shares.set(deployment, share);
    const percent = numberText(100 * share);
    console.log(
      `${deployment.version}: idle it takes ${percent} % of one core`,
    );
  }
  return shares;
}

async function measureAll(
  rows: Rows,
  { options, steps }: {
    options: BenchOptions;
    steps: readonly Step[];
  },
): Promise<void> {
  const { forMs, keys, rounds } = options;
  let rates = new Map<SystemName, number>();
  let line = "";
  for (const [at, { round, workload, system }] of steps.entries()) {
    const before = steps[at - 1];
    if (before?.round !== round) rates = new Map();
    if (before?.workload !== workload || before.round !== round) {
      if (line !== "") console.log(line);
      line = `${round + 1}/${rounds} ${workload.name.padEnd(20)}`;
    }
    await pause(QUIET_MS);
    const seed = round + 1;
    const context = { keys, forMs, warmMs: warmMsOf(forMs), seed, rates };
    const outcome = await measure(system, { workload, context });
    const { name } = system;
    const { paced } = workload;
    rows.add({ workload: workload.name, system: name, paced, round }, outcome);
    line += `  ${name} ${outcomeText(outcome, paced)}`;
  }
  if (line !== "") console.log(line);
}

/** One system that fails at one thing does not end the run. */
async function measure(
  system: System,
  { workload, context }: { workload: Workload; context: Context },
): Promise<Sample | { error: string }> {
  try {
    await system.prepare?.();
    return await workload.measure(system, context);
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    const [line = ""] = text.split("\n");
    return { error: line.slice(0, ERROR_CHARACTERS_MAX) };
  }
}

function outcomeText(
  outcome: Sample | { error: string },
  paced: boolean,
): string {
  if ("error" in outcome) return `failed (${outcome.error})`;
  return paced
    ? `${numberText(outcome.p99Ms)} ms`
    : `${numberText(outcome.perSecond)}/s`;
}

Deno.exit(
  await runTask({ usage: BENCH_USAGE, optionsOf: benchOptions, run: bench }),
);
