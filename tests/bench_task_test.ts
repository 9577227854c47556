/** `deno task bench`: its arithmetic, its load, its pictures, and a short run of it. */

import {
  assert,
  assertEquals,
  assertGreater,
  assertGreaterOrEqual,
  assertLess,
  assertLessOrEqual,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { verdictsOf } from "../bench/bars.ts";
import { chartOf } from "../bench/charts.ts";
import { growthCharts } from "../bench/growthcharts.ts";
import { Axis } from "../bench/linechart.ts";
import { closedLoop, inBulk, openLoop, Schedule } from "../bench/load.ts";
import { BadOption, benchOptions, growthOptions } from "../bench/options.ts";
import { stepsOf } from "../bench/plan.ts";
import {
  type Machine,
  ratioOf,
  ratiosOf,
  type Results,
  Rows,
} from "../bench/results.ts";
import {
  median,
  pairRatios,
  percentile,
  type Sample,
  sampleOf,
  spread,
} from "../bench/statistics.ts";
import { escaped, numberText } from "../bench/svg.ts";
import { type System, SYSTEMS, TITLES } from "../bench/system.ts";
import { markdownOf, replaceSection } from "../bench/tables.ts";
import {
  type Context,
  preload,
  WORKLOADS,
  workloadsLike,
} from "../bench/workloads.ts";
import { randomOf, Zipf } from "../bench/zipf.ts";
import { eventually } from "./cluster.ts";
import { Follower } from "./dkv.ts";
import { CLUSTER_NEEDS, needs } from "./needs.ts";

const ROOT = decodeURIComponent(new URL("..", import.meta.url).pathname);

const MACHINE: Machine = {
  processor: 'A <fast> "one" & more',
  cores: 2,
  memoryGib: 24,
  system: "linux 6",
  deno: "2.9.3",
  syncP50Ms: 0.3,
  syncP99Ms: 2,
};

Deno.test("bench: percentiles are values that were measured", () => {
  const values = Array.from({ length: 100 }, (_, at) => at + 1);
  assertEquals(percentile(values, 0.5), 50);
  assertEquals(percentile(values, 0.99), 99);
  assertEquals(percentile(values, 1), 100);
  assertEquals(percentile(values, 0), 1);
  assertEquals(percentile([7], 0.99), 7);
  assertEquals(percentile([], 0.5), NaN);
});

Deno.test("bench: the median is in the middle, of two between them", () => {
  assertEquals(median([3, 1, 2]), 2);
  assertEquals(median([4, 1, 2, 3]), 2.5);
  assertEquals(median([]), NaN);
  assertEquals(spread([5, 1, 2]), { min: 1, median: 2, max: 5 });
});

Deno.test("bench: a sample sorts latencies as numbers", () => {
  const latenciesMs = Array.from({ length: 200 }, (_, at) => 200 - at);
  assertEquals(sampleOf(latenciesMs, 500), {
    count: 200,
    perSecond: 400,
    p50Ms: 100,
    p99Ms: 198,
    maxMs: 200,
  });
  assertEquals(sampleOf([], 0).perSecond, 0);
});

Deno.test("bench: ratios are those of the same round", () => {
  const ours = new Map([[0, 10], [1, 30], [3, 8]]);
  const theirs = new Map([[3, 0], [2, 1], [1, 10], [0, 5]]);
  assertEquals(pairRatios(ours, theirs), [2, 3]);
});

Deno.test("bench: results leave out rounds that failed", () => {
  const rows = new Rows();
  const add = (
    system: "dkv" | "etcd",
    round: number,
    perSecond: number | null,
  ) =>
    rows.add(
      { workload: "put 64", system, paced: false, round },
      perSecond === null ? { error: "gone" } : sampleAt(perSecond),
    );
  for (const [round, perSecond] of [600, 1200, 900].entries()) {
    add("dkv", round, perSecond);
    add("etcd", round, round === 1 ? null : 100);
  }
  assertEquals(rows.all[1]?.perSecond, [100, null, 100]);
  const ratios = ratiosOf(rows.all);
  const wanted = { workload: "put 64", system: "dkv", other: "etcd" } as const;
  const rate = ratioOf(ratios, { ...wanted, metric: "perSecond" });
  assertEquals(rate?.rounds, 2);
  assertEquals(rate?.spread, { min: 6, median: 7.5, max: 9 });
  assertEquals(ratioOf(ratios, { ...wanted, metric: "p50Ms" })?.rounds, 2);
  const text = markdownOf(resultsOf(rows));
  assertStringIncludes(text, "a round failed: gone");
  const verdict = verdictsOf({ ratios }).find(({ bar }) =>
    bar.workload === "put 64" && bar.other === "etcd" && bar.system === "dkv"
  );
  assertEquals([verdict?.bar.atLeast, verdict?.met], [6, true]);
  assertEquals(
    verdictsOf({ ratios }).filter(({ met }) => met !== null).length,
    1,
  );
});

Deno.test("bench: Zipf prefers low ranks as it says, and repeats itself", () => {
  const count = 1000;
  const draws = 50_000;
  const take = () => {
    const ranks = new Zipf(count, { random: randomOf(7) });
    return Array.from({ length: draws }, () => ranks.next());
  };
  const ranks = take();
  assertEquals(ranks, take());
  const hits = new Array<number>(count).fill(0);
  for (const rank of ranks) hits[rank] = (hits[rank] ?? NaN) + 1;
  assertEquals(hits.length, count);
  const weights = Array.from({ length: count }, (_, at) => (at + 1) ** -0.99);
  const sum = weights.reduce((a, b) => a + b);
  for (const rank of [0, 1, 9]) {
    const expected = draws * (weights[rank] ?? 0) / sum;
    assertLess(Math.abs((hits[rank] ?? 0) / expected - 1), 0.1, `rank ${rank}`);
  }
  // Half of the probability lies in the first ranks, and the last one can come too.
  const tail = new Zipf(3, { random: () => 1 - 2 ** -32 });
  assertEquals(tail.next(), 2);
  assertEquals(new Zipf(3, { random: () => 0 }).next(), 0);
});

Deno.test("bench: a schedule says what is due when", () => {
  const schedule = new Schedule({ startMs: 1000, perSecond: 200, forMs: 50 });
  assertEquals(schedule.count, 10);
  assertEquals(schedule.timeOf(0), 1000);
  assertEquals(schedule.timeOf(3), 1015);
  assertEquals(
    [999, 1000, 1004.9, 1005, 1049, 5000].map((now) => schedule.dueBy(now)),
    [0, 1, 1, 2, 10, 10],
  );
});

Deno.test("bench: latencies of an open loop count from when they were due", async () => {
  let issued = 0;
  const stallMs = 40;
  const sample = await openLoop(() => {
    if (issued++ === 0) {
      // The client stands still; nothing is issued meanwhile.
      const endMs = performance.now() + stallMs;
      while (performance.now() < endMs);
    }
    return Promise.resolve();
  }, { perSecond: 1000, forMs: 60 });
  assertEquals(sample.count, 60);
  assertEquals(issued, 60);
  assertGreaterOrEqual(sample.maxMs, stallMs);
  // About 40 of 60 came late, by 20 ms in the middle.
  assertGreater(sample.p50Ms, 5);
});

Deno.test("bench: a closed loop keeps so many in flight, and no more", async () => {
  let now = 0;
  let highest = 0;
  const seen = new Set<number>();
  const sample = await closedLoop(async (n) => {
    seen.add(n);
    highest = Math.max(highest, ++now);
    await new Promise((resolve) => setTimeout(resolve, 1));
    now--;
  }, { inFlight: 7, forMs: 30 });
  assertEquals(highest, 7);
  assertEquals(now, 0);
  assertEquals(seen.size, sample.count);
  assertGreaterOrEqual(sample.count, 7);
});

Deno.test("bench: when an operation fails, all others have ended before it is told", async () => {
  for (const loop of [closedLoop, bulk]) {
    let now = 0;
    let issued = 0;
    await assertRejects(
      () =>
        loop(async (n) => {
          issued++;
          now++;
          await new Promise((resolve) => setTimeout(resolve, 1 + n % 5));
          now--;
          if (n === 12) throw new Error("no twelfth");
        }, { inFlight: 5, forMs: 1000 }),
      Error,
      "no twelfth",
    );
    assertEquals(now, 0);
    // None begins after the failure is known.
    assertLess(issued, 50);
  }
});

function bulk(
  issue: (n: number) => Promise<unknown>,
  { inFlight }: { inFlight: number },
): Promise<number> {
  return inBulk(issue, { inFlight, count: 500 });
}

Deno.test("bench: in a round systems take turns, and each round begins with another", () => {
  const systems = ["dkv", "etcd", "redis"].map((name): System => ({
    name: name as System["name"],
    put: () => Promise.resolve(),
  }));
  const workloads = workloadsLike(["put 64", "put 256", "get 64"]);
  const steps = stepsOf(systems, { workloads, rounds: 2 });
  assertEquals(
    steps.map(({ round, workload, system }) =>
      `${round} ${workload.name} ${system.name}`
    ),
    [
      ...["dkv", "etcd", "redis"].map((name) => `0 put 64 ${name}`),
      ...["dkv", "etcd", "redis"].map((name) => `0 put 256 ${name}`),
      ...["etcd", "redis", "dkv"].map((name) => `1 put 64 ${name}`),
      ...["etcd", "redis", "dkv"].map((name) => `1 put 256 ${name}`),
    ],
  );
});

Deno.test("bench: options say what is wrong with them", () => {
  assertEquals(benchOptions([])?.out, "bench");
  assertEquals(benchOptions(["--quick"])?.out, ".tmp/bench");
  assertEquals(benchOptions(["--only", "dkv"])?.out, ".tmp/bench");
  assertEquals(benchOptions(["--only=etcd,dkv"])?.only, ["dkv", "etcd"]);
  assertEquals(benchOptions(["--help"]), null);
  for (
    const args of [
      ["--only", "mysql"],
      ["--workloads", "nothing"],
      ["--rounds", "none"],
      ["--keys", "5"],
      ["--fast"],
    ]
  ) {
    assertThrows(
      () => benchOptions(args),
      BadOption,
      undefined,
      args.join(" "),
    );
  }
  assertThrows(() => growthOptions(["--sizes", "1"]), BadOption);
  assertEquals(growthOptions(["--sizes", "20000,10000"])?.sizes, [
    10000,
    20000,
  ]);
});

Deno.test("bench: patterns choose workloads by name", () => {
  const names = (...patterns: string[]) =>
    workloadsLike(patterns).map(({ name }) => name);
  assertEquals(names("put 64", " get 1"), ["put 64", "get 1"]);
  assertEquals(names("watch *"), ["watch 1", "watch 10", "watch 100"]);
  assertEquals(names("put"), []);
  assertEquals(names("*").length, WORKLOADS.length);
  assertEquals(new Set(names("*")).size, WORKLOADS.length);
});

const DELIVERY_MS = 8;

/** A system that keeps everything in memory. */
class Fake implements System {
  readonly name = "dkv";
  readonly values = new Map<string, Uint8Array>();
  gets = 0;
  readonly #watchers = new Set<
    { prefix: string; tell: (key: string) => void }
  >();

  put(key: string, value: Uint8Array): Promise<void> {
    this.values.set(key, value);
    for (const { prefix, tell } of this.#watchers) {
      // Later than the acknowledgement.
      if (key.startsWith(prefix)) setTimeout(() => tell(key), DELIVERY_MS);
    }
    return tick();
  }

  async get(key: string): Promise<void> {
    assert(this.values.has(key), key);
    this.gets++;
    await tick();
  }

  getSerializable(key: string): Promise<void> {
    return this.get(key);
  }

  update(key: string, value: Uint8Array): Promise<void> {
    assert(this.values.has(key), key);
    return this.put(key, value);
  }

  async list(prefix: string): Promise<number> {
    await tick();
    return [...this.values.keys()].filter((key) => key.startsWith(prefix))
      .length;
  }

  watch(
    prefix: string,
    { count, onChange: tell }: {
      count: number;
      onChange: (key: string) => void;
    },
  ): Promise<AsyncDisposable> {
    const watchers = Array.from({ length: count }, () => ({ prefix, tell }));
    for (const watcher of watchers) this.#watchers.add(watcher);
    return Promise.resolve({
      [Symbol.asyncDispose]: () => {
        for (const watcher of watchers) this.#watchers.delete(watcher);
        return Promise.resolve();
      },
    });
  }
}

function tick(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 1));
}

Deno.test("bench: every workload does its work", async () => {
  const system = new Fake();
  const keys = 2000;
  await preload(system, keys);
  assertEquals(system.values.size, keys + 100 + 16);
  const rates: Context["rates"] = new Map();
  const context = { keys, warmMs: 10, forMs: 30, seed: 1, rates };
  for (const workload of WORKLOADS) {
    assert(workload.can(system), workload.name);
    const sample = await workload.measure(system, context);
    const { count, p50Ms, p99Ms, perSecond } = sample;
    assertGreater(count, 0, workload.name);
    assertGreaterOrEqual(p99Ms, p50Ms, workload.name);
    assertGreater(perSecond, 0, workload.name);
    if (workload.name === "watch 100") {
      assertEquals(count, 300);
      assertGreaterOrEqual(p50Ms, DELIVERY_MS - 1);
    }
    if (workload.name === "open put 1000/s") assertEquals(count, 30);
  }
  // All the same keys: nothing but what was loaded, what is watched, and large values.
  const others = [...system.values.keys()].filter((key) =>
    !/^(bench\/\d{8}|list\/\d{8}|hot\/\d+)$/.test(key)
  );
  assert(others.every((key) => /^(watch\/|large\/)/.test(key)), others[0]);
  assertEquals(system.values.get("large/1024/0")?.length, 2 ** 20);
  assertGreater(rates.get("dkv") ?? 0, 0);
  // A system that forgets is not quick but wrong.
  system.values.delete("list/00000007");
  const [list] = workloadsLike(["list *"]);
  await assertRejects(
    async () => await list?.measure(system, context),
    Error,
    "Listed 99 of 100 keys",
  );
});

Deno.test("bench: text in pictures is escaped, and numbers are short", () => {
  assertEquals(escaped('<a b="c">&'), "&lt;a b=&quot;c&quot;&gt;&amp;");
  assertEquals(
    [1234567, 21_449, 99.96, 9.876, 0.5, 0.0581, 0, 100].map(numberText),
    ["1,230,000", "21,400", "100", "9.88", "0.5", "0.058", "0", "100"],
  );
});

Deno.test("bench: an axis covers its values with round numbers", () => {
  const axis = new Axis([1.18, 3.44]);
  assertEquals(axis.ticks, [1, 2, 5, 10]);
  assertEquals([1, 10].map((value) => axis.shareOf(value)), [0, 1]);
  const long = new Axis([7, 180_000]);
  assertEquals(long.ticks, [10, 100, 1000, 10_000, 100_000]);
  assertLessOrEqual(long.shareOf(180_000), 1);
  assertGreaterOrEqual(long.shareOf(7), 0);
  // Equal values, and whole decades.
  assertEquals(new Axis([100, 100]).ticks, [100, 200, 500, 1000]);
});

Deno.test("bench: the chart is well formed and says everything", () => {
  const rows = new Rows();
  for (
    const workload of ["put 1", "put 64", "put 256", "put 1024", "get 256"]
  ) {
    for (const [at, system] of SYSTEMS.entries()) {
      if (system === "redis-wait") continue;
      const key = { workload, system, paced: false, round: 0 };
      rows.add(key, sampleAt(1000 * (at + 1)));
    }
  }
  const results = resultsOf(rows);
  const svg = chartOf(results);
  assertWellFormed(svg);
  for (const system of SYSTEMS) {
    const shown = system !== "redis-wait";
    assertEquals(svg.includes(`>${TITLES[system]}</text>`), shown, system);
  }
  for (
    const text of [
      "Puts a second",
      "1,024",
      "5,000",
      "(0.33 × etcd)",
      "Not installed: Redis, WAIT 1.",
      "A &lt;fast&gt; &quot;one&quot; &amp; more",
    ]
  ) {
    assertStringIncludes(svg, text);
  }
  assertEquals(svg.match(/NaN|undefined|Infinity/g), null);
});

Deno.test("bench: charts of growth are well formed and say everything", () => {
  const charts = growthCharts({
    startedAt: "2026-01-01T00:00:00Z",
    machine: MACHINE,
    seconds: 1,
    keys: [10_000, 1_000_000].map((keys) => ({
      keys,
      loadPerSecond: 1,
      putsPerSecond: 12_345,
      getsPerSecond: 20_000,
      memoryBytes: keys * 300,
      fileBytes: keys * 250,
      restartMs: 1000 + keys / 1000,
      snapshotMs: 2000 + keys / 1000,
    })),
    nodes: [],
    values: [{ bytes: 10, inFlight: 1, putsPerSecond: 1, mibPerSecond: 0.1 }],
    watchers: [0, 1].map((watchers) => ({
      watchers,
      putsPerSecond: 1000,
      deliveriesPerSecond: 1000 * watchers,
    })),
  });
  assertEquals(Object.keys(charts), [
    "growth-rate.svg",
    "growth-memory.svg",
    "growth-file.svg",
    "growth-restart.svg",
    "growth-values.svg",
    "growth-bytes.svg",
    "growth-watchers.svg",
  ]);
  for (const [name, svg] of Object.entries(charts)) {
    assertWellFormed(svg);
    assertEquals(svg.match(/NaN|undefined|Infinity/g), null, name);
  }
  const rate = charts["growth-rate.svg"] ?? "";
  for (const text of [">1,000,000<", ">puts 12,300<", ">gets 20,000<"]) {
    assertStringIncludes(rate, text);
  }
});

Deno.test("bench: a section is replaced between its marks, or not at all", () => {
  const text = "a\n<!-- x -->\nold\n<!-- end of x -->\nb\n";
  assertEquals(
    replaceSection(text, { name: "x", content: "new" }),
    "a\n<!-- x -->\n\nnew\n\n<!-- end of x -->\nb\n",
  );
  assertEquals(replaceSection(text, { name: "y", content: "new" }), null);
});

needs(["read"], "bench: its packages are those of dkv, and ioredis", () => {
  interface Lock {
    readonly specifiers: Record<string, string>;
    readonly npm: Record<string, unknown>;
  }
  const read = (path: string): Lock =>
    JSON.parse(Deno.readTextFileSync(`${ROOT}${path}`));
  const own = read("deno.lock");
  const bench = read("bench/deno.lock");
  const more = Object.keys(bench.specifiers).filter((name) =>
    own.specifiers[name] !== bench.specifiers[name]
  );
  assertEquals(more, ["npm:ioredis@5.11.1"]);
  for (const name of Object.keys(own.npm)) {
    assertEquals(bench.npm[name], own.npm[name], name);
  }
});

needs(
  CLUSTER_NEEDS,
  "bench: a short run leaves results and nothing else",
  async () => {
    const out = `.tmp/bench-${crypto.randomUUID()}`;
    try {
      await using run = new Run(["--rounds", "2", "--out", out]);
      const nodes = await run.nodes();
      assertEquals(await run.code(), 0, run.text);
      await assertGone(nodes);
      assertStringIncludes(run.text, "Operations a second (median)");
      const path = `${ROOT}${out}`;
      const results: Results = JSON.parse(
        await Deno.readTextFile(`${path}/results.json`),
      );
      assertEquals(results.rounds, 2);
      assertEquals(results.subjects.map(({ name }) => name), ["dkv"]);
      assertEquals(
        results.rows.map(({ workload, system, error }) => [
          workload,
          system,
          error,
        ]),
        [["put 1", "dkv", undefined], ["put 64", "dkv", undefined]],
      );
      for (const { perSecond, p50Ms, p99Ms, maxMs } of results.rows) {
        for (const numbers of [perSecond, p50Ms, p99Ms, maxMs]) {
          assertEquals(numbers.length, 2);
          for (const number of numbers) assertGreater(number ?? 0, 0);
        }
      }
      assertWellFormed(await Deno.readTextFile(`${path}/chart.svg`));
    } finally {
      await Deno.remove(`${ROOT}${out}`, { recursive: true });
    }
  },
  { sanitizeOps: false, sanitizeResources: false },
);

needs(CLUSTER_NEEDS, "bench: an interrupted run leaves nothing", async () => {
  await using run = new Run(["--rounds", "100", "--out", ".tmp/never"]);
  const nodes = await run.nodes();
  run.interrupt();
  assertEquals(await run.code(), 130, run.text);
  await assertGone(nodes);
  await assertRejects(() => Deno.stat(`${ROOT}.tmp/never`));
}, { sanitizeOps: false, sanitizeResources: false });

/** A node of a run: its process and its directory. */
interface RunningNode {
  readonly pid: number;
  readonly dir: string;
}

/** Two workloads on dkv alone, without ioredis. */
class Run implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #output: Follower;
  readonly #errors: Follower;

  constructor(more: readonly string[]) {
    const args = ["--only", "dkv", "--workloads", "put 1,put 64"];
    this.#child = new Deno.Command("deno", {
      args: [
        ...["run", "-q", "--lock", "--frozen", "--no-prompt", "-P=bench"],
        "--allow-env",
        "bench/main.ts",
        ...[...args, "--seconds", "0.2", "--keys", "1024", ...more],
      ],
      cwd: ROOT,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#output = new Follower(this.#child.stdout);
    this.#errors = new Follower(this.#child.stderr);
  }

  get text(): string {
    return `${this.#output.text}${this.#errors.text}`;
  }

  /** Its nodes, when all have started. */
  async nodes(): Promise<RunningNode[]> {
    await this.#output.until(/measurements, about/);
    const found = await childrenOf(this.#child.pid);
    if (found !== null) assertEquals(found.length, 3, JSON.stringify(found));
    return found ?? [];
  }

  interrupt(): void {
    this.#child.kill("SIGINT");
  }

  async code(): Promise<number> {
    await Promise.all([this.#output.rest(), this.#errors.rest()]);
    return (await this.#child.status).code;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGTERM");
    } catch {
      // It has ended.
    }
    await this.#child.status;
  }
}

/** Nodes that a process has started; null where the system does not tell. */
async function childrenOf(parent: number): Promise<RunningNode[] | null> {
  const lines = await askSystem(`
    for (const { name } of Deno.readDirSync("/proc")) {
      try {
        const stat = Deno.readTextFileSync("/proc/" + name + "/stat");
        const after = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
        if (after[1] !== "${parent}") continue;
        const words = Deno.readTextFileSync("/proc/" + name + "/cmdline")
          .split("\\0");
        const at = words.indexOf("--data");
        if (at > 0) console.log(name, words[at + 1]);
      } catch {}
    }
    console.log("end");
  `);
  if (lines.at(-1) !== "end") return null;
  return lines.slice(0, -1).map((line) => {
    const [pid, dir = ""] = line.split(" ");
    return { pid: Number(pid), dir };
  });
}

async function assertGone(nodes: readonly RunningNode[]): Promise<void> {
  const pids = nodes.map(({ pid }) => pid);
  await eventually("no node runs any more", async () => {
    const lines = await askSystem(`
      for (const pid of ${JSON.stringify(pids)}) {
        try {
          Deno.statSync("/proc/" + pid);
          console.log(pid);
        } catch {}
      }
    `);
    return lines.length === 0;
  });
  for (const { dir } of nodes) {
    await assertRejects(() => Deno.stat(dir), Deno.errors.NotFound);
  }
}

/** What a program prints that may read everything; a test may not. */
async function askSystem(code: string): Promise<string[]> {
  const { stdout } = await new Deno.Command("deno", {
    args: ["eval", "--quiet", "--no-config", code],
    stdin: "null",
    stderr: "null",
  }).output();
  return new TextDecoder().decode(stdout).split("\n")
    .filter((line) => line !== "");
}

function sampleAt(perSecond: number): Sample {
  const p50Ms = 1000 / perSecond;
  return { count: 10, perSecond, p50Ms, p99Ms: 2 * p50Ms, maxMs: 3 * p50Ms };
}

function resultsOf(rows: Rows): Results {
  const measured = new Set(rows.all.map(({ system }) => system));
  return {
    startedAt: "2026-01-01T00:00:00Z",
    machine: MACHINE,
    seconds: 1,
    rounds: 3,
    keys: 1000,
    apart: false,
    subjects: SYSTEMS.map((name) => ({
      name,
      title: TITLES[name],
      version: measured.has(name) ? `${name} 1.0` : null,
      idleShare: null,
    })),
    rows: rows.all,
    ratios: ratiosOf(rows.all),
  };
}

/** Every tag that opens closes, in order; nothing stands outside; entities are those of XML. */
function assertWellFormed(svg: string): void {
  const open: string[] = [];
  let at = 0;
  const tag = /<(\/?)([a-z]+)((?: [a-zA-Z][a-zA-Z0-9-]*="[^"<>]*")*)(\/?)>/y;
  while (at < svg.length) {
    if (svg[at] !== "<") {
      const end = svg.indexOf("<", at);
      const text = svg.slice(at, end < 0 ? svg.length : end);
      assertEquals(
        text.replace(/&(amp|lt|gt|quot);/g, "").includes("&"),
        false,
      );
      assert(open.length > 0 || text.trim() === "", `outside: ${text}`);
      at += text.length;
      continue;
    }
    tag.lastIndex = at;
    const match = tag.exec(svg);
    assert(match !== null, `no tag: ${svg.slice(at, at + 80)}`);
    const [all, closes, name = "", , isEmpty] = match;
    if (closes === "/") assertEquals(open.pop(), name);
    else if (isEmpty === "") open.push(name);
    at += all.length;
  }
  assertEquals(open, []);
}
