/**
 * etcd as the bench sees it: three processes with their defaults, and plain calls through grpc-js,
 * one at a time or 64 puts in a transaction. Used by `plan.ts`.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { DkvError } from "../errors.ts";
import { eventually } from "../tests/cluster.ts";
import { tempDir } from "../tests/needs.ts";
import { Calls, methodsOf } from "./calls.ts";
import { freePorts, printed, Process } from "./processes.ts";
import {
  type Deployment,
  type OnChange,
  prefixEnd,
  type System,
} from "./system.ts";

const NODES = 3;
const START_MS_MAX = 30_000;
const STATUS_MS_MAX = 2000;
/** Puts in a transaction. */
const TRANSACTION_PUTS = 64;

interface EtcdEntry {
  readonly key: Uint8Array;
  readonly mod_revision: string;
}

interface EtcdWatchResponse {
  readonly created: boolean;
  readonly events: readonly { readonly kv: EtcdEntry }[];
}

/** Connections to all members. */
class Members {
  readonly all: readonly Calls[];
  leader: Calls;

  constructor(all: readonly [Calls, ...Calls[]]) {
    this.all = all;
    [this.leader] = all;
  }

  /** Looks up who leads; every member must know the same. */
  async findLeader(): Promise<void> {
    const states = await Promise.all(
      this.all.map((calls) =>
        calls.unary<{ header: { member_id: string }; leader: string }>(
          "Maintenance.Status",
          {},
          STATUS_MS_MAX,
        )
      ),
    );
    const leaders = new Set(states.map(({ leader }) => leader));
    const leader = this.all[
      states.findIndex(({ header, leader }) => header.member_id === leader)
    ];
    if (leaders.size > 1 || leader === undefined) {
      throw new DkvError("NO_LEADER", "etcd has no leader");
    }
    this.leader = leader;
  }
}

/** Plain calls: to the leader, but for reads that any member may answer. */
export class EtcdUnary implements System {
  readonly name = "etcd";
  readonly #members: Members;
  #next = 0;

  constructor(members: Members) {
    this.#members = members;
  }

  prepare(): Promise<void> {
    return this.#members.findLeader();
  }

  put(key: string, value: Uint8Array): Promise<unknown> {
    return this.#members.leader.unary("KV.Put", {
      key: Buffer.from(key),
      value,
    });
  }

  get(key: string): Promise<unknown> {
    return this.#members.leader.unary("KV.Range", { key: Buffer.from(key) });
  }

  getSerializable(key: string): Promise<unknown> {
    const { all, leader } = this.#members;
    const calls = all[this.#next++ % all.length] ?? leader;
    const request = { key: Buffer.from(key), serializable: true };
    return calls.unary("KV.Range", request);
  }

  async update(key: string, value: Uint8Array): Promise<void> {
    const bytes = Buffer.from(key);
    const found = await this.#members.leader.unary<{ kvs: EtcdEntry[] }>(
      "KV.Range",
      { key: bytes },
    );
    let modRevision = found.kvs[0]?.mod_revision ?? "0";
    for (;;) {
      const { succeeded, responses } = await this.#members.leader.unary<{
        succeeded: boolean;
        responses: { response_range: { kvs: EtcdEntry[] } | null }[];
      }>("KV.Txn", {
        compare: [{
          result: "EQUAL",
          target: "MOD",
          key: bytes,
          mod_revision: modRevision,
        }],
        success: [{ request_put: { key: bytes, value } }],
        failure: [{ request_range: { key: bytes } }],
      });
      if (succeeded) return;
      modRevision = responses[0]?.response_range?.kvs[0]?.mod_revision ?? "0";
    }
  }

  async list(prefix: string): Promise<number> {
    const { kvs } = await this.#members.leader.unary<{ kvs: EtcdEntry[] }>(
      "KV.Range",
      { key: Buffer.from(prefix), range_end: prefixEnd(prefix) },
    );
    return kvs.length;
  }

  async watch(
    prefix: string,
    { count, onChange }: { count: number; onChange: OnChange },
  ): Promise<AsyncDisposable> {
    let created = 0;
    const stream = this.#members.leader.duplex<EtcdWatchResponse>(
      "Watch.Watch",
      (response) => {
        if (response.created) created++;
        for (const { kv } of response.events) {
          onChange(Buffer.from(kv.key).toString());
        }
      },
    );
    const key = Buffer.from(prefix);
    const create_request = { key, range_end: prefixEnd(prefix) };
    for (let at = 0; at < count; at++) stream.send({ create_request });
    await eventually("every watch is open", () => created === count);
    return {
      [Symbol.asyncDispose]() {
        stream[Symbol.dispose]();
        return Promise.resolve();
      },
    };
  }
}

/** A put that waits for the others of its transaction. */
interface Waiting {
  readonly key: string;
  readonly value: Uint8Array;
  readonly resolve: (outcome: void) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * What a program can do that has many puts at hand: those that are issued in one turn of the event
 * loop travel together, at most 64 in a transaction. Their keys must differ.
 */
export class EtcdTransactions implements System {
  readonly name = "etcd-txn";
  readonly #members: Members;
  #waiting: Waiting[] = [];

  constructor(members: Members) {
    this.#members = members;
  }

  prepare(): Promise<void> {
    return this.#members.findLeader();
  }

  put(key: string, value: Uint8Array): Promise<unknown> {
    return new Promise<void>((resolve, reject) => {
      // A transaction that is not full leaves at the end of the turn.
      if (this.#waiting.length === 0) setImmediate(() => this.#send());
      this.#waiting.push({ key, value, resolve, reject });
    });
  }

  #send(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (let at = 0; at < waiting.length; at += TRANSACTION_PUTS) {
      void this.#transact(waiting.slice(at, at + TRANSACTION_PUTS));
    }
  }

  async #transact(puts: readonly Waiting[]): Promise<void> {
    const success = puts.map(({ key, value }) => ({
      request_put: { key: Buffer.from(key), value },
    }));
    try {
      await this.#members.leader.unary("KV.Txn", { success });
      for (const { resolve } of puts) resolve();
    } catch (error) {
      for (const { reject } of puts) reject(error);
    }
  }
}

/** Starts three members; null if etcd is not installed. */
export async function startEtcd(): Promise<Deployment | null> {
  const text = await printed("etcd", ["--version"]);
  if (text === null) return null;
  const [, version = "?"] = /etcd Version: (\S+)/.exec(text) ?? [];
  await using stack = new AsyncDisposableStack();
  const dir = stack.use(await tempDir());
  const ports = freePorts(2 * NODES);
  const members = Array.from({ length: NODES }, (_, at) => ({
    name: `etcd${at + 1}`,
    address: `127.0.0.1:${ports[2 * at]}`,
    peer: `http://127.0.0.1:${ports[2 * at + 1]}`,
  }));
  const cluster = members.map(({ name, peer }) => `${name}=${peer}`).join(",");
  const processes = members.map((member) =>
    stack.use(
      new Process(
        "etcd",
        [
          ...argsOf(member),
          `--initial-cluster=${cluster}`,
          `--data-dir=${dir.path}/${member.name}`,
        ],
        member.name,
      ),
    )
  );
  const methods = methodsOf(["../proto/etcd/rpc.proto"]);
  const connections = new Members(
    members.map(({ address }) => stack.use(new Calls(address, methods))) as [
      Calls,
      ...Calls[],
    ],
  );
  const [first] = processes;
  await first?.ready(
    () => connections.findLeader().then(() => true),
    START_MS_MAX,
  );
  const transactions = new EtcdTransactions(connections);
  const owned = stack.move();
  return {
    version: `etcd ${version}`,
    systems: [new EtcdUnary(connections), transactions],
    bulk: transactions,
    pids: processes.map(({ pid }) => pid),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

function argsOf(
  member: { name: string; address: string; peer: string },
): string[] {
  const { name, address, peer } = member;
  return [
    `--name=${name}`,
    `--listen-client-urls=http://${address}`,
    `--advertise-client-urls=http://${address}`,
    `--listen-peer-urls=${peer}`,
    `--initial-advertise-peer-urls=${peer}`,
    "--initial-cluster-state=new",
    "--initial-cluster-token=bench",
    // The largest that etcd accepts without a warning: large values must not fill it.
    "--quota-backend-bytes=8589934592",
    "--logger=zap",
    "--log-outputs=stderr",
    "--log-level=warn",
  ];
}
