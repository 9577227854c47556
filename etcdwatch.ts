/**
 * etcd's Watch service: several watches of one client on a stream. Used by `etcd.ts`.
 *
 * Requests of a stream are answered in their order. A watch that cannot go on here, because the node
 * stops or has lost its cluster, ends the stream with UNAVAILABLE: clients open it elsewhere and go
 * on from where they were.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import type * as grpc from "@grpc/grpc-js";
import type { KeyRange } from "./batch.ts";
import { type DuplexStream, Unreadable, WatchOutlet } from "./call.ts";
import { LIMITS } from "./config.ts";
import { DkvError } from "./errors.ts";
import type { EtcdContext } from "./etcdcall.ts";
import { EtcdError } from "./etcderrors.ts";
import { fromPrevious, fromStored, toBounded, toRange } from "./etcdkv.ts";
import type { WatchEvent } from "./store.ts";
import type { Watch } from "./watch.ts";

interface WireCreate {
  key: Buffer;
  range_end: Buffer;
  start_revision: string;
  progress_notify: boolean;
  filters: (string | number)[];
  prev_kv: boolean;
  watch_id: string;
  fragment: boolean;
}

interface WireRequest {
  create_request?: WireCreate | null;
  cancel_request?: { watch_id: string } | null;
  progress_request?: object | null;
}

/** A watch of the stream. */
interface Entry {
  watch: Watch;
  readonly wire: WireCreate;
  /** Since progress was last told, nothing else was. */
  isQuiet: boolean;
}

/** How often a watch that asked for it is told how far it is, as in etcd. */
const PROGRESS_INTERVAL_MS = 10 * 60_000;
/** How soon it is looked again whether late watches have caught up, when progress was asked for. */
const PROGRESS_POLL_MS = 20;
/** Requests of one stream that wait for those before them. */
const WAITING_REQUESTS_MAX = LIMITS.watchersPerStreamMax;
/** Beside its keys and values, what an event costs on the wire, roughly. */
const EVENT_OVERHEAD_BYTES = 40;
/** The id in the answer to a creation that failed, and in progress of the whole stream. */
const NO_WATCH = "-1";

const SMALLEST_KEY = Buffer.of(0);

const EMPTY_RANGE = "mvcc: watcher range is empty";
const DUPLICATE_ID = "mvcc: duplicate watch ID provided on the WatchStream";

/** The handlers of `etcdserverpb.Watch`. */
export function watchHandlers(
  context: EtcdContext,
): grpc.UntypedServiceImplementation {
  return { Watch: (call: DuplexStream) => serveWatch(call, context) };
}

function serveWatch(call: DuplexStream, context: EtcdContext): void {
  const stream = new EtcdWatchStream(call, context);
  let waiting = 0;
  let last = Promise.resolve();
  call.on("data", (request: WireRequest | Unreadable) => {
    if (request instanceof Unreadable) return stream.fail(request.error);
    if (waiting >= WAITING_REQUESTS_MAX) {
      const text = `Too many requests wait on this stream: ${waiting}`;
      return stream.fail(new DkvError("OVERLOADED", text));
    }
    waiting++;
    last = last.then(() => stream.answer(request))
      .catch((error) => stream.fail(error))
      .finally(() => waiting--);
  });
  call.on("end", () => {
    void last.then(() => {
      stream.stop();
      call.end();
    });
  });
  call.on("cancelled", () => stream.stop());
  call.on("error", () => stream.stop());
}

class EtcdWatchStream {
  readonly #call: DuplexStream;
  readonly #context: EtcdContext;
  readonly #outlet: WatchOutlet;
  readonly #watches = new Map<string, Entry>();
  /** Ids of watches that compaction has ended: as in etcd they stay taken until they are cancelled. */
  readonly #ended = new Set<string>();
  /** The id that the server chooses next, unless a client has chosen it. */
  #nextId = 0;
  #isStopped = false;
  #isProgressWanted = false;
  #progressPoll: ReturnType<typeof setTimeout> | undefined;
  #progressTimer: ReturnType<typeof setInterval> | undefined;

  constructor(call: DuplexStream, context: EtcdContext) {
    this.#call = call;
    this.#context = context;
    this.#outlet = new WatchOutlet(call, {
      isWatching: () => this.#watches.size > 0,
      onRoom: () => context.service.resumeWatches(),
    });
  }

  /** Resolves when the request has been answered. */
  async answer(request: WireRequest): Promise<void> {
    if (this.#isStopped) return;
    if (request.create_request) await this.#create(request.create_request);
    else if (request.cancel_request) this.#cancel(request.cancel_request);
    else if (request.progress_request) this.#wantProgress();
    // As etcd, which passes over what it does not know.
  }

  /** Ends all watches: the stream has ended. */
  stop(): void {
    this.#isStopped = true;
    for (const { watch } of this.#watches.values()) watch.stop();
    this.#watches.clear();
    this.#outlet.close();
    clearTimeout(this.#progressPoll);
    clearInterval(this.#progressTimer);
  }

  /** Ends the stream with an error. */
  fail(error: unknown): void {
    if (this.#isStopped) return;
    this.stop();
    this.#call.emit("error", this.#context.toStatus(error));
  }

  async #create(wire: WireCreate): Promise<void> {
    const { service, header } = this.#context;
    const range = toWatchedRange(wire);
    if (range.end !== null && range.end <= range.start) {
      return this.#refuse(EMPTY_RANGE);
    }
    const fromRevision = Math.max(0, toBounded(wire.start_revision));
    await service.watchable({ range, fromRevision, timeoutMs: null });
    if (this.#isStopped) return;
    const watchId = this.#chooseId(wire.watch_id);
    if (watchId === null) return this.#refuse(DUPLICATE_ID);
    if (this.#watches.size >= LIMITS.watchersPerStreamMax) {
      return this.#refuse(new EtcdError("tooManyRequests").message);
    }
    // The answer comes before the first event, which comes in a turn of its own.
    const entry: Entry = {
      watch: this.#open(watchId, { wire, range, fromRevision }),
      wire,
      isQuiet: false,
    };
    this.#watches.set(watchId, entry);
    this.#write({ header: header(), watch_id: watchId, created: true });
    if (!wire.progress_notify) return;
    this.#progressTimer ??= setInterval(
      () => this.#tellProgress(),
      PROGRESS_INTERVAL_MS,
    );
  }

  /** Null if the client has chosen one that is in use. */
  #chooseId(wanted: string): string | null {
    if (wanted !== "0") return this.#isTaken(wanted) ? null : wanted;
    while (this.#isTaken(String(this.#nextId))) this.#nextId++;
    return String(this.#nextId++);
  }

  #isTaken(watchId: string): boolean {
    return this.#watches.has(watchId) || this.#ended.has(watchId);
  }

  /** Remembers an id; the oldest one is forgotten when there are too many. */
  #end(watchId: string): void {
    this.#watches.delete(watchId);
    this.#ended.add(watchId);
    if (this.#ended.size <= LIMITS.watchersPerStreamMax) return;
    for (const oldest of this.#ended) {
      this.#ended.delete(oldest);
      return;
    }
  }

  #open(
    watchId: string,
    { wire, range, fromRevision }: {
      wire: WireCreate;
      range: KeyRange;
      fromRevision: number;
    },
  ): Watch {
    return this.#context.service.watch({
      range,
      fromRevision,
      withPrevious: wire.prev_kv,
      noPuts: wire.filters.includes("NOPUT"),
      noDeletes: wire.filters.includes("NODELETE"),
      hasRoom: () => this.#outlet.hasRoom(),
      deliver: (events, through) => this.#deliver(watchId, { events, through }),
      cancel: (error, compactRevision) => {
        if (error.code !== "REVISION_COMPACTED") return this.fail(error);
        this.#end(watchId);
        this.#write({
          header: this.#context.header(0),
          watch_id: watchId,
          canceled: true,
          compact_revision: compactRevision,
        });
      },
    });
  }

  #refuse(reason: string): void {
    this.#write({
      header: this.#context.header(),
      watch_id: NO_WATCH,
      created: true,
      canceled: true,
      cancel_reason: reason,
    });
  }

  #cancel({ watch_id: watchId }: { watch_id: string }): void {
    if (!this.#isTaken(watchId)) return;
    this.#watches.get(watchId)?.watch.stop();
    this.#watches.delete(watchId);
    this.#ended.delete(watchId);
    const header = this.#context.header();
    this.#write({ header, watch_id: watchId, canceled: true });
  }

  // ---------------------------------------------------------------- events

  #deliver(
    watchId: string,
    { events, through }: { events: readonly WatchEvent[]; through: number },
  ): boolean {
    if (!this.#outlet.hasRoom()) return false;
    const entry = this.#watches.get(watchId);
    if (entry !== undefined) entry.isQuiet = false;
    const pieces = entry?.wire.fragment === true
      ? cut(events, this.#context.config.settings.requestBytesMax)
      : [events];
    for (const [at, piece] of pieces.entries()) {
      const isLast = at === pieces.length - 1;
      this.#write({
        header: this.#context.header(through),
        watch_id: watchId,
        events: piece.map(fromWatchEvent),
        fragment: !isLast,
      }, piece.reduce((sum, event) => sum + eventBytes(event), 0));
    }
    return true;
  }

  // ---------------------------------------------------------------- progress

  /** Told when no watch of the stream is behind: the answer must not run ahead of events. */
  #wantProgress(): void {
    this.#isProgressWanted = true;
    this.#onProgressPoll();
  }

  #onProgressPoll(): void {
    this.#progressPoll = undefined;
    if (!this.#isProgressWanted) return;
    let revision = this.#context.service.revision;
    for (const { watch } of this.#watches.values()) {
      const progress = watch.progress();
      if (progress === null) {
        this.#progressPoll ??= setTimeout(
          () => this.#onProgressPoll(),
          PROGRESS_POLL_MS,
        );
        return;
      }
      revision = Math.min(revision, progress);
    }
    this.#isProgressWanted = false;
    this.#write({
      header: this.#context.header(revision),
      watch_id: NO_WATCH,
    });
  }

  /** To watches that asked for it and were told nothing for as long. */
  #tellProgress(): void {
    for (const [watchId, entry] of this.#watches) {
      const { wire, watch, isQuiet } = entry;
      entry.isQuiet = true;
      const revision = wire.progress_notify && isQuiet
        ? watch.progress()
        : null;
      if (revision === null) continue;
      this.#write({
        header: this.#context.header(revision),
        watch_id: watchId,
      });
    }
  }

  #write(response: Record<string, unknown>, bytes = 0): void {
    if (!this.#isStopped) {
      this.#outlet.write(response, bytes + EVENT_OVERHEAD_BYTES);
    }
  }
}

/** No key stands for the smallest one, as in etcd. */
function toWatchedRange(wire: WireCreate): KeyRange {
  return toRange(wire.key.length === 0 ? { ...wire, key: SMALLEST_KEY } : wire);
}

/** Pieces of at least one event, with no more bytes than that. */
function cut(
  events: readonly WatchEvent[],
  bytesMax: number,
): readonly WatchEvent[][] {
  const pieces: WatchEvent[][] = [[]];
  let bytes = 0;
  for (const event of events) {
    const more = eventBytes(event);
    const piece = pieces.at(-1)!;
    if (piece.length > 0 && bytes + more > bytesMax) {
      pieces.push([event]);
      bytes = more;
    } else {
      piece.push(event);
      bytes += more;
    }
  }
  return pieces;
}

function eventBytes({ key, value, previous }: WatchEvent): number {
  const previousBytes = previous === null
    ? 0
    : key.length + previous.value.length;
  return key.length + value.length + previousBytes + EVENT_OVERHEAD_BYTES;
}

function fromWatchEvent(event: WatchEvent) {
  return {
    type: event.type === "put" ? "PUT" : "DELETE",
    kv: fromStored(event),
    prev_kv: fromPrevious(event.previous),
  };
}
