/**
 * The events of a file: the newest wait in memory until many go into one block, all others stand in
 * the blocks of table `event`. Used by `disk.ts`, into whose open transaction this writes.
 *
 * ```text
 *   table `event`   │ 1 … 14 │ 15 … 27 │ 28 │ 29 … 43 │        in memory   44, 45, 46
 *                                                       writeDown ◄──────┘
 * ```
 *
 * @module
 */

import {
  Block,
  type BlockColumns,
  BlockMeta,
  type BlockMetaColumns,
  blockOf,
  blocksOf,
} from "./blocks.ts";
import { assert } from "./errors.ts";
import type { EventMeta, EventRow } from "./rows.ts";
import { corruptError, type Statements } from "./tables.ts";

/** Events that wait in memory to be written down, and bytes of their values. */
const HELD_MAX = 256;
const HELD_BYTES_MAX = 1024 * 1024;
/** Fewer do not fill a block. More are better written down at once, before they outlive the young. */
const ENOUGH = 16;
const ENOUGH_BYTES = 2000;

export class Events {
  readonly #sql: Statements;
  /** For errors. */
  readonly #path: string;
  /** Events that are in no block yet, at consecutive positions after all others. */
  #held: EventRow[] = [];
  /** Of their values. */
  #heldBytes = 0;
  /** The block that was read last: who reads in order stays in it for a while. */
  #block: Block | null = null;

  constructor(sql: Statements, path: string) {
    this.#sql = sql;
    this.#path = path;
  }

  /** Takes an event into memory; see {@linkcode Events.isFull}. */
  append(event: EventRow): void {
    const last = this.#held.at(-1);
    // Not as a condition of `assert`, whose message would be made of every event.
    if (last !== undefined && event.position !== last.position + 1) {
      assert(
        false,
        `Event ${event.position} does not follow ${last.position}`,
      );
    }
    this.#held.push(event);
    this.#heldBytes += event.value.length;
  }

  /** True if so many wait that they must be written down. */
  get isFull(): boolean {
    return this.#held.length >= HELD_MAX || this.#heldBytes >= HELD_BYTES_MAX;
  }

  /** True if so many wait that they may well be written down. */
  get isEnough(): boolean {
    return this.#held.length >= ENOUGH || this.#heldBytes >= ENOUGH_BYTES;
  }

  /** Puts what waits into blocks. */
  writeDown(): void {
    if (this.#held.length === 0) return;
    for (const columns of blocksOf(this.#held)) {
      this.#sql.eventInsert.run(...columns);
    }
    this.#held = [];
    this.#heldBytes = 0;
  }

  /** @throws {DkvError} DATA_CORRUPT on a bad checksum, and for what is not there. */
  read(position: number): EventRow {
    const [first] = this.#held;
    const event = first !== undefined && position >= first.position
      ? this.#held[position - first.position]
      : this.#blockOf(position)?.event(position);
    if (event !== undefined) return event;
    throw corruptError(this.#path, `event ${position} is missing`);
  }

  remove(positions: readonly number[]): void {
    this.writeDown();
    const ascending = positions.toSorted((a, b) => a - b);
    for (let at = 0; at < ascending.length;) {
      const block = this.#blockOf(ascending[at]!);
      assert(
        block !== null && ascending[at]! <= block.last,
        `Event ${ascending[at]} was removed before`,
      );
      const gone = new Set<number>();
      while (ascending[at]! <= block.last) gone.add(ascending[at++]!);
      this.#shrink(block, gone);
    }
  }

  /** Up to `limit` events at or after position `from`, ascending, without values. */
  scan(from: number, limit: number): EventMeta[] {
    this.writeDown();
    const events: EventMeta[] = [];
    for (const columns of this.#sql.eventScan.iterate(from)) {
      const row = columns as unknown as BlockMetaColumns;
      new BlockMeta(row, this.#path).addTo(events, { from, limit });
      if (events.length >= limit) break;
    }
    return events;
  }

  #shrink(block: Block, gone: ReadonlySet<number>): void {
    this.#block = null;
    const left = block.events().filter(({ position }) => !gone.has(position));
    if (left.length === 0) this.#sql.eventRemove.run(block.position);
    else this.#sql.eventPut.run(...blockOf(block.position, left));
  }

  /** The only block that may have the event at a position; null if there is none. */
  #blockOf(position: number): Block | null {
    const known = this.#block;
    const isKnown = known !== null && position >= known.position &&
      position <= known.last;
    if (isKnown) return known;
    const columns = this.#sql.eventGet.get(position) as unknown as
      | BlockColumns
      | undefined;
    if (columns === undefined) return null;
    this.#block = new Block(columns, this.#path);
    return this.#block;
  }
}
