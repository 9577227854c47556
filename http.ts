/**
 * A node's HTTP listener: HTTP/1.1 and HTTP/2 (with prior knowledge) on one port. It bounds what
 * comes in, finds who answers by the path, and stops in order. Used by `node.ts`.
 *
 * @module
 */

import { type Address, LIMITS } from "./config.ts";
import { DkvError } from "./errors.ts";

/** Answers requests to some paths; null: this is not one of them. */
export type Route = (
  request: Request,
  path: string,
) => Promise<Response> | null;

/** What an {@linkcode HttpServer} needs. */
export interface HttpOptions {
  readonly address: Address;
  /** Asked in this order. */
  readonly routes: readonly Route[];
  /** For what nobody foresaw. */
  readonly onDefect: (error: unknown) => void;
}

const IDLE_POLL_MS = 5;

/** The listener of one node. */
export class HttpServer {
  readonly #options: HttpOptions;
  readonly #abort = new AbortController();
  #server: Deno.HttpServer | undefined;
  /** Requests without an answer. */
  #open = 0;
  #isDraining = false;

  constructor(options: HttpOptions) {
    this.#options = options;
  }

  /**
   * Starts to listen.
   *
   * @throws {DkvError} CONFIG_INVALID if the address is taken.
   */
  start(): void {
    const { address, host: hostname, port } = this.#options.address;
    const { signal } = this.#abort;
    const options = { hostname, port, signal, onListen: () => {} };
    try {
      this.#server = Deno.serve(options, (request) => this.#serve(request));
    } catch (cause) {
      const taken = cause instanceof Deno.errors.AddrInUse;
      const reason = taken
        ? "another process does already"
        : (cause as Error).message;
      throw new DkvError(
        "CONFIG_INVALID",
        `Cannot listen on ${address}: ${reason}`,
        { cause },
      );
    }
  }

  /** Refuses new requests and waits until the others are answered, or for so long. */
  async drain(timeoutMs: number): Promise<void> {
    this.#isDraining = true;
    const end = performance.now() + timeoutMs;
    while (this.#open > 0 && performance.now() < end) {
      await new Promise((resolve) => setTimeout(resolve, IDLE_POLL_MS));
    }
  }

  /** Closes every connection. */
  async stop(): Promise<void> {
    this.#isDraining = true;
    this.#abort.abort();
    await this.#server?.finished;
  }

  async #serve(request: Request): Promise<Response> {
    if (this.#isDraining) return answer(503, "The node is stopping");
    if (this.#open >= LIMITS.httpRequestsMax) {
      return answer(503, `Too many requests wait: ${this.#open}`);
    }
    this.#open++;
    try {
      const path = pathOf(request.url);
      for (const route of this.#options.routes) {
        const response = route(request, path);
        if (response !== null) return await response;
      }
      return answer(404, "There is nothing here");
    } catch (error) {
      this.#options.onDefect(error);
      // No 5xx: somebody would send again what may have been done.
      return answer(409, "The node has a defect: what was asked may be done");
    } finally {
      this.#open--;
    }
  }
}

/** The path of `http://host/path?query`, as it was sent. */
function pathOf(url: string): string {
  const start = url.indexOf("/", url.indexOf("//") + 2);
  const query = url.indexOf("?", start);
  return url.slice(start, query < 0 ? url.length : query);
}

/** A plain answer. */
export function answer(status: number, text: string): Response {
  const headers = { "content-type": "text/plain; charset=utf-8" };
  return new Response(`${text}\n`, { status, headers });
}

/**
 * The body of a request, as far as it is allowed to be large.
 *
 * @throws {DkvError} REQUEST_TOO_LARGE; MALFORMED if it broke off.
 */
export async function readBody(
  request: Request,
  bytesMax: number = LIMITS.httpBodyBytesMax,
): Promise<Uint8Array> {
  const { body, headers } = request;
  if (body === null) return new Uint8Array(0);
  const announced = Number(headers.get("content-length") ?? NaN);
  if (announced > bytesMax) throw tooLarge(announced, bytesMax);
  try {
    // The listener holds a body to what it announced.
    if (announced <= bytesMax) return await request.bytes();
    const chunks: Uint8Array[] = [];
    let length = 0;
    for await (const chunk of body) {
      length += chunk.length;
      if (length > bytesMax) throw tooLarge(length, bytesMax);
      chunks.push(chunk);
    }
    const whole = new Uint8Array(length);
    let at = 0;
    for (const chunk of chunks) {
      whole.set(chunk, at);
      at += chunk.length;
    }
    return whole;
  } catch (cause) {
    if (cause instanceof DkvError) throw cause;
    throw new DkvError("MALFORMED", "The body broke off", { cause });
  }
}

function tooLarge(bytes: number, bytesMax: number): DkvError {
  return new DkvError(
    "REQUEST_TOO_LARGE",
    `The body is too large: ${bytes} bytes, at most ${bytesMax}`,
  );
}
