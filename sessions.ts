/**
 * Client sessions of the store: what makes a retried write apply once. Used by `store.ts`.
 *
 * @module
 */

/** A session on disk. */
export interface SessionRow {
  /** The client's id: latin1, 1 to 32 bytes. */
  readonly client: string;
  readonly data: Uint8Array;
}

/** What the sessions need of a disk. */
export interface SessionRows {
  /** Inserts or replaces. */
  putSession(row: SessionRow): void;
  removeSession(client: string): void;
  sessions(): SessionRow[];
}
