/**
 * The errors of the etcd v3 API: clients recognise them by gRPC code and exact message, so the whole
 * table of etcd 3.5 stands here, and which of ours is which of etcd's. Used by the `etcd*` adapters.
 *
 * @module
 */

import * as grpc from "@grpc/grpc-js";
import { DkvError, ERROR_TABLE, type ErrorCode } from "./errors.ts";

const {
  CANCELLED,
  DATA_LOSS,
  FAILED_PRECONDITION,
  INVALID_ARGUMENT,
  NOT_FOUND,
  OUT_OF_RANGE,
  PERMISSION_DENIED,
  RESOURCE_EXHAUSTED,
  UNAUTHENTICATED,
  UNAVAILABLE,
  UNKNOWN,
} = grpc.status;

/** Every error, with its gRPC code and its message without the `etcdserver: ` that most begin with. */
const TABLE = {
  emptyKey: [INVALID_ARGUMENT, "key is not provided"],
  keyNotFound: [INVALID_ARGUMENT, "key not found"],
  valueProvided: [INVALID_ARGUMENT, "value is provided"],
  leaseProvided: [INVALID_ARGUMENT, "lease is provided"],
  ttlZero: [INVALID_ARGUMENT, "ttl is 0"],
  tooManyOps: [INVALID_ARGUMENT, "too many operations in txn request"],
  duplicateKey: [INVALID_ARGUMENT, "duplicate key given in txn request"],
  invalidClientApiVersion: [INVALID_ARGUMENT, "invalid client api version"],
  invalidSortOption: [INVALID_ARGUMENT, "invalid sort option"],
  compacted: [OUT_OF_RANGE, "mvcc: required revision has been compacted"],
  futureRevision: [
    OUT_OF_RANGE,
    "mvcc: required revision is a future revision",
  ],
  noSpace: [RESOURCE_EXHAUSTED, "mvcc: database space exceeded"],

  leaseNotFound: [NOT_FOUND, "requested lease not found"],
  leaseExists: [FAILED_PRECONDITION, "lease already exists"],
  leaseTtlTooLarge: [OUT_OF_RANGE, "too large lease TTL"],
  watchCanceled: [CANCELLED, "watch canceled"],

  memberExists: [FAILED_PRECONDITION, "member ID already exist"],
  peerUrlExists: [FAILED_PRECONDITION, "Peer URLs already exists"],
  memberNotEnoughStarted: [
    FAILED_PRECONDITION,
    "re-configuration failed due to not enough started members",
  ],
  memberBadUrls: [INVALID_ARGUMENT, "given member URLs are invalid"],
  memberNotFound: [NOT_FOUND, "member not found"],
  memberNotLearner: [
    FAILED_PRECONDITION,
    "can only promote a learner member",
  ],
  learnerNotReady: [
    FAILED_PRECONDITION,
    "can only promote a learner member which is in sync with leader",
  ],
  tooManyLearners: [
    FAILED_PRECONDITION,
    "too many learner members in cluster",
  ],
  clusterIdMismatch: [FAILED_PRECONDITION, "cluster ID mismatch"],

  requestTooLarge: [INVALID_ARGUMENT, "request is too large"],
  tooManyRequests: [RESOURCE_EXHAUSTED, "too many requests"],

  rootUserNotExist: [FAILED_PRECONDITION, "root user does not exist"],
  rootRoleNotExist: [
    FAILED_PRECONDITION,
    "root user does not have root role",
  ],
  userExists: [FAILED_PRECONDITION, "user name already exists"],
  userEmpty: [INVALID_ARGUMENT, "user name is empty"],
  userNotFound: [FAILED_PRECONDITION, "user name not found"],
  roleExists: [FAILED_PRECONDITION, "role name already exists"],
  roleNotFound: [FAILED_PRECONDITION, "role name not found"],
  roleEmpty: [INVALID_ARGUMENT, "role name is empty"],
  authFailed: [
    INVALID_ARGUMENT,
    "authentication failed, invalid user ID or password",
  ],
  permissionNotGiven: [INVALID_ARGUMENT, "permission not given"],
  permissionDenied: [PERMISSION_DENIED, "permission denied"],
  roleNotGranted: [
    FAILED_PRECONDITION,
    "role is not granted to the user",
  ],
  permissionNotGranted: [
    FAILED_PRECONDITION,
    "permission is not granted to the role",
  ],
  authNotEnabled: [FAILED_PRECONDITION, "authentication is not enabled"],
  invalidAuthToken: [UNAUTHENTICATED, "invalid auth token"],
  invalidAuthManagement: [INVALID_ARGUMENT, "invalid auth management"],
  authOldRevision: [INVALID_ARGUMENT, "revision of auth store is old"],

  noLeader: [UNAVAILABLE, "no leader"],
  notLeader: [FAILED_PRECONDITION, "not leader"],
  leaderChanged: [UNAVAILABLE, "leader changed"],
  notCapable: [UNAVAILABLE, "not capable"],
  stopped: [UNAVAILABLE, "server stopped"],
  timeout: [UNAVAILABLE, "request timed out"],
  timeoutDueToLeaderFail: [
    UNAVAILABLE,
    "request timed out, possibly due to previous leader failure",
  ],
  timeoutDueToConnectionLost: [
    UNAVAILABLE,
    "request timed out, possibly due to connection lost",
  ],
  timeoutWaitAppliedIndex: [
    UNAVAILABLE,
    "request timed out, waiting for the applied index took too long",
  ],
  unhealthy: [UNAVAILABLE, "unhealthy cluster"],
  corrupt: [DATA_LOSS, "corrupt cluster"],
  notSupportedForLearner: [UNAVAILABLE, "rpc not supported for learner"],
  badLeaderTransferee: [FAILED_PRECONDITION, "bad leader transferee"],

  clusterVersionUnavailable: [
    UNAVAILABLE,
    "cluster version not found during downgrade",
  ],
  wrongDowngradeVersionFormat: [
    INVALID_ARGUMENT,
    "wrong downgrade target version format",
  ],
  invalidDowngradeTargetVersion: [
    INVALID_ARGUMENT,
    "invalid downgrade target version",
  ],
  downgradeInProcess: [
    FAILED_PRECONDITION,
    "cluster has a downgrade job in progress",
  ],
  noInflightDowngrade: [FAILED_PRECONDITION, "no inflight downgrade job"],

  // Not in etcd's table, but what its election service and its gRPC layer answer.
  electionNotLeader: [UNKNOWN, "election: not leader"],
  electionNoLeader: [UNKNOWN, "election: no leader"],
  sessionExpired: [UNKNOWN, "mutex: session is expired"],
} as const satisfies Record<string, readonly [code: number, message: string]>;

/** The names of etcd's errors. */
export type EtcdErrorName = keyof typeof TABLE;

/** The messages that do not begin with `etcdserver: `. */
const BARE_REGEXP = /^(election|mutex): /;

/** An error of the etcd v3 API: a handler throws it, {@linkcode etcdStatus} tells it to the client. */
export class EtcdError extends Error {
  override name = "EtcdError";
  readonly code: grpc.status;

  constructor(name: EtcdErrorName) {
    const [code, text] = TABLE[name];
    super(BARE_REGEXP.test(text) ? text : `etcdserver: ${text}`);
    this.code = code;
  }
}

/** Ours as etcd's. Codes that are not here keep their own gRPC code and our sentence. */
const NAMES: Readonly<Partial<Record<ErrorCode, EtcdErrorName>>> = {
  KEY_EMPTY: "emptyKey",
  KEY_NOT_FOUND: "keyNotFound",
  KEY_TOO_LARGE: "requestTooLarge",
  VALUE_TOO_LARGE: "requestTooLarge",
  REQUEST_TOO_LARGE: "requestTooLarge",
  REVISION_FUTURE: "futureRevision",
  REVISION_COMPACTED: "compacted",
  LEASE_NOT_FOUND: "leaseNotFound",
  LEASE_EXISTS: "leaseExists",
  TOO_MANY_OPERATIONS: "tooManyOps",
  DUPLICATE_KEY: "duplicateKey",
  DEADLINE_EXCEEDED: "timeout",
  OUTCOME_UNKNOWN: "timeoutDueToLeaderFail",
  NO_LEADER: "noLeader",
  // FAILED_PRECONDITION, etcd's own code for it, would tell clients not to try again.
  NOT_LEADER: "leaderChanged",
  SHUTTING_DOWN: "stopped",
  UNREACHABLE: "timeoutDueToConnectionLost",
  OVERLOADED: "tooManyRequests",
  DISK_FULL: "noSpace",
  USER_NAME_EMPTY: "userEmpty",
  USER_EXISTS: "userExists",
  USER_NOT_FOUND: "userNotFound",
  ROLE_NAME_EMPTY: "roleEmpty",
  ROLE_EXISTS: "roleExists",
  ROLE_NOT_FOUND: "roleNotFound",
  ROLE_NOT_GRANTED: "roleNotGranted",
  PERMISSION_NOT_GRANTED: "permissionNotGranted",
  ROOT_USER_MISSING: "rootUserNotExist",
  ROOT_ROLE_MISSING: "rootRoleNotExist",
  DATA_CORRUPT: "corrupt",
};

/** An error as etcd would say it, for statuses and for the reasons told inside of streams. */
export function toEtcdError(
  error: DkvError,
): { code: grpc.status; message: string } {
  const name = NAMES[error.code];
  if (name !== undefined) return new EtcdError(name);
  const { message } = error;
  return { code: ERROR_TABLE[error.code].grpc as grpc.status, message };
}

/** The gRPC status of an error; one of ours keeps its code in the trailer `dkv-code`. */
export function etcdStatus(
  error: DkvError | EtcdError,
): grpc.ServiceError {
  const metadata = new grpc.Metadata();
  const isOurs = error instanceof DkvError;
  if (isOurs) metadata.set("dkv-code", error.code);
  const { code, message } = isOurs ? toEtcdError(error) : error;
  return Object.assign(new Error(message), {
    code,
    details: message,
    metadata,
  });
}
