/**
 * A worker that copies a group's committed state into a new file, on a connection and a thread of
 * its own, so that the turn does not wait for it. Started by `snapshots.ts`.
 *
 * @module
 */

import { backup, DatabaseSync } from "node:sqlite";

/** What to copy, and where to. The target must not exist. */
export interface CopyRequest {
  readonly source: string;
  readonly target: string;
}

/** Null, or what went wrong. */
export type CopyAnswer = string | null;

const scope = self as unknown as {
  onmessage: (event: MessageEvent<CopyRequest>) => void;
  postMessage(answer: CopyAnswer): void;
};

/**
 * More pages than a file can have: the copy is made in one step, so it is of one moment, and the
 * writer's next commit does not make it start again.
 */
const ALL_PAGES = 2 ** 31 - 1;

scope.onmessage = async ({ data: { source, target } }) => {
  scope.postMessage(await copy(source, target));
};

// `VACUUM INTO` would be refused: without --allow-all Deno forbids what attaches a database.
async function copy(source: string, target: string): Promise<CopyAnswer> {
  try {
    const db = new DatabaseSync(source);
    try {
      await backup(db, target, { rate: ALL_PAGES });
      return null;
    } finally {
      db.close();
    }
  } catch (error) {
    return (error as Error).message;
  }
}
