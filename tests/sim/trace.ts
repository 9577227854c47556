/**
 * The last events of a run, in columns: what a person reads when a seed fails. Used by all of the
 * simulator.
 *
 * ```text
 *    12345  n1      send      append n1>n2 t4 prev 17/3 entries 18..19 commit 16
 *    12347  n2      commit    18 t4
 *    12350  fault   partition n1 | n2 n3
 * ```
 *
 * @module
 */

import type { Message } from "../../message.ts";

interface Line {
  readonly atMs: number;
  readonly who: string;
  readonly what: string;
  readonly detail: string | Message;
}

/** A ring of lines; formatted only when they are printed. */
export class Trace {
  readonly #lines: Line[] = [];
  readonly #linesMax: number;
  #next = 0;

  constructor(linesMax = 4000) {
    this.#linesMax = linesMax;
  }

  add(
    atMs: number,
    line: { who: string; what: string; detail: string | Message },
  ): void {
    this.#lines[this.#next % this.#linesMax] = { atMs, ...line };
    this.#next++;
  }

  /** The last `count` lines, oldest first. */
  last(count: number): string[] {
    const lines: string[] = [];
    const from = Math.max(0, this.#next - Math.min(count, this.#linesMax));
    for (let i = from; i < this.#next; i++) {
      const { atMs, who, what, detail } = this.#lines[i % this.#linesMax]!;
      const text = typeof detail === "string" ? detail : describe(detail);
      lines.push(
        `${String(atMs).padStart(8)}  ${who.padEnd(8)} ${
          what.padEnd(10)
        } ${text}`,
      );
    }
    return lines;
  }
}

/** A message in one line. */
export function describe(message: Message): string {
  const head = `${message.type} ${message.from}>${message.to} t${message.term}`;
  switch (message.type) {
    case "append": {
      const { previousIndex, previousTerm, entries, commit } = message;
      const range = entries.length === 0
        ? "none"
        : `${entries[0]!.index}..${entries.at(-1)!.index}`;
      return `${head} after ${previousIndex}/${previousTerm} entries ${range} commit ${commit}`;
    }
    case "appendReply":
      return `${head} index ${message.index}`;
    case "appendReject":
      return `${head} at ${message.index} hint ${message.hintIndex}/${message.hintTerm} last ${message.lastIndex}`;
    case "heartbeat":
      return `${head} commit ${message.commit} round ${message.readRound}`;
    case "heartbeatReply":
      return `${head} round ${message.readRound}`;
    case "vote":
      return `${head}${message.preVote ? " pre" : ""}${
        message.transfer ? " transfer" : ""
      } last ${message.lastIndex}/${message.lastTerm}`;
    case "voteReply":
      return `${head}${message.preVote ? " pre" : ""} ${
        message.granted ? "granted" : "refused"
      }`;
    case "readIndex":
      return `${head} id ${message.id}`;
    case "readIndexReply":
      return `${head} id ${message.id} index ${message.index}`;
    case "snapshot":
      return `${head} at ${message.meta.index}/${message.meta.term}`;
    case "forward":
      return `${head} ids ${message.commands.map(({ id }) => id).join(" ")}`;
    case "forwardRefused":
      return `${head} ids ${message.ids.join(" ")} ${message.code}`;
    case "timeoutNow":
      return head;
    case "transferLeadership":
      return `${head} target ${message.target}`;
    case "configure":
      return `${head} ${JSON.stringify(message.change)}`;
  }
}
