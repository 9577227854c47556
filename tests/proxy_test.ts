/**
 * The proxy does to a connection what its name says, and nothing else.
 *
 * @module
 */

import { assertEquals, assertGreaterOrEqual } from "@std/assert";
import { needs } from "./needs.ts";
import { Proxy } from "./proxy.ts";

/** Sends back what it gets. */
function echoServer(): Deno.TcpListener {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  (async () => {
    for await (const conn of listener) {
      conn.readable.pipeTo(conn.writable).catch(() => {});
    }
  })();
  return listener;
}

async function connect(proxy: Proxy): Promise<Deno.TcpConn> {
  const [hostname = "", port = ""] = proxy.address.split(":");
  return await Deno.connect({ hostname, port: Number(port) });
}

async function say(conn: Deno.TcpConn, text: string): Promise<void> {
  await conn.write(new TextEncoder().encode(text));
}

/** What comes next; "" at the end or after a reset. */
async function hear(conn: Deno.TcpConn): Promise<string> {
  const buffer = new Uint8Array(100);
  const count = await conn.read(buffer).catch(() => null);
  return new TextDecoder().decode(buffer.subarray(0, count ?? 0));
}

needs(
  ["net"],
  "proxy: forwards, holds back, lets go, drops and refuses",
  async () => {
    using server = echoServer();
    await using proxy = new Proxy(`127.0.0.1:${server.addr.port}`);
    using conn = await connect(proxy);
    await say(conn, "one");
    assertEquals(await hear(conn), "one");

    for (const direction of ["forward", "back"] as const) {
      proxy.pause(direction);
      await say(conn, "two");
      const answer = hear(conn);
      let heard = false;
      answer.then(() => heard = true);
      // Another connection through a proxy of its own takes the same way and proves that time passed.
      await using other = new Proxy(`127.0.0.1:${server.addr.port}`);
      using probe = await connect(other);
      for (let turn = 0; turn < 5; turn++) {
        await say(probe, "x");
        assertEquals(await hear(probe), "x");
      }
      assertEquals(heard, false, direction);
      proxy.resume(direction);
      assertEquals(await answer, "two");
    }

    proxy.drop();
    assertEquals(await hear(conn), "");
    using again = await connect(proxy);
    await say(again, "three");
    assertEquals(await hear(again), "three");

    proxy.refuse();
    assertEquals(await hear(again), "");
    using refused = await connect(proxy);
    assertEquals(await hear(refused), "");
    proxy.accept();
    using last = await connect(proxy);
    await say(last, "four");
    assertEquals(await hear(last), "four");
  },
);

needs(["net"], "proxy: delays each piece", async () => {
  using server = echoServer();
  await using proxy = new Proxy(`127.0.0.1:${server.addr.port}`);
  using conn = await connect(proxy);
  proxy.delay(40);
  const before = performance.now();
  await say(conn, "one");
  assertEquals(await hear(conn), "one");
  assertGreaterOrEqual(performance.now() - before, 78);
});

needs(["net"], "proxy: shows that nobody listens behind it", async () => {
  const server = echoServer();
  const { port } = server.addr;
  server.close();
  await using proxy = new Proxy(`127.0.0.1:${port}`);
  using conn = await connect(proxy);
  assertEquals(await hear(conn), "");
});
