/**
 * etcdctl 3.4 on dkv: every subcommand does and prints what it does on a real etcd.
 */

import { assert, assertEquals } from "@std/assert";
import { eventually, TestCluster } from "./cluster.ts";
import {
  commandText,
  compareCommands,
  Ctl,
  normal,
  tellCompared,
} from "./etcd/ctl.ts";
import { COMMANDS, LEFT_OUT } from "./etcd/ctl_commands.ts";
import { Etcd, programTest, run } from "./etcd/program.ts";
import { tempDir } from "./needs.ts";

/** etcdctl looks for new keys to mirror as they come; a mirror that does not work stays empty. */
const MIRROR_MS_MAX = 10_000;

programTest(
  ["etcd", "etcdctl"],
  "etcdctl: every subcommand prints the same as on etcd",
  async () => {
    await using etcd = await Etcd.start({ name: "node1" });
    await using cluster = await TestCluster.start({ nodes: 1 });
    await using dirs = await tempDir();
    const [left, right] = ["etcd", "dkv"].map((name) => `${dirs.path}/${name}`);
    assert(left !== undefined && right !== undefined);
    await Promise.all([left, right].map((dir) => Deno.mkdir(dir)));
    const differences = await compareCommands(COMMANDS, [
      new Ctl(etcd.address, { dir: left }),
      new Ctl(cluster.address("node1"), { dir: right }),
    ]);
    assertEquals(differences.length, 0, tellCompared(differences));
  },
);

Deno.test("etcdctl: ids of any length compare equal", () => {
  const ids = [2n ** 64n - 1n, 1234567890123456n, 2n ** 42n];
  const printed = ids.map((id) => {
    const hex = id.toString(16);
    return [
      `${hex}, started, node1`,
      `| ${hex} | started |`,
      `{"leader":${id},"members":[{"ID":${id}}]}`,
      `"ID" : ${id}`,
    ].map(normal);
  });
  assertEquals(printed[1], printed[0]);
  assertEquals(printed[2], printed[0]);
  // A number that is not an id stays.
  assertEquals(normal('"count":1234567890'), '"count":1234567890');
});

programTest(["etcdctl"], "etcdctl: no subcommand is forgotten", async () => {
  const { stdout } = await run("etcdctl", ["--help"]);
  const [, list = ""] =
    /COMMANDS:\n([\s\S]*?)\n\nOPTIONS/.exec(new TextDecoder().decode(stdout)) ??
      [];
  const subcommands = list.split("\n").map((line) =>
    line.trim().split(/\t/)[0]?.trim() ?? ""
  );
  assert(subcommands.includes("lease keep-alive"), list);
  const used = COMMANDS.flat().map(commandText);
  assertEquals(
    subcommands.filter((subcommand) =>
      !(subcommand in LEFT_OUT) &&
      !used.some((command) => `${command} `.startsWith(`${subcommand} `))
    ),
    [],
  );
});

programTest(
  ["etcd", "etcdctl"],
  "etcdctl: make-mirror copies from etcd and to etcd",
  async () => {
    await using etcd = await Etcd.start();
    await using cluster = await TestCluster.start({ nodes: 1 });
    const dkv = cluster.address("node1");
    await Promise.all([mirror(etcd.address, dkv), mirror(dkv, etcd.address)]);
  },
);

/** Mirrors a prefix of its own: what is there before, what comes later, and what is deleted. */
async function mirror(from: string, to: string): Promise<void> {
  const prefix = `from ${from}/`;
  const on = async (address: string, ...args: string[]) => {
    const outcome = await run("etcdctl", [`--endpoints=${address}`, ...args]);
    return new TextDecoder().decode(outcome.stdout);
  };
  await on(from, "put", `${prefix}before`, "1");
  const copier = new Deno.Command("etcdctl", {
    args: [`--endpoints=${from}`, "make-mirror", to, `--prefix=${prefix}`],
    env: { ETCDCTL_API: "3" },
    stdout: "null",
    stderr: "null",
  }).spawn();
  const arrives = (expected: string) =>
    eventually(
      `${JSON.stringify(expected)} at ${to}`,
      async () => await on(to, "get", "--prefix", prefix) === expected,
      MIRROR_MS_MAX,
    );
  try {
    await arrives(`${prefix}before\n1\n`);
    await on(from, "put", `${prefix}later`, "2");
    await arrives(`${prefix}before\n1\n${prefix}later\n2\n`);
    await on(from, "del", `${prefix}before`);
    await arrives(`${prefix}later\n2\n`);
  } finally {
    copier.kill("SIGKILL");
    await copier.status;
  }
}
