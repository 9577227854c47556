/**
 * Results as tables, for a terminal and for README.md. Pure; used by `main.ts` and `growth.ts`.
 *
 * @module
 */

import { type Bar, verdictsOf } from "./bars.ts";
import {
  type Machine,
  machineText,
  numbersOf,
  ratioOf,
  type Results,
  rowOf,
} from "./results.ts";
import { median, type Metric, type Spread } from "./statistics.ts";
import { numberText } from "./svg.ts";
import { type SystemName, SYSTEMS, TITLES } from "./system.ts";

/** A table: a heading for each column, and rows of as many cells. */
export interface Table {
  readonly title: string;
  readonly headings: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

const METRIC_TEXTS: Readonly<Record<Metric, string>> = {
  perSecond: "rate",
  p50Ms: "p50",
  p99Ms: "p99",
};

/** Everything a person wants to see of a run. */
export function tablesOf(results: Results): Table[] {
  return [
    rates(results),
    latencies(results),
    ratios(results, "perSecond"),
    ratios(results, "p99Ms"),
    bars(results),
  ].filter(({ rows }) => rows.length > 0);
}

/** Columns, padded: names begin on the left, numbers end on the right. */
export function plainTable({ title, headings, rows }: Table): string {
  const widths = headings.map((heading, at) =>
    Math.max(heading.length, ...rows.map((row) => row[at]?.length ?? 0))
  );
  const line = (cells: readonly string[]) =>
    cells.map((cell, at) =>
      at === 0 ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0)
    ).join("  ");
  return [title, "", line(headings), ...rows.map(line), ""].join("\n");
}

/** The same in Markdown. */
export function markdownTable({ title, headings, rows }: Table): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  const rule = headings.map((_, at) => at === 0 ? "---" : "---:");
  return [
    `**${title}**`,
    "",
    line(headings),
    line(rule),
    ...rows.map(line),
    "",
  ].join("\n");
}

/** What stands in README.md between the marks. */
export function markdownOf(results: Results): string {
  return [
    "![Puts, gets and latencies side by side](chart.svg)\n",
    `${head(results)}\n`,
    ...tablesOf(results).map(markdownTable),
    ...failures(results).map((text) => `- ${text}`),
  ].join("\n").trim();
}

/** What a terminal shows. */
export function plainOf(results: Results): string {
  return [
    ...tablesOf(results).map(plainTable),
    ...failures(results),
  ].join("\n");
}

/** Replaces what stands between the marks of a name; null if there are none. */
export function replaceSection(
  text: string,
  { name, content }: { name: string; content: string },
): string | null {
  const begin = `<!-- ${name} -->`;
  const end = `<!-- end of ${name} -->`;
  const from = text.indexOf(begin);
  const to = text.indexOf(end);
  if (from < 0 || to < from) return null;
  const before = text.slice(0, from + begin.length);
  return `${before}\n\n${content}\n\n${text.slice(to)}`;
}

/** Where, when and how it was measured, in sentences. */
export function conditions(
  { startedAt, machine }: { startedAt: string; machine: Machine },
): string {
  return `${startedAt.slice(0, 10)}, ${machineText(machine)}`;
}

function head(results: Results): string {
  const { rounds, seconds, keys, apart, subjects } = results;
  const versions = new Set(
    subjects.map(({ version, title }) => version ?? `${title}: not installed`),
  );
  const idle = subjects.filter(({ idleShare }) => idleShare !== null)
    .map(({ title, idleShare }) =>
      `${title.split(",")[0]} ${numberText(100 * (idleShare ?? 0))} %`
    );
  const sentences = [
    conditions(results),
    `${[...versions].join(", ")}.`,
    `${rounds} rounds of ${seconds} s, ${keys} keys` +
    `${apart ? ", one system running at a time" : ""}.`,
  ];
  if (idle.length > 0) {
    const each = [...new Set(idle)].join(", ");
    sentences.push(`Idle, three processes take of one core: ${each}.`);
  }
  return sentences.join(" ");
}

function workloadsOf({ rows }: Results): string[] {
  return [...new Set(rows.map(({ workload }) => workload))];
}

/** What was asked for. */
function columnsOf({ subjects }: Results): SystemName[] {
  const names = subjects.map(({ name }) => name);
  return SYSTEMS.filter((name) => names.includes(name));
}

/** Why there is no number. */
function reasonOf(
  { subjects, rows }: Results,
  { workload, system }: { workload: string; system: SystemName },
): string {
  const subject = subjects.find(({ name }) => name === system);
  if (subject?.version === null) return "not installed";
  const row = rowOf(rows, workload, system);
  return row?.error === undefined ? "-" : "failed";
}

function failures({ rows }: Results): string[] {
  return rows.flatMap(({ workload, system, error }) =>
    error === undefined
      ? []
      : [`${workload}, ${TITLES[system]}, a round failed: ${error}`]
  );
}

function wide(
  results: Results,
  { title, workloads, cell }: {
    title: string;
    workloads: readonly string[];
    cell: (workload: string, system: SystemName) => string | null;
  },
): Table {
  const columns = columnsOf(results);
  return {
    title,
    headings: ["Workload", ...columns.map((name) => TITLES[name])],
    rows: workloads.map((workload) => [
      workload,
      ...columns.map((system) =>
        cell(workload, system) ?? reasonOf(results, { workload, system })
      ),
    ]),
  };
}

function rates(results: Results): Table {
  const paced = new Set(
    results.rows.filter(({ paced }) => paced).map(({ workload }) => workload),
  );
  return wide(results, {
    title: "Operations a second (median)",
    workloads: workloadsOf(results).filter((name) => !paced.has(name)),
    cell: (workload, system) => {
      const row = rowOf(results.rows, workload, system);
      const values = numbersOf(row, "perSecond");
      return values.length === 0 ? null : numberText(median(values));
    },
  });
}

function latencies(results: Results): Table {
  return wide(results, {
    title: "Latency in ms: p50 / p99 (medians)",
    workloads: workloadsOf(results),
    cell: (workload, system) => {
      const row = rowOf(results.rows, workload, system);
      const p50 = numbersOf(row, "p50Ms");
      const p99 = numbersOf(row, "p99Ms");
      if (p50.length === 0) return null;
      return `${numberText(median(p50))} / ${numberText(median(p99))}`;
    },
  });
}

function ratios(
  results: Results,
  metric: "perSecond" | "p99Ms",
): Table {
  const paced = new Set(
    results.rows.filter(({ paced }) => paced).map(({ workload }) => workload),
  );
  const of = metric === "perSecond"
    ? "Rate of dkv's client library divided by the other's"
    : "p99 of dkv's client library divided by the other's";
  const better = metric === "perSecond" ? "above" : "below";
  const others = columnsOf(results).filter((name) => name !== "dkv");
  const workloads = workloadsOf(results).filter((name) =>
    metric === "p99Ms" || !paced.has(name)
  );
  const rows = workloads.map((workload) => [
    workload,
    ...others.map((other) => {
      const wanted = { workload, system: "dkv", other, metric } as const;
      const ratio = ratioOf(results.ratios, wanted);
      return ratio === undefined
        ? reasonOf(results, { workload, system: other })
        : spreadText(ratio.spread);
    }),
  ]);
  return {
    title: `${of}, pair by pair: median (smallest to largest); ` +
      `${better} 1 dkv is ahead`,
    headings: ["Workload", ...others.map((name) => TITLES[name])],
    rows: others.length === 0 ? [] : rows,
  };
}

function bars(results: Results): Table {
  const rows = verdictsOf(results).filter(({ met }) => met !== null)
    .map(({ bar, ratio, met }) => [
      barText(bar),
      bar.atLeast === undefined
        ? `at most ${bar.atMost}`
        : `at least ${bar.atLeast}`,
      ratio === undefined ? "-" : spreadText(ratio.spread),
      met ? "yes" : "NO",
    ]);
  return {
    title: "What dkv wants to reach",
    headings: ["Ratio", "wanted", "found", "met"],
    rows,
  };
}

function barText({ workload, system, other, metric }: Bar): string {
  const pair = `${TITLES[system]} / ${TITLES[other]}`;
  return `${workload}, ${METRIC_TEXTS[metric]}: ${pair}`;
}

function spreadText({ min, median, max }: Spread): string {
  if (min === max) return numberText(median);
  return `${numberText(median)} (${numberText(min)} to ${numberText(max)})`;
}
