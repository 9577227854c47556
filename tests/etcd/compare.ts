/**
 * Compares what two servers said to the same sequence, field by field, and knows what may differ.
 * Used by `pair.ts`.
 *
 * @module
 */

import type { Said } from "./play.ts";
import type { Request } from "./steps.ts";

/** Something that may differ, and why. */
export interface KnownDifference {
  readonly what: string;
  readonly reason: string;
}

/** Where two servers said different things. */
export interface Difference {
  /** Which step of the sequence; null for what the player did by itself. */
  readonly step: number | null;
  /** Says the same for differences of the same kind. */
  readonly kind: string;
  /** `path: left ≠ right`. */
  readonly lines: readonly string[];
  readonly left: Said | null;
  readonly right: Said | null;
}

/** Everything that this comparison lets pass. `--help` prints it. */
export const KNOWN_DIFFERENCES: readonly KnownDifference[] = [
  {
    what: "header.cluster_id, header.member_id, header.raft_term",
    reason: "names of a cluster and its elections; they must be there, and " +
      "each server must keep to its own ids",
  },
  {
    what: "LeaseGrantResponse.ID when the server chooses it",
    reason: "chosen at random; it must not be 0",
  },
  {
    what: "LeaseTimeToLiveResponse.TTL by up to 2 s",
    reason: "what is left of a lease depends on when it is asked",
  },
  {
    what: "the shortest TTL that is granted",
    reason: "follows from a server's election timeout; only longer ones are " +
      "asked for",
  },
  {
    what: "order of LeaseTimeToLiveResponse.keys",
    reason: "etcd gives them in the order of a hash table, at random",
  },
  {
    what: "WatchResponse: how events are cut into messages, and " +
      "header.revision of such messages",
    reason:
      "depends on when the server comes to it; each watch's sequence of " +
      "events is compared, and no header is older than its events",
  },
  {
    what: "watch ids after compaction has ended their watch",
    reason: "etcd 3.4 keeps such an id taken and confirms its cancellation " +
      "once more; requests with such an id are not made",
  },
  {
    what: "a transaction that deletes up to the end of all keys (a range_end " +
      "of one zero byte) and puts one of them",
    reason:
      "etcd overlooks that the two meet, and panics if the put wants to " +
      "keep what is no longer there; dkv refuses it as it does all such " +
      "transactions; they are not made",
  },
  {
    what: "a transaction in which a nested one deletes what a nested one " +
      "before it puts",
    reason: "etcd overlooks that the two meet; dkv refuses it as a duplicate " +
      "key; such transactions are not made",
  },
  {
    what: "two permissions of a role whose ranges begin with the same key",
    reason:
      "etcd looks at the first of them alone when one is granted again, " +
      "and keeps both; dkv replaces the one with the same end; such ranges are " +
      "not granted",
  },
  {
    what: "a delete at exactly the compacted revision, in a watch from there",
    reason: "etcd 3.4 forgets it some time after the compaction (fixed in " +
      "3.5.17); it may be delivered or not",
  },
];

/** How far apart remaining times may be. */
const TTL_SECONDS_APART_MAX = 2;
/** Lines that a difference shows. */
const LINES_MAX = 20;
/** Of a difference in one line. */
const KIND_CHARACTERS_MAX = 160;
const HEADER_IDS = ["cluster_id", "member_id"] as const;

/** The ids in a server's headers, which must not change. */
export class HeaderIds {
  readonly #ids = new Map<string, unknown>();

  /** What is wrong with a header. */
  problems(header: Record<string, unknown>): string[] {
    const problems: string[] = [];
    for (const name of HEADER_IDS) {
      const known = this.#ids.get(name) ?? header[name];
      this.#ids.set(name, known);
      if (header[name] !== known) {
        problems.push(`header.${name} was ${known} and is ${header[name]}`);
      }
      if (header[name] === "0") problems.push(`header.${name} is 0`);
    }
    if (header["raft_term"] === "0") problems.push("header.raft_term is 0");
    return problems;
  }
}

/** All differences between two records, in order. */
export function differences(
  left: readonly Said[],
  right: readonly Said[],
  ids: readonly [HeaderIds, HeaderIds],
): Difference[] {
  const found: Difference[] = [];
  for (let at = 0; at < Math.max(left.length, right.length); at++) {
    const [l, r] = [left[at] ?? null, right[at] ?? null];
    const lines = l === null || r === null || l.call !== r.call
      ? [`${l?.call ?? "nothing"} ≠ ${r?.call ?? "nothing"}`]
      : compared(l, r, ids);
    if (lines.length === 0) continue;
    const [first = ""] = lines;
    found.push({
      step: (l ?? r)?.step ?? null,
      kind: `${(l ?? r)?.call} ${first.replace(/\d+/g, "N")}`.slice(
        0,
        KIND_CHARACTERS_MAX,
      ),
      lines: lines.slice(0, LINES_MAX),
      left: l,
      right: r,
    });
  }
  return found;
}

/** Lines that say where two values differ. */
export function valueDifferences(
  left: unknown,
  right: unknown,
  path = "",
): string[] {
  if (left === right) return [];
  if (isObject(left) && isObject(right)) {
    const names = new Set([...Object.keys(left), ...Object.keys(right)]);
    return [...names].flatMap((name) =>
      valueDifferences(
        left[name],
        right[name],
        path === "" ? name : `${path}.${name}`,
      )
    );
  }
  return [`${path}: ${text(left)} ≠ ${text(right)}`];
}

function compared(
  left: Said,
  right: Said,
  ids: readonly [HeaderIds, HeaderIds],
): string[] {
  const problems: string[] = [];
  if (left.call === "problems") {
    const sides = [["left", left], ["right", right]] as const;
    for (const [side, said] of sides) {
      for (const problem of said.outcome as string[]) {
        problems.push(`${side}: ${problem}`);
      }
    }
    return problems;
  }
  const [l, r] = [
    masked(left, ids[0], problems),
    masked(right, ids[1], problems),
  ];
  if (left.call === "Lease.LeaseTimeToLive") evenTtl(l, r);
  return [...problems, ...valueDifferences(l, r)];
}

/** What was said without what may differ. */
function masked(said: Said, ids: HeaderIds, problems: string[]): unknown {
  const { call, request, revisions } = said;
  if (call === "events") {
    const start = Number(request["start_revision"]);
    // Every compaction of the sequence counts, so the one that was the latest when it ended will do.
    return start === 0 || start > revisions.compacted
      ? said.outcome
      : withoutDeletesAt(said.outcome as Event[], start);
  }
  return maskedOutcome(said.outcome, { call, request, ids, problems });
}

interface Event {
  readonly type: string;
  readonly kv: { readonly mod_revision: string };
}

function withoutDeletesAt(events: readonly Event[], revision: number): Event[] {
  return events.filter(({ type, kv }) =>
    type !== "DELETE" || Number(kv.mod_revision) !== revision
  );
}

function maskedOutcome(
  outcome: unknown,
  context: {
    call: string;
    request: Request;
    ids: HeaderIds;
    problems: string[];
  },
): unknown {
  if (!isObject(outcome)) return outcome;
  if (!("answer" in outcome)) {
    // An error is compared as it is; two outcomes in one are those of a watch.
    return "error" in outcome ? outcome : Object.fromEntries(
      Object.entries(outcome).map((
        [name, inner],
      ) => [name, maskedOutcome(inner, context)]),
    );
  }
  const answer = { ...outcome["answer"] as Record<string, unknown> };
  const { call, request, ids, problems } = context;
  const header = answer["header"] as Record<string, unknown> | null;
  if (header === null) {
    problems.push("no header");
  } else {
    problems.push(...ids.problems(header));
    answer["header"] = { revision: header["revision"] };
  }
  if (call === "Lease.LeaseGrant" && (request["ID"] ?? "0") === "0") {
    if (answer["ID"] === "0") problems.push("ID: 0");
    answer["ID"] = "chosen";
  }
  if (call === "Lease.LeaseTimeToLive") {
    answer["keys"] = [...answer["keys"] as string[]].sort();
  }
  return { answer };
}

/** Makes remaining times equal if they are about equal. */
function evenTtl(left: unknown, right: unknown): void {
  const [l, r] = [left, right].map((outcome) =>
    (outcome as { answer?: { TTL: string } }).answer
  );
  if (l === undefined || r === undefined) return;
  if (Number(l.TTL) < 0 || Number(r.TTL) < 0) return;
  if (Math.abs(Number(l.TTL) - Number(r.TTL)) <= TTL_SECONDS_APART_MAX) {
    l.TTL = r.TTL;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function text(value: unknown): string {
  return JSON.stringify(value) ?? "nothing";
}
