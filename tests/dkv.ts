/**
 * The `dkv` command as a process: as `deno task dkv` runs it, in a pipe or in a terminal. Used by
 * the tests of the command line.
 *
 * @module
 */

import { assert } from "@std/assert";
import type { TestCluster } from "./cluster.ts";
import { CLUSTER_NEEDS, has, needs } from "./needs.ts";

export const ROOT = decodeURIComponent(
  new URL("..", import.meta.url).pathname,
);

/** What a run came to. */
export interface Result {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** How to run it. */
export interface RunOptions {
  /** What it reads. Default: nothing. */
  readonly input?: string | Uint8Array;
  /** The permission set. Default: dkv. */
  readonly permissions?: string;
  readonly env?: Readonly<Record<string, string>>;
}

/** The arguments of `deno` that run the command. */
export function denoArgs(
  args: readonly string[],
  { permissions = "dkv" }: RunOptions = {},
): string[] {
  return [
    "run",
    "-q",
    `--config=${ROOT}deno.json`,
    `--lock=${ROOT}deno.lock`,
    "--frozen",
    "--no-prompt",
    "--cached-only",
    `-P=${permissions}`,
    `${ROOT}cli.ts`,
    ...args,
  ];
}

/** Starts the command. */
export function start(
  args: readonly string[],
  options: RunOptions = {},
): Deno.ChildProcess {
  return new Deno.Command("deno", {
    args: denoArgs(args, options),
    cwd: ROOT,
    stdin: options.input === undefined ? "null" : "piped",
    stdout: "piped",
    stderr: "piped",
    ...(options.env === undefined ? {} : { env: options.env }),
  }).spawn();
}

/** Runs the command to its end; whatever happens, it shows nobody a stack trace. */
export async function run(
  args: readonly string[],
  options: RunOptions = {},
): Promise<Result> {
  const { code, out, err } = await runRaw(args, options);
  return { code, out: new TextDecoder().decode(out), err };
}

/** The same, with its output as bytes. */
export async function runRaw(
  args: readonly string[],
  options: RunOptions = {},
): Promise<{ code: number; out: Uint8Array; err: string }> {
  const child = start(args, options);
  if (options.input !== undefined) {
    const writer = child.stdin.getWriter();
    const { input } = options;
    // It may end without having read everything.
    const written = writer.write(
      typeof input === "string" ? new TextEncoder().encode(input) : input,
    ).then(() => writer.close());
    written.catch(() => {});
  }
  const { code, stdout, stderr } = await child.output();
  const err = new TextDecoder().decode(stderr);
  assert(!/^\s+at /m.test(err), `a stack trace:\n${err}`);
  return { code, out: stdout, err };
}

/** Runs the command on a cluster. */
export function runOn(
  cluster: TestCluster,
  ...args: string[]
): Promise<Result> {
  return run(args, { env: endpoints(cluster) });
}

/** The environment of a command that talks to a cluster. */
export function endpoints(cluster: TestCluster): Record<string, string> {
  return { DKV_ENDPOINTS: cluster.addresses.join(",") };
}

/** What a process prints, as it comes. */
export class Follower {
  text = "";
  readonly #reader: ReadableStreamDefaultReader<string>;

  constructor(stream: ReadableStream<Uint8Array<ArrayBuffer>>) {
    this.#reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  }

  /** Waits until what was printed matches. */
  async until(wanted: RegExp): Promise<void> {
    while (!wanted.test(this.text)) {
      const { value, done } = await this.#reader.read();
      assert(!done, `it ended without ${wanted}: ${this.text}`);
      this.text += value;
    }
  }

  /** Reads what is left. */
  async rest(): Promise<string> {
    for (;;) {
      const { value, done } = await this.#reader.read();
      if (done) return this.text;
      this.text += value;
    }
  }
}

/**
 * Registers a test that needs a terminal, which `script` of util-linux makes, and perhaps a program
 * in it.
 */
export function terminalTest(
  name: string,
  fn: () => Promise<void>,
  { program }: { program?: string } = {},
): void {
  const wanted = [...CLUSTER_NEEDS, "script"] as const;
  const absent = has(wanted) ? absentOf(program) : null;
  if (absent === null) {
    return needs(wanted, name, fn, {
      sanitizeOps: false,
      sanitizeResources: false,
    });
  }
  Deno.test({
    name: `${name} (ignored: there is no ${absent})`,
    fn,
    ignore: true,
  });
}

/** What is not installed; null if all is. */
function absentOf(program: string | undefined): string | null {
  const script = "script of util-linux";
  try {
    const { stdout } = new Deno.Command("script", { args: ["--version"] })
      .outputSync();
    if (!new TextDecoder().decode(stdout).includes("util-linux")) return script;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return script;
    throw error;
  }
  if (program === undefined) return null;
  const { success } = new Deno.Command("script", {
    args: ["-qec", `command -v ${program}`, "/dev/null"],
    stdin: "null",
  }).outputSync();
  return success ? null : program;
}

/** Runs a line of shell in a terminal and resolves with everything that was to be seen. */
export async function inTerminal(
  line: string,
  env: Readonly<Record<string, string>> = {},
): Promise<{ code: number; screen: string }> {
  const { code, stdout } = await new Deno.Command("script", {
    // -e: ends with what the line ends with.
    args: ["-qec", line, "/dev/null"],
    env: { TERM: "xterm", ...env },
    stdin: "null",
    stdout: "piped",
    stderr: "null",
  }).output();
  const screen = new TextDecoder().decode(stdout).replaceAll("\r\n", "\n");
  return { code, screen };
}

/** A line of shell in a terminal at whose keys somebody sits. */
export class Terminal {
  /** What is to be seen. */
  readonly screen: Follower;
  readonly #child: Deno.ChildProcess;
  readonly #keys: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;

  constructor(line: string, env: Readonly<Record<string, string>> = {}) {
    this.#child = new Deno.Command("script", {
      args: ["-qec", line, "/dev/null"],
      env: { TERM: "xterm", ...env },
      stdin: "piped",
      stdout: "piped",
      stderr: "null",
    }).spawn();
    this.screen = new Follower(this.#child.stdout);
    this.#keys = this.#child.stdin.getWriter();
  }

  /** Ctrl-C: the terminal interrupts everything that runs in its foreground. */
  async interrupt(): Promise<void> {
    await this.#keys.write(new Uint8Array([0x03]));
  }

  /** Waits for the end of the line; resolves with its exit code and all that was to be seen. */
  async end(): Promise<{ code: number; screen: string }> {
    const text = await this.screen.rest();
    const { code } = await this.#child.status;
    await this.#keys.close().catch(() => {});
    return { code, screen: text.replaceAll("\r\n", "\n") };
  }
}

/** A word for a shell. */
export function shellWord(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
