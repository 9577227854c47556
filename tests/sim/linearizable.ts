/**
 * Decides whether a history of one object is linearizable: whether every operation can be placed at
 * a moment between its call and its return so that each gave the answer that the object would have
 * given. The search of Wing and Gong with Lowe's cache, after `checker.go` of
 * https://github.com/anishathalye/porcupine. Used by the simulator and by the live tests.
 *
 * ```text
 *   w1 |----put 1----|                     one order: w1, r1, w2, r2
 *   w2        |-----------put 2---------|
 *   r1               |-get 1-|
 *   r2                          |-get 2-|
 * ```
 *
 * A history is linearizable exactly when each part is, if the parts are independent objects: so
 * {@linkcode checkParts} takes it apart, by key for instance.
 *
 * An operation whose outcome is unknown returns at `Infinity` with an output for which `step` allows
 * the state with its effect: placed at the very end it is as good as never applied, because nobody
 * looks afterwards. A read with an unknown outcome is left out by the caller.
 *
 * @module
 */

import { assert } from "../../errors.ts";

/** One call, of anything. */
export interface Operation<Input, Output> {
  /** Of one clock for the whole history, that of whoever recorded it. */
  readonly call: number;
  /** At least `call`; `Infinity` if the answer never came. */
  readonly return: number;
  readonly input: Input;
  readonly output: Output;
}

/** What the object does when nothing happens at the same time. States are compared by value. */
export interface Specification<Input, Output> {
  readonly initial: string;
  /** The state after the operation; null if it could not have answered so in this state. */
  step(state: string, input: Input, output: Output): string | null;
}

/** What a check has come to. */
export type Verdict<Input, Output> =
  | { readonly type: "ok"; readonly steps: number }
  | {
    readonly type: "illegal";
    /** The longest order that was found, */
    readonly order: readonly Operation<Input, Output>[];
    /** and the first operation to return for which there was no place. */
    readonly stuck: Operation<Input, Output>;
  }
  /** The bound was reached first. This is not a pass. */
  | { readonly type: "timeout"; readonly steps: number };

/** A call or a return, in a list that operations are taken out of and put back into. */
interface Node {
  readonly at: number;
  /** Position of the operation. */
  readonly id: number;
  /** The return of a call; null in a return. */
  readonly match: Node | null;
  previous: Node | null;
  next: Node | null;
}

/** Checks the history of one object; gives up after `stepsMax` steps. */
export function check<Input, Output>(
  specification: Specification<Input, Output>,
  operations: readonly Operation<Input, Output>[],
  stepsMax = 5_000_000,
): Verdict<Input, Output> {
  return new Search(specification, operations).run(stepsMax);
}

/** Checks a history of independent objects; the first verdict that is not "ok", with its part. */
export function checkParts<Input, Output>(
  specification: Specification<Input, Output>,
  operations: readonly Operation<Input, Output>[],
  options: {
    partOf: (operation: Operation<Input, Output>) => string;
    stepsMax?: number;
  },
): { part: string; verdict: Verdict<Input, Output> } {
  const parts = new Map<string, Operation<Input, Output>[]>();
  for (const operation of operations) {
    const part = options.partOf(operation);
    const others = parts.get(part);
    if (others === undefined) parts.set(part, [operation]);
    else others.push(operation);
  }
  let steps = 0;
  for (const [part, own] of parts) {
    const verdict = check(specification, own, options.stepsMax);
    if (verdict.type !== "ok") return { part, verdict };
    steps += verdict.steps;
  }
  return { part: "", verdict: { type: "ok", steps } };
}

class Search<Input, Output> {
  readonly #specification: Specification<Input, Output>;
  readonly #operations: readonly Operation<Input, Output>[];
  readonly #head: Node = {
    at: -Infinity,
    id: -1,
    match: null,
    previous: null,
    next: null,
  };
  /** The operations that have been placed, */
  readonly #placed: Uint32Array;
  #placedHash = 0;
  /** in this order, each with the state before it. */
  readonly #stack: { node: Node; state: string }[] = [];
  /** What was tried: a set of placed operations with the state they led to. */
  readonly #tried = new Map<string, Uint32Array[]>();
  #state: string;
  #longest: number[] = [];
  #stuck = 0;

  constructor(
    specification: Specification<Input, Output>,
    operations: readonly Operation<Input, Output>[],
  ) {
    this.#specification = specification;
    this.#operations = operations;
    this.#placed = new Uint32Array(Math.ceil(operations.length / 32));
    this.#state = specification.initial;
    const nodes = operations.flatMap((operation, id): Node[] => {
      assert(
        operation.call <= operation.return,
        `An operation returns at ${operation.return}, before its call at ${operation.call}`,
      );
      const links = { previous: null, next: null };
      const end = { at: operation.return, id, match: null, ...links };
      return [{ at: operation.call, id, match: end, ...links }, end];
    });
    // Intervals are closed: on a tie, calls come first.
    nodes.sort((a, b) => {
      if (a.at !== b.at) return a.at < b.at ? -1 : 1;
      return Number(a.match === null) - Number(b.match === null);
    });
    let last = this.#head;
    for (const node of nodes) {
      last.next = node;
      node.previous = last;
      last = node;
    }
  }

  run(stepsMax: number): Verdict<Input, Output> {
    let node = this.#head.next;
    let steps = 0;
    while (this.#head.next !== null) {
      steps++;
      if (steps > stepsMax) return { type: "timeout", steps };
      assert(node !== null, "The search ran over the end of the history");
      if (node.match !== null) {
        node = this.#place(node) ? this.#head.next : node.next;
        continue;
      }
      // Somebody has his answer, so his operation should have been placed: go back.
      this.#note(node.id);
      const last = this.#stack.pop();
      if (last === undefined) return this.#illegal();
      this.#unplace(last);
      node = last.node.next;
    }
    return { type: "ok", steps };
  }

  /** Places the operation next, unless that is impossible or was tried; true if it is placed. */
  #place(call: Node): boolean {
    const { input, output } = this.#operations[call.id]!;
    const state = this.#specification.step(this.#state, input, output);
    if (state === null) return false;
    this.#flip(call.id);
    if (!this.#isNew(state)) {
      this.#flip(call.id);
      return false;
    }
    this.#stack.push({ node: call, state: this.#state });
    this.#state = state;
    unlink(call);
    unlink(call.match!);
    return true;
  }

  #unplace({ node, state }: { node: Node; state: string }): void {
    this.#state = state;
    this.#flip(node.id);
    relink(node.match!);
    relink(node);
  }

  #flip(id: number): void {
    this.#placed[id >>> 5]! ^= 1 << (id & 31);
    this.#placedHash ^= Math.imul(id + 1, 0x9e3779b1) ^
      Math.imul(id + 77, 0x85ebca6b) >>> 13;
  }

  /** Remembers the set of placed operations with a state; false if it was there before. */
  #isNew(state: string): boolean {
    const name = `${this.#placedHash} ${state}`;
    const tried = this.#tried.get(name);
    if (tried === undefined) {
      this.#tried.set(name, [this.#placed.slice()]);
      return true;
    }
    if (tried.some((bits) => isEqual(bits, this.#placed))) return false;
    tried.push(this.#placed.slice());
    return true;
  }

  #note(stuck: number): void {
    if (this.#stack.length < this.#longest.length) return;
    this.#longest = this.#stack.map(({ node }) => node.id);
    this.#stuck = stuck;
  }

  #illegal(): Verdict<Input, Output> {
    return {
      type: "illegal",
      order: this.#longest.map((id) => this.#operations[id]!),
      stuck: this.#operations[this.#stuck]!,
    };
  }
}

function unlink(node: Node): void {
  node.previous!.next = node.next;
  if (node.next !== null) node.next.previous = node.previous;
}

function relink(node: Node): void {
  node.previous!.next = node;
  if (node.next !== null) node.next.previous = node;
}

function isEqual(a: Uint32Array, b: Uint32Array): boolean {
  return a.every((word, i) => word === b[i]);
}

/** What can be done to one key. Values are texts; "" stands for a key that does not exist. */
export type RegisterInput =
  | { readonly type: "read" }
  | { readonly type: "write"; readonly value: string }
  | {
    readonly type: "compareAndSet";
    readonly expected: string;
    readonly value: string;
  };

/** What came back. Null: unknown; the operation then returns at `Infinity`. */
export type RegisterOutput =
  | { readonly type: "value"; readonly value: string }
  | { readonly type: "written" }
  | { readonly type: "compared"; readonly succeeded: boolean }
  | null;

/** One key that can be read, written, deleted and compared. */
export const REGISTER: Specification<RegisterInput, RegisterOutput> = {
  initial: "",
  step(state, input, output) {
    switch (input.type) {
      case "read":
        return output?.type === "value" && output.value === state
          ? state
          : null;
      case "write":
        // A write may have been asked for what was there before.
        if (output?.type === "value" && output.value !== state) return null;
        return input.value;
      case "compareAndSet": {
        const holds = state === input.expected;
        if (output?.type === "compared" && output.succeeded !== holds) {
          return null;
        }
        return holds ? input.value : state;
      }
    }
  },
};
