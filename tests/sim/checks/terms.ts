/**
 * A term begins with a candidate: asking before an election (a pre-vote) raises nobody's term (Raft
 * thesis, 9.6). Used by `cluster.ts`.
 *
 * @module
 */

import type { Message, Term } from "../../../message.ts";
import type { Machine } from "../machine.ts";
import { must } from "../violation.ts";

/** Which terms somebody has campaigned in. */
export class Terms {
  #campaigned: Term = 0;

  /** A message leaves a machine. */
  sent(message: Message): void {
    if (message.type === "vote" && !message.preVote) this.#rose(message.term);
    // Who votes alone asks nobody, and may die before its first turn as leader is over.
    const leads = message.type === "heartbeat" || message.type === "append";
    if (leads) this.#rose(message.term);
  }

  /** After each turn. */
  afterTurn(machine: Machine): void {
    const { role, term } = machine.group!.core;
    // Who died before it could ask anybody has voted for itself.
    if (role === "candidate" || role === "leader") this.#rose(term);
    const { hardState } = machine.disk.durable;
    if (hardState.vote === machine.member) this.#rose(hardState.term);
    must(
      term <= this.#campaigned,
      "terms rise by candidacy",
      () =>
        `${machine.member} is in term ${term}, nobody campaigned beyond ${this.#campaigned}`,
    );
  }

  #rose(term: Term): void {
    this.#campaigned = Math.max(this.#campaigned, term);
  }
}
