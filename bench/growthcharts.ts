/**
 * Tables and pictures of what grows. Pure; used by `growth.ts`.
 *
 * @module
 */

import type { AtKeys, AtNodes, AtValues, AtWatchers } from "./growths.ts";
import { lineChart, type Series } from "./linechart.ts";
import { type Machine, machineText } from "./results.ts";
import { COLOURS, numberText } from "./svg.ts";
import { conditions, markdownTable, plainTable, type Table } from "./tables.ts";

/** The shape of `growth.json`; parts that were not asked for are empty. */
export interface Growth {
  /** ISO 8601. */
  readonly startedAt: string;
  readonly machine: Machine;
  readonly seconds: number;
  readonly keys: readonly AtKeys[];
  readonly nodes: readonly AtNodes[];
  readonly values: readonly AtValues[];
  readonly watchers: readonly AtWatchers[];
}

const MIB = 2 ** 20;

/** One picture. */
interface Picture<At> {
  readonly name: string;
  readonly title: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly x: (at: At) => number;
  readonly xText?: (x: number) => string;
  readonly lines: readonly {
    readonly label: string;
    readonly colour: string;
    readonly y: (at: At) => number;
  }[];
}

const PUTS = { label: "puts", colour: COLOURS.blue };
const GETS = { label: "gets", colour: COLOURS.vermilion };

const OF_KEYS: readonly Picture<AtKeys>[] = [
  {
    name: "growth-rate",
    title: "Rate against number of keys",
    xLabel: "keys",
    yLabel: "a second, 256 in flight",
    x: ({ keys }) => keys,
    lines: [
      { ...PUTS, y: ({ putsPerSecond }) => putsPerSecond },
      { ...GETS, y: ({ getsPerSecond }) => getsPerSecond },
    ],
  },
  {
    name: "growth-memory",
    title: "Memory of a node against number of keys",
    xLabel: "keys of 100 bytes",
    yLabel: "resident, MiB",
    x: ({ keys }) => keys,
    lines: [{
      label: "node",
      colour: COLOURS.blue,
      y: ({ memoryBytes }) => memoryBytes / MIB,
    }],
  },
  {
    name: "growth-file",
    title: "File of a node against number of keys",
    xLabel: "keys of 100 bytes",
    yLabel: "database with write-ahead log, MiB",
    x: ({ keys }) => keys,
    lines: [{
      label: "file",
      colour: COLOURS.blue,
      y: ({ fileBytes }) => fileBytes / MIB,
    }],
  },
  {
    name: "growth-restart",
    title: "Restart against number of keys",
    xLabel: "keys of 100 bytes",
    yLabel: "seconds",
    x: ({ keys }) => keys,
    lines: [
      {
        label: "with its data",
        colour: COLOURS.blue,
        y: ({ restartMs }) => restartMs / 1000,
      },
      {
        label: "by snapshot",
        colour: COLOURS.vermilion,
        y: ({ snapshotMs }) => snapshotMs / 1000,
      },
    ],
  },
];

const OF_NODES: Picture<AtNodes> = {
  name: "growth-nodes",
  title: "Rate against number of nodes",
  xLabel: "nodes, all on one machine",
  yLabel: "a second, 256 in flight",
  x: ({ nodes }) => nodes,
  lines: [
    { ...PUTS, y: ({ putsPerSecond }) => putsPerSecond },
    { ...GETS, y: ({ getsPerSecond }) => getsPerSecond },
  ],
};

const OF_VALUES: readonly Picture<AtValues>[] = [
  {
    name: "growth-values",
    title: "Puts against size of values",
    xLabel: "bytes in a value",
    yLabel: "a second",
    x: ({ bytes }) => bytes,
    xText: sizeText,
    lines: [{ ...PUTS, y: ({ putsPerSecond }) => putsPerSecond }],
  },
  {
    name: "growth-bytes",
    title: "Bytes put against size of values",
    xLabel: "bytes in a value",
    yLabel: "MiB a second",
    x: ({ bytes }) => bytes,
    xText: sizeText,
    lines: [{
      label: "MiB/s",
      colour: COLOURS.blue,
      y: ({ mibPerSecond }) => mibPerSecond,
    }],
  },
];

const OF_WATCHERS: Picture<AtWatchers> = {
  name: "growth-watchers",
  title: "Rate against number of watchers",
  xLabel: "watchers of all keys that change",
  yLabel: "a second, 16 puts in flight",
  x: ({ watchers }) => watchers,
  lines: [
    { ...PUTS, y: ({ putsPerSecond }) => putsPerSecond },
    {
      label: "delivered",
      colour: COLOURS.vermilion,
      y: ({ deliveriesPerSecond }) => deliveriesPerSecond,
    },
  ],
};

/** Every picture of what was measured, by file name. */
export function growthCharts(growth: Growth): Record<string, string> {
  const { machine } = growth;
  return Object.fromEntries([
    ...OF_KEYS.flatMap((picture) => draw(picture, growth.keys, machine)),
    ...draw(OF_NODES, growth.nodes, machine),
    ...OF_VALUES.flatMap((picture) => draw(picture, growth.values, machine)),
    ...draw(OF_WATCHERS, growth.watchers, machine),
  ]);
}

/** All numbers. */
export function growthTables(growth: Growth): Table[] {
  const mib = (bytes: number) => numberText(bytes / MIB);
  const tables: Table[] = [
    {
      title: "Keys of 100 bytes, three nodes",
      headings: [
        "Keys",
        "loaded/s",
        "puts/s",
        "gets/s",
        "memory MiB",
        "file MiB",
        "restart s",
        "by snapshot s",
      ],
      rows: growth.keys.map((at) => [
        numberText(at.keys),
        numberText(at.loadPerSecond),
        numberText(at.putsPerSecond),
        numberText(at.getsPerSecond),
        mib(at.memoryBytes),
        mib(at.fileBytes),
        numberText(at.restartMs / 1000),
        numberText(at.snapshotMs / 1000),
      ]),
    },
    {
      title: "Nodes",
      headings: ["Nodes", "puts/s", "gets/s"],
      rows: growth.nodes.map((at) => [
        String(at.nodes),
        numberText(at.putsPerSecond),
        numberText(at.getsPerSecond),
      ]),
    },
    {
      title: "Size of values",
      headings: ["Bytes", "in flight", "puts/s", "MiB/s"],
      rows: growth.values.map((at) => [
        sizeText(at.bytes),
        String(at.inFlight),
        numberText(at.putsPerSecond),
        numberText(at.mibPerSecond),
      ]),
    },
    {
      title: "Watchers of all keys that change",
      headings: ["Watchers", "puts/s", "delivered/s"],
      rows: growth.watchers.map((at) => [
        String(at.watchers),
        numberText(at.putsPerSecond),
        numberText(at.deliveriesPerSecond),
      ]),
    },
  ];
  return tables.filter(({ rows }) => rows.length > 0);
}

/** What stands in README.md between the marks. */
export function growthMarkdown(growth: Growth): string {
  const tables = growthTables(growth).map(markdownTable);
  const pictures = Object.entries(growthCharts(growth)).map(([name, svg]) => {
    const [, title = name] = /<title>(.*?)<\/title>/.exec(svg) ?? [];
    return `![${title}](${name})\n`;
  });
  return [`${conditions(growth)}\n`, ...tables, ...pictures].join("\n").trim();
}

/** What a terminal shows. */
export function growthPlain(growth: Growth): string {
  return growthTables(growth).map(plainTable).join("\n");
}

function draw<At>(
  { name, title, xLabel, yLabel, x, xText = numberText, lines }: Picture<At>,
  all: readonly At[],
  machine: Machine,
): [string, string][] {
  if (all.length === 0) return [];
  const series = lines.map(({ label, colour, y }): Series => ({
    label,
    colour,
    points: all.map((at) => ({ x: x(at), y: y(at) })).filter(({ y }) => y > 0),
  })).filter(({ points }) => points.length > 0);
  const subtitle = machineText(machine).split(", linux")[0] ?? "";
  const chart = { title, subtitle, xLabel, yLabel, xText, series };
  return series.length === 0 ? [] : [[`${name}.svg`, lineChart(chart)]];
}

function sizeText(bytes: number): string {
  if (bytes >= MIB) return `${bytes / MIB} MiB`;
  return bytes >= 1024 ? `${bytes / 1024} KiB` : `${bytes}`;
}
