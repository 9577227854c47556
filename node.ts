/**
 * One node: it owns the clock, the data directory, the network and the order in which everything
 * starts and stops, and runs the turns of its groups. Used by `cli.ts` and by `mod.ts`.
 *
 * @module
 */

import type * as grpc from "@grpc/grpc-js";
import { clearImmediate, setImmediate } from "node:timers";
import { Checkpoints } from "./checkpoints.ts";
import { type Config, LIMITS, type NodeConfig, nodeOf } from "./config.ts";
import { DEPARTURE_CALLBACKS } from "./departures.ts";
import { Disk } from "./disk.ts";
import { AssertionError, DkvError } from "./errors.ts";
import { EtcdAdapter } from "./etcd.ts";
import { Group } from "./group.ts";
import { GrpcAdapter } from "./grpc.ts";
import { listenGrpc, makeGrpcServer, quietGrpc } from "./grpcserver.ts";
import { HttpServer } from "./http.ts";
import {
  type Identity,
  isRejoined,
  KnownMembers,
  nodeOfMember,
  openIdentity,
  quarantine,
  randomHex,
} from "./identity.ts";
import { KvConnect } from "./kvconnect.ts";
import { futureMembersOf, membersOf, simpleConfiguration } from "./members.ts";
import type { Configuration, MemberId, Message, Term } from "./message.ts";
import type { LogFields, Logger } from "./metrics.ts";
import { mayReach, Neighbours } from "./neighbours.ts";
import { Peers } from "./peers.ts";
import { refuseRuntime } from "./runtime.ts";
import { Service } from "./service.ts";
import { readPieces, removeSnapshot, Snapshots } from "./snapshots.ts";
import { statusOf } from "./status.ts";

/** The version of dkv, as in deno.json. */
export const VERSION = "0.1.0";

/** Everything lives in one group today; messages carry its name so that there can be more. */
const GROUP = "default";
/** A loop that stood still does not make up for all of it: time that nobody saw has not passed. */
const CATCH_UP_TICKS_MAX = 2;
/** A file up to this size is read and checked as a whole at start: about a second. */
const VERIFY_BYTES_MAX = 256 * 1024 * 1024;
/** How often a leader looks for nodes that want to join. */
const JOIN_RETRY_TICKS = 10;
/** A node that is no member and hears of no leader for so long was removed. */
const REMOVAL_TICKS = 60;
/** How often a full disk is asked whether it has space again. */
const SPACE_RETRY_TICKS = 10;
/** How long a stopping node waits for another to lead, and for open calls. */
const STOP_GRACE_MS = 1000;

/** How to start a {@linkcode Node}. */
export interface NodeOptions {
  config: Config;
  /** Which node of the configuration this is. */
  id: string;
  /** Where it keeps its data; made if absent. */
  directory: string;
  /** Come back as a new member, with an empty data directory, after the old disk was lost. */
  rejoin?: boolean;
  logger: Logger;
}

/** A running node. */
export class Node {
  readonly #config: Config;
  readonly #directory: string;
  readonly #identity: Identity;
  readonly #logger: Logger;
  readonly #group: Group;
  readonly #disk: Disk;
  readonly #snapshots: Snapshots;
  readonly #neighbours: Neighbours;
  readonly #peers: Peers;
  readonly #adapter: GrpcAdapter;
  readonly #server: grpc.Server;
  readonly #kv: KvConnect | null;
  readonly #http: HttpServer | null;
  readonly #startedMs = performance.now();
  readonly #ended = Promise.withResolvers<unknown>();
  readonly #shipping = new Set<MemberId>();
  /** The part of a turn that runs next. */
  #nextPart: ReturnType<typeof setImmediate> | undefined;
  /** What can be done when nobody waits. */
  #tidying: ReturnType<typeof setImmediate> | undefined;
  /** From when a turn is scheduled until its last part has run. */
  #isInTurn = false;
  /** Something arrived since the turn began. */
  #isWoken = false;
  #ticker: ReturnType<typeof setInterval> | undefined;
  #reminder: ReturnType<typeof setTimeout> | undefined;
  /** No turn runs any more. */
  #isHalted = false;
  #lastTickMs = performance.now();
  #writeRefusal: string | null = null;
  /** How long no leader spoke to this node, which is no member; null until it was one. */
  #silentTicks: number | null = null;
  #state: "starting" | "running" | "stopping" | "stopped" = "starting";

  /**
   * Opens the data directory, starts to listen and joins the cluster.
   *
   * @throws {DkvError} CONFIG_INVALID, IDENTITY_MISMATCH, DATA_CORRUPT, RUNTIME_UNSUPPORTED
   */
  static async start(options: NodeOptions): Promise<Node> {
    refuseRuntime();
    quietGrpc();
    const node = new Node(options);
    try {
      await node.#listen();
    } catch (error) {
      await node.stop();
      throw error;
    }
    return node;
  }

  private constructor(
    { config, id, directory, rejoin = false, logger }: NodeOptions,
  ) {
    const self = nodeOf(config, id);
    this.#config = config;
    this.#directory = directory;
    this.#logger = logger;
    this.#identity = openIdentity({
      directory,
      cluster: config.cluster,
      nodes: config.nodes.map((node) => node.id),
      nodeId: id,
      rejoin,
    });
    const known = new KnownMembers(directory);
    const bootstrap = bootstrapOf(this.#identity);
    this.#disk = new Disk({
      path: `${directory}/${GROUP}.db`,
      bootstrap,
      reserve: {
        walBytes: LIMITS.walReserveBytes,
        journalBytes: LIMITS.journalReserveBytes,
      },
      helper: new Checkpoints({
        onProblem: (error) => this.#fail(error),
        onLost: (reason) =>
          this.#logger.warn("checkpoints are made in the turn", { reason }),
      }),
    });
    // It removes what an earlier process left: not before it is sure that none runs.
    this.#snapshots = new Snapshots(directory, bootstrap);
    if (this.#disk.bytes <= VERIFY_BYTES_MAX) this.#disk.verify();
    this.#group = this.#makeGroup();
    this.#neighbours = new Neighbours({
      config,
      directory,
      known,
      identity: this.#identity,
      group: this.#group,
      logger,
    });
    const served = {
      service: new Service(this.#group, config.settings),
      nodeId: id,
      onDefect: (error: unknown) => this.#fail(error),
      log: (text: string, fields: LogFields) =>
        this.#logger.error(text, fields),
    };
    this.#adapter = new GrpcAdapter({
      ...served,
      settings: config.settings,
      status: () => this.status(),
    });
    const etcd = new EtcdAdapter({
      ...served,
      config,
      disk: {
        bytes: () => this.#disk.bytes,
        writeRefusal: () => this.#writeRefusal,
        snapshot: () => {
          // All that was acknowledged before it was asked for.
          this.#try(() => this.#disk.commit());
          return this.#snapshots.make(this.#disk.path);
        },
      },
      mayReach,
    });
    this.#kv = config.kvConnect === null
      ? null
      : new KvConnect({ ...served, config }, config.kvConnect.limits);
    const kv = this.#kv;
    this.#http = self.http === null ? null : new HttpServer({
      address: self.http,
      routes: kv === null ? [] : [(request, path) => kv.route(request, path)],
      onDefect: (error) => this.#fail(error),
    });
    this.#peers = this.#makePeers(self);
    this.#server = makeGrpcServer();
    this.#adapter.addTo(this.#server, { reflectAlso: etcd.definition });
    etcd.addTo(this.#server);
    this.#peers.addTo(this.#server);
  }

  /** Resolves when the node has ended: with undefined after `stop`, with the reason if it failed. */
  get ended(): Promise<unknown> {
    return this.#ended.promise;
  }

  get identity(): Identity {
    return this.#identity;
  }

  /** Hands leadership over, ends what waits, makes everything durable. */
  async stop(): Promise<void> {
    if (this.#state === "stopping" || this.#state === "stopped") return;
    const wasRunning = this.#state === "running";
    this.#state = "stopping";
    this.#adapter.setServing(false);
    this.#kv?.stop();
    await this.#http?.drain(STOP_GRACE_MS);
    if (wasRunning) await this.#handOver();
    this.#halt();
    this.#group.close();
    await this.#closeNetwork();
    this.#disk.close();
    this.#state = "stopped";
    if (wasRunning) this.#logger.info("stopped");
    this.#ended.resolve(undefined);
  }

  /** What `Cluster.Status` answers. */
  status(): Record<string, unknown> {
    return statusOf({
      config: this.#config,
      identity: this.#identity,
      group: this.#group,
      diskBytes: this.#disk.bytes,
      isConnected: (nodeId) => this.#peers.connected(nodeId),
      version: VERSION,
      uptimeMs: Math.round(performance.now() - this.#startedMs),
      writeRefusal: this.#writeRefusal,
    });
  }

  // ---------------------------------------------------------------- start and stop

  async #listen(): Promise<void> {
    const { address, http } = nodeOf(this.#config, this.#identity.nodeId);
    this.#neighbours.refuseUnknown();
    await listenGrpc(this.#server, address);
    this.#http?.start();
    this.#state = "running";
    this.#kv?.start();
    this.#peers.start();
    this.#ticker = setInterval(
      () => this.#onTimer(),
      this.#config.settings.tickMs,
    );
    this.#adapter.setServing(true);
    for (const notice of this.#config.notices) this.#logger.info(notice);
    const { memberId, cluster } = this.#identity;
    this.#logger.info(`listening on ${address}`, { cluster, member: memberId });
    if (http !== null) this.#logger.info(`serves HTTP on ${http.address}`);
  }

  /** A leader that stops without a word costs its cluster an election timeout. */
  async #handOver(): Promise<void> {
    const { core } = this.#group;
    if (core.role !== "leader" || core.configuration.voters.length < 2) return;
    this.#group.transferLeadership(null);
    const end = performance.now() + STOP_GRACE_MS;
    while (this.#group.core.role === "leader" && performance.now() < end) {
      await new Promise((resolve) =>
        setTimeout(resolve, this.#config.settings.tickMs)
      );
    }
  }

  #halt(): void {
    this.#isHalted = true;
    clearInterval(this.#ticker);
    clearTimeout(this.#reminder);
    clearImmediate(this.#nextPart);
    clearImmediate(this.#tidying);
  }

  async #closeNetwork(): Promise<void> {
    await this.#peers.stop();
    // Answers that were just settled leave in the next turns of the loop; then the rest is cut.
    await new Promise((resolve) =>
      setTimeout(resolve, this.#config.settings.tickMs)
    );
    await this.#http?.stop();
    this.#server.forceShutdown();
  }

  /** A broken invariant or a failed disk: nothing more is written or said, and the node ends. */
  #fail(error: unknown): void {
    if (this.#state === "stopping" || this.#state === "stopped") return;
    this.#state = "stopped";
    this.#halt();
    const text = error instanceof DkvError
      ? error.message
      : error instanceof AssertionError
      ? `broken invariant: ${error.message}`
      : `defect: ${(error as Error).stack ?? error}`;
    this.#logger.error(`node stops: ${text}`);
    if (error instanceof DkvError && error.code === "DATA_CORRUPT") {
      quarantine(this.#directory, error.message);
    }
    this.#disk.abandon();
    this.#server.forceShutdown();
    void this.#peers.stop();
    this.#kv?.stop();
    void this.#http?.stop();
    this.#ended.resolve(error);
  }

  // ---------------------------------------------------------------- the turn

  #wake(): void {
    this.#isWoken = true;
    if (this.#isInTurn || this.#isHalted) return;
    this.#isInTurn = true;
    this.#soon(() => this.#beginTurn());
  }

  /** Sockets are written to between two callbacks: what a part has sent leaves before the next one. */
  #beginTurn(): void {
    this.#isWoken = false;
    if (!this.#group.begin()) return this.#continueTurn();
    this.#peers.flush();
    this.#soon(() => this.#continueTurn());
  }

  #continueTurn(): void {
    const isMore = this.#group.proceed();
    this.#peers.flush();
    if (isMore) return this.#behindAnswers(() => this.#continueTurn());
    this.#isInTurn = false;
    if (this.#isWoken) this.#wake();
    else if (this.#disk.dirty) this.#tidySoon();
  }

  /** While nobody waits: behind the answers, which leave in the next callback. */
  #tidySoon(): void {
    clearImmediate(this.#tidying);
    this.#tidying = setImmediate(() => {
      this.#tidying = setImmediate(() => this.#try(() => this.#disk.tidy()));
    });
  }

  #soon(part: () => void, callbacks = 1): void {
    this.#nextPart = setImmediate(() => {
      if (callbacks > 1) this.#soon(part, callbacks - 1);
      else this.#try(part);
    });
  }

  /** A leader has answered, and what comes next waits for the disk. Followers answer at the end. */
  #behindAnswers(part: () => void): void {
    const isLeader = this.#group.core.role === "leader";
    this.#soon(part, isLeader ? DEPARTURE_CALLBACKS + 1 : 1);
  }

  #try(part: () => void): void {
    try {
      part();
    } catch (error) {
      this.#fail(error);
    }
  }

  /**
   * A member that the cluster has removed must not go on as if it were one. The others do not tell it
   * when the change is done, they fall silent; had it failed, a leader would speak up. One that rejoins
   * takes in old configurations first, in which it is not.
   */
  #endIfRemoved(): void {
    const { memberId, nodeId } = this.#identity;
    const { configuration, leader } = this.#group.core;
    const isMember = futureMembersOf(configuration).includes(memberId);
    if (isMember || this.#silentTicks !== null && leader !== null) {
      this.#silentTicks = 0;
    }
    if (isMember || this.#silentTicks === null && isRejoined(memberId)) return;
    this.#silentTicks = (this.#silentTicks ?? 0) + 1;
    if (this.#silentTicks < REMOVAL_TICKS) return;
    const text =
      `${memberId} was removed from the cluster. To bring ${nodeId} back, add it, empty ` +
      "its data directory and start it with --rejoin";
    this.#fail(new DkvError("MEMBERSHIP_REFUSED", text));
  }

  #onTimer(): void {
    const { tickMs } = this.#config.settings;
    const ticks = Math.floor((performance.now() - this.#lastTickMs) / tickMs);
    if (ticks === 0) return;
    this.#lastTickMs += ticks * tickMs;
    this.#try(() => this.#checkSpace());
    if (this.#isHalted) return;
    this.#try(() => this.#neighbours.follow(this.#peers));
    if (this.#isHalted) return;
    for (let i = 0; i < Math.min(ticks, CATCH_UP_TICKS_MAX); i++) {
      this.#group.tick();
    }
    if (this.#group.ticks % JOIN_RETRY_TICKS === 0) {
      this.#try(() => this.#neighbours.takeIn(this.#peers));
    }
    this.#endIfRemoved();
  }

  /** As with whole ticks, time that nobody saw has not passed. */
  #sinceTickMs(): number {
    const { tickMs } = this.#config.settings;
    const sinceMs = Math.floor(performance.now() - this.#lastTickMs);
    return Math.min(sinceMs, CATCH_UP_TICKS_MAX * tickMs);
  }

  // ---------------------------------------------------------------- the group's outside

  #makeGroup(): Group {
    return new Group({
      id: GROUP,
      member: this.#identity.memberId,
      disk: this.#disk,
      settings: this.#config.settings,
      seed: Number.parseInt(randomHex(4), 16),
      origin: Number.parseInt(randomHex(6), 16),
      clusterId: randomHex(16),
      outputs: {
        send: (message) => this.#send(message),
        wake: () => this.#wake(),
        sinceTickMs: () => this.#sinceTickMs(),
        remind: (delayMs) => {
          this.#reminder = setTimeout(() => this.#group.tellCommit(), delayMs);
        },
        shipSnapshot: (to, term) => void this.#shipSnapshot(to, term),
        installSnapshot: (disk, meta) => this.#snapshots.install(disk, meta),
        writeRefusal: () => this.#writeRefusal,
        diskExhausted: () => this.#disk.exhausted,
        log: (level, text, fields) => this.#log(level, text, fields),
      },
    });
  }

  #makePeers({ id: nodeId, address }: NodeConfig): Peers {
    return new Peers({
      identity: {
        clusterName: this.#config.cluster,
        fingerprint: this.#identity.fingerprint,
        clusterId: () => this.#group.store.state.clusterId,
        nodeId,
        memberId: this.#identity.memberId,
        incarnation: this.#identity.incarnation,
        softwareVersion: VERSION,
        address,
      },
      addresses: this.#neighbours.others(),
      invites: (hello) => this.#neighbours.invites(hello),
      mayReach,
      log: (level, text, fields) => this.#log(level, text, fields),
      onMessages: (from, envelopes) => {
        for (const { message } of envelopes) {
          // Who a node may speak for was checked when it connected.
          if (nodeOfMember(message.from) === from) this.#group.receive(message);
        }
      },
      onConnected: (nodeId) =>
        this.#logger.debug("connected", { peer: nodeId }),
      onParted: (nodeId) => this.#neighbours.part(nodeId),
      onUnreachable: (nodeId) => this.#onUnreachable(nodeId),
      admit: (hello) => this.#neighbours.admit(hello),
      snapshotSink: (_from, { meta }) => this.#snapshots.receive(meta),
    });
  }

  #log(
    level: "debug" | "info" | "warn" | "error",
    text: string,
    fields: LogFields = {},
  ): void {
    this.#logger[level](text, fields);
  }

  #send(message: Message): void {
    const nodeId = nodeOfMember(message.to);
    // A member cannot be reached of whom nobody told where it is, nor can the one that this node was
    // before it lost its disk: others may still count it in.
    if (this.#peers.knows(nodeId)) this.#peers.send(nodeId, GROUP, message);
  }

  #onUnreachable(nodeId: string): void {
    for (const member of membersOf(this.#group.core.configuration)) {
      if (nodeOfMember(member) === nodeId) this.#group.unreachable(member);
    }
  }

  // ---------------------------------------------------------------- snapshots and space

  async #shipSnapshot(to: MemberId, term: Term): Promise<void> {
    if (this.#shipping.has(to)) return;
    this.#shipping.add(to);
    let index = 0;
    try {
      const snapshot = await this.#snapshots.make(this.#disk.path);
      try {
        const { meta } = snapshot;
        index = meta.index;
        const message = this.#group.snapshotMessage(to, { term, meta });
        if (message === null) {
          return this.#shipped(to, { ok: false, index });
        }
        this.#logger.info("sending a snapshot", {
          to,
          index,
          bytes: snapshot.bytes,
        });
        await this.#peers.sendSnapshot(nodeOfMember(to), {
          group: GROUP,
          message,
          bytes: snapshot.bytes,
          source: readPieces(snapshot.path, LIMITS.snapshotChunkBytes),
        });
        this.#shipped(to, { ok: true, index });
      } finally {
        await removeSnapshot(snapshot);
      }
    } catch (error) {
      // Its own data are damaged: it must neither send them nor lead.
      if (error instanceof DkvError && error.code === "DATA_CORRUPT") {
        return this.#fail(error);
      }
      this.#logger.warn("cannot send a snapshot", {
        to,
        reason: (error as Error).message,
      });
      this.#shipped(to, { ok: false, index });
    }
  }

  /** Another one may be asked for at once, so this one must be over before the core hears of it. */
  #shipped(to: MemberId, sent: { ok: boolean; index: number }): void {
    this.#shipping.delete(to);
    if (this.#state === "running") this.#group.snapshotSent(to, sent);
  }

  /** Refuses writes from when the file cannot grow until it can again. */
  #checkSpace(): void {
    const wasFull = this.#writeRefusal !== null;
    if (wasFull && this.#group.ticks % SPACE_RETRY_TICKS === 0) {
      this.#disk.makeSpace();
    }
    if (wasFull === this.#disk.full) return;
    this.#writeRefusal = this.#disk.full
      ? `no space left on the disk of ${this.#directory}`
      : null;
    if (wasFull) {
      this.#logger.info("the disk has space again: writes are accepted");
    } else {
      this.#logger.warn(
        "the disk is full: writes are refused until it has space",
      );
    }
  }
}

/** The founders vote; a node that rejoins learns from the cluster who does. */
function bootstrapOf({ founders, memberId }: Identity): Configuration {
  if (!isRejoined(memberId)) return simpleConfiguration(founders, []);
  const others = founders.filter((id) => id !== nodeOfMember(memberId));
  if (others.length === 0) {
    throw new DkvError(
      "CONFIG_INVALID",
      "A cluster of one node has nothing to rejoin",
    );
  }
  return simpleConfiguration(others, []);
}
