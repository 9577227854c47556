/**
 * Refuses to run where dkv is known to break: Deno versions that abort when a gRPC peer leaves
 * (2.9.4 to 2.9.6, denoland/deno#36788) and SQLite versions that can corrupt a write-ahead log
 * (below 3.51.3, https://sqlite.org/wal.html#walresetbug). Used by `node.ts`.
 *
 * @module
 */

import { DatabaseSync } from "node:sqlite";
import { DkvError } from "./errors.ts";

const WANTED = "Use Deno 2.9.3, for example: npx -y deno@2.9.3 task cluster";

/** The reason why this pair of versions must not run a node; null if it may. */
export function runtimeRefusal(
  versions: { deno: string; sqlite: string },
): string | null {
  if (["2.9.4", "2.9.5", "2.9.6"].includes(versions.deno)) {
    return `Deno ${versions.deno} aborts when a gRPC connection closes (denoland/deno#36788). ` +
      WANTED;
  }
  if (!atLeast(versions.sqlite, [3, 51, 3])) {
    return `Deno ${versions.deno} brings SQLite ${versions.sqlite}, which can damage its ` +
      `write-ahead log; at least 3.51.3 is needed. ${WANTED}`;
  }
  return null;
}

/** @throws {DkvError} RUNTIME_UNSUPPORTED */
export function refuseRuntime(): void {
  const db = new DatabaseSync(":memory:");
  const row = db.prepare("SELECT sqlite_version() AS version").get();
  db.close();
  const refusal = runtimeRefusal({
    deno: Deno.version.deno,
    sqlite: String(row?.["version"]),
  });
  if (refusal !== null) throw new DkvError("RUNTIME_UNSUPPORTED", refusal);
}

function atLeast(version: string, minimum: readonly number[]): boolean {
  const parts = version.split(".").map(Number);
  for (const [at, wanted] of minimum.entries()) {
    const part = parts[at] ?? 0;
    if (part !== wanted) return part > wanted;
  }
  return true;
}
