/**
 * Serves KV Connect, the protocol of `Deno.openKv(url)` and of `npm:@deno/kv`: converts what comes
 * over the wire, calls the service, converts back. Used by `node.ts`.
 *
 * ```text
 *   POST /                    access token    which database, where its data path is, and a token for it
 *   POST /v2/snapshot_read    data token      ranges at one revision
 *   POST /v2/atomic_write     data token      one command in the log
 *   POST /v2/watch            data token      a body without end
 * ```
 *
 * Clients send a write again, without end, after a 5xx or a broken connection, and nothing in it
 * tells that it is the same. So 5xx means that certainly nothing was done; a write whose outcome
 * nobody knows, after a wait much longer than any election, is answered with 409, which ends in an
 * error of the program's call.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import type { Key } from "./batch.ts";
import { toError } from "./call.ts";
import { type Config, type KvLimits, LIMITS } from "./config.ts";
import { type Access, type Database, Databases } from "./databases.ts";
import { ERROR_TABLE } from "./errors.ts";
import { Sweeper } from "./expiry.ts";
import { answer, readBody } from "./http.ts";
import {
  type AtomicWrite,
  type KvEntry,
  readAtomicWrite,
  type ReadRange,
  readSnapshotRead,
  readWatch,
  type WireMutation,
  writeAtomicWrite,
  writeSnapshotRead,
} from "./kvmessages.ts";
import { entryKey, entryPrefixLength } from "./kvspace.ts";
import {
  encodingOf,
  isExpired,
  type KvValue,
  openValue,
  type StoredKvValue,
  versionstampOf,
} from "./kvvalue.ts";
import { watchBody } from "./kvwatch.ts";
import type { MutateRequest, Mutation } from "./mutate.ts";
import type { LogFields } from "./metrics.ts";
import type { Service } from "./service.ts";

/** What a {@linkcode KvConnect} needs of its node. */
export interface KvConnectOptions {
  readonly service: Service;
  readonly nodeId: string;
  readonly config: Config;
  readonly onDefect: (error: unknown) => void;
  readonly log: (text: string, fields: LogFields) => void;
}

/** Newest first. */
const VERSIONS = [3, 2, 1];
const DATA_PATH = "/v2/";
/** Clients that find it near ask again, those that find it past do so without a pause. */
const METADATA_TTL_MS = 24 * 3_600_000;
const METADATA_BYTES_MAX = 16 * 1024;
/** How long a write may wait for its outcome: much longer than an election. */
const WRITE_WAIT_MS = 60_000;
const VERSIONSTAMP_BYTES = 10;
const U64_BYTES = 8;
/** A range ends at a key and one byte more. */
const BOUND_BYTES_MAX = LIMITS.kvKeyBytesMax + 1;

/** What a client did wrong, with its own status. */
class Refused extends Error {
  readonly status: number;

  constructor(status: number, text: string) {
    super(text);
    this.status = status;
  }
}

/** Serves every database of a configuration on one node. */
export class KvConnect {
  readonly #options: KvConnectOptions;
  readonly #limits: KvLimits;
  readonly #databases: Databases;
  readonly #sweeper: Sweeper;

  /** @throws {DkvError} CONFIG_INVALID if a file with tokens cannot be read. */
  constructor(options: KvConnectOptions, limits: KvLimits) {
    this.#options = options;
    this.#limits = limits;
    this.#databases = new Databases(options.config);
    this.#sweeper = new Sweeper({
      ...options,
      databases: this.#databases.list.map(({ name }) => name),
      onError: (error) => void toError(error, options),
    });
  }

  /** Begins to remove what expired. */
  start(): void {
    this.#sweeper.start();
  }

  stop(): void {
    this.#sweeper.stop();
  }

  /** For the HTTP listener. */
  route(request: Request, path: string): Promise<Response> | null {
    const isMetadata = path === "/" && request.method === "POST";
    if (!isMetadata && !path.startsWith(DATA_PATH)) return null;
    const method = path.slice(DATA_PATH.length);
    const isWrite = method === "atomic_write";
    const served = isMetadata
      ? this.#metadata(request)
      : this.#data(request, method);
    return served.catch((error) => this.#refusal(error, isWrite));
  }

  #refusal(thrown: unknown, isWrite: boolean): Response {
    if (thrown instanceof Refused) return answer(thrown.status, thrown.message);
    const error = toError(thrown, this.#options);
    const text = `${error.message} (${error.code})`;
    if (isWrite && !error.noEffect) return answer(409, text);
    // Clients come again after 503 alone.
    const isLater = error.code === "OVERLOADED" ||
      error.code === "REVISION_COMPACTED";
    return answer(isLater ? 503 : ERROR_TABLE[error.code].http, text);
  }

  // ---------------------------------------------------------------- who asks

  async #metadata(request: Request): Promise<Response> {
    const access = this.#databases.opened(bearer(request));
    if (access === null) throw unauthorized();
    const body = await readBody(request, METADATA_BYTES_MAX);
    const supported = supportedVersions(body);
    const version = VERSIONS.find((one) => supported.includes(one));
    if (version === undefined) {
      throw new Refused(400, `Versions 1 to 3 are served, not ${supported}`);
    }
    // Relative, so that clients stay with the address that they have; version 1 has no such thing.
    const url = version === 1 ? new URL("/v2", request.url).href : "./v2";
    const expiresAt = new Date(Date.now() + METADATA_TTL_MS).toISOString();
    const metadata = {
      version,
      databaseId: access.database.id,
      endpoints: [{ url, consistency: "strong" }],
      token: access.dataToken,
      expiresAt,
    };
    const headers = { "content-type": "application/json" };
    return new Response(JSON.stringify(metadata), { headers });
  }

  async #data(request: Request, method: string): Promise<Response> {
    const handlers: Record<string, typeof this.read> = {
      snapshot_read: this.read,
      atomic_write: this.write,
      watch: this.watch,
    };
    const handler = Object.hasOwn(handlers, method)
      ? handlers[method]
      : undefined;
    if (handler === undefined) throw new Refused(404, "There is nothing here");
    if (request.method !== "POST") throw new Refused(405, "POST is served");
    const access = this.#databases.served(bearer(request));
    if (access === null) throw unauthorized();
    checkHeaders(request, access);
    const body = await readBody(request);
    return await handler.call(this, access.database, body);
  }

  // ---------------------------------------------------------------- reads

  async read(database: Database, body: Uint8Array): Promise<Response> {
    const { service } = this.#options;
    const ranges = readSnapshotRead(body);
    this.#checkRanges(ranges);
    await service.ready({ serializable: false, timeoutMs: null });
    const { revision } = service;
    const outputs: KvEntry[][] = [];
    const budget = { bytes: LIMITS.rangeBytesMax };
    for (const range of ranges) {
      const from = { database: database.name, revision, budget };
      outputs.push(await this.#readRange(range, from));
    }
    return protobuf(writeSnapshotRead(outputs));
  }

  #checkRanges(ranges: readonly ReadRange[]): void {
    const { rangesMax, entriesMax } = this.#limits;
    checkCount("ranges", ranges.length, rangesMax);
    let entries = 0;
    for (const { start, end, limit } of ranges) {
      if (limit <= 0) throw new Refused(400, `A range has the limit ${limit}`);
      entries += limit;
      const bytes = Math.max(start.length, end.length);
      checkCount("bytes in the bound of a range", bytes, BOUND_BYTES_MAX);
    }
    checkCount("entries in one read", entries, entriesMax);
  }

  async #readRange(
    { start, end, limit, reverse }: ReadRange,
    { database, revision, budget }: {
      database: string;
      revision: number;
      budget: { bytes: number };
    },
  ): Promise<KvEntry[]> {
    if (start >= end) return [];
    const nowMs = Date.now();
    const prefixLength = entryPrefixLength(database);
    const found: KvEntry[] = [];
    let range = {
      start: entryKey(database, start),
      end: entryKey(database, end),
    };
    while (true) {
      const { entries, more } = this.#options.service.listNow(range, {
        revision,
        limit: limit - found.length,
        keysOnly: false,
        reverse,
        bytesMax: LIMITS.listPageBytes,
      });
      for (const { key, value, modRevision } of entries) {
        const stored = openValue(value);
        if (isExpired(stored, nowMs)) continue;
        budget.bytes -= key.length + value.length;
        found.push({
          key: key.slice(prefixLength),
          ...stored,
          versionstamp: versionstampOf(modRevision),
        });
      }
      const last = entries.at(-1);
      if (!more || found.length === limit || last === undefined) return found;
      if (budget.bytes < 0) {
        const text = `More than ${LIMITS.rangeBytesMax} bytes in one read`;
        throw new Refused(413, `${text}: use a smaller batch size`);
      }
      range = reverse
        ? { start: range.start, end: last.key }
        : { start: `${last.key}\0`, end: range.end };
      // Pages are large, and the node has other things to do.
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  // ---------------------------------------------------------------- writes

  async write(database: Database, body: Uint8Array): Promise<Response> {
    const write = readAtomicWrite(body);
    this.#checkWrite(write);
    const request: MutateRequest = {
      type: "mutate",
      database: database.name,
      nowMs: Date.now(),
      checks: write.checks,
      mutations: write.mutations.map((one) => toMutation(one, this.#limits)),
    };
    const { revision, failedChecks } = await this.#options.service.mutate(
      request,
      { timeoutMs: WRITE_WAIT_MS },
    );
    return protobuf(writeAtomicWrite(
      failedChecks.length > 0
        ? { failedChecks }
        : { versionstamp: versionstampOf(revision) },
    ));
  }

  #checkWrite({ checks, mutations, enqueues }: AtomicWrite): void {
    const { checksMax, mutationsMax, payloadBytesMax } = this.#limits;
    if (enqueues > 0) {
      throw new Refused(422, "Queues are not served: enqueue() is refused");
    }
    checkCount("checks", checks.length, checksMax);
    checkCount("mutations", mutations.length, mutationsMax);
    let bytes = 0;
    for (const { key, versionstamp } of checks) {
      checkKvKey(key);
      const { length } = versionstamp;
      if (length !== 0 && length !== VERSIONSTAMP_BYTES) {
        throw new Refused(400, `A versionstamp has ${length} bytes, not 10`);
      }
      bytes += key.length;
    }
    for (const { key, value, min, max } of mutations) {
      checkKvKey(key);
      bytes += key.length + (value?.data.length ?? 0) + min.length + max.length;
    }
    if (bytes > payloadBytesMax) {
      const text = `A write has ${bytes} bytes, at most ${payloadBytesMax}`;
      throw new Refused(413, text);
    }
  }

  // ---------------------------------------------------------------- watches

  async watch(database: Database, body: Uint8Array): Promise<Response> {
    const { service } = this.#options;
    const keys = readWatch(body);
    checkCount("watched keys", keys.length, this.#limits.watchedKeysMax);
    for (const key of keys) checkKvKey(key);
    await service.ready({ serializable: false, timeoutMs: null });
    const prefixLength = entryPrefixLength(database.name);
    const stream = watchBody({
      service,
      keys: keys.map((key) => entryKey(database.name, key)),
      read: (key): KvEntry & StoredKvValue | null => {
        const entry = service.getNow(key, 0);
        if (entry === null) return null;
        const versionstamp = versionstampOf(entry.modRevision);
        const value = openValue(entry.value);
        return { key: key.slice(prefixLength), ...value, versionstamp };
      },
      onError: (error) => void toError(error, this.#options),
    });
    const headers = { "content-type": "application/octet-stream" };
    return new Response(stream, { headers });
  }
}

// ------------------------------------------------------------------ requests

/** The token of a request; empty if there is none. */
function bearer(request: Request): string {
  const header = request.headers.get("authorization") ?? "";
  return header.match(/^bearer +(\S+)$/i)?.[1] ?? "";
}

function unauthorized(): Refused {
  return new Refused(401, "This token gives access to no database");
}

function supportedVersions(body: Uint8Array): readonly unknown[] {
  if (body.length === 0) return [1];
  try {
    const json = JSON.parse(new TextDecoder().decode(body));
    if (Array.isArray(json?.supportedVersions)) return json.supportedVersions;
  } catch {
    // Said below.
  }
  throw new Refused(400, "The body is not {supportedVersions: […]}");
}

function checkHeaders({ headers }: Request, { database }: Access): void {
  const version = headers.get("x-denokv-version");
  const id = version === null
    ? headers.get("x-transaction-domain-id")
    : headers.get("x-denokv-database-id");
  if (version !== null && version !== "2" && version !== "3") {
    throw new Refused(400, "The data path has the versions 1 to 3");
  }
  if (id?.toLowerCase() === database.id) return;
  throw new Refused(400, `The token is of the database ${database.id}`);
}

function checkCount(what: string, count: number, max: number): void {
  if (count <= max) return;
  throw new Refused(400, `Too many ${what}: ${count}, at most ${max}`);
}

function checkKvKey(key: Key): void {
  if (key === "") throw new Refused(400, "A key is empty");
  const max = LIMITS.kvKeyBytesMax;
  if (key.length > max) {
    throw new Refused(400, `A key has ${key.length} bytes, at most ${max}`);
  }
}

/** Of the protocol's enum Type. */
const MUTATION = {
  set: 1,
  delete: 2,
  sum: 3,
  max: 4,
  min: 5,
  setSuffixed: 9,
} as const;

function toMutation(wire: WireMutation, limits: KvLimits): Mutation {
  const { key, type, min, max, clamp } = wire;
  switch (type) {
    case MUTATION.set:
    case MUTATION.setSuffixed: {
      const value = toValue(wire, limits);
      const expireAtMs = toExpiry(wire.expireAtMs);
      const name = type === MUTATION.set ? "set" : "setSuffixed";
      return { type: name, key, value, expireAtMs };
    }
    case MUTATION.delete:
      return { type: "delete", key };
    case MUTATION.sum:
      return {
        type: "sum",
        key,
        value: toValue(wire, limits),
        min,
        max,
        clamp,
      };
    case MUTATION.max:
      return { type: "max", key, value: toValue(wire, limits) };
    case MUTATION.min:
      return { type: "min", key, value: toValue(wire, limits) };
    default:
      throw new Refused(400, `There is no mutation of type ${type}`);
  }
}

function toValue(
  { value }: WireMutation,
  { valueBytesMax }: KvLimits,
): KvValue {
  if (value === null) throw new Refused(400, "A mutation has no value");
  const { data } = value;
  const encoding = encodingOf(value.encoding);
  if (encoding === null) {
    throw new Refused(400, `There is no encoding ${value.encoding}`);
  }
  if (data.length > valueBytesMax) {
    const text = `A value has ${data.length} bytes, at most ${valueBytesMax}`;
    throw new Refused(413, text);
  }
  if (encoding === "u64" && data.length !== U64_BYTES) {
    throw new Refused(400, `A KvU64 has ${data.length} bytes, not 8`);
  }
  return { encoding, data };
}

function toExpiry(expireAtMs: number): number {
  if (expireAtMs === -1) return 0;
  if (expireAtMs >= 0) return expireAtMs;
  throw new Refused(400, `An entry cannot expire at ${expireAtMs}`);
}

function protobuf(body: Uint8Array): Response {
  const headers = { "content-type": "application/x-protobuf" };
  return new Response(body as Uint8Array<ArrayBuffer>, { headers });
}
