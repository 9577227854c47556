/**
 * State machine safety: equal hash at equal index, the revision and contents that the model has, and
 * an applied index that never goes down. Used by `cluster.ts`.
 *
 * @module
 */

import type { Store } from "../../../store.ts";
import type { Machine } from "../machine.ts";
import type { Oracle } from "../oracle.ts";
import { must } from "../violation.ts";

/** The states of all replicas. */
export class States {
  readonly #oracle: Oracle;
  /** By index, as the first replica that showed it had it. */
  readonly #hashes = new Map<number, { hash: number; member: string }>();
  readonly #applied = new Map<Machine, { generation: number; index: number }>();

  constructor(oracle: Oracle) {
    this.#oracle = oracle;
  }

  /** After each turn. */
  afterTurn(machine: Machine): void {
    const { store } = machine.group!;
    const index = store.appliedIndex;
    const last = this.#applied.get(machine);
    const isSameRun = last?.generation === machine.generation;
    if (isSameRun && last.index === index) return;
    must(
      !isSameRun || last.index < index,
      "applied index rises",
      () => `${machine.member} went from ${last?.index} back to ${index}`,
    );
    this.#applied.set(machine, { generation: machine.generation, index });
    this.compare(machine, store);
  }

  /** The numbers of a state with those of the model at its index. */
  compare(machine: Machine, { state }: Store): void {
    const index = state.appliedIndex;
    const expected = this.#oracle.expected[index];
    must(
      expected !== undefined,
      "applied only what is committed",
      () =>
        `${machine.member} applied ${index}, committed is ${this.#oracle.index}`,
    );
    const { revision, compactRevision, timeMs } = expected;
    must(
      state.revision === revision && state.timeMs === timeMs &&
        state.compactRevision === compactRevision,
      "state as the model has it",
      () =>
        `${machine.member} at index ${index} is at revision ${state.revision}, compacted to ` +
        `${state.compactRevision}, time ${state.timeMs}; expected ${
          JSON.stringify(expected)
        }`,
    );
    const known = this.#hashes.get(index);
    if (known === undefined) {
      this.#hashes.set(index, { hash: state.hash, member: machine.member });
      return;
    }
    must(
      known.hash === state.hash,
      "equal hash at equal index",
      () =>
        `${machine.member} has ${state.hash} at ${index}, ${known.member} had ${known.hash}`,
    );
  }

  /** Every key and value; slow. May throw DATA_CORRUPT where bytes were changed. */
  compareContents(machine: Machine): void {
    const { store } = machine.group!;
    store.assertInvariants();
    const { entries } = store.list({ start: "", end: null }, {
      revision: 0,
      limit: 0,
      keysOnly: false,
      reverse: false,
      bytesMax: 2 ** 30,
    });
    const expected = this.#oracle.model.revisions[store.revision]!;
    must(
      entries.length === expected.size,
      "contents as the model has them",
      () =>
        `${machine.member} has ${entries.length} keys at revision ${store.revision}, ` +
        `expected ${expected.size}`,
    );
    for (const entry of entries) {
      const wanted = expected.get(entry.key);
      must(
        wanted !== undefined && isSameEntry(entry, wanted),
        "contents as the model has them",
        () => `${machine.member} has ${show(entry)}, expected ${show(wanted)}`,
      );
    }
  }
}

interface EntryLike {
  readonly key: string;
  readonly value: Uint8Array;
  readonly createRevision: number;
  readonly modRevision: number;
  readonly version: number;
  readonly lease: bigint;
}

/** True if two entries are alike in everything. */
export function isSameEntry(a: EntryLike, b: EntryLike): boolean {
  return a.key === b.key && a.createRevision === b.createRevision &&
    a.modRevision === b.modRevision && a.version === b.version &&
    a.lease === b.lease && textOf(a.value) === textOf(b.value);
}

/** Bytes as text. */
export function textOf(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes);
}

/** An entry for a message. */
export function show(entry: EntryLike | null | undefined): string {
  if (entry === null || entry === undefined) return "nothing";
  const { key, value, modRevision, version } = entry;
  return `${key}=${
    textOf(value)
  } (revision ${modRevision}, version ${version})`;
}
