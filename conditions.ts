/**
 * What decides about a transaction before it runs: its comparisons, that no key is written twice,
 * and what its answer reads. Used by `store.ts`; `service.ts` refuses transactions that write a key
 * twice before they enter the log.
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

/** Compares as bytes: negative, 0 or positive. */
export function compareBytes(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    if (a[i] !== b[i]) return a[i]! - b[i]!;
  }
  return a.length - b.length;
}

/** True if the comparison holds; `record` is undefined if the key does not exist. */
export function holds(
  compare: Compare,
  key: {
    record: KeyRecord | undefined;
    read: (position: number) => Uint8Array;
  },
): boolean {
  const { record, read } = key;
  const { target } = compare;
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
      order = compareBytes(read(record.position), target.value);
      break;
    default:
      return unreachable(target);
  }
  switch (compare.relation) {
    case "equal":
      return order === 0;
    case "notEqual":
      return order !== 0;
    case "less":
      return order < 0;
    case "greater":
      return order > 0;
    default:
      return unreachable(compare.relation);
  }
}

/**
 * A key that the operations put or modify twice, or so and delete; null if there is none. Deletes
 * may overlap: the later one finds nothing left.
 */
export function writesTwice(operations: readonly Operation[]): Key | null {
  const written = new Set<Key>();
  for (const operation of operations) {
    if (operation.type !== "put" && operation.type !== "modify") continue;
    if (written.has(operation.key)) return operation.key;
    written.add(operation.key);
  }
  if (written.size === 0) return null;
  for (const operation of operations) {
    if (operation.type !== "delete") continue;
    const { start, end } = operation.range;
    for (const key of written) {
      if (key >= start && (end === null || key < end)) return key;
    }
  }
  return null;
}

/** True if nothing that a transaction may do changes anything. */
export function onlyReads(request: TransactRequest): boolean {
  return [request.then, request.else].every((operations) =>
    operations.every(({ type }) => type === "get" || type === "list")
  );
}

/** What an operation reads for its answer; the range is null if nothing. */
export function readBy(
  operation: Operation,
): { range: KeyRange | null; limit: number; keysOnly: boolean } {
  switch (operation.type) {
    case "put":
    case "modify":
      return {
        range: operation.returnPrevious ? only(operation.key) : null,
        limit: 0,
        keysOnly: false,
      };
    case "delete":
      return {
        range: operation.returnPrevious ? operation.range : null,
        limit: 0,
        keysOnly: false,
      };
    case "get":
      return { range: only(operation.key), limit: 0, keysOnly: false };
    case "list":
      return {
        range: operation.range,
        limit: operation.limit,
        keysOnly: operation.keysOnly,
      };
    default:
      return unreachable(operation);
  }
}

/** The range of one key. */
function only(key: Key): KeyRange {
  return { start: key, end: key + "\0" };
}
