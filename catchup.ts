/**
 * Members that were sent a snapshot: the log behind it is kept for them until they have caught up.
 * Otherwise, where snapshots take longer than the log is long, the entries after one are gone when it
 * has arrived, and the next one is due, for ever. Used by `group.ts`; leader only.
 *
 * ```text
 *   log   ──[ dropped ········ | kept for the member ··············· | kept for everybody ]── applied
 *                     snapshot was asked for here          applied less `catchUpEntries`
 * ```
 *
 * @module
 */

import type { Index, MemberId } from "./message.ts";

/** A member that has not caught up by then must not fill the disks of the others. */
const HOLD_TICKS_MAX = 1200;

/** Who catches up, and from where. */
export class CatchUps {
  readonly #members = new Map<MemberId, { index: Index; untilTick: number }>();

  /** A snapshot of at least this index is made for a member. */
  begin(
    member: MemberId,
    { index, tick }: { index: Index; tick: number },
  ): void {
    this.#members.set(member, { index, untilTick: tick + HOLD_TICKS_MAX });
  }

  /** Another replica leads. */
  clear(): void {
    this.#members.clear();
  }

  /**
   * Up to where the log may be dropped, at most `target`, given what each member has. Whoever has
   * `target` needs no more than what is kept for everybody.
   */
  allow(
    target: Index,
    { matchOf, tick }: {
      matchOf: (member: MemberId) => Index | undefined;
      tick: number;
    },
  ): Index {
    let allowed = target;
    for (const [member, { index, untilTick }] of this.#members) {
      const match = matchOf(member);
      if (match === undefined || match >= target || tick > untilTick) {
        this.#members.delete(member);
      } else allowed = Math.min(allowed, index);
    }
    return allowed;
  }
}
