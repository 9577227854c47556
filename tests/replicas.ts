/**
 * A small world for the core: replicas with disks that forget what was not synced, and a network that
 * does what a test tells it to. Used by the golden scripts and by the random test of `replicate.ts`.
 *
 * @module
 */

import { assert } from "../errors.ts";
import { entryBytes, type LogStorage, type Position } from "../log.ts";
import type {
  Configuration,
  Entry,
  HardState,
  Index,
  MemberId,
  Message,
  SnapshotMeta,
  Term,
} from "../message.ts";
import {
  type CoreMessage,
  type Effect,
  type Input,
  Replicate,
  type ReplicateOptions,
} from "../replicate.ts";

/** What a disk holds; replaced as a whole when something changes, so that an old one can come back. */
export interface Image {
  readonly hardState: HardState;
  readonly base: Position;
  readonly entries: readonly Entry[];
  /** The state: the batches applied so far, as text. */
  readonly state: readonly string[];
  readonly applied: Index;
  /** The last configuration that was applied. */
  readonly configuration: Configuration;
  readonly configurationIndex: Index;
}

/** One disk: what is synced, and what is written but would be lost in a crash. */
export class Disk implements LogStorage {
  synced: Image;
  written: Image;

  constructor(configuration: Configuration) {
    this.synced = {
      hardState: { term: 0, vote: null, commit: 0 },
      base: { index: 0, term: 0 },
      entries: [],
      state: [],
      applied: 0,
      configuration,
      configurationIndex: 0,
    };
    this.written = this.synced;
  }

  get firstIndex(): Index {
    return this.written.base.index + 1;
  }
  get lastIndex(): Index {
    return this.written.base.index + this.written.entries.length;
  }
  term(index: Index): Term {
    const { base, entries } = this.written;
    if (index === base.index) return base.term;
    const entry = entries[index - base.index - 1];
    assert(entry !== undefined, `The disk has no entry ${index}`);
    return entry.term;
  }
  entries(from: Index, to: Index, bytesMax: number): Entry[] {
    const { base, entries } = this.written;
    const all = entries.slice(from - base.index - 1, to - base.index - 1);
    let bytes = 0;
    const end = all.findIndex((entry, i) => {
      bytes += entryBytes(entry);
      return i > 0 && bytes > bytesMax;
    });
    return end === -1 ? all : all.slice(0, end);
  }

  write(effect: Extract<Effect, { type: "persist" }>): void {
    const { base, entries, hardState } = this.written;
    const keep = effect.truncateFrom === null
      ? entries
      : entries.slice(0, effect.truncateFrom - base.index - 1);
    const first = effect.entries[0];
    assert(
      first === undefined || first.index === base.index + keep.length + 1,
      `Entry ${first?.index} written after ${base.index + keep.length}`,
    );
    this.written = {
      ...this.written,
      hardState: effect.hardState ?? hardState,
      entries: [...keep, ...effect.entries],
    };
  }
  apply(entries: readonly Entry[]): void {
    for (const entry of entries) {
      const { applied, state } = this.written;
      assert(
        entry.index === applied + 1,
        `Entry ${entry.index} applied after ${applied}`,
      );
      this.written = { ...this.written, applied: entry.index };
      if (entry.type === "batch") {
        const text = new TextDecoder().decode(entry.data);
        this.written = { ...this.written, state: [...state, text] };
      } else if (entry.type === "configuration") {
        const { configuration, index } = entry;
        this.written = {
          ...this.written,
          configuration,
          configurationIndex: index,
        };
      }
    }
  }
  compact(index: Index): void {
    const { base, entries } = this.written;
    this.written = {
      ...this.written,
      base: { index, term: this.term(index) },
      entries: entries.slice(index - base.index),
    };
  }
  /** What a snapshot of the applied state says of itself. */
  snapshot(): SnapshotMeta {
    const { applied, configuration } = this.written;
    return { index: applied, term: this.term(applied), configuration };
  }
  install(meta: SnapshotMeta, state: readonly string[]): void {
    this.written = {
      hardState: this.written.hardState,
      base: { index: meta.index, term: meta.term },
      entries: [],
      state,
      applied: meta.index,
      configuration: meta.configuration,
      configurationIndex: meta.index,
    };
    this.synced = this.written;
  }
}

/** The limits a world uses unless told otherwise. */
export const TEST_LIMITS = {
  seed: 1,
  electionTicksMin: 10,
  heartbeatTicks: 1,
  appendBytesMax: 1000,
  inflightMessagesMax: 8,
  inflightBytesMax: 8000,
  uncommittedBytesMax: 100_000,
  applyBytesMax: 1000,
};

export type TestLimits = typeof TEST_LIMITS;

/** A replica with its disk, and the messages that wait for that disk. */
export interface Node {
  readonly id: MemberId;
  readonly disk: Disk;
  /** Null while crashed. */
  replica: Replicate | null;
  afterPersist: Message[];
  /** Something is written and not synced, or waits for a sync. */
  isDirty: boolean;
  /** Sync at the end of each turn (or only when told). */
  syncsItself: boolean;
}

/** All replicas and all messages under way. */
export class World {
  readonly nodes = new Map<MemberId, Node>();
  /** Sent and not yet delivered, oldest first. */
  queue: Message[] = [];
  /** The state that travels with a snapshot message. */
  readonly #files = new WeakMap<Message, readonly string[]>();
  readonly #limits: TestLimits;
  /** Told of every effect and every message that leaves, in order. */
  readonly observe: (id: MemberId, effect: Effect) => void;
  /** Whether snapshots are sent as soon as they are asked for. */
  sendsSnapshots = true;

  constructor(
    limits: Partial<TestLimits>,
    observe: (id: MemberId, effect: Effect) => void,
  ) {
    this.#limits = { ...TEST_LIMITS, ...limits };
    this.observe = observe;
  }

  add(id: MemberId, configuration: Configuration): Node {
    const node: Node = {
      id,
      disk: new Disk(configuration),
      replica: null,
      afterPersist: [],
      isDirty: false,
      syncsItself: true,
    };
    this.nodes.set(id, node);
    this.start(id);
    return node;
  }

  node(id: MemberId): Node {
    const node = this.nodes.get(id);
    assert(node !== undefined, `No node ${id}`);
    return node;
  }

  replica(id: MemberId): Replicate {
    const { replica } = this.node(id);
    assert(replica !== null, `Node ${id} is down`);
    return replica;
  }

  /** The replicas that are up. */
  get alive(): Replicate[] {
    return [...this.nodes.values()].flatMap((node) => node.replica ?? []);
  }

  /** Starts a replica from what its disk has synced. */
  start(id: MemberId): void {
    const node = this.node(id);
    node.disk.written = node.disk.synced;
    const { hardState, applied, configuration, configurationIndex } =
      node.disk.synced;
    const options: ReplicateOptions = {
      ...this.#limits,
      id,
      storage: node.disk,
      hardState,
      applied,
      configuration,
      configurationIndex,
    };
    node.replica = new Replicate(options);
  }

  /** Stops a replica; what it has not synced is lost. */
  crash(id: MemberId): void {
    const node = this.node(id);
    node.replica = null;
    node.afterPersist = [];
    node.isDirty = false;
  }

  /** One turn of a node: inputs, a flush, a sync. */
  turn(id: MemberId, ...inputs: Input[]): void {
    const node = this.node(id);
    if (node.replica === null) return;
    for (const input of inputs) this.step(node, input);
    this.step(node, { type: "flush", tellCommit: true });
    if (node.syncsItself) this.persist(id);
  }

  /** Syncs a disk until nothing is left to sync, as the group does at the end of a turn. */
  persist(id: MemberId): void {
    const node = this.node(id);
    while (node.isDirty) {
      node.isDirty = false;
      const { disk } = node;
      disk.synced = disk.written;
      const waiting = node.afterPersist;
      node.afterPersist = [];
      for (const message of waiting) this.send(message);
      const index = disk.lastIndex;
      const term = disk.term(index);
      this.step(node, { type: "persisted", term, index });
      this.step(node, { type: "flush", tellCommit: true });
      if (!node.syncsItself) break;
    }
  }

  /** Delivers one message, unless its receiver is down. */
  deliver(message: Message): void {
    const node = this.node(message.to);
    if (node.replica === null) return;
    const state = this.#files.get(message);
    if (state !== undefined) this.#arriving = state;
    this.turn(message.to, {
      type: "message",
      message: message as CoreMessage,
    });
  }

  send(message: Message): void {
    this.observe(message.from, { type: "send", message });
    this.queue.push(message);
  }

  /** What a group does when a follower needs a snapshot. */
  ship(from: MemberId, { to, ok }: { to: MemberId; ok: boolean }): void {
    const node = this.node(from);
    const meta = node.disk.snapshot();
    const { term } = this.replica(from);
    if (ok) {
      const message: Message = { type: "snapshot", from, to, term, meta };
      this.#files.set(message, node.disk.written.state);
      this.send(message);
    }
    const { index } = meta;
    this.turn(from, { type: "snapshotSent", member: to, ok, index });
  }

  step(node: Node, input: Input): void {
    if (node.replica === null) return;
    for (const effect of node.replica.step(input)) this.#perform(node, effect);
    node.replica?.assertInvariants();
  }

  /** The state of the snapshot whose message is being delivered. */
  #arriving: readonly string[] = [];

  #perform(node: Node, effect: Effect): void {
    const { id, disk } = node;
    if (effect.type === "send") return this.send(effect.message);
    this.observe(id, effect);
    switch (effect.type) {
      case "persist":
        disk.write(effect);
        node.isDirty = true;
        return;
      case "sendAfterPersist":
        node.afterPersist.push(effect.message);
        node.isDirty = true;
        return;
      case "apply": {
        disk.apply(effect.entries);
        const { applied } = disk.written;
        return this.step(node, { type: "applied", index: applied });
      }
      case "sendSnapshot":
        if (!this.sendsSnapshots) return;
        return this.ship(id, { to: effect.member, ok: true });
      case "installSnapshot": {
        disk.install(effect.meta, this.#arriving);
        const { meta } = effect;
        return this.step(node, { type: "snapshotInstalled", meta });
      }
    }
  }
}
