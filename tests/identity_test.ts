/** Whose data directory it is, and who may speak: as functions, and with real nodes. */

import {
  assert,
  assertEquals,
  assertMatch,
  assertNotEquals,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { DkvError, type ErrorCode } from "../errors.ts";
import {
  type IdentityOptions,
  invitedMember,
  isInvited,
  isInvitedByAddress,
  isRejoined,
  KnownMembers,
  nodeOfMember,
  openIdentity,
  quarantine,
  randomHex,
} from "../identity.ts";
import { NodeProcess, type NodeSpec } from "../launch.ts";
import { parseConfig } from "../config.ts";
import { clusterTest, eventually, TestCluster } from "./cluster.ts";
import { CLUSTER_NEEDS, needs, tempDir } from "./needs.ts";

function options(
  directory: string,
  changes: Partial<IdentityOptions> = {},
): IdentityOptions {
  return {
    directory,
    cluster: "test",
    nodes: ["node1", "node2"],
    nodeId: "node1",
    rejoin: false,
    ...changes,
  };
}

/** Runs what must be refused, with a code and a message that names all of `says`. */
function assertRefuses(
  run: () => unknown,
  { code, says }: { code: ErrorCode; says: readonly string[] },
): void {
  const error = assertThrows(run, DkvError);
  assertEquals(error.code, code, error.message);
  for (const part of says) assertStringIncludes(error.message, part);
}

Deno.test("identity: a member's name tells its node", () => {
  assertEquals(nodeOfMember("node1"), "node1");
  assertEquals(nodeOfMember("node1/7f3a00112233"), "node1");
  assert(!isRejoined("node1"));
  assert(isRejoined("node1/7f3a00112233"));
  for (const node of ["node1", "127.0.0.1:50054", "[::1]:1"]) {
    const invited = invitedMember(node);
    assertEquals(nodeOfMember(invited), node);
    assert(isInvited(invited));
    assertEquals(isInvitedByAddress(invited), node !== "node1");
  }
  assert(!isInvitedByAddress("node1/7f3a00112233"));
});

Deno.test("identity: random names are random and as long as asked", () => {
  assertMatch(randomHex(16), /^[0-9a-f]{32}$/);
  assertNotEquals(randomHex(16), randomHex(16));
});

const DISK: readonly ["read", "write"] = ["read", "write"];

needs(
  DISK,
  "identity: a directory keeps the identity it was given",
  async () => {
    await using dir = await tempDir();
    const directory = `${dir.path}/a/b`;
    const first = openIdentity(options(directory));
    assertEquals(first.memberId, "node1");
    assertMatch(first.incarnation, /^[0-9a-f]{32}$/);
    assertEquals(openIdentity(options(directory)), first);
    const other = openIdentity(options(`${dir.path}/c`));
    assertNotEquals(other.incarnation, first.incarnation);
    const { mode } = Deno.statSync(directory);
    assertEquals((mode ?? 0) & 0o777, 0o700);
  },
);

needs(
  DISK,
  "identity: the directory of another is refused by name",
  async () => {
    await using dir = await tempDir();
    openIdentity(options(dir.path));
    const cases: [Partial<IdentityOptions>, string[]][] = [
      [{ nodeId: "node2" }, ["node1", "node2"]],
      [{ cluster: "other" }, ["test", "other"]],
      [{ rejoin: true }, ["--rejoin", "empty", "node1"]],
    ];
    for (const [changes, says] of cases) {
      assertRefuses(() => openIdentity(options(dir.path, changes)), {
        code: "IDENTITY_MISMATCH",
        says: [dir.path, ...says],
      });
    }
  },
);

needs(
  DISK,
  "identity: a directory keeps its founders, whoever is listed later",
  async () => {
    await using dir = await tempDir();
    const path = `${dir.path}/identity.json`;
    const first = openIdentity(options(dir.path));
    assertEquals(first.founders, ["node1", "node2"]);
    const grown = options(dir.path, { nodes: ["node3", "node2", "node1"] });
    assertEquals(openIdentity(grown), first);
    // A directory of before they were kept: the list must still be the one that it was made for.
    const { founders: _, ...older } = first;
    Deno.writeTextFileSync(path, JSON.stringify(older));
    assertRefuses(() => openIdentity(grown), {
      code: "IDENTITY_MISMATCH",
      says: [dir.path, "test", "other nodes"],
    });
    assertEquals(openIdentity(options(dir.path)), first);
    assertEquals(openIdentity(grown), first);
    const wrong = { ...first, founders: ["node1"] };
    Deno.writeTextFileSync(path, JSON.stringify(wrong));
    assertRefuses(() => openIdentity(grown), {
      code: "DATA_CORRUPT",
      says: [path, "founders"],
    });
  },
);

needs(DISK, "identity: a directory that rejoined stays one", async () => {
  await using dir = await tempDir();
  const first = openIdentity(options(dir.path, { rejoin: true }));
  assertEquals(first.memberId, `node1/${first.incarnation.slice(0, 12)}`);
  // The flag may stay in a start script.
  assertEquals(openIdentity(options(dir.path, { rejoin: true })), first);
  assertEquals(openIdentity(options(dir.path)), first);
});

needs(DISK, "identity: damage is refused, never overwritten", async () => {
  await using dir = await tempDir();
  const path = `${dir.path}/identity.json`;
  const identity = openIdentity(options(dir.path));
  const damaged: [string, ErrorCode][] = [
    ["", "DATA_CORRUPT"],
    ["{", "DATA_CORRUPT"],
    ["null", "DATA_CORRUPT"],
    ["[]", "DATA_CORRUPT"],
    ["{}", "DATA_CORRUPT"],
    [JSON.stringify({ ...identity, incarnation: "" }), "DATA_CORRUPT"],
    [JSON.stringify({ ...identity, memberId: "node2" }), "DATA_CORRUPT"],
    [JSON.stringify({ ...identity, format: 2 }), "IDENTITY_MISMATCH"],
  ];
  for (const [text, code] of damaged) {
    Deno.writeTextFileSync(path, text);
    assertRefuses(() => openIdentity(options(dir.path)), {
      code,
      says: [dir.path],
    });
    assertEquals(Deno.readTextFileSync(path), text);
  }
  Deno.removeSync(path);
  for (const name of ["default.db", "default.db-log.12"]) {
    Deno.writeTextFileSync(`${dir.path}/${name}`, "");
    assertRefuses(() => openIdentity(options(dir.path)), {
      code: "DATA_CORRUPT",
      says: [dir.path, `${name} `, "identity.json"],
    });
    Deno.removeSync(`${dir.path}/${name}`);
  }
});

needs(
  DISK,
  "identity: a directory marked as damaged stays closed",
  async () => {
    await using dir = await tempDir();
    openIdentity(options(dir.path));
    quarantine(dir.path, "default.db is damaged: start with --rejoin");
    assertRefuses(() => openIdentity(options(dir.path)), {
      code: "DATA_CORRUPT",
      says: ["default.db is damaged: start with --rejoin"],
    });
  },
);

needs(
  DISK,
  "identity: a member with a new data directory is refused (raft-pitfalls P13)",
  async () => {
    await using dir = await tempDir();
    const known = new KnownMembers(dir.path);
    assertEquals(known.admit("node2", "aa"), null);
    assertEquals(known.admit("node2", "aa"), null);
    assertStringIncludes(known.admit("node2", "bb") ?? "", "--rejoin");
    assertEquals(known.admit("node2/bb", "bb"), null);
    // After a restart too.
    const again = new KnownMembers(dir.path);
    assertEquals(again.admit("node2", "aa"), null);
    assertStringIncludes(again.admit("node2", "cc") ?? "", "node2");
    for (const text of ["", "[]", "null", '{"node2":1}', '{"node2":""}']) {
      Deno.writeTextFileSync(`${dir.path}/peers.json`, text);
      assertRefuses(() => new KnownMembers(dir.path), {
        code: "DATA_CORRUPT",
        says: [`${dir.path}/peers.json`],
      });
    }
  },
);

// ------------------------------------------------------------------ real nodes

/** Runs a node that must refuse to start; returns the one line in which it says why. */
async function refusalOf(spec: NodeSpec): Promise<string> {
  const process = new NodeProcess(spec);
  const timer = setTimeout(() => process.kill("SIGKILL"), 20_000);
  const { code, signal } = await process.exited;
  clearTimeout(timer);
  const text = process.lines.join("\n");
  assertEquals([code, signal], [1, null], text);
  assertEquals(process.lines.length, 1, text);
  return text;
}

function specOf(
  cluster: TestCluster,
  id: string,
  changes: Partial<NodeSpec> & { text?: (text: string) => string } = {},
): NodeSpec {
  const { text = (same: string) => same, ...rest } = changes;
  const path = cluster.path(`${id}-${crypto.randomUUID()}.json`);
  Deno.writeTextFileSync(
    path,
    text(Deno.readTextFileSync(cluster.configPath)),
  );
  const config = parseConfig(Deno.readTextFileSync(path), path);
  return { config, id, dataDir: cluster.dataDir(id), ...rest };
}

clusterTest(
  "identity: a node says in one line why it cannot start, and ends with 1",
  {},
  async (cluster) => {
    // The data directory is in use, and so is the address.
    const arriving = `${cluster.dataDir("node1")}/incoming-0a.db`;
    Deno.writeTextFileSync(arriving, "");
    const used = await refusalOf(specOf(cluster, "node1"));
    assertStringIncludes(used, cluster.dataDir("node1"));
    assertMatch(used, /another process/);
    // Nothing of the process that runs was touched.
    assertEquals(cluster.running().length, 3);
    assert(Deno.statSync(arriving).isFile);

    await cluster.stop("node3");
    const starts: [NodeSpec, RegExp][] = [
      [
        specOf(cluster, "node3", { dataDir: cluster.dataDir("node1") }),
        /node1.*node3/,
      ],
      [
        specOf(cluster, "node3", {
          text: (text) => text.replace('"test"', '"other"'),
        }),
        /cluster test.*other/,
      ],
      [
        specOf(cluster, "node3", {
          text: (text) => text.replace('"node2"', '"node4"'),
        }),
        /other nodes/,
      ],
      [
        specOf(cluster, "node3", { extraArgs: ["--rejoin"] }),
        /--rejoin.*empty/,
      ],
      [
        specOf(cluster, "node3", {
          text: (text) =>
            text.replace(cluster.address("node3"), cluster.address("node2"))
              .replace(cluster.address("node2"), "127.0.0.1:1"),
        }),
        /Cannot listen on .*another process/,
      ],
    ];
    for (const [spec, says] of starts) assertMatch(await refusalOf(spec), says);

    const path = `${cluster.dataDir("node3")}/identity.json`;
    const identity = Deno.readTextFileSync(path);
    Deno.writeTextFileSync(path, identity.slice(0, 40));
    assertMatch(await refusalOf(specOf(cluster, "node3")), /damaged/);
    Deno.writeTextFileSync(path, identity);
    quarantine(cluster.dataDir("node3"), "found damaged before");
    assertMatch(
      await refusalOf(specOf(cluster, "node3")),
      /found damaged before/,
    );
    Deno.removeSync(`${cluster.dataDir("node3")}/DAMAGED`);
    await cluster.restart("node3");
    await cluster.agreed();
  },
);

needs(
  CLUSTER_NEEDS,
  "identity: nodes of two clusters refuse each other, and both say why",
  async () => {
    await using cluster = await TestCluster.start();
    await using foreign = await TestCluster.start();
    // The leader's second entry says which cluster it is.
    await eventually(
      "node1 knows its cluster id",
      async () => (await foreign.status("node1")).appliedIndex >= 2,
    );
    await foreign.stop("node1");
    // The same names, another cluster: its node2 and node3 think that our node1 is theirs.
    const text = (text: string) =>
      text.replace(foreign.address("node2"), cluster.address("node2"))
        .replace(foreign.address("node3"), cluster.address("node3"));
    const stray = new NodeProcess(specOf(foreign, "node1", { text }));
    try {
      const line = await stray.waitForLine("cluster id", 20_000);
      assertStringIncludes(line, "another cluster");
      const theirs = await cluster.node("node2")
        .waitForLine("cluster id", 20_000);
      assertStringIncludes(theirs, "node1");
      assertEquals((await cluster.agreed()).length, 3);
    } finally {
      await stray.stop();
    }
    // Another name: refused before anything else.
    const named = new NodeProcess(specOf(foreign, "node1", {
      text: (same) => text(same).replace('"test"', '"other"'),
      dataDir: foreign.path("fresh"),
    }));
    try {
      const line = await named.waitForLine('"other"', 20_000);
      assertStringIncludes(line, '"test"');
      await cluster.node("node3").waitForLine('"other"', 20_000);
    } finally {
      await named.stop();
    }
    await cluster.agreed();
  },
  { sanitizeOps: false, sanitizeResources: false },
);
