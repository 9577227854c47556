/**
 * What goes wrong, when, and for how long. Used by `cluster.ts`.
 *
 * @module
 */

import type { LeaseTimes } from "./checks/leases.ts";
import type { Clock } from "./clock.ts";
import { invitedMember, isInvited, nodeOfMember } from "../../identity.ts";
import type { ConfigurationChange, MemberId } from "../../message.ts";
import { damage, SimDisk } from "./disk.ts";
import { bootstrapFor, type Machine } from "./machine.ts";
import type { Network } from "./network.ts";
import type { Fault, Plan } from "./plan.ts";
import { Random } from "./random.ts";
import type { Trace } from "./trace.ts";

/** What the faults are done to. */
export interface FaultHost {
  readonly clock: Clock;
  readonly trace: Trace;
  readonly plan: Plan;
  readonly network: Network;
  readonly machines: readonly Machine[];
  readonly founderNames: readonly string[];
  readonly leaseTimes: LeaseTimes;
  /** Ends a process and forgets what was not committed. */
  crash(machine: Machine, why: string): void;
  /** Another disk may be lost without losing what was acknowledged. */
  mayLoseDisk(machine: Machine): boolean;
  /** A member's disk is lost, and the member is not replaced yet. */
  readonly hasLostDisk: boolean;
  /** The disk is gone or not to be trusted; the machine comes back as another member. */
  loseDisk(machine: Machine, why: string): void;
}

/** Two elections, at the default settings. */
const ELECTION_MS = 1000;

/** Draws the faults of a run and does them. */
export class Faults {
  readonly counts = new Map<Fault, number>();
  readonly #host: FaultHost;
  #isOver = false;

  constructor(host: FaultHost) {
    this.#host = host;
  }

  start(): void {
    for (const [fault, meanMs] of this.#host.plan.faults) {
      const random = new Random(this.#host.plan.seed, fault);
      this.#schedule(fault, { meanMs, random });
    }
  }

  /** No more of them. */
  stop(): void {
    this.#isOver = true;
  }

  #schedule(
    fault: Fault,
    how: { meanMs: number; random: Random },
  ): void {
    const { meanMs, random } = how;
    const waitMs = random.between(meanMs >> 1, meanMs + (meanMs >> 1));
    this.#host.clock.after(waitMs, () => {
      if (this.#isOver) return;
      const what = this.#strike(fault, random);
      if (what !== null) {
        this.counts.set(fault, (this.counts.get(fault) ?? 0) + 1);
        this.#host.trace.add(this.#host.clock.nowMs, {
          who: "fault",
          what: fault,
          detail: what,
        });
      }
      this.#schedule(fault, how);
    });
  }

  /** Does it; null if there was nobody to do it to. */
  #strike(fault: Fault, random: Random): string | null {
    const { machines } = this.#host;
    const up = machines.filter(({ isUp }) => isUp);
    if (up.length === 0) return null;
    const one = random.pick(up);
    switch (fault) {
      case "crash":
        return this.#crash([one], random);
      case "crashSome":
        return this.#crash(
          random.sample(up, random.between(1, up.length)),
          random,
        );
      case "crashAll":
        return this.#crash(up, random);
      case "crashInCommit":
        one.commitsUntilDeath = {
          count: random.below(6),
          phase: random.pick(["before", "after"]),
        };
        return `${one.name} at commit ${one.commitsUntilDeath.count}, ${one.commitsUntilDeath.phase}`;
      case "failedCommit":
        one.commitsUntilDeath = { count: 0, phase: "before" };
        return one.name;
      case "pause": {
        const ms = random.between(1, 20) * ELECTION_MS / 2;
        one.pause(ms);
        return `${one.name} for ${ms} ms`;
      }
      case "suspend":
        return this.#suspend(this.#leader() ?? one, random);
      case "clockJump": {
        const ms = random.between(100, 3_600_000);
        one.jump(ms);
        this.#host.leaseTimes.jumped();
        return `${one.name} by ${ms} ms`;
      }
      case "partition":
      case "oneWay":
      case "clog":
        return this.#disturbLinks(fault, random);
      case "slowDisk":
      case "fullDisk":
        return this.#disturbDisk(fault, { machine: one, random });
      case "damage":
      case "wipe":
        return this.#lose(fault, { machine: one, random });
      case "membership":
        return this.#changeMembers(random);
      case "transfer": {
        const target = random.chance(500) ? null : random.pick(machines).member;
        one.whenAvailable((group) => group.transferLeadership(target));
        return `to ${target}, asked at ${one.name}`;
      }
      case "unreachable": {
        const { member } = random.pick(machines);
        one.whenAvailable((group) => group.unreachable(member));
        return `${member}, says ${one.name}`;
      }
    }
  }

  #crash(victims: readonly Machine[], random: Random): string {
    for (const machine of victims) {
      this.#host.crash(machine, "crash");
      this.restartAfter(machine, random.between(0, 3 * ELECTION_MS));
    }
    return victims.map(({ name }) => name).join(" ");
  }

  /** Starts a machine again, unless somebody does so before. */
  restartAfter(machine: Machine, ms: number): void {
    this.#host.clock.after(ms, () => {
      if (!machine.isUp && !machine.isLost && !this.#isOver) machine.start();
    });
  }

  #disturbLinks(fault: "partition" | "oneWay" | "clog", random: Random) {
    const { network, machines } = this.#host;
    const names = machines.map(({ name }) => name);
    if (names.length < 2) return null;
    const ms = random.between(1, 8) * ELECTION_MS / 2;
    if (fault === "clog") {
      const [from, to] = random.sample(names, 2);
      network.clog(from!, to!, ms);
      return `${from}>${to} for ${ms} ms`;
    }
    const cuts = fault === "oneWay"
      ? oneWay(names, random)
      : partition(names, { random, leader: this.#leader()?.name });
    this.#cut(cuts, ms);
    return `${
      cuts.map(([from, to]) => `${from}>${to}`).join(" ")
    } for ${ms} ms`;
  }

  /** A machine sleeps, and for a while after it wakes up its connections are still broken. */
  #suspend(machine: Machine, random: Random): string {
    const sleepMs = random.between(2, 8) * ELECTION_MS / 2;
    const deafMs = sleepMs + random.between(0, 4) * ELECTION_MS / 4;
    machine.pause(sleepMs);
    this.#cut(this.#alone(machine.name), deafMs);
    return `${machine.name} for ${sleepMs} ms, cut off for ${deafMs} ms`;
  }

  #alone(name: string): Cut[] {
    const names = this.#host.machines.map((machine) => machine.name);
    return both([name], names.filter((other) => other !== name));
  }

  #cut(cuts: readonly Cut[], ms: number): void {
    const { clock, network } = this.#host;
    for (const [from, to] of cuts) network.cut(from, to);
    clock.after(ms, () => {
      if (this.#isOver) return;
      for (const [from, to] of cuts) network.mend(from, to);
    });
  }

  #leader(): Machine | undefined {
    return this.#host.machines.find(({ group }) =>
      group?.core.role === "leader"
    );
  }

  #disturbDisk(
    fault: "slowDisk" | "fullDisk",
    { machine, random }: { machine: Machine; random: Random },
  ): string {
    const ms = random.between(1, 6) * ELECTION_MS;
    if (fault === "slowDisk") {
      machine.commitMsMax = random.pick([10, 50, 200, 1000]);
      this.#host.clock.after(ms, () => machine.commitMsMax = 0);
      return `${machine.name}: up to ${machine.commitMsMax} ms for ${ms} ms`;
    }
    machine.writeRefusal = "the disk is nearly full";
    machine.diskExhausted = random.chance(400);
    this.#host.clock.after(ms, () => {
      machine.writeRefusal = null;
      machine.diskExhausted = false;
    });
    return `${machine.name}${
      machine.diskExhausted ? " utterly" : ""
    } for ${ms} ms`;
  }

  #lose(
    fault: "damage" | "wipe",
    { machine, random }: { machine: Machine; random: Random },
  ): string | null {
    const host = this.#host;
    if (!host.mayLoseDisk(machine)) return null;
    if (fault === "wipe") {
      host.loseDisk(machine, "wiped");
      return machine.name;
    }
    host.crash(machine, "bits flip");
    const damaged = damage(machine.disk.image(), random);
    if (damaged === null) {
      this.restartAfter(machine, ELECTION_MS);
      return null;
    }
    machine.isDamaged = true;
    machine.damagedImage = damaged.image;
    this.restartAfter(machine, random.between(0, 2 * ELECTION_MS));
    // If nothing that the machine does meets the bytes, an operator looks for them in the end.
    host.clock.after(random.between(1, 6) * ELECTION_MS, () => {
      if (machine.isDamaged && !machine.isLost && !this.#isOver) {
        host.loseDisk(machine, "found by the operator");
      }
    });
    return `${machine.name}: ${damaged.what}`;
  }

  #changeMembers(random: Random): string | null {
    const leader = this.#leader();
    if (leader === undefined) return null;
    const { voters, learners, learnersHeld = [] } =
      leader.group!.core.configuration;
    const members = [...voters, ...learners];
    const nodes = members.map(nodeOfMember);
    const outside = this.#host.machines.filter(({ name, address, isUp }) =>
      isUp && !nodes.includes(name) && !nodes.includes(address)
    );
    if (random.chance(250)) return this.#invite(leader, { outside, random });
    if (random.chance(200)) return this.#move(leader, { members, random });
    const held = learnersHeld.filter((member) => !isInvited(member));
    if (held.length > 0 && random.chance(300)) {
      return this.#configure(leader, { promote: random.sample(held, 1) });
    }
    const change = {
      addLearners: random.chance(600)
        ? random.sample(outside, 1).map(({ member }) => member)
        : [],
      remove: random.chance(400) && voters.length > 1
        ? random.sample(members, 1)
        : [],
      demote: [] as string[],
    };
    if (change.remove.length === 0 && voters.length > 2 && random.chance(200)) {
      change.demote = random.sample(voters, 1);
    }
    return this.#configure(leader, change);
  }

  /** Somebody is expected who comes with an empty disk: by its name, or by its address alone. */
  #invite(
    leader: Machine,
    { outside, random }: { outside: readonly Machine[]; random: Random },
  ): string | null {
    const [machine] = random.sample(outside, 1);
    if (machine === undefined || !this.#host.mayLoseDisk(machine)) return null;
    const { name, address } = machine;
    const member = invitedMember(random.chance(500) ? name : address);
    this.#host.loseDisk(machine, "is invited");
    return this.#configure(leader, {
      addLearners: [member],
      places: [{ member, address }],
      hold: random.chance(300) ? [member] : [],
    });
  }

  /** Where a member is said to be is no matter here, but it must stay with it. */
  #move(
    leader: Machine,
    { members, random }: { members: readonly MemberId[]; random: Random },
  ): string | null {
    const [member] = random.sample(members, 1);
    if (member === undefined || isInvited(member)) return null;
    const address = `${nodeOfMember(member)}:${random.between(2, 9)}`;
    return this.#configure(leader, { places: [{ member, address }] });
  }

  #configure(leader: Machine, change: ConfigurationChange): string {
    leader.whenAvailable((group) => {
      // An operator does not take away from a cluster that has just lost something, nor, if the
      // leader slept until then, after it was settled who stays dead.
      if (!this.#host.hasLostDisk && !this.#isOver) group.configure(change);
    });
    return JSON.stringify(change);
  }
}

/** A disk for a machine that comes back as another member. */
export function emptyDisk(
  founderNames: readonly string[],
  name: string,
): SimDisk {
  return new SimDisk({ bootstrap: bootstrapFor(founderNames, name) });
}

type Cut = readonly [from: string, to: string];

function both(a: readonly string[], b: readonly string[]): Cut[] {
  return a.flatMap((from) =>
    b.flatMap((to): Cut[] => from === to ? [] : [[from, to], [to, from]])
  );
}

function oneWay(names: readonly string[], random: Random): Cut[] {
  const [from, ...others] = random.sample(names, names.length);
  const to = random.sample(others, random.between(1, others.length));
  return random.chance(500)
    ? to.map((name): Cut => [from!, name])
    : to.map((name): Cut => [name, from!]);
}

function partition(
  names: readonly string[],
  { random, leader }: { random: Random; leader: string | undefined },
): Cut[] {
  const mixed = random.sample(names, names.length);
  const half = random.between(1, names.length - 1);
  switch (random.below(5)) {
    case 0: // Two sides.
      return both(mixed.slice(0, half), mixed.slice(half));
    case 1: { // The leader alone.
      const alone = leader ?? mixed[0]!;
      return both([alone], names.filter((name) => name !== alone));
    }
    case 2: { // Two sides that share one, which sees both.
      const [, ...rest] = mixed;
      return both(rest.slice(0, half - 1), rest.slice(half - 1));
    }
    case 3: // A ring: each sees its neighbours only.
      return mixed.flatMap((a, i) =>
        mixed.flatMap((b, j): Cut[] => {
          const distance = Math.abs(i - j);
          return distance > 1 && distance < mixed.length - 1 ? [[a, b]] : [];
        })
      );
    default: // Everyone alone.
      return both(mixed, mixed).filter((_, i) => i % 2 === 0);
  }
}
