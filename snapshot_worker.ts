/**
 * A worker that copies a group's committed state into a new file, on a connection and a thread of
 * its own, so that the turn does not wait for it. Started by `snapshots.ts`.
 *
 * @module
 */

import { DatabaseSync } from "node:sqlite";

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

scope.onmessage = ({ data: { source, target } }) => {
  scope.postMessage(copy(source, target));
};

function copy(source: string, target: string): CopyAnswer {
  try {
    const db = new DatabaseSync(source);
    try {
      db.prepare("VACUUM INTO ?").run(target);
      return null;
    } finally {
      db.close();
    }
  } catch (error) {
    return (error as Error).message;
  }
}
