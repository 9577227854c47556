/**
 * `deno task node`: runs one node under exactly the permissions that its configuration calls for.
 * They cannot stand in `deno.json`, which does not know the addresses and the data directory.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { type Config, nodeOf, readConfig } from "../config.ts";
import { DkvError } from "../errors.ts";
import {
  fetchPackages,
  NODE_ENVIRONMENT,
  nodeArgs,
  onStop,
  taskArgs,
} from "../launch.ts";

const USAGE =
  "Usage: deno task node -- --id node1 [--config config/nodes.json] [--data data/node1] [more options of `dkv node`]";

async function main(): Promise<number> {
  const { id, config: path, data, help, _, ...unknown } = parseArgs(
    [...taskArgs(Deno.args)],
    {
      string: ["id", "config", "data"],
      boolean: ["help"],
      default: { config: "config/nodes.json" },
      alias: { help: "h" },
    },
  );
  if (help || id === undefined) {
    console.error(USAGE);
    return help ? 0 : 2;
  }
  let config: Config;
  try {
    config = readConfig(path);
    nodeOf(config, id);
    await fetchPackages();
  } catch (error) {
    if (!(error instanceof DkvError)) throw error;
    console.error(error.message);
    return 1;
  }
  const dataDir = data ?? `data/${id}`;
  const extraArgs = Object.entries(unknown)
    .filter(([name]) => name !== "h")
    .map(([name, value]: [string, unknown]) =>
      `--${name}${value === true ? "" : `=${value}`}`
    );
  const child = new Deno.Command("deno", {
    args: nodeArgs({ config, id, dataDir, extraArgs }),
    env: NODE_ENVIRONMENT,
    stdin: "null",
  }).spawn();
  onStop((signal) => {
    // At Ctrl-C the terminal tells the node itself: once is enough.
    if (signal !== "SIGINT") child.kill(signal);
  });
  const { code } = await child.status;
  return code;
}

Deno.exit(await main());
