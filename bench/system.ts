/**
 * What is measured: a name, three processes, and a client for each way to talk to them. Implemented
 * by `dkv.ts`, `etcd.ts` and `redis.ts`; used by `workloads.ts` and `plan.ts`.
 *
 * @module
 */

/** Every way to store a key that the bench compares, in the order of tables and charts. */
export const SYSTEMS = [
  "dkv",
  "dkv-unary",
  "etcd",
  "etcd-txn",
  "redis",
  "redis-wait",
] as const;

/** One of {@linkcode SYSTEMS}. */
export type SystemName = typeof SYSTEMS[number];

/** What people call them. */
export const TITLES: Readonly<Record<SystemName, string>> = {
  "dkv": "dkv, client library",
  "dkv-unary": "dkv, unary calls",
  "etcd": "etcd, unary calls",
  "etcd-txn": "etcd, 64 puts a transaction",
  "redis": "Redis, no WAIT",
  "redis-wait": "Redis, WAIT 1",
};

/** Takes the key of each change that a watch delivers. */
export type OnChange = (key: string) => void;

/**
 * A client of a running system. What a system cannot do is missing: the workload is then left out
 * for it.
 */
export interface System {
  readonly name: SystemName;
  /** Looks up who leads; asked before each measurement. */
  prepare?(): Promise<void>;
  /** Acknowledged as this system acknowledges; see README.md. */
  put?(key: string, value: Uint8Array): Promise<unknown>;
  /** Linearizable, but for Redis. */
  get?(key: string): Promise<unknown>;
  /** From any node, which may be behind. */
  getSerializable?(key: string): Promise<unknown>;
  /** Reads a key and replaces what it has read, again and again until nobody came between. */
  update?(key: string, value: Uint8Array): Promise<unknown>;
  /** Reads all keys that begin with a prefix, with their values; resolves with how many. */
  list?(prefix: string): Promise<number>;
  /** Opens so many watches of all keys that begin with a prefix, each with its own `onChange`. */
  watch?(
    prefix: string,
    options: { count: number; onChange: OnChange },
  ): Promise<AsyncDisposable>;
}

/** The processes of a system and the clients of them. */
export interface Deployment extends AsyncDisposable {
  /** `etcd 3.4.23`. */
  readonly version: string;
  readonly systems: readonly System[];
  /** The quickest of them to store many keys with. */
  readonly bulk: System;
  /** Of the three processes. */
  readonly pids: readonly number[];
}

/** A range of keys as etcd and dkv take it: from the prefix up to the first key behind it. */
export function prefixEnd(prefix: string): Uint8Array {
  const end = new TextEncoder().encode(prefix);
  const last = end.length - 1;
  // Prefixes here end in "/", so that the last byte can always grow by one.
  end[last] = (end[last] ?? 0) + 1;
  return end;
}
