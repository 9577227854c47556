/**
 * Makes the same random operations on a cluster and on `:memory:`, and compares all answers. A
 * process of its own, because `Deno.openKv` needs a flag. Each operation goes to any node.
 *
 *     deno run --unstable-kv differ.ts SEED SEQUENCES URL…
 *
 * @module
 */
/// <reference lib="deno.unstable" />

const OPERATIONS = 40;
/** Sequences under way at the same time; each has keys of its own. */
const LANES = 24;

type Random = (below: number) => number;

/** mulberry32. */
function randomOf(seed: number): Random {
  let state = seed >>> 0;
  return (below) => {
    state = state + 0x6d2b79f5 | 0;
    let t = Math.imul(state ^ state >>> 15, 1 | state);
    t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t;
    return Math.floor(((t ^ t >>> 14) >>> 0) / 2 ** 32 * below);
  };
}

function pick<T>(random: Random, list: readonly T[]): T {
  return list[random(list.length)]!;
}

const PARTS: readonly Deno.KvKeyPart[] = [
  "a",
  "a\0",
  "b",
  new Uint8Array([0, 255]),
  -1n,
  2n ** 70n,
  -0.5,
  7,
  true,
];
const VALUES: readonly unknown[] = [
  1,
  -2.5,
  3n,
  -(2n ** 66n),
  "text",
  null,
  new Uint8Array([1, 0, 2]),
  { deep: [1, { x: undefined }] },
  new Deno.KvU64(4n),
];
const NUMBERS = [0n, 1n, 2n ** 63n, 2n ** 64n - 1n, 5n];

/** One of the two stores, as one sequence sees it. */
interface Side {
  /** A handle: of a cluster there are several. */
  readonly kv: () => Deno.Kv;
  /** In the order in which they were seen: equal on both sides. */
  readonly versionstamps: string[];
  cursor: string;
}

function rank(side: Side, versionstamp: string | null): number {
  if (versionstamp === null) return -1;
  const at = side.versionstamps.indexOf(versionstamp);
  return at >= 0 ? at : side.versionstamps.push(versionstamp) - 1;
}

function entryText(side: Side, entry: Deno.KvEntryMaybe<unknown>): string {
  const { key, value, versionstamp } = entry;
  return Deno.inspect([key, value, rank(side, versionstamp)], { depth: 9 });
}

/** One operation, decided before it runs on either side: it says what it saw. */
type Step = (side: Side) => Promise<string>;

function keysOf(random: Random, sequence: number) {
  const root = ["diff", sequence];
  return {
    /** Any value. */
    any: () => [...root, "any", pick(random, PARTS)],
    /** KvU64 alone: what is done to them cannot fail. */
    counter: () => [...root, "counter", random(3)],
    root,
  };
}

function commitStep(random: Random, sequence: number): Step {
  const keys = keysOf(random, sequence);
  const checks = Array.from({ length: random(3) }, () => ({
    key: pick(random, [keys.any, keys.counter])(),
    // The present one, absence, or one seen before.
    which: random(4),
    seen: random(50),
  }));
  const changes: ((atomic: Deno.AtomicOperation) => unknown)[] = [];
  // What may fail is first: the other store keeps what was done before an error.
  if (random(4) === 0) {
    const key = keys.any();
    const type = pick(random, ["sum", "min", "max"] as const);
    const number = pick(random, NUMBERS);
    changes.push((atomic) => atomic[type](key, number));
  }
  for (let count = random(5); count > 0; count--) {
    const [any, counter] = [keys.any(), keys.counter()];
    const [value, number] = [pick(random, VALUES), pick(random, NUMBERS)];
    changes.push(pick(random, [
      (atomic) => atomic.set(any, value),
      (atomic) => atomic.delete(any),
      (atomic) => atomic.delete(counter),
      (atomic) => atomic.set(counter, new Deno.KvU64(number)),
      (atomic) => atomic.sum(counter, number),
      (atomic) => atomic.min(counter, number),
      (atomic) => atomic.max(counter, number),
    ]));
  }
  return async (side) => {
    const atomic = side.kv().atomic();
    for (const { key, which, seen } of checks) {
      const present = (await side.kv().get(key)).versionstamp;
      const versionstamp = which === 0
        ? null
        : which === 1
        ? side.versionstamps[seen % side.versionstamps.length] ?? null
        : present;
      atomic.check({ key, versionstamp });
    }
    for (const change of changes) change(atomic);
    const result = await atomic.commit();
    return result.ok ? `ok ${rank(side, result.versionstamp)}` : "failed";
  };
}

function sumStep(random: Random, sequence: number): Step {
  const key = keysOf(random, sequence).any();
  const value = pick(random, [1, -0.5, 2 ** 40, 1n, -(2n ** 65n), 0n]);
  return async (side) => {
    // @ts-ignore: the types know KvU64 alone, the runtime takes numbers too.
    const atomic = side.kv().atomic().mutate({ type: "sum", key, value });
    const result = await atomic.commit();
    return result.ok ? `ok ${rank(side, result.versionstamp)}` : "failed";
  };
}

function listStep(random: Random, sequence: number): Step {
  const keys = keysOf(random, sequence);
  const prefix = pick(random, [keys.root, [...keys.root, "any"]]);
  const [one, two] = [keys.any(), keys.any()];
  const selector: Deno.KvListSelector = pick(random, [
    { prefix },
    { prefix: [...keys.root, "any"], start: one },
    { prefix: [...keys.root, "any"], end: one },
    { start: one, end: two },
  ]);
  const options: Deno.KvListOptions = {
    reverse: random(2) === 0,
    ...(random(2) === 0 ? { limit: 1 + random(6) } : {}),
    ...(random(2) === 0 ? { batchSize: 1 + random(4) } : {}),
    consistency: pick(random, ["strong", "eventual"]),
  };
  const goesOn = random(3) === 0;
  return async (side) => {
    const more = goesOn && side.cursor !== "" ? { cursor: side.cursor } : {};
    const texts: string[] = [];
    const iterator = side.kv().list(selector, { ...options, ...more });
    for await (const entry of iterator) texts.push(entryText(side, entry));
    side.cursor = texts.length > 0 ? iterator.cursor : "";
    return `${side.cursor}\n${texts.join("\n")}`;
  };
}

function step(random: Random, sequence: number): Step {
  const keys = keysOf(random, sequence);
  const key = keys.any();
  switch (random(9)) {
    case 0:
    case 1: {
      const value = pick(random, VALUES);
      return async (side) =>
        `set ${rank(side, (await side.kv().set(key, value)).versionstamp)}`;
    }
    case 2:
      return async (side) => {
        await side.kv().delete(key);
        return "deleted";
      };
    case 3: {
      const other = keys.counter();
      return async (side) => {
        const entries = await side.kv().getMany([key, other, key]);
        return entries.map((entry) => entryText(side, entry)).join("\n");
      };
    }
    case 4:
      return sumStep(random, sequence);
    case 5:
    case 6:
      return listStep(random, sequence);
    default:
      return commitStep(random, sequence);
  }
}

async function outcome(step: Step, side: Side): Promise<string> {
  try {
    return await step(side);
  } catch {
    return "error";
  }
}

async function runSequence(
  sequence: number,
  { seed, memory, cluster }: {
    seed: number;
    memory: Deno.Kv;
    cluster: readonly Deno.Kv[];
  },
): Promise<string | null> {
  const random = randomOf(seed * 1_000_003 + sequence);
  const nodes = randomOf(sequence);
  const ours = {
    kv: () => pick(nodes, cluster),
    versionstamps: [],
    cursor: "",
  };
  const theirs = { kv: () => memory, versionstamps: [], cursor: "" };
  for (let at = 0; at < OPERATIONS; at++) {
    const one = step(random, sequence);
    const [actual, expected] = await Promise.all([
      outcome(one, ours),
      outcome(one, theirs),
    ]);
    if (actual === expected) continue;
    return `sequence ${sequence}, operation ${at}:\ncluster ${actual}\nmemory  ${expected}`;
  }
  return null;
}

async function main(): Promise<number> {
  const [seed = NaN, sequences = NaN] = Deno.args.slice(0, 2).map(Number);
  const memory = await Deno.openKv(":memory:");
  const cluster = await Promise.all(
    Deno.args.slice(2).map((url) => Deno.openKv(url)),
  );
  let next = 0;
  let failure: string | null = null;
  const started = performance.now();
  await Promise.all(Array.from({ length: LANES }, async () => {
    while (next < sequences && failure === null) {
      const found = await runSequence(next++, { seed, memory, cluster });
      failure ??= found;
    }
  }));
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  for (const kv of [memory, ...cluster]) kv.close();
  console.log(
    failure ??
      `equal: ${next} sequences of ${OPERATIONS} operations, seed ${seed}, ${seconds} s`,
  );
  return failure === null ? 0 : 1;
}

Deno.exit(await main());
