/**
 * dkv's Raft core: one replica of one group as a pure, synchronous state machine. The group steps
 * inputs in and performs the effects that come out; nothing in here knows of disks, sockets, clocks
 * or chance beyond its seed. The same inputs give the same effects.
 *
 * This module holds what every replica does: terms, votes, roles, the follower's part. What only a
 * leader does is in `leader.ts`. Written after the Raft paper and thesis (Ongaro) with the
 * refinements of etcd's raft: pre-vote, check-quorum, leader lease for votes, conflict hints.
 *
 * ```text
 *                timeout              majority            majority
 *   follower --------------> preCandidate --> candidate ----------> leader
 *      ^  ^--- refused, or a leader ----+--------+                     |
 *      +------------- higher term, no quorum heard, removed -----------+
 * ```
 *
 * @module
 */

import { assert, DkvError, unreachable } from "./errors.ts";
import type {
  CoreMessage,
  Effect,
  Input,
  MessageBody,
  ReplicateOptions,
  Role,
} from "./effect.ts";
import { Election } from "./election.ts";
import { Leader, type MemberProgress, type Payload } from "./leader.ts";
import { Log } from "./log.ts";
import { ConfigurationHistory, isVoter, membersOf } from "./members.ts";
import type {
  Configuration,
  Entry,
  HardState,
  Index,
  MemberId,
  Message,
  SnapshotMeta,
  Term,
} from "./message.ts";
import { ReadForwards } from "./reads.ts";

export type {
  CoreMessage,
  Effect,
  Input,
  RefusedReason,
  ReplicateOptions,
  Role,
} from "./effect.ts";
export type { LogStorage } from "./log.ts";

type Received<T extends CoreMessage["type"]> = Extract<
  CoreMessage,
  { type: T }
>;

/** How much of the log is read at once while looking for configurations at start. */
const SCAN_BYTES_MAX = 1024 * 1024;

/** One replica of a group. */
export class Replicate {
  readonly #id: MemberId;
  readonly #options: ReplicateOptions;
  readonly #log: Log;
  readonly #history: ConfigurationHistory;
  readonly #forwards = new ReadForwards();
  #term: Term;
  /** Who got this replica's vote in #term. */
  #vote: MemberId | null;
  #role: Role = "follower";
  /** The leader of #term, once heard of. */
  #leaderId: MemberId | null = null;
  /** Set exactly while #role is "leader". */
  #leader: Leader | null = null;
  readonly #election: Election;
  /** The hard state that was handed out last. */
  #handed: HardState;
  /** A term or vote was handed out and is not known to be on disk. */
  #isHardStateOpen = false;
  /** A snapshot is being installed: the log stands still until that is done. */
  #installing: SnapshotMeta | null = null;
  /** Of the step under way. */
  #effects: Effect[] = [];
  /** What the last "role" effect said. */
  #told: { role: Role; term: Term; leader: MemberId | null };

  constructor(options: ReplicateOptions) {
    checkOptions(options);
    const { storage, hardState, applied } = options;
    this.#id = options.id;
    this.#options = options;
    this.#term = hardState.term;
    this.#vote = hardState.vote;
    this.#handed = hardState;
    this.#log = new Log(storage, { applied, commit: hardState.commit });
    assert(
      this.#log.lastTerm <= hardState.term,
      `The log ends in term ${this.#log.lastTerm}, but the hard state says ${hardState.term}`,
    );
    this.#history = new ConfigurationHistory({
      index: options.configurationIndex,
      configuration: options.configuration,
    });
    this.#scanConfigurations(options.configurationIndex + 1);
    this.#history.committed(this.#log.commit);
    const { id, seed, electionTicksMin: ticksMin } = options;
    this.#election = new Election({ id, seed, ticksMin });
    this.#told = { role: "follower", term: this.#term, leader: null };
  }

  get id(): MemberId {
    return this.#id;
  }
  get role(): Role {
    return this.#role;
  }
  get term(): Term {
    return this.#term;
  }
  get leader(): MemberId | null {
    return this.#leaderId;
  }
  get commit(): Index {
    return this.#log.commit;
  }
  get applied(): Index {
    return this.#log.applied;
  }
  get firstIndex(): Index {
    return this.#log.firstIndex;
  }
  get lastIndex(): Index {
    return this.#log.lastIndex;
  }
  /** Everything up to here is on this replica's disk. */
  get stableIndex(): Index {
    return this.#log.stable;
  }
  /** In force: the last one in the log, committed or not. */
  get configuration(): Configuration {
    return this.#history.latest.configuration;
  }
  /** The entry that brought it; 0 at bootstrap. */
  get configurationIndex(): Index {
    return this.#history.latest.index;
  }
  /** Leads, and is not handing leadership over. */
  get canPropose(): boolean {
    return this.#leader !== null && !this.#leader.isTransferring;
  }
  /** Leads, and has committed an entry of its own term: it knows everything that was ever committed. */
  get committedInOwnTerm(): boolean {
    return this.#leader?.committedInOwnTerm ?? false;
  }

  /** For status: what the leader knows of each member; empty unless this replica leads. */
  progress(): Map<MemberId, MemberProgress> {
    return this.#leader?.progress() ?? new Map();
  }

  /** Takes one input in; the effects are to be performed in order. */
  step(input: Input): Effect[] {
    this.#effects = [];
    this.#handle(input);
    if (this.#leader?.hasResigned) this.#becomeFollower(this.#term, null);
    this.#persist();
    this.#tellRole();
    this.#apply();
    return this.#effects;
  }

  /** Throws if anything that must always hold does not. For tests, and after a snapshot. */
  assertInvariants(): void {
    this.#log.assertInvariants();
    this.#leader?.assertInvariants();
    assert(
      (this.#role === "leader") === (this.#leader !== null),
      `Role ${this.#role} with${this.#leader ? "" : "out"} a leadership`,
    );
    assert(
      (this.#role === "leader") === (this.#leaderId === this.#id),
      `Role ${this.#role}, but the leader is ${this.#leaderId}`,
    );
    assert(
      this.#log.lastTerm <= this.#term,
      `The log ends in term ${this.#log.lastTerm}, beyond ${this.#term}`,
    );
    assert(
      this.#history.latest.index <= this.#log.lastIndex,
      `Configuration at ${this.#history.latest.index} is beyond the log`,
    );
  }

  #handle(input: Input): void {
    switch (input.type) {
      case "tick":
        return this.#tick();
      case "message":
        return this.#receive(input.message);
      case "propose":
        return this.#propose(input.data);
      case "read":
        return this.#read(input.id);
      case "flush":
        return this.#leader?.flush(input);
      case "persisted":
        return this.#persisted(input);
      case "applied":
        return this.#log.appliedTo(input.index);
      case "compacted":
        return this.#log.compactedTo(input.index);
      case "configure":
        return this.#configure(input);
      case "transfer":
        return this.#transfer(input.target);
      case "campaign":
        return this.#campaign("preVote");
      case "unreachable":
        return this.#leader?.unreachable(input.member);
      case "snapshotSent":
        return this.#leader?.snapshotSent(input.member, input);
      case "snapshotInstalled":
        return this.#snapshotInstalled(input.meta);
      default:
        return unreachable(input);
    }
  }

  // Inputs of the group.

  #tick(): void {
    const { electionTicksMin } = this.#options;
    for (const id of this.#forwards.tick(electionTicksMin)) {
      this.#emit({ type: "readLost", id });
    }
    if (this.#leader !== null) return this.#leader.tick();
    if (this.#election.tick()) this.#campaign("preVote");
  }

  #propose(data: Uint8Array): void {
    const reason = this.#leader === null
      ? "NOT_LEADER"
      : this.#leader.propose(data);
    if (reason !== null) this.#emit({ type: "refused", reason });
  }

  #read(id: number): void {
    if (this.#leader !== null) return this.#leader.read({ from: null, id });
    if (this.#leaderId === null || !this.#forwards.add(id)) {
      return this.#emit({ type: "readLost", id });
    }
    this.#send(this.#leaderId, { type: "readIndex", id });
  }

  #persisted(position: { term: Term; index: Index }): void {
    if (this.#log.persisted(position)) {
      this.#isHardStateOpen = false;
      // The own vote counts like any other: once it is on disk (raft-pitfalls P1).
      if (this.#role === "candidate" && !this.#election.hasVoteOf(this.#id)) {
        this.#countVote(this.#id, true);
      }
    }
    this.#leader?.persisted();
  }

  #configure(input: Extract<Input, { type: "configure" }>): void {
    const type = "configureRefused";
    if (this.#leader === null) {
      const message = `${this.#id} is not the leader`;
      return this.#emit({ type, code: "NOT_LEADER", message });
    }
    try {
      this.#leader.configure(input.change);
    } catch (error) {
      if (!(error instanceof DkvError)) throw error;
      const { message } = error;
      this.#emit({ type, code: "MEMBERSHIP_REFUSED", message });
    }
  }

  #transfer(target: MemberId | null): void {
    if (this.#leader !== null) return this.#leader.transfer(target);
    if (this.#leaderId === null) return;
    this.#send(this.#leaderId, { type: "transferLeadership", target });
  }

  #snapshotInstalled(meta: SnapshotMeta): void {
    assert(
      this.#installing?.index === meta.index,
      `Snapshot ${meta.index} installed, not ${this.#installing?.index}`,
    );
    this.#installing = null;
    this.#log.reset(meta);
    const { index, configuration } = meta;
    this.#history.reset({ index, configuration });
    this.#emit({ type: "configuration", configuration, index });
    this.#handOutHardState();
    if (this.#leaderId === null) return;
    this.#reply(this.#leaderId, { type: "appendReply", index });
  }

  // Messages.

  #receive(message: CoreMessage): void {
    assert(
      message.to === this.#id,
      `Message for ${message.to} came to ${this.#id}`,
    );
    if (!this.#admit(message)) return;
    const { from } = message;
    switch (message.type) {
      case "append":
        this.#follow(from);
        return this.#onAppend(message);
      case "heartbeat":
        this.#follow(from);
        return this.#onHeartbeat(message);
      case "snapshot":
        this.#follow(from);
        return this.#onSnapshot(message);
      case "appendReply":
        return this.#leader?.appendReply(from, message.index);
      case "appendReject":
        return this.#leader?.appendReject(from, message);
      case "heartbeatReply":
        return this.#leader?.heartbeatReply(from, message.readRound);
      case "vote":
        return this.#onVote(message);
      case "voteReply":
        return this.#onVoteReply(message);
      case "timeoutNow":
        if (this.#leader === null) this.#campaign("transfer");
        return;
      case "readIndex":
        return this.#onReadIndex(message);
      case "readIndexReply":
        return this.#onReadIndexReply(message);
      case "transferLeadership":
        return this.#leader?.transfer(message.target);
      default:
        return unreachable(message);
    }
  }

  /** Compares terms, before anything else is looked at; false if that was all the message is good for. */
  #admit(message: CoreMessage): boolean {
    if (message.term < this.#term) {
      this.#answerOldTerm(message);
      return false;
    }
    if (message.term === this.#term) return true;
    if (message.type === "vote") {
      // Whoever hears a live leader does not help to depose it (raft-pitfalls E4).
      if (this.#hasLiveLeader && !message.transfer) return false;
      if (message.preVote) return true; // Asks only; changes nothing (raft-pitfalls E2).
    }
    // Carries the term that this replica would campaign in.
    if (message.type === "voteReply" && message.preVote && message.granted) {
      return true;
    }
    const isFromLeader = message.type === "append" ||
      message.type === "heartbeat" || message.type === "snapshot";
    this.#becomeFollower(message.term, isFromLeader ? message.from : null);
    return true;
  }

  /**
   * Without an answer, a leader of an old term would never learn the new one from a replica that it
   * keeps from being elected, and a candidate of an old term would ask for ever (raft-pitfalls E3).
   */
  #answerOldTerm(message: CoreMessage): void {
    const { from, type } = message;
    if (type === "append" || type === "heartbeat" || type === "snapshot") {
      this.#reply(from, { type: "appendReply", index: 0 });
    } else if (type === "vote") {
      const { preVote } = message;
      this.#reply(from, { type: "voteReply", preVote, granted: false });
    }
  }

  /** Accepts the sender as the leader of this term. */
  #follow(leader: MemberId): void {
    assert(
      this.#leaderId === null || this.#leaderId === leader,
      `Two leaders in term ${this.#term}: ${this.#leaderId} and ${leader}`,
    );
    if (this.#role !== "follower" || this.#leaderId === null) {
      this.#becomeFollower(this.#term, leader);
    }
    this.#election.wait();
  }

  #onAppend(message: Received<"append">): void {
    if (this.#installing !== null) return;
    const { from, previousIndex, previousTerm, entries } = message;
    if (previousIndex < this.#log.commit) {
      const index = this.#log.commit;
      return this.#reply(from, { type: "appendReply", index }, index);
    }
    const previous = { index: previousIndex, term: previousTerm };
    if (!this.#log.has(previous)) {
      const hint = this.#log.findAtMost(previous);
      return this.#reply(from, {
        type: "appendReject",
        index: previousIndex,
        hintIndex: hint.index,
        hintTerm: hint.term,
        lastIndex: this.#log.lastIndex,
      });
    }
    this.#appendAll(entries.slice(this.#log.findConflict(entries)));
    // What follows in this log may be of another leader: only this much is verified (raft-pitfalls S11).
    const verified = previousIndex + entries.length;
    this.#commitTo(Math.min(message.commit, verified));
    this.#reply(from, { type: "appendReply", index: verified }, verified);
  }

  #onHeartbeat(message: Received<"heartbeat">): void {
    // At most what this replica acknowledged to this leader, so it is in the log and verified.
    if (this.#installing === null) this.#commitTo(message.commit);
    const { readRound } = message;
    this.#reply(message.from, { type: "heartbeatReply", readRound });
  }

  #onSnapshot({ from, term, meta }: Received<"snapshot">): void {
    if (this.#installing !== null || meta.term > term) return;
    if (meta.index > this.#log.commit && !this.#log.has(meta)) {
      this.#installing = meta;
      return this.#emit({ type: "installSnapshot", meta });
    }
    // Nothing in it is new; but it proves that everything up to it is committed.
    this.#commitTo(meta.index);
    const index = this.#log.commit;
    this.#reply(from, { type: "appendReply", index }, index);
  }

  /** Asks neither whether the candidate is a member nor whether this replica votes (raft-pitfalls M3, M4). */
  #onVote(message: Received<"vote">): void {
    const { from, preVote, lastIndex, lastTerm } = message;
    const isFree = this.#vote === from ||
      (this.#vote === null && this.#leaderId === null) ||
      (preVote && message.term > this.#term);
    const granted = isFree &&
      this.#log.isUpToDate({ index: lastIndex, term: lastTerm });
    if (granted && !preVote) {
      this.#vote = from;
      this.#election.wait();
    }
    const body = { type: "voteReply", preVote, granted } as const;
    this.#reply(from, body, 0, granted ? message.term : this.#term);
  }

  #onVoteReply(message: Received<"voteReply">): void {
    const { from, preVote, granted } = message;
    if (this.#role !== (preVote ? "preCandidate" : "candidate")) return;
    const term = this.#term + (preVote && granted ? 1 : 0);
    if (message.term === term) this.#countVote(from, granted);
  }

  #onReadIndex({ from, id }: Received<"readIndex">): void {
    if (this.#leader !== null) return this.#leader.read({ from, id });
    this.#send(from, { type: "readIndexReply", id, index: null });
  }

  #onReadIndexReply({ id, index }: Received<"readIndexReply">): void {
    if (!this.#forwards.take(id)) return;
    if (index === null) this.#emit({ type: "readLost", id });
    else this.#emit({ type: "readReady", id, index });
  }

  // Roles.

  get #hasLiveLeader(): boolean {
    return this.#leaderId !== null && this.#election.isRecent;
  }

  #becomeFollower(term: Term, leader: MemberId | null): void {
    this.#changeRole("follower", { term, leader });
  }

  /** Leaves the old role in good order and takes the new one. */
  #changeRole(
    role: Role,
    { term, leader }: { term: Term; leader: MemberId | null },
  ): void {
    assert(term >= this.#term, `Term ${term} after ${this.#term}`);
    if (this.#leader !== null) {
      this.#leader.end();
      this.#leader = null;
    }
    for (const id of this.#forwards.takeAll()) {
      this.#emit({ type: "readLost", id });
    }
    if (term > this.#term) {
      this.#term = term;
      this.#vote = null;
    }
    this.#role = role;
    this.#leaderId = leader;
    this.#election.reset();
  }

  /**
   * Asks for votes, if this replica may lead. There is no configuration that it could have missed
   * (raft-pitfalls E9, M2): the last one in its log is the one in force.
   */
  #campaign(kind: "preVote" | "election" | "transfer"): void {
    if (this.#role === "leader" || this.#installing !== null) return;
    if (!this.#history.mayCampaign(this.#id)) {
      // Forgets a silent leader all the same, or it would go on refusing its vote to a successor.
      if (this.#leaderId !== null && !this.#hasLiveLeader) {
        this.#becomeFollower(this.#term, null);
      }
      return;
    }
    const preVote = kind === "preVote";
    const term = this.#term + 1;
    if (preVote) {
      this.#changeRole("preCandidate", { term: this.#term, leader: null });
    } else {
      this.#changeRole("candidate", { term, leader: null });
      this.#vote = this.#id;
    }
    const body = {
      type: "vote",
      preVote,
      lastIndex: this.#log.lastIndex,
      lastTerm: this.#log.lastTerm,
      transfer: kind === "transfer",
    } as const;
    for (const to of membersOf(this.configuration)) {
      if (to === this.#id || !isVoter(this.configuration, to)) continue;
      // A candidacy that a crash could undo must not be known to anyone: in the same term this
      // replica might ask again with a shorter log, or vote for another.
      this.#reply(to, body, this.#log.lastIndex, term);
    }
    // A pre-vote is no promise, so it counts at once; the real one when it is on disk.
    if (preVote) this.#countVote(this.#id, true);
  }

  #countVote(from: MemberId, granted: boolean): void {
    const { configuration } = this;
    const result = this.#election.count(from, { granted, configuration });
    if (result === "pending") return;
    if (result === "lost") return this.#becomeFollower(this.#term, null);
    if (this.#role === "preCandidate") return this.#campaign("election");
    this.#becomeLeader();
  }

  #becomeLeader(): void {
    this.#changeRole("leader", { term: this.#term, leader: this.#id });
    const options = this.#options;
    this.#leader = new Leader({
      id: this.#id,
      log: this.#log,
      history: this.#history,
      append: (payload) => this.#appendOwn(payload),
      commitTo: (index) => this.#commitTo(index),
      send: (to, body) => this.#send(to, body),
      emit: (effect) => this.#emit(effect),
    }, {
      ...options,
      limits: {
        messagesMax: options.inflightMessagesMax,
        bytesMax: options.inflightBytesMax,
      },
    });
  }

  // The log.

  #appendOwn(payload: Payload): Index {
    const index = this.#log.lastIndex + 1;
    this.#appendAll([{ index, term: this.#term, ...payload }]);
    return index;
  }

  /** Appends, replacing what conflicts, and puts configurations in force or out of it. */
  #appendAll(entries: readonly Entry[]): void {
    const from = entries[0]?.index;
    if (from === undefined) return;
    const isRolledBack = this.#history.truncate(from);
    this.#log.append(entries);
    let isChanged = isRolledBack;
    for (const entry of entries) {
      if (entry.type !== "configuration") continue;
      const { index, configuration } = entry;
      this.#history.push({ index, configuration });
      isChanged = true;
    }
    if (!isChanged) return;
    this.#emit({ type: "configuration", ...this.#history.latest });
    this.#leader?.configurationChanged();
  }

  #commitTo(index: Index): boolean {
    if (!this.#log.commitTo(index)) return false;
    this.#history.committed(index);
    return true;
  }

  #scanConfigurations(from: Index): void {
    const log = this.#log;
    let next = Math.max(from, log.firstIndex);
    while (next <= log.lastIndex) {
      const entries = log.entries(next, log.lastIndex + 1, SCAN_BYTES_MAX);
      for (const entry of entries) {
        if (entry.type !== "configuration") continue;
        const { index, configuration } = entry;
        this.#history.push({ index, configuration });
      }
      next += entries.length;
    }
  }

  // Effects.

  #emit(effect: Effect): void {
    this.#effects.push(effect);
  }

  #send(to: MemberId, body: MessageBody, term = this.#term): void {
    this.#emit({ type: "send", message: this.#envelope(to, body, term) });
  }

  /**
   * Sends something that this replica must still stand by after a crash: not before its term, its vote
   * and its log up to `index` are on disk (raft-pitfalls P1).
   */
  #reply(to: MemberId, body: MessageBody, index = 0, term = this.#term): void {
    const mustWait = this.#isHardStateOpen || index > this.#log.stable ||
      this.#term !== this.#handed.term || this.#vote !== this.#handed.vote;
    const message = this.#envelope(to, body, term);
    this.#emit({ type: mustWait ? "sendAfterPersist" : "send", message });
  }

  #envelope(to: MemberId, body: MessageBody, term: Term): Message {
    return { ...body, from: this.#id, to, term } as Message;
  }

  /** Term and entries go out in one effect, written in that order (raft-pitfalls P3). */
  #persist(): void {
    const unwritten = this.#log.takeUnwritten();
    const hardState = {
      term: this.#term,
      vote: this.#vote,
      commit: this.#log.commit,
    };
    const { term, vote, commit } = this.#handed;
    const isPromise = hardState.term !== term || hardState.vote !== vote;
    if (unwritten === null && !isPromise) return;
    const isChanged = isPromise || hardState.commit !== commit;
    if (isChanged) this.#handed = hardState;
    if (isPromise) this.#isHardStateOpen = true;
    // In front, since everything else in this step may depend on it.
    this.#effects.unshift({
      type: "persist",
      hardState: isChanged ? hardState : null,
      truncateFrom: unwritten?.truncateFrom ?? null,
      entries: unwritten?.entries ?? [],
    });
  }

  /** The state's file was replaced: the new one must hold this replica's term and vote, whatever it came with. */
  #handOutHardState(): void {
    this.#handed = {
      term: this.#term,
      vote: this.#vote,
      commit: this.#log.commit,
    };
    this.#isHardStateOpen = true;
    this.#emit({
      type: "persist",
      hardState: this.#handed,
      truncateFrom: null,
      entries: [],
    });
  }

  #tellRole(): void {
    const now = {
      role: this.#role,
      term: this.#term,
      leader: this.#leaderId,
    };
    const { role, term, leader } = this.#told;
    if (now.role === role && now.term === term && now.leader === leader) return;
    this.#told = now;
    this.#emit({ type: "role", ...now });
  }

  #apply(): void {
    if (this.#installing !== null) return;
    const entries = this.#log.takeCommitted(this.#options.applyBytesMax);
    if (entries.length > 0) this.#emit({ type: "apply", entries });
  }
}

function checkOptions(options: ReplicateOptions): void {
  const { electionTicksMin, heartbeatTicks } = options;
  assert(heartbeatTicks >= 1, `heartbeatTicks is ${heartbeatTicks}`);
  assert(
    electionTicksMin > heartbeatTicks,
    `electionTicksMin ${electionTicksMin} is not above heartbeatTicks ${heartbeatTicks}`,
  );
  for (
    const name of [
      "appendBytesMax",
      "inflightMessagesMax",
      "inflightBytesMax",
      "uncommittedBytesMax",
      "applyBytesMax",
    ] as const
  ) {
    assert(options[name] > 0, `${name} is ${options[name]}`);
  }
}
