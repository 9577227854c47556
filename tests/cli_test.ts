/**
 * The `dkv` command as a person starts it: output, exit codes, and no stack traces.
 *
 * @module
 */

import {
  assert,
  assertEquals,
  assertMatch,
  assertStringIncludes,
} from "@std/assert";
import { clusterTest, type TestCluster } from "./cluster.ts";
import { CLUSTER_NEEDS, needs, tempDir } from "./needs.ts";

const ROOT = decodeURIComponent(new URL("..", import.meta.url).pathname);

interface Result {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

function start(args: readonly string[]): Deno.ChildProcess {
  return new Deno.Command("deno", {
    // As `deno task dkv` does.
    args: [
      "run",
      "-q",
      "--lock",
      "--frozen",
      "--no-prompt",
      "--cached-only",
      "-P=dkv",
      "cli.ts",
      ...args,
    ],
    cwd: ROOT,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

async function run(args: readonly string[]): Promise<Result> {
  const { code, stdout, stderr } = await start(args).output();
  const decoder = new TextDecoder();
  const result = {
    code,
    out: decoder.decode(stdout),
    err: decoder.decode(stderr),
  };
  assert(!/^\s+at /m.test(result.err), `a stack trace:\n${result.err}`);
  return result;
}

function runOn(cluster: TestCluster, ...args: string[]): Promise<Result> {
  return run([...args, "--endpoints", cluster.addresses.join(",")]);
}

clusterTest(
  "cli: puts, gets, deletes and lists",
  { nodes: 1 },
  async (cluster) => {
    const on = (...args: string[]) => runOn(cluster, ...args);
    const put = await on("put", "user/1", "ann");
    assertEquals([put.code, put.err], [0, ""]);
    assertMatch(put.out, /^revision \d+, version 1\n$/);
    const json = JSON.parse((await on("put", "user/2", "5", "--json")).out);
    assertEquals(json.version, 1);

    assertEquals(await on("get", "user/1"), { code: 0, out: "ann\n", err: "" });
    // `deno task dkv -- get …` passes the two dashes on; 5 stays a text.
    const entry = JSON.parse((await on("--", "get", "user/2", "--json")).out);
    assertEquals([entry.key, entry.value], ["user/2", "5"]);
    const past = ["get", "user/1", "--revision", String(json.revision - 1)];
    assertEquals((await on(...past, "--serializable")).out, "ann\n");
    const missing = await on("get", "nobody");
    assertEquals([missing.code, missing.out], [1, ""]);
    assertStringIncludes(missing.err, "nobody");

    const all = await on("list");
    assertEquals(all.out, "user/1\tann\nuser/2\t5\n");
    const keys = await on("list", "user/", "--keys-only", "--limit", "1");
    assertEquals(keys.out, "user/1\n");
    assertEquals((await on("list", "nobody")).code, 1);

    assertStringIncludes((await on("del", "user/1")).out, "1 key deleted");
    assertEquals((await on("del", "user/1")).code, 1);
    const rest = await on("del", "--prefix", "user/", "--json");
    assertEquals(JSON.parse(rest.out).deleted, 1);
  },
);

clusterTest("cli: what is refused", { nodes: 1 }, async (cluster) => {
  const large = await runOn(cluster, "put", "k".repeat(5000), "x");
  assertEquals([large.code, large.out], [4, ""]);
  assertMatch(large.err, /^dkv: .*5000 bytes.*\(KEY_TOO_LARGE\)\n$/);
  const future = await runOn(cluster, "get", "k", "--revision", "99999");
  assertEquals(future.code, 4);
  assertStringIncludes(future.err, "REVISION_FUTURE");
});

clusterTest(
  "cli: watches until it is told to stop",
  { nodes: 1 },
  async (cluster) => {
    await runOn(cluster, "put", "w/1", "a");
    const endpoints = ["--endpoints", cluster.addresses.join(",")];
    const from = ["--prefix", "w/", "--revision", "1", "--json"];
    const watching = start(["watch", ...from, ...endpoints]);
    const lines = watching.stdout.pipeThrough(new TextDecoderStream());
    const reader = lines.getReader();
    let text = "";
    const readUntil = async (wanted: string) => {
      while (!text.includes(wanted)) {
        const { value, done } = await reader.read();
        assert(!done, `the watch ended: ${text}`);
        text += value;
      }
    };
    await readUntil('"w/1"');
    await runOn(cluster, "del", "w/1");
    await readUntil('"delete"');
    watching.kill("SIGINT");
    assertEquals((await watching.status).code, 0);
    await reader.cancel();
    await watching.stderr.cancel();
    const changes = text.trim().split("\n").map((line) => JSON.parse(line));
    assertEquals(changes.map(({ type, key }) => [type, key]), [
      ["put", "w/1"],
      ["delete", "w/1"],
    ]);
  },
);

clusterTest(
  "cli: status shows every node, reached or not",
  {},
  async (cluster) => {
    const [dead = ""] = await cluster.followers();
    await cluster.kill(dead);
    const table = await runOn(cluster, "status");
    assertEquals([table.code, table.err], [0, ""]);
    const [heading = "", ...rows] = table.out.trimEnd().split("\n");
    assertMatch(heading, /^NODE +ADDRESS +ROLE +TERM +APPLIED/);
    assertEquals(rows.length, 3);
    assertEquals(rows.filter((row) => /\bleader\b/.test(row)).length, 1);
    const [lost] = rows.filter((row) => row.includes("unreachable"));
    assertStringIncludes(lost ?? "", cluster.address(dead));
    const ids = cluster.running();
    for (const id of ids) assert(rows.some((row) => row.startsWith(id)), id);

    const json = (await runOn(cluster, "status", "--json")).out.trim().split(
      "\n",
    )
      .map((line) => JSON.parse(line));
    assertEquals(json.map(({ nodeId }) => nodeId).filter(Boolean), ids);
    assertEquals(json.filter(({ error }) => error).length, 1);
  },
);

needs(CLUSTER_NEEDS, "cli: wrong usage is 2, nobody there is 3", async () => {
  const usage = [
    [],
    ["bogus"],
    ["put", "key"],
    ["put", "key", "value", "more"],
    ["get"],
    ["get", ""],
    ["get", "key", "--bogus"],
    ["get", "key", "--revision", "-1"],
    ["get", "key", "--revision=x"],
    ["del"],
    ["del", "key", "--prefix", "p"],
    ["del", "--prefix", ""],
    ["watch"],
    ["node", "--data", "x"],
    ["node", "--id", "node1"],
    ["node", "--id", "node1", "--data", "x", "--log-level", "loud"],
  ];
  for (const args of usage) {
    const { code, out, err } = await run(args);
    assertEquals([code, out], [2, ""], `dkv ${args.join(" ")}: ${err}`);
    assertStringIncludes(err, "dkv");
  }
  const nobody = ["--endpoints", "127.0.0.1:1", "--timeout", "300"];
  for (const args of [["get", "key"], ["put", "key", "value"], ["list"]]) {
    const { code, err } = await run([...args, ...nobody]);
    assertEquals(code, 3, err);
    assertMatch(err, /^dkv: Cannot reach 127\.0\.0\.1:1: .*\(UNREACHABLE\)\n$/);
  }
  assertEquals((await run(["status", ...nobody])).code, 3);
});

needs(CLUSTER_NEEDS, "cli: help and version", async () => {
  const help = await run(["help"]);
  assertEquals([help.code, help.err], [0, ""]);
  for (const word of ["put KEY VALUE", "--endpoints", "Exit codes"]) {
    assertStringIncludes(help.out, word);
  }
  assertEquals((await run(["get", "--help"])).out, help.out);
  assertMatch((await run(["version"])).out, /^dkv \d+\.\d+\.\d+, Deno \S+\n$/);
});

clusterTest(
  "cli: a node stops when it is told to",
  { nodes: 1 },
  async (cluster) => {
    assertEquals(await cluster.stop("node1"), { code: 0, signal: null });
    await cluster.restart("node1");
    assertEquals(await cluster.kill("node1", "SIGINT"), {
      code: 0,
      signal: null,
    });
  },
);

needs(
  CLUSTER_NEEDS,
  "cli: a node that cannot start says why in one line",
  async () => {
    await using dir = await tempDir();
    const config = `${dir.path}/nodes.json`;
    await Deno.writeTextFile(config, '{ "cluster": "x" }');
    const launch = async (flags: string[], ...args: string[]) => {
      const { code, stderr } = await new Deno.Command("deno", {
        args: [
          "run",
          "-q",
          "--no-prompt",
          "--cached-only",
          ...flags,
          "cli.ts",
          "node",
          ...args,
        ],
        cwd: ROOT,
        stdin: "null",
        stdout: "null",
        stderr: "piped",
      }).output();
      return { code, err: new TextDecoder().decode(stderr) };
    };
    const args = ["--id", "node1", "--data", `${dir.path}/data`, "--config"];
    const wrong = await launch(["-P=compile", "--allow-sys"], ...args, config);
    assertEquals(wrong.code, 1, wrong.err);
    assertMatch(wrong.err, /^dkv: .*nodes\.json: nodes: missing.*\n$/);
    const absent = await launch(
      ["-P=compile", "--allow-sys"],
      ...args,
      `${config}x`,
    );
    assertEquals(absent.code, 1, absent.err);
    assertMatch(absent.err, /^dkv: .*nodes\.jsonx: no such file.*\n$/);
    const refused = await launch([], ...args, config);
    assertEquals(refused.code, 1, refused.err);
    assertMatch(refused.err, /^dkv: a permission is missing: .*\n$/);
  },
);
