/**
 * Runs `deno` in the checkout to its end, for tests that look at what a task or a program prints.
 *
 * @module
 */

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
