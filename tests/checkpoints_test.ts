import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { Checkpoints } from "../checkpoints.ts";
import type { DkvError } from "../errors.ts";
import { RowFile } from "../rowfile.ts";
import { eventually } from "./cluster.ts";
import { has, needs, tempDir } from "./needs.ts";
import { commitRow, countOf } from "./rowfiles.ts";
import { mayMount, SmallDisks } from "./small_disks.ts";

const MIB = 1024 * 1024;
/** Real checkpoints, and what they tell of. */
function observed(startWorker?: () => Worker) {
  const problems: DkvError[] = [];
  const lost: string[] = [];
  const checkpoints = new Checkpoints({
    onProblem: (error) => problems.push(error),
    onLost: (reason) => lost.push(reason),
    ...startWorker === undefined ? {} : { startWorker },
  });
  return { checkpoints, problems, lost };
}

function commit(rows: RowFile): void {
  commitRow(rows, 8000);
}

/** Its size says when: a part of the log. */
function commitUntilBegun(rows: RowFile, checkpoints: Checkpoints): void {
  assertEquals(checkpoints.state, "idle");
  while (checkpoints.state === "idle") commit(rows);
}

async function idle(checkpoints: Checkpoints): Promise<void> {
  await eventually("it is over", () => checkpoints.state !== "working");
}

/** What is left of a write-ahead log that nobody has copied, in frames. */
async function framesOf(path: string) {
  const { DatabaseSync } = await import("node:sqlite");
  const db = new DatabaseSync(path);
  const row = db.prepare("PRAGMA wal_checkpoint(NOOP)").get();
  db.close();
  return row as { log: number; checkpointed: number };
}

needs(
  ["read", "write"],
  "Checkpoints: the worker copies what is committed while a transaction is open",
  async () => {
    await using dir = await tempDir();
    const path = `${dir.path}/group.db`;
    const { checkpoints, problems } = observed();
    const rows = new RowFile({ path, helper: checkpoints });
    commitUntilBegun(rows, checkpoints);
    await idle(checkpoints);
    assertEquals(checkpoints.state, "idle");
    const { log, checkpointed } = await framesOf(path);
    assert(checkpointed > 0, `${checkpointed} of ${log} frames`);
    assertEquals(log, checkpointed, "nothing was committed since");
    assertEquals(problems, []);
    const count = countOf(rows);
    rows.close();
    assertEquals(checkpoints.state, "absent");
    const again = new RowFile({ path });
    assertEquals(countOf(again), count);
    again.close();
  },
);

needs(
  ["read", "write"],
  "Checkpoints: a crash at any moment of one loses nothing that was committed",
  async () => {
    await using dir = await tempDir();
    const path = `${dir.path}/group.db`;
    const { checkpoints } = observed();
    const rows = new RowFile({ path, helper: checkpoints });
    let working = 0;
    let framesBefore = 0;
    let isAnew = false;
    for (let copies = 0; copies < 2000; copies++) {
      if (working >= 5 && isAnew) break;
      commit(rows);
      const copy = `${dir.path}/copy.db`;
      // What a process that dies now leaves behind. The worker writes into the first file alone.
      Deno.copyFileSync(path, copy);
      Deno.copyFileSync(`${path}-wal`, `${copy}-wal`);
      if (checkpoints.state === "working") working++;
      const { log } = await framesOf(path);
      isAnew ||= log < framesBefore;
      framesBefore = log;
      const after = new RowFile({ path: copy });
      assertEquals(countOf(after), countOf(rows));
      after.verify();
      after.abandon();
    }
    assert(working >= 5, `${working} copies while the worker was at work`);
    assert(isAnew, "the log never began anew");
    rows.close();
  },
);

needs(
  ["read", "write"],
  "Checkpoints: a disk closes in the middle of one",
  async () => {
    await using dir = await tempDir();
    for (const end of ["close", "abandon"] as const) {
      const path = `${dir.path}/${end}.db`;
      const { checkpoints, lost, problems } = observed();
      const rows = new RowFile({
        path,
        helper: checkpoints,
      });
      commitUntilBegun(rows, checkpoints);
      // Its worker has hardly started.
      const count = countOf(rows);
      rows[end]();
      assertEquals(checkpoints.state, "absent");
      const again = new RowFile({ path });
      assertEquals(countOf(again), count);
      again.verify();
      again.close();
      assertEquals([lost, problems], [[], []]);
    }
  },
);

needs(
  ["read", "write"],
  "Checkpoints: closing waits for the worker, however long it takes",
  async () => {
    await using dir = await tempDir();
    const path = `${dir.path}/group.db`;
    const slow = `onmessage = ({ data: { path, state } }) => {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100);
      Deno.writeTextFileSync(path, "copied");
      Atomics.store(state, 0, 0);
      Atomics.notify(state, 0);
    };`;
    const { checkpoints, lost } = observed(() =>
      new Worker(`data:text/javascript,${encodeURIComponent(slow)}`, {
        type: "module",
      })
    );
    checkpoints.begin(path);
    checkpoints.settle();
    assertEquals(Deno.readTextFileSync(path), "copied");
    Deno.removeSync(path);
    checkpoints.begin(path);
    checkpoints.close();
    assertEquals(Deno.readTextFileSync(path), "copied");
    assertEquals(lost, []);
  },
);

needs(
  ["read", "write"],
  "Checkpoints: damage and a failing disk end the node, with the reason",
  async () => {
    await using dir = await tempDir();
    const damaged = `${dir.path}/damaged.db`;
    Deno.writeFileSync(damaged, new Uint8Array(8192).fill(7));
    const cases = [
      { path: damaged, code: "DATA_CORRUPT" },
      { path: `${dir.path}/no-such-folder/group.db`, code: "INTERNAL" },
    ];
    for (const { path, code } of cases) {
      const { checkpoints, problems } = observed();
      checkpoints.begin(path);
      await eventually("it is told", () => problems.length > 0);
      assertEquals(checkpoints.state, "failed");
      assertEquals(problems.map((problem) => problem.code), [code]);
      assertStringIncludes(problems[0]?.message ?? "", path);
      checkpoints.close();
    }
  },
);

needs(
  ["read", "write"],
  "Checkpoints: without its worker the commits make them",
  async () => {
    await using dir = await tempDir();
    const path = `${dir.path}/group.db`;
    const { checkpoints, lost, problems } = observed(() =>
      new Worker("data:text/javascript,throw new Error('no worker')", {
        type: "module",
      })
    );
    const rows = new RowFile({ path, helper: checkpoints });
    commitUntilBegun(rows, checkpoints);
    await eventually("it is told", () => lost.length > 0);
    assertStringIncludes(lost[0] ?? "", "no worker");
    assertEquals([checkpoints.state, problems], ["absent", []]);
    const { size } = Deno.statSync(path);
    for (let commits = 0; commits < 200; commits++) commit(rows);
    assert(Deno.statSync(path).size > size + MIB / 2);
    rows.close();
  },
);

const name = "Checkpoints: a full disk is found out by the worker, and heals";
if (has(["read", "write", "mount"]) && !mayMount()) {
  Deno.test.ignore(`${name} (ignored: needs the right to mount)`, () => {});
} else {
  needs(["read", "write", "mount"], name, async () => {
    await using dir = await tempDir();
    using disks = new SmallDisks(dir.path, { ids: ["a"], bytes: 24 * MIB });
    await Deno.mkdir(disks.dataDir("a"));
    const path = `${disks.dataDir("a")}/group.db`;
    const { checkpoints, problems } = observed();
    const rows = new RowFile({
      path,
      walReserveBytes: 8 * MIB,
      helper: checkpoints,
    });
    disks.addBallast("a", 0);
    commitUntilBegun(rows, checkpoints);
    await idle(checkpoints);
    assertEquals([checkpoints.state, rows.full], ["failed", false]);
    commit(rows);
    assertEquals([checkpoints.state, rows.full], ["idle", true]);
    // It is not asked again before there is space, and commits go on in the reserve.
    for (let commits = 0; commits < 200; commits++) commit(rows);
    assertEquals([checkpoints.state, rows.exhausted], ["idle", false]);
    disks.dropBallast("a");
    rows.checkpoint();
    assertEquals(rows.full, false);
    commitUntilBegun(rows, checkpoints);
    await idle(checkpoints);
    assertEquals([checkpoints.state, problems], ["idle", []]);
    const count = countOf(rows);
    rows.close();
    const again = new RowFile({ path });
    assertEquals(countOf(again), count);
    again.close();
  });
}
