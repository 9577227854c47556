/**
 * The `dkv` command: runs a node, and talks to a cluster.
 *
 *     dkv node --id node1 --config config/nodes.json --data data/node1
 *     dkv put greeting hello
 *     dkv get greeting
 *
 * Exit codes: 0 done, 1 not found (of `node`: it failed), 2 wrong usage, 3 no node reached,
 * 4 refused or another error.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import {
  bold,
  dim,
  green,
  red,
  setColorEnabled,
  yellow,
} from "@std/fmt/colors";
import type { Change, Client, Entry, NodeStatus } from "./client.ts";
import { DkvError } from "./errors.ts";

const EXIT = {
  done: 0,
  notFound: 1,
  usage: 2,
  unreachable: 3,
  error: 4,
} as const;

const DEFAULT_ENDPOINTS = "127.0.0.1:50051,127.0.0.1:50052,127.0.0.1:50053";
/** How long `status` waits for a node. */
const STATUS_MS = 2000;
const LOG_LEVELS = ["debug", "info", "warn", "error"] as const;

const HELP = `dkv: a distributed key-value store

Usage: dkv COMMAND [OPTIONS]

  node --id ID --data DIR        run a node of the cluster
       [--config FILE] [--rejoin] [--log-level debug|info|warn|error]
  put KEY VALUE                  store a value
  get KEY [--revision N]         print a value
  del KEY | --prefix P           delete a key, or all that begin with P
  list [PREFIX] [--limit N] [--keys-only] [--revision N]
                                 print keys and values, in order
  watch KEY | --prefix P [--revision N]
                                 print changes as they happen, until Ctrl-C
  status                         print a table of the nodes
  version                        print the version
  help                           print this text

Options of all commands that talk to a cluster:
  --endpoints HOST:PORT,…        default: $DKV_ENDPOINTS, or ${DEFAULT_ENDPOINTS}
  --json                         print JSON, one object on each line
  --serializable                 read what the node has, which may be stale
  --timeout MS                   give up after so long; default 5000

Exit codes: 0 done, 1 not found, 2 wrong usage, 3 no node reached, 4 refused or other error
`;

/** A mistake in the arguments. */
class UsageError extends Error {}

/** The arguments of a command. */
type Options = ReturnType<typeof parse>;

type Command = (options: Options) => Promise<number>;

const COMMANDS: Readonly<Record<string, Command>> = {
  node,
  put: withClient(put),
  get: withClient(get),
  del: withClient(del),
  list: withClient(list),
  watch: withClient(watch),
  status,
  version,
  help,
};

/** Runs a command line and returns the exit code. */
export async function main(args: readonly string[]): Promise<number> {
  setColorEnabled(!Deno.noColor && Deno.stdout.isTerminal());
  try {
    const options = parse(args);
    const [name] = options._;
    if (options.help || name === undefined) {
      return await help(options);
    }
    if (!Object.hasOwn(COMMANDS, name)) {
      throw new UsageError(`There is no command ${name}`);
    }
    return await COMMANDS[name]?.(options) ?? EXIT.usage;
  } catch (error) {
    return report(error);
  }
}

function parse(args: readonly string[]) {
  // `deno task dkv -- put` passes the two dashes on.
  const own = args[0] === "--" ? args.slice(1) : args;
  const options = parseArgs([...own], {
    string: [
      "_",
      "id",
      "config",
      "data",
      "log-level",
      "endpoints",
      "prefix",
      "revision",
      "limit",
      "timeout",
    ],
    boolean: ["rejoin", "json", "serializable", "keys-only", "help"],
    default: { config: "config/nodes.json", "log-level": "info" },
    alias: { help: "h" },
    unknown: (arg) => {
      if (!/^-./.test(arg)) return true;
      throw new UsageError(`There is no option ${arg.replace(/=.*/s, "")}`);
    },
  });
  return { ...options, _: options._.map(String) };
}

/** Prints why a command failed, in one line, and chooses the exit code. */
function report(error: unknown): number {
  if (error instanceof UsageError) {
    console.error(`dkv: ${error.message}. See: dkv help`);
    return EXIT.usage;
  }
  if (error instanceof DkvError) {
    console.error(`dkv: ${oneLine(error.message)} (${error.code})`);
    return error.code === "UNREACHABLE" ? EXIT.unreachable : EXIT.error;
  }
  if (error instanceof Deno.errors.NotCapable) {
    console.error(`dkv: a permission is missing: ${oneLine(error.message)}`);
    return EXIT.error;
  }
  if (error instanceof Deno.errors.BrokenPipe) return EXIT.done;
  console.error(error);
  return EXIT.error;
}

// ------------------------------------------------------------------ the node

async function node(options: Options): Promise<number> {
  const { id, data, config: path, rejoin } = options;
  if (!id) throw new UsageError("Which node? Say --id node1");
  if (!data) {
    throw new UsageError("Where does it keep its data? Say --data DIR");
  }
  const level = LOG_LEVELS.find((level) => level === options["log-level"]);
  if (level === undefined) {
    throw new UsageError(`The log level is one of ${LOG_LEVELS.join(", ")}`);
  }
  // Whoever sees that the node listens may at once tell it to stop.
  const told = Promise.withResolvers<void>();
  const release = onStop(told.resolve);
  let running;
  try {
    // Loaded only here: a client needs none of it.
    const { readConfig } = await import("./config.ts");
    const { Logger } = await import("./metrics.ts");
    const { Node } = await import("./node.ts");
    const logger = new Logger({ node: id, level });
    const config = readConfig(path);
    running = await Node.start({ config, id, directory: data, rejoin, logger });
  } catch (error) {
    report(error);
    return 1;
  }
  void told.promise.then(() => running.stop());
  const failure = await running.ended;
  release();
  return failure === undefined ? 0 : 1;
}

/** Calls `stop` when the process is told to end; returns the function that ends this. */
function onStop(stop: () => void): () => void {
  const signals = ["SIGINT", "SIGTERM"] as const;
  for (const signal of signals) Deno.addSignalListener(signal, stop);
  return () => {
    for (const signal of signals) Deno.removeSignalListener(signal, stop);
  };
}

// ------------------------------------------------------------------ keys

/** What is done with a client, once the arguments are found to be right. */
type Action = (client: Client) => Promise<number>;

function withClient(prepare: (options: Options) => Action): Command {
  return async (options) => {
    const timeoutMs = numberOf(options, "timeout");
    const action = prepare(options);
    // Loaded only here: it reads the environment, and help needs none of it.
    const { connect } = await import("./client.ts");
    await using client = await connect(
      endpointsOf(options),
      timeoutMs === undefined ? {} : { timeoutMs },
    );
    return await action(client);
  };
}

function put(options: Options): Action {
  const [key, value] = argumentsOf(options, ["KEY", "VALUE"]);
  return async (client) => {
    const { revision, version } = await client.put(key, value);
    const text = `revision ${revision}, version ${version}`;
    print(options, { revision, version }, text);
    return EXIT.done;
  };
}

function get(options: Options): Action {
  const [key] = argumentsOf(options, ["KEY"]);
  const read = readOptions(options);
  return async (client) => {
    const entry = await client.get(key, read);
    if (entry === null) {
      console.error(`dkv: there is no key ${key}`);
      return EXIT.notFound;
    }
    print(options, jsonOf(entry), entry.text());
    return EXIT.done;
  };
}

function del(options: Options): Action {
  const target = targetOf(options);
  return async (client) => {
    const { revision, deleted } = await client.delete(target);
    const keys = deleted === 1 ? "key" : "keys";
    const text = `${deleted} ${keys} deleted, revision ${revision}`;
    print(options, { revision, deleted }, text);
    return deleted > 0 ? EXIT.done : EXIT.notFound;
  };
}

function list(options: Options): Action {
  const [, prefix = "", ...rest] = options._;
  if (rest.length > 0) throw new UsageError("list takes one PREFIX");
  const limit = numberOf(options, "limit");
  const keysOnly = options["keys-only"];
  const what = {
    prefix: options.prefix ?? prefix,
    keysOnly,
    ...readOptions(options),
    ...(limit === undefined ? {} : { limit }),
  };
  return async (client) => {
    let count = 0;
    for await (const entry of client.list(what)) {
      count++;
      const text = keysOnly ? entry.key : `${bold(entry.key)}\t${entry.text()}`;
      print(options, jsonOf(entry, { keysOnly }), text);
    }
    return count > 0 ? EXIT.done : EXIT.notFound;
  };
}

function watch(options: Options): Action {
  const target = targetOf(options);
  const from = numberOf(options, "revision");
  return async (client) => {
    const changes = client.watch({
      ...(typeof target === "string" ? { key: target } : target),
      ...(from === undefined ? {} : { from }),
    });
    const release = onStop(() => void changes.return());
    for await (const change of changes) {
      print(options, jsonOfChange(change), textOfChange(change));
    }
    release();
    return EXIT.done;
  };
}

function textOfChange({ type, revision, key, entry }: Change): string {
  const what = type === "put" ? green("put") : red("del");
  const value = entry === null ? "" : `\t${entry.text()}`;
  return `${dim(String(revision))}\t${what}\t${bold(key)}${value}`;
}

function jsonOfChange({ type, revision, key, entry }: Change): object {
  if (entry === null) return { type, revision, key };
  return { type, revision, ...jsonOf(entry) };
}

function jsonOf(entry: Entry, { keysOnly = false } = {}): object {
  const { key, createRevision, modRevision, version, lease } = entry;
  return {
    key,
    ...(keysOnly ? {} : { value: entry.text() }),
    createRevision,
    modRevision,
    version,
    ...(lease === 0n ? {} : { lease: lease.toString() }),
  };
}

// ------------------------------------------------------------------ the cluster

async function status(options: Options): Promise<number> {
  const { parseEndpoints } = await import("./client.ts");
  const addresses = parseEndpoints(endpointsOf(options));
  const found = await Promise.all(addresses.map(statusOf));
  if (options.json) {
    for (const row of found) {
      console.log(
        JSON.stringify({
          endpoint: row.address,
          ...row.status,
          error: row.error,
        }),
      );
    }
  } else printTable(found);
  const reached = found.some(({ status }) => status !== undefined);
  return reached ? EXIT.done : EXIT.unreachable;
}

interface StatusRow {
  readonly address: string;
  readonly status?: NodeStatus;
  readonly error?: string;
}

async function statusOf(address: string): Promise<StatusRow> {
  const { connect } = await import("./client.ts");
  try {
    await using client = await connect(address, { timeoutMs: STATUS_MS });
    return { address, status: await client.status(address) };
  } catch (error) {
    if (!(error instanceof DkvError)) throw error;
    return { address, error: oneLine(error.message) };
  }
}

const HEADINGS = [
  "NODE",
  "ADDRESS",
  "ROLE",
  "TERM",
  "APPLIED",
  "LAST",
  "REVISION",
  "KEYS",
  "HASH",
  "DISK",
  "VERSION",
];

function printTable(rows: readonly StatusRow[]): void {
  const cells = rows.map(({ address, status }) =>
    status === undefined ? ["?", address, "unreachable"] : [
      status.nodeId,
      address,
      status.role,
      String(status.term),
      String(status.appliedIndex),
      String(status.lastIndex),
      String(status.revision),
      String(status.keys),
      status.stateHash,
      bytesText(status.diskBytes),
      status.version,
    ]
  );
  const widths = HEADINGS.map((heading, at) =>
    Math.max(heading.length, ...cells.map((row) => row[at]?.length ?? 0))
  );
  const line = (row: readonly string[]) =>
    row.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join("  ").trimEnd();
  console.log(bold(line(HEADINGS)));
  for (const row of cells) console.log(colourOf(row[2])(line(row)));
  for (const { status } of rows) {
    if (!status?.writeRefusal) continue;
    console.log(
      yellow(`${status.nodeId} refuses writes: ${status.writeRefusal}`),
    );
  }
}

function colourOf(role: string | undefined): (text: string) => string {
  switch (role) {
    case "leader":
      return green;
    case "unreachable":
      return red;
    default:
      return (text) => text;
  }
}

function bytesText(bytes: number): string {
  const mib = bytes / (1024 * 1024);
  return mib < 1 ? `${Math.ceil(bytes / 1024)} KiB` : `${mib.toFixed(1)} MiB`;
}

async function version(): Promise<number> {
  const { default: { version } } = await import("./deno.json", {
    with: { type: "json" },
  });
  console.log(`dkv ${version}, Deno ${Deno.version.deno}`);
  return EXIT.done;
}

function help({ _, help }: Options): Promise<number> {
  if (help || _[0] === "help") {
    console.log(HELP.trimEnd());
    return Promise.resolve(EXIT.done);
  }
  console.error(HELP.trimEnd());
  return Promise.resolve(EXIT.usage);
}

// ------------------------------------------------------------------ arguments and output

function endpointsOf({ endpoints }: Options): string {
  if (endpoints) return endpoints;
  const name = { name: "env", variable: "DKV_ENDPOINTS" } as const;
  // Not worth a failure: whoever wants it read grants it.
  const readable = Deno.permissions.querySync(name).state === "granted";
  const named = readable ? Deno.env.get("DKV_ENDPOINTS") : undefined;
  return named || DEFAULT_ENDPOINTS;
}

function argumentsOf<Names extends readonly string[]>(
  { _: [command, ...given] }: Options,
  names: readonly [...Names],
): { [Name in keyof Names]: string } {
  if (given.length !== names.length || given[0] === "") {
    throw new UsageError(`${command} takes ${names.join(" and ")}`);
  }
  return given as { [Name in keyof Names]: string };
}

/** A key, or `--prefix`. */
function targetOf(options: Options): string | { prefix: string } {
  const { prefix, _: [command, key, ...rest] } = options;
  if (prefix !== undefined && prefix !== "" && key === undefined) {
    return { prefix };
  }
  if (prefix === undefined && key && rest.length === 0) return key;
  throw new UsageError(`${command} takes a KEY or --prefix P`);
}

function readOptions(
  options: Options,
): { serializable: boolean; revision?: number } {
  const revision = numberOf(options, "revision");
  const { serializable } = options;
  return revision === undefined ? { serializable } : { serializable, revision };
}

function numberOf(
  options: Options,
  name: "revision" | "limit" | "timeout",
): number | undefined {
  const text = options[name];
  if (text === undefined) return undefined;
  if (!/^[0-9]{1,15}$/.test(text)) {
    throw new UsageError(
      `--${name} takes a whole number, not ${text || "nothing"}`,
    );
  }
  return Number(text);
}

function print(options: Options, json: object, text: string): void {
  console.log(options.json ? JSON.stringify(json) : text);
}

function oneLine(text: string): string {
  return text.replace(/\s+/g, " ").trim();
}

if (import.meta.main) Deno.exit(await main(Deno.args));
