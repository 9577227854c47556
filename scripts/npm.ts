/**
 * `deno task npm`: builds the npm package of the client in `dist/npm`, and shows that it works: packed,
 * installed into an empty project, compiled against with strict types, and run under the Node that is
 * installed on a cluster of three nodes.
 *
 * ```text
 *   dist/npm/package.json       made here, versions from imports.json
 *            client.js          made by npm/bundle.ts
 *            client.d.ts        made by npm/bundle.ts
 *            proto/kvstore.proto    which client.js reads
 *            README.md          npm_readme.md
 *            LICENSE
 * ```
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { taskArgs } from "../launch.ts";
import { VERSION } from "../node.ts";
import { TestCluster } from "../tests/cluster.ts";

const USAGE = `Usage: deno task npm [-- --no-smoke] [-- --bun] [-- --out DIR]

Builds the npm package of the client in dist/npm and tests it under the Node that is installed.

  --no-smoke   builds and looks at the files only
  --bun        tests it under Bun as well, which is fetched from npm
  --out DIR    instead of dist/npm; emptied first`;

const ROOT = decodeURIComponent(new URL("..", import.meta.url).pathname);
const PACKAGE = "@dkv/client";
const OUT = "dist/npm";
/** Names esbuild and TypeScript, which the rest of this checkout does not need. */
const TOOLS = "scripts/npm/deno.json";
/** Where `client.js` finds `import.meta.dirname`. */
const NODE_VERSION_MIN = "20.11.0";
/** What the bundle may import. */
const DEPENDENCIES: readonly string[] = [
  "@grpc/grpc-js",
  "@grpc/proto-loader",
];
const BUILT_IN: readonly string[] = ["node:buffer", "node:timers"];
/** Beside `client.js` and `client.d.ts`. */
const COPIED: Readonly<Record<string, string>> = {
  "LICENSE": "LICENSE",
  "scripts/npm_readme.md": "README.md",
  "proto/kvstore.proto": "proto/kvstore.proto",
};
const BUN_VERSION = "1.4.5";
const BUN = ["npm", "exec", "--offline", "--", "bun"] as const;
/** With the packages that npm installed, and no configuration of this checkout. */
const DENO = [
  "deno",
  "run",
  "--quiet",
  "--no-prompt",
  "--no-config",
  "--no-lock",
  "--node-modules-dir=manual",
  "--allow-env",
  "--allow-read",
  "--allow-net=127.0.0.1",
] as const;
const README_ENDPOINTS = "127.0.0.1:50051,127.0.0.1:50052,127.0.0.1:50053";

/** A step failed in a way that its output explains. */
class StepFailed extends Error {}

async function main(): Promise<number> {
  let unknown = "";
  const { smoke, bun, out, help } = parseArgs([...taskArgs(Deno.args)], {
    boolean: ["smoke", "bun", "help"],
    string: ["out"],
    default: { smoke: true, out: OUT },
    negatable: ["smoke"],
    unknown: (arg) => {
      unknown = arg;
      return false;
    },
  });
  if (help || unknown !== "" || out === "") {
    console.log(USAGE);
    return help ? 0 : 2;
  }
  try {
    const dir = out.startsWith("/") ? out : `${ROOT}${out}`;
    await build(dir);
    await inspect(dir);
    console.log(`npm │ built ${PACKAGE} ${VERSION} in ${out}`);
    if (smoke) await smokeTest(dir, bun);
    return 0;
  } catch (error) {
    if (!(error instanceof StepFailed)) throw error;
    console.log(`npm │ ${error.message}`);
    return 1;
  }
}

/** Makes the package's files. */
async function build(dir: string): Promise<void> {
  await removed(dir);
  await Deno.mkdir(`${dir}/proto`, { recursive: true });
  const args = [
    "run",
    "--quiet",
    `--config=${TOOLS}`,
    "--frozen",
    "--no-prompt",
    "--allow-read",
    "--allow-env",
    // esbuild is a program, and where it lies is its package's business.
    "--allow-run",
    `--allow-write=${dir.replaceAll(",", ",,")}`,
    "scripts/npm/bundle.ts",
    dir,
    PACKAGE,
  ];
  await run("deno", { args, cwd: ROOT });
  for (const [from, to] of Object.entries(COPIED)) {
    await Deno.copyFile(`${ROOT}${from}`, `${dir}/${to}`);
  }
  const text = JSON.stringify(await manifest(), null, 2);
  await Deno.writeTextFile(`${dir}/package.json`, `${text}\n`);
}

/** The package's `package.json`. */
async function manifest(): Promise<Record<string, unknown>> {
  const { license } = await readJson<{ license: string }>("deno.json");
  const dependencies: Record<string, string> = {};
  for (const name of DEPENDENCIES) {
    // At least what this was tested with, and what repairs it.
    dependencies[name] = `^${await versionOf(name, "imports.json")}`;
  }
  return {
    name: PACKAGE,
    version: VERSION,
    description: "The client of dkv, a distributed key-value store",
    keywords: ["dkv", "key-value", "database", "raft", "grpc"],
    license,
    type: "module",
    engines: { node: `>=${NODE_VERSION_MIN}` },
    exports: {
      ".": { types: "./client.d.ts", default: "./client.js" },
      "./proto/kvstore.proto": "./proto/kvstore.proto",
      "./package.json": "./package.json",
    },
    files: ["client.js", "client.d.ts", "proto"],
    sideEffects: false,
    dependencies,
  };
}

/** Refuses a bundle that could not run on Node, and types that tell less than they should. */
async function inspect(dir: string): Promise<void> {
  const code = withoutComments(await Deno.readTextFile(`${dir}/client.js`));
  const types = withoutComments(await Deno.readTextFile(`${dir}/client.d.ts`));
  const imported = Array.from(
    code.matchAll(/(?:\bfrom|\bimport|\brequire)\s*\(?\s*"([^"]+)"/g),
    ([, name = ""]) => name,
  );
  const foreign = imported.filter((name) =>
    !DEPENDENCIES.includes(name) && !BUILT_IN.includes(name)
  );
  const problems = [
    ...foreign.map((name) => `client.js imports ${name}`),
    ...DEPENDENCIES.filter((name) => !imported.includes(name))
      .map((name) => `client.js does not import ${name}`),
    ...Array.from(
      code.matchAll(/\bDeno\b.*|\bPromise\.withResolvers\b/g),
      ([text]) => `client.js uses ${text}`,
    ),
    ...Array.from(
      types.matchAll(/.*\bany\b.*|\bimport\b.*/g),
      ([text]) => `client.d.ts has ${text.trim()}`,
    ),
  ];
  if (problems.length > 0) throw new StepFailed(problems.join("\nnpm │ "));
}

/** Packs, installs, compiles and runs, in a directory that is removed. */
async function smokeTest(dir: string, bun: boolean): Promise<void> {
  const temp = `${ROOT}.tmp`;
  await Deno.mkdir(temp, { recursive: true });
  const project = await Deno.makeTempDir({ dir: temp, prefix: "npm-" });
  try {
    await install(dir, project);
    await compile(project);
    console.log("npm │ installed, and compiled against with strict types");
    await using cluster = await TestCluster.start();
    const endpoints = cluster.addresses.join(",");
    const place = { project, endpoints };
    await runPrograms("Node", { ...place, command: ["node"] });
    await runPrograms("Deno", { ...place, command: DENO });
    if (!bun) return;
    await npm(project, "install", `bun@${BUN_VERSION}`);
    await runPrograms("Bun", { ...place, command: BUN });
  } finally {
    await removed(project);
  }
}

/** Installs the package, as npm packs it, into an empty project. */
async function install(dir: string, project: string): Promise<void> {
  const packed = await npm(
    dir,
    "pack",
    "--json",
    "--pack-destination",
    project,
  );
  const [{ filename, files }] = JSON.parse(packed) as [
    { filename: string; files: { path: string }[] },
  ];
  const wanted = ["client.js", "client.d.ts", "package.json"]
    .concat(Object.values(COPIED)).sort();
  const found = files.map(({ path }) => path).sort();
  if (found.join() !== wanted.join()) {
    throw new StepFailed(`The package has ${found}, and should have ${wanted}`);
  }
  await Deno.writeTextFile(
    `${project}/package.json`,
    JSON.stringify({ name: "smoke", private: true, type: "module" }),
  );
  const typescript = `typescript@${await versionOf("typescript", TOOLS)}`;
  await npm(project, "install", `./${filename}`, typescript);
}

/** Compiles this checkout's test program and the package's example, declarations included. */
async function compile(project: string): Promise<void> {
  const smoke = await Deno.readTextFile(`${ROOT}scripts/npm_smoke.ts`);
  const readme = await Deno.readTextFile(`${ROOT}scripts/npm_readme.md`);
  const [, example = ""] = readme.match(/^```ts\n([\s\S]*?)^```$/m) ?? [];
  if (!example.includes(README_ENDPOINTS)) {
    throw new StepFailed("scripts/npm_readme.md has no example");
  }
  await Deno.writeTextFile(
    `${project}/smoke.ts`,
    smoke.replace(`"../client.ts"`, `"${PACKAGE}"`),
  );
  await Deno.writeTextFile(
    `${project}/example.ts`,
    `import process from "node:process";\n` +
      example.replace(`"${README_ENDPOINTS}"`, "process.argv[2]!"),
  );
  const compilerOptions = {
    strict: true,
    noUncheckedIndexedAccess: true,
    exactOptionalPropertyTypes: true,
    skipLibCheck: false,
    noEmitOnError: true,
    module: "nodenext",
    target: "es2022",
    // Node's types and the language alone: the package must not need those of browsers.
    lib: ["es2022"],
    types: ["node"],
  };
  await Deno.writeTextFile(
    `${project}/tsconfig.json`,
    JSON.stringify({ compilerOptions, files: ["smoke.ts", "example.ts"] }),
  );
  const args = ["node_modules/typescript/bin/tsc", "-p", "."];
  await run("node", { args, cwd: project });
}

/** Runs what was compiled. */
async function runPrograms(
  runtime: string,
  { project, endpoints, command: [command, ...args] }: {
    project: string;
    endpoints: string;
    command: readonly [string, ...string[]];
  },
): Promise<void> {
  const code =
    "const { bun, deno, node } = process.versions; console.log(bun ?? deno ?? node)";
  await Deno.writeTextFile(`${project}/version.js`, code);
  const start = (...more: readonly string[]) =>
    run(command, { args: [...args, ...more], cwd: project });
  const version = (await start("version.js")).trim();
  for (const program of ["smoke.js", "example.js"]) {
    const startedMs = performance.now();
    const output = await start(program, endpoints);
    const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
    console.log(`npm │ ${runtime} ${version}: ${program}, ${seconds} s`);
    for (const line of output.trim().split("\n")) {
      console.log(`npm │   ${line}`);
    }
  }
}

function npm(cwd: string, ...args: readonly string[]): Promise<string> {
  const quiet = ["--loglevel=error", "--no-audit", "--no-fund"];
  return run("npm", { args: [...args, ...quiet], cwd });
}

/** Runs a program to its end and returns what it prints. */
async function run(
  command: string,
  { args, cwd }: { args: readonly string[]; cwd: string },
): Promise<string> {
  const called = `${command} ${args.join(" ")}`;
  let output;
  try {
    output = await new Deno.Command(command, {
      args: [...args],
      cwd,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).output();
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new StepFailed(`Cannot run ${called}: there is no ${command}`);
  }
  const decoder = new TextDecoder();
  const stdout = decoder.decode(output.stdout);
  if (output.success) return stdout;
  const said = `${stdout}\n${decoder.decode(output.stderr)}`.trim();
  throw new StepFailed(`${called} ended with ${output.code}:\n${said}`);
}

function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/^\s*\/\/.*$/gm, "");
}

/** The version of a package that a file's `imports` name. */
async function versionOf(name: string, path: string): Promise<string> {
  const { imports } = await readJson<{ imports: Record<string, string> }>(path);
  const [, version] = imports[name]?.match(/^npm:.+@([\d.]+)$/) ?? [];
  if (version === undefined) {
    throw new StepFailed(`${path} names no version of ${name}`);
  }
  return version;
}

async function readJson<T>(path: string): Promise<T> {
  return JSON.parse(await Deno.readTextFile(`${ROOT}${path}`)) as T;
}

/** Removes a directory, if it is there. */
async function removed(dir: string): Promise<void> {
  try {
    await Deno.remove(dir, { recursive: true });
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

Deno.exitCode = await main();
