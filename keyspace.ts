/**
 * The commands for keys and values: `put`, `get`, `incr`, `del`, `list`, `watch`. Used by `cli.ts`.
 *
 * @module
 */

import { bold, dim, green, red } from "@std/fmt/colors";
import {
  type Arguments,
  EXIT,
  Refusal,
  toInt64,
  UsageError,
} from "./arguments.ts";
import type { Change, Entry, Keys } from "./client.ts";
import { LIMITS } from "./config.ts";
import { assert, DkvError } from "./errors.ts";
import { connectTo, type Invocation, missing, print } from "./invocation.ts";
import { changeJson, entryJson } from "./records.ts";
import { readable, Stop } from "./terminal.ts";
import { entryText } from "./tupletext.ts";

const TAB = new Uint8Array([0x09]);
const LINE_END = new Uint8Array([0x0a]);

/** `dkv put KEY VALUE`, `dkv put KEY -`, `dkv put KEY --file FILE`. */
export async function put(invocation: Invocation): Promise<number> {
  const { args } = invocation;
  const file = args.text("file");
  const lease = args.lease("lease");
  const [key, given] = file === undefined
    ? args.take("KEY", "VALUE")
    : [...args.take("KEY"), undefined] as const;
  // What stands behind two dashes is meant as it is.
  const isInput = file === "-" || given === "-" && args.after === null;
  const value = isInput
    ? await readAll(Deno.stdin.readable, "the standard input")
    : file !== undefined
    ? await readFile(file)
    : given ?? "";
  await using client = await connectTo(args);
  const { revision, version } = await client.put(
    key,
    value,
    lease === undefined ? {} : { lease },
  );
  await print(invocation, {
    json: { revision, version },
    text: `revision ${revision}, version ${version}`,
  });
  return EXIT.done;
}

async function readFile(path: string): Promise<Uint8Array> {
  const { readable } = await openFile(path);
  return await readAll(readable, path);
}

/** Opens a file to read; says in a sentence why that cannot be. */
export async function openFile(path: string): Promise<Deno.FsFile> {
  let file: Deno.FsFile;
  try {
    file = await Deno.open(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) {
      throw new Refusal(`There is no file ${path}`);
    }
    throw error;
  }
  // It can be opened, but not read.
  if (!(await file.stat()).isDirectory) return file;
  file.close();
  throw new Refusal(`${path} is a directory`);
}

async function readAll(
  stream: ReadableStream<Uint8Array<ArrayBuffer>>,
  name: string,
): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of stream) {
    chunks.push(chunk);
    length += chunk.length;
    if (length > LIMITS.valueBytesMax) {
      const text = `more than ${LIMITS.valueBytesMax} bytes in ${name}`;
      throw new DkvError("VALUE_TOO_LARGE", `Value is too large: ${text}`);
    }
  }
  const value = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    value.set(chunk, at);
    at += chunk.length;
  }
  return value;
}

/** `dkv get KEY`: the value alone, byte for byte in a pipe. */
export async function get(invocation: Invocation): Promise<number> {
  const { args, out } = invocation;
  const [key] = args.take("KEY");
  const options = readOptions(args);
  await using client = await connectTo(args);
  const entry = await client.get(key, options);
  if (entry === null) return missing(`there is no key ${key}`);
  const text = out.isTerminal
    ? readable(entry.value, { lines: true })
    : entry.value;
  await print(invocation, { json: entryJson(entry), text });
  return EXIT.done;
}

/** `dkv del KEY`, or all keys of `--prefix`, or of `--from` and `--to`. */
export async function del(invocation: Invocation): Promise<number> {
  const { args } = invocation;
  const target = targetOf(args);
  await using client = await connectTo(args);
  const { revision, deleted } = await client.delete(
    "key" in target ? target.key : target,
  );
  const keys = deleted === 1 ? "key" : "keys";
  await print(invocation, {
    json: { revision, deleted },
    text: `${deleted} ${keys} deleted, revision ${revision}`,
  });
  return deleted > 0 ? EXIT.done : EXIT.notFound;
}

/** `dkv list [PREFIX]`: a line for each key, in order. */
export async function list(invocation: Invocation): Promise<number> {
  const { args, out } = invocation;
  const limit = args.number("limit");
  const keysOnly = args.flag("keys-only");
  const options = {
    ...listedKeys(args),
    ...readOptions(args),
    keysOnly,
    reverse: args.flag("reverse"),
    ...(limit === undefined ? {} : { limit }),
  };
  await using client = await connectTo(args);
  let count = 0;
  for await (const entry of client.list(options)) {
    count++;
    if (args.flag("json")) {
      await out.line(JSON.stringify(entryJson(entry, { keysOnly })));
    } else await printEntry(invocation, { entry, keysOnly });
  }
  return count > 0 ? EXIT.done : EXIT.notFound;
}

async function printEntry(
  { out }: Invocation,
  { entry, keysOnly }: { entry: Entry; keysOnly: boolean },
): Promise<void> {
  if (out.isTerminal) {
    const ofDeno = entryText(entry.keyBytes, entry.value);
    const key = ofDeno?.key ?? readable(entry.keyBytes);
    const value = ofDeno?.value ?? readable(entry.value);
    return await out.line(`${bold(key)}${keysOnly ? "" : `\t${value}`}`);
  }
  await out.write(entry.keyBytes);
  if (!keysOnly) {
    await out.write(TAB);
    await out.write(entry.value);
  }
  await out.write(LINE_END);
}

/** `dkv watch KEY`, or of several keys; until Ctrl-C, or `--limit` changes. */
export async function watch(invocation: Invocation): Promise<number> {
  const { args, out } = invocation;
  const target = targetOf(args);
  const from = args.number("revision");
  const limit = args.number("limit", { min: 1 }) ?? Infinity;
  using stop = new Stop();
  await using client = await connectTo(args, { stop });
  const changes = client.watch({
    ...target,
    ...(from === undefined ? {} : { from }),
  });
  stop.follow(() => void changes.return());
  let count = 0;
  for await (const change of changes) {
    const text = changeText(change, invocation);
    await print(invocation, { json: changeJson(change), text });
    await out.flush();
    if (++count >= limit) break;
  }
  return EXIT.done;
}

function changeText(
  { type, revision, keyBytes, entry }: Change,
  { out }: Invocation,
): string {
  const what = type === "put" ? green("put") : red("del");
  const text = (bytes: Uint8Array) =>
    out.isTerminal ? readable(bytes) : new TextDecoder().decode(bytes);
  const value = entry === null ? "" : `\t${text(entry.value)}`;
  return `${dim(String(revision))}\t${what}\t${bold(text(keyBytes))}${value}`;
}

/** `dkv incr KEY [NUMBER]`: adds to a number in the store and prints what it is now. */
export async function incr(invocation: Invocation): Promise<number> {
  const { args } = invocation;
  const [key, text = "1", ...rest] = [...args.words, ...args.after ?? []];
  if (!key || rest.length > 0) {
    throw new UsageError("incr takes KEY, and perhaps a NUMBER");
  }
  const operand = toInt64(text);
  if (operand === null) {
    throw new UsageError(
      `incr takes a whole number of 64 bits, not ${text || "nothing"}`,
    );
  }
  await using client = await connectTo(args);
  const { revision, results: [result] } = await client.transact({
    then: [{ type: "modify", function: "add", key, operand }],
  });
  assert(result?.type === "modify", `An increment became ${result?.type}`);
  const { version } = result;
  const value = new TextDecoder().decode(result.value);
  await print(invocation, { json: { value, revision, version }, text: value });
  return EXIT.done;
}

// ------------------------------------------------------------------ arguments

/** The keys of `list` and `export`: all of them, unless something is said. */
export function listedKeys(args: Arguments): Keys {
  const [word = "", ...rest] = args.words;
  const prefix = args.textOrEmpty("prefix");
  const range = rangeOf(args);
  if (rest.length > 0 || word !== "" && prefix !== undefined) {
    throw new UsageError(`${args.command} takes one PREFIX`);
  }
  if (range === undefined) return { prefix: prefix ?? word };
  if (word !== "" || prefix !== undefined) {
    throw new UsageError(
      `${args.command} takes a PREFIX, or --from and --to, not both`,
    );
  }
  return { range };
}

/** What `del` and `watch` are about: nothing is not everything here. */
function targetOf(args: Arguments): { key: string } | Keys {
  const prefix = args.text("prefix");
  const range = rangeOf(args);
  const words = [...args.words, ...args.after ?? []];
  const [key] = words;
  const given = words.length + Number(prefix !== undefined) +
    Number(range !== undefined);
  if (given !== 1 || key === "") {
    throw new UsageError(
      `${args.command} takes a KEY, or --prefix P, or --from and --to`,
    );
  }
  if (key !== undefined) return { key };
  if (prefix !== undefined) return { prefix };
  return { range: range ?? {} };
}

function rangeOf(
  args: Arguments,
): { start?: string; end?: string } | undefined {
  const start = args.text("from");
  const end = args.text("to");
  if (start === undefined && end === undefined) return undefined;
  return {
    ...(start === undefined ? {} : { start }),
    ...(end === undefined ? {} : { end }),
  };
}

function readOptions(
  args: Arguments,
): { serializable: boolean; revision?: number } {
  const revision = args.number("revision");
  const serializable = args.flag("serializable");
  return revision === undefined ? { serializable } : { serializable, revision };
}
