/**
 * Changes of the cluster's membership, asked for on any node: proposed to the leader until they are in
 * force here, or the deadline has passed. Used by `service.ts`.
 *
 * The nodes of a cluster stand in its configuration file; membership says which of them take part:
 *
 * ```text
 *   add     the node is invited ──▶ starts with --rejoin ──▶ learner ──▶ (has caught up) ──▶ voter
 *   add as a learner        …                         ──▶ learner ──▶ promote ──▶ voter
 *   remove  the node's members leave, and its process ends when it learns of it
 * ```
 *
 * @module
 */

import { DkvError, OutcomeUnknownError } from "./errors.ts";
import type { Group } from "./group.ts";
import { invitedMember, isInvited, nodeOfMember } from "./identity.ts";
import { changeConfiguration, futureMembersOf, isJoint } from "./members.ts";
import type {
  Configuration,
  ConfigurationChange,
  MemberId,
} from "./message.ts";

/** A node that takes part. */
export interface MemberInfo {
  readonly nodeId: string;
  /** Receives everything, has no vote. */
  readonly isLearner: boolean;
  /** Has it ever come? Nothing is known of an invited one but its name. */
  readonly isStarted: boolean;
}

/** How often a change that is not in force yet is proposed again. */
const PROPOSE_TICKS = 10;

/** The members of one group. */
export class Membership {
  readonly #group: Group;
  readonly #tickMs: number;

  constructor(group: Group, { tickMs }: { tickMs: number }) {
    this.#group = group;
    this.#tickMs = tickMs;
  }

  /** The nodes that take part as far as this node knows, sorted by name. */
  list(): MemberInfo[] {
    const { learners } = this.#group.configuration;
    return futureMembersOf(this.#group.configuration).map((member) => ({
      nodeId: nodeOfMember(member),
      isLearner: learners.includes(member),
      isStarted: !isInvited(member),
    })).sort((a, b) => a.nodeId < b.nodeId ? -1 : 1);
  }

  /**
   * Invites a node. `hold`: it stays a learner until it is promoted by name.
   *
   * @throws {DkvError} MEMBERSHIP_REFUSED, OUTCOME_UNKNOWN
   */
  add(
    nodeId: string,
    options: { hold: boolean; timeoutMs: number },
  ): Promise<void> {
    const member = invitedMember(nodeId);
    return this.#change(options.timeoutMs, (configuration) => {
      if (membersOn(nodeId, configuration).length > 0) return null;
      const hold = options.hold ? { hold: [member] } : {};
      return { addLearners: [member], ...hold };
    });
  }

  /** Removes a node. Throws as {@linkcode add}. */
  remove(nodeId: string, { timeoutMs }: { timeoutMs: number }): Promise<void> {
    return this.#change(timeoutMs, (configuration) => {
      const remove = membersOn(nodeId, configuration);
      return remove.length === 0 ? null : { remove };
    });
  }

  /** Gives a learner its vote; refused by the leader until it has caught up. Throws as {@linkcode add}. */
  promote(nodeId: string, { timeoutMs }: { timeoutMs: number }): Promise<void> {
    return this.#change(timeoutMs, (configuration) => {
      const promote = membersOn(nodeId, configuration)
        .filter((member) => configuration.learners.includes(member));
      return promote.length === 0 ? null : { promote };
    });
  }

  /** `plan` answers what is still to be done, null if nothing is. */
  async #change(
    timeoutMs: number,
    plan: (configuration: Configuration) => ConfigurationChange | null,
  ): Promise<void> {
    const end = performance.now() + timeoutMs;
    for (let tick = 0; performance.now() < end; tick++) {
      const { configuration } = this.#group;
      const change = plan(configuration);
      if (change === null) return;
      if (tick % PROPOSE_TICKS === 0 && !isJoint(configuration)) {
        changeConfiguration(configuration, change); // Throws what can never be.
        this.#group.configure(change);
      }
      await new Promise((resolve) => setTimeout(resolve, this.#tickMs));
    }
    throw new OutcomeUnknownError(
      new DkvError(
        "MEMBERSHIP_REFUSED",
        `the members did not change within ${timeoutMs} ms: too few voters are reachable, ` +
          "another change is not finished, or a learner has not caught up",
      ),
    );
  }
}

function membersOn(nodeId: string, configuration: Configuration): MemberId[] {
  return futureMembersOf(configuration)
    .filter((member) => nodeOfMember(member) === nodeId);
}
