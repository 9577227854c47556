/**
 * Who a data directory belongs to, and which data directories the other members had when they
 * were last seen. Used by `node.ts`.
 *
 * A replica that lost its disk has lost its votes and its acknowledgements, so it must not come
 * back under the old name (raft-pitfalls P13). Each data directory therefore gets an incarnation,
 * a random name, when it is made; every node remembers the incarnation of every member, and
 * refuses a known member with another one. `--rejoin` makes a directory for a new member:
 *
 * ```text
 *   node id   member id          incarnation
 *   node2     node2              5d41…         as founded
 *   node2     node2/7f3a…        7f3a…         after its disk was lost and it rejoined
 * ```
 *
 * @module
 */

import { fingerprint } from "./config.ts";
import { assert, DkvError } from "./errors.ts";
import { folderOf, syncFolder } from "./folder.ts";
import type { MemberId } from "./message.ts";

const FORMAT = 1;

/** The contents of `identity.json` in a data directory. */
export interface Identity {
  readonly format: number;
  readonly cluster: string;
  /** Of the cluster's name and founders; see `config.ts`. */
  readonly fingerprint: string;
  /** The nodes that the configuration file listed when the directory was made. */
  readonly founders: readonly string[];
  readonly nodeId: string;
  readonly memberId: MemberId;
  /** Names this data directory; 32 hexadecimal digits. */
  readonly incarnation: string;
}

export interface IdentityOptions {
  directory: string;
  cluster: string;
  /** The nodes of the configuration file. */
  nodes: readonly string[];
  nodeId: string;
  /** Make the directory one of a new member. */
  rejoin: boolean;
}

/** The node that a member lives on. */
export function nodeOfMember(member: MemberId): string {
  const slash = member.indexOf("/");
  return slash === -1 ? member : member.slice(0, slash);
}

/**
 * Stands in a configuration for a node that may join and has not come yet: whoever comes from there
 * with `--rejoin` takes its place.
 */
export function invitedMember(nodeId: string): MemberId {
  return `${nodeId}/invited`;
}

/** True for an {@linkcode invitedMember}. */
export function isInvited(member: MemberId): boolean {
  return member.endsWith("/invited");
}

/**
 * True for an {@linkcode invitedMember} of which only the address is known: that stands for the node's
 * name until it comes, and is told from one by its colon.
 */
export function isInvitedByAddress(member: MemberId): boolean {
  return isInvited(member) && member.includes(":");
}

/** True if the member joined after the cluster was founded. */
export function isRejoined(member: MemberId): boolean {
  return member.includes("/");
}

/** Rows, and a part of a log, which would be taken for the one of a new node. */
const DATA_REGEXP = /\.db(-log\.\d+)?$/;

/**
 * Reads the identity of a data directory, or makes the directory and its identity.
 *
 * @throws {DkvError} IDENTITY_MISMATCH if the directory is another node's or another cluster's,
 * DATA_CORRUPT if it is damaged.
 */
export function openIdentity(options: IdentityOptions): Identity {
  const { directory, rejoin } = options;
  // Data at rest is for the node alone.
  Deno.mkdirSync(directory, { recursive: true, mode: 0o700 });
  refuseQuarantined(directory);
  const path = `${directory}/identity.json`;
  const known = readJson(path);
  if (known !== undefined) return checkIdentity(known, { ...options, path });
  for (const { name } of Deno.readDirSync(directory)) {
    if (DATA_REGEXP.test(name)) {
      throw new DkvError(
        "DATA_CORRUPT",
        `${directory} holds ${name} but no identity.json`,
      );
    }
  }
  const incarnation = randomHex(16);
  const founders = options.nodes.toSorted();
  const identity: Identity = {
    format: FORMAT,
    cluster: options.cluster,
    fingerprint: fingerprint(options.cluster, founders),
    founders,
    nodeId: options.nodeId,
    memberId: rejoin
      ? `${options.nodeId}/${incarnation.slice(0, 12)}`
      : options.nodeId,
    incarnation,
  };
  writeJson(path, identity);
  return identity;
}

const IDENTITY_TEXTS = [
  "cluster",
  "fingerprint",
  "nodeId",
  "memberId",
  "incarnation",
] as const;

function checkIdentity(
  json: unknown,
  options: IdentityOptions & { path: string },
): Identity {
  const { directory, nodeId, cluster, rejoin, path } = options;
  // The format first: a later one may have other fields.
  if (!isRecord(json) || !Number.isInteger(json["format"])) {
    throw damaged(path, "it names no format");
  }
  const refuse = (reason: string) => {
    throw new DkvError(
      "IDENTITY_MISMATCH",
      `Cannot use data directory ${directory}: ${reason}`,
    );
  };
  if (json["format"] !== FORMAT) {
    refuse(
      `it has format ${
        json["format"]
      }, this version of dkv reads format ${FORMAT}`,
    );
  }
  for (const name of IDENTITY_TEXTS) {
    if (isText(json[name])) continue;
    throw damaged(path, `it has no ${name}`);
  }
  const known = withFounders(json, options);
  if (nodeOfMember(known.memberId) !== known.nodeId) {
    throw damaged(path, `${known.memberId} is no member of ${known.nodeId}`);
  }
  if (known.nodeId !== nodeId) {
    refuse(`it belongs to node ${known.nodeId}, this is ${nodeId}`);
  }
  if (known.cluster !== cluster) {
    refuse(
      `it belongs to cluster ${known.cluster}, the configuration names ${cluster}`,
    );
  }
  if (known.fingerprint !== fingerprint(cluster, known.founders)) {
    // Of an older directory, which does not name its founders.
    if (json["founders"] !== undefined) {
      throw damaged(path, "its founders are not those of its fingerprint");
    }
    refuse(
      `it belongs to a cluster ${cluster} with other nodes than the configuration lists`,
    );
  }
  if (rejoin && !isRejoined(known.memberId)) {
    refuse(
      `--rejoin wants an empty directory, this one holds the data of ${known.memberId}`,
    );
  }
  // From now on the file may list more nodes.
  if (json["founders"] === undefined) writeJson(path, known);
  return known;
}

/** A directory of before clusters could grow was made for the nodes that the file still has to list. */
function withFounders(
  json: Record<string, unknown>,
  { nodes, path }: { nodes: readonly string[]; path: string },
): Identity {
  const { founders = nodes.toSorted() } = json;
  if (!Array.isArray(founders) || !founders.every(isText)) {
    throw damaged(path, "it names no founders");
  }
  return { ...json, founders } as unknown as Identity;
}

/** Marks a data directory as damaged: no start serves from it again. */
export function quarantine(directory: string, reason: string): void {
  Deno.writeTextFileSync(`${directory}/DAMAGED`, `${reason}\n`);
}

function refuseQuarantined(directory: string): void {
  let reason: string;
  try {
    reason = Deno.readTextFileSync(`${directory}/DAMAGED`).trim();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return;
    throw error;
  }
  throw new DkvError("DATA_CORRUPT", reason);
}

/** The incarnations of the members that were seen, kept in `peers.json`. */
export class KnownMembers {
  readonly #path: string;
  readonly #incarnations: Map<MemberId, string>;

  constructor(directory: string) {
    this.#path = `${directory}/peers.json`;
    const json = readJson(this.#path);
    const known = json === undefined ? {} : json;
    if (!isRecord(known)) throw damaged(this.#path, "not an object");
    const incarnations = new Map<MemberId, string>();
    for (const [member, incarnation] of Object.entries(known)) {
      if (!isText(incarnation)) {
        throw damaged(this.#path, `${member} has no incarnation`);
      }
      incarnations.set(member, incarnation);
    }
    this.#incarnations = incarnations;
  }

  /** Null if the member may speak, otherwise the reason why not. Remembers who it sees first. */
  admit(member: MemberId, incarnation: string): string | null {
    const known = this.#incarnations.get(member);
    if (known === incarnation) return null;
    if (known !== undefined) {
      return `${member} comes with a new data directory: its votes and acknowledgements are lost ` +
        "with the old one. Bring the old directory back, or empty the new one and start the " +
        "node with --rejoin";
    }
    assert(incarnation !== "", `Member ${member} has no incarnation`);
    this.#incarnations.set(member, incarnation);
    writeJson(this.#path, Object.fromEntries(this.#incarnations));
    return null;
  }
}

/** `bytes` random bytes as hexadecimal digits. */
export function randomHex(bytes: number): string {
  const random = crypto.getRandomValues(new Uint8Array(bytes));
  return Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join(
    "",
  );
}

/** The contents of a JSON file; undefined if there is none. */
function readJson(path: string): unknown {
  let text: string;
  try {
    text = Deno.readTextFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
  try {
    return JSON.parse(text) as unknown;
  } catch (cause) {
    throw damaged(path, "not JSON", { cause });
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isText(value: unknown): value is string {
  return typeof value === "string" && value !== "";
}

function damaged(path: string, how: string, options?: ErrorOptions): DkvError {
  return new DkvError(
    "DATA_CORRUPT",
    `${path} is damaged: ${how}. Empty the data directory and start the node with --rejoin`,
    options,
  );
}

/** Replaces a file so that a crash leaves the old one or the new one, whole and durable. */
function writeJson(path: string, value: unknown): void {
  const draft = `${path}.new`;
  const bytes = new TextEncoder().encode(`${JSON.stringify(value, null, 2)}\n`);
  {
    using file = Deno.openSync(draft, {
      create: true,
      write: true,
      truncate: true,
      mode: 0o600,
    });
    // A short write does not throw (platform.md, section 7).
    for (let at = 0; at < bytes.length;) {
      at += file.writeSync(bytes.subarray(at));
    }
    file.syncSync();
  }
  Deno.renameSync(draft, path);
  syncFolder(folderOf(path));
}
