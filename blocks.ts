/**
 * Events as the disk keeps them: those that were made together share one row, a block. A row for each
 * would cost more in SQLite than all that an event consists of. Used by `events.ts`.
 *
 * ```text
 *   row     position │ crc │ value_crc │ meta                                      │ value
 *           of the first                 last position, then for each event:         one after
 *                                        position, revision, version, …, value's     the other
 *                                        length, key
 * ```
 *
 * The values stand last in their row, so that a scan of all else never touches the overflow pages of
 * a long value; that is also why they have a checksum of their own.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { crc32 } from "node:zlib";
import type { EventMeta, EventRow } from "./rows.ts";
import { corruptError } from "./tables.ts";
import { Pen, Reader } from "./wire.ts";

/** A row of `event` without its values. */
export type BlockMetaColumns = [
  position: number,
  crc: number,
  valueCrc: number,
  meta: Uint8Array,
];

/** A row of `event`. */
export type BlockColumns = [...BlockMetaColumns, value: Uint8Array];

/** Two rows of this size fill a page of 4096 bytes. A larger event has a block of its own. */
const BLOCK_BYTES = 2000;
/** What an event takes beside its key and its value, at most as a rule. */
const EVENT_OVERHEAD_BYTES = 20;

// Tags: fields of an event that come after its bare numbers.
const LEASE = 1;
const LEASE_TAG = LEASE << 3 | 1;
const KEY = 2;
const KEY_TAG = KEY << 3 | 2;

const sealed = Buffer.alloc(12);
const metaPen = new Pen();
const valuePen = new Pen();

/** Puts events in as few blocks as their sizes allow. They must be in the order of their positions. */
export function blocksOf(events: readonly EventRow[]): BlockColumns[] {
  const blocks: BlockColumns[] = [];
  for (let start = 0; start < events.length;) {
    let end = start;
    let bytes = 0;
    for (; end < events.length; end++) {
      const { key, value } = events[end]!;
      bytes += key.length + value.length + EVENT_OVERHEAD_BYTES;
      if (end > start && bytes > BLOCK_BYTES) break;
    }
    const some = events.slice(start, end);
    blocks.push(blockOf(some[0]!.position, some));
    start = end;
  }
  return blocks;
}

/** One block, at the position of its row: that of its first event, or of one that was removed. */
export function blockOf(
  position: number,
  events: readonly EventRow[],
): BlockColumns {
  metaPen.reset();
  metaPen.packedSint64(events.at(-1)!.position - position);
  let revision = 0;
  for (const event of events) {
    metaPen.packedSint64(event.position - position);
    metaPen.packedSint64(event.revision - revision);
    revision = event.revision;
    metaPen.packedSint64(event.version);
    metaPen.packedSint64(revision - event.createRevision);
    metaPen.packedSint64(event.value.length);
    if (event.lease !== 0n) metaPen.sfixed64(LEASE, event.lease);
    metaPen.latin1(KEY, event.key);
  }
  const meta = metaPen.finish();
  const value = valuesOf(events);
  const valueCrc = crc32(value);
  return [position, seal(position, { valueCrc, meta }), valueCrc, meta, value];
}

function valuesOf(events: readonly EventRow[]): Uint8Array {
  if (events.length === 1) return events[0]!.value;
  valuePen.reset();
  for (const { value } of events) valuePen.raw(value);
  return valuePen.finish();
}

/** The checksum of a row without its values. */
function seal(
  position: number,
  { valueCrc, meta }: { valueCrc: number; meta: Uint8Array },
): number {
  sealed.writeDoubleBE(position, 0);
  sealed.writeUInt32BE(valueCrc, 8);
  return crc32(meta, crc32(sealed));
}

/** A block that was read, without its values. */
export class BlockMeta {
  /** Of its row. */
  readonly position: number;
  /** The position of its last event. */
  readonly last: number;
  readonly #meta: Uint8Array;

  /** @throws {DkvError} DATA_CORRUPT, naming `path` */
  constructor(columns: BlockMetaColumns, path: string) {
    const [position, crc, valueCrc, meta] = columns;
    if (seal(position, { valueCrc, meta }) !== crc) {
      throw corruptError(path, `event row ${position} fails its checksum`);
    }
    this.position = position;
    this.#meta = meta;
    this.last = position + new Reader(meta).packedSint64();
  }

  /** Adds its events from a position on, as long as there are less than `limit`. */
  addTo(
    events: EventMeta[],
    { from, limit }: { from: number; limit: number },
  ): void {
    this.visit(from, (meta) => {
      events.push(meta);
      return events.length < limit;
    });
  }

  /** Shows each event from a position on, and where its value stands, until `visit` returns false. */
  visit(
    from: number,
    visit: (meta: EventMeta, value: ValuePlace) => boolean,
  ): void {
    const reader = new Reader(this.#meta);
    reader.packedSint64();
    let revision = 0;
    let start = 0;
    while (reader.more) {
      const position = this.position + reader.packedSint64();
      revision += reader.packedSint64();
      const version = reader.packedSint64();
      const createRevision = revision - reader.packedSint64();
      const end = start + reader.packedSint64();
      const tag = reader.tag();
      const lease = tag === LEASE_TAG ? reader.sfixed64() : 0n;
      if (tag === LEASE_TAG) reader.tag();
      if (position < from) reader.skip(KEY_TAG);
      else {
        const key = reader.latin1();
        const type = version === 0 ? "delete" : "put";
        const meta = {
          position,
          revision,
          key,
          type,
          createRevision,
          version,
          lease,
        } as const;
        if (!visit(meta, { start, end })) return;
      }
      start = end;
    }
  }
}

/** Where a value stands among the values of its block. */
interface ValuePlace {
  readonly start: number;
  readonly end: number;
}

/** A block that was read. */
export class Block extends BlockMeta {
  readonly #value: Uint8Array;

  /** @throws {DkvError} DATA_CORRUPT, naming `path` */
  constructor(columns: BlockColumns, path: string) {
    const [position, crc, valueCrc, meta, value] = columns;
    super([position, crc, valueCrc, meta], path);
    checkValues([position, valueCrc, value], path);
    this.#value = value;
  }

  /** All of its events. Values are views of the row. */
  events(): EventRow[] {
    const events: EventRow[] = [];
    this.visit(0, (meta, place) => {
      events.push(this.#withValue(meta, place));
      return true;
    });
    return events;
  }

  /** One of its events; undefined if it has none at that position. */
  event(position: number): EventRow | undefined {
    let found: EventRow | undefined;
    this.visit(position, (meta, place) => {
      if (meta.position === position) found = this.#withValue(meta, place);
      return false;
    });
    return found;
  }

  #withValue(meta: EventMeta, { start, end }: ValuePlace): EventRow {
    return { ...meta, value: this.#value.subarray(start, end) };
  }
}

/** @throws {DkvError} DATA_CORRUPT, naming `path` */
export function checkValues(
  [position, valueCrc, value]: [number, number, Uint8Array],
  path: string,
): void {
  if (crc32(value) === valueCrc) return;
  throw corruptError(
    path,
    `a value of event row ${position} fails its checksum`,
  );
}
