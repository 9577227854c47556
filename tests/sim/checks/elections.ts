/**
 * Election safety: at most one leader in each term, and whoever leads has every committed entry
 * (Raft paper, figure 3). Used by `cluster.ts`.
 *
 * @module
 */

import type { MemberId, Term } from "../../../message.ts";
import { contains } from "../disk.ts";
import type { Machine } from "../machine.ts";
import type { Oracle } from "../oracle.ts";
import { must } from "../violation.ts";

/** Who led when. */
export class Elections {
  readonly #leaders = new Map<Term, MemberId>();
  readonly #oracle: Oracle;

  constructor(oracle: Oracle) {
    this.#oracle = oracle;
  }

  /** How many leaders there were. */
  get count(): number {
    return this.#leaders.size;
  }

  /** After each turn, before the oracle learns what it committed. */
  afterTurn(machine: Machine): void {
    const { role, term } = machine.group!.core;
    if (role !== "leader") return;
    const known = this.#leaders.get(term);
    must(
      known === undefined || known === machine.member,
      "one leader per term",
      () => `${known} and ${machine.member} lead in term ${term}`,
    );
    if (known !== undefined) return;
    this.#leaders.set(term, machine.member);
    const last = this.#oracle.entry(this.#oracle.index);
    // Log matching, which another checker watches, makes the last one enough. Votes may arrive late: what
    // was committed in a later term is no concern of a leader who will soon hear of that term.
    must(
      last === undefined || last.term > term ||
        contains(machine.disk.written, last),
      "leader completeness",
      () =>
        `${machine.member} leads in term ${term} without the committed entry ` +
        `${last?.index} of term ${last?.term}`,
    );
  }
}
