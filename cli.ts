/**
 * The `dkv` command: runs a node, and talks to a cluster.
 *
 *     dkv node --id node1 --config config/nodes.json --data data/node1
 *     dkv put greeting hello
 *     dkv get greeting
 *
 * Exit codes: 0 done, 1 not found or a condition not met (of `node`: it failed), 2 wrong usage, 3 no
 * node reached, 4 refused or another error; 130 and 143 ended by a signal. What the commands are is
 * in `commands.ts`.
 *
 * @module
 */

import { EXIT, parse, Refusal, UsageError } from "./arguments.ts";
import {
  commandHelp,
  type CommandName,
  COMMANDS,
  generalHelp,
  isCommand,
  specOf,
  SYNONYMS,
} from "./commands.ts";
import { DkvError } from "./errors.ts";
import { exitOf, type Invocation, type Run } from "./invocation.ts";
import {
  chooseColours,
  note,
  oneLine,
  Output,
  Stop,
  Stopped,
} from "./terminal.ts";

const LOG_LEVELS = ["debug", "info", "warn", "error"] as const;

/** Each loads what it needs: help should not wait for gRPC. */
const RUN: Readonly<Record<CommandName, Run>> = {
  node,
  put: async (it) => (await import("./keyspace.ts")).put(it),
  get: async (it) => (await import("./keyspace.ts")).get(it),
  list: async (it) => (await import("./keyspace.ts")).list(it),
  watch: async (it) => (await import("./keyspace.ts")).watch(it),
  incr: async (it) => (await import("./keyspace.ts")).incr(it),
  del: async (it) => (await import("./keyspace.ts")).del(it),
  txn: async (it) => (await import("./txn.ts")).txn(it),
  lease: async (it) => (await import("./coordination.ts")).lease(it),
  lock: async (it) => (await import("./coordination.ts")).lock(it),
  elect: async (it) => (await import("./coordination.ts")).elect(it),
  status: async (it) => (await import("./overview.ts")).status(it),
  "transfer-leader": async (it) =>
    (await import("./overview.ts")).transferLeader(it),
  export: async (it) => (await import("./transport.ts")).exportRecords(it),
  import: async (it) => (await import("./transport.ts")).importRecords(it),
  bench: async (it) => (await import("./bench.ts")).bench(it),
  completions: async ({ args, out }) => {
    const [shell] = args.take("bash, zsh or fish");
    await out.line((await import("./completions.ts")).completions(shell));
    return EXIT.done;
  },
  version,
  help,
};

/** Runs a command line and returns the exit code. */
export async function main(args: readonly string[]): Promise<number> {
  chooseColours();
  const out = new Output(Deno.stdout);
  let name = "";
  try {
    const own = args.length === 1 && args[0] === "--version"
      ? ["version"]
      : args;
    const parsed = parse(own, { commands: COMMANDS, synonyms: SYNONYMS });
    name = parsed.command;
    const code = await run({ args: parsed, out });
    await out.flush();
    return code;
  } catch (error) {
    return await fail(error, { name, out });
  }
}

async function run(invocation: Invocation): Promise<number> {
  const { args } = invocation;
  const { command } = args;
  if (!isCommand(command)) {
    if (args.flag("help")) return await help(invocation);
    note(generalHelp());
    return EXIT.usage;
  }
  if (args.flag("help")) {
    await invocation.out.line(commandHelp(command));
    return EXIT.done;
  }
  giveUpPermissions(command);
  return await RUN[command](invocation);
}

/**
 * Whatever the process was granted, a command keeps only what it says it needs: most of them could
 * neither start a program nor change a file if they wanted to.
 */
function giveUpPermissions(command: CommandName): void {
  const { permissions = [] } = specOf(command);
  for (const name of ["run", "write"] as const) {
    if (!permissions.includes(name)) Deno.permissions.revokeSync({ name });
  }
}

/** What was printed so far is shown, then why it did not go on. */
async function fail(
  error: unknown,
  { name, out }: { name: string; out: Output },
): Promise<number> {
  try {
    await out.flush();
  } catch (second) {
    if (!(second instanceof Deno.errors.BrokenPipe)) throw second;
  }
  return report(error, name);
}

/** Prints why a command failed, in one line, and chooses the exit code. */
function report(error: unknown, command: string): number {
  if (error instanceof UsageError) {
    const about = error.command || command;
    const help = about === "" || about === "help"
      ? "dkv help"
      : `dkv ${about} --help`;
    note(`dkv: ${oneLine(error.message)}. See: ${help}`.replace("?. ", "? "));
    return EXIT.usage;
  }
  // Whoever asked for the end knows why.
  if (error instanceof Stopped) return exitOf(error.by);
  if (error instanceof DkvError) {
    note(`dkv: ${oneLine(error.message)} (${error.code})`);
    return error.code === "UNREACHABLE" ? EXIT.unreachable : EXIT.error;
  }
  if (error instanceof Deno.errors.NotCapable) {
    note(`dkv: a permission is missing: ${oneLine(error.message)}`);
    return EXIT.error;
  }
  // Whoever read our output has enough: `dkv list | head`.
  if (error instanceof Deno.errors.BrokenPipe) return EXIT.done;
  if (error instanceof Refusal || isOfSystem(error)) {
    note(`dkv: ${oneLine((error as Error).message)}`);
    return EXIT.error;
  }
  note(`dkv: a defect in dkv, please report it: ${defectText(error)}`);
  return EXIT.error;
}

/** What was thrown and where, in one line. */
function defectText(error: unknown): string {
  if (!(error instanceof Error)) return oneLine(String(error));
  const [, place] = error.stack?.match(/([^\s/]+\.ts:\d+:\d+)/) ?? [];
  return oneLine(`${error}${place === undefined ? "" : ` at ${place}`}`);
}

/** A file that is not there, a disk that is full. */
function isOfSystem(error: unknown): boolean {
  return error instanceof Error &&
    Object.values(Deno.errors).some((kind) => error instanceof kind);
}

// ------------------------------------------------------------------ the node

async function node({ args }: Invocation): Promise<number> {
  const id = args.text("id");
  const directory = args.text("data");
  if (id === undefined) throw new UsageError("Which node? Say --id node1");
  if (directory === undefined) {
    throw new UsageError("Where does it keep its data? Say --data DIR");
  }
  args.take();
  const named = args.text("log-level") ?? "info";
  const level = LOG_LEVELS.find((level) => level === named);
  if (level === undefined) {
    throw new UsageError(`The log level is one of ${LOG_LEVELS.join(", ")}`);
  }
  const path = args.text("config") ?? "config/nodes.json";
  const rejoin = args.flag("rejoin");
  // Whoever sees that the node listens may at once tell it to stop.
  using stop = new Stop();
  let running;
  try {
    // Loaded only here: a client needs none of it.
    const { readConfig } = await import("./config.ts");
    const { Logger } = await import("./metrics.ts");
    const { Node } = await import("./node.ts");
    const logger = new Logger({ node: id, level });
    const config = readConfig(path);
    running = await Node.start({ config, id, directory, rejoin, logger });
  } catch (error) {
    report(error, "node");
    return 1;
  }
  stop.follow(() => void running.stop());
  const failure = await running.ended;
  return failure === undefined ? 0 : 1;
}

// ------------------------------------------------------------------ the program itself

async function version({ args, out }: Invocation): Promise<number> {
  args.take();
  const { default: { version } } = await import("./deno.json", {
    with: { type: "json" },
  });
  const { deno } = Deno.version;
  await out.line(
    args.flag("json")
      ? JSON.stringify({ version, deno })
      : `dkv ${version}, Deno ${deno}`,
  );
  return EXIT.done;
}

async function help({ args, out }: Invocation): Promise<number> {
  const [name, ...rest] = args.words;
  if (name === undefined) {
    await out.line(generalHelp());
    return EXIT.done;
  }
  if (rest.length > 0) throw new UsageError("help takes one COMMAND");
  // Says what may have been meant if there is no such command.
  const { command } = parse([name], { commands: COMMANDS, synonyms: SYNONYMS });
  if (isCommand(command)) await out.line(commandHelp(command));
  return EXIT.done;
}

if (import.meta.main) Deno.exit(await main(Deno.args));
