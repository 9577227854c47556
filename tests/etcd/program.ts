/**
 * The real etcd and its etcdctl, as far as they are installed: what dkv's etcd API is held against.
 * Used by the tests of the etcd API and by `deno task etcd:diff`.
 *
 *     await using etcd = await Etcd.start();
 *     await etcdctl(etcd.address, ["put", "a", "1"]);
 *
 * @module
 */

import { CLUSTER_NEEDS, needs, tempDir } from "../needs.ts";

/** How long etcd may take until it serves. */
const START_MS_MAX = 30_000;
const POLL_MS = 20;
/** Kept of what etcd printed, for the message when it fails to start. */
const OUTPUT_CHARACTERS_MAX = 8000;

/** The programs; Debian has them in etcd-server and etcd-client. */
export type Program = "etcd" | "etcdctl";

/** Why a test that needs a program is ignored; null if the program is there and may be run. */
export function missing(program: Program): string | null {
  const why = `needs ${program} and --allow-run=${program}`;
  const descriptor = { name: "run", command: program } as const;
  // A name that leads to no program at the start is no permission either.
  if (Deno.permissions.querySync(descriptor).state !== "granted") return why;
  try {
    const args = program === "etcdctl" ? ["version"] : ["--version"];
    new Deno.Command(program, { args, stdin: "null" }).outputSync();
    return null;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return why;
    throw error;
  }
}

/** Registers a test of the etcd API that runs only where the programs it needs are installed. */
export function programTest(
  programs: readonly Program[],
  name: string,
  fn: () => Promise<void>,
): void {
  // Channels of grpc-js close a moment after they are told to.
  const options = { sanitizeOps: false, sanitizeResources: false };
  const reasons = programs.flatMap((program) => missing(program) ?? []);
  if (reasons.length === 0) return needs(CLUSTER_NEEDS, name, fn, options);
  Deno.test({
    name: `${name} (ignored: ${reasons.join(", ")})`,
    ignore: true,
    fn,
  });
}

/** What a process came to. */
export interface Outcome {
  readonly code: number;
  readonly stdout: Uint8Array;
  readonly stderr: Uint8Array;
}

/** How a program is run. */
export interface RunOptions {
  /** Written to its standard input, which then ends. */
  readonly input?: string;
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
}

/** Runs a program to its end. */
export async function run(
  program: Program,
  args: readonly string[],
  { input, cwd, env = {} }: RunOptions = {},
): Promise<Outcome> {
  const child = new Deno.Command(program, {
    args: [...args],
    ...(cwd === undefined ? {} : { cwd }),
    env: { ETCDCTL_API: "3", ...env },
    stdin: input === undefined ? "null" : "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  if (input !== undefined) {
    const writer = child.stdin.getWriter();
    // A program that ends early does not read its input.
    await writer.write(new TextEncoder().encode(input)).catch(() => {});
    await writer.close().catch(() => {});
  }
  return await child.output();
}

/** A single etcd with an empty store of its own; nothing is left of it. */
export class Etcd implements AsyncDisposable {
  /** `host:port` of clients. */
  readonly address: string;
  readonly #child: Deno.ChildProcess;
  readonly #dir: AsyncDisposable;
  readonly #output: Promise<unknown>;
  #text = "";
  #hasEnded = false;

  private constructor(
    address: string,
    child: Deno.ChildProcess,
    dir: AsyncDisposable,
  ) {
    this.address = address;
    this.#child = child;
    this.#dir = dir;
    this.#output = Promise.all([
      this.#follow(child.stderr),
      this.#follow(child.stdout),
      child.status.then(() => this.#hasEnded = true),
    ]);
  }

  /** Starts one, by default named `default`, and waits until it serves. */
  static async start(
    { name = "default", args = [] }: {
      name?: string;
      args?: readonly string[];
    } = {},
  ): Promise<Etcd> {
    const dir = await tempDir();
    const [client, peer] = freePorts(2);
    const url = `http://127.0.0.1:${client}`;
    const peerUrl = `http://127.0.0.1:${peer}`;
    const child = new Deno.Command("etcd", {
      args: [
        `--name=${name}`,
        `--data-dir=${dir.path}/data`,
        `--listen-client-urls=${url}`,
        `--advertise-client-urls=${url}`,
        `--listen-peer-urls=${peerUrl}`,
        `--initial-advertise-peer-urls=${peerUrl}`,
        `--initial-cluster=${name}=${peerUrl}`,
        "--logger=zap",
        "--log-level=warn",
        ...args,
      ],
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const etcd = new Etcd(`127.0.0.1:${client}`, child, dir);
    try {
      await etcd.#ready(url);
    } catch (error) {
      await etcd[Symbol.asyncDispose]();
      throw error;
    }
    return etcd;
  }

  /** What it printed last. */
  get output(): string {
    return this.#text;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#hasEnded) this.#child.kill("SIGKILL");
    await this.#output;
    await this.#dir[Symbol.asyncDispose]();
  }

  async #ready(url: string): Promise<void> {
    const endMs = performance.now() + START_MS_MAX;
    while (performance.now() < endMs && !this.#hasEnded) {
      const text = await fetch(`${url}/health`).then((r) => r.text())
        .catch(() => "");
      if (text.includes('"health":"true"')) return;
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
    throw new Error(`etcd does not serve:\n${this.#text}`);
  }

  async #follow(stream: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of stream) {
      this.#text = (this.#text + decoder.decode(chunk, { stream: true }))
        .slice(-OUTPUT_CHARACTERS_MAX);
    }
  }
}

/** Ports of 127.0.0.1 that nobody listens on. */
export function freePorts(count: number): number[] {
  const listeners = Array.from(
    { length: count },
    () => Deno.listen({ hostname: "127.0.0.1", port: 0 }),
  );
  const ports = listeners.map((listener) => listener.addr.port);
  for (const listener of listeners) listener.close();
  return ports;
}
