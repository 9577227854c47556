/**
 * Decides whether two nodes may talk: both ends of every connection say who they are (`Hello`) and
 * each checks the other. Pure. Used by `peers.ts` for streams and snapshots in both directions.
 *
 * @module
 */

import { type Hello, PROTOCOL_VERSION } from "./frame.ts";
import { isRejoined } from "./identity.ts";

/** The name of a node in the configuration file. */
export type NodeId = string;

/** Who this node is. */
export interface PeerIdentity {
  readonly clusterName: string;
  /** Of the cluster's name and the ids of its founders; see `config.ts`. */
  readonly fingerprint: string;
  /** Empty until the node has learned it; never changes after that. */
  readonly clusterId: () => string;
  readonly nodeId: NodeId;
  readonly memberId: string;
  /** Drawn at random when the data directory was created. */
  readonly incarnation: string;
  readonly softwareVersion: string;
  /** `host:port` where this node listens. */
  readonly address: string;
}

/** What {@linkcode refusalOf} compares a hello with. */
export interface Expectation {
  readonly identity: PeerIdentity;
  /** Who may speak: the dialled node alone, or every other node that is known or invited. */
  readonly nodes: ReadonlySet<NodeId>;
  /** The last word: a reason to refuse, or null. Asked only if everything else is right. */
  readonly admit: (hello: Hello) => string | null;
}

/** Longer texts of others are cut in messages and logs. */
const QUOTED_CHARACTERS_MAX = 64;

/** What this node says of itself now. */
export function helloOf(identity: PeerIdentity): Hello {
  const { clusterId, ...rest } = identity;
  return {
    protocolVersion: PROTOCOL_VERSION,
    ...rest,
    clusterId: clusterId(),
  };
}

/** Null if the two may talk, otherwise one sentence that names both and what differs. */
export function refusalOf(hello: Hello, expected: Expectation): string | null {
  const { identity } = expected;
  const mismatch = firstMismatch(hello, expected) ?? expected.admit(hello);
  if (mismatch === null) return null;
  return `${identity.nodeId} refuses ${quote(hello.nodeId)}: ${mismatch}`;
}

function firstMismatch(hello: Hello, expected: Expectation): string | null {
  const { identity, nodes } = expected;
  if (hello.protocolVersion !== PROTOCOL_VERSION) {
    return `it speaks version ${hello.protocolVersion} of the peer protocol (dkv ${
      quote(hello.softwareVersion)
    }), this node version ${PROTOCOL_VERSION} (dkv ${
      quote(identity.softwareVersion)
    })`;
  }
  const { clusterName: theirs } = hello;
  const { clusterName: ours } = identity;
  if (theirs !== ours) return differs("cluster", { theirs, ours });
  const founding = foundingMismatch(hello, identity);
  if (founding !== null) return founding;
  const clusterId = identity.clusterId();
  if (hello.clusterId !== "" && clusterId !== "") {
    if (hello.clusterId !== clusterId) {
      return `${
        differs("cluster id", { theirs: hello.clusterId, ours: clusterId })
      }; one of the data directories belongs to another cluster`;
    }
  }
  if (hello.nodeId === identity.nodeId) {
    return "it claims to be this node; two nodes run under one id, or an address is wrong";
  }
  if (!nodes.has(hello.nodeId)) {
    return `expected ${[...nodes].map(quote).join(" or ")}`;
  }
  if (hello.incarnation === "") return "it does not name its data directory";
  return null;
}

/**
 * Founders must agree on who founds: otherwise they would count other majorities. Who joined later has
 * learned from the cluster who votes, whatever its file listed.
 */
function foundingMismatch(
  hello: Hello,
  identity: PeerIdentity,
): string | null {
  if (isRejoined(hello.memberId) || isRejoined(identity.memberId)) return null;
  const { fingerprint: theirs } = hello;
  const { fingerprint: ours } = identity;
  if (theirs === ours) return null;
  const text = differs("fingerprint of the list of nodes", { theirs, ours });
  return `${text}; a node that is new to a cluster is added to it and started with --rejoin`;
}

function differs(
  what: string,
  { theirs, ours }: { theirs: string; ours: string },
): string {
  return `its ${what} is ${quote(theirs)}, this node's is ${quote(ours)}`;
}

/** A text of someone else, safe to show. */
export function quote(text: string): string {
  const characters = [...text];
  if (characters.length <= QUOTED_CHARACTERS_MAX) return JSON.stringify(text);
  return `${
    JSON.stringify(characters.slice(0, QUOTED_CHARACTERS_MAX).join(""))
  }…`;
}
