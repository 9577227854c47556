/**
 * Watches over the resident memory of processes, from a process of its own: under the permissions of
 * tests nobody may read what the system tells of others. Used by `round.ts`.
 *
 * @module
 */

const SAMPLE_MS = 2000;
const MIB = 1024 * 1024;

/** Prints `pid KiB` for each process it is told of, all on one line for each line it reads. */
const SAMPLER = `
const decoder = new TextDecoder();
for await (const bytes of Deno.stdin.readable) {
  for (const line of decoder.decode(bytes).trim().split("\\n")) {
    const sizes = line.split(" ").flatMap((pid) => {
      try {
        const status = Deno.readTextFileSync("/proc/" + pid + "/status");
        const kib = /VmRSS:\\s+(\\d+) kB/.exec(status)?.[1];
        return kib === undefined ? [] : [pid + ":" + kib];
      } catch {
        return [];
      }
    });
    console.log(sizes.join(" "));
  }
}
`;

/** The highest resident memory of anything that it was ever told of. */
export class Memory implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #ended: Promise<void>;
  readonly #timer: ReturnType<typeof setInterval>;
  #highestBytes = 0;
  #samples = 0;

  /** `pids` tells which processes to look at. */
  constructor(pids: () => readonly number[]) {
    this.#child = new Deno.Command("deno", {
      args: ["eval", "--quiet", "--no-config", SAMPLER],
      stdin: "piped",
      stdout: "piped",
      stderr: "null",
    }).spawn();
    this.#input = this.#child.stdin.getWriter();
    this.#ended = this.#read();
    this.#timer = setInterval(() => {
      const line = new TextEncoder().encode(`${pids().join(" ")}\n`);
      this.#input.write(line).catch(() => {});
    }, SAMPLE_MS);
  }

  /** In MiB; null if the system does not tell. */
  get highestMib(): number | null {
    return this.#samples === 0 ? null : Math.round(this.#highestBytes / MIB);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It has ended.
    }
    await this.#ended;
    await this.#child.status;
    this.#input.close().catch(() => {});
  }

  async #read(): Promise<void> {
    const texts = this.#child.stdout.pipeThrough(new TextDecoderStream());
    for await (const text of texts) {
      for (const [, kib] of text.matchAll(/\d+:(\d+)\s/g)) {
        this.#highestBytes = Math.max(this.#highestBytes, Number(kib) * 1024);
        this.#samples++;
      }
    }
  }
}
