/**
 * Load on a cluster through a client of Deno KV. Prints one line of JSON; those that go on until they
 * are told to end say `begun` before it, when the first increment is acknowledged.
 *
 *     load.js set SECONDS LOOPS URL          how many a second
 *     load.js add CLIENTS KEY URL…           until its input ends
 *     load.js check CLIENTS KEY URL…         until its input ends
 *
 * `add` increments one key without a check, `check` reads it and writes the next number with one;
 * client N uses URL N modulo their count.
 *
 * @module
 */

import { args, inputEnd, open } from "./open.js";

const [mode, first, second, ...urls] = args;

async function set() {
  const seconds = Number(first);
  const loops = Number(second);
  const { kv } = await open(urls[0]);
  let count = 0;
  const started = performance.now();
  const end = started + seconds * 1000;
  await Promise.all(Array.from({ length: loops }, async (_, loop) => {
    for (; performance.now() < end; count++) {
      await kv.set(["load", loop], count);
    }
  }));
  const elapsed = (performance.now() - started) / 1000;
  kv.close();
  return { count, perSecond: Math.round(count / elapsed) };
}

/** Numbers that this program was told it wrote, each with a check. */
const written = [];

/** One attempt: true if it is acknowledged. A check also fails if a lost answer is asked for again. */
async function attempt({ kv, KvU64 }, key) {
  if (mode === "add") return (await kv.atomic().sum(key, 1n).commit()).ok;
  const entry = await kv.get(key);
  // Not a number: what Deno serializes, an older Node cannot read.
  const next = new KvU64((entry.value?.value ?? 0n) + 1n);
  const { ok } = await kv.atomic().check(entry).set(key, next).commit();
  if (ok) written.push(Number(next.value));
  return ok;
}

/** Tells how often the key was incremented for sure, and how often perhaps. */
async function increment() {
  const key = [second];
  let isOver = false;
  void inputEnd().then(() => isOver = true);
  let [acknowledged, attempted, errors, longestMs] = [0, 0, 0, 0];
  await Promise.all(Array.from({ length: Number(first) }, async (_, at) => {
    const client = await open(urls[at % urls.length]);
    while (!isOver) {
      attempted++;
      const started = performance.now();
      try {
        if (await attempt(client, key) && acknowledged++ === 0) {
          console.log("begun");
        }
      } catch {
        errors++;
      }
      longestMs = Math.max(longestMs, performance.now() - started);
    }
    client.kv.close();
  }));
  longestMs = Math.round(longestMs);
  return { acknowledged, attempted, errors, longestMs, written };
}

console.log(JSON.stringify(mode === "set" ? await set() : await increment()));
