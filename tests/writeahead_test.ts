import { assert, assertEquals } from "@std/assert";
import { RowFile } from "../rowfile.ts";
import type { CheckpointHelper } from "../writeahead.ts";
import { needs, tempDir } from "./needs.ts";
import { commitRow, countOf } from "./rowfiles.ts";

/** Without a reserve. */
const LIMIT_BYTES = 1024 * 1024;
const COMMITS_MAX = 5000;

/** Does what a test says when it is asked for a copy. */
class FakeHelper implements CheckpointHelper {
  state: CheckpointHelper["state"] = "idle";
  begun = 0;
  settled = 0;
  readonly #onBegin: (helper: FakeHelper, path: string) => void;

  constructor(onBegin: (helper: FakeHelper, path: string) => void) {
    this.#onBegin = onBegin;
  }

  begin(path: string): void {
    assertEquals(this.state, "idle");
    this.begun++;
    this.#onBegin(this, path);
  }

  settle(): void {
    this.settled++;
    if (this.state !== "absent") this.state = "idle";
  }

  close(): void {
    this.settle();
    this.state = "absent";
  }
}

/** A file with rows, whose commits are small. */
class Station implements AsyncDisposable {
  readonly rows: RowFile;
  readonly path: string;
  readonly #dir: AsyncDisposable;
  #isClosed = false;

  private constructor(
    dir: { path: string } & AsyncDisposable,
    helper: CheckpointHelper,
  ) {
    this.#dir = dir;
    this.path = `${dir.path}/group.db`;
    this.rows = new RowFile({ path: this.path, helper });
  }

  static async open(helper: CheckpointHelper): Promise<Station> {
    return new Station(await tempDir(), helper);
  }

  commit(): void {
    commitRow(this.rows, 2000);
  }

  commitUntil(what: string, isReached: () => boolean): void {
    for (let commits = 0; commits < COMMITS_MAX; commits++) {
      if (isReached()) return;
      this.commit();
    }
    throw new Error(`not after ${COMMITS_MAX} commits: ${what}`);
  }

  /** Grows with checkpoints alone. */
  get fileBytes(): number {
    return Deno.statSync(this.path).size;
  }

  /** The most that it was. */
  get walBytes(): number {
    return Deno.statSync(`${this.path}-wal`).size;
  }

  close(): void {
    this.#isClosed = true;
    this.rows.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#isClosed) this.rows.abandon();
    await this.#dir[Symbol.asyncDispose]();
  }
}

needs(
  ["read", "write"],
  "WriteAheadLog leaves copying to its helper, and begins anew when all is copied",
  async () => {
    const { DatabaseSync } = await import("node:sqlite");
    const helper = new FakeHelper((helper) => helper.state = "working");
    /** As a worker would: while the next transaction is open. */
    const copy = (path: string) => {
      if (helper.state !== "working") return;
      const db = new DatabaseSync(path);
      db.exec("PRAGMA wal_checkpoint(PASSIVE)");
      db.close();
      helper.state = "idle";
    };
    await using station = await Station.open(helper);
    station.commitUntil("asks for a copy", () => helper.begun > 0);
    assert(station.walBytes < LIMIT_BYTES / 3, `${station.walBytes} bytes`);
    assertEquals(helper.settled, 0);
    station.commitUntil("a commit ends it", () => {
      copy(station.path);
      return helper.settled > 0;
    });
    const most = station.walBytes;
    assert(most >= LIMIT_BYTES && most < LIMIT_BYTES * 1.2, `${most} bytes`);
    const { begun } = helper;
    assert(begun >= 3 && begun <= 5, `asked ${begun} times`);
    station.commitUntil("the next one", () => {
      copy(station.path);
      return helper.settled > 1;
    });
    assert(station.walBytes < most * 1.05, `${most}, ${station.walBytes}`);
    assert(helper.begun > begun);
    const count = countOf(station.rows);
    station.close();
    const again = new RowFile({ path: station.path });
    assertEquals(countOf(again), count);
    again.verify();
    again.close();
  },
);

needs(
  ["read", "write"],
  "WriteAheadLog waits for a helper that is behind, and then copies it all",
  async () => {
    const helper = new FakeHelper((helper) => helper.state = "working");
    await using station = await Station.open(helper);
    const { fileBytes } = station;
    station.commitUntil("waits for the helper", () => {
      if (helper.settled === 0) assertEquals(station.fileBytes, fileBytes);
      return helper.settled > 0;
    });
    const { walBytes } = station;
    assert(
      walBytes > LIMIT_BYTES * 1.2 && walBytes < LIMIT_BYTES * 1.3,
      `${walBytes} bytes`,
    );
    assert(station.fileBytes > fileBytes);
    // Anew, and in small parts again.
    assertEquals([helper.state, helper.begun], ["idle", 1]);
    station.commitUntil("asks for a copy", () => helper.begun === 2);
    assertEquals(station.walBytes, walBytes);
  },
);

needs(
  ["read", "write"],
  "WriteAheadLog copies in the turn what its helper failed to copy",
  async () => {
    const helper = new FakeHelper((helper) => helper.state = "failed");
    await using station = await Station.open(helper);
    const { fileBytes } = station;
    station.commitUntil("asks for a copy", () => helper.begun === 1);
    assertEquals(station.fileBytes, fileBytes);
    station.commit();
    assert(station.fileBytes > fileBytes);
    assertEquals([helper.state, helper.settled], ["idle", 1]);
  },
);

needs(
  ["read", "write"],
  "WriteAheadLog copies in the turn when its helper is gone",
  async () => {
    const helper = new FakeHelper((helper) => helper.state = "absent");
    await using station = await Station.open(helper);
    const { fileBytes } = station;
    station.commitUntil("it is copied", () => station.fileBytes > fileBytes);
    const { walBytes } = station;
    assert(walBytes >= LIMIT_BYTES && walBytes < LIMIT_BYTES * 1.2);
    assertEquals(helper.begun, 1);
  },
);

needs(
  ["read", "write"],
  "RowFile waits for the helper before its file makes room, is replaced or is closed",
  async () => {
    const helper = new FakeHelper((helper) => helper.state = "working");
    await using station = await Station.open(helper);
    const { rows } = station;
    const begin = () => {
      const { begun } = helper;
      station.commitUntil("asks for a copy", () => helper.begun > begun);
      return helper.settled;
    };
    let settled = begin();
    rows.checkpoint();
    assertEquals(helper.settled, settled + 1);

    await using other = await Station.open(new FakeHelper(() => {}));
    other.commit();
    other.rows.fold();
    other.rows.abandon();
    settled = begin();
    rows.replaceBy(other.path);
    assertEquals(helper.settled, settled + 1);
    assertEquals(countOf(rows), 1);

    begin();
    station.close();
    assertEquals(helper.state, "absent");
  },
);
