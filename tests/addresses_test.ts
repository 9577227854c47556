/**
 * What a person may write where addresses of nodes belong.
 *
 * @module
 */

import { assertEquals, assertThrows } from "@std/assert";
import { parseEndpoints } from "../addresses.ts";
import { DkvError } from "../errors.ts";

Deno.test("addresses: each once, with a port", () => {
  for (
    const [given, parsed] of [
      ["localhost", ["localhost:50051"]],
      [" a:1, b:65535,,a:1 ", ["a:1", "b:65535"]],
      ["[::1]:7,[::1]", ["[::1]:7", "[::1]:50051"]],
      [["10.0.0.1", "10.0.0.1:50051"], ["10.0.0.1:50051"]],
    ] as const
  ) assertEquals(parseEndpoints(given), [...parsed]);
});

Deno.test("addresses: what can be none is named", () => {
  for (
    const given of ["", " , ", "a:0", "a:65536", "http://a:1", "::1", "a b:1"]
  ) {
    const isEmpty = given.replaceAll(",", "").trim() === "";
    const wrong = isEmpty ? "nothing" : given;
    const error = assertThrows(() => parseEndpoints(given), DkvError, wrong);
    assertEquals(error.code, "CONFIG_INVALID", given);
  }
});
