/** Users and roles of the etcd API: on real nodes, through restarts and snapshots, and beside etcd. */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { clusterTest, eventually, type TestCluster } from "./cluster.ts";
import type { Connection } from "./etcd/connection.ts";
import { Etcd, programTest, run } from "./etcd/program.ts";
import { bytes } from "./load.ts";

const PASSWORD = "correct horse battery staple";

async function connect(address: string): Promise<Connection> {
  const { Connection } = await import("./etcd/connection.ts");
  return new Connection(address);
}

/** Everything that a node tells of users and roles. */
async function told(address: string): Promise<unknown> {
  using connection = await connect(address);
  const { users } = await connection.ask("Auth.UserList", {});
  const { roles } = await connection.ask("Auth.RoleList", {});
  const rolesOf = (users as string[]).map(async (name) => {
    const answer = await connection.ask("Auth.UserGet", { name });
    return [name, answer["roles"]];
  });
  const permissionsOf = (roles as string[]).map(async (role) => {
    const answer = await connection.ask("Auth.RoleGet", { role });
    return [role, answer["perm"]];
  });
  const { enabled, authRevision } = await connection.ask("Auth.AuthStatus", {});
  return {
    users: Object.fromEntries(await Promise.all(rolesOf)),
    roles: Object.fromEntries(await Promise.all(permissionsOf)),
    enabled,
    authRevision,
  };
}

const EXPECTED = {
  users: { ann: ["reader"], nil: [] },
  roles: {
    reader: [{ permType: "READWRITE", key: "a", range_end: "b" }],
  },
  enabled: false,
  authRevision: "6",
};

async function addUsers(address: string): Promise<string> {
  using connection = await connect(address);
  const perm = { key: bytes("a"), range_end: bytes("b") };
  const calls: [string, object][] = [
    ["UserAdd", { name: "ann", password: PASSWORD }],
    ["UserAdd", { name: "nil", options: { no_password: true } }],
    ["RoleAdd", { name: "reader" }],
    ["UserGrantRole", { user: "ann", role: "reader" }],
    ["RoleGrantPermission", {
      name: "reader",
      perm: { ...perm, permType: "READWRITE" },
    }],
    // Granted already: nothing changes.
    ["UserGrantRole", { user: "ann", role: "reader" }],
  ];
  let revision = "";
  for (const [name, request] of calls) {
    const { header } = await connection.ask(`Auth.${name}`, request);
    ({ revision } = header as { revision: string });
  }
  return revision;
}

clusterTest(
  "etcd users: survive restarts and snapshots, on all nodes, and no password stands anywhere",
  { settings: { catchUpEntries: 10 } },
  async (cluster) => {
    const [follower = "", other = ""] = await cluster.followers();
    const before = await put(cluster, other, "x");
    // Through a follower, which forwards them; no revision of the keys is used up.
    assertEquals(await addUsers(cluster.address(other)), String(before));
    for (const id of cluster.ids) {
      assertEquals(await told(cluster.address(id)), EXPECTED, id);
    }
    await cluster.killAll();
    await Promise.all(cluster.ids.map((id) => cluster.restart(id)));
    await eventually("an answer", () => told(cluster.address(follower)));
    assertEquals(await told(cluster.address(follower)), EXPECTED);

    await emptied(cluster, follower);
    await cluster.agreed();
    assertEquals(await told(cluster.address(follower)), EXPECTED);
    for (const id of cluster.ids) {
      await assertNowhere(cluster.dataDir(id), PASSWORD);
    }
  },
);

async function put(
  cluster: TestCluster,
  id: string,
  key: string,
): Promise<number> {
  const request = { key: bytes(key), value: bytes("v") };
  const { revision } = await cluster.call<{ revision: number }>(
    id,
    "KeyValue.Put",
    request,
  );
  return revision;
}

/** Lets a node miss so much that it gets a snapshot. */
async function emptied(cluster: TestCluster, id: string): Promise<void> {
  await cluster.kill(id);
  const leader = await cluster.leader(id);
  const { lastIndex } = await cluster.status(leader);
  await eventually("the log forgets what the node needs", async () => {
    await put(cluster, leader, "y");
    const { firstIndex } = await cluster.status(leader);
    return firstIndex > lastIndex + 1;
  });
  await cluster.restart(id);
  await cluster.node(id).waitForLine("installing a snapshot", 20_000);
}

async function assertNowhere(dir: string, text: string): Promise<void> {
  const read: string[] = [];
  for await (const { name, isFile } of Deno.readDir(dir)) {
    if (!isFile) continue;
    const data = await Deno.readFile(`${dir}/${name}`);
    const content = new TextDecoder("latin1").decode(data);
    assert(!content.includes(text), `${dir}/${name}`);
    read.push(content);
  }
  // The hash is somewhere, so these are the files that it would be in.
  assert(read.some((content) => content.includes("$scrypt$")), dir);
}

programTest(
  ["etcd"],
  "etcd users: authentication is refused as etcd does, but never switched on",
  async () => {
    const cluster = await import("./cluster.ts");
    await using etcd = await Etcd.start();
    await using dkv = await cluster.TestCluster.start({ nodes: 1 });
    using left = await connect(etcd.address);
    using right = await connect(dkv.address("node1"));
    const both = async (name: string, request: object) => {
      const [l, r] = await Promise.all(
        [left, right].map(async (connection) => {
          const outcome = await connection.unary(`Auth.${name}`, request);
          return "error" in outcome ? outcome : "done";
        }),
      );
      assertEquals(l, r, name);
      return l;
    };
    const enabled = async () => JSON.stringify(await both("AuthEnable", {}));
    const root = { name: "root", options: { no_password: true } };
    assertStringIncludes(await enabled(), "root user does not exist");
    await both("UserAdd", root);
    assertStringIncludes(await enabled(), "does not have root role");
    await both("RoleAdd", { name: "root" });
    await both("RoleAdd", { name: "other" });
    await both("UserGrantRole", { user: "root", role: "other" });
    assertStringIncludes(await enabled(), "does not have root role");
    await both("UserGrantRole", { user: "root", role: "root" });
    await both("RoleDelete", { role: "root" });
    assertStringIncludes(await enabled(), "does not have root role");
    // The role need not be there to be granted.
    await both("UserGrantRole", { user: "root", role: "root" });
    assertEquals(await right.unary("Auth.AuthEnable", {}), {
      error: {
        code: "FAILED_PRECONDITION",
        message: "Authentication cannot be enabled: dkv keeps users and " +
          "roles, but does not check requests against them yet",
      },
    });
    const status = await right.ask("Auth.AuthStatus", {});
    assertEquals([status["enabled"], status["authRevision"]], [false, "8"]);
    await right.ask("KV.Put", { key: bytes("k"), value: bytes("v") });
  },
);

programTest(
  ["etcdctl"],
  "etcd users: what is bounded says its bound",
  async () => {
    const { TestCluster } = await import("./cluster.ts");
    await using dkv = await TestCluster.start({ nodes: 1 });
    const { code, stderr } = await run("etcdctl", [
      `--endpoints=${dkv.address("node1")}`,
      "role",
      "add",
      "r".repeat(257),
    ]);
    assertEquals(code, 1);
    assertStringIncludes(
      new TextDecoder().decode(stderr),
      "too long: 257 bytes, at most 256",
    );
  },
);
