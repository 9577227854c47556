/**
 * One simulated machine: a real group over a disk in memory, with its own clock, that can be paused,
 * slowed down, killed and started again. It does what `node.ts` does, without sockets and files. Used
 * by `cluster.ts`.
 *
 * @module
 */

import type { Comer } from "../../admission.ts";
import { defaultSettings, type Settings } from "../../config.ts";
import { assert, DkvError } from "../../errors.ts";
import { Group } from "../../group.ts";
import type {
  Configuration,
  MemberId,
  Message,
  SnapshotMeta,
  Term,
} from "../../message.ts";
import type { Clock } from "./clock.ts";
import { type DiskImage, SimDisk } from "./disk.ts";
import type { Random } from "./random.ts";
import type { Trace } from "./trace.ts";

/** As in `node.ts`: a loop that stood still does not make up for all of it. */
const CATCH_UP_TICKS_MAX = 2;

/** Thrown inside a turn: the machine has lost its power, or its disk has failed. */
export class Died extends Error {
  override name = "Died";
}

/** What a machine asks of the world around it. */
export interface MachineHost {
  readonly clock: Clock;
  readonly trace: Trace;
  readonly settings: Settings;
  /** The message leaves after `delayMs`. */
  send(from: Machine, message: Message, delayMs: number): void;
  ship(from: Machine, to: MemberId, term: Term): void;
  /** Members that rejoined and that this machine is connected to. */
  joiners(machine: Machine): Comer[];
  beforeTurn(machine: Machine): void;
  afterTurn(machine: Machine): void;
  /** A turn or a start threw. */
  failed(machine: Machine, error: unknown): void;
}

/** Settings of a simulated cluster: the defaults, with little kept, so that snapshots are needed. */
export function simSettings(changes: Partial<Settings>): Settings {
  return { ...defaultSettings(), ...changes };
}

/** One machine. */
export class Machine {
  readonly name: string;
  readonly #host: MachineHost;
  readonly #random: Random;
  /** Who it is; changes when it comes back after its disk was lost. */
  member: MemberId;
  disk: SimDisk;
  group: Group | null = null;
  /** Counts starts: what was meant for an earlier one must not reach this one. */
  generation = 0;
  /** Its disk is damaged or gone: it comes back only as another member. */
  isLost = false;
  /** Something changed bytes on its disk. */
  isDamaged = false;
  /** The disk with those bytes; put in place at the next start. */
  damagedImage: DiskImage | null = null;
  pausedUntilMs = 0;
  busyUntilMs = 0;
  /** How long the commits of the turn under way took. */
  turnMs = 0;
  /** Each commit takes between 0 and this. */
  commitMsMax = 0;
  /** Set to lose power, or to fail, at one of the next commits. */
  commitsUntilDeath: { count: number; phase: "before" | "after" } | null = null;
  /** Its clock runs this fast: 1000 is right. */
  readonly ratePerMille: number;
  writeRefusal: string | null = null;
  diskExhausted = false;
  /** Snapshots that arrived whole, as `snapshots.ts` keeps them. */
  readonly #arrived = new Map<string, Uint8Array>();
  /** Calls that wait for an answer of this machine; told when it dies. */
  readonly calls = new Set<() => void>();
  #jumpedMs = 0;
  #lastTickMs = 0;
  #isTurnScheduled = false;

  constructor(
    options: {
      name: string;
      member: MemberId;
      disk: SimDisk;
      random: Random;
      ratePerMille: number;
    },
    host: MachineHost,
  ) {
    this.name = options.name;
    this.member = options.member;
    this.disk = options.disk;
    this.#random = options.random;
    this.ratePerMille = options.ratePerMille;
    this.#host = host;
  }

  /** Where it is, whatever the members are told. */
  get address(): string {
    return `${this.name}:1`;
  }

  get isUp(): boolean {
    return this.group !== null;
  }

  /** When the process can run again. */
  get availableMs(): number {
    return Math.max(this.pausedUntilMs, this.busyUntilMs);
  }

  /** Starts the process; a damaged disk may refuse. */
  start(): void {
    assert(!this.isLost, `${this.name} cannot start from a lost disk`);
    this.generation++;
    this.#isTurnScheduled = false;
    this.#arrived.clear();
    this.pausedUntilMs = 0;
    this.busyUntilMs = 0;
    this.#note("start", `as ${this.member}`);
    try {
      this.#putDamagedDisk();
      this.#listenToDisk();
      // A large file is not read through at start.
      if (this.#random.chance(500)) this.disk.verify();
      this.group = this.#makeGroup();
    } catch (error) {
      this.#host.failed(this, error);
      return;
    }
    this.#lastTickMs = this.#localMs();
    const generation = this.generation;
    const phaseMs = this.#random.below(this.#host.settings.tickMs);
    this.#host.clock.after(phaseMs, () => this.#onTimer(generation));
  }

  /** Ends the process; what was not committed is gone. */
  kill(why: string): void {
    if (this.group === null) return;
    this.#note("dies", why);
    this.group = null;
    this.generation++;
    this.commitsUntilDeath = null;
    const calls = [...this.calls];
    this.calls.clear();
    for (const lost of calls) lost();
  }

  /** The process stands still. */
  pause(ms: number): void {
    this.pausedUntilMs = Math.max(
      this.pausedUntilMs,
      this.#host.clock.nowMs + ms,
    );
  }

  /** The clock of the machine jumps ahead. */
  jump(ms: number): void {
    this.#jumpedMs += ms;
  }

  /** Runs something in the process when it can run; not at all if it dies before. */
  whenAvailable(run: (group: Group) => void): void {
    const generation = this.generation;
    const attempt = () => {
      if (generation !== this.generation || this.group === null) return;
      const waitMs = this.availableMs - this.#host.clock.nowMs;
      if (waitMs > 0) this.#host.clock.after(waitMs, attempt);
      else run(this.group);
    };
    attempt();
  }

  /** Runs something outside a turn that may find the disk damaged. */
  guard(run: () => void): void {
    try {
      run();
    } catch (error) {
      this.#host.failed(this, error);
    }
  }

  /** A message, with the snapshot that came before it if it is one. */
  receive(message: Message, snapshot: Uint8Array | null): void {
    this.whenAvailable((group) => {
      if (message.type === "snapshot") {
        assert(snapshot !== null, "A snapshot arrives before its message");
        this.#arrived.set(nameOf(message.meta), snapshot);
      }
      group.receive(message);
    });
  }

  #putDamagedDisk(): void {
    const image = this.damagedImage;
    if (image === null) return;
    this.damagedImage = null;
    const { durable: held, onAppend } = this.disk;
    const { configuration } = this.disk.configuration;
    this.disk = new SimDisk({ bootstrap: configuration, image, held });
    this.disk.onAppend = onAppend;
  }

  #listenToDisk(): void {
    this.disk.onCommit = (phase) => {
      const death = this.commitsUntilDeath;
      if (death !== null && death.phase === phase && --death.count < 0) {
        throw new Died(`${phase} a commit`);
      }
      if (phase === "before" && this.commitMsMax > 0) {
        this.turnMs += this.#random.below(this.commitMsMax + 1);
      }
    };
  }

  #makeGroup(): Group {
    const generation = this.generation;
    const random = this.#random;
    return new Group({
      id: "default",
      member: this.member,
      disk: this.disk,
      settings: this.#host.settings,
      seed: random.next(),
      origin: random.next() * 2 ** 16 + random.below(2 ** 16),
      clusterId: random.next().toString(16),
      outputs: {
        send: (message) => this.#host.send(this, message, this.turnMs),
        wake: () => this.#wake(generation),
        sinceTickMs: () =>
          Math.min(
            this.#localMs() - this.#lastTickMs,
            CATCH_UP_TICKS_MAX * this.#host.settings.tickMs,
          ),
        remind: (delayMs) => this.#remind(generation, delayMs),
        shipSnapshot: (to, term) => this.#host.ship(this, to, term),
        installSnapshot: (_disk, meta) => this.#install(meta),
        writeRefusal: () => this.writeRefusal,
        diskExhausted: () => this.diskExhausted,
        log: (level, text, fields) => {
          if (level === "debug") return;
          this.#note(level, `${text} ${fields ? JSON.stringify(fields) : ""}`);
        },
      },
    });
  }

  #install(meta: SnapshotMeta): void {
    const image = this.#arrived.get(nameOf(meta));
    assert(image !== undefined, `No snapshot arrived for index ${meta.index}`);
    this.disk.installCopy(image, meta);
    this.#arrived.delete(nameOf(meta));
  }

  #localMs(): number {
    const { nowMs } = this.#host.clock;
    return Math.floor(nowMs * this.ratePerMille / 1000) + this.#jumpedMs;
  }

  #onTimer(generation: number): void {
    if (generation !== this.generation) return;
    const { clock, settings: { tickMs } } = this.#host;
    const waitMs = this.availableMs - clock.nowMs;
    if (waitMs > 0) {
      clock.after(waitMs, () => this.#onTimer(generation));
      return;
    }
    const ticks = Math.floor((this.#localMs() - this.#lastTickMs) / tickMs);
    this.#lastTickMs += ticks * tickMs;
    for (let i = 0; i < Math.min(ticks, CATCH_UP_TICKS_MAX); i++) {
      this.group?.tick();
    }
    if (this.group?.core.role === "leader") {
      for (const comer of this.#host.joiners(this)) this.group.join(comer);
    }
    const nextMs = Math.ceil(tickMs * 1000 / this.ratePerMille);
    clock.after(nextMs, () => this.#onTimer(generation));
  }

  #remind(generation: number, delayMs: number): void {
    this.#host.clock.after(delayMs, () => {
      if (generation === this.generation) this.group?.tellCommit();
    });
  }

  #wake(generation: number): void {
    if (generation !== this.generation || this.#isTurnScheduled) return;
    this.#isTurnScheduled = true;
    const { clock } = this.#host;
    clock.after(Math.max(0, this.availableMs - clock.nowMs), () => {
      if (generation !== this.generation) return;
      this.#isTurnScheduled = false;
      if (this.availableMs > clock.nowMs) this.#wake(generation);
      else this.#turn();
    });
  }

  #turn(): void {
    const { group } = this;
    assert(group !== null, `${this.name} has no group to run`);
    this.turnMs = 0;
    this.#host.beforeTurn(this);
    try {
      group.turn();
      // While nobody waits: soon, or after many turns.
      if (this.#random.chance(300)) this.disk.tidy();
    } catch (error) {
      this.#host.failed(this, error);
      return;
    }
    this.busyUntilMs = this.#host.clock.nowMs + this.turnMs;
    this.#host.afterTurn(this);
    this.turnMs = 0;
  }

  #note(what: string, detail: string): void {
    this.#host.trace.add(this.#host.clock.nowMs, {
      who: this.name,
      what,
      detail,
    });
  }
}

/** True for what a disk says when it holds bytes that it did not write. */
export function isCorruption(error: unknown): boolean {
  return error instanceof DkvError && error.code === "DATA_CORRUPT";
}

/** Where a member that rejoins starts from: the founders, without the one it was. */
export function bootstrapFor(
  founders: readonly string[],
  name: string,
): Configuration {
  return {
    voters: founders.filter((founder) => founder !== name).sort(),
    votersOutgoing: [],
    learners: [],
    learnersNext: [],
  };
}

function nameOf({ index, term }: SnapshotMeta): string {
  return `${term}/${index}`;
}
