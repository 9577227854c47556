/**
 * Random requests about users and roles, for the differential fuzzer. Used by `generate.ts`.
 *
 * Nothing here may switch authentication on: the user `root` is never granted the role `root`.
 *
 * @module
 */

import type { Random } from "../sim/random.ts";
import { KEYS, type Request } from "./steps.ts";

/** Calls about users and roles, each with how often it is made, in shares. */
export const USER_CALLS = [
  ["Auth.AuthEnable", 2],
  ["Auth.AuthDisable", 1],
  ["Auth.Authenticate", 1],
  ["Auth.UserAdd", 6],
  ["Auth.UserDelete", 3],
  ["Auth.UserChangePassword", 2],
  ["Auth.UserGrantRole", 8],
  ["Auth.UserRevokeRole", 5],
  ["Auth.UserGet", 4],
  ["Auth.UserList", 2],
  ["Auth.RoleAdd", 5],
  ["Auth.RoleDelete", 3],
  ["Auth.RoleGrantPermission", 8],
  ["Auth.RoleRevokePermission", 5],
  ["Auth.RoleGet", 4],
  ["Auth.RoleList", 2],
] as const;

/** One of them. */
export type UserCall = typeof USER_CALLS[number][0];

const USERS: readonly string[] = ["root", "U", "u", "u\0", "ü", "😀", "\uffff"];
const ROLES: readonly string[] = ["root", "R", "r", "rö"];
const ACCESSES: readonly string[] = ["READ", "WRITE", "READWRITE"];
/** One for each first key, for the sake of what KNOWN_DIFFERENCES says of permissions. */
const RANGE_ENDS: readonly string[] = ["", "\0", "b", "\xff", "\0\0"];
/** Few are hashed: it takes a server a while. */
const PASSWORD_PERMILLE = 100;

/** True if a call changes nothing. */
export function readsUsers(call: UserCall): boolean {
  return /(Get|List|AuthEnable|AuthDisable|Authenticate)$/.test(call);
}

/** A random request of a call. */
export function userRequest(random: Random, call: UserCall): Request {
  switch (call) {
    case "Auth.AuthEnable":
    case "Auth.AuthDisable":
    case "Auth.UserList":
    case "Auth.RoleList":
      return {};
    case "Auth.Authenticate":
      return { name: user(random), password: "secret" };
    case "Auth.UserAdd":
      return random.chance(PASSWORD_PERMILLE)
        ? { name: user(random), password: "secret" }
        : { name: user(random), options: { no_password: true } };
    case "Auth.UserChangePassword":
      return {
        name: random.chance(PASSWORD_PERMILLE) ? user(random) : "nobody",
        password: "secret",
      };
    case "Auth.UserGet":
    case "Auth.UserDelete":
      return { name: user(random) };
    case "Auth.UserGrantRole": {
      const name = user(random);
      return { user: name, role: role(random, name === "root" ? 1 : 0) };
    }
    case "Auth.UserRevokeRole":
      return { name: user(random), role: role(random) };
    case "Auth.RoleAdd":
      return { name: role(random) };
    case "Auth.RoleGet":
    case "Auth.RoleDelete":
      return { role: role(random) };
    case "Auth.RoleGrantPermission":
      return {
        name: role(random),
        perm: { permType: random.pick(ACCESSES), ...range(random) },
      };
    case "Auth.RoleRevokePermission":
      return { role: role(random), ...range(random) };
  }
}

function user(random: Random): string {
  return random.chance(40) ? "" : random.pick(USERS);
}

function role(random: Random, from = 0): string {
  return random.chance(40) ? "" : random.pick(ROLES.slice(from));
}

function range(random: Random): { key: string; range_end: string } {
  const at = random.below(KEYS.length);
  return {
    key: KEYS[at] ?? "",
    range_end: RANGE_ENDS[at % RANGE_ENDS.length] ?? "",
  };
}
