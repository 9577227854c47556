/**
 * Whatever happens, what was started is ended: at the end, at Ctrl-C, after an error, and when a
 * start itself fails half way. Used by `main.ts` and `growth.ts`.
 *
 * @module
 */

import { DkvError } from "../errors.ts";
import { onStop } from "../launch.ts";

/** What Ctrl-C gives, by custom. */
const INTERRUPTED = 130;

/** Everything that is running. */
export class Cleanup {
  readonly #stack = new AsyncDisposableStack();
  #ended: Promise<void> | null = null;

  /**
   * Starts something and keeps it to end it; null if there is nothing to start. An interruption waits
   * for what is just starting, and nothing starts after it.
   */
  async own<T extends AsyncDisposable | null>(
    start: () => Promise<T>,
  ): Promise<T> {
    if (this.#ended !== null) {
      throw new DkvError("CANCELLED", "Interrupted: nothing more is started");
    }
    const starting = start();
    this.#stack.defer(async () => {
      const started = await starting.catch(() => null);
      await started?.[Symbol.asyncDispose]();
    });
    return await starting;
  }

  /** Runs a part of a program; what it owns is ended when it is over. */
  async within<T>(part: (inner: Cleanup) => Promise<T>): Promise<T> {
    const inner = new Cleanup();
    this.#stack.defer(() => inner.end());
    try {
      return await part(inner);
    } finally {
      await inner.end();
    }
  }

  /** Ends everything, the newest first. */
  end(): Promise<void> {
    return this.#ended ??= this.#stack.disposeAsync();
  }
}

/** Runs a program to its end or to an interruption, cleans up, and resolves with an exit code. */
export async function withCleanup(
  program: (cleanup: Cleanup) => Promise<number>,
): Promise<number> {
  const cleanup = new Cleanup();
  const interrupted = Promise.withResolvers<number>();
  onStop(() => interrupted.resolve(INTERRUPTED));
  // What nobody waits for must not end this process before its children.
  globalThis.addEventListener("unhandledrejection", (event) => {
    event.preventDefault();
    interrupted.reject(event.reason);
  });
  const running = program(cleanup);
  // After an interruption it fails somewhere in the middle, and nobody waits for it.
  running.catch(() => {});
  try {
    return await Promise.race([running, interrupted.promise]);
  } finally {
    await cleanup.end();
  }
}
