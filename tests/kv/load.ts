/**
 * Load on a cluster through `Deno.openKv`: a process of its own, because that needs a flag. Prints
 * one line of JSON.
 *
 *     deno run --unstable-kv load.ts set SECONDS LOOPS URL          how many a second
 *     deno run --unstable-kv load.ts add CLIENTS KEY URL…           until its input ends
 *     deno run --unstable-kv load.ts check CLIENTS KEY URL…         until its input ends
 *
 * `add` increments one key without a check, `check` reads it and writes the next number with one;
 * client N uses URL N modulo their count.
 *
 * @module
 */
/// <reference lib="deno.unstable" />

const [mode, first, second, ...urls] = Deno.args;

async function set(): Promise<object> {
  const seconds = Number(first);
  const loops = Number(second);
  const kv = await Deno.openKv(urls[0]);
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

/** Numbers that were written with a check: each once, or two writes passed the same check. */
const written = new Set<number>();
let repeated = 0;

/** One attempt: true if it is acknowledged. A check also fails if a lost answer is asked for again. */
async function attempt(kv: Deno.Kv, key: Deno.KvKey): Promise<boolean> {
  if (mode === "add") return (await kv.atomic().sum(key, 1n).commit()).ok;
  const entry = await kv.get<number>(key);
  const number = (entry.value ?? 0) + 1;
  const { ok } = await kv.atomic().check(entry).set(key, number).commit();
  if (ok && written.has(number)) repeated++;
  if (ok) written.add(number);
  return ok;
}

/** Tells how often the key was incremented for sure, and how often perhaps. */
async function increment(): Promise<object> {
  const key = [second ?? ""];
  let isOver = false;
  void Deno.stdin.read(new Uint8Array(1)).then(() => isOver = true);
  let [acknowledged, attempted, errors, longestMs] = [0, 0, 0, 0];
  await Promise.all(Array.from({ length: Number(first) }, async (_, at) => {
    const kv = await Deno.openKv(urls[at % urls.length]);
    while (!isOver) {
      attempted++;
      const started = performance.now();
      try {
        if (await attempt(kv, key)) acknowledged++;
      } catch {
        errors++;
      }
      longestMs = Math.max(longestMs, performance.now() - started);
    }
    kv.close();
  }));
  longestMs = Math.round(longestMs);
  return { acknowledged, attempted, errors, repeated, longestMs };
}

console.log(JSON.stringify(mode === "set" ? await set() : await increment()));
