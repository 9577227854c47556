/**
 * The disk of a simulated machine: the real one in memory, with a mirror of what it must hold and
 * places where it can fail. The mirror is what the checkers look at, and what the disk is compared
 * with after each crash. Used by `machine.ts`.
 *
 * @module
 */

import { DatabaseSync } from "node:sqlite";
import { assert } from "../../errors.ts";
import { Disk } from "../../disk.ts";
import { decodeFrame } from "../../journalframe.ts";
import { SegmentsInMemory } from "../../segments.ts";
import type { Position } from "../../log.ts";
import type {
  Configuration,
  Entry,
  HardState,
  Index,
  SnapshotMeta,
  Term,
} from "../../message.ts";
import type { Random } from "./random.ts";
import { must } from "./violation.ts";

/** What a disk holds, replaced as a whole when something changes. */
export interface Held {
  /** What comes before the first entry. */
  readonly base: Position;
  readonly entries: readonly Entry[];
  readonly hardState: HardState;
  /** The state contains everything up to here. */
  readonly applied: Index;
}

/** Heard before and after each sync and each commit that has something to do; may throw to fail it. */
export type CommitHook = (phase: "before" | "after") => void;

/** All that a disk keeps over a crash. */
export interface DiskImage {
  readonly rows: Uint8Array;
  readonly segments: SegmentsInMemory;
}

/** Small, so that many segments are begun, used up and used again. */
const SEGMENT_BYTES = 16 * 1024;
/** Small, so that crashes find rows that are behind the log by this and that much. */
const COMMIT_BYTES = 2 * 1024;

/** A disk that can fail. */
export class SimDisk extends Disk {
  /** What was written, durable or not. */
  written: Held;
  /** What a crash leaves. */
  durable: Held;
  /** Heard of every entry that is written, with the one before it. */
  onAppend: (entry: Entry, before: Position) => void = () => {};
  onCommit: CommitHook = () => {};
  /** Of its journal. */
  readonly segments: SegmentsInMemory;
  /** What it holds need not be what was written. */
  readonly #isDamaged: boolean;

  /** Empty, or with the damaged image of a disk that held `held`. */
  constructor(
    options: { bootstrap: Configuration; image?: DiskImage; held?: Held },
  ) {
    const { bootstrap, image, held } = options;
    const segments = image?.segments ?? new SegmentsInMemory();
    super({
      path: ":memory:",
      bootstrap,
      image: image?.rows,
      segments,
      segmentBytes: SEGMENT_BYTES,
      commitBytes: COMMIT_BYTES,
    });
    this.segments = segments;
    this.#isDamaged = held !== undefined;
    this.written = options.held ?? this.#read();
    this.durable = this.written;
  }

  override appendEntries(
    entries: readonly Entry[],
    truncateFrom: Index | null,
  ): void {
    super.appendEntries(entries, truncateFrom);
    const { base } = this.written;
    const kept = truncateFrom === null
      ? this.written.entries
      : this.written.entries.slice(0, truncateFrom - base.index - 1);
    let before = lastOf({ ...this.written, entries: kept });
    for (const entry of entries) {
      this.onAppend(entry, before);
      before = { index: entry.index, term: entry.term };
    }
    this.written = { ...this.written, entries: [...kept, ...entries] };
  }

  override dropEntries(index: Index): void {
    const term = termOf(this.written, index);
    super.dropEntries(index);
    const { base, entries } = this.written;
    this.written = {
      ...this.written,
      base: { index, term: term! },
      entries: entries.slice(index - base.index),
    };
  }

  override sync(): void {
    if (this.isSynced) return;
    this.onCommit("before");
    super.sync();
    const { base, entries } = this.durable;
    this.#becomeDurable({
      ...this.durable,
      hardState: this.hardState,
      // The log begins where the last commit says.
      entries: [
        ...entries.slice(0, this.written.base.index - base.index),
        ...this.written.entries,
      ],
    });
    this.onCommit("after");
  }

  override commit(): void {
    if (!this.dirty) return;
    this.onCommit("before");
    super.commit();
    this.written = {
      ...this.written,
      hardState: this.hardState,
      applied: this.storeState.appliedIndex,
    };
    this.#becomeDurable(this.written);
    this.onCommit("after");
  }

  /** All that a crash would leave, as a copy. */
  image(): DiskImage {
    return { rows: this.copy(), segments: this.segments.copy() };
  }

  /** A crash may come now: what is on disk must be a state to start from. */
  #becomeDurable(held: Held): void {
    const { hardState: before } = this.durable;
    this.durable = held;
    const { hardState } = this.durable;
    const last = lastOf(this.durable);
    must(
      last.term <= hardState.term,
      "the disk holds a legal state",
      () => `the log ends in term ${last.term}, the term is ${hardState.term}`,
    );
    must(
      before.term < hardState.term ||
        before.term === hardState.term &&
          (before.vote === null || before.vote === hardState.vote),
      "the disk holds a legal state",
      () => `${JSON.stringify(hardState)} after ${JSON.stringify(before)}`,
    );
  }

  /** A crash. The disk must hold exactly what was committed. */
  override reopen(): void {
    super.reopen();
    this.written = this.durable;
    if (this.#isDamaged) return;
    const read = this.#read();
    const { base, entries, hardState, applied } = this.durable;
    assert(
      read.base.index === base.index && read.base.term === base.term &&
        read.entries.length === entries.length && read.applied === applied &&
        read.entries.every(({ term }, i) => term === entries[i]!.term),
      `After a crash the log is ${show(read)}, committed was ${
        show(this.durable)
      }`,
    );
    assert(
      JSON.stringify(read.hardState) === JSON.stringify(hardState),
      `After a crash the hard state is ${JSON.stringify(read.hardState)}, ` +
        `committed was ${JSON.stringify(hardState)}`,
    );
  }

  override installCopy(image: Uint8Array, meta: SnapshotMeta): void {
    this.onCommit("before");
    super.installCopy(image, meta);
    this.written = this.#read();
    this.#becomeDurable(this.written);
    this.onCommit("after");
  }

  #read(): Held {
    const { firstIndex, lastIndex } = this;
    const index = firstIndex - 1;
    return {
      base: { index, term: this.term(index) },
      entries: this.entries(firstIndex, lastIndex + 1, Infinity),
      hardState: this.hardState,
      applied: this.storeState.appliedIndex,
    };
  }
}

/** The term of an entry in a log; null if it does not reach there, or no longer. */
export function termOf(
  { base, entries }: Pick<Held, "base" | "entries">,
  index: Index,
): Term | null {
  if (index === base.index) return base.term;
  return entries[index - base.index - 1]?.term ?? null;
}

/** Where a log ends. */
export function lastOf({ base, entries }: Pick<Held, "base" | "entries">) {
  const last = entries.at(-1);
  return last === undefined ? base : { index: last.index, term: last.term };
}

/** True if a log holds the entry, or a state that contains it. */
export function contains(held: Held, { index, term }: Position): boolean {
  return index < held.base.index || termOf(held, index) === term;
}

function show(held: Held): string {
  const last = lastOf(held);
  return `${held.base.index}/${held.base.term} to ${last.index}/${last.term}, applied ${held.applied}`;
}

const DAMAGES = [
  "UPDATE event SET value = CAST(x'7f' || value AS BLOB) WHERE position = (SELECT position FROM event ORDER BY position DESC LIMIT 1 OFFSET ?)",
  "UPDATE event SET value_crc = 4294967295 - value_crc WHERE position = (SELECT position FROM event ORDER BY position DESC LIMIT 1 OFFSET ?)",
  "UPDATE event SET meta = CAST(meta || x'31' AS BLOB) WHERE position = (SELECT position FROM event ORDER BY position DESC LIMIT 1 OFFSET ?)",
  "UPDATE lease SET deadline_ms = deadline_ms + 4096",
  "UPDATE session SET data = CAST(data || x'00' AS BLOB)",
  "UPDATE state SET data = replace(data, '1', '3')",
] as const;

/** A copy of a disk with some bytes changed; null if what was drawn met nothing. */
export function damage(
  { rows, segments }: DiskImage,
  random: Random,
): { image: DiskImage; what: string } | null {
  if (random.chance(400)) {
    const what = damageJournal(segments, random);
    return what === null ? null : { image: { rows, segments }, what };
  }
  const db = new DatabaseSync(":memory:");
  const serial = db as unknown as {
    serialize(): Uint8Array;
    deserialize(image: Uint8Array): void;
  };
  serial.deserialize(rows);
  const sql = random.pick(DAMAGES);
  const statement = db.prepare(sql);
  const { changes } = sql.includes("?")
    ? statement.run(random.below(8))
    : statement.run();
  const damaged = serial.serialize();
  db.close();
  if (Number(changes) === 0) return null;
  return { image: { rows: damaged, segments }, what: sql };
}

/**
 * Flips one bit of a frame. Not of the last one: had a crash interrupted it, it would look the same,
 * and then nobody would have been told of it.
 */
function damageJournal(
  segments: SegmentsInMemory,
  random: Random,
): string | null {
  const frames = framesOf(segments);
  const last = Math.max(...frames.map(({ frame }) => frame));
  const others = frames.filter(({ frame }) => frame < last);
  if (others.length === 0) return null;
  const { number, frame, at, bytes } = random.pick(others);
  const segment = segments.open(number);
  const place = at + random.below(bytes);
  const [byte = 0] = segment.read(place, 1);
  segment.write(place, Uint8Array.of(byte ^ 1 << random.below(8)));
  segment.sync();
  return `a bit of frame ${frame} of the journal, the last is ${last}`;
}

/** Where frames are: those that are in force, and in spare segments what they held before. */
function framesOf(segments: SegmentsInMemory) {
  return segments.list().flatMap((number) => {
    const segment = segments.open(number);
    const bytes = segment.read(0, segment.bytes);
    const found: {
      number: number;
      frame: number;
      at: number;
      bytes: number;
    }[] = [];
    let frame = decodeFrame(bytes, 0);
    for (let at = 0; frame !== null; frame = decodeFrame(bytes, at)) {
      found.push({ number, frame: frame.number, at, bytes: frame.bytes });
      at += frame.bytes;
    }
    return found;
  });
}
