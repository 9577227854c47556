/**
 * `dkv txn`: transactions that a person can type and a script can pipe. Used by `cli.ts`.
 *
 * ```text
 *   dkv txn --if 'version(seat/12A) = 0' --then 'put seat/12A ann' --else 'get seat/12A'
 *
 *   if version(seat/12A) = 0        the same, as lines
 *   then put seat/12A ann
 *   else get seat/12A
 * ```
 *
 * A word with spaces, brackets or quotes in it is written as a JSON string: `put note "two words"`.
 *
 * @module
 */

import { green, yellow } from "@std/fmt/colors";
import {
  EXIT,
  type OptionName,
  own,
  Refusal,
  toInt64,
  toLease,
  UsageError,
} from "./arguments.ts";
import type {
  Compare,
  Operation,
  OperationResult,
  Relation,
  Transaction,
  TransactResult,
} from "./client.ts";
import { LIMITS } from "./config.ts";
import { unreachable } from "./errors.ts";
import { connectTo, type Invocation, print } from "./invocation.ts";
import { openFile } from "./keyspace.ts";
import { entryJson, field, linesOf } from "./records.ts";
import { readable } from "./terminal.ts";

/** Clauses of a transaction, as they were written. */
export interface Clauses {
  readonly if: readonly string[];
  readonly then: readonly string[];
  readonly else: readonly string[];
}

/** Two lists of operations, comparisons, and room for comments. */
const LINES_MAX = 10 * LIMITS.transactionOperationsMax;

/** `dkv txn`: 0 if the conditions held, 1 if not. */
export async function txn(invocation: Invocation): Promise<number> {
  const transaction = parseTransaction(await clausesOf(invocation));
  await using client = await connectTo(invocation.args);
  const result = await client.transact(transaction);
  const { succeeded, revision } = result;
  await print(invocation, {
    json: { succeeded, revision, results: result.results.map(resultJson) },
    text: resultText(result),
  });
  return succeeded ? EXIT.done : EXIT.notFound;
}

async function clausesOf({ args }: Invocation): Promise<Clauses> {
  const names = ["if", "then", "else"] as const;
  const given = {
    if: args.texts("if"),
    then: args.texts("then"),
    else: args.texts("else"),
  };
  const file = args.text("file") ?? (args.words[0] === "-" ? "-" : undefined);
  const isTyped = names.some((name) => given[name].length > 0);
  if (file === undefined) {
    args.take();
    if (isTyped) return given;
    throw new UsageError(
      "txn takes --if, --then and --else, or lines from --file or -",
    );
  }
  const clash = args.given.find((name: OptionName) =>
    names.some((other) => other === name)
  );
  if (clash !== undefined) {
    throw new UsageError(`txn takes --${clash} or lines, not both`);
  }
  const source = file === "-" ? Deno.stdin : await openFile(file);
  return await readClauses(
    source.readable,
    file === "-" ? "line " : `${file}:`,
  );
}

async function readClauses(
  stream: ReadableStream<Uint8Array<ArrayBuffer>>,
  where: string,
): Promise<Clauses> {
  const clauses = { if: [], then: [], else: [] } as Record<
    keyof Clauses,
    string[]
  >;
  for await (const { first, lines } of linesOf(stream)) {
    for (const [at, line] of lines.entries()) {
      const number = first + at;
      if (number > LINES_MAX) {
        throw new Refusal(`${where}${number}: more than ${LINES_MAX} lines`);
      }
      if (/^\s*(#|$)/.test(line)) continue;
      const [, name, text] = line.match(/^\s*(if|then|else)\s+(.*?)\s*$/) ?? [];
      if (name === undefined || text === undefined) {
        throw new UsageError(
          `${where}${number}: a line begins with if, then or else`,
        );
      }
      try {
        parseTransaction({ if: [], then: [], else: [], [name]: [text] });
      } catch (error) {
        if (!(error instanceof UsageError)) throw error;
        throw new UsageError(`${where}${number}: ${error.message}`);
      }
      clauses[name as keyof Clauses].push(text);
    }
  }
  return clauses;
}

/**
 * The transaction that some clauses mean.
 *
 * @throws {UsageError} that shows the clause at fault.
 */
export function parseTransaction(clauses: Clauses): Transaction {
  return {
    compares: clauses.if.map(parseCondition),
    then: clauses.then.map(parseOperation),
    else: clauses.else.map(parseOperation),
  };
}

// ------------------------------------------------------------------ conditions

const RELATIONS: Readonly<Record<string, Relation>> = {
  "=": "equal",
  "==": "equal",
  "!=": "notEqual",
  "<": "less",
  ">": "greater",
};
/** `version(key) = 0`, `exists(key)`; a key in quotes may hold anything. */
const CONDITION_REGEXP =
  /^(\w+)\s*\(\s*("(?:[^"\\]|\\.)*"|[^")]*?)\s*\)\s*(?:([=!<>]+)\s*(.*))?$/s;
const FACTS = "version, createRevision, modRevision, value, lease";

function parseCondition(text: string): Compare {
  const wrong = (why: string) => new UsageError(`condition ${text}: ${why}`);
  const match = text.trim().match(CONDITION_REGEXP);
  if (match === null) {
    throw wrong(
      "write it like version(KEY) = 0, value(KEY) = TEXT, exists(KEY)",
    );
  }
  const [, fact = "", quoted = "", sign, right] = match;
  const key = unquote(quoted, wrong);
  if (key === "") throw wrong("which key?");
  if (fact === "exists" || fact === "missing") {
    if (sign !== undefined) throw wrong(`${fact} is compared with nothing`);
    const relation = fact === "exists" ? "greater" : "equal";
    return { key, version: 0, relation };
  }
  if (sign === undefined || right === undefined) {
    throw wrong("compare it: = != < >");
  }
  const relation = RELATIONS[sign];
  if (relation === undefined) {
    throw wrong(`there is no relation ${sign}, only = != < >`);
  }
  const given = unquote(right.trim(), wrong);
  switch (fact) {
    case "value":
      return { key, relation, value: given };
    case "lease":
      return {
        key,
        relation,
        lease: given === "0" ? 0n : toLease(given, `condition ${text}: lease`),
      };
    case "version":
      return { key, relation, version: toNumber(given, wrong) };
    case "createRevision":
      return { key, relation, createRevision: toNumber(given, wrong) };
    case "modRevision":
      return { key, relation, modRevision: toNumber(given, wrong) };
    default:
      throw wrong(`there is no ${fact}, only ${FACTS}, exists, missing`);
  }
}

type Wrong = (why: string) => UsageError;

function toNumber(text: string, wrong: Wrong): number {
  if (/^[0-9]{1,15}$/.test(text)) return Number(text);
  throw wrong(`${text || "nothing"} is not a whole number`);
}

function unquote(text: string, wrong: Wrong): string {
  if (!text.startsWith('"')) return text;
  try {
    return JSON.parse(text) as string;
  } catch {
    throw wrong(`${text} is not a JSON string`);
  }
}

// ------------------------------------------------------------------ operations

/** A word in quotes with all its escapes, or anything up to a space. */
const WORD_REGEXP = /\s*(?:("(?:[^"\\]|\\.)*")(?=\s|$)|(\S+))/gsy;

function parseOperation(text: string): Operation {
  const wrong = (why: string) => new UsageError(`operation ${text}: ${why}`);
  const { words, options } = splitOperation(text.trim(), wrong);
  const [name = "", ...rest] = words;
  const take = (count: number, names: string) => {
    if (rest.length === count && rest[0] !== "") return;
    const hint = rest.length > count
      ? '; text with spaces stands in quotes: "two words"'
      : "";
    throw wrong(`${name} takes ${names}${hint}`);
  };
  const [key = "", value = ""] = rest;
  const build = own(OPERATIONS, name);
  if (build === undefined) {
    throw wrong(
      `there is no ${name || "operation"}, only ${
        Object.keys(OPERATIONS).join(", ")
      }`,
    );
  }
  const operation = build({ key, value, options, take, wrong });
  const [unknown] = options.keys();
  if (unknown !== undefined) throw wrong(`${name} has no option --${unknown}`);
  return operation;
}

interface Written {
  readonly key: string;
  readonly value: string;
  /** What is used is taken out. */
  readonly options: Map<string, string>;
  readonly take: (count: number, names: string) => void;
  readonly wrong: Wrong;
}

const OPERATIONS: Readonly<Record<string, (written: Written) => Operation>> = {
  put: ({ key, value, options, take, wrong }) => {
    take(2, "KEY and VALUE");
    const lease = option(options, "lease");
    if (lease === undefined) return { type: "put", key, value };
    if (!/^[0-9]+$/.test(lease)) throw wrong(`${lease} is not a lease`);
    return { type: "put", key, value, lease: toLease(lease, "--lease") };
  },
  get: ({ key, take }) => {
    take(1, "KEY");
    return { type: "get", key };
  },
  del: ({ key, options, take }) => {
    const prefix = option(options, "prefix");
    take(prefix === undefined ? 1 : 0, "KEY, or --prefix P");
    if (prefix === undefined) return { type: "delete", key };
    return { type: "delete", prefix };
  },
  list: ({ key, options, take, wrong }) => {
    const keysOnly = option(options, "keys-only") !== undefined;
    const limit = option(options, "limit");
    take(1, "PREFIX");
    return {
      type: "list",
      prefix: key,
      keysOnly,
      ...(limit === undefined ? {} : { limit: toNumber(limit, wrong) }),
    };
  },
  add: modify("add"),
  min: modify("min"),
  max: modify("max"),
  append: ({ key, value, take }) => {
    take(2, "KEY and TEXT");
    return { type: "modify", function: "append", key, operand: value };
  },
};

/** `add sold 1`: numbers are stored as their decimal text. */
function modify(
  name: "add" | "min" | "max",
): (written: Written) => Operation {
  return ({ key, value, take, wrong }) => {
    take(2, "KEY and NUMBER");
    const operand = toInt64(value);
    if (operand === null) {
      throw wrong(`${value || "nothing"} is not a whole number of 64 bits`);
    }
    return { type: "modify", function: name, key, operand };
  };
}

function option(
  options: Map<string, string>,
  name: string,
): string | undefined {
  const value = options.get(name);
  options.delete(name);
  return value;
}

/** `--keys-only` takes no value, the other options do. */
function splitOperation(
  text: string,
  wrong: Wrong,
): { words: string[]; options: Map<string, string> } {
  const words: string[] = [];
  const options = new Map<string, string>();
  let open: string | null = null;
  for (const [, quoted, bare = ""] of text.matchAll(WORD_REGEXP)) {
    const word = quoted === undefined ? bare : unquote(quoted, wrong);
    if (quoted === undefined && /^"/.test(bare)) {
      throw wrong(`${bare} begins with a quote that is not closed`);
    }
    if (open !== null) {
      options.set(open, word);
      open = null;
    } else if (quoted !== undefined || !/^--./.test(word)) words.push(word);
    else if (word === "--keys-only") options.set("keys-only", "");
    else open = word.slice(2);
  }
  if (open !== null) throw wrong(`--${open} takes a value`);
  return { words, options };
}

// ------------------------------------------------------------------ results

function resultJson(result: OperationResult): object {
  switch (result.type) {
    case "put":
      return { type: "put", version: result.version };
    case "get":
      return {
        type: "get",
        entry: result.entry === null ? null : entryJson(result.entry),
      };
    case "delete":
      return { type: "del", deleted: result.deleted };
    case "list":
      return {
        type: "list",
        entries: result.entries.map((entry) => entryJson(entry)),
        more: result.more,
      };
    case "modify": {
      const { version, value } = result;
      return { type: "modify", version, ...field("value", value) };
    }
    default:
      return unreachable(result);
  }
}

function resultText({ succeeded, revision, results }: TransactResult): string {
  const outcome = succeeded ? green("done") : yellow("condition not met");
  const lines = results.flatMap(resultLines);
  return [`${outcome}, revision ${revision}`, ...lines].join("\n");
}

function resultLines(result: OperationResult): string[] {
  switch (result.type) {
    case "put":
      return [`put: version ${result.version}`];
    case "get": {
      const { entry } = result;
      return [`get: ${entry === null ? "no such key" : readable(entry.value)}`];
    }
    case "delete":
      return [
        `del: ${result.deleted} ${result.deleted === 1 ? "key" : "keys"}`,
      ];
    case "list":
      return result.entries.map(({ keyBytes, value }) =>
        `list: ${readable(keyBytes)}\t${readable(value)}`
      );
    case "modify":
      return [`now: ${readable(result.value)}`];
    default:
      return unreachable(result);
  }
}
