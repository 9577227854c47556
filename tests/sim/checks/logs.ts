/**
 * Log matching, by induction: wherever two logs hold an entry of the same index and term, it is the
 * same entry, after the same one; and a committed entry is never another one (Raft paper, 5.3).
 * Used by `cluster.ts`.
 *
 * @module
 */

import { assert } from "../../../errors.ts";
import type { Position } from "../../../log.ts";
import type { Entry, Index } from "../../../message.ts";
import { termOf } from "../disk.ts";
import type { Machine } from "../machine.ts";
import type { Oracle } from "../oracle.ts";
import { must } from "../violation.ts";

interface Known {
  readonly entry: Entry;
  readonly before: Position;
}

/** Every entry that any replica ever wrote. */
export class Logs {
  readonly #known = new Map<string, Known>();
  readonly #oracle: Oracle;
  /** Up to where the log of a machine, in its present run, is known to be that of the oracle. */
  readonly #compared = new Map<Machine, { generation: number; index: Index }>();

  constructor(oracle: Oracle) {
    this.#oracle = oracle;
  }

  /** An entry was written, after the one at `before`. */
  appended(machine: Machine, entry: Entry, before: Position): void {
    const name = `${entry.index}/${entry.term}`;
    const known = this.#known.get(name);
    if (known === undefined) {
      this.#known.set(name, { entry, before });
      return;
    }
    must(
      known.before.term === before.term && isSame(known.entry, entry),
      "log matching",
      () =>
        `${machine.member} holds another entry ${name} (after term ${before.term}) than was ` +
        `written before (after term ${known.before.term})`,
    );
  }

  /** After each turn: what the replica holds committed must be what is committed. */
  afterTurn(machine: Machine): void {
    const { commit } = machine.group!.core;
    const held = machine.disk.written;
    while (this.#oracle.index < commit) {
      const next = this.#oracle.index + 1;
      const entry = held.entries[next - held.base.index - 1];
      assert(entry !== undefined, `Committed entry ${next} was never seen`);
      this.#oracle.commit(entry);
    }
    const compared = this.#compared.get(machine);
    const start = compared?.generation === machine.generation
      ? compared.index
      : 0;
    for (
      let index = Math.max(start, held.base.index) + 1;
      index <= commit;
      index++
    ) {
      const term = termOf(held, index);
      const expected = this.#oracle.entry(index)?.term;
      must(
        term === expected,
        "log matching",
        () =>
          `${machine.member} holds ${index} of term ${term} committed, others term ${expected}`,
      );
    }
    const { generation } = machine;
    this.#compared.set(machine, { generation, index: commit });
  }
}

function isSame(a: Entry, b: Entry): boolean {
  if (a === b) return true;
  if (a.type === "batch" && b.type === "batch") {
    return a.data === b.data || a.data.length === b.data.length &&
        a.data.every((byte, i) => byte === b.data[i]);
  }
  return JSON.stringify(a) === JSON.stringify(b);
}
