import {
  assert,
  assertEquals,
  assertGreaterOrEqual,
  assertThrows,
} from "@std/assert";
import { hasQuorum, membersOf, simpleConfiguration } from "../members.ts";
import type { Entry, Index, MemberId, Message, Term } from "../message.ts";
import { READS_MAX } from "../reads.ts";
import {
  type CoreMessage,
  type Effect,
  type Input,
  Replicate,
} from "../replicate.ts";
import { testScripts } from "./golden.ts";
import { scriptHandler } from "./replica_scripts.ts";
import { Disk, TEST_LIMITS, type TestLimits, World } from "./replicas.ts";

testScripts([
  "elections.txt",
  "prevote.txt",
  "check_quorum.txt",
  "log_repair.txt",
  "commit_own_term.txt",
  "read_index.txt",
  "transfer.txt",
  "joint_consensus.txt",
  "learners.txt",
  "snapshots.txt",
  "flow_control.txt",
  "persistence.txt",
], {
  folder: new URL("./data/replicate/", import.meta.url),
  handler: scriptHandler,
});

const abc = simpleConfiguration(["1", "2", "3"]);

/** One replica of three, without a world around it. */
function lone(limits: Partial<TestLimits> = {}) {
  const disk = new Disk(abc);
  const hardState = { term: 1, vote: null, commit: 0 };
  const replica = new Replicate({
    ...TEST_LIMITS,
    ...limits,
    id: "1",
    storage: disk,
    hardState,
    applied: 0,
    configuration: abc,
    configurationIndex: 0,
  });
  /** Steps an input; writes go to the disk and are not synced. */
  function step(input: Input): Effect[] {
    const effects = replica.step(input);
    for (const effect of effects) {
      if (effect.type === "persist") disk.write(effect);
    }
    replica.assertInvariants();
    return effects;
  }
  function receive(from: MemberId, body: object, term = 1): Effect[] {
    const message = { from, to: "1", term, ...body } as CoreMessage;
    return step({ type: "message", message });
  }
  function sync(): Effect[] {
    const index = disk.lastIndex;
    return step({ type: "persisted", index, term: disk.term(index) });
  }
  return { disk, replica, step, receive, sync };
}

function batch(index: Index, term: Term): Entry {
  return { type: "batch", index, term, data: new Uint8Array([index]) };
}

/** Makes a lone replica the leader of term 2, with its empty entry on disk and committed. */
function leading(limits: Partial<TestLimits> = {}) {
  const it = lone(limits);
  it.step({ type: "campaign" });
  const grant = { type: "voteReply", granted: true };
  it.receive("2", { ...grant, preVote: true }, 2);
  it.sync();
  it.receive("2", { ...grant, preVote: false }, 2);
  it.sync();
  it.step({ type: "flush", tellCommit: true });
  it.receive("2", { type: "appendReply", index: 1 }, 2);
  it.step({ type: "applied", index: 1 });
  assertEquals([it.replica.role, it.replica.commit], ["leader", 1]);
  return it;
}

function typesOf(effects: Effect[]): string[] {
  return effects.map((effect) => effect.type);
}

Deno.test("a vote survives a crash, so no second candidate gets it in the same term (P4)", () => {
  const world = new World({}, () => {});
  for (const id of abc.voters) world.add(id, abc);
  const ask = { type: "vote", preVote: false, transfer: false } as const;
  const last = { lastIndex: 0, lastTerm: 0, term: 1 };
  world.deliver({ ...ask, ...last, from: "2", to: "1" });
  world.crash("1");
  world.start("1");
  world.deliver({ ...ask, ...last, from: "3", to: "1" });
  world.deliver({ ...ask, ...last, from: "2", to: "1" });
  const answers = world.queue.map((message) =>
    message.type === "voteReply" && [message.to, message.granted]
  );
  assertEquals(answers, [["2", true], ["3", false], ["2", true]]);
});

Deno.test("a pre-vote from any role changes nothing (E2)", () => {
  for (const it of [lone(), leading()]) {
    const { role, term, leader } = it.replica;
    const effects = it.receive("3", {
      type: "vote",
      preVote: true,
      transfer: false,
      lastIndex: 9,
      lastTerm: 9,
    }, 10);
    assert(!typesOf(effects).includes("persist"));
    assert(!typesOf(effects).includes("role"));
    assertEquals(it.replica.role, role);
    assertEquals(it.replica.term, term);
    assertEquals(it.replica.leader, leader);
  }
});

Deno.test("a low-term pre-vote and a low-term leader get an answer (E3)", () => {
  const { receive } = lone();
  const vote = { type: "vote", preVote: true, transfer: false };
  const refusal = receive("2", { ...vote, lastIndex: 0, lastTerm: 0 }, 0)[0];
  assert(refusal?.type === "send" && refusal.message.type === "voteReply");
  assertEquals([refusal.message.granted, refusal.message.term], [false, 1]);
  const heartbeat = { type: "heartbeat", commit: 0, readRound: 0 };
  const reply = receive("2", heartbeat, 0)[0];
  assert(reply?.type === "send" && reply.message.type === "appendReply");
  assertEquals([reply.message.index, reply.message.term], [0, 1]);
});

Deno.test("a commit index covers only entries verified with this leader (S11)", () => {
  const { replica, receive } = lone();
  const entries = [batch(1, 1), batch(2, 1), batch(3, 1)];
  const append = { type: "append", previousIndex: 0, previousTerm: 0 };
  receive("2", { ...append, entries, commit: 0 });
  // The leader of term 2 shares entry 1; what this replica has at 2 and 3 may not be what it has.
  const next = { type: "append", previousIndex: 1, previousTerm: 1 };
  receive("3", { ...next, entries: [], commit: 3 }, 2);
  assertEquals(replica.commit, 1);
});

Deno.test("an acknowledgement waits for the disk even if an old write completes (P5)", () => {
  const { replica, receive, step } = lone();
  const append = { type: "append", previousIndex: 0, previousTerm: 0 };
  receive("2", { ...append, entries: [batch(1, 1), batch(2, 1)], commit: 0 });
  receive(
    "3",
    { ...append, entries: [batch(1, 2), batch(2, 2)], commit: 0 },
    2,
  );
  step({ type: "persisted", index: 2, term: 1 });
  assertEquals(replica.stableIndex, 0);
  const again = { ...append, entries: [batch(1, 2)], commit: 0 };
  assertEquals(typesOf(receive("3", again, 2)), ["sendAfterPersist"]);
});

Deno.test("a rejection in a term that is not on disk waits for it (P1)", () => {
  const { receive, sync } = lone();
  const append = { type: "append", previousIndex: 5, previousTerm: 1 };
  const effects = receive("2", { ...append, entries: [], commit: 0 }, 3);
  assertEquals(typesOf(effects), ["persist", "sendAfterPersist", "role"]);
  sync();
  const again = receive("2", { ...append, entries: [], commit: 0 }, 3);
  assertEquals(typesOf(again), ["send"]);
});

Deno.test("term and entries are in one persist effect (P3)", () => {
  const { receive } = lone();
  const append = { type: "append", previousIndex: 0, previousTerm: 0 };
  const [first] = receive("2", {
    ...append,
    entries: [batch(1, 4)],
    commit: 0,
  }, 4);
  assert(first?.type === "persist");
  assertEquals([first.hardState?.term, first.entries.length], [4, 1]);
});

Deno.test("a late answer to an earlier round confirms no later read (R2)", () => {
  const { step, receive } = leading();
  const reply = { type: "heartbeatReply" };
  step({ type: "read", id: 1 });
  step({ type: "flush", tellCommit: true });
  step({ type: "read", id: 2 });
  step({ type: "flush", tellCommit: true });
  const first = receive("2", { ...reply, readRound: 1 }, 2);
  assertEquals(first, [{ type: "readReady", id: 1, index: 1 }]);
  assertEquals(receive("3", { ...reply, readRound: 1 }, 2), []);
  const second = receive("3", { ...reply, readRound: 2 }, 2);
  assertEquals(second, [{ type: "readReady", id: 2, index: 1 }]);
});

Deno.test("reads over the limit are lost at once, and all others when the leader steps down (E10)", () => {
  const { step, receive } = leading();
  for (let id = 1; id <= READS_MAX; id += 1) {
    assertEquals(step({ type: "read", id }), []);
  }
  const id = READS_MAX + 1;
  assertEquals(step({ type: "read", id }), [{ type: "readLost", id }]);
  const heartbeat = { type: "heartbeat", commit: 0, readRound: 0 };
  const lost = receive("2", heartbeat, 3)
    .filter((effect) => effect.type === "readLost");
  assertEquals(lost.length, READS_MAX);
});

Deno.test("an acknowledgement and a rejection out of order move nothing back (S9, S10)", () => {
  const { replica, step, receive } = leading();
  step({ type: "propose", data: new Uint8Array(1) });
  step({ type: "flush", tellCommit: true });
  receive("2", { type: "appendReply", index: 2 }, 2);
  const reject = { hintIndex: 0, hintTerm: 0, lastIndex: 0 };
  receive("2", { type: "appendReject", index: 1, ...reject }, 2);
  receive("2", { type: "appendReply", index: 1 }, 2);
  assertEquals(replica.progress().get("2"), {
    match: 2,
    next: 3,
    state: "replicate",
  });
});

Deno.test("what a follower was told to forget does not come back after a snapshot (S2)", () => {
  const { replica, receive, step } = lone();
  const append = { type: "append", previousIndex: 0, previousTerm: 0 };
  const configuration = simpleConfiguration(["1", "9"]);
  const entry = { type: "configuration", index: 1, term: 1, configuration };
  receive("2", { ...append, entries: [entry, batch(2, 1)], commit: 0 });
  assertEquals(replica.configuration, configuration);
  const meta = { index: 2, term: 2, configuration: abc };
  const effects = receive("3", { type: "snapshot", meta }, 2);
  assert(typesOf(effects).includes("installSnapshot"));
  // Until it is installed the log stands still.
  assertEquals(receive("3", { ...append, entries: [], commit: 0 }, 2), []);
  const installed = step({ type: "snapshotInstalled", meta });
  assertEquals(typesOf(installed), [
    "configuration",
    "persist",
    "sendAfterPersist",
  ]);
  assertEquals(replica.configuration, abc);
  assertEquals([replica.firstIndex, replica.commit, replica.applied], [
    3,
    2,
    2,
  ]);
});

Deno.test("a snapshot from a term after its leader's is ignored (S7)", () => {
  const { receive } = lone();
  const meta = { index: 2, term: 5, configuration: abc };
  const effects = receive("2", { type: "snapshot", meta }, 2);
  assert(!typesOf(effects).includes("installSnapshot"));
});

Deno.test("configurations after the base are found at start", () => {
  const { disk, receive } = lone();
  const append = { type: "append", previousIndex: 0, previousTerm: 0 };
  const configuration = simpleConfiguration(["1", "2", "3", "4"]);
  const entry = { type: "configuration", index: 2, term: 1, configuration };
  const entries = [batch(1, 1), entry, batch(3, 1)];
  receive("2", { ...append, entries, commit: 0 });
  const again = new Replicate({
    ...TEST_LIMITS,
    id: "1",
    storage: disk,
    hardState: { term: 1, vote: null, commit: 0 },
    applied: 0,
    configuration: abc,
    configurationIndex: 0,
  });
  assertEquals(again.configuration, configuration);
  assertEquals(again.configurationIndex, 2);
});

Deno.test("two leaders in one term are an assertion", () => {
  const { receive } = lone();
  const heartbeat = { type: "heartbeat", commit: 0, readRound: 0 };
  receive("2", heartbeat);
  assertThrows(() => receive("3", heartbeat), Error, "Two leaders in term 1");
});

Deno.test("the same seed gives the same timeouts, another member others (E11)", () => {
  function campaignsAt(limits: Partial<TestLimits>): number[] {
    const { step } = lone(limits);
    const at: number[] = [];
    for (let tick = 0; tick < 200; tick += 1) {
      const effects = step({ type: "tick" });
      if (effects.some((effect) => effect.type === "send")) at.push(tick);
    }
    return at;
  }
  const once = campaignsAt({ seed: 7 });
  assertEquals(once, campaignsAt({ seed: 7 }));
  assert(once.join() !== campaignsAt({ seed: 8 }).join());
  for (const [i, tick] of once.entries()) {
    const waited = tick - (once[i - 1] ?? -1);
    assert(waited >= 10 && waited < 20, `Waited ${waited} ticks`);
  }
});

// A random test: everything may fail, nothing may go wrong; then everything is healed and must agree.

/** What has happened in the whole world, to hold each replica against. */
class Witness {
  readonly leaders = new Map<Term, MemberId>();
  /** Every entry that was ever written, with the term of the one before it. */
  readonly written = new Map<string, string>();
  readonly applied = new Map<Index, string>();
  readonly states = new Map<Index, string>();
  /** Reads that wait, with the highest index that was committed anywhere when they were asked. */
  readonly reads = new Map<number, { reader: MemberId; index: Index }>();
  nextRead = 1;
  readsReady = 0;
  commitMax = 0;
  /** Members on different sides do not hear each other; empty if there is no partition. */
  sides = new Map<MemberId, number>();
  /** How many of a thousand steps start an election for no reason, or crash a node. */
  unrest = 0;
  readonly world: World;

  constructor(limits: Partial<TestLimits>) {
    this.world = new World(limits, (id, effect) => this.#see(id, effect));
  }

  check(): void {
    for (const [id, { disk, replica }] of this.world.nodes) {
      if (replica === null) continue;
      if (replica.role === "leader" && replica.commit > this.commitMax) {
        this.#checkDurable(id);
      }
      this.commitMax = Math.max(this.commitMax, replica.commit);
      const { applied, state } = disk.written;
      const known = this.states.get(applied) ?? state.join();
      assertEquals(state.join(), known, `State of ${id} at ${applied}`);
      this.states.set(applied, known);
    }
  }

  #see(id: MemberId, effect: Effect): void {
    if (effect.type === "send") {
      this.#checkPromise(effect.message);
    } else if (effect.type === "role" && effect.role === "leader") {
      const other = this.leaders.get(effect.term) ?? id;
      assertEquals(other, id, `Two leaders in term ${effect.term}`);
      this.leaders.set(effect.term, id);
      this.#checkComplete(id);
    } else if (effect.type === "persist") {
      this.#checkWritten(id, effect);
    } else if (effect.type === "apply") {
      for (const entry of effect.entries) {
        const known = this.applied.get(entry.index) ?? text(entry);
        assertEquals(text(entry), known, `Applied at ${entry.index} by ${id}`);
        this.applied.set(entry.index, known);
      }
    } else if (effect.type === "readReady") {
      const read = this.reads.get(effect.id);
      assert(read !== undefined, `Read ${effect.id} answered twice`);
      assertGreaterOrEqual(
        effect.index,
        read.index,
        `Read ${effect.id} is stale`,
      );
      this.reads.delete(effect.id);
      this.readsReady += 1;
    } else if (effect.type === "readLost") {
      assert(this.reads.delete(effect.id), `Read ${effect.id} lost twice`);
    }
  }

  /** P1, P3, P4: what a message promises is on the disk when it leaves. */
  #checkPromise(message: Message): void {
    const { from, term, type } = message;
    if ((type === "vote" || type === "voteReply") && message.preVote) return;
    // Questions promise nothing.
    if (type.startsWith("readIndex") || type === "transferLeadership") return;
    const { hardState, base, entries } = this.world.node(from).disk.synced;
    const what = `${type} of ${from} in term ${term}`;
    assertGreaterOrEqual(hardState.term, term, `${what}: term not synced`);
    // A later term has overruled what this says; the sender's promise was kept until then.
    if (hardState.term > term) return;
    if (type === "appendReply") {
      const last = base.index + entries.length;
      assertGreaterOrEqual(last, message.index, `${what}: entries not synced`);
    } else {
      const vote = type === "vote"
        ? from
        : type === "voteReply" && message.granted
        ? message.to
        : hardState.vote;
      assertEquals(hardState.vote, vote, `${what}: vote not synced`);
    }
  }

  /** Log matching: the same index and term mean the same entry, after the same one. */
  #checkWritten(id: MemberId, effect: Effect & { type: "persist" }): void {
    const first = effect.entries[0];
    if (first === undefined) return;
    let previous = this.world.node(id).disk.term(first.index - 1);
    for (const entry of effect.entries) {
      const key = `${entry.index}/${entry.term}`;
      const value = `${previous} ${text(entry)}`;
      assertEquals(value, this.written.get(key) ?? value, `Log at ${key}`);
      this.written.set(key, value);
      previous = entry.term;
    }
  }

  /** Leader completeness: what was committed before is in the log of each new leader. */
  #checkComplete(id: MemberId): void {
    const { disk } = this.world.node(id);
    for (const [index, known] of this.applied) {
      if (index < disk.firstIndex) continue;
      const entry = disk.entries(index, index + 1, 1)[0];
      assert(entry !== undefined, `Leader ${id} lacks ${index}`);
      assertEquals(text(entry), known, `Leader ${id} at ${index}`);
    }
  }

  /** Committed means on the disks of a majority, synced. */
  #checkDurable(id: MemberId): void {
    const { commit, configuration } = this.world.replica(id);
    const term = this.world.node(id).disk.term(commit);
    const isDurable = hasQuorum(configuration, (member) => {
      const { base, entries } = this.world.node(member).disk.synced;
      if (commit <= base.index) return true;
      return entries[commit - base.index - 1]?.term === term;
    });
    assert(isDurable, `Commit ${commit} of ${id} is not on a majority's disks`);
  }
}

function text(entry: Entry): string {
  if (entry.type === "batch") {
    return `${entry.term} ${new TextDecoder().decode(entry.data)}`;
  }
  if (entry.type === "empty") return `${entry.term}`;
  return `${entry.term} ${JSON.stringify(entry.configuration)}`;
}

/** Numbers in [0, below), from a seed. */
function randomOf(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) % below;
  };
}

/** Takes a random message out of the network, or a random old one, so that links reorder. */
function takeMessage(world: World, random: (below: number) => number) {
  const reach = random(4) === 0 ? world.queue.length : 4;
  const at = random(Math.min(reach, world.queue.length));
  return world.queue.splice(at, 1)[0]!;
}

/** Does one random thing. */
function act(witness: Witness, random: (below: number) => number): void {
  const { world } = witness;
  const ids = [...world.nodes.keys()];
  const id = ids[random(ids.length)]!;
  const other = ids[random(ids.length)]!;
  const node = world.node(id);
  const { replica } = node;
  if (random(150) === 0) cut(witness, random);
  if (random(1000) < witness.unrest) return disturb(witness, random, id);
  const dice = random(1000);
  if (dice < 600) {
    if (world.queue.length === 0) return;
    const message = takeMessage(world, random);
    const fate = random(100);
    const { sides } = witness;
    if (sides.get(message.from) !== sides.get(message.to)) return;
    // A network that is slower than its senders loses messages.
    if (fate < 4 || world.queue.length > 50) return;
    if (fate < 8) world.queue.push(message);
    return world.deliver(message);
  }
  if (dice < 760) return world.turn(id, { type: "tick" });
  if (dice < 860) return world.persist(id);
  if (replica === null) {
    if (dice > 900) world.start(id);
    return;
  }
  if (dice < 930) {
    const data = new TextEncoder().encode(`${id}:${random(1e9)}`);
    return world.turn(leaderOr(id, witness, random), { type: "propose", data });
  }
  if (dice < 960) return askRead(witness, id);
  if (dice < 970) {
    const change = randomChange(random, other);
    return world.turn(leaderOr(id, witness, random), change);
  }
  if (dice < 976) return world.turn(id, { type: "transfer", target: other });
  if (dice < 980) return world.turn(id, { type: "campaign" });
  if (dice < 986) {
    return world.turn(id, { type: "unreachable", member: other });
  }
  if (dice < 994) {
    const index = Math.min(replica.applied, replica.stableIndex);
    if (index < replica.firstIndex) return;
    node.disk.compact(index);
    return world.turn(id, { type: "compacted", index });
  }
}

/** Anyone may campaign at any moment, and any node may crash: that must never do harm. */
function disturb(
  witness: Witness,
  random: (below: number) => number,
  id: MemberId,
): void {
  const { world } = witness;
  const { replica } = world.node(id);
  if (random(2) === 0) {
    forgetReads(witness, id);
    world.crash(id);
    if (random(2) === 0) world.start(id);
  } else if (replica !== null) {
    const { term } = replica;
    const type = "timeoutNow";
    world.deliver({ type, from: id, to: id, term });
  }
}

function leaderOr(
  id: MemberId,
  { world }: Witness,
  random: (below: number) => number,
): MemberId {
  const leaders = world.alive.filter((replica) => replica.role === "leader");
  return leaders[random(leaders.length)]?.id ?? id;
}

/** Cuts the network in two, at random, or joins it again. */
function cut(witness: Witness, random: (below: number) => number): void {
  const { sides, world } = witness;
  if (sides.size > 0 && random(2) === 0) return sides.clear();
  for (const id of world.nodes.keys()) sides.set(id, random(2));
}

function askRead(witness: Witness, id: MemberId): void {
  const read = witness.nextRead;
  witness.nextRead += 1;
  witness.reads.set(read, { reader: id, index: witness.commitMax });
  witness.world.turn(id, { type: "read", id: read });
}

function forgetReads(witness: Witness, id: MemberId): void {
  for (const [read, { reader }] of witness.reads) {
    if (reader === id) witness.reads.delete(read);
  }
}

function randomChange(
  random: (below: number) => number,
  id: MemberId,
): Input {
  const kinds = ["addLearners", "promote", "demote", "remove", "promote"];
  const kind = kinds[random(kinds.length)]!;
  return { type: "configure", change: { [kind]: [id] } };
}

/** No more faults: everyone must come to agree. */
function heal(witness: Witness): void {
  const { world } = witness;
  witness.sides.clear();
  for (const node of world.nodes.values()) {
    if (node.replica === null) world.start(node.id);
    node.syncsItself = true;
    world.persist(node.id);
  }
  for (let round = 0; round < 400; round += 1) {
    for (const id of world.nodes.keys()) {
      world.turn(id, { type: "tick" });
      for (let i = 0; i < 1000 && world.queue.length > 0; i += 1) {
        world.deliver(world.queue.shift()!);
      }
    }
    witness.check();
  }
  const leader = world.alive.find((replica) => replica.role === "leader");
  assert(leader !== undefined, "No leader after healing");
  assert(leader.committedInOwnTerm, "The leader cannot commit after healing");
  assertEquals(leader.applied, leader.lastIndex);
  assertEquals(leader.configuration.votersOutgoing, [], "Stuck in joint");
  for (const id of membersOf(leader.configuration)) {
    assertEquals(world.replica(id).applied, leader.applied, `Applied by ${id}`);
  }
  assertEquals(witness.reads.size, 0, "Reads that nobody answers");
}

function runRandom(seed: number, { voters, steps }: {
  voters: MemberId[];
  steps: number;
}): Witness {
  const random = randomOf(seed);
  const witness = new Witness({ seed, electionTicksMin: 3 + random(5) });
  try {
    const configuration = simpleConfiguration(voters);
    witness.unrest = [0, 5, 20, 40][seed % 4]!;
    for (const id of ["1", "2", "3", "4", "5"]) {
      witness.world.add(id, configuration).syncsItself = random(2) === 0;
    }
    for (let i = 0; i < steps; i += 1) {
      act(witness, random);
      witness.check();
    }
    heal(witness);
  } catch (error) {
    throw new Error(`Seed ${seed}, voters ${voters}: ${error}`, {
      cause: error,
    });
  }
  return witness;
}

for (const voters of [["1", "2", "3"], ["1", "2", "3", "4", "5"]]) {
  Deno.test(`random faults never break agreement among ${voters.length} voters`, () => {
    let applied = 0;
    let reads = 0;
    for (let seed = 1; seed <= 24; seed += 1) {
      const witness = runRandom(seed, { voters, steps: 3000 });
      applied += witness.applied.size;
      reads += witness.readsReady;
    }
    // A world in which nothing happens is safe as well.
    assertGreaterOrEqual(applied, 24 * 20);
    assertGreaterOrEqual(reads, 24);
  });
}
