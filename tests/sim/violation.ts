/**
 * What a checker throws. Used by all checkers.
 *
 * @module
 */

/** A promise that was broken in a simulated run. */
export class Violation extends Error {
  override name = "Violation";
  /** Which checker found it. */
  readonly check: string;

  constructor(check: string, message: string) {
    super(`${check}: ${message}`);
    this.check = check;
  }
}

/** Throws a {@linkcode Violation} if what was promised does not hold. */
export function must(
  condition: boolean,
  check: string,
  message: () => string,
): asserts condition {
  if (!condition) throw new Violation(check, message());
}
