/**
 * Where the databases of Deno KV lie among dkv's own keys. Used by `mutations.ts`, `kvconnect.ts`,
 * `expiry.ts` and the command line. Pure.
 *
 * ```text
 *   denokv/NAME/KEY                 an entry; KEY as Deno encodes it
 *   denokv.expiry/NAME/MILLIS KEY   nothing; says when the entry expires, 8 bytes, big-endian
 *   denokv.commits/NAME             nothing; written by commits that change nothing else
 * ```
 *
 * A name has no slash, so no database's keys begin with those of another, and a prefix can be typed.
 *
 * @module
 */

import type { Key, KeyRange } from "./batch.ts";

const ENTRIES = "denokv/";
const EXPIRIES = "denokv.expiry/";
const COMMITS = "denokv.commits/";
const MILLIS_BYTES = 8;

/** The key of an entry. */
export function entryKey(database: string, key: Key): Key {
  return `${ENTRIES}${database}/${key}`;
}

/** Which database and which key an entry is; null if it is no entry of a database. */
export function entryOf(key: Key): { database: string; key: Key } | null {
  if (!key.startsWith(ENTRIES)) return null;
  const slash = key.indexOf("/", ENTRIES.length);
  if (slash < 0) return null;
  return {
    database: key.slice(ENTRIES.length, slash),
    key: key.slice(slash + 1),
  };
}

/** How long the part before an entry's own key is. */
export function entryPrefixLength(database: string): number {
  return ENTRIES.length + database.length + 1;
}

/** The key that says when an entry expires. */
export function expiryKey(
  database: string,
  { key, expireAtMs }: { key: Key; expireAtMs: number },
): Key {
  return `${EXPIRIES}${database}/${millis(expireAtMs)}${key}`;
}

/** The expiries up to a moment. */
export function expiredRange(database: string, nowMs: number): KeyRange {
  const prefix = `${EXPIRIES}${database}/`;
  return { start: prefix, end: prefix + millis(nowMs + 1) };
}

/** What an expiry's key says. */
export function expiryOf(
  database: string,
  expiry: Key,
): { key: Key; expireAtMs: number } {
  const start = EXPIRIES.length + database.length + 1;
  let expireAtMs = 0;
  for (let i = start; i < start + MILLIS_BYTES; i++) {
    expireAtMs = expireAtMs * 256 + expiry.charCodeAt(i);
  }
  return { key: expiry.slice(start + MILLIS_BYTES), expireAtMs };
}

/** The key that a commit writes which changes nothing, because each commit has its own revision. */
export function commitKey(database: string): Key {
  return COMMITS + database;
}

function millis(ms: number): string {
  let text = "";
  for (let i = 0, rest = ms; i < MILLIS_BYTES; i++) {
    text = String.fromCharCode(rest % 256) + text;
    rest = Math.floor(rest / 256);
  }
  return text;
}
