/**
 * What a torture run writes down, one JSON object on a line: what clients asked and heard, what
 * watches delivered, what nodes have as their history, which faults there were. Written by
 * `worker.ts` and `round.ts`, read by `judge.ts`, now or later.
 *
 * ```text
 *   round ▸ call … return … call … events … fault … ▸ history (of each node) ▸ final ▸ end
 * ```
 *
 * Times are milliseconds of the harness's clock. Those of workers are converted and widened by what
 * is not known of the difference of the clocks: a call is never later, a return never earlier than
 * it was.
 *
 * @module
 */

import { unreachable } from "../../errors.ts";

/** Everything the load writes is below this, and so is what is watched. */
export const ROOT = "t/";
/** Keys of `REGISTER`: written, deleted, compared. */
export const REGISTERS = `${ROOT}r/`;
/** Accounts: `t/b/EPOCH/NUMBER`. */
export const BANKS = `${ROOT}b/`;
/** Keys that are only ever put: their version counts. */
export const COUNTERS = `${ROOT}c/`;
/** The counters of a round: one that is put, one that is compared and put. */
export const COUNTER_KEYS = [`${COUNTERS}puts`, `${COUNTERS}sets`] as const;
/** The last key that is written below each of the prefixes; a watch that sees it is complete. */
export const END = "end";

/** What is asked. Values are texts, and no two writes of a run have the same. */
export type Request =
  | { readonly type: "get"; readonly key: string }
  | { readonly type: "put"; readonly key: string; readonly value: string }
  | { readonly type: "delete"; readonly key: string }
  /** Puts `value` if the key has the value `expected`; "" stands for a key that does not exist. */
  | {
    readonly type: "compareAndSet";
    readonly key: string;
    readonly expected: string;
    readonly value: string;
  }
  /** Puts `value` if the key was last changed at `modRevision`. */
  | {
    readonly type: "increment";
    readonly key: string;
    readonly modRevision: number;
    readonly value: string;
  }
  /** Reads all accounts of a bank, in one transaction or as a list. */
  | {
    readonly type: "balances";
    readonly bank: string;
    readonly list: boolean;
  }
  /** Writes two accounts if they are as they were read. */
  | {
    readonly type: "transfer";
    readonly bank: string;
    readonly accounts: readonly [number, number];
    /** As read. */
    readonly modRevisions: readonly [number, number];
    readonly values: readonly [string, string];
  }
  /** Puts several keys in one transaction, under no condition. */
  | {
    readonly type: "mark";
    readonly keys: readonly string[];
    readonly value: string;
  };

/** An account as it was read; revision 0 and an empty text if nobody has written it. */
export type Account = readonly [value: string, modRevision: number];

/** What was answered. Revisions of what changed nothing are those of the store. */
export type Answer =
  | {
    readonly type: "got";
    /** "" if there is no such key. */
    readonly value: string;
    readonly modRevision: number;
  }
  | {
    readonly type: "put";
    readonly revision: number;
    readonly version: number;
    /** The value that was replaced, if that was asked for; "" if there was none. */
    readonly previous?: string;
  }
  | {
    readonly type: "deleted";
    readonly revision: number;
    readonly deleted: number;
    readonly previous: string;
  }
  | {
    readonly type: "compared";
    readonly revision: number;
    readonly succeeded: boolean;
    /** The key's version afterwards; 0 if the comparison failed. */
    readonly version: number;
  }
  | {
    readonly type: "balances";
    /** 0 where the answer does not tell. */
    readonly revision: number;
    readonly accounts: readonly Account[];
  }
  | {
    readonly type: "transferred";
    readonly revision: number;
    readonly succeeded: boolean;
    /** If the comparison failed: what was found instead. */
    readonly accounts: readonly Account[];
  };

/** How an operation ended. */
export type Outcome =
  | { readonly type: "ok"; readonly answer: Answer }
  /** Certainly without effect. */
  | { readonly type: "failed"; readonly code: string; readonly message: string }
  /** Perhaps with effect, now or later. */
  | {
    readonly type: "unknown";
    readonly code: string;
    readonly message: string;
  };

/** A change as a watch delivers it: revision, key, value (null: deleted), version (0: deleted). */
export type Event = readonly [
  revision: number,
  key: string,
  value: string | null,
  version: number,
];

/** A line of a worker, in the worker's time, and of the file, in the harness's time. */
export type WorkerRecord =
  | {
    readonly t: "call";
    /** Unique in a run. */
    readonly op: string;
    readonly at: number;
    readonly request: Request;
  }
  | {
    readonly t: "return";
    readonly op: string;
    readonly at: number;
    readonly outcome: Outcome;
  }
  /** A watch was opened; `from` is the first revision that it delivers. */
  | {
    readonly t: "watch";
    readonly watch: string;
    readonly prefix: string;
    readonly from: number;
  }
  | {
    readonly t: "events";
    readonly watch: string;
    readonly events: readonly Event[];
  }
  | {
    readonly t: "watchEnded";
    readonly watch: string;
    readonly error: string;
  };

/** A line of the file. */
export type TortureRecord =
  | WorkerRecord
  | {
    readonly t: "run";
    readonly seed: number;
    readonly seconds: number;
  }
  | {
    readonly t: "round";
    readonly round: number;
    readonly nodes: number;
    readonly settings: object;
  }
  /** A client process was killed: what it asked and watched stays unfinished. */
  | { readonly t: "killed"; readonly worker: string }
  | {
    readonly t: "fault";
    readonly at: number;
    readonly kind: string;
    readonly text: string;
  }
  /** What a node printed. */
  | {
    readonly t: "line";
    readonly at: number;
    readonly node: string;
    readonly text: string;
  }
  /** All that a node has to tell of the changes below {@linkcode ROOT}, in several lines. */
  | {
    readonly t: "history";
    readonly node: string;
    readonly events: readonly Event[];
  }
  /** A key as a node answers at the very end. */
  | {
    readonly t: "final";
    readonly node: string;
    readonly key: string;
    readonly value: string;
    readonly version: number;
  }
  /** What was seen to be wrong while the round ran. */
  | { readonly t: "violation"; readonly check: string; readonly text: string }
  | { readonly t: "end"; readonly round: number };

/** The worker that an operation or a watch is of: `r0w2.1-17` → `r0w2`. */
export function workerOf(name: string): string {
  return name.slice(0, name.indexOf("."));
}

/** The keys and values that a request writes, if it takes effect. */
export function writesOf(
  request: Request,
): readonly { readonly key: string; readonly value: string | null }[] {
  switch (request.type) {
    case "get":
    case "balances":
      return [];
    case "put":
    case "compareAndSet":
    case "increment":
      return [{ key: request.key, value: request.value }];
    case "delete":
      return [{ key: request.key, value: null }];
    case "transfer":
      return request.accounts.map((account, at) => ({
        key: accountKey(request.bank, account),
        value: request.values[at]!,
      }));
    case "mark":
      return request.keys.map((key) => ({ key, value: request.value }));
    default:
      unreachable(request);
  }
}

/** Accounts of a bank. */
export const ACCOUNTS = 5;

/** What an account has that nobody has written. */
export const FIRST_BALANCE = 100;

export function accountKey(bank: string, account: number): string {
  return `${BANKS}${bank}/${account}`;
}

/** The balance in the value of an account, `75 r0w1.2-33`. */
export function balanceOf(value: string): number {
  return value === "" ? FIRST_BALANCE : Number(value.split(" ")[0]);
}
