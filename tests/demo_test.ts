/** The demo, as a person runs it: on nodes of its own, and on a cluster that runs already. */

import {
  assert,
  assertEquals,
  assertMatch,
  assertStringIncludes,
} from "@std/assert";
import { clusterTest } from "./cluster.ts";
import { CLUSTER_NEEDS, needs } from "./needs.ts";
import { type Outcome, outcomeOf } from "./outcome.ts";

const ROOT = decodeURIComponent(new URL("..", import.meta.url).pathname);
const DEMO = [
  "run",
  "-q",
  "--lock",
  "--frozen",
  "--no-prompt",
  "-P=demo",
  "scripts/demo.ts",
];

function demo(...args: readonly string[]): Promise<Outcome> {
  return outcomeOf([...DEMO, ...args]);
}

/** Directories that demos have made and not removed. */
function leftBehind(): string[] {
  try {
    return Array.from(Deno.readDirSync(`${ROOT}.tmp`), ({ name }) => name)
      .filter((name) => name.startsWith("demo-"));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

needs(
  CLUSTER_NEEDS,
  "demo: tells its story on nodes of its own and leaves nothing behind",
  async () => {
    const before = leftBehind();
    const { code, stdout, stderr } = await demo("--private");
    assertEquals({ code, stderr }, { code: 0, stderr: "" }, stdout);
    assertEquals(leftBehind(), before);
    // deno-lint-ignore no-control-regex
    assert(!/\x1b/.test(stdout), "no colours, since this is no terminal");
    assertMatch(stdout, /mars +rusty red +2 +\d+ +✓ +✓ +✓\n/);
    assertMatch(stdout, /now( +no such key){3}\n/);
    assertMatch(stdout, /(ann|bob) +node\d +lost +(ann|bob) has it since/);
    assertStringIncludes(stdout, "7 changes made, 7 seen");
    assertMatch(stdout, /kill -9 the leader, node\d/);
    assertMatch(stdout, /writes stood still for \d+\.\d\d s/);
    assertMatch(stdout, /has every acknowledged write: [\d,]+ writes, 0 missi/);
    assertMatch(stdout, /caught up \d+\.\d\d s after its start: same state/);
    assertMatch(stdout, /✓ 6 steps, every one read back/);
    assertEquals(stdout.match(/✗|\bat .*:\d+:\d+|\binfo\b|\bwarn\b/g), null);
  },
  { sanitizeOps: false, sanitizeResources: false },
);

clusterTest(
  "demo: on a cluster that runs already it kills nothing and leaves no key",
  {},
  async (cluster) => {
    const bytes = new TextEncoder().encode("kept");
    await cluster.call("node1", "KeyValue.Put", { key: bytes, value: bytes });
    const { code, stdout, stderr } = await demo(
      "--endpoints",
      cluster.addresses.join(","),
    );
    assertEquals({ code, stderr }, { code: 0, stderr: "" }, stdout);
    assertStringIncludes(stdout, "no node is killed");
    assertStringIncludes(stdout, "same applied index, same state on every");
    assertMatch(stdout, /✓ 5 steps, every one read back/);
    assertEquals(cluster.running(), cluster.ids);
    for (const { keys } of await cluster.agreed()) assertEquals(keys, 1);
  },
);

needs(
  CLUSTER_NEEDS,
  "demo: refuses what it does not understand",
  async () => {
    for (const args of [["--nodes=3"], ["--endpoints="], ["extra"]]) {
      const { code, stdout, stderr } = await demo(...args);
      assertEquals({ code, stderr }, { code: 2, stderr: "" });
      assertMatch(stdout, /^Usage: /);
    }
  },
);

needs(
  CLUSTER_NEEDS,
  "demo: says in one line that nobody answers",
  async () => {
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const { port } = listener.addr;
    listener.close();
    const { code, stdout, stderr } = await demo(
      `--endpoints=127.0.0.1:${port}`,
    );
    assertEquals({ code, stderr }, { code: 1, stderr: "" });
    assertMatch(stdout.trim(), /^✗ [^\n]*127\.0\.0\.1:\d+[^\n]*$/);
  },
);
