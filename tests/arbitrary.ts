/**
 * Random commands for the tests of the codec and of the store.
 *
 * @module
 */
import fc from "fast-check";
import type {
  Command,
  Compare,
  KeyRange,
  MutateRequest,
  Operation,
  RangeOperation,
  Request,
  TransactRequest,
  UserChange,
} from "../batch.ts";

/** Runs for a property; `SEED=… deno task test` repeats one that failed, whose seed is printed. */
export function runs(numRuns: number): fc.Parameters<unknown> {
  const granted =
    Deno.permissions.querySync({ name: "env", variable: "SEED" }).state ===
      "granted";
  const seed = granted ? Number(Deno.env.get("SEED") ?? NaN) : NaN;
  return Number.isNaN(seed) ? { numRuns } : { numRuns, seed };
}

/** Any bytes as a latin1 string. */
export function latin1(maxLength: number): fc.Arbitrary<string> {
  return fc.uint8Array({ maxLength, size: "max" }).map((bytes) =>
    String.fromCharCode(...bytes)
  );
}

const revision = fc.oneof(
  fc.nat(300),
  fc.nat({ max: Number.MAX_SAFE_INTEGER }),
);
const lease = fc.oneof(
  fc.constant(0n),
  fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
);
const value = fc.uint8Array({ maxLength: 300, size: "max" });

const range: fc.Arbitrary<KeyRange> = fc.record({
  start: latin1(12),
  end: fc.option(latin1(12)),
});

const put = fc.record({
  type: fc.constant("put" as const),
  key: latin1(200),
  value,
  lease,
  returnPrevious: fc.boolean(),
});

const deletion = fc.record({
  type: fc.constant("delete" as const),
  range,
  returnPrevious: fc.boolean(),
});

const modification = fc.record({
  type: fc.constant("modify" as const),
  key: latin1(200),
  function: fc.constantFrom("add", "min", "max", "append", "keep", "set"),
  encoding: fc.constantFrom("decimal", "uint64le"),
  operand: value,
  lease: fc.option(lease),
  returnPrevious: fc.boolean(),
});

/** Reads of ranges with everything that they can ask for. */
export function rangeReads(
  range: fc.Arbitrary<KeyRange>,
  number: fc.Arbitrary<number>,
): fc.Arbitrary<RangeOperation> {
  return fc.record({
    type: fc.constant("range" as const),
    range,
    revision: fc.oneof(fc.constant(0), number),
    limit: fc.oneof(fc.constant(0), number),
    sortOrder: fc.constantFrom("none", "ascend", "descend"),
    sortTarget: fc.constantFrom(
      "key",
      "version",
      "createRevision",
      "modRevision",
      "value",
    ),
    keysOnly: fc.boolean(),
    countOnly: fc.boolean(),
    modRevisionMin: fc.oneof(fc.constant(0), number),
    modRevisionMax: fc.oneof(fc.constant(0), number),
    createRevisionMin: fc.oneof(fc.constant(0), number),
    createRevisionMax: fc.oneof(fc.constant(0), number),
  });
}

/** Transactions of these operations, and of transactions of them, three deep. */
export function transactions(
  compare: fc.Arbitrary<Compare>,
  options: {
    operation: fc.Arbitrary<Operation>;
    comparesMax: number;
    operationsMax: number;
  },
): fc.Arbitrary<TransactRequest> {
  const { comparesMax, operationsMax } = options;
  return fc.letrec<{ transaction: TransactRequest; operation: Operation }>(
    (tie) => {
      const branch = fc.array(tie("operation"), { maxLength: operationsMax });
      return {
        operation: fc.oneof(
          { maxDepth: 2, withCrossShrink: true },
          { weight: 6, arbitrary: options.operation },
          { weight: 1, arbitrary: tie("transaction") },
        ),
        transaction: fc.record({
          type: fc.constant("transact" as const),
          compares: fc.array(compare, { maxLength: comparesMax }),
          then: branch,
          else: branch,
        }),
      };
    },
  ).transaction;
}

const operation: fc.Arbitrary<Operation> = fc.oneof(
  put,
  rangeReads(range, revision),
  modification,
  deletion,
  fc.record({ type: fc.constant("get" as const), key: latin1(100) }),
  fc.record({
    type: fc.constant("list" as const),
    range,
    limit: revision,
    keysOnly: fc.boolean(),
    reverse: fc.boolean(),
  }),
);

const condition = {
  key: latin1(20),
  relation: fc.constantFrom<Compare["relation"][]>(
    "equal",
    "notEqual",
    "less",
    "greater",
  ),
  target: fc.oneof(
    fc.record({
      type: fc.constantFrom("version", "createRevision", "modRevision"),
      number: fc.oneof(revision, fc.maxSafeInteger()),
    }),
    fc.record({ type: fc.constant("value" as const), value }),
    fc.record({ type: fc.constant("lease" as const), lease }),
  ),
};
const compare: fc.Arbitrary<Compare> = fc.oneof(
  fc.record(condition),
  fc.record({ ...condition, end: fc.option(latin1(12)) }),
);

const kvValue = fc.record({
  encoding: fc.constantFrom("v8" as const, "u64" as const, "bytes" as const),
  data: value,
});
const expireAtMs = fc.oneof(fc.constant(0), fc.maxSafeInteger().map(Math.abs));
const mutation: fc.Arbitrary<MutateRequest["mutations"][number]> = fc.oneof(
  fc.record({
    type: fc.constantFrom("set" as const, "setSuffixed" as const),
    key: latin1(30),
    value: kvValue,
    expireAtMs,
  }),
  fc.record({ type: fc.constant("delete" as const), key: latin1(30) }),
  fc.record({
    type: fc.constant("sum" as const),
    key: latin1(30),
    value: kvValue,
    min: value,
    max: value,
    clamp: fc.boolean(),
  }),
  fc.record({
    type: fc.constantFrom("min" as const, "max" as const),
    key: latin1(30),
    value: kvValue,
  }),
  fc.record({
    type: fc.constant("expire" as const),
    key: latin1(30),
    expireAtMs,
  }),
);
const mutate: fc.Arbitrary<MutateRequest> = fc.record({
  type: fc.constant("mutate" as const),
  database: latin1(10),
  nowMs: revision,
  checks: fc.array(fc.record({ key: latin1(30), versionstamp: latin1(10) }), {
    maxLength: 3,
  }),
  mutations: fc.array(mutation, { maxLength: 5 }),
});

const name = latin1(30);
const rangeOfKeys = { key: latin1(12), rangeEnd: latin1(12) };
/** Any change of users and roles, with names from `some`. */
export function userChanges(
  some: fc.Arbitrary<string>,
): fc.Arbitrary<UserChange> {
  return fc.oneof(
    fc.record({
      type: fc.constantFrom("addUser" as const, "setPassword" as const),
      user: some,
      password: latin1(20),
    }),
    fc.record({ type: fc.constant("deleteUser" as const), user: some }),
    fc.record({
      type: fc.constantFrom("grantRole" as const, "revokeRole" as const),
      user: some,
      role: some,
    }),
    fc.record({
      type: fc.constantFrom("addRole" as const, "deleteRole" as const),
      role: some,
    }),
    fc.record({
      type: fc.constant("grantPermission" as const),
      role: some,
      permission: fc.record({
        access: fc.constantFrom("read", "write", "readWrite"),
        ...rangeOfKeys,
      }),
    }),
    fc.record({
      type: fc.constant("revokePermission" as const),
      role: some,
      ...rangeOfKeys,
    }),
  );
}

const request: fc.Arbitrary<Request> = fc.oneof(
  mutate,
  userChanges(name).map((change) => ({ type: "changeUsers" as const, change })),
  put,
  deletion,
  transactions(compare, { operation, comparesMax: 4, operationsMax: 6 }),
  fc.record({ type: fc.constant("grant" as const), lease, ttlMs: revision }),
  fc.record({
    type: fc.constantFrom("revoke" as const, "keepAlive" as const),
    lease,
  }),
  fc.record({
    type: fc.constant("compact" as const),
    revision: fc.oneof(revision, fc.maxSafeInteger()),
  }),
  fc.record({ type: fc.constant("identify" as const), clusterId: latin1(20) }),
);

/** Every command that the types allow, sensible or not. */
export const anyCommand: fc.Arbitrary<Command> = fc.record({
  origin: fc.nat({ max: 2 ** 48 - 1 }),
  id: revision,
  writeId: fc.option(
    fc.record({ client: latin1(32), sequence: revision, doneBelow: revision }),
  ),
  request,
});
