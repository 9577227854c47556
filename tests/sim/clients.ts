/**
 * The clients of a simulated cluster: each is attached to one machine, asks one thing at a time, moves
 * on when something fails, and repeats a write under the same sequence until it knows what became of
 * it. And watches that follow their range from machine to machine. Used by `cluster.ts`.
 *
 * @module
 */

import type {
  KeyRange,
  ModifyOperation,
  PutOperation,
  Request,
} from "../../batch.ts";
import { DkvError } from "../../errors.ts";
import type { Group } from "../../group.ts";
import type { Result } from "../../results.ts";
import type { Watch } from "../../watch.ts";
import type { LeaseTimes } from "./checks/leases.ts";
import { textOf } from "./checks/states.ts";
import { WatchCheck } from "./checks/watches.ts";
import type { Clock } from "./clock.ts";
import {
  COUNTER,
  type History,
  type Operation,
  type Query,
  type QueryAnswer,
} from "./history.ts";
import { anyWrite, COUNT_KEY, countUp, dueRange, sweep } from "./kvwrites.ts";
import type { Machine } from "./machine.ts";
import type { Oracle } from "./oracle.ts";
import type { Random } from "./random.ts";
import type { Trace } from "./trace.ts";
import { must } from "./violation.ts";

/** How clients behave. */
export interface ClientPlan {
  readonly thinkMsMax: number;
  readonly keys: number;
  /** Of 1,000 answers, this many get lost. */
  readonly lostAnswers: number;
  /** Of 1,000 writes, this many are sent to two machines at once. */
  readonly doubledWrites: number;
  readonly timeoutMs: number;
  /** Before 1,000 calls, this often it moves to another machine. */
  readonly moves: number;
}

/** What a client needs of the world. */
export interface ClientHost {
  readonly clock: Clock;
  readonly trace: Trace;
  readonly machines: readonly Machine[];
  /** The live machines that belong to the cluster. */
  members(): Machine[];
  readonly isHealed: boolean;
  /** Where a client may turn to: anyone, until the cluster is healed. */
  choice(): readonly Machine[];
  readonly history: History;
  readonly oracle: Oracle;
  readonly leaseTimes: LeaseTimes;
}

/** What came back from one attempt. */
type Answer =
  | { readonly type: "result"; readonly result: Result }
  | { readonly type: "answer"; readonly answer: QueryAnswer }
  /** Null: the connection broke, or nothing came in time. */
  | { readonly type: "error"; readonly error: DkvError | null };

/** After so many attempts a client gives up. */
const ATTEMPTS_MAX = 6;
const LEASE_TTL_MS = [1000, 2000, 4000] as const;
/** How far the wall clocks of nodes that take writes of Deno KV are apart. */
const WALL_CLOCK_MS = 500;
/** How many entries of Deno KV a sweep removes. */
const SWEPT_MAX = 5;

/** One client. */
export class Client {
  readonly name: string;
  readonly #host: ClientHost;
  readonly #plan: ClientPlan;
  readonly #random: Random;
  #machine: Machine;
  #sequence = 0;
  #isStopped = false;
  /** Writes that succeeded. */
  writes = 0;
  /** What it read last, by key. */
  readonly #seen = new Map<string, string>();
  #lease = 0n;
  #leases = 0;
  readonly #isOfDenoKv: boolean;
  #counts = 0;

  constructor(
    options: {
      name: string;
      plan: ClientPlan;
      random: Random;
      /** It makes atomic writes, and nothing else but reads. */
      isOfDenoKv: boolean;
    },
    host: ClientHost,
  ) {
    this.name = options.name;
    this.#isOfDenoKv = options.isOfDenoKv;
    this.#plan = options.plan;
    this.#random = options.random;
    this.#host = host;
    this.#machine = options.random.pick(host.machines);
  }

  start(): void {
    this.#think();
  }

  /** Asks nothing more; what is under way goes on. */
  stop(): void {
    this.#isStopped = true;
  }

  #think(): void {
    if (this.#isStopped) return;
    const waitMs = 1 + this.#random.below(this.#plan.thinkMsMax);
    this.#host.clock.after(waitMs, () => {
      if (!this.#isStopped) this.#ask();
    });
  }

  #askDenoKv(): void {
    const random = this.#random;
    const nowMs = this.#host.clock.nowMs + random.below(WALL_CLOCK_MS);
    const linearizable = { revision: 0, isLinearizable: true };
    switch (random.below(8)) {
      case 0:
      case 1:
      case 2:
      case 3:
        return this.#query(
          { range: only(COUNT_KEY), ...linearizable },
          ({ entries: [entry] }) => {
            const name = `${this.name}.${++this.#counts}`;
            this.#write(countUp(entry, { name, nowMs }));
          },
        );
      case 4:
        return this.#query(
          { range: dueRange(nowMs), ...linearizable },
          ({ entries }) => {
            const due = entries.slice(0, SWEPT_MAX);
            this.#write(sweep(due, nowMs));
          },
        );
      case 5:
        return this.#read({ start: "denokv", end: null }, {
          isLinearizable: random.chance(500),
        });
      default:
        return this.#write(anyWrite(random, nowMs));
    }
  }

  #ask(): void {
    if (this.#isOfDenoKv) return this.#askDenoKv();
    const random = this.#random;
    const key = `k${random.below(this.#plan.keys)}.${
      // Few operations on each key keep the search for an order short.
      Math.floor(this.#host.clock.nowMs / 10_000)}`;
    switch (random.below(16)) {
      case 0:
      case 1:
      case 2:
        return this.#write({ ...this.#put(key), returnPrevious: false });
      case 3:
      case 4:
      case 5:
        return this.#read(only(key), { isLinearizable: true });
      case 6:
        return this.#read({ start: "", end: null }, {
          isLinearizable: random.chance(500),
        });
      case 7:
        return this.#read(only(key), { isLinearizable: false, past: true });
      case 8:
        return this.#write({
          type: "delete",
          range: only(key),
          returnPrevious: random.chance(500),
        });
      case 9:
      case 10:
        return this.#compareAndSet(key);
      case 11:
        return this.#write({
          type: "transact",
          compares: [],
          then: [
            this.#put(key),
            this.#put(`k${random.below(this.#plan.keys)}.both`),
            { type: "get", key },
          ],
          else: [],
        });
      case 12:
        return random.chance(300) ? this.#count() : this.#modify();
      case 13:
      case 14:
        return this.#useLease();
      default:
        return random.chance(150) ? this.#compact() : this.#count();
    }
  }

  #put(key: string, lease = 0n): PutOperation {
    return {
      type: "put",
      key,
      value: bytesOf(`${this.name}.${this.#sequence + 1}`),
      lease,
      returnPrevious: false,
    };
  }

  #compareAndSet(key: string): void {
    const seen = this.#seen.get(key);
    if (seen === undefined || seen === "") {
      return this.#read(only(key), { isLinearizable: true });
    }
    this.#seen.delete(key);
    this.#write({
      type: "transact",
      compares: [{
        key,
        relation: "equal",
        target: { type: "value", value: bytesOf(seen) },
      }],
      then: [this.#put(key)],
      else: [{ type: "get", key }],
    });
  }

  /** Adds one to a counter that all clients share. */
  #count(): void {
    const range = only("c");
    this.#query({ range, revision: 0, isLinearizable: true }, (answer) => {
      const [entry] = answer.entries;
      const count = Number(entry === undefined ? 0 : textOf(entry.value));
      this.#write({
        type: "transact",
        compares: [{
          key: "c",
          relation: "equal",
          target: { type: "modRevision", number: entry?.modRevision ?? 0 },
        }],
        then: [{
          ...this.#put("c"),
          value: bytesOf(String(count + 1)),
        }],
        else: [],
      });
    });
  }

  /** Lets the store count, and write down who did: each must happen once. */
  #modify(): void {
    const random = this.#random;
    const common = {
      type: "modify",
      encoding: "decimal",
      lease: null,
      returnPrevious: random.chance(300),
    } as const;
    const add: ModifyOperation = {
      ...common,
      key: COUNTER,
      function: "add",
      operand: bytesOf("1"),
    };
    const append: ModifyOperation = {
      ...common,
      // Short ones, so that sessions remember whole answers.
      key: `w${Math.floor(this.#host.clock.nowMs / 1000)}`,
      function: "append",
      operand: bytesOf(`${this.name}.${this.#sequence + 1} `),
    };
    this.#write({
      type: "transact",
      compares: [],
      then: random.chance(500) ? [add, append] : [add],
      else: [],
    });
  }

  #useLease(): void {
    const random = this.#random;
    if (this.#lease === 0n) {
      this.#leases++;
      const number = Number(this.name.slice(1)) * 1_000_000 + this.#leases;
      const lease = BigInt(number);
      return this.#write(
        { type: "grant", lease, ttlMs: random.pick(LEASE_TTL_MS) },
        () => this.#lease = lease,
      );
    }
    const lease = this.#lease;
    const forget = (result: Result) => {
      if (result.type === "error") this.#lease = 0n;
    };
    switch (random.below(4)) {
      case 0:
        return this.#write(this.#put(`l${this.name}`, lease), forget);
      case 1:
        if (random.chance(300)) {
          this.#lease = 0n;
          return this.#write({ type: "revoke", lease });
        }
        return this.#write(this.#put(`l${random.below(3)}`, lease), forget);
      default:
        return this.#write({ type: "keepAlive", lease }, forget);
    }
  }

  #compact(): void {
    const { revision } = this.#host.oracle.model;
    const behind = this.#random.below(40);
    if (revision <= behind) return this.#think();
    this.#write({ type: "compact", revision: revision - behind });
  }

  #read(
    range: KeyRange,
    { isLinearizable, past = false }: {
      isLinearizable: boolean;
      past?: boolean;
    },
  ): void {
    const { revision } = this.#host.oracle.model;
    const at = past ? Math.max(0, revision - this.#random.below(60)) : 0;
    this.#query({ range, revision: at, isLinearizable }, (answer) => {
      if (range.end === range.start + "\0" && !past) {
        const [entry] = answer.entries;
        const value = entry === undefined ? "" : textOf(entry.value);
        this.#seen.set(range.start, value);
      }
      this.#think();
    });
  }

  // ---------------------------------------------------------------- calls

  #query(query: Query, then: (answer: QueryAnswer) => void): void {
    const operation = this.#begin(null, query);
    this.#run(operation, (answer) => {
      if (answer.type === "answer") then(answer.answer);
      else this.#think();
    });
  }

  #write(request: Request, then: (result: Result) => void = () => {}): void {
    const operation = this.#begin(request, null);
    this.#run(operation, (answer) => {
      if (answer.type === "result") {
        this.writes++;
        then(answer.result);
      }
      this.#think();
    });
  }

  #begin(request: Request | null, query: Query | null): Operation {
    const { clock, history, leaseTimes } = this.#host;
    let writeId = null;
    // Who sends no id asks once, and lives with not knowing.
    const isPlain = request?.type === "put" || request?.type === "delete" ||
      request?.type === "transact";
    const isBare = request?.type === "mutate" ||
      isPlain && this.#random.chance(100);
    if (request !== null && !isBare) {
      const sequence = ++this.#sequence;
      writeId = { client: this.name, sequence, doneBelow: sequence };
      leaseTimes.called(this.name, sequence);
    }
    const callMs = clock.nowMs;
    return history.begin({
      client: this.name,
      request,
      query,
      writeId,
      callMs,
    });
  }

  #run(operation: Operation, done: (answer: Answer) => void): void {
    const { history } = this.#host;
    if (this.#random.chance(this.#plan.moves)) {
      this.#machine = this.#random.pick(this.#host.choice());
    }
    let attempts = 0;
    let isUncertain = false;
    const attempt = () => {
      attempts++;
      if (
        operation.writeId !== null && this.#random.chance(
          this.#plan.doubledWrites,
        )
      ) {
        const other = this.#random.pick(this.#host.machines);
        if (other !== this.#machine) {
          isUncertain = true;
          this.#call(other, operation, () => {});
        }
      }
      this.#call(this.#machine, operation, (answer) => {
        switch (answer.type) {
          case "result":
            this.#heard(operation, answer.result);
            history.succeeded(operation, { result: answer.result });
            return done(answer);
          case "answer":
            history.succeeded(operation, { answer: answer.answer });
            return done(answer);
          case "error":
            break;
        }
        if (!(answer.error?.noEffect ?? false)) isUncertain = true;
        this.#machine = this.#random.pick(this.#host.choice());
        const isFinal = answer.error?.code.startsWith("REVISION_") ||
          operation.request !== null && operation.writeId === null;
        if (isFinal || attempts >= ATTEMPTS_MAX) {
          history.gaveUp(operation, isUncertain ? "unknown" : "failed");
          return done(answer);
        }
        this.#host.clock.after(this.#random.between(5, 200), attempt);
      });
    };
    attempt();
  }

  #heard(operation: Operation, result: Result): void {
    must(
      result.type !== "error" || result.code !== "SEQUENCE_STALE",
      "retries are recognised",
      () =>
        `${this.name} is told that ${operation.writeId?.sequence} is stale, but it waits for it`,
    );
  }

  /** One attempt at one machine; `done` is called exactly once. */
  #call(
    machine: Machine,
    operation: Operation,
    done: (answer: Answer) => void,
  ): void {
    const { clock } = this.#host;
    let isOpen = true;
    const finish = (answer: Answer) => {
      if (!isOpen) return;
      isOpen = false;
      machine.calls.delete(lost);
      done(answer);
    };
    const lost = () =>
      clock.after(1, () => finish({ type: "error", error: null }));
    const respond = (answer: Answer) => {
      const isLost = this.#random.chance(this.#plan.lostAnswers);
      if (isLost && !this.#host.isHealed) return;
      machine.calls.delete(lost);
      clock.after(
        machine.turnMs + this.#random.between(0, 2),
        () => finish(answer),
      );
    };
    const fail = (error: unknown) => {
      if (!(error instanceof DkvError)) throw error;
      respond({ type: "error", error });
    };
    clock.after(this.#random.between(0, 2), () => {
      if (!machine.isUp) {
        return fail(new DkvError("UNREACHABLE", "connection refused"));
      }
      machine.calls.add(lost);
      machine.whenAvailable((group) => {
        try {
          this.#execute(group, { machine, operation, respond, fail });
        } catch (error) {
          fail(error);
        }
      });
    });
    clock.after(
      this.#plan.timeoutMs + 500,
      () => finish({ type: "error", error: null }),
    );
  }

  #execute(
    group: Group,
    { machine, operation, respond, fail }: {
      machine: Machine;
      operation: Operation;
      respond: (answer: Answer) => void;
      fail: (error: unknown) => void;
    },
  ): void {
    const { request, query, writeId } = operation;
    const { timeoutMs } = this.#plan;
    if (request !== null) {
      return group.propose(request, {
        writeId,
        timeoutMs,
        settle: (outcome) => {
          if (outcome instanceof DkvError) fail(outcome);
          else respond({ type: "result", result: outcome });
        },
      });
    }
    const read = () => {
      try {
        respond({ type: "answer", answer: answerOf(group, query!) });
      } catch (error) {
        if (!(error instanceof DkvError) || error.code === "DATA_CORRUPT") {
          throw error;
        }
        fail(error);
      }
    };
    if (query!.isLinearizable) {
      group.read((error) => error === null ? read() : fail(error), timeoutMs);
    } else machine.guard(read);
  }
}

function answerOf(group: Group, { range, revision }: Query): QueryAnswer {
  const { store } = group;
  if (range.end === range.start + "\0") {
    const entry = store.get(range.start, revision);
    const entries = entry === null ? [] : [entry];
    return { entries, revision: store.revision };
  }
  const { entries } = store.list(range, {
    revision,
    limit: 0,
    keysOnly: false,
    reverse: false,
    bytesMax: 2 ** 30,
  });
  return { entries, revision: store.revision };
}

/** One watch that never ends. */
export class WatchClient {
  readonly #host: ClientHost;
  readonly #random: Random;
  readonly #name: string;
  readonly #range: KeyRange;
  /** Of 1,000 deliveries, this many find it full. */
  readonly #fullness: number;
  readonly #withPrevious: boolean;
  #check: WatchCheck | null = null;
  #machine: Machine | null = null;
  #watch: Watch | null = null;
  #generation = 0;
  /** What the turn under way brought. */
  #pending: (() => void)[] = [];
  #isPatient = false;

  constructor(
    options: { name: string; range: KeyRange; random: Random },
    host: ClientHost,
  ) {
    this.#name = options.name;
    this.#range = options.range;
    this.#random = options.random;
    this.#fullness = options.random.pick([0, 100, 600, 950]);
    this.#withPrevious = options.random.chance(500);
    this.#host = host;
  }

  /** From now on it is never full, and does not move. */
  settle(): void {
    this.#isPatient = true;
  }

  /** Looks after the watch from time to time. */
  start(): void {
    this.#host.clock.after(this.#random.between(20, 300), () => {
      this.#look();
      this.start();
    });
  }

  /** After a turn of its machine, when the oracle knows what was committed. */
  afterTurn(machine: Machine): void {
    if (machine !== this.#machine) return;
    const pending = this.#pending;
    this.#pending = [];
    for (const check of pending) check();
  }

  complete(revision: number): void {
    this.#check?.complete(revision);
  }

  #look(): void {
    const machine = this.#machine;
    const choice = this.#host.choice().filter(({ isUp }) => isUp);
    if (
      machine !== null && machine.generation === this.#generation &&
      choice.includes(machine)
    ) {
      if (this.#watch === null) return this.#connect(machine);
      if (this.#isPatient || !this.#random.chance(30)) return;
    }
    this.#watch?.stop();
    this.#machine = null;
    this.#watch = null;
    if (choice.length > 0) this.#connect(this.#random.pick(choice));
  }

  #connect(machine: Machine): void {
    this.#machine = machine;
    this.#generation = machine.generation;
    this.#pending = [];
    machine.whenAvailable((group) => {
      if (this.#machine !== machine || this.#watch !== null) return;
      this.#watch = this.#add(group);
      this.#check ??= new WatchCheck(this.#host.oracle, {
        name: this.#name,
        range: this.#range,
        fromRevision: this.#watch.fromRevision,
      });
    });
  }

  #add(group: Group): Watch {
    const random = this.#random;
    const isFull = () => !this.#isPatient && random.chance(this.#fullness);
    const session = {};
    this.#session = session;
    return group.watchers.add({
      range: this.#range,
      fromRevision: this.#check?.nextRevision ?? random.below(2),
      withPrevious: this.#withPrevious,
      noPuts: false,
      noDeletes: false,
      hasRoom: () => !isFull(),
      deliver: (events, throughRevision) => {
        if (isFull()) return false;
        if (session === this.#session) {
          this.#pending.push(() =>
            this.#check!.delivered(events, throughRevision)
          );
        }
        return true;
      },
      cancel: (error, compactRevision) => {
        if (session !== this.#session) return;
        const isAlone = error.code === "NO_LEADER" &&
          group.core.leader === null;
        must(
          isAlone || error.code === "REVISION_COMPACTED",
          "watch ends for a reason",
          () => `${this.#name} is told ${error.message}`,
        );
        if (isAlone) {
          // The next look connects it again, here or elsewhere.
          this.#pending.push(() => this.#watch = null);
          return;
        }
        this.#pending.push(() => {
          this.#check!.compacted();
          this.#check!.moveTo(compactRevision);
          this.#watch = null;
        });
      },
    });
  }

  #session: object = {};
}

function only(key: string): KeyRange {
  return { start: key, end: key + "\0" };
}

function bytesOf(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
