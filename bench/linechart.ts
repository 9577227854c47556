/**
 * Lines over something that grows, on logarithmic scales: what costs ten times as much at ten times
 * the size is a straight line. Pure; used by `charts.ts`.
 *
 * @module
 */

import { element, label, LOOK, numberText, picture } from "./svg.ts";

/** One line. */
export interface Series {
  readonly label: string;
  readonly colour: string;
  readonly points: readonly { readonly x: number; readonly y: number }[];
}

/** A chart of lines. All numbers are above 0. */
export interface LineChart {
  readonly title: string;
  readonly subtitle: string;
  readonly xLabel: string;
  readonly yLabel: string;
  /** How a number on the horizontal axis is written. */
  readonly xText: (x: number) => string;
  readonly series: readonly Series[];
}

const WIDTH = 860;
const HEIGHT = 500;
const PLOT = { left: 92, right: 690, top: 104, bottom: 424 } as const;
const DECADE_STEPS = [1, 2, 5];

/** A logarithmic axis over some values, at least a decade long. */
export class Axis {
  readonly ticks: readonly number[];
  readonly #low: number;
  readonly #high: number;

  constructor(values: readonly number[]) {
    const low = Math.min(...values);
    const high = Math.max(...values);
    const below = steps(low).findLast((step) => step <= low) ?? low;
    const above = steps(high).find((step) => step >= high) ?? high;
    this.#low = below;
    this.#high = Math.max(above, below * 10);
    const all = [...new Set([...steps(below), ...steps(this.#high)])];
    const between: number[] = [];
    for (let at = below; at < this.#high; at *= 10) between.push(...steps(at));
    const inside = [...new Set([...all, ...between])].sort((a, b) => a - b)
      .filter((tick) => tick >= below && tick <= this.#high);
    // Over many decades only whole ones are written.
    this.ticks = inside.length > 8 ? inside.filter(isDecade) : inside;
  }

  /** From 0 at the lower end to 1 at the upper end. */
  shareOf(value: number): number {
    return Math.log(value / this.#low) / Math.log(this.#high / this.#low);
  }
}

/** Draws it. */
export function lineChart(chart: LineChart): string {
  const points = chart.series.flatMap(({ points }) => points);
  const xs = [...new Set(points.map(({ x }) => x))].sort((a, b) => a - b);
  const axis = new Axis(points.map(({ y }) => y));
  const horizontal = horizontalOf(xs);
  const yOf = (y: number) =>
    PLOT.bottom - axis.shareOf(y) * (PLOT.bottom - PLOT.top);
  const parts = [
    label(chart.title, { x: 32, y: 42, size: 22, weight: 700 }),
    label(chart.subtitle, { x: 32, y: 66, size: 14, fill: LOOK.faint }),
    label(chart.yLabel, { x: 32, y: 92, size: 13, fill: LOOK.faint }),
    label(chart.xLabel, {
      x: (PLOT.left + PLOT.right) / 2,
      y: HEIGHT - 28,
      size: 14,
      anchor: "middle",
      fill: LOOK.faint,
    }),
  ];
  for (const tick of axis.ticks) {
    const y = yOf(tick);
    parts.push(
      element("line", {
        x1: PLOT.left,
        x2: PLOT.right,
        y1: y,
        y2: y,
        stroke: LOOK.line,
      }),
      label(numberText(tick), {
        x: PLOT.left - 10,
        y: y + 4.5,
        size: 13,
        anchor: "end",
      }),
    );
  }
  for (const x of xs) {
    parts.push(label(chart.xText(x), {
      x: horizontal(x),
      y: PLOT.bottom + 24,
      size: 13,
      anchor: "middle",
    }));
  }
  const ends = apart(
    chart.series.map(({ points }) => yOf(points.at(-1)?.y ?? 1)),
  );
  for (const [at, series] of chart.series.entries()) {
    parts.push(...drawSeries(series, {
      xOf: horizontal,
      yOf,
      labelY: ends[at] ?? 0,
    }));
  }
  return picture({ width: WIDTH, height: HEIGHT, title: chart.title }, parts);
}

function drawSeries(
  { label: text, colour, points }: Series,
  { xOf, yOf, labelY }: {
    xOf: (x: number) => number;
    yOf: (y: number) => number;
    labelY: number;
  },
): string[] {
  const path = points.map(({ x, y }) =>
    `${xOf(x).toFixed(1)},${yOf(y).toFixed(1)}`
  ).join(" ");
  const parts = [element("polyline", {
    points: path,
    fill: "none",
    stroke: colour,
    "stroke-width": 2.5,
  })];
  for (const { x, y } of points) {
    const dot = { cx: xOf(x), cy: yOf(y), r: 4, fill: colour };
    parts.push(element("circle", dot));
  }
  const last = points.at(-1);
  const value = last === undefined ? "" : ` ${numberText(last.y)}`;
  parts.push(label(`${text}${value}`, {
    x: PLOT.right + 12,
    y: labelY + 4.5,
    size: 13,
    weight: 600,
    fill: colour,
  }));
  return parts;
}

/** Logarithmic where it can be; with a 0 among them, equal steps. */
function horizontalOf(xs: readonly number[]): (x: number) => number {
  const width = PLOT.right - PLOT.left - 40;
  const [low = 1] = xs;
  const high = xs.at(-1) ?? 1;
  return (x) => {
    const share = low > 0 && high > low
      ? Math.log(x / low) / Math.log(high / low)
      : xs.indexOf(x) / Math.max(1, xs.length - 1);
    return PLOT.left + 20 + share * width;
  };
}

/** Labels that would lie upon each other are moved down. */
function apart(ys: readonly number[]): number[] {
  const order = ys.map((y, at) => ({ y, at })).sort((a, b) => a.y - b.y);
  const moved = [...ys];
  let free = -Infinity;
  for (const { y, at } of order) {
    moved[at] = Math.max(y, free);
    free = (moved[at] ?? y) + 17;
  }
  return moved;
}

/** 1, 2 and 5 times the power of ten of a value, and the next power. */
function steps(value: number): number[] {
  const decade = 10 ** Math.floor(Math.log10(value) + 1e-9);
  return [...DECADE_STEPS, 10].map((step) =>
    Number((step * decade).toPrecision(3))
  );
}

function isDecade(value: number): boolean {
  const exponent = Math.log10(value);
  return Math.abs(exponent - Math.round(exponent)) < 1e-9;
}
