/**
 * Runs steps of a test on a database, so that the test says what happens in one place. Prints what
 * the last one gave.
 *
 *     writer.js URL JSON       a list of [what, key, value?, ms?]
 *
 * @module
 */

import { args, open } from "./open.js";

const [url, json = "[]"] = args;
const { kv, KvU64 } = await open(url);
let last = null;
for (const [what, key, value, ms] of JSON.parse(json)) {
  switch (what) {
    case "set":
      last = await kv.set(key, value);
      break;
    case "expire":
      last = await kv.set(key, value, { expireIn: ms });
      break;
    case "get": {
      const found = (await kv.get(key)).value;
      last = found instanceof KvU64
        ? Number(found.value)
        : typeof found === "bigint"
        ? `${found}n`
        : found;
      break;
    }
    case "gone": {
      // How long it took, from the set on, until nobody saw it.
      const started = performance.now();
      await kv.set(key, value, { expireIn: ms });
      while ((await kv.get(key)).value !== null);
      last = performance.now() - started;
      break;
    }
    case "sleep":
      await new Promise((resolve) => setTimeout(resolve, ms));
      break;
    default:
      throw new Error(`No step ${what}`);
  }
}
console.log(JSON.stringify(last));
kv.close();
