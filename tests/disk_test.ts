import { assert, assertEquals, assertThrows } from "@std/assert";
import { Disk } from "../disk.ts";
import { AssertionError, DkvError } from "../errors.ts";
import type { Entry } from "../message.ts";
import { EMPTY_STATE, type EventRow } from "../store.ts";
import { needs, tempDir } from "./needs.ts";

const BOOTSTRAP = {
  voters: ["a", "b", "c"],
  votersOutgoing: [],
  learners: [],
  learnersNext: [],
};

function inMemory(): Disk {
  return new Disk({ path: ":memory:", bootstrap: BOOTSTRAP });
}

function batch(index: number, term = 1, text = `entry ${index}`): Entry {
  return { index, term, type: "batch", data: new TextEncoder().encode(text) };
}

function event(position: number, value = `value ${position}`): EventRow {
  const isDelete = position % 5 === 0;
  return {
    position,
    revision: position,
    key: `key\xff${position}`,
    type: isDelete ? "delete" : "put",
    createRevision: isDelete ? 0 : position,
    version: isDelete ? 0 : 1,
    lease: position % 2 === 0 && !isDelete ? 2n ** 63n - 1n : 0n,
    value: new TextEncoder().encode(isDelete ? "" : value),
  };
}

Deno.test("Disk keeps entries, terms and their kinds", () => {
  const disk = inMemory();
  const entries: Entry[] = [
    { index: 1, term: 1, type: "empty" },
    batch(2),
    {
      index: 3,
      term: 2,
      type: "configuration",
      configuration: { ...BOOTSTRAP, learners: ["d"] },
    },
  ];
  disk.appendEntries(entries, null);
  assertEquals([disk.firstIndex, disk.lastIndex], [1, 3]);
  assertEquals([0, 1, 2, 3].map((index) => disk.term(index)), [0, 1, 1, 2]);
  const read = disk.entries(1, 4, Infinity);
  assertEquals(read.map(({ type }) => type), [
    "empty",
    "batch",
    "configuration",
  ]);
  assertEquals(
    disk.entries(2, 4, 1).length,
    1,
    "at least one, however small the bound",
  );
  const [, second, third] = read;
  assert(second?.type === "batch" && third?.type === "configuration");
  assertEquals(new TextDecoder().decode(second.data), "entry 2");
  assertEquals(third.configuration.learners, ["d"]);
});

Deno.test("Disk forgets on reopen what was not committed (raft-pitfalls P1)", () => {
  const disk = inMemory();
  disk.appendEntries([batch(1)], null);
  disk.saveHardState({ term: 3, vote: "b", commit: 0 });
  disk.commit();
  disk.appendEntries([batch(2)], null);
  disk.saveHardState({ term: 4, vote: null, commit: 1 });
  disk.rows.appendEvent(event(1));
  disk.reopen();
  assertEquals(disk.lastIndex, 1);
  assertEquals(disk.hardState, { term: 3, vote: "b", commit: 0 });
  assertEquals(disk.rows.scanEvents(0, 10), []);
});

Deno.test("Disk keeps log, term and vote with a sync, and rows with a commit", () => {
  const disk = inMemory();
  const applied = (appliedIndex: number) => ({
    ...EMPTY_STATE,
    appliedIndex,
    appliedTerm: 1,
  });
  disk.appendEntries([batch(1), batch(2)], null);
  disk.saveHardState({ term: 1, vote: "a", commit: 1 });
  disk.rows.appendEvent(event(1));
  disk.saveStoreState(applied(1));
  disk.commit();
  disk.rows.appendEvent(event(2));
  disk.saveStoreState(applied(2));
  disk.dropEntries(1);
  disk.appendEntries([batch(3)], null);
  disk.saveHardState({ term: 2, vote: null, commit: 2 });
  assert(!disk.isSynced);
  disk.sync();
  assert(disk.isSynced && disk.dirty);
  for (let starts = 0; starts < 2; starts++) {
    disk.reopen();
    assertEquals(disk.hardState, { term: 2, vote: null, commit: 2 });
    // What the rows do not have yet is applied again.
    assertEquals([disk.firstIndex, disk.lastIndex], [1, 3]);
    assertEquals(disk.entries(1, 4, Infinity).length, 3);
    assertEquals(disk.storeState.appliedIndex, 1);
    assertEquals(disk.rows.scanEvents(0, 10).map(({ position }) => position), [
      1,
    ]);
    // A commit takes over what only the journal knew so far.
    disk.saveStoreState({ ...applied(1), revision: 7 + starts });
    disk.commit();
  }
});

Deno.test("Disk commits its rows when enough of the log is behind them", () => {
  const disk = new Disk({
    path: ":memory:",
    bootstrap: BOOTSTRAP,
    commitBytes: 1000,
  });
  const write = (index: number) => {
    disk.appendEntries([batch(index, 1, "x".repeat(100))], null);
    disk.rows.appendEvent(event(index));
    disk.sync();
  };
  let index = 0;
  while (index * 100 < 800) write(++index);
  disk.tidy();
  assert(disk.dirty, "too little for a commit");
  write(++index);
  write(++index);
  disk.tidy();
  assert(!disk.dirty);
  write(++index);
  disk.tidy();
  assert(disk.dirty);
  disk.commitSoon();
  disk.tidy();
  assert(!disk.dirty, "asked for");
  while (!disk.isLate) write(++index);
  disk.commit();
  assert(!disk.isLate);
});

Deno.test("Disk shows every event at once, however many were appended, and keeps all of them", () => {
  // More than one statement takes, in every remainder.
  for (const count of [1, 3, 4, 15, 16, 17, 37]) {
    const positions = Array.from({ length: count }, (_, at) => at + 1);
    const fill = (disk: Disk) => {
      for (const position of positions) disk.rows.appendEvent(event(position));
      return disk;
    };
    const scanned = (disk: Disk) =>
      disk.rows.scanEvents(0, 100).map(({ position }) => position);
    assertEquals(scanned(fill(inMemory())), positions);
    assertEquals(fill(inMemory()).rows.readEvent(count), event(count));
    const thinned = fill(inMemory());
    thinned.rows.removeEvents([count]);
    assertEquals(scanned(thinned), positions.slice(0, -1));
    const committed = fill(inMemory());
    committed.commit();
    committed.rows.appendEvent(event(count + 1));
    committed.reopen();
    assertEquals(scanned(committed), positions);
  }
});

Deno.test("Disk cuts a conflicting tail and never what was applied", () => {
  const disk = inMemory();
  disk.appendEntries([batch(1), batch(2), batch(3)], null);
  disk.appendEntries([batch(2, 2, "other")], 2);
  assertEquals([disk.lastIndex, disk.term(2)], [2, 2]);
  disk.saveStoreState({ ...EMPTY_STATE, appliedIndex: 2, appliedTerm: 2 });
  assertThrows(
    () => disk.appendEntries([], 2),
    AssertionError,
    "applied up to 2",
  );
  assertThrows(
    () => disk.appendEntries([batch(5)], null),
    AssertionError,
    "does not follow 2",
  );
  assertThrows(
    () => disk.saveHardState({ ...disk.hardState, term: -1 }),
    AssertionError,
    "goes down",
  );
});

Deno.test("Disk drops a prefix of the log and still knows the term before it", () => {
  const disk = inMemory();
  disk.appendEntries([batch(1), batch(2), batch(3, 2)], null);
  disk.saveStoreState({ ...EMPTY_STATE, appliedIndex: 2, appliedTerm: 1 });
  assertThrows(() => disk.dropEntries(3), AssertionError, "applied up to 2");
  const before = disk.logBytes;
  disk.dropEntries(2);
  disk.commit();
  disk.reopen();
  assertEquals([disk.firstIndex, disk.lastIndex, disk.term(2)], [3, 3, 1]);
  assert(disk.logBytes > 0 && disk.logBytes < before, "the log has shrunk");
  assertThrows(
    () => disk.entries(2, 4, Infinity),
    AssertionError,
    "the log holds 3 to 3",
  );
});

Deno.test("Disk gives rows back as they were, 63-bit leases and all bytes included", () => {
  const disk = inMemory();
  const rows = [1, 2, 3, 4, 5].map((position) => event(position));
  for (const row of rows) disk.rows.appendEvent(row);
  disk.commit();
  for (const row of rows) {
    const read = disk.rows.readEvent(row.position);
    assertEquals({ ...read, value: [...read.value] }, {
      ...row,
      value: [...row.value],
    });
  }
  assertEquals(disk.rows.scanEvents(3, 2).map(({ position }) => position), [
    3,
    4,
  ]);
  disk.rows.removeEvents([2, 3]);
  assertEquals(disk.rows.scanEvents(0, 9).map(({ position }) => position), [
    1,
    4,
    5,
  ]);
  assertThrows(() => disk.rows.readEvent(3), DkvError, "event 3 is missing");

  disk.rows.putLease({ lease: 2n ** 62n, ttlMs: 5000, deadlineMs: 9000 });
  disk.rows.putLease({ lease: 7n, ttlMs: 1, deadlineMs: 2 });
  disk.rows.removeLease(7n);
  assertEquals(disk.rows.leases(), [{
    lease: 2n ** 62n,
    ttlMs: 5000,
    deadlineMs: 9000,
  }]);
  let data = new Uint8Array([1]);
  disk.rows.putSession("\x00\xff", () => data);
  disk.rows.putSession("gone", () => data);
  disk.rows.removeSession("gone");
  data = new Uint8Array([1, 2]);
  const [session] = disk.rows.sessions();
  assertEquals([session?.client, [...session?.data ?? []]], ["\x00\xff", [
    1,
    2,
  ]]);
  disk.rows.putSession("\x00\xff", () => new Uint8Array([9]));
  disk.reopen();
  assertEquals(disk.rows.sessions(), []);
  data = new Uint8Array([3, 4]);
  disk.rows.putUser({ kind: "user", name: "\x00\xff", data });
  disk.rows.putUser({
    kind: "role",
    name: "\x00\xff",
    data: new Uint8Array(0),
  });
  disk.rows.putUser({ kind: "role", name: "other", data });
  disk.rows.putUser({ kind: "role", name: "\x00\xff", data });
  disk.rows.removeUser({ kind: "role", name: "other" });
  assertEquals(
    disk.rows.users().map((row) => ({ ...row, data: [...row.data] })),
    [
      { kind: "role", name: "\x00\xff", data: [3, 4] },
      { kind: "user", name: "\x00\xff", data: [3, 4] },
    ],
  );
});

needs(
  ["read", "write"],
  "Disk keeps what was committed when the process dies",
  async () => {
    await using temp = await tempDir();
    const directory = temp.path;
    const path = `${directory}/group.db`;
    const disk = new Disk({ path, bootstrap: BOOTSTRAP });
    disk.appendEntries([batch(1)], null);
    disk.saveHardState({ term: 1, vote: "a", commit: 0 });
    disk.commit();
    disk.appendEntries([batch(2)], null);
    disk.abandon();
    const again = new Disk({ path, bootstrap: BOOTSTRAP });
    assertEquals([again.lastIndex, again.hardState.vote], [1, "a"]);
    assertThrows(
      () => new Disk({ path, bootstrap: BOOTSTRAP }),
      DkvError,
      "in use by another process",
    );
    again.close();
  },
);

needs(
  ["read", "write"],
  "Disk refuses a file of another format, and says what to do",
  async () => {
    await using temp = await tempDir();
    const path = `${temp.path}/group.db`;
    const disk = new Disk({ path, bootstrap: BOOTSTRAP });
    disk.rows.appendEvent(event(1));
    disk.close();
    const { DatabaseSync } = await import("node:sqlite");
    const db = new DatabaseSync(path);
    db.exec("PRAGMA user_version=1");
    db.close();
    assertThrows(
      () => new Disk({ path, bootstrap: BOOTSTRAP }),
      DkvError,
      "has format 1, this version of dkv reads format 3: export",
    );
  },
);

needs(
  ["read", "write"],
  "Disk finds every damaged row (raft-pitfalls P12)",
  async () => {
    await using temp = await tempDir();
    const directory = temp.path;
    const { DatabaseSync } = await import("node:sqlite");
    const damages = [
      "UPDATE event SET value = x'00'",
      "UPDATE event SET meta = x'00'",
      "UPDATE event SET position = 2",
      "UPDATE state SET data = replace(data, '1', '2') WHERE name = 'hard'",
      "UPDATE user SET data = x'00'",
      "UPDATE user SET name = x'6b'",
      "UPDATE user SET kind = 'role'",
    ];
    for (const [at, damage] of damages.entries()) {
      const path = `${directory}/${at}.db`;
      const disk = new Disk({ path, bootstrap: BOOTSTRAP });
      disk.appendEntries([batch(1)], null);
      disk.saveHardState({ term: 1, vote: null, commit: 1 });
      disk.rows.appendEvent(event(1));
      disk.rows.appendEvent(event(2));
      disk.rows.putUser({ kind: "user", name: "u", data: new Uint8Array([1]) });
      disk.close();
      const db = new DatabaseSync(path);
      db.exec(damage);
      db.close();
      const error = assertThrows(
        () => {
          const damaged = new Disk({ path, bootstrap: BOOTSTRAP });
          try {
            damaged.verify();
            damaged.rows.scanEvents(0, 10);
            damaged.rows.users();
          } finally {
            damaged.abandon();
          }
        },
        DkvError,
        "checksum",
        damage,
      );
      assertEquals(error.code, "DATA_CORRUPT");
    }
  },
);

needs(
  ["read", "write"],
  "Disk installs a snapshot and keeps its own vote (raft-pitfalls S6)",
  async () => {
    await using temp = await tempDir();
    const directory = temp.path;
    const { backup, DatabaseSync } = await import("node:sqlite");
    const leader = new Disk({
      path: `${directory}/leader.db`,
      bootstrap: BOOTSTRAP,
    });
    leader.appendEntries([batch(1), batch(2)], null);
    leader.saveHardState({ term: 9, vote: "a", commit: 2 });
    leader.rows.appendEvent(event(1));
    leader.saveStoreState({
      ...EMPTY_STATE,
      appliedIndex: 2,
      appliedTerm: 1,
      revision: 1,
      position: 1,
    });
    leader.saveConfiguration({ ...BOOTSTRAP, learners: ["d"] }, 2);
    leader.commit();
    const reader = new DatabaseSync(leader.path);
    await backup(reader, `${directory}/copy.db`);
    await backup(reader, `${directory}/damaged.db`);
    reader.close();
    leader.close();
    const damaged = new DatabaseSync(`${directory}/damaged.db`);
    damaged.exec("UPDATE event SET value = x'00'");
    damaged.close();
    assertThrows(
      () => Disk.describe(`${directory}/damaged.db`, BOOTSTRAP),
      DkvError,
      "fails its checksum",
    );
    const meta = Disk.describe(`${directory}/copy.db`, BOOTSTRAP);
    assertEquals([meta.index, meta.term, meta.configuration.learners], [
      2,
      1,
      ["d"],
    ]);

    const follower = new Disk({
      path: `${directory}/follower.db`,
      bootstrap: BOOTSTRAP,
    });
    follower.appendEntries([batch(1, 1, "diverged")], null);
    follower.saveHardState({ term: 10, vote: "c", commit: 0 });
    follower.commit();
    assertThrows(
      () =>
        follower.installSnapshot(`${directory}/copy.db`, {
          ...meta,
          index: 3,
        }),
      DkvError,
      "not 3 of term 1 as announced",
    );
    follower.installSnapshot(`${directory}/copy.db`, meta);
    assertEquals(follower.hardState, { term: 10, vote: "c", commit: 2 });
    assertEquals(
      [follower.firstIndex, follower.lastIndex, follower.term(2)],
      [3, 2, 1],
    );
    assertEquals(follower.storeState.appliedIndex, 2);
    assertEquals(follower.configuration.configuration.learners, ["d"]);
    assertEquals(follower.rows.scanEvents(0, 9).length, 1);
    follower.appendEntries([batch(3, 10)], null);
    follower.close();
    const again = new Disk({
      path: `${directory}/follower.db`,
      bootstrap: BOOTSTRAP,
    });
    assertEquals([again.firstIndex, again.lastIndex, again.hardState.vote], [
      3,
      3,
      "c",
    ]);
    again.close();
  },
);

Deno.test("Disk copies what is committed, and installs the copy of another with its own vote", () => {
  const leader = inMemory();
  leader.appendEntries([batch(1), batch(2, 2)], null);
  leader.rows.appendEvent(event(1));
  leader.saveStoreState({ ...EMPTY_STATE, appliedIndex: 2, appliedTerm: 2 });
  leader.saveHardState({ term: 2, vote: "a", commit: 2 });
  assertThrows(() => leader.copy(), AssertionError);
  leader.commit();
  const image = leader.copy();
  leader.appendEntries([batch(3, 2)], null);

  const follower = inMemory();
  follower.saveHardState({ term: 5, vote: "c", commit: 0 });
  const meta = { index: 2, term: 2, configuration: BOOTSTRAP };
  assertThrows(
    () => follower.installCopy(image, { ...meta, index: 3 }),
    DkvError,
    "not 3 of term 2",
  );
  follower.installCopy(image, meta);
  follower.reopen();
  assertEquals([follower.firstIndex, follower.lastIndex], [3, 2]);
  assertEquals(follower.hardState, { term: 5, vote: "c", commit: 2 });
  assertEquals(follower.rows.readEvent(1), event(1));
  follower.appendEntries([batch(3, 5)], null);
  follower.commit();
  assertEquals(
    new Disk({ path: ":memory:", bootstrap: BOOTSTRAP, image, isCopy: true })
      .storeState.appliedIndex,
    2,
  );
});
