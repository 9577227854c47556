/**
 * Nothing is committed before a majority has it on disk, and no replica takes back a vote or a term
 * that it has spoken of (Raft paper, figure 2). Looks at what the disks would hold after a crash.
 * Used by `cluster.ts`.
 *
 * @module
 */

import { hasQuorum } from "../../../members.ts";
import type {
  Configuration,
  Index,
  MemberId,
  Message,
  Term,
} from "../../../message.ts";
import { contains, type Held } from "../disk.ts";
import type { Machine } from "../machine.ts";
import type { Oracle } from "../oracle.ts";
import { must } from "../violation.ts";

/** What is durable where. */
export class Durability {
  readonly #oracle: Oracle;
  /** By member, those that are gone too: what they acknowledged was true when they said it. */
  readonly #disks = new Map<MemberId, () => Held>();
  /** Votes that left a machine, by member and term. */
  readonly #votes = new Map<string, MemberId>();
  /** As the turn under way found the machine. */
  #configuration: Configuration | null = null;
  #led: { term: Term; commit: Index } | null = null;
  #before: Index = 0;

  constructor(oracle: Oracle) {
    this.#oracle = oracle;
  }

  /** A member is on this machine from now on. */
  watch(machine: Machine): void {
    this.#disks.set(machine.member, () => machine.disk.durable);
  }

  /** A member is gone, with its disk. */
  retire({ member, disk: { durable } }: Machine): void {
    this.#disks.set(member, () => durable);
  }

  /** A message leaves a machine. */
  sent(machine: Machine, message: Message): void {
    const { durable } = machine.disk;
    if (
      message.type === "voteReply" && message.granted && !message.preVote
    ) {
      this.#voted(machine, { term: message.term, candidate: message.to });
    } else if (message.type === "vote" && !message.preVote) {
      this.#voted(machine, {
        term: message.term,
        candidate: machine.member,
      });
    } else if (message.type === "appendReply" && message.index > 0) {
      must(
        message.index <= durable.base.index + durable.entries.length,
        "durable before acknowledged",
        () =>
          `${machine.member} acknowledges ${message.index}, on its disk is ` +
          `${durable.base.index + durable.entries.length}`,
      );
    }
  }

  #voted(
    machine: Machine,
    { term, candidate }: { term: Term; candidate: MemberId },
  ): void {
    const { hardState } = machine.disk.durable;
    must(
      hardState.term > term ||
        hardState.term === term && hardState.vote === candidate,
      "durable before voted",
      () =>
        `${machine.member} votes for ${candidate} in term ${term}, on its disk is ` +
        JSON.stringify(hardState),
    );
    const name = `${machine.member} ${term}`;
    const earlier = this.#votes.get(name) ?? candidate;
    must(
      earlier === candidate,
      "one vote per term",
      () =>
        `${machine.member} votes for ${earlier} and ${candidate} in term ${term}`,
    );
    this.#votes.set(name, candidate);
  }

  beforeTurn(machine: Machine): void {
    const { configuration, role, term, commit } = machine.group!.core;
    this.#configuration = configuration;
    this.#led = role === "leader" ? { term, commit } : null;
    this.#before = this.#oracle.index;
  }

  /** After each turn, when the oracle has learned what it committed. */
  afterTurn(machine: Machine): void {
    this.#checkOwnTerm(machine);
    const { index } = this.#oracle;
    if (index === this.#before) return;
    const entry = this.#oracle.entry(index)!;
    const isHeld = (member: MemberId) => {
      const held = this.#disks.get(member)?.();
      return held !== undefined && contains(held, entry);
    };
    const { configuration } = machine.group!.core;
    // The turn may have changed the configuration before or after it committed.
    must(
      hasQuorum(configuration, isHeld) ||
        hasQuorum(this.#configuration!, isHeld),
      "committed only with a majority",
      () =>
        `${machine.member} holds ${index} of term ${entry.term} committed, on disk it is at ` +
        `${[...this.#disks.keys()].filter(isHeld).join(" ")} of ` +
        JSON.stringify(configuration),
    );
  }

  /** A leader counts copies of its own entries only (Raft paper, 5.4.2). */
  #checkOwnTerm(machine: Machine): void {
    const { role, term, commit } = machine.group!.core;
    const led = this.#led;
    if (role !== "leader" || led?.term !== term || led.commit >= commit) return;
    const entryTerm = this.#oracle.entry(commit)?.term;
    must(
      entryTerm === term,
      "committed in the own term",
      () =>
        `${machine.member} leads in term ${term} and commits ${commit} of term ${entryTerm}`,
    );
  }
}
