/**
 * How much history is kept: a leader's view of which revision was current when, and from that the
 * revision below which history may be forgotten. Used by `group.ts`.
 *
 * @module
 */

/** How finely the age of history is known: `historyMs` is divided by this. */
const SAMPLES = 64;
/** Compaction goes in steps of so many revisions: one for every few would cost more than it frees. */
const STEP_REVISIONS = 1000;

/** What a cluster wants to keep; see `config.ts`. */
export interface RetentionSettings {
  readonly historyMs: number;
  readonly historyRevisionsMax: number;
}

/** Decides what to compact, on the leader's log time. */
export class Retention {
  readonly #settings: RetentionSettings;
  /** Oldest first, at most a few more than SAMPLES. */
  #samples: { timeMs: number; revision: number }[] = [];
  /** The highest target so far: it is on its way through the log. */
  #target = 0;

  constructor(settings: RetentionSettings) {
    this.#settings = settings;
  }

  /** A new leadership knows nothing of the ages of revisions. */
  clear(): void {
    this.#samples = [];
    this.#target = 0;
  }

  /** The revision to compact to now, or null. Called every now and then with the present state. */
  due(
    now: { timeMs: number; revision: number; compactRevision: number },
  ): number | null {
    const { historyMs, historyRevisionsMax } = this.#settings;
    const { timeMs, revision, compactRevision } = now;
    const samples = this.#samples;
    const lastMs = samples.at(-1)?.timeMs ?? -Infinity;
    if (timeMs - lastMs >= historyMs / SAMPLES) {
      samples.push({ timeMs, revision });
    }
    let target = revision - historyRevisionsMax;
    while (
      samples[0] !== undefined && samples[0].timeMs <= timeMs - historyMs
    ) {
      target = Math.max(target, samples[0].revision);
      samples.shift();
    }
    const step = Math.min(STEP_REVISIONS, historyRevisionsMax / 10);
    if (target < compactRevision + step || target <= this.#target) return null;
    this.#target = target;
    return target;
  }
}
