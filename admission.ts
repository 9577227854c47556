/**
 * Who comes in, and who of the learners may vote: what a leader proposes of its own accord. Used by
 * `group.ts`.
 *
 * @module
 */

import { isSameAddress } from "./config.ts";
import { isInvited, isInvitedByAddress, nodeOfMember } from "./identity.ts";
import { PROMOTION_LAG_MAX } from "./leader.ts";
import { isJoint, membersOf, placeOf } from "./members.ts";
import type {
  Configuration,
  ConfigurationChange,
  MemberId,
  Place,
} from "./message.ts";
import type { Replicate } from "./replicate.ts";

/** Who comes, and from where: `host:port`, empty if it did not say. */
export interface Comer {
  readonly member: MemberId;
  readonly address: string;
}

/** The member that stands for whoever comes from an address, if one was invited from there. */
export function invitationOf(
  configuration: Configuration,
  address: string,
): Place | undefined {
  return configuration.places?.find((place) =>
    isInvitedByAddress(place.member) && isSameAddress(place.address, address)
  );
}

/**
 * The change that takes a member in, in the place of the one that its node was, or was invited as.
 * Null if it is a member, if nobody expects its node, or if another change is not finished.
 */
export function joining(
  configuration: Configuration,
  { member, address }: Comer,
): ConfigurationChange | null {
  const members = membersOf(configuration);
  if (isJoint(configuration) || members.includes(member)) return null;
  const node = nodeOfMember(member);
  const remove = members.filter((old) => nodeOfMember(old) === node);
  const invitation = invitationOf(configuration, address);
  if (remove.length === 0 && invitation !== undefined) {
    remove.push(invitation.member);
  }
  // The cluster has removed the node: it does not come back by itself.
  if (remove.length === 0) return null;
  const isHeld = remove.some((old) =>
    configuration.learnersHeld?.includes(old)
  );
  const hold = isHeld ? { hold: [member] } : {};
  const place = remove.map((old) => placeOf(configuration, old))
    .find((known) => known !== undefined);
  const places = place === undefined
    ? {}
    : { places: [inheritedPlace(place, member)] };
  return { addLearners: [member], remove, ...hold, ...places };
}

/** Where the old member was, and the name that clients still know it by. */
function inheritedPlace(old: Place, member: MemberId): Place {
  const invitedAs = isInvitedByAddress(old.member)
    ? nodeOfMember(old.member)
    : old.invitedAs;
  const { address } = old;
  return { member, address, ...(invitedAs === undefined ? {} : { invitedAs }) };
}

/** The learners that vote from now on: who came, has nearly the whole log and is not held back. */
export function promotable(
  core: Pick<Replicate, "configuration" | "lastIndex" | "progress">,
): MemberId[] {
  const { configuration, lastIndex } = core;
  const { learners, learnersHeld } = configuration;
  if (isJoint(configuration) || learners.length === 0) return [];
  const followers = core.progress();
  return learners.filter((learner) =>
    !isInvited(learner) && !learnersHeld?.includes(learner) &&
    (followers.get(learner)?.match ?? 0) >= lastIndex - PROMOTION_LAG_MAX
  );
}
