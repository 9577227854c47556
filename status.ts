/**
 * What a node says of itself: `Cluster.Status`. Used by `node.ts`.
 *
 * @module
 */

import type { Config } from "./config.ts";
import type { Group } from "./group.ts";
import { type Identity, nodeOfMember } from "./identity.ts";
import { membersOf, placeOf } from "./members.ts";

/** The parts of a node that its status tells of. */
export interface StatusParts {
  readonly config: Config;
  readonly identity: Identity;
  readonly group: Group;
  readonly diskBytes: number;
  isConnected(nodeId: string): boolean;
  readonly version: string;
  readonly uptimeMs: number;
  /** Null if writes are accepted. */
  readonly writeRefusal: string | null;
}

/** A `StatusResponse` without its header. */
export function statusOf(parts: StatusParts): Record<string, unknown> {
  const { core, store } = parts.group;
  const { state } = store;
  return {
    cluster: parts.config.cluster,
    role: roleOf(parts),
    leader: core.leader === null ? "" : nodeOfMember(core.leader),
    term: core.term,
    commitIndex: core.commit,
    appliedIndex: state.appliedIndex,
    firstIndex: core.firstIndex,
    lastIndex: core.lastIndex,
    compactRevision: state.compactRevision,
    stateHash: state.hash.toString(16).padStart(8, "0"),
    keys: store.metrics.keys,
    diskBytes: parts.diskBytes,
    version: parts.version,
    members: memberStatus(parts),
    uptimeMs: parts.uptimeMs,
    writeRefusal: parts.writeRefusal ?? "",
  };
}

function roleOf({ group, identity }: StatusParts): string {
  const { role, configuration } = group.core;
  if (configuration.learners.includes(identity.memberId)) return "learner";
  return role === "preCandidate" ? "pre-candidate" : role;
}

function memberStatus(parts: StatusParts): Record<string, unknown>[] {
  const { config, identity } = parts;
  const { core } = parts.group;
  const { learners } = core.configuration;
  const progress = core.progress();
  return membersOf(core.configuration).map((memberId) => {
    const nodeId = nodeOfMember(memberId);
    const known = config.nodes.find(({ id }) => id === nodeId);
    const follower = progress.get(memberId);
    return {
      memberId,
      nodeId,
      address: placeOf(core.configuration, memberId)?.address ??
        known?.address ?? "",
      suffrage: learners.includes(memberId) ? "learner" : "voter",
      matchIndex: follower?.match ?? 0,
      progress: follower?.state ?? "",
      connected: memberId === identity.memberId || parts.isConnected(nodeId),
    };
  });
}
