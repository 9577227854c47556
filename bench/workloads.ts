/**
 * The work that every system does: operations, how many are in flight, on which keys, of what size.
 * Used by `plan.ts`; what each number means stands in README.md.
 *
 * @module
 */

import { DkvError } from "../errors.ts";
import { closedLoop, inBulk, type Issue, openLoop, pause } from "./load.ts";
import { type Sample, sampleOf } from "./statistics.ts";
import type { System, SystemName } from "./system.ts";
import { randomOf, Zipf } from "./zipf.ts";

const KIB = 1024;
/** Unless a workload says otherwise. */
const VALUE_BYTES = 100;
/** In flight while keys are stored beforehand. */
const BULK = 1024;
const LISTED_KEYS = 100;
/** Few enough that callers get in each other's way. */
const CONTENDED_KEYS = 16;
const LARGE_KEYS = 64;
/** Keys change at this rate while watchers look on. */
const WATCHED_PER_SECOND = 100;
/** More than are under way at any time. */
const WATCHED_KEYS = 4096;
const DELIVERY_MS_MAX = 10_000;
/** How many puts a second everybody is offered. */
const OFFERED_PER_SECOND = 1000;
/** Keys follow each other in leaps of this prime. */
const STRIDE = 7919;

/** What all measurements of a run share. */
export interface Context {
  /** Size of the key space. */
  readonly keys: number;
  readonly warmMs: number;
  readonly forMs: number;
  /** Of the round: every system sees the same chance. */
  readonly seed: number;
  /** Puts a second with 256 in flight, as far as this round has measured them. */
  readonly rates: Map<SystemName, number>;
}

/** One kind of work. */
export interface Workload {
  /** Such as `put 64`: the operation, and how many are in flight. */
  readonly name: string;
  /** True if rates are what they are by decision, and only the latencies say something. */
  readonly paced: boolean;
  can(system: System): boolean;
  /** Warms up, then measures. */
  measure(system: System, context: Context): Promise<Sample>;
}

/** Stores what the workloads read. */
export async function preload(system: System, keys: number): Promise<void> {
  const { put } = supported(system, "put");
  const value = valueOf(VALUE_BYTES);
  const all = [
    ...Array.from({ length: keys }, (_, at) => keyOf(at)),
    ...Array.from({ length: LISTED_KEYS }, (_, at) => `list/${pad(at)}`),
    ...Array.from({ length: CONTENDED_KEYS }, (_, at) => `hot/${at}`),
  ];
  const issue = (n: number) => put(all[n] ?? "", value);
  await inBulk(issue, { count: all.length, inFlight: BULK });
}

/** The key with a number. */
export function keyOf(at: number): string {
  return `bench/${pad(at)}`;
}

/** Bytes that nothing on the way can make small; the same ones each time. */
export function valueOf(bytes: number): Uint8Array {
  const random = randomOf(bytes);
  return Uint8Array.from({ length: bytes }, () => Math.floor(256 * random()));
}

/** All of them, in the order in which a round runs them: what fills the disk comes last. */
export const WORKLOADS: readonly Workload[] = [
  ...[1, 64, 256, 1024].map(puts),
  ...[1, 64, 256, 1024].map(gets),
  serializableGets(256),
  zipf(256),
  updates(64),
  lists(16),
  ...[1, 10, 100].map(watches),
  offered(),
  offeredShare(0.8),
  ...([[1, 64], [64, 16], [1024, 4]] as const).map(large),
];

/** Those whose name is one of the patterns; `*` stands for anything. */
export function workloadsLike(patterns: readonly string[]): Workload[] {
  const expressions = patterns.map((pattern) => {
    const parts = pattern.trim().split("*").map((part) =>
      part.replace(/[.+?^${}()|[\]\\]/g, "\\$&")
    );
    return new RegExp(`^${parts.join(".*")}$`);
  });
  return WORKLOADS.filter(({ name }) => expressions.some((e) => e.test(name)));
}

function puts(inFlight: number): Workload {
  const value = valueOf(VALUE_BYTES);
  const workload = closed(`put ${inFlight}`, {
    inFlight,
    // One put alone fills no transaction: that would be the same as a unary call.
    can: ({ put, name }) =>
      put !== undefined && (inFlight > 1 || name !== "etcd-txn"),
    issue: (system, { keys }) => {
      const { put } = supported(system, "put");
      return (n) => put(keyOf(scattered(n, keys)), value);
    },
  });
  if (inFlight !== 256) return workload;
  const measure = async (system: System, context: Context) => {
    const sample = await workload.measure(system, context);
    context.rates.set(system.name, sample.perSecond);
    return sample;
  };
  return { ...workload, measure };
}

function gets(inFlight: number): Workload {
  return closed(`get ${inFlight}`, {
    inFlight,
    can: ({ get }) => get !== undefined,
    issue: (system, { keys }) => {
      const { get } = supported(system, "get");
      return (n) => get(keyOf(scattered(n, keys)));
    },
  });
}

function serializableGets(inFlight: number): Workload {
  return closed(`get serializable ${inFlight}`, {
    inFlight,
    can: ({ getSerializable }) => getSerializable !== undefined,
    issue: (system, { keys }) => {
      const { getSerializable } = supported(system, "getSerializable");
      return (n) => getSerializable(keyOf(scattered(n, keys)));
    },
  });
}

function zipf(inFlight: number): Workload {
  const value = valueOf(VALUE_BYTES);
  return closed(`zipf 95/5 ${inFlight}`, {
    inFlight,
    can: ({ get, put }) => get !== undefined && put !== undefined,
    issue: (system, { keys, seed }) => {
      const { get } = supported(system, "get");
      const { put } = supported(system, "put");
      const random = randomOf(seed);
      const ranks = new Zipf(keys, { random });
      return () => {
        const key = keyOf(ranks.next());
        return random() < 0.05 ? put(key, value) : get(key);
      };
    },
  });
}

function updates(inFlight: number): Workload {
  return closed(`update ${inFlight}`, {
    inFlight,
    can: ({ update }) => update !== undefined,
    issue: (system, { seed }) => {
      const { update } = supported(system, "update");
      const random = randomOf(seed);
      const template = valueOf(VALUE_BYTES);
      return (n) => {
        // Each value is new, so that a value also tells a version.
        const value = template.slice();
        const view = new DataView(value.buffer);
        view.setUint32(0, seed);
        view.setUint32(4, n);
        view.setFloat64(8, performance.now());
        const at = Math.floor(CONTENDED_KEYS * random());
        return update(`hot/${at}`, value);
      };
    },
  });
}

function lists(inFlight: number): Workload {
  return closed(`list 100 keys ${inFlight}`, {
    inFlight,
    can: ({ list }) => list !== undefined,
    issue: (system) => {
      const { list } = supported(system, "list");
      return async () => {
        const count = await list("list/");
        if (count === LISTED_KEYS) return;
        throw new DkvError(
          "INTERNAL",
          `Listed ${count} of ${LISTED_KEYS} keys`,
        );
      };
    },
  });
}

function large([kib, inFlight]: readonly [number, number]): Workload {
  const value = valueOf(kib * KIB);
  const size = kib < 1024 ? `${kib} KiB` : `${kib / 1024} MiB`;
  return closed(`put ${size} ${inFlight}`, {
    inFlight,
    // 64 of the larger ones exceed what etcd takes in one request.
    can: ({ put, name }) =>
      put !== undefined && (kib === 1 || name !== "etcd-txn"),
    issue: (system) => {
      const { put } = supported(system, "put");
      return (n) => put(`large/${kib}/${n % LARGE_KEYS}`, value);
    },
  });
}

/** The same rate for everybody. */
function offered(): Workload {
  return open(
    `open put ${OFFERED_PER_SECOND}/s`,
    () => Promise.resolve(OFFERED_PER_SECOND),
  );
}

/** A share of what the system itself can do. */
function offeredShare(share: number): Workload {
  return open(`open put ${100 * share}%`, async (system, context) => {
    let rate = context.rates.get(system.name);
    if (rate === undefined) {
      const closed = puts(256);
      await closed.measure(system, context);
      rate = context.rates.get(system.name) ?? OFFERED_PER_SECOND;
    }
    return share * rate;
  });
}

function open(
  name: string,
  rateOf: (system: System, context: Context) => Promise<number>,
): Workload {
  const value = valueOf(VALUE_BYTES);
  return {
    name,
    paced: true,
    can: ({ put }) => put !== undefined,
    async measure(system, context) {
      const { put } = supported(system, "put");
      const issue = (n: number) =>
        put(keyOf(scattered(n, context.keys)), value);
      const perSecond = await rateOf(system, context);
      await openLoop(issue, { perSecond, forMs: context.warmMs });
      return await openLoop(issue, { perSecond, forMs: context.forMs });
    },
  };
}

function closed(
  name: string,
  { inFlight, can, issue }: {
    inFlight: number;
    can: (system: System) => boolean;
    issue: (system: System, context: Context) => Issue;
  },
): Workload {
  return {
    name,
    paced: false,
    can,
    async measure(system, context) {
      const { warmMs, forMs } = context;
      const one = issue(system, context);
      await closedLoop(one, { inFlight, forMs: warmMs });
      return await closedLoop(one, { inFlight, forMs });
    },
  };
}

/** The delay from issuing a put to its delivery, to each watcher; the rate is that of deliveries. */
function watches(count: number): Workload {
  const value = valueOf(VALUE_BYTES);
  return {
    name: `watch ${count}`,
    paced: true,
    can: ({ put, watch }) => put !== undefined && watch !== undefined,
    async measure(system, { warmMs, forMs }) {
      const { put } = supported(system, "put");
      const { watch } = supported(system, "watch");
      const sentMs = new Float64Array(WATCHED_KEYS);
      let delaysMs: number[] = [];
      const onChange = (key: string) => {
        const at = Number(key.slice(key.lastIndexOf("/") + 1));
        delaysMs.push(performance.now() - (sentMs[at] ?? NaN));
      };
      await using _watches = await watch("watch/", { count, onChange });
      const run = async (forMs: number) => {
        delaysMs = [];
        const startMs = performance.now();
        const { count: changes } = await openLoop((n) => {
          const at = n % WATCHED_KEYS;
          sentMs[at] = performance.now();
          return put(`watch/${at}`, value);
        }, { perSecond: WATCHED_PER_SECOND, forMs });
        await delivered(() => delaysMs.length, changes * count);
        return sampleOf(delaysMs, performance.now() - startMs);
      };
      await run(warmMs);
      return await run(forMs);
    },
  };
}

async function delivered(count: () => number, wanted: number): Promise<void> {
  const endMs = performance.now() + DELIVERY_MS_MAX;
  while (count() < wanted) {
    if (performance.now() > endMs) {
      throw new DkvError(
        "DEADLINE_EXCEEDED",
        `Delivered ${count()} of ${wanted} changes`,
      );
    }
    await pause(1);
  }
}

function scattered(n: number, keys: number): number {
  return (n * STRIDE) % keys;
}

function pad(at: number): string {
  return String(at).padStart(8, "0");
}

/** The system with a method that it must have. */
function supported<Name extends Exclude<keyof System, "name">>(
  system: System,
  name: Name,
): { [N in Name]-?: NonNullable<System[N]> } {
  const method = system[name];
  if (method === undefined) {
    throw new DkvError("INTERNAL", `${system.name} has no ${name}`);
  }
  // Bound, because callers take it out of the system.
  return { [name]: method.bind(system) } as {
    [N in Name]-?: NonNullable<System[N]>;
  };
}
