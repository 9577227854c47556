/**
 * The network between simulated machines: one link for each direction of each pair. Used by
 * `cluster.ts`.
 *
 * @module
 */

import { decodeFrame, encodeFrame } from "../../frame.ts";
import type { Message } from "../../message.ts";
import type { Clock } from "./clock.ts";
import type { Random } from "./random.ts";

/** What the network does to messages, whichever link they take. */
export interface NetworkPlan {
  readonly delayMsMin: number;
  readonly delayMsMax: number;
  /** Of 1,000 messages. */
  readonly losses: number;
  /** Of 1,000 messages. */
  readonly duplicates: number;
  /** Messages may overtake each other. */
  readonly isReordering: boolean;
}

interface Link {
  /** How many partitions cut it. */
  cuts: number;
  /** What is sent waits until then. */
  clogUntilMs: number;
  /** When the last message arrives, where they keep their order. */
  lastMs: number;
}

/** What the network counts. */
export interface NetworkCounts {
  sent: number;
  lost: number;
  duplicated: number;
  cut: number;
}

/** The links. */
export class Network {
  plan: NetworkPlan;
  readonly counts: NetworkCounts = { sent: 0, lost: 0, duplicated: 0, cut: 0 };
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #links = new Map<string, Link>();

  constructor(plan: NetworkPlan, options: { clock: Clock; random: Random }) {
    this.plan = plan;
    this.#clock = options.clock;
    this.#random = options.random;
  }

  /** Carries a message, perhaps; `arrive` is called for each copy that arrives. */
  send(
    from: string,
    to: string,
    { delayMs, message, arrive }: {
      delayMs: number;
      message: Message;
      arrive: (message: Message) => void;
    },
  ): void {
    const link = this.#link(from, to);
    this.counts.sent++;
    if (link.cuts > 0) {
      this.counts.cut++;
      return;
    }
    const random = this.#random;
    if (random.chance(this.plan.losses)) {
      this.counts.lost++;
      return;
    }
    const isTwice = random.chance(this.plan.duplicates);
    if (isTwice) this.counts.duplicated++;
    for (let copy = 0; copy < (isTwice ? 2 : 1); copy++) {
      const { delayMsMin, delayMsMax, isReordering } = this.plan;
      const { nowMs } = this.#clock;
      let atMs = nowMs + delayMs + random.between(delayMsMin, delayMsMax);
      atMs = Math.max(atMs, link.clogUntilMs);
      if (!isReordering) atMs = link.lastMs = Math.max(atMs, link.lastMs);
      // One in a few goes through the bytes that real nodes exchange.
      const copied = random.chance(100) ? throughBytes(message) : message;
      this.#clock.after(atMs - nowMs, () => {
        if (link.cuts > 0) this.counts.cut++;
        else arrive(copied);
      });
    }
  }

  isOpen(from: string, to: string): boolean {
    const link = this.#link(from, to);
    return link.cuts === 0 && link.clogUntilMs <= this.#clock.nowMs;
  }

  cut(from: string, to: string): void {
    this.#link(from, to).cuts++;
  }

  mend(from: string, to: string): void {
    const link = this.#link(from, to);
    link.cuts = Math.max(0, link.cuts - 1);
  }

  clog(from: string, to: string, ms: number): void {
    this.#link(from, to).clogUntilMs = this.#clock.nowMs + ms;
  }

  /** Everything works again, and well. */
  heal(): void {
    for (const link of this.#links.values()) {
      link.cuts = 0;
      link.clogUntilMs = 0;
    }
    this.plan = {
      delayMsMin: 1,
      delayMsMax: 3,
      losses: 0,
      duplicates: 0,
      isReordering: false,
    };
  }

  #link(from: string, to: string): Link {
    const name = `${from}>${to}`;
    let link = this.#links.get(name);
    if (link === undefined) {
      link = { cuts: 0, clogUntilMs: 0, lastMs: 0 };
      this.#links.set(name, link);
    }
    return link;
  }
}

function throughBytes(message: Message): Message {
  if (message.type === "snapshot") return message;
  const frame = encodeFrame({
    type: "messages",
    envelopes: [{ group: "default", message }],
  });
  const decoded = decodeFrame(frame);
  return decoded.type === "messages" ? decoded.envelopes[0]!.message : message;
}
