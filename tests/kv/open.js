/**
 * Opens a database with the client that is to be tested, for the programs of this folder. JavaScript,
 * as they are, because Node runs them too. `process.ts` sets the environment:
 *
 *     KV_CLIENT    builtin: Deno's own; anything else: the package
 *     KV_PACKAGE   where that package is
 *
 * @module
 */

import process from "node:process";

/** Of the program. */
export const args = process.argv.slice(2);

/** True with the client that is in Deno: it alone adds to numbers and makes versionstamped keys. */
export const isBuiltin = process.env.KV_CLIENT === "builtin";

/** A database, and what its client takes for an unsigned number of 64 bits. */
export async function open(url) {
  if (isBuiltin) return { kv: await Deno.openKv(url), KvU64: Deno.KvU64 };
  const { openKv, KvU64 } = await import(process.env.KV_PACKAGE);
  return { kv: await openKv(url, { implementation: "remote" }), KvU64 };
}

/** Resolves when the input has ended: whoever started the program wants it to end. */
export function inputEnd() {
  return new Promise((resolve) => {
    process.stdin.resume();
    process.stdin.once("end", resolve);
  });
}
