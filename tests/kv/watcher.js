/**
 * Watches two keys and prints each state, one line of JSON for each, until the second is "end". Used
 * by `kvconnect_test.ts`.
 *
 *     watcher.js URL
 *
 * @module
 */

import { args, open } from "./open.js";

const { kv } = await open(args[0]);
// Not every client's stream can be iterated in a way that ends it.
const reader = kv.watch([["w", 1], ["w", 2]]).getReader();
while (true) {
  const { value: entries } = await reader.read();
  console.log(JSON.stringify(entries.map(({ value }) => value)));
  if (entries[1].value === "end") break;
}
await reader.cancel();
kv.close();
