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
  Operation,
  Request,
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
  function: fc.constantFrom("add", "min", "max", "append"),
  encoding: fc.constantFrom("decimal", "uint64le"),
  operand: value,
  lease: fc.option(lease),
  returnPrevious: fc.boolean(),
});

const operation: fc.Arbitrary<Operation> = fc.oneof(
  put,
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

const compare: fc.Arbitrary<Compare> = fc.record({
  key: latin1(20),
  relation: fc.constantFrom("equal", "notEqual", "less", "greater"),
  target: fc.oneof(
    fc.record({
      type: fc.constantFrom("version", "createRevision", "modRevision"),
      number: fc.oneof(revision, fc.maxSafeInteger()),
    }),
    fc.record({ type: fc.constant("value" as const), value }),
    fc.record({ type: fc.constant("lease" as const), lease }),
  ),
});

const request: fc.Arbitrary<Request> = fc.oneof(
  put,
  deletion,
  fc.record({
    type: fc.constant("transact" as const),
    compares: fc.array(compare, { maxLength: 4 }),
    then: fc.array(operation, { maxLength: 6 }),
    else: fc.array(operation, { maxLength: 6 }),
  }),
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
