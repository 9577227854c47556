import { Buffer } from "node:buffer";
import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import fc from "fast-check";
import type {
  Configuration,
  Entry,
  Message,
  SnapshotMeta,
} from "../message.ts";
import {
  decodeConfiguration,
  decodeEntryPayload,
  decodeFrame,
  decodeReply,
  decodeSnapshotChunk,
  decodeSnapshotReply,
  encodeConfiguration,
  encodeEntryPayload,
  encodeFrame,
  encodeReply,
  encodeSnapshotChunk,
  encodeSnapshotReply,
  type Frame,
  type FrameReply,
  type Hello,
  type SnapshotChunk,
  type SnapshotReply,
} from "../frame.ts";
import { messageBytes } from "../envelope.ts";
import { AssertionError, DkvError } from "../errors.ts";
import { needs } from "./needs.ts";

const HELLO: Hello = {
  protocolVersion: 1,
  clusterName: "büro",
  fingerprint: "f00",
  clusterId: "",
  nodeId: "node1",
  memberId: "m1",
  incarnation: "i1",
  softwareVersion: "0.1.0",
  address: "127.0.0.1:50051",
};
const CONFIGURATION: Configuration = {
  voters: ["a", "b", "c"],
  votersOutgoing: ["a", "b", "d"],
  learners: ["e"],
  learnersNext: ["d"],
};
const ENTRIES: readonly Entry[] = [
  { index: 8, term: 3, type: "empty" },
  { index: 9, term: 3, type: "batch", data: Uint8Array.of(0, 255, 7) },
  { index: 10, term: 3, type: "batch", data: new Uint8Array() },
  { index: 11, term: 3, type: "configuration", configuration: CONFIGURATION },
];
const HEAD = { from: "m1", to: "m2", term: 2 ** 40 } as const;

/** One or more of every type of message. */
const MESSAGES: readonly Message[] = [
  {
    ...HEAD,
    type: "append",
    previousIndex: 7,
    previousTerm: 2,
    entries: ENTRIES,
    commit: 6,
  },
  {
    ...HEAD,
    type: "append",
    previousIndex: 0,
    previousTerm: 0,
    entries: [],
    commit: 0,
  },
  { ...HEAD, type: "appendReply", index: Number.MAX_SAFE_INTEGER },
  { ...HEAD, type: "appendReply", index: 7, awaitsCommit: true },
  {
    ...HEAD,
    type: "appendReject",
    index: 1,
    hintIndex: 2,
    hintTerm: 3,
    lastIndex: 4,
  },
  { ...HEAD, type: "heartbeat", commit: 5, readRound: 6 },
  { ...HEAD, type: "heartbeatReply", readRound: 2 ** 32 },
  {
    ...HEAD,
    type: "vote",
    preVote: true,
    lastIndex: 1,
    lastTerm: 2,
    transfer: false,
  },
  {
    ...HEAD,
    type: "vote",
    preVote: false,
    lastIndex: 0,
    lastTerm: 0,
    transfer: true,
  },
  { ...HEAD, type: "voteReply", preVote: true, granted: false },
  { ...HEAD, type: "voteReply", preVote: false, granted: true },
  { ...HEAD, type: "timeoutNow" },
  { ...HEAD, type: "readIndex", id: 9 },
  { ...HEAD, type: "readIndexReply", id: 9, index: 0 },
  { ...HEAD, type: "readIndexReply", id: 9, index: null },
  {
    ...HEAD,
    type: "snapshot",
    meta: { index: 12, term: 3, configuration: CONFIGURATION },
  },
  {
    ...HEAD,
    type: "forward",
    origin: 77,
    settledBelow: 3,
    commands: [{ id: 3, data: Uint8Array.of(1) }, {
      id: 0,
      data: new Uint8Array(),
    }],
  },
  {
    ...HEAD,
    type: "forwardRefused",
    origin: 77,
    ids: [0, 3, 300],
    code: "OVERLOADED",
  },
  { ...HEAD, type: "forwardRefused", origin: 0, ids: [], code: "OVERLOADED" },
  { ...HEAD, type: "transferLeadership", target: "m3" },
  { ...HEAD, type: "transferLeadership", target: null },
  {
    ...HEAD,
    type: "snapshot",
    meta: {
      index: 12,
      term: 3,
      configuration: {
        ...CONFIGURATION,
        learnersHeld: ["e"],
        places: [
          { member: "a", address: "127.0.0.1:1" },
          { member: "e", address: "[::1]:2", invitedAs: "[::1]:1" },
        ],
      },
    },
  },
  {
    ...HEAD,
    type: "configure",
    change: {
      addLearners: ["m4", "m5"],
      hold: ["m5"],
      promote: ["m3"],
      demote: ["m2"],
      remove: ["m1"],
    },
  },
  {
    ...HEAD,
    type: "configure",
    change: {
      addLearners: [],
      hold: [],
      promote: [],
      demote: [],
      remove: [],
      places: [
        { member: "m2", address: "127.0.0.1:1" },
        { member: "m3", address: "127.0.0.1:2", invitedAs: "127.0.0.1:3" },
      ],
    },
  },
];

const FRAMES: readonly Frame[] = [
  { type: "hello", hello: HELLO },
  {
    type: "messages",
    envelopes: MESSAGES.map((message) => ({ group: "default", message })),
  },
  { type: "ping", id: 1 },
  { type: "goodbye", reason: "wrong cluster" },
];
const REPLIES: readonly FrameReply[] = [
  { type: "welcome", hello: HELLO },
  { type: "acknowledge", bytes: 2 ** 33, pong: 4 },
  { type: "acknowledge", bytes: 0, pong: 0 },
];
const CHUNKS: readonly SnapshotChunk[] = [
  {
    type: "header",
    hello: HELLO,
    group: "default",
    message: {
      ...HEAD,
      type: "snapshot",
      meta: { index: 12, term: 3, configuration: CONFIGURATION },
    },
    bytes: 1000,
  },
  { type: "data", offset: 0, data: Uint8Array.of(1, 2, 3) },
  { type: "data", offset: 3, data: Uint8Array.of(4) },
  { type: "end", sha256: new Uint8Array(32).fill(9) },
];
const SNAPSHOT_REPLIES: readonly SnapshotReply[] = [
  { type: "welcome", hello: HELLO },
  { type: "written", bytes: 3, done: false },
  { type: "written", bytes: 4, done: true },
];

Deno.test("frame: everything comes back as it was", () => {
  for (const frame of FRAMES) {
    assertEquals(decodeFrame(encodeFrame(frame)), frame);
  }
  for (const reply of REPLIES) {
    assertEquals(decodeReply(encodeReply(reply)), reply);
  }
  for (const chunk of CHUNKS) {
    assertEquals(decodeSnapshotChunk(encodeSnapshotChunk(chunk)), chunk);
  }
  for (const reply of SNAPSHOT_REPLIES) {
    assertEquals(decodeSnapshotReply(encodeSnapshotReply(reply)), reply);
  }
});

Deno.test("frame: messages with any numbers, texts and bytes come back", () => {
  const integer = fc.maxSafeNat();
  const data = fc.uint8Array({ maxLength: 300 });
  fc.assert(
    fc.property(
      fc.string({ unit: "grapheme", maxLength: 100 }),
      integer,
      fc.nat(2 ** 30),
      fc.array(data, { maxLength: 5 }),
      (from, term, previousIndex, datas) => {
        const message: Message = {
          from,
          to: "",
          term,
          type: "append",
          previousIndex,
          previousTerm: term,
          entries: datas.map((data, i) => ({
            index: previousIndex + 1 + i,
            term,
            type: "batch",
            data,
          })),
          commit: term,
        };
        const frame: Frame = {
          type: "messages",
          envelopes: [{ group: from, message }],
        };
        assertEquals(decodeFrame(encodeFrame(frame)), frame);
      },
    ),
  );
});

Deno.test("frame: data is a view of the frame, without Buffer's methods", () => {
  const data = new Uint8Array(1000).fill(3);
  const encoded = encodeFrame(onlyMessage({
    ...HEAD,
    type: "append",
    previousIndex: 0,
    previousTerm: 0,
    entries: [{ index: 1, term: 1, type: "batch", data }],
    commit: 0,
  }));
  const message = messageOf(decodeFrame(encoded));
  const [entry] = message.type === "append" ? message.entries : [];
  const view = entry?.type === "batch" ? entry.data : null;
  assertEquals(view?.buffer, encoded.buffer);
  assertEquals(view?.constructor, Uint8Array);
});

Deno.test("frame: a message is never much larger than it is estimated", () => {
  const many: Message = {
    ...HEAD,
    type: "append",
    previousIndex: 2 ** 50,
    previousTerm: 2 ** 50,
    entries: Array.from({ length: 1000 }, (_, i) => ({
      index: 2 ** 50 + 1 + i,
      term: 2 ** 50,
      type: "batch",
      data: Uint8Array.of(1),
    })),
    commit: 2 ** 50,
  };
  for (const message of [...MESSAGES, many]) {
    const bytes = encodeFrame(onlyMessage(message)).length;
    const estimate = messageBytes(message);
    assertEquals(bytes <= estimate + 64, true, `${message.type}: ${bytes}`);
  }
});

Deno.test("frame: numbers that are not safe integers are not written", () => {
  for (const term of [-1, 0.5, NaN, 2 ** 53, Infinity]) {
    assertThrows(
      () => encodeFrame(onlyMessage({ ...HEAD, term, type: "timeoutNow" })),
      AssertionError,
      "must be a safe integer",
    );
  }
});

Deno.test("frame: a number of 2^53 or more is malformed", () => {
  // Reply field 2, as 2^53, as 2^63 and as the ten bytes of -1.
  for (
    const varint of [
      [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10],
      [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
      [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    ]
  ) {
    assertMalformed(
      () => decodeReply(Uint8Array.of(2 << 3, ...varint)),
      "2^53",
    );
  }
});

Deno.test("frame: every truncation is malformed or another whole frame, never a crash", () => {
  for (const frame of FRAMES) {
    const bytes = encodeFrame(frame);
    for (let end = 0; end < bytes.length; end++) {
      onlyMalformed(() => decodeFrame(bytes.subarray(0, end)));
    }
  }
  for (const chunk of CHUNKS) {
    const bytes = encodeSnapshotChunk(chunk);
    for (let end = 0; end < bytes.length; end++) {
      onlyMalformed(() => decodeSnapshotChunk(bytes.subarray(0, end)));
    }
  }
});

Deno.test("frame: random bytes and flipped bytes are malformed or a frame, never a crash", () => {
  const good = encodeFrame(FRAMES[1] ?? { type: "ping", id: 1 });
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
    onlyMalformed(() => decodeFrame(bytes));
    onlyMalformed(() => decodeReply(bytes));
    onlyMalformed(() => decodeSnapshotChunk(bytes));
    onlyMalformed(() => decodeSnapshotReply(bytes));
  }));
  fc.assert(fc.property(fc.nat(good.length - 1), fc.nat(255), (at, byte) => {
    const bytes = Uint8Array.from(good);
    bytes[at] = byte;
    onlyMalformed(() => decodeFrame(bytes));
  }));
});

Deno.test("frame: what is malformed says why", () => {
  const withTwo = new Uint8Array([
    ...encodeFrame({ type: "ping", id: 1 }),
    ...encodeFrame({ type: "goodbye", reason: "x" }),
  ]);
  const cases: readonly [Uint8Array, string][] = [
    [new Uint8Array(), "Frame must hold one kind of thing, not 0"],
    [withTwo, "Frame must hold one kind of thing, not 2"],
    [Uint8Array.of(4 << 3 | 2, 1, 0xff), "not UTF-8"],
    [Uint8Array.of(4 << 3 | 2, 100, 65), "Frame is cut short"],
    [Uint8Array.of(3 << 3 | 2, 0), "field 3 of kind 2, not 0"],
    [Uint8Array.of(9 << 3 | 3), "field 9 of kind 3"],
    [Uint8Array.of(0, 0), "a field without a number"],
    [Uint8Array.of(2 << 3 | 2, 0), "Envelope has no message"],
    [
      Uint8Array.of(2 << 3 | 2, 2, 2 << 3 | 2, 0),
      "Message is of no known type",
    ],
  ];
  for (const [bytes, text] of cases) {
    assertMalformed(() => decodeFrame(bytes), text);
  }
});

Deno.test("frame: an append whose entries do not follow each other is malformed", () => {
  const frame = onlyMessage({
    ...HEAD,
    type: "append",
    previousIndex: 7,
    previousTerm: 1,
    entries: [{ index: 8, term: 1, type: "empty" }, {
      index: 10,
      term: 1,
      type: "empty",
    }],
    commit: 0,
  });
  assertMalformed(
    () => decodeFrame(encodeFrame(frame)),
    "Append has entry 10 where 9 belongs",
  );
});

Deno.test("frame: fields of a newer version are skipped", () => {
  const ping = encodeFrame({ type: "ping", id: 5 });
  const bytes = Uint8Array.of(
    ...[100 << 3 & 0x7f | 0x80 | 0, 100 >> 4, 0xff, 0xff, 0xff, 0xff, 0xff],
    ...[0xff, 0xff, 0xff, 0xff, 0x01],
    ...[20 << 3 & 0x7f | 0x80 | 1, 20 >> 4, 1, 2, 3, 4, 5, 6, 7, 8],
    ...[20 << 3 & 0x7f | 0x80 | 2, 20 >> 4, 2, 1, 2],
    ...[20 << 3 & 0x7f | 0x80 | 5, 20 >> 4, 1, 2, 3, 4],
    ...ping,
  );
  assertEquals(decodeFrame(bytes), { type: "ping", id: 5 });
});

Deno.test("entry: payloads of rows and configurations come back as they were", () => {
  for (const entry of ENTRIES) {
    const { index, term } = entry;
    assertEquals(
      decodeEntryPayload({ index, term }, encodeEntryPayload(entry)),
      entry,
    );
  }
  assertEquals(
    decodeConfiguration(encodeConfiguration(CONFIGURATION)),
    CONFIGURATION,
  );
});

Deno.test("entry: the format on disk has not changed", () => {
  const bytes = ENTRIES.map((entry) => [...encodeEntryPayload(entry)]);
  assertEquals(bytes, [
    [0],
    [1, 0, 255, 7],
    [1],
    // deno-fmt-ignore
    [2, 10, 1, 97, 10, 1, 98, 10, 1, 99, 18, 1, 97, 18, 1, 98, 18, 1, 100, 26, 1, 101, 34, 1, 100],
  ]);
});

Deno.test("entry: an unknown payload and a configuration without voters are malformed", () => {
  const at = { index: 4, term: 1 };
  assertMalformed(
    () => decodeEntryPayload(at, Uint8Array.of(9)),
    "Entry 4 has an unknown payload of type 9",
  );
  assertMalformed(() => decodeEntryPayload(at, new Uint8Array()), "undefined");
  assertMalformed(
    () => decodeEntryPayload(at, Uint8Array.of(2)),
    "Configuration has no voters",
  );
});

needs(
  ["read"],
  "frame: agrees with proto/peer.proto both ways",
  async () => {
    const { exchange, installSnapshot } = await loadedCodecs({
      defaults: false,
    });
    for (const frame of FRAMES) {
      const bytes = throughLoader(exchange.request, encodeFrame(frame));
      assertEquals(decodeFrame(bytes), frame);
    }
    for (const reply of REPLIES) {
      const bytes = throughLoader(exchange.response, encodeReply(reply));
      assertEquals(decodeReply(bytes), reply);
    }
    for (const chunk of CHUNKS) {
      const encoded = encodeSnapshotChunk(chunk);
      const bytes = throughLoader(installSnapshot.request, encoded);
      assertEquals(decodeSnapshotChunk(bytes), chunk);
    }
    for (const reply of SNAPSHOT_REPLIES) {
      const encoded = encodeSnapshotReply(reply);
      const bytes = throughLoader(installSnapshot.response, encoded);
      assertEquals(decodeSnapshotReply(bytes), reply);
    }
  },
);

needs(
  ["read"],
  "frame: fields have the names of proto/peer.proto",
  async () => {
    const { exchange } = await loadedCodecs({ defaults: true });
    const named = (frame: Frame) =>
      exchange.request.deserialize(toBuffer(encodeFrame(frame)));
    assertEquals(named({ type: "hello", hello: HELLO })["hello"], HELLO);
    for (const message of MESSAGES) {
      const frame = named(onlyMessage(message));
      const [envelope] = frame["envelopes"] as Named[];
      assertEquals(envelope?.["group"], "default");
      const { type, from, to, term, ...rest } = message;
      const loaded = envelope?.["message"] as Named;
      const head = {
        from: loaded["from"],
        to: loaded["to"],
        term: loaded["term"],
      };
      assertEquals(head, { from, to, term });
      const body = loaded[type] as Named;
      for (const [name, value] of Object.entries(rest)) {
        if (name === "meta") assertEquals(body, filled(value as SnapshotMeta));
        else if (typeof value !== "object") assertEquals(body[name], value);
        else if (value === null) assertEquals(name in body, false);
      }
    }
  },
);

/** With the list that is absent when it is empty. */
function filled({ configuration, ...meta }: SnapshotMeta): Named {
  const { places = [], learnersHeld = [], ...rest } = configuration;
  const named = places.map((place) => ({ invitedAs: "", ...place }));
  return { ...meta, configuration: { ...rest, learnersHeld, places: named } };
}

type Named = Record<string, unknown>;

/** One direction of a method as proto-loader has it. */
interface Codec {
  serialize(message: Named): Uint8Array;
  deserialize(bytes: Uint8Array): Named;
}

/** The codecs that proto-loader makes of proto/peer.proto. */
async function loadedCodecs({ defaults }: { defaults: boolean }) {
  const { loadSync } = await import("@grpc/proto-loader");
  const path = decodeURIComponent(
    new URL("../proto/peer.proto", import.meta.url).pathname,
  );
  const service = loadSync(path, {
    longs: Number,
    defaults,
    oneofs: true,
  })[
    "kvstore.peer.v1.Peer"
  ] as unknown as Record<string, {
    requestSerialize: Codec["serialize"];
    requestDeserialize: Codec["deserialize"];
    responseSerialize: Codec["serialize"];
    responseDeserialize: Codec["deserialize"];
  }>;
  const codecs = (name: string) => {
    const method = service[name];
    if (method === undefined) throw new Error(`No method ${name}`);
    return {
      request: {
        serialize: method.requestSerialize,
        deserialize: method.requestDeserialize,
      },
      response: {
        serialize: method.responseSerialize,
        deserialize: method.responseDeserialize,
      },
    };
  };
  return {
    exchange: codecs("Exchange"),
    installSnapshot: codecs("InstallSnapshot"),
  };
}

function throughLoader(codec: Codec, bytes: Uint8Array): Uint8Array {
  return codec.serialize(codec.deserialize(toBuffer(bytes)));
}

/** proto-loader takes Buffers only. */
function toBuffer(bytes: Uint8Array): Uint8Array {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function onlyMessage(message: Message): Frame {
  return { type: "messages", envelopes: [{ group: "default", message }] };
}

function messageOf(frame: Frame): Message {
  const [envelope] = frame.type === "messages" ? frame.envelopes : [];
  if (envelope === undefined) throw new Error("A frame with a message");
  return envelope.message;
}

function assertMalformed(decode: () => unknown, text: string): void {
  const error = assertThrows(decode, DkvError);
  assertEquals(error.code, "MALFORMED");
  assertStringIncludes(error.message, text);
}

/** Any other error would take the node down. */
function onlyMalformed(decode: () => unknown): void {
  try {
    decode();
  } catch (error) {
    assertEquals(error instanceof DkvError && error.code, "MALFORMED");
  }
}
