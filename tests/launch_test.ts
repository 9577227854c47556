/**
 * The launcher: which flags a node gets, and that it follows and stops what it started. The node
 * here is a small program that stands in for `cli.ts`; `deno`, its permissions and signals are real.
 *
 * @module
 */

import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { parseConfig } from "../config.ts";
import { DkvError } from "../errors.ts";
import {
  ENVIRONMENT,
  exitText,
  LISTENING,
  nodeArgs,
  nodeFlags,
  NodeProcess,
  type NodeSpec,
  stopAll,
  taskArgs,
} from "../launch.ts";
import { type Need, needs, type TempDir, tempDir } from "./needs.ts";

const LAUNCH_NEEDS: readonly Need[] = ["read", "write", "run"];

const CONFIG = JSON.stringify({
  cluster: "dkv",
  nodes: [1, 2, 3].map((n) => ({
    id: `node${n}`,
    address: `127.0.0.${n < 3 ? 1 : 2}:${50050 + n}`,
  })),
});

/** Says what it may do, then runs until SIGTERM. */
const WELL_BEHAVED = `
  Deno.addSignalListener("SIGTERM", () => { console.log("bye"); Deno.exit(0); });
  const at = (flag) => Deno.args[Deno.args.indexOf(flag) + 1];
  const data = at("--data");
  const may = (descriptor) => Deno.permissions.querySync(descriptor).state;
  console.log(JSON.stringify({
    args: Deno.args,
    own: may({ name: "net", host: "127.0.0.1:50051" }),
    peer: may({ name: "net", host: "127.0.0.2:50053" }),
    otherPort: may({ name: "net", host: "127.0.0.2:50054" }),
    otherHost: may({ name: "net", host: "127.0.0.3:50051" }),
    allNet: may({ name: "net" }),
    readData: may({ name: "read", path: data + "/x" }),
    writeData: may({ name: "write", path: data + "/x" }),
    readConfig: may({ name: "read", path: at("--config") }),
    writeConfig: may({ name: "write", path: at("--config") }),
    readAbove: may({ name: "read", path: data + "/.." }),
    readHome: may({ name: "read", path: "/etc/passwd" }),
    grpcVariable: may({ name: "env", variable: "GRPC_TRACE" }),
    otherVariable: may({ name: "env", variable: "HOME" }),
    run: may({ name: "run" }),
    sys: may({ name: "sys" }),
    ffi: may({ name: "ffi" }),
  }));
  console.error("listening on nothing");
  setInterval(() => {}, 1000);
`;

async function spec(dir: TempDir, program: string): Promise<NodeSpec> {
  const path = `${dir.path}/nodes.json`;
  await Deno.writeTextFile(path, CONFIG);
  await Deno.writeTextFile(`${dir.path}/stub.js`, program);
  return {
    config: parseConfig(CONFIG, path),
    id: "node1",
    dataDir: `${dir.path}/data, of node1`,
    program: `${dir.path}/stub.js`,
  };
}

Deno.test("launch: a node gets four permissions, each scoped", () => {
  const config = parseConfig(CONFIG, "c.json");
  const flags = nodeFlags({ config, id: "node1", dataDir: "a,b" });
  assertEquals(flags.map((flag) => flag.split("=")[0]), [
    "--allow-net",
    "--allow-read",
    "--allow-write",
    "--allow-env",
  ]);
  assertEquals(
    flags[0],
    "--allow-net=127.0.0.1,127.0.0.2",
  );
  assertStringIncludes(flags[1] ?? "", "--allow-read=a,,b,c.json,");
  assertEquals(flags[2], "--allow-write=a,,b");
  assertEquals(flags[3], `--allow-env=${ENVIRONMENT.join(",")}`);
  const args = nodeArgs({ config, id: "node1", dataDir: "d" });
  const granted = args.filter((arg) =>
    /^(-A|-[RWNES]\b|--allow|-P|--perm)/.test(arg)
  );
  assertEquals(granted, nodeFlags({ config, id: "node1", dataDir: "d" }));
});

Deno.test("launch: the two dashes of a task are no argument", () => {
  assertEquals(taskArgs(["--", "--id", "x"]), ["--id", "x"]);
  assertEquals(taskArgs(["--id", "--"]), ["--id", "--"]);
});

needs(LAUNCH_NEEDS, "launch: a node runs under exactly its flags", async () => {
  await using dir = await tempDir();
  const node = new NodeProcess(await spec(dir, WELL_BEHAVED));
  try {
    await node.waitForLine(LISTENING, 20_000);
    const line = await node.waitForLine("{", 1000);
    // Only who may do everything may read it there.
    const read = `Deno.readTextFileSync("/proc/${node.pid}/environ")`;
    const { stdout } = await new Deno.Command("deno", {
      args: ["eval", `console.log(${read})`],
    }).output();
    const environment = new TextDecoder().decode(stdout);
    assertStringIncludes(environment, "MALLOC_ARENA_MAX=2\0");
    const { dataDir, config } = node.spec;
    assertEquals(JSON.parse(line), {
      args: [
        "node",
        "--id",
        "node1",
        "--config",
        config.path,
        "--data",
        dataDir,
      ],
      own: "granted",
      peer: "granted",
      otherPort: "granted",
      otherHost: "prompt",
      allNet: "prompt",
      readData: "granted",
      writeData: "granted",
      readConfig: "granted",
      writeConfig: "prompt",
      readAbove: "prompt",
      readHome: "prompt",
      grpcVariable: "granted",
      otherVariable: "prompt",
      run: "prompt",
      sys: "prompt",
      ffi: "prompt",
    });
  } finally {
    const [exit] = await stopAll([node]);
    assertEquals(exit, { code: 0, signal: null });
  }
  assertEquals(node.lines.at(-1), "bye");
  node.kill("SIGTERM");
});

needs(
  LAUNCH_NEEDS,
  "launch: a node that ends is reported with its last words",
  async () => {
    await using dir = await tempDir();
    const node = new NodeProcess(
      await spec(dir, `console.error("no way"); Deno.exit(3);`),
    );
    let ended = 0;
    node.follow((line) => ended += line === null ? 1 : 0);
    const error = await assertRejects(
      () => node.waitForLine(LISTENING, 20_000),
      DkvError,
      `node1 did not print "listening on" before it ended with exit code 3`,
    );
    assertStringIncludes(error.message, "no way");
    assertEquals([node.exit, ended], [{ code: 3, signal: null }, 1]);
    await assertRejects(
      () => node.waitForLine("x", 20_000),
      DkvError,
      "code 3",
    );
  },
);

needs(
  LAUNCH_NEEDS,
  "launch: a node that does not stop is killed, a stopped one too",
  async () => {
    await using dir = await tempDir();
    const deaf = `
    Deno.addSignalListener("SIGTERM", () => console.log("no"));
    console.log("listening on"); setInterval(() => {}, 1000);`;
    const node = new NodeProcess(await spec(dir, deaf));
    await node.waitForLine(LISTENING, 20_000);
    await assertRejects(() => node.waitForLine("never", 50), DkvError, "50 ms");
    node.kill("SIGSTOP");
    const exit = await node.stop(300);
    assertEquals(exitText(exit), "SIGKILL");
    assert(node.lines.includes("no"));
  },
);

needs(
  LAUNCH_NEEDS,
  "launch: what a node prints is kept within bounds",
  async () => {
    await using dir = await tempDir();
    const chatty = `
    console.log("é".repeat(100_000));
    for (let at = 0; at < 5000; at++) console.log("line " + at);
    Deno.stdout.writeSync(new TextEncoder().encode("last, unfinished"));`;
    const node = new NodeProcess(await spec(dir, chatty));
    const seen: string[] = [];
    node.follow((line) => line !== null && seen.push(line));
    await node.exited;
    assertEquals([seen.length, node.lines.length], [5002, 2000]);
    assertEquals(seen[0], "é".repeat(4000));
    assertEquals(seen.slice(-2), ["line 4999", "last, unfinished"]);
  },
);
