/**
 * `deno task cluster`: runs every node of a configuration as a process of its own until Ctrl-C.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import {
  blue,
  bold,
  cyan,
  dim,
  green,
  magenta,
  red,
  setColorEnabled,
  yellow,
} from "@std/fmt/colors";
import { type Config, readConfig } from "../config.ts";
import { DkvError } from "../errors.ts";
import {
  BECAME_LEADER,
  exitText,
  fetchPackages,
  LISTENING,
  NodeProcess,
  onStop,
  stopAll,
  taskArgs,
} from "../launch.ts";

const USAGE =
  "Usage: deno task cluster [-- --config config/nodes.json --data data]";

const COLOURS = [cyan, magenta, yellow, blue, green];

/** `deno task` and npx pass a signal on that the terminal has sent to all: twice is once. */
const SAME_SIGNAL_MS = 1000;

/** A line of a node: time, level, name, the rest. */
const LINE_REGEXP =
  /^(?<time>\d{4}-\d\d-\d\dT[\d:.]+Z) (?<level>[a-z]+) +\S+ (?<rest>.*)$/s;

async function main(): Promise<number> {
  setColorEnabled(!Deno.noColor && Deno.stdout.isTerminal());
  const { config: path, data, help } = parseArgs([...taskArgs(Deno.args)], {
    string: ["config", "data"],
    boolean: ["help"],
    default: { config: "config/nodes.json", data: "data" },
    alias: { help: "h" },
  });
  if (help) {
    console.log(USAGE);
    return 0;
  }
  let config: Config;
  try {
    config = readConfig(path);
    takeFolder(data);
    await fetchPackages();
  } catch (error) {
    if (!(error instanceof DkvError)) throw error;
    console.error(error.message);
    return 1;
  }
  return await run(config, data);
}

/** Held until this process ends, however it ends. */
let folder: Deno.FsFile | undefined;

/** Two clusters on the same data would fail node by node: this one says it in one line. */
function takeFolder(data: string): void {
  try {
    Deno.mkdirSync(data, { recursive: true, mode: 0o700 });
    folder = Deno.openSync(data);
  } catch (error) {
    const reason = error instanceof Error ? error.message : error;
    throw new DkvError("CONFIG_INVALID", `Cannot use ${data}/: ${reason}`);
  }
  if (folder.tryLockSync(true)) return;
  throw new DkvError(
    "CONFIG_INVALID",
    `${data}/ is in use: a cluster runs on it already`,
  );
}

/** Runs until a signal or until no node is left. */
async function run(config: Config, data: string): Promise<number> {
  for (const notice of config.notices) say(notice);
  say(
    `starting ${config.nodes.length} nodes, data in ${data}/, Ctrl-C stops them`,
  );
  const nodes = config.nodes.map(({ id }) =>
    new NodeProcess({ config, id, dataDir: `${data}/${id}` })
  );
  const announce = announcer(config);
  let stopping = false;
  const width = Math.max(...nodes.map((node) => node.id.length));
  for (const [at, node] of nodes.entries()) {
    const colour = COLOURS[at % COLOURS.length] ?? dim;
    const prefix = colour(`${node.id.padEnd(width)} │`);
    node.follow((line) => {
      if (line !== null) {
        console.log(`${prefix} ${shown(line)}`);
        announce(node.id, line);
      } else if (!stopping && hasListened(node)) {
        say(red(lossText(node, nodes)));
      }
    });
  }
  const signalled = Promise.withResolvers<void>();
  let stoppingMs = 0;
  onStop(() => {
    const now = performance.now();
    if (!stopping) stoppingMs = now;
    else if (now - stoppingMs > SAME_SIGNAL_MS) {
      for (const node of nodes) node.kill("SIGKILL");
    }
    stopping = true;
    signalled.resolve();
  });
  const allEnded = Promise.all(nodes.map((node) => node.exited));
  await Promise.race([signalled.promise, allEnded]);
  if (!stopping) {
    const started = nodes.some(hasListened);
    say(red(started ? "no node is left" : "no node could start"));
    return 1;
  }
  say("stopping");
  const running = nodes.filter((node) => node.exit === null);
  const exits = await stopAll(running);
  const bad = running.filter((_, at) => {
    const exit = exits[at];
    return exit !== undefined && (exit.code !== 0 || exit.signal !== null);
  });
  for (const node of bad) {
    if (node.exit) say(red(`${node.id} ended with ${exitText(node.exit)}`));
  }
  say("stopped");
  return bad.length === 0 ? 0 : 1;
}

/** A node's line for a person: its name stands before it already, and the day is today. */
function shown(line: string): string {
  const { time = "", level = "", rest = line } =
    line.match(LINE_REGEXP)?.groups ?? {};
  if (time === "") return line;
  const clock = dim(localTime(new Date(time)));
  switch (level) {
    case "error":
      return `${clock} ${red(rest)}`;
    case "warn":
      return `${clock} ${yellow(rest)}`;
    default:
      return `${clock} ${rest}`;
  }
}

function localTime(time: Date): string {
  return [time.getHours(), time.getMinutes(), time.getSeconds()]
    .map((part) => String(part).padStart(2, "0")).join(":");
}

/** Says once that every node listens, and each time who leads. */
function announcer(config: Config): (id: string, line: string) => void {
  const listening = new Set<string>();
  let leader = "";
  return (id, line) => {
    if (line.includes(LISTENING)) {
      listening.add(id);
      if (listening.size === config.nodes.length) say("every node listens");
    }
    if (!line.includes(BECAME_LEADER)) return;
    const first = leader === "";
    leader = id;
    say(green(`the cluster has a leader: ${bold(id)}`));
    if (first) {
      say(`talk to it in another terminal, through any node:`);
      say(`  deno task dkv -- put greeting hello`);
      say(`  deno task dkv -- get greeting`);
      say(`  deno task dkv -- status`);
      const [node] = config.nodes;
      say(`gRPC, service kvstore.v1.KeyValue: ${node?.address} and its peers`);
    }
  };
}

/** A node that never served has said itself why. */
function hasListened(node: NodeProcess): boolean {
  return node.lines.some((line) => line.includes(LISTENING));
}

/** What the loss of a node means for the others. */
function lossText(lost: NodeProcess, nodes: readonly NodeProcess[]): string {
  const alive = nodes.filter((node) => node.exit === null).length;
  const majority = Math.floor(nodes.length / 2) + 1;
  const state = alive >= majority
    ? "a majority: the cluster serves"
    : `less than a majority of ${majority}: the cluster waits`;
  const how = lost.exit === null ? "" : ` with ${exitText(lost.exit)}`;
  const again = "deno task node -- --id ";
  return `${lost.id} ended${how}; ${alive} of ${nodes.length} run, ${state}. ` +
    `To start it again: ${again}${lost.id}`;
}

function say(text: string): void {
  console.log(`${dim("cluster │")} ${text}`);
}

Deno.exit(await main());
