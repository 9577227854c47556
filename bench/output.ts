/**
 * Where results go: files in a folder of the checkout, formatted as the checkout is. Used by
 * `main.ts` and `growth.ts`.
 *
 * @module
 */

import { replaceSection } from "./tables.ts";

const ROOT = decodeURIComponent(new URL("..", import.meta.url).pathname);
const README = "README.md";

/** Writes texts under their names into a folder, relative to the checkout. */
export async function save(
  out: string,
  files: Readonly<Record<string, string>>,
): Promise<void> {
  const dir = `${ROOT}${out}`;
  await Deno.mkdir(dir, { recursive: true });
  for (const [name, text] of Object.entries(files)) {
    await Deno.writeTextFile(`${dir}/${name}`, text);
  }
  const paths = Object.keys(files).map((name) => `${dir}/${name}`);
  await new Deno.Command("deno", {
    args: ["fmt", "--quiet", ...paths],
    cwd: ROOT,
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).output();
}

/** The folder's README.md with a section replaced; nothing if there is no such file or section. */
export async function section(
  out: string,
  { name, content }: { name: string; content: string },
): Promise<Record<string, string>> {
  try {
    const text = await Deno.readTextFile(`${ROOT}${out}/${README}`);
    const replaced = replaceSection(text, { name, content });
    return replaced === null ? {} : { [README]: replaced };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return {};
    throw error;
  }
}
