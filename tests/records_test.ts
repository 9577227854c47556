/** Records as lines: every byte comes back, and a line at fault is named. */

import {
  assertEquals,
  assertMatch,
  assertRejects,
  assertThrows,
} from "@std/assert";
import fc from "fast-check";
import { Refusal } from "../arguments.ts";
import {
  LINE_BYTES_MAX,
  linesOf,
  parseRecord,
  recordLine,
} from "../records.ts";

/** What JSON, lines or UTF-8 treat in a way of their own. */
const CHARACTERS = ["a", "\n", "\0", '"', "\\", "\u2028", "\ufeff", "ü", "😀"];

Deno.test("records: any bytes come back from a line", () => {
  const bytes = fc.oneof(
    fc.uint8Array({ minLength: 1, maxLength: 40 }),
    fc.array(fc.constantFrom(...CHARACTERS), { minLength: 1 })
      .map((text) => new TextEncoder().encode(text.join(""))),
  );
  fc.assert(fc.property(bytes, bytes, (key, value) => {
    const line = recordLine({ key, value });
    assertEquals(line.indexOf("\n"), line.length - 1);
    assertEquals(parseRecord(line), { key, value });
  }));
  assertEquals(parseRecord("  \r"), null);
});

Deno.test("records: what is no record is refused with the reason", () => {
  const wrong: [string, RegExp][] = [
    ["{", /not JSON/],
    ["[1]", /not an object/],
    ["null", /not an object/],
    ['{"value":"1"}', /there is no key/],
    ['{"key":"b"}', /there is no value/],
    ['{"key":"","value":"1"}', /the key is empty/],
    ['{"key":"b","value":1}', /value is not a text/],
    ['{"key":"b","value":null}', /value is not a text/],
    ['{"key":"b","keyBase64":"Yg==","value":""}', /both key and keyBase64/],
    ['{"key":"b","valueBase64":"*"}', /valueBase64 is no base64/],
    ['{"key":"b","value":"\\ud800"}', /value is no Unicode text/],
    [`{"key":"${"k".repeat(4097)}","value":""}`, /the key is too large: 4097/],
  ];
  for (const [line, message] of wrong) {
    const error = assertThrows(() => parseRecord(line), Refusal);
    assertMatch(error.message, message, line);
  }
  const { key } = parseRecord('{"key":"a","value":"b","version":1}') ?? {};
  assertEquals(key, new TextEncoder().encode("a"));
});

/** Bytes in pieces, in memory that is used again. */
async function* pieces(
  bytes: Uint8Array,
  size: number,
): AsyncGenerator<Uint8Array, void, undefined> {
  const buffer = new Uint8Array(size);
  for (let at = 0; at < bytes.length; at += size) {
    const piece = bytes.subarray(at, at + size);
    buffer.set(piece);
    await Promise.resolve();
    yield buffer.subarray(0, piece.length);
  }
}

async function read(bytes: Uint8Array, size: number): Promise<string[]> {
  const found: string[] = [];
  let endBytes = 0;
  for await (const part of linesOf(pieces(bytes, size))) {
    assertEquals(part.first, found.length + 1);
    found.push(...part.lines);
    endBytes = part.endBytes;
  }
  assertEquals(endBytes, bytes.length);
  return found;
}

Deno.test("records: lines do not depend on how bytes arrive", async () => {
  const text = "eins\n\nzwei ü 😀\nohne Ende";
  const bytes = new TextEncoder().encode(text);
  for (const size of [1, 2, 3, 7, 100]) {
    assertEquals(await read(bytes, size), text.split("\n"), `${size}`);
  }
  assertEquals(await read(new Uint8Array(), 5), []);
  assertEquals(await read(new TextEncoder().encode("a\n"), 5), ["a"]);
});

Deno.test("records: a line that is no text or too long is named", async () => {
  const bytes = new Uint8Array([0x61, 0x0a, 0x62, 0x0a, 0xc3, 0x0a, 0x64]);
  for (const size of [1, 4, 100]) {
    const error = await assertRejects(() => read(bytes, size), Refusal);
    assertMatch(error.message, /^3: not UTF-8$/);
  }
  const long = new Uint8Array(LINE_BYTES_MAX + 3).fill(0x20);
  long[0] = 0x0a;
  const error = await assertRejects(() => read(long, 1 << 20), Refusal);
  assertMatch(error.message, /^2: longer than \d+ bytes$/);
});
