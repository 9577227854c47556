/**
 * The commands of the golden scripts in `data/replicate/`: a world of replicas, driven line by line.
 *
 * ```text
 * nodes 3 [learners=4,5] [extra=6] [limit=N…]  replicas 1, 2, 3; extra ones run but are no members
 * elect 1                       campaign and deliver everything, silently
 * campaign 1 | tick 1 10 | propose 1 a b | read 2 id=7 | transfer 1 2 | unreachable 1 2
 * configure 1 add=4 promote=4 demote=3 remove=3
 * deliver [1->2 …] [type=vote]  until nothing is left; on some links only: just what is there now
 * settle                        like deliver, but prints no messages and no disk; so does tick with a count
 * drop [1->2 …]                 loses messages under way; "2->*" and "*->2" mean all links
 * cut 1->2 … | cut 2 | heal     loses messages at the moment of delivery
 * repeat 1->2                   delivers the last message of a link again when it is delivered
 * disk 1 manual|auto | persist 1 | persisted 1 index=3 term=1
 * crash 2 | restart 2 | compact 1 5 | snapshot 1->3 [fail] | snapshots manual
 * status | log | progress 1 | queue
 * ```
 *
 * @module
 */

import { unreachable } from "../errors.ts";
import type { Configuration, Entry, MemberId, Message } from "../message.ts";
import { simpleConfiguration } from "../members.ts";
import type { Effect } from "../replicate.ts";
import type { Command, Handle } from "./golden.ts";
import { type TestLimits, World } from "./replicas.ts";

/** A handler for one script. */
export function scriptHandler(): Handle {
  const script = new Script();
  return (command) => script.run(command);
}

class Script {
  #world: World | null = null;
  #lines: string[] = [];
  /** Prints roles, applied entries and answers only. */
  #isBrief = false;
  #cuts = new Set<string>();

  run(command: Command): readonly string[] {
    this.#lines = [];
    if (command.name === "nodes") this.#nodes(command);
    else this.#drive(command, this.#world!);
    return this.#lines;
  }

  #nodes({ words, options }: Command): void {
    const limits = Object.fromEntries(
      [...options].map(([key, value]) => [key, Number(value)]),
    ) as Partial<TestLimits>;
    const voters = Array.from(
      { length: Number(words[0]) },
      (_, i) => `${i + 1}`,
    );
    const learners = options.get("learners")?.split(",") ?? [];
    const extra = options.get("extra")?.split(",") ?? [];
    const world = new World(limits, (id, effect) => this.#print(id, effect));
    this.#world = world;
    const configuration = simpleConfiguration(voters, learners);
    for (const id of [...voters, ...learners, ...extra]) {
      world.add(id, configuration);
    }
  }

  #drive({ name, words, options }: Command, world: World): void {
    const [first = "", second = ""] = words;
    switch (name) {
      case "deliver":
        return this.#deliver(words, options.get("type"));
      case "settle":
        this.#isBrief = true;
        this.#deliver([], undefined);
        this.#isBrief = false;
        return;
      case "elect":
        world.turn(first, { type: "campaign" });
        this.#deliver([], undefined);
        this.#lines = [];
        return;
      case "drop":
        world.queue = world.queue.filter((m) => !matches(m, words));
        return;
      case "cut":
        for (const link of words) this.#cuts.add(link);
        return;
      case "heal":
        return this.#cuts.clear();
      case "repeat": {
        const again = world.queue.filter((m) => matches(m, words)).at(-1);
        if (again !== undefined) world.queue.push(again);
        return;
      }
      case "disk":
        world.node(first).syncsItself = second === "auto";
        return;
      case "persist":
        return world.persist(first);
      case "crash":
        return world.crash(first);
      case "restart":
        return world.start(first);
      case "compact":
        world.node(first).disk.compact(Number(second));
        world.node(first).disk.synced = world.node(first).disk.written;
        return world.turn(first, { type: "compacted", index: Number(second) });
      case "snapshots":
        world.sendsSnapshots = first === "auto";
        return;
      case "snapshot": {
        const [from = "", to = ""] = first.split("->");
        return world.ship(from, { to, ok: second !== "fail" });
      }
      case "status":
        return this.#status();
      case "log":
        for (const { id, disk } of world.nodes.values()) {
          const { base, entries } = disk.written;
          this.#lines.push(
            `${id}: after ${base.index}/${base.term} ${entriesText(entries)}`,
          );
        }
        return;
      case "progress":
        for (const [id, p] of world.replica(first).progress()) {
          this.#lines.push(`${id}: ${p.state} match=${p.match} next=${p.next}`);
        }
        return;
      case "queue":
        for (const message of world.queue) {
          this.#lines.push(messageText(message));
        }
        return;
      default:
        return this.#input({ name, words, options }, world);
    }
  }

  #input({ name, words, options }: Command, world: World): void {
    const [id = "", second = "", ...rest] = words;
    const list = (key: string) => options.get(key)?.split(",") ?? [];
    switch (name) {
      case "tick":
        this.#isBrief = Number(second || 1) > 1;
        for (let i = 0; i < Number(second || 1); i += 1) {
          world.turn(id, { type: "tick" });
        }
        this.#isBrief = false;
        return;
      case "campaign":
        return world.turn(id, { type: "campaign" });
      case "propose": {
        const inputs = [second, ...rest].map((text) => ({
          type: "propose" as const,
          data: new TextEncoder().encode(
            options.has("bytes")
              ? text.padEnd(Number(options.get("bytes")), ".")
              : text,
          ),
        }));
        return world.turn(id, ...inputs);
      }
      case "read": {
        const reads = options.get("id")!.split(",").map((text) => ({
          type: "read" as const,
          id: Number(text),
        }));
        return world.turn(id, ...reads);
      }
      case "transfer":
        return world.turn(id, { type: "transfer", target: second || null });
      case "unreachable":
        return world.turn(id, { type: "unreachable", member: second });
      case "persisted":
        return world.turn(id, {
          type: "persisted",
          term: Number(options.get("term")),
          index: Number(options.get("index")),
        });
      case "configure":
        return world.turn(id, {
          type: "configure",
          change: {
            addLearners: list("add"),
            promote: list("promote"),
            demote: list("demote"),
            remove: list("remove"),
          },
        });
      default:
        throw new Error(`Unknown command ${name}`);
    }
  }

  #deliver(links: readonly string[], type: string | undefined): void {
    const world = this.#world!;
    const isMeant = (m: Message) =>
      (links.length === 0 || matches(m, links)) &&
      (type === undefined || m.type === type);
    const onlyNow = links.length > 0 || type !== undefined;
    let batch = world.queue.filter(isMeant);
    for (let i = 0; batch.length > 0; i += 1) {
      if (i > 200) throw new Error("The messages do not come to an end");
      world.queue = world.queue.filter((m) => !batch.includes(m));
      for (const message of batch) {
        if (!this.#isCut(message)) world.deliver(message);
      }
      batch = onlyNow ? [] : world.queue.filter(isMeant);
    }
  }

  #isCut(message: Message): boolean {
    return this.#cuts.size > 0 && matches(message, [...this.#cuts]);
  }

  #status(): void {
    for (const { id, replica } of this.#world!.nodes.values()) {
      if (replica === null) {
        this.#lines.push(`${id}: down`);
        continue;
      }
      const { role, term, leader, commit, applied, lastIndex } = replica;
      this.#lines.push(
        `${id}: ${role} term=${term} leader=${
          leader ?? "-"
        } last=${lastIndex}` +
          ` commit=${commit} applied=${applied}`,
      );
    }
  }

  #print(id: MemberId, effect: Effect): void {
    const text = effectText(id, effect, this.#isBrief);
    if (text !== null) this.#lines.push(text);
  }
}

/** `1->2` is one link, `2` every link of a node, `2->*` and `*->2` half of them. */
function matches({ from, to }: Message, links: readonly string[]): boolean {
  if (links.length === 0) return true;
  return links.some((link) => {
    const [a = "", b] = link.split("->");
    if (b === undefined) return from === a || to === a;
    return (a === "*" || a === from) && (b === "*" || b === to);
  });
}

function effectText(
  id: MemberId,
  effect: Effect,
  isBrief: boolean,
): string | null {
  switch (effect.type) {
    case "send":
      return isBrief ? null : messageText(effect.message);
    case "sendAfterPersist":
      return isBrief
        ? null
        : `${id}: after disk: ${messageText(effect.message)}`;
    case "persist":
      return isBrief ? null : persistText(id, effect);
    case "apply":
      return `${id}: apply ${entriesText(effect.entries)}`;
    case "refused":
      return `${id}: refused ${effect.reason}`;
    case "configureRefused":
      return `${id}: configure refused ${effect.code}: ${effect.message}`;
    case "readReady":
      return `${id}: read ${effect.id} ready at ${effect.index}`;
    case "readLost":
      return `${id}: read ${effect.id} lost`;
    case "sendSnapshot":
      return `${id}: send snapshot to ${effect.member}`;
    case "installSnapshot":
      return `${id}: install snapshot ${effect.meta.index}/${effect.meta.term}`;
    case "role":
      return `${id}: role ${effect.role} term=${effect.term} leader=${
        effect.leader ?? "-"
      }`;
    case "configuration":
      return `${id}: configuration ${
        configurationText(effect.configuration)
      } from ${effect.index}`;
    default:
      return unreachable(effect);
  }
}

function persistText(
  id: MemberId,
  { hardState, truncateFrom, entries }: Extract<Effect, { type: "persist" }>,
): string {
  const parts = [`${id}: persist`];
  if (hardState !== null) {
    const { term, vote, commit } = hardState;
    parts.push(`term=${term} vote=${vote ?? "-"} commit=${commit}`);
  }
  if (truncateFrom !== null) parts.push(`truncate from ${truncateFrom}`);
  if (entries.length > 0) parts.push(entriesText(entries));
  return parts.join(" ");
}

function entriesText(entries: readonly Entry[]): string {
  return `[${
    entries.map((entry) => {
      const at = `${entry.index}/${entry.term}`;
      if (entry.type === "empty") return at;
      if (entry.type === "batch") {
        const data = new TextDecoder().decode(entry.data);
        return `${at} ${data.replace(/\.+$/, "…")}`;
      }
      return `${at} ${configurationText(entry.configuration)}`;
    }).join(", ")
  }]`;
}

function configurationText(configuration: Configuration): string {
  const { voters, votersOutgoing, learners, learnersNext } = configuration;
  let text = `{${voters.join(" ")}}`;
  if (votersOutgoing.length > 0) text += `&{${votersOutgoing.join(" ")}}`;
  if (learners.length > 0) text += ` learners {${learners.join(" ")}}`;
  if (learnersNext.length > 0) text += ` next {${learnersNext.join(" ")}}`;
  return text;
}

function messageText(message: Message): string {
  const { from, to, term, type } = message;
  return `${from}->${to} ${type} term=${term}${bodyText(message)}`;
}

function bodyText(message: Message): string {
  switch (message.type) {
    case "append": {
      const { previousIndex, previousTerm, entries, commit } = message;
      return ` after=${previousIndex}/${previousTerm} ${
        entriesText(entries)
      } commit=${commit}`;
    }
    case "appendReply":
      return ` index=${message.index}`;
    case "appendReject":
      return ` index=${message.index} hint=${message.hintIndex}/${message.hintTerm}`;
    case "heartbeat":
      return ` commit=${message.commit} round=${message.readRound}`;
    case "heartbeatReply":
      return ` round=${message.readRound}`;
    case "vote":
      return `${message.preVote ? " pre" : ""}${
        message.transfer ? " transfer" : ""
      } last=${message.lastIndex}/${message.lastTerm}`;
    case "voteReply":
      return `${message.preVote ? " pre" : ""} ${
        message.granted ? "granted" : "refused"
      }`;
    case "readIndex":
      return ` id=${message.id}`;
    case "readIndexReply":
      return ` id=${message.id} index=${message.index ?? "-"}`;
    case "snapshot":
      return ` ${message.meta.index}/${message.meta.term} ${
        configurationText(message.meta.configuration)
      }`;
    case "transferLeadership":
      return ` target=${message.target ?? "-"}`;
    case "timeoutNow":
    case "forward":
    case "forwardRefused":
    case "configure":
      return "";
    default:
      return unreachable(message);
  }
}
