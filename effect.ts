/**
 * What goes into the core and what comes out of it. The core (`replicate.ts`) is a function from
 * inputs to effects; the group performs the effects strictly in order.
 *
 * A turn of the group, seen from here:
 *
 * ```text
 *   step(input) … step(input) step(flush)   each: persist -> into the open transaction; send -> now
 *   COMMIT, once, if anything was written
 *   the sendAfterPersist messages, in order
 *   step(persisted)                         before any other input
 * ```
 *
 * @module
 */

import type {
  Configuration,
  ConfigurationChange,
  Entry,
  HardState,
  Index,
  MemberId,
  Message,
  SnapshotMeta,
  Term,
} from "./message.ts";
import type { LogStorage } from "./log.ts";

/** What a replica is at the moment. A learner is a follower that never campaigns. */
export type Role = "leader" | "follower" | "candidate" | "preCandidate";

/** The messages that the core understands; the group handles the others itself. */
export type CoreMessage = Exclude<
  Message,
  { type: "forward" } | { type: "forwardRefused" } | { type: "configure" }
>;

/** A message without its envelope. */
export type MessageBody = Message extends infer M
  ? M extends Message ? Omit<M, "from" | "to" | "term"> : never
  : never;

/** How a replica starts. */
export interface ReplicateOptions {
  readonly id: MemberId;
  readonly storage: LogStorage;
  /** As read from disk; term 0 and no vote for a new member. */
  readonly hardState: HardState;
  /** As read from disk: the state contains every entry up to here. */
  readonly applied: Index;
  /** In force at `configurationIndex`; must be committed (bootstrap, snapshot, or an applied entry). */
  readonly configuration: Configuration;
  /** 0 at bootstrap. Configuration entries after it are found in storage, which is read through. */
  readonly configurationIndex: Index;
  /** For the election timeouts. Members with the same seed still draw different ones. */
  readonly seed: number;
  /** Each election timeout is drawn from [min, 2 * min). */
  readonly electionTicksMin: number;
  /** Fewer than `electionTicksMin`, usually a tenth. */
  readonly heartbeatTicks: number;
  /** Per append message; a single larger entry is sent all the same. */
  readonly appendBytesMax: number;
  /** Per follower: appends that were sent and not acknowledged. */
  readonly inflightMessagesMax: number;
  /** Per follower: their entries' bytes. */
  readonly inflightBytesMax: number;
  /** Entries that a leader appended and that are not committed (raft-pitfalls F2). */
  readonly uncommittedBytesMax: number;
  /** Per apply effect; a single larger entry is handed out all the same. */
  readonly applyBytesMax: number;
}

/** Something that happened to this replica. */
export type Input =
  | { readonly type: "tick" }
  | { readonly type: "message"; readonly message: CoreMessage }
  | {
    /** One batch entry. Answered with "refused", or appended at the new `lastIndex`. */
    readonly type: "propose";
    readonly data: Uint8Array;
  }
  | {
    /**
     * A linearizable read, whatever the role. `id` must be fresh for each attempt and differ from those of
     * earlier runs of this replica too, since an answer may be late (raft-pitfalls R2).
     */
    readonly type: "read";
    readonly id: number;
  }
  | {
    /**
     * Ends the inputs of a turn: sends what they made due. `tellCommit` false: a new commit index is
     * told only along with something else; a later flush must tell it.
     */
    readonly type: "flush";
    readonly tellCommit: boolean;
  }
  | {
    /**
     * Everything handed out in persist effects up to the entry (index, term), the last that was
     * handed out, is on disk, and so is the last hard state.
     */
    readonly type: "persisted";
    readonly term: Term;
    readonly index: Index;
  }
  | { readonly type: "applied"; readonly index: Index }
  | {
    /** Storage has dropped entries up to and including index, which is at most what is applied and persisted. */
    readonly type: "compacted";
    readonly index: Index;
  }
  | {
    /** Answered with "configuration" or "configureRefused". */
    readonly type: "configure";
    readonly change: ConfigurationChange;
  }
  | {
    /** Hands leadership to `target`; null: the most advanced voter. Passed on to the leader. */
    readonly type: "transfer";
    readonly target: MemberId | null;
  }
  | {
    /** Campaign now: tests, and the start of a single node. */
    readonly type: "campaign";
  }
  | {
    /** The stream to the member broke, or its queue is full: what was sent may be lost. */
    readonly type: "unreachable";
    readonly member: MemberId;
  }
  | {
    /** The end of a "sendSnapshot"; index is that of the snapshot that was sent. */
    readonly type: "snapshotSent";
    readonly member: MemberId;
    readonly ok: boolean;
    readonly index: Index;
  }
  | {
    /**
     * The group has replaced its disk state by this snapshot, durably, and kept its own hard state
     * (the file that came from the leader must never bring the leader's term and vote).
     */
    readonly type: "snapshotInstalled";
    readonly meta: SnapshotMeta;
  };

/** Something the group must do on the core's behalf. */
export type Effect =
  | {
    /** Write now into the open transaction, in this order; durable at the next commit. */
    readonly type: "persist";
    readonly hardState: HardState | null;
    /** Delete the entries from here on first; null if there are none to delete. */
    readonly truncateFrom: Index | null;
    readonly entries: readonly Entry[];
  }
  | {
    /** Only after everything handed out so far is durable. */
    readonly type: "sendAfterPersist";
    readonly message: Message;
  }
  | { readonly type: "send"; readonly message: Message }
  | {
    /** Committed entries in order, each once; the next ones come only after "applied". */
    readonly type: "apply";
    readonly entries: readonly Entry[];
  }
  | {
    /** The proposal just stepped was not appended. */
    readonly type: "refused";
    readonly reason: RefusedReason;
  }
  | {
    /** The change just stepped was not made; `message` says why. */
    readonly type: "configureRefused";
    readonly code: "NOT_LEADER" | "MEMBERSHIP_REFUSED";
    readonly message: string;
  }
  | {
    /** Answer from the state once `index` is applied. */
    readonly type: "readReady";
    readonly id: number;
    readonly index: Index;
  }
  | {
    /** No leader, or it changed, or too many are waiting: ask again under a new id. */
    readonly type: "readLost";
    readonly id: number;
  }
  | {
    /** The follower needs a snapshot; the group makes and ships it, then steps "snapshotSent". */
    readonly type: "sendSnapshot";
    readonly member: MemberId;
  }
  | {
    /** Accepted: replace the state by the file that came with it, then step "snapshotInstalled". */
    readonly type: "installSnapshot";
    readonly meta: SnapshotMeta;
  }
  | {
    /** One of the three changed. */
    readonly type: "role";
    readonly role: Role;
    readonly term: Term;
    readonly leader: MemberId | null;
  }
  | {
    /** In force from now; committed or not. */
    readonly type: "configuration";
    readonly configuration: Configuration;
    readonly index: Index;
  };

/** Why a proposal was not appended. */
export type RefusedReason = "NOT_LEADER" | "OVERLOADED" | "TRANSFERRING";
