/**
 * The watch stream of one sequence: opens and cancels watches one after the other, and keeps what
 * each delivers. How events are cut into messages is the server's affair, and so is when they come:
 * what counts is each watch's sequence of events. Used by `play.ts`.
 *
 * @module
 */

import type { Answer, Connection, Outcome, Stream } from "./connection.ts";
import { covers, KEYS } from "./steps.ts";

/** A server that says nothing for so long will not. */
const ANSWER_MS_MAX = 5000;

/** One watch, as far as it is known. */
export interface Watch {
  readonly id: string;
  readonly events: Answer[];
  readonly key: string;
  readonly rangeEnd: string;
  readonly filters: readonly string[];
  /** The first revision that it may deliver; 0: any. */
  readonly start: number;
  isOpen: boolean;
  /** Of the newest event. */
  revision: number;
}

/** The watches of a sequence on one server. */
export class Watches {
  readonly all: Watch[] = [];
  /** What a server must not do, whatever another one does. */
  readonly problems: string[] = [];
  readonly #connection: Connection;
  /** By the id that the server knows; a cancelled watch's id may be given again. */
  readonly #open = new Map<string, Watch>();
  /** Ids of watches that compaction has ended. */
  readonly #ended = new Set<string>();
  #stream: Stream | null = null;
  #end: Outcome | "ended" | null = null;
  /** Answers that are neither events: created, canceled, progress. */
  #control: Answer[] = [];
  #waiter: (() => void) | null = null;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** Open watches that hear when any key is put, or deleted. */
  hearing(type: "PUT" | "DELETE"): Watch[] {
    return this.all.filter(({ isOpen, filters, key, rangeEnd }) =>
      isOpen && !filters.includes(`NO${type}`) &&
      KEYS.some((wanted) => covers(key, rangeEnd, wanted))
    );
  }

  /** True if compaction has ended a watch with this id; what that leaves behind may differ. */
  hasEnded(id: string): boolean {
    return this.#ended.has(id);
  }

  isOpen(id: string): boolean {
    return this.#open.has(id);
  }

  /** Opens a watch; returns what the server says to that, a cancellation for compaction included. */
  async create(
    request: object,
    { key, rangeEnd, filters, start, compacted }:
      & Pick<Watch, "key" | "rangeEnd" | "filters" | "start">
      & { compacted: number },
  ): Promise<unknown> {
    this.#send({ create_request: request });
    const created = await this.#nextControl("created");
    if (!("answer" in created)) return created;
    if (created.answer["created"] !== true || created.answer["canceled"]) {
      return created;
    }
    const watch: Watch = {
      id: String(created.answer["watch_id"]),
      events: [],
      key: key === "" ? "\0" : key,
      rangeEnd,
      filters,
      start,
      isOpen: true,
      revision: 0,
    };
    this.all.push(watch);
    this.#open.set(watch.id, watch);
    if (start === 0 || start >= compacted) return created;
    // History is gone: the end follows in a message of its own.
    const canceled = await this.#nextControl("canceled");
    this.#close(watch);
    this.#ended.add(watch.id);
    return { created, canceled };
  }

  /** Ends a watch; nothing is said to the end of one that is not there. */
  async cancel(id: string): Promise<unknown> {
    this.#send({ cancel_request: { watch_id: id } });
    const watch = this.#open.get(id);
    if (watch === undefined) return null;
    const canceled = await this.#nextControl("canceled");
    this.#close(watch);
    return canceled;
  }

  async progress(): Promise<unknown> {
    this.#send({ progress_request: {} });
    return await this.#nextControl("progress");
  }

  /** Waits until watches have delivered a revision. */
  async delivered(watches: readonly Watch[], revision: number): Promise<void> {
    const late = () =>
      watches.filter((watch) =>
        watch.isOpen && watch.start <= revision && watch.revision < revision
      );
    if (await this.#until(() => late().length === 0)) return;
    for (const { id, revision: reached } of late()) {
      this.problems.push(
        `watch ${id} is at revision ${reached} and delivers no ${revision}`,
      );
    }
  }

  /** Ends the stream; whatever it said that nobody asked for is a problem. */
  end(): void {
    for (const answer of this.#control) {
      this.problems.push(`not asked for: ${JSON.stringify(answer)}`);
    }
    this.#stream?.cancel();
  }

  #send(request: object): void {
    this.#stream ??= this.#connection.duplex("Watch.Watch", {
      onAnswer: (answer) => this.#onAnswer(answer),
      onEnd: (outcome) => {
        this.#end = outcome ?? "ended";
        this.#waiter?.();
      },
    });
    this.#stream.send(request);
  }

  #onAnswer(answer: Answer): void {
    const events = answer["events"] as Answer[];
    if (events.length === 0) {
      this.#control.push(answer);
    } else {
      this.#onEvents(answer, events);
    }
    this.#waiter?.();
  }

  #onEvents(answer: Answer, events: readonly Answer[]): void {
    const id = String(answer["watch_id"]);
    const watch = this.#open.get(id);
    if (watch === undefined) {
      this.problems.push(`watch ${id} is not open and delivers`);
      return;
    }
    if (answer["created"] || answer["canceled"]) {
      this.problems.push(`events and more: ${JSON.stringify(answer)}`);
    }
    const header = answer["header"] as { revision: string };
    for (const event of events) {
      watch.events.push(event);
      const { mod_revision } = event["kv"] as { mod_revision: string };
      const revision = Number(mod_revision);
      if (revision < watch.revision) {
        this.problems.push(`watch ${id}: ${revision} after ${watch.revision}`);
      }
      if (Number(header.revision) < revision) {
        this.problems.push(
          `watch ${id}: header at ${header.revision}, event at ${revision}`,
        );
      }
      watch.revision = revision;
    }
  }

  #close(watch: Watch): void {
    watch.isOpen = false;
    if (this.#open.get(watch.id) === watch) this.#open.delete(watch.id);
  }

  /** The next message without events. */
  async #nextControl(what: string): Promise<Outcome> {
    await this.#until(() => this.#control.length > 0 || this.#end !== null);
    const answer = this.#control.shift();
    if (answer !== undefined) return { answer };
    if (this.#end !== null && this.#end !== "ended") return this.#end;
    this.problems.push(
      this.#end === null
        ? `no answer (${what}) within ${ANSWER_MS_MAX} ms`
        : `the watch stream ended before ${what}`,
    );
    return { error: { code: "NONE", message: "no answer" } };
  }

  async #until(isTrue: () => boolean): Promise<boolean> {
    const endMs = performance.now() + ANSWER_MS_MAX;
    while (!isTrue()) {
      const leftMs = endMs - performance.now();
      if (leftMs <= 0 || this.#end !== null) return isTrue();
      const heard = Promise.withResolvers<void>();
      const timer = setTimeout(heard.resolve, leftMs);
      this.#waiter = heard.resolve;
      await heard.promise;
      clearTimeout(timer);
      this.#waiter = null;
    }
    return true;
  }
}
