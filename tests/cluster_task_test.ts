/** `deno task cluster`, as a person runs it. The launcher under it has tests of its own. */

import { assert, assertEquals, assertMatch } from "@std/assert";
import { eventually } from "./cluster.ts";
import { CLUSTER_NEEDS, needs, type TempDir, tempDir } from "./needs.ts";

const ROOT = decodeURIComponent(new URL("..", import.meta.url).pathname);
const START_MS_MAX = 30_000;

/** The task, running. */
class Task implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #reading: Promise<void>[];
  output = "";

  constructor(dir: TempDir, data: string) {
    const flags = ["-q", "--lock", "--frozen", "--no-prompt", "-P=launch"];
    const options = ["--config", `${dir.path}/nodes.json`, "--data", data];
    this.#child = new Deno.Command("deno", {
      args: ["run", ...flags, "scripts/cluster.ts", "--", ...options],
      cwd: ROOT,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const { stdout, stderr } = this.#child;
    this.#reading = [stdout, stderr].map((stream) => this.#read(stream));
  }

  async printed(text: string): Promise<void> {
    await eventually(text, () => this.output.includes(text), START_MS_MAX);
  }

  terminate(): void {
    this.#child.kill("SIGTERM");
  }

  /** The exit code, when all was read. */
  async code(): Promise<number> {
    await Promise.all(this.#reading);
    return (await this.#child.status).code;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.terminate();
    } catch {
      // It has ended.
    }
    await this.code();
  }

  async #read(stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<void> {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      this.output += text;
    }
  }
}

/** Three ports that are free when this returns, and the configuration that names them. */
function configure(dir: TempDir): number[] {
  const listeners = [1, 2, 3].map(() =>
    Deno.listen({ hostname: "127.0.0.1", port: 0 })
  );
  const ports = listeners.map(({ addr }) => addr.port);
  for (const listener of listeners) listener.close();
  const nodes = ports.map((port, at) => ({
    id: `node${at + 1}`,
    address: `127.0.0.1:${port}`,
  }));
  const text = JSON.stringify({ cluster: "task", nodes });
  Deno.writeTextFileSync(`${dir.path}/nodes.json`, text);
  return ports;
}

needs(
  CLUSTER_NEEDS,
  "cluster task: says how to talk to it, guards its data, stops on SIGTERM",
  async () => {
    await using dir = await tempDir();
    const data = `${dir.path}/data`;
    configure(dir);
    await using task = new Task(dir, data);
    await task.printed("the cluster has a leader: node");
    await task.printed("deno task dkv -- put greeting hello");
    await using second = new Task(dir, data);
    assertEquals(await second.code(), 1);
    assertEquals(
      second.output,
      `${data}/ is in use: a cluster runs on it already\n`,
    );
    task.terminate();
    assertEquals(await task.code(), 0, task.output);
    assertMatch(task.output, /cluster │ stopped\n$/);
    assert(!/no connection|ECONN|\bE /.test(task.output), task.output);
  },
  { sanitizeOps: false, sanitizeResources: false },
);

needs(
  CLUSTER_NEEDS,
  "cluster task: a port that is taken costs that node one line",
  async () => {
    await using dir = await tempDir();
    const [port = 0] = configure(dir);
    using _taken = Deno.listen({ hostname: "127.0.0.1", port });
    await using task = new Task(dir, `${dir.path}/data`);
    await task.printed("the cluster has a leader: node");
    await task.printed("Cannot listen");
    const lines = task.output.split("\n").filter((line) =>
      line.startsWith("node1 │")
    );
    assertEquals(lines, [
      `node1 │ dkv: Cannot listen on 127.0.0.1:${port}: another process does already (CONFIG_INVALID)`,
    ]);
    task.terminate();
    assertEquals(await task.code(), 0, task.output);
  },
  { sanitizeOps: false, sanitizeResources: false },
);
