/**
 * Writers that keep account: every write has a key of its own or a counter in its value, and is
 * acknowledged, refused or of unknown outcome. At the end every acknowledged write must be there.
 *
 * @module
 */

import { assert } from "@std/assert";
import { eventually, type TestCluster } from "./cluster.ts";

/** gRPC statuses after which a write certainly did not happen; see the table in errors.ts. */
const NO_EFFECT_CODES = new Set(["NO_LEADER", "NOT_LEADER", "OVERLOADED"]);
const CALL_MS = 3000;

interface WireEntry {
  readonly value: Uint8Array;
}

/** Puts ever higher numbers under its own keys, through one node after the other. */
export class Writers implements AsyncDisposable {
  readonly #cluster: TestCluster;
  readonly #prefix: string;
  readonly #through: readonly string[] | null;
  readonly #loops: Promise<void>[] = [];
  /** For each key the last number that was acknowledged and the last that was tried. */
  readonly #keys = new Map<string, { acknowledged: number; tried: number }>();
  #stopping = false;
  #acknowledged = 0;
  #lastAcknowledgedMs = performance.now();
  #longestGapMs = 0;

  constructor(
    cluster: TestCluster,
    options: {
      prefix?: string;
      writers?: number;
      /** Which nodes to write through; default: all that run. */
      through?: readonly string[];
    } = {},
  ) {
    this.#cluster = cluster;
    this.#through = options.through ?? null;
    this.#prefix = options.prefix ?? "load";
    for (let at = 0; at < (options.writers ?? 8); at++) {
      this.#loops.push(this.#run(at));
    }
  }

  /** Writes that were acknowledged so far. */
  get acknowledged(): number {
    return this.#acknowledged;
  }

  /** The longest time in which no write was acknowledged. */
  get longestGapMs(): number {
    const now = performance.now();
    return Math.max(this.#longestGapMs, now - this.#lastAcknowledgedMs);
  }

  /** Waits until so many more writes are acknowledged. */
  async more(count: number): Promise<void> {
    const target = this.#acknowledged + count;
    await eventually(
      `${count} more acknowledged writes`,
      () => this.#acknowledged >= target,
    );
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    await Promise.all(this.#loops);
  }

  /** Reads every key from every running node: what was acknowledged must be there. */
  async verify(): Promise<void> {
    for (const id of this.#cluster.running()) {
      for (const [key, { acknowledged, tried }] of this.#keys) {
        const found = await this.#read(id, key);
        assert(
          found >= acknowledged && found <= tried,
          `${id} has ${found} under ${key}: acknowledged ${acknowledged}, tried ${tried}`,
        );
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #run(at: number): Promise<void> {
    const key = `${this.#prefix}/${at}`;
    const account = { acknowledged: 0, tried: 0 };
    this.#keys.set(key, account);
    for (let node = at; !this.#stopping; node++) {
      const ids = this.#cluster.running().filter((id) =>
        this.#through?.includes(id) ?? true
      );
      const id = ids[node % ids.length];
      if (id === undefined) {
        await pause();
        continue;
      }
      const outcome = await this.#put(id, key, account.tried + 1);
      // What may have happened counts as tried; what certainly did not can be tried again.
      if (outcome !== "failed") account.tried++;
      if (outcome !== "done") {
        await pause();
        continue;
      }
      account.acknowledged = account.tried;
      this.#acknowledged++;
      const now = performance.now();
      this.#longestGapMs = Math.max(
        this.#longestGapMs,
        now - this.#lastAcknowledgedMs,
      );
      this.#lastAcknowledgedMs = now;
    }
  }

  async #put(
    id: string,
    key: string,
    number: number,
  ): Promise<"done" | "failed" | "unknown"> {
    const request = { key: bytes(key), value: bytes(String(number)) };
    try {
      await this.#cluster.call(id, "KeyValue.Put", request, CALL_MS);
      return "done";
    } catch (error) {
      const [code] = (error as { metadata?: { get(name: string): unknown[] } })
        .metadata?.get("dkv-code") ?? [];
      return NO_EFFECT_CODES.has(String(code)) ? "failed" : "unknown";
    }
  }

  async #read(id: string, key: string): Promise<number> {
    const { entry } = await eventually(
      `${id} answers a read`,
      () =>
        this.#cluster.call<{ entry: WireEntry | null }>(
          id,
          "KeyValue.Get",
          { key: bytes(key) },
        ),
    );
    return entry === null ? 0 : Number(new TextDecoder().decode(entry.value));
  }
}

/** The bytes of a text. */
export function bytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** A writer that was refused does not hammer on the node that refused. */
function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 20));
}
