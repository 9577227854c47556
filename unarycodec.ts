/**
 * The messages of unary puts and gets as bytes: plain ones are read and written by hand, as on the
 * `Pipeline` stream; whatever says more goes through the general codec. Used by `grpc.ts`.
 *
 * @module
 */

import type { Buffer } from "node:buffer";
import type { WireHeader } from "./call.ts";
import type { fromEntry, fromPut, WireGet, WirePut } from "./convert.ts";
import {
  messageOf,
  orNull,
  readPlainGet,
  readPlainPut,
  writeHeader,
} from "./plaincodec.ts";
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
    decode: (bytes) => orNull(readPut, bytes) ?? general.decode(bytes),
    encode: (answer) => {
      if (answer.previous !== null) return general.encode(answer);
      pen.reset();
      writeHeader(pen, answer.header);
      pen.int64(2, answer.revision);
      pen.int64(3, answer.version);
      return messageOf(pen);
    },
  };
}

/** Of `Get`. @throws if the bytes are no `GetRequest`. */
export function getCodec(
  general: GeneralUnaryCodec<WireGet, GetAnswer>,
): GeneralUnaryCodec<WireGet, GetAnswer> {
  return {
    decode: (bytes) => orNull(readGet, bytes) ?? general.decode(bytes),
    encode: (answer) => {
      const { header, entry } = answer;
      if (entry !== null && entry.lease !== 0) return general.encode(answer);
      pen.reset();
      writeHeader(pen, header);
      if (entry !== null) writeEntry(entry);
      return messageOf(pen);
    },
  };
}

/** A plain put, as proto-loader would read it. */
function readPut(bytes: Buffer): WirePut | null {
  const put = readPlainPut(new Reader(bytes));
  if (put === null) return null;
  const { key, value } = put;
  return { key, value, lease: "0", returnPrevious: false, writeId: null };
}

function readGet(bytes: Buffer): WireGet | null {
  return readPlainGet(new Reader(bytes));
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
