/**
 * What does harm to a running cluster and its clients: draws faults from a seed, one or two at a
 * time, undoes each, and leaves everything whole. Used by `round.ts`.
 *
 * Faults are dealt from a deck in which each kind is once, so that a long run meets all of them
 * alike. Network and processes may suffer at the same time. What takes data from a node (damage,
 * wiping, a full disk) comes alone, on a minority, and only while every other node has everything.
 *
 * @module
 */

import { assert, unreachable } from "../../errors.ts";
import { eventually, type Status, type TestCluster } from "../cluster.ts";
import type { Random } from "../sim/random.ts";
import type { SmallDisks } from "../small_disks.ts";
import type { Availability } from "./availability.ts";
import type { Crowd } from "./crowd.ts";
import { between, Network, type Way } from "./network.ts";

/** What `Cluster.Status` tells of a member, beside what other tests look at. */
interface Member {
  readonly nodeId: string;
  readonly memberId: string;
}

/** Every kind of fault, by what it concerns. */
export const FAULTS = {
  process: [
    "kill leader",
    "kill follower",
    "kill minority",
    "kill majority",
    "kill all",
    "pause leader",
    "pause follower",
    "pause majority",
    "stop and start",
    "transfer",
  ],
  network: [
    "isolate",
    "one way in",
    "one way out",
    "halves",
    "bridge",
    "delay",
    "drop",
    "stall",
  ],
  client: [
    "kill client",
    "client unheard",
    "client deaf",
    "client refused",
  ],
  data: ["full disk", "damage", "wipe"],
} as const;

export type FaultGroup = keyof typeof FAULTS;
export type FaultKind = typeof FAULTS[FaultGroup][number];

/** What a nemesis acts on. */
export interface Arena {
  readonly cluster: TestCluster;
  readonly crowd: Crowd;
  /** Null where file systems cannot be mounted, or this round has none. */
  readonly disks: SmallDisks | null;
  readonly availability: Availability;
  readonly random: Random;
  /** Called when a fault begins, */
  readonly onFault: (kind: FaultKind, text: string) => void;
  /** and with what came of it. */
  readonly onMore: (kind: FaultKind, text: string) => void;
  /** Called with what should not be. */
  readonly onViolation: (text: string) => void;
  /** Called for each process of a node that was started. */
  readonly onStart: (id: string) => void;
}

/** How long a node may take to be level with the others. */
const LEVEL_MS_MAX = 40_000;
/** A node that is no further behind than this has everything that matters. */
const BEHIND_MAX = 500;
const STATUS_MS = 700;
/** How long a node with changed bytes is watched. */
const DAMAGED_MS = 3000;
const FULL_FREE_BYTES = 16 * 1024;
const FILL_BYTES = 256 * 1024;
const FILLS = 20;
const SQLITE_PAGE_BYTES = 4096;

/** Deals kinds of faults; lives longer than a round. */
export class Deck {
  readonly #random: Random;
  #cards: FaultKind[] = [];

  constructor(random: Random) {
    this.#random = random;
  }

  /** The next kind that `fits`; those that do not wait for another time. */
  deal(fits: (kind: FaultKind) => boolean): FaultKind {
    for (let turn = 0; turn < 2; turn++) {
      const at = this.#cards.findIndex(fits);
      if (at >= 0) return this.#cards.splice(at, 1)[0]!;
      const all = Object.values(FAULTS).flat();
      const fresh = all.filter((kind) => !this.#cards.includes(kind));
      this.#cards.push(...this.#random.sample(fresh, fresh.length));
    }
    throw new Error("No kind of fault fits");
  }
}

/** Harms one cluster for a while. */
export class Nemesis {
  readonly #arena: Arena;
  readonly #network: Network;
  readonly #abort = new AbortController();
  /** Nodes in whose files bytes are changed: they may say so, and end. */
  readonly damaged = new Set<string>();
  #closed = false;

  constructor(arena: Arena) {
    this.#arena = arena;
    this.#network = new Network(arena.cluster);
  }

  /** Faults and pauses until {@linkcode end}; each fault is undone before it returns. */
  async run(deck: Deck, isWanted: (kind: FaultKind) => boolean): Promise<void> {
    const { random, disks } = this.#arena;
    const fits = (kind: FaultKind) =>
      isWanted(kind) && (kind !== "full disk" || disks !== null);
    await this.#sleep(random.between(500, 1500));
    while (!this.#abort.signal.aborted) {
      const kind = deck.deal(fits);
      const kinds = [kind];
      const other = otherGroup(groupOf(kind), random);
      if (other !== null) {
        const same = FAULTS[other] as readonly FaultKind[];
        if (same.some(fits)) {
          kinds.push(deck.deal((next) => fits(next) && same.includes(next)));
        }
      }
      await Promise.all(kinds.map((kind) => this.#suffer(kind)));
      await this.#sleep(random.between(500, 3000));
    }
  }

  /** No more faults; what is under way ends early. */
  end(): void {
    this.#abort.abort();
  }

  /** Starts nothing any more, whatever is under way. */
  close(): void {
    this.#closed = true;
    this.end();
  }

  /** Makes everything whole: no fault is left, every node runs. */
  async heal(): Promise<void> {
    const { cluster, crowd, disks } = this.#arena;
    this.#network.heal();
    for (let place = 0; place < crowd.places; place++) crowd.mend(place);
    for (const id of cluster.ids) {
      disks?.dropBallast(id);
      cluster.thaw(id);
    }
    const running = cluster.running();
    const dead = cluster.ids.filter((id) => !running.includes(id));
    await Promise.all(dead.map((id) => this.#start(id)));
  }

  async #suffer(kind: FaultKind): Promise<void> {
    try {
      await this.#inflict(kind);
    } catch (error) {
      if (this.#closed) return;
      const states = [...(await this.#states()).values()].map(stateText);
      this.#arena.onViolation(
        [`${kind}: ${(error as Error).message}`, ...states].join("\n    "),
      );
    }
  }

  #inflict(kind: FaultKind): Promise<void> {
    switch (kind) {
      case "kill leader":
      case "kill follower":
      case "kill minority":
      case "kill majority":
      case "kill all":
        return this.#kill(kind);
      case "pause leader":
      case "pause follower":
      case "pause majority":
        return this.#pause(kind);
      case "stop and start":
        return this.#stopAndStart();
      case "transfer":
        return this.#transfer();
      case "isolate":
      case "one way in":
      case "one way out":
      case "halves":
      case "bridge":
        return this.#part(kind);
      case "delay":
        return this.#delay();
      case "drop":
        return this.#drop();
      case "stall":
        return this.#stall();
      case "kill client":
      case "client unheard":
      case "client deaf":
      case "client refused":
        return this.#harmClient(kind);
      case "full disk":
        return this.#fillDisk();
      case "damage":
      case "wipe":
        return this.#takeData(kind);
      default:
        return unreachable(kind);
    }
  }

  // ---------------------------------------------------------------- processes

  async #kill(kind: FaultKind): Promise<void> {
    const { cluster, random } = this.#arena;
    const victims = await this.#victims(kind);
    this.#note(kind, victims.join(", "));
    await this.#touching(victims, async () => {
      await Promise.all(victims.map((id) => cluster.kill(id)));
      await this.#sleep(random.pick([0, 300, 1500, 4000, 6000]));
      if (random.below(2) === 0) {
        await Promise.all(victims.map((id) => this.#start(id)));
      } else {
        for (const id of victims) await this.#start(id);
      }
    });
  }

  /** SIGSTOP: the process notices nothing but that time has passed. */
  async #pause(kind: FaultKind): Promise<void> {
    const { cluster, random } = this.#arena;
    const victims = await this.#victims(kind);
    const pauseMs = random.pick([500, 900, 1500, 2500, 5000, 10_000]);
    this.#note(kind, `${victims.join(", ")} for ${pauseMs} ms`);
    await this.#touching(victims, async () => {
      for (const id of victims) cluster.freeze(id);
      await this.#sleep(pauseMs);
      for (const id of victims) cluster.thaw(id);
    });
  }

  async #stopAndStart(): Promise<void> {
    const { cluster, random } = this.#arena;
    const id = random.pick(cluster.ids);
    this.#note("stop and start", id);
    await this.#touching([id], async () => {
      await this.#stop(id);
      await this.#sleep(random.pick([0, 500, 3000]));
      await this.#start(id);
    });
  }

  async #transfer(): Promise<void> {
    const { cluster, random } = this.#arena;
    const leader = await this.#leader();
    const target = random.pick(cluster.ids.filter((id) => id !== leader));
    this.#note("transfer", `${leader} to ${target}`);
    await this.#touching([leader], async () => {
      const request = { nodeId: target };
      // It may be refused, for instance because the target is not level.
      await cluster.call(leader, "Cluster.TransferLeadership", request)
        .catch(() => {});
    });
  }

  // ---------------------------------------------------------------- network

  async #part(
    kind: "isolate" | "one way in" | "one way out" | "halves" | "bridge",
  ): Promise<void> {
    const { cluster, random } = this.#arena;
    const ids = random.sample(cluster.ids, cluster.ids.length);
    const [leader, [first = ""]] = [await this.#leader(), ids];
    // The leader is the one whose silence matters.
    const one = random.below(2) === 0 ? leader : first;
    const others = ids.filter((id) => id !== one);
    const half = Math.floor(ids.length / 2);
    const parts: Record<typeof kind, { ways: Way[]; touched: string[] }> = {
      isolate: { ways: between([one], others), touched: [one] },
      "one way in": {
        ways: others.map((from): Way => [from, one]),
        touched: [one],
      },
      "one way out": {
        ways: others.map((to): Way => [one, to]),
        touched: [one],
      },
      halves: {
        ways: between(ids.slice(0, half), ids.slice(half)),
        touched: ids.slice(0, half),
      },
      // Two groups that only `one` can talk to.
      bridge: {
        ways: between(others.slice(0, half), others.slice(half)),
        touched: ids,
      },
    };
    const { ways, touched } = parts[kind];
    const lastsMs = random.pick([700, 1500, 3000, 6000]);
    const isDropped = random.below(2) === 0;
    const end = isDropped ? "connections end" : "what was held comes late";
    const text = ways.map(([from, to]) => `${from}→${to}`).join(" ");
    this.#note(kind, `${text} for ${lastsMs} ms, then ${end}`);
    await this.#touching(touched, async () => {
      this.#network.cut(ways);
      await this.#sleep(lastsMs);
      if (isDropped) this.#network.drop(ways);
      this.#network.mend(ways);
    });
  }

  /** 75 ms, give or take 50, on some links, and other ones every moment. */
  async #delay(): Promise<void> {
    const { cluster, random } = this.#arena;
    const all = this.#network.ways;
    const ways = random.sample(all, random.between(1, all.length));
    const endMs = performance.now() + random.between(2000, 6000);
    this.#note("delay", `${ways.length} of ${all.length} links`);
    await this.#touching(cluster.ids, async () => {
      while (performance.now() < endMs && !this.#abort.signal.aborted) {
        this.#network.delay(ways, () => random.between(25, 125));
        await this.#sleep(300);
      }
      this.#network.delay(ways, () => 0);
    });
  }

  async #drop(): Promise<void> {
    const { cluster, random } = this.#arena;
    const times = random.between(1, 6);
    this.#note("drop", `${times} times`);
    await this.#touching(cluster.ids, async () => {
      for (let at = 0; at < times && !this.#abort.signal.aborted; at++) {
        const all = this.#network.ways;
        this.#network.drop(random.sample(all, random.between(1, all.length)));
        await this.#sleep(random.between(50, 800));
      }
    });
  }

  /** A link that comes and goes: bytes pass in bursts. */
  async #stall(): Promise<void> {
    const { cluster, random } = this.#arena;
    const id = random.pick(cluster.ids);
    const ways = between([id], cluster.ids.filter((other) => other !== id));
    const some = random.sample(ways, random.between(1, ways.length));
    const times = random.between(2, 6);
    this.#note("stall", `${some.length} links of ${id}, ${times} times`);
    await this.#touching([id], async () => {
      for (let at = 0; at < times && !this.#abort.signal.aborted; at++) {
        this.#network.cut(some);
        await this.#sleep(random.between(200, 1200));
        this.#network.mend(some);
        await this.#sleep(random.between(20, 300));
      }
    });
  }

  // ---------------------------------------------------------------- clients

  async #harmClient(
    kind: "kill client" | "client unheard" | "client deaf" | "client refused",
  ): Promise<void> {
    const { crowd, random } = this.#arena;
    const place = random.below(crowd.places);
    this.#note(kind, `place ${place}`);
    if (kind === "kill client") return await crowd.replace(place);
    const ways = {
      "client unheard": "requests",
      "client deaf": "answers",
      "client refused": "connections",
    } as const;
    crowd.cut(place, ways[kind]);
    await this.#sleep(random.pick([200, 1000, 2500, 5000]));
    crowd.mend(place);
  }

  // ---------------------------------------------------------------- data

  async #fillDisk(): Promise<void> {
    const { cluster, disks, random } = this.#arena;
    assert(disks !== null, "Full disks need small ones");
    if (!await this.#isLevel()) return;
    const minority = Math.floor((cluster.ids.length - 1) / 2);
    const leader = await this.#leader();
    const count = random.between(1, minority);
    const victims = random.below(2) === 0
      ? [leader]
      : random.sample(cluster.ids, count);
    this.#note("full disk", victims.join(", "));
    await this.#touching(victims, async () => {
      for (const id of victims) disks.addBallast(id, FULL_FREE_BYTES);
      await this.#fill();
      await this.#sleep(random.between(1000, 4000));
      const states = await this.#states();
      const full = victims.filter((id) => states.get(id)?.writeRefusal);
      if (full.length > 0) {
        this.#arena.onMore("full disk", `noticed by ${full}`);
      }
      for (const id of victims) disks.dropBallast(id);
      await eventually("nodes with space again accept writes", async () => {
        const states = await this.#states();
        return victims.every((id) => states.get(id)?.writeRefusal === "");
      }, LEVEL_MS_MAX);
    });
  }

  /** Large values, so that space is needed; under keys that nobody looks at. */
  async #fill(): Promise<void> {
    const { cluster, random } = this.#arena;
    const value = new Uint8Array(FILL_BYTES);
    for (let at = 0; at < FILL_BYTES; at += 4) {
      value.fill(random.below(256), at, at + 4);
    }
    for (let at = 0; at < FILLS && !this.#abort.signal.aborted; at++) {
      const key = new TextEncoder().encode(`fill/${at % 5}`);
      const id = random.pick(cluster.ids);
      await cluster.call(id, "KeyValue.Put", { key, value }).catch(() => {});
    }
  }

  /** Changes bytes of a node's file, or empties its directory; the node comes back as a new one. */
  async #takeData(kind: "damage" | "wipe"): Promise<void> {
    const { cluster, random } = this.#arena;
    if (!await this.#isLevel()) return;
    const id = random.below(2) === 0
      ? await this.#leader()
      : random.pick(cluster.ids);
    this.#note(kind, id);
    await this.#touching([id], async () => {
      if (kind === "damage") {
        this.damaged.add(id);
        await this.#damage(id);
      }
      await cluster.kill(id);
      this.damaged.delete(id);
      await this.#sleep(random.pick([0, 1000, 3000]));
      await this.#rejoin(id);
    });
  }

  /** It serves, correctly, or it refuses and says why. */
  async #damage(id: string): Promise<void> {
    const { cluster, random } = this.#arena;
    await this.#stop(id);
    const bytes = await flipBits(`${cluster.dataDir(id)}/default.db`, random);
    try {
      await this.#start(id);
      await this.#sleep(DAMAGED_MS);
    } catch {
      // It says why it did not start: see below.
    }
    const { exit, lines } = cluster.node(id);
    if (exit === null) {
      this.#arena.onMore("damage", `${id} serves with ${bytes} bytes changed`);
      return;
    }
    const output = lines.join("\n");
    const isPlain = exit.code === 1 && /damaged/.test(output) &&
      /--rejoin/.test(output);
    assert(
      isPlain,
      `${id} ended with ${exit.code}, and not plainly: ${output}`,
    );
    this.#arena.onMore("damage", `${id} refuses ${bytes} changed bytes`);
  }

  async #rejoin(id: string): Promise<void> {
    const { cluster } = this.#arena;
    const before = await this.#memberships();
    await Deno.remove(cluster.dataDir(id), { recursive: true });
    await this.#start(id, ["--rejoin"]);
    await eventually(`${id} votes again`, async () => {
      if (this.#closed) return true;
      // Until it has been replaced, the member that lost its disk looks as if it had everything.
      const now = await this.#memberships();
      return now.get(id) !== before.get(id) && await this.#levelled();
    }, LEVEL_MS_MAX);
  }

  /** The member that each node is, as its leader has it. */
  async #memberships(): Promise<ReadonlyMap<string, string>> {
    return await eventually("a leader says who its members are", async () => {
      const states = await this.#states();
      const leader = states.get(leaderOf(states) ?? "");
      const members = leader?.members as readonly unknown[] as
        | readonly Member[]
        | undefined;
      return members &&
        new Map(members.map(({ nodeId, memberId }) => [nodeId, memberId]));
    }, LEVEL_MS_MAX);
  }

  // ---------------------------------------------------------------- the cluster

  /** Waits until every member votes and has everything; false if the nemesis is to end. */
  async #isLevel(): Promise<boolean> {
    await eventually("every node has everything", async () => {
      if (this.#abort.signal.aborted) return true;
      return await this.#levelled();
    }, LEVEL_MS_MAX);
    return !this.#abort.signal.aborted;
  }

  async #levelled(): Promise<boolean> {
    const { cluster } = this.#arena;
    const states = await this.#states();
    const leader = states.get(leaderOf(states) ?? "");
    if (leader === undefined || states.size < cluster.ids.length) return false;
    const { members, lastIndex } = leader;
    return members.length === cluster.ids.length &&
      members.every(({ nodeId, suffrage, matchIndex }) =>
        suffrage === "voter" &&
        (nodeId === leader.header.nodeId || matchIndex > lastIndex - BEHIND_MAX)
      );
  }

  async #victims(kind: FaultKind): Promise<string[]> {
    const { cluster, random } = this.#arena;
    const leader = await this.#leader();
    const followers = cluster.ids.filter((id) => id !== leader);
    const majority = Math.floor(cluster.ids.length / 2) + 1;
    const [, which = ""] = kind.split(" ");
    switch (which) {
      case "leader":
        return [leader];
      case "follower":
        return [random.pick(followers)];
      case "minority":
        return random.sample(cluster.ids, cluster.ids.length - majority);
      case "majority":
        return random.sample(cluster.ids, majority);
      default:
        return [...cluster.ids];
    }
  }

  /** Who leads as far as anybody says; any node if nobody does. */
  async #leader(): Promise<string> {
    const { cluster, random } = this.#arena;
    return leaderOf(await this.#states()) ?? random.pick(cluster.ids);
  }

  /** What running nodes say that answer soon. */
  async #states(): Promise<Map<string, Status>> {
    const { cluster } = this.#arena;
    const states = new Map<string, Status>();
    await Promise.all(
      cluster.running().map(async (id) => {
        try {
          const method = "Cluster.Status";
          states.set(id, await cluster.call<Status>(id, method, {}, STATUS_MS));
        } catch {
          // Stopped, or busy.
        }
      }),
    );
    return states;
  }

  async #start(id: string, extraArgs: readonly string[] = []): Promise<void> {
    if (this.#closed) return;
    const { cluster, onStart } = this.#arena;
    if (cluster.node(id).exit === null) return;
    const started = cluster.restart(id, extraArgs);
    onStart(id);
    await started;
  }

  async #stop(id: string): Promise<void> {
    const { code, signal } = await this.#arena.cluster.stop(id);
    assert(
      code === 0,
      `${id} was asked to stop and ended with ${signal ?? `exit code ${code}`}`,
    );
  }

  #note(kind: FaultKind, text: string): void {
    this.#arena.onFault(kind, text);
  }

  async #touching(
    ids: readonly string[],
    run: () => Promise<void>,
  ): Promise<void> {
    const { availability } = this.#arena;
    availability.touch(ids, performance.now());
    try {
      await run();
    } finally {
      availability.release(ids, performance.now());
    }
  }

  /** Ends early when the nemesis is to end. */
  #sleep(ms: number): Promise<void> {
    return sleep(ms, this.#abort.signal);
  }
}

/** Waits this long, or until the signal is aborted. */
export function sleep(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
  });
}

/** Which group a kind is of. */
function groupOf(kind: FaultKind): FaultGroup {
  for (const group of Object.keys(FAULTS) as FaultGroup[]) {
    if ((FAULTS[group] as readonly FaultKind[]).includes(kind)) return group;
  }
  throw new Error(`No group has ${kind}`);
}

/** What may happen at the same time, if anything. */
function otherGroup(group: FaultGroup, random: Random): FaultGroup | null {
  if (random.below(3) !== 0) return null;
  switch (group) {
    case "process":
      return random.pick(["network", "client"]);
    case "network":
      return random.pick(["process", "client"]);
    case "client":
      return random.pick(["process", "network", "data"]);
    case "data":
      return "client";
    default:
      return unreachable(group);
  }
}

/** What tells why a node is not level. */
function stateText(state: Status): string {
  const { header, role, term, firstIndex, lastIndex, appliedIndex } = state;
  const members = state.members.map((member) =>
    `${member.nodeId} ${member.suffrage} ${member.progress} ${member.matchIndex}`
  );
  return `${header.nodeId} ${role} in term ${term}, log ${firstIndex} to ${lastIndex}, ` +
    `applied ${appliedIndex}: ${members.join(", ")}`;
}

/** Of those who say that they lead, the one of the newest term. */
function leaderOf(states: ReadonlyMap<string, Status>): string | null {
  let newest: Status | null = null;
  for (const state of states.values()) {
    if (state.role !== "leader") continue;
    if (newest === null || state.term > newest.term) newest = state;
  }
  return newest?.header.nodeId ?? null;
}

/** Changes one bit each in some bytes of a file behind its header, or in one run of bytes. */
async function flipBits(path: string, random: Random): Promise<number> {
  using file = await Deno.open(path, { read: true, write: true });
  const { size } = await file.stat();
  const count = random.pick([1, 4, 20, 200, 2000]);
  const isRun = random.below(2) === 0;
  const first = random.between(SQLITE_PAGE_BYTES, size - 1);
  for (let flipped = 0; flipped < count; flipped++) {
    const at = isRun
      ? Math.min(first + flipped, size - 1)
      : random.between(SQLITE_PAGE_BYTES, size - 1);
    const byte = new Uint8Array(1);
    await file.seek(at, Deno.SeekMode.Start);
    await file.read(byte);
    byte[0]! ^= 1 << random.below(8);
    await file.seek(at, Deno.SeekMode.Start);
    await file.write(byte);
  }
  return count;
}
