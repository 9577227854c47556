/**
 * Starts the programs of this folder, each under the client that it is for. Used by
 * `kvconnect_test.ts` and `kv.ts`.
 *
 * @module
 */

import { has } from "../needs.ts";

/** What opens the databases of test clusters that say nothing else. */
export const TOKEN = "development";

/** How long a program may take to print what is waited for. */
const PRINT_MS_MAX = 30_000;

const decoder = new TextDecoder();

/** The clients that there are. */
export type Client = "builtin" | "npm" | "node";

/** What {@linkcode start} needs. */
export interface ProgramOptions {
  readonly args: readonly string[];
  readonly token?: string;
  /** Default: Deno with its own client. */
  readonly client?: Client;
}

/** A program that runs. */
export interface Program {
  /** Ends its input, which some take as a sign to end. */
  end(): Promise<void>;
  /** What it printed; rejects with that if it failed. */
  readonly output: Promise<string>;
  /** Resolves when it has printed this. */
  printed(text: string): Promise<void>;
}

/** Starts a program. */
export function start(name: string, options: ProgramOptions): Program {
  const { args, token = TOKEN, client = "builtin" } = options;
  const command = client === "node" ? "node" : "deno";
  const child = new Deno.Command(command, {
    args: [...flags(client), pathOf(name), ...args],
    env: {
      DENO_KV_ACCESS_TOKEN: token,
      KV_CLIENT: client,
      KV_PACKAGE: client === "node" ? nodePackage : "@deno/kv",
      NO_COLOR: "1",
    },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  let text = "";
  let tell = () => {};
  const read = async () => {
    const stderr = new Response(child.stderr).text();
    for await (const chunk of child.stdout) {
      text += decoder.decode(chunk);
      tell();
    }
    if ((await child.status).success) return text;
    throw new Error(`${name} failed: ${text}${await stderr}`);
  };
  const output = read();
  // It may fail before anybody waits for it.
  output.catch(() => {});
  const printed = (wanted: string) => {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    tell = () => text.includes(wanted) && resolve();
    tell();
    const end = () => reject(new Error(`${name} ended without ${wanted}`));
    output.then(end, reject);
    const late = new Error(`${name} did not print ${wanted}: ${text}`);
    const timer = setTimeout(() => reject(late), PRINT_MS_MAX);
    return promise.finally(() => clearTimeout(timer));
  };
  return { end: () => child.stdin.close(), output, printed };
}

/** Runs a program to its end. */
export async function run(
  name: string,
  options: ProgramOptions,
): Promise<string> {
  const program = start(name, options);
  const output = await program.output;
  await program.end().catch(() => {});
  return output;
}

/** What a program ends with, after what it had to say meanwhile. */
export function lastLine(output: string): string {
  return output.trimEnd().split("\n").at(-1) ?? "";
}

/** Where Node finds the package, which has no others below it. */
let nodePackage = "";

/**
 * The clients that can be tested here: without Node, those in Deno. What the last one serializes all
 * of them can read.
 */
export async function clients(): Promise<readonly Client[]> {
  if (!has(["node"])) return ["builtin", "npm"];
  const { stdout, stderr, success } = await new Deno.Command("deno", {
    args: [
      "eval",
      "--quiet",
      ...packageFlags(),
      // Imported, so that it is there on a machine that never fetched it.
      'await import("@deno/kv"); console.log(import.meta.resolve("@deno/kv"))',
    ],
  }).output();
  if (!success) throw new Error(decoder.decode(stderr));
  nodePackage = decoder.decode(stdout).trim();
  return ["builtin", "npm", "node"];
}

function flags(client: Client): string[] {
  if (client === "node") return [];
  const run = ["run", "--quiet", "--no-prompt", "--allow-net=127.0.0.1"];
  const env = "--allow-env";
  if (client === "npm") return [...run, env, ...packageFlags()];
  return [...run, env, "--no-config", "--no-lock", "--unstable-kv"];
}

function packageFlags(): string[] {
  return [
    `--config=${pathOf("deno.json")}`,
    `--lock=${pathOf("deno.lock")}`,
    "--frozen",
  ];
}

function pathOf(name: string): string {
  return decodeURIComponent(new URL(name, import.meta.url).pathname);
}
