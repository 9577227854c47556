/**
 * Messages between replicas as bytes (`Envelope` and `Message` of proto/peer.proto): written into
 * frames and read from them by `frame.ts`, by the rules that stand there.
 *
 * @module
 */

import type {
  Configuration,
  ConfigurationChange,
  Entry,
  MemberId,
  Message,
  Place,
  SnapshotMeta,
} from "./message.ts";
import { DkvError, unreachable } from "./errors.ts";
import {
  putConfiguration,
  putEntry,
  putPlaces,
  readConfiguration,
  readEntry,
  readPlace,
} from "./entry.ts";
import {
  type Fields,
  putBoolean,
  putBytes,
  putElement,
  putInteger,
  putNested,
  putText,
  putTexts,
  type Writer,
} from "./fields.ts";

/** One message of one group. */
export interface Envelope {
  readonly group: string;
  readonly message: Message;
}

/** About how many bytes a message takes in a frame; never much less than it does. */
export function messageBytes(message: Message): number {
  let bytes = 64;
  if (message.type === "append") {
    for (const entry of message.entries) {
      bytes += 32 + (entry.type === "batch" ? entry.data.length : 1024);
    }
  } else if (message.type === "forward") {
    for (const { data } of message.commands) bytes += 16 + data.length;
  } else if (message.type === "forwardRefused") {
    bytes += 8 * message.ids.length;
  }
  return bytes;
}

/** Writes the fields of an `Envelope`. */
export function putEnvelope(writer: Writer, envelope: Envelope): void {
  putText(writer, 1, envelope.group);
  putNested(writer, 2, () => putMessage(writer, envelope.message));
}

/** Reads an `Envelope`. */
export function readEnvelope(fields: Fields): Envelope {
  let group = "";
  let message: Message | null = null;
  while (fields.next()) {
    if (fields.number === 1) group = fields.text();
    else if (fields.number === 2) {
      message = readMessage(fields.nested("Message"));
    } else fields.skip();
  }
  if (message === null) malformed("Envelope has no message");
  return { group, message };
}

/** The field number of each type of message in `Message.body`. */
const BODY = {
  append: 4,
  appendReply: 5,
  appendReject: 6,
  heartbeat: 7,
  heartbeatReply: 8,
  vote: 9,
  voteReply: 10,
  timeoutNow: 11,
  readIndex: 12,
  readIndexReply: 13,
  snapshot: 14,
  forward: 15,
  forwardRefused: 16,
  transferLeadership: 17,
  configure: 18,
} as const satisfies Record<Message["type"], number>;

const BODY_TYPES: ReadonlyMap<number, Message["type"]> = new Map(
  Object.entries(BODY).map((
    [type, field],
  ) => [field, type as keyof typeof BODY]),
);

/** Writes the fields of a `Message`. */
export function putMessage(writer: Writer, message: Message): void {
  putText(writer, 1, message.from);
  putText(writer, 2, message.to);
  putInteger(writer, 3, message.term);
  putNested(writer, BODY[message.type], () => putBody(writer, message));
}

function putBody(writer: Writer, message: Message): void {
  switch (message.type) {
    case "append":
      putInteger(writer, 1, message.previousIndex);
      putInteger(writer, 2, message.previousTerm);
      for (const entry of message.entries) {
        putNested(writer, 3, () => putEntry(writer, entry));
      }
      return putInteger(writer, 4, message.commit);
    case "appendReply":
      putInteger(writer, 1, message.index);
      return putBoolean(writer, 2, message.awaitsCommit ?? false);
    case "appendReject":
      putInteger(writer, 1, message.index);
      putInteger(writer, 2, message.hintIndex);
      putInteger(writer, 3, message.hintTerm);
      return putInteger(writer, 4, message.lastIndex);
    case "heartbeat":
      putInteger(writer, 1, message.commit);
      return putInteger(writer, 2, message.readRound);
    case "heartbeatReply":
      return putInteger(writer, 1, message.readRound);
    case "vote":
      putBoolean(writer, 1, message.preVote);
      putInteger(writer, 2, message.lastIndex);
      putInteger(writer, 3, message.lastTerm);
      return putBoolean(writer, 4, message.transfer);
    case "voteReply":
      putBoolean(writer, 1, message.preVote);
      return putBoolean(writer, 2, message.granted);
    case "timeoutNow":
      return;
    case "readIndex":
      return putInteger(writer, 1, message.id);
    case "readIndexReply":
      putInteger(writer, 1, message.id);
      if (message.index !== null) putElement(writer, 2, message.index);
      return;
    case "snapshot":
      return putSnapshotMeta(writer, message.meta);
    case "forward":
      return putForward(writer, message);
    case "forwardRefused":
      putInteger(writer, 1, message.origin);
      for (const id of message.ids) putElement(writer, 2, id);
      return putText(writer, 3, message.code);
    case "transferLeadership":
      return putTexts(
        writer,
        1,
        message.target === null ? [] : [message.target],
      );
    case "configure":
      return putChange(writer, message.change);
    default:
      unreachable(message);
  }
}

function putSnapshotMeta(writer: Writer, meta: SnapshotMeta): void {
  putInteger(writer, 1, meta.index);
  putInteger(writer, 2, meta.term);
  putNested(writer, 3, () => putConfiguration(writer, meta.configuration));
}

/** The first fields of a `Configure`, each a list of members. */
const CHANGE_PARTS = [
  "addLearners",
  "hold",
  "promote",
  "demote",
  "remove",
] as const satisfies readonly (keyof ConfigurationChange)[];
/** The field behind them. */
const CHANGE_PLACES = CHANGE_PARTS.length + 1;

function putChange(writer: Writer, change: ConfigurationChange): void {
  for (const [at, part] of CHANGE_PARTS.entries()) {
    putTexts(writer, at + 1, change[part] ?? []);
  }
  putPlaces(writer, CHANGE_PLACES, change.places ?? []);
}

function readChange(fields: Fields): ConfigurationChange {
  const lists = CHANGE_PARTS.map((): MemberId[] => []);
  const places: Place[] = [];
  while (fields.next()) {
    const list = lists[fields.number - 1];
    if (list !== undefined) list.push(fields.text());
    else if (fields.number === CHANGE_PLACES) {
      places.push(readPlace(fields.nested("Place")));
    } else fields.skip();
  }
  const parts = Object.fromEntries(
    CHANGE_PARTS.map((part, at) => [part, lists[at] ?? []]),
  );
  return { ...parts, ...(places.length === 0 ? {} : { places }) };
}

function putForward(
  writer: Writer,
  message: Message & { type: "forward" },
): void {
  putInteger(writer, 1, message.origin);
  putInteger(writer, 2, message.settledBelow);
  for (const { id, data } of message.commands) {
    putNested(writer, 3, () => {
      putInteger(writer, 1, id);
      putBytes(writer, 2, data);
    });
  }
}

/** What all messages have. */
interface Head {
  readonly from: string;
  readonly to: string;
  readonly term: number;
}

/** Reads a `Message`. */
export function readMessage(fields: Fields): Message {
  let from = "";
  let to = "";
  let term = 0;
  let type: Message["type"] | undefined;
  let body: Fields | null = null;
  while (fields.next()) {
    if (fields.number === 1) from = fields.text();
    else if (fields.number === 2) to = fields.text();
    else if (fields.number === 3) term = fields.integer();
    else if (BODY_TYPES.has(fields.number)) {
      type = BODY_TYPES.get(fields.number);
      body = fields.nested(`Message of type ${type}`);
    } else fields.skip();
  }
  if (type === undefined || body === null) {
    malformed("Message is of no known type");
  }
  return readBody(type, { head: { from, to, term }, body });
}

function readBody(
  type: Message["type"],
  { head, body }: { head: Head; body: Fields },
): Message {
  switch (type) {
    case "append":
      return readAppend(head, body);
    case "snapshot":
      return { ...head, type, meta: readSnapshotMeta(body) };
    case "forward":
      return readForward(head, body);
    case "forwardRefused":
      return readForwardRefused(head, body);
    case "transferLeadership":
      return { ...head, type, target: readTarget(body) };
    case "configure":
      return { ...head, type, change: readChange(body) };
    case "appendReply":
    case "appendReject":
    case "heartbeat":
    case "heartbeatReply":
    case "vote":
    case "voteReply":
    case "timeoutNow":
    case "readIndex":
    case "readIndexReply":
      return readPlain(type, { head, values: readIntegers(body) });
    default:
      unreachable(type);
  }
}

/** The messages that hold numbers only; `values` has them by the number of their field. */
function readPlain(
  type: Exclude<
    Message["type"],
    | "append"
    | "snapshot"
    | "forward"
    | "forwardRefused"
    | "transferLeadership"
    | "configure"
  >,
  { head, values }: { head: Head; values: readonly (number | undefined)[] },
): Message {
  const [, first = 0, second = 0, third = 0, fourth = 0] = values;
  switch (type) {
    case "appendReply":
      return second === 0
        ? { ...head, type, index: first }
        : { ...head, type, index: first, awaitsCommit: true };
    case "appendReject":
      return {
        ...head,
        type,
        index: first,
        hintIndex: second,
        hintTerm: third,
        lastIndex: fourth,
      };
    case "heartbeat":
      return { ...head, type, commit: first, readRound: second };
    case "heartbeatReply":
      return { ...head, type, readRound: first };
    case "vote":
      return {
        ...head,
        type,
        preVote: first !== 0,
        lastIndex: second,
        lastTerm: third,
        transfer: fourth !== 0,
      };
    case "voteReply":
      return { ...head, type, preVote: first !== 0, granted: second !== 0 };
    case "timeoutNow":
      return { ...head, type };
    case "readIndex":
      return { ...head, type, id: first };
    case "readIndexReply":
      return { ...head, type, id: first, index: values[2] ?? null };
    default:
      unreachable(type);
  }
}

function readIntegers(fields: Fields): (number | undefined)[] {
  const values: (number | undefined)[] = [undefined];
  while (fields.next()) {
    if (fields.number <= 4) values[fields.number] = fields.integer();
    else fields.skip();
  }
  return values;
}

function readAppend(head: Head, fields: Fields): Message {
  const entries: Entry[] = [];
  let previousIndex = 0;
  let previousTerm = 0;
  let commit = 0;
  while (fields.next()) {
    if (fields.number === 1) previousIndex = fields.integer();
    else if (fields.number === 2) previousTerm = fields.integer();
    else if (fields.number === 3) {
      entries.push(readEntry(fields.nested("Entry")));
    } else if (fields.number === 4) commit = fields.integer();
    else fields.skip();
  }
  for (const [i, entry] of entries.entries()) {
    if (entry.index !== previousIndex + 1 + i) {
      malformed(
        `Append has entry ${entry.index} where ${
          previousIndex + 1 + i
        } belongs`,
      );
    }
  }
  return {
    ...head,
    type: "append",
    previousIndex,
    previousTerm,
    entries,
    commit,
  };
}

function readSnapshotMeta(fields: Fields): SnapshotMeta {
  let index = 0;
  let term = 0;
  let configuration: Configuration | null = null;
  while (fields.next()) {
    if (fields.number === 1) index = fields.integer();
    else if (fields.number === 2) term = fields.integer();
    else if (fields.number === 3) {
      configuration = readConfiguration(fields.nested("Configuration"));
    } else fields.skip();
  }
  if (configuration === null) malformed("SnapshotMeta has no configuration");
  return { index, term, configuration };
}

function readForward(head: Head, fields: Fields): Message {
  const commands: { id: number; data: Uint8Array }[] = [];
  let origin = 0;
  let settledBelow = 0;
  while (fields.next()) {
    if (fields.number === 1) origin = fields.integer();
    else if (fields.number === 2) settledBelow = fields.integer();
    else if (fields.number === 3) {
      commands.push(readCommand(fields.nested("ForwardedCommand")));
    } else fields.skip();
  }
  return { ...head, type: "forward", origin, settledBelow, commands };
}

function readCommand(fields: Fields): { id: number; data: Uint8Array } {
  let id = 0;
  let data: Uint8Array = new Uint8Array();
  while (fields.next()) {
    if (fields.number === 1) id = fields.integer();
    else if (fields.number === 2) data = fields.bytes();
    else fields.skip();
  }
  return { id, data };
}

function readForwardRefused(head: Head, fields: Fields): Message {
  const ids: number[] = [];
  let origin = 0;
  let code = "";
  while (fields.next()) {
    if (fields.number === 1) origin = fields.integer();
    else if (fields.number === 2) fields.integers(ids);
    else if (fields.number === 3) code = fields.text();
    else fields.skip();
  }
  if (code !== "OVERLOADED" && code !== "DISK_FULL") {
    malformed(`ForwardRefused has an unknown code: ${JSON.stringify(code)}`);
  }
  return { ...head, type: "forwardRefused", origin, ids, code };
}

function readTarget(fields: Fields): string | null {
  let target: string | null = null;
  while (fields.next()) {
    if (fields.number === 1) target = fields.text();
    else fields.skip();
  }
  return target;
}

function malformed(what: string): never {
  throw new DkvError("MALFORMED", what);
}
