/**
 * One round of torture: a fresh cluster of real processes, clients and a nemesis for a while, then
 * everything is healed, and what was written down is judged. Used by `torture.ts` and
 * `torture_test.ts`.
 *
 * ```text
 *   start ▸ load and faults ▸ heal ▸ each client is served ▸ last write ▸ replicas are equal
 *         ▸ watches are complete ▸ each node tells its history ▸ judge
 * ```
 *
 * @module
 */

import type { Client } from "../../client.ts";
import type { Settings } from "../../config.ts";
import { eventually, TestCluster } from "../cluster.ts";
import { tempDir } from "../needs.ts";
import type { Random } from "../sim/random.ts";
import { SmallDisks } from "../small_disks.ts";
import { Availability } from "./availability.ts";
import { Crowd } from "./crowd.ts";
import { judge, type Judgement, readRound } from "./judge.ts";
import { Memory } from "./memory.ts";
import { type Deck, type FaultKind, Nemesis, sleep } from "./nemesis.ts";
import {
  BANKS,
  COUNTER_KEYS,
  COUNTERS,
  END,
  type Event,
  REGISTERS,
  type Request,
  ROOT,
  type TortureRecord,
} from "./record.ts";
import { Witness } from "./witness.ts";

/** How to run a round. */
export interface RoundOptions {
  readonly round: number;
  readonly nodes: number;
  readonly settings: Partial<Settings>;
  /** Put each node on a small file system, so that its disk can be full. */
  readonly smallDisks: boolean;
  readonly loadMs: number;
  readonly seed: number;
  readonly random: Random;
  readonly deck: Deck;
  readonly isWanted: (kind: FaultKind) => boolean;
  readonly onRecord: (record: TortureRecord) => void;
  /** Takes what must be undone, whatever happens; the caller disposes of it. */
  readonly stack: AsyncDisposableStack;
  /** Ends the load early. */
  readonly signal: AbortSignal;
}

/** What a round has come to. */
export interface RoundResult {
  readonly judgement: Judgement;
  readonly faults: ReadonlyMap<FaultKind, number>;
  readonly longestMs: number;
  readonly longestUntouchedMs: number;
  /** Of a node; null where the system does not tell. */
  readonly highestMib: number | null;
  readonly elections: number;
  readonly snapshots: number;
  /** The nodes' last lines. */
  readonly output: string;
}

const WORKERS = 3;
const DISK_BYTES = 256 * 1024 * 1024;
/** After everything is healed, each client must be served within this. */
const SERVED_MS_MAX = 20_000;
const WATCHED_MS_MAX = 20_000;
const HISTORY_MS_MAX = 60_000;
const EVENTS_PER_RECORD = 500;
/** What a node may take. */
export const MEMORY_MIB_MAX = 512;

/** Runs one round. Whatever goes wrong is a violation in the result; it rejects if it cannot start. */
export async function runRound(options: RoundOptions): Promise<RoundResult> {
  const { stack, round, nodes, settings } = options;
  const records: TortureRecord[] = [];
  const record = (one: TortureRecord) => {
    records.push(one);
    options.onRecord(one);
  };
  record({ t: "round", round, nodes, settings });
  const stage = await Stage.start(options, record);
  stack.use(stage);
  await stage.load();
  await stage.finish();
  const result = stage.result(judge(readRound(records)));
  record({ t: "end", round });
  return result;
}

/** All that runs in a round. */
class Stage implements AsyncDisposable {
  readonly #options: RoundOptions;
  readonly #record: (record: TortureRecord) => void;
  readonly #cluster: TestCluster;
  readonly #crowd: Crowd;
  readonly #nemesis: Nemesis;
  readonly #memory: Memory;
  readonly #witness: Witness;
  readonly #availability: Availability;
  readonly #faults: Map<FaultKind, number>;
  readonly #clients: Client[] = [];
  #marks = 0;

  private constructor(
    parts: {
      options: RoundOptions;
      record: (record: TortureRecord) => void;
      cluster: TestCluster;
      crowd: Crowd;
      disks: SmallDisks | null;
      availability: Availability;
    },
  ) {
    const { options, record, cluster, crowd, disks, availability } = parts;
    this.#options = options;
    this.#record = record;
    this.#cluster = cluster;
    this.#crowd = crowd;
    this.#availability = availability;
    const faults = new Map<FaultKind, number>();
    this.#faults = faults;
    const onViolation = (text: string) => this.#violate("faults", text);
    this.#nemesis = new Nemesis({
      cluster,
      crowd,
      disks,
      availability,
      random: options.random,
      onViolation,
      onStart: (id) => this.#witness.listen(id),
      onFault: (kind, text) => {
        faults.set(kind, (faults.get(kind) ?? 0) + 1);
        record({ t: "fault", at: performance.now(), kind, text });
      },
      onMore: (kind, text) => {
        record({ t: "fault", at: performance.now(), kind, text });
      },
    });
    this.#witness = new Witness(cluster, {
      onViolation: (text) => this.#violate("nodes are sound", text),
      onLine: (node, text) =>
        record({ t: "line", at: performance.now(), node, text }),
      isDamaged: (id) => this.#nemesis.damaged.has(id),
    });
    for (const id of cluster.ids) this.#witness.listen(id);
    this.#memory = new Memory(() =>
      cluster.running().map((id) => cluster.node(id).pid)
    );
  }

  /** Starts everything; what has been started is in the stack of the options at once. */
  static async start(
    options: RoundOptions,
    record: (record: TortureRecord) => void,
  ): Promise<Stage> {
    const { stack, nodes, settings, seed, round } = options;
    const ids = Array.from({ length: nodes }, (_, at) => `node${at + 1}`);
    let disks: SmallDisks | null = null;
    if (options.smallDisks) {
      const dir = stack.use(await tempDir());
      disks = stack.use(new SmallDisks(dir.path, { ids, bytes: DISK_BYTES }));
    }
    const small = disks;
    const starting = TestCluster.start({
      nodes,
      proxied: true,
      settings,
      ...(small === null ? {} : { dataDir: (id) => small.dataDir(id) }),
    });
    // Even one that is still starting when everything ends.
    stack.defer(async () => {
      const cluster = await starting.catch(() => null);
      await cluster?.[Symbol.asyncDispose]();
    });
    const cluster = await starting;
    const availability = new Availability(nodes, performance.now());
    const crowd = stack.use(
      await Crowd.start({
        cluster,
        workers: WORKERS,
        name: `r${round}`,
        seed,
        onRecord: record,
        onAcknowledged: (atMs) => availability.acknowledged(atMs),
      }),
    );
    const parts = { options, record, cluster, crowd, disks, availability };
    return new Stage(parts);
  }

  /** Clients work and the nemesis does harm; afterwards everything is whole. */
  async load(): Promise<void> {
    const { deck, isWanted, loadMs, signal } = this.#options;
    const faults = this.#nemesis.run(deck, isWanted);
    await Promise.race([faults, sleep(loadMs, signal)]);
    this.#nemesis.end();
    await faults;
    await this.#try("everything starts again", () => this.#nemesis.heal());
  }

  /** Waits for everything to come to its end, and asks each node what it knows. */
  async finish(): Promise<void> {
    const { ids } = this.#cluster;
    const settled = await this.#try(
      "clients are served again",
      () => this.#crowd.settle(SERVED_MS_MAX),
    );
    this.#availability.acknowledged(performance.now());
    const { failure } = this.#crowd;
    if (failure !== null) this.#violate("clients live", failure);
    // Nobody may go on behind the end of the history.
    if (!settled) await this.#crowd.killAll();
    const marked = await this.#try(
      "the last write is acknowledged",
      async () => {
        // The last key of all comes last: whoever has seen it has seen everything.
        await this.#mark([BANKS, COUNTERS, REGISTERS].map((p) => `${p}${END}`));
        await this.#mark([`${ROOT}${END}`]);
      },
    );
    await this.#try("replicas are equal", () => this.#cluster.agreed());
    if (!marked) return;
    if (settled) {
      await this.#try(
        "watches are complete",
        () => this.#crowd.watched(WATCHED_MS_MAX),
      );
    }
    for (const id of ids) {
      await this.#try("each node tells its history", () => this.#tell(id));
    }
    const highest = this.#memory.highestMib ?? 0;
    if (highest > MEMORY_MIB_MAX) {
      const text = `a node took ${highest} MiB, at most ${MEMORY_MIB_MAX}`;
      this.#violate("memory is bounded", text);
    }
  }

  result(judgement: Judgement): RoundResult {
    return {
      judgement,
      faults: this.#faults,
      longestMs: this.#availability.longestMs,
      longestUntouchedMs: this.#availability.longestUntouchedMs,
      highestMib: this.#memory.highestMib,
      elections: this.#witness.elections,
      snapshots: this.#witness.snapshots,
      output: this.#cluster.output(),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#nemesis.close();
    for (const client of this.#clients) await client.close();
    await this.#memory[Symbol.asyncDispose]();
  }

  /** What goes wrong is written down, and the rest goes on. */
  async #try(check: string, run: () => Promise<unknown>): Promise<boolean> {
    try {
      await run();
      return true;
    } catch (error) {
      this.#violate(check, (error as Error).message);
      return false;
    }
  }

  #violate(check: string, text: string): void {
    this.#record({ t: "violation", check, text });
  }

  async #connect(endpoints: readonly string[]): Promise<Client> {
    // grpc-js reads the environment when it is imported: see needs.ts.
    const { connect } = await import("../../client.ts");
    const client = await connect(endpoints);
    this.#clients.push(client);
    return client;
  }

  async #mark(keys: readonly string[]): Promise<void> {
    const op = `r${this.#options.round}h.0-${++this.#marks}`;
    const request: Request = { type: "mark", keys, value: op };
    const kv = await this.#connect(this.#cluster.addresses);
    this.#record({ t: "call", op, at: performance.now(), request });
    const { revision, results } = await kv.transact({
      then: keys.map((key) => ({ type: "put", key, value: op })),
    });
    const [put] = results;
    const version = put?.type === "put" ? put.version : 0;
    const answer = { type: "put", revision, version } as const;
    const at = performance.now();
    const outcome = { type: "ok", answer } as const;
    this.#record({ t: "return", op, at, outcome });
  }

  /** Everything that one node knows of what clients wrote. */
  async #tell(id: string): Promise<void> {
    const kv = await this.#connect([this.#cluster.address(id)]);
    const events: Event[] = [];
    const watch = kv.watch({ prefix: ROOT, from: 1 });
    let isComplete = false;
    const reading = (async () => {
      for await (const { key, revision, entry } of watch) {
        const value = entry === null ? null : entry.text();
        events.push([revision, key, value, entry?.version ?? 0]);
        if (key === `${ROOT}${END}`) break;
      }
      isComplete = true;
    })();
    try {
      const what = `${id} tells all of its history`;
      const end = eventually(what, () => isComplete, HISTORY_MS_MAX);
      // Whichever is first: a watch that fails need not be waited for.
      await Promise.race([end, reading]);
    } finally {
      await watch.return();
      for (let at = 0; at < events.length; at += EVENTS_PER_RECORD) {
        const some = events.slice(at, at + EVENTS_PER_RECORD);
        this.#record({ t: "history", node: id, events: some });
      }
    }
    for (const key of COUNTER_KEYS) {
      const entry = await kv.get(key);
      this.#record({
        t: "final",
        node: id,
        key,
        value: entry?.text() ?? "",
        version: entry?.version ?? 0,
      });
    }
  }
}
