/** Export and import: byte for byte, nothing half done, and going on where it was. */

import {
  assertEquals,
  assertGreater,
  assertLess,
  assertMatch,
  assertStringIncludes,
} from "@std/assert";
import { clusterTest, eventually, type TestCluster } from "./cluster.ts";
import { endpoints, run, runOn, start } from "./dkv.ts";

clusterTest(
  "cli: export and import, bad lines, interruptions",
  { nodes: 1 },
  async (cluster) => {
    await badLines(cluster);
    await roundTrip(cluster);
    await interrupted(cluster);
  },
);

async function badLines(cluster: TestCluster): Promise<void> {
  const env = endpoints(cluster);
  const path = cluster.path("bad.jsonl");
  const good = '{"key":"a","value":"1"}';
  Deno.writeTextFileSync(path, `${good}\n${good}\n{"key":"b"}\n${good}\n`);
  const refused = await runOn(cluster, "import", path);
  assertEquals([refused.code, refused.out], [4, ""]);
  assertEquals(refused.err, `dkv: ${path}:3: there is no value\n`);
  // A file with a bad line is not imported at all.
  assertEquals((await runOn(cluster, "list")).code, 1);

  // Of a pipe, what came before the bad line is imported, and it says how to go on.
  const input = `${good}\n`.repeat(200) + "{\n";
  const piped = await run(["import", "-"], { env, input });
  assertEquals(piped.code, 4);
  assertStringIncludes(piped.err, "line 201: not JSON");
  const [, line] = piped.err.match(/--skip-lines (\d+)/) ?? [];
  assertGreater(Number(line), 0);
  assertLess(Number(line), 201);
}

async function roundTrip(cluster: TestCluster): Promise<void> {
  const on = (...args: string[]) => runOn(cluster, ...args);
  const env = endpoints(cluster);
  const path = cluster.path("records.jsonl");
  const lines = [
    '{"key":"a","value":"text"}',
    '{"key":"lines","value":"a\\nb\\t\\"c\\""}',
    '{"key":"empty","value":""}',
    '{"keyBase64":"/wA=","valueBase64":"AAEC/w=="}',
    '{"key":"ключ","value":"値 😀"}',
  ];
  const input = `\n${lines.join("\n")}\n\n{"key":"a","value":"later"}`;
  const first = await run(["import", "-"], { env, input });
  assertEquals([first.code, first.err], [0, ""]);
  assertMatch(first.out, /^6 records imported in /);
  const exported = await on("export", "--file", path);
  assertEquals([exported.code, exported.out], [0, ""]);
  assertMatch(exported.err, /^5 records exported in /);
  const text = Deno.readTextFileSync(path);
  // The last of two lines wins; keys come in the order of their bytes.
  const wanted = lines.map((line) => line.replace('"text"', '"later"'));
  assertEquals(text.trim().split("\n").sort(), wanted.sort());

  await on("del", "--from", "\u0001");
  assertEquals((await on("list")).code, 1);
  assertEquals((await on("import", path, "--json")).code, 0);
  const [all, part, nothing, listed] = await Promise.all([
    on("export"),
    on("export", "a"),
    on("export", "nobody"),
    on("list", "--json"),
  ]);
  assertEquals(all.out, text);
  assertEquals(part.out, '{"key":"a","value":"later"}\n');
  assertEquals(nothing.code, 1);
  // What `list` prints is as good.
  const again = await run(["import", "-"], { env, input: listed.out });
  assertEquals([again.code, again.err], [0, ""]);
  const left = [...Deno.readDirSync(cluster.path("."))].map(({ name }) => name);
  assertEquals(left.filter((name) => /progress|partial/.test(name)), []);
}

async function interrupted(cluster: TestCluster): Promise<void> {
  const env = endpoints(cluster);
  const path = cluster.path("many.jsonl");
  const count = 20_000;
  const value = "x".repeat(300);
  const records = Array.from(
    { length: count },
    (_, at) => JSON.stringify({ key: `many/${at}`, value }),
  );
  Deno.writeTextFileSync(path, `${records.join("\n")}\n`);
  const early = await run(["import", path, "--resume"], { env });
  assertEquals([early.code, early.out], [4, ""]);
  assertStringIncludes(early.err, "There is nothing to resume");

  const { keys: before } = await cluster.status("node1");
  const importing = start(["import", path], { env });
  const ended = importing.output();
  await eventually("the first record", async () => {
    const { keys } = await cluster.status("node1");
    return keys > before;
  });
  importing.kill("SIGINT");
  const { code, stderr } = await ended;
  const err = new TextDecoder().decode(stderr);
  assertEquals(code, 130, err);
  const [, upTo = ""] = err.match(/up to line (\d+); .* --resume\n$/) ?? [];
  assertGreater(Number(upTo), 0);
  assertLess(Number(upTo), count);

  const rest = await run(["import", path, "--resume", "--json"], { env });
  assertEquals([rest.code, rest.err], [0, ""]);
  assertEquals(JSON.parse(rest.out).records, count - Number(upTo));
  assertEquals((await cluster.status("node1")).keys, before + count);
  assertEquals((await run(["import", path, "--resume"], { env })).code, 4);
}
