/**
 * The addresses of nodes as a person writes them. Used by `client.ts` and the command line.
 *
 * @module
 */

import { DkvError } from "./errors.ts";

const DEFAULT_PORT = 50_051;
const PORT_MAX = 65_535;

/**
 * Splits and checks `HOST:PORT`, several of them in a list or separated by commas. An address of
 * IPv6 is in brackets.
 *
 * @returns each once, with a port.
 * @throws {DkvError} CONFIG_INVALID if one can be no address, or if there is none.
 */
export function parseEndpoints(
  endpoints: string | readonly string[],
): string[] {
  const all = typeof endpoints === "string" ? endpoints.split(",") : endpoints;
  const texts = all.map((text) => text.trim()).filter((text) => text !== "");
  if (texts.length === 0) throw wrong("nothing");
  return [...new Set(texts.map(withPort))];
}

function withPort(text: string): string {
  const match = text.match(
    /^(?:[^\s:/@[\]]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?$/i,
  );
  if (match === null) throw wrong(text);
  const [, port] = match;
  if (port === undefined) return `${text}:${DEFAULT_PORT}`;
  if (Number(port) === 0 || Number(port) > PORT_MAX) throw wrong(text);
  return text;
}

function wrong(text: string): DkvError {
  return new DkvError(
    "CONFIG_INVALID",
    `Endpoints are HOST:PORT, or several separated by commas, not ${text}`,
  );
}
