/**
 * Starts nodes as processes of their own, each under the narrowest permissions, follows what they
 * print, and stops them. Used by `scripts/cluster.ts`, `scripts/node.ts`, the demo and the tests,
 * so that all of them run a node under exactly the same flags.
 *
 *     launcher ──── deno run <nodeFlags> cli.ts node --id node1 … ──▶ node1
 *        ▲ └─────── SIGTERM, and SIGKILL if that takes too long ────────┤
 *        └────────── stdout and stderr, line by line ───────────────────┘
 *
 * A launcher needs `--allow-run=deno` and read access to the checkout.
 *
 * @module
 */

import { type Config, nodeOf } from "./config.ts";
import { assert, DkvError } from "./errors.ts";

/**
 * The environment variables a node may read: what grpc-js asks for when it is imported and when it
 * connects. `deno.json` repeats the list for programs that are not started from here.
 */
export const ENVIRONMENT: readonly string[] = [
  "GRPC_NODE_VERBOSITY",
  "GRPC_VERBOSITY",
  "GRPC_NODE_TRACE",
  "GRPC_TRACE",
  "GRPC_SSL_CIPHER_SUITES",
  "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
  "GRPC_NODE_USE_ALTERNATIVE_RESOLVER",
  "GRPC_NODE_DEBUG_SEND_ERROR_DETAILS",
  "GRPC_EXPERIMENTAL_ENABLE_OUTLIER_DETECTION",
  "grpc_proxy",
  "https_proxy",
  "http_proxy",
  "no_grpc_proxy",
  "no_proxy",
];

/** What a node prints as soon as it serves, with its address behind. */
export const LISTENING = "listening on";

/** What a node prints when it is elected. */
export const BECAME_LEADER = "became leader";

/** Kept of a node's output, newest last. */
const LINES_MAX = 2000;
/** A longer line is cut. */
const LINE_CHARACTERS_MAX = 4000;
/** How long a node may take to stop after SIGTERM. */
const STOP_MS_MAX = 10_000;

/**
 * What a node finds in its environment beside what its launcher has there. By itself the C library
 * keeps what the threads of V8 and SQLite have freed: of 350 MB at a million keys these were 50.
 */
export const NODE_ENVIRONMENT: Readonly<Record<string, string>> = {
  MALLOC_ARENA_MAX: "2",
  MALLOC_TRIM_THRESHOLD_: "1048576",
};

/**
 * By itself V8 lets a heap grow to several times what is in use until it looks for garbage, and takes
 * 16 MiB three times over for what is new: at a million keys the largest node took 100 MB more, and
 * nothing was faster for it. The task `compile` gives the binary the same flags.
 */
export const NODE_V8_FLAGS =
  "--heap-growing-percent=80,--max-semi-space-size=8";

/** Which node to run, and on what. */
export interface NodeSpec {
  /** As the node will read it; `config.path` is passed on. */
  readonly config: Config;
  readonly id: string;
  /** Made by the node if missing. */
  readonly dataDir: string;
  /** Further arguments behind `node`. */
  readonly extraArgs?: readonly string[];
  /** The program instead of `cli.ts`: for tests of the launcher. */
  readonly program?: string;
}

/**
 * Permissions of a node: the hosts of its cluster, its files, named variables, nothing else. Hosts
 * rather than ports, because nodes may move and others may be added while it runs.
 */
export function nodeFlags(spec: NodeSpec): string[] {
  const { config, dataDir } = spec;
  const readable = [
    dataDir,
    config.path,
    pathOf("proto"),
    ...workerFiles(),
    ...packageFiles(),
    ...config.kvConnect?.databases.flatMap((one) => one.tokenFile ?? []) ?? [],
  ];
  const { http } = nodeOf(config, spec.id);
  const places = config.nodes.map(({ address }) =>
    address.slice(0, address.lastIndexOf(":"))
  );
  if (http !== null) places.push(http.address);
  return [
    `--allow-net=${[...new Set(places)].join(",")}`,
    `--allow-read=${listed(readable)}`,
    `--allow-write=${listed([dataDir])}`,
    `--allow-env=${ENVIRONMENT.join(",")}`,
  ];
}

/** The arguments of `deno` that run a node. */
export function nodeArgs(spec: NodeSpec): string[] {
  return [
    "run",
    "--quiet",
    "--no-prompt",
    ...lockFlags(),
    "--cached-only",
    `--v8-flags=${NODE_V8_FLAGS}`,
    ...nodeFlags(spec),
    spec.program ?? pathOf("cli.ts"),
    "node",
    "--id",
    spec.id,
    "--config",
    spec.config.path,
    "--data",
    spec.dataDir,
    ...spec.extraArgs ?? [],
  ];
}

/**
 * Fetches the packages a node needs, so that nodes that start at the same time neither fetch them
 * three times over nor print about it. Costs a moment if they are there.
 */
export async function fetchPackages(): Promise<void> {
  const { success, stderr } = await new Deno.Command("deno", {
    args: ["cache", "--quiet", ...lockFlags(), pathOf("cli.ts")],
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).output();
  if (success) return;
  const reason = new TextDecoder().decode(stderr).trim();
  throw new DkvError("UNREACHABLE", `Cannot fetch packages: ${reason}`);
}

/** How a process ended. */
export interface Exit {
  readonly code: number;
  readonly signal: Deno.Signal | null;
}

/** `exit code 1`, `SIGKILL`. */
export function exitText(exit: Exit): string {
  return exit.signal ?? `exit code ${exit.code}`;
}

/** A node that runs, or ran, as a process. */
export class NodeProcess {
  readonly spec: NodeSpec;
  readonly pid: number;
  /** Settles when the process has ended and all it printed was read. Never rejects. */
  readonly exited: Promise<Exit>;
  readonly #child: Deno.ChildProcess;
  /** The newest lines, at most `LINES_MAX`. */
  readonly #lines: string[] = [];
  /** Called with each new line, and with null at the end. */
  readonly #followers = new Set<(line: string | null) => void>();
  #exit: Exit | null = null;

  constructor(spec: NodeSpec) {
    this.spec = spec;
    this.#child = new Deno.Command("deno", {
      args: nodeArgs(spec),
      env: NODE_ENVIRONMENT,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.pid = this.#child.pid;
    this.exited = this.#run();
  }

  get id(): string {
    return this.spec.id;
  }

  /** How it ended; null while it runs. */
  get exit(): Exit | null {
    return this.#exit;
  }

  /** What it printed last. */
  get lines(): readonly string[] {
    return this.#lines;
  }

  /** Calls `follower` with every line from now on, and with null when the node has ended. */
  follow(follower: (line: string | null) => void): void {
    this.#followers.add(follower);
  }

  /** Sends a signal; does nothing if the process has ended. */
  kill(signal: Deno.Signal): void {
    if (this.#exit !== null) return;
    try {
      this.#child.kill(signal);
    } catch (error) {
      // It ended, and nobody has told us yet.
      const gone = error instanceof Deno.errors.NotFound ||
        error instanceof TypeError;
      if (!gone) throw error;
    }
  }

  /**
   * Waits for a line that holds `text`, among those already printed too.
   *
   * @throws {DkvError} `UNREACHABLE` with the last lines, if the node ends or time runs out first.
   */
  async waitForLine(text: string, timeoutMs: number): Promise<string> {
    const found = this.#lines.find((line) => line.includes(text));
    if (found !== undefined) return found;
    const { promise, resolve } = Promise.withResolvers<string | null>();
    const follower = (line: string | null) => {
      if (line === null || line.includes(text)) resolve(line);
    };
    const timer = setTimeout(() => resolve(null), timeoutMs);
    this.#followers.add(follower);
    if (this.#exit !== null) resolve(null);
    const line = await promise;
    clearTimeout(timer);
    this.#followers.delete(follower);
    if (line !== null) return line;
    const why = this.#exit === null
      ? `within ${timeoutMs} ms`
      : `before it ended with ${exitText(this.#exit)}`;
    const last = this.#lines.slice(-20).join("\n");
    throw new DkvError(
      "UNREACHABLE",
      `${this.id} did not print "${text}" ${why}:\n${last}`,
    );
  }

  /** SIGTERM, and SIGKILL when that takes more than `timeoutMs`. */
  async stop(timeoutMs: number = STOP_MS_MAX): Promise<Exit> {
    this.kill("SIGTERM");
    // A process that is stopped does not see SIGTERM.
    this.kill("SIGCONT");
    const timer = setTimeout(() => this.kill("SIGKILL"), timeoutMs);
    const exit = await this.exited;
    clearTimeout(timer);
    return exit;
  }

  async #run(): Promise<Exit> {
    const [status] = await Promise.all([
      this.#child.status,
      this.#read(this.#child.stdout),
      this.#read(this.#child.stderr),
    ]);
    this.#exit = { code: status.code, signal: status.signal };
    for (const follower of this.#followers) follower(null);
    return this.#exit;
  }

  async #read(stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<void> {
    let rest = "";
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      const lines = `${rest}${text}`.split("\n");
      rest = (lines.pop() ?? "").slice(0, LINE_CHARACTERS_MAX);
      for (const line of lines) this.#line(line);
    }
    if (rest !== "") this.#line(rest);
  }

  #line(text: string): void {
    const line = text.replace(/\r$/, "").slice(0, LINE_CHARACTERS_MAX);
    this.#lines.push(line);
    if (this.#lines.length > LINES_MAX) this.#lines.shift();
    for (const follower of this.#followers) follower(line);
  }
}

/** Stops nodes, all at the same time. */
export async function stopAll(
  nodes: Iterable<NodeProcess>,
  timeoutMs: number = STOP_MS_MAX,
): Promise<Exit[]> {
  return await Promise.all(Array.from(nodes, (node) => node.stop(timeoutMs)));
}

/** Calls `stop` at Ctrl-C, SIGTERM and SIGHUP, each time one comes; `signal` says which. */
export function onStop(stop: (signal: Deno.Signal) => void): void {
  const signals: Deno.Signal[] = ["SIGINT", "SIGTERM", "SIGHUP"];
  for (const signal of signals) {
    Deno.addSignalListener(signal, () => stop(signal));
  }
}

/** Arguments of a task: `deno task node -- --id node1` passes the two dashes on. */
export function taskArgs(args: readonly string[]): readonly string[] {
  return args[0] === "--" ? args.slice(1) : args;
}

function lockFlags(): string[] {
  return [
    `--config=${pathOf("deno.json")}`,
    `--lock=${pathOf("deno.lock")}`,
    "--frozen",
  ];
}

let packages: string[] | undefined;

/**
 * @grpc/reflection reads its own .proto files, which lie in the cache of packages.
 */
function packageFiles(): string[] {
  if (packages !== undefined) return packages;
  // A program that has loaded the package is told its file, others are told its name.
  const [before, after] = import.meta.resolve("@grpc/reflection")
    .split("/@grpc/reflection/");
  if (before?.startsWith("file:") && after !== undefined) {
    return packages = [decodeURIComponent(new URL(before).pathname)];
  }
  const { npmCache } = denoInfo([]);
  assert(typeof npmCache === "string", "`deno info` names no package cache");
  return packages = [npmCache];
}

const WORKERS: readonly string[] = [
  "snapshot_worker.ts",
  "checkpoint_worker.ts",
];
let workerModules: string[] | undefined;

/** A worker's modules are read under the permissions of the node, unlike those of the program. */
function workerFiles(): string[] {
  if (workerModules !== undefined) return workerModules;
  const files = WORKERS.flatMap((worker) => {
    const { modules } = denoInfo([
      `--config=${pathOf("deno.json")}`,
      pathOf(worker),
    ]);
    assert(Array.isArray(modules), "`deno info` names no modules");
    return (modules as { local?: string }[])
      .flatMap(({ local }) => local ?? []);
  });
  assert(files.length > 0, "`deno info` names no file of the workers");
  return workerModules = [...new Set(files)];
}

function denoInfo(args: readonly string[]): Record<string, unknown> {
  const { stdout } = new Deno.Command("deno", {
    args: ["info", "--json", ...args],
    stderr: "null",
  }).outputSync();
  return JSON.parse(new TextDecoder().decode(stdout));
}

function pathOf(name: string): string {
  return decodeURIComponent(new URL(name, import.meta.url).pathname);
}

/** A list as the permission flags take it: a comma inside a path is doubled. */
function listed(paths: readonly string[]): string {
  return paths.map((path) => path.replaceAll(",", ",,")).join(",");
}
