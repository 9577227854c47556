/**
 * What processes take of processor and memory, told by a process of its own: nobody else may read
 * what the system tells of others. Used by `main.ts` and `growth.ts`; Linux alone.
 *
 * @module
 */

/** Prints `pid ticks KiB` for each process that there is. */
const SAMPLER = `
for (const pid of Deno.args) {
  try {
    const stat = Deno.readTextFileSync("/proc/" + pid + "/stat");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const status = Deno.readTextFileSync("/proc/" + pid + "/status");
    const kib = /VmRSS:\\s+(\\d+) kB/.exec(status)?.[1];
    console.log(pid, Number(fields[11]) + Number(fields[12]), kib);
  } catch {}
}
`;

/** The unit of processor time in /proc, on every Linux of today. */
const TICK_MS = 10;

/** Of one process. */
export interface Usage {
  /** Processor time since it started. */
  readonly cpuMs: number;
  /** Resident memory. */
  readonly rssBytes: number;
}

/** By pid; those that have ended, or of which the system does not tell, are missing. */
export async function usageOf(
  pids: readonly number[],
): Promise<Map<number, Usage>> {
  const { stdout } = await new Deno.Command("deno", {
    args: ["eval", "--quiet", "--no-config", SAMPLER, ...pids.map(String)],
    stdin: "null",
    stderr: "null",
  }).output();
  const usage = new Map<number, Usage>();
  const lines = new TextDecoder().decode(stdout).trim().split("\n");
  for (const line of lines) {
    const [pid = NaN, ticks = NaN, kib = NaN] = line.split(" ").map(Number);
    if (Number.isNaN(kib)) continue;
    usage.set(pid, { cpuMs: ticks * TICK_MS, rssBytes: kib * 1024 });
  }
  return usage;
}

/** What share of one core some groups of processes take, each, while nobody asks them for anything. */
export async function idleShares(
  groups: readonly (readonly number[])[],
  forMs: number,
): Promise<number[]> {
  const before = await usageOf(groups.flat());
  const startMs = performance.now();
  await new Promise((resolve) => setTimeout(resolve, forMs));
  const after = await usageOf(groups.flat());
  const elapsedMs = performance.now() - startMs;
  return groups.map((pids) => {
    const usedMs = pids.reduce((sum, pid) => {
      const { cpuMs: from = NaN } = before.get(pid) ?? {};
      const { cpuMs: to = NaN } = after.get(pid) ?? {};
      return sum + to - from;
    }, 0);
    return usedMs / elapsedMs;
  });
}
