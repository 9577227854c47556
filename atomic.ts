/**
 * A transaction in the making: checks and changes that take effect together or not at all. Used by
 * `client.ts`.
 *
 * @module
 */

import type { Entry, TransactResult } from "./answers.ts";
import type {
  Compare,
  Key,
  Operation,
  Target,
  Transaction,
  Value,
} from "./operations.ts";

/**
 * What a key must be: as this entry was when it was read, absent (null), or of a version, a
 * revision, a value or a lease.
 */
export type Expected =
  | Entry
  | null
  | { readonly version: number }
  | { readonly createRevision: number }
  | { readonly modRevision: number }
  | { readonly value: Value }
  | { readonly lease: bigint };

/** What a commit came to. */
export interface AtomicResult {
  /** True if every check held, and so everything was done; otherwise nothing was. */
  readonly ok: boolean;
  /** The revision of the changes, or of the store if there were none. */
  readonly revision: number;
  /** One for each change, in order. */
  readonly results: TransactResult["results"];
}

/**
 * Collects checks and changes; nothing happens before {@linkcode Atomic.commit}.
 *
 * ```ts
 * import { connect } from "./client.ts";
 *
 * await using kv = await connect("127.0.0.1:50051");
 * const account = await kv.get("account/ann");
 * const { ok } = await kv.atomic()
 *   .check("account/ann", account) // Nobody changed it since.
 *   .put("account/ann", "closed")
 *   .append("account/log", "ann closed\n")
 *   .commit();
 * console.log(ok ? "closed" : "read it again");
 * ```
 */
export class Atomic<CommitOptions> {
  readonly #transact: (
    transaction: Transaction,
    options?: CommitOptions,
  ) => Promise<TransactResult>;
  readonly #compares: Compare[] = [];
  readonly #then: Operation[] = [];

  /**
   * Use `Client.atomic`.
   *
   * @internal
   */
  constructor(
    transact: (
      transaction: Transaction,
      options?: CommitOptions,
    ) => Promise<TransactResult>,
  ) {
    this.#transact = transact;
  }

  /** Nothing is done unless the key is as expected. */
  check(key: Key, expected: Expected): this {
    this.#compares.push(compareOf(key, expected));
    return this;
  }

  /** Nothing is done unless this holds: a comparison of any kind, for example a lock's `guard`. */
  guard(compare: Compare): this {
    this.#compares.push(compare);
    return this;
  }

  /** Stores a value. */
  put(
    key: Key,
    value: Value,
    options: { readonly lease?: bigint } = {},
  ): this {
    return this.add({ type: "put", key, value, ...options });
  }

  /** Deletes a key, or with `{ prefix }` or `{ range }` several. */
  delete(target: Key | Target): this {
    const keys = typeof target === "string" || target instanceof Uint8Array
      ? { key: target }
      : target;
    return this.add({ type: "delete", ...keys });
  }

  /** Adds to a decimal number; a key that does not exist counts as 0. */
  increment(key: Key, by: number | bigint = 1): this {
    return this.add({ type: "modify", key, function: "add", operand: by });
  }

  /** Lowers a decimal number to `limit` if it is larger, or absent. */
  min(key: Key, limit: number | bigint): this {
    return this.add({ type: "modify", key, function: "min", operand: limit });
  }

  /** Raises a decimal number to `limit` if it is smaller, or absent. */
  max(key: Key, limit: number | bigint): this {
    return this.add({ type: "modify", key, function: "max", operand: limit });
  }

  /** Makes a value longer. */
  append(key: Key, value: Value): this {
    return this.add({
      type: "modify",
      key,
      function: "append",
      operand: value,
    });
  }

  /** Does anything that a transaction can. */
  add(operation: Operation): this {
    this.#then.push(operation);
    return this;
  }

  /**
   * Does it all, in one revision, if every check holds.
   *
   * @throws {OutcomeUnknownError} if nobody knows whether it took effect.
   */
  async commit(options?: CommitOptions): Promise<AtomicResult> {
    const transaction = { compares: this.#compares, then: this.#then };
    const { succeeded, revision, results } = await this.#transact(
      transaction,
      options,
    );
    return { ok: succeeded, revision, results };
  }
}

function compareOf(key: Key, expected: Expected): Compare {
  if (expected === null) return { key, version: 0 };
  if ("modRevision" in expected) {
    return { key, modRevision: expected.modRevision };
  }
  return { key, ...expected };
}
