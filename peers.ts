/**
 * Carries messages of replicas between nodes: one stream from each node to each other one, shared by
 * all groups. Used by `node.ts`, which sends what its groups say and takes what the others' say.
 *
 * ```text
 * node1 ── hello ─────────────────────► node2     node1's `Link` to node2,
 *       ◄──────────────────── welcome ──          node2's `Inbound` from node1
 *       ── messages, pings ───────────►
 *       ◄── acknowledged bytes, pongs ──
 *
 * node1 ◄─────────────────────── hello ── node2   the same the other way
 * ```
 *
 * Delivery is in order on one stream, at most once, and never certain: what has no room is dropped
 * and said to be so. Raft repeats what matters. A snapshot travels on a call of its own
 * (`transfer.ts`).
 *
 * @module
 */

import * as grpc from "@grpc/grpc-js";
import type { Message, SnapshotMeta } from "./message.ts";
import { assert, DkvError } from "./errors.ts";
import type { Envelope } from "./envelope.ts";
import type { Hello } from "./frame.ts";
import {
  helloOf,
  type NodeId,
  type PeerIdentity,
  quote,
  refusalOf,
} from "./handshake.ts";
import {
  type Log,
  messageOptions,
  PEER_LIMITS,
  PEER_SERVICE,
  type PeerLimits,
} from "./channel.ts";
import { Inbound, type ServerCall } from "./inbound.ts";
import { Link } from "./link.ts";
import {
  Arrival,
  sendSnapshot,
  type SnapshotSink,
  type SnapshotSource,
} from "./transfer.ts";

export type { Envelope } from "./envelope.ts";
export type { Hello } from "./frame.ts";
export type { NodeId, PeerIdentity } from "./handshake.ts";
export type { SnapshotSink, SnapshotSource } from "./transfer.ts";
export { type Log, PEER_LIMITS, type PeerLimits } from "./channel.ts";

/** Logged refusals that are remembered, so that each is logged once. */
const REFUSALS_MAX = 32;

/** What {@linkcode Peers} needs of the node. Callbacks never run inside `send`. */
export interface PeersOptions {
  readonly identity: PeerIdentity;
  /** `host:port` of every other node, until {@linkcode Peers.place}. */
  readonly addresses: ReadonlyMap<NodeId, string>;
  /** True for a node that is none of them and may come all the same. Default: nobody may. */
  readonly invites?: (hello: Hello) => boolean;
  /** Replaces some of {@linkcode PEER_LIMITS}. */
  readonly limits?: Partial<PeerLimits>;
  /** Of the connections that this node opens. Default: plaintext. */
  readonly credentials?: grpc.ChannelCredentials;
  readonly log: Log;
  /** May this node dial where another one says that it is? Default: it may. */
  readonly mayReach?: (address: string) => boolean;
  /** Messages of another node, in order. They count as handed over when this returns. */
  readonly onMessages: (from: NodeId, envelopes: readonly Envelope[]) => void;
  /** This node can send to the other one from now on. */
  readonly onConnected?: (nodeId: NodeId) => void;
  /** The other one has no stream to this node any more. */
  readonly onParted?: (nodeId: NodeId) => void;
  /** Messages to this node were dropped, or those under way may be lost. */
  readonly onUnreachable: (nodeId: NodeId) => void;
  /** A reason not to talk to a node that is otherwise right, or null: a new data directory, say. */
  readonly admit: (hello: Hello) => string | null;
  /** Opens the place for an arriving snapshot, or throws a {@linkcode DkvError} to refuse it. */
  readonly snapshotSink: (
    from: NodeId,
    snapshot: { group: string; meta: SnapshotMeta; bytes: number },
  ) => SnapshotSink;
}

/** The connections of one node with all others. */
export class Peers {
  readonly #options: PeersOptions;
  readonly #limits: PeerLimits;
  readonly #credentials: grpc.ChannelCredentials;
  /** One for each other node. */
  readonly #links: Map<NodeId, Link>;
  /** Of nodes that are none any more, until gRPC has let go. */
  readonly #leaving = new Set<Promise<void>>();
  /** Every accepted stream that has not ended; at most one of them for each node. */
  readonly #inbound = new Set<Inbound>();
  readonly #arrivals = new Set<Arrival>();
  /** The last arrival of each node that was accepted and has not ended. */
  readonly #arrivalOf = new Map<NodeId, Arrival>();
  /** What is being sent: at most one snapshot to each node. */
  readonly #departures = new Map<NodeId, AbortController>();
  /** Ends of departures, for `stop`. */
  readonly #departing = new Set<Promise<void>>();
  /** By the name the other side claims: the last refusal that was logged. */
  readonly #refusals = new Map<string, string>();
  #flushing: ReturnType<typeof setImmediate> | undefined;
  #ticking: ReturnType<typeof setInterval> | undefined;
  #tickedMs = 0;
  #stopped = false;

  constructor(options: PeersOptions) {
    this.#options = options;
    this.#limits = { ...PEER_LIMITS, ...options.limits };
    this.#credentials = options.credentials ??
      grpc.credentials.createInsecure();
    this.#links = new Map(
      [...options.addresses].map((
        [nodeId, address],
      ) => [nodeId, this.#newLink(nodeId, address)]),
    );
  }

  /** Options for the server that {@linkcode addTo} is called with, unless it allows larger messages. */
  static serverOptions(limits: PeerLimits = PEER_LIMITS): grpc.ServerOptions {
    return messageOptions(limits);
  }

  /** Adds the service that the other nodes dial. */
  addTo(server: grpc.Server): void {
    server.addService(PEER_SERVICE, {
      Exchange: (call: ServerCall) => this.#accept(call),
      InstallSnapshot: (call: ServerCall) => this.#arrive(call),
    });
  }

  /** Dials every other node, until stopped. */
  start(): void {
    this.#tickedMs = performance.now();
    this.#ticking = setInterval(() => this.#tick(), this.#limits.peerPingMs);
    for (const link of this.#links.values()) link.start();
  }

  /**
   * Says anew where every other node is. One that moves is dialled there as soon as its connection has
   * ended; connections of one that is missing end now.
   */
  place(addresses: ReadonlyMap<NodeId, string>): void {
    if (this.#stopped) return;
    for (const [nodeId, address] of addresses) {
      const known = this.#links.get(nodeId);
      if (known !== undefined) {
        known.moveTo(address);
        continue;
      }
      const link = this.#newLink(nodeId, address);
      this.#links.set(nodeId, link);
      if (this.#ticking !== undefined) link.start();
    }
    for (const nodeId of [...this.#links.keys()]) {
      if (!addresses.has(nodeId)) this.#forget(nodeId);
    }
  }

  #forget(nodeId: NodeId): void {
    const link = this.#link(nodeId);
    this.#links.delete(nodeId);
    const leaving: Promise<void> = link.stop().then(() => {
      this.#leaving.delete(leaving);
    });
    this.#leaving.add(leaving);
    this.#departures.get(nodeId)?.abort();
    const gone = new DkvError(
      "UNREACHABLE",
      `${nodeId} is not a node of this cluster any more`,
    );
    for (const inbound of [...this.#inbound]) {
      if (inbound.nodeId === nodeId) inbound.end(gone);
    }
    this.#arrivalOf.get(nodeId)?.end(gone);
  }

  /** True for a node that messages can be sent to, connected or not. */
  knows(nodeId: NodeId): boolean {
    return this.#links.has(nodeId);
  }

  /**
   * Takes a message for another node. It leaves with the next {@linkcode flush}, at the latest at the
   * end of this event-loop turn, or is dropped if the node is away or behind.
   */
  send(nodeId: NodeId, group: string, message: Message): void {
    if (this.#stopped) return;
    this.#link(nodeId).send(group, message);
    this.#flushing ??= setImmediate(() => this.flush());
  }

  /** Sends what was taken, one frame for each node. */
  flush(): void {
    clearImmediate(this.#flushing);
    this.#flushing = undefined;
    for (const link of this.#links.values()) link.flush();
  }

  /**
   * Sends a snapshot on a connection of its own. Resolves when the other node has stored it and
   * its message was delivered there.
   *
   * @throws {DkvError} `OVERLOADED` if one is on its way to that node already; `SHUTTING_DOWN`;
   *   `UNREACHABLE` if it is no other node of this cluster; otherwise as `sendSnapshot` of `transfer.ts`.
   */
  async sendSnapshot(nodeId: NodeId, snapshot: SnapshotSource): Promise<void> {
    const address = this.#links.get(nodeId)?.address;
    if (address === undefined) {
      throw new DkvError(
        "UNREACHABLE",
        `${nodeId} is not another node of this cluster`,
      );
    }
    if (this.#stopped) throw shuttingDown();
    if (this.#departures.has(nodeId)) {
      throw new DkvError(
        "OVERLOADED",
        `A snapshot is on its way to ${nodeId} already, at most 1`,
      );
    }
    const stop = new AbortController();
    this.#departures.set(nodeId, stop);
    const { signal } = snapshot;
    const sending = sendSnapshot({
      ...snapshot,
      signal: signal ? AbortSignal.any([signal, stop.signal]) : stop.signal,
    }, {
      address,
      limits: this.#limits,
      credentials: this.#credentials,
      hello: helloOf(this.#options.identity),
      judge: (welcome) => this.#judge(welcome, new Set([nodeId])),
    });
    const settled = sending.catch(() => {});
    this.#departing.add(settled);
    try {
      await sending;
    } catch (error) {
      throw this.#stopped ? shuttingDown() : error;
    } finally {
      this.#departures.delete(nodeId);
      this.#departing.delete(settled);
    }
  }

  /**
   * True if this node can send to the other one. A node that no other is (one that the configuration
   * lists no more, or this one under an earlier name) is never connected.
   */
  connected(nodeId: NodeId): boolean {
    return this.#links.get(nodeId)?.open ?? false;
  }

  /** Bytes sent to a node, or waiting for the flush, that it has not acknowledged. */
  bytesInFlight(nodeId: NodeId): number {
    return this.#link(nodeId).unackedBytes;
  }

  /** Ends every stream and transfer, both ways. The server stays the caller's to shut down. */
  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    clearInterval(this.#ticking);
    clearImmediate(this.#flushing);
    for (const departure of this.#departures.values()) departure.abort();
    for (const inbound of [...this.#inbound]) inbound.end(shuttingDown());
    for (const arrival of [...this.#arrivals]) arrival.end(shuttingDown());
    await Promise.all([
      ...this.#departing,
      ...this.#leaving,
      ...[...this.#links.values()].map((link) => link.stop()),
    ]);
  }

  #newLink(nodeId: NodeId, address: string): Link {
    const { identity, log } = this.#options;
    const only = new Set([nodeId]);
    return new Link({
      nodeId,
      address,
      log,
      limits: this.#limits,
      credentials: this.#credentials,
      hello: () => helloOf(identity),
      judge: (welcome) => this.#judge(welcome, only),
      onOpen: () => this.#options.onConnected?.(nodeId),
      onUnreachable: () => this.#options.onUnreachable(nodeId),
    });
  }

  #link(nodeId: NodeId): Link {
    const link = this.#links.get(nodeId);
    assert(link !== undefined, `${nodeId} is not another node of this cluster`);
    return link;
  }

  #judge(hello: Hello, nodes: ReadonlySet<NodeId>): string | null {
    const { identity, admit } = this.#options;
    return refusalOf(hello, { identity, nodes, admit });
  }

  /** As {@linkcode Peers.#judge}, of a node that dials: any other one, or an invited one. */
  #judgeDialler(hello: Hello): string | null {
    const nodes = new Set(this.#links.keys());
    if (this.#options.invites?.(hello)) nodes.add(hello.nodeId);
    return this.#judge(hello, nodes);
  }

  #accept(call: ServerCall): void {
    const inbound = new Inbound(call, {
      limits: this.#limits,
      hello: () => helloOf(this.#options.identity),
      judge: (hello) => this.#judgeDialler(hello),
      onOpen: (opened, hello) => this.#replaceInbound(opened, hello),
      onMessages: (nodeId, envelopes) => {
        // Not at the welcome: the dialler may still refuse this node.
        this.#refusals.delete(nodeId);
        if (!this.#stopped) this.#options.onMessages(nodeId, envelopes);
      },
      onEnd: (ended, error) => {
        this.#inbound.delete(ended);
        this.#part(ended.nodeId);
        if (error !== null) this.#logEnd(ended.claim, error);
      },
    });
    this.#inbound.add(inbound);
    this.#limitAccepted(inbound);
  }

  /** A node that dials again has lost its old stream, even where this end has not noticed. */
  #replaceInbound(opened: Inbound, { nodeId, address }: Hello): void {
    for (const other of [...this.#inbound]) {
      if (other !== opened && other.nodeId === nodeId) {
        other.end(
          new DkvError("UNREACHABLE", `${nodeId} has opened a newer stream`),
        );
      }
    }
    const mayReach = this.#options.mayReach?.(address) ?? true;
    this.#links.get(nodeId)?.nudge(mayReach ? address : undefined);
  }

  #part(nodeId: NodeId | null): void {
    if (nodeId === null) return;
    const isHere = [...this.#inbound].some((other) => other.nodeId === nodeId);
    if (!isHere) this.#options.onParted?.(nodeId);
  }

  #arrive(call: ServerCall): void {
    const arrival = new Arrival(call, {
      limits: this.#limits,
      hello: () => helloOf(this.#options.identity),
      judge: (hello) => this.#judgeDialler(hello),
      onOpen: (opened, nodeId) => {
        this.#arrivalOf.get(nodeId)?.end(
          new DkvError("CANCELLED", `${nodeId} sends another snapshot`),
        );
        this.#arrivalOf.set(nodeId, opened);
      },
      sink: this.#options.snapshotSink,
      onDelivered: (nodeId, envelope) => {
        if (!this.#stopped) this.#options.onMessages(nodeId, [envelope]);
      },
      onEnd: (ended, error) => {
        this.#arrivals.delete(ended);
        if (this.#arrivalOf.get(ended.claim) === ended) {
          this.#arrivalOf.delete(ended.claim);
        }
        if (error !== null) this.#logEnd(ended.claim, error);
      },
    });
    this.#arrivals.add(arrival);
    this.#limitAccepted(arrival);
  }

  /** Refuses what comes when this node stops, or when too many say nothing. */
  #limitAccepted(accepted: Inbound | Arrival): void {
    const max = this.#limits.peerHandshakesMax;
    const count = [...this.#inbound, ...this.#arrivals]
      .filter(({ claim }) => claim === "").length;
    if (this.#stopped) accepted.end(shuttingDown());
    else if (count > max) {
      accepted.end(
        new DkvError(
          "OVERLOADED",
          `Too many peers have not said hello: ${count}, at most ${max}`,
        ),
      );
    }
  }

  #tick(): void {
    const now = performance.now();
    const stoodStill = now - this.#tickedMs > 2 * this.#limits.peerPingMs;
    this.#tickedMs = now;
    for (const link of this.#links.values()) link.tick();
    for (const inbound of [...this.#inbound]) {
      if (stoodStill) inbound.forgiveSilence(now);
      const silentMs = inbound.silentMs(now);
      const max = inbound.nodeId === null
        ? this.#limits.peerHandshakeMsMax
        : 2 * this.#limits.peerSilenceMsMax;
      if (silentMs > max) inbound.end(silent(silentMs));
    }
    for (const arrival of [...this.#arrivals]) {
      const stalledMs = arrival.stalledMs(now);
      if (stalledMs > this.#limits.snapshotStallMsMax && !stoodStill) {
        arrival.end(silent(stalledMs));
      }
    }
  }

  #logEnd(claim: string, error: DkvError): void {
    if (error.code === "IDENTITY_MISMATCH") {
      return this.#logRefusal(claim, error.message);
    }
    if (error.code === "SHUTTING_DOWN") return;
    this.#options.log("warn", `ended a stream of ${quote(claim)}`, {
      code: error.code,
      reason: error.message,
    });
  }

  #logRefusal(claim: string, reason: string): void {
    if (this.#refusals.get(claim) === reason) return;
    if (this.#refusals.size >= REFUSALS_MAX) this.#refusals.clear();
    this.#refusals.set(claim, reason);
    this.#options.log("error", `refused peer ${quote(claim)}: ${reason}`, {
      code: "IDENTITY_MISMATCH",
    });
  }
}

function shuttingDown(): DkvError {
  return new DkvError("SHUTTING_DOWN", "This node is shutting down");
}

function silent(ms: number): DkvError {
  return new DkvError("UNREACHABLE", `Nothing came for ${Math.round(ms)} ms`);
}
