/**
 * The write-ahead log of a group's SQLite file: how large it gets, and when it is copied into the
 * file (a checkpoint). Used by `disk.ts`; `checkpoints.ts` helps.
 *
 * ```text
 *   the log's file, reserved:  [ used, anew from half ·· | refuse growth ········ | margin ]
 *                                                      full                  exhausted
 * ```
 *
 * A checkpoint costs tens of milliseconds at this size, and replicas, whose logs are equally large,
 * would stand still for it together. So a helper copies the log part by part while turns go on.
 * SQLite begins it anew only when a commit finds all of it copied; that commit copies the rest.
 *
 * @module
 */

import { DkvError } from "./errors.ts";
import { FRAME_BYTES, type Statements, translate } from "./tables.ts";

/** Copies a write-ahead log into its file while the turn goes on. */
export interface CheckpointHelper {
  /** What it does. After it failed the commit has to try; one that is absent does not come back. */
  readonly state: "idle" | "working" | "failed" | "absent";
  /** Begins to copy what is committed; it must be idle. */
  begin(path: string): void;
  /** Waits until it is neither at work nor failed. */
  settle(): void;
  /** Settles, and is absent from then on. */
  close(): void;
}

/** A smaller log is not worth a checkpoint. */
const LIMIT_BYTES_MIN = 1024 * 1024;
/**
 * The helper copies the log in so many parts: small ones, because a commit waits while the bytes of a
 * checkpoint go to the disk.
 */
const PARTS = 4;
/** How small the rest must be that is left to a commit: this part of the log. */
const REST_PARTS = 64;
/** How much the log may grow beyond its limit while the helper is behind. */
const LATE_PARTS = 4;
/** What the last commits before the end of the reserve are kept for: terms and votes. */
const MARGIN_BYTES = 1024 * 1024;

/** An open file's log. */
export class WriteAheadLog {
  readonly #path: string;
  readonly #sql: Statements;
  readonly #reserveBytes: number;
  readonly #helper: CheckpointHelper | null;
  /** Since it last began anew. */
  #bytes = 0;
  /** Of them, those that the helper was asked to copy. */
  #begunBytes = 0;
  /** True since a checkpoint found no space for the file to grow. */
  #full = false;

  constructor(
    path: string,
    { sql, reserveBytes, helper }: {
      readonly sql: Statements;
      /** How far the log can grow without asking the disk for space. */
      readonly reserveBytes: number;
      readonly helper: CheckpointHelper | null;
    },
  ) {
    this.#path = path;
    this.#sql = sql;
    this.#reserveBytes = reserveBytes;
    this.#helper = helper;
  }

  /** True if the file cannot grow for lack of space: commits go on in the log. */
  get full(): boolean {
    return this.#full;
  }

  /** True if the file cannot grow and the reserve is nearly used up as well. */
  get exhausted(): boolean {
    return this.#full && this.#bytes > this.#reserveBytes - MARGIN_BYTES;
  }

  /** Keeps the log from growing; between two transactions. */
  limit(): void {
    const restBytes = this.#measure();
    // On a full disk only `makeSpace` tries again: it costs more than a commit.
    if (this.#full) return;
    const limitBytes = Math.max(this.#reserveBytes / 2, LIMIT_BYTES_MIN);
    const isLate = this.#bytes >= limitBytes + limitBytes / LATE_PARTS;
    switch (this.#helper?.state) {
      case undefined:
      case "absent":
        if (this.#bytes >= limitBytes) this.checkpoint();
        return;
      case "failed":
        return this.checkpoint();
      case "working":
        if (isLate) this.checkpoint();
        return;
      case "idle": {
        const isRestSmall = restBytes <= limitBytes / REST_PARTS;
        if (isLate || this.#bytes >= limitBytes && isRestSmall) {
          return this.checkpoint();
        }
        if (this.#bytes < this.#begunBytes) this.#begunBytes = 0; // It began anew.
        if (this.#bytes - this.#begunBytes < limitBytes / PARTS) return;
        this.#begunBytes = this.#bytes;
        this.#helper?.begin(this.#path);
      }
    }
  }

  /** Copies the log into the file; between two transactions. Without space, all stays in the log. */
  checkpoint(): void {
    this.#helper?.settle(); // SQLite lets only one copy at a time.
    try {
      const row = translate(this.#path, () => this.#sql.checkpoint.get());
      const [busy] = row as unknown as [number, number, number];
      if (busy !== 0) return; // A helper that was given up is still at it.
      this.#full = false;
    } catch (error) {
      if (!(error instanceof DkvError && error.code === "DISK_FULL")) {
        throw error;
      }
      this.#full = true;
    }
  }

  /** Measures the log; says how much of it is not yet copied into the file. */
  #measure(): number {
    const row = this.#sql.walFrames.get() as unknown as [
      busy: number,
      frames: number,
      copied: number,
    ];
    const [, frames, copied] = row; // -1 in memory, where there is no log
    this.#bytes = Math.max(0, frames) * FRAME_BYTES;
    return Math.max(0, frames - copied) * FRAME_BYTES;
  }
}
