/** What README.md says: its program runs, its tables are those of the code, its files exist. */

import { assert, assertEquals, assertMatch } from "@std/assert";
import { SETTINGS } from "../config.ts";
import { ERROR_HELP } from "../errors.ts";
import { clusterTest } from "./cluster.ts";
import { needs } from "./needs.ts";
import { outcomeOf } from "./outcome.ts";

const ROOT = decodeURIComponent(new URL("..", import.meta.url).pathname);
const README = "README.md";

function read(): string {
  return Deno.readTextFileSync(`${ROOT}${README}`);
}

clusterTest(
  "readme: the program runs and says what it should",
  {},
  async (cluster) => {
    const [, program = ""] = read().match(/^```ts\n([\s\S]*?)^```$/m) ?? [];
    const endpoints = "127.0.0.1:50051,127.0.0.1:50052,127.0.0.1:50053";
    assert(program.includes(endpoints) && program.includes('"./mod.ts"'));
    const path = cluster.path("program.ts");
    Deno.writeTextFileSync(
      path,
      program.replace(endpoints, cluster.addresses.join(","))
        .replace("./mod.ts", new URL("../mod.ts", import.meta.url).href),
    );
    const { code, stdout, stderr } = await outcomeOf(
      ["run", "-q", "--no-prompt", "--check", "-P=client", path],
    );
    assertEquals(stderr, "");
    assertEquals(code, 0);
    assertEquals(
      stdout,
      [
        "revision 2, version 1",
        "user/ann Ann 2",
        "the seat is ann's",
        "user/ann",
        "put user/ann 2",
        "",
      ].join("\n"),
    );
    for (const { keys } of await cluster.agreed()) assertEquals(keys, 1);
  },
);

needs(["read"], "readme: the table of settings is that of the code", () => {
  const rows = Array.from(
    read().matchAll(/^\| `(\w+)` +\| (\d+) +\| (\d+) +\| (\d+) +\|/gm),
    ([, name, ...numbers]) => [name, ...numbers.map(Number)],
  );
  const wanted = Object.entries(SETTINGS).map(([name, setting]) => [
    name,
    setting.default,
    setting.min,
    setting.max,
  ]);
  assertEquals(rows, wanted);
});

needs(["read"], "readme: the table of errors is that of the code", () => {
  const rows = Array.from(
    read().matchAll(/^\| `([A-Z_]+)` +\| (.+?) +\| (.+?) +\|$/gm),
    ([, ...cells]) => cells,
  );
  const wanted = Object.entries(ERROR_HELP).map(([code, help]) => [
    code,
    help.means,
    help.advice,
  ]);
  assertEquals(rows, wanted);
});

needs(["read"], "readme: the files and tasks that documents name exist", () => {
  const { tasks } = JSON.parse(Deno.readTextFileSync(`${ROOT}deno.json`));
  for (const name of [README, "ARCHITECTURE.md"]) {
    const text = Deno.readTextFileSync(`${ROOT}${name}`);
    const files = text.matchAll(/`((?:[\w.]+\/)*\w+\.(?:ts|md|json|proto))`/g);
    for (const [, path = ""] of files) {
      // What a node makes in its own directory.
      if (["identity.json", "peers.json"].includes(path)) continue;
      assert(Deno.statSync(`${ROOT}${path}`).isFile, `${name} names ${path}`);
    }
    for (
      const [, task = ""] of text.matchAll(/(?:deno|@2\.9\.3) task ([a-z]+)/g)
    ) {
      assertMatch(Object.keys(tasks).join(" "), new RegExp(`\\b${task}\\b`));
    }
  }
});
