/**
 * etcd's KV service: its requests as operations of `service.ts`, and the results as its responses.
 * Used by `etcd.ts`; `etcdwatch.ts` and `etcdlease.ts` use its conversions too.
 *
 * A request is checked as etcd checks it, in the same order, before it becomes operations, so that
 * of two mistakes the client hears of the same one.
 *
 * @module
 */

import type { Buffer } from "node:buffer";
import type * as grpc from "@grpc/grpc-js";
import type {
  Compare,
  Key,
  KeyRange,
  Operation,
  RangeOperation,
  StoredEntry,
  TransactRequest,
} from "./batch.ts";
import { fromKey, fromLease, toKey, toLease } from "./convert.ts";
import { AssertionError } from "./errors.ts";
import { type EtcdContext, unaries } from "./etcdcall.ts";
import { EtcdError } from "./etcderrors.ts";
import type { RangeResult } from "./ranges.ts";
import type { OperationResult } from "./results.ts";
import { type CallOptions, keyAfter } from "./service.ts";

// ------------------------------------------------------------------ shapes on the wire

/** A 64-bit number as decimal text. */
type Int64 = string;

interface WireRange {
  key: Buffer;
  range_end: Buffer;
  limit: Int64;
  revision: Int64;
  /** A number if it is none that we know. */
  sort_order: string | number;
  sort_target: string | number;
  serializable: boolean;
  keys_only: boolean;
  count_only: boolean;
  min_mod_revision: Int64;
  max_mod_revision: Int64;
  min_create_revision: Int64;
  max_create_revision: Int64;
}

interface WirePut {
  key: Buffer;
  value: Buffer;
  lease: Int64;
  prev_kv: boolean;
  ignore_value: boolean;
  ignore_lease: boolean;
}

interface WireDelete {
  key: Buffer;
  range_end: Buffer;
  prev_kv: boolean;
}

interface WireCompare {
  result: string | number;
  target: string | number;
  key: Buffer;
  range_end: Buffer;
  version?: Int64;
  create_revision?: Int64;
  mod_revision?: Int64;
  value?: Buffer;
  lease?: Int64;
}

interface WireOperation {
  request_range?: WireRange | null;
  request_put?: WirePut | null;
  request_delete_range?: WireDelete | null;
  request_txn?: WireTxn | null;
}

interface WireTxn {
  compare: WireCompare[];
  success: WireOperation[];
  failure: WireOperation[];
}

// ------------------------------------------------------------------ handlers

/** The handlers of `etcdserverpb.KV`. */
export function kvHandlers(
  context: EtcdContext,
): grpc.UntypedServiceImplementation {
  return unaries(context, {
    Range: range,
    Put: put,
    DeleteRange: deleteRange,
    Txn: txn,
    Compact: compact,
  });
}

async function range(
  wire: WireRange,
  { service, header }: EtcdContext,
  options: CallOptions,
) {
  checkRange(wire);
  const { serializable } = wire;
  // By itself, unlike in a transaction, a read before all history is one of now.
  const operation = toRangeOperation(wire);
  const revision = Math.max(0, operation.revision);
  const result = await service.range({ ...operation, revision }, {
    ...options,
    serializable,
  });
  return { header: header(result.revision), ...fromRangeResult(result) };
}

async function put(
  wire: WirePut,
  { service, header }: EtcdContext,
  options: CallOptions,
) {
  checkPut(wire);
  const operation = toPutOperation(wire);
  const write = { ...options, writeId: null };
  if (operation.type === "put") {
    const { revision, previous } = await service.put(operation, write);
    return { header: header(revision), prev_kv: fromPrevious(previous) };
  }
  // What depends on the present value or lease is a step of a transaction.
  const { revision, results: [result] } = await service.transact({
    type: "transact",
    compares: [],
    then: [operation],
    else: [],
  }, write).catch(async (error) => {
    // By itself, unlike in a transaction, a put is first asked for its lease.
    if (error.code === "KEY_NOT_FOUND" && operation.lease) {
      await service.timeToLive(operation.lease, options);
    }
    throw error;
  });
  const previous = result?.type === "modify" ? result.previous : null;
  return { header: header(revision), prev_kv: fromPrevious(previous) };
}

async function deleteRange(
  wire: WireDelete,
  { service, header }: EtcdContext,
  options: CallOptions,
) {
  checkDelete(wire);
  const { revision, deleted, previous } = await service.delete({
    type: "delete",
    range: toRange(wire),
    returnPrevious: wire.prev_kv,
  }, { ...options, writeId: null });
  return {
    header: header(revision),
    deleted,
    prev_kvs: previous.map(fromStored),
  };
}

async function txn(
  wire: WireTxn,
  { service, header, config }: EtcdContext,
  options: CallOptions,
) {
  checkTxn(wire, config.settings.transactionOperationsMax);
  const isSerializable = [...wire.success, ...wire.failure].every((one) =>
    one.request_range?.serializable === true
  );
  const result = await service.transact(toTransact(wire), {
    ...options,
    writeId: null,
    serializable: isSerializable,
  });
  const { revision, succeeded, results } = result;
  const state = {
    changed: false,
    begin: revision - (results.some(changes) ? 1 : 0),
  };
  return {
    header: header(revision),
    succeeded,
    responses: results.map((one) => fromResult(one, state)),
  };
}

async function compact(
  wire: { revision: Int64; physical: boolean },
  { service }: EtcdContext,
  options: CallOptions,
) {
  const revision = toBounded(wire.revision);
  // etcd lets an empty history be cut at 0.
  if (revision < 0 || revision === 0 && service.replica.compactRevision > 0) {
    throw new EtcdError("compacted");
  }
  if (revision === 0) await service.ready({ ...options, serializable: false });
  else await service.compact(revision, options);
  if (wire.physical) await service.compacted(options);
  return {};
}

// ------------------------------------------------------------------ checks, in etcd's order

const SORT_ORDERS: ReadonlyMap<unknown, RangeOperation["sortOrder"]> = new Map(
  [["NONE", "none"], ["ASCEND", "ascend"], ["DESCEND", "descend"]],
);

const SORT_TARGETS: ReadonlyMap<unknown, RangeOperation["sortTarget"]> =
  new Map([
    ["KEY", "key"],
    ["VERSION", "version"],
    ["CREATE", "createRevision"],
    ["MOD", "modRevision"],
    ["VALUE", "value"],
  ]);

function checkRange(wire: WireRange): void {
  if (wire.key.length === 0) throw new EtcdError("emptyKey");
  if (
    !SORT_ORDERS.has(wire.sort_order) || !SORT_TARGETS.has(wire.sort_target)
  ) {
    throw new EtcdError("invalidSortOption");
  }
}

function checkPut(wire: WirePut): void {
  if (wire.key.length === 0) throw new EtcdError("emptyKey");
  if (wire.ignore_value && wire.value.length > 0) {
    throw new EtcdError("valueProvided");
  }
  if (wire.ignore_lease && wire.lease !== "0") {
    throw new EtcdError("leaseProvided");
  }
}

function checkDelete(wire: WireDelete): void {
  if (wire.key.length === 0) throw new EtcdError("emptyKey");
}

function checkTxn(wire: WireTxn, operationsMax: number): void {
  const { compare, success, failure } = wire;
  const operations = Math.max(compare.length, success.length, failure.length);
  if (operations > operationsMax) throw new EtcdError("tooManyOps");
  for (const { key } of compare) {
    if (key.length === 0) throw new EtcdError("emptyKey");
  }
  for (const operation of [...success, ...failure]) {
    checkOperation(operation, operationsMax - operations);
  }
}

function checkOperation(wire: WireOperation, operationsMax: number): void {
  if (wire.request_range) checkRange(wire.request_range);
  else if (wire.request_put) checkPut(wire.request_put);
  else if (wire.request_delete_range) checkDelete(wire.request_delete_range);
  else if (wire.request_txn) checkTxn(wire.request_txn, operationsMax);
  else throw new EtcdError("keyNotFound");
}

// ------------------------------------------------------------------ in

/** A number that may be anything: what is beyond all revisions stays beyond them. */
export function toBounded(wire: Int64): number {
  const { MAX_SAFE_INTEGER: max } = Number;
  return Math.max(-max, Math.min(max, Number(wire)));
}

/** Without an end the one key; up to a single zero byte all that follow. */
export function toRange(
  wire: { readonly key: Buffer; readonly range_end: Buffer },
): KeyRange {
  const start = toKey(wire.key);
  const end = toEnd(wire.range_end);
  return { start, end: end === undefined ? keyAfter(start) : end };
}

/** Undefined if there is none, null if the range has no end. */
function toEnd(wire: Buffer): Key | null | undefined {
  if (wire.length === 0) return undefined;
  return wire.length === 1 && wire[0] === 0 ? null : toKey(wire);
}

function toRangeOperation(wire: WireRange): RangeOperation {
  const modRevisionMax = toBounded(wire.max_mod_revision);
  const createRevisionMax = toBounded(wire.max_create_revision);
  // A bound below all revisions leaves nothing.
  const isNothing = modRevisionMax < 0 || createRevisionMax < 0;
  return {
    type: "range",
    range: toRange(wire),
    revision: toBounded(wire.revision),
    limit: Math.max(0, toBounded(wire.limit)),
    sortOrder: SORT_ORDERS.get(wire.sort_order) ?? "none",
    sortTarget: SORT_TARGETS.get(wire.sort_target) ?? "key",
    keysOnly: wire.keys_only,
    countOnly: wire.count_only,
    modRevisionMin: isNothing
      ? Number.MAX_SAFE_INTEGER
      : Math.max(0, toBounded(wire.min_mod_revision)),
    modRevisionMax: Math.max(0, modRevisionMax),
    createRevisionMin: Math.max(0, toBounded(wire.min_create_revision)),
    createRevisionMax: Math.max(0, createRevisionMax),
  };
}

function toPutOperation(wire: WirePut) {
  const key = toKey(wire.key);
  const lease = toKnownLease(wire.lease);
  const { value, prev_kv: returnPrevious } = wire;
  if (!wire.ignore_value && !wire.ignore_lease) {
    return { type: "put", key, value, lease, returnPrevious } as const;
  }
  return {
    type: "modify",
    key,
    function: wire.ignore_value ? "keep" : "set",
    encoding: "decimal",
    operand: value,
    lease: wire.ignore_lease ? null : lease,
    returnPrevious,
  } as const;
}

/** Ids of leases are positive here, so no other one is known. */
export function toKnownLease(wire: Int64): bigint {
  const lease = toLease(wire);
  if (lease < 0n) throw new EtcdError("leaseNotFound");
  return lease;
}

function toOperation(wire: WireOperation): Operation {
  if (wire.request_range) return toRangeOperation(wire.request_range);
  if (wire.request_put) return toPutOperation(wire.request_put);
  if (wire.request_delete_range) {
    const { prev_kv: returnPrevious } = wire.request_delete_range;
    const range = toRange(wire.request_delete_range);
    return { type: "delete", range, returnPrevious };
  }
  if (wire.request_txn) return toTransact(wire.request_txn);
  throw new AssertionError("An operation that was checked is empty");
}

function toTransact(wire: WireTxn): TransactRequest {
  return {
    type: "transact",
    compares: wire.compare.map(toCompare),
    then: wire.success.map(toOperation),
    else: wire.failure.map(toOperation),
  };
}

const RELATIONS: ReadonlyMap<unknown, Compare["relation"]> = new Map([
  ["EQUAL", "equal"],
  ["GREATER", "greater"],
  ["LESS", "less"],
  ["NOT_EQUAL", "notEqual"],
]);

const EMPTY_VALUE: Uint8Array = new Uint8Array(0);

function toCompare(wire: WireCompare): Compare {
  const relation = RELATIONS.get(wire.result) ?? "equal";
  const compare = { key: toKey(wire.key), relation, target: toTarget(wire) };
  const end = toEnd(wire.range_end);
  return end === undefined ? compare : { ...compare, end };
}

/** What is compared with is 0 or empty where the field that belongs to the target is not set. */
function toTarget(wire: WireCompare): Compare["target"] {
  switch (wire.target) {
    case "CREATE":
      return {
        type: "createRevision",
        number: toBounded(wire.create_revision ?? "0"),
      };
    case "MOD":
      return {
        type: "modRevision",
        number: toBounded(wire.mod_revision ?? "0"),
      };
    case "VALUE":
      return { type: "value", value: wire.value ?? EMPTY_VALUE };
    case "LEASE":
      return { type: "lease", lease: toLease(wire.lease ?? "0") };
    default:
      return { type: "version", number: toBounded(wire.version ?? "0") };
  }
}

// ------------------------------------------------------------------ out

/** An entry as etcd's `KeyValue`. */
export function fromStored(entry: StoredEntry) {
  return {
    key: fromKey(entry.key),
    create_revision: entry.createRevision,
    mod_revision: entry.modRevision,
    version: entry.version,
    value: entry.value,
    lease: fromLease(entry.lease),
  };
}

export function fromPrevious(entry: StoredEntry | null) {
  return entry === null ? null : fromStored(entry);
}

function fromRangeResult({ entries, more, count }: RangeResult) {
  return { kvs: entries.map(fromStored), more, count };
}

function changes(result: OperationResult): boolean {
  switch (result.type) {
    case "put":
    case "modify":
      return true;
    case "delete":
      return result.deleted > 0;
    case "transact":
      return result.results.some(changes);
    case "get":
    case "list":
    case "range":
      return false;
  }
}

/**
 * The answer to one request of a transaction; its header tells the revision as it was then and
 * nothing else, as etcd's does.
 */
function fromResult(
  result: OperationResult,
  state: { changed: boolean; readonly begin: number },
): Record<string, unknown> {
  state.changed ||= result.type !== "transact" && changes(result);
  const header = { revision: state.begin + (state.changed ? 1 : 0) };
  switch (result.type) {
    case "put":
    case "modify":
      return {
        response_put: { header, prev_kv: fromPrevious(result.previous) },
      };
    case "delete": {
      const { deleted, previous } = result;
      const prev_kvs = previous.map(fromStored);
      return { response_delete_range: { header, deleted, prev_kvs } };
    }
    case "range":
      return { response_range: { header, ...fromRangeResult(result) } };
    case "transact": {
      const { succeeded, results } = result;
      const responses = results.map((one) => fromResult(one, state));
      return { response_txn: { header: {}, succeeded, responses } };
    }
    case "get":
    case "list":
      throw new AssertionError(
        `No request of etcd's asks for a ${result.type}`,
      );
  }
}
