/**
 * The encoding of commands and batches: every command comes back, the bytes are protobuf, and
 * nothing but a command is read as one.
 *
 * @module
 */

import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import {
  type Command,
  type Compare,
  decodeBatch,
  decodeCommand,
  encodeBatch,
  encodeCommand,
  type KeyRange,
  type MutateRequest,
  type Operation,
  type UserChange,
} from "../batch.ts";
import { AssertionError, DkvError, unreachable } from "../errors.ts";
import { encodingNumber } from "../kvvalue.ts";
import { anyCommand, runs } from "./arbitrary.ts";
import { needs } from "./needs.ts";

const PUT: Command = {
  origin: 2 ** 48 - 1,
  id: 7,
  writeId: { client: "\x00\xff", sequence: 3, doneBelow: 1 },
  request: {
    type: "put",
    key: "k\xff",
    value: new Uint8Array([1, 2, 3]),
    lease: 2n ** 63n - 1n,
    returnPrevious: true,
  },
};

/** Values as arrays of numbers: views and copies alike. */
function plain<T>(value: T): unknown {
  if (value instanceof Uint8Array) return [...value];
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, one]) => [name, plain(one)]),
  );
}

Deno.test("batch: every command comes back from its bytes", () => {
  fc.assert(
    fc.property(anyCommand, (command) => {
      assertEquals(
        plain(decodeCommand(encodeCommand(command))),
        plain(command),
      );
    }),
    runs(2000),
  );
});

Deno.test("batch: commands that are encoded already go in as they are, in order", () => {
  fc.assert(
    fc.property(
      fc.nat(),
      fc.array(anyCommand, { maxLength: 20 }),
      (timeMs, commands) => {
        const data = encodeBatch(timeMs, commands.map(encodeCommand));
        assertEquals(plain(decodeBatch(data)), plain({ timeMs, commands }));
      },
    ),
    runs(200),
  );
});

Deno.test("batch: bytes handed out are never written to again", () => {
  const first = encodeCommand(PUT);
  const copy = first.slice();
  const second = Array.from(
    { length: 5000 },
    (_, id) => encodeCommand({ ...PUT, id }),
  );
  assertEquals(first, copy);
  for (const [id, data] of second.entries()) {
    assertEquals(decodeCommand(data).id, id);
  }
});

Deno.test("batch: a value larger than any slab, with what follows it", () => {
  const value = new Uint8Array(3 << 20).map((_, i) => i);
  const request = { ...PUT.request, value } as Command["request"];
  const big = encodeCommand({ ...PUT, request });
  const small = encodeCommand(PUT);
  assertEquals(plain(decodeCommand(big)), plain({ ...PUT, request }));
  assertEquals(plain(decodeCommand(small)), plain(PUT));
});

Deno.test("batch: lease ids keep all 64 bits, revisions all 53", () => {
  for (const lease of [1n, 2n ** 53n + 1n, 2n ** 63n - 1n, -1n, -(2n ** 63n)]) {
    const command = { ...PUT, request: { type: "revoke", lease } as const };
    assertEquals(decodeCommand(encodeCommand(command)), command);
  }
  for (
    const revision of [
      0,
      1,
      127,
      128,
      2 ** 31,
      2 ** 32 + 1,
      2 ** 53 - 1,
      -1,
      -(2 ** 53) + 1,
    ]
  ) {
    const command = { ...PUT, request: { type: "compact", revision } as const };
    assertEquals(decodeCommand(encodeCommand(command)), command);
  }
});

Deno.test("batch: what cannot be encoded is a defect, and leaves the next command whole", () => {
  const bad: Partial<Command>[] = [
    { id: 2 ** 53 },
    { id: 0.5 },
    { origin: NaN },
    { request: { type: "revoke", lease: 2n ** 63n } },
    { request: { type: "identify", clusterId: "\u0100" } },
  ];
  for (const part of bad) {
    assertThrows(() => encodeCommand({ ...PUT, ...part }), AssertionError);
    assertEquals(plain(decodeCommand(encodeCommand(PUT))), plain(PUT));
  }
});

Deno.test("batch: bytes that are no command are refused, never read past or misread", () => {
  const whole = encodeCommand(PUT);
  for (let length = 0; length < whole.length; length++) {
    assertThrows(
      () => decodeCommand(whole.slice(0, length)),
      DkvError,
      "malformed",
    );
  }
  const bad: [string, number[]][] = [
    ["an unknown field", [...whole, 15 << 3 & 127, 0]],
    ["a field with number 0", [0, 0]],
    ["a number without an end", [8, ...new Array(11).fill(255)]],
    ["a number above 2^53", [8, 255, 255, 255, 255, 255, 255, 255, 127]],
    ["a comparison without a target", [0x42, 2, 0x0a, 0]],
    ["an unknown relation", [0x42, 6, 0x0a, 4, 0x10, 9, 0x18, 1]],
    ["an operation of no kind", [0x42, 2, 0x12, 0]],
    ["an unknown function", [0x42, 6, 0x12, 4, 0x2a, 2, 0x10, 6]],
    ["an unknown encoding", [0x42, 6, 0x12, 4, 0x2a, 2, 0x18, 2]],
    ["an unknown field of a modification", [0x42, 6, 0x12, 4, 0x2a, 2, 56, 2]],
  ];
  for (const [what, bytes] of bad) {
    const error = assertThrows(
      () => decodeCommand(new Uint8Array(bytes)),
      DkvError,
      "",
      what,
    );
    assertEquals((error as DkvError).code, "MALFORMED", what);
  }
});

Deno.test("batch: random bytes are refused or read, but nothing else happens", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
      try {
        decodeBatch(bytes);
      } catch (error) {
        assert(
          error instanceof DkvError && error.code === "MALFORMED",
          `${error}`,
        );
      }
    }),
    runs(3000),
  );
});

needs(
  ["read"],
  "batch: the bytes are those that protobufjs makes from proto/entry.proto",
  async () => {
    const { default: protobuf } = await import("protobufjs");
    const url = new URL("../proto/entry.proto", import.meta.url);
    const { root } = protobuf.parse(await Deno.readTextFile(url), {
      keepCase: false,
    });
    const Batch = root.lookupType("dkv.entry.v1.Batch");
    fc.assert(
      fc.property(
        fc.nat(),
        fc.array(anyCommand, { maxLength: 3 }),
        (timeMs, commands) => {
          const message = Batch.fromObject(
            present({
              timeMs,
              commands: commands.map(commandMessage),
            }) as Record<string, unknown>,
          );
          const expected = Batch.encode(message).finish();
          assertEquals(
            [...encodeBatch(timeMs, commands.map(encodeCommand))],
            [...expected],
          );
        },
      ),
      runs(1000),
    );
  },
);

/** The same without members that have the default value. */
function present(object: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(object).filter(([, value]) =>
      value !== 0 && value !== "0" && value !== false && value !== null &&
      !(value instanceof Uint8Array && value.length === 0)
    ),
  );
}

function bytes(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

function commandMessage(command: Command): Record<string, unknown> {
  const { origin, id, writeId, request } = command;
  return {
    ...present({ origin, id }),
    ...(writeId === null ? {} : {
      client: bytes(writeId.client),
      sequence: writeId.sequence,
      ...present({ doneBelow: writeId.doneBelow }),
    }),
    ...requestMessage(request),
  };
}

function requestMessage(request: Command["request"]): Record<string, unknown> {
  switch (request.type) {
    case "put":
    case "delete":
      return operationMessage(request);
    case "transact":
      return operationMessage(request);
    case "grant":
      return {
        grant: present({ lease: `${request.lease}`, ttlMs: request.ttlMs }),
      };
    case "revoke":
    case "keepAlive":
      return { [request.type]: present({ lease: `${request.lease}` }) };
    case "compact":
      return { compact: present({ revision: request.revision }) };
    case "identify":
      return { identify: present({ clusterId: bytes(request.clusterId) }) };
    case "mutate":
      return { mutate: mutateMessage(request) };
    case "changeUsers":
      return { changeUsers: userChangeMessage(request.change) };
    default:
      return unreachable(request);
  }
}

const USER_CHANGES: readonly UserChange["type"][] = [
  "addUser",
  "setPassword",
  "deleteUser",
  "grantRole",
  "revokeRole",
  "addRole",
  "deleteRole",
  "grantPermission",
  "revokePermission",
];

function userChangeMessage(change: UserChange): Record<string, unknown> {
  const permission = change.type === "grantPermission"
    ? change.permission
    : change.type === "revokePermission"
    ? { ...change, access: "read" as const }
    : null;
  return {
    ...present({
      type: USER_CHANGES.indexOf(change.type),
      user: bytes("user" in change ? change.user : ""),
      password: bytes("password" in change ? change.password : ""),
      role: bytes("role" in change ? change.role : ""),
    }),
    ...(permission === null ? {} : {
      permission: present({
        access: ["read", "write", "readWrite"].indexOf(permission.access),
        key: bytes(permission.key),
        rangeEnd: bytes(permission.rangeEnd),
      }),
    }),
  };
}

function mutateMessage(request: MutateRequest): Record<string, unknown> {
  return {
    ...present({
      database: bytes(request.database),
      nowMs: request.nowMs,
    }),
    checks: request.checks.map(({ key, versionstamp }) =>
      present({ key: bytes(key), versionstamp: bytes(versionstamp) })
    ),
    mutations: request.mutations.map((mutation) => {
      const { type, key } = mutation;
      const value = "value" in mutation ? mutation.value : null;
      const bounds = mutation.type === "sum"
        ? present({
          min: mutation.min,
          max: mutation.max,
          clamp: mutation.clamp,
        })
        : {};
      return {
        ...present({
          type: type === "set"
            ? 0
            : type === "setSuffixed"
            ? "SET_SUFFIXED"
            : type.toUpperCase(),
          key: bytes(key),
        }),
        ...(value === null ? {} : present({
          encoding: encodingNumber(value.encoding),
          data: value.data,
        })),
        ...("expireAtMs" in mutation
          ? present({ expireAtMs: mutation.expireAtMs })
          : {}),
        ...bounds,
      };
    }),
  };
}

function rangeMessage(range: KeyRange): Record<string, unknown> {
  return {
    ...present({ start: bytes(range.start) }),
    ...(range.end === null ? {} : { end: bytes(range.end) }),
  };
}

function operationMessage(operation: Operation): Record<string, unknown> {
  switch (operation.type) {
    case "put": {
      const { key, value, lease, returnPrevious } = operation;
      return {
        put: present({
          key: bytes(key),
          value,
          lease: `${lease}`,
          returnPrevious,
        }),
      };
    }
    case "delete": {
      const { range, returnPrevious } = operation;
      return {
        delete: { range: rangeMessage(range), ...present({ returnPrevious }) },
      };
    }
    case "get":
      return { get: present({ key: bytes(operation.key) }) };
    case "list": {
      const { range, limit, keysOnly, reverse } = operation;
      return {
        list: {
          range: rangeMessage(range),
          ...present({ limit, keysOnly, reverse }),
        },
      };
    }
    case "modify": {
      const { key, encoding, operand, lease, returnPrevious } = operation;
      return {
        modify: {
          ...present({
            key: bytes(key),
            function: FUNCTIONS[operation.function],
            encoding: ENCODINGS[encoding],
            operand,
            returnPrevious,
          }),
          // Zero is a lease, absent is none.
          ...(lease === null ? {} : { lease: `${lease}` }),
        },
      };
    }
    case "range": {
      const { type: _, range, sortOrder, sortTarget, ...rest } = operation;
      const order = ORDERS[sortOrder];
      const target = TARGETS[sortTarget];
      return {
        range: {
          range: rangeMessage(range),
          ...present({ ...rest, order, target }),
        },
      };
    }
    case "transact":
      return {
        transact: {
          compares: operation.compares.map(compareMessage),
          then: operation.then.map(operationMessage),
          else: operation.else.map(operationMessage),
        },
      };
    default:
      return unreachable(operation);
  }
}

const FUNCTIONS = { add: 0, min: 1, max: 2, append: 3, keep: 4, set: 5 };
const ORDERS = { none: 0, ascend: 1, descend: 2 };
const TARGETS = {
  key: 0,
  version: 1,
  createRevision: 2,
  modRevision: 3,
  value: 4,
};
const ENCODINGS = { decimal: 0, uint64le: 1 };
const RELATIONS = { equal: 0, notEqual: 1, less: 2, greater: 3 };

function compareMessage(compare: Compare): Record<string, unknown> {
  const { key, relation, target } = compare;
  const common = {
    ...present({ key: bytes(key), relation: RELATIONS[relation] }),
    ...(typeof compare.end === "string" ? { end: bytes(compare.end) } : {}),
    ...(compare.end === null ? { endless: true } : {}),
  };
  switch (target.type) {
    case "value":
      return { ...common, value: target.value };
    case "lease":
      return { ...common, lease: `${target.lease}` };
    case "version":
    case "createRevision":
    case "modRevision":
      return { ...common, [target.type]: target.number };
    default:
      return unreachable(target);
  }
}
