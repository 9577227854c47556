/**
 * The client processes of a round: starts them, converts what they write down to the harness's
 * clock, kills one now and then, and cuts their connections. Used by `round.ts` and `nemesis.ts`.
 *
 * ```text
 *   harness ─ orders ─▶ worker.ts ─▶ proxy ─▶ node1     a proxy for each worker's place
 *       ◀── records ──┘         └─▶ proxy ─▶ node2      and node
 * ```
 *
 * A worker that was killed is replaced by one with another name, in the same place.
 *
 * @module
 */

import { assert, unreachable } from "../../errors.ts";
import { ENVIRONMENT } from "../../launch.ts";
import type { TestCluster } from "../cluster.ts";
import { eventually } from "../cluster.ts";
import { Proxy } from "../proxy.ts";
import { ClockDifference } from "./clock.ts";
import { BANKS, COUNTERS, REGISTERS, ROOT } from "./record.ts";
import type { TortureRecord } from "./record.ts";
import type { Line, Order } from "./worker.ts";

/** Clients of a worker: as many that may use any node as that use one alone. */
const FREE = 2;
const BOUND = 2;
const CLIENTS = FREE + BOUND;
const PAUSE_MS_MAX = 80;
/** How well the difference of the clocks must be known. */
const UNCERTAINTY_MS_MAX = 20;
const PINGS_MAX = 50;
const START_MS_MAX = 20_000;
/** Keys change this often, so that no object has more operations than can be searched. */
const EPOCH_MS = 6000;
const ERROR_LINES = 30;

const SOURCE = decodeURIComponent(new URL("../..", import.meta.url).pathname);

/** Options of {@linkcode Crowd.start}. */
export interface CrowdOptions {
  readonly cluster: TestCluster;
  /** How many processes. */
  readonly workers: number;
  /** Begins the names of workers, which are unique in a run. */
  readonly name: string;
  readonly seed: number;
  readonly onRecord: (record: TortureRecord) => void;
  /** Called with the time of each write that was acknowledged. */
  readonly onAcknowledged: (atMs: number) => void;
}

/** All client processes. */
export class Crowd implements AsyncDisposable {
  readonly #options: CrowdOptions;
  /** For each place the ways to the nodes. */
  readonly #proxies: readonly (readonly Proxy[])[];
  readonly #workers: (Worker | null)[];
  #started = 0;
  #epoch = 0;
  #closed = false;
  readonly #timer: ReturnType<typeof setInterval>;

  private constructor(options: CrowdOptions) {
    this.#options = options;
    const places = Array.from({ length: options.workers }, (_, at) => at);
    this.#proxies = places.map(() =>
      options.cluster.addresses.map((address) => new Proxy(address))
    );
    this.#workers = places.map(() => null);
    this.#timer = setInterval(() => this.#nextEpoch(), EPOCH_MS);
  }

  static async start(options: CrowdOptions): Promise<Crowd> {
    const crowd = new Crowd(options);
    try {
      await Promise.all(crowd.#workers.map((_, place) => crowd.#spawn(place)));
    } catch (error) {
      await crowd[Symbol.asyncDispose]();
      throw error;
    }
    return crowd;
  }

  /** How many places there are. */
  get places(): number {
    return this.#workers.length;
  }

  /** Ends a process at once, and starts another in its place. */
  async replace(place: number): Promise<void> {
    const worker = this.#workers[place];
    assert(worker !== undefined && worker !== null, `No worker at ${place}`);
    await this.#kill(worker);
    await this.#spawn(place);
  }

  /** Ends every process at once: what has no answer stays without. */
  async killAll(): Promise<void> {
    clearInterval(this.#timer);
    await Promise.all(this.#all().map((worker) => this.#kill(worker)));
  }

  /** Lets no bytes through, in one direction or both: requests or answers vanish. */
  cut(place: number, way: "requests" | "answers" | "connections"): void {
    for (const proxy of this.#proxies[place] ?? []) {
      switch (way) {
        case "requests":
          proxy.pause("forward");
          break;
        case "answers":
          proxy.pause("back");
          break;
        case "connections":
          proxy.refuse();
          break;
        default:
          unreachable(way);
      }
    }
  }

  /** Ends {@linkcode cut}. Connections that hung are closed, so what was on them stays unanswered. */
  mend(place: number): void {
    for (const proxy of this.#proxies[place] ?? []) {
      proxy.drop();
      proxy.resume();
      proxy.accept();
    }
  }

  /** Waits until every client had one more write acknowledged, and has ended. */
  async settle(timeoutMs: number): Promise<void> {
    clearInterval(this.#timer);
    for (const worker of this.#all()) worker.order({ type: "settle" });
    await this.#every("every client is served again", {
      timeoutMs,
      count: (worker) => worker.settled,
      of: CLIENTS,
    });
  }

  /** Waits until every watch has delivered the last write. */
  async watched(timeoutMs: number): Promise<void> {
    await this.#every("every watch is complete", {
      timeoutMs,
      count: (worker) => worker.watched,
      of: watchesOf(0).filter((prefix) => prefix !== null).length,
    });
  }

  /** What ended a worker that nobody killed, if one has. */
  get failure(): string | null {
    for (const worker of this.#all()) {
      if (worker.failure !== null) return worker.failure;
    }
    return null;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    clearInterval(this.#timer);
    await Promise.all(this.#all().map((worker) => worker.kill()));
    for (const proxy of this.#proxies.flat()) {
      await proxy[Symbol.asyncDispose]();
    }
  }

  async #kill(worker: Worker): Promise<void> {
    await worker.kill();
    this.#options.onRecord({ t: "killed", worker: worker.name });
  }

  #all(): Worker[] {
    return this.#workers.filter((worker) => worker !== null);
  }

  async #every(
    what: string,
    { timeoutMs, count, of }: {
      timeoutMs: number;
      count: (worker: Worker) => number;
      of: number;
    },
  ): Promise<void> {
    const late = () =>
      this.#all().filter((worker) => count(worker) < of)
        .map((worker) => `${worker.name} ${count(worker)} of ${of}`);
    try {
      await eventually(what, () => late().length === 0, timeoutMs);
    } catch (error) {
      throw new Error(`${(error as Error).message}: ${late().join(", ")}`);
    }
  }

  async #spawn(place: number): Promise<void> {
    if (this.#closed) return;
    const { name, seed } = this.#options;
    const proxies = this.#proxies[place] ?? [];
    const endpoints = proxies.map(({ address }) => address);
    const worker = new Worker(`${name}w${++this.#started}`, {
      endpoints,
      onRecord: this.#options.onRecord,
      onAcknowledged: this.#options.onAcknowledged,
    });
    this.#workers[place] = worker;
    await worker.synchronize();
    worker.order({
      type: "start",
      name: worker.name,
      seed,
      endpoints,
      free: FREE,
      bound: Array.from(
        { length: BOUND },
        (_, at) => endpoints[(BOUND * place + at) % endpoints.length]!,
      ),
      pauseMsMax: PAUSE_MS_MAX,
      watches: watchesOf(place),
      epoch: this.#epoch,
    });
  }

  #nextEpoch(): void {
    this.#epoch++;
    for (const worker of this.#all()) {
      worker.order({ type: "epoch", epoch: this.#epoch });
      // The more often they are compared, the better the difference of the clocks is known.
      worker.ping();
    }
  }
}

/** Everything, through any node; and a part of it, through the node that a client is bound to. */
function watchesOf(place: number): readonly (string | null)[] {
  const parts = [BANKS, COUNTERS, REGISTERS];
  return [ROOT, null, parts[place % parts.length]!];
}

/** One client process. */
class Worker {
  readonly name: string;
  /** Clients that are done, */
  settled = 0;
  /** and watches. */
  watched = 0;
  /** Why it ended, if nobody killed it. */
  failure: string | null = null;
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #ended: Promise<void>;
  readonly #clock = new ClockDifference();
  readonly #options: Pick<CrowdOptions, "onRecord" | "onAcknowledged">;
  /** When each ping was sent that is not answered. */
  readonly #pings: number[] = [];
  #onPong: () => void = () => {};
  /** Operations that write, not answered yet. */
  readonly #writes = new Set<string>();
  readonly #errors: string[] = [];
  #killed = false;

  constructor(
    name: string,
    options:
      & Pick<CrowdOptions, "onRecord" | "onAcknowledged">
      & { endpoints: readonly string[] },
  ) {
    this.name = name;
    this.#options = options;
    this.#child = new Deno.Command("deno", {
      args: workerArgs(options.endpoints),
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#input = this.#child.stdin.getWriter();
    this.#ended = this.#run().catch((error: Error) => {
      this.failure = `${name}: ${error.stack}`;
    });
  }

  order(order: Order): void {
    const bytes = new TextEncoder().encode(`${JSON.stringify(order)}\n`);
    // Whoever has ended says so elsewhere.
    this.#input.write(bytes).catch(() => {});
  }

  ping(): void {
    this.#pings.push(performance.now());
    this.order({ type: "ping" });
  }

  /** Compares clocks until their difference is known well enough. */
  async synchronize(): Promise<void> {
    const endMs = performance.now() + START_MS_MAX;
    for (let pings = 0; pings < PINGS_MAX; pings++) {
      const pong = Promise.withResolvers<boolean>();
      this.#onPong = () => pong.resolve(true);
      const timer = setTimeout(
        () => pong.resolve(false),
        endMs - performance.now(),
      );
      this.ping();
      const ended = this.#ended.then(() => false);
      const answered = await Promise.race([pong.promise, ended]);
      clearTimeout(timer);
      assert(answered, `${this.name} does not answer: ${this.#lastErrors()}`);
      // The first answer comes when the process has started, and says little.
      const enough = this.#clock.uncertaintyMs < UNCERTAINTY_MS_MAX / 10;
      if (pings > 5 && enough) return;
    }
    const { uncertaintyMs } = this.#clock;
    assert(
      uncertaintyMs < UNCERTAINTY_MS_MAX,
      `${uncertaintyMs} ms of the clock of ${this.name} are unknown`,
    );
  }

  async kill(): Promise<void> {
    this.#killed = true;
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It has ended.
    }
    await this.#ended;
  }

  async #run(): Promise<void> {
    await Promise.all([
      this.#read(this.#child.stdout, (line) => {
        this.#receive(JSON.parse(line) as Line);
      }),
      this.#read(this.#child.stderr, (line) => {
        this.#errors.push(line);
        if (this.#errors.length > ERROR_LINES) this.#errors.shift();
      }),
    ]);
    const { code, signal } = await this.#child.status;
    this.#input.close().catch(() => {});
    if (this.#killed) return;
    const how = signal ?? `exit code ${code}`;
    this.failure = `${this.name} ended with ${how}: ${this.#lastErrors()}`;
  }

  /** Line by line; a line that was cut off by a kill is dropped. */
  async #read(
    stream: ReadableStream<Uint8Array<ArrayBuffer>>,
    onLine: (line: string) => void,
  ): Promise<void> {
    let rest = "";
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      const lines = `${rest}${text}`.split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) onLine(line);
    }
  }

  #receive(line: Line): void {
    const { onRecord } = this.#options;
    switch (line.t) {
      case "pong":
        this.#pong(line.at);
        break;
      case "call": {
        const { type } = line.request;
        if (type !== "get" && type !== "balances") this.#writes.add(line.op);
        onRecord({ ...line, at: this.#clock.earliest(line.at) });
        break;
      }
      case "return": {
        const at = this.#clock.latest(line.at);
        const isWrite = this.#writes.delete(line.op);
        if (isWrite && line.outcome.type === "ok") {
          this.#options.onAcknowledged(at);
        }
        onRecord({ ...line, at });
        break;
      }
      case "watch":
      case "events":
      case "watchEnded":
        onRecord(line);
        break;
      case "settled":
        this.settled++;
        break;
      case "watched":
        this.watched++;
        break;
      default:
        unreachable(line);
    }
  }

  #pong(theirsMs: number): void {
    const sentMs = this.#pings.shift();
    assert(sentMs !== undefined, `${this.name} answers what nobody asked`);
    const receivedMs = performance.now();
    this.#clock.note({ sentMs, theirsMs, receivedMs });
    this.#onPong();
  }

  #lastErrors(): string {
    return this.#errors.join("\n");
  }
}

/** Under the permissions that a program with the client library needs. */
function workerArgs(endpoints: readonly string[]): string[] {
  return [
    "run",
    "--quiet",
    "--no-prompt",
    `--config=${SOURCE}deno.json`,
    `--lock=${SOURCE}deno.lock`,
    "--frozen",
    "--cached-only",
    `--allow-net=${endpoints.join(",")}`,
    `--allow-read=${`${SOURCE}proto`.replaceAll(",", ",,")}`,
    `--allow-env=${ENVIRONMENT.join(",")}`,
    `${SOURCE}tests/torture/worker.ts`,
  ];
}
