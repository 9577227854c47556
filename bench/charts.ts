/**
 * Which pictures are drawn of which results. Pure; used by `main.ts` and `growth.ts`.
 *
 * @module
 */

import { barChart, type BarGroup, type Panel } from "./barchart.ts";
import {
  machineText,
  numbersOf,
  ratioOf,
  type Results,
  rowOf,
} from "./results.ts";
import { median, type Metric } from "./statistics.ts";
import { COLOURS, numberText } from "./svg.ts";
import { type SystemName, SYSTEMS, TITLES } from "./system.ts";

const SYSTEM_COLOURS: Readonly<Record<SystemName, string>> = {
  "dkv": COLOURS.blue,
  "dkv-unary": COLOURS.sky,
  "etcd": COLOURS.vermilion,
  "etcd-txn": COLOURS.orange,
  "redis": COLOURS.green,
  "redis-wait": COLOURS.grey,
};

/** One line of a panel: a workload, and what it is called there. */
type Choice = readonly [workload: string, label: string];

const PANELS: readonly {
  readonly title: string;
  readonly metric: Metric;
  readonly choices: readonly Choice[];
}[] = [
  {
    title: "Puts a second",
    metric: "perSecond",
    choices: [
      ["put 64", "64 in flight"],
      ["put 256", "256"],
      ["put 1024", "1,024"],
    ],
  },
  {
    title: "Linearizable gets a second (Redis: gets)",
    metric: "perSecond",
    choices: [
      ["get 64", "64 in flight"],
      ["get 256", "256"],
      ["get 1024", "1,024"],
    ],
  },
  {
    title: "One put at a time: half of them within, ms",
    metric: "p50Ms",
    choices: [["put 1", "p50"]],
  },
  {
    title: "256 puts in flight: 99 % of them within, ms",
    metric: "p99Ms",
    choices: [["put 256", "p99"]],
  },
];

/** The picture of a run. */
export function chartOf(results: Results): string {
  const present = SYSTEMS.filter((name) =>
    results.rows.some(({ system }) => system === name)
  );
  const panels = PANELS.map(({ title, metric, choices }): Panel => ({
    title,
    hint: metric === "perSecond" ? "more is better" : "less is better",
    groups: choices.map((choice) => groupOf(results, { choice, metric }))
      .filter(({ bars }) => bars.length > 0),
  })).filter(({ groups }) => groups.length > 0);
  const missing = results.subjects.filter(({ version }) => version === null)
    .map(({ title }) => title);
  const notes = [
    "dkv and etcd acknowledge a put when a majority has it on disk; Redis " +
    "when the primary has (with WAIT 1: and a replica has received it).",
    `Medians of ${results.rounds} rounds, systems taking turns. ` +
    machineText(results.machine),
  ];
  if (missing.length > 0) notes.push(`Not installed: ${missing.join("; ")}.`);
  const versions = [
    ...new Set(results.subjects.flatMap(({ version }) => version ?? [])),
  ];
  return barChart({
    title: "Three nodes, values of 100 bytes, every put on disk",
    subtitle: `${versions.join(" · ")} · three processes each, on one ` +
      "machine that runs the client too",
    legend: present.map((name) => ({
      label: TITLES[name],
      colour: SYSTEM_COLOURS[name],
    })),
    panels,
    notes,
  });
}

function groupOf(
  results: Results,
  { choice: [workload, label], metric }: { choice: Choice; metric: Metric },
): BarGroup {
  const bars = SYSTEMS.flatMap((system) => {
    const values = numbersOf(rowOf(results.rows, workload, system), metric);
    if (values.length === 0) return [];
    const value = median(values);
    const bold = system === "dkv";
    const beside = bold ? besideEtcd(results, { workload, metric }) : "";
    return [{
      value,
      text: `${numberText(value)}${beside}`,
      colour: SYSTEM_COLOURS[system],
      bold,
    }];
  });
  return { label, bars };
}

function besideEtcd(
  { ratios }: Results,
  { workload, metric }: { workload: string; metric: Metric },
): string {
  const wanted = { workload, system: "dkv", other: "etcd", metric } as const;
  const ratio = ratioOf(ratios, wanted);
  return ratio === undefined
    ? ""
    : ` (${numberText(Number(ratio.spread.median.toPrecision(2)))} × etcd)`;
}
