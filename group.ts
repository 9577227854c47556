/**
 * One replica of one group at work: the Raft core, the store, the watchers and the disk, joined by
 * the turn. Synchronous; everything that touches the network or a clock is behind
 * {@linkcode GroupOutputs}, so the simulator runs this very module. Used by `node.ts`.
 *
 * ```text
 *  one turn   inbox ─▶ core ─▶ leader's appends leave
 *                        │
 *  proposals ─▶ batch ─▶ │ ─▶ log rows ─▶ COMMIT ─▶ votes and acknowledgements leave
 *                        │                   │
 *  reads ──▶ read round ─┘          persisted └─▶ core ─▶ committed entries ─▶ store ─▶ answers
 *                                                                               └─▶ watchers
 * ```
 *
 * Everything that arrives during a turn forms the next one, so one fsync and one log entry carry
 * many operations.
 *
 * @module
 */

import { decodeBatch, encodeBatch, type Request } from "./batch.ts";
import { CatchUps } from "./catchup.ts";
import { LIMITS, type Settings } from "./config.ts";
import type { Disk } from "./disk.ts";
import type { Effect, Input } from "./effect.ts";
import { assert, DkvError, unreachable } from "./errors.ts";
import { Forwards, refusalError } from "./forwards.ts";
import { LogClock, newestTimeMs } from "./logclock.ts";
import { type Comer, joining, promotable } from "./admission.ts";
import { describe } from "./members.ts";
import type {
  Configuration,
  ConfigurationChange,
  Entry,
  Index,
  MemberId,
  Message,
  SnapshotMeta,
  Term,
} from "./message.ts";
import { Proposals, type Waiter } from "./proposals.ts";
import { Queries, type ReadDone } from "./queries.ts";
import { Retention } from "./retention.ts";
import { Replicate } from "./replicate.ts";
import { Store } from "./store.ts";
import { Watchers } from "./watch.ts";

/** What a group asks of the outside. */
export interface GroupOutputs {
  /** Hands a message to the network; it may be lost. */
  send(message: Message): void;
  /** Asks for another turn, soon. */
  wake(): void;
  /** Whole milliseconds since the last tick, where there is a clock to look at. */
  sinceTickMs?(): number;
  /** Asks for a call of {@linkcode Group.tellCommit} after so long. */
  remind(delayMs: number): void;
  /** Asks for a snapshot of the committed state to be made, and sent with `snapshotMessage`. */
  shipSnapshot(to: MemberId, term: Term): void;
  /** Puts the snapshot that arrived for `meta` in the place of the disk's state. */
  installSnapshot(disk: Disk, meta: SnapshotMeta): void;
  /** Why writes must be refused at the moment, for lack of space; null if they need not. */
  writeRefusal(): string | null;
  /** True if not even what other nodes accepted may be written any more. */
  diskExhausted(): boolean;
  log(
    level: "debug" | "info" | "warn",
    text: string,
    fields?: Record<string, unknown>,
  ): void;
}

export interface GroupOptions {
  id: string;
  member: MemberId;
  disk: Disk;
  settings: Settings;
  /** For election timeouts. */
  seed: number;
  /** Names this start of this node; below 2^48, chosen at random. */
  origin: number;
  /** The cluster's identity if this node founds it: unique, chosen at random. */
  clusterId: string;
  outputs: GroupOutputs;
}

/** How many ticks an unanswered read round or forward waits before it is sent again. */
const RETRY_TICKS = 8;
/** While leases exist, log time is written down at least this often: a new leader starts from it. */
const CLOCK_MS = 1000;
/** How often the log and the history are looked at for what can be dropped. */
const HOUSEKEEPING_TICKS = 10;
const COMPACT_SLICE_ROWS = 500;
/** How long a commit index may wait for entries to travel with. */
const TELL_COMMIT_MS = 2;
/** A follower that forwarded, read or asked within this time has clients that wait. */
const ASKED_TICKS = 2;
/** All disks may be full: then leadership must not wander without end. */
const LEAVE_FULL_DISK_TICKS = 600;

/** One replica of one group. */
export class Group {
  readonly id: string;
  readonly member: MemberId;
  readonly #settings: Settings;
  readonly #origin: number;
  readonly #newClusterId: string;
  readonly #out: GroupOutputs;
  readonly #disk: Disk;
  readonly #core: Replicate;
  readonly #proposals: Proposals;
  readonly #queries: Queries;
  readonly #watchers: Watchers;
  #store: Store;

  /** Inputs of the next turn. */
  #inbox:
    (Input | { type: "forward"; message: Message & { type: "forward" } })[] =
      [];
  #ticks = 0;
  #hasSentEntries = false;
  #isClosed = false;
  /** Messages that wait for this turn's sync. */
  #afterSync: Message[] = [];
  /** True if the core handed out something that must be durable before it goes on. */
  #mustSync = false;
  /** The last entry handed out to the disk; `persisted` is reported up to here. */
  #written: { term: Term; index: Index };
  /** Committed entries that the core handed out and the store has not applied. */
  #committed: readonly Entry[] = [];
  #appliedTerm: Term;

  /** Until then followers have clients that wait for the commit index. */
  #askedUntilTick = 0;
  /** All followers were told of this commit index. */
  #toldCommit: Index = 0;
  #isReminderSet = false;
  #isReminded = false;

  readonly #clock: LogClock;
  /** What is left of the turn. */
  #parts: ("apply" | "persist")[] = [];

  // ---- leader only; cleared when the role changes
  readonly #forwards = new Forwards();
  #identified = false;
  #leftFullDiskTick = -LEAVE_FULL_DISK_TICKS;
  readonly #retention: Retention;
  readonly #catchUps = new CatchUps();

  constructor(options: GroupOptions) {
    const { disk, settings } = options;
    this.id = options.id;
    this.member = options.member;
    this.#settings = settings;
    this.#origin = options.origin;
    this.#newClusterId = options.clusterId;
    this.#out = options.outputs;
    this.#disk = disk;
    this.#retention = new Retention(settings);
    this.#clock = new LogClock({
      tickMs: settings.tickMs,
      sinceTickMs: options.outputs.sinceTickMs ?? null,
      timeMs: newestTimeMs(disk, disk.storeState),
    });
    this.#proposals = new Proposals({
      origin: options.origin,
      proposalsMax: LIMITS.pendingProposalsMax,
      bytesMax: LIMITS.pendingProposalBytesMax,
      commandBytesMax: settings.requestBytesMax,
    });
    this.#queries = new Queries({
      queriesMax: LIMITS.pendingReadsMax,
      // Answers to an earlier start of this node must not confirm reads of this one.
      firstId: (options.origin % 2 ** 20) * 2 ** 32,
    });
    this.#store = Store.load(disk.rows, disk.storeState, LIMITS);
    this.#watchers = new Watchers(this.#store, { ...LIMITS, ...settings });
    this.#appliedTerm = disk.storeState.appliedTerm;
    this.#written = { term: disk.term(disk.lastIndex), index: disk.lastIndex };
    this.#core = new Replicate({
      id: options.member,
      storage: disk,
      hardState: disk.hardState,
      applied: disk.storeState.appliedIndex,
      configuration: disk.configuration.configuration,
      configurationIndex: disk.configuration.index,
      seed: options.seed,
      electionTicksMin: settings.electionTicksMin,
      heartbeatTicks: settings.heartbeatTicks,
      appendBytesMax: LIMITS.appendBytesMax,
      inflightMessagesMax: LIMITS.inflightMessagesMax,
      inflightBytesMax: LIMITS.inflightBytesMax,
      uncommittedBytesMax: LIMITS.uncommittedBytesMax,
      applyBytesMax: LIMITS.applyBytesMax,
    });
  }

  // ---------------------------------------------------------------- what others may look at

  get core(): Pick<
    Replicate,
    | "role"
    | "term"
    | "leader"
    | "commit"
    | "applied"
    | "firstIndex"
    | "lastIndex"
    | "configuration"
    | "progress"
  > {
    return this.#core;
  }

  /** The state as far as it is applied here; read it inside `read`'s callback to be current. */
  get store(): Store {
    return this.#store;
  }

  get watchers(): Watchers {
    return this.#watchers;
  }

  /** How often this group has ticked. */
  get ticks(): number {
    return this.#ticks;
  }

  /** What waits here, each with a bound of its own. */
  get pending(): { proposals: number; proposalBytes: number; queries: number } {
    const { size: proposals, bytes: proposalBytes } = this.#proposals;
    return { proposals, proposalBytes, queries: this.#queries.size };
  }

  // ---------------------------------------------------------------- inputs

  /** Time passes: `settings.tickMs` of it. */
  tick(): void {
    this.#input({ type: "tick" });
  }

  /** A message for this replica arrived. */
  receive(message: Message): void {
    if (message.to !== this.member) return;
    const asks = message.type === "forward" || message.type === "readIndex" ||
      "awaitsCommit" in message;
    if (asks) this.#askedUntilTick = this.#ticks + ASKED_TICKS;
    switch (message.type) {
      case "forward":
        this.#inbox.push({ type: "forward", message });
        this.#out.wake();
        return;
      case "forwardRefused":
        if (message.origin !== this.#origin) return;
        for (const id of message.ids) {
          this.#proposals.settle(id, refusalError(message.code));
        }
        return;
      case "configure":
        if (this.#core.role === "leader") this.configure(message.change);
        return;
      case "append":
        // Without space nothing can be promised: as if the message had been lost.
        if (message.entries.length > 0 && this.#out.diskExhausted()) return;
        return this.#input({ type: "message", message });
      default:
        this.#input({ type: "message", message });
    }
  }

  /** The reminder asked for: what is committed is told to those who do not know it yet. */
  tellCommit(): void {
    this.#isReminderSet = false;
    this.#isReminded = true;
    this.#out.wake();
  }

  /** The connection to a member broke, or has no room. */
  unreachable(member: MemberId): void {
    this.#input({ type: "unreachable", member });
  }

  /**
   * What to send along with a snapshot that was asked for in `term`; null if this replica leads no
   * more. Making it takes a while, and in a later term only its leader may speak so.
   */
  snapshotMessage(
    to: MemberId,
    { term, meta }: { term: Term; meta: SnapshotMeta },
  ): (Message & { type: "snapshot" }) | null {
    if (this.#core.role !== "leader" || this.#core.term !== term) return null;
    return { type: "snapshot", from: this.member, to, term, meta };
  }

  /** A snapshot was shipped, or could not be. */
  snapshotSent(
    member: MemberId,
    { ok, index }: { ok: boolean; index: Index },
  ): void {
    this.#input({ type: "snapshotSent", member, ok, index });
  }

  /** A node is back under a new name: takes it in, in the place of its old one. */
  join(comer: Comer): void {
    const change = joining(this.#core.configuration, comer);
    if (change !== null && this.#core.role === "leader") this.configure(change);
  }

  /** Asks the leader for a change of membership; it may be refused, or get lost. */
  configure(change: ConfigurationChange): void {
    const { role, leader, term } = this.#core;
    if (role === "leader") return this.#input({ type: "configure", change });
    if (leader === null) return;
    const from = this.member;
    this.#out.send({ type: "configure", from, to: leader, term, change });
  }

  /** The configuration as far as it is applied here: every part of it is committed. */
  get configuration(): Configuration {
    return this.#disk.configuration.configuration;
  }

  /** Moves leadership to a voter; null: to the most advanced one. */
  transferLeadership(target: MemberId | null): void {
    this.#input({ type: "transfer", target });
  }

  /**
   * Proposes a write. `waiter` hears the result once it is applied here and durable at a majority;
   * its `timeoutMs` is null for the default.
   *
   * @throws {DkvError} OVERLOADED, SHUTTING_DOWN
   */
  propose(
    request: Request,
    waiter: Waiter & { readonly timeoutMs: number | null },
  ): void {
    this.#refuseIfClosed();
    const { requestTimeoutMs } = this.#settings;
    this.#proposals.add(request, {
      waiter,
      deadlineTick: this.#deadline(waiter.timeoutMs ?? requestTimeoutMs),
    });
    this.#out.wake();
  }

  /**
   * Calls `done(null)` when this replica's state includes every write that was acknowledged
   * anywhere before this call. Read the store inside the callback.
   *
   * @throws {DkvError} OVERLOADED, SHUTTING_DOWN
   */
  read(done: ReadDone, timeoutMs: number): void {
    this.#refuseIfClosed();
    this.#queries.add(done, this.#deadline(timeoutMs));
    this.#out.wake();
  }

  /** A watcher that was full has room again. */
  resumeWatches(): void {
    this.#out.wake();
  }

  // ---------------------------------------------------------------- the turn

  /** Takes in everything that arrived, makes it durable, applies what is committed, answers. */
  turn(): void {
    this.begin();
    while (this.proceed());
  }

  /**
   * The first part of a turn, until the disk is needed. True if a leader sent entries: who lets them
   * go out before {@linkcode proceed} has all disks work at the same time.
   */
  begin(): boolean {
    this.#hasSentEntries = false;
    const inbox = this.#inbox;
    this.#inbox = [];
    for (const input of inbox) {
      if (input.type === "forward") this.#onForward(input.message);
      else {
        if (input.type === "tick") this.#onTick();
        this.#step(input);
      }
    }
    this.#submit();
    this.#ask();
    this.#flush();
    this.#isReminded = false;
    // Whoever waits goes first: clients for a leader's answers, the leader for acknowledgements.
    const isLeader = this.#core.role === "leader";
    this.#parts = isLeader ? ["apply", "persist"] : ["persist", "apply"];
    return this.#hasSentEntries;
  }

  /**
   * The next part. True if there is another one, before which what this one sent and answered should
   * go out. What arrives between two parts belongs to the next turn.
   */
  proceed(): boolean {
    if (this.#parts.shift() === "persist") this.#persist();
    else this.#apply();
    const [next] = this.#parts;
    if (next === "persist" && this.#hasToPersist) return true;
    if (next === "apply" && this.#committed.length > 0) return true;
    if (next !== undefined) return this.proceed();
    const isMore = this.#hasToPersist || this.#committed.length > 0 ||
      this.#inbox.length > 0;
    if (isMore) this.#out.wake();
    return false;
  }

  /**
   * Ends what waits, refuses what comes, and makes everything durable. What is applied can still be
   * read, as long as the disk is open.
   */
  close(): void {
    this.#isClosed = true;
    this.#proposals.close();
    this.#queries.close();
    this.#watchers.close();
    this.#disk.saveStoreState(this.#store.state);
    this.#disk.commit();
  }

  /** No turn would ever get to it. */
  #refuseIfClosed(): void {
    if (!this.#isClosed) return;
    const text = "The node is stopping. Nothing was changed";
    throw new DkvError("SHUTTING_DOWN", text);
  }

  #input(input: Input): void {
    this.#inbox.push(input);
    this.#out.wake();
  }

  #step(input: Input): Effect[] {
    const effects = this.#core.step(input);
    for (const effect of effects) this.#perform(effect);
    return effects;
  }

  #perform(effect: Effect): void {
    switch (effect.type) {
      case "persist": {
        this.#disk.appendEntries(effect.entries, effect.truncateFrom);
        if (effect.hardState !== null) {
          this.#disk.saveHardState(effect.hardState);
        }
        const last = effect.entries.at(-1);
        if (last !== undefined) {
          this.#written = { term: last.term, index: last.index };
        } else if (effect.truncateFrom !== null) {
          this.#written = this.#diskEnd();
        }
        if (this.#core.role !== "leader") this.#clock.received(effect.entries);
        this.#mustSync = true;
        return;
      }
      case "send": {
        const { message } = effect;
        if (message.type === "append" && message.entries.length > 0) {
          this.#hasSentEntries = true;
        }
        return this.#out.send(message);
      }
      case "sendAfterPersist":
        this.#afterSync.push(this.#asking(effect.message));
        return;
      case "apply":
        this.#committed = [...this.#committed, ...effect.entries];
        return;
      case "refused":
        return; // Whoever proposed looks at the effects himself.
      case "readReady":
        return this.#queries.confirm(effect.id, effect.index);
      case "readLost":
        return this.#queries.lose(effect.id);
      case "sendSnapshot":
        this.#disk.commit(); // So that the snapshot holds what was applied, not an older state.
        this.#catchUps.begin(effect.member, {
          index: this.#disk.storeState.appliedIndex,
          tick: this.#ticks,
        });
        return this.#out.shipSnapshot(effect.member, this.#core.term);
      case "configureRefused":
        this.#out.log("info", "membership is not changed", {
          reason: effect.message,
        });
        return;
      case "installSnapshot":
        return this.#install(effect.meta);
      case "role":
        return this.#onRole(effect);
      case "configuration":
        this.#out.log(
          "info",
          "configuration in force",
          describe(effect.configuration),
        );
        return;
      default:
        unreachable(effect);
    }
  }

  /**
   * Sends what is due. Followers whose clients wait learn of a new commit index at once; others along
   * with the next entries, which under load saves a third of all packets, or a moment later.
   */
  #flush(): void {
    const { role, commit } = this.#core;
    const tellCommit = this.#ticks <= this.#askedUntilTick ||
      this.#isReminded || role !== "leader";
    this.#step({ type: "flush", tellCommit });
    if (tellCommit) this.#toldCommit = commit;
    else if (commit > this.#toldCommit && !this.#isReminderSet) {
      this.#isReminderSet = true;
      this.#out.remind(TELL_COMMIT_MS);
    }
  }

  get #hasToPersist(): boolean {
    return this.#mustSync || this.#afterSync.length > 0;
  }

  /** One fsync for everything the turn wrote; then what waited for it may leave. */
  #persist(): void {
    while (this.#hasToPersist) {
      if (this.#mustSync) {
        this.#mustSync = false;
        this.#disk.sync();
      }
      const messages = this.#afterSync;
      this.#afterSync = [];
      for (const message of messages) {
        if (!this.#isVoid(message)) this.#out.send(message);
      }
      this.#step({ type: "persisted", ...this.#written });
      this.#flush();
    }
    if (this.#disk.isLate) this.#disk.commit();
  }

  /** A follower with watchers asks along with its acknowledgements. */
  #asking(message: Message): Message {
    return message.type === "appendReply" && this.#watchers.size > 0
      ? { ...message, awaitsCommit: true }
      : message;
  }

  /**
   * True for an acknowledgement to the leader of a term that the same turn has left: what it
   * acknowledges may be cut off already. To that leader it is a lost message.
   */
  #isVoid(message: Message): boolean {
    return message.type === "appendReply" && message.term < this.#core.term;
  }

  #diskEnd(): { term: Term; index: Index } {
    const index = this.#disk.lastIndex;
    return { term: this.#disk.term(index), index };
  }

  // ---------------------------------------------------------------- writes

  /** Puts what waits into the log, as the leader, or forwards it to the leader. */
  #submit(): void {
    const { role, leader, term } = this.#core;
    if (role === "leader") return this.#proposeBatches();
    if (leader === null) return;
    while (this.#proposals.queued > 0) {
      const next = this.#proposals.next(LIMITS.batchBytesMax);
      this.#proposals.submitted(next, { term, tick: this.#ticks });
      this.#forward(leader, next);
    }
  }

  #forward(
    leader: MemberId,
    commands: readonly { id: number; data: Uint8Array }[],
  ): void {
    this.#out.send({
      type: "forward",
      from: this.member,
      to: leader,
      term: this.#core.term,
      origin: this.#origin,
      settledBelow: this.#proposals.settledBelow,
      commands,
    });
  }

  #proposeBatches(): void {
    if (!this.#core.canPropose) return;
    this.#refuseGrowth();
    while (this.#proposals.queued > 0 || this.#forwards.size > 0) {
      const own = this.#proposals.next(LIMITS.batchBytesMax);
      const forwarded = this.#forwards.next(LIMITS.batchBytesMax);
      const commands = [...own, ...forwarded].map(({ data }) => data);
      if (!this.#proposeBatch(commands)) return;
      const { term } = this.#core;
      this.#proposals.submitted(own, { term, tick: this.#ticks });
      this.#forwards.appended(forwarded);
    }
  }

  /** False if the core refused: the tail is full or leadership is being handed over. */
  #proposeBatch(commands: readonly Uint8Array[]): boolean {
    const timeMs = this.#clock.nextEntryMs;
    const data = encodeBatch(timeMs, commands);
    const effects = this.#step({ type: "propose", data });
    if (effects.some(({ type }) => type === "refused")) return false;
    this.#clock.wrote(timeMs);
    return true;
  }

  /** Takes over what another replica forwards, if this one still leads as the sender thinks. */
  #onForward(message: Message & { type: "forward" }): void {
    const { role, term, canPropose } = this.#core;
    if (role !== "leader" || message.term !== term || !canPropose) return;
    const isFull = this.#out.writeRefusal() !== null;
    const refused = this.#forwards.take(message, { isFull });
    if (refused === null) return;
    const { from: to, origin } = message;
    const from = this.member;
    this.#out.send({
      type: "forwardRefused",
      from,
      to,
      term,
      origin,
      ...refused,
    });
  }

  /** A leader without space on its disk answers what would need some, and goes on with the rest. */
  #refuseGrowth(): void {
    if (this.#proposals.queued === 0 || this.#out.writeRefusal() === null) {
      return;
    }
    for (const { id, grows } of this.#proposals.next(Infinity)) {
      if (grows) this.#proposals.settle(id, refusalError("DISK_FULL"));
    }
  }

  // ---------------------------------------------------------------- reads

  /** Starts one read round for all reads that wait. */
  #ask(): void {
    if (this.#queries.waiting === 0 || this.#core.leader === null) return;
    this.#step({ type: "read", id: this.#queries.start(this.#ticks) });
  }

  // ---------------------------------------------------------------- apply

  /** Applies committed entries to the store, answers this node's clients, feeds the watchers. */
  #apply(): void {
    const entries = this.#committed;
    this.#committed = [];
    if (entries.length > 0) {
      for (const entry of entries) this.#applyEntry(entry);
      this.#disk.saveStoreState(this.#store.state);
      this.#step({ type: "applied", index: this.#store.state.appliedIndex });
      this.#flush();
    }
    this.#queries.applied(this.#store.state.appliedIndex);
    if (this.#watchers.pump()) this.#out.wake();
  }

  #applyEntry(entry: Entry): void {
    if (entry.term > this.#appliedTerm) {
      this.#appliedTerm = entry.term;
      this.#proposals.requeueBefore(entry.term);
    }
    if (entry.type === "configuration") {
      this.#disk.saveConfiguration(entry.configuration, entry.index);
    }
    const batch = entry.type === "batch" ? decodeBatch(entry.data) : null;
    const applied = this.#store.apply({
      index: entry.index,
      term: entry.term,
      batch,
    });
    this.#watchers.publish(applied.events);
    for (const { origin, id, result } of applied.results) {
      if (origin === this.#origin) this.#proposals.settle(id, result);
    }
  }

  /** Replaces the whole state by the snapshot that arrived. */
  #install(meta: SnapshotMeta): void {
    this.#out.log("info", "installing a snapshot", {
      index: meta.index,
      term: meta.term,
    });
    this.#out.installSnapshot(this.#disk, meta);
    this.#store = Store.load(this.#disk.rows, this.#disk.storeState, LIMITS);
    assert(
      this.#store.state.appliedIndex === meta.index,
      `The installed snapshot is at ${this.#store.state.appliedIndex}, expected ${meta.index}`,
    );
    this.#committed = [];
    this.#appliedTerm = meta.term;
    this.#written = { term: meta.term, index: meta.index };
    this.#clock.learn(this.#store.state.timeMs);
    this.#watchers.rebase(this.#store);
    this.#proposals.settleSubmittedUnknown();
    this.#step({ type: "snapshotInstalled", meta });
  }

  // ---------------------------------------------------------------- time

  #deadline(timeoutMs: number): number {
    // Rounded down, so that the answer is there before the client stops waiting for it.
    const ticks = Math.floor(timeoutMs / this.#settings.tickMs);
    return this.#ticks + Math.max(1, ticks);
  }

  #onTick(): void {
    this.#ticks++;
    const hasLeader = this.#core.leader !== null;
    this.#clock.tick({ hasLeader });
    this.#watchers.tick(hasLeader);
    this.#proposals.expire(this.#ticks);
    this.#queries.expire(this.#ticks);
    if (this.#ticks % RETRY_TICKS === 0) this.#retry();
    if (this.#core.role === "leader") this.#onLeaderTick();
    if (this.#ticks % HOUSEKEEPING_TICKS === 0) this.#keepHouse();
    if (this.#committed.length === 0) {
      this.#store.compactSlice(COMPACT_SLICE_ROWS);
      this.#disk.saveStoreState(this.#store.state);
    }
  }

  #keepHouse(): void {
    this.#dropLog();
    // A disk that has had space since is full anew.
    if (this.#out.writeRefusal() === null) {
      this.#leftFullDiskTick = -LEAVE_FULL_DISK_TICKS;
    }
    if (this.#core.role !== "leader") return;
    const promote = promotable(this.#core);
    if (promote.length > 0) this.configure({ promote });
    this.#leaveFullDisk();
    this.#compactHistory();
  }

  /** A leader without space lets another try, whose disk may have some. */
  #leaveFullDisk(): void {
    const { voters } = this.#core.configuration;
    if (this.#out.writeRefusal() === null || voters.length < 2) return;
    if (this.#ticks - this.#leftFullDiskTick < LEAVE_FULL_DISK_TICKS) return;
    this.#leftFullDiskTick = this.#ticks;
    this.transferLeadership(null);
  }

  /** Messages get lost: asks again for what was not answered. */
  #retry(): void {
    const before = this.#ticks - RETRY_TICKS + 1;
    this.#queries.loseBefore(before);
    const { role, leader, term } = this.#core;
    if (role === "leader" || leader === null) return;
    const again = this.#proposals.unanswered(term, {
      before,
      bytesMax: LIMITS.batchBytesMax,
    });
    if (again.length === 0) return;
    for (const proposal of again) proposal.sentTick = this.#ticks;
    this.#forward(leader, again);
  }

  /** What is due by log time is proposed. */
  #onLeaderTick(): void {
    if (!this.#core.canPropose || !this.#core.committedInOwnTerm) return;
    const { clusterId } = this.#store.state;
    if (clusterId === "" && !this.#identified) {
      this.#identified = true;
      this.#proposeOwn({ type: "identify", clusterId: this.#newClusterId });
    }
    const deadlineMs = this.#store.nextLeaseDeadlineMs;
    if (deadlineMs === null) return;
    const { timeMs, idleMs } = this.#clock;
    if (deadlineMs <= timeMs && idleMs > 0 || idleMs >= CLOCK_MS) {
      this.#proposeBatch([]);
    }
  }

  /** A command that no client waits for. */
  #proposeOwn(request: Request): void {
    this.propose(request, {
      writeId: null,
      timeoutMs: null,
      settle: (outcome) => {
        if (outcome instanceof DkvError || outcome.type === "error") {
          this.#out.log("warn", `cannot ${request.type}`, {
            reason: outcome.message,
          });
        }
      },
    });
  }

  /** Old versions are dropped by age and by count, through the log: on all replicas alike. */
  #compactHistory(): void {
    const { revision, compactRevision } = this.#store.state;
    const { timeMs } = this.#clock;
    const due = this.#retention.due({ timeMs, revision, compactRevision });
    if (due !== null) this.#proposeOwn({ type: "compact", revision: due });
  }

  /** Drops applied entries from the log, keeping some for followers that were away. */
  #dropLog(): void {
    this.#disk.saveStoreState(this.#store.state);
    this.#disk.commitSoon();
    const { appliedIndex } = this.#store.state;
    const { firstIndex } = this.#core;
    const progress = this.#core.progress();
    let target = this.#catchUps.allow(
      appliedIndex - this.#settings.catchUpEntries,
      { matchOf: (id) => progress.get(id)?.match, tick: this.#ticks },
    );
    if (this.#disk.logBytes > LIMITS.logBytesMax) {
      target = Math.max(
        target,
        firstIndex + Math.floor((appliedIndex - firstIndex) / 4),
      );
    }
    if (target < firstIndex) return;
    this.#disk.dropEntries(target);
    this.#step({ type: "compacted", index: target });
  }

  #onRole({ role, term, leader }: Effect & { type: "role" }): void {
    this.#forwards.clear();
    this.#retention.clear();
    this.#catchUps.clear();
    this.#identified = false;
    if (role === "leader") this.#out.log("info", "became leader", { term });
    else if (leader !== null) {
      this.#out.log("info", `follows ${leader}`, { term });
    } else this.#out.log("debug", `is ${role}`, { term });
  }
}
