/**
 * The databases that are served to clients of Deno KV, and the tokens that give access to them. Used
 * by `kvconnect.ts`.
 *
 * ```text
 *   access token ──metadata exchange──▶ data token      HMAC of the database's id under the access token
 *        │                                  │
 *        └───────▶ database ◀───────────────┘
 * ```
 *
 * So every node derives the same data tokens, they need no store, and they hold as long as the access
 * token stands in the configuration: old clients do not ask for another one.
 *
 * @module
 */

import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import {
  type Config,
  KV_TOKEN_REGEXP,
  type KvDatabaseConfig,
  LIMITS,
} from "./config.ts";
import { DkvError } from "./errors.ts";

/** What opens a database without tokens, which is served to the own machine alone. */
export const DEVELOPMENT_TOKEN = "development";

/** A database that is served. */
export interface Database {
  /** Part of its keys. */
  readonly name: string;
  /** The UUID that clients know it by: the same on all nodes, for ever. */
  readonly id: string;
}

/** Who may ask for what. */
export interface Access {
  readonly database: Database;
  /** For the data path. */
  readonly dataToken: string;
}

/** A secret, as its digest: digests have one length and can be compared in constant time. */
interface Secret {
  readonly digest: Uint8Array;
  readonly access: Access;
}

/** Every database of a cluster. */
export class Databases {
  readonly list: readonly Database[];
  readonly #accessSecrets: Secret[] = [];
  readonly #dataSecrets: Secret[] = [];

  /**
   * Reads the files with tokens.
   *
   * @throws {DkvError} CONFIG_INVALID
   */
  constructor(config: Config) {
    const databases = config.kvConnect?.databases ?? [];
    this.list = databases.map(({ name }) => ({
      name,
      id: databaseId(config.cluster, name),
    }));
    const seen = new Set<string>();
    for (const [at, { name }] of this.list.entries()) {
      const settings = databases[at];
      for (const token of settings === undefined ? [] : tokensOf(settings)) {
        if (seen.has(token)) {
          throw new DkvError(
            "CONFIG_INVALID",
            `A token of database ${name} belongs to another one too`,
          );
        }
        seen.add(token);
        this.#admit(token, this.list[at]!);
      }
    }
  }

  /** What an access token gives access to; null: nothing. */
  opened(token: string): Access | null {
    return find(this.#accessSecrets, token);
  }

  /** What a data token gives access to; null: nothing. */
  served(token: string): Access | null {
    return find(this.#dataSecrets, token);
  }

  #admit(token: string, database: Database): void {
    const dataToken = createHmac("sha256", token)
      .update(`dkv data ${database.id}`).digest("hex");
    const access = { database, dataToken };
    this.#accessSecrets.push({ digest: digestOf(token), access });
    this.#dataSecrets.push({ digest: digestOf(dataToken), access });
  }
}

/** Looks at all of them: how long it takes says nothing about any. */
function find(secrets: readonly Secret[], token: string): Access | null {
  const digest = digestOf(token);
  let found: Access | null = null;
  for (const secret of secrets) {
    if (timingSafeEqual(secret.digest, digest)) found = secret.access;
  }
  return found;
}

function digestOf(token: string): Uint8Array {
  return createHash("sha256").update(token).digest();
}

/** A UUID (version 8) of cluster and name. */
function databaseId(cluster: string, name: string): string {
  const hash = createHash("sha256")
    .update(JSON.stringify(["dkv database", cluster, name])).digest("hex");
  const variant = (Number.parseInt(hash[16] ?? "0", 16) & 3 | 8).toString(16);
  return [
    hash.slice(0, 8),
    hash.slice(8, 12),
    `8${hash.slice(13, 16)}`,
    `${variant}${hash.slice(17, 20)}`,
    hash.slice(20, 32),
  ].join("-");
}

function tokensOf({ name, tokens, tokenFile }: KvDatabaseConfig): string[] {
  if (tokenFile === null) {
    return tokens.length === 0 ? [DEVELOPMENT_TOKEN] : [...tokens];
  }
  let text: string;
  try {
    text = Deno.readTextFileSync(tokenFile);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    const what = `Cannot read ${tokenFile}, the tokens of database ${name}`;
    throw new DkvError("CONFIG_INVALID", `${what}: ${reason}`, { cause });
  }
  const lines = text.split(/\r?\n/).filter((line) => line !== "");
  const bad = lines.findIndex((line) => !KV_TOKEN_REGEXP.test(line));
  if (bad >= 0 || lines.length === 0 || lines.length > LIMITS.kvTokensMax) {
    const where = bad >= 0 ? `, not as in line ${bad + 1}` : "";
    throw new DkvError(
      "CONFIG_INVALID",
      `${tokenFile} needs 1 to ${LIMITS.kvTokensMax} lines, each a token of 16 to 256 visible ` +
        `ASCII characters${where}`,
    );
  }
  return [...tokens, ...lines];
}
