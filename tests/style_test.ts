/**
 * What people agree on and forget: layers, purity, comments, lengths. Where the code is not there
 * yet, a ratchet says how far it is; its numbers only go down.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { LIMITS } from "../config.ts";
import { ENVIRONMENT } from "../launch.ts";
import { needs } from "./needs.ts";

/**
 * Bottom first. A module imports only from rows above its own in this table: two modules of the
 * same row do not know each other.
 */
const LAYERS: readonly (readonly string[])[] = [
  ["errors"],
  ["folder", "jsonfield", "slidingmap"],
  ["config", "metrics", "digest", "fields", "wire", "runtime", "kvvalue"],
  ["message", "modify", "mutate", "ranges"],
  ["transaction", "userchange"],
  ["batch"],
  ["kvspace"],
  ["members", "progress", "entry", "identity"],
  ["log", "reads", "envelope"],
  // The core and what it says.
  ["effect"],
  ["leader", "election"],
  ["replicate"],
  // The store, from its parts to the whole.
  ["results", "leases"],
  ["sessions", "users"],
  ["rows", "keytable"],
  ["keys"],
  ["conditions", "versions"],
  ["steps"],
  ["mutations"],
  ["store"],
  ["watch", "tables"],
  // The disk and the network.
  ["frame", "columns", "blocks", "writeahead", "journalframe", "segments"],
  ["events", "journal", "joinedwrites"],
  ["rowfile", "channel", "handshake"],
  ["disk"],
  ["snapshot_worker", "checkpoints", "inbound"],
  ["snapshots", "checkpoint_worker"],
  ["link", "transfer"],
  ["peers"],
  // One group.
  ["proposals", "queries", "retention", "logclock", "catchup"],
  ["forwards"],
  ["admission"],
  ["group"],
  ["membership", "addressbook"],
  ["neighbours"],
  // What operations mean, and who speaks of them to clients.
  ["checks", "passwords"],
  ["service"],
  ["kvmessages", "databases", "expiry", "http"],
  ["kvwatch"],
  ["convert", "departures"],
  ["call", "etcderrors"],
  ["etcdcall"],
  ["etcdkv"],
  ["etcdwatch", "etcdlease"],
  ["etcdcluster", "etcdmaintenance", "etcdauth", "etcdlock"],
  ["etcd", "kvconnect"],
  ["plaincodec", "shortcut"],
  ["pipelinecodec", "streamcodec"],
  ["pipeline", "unarycodec", "watchstream", "health"],
  ["grpc", "grpcserver", "status"],
  // Starts and stops everything, so it knows everything.
  ["node"],
  // The client: see CLIENT.
  ["operations", "fieldreader", "timer", "addresses"],
  ["answers"],
  ["endpoints"],
  ["requests", "listing", "subscription"],
  ["atomic", "batches", "heldlease", "leasing"],
  ["candidacy"],
  ["lock"],
  ["leadership"],
  ["client"],
  ["launch"],
  // The command line.
  ["arguments", "terminal", "tuplekeys"],
  ["tupletext"],
  ["commands", "records", "invocation"],
  ["keyspace", "coordination", "overview", "bench", "completions"],
  ["txn", "transport"],
  ["mod", "cli"],
];

/** The client library knows no module of the server but the errors. */
const CLIENT: readonly string[] = [
  "slidingmap",
  "operations",
  "fieldreader",
  "timer",
  "addresses",
  "answers",
  "endpoints",
  "requests",
  "listing",
  "subscription",
  "atomic",
  "batches",
  "heldlease",
  "leasing",
  "candidacy",
  "lock",
  "leadership",
  "client",
];

/** No clock, no chance, no waiting, no system: what the simulator can replay. */
const PURE: readonly string[] = [
  "errors",
  "message",
  "members",
  "progress",
  "log",
  "reads",
  "effect",
  "leader",
  "replicate",
  "modify",
  "ranges",
  "transaction",
  "userchange",
  "kvvalue",
  "mutate",
  "batch",
  "kvspace",
  "tuplekeys",
  "mutations",
  "results",
  "leases",
  "sessions",
  "users",
  "rows",
  "keytable",
  "keys",
  "conditions",
  "versions",
  "steps",
  "store",
  "watch",
  "proposals",
  "queries",
  "retention",
  "logclock",
  "catchup",
  "forwards",
  "admission",
  "group",
];
const IMPURE_REGEXP =
  /\bDeno\.|["']node:|\bDate\.now\b|\bnew Date\b|\bperformance\.|\bMath\.random\b|\bcrypto\.|\bset(Timeout|Interval|Immediate)\b|\basync\b|\bawait\b|\bPromise\b/;

const FILE_LINES_MAX = 600;
/** A file of tests is read one test at a time. */
const TEST_FILE_LINES_MAX = 1200;
const FUNCTION_LINES_MAX = 70;

/** Files that are longer, with the length they may not exceed. Only shrinks. */
const LONG_FILES: Readonly<Record<string, number>> = {
  "client.ts": 610,
  "disk.ts": 700,
  "group.ts": 850,
  "replicate.ts": 800,
};

/** Functions that are longer. Only shrinks. */
const LONG_FUNCTIONS: Readonly<Record<string, number>> = {
  "tests/replica_scripts.ts #drive": 72,
};

/** Fields without a comment in each .proto file. Only shrinks. */
const BARE_FIELDS: Readonly<Record<string, number>> = {
  "proto/health.proto": 1,
  "proto/kvstore.proto": 78,
  "proto/peer.proto": 15,
};

/** Where `any` stands for what a library's types cannot say. */
const ANY_ALLOWED: readonly string[] = ["call.ts", "links/std_assert/mod.ts"];

/** Limits that the store and the watchers get with the whole table, not by name. */
const LIMITS_HANDED_ON: readonly string[] = [
  "responseBytesMax",
  "sessionsMax",
  "sessionResultsMax",
  "sessionTtlMs",
  "usersMax",
  "userNameBytesMax",
  "userBytesMax",
  "watchersMax",
  "watchSliceBytes",
];

/** Pictures and formats that are not text. */
const TEXT_REGEXP =
  /\.(ts|json|jsonc|md|proto|txt|lock|yml|yaml|sh)$|^\.ci\/run$/;
const SKIPPED_DIRS: readonly string[] = [
  ".git",
  ".tmp",
  "data",
  "dist",
  "node_modules",
];

interface Source {
  /** From the root of the checkout: `tests/style_test.ts`. */
  readonly path: string;
  readonly text: string;
}

const ROOT = decodeURIComponent(new URL("..", import.meta.url).pathname);

function sources(dir = ""): Source[] {
  const found: Source[] = [];
  for (const entry of Deno.readDirSync(`${ROOT}${dir}`)) {
    const path = `${dir}${entry.name}`;
    if (entry.isDirectory) {
      // Only at the top: tests/data is part of the source.
      if (dir !== "" || !SKIPPED_DIRS.includes(entry.name)) {
        found.push(...sources(`${path}/`));
      }
    } else if (entry.isFile && TEXT_REGEXP.test(path)) {
      found.push({ path, text: Deno.readTextFileSync(`${ROOT}${path}`) });
    }
  }
  return found.sort((a, b) => a.path < b.path ? -1 : 1);
}

/** The modules at the top level, by name. */
function modules(): Map<string, string> {
  return new Map(
    sources().filter(({ path }) => /^\w+\.ts$/.test(path))
      .map(({ path, text }) => [path.slice(0, -3), text]),
  );
}

/** Code alone; strings stay, because imports are among them. */
function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/^\s*\/\/.*$/gm, "")
    .replace(/\s\/\/ .*$/gm, "");
}

/** Examples in docstrings make nothing longer to read: `tests/docs_test.ts` reads them. */
function withoutExamples(text: string): string {
  return text.replace(/^( *\* )```ts\n(?: *\*.*\n)*?\1```\n/gm, "");
}

function importsOf(text: string): string[] {
  const matches = withoutComments(text).matchAll(
    /(?:from|import)\s*\(?\s*"\.\/(\w+)\.ts"/g,
  );
  return [...new Set(Array.from(matches, ([, name]) => name ?? ""))];
}

/** Every hit of an expression in some files, as `path:line: text`. */
function hits(files: readonly Source[], regexp: RegExp): string[] {
  return files.flatMap(({ path, text }) =>
    text.split("\n").flatMap((line, at) =>
      regexp.test(line) ? [`${path}:${at + 1}: ${line.trim()}`] : []
    )
  );
}

/** Functions and methods of a formatted file: `[name, lines]`. */
function functionLengths(text: string): [string, number][] {
  const start =
    /^( *)(?:export )?(?:(?:async|static|override|get|set) )*(?:function\*? )?\*?([#\w$]+)(?:<.*)?\(/;
  const lines = text.split("\n");
  const lengths: [string, number][] = [];
  for (const [at, line] of lines.entries()) {
    const [, indent = "", name = ""] = line.match(start) ?? [];
    const isStatement = /^(if|for|while|switch|return|throw|catch|await)$/.test(
      name,
    );
    if (name === "" || isStatement) continue;
    // A head on one line, or one whose parameters follow; not a call with a function or an object.
    if (!/\)(: .+)? \{$|\($/.test(line)) continue;
    // Formatted code closes a body with a brace below the first character of its head.
    let end = at + 1;
    const isInside = (l: string) =>
      l === "" || l.startsWith(`${indent} `) ||
      (l.startsWith(`${indent})`) && l.endsWith(" {"));
    while (end < lines.length && isInside(lines[end] ?? "}")) end++;
    if (lines[end] === `${indent}}`) lengths.push([name, end - at + 1]);
  }
  return lengths;
}

Deno.test("style: the rows name each module once", () => {
  const all = LAYERS.flat();
  assertEquals(new Set(all).size, all.length);
  assertEquals(PURE.filter((name) => !all.includes(name)), []);
});

Deno.test("style: the counters of this test count", () => {
  const text = [
    "export function a(",
    "  b: string,",
    "): void {",
    "  call(",
    "    b,",
    "  );",
    "}",
    "class C {",
    "  async #d(): Promise<void> {",
    "    if (x) {",
    "    }",
    "    call({",
    "      b,",
    "    });",
    "  }",
    "}",
  ].join("\n");
  assertEquals(functionLengths(text), [["a", 7], ["#d", 7]]);
  assertEquals(
    importsOf(
      'import { a } from "./a.ts";\nawait import("./b.ts");\n// from "./c.ts"',
    ),
    ["a", "b"],
  );
  const doc = "/**\n * A.\n *\n * ```ts\n * a();\n *\n * ```\n */\n";
  assertEquals(withoutExamples(doc), "/**\n * A.\n *\n */\n");
});

needs(["read"], "style: modules import only from rows above their own", () => {
  const rank = new Map(
    LAYERS.flatMap((row, at) => row.map((name) => [name, at])),
  );
  const wrong: string[] = [];
  for (const [name, text] of modules()) {
    const own = rank.get(name);
    if (own === undefined) wrong.push(`${name} is in no row of LAYERS`);
    for (const target of importsOf(text)) {
      if ((rank.get(target) ?? Infinity) >= (own ?? -1)) {
        wrong.push(`${name} imports ${target}`);
      }
      const foreign = CLIENT.includes(name) &&
        ![...CLIENT, "errors"].includes(target);
      if (foreign) wrong.push(`${name} is of the client and imports ${target}`);
    }
  }
  assertEquals(wrong, []);
});

needs(["read"], "style: the core is pure", () => {
  const wrong: string[] = [];
  for (const [name, text] of modules()) {
    if (!PURE.includes(name)) continue;
    const found = withoutComments(text).match(IMPURE_REGEXP)?.[0];
    if (found !== undefined) wrong.push(`${name} uses ${found}`);
  }
  assertEquals(wrong, []);
});

needs(
  ["read"],
  "style: every module opens with a comment that says what it is",
  () => {
    const wrong = sources().filter(({ path }) => path.endsWith(".ts"))
      .filter(({ text }) =>
        !/^(#!.*\n)?\/\*\*[\s\S]*?@module\s+\*\//.test(text)
      )
      .map(({ path }) => path);
    // What a test is about stands in its name.
    assertEquals(
      wrong.filter((path) => !/^links\/|_test\.ts$/.test(path)),
      [],
    );
  },
);

needs(
  ["read"],
  "style: no markers, no timers of zero, no default exports are left",
  () => {
    const code = sources().filter(({ path }) =>
      /\.(ts|proto)$/.test(path) && path !== "tests/style_test.ts"
    );
    assertEquals(hits(code, /\b(TODO|FIXME|XXX|HACK)\b/), []);
    assertEquals(hits(code, /setTimeout\([^)]*,\s*0\)/), []);
    const modules = code.filter(({ path }) => path.endsWith(".ts"));
    assertEquals(
      hits(modules, /^export default\b|^(export )?(const )?enum\b/),
      [],
    );
  },
);

needs(["read"], "style: modules do not print, but for the command line", () => {
  const code = sources().filter(({ path }) =>
    /^\w+\.ts$/.test(path) && !["cli.ts", "metrics.ts"].includes(path)
  ).map(({ path, text }) => ({ path, text: withoutComments(text) }));
  assertEquals(hits(code, /\bconsole\.\w+\(/), []);
});

needs(["read"], "style: any is for the edges alone", () => {
  const code = sources().filter(({ path }) =>
    path.endsWith(".ts") && !ANY_ALLOWED.includes(path)
  ).map(({ path, text }) => ({ path, text: withoutComments(text) }));
  assertEquals(hits(code, /(:|<|\bas|,|\|)\s*any\b(?!["' ]\w)/), []);
});

needs(["read"], "style: files fit in 600 lines", () => {
  const wrong: string[] = [];
  for (const { path, text } of sources()) {
    if (!path.endsWith(".ts")) continue;
    const lines = withoutExamples(text).split("\n").length - 1;
    const usual = path.startsWith("tests/")
      ? TEST_FILE_LINES_MAX
      : FILE_LINES_MAX;
    const max = LONG_FILES[path] ?? usual;
    if (lines > max) wrong.push(`${path}: ${lines} lines, at most ${max}`);
  }
  assertEquals(wrong, []);
});

needs(["read"], "style: functions fit on a screen", () => {
  const wrong: string[] = [];
  for (const { path, text } of sources()) {
    if (!path.endsWith(".ts")) continue;
    for (const [name, lines] of functionLengths(text)) {
      const key = `${path} ${name}`;
      const max = LONG_FUNCTIONS[key] ?? FUNCTION_LINES_MAX;
      if (lines > max) wrong.push(`${key}: ${lines} lines, at most ${max}`);
    }
  }
  assertEquals(wrong, []);
});

needs(["read"], "style: every field of a .proto file has a comment", () => {
  const wrong: string[] = [];
  for (const { path, text } of sources()) {
    if (!path.endsWith(".proto")) continue;
    const lines = text.split("\n");
    const bare = lines.flatMap((line, at) => {
      const isField =
        /^\s+((repeated|optional) )?(map<.*>|[\w.]+) \w+ = \d+( \[.*\])?;/.test(
          line,
        );
      const above = /^\s*(\/\/|\*\/)/.test(lines[at - 1] ?? "");
      return isField && !above && !line.includes("//") ? [at + 1] : [];
    });
    const max = BARE_FIELDS[path] ?? 0;
    if (bare.length > max) {
      wrong.push(`${path}: ${bare.length}, at most ${max}, in lines ${bare}`);
    }
  }
  assertEquals(wrong, []);
});

needs(["read"], "style: the repository speaks of no machine", () => {
  const files = sources().filter(({ path }) => path !== "tests/style_test.ts");
  assertEquals(
    hits(
      files,
      /\/(root|home|work|Users)\/|\bregistry\.[a-z]+\.[a-z]+|\bjsr\.io\//,
    ),
    [],
  );
});

needs(["read"], "style: every limit is enforced somewhere", () => {
  const code = [...modules()].map(([name, text]) =>
    name === "config" ? "" : text
  )
    .join("\n");
  const config = modules().get("config") ?? "";
  const unused = Object.keys(LIMITS).filter((name) =>
    !code.includes(`LIMITS.${name}`) && !config.includes(`LIMITS.${name}`)
  );
  assertEquals(unused.filter((name) => !LIMITS_HANDED_ON.includes(name)), []);
});

needs(
  ["read"],
  "style: deno.json grants the variables that a node may read",
  () => {
    const text = Deno.readTextFileSync(`${ROOT}deno.json`);
    const { permissions } = JSON.parse(text) as {
      permissions: Record<string, { env?: string[] }>;
    };
    for (const [name, { env }] of Object.entries(permissions)) {
      if (env === undefined) continue;
      assertEquals(env.slice(0, ENVIRONMENT.length), ENVIRONMENT, name);
      const more = env.slice(ENVIRONMENT.length);
      const wanted: Record<string, string[]> = {
        test: ["REWRITE", "SEED"],
        dkv: ["DKV_ENDPOINTS", "TERM"],
        compile: ["DKV_ENDPOINTS", "TERM"],
      };
      assertEquals(more, wanted[name] ?? [], name);
    }
  },
);
