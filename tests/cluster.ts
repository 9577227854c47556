/**
 * A cluster of real processes for one test: free ports, a directory of its own, and nothing left
 * behind, whatever happens.
 *
 *     clusterTest("cluster: survives its leader", { proxied: true }, async (cluster) => {
 *       const leader = await cluster.leader();
 *       await cluster.kill(leader);
 *       …
 *     });
 *
 * With `proxied` each node has a configuration of its own, in which the others' addresses are those
 * of proxies, one for each ordered pair:
 *
 *     node1 ──▶ proxy(node1, node2) ──▶ node2        node2 ──▶ proxy(node2, node1) ──▶ node1
 *
 * grpc-js reads the environment when it is imported, so it is imported when it is needed.
 *
 * @module
 */

import type * as Grpc from "@grpc/grpc-js";
import { assert } from "@std/assert";
import { parseConfig, type Settings } from "../config.ts";
import {
  type Exit,
  exitText,
  fetchPackages,
  LISTENING,
  NodeProcess,
  type NodeSpec,
  stopAll,
} from "../launch.ts";
import { CLUSTER_NEEDS, needs, type TempDir, tempDir } from "./needs.ts";
import { type Direction, Proxy } from "./proxy.ts";

/** Options of {@linkcode TestCluster.start}. */
export interface TestClusterOptions {
  /** How many. Default: 3. */
  readonly nodes?: number;
  /** Put a proxy between each ordered pair. */
  readonly proxied?: boolean;
  /** Serve HTTP, and this to clients of Deno KV: `kvConnect` of the configuration file. */
  readonly kvConnect?: object;
  /** Of the configuration file. */
  readonly settings?: Partial<Settings>;
  /** Further arguments of `dkv node`. */
  readonly extraArgs?: readonly string[];
  /** Where a node keeps its data, for tests with small file systems. Default: in the test's directory. */
  readonly dataDir?: (id: string) => string;
  /** A program instead of `cli.ts`. */
  readonly program?: string;
}

/** What `Cluster.Status` answers, in the part tests look at. 64-bit integers are numbers. */
export interface Status {
  readonly role: string;
  readonly leader: string;
  readonly term: number;
  readonly commitIndex: number;
  readonly appliedIndex: number;
  readonly firstIndex: number;
  readonly lastIndex: number;
  readonly compactRevision: number;
  readonly stateHash: string;
  readonly keys: number;
  readonly writeRefusal: string;
  readonly header: { readonly revision: number; readonly nodeId: string };
  readonly members: readonly {
    readonly nodeId: string;
    readonly address: string;
    readonly suffrage: string;
    readonly matchIndex: number;
    readonly progress: string;
    readonly connected: boolean;
  }[];
}

const START_MS_MAX = 30_000;
const WAIT_MS_MAX = 30_000;
const POLL_MS = 20;
const CALL_MS = 2000;
/** How much of each node's output a failed test shows. */
const LINES_SHOWN = 60;

/** Registers a test that gets a running cluster; if it fails, it shows what the nodes printed. */
export function clusterTest(
  name: string,
  options: TestClusterOptions,
  fn: (cluster: TestCluster) => Promise<void>,
): void {
  needs(CLUSTER_NEEDS, name, async () => {
    await using cluster = await TestCluster.start(options);
    try {
      await fn(cluster);
    } catch (error) {
      throw withOutput(error, cluster);
    }
  }, {
    // Channels of grpc-js close a moment after they are told to.
    sanitizeOps: false,
    sanitizeResources: false,
  });
}

/** Asks again and again until the answer is neither undefined nor false; errors count as no answer. */
export async function eventually<T>(
  what: string,
  ask: () => Promise<T | undefined | false> | T | undefined | false,
  timeoutMs: number = WAIT_MS_MAX,
): Promise<T> {
  const end = performance.now() + timeoutMs;
  let last: unknown;
  do {
    try {
      const answer = await ask();
      if (answer !== undefined && answer !== false) return answer;
      last = undefined;
    } catch (error) {
      if (error instanceof Diverged) throw error;
      last = error;
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  } while (performance.now() < end);
  const why = last instanceof Error ? `: ${last.message}` : "";
  throw new Error(`Not within ${timeoutMs} ms: ${what}${why}`, { cause: last });
}

/** A cluster of processes. Get one with {@linkcode clusterTest} or {@linkcode TestCluster.start}. */
export class TestCluster implements AsyncDisposable {
  /** node1, node2, … */
  readonly ids: string[];
  /** The one configuration of clients: real addresses, no proxies. */
  readonly configPath: string;
  readonly #options: TestClusterOptions;
  readonly #dir: TempDir;
  readonly #addresses: Map<string, string>;
  readonly #httpAddresses: ReadonlyMap<string, string>;
  /** Files of nodes that have one of their own. */
  readonly #ownConfigs = new Map<string, string>();
  /** By `from→to`. */
  readonly #proxies = new Map<string, Proxy>();
  /** The newest process of each node. */
  readonly #nodes = new Map<string, NodeProcess>();
  readonly #channels = new Map<string, Channel>();

  private constructor(options: TestClusterOptions, dir: TempDir) {
    this.#options = options;
    this.#dir = dir;
    this.ids = Array.from(
      { length: options.nodes ?? 3 },
      (_, at) => `node${at + 1}`,
    );
    const addresses = freeAddresses(2 * this.ids.length);
    this.#addresses = new Map(
      this.ids.map((id, at) => [id, addresses[at] ?? ""]),
    );
    this.#httpAddresses = new Map(
      this.ids.map((id, at) => [id, addresses[this.ids.length + at] ?? ""]),
    );
    this.configPath = `${dir.path}/nodes.json`;
  }

  /** Starts a cluster and waits until it has a leader that every node knows. */
  static async start(options: TestClusterOptions = {}): Promise<TestCluster> {
    packages ??= options.program === undefined
      ? fetchPackages()
      : Promise.resolve();
    await packages;
    const cluster = new TestCluster(options, await tempDir());
    try {
      await cluster.#start();
    } catch (error) {
      await cluster[Symbol.asyncDispose]();
      throw withOutput(error, cluster);
    }
    return cluster;
  }

  /** A file or directory of this test. */
  path(name: string): string {
    return `${this.#dir.path}/${name}`;
  }

  /** Where a node keeps its data. */
  dataDir(id: string): string {
    return this.#options.dataDir?.(id) ?? this.path(`data/${id}`);
  }

  /** `host:port` of a node, for clients. */
  address(id: string): string {
    const address = this.#addresses.get(id);
    assert(address !== undefined, `No node ${id}`);
    return address;
  }

  /** `http://host:port` of a node. Only with `kvConnect`. */
  httpUrl(id: string): string {
    const address = this.#httpAddresses.get(id);
    assert(address !== undefined, `No node ${id}`);
    return `http://${address}`;
  }

  get addresses(): string[] {
    return this.ids.map((id) => this.address(id));
  }

  /** The newest process of a node, running or not. */
  node(id: string): NodeProcess {
    const node = this.#nodes.get(id);
    assert(node !== undefined, `No node ${id}`);
    return node;
  }

  /** Nodes whose process has not ended. */
  running(): string[] {
    return this.ids.filter((id) => this.#nodes.get(id)?.exit === null);
  }

  /** Ends a node at once, by default with SIGKILL, and waits until it is gone. */
  async kill(id: string, signal: Deno.Signal = "SIGKILL"): Promise<Exit> {
    this.node(id).kill(signal);
    return await this.node(id).exited;
  }

  /** Ends every node at once. */
  async killAll(): Promise<void> {
    for (const id of this.ids) this.node(id).kill("SIGKILL");
    await Promise.all(this.ids.map((id) => this.node(id).exited));
  }

  /** Asks a node to stop, as an operator would. */
  async stop(id: string): Promise<Exit> {
    return await this.node(id).stop();
  }

  /**
   * Gives a node, a new one too, another address and a configuration file of its own, which alone says
   * so. It is for {@linkcode restart}.
   */
  async relocate(id: string): Promise<string> {
    const [address = ""] = freeAddresses(1);
    this.#addresses.set(id, address);
    if (!this.ids.includes(id)) this.ids.push(id);
    this.#channels.get(id)?.close();
    this.#channels.delete(id);
    const path = this.path(`own-${id}.json`);
    this.#ownConfigs.set(id, path);
    await this.#writeConfig(path, (to) => this.address(to));
    return address;
  }

  /** Starts a node that has ended or is new, with the same data, and waits until it listens. */
  async restart(id: string, extraArgs: readonly string[] = []): Promise<void> {
    assert(this.#nodes.get(id)?.exit !== null, `${id} still runs`);
    this.#spawn(id, extraArgs);
    await this.node(id).waitForLine(LISTENING, START_MS_MAX);
  }

  /** SIGSTOP: the process does nothing, and does not notice. */
  freeze(id: string): void {
    this.node(id).kill("SIGSTOP");
  }

  /** SIGCONT. */
  thaw(id: string): void {
    this.node(id).kill("SIGCONT");
  }

  /** What `from` goes through when it connects to `to`. Only with `proxied`. */
  proxy(from: string, to: string): Proxy {
    const proxy = this.#proxies.get(`${from}→${to}`);
    assert(proxy !== undefined, `No proxy from ${from} to ${to}`);
    return proxy;
  }

  /** Cuts a node off from the others: bytes vanish, connections stay. Only with `proxied`. */
  isolate(id: string, ...directions: Direction[]): void {
    for (const proxy of this.#proxiesOf(id)) proxy.pause(...directions);
  }

  /** Ends {@linkcode isolate}; connections that hung are closed, so that new ones are made at once. */
  reconnect(id: string): void {
    for (const proxy of this.#proxiesOf(id)) {
      proxy.drop();
      proxy.resume();
    }
  }

  /** Asks one node for its state. */
  async status(id: string): Promise<Status> {
    return await this.call<Status>(id, "Cluster.Status", {});
  }

  /**
   * One unary call to one node, past the client library: `call("node1", "KeyValue.Put", {…})`.
   * 64-bit integers are numbers, fields are in camel case. Rejects with grpc-js's ServiceError.
   */
  async call<Response = unknown>(
    id: string,
    method: string,
    request: object,
    timeoutMs: number = CALL_MS,
  ): Promise<Response> {
    let channel = this.#channels.get(id);
    if (channel === undefined) {
      channel = await Channel.open(this.address(id));
      this.#channels.set(id, channel);
    }
    return await channel.call<Response>(method, request, timeoutMs);
  }

  /** Waits until a majority of the running nodes agrees on a leader that runs, and returns it. */
  async leader(except?: string): Promise<string> {
    const majority = Math.floor(this.ids.length / 2) + 1;
    return await eventually("a leader that a majority knows", async () => {
      const states = await Promise.allSettled(
        this.running().filter((id) => id !== except)
          .map((id) => this.status(id)),
      );
      const votes = new Map<string, number>();
      for (const state of states) {
        if (state.status === "rejected") continue;
        const { leader } = state.value;
        if (leader === "" || leader === except) continue;
        votes.set(leader, (votes.get(leader) ?? 0) + 1);
      }
      return this.running().find((id) => (votes.get(id) ?? 0) >= majority);
    });
  }

  /** Nodes that do not lead, in order. */
  async followers(): Promise<string[]> {
    const leader = await this.leader();
    return this.ids.filter((id) => id !== leader);
  }

  /** Waits until every running node has applied the same, and checks that the state is the same. */
  async agreed(): Promise<Status[]> {
    return await eventually("equal state on every running node", async () => {
      const states = await Promise.all(
        this.running().map((id) => this.status(id)),
      );
      const [first] = states;
      if (states.some((s) => s.appliedIndex !== first?.appliedIndex)) {
        return undefined;
      }
      const hashes = new Set(states.map((s) => s.stateHash));
      // Fatal at once: replicas that have diverged do not come together again.
      if (hashes.size > 1) throw new Diverged(states);
      return states;
    });
  }

  /** What the nodes printed last, for a person. */
  output(): string {
    return [...this.#nodes.values()].map((node) => {
      const state = node.exit === null ? "runs" : exitText(node.exit);
      const lines = node.lines.slice(-LINES_SHOWN);
      return [`── ${node.id} (${state})`, ...lines].join("\n");
    }).join("\n");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      for (const channel of this.#channels.values()) channel.close();
      // Killed rather than asked: a test that wants a clean end asks itself.
      await stopAll(this.#nodes.values(), 0);
      for (const proxy of this.#proxies.values()) {
        await proxy[Symbol.asyncDispose]();
      }
    } finally {
      await this.#dir[Symbol.asyncDispose]();
    }
  }

  async #start(): Promise<void> {
    await Deno.mkdir(this.path("data"));
    await this.#writeConfig(this.configPath, (to) => this.address(to));
    for (const from of this.ids) {
      if (!this.#options.proxied) break;
      for (const to of this.ids) {
        if (from === to) continue;
        this.#proxies.set(`${from}→${to}`, new Proxy(this.address(to)));
      }
      await this.#writeConfig(
        this.#configOf(from),
        (to) => from === to ? this.address(to) : this.proxy(from, to).address,
      );
    }
    for (const id of this.ids) this.#spawn(id);
    await Promise.all(
      this.ids.map((id) => this.node(id).waitForLine(LISTENING, START_MS_MAX)),
    );
    await eventually("a leader that every node knows", async () => {
      const states = await Promise.all(this.ids.map((id) => this.status(id)));
      const [first] = states;
      return first !== undefined && first.leader !== "" &&
        states.every((state) => state.leader === first.leader);
    }, START_MS_MAX);
  }

  async #writeConfig(
    path: string,
    address: (id: string) => string,
  ): Promise<void> {
    const { kvConnect, settings = {} } = this.#options;
    const nodes = this.ids.map((id) => ({
      id,
      address: address(id),
      ...(kvConnect && { http: this.#httpAddresses.get(id) }),
    }));
    await Deno.writeTextFile(
      path,
      JSON.stringify({ cluster: "test", nodes, kvConnect, settings }, null, 2),
    );
  }

  #configOf(id: string): string {
    const shared = this.#options.proxied
      ? this.path(`${id}.json`)
      : this.configPath;
    return this.#ownConfigs.get(id) ?? shared;
  }

  #spawn(id: string, moreArgs: readonly string[] = []): void {
    const path = this.#configOf(id);
    const { program } = this.#options;
    const extraArgs = [...this.#options.extraArgs ?? [], ...moreArgs];
    const spec: NodeSpec = {
      config: parseConfig(Deno.readTextFileSync(path), path),
      id,
      dataDir: this.dataDir(id),
      extraArgs,
      ...(program === undefined ? {} : { program }),
    };
    this.#nodes.set(id, new NodeProcess(spec));
  }

  #proxiesOf(id: string): Proxy[] {
    return this.ids.filter((other) => other !== id)
      .flatMap((other) => [this.proxy(id, other), this.proxy(other, id)]);
  }
}

/** In the message, because `deno test --quiet` shows nothing else of a test. */
function withOutput(error: unknown, cluster: TestCluster): Error {
  const message = error instanceof Error ? error.message : String(error);
  return new Error(`${message}\n${cluster.output()}`, { cause: error });
}

/** Replicas that applied the same and are not the same. */
class Diverged extends Error {
  constructor(states: readonly Status[]) {
    const each = states.map((state) =>
      `${state.header.nodeId} ${state.stateHash} at ${state.appliedIndex}`
    );
    super(`Replicas diverged: ${each.join(", ")}`);
  }
}

/** Fetched once for all tests of a process. */
let packages: Promise<void> | undefined;

/** A connection to one node that calls any method of `proto/kvstore.proto` by its name. */
class Channel {
  readonly #clients: ReadonlyMap<string, Grpc.Client>;

  private constructor(clients: ReadonlyMap<string, Grpc.Client>) {
    this.#clients = clients;
  }

  static async open(address: string): Promise<Channel> {
    const grpc = await import("@grpc/grpc-js");
    const { loadSync } = await import("@grpc/proto-loader");
    const path = decodeURIComponent(
      new URL("../proto/kvstore.proto", import.meta.url).pathname,
    );
    const proto = loadSync(path, {
      longs: Number,
      enums: String,
      defaults: true,
      oneofs: true,
    });
    const clients = new Map<string, Grpc.Client>();
    for (const service of ["KeyValue", "Cluster"]) {
      const definition = proto[`kvstore.v1.${service}`];
      const Client = grpc.makeClientConstructor(
        definition as Grpc.ServiceDefinition,
        service,
      );
      const client = new Client(address, grpc.credentials.createInsecure(), {
        // A node that comes back is seen at once.
        "grpc.initial_reconnect_backoff_ms": 50,
        "grpc.min_reconnect_backoff_ms": 50,
        "grpc.max_reconnect_backoff_ms": 200,
        "grpc.use_local_subchannel_pool": 1,
      });
      clients.set(service, client);
    }
    return new Channel(clients);
  }

  call<Response>(
    method: string,
    request: object,
    timeoutMs: number,
  ): Promise<Response> {
    const [service = "", name = ""] = method.split(".");
    const client = this.#clients.get(service) as unknown as
      | Record<string, UnaryCall | undefined>
      | undefined;
    const deadline = Date.now() + timeoutMs;
    return new Promise((resolve, reject) => {
      const call = client?.[name]?.bind(client);
      assert(call !== undefined, `No method ${method}`);
      call(request, { deadline }, (error, response) => {
        if (error) reject(error);
        else resolve(response as Response);
      });
    });
  }

  close(): void {
    for (const client of this.#clients.values()) client.close();
  }
}

type UnaryCall = (
  request: object,
  options: { deadline: number },
  callback: (error: Error | null, response: unknown) => void,
) => void;

/** Ports that are free now; nothing holds them until the nodes bind them. */
export function freeAddresses(count: number): string[] {
  const listeners = Array.from(
    { length: count },
    () => Deno.listen({ hostname: "127.0.0.1", port: 0 }),
  );
  const addresses = listeners.map((l) => `127.0.0.1:${l.addr.port}`);
  for (const listener of listeners) listener.close();
  return addresses;
}
