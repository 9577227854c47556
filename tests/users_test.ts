/** Users and roles of the store: what each change does and refuses, bounds, digest and reloads. */

import { assert, assertEquals, assertNotEquals } from "@std/assert";
import fc from "fast-check";
import type { Permission, UserChange } from "../batch.ts";
import { Digest } from "../digest.ts";
import { type Directory, type UserLimits, Users } from "../users.ts";
import { runs, userChanges } from "./arbitrary.ts";
import { FakeRows, TEST_LIMITS } from "./fake_rows.ts";

class Fixture {
  readonly rows = new FakeRows();
  readonly digest = new Digest(0);
  readonly limits: UserLimits;
  users: Users;

  constructor(limits: Partial<UserLimits> = {}) {
    this.limits = { ...TEST_LIMITS, ...limits };
    this.users = this.#load(1);
  }

  /** "ok", or the code of the error. */
  do(change: UserChange): string {
    const result = this.users.apply(change);
    return result.type === "error" ? result.code : "ok";
  }

  reload(): void {
    this.users = this.#load(this.users.revision);
  }

  #load(revision: number): Users {
    const { limits, digest } = this;
    return new Users(this.rows, { limits, digest, revision });
  }
}

function addUser(user: string, password = ""): UserChange {
  return { type: "addUser", user, password };
}

function addRole(role: string): UserChange {
  return { type: "addRole", role };
}

function permission(
  key: string,
  rangeEnd = "",
  access: Permission["access"] = "read",
): Permission {
  return { access, key, rangeEnd };
}

function shown(users: Directory) {
  return {
    revision: users.revision,
    users: users.userNames().map((name) => [name, users.rolesOf(name)]),
    roles: users.roleNames().map((name) => [name, users.permissionsOf(name)]),
  };
}

Deno.test("users: changes do what they say, in order, and raise the revision by one", () => {
  const fixture = new Fixture();
  const p = permission("k", "m");
  const steps: [UserChange, string, number][] = [
    [addUser(""), "USER_NAME_EMPTY", 1],
    [addRole(""), "ROLE_NAME_EMPTY", 1],
    [addUser("u"), "ok", 2],
    [addUser("u"), "USER_EXISTS", 2],
    [addUser("a"), "ok", 3],
    [{ type: "setPassword", user: "x", password: "h" }, "USER_NOT_FOUND", 3],
    [{ type: "setPassword", user: "u", password: "h" }, "ok", 4],
    [{ type: "grantRole", user: "x", role: "r" }, "USER_NOT_FOUND", 4],
    [{ type: "grantRole", user: "u", role: "r" }, "ROLE_NOT_FOUND", 4],
    [{ type: "grantRole", user: "u", role: "root" }, "ok", 5],
    [addRole("r"), "ok", 6],
    [addRole("r"), "ROLE_EXISTS", 6],
    [{ type: "grantRole", user: "u", role: "r" }, "ok", 7],
    [{ type: "grantRole", user: "u", role: "r" }, "ok", 7],
    [{ type: "grantRole", user: "a", role: "r" }, "ok", 8],
    [
      { type: "grantPermission", role: "x", permission: p },
      "ROLE_NOT_FOUND",
      8,
    ],
    [{ type: "grantPermission", role: "r", permission: p }, "ok", 9],
    [
      { type: "revokePermission", role: "r", key: "k", rangeEnd: "" },
      "PERMISSION_NOT_GRANTED",
      9,
    ],
    [
      { type: "revokePermission", role: "x", key: "k", rangeEnd: "m" },
      "ROLE_NOT_FOUND",
      9,
    ],
    [
      { type: "revokeRole", user: "a", role: "root" },
      "ROLE_NOT_GRANTED",
      9,
    ],
    [{ type: "revokeRole", user: "x", role: "r" }, "USER_NOT_FOUND", 9],
  ];
  for (const [change, expected, revision] of steps) {
    assertEquals(fixture.do(change), expected, JSON.stringify(change));
    assertEquals(fixture.users.revision, revision, JSON.stringify(change));
  }
  assertEquals(shown(fixture.users), {
    revision: 9,
    users: [["a", ["r"]], ["u", ["r", "root"]]],
    roles: [["r", [p]]],
  });
  // A role is taken from all who have it, in one change.
  assertEquals(fixture.do({ type: "deleteRole", role: "r" }), "ok");
  assertEquals(fixture.do({ type: "deleteRole", role: "r" }), "ROLE_NOT_FOUND");
  assertEquals(fixture.do({ type: "deleteUser", user: "a" }), "ok");
  assertEquals(fixture.do({ type: "deleteUser", user: "a" }), "USER_NOT_FOUND");
  const left = { revision: 11, users: [["u", ["root"]]], roles: [] };
  assertEquals(shown(fixture.users), left);
  fixture.reload();
  assertEquals(shown(fixture.users), left);
  assertEquals(fixture.users.rolesOf("a"), null);
  assertEquals(fixture.users.permissionsOf("r"), null);
});

Deno.test("users: one permission for the same keys takes the place of the other", () => {
  const fixture = new Fixture();
  fixture.do(addRole("r"));
  const grant = (one: Permission) =>
    fixture.do({ type: "grantPermission", role: "r", permission: one });
  for (
    const one of [
      permission("b", "c"),
      permission("b"),
      permission("a", "\0", "write"),
      permission("", "\0"),
      permission("b", "c", "readWrite"),
    ]
  ) assertEquals(grant(one), "ok");
  assertEquals(fixture.users.permissionsOf("r"), [
    permission("", "\0"),
    permission("a", "\0", "write"),
    permission("b", "c", "readWrite"),
    permission("b"),
  ]);
});

Deno.test("users: who was added without a password never gets one", () => {
  const [without, wanted, other] = [new Fixture(), new Fixture(), ""];
  without.do(addUser("u", other));
  wanted.do(addUser("u", "old"));
  for (const fixture of [without, wanted]) {
    fixture.do({ type: "setPassword", user: "u", password: "new" });
  }
  const stored = (fixture: Fixture) =>
    new TextDecoder().decode(fixture.rows.users()[0]?.data);
  assertEquals(stored(without), "");
  assert(stored(wanted).includes("new"), stored(wanted));
});

Deno.test("users: names, counts and sizes are bounded, and what is refused changes nothing", () => {
  const fixture = new Fixture({
    usersMax: 2,
    userNameBytesMax: 3,
    userBytesMax: 20,
  });
  assertEquals(fixture.do(addUser("four")), "USER_LIMIT");
  assertEquals(fixture.do(addUser("u1")), "ok");
  assertEquals(fixture.do(addUser("u2")), "ok");
  assertEquals(fixture.do(addUser("u3")), "USER_LIMIT");
  assertEquals(fixture.do(addRole("r1")), "ok");
  assertEquals(fixture.do(addRole("r2")), "ok");
  assertEquals(fixture.do(addRole("r3")), "USER_LIMIT");
  const before = shown(fixture.users);
  const hash = fixture.digest.seal();
  const large = permission("k".repeat(20));
  assertEquals(
    fixture.do({ type: "grantPermission", role: "r1", permission: large }),
    "USER_LIMIT",
  );
  assertEquals(
    fixture.do({ type: "setPassword", user: "u1", password: "" }),
    "ok",
  );
  const password = "p".repeat(20);
  assertEquals(
    fixture.do({ type: "deleteUser", user: "u2" }),
    "ok",
  );
  assertEquals(
    fixture.do({ type: "addUser", user: "u2", password }),
    "USER_LIMIT",
  );
  assertEquals(shown(fixture.users), {
    ...before,
    revision: before.revision + 2,
    users: [["u1", []]],
  });
  assertNotEquals(fixture.digest.seal(), hash);
});

Deno.test("users: what is refused or changes nothing leaves the digest as it was", () => {
  const fixture = new Fixture();
  fixture.do(addUser("u"));
  fixture.do({ type: "grantRole", user: "u", role: "root" });
  const hash = fixture.digest.seal();
  fixture.do(addUser("u"));
  fixture.do({ type: "grantRole", user: "u", role: "root" });
  fixture.do({ type: "deleteUser", user: "x" });
  assertEquals(fixture.digest.seal(), hash);
  fixture.do({ type: "revokeRole", user: "u", role: "root" });
  assertNotEquals(fixture.digest.seal(), hash);
});

Deno.test("users: replicas agree in state and digest, however often they reload", () => {
  const names = fc.constantFrom("", "a", "b", "root", "\xff");
  fc.assert(
    fc.property(fc.array(userChanges(names), { maxLength: 60 }), (changes) => {
      const [steady, restless] = [new Fixture(), new Fixture()];
      for (const [at, change] of changes.entries()) {
        assertEquals(restless.do(change), steady.do(change));
        if (at % 3 === 0) restless.reload();
      }
      restless.reload();
      // Cloned: fast-check's records have no prototype.
      const [left, right] = [restless, steady].map(({ users }) =>
        structuredClone(shown(users))
      );
      assertEquals(left, right);
      assertEquals(restless.digest.seal(), steady.digest.seal());
    }),
    runs(300),
  );
});
