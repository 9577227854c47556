/**
 * Processes of systems that are not dkv: started, followed and ended. Used by `etcd.ts` and
 * `redis.ts`.
 *
 * @module
 */

import { DkvError } from "../errors.ts";

/** Kept of what a process printed, for the message when it fails to start. */
const LINES_MAX = 40;
const LINE_CHARACTERS_MAX = 400;
/** How often is asked whether a process is ready. */
const POLL_MS = 50;

/** A process of ours. */
export class Process implements AsyncDisposable {
  readonly name: string;
  readonly pid: number;
  readonly #child: Deno.ChildProcess;
  readonly #lines: string[] = [];
  readonly #ended: Promise<void>;
  #exitCode: number | null = null;

  constructor(program: string, args: readonly string[], name: string) {
    this.name = name;
    this.#child = new Deno.Command(program, {
      args: [...args],
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.pid = this.#child.pid;
    this.#ended = this.#run();
  }

  /** What it printed last. */
  get lines(): readonly string[] {
    return this.#lines;
  }

  /**
   * Asks until the answer is true; errors count as no.
   *
   * @throws {DkvError} `UNREACHABLE` with the last lines, if the process ends or time runs out.
   */
  async ready(
    ask: () => Promise<boolean>,
    timeoutMs: number,
  ): Promise<void> {
    const endMs = performance.now() + timeoutMs;
    while (performance.now() < endMs && this.#exitCode === null) {
      if (await ask().catch(() => false)) return;
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
    const why = this.#exitCode === null
      ? `is not ready within ${timeoutMs} ms`
      : `ended with exit code ${this.#exitCode}`;
    throw new DkvError(
      "UNREACHABLE",
      `${this.name} ${why}:\n${this.#lines.join("\n")}`,
    );
  }

  /** Ends it at once: what it has stored is thrown away. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      if (this.#exitCode === null) this.#child.kill("SIGKILL");
    } catch (error) {
      // It ended, and nobody has told us yet.
      const gone = error instanceof Deno.errors.NotFound ||
        error instanceof TypeError;
      if (!gone) throw error;
    }
    await this.#ended;
  }

  async #run(): Promise<void> {
    const [{ code }] = await Promise.all([
      this.#child.status,
      this.#read(this.#child.stdout),
      this.#read(this.#child.stderr),
    ]);
    this.#exitCode = code;
  }

  async #read(stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<void> {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      for (const line of text.split("\n")) {
        if (line === "") continue;
        this.#lines.push(line.slice(0, LINE_CHARACTERS_MAX));
        if (this.#lines.length > LINES_MAX) this.#lines.shift();
      }
    }
  }
}

/** What a program prints when it is asked for its version; null if it is not installed. */
export async function printed(
  program: string,
  args: readonly string[],
): Promise<string | null> {
  try {
    const { success, stdout } = await new Deno.Command(program, {
      args: [...args],
      stdin: "null",
      stderr: "null",
    }).output();
    return success ? new TextDecoder().decode(stdout) : null;
  } catch (error) {
    // Deno grants only programs that it finds when it starts.
    const missing = error instanceof Deno.errors.NotFound ||
      error instanceof Deno.errors.NotCapable;
    if (missing) return null;
    throw error;
  }
}

/** Ports that are free now; nothing holds them until somebody binds them. */
export function freePorts(count: number): number[] {
  const listeners = Array.from(
    { length: count },
    () => Deno.listen({ hostname: "127.0.0.1", port: 0 }),
  );
  const ports = listeners.map(({ addr }) => addr.port);
  for (const listener of listeners) listener.close();
  return ports;
}
