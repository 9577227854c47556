/**
 * The two kinds of failure: a broken invariant (`assert`, which stops the node)
 * and an operating error (`DkvError`, which a caller can read and act on).
 *
 * @module
 */

/** Thrown when something that must always hold does not: a defect in dkv, never a caller's mistake. */
export class AssertionError extends Error {
  override name = "AssertionError";
}

/** Throws an {@linkcode AssertionError} if a condition that must always hold does not. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new AssertionError(message);
}

/** Marks a branch that the type checker has proved impossible. */
export function unreachable(value: never): never {
  throw new AssertionError(`Unreachable: ${JSON.stringify(value)}`);
}

/**
 * The closed union of error codes. Codes are stable: a client may branch on them. README.md says
 * what each of them means and what to do, {@linkcode DkvError.advice} the latter.
 */
export type ErrorCode =
  | "KEY_EMPTY"
  | "KEY_NOT_FOUND"
  | "KEY_TOO_LARGE"
  | "VALUE_TOO_LARGE"
  | "VALUE_INVALID"
  | "REQUEST_TOO_LARGE"
  | "RANGE_INVERTED"
  | "REVISION_INVALID"
  | "REVISION_FUTURE"
  | "REVISION_COMPACTED"
  | "LEASE_NOT_FOUND"
  | "LEASE_EXISTS"
  | "LEASE_INVALID"
  | "TOO_MANY_OPERATIONS"
  | "DUPLICATE_KEY"
  | "SEQUENCE_STALE"
  | "MALFORMED"
  | "CANCELLED"
  | "DEADLINE_EXCEEDED"
  | "OUTCOME_UNKNOWN"
  | "NO_LEADER"
  | "NOT_LEADER"
  | "SHUTTING_DOWN"
  | "UNREACHABLE"
  | "OVERLOADED"
  | "DISK_FULL"
  | "USER_NAME_EMPTY"
  | "USER_EXISTS"
  | "USER_NOT_FOUND"
  | "USER_LIMIT"
  | "ROLE_NAME_EMPTY"
  | "ROLE_EXISTS"
  | "ROLE_NOT_FOUND"
  | "ROLE_NOT_GRANTED"
  | "PERMISSION_NOT_GRANTED"
  | "ROOT_USER_MISSING"
  | "ROOT_ROLE_MISSING"
  | "AUTH_UNSUPPORTED"
  | "CONFIG_INVALID"
  | "IDENTITY_MISMATCH"
  | "MEMBERSHIP_REFUSED"
  | "DATA_CORRUPT"
  | "RUNTIME_UNSUPPORTED"
  | "INTERNAL";

/**
 * Every code, with its gRPC status, its HTTP status and whether the operation
 * certainly had no effect (`false` means that the outcome is unknown).
 * Numbers of gRPC statuses: https://grpc.io/docs/guides/status-codes/
 *
 * @internal
 */
export const ERROR_TABLE = {
  KEY_EMPTY: { grpc: 3, http: 400, noEffect: true },
  KEY_NOT_FOUND: { grpc: 5, http: 404, noEffect: true },
  KEY_TOO_LARGE: { grpc: 3, http: 400, noEffect: true },
  VALUE_TOO_LARGE: { grpc: 3, http: 413, noEffect: true },
  VALUE_INVALID: { grpc: 9, http: 409, noEffect: true },
  REQUEST_TOO_LARGE: { grpc: 3, http: 413, noEffect: true },
  RANGE_INVERTED: { grpc: 3, http: 400, noEffect: true },
  REVISION_INVALID: { grpc: 3, http: 400, noEffect: true },
  REVISION_FUTURE: { grpc: 11, http: 400, noEffect: true },
  REVISION_COMPACTED: { grpc: 11, http: 410, noEffect: true },
  LEASE_NOT_FOUND: { grpc: 5, http: 404, noEffect: true },
  LEASE_EXISTS: { grpc: 6, http: 409, noEffect: true },
  LEASE_INVALID: { grpc: 3, http: 400, noEffect: true },
  TOO_MANY_OPERATIONS: { grpc: 3, http: 400, noEffect: true },
  DUPLICATE_KEY: { grpc: 3, http: 400, noEffect: true },
  SEQUENCE_STALE: { grpc: 9, http: 409, noEffect: false },
  MALFORMED: { grpc: 3, http: 400, noEffect: true },
  CANCELLED: { grpc: 1, http: 499, noEffect: true },
  DEADLINE_EXCEEDED: { grpc: 4, http: 504, noEffect: true },
  OUTCOME_UNKNOWN: { grpc: 2, http: 504, noEffect: false },
  NO_LEADER: { grpc: 14, http: 503, noEffect: true },
  NOT_LEADER: { grpc: 14, http: 503, noEffect: true },
  SHUTTING_DOWN: { grpc: 14, http: 503, noEffect: true },
  UNREACHABLE: { grpc: 14, http: 503, noEffect: true },
  OVERLOADED: { grpc: 8, http: 429, noEffect: true },
  DISK_FULL: { grpc: 8, http: 507, noEffect: true },
  USER_NAME_EMPTY: { grpc: 3, http: 400, noEffect: true },
  USER_EXISTS: { grpc: 9, http: 409, noEffect: true },
  USER_NOT_FOUND: { grpc: 9, http: 404, noEffect: true },
  USER_LIMIT: { grpc: 8, http: 429, noEffect: true },
  ROLE_NAME_EMPTY: { grpc: 3, http: 400, noEffect: true },
  ROLE_EXISTS: { grpc: 9, http: 409, noEffect: true },
  ROLE_NOT_FOUND: { grpc: 9, http: 404, noEffect: true },
  ROLE_NOT_GRANTED: { grpc: 9, http: 409, noEffect: true },
  PERMISSION_NOT_GRANTED: { grpc: 9, http: 409, noEffect: true },
  ROOT_USER_MISSING: { grpc: 9, http: 409, noEffect: true },
  ROOT_ROLE_MISSING: { grpc: 9, http: 409, noEffect: true },
  AUTH_UNSUPPORTED: { grpc: 9, http: 501, noEffect: true },
  CONFIG_INVALID: { grpc: 9, http: 500, noEffect: true },
  IDENTITY_MISMATCH: { grpc: 9, http: 409, noEffect: true },
  MEMBERSHIP_REFUSED: { grpc: 9, http: 409, noEffect: true },
  DATA_CORRUPT: { grpc: 15, http: 500, noEffect: true },
  RUNTIME_UNSUPPORTED: { grpc: 9, http: 500, noEffect: true },
  INTERNAL: { grpc: 13, http: 500, noEffect: false },
} as const satisfies Record<
  ErrorCode,
  { grpc: number; http: number; noEffect: boolean }
>;

/**
 * What each code means, and what its caller can do about it. README.md shows the same table.
 *
 * @internal
 */
export const ERROR_HELP = {
  KEY_EMPTY: {
    means: "a key has no bytes",
    advice: "name a key",
  },
  KEY_NOT_FOUND: {
    means:
      "an etcd client wants to keep the value or the lease of a key that does not exist",
    advice: "put the key with a value and a lease",
  },
  KEY_TOO_LARGE: {
    means: "a key, or a bound of a range, is too long",
    advice: "choose shorter keys: the message names the limit",
  },
  VALUE_TOO_LARGE: {
    means: "a value is too long, or would be after an `append`",
    advice: "spread it over several keys",
  },
  VALUE_INVALID: {
    means:
      "the stored value is no number, or the new one would have more than 64 bits",
    advice: "look at what is stored, and put a number there",
  },
  REQUEST_TOO_LARGE: {
    means: "one request, or one transaction, has too many bytes",
    advice: "split it into several",
  },
  RANGE_INVERTED: {
    means: "a range does not end after its start",
    advice: "exchange its bounds, or leave `end` out",
  },
  REVISION_INVALID: {
    means: "a revision is no positive whole number, or is above 2^53 - 1",
    advice: "use a revision that the store answered with",
  },
  REVISION_FUTURE: {
    means: "the store has not come to this revision yet",
    advice: "use a revision that this cluster answered with",
  },
  REVISION_COMPACTED: {
    means: "the history at this revision is gone",
    advice: "open a watch without `from`, then read everything anew",
  },
  LEASE_NOT_FOUND: {
    means:
      "a lease has ended, and its keys with it; a lock or a leadership is lost",
    advice: "stop what depends on it, then begin with a new one",
  },
  LEASE_EXISTS: {
    means: "there is a lease with this id",
    advice: "choose another id, or leave the choice to the client",
  },
  LEASE_INVALID: {
    means: "the id or the time to live of a lease is out of bounds",
    advice: "stay within the bounds that the message names",
  },
  TOO_MANY_OPERATIONS: {
    means: "a list of a transaction is too long",
    advice: "make several transactions, or a `batch` if each may succeed alone",
  },
  DUPLICATE_KEY: {
    means: "a transaction changes a key twice",
    advice: "make one change of both",
  },
  SEQUENCE_STALE: {
    means:
      "a write has a sequence number that was settled before, or was another operation's",
    advice: "read what became of it, and give each write the next number",
  },
  MALFORMED: {
    means: "a request cannot be understood",
    advice: "correct it, or use a client and a node of the same version",
  },
  CANCELLED: {
    means: "the client was closed, or the call was given up",
    advice: "nothing, if you wanted that; else connect anew",
  },
  DEADLINE_EXCEEDED: {
    means: "it took longer than it may, and was given up",
    advice: "try again, with more time or with fewer operations at once",
  },
  OUTCOME_UNKNOWN: {
    means: "a write may have taken effect, or may yet",
    advice:
      "repeat it if twice does no harm, or under a check that holds only once",
  },
  NO_LEADER: {
    means: "the cluster has no leader that the node can reach",
    advice: "try again; if it lasts, start the nodes that are missing",
  },
  NOT_LEADER: {
    means: "the node does not lead, or no longer",
    advice: "try again: the client finds the leader",
  },
  SHUTTING_DOWN: {
    means: "the node is being stopped",
    advice: "try again: the client goes to another node",
  },
  UNREACHABLE: {
    means: "no node answers, or not the one that was asked",
    advice:
      "see whether the nodes run and the addresses are right, then try again",
  },
  OVERLOADED: {
    means: "too much waits already, in the node or in the client",
    advice: "let some of it finish, then try again with fewer at once",
  },
  DISK_FULL: {
    means: "the leader's disk is nearly full",
    advice:
      "make room on the disk, or delete keys; writes are accepted again by themselves",
  },
  USER_NAME_EMPTY: {
    means: "a user has no name",
    advice: "name the user",
  },
  USER_EXISTS: {
    means: "there is a user with this name",
    advice: "choose another name, or change that user",
  },
  USER_NOT_FOUND: {
    means: "there is no user with this name",
    advice: "correct the name, or add the user first",
  },
  USER_LIMIT: {
    means: "there are too many users or roles, or one is too large",
    advice: "remove what is not needed: the message names the limit",
  },
  ROLE_NAME_EMPTY: {
    means: "a role has no name",
    advice: "name the role",
  },
  ROLE_EXISTS: {
    means: "there is a role with this name",
    advice: "choose another name, or change that role",
  },
  ROLE_NOT_FOUND: {
    means: "there is no role with this name",
    advice: "correct the name, or add the role first",
  },
  ROLE_NOT_GRANTED: {
    means: "the user does not have this role",
    advice: "correct the name: there is nothing to revoke",
  },
  PERMISSION_NOT_GRANTED: {
    means: "the role has no permission for exactly these keys",
    advice: "revoke the same range that was granted",
  },
  ROOT_USER_MISSING: {
    means: "authentication was to be enabled, and there is no user root",
    advice: "leave it off: dkv does not support it yet",
  },
  ROOT_ROLE_MISSING: {
    means:
      "authentication was to be enabled, and the user root lacks the role root",
    advice: "leave it off: dkv does not support it yet",
  },
  AUTH_UNSUPPORTED: {
    means:
      "dkv keeps users and roles, but does not check requests against them",
    advice: "leave authentication off, on a network that you trust",
  },
  CONFIG_INVALID: {
    means: "the configuration has a mistake, or an address cannot be used",
    advice: "correct the field that the message names",
  },
  IDENTITY_MISMATCH: {
    means: "a data directory or a peer belongs to another node or cluster",
    advice:
      "start the node with its own directory, or with `--rejoin` after its disk was lost",
  },
  MEMBERSHIP_REFUSED: {
    means: "this change of the members is not possible, or not now",
    advice: "wait for the change before it, or ask for what the message says",
  },
  DATA_CORRUPT: {
    means: "a file of the node is damaged",
    advice: "empty the data directory and start the node with `--rejoin`",
  },
  RUNTIME_UNSUPPORTED: {
    means: "this version of the runtime, or of its SQLite, is known to break",
    advice: "run the version that the message names",
  },
  INTERNAL: {
    means:
      "dkv has a defect, or the answer is one that the client does not know",
    advice: "report the message; read what became of a write",
  },
} as const satisfies Record<ErrorCode, { means: string; advice: string }>;

/**
 * An operating error: what happened, in a stable code and in a sentence that names the thing, the
 * limit and the value.
 *
 * ```ts
 * import { connect, DkvError } from "./client.ts";
 *
 * await using kv = await connect("127.0.0.1:50051");
 * try {
 *   await kv.increment("user/ann");
 * } catch (error) {
 *   if (!(error instanceof DkvError)) throw error;
 *   if (error.code === "VALUE_INVALID") console.log("no number");
 *   else console.log(`${error.message} (${error.code}): ${error.advice}`);
 * }
 * ```
 */
export class DkvError extends Error {
  /** What `toString` and stack traces begin with. */
  override name = "DkvError";
  /** The stable code. */
  readonly code: ErrorCode;

  /** From a code, a sentence, and perhaps its cause. */
  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }

  /** True if the operation certainly changed nothing; false if its outcome is unknown. */
  get noEffect(): boolean {
    return ERROR_TABLE[this.code].noEffect;
  }

  /** What to do about an error of this code, in a phrase. */
  get advice(): string {
    return ERROR_HELP[this.code].advice;
  }
}

/**
 * A write that may or may not have taken effect, and may yet. The client has repeated it as long as
 * there was time, under one sequence number, so it took effect once at most; a second call is a
 * second write. What must not happen twice is given a check that holds only once:
 *
 * ```ts
 * import { connect, OutcomeUnknownError } from "./client.ts";
 *
 * await using kv = await connect("127.0.0.1:50051");
 * const sale = kv.atomic().check("order/17", null).put("order/17", "ann").increment("sold");
 * try {
 *   await sale.commit();
 * } catch (error) {
 *   if (!(error instanceof OutcomeUnknownError)) throw error;
 *   const { ok } = await sale.commit();
 *   console.log(ok ? "sold now" : "was sold the first time, or by somebody else");
 * }
 * ```
 */
export class OutcomeUnknownError extends DkvError {
  /** What `toString` and stack traces begin with. */
  override name = "OutcomeUnknownError";

  /** From the reason why nobody knows. */
  constructor(cause: unknown) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    const text = `The write may or may not take effect: ${reason}`;
    super("OUTCOME_UNKNOWN", text, { cause });
  }
}

/** True if `text` is one of the codes: for codes that came over a wire. */
export function isErrorCode(text: string): text is ErrorCode {
  return Object.hasOwn(ERROR_TABLE, text);
}
