/**
 * etcd's `Cluster` service: who takes part. Used by `etcd.ts`.
 *
 * etcd's members are added by address, with any name; dkv's nodes stand in its configuration file, so
 * an address to be added must be that of one of them. A node keeps its number when its disk is replaced.
 *
 * @module
 */

import type * as grpc from "@grpc/grpc-js";
import type { Wire } from "./call.ts";
import { DkvError } from "./errors.ts";
import { type EtcdContext, unaries } from "./etcdcall.ts";
import { EtcdError } from "./etcderrors.ts";
import type { MemberInfo } from "./membership.ts";
import type { CallOptions } from "./service.ts";

/** Who answers the calls of `etcdserverpb.Cluster`. */
export function clusterHandlers(
  context: EtcdContext,
): grpc.UntypedServiceImplementation {
  // As etcd's, their headers tell no revision.
  return unaries({ ...context, header: () => context.header(0) }, {
    MemberList: memberList,
    MemberAdd: memberAdd,
    MemberRemove: memberRemove,
    MemberUpdate: memberUpdate,
    MemberPromote: memberPromote,
  });
}

async function memberList(
  wire: Wire,
  context: EtcdContext,
  options: CallOptions,
) {
  const serializable = !wire.linearizable;
  const members = await context.service.members({ ...options, serializable });
  return { members: members.map((member) => wireMember(member, context)) };
}

async function memberAdd(
  wire: Wire,
  context: EtcdContext,
  options: CallOptions,
) {
  const { service } = context;
  const nodeId = nodeAt(wire.peerURLs, context);
  const before = await current(context, options);
  if (before.some((member) => member.nodeId === nodeId)) {
    throw new EtcdError("peerUrlExists");
  }
  await service.addMember(nodeId, { ...options, hold: wire.isLearner });
  const members = await membersNow(context);
  const isLearner = wire.isLearner as boolean;
  const member = wireMember(
    { nodeId, isLearner, isStarted: false },
    context,
  );
  return { member, members };
}

async function memberRemove(
  wire: Wire,
  context: EtcdContext,
  options: CallOptions,
) {
  const { nodeId } = await memberOf(wire.ID, context, options);
  await context.service.removeMember(nodeId, options);
  return { members: await membersNow(context) };
}

async function memberUpdate(
  wire: Wire,
  context: EtcdContext,
  options: CallOptions,
) {
  const { nodeId } = await memberOf(wire.ID, context, options);
  if (nodeAt(wire.peerURLs, context) !== nodeId) {
    throw new DkvError(
      "MEMBERSHIP_REFUSED",
      `The address of ${nodeId} stands in the configuration file of the nodes: change it there`,
    );
  }
  return { members: await membersNow(context) };
}

async function memberPromote(
  wire: Wire,
  context: EtcdContext,
  options: CallOptions,
) {
  const member = await memberOf(wire.ID, context, options);
  if (!member.isLearner) throw new EtcdError("memberNotLearner");
  if (!member.isStarted) throw new EtcdError("learnerNotReady");
  const { nodeId } = member;
  try {
    await context.service.promoteMember(nodeId, options);
  } catch (error) {
    // The leader does not say why it refuses; of a learner that is the usual reason.
    const isLate = error instanceof DkvError &&
      error.code === "OUTCOME_UNKNOWN";
    throw isLate ? new EtcdError("learnerNotReady") : error;
  }
  return { members: await membersNow(context) };
}

/** The members as this node knows them just after a change. */
async function membersNow(context: EtcdContext): Promise<object[]> {
  const members = await context.service.members({
    serializable: true,
    timeoutMs: null,
  });
  return members.map((member) => wireMember(member, context));
}

function current(
  { service }: EtcdContext,
  options: CallOptions,
): Promise<MemberInfo[]> {
  return service.members({ ...options, serializable: false });
}

/** A `Member`. */
function wireMember(
  { nodeId, isLearner, isStarted }: MemberInfo,
  { config, memberNumber }: EtcdContext,
): object {
  const node = config.nodes.find(({ id }) => id === nodeId);
  const urls = node === undefined ? [] : [`http://${node.address}`];
  return {
    ID: memberNumber(nodeId),
    // As in etcd, the others know nothing of a member that never came but where it will be.
    name: isStarted ? nodeId : "",
    peerURLs: urls,
    clientURLs: isStarted ? urls : [],
    isLearner,
  };
}

async function memberOf(
  number: string,
  context: EtcdContext,
  options: CallOptions,
): Promise<MemberInfo> {
  const members = await current(context, options);
  const member = members.find(({ nodeId }) =>
    context.memberNumber(nodeId) === number
  );
  if (member === undefined) throw new EtcdError("memberNotFound");
  return member;
}

/** The node whose address all of these URLs name. */
function nodeAt(urls: readonly string[], { config }: EtcdContext): string {
  const addresses = urls.map((url) => /^https?:\/\/([^/]+)\/?$/.exec(url)?.[1]);
  const [address] = addresses;
  if (address === undefined || addresses.some((other) => other !== address)) {
    throw new EtcdError("memberBadUrls");
  }
  const node = config.nodes.find((known) => known.address === address);
  if (node === undefined) {
    const known = config.nodes.map((other) => other.address).join(", ");
    throw new DkvError(
      "MEMBERSHIP_REFUSED",
      `No node of the configuration file has the address ${address}: ${known} are known`,
    );
  }
  return node.id;
}
