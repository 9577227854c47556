/**
 * The checkpoints of one group's file, made by a worker so that the turn does not stand still for
 * them. Used by `node.ts`, which gives them to the `Disk`.
 *
 * ```text
 *   turn     commit  commit  commit  commit  commit  commit + the last few pages  commit
 *               │ begin        ▲                ▲ idle: the log can start again
 *   worker      └── copy, sync ┴── …            │
 * ```
 *
 * The two share one number, in memory, that says whether the worker is at work: so the turn can ask
 * at each commit, and wait where it must.
 *
 * @module
 */

import { assert, DkvError } from "./errors.ts";
import type { CheckpointHelper } from "./writeahead.ts";

/** What the number that both threads share can say. */
export const IDLE = 0;
export const WORKING = 1;
/** The log could not be copied: no space, or what a {@linkcode CheckpointProblem} tells. */
export const FAILED = 2;

/** Which file to work on. `state` holds WORKING, and something else when the work is over. */
export interface CheckpointRequest {
  readonly path: string;
  readonly state: Int32Array;
}

/** Why the node must not go on. */
export interface CheckpointProblem {
  readonly problem: string;
  readonly isCorrupt: boolean;
}

/** A worker that takes longer has hung: a few megabytes take some milliseconds. */
const SETTLE_TIMEOUT_MS = 10_000;

/** What {@linkcode Checkpoints} tells of. */
export interface CheckpointsOptions {
  /** The file is damaged or the disk fails: the node must end. */
  readonly onProblem: (error: DkvError) => void;
  /** The worker cannot run. Checkpoints are then made in the turn. */
  readonly onLost: (reason: string) => void;
  /** For tests. Default: the worker of `checkpoint_worker.ts`. */
  readonly startWorker?: () => Worker;
}

/** Makes the checkpoints of one file. Its worker starts when it is first needed. */
export class Checkpoints implements CheckpointHelper {
  readonly #options: CheckpointsOptions;
  readonly #shared = new Int32Array(new SharedArrayBuffer(4));
  #worker: Worker | null = null;
  #isLost = false;

  constructor(options: CheckpointsOptions) {
    this.#options = options;
  }

  get state(): CheckpointHelper["state"] {
    if (this.#isLost) return "absent";
    const state = Atomics.load(this.#shared, 0);
    return state === WORKING ? "working" : state === FAILED ? "failed" : "idle";
  }

  begin(path: string): void {
    assert(this.state === "idle", `A checkpoint while one is ${this.state}`);
    this.#worker ??= this.#start();
    Atomics.store(this.#shared, 0, WORKING);
    const request: CheckpointRequest = { path, state: this.#shared };
    this.#worker.postMessage(request);
  }

  settle(): void {
    if (this.#isLost) return;
    const outcome = Atomics.wait(this.#shared, 0, WORKING, SETTLE_TIMEOUT_MS);
    if (outcome === "timed-out") return this.#lose("it takes too long");
    Atomics.store(this.#shared, 0, IDLE);
  }

  close(): void {
    this.settle();
    this.#isLost = true;
    this.#worker?.terminate();
  }

  #start(): Worker {
    const worker = this.#options.startWorker?.() ?? new Worker(
      new URL("./checkpoint_worker.ts", import.meta.url),
      { type: "module" },
    );
    worker.onmessage = ({ data }: MessageEvent<CheckpointProblem>) => {
      this.#options.onProblem(
        new DkvError(
          data.isCorrupt ? "DATA_CORRUPT" : "INTERNAL",
          data.problem,
        ),
      );
    };
    worker.onerror = (event) => {
      event.preventDefault();
      this.#lose(event.message);
    };
    return worker;
  }

  #lose(reason: string): void {
    if (this.#isLost) return;
    this.#isLost = true;
    this.#worker?.terminate();
    this.#options.onLost(reason);
  }
}
