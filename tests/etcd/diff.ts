/**
 * `deno task etcd:diff`: sends the same random requests to dkv and to a real etcd, and compares
 * every field of every answer. See tests/README.md, and `--help`.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { taskArgs } from "../../launch.ts";
import { type Difference, KNOWN_DIFFERENCES } from "./compare.ts";
import { generate } from "./generate.ts";
import { Pair } from "./pair.ts";
import { Etcd, missing } from "./program.ts";
import type { Step } from "./steps.ts";

const USAGE = `Usage: deno task etcd:diff -- [options]

Sends the same random sequences of requests to dkv and to an etcd, each started for this run and
empty, and compares every field of every answer. Ends with 0 if there is no difference.

  --seed N          repeats a run (default: from the clock, printed)
  --sequences N     how many (default 5000)
  --first N         from this one on (default 0)
  --requests N      in a sequence (default 50)
  --against A       A is the other server: dkv (default; --nodes N of them, default 3, of which the
                    first is asked), etcd (a second etcd, which shows that the comparison is silent
                    when it should be), or HOST:PORT, whose contents are deleted
  --differences N   stops after so many kinds of difference (default 5)
  --replay FILE     plays the sequence in a file that an earlier run has written
  --help

Not compared:
`;
/** What shrinking one difference may cost. */
const SHRINK_ATTEMPTS = 400;
const SHRINK_MS_MAX = 40_000;
const PROGRESS_MS = 10_000;

/** A server that a run may have started. */
interface Other extends AsyncDisposable {
  readonly address: string;
}

interface Options {
  readonly seed: number;
  readonly first: number;
  readonly sequences: number;
  readonly requests: number;
  readonly differencesMax: number;
  /** How many sequences may be played to shrink one. */
  readonly shrinkAttempts?: number;
}

/** Counts, over a run. */
export interface Summary {
  readonly sequences: number;
  readonly requests: number;
  readonly seconds: number;
  /** One of each kind, shrunk if that succeeded. */
  readonly found: readonly Found[];
}

/** A difference and a sequence that shows it. */
export interface Found {
  readonly sequence: number;
  readonly steps: readonly Step[];
  readonly differences: readonly Difference[];
}

/** Runs sequences on a pair until there are enough differences. */
export async function compareServers(
  pair: Pair,
  options: Options,
  tell: (line: string) => void = () => {},
): Promise<Summary> {
  const { seed, first, sequences, requests, differencesMax } = options;
  const shrink = {
    attempts: options.shrinkAttempts ?? SHRINK_ATTEMPTS,
    milliseconds: SHRINK_MS_MAX,
  };
  const startMs = performance.now();
  let toldMs = startMs;
  const found = new Map<string, Found>();
  let sequence = first;
  await pair.equalise();
  for (; sequence < first + sequences; sequence++) {
    if (found.size >= differencesMax) break;
    const steps = generate({ seed, sequence, requests });
    const differences = await pair.play(steps);
    const [difference] = differences;
    if (difference !== undefined) {
      if (!found.has(difference.kind)) {
        const shrunk = await pair.shrink(steps, difference, shrink);
        const one = { sequence, ...(shrunk ?? { steps, differences }) };
        found.set(difference.kind, one);
        tell(describe(one));
      }
      await pair.equalise();
    }
    if (performance.now() - toldMs > PROGRESS_MS) {
      toldMs = performance.now();
      tell(`${sequence + 1 - first} sequences, ${found.size} differences`);
    }
  }
  const played = sequence - first;
  return {
    sequences: played,
    requests: played * requests,
    seconds: (performance.now() - startMs) / 1000,
    found: [...found.values()],
  };
}

/** A difference for a person. */
export function describe({ differences, steps, sequence }: Found): string {
  const [first] = differences;
  return [
    `── sequence ${sequence}: ${first?.kind ?? ""}`,
    ...steps.map((step, at) =>
      `${at === first?.step ? "→" : " "} ${JSON.stringify(step)}`
    ),
    ...first?.step === null
      ? [`→ ${first.left?.call} ${JSON.stringify(first.left?.request)}`]
      : [],
    ...(first?.lines ?? []).map((line) => `  ${line}`),
    `  left:  ${JSON.stringify(first?.left?.outcome)}`,
    `  right: ${JSON.stringify(first?.right?.outcome)}`,
  ].join("\n");
}

async function main(): Promise<void> {
  const args = parseArgs([...taskArgs(Deno.args)], {
    string: ["seed", "sequences", "first", "requests", "against", "replay"]
      .concat("differences", "nodes"),
    boolean: ["help"],
  });
  if (args["help"] === true) return console.log(usage());
  const why = missing("etcd");
  if (why !== null) {
    console.error(`etcd:diff: ${why}`);
    Deno.exitCode = 2;
    return;
  }
  const number = (name: string, otherwise: number) =>
    Number(args[name] ?? otherwise);
  const options: Options = {
    seed: number("seed", Date.now() % 1_000_000),
    first: number("first", 0),
    sequences: number("sequences", 5000),
    requests: number("requests", 50),
    differencesMax: number("differences", 5),
  };
  await using etcd = await Etcd.start();
  await using other = await startOther(
    String(args["against"] ?? "dkv"),
    number("nodes", 3),
  );
  using pair = new Pair(etcd.address, other.address);
  const replayed = args["replay"];
  if (replayed !== undefined) return await replay(pair, String(replayed));
  console.log(
    `etcd:diff: seed ${options.seed}; left: etcd, right: ` +
      String(args["against"] ?? "dkv"),
  );
  try {
    const summary = await compareServers(pair, options, console.log);
    await tellSummary(summary, options);
  } catch (error) {
    console.error(`etcd printed last:\n${etcd.output}`);
    throw error;
  }
}

async function tellSummary(
  { sequences, requests, seconds, found }: Summary,
  { seed }: Options,
): Promise<void> {
  for (const one of found) {
    const path = `.tmp/etcd-diff-${seed}-${one.sequence}.jsonl`;
    await Deno.mkdir(".tmp", { recursive: true });
    await Deno.writeTextFile(
      path,
      one.steps.map((step) => `${JSON.stringify(step)}\n`).join(""),
    );
    console.log(
      `sequence ${one.sequence} again: deno task etcd:diff -- --replay ${path}`,
    );
  }
  console.log(
    `seed ${seed}: ${sequences} sequences, ${requests} requests in ` +
      `${seconds.toFixed(1)} s (${Math.round(requests / seconds)}/s), ` +
      `${found.length} differences`,
  );
  if (found.length > 0) Deno.exitCode = 1;
}

async function replay(pair: Pair, path: string): Promise<void> {
  const text = await Deno.readTextFile(path);
  const steps = text.trim().split("\n").map((line) => JSON.parse(line) as Step);
  await pair.equalise();
  const differences = await pair.play(steps);
  for (const difference of differences) {
    console.log(describe({ sequence: 0, steps, differences: [difference] }));
  }
  console.log(`${steps.length} requests, ${differences.length} differences`);
  if (differences.length > 0) Deno.exitCode = 1;
}

async function startOther(name: string, nodes: number): Promise<Other> {
  if (name === "etcd") return await Etcd.start();
  if (name !== "dkv") {
    return { address: name, [Symbol.asyncDispose]: () => Promise.resolve() };
  }
  const { TestCluster } = await import("../cluster.ts");
  const cluster = await TestCluster.start({ nodes });
  return {
    address: cluster.address("node1"),
    [Symbol.asyncDispose]: () => cluster[Symbol.asyncDispose](),
  };
}

function usage(): string {
  const known = KNOWN_DIFFERENCES.map(({ what, reason }) =>
    `  ${what}\n    ${reason}`
  );
  return `${USAGE}${known.join("\n")}`;
}

if (import.meta.main) await main();
