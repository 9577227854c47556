/**
 * What decides about a transaction before it runs: its comparisons, and that no key is written
 * twice. Used by `steps.ts`; `service.ts` refuses transactions that write a key twice before they
 * enter the log.
 *
 * @module
 */
import type {
  Compare,
  Key,
  KeyRange,
  Operation,
  TransactRequest,
} from "./batch.ts";
import { unreachable } from "./errors.ts";
import type { KeyRecord } from "./keys.ts";
import { compareBytes } from "./ranges.ts";

/** What comparisons look at. */
export interface Keyspace {
  /** The record of a key that exists. */
  find(key: Key): KeyRecord | undefined;
  /** The records of a range's keys that exist. */
  records(range: KeyRange): readonly KeyRecord[];
  /** The entry in a row. */
  read(position: number): { readonly value: Uint8Array };
}

/** True if the comparison holds. */
export function holds(compare: Compare, keyspace: Keyspace): boolean {
  const { key: start, end } = compare;
  if (end === undefined) {
    return holdsFor(compare, { record: keyspace.find(start), keyspace });
  }
  const records = keyspace.records({ start, end });
  if (records.length === 0) {
    return holdsFor(compare, { record: undefined, keyspace });
  }
  return records.every((record) => holdsFor(compare, { record, keyspace }));
}

/** Of one key; `record` is undefined if it does not exist. */
function holdsFor(
  { target, relation }: Compare,
  { record, keyspace }: { record: KeyRecord | undefined; keyspace: Keyspace },
): boolean {
  let order: number;
  switch (target.type) {
    case "version":
      order = (record?.version ?? 0) - target.number;
      break;
    case "createRevision":
      order = (record?.createRevision ?? 0) - target.number;
      break;
    case "modRevision":
      order = (record?.revision ?? 0) - target.number;
      break;
    case "lease": {
      const lease = record?.lease ?? 0n;
      order = lease < target.lease ? -1 : lease > target.lease ? 1 : 0;
      break;
    }
    case "value":
      if (record === undefined) return false;
      order = compareBytes(keyspace.read(record.position).value, target.value);
      break;
    default:
      return unreachable(target);
  }
  switch (relation) {
    case "equal":
      return order === 0;
    case "notEqual":
      return order !== 0;
    case "less":
      return order < 0;
    case "greater":
      return order > 0;
    default:
      return unreachable(relation);
  }
}

/** What operations may write. */
interface Writes {
  /** Keys put or modified. */
  readonly keys: Set<Key>;
  /** Ranges deleted. */
  readonly deletes: KeyRange[];
}

/**
 * A key that one run of the transaction could put or modify twice, or so and delete; null if there
 * is none. Deletes may overlap: the later one finds nothing left. Of the two branches only one runs.
 */
export function writesTwice(request: TransactRequest): Key | null {
  const writes = writesOf(request);
  return typeof writes === "string" ? writes : null;
}

/** Both branches of a transaction; a key that one of them writes twice. */
function writesOf(request: TransactRequest): Writes | Key {
  const then = writesOfBranch(request.then);
  if (typeof then === "string") return then;
  const otherwise = writesOfBranch(request.else);
  if (typeof otherwise === "string") return otherwise;
  const keys = then.keys.union(otherwise.keys);
  return { keys, deletes: [...then.deletes, ...otherwise.deletes] };
}

/**
 * Each operation is compared with those before it: what a nested transaction puts in one branch and
 * deletes in the other never meets.
 */
function writesOfBranch(operations: readonly Operation[]): Writes | Key {
  const keys = new Set<Key>();
  const deletes: KeyRange[] = [];
  for (const operation of operations) {
    const writes = writesOfOperation(operation);
    if (typeof writes === "string") return writes;
    for (const key of writes.keys) {
      if (keys.has(key) || isIn(deletes, key)) return key;
    }
    for (const key of writes.deletes.length === 0 ? [] : keys) {
      if (isIn(writes.deletes, key)) return key;
    }
    for (const key of writes.keys) keys.add(key);
    deletes.push(...writes.deletes);
  }
  return { keys, deletes };
}

function isIn(ranges: readonly KeyRange[], key: Key): boolean {
  return ranges.some(({ start, end }) =>
    key >= start && (end === null || key < end)
  );
}

function writesOfOperation(operation: Operation): Writes | Key {
  switch (operation.type) {
    case "put":
    case "modify":
      return { keys: new Set([operation.key]), deletes: [] };
    case "delete":
      return { keys: new Set(), deletes: [operation.range] };
    case "get":
    case "list":
    case "range":
      return { keys: new Set(), deletes: [] };
    case "transact":
      return writesOf(operation);
    default:
      return unreachable(operation);
  }
}

/** True if nothing that a transaction may do changes anything. */
export function onlyReads(request: TransactRequest): boolean {
  return [request.then, request.else].every((operations) =>
    operations.every((operation) =>
      operation.type === "get" || operation.type === "list" ||
      operation.type === "range" ||
      operation.type === "transact" && onlyReads(operation)
    )
  );
}
