/** What the single binary must hold: every file that the program opens beside its own modules. */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { ENVIRONMENT, NODE_V8_FLAGS } from "../launch.ts";
import { needs } from "./needs.ts";

const ROOT = decodeURIComponent(new URL("..", import.meta.url).pathname);
const FILE_REGEXP =
  /\$\{import\.meta\.dirname\}\/([\w./-]+)|new URL\(\s*"\.?\/?([\w./-]+)",\s*import\.meta\.url/g;
const IMPORT_REGEXP = /(?:from|import)\s*\(?\s*"\.\/(\w+\.ts)"/g;

interface Tasks {
  readonly tasks: { readonly compile: { readonly command: string } };
  readonly permissions: {
    readonly compile: Readonly<Record<string, unknown>>;
    readonly dkv: Readonly<Record<string, unknown>>;
  };
}

function settings(): Tasks {
  return JSON.parse(Deno.readTextFileSync(`${ROOT}deno.json`));
}

/** The program's modules: what is imported from `entry`, and from there on. */
function modulesFrom(entry: string): Map<string, string> {
  const found = new Map<string, string>();
  const open = [entry];
  for (const path of open) {
    if (found.has(path)) continue;
    const text = Deno.readTextFileSync(`${ROOT}${path}`);
    found.set(path, text);
    for (const [, target] of text.matchAll(IMPORT_REGEXP)) {
      if (target !== undefined) open.push(target);
    }
  }
  return found;
}

needs(["read"], "compile: the binary has the flags of a node", () => {
  assertStringIncludes(
    settings().tasks.compile.command,
    ` --v8-flags=${NODE_V8_FLAGS} `,
  );
});

needs(["read"], "compile: the binary holds every file that it opens", () => {
  const { command } = settings().tasks.compile;
  const included = Array.from(
    command.matchAll(/--include[ =](\S+)/g),
    ([, path]) => path ?? "",
  );
  const modules = modulesFrom("cli.ts");
  assert(modules.has("node.ts"), "the node is not part of the program");
  const opened = [...modules].flatMap(([module, text]) =>
    Array.from(
      text.matchAll(FILE_REGEXP),
      ([, file, url]) => ({ module, path: file ?? url ?? "" }),
    )
  );
  assert(opened.length >= 4, `only ${opened.length} files are opened`);
  const missing = opened.filter(({ path }) =>
    !included.some((root) => path === root || path.startsWith(`${root}/`))
  );
  assertEquals(missing, []);
  for (const { path } of opened) Deno.statSync(`${ROOT}${path}`);
  for (const path of included) Deno.statSync(`${ROOT}${path}`);
});

needs(
  ["read"],
  "compile: the binary is granted what the command line is, no more",
  () => {
    const { compile, dkv } = settings().permissions;
    // Its addresses and directories are not known when it is built; what a command does not need,
    // `cli.ts` gives up before it begins.
    assertEquals(compile, {
      read: true,
      write: true,
      run: true,
      net: true,
      env: [...ENVIRONMENT, "DKV_ENDPOINTS", "TERM"],
    });
    assertEquals(dkv, compile);
  },
);
