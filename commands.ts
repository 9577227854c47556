/**
 * What `dkv` can do, in words: the commands, their options and examples, and the help made of them.
 * Used by `cli.ts` and `completions.ts`.
 *
 * @module
 */

import { bold, dim } from "@std/fmt/colors";
import { type OptionName, OPTIONS, type OptionSpec } from "./arguments.ts";

/** One command. */
export interface CommandSpec {
  /** What stands behind its name. */
  readonly usage: string;
  /** Half a sentence. */
  readonly about: string;
  /** Sentences that a person should know before using it. */
  readonly details?: readonly string[];
  readonly options: readonly OptionName[];
  /** Lines for a shell; the tests run them, in this order, against a cluster. */
  readonly examples: readonly string[];
  /** What its first word can be. */
  readonly actions?: readonly string[];
  /** What it may do beside talking to nodes and reading files. */
  readonly permissions?: readonly ("run" | "write")[];
}

const CLIENT = ["endpoints", "timeout", "json", "help"] as const;
const READ = ["revision", "serializable", ...CLIENT] as const;
const KEYS = ["prefix", "from", "to"] as const;

/** In the order in which help shows them. */
export const COMMANDS = {
  put: {
    usage: "KEY VALUE",
    about: "store a value",
    details: [
      "VALUE is - to read it from the standard input. A VALUE that begins with a dash stands behind two dashes.",
    ],
    options: ["file", "lease", ...CLIENT],
    examples: [
      "dkv put greeting hello",
      "date | dkv put today -",
      "dkv put logo --file README.md",
      "dkv put temperature -- -5",
    ],
  },
  get: {
    usage: "KEY",
    about: "print a value; in a pipe byte for byte",
    options: READ,
    examples: [
      "dkv get greeting",
      "dkv get greeting --json",
    ],
  },
  list: {
    usage: "[PREFIX]",
    about: "print keys and values, in the order of the keys",
    options: [...KEYS, "limit", "reverse", "keys-only", ...READ],
    examples: [
      "dkv list --keys-only",
      "dkv list gre --limit 10",
      "dkv list --from a --to h --reverse",
    ],
  },
  watch: {
    usage: "KEY",
    about: "print changes as they happen, until Ctrl-C",
    details: [
      "Each change comes once and in order, whatever happens to nodes.",
    ],
    options: [...KEYS, "revision", "limit", ...CLIENT],
    examples: [
      "dkv watch --prefix gre --revision 1 --limit 1",
    ],
  },
  incr: {
    usage: "KEY [NUMBER]",
    about: "add to a number, and print what it is now",
    details: [
      "The number is stored as its decimal text; a key that does not exist counts as 0. A NUMBER below 0 stands behind two dashes.",
    ],
    options: CLIENT,
    examples: ["dkv incr visits", "dkv incr visits -- -1"],
  },
  txn: {
    usage: "--if CONDITION … --then OPERATION … --else OPERATION …",
    about: "do several things at once, if conditions hold",
    details: [
      "CONDITION: version(KEY), createRevision(KEY), modRevision(KEY), value(KEY) or lease(KEY), then = != < or >, then what to compare with; or exists(KEY), missing(KEY).",
      'OPERATION: put KEY VALUE [--lease ID], get KEY, del KEY, del --prefix P, list PREFIX [--limit N] [--keys-only], add KEY NUMBER, min KEY NUMBER, max KEY NUMBER, append KEY TEXT. A word with spaces is a JSON string: "two words".',
      "With - or --file it reads lines that begin with if, then or else; # begins a comment.",
      "Ends with 1 if a condition did not hold.",
    ],
    options: ["if", "then", "else", "file", ...CLIENT],
    examples: [
      "dkv txn --if 'missing(seat/12A)' --then 'put seat/12A ann' --else 'get seat/12A'",
      `printf 'if value(seat/12A) = ann\\nthen del seat/12A\\n' | dkv txn -`,
    ],
  },
  del: {
    usage: "KEY",
    about: "delete a key, or all that begin with --prefix",
    options: [...KEYS, ...CLIENT],
    examples: ["dkv del greeting", "dkv del --prefix to"],
  },
  lease: {
    usage: "grant TIME | revoke ID | keep-alive ID | ttl ID",
    about: "keys that vanish unless somebody keeps them",
    details: [
      "grant prints the id of the new lease. keep-alive renews it until Ctrl-C.",
    ],
    actions: ["grant", "revoke", "keep-alive", "ttl"],
    options: ["once", "keys", ...CLIENT],
    examples: [
      "id=$(dkv lease grant 60s)",
      "dkv put workers/7 busy --lease $id",
      "dkv lease keep-alive $id --once",
      "dkv lease ttl $id --keys",
      "dkv lease revoke $id",
    ],
  },
  lock: {
    usage: "NAME [-- COMMAND …]",
    about: "run a command while holding a lock",
    details: [
      "Ends with what COMMAND ends with. COMMAND finds DKV_LOCK_KEY and DKV_LOCK_TOKEN in its environment; the token is greater than that of every holder before. If the lock is lost, COMMAND is told to end (SIGTERM, and SIGKILL after 5 s) and dkv ends with 4. Without COMMAND it holds the lock until Ctrl-C.",
    ],
    options: ["ttl", "wait", ...CLIENT],
    permissions: ["run"],
    examples: [
      `dkv lock jobs/nightly --wait 5s -- sh -c 'echo "token $DKV_LOCK_TOKEN"'`,
    ],
  },
  elect: {
    usage: "NAME VALUE",
    about: "lead until Ctrl-C; the others wait in line",
    details: ["VALUE is what the others see of the leader."],
    options: ["ttl", "leader", "observe", ...CLIENT],
    examples: [
      "dkv elect team/lead worker-7",
      "dkv elect team/lead --leader",
    ],
  },
  status: {
    usage: "",
    about: "print a table of all nodes",
    details: [
      "INDEX is what the node has applied, LAG how many entries it is behind. Equal nodes have an equal HASH at an equal INDEX.",
    ],
    options: ["watch", "interval", ...CLIENT],
    examples: ["dkv status", "dkv status --json"],
  },
  "transfer-leader": {
    usage: "[NODE]",
    about: "let another node lead",
    details: ["Without NODE the leader chooses the one that is furthest."],
    options: CLIENT,
    examples: ["dkv transfer-leader", "dkv transfer-leader node1"],
  },
  export: {
    usage: "[PREFIX]",
    about: "write keys and values as JSON lines",
    details: [
      "All of them are as they were at one revision. Bytes that are no text stand as base64 in keyBase64 and valueBase64. With --file the file appears when it is whole.",
    ],
    options: ["file", ...KEYS, "revision", "endpoints", "timeout", "help"],
    permissions: ["write"],
    examples: [
      "dkv export > all.jsonl",
      "dkv export gre --file greetings.jsonl",
    ],
  },
  import: {
    usage: "FILE",
    about: "read what export has written",
    details: [
      "FILE is - for the standard input. A file is checked before anything is written: the line of a bad record is told, and nothing is imported. An import that was interrupted goes on with --resume; how far it was is in FILE.progress.",
    ],
    options: ["resume", "skip-lines", ...CLIENT],
    permissions: ["write"],
    examples: [
      "dkv import all.jsonl",
      "dkv export | dkv import -",
    ],
  },
  bench: {
    usage: "",
    about: "measure puts and gets",
    details: [
      "It writes under bench/ and deletes that again. One process with one connection: it measures what a program of yours would get, not the most that the cluster can do.",
    ],
    options: ["clients", "seconds", "value-bytes", ...CLIENT],
    examples: ["dkv bench --clients 8 --seconds 0.5"],
  },
  node: {
    usage: "--id ID --data DIR",
    about: "run a node of the cluster",
    details: ["Until SIGTERM or Ctrl-C. Ends with 1 if it failed."],
    options: ["id", "config", "data", "rejoin", "log-level", "help"],
    permissions: ["write"],
    examples: [],
  },
  completions: {
    usage: "bash | zsh | fish",
    about: "print what makes a shell complete commands and options",
    actions: ["bash", "zsh", "fish"],
    options: ["help"],
    examples: ['eval "$(dkv completions bash)"'],
  },
  version: {
    usage: "",
    about: "print the version",
    options: ["json", "help"],
    examples: ["dkv version"],
  },
  help: {
    usage: "[COMMAND]",
    about: "print help",
    options: ["help"],
    examples: ["dkv help put"],
  },
} as const satisfies Readonly<Record<string, CommandSpec>>;

/** The name of a command. */
export type CommandName = keyof typeof COMMANDS;

/** What people call some commands elsewhere. */
export const SYNONYMS: Readonly<Record<string, CommandName>> = {
  set: "put",
  read: "get",
  increment: "incr",
  add: "incr",
  delete: "del",
  remove: "del",
  rm: "del",
  ls: "list",
  scan: "list",
  keys: "list",
  subscribe: "watch",
  transaction: "txn",
  transact: "txn",
  election: "elect",
  "endpoint-status": "status",
  "move-leader": "transfer-leader",
  dump: "export",
  restore: "import",
  benchmark: "bench",
  completion: "completions",
};

/** True if there is such a command. */
export function isCommand(name: string): name is CommandName {
  return Object.hasOwn(COMMANDS, name);
}

/** A command as the type that all share. */
export function specOf(name: CommandName): CommandSpec {
  return COMMANDS[name];
}

const EXIT_CODES = `Exit codes:
  0  done, found
  1  not found, or a condition was not met; of node: it failed
  2  wrong usage
  3  no node reached
  4  refused, or another error
  130, 143  ended by Ctrl-C, by SIGTERM, before it was done
lock ends with what its command ends with.`;

/** Help about everything. */
export function generalHelp(): string {
  const rows = Object.entries(COMMANDS).map(([name, { about }]) =>
    `  ${name.padEnd(16)} ${about}`
  );
  const shared = optionRows([...CLIENT]);
  return `${bold("dkv")}: a distributed key-value store

Usage: dkv COMMAND [OPTIONS]

${rows.join("\n")}

${bold("dkv COMMAND --help")} says more, with examples.

Options of all commands that talk to a cluster:
${shared.join("\n")}

${EXIT_CODES}`;
}

/** Help about one command. */
export function commandHelp(name: CommandName): string {
  const { usage, about, details = [], options, examples } = specOf(name);
  const parts = [
    `${bold(`dkv ${name}`)} ${usage}`.trim(),
    `${about[0]?.toUpperCase()}${about.slice(1)}.`,
    ...details.map(wrapped),
    `Options:\n${optionRows(options).join("\n")}`,
  ];
  if (examples.length > 0) {
    parts.push(
      `Examples:\n${examples.map((line) => `  ${dim(line)}`).join("\n")}`,
    );
  }
  return parts.join("\n\n");
}

function optionRows(names: readonly OptionName[]): string[] {
  return names.map((name) => {
    const { value, about }: OptionSpec = OPTIONS[name];
    const shown = value === undefined ? `--${name}` : `--${name} ${value}`;
    return `  ${shown.padEnd(26)} ${about}`;
  });
}

const WIDTH = 80;

function wrapped(text: string): string {
  const lines = [""];
  for (const word of text.split(" ")) {
    const line = lines.at(-1) ?? "";
    if (line !== "" && line.length + 1 + word.length > WIDTH) lines.push(word);
    else lines[lines.length - 1] = line === "" ? word : `${line} ${word}`;
  }
  return lines.join("\n");
}
