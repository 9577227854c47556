/**
 * Watchers: who gets to know of which change. Fed by `group.ts` after each applied entry; the
 * service registers watchers, the adapters consume.
 *
 * ```text
 *              add, now or in the future                     deliver
 *                    │                                  ┌──▶
 *                    ▼        publish: matching events  │
 *                  live ────────────────────────────────┘
 *                  │  ▲
 *    consumer full │  │ caught up
 *                  ▼  │       pump: a page of history   ┌──▶
 *   add, past ──▶  late ────────────────────────────────┘
 *                    │  history compacted
 *                    ▼
 *                 cancelled, with the compact revision
 * ```
 *
 * A watcher gets every matching change from its first revision on exactly once, in the order of
 * revisions and whole revisions at a time, or is told that it cannot (raft-pitfalls F6). Nothing is
 * buffered here: what a full consumer misses is read from history when it has room again.
 *
 * @module
 */
import type { Key, KeyRange } from "./batch.ts";
import { assert, DkvError } from "./errors.ts";
import type {
  HistoryOptions,
  HistoryPage,
  Store,
  WatchEvent,
} from "./store.ts";

/** What a watcher wants, and how it is told. */
export interface WatchOptions {
  readonly range: KeyRange;
  /** The first revision to deliver, which may be in the future; 0 means changes from now on. */
  readonly fromRevision: number;
  /** Fill in `previous`. */
  readonly withPrevious: boolean;
  readonly noPuts: boolean;
  readonly noDeletes: boolean;
  /** Asked before history is read for this watcher: false if a delivery would be refused. */
  hasRoom(): boolean;
  /**
   * Takes whole revisions; `throughRevision` says that every matching change up to and including it
   * has been delivered. `events` is empty where only that is said. False means that the consumer is
   * full and has taken nothing: the same events come again later.
   */
  deliver(events: readonly WatchEvent[], throughRevision: number): boolean;
  /**
   * The watch has ended. `compactRevision` is the oldest revision that a new watch may start from.
   * REVISION_COMPACTED if that is the reason, NO_LEADER if this node has stood alone for too long,
   * SHUTTING_DOWN at the end of the node.
   */
  cancel(error: DkvError, compactRevision: number): void;
}

/** A registered watch. */
export interface Watch {
  /** The first revision that will be delivered. */
  readonly fromRevision: number;
  /** Ends the watch: nothing is delivered afterwards. Harmless if it has ended. */
  readonly stop: () => void;
  /**
   * The revision up to which everything has been delivered; null while some of it has not been, so
   * that progress cannot overtake events (raft-pitfalls F9).
   */
  readonly progress: () => number | null;
}

export interface WatchLimits {
  readonly watchersMax: number;
  /** What one page of history for a late watcher may hold in keys and values. */
  readonly watchSliceBytes: number;
  /** How soon, at the earliest, a node that hears no leader asks to be elected. */
  readonly electionTicksMin: number;
}

/** The part of the store that watchers need. */
export interface WatchStore {
  readonly revision: number;
  readonly compactRevision: number;
  history(options: HistoryOptions): HistoryPage;
  previousOf(event: WatchEvent): ReturnType<Store["previousOf"]>;
}

/** A page of history ends after the revision in which it gets this many events, */
const PAGE_EVENTS_MAX = 1000;
/** or looks at this many rows. */
const PAGE_ROWS_MAX = 4096;
/** How many pages one call of `pump` reads: the turn of the loop must go on. */
const PAGES_PER_PUMP_MAX = 8;

/** A node without a leader for so many election timeouts ends its watches: they should go elsewhere. */
const ALONE_ELECTIONS_MAX = 3;

interface Watcher {
  readonly options: WatchOptions;
  /**
   * No change below this was missed, none at or above it was delivered; except that a live watcher
   * has also been given everything up to the last published revision.
   */
  nextRevision: number;
  /** Where a late watcher's next page starts; 0 if unknown. */
  nextPosition: number;
  state: "live" | "late" | "ended";
  /** What the publication under way has for it. */
  pending: WatchEvent[];
}

export class Watchers {
  #store: WatchStore;
  readonly #limits: WatchLimits;
  /** Every change up to here has been published. */
  #published: number;
  /** Live watchers of one key. */
  readonly #byKey = new Map<Key, Set<Watcher>>();
  /** Live watchers of more than one key. */
  readonly #byRange = new Set<Watcher>();
  /** In the order in which they get their next page. */
  readonly #late = new Set<Watcher>();
  #isClosed = false;
  #live = 0;
  /** For how long this node has known no leader. */
  #aloneTicks = 0;

  constructor(store: WatchStore, limits: WatchLimits) {
    this.#store = store;
    this.#limits = limits;
    this.#published = store.revision;
  }

  /** How many watchers there are. */
  get size(): number {
    return this.#live + this.#late.size;
  }

  /** How many watchers there are, and how many of them read history. */
  get metrics(): { watchers: number; late: number } {
    return { watchers: this.size, late: this.#late.size };
  }

  /**
   * Registers a watcher. Nothing is delivered before this returns, and what lies in the past not
   * before the next `pump`. Throws `DkvError` REVISION_INVALID, or OVERLOADED if there are too many.
   */
  add(options: WatchOptions): Watch {
    const { fromRevision } = options;
    if (!Number.isSafeInteger(fromRevision) || fromRevision < 0) {
      throw new DkvError(
        "REVISION_INVALID",
        `Revision is no positive integer: ${fromRevision}`,
      );
    }
    if (this.#isClosed) throw closing();
    if (this.size >= this.#limits.watchersMax) {
      throw new DkvError(
        "OVERLOADED",
        `Too many watches: at most ${this.#limits.watchersMax}`,
      );
    }
    const nextRevision = fromRevision === 0
      ? this.#store.revision + 1
      : fromRevision;
    const watcher: Watcher = {
      options,
      nextRevision,
      nextPosition: 0,
      state: "ended",
      pending: [],
    };
    this.#place(watcher);
    return {
      fromRevision: nextRevision,
      stop: () => this.#remove(watcher),
      progress: () => watcher.state === "live" ? this.#published : null,
    };
  }

  /**
   * Delivers what an applied entry changed. To be called once for each entry, in order and before
   * the store does anything else.
   */
  publish(events: readonly WatchEvent[]): void {
    if (events.length > 0 && this.#live > 0) this.#publish(events);
    this.#published = this.#store.revision;
  }

  #publish(events: readonly WatchEvent[]): void {
    const through = this.#store.revision;
    const touched: Watcher[] = [];
    for (const event of events) {
      const matching: Watcher[] = [];
      for (const watcher of this.#byKey.get(event.key) ?? []) {
        if (wants(watcher, event)) matching.push(watcher);
      }
      for (const watcher of this.#byRange) {
        if (wants(watcher, event)) matching.push(watcher);
      }
      let complete: WatchEvent | null = null;
      for (const watcher of matching) {
        if (watcher.pending.length === 0) touched.push(watcher);
        if (watcher.options.withPrevious) {
          complete ??= { ...event, previous: this.#store.previousOf(event) };
        }
        watcher.pending.push(watcher.options.withPrevious ? complete! : event);
      }
    }
    for (const watcher of touched) {
      const { pending } = watcher;
      watcher.pending = [];
      if (
        watcher.state !== "live" || watcher.options.deliver(pending, through)
      ) continue;
      if (watcher.state !== "live") continue;
      this.#unplace(watcher);
      watcher.nextRevision = pending[0]!.modRevision;
      watcher.nextPosition = 0;
      this.#place(watcher);
    }
  }

  /**
   * Gives late watchers that have room a page of history each, up to a bound; true if there is more
   * that could be done at once. To be called in every turn.
   */
  pump(): boolean {
    let pages = 0;
    let moved = false;
    for (const watcher of [...this.#late]) {
      if (watcher.state !== "late") continue;
      const { compactRevision } = this.#store;
      if (watcher.nextRevision < compactRevision) {
        this.#cancelCompacted(watcher, compactRevision);
        continue;
      }
      if (!watcher.options.hasRoom()) continue;
      if (pages === PAGES_PER_PUMP_MAX) return true;
      pages++;
      if (this.#feed(watcher)) moved = true;
    }
    return moved && this.#late.size > 0;
  }

  /** Delivers one page of history, and moves the watcher on if it was taken: then true. */
  #feed(watcher: Watcher): boolean {
    const { options } = watcher;
    const page = this.#store.history({
      range: options.range,
      withPrevious: options.withPrevious,
      noPuts: options.noPuts,
      noDeletes: options.noDeletes,
      fromRevision: watcher.nextRevision,
      fromPosition: watcher.nextPosition,
      eventsMax: PAGE_EVENTS_MAX,
      bytesMax: this.#limits.watchSliceBytes,
      rowsMax: PAGE_ROWS_MAX,
    });
    const { events, throughRevision } = page;
    this.#unplace(watcher);
    const taken = events.length === 0 ||
      options.deliver(events, throughRevision);
    if (taken) {
      watcher.nextRevision = throughRevision + 1;
      watcher.nextPosition = page.nextPosition;
    }
    if (watcher.state !== "ended") this.#place(watcher);
    return taken;
  }

  /**
   * Goes on with another store, after a snapshot was installed. What the snapshot skipped was never
   * published, so every watcher reads it from history, from where it was (raft-pitfalls F7).
   */
  rebase(store: WatchStore): void {
    assert(
      store.revision >= this.#published,
      `Store went back to revision ${store.revision}, published ${this.#published}`,
    );
    const all = [...this.#byRange, ...this.#late];
    for (const watchers of this.#byKey.values()) all.push(...watchers);
    for (const watcher of all) {
      if (watcher.state === "live") {
        watcher.nextRevision = Math.max(
          watcher.nextRevision,
          this.#published + 1,
        );
      }
      watcher.nextPosition = 0;
      this.#unplace(watcher);
    }
    this.#store = store;
    this.#published = store.revision;
    for (const watcher of all) this.#place(watcher);
  }

  /** Time passes; `hasLeader` tells whether new changes can arrive. */
  tick(hasLeader: boolean): void {
    this.#aloneTicks = hasLeader ? 0 : this.#aloneTicks + 1;
    const aloneTicksMax = ALONE_ELECTIONS_MAX * this.#limits.electionTicksMin;
    if (this.#aloneTicks !== aloneTicksMax) return;
    const text = "Node has no leader, so it cannot tell what changes";
    this.#cancelAll(new DkvError("NO_LEADER", text));
  }

  /** Ends all watches, for good. */
  close(): void {
    this.#isClosed = true;
    this.#cancelAll(closing());
  }

  #cancelAll(error: DkvError): void {
    const all = [...this.#byRange, ...this.#late];
    for (const watchers of this.#byKey.values()) all.push(...watchers);
    for (const watcher of all) {
      if (watcher.state === "ended") continue;
      this.#remove(watcher);
      watcher.options.cancel(error, this.#store.compactRevision);
    }
  }

  #cancelCompacted(watcher: Watcher, compactRevision: number): void {
    this.#remove(watcher);
    watcher.options.cancel(
      new DkvError(
        "REVISION_COMPACTED",
        `Cannot watch from revision ${watcher.nextRevision}: ` +
          `compacted up to revision ${compactRevision}`,
      ),
      compactRevision,
    );
  }

  #remove(watcher: Watcher): void {
    this.#unplace(watcher);
    watcher.state = "ended";
  }

  /** Puts a watcher where its next revision belongs: behind the other late ones, or among the live. */
  #place(watcher: Watcher): void {
    if (watcher.nextRevision <= this.#store.revision) {
      watcher.state = "late";
      this.#late.add(watcher);
      return;
    }
    watcher.state = "live";
    this.#live++;
    const key = singleKey(watcher.options.range);
    if (key === null) {
      this.#byRange.add(watcher);
      return;
    }
    const others = this.#byKey.get(key);
    if (others === undefined) this.#byKey.set(key, new Set([watcher]));
    else others.add(watcher);
  }

  #unplace(watcher: Watcher): void {
    if (watcher.state === "late") this.#late.delete(watcher);
    if (watcher.state !== "live") return;
    this.#live--;
    const key = singleKey(watcher.options.range);
    if (key === null) {
      this.#byRange.delete(watcher);
      return;
    }
    const others = this.#byKey.get(key);
    others?.delete(watcher);
    if (others?.size === 0) this.#byKey.delete(key);
  }
}

/** The only key of a range; null if there may be more. */
function singleKey(range: KeyRange): Key | null {
  return range.end === range.start + "\0" ? range.start : null;
}

function wants(watcher: Watcher, event: WatchEvent): boolean {
  const { range, noPuts, noDeletes } = watcher.options;
  if (event.modRevision < watcher.nextRevision) return false;
  if (event.type === "put" ? noPuts : noDeletes) return false;
  return event.key >= range.start &&
    (range.end === null || event.key < range.end);
}

function closing(): DkvError {
  return new DkvError("SHUTTING_DOWN", "Node is shutting down");
}
