/**
 * What replicas of a group say to each other, and what they agree on: the vocabulary that the core
 * (`replicate.ts`), the disk, the peers and the group share. Types only.
 *
 * @module
 */

/** Names one replica. Never reused: a node that lost its disk comes back under a new one. */
export type MemberId = string;

/** Raft's logical clock of leaderships; starts at 0, the first leader has 1 or more. */
export type Term = number;

/** A position in the replicated log; the first entry has 1. */
export type Index = number;

/** Who votes and who only listens (Raft thesis, section 4.3: joint consensus). */
export interface Configuration {
  /** Sorted, without repetition, never empty. */
  readonly voters: readonly MemberId[];
  /** The voters that are being replaced; non-empty exactly while the configuration is joint. */
  readonly votersOutgoing: readonly MemberId[];
  /** Receive the log but do not vote; disjoint from both sets of voters. */
  readonly learners: readonly MemberId[];
  /** Outgoing voters that become learners when the joint configuration is left. */
  readonly learnersNext: readonly MemberId[];
  /** The learners that stay so until they are promoted by name; absent: none. */
  readonly learnersHeld?: readonly MemberId[];
  /** Where members are of whom the cluster was told; sorted by member, absent: none. */
  readonly places?: readonly Place[];
}

/** Where a member is. The core only keeps it; it counts more than a node's configuration file. */
export interface Place {
  readonly member: MemberId;
  /** `host:port`. */
  readonly address: string;
  /** The name that stood for its node when it was invited by address, before it told its own. */
  readonly invitedAs?: string;
}

/** A change asked for by an operator; the parts may be combined (a replacement is promote + remove). */
export interface ConfigurationChange {
  /** New members that receive the log but do not vote yet. */
  readonly addLearners?: readonly MemberId[];
  /** Those of `addLearners` that stay learners until they are promoted by name. */
  readonly hold?: readonly MemberId[];
  /** Learners that shall vote; they must have caught up. */
  readonly promote?: readonly MemberId[];
  /** Voters that shall only listen. */
  readonly demote?: readonly MemberId[];
  /** Members that leave, voters or learners. */
  readonly remove?: readonly MemberId[];
  /** Where members are from now on, each in the place of what was known of it. */
  readonly places?: readonly Place[];
}

/** One entry of the replicated log. */
export type Entry =
  & {
    readonly index: Index;
    readonly term: Term;
  }
  & (
    | {
      /** What a new leader appends to commit what it inherited. */
      readonly type: "empty";
    }
    | {
      /** Commands for the store, encoded (`batch.ts`). */
      readonly type: "batch";
      readonly data: Uint8Array;
    }
    | {
      /** A change of membership, in force as soon as it is in the log. */
      readonly type: "configuration";
      readonly configuration: Configuration;
    }
  );

/** What a replica must remember across a crash before it speaks (Raft paper, figure 2). */
export interface HardState {
  readonly term: Term;
  /** The candidate that got this replica's vote in `term`; null if none. */
  readonly vote: MemberId | null;
  /** Advisory: everything up to here is committed. */
  readonly commit: Index;
}

/** Names the state a snapshot holds. */
export interface SnapshotMeta {
  /** The last index the snapshot contains. */
  readonly index: Index;
  /** The term of the entry at that index. */
  readonly term: Term;
  /** The configuration in force at that index. */
  readonly configuration: Configuration;
}

/** A message between two replicas of a group. `term` is the sender's, except where said. */
export type Message =
  & {
    readonly from: MemberId;
    readonly to: MemberId;
    readonly term: Term;
  }
  & (
    | {
      /** Leader to follower: entries that follow (previousIndex, previousTerm); may be empty. */
      readonly type: "append";
      readonly previousIndex: Index;
      readonly previousTerm: Term;
      readonly entries: readonly Entry[];
      readonly commit: Index;
    }
    | {
      /** Follower to leader: on its disk up to `index`. */
      readonly type: "appendReply";
      readonly index: Index;
      /** Clients of the follower wait for what is committed: it wants to be told at once. Absent: no. */
      readonly awaitsCommit?: true;
    }
    | {
      /** Follower to leader: no entry (index, term) as asked; look again at or below the hint. */
      readonly type: "appendReject";
      /** The `previousIndex` that did not match. */
      readonly index: Index;
      readonly hintIndex: Index;
      readonly hintTerm: Term;
      /** The follower's last index. */
      readonly lastIndex: Index;
    }
    | {
      /** Leader to follower. `commit` is at most what the follower is known to have. */
      readonly type: "heartbeat";
      readonly commit: Index;
      /** The newest read round; every one gets a fresh number (raft-pitfalls R2). */
      readonly readRound: number;
    }
    | {
      readonly type: "heartbeatReply";
      readonly readRound: number;
    }
    | {
      /** Candidate to voter. In a pre-vote `term` is the one the candidate would campaign in. */
      readonly type: "vote";
      readonly preVote: boolean;
      readonly lastIndex: Index;
      readonly lastTerm: Term;
      /** Sent because the leader asked for it: not to be ignored in favour of that leader. */
      readonly transfer: boolean;
    }
    | {
      /** A granted pre-vote carries the candidate's term, a refusal the voter's own. */
      readonly type: "voteReply";
      readonly preVote: boolean;
      readonly granted: boolean;
    }
    | {
      /** Leader to follower: campaign at once (leadership transfer). */
      readonly type: "timeoutNow";
    }
    | {
      /** Follower to leader: at which index may I answer the reads collected under `id`? */
      readonly type: "readIndex";
      readonly id: number;
    }
    | {
      /** Leader to follower; null if it cannot say. */
      readonly type: "readIndexReply";
      readonly id: number;
      readonly index: Index | null;
    }
    | {
      /** Leader to follower, delivered after the snapshot's file has arrived and been checked. */
      readonly type: "snapshot";
      readonly meta: SnapshotMeta;
    }
    | {
      /**
       * Follower to leader: commands of its clients. `term` is the one the leader must still
       * have; the group, not the core, handles it.
       */
      readonly type: "forward";
      /** Which start of the sending node gave the ids out. */
      readonly origin: number;
      /** Every id below this one is settled: the leader may forget that it saw it. */
      readonly settledBelow: number;
      readonly commands: readonly {
        readonly id: number;
        readonly data: Uint8Array;
      }[];
    }
    | {
      /** Leader to follower: these commands were not and will not be appended in this term. */
      readonly type: "forwardRefused";
      readonly origin: number;
      readonly ids: readonly number[];
      readonly code: "OVERLOADED" | "DISK_FULL";
    }
    | {
      /** Any node to the leader: hand leadership to `target` (null: the most advanced voter). */
      readonly type: "transferLeadership";
      readonly target: MemberId | null;
    }
    | {
      /** Any node to the leader: change who the members are. The group, not the core, handles it. */
      readonly type: "configure";
      readonly change: ConfigurationChange;
    }
  );
