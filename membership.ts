/**
 * Changes of the cluster's membership, asked for on any node: proposed to the leader until they are in
 * force here, or the deadline has passed. Used by `service.ts`.
 *
 * The founders of a cluster stand in its configuration file; membership says who takes part, and where
 * those are of whom the file does not say it, or not any more:
 *
 * ```text
 *   add     the node is invited ──▶ starts with --rejoin ──▶ learner ──▶ (has caught up) ──▶ voter
 *   add as a learner        …                         ──▶ learner ──▶ promote ──▶ voter
 *   move    the others dial the new address, where the node is started again
 *   remove  the node's members leave, and its process ends when it learns of it
 * ```
 *
 * @module
 */

import { DkvError, OutcomeUnknownError } from "./errors.ts";
import type { Group } from "./group.ts";
import { invitedMember, isInvited, nodeOfMember } from "./identity.ts";
import {
  changeConfiguration,
  futureMembersOf,
  isJoint,
  placeOf,
} from "./members.ts";
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
  /** Has it ever come? Nothing is known of an invited one but its name, or its address alone. */
  readonly isStarted: boolean;
  /** `host:port` as the cluster was told; null: as configuration files have it. */
  readonly address: string | null;
  /** The name in `nodeId` while only its address was known; otherwise as `nodeId`. */
  readonly invitedAs: string;
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
    const { configuration } = this.#group;
    return futureMembersOf(configuration).map((member) => {
      const nodeId = nodeOfMember(member);
      const place = placeOf(configuration, member);
      return {
        nodeId,
        isLearner: configuration.learners.includes(member),
        isStarted: !isInvited(member),
        address: place?.address ?? null,
        invitedAs: place?.invitedAs ?? nodeId,
      };
    }).sort((a, b) => a.nodeId < b.nodeId ? -1 : 1);
  }

  /** As {@linkcode MemberInfo.invitedAs}, of one node. */
  invitedAs(nodeId: string): string {
    const known = this.#group.configuration.places?.find(({ member }) =>
      nodeOfMember(member) === nodeId
    );
    return known?.invitedAs ?? nodeId;
  }

  /**
   * Invites a node, by the name that it will have or, if nobody knows it, by its address in the place
   * of a name. `hold`: it stays a learner until it is promoted by name.
   *
   * @throws {DkvError} MEMBERSHIP_REFUSED, OUTCOME_UNKNOWN
   */
  add(
    nodeId: string,
    { hold, address, timeoutMs }: {
      hold: boolean;
      address: string;
      timeoutMs: number;
    },
  ): Promise<void> {
    const member = invitedMember(nodeId);
    return this.#change(timeoutMs, (configuration) => {
      const isThere = membersOn(nodeId, configuration).length > 0 ||
        // It may have come already, and told its name.
        configuration.places?.some(({ invitedAs }) => invitedAs === nodeId);
      if (isThere) return null;
      return {
        addLearners: [member],
        places: [{ member, address }],
        ...(hold ? { hold: [member] } : {}),
      };
    });
  }

  /** Says where a node is from now on. Throws as {@linkcode add}. */
  move(
    nodeId: string,
    { address, timeoutMs }: { address: string; timeoutMs: number },
  ): Promise<void> {
    return this.#change(timeoutMs, (configuration) => {
      const members = membersOn(nodeId, configuration);
      if (members.length === 0) {
        throw new DkvError("MEMBERSHIP_REFUSED", `${nodeId} is not a member`);
      }
      const places = members
        .filter((member) => placeOf(configuration, member)?.address !== address)
        .map((member) => ({
          ...placeOf(configuration, member),
          member,
          address,
        }));
      return places.length === 0 ? null : { places };
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
