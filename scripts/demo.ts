/**
 * `deno task demo`: shows on three real nodes what the store does, verifies each thing it shows by
 * reading it back, and leaves nothing behind.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { setColorEnabled } from "@std/fmt/colors";
import { parseEndpoints } from "../addresses.ts";
import { DkvError } from "../errors.ts";
import { onStop, taskArgs } from "../launch.ts";
import { count, Report, seconds, Unverified } from "./report.ts";
import { runningNodes, Stage } from "./stage.ts";
import * as steps from "./steps.ts";

const USAGE = `Usage: deno task demo [-- --endpoints HOST:PORT,… | -- --private]

Runs on the nodes that are named; with --private on three nodes of its own, which it starts and
removes; otherwise on the cluster of config/nodes.json if that runs, and on nodes of its own if
not. Kills only nodes of its own.`;

const CONFIG = "config/nodes.json";

/** What Ctrl-C gives, by custom. */
const INTERRUPTED = 130;

async function main(): Promise<number> {
  setColorEnabled(!Deno.noColor && Deno.stdout.isTerminal());
  let unknown = "";
  const args = parseArgs([...taskArgs(Deno.args)], {
    string: ["endpoints"],
    boolean: ["private", "help"],
    alias: { help: "h" },
    unknown: (arg) => {
      unknown = arg;
      return false;
    },
  });
  const { endpoints, help } = args;
  const contradicts = args.private && endpoints !== undefined;
  if (help || unknown !== "" || endpoints === "" || contradicts) {
    console.log(USAGE);
    return help ? 0 : 2;
  }
  const report = new Report();
  try {
    return await play(report, args.private ? "private" : endpoints);
  } catch (error) {
    // Whatever went wrong, it is told in one line.
    report.failed(messageOf(error));
    return 1;
  }
}

async function play(
  report: Report,
  where: string | undefined,
): Promise<number> {
  const startedMs = performance.now();
  const interrupted = Promise.withResolvers<number>();
  onStop(() => interrupted.resolve(INTERRUPTED));
  const given = where === undefined
    ? await runningNodes(CONFIG)
    : where === "private"
    ? []
    : parseEndpoints(where);
  const stage = given.length > 0 ? await Stage.at(given) : Stage.empty();
  // A story that is interrupted fails, in the middle of things; nobody waits for it.
  const story = tell(stage, { report, given: where !== undefined });
  story.catch(() => {});
  let code: number;
  try {
    code = await Promise.race([story.then(() => 0), interrupted.promise]);
  } finally {
    await stage[Symbol.asyncDispose]();
  }
  if (code === INTERRUPTED) {
    report.failed("interrupted; nothing is left behind");
    return code;
  }
  const verified = `${count(report.steps, "step")}, every one read back`;
  report.done(verified, ` · ${seconds(performance.now() - startedMs)}`);
  return code;
}

async function tell(
  stage: Stage,
  { report, given }: { report: Report; given: boolean },
): Promise<void> {
  if (stage.owned) {
    report.title(
      "dkv demo",
      "  three nodes, each a process with a disk of its own",
    );
    await stage.start();
  } else {
    const where = given
      ? "a cluster that runs already"
      : `the cluster of ${CONFIG}, which runs already`;
    report.title("dkv demo", `  on ${where}`);
  }
  const leader = await stage.leader();
  report.table(
    ["NODE", "ADDRESS", ""],
    stage.players.map(({ id, address }) => [
      id,
      address,
      id === leader ? "leader" : "",
    ]),
  );
  if (!stage.owned) {
    report.note(
      `all keys begin with ${stage.prefix} and are removed at the end;`,
    );
    report.note("no node is killed, since these are not the demo's own");
  }
  const watcher = stage.players[2 % stage.players.length];
  if (watcher === undefined) throw new Unverified("no node answered");
  const watch = watcher.client.watch({ prefix: stage.prefix });
  await watch.started();
  const scene = { stage, report, watch, changes: [] };
  await steps.putAndRead(scene);
  await steps.deleteAndLook(scene);
  await steps.race(scene);
  await steps.watched(scene);
  await watch.return();
  if (stage.owned) await steps.crash(scene);
  else await steps.compare(scene);
}

function messageOf(error: unknown): string {
  if (error instanceof Unverified) return `not as promised: ${error.message}`;
  if (error instanceof DkvError) return error.message;
  return error instanceof Error ? `defect: ${error.message}` : String(error);
}

Deno.exit(await main());
