/**
 * Makes the two files of the npm package that are made: `client.js` of all modules of the client,
 * and `client.d.ts` of what they declare. A process of its own, started by `npm.ts`, with a
 * configuration and a lock of its own: esbuild and TypeScript want more permissions than the rest of
 * the build, and whoever runs a node, or compiles one, should not have to fetch them.
 *
 * ```text
 *   client.ts ─┬─ esbuild ────────────────────────────────────────────▶ client.js
 *   errors.ts ─┤
 *   …          └─ TypeScript ─▶ client.d.ts, errors.d.ts, … ─ roll up ▶ client.d.ts
 * ```
 *
 * The declarations are rolled up into one file that holds what the entry exports and what that
 * refers to, so nothing internal, and no type of gRPC or Node, is part of the package's types.
 *
 * @module
 */

import * as esbuild from "esbuild";
import ts from "typescript";
import { assert } from "../../errors.ts";

const ROOT = decodeURIComponent(new URL("../..", import.meta.url).pathname);
const ENTRY = "client.ts";
/** The oldest Node that has `import.meta.dirname`. */
const TARGET = "node20.11";
const IMPORT_REGEXP = /^\.\/(\w+\.ts)$/;

/** A declaration of the client. */
interface Declaration {
  readonly module: string;
  readonly node: ts.Statement;
  /** With its comment, as it is to be written. */
  readonly text: string;
}

async function main(): Promise<void> {
  const [out, packageName] = Deno.args;
  assert(out !== undefined && packageName !== undefined, "no directory given");
  const modules = await bundle(`${out}/client.js`);
  const types = rollUp(modules.map(declarationsOf));
  // Examples name the module as a program of this checkout would.
  const text = types.replaceAll(`"./${ENTRY}"`, `"${packageName}"`);
  await Deno.writeTextFile(`${out}/client.d.ts`, text);
}

/** Writes the JavaScript; returns the modules that are in it, the entry first. */
async function bundle(outfile: string): Promise<string[]> {
  const { metafile } = await esbuild.build({
    absWorkingDir: ROOT,
    entryPoints: [ENTRY],
    outfile,
    bundle: true,
    format: "esm",
    platform: "node",
    target: TARGET,
    packages: "external",
    define: { "Promise.withResolvers": "withResolvers" },
    inject: ["scripts/npm/resolvers.ts"],
    metafile: true,
    logLevel: "error",
  });
  await esbuild.stop();
  const modules = Object.keys(metafile.inputs).filter((path) =>
    /^\w+\.ts$/.test(path)
  );
  assert(modules.includes(ENTRY), `${modules} are without ${ENTRY}`);
  return [ENTRY, ...modules.filter((path) => path !== ENTRY).sort()];
}

/** What a module declares, without looking at other modules; what is `@internal` is left out. */
function declarationsOf(path: string): ts.SourceFile {
  const { outputText } = ts.transpileDeclaration(
    Deno.readTextFileSync(`${ROOT}${path}`),
    {
      fileName: path,
      compilerOptions: {
        strict: true,
        exactOptionalPropertyTypes: true,
        stripInternal: true,
        target: ts.ScriptTarget.ES2022,
        module: ts.ModuleKind.NodeNext,
      },
    },
  );
  return ts.createSourceFile(
    path,
    outputText,
    ts.ScriptTarget.ES2022,
    true,
  );
}

/** One file of what the first of these exports and what that refers to. */
function rollUp(files: readonly ts.SourceFile[]): string {
  const declared = new Map<string, Declaration>();
  for (const file of files) {
    for (const [name, declaration] of declarationsIn(file)) {
      const other = declared.get(name)?.module;
      const problem = `${name} is declared in ${file.fileName} and ${other}`;
      assert(other === undefined, problem);
      declared.set(name, declaration);
    }
  }
  const [entry] = files;
  assert(entry !== undefined, "nothing is bundled");
  const exports = entry.statements.filter(ts.isExportDeclaration);
  const own = [...declared].filter(([, { module }]) => module === ENTRY);
  const wanted = new Set(own.map(([name]) => name));
  for (const node of exports) addNames(node, { declared, names: wanted });
  for (const name of wanted) {
    const { node } = declared.get(name) ?? {};
    if (node !== undefined) addNames(node, { declared, names: wanted });
  }
  const texts = [...declared].filter(([name]) => wanted.has(name))
    .map(([, { text }]) => text);
  const lists = exports.map((node) => node.getText().replace(/ from .*;/, ";"));
  return [
    '/// <reference lib="esnext.disposable" />',
    ...commentOf(entry.statements[0]),
    ...texts,
    ...lists,
    "",
  ].join("\n");
}

/** The named declarations of a module; those of others than the entry are not exported again. */
function* declarationsIn(
  file: ts.SourceFile,
): Generator<[string, Declaration]> {
  const module = file.fileName;
  for (const node of file.statements) {
    if (ts.isImportDeclaration(node)) {
      const { text } = node.moduleSpecifier as ts.StringLiteral;
      const isRenamed = / as /.test(node.getText());
      const isOwn = IMPORT_REGEXP.test(text);
      assert(!isRenamed || !isOwn, `${module} renames what it imports`);
      continue;
    }
    if (ts.isExportDeclaration(node)) continue;
    const name = nameOf(node);
    assert(name !== undefined, `${module} has a nameless ${node.getText()}`);
    const whole = withoutEchoes(node);
    const code = module === ENTRY ? whole : whole.replace(/^export /, "");
    const text = [...commentOf(node), code].join("\n");
    yield [name, { module, node, text }];
  }
}

/**
 * TypeScript writes a method named by a symbol twice when it knows no library: as a property too.
 */
function withoutEchoes(node: ts.Statement): string {
  let text = node.getText();
  if (!ts.isClassDeclaration(node)) return text;
  for (const member of node.members) {
    const isEcho = ts.isPropertyDeclaration(member) &&
      ts.isComputedPropertyName(member.name);
    if (isEcho) text = text.replace(member.getFullText(), "");
  }
  return text;
}

function nameOf(node: ts.Statement): string | undefined {
  if (ts.isVariableStatement(node)) {
    return node.declarationList.declarations[0]?.name.getText();
  }
  const isNamed = ts.isInterfaceDeclaration(node) ||
    ts.isTypeAliasDeclaration(node) || ts.isClassDeclaration(node) ||
    ts.isFunctionDeclaration(node);
  return isNamed ? node.name?.text : undefined;
}

/** The last documentation comment before a statement. */
function commentOf(node: ts.Statement | undefined): string[] {
  if (node === undefined) return [];
  const text = node.getSourceFile().text;
  const ranges = ts.getLeadingCommentRanges(text, node.getFullStart()) ?? [];
  return ranges.map(({ pos, end }) => text.slice(pos, end))
    .filter((comment) => comment.startsWith("/**")).slice(-1);
}

/** Adds every declared name that a statement mentions. */
function addNames(
  node: ts.Node,
  { declared, names }: {
    declared: ReadonlyMap<string, Declaration>;
    names: Set<string>;
  },
): void {
  if (ts.isIdentifier(node) && declared.has(node.text)) names.add(node.text);
  ts.forEachChild(node, (child) => addNames(child, { declared, names }));
}

await main();
