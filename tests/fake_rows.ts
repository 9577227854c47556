/**
 * A disk for the store's tests: the rows in memory, with what SQLite would do to them (values and
 * rows are copies, scans are ordered, missing rows are errors).
 *
 * @module
 */
import { assert } from "../errors.ts";
import {
  EMPTY_STATE,
  type EventMeta,
  type EventRow,
  type LeaseRow,
  type Rows,
  type SessionRow,
  Store,
  type StoreLimits,
  type UserRow,
} from "../store.ts";

/** Small enough for tests to reach, except where said otherwise. */
export const TEST_LIMITS: StoreLimits = {
  leasesMax: 1000,
  sessionsMax: 10_000,
  sessionResultsMax: 4096,
  sessionTtlMs: 3_600_000,
  valueBytesMax: 1 << 20,
  responseBytesMax: 8 << 20,
  usersMax: 100,
  userNameBytesMax: 256,
  userBytesMax: 4096,
};

export class FakeRows implements Rows {
  /** In the order of positions. Index is position - 1; removed rows are undefined. */
  readonly #events: (EventRow | undefined)[] = [];
  readonly #leases = new Map<bigint, LeaseRow>();
  readonly #sessions = new Map<string, SessionRow>();
  readonly #users = new Map<string, UserRow>();
  /** How many values were read: a list of keys must not read any. */
  valuesRead = 0;
  /** Set to make the next write throw it. */
  failure: Error | null = null;

  /** How many rows there are. */
  get size(): number {
    return this.#events.filter((row) => row !== undefined).length;
  }

  appendEvent(row: EventRow): void {
    if (this.failure !== null) throw this.failure;
    assert(
      row.position === this.#events.length + 1,
      `Row ${row.position} after row ${this.#events.length}`,
    );
    this.#events.push({ ...row, value: row.value.slice() });
  }

  readEvent(position: number): EventRow {
    this.valuesRead++;
    const row = this.#events[position - 1];
    assert(row !== undefined, `No row ${position}`);
    return row;
  }

  removeEvents(positions: readonly number[]): void {
    for (const position of positions) {
      assert(this.#events[position - 1] !== undefined, `No row ${position}`);
      this.#events[position - 1] = undefined;
    }
  }

  scanEvents(from: number, limit: number): EventMeta[] {
    const page: EventMeta[] = [];
    for (
      let at = from - 1;
      at < this.#events.length && page.length < limit;
      at++
    ) {
      const row = this.#events[at];
      if (row === undefined) continue;
      const { value: _, ...meta } = row;
      page.push(meta);
    }
    return page;
  }

  putLease(row: LeaseRow): void {
    this.#leases.set(row.lease, { ...row });
  }

  removeLease(lease: bigint): void {
    assert(this.#leases.delete(lease), `No lease ${lease}`);
  }

  leases(): LeaseRow[] {
    return [...this.#leases.values()].reverse();
  }

  putSession(client: string, data: () => Uint8Array): void {
    this.#sessions.set(client, { client, data: data() });
  }

  removeSession(client: string): void {
    assert(this.#sessions.delete(client), `No session ${client}`);
  }

  sessions(): SessionRow[] {
    return [...this.#sessions.values()].reverse();
  }

  putUser(row: UserRow): void {
    this.#users.set(`${row.kind} ${row.name}`, {
      ...row,
      data: row.data.slice(),
    });
  }

  removeUser({ kind, name }: Pick<UserRow, "kind" | "name">): void {
    assert(this.#users.delete(`${kind} ${name}`), `No ${kind} ${name}`);
  }

  users(): UserRow[] {
    return [...this.#users.values()].reverse();
  }
}

/** An empty store on rows of its own. */
export function emptyStore(
  limits: Partial<StoreLimits> = {},
): { store: Store; rows: FakeRows } {
  const rows = new FakeRows();
  return {
    rows,
    store: Store.load(rows, EMPTY_STATE, { ...TEST_LIMITS, ...limits }),
  };
}
