/**
 * Protobuf by hand, strictly: the few kinds of field that dkv's own messages use, written through
 * protobufjs and read without copying. Used by `entry.ts` and `frame.ts`.
 *
 * Numbers are safe integers, 0 or more. Default values (0, false, "") are left out, as proto3 has
 * it, so one value has one encoding. What a reader finds wrong is a {@linkcode DkvError} `MALFORMED`
 * that says where; it never reads outside its message.
 *
 * Encoding: https://protobuf.dev/programming-guides/encoding/
 *
 * @module
 */

import protobuf from "protobufjs/minimal";
import { assert, DkvError } from "./errors.ts";

/** Collects fields; `finish()` gives the bytes. */
export type Writer = protobuf.Writer;

const VARINT = 0;
const FIXED64 = 1;
const DELIMITED = 2;
const FIXED32 = 5;
const UINT32_MAX = 0xffff_ffff;
/** Above this, a text of ASCII alone is decoded faster by TextDecoder. */
const SHORT_TEXT_BYTES = 64;
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** An empty writer. */
export function newWriter(): Writer {
  return protobuf.Writer.create();
}

/** A safe integer, 0 or more. */
export function putInteger(writer: Writer, field: number, value: number): void {
  if (value === 0) return;
  putElement(writer, field, value);
}

/** Like {@linkcode putInteger}, but 0 is written too: for elements of lists and optional fields. */
export function putElement(writer: Writer, field: number, value: number): void {
  assert(
    Number.isSafeInteger(value) && value >= 0,
    `Field ${field} must be a safe integer, 0 or more: ${value}`,
  );
  writer.uint32(field << 3 | VARINT);
  // A small number has the same bytes either way, and this way costs no object.
  if (value <= UINT32_MAX) writer.uint32(value);
  else writer.uint64(value);
}

/** True or false. */
export function putBoolean(
  writer: Writer,
  field: number,
  value: boolean,
): void {
  if (value) writer.uint32(field << 3 | VARINT).bool(true);
}

/** A text. */
export function putText(writer: Writer, field: number, value: string): void {
  if (value !== "") writer.uint32(field << 3 | DELIMITED).string(value);
}

/** Texts, in order, empty ones too. */
export function putTexts(
  writer: Writer,
  field: number,
  values: readonly string[],
): void {
  for (const value of values) {
    writer.uint32(field << 3 | DELIMITED).string(value);
  }
}

/** Bytes, written even if there are none; not copied before `finish()`. */
export function putBytes(
  writer: Writer,
  field: number,
  value: Uint8Array,
): void {
  writer.uint32(field << 3 | DELIMITED).bytes(value);
}

/** A message inside the message, written by `put`. */
export function putNested(
  writer: Writer,
  field: number,
  put: () => void,
): void {
  writer.uint32(field << 3 | DELIMITED).fork();
  put();
  writer.ldelim();
}

/**
 * Reads one message field by field:
 *
 * ```ts ignore
 * while (fields.next()) {
 *   if (fields.number === 1) index = fields.integer();
 *   else fields.skip();
 * }
 * ```
 */
export class Fields {
  readonly #bytes: Uint8Array;
  /** What errors call the message. */
  readonly #name: string;
  /** The first byte that was not read yet; at most `#end`. */
  #position: number;
  /** The first byte after the message. */
  readonly #end: number;
  #number = 0;
  #wireType = 0;

  /** Reads `bytes`, or a part of them, as the message called `name`. */
  constructor(
    name: string,
    bytes: Uint8Array,
    range: { start: number; end: number } = { start: 0, end: bytes.length },
  ) {
    this.#name = name;
    this.#bytes = bytes;
    this.#position = range.start;
    this.#end = range.end;
  }

  /** The number of the field that {@linkcode next} found. */
  get number(): number {
    return this.#number;
  }

  /** Goes to the next field; false at the end. Its value must be read or skipped before the next call. */
  next(): boolean {
    if (this.#position === this.#end) return false;
    const tag = this.#varint();
    this.#number = Math.floor(tag / 8);
    this.#wireType = tag % 8;
    if (this.#number === 0) this.#fail("has a field without a number");
    return true;
  }

  /** The value of an integer field. */
  integer(): number {
    this.#expect(VARINT);
    return this.#varint();
  }

  /** The value of a boolean field. */
  boolean(): boolean {
    return this.integer() !== 0;
  }

  /** Adds the values of a repeated integer field, packed or not. */
  integers(into: number[]): void {
    if (this.#wireType === VARINT) {
      into.push(this.#varint());
      return;
    }
    const end = this.#delimited();
    while (this.#position < end) into.push(this.#varint());
    if (this.#position !== end) this.#fail("is cut short");
  }

  /** The value of a text field. */
  text(): string {
    const start = this.#position;
    const end = this.#delimited();
    const from = this.#position;
    this.#position = end;
    if (end - from <= SHORT_TEXT_BYTES) {
      let text = "";
      for (let i = from; i < end; i++) {
        const byte = this.#bytes[i] ?? 0;
        if (byte >= 0x80) break;
        text += String.fromCharCode(byte);
      }
      if (text.length === end - from) return text;
    }
    try {
      return decoder.decode(this.#bytes.subarray(from, end));
    } catch {
      this.#fail(`has a text at byte ${start} that is not UTF-8`);
    }
  }

  /** The value of a bytes field: a view, which keeps the whole message alive. */
  bytes(): Uint8Array {
    const end = this.#delimited();
    const view = this.#bytes.subarray(this.#position, end);
    this.#position = end;
    return view;
  }

  /** The message in this field, called `name` from now on. */
  nested(name: string): Fields {
    const end = this.#delimited();
    const start = this.#position;
    this.#position = end;
    return new Fields(name, this.#bytes, { start, end });
  }

  /** Goes past a field that is not known. */
  skip(): void {
    switch (this.#wireType) {
      case VARINT:
        // A number of a newer version may be any 64 bits.
        while (this.#byte() >= 0x80);
        return;
      case FIXED64:
        return this.#advance(8);
      case DELIMITED:
        this.#position = this.#delimited();
        return;
      case FIXED32:
        return this.#advance(4);
      default:
        this.#fail(`has field ${this.#number} of kind ${this.#wireType}`);
    }
  }

  /** Where the value of a delimited field ends; its start is then the position. */
  #delimited(): number {
    this.#expect(DELIMITED);
    const bytes = this.#varint();
    if (bytes > this.#end - this.#position) this.#fail("is cut short");
    return this.#position + bytes;
  }

  #expect(wireType: number): void {
    if (this.#wireType === wireType) return;
    this.#fail(
      `has field ${this.#number} of kind ${this.#wireType}, not ${wireType}`,
    );
  }

  #advance(bytes: number): void {
    if (bytes > this.#end - this.#position) this.#fail("is cut short");
    this.#position += bytes;
  }

  #byte(): number {
    if (this.#position >= this.#end) this.#fail("is cut short");
    return this.#bytes[this.#position++] ?? 0;
  }

  /** Multiplies instead of shifting, because shifts end at 32 bits. */
  #varint(): number {
    let value = 0;
    let factor = 1;
    for (let i = 0; i < 8; i++) {
      const byte = this.#byte();
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) {
        if (!Number.isSafeInteger(value)) break;
        return value;
      }
      factor *= 128;
    }
    this.#fail("has a number of 2^53 or more");
  }

  #fail(what: string): never {
    throw new DkvError("MALFORMED", `${this.#name} ${what}`);
  }
}
