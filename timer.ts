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
