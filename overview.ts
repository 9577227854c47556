/**
 * The commands for the cluster itself: `status`, `transfer-leader`. Used by `cli.ts`.
 *
 * @module
 */

import { dim, green, red, yellow } from "@std/fmt/colors";
import { EXIT, UsageError } from "./arguments.ts";
import type { Client, NodeStatus } from "./client.ts";
import { DkvError } from "./errors.ts";
import {
  connectTo,
  endpointsOf,
  type Invocation,
  print,
} from "./invocation.ts";
import { bytesText, isDumb, oneLine, Stop, table } from "./terminal.ts";

/** How long a node may take to say how it is. */
const ASK_MS = 2000;
const INTERVAL_MS = 1000;
const INTERVAL_MS_MIN = 100;
const CLEAR = "\x1b[H\x1b[J";

/** What was learned of one node. */
export interface Row {
  readonly address: string;
  readonly status?: NodeStatus;
  /** Why there is no status. */
  readonly error?: string;
}

/** `dkv status`: a table of all nodes, also of those that only the others know. */
export async function status(invocation: Invocation): Promise<number> {
  const { args, out } = invocation;
  args.take();
  const isLive = args.flag("watch");
  const intervalMs = args.duration("interval") ?? INTERVAL_MS;
  if (!isLive && args.given.includes("interval")) {
    throw new UsageError("--interval belongs to --watch");
  }
  if (intervalMs < INTERVAL_MS_MIN) {
    throw new UsageError(`--interval is at least ${INTERVAL_MS_MIN} ms`);
  }
  const monitor = new Monitor(
    endpointsOf(args),
    Math.min(args.duration("timeout") ?? ASK_MS, ASK_MS),
  );
  using stop = new Stop();
  let rows: Row[] = [];
  do {
    rows = await monitor.ask();
    await show(invocation, rows);
    await out.flush();
    if (isLive) await stop.pause(intervalMs);
  } while (isLive && stop.told === null);
  await monitor.close();
  const isReached = rows.some(({ status }) => status !== undefined);
  return isReached ? EXIT.done : EXIT.unreachable;
}

/** Asks nodes again and again over the same connections, each once: who is dead costs no time. */
class Monitor {
  /** Given, and learned from nodes that answered. */
  readonly #addresses: string[];
  readonly #timeoutMs: number;
  /** Knows all addresses; null as long as nobody was reached. */
  #client: Client | null = null;

  constructor(addresses: readonly string[], timeoutMs: number) {
    this.#addresses = [...addresses];
    this.#timeoutMs = timeoutMs;
  }

  async ask(): Promise<Row[]> {
    const rows = await this.#askAll(this.#addresses);
    const learned = this.#learn(rows);
    if (learned.length === 0) return rows;
    this.#addresses.push(...learned);
    await this.close();
    return [...rows, ...await this.#askAll(learned)];
  }

  async close(): Promise<void> {
    await this.#client?.close();
    this.#client = null;
  }

  async #askAll(addresses: readonly string[]): Promise<Row[]> {
    const { connect } = await import("./client.ts");
    const timeoutMs = this.#timeoutMs;
    try {
      this.#client ??= await connect(this.#addresses, { timeoutMs });
    } catch (error) {
      const failure = failureOf(error);
      return addresses.map((address) => ({ address, error: failure }));
    }
    const client = this.#client;
    return await Promise.all(addresses.map(async (address) => {
      try {
        return { address, status: await client.status(address, { timeoutMs }) };
      } catch (error) {
        return { address, error: failureOf(error) };
      }
    }));
  }

  /** Members that nobody named: by id, because one node may have two names. */
  #learn(rows: readonly Row[]): string[] {
    const ids = new Set(rows.map(({ status }) => status?.nodeId));
    const members = rows.flatMap(({ status }) => status?.members ?? []);
    const unknown = members.filter(({ nodeId, address }) =>
      !ids.has(nodeId) && address !== "" && !this.#addresses.includes(address)
    );
    return [...new Set(unknown.map(({ address }) => address))].sort();
  }
}

function failureOf(error: unknown): string {
  if (!(error instanceof DkvError)) throw error;
  return oneLine(error.message);
}

async function show(
  { args, out }: Invocation,
  rows: readonly Row[],
): Promise<void> {
  if (args.flag("json")) {
    const newest = newestIndex(rows);
    for (const { address, status, error } of rows) {
      const lag = status === undefined
        ? {}
        : { lag: newest - status.appliedIndex };
      await out.line(
        JSON.stringify({ endpoint: address, ...status, ...lag, error }),
      );
    }
    return;
  }
  const isLive = args.flag("watch");
  if (isLive && out.isTerminal && !isDumb()) await out.write(CLEAR);
  if (isLive) await out.line(dim(new Date().toTimeString().slice(0, 8)));
  for (const line of statusTable(rows)) await out.line(line);
}

/** The index that an up-to-date node has applied: lag is counted from it. */
function newestIndex(rows: readonly Row[]): number {
  return Math.max(
    0,
    ...rows.map(({ status }) =>
      Math.max(status?.commitIndex ?? 0, status?.appliedIndex ?? 0)
    ),
  );
}

const HEADINGS = [
  "NODE",
  "ADDRESS",
  "ROLE",
  "TERM",
  "INDEX",
  "LAG",
  "REVISION",
  "KEYS",
  "HASH",
  "SIZE",
  "VERSION",
] as const;

/** The lines of the table, and below it whoever refuses writes. */
export function statusTable(rows: readonly Row[]): string[] {
  const newest = newestIndex(rows);
  // Of a node that does not answer the others know at least who it is.
  const ids = new Map(
    rows.flatMap(({ status }) => status?.members ?? [])
      .map(({ address, nodeId }) => [address, nodeId]),
  );
  const cells = rows.map(({ address, status }) =>
    status === undefined ? [ids.get(address) ?? "?", address, "unreachable"] : [
      status.nodeId,
      address,
      status.role,
      String(status.term),
      String(status.appliedIndex),
      String(newest - status.appliedIndex),
      String(status.revision),
      String(status.keys),
      status.stateHash,
      bytesText(status.diskBytes),
      status.version,
    ]
  );
  const refusals = rows.flatMap(({ status }) =>
    status?.writeRefusal
      ? [yellow(`${status.nodeId} refuses writes: ${status.writeRefusal}`)]
      : []
  );
  return [...table(HEADINGS, cells, paint), ...refusals];
}

function paint(line: string, [, , role]: readonly string[]): string {
  switch (role) {
    case "leader":
      return green(line);
    case "unreachable":
      return red(line);
    default:
      return line;
  }
}

/** `dkv transfer-leader [NODE]`: to this node, or to the one that is furthest. */
export async function transferLeader(invocation: Invocation): Promise<number> {
  const { args } = invocation;
  const [nodeId, ...rest] = args.words;
  if (rest.length > 0 || nodeId === "") {
    throw new UsageError("transfer-leader takes a NODE, or nothing");
  }
  await using client = await connectTo(args);
  const leader = await client.transferLeadership(nodeId);
  await print(invocation, { json: { leader }, text: `${leader} leads` });
  return EXIT.done;
}
