/**
 * The commands with which programs keep out of each other's way: `lease`, `lock`, `elect`. Used by
 * `cli.ts`.
 *
 * @module
 */

import { bold, dim } from "@std/fmt/colors";
import {
  type Arguments,
  EXIT,
  own,
  toDurationMs,
  toLease,
  UsageError,
} from "./arguments.ts";
import type { Client, Entry, Lock } from "./client.ts";
import { DkvError } from "./errors.ts";
import {
  connectTo,
  type Invocation,
  missing,
  print,
  type Run,
} from "./invocation.ts";
import { entryJson, field } from "./records.ts";
import { note, oneLine, readable, Stop } from "./terminal.ts";

/** How long a command that is told to end may take. */
const END_MS_MAX = 5000;
/** What a shell ends with when it does not find a command, or may not run it. */
const EXIT_NOT_FOUND = 127;
const EXIT_NOT_RUNNABLE = 126;

// ------------------------------------------------------------------ leases

const LEASE_ACTIONS: Readonly<Record<string, Run>> = {
  grant,
  revoke,
  "keep-alive": keepAlive,
  ttl: timeToLive,
};

/** `dkv lease grant TIME`, `revoke ID`, `keep-alive ID`, `ttl ID`; 1 if there is no such lease. */
export async function lease(invocation: Invocation): Promise<number> {
  const [name = "", ...rest] = invocation.args.words;
  const run = own(LEASE_ACTIONS, name);
  if (run === undefined || rest.length !== 1) {
    throw new UsageError(
      "lease takes grant TIME, revoke ID, keep-alive ID or ttl ID",
    );
  }
  try {
    return await run(invocation);
  } catch (error) {
    const isGone = error instanceof DkvError &&
      error.code === "LEASE_NOT_FOUND";
    if (!isGone) throw error;
    return missing(oneLine(error.message));
  }
}

function leaseOf({ words }: Arguments): bigint {
  return toLease(words[1] ?? "", `lease ${words[0]}`);
}

async function grant(invocation: Invocation): Promise<number> {
  const { args } = invocation;
  const wantedMs = toDurationMs(args.words[1] ?? "", "lease grant");
  await using client = await connectTo(args);
  const { lease, ttlMs } = await client.grant({ ttlMs: wantedMs });
  await print(invocation, {
    json: { lease: lease.toString(), ttlMs },
    // The id alone, so that a script can keep it.
    text: lease.toString(),
  });
  return EXIT.done;
}

async function revoke(invocation: Invocation): Promise<number> {
  const lease = leaseOf(invocation.args);
  await using client = await connectTo(invocation.args);
  await client.revoke(lease);
  await print(invocation, {
    json: { lease: lease.toString() },
    text: `lease ${lease} revoked`,
  });
  return EXIT.done;
}

async function keepAlive(invocation: Invocation): Promise<number> {
  const { args, out } = invocation;
  const lease = leaseOf(args);
  using stop = new Stop();
  await using client = await connectTo(args, { stop });
  while (true) {
    const { signal } = stop;
    const { ttlMs } = await client.keepAlive(lease, { signal });
    await print(invocation, {
      json: { lease: lease.toString(), ttlMs },
      text: `lease ${lease} lives for ${ttlMs} ms`,
    });
    await out.flush();
    if (args.flag("once")) return EXIT.done;
    await stop.pause(ttlMs / 3);
    if (stop.told !== null) return EXIT.done;
  }
}

async function timeToLive(invocation: Invocation): Promise<number> {
  const { args } = invocation;
  const lease = leaseOf(args);
  const withKeys = args.flag("keys");
  await using client = await connectTo(args);
  const { ttlMs: grantedTtlMs, remainingMs, keys } = await client.timeToLive(
    lease,
    {
      withKeys,
    },
  );
  const lines = keys.map((key) => `\n${readable(key)}`).join("");
  await print(invocation, {
    json: {
      lease: lease.toString(),
      grantedTtlMs,
      remainingMs,
      ...(withKeys ? { keys: keys.map((key) => field("key", key)) } : {}),
    },
    text: `${remainingMs} ms of ${grantedTtlMs} ms left${lines}`,
  });
  return EXIT.done;
}

// ------------------------------------------------------------------ locks

/**
 * `dkv lock NAME -- COMMAND`: runs a command while it holds a lock, and ends with what the command
 * ends with; without a command it holds the lock until Ctrl-C.
 */
export async function lock(invocation: Invocation): Promise<number> {
  const { args } = invocation;
  const [name, ...rest] = args.words;
  if (!name || rest.length > 0) {
    throw new UsageError("lock takes NAME, and a command behind --");
  }
  if (args.after?.length === 0) {
    throw new UsageError("lock takes a command behind --");
  }
  const times = timesOf(args);
  using stop = new Stop();
  await using client = await connectTo(args, { stop });
  let held: Lock;
  try {
    held = await client.lock(name, { ...times, signal: stop.signal });
  } catch (error) {
    const isTaken = error instanceof DkvError &&
      error.code === "DEADLINE_EXCEEDED" && times.waitMs !== undefined;
    if (isTaken) return missing(oneLine(error.message));
    throw error;
  }
  try {
    return args.after === null
      ? await hold(invocation, { held, stop })
      : await runUnder(held, { command: args.after, stop });
  } finally {
    await giveBack(held);
  }
}

function timesOf(args: Arguments): { ttlMs?: number; waitMs?: number } {
  const ttlMs = args.duration("ttl");
  const waitMs = args.duration("wait");
  return {
    ...(ttlMs === undefined ? {} : { ttlMs }),
    ...(waitMs === undefined ? {} : { waitMs }),
  };
}

/** The work is done: that the cluster cannot be told just now does not undo it. */
async function giveBack(held: { release(): Promise<void> }): Promise<void> {
  try {
    await held.release();
  } catch (error) {
    if (!(error instanceof DkvError)) throw error;
    note(`dkv: the lock will end by itself: ${oneLine(error.message)}`);
  }
}

/** Something that is held: a lock or a leadership. */
interface Held {
  readonly key: string;
  readonly token: number;
  readonly signal: AbortSignal;
}

/** Prints key and token, and waits until it is told to stop, or the lock is lost. */
async function hold(
  invocation: Invocation,
  { held, stop }: { held: Held; stop: Stop },
): Promise<number> {
  const { key, token } = held;
  await print(invocation, {
    json: { key, token },
    text: `${bold(key)}\ttoken ${token}`,
  });
  await invocation.out.flush();
  const ended = Promise.withResolvers<number>();
  stop.follow(() => ended.resolve(EXIT.done));
  const onLost = () => ended.resolve(lost(held));
  if (held.signal.aborted) onLost();
  held.signal.addEventListener("abort", onLost);
  const code = await ended.promise;
  held.signal.removeEventListener("abort", onLost);
  return code;
}

function lost({ key, signal }: Held): number {
  const { reason } = signal;
  const why = reason instanceof Error ? reason.message : String(reason);
  note(`dkv: ${key} is lost: ${oneLine(why)}`);
  return EXIT.error;
}

async function runUnder(
  held: Held,
  { command: [command = "", ...args], stop }: {
    command: readonly string[];
    stop: Stop;
  },
): Promise<number> {
  let child: Deno.ChildProcess;
  try {
    child = new Deno.Command(command, {
      args,
      env: { DKV_LOCK_KEY: held.key, DKV_LOCK_TOKEN: String(held.token) },
    }).spawn();
  } catch (error) {
    const isAbsent = error instanceof Deno.errors.NotFound;
    if (!isAbsent && !(error instanceof Deno.errors.PermissionDenied)) {
      throw error;
    }
    note(`dkv: ${command}: ${isAbsent ? "no such command" : "not allowed"}`);
    return isAbsent ? EXIT_NOT_FOUND : EXIT_NOT_RUNNABLE;
  }
  let timer: ReturnType<typeof setTimeout> | undefined;
  const onLost = () => {
    lost(held);
    signalTo(child, "SIGTERM");
    timer = setTimeout(() => signalTo(child, "SIGKILL"), END_MS_MAX);
  };
  if (held.signal.aborted) onLost();
  else held.signal.addEventListener("abort", onLost);
  // At a terminal Ctrl-C reaches the command without our help.
  stop.follow((signal) => {
    const isShared = signal === "SIGINT" && Deno.stdin.isTerminal();
    if (!isShared) signalTo(child, signal);
  });
  const { code } = await child.status;
  clearTimeout(timer);
  held.signal.removeEventListener("abort", onLost);
  return held.signal.aborted ? EXIT.error : code;
}

function signalTo(child: Deno.ChildProcess, signal: Deno.Signal): void {
  try {
    child.kill(signal);
  } catch (error) {
    // It has ended already.
    const isGone = error instanceof TypeError ||
      error instanceof Deno.errors.NotFound;
    if (!isGone) throw error;
  }
}

// ------------------------------------------------------------------ elections

/** `dkv elect NAME VALUE`: leads until Ctrl-C. `--leader` and `--observe` only look. */
export async function elect(invocation: Invocation): Promise<number> {
  const { args } = invocation;
  const isLeader = args.flag("leader");
  const isObserve = args.flag("observe");
  if (isLeader && isObserve) {
    throw new UsageError("elect takes --leader or --observe, not both");
  }
  const [name, value = ""] = isLeader || isObserve
    ? args.take("NAME")
    : args.take("NAME", "VALUE");
  const { ttlMs } = timesOf(args);
  using stop = new Stop();
  await using client = await connectTo(args, { stop });
  const asked = { client, name, invocation, stop };
  if (isLeader) return await showLeader(asked);
  if (isObserve) return await observe(asked);
  const leadership = await client.election(name).campaign(value, {
    signal: stop.signal,
    ...(ttlMs === undefined ? {} : { ttlMs }),
  });
  try {
    return await hold(invocation, { held: leadership, stop });
  } finally {
    await giveBack({ release: () => leadership.resign() });
  }
}

interface Asked {
  readonly client: Client;
  readonly name: string;
  readonly invocation: Invocation;
  readonly stop: Stop;
}

async function showLeader(
  { client, name, invocation, stop }: Asked,
): Promise<number> {
  const { signal } = stop;
  const leader = await client.election(name).leader({ signal });
  if (leader === null) return missing(`nobody leads ${name}`);
  await printLeader(invocation, leader);
  return EXIT.done;
}

async function observe(
  { client, name, invocation, stop }: Asked,
): Promise<number> {
  const { signal } = stop;
  try {
    for await (const leader of client.election(name).observe({ signal })) {
      await printLeader(invocation, leader);
      await invocation.out.flush();
    }
  } catch (error) {
    if (stop.told === null) throw error;
  }
  return EXIT.done;
}

async function printLeader(
  invocation: Invocation,
  leader: Entry | null,
): Promise<void> {
  if (leader === null) {
    return await print(invocation, { json: { leader: null }, text: dim("-") });
  }
  const isRaw = !invocation.out.isTerminal && !invocation.args.flag("observe");
  await print(invocation, {
    json: { leader: entryJson(leader), token: leader.createRevision },
    text: isRaw ? leader.value : readable(leader.value),
  });
}
