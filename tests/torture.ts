/**
 * `deno task torture`: faults on live processes. Real nodes and real clients, a nemesis that kills,
 * pauses, cuts off, damages and starts again, and a judge who looks at everything that anybody was
 * told.
 *
 * ```text
 *   --seconds S      how long, about; 300 unless given
 *   --seed N         of the faults and of what clients do; a random one if absent, and then printed
 *   --history FILE   where to write everything down; .tmp/torture-SEED.jsonl unless given
 *   --nodes N        rounds of so many nodes only; 3 and 5 by turns unless given
 *   --only A,B       these kinds of faults only
 *   --go-on          do not end with the first round in which something is wrong
 *   --check FILE     judges what was written down before, and runs nothing
 * ```
 *
 * A seed repeats the faults and the clients' intentions, not the course of things: processes are
 * scheduled as the system likes. What happened stands in the history.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { onStop, taskArgs } from "../launch.ts";
import { Random } from "./sim/random.ts";
import { mayMount } from "./small_disks.ts";
import {
  judge,
  type Judgement,
  readRound,
  type Violation,
} from "./torture/judge.ts";
import { Deck, type FaultKind, FAULTS } from "./torture/nemesis.ts";
import type { TortureRecord } from "./torture/record.ts";
import { MEMORY_MIB_MAX, type RoundResult, runRound } from "./torture/round.ts";

const SECONDS = 300;
const ROUND_SECONDS = 120;
/** What a round needs beside its load: starting, healing, judging. */
const AROUND_SECONDS = 25;
const LOAD_SECONDS_MIN = 5;
/** How much longer than asked a run may take before it is ended. */
const LATE_SECONDS_MAX = 240;
const CLEAN_MS_MAX = 30_000;
const FLUSH_CHARACTERS = 64 * 1024;

/** Settings that rounds take by turns: short logs make snapshots, long ones do not. */
const SETTINGS = [
  { catchUpEntries: 100 },
  {},
  { catchUpEntries: 20, electionTicksMin: 20 },
  { catchUpEntries: 1000, tickMs: 100, heartbeatTicks: 1 },
  { catchUpEntries: 50, tickMs: 30 },
] as const;

/** The file that everything is written to, as it happens. */
class HistoryFile implements Disposable {
  readonly #file: Deno.FsFile;
  #text = "";

  constructor(path: string) {
    this.#file = Deno.openSync(path, {
      create: true,
      truncate: true,
      write: true,
    });
  }

  write(record: TortureRecord): void {
    this.#text += `${JSON.stringify(record)}\n`;
    if (this.#text.length > FLUSH_CHARACTERS) this.flush();
  }

  flush(): void {
    let bytes = new TextEncoder().encode(this.#text);
    while (bytes.length > 0) {
      bytes = bytes.subarray(this.#file.writeSync(bytes));
    }
    this.#text = "";
  }

  [Symbol.dispose](): void {
    this.flush();
    this.#file.close();
  }
}

/** The records of each round of a file. */
async function* roundsOf(path: string): AsyncGenerator<TortureRecord[]> {
  using file = await Deno.open(path);
  let records: TortureRecord[] = [];
  let rest = "";
  for await (const text of file.readable.pipeThrough(new TextDecoderStream())) {
    const lines = `${rest}${text}`.split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      const record = JSON.parse(line) as TortureRecord;
      if (record.t === "round" && records.length > 1) {
        yield records;
        records = [];
      }
      records.push(record);
    }
  }
  yield records;
}

/** What all rounds have come to. */
class Totals {
  readonly faults = new Map<string, number>();
  readonly counts = { ok: 0, failed: 0, unknown: 0 };
  rounds = 0;
  violations = 0;
  steps = 0;
  events = 0;
  elections = 0;
  snapshots = 0;
  longestMs = 0;
  longestUntouchedMs = 0;
  highestMib: number | null = null;

  add(judgement: Judgement): void {
    this.rounds++;
    this.steps += judgement.steps;
    this.events += judgement.events;
    this.violations += judgement.violations.length;
    for (const name of ["ok", "failed", "unknown"] as const) {
      this.counts[name] += judgement.counts[name];
    }
  }

  addRound(result: RoundResult): void {
    this.add(result.judgement);
    for (const [kind, count] of result.faults) {
      this.faults.set(kind, (this.faults.get(kind) ?? 0) + count);
    }
    this.elections += result.elections;
    this.snapshots += result.snapshots;
    this.longestMs = Math.max(this.longestMs, result.longestMs);
    this.longestUntouchedMs = Math.max(
      this.longestUntouchedMs,
      result.longestUntouchedMs,
    );
    if (result.highestMib !== null) {
      this.highestMib = Math.max(this.highestMib ?? 0, result.highestMib);
    }
  }
}

function countText({ ok, failed, unknown }: Judgement["counts"]): string {
  return `${ok} ok, ${failed} failed, ${unknown} unknown`;
}

function showViolations(violations: readonly Violation[]): void {
  for (const { check, text, details } of violations) {
    console.error(`  VIOLATION ${check}: ${text}`);
    for (const detail of details) console.error(`    ${detail}`);
  }
}

function row(name: string, value: string | number): void {
  console.log(`  ${name.padEnd(42)} ${value}`);
}

function summarize(
  totals: Totals,
  { verdict, seed, path }: { verdict: string; seed: number; path: string },
): void {
  console.log("\ntorture:");
  row("rounds", totals.rounds);
  const faults = [...totals.faults.values()].reduce((sum, n) => sum + n, 0);
  row("faults", faults);
  for (const kind of Object.values(FAULTS).flat()) {
    row(`  ${kind}`, totals.faults.get(kind) ?? 0);
  }
  row("operations", countText(totals.counts));
  row("changes", totals.events);
  row("elections, snapshots", `${totals.elections}, ${totals.snapshots}`);
  row("longest without an acknowledged write", `${ms(totals.longestMs)} ms`);
  row(
    "  while a majority was untouched",
    `${ms(totals.longestUntouchedMs)} ms`,
  );
  const memory = totals.highestMib === null
    ? "not known here"
    : `${totals.highestMib} MiB, at most ${MEMORY_MIB_MAX}`;
  row("highest memory of a node", memory);
  row("steps of the search", totals.steps);
  row("seed", seed);
  row("history", path);
  row("verdict", verdict);
}

function ms(value: number): number {
  return Math.round(value);
}

/** Judges a file. */
async function checkFile(path: string): Promise<boolean> {
  const totals = new Totals();
  for await (const records of roundsOf(path)) {
    const judgement = judge(readRound(records));
    totals.add(judgement);
    const found = records.find((record) => record.t === "round");
    console.log(
      `round ${found?.round ?? "?"}: ${countText(judgement.counts)}, ` +
        `${judgement.events} changes, ${judgement.steps} steps, ` +
        `${judgement.violations.length} violations`,
    );
    showViolations(judgement.violations);
  }
  const { violations, rounds } = totals;
  console.log(
    `${path}: ${rounds} rounds, ${violations} violations: ${
      violations === 0 ? "passed" : "FAILED"
    }`,
  );
  return violations === 0;
}

interface Plan {
  readonly seconds: number;
  readonly seed: number;
  readonly path: string;
  readonly nodes: number | null;
  readonly only: readonly string[];
  readonly goOn: boolean;
}

/** A whole number of seconds, nodes and the like. */
function wholeNumber(name: string, text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value > 0) return value;
  console.error(`--${name} is not a whole number above 0: ${text}`);
  Deno.exit(2);
}

function planOf(
  options:
    & {
      readonly [name in "seed" | "seconds" | "history" | "nodes" | "only"]?:
        | string
        | undefined;
    }
    & { readonly "go-on": boolean },
): Plan {
  const seed = wholeNumber(
    "seed",
    options.seed ?? String(1 + Date.now() % 1_000_000),
  );
  const only = (options.only ?? "").split(",").filter((kind) => kind !== "");
  const known: readonly string[] = Object.values(FAULTS).flat();
  for (const kind of only) {
    if (known.includes(kind)) continue;
    console.error(`No fault is called ${kind}, known: ${known.join(", ")}`);
    Deno.exit(2);
  }
  const { nodes } = options;
  return {
    seed,
    seconds: wholeNumber("seconds", options.seconds ?? String(SECONDS)),
    path: options.history ?? `.tmp/torture-${seed}.jsonl`,
    nodes: nodes === undefined ? null : wholeNumber("nodes", nodes),
    only,
    goOn: options["go-on"],
  };
}

/** Runs rounds until the time is over; true if nothing was wrong. */
class Torture {
  readonly #plan: Plan;
  readonly #totals = new Totals();
  readonly #abort = new AbortController();
  /** What is to be undone of the round that runs. */
  #stack = new AsyncDisposableStack();
  #cleaning: Promise<void> | null = null;
  #file: HistoryFile | null = null;
  #stopped = false;

  constructor(plan: Plan) {
    this.#plan = plan;
  }

  /** Ends everything now, and leaves nothing behind. */
  async stop(why: string): Promise<never> {
    if (this.#stopped) Deno.exit(1);
    this.#stopped = true;
    console.error(`torture: ${why}: stopping`);
    this.#abort.abort();
    setTimeout(() => Deno.exit(1), CLEAN_MS_MAX);
    await this.#clean();
    this.#file?.flush();
    Deno.exit(1);
  }

  /** Once, whoever asks first. */
  #clean(): Promise<void> {
    return this.#cleaning ??= this.#stack.disposeAsync();
  }

  async run(): Promise<boolean> {
    const { seed, seconds, path } = this.#plan;
    const mounts = mayMount();
    console.log(`torture: ${seconds} s, seed ${seed}, history in ${path}`);
    if (!mounts) {
      console.log("  no full disks: the right to mount is missing here");
    }
    Deno.mkdirSync(".tmp", { recursive: true });
    using file = new HistoryFile(path);
    this.#file = file;
    file.write({ t: "run", seed, seconds });
    const random = new Random(seed, "torture");
    const deck = new Deck(new Random(seed, "deck"));
    const rounds = Math.max(1, Math.round(seconds / ROUND_SECONDS));
    const startMs = performance.now();
    const late = setTimeout(
      () => this.stop("too late"),
      1000 * (seconds + LATE_SECONDS_MAX),
    );
    for (let round = 0; round < rounds; round++) {
      const spent = (performance.now() - startMs) / 1000;
      const share = (seconds - spent) / (rounds - round);
      const loadMs = 1000 * Math.max(LOAD_SECONDS_MIN, share - AROUND_SECONDS);
      await this.#round({ round, loadMs, mounts, random, deck, file });
      if (this.#totals.violations > 0 && !this.#plan.goOn) break;
    }
    clearTimeout(late);
    return this.#verdict();
  }

  async #round(
    { round, loadMs, mounts, random, deck, file }: {
      round: number;
      loadMs: number;
      mounts: boolean;
      random: Random;
      deck: Deck;
      file: HistoryFile;
    },
  ): Promise<void> {
    const { seed, only } = this.#plan;
    const nodes = this.#plan.nodes ?? (round % 2 === 0 ? 3 : 5);
    // Real disks most of the time: files in memory are synced in no time.
    const smallDisks = mounts && round % 3 === 1;
    this.#stack = new AsyncDisposableStack();
    this.#cleaning = null;
    await using _cleaning = { [Symbol.asyncDispose]: () => this.#clean() };
    const result = await runRound({
      round,
      nodes,
      settings: random.pick(SETTINGS),
      smallDisks,
      loadMs,
      seed: seed + round,
      random,
      deck,
      isWanted: (kind: FaultKind) => only.length === 0 || only.includes(kind),
      onRecord: (record) => file.write(record),
      stack: this.#stack,
      signal: this.#abort.signal,
    });
    file.flush();
    this.#totals.addRound(result);
    const { counts, violations } = result.judgement;
    const faults = [...result.faults.values()].reduce((sum, n) => sum + n, 0);
    console.log(
      `round ${round}: ${nodes} nodes${smallDisks ? " on small disks" : ""}, ` +
        `${faults} faults, ${
          countText(counts)
        }, ${result.elections} elections, ` +
        `${result.snapshots} snapshots, longest wait ${
          ms(result.longestMs)
        } ms` +
        `, ${result.highestMib ?? "?"} MiB, ${violations.length} violations`,
    );
    showViolations(violations);
    if (violations.length > 0) console.error(result.output);
  }

  #verdict(): boolean {
    const { seed, path } = this.#plan;
    const passed = this.#totals.violations === 0 && !this.#stopped;
    const verdict = passed ? "passed" : "FAILED";
    summarize(this.#totals, { verdict, seed, path });
    if (!passed) {
      console.log(`  again: deno task torture -- --check ${path}`);
    }
    return passed;
  }
}

async function main(): Promise<boolean> {
  const options = parseArgs([...taskArgs(Deno.args)], {
    string: ["seconds", "seed", "history", "nodes", "only", "check"],
    boolean: ["go-on"],
  });
  if (options.check !== undefined) return await checkFile(options.check);
  const torture = new Torture(planOf(options));
  onStop((signal) => void torture.stop(signal));
  return await torture.run();
}

Deno.exit(await main() ? 0 : 1);
