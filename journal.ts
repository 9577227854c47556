/**
 * The journal of a replica: its log, its term and its vote, in files that are only appended to. One
 * write and one sync make all of a turn durable; the store's rows follow later, because what they say
 * can be applied again from here. Used by `disk.ts`.
 *
 * ```text
 *   segment 4              segment 5                        segment 6 (spare)
 *   [frame 71 │ … │ 98 │]  [frame 99 │ … │ 120 │ 0000000…]  [what it held before, or zeros]
 *    └ all dropped: it                          └ here goes 121
 *      becomes segment 7
 * ```
 *
 * Space is taken in advance and used again, because a write into it changes no metadata of the file
 * system, and so that terms, votes and deletes have some when the disk is full.
 *
 * A frame is written when the one before it is on the disk. So a broken frame with none after it is
 * one that a crash interrupted, of which nobody was told; one with another after it is damage.
 *
 * @module
 */

import { assert, DkvError } from "./errors.ts";
import {
  decodeFrame,
  encodeFrame,
  hasLaterFrame,
  type JournalFrame,
  type JournalRecord,
} from "./journalframe.ts";
import { entryBytes } from "./log.ts";
import type { Entry, HardState, Index, Term } from "./message.ts";
import type { Segment, Segments } from "./segments.ts";
import { corruptError } from "./tables.ts";

/** What the store's rows know of the journal: the two are committed one after the other. */
export interface JournalMark {
  /** Entries up to this one were dropped from the log. */
  readonly start: Index;
  /** The newest frame at the time: it must be there, and newer ones have the newer term and vote. */
  readonly frame: number;
  /** Frames up to this one hold nothing any more: a snapshot took their place. */
  readonly voidFrame: number;
}

/** How to open a {@linkcode Journal}. */
export interface JournalOptions {
  /** For errors: the file of the store. */
  readonly path: string;
  readonly segments: Segments;
  readonly mark: JournalMark;
  /** A segment that has grown to this size is followed by another. */
  readonly segmentBytes?: number | undefined;
  /** Space to have in advance. Default: none. */
  readonly reserveBytes?: number | undefined;
}

/** Where a frame is. */
interface Place {
  readonly segment: Segment;
  readonly at: number;
  readonly bytes: number;
  readonly number: number;
}

/** What is held in memory of an entry. */
interface Slot {
  readonly term: Term;
  readonly bytes: number;
  /** Null until it is written. */
  place: Place | null;
  /** Null once it is written. */
  entry: Entry | null;
}

/** A segment with frames. */
interface Live {
  readonly number: number;
  readonly segment: Segment;
  /** Where its next frame goes. */
  end: number;
  /** No entry in it that counts has a greater index. */
  lastIndex: Index;
}

const SEGMENT_BYTES = 8 * 1024 * 1024;
/** Space is taken in parts of this size, each of them on the disk before the next turn. */
const EXTENSION = new Uint8Array(1024 * 1024);
/** More segments that were used up are not kept. */
const SPARES_MAX = 2;
/** What is left of the reserve for what has been accepted, and for terms and votes. */
const MARGIN_BYTES = 4 * 1024 * 1024;

/** See the picture at the top of the module. */
export class Journal {
  readonly #path: string;
  readonly #segments: Segments;
  readonly #segmentBytes: number;
  readonly #reserveBytes: number;
  /** Ascending; the last one is written to. */
  readonly #live: Live[] = [];
  /** Those that come after it. */
  #spares: { readonly number: number; readonly segment: Segment }[] = [];
  /** Of the last frame. */
  #number = 0;
  #hardState: HardState | null = null;
  /** The index of the first slot. */
  #first: Index = 0;
  /** One for each entry. */
  #slots: Slot[] = [];
  #bytes = 0;
  #unwritten: JournalRecord[] = [];
  /** The frame that was read last: who reads in order stays in it for a while. */
  #read: { place: Place; entries: readonly Entry[] } | null = null;
  #isFull = false;

  /** @throws {DkvError} DATA_CORRUPT if something that was once durable is not there */
  constructor(options: JournalOptions) {
    const { path, segments, mark, segmentBytes, reserveBytes } = options;
    this.#path = path;
    this.#segments = segments;
    this.#segmentBytes = segmentBytes ?? SEGMENT_BYTES;
    this.#reserveBytes = reserveBytes ?? 0;
    this.#load(mark);
    while (this.reserve());
  }

  // ---------------------------------------------------------------- what it holds

  /** The newest term and vote, if any are newer than the mark. */
  get hardState(): HardState | null {
    return this.#hardState;
  }

  /** The index of the last entry; one less than that of the first if there is none. */
  get lastIndex(): Index {
    return this.#first + this.#slots.length - 1;
  }

  /** The number of the last frame. */
  get frame(): number {
    return this.#number;
  }

  /** Bytes of all entries. */
  get bytes(): number {
    return this.#bytes;
  }

  /** The term of an entry that is there. */
  term(index: Index): Term {
    return this.#slotOf(index).term;
  }

  /** @throws {DkvError} DATA_CORRUPT */
  entry(index: Index): Entry {
    const { place, entry } = this.#slotOf(index);
    if (entry !== null) return entry;
    assert(place !== null, `Entry ${index} is nowhere`);
    const { entries } = this.#frameAt(place);
    const found = entries[index - entries[0]!.index];
    assert(
      found?.index === index,
      `Frame ${place.number} has no entry ${index}`,
    );
    return found;
  }

  // ---------------------------------------------------------------- what changes it

  saveHardState(hardState: HardState): void {
    this.#unwritten.push({ type: "state", hardState });
  }

  /** Ends the log before an entry. */
  cut(index: Index): void {
    const gone = this.#slots.splice(index - this.#first);
    this.#bytes -= bytesOf(gone);
    this.#unwritten.push({ type: "cut", index });
  }

  append(entry: Entry): void {
    const bytes = entryBytes(entry);
    this.#slots.push({ term: entry.term, bytes, place: null, entry });
    this.#bytes += bytes;
    this.#unwritten.push({ type: "entry", entry });
  }

  /** Forgets the entries up to one. Their files are kept until {@linkcode Journal.release}. */
  drop(index: Index): void {
    const gone = this.#slots.splice(0, index + 1 - this.#first);
    this.#bytes -= bytesOf(gone);
    this.#first = index + 1;
  }

  /** Forgets everything: a snapshot that ends at `index` takes the place of the log. */
  restart(index: Index): void {
    this.#first = index + 1;
    this.#slots = [];
    this.#bytes = 0;
    this.#unwritten = [];
    this.#hardState = null;
    this.#read = null;
    for (const live of this.#live) live.lastIndex = 0;
  }

  // ---------------------------------------------------------------- durability

  /** True if there is something to sync. */
  get dirty(): boolean {
    return this.#unwritten.length > 0;
  }

  /**
   * Makes everything durable.
   *
   * @throws {DkvError} DISK_FULL, or whatever the disk says; the journal must not be used afterwards
   */
  sync(): void {
    if (this.#unwritten.length === 0) return;
    const frame = encodeFrame(this.#number + 1, this.#unwritten);
    const live = this.#roomFor(frame.length);
    const { segment, end } = live;
    segment.write(end, frame);
    segment.sync();
    live.end += frame.length;
    this.#number++;
    const bytes = frame.length;
    this.#settle(live, { segment, at: end, bytes, number: this.#number });
  }

  /** Lets go of the files of dropped entries, once the store's mark says so durably. */
  release(index: Index): void {
    while (this.#live.length > 1 && this.#live[0]!.lastIndex <= index) {
      this.#recycle(this.#live.shift()!);
    }
  }

  /**
   * Takes a part of the space that should be there in advance: better while nobody waits. True if there
   * is more to take.
   */
  reserve(): boolean {
    if (this.#aheadBytes >= this.#reserveBytes) {
      this.#isFull = false;
      return false;
    }
    const segment = this.#growing();
    try {
      segment.write(segment.bytes, EXTENSION);
      segment.sync();
      this.#isFull = false;
    } catch (error) {
      if (!(error instanceof DkvError && error.code === "DISK_FULL")) {
        throw error;
      }
      this.#isFull = true;
      return false;
    }
    return true;
  }

  /** True if the disk has no space for what should be there in advance. */
  get full(): boolean {
    return this.#isFull;
  }

  /** True if the reserve is nearly used up as well. */
  get exhausted(): boolean {
    return this.#isFull && this.#aheadBytes < MARGIN_BYTES;
  }

  /** As {@linkcode Journal.close}, for a disk that failed. */
  abandon(): void {
    try {
      this.close();
    } catch {
      // The failure that led here has been reported; the process is about to end.
    }
  }

  close(): void {
    for (const { segment } of [...this.#live, ...this.#spares]) segment.close();
  }

  // ---------------------------------------------------------------- private

  #slotOf(index: Index): Slot {
    const slot = this.#slots[index - this.#first];
    assert(
      slot !== undefined,
      `No log entry ${index}: the log holds ${this.#first} to ${this.lastIndex}`,
    );
    return slot;
  }

  #frameAt(place: Place): { entries: readonly Entry[] } {
    if (this.#read?.place === place) return this.#read;
    const { segment, at, bytes, number } = place;
    const frame = decodeFrame(segment.read(at, bytes), 0);
    if (frame?.number !== number) {
      throw this.#corrupt(`frame ${number} of the log fails its checksum`);
    }
    this.#read = { place, entries: entriesOf(frame) };
    return this.#read;
  }

  get #current(): Live {
    return this.#live.at(-1)!;
  }

  /** Bytes that can be written without asking the disk for space. */
  get #aheadBytes(): number {
    const { segment, end } = this.#current;
    return this.#spares.reduce(
      (sum, spare) => sum + spare.segment.bytes,
      Math.max(0, segment.bytes - end),
    );
  }

  /** Where the next space in advance goes. */
  #growing(): Segment {
    const last = this.#spares.at(-1) ?? this.#current;
    if (last.segment.bytes < this.#segmentBytes) return last.segment;
    const number = last.number + 1;
    const segment = this.#segments.open(number);
    this.#spares.push({ number, segment });
    return segment;
  }

  #roomFor(bytes: number): Live {
    const { end, number } = this.#current;
    if (end === 0 || end + bytes <= this.#segmentBytes) return this.#current;
    const next = this.#spares.shift() ??
      { number: number + 1, segment: this.#segments.open(number + 1) };
    this.#live.push({ ...next, end: 0, lastIndex: 0 });
    return this.#current;
  }

  /** What was written is read from its place from now on. */
  #settle(live: Live, place: Place): void {
    for (const record of this.#unwritten) {
      if (record.type !== "entry") continue;
      const { index } = record.entry;
      const slot = this.#slots[index - this.#first];
      // One that was cut or dropped meanwhile has no slot, or it is that of another in the same frame.
      if (slot === undefined) continue;
      slot.place = place;
      slot.entry = null;
      live.lastIndex = Math.max(live.lastIndex, index);
    }
    this.#unwritten = [];
  }

  #recycle({ number, segment }: Live): void {
    const isWanted = this.#spares.length < SPARES_MAX &&
      segment.bytes <= 2 * this.#segmentBytes;
    if (!isWanted) {
      segment.close();
      return this.#segments.remove(number);
    }
    const next = (this.#spares.at(-1) ?? this.#current).number + 1;
    this.#segments.renumber(number, next);
    this.#spares.push({ number: next, segment });
  }

  // ---------------------------------------------------------------- start

  /** Reads every frame once. */
  #load(mark: JournalMark): void {
    const numbers = this.#segments.list();
    for (const number of numbers.length > 0 ? numbers : [1]) {
      const segment = this.#segments.open(number);
      const bytes = segment.read(0, segment.bytes);
      if (this.#isSpare(bytes)) this.#spares.push({ number, segment });
      else this.#loadSegment({ number, segment, bytes }, mark);
    }
    if (this.#number < mark.frame) {
      throw this.#corrupt(
        `the log ends at frame ${this.#number}, the store was saved after frame ${mark.frame}`,
      );
    }
    this.#start(mark.start);
  }

  /** True for a segment that does not go on where the one before ended. */
  #isSpare(bytes: Uint8Array): boolean {
    if (this.#live.length === 0) return false;
    const frame = decodeFrame(bytes, 0);
    if (frame !== null && frame.number === this.#number + 1) return false;
    this.#refuseLater(bytes, 0);
    return true;
  }

  #loadSegment(
    { number, segment, bytes }: {
      number: number;
      segment: Segment;
      bytes: Uint8Array;
    },
    mark: JournalMark,
  ): void {
    const live: Live = { number, segment, end: 0, lastIndex: 0 };
    this.#live.push(live);
    for (;;) {
      const frame = decodeFrame(bytes, live.end);
      const isNext = frame !== null &&
        (this.#number === 0 || frame.number === this.#number + 1);
      if (!isNext) break;
      const at = live.end;
      live.end += frame.bytes;
      this.#number = frame.number;
      const { number } = frame;
      const place = { segment, at, bytes: frame.bytes, number };
      this.#take(frame, { place, live, mark });
    }
    this.#refuseLater(bytes, live.end);
  }

  /** The next frame was never finished; if one after it was, it has been, and is damaged. */
  #refuseLater(bytes: Uint8Array, from: number): void {
    const number = this.#number + 1;
    if (!hasLaterFrame(bytes, { from, number })) return;
    throw this.#corrupt(`frame ${number} of the log fails its checksum`);
  }

  #take(
    { number, records }: JournalFrame,
    { place, live, mark }: { place: Place; live: Live; mark: JournalMark },
  ): void {
    if (number <= mark.voidFrame) return;
    for (const record of records) {
      if (record.type === "state") {
        if (number > mark.frame) this.#hardState = record.hardState;
      } else if (record.type === "cut") {
        this.#slots.splice(Math.max(0, record.index - this.#first));
      } else {
        const { entry } = record;
        if (this.#slots.length === 0) this.#first = entry.index;
        if (entry.index !== this.lastIndex + 1) {
          throw this.#corrupt(
            `entry ${entry.index} of the log follows ${this.lastIndex}`,
          );
        }
        const bytes = entryBytes(entry);
        this.#slots.push({ term: entry.term, bytes, place, entry: null });
        live.lastIndex = Math.max(live.lastIndex, entry.index);
      }
    }
  }

  /** Drops what was dropped before; all that follows must be there. */
  #start(index: Index): void {
    if (this.#slots.length === 0 || this.lastIndex <= index) this.#slots = [];
    else if (this.#first > index + 1) {
      throw this.#corrupt(
        `the log begins at entry ${this.#first}, not at ${index + 1}`,
      );
    } else this.#slots.splice(0, index + 1 - this.#first);
    this.#first = index + 1;
    this.#bytes = bytesOf(this.#slots);
  }

  #corrupt(what: string): DkvError {
    return corruptError(this.#path, what);
  }
}

function bytesOf(slots: readonly Slot[]): number {
  return slots.reduce((sum, { bytes }) => sum + bytes, 0);
}

/** The entries that a frame leaves behind, consecutive. */
function entriesOf({ records }: JournalFrame): Entry[] {
  const entries: Entry[] = [];
  for (const record of records) {
    const [first] = entries;
    if (record.type === "cut" && first !== undefined) {
      entries.length = Math.max(0, record.index - first.index);
    } else if (record.type === "entry") entries.push(record.entry);
  }
  return entries;
}
