/**
 * etcd's `Cluster` service: who takes part. Used by `etcd.ts`.
 *
 * etcd's members are added by address, and so are dkv's nodes: one that the configuration file has at
 * that address by its name, any other by the address, until it comes and tells its name. A node keeps its
 * number when its disk is replaced, and when it moves.
 *
 * @module
 */

import type * as grpc from "@grpc/grpc-js";
import type { Wire } from "./call.ts";
import { isAddress, isSameAddress } from "./config.ts";
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
  const { service, config } = context;
  const address = addressIn(wire.peerURLs);
  const before = await current(context, options);
  // One that was invited from there and has moved since still has the number of that address.
  const isTaken = before.some((member) =>
    member.invitedAs === address || isAt(member, address, context)
  );
  if (isTaken) throw new EtcdError("peerUrlExists");
  const known = config.nodes.find((node) =>
    isSameAddress(node.address, address) &&
    before.every(({ nodeId }) => nodeId !== node.id)
  );
  const nodeId = known?.id ?? address;
  refuseUnreachable(address, context);
  const hold = wire.isLearner as boolean;
  await service.addMember(nodeId, { ...options, address, hold });
  const member = wireMember({
    nodeId,
    isLearner: hold,
    isStarted: false,
    address,
    invitedAs: nodeId,
  }, context);
  return { member, members: await membersNow(context) };
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
  const address = addressIn(wire.peerURLs);
  const others = (await current(context, options))
    .filter((member) => member.nodeId !== nodeId);
  if (others.some((member) => isAt(member, address, context))) {
    throw new EtcdError("peerUrlExists");
  }
  refuseUnreachable(address, context);
  await context.service.moveMember(nodeId, { ...options, address });
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
function wireMember(member: MemberInfo, context: EtcdContext): object {
  const { nodeId, isLearner, isStarted } = member;
  const { memberNumber } = context;
  const address = addressOf(member, context);
  const urls = address === undefined ? [] : [`http://${address}`];
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

/** Where a member is: as the cluster was told, or else as this node's configuration file has it. */
function addressOf(
  { nodeId, address }: MemberInfo,
  { config }: EtcdContext,
): string | undefined {
  return address ?? config.nodes.find(({ id }) => id === nodeId)?.address;
}

function isAt(
  member: MemberInfo,
  address: string,
  context: EtcdContext,
): boolean {
  const known = addressOf(member, context);
  return known !== undefined && isSameAddress(known, address);
}

/** The one `host:port` that all of these URLs name. */
function addressIn(urls: readonly string[]): string {
  const addresses = urls.map((url) => /^https?:\/\/([^/]+)\/?$/.exec(url)?.[1]);
  const [address] = addresses;
  if (
    address === undefined || !isAddress(address) ||
    addresses.some((other) => other !== address)
  ) {
    throw new EtcdError("memberBadUrls");
  }
  return address;
}

/** Better here, with a reason, than in the logs of nodes that may not dial it. */
function refuseUnreachable(
  address: string,
  { mayReach, nodeId, config }: EtcdContext,
): void {
  if (mayReach(address)) return;
  throw new DkvError(
    "MEMBERSHIP_REFUSED",
    `${nodeId} has no permission to connect to ${address}: list a node on that host in ${config.path} and ` +
      "start the nodes again, one after the other",
  );
}
