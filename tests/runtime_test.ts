/** Which runtimes are refused, and with which words. */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { refuseRuntime, runtimeRefusal } from "../runtime.ts";

const GOOD = { deno: "2.9.3", sqlite: "3.53.2" };

Deno.test("runtime: the pinned version may run", () => {
  assertEquals(runtimeRefusal(GOOD), null);
  refuseRuntime();
});

Deno.test("runtime: versions of Deno that abort are refused by name, others are not", () => {
  for (const deno of ["2.9.4", "2.9.5", "2.9.6"]) {
    const refusal = runtimeRefusal({ ...GOOD, deno });
    assertStringIncludes(refusal ?? "", `Deno ${deno}`);
    assertStringIncludes(refusal ?? "", "2.9.3");
  }
  for (const deno of ["2.9.2", "2.9.7", "2.9.40", "3.0.0"]) {
    assertEquals(runtimeRefusal({ ...GOOD, deno }), null, deno);
  }
});

Deno.test("runtime: SQLite below 3.51.3 is refused, compared by number", () => {
  const cases: [sqlite: string, allowed: boolean][] = [
    ["3.51.3", true],
    ["3.51.10", true],
    ["3.52.0", true],
    ["3.100.0", true],
    ["4.0.0", true],
    ["3.51.2", false],
    ["3.50.9", false],
    ["3.9.9", false],
    ["2.99.99", false],
    ["3.51", false],
    ["", false],
    ["undefined", false],
  ];
  for (const [sqlite, allowed] of cases) {
    const refusal = runtimeRefusal({ ...GOOD, sqlite });
    assertEquals(refusal === null, allowed, sqlite);
    if (refusal !== null) assert(refusal.includes("3.51.3"), refusal);
  }
});
