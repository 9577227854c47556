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
  return collectWrites(request.then, { keys: new Set(), deletes: [] }) ??
    collectWrites(request.else, { keys: new Set(), deletes: [] });
}

/** Adds what operations may write to what is written before them, or gives a key that is in both. */
function collectWrites(
  operations: readonly Operation[],
  before: Writes,
): Key | null {
  for (const operation of operations) {
    const twice = collectWrite(operation, before);
    if (twice !== null) return twice;
  }
  return null;
}

function collectWrite(operation: Operation, before: Writes): Key | null {
  const { keys, deletes } = before;
  switch (operation.type) {
    case "put":
    case "modify": {
      const { key } = operation;
      if (keys.has(key) || deletes.some((range) => isIn(range, key))) {
        return key;
      }
      keys.add(key);
      return null;
    }
    case "delete": {
      for (const key of keys) if (isIn(operation.range, key)) return key;
      deletes.push(operation.range);
      return null;
    }
    case "get":
    case "list":
    case "range":
      return null;
    case "transact":
      return collectBranches(operation, before);
    default:
      return unreachable(operation);
  }
}

/** What one branch writes never meets what the other one does. */
function collectBranches(
  { then, else: otherwise }: TransactRequest,
  before: Writes,
): Key | null {
  const { keys, deletes } = before;
  const other = { keys: new Set(keys), deletes: [...deletes] };
  const deletesBefore = deletes.length;
  const twice = collectWrites(then, before) ?? collectWrites(otherwise, other);
  for (const key of other.keys) keys.add(key);
  deletes.push(...other.deletes.slice(deletesBefore));
  return twice;
}

function isIn({ start, end }: KeyRange, key: Key): boolean {
  return key >= start && (end === null || key < end);
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
