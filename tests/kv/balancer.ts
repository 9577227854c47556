/**
 * A load balancer in front of the nodes, as the README recommends one: HTTP/1.1 and h2c towards
 * clients, HTTP/1.1 towards nodes. It counts the atomic writes that it passes on, because a client
 * sends one again without telling its program. Used by `kvconnect_test.ts` and `kv.ts`.
 *
 * ```text
 *   program ── kv.atomic() ──▶ client ── atomic_write ──▶ balancer ── atomic_write ──▶ node
 *      counts attempts            └── once more ────────────▶ counts what is on the wire
 * ```
 *
 * It passes on each request once: one whose node dies is answered with 502, which clients take like a
 * broken connection.
 *
 * @module
 */

/** How long a node that did not answer is left alone. */
const REST_MS = 1000;
/** Headers of a request that are for the node. */
const PASSED_ON = /^(authorization|content-type|x-)/;

/** One balancer, on a port of its own. */
export class Balancer implements AsyncDisposable {
  /** `http://host:port`. */
  readonly url: string;
  /** Atomic writes that were passed on to a node, whatever became of them. */
  writes = 0;
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  readonly #nodes: { readonly url: string; restsUntil: number }[];
  #turn = 0;

  /** The nodes' URLs. */
  constructor(urls: readonly string[]) {
    this.#nodes = urls.map((url) => ({ url, restsUntil: 0 }));
    this.#server = Deno.serve(
      { hostname: "127.0.0.1", port: 0, onListen: () => {} },
      (request) => this.#pass(request),
    );
    this.url = `http://127.0.0.1:${this.#server.addr.port}`;
  }

  async #pass(request: Request): Promise<Response> {
    const { pathname } = new URL(request.url);
    const headers = [...request.headers].filter(([name]) =>
      PASSED_ON.test(name)
    );
    const body = await request.bytes();
    const node = this.#next();
    if (pathname.endsWith("/atomic_write")) this.writes++;
    try {
      const { method } = request;
      const answer = await fetch(node.url + pathname, {
        method,
        headers,
        body,
      });
      const type = answer.headers.get("content-type") ?? "";
      return new Response(answer.body, {
        status: answer.status,
        headers: { "content-type": type },
      });
    } catch {
      node.restsUntil = performance.now() + REST_MS;
      return new Response("The node is gone\n", { status: 502 });
    }
  }

  /** By turns, without those that rest, unless all do. */
  #next(): { readonly url: string; restsUntil: number } {
    const nowMs = performance.now();
    const ready = this.#nodes.filter(({ restsUntil }) => restsUntil <= nowMs);
    const choice = ready.length > 0 ? ready : this.#nodes;
    return choice[this.#turn++ % choice.length]!;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.shutdown();
  }
}
