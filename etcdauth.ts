/**
 * etcd's `Auth` service with authentication disabled: users and roles are kept and shown, and
 * nothing is checked against them. Used by `etcd.ts`.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import type * as grpc from "@grpc/grpc-js";
import type { Permission } from "./batch.ts";
import { fromKey, toKey } from "./convert.ts";
import { DkvError } from "./errors.ts";
import { type EtcdContext, type EtcdHandler, unaries } from "./etcdcall.ts";
import { EtcdError } from "./etcderrors.ts";
import type { PlainUserChange } from "./userchange.ts";

interface WirePermission {
  /** A number if it is none that we know. */
  permType: string | number;
  key: Buffer;
  range_end: Buffer;
}

/** What requests have of a user. Names and passwords are text. */
interface WireUser {
  name: string;
  password: string;
  options: { no_password: boolean } | null;
}

/** In requests, now the user is called `name`, now the role. */
interface WireRole {
  user: string;
  name: string;
  role: string;
  perm: WirePermission | null;
  key: Buffer;
  range_end: Buffer;
}

/** Who answers the calls of `etcdserverpb.Auth`. */
export function authHandlers(
  context: EtcdContext,
): grpc.UntypedServiceImplementation {
  return unaries(context, {
    AuthEnable: (_wire, { service }, options) => service.enableAuth(options),
    AuthDisable: () => Promise.resolve({}),
    Authenticate: () => Promise.reject(new EtcdError("authNotEnabled")),
    ...changes,
    ...reads,
  });
}

/** Makes a handler that changes something and answers with a header alone. */
function changing<W>(toChange: (wire: W) => PlainUserChange): EtcdHandler {
  return async (wire, { service }, options) => {
    await service.changeUsers(toChange(wire as W), options);
    return {};
  };
}

const changes: Readonly<Record<string, EtcdHandler>> = {
  UserAdd: changing(({ name, password, options }: WireUser) => ({
    type: "addUser",
    user: toName(name),
    password: options?.no_password ? null : password,
  })),
  UserChangePassword: changing(({ name, password }: WireUser) => ({
    type: "setPassword",
    user: toName(name),
    password,
  })),
  UserDelete: changing(({ name }: WireUser) => ({
    type: "deleteUser",
    user: toName(name),
  })),
  UserGrantRole: changing(({ user, role }: WireRole) => ({
    type: "grantRole",
    user: toName(user),
    role: toName(role),
  })),
  UserRevokeRole: changing(({ name, role }: WireRole) => ({
    type: "revokeRole",
    user: toName(name),
    role: toName(role),
  })),
  RoleAdd: changing(({ name }: WireRole) => ({
    type: "addRole",
    role: toName(name),
  })),
  RoleDelete: changing(({ role }: WireRole) => ({
    type: "deleteRole",
    role: toName(role),
  })),
  RoleGrantPermission: changing(({ name, perm }: WireRole) => ({
    type: "grantPermission",
    role: toName(name),
    permission: toPermission(perm),
  })),
  RoleRevokePermission: changing(({ role, key, range_end }: WireRole) => ({
    type: "revokePermission",
    role: toName(role),
    key: toKey(key),
    rangeEnd: toKey(range_end),
  })),
};

const reads: Readonly<Record<string, EtcdHandler>> = {
  AuthStatus: async (_wire, { service }, options) => {
    const { revision } = await service.users(options);
    return { enabled: service.isAuthEnabled, authRevision: String(revision) };
  },
  UserList: async (_wire, { service }, options) => {
    const users = await service.users(options);
    return { users: users.userNames().map(fromName) };
  },
  UserGet: async (wire, { service }, options) => {
    const users = await service.users(options);
    const roles = users.rolesOf(toName((wire as WireUser).name));
    if (roles === null) throw new EtcdError("userNotFound");
    return { roles: roles.map(fromName) };
  },
  RoleList: async (_wire, { service }, options) => {
    const users = await service.users(options);
    return { roles: users.roleNames().map(fromName) };
  },
  RoleGet: async (wire, { service }, options) => {
    const users = await service.users(options);
    const perm = users.permissionsOf(toName((wire as WireRole).role));
    if (perm === null) throw new EtcdError("roleNotFound");
    return { perm: perm.map(fromPermission) };
  },
};

/** A name is its UTF-8 bytes, so that names are in the order in which etcd has them. */
function toName(text: string): string {
  return toKey(Buffer.from(text));
}

function fromName(name: string): string {
  return fromKey(name).toString();
}

const ACCESSES: ReadonlyMap<unknown, Permission["access"]> = new Map([
  ["READ", "read"],
  ["WRITE", "write"],
  ["READWRITE", "readWrite"],
]);

function toPermission(wire: WirePermission | null): Permission {
  // etcd 3.4 ends with a panic, 3.5 answers this.
  if (wire === null) throw new EtcdError("permissionNotGiven");
  const access = ACCESSES.get(wire.permType);
  if (access === undefined) {
    throw new DkvError("MALFORMED", `No such permission: ${wire.permType}`);
  }
  return { access, key: toKey(wire.key), rangeEnd: toKey(wire.range_end) };
}

function fromPermission({ access, key, rangeEnd }: Permission) {
  return {
    permType: access.toUpperCase(),
    key: fromKey(key),
    range_end: fromKey(rangeEnd),
  };
}
