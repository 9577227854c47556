/**
 * Every limit in one table, the settings of a cluster, and the reading and checking of
 * `config/nodes.json`. A mistake in that file ends in one line that names the file and the field.
 *
 *     nodes.json ── parseConfig ──▶ Config { cluster, nodes, settings, notices }
 *                                     └── fingerprint: what two nodes compare when they connect
 *
 * `LIMITS` is used by every module; `Config` by the node, the launcher and the command line.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { assert, DkvError } from "./errors.ts";
import { Field, refuse, show } from "./jsonfield.ts";

const KIB = 1024;
const MIB = 1024 * KIB;
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;

/** What no configuration changes: the bounds of everything that could grow. */
export const LIMITS = {
  /** A key, in bytes. */
  keyBytesMax: 4 * KIB,
  /** A value, in bytes: what a request of etcd's default size carries beside the largest key. */
  valueBytesMax: 1528 * KIB,
  /** Comparisons, `then` operations and `else` operations that any cluster takes, each. */
  transactionOperationsMax: 128,
  /** A response that is not a stream; what would be larger must be asked for with `List`. */
  responseBytesMax: 8 * MIB,
  /** What is held for one read of a range that is answered as a whole (etcd's `Range`). */
  rangeBytesMax: 64 * MIB,
  /** Entries in one page of a list. */
  listPageEntries: 1000,
  /** Keys and values in one page of a list; a single larger entry still makes a page. */
  listPageBytes: 512 * KIB,

  /** The id a client chooses for its retried writes. */
  clientIdBytesMax: 32,
  /** Clients whose results are remembered; the one that was silent longest is forgotten first. */
  sessionsMax: 10_000,
  /** Results remembered for one client. */
  sessionResultsMax: 4096,
  /** A client that was silent this long is forgotten. */
  sessionTtlMs: 1 * HOUR_MS,

  /** Shorter leases would run out during an election. */
  leaseTtlMsMin: 1000,
  /** The longest lease: 285 years, as in etcd. */
  leaseTtlMsMax: 9_000_000_000_000,
  /** Leases that live at the same time. */
  leasesMax: 100_000,

  /** Users of etcd's API, and roles, each. */
  usersMax: 10_000,
  /** The name of a user or a role. */
  userNameBytesMax: 256,
  /** A user with the names of its roles, or a role with its permissions. */
  userBytesMax: 16 * KIB,
  /** Passwords that wait to be hashed on one node. */
  passwordsMax: 32,

  /** Watches on one stream. */
  watchersPerStreamMax: 1000,
  /** Watches on one node. */
  watchersMax: 10_000,
  /** What a late watcher reads from history in one slice. */
  watchSliceBytes: 256 * KIB,

  /** Calls open at the same time on one connection. */
  concurrentStreamsMax: 1024,
  /** Under way to a node on a connection, or on one of its calls, which are all read as they come. */
  receiveWindowBytes: 4 * MIB,
  /** Operations of one pipeline stream that are not answered yet. */
  pipelineInFlightMax: 4096,
  /** Bytes of the operations of one pipeline stream that are not answered yet. */
  pipelineInFlightBytesMax: 16 * MIB,
  /** Writes of a node's clients that are not answered yet. */
  pendingProposalsMax: 20_000,
  /** Bytes of the writes of a node's clients that are not answered yet. */
  pendingProposalBytesMax: 64 * MIB,
  /** Reads of a node's clients that wait for a read index. */
  pendingReadsMax: 20_000,

  /** Commands in one log entry, unless a single command is larger. */
  batchBytesMax: 1 * MIB,
  /** The leader's log tail that is not committed; empty entries and membership always pass. */
  uncommittedBytesMax: 64 * MIB,
  /** Entries in one append message, unless a single entry is larger. */
  appendBytesMax: 1 * MIB,
  /** Append messages to one follower that are not answered yet. */
  inflightMessagesMax: 256,
  /** Bytes of the append messages to one follower that are not answered yet. */
  inflightBytesMax: 8 * MIB,
  /** Entries applied in one turn, so that a node that catches up still answers. */
  applyBytesMax: 4 * MIB,
  /** The log on disk: a follower that needs what was before it gets a snapshot. */
  logBytesMax: 256 * MIB,

  /** Space that the files of a node take in advance, for when the disk is full. */
  walReserveBytes: 32 * MIB,
  journalReserveBytes: 16 * MIB,

  /** One message between nodes: holds the largest entry. */
  peerFrameBytesMax: 12 * MIB,
  /** What was sent to one peer and not acknowledged: the stream has no other backpressure. */
  peerUnackedBytesMax: 16 * MIB,
  /** One piece of a snapshot. */
  snapshotChunkBytes: 256 * KIB,

  /** The body of one HTTP request. */
  httpBodyBytesMax: 8 * MIB,
  /** HTTP requests of one node that are not answered yet. */
  httpRequestsMax: 4096,
  /** Databases of Deno KV in one cluster. */
  kvDatabasesMax: 100,
  /** Tokens of one database of Deno KV. */
  kvTokensMax: 16,
  /** A key of Deno KV as a client encodes it. */
  kvKeyBytesMax: 2048,

  /** Nodes of one cluster. */
  nodesMax: 7,
  /** The name of a cluster or a node. */
  nameCharactersMax: 64,
  /** The file `config/nodes.json`. */
  configBytesMax: 64 * KIB,
} as const;

/** What a cluster may choose; every node must have the same. */
export interface Settings {
  /** The unit of Raft's clock. */
  readonly tickMs: number;
  /** The leader speaks to each follower at least this often. */
  readonly heartbeatTicks: number;
  /** A follower that hears nothing campaigns after a random time from this to twice this. */
  readonly electionTicksMin: number;
  /** How long an operation may take if its client names no deadline. */
  readonly requestTimeoutMs: number;
  /** One request, as it comes over the wire. */
  readonly requestBytesMax: number;
  /** Comparisons, `then` operations and `else` operations of a transaction, each (as in etcd). */
  readonly transactionOperationsMax: number;
  /** Old versions are kept this long… */
  readonly historyMs: number;
  /** …but never those of more revisions than this. */
  readonly historyRevisionsMax: number;
  /** Applied entries kept in the log for followers that were away. */
  readonly catchUpEntries: number;
}

/** Default and bounds of every setting. All are whole numbers. */
export const SETTINGS: {
  readonly [Name in keyof Settings]: {
    readonly default: number;
    readonly min: number;
    readonly max: number;
  };
} = {
  tickMs: { default: 50, min: 10, max: 1000 },
  heartbeatTicks: { default: 2, min: 1, max: 100 },
  electionTicksMin: { default: 10, min: 4, max: 1000 },
  requestTimeoutMs: { default: 5000, min: 100, max: 10 * MINUTE_MS },
  requestBytesMax: { default: 1536 * KIB, min: 1536 * KIB, max: 8 * MIB },
  transactionOperationsMax: {
    default: LIMITS.transactionOperationsMax,
    min: LIMITS.transactionOperationsMax,
    max: 10_000,
  },
  historyMs: { default: 1 * HOUR_MS, min: 1000, max: 365 * DAY_MS },
  historyRevisionsMax: { default: 1_000_000, min: 100, max: 1_000_000_000 },
  catchUpEntries: { default: 5000, min: 10, max: 1_000_000 },
};

/** A node of the cluster. */
export interface NodeConfig {
  /** 1 to 64 characters of `a-z 0-9 . _ -`, the first a letter or a digit. */
  readonly id: string;
  /** As written in the file: `host:port`. */
  readonly address: string;
  /** Without the brackets of an IPv6 address. */
  readonly host: string;
  readonly port: number;
  /** Where it serves HTTP; null: nowhere. */
  readonly http: Address | null;
}

/** Where to listen. */
export interface Address {
  /** As written in the file: `host:port`. */
  readonly address: string;
  /** Without the brackets of an IPv6 address. */
  readonly host: string;
  readonly port: number;
}

/** A database of Deno KV. */
export interface KvDatabaseConfig {
  /** Part of its keys, for ever. */
  readonly name: string;
  /** Each gives access to this database alone. */
  readonly tokens: readonly string[];
  /** A file with more tokens, one on each line; null: none. */
  readonly tokenFile: string | null;
}

/** What one request of a client of Deno KV may hold. */
export interface KvLimits {
  readonly valueBytesMax: number;
  /** Keys and values of one write, and the limits of its sums. */
  readonly payloadBytesMax: number;
  readonly checksMax: number;
  readonly mutationsMax: number;
  readonly rangesMax: number;
  /** The sum of the limits of one read's ranges. */
  readonly entriesMax: number;
  readonly watchedKeysMax: number;
}

/** Default and bounds: at least what Deno's own clients send. */
export const KV_LIMITS: {
  readonly [Name in keyof KvLimits]: {
    readonly default: number;
    readonly max: number;
  };
} = {
  valueBytesMax: { default: 64 * KIB, max: 1000 * KIB },
  payloadBytesMax: { default: 800 * KIB, max: 1000 * KIB },
  checksMax: { default: 100, max: 10_000 },
  mutationsMax: { default: 1000, max: 10_000 },
  rangesMax: { default: 10, max: 1000 },
  entriesMax: { default: 1000, max: 10_000 },
  watchedKeysMax: { default: 10, max: 1000 },
};

/** What is served to clients of Deno KV. */
export interface KvConfig {
  readonly databases: readonly KvDatabaseConfig[];
  readonly limits: KvLimits;
}

/** What `config/nodes.json` says, checked and with defaults filled in. */
export interface Config {
  /** Where it came from, for messages. */
  readonly path: string;
  readonly cluster: string;
  /** In the file's order; 1 to 7, ids and addresses unique. */
  readonly nodes: readonly NodeConfig[];
  readonly settings: Settings;
  /** Null: Deno KV is not served. */
  readonly kvConnect: KvConfig | null;
  /** What is allowed but worth a sentence to the operator. */
  readonly notices: readonly string[];
}

/**
 * Reads and checks a configuration file.
 *
 * @throws {DkvError} `CONFIG_INVALID`, one line that names the file and the field.
 */
export function readConfig(path: string): Config {
  let text: string;
  try {
    const bytes = Deno.statSync(path).size;
    if (bytes > LIMITS.configBytesMax) {
      refuse(path, `${bytes} bytes, at most ${LIMITS.configBytesMax}`);
    }
    text = Deno.readTextFileSync(path);
  } catch (error) {
    if (error instanceof DkvError) throw error;
    refuse(path, readFailure(error));
  }
  return parseConfig(text, path);
}

/**
 * Checks the text of a configuration file; `path` is for messages.
 *
 * @throws {DkvError} `CONFIG_INVALID`, one line that names the file and the field.
 */
export function parseConfig(text: string, path: string): Config {
  let json: unknown;
  try {
    json = JSON.parse(text.replace(/^\uFEFF/, ""));
  } catch (error) {
    refuse(path, `not JSON: ${error instanceof Error ? error.message : error}`);
  }
  const root = new Field(path, "", json).object(["cluster", "nodes"], [
    "settings",
    "kvConnect",
  ]);
  const cluster = root("cluster").name(LIMITS.nameCharactersMax);
  const nodes = parseNodes(root("nodes"));
  const settings = parseSettings(root("settings"));
  const kvConnect = parseKvConnect(root("kvConnect"), nodes);
  const notices = noticesOf(nodes);
  return { path, cluster, nodes, settings, kvConnect, notices };
}

/**
 * The node with an id.
 *
 * @throws {DkvError} `CONFIG_INVALID` if there is none; the message lists the known ids.
 */
export function nodeOf(config: Config, id: string): NodeConfig {
  const node = config.nodes.find((node) => node.id === id);
  if (node !== undefined) return node;
  const known = config.nodes.map((node) => node.id).join(", ");
  refuse(config.path, `nodes: no node has the id ${show(id)}, known: ${known}`);
}

/**
 * The identity of a cluster's founding in 64 hexadecimal digits: its name and its founders' ids in any
 * order. Addresses are left out, because a node may move and because two nodes may reach a third under
 * different addresses.
 */
export function fingerprint(cluster: string, ids: readonly string[]): string {
  return createHash("sha256").update(JSON.stringify([cluster, ids.toSorted()]))
    .digest("hex");
}

/** True for `host:port` as a configuration file may have it. */
export function isAddress(text: string): boolean {
  try {
    parseAddress(new Field("", "", text));
    return true;
  } catch (error) {
    if (error instanceof DkvError) return false;
    throw error;
  }
}

/** True if two addresses are spellings of the same place. */
export function isSameAddress(one: string, other: string): boolean {
  return one === other ||
    isAddress(one) && isAddress(other) && spelled(one) === spelled(other);
}

/** The one spelling of an address that stands for all. */
function spelled(address: string): string {
  const { host, port } = parseAddress(new Field("", "", address));
  return `${placeOf(host)}:${port}`;
}

/** The settings of a file that names none. */
export function defaultSettings(): Settings {
  return settingsFrom((name) => SETTINGS[name].default);
}

function parseNodes(list: Field): NodeConfig[] {
  const nodes: NodeConfig[] = [];
  const fieldOfId = new Map<string, string>();
  const fieldOfPlace = new Map<string, string>();
  for (const [at, element] of list.list(LIMITS.nodesMax).entries()) {
    const field = element.object(["id", "address"], ["http"]);
    const id = field("id").name(LIMITS.nameCharactersMax);
    const sameId = fieldOfId.get(id);
    if (sameId !== undefined) {
      field("id").refuse(`${show(id)} is already ${sameId}`);
    }
    fieldOfId.set(id, `nodes[${at}].id`);

    const take = (name: "address" | "http"): Address => {
      const { host, port } = parseAddress(field(name));
      const place = `${placeOf(host)}:${port}`;
      const samePlace = fieldOfPlace.get(place);
      const address = field(name).text();
      if (samePlace !== undefined) {
        field(name).refuse(`${show(address)} is already ${samePlace}`);
      }
      fieldOfPlace.set(place, `nodes[${at}].${name}`);
      return { address, host, port };
    };
    const address = take("address");
    const http = field("http").value === undefined ? null : take("http");
    nodes.push({ id, ...address, http });
  }
  return nodes;
}

function parseKvConnect(
  root: Field,
  nodes: readonly NodeConfig[],
): KvConfig | null {
  if (root.value === undefined) return null;
  const field = root.object(["databases"], ["limits"]);
  const list = field("databases").list(LIMITS.kvDatabasesMax);
  const databases = list.map(parseKvDatabase);
  const names = new Set<string>();
  const tokens = new Set<string>();
  const isLocal = nodes.every(({ http }) =>
    http === null || placeOf(http.host).startsWith("127.")
  );
  for (const [at, { name, tokens: own, tokenFile }] of databases.entries()) {
    const refuse = (why: string) => list[at]?.refuse(why);
    if (names.has(name)) refuse(`the name ${show(name)} is given twice`);
    names.add(name);
    const isOpen = own.length === 0 && tokenFile === null;
    if (isOpen && !isLocal) {
      refuse("no token, which is allowed only if every http address is 127.x");
    }
    // What this stands for is in databases.ts; of two such databases nobody could tell which.
    for (const token of isOpen ? [""] : own) {
      if (tokens.has(token)) refuse("has the token of another database");
      tokens.add(token);
    }
  }
  const limitNames = Object.keys(KV_LIMITS) as (keyof KvLimits)[];
  const given = field("limits").value === undefined
    ? null
    : field("limits").object([], limitNames);
  const limits = Object.fromEntries(limitNames.map((name) => {
    const { default: least, max } = KV_LIMITS[name];
    const one = given?.(name);
    const isGiven = one !== undefined && one.value !== undefined;
    return [name, isGiven ? one.integer(least, max) : least];
  })) as unknown as KvLimits;
  return { databases, limits };
}

/** What a token looks like: long enough not to be guessed, and fit for a header. */
export const KV_TOKEN_REGEXP = /^[\x21-\x7e]{16,256}$/;

function parseKvDatabase(element: Field): KvDatabaseConfig {
  const field = element.object(["name"], ["tokens", "tokenFile"]);
  const name = field("name").name(LIMITS.nameCharactersMax);
  const list = field("tokens").value === undefined
    ? []
    : field("tokens").list(LIMITS.kvTokensMax);
  const tokens = list.map((one) => {
    const { value } = one;
    if (typeof value === "string" && KV_TOKEN_REGEXP.test(value)) return value;
    // It may be a secret with a typing error: it is not shown.
    return one.refuse(
      "is no token, expected 16 to 256 visible ASCII characters",
    );
  });
  const file = field("tokenFile");
  const tokenFile = file.value === undefined ? null : file.text();
  return { name, tokens, tokenFile };
}

function parseAddress(field: Field): { host: string; port: number } {
  const text = field.text();
  const colon = text.lastIndexOf(":");
  if (colon < 0) field.refuse(`${show(text)} has no port, expected host:port`);
  const hostText = text.slice(0, colon);
  const portText = text.slice(colon + 1);
  if (hostText === "") {
    field.refuse(`${show(text)} has no host, expected host:port`);
  }
  const host = hostText.match(/^\[([0-9A-Fa-f:.]+)\]$/)?.[1] ??
    hostText.match(/^[A-Za-z0-9]([A-Za-z0-9.-]*)$/)?.[0];
  if (host === undefined || hostText.length > 253) {
    field.refuse(
      `${
        show(hostText)
      } is not a host, expected a name, an IPv4 address or an IPv6 address in brackets`,
    );
  }
  if (host === "0.0.0.0" || /^[0:]+$/.test(host)) {
    field.refuse(`${show(hostText)} is no address that other nodes can reach`);
  }
  if (!/^[0-9]+$/.test(portText)) {
    field.refuse(`port ${show(portText)} is not a number, expected 1 to 65535`);
  }
  const port = Number(portText);
  if (port < 1 || port > 65535) {
    field.refuse(`port ${portText} is out of range, expected 1 to 65535`);
  }
  return { host, port };
}

/** Spellings of the same place, as one: two nodes must not listen on it. */
function placeOf(host: string): string {
  const lower = host.toLowerCase().replace(/\.$/, "");
  return lower === "localhost" || lower === "::1" ? "127.0.0.1" : lower;
}

function parseSettings(field: Field): Settings {
  if (field.value === undefined) return defaultSettings();
  const given = field.object([], Object.keys(SETTINGS));
  const settings = settingsFrom((name) => {
    const { default: fallback, min, max } = SETTINGS[name];
    const value = given(name);
    return value.value === undefined ? fallback : value.integer(min, max);
  });
  for (const [name, min, why] of relations(settings)) {
    if (settings[name] >= min) continue;
    given(name).refuse(
      `${settings[name]} is too small, expected at least ${min}: ${why}`,
    );
  }
  return settings;
}

/** What one setting demands of another: `[setting, its least value, why]`. */
function relations(
  settings: Settings,
): (readonly [keyof Settings, number, string])[] {
  const { heartbeatTicks, electionTicksMin, tickMs } = settings;
  return [
    [
      "electionTicksMin",
      4 * heartbeatTicks,
      `4 times heartbeatTicks, or a few late heartbeats unseat a leader`,
    ],
    [
      "requestTimeoutMs",
      4 * electionTicksMin * tickMs,
      `4 times electionTicksMin × tickMs, or no request outlives an election`,
    ],
  ];
}

function settingsFrom(choose: (name: keyof Settings) => number): Settings {
  return {
    tickMs: choose("tickMs"),
    heartbeatTicks: choose("heartbeatTicks"),
    electionTicksMin: choose("electionTicksMin"),
    requestTimeoutMs: choose("requestTimeoutMs"),
    requestBytesMax: choose("requestBytesMax"),
    transactionOperationsMax: choose("transactionOperationsMax"),
    historyMs: choose("historyMs"),
    historyRevisionsMax: choose("historyRevisionsMax"),
    catchUpEntries: choose("catchUpEntries"),
  };
}

function noticesOf(nodes: readonly NodeConfig[]): string[] {
  const count = nodes.length;
  assert(count >= 1, `A cluster has ${count} nodes, expected 1 or more`);
  if (count === 1) {
    return ["1 node tolerates no failure: while it is down, nothing is served"];
  }
  if (count % 2 === 1) return [];
  const failures = count / 2 - 1;
  const fewer = count - 1;
  const much = failures === 0 ? "no failure" : plural(failures, "failure");
  const others = fewer === 1 ? "1 does" : `${fewer} do`;
  return [
    `${count} nodes tolerate ${much}, as ${others}; ${
      count + 1
    } would tolerate ${plural(failures + 1, "failure")}`,
  ];
}

function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

function readFailure(error: unknown): string {
  if (error instanceof Deno.errors.NotFound) return "no such file";
  if (error instanceof Deno.errors.IsADirectory) return "is a directory";
  if (error instanceof Deno.errors.NotCapable) {
    return "no permission to read it, start with --allow-read";
  }
  return `cannot be read: ${error instanceof Error ? error.message : error}`;
}
