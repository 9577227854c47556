/**
 * What the client reads by hand, written by a general encoder.
 *
 * @module
 */

import { assert, assertEquals, assertThrows } from "@std/assert";
import protobuf from "protobufjs";
import {
  type DeleteResult,
  Entry,
  type PipelineAnswer,
  type PutResult,
  readListResponse,
  readPipelineResponse,
  readWatchResponse,
  type TransactResult,
  wireError,
} from "../answers.ts";
import { DkvError } from "../errors.ts";
import { needs } from "./needs.ts";

const PROTO = new URL("../proto/kvstore.proto", import.meta.url);

function encode(type: string, message: object): Uint8Array {
  const { root } = protobuf.parse(Deno.readTextFileSync(PROTO));
  const found = root.lookupType(`kvstore.v1.${type}`);
  return found.encode(found.fromObject(message)).finish();
}

const bytes = (text: string) => new TextEncoder().encode(text);

const WIRE = {
  key: bytes("user/1"),
  value: bytes('{"name":"ann"}'),
  createRevision: 5,
  modRevision: 2 ** 40,
  version: 300,
  lease: "9223372036854775807",
};
const HEADER = { revision: 2 ** 45, nodeId: "node1" };

function checkEntry(entry: Entry | null): void {
  assert(entry !== null);
  assertEquals(entry.key, "user/1");
  assertEquals([...entry.keyBytes], [...WIRE.key]);
  assertEquals(entry.json(), { name: "ann" });
  assertEquals(entry.createRevision, 5);
  assertEquals(entry.modRevision, 2 ** 40);
  assertEquals(entry.version, 300);
  assertEquals(entry.lease, 2n ** 63n - 1n);
}

needs(["read"], "answers: results of a pipeline", () => {
  const results = [
    { id: 1, put: { revision: 9, version: 2, previous: WIRE } },
    { id: 2, get: { entry: WIRE } },
    { id: 3, get: {} },
    { id: 4, delete: { revision: 10, deleted: 2, previous: [WIRE, WIRE] } },
    { id: 2 ** 40, error: { code: "KEY_EMPTY", message: "The key is empty" } },
    {
      id: 6,
      transact: {
        revision: 11,
        succeeded: true,
        results: [
          { put: { version: 1 } },
          { get: { entry: WIRE } },
          { delete: { deleted: 3 } },
          { list: { entries: [WIRE], more: true } },
          {
            modify: {
              revision: 11,
              version: 300,
              value: bytes("42"),
              previous: WIRE,
            },
          },
          { modify: { revision: 11, version: 1 } },
        ],
      },
    },
  ];
  const message = encode("PipelineResponse", { header: HEADER, results });
  const answers = new Map<number, PipelineAnswer | DkvError>();
  readPipelineResponse(message, (id, answer) => answers.set(id, answer));
  assertEquals([...answers.keys()], [1, 2, 3, 4, 2 ** 40, 6]);

  const put = answers.get(1) as PutResult;
  assertEquals(put.revision, 9);
  checkEntry(put.previous);
  checkEntry((answers.get(2) as { entry: Entry }).entry);
  assertEquals(answers.get(3), { entry: null });
  const removed = answers.get(4) as DeleteResult;
  assertEquals([removed.deleted, removed.previous.length], [2, 2]);
  const error = answers.get(2 ** 40);
  assert(error instanceof DkvError);
  assertEquals([error.code, error.message], ["KEY_EMPTY", "The key is empty"]);
  const transaction = answers.get(6) as TransactResult;
  const types = transaction.results.map(({ type }) => type);
  assertEquals(types, ["put", "get", "delete", "list", "modify", "modify"]);
  const [modified, emptied] = transaction.results.slice(4);
  assert(modified?.type === "modify" && emptied?.type === "modify");
  assertEquals([modified.revision, modified.version], [11, 300]);
  message.fill(0);
  assertEquals([...modified.value], [...bytes("42")]);
  checkEntry(modified.previous);
  assertEquals([emptied.value.length, emptied.previous], [0, null]);
});

needs(["read"], "answers: pages of a list", () => {
  const page = readListResponse(
    encode("ListResponse", {
      header: HEADER,
      revision: 77,
      entries: [WIRE, { key: bytes("b") }],
      more: true,
    }),
  );
  assertEquals([page.revision, page.more, page.count], [77, true, 2]);
  const [first, second] = page.entries();
  checkEntry(first ?? null);
  assertEquals(second?.text(), "");
});

needs(["read"], "answers: what a watch brings", () => {
  const read = (message: object) =>
    readWatchResponse(encode("WatchResponse", { header: HEADER, ...message }));
  assertEquals(read({ watchId: 1, created: { fromRevision: 8 } }), {
    type: "created",
    fromRevision: 8,
  });
  const events = [
    { kind: "PUT", entry: WIRE, previous: WIRE },
    { kind: "DELETE", entry: { key: bytes("b"), modRevision: 4 } },
  ];
  const answer = read({ watchId: 1, events: { events, throughRevision: 90 } });
  assert(answer?.type === "events");
  assertEquals(answer.throughRevision, 90);
  const [put, removed] = answer.changes;
  assert(put !== undefined && removed !== undefined);
  checkEntry(put.entry);
  checkEntry(put.previous);
  assertEquals(removed.type, "delete");
  assertEquals([removed.key, removed.revision], ["b", 4]);
  assertEquals([removed.entry, removed.previous], [null, null]);
  const error = { code: "REVISION_COMPACTED", message: "gone" };
  const cancelled = read({ cancelled: { error, compactRevision: 3 } });
  assert(cancelled?.type === "cancelled");
  assertEquals(cancelled.error?.code, "REVISION_COMPACTED");
  assertEquals(cancelled.compactRevision, 3);
});

needs(
  ["read"],
  "answers: an entry does not share memory with its message",
  () => {
    const message = encode("ListResponse", { entries: [WIRE] });
    const [entry] = readListResponse(message).entries();
    message.fill(0);
    checkEntry(entry ?? null);
  },
);

needs(["read"], "answers: fields of a newer node are skipped", () => {
  const message = encode("ListResponse", { revision: 5, entries: [WIRE] });
  const unknown = [
    15 << 3,
    0x80,
    0x01, // a number
    14 << 3 | 1,
    ...[1, 2, 3, 4, 5, 6, 7, 8],
    13 << 3 | 2,
    2,
    ...[9, 9],
    12 << 3 | 5,
    ...[1, 2, 3, 4],
  ];
  const page = readListResponse(
    new Uint8Array([...unknown, ...message, ...unknown]),
  );
  assertEquals([page.revision, page.count], [5, 1]);
  assertEquals([...page.entries()].length, 1);
});

needs(
  ["read"],
  "answers: a message that was cut is refused, not read beyond",
  () => {
    const message = encode("PipelineResponse", {
      results: [{ id: 1, get: { entry: WIRE } }],
    });
    let whole = 0;
    for (let length = 1; length < message.length; length++) {
      assertThrows(
        () => readPipelineResponse(message.subarray(0, length), () => whole++),
        DkvError,
      );
    }
    assertEquals(whole, 0);
  },
);

Deno.test("answers: an unknown code is an internal error that shows it", () => {
  const error = wireError("SOMETHING_NEW", "What happened");
  assertEquals(error.code, "INTERNAL");
  assert(error.message.includes("SOMETHING_NEW"));
});

Deno.test("answers: a key that is no UTF-8 keeps its bytes", () => {
  const entry = new Entry({
    keyBytes: new Uint8Array([255, 97]),
    value: new Uint8Array(0),
    createRevision: 1,
    modRevision: 1,
    version: 1,
    lease: 0n,
  });
  assertEquals(entry.key, "\ufffda");
  assertEquals([...entry.keyBytes], [255, 97]);
});
