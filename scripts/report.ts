/**
 * What the demo prints: headings, tables, a picture of writes over time, and verified sentences.
 * Used by `demo.ts` and `steps.ts`.
 *
 * @module
 */

import { bold, cyan, dim, green, red, yellow } from "@std/fmt/colors";

/** A step did not come out as it must. The message says what was expected and what was found. */
export class Unverified extends Error {}

/** One field of a table: a text, and how it is painted. */
export type Cell = string | {
  readonly text: string;
  readonly paint: (text: string) => string;
};

const BARS = "▁▂▃▄▅▆▇█";
/** Fits a terminal of 80 columns. */
const BARS_MAX = 72;

/** Prints a demo, and counts what it verified. */
export class Report {
  #steps = 0;
  #verified = 0;

  /** How many steps were begun. */
  get steps(): number {
    return this.#steps;
  }

  /** How many sentences were verified. */
  get verified(): number {
    return this.#verified;
  }

  title(text: string, rest: string): void {
    console.log(`\n${bold(text)}${dim(rest)}\n`);
  }

  step(text: string): void {
    this.#steps++;
    console.log(`\n${bold(cyan(String(this.#steps)))}  ${bold(text)}\n`);
  }

  /** Something to know. */
  note(text: string): void {
    console.log(`   ${dim(text)}`);
  }

  /** Something that was checked: true, or the demo ends. */
  verify(condition: boolean, text: string, found: string): void {
    if (!condition) throw new Unverified(`${text}: ${found}`);
    this.#verified++;
    console.log(`   ${green("✓")} ${text}`);
  }

  failed(text: string): void {
    console.log(`\n   ${red("✗")} ${text}`);
  }

  table(headings: readonly string[], rows: readonly (readonly Cell[])[]): void {
    const widths = headings.map((heading, at) =>
      Math.max(width(heading), ...rows.map((row) => width(textOf(row[at]))))
    );
    const pad = (text: string, at: number) =>
      text + " ".repeat(Math.max(0, (widths[at] ?? 0) - width(text)));
    const line = (cells: readonly Cell[]) =>
      cells.map((cell, at) => {
        const last = at === cells.length - 1;
        const text = last ? textOf(cell) : pad(textOf(cell), at);
        return typeof cell === "string" || text === ""
          ? text
          : cell.paint(text);
      }).join("  ").trimEnd();
    console.log(
      `   ${line(headings.map((text) => ({ text, paint: dim })))}`,
    );
    for (const row of rows) console.log(`   ${line(row)}`);
    console.log();
  }

  /** How many of `timesMs` fall into each slice of time, with a mark under the slice of `markMs`. */
  bars(
    timesMs: readonly number[],
    { endMs, markMs, mark }: { endMs: number; markMs: number; mark: string },
  ): void {
    // Round slices, as few as fit.
    const sliceMs = Math.ceil(endMs / BARS_MAX / 50) * 50;
    const counts = new Array<number>(Math.ceil(endMs / sliceMs)).fill(0);
    for (const timeMs of timesMs) {
      const at = Math.floor(timeMs / sliceMs);
      if (at < counts.length) counts[at] = (counts[at] ?? 0) + 1;
    }
    const most = Math.max(1, ...counts);
    const text = counts.map((count) =>
      count === 0
        ? dim("·")
        : green(BARS[Math.ceil(count / most * BARS.length) - 1] ?? "█")
    ).join("");
    const column = Math.min(counts.length - 1, Math.floor(markMs / sliceMs));
    this.note(`writes acknowledged in each ${sliceMs} ms, at most ${most}`);
    console.log(`   ${text}`);
    console.log(`   ${" ".repeat(column)}${yellow(`↑ ${mark}`)}\n`);
  }

  done(text: string, rest: string): void {
    console.log(`\n${bold(green("✓"))} ${bold(text)}${dim(rest)}\n`);
  }
}

/** `1 write`, `1,204 writes`. */
export function count(number: number, noun: string): string {
  return `${number.toLocaleString("en-US")} ${noun}${number === 1 ? "" : "s"}`;
}

/** `0.84 s`. */
export function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(2)} s`;
}

/** A tick, or what was found in its place. */
export function tick(right: boolean, found: string): Cell {
  return right ? { text: "✓", paint: green } : { text: found, paint: red };
}

function textOf(cell: Cell | undefined): string {
  if (cell === undefined) return "";
  return typeof cell === "string" ? cell : cell.text;
}

function width(text: string): number {
  return [...text].length;
}
