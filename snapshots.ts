/**
 * The snapshot files of one group on their way out and in: made on a second connection by a
 * worker, received into a file of their own, installed by renaming. Used by `node.ts`.
 *
 * @module
 */

import type { Disk } from "./disk.ts";
import { assert, DkvError } from "./errors.ts";
import { randomHex } from "./identity.ts";
import type { Configuration, Index, SnapshotMeta } from "./message.ts";
import type { CopyAnswer, CopyRequest } from "./snapshot_worker.ts";

/** A snapshot that was made: delete the file after use. */
export interface Snapshot {
  readonly path: string;
  readonly bytes: number;
  readonly meta: SnapshotMeta;
}

/** Takes the bytes of a snapshot that another node sends. */
export interface IncomingSnapshot {
  write(bytes: Uint8Array): Promise<void>;
  /** The file is whole: makes it durable. */
  finish(): Promise<void>;
  abort(): Promise<void>;
}

const FILE_REGEXP = /^(outgoing|incoming)-[0-9a-f]+\.db/;
/** A copy that takes longer has hung: a gigabyte takes a few seconds. */
const COPY_TIMEOUT_MS = 10 * 60_000;

/** The snapshot files of one group. */
export class Snapshots {
  readonly #directory: string;
  readonly #bootstrap: Configuration;
  /** Files that arrived whole, by what they hold. */
  readonly #arrived = new Map<string, { path: string; index: Index }>();

  constructor(directory: string, bootstrap: Configuration) {
    this.#directory = directory;
    this.#bootstrap = bootstrap;
    for (const { name } of Deno.readDirSync(directory)) {
      if (FILE_REGEXP.test(name)) Deno.removeSync(`${directory}/${name}`);
    }
  }

  /**
   * Copies the committed state of the group's file, and reads the copy through.
   *
   * @throws {DkvError} DATA_CORRUPT if the group's file is damaged, INTERNAL if it cannot be copied
   */
  async make(source: string): Promise<Snapshot> {
    const path = `${this.#directory}/outgoing-${randomHex(8)}.db`;
    const bootstrap = this.#bootstrap;
    try {
      const answer = await copyInWorker({ source, target: path, bootstrap });
      if ("problem" in answer) {
        throw new DkvError(
          answer.isCorrupt ? "DATA_CORRUPT" : "INTERNAL",
          `Cannot copy ${source} for a snapshot: ${answer.problem}`,
        );
      }
      const { size } = await Deno.stat(path);
      return { path, bytes: size, meta: answer.meta };
    } catch (error) {
      await remove(path);
      throw error;
    }
  }

  /** A file for a snapshot that begins to arrive. */
  receive(meta: SnapshotMeta): IncomingSnapshot {
    const path = `${this.#directory}/incoming-${randomHex(8)}.db`;
    const file = Deno.openSync(path, {
      createNew: true,
      write: true,
      mode: 0o600,
    });
    return {
      write: async (bytes) => {
        for (let at = 0; at < bytes.length;) {
          at += await file.write(bytes.subarray(at));
        }
      },
      finish: async () => {
        await file.sync();
        file.close();
        const before = this.#arrived.get(nameOf(meta));
        this.#arrived.set(nameOf(meta), { path, index: meta.index });
        if (before !== undefined) await remove(before.path);
      },
      abort: async () => {
        try {
          file.close();
        } catch (error) {
          if (!(error instanceof Deno.errors.BadResource)) throw error;
        }
        await remove(path);
      },
    };
  }

  /** Puts the file that arrived for `meta` in the place of the disk's state. */
  install(disk: Disk, meta: SnapshotMeta): void {
    const arrived = this.#arrived.get(nameOf(meta));
    assert(
      arrived !== undefined,
      `No snapshot arrived for index ${meta.index}`,
    );
    this.#arrived.delete(nameOf(meta));
    disk.installSnapshot(arrived.path, meta);
    // Older ones are of no use; the message of a newer one may wait in the same turn.
    for (const [name, { path, index }] of this.#arrived) {
      if (index > meta.index) continue;
      this.#arrived.delete(name);
      void remove(path);
    }
  }
}

function nameOf({ index, term }: SnapshotMeta): string {
  return `${term}/${index}`;
}

async function copyInWorker(request: CopyRequest): Promise<CopyAnswer> {
  const worker = new Worker(new URL("./snapshot_worker.ts", import.meta.url), {
    type: "module",
  });
  const { promise, resolve, reject } = Promise.withResolvers<CopyAnswer>();
  const timer = setTimeout(
    () => resolve({ problem: "it takes too long", isCorrupt: false }),
    COPY_TIMEOUT_MS,
  );
  worker.onmessage = ({ data }: MessageEvent<CopyAnswer>) => resolve(data);
  worker.onerror = (event) => {
    event.preventDefault();
    reject(
      new DkvError("INTERNAL", `The snapshot worker failed: ${event.message}`),
    );
  };
  worker.postMessage(request);
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
    worker.terminate();
  }
}

async function remove(path: string): Promise<void> {
  for (const suffix of ["", "-wal", "-shm", "-journal"]) {
    try {
      await Deno.remove(path + suffix);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
}

/** Reads a snapshot's file piece by piece. */
export async function* readPieces(
  path: string,
  pieceBytes: number,
): AsyncGenerator<Uint8Array> {
  using file = await Deno.open(path);
  while (true) {
    const piece = new Uint8Array(pieceBytes);
    const length = await file.read(piece);
    if (length === null) return;
    yield piece.subarray(0, length);
  }
}

/** Removes a snapshot's file after use. */
export async function removeSnapshot({ path }: Snapshot): Promise<void> {
  await remove(path);
}
