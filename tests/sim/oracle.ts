/**
 * What is certain: the committed log as soon as any replica shows it, and what it means, worked out
 * by the model of `tests/model.ts` and by a plain reading of the rules for retried writes. All
 * checkers compare with it. Used by `cluster.ts`.
 *
 * @module
 */

import { type Command, decodeBatch, type WriteId } from "../../batch.ts";
import { assert } from "../../errors.ts";
import type { Entry, Index } from "../../message.ts";
import type { Result } from "../../results.ts";
import { Model } from "../model.ts";
import { must } from "./violation.ts";

/** A client's writes as the rules for retries see them. */
interface Session {
  doneBelow: number;
  readonly results: Map<number, Result>;
}

/** A command that was committed, with what it must have done. */
export interface Applied {
  readonly index: Index;
  readonly command: Command;
  readonly result: Result;
  /** False if it was a repetition, or changed nothing. */
  readonly isChange: boolean;
  /** False if it has no revision of its own. */
  readonly isRevision: boolean;
}

/** What the state must be at an index. */
export interface Expected {
  readonly revision: number;
  readonly compactRevision: number;
  readonly timeMs: number;
}

/** A lease that ran out, not one that was revoked. */
export interface Expiry {
  readonly lease: bigint;
  readonly revisionBefore: number;
}

/** The committed log and its meaning. */
export class Oracle {
  readonly model = new Model();
  /** Position 0 stands for the empty state; otherwise the entry's index. */
  readonly expected: Expected[] = [
    { revision: 1, compactRevision: 0, timeMs: 0 },
  ];
  readonly journal: Entry[] = [];
  readonly #sessions = new Map<string, Session>();
  /** Where each command is, by origin and id. */
  readonly #commands = new Map<string, Index>();
  /** What each (client, sequence) did when it was applied, the one time. */
  readonly writes = new Map<string, Applied>();
  onApplied: (applied: Applied) => void = () => {};
  onExpiry: (expiry: Expiry) => void = () => {};

  /** The last index that is known to be committed. */
  get index(): Index {
    return this.journal.length;
  }

  entry(index: Index): Entry | undefined {
    return this.journal[index - 1];
  }

  /** Takes the next committed entry in. */
  commit(entry: Entry): void {
    assert(
      entry.index === this.index + 1,
      `Entry ${entry.index} after ${this.index}`,
    );
    this.journal.push(entry);
    const batch = entry.type === "batch" ? decodeBatch(entry.data) : null;
    const { model } = this;
    const before = [...model.leases.keys()];
    model.tick(batch?.timeMs ?? 0);
    for (const lease of before) {
      if (!model.leases.has(lease)) {
        this.onExpiry({ lease, revisionBefore: model.revision });
      }
    }
    for (const command of batch?.commands ?? []) {
      const applied = this.#apply(command, entry.index);
      this.onApplied(applied);
    }
    const { revision, compactRevision, timeMs } = model;
    this.expected.push({ revision, compactRevision, timeMs });
  }

  #apply(command: Command, index: Index): Applied {
    const { writeId, request } = command;
    const name = `${command.origin} ${command.id}`;
    const earlier = this.#commands.get(name);
    must(
      earlier === undefined,
      "each command is in the log once",
      () => `${request.type} ${name} is at ${earlier} and at ${index}`,
    );
    this.#commands.set(name, index);
    const known = writeId === null ? null : this.#known(writeId);
    if (known !== null) {
      return {
        index,
        command,
        result: known,
        isChange: false,
        isRevision: false,
      };
    }
    const { model } = this;
    const before = model.revision;
    const result = model.apply(request) as Result;
    const isWrite = request.type === "put" || request.type === "delete" ||
      request.type === "transact" || request.type === "mutate";
    const isRevision = model.revision !== before;
    const isChange = isWrite ? isRevision : result.type !== "error";
    const applied = { index, command, result, isChange, isRevision };
    if (writeId !== null) this.#remember(writeId, applied);
    return applied;
  }

  /** The answer that a write must get without being applied; null if it is to be applied. */
  #known({ client, sequence, doneBelow }: WriteId): Result | null {
    const session = this.#sessions.get(client);
    if (session !== undefined) {
      session.doneBelow = Math.max(session.doneBelow, doneBelow);
      for (const done of session.results.keys()) {
        if (done < session.doneBelow) session.results.delete(done);
      }
      const known = session.results.get(sequence);
      if (known !== undefined) return known;
    }
    if (sequence >= (session?.doneBelow ?? doneBelow)) return null;
    return { type: "error", code: "SEQUENCE_STALE", message: "" };
  }

  #remember({ client, sequence, doneBelow }: WriteId, applied: Applied): void {
    const name = `${client}/${sequence}`;
    assert(!this.writes.has(name), `The model applied ${name} twice`);
    this.writes.set(name, applied);
    const session = this.#sessions.get(client) ??
      { doneBelow, results: new Map() };
    session.results.set(sequence, applied.result);
    this.#sessions.set(client, session);
  }
}
