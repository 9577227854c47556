/**
 * etcd's `Maintenance` service: the state of this node and its upkeep. Used by `etcd.ts`.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { setImmediate } from "node:timers";
import type * as grpc from "@grpc/grpc-js";
import type { Wire } from "./call.ts";
import { LIMITS } from "./config.ts";
import {
  type EtcdContext,
  type Responses,
  serverStream,
  type StreamCall,
  unaries,
} from "./etcdcall.ts";
import { EtcdError } from "./etcderrors.ts";
import type { CallOptions } from "./service.ts";
import { readPieces, removeSnapshot } from "./snapshots.ts";

/** The version of etcd whose API this is: clients look at its first two parts. */
const ETCD_VERSION = "3.5.0";
const CLUSTER_VERSION = "3.5.0";
/** A snapshot is a whole number of these, and its digest behind it. */
const SECTOR_BYTES = 512;

/** Who answers the calls of `etcdserverpb.Maintenance`. */
export function maintenanceHandlers(
  context: EtcdContext,
): grpc.UntypedServiceImplementation {
  return {
    ...unaries(context, {
      Alarm: () => Promise.resolve({ alarms: [] }),
      Status: status,
      // SQLite reuses free pages; nothing stands still for it.
      Defragment: () => Promise.resolve({}),
      Hash: hash,
      HashKV: hashKv,
      MoveLeader: moveLeader,
      Downgrade: downgrade,
    }),
    Snapshot: serverStream(context, (_wire, call) => snapshot(context, call)),
  };
}

function status(
  _wire: Wire,
  { service, memberNumber, disk }: EtcdContext,
): Promise<Record<string, unknown>> {
  const { commitIndex, appliedIndex, isLearner } = service.replica;
  const refusal = disk.writeRefusal();
  return Promise.resolve({
    version: ETCD_VERSION,
    dbSize: disk.bytes(),
    dbSizeInUse: disk.bytes(),
    leader: service.leader === "" ? "0" : memberNumber(service.leader),
    raftIndex: commitIndex,
    raftTerm: service.term,
    raftAppliedIndex: appliedIndex,
    errors: refusal === null ? [] : [refusal],
    isLearner,
  });
}

/** Of everything that this node has applied. */
function hash(
  _wire: Wire,
  { service }: EtcdContext,
): Promise<Record<string, unknown>> {
  return Promise.resolve({ hash: service.replica.stateHash % 2 ** 32 });
}

/** All keys as they were at a revision, in their order: the same on every member. */
async function hashKv(
  wire: Wire,
  { service }: EtcdContext,
  options: CallOptions,
) {
  const digest = createHash("sha256");
  const pages = service.list({
    ...options,
    range: { start: "", end: null },
    revision: Number(wire.revision),
    limit: 0,
    keysOnly: false,
    reverse: false,
    serializable: true,
  });
  for await (const { entries } of pages) {
    for (const { key, value, ...numbers } of entries) {
      const { createRevision, modRevision, version, lease } = numbers;
      const fixed = [createRevision, modRevision, version, String(lease)];
      digest.update(JSON.stringify([key, value.length, ...fixed]));
      digest.update(value);
    }
    // Pages follow each other without a pause, and there may be gigabytes: a node must go on meanwhile.
    await new Promise((resolve) => setImmediate(resolve));
  }
  const { compactRevision } = service.replica;
  return {
    hash: digest.digest().readUInt32BE(0),
    compact_revision: compactRevision === 0 ? -1 : compactRevision,
  };
}

async function moveLeader(
  wire: Wire,
  { service, nodeId, memberNumber }: EtcdContext,
  options: CallOptions,
) {
  if (service.leader !== nodeId) throw new EtcdError("notLeader");
  const members = await service.members({ ...options, serializable: true });
  const target = members.find((member) =>
    memberNumber(member.nodeId) === wire.targetID && !member.isLearner
  );
  if (target === undefined) throw new EtcdError("badLeaderTransferee");
  await service.transferLeadership(target.nodeId, options);
  return {};
}

/** There is no older version to go back to. */
function downgrade(wire: Wire): Promise<Record<string, unknown>> {
  const refuse = (name: ConstructorParameters<typeof EtcdError>[0]) =>
    Promise.reject(new EtcdError(name));
  if (wire.action === "CANCEL") return refuse("noInflightDowngrade");
  if (!/^\d+\.\d+(\.\d+)?$/.test(wire.version)) {
    return refuse("wrongDowngradeVersionFormat");
  }
  if (wire.version.startsWith("3.4") && wire.action === "VALIDATE") {
    return Promise.resolve({ version: CLUSTER_VERSION });
  }
  return refuse("invalidDowngradeTargetVersion");
}

/** The file of the state, filled up to whole sectors, and its SHA-256: what etcd's clients check. */
async function* snapshot(
  context: EtcdContext,
  { signal }: StreamCall,
): Responses {
  const file = await context.disk.snapshot();
  try {
    const padding = (SECTOR_BYTES - file.bytes % SECTOR_BYTES) % SECTOR_BYTES;
    const digest = createHash("sha256");
    let left = file.bytes + padding;
    const piece = (blob: Uint8Array): [object, number] => {
      digest.update(blob);
      left -= blob.length;
      const header = context.header();
      return [{ header, remaining_bytes: left, blob }, blob.length];
    };
    for await (
      const blob of readPieces(file.path, LIMITS.snapshotChunkBytes)
    ) {
      if (signal.aborted) return;
      yield piece(blob);
    }
    if (padding > 0) yield piece(new Uint8Array(padding));
    const blob = digest.digest();
    yield [
      { header: context.header(), remaining_bytes: 0, blob },
      blob.length,
    ];
  } finally {
    await removeSnapshot(file);
  }
}
