/**
 * On what a run was measured. Used by `main.ts` and `growth.ts`.
 *
 * @module
 */

import * as os from "node:os";
import { tempDir } from "../tests/needs.ts";
import { percentile } from "./statistics.ts";

const SYNCS = 100;
const SYNC_BYTES = 4096;

/** A machine, as far as it matters. */
export interface Machine {
  /** As it calls itself. */
  readonly processor: string;
  readonly cores: number;
  readonly memoryGib: number;
  /** `linux 6.1.0`. */
  readonly system: string;
  readonly deno: string;
  /** How long the disk takes to sync 4 KiB behind a file: the floor under every put. */
  readonly syncP50Ms: number;
  readonly syncP99Ms: number;
}

/** Looks at the machine and tries its disk. */
export async function describeMachine(): Promise<Machine> {
  const cpus = os.cpus();
  const syncsMs = await syncs();
  return {
    processor: cpus[0]?.model.trim() ?? "unknown",
    cores: cpus.length,
    memoryGib: Math.round(os.totalmem() / 2 ** 30),
    system: `${Deno.build.os} ${os.release()}`,
    deno: Deno.version.deno,
    syncP50Ms: rounded(percentile(syncsMs, 0.5)),
    syncP99Ms: rounded(percentile(syncsMs, 0.99)),
  };
}

/** One sentence. */
export function machineText(machine: Machine): string {
  const { processor, cores, memoryGib, system, deno } = machine;
  return `${processor}, ${cores} cores, ${memoryGib} GiB, ${system}, ` +
    `Deno ${deno}; a sync of 4 KiB takes ${machine.syncP50Ms} ms ` +
    `(p99 ${machine.syncP99Ms} ms).`;
}

async function syncs(): Promise<number[]> {
  await using dir = await tempDir();
  using file = await Deno.open(`${dir.path}/sync`, {
    create: true,
    write: true,
  });
  const bytes = new Uint8Array(SYNC_BYTES).fill(120);
  const latenciesMs: number[] = [];
  for (let at = 0; at < SYNCS; at++) {
    const startMs = performance.now();
    await file.write(bytes);
    await file.syncData();
    latenciesMs.push(performance.now() - startMs);
  }
  return latenciesMs.sort((a, b) => a - b);
}

function rounded(ms: number): number {
  return Number(ms.toPrecision(3));
}
