/**
 * Values of a JSON file with the way to each, so that a mistake ends in one line that names the file
 * and the field. Used by `config.ts`.
 *
 * @module
 */

import { DkvError } from "./errors.ts";

/** One value in the file, with the way to it: what a message needs. */
export class Field {
  readonly #path: string;
  readonly #name: string;
  readonly value: unknown;

  constructor(path: string, name: string, value: unknown) {
    this.#path = path;
    this.#name = name;
    this.value = value;
  }

  /** Ends in the line `path: field: problem`. */
  refuse(problem: string): never {
    refuse(
      this.#path,
      this.#name === "" ? problem : `${this.#name}: ${problem}`,
    );
  }

  /** Checks the names of an object's fields and returns the way to each. */
  object(
    required: readonly string[],
    optional: readonly string[],
  ): (name: string) => Field {
    const { value } = this;
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      this.refuse(`expected an object, found ${show(value)}`);
    }
    const known = [...required, ...optional];
    // A Map, because the names come from the file: `__proto__` must be a name like any other.
    const fields = new Map<string, unknown>(Object.entries(value));
    for (const name of fields.keys()) {
      if (known.includes(name)) continue;
      this.#child(name, undefined).refuse(
        `unknown field, known: ${known.join(", ")}`,
      );
    }
    for (const name of required) {
      if (!fields.has(name)) this.#child(name, undefined).refuse("missing");
    }
    return (name) => this.#child(name, fields.get(name));
  }

  /** The elements of a list with at least one and at most `max`. */
  list(max: number): Field[] {
    const { value } = this;
    if (!Array.isArray(value)) {
      this.refuse(`expected a list, found ${show(value)}`);
    }
    if (value.length === 0) this.refuse("empty, expected at least 1");
    if (value.length > max) {
      this.refuse(`${value.length}, expected at most ${max}`);
    }
    return value.map((element: unknown, at) =>
      new Field(this.#path, `${this.#name}[${at}]`, element)
    );
  }

  text(): string {
    const { value } = this;
    if (typeof value !== "string") {
      this.refuse(`expected a text, found ${show(value)}`);
    }
    return value;
  }

  name(charactersMax: number): string {
    const text = this.text();
    if (text.length > charactersMax) {
      this.refuse(
        `${text.length} characters, expected 1 to ${charactersMax}`,
      );
    }
    if (!/^[a-z0-9][a-z0-9._-]*$/.test(text)) {
      this.refuse(
        `${
          show(text)
        } is not a name, expected a letter or a digit and then any of a-z 0-9 . _ -`,
      );
    }
    return text;
  }

  integer(min: number, max: number): number {
    const { value } = this;
    if (typeof value !== "number" || !Number.isInteger(value)) {
      this.refuse(`expected a whole number, found ${show(value)}`);
    }
    if (value < min || value > max) {
      this.refuse(`${value} is out of range, expected ${min} to ${max}`);
    }
    return value;
  }

  #child(name: string, value: unknown): Field {
    const plain = /^\w+$/.test(name) ? name : show(name);
    const full = this.#name === "" ? plain : `${this.#name}.${plain}`;
    return new Field(this.#path, full, value);
  }
}

/** Ends in `DkvError` CONFIG_INVALID. */
export function refuse(path: string, problem: string): never {
  const line = `${path}: ${problem}`.replace(/[\s\p{Cc}]+/gu, " ").trim();
  throw new DkvError("CONFIG_INVALID", line);
}

/** A value from the file, short enough for a line. */
export function show(value: unknown): string {
  const text = JSON.stringify(value) ?? "nothing";
  return text.length <= 60 ? text : `${text.slice(0, 57)}…`;
}
