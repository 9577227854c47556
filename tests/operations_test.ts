/**
 * What the client writes by hand, read by a general decoder.
 *
 * @module
 */

import { assertEquals, assertLessOrEqual, assertThrows } from "@std/assert";
import protobuf from "protobufjs";
import { DkvError } from "../errors.ts";
import {
  encodeDelete,
  encodeGet,
  encodeHead,
  encodePut,
  encodeTransaction,
  json,
  type ModifyOperation,
  OPERATION_BYTES_MAX,
  prefixEnd,
  setTimeoutMs,
  toRange,
} from "../operations.ts";
import { needs } from "./needs.ts";

const PROTO = new URL("../proto/kvstore.proto", import.meta.url);

/** Puts an operation into a request and lets protobufjs read it. */
function decode(bytes: Uint8Array): Record<string, unknown> {
  const { root } = protobuf.parse(Deno.readTextFileSync(PROTO));
  const type = root.lookupType("kvstore.v1.PipelineRequest");
  const head = encodeHead(new Uint8Array([1, 2, 3]), 5);
  const message = type.decode(new Uint8Array([...head, ...bytes]));
  const request = type.toObject(message, {
    longs: String,
    enums: String,
    bytes: Array,
  });
  assertEquals(request["client"], [1, 2, 3]);
  assertEquals(request["doneBelow"], "5");
  return request["operations"][0];
}

const FRAME = { id: 7, sequence: 300 };
const codes = (text: string) => [...new TextEncoder().encode(text)];

needs(["read"], "operations: a put", () => {
  const put = encodePut(FRAME, {
    key: "key/ä",
    value: "v".repeat(200),
    lease: 2n ** 63n - 1n,
    returnPrevious: true,
  });
  setTimeoutMs(put, 1234.5);
  assertEquals(decode(put.bytes), {
    id: "7",
    sequence: "300",
    timeoutMs: "1235",
    put: {
      key: codes("key/ä"),
      value: codes("v".repeat(200)),
      lease: "9223372036854775807",
      returnPrevious: true,
    },
  });
});

needs(["read"], "operations: numbers of every width", () => {
  for (let bits = 0; bits <= 52; bits++) {
    const revision = 2 ** bits + 1;
    const get = encodeGet({ id: revision, sequence: 0 }, {
      key: new Uint8Array([0, 255]),
      revision,
      serializable: bits % 2 === 0,
    });
    setTimeoutMs(get, bits + 1);
    assertEquals(decode(get.bytes), {
      id: String(revision),
      timeoutMs: String(bits + 1),
      get: {
        key: [0, 255],
        revision: String(revision),
        ...(bits % 2 === 0 ? { serializable: true } : {}),
      },
    });
  }
});

needs(["read"], "operations: a delete of a key, a prefix and a range", () => {
  const all = [
    [{ key: "a" }, { key: codes("a") }],
    [{ prefix: "a" }, { range: { start: codes("a"), end: codes("b") } }],
    [{ range: { start: "b" } }, { range: { start: codes("b") } }],
    [{ range: {} }, { range: {} }],
  ] as const;
  for (const [target, expected] of all) {
    const remove = encodeDelete(FRAME, target);
    setTimeoutMs(remove, 1);
    assertEquals(decode(remove.bytes)["delete"], expected);
  }
});

needs(["read"], "operations: a transaction with everything in it", () => {
  const transaction = encodeTransaction(FRAME, {
    compares: [
      { key: "a", version: 0 },
      { key: "b", relation: "notEqual", createRevision: 1 },
      { key: "c", relation: "less", modRevision: 2 ** 40 },
      { key: "d", relation: "greater", value: "" },
      { key: "e", lease: 0n },
    ],
    then: [
      { type: "put", key: "a", value: "x" },
      { type: "get", key: "b" },
    ],
    else: [
      { type: "delete", prefix: "c", returnPrevious: true },
      { type: "list", range: { end: "z" }, limit: 9, keysOnly: true },
      { type: "list", prefix: "", reverse: true },
    ],
  });
  setTimeoutMs(transaction, 1);
  assertEquals(decode(transaction.bytes)["transact"], {
    compares: [
      { key: codes("a"), relation: "EQUAL", version: "0" },
      { key: codes("b"), relation: "NOT_EQUAL", createRevision: "1" },
      { key: codes("c"), relation: "LESS", modRevision: String(2 ** 40) },
      { key: codes("d"), relation: "GREATER", value: [] },
      { key: codes("e"), relation: "EQUAL", lease: "0" },
    ].map(({ relation, ...rest }) =>
      relation === "EQUAL" ? rest : { relation, ...rest }
    ),
    then: [
      { put: { key: codes("a"), value: codes("x") } },
      { get: { key: codes("b") } },
    ],
    else: [
      {
        delete: {
          range: { start: codes("c"), end: codes("d") },
          returnPrevious: true,
        },
      },
      { list: { range: { end: codes("z") }, limit: "9", keysOnly: true } },
      { list: { range: {}, reverse: true } },
    ],
  });
});

needs(["read"], "operations: modifications", () => {
  const le = (number: bigint) => {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, number, true);
    return [...bytes];
  };
  const uint64le = { encoding: "uint64le" } as const;
  const cases: [Omit<ModifyOperation, "type" | "key">, object][] = [
    [{ function: "add", operand: 1 }, { operand: codes("1") }],
    [{ function: "add", operand: 0, lease: 0n }, {
      operand: codes("0"),
      lease: "0",
    }],
    [{ function: "add", operand: -(2n ** 63n) }, {
      operand: codes("-9223372036854775808"),
    }],
    [
      { function: "min", operand: 2n ** 63n - 1n, returnPrevious: true },
      {
        function: "MIN",
        operand: codes("9223372036854775807"),
        returnPrevious: true,
      },
    ],
    [{ function: "max", operand: 2n ** 64n - 1n, ...uint64le }, {
      function: "MAX",
      encoding: "UINT64_LE",
      operand: le(2n ** 64n - 1n),
    }],
    [{ function: "add", operand: 258, ...uint64le, lease: 2n ** 63n - 1n }, {
      encoding: "UINT64_LE",
      operand: le(258n),
      lease: "9223372036854775807",
    }],
    [{ function: "append", operand: "ä" }, {
      function: "APPEND",
      operand: codes("ä"),
    }],
    [{ function: "append", operand: new Uint8Array([0, 255]) }, {
      function: "APPEND",
      operand: [0, 255],
    }],
  ];
  const then = cases.map(([modification]) =>
    ({ type: "modify", key: "n", ...modification }) as ModifyOperation
  );
  const transaction = encodeTransaction(FRAME, { then });
  setTimeoutMs(transaction, 1);
  assertEquals(decode(transaction.bytes)["transact"], {
    then: cases.map(([, expected]) => ({
      modify: { key: codes("n"), ...expected },
    })),
  });
});

Deno.test("operations: operands that are no number, or have too many bits", () => {
  const bad: [number | bigint, "decimal" | "uint64le"][] = [
    [0.5, "decimal"],
    [NaN, "decimal"],
    [Infinity, "decimal"],
    [2 ** 53, "decimal"],
    [2n ** 63n, "decimal"],
    [-(2n ** 63n) - 1n, "decimal"],
    [2n ** 64n, "uint64le"],
    [-1, "uint64le"],
  ];
  for (const [operand, encoding] of bad) {
    const type = "modify";
    const then = [
      { type, key: "n", function: "add", operand, encoding },
    ] as const;
    assertThrows(() => encodeTransaction(FRAME, { then }), RangeError);
  }
});

Deno.test("operations: the bytes are the caller's no more", () => {
  const value = new Uint8Array([1, 2, 3]);
  const put = encodePut(FRAME, { key: "a", value });
  const before = [...put.bytes];
  value.fill(9);
  encodePut(FRAME, { key: "b", value });
  assertEquals([...put.bytes], before);
});

Deno.test("operations: stay as they are while others of all sizes are made", () => {
  const made = [];
  for (let round = 0; round < 400; round++) {
    // Also such as fill the rest of a piece of memory exactly, and larger ones than a piece.
    const length = round % 40 === 0 ? 100_000 : (round * 97) % 1000;
    const value = new Uint8Array(length).fill(round);
    const { bytes } = encodePut(FRAME, { key: "a", value });
    made.push({ bytes, copy: bytes.slice() });
    const bad = { key: "b", value, lease: 2n ** 63n };
    assertThrows(() => encodePut(FRAME, bad), RangeError);
    const compares = [{ key: "c", value }, { key: "d", value }];
    const transaction = encodeTransaction(FRAME, { compares });
    made.push({ bytes: transaction.bytes, copy: transaction.bytes.slice() });
    setTimeoutMs(transaction, 0);
    const alone = encodeTransaction(FRAME, { compares });
    setTimeoutMs(alone, 0);
    assertEquals(transaction.bytes, alone.bytes);
    made[made.length - 1]!.copy = alone.bytes.slice();
  }
  for (const { bytes, copy } of made) assertEquals(bytes, copy);
});

Deno.test("operations: a text is the same as its bytes, wherever memory ends", () => {
  for (let round = 0; round < 20_000; round++) {
    const value = new Uint8Array(round % 7);
    const text = "k".repeat(44 + round % 17) + (round % 2 ? "ä" : "a");
    const key = new TextEncoder().encode(text);
    assertEquals(
      encodePut(FRAME, { key: text, value }).bytes,
      encodePut(FRAME, { key, value }).bytes,
    );
  }
});

Deno.test("operations: one that is too large is refused, with the limit", () => {
  const value = new Uint8Array(OPERATION_BYTES_MAX);
  const error = assertThrows(
    () => encodePut(FRAME, { key: "a", value }),
    DkvError,
    `at most ${OPERATION_BYTES_MAX}`,
  );
  assertEquals(error.code, "REQUEST_TOO_LARGE");
  const { bytes } = encodePut(FRAME, { key: "a", value: "b" });
  assertLessOrEqual(bytes.length, 64);
});

Deno.test("operations: what JSON has no words for is refused", () => {
  assertEquals(json({ a: [1, null, "é"] }), '{"a":[1,null,"é"]}');
  assertEquals(json(null), "null");
  const circle: { self?: unknown } = {};
  circle.self = circle;
  for (const value of [undefined, () => {}, Symbol("s"), 1n, circle]) {
    const error = assertThrows(() => json(value), DkvError, "no JSON");
    assertEquals(error.code, "MALFORMED");
  }
});

Deno.test("operations: where a prefix ends", () => {
  const end = (...bytes: number[]) => [...prefixEnd(new Uint8Array(bytes))];
  assertEquals(end(97), [98]);
  assertEquals(end(97, 255), [98]);
  assertEquals(end(97, 255, 255), [98]);
  assertEquals(end(97, 254), [97, 255]);
  assertEquals(end(255, 255), []);
  assertEquals(end(), []);
  const { start, end: last } = toRange({ prefix: "ab" });
  assertEquals([[...start], [...last]], [[97, 98], [97, 99]]);
});

Deno.test("operations: numbers that are none, and leases with too many bits", () => {
  const get = { key: "a", serializable: false };
  assertThrows(() => encodeGet(FRAME, { ...get, revision: 1.5 }), RangeError);
  assertThrows(
    () => encodeGet(FRAME, { ...get, revision: 2 ** 53 }),
    RangeError,
  );
  assertThrows(
    () => encodePut(FRAME, { key: "a", value: "b", lease: 2n ** 63n }),
    RangeError,
  );
});
