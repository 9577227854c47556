/**
 * Who this node talks with: which others there are and where, who may speak, and who of them wants to
 * come in. Keeps the peers at what the replicated configuration says. Used by `node.ts`.
 *
 * @module
 */

import { AddressBook } from "./addressbook.ts";
import { type Config, isAddress, isSameAddress, nodeOf } from "./config.ts";
import { DkvError } from "./errors.ts";
import type { Hello } from "./frame.ts";
import type { Group } from "./group.ts";
import {
  type Identity,
  isRejoined,
  type KnownMembers,
  nodeOfMember,
} from "./identity.ts";
import { membersOf, placeOf } from "./members.ts";
import type { Configuration } from "./message.ts";
import type { Logger } from "./metrics.ts";
import type { NodeId, Peers } from "./peers.ts";

/** What {@linkcode Neighbours} needs of the node. */
export interface NeighboursOptions {
  readonly config: Config;
  readonly identity: Identity;
  /** The data directory, for messages. */
  readonly directory: string;
  readonly known: KnownMembers;
  readonly group: Pick<Group, "core" | "configuration" | "store" | "join">;
  readonly logger: Logger;
}

/** The other nodes of the cluster, and those that may join it. */
export class Neighbours {
  readonly #options: NeighboursOptions;
  readonly #book: AddressBook;
  /** What connected nodes said last; those the configuration does not know ask to join. */
  readonly #hellos = new Map<NodeId, Hello>();
  /** The configurations that `#book` was last asked about: applied, and in force. */
  #placed: readonly Configuration[] = [];
  /** What {@linkcode others} answered last. */
  #others: ReadonlyMap<NodeId, string> = new Map();

  constructor(options: NeighboursOptions) {
    const { identity, config } = options;
    this.#options = options;
    this.#book = new AddressBook(identity.nodeId, config.nodes);
  }

  /**
   * Founders know one another; who joined later may first have to learn where its members went.
   *
   * @throws {DkvError} IDENTITY_MISMATCH if nobody has told where a member is.
   */
  refuseUnknown(): void {
    const { identity: { memberId, cluster }, directory, group } = this.#options;
    if (isRejoined(memberId)) return;
    const { configuration } = group.core;
    const lost = membersOf(configuration).find((member) =>
      this.#book.addressOf(configuration, member) === undefined
    );
    if (lost === undefined) return;
    throw new DkvError(
      "IDENTITY_MISMATCH",
      `Cannot use data directory ${directory}: it belongs to a cluster ${cluster} with other nodes than ` +
        `the configuration lists: ${
          nodeOfMember(lost)
        } is one, and its address is not known`,
    );
  }

  /** Where the others are, as far as this node may go there. */
  others(): Map<NodeId, string> {
    const { config, group, logger } = this.#options;
    this.#placed = [group.configuration, group.core.configuration];
    const others = this.#book.others(this.#placed);
    for (const [nodeId, address] of others) {
      if (mayReach(address)) continue;
      // Where it was it may still be, and be heard.
      const before = this.#others.get(nodeId) ??
        config.nodes.find(({ id }) => id === nodeId)?.address;
      if (before === undefined) others.delete(nodeId);
      else others.set(nodeId, before);
      logger.error(
        `no permission to connect to ${nodeId} at ${address}: list a node on that host in ` +
          `${config.path}, or allow it, and start this node again`,
      );
    }
    this.#others = others;
    return others;
  }

  /** The peers follow what is in force; called every tick. */
  follow(peers: Pick<Peers, "place">): void {
    const { group } = this.#options;
    const [applied, inForce] = this.#placed;
    const isNews = applied !== group.configuration;
    if (!isNews && inForce === group.core.configuration) return;
    peers.place(this.others());
    if (isNews) this.#noteOwnPlace();
  }

  #noteOwnPlace(): void {
    const { config, group, identity, logger } = this.#options;
    const place = placeOf(group.configuration, identity.memberId);
    const { address } = nodeOf(config, identity.nodeId);
    if (place === undefined || isSameAddress(place.address, address)) return;
    logger.warn(
      `the others look for this node at ${place.address}: put that into ${config.path} and start ` +
        "this node again",
    );
  }

  /** True for a node that is none of the others and may come all the same. */
  invites(hello: Hello): boolean {
    const { configuration } = this.#options.group.core;
    return this.#book.isInvited(configuration, hello) || this.#isAhead(hello);
  }

  /**
   * True for one that the cluster may have let in while this node was away, and that may lead it by now.
   * A node that hears of a leader learns from that one who takes part.
   */
  #isAhead({ memberId, clusterId }: Hello): boolean {
    const { group, identity } = this.#options;
    if (group.core.leader !== null || !isRejoined(memberId)) return false;
    // That it is no other cluster's is judged with every hello.
    const isFounded = group.store.state.clusterId !== "";
    return clusterId !== "" && (isFounded || isRejoined(identity.memberId));
  }

  /** A reason not to talk to a node that is otherwise right, or null. */
  admit(hello: Hello): string | null {
    const { group, identity, known } = this.#options;
    const { nodeId, memberId, incarnation } = hello;
    if (nodeOfMember(memberId) !== nodeId) {
      return `node ${nodeId} cannot be member ${memberId}`;
    }
    const { configuration } = group.core;
    const isMember = membersOf(configuration).includes(memberId);
    if (!isMember && !isRejoined(memberId) && !isRejoined(identity.memberId)) {
      return `${memberId} is no longer a member: it was replaced. Empty its data directory ` +
        "and start it with --rejoin";
    }
    const refusal = known.admit(memberId, incarnation);
    if (refusal !== null) return refusal;
    this.#hellos.set(nodeId, hello);
    // It is dialled from the next tick on.
    const isNews = this.#book.welcome(configuration, hello) ||
      !this.#others.has(nodeId) && this.#book.meet(hello);
    if (isNews) this.#placed = [];
    return null;
  }

  /** The last stream of a node has ended. */
  part(nodeId: NodeId): void {
    this.#hellos.delete(nodeId);
    if (this.#book.part(nodeId)) this.#placed = [];
  }

  /**
   * The leader takes in a node that rejoined, in the place of the member that its disk was, or that it
   * was invited as.
   */
  takeIn(peers: Pick<Peers, "connected">): void {
    const { group } = this.#options;
    if (group.core.role !== "leader") return;
    for (const { nodeId, memberId: member, address } of this.#hellos.values()) {
      if (!isRejoined(member) || !peers.connected(nodeId)) continue;
      group.join({ member, address });
    }
  }
}

/** May this process connect to `host:port`? */
export function mayReach(address: string): boolean {
  if (!isAddress(address)) return false;
  const { state } = Deno.permissions.querySync({ name: "net", host: address });
  return state === "granted";
}
