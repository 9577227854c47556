/**
 * Two servers that get the same requests: plays sequences on both, compares what they say, and
 * shrinks a sequence over which they differ. Used by `diff.ts`.
 *
 * @module
 */

import { type Difference, differences, HeaderIds } from "./compare.ts";
import { Connection } from "./connection.ts";
import { Player } from "./play.ts";
import type { Request, Step, Value } from "./steps.ts";

/** Revisions that one server may be ahead of the other, for both to be brought to the same. */
const PADDING_MAX = 100_000;
/** Changes before the first sequence, so that there is a past. */
const PRELUDE_PUTS = 12;

/** Revisions of them that are not compacted. */
const KEPT = 5;

/** What a shrinking may cost. */
export interface ShrinkOptions {
  /** Sequences played at most. */
  readonly attempts: number;
  readonly milliseconds: number;
}

/** Two servers with the same contents. */
export class Pair implements Disposable {
  readonly #players: readonly [Player, Player];
  readonly #ids: readonly [HeaderIds, HeaderIds] = [
    new HeaderIds(),
    new HeaderIds(),
  ];

  constructor(left: string, right: string) {
    this.#players = [
      new Player(new Connection(left)),
      new Player(new Connection(right)),
    ];
  }

  /** Plays a sequence on both and tells where they differ. */
  async play(steps: readonly Step[]): Promise<Difference[]> {
    const [left, right] = this.#players;
    const said = await Promise.all([left.play(steps), right.play(steps)]);
    return differences(said[0], said[1], this.#ids);
  }

  /**
   * Brings both to the same revision, with nothing in them and no history: at the beginning, and
   * after a difference. Throws if one does not serve.
   */
  async equalise(): Promise<void> {
    for (const player of this.#players) await clean(player);
    const revisions = () =>
      this.#players.map(({ revisions }) => revisions.current);
    const target = Math.max(...revisions()) + PRELUDE_PUTS;
    if (target - Math.min(...revisions()) > PADDING_MAX) {
      throw new Error(`Revisions are too far apart: ${revisions().join(", ")}`);
    }
    for (const player of this.#players) {
      while (player.revisions.current < target - 1) {
        player.learn({
          answer: await player.connection.ask("KV.Put", {
            key: KEY,
            value: KEY,
          }),
        });
      }
      await clean(player);
      await player.connection.ask("KV.Compact", { revision: target - KEPT });
      player.revisions.compacted = target - KEPT;
    }
    const [left, right] = revisions();
    if (left !== right) {
      throw new Error(`Revisions stay apart: ${left}, ${right}`);
    }
  }

  /** A shorter sequence over which both still differ in the same way, and how. */
  async shrink(
    steps: readonly Step[],
    { kind }: Difference,
    { attempts, milliseconds }: ShrinkOptions,
  ): Promise<{ steps: Step[]; differences: Difference[] } | null> {
    const endMs = performance.now() + milliseconds;
    let left = attempts;
    let best: { steps: Step[]; differences: Difference[] } | null = null;
    const differs = async (candidate: readonly Step[]): Promise<boolean> => {
      if (left-- <= 0 || performance.now() > endMs) return false;
      await this.equalise();
      const found = await this.play(candidate);
      if (found[0]?.kind !== kind) return false;
      best = { steps: [...candidate], differences: found };
      return true;
    };
    if (!await differs(steps)) return null;
    const fewer = await shrinkList(steps, differs);
    await shrinkRequests(fewer, differs);
    await this.equalise();
    return best;
  }

  [Symbol.dispose](): void {
    for (const player of this.#players) player[Symbol.dispose]();
  }
}

const KEY = new TextEncoder().encode("a");
const FIRST_KEY = new Uint8Array(1);

async function clean({ connection, revisions }: Player): Promise<void> {
  // Another server's key may be left, so there is always something to delete.
  await connection.ask("KV.Put", { key: KEY, value: KEY });
  const { header } = await connection.ask("KV.DeleteRange", {
    key: FIRST_KEY,
    range_end: FIRST_KEY,
  });
  const { leases } = await connection.ask("Lease.LeaseLeases", {});
  for (const { ID } of leases as { ID: string }[]) {
    await connection.ask("Lease.LeaseRevoke", { ID });
  }
  const { users } = await connection.ask("Auth.UserList", {});
  for (const name of users as string[]) {
    await connection.ask("Auth.UserDelete", { name });
  }
  const { roles } = await connection.ask("Auth.RoleList", {});
  for (const role of roles as string[]) {
    await connection.ask("Auth.RoleDelete", { role });
  }
  revisions.current = Number((header as { revision: string }).revision);
}

/** Drops halves, quarters, … of a list as long as the test holds. */
export async function shrinkList<T>(
  list: readonly T[],
  holds: (candidate: readonly T[]) => Promise<boolean>,
): Promise<T[]> {
  let rest = [...list];
  for (let size = rest.length >> 1; size >= 1; size >>= 1) {
    // From the end: what comes late is less often needed.
    for (let at = rest.length - size; at > -size; at -= size) {
      const from = Math.max(0, at);
      const candidate = rest.toSpliced(from, at + size - from);
      if (candidate.length < rest.length && await holds(candidate)) {
        rest = candidate;
      }
    }
  }
  return rest;
}

/** Leaves out fields and items of requests as long as the test holds. */
async function shrinkRequests(
  steps: Step[],
  holds: (candidate: readonly Step[]) => Promise<boolean>,
): Promise<void> {
  let rest = steps;
  for (let at = 0; at < rest.length; at++) {
    for (let changed = true; changed;) {
      changed = false;
      const step = rest[at];
      if (step === undefined) break;
      for (const request of smaller(step.request)) {
        const candidate = rest.with(at, { ...step, request });
        if (await holds(candidate)) {
          rest = candidate;
          changed = true;
          break;
        }
      }
    }
  }
}

/** A request with one field or item less, at any depth. */
function* smaller(request: Request): Generator<Request> {
  for (const [name, value] of Object.entries(request)) {
    const { [name]: _, ...others } = request;
    if (name !== "key") yield others;
    for (const inner of smallerValues(value)) {
      yield { ...request, [name]: inner };
    }
  }
}

function* smallerValues(value: Value): Generator<Value> {
  if (Array.isArray(value)) {
    if (value.length > 8) yield value.slice(0, value.length >> 1);
    for (const [at, item] of value.entries()) {
      yield value.toSpliced(at, 1);
      for (const inner of smallerValues(item)) yield value.with(at, inner);
      if (at > 8) return;
    }
  } else if (typeof value === "object") {
    yield* smaller(value);
  }
}
