/**
 * Who comes in, and who of the learners may vote: what a leader proposes of its own accord. Used by
 * `group.ts`.
 *
 * @module
 */

import { isInvited, nodeOfMember } from "./identity.ts";
import { PROMOTION_LAG_MAX } from "./leader.ts";
import { isJoint, membersOf } from "./members.ts";
import type {
  Configuration,
  ConfigurationChange,
  MemberId,
} from "./message.ts";
import type { Replicate } from "./replicate.ts";

/**
 * The change that takes a member in, in the place of the one that its node was, or was invited as.
 * Null if it is a member, if nobody expects its node, or if another change is not finished.
 */
export function joining(
  configuration: Configuration,
  member: MemberId,
): ConfigurationChange | null {
  const members = membersOf(configuration);
  if (isJoint(configuration) || members.includes(member)) return null;
  const node = nodeOfMember(member);
  const remove = members.filter((old) => nodeOfMember(old) === node);
  // The cluster has removed the node: it does not come back by itself.
  if (remove.length === 0) return null;
  const isHeld = remove.some((old) =>
    configuration.learnersHeld?.includes(old)
  );
  const hold = isHeld ? { hold: [member] } : {};
  return { addLearners: [member], remove, ...hold };
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
