/**
 * A worker that copies a group's committed state into a new file, on a connection and a thread of
 * its own, so that the turn does not wait for it. Started by `snapshots.ts`.
 *
 * @module
 */

import { backup, DatabaseSync } from "node:sqlite";
import { Disk } from "./disk.ts";
import { DkvError } from "./errors.ts";
import type { Configuration, SnapshotMeta } from "./message.ts";

/** What to copy, and where to. The target must not exist. */
export interface CopyRequest {
  readonly source: string;
  readonly target: string;
  /** As for the group's own disk. */
  readonly bootstrap: Configuration;
}

/** What the copy holds, or what went wrong. */
export type CopyAnswer =
  | { readonly meta: SnapshotMeta }
  | { readonly problem: string; readonly isCorrupt: boolean };

const scope = self as unknown as {
  onmessage: (event: MessageEvent<CopyRequest>) => void;
  postMessage(answer: CopyAnswer): void;
};

/**
 * More pages than a file can have: the copy is made in one step, so it is of one moment, and the
 * writer's next commit does not make it start again.
 */
const ALL_PAGES = 2 ** 31 - 1;

scope.onmessage = async ({ data }) => {
  scope.postMessage(await copy(data));
};

// `VACUUM INTO` would be refused: without --allow-all Deno forbids what attaches a database.
async function copy(
  { source, target, bootstrap }: CopyRequest,
): Promise<CopyAnswer> {
  try {
    const db = new DatabaseSync(source);
    try {
      await backup(db, target, { rate: ALL_PAGES });
    } finally {
      db.close();
    }
    return { meta: Disk.describe(target, bootstrap) };
  } catch (error) {
    const isCorrupt = error instanceof DkvError &&
      error.code === "DATA_CORRUPT";
    return { problem: (error as Error).message, isCorrupt };
  }
}
