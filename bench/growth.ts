/**
 * `deno task bench:growth`: what more keys, nodes, bytes and watchers cost. What it measures, and how,
 * stands in README.md.
 *
 * @module
 */

import type { Cleanup } from "./cleanup.ts";
import {
  type Growth,
  growthCharts,
  growthMarkdown,
  growthPlain,
} from "./growthcharts.ts";
import {
  type Ground,
  growKeys,
  growNodes,
  growValues,
  growWatchers,
  NODES,
  VALUES,
  WATCHERS,
} from "./growths.ts";
import { describeMachine } from "./machine.ts";
import { machineText } from "./results.ts";
import {
  GROWTH_USAGE,
  type GrowthOptions,
  growthOptions,
  type GrowthPart,
} from "./options.ts";
import { save, section } from "./output.ts";
import { warmMsOf } from "./plan.ts";
import { numberText } from "./svg.ts";
import { runTask } from "./task.ts";

/** Roughly, for the duration that is announced. */
const START_MS = 4000;
const LOADED_PER_MS = 10;
/** A restart and a rejoin: this, and more for each key. */
const RESTARTS_MS = 8000;
const RESTARTS_MS_PER_KEY = 0.02;

async function growth(
  options: GrowthOptions,
  cleanup: Cleanup,
): Promise<number> {
  const { parts, sizes, forMs } = options;
  const startedAt = new Date().toISOString();
  const machine = await describeMachine();
  console.log(machineText(machine));
  console.log(`about ${numberText(durationMs(options) / 60_000)} min`);
  const startMs = performance.now();
  const tell = (text: string) => {
    const seconds = ((performance.now() - startMs) / 1000).toFixed(0);
    console.log(`${seconds.padStart(5)} s  ${text}`);
  };
  // One cluster at a time.
  const run = async <At>(
    part: GrowthPart,
    grow: (ground: Ground) => Promise<At[]>,
  ): Promise<At[]> =>
    parts.includes(part)
      ? await cleanup.within((inner) => grow({ cleanup: inner, forMs, tell }))
      : [];
  const found: Growth = {
    startedAt,
    machine,
    seconds: forMs / 1000,
    nodes: await run("nodes", growNodes),
    values: await run("values", growValues),
    watchers: await run("watchers", growWatchers),
    keys: await run("keys", (ground) => growKeys(sizes, ground)),
  };
  console.log(`\n${growthPlain(found)}`);
  const content = growthMarkdown(found);
  const files = {
    "growth.json": `${JSON.stringify(found, null, 2)}\n`,
    ...growthCharts(found),
    ...await section(options.out, { name: "growth", content }),
  };
  await save(options.out, files);
  console.log(`written: ${Object.keys(files).join(", ")} in ${options.out}`);
  return 0;
}

function durationMs({ parts, sizes, forMs }: GrowthOptions): number {
  const each = warmMsOf(forMs) + forMs;
  const largest = sizes.at(-1) ?? 0;
  const perKey = sizes.reduce((sum, keys) => sum + keys, 0);
  const costs: Readonly<Record<GrowthPart, number>> = {
    keys: START_MS + largest / LOADED_PER_MS + RESTARTS_MS_PER_KEY * perKey +
      sizes.length * (2 * each + RESTARTS_MS),
    nodes: NODES.length * (START_MS + 2 * each),
    values: START_MS + VALUES.length * each,
    watchers: START_MS + WATCHERS.length * 2 * forMs,
  };
  return parts.reduce((sum, part) => sum + costs[part], 0);
}

Deno.exit(
  await runTask({ usage: GROWTH_USAGE, optionsOf: growthOptions, run: growth }),
);
