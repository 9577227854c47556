/**
 * The words behind `dkv`: which options there are, how they are read, and what is said about wrong
 * ones. Used by every module of the command line.
 *
 * ```text
 *   dkv lock jobs/nightly --ttl 30s -- backup --all
 *       ──── ──────────── ─────────    ────────────
 *    command    words      options        after
 * ```
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { assert } from "./errors.ts";

/** What the process ends with. A signal ends it with 128 and its number, as in a shell. */
export const EXIT = {
  done: 0,
  /** Not found, or a condition was not met; of `node`: it failed. */
  notFound: 1,
  usage: 2,
  unreachable: 3,
  error: 4,
  interrupted: 130,
  terminated: 143,
} as const;

/** One option. */
export interface OptionSpec {
  /** `flag` takes no value; `list` may be given several times. */
  readonly kind: "flag" | "text" | "list";
  /** What stands for the value in help. */
  readonly value?: string;
  readonly about: string;
}

/** Every option of every command: a name means the same everywhere. */
export const OPTIONS = {
  endpoints: {
    kind: "text",
    value: "HOST:PORT,…",
    about: "nodes to talk to; default: $DKV_ENDPOINTS, or three on 127.0.0.1",
  },
  timeout: {
    kind: "text",
    value: "TIME",
    about: "give up after so long: 800, 5s, 2m; default 5s",
  },
  json: { kind: "flag", about: "print JSON, one object on each line" },
  serializable: {
    kind: "flag",
    about: "read what the node has, which may be stale",
  },
  help: { kind: "flag", about: "print help" },
  file: {
    kind: "text",
    value: "FILE",
    about: "read it from a file; - is the standard input",
  },
  lease: {
    kind: "text",
    value: "ID",
    about: "attach the key to a lease: it vanishes with it",
  },
  revision: {
    kind: "text",
    value: "N",
    about: "read as of this revision; watch: begin with it",
  },
  prefix: {
    kind: "text",
    value: "P",
    about: "all keys that begin with P",
  },
  from: { kind: "text", value: "KEY", about: "keys from this one on" },
  to: { kind: "text", value: "KEY", about: "keys up to and without this one" },
  limit: { kind: "text", value: "N", about: "stop after so many" },
  reverse: { kind: "flag", about: "from the last key to the first" },
  "keys-only": { kind: "flag", about: "leave values out" },
  if: {
    kind: "list",
    value: "CONDITION",
    about: "must hold; several: all of them",
  },
  then: { kind: "list", value: "OPERATION", about: "done if they hold" },
  else: { kind: "list", value: "OPERATION", about: "done if they do not" },
  ttl: {
    kind: "text",
    value: "TIME",
    about: "how long it outlives a holder that vanished; default 10s",
  },
  wait: {
    kind: "text",
    value: "TIME",
    about: "give up waiting after so long; default: never",
  },
  once: { kind: "flag", about: "renew once, not until Ctrl-C" },
  keys: { kind: "flag", about: "tell the attached keys too" },
  leader: { kind: "flag", about: "print who leads, and end" },
  observe: { kind: "flag", about: "print who leads whenever that changes" },
  watch: { kind: "flag", about: "keep the table up to date until Ctrl-C" },
  interval: {
    kind: "text",
    value: "TIME",
    about: "how often --watch asks; default 1s",
  },
  resume: { kind: "flag", about: "go on where this import was interrupted" },
  "skip-lines": {
    kind: "text",
    value: "N",
    about: "begin behind so many lines",
  },
  clients: {
    kind: "text",
    value: "N",
    about: "callers at the same time; default 64",
  },
  seconds: {
    kind: "text",
    value: "N",
    about: "how long puts, and then gets, are measured; default 3",
  },
  "value-bytes": {
    kind: "text",
    value: "N",
    about: "size of each value; default 100",
  },
  id: { kind: "text", value: "ID", about: "which node of the configuration" },
  config: {
    kind: "text",
    value: "FILE",
    about: "the configuration; default config/nodes.json",
  },
  data: { kind: "text", value: "DIR", about: "where the node keeps its data" },
  rejoin: {
    kind: "flag",
    about: "come back as a new member, after the disk was lost",
  },
  "log-level": {
    kind: "text",
    value: "LEVEL",
    about: "debug, info, warn or error; default info",
  },
} as const satisfies Readonly<Record<string, OptionSpec>>;

/** The name of an option, without its dashes. */
export type OptionName = keyof typeof OPTIONS;

type NamesOf<Kind extends OptionSpec["kind"]> = {
  [Name in OptionName]: (typeof OPTIONS)[Name]["kind"] extends Kind ? Name
    : never;
}[OptionName];

/** A mistake in the arguments: exit code 2. */
export class UsageError extends Error {
  override name = "UsageError";
  /** Whose help to read; empty for that of all. */
  command = "";
}

/** What cannot be done although the arguments are right: exit code 4. */
export class Refusal extends Error {
  override name = "Refusal";
}

type Given = string | boolean | string[] | undefined;

/** A command line that was split. */
export class Arguments {
  /** Empty if there is none. */
  readonly command: string;
  /** What is no option, without the command. */
  readonly words: readonly string[];
  /** What stands behind `--`; null if there are no such dashes. */
  readonly after: readonly string[] | null;
  readonly #options: Readonly<Record<string, Given>>;

  constructor(
    fields: Pick<Arguments, "command" | "words" | "after"> & {
      options: Readonly<Record<string, Given>>;
    },
  ) {
    this.command = fields.command;
    this.words = fields.words;
    this.after = fields.after;
    this.#options = fields.options;
  }

  /** The options that were given. */
  get given(): OptionName[] {
    const isGiven = (name: OptionName) => {
      const value = this.#options[name];
      return Array.isArray(value)
        ? value.length > 0
        : value !== undefined && value !== false;
    };
    return (Object.keys(OPTIONS) as OptionName[]).filter(isGiven);
  }

  /** True if the flag was given. */
  flag(name: NamesOf<"flag">): boolean {
    return this.#options[name] === true;
  }

  /** The value of an option, which may not be empty; undefined if it was not given. */
  text(name: NamesOf<"text">): string | undefined {
    const value = this.#options[name];
    if (value === undefined) return undefined;
    if (value === "") throw new UsageError(`--${name} takes a value`);
    return String(value);
  }

  /** The same, and it may be empty: for prefixes. */
  textOrEmpty(name: NamesOf<"text">): string | undefined {
    const value = this.#options[name];
    return value === undefined ? undefined : String(value);
  }

  /** The values of an option that may be given several times. */
  texts(name: NamesOf<"list">): readonly string[] {
    const values = this.#options[name];
    return Array.isArray(values) ? values : [];
  }

  /** A whole number. */
  number(
    name: NamesOf<"text">,
    { min = 0, max = 999_999_999_999_999 } = {},
  ): number | undefined {
    const text = this.textOrEmpty(name);
    if (text === undefined) return undefined;
    const number = Number(text);
    if (!/^[0-9]{1,15}$/.test(text) || number < min || number > max) {
      const range = min > 0 ? ` from ${min} to ${max}` : "";
      throw new UsageError(
        `--${name} takes a whole number${range}, not ${text || "nothing"}`,
      );
    }
    return number;
  }

  /** A time in milliseconds. */
  duration(name: NamesOf<"text">): number | undefined {
    const text = this.textOrEmpty(name);
    return text === undefined ? undefined : toDurationMs(text, `--${name}`);
  }

  /** The id of a lease. */
  lease(name: NamesOf<"text">): bigint | undefined {
    const text = this.textOrEmpty(name);
    return text === undefined ? undefined : toLease(text, `--${name}`);
  }

  /** All words, of which there must be these. */
  take<Names extends readonly string[]>(
    ...names: Names
  ): { [Name in keyof Names]: string } {
    const words = [...this.words, ...this.after ?? []];
    if (words.length !== names.length || words[0] === "") {
      const takes = names.length === 0 ? "nothing" : names.join(" and ");
      throw new UsageError(`${this.command} takes ${takes}`);
    }
    return words as { [Name in keyof Names]: string };
  }
}

const UNIT_MS: Readonly<Record<string, number>> = {
  "": 1,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/** `800` and `800ms`, `5s`, `2m`, `1h`, `7d`. `name` says whose value it is. */
export function toDurationMs(text: string, name: string): number {
  const [, count, unit = ""] = text.match(/^([0-9]{1,9})(ms|[smhd])?$/) ?? [];
  const unitMs = UNIT_MS[unit];
  if (count === undefined || unitMs === undefined) {
    throw new UsageError(
      `${name} takes a time like 800ms, 5s or 2m, not ${text || "nothing"}`,
    );
  }
  return Number(count) * unitMs;
}

/** The id of a lease: 63 bits, decimal. */
export function toLease(text: string, name: string): bigint {
  const isNumber = /^[0-9]{1,19}$/.test(text);
  if (!isNumber || BigInt(text) === 0n || BigInt(text) >= 2n ** 63n) {
    throw new UsageError(
      `${name} takes the id of a lease, not ${text || "nothing"}`,
    );
  }
  return BigInt(text);
}

/** A whole number of 64 bits, with its sign; null if it is none. */
export function toInt64(text: string): bigint | null {
  if (!/^-?[0-9]{1,19}$/.test(text)) return null;
  const number = BigInt(text);
  return BigInt.asIntN(64, number) === number ? number : null;
}

/** What a table has under a name that somebody typed; `constructor` is in no table. */
export function own<Value>(
  table: Readonly<Record<string, Value>>,
  name: string,
): Value | undefined {
  return Object.hasOwn(table, name) ? table[name] : undefined;
}

/** What a command says of itself, as far as its arguments go. */
export interface Takes {
  readonly options: readonly OptionName[];
}

/**
 * Splits a command line.
 *
 * @throws {UsageError} if the command or an option does not exist, with what may have been meant.
 */
export function parse(
  args: readonly string[],
  { commands, synonyms }: {
    commands: Readonly<Record<string, Takes>>;
    synonyms: Readonly<Record<string, string>>;
  },
): Arguments {
  // `deno task dkv -- put` passes the two dashes on.
  const line = args[0] === "--" ? args.slice(1) : args;
  const dashes = line.indexOf("--");
  const before = dashes < 0 ? line : line.slice(0, dashes);
  const unknown: string[] = [];
  const { _: all, ...options } = split(before, unknown);
  const [command = "", ...words] = all.map(String);
  const after = dashes < 0 ? null : line.slice(dashes + 1);
  const parsed = new Arguments({ command, words, after, options });
  const takes = own(commands, command);
  if (takes === undefined && command !== "") {
    const meant = own(synonyms, command) ??
      closest(command, Object.keys(commands));
    throw new UsageError(`There is no command ${command}${question(meant)}`);
  }
  const allowed = takes?.options ?? ["help"];
  const [first = parsed.given.find((name) => !allowed.includes(name))] =
    unknown;
  if (first === undefined) return parsed;
  const error = new UsageError(optionText(first, { command, allowed }));
  error.command = command;
  throw error;
}

function split(args: readonly string[], unknown: string[]) {
  const named = (kind: OptionSpec["kind"]) =>
    Object.entries(OPTIONS).filter(([, option]) => option.kind === kind)
      .map(([name]) => name);
  return parseArgs([...args], {
    string: ["_", ...named("text"), ...named("list")],
    boolean: named("flag"),
    collect: named("list"),
    alias: { help: "h" },
    unknown: (arg) => {
      if (!/^-./s.test(arg)) return true;
      unknown.push(arg);
      return false;
    },
  }) as unknown as { _: (string | number)[] } & Record<string, Given>;
}

function optionText(
  given: string,
  { command, allowed }: { command: string; allowed: readonly OptionName[] },
): string {
  const name = given.replace(/^-+/, "").replace(/=.*/s, "");
  const shown = given.startsWith("-") ? given.replace(/=.*/s, "") : `--${name}`;
  if (/^-[0-9.]/.test(given)) {
    return `There is no option ${shown}; a value that begins with a dash stands behind --`;
  }
  const meant = closest(name, allowed);
  const dashed = meant === undefined ? undefined : `--${meant}`;
  const whose = command === "" ? "There is" : `${command} has`;
  return `${whose} no option ${shown}${question(dashed)}`;
}

function question(meant: string | undefined): string {
  return meant === undefined ? "" : `; did you mean ${meant}?`;
}

/** The word that was probably meant: few typing mistakes away, or begun like this. */
export function closest(
  word: string,
  among: readonly string[],
): string | undefined {
  const most = word.length <= 3 ? 1 : 2;
  let best: { candidate: string; mistakes: number } | undefined;
  for (const candidate of among) {
    const mistakes = mistakesBetween(word.toLowerCase(), candidate);
    if (mistakes > most || mistakes >= (best?.mistakes ?? Infinity)) continue;
    best = { candidate, mistakes };
  }
  if (best !== undefined || word.length < 2) return best?.candidate;
  return among.find((candidate) => candidate.startsWith(word));
}

/** Characters that are missing, too many, wrong, or have changed places (Damerau and Levenshtein). */
function mistakesBetween(a: string, b: string): number {
  // rows[i][j]: between the first i characters of `a` and the first j of `b`.
  const rows = Array.from(
    { length: a.length + 1 },
    (_, i) => Array.from({ length: b.length + 1 }, (_, j) => i === 0 ? j : i),
  );
  const at = (i: number, j: number) => {
    const mistakes = rows[i]?.[j];
    assert(mistakes !== undefined, `No cell ${i}, ${j}`);
    return mistakes;
  };
  for (let i = 1; i <= a.length; i++) {
    for (let j = 1; j <= b.length; j++) {
      const wrong = a[i - 1] === b[j - 1] ? 0 : 1;
      let least = Math.min(
        at(i - 1, j) + 1,
        at(i, j - 1) + 1,
        at(i - 1, j - 1) + wrong,
      );
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] &&
        a[i - 2] === b[j - 1];
      if (swapped) least = Math.min(least, at(i - 2, j - 2) + 1);
      (rows[i] as number[])[j] = least;
    }
  }
  return at(a.length, b.length);
}
