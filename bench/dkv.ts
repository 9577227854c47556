/**
 * dkv as the bench sees it: a cluster of three processes under the launcher's permissions, its
 * client library, and its plain calls through grpc-js. Used by `plan.ts` and `growth.ts`.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { type Client, connect } from "../client.ts";
import { DkvError } from "../errors.ts";
import { eventually, TestCluster } from "../tests/cluster.ts";
import { Calls, methodsOf } from "./calls.ts";
import {
  type Deployment,
  type OnChange,
  prefixEnd,
  type System,
} from "./system.ts";

/** A measurement under load may make an operation wait; what waits longer has failed. */
const TIMEOUT_MS = 20_000;

/** The client library, as a program uses it. */
export class DkvLibrary implements System {
  readonly name = "dkv";
  readonly #client: Client;

  constructor(client: Client) {
    this.#client = client;
  }

  put(key: string, value: Uint8Array): Promise<unknown> {
    return this.#client.put(key, value);
  }

  get(key: string): Promise<unknown> {
    return this.#client.get(key);
  }

  getSerializable(key: string): Promise<unknown> {
    return this.#client.get(key, { serializable: true });
  }

  async update(key: string, value: Uint8Array): Promise<void> {
    const found = await this.#client.get(key);
    let modRevision = found?.modRevision ?? 0;
    for (;;) {
      const { succeeded, results } = await this.#client.transact({
        compares: [{ key, modRevision }],
        then: [{ type: "put", key, value }],
        else: [{ type: "get", key }],
      });
      if (succeeded) return;
      const [result] = results;
      if (result?.type !== "get") throw unexpected("a transaction");
      modRevision = result.entry?.modRevision ?? 0;
    }
  }

  async list(prefix: string): Promise<number> {
    let count = 0;
    for await (const { value } of this.#client.list({ prefix })) {
      if (value.length > 0) count++;
    }
    return count;
  }

  async watch(
    prefix: string,
    { count, onChange }: { count: number; onChange: OnChange },
  ): Promise<AsyncDisposable> {
    const watches = Array.from(
      { length: count },
      () => this.#client.watch({ prefix }),
    );
    await Promise.all(watches.map((watch) => watch.started()));
    const taken = watches.map(async (watch) => {
      for await (const { key } of watch) onChange(key);
    });
    return {
      async [Symbol.asyncDispose]() {
        for (const watch of watches) await watch[Symbol.asyncDispose]();
        await Promise.allSettled(taken);
      },
    };
  }
}

interface PlainEntry {
  readonly key: Uint8Array;
  readonly mod_revision: string;
}

interface PlainWatchResponse {
  readonly created?: object | null;
  readonly events?:
    | { readonly events: readonly { entry: PlainEntry }[] }
    | null;
}

/** Plain calls: to the leader, but for reads that any node may answer. */
export class DkvUnary implements System, Disposable {
  readonly name = "dkv-unary";
  readonly #addresses: readonly string[];
  readonly #all: readonly Calls[];
  readonly #leaderAddress: () => Promise<string>;
  #leader: Calls;
  #next = 0;

  /** `leader` looks up the address of the node that leads. */
  constructor(
    addresses: readonly [string, ...string[]],
    { leader }: { leader: () => Promise<string> },
  ) {
    const methods = methodsOf(["../proto/kvstore.proto"]);
    const [first, ...others] = addresses;
    this.#leader = new Calls(first, methods);
    this.#all = [
      this.#leader,
      ...others.map((address) => new Calls(address, methods)),
    ];
    this.#addresses = addresses;
    this.#leaderAddress = leader;
  }

  async prepare(): Promise<void> {
    const address = await this.#leaderAddress();
    const leader = this.#all[this.#addresses.indexOf(address)];
    if (leader === undefined) throw unexpected(`"who leads?": ${address}`);
    this.#leader = leader;
  }

  put(key: string, value: Uint8Array): Promise<unknown> {
    const request = { key: Buffer.from(key), value };
    return this.#leader.unary("KeyValue.Put", request);
  }

  get(key: string): Promise<unknown> {
    return this.#leader.unary("KeyValue.Get", { key: Buffer.from(key) });
  }

  getSerializable(key: string): Promise<unknown> {
    const calls = this.#all[this.#next++ % this.#all.length] ?? this.#leader;
    const request = { key: Buffer.from(key), serializable: true };
    return calls.unary("KeyValue.Get", request);
  }

  async update(key: string, value: Uint8Array): Promise<void> {
    const bytes = Buffer.from(key);
    const found = await this.#leader.unary<{ entry: PlainEntry | null }>(
      "KeyValue.Get",
      { key: bytes },
    );
    let modRevision = found.entry?.mod_revision ?? "0";
    for (;;) {
      const { succeeded, results } = await this.#leader.unary<{
        succeeded: boolean;
        results: { get: { entry: PlainEntry | null } | null }[];
      }>("KeyValue.Transact", {
        compares: [{ key: bytes, mod_revision: modRevision }],
        then: [{ put: { key: bytes, value } }],
        else: [{ get: { key: bytes } }],
      });
      if (succeeded) return;
      modRevision = results[0]?.get?.entry?.mod_revision ?? "0";
    }
  }

  async list(prefix: string): Promise<number> {
    const range = { start: Buffer.from(prefix), end: prefixEnd(prefix) };
    const pages = await this.#leader.all<{ entries: PlainEntry[] }>(
      "KeyValue.List",
      { range },
    );
    return pages.reduce((sum, { entries }) => sum + entries.length, 0);
  }

  async watch(
    prefix: string,
    { count, onChange }: { count: number; onChange: OnChange },
  ): Promise<AsyncDisposable> {
    const range = { start: Buffer.from(prefix), end: prefixEnd(prefix) };
    let created = 0;
    const stream = this.#leader.duplex<PlainWatchResponse>(
      "KeyValue.Watch",
      (response) => {
        if (response.created) created++;
        for (const { entry } of response.events?.events ?? []) {
          onChange(Buffer.from(entry.key).toString());
        }
      },
    );
    for (let id = 1; id <= count; id++) {
      stream.send({ create: { watch_id: id, range } });
    }
    await eventually("every watch is open", () => created === count);
    return {
      [Symbol.asyncDispose]() {
        stream[Symbol.dispose]();
        return Promise.resolve();
      },
    };
  }

  [Symbol.dispose](): void {
    for (const calls of this.#all) calls[Symbol.dispose]();
  }
}

/** Starts three nodes with the settings that a cluster has by default. */
export async function startDkv(): Promise<Deployment> {
  await using stack = new AsyncDisposableStack();
  const cluster = stack.use(await TestCluster.start());
  const client = stack.use(
    await connect(cluster.addresses, { timeoutMs: TIMEOUT_MS }),
  );
  const leader = async () => cluster.address(await cluster.leader());
  const addresses = cluster.addresses as [string, ...string[]];
  const unary = stack.use(new DkvUnary(addresses, { leader }));
  const { version } = await cluster.call<{ version: string }>(
    await cluster.leader(),
    "Cluster.Status",
    {},
  );
  const library = new DkvLibrary(client);
  const owned = stack.move();
  return {
    version: `dkv ${version}`,
    systems: [library, unary],
    bulk: library,
    pids: cluster.ids.map((id) => cluster.node(id).pid),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

function unexpected(what: string): DkvError {
  return new DkvError("INTERNAL", `Unexpected answer to ${what}`);
}
