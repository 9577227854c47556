/**
 * What one watch delivers, however often it moves from node to node: exactly the history of its range
 * from its first revision on, in order, whole revisions at a time; or the news that it cannot. Used
 * by `clients.ts`.
 *
 * @module
 */

import type { KeyRange } from "../../../batch.ts";
import type { WatchEvent } from "../../../store.ts";
import type { Oracle } from "../oracle.ts";
import { must } from "../violation.ts";
import { isSameEntry, show } from "./states.ts";

/** One watch, and what it must still get. */
export class WatchCheck {
  readonly #oracle: Oracle;
  readonly #name: string;
  readonly #range: KeyRange;
  /** Everything below was delivered. */
  nextRevision: number;
  /** Position in the model's events: none before it is still to be delivered. */
  #position = 0;

  constructor(
    oracle: Oracle,
    options: { name: string; range: KeyRange; fromRevision: number },
  ) {
    this.#oracle = oracle;
    this.#name = options.name;
    this.#range = options.range;
    this.nextRevision = options.fromRevision;
  }

  /** Starts again from a later revision: what was before is given up. */
  moveTo(revision: number): void {
    this.nextRevision = revision;
  }

  /** A delivery; to be called when the oracle knows all that the node knew. */
  delivered(events: readonly WatchEvent[], throughRevision: number): void {
    const expected = this.#take(throughRevision);
    must(
      events.length === expected.length,
      "watch delivers history",
      () =>
        `${this.#name} gets ${
          events.map((event) => `${event.type} ${show(event)}`).join(", ")
        } through ${throughRevision} from ${this.nextRevision}, expected ${
          expected.map(({ type, key, revision }) =>
            `${type} ${key} at ${revision}`
          ).join(", ")
        }`,
    );
    for (const [i, event] of events.entries()) {
      const { type, key, revision, entry, previous } = expected[i]!;
      must(
        event.type === type && event.key === key &&
          event.modRevision === revision &&
          (entry === null || isSameEntry(event, entry)),
        "watch delivers history",
        () =>
          `${this.#name} gets ${event.type} ${show(event)}, expected ${type} ${
            show(entry)
          } of ${key} at ${revision}`,
      );
      must(
        event.previous === null ||
          previous !== null && isSameEntry(event.previous, previous),
        "watch delivers history",
        () =>
          `${this.#name} gets ${
            show(event.previous)
          } before ${key} at ${revision}, expected ${show(previous)}`,
      );
    }
    this.nextRevision = Math.max(this.nextRevision, throughRevision + 1);
  }

  /** The watch ended because history is gone. */
  compacted(): void {
    const { compactRevision } = this.#oracle.model;
    must(
      this.nextRevision < compactRevision,
      "watch ends for a reason",
      () =>
        `${this.#name} wants ${this.nextRevision}, history begins at ${compactRevision}`,
    );
  }

  /** At the end of a run: nothing is left to be delivered up to this revision. */
  complete(revision: number): void {
    const missing = this.#take(revision);
    must(
      missing.length === 0,
      "watch delivers everything",
      () =>
        `${this.#name} got everything below ${this.nextRevision}, of ${revision}; it lacks ` +
        missing.map(({ type, key, revision }) =>
          `${type} ${key} at ${revision}`
        )
          .join(", "),
    );
  }

  #take(throughRevision: number) {
    const { events } = this.#oracle.model;
    const { start, end } = this.#range;
    const taken = [];
    for (; this.#position < events.length; this.#position++) {
      const event = events[this.#position]!;
      if (event.revision > throughRevision) break;
      if (event.revision < this.nextRevision) continue;
      if (event.key < start || end !== null && event.key >= end) continue;
      taken.push(event);
    }
    return taken;
  }
}
