/**
 * The protobuf wire format, as far as dkv's own records need it: a pen that writes straight into
 * one reused buffer and a reader that makes no intermediate objects. Used by `batch.ts`,
 * `results.ts` and `sessions.ts`, whose messages `proto/entry.proto` describes, and by
 * `pipelinecodec.ts`.
 *
 * protobufjs reads and writes the same bytes (a test proves it) but allocates an object for each
 * field that it writes and for each 64-bit number that it reads; every put of the cluster passes
 * here once on its way in and once on every replica.
 *
 * Keys and client ids are strings of latin1 code units, one for each byte.
 *
 * @module
 */
import { assert, DkvError } from "./errors.ts";

/** Protobuf's wire types, the low three bits of a tag. */
const VARINT = 0;
const FIXED64 = 1;
const BYTES = 2;
const FIXED32 = 5;

/**
 * Finished messages are pieces of a slab of this size: to allocate a typed array of its own for
 * each would cost more than to write it. A small message keeps its slab alive, so this is no larger
 * than what many short-lived messages fill soon.
 */
const SLAB_BYTES = 1 << 15;

/** Strings are built in pieces of this many bytes: a call takes only so many arguments. */
const STRING_PIECE_BYTES = 8192;

/** Arrays of each length up to 64 for the code units of a short string; calls spread arrays fast. */
const UNITS = Array.from(
  { length: 65 },
  (_, length) => new Array<number>(length).fill(0),
);

/** Writes one message. Fields must be written in the order of their numbers, as protobuf's own writers do. */
export class Pen {
  #buffer = new Uint8Array(SLAB_BYTES);
  #view = new DataView(this.#buffer.buffer);
  /** The message that is being written begins here; everything before was handed out. */
  #start = 0;
  /** Everything below is written. */
  #at = 0;

  /** Forgets what was written since the last `finish`: also after an exception in the middle of a message. */
  reset(): void {
    this.#at = this.#start;
  }

  /** The message. Its bytes are not written to again. */
  finish(): Uint8Array {
    const start = this.#start;
    const message = new Uint8Array(
      this.#buffer.buffer,
      start,
      this.#at - start,
    );
    this.#start = this.#at;
    return message;
  }

  /** A field of type int64, bool or an enum; a safe integer. */
  int64(field: number, value: number): void {
    this.#reserve(20);
    this.#small(field << 3 | VARINT);
    this.#varint(value);
  }

  /** A bare sint64 inside a packed field, below 2^52: small whether positive or negative. */
  packedSint64(value: number): void {
    this.#reserve(10);
    this.#varint(value < 0 ? -2 * value - 1 : 2 * value);
  }

  /** A field of type sfixed64: the lease ids, which use all bits. */
  sfixed64(field: number, value: bigint): void {
    assert(
      BigInt.asIntN(64, value) === value,
      `Number does not fit in 64 bits: ${value}`,
    );
    this.#reserve(18);
    this.#small(field << 3 | FIXED64);
    this.#view.setBigInt64(this.#at, value, true);
    this.#at += 8;
  }

  /** A field of type bytes. */
  bytes(field: number, value: Uint8Array): void {
    const length = value.length;
    this.#reserve(20 + length);
    this.#small(field << 3 | BYTES);
    this.#small(length);
    this.#buffer.set(value, this.#at);
    this.#at += length;
  }

  /** A field of type bytes, from a string of latin1 code units. */
  latin1(field: number, value: string): void {
    const length = value.length;
    this.#reserve(20 + length);
    this.#small(field << 3 | BYTES);
    this.#small(length);
    const buffer = this.#buffer;
    let at = this.#at;
    let bits = 0;
    for (let i = 0; i < length; i++) {
      const code = value.charCodeAt(i);
      bits |= code;
      buffer[at++] = code;
    }
    // Not as a condition of `assert`, whose message would be made of every string.
    if (bits > 255) {
      assert(false, `String is not latin1: ${JSON.stringify(value)}`);
    }
    this.#at = at;
  }

  /** Fields that are encoded already. */
  raw(fields: Uint8Array): void {
    this.#reserve(fields.length);
    this.#buffer.set(fields, this.#at);
    this.#at += fields.length;
  }

  /** Begins a message field whose length is known; nothing closes it. */
  head(field: number, length: number): void {
    this.#reserve(20 + length);
    this.#small(field << 3 | BYTES);
    this.#small(length);
  }

  /** Opens a message (or packed) field; give what it returns to {@linkcode Pen.close}. */
  open(field: number): number {
    this.#reserve(11);
    this.#small(field << 3 | BYTES);
    return ++this.#at - this.#start;
  }

  /**
   * Closes it. One byte was kept for the length; a longer message moves up.
   *
   *     … tag [1] body      →      … tag [2 bytes] body
   */
  close(opened: number): void {
    const length = this.#at - this.#start - opened;
    if (length < 128) {
      this.#buffer[this.#start + opened - 1] = length;
      return;
    }
    const more = length < 1 << 14
      ? 1
      : length < 1 << 21
      ? 2
      : length < 1 << 28
      ? 3
      : 4;
    this.#reserve(more);
    const body = this.#start + opened;
    this.#buffer.copyWithin(body + more, body, this.#at);
    this.#at = body - 1;
    this.#small(length);
    this.#at = body + more + length;
  }

  #reserve(bytes: number): void {
    if (this.#at + bytes > this.#buffer.length) this.#grow(bytes);
  }

  /** Moves the message that is being written to the beginning of a new slab. */
  #grow(bytes: number): void {
    const written = this.#at - this.#start;
    const needed = written + bytes;
    const buffer = new Uint8Array(
      needed <= SLAB_BYTES / 4 ? SLAB_BYTES : Math.max(needed, written * 2),
    );
    buffer.set(this.#buffer.subarray(this.#start, this.#at));
    this.#buffer = buffer;
    this.#view = new DataView(buffer.buffer);
    this.#start = 0;
    this.#at = written;
  }

  /** A varint below 2^31, with room reserved. */
  #small(value: number): void {
    const buffer = this.#buffer;
    let at = this.#at;
    while (value > 127) {
      buffer[at++] = (value & 127) | 128;
      value >>>= 7;
    }
    buffer[at++] = value;
    this.#at = at;
  }

  /** A varint of any safe integer, with room reserved. */
  #varint(value: number): void {
    if (value >= 0 && value <= 0x7fffffff && Number.isInteger(value)) {
      return this.#small(value);
    }
    assert(
      Number.isSafeInteger(value),
      `Number is not a safe integer: ${value}`,
    );
    if (value >= 0) {
      while (value > 0x7fffffff) {
        this.#buffer[this.#at++] = (value & 127) | 128;
        value = Math.floor(value / 128);
      }
      return this.#small(value);
    }
    let bits = BigInt.asUintN(64, BigInt(value));
    while (bits > 127n) {
      this.#buffer[this.#at++] = Number(bits & 127n) | 128;
      bits >>= 7n;
    }
    this.#buffer[this.#at++] = Number(bits);
  }
}

function malformed(what: string): DkvError {
  return new DkvError("MALFORMED", `Record is malformed: ${what}`);
}

/**
 * Reads one message. Bytes that are no message end in `DkvError` MALFORMED, as do numbers that
 * are no safe integers.
 */
export class Reader {
  readonly #data: Uint8Array;
  #at = 0;
  /** The end of the message or packed field that is being read. */
  #end: number;

  constructor(data: Uint8Array) {
    this.#data = data;
    this.#end = data.length;
  }

  /** The next field's tag (number × 8 + wire type), or 0 at the end of the message. */
  tag(): number {
    if (this.#at === this.#end) return 0;
    const tag = this.#length();
    if (tag < 8) throw malformed(`tag ${tag} before byte ${this.#at}`);
    return tag;
  }

  /** Where the next byte is read. */
  get at(): number {
    return this.#at;
  }

  /** Where the message or packed field ends. */
  get end(): number {
    return this.#end;
  }

  /** Goes on elsewhere, whatever was entered: what is read next lies between `at` and `end`. */
  moveTo(at: number, end: number): void {
    this.#at = at;
    this.#end = end;
  }

  /** True if the message or packed field has more. */
  get more(): boolean {
    return this.#at < this.#end;
  }

  /** Enters a message or packed field; give what it returns to {@linkcode Reader.leave}. */
  enter(): number {
    const length = this.#length();
    const outer = this.#end;
    if (length > outer - this.#at) {
      throw malformed(`${length} bytes expected, ${outer - this.#at} left`);
    }
    this.#end = this.#at + length;
    return outer;
  }

  leave(outer: number): void {
    this.#at = this.#end;
    this.#end = outer;
  }

  int64(): number {
    const start = this.#at;
    const data = this.#data;
    const end = this.#end;
    let at = start;
    let value = 0;
    let scale = 1;
    while (at < end) {
      const byte = data[at++]!;
      value += (byte & 127) * scale;
      if (byte < 128) {
        this.#at = at;
        if (value <= Number.MAX_SAFE_INTEGER) return value;
        return this.#negative(start);
      }
      if (at - start === 10) break;
      scale *= 128;
    }
    throw malformed(`number at byte ${start}`);
  }

  /** A bare sint64 inside a packed field. */
  packedSint64(): number {
    const value = this.int64();
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
  }

  bool(): boolean {
    return this.int64() !== 0;
  }

  sfixed64(): bigint {
    const at = this.#take(8);
    return new DataView(this.#data.buffer, this.#data.byteOffset + at, 8)
      .getBigInt64(0, true);
  }

  /** A view of the bytes, not a copy. */
  bytes(): Uint8Array {
    const length = this.#length();
    const start = this.#take(length);
    const data = this.#data;
    return new Uint8Array(data.buffer, data.byteOffset + start, length);
  }

  /** `likely` is given back if it is what stands here, which saves a new string. */
  latin1(likely = ""): string {
    const length = this.#length();
    const start = this.#take(length);
    const data = this.#data;
    if (length > 0 && length === likely.length) {
      let i = 0;
      while (i < length && data[start + i] === likely.charCodeAt(i)) i++;
      if (i === length) return likely;
    }
    const units = UNITS[length];
    if (units !== undefined) {
      for (let i = 0; i < length; i++) units[i] = data[start + i]!;
      return String.fromCharCode.apply(null, units);
    }
    let text = "";
    for (let at = start; at < start + length; at += STRING_PIECE_BYTES) {
      const end = Math.min(start + length, at + STRING_PIECE_BYTES);
      text += fromLatin1(data.subarray(at, end));
    }
    return text;
  }

  /** Passes over a field that this version does not know. */
  skip(tag: number): void {
    switch (tag & 7) {
      case VARINT:
        while (this.#data[this.#take(1)]! > 127);
        return;
      case FIXED64:
        this.#take(8);
        return;
      case BYTES:
        this.#take(this.#length());
        return;
      case FIXED32:
        this.#take(4);
        return;
      default:
        throw malformed(`wire type ${tag & 7} before byte ${this.#at}`);
    }
  }

  /** Moves past `count` bytes and says where they start. */
  #take(count: number): number {
    const start = this.#at;
    if (count > this.#end - start) {
      throw malformed(`${count} bytes expected, ${this.#end - start} left`);
    }
    this.#at = start + count;
    return start;
  }

  /** A tag or a length: a varint below 2^31, most often one byte. */
  #length(): number {
    const at = this.#at;
    if (at < this.#end) {
      const byte = this.#data[at]!;
      if (byte < 128) {
        this.#at = at + 1;
        return byte;
      }
    }
    const length = this.int64();
    if (length < 0 || length > 0x7fffffff) throw malformed(`length ${length}`);
    return length;
  }

  /** A varint above 2^53 that started at `start`: a negative number, or too big. */
  #negative(start: number): number {
    let bits = 0n;
    for (let at = start, shift = 0n; at < this.#at; at++, shift += 7n) {
      bits |= BigInt(this.#data[at]! & 127) << shift;
    }
    const value = Number(BigInt.asIntN(64, bits));
    if (!Number.isSafeInteger(value)) throw malformed(`number ${value}`);
    return value;
  }
}

function fromLatin1(data: Uint8Array): string {
  return String.fromCharCode.apply(null, data as unknown as number[]);
}
