/**
 * What the documentation shows works: every `ts` block in the docstrings of what `mod.ts` exports,
 * and those of README.md, run one after the other on one cluster. README's `js` block for Node is
 * run by `deno task npm`.
 */

import { assert, assertEquals } from "@std/assert";
import { ENVIRONMENT } from "../launch.ts";
import { clusterTest, freeAddresses, type TestCluster } from "./cluster.ts";
import { needs } from "./needs.ts";
import { outcomeOf } from "./outcome.ts";

const ROOT = decodeURIComponent(new URL("..", import.meta.url).pathname);
/** How many there are at least, so that none is overlooked. Only grows. */
const EXAMPLES_MIN = 34;
/** An example that takes longer does not end. */
const EXAMPLE_MS_MAX = 60_000;

/** Says which example is next, for when it fails, and runs it. */
const RUN = `
export async function run(place: string, load: () => Promise<unknown>) {
  console.log("# " + place);
  const late = () => { throw new Error("It does not end"); };
  const timer = setTimeout(late, ${EXAMPLE_MS_MAX});
  await load();
  clearTimeout(timer);
}`;

/** Methods of the client that need no example of their own. Only shrinks. */
const METHODS_WITHOUT: readonly string[] = [
  // Not for users.
  "over",
  // In the example of `grant`.
  "revoke",
  "keepAlive",
  "timeToLive",
  // In every example, as `await using`.
  "close",
];

interface Example {
  /** Where it begins: `client.ts:245`. */
  readonly place: string;
  readonly text: string;
}

/** The blocks of a docstring, or with no `*` in front those of a text. */
function examplesOf(text: string, path: string): Example[] {
  const blocks = text.matchAll(
    /^( *\*|)( ?)```ts\n((?:\1.*\n)*?)\1\2```$/gm,
  );
  return Array.from(blocks, ({ index, 1: margin = "", 3: block = "" }) => {
    const line = text.slice(0, index).split("\n").length;
    const lines = block.split("\n").map((line) =>
      line.slice(margin === "" ? 0 : margin.length + 1)
    );
    return { place: `${path}:${line}`, text: lines.join("\n") };
  });
}

/** A module and all that it exports on behalf of others. */
function exporters(path: string): string[] {
  const exported = read(path).matchAll(
    /^export (?:type )?(?:\*|\{[^}]*\}) from "\.\/(\w+\.ts)";$/gm,
  );
  const others = Array.from(exported, ([, other = ""]) => exporters(other));
  return [...new Set([path, ...others.flat()])];
}

function read(path: string): string {
  return Deno.readTextFileSync(`${ROOT}${path}`);
}

function allExamples(): Example[] {
  const paths = ["README.md", ...exporters("mod.ts")];
  return paths.flatMap((path) => examplesOf(read(path), path));
}

/** An example as it runs here: on this cluster, with this checkout's modules. */
function placed({ text }: Example, cluster: TestCluster): string {
  // A node of its own needs an address and a directory of its own.
  const own = text.includes("startNode") ? freeAddresses(1) : undefined;
  const addresses = own ?? cluster.addresses;
  return text
    .replace(
      /127\.0\.0\.1:5005(\d)/g,
      (_, nth) => addresses[Number(nth) - 1] ?? "",
    )
    .replace(`"data/node1"`, JSON.stringify(cluster.path("example")))
    .replace(`"@dkv/dkv"`, `"./mod.ts"`)
    .replace(
      /"\.\/(\w+\.ts)"/g,
      (_, path) => JSON.stringify(new URL(`../${path}`, import.meta.url).href),
    );
}

clusterTest("docs: every example runs", {}, async (cluster) => {
  const program = [RUN];
  for (const example of allExamples()) {
    // Named so that an error of the type checker tells which one it is.
    const file = `${example.place.replace(":", "_")}.ts`;
    Deno.writeTextFileSync(cluster.path(file), placed(example, cluster));
    program.push(`await run("${example.place}", () => import("./${file}"));`);
  }
  const path = cluster.path("examples.ts");
  Deno.writeTextFileSync(path, program.join("\n"));
  const { code, stdout, stderr } = await outcomeOf([
    ...["run", "-q", "--no-prompt", "--lock", "--frozen", "--check"],
    // What the docstring of `startNode` says that a node needs; a client needs less.
    "--allow-read",
    `--allow-write=${cluster.path("example")}`,
    "--allow-net=127.0.0.1",
    `--allow-env=${ENVIRONMENT.join(",")}`,
    path,
  ], { env: { NO_COLOR: "1" } });
  const last = stdout.split("\n").findLast((line) => line.startsWith("# "));
  const where = last === undefined ? "before the first" : `in ${last.slice(2)}`;
  assertEquals(stderr, "", where);
  assertEquals(code, 0, where);
});

needs(["read"], "docs: no example is overlooked", () => {
  const { length } = allExamples();
  assert(length >= EXAMPLES_MIN, `${length} examples`);
  const blocks = ["README.md", ...exporters("mod.ts")]
    .flatMap((path) => read(path).match(/```ts$/gm) ?? []);
  assertEquals(length, blocks.length);
});

needs(["read"], "docs: every method of the client has an example", () => {
  const methods = Array.from(
    read("client.ts").matchAll(
      /^ {2}\/\*\*((?:(?!\*\/)[^])*)\*\/\n {2}(?:static |async )*(\w+)\(/gm,
    ),
    ([, doc = "", name = ""]) => ({ name, isShown: doc.includes("```ts\n") }),
  );
  const bare = methods.filter(({ isShown }) => !isShown);
  assertEquals(bare.map(({ name }) => name), METHODS_WITHOUT);
});

Deno.test("docs: examples are found in docstrings and in texts", () => {
  const docstring = [
    "  /**",
    "   * Text.",
    "   *",
    "   * ```ts",
    "   * if (a) {",
    "   *",
    "   *   b();",
    "   * }",
    "   * ```",
    "   */",
  ].join("\n");
  assertEquals(examplesOf(docstring, "a.ts"), [
    { place: "a.ts:4", text: "if (a) {\n\n  b();\n}\n" },
  ]);
  const text = "Text.\n\n```ts\na;\n```\n\n```js\nb;\n```\n";
  assertEquals(examplesOf(text, "a.md"), [{ place: "a.md:3", text: "a;\n" }]);
});
