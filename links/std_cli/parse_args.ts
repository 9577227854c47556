/**
 * Thin stand-in with the name and signature of `jsr:@std/cli/parse-args`: the part we use.
 *
 * @module
 */

/** Options of {@linkcode parseArgs}: a subset of the package's. */
export interface ParseOptions<
  B extends string = never,
  S extends string = never,
  C extends string = never,
  D extends Record<string, unknown> = Record<never, never>,
> {
  /** Take no value: `--watch`. False if not given. */
  boolean?: B | readonly B[];
  /** Keep their value as it is. `_` stands for the arguments that belong to no option. */
  string?: S | readonly S[];
  /** May be given several times. */
  collect?: C | readonly C[];
  /** May be given as `--no-name`. */
  negatable?: string | readonly string[];
  /** What stands for options that are not given. */
  default?: D;
  /** Other names of an option. */
  alias?: Readonly<Record<string, string | readonly string[]>>;
  /** Everything after the first argument that is no option belongs to no option. */
  stopEarly?: boolean;
  /** Put what follows `--` under the name `--`, instead of with the rest. */
  "--"?: boolean;
  /** Called for what is not declared; `false` leaves it out. */
  unknown?: (arg: string, key?: string, value?: unknown) => unknown;
}

/** What {@linkcode parseArgs} found. */
export type Args<
  B extends string = never,
  S extends string = never,
  C extends string = never,
  D extends Record<string, unknown> = Record<never, never>,
> =
  & { [K in Exclude<B, C>]: boolean }
  & {
    [K in Exclude<S, C | "_">]: K extends keyof D ? string | D[K]
      : string | undefined;
  }
  & { [K in C]: K extends B ? boolean[] : string[] }
  & { [K in Exclude<keyof D, B | S | C>]: D[K] }
  & { _: Array<S extends "_" ? string : string | number>; "--"?: string[] };

/** Splits command-line arguments into options and the rest. */
export function parseArgs<
  B extends string = never,
  S extends string = never,
  C extends string = never,
  D extends Record<string, unknown> = Record<never, never>,
>(
  args: readonly string[],
  options: ParseOptions<B, S, C, D> = {},
): Args<B, S, C, D> {
  const parser = new Parser(options as ParseOptions<string, string, string>);
  return parser.parse(args) as Args<B, S, C, D>;
}

const NUMBER_REGEXP =
  /^(0x[0-9a-f]+|[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?)$/i;

class Parser {
  readonly #options: ParseOptions<string, string, string>;
  readonly #boolean: Set<string>;
  readonly #string: Set<string>;
  readonly #collect: Set<string>;
  readonly #negatable: Set<string>;
  /** Every name of an option, for each of its names. */
  readonly #names = new Map<string, string[]>();
  readonly #values = new Map<string, unknown>();
  readonly #rest: (string | number)[] = [];

  constructor(options: ParseOptions<string, string, string>) {
    this.#options = options;
    for (const [name, alias] of Object.entries(options.alias ?? {})) {
      const names = [name, ...list(alias)];
      for (const each of names) this.#names.set(each, names);
    }
    const all = (names: string | readonly string[] | undefined) =>
      new Set(list(names).flatMap((name) => this.#names.get(name) ?? [name]));
    this.#boolean = all(options.boolean);
    this.#string = all(options.string);
    this.#collect = all(options.collect);
    this.#negatable = all(options.negatable);
  }

  parse(args: readonly string[]): Record<string, unknown> {
    const dashes = args.indexOf("--");
    const before = dashes < 0 ? args : args.slice(0, dashes);
    const after = dashes < 0 ? [] : args.slice(dashes + 1);
    for (let at = 0; at < before.length; at++) {
      const arg = before[at] ?? "";
      if (/^--./s.test(arg)) at += this.#long(arg, before[at + 1]);
      else if (/^-[^-]/s.test(arg)) at += this.#short(arg, before[at + 1]);
      else {
        this.#positional(arg);
        if (!this.#options.stopEarly) continue;
        for (const other of before.slice(at + 1)) this.#positional(other);
        break;
      }
    }
    if (!this.#options["--"]) {
      for (const arg of after) {
        this.#positional(arg);
      }
    }
    return this.#result(after);
  }

  /** Returns how many further arguments it used. */
  #long(arg: string, next: string | undefined): number {
    const equals = arg.indexOf("=");
    if (equals > 0) {
      this.#set(arg.slice(2, equals), arg.slice(equals + 1), arg);
      return 0;
    }
    const key = arg.slice(2);
    const positive = key.replace(/^no-/, "");
    if (positive !== key && this.#negatable.has(positive)) {
      this.#set(positive, false, arg);
      return 0;
    }
    return this.#maybeWithNext(key, next, arg);
  }

  /** `-p 80`, `-p80`, `-p=80`, and `-abc` for three without a value. */
  #short(arg: string, next: string | undefined): number {
    const letters = arg.slice(1);
    for (let at = 0; at < letters.length; at++) {
      const key = letters[at] ?? "";
      const rest = letters.slice(at + 1);
      if (rest === "") return this.#maybeWithNext(key, next, arg);
      if (rest.startsWith("=")) {
        this.#set(key, rest.slice(1), arg);
        return 0;
      }
      if (NUMBER_REGEXP.test(rest) && !this.#boolean.has(key)) {
        this.#set(key, rest, arg);
        return 0;
      }
      this.#set(key, this.#string.has(key) ? "" : true, arg);
    }
    return 0;
  }

  #maybeWithNext(key: string, next: string | undefined, arg: string): number {
    const boolean = this.#boolean.has(key);
    const isValue = next !== undefined &&
      (boolean ? /^(true|false)$/.test(next) : !/^-./s.test(next));
    if (isValue) this.#set(key, next, arg);
    else this.#set(key, this.#string.has(key) ? "" : true, arg);
    return isValue ? 1 : 0;
  }

  #set(key: string, given: string | boolean, arg: string): void {
    const names = this.#names.get(key) ?? [key];
    const declared =
      [this.#boolean, this.#string, this.#collect].some((set) =>
        set.has(key)
      ) || this.#names.has(key) ||
      Object.hasOwn(this.#options.default ?? {}, key);
    const value = this.#convert(key, given);
    const { unknown } = this.#options;
    if (!declared && unknown?.(arg, key, value) === false) return;
    for (const name of names) {
      const before = this.#values.get(name);
      const all = Array.isArray(before) ? [...before, value] : [value];
      this.#values.set(name, this.#collect.has(name) ? all : value);
    }
  }

  #convert(key: string, given: string | boolean): unknown {
    if (this.#boolean.has(key)) return given !== "false" && given !== false;
    if (typeof given === "boolean" || this.#string.has(key)) return given;
    return NUMBER_REGEXP.test(given) ? Number(given) : given;
  }

  #positional(arg: string): void {
    if (this.#options.unknown?.(arg) === false) return;
    const asNumber = !this.#string.has("_") && NUMBER_REGEXP.test(arg);
    this.#rest.push(asNumber ? Number(arg) : arg);
  }

  #result(after: readonly string[]): Record<string, unknown> {
    for (const [name, value] of Object.entries(this.#options.default ?? {})) {
      for (const each of this.#names.get(name) ?? [name]) {
        if (!this.#values.has(each)) this.#values.set(each, value);
      }
    }
    for (const name of this.#collect) {
      if (!this.#values.has(name)) this.#values.set(name, []);
    }
    for (const name of this.#boolean) {
      if (!this.#values.has(name)) this.#values.set(name, false);
    }
    const result = Object.fromEntries(this.#values);
    if (this.#options["--"]) result["--"] = [...after];
    return { ...result, _: this.#rest };
  }
}

function list(
  names: string | readonly string[] | undefined,
): readonly string[] {
  return typeof names === "string" ? [names] : names ?? [];
}
