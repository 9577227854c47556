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

/** The closed union of error codes. Codes are stable: a client may branch on them. */
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

/** An operating error: what happened, in a stable code and in a sentence that names the thing, the limit and the value. */
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
}

/** A write that may or may not have taken effect, and may yet. */
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
