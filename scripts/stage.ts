/**
 * The nodes that the demo plays on: a private cluster that it starts and removes, or one that runs
 * already, where it keeps to a prefix of its own. Used by `demo.ts` and `steps.ts`.
 *
 * @module
 */

import { type Client, connect, type NodeStatus } from "../client.ts";
import { parseConfig, readConfig } from "../config.ts";
import { assert, DkvError } from "../errors.ts";
import {
  fetchPackages,
  LISTENING,
  NodeProcess,
  type NodeSpec,
  stopAll,
} from "../launch.ts";

/** A node on the stage. */
export interface Player {
  readonly id: string;
  readonly address: string;
  /** A client that talks to this node alone. */
  readonly client: Client;
}

const START_MS_MAX = 20_000;
const WAIT_MS_MAX = 15_000;
const PROBE_MS = 1000;
const POLL_MS = 10;

/** Asks until there is an answer; a refusal counts as none. */
export async function until<T>(
  what: string,
  ask: () => Promise<T | undefined>,
  timeoutMs: number = WAIT_MS_MAX,
): Promise<T> {
  const end = performance.now() + timeoutMs;
  let reason = "";
  do {
    try {
      const answer = await ask();
      if (answer !== undefined) return answer;
    } catch (error) {
      if (!(error instanceof DkvError)) throw error;
      reason = `: ${error.message}`;
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  } while (performance.now() < end);
  throw new DkvError(
    "DEADLINE_EXCEEDED",
    `Not within ${timeoutMs} ms: ${what}${reason}`,
  );
}

/** A cluster to play on. */
export class Stage implements AsyncDisposable {
  /** All keys of the demo begin with this. */
  readonly prefix: string;
  /** True if the demo started the nodes, and so may kill them. */
  readonly owned: boolean;
  players: readonly Player[] = [];
  readonly #processes = new Map<string, NodeProcess>();
  readonly #clients = new Set<Client>();
  #directory = "";
  /** The folder of directories, if it was not there before. */
  #madeRoot = "";
  #closed = false;

  private constructor(owned: boolean) {
    this.owned = owned;
    this.prefix = `demo/${crypto.randomUUID().slice(0, 8)}/`;
  }

  /** A stage whose nodes are yet to be started with {@linkcode Stage.start}. */
  static empty(): Stage {
    return new Stage(true);
  }

  /** A stage on a cluster that runs already. */
  static async at(addresses: readonly string[]): Promise<Stage> {
    const stage = new Stage(false);
    try {
      const players: Player[] = [];
      for (const address of addresses) {
        const client = await stage.connect([address]);
        const { nodeId } = await client.status();
        if (players.some(({ id }) => id === nodeId)) continue;
        players.push({ id: nodeId, address, client });
      }
      stage.players = players;
    } catch (error) {
      await stage[Symbol.asyncDispose]();
      throw error;
    }
    return stage;
  }

  /** Starts three nodes on free ports, in a directory of their own. */
  async start(): Promise<void> {
    await fetchPackages();
    this.#refuseClosed();
    const root = pathOf("../.tmp");
    if (makeDirectory(root)) this.#madeRoot = root;
    this.#directory = Deno.makeTempDirSync({ dir: root, prefix: "demo-" });
    const addresses = freeAddresses(3);
    const nodes = addresses.map((address, at) => ({
      id: `node${at + 1}`,
      address,
    }));
    const path = `${this.#directory}/nodes.json`;
    const text = JSON.stringify({ cluster: "demo", nodes });
    Deno.writeTextFileSync(path, text);
    const config = parseConfig(text, path);
    for (const { id } of nodes) {
      this.#spawn({ config, id, dataDir: `${this.#directory}/${id}` });
    }
    for (const node of this.#processes.values()) await listens(node);
    const players: Player[] = [];
    for (const { id, address } of nodes) {
      players.push({ id, address, client: await this.connect([address]) });
    }
    this.players = players;
  }

  /** A client of some nodes, closed with the stage. */
  async connect(addresses: readonly string[]): Promise<Client> {
    const client = await connect(addresses);
    this.#clients.add(client);
    return client;
  }

  /** The process of a node that this stage owns. */
  pid(id: string): number {
    return this.#process(id).pid;
  }

  player(id: string): Player {
    const player = this.players.find((player) => player.id === id);
    assert(player !== undefined, `No node ${id} on the stage`);
    return player;
  }

  /** Waits until all given nodes name the same leader, and returns it. */
  async leader(players: readonly Player[] = this.players): Promise<string> {
    return await until("the nodes agree on a leader", async () => {
      const states = await statuses(players);
      const { leader = "" } = states[0] ?? {};
      const agreed = leader !== "" && players.some(({ id }) => id === leader) &&
        states.every((state) => state.leader === leader);
      return agreed ? leader : undefined;
    });
  }

  /** SIGKILL: the process ends at once, wherever it is. */
  async kill(id: string): Promise<void> {
    this.#process(id).kill("SIGKILL");
    await this.#process(id).exited;
  }

  /** Starts a node that was killed, on the same files. */
  async restart(id: string): Promise<void> {
    this.#spawn(this.#process(id).spec);
    await listens(this.#process(id));
  }

  /** Leaves nothing behind: neither processes nor files, and no keys in a cluster of others. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    try {
      const [player] = this.players;
      if (!this.owned && player !== undefined) {
        await player.client.delete({ prefix: this.prefix });
      }
    } finally {
      for (const client of this.#clients) await client.close();
      await stopAll(this.#processes.values(), 0);
      if (this.#directory !== "") {
        Deno.removeSync(this.#directory, { recursive: true });
      }
      if (this.#madeRoot !== "") removeIfEmpty(this.#madeRoot);
    }
  }

  #process(id: string): NodeProcess {
    const node = this.#processes.get(id);
    assert(node !== undefined, `No process of ${id}`);
    return node;
  }

  /** A story that was interrupted must not start anything any more. */
  #refuseClosed(): void {
    if (this.#closed) throw new DkvError("CANCELLED", "The demo has ended");
  }

  #spawn(spec: NodeSpec): void {
    this.#refuseClosed();
    this.#processes.set(spec.id, new NodeProcess(spec));
  }
}

/** The state of each of some nodes. */
export async function statuses(
  players: readonly Player[],
): Promise<NodeStatus[]> {
  return await Promise.all(
    players.map(({ client }) => client.status(undefined, { timeoutMs: 2000 })),
  );
}

/** The addresses of the nodes of `path` that run and have a leader; none if they do not run. */
export async function runningNodes(path: string): Promise<string[]> {
  const { cluster, nodes } = readConfig(path);
  const found = await Promise.all(nodes.map(async ({ address, host, port }) => {
    try {
      // Refused at once if nobody is there, which is the usual case.
      (await Deno.connect({ hostname: host, port })).close();
      await using client = await connect(address, { timeoutMs: PROBE_MS });
      const state = await client.status();
      return state.cluster === cluster && state.leader !== "" ? [address] : [];
    } catch {
      return [];
    }
  }));
  return found.flat();
}

async function listens(node: NodeProcess): Promise<void> {
  await node.waitForLine(LISTENING, START_MS_MAX);
}

/** Ports that are free now. */
function freeAddresses(count: number): string[] {
  const listeners = Array.from(
    { length: count },
    () => Deno.listen({ hostname: "127.0.0.1", port: 0 }),
  );
  const addresses = listeners.map(({ addr }) => `127.0.0.1:${addr.port}`);
  for (const listener of listeners) listener.close();
  return addresses;
}

/** False if it was there already. */
function makeDirectory(path: string): boolean {
  try {
    Deno.mkdirSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.AlreadyExists) return false;
    throw error;
  }
}

function removeIfEmpty(path: string): void {
  try {
    Deno.removeSync(path);
  } catch {
    // Somebody else's files are in it, or it is gone.
  }
}

function pathOf(name: string): string {
  return decodeURIComponent(new URL(name, import.meta.url).pathname);
}
