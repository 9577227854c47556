/**
 * Runs golden scripts: text files in which each block is a comment, commands, `----` and what the
 * commands print. `REWRITE=1` writes what they print now into the file, for a person to read in the diff.
 *
 * ```text
 * # A lone voter leads as soon as its vote is on its disk.
 * campaign 1
 * ----
 * 1: role leader term=1
 * ```
 *
 * @module
 */

import { fail } from "@std/assert";

/** A line of a script: a name, words, and `key=value` options. */
export interface Command {
  readonly name: string;
  readonly words: readonly string[];
  readonly options: ReadonlyMap<string, string>;
}

/** Runs a command and returns the lines that it prints. */
export type Handle = (command: Command) => readonly string[];

/** Registers one test for each script of a folder; ignored, with the reason, where it cannot be read. */
export function testScripts(
  names: readonly string[],
  options: { folder: URL; handler: () => Handle },
): void {
  const canRead = Deno.permissions.querySync({
    name: "read",
    path: options.folder,
  }).state === "granted";
  for (const name of names) {
    Deno.test({
      name: `${name}${canRead ? "" : " (ignored: needs --allow-read)"}`,
      ignore: !canRead,
      fn: () => runScript(new URL(name, options.folder), options.handler()),
    });
  }
}

/** Runs one script; throws at the first block that prints something else than it says. */
export function runScript(path: URL, handle: Handle): void {
  const text = Deno.readTextFileSync(path);
  const blocks = text.trimEnd().split(/\n\n+/).map((block) => {
    const [input = ""] = block.split("\n----");
    if (!block.includes("\n----")) return block; // A comment that stands alone.
    return [input, "----", ...runBlock(input, handle)].join("\n");
  });
  const actual = blocks.join("\n\n") + "\n";
  if (actual === text) return;
  if (isRewriting()) return Deno.writeTextFileSync(path, actual);
  const was = text.split("\n");
  const is = actual.split("\n");
  const at = is.findIndex((line, i) => line !== was[i]);
  fail(
    `${path.pathname}:${at + 1} differs\n  file: ${was[at]}\n  now:  ${
      is[at]
    }\nRun with REWRITE=1 and read the diff`,
  );
}

function runBlock(input: string, handle: Handle): string[] {
  const lines = input.split("\n").map((line) => line.trim());
  return lines
    .filter((line) => line !== "" && !line.startsWith("#"))
    .flatMap((line) => handle(parseCommand(line)));
}

function parseCommand(line: string): Command {
  const [name = "", ...rest] = line.split(/\s+/);
  const options = rest.filter((word) => word.includes("="));
  return {
    name,
    words: rest.filter((word) => !word.includes("=")),
    options: new Map(
      options.map((word) => word.split("=", 2) as [string, string]),
    ),
  };
}

function isRewriting(): boolean {
  const permission = { name: "env", variable: "REWRITE" } as const;
  return Deno.permissions.querySync(permission).state === "granted" &&
    Deno.env.get("REWRITE") === "1";
}
