/** What shells are told; that they can read it is tried in `cli_terminal_test.ts`. */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { OPTIONS } from "../arguments.ts";
import { COMMANDS, SYNONYMS } from "../commands.ts";
import { completions } from "../completions.ts";

Deno.test("completions: every command and option, for each shell", () => {
  for (const shell of ["bash", "zsh", "fish"]) {
    const script = completions(shell);
    for (const name of Object.keys(COMMANDS)) {
      assertStringIncludes(script, name);
    }
    for (const name of Object.keys(OPTIONS)) assertStringIncludes(script, name);
    // An odd quote would swallow the rest of the script.
    assertEquals(script.split("'").length % 2, 1, shell);
  }
});

Deno.test("commands: each is described, in words of its own", () => {
  for (const [name, { about, options }] of Object.entries(COMMANDS)) {
    assert(about.length > 0 && about.length < 60, name);
    assertEquals(new Set<string>(options).size, options.length, name);
  }
  for (const name of Object.keys(SYNONYMS)) {
    assert(!Object.hasOwn(COMMANDS, name), name);
  }
});
