/**
 * The steps of the demo. Each does something, reads back what came of it, and ends the demo if that
 * is not what was promised. Used by `demo.ts`.
 *
 * @module
 */

import { bold, dim, green, yellow } from "@std/fmt/colors";
import type { Change, Client, Entry, NodeStatus, Watch } from "../client.ts";
import { assert } from "../errors.ts";
import { Load } from "./load.ts";
import { type Cell, count, type Report, seconds, tick } from "./report.ts";
import { type Player, type Stage, statuses, until } from "./stage.ts";

/** What the steps share. */
export interface Scene {
  readonly stage: Stage;
  readonly report: Report;
  /** Open since before the first step. */
  readonly watch: Watch;
  /** Every change that the steps made, in order: what the watch must see. */
  readonly changes: Made[];
}

/** A change that a step made. */
interface Made {
  readonly type: Change["type"];
  readonly key: string;
  readonly value: string;
  readonly revision: number;
}

const PLANETS: readonly (readonly [string, string])[] = [
  ["earth", "blue"],
  ["mars", "red"],
  ["pluto", "a planet"],
  ["saturn", "ringed"],
  // A second put: the key's version is 2.
  ["mars", "rusty red"],
];
const DELETED = "pluto";

const WRITERS = 8;
/** How long the writers write before the leader is killed, and after another one has taken over. */
const LOAD_MS = 1000;
/** How long a busy cluster of others may take to stand still at one index. */
const AGREE_MS = 5000;

/** Puts test data on the first node and reads it on all. */
export async function putAndRead(scene: Scene): Promise<void> {
  const { stage, report, changes } = scene;
  const first = playerAt(stage, 0);
  report.step(`Put test data on ${first.id}, read it on every node`);
  const put = new Map<string, Made & { version: number }>();
  for (const [name, value] of PLANETS) {
    const key = `${stage.prefix}planet/${name}`;
    const { revision, version } = await first.client.put(key, value);
    const made = { type: "put", key, value, revision } as const;
    put.set(key, { ...made, version });
    changes.push(made);
  }
  const found = await onAll(stage, (client) => entriesOf(client, stage.prefix));
  let right = found.every((entries) => entries.length === put.size);
  const rows = [...put.values()].toSorted((a, b) => a.key < b.key ? -1 : 1)
    .map(({ key, value, version, revision }) => {
      const cells = found.map((entries): Cell => {
        const entry = entries.find((entry) => entry.key === key);
        const same = entry?.text() === value && entry.version === version &&
          entry.modRevision === revision;
        right &&= same;
        return tick(same, entry?.text() ?? "nothing");
      });
      const short = key.slice(stage.prefix.length);
      return [bolded(short), value, `${version}`, `${revision}`, ...cells];
    });
  report.table(
    ["KEY", "VALUE", "VERSION", "REVISION", ...idsOf(stage)],
    rows,
  );
  report.verify(
    right,
    `all ${stage.players.length} nodes answer with the same values, versions and revisions`,
    "they do not",
  );
}

/** Deletes a key and looks for it on all nodes. */
export async function deleteAndLook(scene: Scene): Promise<void> {
  const { stage, report, changes } = scene;
  const { id, client } = playerAt(stage, 1);
  const key = `${stage.prefix}planet/${DELETED}`;
  report.step(`Delete planet/${DELETED} through ${id}`);
  const { revision, deleted } = await client.delete(key);
  changes.push({ type: "delete", key, value: "", revision });
  const now = await onAll(stage, (client) => client.get(key));
  const own = await onAll(
    stage,
    (client) => client.get(key, { serializable: true }),
  );
  const before = await onAll(
    stage,
    (client) => client.get(key, { revision: revision - 1 }),
  );
  const gone = (entry: Entry | null) =>
    entry === null ? "no such key" : tick(false, entry.text());
  report.table(["READ", ...idsOf(stage)], [
    [bolded("now"), ...now.map(gone)],
    [
      bolded(`at revision ${revision - 1}`),
      ...before.map((entry) => entry?.text() ?? tick(false, "no such key")),
    ],
  ]);
  const value = PLANETS.find(([name]) => name === DELETED)?.[1];
  report.verify(
    deleted === 1 && [...now, ...own].every((entry) => entry === null),
    `deleted in revision ${revision}: no node has the key any more`,
    `${deleted} deleted, ${
      now.filter((entry) => entry !== null).length
    } nodes still have it`,
  );
  report.verify(
    before.every((entry) => entry?.text() === value),
    "the revision before still has it, on every node",
    "it does not",
  );
}

/** Two clients want the same key: one transaction each, at the same time. */
export async function race(scene: Scene): Promise<void> {
  const { stage, report, changes } = scene;
  const key = `${stage.prefix}seat/12A`;
  report.step("Two clients want seat 12A, at the same time");
  report.note("if seat/12A does not exist, then put my name; else who has it?");
  console.log();
  const racers = [
    { name: "ann", player: playerAt(stage, 0) },
    { name: "bob", player: playerAt(stage, 2) },
  ];
  const outcomes = await Promise.all(
    racers.map(({ name, player }) =>
      player.client.transact({
        compares: [{ key, version: 0 }],
        then: [{ type: "put", key, value: name }],
        else: [{ type: "get", key }],
      })
    ),
  );
  const rows = racers.map(({ name, player }, at): Cell[] => {
    const { succeeded, revision, results: [result] } = outcomes[at] ??
      { succeeded: false, revision: 0, results: [] };
    const seen = result?.type === "get" ? result.entry : null;
    const told = succeeded
      ? `put in revision ${revision}`
      : `${seen?.text() ?? "nobody"} has it since revision ${
        seen?.modRevision ?? 0
      }; nothing was changed`;
    const outcome = succeeded
      ? { text: "won", paint: green }
      : { text: "lost", paint: yellow };
    return [bolded(name), player.id, outcome, told];
  });
  report.table(["CLIENT", "THROUGH", "RACE", "ANSWER"], rows);
  const winners = racers.filter((_, at) => outcomes[at]?.succeeded);
  const winner = winners[0]?.name ?? "nobody";
  report.verify(
    winners.length === 1,
    "one won and one lost, and both know",
    "",
  );
  const revision = Math.max(...outcomes.map(({ revision }) => revision));
  changes.push({ type: "put", key, value: winner, revision });
  const found = await onAll(stage, (client) => client.get(key));
  report.verify(
    found.every((entry) => entry?.text() === winner && entry.version === 1),
    `every node says that the seat is ${winner}'s, version 1`,
    found.map((entry) => entry?.text() ?? "nobody").join(", "),
  );
}

/** Shows what the watch has seen since it was opened, before the first step. */
export async function watched(scene: Scene): Promise<void> {
  const { stage, report, watch, changes } = scene;
  report.step(
    `What a watch on ${playerAt(stage, 2).id}, open from the start, has seen`,
  );
  const seen = await take(watch, changes.length);
  const rows = seen.map(({ type, revision, key, entry }): Cell[] => [
    `${revision}`,
    type === "put"
      ? { text: "put", paint: green }
      : { text: "delete", paint: yellow },
    bolded(key.slice(stage.prefix.length)),
    entry?.text() ?? "",
  ]);
  report.table(["REVISION", "CHANGE", "KEY", "VALUE"], rows);
  const same = changes.every((made, at) => {
    const change = seen[at];
    return change?.type === made.type && change.key === made.key &&
      change.revision === made.revision &&
      (change.entry?.text() ?? "") === made.value;
  });
  report.verify(
    same && seen.length === changes.length,
    `${changes.length} changes made, ${seen.length} seen, in the order of their revisions`,
    "they differ",
  );
}

/** Kills the leader while writers write, and lets it come back. */
export async function crash(scene: Scene): Promise<void> {
  const { stage, report } = scene;
  const killed = await stage.leader();
  const others = stage.players.filter(({ id }) => id !== killed);
  report.step(`kill -9 the leader, ${killed}, while ${WRITERS} writers write`);
  const addresses = others.map(({ address }) => address);
  const { address } = stage.player(killed);
  // Half of them talk to the leader, and so does a watch: they lose their node as well.
  const clients = [
    await stage.connect([address, ...addresses]),
    await stage.connect(addresses),
  ];
  const prefix = `${stage.prefix}load/`;
  const watcher = await stage.connect([address, ...addresses]);
  await using watch = watcher.watch({ prefix });
  await watch.started();
  const load = new Load(clients, { prefix, writers: WRITERS });
  await passed(load, LOAD_MS);
  const pid = stage.pid(killed);
  const killedMs = load.elapsedMs;
  await stage.kill(killed);
  const leader = await stage.leader(others);
  // Answers that were under way when the leader died still arrive: they end no gap.
  const electedMs = load.elapsedMs;
  await until(
    "writes flow again",
    () => Promise.resolve((load.timesMs.at(-1) ?? 0) > electedMs || undefined),
  );
  await passed(load, (load.timesMs.at(-1) ?? 0) + LOAD_MS);
  await load.stop();
  const gapMs = load.gapMs(killedMs);
  report.bars(load.timesMs, {
    endMs: load.elapsedMs,
    markMs: killedMs,
    mark: `${killed} killed (process ${pid}), ${leader} takes over`,
  });
  const before = load.timesMs.filter((timeMs) => timeMs < killedMs).length;
  report.verify(
    leader !== killed && load.timesMs.length > before,
    `writes stood still for ${bold(seconds(gapMs))} and went on by themselves`,
    `${killed} still leads`,
  );
  for (const { id, client } of others) {
    report.verify(
      missing(load, await entriesOf(client, prefix)).length === 0,
      `${id} has every acknowledged write: ${
        count(load.acknowledged.size, "write")
      }, 0 missing`,
      "some are missing",
    );
  }
  if (load.unknown > 0) {
    report.note(
      `${count(load.unknown, "write")} ended with "outcome unknown": never ` +
        "acknowledged, so nothing was promised",
    );
  }
  await watchedAll(report, { load, watch });
  await comeBack(scene, { killed, load });
}

/** A watch that lost its node must have seen each acknowledged write once, in order. */
async function watchedAll(
  report: Report,
  { load, watch }: { load: Load; watch: Watch },
): Promise<void> {
  const revisions = [...load.acknowledged.values()].map(({ revision }) =>
    revision
  );
  const last = Math.max(...revisions);
  const seen = new Map<string, number>();
  let ascending = true;
  let before = 0;
  await until("the watch has seen the last write", async () => {
    for await (const { key, revision } of watch) {
      ascending &&= revision > before && !seen.has(key);
      before = revision;
      seen.set(key, revision);
      if (revision >= last) return true;
    }
    return undefined;
  });
  const missed = [...load.acknowledged].filter(([key, { revision }]) =>
    seen.get(key) !== revision
  );
  report.verify(
    ascending && missed.length === 0,
    "a watch that had lost its node went on at another: each write once, in order",
    `${missed.length} missed`,
  );
}

/** Starts the killed node on the files it left, and waits until it has what the others have. */
async function comeBack(
  { stage, report }: Scene,
  { killed, load }: { killed: string; load: Load },
): Promise<void> {
  report.step(`Start ${killed} again, on the files that it left`);
  const startedMs = performance.now();
  await stage.restart(killed);
  const states = await agreed(stage);
  assert(states !== null, "The nodes of the demo do not stand still");
  const tookMs = performance.now() - startedMs;
  statusTable(report, states);
  report.verify(
    alike(states),
    `${killed} has caught up ${
      seconds(tookMs)
    } after its start: same state on every node`,
    "the state differs",
  );
  const { client } = stage.player(killed);
  const own = await entriesOf(client, load.prefix, { serializable: true });
  report.verify(
    missing(load, own).length === 0,
    `${killed}'s own copy has every acknowledged write as well`,
    "some are missing",
  );
}

/** The state of nodes that nobody may kill. */
export async function compare({ stage, report }: Scene): Promise<void> {
  report.step("The state of the nodes");
  const states = await agreed(stage, AGREE_MS).catch(() => null);
  statusTable(report, states ?? await statuses(stage.players));
  if (states === null) {
    report.note("others are writing: the nodes were never seen at one index");
  } else {
    report.verify(
      alike(states),
      "same applied index, same state on every node",
      "the state differs",
    );
  }
}

/** The nodes' state as soon as all have applied the same. */
async function agreed(
  stage: Stage,
  timeoutMs?: number,
): Promise<NodeStatus[]> {
  return await until("the nodes have applied the same", async () => {
    const states = await statuses(stage.players);
    const indexes = new Set(states.map(({ appliedIndex }) => appliedIndex));
    const led = states.every(({ leader }) => leader !== "");
    return indexes.size === 1 && led ? states : undefined;
  }, timeoutMs);
}

function alike(states: readonly NodeStatus[]): boolean {
  return new Set(states.map(({ stateHash }) => stateHash)).size === 1;
}

function statusTable(report: Report, states: readonly NodeStatus[]): void {
  const headings = [
    "NODE",
    "ROLE",
    "TERM",
    "APPLIED INDEX",
    "REVISION",
    "KEYS",
    "STATE HASH",
  ];
  const [first] = states;
  const rows = states.map((state): Cell[] => [
    bolded(state.nodeId),
    state.role === "leader"
      ? { text: state.role, paint: green }
      : { text: state.role, paint: dim },
    `${state.term}`,
    `${state.appliedIndex}`,
    `${state.revision}`,
    `${state.keys}`,
    { text: state.stateHash, paint: sameHash(state, first) },
  ]);
  report.table(headings, rows);
}

function sameHash(
  state: NodeStatus,
  first: NodeStatus | undefined,
): (text: string) => string {
  return state.stateHash === first?.stateHash ? green : yellow;
}

/** Acknowledged writes that are not among some entries. */
function missing(load: Load, entries: readonly Entry[]): string[] {
  const found = new Map(entries.map((entry) => [entry.key, entry]));
  return [...load.acknowledged].filter(([key, { value, revision }]) => {
    const entry = found.get(key);
    return entry?.text() !== value || entry.modRevision !== revision;
  }).map(([key]) => key);
}

async function entriesOf(
  client: Client,
  prefix: string,
  options: { serializable?: boolean } = {},
): Promise<Entry[]> {
  return await Array.fromAsync(client.list({ prefix, ...options }));
}

/** Lets the writers write until so long after their start. */
async function passed(load: Load, ms: number): Promise<void> {
  await until(
    "time passes",
    () => Promise.resolve(load.elapsedMs >= ms || undefined),
  );
}

/** The next changes of a watch. */
async function take(watch: Watch, wanted: number): Promise<Change[]> {
  const changes: Change[] = [];
  while (changes.length < wanted) {
    const { done, value } = await watch.next();
    if (done) break;
    changes.push(value);
  }
  return changes;
}

async function onAll<T>(
  { players }: Stage,
  ask: (client: Client) => Promise<T>,
): Promise<T[]> {
  return await Promise.all(players.map(({ client }) => ask(client)));
}

/** The player at a place; on a stage with fewer, another one. */
function playerAt({ players }: Stage, at: number): Player {
  const player = players[at % players.length];
  assert(player !== undefined, "The stage is empty");
  return player;
}

function idsOf({ players }: Stage): string[] {
  return players.map(({ id }) => id);
}

function bolded(text: string): Cell {
  return { text, paint: bold };
}
