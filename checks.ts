/**
 * What a request must be like by itself, before anything looks at the state: lengths, counts and
 * numbers. Used by `service.ts`.
 *
 * @module
 */

import type {
  Key,
  KeyRange,
  Operation,
  RangeOperation,
  TransactRequest,
} from "./batch.ts";
import { writesTwice } from "./conditions.ts";
import { LIMITS } from "./config.ts";
import { DkvError, unreachable } from "./errors.ts";
import { checkOperand } from "./modify.ts";

export function checkKey(key: Key): void {
  if (key.length === 0) throw new DkvError("KEY_EMPTY", "The key is empty");
  if (key.length > LIMITS.keyBytesMax) {
    throw new DkvError(
      "KEY_TOO_LARGE",
      `The key is too large: ${key.length} bytes, at most ${LIMITS.keyBytesMax}`,
    );
  }
}

function checkValue(value: Uint8Array): void {
  if (value.length > LIMITS.valueBytesMax) {
    throw new DkvError(
      "VALUE_TOO_LARGE",
      `The value is too large: ${value.length} bytes, at most ${LIMITS.valueBytesMax}`,
    );
  }
}

/** An empty range is no mistake here: a caller may want nothing. */
export function checkRange({ start, end }: KeyRange): void {
  for (const bound of [start, end ?? ""]) {
    // One more than a key: the end that makes a range of the largest key.
    if (bound.length > LIMITS.keyBytesMax + 1) {
      throw new DkvError(
        "KEY_TOO_LARGE",
        `The bound of the range is too large: ${bound.length} bytes, at most ${LIMITS.keyBytesMax}`,
      );
    }
  }
}

export function checkRevision(revision: number): void {
  if (!Number.isSafeInteger(revision) || revision < 0) {
    throw new DkvError(
      "REVISION_INVALID",
      `A revision is a whole number from 0 to 2^53 - 1, not ${revision}`,
    );
  }
}

export function checkCount(name: string, count: number): void {
  if (!Number.isSafeInteger(count) || count < 0) {
    throw new DkvError(
      "MALFORMED",
      `The ${name} is a whole number from 0, not ${count}`,
    );
  }
}

export function checkLease(lease: bigint): void {
  if (lease <= 0n) {
    throw new DkvError("LEASE_INVALID", `A lease id is positive, not ${lease}`);
  }
}

/** 0n is no lease. */
export function checkLeaseOrNone(lease: bigint): void {
  if (lease < 0n) {
    throw new DkvError(
      "LEASE_INVALID",
      `A lease id is not negative: ${lease}`,
    );
  }
}

export function checkOperation(
  operation: Exclude<Operation, TransactRequest>,
): void {
  switch (operation.type) {
    case "put":
      checkKey(operation.key);
      checkValue(operation.value);
      return checkLeaseOrNone(operation.lease);
    case "modify": {
      checkKey(operation.key);
      checkValue(operation.operand);
      checkLeaseOrNone(operation.lease ?? 0n);
      const error = checkOperand(operation);
      if (error !== null) throw new DkvError(error.code, error.message);
      return;
    }
    case "delete":
      checkRange(operation.range);
      return;
    case "get":
      return checkKey(operation.key);
    case "list":
      checkRange(operation.range);
      return checkCount("limit", operation.limit);
    case "range":
      return checkRangeOperation(operation);
    default:
      unreachable(operation);
  }
}

export function checkRangeOperation(operation: RangeOperation): void {
  checkRange(operation.range);
  checkRevision(Math.abs(operation.revision));
  checkCount("limit", operation.limit);
  checkRevision(operation.modRevisionMin);
  checkRevision(operation.modRevisionMax);
  checkRevision(operation.createRevisionMin);
  checkRevision(operation.createRevisionMax);
}

export function checkTransaction(
  request: TransactRequest,
  { operationsMax }: { operationsMax: number },
): void {
  checkBranches(request, operationsMax);
  const twice = writesTwice(request);
  if (twice === null) return;
  throw new DkvError(
    "DUPLICATE_KEY",
    `The key ${printable(twice)} is changed twice in one transaction`,
  );
}

/** A nested transaction may have as many operations as the one around it left (as in etcd). */
function checkBranches(request: TransactRequest, operationsMax: number): void {
  const { compares, then, else: otherwise } = request;
  const lists = { compares, then, else: otherwise };
  for (const [name, list] of Object.entries(lists)) {
    if (list.length > operationsMax) {
      throw new DkvError(
        "TOO_MANY_OPERATIONS",
        `Too many operations in \`${name}\`: ${list.length}, at most ${operationsMax}`,
      );
    }
  }
  for (const { key, end, target } of compares) {
    checkKey(key);
    if (end !== undefined) checkRange({ start: key, end });
    if (target.type === "value") checkValue(target.value);
  }
  const left = operationsMax -
    Math.max(compares.length, then.length, otherwise.length);
  for (const operation of [...then, ...otherwise]) {
    if (operation.type === "transact") checkBranches(operation, left);
    else checkOperation(operation);
  }
}

/** A key for a message: printable ASCII as it is, the rest escaped, cut when long. */
export function printable(key: Key): string {
  const shown = key.slice(0, 40).replace(
    /[^\x20-\x7e]/g,
    (unit) => `\\x${unit.charCodeAt(0).toString(16).padStart(2, "0")}`,
  );
  return `"${shown}"${key.length > 40 ? "…" : ""}`;
}
