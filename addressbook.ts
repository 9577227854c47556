/**
 * Where the other nodes are: as the replicated configuration has it, or else the configuration file; and
 * who may come of whom only the address is known. Pure. Used by `neighbours.ts`.
 *
 * ```text
 *   members        place in the configuration, or else address in the file
 *   guests         invited by address, connected under their own name, not let in yet
 *   strangers      let in while this node was away: it has yet to learn of them, perhaps from them
 *   the rest       nodes of the file that take no part: they may rejoin
 * ```
 *
 * @module
 */

import { invitationOf } from "./admission.ts";
import { isSameAddress, type NodeConfig } from "./config.ts";
import type { Hello } from "./frame.ts";
import type { NodeId } from "./handshake.ts";
import { isInvitedByAddress, isRejoined, nodeOfMember } from "./identity.ts";
import { MEMBERS_MAX, membersOf, placeOf } from "./members.ts";
import type { Configuration, MemberId } from "./message.ts";

/** The other nodes as one node knows them. */
export class AddressBook {
  readonly #self: NodeId;
  readonly #file: ReadonlyMap<NodeId, string>;
  /** The name that somebody told who came from where this member was invited. */
  readonly #guests = new Map<MemberId, NodeId>();
  /** Where those are, by their own word, whom the configuration does not have yet. */
  readonly #strangers = new Map<NodeId, string>();

  constructor(self: NodeId, nodes: readonly NodeConfig[]) {
    this.#self = self;
    this.#file = new Map(nodes.map(({ id, address }) => [id, address]));
  }

  /** `host:port` of a member; undefined if nobody told. */
  addressOf(
    configuration: Configuration,
    member: MemberId,
  ): string | undefined {
    return placeOf(configuration, member)?.address ??
      this.#file.get(nodeOfMember(member));
  }

  /** True for somebody who comes from where a member was invited of whom only that is known. */
  isInvited(configuration: Configuration, hello: Hello): boolean {
    return isRejoined(hello.memberId) &&
      invitationOf(configuration, hello.address) !== undefined;
  }

  /** An invited node may have told its name. True if it is a new one. */
  welcome(configuration: Configuration, hello: Hello): boolean {
    const { nodeId, address } = hello;
    const invitation = invitationOf(configuration, address);
    if (invitation === undefined || !isRejoined(hello.memberId)) return false;
    if (this.#guests.get(invitation.member) === nodeId) return false;
    this.#guests.set(invitation.member, nodeId);
    return true;
  }

  /** Somebody is connected whom {@linkcode others} did not name. True if that is news. */
  meet({ nodeId, address }: Hello): boolean {
    if (this.#strangers.get(nodeId) === address) return false;
    if (this.#strangers.size >= MEMBERS_MAX) return false;
    this.#strangers.set(nodeId, address);
    return true;
  }

  /** Nobody of that name is connected any more. True if it was a stranger. */
  part(nodeId: NodeId): boolean {
    return this.#strangers.delete(nodeId);
  }

  /**
   * Where every other node is. The last configuration counts most; in an earlier one stands who leaves
   * and must still hear that it is agreed on.
   */
  others(configurations: readonly Configuration[]): Map<NodeId, string> {
    const known = new Map<NodeId, string>();
    for (const configuration of configurations) {
      for (const member of membersOf(configuration)) {
        const address = this.addressOf(configuration, member);
        if (isInvitedByAddress(member)) continue;
        if (address !== undefined) known.set(nodeOfMember(member), address);
      }
    }
    for (const [invited, nodeId] of this.#guests) {
      const address = configurations
        .map((configuration) => placeOf(configuration, invited)?.address)
        .findLast((found) => found !== undefined);
      if (address === undefined) this.#guests.delete(invited);
      else if (!known.has(nodeId)) known.set(nodeId, address);
    }
    for (const [nodeId, address] of this.#strangers) {
      if (known.has(nodeId)) this.#strangers.delete(nodeId);
      else known.set(nodeId, address);
    }
    for (const [nodeId, address] of this.#file) {
      const isElsewhere = known.has(nodeId) ||
        [...known.values()].some((taken) => isSameAddress(taken, address));
      if (!isElsewhere) known.set(nodeId, address);
    }
    known.delete(this.#self);
    return known;
  }
}
