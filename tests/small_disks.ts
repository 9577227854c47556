/**
 * A small file system for each node, in memory, and ballast that fills it: for tests of full disks.
 * Needs the right to mount, which few have who are not root; see {@linkcode mayMount}.
 *
 * ```text
 *   directory/node1   tmpfs of so many bytes
 *     data            the node's
 *     ballast         all the rest, but for what is to be left
 * ```
 *
 * @module
 */

import { assert } from "@std/assert";
import { has } from "./needs.ts";

const MIB = 1024 * 1024;

function run(command: string, args: readonly string[]): boolean {
  const { success } = new Deno.Command(command, {
    args: [...args],
    stdout: "null",
    stderr: "null",
  }).outputSync();
  return success;
}

function mount(path: string, sizeBytes: number): boolean {
  Deno.mkdirSync(path, { recursive: true });
  const options = `size=${sizeBytes},mode=0700`;
  return run("mount", ["-t", "tmpfs", "-o", options, "tmpfs", path]);
}

/** Whether small file systems can be had, found out by trying. */
export function mayMount(): boolean {
  if (!has(["read", "write", "mount"])) return false;
  const path = decodeURIComponent(
    new URL("../.tmp/may-mount", import.meta.url).pathname,
  );
  try {
    return mount(path, MIB) && run("umount", [path]);
  } finally {
    Deno.removeSync(path);
  }
}

/** File systems of the same size, one for each node. */
export class SmallDisks implements Disposable {
  readonly #directory: string;
  readonly #ids: readonly string[];
  readonly #bytes: number;

  /** Mounts them below `directory`. */
  constructor(
    directory: string,
    { ids, bytes }: { ids: readonly string[]; bytes: number },
  ) {
    this.#directory = directory;
    this.#ids = ids;
    this.#bytes = bytes;
    try {
      for (const id of ids) assert(mount(this.#path(id), bytes), id);
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** Where a node is to keep its data. */
  dataDir(id: string): string {
    return `${this.#path(id)}/data`;
  }

  /** Leaves a node so little space. */
  addBallast(id: string, freeBytes: number): void {
    const piece = new Uint8Array(MIB).fill(1);
    using file = Deno.openSync(this.#ballast(id), {
      create: true,
      write: true,
    });
    let size = 0;
    try {
      while (size < this.#bytes) size += file.writeSync(piece);
    } catch {
      // No space left: as wanted.
    }
    file.truncateSync(Math.max(0, size - freeBytes));
  }

  /** Gives the space back, if it was taken. */
  dropBallast(id: string): void {
    try {
      Deno.removeSync(this.#ballast(id));
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }

  /** Lazily, since a process that was killed may not be gone yet. */
  [Symbol.dispose](): void {
    for (const id of this.#ids) run("umount", ["--lazy", this.#path(id)]);
  }

  #path(id: string): string {
    return `${this.#directory}/${id}`;
  }

  #ballast(id: string): string {
    return `${this.#path(id)}/ballast`;
  }
}
