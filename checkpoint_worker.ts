/**
 * A worker that copies a group's write-ahead log into its file, on a connection and a thread of its
 * own, while the turn goes on. Started by `checkpoints.ts`.
 *
 * @module
 */

import { DatabaseSync } from "node:sqlite";
import {
  type CheckpointProblem,
  type CheckpointRequest,
  FAILED,
  IDLE,
} from "./checkpoints.ts";
import type { DkvError } from "./errors.ts";
import { translate } from "./tables.ts";

const scope = self as unknown as {
  onmessage: (event: MessageEvent<CheckpointRequest>) => void;
  postMessage(problem: CheckpointProblem): void;
};

/** Each pass copies what was committed during the one before it: more than a few are rarely needed. */
const PASSES_MAX = 8;

scope.onmessage = ({ data: { path, state } }) => {
  let outcome = FAILED;
  try {
    translate(path, () => copyLog(path));
    outcome = IDLE;
  } catch (error) {
    const { code, message } = error as DkvError;
    // Whoever has the turn finds these out again, and knows what to do.
    if (code !== "DISK_FULL" && code !== "CONFIG_INVALID") {
      const isCorrupt = code === "DATA_CORRUPT";
      scope.postMessage({ problem: message, isCorrupt });
    }
  } finally {
    Atomics.store(state, 0, outcome);
    Atomics.notify(state, 0);
  }
};

/**
 * SQLite makes the file durable only when a pass got to the log's end, so it goes on until one did:
 * otherwise that would be left to the turn.
 */
function copyLog(path: string): void {
  const db = new DatabaseSync(path);
  try {
    db.exec(
      "PRAGMA cache_size=10; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0",
    );
    const pass = db.prepare("PRAGMA wal_checkpoint(PASSIVE)");
    const look = db.prepare("PRAGMA wal_checkpoint(NOOP)");
    let copied = -1;
    for (let passes = 0; passes < PASSES_MAX; passes++) {
      pass.get();
      const now = look.get() as { log: number; checkpointed: number };
      const isStuck = now.checkpointed === copied; // a reader needs what comes next
      if (now.checkpointed === now.log || isStuck) return;
      copied = now.checkpointed;
    }
  } finally {
    db.close();
  }
}
