/**
 * The commands that carry keys and values in and out: `export`, `import`. Used by `cli.ts`; the
 * format of a line is in `records.ts`.
 *
 * ```text
 *   lines ─▶ batch ─▶ transaction ┐
 *                     transaction ├─▶ in flight, bounded ─▶ done up to line N ─▶ FILE.progress
 *                     transaction ┘
 * ```
 *
 * A batch is one transaction, so a line of the file is never half imported. A file is read through
 * before anything is written: a bad line means that nothing was.
 *
 * @module
 */

import { type Arguments, EXIT, Refusal, UsageError } from "./arguments.ts";
import type { Client, PutOperation } from "./client.ts";
import { LIMITS } from "./config.ts";
import { connectTo, exitOf, type Invocation } from "./invocation.ts";
import { listedKeys, openFile } from "./keyspace.ts";
import {
  type Lines,
  linesOf,
  parseRecord,
  recordLine,
  type StoredRecord,
} from "./records.ts";
import { countText, Meter, note, Output, Stop } from "./terminal.ts";

const KIB = 1024;
/** Keys and values of one transaction, unless a single record has more. */
const BATCH_BYTES = 256 * KIB;
/** Transactions that are not answered yet. */
const IN_FLIGHT_MAX = 32;
/** Longer than an election takes. */
const TIMEOUT_MS = 30_000;
/** How often it is written down how far an import is. */
const SAVE_MS = 1000;
const READ_BYTES = 256 * KIB;

// ------------------------------------------------------------------ export

/** `dkv export [PREFIX]`: all keys, or some, as they were at one revision. */
export async function exportRecords(invocation: Invocation): Promise<number> {
  const { args, out } = invocation;
  const path = args.text("file");
  const keys = listedKeys(args);
  const revision = args.number("revision");
  const isAll = "prefix" in keys && keys.prefix === "";
  await using client = await connectTo(args, { timeoutMs: TIMEOUT_MS });
  const total = isAll ? (await client.status()).keys : null;
  const meter = new Meter("exporting", {
    isShown: path !== undefined || !out.isTerminal,
  });
  let records = 0;
  let leased = 0;
  await writeTo(path, out, async (target) => {
    const options = revision === undefined ? keys : { ...keys, revision };
    for await (const { keyBytes, value, lease } of client.list(options)) {
      await target.write(recordLine({ key: keyBytes, value }));
      records++;
      if (lease !== 0n) leased++;
      meter.update(records, total === null ? null : records / total);
    }
  });
  note(summary("exported", { records, seconds: meter.end() }));
  if (leased > 0) {
    note(`dkv: ${leased} of them hang on leases; what is exported does not`);
  }
  return records > 0 ? EXIT.done : EXIT.notFound;
}

/** Under the name of a file there is only ever a whole one. */
async function writeTo(
  path: string | undefined,
  out: Output,
  write: (target: Output) => Promise<void>,
): Promise<void> {
  if (path === undefined || path === "-") return await write(out);
  const partial = `${path}.partial`;
  using file = await Deno.create(partial);
  const target = new Output({
    write: (bytes) => file.write(bytes),
    isTerminal: () => false,
  });
  try {
    await write(target);
    await target.flush();
    await file.sync();
    await Deno.rename(partial, path);
  } catch (error) {
    await Deno.remove(partial);
    throw error;
  }
}

function summary(
  verb: string,
  { records, seconds }: { records: number; seconds: number },
): string {
  const perSecond = countText(records / Math.max(seconds, 0.001));
  const what = records === 1 ? "record" : "records";
  return `${countText(records)} ${what} ${verb} in ${
    seconds.toFixed(1)
  } s, ${perSecond}/s`;
}

// ------------------------------------------------------------------ import

/** `dkv import FILE`, or `-` for the standard input. */
export async function importRecords(invocation: Invocation): Promise<number> {
  const { args, out } = invocation;
  const [path] = args.take("FILE");
  const source = await Source.open(path, args);
  using stop = new Stop();
  let signals = 0;
  stop.follow((signal) => {
    // Who asks twice does not want to wait for answers.
    if (++signals > 1) Deno.exit(exitOf(signal));
  });
  try {
    await source.check(stop.signal);
    await using client = await connectTo(args, { timeoutMs: TIMEOUT_MS, stop });
    await using writer = new Writer(client, source);
    const meter = new Meter("importing");
    await source.each(stop.signal, async (record, line) => {
      await writer.add(record, line);
      meter.update(writer.records, source.share);
    });
    await writer.finish();
    const seconds = meter.end();
    if (stop.told !== null) {
      note(`dkv: interrupted; ${source.hint()}`);
      return exitOf(stop.told);
    }
    await source.forget();
    const { records } = writer;
    const text = summary("imported", { records, seconds });
    await out.line(
      args.flag("json") ? JSON.stringify({ records, seconds }) : text,
    );
    return EXIT.done;
  } catch (error) {
    if (source.doneLine > 0) note(`dkv: ${source.hint()}`);
    throw error;
  }
}

/** How far an import is, in a file beside the one that is imported. */
interface Progress {
  /** All lines up to this one are imported. */
  readonly line: number;
  /** Of the file: whether it is still the same. */
  readonly bytes: number;
  readonly modifiedMs: number;
}

/** The lines to import, and up to which of them that is done. */
class Source {
  readonly #path: string;
  /** Null for the standard input. */
  readonly #file: { bytes: number; modifiedMs: number } | null;
  readonly #skipped: number;
  /** All lines up to this one are imported; 0 if none is. */
  doneLine = 0;
  #readBytes = 0;
  #savedMs = performance.now();
  /** False as soon as the progress could not be written down. */
  #isSaved = true;

  private constructor(
    path: string,
    file: { bytes: number; modifiedMs: number } | null,
    skipped: number,
  ) {
    this.#path = path;
    this.#file = file;
    this.#skipped = skipped;
  }

  static async open(path: string, args: Arguments): Promise<Source> {
    const skipped = args.number("skip-lines");
    const isResumed = args.flag("resume");
    if (skipped !== undefined && isResumed) {
      throw new UsageError("import takes --resume or --skip-lines, not both");
    }
    if (path === "-") {
      if (!isResumed) return new Source(path, null, skipped ?? 0);
      throw new UsageError("the standard input takes --skip-lines N");
    }
    using file = await openFile(path);
    const { size: bytes, mtime } = await file.stat();
    const about = { bytes, modifiedMs: mtime?.getTime() ?? 0 };
    if (!isResumed) return new Source(path, about, skipped ?? 0);
    const { line, ...then } = await readProgress(path);
    if (then.bytes !== bytes || then.modifiedMs !== about.modifiedMs) {
      throw new Refusal(
        `${path} has changed since its import was interrupted at line ${line}`,
      );
    }
    return new Source(path, about, line);
  }

  /** How much of it was read, from 0 to 1; null if nobody knows. */
  get share(): number | null {
    return this.#file === null ? null : this.#readBytes / this.#file.bytes;
  }

  /** Reads a file through, so that a bad line is found before anything is written. */
  async check(signal: AbortSignal): Promise<void> {
    if (this.#file === null) return;
    const meter = new Meter("checking ");
    let records = 0;
    try {
      await this.each(signal, () => {
        meter.update(++records, this.share);
      });
    } finally {
      meter.end();
    }
  }

  /**
   * Calls back with every record and its line; ends early when the signal is aborted.
   *
   * @throws {Refusal} with the path and the number of a bad line.
   */
  async each(
    signal: AbortSignal,
    take: (record: StoredRecord, line: number) => Promise<void> | void,
  ): Promise<void> {
    using file = this.#file === null ? null : await openFile(this.#path);
    const bytes = file === null ? Deno.stdin.readable : chunksOf(file);
    this.#readBytes = 0;
    try {
      for await (const lines of linesOf(bytes)) {
        await this.#records(lines, { signal, take });
        this.#readBytes = lines.endBytes;
        if (signal.aborted) return;
      }
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      const where = this.#file === null ? "line " : `${this.#path}:`;
      throw new Refusal(`${where}${error.message}`);
    }
  }

  async #records(
    { first, lines }: Lines,
    { signal, take }: {
      signal: AbortSignal;
      take: (record: StoredRecord, line: number) => Promise<void> | void;
    },
  ): Promise<void> {
    for (let at = 0; at < lines.length && !signal.aborted; at++) {
      const line = first + at;
      if (line <= this.#skipped) continue;
      let record: StoredRecord | null;
      try {
        record = parseRecord(lines[at] ?? "");
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        throw new Refusal(`${line}: ${error.message}`);
      }
      // Most of the time there is nothing to wait for.
      const taken = record === null ? undefined : take(record, line);
      if (taken !== undefined) await taken;
    }
  }

  /** All lines up to this one are imported; that is written down now and then. */
  async done(line: number): Promise<void> {
    this.doneLine = line;
    if (performance.now() - this.#savedMs < SAVE_MS) return;
    await this.save();
  }

  async save(): Promise<void> {
    if (this.#file === null || !this.#isSaved || this.doneLine === 0) return;
    this.#savedMs = performance.now();
    const progress: Progress = { line: this.doneLine, ...this.#file };
    const path = progressPath(this.#path);
    try {
      await Deno.writeTextFile(`${path}.partial`, JSON.stringify(progress));
      await Deno.rename(`${path}.partial`, path);
    } catch {
      // A folder that may only be read, say: the import does not depend on it.
      this.#isSaved = false;
    }
  }

  /** How to go on. */
  hint(): string {
    const line = Math.max(this.doneLine, this.#skipped);
    const option = this.#file !== null && this.#isSaved && this.doneLine > 0
      ? "--resume"
      : `--skip-lines ${line}`;
    return `imported up to line ${line}; go on with: dkv import ${this.#path} ${option}`;
  }

  /** It is all imported. */
  async forget(): Promise<void> {
    if (this.#file === null) return;
    this.#isSaved = false;
    try {
      await Deno.remove(progressPath(this.#path));
    } catch {
      // There is none: the import was short.
    }
  }
}

function progressPath(path: string): string {
  return `${path}.progress`;
}

async function readProgress(path: string): Promise<Progress> {
  const name = progressPath(path);
  try {
    const progress = JSON.parse(await Deno.readTextFile(name));
    const { line, bytes, modifiedMs } = progress as Record<string, unknown>;
    const isWhole = [line, bytes, modifiedMs].every(Number.isFinite);
    if (isWhole) return progress as Progress;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) {
      throw new Refusal(`There is nothing to resume: no file ${name}`);
    }
    if (!(error instanceof SyntaxError)) throw error;
  }
  throw new Refusal(`${name} does not say where to go on`);
}

async function* chunksOf(
  file: Deno.FsFile,
): AsyncGenerator<Uint8Array, void, undefined> {
  const buffer = new Uint8Array(READ_BYTES);
  while (true) {
    const count = await file.read(buffer);
    if (count === null) return;
    yield buffer.subarray(0, count);
  }
}

/** One transaction on its way. */
interface Batch {
  /** The last of its lines. */
  readonly line: number;
  readonly keys: readonly string[];
  /** Resolves with why it failed; null if it did not. */
  readonly settled: Promise<{ error: unknown } | null>;
}

/** Puts records into transactions and keeps a bounded number of these in flight. */
class Writer implements AsyncDisposable {
  /** That were taken. */
  records = 0;
  readonly #client: Client;
  readonly #source: Source;
  /** In the order of their lines. */
  readonly #inFlight: Batch[] = [];
  /** Keys in flight: transactions may overtake each other, and the last line wins. */
  readonly #busy = new Set<string>();
  #puts: PutOperation[] = [];
  #keys = new Set<string>();
  #bytes = 0;
  #line = 0;

  constructor(client: Client, source: Source) {
    this.#client = client;
    this.#source = source;
  }

  /** Takes a record; waits if too much is in flight. */
  add({ key, value }: StoredRecord, line: number): Promise<void> | void {
    const name = String.fromCharCode(...key);
    const bytes = key.length + value.length;
    const isFull = this.#puts.length >= LIMITS.transactionOperationsMax ||
      this.#bytes + bytes > BATCH_BYTES && this.#puts.length > 0 ||
      this.#keys.has(name);
    if (isFull || this.#busy.has(name)) {
      return this.#makeRoom(name).then(() => this.add({ key, value }, line));
    }
    this.#puts.push({ type: "put", key, value });
    this.#keys.add(name);
    this.#bytes += bytes;
    this.#line = line;
    this.records++;
  }

  /** Sends what is left and waits for all answers. */
  async finish(): Promise<void> {
    this.#send();
    while (this.#inFlight.length > 0) await this.#settle();
    await this.#source.save();
  }

  /** After a failure: how far it came is written down. */
  async [Symbol.asyncDispose](): Promise<void> {
    while (this.#inFlight.length > 0) {
      const batch = this.#inFlight.shift();
      // Later ones do not count: those that follow a failed one are done again.
      if (await batch?.settled !== null) this.#inFlight.length = 0;
      else if (batch !== undefined) this.#source.doneLine = batch.line;
    }
    await this.#source.save();
  }

  async #makeRoom(name: string): Promise<void> {
    this.#send();
    while (this.#inFlight.length >= IN_FLIGHT_MAX || this.#busy.has(name)) {
      await this.#settle();
    }
  }

  #send(): void {
    if (this.#puts.length === 0) return;
    const keys = [...this.#keys];
    for (const key of keys) this.#busy.add(key);
    const settled = this.#client.transact({ then: this.#puts }).then(
      () => null,
      (error: unknown) => ({ error }),
    );
    this.#inFlight.push({ line: this.#line, keys, settled });
    this.#puts = [];
    this.#keys = new Set();
    this.#bytes = 0;
  }

  /** Waits for the oldest. */
  async #settle(): Promise<void> {
    const [batch] = this.#inFlight;
    if (batch === undefined) return;
    const failure = await batch.settled;
    if (failure !== null) throw failure.error;
    this.#inFlight.shift();
    for (const key of batch.keys) this.#busy.delete(key);
    await this.#source.done(batch.line);
  }
}
