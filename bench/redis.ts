/**
 * Redis as the bench sees it: a primary and two replicas, each with an append-only file that is
 * synced before the answer, and ioredis with automatic pipelining. Used by `plan.ts`.
 *
 * ioredis is no package of dkv's: it is imported when Redis is there, by a name that only
 * `bench/deno.lock` knows, so that nobody else fetches it.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { tempDir } from "../tests/needs.ts";
import { freePorts, printed, Process } from "./processes.ts";
import type { Deployment, OnChange, System } from "./system.ts";

const NODES = 3;
const START_MS_MAX = 20_000;
/** How long WAIT waits for a replica. */
const WAIT_MS_MAX = 10_000;
const IOREDIS = "npm:ioredis@5.11.1";

/** Where Redis tells of changes: this and the key. */
const CHANNEL = "__keyspace@0__:";

/** Replaces what was read; answers with what is there if that is something else. */
const REPLACE = `
local found = redis.call("GET", KEYS[1])
if found ~= ARGV[1] then return found end
redis.call("SET", KEYS[1], ARGV[2])
return nil`;

/** The part of ioredis that is used here. */
interface Redis {
  info(section: string): Promise<string>;
  set(key: string, value: Buffer): Promise<unknown>;
  getBuffer(key: string): Promise<Buffer | null>;
  wait(replicas: number, timeoutMs: number): Promise<number>;
  defineCommand(
    name: string,
    script: { numberOfKeys: number; lua: string },
  ): void;
  replaceBuffer(
    key: string,
    old: Buffer,
    value: Buffer,
  ): Promise<Buffer | null>;
  psubscribe(pattern: string): Promise<unknown>;
  on(event: "error", listener: () => void): void;
  on(
    event: "pmessage",
    listener: (pattern: string, channel: string) => void,
  ): void;
  disconnect(): void;
}

interface RedisOptions {
  readonly host: string;
  readonly port: number;
  readonly enableAutoPipelining: boolean;
  readonly maxRetriesPerRequest: number;
}

/** Opens a connection to one node. */
type Connect = (port: number, autoPipelining: boolean) => Redis;

/** Acknowledged when the primary has it on its disk. */
class RedisPlain implements System {
  readonly name = "redis";
  readonly #all: readonly Redis[];
  readonly #primary: Redis;
  readonly #subscribe: () => Redis;
  #next = 0;

  /** `all`: the primary first. */
  constructor(
    all: readonly [Redis, ...Redis[]],
    { subscribe }: { subscribe: () => Redis },
  ) {
    this.#all = all;
    [this.#primary] = all;
    this.#subscribe = subscribe;
    this.#primary.defineCommand("replace", { numberOfKeys: 1, lua: REPLACE });
  }

  put(key: string, value: Uint8Array): Promise<unknown> {
    return this.#primary.set(key, bufferOf(value));
  }

  get(key: string): Promise<unknown> {
    return this.#primary.getBuffer(key);
  }

  getSerializable(key: string): Promise<unknown> {
    const node = this.#all[this.#next++ % this.#all.length] ?? this.#primary;
    return node.getBuffer(key);
  }

  async update(key: string, value: Uint8Array): Promise<void> {
    let old = await this.#primary.getBuffer(key);
    for (;;) {
      const now = await this.#primary.replaceBuffer(
        key,
        old ?? Buffer.alloc(0),
        bufferOf(value),
      );
      if (now === null) return;
      old = now;
    }
  }

  async watch(
    prefix: string,
    { count, onChange }: { count: number; onChange: OnChange },
  ): Promise<AsyncDisposable> {
    const watchers = Array.from({ length: count }, this.#subscribe);
    await Promise.all(watchers.map(async (watcher) => {
      watcher.on("pmessage", (_, channel) => {
        onChange(channel.slice(CHANNEL.length));
      });
      await watcher.psubscribe(`${CHANNEL}${prefix}*`);
    }));
    return {
      [Symbol.asyncDispose]() {
        for (const watcher of watchers) watcher.disconnect();
        return Promise.resolve();
      },
    };
  }
}

/**
 * Acknowledged when a replica has received it as well. One WAIT covers all that was written before it
 * on its connection, so there is one for all puts of a turn of the event loop, not one for each.
 */
class RedisWait implements System {
  readonly name = "redis-wait";
  readonly #primary: Redis;
  #received: Promise<unknown> | null = null;

  constructor(primary: Redis) {
    this.#primary = primary;
  }

  async put(key: string, value: Uint8Array): Promise<void> {
    await Promise.all([
      this.#primary.set(key, bufferOf(value)),
      this.#received ??= this.#wait(),
    ]);
  }

  async #wait(): Promise<void> {
    // Behind the pipeline that ioredis sends at the end of this turn.
    await new Promise<void>((resolve) => setImmediate(resolve));
    this.#received = null;
    const replicas = await this.#primary.wait(1, WAIT_MS_MAX);
    if (replicas < 1) throw new Error("WAIT: no replica has received it");
  }
}

/** Starts a primary and two replicas; null if Redis is not installed. */
export async function startRedis(): Promise<Deployment | null> {
  const text = await printed("redis-server", ["--version"]);
  if (text === null) return null;
  const [, version = "?"] = /v=(\S+)/.exec(text) ?? [];
  const connect = await connector();
  await using stack = new AsyncDisposableStack();
  const dir = stack.use(await tempDir());
  const ports = freePorts(NODES);
  const [primaryPort = 0] = ports;
  const nodes: Redis[] = [];
  const pids: number[] = [];
  for (const [at, port] of ports.entries()) {
    const name = `redis${at + 1}`;
    const path = `${dir.path}/${name}`;
    await Deno.mkdir(path);
    const args = argsOf({ port, dir: path });
    if (at > 0) args.push("--replicaof", `127.0.0.1 ${primaryPort}`);
    const process = stack.use(new Process("redis-server", args, name));
    pids.push(process.pid);
    await process.ready(() => listens(port), START_MS_MAX);
    const node = connect(port, true);
    stack.defer(() => node.disconnect());
    nodes.push(node);
    await process.ready(() => hasReplicas(nodes[0], at), START_MS_MAX);
  }
  const subscribe = () => connect(primaryPort, false);
  const plain = new RedisPlain(nodes as [Redis, ...Redis[]], { subscribe });
  const owned = stack.move();
  return {
    version: `Redis ${version}`,
    systems: [plain, new RedisWait(nodes[0] as Redis)],
    bulk: plain,
    pids,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

async function connector(): Promise<Connect> {
  const { Redis } = await import(IOREDIS) as {
    Redis: new (options: RedisOptions) => Redis;
  };
  return (port, enableAutoPipelining) => {
    const connection = new Redis({
      host: "127.0.0.1",
      port,
      enableAutoPipelining,
      maxRetriesPerRequest: 3,
    });
    // Operations reject on their own; without a listener each error is printed too.
    connection.on("error", () => {});
    return connection;
  };
}

function argsOf({ port, dir }: { port: number; dir: string }): string[] {
  return [
    ...["--port", `${port}`],
    ...["--bind", "127.0.0.1"],
    ...["--dir", dir],
    ...["--appendonly", "yes"],
    ...["--appendfsync", "always"],
    // The append-only file is enough; snapshots besides would only cost it time.
    ...["--save", ""],
    // Replicas begin at once instead of after five seconds.
    ...["--repl-diskless-sync-delay", "0"],
    // For the watches: messages about every command on a key.
    ...["--notify-keyspace-events", "KA"],
  ];
}

async function listens(port: number): Promise<boolean> {
  const connection = await Deno.connect({ hostname: "127.0.0.1", port });
  connection.close();
  return true;
}

async function hasReplicas(
  primary: Redis | undefined,
  count: number,
): Promise<boolean> {
  const text = await primary?.info("replication") ?? "";
  const online = text.match(/^slave\d+:.*state=online/gm)?.length ?? 0;
  return online === count;
}

function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
