/**
 * One leadership: replication to the followers, what is committed, reads, changes of membership and
 * the hand-over to another leader. Made by `replicate.ts` when a replica wins an election and
 * dropped when it steps down, so nothing of one term can leak into another.
 *
 * Handlers only note what has become due; {@linkcode Leader.flush} sends it, so that everything that
 * arrives in one turn of the group travels in one message to each follower.
 *
 * @module
 */

import { assert, DkvError } from "./errors.ts";
import type { Effect, MessageBody, RefusedReason } from "./effect.ts";
import { entryBytes, type Log } from "./log.ts";
import type {
  Configuration,
  ConfigurationChange,
  Entry,
  Index,
  MemberId,
} from "./message.ts";
import {
  changeConfiguration,
  committedIndex,
  type ConfigurationHistory,
  hasQuorum,
  isJoint,
  isVoter,
  leaveJoint,
  membersOf,
} from "./members.ts";
import {
  type InflightLimits,
  Inflights,
  Progress,
  type ProgressState,
} from "./progress.ts";
import { type Read, type ReadAt, ReadRounds } from "./reads.ts";

/** A learner may be promoted when it lacks at most this many entries (raft-pitfalls M7). */
export const PROMOTION_LAG_MAX = 100;

/** What an entry says, before it has a place in the log. */
export type Payload =
  | { readonly type: "empty" }
  | { readonly type: "batch"; readonly data: Uint8Array }
  | { readonly type: "configuration"; readonly configuration: Configuration };

/** What a leadership needs of the replica it belongs to. */
export interface LeaderHost {
  readonly id: MemberId;
  readonly log: Log;
  readonly history: ConfigurationHistory;
  /** Appends to the own log in the own term; calls back `configurationChanged` if it is one. */
  append(payload: Payload): Index;
  /** Raises the commit index; true if it rose. */
  commitTo(index: Index): boolean;
  send(to: MemberId, body: MessageBody): void;
  emit(effect: Effect): void;
}

/** The part of the replica's options that concerns a leader. */
export interface LeaderOptions {
  readonly electionTicksMin: number;
  readonly heartbeatTicks: number;
  readonly appendBytesMax: number;
  readonly uncommittedBytesMax: number;
  readonly limits: InflightLimits;
}

/** What `Status` shows of a member. */
export interface MemberProgress {
  readonly match: Index;
  readonly next: Index;
  readonly state: ProgressState;
}

/** The leader's part of a replica, for one term. */
export class Leader {
  readonly #host: LeaderHost;
  readonly #options: LeaderOptions;
  /** Every member of the configuration in force except this one. */
  readonly #followers = new Map<MemberId, Progress>();
  readonly #reads = new ReadRounds();
  /** Batches that this leader appended and that are not committed. */
  readonly #uncommitted = new Inflights();
  /** The first entry of the own term, the empty one. */
  readonly #firstOwnIndex: Index;
  #heartbeatElapsed = 0;
  #isHeartbeatDue = true;
  /** The hand-over under way; `isTold` once the target was asked to campaign. */
  #transfer: { target: MemberId; ticks: number; isTold: boolean } | null = null;
  /** Set when this replica may not lead any longer; it then steps down at the end of the step. */
  #hasResigned = false;

  constructor(host: LeaderHost, options: LeaderOptions) {
    this.#host = host;
    this.#options = options;
    // Everyone counts as heard at first: the votes that made this leader were signs of life.
    this.#syncFollowers(host.log.lastIndex + 1, 0);
    this.#firstOwnIndex = host.append({ type: "empty" });
  }

  get hasResigned(): boolean {
    return this.#hasResigned;
  }
  get isTransferring(): boolean {
    return this.#transfer !== null;
  }
  /** Entries that earlier leaders left are committed only together with one of the own term (Raft paper, 5.4.2). */
  get committedInOwnTerm(): boolean {
    return this.#host.log.commit >= this.#firstOwnIndex;
  }

  /** Time passes: heartbeats become due, a leader that hears no majority gives up (raft-pitfalls E5). */
  tick(): void {
    const { electionTicksMin, heartbeatTicks } = this.#options;
    for (const follower of this.#followers.values()) follower.tick();
    this.#heartbeatElapsed += 1;
    if (this.#heartbeatElapsed >= heartbeatTicks) {
      this.#heartbeatElapsed = 0;
      this.#isHeartbeatDue = true;
    }
    if (this.#transfer !== null) {
      this.#transfer.ticks += 1;
      if (this.#transfer.ticks >= electionTicksMin) this.#transfer = null;
    }
    const { configuration } = this.#host.history.latest;
    if (!hasQuorum(configuration, (id) => this.#isActive(id))) {
      this.#hasResigned = true;
    }
  }

  /** Sends what has become due in this turn. */
  flush({ tellCommit }: { tellCommit: boolean }): void {
    if (this.#reads.begin()) this.#isHeartbeatDue = true;
    for (const [id, follower] of this.#followers) {
      if (this.#isHeartbeatDue) this.#sendHeartbeat(id, follower);
      this.#replicateTo(id, follower, { tellCommit });
    }
    this.#isHeartbeatDue = false;
    this.#answerReads();
  }

  /** Appends a batch; a reason if it may not be. */
  propose(data: Uint8Array): RefusedReason | null {
    if (this.#transfer !== null) return "TRANSFERRING";
    const payload = { type: "batch", data } as const;
    const bytes = entryBytes({ ...payload, index: 0, term: 0 });
    // One batch passes whatever its size, or a large one could never be proposed.
    if (
      this.#uncommitted.count > 0 &&
      this.#uncommitted.bytes + bytes > this.#options.uncommittedBytesMax
    ) {
      return "OVERLOADED";
    }
    this.#uncommitted.add(this.#host.append(payload), bytes);
    return null;
  }

  /**
   * Appends the first entry of a membership change.
   *
   * @throws {DkvError} MEMBERSHIP_REFUSED with the reason.
   */
  configure(change: ConfigurationChange): void {
    const { latest } = this.#host.history;
    const { log } = this.#host;
    if (this.#transfer !== null) refuse("leadership is being handed over");
    if (!this.committedInOwnTerm) {
      refuse("the leader has not committed an entry of its own term yet");
    }
    if (latest.index > log.commit || isJoint(latest.configuration)) {
      refuse(`the change at index ${latest.index} is not finished`);
    }
    const next = changeConfiguration(latest.configuration, change);
    for (const id of change.promote ?? []) this.#checkCaughtUp(id);
    if (!hasQuorum(next, (id) => this.#isActive(id))) {
      refuse("too few of the voters it leaves or makes are reachable");
    }
    this.#host.append({ type: "configuration", configuration: next });
  }

  /** The configuration in force is another one: keep one progress for each follower in it. */
  configurationChanged(): void {
    const { log, history } = this.#host;
    // Not heard yet: a member that never answers must not count as reachable.
    this.#syncFollowers(log.lastIndex, this.#options.electionTicksMin);
    const target = this.#transfer?.target;
    if (
      target !== undefined &&
      !history.latest.configuration.voters.includes(target)
    ) {
      this.#transfer = null;
    }
  }

  /** Begins to hand leadership over; null: to the most advanced voter. Ignores a target that cannot lead. */
  transfer(target: MemberId | null): void {
    const to = target ?? this.#mostAdvancedVoter();
    const { configuration } = this.#host.history.latest;
    if (to === null || to === this.#host.id) return;
    if (!configuration.voters.includes(to)) return;
    if (this.#transfer?.target === to) return;
    this.#transfer = { target: to, ticks: 0, isTold: false };
    this.#tellTarget();
  }

  /**
   * Takes a read in. A follower that asks in this term had not helped to elect anybody else when it
   * was asked itself; if it and this leader are a majority, nobody was elected, and no round is
   * needed to know that.
   */
  read(read: Read): void {
    const { log, history, id } = this.#host;
    const index = this.committedInOwnTerm ? log.commit : null;
    const { configuration } = history.latest;
    const isConfirmed = hasQuorum(
      configuration,
      (voter) => voter === id || voter === read.from,
    );
    if (isConfirmed && index !== null) this.#answerRead({ ...read, index });
    else if (!this.#reads.add(read, index)) this.#loseRead(read);
  }

  /** The own disk has got further: this, not the append, is the leader's own acknowledgement (raft-pitfalls P1). */
  persisted(): void {
    this.#maybeCommit();
    // The last own entry need not be on the own disk for the target to be complete, nor the reverse.
    this.#tellTarget();
  }

  appendReply(from: MemberId, index: Index): void {
    const follower = this.#followers.get(from);
    if (follower === undefined) return;
    follower.heard();
    const isNews = follower.acknowledged(index);
    if (
      follower.state === "snapshot" &&
      follower.match + 1 >= this.#host.log.firstIndex
    ) {
      follower.caughtUp();
    }
    if (isNews) this.#maybeCommit();
    this.#tellTarget();
  }

  appendReject(
    from: MemberId,
    rejected: { index: Index; hintIndex: Index; hintTerm: number },
  ): void {
    const follower = this.#followers.get(from);
    if (follower === undefined) return;
    follower.heard();
    const hint = this.#host.log.findAtMost({
      index: rejected.hintIndex,
      term: rejected.hintTerm,
    });
    follower.rejected(rejected.index, hint.index);
  }

  heartbeatReply(from: MemberId, readRound: number): void {
    const follower = this.#followers.get(from);
    if (follower === undefined) return;
    follower.heard();
    follower.answered(this.#host.log.lastIndex);
    this.#reads.answered(from, readRound);
    this.#answerReads();
  }

  /** Messages to the member may be lost. */
  unreachable(member: MemberId): void {
    const follower = this.#followers.get(member);
    if (follower?.state === "replicate") follower.becomeProbe();
  }

  /** The group is done with a snapshot for the member. */
  snapshotSent(member: MemberId, sent: { ok: boolean; index: Index }): void {
    this.#followers.get(member)?.snapshotSent(sent.index, sent.ok);
  }

  /** Ends the leadership: nobody waits in vain for a read (raft-pitfalls E10). */
  end(): void {
    for (const read of this.#reads.takeAll()) this.#loseRead(read);
  }

  /** For status: every member, this one too. */
  progress(): Map<MemberId, MemberProgress> {
    const { id, log } = this.#host;
    const all = new Map<MemberId, MemberProgress>();
    all.set(id, {
      match: log.stable,
      next: log.lastIndex + 1,
      state: "replicate",
    });
    for (const [member, { match, next, state }] of this.#followers) {
      all.set(member, { match, next, state });
    }
    return all;
  }

  assertInvariants(): void {
    for (const follower of this.#followers.values()) {
      follower.assertInvariants();
    }
    const { count, bytes } = this.#uncommitted;
    assert(
      count <= 1 || bytes <= this.#options.uncommittedBytesMax,
      `${bytes} bytes are not committed, at most ${this.#options.uncommittedBytesMax}`,
    );
  }

  #replicateTo(
    id: MemberId,
    follower: Progress,
    { tellCommit }: { tellCommit: boolean },
  ): void {
    const { log } = this.#host;
    for (;;) {
      const due = follower.due(log.lastIndex, tellCommit ? log.commit : null);
      if (due === "nothing") return;
      const previousIndex = follower.next - 1;
      const previousTerm = log.term(previousIndex);
      if (previousTerm === null) return this.#startSnapshot(id, follower);
      const entries: Entry[] = due === "empty" ? [] : log.entries(
        follower.next,
        log.lastIndex + 1,
        this.#options.appendBytesMax,
      );
      this.#host.send(id, {
        type: "append",
        previousIndex,
        previousTerm,
        entries,
        commit: log.commit,
      });
      follower.sent(previousIndex + entries.length, {
        bytes: entries.reduce((sum, entry) => sum + entryBytes(entry), 0),
        commit: log.commit,
      });
    }
  }

  /** Asks for a snapshot, unless the follower is silent: it could not take it. */
  #startSnapshot(id: MemberId, follower: Progress): void {
    if (follower.silentTicks >= this.#options.electionTicksMin) return;
    follower.becomeSnapshot();
    this.#host.emit({ type: "sendSnapshot", member: id });
  }

  #sendHeartbeat(id: MemberId, follower: Progress): void {
    this.#host.send(id, {
      type: "heartbeat",
      // Not beyond what the follower is known to share with this leader (raft-pitfalls S11).
      commit: Math.min(follower.match, this.#host.log.commit),
      readRound: this.#reads.round,
    });
  }

  #maybeCommit(): void {
    const { id, log, history } = this.#host;
    const index = committedIndex(
      history.latest.configuration,
      (member) =>
        member === id ? log.stable : this.#followers.get(member)?.match ?? 0,
    );
    // Counting replicas says nothing about entries of earlier terms (raft-pitfalls E1).
    if (index < this.#firstOwnIndex) return;
    const wasCommittedInOwnTerm = this.committedInOwnTerm;
    if (!this.#host.commitTo(index)) return;
    this.#uncommitted.settle(index);
    if (!wasCommittedInOwnTerm) this.#reads.release(index);
    this.#configurationCommitted();
  }

  /** A joint configuration is left as soon as it is committed, whoever began it (raft-pitfalls M5). */
  #configurationCommitted(): void {
    const { id, log, history } = this.#host;
    const { index, configuration } = history.latest;
    if (index > log.commit) return;
    if (isJoint(configuration)) {
      this.#host.append({
        type: "configuration",
        configuration: leaveJoint(configuration),
      });
    } else if (!isVoter(configuration, id)) {
      // Removed or demoted (raft-pitfalls E7). The successor need not wait for a timeout.
      const successor = this.#mostAdvancedVoter();
      if (successor !== null) {
        this.#host.send(successor, { type: "timeoutNow" });
      }
      this.#hasResigned = true;
    }
  }

  #answerReads(): void {
    const { configuration } = this.#host.history.latest;
    const ready = this.#reads.takeConfirmed(configuration, this.#host.id);
    for (const read of ready) this.#answerRead(read);
  }

  #answerRead({ from, id, index }: ReadAt): void {
    if (from === null) this.#host.emit({ type: "readReady", id, index });
    else this.#host.send(from, { type: "readIndexReply", id, index });
  }

  #loseRead({ from, id }: Read): void {
    if (from === null) this.#host.emit({ type: "readLost", id });
    else this.#host.send(from, { type: "readIndexReply", id, index: null });
  }

  #tellTarget(): void {
    if (this.#transfer === null || this.#transfer.isTold) return;
    const { target } = this.#transfer;
    const match = this.#followers.get(target)?.match;
    if (match !== this.#host.log.lastIndex) return;
    this.#transfer.isTold = true;
    this.#host.send(target, { type: "timeoutNow" });
  }

  #mostAdvancedVoter(): MemberId | null {
    let best: MemberId | null = null;
    let bestMatch = -1;
    for (const id of this.#host.history.latest.configuration.voters) {
      const match = this.#followers.get(id)?.match ?? -1;
      if (match > bestMatch && this.#isActive(id)) {
        best = id;
        bestMatch = match;
      }
    }
    return best;
  }

  #isActive(id: MemberId): boolean {
    if (id === this.#host.id) return true;
    const follower = this.#followers.get(id);
    return follower !== undefined &&
      follower.silentTicks < this.#options.electionTicksMin;
  }

  #checkCaughtUp(id: MemberId): void {
    const follower = this.#followers.get(id);
    const behind = this.#host.log.lastIndex - (follower?.match ?? 0);
    if (follower?.state !== "replicate" || !this.#isActive(id)) {
      refuse(`${id} is not receiving the log`);
    }
    if (behind > PROMOTION_LAG_MAX) {
      refuse(`${id} lacks ${behind} entries, at most ${PROMOTION_LAG_MAX}`);
    }
  }

  #syncFollowers(next: Index, silentTicks: number): void {
    const members = membersOf(this.#host.history.latest.configuration);
    for (const id of this.#followers.keys()) {
      if (!members.includes(id)) this.#followers.delete(id);
    }
    const { limits } = this.#options;
    for (const id of members) {
      if (id === this.#host.id || this.#followers.has(id)) continue;
      this.#followers.set(
        id,
        new Progress(Math.max(next, 1), { limits, silentTicks }),
      );
    }
  }
}

function refuse(reason: string): never {
  throw new DkvError(
    "MEMBERSHIP_REFUSED",
    `Membership change refused: ${reason}`,
  );
}
