/**
 * The atomic writes of Deno KV that simulated clients make, and what must come of those that count
 * with a check. They have no write id, so each is asked for once. Used by `clients.ts` and
 * `history.ts`.
 *
 * @module
 */

import type { KeyRange, MutateRequest, StoredEntry } from "../../batch.ts";
import { entryKey, expiredRange, expiryOf } from "../../kvspace.ts";
import {
  fromOperand,
  type KvValue,
  openValue,
  versionstampOf,
} from "../../kvvalue.ts";
import type { Mutation } from "../../mutate.ts";
import { textOf } from "./checks/states.ts";
import type { Operation } from "./history.ts";
import type { Oracle } from "./oracle.ts";
import type { Random } from "./random.ts";
import { must } from "./violation.ts";

const DATABASE = "kv";
/** What is only counted up, each time with a check. */
const COUNT = "count";
const EMPTY: Uint8Array = new Uint8Array(0);

/** Where the count is. */
export const COUNT_KEY = entryKey(DATABASE, COUNT);

/** The expiries that are due. */
export function dueRange(nowMs: number): KeyRange {
  return expiredRange(DATABASE, nowMs);
}

/** The next number, if the entry is still what was read; `name` is of this attempt alone. */
export function countUp(
  entry: StoredEntry | undefined,
  { name, nowMs }: { name: string; nowMs: number },
): MutateRequest {
  const next = entry === undefined ? 1 : numberIn(entry.value) + 1;
  const text = new TextEncoder().encode(`${next} ${name}`);
  const value = { encoding: "bytes", data: text } as const;
  const versionstamp = entry === undefined
    ? ""
    : versionstampOf(entry.modRevision);
  return {
    type: "mutate",
    database: DATABASE,
    nowMs,
    checks: [{ key: COUNT, versionstamp }],
    mutations: [{ type: "set", key: COUNT, value, expireAtMs: 0 }],
  };
}

/** Removes what expired, as the leader's sweeper does. */
export function sweep(
  expiries: readonly StoredEntry[],
  nowMs: number,
): MutateRequest {
  const mutations = expiries.map(({ key }) => ({
    type: "expire" as const,
    ...expiryOf(DATABASE, key),
  }));
  return { type: "mutate", database: DATABASE, nowMs, checks: [], mutations };
}

/** Up to four changes of few keys; none is a commit that changes nothing. */
export function anyWrite(random: Random, nowMs: number): MutateRequest {
  const mutations = Array.from({ length: random.below(5) }, (): Mutation => {
    const key = `m${random.below(4)}`;
    const value: KvValue = fromOperand({
      type: "u64",
      value: BigInt(random.below(1000)),
    });
    const expireAtMs = random.chance(500) ? 0 : nowMs + random.between(1, 3000);
    const type = random.pick(
      [
        "set",
        "setSuffixed",
        "delete",
        "sum",
        "sum",
        "min",
        "max",
        "text",
      ] as const,
    );
    switch (type) {
      case "set":
      case "setSuffixed":
        return { type, key, value, expireAtMs };
      case "text":
        // What cannot be added to.
        return {
          type: "set",
          key,
          value: { encoding: "bytes", data: Uint8Array.of(1) },
          expireAtMs,
        };
      case "delete":
        return { type, key };
      case "sum":
        return { type, key, value, min: EMPTY, max: EMPTY, clamp: false };
      case "min":
      case "max":
        return { type, key, value };
    }
  });
  return { type: "mutate", database: DATABASE, nowMs, checks: [], mutations };
}

/** What an operation would have written as the count; null if it is no such operation. */
function countOf({ request }: Operation): string | null {
  if (request?.type !== "mutate") return null;
  const [mutation] = request.mutations;
  const isCount = request.checks.length === 1 && mutation?.type === "set" &&
    mutation.key === COUNT;
  return isCount ? textOf(mutation.value.data) : null;
}

/**
 * No number is lost or written twice; what was told is so, in the order in which clients saw it; and
 * what was told to have failed has no effect.
 */
export function checkCounts(
  operations: readonly Operation[],
  oracle: Oracle,
): void {
  const written = new Map<string, number>();
  for (const { key, entry, revision } of oracle.model.events) {
    if (key !== COUNT_KEY || entry === null) continue;
    const text = textOf(openValue(entry.value).data);
    must(
      Number(text.split(" ")[0]) === written.size + 1 && !written.has(text),
      "checked writes once",
      () => `"${text}" at revision ${revision}, after ${written.size} others`,
    );
    written.set(text, revision);
  }
  const told: { number: number; operation: Operation }[] = [];
  for (const operation of operations) {
    const text = countOf(operation);
    if (text === null) continue;
    const { outcome, result, client } = operation;
    const isOpen = outcome === "unknown" || outcome === "open";
    if (isOpen) continue;
    const isDone = result?.type === "mutate" &&
      result.failedChecks.length === 0;
    const revision = isDone ? result.revision : undefined;
    must(
      written.get(text) === revision,
      "checked writes as told",
      () =>
        `${client} is told ${outcome}, revision ${revision}, of "${text}", which has ` +
        `${written.get(text)}`,
    );
    if (isDone) told.push({ number: parseInt(text), operation });
  }
  told.sort((a, b) => a.number - b.number);
  let lastCall = 0;
  for (const { number, operation } of told) {
    must(
      operation.return > lastCall,
      "checked writes in real-time order",
      () => `${operation.client} was told ${number} before a lower one began`,
    );
    lastCall = Math.max(lastCall, operation.call);
  }
}

function numberIn(value: Uint8Array): number {
  return parseInt(textOf(openValue(value).data));
}
