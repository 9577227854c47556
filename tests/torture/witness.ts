/**
 * Reads what the nodes of a cluster print, all of it: counts what is worth counting, and notices
 * what must not be. Used by `round.ts`.
 *
 * @module
 */

import { BECAME_LEADER, exitText } from "../../launch.ts";
import type { TestCluster } from "../cluster.ts";

/** What a node prints only if it has a defect. */
const DEFECT_REGEXP =
  /broken invariant|\bdefect\b|AssertionError|panicked|Uncaught|^\s+at .*:\d+:\d+\)?$/;
const DAMAGED_REGEXP = /is damaged/;
const SNAPSHOT = "installing a snapshot";
const VIOLATIONS_MAX = 10;

/** Listens to every process that it is told of. */
export class Witness {
  readonly #cluster: TestCluster;
  readonly #onViolation: (text: string) => void;
  readonly #onLine: (id: string, line: string) => void;
  /** Whether somebody has changed bytes of a node's file. */
  readonly #isDamaged: (id: string) => boolean;
  #violations = 0;
  elections = 0;
  snapshots = 0;

  constructor(
    cluster: TestCluster,
    { onViolation, onLine, isDamaged }: {
      onViolation: (text: string) => void;
      onLine: (id: string, line: string) => void;
      isDamaged: (id: string) => boolean;
    },
  ) {
    this.#cluster = cluster;
    this.#onViolation = onViolation;
    this.#onLine = onLine;
    this.#isDamaged = isDamaged;
  }

  /** Listens to the newest process of a node, from its first line. */
  listen(id: string): void {
    const node = this.#cluster.node(id);
    for (const line of node.lines) this.#line(id, line);
    node.follow((line) => {
      if (line !== null) return this.#line(id, line);
      const { exit } = node;
      // Killed or asked to stop: whoever did that knows.
      if (exit === null || exit.signal !== null || exit.code === 0) return;
      if (this.#isDamaged(id)) return;
      const last = node.lines.at(-1) ?? "";
      this.#violation(`${id} ended by itself with ${exitText(exit)}: ${last}`);
    });
  }

  #line(id: string, line: string): void {
    this.#onLine(id, line);
    if (line.includes(BECAME_LEADER)) this.elections++;
    if (line.includes(SNAPSHOT)) this.snapshots++;
    if (DEFECT_REGEXP.test(line)) this.#violation(`${id} printed: ${line}`);
    if (DAMAGED_REGEXP.test(line) && !this.#isDamaged(id)) {
      this.#violation(`${id} has damage that nobody did: ${line}`);
    }
  }

  #violation(text: string): void {
    if (this.#violations++ < VIOLATIONS_MAX) this.#onViolation(text);
  }
}
