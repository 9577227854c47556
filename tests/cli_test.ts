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
import { completions } from "../completions.ts";
import { clusterTest, type TestCluster } from "./cluster.ts";
import { endpoints, Follower, ROOT, run, runOn, runRaw, start } from "./dkv.ts";
import { CLUSTER_NEEDS, needs, tempDir } from "./needs.ts";

clusterTest(
  "cli: keys and values, watches and transactions",
  { nodes: 1 },
  async (cluster) => {
    const first = keys(cluster).then(() => changes(cluster));
    await Promise.all([first, transactions(cluster)]);
  },
);

async function keys(cluster: TestCluster): Promise<void> {
  const on = (...args: string[]) => runOn(cluster, ...args);
  const env = endpoints(cluster);
  const put = await on("put", "user/1", "ann");
  assertEquals([put.code, put.err], [0, ""]);
  assertMatch(put.out, /^revision \d+, version 1\n$/);
  const json = JSON.parse((await on("put", "user/2", "5", "--json")).out);
  assertEquals(json.version, 1);

  const bytes = Uint8Array.from({ length: 256 }, (_, at) => at);
  const [ann, five, past, missing, input, file, dash] = await Promise.all([
    on("get", "user/1"),
    // `deno task dkv -- get …` passes the two dashes on; 5 stays a text.
    on("--", "get", "user/2", "--json"),
    on("get", "user/1", "--revision", `${json.revision - 1}`, "--serializable"),
    on("get", "nobody"),
    run(["put", "raw", "-"], { env, input: bytes }),
    on("put", "file", "--file", `${ROOT}LICENSE`),
    on("put", "user/3", "--", "-"),
  ]);
  // In a pipe nothing is added to the value.
  assertEquals(ann, { code: 0, out: "ann", err: "" });
  const entry = JSON.parse(five.out);
  assertEquals([entry.key, entry.value], ["user/2", "5"]);
  assertEquals(past.out, "ann");
  assertEquals([missing.code, missing.out], [1, ""]);
  assertEquals(missing.err, "dkv: there is no key nobody\n");
  for (const { code, err } of [input, file, dash]) {
    assertEquals([code, err], [0, ""]);
  }

  const [raw, base64, license, all, first, reversed] = await Promise
    .all([
      runRaw(["get", "raw"], { env }),
      on("get", "raw", "--json"),
      on("get", "file"),
      on("list", "user/"),
      on("list", "--keys-only", "--limit", "1"),
      on("list", "--keys-only", "--from", "t", "--to", "user/3", "--reverse"),
    ]);
  assertEquals(raw.out, bytes);
  const { value, valueBase64 } = JSON.parse(base64.out);
  assertEquals(valueBase64, btoa(String.fromCharCode(...bytes)));
  assertEquals(value, undefined);
  assertEquals(license.out, Deno.readTextFileSync(`${ROOT}LICENSE`));
  assertEquals(all.out, "user/1\tann\nuser/2\t5\nuser/3\t-\n");
  assertEquals(first.out, "file\n");
  assertEquals(reversed.out, "user/2\nuser/1\n");
}

async function changes(cluster: TestCluster): Promise<void> {
  const on = (...args: string[]) => runOn(cluster, ...args);
  const [visits, word, large, absent, deleted] = await Promise.all([
    on("incr", "visits", "41", "--json"),
    on("incr", "user/3"),
    on("put", "k".repeat(5000), "x"),
    on("put", "k", "--file", "no/such/file"),
    on("del", "user/1"),
  ]);
  assertEquals(JSON.parse(visits.out).value, "41");
  assertEquals([word.code, word.out], [4, ""]);
  assertStringIncludes(word.err, "VALUE_INVALID");
  assertEquals([large.code, large.out], [4, ""]);
  assertMatch(large.err, /^dkv: .*5000 bytes.*\(KEY_TOO_LARGE\)\n$/);
  assertEquals(absent.err, "dkv: There is no file no/such/file\n");
  assertEquals(absent.code, 4);
  assertStringIncludes(deleted.out, "1 key deleted");
  const [again, rest, more] = await Promise.all([
    on("del", "user/1"),
    on("del", "--prefix", "user/", "--json"),
    on("incr", "visits"),
  ]);
  assertEquals(again.code, 1);
  assertEquals(JSON.parse(rest.out).deleted, 2);
  assertEquals(more.out, "42\n");
}

async function transactions(cluster: TestCluster): Promise<void> {
  const env = endpoints(cluster);
  const on = (...args: string[]) => runOn(cluster, ...args);
  const watching = start(
    ["watch", "--prefix", "seat/", "--revision", "1", "--json"],
    { env },
  );
  const seat = [
    "--if",
    "missing(seat/12A)",
    "--then",
    'put seat/12A "ann lee"',
    "--else",
    "get seat/12A",
  ];
  const booked = await on("txn", ...seat);
  assertEquals([booked.code, booked.err], [0, ""]);
  assertMatch(booked.out, /^done, revision \d+\nput: version 1\n$/);
  const taken = await on("txn", ...seat);
  assertEquals([taken.code, taken.err], [1, ""]);
  assertMatch(taken.out, /^condition not met, revision \d+\nget: ann lee\n$/);
  const lines = `# leaves the plane
    if value(seat/12A) = "ann lee"
    if version(seat/12A) = 1
    then del seat/12A

    then add seats/free 1
    then list seats/`;
  const left = await run(["txn", "-", "--json"], { env, input: lines });
  assertEquals([left.code, left.err], [0, ""]);
  const { succeeded, results } = JSON.parse(left.out);
  assert(succeeded);
  assertEquals(results.map(({ type }: { type: string }) => type), [
    "del",
    "modify",
    "list",
  ]);
  assertEquals(results[1].value, "1");
  assertEquals(results[2].entries[0].key, "seats/free");
  const wrong = await run(["txn", "-"], { env, input: "then get a\nfi b" });
  assertEquals([wrong.code, wrong.out], [2, ""]);
  assertStringIncludes(wrong.err, "line 2: a line begins with if");

  const follower = new Follower(watching.stdout);
  await follower.until(/"delete"/);
  watching.kill("SIGINT");
  assertEquals((await watching.status).code, 0);
  await watching.stderr.cancel();
  const changes = (await follower.rest()).trim().split("\n")
    .map((line) => JSON.parse(line));
  assertEquals(changes.map(({ type, key, value }) => [type, key, value]), [
    ["put", "seat/12A", "ann lee"],
    ["delete", "seat/12A", undefined],
  ]);
}

clusterTest(
  "cli: status shows every node, reached or not; leadership moves",
  {},
  async (cluster) => {
    const env = endpoints(cluster);
    const leader = await cluster.leader();
    const [target = "", dead = ""] = await cluster.followers();
    // One address is enough to learn of the others.
    const one = { DKV_ENDPOINTS: cluster.address(leader) };
    const moved = await run(["transfer-leader", target], { env: one });
    assertEquals(moved, { code: 0, out: `${target} leads\n`, err: "" });
    assertEquals(await cluster.leader(), target);
    const [nobody, anybody] = await Promise.all([
      run(["transfer-leader", "node9"], { env }),
      run(["transfer-leader", "--json"], { env }),
    ]);
    assertEquals([nobody.code, nobody.out], [4, ""]);
    assertStringIncludes(nobody.err, "MEMBERSHIP_REFUSED");
    assertEquals([anybody.code, anybody.err], [0, ""]);
    const { leader: next } = JSON.parse(anybody.out);
    assert(next !== target && cluster.ids.includes(next), next);

    await cluster.kill(dead);
    await cluster.leader(dead);
    const live = ["status", "--watch", "--interval", "100", "--json"];
    const watching = start(live, { env });
    const table = await run(["status"], { env: one });
    assertEquals([table.code, table.err], [0, ""]);
    const [heading = "", ...rows] = table.out.trimEnd().split("\n");
    assertMatch(
      heading,
      /^NODE +ADDRESS +ROLE +TERM +INDEX +LAG +REVISION +KEYS +HASH +SIZE +VERSION$/,
    );
    assertEquals(rows.length, 3);
    assertEquals(rows.filter((row) => /\bleader\b/.test(row)).length, 1);
    const [lost] = rows.filter((row) => row.includes("unreachable"));
    assertStringIncludes(lost ?? "", cluster.address(dead));
    const ids = cluster.running();
    for (const id of ids) assert(rows.some((row) => row.startsWith(id)), id);

    const follower = new Follower(watching.stdout);
    await follower.until(/(.*\n){6}/);
    watching.kill("SIGINT");
    assertEquals((await watching.status).code, 0);
    await watching.stderr.cancel();
    const json = (await follower.rest()).trim().split("\n").slice(0, 3)
      .map((line) => JSON.parse(line));
    const known = json.map(({ nodeId }) => nodeId).filter(Boolean);
    assertEquals(known.sort(), [...ids].sort());
    assertEquals(json.filter(({ error }) => error).length, 1);
    for (const { nodeId, lag } of json) {
      if (nodeId !== undefined) assert(lag >= 0 && lag < 10, `lag ${lag}`);
    }
  },
);

needs(CLUSTER_NEEDS, "cli: wrong usage is 2, nobody there is 3", async () => {
  const usage: [string, RegExp][] = [
    ["", /^dkv: a distributed key-value store/],
    ["bogus", /There is no command bogus\. See: dkv help$/],
    ["put key", /put takes KEY and VALUE/],
    [
      "get key --serialisable",
      /did you mean --serializable\? See: dkv get --help$/,
    ],
    ["get key --revision -1", /There is no option -1|--revision takes/],
    ["get key --revision=x", /--revision takes a whole number, not x/],
    ["get key --timeout=5y", /--timeout takes a time like/],
    ["del key --prefix p", /del takes a KEY, or --prefix/],
    ["watch", /watch takes a KEY/],
    ["txn --then grab", /there is no grab, only put, get/],
    ["lease renew 5", /lease takes grant TIME/],
    ["lock", /lock takes NAME/],
    ["import - --resume", /takes --skip-lines/],
    ["bench --clients 0", /--clients takes a whole number from 1/],
    ["completions tcsh", /bash, zsh, fish, not tcsh/],
    [
      "get key --endpoints ,",
      /--endpoints: Endpoints are HOST:PORT, .* not nothing/,
    ],
    ["get key --endpoints 127.0.0.1:99999", /not 127\.0\.0\.1:99999\. See/],
    ["get key --endpoints 127.0.0.1:0", /not 127\.0\.0\.1:0\. See/],
    ["status --endpoints a:1,b:port", /HOST:PORT, .* not b:port\. See/],
    ["list --endpoints http://a:1", /HOST:PORT, .* not http:\/\/a:1\. See/],
    ["watch key --endpoints ::1", /HOST:PORT, .* not ::1\. See/],
    ["node --data x", /Which node\?/],
    ["node --id node1", /Where does it keep its data/],
    ["node --id node1 --data x --log-level loud", /The log level is one of/],
  ];
  const check = async ([line, wanted]: [string, RegExp]) => {
    const args = line.split(" ").filter((word) => word !== "");
    const { code, out, err } = await run(args);
    assertEquals([code, out], [2, ""], `dkv ${line}: ${err}`);
    assertMatch(line === "" ? err : err.trimEnd(), wanted);
  };
  while (usage.length > 0) await Promise.all(usage.splice(0, 4).map(check));
  assertEquals((await run(["get", ""])).code, 2);
  const variable = await run(["get", "key"], {
    env: { DKV_ENDPOINTS: "127.0.0.1:70000" },
  });
  assertEquals(variable.code, 2);
  assertStringIncludes(variable.err, "DKV_ENDPOINTS: Endpoints are HOST:PORT");
  const nobody = ["--endpoints", "127.0.0.1:1", "--timeout", "300"];
  const commands = [["get", "key"], ["put", "key", "value"], ["list"]];
  const failed = await Promise.all(
    commands.map((args) => run([...args, ...nobody])),
  );
  for (const { code, err } of failed) {
    assertEquals(code, 3, err);
    assertMatch(err, /^dkv: Cannot reach .*127\.0\.0\.1:1.*\(UNREACHABLE\)\n$/);
  }
  assertEquals((await run(["status", ...nobody])).code, 3);
});

needs(CLUSTER_NEEDS, "cli: a directory is no file to read", async () => {
  await using dir = await tempDir();
  const nobody = ["--endpoints", "127.0.0.1:1"];
  const lines = [
    ["put", "key", "--file", dir.path],
    ["import", dir.path],
    ["txn", "--file", dir.path],
  ];
  for (const line of lines) {
    const { code, out, err } = await run([...line, ...nobody]);
    assertEquals([code, out], [4, ""]);
    assertEquals(err, `dkv: ${dir.path} is a directory\n`);
  }
});

needs(
  CLUSTER_NEEDS,
  "cli: a defect calls itself one, in one line",
  async () => {
    await using dir = await tempDir();
    const path = `${dir.path}/program.ts`;
    const { href } = new URL("../cli.ts", import.meta.url);
    await Deno.writeTextFile(
      path,
      `import { main } from "${href}";
    Deno.permissions.revokeSync = () => {
      throw new TypeError("all is\\nlost");
    };
    Deno.exit(await main(["version"]));`,
    );
    const { code, stdout, stderr } = await new Deno.Command("deno", {
      args: ["run", "-q", "--no-prompt", "-P=dkv", path],
      cwd: ROOT,
    }).output();
    assertEquals([code, stdout.length], [4, 0]);
    assertMatch(
      new TextDecoder().decode(stderr),
      /^dkv: a defect in dkv, please report it: TypeError: all is lost at program\.ts:\d+:\d+\n$/,
    );
  },
);

needs(
  CLUSTER_NEEDS,
  "cli: a signal ends the wait for a connection",
  async () => {
    await using dir = await tempDir();
    const file = `${dir.path}/one.jsonl`;
    Deno.writeTextFileSync(file, '{"key":"a","value":"b"}\n');
    const commands: [string[], Deno.Signal, number][] = [
      [["watch", "x"], "SIGINT", 130],
      [["watch", "x"], "SIGTERM", 143],
      [["lock", "x", "--", "true"], "SIGINT", 130],
      [["elect", "x", "y"], "SIGINT", 130],
      [["elect", "x", "--leader"], "SIGINT", 130],
      [["lease", "keep-alive", "5"], "SIGTERM", 143],
      [["bench"], "SIGINT", 130],
      [["import", file], "SIGINT", 130],
    ];
    const interrupt = async (
      [[command = "", ...args], signal, wanted]: (typeof commands)[number],
      { isGone = false } = {},
    ) => {
      // Commands say nothing while they wait, so they are heard calling.
      const silent = new Silent();
      const where = ["--endpoints", silent.address, "--timeout", "30s"];
      const child = start([command, ...where, ...args]);
      const ended = child.output();
      await silent.called();
      if (isGone) silent.close();
      const startMs = performance.now();
      child.kill(signal);
      const { code, signal: by, stderr } = await ended;
      const err = new TextDecoder().decode(stderr);
      assertEquals([code, by, err], [wanted, null, ""], command);
      const tookMs = performance.now() - startMs;
      assert(tookMs < 2000, `${command} took ${tookMs} ms`);
      if (!isGone) silent.close();
    };
    for (const command of commands) await interrupt(command);
    // A port at which nobody listens.
    await interrupt([["watch", "x"], "SIGINT", 130], { isGone: true });
  },
);

/** A port at which somebody listens, who says nothing. */
class Silent {
  readonly address: string;
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #open: Deno.Conn[] = [];

  constructor() {
    this.address = `127.0.0.1:${this.#listener.addr.port}`;
  }

  /** Resolves when somebody calls. */
  async called(): Promise<void> {
    this.#open.push(await this.#listener.accept());
  }

  close(): void {
    this.#listener.close();
    for (const connection of this.#open) connection.close();
  }
}

needs(CLUSTER_NEEDS, "cli: help and version", async () => {
  const help = await run(["help"]);
  assertEquals([help.code, help.err], [0, ""]);
  for (const word of ["transfer-leader", "--endpoints", "Exit codes"]) {
    assertStringIncludes(help.out, word);
  }
  const get = await run(["get", "--help"]);
  assertEquals(await run(["help", "get"]), get);
  assertStringIncludes(get.out, "Examples:\n  dkv get greeting\n");
  const version = await run(["version"]);
  assertMatch(version.out, /^dkv \d+\.\d+\.\d+, Deno \S+\n$/);
  assertEquals(await run(["--version"]), version);
  const json = await run(["version", "--json"]);
  assertEquals([json.code, json.err], [0, ""]);
  const { version: own, deno } = JSON.parse(json.out);
  assertEquals(`dkv ${own}, Deno ${deno}\n`, version.out);
});

needs(CLUSTER_NEEDS, "cli: completions go to a pipe as they are", async () => {
  for (const shell of ["bash", "zsh", "fish"]) {
    const { code, out, err } = await run(["completions", shell]);
    assertEquals([code, err], [0, ""]);
    assertEquals(out, `${completions(shell)}\n`);
  }
});

clusterTest("cli: bench in a pipe", { nodes: 1 }, async (cluster) => {
  const short = ["bench", "--clients", "4", "--seconds", "0.2"];
  const text = await runOn(cluster, ...short);
  assertEquals([text.code, text.err], [0, ""]);
  const number = "[\\d.,]*[1-9][\\d.,]*";
  const row = (name: string) => `${name}(?: +${number}){4}\\n`;
  assertMatch(
    text.out,
    new RegExp(
      `^OPERATION +PER SECOND +P50 MS +P99 MS +MAX MS\\n${row("put")}${
        row("get")
      }$`,
    ),
  );
  const json = await runOn(cluster, ...short, "--value-bytes", "7", "--json");
  assertEquals([json.code, json.err], [0, ""]);
  const rows = json.out.trimEnd().split("\n").map((line) => JSON.parse(line));
  assertEquals(rows.map(({ operation }) => operation), ["put", "get"]);
  for (const { count, failed, perSecond, p50Ms, p99Ms, maxMs } of rows) {
    assert(count > 0 && perSecond > 0, json.out);
    assert(0 < p50Ms && p50Ms <= p99Ms && p99Ms <= maxMs, json.out);
    assertEquals(failed, 0);
  }
  // It cleans up after itself.
  assertEquals((await runOn(cluster, "list")).code, 1);
});

needs(
  CLUSTER_NEEDS,
  "cli: a missing permission is named, one that is not needed is given up",
  async () => {
    const nobody = ["--endpoints", "127.0.0.1:1"];
    const file = ["export", "--file", "x", "--timeout", "300"];
    const { code, err } = await run([...file, ...nobody], {
      permissions: "client",
    });
    assertEquals(code, 3, err);
    const read = await run(["put", "a", "--file", "LICENSE", ...nobody], {
      permissions: "client",
    });
    assertEquals(read.code, 4);
    assertMatch(read.err, /^dkv: a permission is missing: .*--allow-read.*\n$/);

    const states = async (command: string) => {
      const program = `
        const { main } = await import("${new URL(
        "../cli.ts",
        import.meta.url,
      )}");
        await main(["${command}"]);
        for (const name of ["run", "write"]) {
          console.log(Deno.permissions.querySync({ name }).state);
        }`;
      await using dir = await tempDir();
      const path = `${dir.path}/program.ts`;
      await Deno.writeTextFile(path, program);
      const { stdout } = await new Deno.Command("deno", {
        args: ["run", "-q", "--no-prompt", "-P=dkv", path],
        cwd: ROOT,
        stderr: "null",
      }).output();
      return new TextDecoder().decode(stdout).trim().split("\n").slice(-2);
    };
    assertEquals(await states("version"), ["prompt", "prompt"]);
    assertEquals(await states("lock"), ["granted", "prompt"]);
    assertEquals(await states("import"), ["prompt", "granted"]);
  },
);

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
