/**
 * The table of errors, and that every code means the same everywhere.
 *
 * @module
 */

import {
  assertEquals,
  assertMatch,
  assertNotEquals,
  assertThrows,
} from "@std/assert";
import {
  assert,
  AssertionError,
  DkvError,
  ERROR_HELP,
  ERROR_TABLE,
  type ErrorCode,
  isErrorCode,
  unreachable,
} from "../errors.ts";

Deno.test("errors: every code has statuses that exist", () => {
  for (const [code, row] of Object.entries(ERROR_TABLE)) {
    assertMatch(code, /^[A-Z]+(_[A-Z]+)*$/);
    assertEquals(row.grpc >= 1 && row.grpc <= 16, true, code);
    assertEquals(row.http >= 400 && row.http <= 599, true, code);
  }
});

Deno.test("errors: gRPC and HTTP agree on whose fault it is", () => {
  // INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS and OUT_OF_RANGE are the caller's;
  // INTERNAL, UNAVAILABLE and DATA_LOSS are not.
  const callers = [3, 5, 6, 11];
  const servers = [13, 14, 15];
  for (const [code, { grpc, http }] of Object.entries(ERROR_TABLE)) {
    if (callers.includes(grpc)) assertEquals(http < 500, true, code);
    if (servers.includes(grpc)) assertEquals(http >= 500, true, code);
  }
});

Deno.test("errors: only what cannot be known is unknown", () => {
  const unknown = Object.entries(ERROR_TABLE)
    .filter(([, row]) => !row.noEffect).map(([code]) => code);
  assertEquals(unknown, ["SEQUENCE_STALE", "OUTCOME_UNKNOWN", "INTERNAL"]);
  assertEquals(new DkvError("OUTCOME_UNKNOWN", "x").noEffect, false);
  assertEquals(new DkvError("NO_LEADER", "x").noEffect, true);
});

Deno.test("errors: every code says what it means and what to do", () => {
  assertEquals(Object.keys(ERROR_HELP), Object.keys(ERROR_TABLE));
  for (const [code, { means, advice }] of Object.entries(ERROR_HELP)) {
    // Phrases: they stand in a table, or behind a message and a colon.
    for (const phrase of [means, advice]) {
      assertMatch(phrase, /^[^A-Z|].*[^.|]$/, code);
    }
    assertEquals(new DkvError(code as ErrorCode, "x").advice, advice);
  }
});

Deno.test("errors: codes from a wire are checked", () => {
  assertEquals(isErrorCode("KEY_EMPTY"), true);
  for (
    const text of ["", "key_empty", "__proto__", "toString", "hasOwnProperty"]
  ) {
    assertEquals(isErrorCode(text), false, text);
  }
});

Deno.test("errors: an operating error carries its code, message and cause", () => {
  const cause = new Error("disk");
  const code: ErrorCode = "DISK_FULL";
  const error = new DkvError(code, "Disk is full", { cause });
  assertEquals([error.code, error.name, error.message, error.cause], [
    "DISK_FULL",
    "DkvError",
    "Disk is full",
    cause,
  ]);
  assertNotEquals(error instanceof AssertionError, true);
});

Deno.test("errors: a broken invariant throws, one that holds does not", () => {
  assert(true, "unused");
  const error = assertThrows(() => assert(0, "1 < 2"), AssertionError, "1 < 2");
  assertEquals(error instanceof DkvError, false);
  assertThrows(
    () => unreachable({ type: "new" } as never),
    AssertionError,
    'Unreachable: {"type":"new"}',
  );
});
