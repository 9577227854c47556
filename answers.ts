/**
 * What the store answers: entries and results as a program sees them, and how they are read from
 * the messages of `proto/kvstore.proto`. Used by `client.ts`, `requests.ts`, `listing.ts` and
 * `subscription.ts`.
 *
 * Read by hand, because this is the path of every operation: a general decoder makes an object for
 * each 64-bit number. Unknown fields are skipped, so a newer node may say more.
 *
 * @module
 */

import { DkvError, isErrorCode } from "./errors.ts";
import { FieldReader, malformed } from "./fieldreader.ts";

/**
 * A stored key and value.
 *
 * ```ts
 * import { connect } from "./client.ts";
 *
 * await using kv = await connect("127.0.0.1:50051");
 * await kv.put("user/ann", JSON.stringify({ seats: 2 }));
 * const entry = await kv.get("user/ann");
 * const { seats } = entry?.json() as { seats: number };
 * console.log(entry?.key, seats, entry?.modRevision);
 * ```
 */
export class Entry {
  /** The key as it is stored. */
  readonly keyBytes: Uint8Array;
  /** Empty when only keys were asked for. */
  readonly value: Uint8Array;
  /** The revision of the put that created the key (since it last did not exist). */
  readonly createRevision: number;
  /** The revision of the last put. */
  readonly modRevision: number;
  /** How many puts since creation: 1 for a new key. */
  readonly version: number;
  /** The lease the key is attached to; 0n means none. */
  readonly lease: bigint;
  #key: string | undefined;

  /** From its parts, as a node told them. */
  constructor(fields: EntryFields) {
    this.keyBytes = fields.keyBytes;
    this.value = fields.value;
    this.createRevision = fields.createRevision;
    this.modRevision = fields.modRevision;
    this.version = fields.version;
    this.lease = fields.lease;
  }

  /** The key as text; bytes that are no UTF-8 show as U+FFFD, see {@linkcode Entry.keyBytes}. */
  get key(): string {
    return this.#key ??= decoder.decode(this.keyBytes);
  }

  /** The value as text, read as UTF-8. */
  text(): string {
    return decoder.decode(this.value);
  }

  /**
   * The value as JSON.
   *
   * @throws {SyntaxError} if it is none.
   */
  json(): unknown {
    return JSON.parse(this.text());
  }
}

/** What an {@linkcode Entry} is made of. */
export type EntryFields = Pick<
  Entry,
  | "keyBytes"
  | "value"
  | "createRevision"
  | "modRevision"
  | "version"
  | "lease"
>;

/** What a put did. */
export interface PutResult {
  /** The revision of this put. */
  readonly revision: number;
  /** The key's version after it. */
  readonly version: number;
  /** The entry that was replaced, if asked for and if there was one. */
  readonly previous: Entry | null;
}

/** What a delete did. */
export interface DeleteResult {
  /** The revision of this delete, or of the store if nothing was deleted. */
  readonly revision: number;
  /** How many keys were deleted. */
  readonly deleted: number;
  /** The deleted entries, if asked for. */
  readonly previous: readonly Entry[];
}

/** What a modification did. */
export interface ModifyResult {
  /** The revision of its transaction. */
  readonly revision: number;
  /** The key's version after it. */
  readonly version: number;
  /** The key's value after it: of a decimal number the text, of a `uint64le` 8 bytes. */
  readonly value: Uint8Array;
  /** The entry that was replaced, if asked for and if there was one. */
  readonly previous: Entry | null;
}

/** What one step of a transaction did. */
export type OperationResult =
  | { readonly type: "put" } & PutResult
  | { readonly type: "get"; readonly entry: Entry | null }
  | { readonly type: "delete" } & DeleteResult
  | {
    readonly type: "list";
    readonly entries: readonly Entry[];
    /** True if the limit left keys out. */
    readonly more: boolean;
  }
  | { readonly type: "modify" } & ModifyResult;

/** What a transaction did. */
export interface TransactResult {
  /** The revision of the transaction, or of the store if it changed nothing. */
  readonly revision: number;
  /** True if every comparison held. */
  readonly succeeded: boolean;
  /**
   * One for each operation that ran, in order. Empty if the answer got lost, and the results (more
   * than about 1 KiB) were too big for the store to remember until it was asked again.
   */
  readonly results: readonly OperationResult[];
}

/** One page of a list. */
export interface Page {
  readonly revision: number;
  /** How many entries it has. */
  readonly count: number;
  readonly more: boolean;
  /**
   * Reads them one by one: so each is garbage as soon as it has been looked at, which costs next to
   * nothing, whereas a page full of them would live long enough to be expensive.
   */
  readonly entries: () => Iterable<Entry>;
}

/** One change of one key. */
export interface Change {
  /** What happened to the key; a lease that ends deletes. */
  readonly type: "put" | "delete";
  /** The key as text; bytes that are no UTF-8 show as U+FFFD. */
  readonly key: string;
  /** The key as it is stored. */
  readonly keyBytes: Uint8Array;
  /** The revision that changed the key. */
  readonly revision: number;
  /** The entry after the change; null for a delete. */
  readonly entry: Entry | null;
  /** The entry before the change, if asked for, if there was one and if it was not compacted. */
  readonly previous: Entry | null;
}

/** A `WatchResponse`. */
export type WatchAnswer =
  | { type: "created"; fromRevision: number }
  | { type: "events"; changes: Change[]; throughRevision: number }
  | { type: "cancelled"; error: DkvError | null; compactRevision: number };

/** A node as it describes itself. */
export interface NodeStatus {
  /** Its id in the configuration. */
  readonly nodeId: string;
  /** The name of its cluster. */
  readonly cluster: string;
  /** leader, follower, candidate, pre-candidate or learner. */
  readonly role: string;
  /** The node that leads, as far as this node knows; empty if none. */
  readonly leader: string;
  /** Raft's term, as far as this node knows. */
  readonly term: number;
  /** The revision up to which it has applied. */
  readonly revision: number;
  /** Reads and watches below this revision are refused. */
  readonly compactRevision: number;
  /** The last entry of the log that it knows to be at a majority. */
  readonly commitIndex: number;
  /** The last entry of the log that its state holds. */
  readonly appliedIndex: number;
  /** The first entry that its log still has. */
  readonly firstIndex: number;
  /** The last entry that its log has. */
  readonly lastIndex: number;
  /** Equal on all nodes at an equal applied index. */
  readonly stateHash: string;
  /** How many keys exist. */
  readonly keys: number;
  /** The size of its files. */
  readonly diskBytes: number;
  /** The version of dkv that it runs. */
  readonly version: string;
  /** How long it has been running. */
  readonly uptimeMs: number;
  /** Why the node refuses writes at the moment; empty if it does not. */
  readonly writeRefusal: string;
  /** All members of the cluster, this node among them. */
  readonly members: readonly MemberStatus[];
}

/** A member as the answering node sees it. */
export interface MemberStatus {
  /** The node's id, and after a lost disk the name of its new life: `node2/7f3a…`. */
  readonly memberId: string;
  /** Its id in the configuration. */
  readonly nodeId: string;
  /** Where the others reach it. */
  readonly address: string;
  /** voter or learner. */
  readonly suffrage: string;
  /** On the leader: the last index known to be on that member's disk. */
  readonly matchIndex: number;
  /** On the leader: probe, replicate or snapshot. */
  readonly progress: string;
  /** True if the answering node has a working connection to the member. */
  readonly connected: boolean;
}

/** What an operation of a pipeline came to: the type says which operation it was. */
export type PipelineAnswer =
  | PutResult
  | DeleteResult
  | TransactResult
  | { readonly entry: Entry | null };

const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
const NO_BYTES = new Uint8Array(0);

/** Reads a `PipelineResponse`, hands over each result, and returns the leader's node id, or "". */
export function readPipelineResponse(
  bytes: Uint8Array,
  settle: (id: number, answer: PipelineAnswer | DkvError) => void,
): string {
  const reader = new FieldReader(bytes);
  let leader = "";
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === MESSAGE_1) {
      leader = reader.message(readLeader);
      continue;
    }
    if (tag !== MESSAGE_2) {
      reader.skip(tag);
      continue;
    }
    const outer = reader.enter();
    let id = 0;
    let answer: PipelineAnswer | DkvError | null = null;
    for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
      if (tag === NUMBER_1) id = reader.number();
      else if (tag === MESSAGE_2) answer = reader.message(readError);
      else if (tag === MESSAGE_3) answer = reader.message(readPut);
      else if (tag === MESSAGE_4) answer = reader.message(readGet);
      else if (tag === MESSAGE_5) answer = reader.message(readDelete);
      else if (tag === MESSAGE_6) answer = reader.message(readTransact);
      else reader.skip(tag);
    }
    reader.leave(outer);
    settle(id, answer ?? malformed("an answer is empty"));
  }
  return leader;
}

/** Of a `Header`, who leads. */
function readLeader(reader: FieldReader): string {
  let leader = "";
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === MESSAGE_3) leader = decoder.decode(reader.bytes());
    else reader.skip(tag);
  }
  return leader;
}

/** Reads a `ListResponse`. */
export function readListResponse(bytes: Uint8Array): Page {
  const reader = new FieldReader(bytes);
  let revision = 0;
  let count = 0;
  let more = false;
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === NUMBER_2) revision = reader.number();
    else if (tag === NUMBER_4) more = reader.number() !== 0;
    else {
      if (tag === MESSAGE_3) count++;
      reader.skip(tag);
    }
  }
  return { revision, count, more, entries: () => readEntries(bytes) };
}

function* readEntries(bytes: Uint8Array): Generator<Entry, void, undefined> {
  const reader = new FieldReader(bytes);
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === MESSAGE_3) yield reader.message(readEntry);
    else reader.skip(tag);
  }
}

/** Reads a `WatchResponse`; null if it is of a kind that this client does not know. */
export function readWatchResponse(bytes: Uint8Array): WatchAnswer | null {
  const reader = new FieldReader(bytes);
  let answer: WatchAnswer | null = null;
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === MESSAGE_3) answer = reader.message(readCreated);
    else if (tag === MESSAGE_4) answer = reader.message(readEvents);
    else if (tag === MESSAGE_5) answer = reader.message(readCancelled);
    else reader.skip(tag);
  }
  return answer;
}

/** A `StatusResponse`, as proto-loader gives it. */
export function toStatus(answer: Record<string, unknown>): NodeStatus {
  const header = answer["header"] as Record<string, unknown> | null;
  const number = (name: string) => Number(answer[name]);
  const text = (name: string) => String(answer[name]);
  const members = answer["members"] as Record<string, unknown>[];
  return {
    nodeId: String(header?.["nodeId"] ?? ""),
    revision: Number(header?.["revision"] ?? 0),
    cluster: text("cluster"),
    role: text("role"),
    leader: text("leader"),
    term: number("term"),
    compactRevision: number("compactRevision"),
    commitIndex: number("commitIndex"),
    appliedIndex: number("appliedIndex"),
    firstIndex: number("firstIndex"),
    lastIndex: number("lastIndex"),
    stateHash: text("stateHash"),
    keys: number("keys"),
    diskBytes: number("diskBytes"),
    version: text("version"),
    uptimeMs: number("uptimeMs"),
    writeRefusal: text("writeRefusal"),
    members: members.map((member) => ({
      memberId: String(member["memberId"]),
      nodeId: String(member["nodeId"]),
      address: String(member["address"]),
      suffrage: String(member["suffrage"]),
      matchIndex: Number(member["matchIndex"]),
      progress: String(member["progress"]),
      connected: Boolean(member["connected"]),
    })),
  };
}

/** An error that came over the wire. */
export function wireError(code: string, message: string): DkvError {
  if (isErrorCode(code)) return new DkvError(code, message);
  return new DkvError("INTERNAL", `${message} (unknown code ${code})`);
}

// ------------------------------------------------------------------ messages

const NUMBER_1 = 1 << 3;
const NUMBER_2 = 2 << 3;
const NUMBER_3 = 3 << 3;
const NUMBER_4 = 4 << 3;
const NUMBER_5 = 5 << 3;
const NUMBER_6 = 6 << 3;
const MESSAGE_1 = 1 << 3 | 2;
const MESSAGE_2 = 2 << 3 | 2;
const MESSAGE_3 = 3 << 3 | 2;
const MESSAGE_4 = 4 << 3 | 2;
const MESSAGE_5 = 5 << 3 | 2;
const MESSAGE_6 = 6 << 3 | 2;

function readError(reader: FieldReader): DkvError {
  let code = "";
  let message = "";
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === MESSAGE_1) code = decoder.decode(reader.bytes());
    else if (tag === MESSAGE_2) message = decoder.decode(reader.bytes());
    else reader.skip(tag);
  }
  return wireError(code, message);
}

function readPut(reader: FieldReader): PutResult {
  let revision = 0;
  let version = 0;
  let previous: Entry | null = null;
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === NUMBER_2) revision = reader.number();
    else if (tag === NUMBER_3) version = reader.number();
    else if (tag === MESSAGE_4) previous = reader.message(readEntry);
    else reader.skip(tag);
  }
  return { revision, version, previous };
}

function readGet(reader: FieldReader): { entry: Entry | null } {
  let entry: Entry | null = null;
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === MESSAGE_2) entry = reader.message(readEntry);
    else reader.skip(tag);
  }
  return { entry };
}

function readDelete(reader: FieldReader): DeleteResult {
  let revision = 0;
  let deleted = 0;
  const previous: Entry[] = [];
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === NUMBER_2) revision = reader.number();
    else if (tag === NUMBER_3) deleted = reader.number();
    else if (tag === MESSAGE_4) previous.push(reader.message(readEntry));
    else reader.skip(tag);
  }
  return { revision, deleted, previous };
}

function readTransact(reader: FieldReader): TransactResult {
  let revision = 0;
  let succeeded = false;
  const results: OperationResult[] = [];
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === NUMBER_2) revision = reader.number();
    else if (tag === NUMBER_3) succeeded = reader.number() !== 0;
    else if (tag === MESSAGE_4) {
      results.push(reader.message(readOperationResult));
    } else reader.skip(tag);
  }
  return { revision, succeeded, results };
}

function readOperationResult(reader: FieldReader): OperationResult {
  let result: OperationResult | null = null;
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === MESSAGE_1) {
      result = { type: "put", ...reader.message(readPut) };
    } else if (tag === MESSAGE_2) {
      result = { type: "get", ...reader.message(readGet) };
    } else if (tag === MESSAGE_3) {
      result = { type: "delete", ...reader.message(readDelete) };
    } else if (tag === MESSAGE_4) {
      result = reader.message(readListResult);
    } else if (tag === MESSAGE_5) {
      result = { type: "modify", ...reader.message(readModify) };
    } else reader.skip(tag);
  }
  if (result === null) throw malformed("a step of a transaction is empty");
  return result;
}

function readModify(reader: FieldReader): ModifyResult {
  let revision = 0;
  let version = 0;
  let value: Uint8Array = NO_BYTES;
  let previous: Entry | null = null;
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === NUMBER_2) revision = reader.number();
    else if (tag === NUMBER_3) version = reader.number();
    else if (tag === MESSAGE_4) value = reader.copy();
    else if (tag === MESSAGE_5) previous = reader.message(readEntry);
    else reader.skip(tag);
  }
  return { revision, version, value, previous };
}

function readListResult(
  reader: FieldReader,
): Extract<OperationResult, { type: "list" }> {
  let more = false;
  const entries: Entry[] = [];
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === MESSAGE_3) entries.push(reader.message(readEntry));
    else if (tag === NUMBER_4) more = reader.number() !== 0;
    else reader.skip(tag);
  }
  return { type: "list", entries, more };
}

function readEntry(reader: FieldReader): Entry {
  let keyBytes: Uint8Array = NO_BYTES;
  let value: Uint8Array = NO_BYTES;
  let createRevision = 0;
  let modRevision = 0;
  let version = 0;
  let lease = 0n;
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    // Copies: an entry that is kept must not keep the whole message.
    if (tag === MESSAGE_1) keyBytes = reader.copy();
    else if (tag === MESSAGE_2) value = reader.copy();
    else if (tag === NUMBER_3) createRevision = reader.number();
    else if (tag === NUMBER_4) modRevision = reader.number();
    else if (tag === NUMBER_5) version = reader.number();
    else if (tag === NUMBER_6) lease = reader.bigint();
    else reader.skip(tag);
  }
  return new Entry({
    keyBytes,
    value,
    createRevision,
    modRevision,
    version,
    lease,
  });
}

function readCreated(reader: FieldReader): WatchAnswer {
  let fromRevision = 0;
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === NUMBER_1) fromRevision = reader.number();
    else reader.skip(tag);
  }
  return { type: "created", fromRevision };
}

function readEvents(reader: FieldReader): WatchAnswer {
  const changes: Change[] = [];
  let throughRevision = 0;
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === MESSAGE_1) changes.push(reader.message(readChange));
    else if (tag === NUMBER_2) throughRevision = reader.number();
    else reader.skip(tag);
  }
  return { type: "events", changes, throughRevision };
}

function readChange(reader: FieldReader): Change {
  let deleted = false;
  let entry: Entry | null = null;
  let previous: Entry | null = null;
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === NUMBER_1) deleted = reader.number() !== 0;
    else if (tag === MESSAGE_2) entry = reader.message(readEntry);
    else if (tag === MESSAGE_3) previous = reader.message(readEntry);
    else reader.skip(tag);
  }
  if (entry === null) throw malformed("a change is empty");
  return {
    type: deleted ? "delete" : "put",
    key: entry.key,
    keyBytes: entry.keyBytes,
    revision: entry.modRevision,
    entry: deleted ? null : entry,
    previous,
  };
}

function readCancelled(reader: FieldReader): WatchAnswer {
  let error: DkvError | null = null;
  let compactRevision = 0;
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === MESSAGE_1) error = reader.message(readError);
    else if (tag === NUMBER_2) compactRevision = reader.number();
    else reader.skip(tag);
  }
  return { type: "cancelled", error, compactRevision };
}
