/**
 * What goes over the wire between nodes (proto/peer.proto) as bytes and back: the frames that carry
 * messages, and the pieces of a snapshot. Used by `link.ts`, `peers.ts` and `transfer.ts`; messages
 * are in `envelope.ts`, entries and configurations in `entry.ts`.
 *
 * Encoders assert, because a value they cannot write is a defect of this node. Decoders throw
 * `MALFORMED`, because what they cannot read is another's. Data of entries, commands and snapshots
 * are not copied: they are views, which keep the frame that brought them alive.
 *
 * @module
 */

import type { Message } from "./message.ts";
import { assert, DkvError, unreachable } from "./errors.ts";
import {
  type Envelope,
  putEnvelope,
  putMessage,
  readEnvelope,
  readMessage,
} from "./envelope.ts";
import {
  Fields,
  newWriter,
  putBoolean,
  putBytes,
  putElement,
  putInteger,
  putNested,
  putText,
  type Writer,
} from "./fields.ts";

export {
  decodeConfiguration,
  decodeEntryPayload,
  encodeConfiguration,
  encodeEntryPayload,
} from "./entry.ts";

/** Raised when a node could not understand what another one says. */
export const PROTOCOL_VERSION = 1;

/** Bytes of a SHA-256. */
export const CHECKSUM_BYTES = 32;

/** Who speaks: see `Hello` in proto/peer.proto. */
export interface Hello {
  readonly protocolVersion: number;
  readonly clusterName: string;
  readonly fingerprint: string;
  /** Empty while the node does not know it. */
  readonly clusterId: string;
  readonly nodeId: string;
  readonly memberId: string;
  /** Names the data directory. */
  readonly incarnation: string;
  readonly softwareVersion: string;
  /** Where the node is, as its own configuration file has it; empty if it does not say. */
  readonly address: string;
}

/** What the dialler writes. */
export type Frame =
  | { readonly type: "hello"; readonly hello: Hello }
  | { readonly type: "messages"; readonly envelopes: readonly Envelope[] }
  | { readonly type: "ping"; readonly id: number }
  | { readonly type: "goodbye"; readonly reason: string };

/** What the accepting node writes. */
export type FrameReply =
  | { readonly type: "welcome"; readonly hello: Hello }
  | {
    readonly type: "acknowledge";
    /** Of all frames on this stream so far. */
    readonly bytes: number;
    /** The newest ping; 0 if none. */
    readonly pong: number;
  };

/** The message that a snapshot's arrival delivers. */
export type SnapshotMessage = Message & { readonly type: "snapshot" };

/** What the sender of a snapshot writes. */
export type SnapshotChunk =
  | {
    readonly type: "header";
    readonly hello: Hello;
    readonly group: string;
    readonly message: SnapshotMessage;
    /** The size of all data. */
    readonly bytes: number;
  }
  | {
    readonly type: "data";
    readonly offset: number;
    readonly data: Uint8Array;
  }
  | { readonly type: "end"; readonly sha256: Uint8Array };

/** What the receiver of a snapshot writes. */
export type SnapshotReply =
  | { readonly type: "welcome"; readonly hello: Hello }
  | {
    readonly type: "written";
    readonly bytes: number;
    /** Complete, checked and delivered. */
    readonly done: boolean;
  };

/** One frame. */
export function encodeFrame(frame: Frame): Uint8Array {
  const writer = newWriter();
  switch (frame.type) {
    case "hello":
      putNested(writer, 1, () => putHello(writer, frame.hello));
      break;
    case "messages":
      assert(frame.envelopes.length > 0, "A frame holds at least one message");
      for (const envelope of frame.envelopes) {
        putNested(writer, 2, () => putEnvelope(writer, envelope));
      }
      break;
    case "ping":
      putElement(writer, 3, frame.id);
      break;
    case "goodbye":
      assert(frame.reason !== "", "A goodbye gives a reason");
      putText(writer, 4, frame.reason);
      break;
    default:
      unreachable(frame);
  }
  return writer.finish();
}

/** Reverses {@linkcode encodeFrame}. Throws `MALFORMED`. */
export function decodeFrame(bytes: Uint8Array): Frame {
  const fields = new Fields("Frame", plain(bytes));
  const envelopes: Envelope[] = [];
  const others: Frame[] = [];
  while (fields.next()) {
    if (fields.number === 1) {
      others.push({ type: "hello", hello: readHello(fields.nested("Hello")) });
    } else if (fields.number === 2) {
      envelopes.push(readEnvelope(fields.nested("Envelope")));
    } else if (fields.number === 3) {
      others.push({ type: "ping", id: fields.integer() });
    } else if (fields.number === 4) {
      others.push({ type: "goodbye", reason: fields.text() });
    } else fields.skip();
  }
  if (envelopes.length > 0) others.push({ type: "messages", envelopes });
  return theOnly("Frame", others);
}

/** One reply. */
export function encodeReply(reply: FrameReply): Uint8Array {
  const writer = newWriter();
  if (reply.type === "welcome") {
    putNested(writer, 1, () => putHello(writer, reply.hello));
  } else {
    putInteger(writer, 2, reply.bytes);
    putInteger(writer, 3, reply.pong);
  }
  return writer.finish();
}

/** Reverses {@linkcode encodeReply}. Throws `MALFORMED`. */
export function decodeReply(encoded: Uint8Array): FrameReply {
  const fields = new Fields("FrameReply", plain(encoded));
  let hello: Hello | null = null;
  let bytes = 0;
  let pong = 0;
  while (fields.next()) {
    if (fields.number === 1) hello = readHello(fields.nested("Hello"));
    else if (fields.number === 2) bytes = fields.integer();
    else if (fields.number === 3) pong = fields.integer();
    else fields.skip();
  }
  if (hello !== null) return { type: "welcome", hello };
  return { type: "acknowledge", bytes, pong };
}

/** One piece of a snapshot. */
export function encodeSnapshotChunk(chunk: SnapshotChunk): Uint8Array {
  const writer = newWriter();
  switch (chunk.type) {
    case "header":
      putNested(writer, 1, () => {
        putNested(writer, 1, () => putHello(writer, chunk.hello));
        putText(writer, 2, chunk.group);
        putNested(writer, 3, () => putMessage(writer, chunk.message));
        putInteger(writer, 4, chunk.bytes);
      });
      break;
    case "data":
      putInteger(writer, 2, chunk.offset);
      putBytes(writer, 3, chunk.data);
      break;
    case "end":
      putBytes(writer, 4, chunk.sha256);
      break;
    default:
      unreachable(chunk);
  }
  return writer.finish();
}

/** Reverses {@linkcode encodeSnapshotChunk}. Throws `MALFORMED`. */
export function decodeSnapshotChunk(bytes: Uint8Array): SnapshotChunk {
  const fields = new Fields("SnapshotChunk", plain(bytes));
  const found: SnapshotChunk[] = [];
  let offset = 0;
  let data: Uint8Array | null = null;
  while (fields.next()) {
    if (fields.number === 1) found.push(readHeader(fields.nested("Header")));
    else if (fields.number === 2) offset = fields.integer();
    else if (fields.number === 3) data = fields.bytes();
    else if (fields.number === 4) {
      found.push({ type: "end", sha256: readChecksum(fields) });
    } else fields.skip();
  }
  if (data !== null) found.push({ type: "data", offset, data });
  return theOnly("SnapshotChunk", found);
}

/** One reply to the sender of a snapshot. */
export function encodeSnapshotReply(reply: SnapshotReply): Uint8Array {
  const writer = newWriter();
  if (reply.type === "welcome") {
    putNested(writer, 1, () => putHello(writer, reply.hello));
  } else {
    putInteger(writer, 2, reply.bytes);
    putBoolean(writer, 3, reply.done);
  }
  return writer.finish();
}

/** Reverses {@linkcode encodeSnapshotReply}. Throws `MALFORMED`. */
export function decodeSnapshotReply(encoded: Uint8Array): SnapshotReply {
  const fields = new Fields("SnapshotReply", plain(encoded));
  let hello: Hello | null = null;
  let bytes = 0;
  let done = false;
  while (fields.next()) {
    if (fields.number === 1) hello = readHello(fields.nested("Hello"));
    else if (fields.number === 2) bytes = fields.integer();
    else if (fields.number === 3) done = fields.boolean();
    else fields.skip();
  }
  if (hello !== null) return { type: "welcome", hello };
  return { type: "written", bytes, done };
}

function putHello(writer: Writer, hello: Hello): void {
  putInteger(writer, 1, hello.protocolVersion);
  putText(writer, 2, hello.clusterName);
  putText(writer, 3, hello.fingerprint);
  putText(writer, 4, hello.clusterId);
  putText(writer, 5, hello.nodeId);
  putText(writer, 6, hello.memberId);
  putText(writer, 7, hello.incarnation);
  putText(writer, 8, hello.softwareVersion);
  putText(writer, 9, hello.address);
}

function readHello(fields: Fields): Hello {
  let protocolVersion = 0;
  const texts = ["", "", "", "", "", "", "", ""];
  while (fields.next()) {
    const { number } = fields;
    if (number === 1) protocolVersion = fields.integer();
    else if (number <= 9) texts[number - 2] = fields.text();
    else fields.skip();
  }
  const [
    clusterName = "",
    fingerprint = "",
    clusterId = "",
    nodeId = "",
    memberId = "",
    incarnation = "",
    softwareVersion = "",
    address = "",
  ] = texts;
  return {
    protocolVersion,
    clusterName,
    fingerprint,
    clusterId,
    nodeId,
    memberId,
    incarnation,
    softwareVersion,
    address,
  };
}

function readHeader(fields: Fields): SnapshotChunk {
  let hello: Hello | null = null;
  let group = "";
  let message: Message | null = null;
  let bytes = 0;
  while (fields.next()) {
    if (fields.number === 1) hello = readHello(fields.nested("Hello"));
    else if (fields.number === 2) group = fields.text();
    else if (fields.number === 3) {
      message = readMessage(fields.nested("Message"));
    } else if (fields.number === 4) bytes = fields.integer();
    else fields.skip();
  }
  if (hello === null) malformed("Snapshot's header does not say who sends it");
  if (message?.type !== "snapshot") {
    malformed("Snapshot's header has no snapshot message");
  }
  return { type: "header", hello, group, message, bytes };
}

function readChecksum(fields: Fields): Uint8Array {
  const sha256 = fields.bytes();
  if (sha256.length !== CHECKSUM_BYTES) {
    malformed(
      `Snapshot's checksum has ${sha256.length} bytes, not ${CHECKSUM_BYTES}`,
    );
  }
  return sha256;
}

/** The same bytes without Buffer's methods, whose `slice` means something else than Uint8Array's. */
function plain(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function theOnly<Kind>(name: string, found: readonly Kind[]): Kind {
  const [only] = found;
  if (only === undefined || found.length !== 1) {
    malformed(`${name} must hold one kind of thing, not ${found.length}`);
  }
  return only;
}

function malformed(what: string): never {
  throw new DkvError("MALFORMED", what);
}
