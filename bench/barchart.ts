/**
 * Bars in groups, side by side in panels. Pure; used by `charts.ts`.
 *
 * ```text
 *   Puts a second                      Reads a second
 *    1 in flight  ▇ 210                 1 in flight  ▇▇ 530
 *                 ▇▇ 380                             ▇▇▇ 820
 *   64 in flight  ▇▇▇▇▇▇▇▇▇ 14,800     64 in flight  ▇▇▇▇▇▇▇ 20,100
 * ```
 *
 * @module
 */

import { element, label, LOOK, picture } from "./svg.ts";

/** One bar. */
export interface BarMark {
  readonly value: number;
  /** Stands behind it. */
  readonly text: string;
  readonly colour: string;
  readonly bold?: boolean;
}

/** Bars that are compared with each other. */
export interface BarGroup {
  readonly label: string;
  readonly bars: readonly BarMark[];
}

/** Groups on one scale. */
export interface Panel {
  readonly title: string;
  /** Such as what is better: more or less. */
  readonly hint: string;
  readonly groups: readonly BarGroup[];
}

/** A chart of bars. */
export interface BarChart {
  readonly title: string;
  readonly subtitle: string;
  readonly legend: readonly {
    readonly label: string;
    readonly colour: string;
  }[];
  readonly panels: readonly Panel[];
  readonly notes: readonly string[];
}

const WIDTH = 1280;
const MARGIN = 40;
const COLUMNS = 2;
const GUTTER = 48;
const BAR = 15;
const BAR_GAP = 3;
const GROUP_GAP = 16;
const LABEL_WIDTH = 96;
/** Room for the number behind the longest bar. */
const TEXT_WIDTH = 132;
const HEAD = 118;
const PANEL_HEAD = 44;
const NOTE = 19;
/** Average width of a letter, as a share of its size. */
const LETTER = 0.56;

/** Draws it. */
export function barChart(chart: BarChart): string {
  const parts = [
    label(chart.title, { x: MARGIN, y: 52, size: 28, weight: 700 }),
    label(chart.subtitle, { x: MARGIN, y: 78, size: 15, fill: LOOK.faint }),
    legend(chart.legend),
  ];
  const width = (WIDTH - 2 * MARGIN - (COLUMNS - 1) * GUTTER) / COLUMNS;
  let y = HEAD;
  for (let at = 0; at < chart.panels.length; at += COLUMNS) {
    const row = chart.panels.slice(at, at + COLUMNS);
    for (const [column, panel] of row.entries()) {
      const x = MARGIN + column * (width + GUTTER);
      parts.push(...drawPanel(panel, { x, y, width }));
    }
    y += Math.max(...row.map(heightOf)) + 24;
  }
  for (const note of chart.notes) {
    parts.push(label(note, { x: MARGIN, y, size: 13, fill: LOOK.faint }));
    y += NOTE;
  }
  const size = { width: WIDTH, height: y + 12, title: chart.title };
  return picture(size, parts);
}

function legend(entries: BarChart["legend"]): string {
  let x = MARGIN;
  const parts: string[] = [];
  for (const { label: text, colour } of entries) {
    parts.push(
      element("rect", { x, y: 92, width: 13, height: 13, rx: 2, fill: colour }),
      label(text, { x: x + 19, y: 103, size: 14 }),
    );
    x += 19 + LETTER * 14 * text.length + 26;
  }
  return parts.join("");
}

function heightOf({ groups }: Panel): number {
  return groups.reduce(
    (sum, { bars }) => sum + bars.length * (BAR + BAR_GAP) + GROUP_GAP,
    PANEL_HEAD,
  );
}

function drawPanel(
  { title, hint, groups }: Panel,
  { x, y, width }: { x: number; y: number; width: number },
): string[] {
  const parts = [
    label(title, { x, y: y + 24, size: 17, weight: 700 }),
    label(hint, {
      x: x + width,
      y: y + 24,
      size: 13,
      fill: LOOK.faint,
      anchor: "end",
    }),
  ];
  const largest = Math.max(
    ...groups.flatMap(({ bars }) => bars.map(({ value }) => value)),
  );
  const left = x + LABEL_WIDTH;
  const scale = (width - LABEL_WIDTH - TEXT_WIDTH) / (largest || 1);
  let top = y + PANEL_HEAD;
  for (const group of groups) {
    const height = group.bars.length * (BAR + BAR_GAP) - BAR_GAP;
    parts.push(
      label(group.label, {
        x: left - 12,
        y: top + height / 2 + 5,
        size: 14,
        anchor: "end",
      }),
      element("line", {
        x1: left,
        x2: left,
        y1: top - 2,
        y2: top + height + 2,
        stroke: LOOK.line,
      }),
    );
    for (const { value, text, colour, bold = false } of group.bars) {
      const length = Math.max(1.5, value * scale);
      parts.push(
        element("rect", {
          x: left,
          y: top,
          width: length,
          height: BAR,
          rx: 1.5,
          fill: colour,
        }),
        label(text, {
          x: left + length + 6,
          y: top + BAR - 3,
          size: 12.5,
          weight: bold ? 700 : 400,
        }),
      );
      top += BAR + BAR_GAP;
    }
    top += GROUP_GAP;
  }
  return parts;
}
