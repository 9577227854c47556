/**
 * Timers for times of any length: whoever waits names a time, and it may be longer than
 * `setTimeout` can bear. Used by the modules of the client and by `terminal.ts`.
 *
 * @module
 */

/** 24 days; `setTimeout` fires at once when it is asked for more. */
export const TIMER_MS_MAX = 2 ** 31 - 1;

/** Runs something after so long; after a time that no timer bears, never. `clearTimeout` ends it. */
export function after(
  delayMs: number,
  run: () => void,
): ReturnType<typeof setTimeout> | undefined {
  if (delayMs > TIMER_MS_MAX) return undefined;
  return setTimeout(run, Math.max(0, delayMs));
}

/**
 * What a promise comes to, unless time runs out or the signal is aborted first. The promise goes on all
 * the same.
 *
 * @throws what `late` makes, or the signal's reason.
 */
export async function within<T>(
  promise: Promise<T>,
  { timeoutMs, signal, late }: {
    timeoutMs: number;
    signal: AbortSignal | undefined;
    late: () => Error;
  },
): Promise<T> {
  const end = Promise.withResolvers<never>();
  const timer = after(timeoutMs, () => end.reject(late()));
  const abort = () => end.reject(signal?.reason);
  signal?.addEventListener("abort", abort);
  try {
    return await Promise.race([promise, end.promise]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  }
}
