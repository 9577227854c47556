/**
 * Pictures written by hand: elements, escaping, and the looks that all charts share. Pure; used by
 * `barchart.ts` and `linechart.ts`.
 *
 * @module
 */

/** What charts have in common. */
export const LOOK = {
  background: "#ffffff",
  ink: "#1b1f24",
  faint: "#59636e",
  line: "#d1d9e0",
  font: "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif",
} as const;

/** Told apart by people who see colours differently too: those of Okabe and Ito. */
export const COLOURS = {
  blue: "#0072b2",
  sky: "#56b4e9",
  vermilion: "#d55e00",
  orange: "#e69f00",
  green: "#009e73",
  grey: "#9aa5b1",
  purple: "#aa4499",
} as const;

/** Attributes of an element; numbers are rounded to a tenth. */
export type Attributes = Readonly<Record<string, string | number>>;

/** Text as it may stand between tags and in attributes. */
export function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}

/** An element; `content` is markup already. */
export function element(
  name: string,
  attributes: Attributes,
  content = "",
): string {
  const shown = Object.entries(attributes).map(([key, value]) => {
    const text = typeof value === "number" ? String(tenth(value)) : value;
    return ` ${key}="${escaped(text)}"`;
  }).join("");
  return content === ""
    ? `<${name}${shown}/>`
    : `<${name}${shown}>${content}</${name}>`;
}

/** A line of text; `size` in pixels. */
export function label(
  text: string,
  { x, y, size = 14, ...more }: {
    x: number;
    y: number;
    size?: number;
    fill?: string;
    anchor?: "start" | "middle" | "end";
    weight?: number;
    rotate?: number;
  },
): string {
  const { fill = LOOK.ink, anchor = "start", weight = 400, rotate } = more;
  const attributes: Record<string, string | number> = {
    x,
    y,
    "font-size": size,
    "font-weight": weight,
    "text-anchor": anchor,
    fill,
  };
  if (rotate !== undefined) {
    attributes.transform = `rotate(${rotate} ${tenth(x)} ${tenth(y)})`;
  }
  return element("text", attributes, escaped(text));
}

/** A whole picture, with what a screen reader says of it. */
export function picture(
  { width, height, title }: { width: number; height: number; title: string },
  parts: readonly string[],
): string {
  const attributes = {
    xmlns: "http://www.w3.org/2000/svg",
    viewBox: `0 0 ${tenth(width)} ${tenth(height)}`,
    width,
    height,
    role: "img",
    "font-family": LOOK.font,
  };
  const background = element("rect", { width, height, fill: LOOK.background });
  const all = [element("title", {}, escaped(title)), background, ...parts];
  return `${element("svg", attributes, `\n${all.join("\n")}\n`)}\n`;
}

/** A number for a person: `21,400`, `3.4`, `0.058`. */
export function numberText(value: number): string {
  const digits = value >= 100 ? 0 : value >= 10 ? 1 : value >= 0.1 ? 2 : 3;
  const text = Number(value.toPrecision(3)).toFixed(digits);
  const [whole = "", part] = text.split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  const rest = part?.replace(/0+$/, "") ?? "";
  return rest === "" ? grouped : `${grouped}.${rest}`;
}

function tenth(value: number): number {
  return Math.round(10 * value) / 10;
}
