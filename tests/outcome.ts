/**
 * Runs `deno` in the checkout to its end, for tests that look at what a task or a program prints.
 *
 * @module
 */

import { assertMatch } from "@std/assert";

const ROOT = decodeURIComponent(new URL("..", import.meta.url).pathname);

/** What a process came to. */
export interface Outcome {
  readonly code: number;
  /** True if the code is 0. */
  readonly success: boolean;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `deno` with these arguments; it has nothing to read. */
export async function outcomeOf(
  args: readonly string[],
  { env = {} }: { env?: Readonly<Record<string, string>> } = {},
): Promise<Outcome> {
  const { code, success, stdout, stderr } = await new Deno.Command("deno", {
    args: [...args],
    cwd: ROOT,
    env,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).output();
  const decoder = new TextDecoder();
  return {
    code,
    success,
    stdout: decoder.decode(stdout),
    stderr: decoder.decode(stderr),
  };
}

/**
 * True if packages could not be fetched, which a step that is ignored then tells. Whatever else was
 * wrong is a failure of the test.
 */
export async function cannotFetch(
  t: Deno.TestContext,
  { success, stderr }: Pick<Outcome, "success" | "stderr">,
): Promise<boolean> {
  if (success) return false;
  assertMatch(stderr, /error sending request|\bdns error\b/);
  const [why] = stderr.trim().split("\n");
  const name = `(ignored: packages cannot be fetched: ${why})`;
  await t.step({ name, ignore: true, fn: () => {} });
  return true;
}
