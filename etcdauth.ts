/**
 * etcd's `Auth` service as a server with authentication disabled answers it. Users and roles do not
 * exist yet: what would make them is refused. Used by `etcd.ts`.
 *
 * @module
 */

import type * as grpc from "@grpc/grpc-js";
import { type EtcdContext, unaries, unsupported } from "./etcdcall.ts";
import { EtcdError, type EtcdErrorName } from "./etcderrors.ts";

/** Who answers the calls of `etcdserverpb.Auth`. */
export function authHandlers(
  context: EtcdContext,
): grpc.UntypedServiceImplementation {
  return {
    ...unsupported(context, ["UserAdd", "RoleAdd"]),
    ...unaries(context, {
      AuthStatus: () =>
        Promise.resolve({
          enabled: context.service.isAuthEnabled,
          authRevision: "1",
        }),
      AuthEnable: () => refuse("rootUserNotExist"),
      AuthDisable: () => Promise.resolve({}),
      Authenticate: () => refuse("authNotEnabled"),
      UserList: () => Promise.resolve({ users: [] }),
      RoleList: () => Promise.resolve({ roles: [] }),
      UserGet: () => refuse("userNotFound"),
      UserDelete: () => refuse("userNotFound"),
      UserChangePassword: () => refuse("userNotFound"),
      UserGrantRole: () => refuse("userNotFound"),
      UserRevokeRole: () => refuse("userNotFound"),
      RoleGet: () => refuse("roleNotFound"),
      RoleDelete: () => refuse("roleNotFound"),
      RoleGrantPermission: () => refuse("roleNotFound"),
      RoleRevokePermission: () => refuse("roleNotFound"),
    }),
  };
}

function refuse(name: EtcdErrorName): Promise<never> {
  return Promise.reject(new EtcdError(name));
}
