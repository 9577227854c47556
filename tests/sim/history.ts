/**
 * What the clients of a simulated run asked and heard, and the checks of it: against the committed
 * log exactly, and by {@linkcode check} of `linearizable.ts` without looking at the log at all. Used
 * by `clients.ts` and `cluster.ts`.
 *
 * @module
 */

import type {
  KeyRange,
  Operation as StoreOperation,
  Request,
  StoredEntry,
  WriteId,
} from "../../batch.ts";
import type { Result } from "../../results.ts";
import { checkCounts } from "./kvwrites.ts";
import { isSameEntry, show, textOf } from "./checks/states.ts";
import {
  check,
  type Operation as Placed,
  REGISTER,
  type RegisterInput,
  type RegisterOutput,
} from "./linearizable.ts";
import type { Applied, Oracle } from "./oracle.ts";
import { must, Violation } from "./violation.ts";

/** Something that is asked without the log. */
export interface Query {
  readonly range: KeyRange;
  /** 0 means now. */
  readonly revision: number;
  /** False: of whatever state the asked node has. */
  readonly isLinearizable: boolean;
}

/** The answer to a query. */
export interface QueryAnswer {
  readonly entries: readonly StoredEntry[];
  /** Of the state it was read from. */
  readonly revision: number;
}

/** One operation of one client. */
export interface Operation {
  readonly client: string;
  readonly request: Request | null;
  readonly query: Query | null;
  readonly writeId: WriteId | null;
  readonly callMs: number;
  /** Rises with every call and every return of the run: the order in which they were seen. */
  readonly call: number;
  /** Every change up to here was acknowledged to someone before the call. */
  readonly floorRevision: number;
  outcome: "open" | "ok" | "failed" | "unknown";
  return: number;
  result: Result | null;
  answer: QueryAnswer | null;
}

/** Everything that was asked. */
export class History {
  readonly operations: Operation[] = [];
  readonly counts = { ok: 0, failed: 0, unknown: 0 };
  readonly #oracle: Oracle;
  #stamp = 0;
  #acknowledgedRevision = 0;

  constructor(oracle: Oracle) {
    this.#oracle = oracle;
  }

  /** Notes a call. */
  begin(
    called: Pick<
      Operation,
      "client" | "request" | "query" | "writeId" | "callMs"
    >,
  ): Operation {
    const operation: Operation = {
      ...called,
      call: ++this.#stamp,
      floorRevision: this.#acknowledgedRevision,
      outcome: "open",
      return: Infinity,
      result: null,
      answer: null,
    };
    this.operations.push(operation);
    return operation;
  }

  /** Notes an answer, and compares it with the committed log. */
  succeeded(
    operation: Operation,
    { result = null, answer = null }: {
      result?: Result | null;
      answer?: QueryAnswer | null;
    },
  ): void {
    operation.outcome = "ok";
    operation.return = ++this.#stamp;
    operation.result = result;
    operation.answer = answer;
    this.counts.ok++;
    if (answer !== null) this.#checkAnswer(operation, answer);
    if (result !== null) this.#checkResult(operation, result);
  }

  /** Notes that there is no answer, and whether the operation may take effect all the same. */
  gaveUp(operation: Operation, outcome: "failed" | "unknown"): void {
    operation.outcome = outcome;
    this.counts[outcome]++;
    if (outcome === "failed") operation.return = ++this.#stamp;
  }

  /** At the end of a run. */
  finish(): void {
    this.#checkFailed();
    this.#checkRegisters();
    this.#checkCounter();
    checkCounts(this.operations, this.#oracle);
  }

  #checkAnswer(operation: Operation, { entries, revision }: QueryAnswer): void {
    const { query, floorRevision, client } = operation;
    const { range, isLinearizable } = query!;
    if (isLinearizable) {
      must(
        revision >= floorRevision,
        "no stale read",
        () =>
          `${client} reads at revision ${revision}, ${floorRevision} was acknowledged before`,
      );
      this.#acknowledged(revision);
    }
    const at = query!.revision || revision;
    const expected = [...this.#oracle.model.revisions[at]!.values()]
      .filter(({ key }) =>
        key >= range.start && (range.end === null || key < range.end)
      )
      .sort((a, b) => a.key < b.key ? -1 : 1);
    must(
      entries.length === expected.length &&
        entries.every((entry, i) => isSameEntry(entry, expected[i]!)),
      "read of what was written",
      () =>
        `${client} reads ${
          entries.map(show).join(", ")
        } at revision ${at}, expected ${expected.map(show).join(", ")}`,
    );
  }

  #checkResult(operation: Operation, result: Result): void {
    const { client, writeId, request, floorRevision } = operation;
    if (request?.type === "mutate" && result.type === "mutate") {
      must(
        result.revision >= floorRevision,
        "writes in real-time order",
        () => `${client} mutate got revision ${result.revision}`,
      );
      this.#acknowledged(result.revision);
    }
    if (writeId === null) return;
    const applied = this.#oracle.writes.get(`${client}/${writeId.sequence}`);
    must(
      applied !== undefined && isSameResult(applied, result),
      "result as the model has it",
      () =>
        `${client}/${writeId.sequence} ${request?.type} got ${
          text(result)
        }, expected ${text(applied?.result)}`,
    );
    if (!("revision" in result)) return;
    must(
      applied.isRevision
        ? result.revision > floorRevision
        : result.revision >= floorRevision,
      "writes in real-time order",
      () =>
        `${client} ${request?.type} got revision ${result.revision}, ${floorRevision} was ` +
        "acknowledged before",
    );
    this.#acknowledged(result.revision);
  }

  #acknowledged(revision: number): void {
    this.#acknowledgedRevision = Math.max(this.#acknowledgedRevision, revision);
  }

  /** What certainly has no effect has none. */
  #checkFailed(): void {
    for (const { outcome, writeId, client, request } of this.operations) {
      if (outcome !== "failed" || writeId === null) continue;
      const applied = this.#oracle.writes.get(`${client}/${writeId.sequence}`);
      must(
        !applied?.isChange,
        "failed means no effect",
        () =>
          `${client}/${writeId.sequence} ${request?.type} was answered as failed, and took ` +
          `effect at index ${applied?.index}`,
      );
    }
  }

  /** No addition is lost or done twice, and each is behind those before it: as clients see it. */
  #checkCounter(): void {
    const additions = this.operations.filter(isAddition);
    const counted = additions.flatMap((operation) => {
      const [first] = operation.result?.type === "transact"
        ? operation.result.results
        : [];
      return first?.type === "modify"
        ? [{ ...operation, count: Number(textOf(first.entry.value)) }]
        : [];
    });
    counted.sort((a, b) => a.count - b.count);
    let lastCall = 0;
    let last = 0;
    for (const { client, call, return: end, count } of counted) {
      must(
        count > last && end > lastCall,
        "counted once",
        () =>
          `${client} is told ${count} between ${call} and ${end}, after ${last} of one who asked ` +
          `at ${lastCall}`,
      );
      lastCall = Math.max(lastCall, call);
      last = count;
    }
    must(
      counted.length <= last && last <= additions.length,
      "counted once",
      () =>
        `${additions.length} additions, ${counted.length} of them answered, came to ${last}`,
    );
  }

  /** Each key by itself, as seen by the clients alone. */
  #checkRegisters(): void {
    const parts = new Map<string, Placed<RegisterInput, RegisterOutput>[]>();
    for (const operation of this.operations) {
      for (const { key, placed } of registersOf(operation)) {
        const part = parts.get(key) ?? [];
        part.push(placed);
        parts.set(key, part);
      }
    }
    for (const [key, part] of parts) {
      const verdict = check(REGISTER, part);
      if (verdict.type === "ok") continue;
      const reason = verdict.type === "timeout"
        ? `undecided after ${verdict.steps} steps`
        : `no place for ${JSON.stringify(verdict.stuck)} after ` +
          JSON.stringify(verdict.order.slice(-5));
      throw new Violation("linearizable", `key ${key}: ${reason}`);
    }
  }
}

/** What clients only add one to, in the first step of a transaction. */
export const COUNTER = "n";

/** True of an addition to the counter that may have been done. */
function isAddition({ request, result, outcome }: Operation): boolean {
  const [step] = request?.type === "transact" ? request.then : [];
  return step?.type === "modify" && step.key === COUNTER &&
    outcome !== "failed" && result?.type !== "error";
}

/** The keys that are registers: others change by themselves, with leases. */
export const REGISTER_PREFIX = "k";

type Register = {
  readonly key: string;
  readonly placed: Placed<RegisterInput, RegisterOutput>;
};

/** What an operation did to single keys. */
function registersOf(operation: Operation): Register[] {
  const { request, query, answer, outcome } = operation;
  if (outcome === "failed") return [];
  const place = (
    key: string,
    { input, output }: { input: RegisterInput; output: RegisterOutput },
  ): Register[] =>
    key.startsWith(REGISTER_PREFIX)
      ? [{
        key,
        placed: {
          call: operation.call,
          return: outcome === "ok" ? operation.return : Infinity,
          input,
          output,
        },
      }]
      : [];
  if (query !== null) {
    if (answer === null || !query.isLinearizable || query.revision !== 0) {
      return [];
    }
    if (query.range.end !== query.range.start + "\0") return [];
    const value = textOf(answer.entries[0]?.value ?? new Uint8Array(0));
    return place(query.range.start, {
      input: { type: "read" },
      output: { type: "value", value },
    });
  }
  return writesOf(operation, request!).flatMap(({ key, ...how }) =>
    place(key, how)
  );
}

function writesOf(
  { result, outcome }: Operation,
  request: Request,
): { key: string; input: RegisterInput; output: RegisterOutput }[] {
  const isKnown = outcome === "ok";
  if (isKnown && result?.type === "error") return [];
  switch (request.type) {
    case "put":
    case "delete":
      return [{
        ...writeOf(request)!,
        output: isKnown ? { type: "written" } : null,
      }];
    case "transact": {
      const [compare] = request.compares;
      if (compare === undefined) {
        return request.then.flatMap((operation) => {
          const write = writeOf(operation);
          if (write === null) return [];
          return [{ ...write, output: isKnown ? { type: "written" } : null }];
        });
      }
      if (compare.target.type !== "value") return [];
      const [first] = request.then;
      return [{
        key: compare.key,
        input: {
          type: "compareAndSet",
          expected: textOf(compare.target.value),
          value: first?.type === "put" ? textOf(first.value) : "",
        },
        output: result?.type === "transact"
          ? { type: "compared", succeeded: result.succeeded }
          : null,
      }];
    }
    default:
      return [];
  }
}

function writeOf(
  operation: StoreOperation,
): { key: string; input: RegisterInput } | null {
  switch (operation.type) {
    case "put":
      return {
        key: operation.key,
        input: { type: "write", value: textOf(operation.value) },
      };
    case "delete":
      return {
        key: operation.range.start,
        input: { type: "write", value: "" },
      };
    default:
      return null;
  }
}

/** Results are compared without the entries in them: a repetition may answer without. */
function isSameResult({ result: expected }: Applied, result: Result): boolean {
  if (expected.type !== result.type) return false;
  if (result.type === "error" && expected.type === "error") {
    return result.code === expected.code;
  }
  if ("revision" in result && "revision" in expected) {
    if (result.revision !== expected.revision) return false;
  }
  if (result.type === "put" && expected.type === "put") {
    return result.version === expected.version;
  }
  if (result.type === "delete" && expected.type === "delete") {
    return result.deleted === expected.deleted;
  }
  if (result.type === "transact" && expected.type === "transact") {
    return result.succeeded === expected.succeeded &&
      text(result.results) === text(expected.results);
  }
  return true;
}

/** A value in one canonical text: names sorted, bytes as characters. */
function text(value: unknown): string {
  if (value instanceof Uint8Array) return JSON.stringify(textOf(value));
  if (Array.isArray(value)) return `[${value.map(text).join(",")}]`;
  if (typeof value !== "object" || value === null) return String(value);
  const parts = Object.entries(value).sort(([a], [b]) => a < b ? -1 : 1);
  return `{${parts.map(([name, part]) => `${name}:${text(part)}`).join(",")}}`;
}
