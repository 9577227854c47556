/**
 * A whole cluster in one thread, from one seed: real groups on simulated machines, clients, faults and
 * checkers. First anything may fail and no answer may be wrong; then enough of it is healed, and the
 * cluster must make progress within a bounded time. Used by `run.ts`.
 *
 * ```text
 *   0 ───────── safety ─────────▶ heal ── progress ──▶ clients stop ── all alike ──▶ end
 *   faults, clients, checkers      no faults             watches complete
 * ```
 *
 * @module
 */

import type { Comer } from "../../admission.ts";
import type { Settings } from "../../config.ts";
import { Disk } from "../../disk.ts";
import { isInvited, isRejoined, nodeOfMember } from "../../identity.ts";
import { hasQuorum, simpleConfiguration } from "../../members.ts";
import type { Configuration, MemberId, Message, Term } from "../../message.ts";
import type { Replicate } from "../../replicate.ts";
import { Durability } from "./checks/durability.ts";
import { Elections } from "./checks/elections.ts";
import { LeaseTimes } from "./checks/leases.ts";
import { Logs } from "./checks/logs.ts";
import { States } from "./checks/states.ts";
import { checkBounds } from "./checks/bounds.ts";
import { Terms } from "./checks/terms.ts";
import { Client, WatchClient } from "./clients.ts";
import { Clock } from "./clock.ts";
import { SimDisk } from "./disk.ts";
import { emptyDisk, Faults } from "./faults.ts";
import { History } from "./history.ts";
import { Died, isCorruption, Machine, simSettings } from "./machine.ts";
import { Network } from "./network.ts";
import { Oracle } from "./oracle.ts";
import type { Plan } from "./plan.ts";
import { Random } from "./random.ts";
import { Trace } from "./trace.ts";
import { must } from "./violation.ts";

/** A healed cluster serves every client again within this time: 20 of the longest elections. */
const PROGRESS_MS_MAX = 20_000;
/** Its replicas are alike this long after the last write. */
const CONVERGE_MS_MAX = 20_000;
/** How often all contents are compared. */
const CONTENTS_EVERY_TURNS = 500;
const FASTEST_PER_MILLE = 1050;

/** A simulated cluster. */
export class Cluster {
  readonly plan: Plan;
  readonly clock = new Clock();
  readonly trace = new Trace();
  readonly settings: Settings;
  readonly machines: readonly Machine[];
  readonly founderNames: readonly string[];
  readonly network: Network;
  readonly oracle = new Oracle();
  readonly history = new History(this.oracle);
  readonly faults: Faults;
  readonly elections = new Elections(this.oracle);
  readonly leaseTimes: LeaseTimes;
  readonly #logs = new Logs(this.oracle);
  readonly #durability = new Durability(this.oracle);
  readonly #states = new States(this.oracle);
  readonly #terms = new Terms();
  readonly #random: Random;
  readonly #clients: Client[];
  readonly #watches: WatchClient[];
  readonly #shipping = new Set<string>();
  /** Committed last. */
  #configuration: Configuration;
  #turns = 0;
  isHealed = false;
  snapshots = 0;

  constructor(plan: Plan) {
    this.plan = plan;
    this.#random = new Random(plan.seed, "cluster");
    this.settings = simSettings(plan.settings);
    const names = Array.from({ length: plan.machines }, (_, i) => `n${i + 1}`);
    this.founderNames = names.slice(0, plan.founders);
    this.#configuration = simpleConfiguration(this.founderNames);
    this.machines = names.map((name, i) => this.#makeMachine(name, i));
    this.network = new Network(plan.network, {
      clock: this.clock,
      random: new Random(plan.seed, "network"),
    });
    this.leaseTimes = new LeaseTimes(this, {
      fastestPerMille: FASTEST_PER_MILLE,
      tickMs: this.settings.tickMs,
    });
    this.oracle.onApplied = (applied) => this.leaseTimes.applied(applied);
    this.oracle.onExpiry = (expiry) => this.leaseTimes.expired(expiry);
    this.faults = new Faults(this);
    this.#clients = this.#makeClients();
    this.#watches = this.#makeWatches();
  }

  get turns(): number {
    return this.#turns;
  }

  /** Runs all of it; throws what is wrong. */
  run(): void {
    for (const machine of this.machines) machine.start();
    for (const client of this.#clients) client.start();
    for (const watch of this.#watches) watch.start();
    this.faults.start();
    this.#runUntil(this.plan.safetyMs, () => false);
    this.#heal();
    this.#progress();
    this.#converge();
    this.history.finish();
  }

  #runUntil(endMs: number, isDone: () => boolean): boolean {
    while (this.clock.step(endMs)) {
      if (isDone()) return true;
    }
    return isDone();
  }

  // ---------------------------------------------------------------- making

  #makeMachine(name: string, i: number): Machine {
    const machine = new Machine({
      name,
      member: name,
      disk: new SimDisk({ bootstrap: simpleConfiguration(this.founderNames) }),
      random: new Random(this.plan.seed, name),
      ratePerMille: this.plan.clockRates[i]!,
    }, this);
    this.#watchDisk(machine);
    return machine;
  }

  #watchDisk(machine: Machine): void {
    machine.disk.onAppend = (entry, before) =>
      this.#logs.appended(machine, entry, before);
    this.#durability.watch(machine);
  }

  #makeClients(): Client[] {
    const { plan } = this;
    const make = (name: string, isOfDenoKv: boolean) => {
      const random = new Random(plan.seed, name);
      const options = { name, plan: plan.client, random, isOfDenoKv };
      return new Client(options, this);
    };
    return [
      ...Array.from(
        { length: plan.clients },
        (_, i) => make(`c${i + 1}`, false),
      ),
      ...Array.from(
        { length: plan.kvClients },
        (_, i) => make(`d${i + 1}`, true),
      ),
    ];
  }

  #makeWatches(): WatchClient[] {
    return Array.from({ length: this.plan.watches }, (_, i) => {
      const name = `w${i + 1}`;
      const random = new Random(this.plan.seed, name);
      const range = random.pick([
        { start: "", end: null },
        { start: "k", end: "l" },
        { start: "l", end: null },
        { start: "c", end: "c\0" },
      ]);
      return new WatchClient({ name, range, random }, this);
    });
  }

  // ---------------------------------------------------------------- what machines ask for

  send(from: Machine, message: Message, delayMs: number): void {
    this.#durability.sent(from, message);
    this.#terms.sent(message);
    this.trace.add(this.clock.nowMs + delayMs, {
      who: from.name,
      what: "send",
      detail: message,
    });
    const to = nodeOfMember(message.to);
    const target = this.machines.find(({ name }) => name === to);
    if (target === undefined) return;
    this.network.send(from.name, to, {
      delayMs,
      message,
      arrive: (copy) => {
        if (target.isUp) target.receive(copy, null);
      },
    });
  }

  ship(from: Machine, to: MemberId, term: Term): void {
    const { generation, member } = from;
    const name = `${member} ${generation} ${to}`;
    if (this.#shipping.has(name)) return;
    this.#shipping.add(name);
    const image = from.disk.copy();
    const { appliedIndex: index, appliedTerm } = from.disk.storeState;
    const { configuration } = from.disk.configuration;
    const meta = { index, term: appliedTerm, configuration };
    const target = this.machines.find((machine) => machine.member === to);
    this.clock.after(this.#random.between(10, 400), () => {
      this.#shipping.delete(name);
      if (generation !== from.generation) return;
      if (from.isDamaged && !this.#isIntact(from, image)) return;
      const message = from.group?.snapshotMessage(to, { term, meta }) ?? null;
      const ok = message !== null && target !== undefined && target.isUp &&
        target.member === to &&
        this.network.isOpen(from.name, target.name) &&
        this.network.isOpen(target.name, from.name);
      if (ok) {
        this.snapshots++;
        target.receive(message, image);
      }
      this.#note(from.name, "snapshot", `to ${to} at ${index}, ok ${ok}`);
      from.whenAvailable((live) => live.snapshotSent(to, { ok, index }));
    });
  }

  /** As the snapshot worker does: reads the copy through, and ends the machine if it is damaged. */
  #isIntact(machine: Machine, image: Uint8Array): boolean {
    const { configuration: bootstrap } = machine.disk.configuration;
    machine.guard(() =>
      new Disk({ path: ":memory:", bootstrap, image, isCopy: true }).verify()
    );
    return machine.isUp;
  }

  joiners(machine: Machine): Comer[] {
    return this.machines
      .filter(({ name, member, isUp }) =>
        isUp && isRejoined(member) && this.network.isOpen(machine.name, name)
      )
      .map(({ member, address }) => ({ member, address }));
  }

  beforeTurn(machine: Machine): void {
    this.#durability.beforeTurn(machine);
  }

  afterTurn(machine: Machine): void {
    this.#turns++;
    this.#terms.afterTurn(machine);
    this.#learn(machine);
    this.#states.afterTurn(machine);
    for (const watch of this.#watches) watch.afterTurn(machine);
    checkBounds(machine, {
      nowMs: this.clock.nowMs,
      clients: this.plan.clients + this.plan.kvClients,
      timeoutMs: this.plan.client.timeoutMs,
    });
    (machine.group!.core as Replicate).assertInvariants();
    if (this.#turns % CONTENTS_EVERY_TURNS === 0) this.#compare(machine);
  }

  #compare(machine: Machine): void {
    machine.guard(() => this.#states.compareContents(machine));
  }

  /** What a turn committed becomes known. */
  #learn(machine: Machine): void {
    const before = this.oracle.index;
    this.elections.afterTurn(machine);
    this.#logs.afterTurn(machine);
    this.#durability.afterTurn(machine);
    for (let index = before + 1; index <= this.oracle.index; index++) {
      const entry = this.oracle.entry(index)!;
      if (entry.type === "configuration") {
        this.#configuration = entry.configuration;
      }
    }
  }

  failed(machine: Machine, error: unknown): void {
    if (error instanceof Died) {
      this.#learn(machine);
      this.crash(machine, error.message);
      this.faults.restartAfter(machine, this.#random.between(0, 3000));
      return;
    }
    if (isCorruption(error) && machine.isDamaged) {
      this.loseDisk(machine, (error as Error).message);
      return;
    }
    this.#note(machine.name, "fails", String(error));
    throw error;
  }

  // ---------------------------------------------------------------- what faults ask for

  crash(machine: Machine, why: string): void {
    if (!machine.isUp) return;
    machine.kill(why);
    machine.disk.reopen();
  }

  mayLoseDisk(machine: Machine): boolean {
    if (machine.isLost || machine.isDamaged) return false;
    // Who founded the cluster alone has nobody to come back to: a node refuses that.
    if (this.founderNames.every((name) => name === machine.name)) return false;
    if (this.#isChanging()) return false;
    const { voters, learners } = this.#configuration;
    // A learner may be made a voter before anybody notices that it is gone.
    const members = [...voters, ...learners];
    const lost = members.filter((member) => !this.#isGood(member));
    const more = members.includes(machine.member) ? 1 : 0;
    return lost.length + more <= (voters.length - 1) >> 1;
  }

  /** A member's disk is lost, and the member is not replaced yet. */
  get hasLostDisk(): boolean {
    const { voters, learners } = this.#configuration;
    return [...voters, ...learners].some((member) => !this.#isGood(member));
  }

  #isGood(member: MemberId): boolean {
    // Who has not come has nothing to lose, and no vote before it comes.
    return isInvited(member) ||
      this.machines.some((machine) =>
        machine.member === member && !machine.isLost && !machine.isDamaged
      );
  }

  /** A change of membership is under way. */
  #isChanging(): boolean {
    if (this.#configuration.votersOutgoing.length > 0) return true;
    return this.machines.some(({ disk }) =>
      disk.written.entries.some(({ type, index }) =>
        type === "configuration" && index > this.oracle.index
      )
    );
  }

  loseDisk(machine: Machine, why: string): void {
    this.#note(machine.name, "loses", why);
    machine.kill("its disk is lost");
    this.#durability.retire(machine);
    machine.isLost = true;
    this.clock.after(this.#random.between(100, 3000), () => {
      const suffix = this.#random.next().toString(16).padStart(8, "0");
      machine.member = `${machine.name}/${suffix}`;
      machine.disk = emptyDisk(this.founderNames, machine.name);
      machine.isLost = false;
      machine.isDamaged = false;
      machine.damagedImage = null;
      this.#watchDisk(machine);
      machine.start();
    });
  }

  // ---------------------------------------------------------------- the second phase

  #heal(): void {
    this.#note("phase", "heal", "");
    this.faults.stop();
    this.network.heal();
    const dead = this.#whoStaysDead();
    this.isHealed = true;
    for (const machine of this.machines) {
      machine.commitMsMax = 0;
      machine.commitsUntilDeath = null;
      machine.writeRefusal = null;
      machine.diskExhausted = false;
      if (machine.isLost) continue;
      if (machine.isDamaged) this.loseDisk(machine, "healed");
      else if (dead.includes(machine)) this.crash(machine, "stays dead");
      else if (!machine.isUp) machine.start();
    }
  }

  /** Some, as long as every configuration that may be in force keeps a majority. */
  #whoStaysDead(): Machine[] {
    const count = this.#random.below(((this.plan.founders - 1) >> 1) + 1);
    const dead = this.#random.sample(this.machines, count);
    const configurations = this.machines.flatMap(({ disk }) => [
      disk.configuration.configuration,
      ...disk.written.entries.flatMap((entry) =>
        entry.type === "configuration" ? [entry.configuration] : []
      ),
    ]);
    const isAlive = (member: MemberId) =>
      this.#isGood(member) && !dead.some((one) => one.member === member);
    return configurations.every((one) => hasQuorum(one, isAlive)) ? dead : [];
  }

  #progress(): void {
    // Whoever was stopped is asleep until then.
    const asleepMs = Math.max(...this.machines.map((one) => one.availableMs));
    this.#runUntil(asleepMs, () => false);
    const before = this.#clients.map(({ writes }) => writes);
    const endMs = this.clock.nowMs + PROGRESS_MS_MAX;
    const isDone = this.#runUntil(
      endMs,
      () => this.#clients.every(({ writes }, i) => writes > before[i]!),
    );
    must(
      isDone,
      "progress after healing",
      () =>
        `${PROGRESS_MS_MAX} ms after healing not every client has written: ` +
        this.#describe(),
    );
  }

  #converge(): void {
    for (const client of this.#clients) client.stop();
    for (const watch of this.#watches) watch.settle();
    const startMs = this.clock.nowMs;
    // Whoever waits for an answer gets one, or gives up.
    this.#runUntil(startMs + this.plan.client.timeoutMs + 1000, () => false);
    const isAlike = () =>
      this.members().every(({ group }) =>
        group!.store.appliedIndex === this.oracle.index &&
        // A leader has something of its own to write now and then.
        group!.pending.proposals === 0 && group!.pending.queries === 0
      );
    const isDone = this.#runUntil(startMs + CONVERGE_MS_MAX, isAlike);
    must(isDone, "replicas converge", () => this.#describe());
    for (const machine of this.members()) this.#compare(machine);
    // Watches look for a machine now and then. What leases still do meanwhile may be on its way.
    const { revision } = this.oracle.model;
    for (let i = 0; i < 20; i++) {
      this.#runUntil(this.clock.nowMs + 100, () => false);
    }
    for (const watch of this.#watches) watch.complete(revision);
  }

  choice(): readonly Machine[] {
    const members = this.isHealed ? this.members() : [];
    return members.length === 0 ? this.machines : members;
  }

  /** The live machines that belong to the cluster. */
  members(): Machine[] {
    const { voters, learners } = this.#configuration;
    return this.machines.filter(({ isUp, member }) =>
      isUp && (voters.includes(member) || learners.includes(member))
    );
  }

  #describe(): string {
    return this.machines.map(({ name, group, member }) => {
      if (group === null) return `${name} down`;
      const { role, term, commit, lastIndex, leader } = group.core;
      const { proposals, queries } = group.pending;
      return `${member} ${role} t${term} leader ${leader} commit ${commit} applied ` +
        `${group.store.appliedIndex} last ${lastIndex} writes ${proposals} reads ${queries}`;
    }).join("; ") + ` (committed ${this.oracle.index})`;
  }

  #note(who: string, what: string, detail: string): void {
    this.trace.add(this.clock.nowMs, { who, what, detail });
  }
}
