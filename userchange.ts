/**
 * A change of users and roles as a command carries it (`proto/entry.proto`, message ChangeUsers),
 * and the permissions of which roles consist. What it does is said in `users.ts`. Used by
 * `batch.ts`, and by whoever takes such changes from clients. Pure.
 *
 * @module
 */

import { malformed, unknownField } from "./ranges.ts";
import type { Pen, Reader } from "./wire.ts";

/** What a role may do with a range of keys. */
export interface Permission {
  readonly access: "read" | "write" | "readWrite";
  /** The first key. One latin1 code unit for each byte, as in all keys and names here. */
  readonly key: string;
  /** As etcd spells it: empty for the one key, a zero byte for no end. */
  readonly rangeEnd: string;
}

/** One change of users and roles. Names are UTF-8, one latin1 code unit for each byte. */
export type UserChange =
  | NewPassword & { readonly type: "addUser" }
  | NewPassword & { readonly type: "setPassword" }
  | { readonly type: "deleteUser"; readonly user: string }
  | Grant & { readonly type: "grantRole" }
  | Grant & { readonly type: "revokeRole" }
  | { readonly type: "addRole"; readonly role: string }
  | { readonly type: "deleteRole"; readonly role: string }
  | {
    /** In place of one for the same keys, if there is one. */
    readonly type: "grantPermission";
    readonly role: string;
    readonly permission: Permission;
  }
  | {
    readonly type: "revokePermission";
    readonly role: string;
    readonly key: string;
    readonly rangeEnd: string;
  };

/** A change of users and roles as a client asks for it: with the password in the clear; null: none. */
export type PlainUserChange =
  | Exclude<UserChange, { password: string }>
  | {
    readonly type: "addUser" | "setPassword";
    readonly user: string;
    readonly password: string | null;
  };

interface NewPassword {
  readonly user: string;
  /** As `passwords.ts` hashes it; empty: the user has none. */
  readonly password: string;
}

interface Grant {
  readonly user: string;
  readonly role: string;
}

export interface ChangeUsersRequest {
  readonly type: "changeUsers";
  readonly change: UserChange;
}

/** In the order of the enum's numbers. */
const TYPES = [
  "addUser",
  "setPassword",
  "deleteUser",
  "grantRole",
  "revokeRole",
  "addRole",
  "deleteRole",
  "grantPermission",
  "revokePermission",
] as const;

/** In the order of the enum's numbers. */
const ACCESSES = ["read", "write", "readWrite"] as const;

/** Writes message ChangeUsers of `proto/entry.proto` as a field. */
export function writeChangeUsers(
  pen: Pen,
  field: number,
  { change }: ChangeUsersRequest,
): void {
  const start = pen.open(field);
  const type = TYPES.indexOf(change.type);
  if (type !== 0) pen.int64(1, type);
  if ("user" in change && change.user !== "") pen.latin1(2, change.user);
  if ("password" in change && change.password !== "") {
    pen.latin1(3, change.password);
  }
  if ("role" in change && change.role !== "") pen.latin1(4, change.role);
  if (change.type === "grantPermission") {
    writePermission(pen, 5, change.permission);
  } else if (change.type === "revokePermission") {
    writePermission(pen, 5, { ...change, access: "read" });
  }
  pen.close(start);
}

/** Writes message Permission of `proto/entry.proto` as a field. */
export function writePermission(
  pen: Pen,
  field: number,
  { access, key, rangeEnd }: Permission,
): void {
  const start = pen.open(field);
  const number = ACCESSES.indexOf(access);
  if (number !== 0) pen.int64(1, number);
  if (key !== "") pen.latin1(2, key);
  if (rangeEnd !== "") pen.latin1(3, rangeEnd);
  pen.close(start);
}

/**
 * Reads what {@linkcode writeChangeUsers} wrote. Bytes that are none end in `DkvError` MALFORMED, as
 * do fields and types that this version does not know.
 */
export function readChangeUsers(reader: Reader): ChangeUsersRequest {
  let number = 0;
  let user = "";
  let password = "";
  let role = "";
  let permission: Permission = { access: "read", key: "", rangeEnd: "" };
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === 1 << 3) number = reader.int64();
    else if (tag === (2 << 3 | 2)) user = reader.latin1();
    else if (tag === (3 << 3 | 2)) password = reader.latin1();
    else if (tag === (4 << 3 | 2)) role = reader.latin1();
    else if (tag === (5 << 3 | 2)) permission = readPermission(reader);
    else unknownField(tag);
  }
  const type = TYPES[number];
  if (type === undefined) throw malformed(`change of users ${number}`);
  switch (type) {
    case "addUser":
    case "setPassword":
      return { type: "changeUsers", change: { type, user, password } };
    case "deleteUser":
      return { type: "changeUsers", change: { type, user } };
    case "grantRole":
    case "revokeRole":
      return { type: "changeUsers", change: { type, user, role } };
    case "addRole":
    case "deleteRole":
      return { type: "changeUsers", change: { type, role } };
    case "grantPermission":
      return { type: "changeUsers", change: { type, role, permission } };
    case "revokePermission": {
      const { key, rangeEnd } = permission;
      return { type: "changeUsers", change: { type, role, key, rangeEnd } };
    }
  }
}

/** Reads what {@linkcode writePermission} wrote, behind its tag. */
export function readPermission(reader: Reader): Permission {
  const outer = reader.enter();
  let number = 0;
  let key = "";
  let rangeEnd = "";
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === 1 << 3) number = reader.int64();
    else if (tag === (2 << 3 | 2)) key = reader.latin1();
    else if (tag === (3 << 3 | 2)) rangeEnd = reader.latin1();
    else unknownField(tag);
  }
  reader.leave(outer);
  const access = ACCESSES[number];
  if (access === undefined) throw malformed(`access ${number}`);
  return { access, key, rangeEnd };
}
