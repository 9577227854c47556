/**
 * Lists all records of a cluster and tells how many, and how much memory that took: the process
 * that `deno task scale` looks at.
 *
 *     deno run -P=test tests/scale_list.ts ENDPOINTS
 *
 * @module
 */

import { connect } from "../client.ts";

const LOOK_EACH = 1000;

await using kv = await connect(Deno.args[0] ?? "");
let entries = 0;
let highestBytes = 0;
for await (const { value } of kv.list({ prefix: "record/" })) {
  if (value.length > 0) entries++;
  if (entries % LOOK_EACH > 0) continue;
  highestBytes = Math.max(highestBytes, Deno.memoryUsage().rss);
}
console.log(JSON.stringify({ entries, highestBytes }));
