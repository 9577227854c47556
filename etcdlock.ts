/**
 * etcd's `Lock` and `Election` services. Used by `etcd.ts`.
 *
 * Both are a queue of keys under one name, each attached to the lease of who waits; the key that was
 * created first is at the front. Nobody is woken but the next in line.
 *
 * ```text
 *   name/7587  created at 11   holds the lock, leads
 *   name/7590  created at 14   waits until name/7587 is deleted: by its owner, or with its lease
 * ```
 *
 * @module
 */

import type * as grpc from "@grpc/grpc-js";
import type { Key, KeyRange, StoredEntry } from "./batch.ts";
import type { Wire } from "./call.ts";
import { fromKey, toKey } from "./convert.ts";
import { assert } from "./errors.ts";
import {
  type EtcdContext,
  type Responses,
  serverStream,
  type StreamCall,
  unaries,
  waitingUnary,
} from "./etcdcall.ts";
import { EtcdError } from "./etcderrors.ts";
import { fromStored } from "./etcdkv.ts";
import { compareBytes } from "./ranges.ts";
import { type CallOptions, keyAfter, type Service } from "./service.ts";
import type { WatchEvent } from "./store.ts";

/** What a caller without a lease of its own is given. */
const SESSION_TTL_MS = 60_000;
/** How often that lease is renewed while the caller waits. */
const RENEW_MS = 20_000;
/** Events that wait for a slow client. */
const EVENTS_MAX = 1000;
const WRITE = { timeoutMs: null, writeId: null } as const;

/** Who answers the calls of `v3lockpb.Lock`. */
export function lockHandlers(
  context: EtcdContext,
): grpc.UntypedServiceImplementation {
  return {
    Lock: waitingUnary(context, async (wire, { signal }) => {
      const { service } = context;
      const place = await enqueue(service, wire, new Uint8Array());
      await untilFirst(service, place, signal);
      return { key: fromKey(place.key) };
    }),
    ...unaries(context, { Unlock: unlock }),
  };
}

/** Who answers the calls of `v3electionpb.Election`. */
export function electionHandlers(
  context: EtcdContext,
): grpc.UntypedServiceImplementation {
  return {
    Campaign: waitingUnary(context, async (wire, { signal }) => {
      const { service } = context;
      const place = await enqueue(service, wire, wire.value);
      await untilFirst(service, place, signal);
      return {
        leader: {
          name: wire.name,
          key: fromKey(place.key),
          rev: place.createRevision,
          lease: String(place.lease),
        },
      };
    }),
    ...unaries(context, { Proclaim: proclaim, Leader: leader, Resign: resign }),
    Observe: serverStream(
      context,
      (wire, call) => observe(wire, { context, call }),
    ),
  };
}

// ------------------------------------------------------------------ calls

async function unlock(
  wire: Wire,
  { service }: EtcdContext,
  options: CallOptions,
) {
  const start = toKey(wire.key);
  await service.delete(
    { type: "delete", range: rangeOf(start), returnPrevious: false },
    { ...options, writeId: null },
  );
  return {};
}

async function proclaim(wire: Wire, { service }: EtcdContext) {
  const { key, rev, lease } = leaderKey(wire);
  const result = await service.transact({
    type: "transact",
    compares: [createdAt(key, rev)],
    then: [putOf(key, { value: wire.value, lease })],
    else: [],
  }, WRITE);
  if (!result.succeeded) throw new EtcdError("electionNotLeader");
  return {};
}

async function resign(wire: Wire, { service }: EtcdContext) {
  const { key, rev } = leaderKey(wire);
  await service.transact({
    type: "transact",
    compares: [createdAt(key, rev)],
    then: [{ type: "delete", range: rangeOf(key), returnPrevious: false }],
    else: [],
  }, WRITE);
  return {};
}

async function leader(wire: Wire, { service }: EtcdContext) {
  const { entries } = await queueOf(service, toKey(wire.name));
  const first = firstOf(entries);
  if (first === null) throw new EtcdError("electionNoLeader");
  return { kv: fromStored(first) };
}

/** Each leader and each of its values, in order. */
async function* observe(
  wire: Wire,
  { context, call }: { context: EtcdContext; call: StreamCall },
): Responses {
  const { service } = context;
  const name = toKey(wire.name);
  const { entries, revision } = await queueOf(service, name);
  const queue = new Map(entries.map((entry) => [entry.key, entry]));
  let told = firstOf(entries);
  const tell = (kv: StoredEntry): [object, number] => [
    { header: context.header(), kv: fromStored(kv) },
    kv.key.length + kv.value.length,
  ];
  if (told !== null) yield tell(told);
  const changes = changesOf(service, {
    range: underOf(name),
    fromRevision: revision + 1,
    signal: call.signal,
  });
  for await (const event of changes) {
    if (event.type === "put") queue.set(event.key, event);
    else queue.delete(event.key);
    const first = firstOf(queue.values());
    const isNew = first !== null &&
      (first.key !== told?.key || first.modRevision !== told.modRevision);
    if (isNew) yield tell(first);
    told = first;
  }
}

// ------------------------------------------------------------------ the queue

/** One key in the queue of a name. */
interface Place {
  readonly name: Key;
  readonly key: Key;
  readonly createRevision: number;
  readonly lease: bigint;
  /** The lease was granted for this call. */
  readonly isOwnLease: boolean;
}

/** Takes a place, or finds the one that the lease has already; its value becomes the one given. */
async function enqueue(
  service: Service,
  wire: Wire,
  value: Uint8Array,
): Promise<Place> {
  const name = toKey(wire.name);
  const isOwnLease = BigInt(wire.lease) === 0n;
  const lease = isOwnLease
    ? (await service.grant({ lease: 0n, ttlMs: SESSION_TTL_MS }, WRITE)).lease
    : BigInt(wire.lease);
  const key = `${name}/${lease.toString(16)}`;
  const put = putOf(key, { value, lease });
  const result = await service.transact({
    type: "transact",
    compares: [createdAt(key, 0)],
    then: [put],
    else: [{ type: "get", key }],
  }, WRITE);
  const [found] = result.results;
  if (found?.type !== "get" || found.entry === null) {
    const createRevision = result.revision;
    return { name, key, createRevision, lease, isOwnLease };
  }
  const { createRevision } = found.entry;
  if (compareBytes(found.entry.value, value) !== 0) {
    const proclaimed = await service.transact({
      type: "transact",
      compares: [createdAt(key, createRevision)],
      then: [put],
      else: [],
    }, WRITE);
    if (!proclaimed.succeeded) throw new EtcdError("electionNotLeader");
  }
  return { name, key, createRevision, lease, isOwnLease };
}

/** Resolves when nobody is in front; gives the place up if the client leaves. */
async function untilFirst(
  service: Service,
  place: Place,
  signal: AbortSignal,
): Promise<void> {
  const renewal = place.isOwnLease
    ? setInterval(
      () => service.keepAlive(place.lease, WRITE).catch(() => {}),
      RENEW_MS,
    )
    : undefined;
  try {
    while (!signal.aborted) {
      const { entries, revision } = await queueOf(service, place.name);
      const own = entries.find(({ key }) => key === place.key);
      if (own?.createRevision !== place.createRevision) {
        throw new EtcdError("sessionExpired");
      }
      const ahead = entries.filter(({ createRevision }) =>
        createRevision < place.createRevision
      ).sort((a, b) =>
        b.createRevision - a.createRevision
      )[0];
      if (ahead === undefined) return;
      const changes = changesOf(service, {
        range: underOf(place.name),
        fromRevision: revision + 1,
        signal,
      });
      for await (const { type, key } of changes) {
        const matters = key === ahead.key || key === place.key;
        if (type === "delete" && matters) break;
      }
    }
    await service.delete({
      type: "delete",
      range: rangeOf(place.key),
      returnPrevious: false,
    }, WRITE);
    throw new EtcdError("watchCanceled");
  } finally {
    clearInterval(renewal);
  }
}

/** All places of a name, at one revision. */
async function queueOf(
  service: Service,
  name: Key,
): Promise<{ entries: StoredEntry[]; revision: number }> {
  const entries: StoredEntry[] = [];
  let at = 0;
  const pages = service.list({
    range: underOf(name),
    revision: 0,
    limit: 0,
    keysOnly: false,
    reverse: false,
    serializable: false,
    timeoutMs: null,
  });
  for await (const page of pages) {
    entries.push(...page.entries);
    at = page.revision;
  }
  return { entries, revision: at };
}

function firstOf(entries: Iterable<StoredEntry>): StoredEntry | null {
  let first: StoredEntry | null = null;
  for (const entry of entries) {
    if (first === null || entry.createRevision < first.createRevision) {
      first = entry;
    }
  }
  return first;
}

/** What happens in a range, one event after the other, until the signal or the reader ends it. */
async function* changesOf(
  service: Service,
  options: { range: KeyRange; fromRevision: number; signal: AbortSignal },
): AsyncGenerator<WatchEvent> {
  const { range, fromRevision, signal } = options;
  const queue: WatchEvent[] = [];
  let failure: Error | null = null;
  let wake = () => {};
  const onAbort = () => wake();
  signal.addEventListener("abort", onAbort);
  const watch = service.watch({
    range,
    fromRevision,
    withPrevious: false,
    noPuts: false,
    noDeletes: false,
    hasRoom: () => queue.length < EVENTS_MAX,
    deliver: (events) => {
      if (queue.length >= EVENTS_MAX) return false;
      queue.push(...events);
      wake();
      return true;
    },
    cancel: (error) => {
      failure = error;
      wake();
    },
  });
  try {
    while (!signal.aborted) {
      const next = queue.shift();
      if (next !== undefined) {
        if (queue.length === EVENTS_MAX - 1) service.resumeWatches();
        yield next;
        continue;
      }
      if (failure !== null) throw failure;
      const { promise, resolve } = Promise.withResolvers<void>();
      wake = resolve;
      service.resumeWatches();
      await promise;
    }
  } finally {
    signal.removeEventListener("abort", onAbort);
    watch.stop();
  }
}

// ------------------------------------------------------------------ pieces

/** Every key of a queue: those that begin with the name and a slash. */
function underOf(name: Key): KeyRange {
  return { start: `${name}/`, end: `${name}0` };
}

function rangeOf(key: Key): KeyRange {
  return { start: key, end: keyAfter(key) };
}

function createdAt(key: Key, revision: number) {
  const target = { type: "createRevision", number: revision } as const;
  return { key, relation: "equal", target } as const;
}

function putOf(
  key: Key,
  { value, lease }: { value: Uint8Array; lease: bigint },
) {
  return { type: "put", key, value, lease, returnPrevious: false } as const;
}

function leaderKey(wire: Wire): { key: Key; rev: number; lease: bigint } {
  if (!wire.leader) throw new EtcdError("electionNotLeader");
  const { key, rev, lease } = wire.leader;
  assert(typeof rev === "string", "64-bit integers are not texts");
  return { key: toKey(key), rev: Number(rev), lease: BigInt(lease) };
}
