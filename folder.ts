/**
 * Makes the names in a folder durable. Used by whoever makes, renames or removes files: `identity.ts`,
 * `segments.ts`, `rowfile.ts`.
 *
 * @module
 */

/** A new name, or a rename, is only on disk once its folder is (raft-pitfalls P9). */
export function syncFolder(folder: string): void {
  using file = Deno.openSync(folder);
  file.syncSync();
}

/** Where the file at a path is. */
export function folderOf(path: string): string {
  const slash = path.lastIndexOf("/");
  return slash < 0 ? "." : path.slice(0, slash) || "/";
}
