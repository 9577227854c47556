/**
 * The store as a person would explain it: one complete map of keys for each revision, and lists.
 * Nothing is fast, shared or clever. The tests run it beside the real one.
 *
 * @module
 */
import type {
  Compare,
  KeyRange,
  ModifyOperation,
  MutateRequest,
  Operation,
  PutOperation,
  RangeOperation,
  Request,
  StoredEntry,
  TransactRequest,
} from "../batch.ts";
import { LIMITS } from "../config.ts";
import { unreachable } from "../errors.ts";
import type { RangeResult } from "../ranges.ts";
import type { ListOptions, OperationResult, Result } from "../store.ts";
import { mutateModel } from "./kvmodel.ts";

export interface ModelEvent {
  readonly type: "put" | "delete";
  readonly revision: number;
  readonly key: string;
  /** After the change; null for a delete. */
  readonly entry: StoredEntry | null;
  /** Before it. */
  readonly previous: StoredEntry | null;
}

type Keys = ReadonlyMap<string, StoredEntry>;

/** What is thrown inside the model to refuse a request. */
class Refusal {
  readonly code: string;
  constructor(code: string) {
    this.code = code;
  }
}

export class Model {
  /** Index is the revision; an empty store is at 1. */
  readonly revisions: Keys[];
  readonly events: ModelEvent[] = [];
  readonly leases = new Map<bigint, { ttlMs: number; deadlineMs: number }>();
  readonly #valueBytesMax: number;
  compactRevision = 0;
  timeMs = 0;

  constructor({ valueBytesMax = LIMITS.valueBytesMax, revision = 1 } = {}) {
    this.#valueBytesMax = valueBytesMax;
    this.revisions = new Array<Keys>(revision + 1).fill(new Map());
  }

  get revision(): number {
    return this.revisions.length - 1;
  }

  get now(): Keys {
    return this.revisions.at(-1)!;
  }

  tick(timeMs: number): void {
    this.timeMs = Math.max(this.timeMs, timeMs);
    const due = [...this.leases].filter(([, lease]) =>
      lease.deadlineMs <= this.timeMs
    );
    due.sort(([a, x], [b, y]) =>
      x.deadlineMs - y.deadlineMs || (a < b ? -1 : 1)
    );
    for (const [lease] of due) this.#endLease(lease);
  }

  /** The expected result; of an error only the code. */
  apply(request: Request): Result | { type: "error"; code: string } {
    try {
      return this.#apply(request);
    } catch (error) {
      if (error instanceof Refusal) return { type: "error", code: error.code };
      throw error;
    }
  }

  at(revision: number): Keys {
    return this.revisions[revision === 0 ? this.revision : revision]!;
  }

  list(
    range: KeyRange,
    options: ListOptions,
  ): { entries: StoredEntry[]; more: boolean } {
    let entries = inRange(this.at(options.revision), range);
    if (options.reverse) entries.reverse();
    const count = entries.length;
    if (options.limit > 0) entries = entries.slice(0, options.limit);
    const more = count > entries.length;
    if (options.keysOnly) {
      entries = entries.map((one) => ({ ...one, value: new Uint8Array(0) }));
    }
    return { entries, more };
  }

  #apply(request: Request): Result {
    switch (request.type) {
      case "put":
      case "delete": {
        const { results } = this.#run([request]);
        return { ...results[0]!, revision: this.revision } as Result;
      }
      case "transact": {
        if (runsOf(request).some(twice)) throw new Refusal("DUPLICATE_KEY");
        const { results: [result] } = this.#run([request]);
        return { ...result!, revision: this.revision } as Result;
      }
      case "grant": {
        const { lease, ttlMs } = request;
        if (ttlMs <= 0) throw new Refusal("LEASE_INVALID");
        if (this.leases.has(lease)) throw new Refusal("LEASE_EXISTS");
        this.leases.set(lease, { ttlMs, deadlineMs: this.timeMs + ttlMs });
        return { type: "lease", lease, ttlMs };
      }
      case "revoke": {
        if (!this.leases.has(request.lease)) {
          throw new Refusal("LEASE_NOT_FOUND");
        }
        const deleted = this.#endLease(request.lease);
        return { type: "revoked", revision: this.revision, deleted };
      }
      case "keepAlive": {
        const lease = this.leases.get(request.lease);
        if (lease === undefined) throw new Refusal("LEASE_NOT_FOUND");
        lease.deadlineMs = this.timeMs + lease.ttlMs;
        return { type: "lease", lease: request.lease, ttlMs: lease.ttlMs };
      }
      case "compact":
        if (request.revision <= 0) throw new Refusal("REVISION_INVALID");
        if (request.revision > this.revision) {
          throw new Refusal("REVISION_FUTURE");
        }
        if (request.revision <= this.compactRevision) {
          throw new Refusal("REVISION_COMPACTED");
        }
        this.compactRevision = request.revision;
        return { type: "done" };
      case "identify":
        return { type: "done" };
      case "mutate":
        return this.#mutate(request);
      case "changeUsers":
        // Its oracle is etcd.
        throw new Refusal("INTERNAL");
      default:
        return unreachable(request);
    }
  }

  #mutate(request: MutateRequest): Result {
    const outcome = mutateModel(request, {
      now: this.now,
      revision: this.revision + 1,
      valueBytesMax: this.#valueBytesMax,
    });
    if ("refused" in outcome) throw new Refusal(outcome.refused);
    if ("changes" in outcome) {
      this.#run(outcome.changes.map(([key, value]) =>
        value === null
          ? {
            type: "delete",
            range: { start: key, end: `${key}\0` },
            returnPrevious: false,
          }
          : { type: "put", key, value, lease: 0n, returnPrevious: false }
      ));
    }
    const { failedChecks = [] } = "failedChecks" in outcome ? outcome : {};
    return { type: "mutate", revision: this.revision, failedChecks };
  }

  /** Runs operations on a copy; it becomes the next revision if anything changed. */
  #run(operations: readonly Operation[]): { results: OperationResult[] } {
    const revision = this.revision + 1;
    const keys = new Map(this.now);
    const events: ModelEvent[] = [];
    const refusals: unknown[] = [];
    const run = (operation: Operation): OperationResult => {
      switch (operation.type) {
        case "put":
        case "modify":
          return this.#write(operation, { revision, keys, events });
        case "delete": {
          const gone = inRange(keys, operation.range);
          for (const previous of gone) {
            keys.delete(previous.key);
            events.push({
              type: "delete",
              revision,
              key: previous.key,
              entry: null,
              previous,
            });
          }
          return {
            type: "delete",
            deleted: gone.length,
            previous: operation.returnPrevious ? gone : [],
          };
        }
        case "get":
          return { type: "get", entry: keys.get(operation.key) ?? null };
        case "list": {
          const inside = new Model();
          inside.revisions.push(keys);
          const options = { ...operation, revision: 0, bytesMax: Infinity };
          return { type: "list", ...inside.list(operation.range, options) };
        }
        case "range": {
          let past: Keys = keys;
          try {
            if (operation.revision !== 0) {
              past = this.#readable(operation.revision);
            }
          } catch (error) {
            // What is wrong with a write is told first.
            refusals.push(error);
          }
          const changed = events.length > 0 ? 1 : 0;
          const result = readRange(past, operation);
          return { ...result, revision: this.revision + changed };
        }
        case "transact": {
          // `now` is what was there before all of this.
          const succeeded = operation.compares.every((one) => this.#holds(one));
          const branch = succeeded ? operation.then : operation.else;
          return { type: "transact", succeeded, results: branch.map(run) };
        }
        default:
          return unreachable(operation);
      }
    };
    const results = operations.map(run);
    if (refusals.length > 0) throw refusals[0];
    if (events.length > 0) {
      this.revisions.push(keys);
      this.events.push(...events);
    }
    return { results };
  }

  #write(
    operation: PutOperation | ModifyOperation,
    { revision, keys, events }: {
      revision: number;
      keys: Map<string, StoredEntry>;
      events: ModelEvent[];
    },
  ): OperationResult {
    const { key } = operation;
    const previous = keys.get(key) ?? null;
    const value = operation.type === "put"
      ? operation.value
      : this.#modified(operation, previous?.value);
    const lease = operation.lease ?? previous?.lease ?? 0n;
    if (lease !== 0n && !this.leases.has(lease)) {
      throw new Refusal("LEASE_NOT_FOUND");
    }
    if (key === "") throw new Refusal("KEY_EMPTY");
    const entry = {
      key,
      value,
      lease,
      createRevision: previous?.createRevision ?? revision,
      modRevision: revision,
      version: (previous?.version ?? 0) + 1,
    };
    keys.set(key, entry);
    events.push({ type: "put", revision, key, entry, previous });
    const shown = operation.returnPrevious ? previous : null;
    return operation.type === "put"
      ? { type: "put", version: entry.version, previous: shown }
      : { type: "modify", entry, previous: shown };
  }

  #readable(revision: number): Keys {
    if (revision > this.revision) throw new Refusal("REVISION_FUTURE");
    if (revision < this.compactRevision) {
      throw new Refusal("REVISION_COMPACTED");
    }
    return this.at(revision);
  }

  #modified(operation: ModifyOperation, present?: Uint8Array): Uint8Array {
    const { operand, encoding } = operation;
    if (operation.function === "append") {
      const joined = [...present ?? [], ...operand];
      if (joined.length > this.#valueBytesMax) {
        throw new Refusal("VALUE_TOO_LARGE");
      }
      return Uint8Array.from(joined);
    }
    if (operation.function === "keep" || operation.function === "set") {
      if (present === undefined) throw new Refusal("KEY_NOT_FOUND");
      return operation.function === "keep" ? present : operand;
    }
    const by = numberOf(operand, encoding);
    if (by === null) throw new Refusal("MALFORMED");
    const number = present === undefined ? by : numberOf(present, encoding);
    if (number === null) throw new Refusal("VALUE_INVALID");
    const results = {
      add: present === undefined ? by : number + by,
      min: number < by ? number : by,
      max: number > by ? number : by,
    };
    const bytes = bytesOf(results[operation.function], encoding);
    if (bytes === null) throw new Refusal("VALUE_INVALID");
    return bytes;
  }

  #endLease(lease: bigint): number {
    this.leases.delete(lease);
    const keys = [...this.now.values()].filter((entry) =>
      entry.lease === lease
    );
    keys.sort((a, b) => a.key < b.key ? -1 : 1);
    this.#run(keys.map(({ key }) => ({
      type: "delete",
      range: { start: key, end: key + "\0" },
      returnPrevious: false,
    })));
    return keys.length;
  }

  #holds(compare: Compare): boolean {
    const { key: start, end } = compare;
    const entries = end === undefined
      ? [this.now.get(start)]
      : inRange(this.now, { start, end });
    return entries.length === 0
      ? holdsFor(compare, undefined)
      : entries.every((entry) => holdsFor(compare, entry));
  }
}

function holdsFor(compare: Compare, entry: StoredEntry | undefined): boolean {
  const { target } = compare;
  let order: number;
  if (target.type === "value") {
    if (entry === undefined) return false;
    const [a, b] = [entry.value, target.value].map((bytes) =>
      String.fromCharCode(...bytes)
    );
    order = a! < b! ? -1 : a! > b! ? 1 : 0;
  } else if (target.type === "lease") {
    order = Number((entry?.lease ?? 0n) - target.lease);
  } else {
    order = (entry?.[target.type] ?? 0) - target.number;
  }
  return {
    equal: order === 0,
    notEqual: order !== 0,
    less: order < 0,
    greater: order > 0,
  }[compare.relation];
}

/** A decimal number is a text that prints as itself; 8 bytes are digits to base 256, the last first. */
function numberOf(
  bytes: Uint8Array,
  encoding: ModifyOperation["encoding"],
): bigint | null {
  if (encoding === "uint64le") {
    if (bytes.length !== 8) return null;
    return bytes.reduceRight((sum, digit) => sum * 256n + BigInt(digit), 0n);
  }
  const text = String.fromCharCode(...bytes);
  let number: bigint;
  try {
    number = BigInt(text);
  } catch {
    return null;
  }
  const inBounds = number >= -(2n ** 63n) && number < 2n ** 63n;
  return inBounds && number.toString() === text ? number : null;
}

/** The other way round; null for a decimal number that is out of bounds. */
function bytesOf(
  number: bigint,
  encoding: ModifyOperation["encoding"],
): Uint8Array | null {
  const bytes = encoding === "decimal"
    ? Array.from(number.toString(), (digit) => digit.charCodeAt(0))
    : Array.from(
      { length: 8 },
      (_, at) => Number(number / 256n ** BigInt(at) % 256n),
    );
  const value = Uint8Array.from(bytes);
  return numberOf(value, encoding) === null ? null : value;
}

function inRange(keys: Keys, range: KeyRange): StoredEntry[] {
  return [...keys.values()]
    .filter(({ key }) =>
      key >= range.start && (range.end === null || key < range.end)
    )
    .sort((a, b) => a.key < b.key ? -1 : 1);
}

/** Every way in which a transaction can go, nested ones included: all its writes in a row. */
function runsOf(request: TransactRequest): Operation[][] {
  return [request.then, request.else].flatMap((branch) =>
    branch.reduce<Operation[][]>((runs, operation) => {
      const next = operation.type === "transact"
        ? runsOf(operation)
        : [[operation]];
      return runs.flatMap((run) => next.map((more) => [...run, ...more]));
    }, [[]])
  );
}

/** As the rules of etcd's `Range` say, one after the other. */
function readRange(
  keys: Keys,
  operation: RangeOperation,
): Omit<RangeResult, "revision"> & { type: "range" } {
  const { range, limit, sortOrder, sortTarget, keysOnly } = operation;
  let entries = inRange(keys, range);
  const count = entries.length;
  if (operation.countOnly) {
    return { type: "range", entries: [], count, more: false };
  }
  const isWhole = sortOrder !== "none" || operation.modRevisionMin > 0 ||
    operation.modRevisionMax > 0 || operation.createRevisionMin > 0 ||
    operation.createRevisionMax > 0;
  if (!isWhole && limit > 0) entries = entries.slice(0, limit + 1);
  for (const name of ["modRevision", "createRevision"] as const) {
    const [min, max] = [operation[`${name}Min`], operation[`${name}Max`]];
    entries = entries.filter((entry) =>
      entry[name] >= min && (max === 0 || entry[name] <= max)
    );
  }
  const rank = (entry: StoredEntry) =>
    sortTarget === "value" || sortTarget === "key"
      ? String.fromCharCode(...entry.value)
      : entry[sortTarget];
  const sign = sortOrder === "descend" ? -1 : 1;
  if (sortTarget !== "key") {
    entries.sort((a, b) =>
      sign * (rank(a) < rank(b) ? -1 : rank(a) > rank(b) ? 1 : 0)
    );
  } else if (sortOrder === "descend") entries.reverse();
  const more = limit > 0 && entries.length > limit;
  if (more) entries = entries.slice(0, limit);
  if (keysOnly) {
    entries = entries.map((one) => ({ ...one, value: new Uint8Array(0) }));
  }
  return { type: "range", entries, count, more };
}

function twice(operations: readonly Operation[]): boolean {
  return operations.some((a, i) =>
    operations.some((b, j) =>
      i !== j && (a.type === "put" || a.type === "modify") &&
      ((b.type === "put" || b.type === "modify") && a.key === b.key ||
        b.type === "delete" && a.key >= b.range.start &&
          (b.range.end === null || a.key < b.range.end))
    )
  );
}
