/**
 * What the differential fuzzer does to a server, as plain data that can be printed, shrunk and
 * replayed: one step is one request. Used by all of `tests/etcd/`.
 *
 * A request has the fields of `proto/etcd/rpc.proto`. Bytes are latin1 text. Revisions are decimal
 * text, or relative: `current-3` (to the newest revision before the request), `start+2` (to that at
 * the beginning of the sequence), `compacted+1` (to the latest compaction), so that a sequence means
 * the same whatever was there before.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { readsUsers, type UserCall } from "./users.ts";

/** A request's fields. */
export type Request = { [field: string]: Value };
/** What a field may hold. */
export type Value = string | number | boolean | Request | Value[];

/** Calls with one answer each, in the order in which they were sent. */
export const UNARY = [
  "KV.Range",
  "KV.Put",
  "KV.DeleteRange",
  "KV.Txn",
  "KV.Compact",
  "Lease.LeaseGrant",
  "Lease.LeaseRevoke",
  "Lease.LeaseTimeToLive",
  "Lease.LeaseLeases",
] as const;

/** What a step does. `Watch.*` use the one watch stream of a sequence, `LeaseKeepAlive` that of a server. */
export type Call =
  | typeof UNARY[number]
  | UserCall
  | "Lease.LeaseKeepAlive"
  | "Watch.create"
  | "Watch.cancel"
  | "Watch.progress";

/** One request. */
export interface Step {
  readonly call: Call;
  readonly request: Request;
}

/** What relative revisions refer to. */
export interface Revisions {
  start: number;
  current: number;
  compacted: number;
}

/**
 * Every key that a sequence asks for or writes. Not more than 12: as far as that etcd's sort keeps
 * the order of equals.
 */
export const KEYS: readonly string[] = [
  "\0",
  "a",
  "a\0",
  "aa",
  "ab",
  "b",
  "c",
  "d\xff",
  "e",
  "\xff",
];

const BYTES_FIELDS = new Set(["key", "range_end", "value"]);
const RELATIVE_REGEXP = /^(start|current|compacted)([+-]\d+)?$/;

/** True if a step changes nothing, so that it may run beside others that change nothing. */
export function isRead({ call, request }: Step): boolean {
  switch (call) {
    case "KV.Range":
    case "Lease.LeaseTimeToLive":
    case "Lease.LeaseLeases":
      return true;
    case "KV.Txn":
      return isReadOnly(request);
    default:
      return isUserCall(call) && readsUsers(call);
  }
}

/** True if a call is about users and roles. */
export function isUserCall(call: Call): call is UserCall {
  return call.startsWith("Auth.");
}

/** A request as it goes over the wire: bytes as bytes, revisions as numbers. */
export function resolve(request: Request, revisions: Revisions): object {
  return resolved(request, revisions) as object;
}

/** True if a key lies in a range as etcd's requests spell it. */
export function covers(key: string, rangeEnd: string, wanted: string): boolean {
  if (rangeEnd === "") return wanted === key;
  if (rangeEnd === "\0") return wanted >= key;
  return wanted >= key && wanted < rangeEnd;
}

function resolved(
  value: Value,
  revisions: Revisions,
  field = "",
): unknown {
  if (typeof value === "string") {
    if (BYTES_FIELDS.has(field)) return Buffer.from(value, "latin1");
    const [, base, plus = "0"] = RELATIVE_REGEXP.exec(value) ?? [];
    return base === undefined
      ? value
      : String(revisions[base as keyof Revisions] + Number(plus));
  }
  if (Array.isArray(value)) {
    return value.map((item) => resolved(item, revisions));
  }
  if (typeof value !== "object") return value;
  return Object.fromEntries(
    Object.entries(value).filter(([name, inner]) =>
      // As clients leave it out: sent as empty, etcd takes it for the end of all keys.
      name !== "range_end" || inner !== ""
    ).map(([name, inner]) => [name, resolved(inner, revisions, name)]),
  );
}

function isReadOnly(txn: Request): boolean {
  const operations = [txn["success"], txn["failure"]].flatMap((list) =>
    Array.isArray(list) ? list as Request[] : []
  );
  return operations.every((operation) =>
    "request_range" in operation ||
    ("request_txn" in operation &&
      isReadOnly(operation["request_txn"] as Request))
  );
}
