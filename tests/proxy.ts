/**
 * A TCP proxy that a test can make slow, deaf, dumb or dead: what stands between two nodes of a
 * cluster in `tests/cluster.ts`.
 *
 *     node1 ──connects──▶ Proxy ──connects──▶ node2
 *                "forward" ───▶
 *                ◀─── "back"
 *
 * @module
 */

/** Away from the one who connected, or back to it. */
export type Direction = "forward" | "back";

const CHUNK_BYTES = 64 * 1024;

/** Bytes in one direction wait here while it is paused. Nothing is lost, as on a slow network. */
class Gate {
  #open: PromiseWithResolvers<void> | null = null;
  delayMs = 0;

  pause(): void {
    this.#open ??= Promise.withResolvers<void>();
  }

  resume(): void {
    this.#open?.resolve();
    this.#open = null;
  }

  async pass(): Promise<void> {
    if (this.delayMs > 0) {
      await new Promise((resolve) => setTimeout(resolve, this.delayMs));
    }
    while (this.#open !== null) await this.#open.promise;
  }
}

/** Forwards every connection it accepts to one target, until told otherwise. */
export class Proxy implements AsyncDisposable {
  readonly #listener: Deno.TcpListener;
  readonly #target: { hostname: string; port: number };
  readonly #gates = { forward: new Gate(), back: new Gate() };
  readonly #connections = new Set<Deno.TcpConn>();
  readonly #running = new Set<Promise<void>>();
  #refusing = false;

  /** Listens on a free port of 127.0.0.1; `target` is `host:port`. */
  constructor(target: string) {
    const colon = target.lastIndexOf(":");
    this.#target = {
      hostname: target.slice(0, colon),
      port: Number(target.slice(colon + 1)),
    };
    this.#listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    this.#track(this.#accept());
  }

  /** Where to connect: `127.0.0.1:port`. */
  get address(): string {
    return `127.0.0.1:${this.#listener.addr.port}`;
  }

  /** Open connections, both sides counted. */
  get connections(): number {
    return this.#connections.size;
  }

  /** Holds bytes back; connections stay open, and new ones too say nothing. */
  pause(...directions: Direction[]): void {
    for (const gate of this.#gatesOf(directions)) gate.pause();
  }

  /** Lets go what was held back. */
  resume(...directions: Direction[]): void {
    for (const gate of this.#gatesOf(directions)) gate.resume();
  }

  /** Waits this long before each piece of up to 64 KiB. */
  delay(delayMs: number, ...directions: Direction[]): void {
    for (const gate of this.#gatesOf(directions)) gate.delayMs = delayMs;
  }

  /** Closes every connection, and new ones as soon as they come, until {@linkcode accept}. */
  refuse(): void {
    this.#refusing = true;
    this.drop();
  }

  /** Takes new connections again. */
  accept(): void {
    this.#refusing = false;
  }

  /** Closes every connection; new ones are welcome. */
  drop(): void {
    for (const connection of this.#connections) close(connection);
    this.#connections.clear();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    this.refuse();
    this.resume();
    await Promise.all(this.#running);
  }

  #gatesOf(directions: Direction[]): Gate[] {
    const all: Direction[] = ["forward", "back"];
    return (directions.length === 0 ? all : directions)
      .map((direction) => this.#gates[direction]);
  }

  async #accept(): Promise<void> {
    for await (const near of this.#listener) {
      if (this.#refusing) close(near);
      else this.#track(this.#forward(near));
    }
  }

  async #forward(near: Deno.TcpConn): Promise<void> {
    this.#connections.add(near);
    let far: Deno.TcpConn;
    try {
      far = await Deno.connect(this.#target);
    } catch {
      // Nobody listens there: the one who connected must see the same.
      this.#end(near);
      return;
    }
    if (!this.#connections.has(near)) return close(far);
    this.#connections.add(far);
    for (const connection of [near, far]) connection.setNoDelay(true);
    await Promise.all([
      this.#pump(near, { to: far, gate: this.#gates.forward }),
      this.#pump(far, { to: near, gate: this.#gates.back }),
    ]);
  }

  async #pump(
    from: Deno.TcpConn,
    { to, gate }: { to: Deno.TcpConn; gate: Gate },
  ): Promise<void> {
    const buffer = new Uint8Array(CHUNK_BYTES);
    try {
      while (true) {
        const count = await from.read(buffer);
        await gate.pass();
        if (count === null) break;
        let at = 0;
        while (at < count) at += await to.write(buffer.subarray(at, count));
      }
    } catch {
      // Reset by one side or dropped by the test: either way both sides end.
    }
    this.#end(from);
    this.#end(to);
  }

  #end(connection: Deno.TcpConn): void {
    if (this.#connections.delete(connection)) close(connection);
  }

  #track(work: Promise<void>): void {
    const tracked = work.catch(() => {}).finally(() =>
      this.#running.delete(tracked)
    );
    this.#running.add(tracked);
  }
}

function close(connection: Deno.TcpConn): void {
  try {
    connection.close();
  } catch {
    // Closed already.
  }
}
