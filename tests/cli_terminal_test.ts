/** The command line in a terminal, and the examples of its help, each of which runs. */

import {
  assert,
  assertEquals,
  assertGreater,
  assertMatch,
  assertStringIncludes,
} from "@std/assert";
import { existsSync } from "node:fs";
import { COMMANDS, specOf } from "../commands.ts";
import type { CommandName } from "../commands.ts";
import { TestCluster } from "./cluster.ts";
import {
  denoArgs,
  endpoints,
  inTerminal,
  ROOT,
  run,
  runOn,
  shellWord,
  Terminal,
  terminalTest,
} from "./dkv.ts";
import { tempDir } from "./needs.ts";

/** Lines of help that wait for somebody: `cli_coordination_test.ts` runs their like. */
const WAITING: readonly string[] = ["dkv elect team/lead worker-7"];

/** And what a node alone cannot do: see `cli_test.ts`. */
const NOT_ALONE: readonly string[] = ["dkv transfer-leader"];

/** What lines end with, if not with 0. */
const CODES: Readonly<Record<string, number>> = {
  "dkv elect team/lead --leader": 1,
};

/** What is to be seen of some of them, without colours. */
const SEEN: Readonly<Record<string, RegExp>> = {
  "dkv put greeting hello": /^revision \d+, version \d+\n$/,
  "dkv get greeting": /^hello\n$/,
  "dkv list --keys-only":
    /^greeting\n(.*\n)*logo\n(.*\n)*temperature\n(.*\n)*today\n/,
  "dkv watch --prefix gre --revision 1 --limit 1":
    /^\d+\tput\tgreeting\thello\n$/,
  "dkv incr visits": /^1\n$/,
  "dkv lease ttl $id --keys": /^\d+ ms of 60000 ms left\nworkers\/7\n$/,
  "dkv status": /^NODE +ADDRESS[^\n]*\nnode1 .*leader/,
  "dkv export > all.jsonl": /^[\d,]+ records? exported in [^\n]*\n$/m,
  "dkv import all.jsonl": /[\d,]+ records? imported in [^\n]*\n$/m,
  "dkv bench --clients 8 --seconds 0.5":
    /^OPERATION [^\n]*\nput +[1-9][^\n]*\nget +[1-9]/,
  'eval "$(dkv completions bash)"': /^$/,
};

/** Colours and what a meter draws over itself. */
// deno-lint-ignore no-control-regex -- what a terminal is told
const ESCAPES_REGEXP = /\x1b\[[0-9;]*[A-Za-z]|[^\n]*\r(?!\n)/g;

/** A shell in which `dkv` is the command, in a directory of the test's. */
function prelude(cluster: TestCluster): string {
  const words = ["deno", ...denoArgs([])].map(shellWord).join(" ");
  const bin = cluster.path("bin");
  // Made once: another shell may be reading it.
  if (!existsSync(bin)) {
    Deno.mkdirSync(bin);
    Deno.writeTextFileSync(`${bin}/dkv`, `#!/bin/sh\nexec ${words} "$@"\n`, {
      mode: 0o755,
    });
  }
  return `cd ${shellWord(cluster.path("."))}\nPATH=${shellWord(bin)}:$PATH\n`;
}

terminalTest("cli: in a terminal; every example of the help runs", async () => {
  await using cluster = await TestCluster.start({ nodes: 1 });
  await Promise.all([runHelp(cluster), look(cluster)]);
});

async function runHelp(cluster: TestCluster): Promise<void> {
  Deno.writeTextFileSync(cluster.path("README.md"), "logo");
  const skipped = [...WAITING, ...NOT_ALONE, ...COMMANDS.del.examples];
  const examples = (Object.keys(COMMANDS) as CommandName[]).map((name) =>
    specOf(name).examples.filter((line) => !skipped.includes(line))
  );
  const all = examples.flat();
  const readme = Deno.readTextFileSync(`${ROOT}README.md`);
  const [, section = ""] = readme.match(
    /^## Use it from a shell\n[\s\S]*?^```sh\n([\s\S]*?)\n```$/m,
  ) ?? [];
  const shown = section.split("\n");
  assertGreater(shown.length, 5);
  for (const line of [...Object.keys(SEEN), ...shown]) {
    assert(all.includes(line), `no example ${line}`);
  }
  // One after the other is slow: those that do not mind each other run side by side.
  await runOn(cluster, "put", "greeting", "hello");
  const half = Object.keys(COMMANDS).indexOf("lease");
  await Promise.all([
    runExamples(cluster, examples.slice(0, half).flat()),
    runExamples(cluster, examples.slice(half).flat()),
  ]);
  await runExamples(cluster, COMMANDS.del.examples);
}

async function runExamples(
  cluster: TestCluster,
  lines: readonly string[],
): Promise<void> {
  const script = lines.map((line, at) => `${line}\necho "<$?:${at}>"\n`);
  const path = cluster.path(`examples${lines.length}.sh`);
  Deno.writeTextFileSync(path, prelude(cluster) + script.join(""));
  const { screen } = await inTerminal(
    `bash ${shellWord(path)}`,
    endpoints(cluster),
  );
  let rest = screen.replace(ESCAPES_REGEXP, "");
  for (const [at, line] of lines.entries()) {
    const wanted = `<${CODES[line] ?? 0}:${at}>\n`;
    const end = rest.indexOf(wanted);
    assert(end >= 0, `${line}\n${rest}`);
    const part = rest.slice(0, end);
    assertMatch(part, SEEN[line] ?? /(?:)/, line);
    assert(!/^\s+at |Error/m.test(part), `${line}\n${part}`);
    rest = rest.slice(end + wanted.length);
  }
}

for (const shell of ["bash", "zsh", "fish"]) {
  terminalTest(`cli: ${shell} can read its completions`, async () => {
    await using dir = await tempDir();
    const path = `${dir.path}/completions`;
    Deno.writeTextFileSync(path, (await run(["completions", shell])).out);
    assertEquals(
      await inTerminal(`${shell} -n ${shellWord(path)}`),
      { code: 0, screen: "" },
    );
  }, { program: shell });
}

terminalTest("cli: in a terminal, Ctrl-C", async () => {
  await using cluster = await TestCluster.start({ nodes: 1 });
  await Promise.all([leads(cluster), holds(cluster)]);
  await serves(cluster);
});

/** A line of shell, in a terminal of its own. */
function sit(cluster: TestCluster, name: string, line: string): Terminal {
  const path = cluster.path(`${name}.sh`);
  Deno.writeTextFileSync(
    path,
    `unset NO_COLOR\n${prelude(cluster)}exec ${line}\n`,
  );
  return new Terminal(`exec bash ${shellWord(path)}`, endpoints(cluster));
}

/** Leads until Ctrl-C, and gives the leadership back. */
async function leads(cluster: TestCluster): Promise<void> {
  const terminal = sit(cluster, "elect", "dkv elect team worker-7");
  await terminal.screen.until(/token \d+/);
  const leader = await runOn(cluster, "elect", "team", "--leader");
  assertEquals([leader.code, leader.out], [0, "worker-7"]);
  await terminal.interrupt();
  const { code, screen } = await terminal.end();
  assertEquals(code, 0);
  assertMatch(
    screen,
    // deno-lint-ignore no-control-regex -- bold
    /^\x1b\[1mteam\/[0-9a-f]{16}\x1b\[22m\ttoken \d+\n(\^C)?$/,
  );
  assertEquals((await runOn(cluster, "elect", "team", "--leader")).code, 1);
}

/**
 * Ctrl-C reaches the command under a lock once, by way of the terminal, and `dkv` waits for how the
 * command takes it. SIGTERM comes to `dkv` alone, which passes it on: after what it did of the
 * Ctrl-C.
 */
async function holds(cluster: TestCluster): Promise<void> {
  const command = `let interrupts = 0;
    Deno.addSignalListener("SIGINT", () => {
      if (++interrupts === 1) Deno.kill(Deno.ppid, "SIGTERM");
    });
    Deno.addSignalListener("SIGTERM", () => {
      console.log(\`interrupts: \${interrupts}\`);
      Deno.exit(7);
    });
    setTimeout(() => Deno.exit(8), 20_000);
    console.log("ready");`;
  const path = cluster.path("command.ts");
  Deno.writeTextFileSync(path, command);
  const runs = `deno run -q --no-config --no-lock --allow-run`;
  const line = `dkv lock jobs/b -- ${runs} ${shellWord(path)}`;
  const terminal = sit(cluster, "lock", line);
  await terminal.screen.until(/ready/);
  await terminal.interrupt();
  const { code, screen } = await terminal.end();
  assertMatch(screen, /^ready\n(\^C)?interrupts: 1\n$/);
  assertEquals(code, 7);
  assertEquals((await runOn(cluster, "list", "jobs/b")).code, 1);
}

/** A node in the foreground. */
async function serves(cluster: TestCluster): Promise<void> {
  assertEquals((await cluster.stop("node1")).code, 0);
  const data = shellWord(cluster.dataDir("node1"));
  const config = shellWord(cluster.configPath);
  const line = `dkv node --id node1 --data ${data} --config ${config}`;
  const terminal = sit(cluster, "node", line);
  await terminal.screen.until(/listening on/);
  const put = await runOn(cluster, "put", "a", "b", "--timeout", "20s");
  assertEquals(put.code, 0, put.err);
  await terminal.interrupt();
  const { code, screen } = await terminal.end();
  assertEquals(code, 0, screen);
  assertMatch(screen, /stopped[^\n]*\n$/);
}

terminalTest("cli: in a terminal, leadership moves", async () => {
  await using cluster = await TestCluster.start();
  const [target = ""] = await cluster.followers();
  const move = `dkv transfer-leader ${target}`;
  const moved = await sit(cluster, "transfer", move).end();
  assertEquals(moved, { code: 0, screen: `${target} leads\n` });
  assertEquals(await cluster.leader(), target);
  const refused = await sit(cluster, "nobody", "dkv transfer-leader node9")
    .end();
  assertEquals(refused.code, 4);
  assertMatch(refused.screen, /^dkv: [^\n]*\(MEMBERSHIP_REFUSED\)\n$/);
});

/** Colour, escapes, a live table, a meter. */
async function look(cluster: TestCluster): Promise<void> {
  const env = endpoints(cluster);
  let scripts = 0;
  const show = async (line: string, more: Record<string, string> = {}) => {
    // Whoever runs the tests may want no colour.
    const clean = "NO_COLOR" in more ? "" : "unset NO_COLOR\n";
    const text = `${clean}${prelude(cluster)}${line}`;
    const path = cluster.path(`line${++scripts}.sh`);
    Deno.writeTextFileSync(path, text);
    return await inTerminal(`bash ${shellWord(path)}`, {
      ...env,
      TERM: "xterm",
      ...more,
    });
  };
  const put = `printf 'a\\033[2Jb\\377' | dkv put odd -`;
  assertEquals((await show(`${put} > /dev/null`)).screen, "");
  // Nothing that is stored can steer the terminal.
  const { screen } = await show("dkv get odd");
  assertEquals(screen, "a\\x1b[2Jb\\xff\n");
  const [coloured, live, ...plain] = await Promise.all([
    show("dkv status"),
    show("timeout -s INT 3 dkv status --watch --interval 100ms"),
    show("dkv status", { NO_COLOR: "1" }),
    show("dkv status", { TERM: "dumb" }),
  ]);
  assertStringIncludes(coloured.screen, "\x1b[32mnode1");
  for (const { code, screen } of plain) {
    assert(!screen.includes("\x1b"), JSON.stringify(screen));
    assertEquals(code, 0);
  }
  // A table that is drawn over the one before.
  assert(live.screen.split("\x1b[H\x1b[J").length >= 3, live.screen);

  // The meter is for people, and gone when it is done.
  const records = Array.from(
    { length: 5000 },
    (_, at) => JSON.stringify({ key: `m/${at}`, value: "x" }),
  );
  Deno.writeTextFileSync(cluster.path("m.jsonl"), `${records.join("\n")}\n`);
  const meter = await show("dkv import m.jsonl");
  assertMatch(meter.screen, /importing \[[█─]{24}\] +\d+ %/);
  assertMatch(meter.screen, /K5,000 records imported in [^\n]*\n$/);
  const script = `eval "$(dkv completions bash)"
    COMP_WORDS=(dkv lease gr) COMP_CWORD=2; _dkv; echo "\${COMPREPLY[*]}"
    COMP_WORDS=(dkv st) COMP_CWORD=1; _dkv; echo "\${COMPREPLY[*]}"
    COMP_WORDS=(dkv get --se) COMP_CWORD=2; _dkv; echo "\${COMPREPLY[*]}"`;
  assertEquals(
    (await show(script)).screen,
    "grant\nstatus\n--serializable\n",
  );
}
