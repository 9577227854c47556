/**
 * The npm package of the client, as far as it can be looked at without Node: `deno task npm` runs it.
 */

import { assert, assertEquals, assertMatch } from "@std/assert";
import { needs, type TempDir, tempDir } from "./needs.ts";
import { cannotFetch, type Outcome, outcomeOf } from "./outcome.ts";

const ROOT = decodeURIComponent(new URL("..", import.meta.url).pathname);
const CHECKED = ["-q", "--lock", "--frozen"];
/** The bundler's own packages; see `scripts/npm/bundle.ts`. */
const TOOLS = ["-q", "--config=scripts/npm/deno.json"];

function deno(...args: readonly string[]): Promise<Outcome> {
  return outcomeOf(args, { env: { NO_COLOR: "1" } });
}

/** True if the bundler cannot be fetched, which a step that is ignored then tells. */
async function isMissing(t: Deno.TestContext): Promise<boolean> {
  const args = ["cache", ...TOOLS, "--frozen", "scripts/npm/bundle.ts"];
  return await cannotFetch(t, await deno(...args));
}

function read(dir: TempDir, name: string): string {
  return Deno.readTextFileSync(`${dir.path}/npm/${name}`);
}

/** The names that a module exports at run time. */
async function exportsOf(path: string): Promise<string[]> {
  return Object.keys(await import(`file://${path}`)).sort();
}

/** Every file of a directory and of those in it. */
function filesIn(dir: string, prefix = ""): string[] {
  return Array.from(
    Deno.readDirSync(dir),
    ({ name, isDirectory }) =>
      isDirectory
        ? filesIn(`${dir}/${name}`, `${prefix}${name}/`)
        : [`${prefix}${name}`],
  ).flat().sort();
}

function looksAtFiles(dir: TempDir): void {
  assertEquals(filesIn(`${dir.path}/npm`), [
    "LICENSE",
    "README.md",
    "client.d.ts",
    "client.js",
    "package.json",
    "proto/kvstore.proto",
  ]);
  const imports = JSON.parse(Deno.readTextFileSync(`${ROOT}imports.json`));
  const { version, license } = JSON.parse(
    Deno.readTextFileSync(`${ROOT}deno.json`),
  );
  const manifest = JSON.parse(read(dir, "package.json"));
  assertEquals(manifest.name, "@dkv/client");
  assertEquals(manifest.version, version);
  assertEquals(manifest.license, license);
  assertEquals(manifest.type, "module");
  assertEquals(
    Object.entries(manifest.dependencies).map(([name, range]) =>
      `npm:${name}@${String(range).replace(/^\^/, "")}`
    ),
    ["@grpc/grpc-js", "@grpc/proto-loader"].map((name) =>
      imports.imports[name]
    ),
  );
  const { types, default: code } = manifest.exports["."];
  assertEquals([types, code], ["./client.d.ts", "./client.js"]);
}

/** What Node 20 would not understand, and what says too little of a type. */
function looksAtCode(dir: TempDir): void {
  const code = withoutComments(read(dir, "client.js"));
  assertEquals(code.match(/\bDeno\b|\bPromise\.withResolvers\b/g), null);
  assertEquals(code.match(/\bawait using\b|\baccessor\b/g), null);
  const types = withoutComments(read(dir, "client.d.ts"));
  assertEquals(types.match(/.*(\bany\b|\bgrpc\b|\bEndpoints?\b).*/g), null);
  assertMatch(types, /^export declare class Client /m);
  assertMatch(types, /^export declare function connect\(/m);
}

/** The bundle does what its modules do, and finds its proto file beside itself. */
async function runsBundle(dir: TempDir): Promise<void> {
  const path = `${dir.path}/npm/client.js`;
  assertEquals(await exportsOf(path), await exportsOf(`${ROOT}client.ts`));
  const { connect } = await import(`file://${path}`);
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  listener.close();
  const error = await connect(`127.0.0.1:${port}`, { timeoutMs: 200 }).then(
    () => assert(false, "connected to nobody"),
    (error: unknown) => error,
  );
  assertEquals(error.code, "UNREACHABLE", error.stack);
}

/** The declarations, against a program that is known to fit the source. */
async function checksTypes(dir: TempDir): Promise<void> {
  // As source, since Deno believes whatever a .d.ts file says.
  Deno.writeTextFileSync(`${dir.path}/client.ts`, read(dir, "client.d.ts"));
  const smoke = Deno.readTextFileSync(`${ROOT}scripts/npm_smoke.ts`);
  const program = `${dir.path}/smoke.ts`;
  Deno.writeTextFileSync(program, smoke.replace("../client.ts", "./client.ts"));
  const { success, stderr } = await deno("check", ...CHECKED, program);
  assert(success, stderr);
}

function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/^\s*\/\/.*$/gm, "");
}

needs(
  ["read", "write", "net", "env", "run"],
  "npm: the package has what it should, and nothing of Deno",
  async (t) => {
    if (await isMissing(t)) return;
    await using dir = await tempDir();
    const { success, stdout, stderr } = await deno(
      "run",
      ...CHECKED,
      "--no-prompt",
      "-P=npm",
      "scripts/npm.ts",
      "--no-smoke",
      "--out",
      `${dir.path}/npm`,
    );
    assert(success, `${stdout}${stderr}`);
    looksAtFiles(dir);
    looksAtCode(dir);
    await runsBundle(dir);
    await checksTypes(dir);
  },
  // Channels of grpc-js close a moment after they are told to.
  { sanitizeOps: false, sanitizeResources: false },
);

needs(
  ["read", "run"],
  "npm: the bundler is held to the style of everything else",
  async (t) => {
    if (await isMissing(t)) return;
    const { compilerOptions } = JSON.parse(
      Deno.readTextFileSync(`${ROOT}deno.json`),
    );
    const own = JSON.parse(
      Deno.readTextFileSync(`${ROOT}scripts/npm/deno.json`),
    );
    assertEquals(own.compilerOptions, compilerOptions);
    // Excluded in deno.json, so that `deno check` fetches none of its packages.
    for (
      const command of [["fmt", "--check"], ["lint"], ["check", "--frozen"]]
    ) {
      const { success, stderr } = await deno(
        ...command,
        ...TOOLS,
        "scripts/npm/bundle.ts",
        "scripts/npm/resolvers.ts",
      );
      assert(success, stderr);
    }
  },
);

needs(
  ["read", "run"],
  "npm: everything that mod.ts exports is documented",
  async () => {
    const { success, stderr } = await deno("doc", "--lint", "mod.ts");
    const errors = stderr.split("\n\n").filter((text) =>
      text.includes("error[")
    );
    assertEquals(errors, []);
    assert(success, stderr);
  },
);
