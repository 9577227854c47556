/**
 * Protobuf as the client reads it: the fields of a message, one after the other. Used by
 * `answers.ts`. The server's own records have another reader (`wire.ts`), because the client knows
 * nothing of the server.
 *
 * Encoding: https://protobuf.dev/programming-guides/encoding/
 *
 * @module
 */

import { DkvError } from "./errors.ts";

/** Gives the fields of one message after the other; never reads outside the bytes. */
export class FieldReader {
  readonly #bytes: Uint8Array;
  #at = 0;
  #end: number;

  constructor(bytes: Uint8Array) {
    // What node calls a Buffer makes views slowly, and copies not at all.
    this.#bytes = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#end = bytes.length;
  }

  /** Number and kind of the next field; 0 at the end of the message. */
  tag(): number {
    return this.#at < this.#end ? this.number() : 0;
  }

  /** A whole number, 0 or more, below 2^53. */
  number(): number {
    let byte = this.#byte();
    if (byte < 0x80) return byte;
    let value = byte & 0x7f;
    let unit = 0x80;
    do {
      byte = this.#byte();
      value += (byte & 0x7f) * unit;
      unit *= 0x80;
    } while (byte >= 0x80);
    if (value > Number.MAX_SAFE_INTEGER) {
      throw malformed("a number is out of range");
    }
    return value;
  }

  /** A signed 64-bit number. */
  bigint(): bigint {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.#byte();
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asIntN(64, value);
    }
    throw malformed("a number has no end");
  }

  /** A view of the message. */
  bytes(): Uint8Array {
    const from = this.#field();
    return this.#bytes.subarray(from, this.#at);
  }

  /** A copy, which does not keep the message. */
  copy(): Uint8Array {
    const from = this.#field();
    return this.#bytes.slice(from, this.#at);
  }

  /** Goes into a nested message; {@linkcode leave} needs what this returns. */
  enter(): number {
    const length = this.number();
    const outer = this.#end;
    if (this.#at + length > outer) throw malformed("a message has no end");
    this.#end = this.#at + length;
    return outer;
  }

  leave(outer: number): void {
    this.#end = outer;
  }

  message<Message>(read: (reader: FieldReader) => Message): Message {
    const outer = this.enter();
    const message = read(this);
    this.leave(outer);
    return message;
  }

  skip(tag: number): void {
    switch (tag & 7) {
      case 0:
        while (this.#byte() >= 0x80);
        return;
      case 1:
        this.#at += 8;
        break;
      case 2:
        this.#field();
        return;
      case 5:
        this.#at += 4;
        break;
      default:
        throw malformed(`a field has the kind ${tag & 7}`);
    }
    if (this.#at > this.#end) throw malformed("a field has no end");
  }

  /** Goes past a field with a length; gives where it begins. */
  #field(): number {
    const length = this.number();
    const from = this.#at;
    if (from + length > this.#end) throw malformed("a field has no end");
    this.#at = from + length;
    return from;
  }

  #byte(): number {
    if (this.#at >= this.#end) throw malformed("a message ends too soon");
    return this.#bytes[this.#at++] as number;
  }
}

/** What is thrown for an answer that is not one. */
export function malformed(what: string): DkvError {
  return new DkvError("INTERNAL", `The node's answer cannot be read: ${what}`);
}
