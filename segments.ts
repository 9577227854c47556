/**
 * The files of a journal, which are numbered and follow each other: on a real disk, and in memory for
 * simulated ones, where a crash takes away what was not synced. Used by `journal.ts`.
 *
 * @module
 */

import { assert, DkvError } from "./errors.ts";
import { folderOf, syncFolder } from "./folder.ts";

/** One file. */
export interface Segment {
  /** How large it is: what lies in it can be written again without asking the disk for space. */
  readonly bytes: number;
  /** Its bytes from a place on; fewer where it ends. */
  read(at: number, length: number): Uint8Array;
  /** @throws {DkvError} DISK_FULL */
  write(at: number, bytes: Uint8Array): void;
  /** Makes all that was written durable. */
  sync(): void;
  close(): void;
}

/** The files of one journal. */
export interface Segments {
  /** The numbers of those that exist, ascending. */
  list(): number[];
  /** Opens a file; one that does not exist is made, empty. */
  open(number: number): Segment;
  /** Gives a file another number, for good. */
  renumber(from: number, to: number): void;
  remove(number: number): void;
}

/** Files beside the one at `path`: `PATH-log.1`, `PATH-log.2` … */
export class SegmentFiles implements Segments {
  readonly #folder: string;
  readonly #name: string;

  constructor(path: string) {
    this.#folder = folderOf(path);
    this.#name = `${path.slice(path.lastIndexOf("/") + 1)}-log.`;
  }

  list(): number[] {
    const numbers: number[] = [];
    for (const { name } of Deno.readDirSync(this.#folder)) {
      if (!name.startsWith(this.#name)) continue;
      const number = Number(name.slice(this.#name.length));
      if (Number.isSafeInteger(number)) numbers.push(number);
    }
    return numbers.sort((a, b) => a - b);
  }

  open(number: number): Segment {
    const segment = new SegmentFile(this.#pathOf(number));
    if (segment.bytes === 0) syncFolder(this.#folder); // It may be new.
    return segment;
  }

  renumber(from: number, to: number): void {
    Deno.renameSync(this.#pathOf(from), this.#pathOf(to));
    syncFolder(this.#folder);
  }

  remove(number: number): void {
    Deno.removeSync(this.#pathOf(number));
    syncFolder(this.#folder);
  }

  #pathOf(number: number): string {
    return `${this.#folder}/${this.#name}${number}`;
  }
}

/** A file of {@linkcode SegmentFiles}. */
class SegmentFile implements Segment {
  readonly #path: string;
  readonly #file: Deno.FsFile;
  #bytes: number;
  /** Where the file stands: frames follow each other, so most writes need no seek. */
  #at = 0;

  constructor(path: string) {
    this.#path = path;
    this.#file = Deno.openSync(path, { read: true, write: true, create: true });
    this.#bytes = this.#file.statSync().size;
  }

  get bytes(): number {
    return this.#bytes;
  }

  read(at: number, length: number): Uint8Array {
    const bytes = new Uint8Array(
      Math.max(0, Math.min(length, this.#bytes - at)),
    );
    this.#seek(at);
    for (let done = 0; done < bytes.length;) {
      const count = this.#file.readSync(bytes.subarray(done));
      if (count === null) return bytes.subarray(0, done);
      done += count;
      this.#at += count;
    }
    return bytes;
  }

  write(at: number, bytes: Uint8Array): void {
    this.#seek(at);
    try {
      for (let done = 0; done < bytes.length;) {
        const count = this.#file.writeSync(bytes.subarray(done));
        done += count;
        this.#at += count;
      }
    } catch (error) {
      throw isFull(error)
        ? new DkvError("DISK_FULL", `No space left to write ${this.#path}`, {
          cause: error,
        })
        : error;
    } finally {
      this.#bytes = Math.max(this.#bytes, this.#at);
    }
  }

  sync(): void {
    this.#file.syncDataSync();
  }

  close(): void {
    this.#file.close();
  }

  #seek(at: number): void {
    if (at === this.#at) return;
    this.#file.seekSync(at, Deno.SeekMode.Start);
    this.#at = at;
  }
}

/** ENOSPC or EDQUOT, which Deno has no class for. */
function isFull(error: unknown): boolean {
  const { code, message } = error as { code?: string; message?: string };
  return code === "ENOSPC" || code === "EDQUOT" ||
    /os error (28|122)/.test(message ?? "");
}

/** What a write has replaced. */
interface Undo {
  readonly at: number;
  readonly before: Uint8Array;
  readonly bytes: number;
}

/** Files in memory. */
export class SegmentsInMemory implements Segments {
  #segments = new Map<number, SegmentInMemory>();

  list(): number[] {
    return [...this.#segments.keys()].sort((a, b) => a - b);
  }

  open(number: number): SegmentInMemory {
    const segment = this.#segments.get(number) ?? new SegmentInMemory();
    this.#segments.set(number, segment);
    return segment;
  }

  renumber(from: number, to: number): void {
    const segment = this.#segments.get(from);
    assert(segment !== undefined, `No segment ${from} to make ${to} of`);
    this.#segments.delete(from);
    this.#segments.set(to, segment);
  }

  remove(number: number): void {
    this.#segments.delete(number);
  }

  /** Takes away what was not synced. */
  crash(): void {
    for (const segment of this.#segments.values()) segment.crash();
  }

  /** The same files once more, as they were last synced. */
  copy(): SegmentsInMemory {
    const copy = new SegmentsInMemory();
    for (const [number, segment] of this.#segments) {
      copy.#segments.set(number, segment.copy());
    }
    return copy;
  }
}

/** A file of {@linkcode SegmentsInMemory}. */
class SegmentInMemory implements Segment {
  /** At least as long as the file. */
  #data = new Uint8Array(0);
  #bytes = 0;
  /** Of all writes since the last sync. */
  #undo: Undo[] = [];

  get bytes(): number {
    return this.#bytes;
  }

  read(at: number, length: number): Uint8Array {
    return this.#data.slice(at, Math.min(at + length, this.#bytes));
  }

  write(at: number, bytes: Uint8Array): void {
    const end = at + bytes.length;
    if (end > this.#data.length) {
      const data = new Uint8Array(Math.max(end, 2 * this.#data.length));
      data.set(this.#data);
      this.#data = data;
    }
    const before = this.#data.slice(at, end);
    this.#undo.push({ at, before, bytes: this.#bytes });
    this.#data.set(bytes, at);
    this.#bytes = Math.max(this.#bytes, end);
  }

  sync(): void {
    this.#undo = [];
  }

  close(): void {}

  crash(): void {
    for (const { at, before, bytes } of this.#undo.toReversed()) {
      this.#data.set(before, at);
      this.#bytes = bytes;
    }
    this.#undo = [];
  }

  copy(): SegmentInMemory {
    const copy = new SegmentInMemory();
    copy.#data = this.#data.slice();
    copy.#bytes = this.#bytes;
    copy.#undo = [...this.#undo];
    copy.crash();
    return copy;
  }
}
