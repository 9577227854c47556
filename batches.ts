/**
 * Many operations at once, each for itself. Used by `client.ts`.
 *
 * @module
 */

import type {
  DeleteResult,
  Entry,
  OperationResult,
  PutResult,
  TransactResult,
} from "./answers.ts";
import { unreachable } from "./errors.ts";
import type {
  CallOptions,
  Key,
  Keys,
  Operation,
  Transaction,
  Value,
} from "./operations.ts";

/** One operation of {@linkcode Client.batch}. */
export type BatchOperation = Extract<
  Operation,
  { readonly type: "put" | "get" | "delete" }
>;

/**
 * Some operations of a batch failed; the others were done.
 *
 * ```ts
 * import { BatchError, connect } from "./client.ts";
 *
 * await using kv = await connect("127.0.0.1:50051");
 * try {
 *   await kv.batch([
 *     { type: "put", key: "user/ann", value: "Ann" },
 *     { type: "put", key: "", value: "nobody" },
 *   ]);
 * } catch (error) {
 *   if (!(error instanceof BatchError)) throw error;
 *   for (const result of error.results) {
 *     console.log(result instanceof Error ? result.message : "done");
 *   }
 * }
 * ```
 */
export class BatchError extends AggregateError {
  /** What kind of error it is. */
  override name = "BatchError";
  /** For each operation its result, or the error it failed with. */
  readonly results: readonly unknown[];

  /** From the results and errors of all, and how many of them are errors. */
  constructor(results: readonly unknown[], failed: number) {
    const errors = results.filter((result) => result instanceof Error);
    super(errors, `${failed} of ${results.length} operations failed`);
    this.results = results;
  }
}

interface ReadOptions extends CallOptions {
  readonly revision?: number;
  readonly serializable?: boolean;
}

/** What a batch needs of the client. */
interface Operations {
  put(key: Key, value: Value, options?: CallOptions): Promise<PutResult>;
  get(key: Key, options?: ReadOptions): Promise<Entry | null>;
  delete(target: Key | Keys, options?: CallOptions): Promise<DeleteResult>;
  transact(
    transaction: Transaction,
    options?: CallOptions,
  ): Promise<TransactResult>;
}

/**
 * Does all, and tells when all are settled.
 *
 * @internal
 */
export async function batch(
  client: Operations,
  operations: readonly BatchOperation[],
  options: CallOptions,
): Promise<OperationResult[]> {
  const settled = await Promise.allSettled(
    operations.map((operation) => single(client, operation, options)),
  );
  const results = settled.map((one) =>
    one.status === "fulfilled" ? one.value : one.reason as unknown
  );
  const failed = settled.filter(({ status }) => status === "rejected");
  if (failed.length > 0) throw new BatchError(results, failed.length);
  return results as OperationResult[];
}

/**
 * Reads several keys as of one revision.
 *
 * @internal
 */
export async function getMany(
  client: Operations,
  keys: readonly Key[],
  options: ReadOptions,
): Promise<(Entry | null)[]> {
  const [first, ...others] = keys;
  if (first === undefined) return [];
  if (options.serializable || options.revision) {
    return await Promise.all(keys.map((key) => client.get(key, options)));
  }
  // A transaction of one read names the revision at which all the others read.
  const { revision, results } = await client.transact(
    { then: [{ type: "get", key: first }] },
    options,
  );
  const [result] = results;
  const entry = result?.type === "get" ? result.entry : null;
  const rest = others.map((key) => client.get(key, { ...options, revision }));
  return [entry, ...await Promise.all(rest)];
}

async function single(
  client: Operations,
  operation: BatchOperation,
  options: CallOptions,
): Promise<OperationResult> {
  switch (operation.type) {
    case "put": {
      const { key, value, type, ...rest } = operation;
      const all = { ...rest, ...options };
      const put = client.put(key, value, all);
      return { type, ...await put };
    }
    case "get": {
      const { key, type } = operation;
      return { type, entry: await client.get(key, options) };
    }
    case "delete": {
      const { type, returnPrevious = false } = operation;
      const target = "key" in operation ? operation.key : operation;
      const all = { returnPrevious, ...options };
      const deleted = client.delete(target, all);
      return { type, ...await deleted };
    }
    default:
      return unreachable(operation);
  }
}
