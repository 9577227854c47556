/**
 * Prints the number under a key: `deno run --unstable-kv read.ts KEY URL`. Used by `kv.ts`.
 *
 * @module
 */
/// <reference lib="deno.unstable" />

const [key = "", url] = Deno.args;
const kv = await Deno.openKv(url);
const { value } = await kv.get<number | Deno.KvU64>([key]);
console.log(Number(value instanceof Deno.KvU64 ? value.value : value ?? 0));
kv.close();
