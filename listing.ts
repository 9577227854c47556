/**
 * A list as a program sees it: an async iterator of entries over as many `List` calls as it takes,
 * all at one revision. Used by `client.ts`.
 *
 * Each call asks for about a megabyte, and the next one is made when the program wants more: memory
 * is constant, a slow program holds nothing back on the connection that all share, and a call that
 * fails is made again, at another node, without loss or repetition.
 *
 * @module
 */

import type { Buffer } from "node:buffer";
import * as grpc from "@grpc/grpc-js";
import { type Entry, type Page, readListResponse } from "./answers.ts";
import { asIs, type Endpoint, type Endpoints, methodOf } from "./endpoints.ts";
import { DkvError } from "./errors.ts";
import { type KeyRange, toRange } from "./operations.ts";

/** What to list, and how. */
export interface ListOptions {
  /** Keys that begin with this. Default: all keys. */
  readonly prefix?: string | Uint8Array;
  /** Keys of a range, instead of a prefix. */
  readonly range?: KeyRange;
  /** Read as of this revision. Default: now, for all pages the revision of the first. */
  readonly revision?: number;
  /** Stop after this many entries. Default: no limit. */
  readonly limit?: number;
  /** Leave values out. */
  readonly keysOnly?: boolean;
  /** From the last key to the first. */
  readonly reverse?: boolean;
  /** Take the state of the node that answers, which may be stale. */
  readonly serializable?: boolean;
  /** How long each page may take. */
  readonly timeoutMs?: number;
  /** Ends the list: the iterator then throws the signal's reason. */
  readonly signal?: AbortSignal;
}

/** A call ends when it has brought this much. */
const CALL_BYTES = 1024 * 1024;
/** The first call asks for this many entries, the others by how large those were. */
const FIRST_ENTRIES = 1000;
const ENTRIES_MAX = 10_000;
/** What an entry costs beside its key and value, roughly. */
const ENTRY_BYTES = 50;

/**
 * Yields the entries of a list.
 *
 * @internal
 */
export async function* list(
  endpoints: Endpoints,
  options: ListOptions & { timeoutMs: number },
): AsyncGenerator<Entry, void, undefined> {
  const { prefix = "", range, reverse = false } = options;
  let { start, end } = toRange(range === undefined ? { prefix } : { range });
  let left = options.limit ?? Infinity;
  let revision = options.revision ?? 0;
  let entriesMax = FIRST_ENTRIES;
  while (left > 0) {
    const limit = Math.min(left, entriesMax);
    const request = {
      range: { start, end },
      revision,
      limit,
      keysOnly: options.keysOnly,
      reverse,
      serializable: options.serializable,
    };
    const pages = await endpoints.retry(
      (endpoint, { attemptMs }) =>
        fetch(endpoint, { request, attemptMs, options }),
      // Of stale states, one node's at least do not go back from page to page.
      { ...options, spread: !options.serializable },
    );
    let last: Entry | undefined;
    let bytes = 0;
    let entries = 0;
    for (const page of pages) {
      for (const entry of page.entries()) {
        options.signal?.throwIfAborted();
        yield entry;
        last = entry;
        bytes += ENTRY_BYTES + entry.keyBytes.length + entry.value.length;
      }
      entries += page.count;
    }
    left -= entries;
    const [final] = pages.slice(-1);
    if (final === undefined || !final.more || last === undefined) return;
    revision = final.revision;
    if (reverse) end = last.keyBytes;
    else start = keyAfter(last.keyBytes);
    const fitting = Math.floor(CALL_BYTES * 0.75 * entries / bytes);
    entriesMax = Math.max(1, Math.min(fitting, ENTRIES_MAX));
  }
}

/** Makes one call; the last page says whether there is more than it brought. */
function fetch(
  endpoint: Endpoint,
  { request, attemptMs, options }: {
    request: object;
    attemptMs: number;
    options: { signal?: AbortSignal };
  },
): Promise<Page[]> {
  const { promise, resolve, reject } = Promise.withResolvers<Page[]>();
  const { path, requestSerialize } = methodOf("KeyValue", "List");
  const call: grpc.ClientReadableStream<Buffer> = endpoint.client
    .makeServerStreamRequest(
      path,
      requestSerialize,
      asIs,
      request,
      new grpc.Metadata(),
      { deadline: Date.now() + attemptMs },
    );
  const pages: Page[] = [];
  let bytes = 0;
  call.on("data", (message: Buffer) => {
    if (bytes >= CALL_BYTES) return;
    bytes += message.length;
    let page: Page;
    try {
      page = readListResponse(message);
    } catch (error) {
      call.cancel();
      return reject(error);
    }
    const enough = bytes >= CALL_BYTES;
    // What this call leaves out the next one brings; if that is nothing, it says so.
    pages.push(enough ? { ...page, more: true } : page);
    if (!enough) return;
    resolve(pages);
    call.cancel();
  });
  call.on("error", (status: grpc.ServiceError) => {
    reject(endpoint.toError(status));
  });
  call.on("end", () => {
    if (pages.length > 0) resolve(pages);
    else reject(new DkvError("UNREACHABLE", "A list ended without a page"));
  });
  const abort = () => call.cancel();
  options.signal?.addEventListener("abort", abort);
  return promise.finally(() =>
    options.signal?.removeEventListener("abort", abort)
  );
}

function keyAfter(key: Uint8Array): Uint8Array {
  const after = new Uint8Array(key.length + 1);
  after.set(key);
  return after;
}
