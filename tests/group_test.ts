/**
 * Replicas of one group with a network that a test can look into: what becomes of writes and reads
 * when messages are lost, leaders change and disks are full.
 */

import { assert, assertEquals, assertGreater } from "@std/assert";
import type { Request, WriteId } from "../batch.ts";
import { defaultSettings, type Settings } from "../config.ts";
import { Disk } from "../disk.ts";
import { DkvError } from "../errors.ts";
import { Group } from "../group.ts";
import { simpleConfiguration } from "../members.ts";
import type { MemberId, Message } from "../message.ts";
import type { Result } from "../results.ts";

const MEMBERS = ["n1", "n2", "n3"] as const;
const TICKS_MAX = 400;

/** What became of one write or read. */
interface Call {
  outcome: string | null;
  result: Result | null;
}

/** Three replicas; a message is delivered at once unless `lost` says otherwise. */
class World {
  readonly groups: ReadonlyMap<MemberId, Group>;
  readonly full = new Set<MemberId>();
  /** Members that do nothing and hear nothing. */
  readonly dead = new Set<MemberId>();
  /** Every message that was sent. */
  readonly sent: Message[] = [];
  /** How often a commit index was kept for a moment. */
  reminders = 0;
  lost: (message: Message) => boolean = () => false;
  readonly #woken = new Set<MemberId>();
  readonly #reminders = new Set<MemberId>();
  #way: Message[] = [];

  /** Snapshots that were asked for: of whom, for whom. */
  readonly snapshots: { from: MemberId; to: MemberId }[] = [];

  constructor(settings: Partial<Settings> = {}) {
    const bootstrap = simpleConfiguration([...MEMBERS]);
    this.groups = new Map(MEMBERS.map((member, at) => [
      member,
      new Group({
        id: "default",
        member,
        disk: new Disk({ path: ":memory:", bootstrap }),
        settings: { ...defaultSettings(), ...settings },
        seed: at + 1,
        origin: at + 1,
        clusterId: "c",
        outputs: {
          send: (message) => this.#send(message),
          wake: () => this.#woken.add(member),
          remind: () => {
            this.reminders++;
            this.#reminders.add(member);
          },
          shipSnapshot: (to) => this.snapshots.push({ from: member, to }),
          installSnapshot: () => {},
          writeRefusal: () => this.full.has(member) ? "no space" : null,
          diskExhausted: () => false,
          log: () => {},
        },
      }),
    ]));
  }

  group(member: MemberId): Group {
    const group = this.groups.get(member);
    assert(group !== undefined, member);
    return group;
  }

  get leader(): Group {
    const leader = this.#leader();
    assert(leader !== undefined, "no leader");
    return leader;
  }

  get followers(): Group[] {
    return [...this.groups.values()].filter((group) =>
      group.core.role !== "leader" && !this.dead.has(group.member)
    );
  }

  /** Turns and messages until nothing moves. */
  run(): void {
    for (let round = 0; this.#isBusy; round++) {
      assert(round < 10_000, "it never comes to rest");
      const woken = [...this.#woken];
      this.#woken.clear();
      for (const member of woken) {
        if (!this.dead.has(member)) this.group(member).turn();
      }
      // A moment later, which here is when nothing else is to be done.
      if (this.#way.length === 0) {
        for (const member of this.#reminders) this.group(member).tellCommit();
        this.#reminders.clear();
      }
      const way = this.#way;
      this.#way = [];
      for (const message of way) {
        if (!this.dead.has(message.to)) this.group(message.to).receive(message);
      }
    }
  }

  tick(count = 1): void {
    for (let i = 0; i < count; i++) {
      for (const [member, group] of this.groups) {
        if (!this.dead.has(member)) group.tick();
      }
      this.run();
    }
  }

  /** Ticks until there is a leader that has committed in its own term. */
  elect(): Group {
    this.tickUntil(() => {
      const leader = this.#leader();
      return leader !== undefined &&
        leader.store.state.appliedTerm === leader.core.term &&
        this.followers.every(({ core }) => core.leader === leader.member);
    });
    return this.leader;
  }

  tickUntil(isDone: () => boolean): void {
    for (let i = 0; !isDone(); i++) {
      assert(i < TICKS_MAX, `not within ${TICKS_MAX} ticks`);
      this.tick();
    }
  }

  put(
    group: Group,
    key: string,
    options: { writeId?: WriteId; timeoutMs?: number } = {},
  ): Call {
    return this.propose(group, {
      type: "put",
      key,
      value: new Uint8Array(1),
      lease: 0n,
      returnPrevious: false,
    }, options);
  }

  propose(
    group: Group,
    request: Request,
    options: { writeId?: WriteId; timeoutMs?: number } = {},
  ): Call {
    const call: Call = { outcome: null, result: null };
    group.propose(request, {
      writeId: options.writeId ?? null,
      timeoutMs: options.timeoutMs ?? 10_000,
      settle: (outcome) => {
        assertEquals(call.outcome, null, "told twice");
        if (outcome instanceof DkvError) call.outcome = outcome.code;
        else {
          call.outcome = outcome.type === "error" ? outcome.code : "done";
          call.result = outcome;
        }
      },
    });
    return call;
  }

  read(group: Group, timeoutMs = 10_000): Call {
    const call: Call = { outcome: null, result: null };
    group.read((error) => {
      assertEquals(call.outcome, null, "told twice");
      call.outcome = error?.code ?? "done";
    }, timeoutMs);
    return call;
  }

  version(key: string): number {
    const versions = [...this.groups.values()]
      .filter(({ member }) => !this.dead.has(member))
      .map(({ store }) => store.get(key, 0)?.version ?? 0);
    assertEquals(new Set(versions).size, 1, `replicas differ: ${versions}`);
    return versions[0] ?? 0;
  }

  forwards(): (Message & { type: "forward" })[] {
    return this.sent.filter((message) => message.type === "forward");
  }

  get #isBusy(): boolean {
    return this.#woken.size + this.#reminders.size + this.#way.length > 0;
  }

  #leader(): Group | undefined {
    return [...this.groups.values()].find(({ member, core }) =>
      core.role === "leader" && !this.dead.has(member)
    );
  }

  #send(message: Message): void {
    this.sent.push(message);
    if (!this.lost(message)) this.#way.push(message);
  }
}

function elected(): { world: World; leader: Group; follower: Group } {
  const world = new World();
  const leader = world.elect();
  // The first leader proposes something of its own.
  world.tick(2);
  const [follower] = world.followers;
  assert(follower !== undefined);
  return { world, leader, follower };
}

Deno.test("group: a write through any replica is answered once it is applied there", () => {
  const { world, leader } = elected();
  for (const [at, group] of [leader, ...world.followers].entries()) {
    const call = world.put(group, "a");
    world.run();
    assertEquals(call.outcome, "done");
    assertEquals(group.store.get("a", 0)?.version, at + 1);
  }
});

Deno.test("group: many writes of one turn share an entry of the log", () => {
  const { world, leader, follower } = elected();
  const before = leader.core.lastIndex;
  const calls = [leader, follower].flatMap((group) =>
    Array.from({ length: 100 }, (_, at) => world.put(group, `k${at}`))
  );
  world.run();
  assert(calls.every(({ outcome }) => outcome === "done"));
  assert(leader.core.lastIndex - before <= 2);
});

Deno.test("group: a forward whose leader died is submitted again and applied once", () => {
  const { world, leader, follower } = elected();
  // The leader dies before anyone hears of the write.
  world.lost = (message) => message.from === leader.member;
  const call = world.put(follower, "a");
  world.run();
  assertEquals(call.outcome, null);
  assertGreater(world.forwards().length, 0);
  world.dead.add(leader.member);
  world.lost = () => false;
  world.tickUntil(() => call.outcome !== null);
  assertEquals(call.outcome, "done");
  assertEquals(world.version("a"), 1);
  // The old leader comes back with the write in its log, and gives it up.
  world.dead.clear();
  world.tick(40);
  assertEquals(world.version("a"), 1);
});

Deno.test("group: a forward that its dead leader had replicated is not submitted again", () => {
  const { world, leader, follower } = elected();
  // Committed by the old leader and the others, but nobody is told.
  world.lost = (message) =>
    message.from === leader.member && message.type === "heartbeat" ||
    message.from === leader.member && message.type === "append" &&
      message.entries.length === 0;
  const call = world.put(follower, "a");
  world.run();
  world.dead.add(leader.member);
  world.lost = () => false;
  world.tickUntil(() => call.outcome !== null);
  world.tick(20);
  assertEquals([call.outcome, world.version("a")], ["done", 1]);
});

Deno.test("group: a forward that was lost is sent again; one that was only unanswered is applied once (raft-pitfalls R8)", () => {
  const { world, leader, follower } = elected();
  let losses = 0;
  world.lost = (message) => message.type === "forward" && losses++ === 0;
  const lost = world.put(follower, "lost");
  world.run();
  assertEquals(lost.outcome, null);
  world.tickUntil(() => lost.outcome !== null);
  assertEquals([lost.outcome, world.version("lost")], ["done", 1]);

  // The forward arrives, but the sender hears nothing for a while and repeats itself.
  world.lost = ({ to, type }) => to === follower.member && type === "append";
  const slow = world.put(follower, "slow");
  const before = world.forwards().length;
  world.tickUntil(() => world.forwards().length >= before + 3);
  world.lost = () => false;
  world.tickUntil(() => slow.outcome !== null);
  assertEquals([slow.outcome, world.version("slow")], ["done", 1]);
  assertEquals(world.leader.member, leader.member);
});

Deno.test("group: a copy of a forward that comes late is no news", () => {
  const { world, leader, follower } = elected();
  const first = world.put(follower, "a");
  world.run();
  const [copy] = world.forwards();
  assert(copy !== undefined);
  // Later forwards have told the leader that this one is settled.
  const second = world.put(follower, "b");
  world.run();
  leader.receive(copy);
  world.run();
  assertEquals([first.outcome, second.outcome], ["done", "done"]);
  assertEquals(world.version("a"), 1);
  // Nor in another term, which a forward names.
  world.dead.add(leader.member);
  const next = world.elect();
  next.receive({ ...copy, to: next.member });
  world.run();
  assertEquals(world.version("a"), 1);
});

Deno.test("group: what a leader without space refused stays refused", () => {
  const { world, leader, follower } = elected();
  const warm = world.put(follower, "kept");
  world.run();
  assertEquals(warm.outcome, "done");
  world.full.add(leader.member);
  const own = world.put(leader, "a");
  const forwarded = world.put(follower, "a");
  world.run();
  assertEquals([own.outcome, forwarded.outcome], ["DISK_FULL", "DISK_FULL"]);
  const refused = world.forwards().at(-1);
  assert(refused !== undefined);
  const range = { start: "kept", end: "kept\0" };
  const deletion = world.propose(follower, {
    type: "delete",
    range,
    returnPrevious: false,
  });
  world.run();
  assertEquals(deletion.outcome, "done");
  world.full.clear();
  // The refusal was told to a client: a copy of the forward must not undo it.
  leader.receive(refused);
  world.run();
  assertEquals([world.version("a"), world.version("kept")], [0, 0]);
});

Deno.test("group: a leader without space hands over, and again only after it had some", () => {
  const { world, leader } = elected();
  world.full.add(leader.member);
  world.tickUntil(() => world.leader.member !== leader.member);
  // All disks may be full: it does not wander on and on.
  world.leader.transferLeadership(leader.member);
  world.tickUntil(() => world.leader === leader);
  world.tick(100);
  assertEquals(world.leader.member, leader.member);
  world.full.clear();
  world.tick(20);
  world.full.add(leader.member);
  world.tick(20);
  assert(world.leader.member !== leader.member);
});

Deno.test("group: deadlines end writes and reads, and say what is known", () => {
  const { world, leader, follower } = elected();
  for (const { member } of world.followers) world.dead.add(member);
  const submitted = world.put(leader, "a", { timeoutMs: 300 });
  const unheard = world.read(leader, 300);
  world.tick(5);
  assertEquals([submitted.outcome, unheard.outcome], [null, null]);
  world.tick(1);
  assertEquals(submitted.outcome, "OUTCOME_UNKNOWN");
  assertEquals(unheard.outcome, "NO_LEADER");
  world.tickUntil(() => leader.core.role !== "leader");
  const never = world.put(leader, "b", { timeoutMs: 100 });
  world.tick(2);
  assertEquals(never.outcome, "NO_LEADER");
  assertEquals(leader.pending, { proposals: 0, proposalBytes: 0, queries: 0 });
  world.dead.clear();
  world.elect();
  world.tick(20);
  assertEquals(world.version("b"), 0);
  assertEquals(follower.store.get("a", 0)?.version ?? 0, world.version("a"));
});

Deno.test("group: a read on a follower waits for what was acknowledged before it", () => {
  const { world, leader, follower } = elected();
  // The follower is behind, and still connected to the leader.
  world.lost = ({ to, type }) => to === follower.member && type === "append";
  const write = world.put(leader, "a");
  world.run();
  assertEquals(write.outcome, "done");
  const read = world.read(follower);
  world.tick(2);
  assertEquals(read.outcome, null);
  world.lost = () => false;
  world.tickUntil(() => read.outcome !== null);
  assertEquals(read.outcome, "done");
  assertEquals(follower.store.get("a", 0)?.version, 1);
});

Deno.test("group: a read whose question or answer is lost is asked again", () => {
  for (const type of ["readIndex", "readIndexReply"]) {
    const { world, follower } = elected();
    let losses = 0;
    world.lost = (message) => message.type === type && losses++ === 0;
    const read = world.read(follower);
    world.run();
    assertEquals(read.outcome, null);
    world.tickUntil(() => read.outcome !== null);
    assertEquals(read.outcome, "done");
  }
});

Deno.test("group: a write id is applied once, through two replicas at the same time", () => {
  const { world, leader, follower } = elected();
  const writeId = { client: "c", sequence: 1, doneBelow: 1 };
  const calls = [leader, follower].map((group) =>
    world.put(group, "a", { writeId })
  );
  world.run();
  assertEquals(calls.map(({ outcome }) => outcome), ["done", "done"]);
  assertEquals(calls[0]?.result, calls[1]?.result);
  assertEquals(world.version("a"), 1);
});

Deno.test("group: leases end after their time, under one leader or several", () => {
  const { world } = elected();
  const { tickMs } = defaultSettings();
  const grant = world.propose(world.leader, {
    type: "grant",
    lease: 5n,
    ttlMs: 100 * tickMs,
  });
  world.run();
  assertEquals(grant.outcome, "done");
  let ticks = 0;
  const isThere = () => world.leader.store.leaseInfo(5n) !== null;
  while (isThere()) {
    // A new leader every ten ticks, before it would write the time down.
    if (ticks % 10 === 9) {
      const before = world.leader.member;
      world.leader.transferLeadership(null);
      world.run();
      assert(world.leader.member !== before);
    }
    world.tick();
    ticks++;
    assert(ticks < 200, "the lease lives on");
  }
  assert(ticks >= 100, `ended after ${ticks} of 100 ticks`);
});

Deno.test("group: a leader's entries leave before its own disk has them", () => {
  const { world, leader } = elected();
  assertEquals(leader.begin(), false);
  while (leader.proceed());
  const write = world.put(leader, "a");
  const before = world.sent.length;
  assertEquals(leader.begin(), true);
  const sent = world.sent.slice(before).filter((message) =>
    message.type === "append" && message.entries.length > 0
  );
  assertEquals(sent.map(({ to }) => to).sort(), [
    ...world.followers.map(({ member }) => member).sort(),
  ]);
  // Both followers answer in between; that belongs to the next turn.
  for (const message of sent) {
    world.group(message.to).receive(message);
    world.group(message.to).turn();
  }
  assertEquals(write.outcome, null);
  while (leader.proceed());
  world.run();
  assertEquals(write.outcome, "done");
});

Deno.test("group: whoever waits goes first: the leader for a follower's disk, clients for a leader's answer", () => {
  const { world, leader, follower } = elected();
  const deliver = (from: Group, to: Group) => {
    for (const message of world.sent) {
      if (message.from === from.member && message.to === to.member) {
        to.receive(message);
      }
    }
    world.sent.length = 0;
  };
  world.sent.length = 0;
  const first = world.put(leader, "first");
  leader.turn();
  deliver(leader, follower);
  follower.turn();
  deliver(follower, leader);
  // The leader now knows that the first is committed, and takes in the second.
  const second = world.put(leader, "second");
  assertEquals(leader.begin(), true);
  assertEquals(first.outcome, null);
  assertEquals(leader.proceed(), true, "its own disk has yet to come");
  assertEquals(first.outcome, "done");
  assertEquals(leader.proceed(), false);

  deliver(leader, follower);
  follower.begin();
  assertEquals(world.sent, []);
  assertEquals(follower.proceed(), true, "what is committed is yet to come");
  assertEquals(world.sent.map(({ type }) => type), ["appendReply"]);
  assertEquals(follower.store.get("first", 0), null);
  assertEquals(follower.proceed(), false);
  assert(follower.store.get("first", 0) !== null);
  world.run();
  assertEquals(second.outcome, "done");
});

Deno.test("group: a follower with watchers learns at once what is committed", () => {
  const { world, leader, follower } = elected();
  const revisions: number[] = [];
  const put = (): void => {
    // Long enough that the leader has forgotten who asked it before.
    world.tick(5);
    world.reminders = 0;
    world.put(leader, "a");
    world.run();
  };
  put();
  assertGreater(world.reminders, 0);
  const watch = follower.watchers.add({
    range: { start: "a", end: null },
    fromRevision: 0,
    withPrevious: false,
    noPuts: false,
    noDeletes: false,
    hasRoom: () => true,
    deliver: (events) => {
      revisions.push(...events.map(({ modRevision }) => modRevision));
      return true;
    },
    cancel: () => {},
  });
  put();
  assertEquals(world.reminders, 0);
  assertEquals(revisions, [leader.store.revision]);
  watch.stop();
  put();
  assertGreater(world.reminders, 0);
  assertEquals(revisions, [leader.store.revision - 1]);
});

Deno.test("group: what is cut off in the turn in which it arrived is not acknowledged", () => {
  const { world, leader, follower } = elected();
  const { term, lastIndex } = follower.core;
  const third = world.followers.find((group) => group !== follower);
  assert(third !== undefined);
  world.lost = () => true;
  const previous = { previousIndex: lastIndex, previousTerm: term, commit: 0 };
  const append = (from: Group, own: number, count: number): Message => ({
    type: "append",
    from: from.member,
    to: follower.member,
    term: own,
    ...previous,
    entries: Array.from({ length: count }, (_, at) => ({
      index: lastIndex + 1 + at,
      term: own,
      type: "empty",
    })),
  });
  const before = world.sent.length;
  follower.receive(append(leader, term, 2));
  follower.receive(append(third, term + 1, 1));
  world.run();
  const replies = world.sent.slice(before).filter((message) =>
    message.type === "appendReply"
  );
  assertEquals(replies.map(({ to, index }) => [to, index]), [
    [third.member, lastIndex + 1],
  ]);
});

Deno.test("group: who has stopped leading sends no snapshot, least of all in another's term", () => {
  const { world, leader } = elected();
  const { term } = leader.core;
  const meta = {
    index: leader.core.applied,
    term,
    configuration: leader.core.configuration,
  };
  const to = world.followers[0]!.member;
  assertEquals(leader.snapshotMessage(to, { term, meta }), {
    type: "snapshot",
    from: leader.member,
    to,
    term,
    meta,
  });
  leader.transferLeadership(null);
  world.tickUntil(() => leader.core.role !== "leader");
  assertGreater(leader.core.term, term);
  for (const asked of [term, leader.core.term]) {
    assertEquals(leader.snapshotMessage(to, { term: asked, meta }), null);
  }
});

Deno.test("group: the log behind a snapshot is kept until its member has caught up", () => {
  const world = new World({ catchUpEntries: 10 });
  const leader = world.elect();
  const away = world.followers[0]!;
  const write = (count: number) => {
    for (let i = 0; i < count; i++) {
      world.put(leader, "a");
      // Now and then the log is looked at.
      world.tick();
    }
  };
  world.dead.add(away.member);
  write(60);
  assertGreater(leader.core.firstIndex, away.core.lastIndex + 1);
  world.dead.delete(away.member);
  world.tickUntil(() => world.snapshots.length > 0);
  const asked = leader.core.applied;
  // It takes longer to make than the log is long.
  write(60);
  assertEquals(world.snapshots, [{ from: leader.member, to: away.member }]);
  assert(leader.core.firstIndex <= asked + 1, `${leader.core.firstIndex}`);
  // A member that is given up is not waited for any more.
  world.tick(1300);
  write(20);
  assertGreater(leader.core.firstIndex, asked + 1);
});

Deno.test("group: the end of a replica ends what waits", () => {
  const { world, leader, follower } = elected();
  world.lost = () => true;
  const write = world.put(follower, "a");
  const read = world.read(follower);
  world.run();
  follower.close();
  assertEquals(write.outcome, "OUTCOME_UNKNOWN");
  assertEquals(read.outcome, "SHUTTING_DOWN");
  leader.close();
});
