/** Thin stand-in for `jsr:@std/fmt/bytes`: the part we use. */

export interface FormatOptions {
  /** Use powers of 1,024 and their unit names (KiB, MiB, …). Default: false. */
  binary?: boolean;
}

/** Writes a byte count for a person: `format(1536, { binary: true })` is "1.5 KiB". */
export function format(num: number, options: FormatOptions = {}): string {
  const base = options.binary ? 1024 : 1000;
  const units = options.binary
    ? ["B", "KiB", "MiB", "GiB", "TiB"]
    : ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (Math.abs(num) >= base && unit < units.length - 1) {
    num /= base;
    unit++;
  }
  return `${Number(num.toPrecision(3))} ${units[unit]}`;
}
