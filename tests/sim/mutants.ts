/**
 * Defects that the simulator must notice, as edits of the source. Used by `scripts/mutants.ts`, which
 * makes them in a copy: nothing in the product can be switched to misbehave.
 *
 * @module
 */

/** A defect, and where to put it. */
export interface Mutant {
  readonly name: string;
  readonly what: string;
  readonly file: string;
  /** Must occur exactly once. */
  readonly find: string;
  readonly replace: string;
}

/** Row numbers in brackets are those of the list that every Raft simulator should catch. */
export const MUTANTS: readonly Mutant[] = [
  {
    name: "vote-before-disk",
    what: "a vote leaves before it is on disk [1]",
    file: "replicate.ts",
    find: "this.#reply(from, body, 0, granted ? message.term : this.#term);",
    replace: "this.#send(from, body, granted ? message.term : this.#term);",
  },
  {
    name: "acknowledge-before-disk",
    what: "an append is acknowledged before it is on disk [2]",
    file: "replicate.ts",
    find:
      'this.#reply(from, { type: "appendReply", index: verified }, verified);',
    replace: 'this.#send(from, { type: "appendReply", index: verified });',
  },
  {
    name: "commit-old-term",
    what: "an entry of an old term is committed by counting [3]",
    file: "leader.ts",
    find: "if (index < this.#firstOwnIndex) return;",
    replace: "",
  },
  {
    name: "entries-before-term",
    what: "entries are on disk before their term is [4]",
    file: "group.ts",
    find: "this.#disk.appendEntries(effect.entries, effect.truncateFrom);",
    replace:
      "this.#disk.appendEntries(effect.entries, effect.truncateFrom); this.#disk.sync();",
  },
  {
    name: "read-round-reused",
    what: "every read round has the same id [5]",
    file: "reads.ts",
    find: "this.#round += 1;",
    replace: "this.#round = 1;",
  },
  {
    name: "pre-vote-raises-term",
    what: "a pre-vote raises the term of whoever hears it [6]",
    file: "replicate.ts",
    find: "if (message.preVote) return true; // Asks only",
    replace: "// Asks only",
  },
  {
    name: "read-without-majority",
    what: "reads are answered without asking a majority (a lease for ever) [7]",
    file: "reads.ts",
    find: "if (this.#waiting.length === 0) return [];",
    replace:
      "const all = this.#waiting.splice(0).flatMap((w) => w.reads); this.#count -= all.length; if (all.length >= 0) return all;",
  },
  {
    name: "two-changes",
    what: "a change of membership may begin during another one [8]",
    file: "leader.ts",
    find: "if (latest.index > log.commit || isJoint(latest.configuration)) {",
    replace: "if (latest.index < 0) {",
  },
  {
    name: "no-deduplication",
    what: "a repeated write is applied again [9]",
    file: "store.ts",
    find: "if (answer !== null) return answer;",
    replace: 'if (answer?.type === "error") return answer;',
  },
  {
    name: "tombstone-dropped",
    what: "compaction drops a delete that a watch may start at [10]",
    file: "versions.ts",
    find: 'if (row.type === "delete" && row.revision < target) {',
    replace: 'if (row.type === "delete") {',
  },
  {
    name: "failed-write-ignored",
    what: "a failed commit is taken for a good one [11]",
    file: "group.ts",
    find: "this.#mustSync = false;\n        this.#disk.sync();",
    replace:
      "this.#mustSync = false;\n        try { this.#disk.sync(); } catch { /* ignored */ }",
  },
  {
    name: "applied-apart",
    what: "data and applied index are saved in two transactions [12]",
    file: "group.ts",
    find:
      "for (const entry of entries) this.#applyEntry(entry);\n      this.#disk.saveStoreState",
    replace:
      "for (const entry of entries) this.#applyEntry(entry);\n      this.#disk.commit();\n      this.#disk.saveStoreState",
  },
  {
    name: "leader-counts-itself-early",
    what: "a leader counts its own copy before it is on disk",
    file: "group.ts",
    find: "this.#submit();\n    this.#ask();",
    replace:
      'this.#submit();\n    this.#step({ type: "persisted", ...this.#written });\n    this.#ask();',
  },
  {
    name: "vote-for-shorter-log",
    what: "a vote is given whatever the candidate's log",
    file: "replicate.ts",
    find:
      "const granted = isFree &&\n      this.#log.isUpToDate({ index: lastIndex, term: lastTerm });",
    replace: "const granted = isFree && (lastIndex + lastTerm >= 0);",
  },
  {
    name: "two-votes",
    what: "a replica votes for two in one term",
    file: "replicate.ts",
    find: "const isFree = this.#vote === from ||",
    replace: "const isFree = this.#vote !== from || this.#vote === from ||",
  },
  {
    name: "heartbeat-commits-unverified",
    what: "a heartbeat tells the commit index to whoever has a long log",
    file: "replicate.ts",
    find: "if (this.#installing === null) this.#commitTo(message.commit);",
    replace:
      "if (this.#installing === null) this.#commitTo(Math.max(message.commit, this.#log.stable));",
  },
  {
    name: "snapshot-brings-vote",
    what: "a snapshot brings its leader's term and vote",
    file: "disk.ts",
    find: '"hard", { ...own.#hardState, commit: index }',
    replace: '"hard", { ...own.#hardState, ...this.#hardState, commit: index }',
  },
  {
    name: "forward-twice",
    what: "a forwarded command that comes again is appended again",
    file: "forwards.ts",
    find: "if (id < seen.floor || seen.ids.has(id)) continue;",
    replace: "if (id < 0) continue;",
  },
  {
    name: "requeue-too-early",
    what:
      "a write is submitted again while the first copy may still be committed",
    file: "proposals.ts",
    find: "if (proposal.term === null || proposal.term >= term) continue;",
    replace: "if (proposal.term === null || proposal.term > term) continue;",
  },
  {
    name: "void-forgotten",
    what: "a write that changed nothing may take effect when it comes again",
    file: "store.ts",
    find: "this.#sessions.remember(writeId, { result, at });",
    replace:
      'if (result.type !== "error" && !("deleted" in result && result.deleted === 0)) this.#sessions.remember(writeId, { result, at });',
  },
  {
    name: "watch-skips",
    what: "a watch that was full misses what it refused",
    file: "watch.ts",
    find: "watcher.nextRevision = pending[0]!.modRevision;",
    replace: "watcher.nextRevision = pending[0]!.modRevision + 1;",
  },
  {
    name: "watch-skips-snapshot",
    what: "a watch misses what a snapshot skipped",
    file: "watch.ts",
    find: "          this.#published + 1,\n        );",
    replace: "          store.revision + 1,\n        );",
  },
  {
    name: "log-time-of-one's-own",
    what: "a follower counts log time on its own, whatever the entries say",
    file: "logclock.ts",
    find: 'if (newest?.type === "batch") this.learn(batchTimeMs(newest.data));',
    replace: "void newest;",
  },
  {
    name: "lease-not-renewed",
    what: "a lease is not extended by keep-alives",
    file: "store.ts",
    find: "this.#leases.renew(row.lease, this.#timeMs + row.ttlMs);",
    replace: "this.#leases.renew(row.lease, row.deadlineMs);",
  },
  {
    name: "unchecked-frames",
    what: "checksums of the journal's frames are not looked at",
    file: "journalframe.ts",
    find: "if (crc !== buffer.readUInt32LE(at)) return null;",
    replace: "if (crc < 0) return null;",
  },
  {
    name: "damage-taken-for-a-crash",
    what: "a log that is damaged ends before the damage",
    file: "journal.ts",
    find: "if (!hasLaterFrame(bytes, { from, number })) return;",
    replace:
      "if (from >= 0 || !hasLaterFrame(bytes, { from, number })) return;",
  },
  {
    name: "vote-left-in-old-frames",
    what: "a commit passes over the term and vote of the frames it covers",
    file: "disk.ts",
    find: 'this.rows.save("hard", this.#hardState);',
    replace: "",
  },
  {
    name: "old-log-after-snapshot",
    what: "entries that a snapshot replaced come back with a restart",
    file: "disk.ts",
    find: "voidFrame: frame });",
    replace: "voidFrame: 0 });",
  },
  {
    name: "local-read",
    what: "a linearizable read is answered from whatever is applied",
    file: "queries.ts",
    find: "this.#confirmed.push({ index, queries: round.queries });",
    replace:
      "this.#confirmed.push({ index: index * 0, queries: round.queries });",
  },
  {
    name: "snapshot-in-later-term",
    what:
      "who led when a snapshot was asked for sends it in whatever term has come",
    file: "group.ts",
    find:
      'if (this.#core.role !== "leader" || this.#core.term !== term) return null;',
    replace: "term = this.#core.term;",
  },
];
