/**
 * Commits of a row file on its own, for the tests of what happens to it.
 *
 * @module
 */

import type { RowFile } from "../rowfile.ts";

/** How often {@linkcode commitRow} was called on a file, as it says itself. */
export function countOf(rows: RowFile): number {
  return rows.saved<number>("store") ?? 0;
}

/** Adds a row of random bytes and commits. */
export function commitRow(rows: RowFile, bytes: number): void {
  const position = countOf(rows) + 1;
  rows.appendEvent({
    position,
    revision: position,
    key: "key",
    type: "put",
    createRevision: 1,
    version: position,
    lease: 0n,
    value: crypto.getRandomValues(new Uint8Array(bytes)),
  });
  rows.save("store", position);
  rows.commit();
}
