/**
 * etcd's Lease service. Used by `etcd.ts`.
 *
 * Times are whole seconds here and milliseconds in dkv. A lease that is shorter than an election may
 * take is made as long, as etcd does.
 *
 * @module
 */

import type * as grpc from "@grpc/grpc-js";
import { type DuplexStream, serveRenewals, Unreadable } from "./call.ts";
import { LIMITS } from "./config.ts";
import { fromKey, toLease } from "./convert.ts";
import { DkvError } from "./errors.ts";
import { type EtcdContext, unaries } from "./etcdcall.ts";
import { EtcdError } from "./etcderrors.ts";
import { toBounded, toKnownLease } from "./etcdkv.ts";
import type { CallOptions } from "./service.ts";

const SECOND_MS = 1000;

/** The shortest lease in election timeouts: a new leader must have time to hear of its renewal. */
const TTL_ELECTIONS_MIN = 1.5;

interface WireLease {
  ID: string;
}

/** The handlers of `etcdserverpb.Lease`. */
export function leaseHandlers(
  context: EtcdContext,
): grpc.UntypedServiceImplementation {
  return {
    ...unaries(context, {
      LeaseGrant: grant,
      LeaseRevoke: revoke,
      LeaseTimeToLive: timeToLive,
      LeaseLeases: leases,
    }),
    LeaseKeepAlive: (call: DuplexStream) => serveKeepAlive(call, context),
  };
}

async function grant(
  wire: WireLease & { TTL: string },
  { service, config }: EtcdContext,
  options: CallOptions,
) {
  const seconds = toBounded(wire.TTL);
  if (seconds * SECOND_MS > LIMITS.leaseTtlMsMax) {
    throw new EtcdError("leaseTtlTooLarge");
  }
  const { electionTicksMin, tickMs } = config.settings;
  const secondsMin = Math.ceil(
    TTL_ELECTIONS_MIN * electionTicksMin * tickMs / SECOND_MS,
  );
  const granted = await service.grant({
    lease: toLease(wire.ID),
    ttlMs: Math.max(seconds, secondsMin) * SECOND_MS,
  }, options);
  return { ID: granted.lease.toString(), TTL: granted.ttlMs / SECOND_MS };
}

async function revoke(
  wire: WireLease,
  { service, header }: EtcdContext,
  options: CallOptions,
) {
  const { revision } = await service.revoke(toExisting(wire), options);
  return { header: header(revision) };
}

/** 0 and negative numbers are the ids of no lease. */
function toExisting(wire: WireLease): bigint {
  const lease = toKnownLease(wire.ID);
  if (lease === 0n) throw new EtcdError("leaseNotFound");
  return lease;
}

/** What does not exist has -1 seconds left. */
async function timeToLive(
  wire: WireLease & { keys: boolean },
  { service }: EtcdContext,
  options: CallOptions,
) {
  try {
    const lease = await service.timeToLive(toExisting(wire), options);
    return {
      ID: wire.ID,
      TTL: Math.trunc(lease.remainingMs / SECOND_MS),
      grantedTTL: Math.trunc(lease.ttlMs / SECOND_MS),
      keys: wire.keys ? lease.keys().map(fromKey) : [],
    };
  } catch (error) {
    if (!isUnknown(error)) throw error;
    return { ID: wire.ID, TTL: -1 };
  }
}

async function leases(
  _wire: unknown,
  { service }: EtcdContext,
  options: CallOptions,
) {
  const ids = await service.leases(options);
  return { leases: ids.map((id) => ({ ID: id.toString() })) };
}

/** 0 seconds for a lease that does not exist. */
function serveKeepAlive(call: DuplexStream, context: EtcdContext): void {
  const { service, header, toStatus } = context;
  const renew = async (wire: WireLease | Unreadable) => {
    if (wire instanceof Unreadable) throw wire.error;
    try {
      const lease = toExisting(wire);
      const { ttlMs } = await service.keepAlive(lease, { timeoutMs: null });
      return { header: header(), ID: wire.ID, TTL: ttlMs / SECOND_MS };
    } catch (error) {
      if (!isUnknown(error)) throw error;
      return { header: header(), ID: wire.ID, TTL: 0 };
    }
  };
  serveRenewals(call, { renew, toStatus });
}

function isUnknown(error: unknown): boolean {
  return error instanceof EtcdError ||
    error instanceof DkvError && error.code === "LEASE_NOT_FOUND";
}
