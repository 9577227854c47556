/**
 * Where a command prints: bytes to pipes, readable text to people, colour only for those who see
 * it; tables, and a meter that shows how far something is. Used by every module of the command line.
 *
 * @module
 */

import { bold, setColorEnabled } from "@std/fmt/colors";
import { after } from "./timer.ts";

/** What is written in one go. */
const BUFFER_BYTES = 64 * 1024;
/** How often a meter is drawn. */
const METER_MS = 100;
const METER_WIDTH = 24;
/** Rates are those of about the last so many milliseconds. */
const RATE_MS = 3000;

const encoder = new TextEncoder();
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** A stream that can be written to and knows who reads it. */
export interface Sink {
  write(bytes: Uint8Array): Promise<number>;
  isTerminal(): boolean;
}

/** The standard output, in few large writes. */
export class Output {
  /** True if a person reads it. */
  readonly isTerminal: boolean;
  readonly #sink: Sink;
  #buffer = new Uint8Array(BUFFER_BYTES);
  #end = 0;

  constructor(sink: Sink) {
    this.#sink = sink;
    this.isTerminal = sink.isTerminal();
  }

  /** Takes text or bytes as they are; waits only when the buffer is full. */
  async write(data: string | Uint8Array): Promise<void> {
    const bytes = typeof data === "string" ? encoder.encode(data) : data;
    if (this.#end + bytes.length > this.#buffer.length) await this.flush();
    if (bytes.length > this.#buffer.length) return await this.#all(bytes);
    this.#buffer.set(bytes, this.#end);
    this.#end += bytes.length;
  }

  /** Writes a line of text. */
  async line(text: string): Promise<void> {
    await this.write(`${text}\n`);
  }

  /** Whoever reads it has all that was written. */
  async flush(): Promise<void> {
    const end = this.#end;
    this.#end = 0;
    await this.#all(this.#buffer.subarray(0, end));
  }

  async #all(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length;) {
      at += await this.#sink.write(bytes.subarray(at));
    }
  }
}

/** Says something to whoever started the command; never part of its result. */
export function note(text: string): void {
  Deno.stderr.writeSync(encoder.encode(`${text}\n`));
}

/** Colours for terminals that have them, and never with NO_COLOR. */
export function chooseColours(): void {
  setColorEnabled(
    !Deno.noColor && Deno.stdout.isTerminal() && !isDumb(),
  );
}

/** True if the terminal can do nothing but print. */
export function isDumb(): boolean {
  return variable("TERM") === "dumb";
}

/** A variable of the environment, if it may be read: not worth a failure. */
export function variable(name: string): string | undefined {
  const { state } = Deno.permissions.querySync({ name: "env", variable: name });
  return state === "granted" ? Deno.env.get(name) : undefined;
}

/** Bytes as UTF-8 text; null if they are none. */
export function utf8(bytes: Uint8Array): string | null {
  try {
    return strict.decode(bytes);
  } catch {
    return null;
  }
}

/**
 * Bytes for a person: what would move the cursor or is no UTF-8 is written as an escape. Line ends
 * and tabs stay if `lines` says so.
 */
export function readable(bytes: Uint8Array, { lines = false } = {}): string {
  const text = utf8(bytes);
  if (text === null) {
    return Array.from(
      bytes,
      (byte) =>
        byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : hex(byte),
    ).join(
      "",
    );
  }
  // deno-lint-ignore no-control-regex -- these are the point
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, (character) => {
    if (character === "\n") return lines ? character : "\\n";
    if (character === "\t") return lines ? character : "\\t";
    return hex(character.charCodeAt(0));
  });
}

function hex(code: number): string {
  return `\\x${code.toString(16).padStart(2, "0")}`;
}

/** Columns, padded. The painter gets a finished line and its row. */
export function table(
  headings: readonly string[],
  rows: readonly (readonly string[])[],
  paint: (line: string, row: readonly string[]) => string = (line) => line,
): string[] {
  const widths = headings.map((heading, at) =>
    Math.max(heading.length, ...rows.map((row) => row[at]?.length ?? 0))
  );
  const line = (row: readonly string[]) =>
    row.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join("  ").trimEnd();
  return [bold(line(headings)), ...rows.map((row) => paint(line(row), row))];
}

/** `24 KiB`, `1.5 MiB`. */
export function bytesText(bytes: number): string {
  const mib = bytes / (1024 * 1024);
  return mib < 1 ? `${Math.ceil(bytes / 1024)} KiB` : `${mib.toFixed(1)} MiB`;
}

/** `1,234,567`. */
export function countText(count: number): string {
  return Math.round(count).toLocaleString("en-US");
}

/** `0:07`, `12:40`, `2:05:00`. */
export function timeText(seconds: number): string {
  const whole = Math.ceil(seconds);
  const pad = (number: number) => String(number).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole % 3600 / 60);
  const rest = `${hours > 0 ? pad(minutes) : minutes}:${pad(whole % 60)}`;
  return hours > 0 ? `${hours}:${rest}` : rest;
}

/** Whole lines in one text: no error tells where it was thrown. */
export function oneLine(text: string): string {
  return text.replace(/\s+/g, " ").trim();
}

/** Where a meter is drawn. */
export interface Screen {
  writeSync(bytes: Uint8Array): number;
}

/** How a {@linkcode Meter} is shown. */
export interface MeterOptions {
  readonly isShown?: boolean;
  /** Default: the terminal that the errors go to; null if there is none. */
  readonly screen?: Screen | null;
  /** A clock, in milliseconds. */
  readonly now?: () => number;
}

/** The terminal that the errors go to; null if it is none, or can do nothing but print. */
function ownScreen(): Screen | null {
  return Deno.stderr.isTerminal() && !isDumb() ? Deno.stderr : null;
}

/**
 * How far something is, on one line of a terminal; nothing at all elsewhere:
 *
 *     importing [██████████──────────────]  42 %  420,123 records  18,440/s  0:32 left
 */
export class Meter {
  readonly #what: string;
  readonly #screen: Screen | null;
  readonly #now: () => number;
  readonly #startMs: number;
  #drawnMs = -Infinity;
  /** Where it was a while ago, oldest first. */
  #marks: { timeMs: number; records: number; share: number }[] = [];

  constructor(
    what: string,
    { isShown = true, screen = ownScreen(), now = () => performance.now() }:
      MeterOptions = {},
  ) {
    this.#what = what;
    this.#screen = isShown ? screen : null;
    this.#now = now;
    this.#startMs = now();
  }

  /** `share` is from 0 to 1; null if nobody knows. */
  update(records: number, share: number | null): void {
    const now = this.#now();
    if (this.#screen === null || now - this.#drawnMs < METER_MS) return;
    this.#drawnMs = now;
    this.#marks.push({ timeMs: now, records, share: share ?? 0 });
    while ((this.#marks[1]?.timeMs ?? now) < now - RATE_MS) this.#marks.shift();
    this.#draw(this.#text({ now, records, share }));
  }

  /** Leaves an empty line, and tells how many seconds it took. */
  end(): number {
    if (this.#drawnMs > -Infinity) this.#draw("");
    return (this.#now() - this.#startMs) / 1000;
  }

  #text(
    { now, records, share }: {
      now: number;
      records: number;
      share: number | null;
    },
  ): string {
    const [first] = this.#marks;
    const seconds = (now - (first?.timeMs ?? now)) / 1000;
    const perSecond = seconds > 0
      ? (records - (first?.records ?? 0)) / seconds
      : 0;
    const parts = [`${countText(records)} records`];
    if (perSecond > 0) parts.push(`${countText(perSecond)}/s`);
    if (share === null) return `${this.#what}  ${parts.join("  ")}`;
    const gained = share - (first?.share ?? 0);
    if (gained > 0) {
      parts.push(`${timeText((1 - share) * seconds / gained)} left`);
    }
    const full = Math.round(Math.min(1, share) * METER_WIDTH);
    const bar = "█".repeat(full) + "─".repeat(METER_WIDTH - full);
    const percent = String(Math.floor(100 * share)).padStart(3);
    return `${this.#what} [${bar}] ${percent} %  ${parts.join("  ")}`;
  }

  #draw(text: string): void {
    this.#screen?.writeSync(encoder.encode(`\r${text}\x1b[K`));
  }
}

/** Why something did not come to its end: a signal came. */
export class Stopped extends Error {
  override name = "Stopped";
  readonly by: Deno.Signal;

  constructor(by: Deno.Signal) {
    super(`${by} came`);
    this.by = by;
  }
}

/**
 * The wish of whoever started the process that it ends: Ctrl-C or SIGTERM. Made before anything is
 * begun that must be ended in order, because without it a signal ends the process at once.
 */
export class Stop implements Disposable {
  /** The first signal that came; null if there was none. */
  told: Deno.Signal | null = null;
  readonly #controller = new AbortController();
  readonly #listeners: readonly (readonly [Deno.Signal, () => void])[];
  #follower: (signal: Deno.Signal) => void = () => {};

  constructor() {
    const signals: readonly Deno.Signal[] = ["SIGINT", "SIGTERM"];
    this.#listeners = signals.map((signal) => {
      const listener = () => this.#onSignal(signal);
      Deno.addSignalListener(signal, listener);
      return [signal, listener] as const;
    });
  }

  /** Aborted with the first signal, for the reason that it {@linkcode Stopped} us. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Is called with every signal from now on, and at once if one came before. */
  follow(follower: (signal: Deno.Signal) => void): void {
    this.#follower = follower;
    if (this.told !== null) follower(this.told);
  }

  /** Resolves after this long, or as soon as a signal comes. */
  pause(ms: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = after(ms, resolve);
    const stop = () => {
      clearTimeout(timer);
      resolve();
    };
    if (this.signal.aborted) stop();
    this.signal.addEventListener("abort", stop);
    return promise.finally(() =>
      this.signal.removeEventListener("abort", stop)
    );
  }

  [Symbol.dispose](): void {
    for (const [signal, listener] of this.#listeners) {
      Deno.removeSignalListener(signal, listener);
    }
  }

  #onSignal(signal: Deno.Signal): void {
    this.told ??= signal;
    this.#controller.abort(new Stopped(signal));
    this.#follower(signal);
  }
}
