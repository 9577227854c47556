/**
 * Entries of Deno KV as a person reads them in `dkv list` and `dkv get`. Used by `keyspace.ts`.
 *
 *     denokv/default/["users", 1]    { name: "Ann" }
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { deserialize } from "node:v8";
import { entryOf } from "./kvspace.ts";
import { isExpired, openValue, toOperand } from "./kvvalue.ts";
import { readable } from "./terminal.ts";
import { decodeTupleKey, tupleText } from "./tuplekeys.ts";

/** What it shows of a value. */
const DEPTH = 8;

/** Key and value as text. */
export interface EntryText {
  /** `denokv/default/["users", 1]` */
  readonly key: string;
  /** Of what `Deno.inspect` prints, on one line. */
  readonly value: string;
  /** When it expires; null: never. */
  readonly expires: Date | null;
}

/** An entry of Deno KV as text; null if it is none. */
export function entryText(
  key: Uint8Array,
  value: Uint8Array,
): EntryText | null {
  const place = entryOf(Buffer.from(key).toString("latin1"));
  if (place === null) return null;
  const parts = decodeTupleKey(Buffer.from(place.key, "latin1"));
  if (parts === null || parts.length === 0) return null;
  const stored = openValue(value);
  const { expireAtMs } = stored;
  const over = isExpired(stored, Date.now()) ? " (expired)" : "";
  return {
    key: `denokv/${place.database}/${tupleText(parts)}`,
    value: valueText(stored) + over,
    expires: expireAtMs === 0 ? null : new Date(expireAtMs),
  };
}

function valueText(stored: ReturnType<typeof openValue>): string {
  const { encoding, data } = stored;
  if (encoding === "bytes") return inspect(Uint8Array.from(data));
  if (encoding === "u64") return `KvU64 ${toOperand(stored)?.value}n`;
  try {
    return inspect(deserialize(Buffer.from(data)));
  } catch {
    // Of a newer V8, or no such thing at all.
    return readable(data);
  }
}

/** What would move the cursor is escaped, wherever it comes from. */
function inspect(value: unknown): string {
  const text = Deno.inspect(value, {
    depth: DEPTH,
    compact: true,
    breakLength: Infinity,
    colors: false,
    getters: false,
  });
  return readable(new TextEncoder().encode(text));
}
