/**
 * Watches two keys and prints each state, one line of JSON for each, until the second is "end". Used
 * by `kvconnect_test.ts`.
 *
 *     deno run --unstable-kv watcher.ts URL
 *
 * @module
 */
/// <reference lib="deno.unstable" />

const kv = await Deno.openKv(Deno.args[0]);
for await (const entries of kv.watch<unknown[]>([["w", 1], ["w", 2]])) {
  console.log(JSON.stringify(entries.map(({ value }) => value)));
  if (entries[1]?.value === "end") break;
}
kv.close();
