/**
 * Runs steps of a test on a database, so that the test says what happens in one place. Prints what
 * the last one gave.
 *
 *     deno run --unstable-kv writer.ts URL JSON       a list of [what, key, value?, ms?]
 *
 * @module
 */
/// <reference lib="deno.unstable" />

type Step = readonly [
  what: string,
  key: Deno.KvKey,
  value: unknown,
  ms: number,
];

const [url, json = "[]"] = Deno.args;
const kv = await Deno.openKv(url);
let last: unknown = null;
for (const [what, key, value, ms] of JSON.parse(json) as Step[]) {
  switch (what) {
    case "set":
      last = await kv.set(key, value);
      break;
    case "expire":
      last = await kv.set(key, value, { expireIn: ms });
      break;
    case "get":
      last = (await kv.get(key)).value;
      break;
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
