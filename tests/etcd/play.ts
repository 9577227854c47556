/**
 * Plays a sequence of steps on one server and writes down everything that it says. Each step that
 * changes something waits for all before it, so that the outcome is a function of the sequence; reads
 * between two of them run side by side. Used by `pair.ts`.
 *
 * Watches deliver when they like. Before a step whose outcome depends on what is delivered
 * (a compaction, a cancellation, a progress request, the end) every key is written, and every watch
 * waited for until it has delivered that.
 *
 * @module
 */

import type { Answer, Connection, Outcome, Stream } from "./connection.ts";
import {
  type Call,
  isRead,
  isUserCall,
  KEYS,
  type Request,
  resolve,
  type Revisions,
  type Step,
} from "./steps.ts";
import { Watches } from "./watches.ts";

/** A server that says nothing for so long will not. */
const ANSWER_MS_MAX = 5000;

/** Something that was said, and what to. */
export interface Said {
  /** Which step of the sequence; null for what the player does by itself. */
  readonly step: number | null;
  readonly call: Call | "events" | "problems";
  readonly request: Request;
  /** What a revision in the request was. */
  readonly revisions: Revisions;
  readonly outcome: unknown;
}

const EVERYTHING: Request = { key: "\0", range_end: "\0" };

/** One server under test, from one sequence to the next. */
export class Player implements Disposable {
  readonly connection: Connection;
  readonly revisions: Revisions = { start: 0, current: 0, compacted: 0 };
  #keepAlives: KeepAlives | null = null;

  constructor(connection: Connection) {
    this.connection = connection;
  }

  /** Plays a sequence, then removes every key, lease, user and role. */
  async play(steps: readonly Step[]): Promise<Said[]> {
    return await new Play(this).run(steps);
  }

  /** Asks for a lease's renewal. */
  async keepAlive(request: object): Promise<Outcome> {
    if (this.#keepAlives === null || this.#keepAlives.hasEnded) {
      this.#keepAlives = new KeepAlives(this.connection);
    }
    return await this.#keepAlives.ask(request);
  }

  /** Learns the newest revision from any answer. */
  learn(outcome: Outcome): void {
    if (!("answer" in outcome)) return;
    const header = outcome.answer["header"] as { revision?: string } | null;
    const revision = Number(header?.revision ?? 0);
    this.revisions.current = Math.max(this.revisions.current, revision);
  }

  [Symbol.dispose](): void {
    this.#keepAlives?.cancel();
    this.connection[Symbol.dispose]();
  }
}

/** The stream of renewals of one server: answers come in the order of the questions. */
class KeepAlives {
  readonly #stream: Stream;
  #taker: ((outcome: Outcome) => void) | null = null;
  hasEnded = false;

  constructor(connection: Connection) {
    this.#stream = connection.duplex("Lease.LeaseKeepAlive", {
      onAnswer: (answer) => this.#taker?.({ answer }),
      onEnd: (outcome) => {
        this.hasEnded = true;
        this.#taker?.(
          outcome ?? { error: { code: "NONE", message: "ended" } },
        );
      },
    });
  }

  async ask(request: object): Promise<Outcome> {
    const { promise, resolve } = Promise.withResolvers<Outcome>();
    const timer = setTimeout(() => {
      resolve({ error: { code: "NONE", message: "no answer" } });
    }, ANSWER_MS_MAX);
    this.#taker = resolve;
    this.#stream.send(request);
    const outcome = await promise;
    clearTimeout(timer);
    this.#taker = null;
    return outcome;
  }

  cancel(): void {
    this.#stream.cancel();
  }
}

/** One sequence on one server. */
class Play {
  readonly #player: Player;
  readonly #watches: Watches;
  readonly #said: Promise<Said>[] = [];
  /** True if a watch may not have delivered everything. */
  #isBehind = false;
  /** True if there may be users and roles. */
  #hasUsers = false;

  constructor(player: Player) {
    this.#player = player;
    this.#watches = new Watches(player.connection);
  }

  async run(steps: readonly Step[]): Promise<Said[]> {
    const { revisions } = this.#player;
    revisions.start = revisions.current;
    this.#hasUsers = steps.some(({ call }) => isUserCall(call));
    for (const [at, step] of steps.entries()) {
      if (isRead(step)) this.#say(at, step, this.#unary(step));
      else await this.#change(at, step);
    }
    await this.#settled();
    await this.#clean();
    this.#watches.end();
    for (const [at, { id, events, start }] of this.#watches.all.entries()) {
      const request = { watch: at, watch_id: id, start_revision: start };
      this.#note("events", request, events);
    }
    this.#note("problems", {}, this.#watches.problems);
    return await Promise.all(this.#said);
  }

  /** A step that waits for all before it. */
  async #change(at: number, step: Step): Promise<void> {
    await this.#settled();
    const { call, request } = step;
    // Both servers skip it: whether one has ended follows from what was asked.
    if (this.#watches.hasEnded(String(request["watch_id"]))) return;
    switch (call) {
      case "Watch.create":
        return await this.#say(at, step, this.#create(request));
      case "Watch.cancel": {
        const id = String(request["watch_id"]);
        if (this.#watches.isOpen(id)) await this.#sync();
        return await this.#say(at, step, this.#watches.cancel(id));
      }
      case "Watch.progress":
        await this.#sync();
        return await this.#say(at, step, this.#watches.progress());
      case "Lease.LeaseKeepAlive":
        return await this.#say(
          at,
          step,
          this.#player.keepAlive(resolve(request, this.#player.revisions)),
        );
      case "KV.Compact": {
        await this.#sync();
        const { revision } = resolve(request, this.#player.revisions) as {
          revision: string;
        };
        const outcome = this.#unary(step);
        await this.#say(at, step, outcome);
        if ("answer" in await outcome) {
          this.#player.revisions.compacted = Number(revision);
        }
        return;
      }
      case "Lease.LeaseGrant": {
        const outcome = this.#unary(step);
        await this.#say(at, step, outcome);
        return await this.#revokeChosen(request, await outcome);
      }
      default:
        this.#isBehind = true;
        return await this.#say(at, step, this.#unary(step));
    }
  }

  /** A lease whose id the server chose: steps cannot name it, and lists must not show it. */
  async #revokeChosen(request: Request, granted: Outcome): Promise<void> {
    if ((request["ID"] ?? "0") !== "0" || !("answer" in granted)) return;
    await this.#own("Lease.LeaseRevoke", { ID: String(granted.answer["ID"]) });
  }

  async #create(request: Request): Promise<unknown> {
    const { revisions } = this.#player;
    const resolved = resolve(request, revisions) as { start_revision?: string };
    const start = Number(resolved.start_revision ?? 0);
    if (start !== 0) this.#isBehind = true;
    return await this.#watches.create(resolved, {
      key: String(request["key"] ?? ""),
      rangeEnd: String(request["range_end"] ?? ""),
      filters: request["filters"] as string[] ?? [],
      start,
      compacted: revisions.compacted,
    });
  }

  /** Writes every key and waits until every watch has delivered that. */
  async #sync(): Promise<void> {
    if (!this.#isBehind) return;
    const puts = this.#watches.hearing("PUT");
    const isEnough = this.#watches.hearing("DELETE").every((watch) =>
      puts.includes(watch)
    );
    if (puts.length > 0 || !isEnough) await this.#putAll();
    if (!isEnough) await this.#deleteAll();
    this.#isBehind = false;
  }

  async #clean(): Promise<void> {
    await this.#putAll();
    await this.#deleteAll();
    const leases = await this.#own("Lease.LeaseLeases", {});
    if (!("answer" in leases)) return;
    for (const { ID } of leases.answer["leases"] as { ID: string }[]) {
      await this.#own("Lease.LeaseRevoke", { ID });
    }
    if (!this.#hasUsers) return;
    const users = await this.#own("Auth.UserList", {});
    const roles = await this.#own("Auth.RoleList", {});
    if (!("answer" in users && "answer" in roles)) return;
    for (const name of users.answer["users"] as string[]) {
      await this.#own("Auth.UserGet", { name });
      await this.#own("Auth.UserDelete", { name });
    }
    for (const role of roles.answer["roles"] as string[]) {
      await this.#own("Auth.RoleGet", { role });
      await this.#own("Auth.RoleDelete", { role });
    }
  }

  /** Puts every key, and waits until every watch that hears of it has delivered that. */
  async #putAll(): Promise<void> {
    await this.#own("KV.Txn", {
      success: KEYS.map((key) => ({ request_put: { key, value: "all" } })),
    });
    const { current } = this.#player.revisions;
    await this.#watches.delivered(this.#watches.hearing("PUT"), current);
  }

  /** The same with deletes. Every key must be there. */
  async #deleteAll(): Promise<void> {
    await this.#own("KV.DeleteRange", EVERYTHING);
    const { current } = this.#player.revisions;
    await this.#watches.delivered(this.#watches.hearing("DELETE"), current);
  }

  /** A call that no step asks for. */
  async #own(call: Call, request: Request): Promise<Outcome> {
    const outcome = this.#unary({ call, request });
    await this.#say(null, { call, request }, outcome);
    return await outcome;
  }

  async #unary({ call, request }: Step): Promise<Outcome> {
    const { connection, revisions } = this.#player;
    const outcome = await connection.unary(call, resolve(request, revisions));
    this.#player.learn(outcome);
    return outcome;
  }

  async #say(
    step: number | null,
    { call, request }: Step,
    outcome: Promise<unknown>,
  ): Promise<void> {
    const revisions = { ...this.#player.revisions };
    const said = outcome.then((outcome) => ({
      step,
      call,
      request,
      revisions,
      outcome,
    }));
    this.#said.push(said);
    await said;
  }

  #note(
    call: "events" | "problems",
    request: Request,
    outcome: Answer[] | string[],
  ): void {
    const revisions = { ...this.#player.revisions };
    this.#said.push(
      Promise.resolve({ step: null, call, request, revisions, outcome }),
    );
  }

  async #settled(): Promise<void> {
    await Promise.all(this.#said);
  }
}
