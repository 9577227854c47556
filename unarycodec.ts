/**
 * The messages of unary puts and gets as bytes: plain ones are read and written by hand, as on the
 * `Pipeline` stream; whatever says more goes through the general codec. Used by `grpc.ts`.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import type { WireHeader } from "./call.ts";
import type { fromEntry, fromPut, WireGet, WirePut } from "./convert.ts";
import { DkvError } from "./errors.ts";
import { Pen, Reader } from "./wire.ts";

/** A `PutResponse`. */
export type PutAnswer =
  & { readonly header: WireHeader }
  & ReturnType<
    typeof fromPut
  >;

/** A `GetResponse`. */
export interface GetAnswer {
  readonly header: WireHeader;
  readonly entry: ReturnType<typeof fromEntry> | null;
}

// Tags: a field's number × 8 and its wire type.
const KEY = 1 << 3 | 2;
const PUT_VALUE = 2 << 3 | 2;

const EMPTY: Uint8Array = new Uint8Array(0);

/** What reads and writes everything. */
export interface GeneralUnaryCodec<Request, Answer> {
  decode(bytes: Buffer): Request;
  encode(answer: Answer): Uint8Array;
}

const pen = new Pen();

/** Of `Put`. @throws if the bytes are no `PutRequest`. The value is a view of them. */
export function putCodec(
  general: GeneralUnaryCodec<WirePut, PutAnswer>,
): GeneralUnaryCodec<WirePut, PutAnswer> {
  return {
    decode: (bytes) => readPlain(bytes, readPut) ?? general.decode(bytes),
    encode: (answer) => {
      if (answer.previous !== null) return general.encode(answer);
      begin(answer.header);
      pen.int64(2, answer.revision);
      pen.int64(3, answer.version);
      return finish();
    },
  };
}

/** Of `Get`. @throws if the bytes are no `GetRequest`. */
export function getCodec(
  general: GeneralUnaryCodec<WireGet, GetAnswer>,
): GeneralUnaryCodec<WireGet, GetAnswer> {
  return {
    decode: (bytes) => readPlain(bytes, readGet) ?? general.decode(bytes),
    encode: (answer) => {
      const { header, entry } = answer;
      if (entry !== null && entry.lease !== 0) return general.encode(answer);
      begin(header);
      if (entry !== null) writeEntry(entry);
      return finish();
    },
  };
}

/** Null if the bytes say more, or cannot be read. */
function readPlain<Request>(
  bytes: Buffer,
  read: (reader: Reader) => Request | null,
): Request | null {
  try {
    return read(new Reader(bytes));
  } catch (error) {
    if (error instanceof DkvError) return null;
    throw error;
  }
}

function readPut(reader: Reader): WirePut | null {
  let key = "";
  let value = EMPTY;
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === KEY) key = reader.latin1();
    else if (tag === PUT_VALUE) value = reader.bytes();
    else return null;
  }
  return { key, value, lease: "0", returnPrevious: false, writeId: null };
}

function readGet(reader: Reader): WireGet | null {
  let key = "";
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === KEY) key = reader.latin1();
    else return null;
  }
  return { key, revision: 0, serializable: false };
}

function begin(header: WireHeader): void {
  pen.reset();
  const opened = pen.open(1);
  pen.int64(1, header.revision);
  pen.bytes(2, Buffer.from(header.nodeId));
  pen.bytes(3, Buffer.from(header.leader));
  pen.close(opened);
}

function writeEntry(entry: ReturnType<typeof fromEntry>): void {
  const body = pen.open(2);
  pen.bytes(1, entry.key);
  pen.bytes(2, entry.value);
  pen.int64(3, entry.createRevision);
  pen.int64(4, entry.modRevision);
  pen.int64(5, entry.version);
  pen.close(body);
}

function finish(): Buffer {
  const bytes = pen.finish();
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
}
