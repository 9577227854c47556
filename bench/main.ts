/**
 * `deno task bench`: dkv beside what people would pick instead, measured in turn by one client
 * process. What it measures, and how, stands in README.md.
 *
 * @module
 */

import { DkvError } from "../errors.ts";
import { taskArgs } from "../launch.ts";
import { chartOf } from "./charts.ts";
import { type Cleanup, withCleanup } from "./cleanup.ts";
import { startDkv } from "./dkv.ts";
import { startEtcd } from "./etcd.ts";
import { pause } from "./load.ts";
import { describeMachine } from "./machine.ts";
import {
  BadOption,
  BENCH_USAGE,
  type BenchOptions,
  benchOptions,
} from "./options.ts";
import { chosen, durationMs, QUIET_MS, stepsOf, warmMsOf } from "./plan.ts";
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
import { type Deployment, type SystemName, TITLES } from "./system.ts";
import { markdownOf, plainOf } from "./tables.ts";
import { idleShares } from "./usage.ts";
import { preload } from "./workloads.ts";

const IDLE_MS = 2000;
/** The end of a long error says nothing new. */
const ERROR_CHARACTERS_MAX = 160;

/** Which systems come with which processes. */
const STARTS: readonly {
  readonly names: readonly SystemName[];
  readonly start: () => Promise<Deployment | null>;
}[] = [
  { names: ["dkv", "dkv-unary"], start: startDkv },
  { names: ["etcd", "etcd-txn"], start: startEtcd },
  { names: ["redis", "redis-wait"], start: startRedis },
];

async function bench(
  options: BenchOptions,
  cleanup: Cleanup,
): Promise<number> {
  const startedAt = new Date().toISOString();
  const machine = await describeMachine();
  console.log(machineText(machine));
  const { deployments, subjects } = await startAll(options, cleanup);
  const systems = chosen(deployments, options.only);
  const steps = stepsOf(systems, options);
  const minutes = durationMs(steps, options) / 60_000;
  console.log(
    `${steps.length} measurements, about ${numberText(minutes)} min`,
  );
  for (const { bulk } of deployments) await preload(bulk, options.keys);
  const rows = new Rows();
  await measureAll(rows, { options, steps });
  const results: Results = {
    startedAt,
    machine,
    seconds: options.forMs / 1000,
    rounds: options.rounds,
    keys: options.keys,
    subjects,
    rows: rows.all,
    ratios: ratiosOf(rows.all),
  };
  console.log(`\n${plainOf(results)}`);
  const readme = await section(options.out, {
    name: "results",
    content: markdownOf(results),
  });
  const files = {
    "results.json": `${JSON.stringify(results, null, 2)}\n`,
    "chart.svg": chartOf(results),
    ...readme,
  };
  await save(options.out, files);
  console.log(`written: ${Object.keys(files).join(", ")} in ${options.out}`);
  return 0;
}

/** Starts what was asked for and is installed, and says what is not. */
async function startAll(
  { only }: BenchOptions,
  cleanup: Cleanup,
): Promise<{ deployments: Deployment[]; subjects: Subject[] }> {
  const wanted = STARTS.map(({ names, start }) => ({
    names: names.filter((name) => only.includes(name)),
    start,
  })).filter(({ names }) => names.length > 0);
  const deployments: Deployment[] = [];
  const found: { names: SystemName[]; deployment: Deployment | null }[] = [];
  for (const { names, start } of wanted) {
    const deployment = await cleanup.own(start);
    found.push({ names, deployment });
    if (deployment === null) {
      for (const name of names) console.log(`${TITLES[name]}: not installed`);
    } else {
      deployments.push(deployment);
    }
  }
  // Alone it disturbs nobody.
  const shares = deployments.length > 1
    ? await idleShares(deployments.map(({ pids }) => pids), IDLE_MS)
    : [];
  for (const [at, share] of shares.entries()) {
    const percent = numberText(100 * share);
    const version = deployments[at]?.version ?? "";
    console.log(`${version}: idle it takes ${percent} % of one core`);
  }
  const subjects = found.flatMap(({ names, deployment }) => {
    const share = deployment === null
      ? NaN
      : shares[deployments.indexOf(deployment)] ?? NaN;
    return names.map((name) => ({
      name,
      title: TITLES[name],
      version: deployment?.version ?? null,
      idleShare: Number.isNaN(share) ? null : Number(share.toPrecision(2)),
    }));
  });
  return { deployments, subjects };
}

async function measureAll(
  rows: Rows,
  { options, steps }: {
    options: BenchOptions;
    steps: ReturnType<typeof stepsOf>;
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
    const outcome = await workload.measure(system, context).catch(failureOf);
    const { name } = system;
    const { paced } = workload;
    rows.add({ workload: workload.name, system: name, paced, round }, outcome);
    line += `  ${name} ${outcomeText(outcome, paced)}`;
  }
  if (line !== "") console.log(line);
}

/** One system that fails at one thing does not end the run. */
function failureOf(error: unknown): { error: string } {
  const text = error instanceof Error ? error.message : String(error);
  const [line = ""] = text.split("\n");
  return { error: line.slice(0, ERROR_CHARACTERS_MAX) };
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

async function main(): Promise<number> {
  try {
    const options = benchOptions(taskArgs(Deno.args));
    if (options === null) {
      console.log(BENCH_USAGE);
      return 0;
    }
    return await withCleanup((cleanup) => bench(options, cleanup));
  } catch (error) {
    if (error instanceof BadOption) {
      console.error(`${error.message}\n\n${BENCH_USAGE}`);
      return 2;
    }
    // What a person can do something about is told in words alone.
    console.error(error instanceof DkvError ? error.message : error);
    return 1;
  }
}

Deno.exit(await main());
