/**
 * A client process of `deno task torture`: several clients that each do one thing after the other,
 * and watches, all through the client library. Started and told what to do by `crowd.ts`, line by
 * line in JSON, over its standard input; answers with records over its standard output.
 *
 * The line of a call is out before the call is made, so of a process that is killed it is known what
 * it may have done.
 *
 * @module
 */

import { type Client, connect, DkvError, type Entry } from "../../client.ts";
import { unreachable } from "../../errors.ts";
import { Random } from "../sim/random.ts";
import {
  type Account,
  accountKey,
  ACCOUNTS,
  type Answer,
  balanceOf,
  BANKS,
  COUNTER_KEYS,
  END,
  type Event,
  type Outcome,
  REGISTERS,
  type Request,
  type WorkerRecord,
} from "./record.ts";

/** What a worker is told. */
export type Order =
  | { readonly type: "ping" }
  | {
    readonly type: "start";
    readonly name: string;
    readonly seed: number;
    readonly endpoints: readonly string[];
    /** Clients that may use any node, as they like: the leader, mostly. */
    readonly free: number;
    /** For each of the others the one node that it talks to, so that all nodes are asked. */
    readonly bound: readonly string[];
    /** Between two operations of a client, at most. */
    readonly pauseMsMax: number;
    /** What each client watches beside its work, if anything. */
    readonly watches: readonly (string | null)[];
    readonly epoch: number;
  }
  /** Keys of registers and banks change. */
  | { readonly type: "epoch"; readonly epoch: number }
  /** Each client gets one more write acknowledged, and ends. */
  | { readonly type: "settle" };

/** What a worker says. */
export type Line =
  | WorkerRecord
  | { readonly t: "pong"; readonly at: number }
  | { readonly t: "settled"; readonly client: string }
  /** A watch has seen the last write. */
  | { readonly t: "watched"; readonly watch: string };

const REGISTER_KEYS = 3;
/** Of a hundred operations on registers: by clients that may go anywhere, */
const READS = 40;
/** and by those that ask one node, which would tell old news first. */
const READS_BOUND = 75;
const TIMEOUT_MS_MIN = 1000;
const TIMEOUT_MS_MAX = 5000;
const CONNECT_PAUSE_MS = 200;
/** Changes are told in groups. */
const FLUSH_MS = 50;

const encoder = new TextEncoder();

function say(line: Line): void {
  let bytes = encoder.encode(`${JSON.stringify(line)}\n`);
  while (bytes.length > 0) bytes = bytes.subarray(Deno.stdout.writeSync(bytes));
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** What all clients of this process go by. */
const state = { epoch: 0, settling: false };

/** Connects, however long that takes. */
async function reach(
  endpoints: readonly string[],
  timeoutMs: number,
): Promise<Client> {
  while (true) {
    try {
      return await connect(endpoints, { timeoutMs });
    } catch (error) {
      if (!(error instanceof DkvError)) throw error;
      await sleep(CONNECT_PAUSE_MS);
    }
  }
}

/** One client: does one thing after the other. */
class Sequence {
  readonly #kv: Client;
  readonly #name: string;
  readonly #random: Random;
  /** Of a hundred operations on registers. */
  readonly #reads: number;
  #operations = 0;
  /** The value of each register as last seen. */
  readonly #seen = new Map<string, string>();

  constructor(
    kv: Client,
    { name, seed, reads }: { name: string; seed: number; reads: number },
  ) {
    this.#kv = kv;
    this.#reads = reads;
    this.#name = name;
    this.#random = new Random(seed, name);
  }

  async run(pauseMsMax: number): Promise<void> {
    while (!state.settling) {
      await this.#step();
      await sleep(this.#random.between(1, pauseMsMax));
    }
    // Whoever was in the dark must be served again.
    while (await this.#put(COUNTER_KEYS[0]) === null) await sleep(20);
    say({ t: "settled", client: this.#name });
  }

  async #step(): Promise<void> {
    const draw = this.#random.below(100);
    if (draw < 50) await this.#useRegister();
    else if (draw < 80) await this.#useBank();
    else await this.#count();
  }

  async #useRegister(): Promise<void> {
    const number = this.#random.below(REGISTER_KEYS);
    const key = `${REGISTERS}${state.epoch}/${number}`;
    const draw = this.#random.below(100);
    if (this.#random.below(100) < this.#reads) {
      const answer = await this.#do(() => ({ type: "get", key }));
      if (answer?.type === "got") this.#seen.set(key, answer.value);
    } else if (draw < 45) await this.#put(key);
    else if (draw < 60) await this.#do(() => ({ type: "delete", key }));
    else {
      const expected = this.#seen.get(key) ?? "";
      await this.#do((value) => ({
        type: "compareAndSet",
        key,
        expected,
        value,
      }));
    }
    if (this.#seen.size > 2 * REGISTER_KEYS) this.#seen.clear();
  }

  async #useBank(): Promise<void> {
    const bank = String(state.epoch);
    const list = this.#random.below(5) === 0;
    const answer = await this.#do(() => ({ type: "balances", bank, list }));
    if (answer?.type !== "balances") return;
    const numbers = Array.from({ length: ACCOUNTS }, (_, at) => at);
    const [from = 0, to = 0] = this.#random.sample(numbers, 2);
    const amount = this.#random.between(1, 50);
    const [source, target] = [answer.accounts[from]!, answer.accounts[to]!];
    await this.#do((name) => ({
      type: "transfer",
      bank,
      accounts: [from, to],
      modRevisions: [source[1], target[1]],
      values: [
        `${balanceOf(source[0]) - amount} ${name}`,
        `${balanceOf(target[0]) + amount} ${name}`,
      ],
    }));
  }

  async #count(): Promise<void> {
    const [puts, sets] = COUNTER_KEYS;
    if (this.#random.below(2) === 0) {
      await this.#put(puts);
      return;
    }
    const answer = await this.#do(() => ({ type: "get", key: sets }));
    if (answer?.type !== "got") return;
    const { modRevision } = answer;
    await this.#do((value) => ({
      type: "increment",
      key: sets,
      modRevision,
      value,
    }));
  }

  #put(key: string): Promise<Answer | null> {
    return this.#do((value) => ({ type: "put", key, value }));
  }

  /** Does one thing and says so; `request` gets a name that is also a value nobody else writes. */
  async #do(request: (name: string) => Request): Promise<Answer | null> {
    const op = `${this.#name}-${++this.#operations}`;
    const asked = request(op);
    say({ t: "call", op, at: performance.now(), request: asked });
    const outcome = await this.#perform(asked).then(
      (answer): Outcome => ({ type: "ok", answer }),
      toOutcome,
    );
    say({ t: "return", op, at: performance.now(), outcome });
    return outcome.type === "ok" ? outcome.answer : null;
  }

  async #perform(request: Request): Promise<Answer> {
    const kv = this.#kv;
    switch (request.type) {
      case "get": {
        const entry = await kv.get(request.key);
        const modRevision = entry?.modRevision ?? 0;
        return { type: "got", value: textOf(entry), modRevision };
      }
      case "put": {
        const returnPrevious = this.#random.below(2) === 0;
        const result = await kv.put(request.key, request.value, {
          returnPrevious,
        });
        const { revision, version, previous } = result;
        const more = returnPrevious ? { previous: textOf(previous) } : {};
        return { type: "put", revision, version, ...more };
      }
      case "delete": {
        const { revision, deleted, previous } = await kv.delete(request.key, {
          returnPrevious: true,
        });
        const [entry = null] = previous;
        return { type: "deleted", revision, deleted, previous: textOf(entry) };
      }
      case "compareAndSet":
      case "increment":
        return await compareAndPut(kv, request);
      case "balances":
        return await readBalances(kv, request);
      case "transfer":
        return await transfer(kv, request, this.#random.below(2) === 0);
      case "mark":
        throw new Error("Only the harness marks the end");
      default:
        unreachable(request);
    }
  }
}

function textOf(entry: Entry | null): string {
  return entry === null ? "" : entry.text();
}

/** What the client library promises: an error that says "no effect" says so for certain. */
function toOutcome(error: unknown): Outcome {
  if (!(error instanceof DkvError)) {
    const message = (error as Error).stack ?? String(error);
    return { type: "unknown", code: "THROWN", message };
  }
  const { code, message, noEffect } = error;
  return { type: noEffect ? "failed" : "unknown", code, message };
}

async function compareAndPut(
  kv: Client,
  request: Extract<Request, { type: "compareAndSet" | "increment" }>,
): Promise<Answer> {
  const { key, value } = request;
  const compare = request.type === "increment"
    ? { key, modRevision: request.modRevision }
    : request.expected === ""
    ? { key, version: 0 }
    : { key, value: request.expected };
  const { revision, succeeded, results } = await kv.transact({
    compares: [compare],
    then: [{ type: "put", key, value }],
  });
  const [put] = results;
  const version = put?.type === "put" ? put.version : 0;
  return { type: "compared", revision, succeeded, version };
}

function accountsOf(entries: readonly (Entry | null)[]): Account[] {
  return entries.map((entry) => [textOf(entry), entry?.modRevision ?? 0]);
}

async function readBalances(
  kv: Client,
  { bank, list }: Extract<Request, { type: "balances" }>,
): Promise<Answer> {
  const keys = Array.from(
    { length: ACCOUNTS },
    (_, account) => accountKey(bank, account),
  );
  if (list) {
    const found = new Map<string, Entry>();
    const prefix = `${BANKS}${bank}/`;
    for await (const entry of kv.list({ prefix })) found.set(entry.key, entry);
    const accounts = accountsOf(keys.map((key) => found.get(key) ?? null));
    return { type: "balances", revision: 0, accounts };
  }
  const { revision, results } = await kv.transact({
    then: keys.map((key) => ({ type: "get", key })),
  });
  const accounts = accountsOf(
    results.map((result) => result.type === "get" ? result.entry : null),
  );
  return { type: "balances", revision, accounts };
}

/** Compares revisions or, which comes to the same, values. */
async function transfer(
  kv: Client,
  request: Extract<Request, { type: "transfer" }>,
  compareMore: boolean,
): Promise<Answer> {
  const { bank, accounts, modRevisions, values } = request;
  const keys = accounts.map((account) => accountKey(bank, account));
  const all = Array.from({ length: ACCOUNTS }, (_, at) => accountKey(bank, at));
  const { revision, succeeded, results } = await kv.transact({
    compares: keys.flatMap((key, at) => {
      const modRevision = modRevisions[at]!;
      if (!compareMore) return [{ key, modRevision }];
      // The same, said twice.
      return [
        { key, modRevision },
        modRevision === 0
          ? { key, version: 0 }
          : { key, version: 0, relation: "greater" as const },
      ];
    }),
    then: keys.map((key, at) => ({ type: "put", key, value: values[at]! })),
    else: all.map((key) => ({ type: "get", key })),
  });
  const found = results.map((result) =>
    result.type === "get" ? result.entry : null
  );
  return {
    type: "transferred",
    revision,
    succeeded,
    accounts: succeeded ? [] : accountsOf(found),
  };
}

/** Follows a prefix up to the last write. */
async function follow(
  kv: Client,
  { watch, prefix }: { watch: string; prefix: string },
): Promise<void> {
  const changes = kv.watch({ prefix });
  let events: Event[] = [];
  const flush = () => {
    if (events.length > 0) say({ t: "events", watch, events });
    events = [];
  };
  const timer = setInterval(flush, FLUSH_MS);
  try {
    say({ t: "watch", watch, prefix, from: await changes.started() });
    for await (const { key, revision, entry } of changes) {
      const value = entry === null ? null : entry.text();
      events.push([revision, key, value, entry?.version ?? 0]);
      if (key === `${prefix}${END}`) break;
    }
    flush();
    say({ t: "watched", watch });
  } catch (error) {
    flush();
    say({ t: "watchEnded", watch, error: String(error) });
  } finally {
    clearInterval(timer);
  }
}

async function start(
  order: Extract<Order, { type: "start" }>,
): Promise<void> {
  const { name, seed, endpoints, free, bound, pauseMsMax, watches } = order;
  const random = new Random(seed, name);
  state.epoch = order.epoch;
  const ways = [
    ...Array.from({ length: free }, () => random.sample(endpoints, Infinity)),
    ...bound.map((endpoint) => [endpoint]),
  ];
  await Promise.all(ways.map(async (way, at) => {
    const timeoutMs = random.between(TIMEOUT_MS_MIN, TIMEOUT_MS_MAX);
    // Waits for as long as it likes.
    const kv = await reach(way, timeoutMs);
    const prefix = watches[at] ?? null;
    const watch = `${name}.${at}/watch`;
    const reads = way.length > 1 ? READS : READS_BOUND;
    const sequence = new Sequence(kv, { name: `${name}.${at}`, seed, reads });
    await Promise.all([
      prefix === null ? null : follow(kv, { watch, prefix }),
      sequence.run(pauseMsMax),
    ]);
  }));
}

function obey(order: Order): void {
  switch (order.type) {
    case "ping":
      say({ t: "pong", at: performance.now() });
      break;
    case "start":
      void start(order);
      break;
    case "epoch":
      state.epoch = order.epoch;
      break;
    case "settle":
      state.settling = true;
      break;
    default:
      unreachable(order);
  }
}

/** Obeys until there is nobody left to give orders. */
async function main(): Promise<void> {
  let rest = "";
  const input = Deno.stdin.readable.pipeThrough(new TextDecoderStream());
  for await (const text of input) {
    const lines = `${rest}${text}`.split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) obey(JSON.parse(line) as Order);
  }
}

if (import.meta.main) {
  await main();
  Deno.exit();
}
