/** Between what comes over the wire and what the service understands: nothing is lost or guessed. */

import { assert, assertEquals, assertThrows } from "@std/assert";
import { Buffer } from "node:buffer";
import {
  checkWriteId,
  fromDelete,
  fromEntry,
  fromKey,
  fromPut,
  fromTransact,
  toDelete,
  toInteger,
  toKey,
  toLease,
  toPut,
  toRange,
  toTarget,
  toTransact,
  toWriteId,
  type WireCompare,
  type WireOperation,
} from "../convert.ts";
import { DkvError, type ErrorCode } from "../errors.ts";

const EMPTY = Buffer.alloc(0);
const key = Buffer.from("k");
const value = Buffer.from("v");
const PUT = { key, value, lease: "0", returnPrevious: false, writeId: null };
const LIST = {
  range: null,
  revision: "0",
  limit: "0",
  keysOnly: false,
  reverse: false,
  serializable: false,
};

function assertRefuses(run: () => unknown, code: ErrorCode, says = ""): void {
  const error = assertThrows(run, DkvError);
  assertEquals(error.code, code);
  assert(error.message.includes(says), error.message);
}

Deno.test("convert: every byte of a key survives, and order is the order of bytes", () => {
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, at) => at));
  assertEquals(fromKey(toKey(bytes)), bytes);
  assert(toKey(Buffer.from([0x7f])) < toKey(Buffer.from([0x80])));
  assert(toKey(Buffer.from([0xfe, 0xff])) < toKey(Buffer.from([0xff])));
});

Deno.test("convert: whole numbers are exact or refused", () => {
  assertEquals(toInteger("9007199254740991", "x"), Number.MAX_SAFE_INTEGER);
  assertEquals(toInteger("-1", "x"), -1);
  const tooLarge = "9007199254740993";
  assertRefuses(() => toInteger(tooLarge, "limit"), "MALFORMED", tooLarge);
  assertRefuses(
    () => toInteger(tooLarge, "from_revision"),
    "REVISION_INVALID",
    `from_revision is out of range: ${tooLarge}`,
  );
  assertEquals(toLease("9223372036854775807"), 2n ** 63n - 1n);
  assertEquals(toLease("-9223372036854775808"), -(2n ** 63n));
  assertEquals(toLease("0"), 0n);
});

Deno.test("convert: a range without an end has no bound, an absent one holds everything", () => {
  assertEquals(toRange(null), { start: "", end: null });
  assertEquals(toRange({ start: key, end: EMPTY }), { start: "k", end: null });
  const end = Buffer.from("z");
  assertEquals(toRange({ start: EMPTY, end }), { start: "", end: "z" });
});

Deno.test("convert: a target is a key, as a range of one, or a range", () => {
  assertEquals(toTarget({ key }), { start: "k", end: "k\0" });
  const range = { start: key, end: EMPTY };
  assertEquals(toTarget({ range }), { start: "k", end: null });
  assertRefuses(() => toTarget({}), "MALFORMED", "neither a key nor a range");
  assertRefuses(() => toTarget({ range: null }), "MALFORMED");
  assertRefuses(() => toTarget({ key: EMPTY }), "KEY_EMPTY");
});

Deno.test("convert: write ids are whole or absent", () => {
  assertEquals(toWriteId(null), null);
  const wire = { client: key, sequence: "3", doneBelow: "3" };
  assertEquals(toWriteId(wire), { client: "k", sequence: 3, doneBelow: 3 });
  const good = { client: "c", sequence: 1, doneBelow: 0 };
  assertEquals(checkWriteId(good), good);
  const bad = [
    { ...good, client: "" },
    { ...good, client: "x".repeat(33) },
    { ...good, sequence: 0 },
    { ...good, sequence: -1 },
    { ...good, doneBelow: 2 },
    { ...good, doneBelow: -1 },
  ];
  for (const writeId of bad) {
    assertRefuses(() => checkWriteId(writeId), "MALFORMED");
  }
});

Deno.test("convert: puts and deletes", () => {
  const lease = "9223372036854775807";
  assertEquals(toPut({ ...PUT, lease, returnPrevious: true }), {
    type: "put",
    key: "k",
    value,
    lease: 2n ** 63n - 1n,
    returnPrevious: true,
  });
  assertEquals(toDelete({ key, returnPrevious: true, writeId: null }), {
    type: "delete",
    range: { start: "k", end: "k\0" },
    returnPrevious: true,
  });
});

function compare(wire: Partial<WireCompare>) {
  const compares = [{ key, relation: "EQUAL", ...wire }];
  const request = { compares, then: [], else: [], writeId: null };
  return toTransact(request).compares[0];
}

Deno.test("convert: every target and relation of a comparison", () => {
  const targets: [Partial<WireCompare>, object][] = [
    [{ version: "0" }, { type: "version", number: 0 }],
    [{ createRevision: "7" }, { type: "createRevision", number: 7 }],
    [{ modRevision: "8" }, { type: "modRevision", number: 8 }],
    [{ value: EMPTY }, { type: "value", value: EMPTY }],
    [{ lease: "0" }, { type: "lease", lease: 0n }],
  ];
  for (const [wire, target] of targets) {
    assertEquals(
      compare(wire),
      { key: "k", relation: "equal", target } as never,
    );
  }
  const relations = {
    EQUAL: "equal",
    NOT_EQUAL: "notEqual",
    LESS: "less",
    GREATER: "greater",
  };
  for (const [relation, expected] of Object.entries(relations)) {
    assertEquals(
      compare({ relation, version: "1" })?.relation,
      expected as never,
    );
  }
  // An enum's unknown number arrives as a number, and names of objects are not relations.
  for (const relation of ["7", "toString", ""]) {
    assertRefuses(
      () => compare({ relation, version: "1" }),
      "MALFORMED",
      relation,
    );
  }
  assertRefuses(() => compare({}), "MALFORMED", "nothing to compare");
});

function operation(wire: WireOperation) {
  const request = { compares: [], then: [wire], else: [], writeId: null };
  return toTransact(request).then[0];
}

Deno.test("convert: the steps of a transaction", () => {
  assertEquals(operation({ put: PUT })?.type, "put");
  assertEquals(
    operation({ delete: { key, returnPrevious: false, writeId: null } })?.type,
    "delete",
  );
  const get = { key, revision: "0", serializable: false };
  assertEquals(operation({ get }), { type: "get", key: "k" });
  assertEquals(
    operation({ list: { ...LIST, limit: "5", keysOnly: true, reverse: true } }),
    {
      type: "list",
      range: { start: "", end: null },
      limit: 5,
      keysOnly: true,
      reverse: true,
    },
  );
});

const MODIFY = {
  key,
  function: "ADD",
  encoding: "DECIMAL",
  operand: value,
  returnPrevious: false,
};

Deno.test("convert: modifications, with a lease, without one, and with none said", () => {
  const common = {
    type: "modify",
    key: "k",
    encoding: "decimal",
    operand: value,
  };
  assertEquals(operation({ modify: MODIFY }), {
    ...common,
    function: "add",
    lease: null,
    returnPrevious: false,
  } as never);
  const leases: [string, bigint][] = [
    ["0", 0n],
    ["9223372036854775807", 2n ** 63n - 1n],
    ["-1", -1n],
  ];
  for (const [wire, lease] of leases) {
    const step = operation({ modify: { ...MODIFY, lease: wire } });
    assert(step?.type === "modify");
    assertEquals(step.lease, lease);
  }
  const functions = { ADD: "add", MIN: "min", MAX: "max", APPEND: "append" };
  for (const [name, expected] of Object.entries(functions)) {
    const modify = {
      ...MODIFY,
      function: name,
      encoding: "UINT64_LE",
      returnPrevious: true,
    };
    assertEquals(operation({ modify }), {
      ...common,
      function: expected,
      encoding: "uint64le",
      lease: null,
      returnPrevious: true,
    } as never);
  }
  for (const unknown of ["4", "toString", ""]) {
    for (const field of ["function", "encoding"]) {
      assertRefuses(
        () => operation({ modify: { ...MODIFY, [field]: unknown } }),
        "MALFORMED",
        `unknown ${field} ${unknown}`,
      );
    }
  }
});

Deno.test("convert: what a transaction cannot do is refused, not ignored", () => {
  const get = { key, revision: "0", serializable: false };
  assertRefuses(() => operation({}), "MALFORMED", "empty");
  assertRefuses(() => operation({ put: null }), "MALFORMED", "empty");
  for (
    const wire of [
      { get: { ...get, revision: "1" } },
      { get: { ...get, serializable: true } },
      { list: { ...LIST, revision: "1" } },
      { list: { ...LIST, serializable: true } },
    ]
  ) assertRefuses(() => operation(wire), "MALFORMED", "revision");
  const writeId = { client: key, sequence: "1", doneBelow: "0" };
  assertRefuses(
    () => operation({ put: { ...PUT, writeId } }),
    "MALFORMED",
    "write_id",
  );
  assertRefuses(
    () => operation({ delete: { key, returnPrevious: false, writeId } }),
    "MALFORMED",
    "write_id",
  );
});

const ENTRY = {
  key: "\xff",
  value,
  createRevision: 1,
  modRevision: 2,
  version: 3,
  lease: 2n ** 63n - 1n,
};
const WIRE_ENTRY = {
  key: Buffer.from([0xff]),
  value,
  createRevision: 1,
  modRevision: 2,
  version: 3,
  lease: "9223372036854775807",
};

Deno.test("convert: entries and results go out whole", () => {
  assertEquals(fromEntry(ENTRY), WIRE_ENTRY);
  assertEquals(fromEntry({ ...ENTRY, lease: 0n }).lease, 0);
  assertEquals(
    fromPut({ type: "put", revision: 5, version: 6, previous: ENTRY }),
    { revision: 5, version: 6, previous: WIRE_ENTRY },
  );
  assertEquals(
    fromPut({ type: "put", revision: 5, version: 6, previous: null }).previous,
    null,
  );
  assertEquals(
    fromDelete({ type: "delete", revision: 5, deleted: 1, previous: [ENTRY] }),
    { revision: 5, deleted: 1, previous: [WIRE_ENTRY] },
  );
});

Deno.test("convert: each step of a transaction answers in its place", () => {
  const wire = fromTransact({
    type: "transact",
    revision: 9,
    succeeded: true,
    results: [
      { type: "put", version: 1, previous: null },
      { type: "get", entry: ENTRY },
      { type: "get", entry: null },
      { type: "delete", deleted: 2, previous: [] },
      { type: "list", entries: [ENTRY], more: true },
      { type: "modify", entry: ENTRY, previous: null },
      { type: "modify", entry: { ...ENTRY, version: 4 }, previous: ENTRY },
    ],
  });
  assertEquals(wire, {
    revision: 9,
    succeeded: true,
    results: [
      { put: { revision: 9, version: 1, previous: null } },
      { get: { entry: WIRE_ENTRY } },
      { get: { entry: null } },
      { delete: { revision: 9, deleted: 2, previous: [] } },
      { list: { revision: 9, entries: [WIRE_ENTRY], more: true } },
      { modify: { revision: 9, version: 3, value, previous: null } },
      { modify: { revision: 9, version: 4, value, previous: WIRE_ENTRY } },
    ],
  } as never);
});
