/**
 * What the store answers to a command, and how the client sessions keep it on disk
 * (`proto/entry.proto`, message Result). Used by `store.ts`, `sessions.ts` and whoever answers
 * clients.
 *
 * @module
 */
import type { ErrorCode } from "./errors.ts";
import type { StoredEntry } from "./batch.ts";

/** The outcome of one operation inside a transaction. */
export type OperationResult =
  | {
    readonly type: "put";
    readonly version: number;
    /** The entry that was replaced, if asked for and if there was one. */
    readonly previous: StoredEntry | null;
  }
  | {
    readonly type: "delete";
    readonly deleted: number;
    /** Empty unless asked for; in key order. */
    readonly previous: readonly StoredEntry[];
  }
  | { readonly type: "get"; readonly entry: StoredEntry | null }
  | {
    readonly type: "list";
    readonly entries: readonly StoredEntry[];
    /** True if the limit, or the bound on the bytes of one transaction's results, left keys out. */
    readonly more: boolean;
  };

/** The outcome of one command. `revision` is its own, or the store's if it changed no key. */
export type Result =
  | {
    readonly type: "put";
    readonly revision: number;
    readonly version: number;
    readonly previous: StoredEntry | null;
  }
  | {
    readonly type: "delete";
    readonly revision: number;
    readonly deleted: number;
    readonly previous: readonly StoredEntry[];
  }
  | {
    readonly type: "transact";
    readonly revision: number;
    readonly succeeded: boolean;
    readonly results: readonly OperationResult[];
  }
  | { readonly type: "lease"; readonly lease: bigint; readonly ttlMs: number }
  | {
    readonly type: "revoked";
    readonly revision: number;
    readonly deleted: number;
  }
  | { readonly type: "done" }
  | {
    /** Nothing was done. */
    readonly type: "error";
    readonly code: ErrorCode;
    readonly message: string;
  };
