/**
 * Users and roles of the store: who there is, which roles each user was granted and what each role
 * may do, as in etcd with authentication disabled. Nothing is checked against them yet. A change
 * raises a revision of their own, not that of the keys. Used by `store.ts`.
 *
 * Names and keys are strings of latin1 code units, one for each byte, whose order is the bytes'.
 *
 * @module
 */
import type { Permission, UserChange } from "./batch.ts";
import type { Digest } from "./digest.ts";
import { DkvError, unreachable } from "./errors.ts";
import { type ErrorResult, refusal, type Result } from "./results.ts";
import { readPermission, writePermission } from "./userchange.ts";
import { Pen, Reader } from "./wire.ts";

/** A user or a role on disk. */
export interface UserRow {
  readonly kind: "user" | "role";
  readonly name: string;
  /** Message User or Role of `proto/entry.proto`. */
  readonly data: Uint8Array;
}

/** What users and roles need of a disk. */
export interface UserRows {
  /** Inserts or replaces. */
  putUser(row: UserRow): void;
  removeUser(row: Pick<UserRow, "kind" | "name">): void;
  users(): UserRow[];
}

export interface UserLimits {
  /** Users, and roles, each. */
  readonly usersMax: number;
  /** The name of a user or a role. */
  readonly userNameBytesMax: number;
  /** A user with the names of its roles, or a role with its permissions. */
  readonly userBytesMax: number;
}

/** Who there is; null stands for a user or role that does not exist. Lists are sorted. */
export interface Directory {
  /** Grows with each change; 1 if there was none. */
  readonly revision: number;
  userNames(): string[];
  rolesOf(user: string): readonly string[] | null;
  roleNames(): string[];
  permissionsOf(role: string): readonly Permission[] | null;
}

interface User {
  /** Hashed; empty: the user has none and never will. */
  readonly password: string;
  readonly roles: readonly string[];
}

/** Can do everything; it may be granted whether or not it was added. */
const ROOT_ROLE = "root";
const DONE: Result = { type: "done" };
/** Stands in the digest before a change; other numbers are in `store.ts`. */
const DIGEST_KIND = { user: 6, role: 7 } as const;

const pen = new Pen();

export class Users implements Directory {
  readonly #rows: UserRows;
  readonly #limits: UserLimits;
  readonly #digest: Digest;
  readonly #users = new Map<string, User>();
  readonly #roles = new Map<string, readonly Permission[]>();
  #revision: number;

  /** Reads users and roles from disk. */
  constructor(
    rows: UserRows,
    options: { limits: UserLimits; digest: Digest; revision: number },
  ) {
    this.#rows = rows;
    this.#limits = options.limits;
    this.#digest = options.digest;
    this.#revision = options.revision;
    for (const { kind, name, data } of rows.users()) {
      if (kind === "user") this.#users.set(name, decodeUser(data));
      else this.#roles.set(name, decodeRole(data));
    }
  }

  get revision(): number {
    return this.#revision;
  }

  userNames(): string[] {
    return [...this.#users.keys()].sort();
  }

  rolesOf(user: string): readonly string[] | null {
    return this.#users.get(user)?.roles ?? null;
  }

  roleNames(): string[] {
    return [...this.#roles.keys()].sort();
  }

  permissionsOf(role: string): readonly Permission[] | null {
    return this.#roles.get(role) ?? null;
  }

  /** Makes a change, or says why not, as etcd would and in its order. */
  apply(change: UserChange): Result {
    switch (change.type) {
      case "addUser":
      case "addRole":
        return this.#add(change);
      case "setPassword":
      case "deleteUser":
      case "grantRole":
      case "revokeRole": {
        const user = this.#users.get(change.user);
        if (user === undefined) {
          return refusal("USER_NOT_FOUND", `User not found: ${change.user}`);
        }
        return this.#changeUser(change, user);
      }
      case "deleteRole":
      case "grantPermission":
      case "revokePermission": {
        const role = this.#roles.get(change.role);
        if (role === undefined) return unknownRole(change.role);
        return this.#changeRole(change, role);
      }
      default:
        return unreachable(change);
    }
  }

  #add(change: Extract<UserChange, { type: "addUser" | "addRole" }>): Result {
    const isUser = change.type === "addUser";
    const name = isUser ? change.user : change.role;
    const { usersMax, userNameBytesMax } = this.#limits;
    if (name === "") {
      return isUser
        ? refusal("USER_NAME_EMPTY", "The name of the user is empty")
        : refusal("ROLE_NAME_EMPTY", "The name of the role is empty");
    }
    if (isUser && this.#users.has(name)) {
      return refusal("USER_EXISTS", `User exists: ${name}`);
    }
    if (!isUser && this.#roles.has(name)) {
      return refusal("ROLE_EXISTS", `Role exists: ${name}`);
    }
    if (name.length > userNameBytesMax) {
      return refusal(
        "USER_LIMIT",
        `The name of a user or a role is too long: ${name.length} bytes, at most ${userNameBytesMax}`,
      );
    }
    if ((isUser ? this.#users : this.#roles).size >= usersMax) {
      return refusal(
        "USER_LIMIT",
        `Too many ${isUser ? "users" : "roles"}: at most ${usersMax}`,
      );
    }
    return isUser
      ? this.#putUser(name, { password: change.password, roles: [] })
      : this.#putRole(name, []);
  }

  #changeUser(
    change: Extract<
      UserChange,
      { type: "setPassword" | "deleteUser" | "grantRole" | "revokeRole" }
    >,
    user: User,
  ): Result {
    const { user: name } = change;
    switch (change.type) {
      case "setPassword":
        // Who was added without one stays without, as in etcd.
        return this.#putUser(
          name,
          user.password === "" ? user : { ...user, password: change.password },
        );
      case "deleteUser":
        this.#users.delete(name);
        return this.#remove("user", name);
      case "grantRole": {
        const { role } = change;
        if (role !== ROOT_ROLE && !this.#roles.has(role)) {
          return unknownRole(role);
        }
        if (user.roles.includes(role)) return DONE;
        return this.#putUser(name, {
          ...user,
          roles: [...user.roles, role].sort(),
        });
      }
      case "revokeRole":
        if (!user.roles.includes(change.role)) {
          return refusal(
            "ROLE_NOT_GRANTED",
            `User ${name} does not have role ${change.role}`,
          );
        }
        return this.#putUser(name, without(user, change.role));
    }
  }

  #changeRole(
    change: Extract<
      UserChange,
      { type: "deleteRole" | "grantPermission" | "revokePermission" }
    >,
    permissions: readonly Permission[],
  ): Result {
    const { role } = change;
    switch (change.type) {
      case "deleteRole": {
        for (const [name, user] of this.#users) {
          if (!user.roles.includes(role)) continue;
          const less = without(user, role);
          this.#users.set(name, less);
          this.#write({ kind: "user", name, data: encodeUser(less) });
        }
        this.#roles.delete(role);
        return this.#remove("role", role);
      }
      case "grantPermission": {
        const { permission } = change;
        const at = permissions.findIndex((one) => isSame(one, permission));
        const granted = at >= 0
          ? permissions.with(at, permission)
          : [...permissions, permission].sort(compareKeys);
        return this.#putRole(role, granted);
      }
      case "revokePermission": {
        const others = permissions.filter((one) => !isSame(one, change));
        if (others.length === permissions.length) {
          return refusal(
            "PERMISSION_NOT_GRANTED",
            `Role ${role} has no permission for exactly these keys`,
          );
        }
        return this.#putRole(role, others);
      }
    }
  }

  #putUser(name: string, user: User): Result {
    const data = encodeUser(user);
    const error = this.#tooLarge(data);
    if (error !== null) return error;
    this.#users.set(name, user);
    this.#write({ kind: "user", name, data });
    this.#revision++;
    return DONE;
  }

  #putRole(name: string, permissions: readonly Permission[]): Result {
    const data = encodeRole(permissions);
    const error = this.#tooLarge(data);
    if (error !== null) return error;
    this.#roles.set(name, permissions);
    this.#write({ kind: "role", name, data });
    this.#revision++;
    return DONE;
  }

  #tooLarge(data: Uint8Array): ErrorResult | null {
    const { userBytesMax } = this.#limits;
    if (data.length <= userBytesMax) return null;
    return refusal(
      "USER_LIMIT",
      `Too much for one user or role: ${data.length} bytes, at most ${userBytesMax}`,
    );
  }

  #write(row: UserRow): void {
    this.#rows.putUser(row);
    this.#digest.number(DIGEST_KIND[row.kind]);
    this.#digest.text(row.name);
    this.#digest.number(1);
    this.#digest.bytes(row.data);
  }

  #remove(kind: "user" | "role", name: string): Result {
    this.#rows.removeUser({ kind, name });
    this.#digest.number(DIGEST_KIND[kind]);
    this.#digest.text(name);
    this.#digest.number(0);
    this.#revision++;
    return DONE;
  }
}

function unknownRole(role: string): ErrorResult {
  return refusal("ROLE_NOT_FOUND", `Role not found: ${role}`);
}

function without(user: User, role: string): User {
  return { ...user, roles: user.roles.filter((one) => one !== role) };
}

type Range = Pick<Permission, "key" | "rangeEnd">;

function isSame(a: Range, b: Range): boolean {
  return a.key === b.key && a.rangeEnd === b.rangeEnd;
}

/** What begins with the same key stays in the order in which it was granted. */
function compareKeys(a: Range, b: Range): number {
  return a.key < b.key ? -1 : a.key > b.key ? 1 : 0;
}

function encodeUser({ password, roles }: User): Uint8Array {
  pen.reset();
  if (password !== "") pen.latin1(1, password);
  for (const role of roles) pen.latin1(2, role);
  return pen.finish();
}

function decodeUser(data: Uint8Array): User {
  const reader = new Reader(data);
  let password = "";
  const roles: string[] = [];
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === (1 << 3 | 2)) password = reader.latin1();
    else if (tag === (2 << 3 | 2)) roles.push(reader.latin1());
    else throw corrupt("user", tag);
  }
  return { password, roles };
}

function encodeRole(permissions: readonly Permission[]): Uint8Array {
  pen.reset();
  for (const permission of permissions) writePermission(pen, 1, permission);
  return pen.finish();
}

function decodeRole(data: Uint8Array): readonly Permission[] {
  const reader = new Reader(data);
  const permissions: Permission[] = [];
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === (1 << 3 | 2)) permissions.push(readPermission(reader));
    else throw corrupt("role", tag);
  }
  return permissions;
}

function corrupt(kind: UserRow["kind"], tag: number): DkvError {
  return new DkvError(
    "DATA_CORRUPT",
    `A ${kind}'s row is malformed: field ${tag >> 3}`,
  );
}
