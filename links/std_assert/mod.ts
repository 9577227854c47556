/** Thin stand-ins with the names and signatures of `jsr:@std/assert`, over `node:assert`. */
import nodeAssert, { AssertionError } from "node:assert";

export { AssertionError };

export function assert(expr: unknown, msg = ""): asserts expr {
  if (!expr) {
    throw new AssertionError({ message: msg || "Expected a truthy value" });
  }
}
export function assertEquals<T>(actual: T, expected: T, msg?: string): void {
  if (msg === undefined) nodeAssert.deepStrictEqual(actual, expected);
  else nodeAssert.deepStrictEqual(actual, expected, msg);
}
export function assertNotEquals<T>(actual: T, expected: T, msg?: string): void {
  if (msg === undefined) nodeAssert.notDeepStrictEqual(actual, expected);
  else nodeAssert.notDeepStrictEqual(actual, expected, msg);
}
export function assertStrictEquals<T>(
  actual: unknown,
  expected: T,
  msg?: string,
): asserts actual is T {
  if (msg === undefined) nodeAssert.strictEqual(actual, expected);
  else nodeAssert.strictEqual(actual, expected, msg);
}
export function assertExists<T>(
  actual: T,
  msg = "Expected a value, got null or undefined",
): asserts actual is NonNullable<T> {
  if (actual === null || actual === undefined) {
    throw new AssertionError({ message: msg });
  }
}
export function assertGreater<T>(actual: T, expected: T, msg?: string): void {
  assert(actual > expected, msg ?? `Expected ${actual} > ${expected}`);
}
export function assertGreaterOrEqual<T>(
  actual: T,
  expected: T,
  msg?: string,
): void {
  assert(actual >= expected, msg ?? `Expected ${actual} >= ${expected}`);
}
export function assertLess<T>(actual: T, expected: T, msg?: string): void {
  assert(actual < expected, msg ?? `Expected ${actual} < ${expected}`);
}
export function assertLessOrEqual<T>(
  actual: T,
  expected: T,
  msg?: string,
): void {
  assert(actual <= expected, msg ?? `Expected ${actual} <= ${expected}`);
}
export function assertStringIncludes(
  actual: string,
  expected: string,
  msg?: string,
): void {
  assert(
    actual.includes(expected),
    msg ?? `Expected "${actual}" to include "${expected}"`,
  );
}
export function assertMatch(
  actual: string,
  expected: RegExp,
  msg?: string,
): void {
  assert(
    expected.test(actual),
    msg ?? `Expected "${actual}" to match ${expected}`,
  );
}
export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  // deno-lint-ignore no-explicit-any
  ErrorClass: abstract new (...args: any[]) => E = Error as never,
  msgIncludes = "",
  msg?: string,
): E {
  try {
    fn();
  } catch (error) {
    return checked(error, ErrorClass, msgIncludes, msg);
  }
  throw new AssertionError({ message: msg ?? "Expected function to throw" });
}
export async function assertRejects<E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  // deno-lint-ignore no-explicit-any
  ErrorClass: abstract new (...args: any[]) => E = Error as never,
  msgIncludes = "",
  msg?: string,
): Promise<E> {
  try {
    await fn();
  } catch (error) {
    return checked(error, ErrorClass, msgIncludes, msg);
  }
  throw new AssertionError({ message: msg ?? "Expected function to reject" });
}
function checked<E extends Error>(
  error: unknown,
  // deno-lint-ignore no-explicit-any
  ErrorClass: abstract new (...args: any[]) => E,
  msgIncludes: string,
  msg?: string,
): E {
  assert(
    error instanceof ErrorClass,
    msg ?? `Expected error to be ${ErrorClass.name}, got ${error}`,
  );
  assertStringIncludes(error.message, msgIncludes, msg);
  return error;
}
export function fail(msg = ""): never {
  throw new AssertionError({
    message: `Failed assertion${msg ? `: ${msg}` : "."}`,
  });
}
