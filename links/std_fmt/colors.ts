/** Thin stand-ins with the names and signatures of `jsr:@std/fmt/colors`: ANSI colours that honour `setColorEnabled`. */
let enabled = true;

export function setColorEnabled(value: boolean): void {
  enabled = value;
}
export function getColorEnabled(): boolean {
  return enabled;
}
const paint = (open: number, close: number) => (str: string): string =>
  enabled ? `\x1b[${open}m${str}\x1b[${close}m` : str;

export const bold: (str: string) => string = paint(1, 22);
export const dim: (str: string) => string = paint(2, 22);
export const italic: (str: string) => string = paint(3, 23);
export const underline: (str: string) => string = paint(4, 24);
export const red: (str: string) => string = paint(31, 39);
export const green: (str: string) => string = paint(32, 39);
export const yellow: (str: string) => string = paint(33, 39);
export const blue: (str: string) => string = paint(34, 39);
export const magenta: (str: string) => string = paint(35, 39);
export const cyan: (str: string) => string = paint(36, 39);
export const white: (str: string) => string = paint(37, 39);
export const gray: (str: string) => string = paint(90, 39);
