/**
 * Client sessions of the store: what makes a retried write apply once. For each client the results
 * of its latest writes are remembered, by sequence number, until the client says that it has seen
 * them (`doneBelow`). Used by `store.ts`.
 *
 * What changed nothing is remembered as well, errors too: the client has that answer, so a second
 * copy of the write that was under way all the time must not take effect behind its back. A result
 * with more than a kilobyte of entries is remembered without them: its repetition answers with the
 * same revision and counts, but no entries.
 *
 * A client that was silent for `sessionTtlMs` of log time is forgotten; a write that it repeats
 * after that is a new write.
 *
 * @module
 */
import type { WriteId } from "./batch.ts";
import { Digest } from "./digest.ts";
import { assert } from "./errors.ts";
import {
  readResult,
  refusal,
  type Result,
  resultBytes,
  stripResult,
  writeResult,
} from "./results.ts";
import { SlidingMap } from "./slidingmap.ts";
import { Pen, Reader } from "./wire.ts";

/** A session on disk. */
export interface SessionRow {
  /** The client's id: latin1, 1 to 32 bytes. */
  readonly client: string;
  /** Message Session of `proto/entry.proto`. */
  readonly data: Uint8Array;
}

/** What the sessions need of a disk. */
export interface SessionRows {
  /** Inserts or replaces. The row's `data` are asked for when it is written: with the next commit. */
  putSession(client: string, data: () => Uint8Array): void;
  removeSession(client: string): void;
  sessions(): SessionRow[];
}

export interface SessionLimits {
  readonly sessionsMax: number;
  /** How many results are remembered for one client. */
  readonly sessionResultsMax: number;
  /** In log time. */
  readonly sessionTtlMs: number;
}

/** Where in the log a command stands. */
export interface LogPlace {
  readonly index: number;
  /** Among the commands of its entry. */
  readonly place: number;
  readonly timeMs: number;
}

/** A result with more than this in entries is remembered without them. */
const REMEMBERED_BYTES_MAX = 1024;
/** How many silent clients are forgotten with one entry: the work of an entry is bounded. */
const EXPIRIES_PER_ENTRY_MAX = 100;

interface Session {
  readonly client: string;
  /** Stands for the client in the digest. */
  readonly clientHash: number;
  doneBelow: number;
  /** When the client last wrote: what decides who is forgotten. */
  active: LogPlace;
  /** By sequence, all at or above `doneBelow`. At most `sessionResultsMax`. */
  readonly results: SlidingMap<Result>;
}

export class Sessions {
  readonly #rows: SessionRows;
  readonly #limits: SessionLimits;
  readonly #digest: Digest;
  /** The least recently active first. */
  readonly #sessions = new Map<string, Session>();
  /** Sessions whose row is out of date. */
  readonly #dirty = new Set<Session>();
  /** The last in `#sessions`. */
  #latest: Session | null = null;

  /** Reads the sessions from disk. */
  constructor(
    rows: SessionRows,
    options: { limits: SessionLimits; digest: Digest },
  ) {
    this.#rows = rows;
    this.#limits = options.limits;
    this.#digest = options.digest;
    const sessions = rows.sessions().map(decodeSession);
    sessions.sort((a, b) =>
      a.active.index - b.active.index || a.active.place - b.active.place
    );
    for (const session of sessions) this.#sessions.set(session.client, session);
    this.#latest = sessions.at(-1) ?? null;
  }

  get size(): number {
    return this.#sessions.size;
  }

  /** Decides about a write: null if it is to be applied, otherwise what to answer instead. */
  admit(writeId: WriteId, at: LogPlace): Result | null {
    const { client, sequence, doneBelow } = writeId;
    if (client === "" || !(sequence >= 1) || !(doneBelow >= 0)) {
      return refusal(
        "MALFORMED",
        `Write id is malformed: client of ${client.length} bytes, sequence ${sequence}, ` +
          `done below ${doneBelow}`,
      );
    }
    const session = this.#sessions.get(client);
    if (session !== undefined) {
      this.#touch(session, at);
      this.#settle(session, doneBelow);
      const known = session.results.get(sequence);
      if (known !== undefined) return known;
    }
    const floor = session?.doneBelow ?? doneBelow;
    if (sequence < floor) {
      return refusal(
        "SEQUENCE_STALE",
        `Sequence ${sequence} is stale: the client was answered for all below ${floor}`,
      );
    }
    if (session !== undefined) {
      const { sessionResultsMax } = this.#limits;
      if (session.results.size < sessionResultsMax) return null;
      return refusal(
        "OVERLOADED",
        `Too many results are remembered for the client: at most ${sessionResultsMax}; ` +
          `it must say which ones it has seen`,
      );
    }
    if (this.#sessions.size < this.#limits.sessionsMax) return null;
    return refusal(
      "OVERLOADED",
      `Too many clients: at most ${this.#limits.sessionsMax}`,
    );
  }

  /** Remembers what an admitted write did. */
  remember(writeId: WriteId, options: { result: Result; at: LogPlace }): void {
    const { client, sequence, doneBelow } = writeId;
    const { result, at } = options;
    let session = this.#sessions.get(client);
    if (session === undefined) {
      const clientHash = hashClient(client);
      session = {
        client,
        clientHash,
        doneBelow: 0,
        active: at,
        results: new SlidingMap(),
      };
      this.#sessions.set(client, session);
      this.#latest = session;
      this.#dirty.add(session);
      this.#settle(session, doneBelow);
    }
    this.#digest.number(session.clientHash);
    this.#digest.number(sequence);
    const small = resultBytes(result) <= REMEMBERED_BYTES_MAX;
    session.results.set(sequence, small ? result : stripResult(result));
  }

  /** Forgets clients that were silent for too long. */
  expire(timeMs: number): void {
    let count = 0;
    for (const session of this.#sessions.values()) {
      const idleMs = timeMs - session.active.timeMs;
      if (
        idleMs < this.#limits.sessionTtlMs || count === EXPIRIES_PER_ENTRY_MAX
      ) return;
      count++;
      this.#sessions.delete(session.client);
      this.#dirty.delete(session);
      if (this.#latest === session) this.#latest = null;
      this.#rows.removeSession(session.client);
      this.#digest.number(session.clientHash);
      this.#digest.number(session.doneBelow);
    }
  }

  /** Has the rows of the sessions that changed written: once for each, at the end of an entry. */
  flush(): void {
    for (const session of this.#dirty) {
      this.#rows.putSession(session.client, () => encodeSession(session));
    }
    this.#dirty.clear();
  }

  #touch(session: Session, at: LogPlace): void {
    session.active = at;
    this.#dirty.add(session);
    if (this.#latest === session) return;
    this.#latest = session;
    this.#sessions.delete(session.client);
    this.#sessions.set(session.client, session);
  }

  /** Drops the results that the client has seen. */
  #settle(session: Session, doneBelow: number): void {
    if (doneBelow <= session.doneBelow) return;
    session.results.deleteBelow(doneBelow);
    session.doneBelow = doneBelow;
    this.#digest.number(session.clientHash);
    this.#digest.number(doneBelow);
  }
}

function hashClient(client: string): number {
  const digest = new Digest(0);
  digest.text(client);
  return digest.seal();
}

const pen = new Pen();

/**
 * Results of puts without a previous entry, which are nearly all there are, go into one packed
 * field of triples: each sequence and revision as the difference to the triple before.
 */
function encodeSession(session: Session): Uint8Array {
  const { doneBelow, active, results } = session;
  pen.reset();
  pen.int64(1, doneBelow);
  pen.int64(2, active.timeMs);
  pen.int64(3, active.index);
  pen.int64(4, active.place);
  const puts = pen.open(5);
  let lastSequence = doneBelow;
  let lastRevision = 0;
  let others = 0;
  results.forEach((result, sequence) => {
    if (result.type !== "put" || result.previous !== null) {
      others++;
      return;
    }
    pen.packedSint64(sequence - lastSequence);
    pen.packedSint64(result.revision - lastRevision);
    pen.packedSint64(result.version);
    lastSequence = sequence;
    lastRevision = result.revision;
  });
  pen.close(puts);
  if (others > 0) writeOthers(results);
  return pen.finish();
}

function writeOthers(results: SlidingMap<Result>): void {
  results.forEach((result, sequence) => {
    if (result.type === "put" && result.previous === null) return;
    const start = pen.open(6);
    pen.int64(1, sequence);
    const inner = pen.open(2);
    writeResult(pen, result);
    pen.close(inner);
    pen.close(start);
  });
}

function decodeSession(row: SessionRow): Session {
  const reader = new Reader(row.data);
  const numbers = [0, 0, 0, 0];
  const results = new SlidingMap<Result>();
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === (5 << 3 | 2)) {
      readPuts(reader, { doneBelow: numbers[0]!, results });
    } else if (tag === (6 << 3 | 2)) readOther(reader, results);
    else {
      assert(
        (tag & 7) === 0 && tag <= 4 << 3,
        `Session has a field ${tag >> 3}`,
      );
      numbers[(tag >> 3) - 1] = reader.int64();
    }
  }
  const [doneBelow = 0, timeMs = 0, index = 0, place = 0] = numbers;
  return {
    client: row.client,
    clientHash: hashClient(row.client),
    doneBelow,
    active: { index, place, timeMs },
    results,
  };
}

function readPuts(
  reader: Reader,
  options: { doneBelow: number; results: SlidingMap<Result> },
): void {
  const outer = reader.enter();
  let sequence = options.doneBelow;
  let revision = 0;
  while (reader.more) {
    sequence += reader.packedSint64();
    revision += reader.packedSint64();
    const version = reader.packedSint64();
    options.results.set(sequence, {
      type: "put",
      revision,
      version,
      previous: null,
    });
  }
  reader.leave(outer);
}

function readOther(reader: Reader, results: SlidingMap<Result>): void {
  const outer = reader.enter();
  let sequence = 0;
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === 1 << 3) {
      sequence = reader.int64();
      continue;
    }
    const inner = reader.enter();
    results.set(sequence, readResult(reader));
    reader.leave(inner);
  }
  reader.leave(outer);
}
