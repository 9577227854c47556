/**
 * How a transaction runs: its comparisons choose the operations, each of which becomes a step that
 * is known to succeed, and only then is anything done. Used by `store.ts`, whose state it changes
 * through {@linkcode StepState}. Pure.
 *
 * ```text
 *   transaction ──compare──▶ the branch, also of each one nested in it
 *                              └─prepare──▶ steps, or a refusal
 *                                             └─run──▶ results, in one revision
 * ```
 *
 * @module
 */
import type {
  DeleteOperation,
  Key,
  KeyRange,
  ModifyOperation,
  Operation,
  PutOperation,
  StoredEntry,
  TransactRequest,
} from "./batch.ts";
import { holds, writesTwice } from "./conditions.ts";
import { assert, DkvError, unreachable } from "./errors.ts";
import { modified } from "./modify.ts";
import {
  entryBytes,
  type ErrorResult,
  type OperationResult,
  refusal,
  type Result,
} from "./results.ts";
import { entryAfter, type Versions, type WatchEvent } from "./versions.ts";

/** What a transaction needs of the store. */
export interface StepState {
  readonly versions: Versions;
  /** How many bytes of entries a command may answer with. */
  readonly responseBytesMax: number;
  /** How large a value may become. */
  readonly valueBytesMax: number;
  /** Why a put would be refused; null if it would not. */
  checkPut(put: PutOperation): ErrorResult | null;
  put(
    put: PutOperation,
    revision: number,
  ): { event: WatchEvent; previous: StoredEntry | null };
  delete(
    operation: DeleteOperation,
    revision: number,
  ): { deleted: number; previous: StoredEntry[] };
}

/** A nested transaction whose comparisons were made. */
interface Branch {
  readonly type: "branch";
  readonly succeeded: boolean;
  readonly operations:
    readonly (Exclude<Operation, TransactRequest> | Branch)[];
}

/** A modification that is known to succeed. */
interface PreparedModify {
  readonly type: "modify";
  /** Stores the new value. */
  readonly put: PutOperation;
}

/** A step that is known to succeed. */
type Step =
  | Exclude<Operation, ModifyOperation | TransactRequest>
  | PreparedModify
  | {
    readonly type: "steps";
    readonly succeeded: boolean;
    readonly steps: readonly Step[];
  };

/** Runs a transaction: all of it, or nothing and a refusal. */
export function runTransaction(
  request: TransactRequest,
  state: StepState,
): Result {
  const twice = writesTwice(request);
  if (twice !== null) {
    return refusal(
      "DUPLICATE_KEY",
      `Transaction writes a key twice: ${JSON.stringify(twice)}`,
    );
  }
  const branch = choose(request, state.versions);
  const steps = new Preparation(state).prepare(branch.operations);
  if ("type" in steps) return steps;
  const { versions } = state;
  const revision = versions.revision + 1;
  const results = steps.map((step) => run(step, { state, revision }));
  return {
    type: "transact",
    revision: versions.revision,
    succeeded: branch.succeeded,
    results,
  };
}

/** Makes all comparisons, on the state before anything is done. */
function choose(request: TransactRequest, versions: Versions): Branch {
  const succeeded = request.compares.every((one) => holds(one, versions));
  const operations = succeeded ? request.then : request.else;
  return {
    type: "branch",
    succeeded,
    operations: operations.map((operation) =>
      operation.type === "transact" ? choose(operation, versions) : operation
    ),
  };
}

/**
 * Checks all operations, and works out new values: judged by the state before them, which for a
 * modified key is the state in between, because nothing else may write it. The bound on answers
 * bounds the new values as well, which may be much larger than the command.
 *
 * First what is written, then what is read, as etcd does it: of two mistakes the first one found is
 * told.
 */
class Preparation {
  readonly #state: StepState;
  #bytesLeft: number;

  constructor(state: StepState) {
    this.#state = state;
    this.#bytesLeft = state.responseBytesMax;
  }

  prepare(operations: Branch["operations"]): readonly Step[] | ErrorResult {
    const steps = this.#writes(operations);
    if ("type" in steps) return steps;
    return this.#answers(operations) ?? steps;
  }

  #writes(operations: Branch["operations"]): readonly Step[] | ErrorResult {
    const steps: Step[] = [];
    for (const operation of operations) {
      const step = this.#write(operation);
      if (step.type === "error") return step;
      steps.push(step);
    }
    return steps;
  }

  #write(operation: Branch["operations"][number]): Step | ErrorResult {
    switch (operation.type) {
      case "put":
        return this.#state.checkPut(operation) ?? operation;
      case "modify": {
        const step = this.#modification(operation);
        if (step.type === "error") return step;
        this.#bytesLeft -= step.put.value.length;
        return this.#bytesLeft < 0 ? answerTooLarge(this.#state) : step;
      }
      case "branch": {
        const steps = this.#writes(operation.operations);
        const { succeeded } = operation;
        return "type" in steps ? steps : { type: "steps", succeeded, steps };
      }
      case "delete":
      case "get":
      case "list":
      case "range":
        return operation;
      default:
        return unreachable(operation);
    }
  }

  #modification(operation: ModifyOperation): PreparedModify | ErrorResult {
    const { key, returnPrevious } = operation;
    const { versions, valueBytesMax } = this.#state;
    const record = versions.find(key);
    const present = record === undefined
      ? null
      : versions.read(record.position).value;
    const value = modified(operation, { present, valueBytesMax });
    if ("code" in value) return refusal(value.code, value.message);
    const lease = operation.lease ?? record?.lease ?? 0n;
    const put = { type: "put", key, value, lease, returnPrevious } as const;
    return this.#state.checkPut(put) ?? { type: "modify", put };
  }

  #answers(operations: Branch["operations"]): ErrorResult | null {
    for (const operation of operations) {
      if (operation.type === "branch") {
        const error = this.#answers(operation.operations);
        if (error !== null) return error;
        continue;
      }
      const bytes = answerBytes(operation, {
        versions: this.#state.versions,
        bytesMax: this.#bytesLeft,
      });
      if (typeof bytes !== "number") return bytes;
      this.#bytesLeft -= bytes;
      if (this.#bytesLeft < 0) return answerTooLarge(this.#state);
    }
    return null;
  }
}

/**
 * How many bytes of entries an operation answers with, judged by the state before it; Infinity if
 * more than `bytesMax`, and a refusal if it could not be read.
 */
export function answerBytes(
  operation: Exclude<Operation, TransactRequest>,
  { versions, bytesMax }: { versions: Versions; bytesMax: number },
): number | ErrorResult {
  switch (operation.type) {
    case "put":
    case "modify":
      return operation.returnPrevious
        ? listBytes(only(operation.key), { versions, bytesMax })
        : 0;
    case "delete":
      return operation.returnPrevious
        ? listBytes(operation.range, { versions, bytesMax })
        : 0;
    case "get":
      return listBytes(only(operation.key), { versions, bytesMax });
    case "list":
      return listBytes(operation.range, { versions, bytesMax, ...operation });
    case "range":
      try {
        const read = versions.range(operation, bytesMax);
        return read === null ? Infinity : sumBytes(read.entries);
      } catch (error) {
        if (!(error instanceof DkvError) || error.code === "DATA_CORRUPT") {
          throw error;
        }
        return refusal(error.code, error.message);
      }
    default:
      return unreachable(operation);
  }
}

function listBytes(range: KeyRange, options: {
  versions: Versions;
  bytesMax: number;
  limit?: number;
  keysOnly?: boolean;
  reverse?: boolean;
}): number {
  const { versions, bytesMax } = options;
  const { limit = 0, keysOnly = false, reverse = false } = options;
  const page = { revision: 0, limit, keysOnly, reverse, bytesMax };
  const { entries, more } = versions.list(range, page);
  const all = !more || limit > 0 && entries.length === limit;
  return all ? sumBytes(entries) : Infinity;
}

function sumBytes(entries: readonly StoredEntry[]): number {
  return entries.reduce((sum, entry) => sum + entryBytes(entry), 0);
}

/** The range of one key. */
function only(key: Key): KeyRange {
  return { start: key, end: key + "\0" };
}

export function answerTooLarge(
  { responseBytesMax }: Pick<StepState, "responseBytesMax">,
): ErrorResult {
  return refusal(
    "REQUEST_TOO_LARGE",
    `Answer is too large: more than ${responseBytesMax} bytes of entries; ask for ` +
      "fewer at a time",
  );
}

function run(
  step: Step,
  at: { state: StepState; revision: number },
): OperationResult {
  const { state, revision } = at;
  const { versions } = state;
  switch (step.type) {
    case "put": {
      const { event, previous } = state.put(step, revision);
      return { type: "put", version: event.version, previous };
    }
    case "modify": {
      const { event, previous } = state.put(step.put, revision);
      return { type: "modify", entry: entryAfter(event), previous };
    }
    case "delete": {
      const { deleted, previous } = state.delete(step, revision);
      return { type: "delete", deleted, previous };
    }
    case "get":
      return { type: "get", entry: versions.get(step.key, 0) };
    case "list": {
      const { limit, keysOnly, reverse } = step;
      const { entries, more } = versions.list(step.range, {
        revision: 0,
        limit,
        keysOnly,
        reverse,
        bytesMax: state.responseBytesMax,
      });
      return { type: "list", entries, more };
    }
    case "range": {
      // What the steps before it wrote came in with the command, whose size is bounded.
      const read = versions.range(step, Infinity);
      assert(read !== null, "A read without a bound exceeded it");
      return { type: "range", ...read };
    }
    case "steps": {
      const { succeeded, steps } = step;
      const results = steps.map((one) => run(one, at));
      return { type: "transact", succeeded, results };
    }
    default:
      return unreachable(step);
  }
}
