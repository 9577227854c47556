/**
 * Who votes and who listens: majorities, joint majorities and the way from one configuration to the
 * next (Raft thesis, chapter 4). Pure arithmetic, used by the core (`replicate.ts`, `leader.ts`) and
 * by whoever wants to show a change before asking for it.
 *
 * ```text
 *   {a b c}  --configure promote d, remove a-->  {b c d}&{a b c}  --committed-->  {b c d}
 *   simple                                       joint                            simple
 * ```
 *
 * @module
 */

import { isSameAddress } from "./config.ts";
import { assert, DkvError } from "./errors.ts";
import type {
  Configuration,
  ConfigurationChange,
  Index,
  MemberId,
  Place,
} from "./message.ts";

/** What a vote has come to so far. */
export type VoteResult = "won" | "lost" | "pending";

/** A configuration and the entry that brought it; index 0 is the bootstrap. */
export interface ConfigurationAt {
  readonly index: Index;
  readonly configuration: Configuration;
}

/** More members than this make every majority slow; also bounds the size of a configuration entry. */
export const MEMBERS_MAX = 64;

/** Builds a simple configuration; sorts what it is given. */
export function simpleConfiguration(
  voters: readonly MemberId[],
  learners: readonly MemberId[] = [],
  { held = [], places = [] }: {
    held?: readonly MemberId[] | undefined;
    places?: readonly Place[] | undefined;
  } = {},
): Configuration {
  const configuration = {
    voters: sorted(voters),
    votersOutgoing: [],
    learners: sorted(learners),
    learnersNext: [],
    ...holding(held),
    ...placing(places),
  };
  assertConfiguration(configuration);
  return configuration;
}

/** True while two sets of voters must both agree. */
export function isJoint(configuration: Configuration): boolean {
  return configuration.votersOutgoing.length > 0;
}

/** True if the member's vote counts, in either half of a joint configuration. */
export function isVoter(configuration: Configuration, id: MemberId): boolean {
  return configuration.voters.includes(id) ||
    configuration.votersOutgoing.includes(id);
}

/** Everyone that receives the log, sorted. */
export function membersOf(configuration: Configuration): MemberId[] {
  const { voters, votersOutgoing, learners } = configuration;
  return sorted([...voters, ...votersOutgoing, ...learners]);
}

/** Everyone that is a member when a change under way has ended. */
export function futureMembersOf(configuration: Configuration): MemberId[] {
  const { voters, learners, learnersNext } = configuration;
  return sorted([...voters, ...learners, ...learnersNext]);
}

/** Where a member is, if the cluster was told. */
export function placeOf(
  configuration: Configuration,
  member: MemberId,
): Place | undefined {
  return configuration.places?.find((place) => place.member === member);
}

/** The highest index that a majority (of both halves, when joint) has reached. */
export function committedIndex(
  configuration: Configuration,
  matchOf: (id: MemberId) => Index,
): Index {
  const index = majorityIndex(configuration.voters, matchOf);
  if (!isJoint(configuration)) return index;
  return Math.min(index, majorityIndex(configuration.votersOutgoing, matchOf));
}

/** Counts votes; members that are no voters do not count, whatever they said. */
export function voteResult(
  configuration: Configuration,
  votes: ReadonlyMap<MemberId, boolean>,
): VoteResult {
  const incoming = majorityVote(configuration.voters, votes);
  if (!isJoint(configuration)) return incoming;
  const outgoing = majorityVote(configuration.votersOutgoing, votes);
  if (incoming === "lost" || outgoing === "lost") return "lost";
  return incoming === "won" && outgoing === "won" ? "won" : "pending";
}

/** True if the members for which `isActive` holds can decide something. */
export function hasQuorum(
  configuration: Configuration,
  isActive: (id: MemberId) => boolean,
): boolean {
  return committedIndex(configuration, (id) => isActive(id) ? 1 : 0) === 1;
}

/**
 * The configuration that a change leads to: joint if it touches voters, simple if only learners
 * come or go (they are in no majority).
 *
 * @throws {DkvError} MEMBERSHIP_REFUSED if the change makes no sense here.
 */
export function changeConfiguration(
  current: Configuration,
  change: ConfigurationChange,
): Configuration {
  assert(!isJoint(current), "Cannot change a joint configuration");
  const {
    addLearners = [],
    promote = [],
    demote = [],
    remove = [],
    hold = [],
    places = [],
  } = change;
  checkChange(current, { addLearners, promote, demote, remove, hold, places });
  const leaves = new Set([...demote, ...remove]);
  const voters = sorted([
    ...current.voters.filter((id) => !leaves.has(id)),
    ...promote,
  ]);
  const moves = new Set([...promote, ...remove]);
  const learners = sorted([
    ...current.learners.filter((id) => !moves.has(id)),
    ...addLearners,
  ]);
  if (voters.length === 0) {
    refuse("the change leaves no voter");
  }
  if (voters.length + learners.length + demote.length > MEMBERS_MAX) {
    const members = voters.length + learners.length + demote.length;
    refuse(`the change makes ${members} members, at most ${MEMBERS_MAX}`);
  }
  const touchesVoters = promote.length > 0 ||
    current.voters.some((id) => leaves.has(id));
  const next: Configuration = {
    voters,
    votersOutgoing: touchesVoters ? current.voters : [],
    learners,
    learnersNext: sorted(demote),
    ...holding([
      ...(current.learnersHeld ?? []).filter((id) => !moves.has(id)),
      ...hold,
    ]),
  };
  const all = membersOf(next);
  const moved = new Set(places.map(({ member }) => member));
  const placed = {
    ...next,
    ...placing([
      ...(current.places ?? []).filter(({ member }) =>
        all.includes(member) && !moved.has(member)
      ),
      ...places,
    ]),
  };
  assertConfiguration(placed);
  return placed;
}

/** The simple configuration that follows a joint one. */
export function leaveJoint(joint: Configuration): Configuration {
  assert(isJoint(joint), "Cannot leave a configuration that is not joint");
  const { voters, learnersHeld: held } = joint;
  const learners = [...joint.learners, ...joint.learnersNext];
  const places = joint.places?.filter(({ member }) =>
    voters.includes(member) || learners.includes(member)
  );
  return simpleConfiguration(voters, learners, { held, places });
}

/** Throws unless the configuration keeps every rule that {@linkcode Configuration} states. */
export function assertConfiguration(configuration: Configuration): void {
  const { voters, votersOutgoing, learners, learnersNext } = configuration;
  const { learnersHeld = [] } = configuration;
  assert(voters.length > 0, "Configuration without voters");
  for (
    const set of [voters, votersOutgoing, learners, learnersNext, learnersHeld]
  ) {
    for (const [i, id] of set.entries()) {
      assert(i === 0 || set[i - 1]! < id, `Members not sorted: ${set}`);
    }
  }
  for (const id of learners) {
    assert(!isVoter(configuration, id), `Member ${id} votes and learns`);
  }
  for (const id of learnersHeld) {
    assert(learners.includes(id), `Member ${id} is held and no learner`);
  }
  const all = membersOf(configuration);
  const placed = configuration.places?.map(({ member }) => member) ?? [];
  for (const [i, id] of placed.entries()) {
    assert(i === 0 || placed[i - 1]! < id, `Places not sorted: ${placed}`);
    assert(all.includes(id), `${id} has a place and is no member`);
  }
  for (const id of learnersNext) {
    assert(
      votersOutgoing.includes(id) && !voters.includes(id),
      `Member ${id} becomes a learner without leaving the voters`,
    );
  }
}

/**
 * The configurations that the log holds, newest last. A configuration is in force from the moment
 * it is in the log, committed or not, and no longer once its entry is truncated away, so the ones
 * that a truncation could bring back are kept.
 */
export class ConfigurationHistory {
  /** Rising indexes; the first is committed, so never truncated. */
  #stack: ConfigurationAt[];

  constructor(base: ConfigurationAt) {
    assertConfiguration(base.configuration);
    this.#stack = [base];
  }

  /** The one in force. */
  get latest(): ConfigurationAt {
    return this.#stack.at(-1)!;
  }

  /**
   * True if the member votes in the configuration in force or in one that a truncation could bring back.
   * Such a member must be able to campaign even if the one in force leaves it out (Raft thesis, 4.2.2):
   *
   * ```text
   *   1 leads {2}&{1 2} and appends {2}, then crashes. 2 lacks that entry, so 1 refuses it its vote,
   *   and {2}&{1 2} cannot elect without 1. Only 1 can win: with the vote of 2, by {2}.
   * ```
   */
  mayCampaign(id: MemberId): boolean {
    return this.#stack.some((at) => isVoter(at.configuration, id));
  }

  /** Notes a configuration entry that was appended. */
  push(at: ConfigurationAt): void {
    assertConfiguration(at.configuration);
    assert(
      at.index > this.latest.index,
      `Configuration at ${at.index} is not after ${this.latest.index}`,
    );
    this.#stack.push(at);
  }

  /** Forgets entries at `from` and later; true if that changed what is in force. */
  truncate(from: Index): boolean {
    const before = this.#stack.length;
    while (this.latest.index >= from) {
      assert(
        this.#stack.length > 1,
        `Truncating from ${from} would remove the committed configuration at ${this.latest.index}`,
      );
      this.#stack.pop();
    }
    return this.#stack.length !== before;
  }

  /** Forgets what can no longer come back, now that everything up to `commit` is committed. */
  committed(commit: Index): void {
    while ((this.#stack[1]?.index ?? Infinity) <= commit) this.#stack.shift();
  }

  /** Starts afresh from a snapshot's configuration. */
  reset(base: ConfigurationAt): void {
    assertConfiguration(base.configuration);
    this.#stack = [base];
  }
}

/** The field is absent when nobody is held. */
function holding(
  held: readonly MemberId[],
): Pick<Configuration, "learnersHeld"> {
  return held.length === 0 ? {} : { learnersHeld: sorted(held) };
}

/** The field is absent when nobody's place is known. */
function placing(places: readonly Place[]): Pick<Configuration, "places"> {
  if (places.length === 0) return {};
  return {
    places: places.toSorted((a, b) => a.member < b.member ? -1 : 1),
  };
}

function sorted(ids: readonly MemberId[]): MemberId[] {
  return [...new Set(ids)].sort();
}

function majorityIndex(
  voters: readonly MemberId[],
  matchOf: (id: MemberId) => Index,
): Index {
  // Descending, so that position n / 2 is the highest index which more than half have reached.
  const matches = voters.map(matchOf).sort((a, b) => b - a);
  return matches[voters.length >> 1]!;
}

function majorityVote(
  voters: readonly MemberId[],
  votes: ReadonlyMap<MemberId, boolean>,
): VoteResult {
  let granted = 0;
  let refused = 0;
  for (const id of voters) {
    const vote = votes.get(id);
    if (vote === true) granted += 1;
    else if (vote === false) refused += 1;
  }
  const majority = (voters.length >> 1) + 1;
  if (granted >= majority) return "won";
  return voters.length - refused < majority ? "lost" : "pending";
}

function checkChange(
  current: Configuration,
  change: Required<ConfigurationChange>,
): void {
  const all = [
    ...change.addLearners,
    ...change.promote,
    ...change.demote,
    ...change.remove,
  ];
  const { places } = change;
  if (all.length + places.length === 0) refuse("the change is empty");
  if (new Set(all).size !== all.length) {
    refuse("the change names a member twice");
  }
  const members = membersOf(current);
  for (const id of change.addLearners) {
    if (members.includes(id)) refuse(`${id} is a member already`);
  }
  for (const id of change.hold) {
    if (!change.addLearners.includes(id)) refuse(`${id} is not added`);
  }
  checkPlaces(current, change);
  for (const id of change.promote) {
    if (!current.learners.includes(id)) refuse(`${id} is not a learner`);
  }
  for (const id of change.demote) {
    if (!current.voters.includes(id)) refuse(`${id} is not a voter`);
  }
  for (const id of change.remove) {
    if (!members.includes(id)) refuse(`${id} is not a member`);
  }
}

/** Two that stay cannot be at one address. */
function checkPlaces(
  current: Configuration,
  { addLearners, remove, places }: Required<ConfigurationChange>,
): void {
  const members = [...membersOf(current), ...addLearners];
  const moved = places.map(({ member }) => member);
  if (new Set(moved).size !== moved.length) {
    refuse("the change places a member twice");
  }
  const gone = [...remove, ...moved];
  const taken = (current.places ?? [])
    .filter(({ member }) => !gone.includes(member));
  for (const place of places) {
    const { member, address } = place;
    if (!members.includes(member) || remove.includes(member)) {
      refuse(`${member} is not a member`);
    }
    const other = taken.find((at) => isSameAddress(at.address, address));
    if (other !== undefined) refuse(`${other.member} is at ${address}`);
    taken.push(place);
  }
}

function refuse(reason: string): never {
  throw new DkvError(
    "MEMBERSHIP_REFUSED",
    `Membership change refused: ${reason}`,
  );
}

/** A configuration in a line of the log. */
export function describe(configuration: Configuration): Record<string, string> {
  const { voters, votersOutgoing, learners, places = [] } = configuration;
  return {
    voters: voters.join(","),
    ...(votersOutgoing.length > 0
      ? { outgoing: votersOutgoing.join(",") }
      : {}),
    ...(learners.length > 0 ? { learners: learners.join(",") } : {}),
    ...(places.length > 0
      ? { places: places.map((at) => `${at.member}@${at.address}`).join(",") }
      : {}),
  };
}
