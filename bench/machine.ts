/**
 * On what a run was measured. Used by `main.ts` and `growth.ts`.
 *
 * @module
 */

import * as os from "node:os";
import { tempDir } from "../tests/needs.ts";
import type { Machine } from "./results.ts";
import { percentile } from "./statistics.ts";

const SYNCS = 100;
const SYNC_BYTES = 4096;

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
