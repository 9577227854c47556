/**
 * Runs etcdctl commands on two servers and compares what it prints and how it ends, apart from
 * what names a server: ids, addresses, sizes, times. Used by `tests/etcdctl_test.ts`; the commands
 * are in `ctl_commands.ts`.
 *
 * @module
 */

import { type Outcome, run } from "./program.ts";

/** One command. A text is split at spaces. */
export interface Command {
  /** `$name` stands for what an earlier command captured. */
  readonly args: string | readonly string[];
  /** For its standard input. */
  readonly input?: string;
  /** Keeps what the first group of an expression finds in the output: `["lease", /lease (\w+)/]`. */
  readonly capture?: readonly [name: string, regexp: RegExp];
  /** For a command that goes on by itself: it is ended when it has printed as many lines. */
  readonly untilLines?: number;
  /** Makes equal what may differ in this command alone. */
  readonly normalise?: (text: string) => string;
}

/** A command or its arguments. */
export type CommandLike = Command | string;

/** Commands that may run side by side. */
export type Group = readonly CommandLike[];

/** What a command came to on both servers. */
export interface Compared {
  readonly command: string;
  readonly left: string;
  readonly right: string;
}

/** How many commands of a group run at a time. */
const CONCURRENT = 4;
/** A command that goes on by itself and has not printed enough by then has failed. */
const LINES_MS_MAX = 10_000;

const NORMAL: readonly (readonly [RegExp, string])[] = [
  // Log lines of the client, with times.
  [/^\{"level":.*\n/gm, ""],
  [/127\.0\.0\.1:\d+/g, "ADDRESS"],
  [/"(cluster_id|member_id|raft_term)":\d+/g, '"$1":0'],
  [/"(ClusterID|MemberID|RaftTerm)" : \d+/g, '"$1" : 0'],
  // Ids of leases and members: after a name in decimal, elsewhere in hexadecimal. Both are without
  // leading zeros, and a short decimal one could be taken for a hexadecimal one.
  [/("\w+" ?: ?)\d{11,20}\b/g, "$10"],
  [/ *\b[0-9a-f]{11,16}\b/g, " ID"],
  [/took = \S+/g, "took = TIME"],
  [/remaining\(\d+s\)/g, "remaining(TIME)"],
  [/"ttl":\d+/g, '"ttl":0'],
];

/**
 * Lists that etcd tells in an order that differs from run to run: keys of a lease as a hash table has
 * them, members by numbers that depend on the time. What is in the list must be there.
 */
const IN_ANY_ORDER: readonly (readonly [RegExp, string])[] = [
  [/attached keys\(\[(.*?)\]\)/g, " "],
  [/ETCD_INITIAL_CLUSTER="(.*?)"/g, ","],
  [/((?: ID, (?:un)?started, .*\n?)+)/g, "\n"],
];

/** One server, and what commands on it have captured. */
export class Ctl {
  readonly address: string;
  readonly #captured = new Map<string, string>();

  /** `$dir` stands for a directory to write in. */
  constructor(address: string, { dir }: { dir: string }) {
    this.address = address;
    this.#captured.set("dir", dir);
  }

  /** Runs a command and returns what it came to, for comparison. */
  async run(like: CommandLike): Promise<string> {
    const command = typeof like === "string" ? { args: like } : like;
    const args = this.#args(command);
    const input = command.input === undefined
      ? {}
      : { input: this.#filled(command.input) };
    const { code, stdout, stderr } = command.untilLines === undefined
      ? await run("etcdctl", args, input)
      : await runUntil(args, { ...input, untilLines: command.untilLines });
    const out = latin1(stdout);
    if (command.capture !== undefined) {
      const [name, regexp] = command.capture;
      this.#captured.set(name, regexp.exec(out)?.[1] ?? "nothing");
    }
    const text = `${out}── exit ${code}\n${latin1(stderr)}`;
    const dir = this.#captured.get("dir") ?? "";
    return (command.normalise ?? same)(normal(text.replaceAll(dir, "DIR")));
  }

  #args({ args }: Command): string[] {
    const list = typeof args === "string" ? args.split(" ") : args;
    return [
      `--endpoints=${this.address}`,
      ...list.map((arg) => this.#filled(arg)),
    ];
  }

  /** A text with what was captured; other names are those of a shell. */
  #filled(text: string): string {
    return text.replace(
      /\$(\w+)/g,
      (all, name) => this.#captured.get(name) ?? all,
    );
  }
}

/** Runs all groups on both, one after the other, and returns where they differ. */
export async function compareCommands(
  groups: readonly Group[],
  [left, right]: readonly [Ctl, Ctl],
): Promise<Compared[]> {
  const runAll = async (ctl: Ctl): Promise<string[]> => {
    const texts: string[] = [];
    for (const group of groups) {
      for (let at = 0; at < group.length; at += CONCURRENT) {
        const some = group.slice(at, at + CONCURRENT);
        texts.push(...await Promise.all(some.map((like) => ctl.run(like))));
      }
    }
    return texts;
  };
  const [lefts, rights] = await Promise.all([runAll(left), runAll(right)]);
  return groups.flat().flatMap((like, at) => {
    const [l = "", r = ""] = [lefts[at], rights[at]];
    return l === r ? [] : [{ command: commandText(like), left: l, right: r }];
  });
}

/** A command as a person would type it. */
export function commandText(like: CommandLike): string {
  const { args, input } = typeof like === "string" ? { args: like } : like;
  const line = typeof args === "string" ? args : args.join(" ");
  return input === undefined ? line : `${line} <<< ${JSON.stringify(input)}`;
}

/** Differences for a person. */
export function tellCompared(compared: readonly Compared[]): string {
  return compared.map(({ command, left, right }) =>
    `etcdctl ${command}\n── etcd\n${left}── the other\n${right}`
  ).join("\n");
}

/** Runs a command that goes on by itself until it has printed enough, then asks it to end. */
async function runUntil(
  args: readonly string[],
  { untilLines, input }: { untilLines: number; input?: string },
): Promise<Outcome> {
  const child = new Deno.Command("etcdctl", {
    args: [...args],
    env: { ETCDCTL_API: "3" },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  if (input !== undefined) {
    await writer.write(new TextEncoder().encode(input));
  }
  const end = (signal: Deno.Signal) => {
    try {
      child.kill(signal);
    } catch (error) {
      // It has ended by itself.
      if (!(error instanceof TypeError)) throw error;
    }
  };
  const timer = setTimeout(() => end("SIGKILL"), LINES_MS_MAX);
  const stderr = new Response(child.stderr).bytes();
  const chunks: Uint8Array[] = [];
  let lines = 0;
  for await (const chunk of child.stdout) {
    chunks.push(chunk);
    const before = lines;
    lines += chunk.filter((byte) => byte === 10).length;
    if (before < untilLines && lines >= untilLines) end("SIGTERM");
  }
  clearTimeout(timer);
  await child.status;
  await writer.close().catch(() => {});
  return {
    // How it ends after a signal is its own affair.
    code: 0,
    stdout: new Uint8Array(await new Blob(chunks as BlobPart[]).arrayBuffer()),
    stderr: await stderr,
  };
}

/** What a command printed, without what names a server. */
export function normal(text: string): string {
  const replaced = NORMAL.reduce(
    (rest, [regexp, otherwise]) => rest.replace(regexp, otherwise),
    text,
  );
  return IN_ANY_ORDER.reduce(
    (rest, [regexp, separator]) =>
      rest.replace(
        regexp,
        (all, list: string) =>
          all.replace(list, () => list.split(separator).sort().join(separator)),
      ),
    replaced,
  );
}

function same(text: string): string {
  return text;
}

function latin1(bytes: Uint8Array): string {
  return new TextDecoder("latin1").decode(bytes);
}
