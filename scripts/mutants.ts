/**
 * Breaks the product on purpose, in one way after the other, and shows how many seeds the simulator
 * needs to notice: `deno task mutants`, or `deno task mutants -- NAME …` for some of them. A mutant
 * that survives is a hole in the simulator.
 *
 * A mutant is an edit of the source (`tests/sim/mutants.ts`), made in a copy under `.tmp`. An edit
 * whose text is no longer there is a failure too.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { taskArgs } from "../launch.ts";
import { type Mutant, MUTANTS } from "../tests/sim/mutants.ts";

/** A mutant that needs more has survived. */
const SEEDS_MAX = 1000;

const args = parseArgs([...taskArgs(Deno.args)], { string: ["seeds"] });
const seedsMax = Number(args["seeds"] ?? SEEDS_MAX);
const wanted = args._.map(String);
let survivors = 0;
for (const mutant of MUTANTS) {
  if (wanted.length > 0 && !wanted.includes(mutant.name)) continue;
  const outcome = await runMutant(mutant);
  if (!outcome.isCaught) survivors++;
  console.log(`${mutant.name.padEnd(30)} ${outcome.text}`);
}
if (survivors > 0) {
  console.log(`\n${survivors} survived`);
  Deno.exit(1);
}

/** Copies the sources, edits one, and runs the simulator on them. */
async function runMutant(
  mutant: Mutant,
): Promise<{ isCaught: boolean; text: string }> {
  const directory = `.tmp/mutants/${mutant.name}`;
  await Deno.remove(directory, { recursive: true }).catch(() => {});
  for (const path of ["", "links/", "scripts/", "tests/", "proto/"]) {
    await copyFolder(path, directory);
  }
  const path = `${directory}/${mutant.file}`;
  const source = await Deno.readTextFile(path);
  if (source.split(mutant.find).length !== 2) {
    return { isCaught: false, text: `no longer fits ${mutant.file}` };
  }
  await Deno.writeTextFile(path, source.replace(mutant.find, mutant.replace));
  const { text, problem } = await simulate(directory, {
    seed: 1,
    seeds: seedsMax,
  });
  await Deno.remove(directory, { recursive: true });
  const found = /seed (\d+) fails after \d+ ms: (.*)/.exec(text);
  if (found !== null) {
    const [, seed, reason] = found;
    const original = await simulate(".", { seed: Number(seed), seeds: 1 });
    if (!original.text.includes("1 seeds, 0 failures")) {
      return {
        isCaught: false,
        text: `seed ${seed} fails without it too: ${reason}`,
      };
    }
    return {
      isCaught: true,
      text: `${seed!.padStart(4)} seeds  ${mutant.what}\n${" ".repeat(42)}${
        reason!.slice(0, 120)
      }`,
    };
  }
  const isRun = text.includes(`${seedsMax} seeds, 0 failures`);
  const reason = isRun ? "SURVIVED" : problem;
  return { isCaught: false, text: `${reason}  ${mutant.what}` };
}

/** Runs the simulator on the sources in a folder; stops at the first failure. */
async function simulate(
  cwd: string,
  { seed, seeds }: { seed: number; seeds: number },
): Promise<{ text: string; problem: string }> {
  const args = `run -q --no-check --no-prompt scripts/sim.ts --seed ${seed} ` +
    `--seeds ${seeds} --no-shorten --trace 0`;
  const command = new Deno.Command("deno", { args: args.split(" "), cwd });
  const { stdout, stderr } = await command.output();
  const decoder = new TextDecoder();
  return { text: decoder.decode(stdout), problem: decoder.decode(stderr) };
}

/** Copies a folder's sources; `path` is empty or ends in a slash. */
async function copyFolder(path: string, to: string): Promise<void> {
  await Deno.mkdir(`${to}/${path}`, { recursive: true });
  for await (
    const { name, isFile, isDirectory } of Deno.readDir(`./${path}`)
  ) {
    if (isFile && /\.(ts|js|json|lock|proto)$/.test(name)) {
      await Deno.copyFile(`${path}${name}`, `${to}/${path}${name}`);
    } else if (isDirectory && path !== "" && name !== "data") {
      await copyFolder(`${path}${name}/`, to);
    }
  }
}
