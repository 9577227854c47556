/** Hashes of passwords: checkable, salted, bounded. */

import {
  assert,
  assertEquals,
  assertMatch,
  assertNotEquals,
} from "@std/assert";
import { Buffer } from "node:buffer";
import { scryptSync } from "node:crypto";
import { LIMITS } from "../config.ts";
import { DkvError } from "../errors.ts";
import { Passwords } from "../passwords.ts";

/** What checks a hash with nothing but the hash. */
function fits(password: string, hash: string): boolean {
  const [, cost = "", salt = "", expected = ""] =
    /^\$scrypt\$(.*)\$(.*)\$(.*)$/.exec(hash) ?? [];
  const [, ln, r, p] = /^ln=(\d+),r=(\d+),p=(\d+)$/.exec(cost) ?? [];
  const made = scryptSync(password, Buffer.from(salt, "base64"), 32, {
    N: 2 ** Number(ln),
    r: Number(r),
    p: Number(p),
    maxmem: 2 ** 26,
  });
  return made.toString("base64") === expected;
}

Deno.test("passwords: a hash fits its password alone, and no two are the same", async () => {
  const passwords = new Passwords();
  const hashes = await Promise.all(
    ["sésame", "sésame", ""].map((one) => passwords.hash(one)),
  );
  const [first = "", second = "", empty = ""] = hashes;
  assertNotEquals(first, second);
  assert(fits("sésame", first) && fits("sésame", second) && fits("", empty));
  assert(!fits("sesame", first));
  for (const hash of hashes) assertMatch(hash, /^[\x20-\x7e]+$/);
});

Deno.test("passwords: only so many wait, and room comes back", async () => {
  const passwords = new Passwords();
  const asked = Array.from(
    { length: LIMITS.passwordsMax + 1 },
    () => passwords.hash("x"),
  );
  const settled = await Promise.allSettled(asked);
  const refused = settled.filter(({ status }) => status === "rejected");
  assertEquals(refused.length, 1);
  const [{ reason }] = refused as [PromiseRejectedResult];
  assert(reason instanceof DkvError && reason.code === "OVERLOADED", reason);
  assert(fits("y", await passwords.hash("y")));
});
