/**
 * What `Peers` leave behind: no timer and no socket. In a file of their own, because a timer that an
 * earlier test without this check left behind would be held against the next one with it.
 *
 * @module
 */

import {
  assert,
  assertEquals,
  assertLess,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { DkvError } from "../errors.ts";
import { type Need, needs } from "./needs.ts";
import {
  assertFails,
  cluster,
  connected,
  heartbeat,
  hello,
  messages,
  random,
  rawCall,
  rounds,
  settled,
  silentServer,
  snapshotOf,
  station,
  TestSink,
  until,
} from "./stations.ts";

const NEEDS: readonly Need[] = ["net", "env"];

/** A test with real sockets, of which nothing remains: sanitizers are off by default in Deno 2.9. */
function checkClean(name: string, fn: () => Promise<void>): void {
  needs(NEEDS, name, async () => {
    await fn();
    await settled();
  }, { sanitizeOps: true, sanitizeResources: true });
}

checkClean(
  "peers: a node that restarts is found again, and its absence reported",
  async () => {
    await using nodes = await cluster(2);
    const [n1, n2] = nodes.all;
    await connected(n1, n2);
    await n2.stop();
    await until(() => !n1.peers.connected("n2"), "the loss");
    assertEquals(n1.unreachable, ["n2"]);
    n1.peers.send("n2", "g", heartbeat(1));
    n1.peers.flush();
    assertEquals(n1.unreachable, ["n2", "n2"]);
    const again = await nodes.restart("n2");
    await connected(n1, again);
    n1.peers.send("n2", "g", heartbeat(2));
    await until(
      () => messages(again).length === 1,
      "a message after the return",
    );
    assertEquals(rounds(again), [2]);
  },
);

checkClean(
  "peers: a dial under way is given up for a new place, and a node that is no more is left",
  async () => {
    await using silent = await silentServer({ welcomes: false });
    await using n2 = await station("n2", {
      addresses: new Map([["n1", "127.0.0.1:9"]]),
    });
    await using n1 = await station("n1", {
      addresses: new Map([["n2", silent.address]]),
      // Nothing but the move ends the dial.
      limits: { peerHandshakeMsMax: 60_000 },
    });
    n1.peers.start();
    await until(() => silent.hellos() > 0, "a dial to the wrong place");
    n1.peers.place(new Map([["n2", `127.0.0.1:${n2.port}`]]));
    await until(() => n1.peers.connected("n2"), "the right place");
    assert(n1.peers.knows("n2"));
    n1.peers.place(new Map());
    assert(!n1.peers.knows("n2") && !n1.peers.connected("n2"));
    await assertRejects(
      () => n1.peers.sendSnapshot("n2", snapshotOf(random(10), 10)),
      DkvError,
      "n2 is not another node",
    );
    await using call = await rawCall(n1.port, "Exchange");
    call.write(hello("n2"));
    assertStringIncludes((await call.status).details, 'refuses "n2"');
  },
);

checkClean(
  "peers: stop ends streams, dials and transfers at once",
  async () => {
    const gate = Promise.withResolvers<void>();
    const sink = new TestSink({ write: gate.promise });
    await using nodes = await cluster(2, {
      extra: { away: "127.0.0.1:9" },
      snapshotSink: () => sink,
    });
    const [n1, n2] = nodes.all;
    await connected(n1, n2);
    const sending = n1.peers.sendSnapshot("n2", snapshotOf(random(1000), 100));
    const failed = assertFails(sending, { code: "SHUTTING_DOWN", text: "" });
    await until(() => sink.writing, "a transfer under way");
    n1.peers.send("n2", "g", heartbeat(1));
    const startMs = performance.now();
    // First the sender's alone, so that it is not the receiver's end that ends the transfer.
    await n1.peers.stop();
    await n2.peers.stop();
    assertLess(performance.now() - startMs, 1000);
    await failed;
    gate.resolve();
    await until(() => sink.end === "aborted", "the abort");
    assert(!n1.peers.connected("n2"));
    n1.peers.send("n2", "g", heartbeat(2));
    await assertFails(
      n1.peers.sendSnapshot("n2", snapshotOf(random(1), 1)),
      { code: "SHUTTING_DOWN", text: "" },
    );
  },
);

checkClean(
  "peers: stop in the turn of start leaves nothing that goes on dialling",
  async () => {
    await using n1 = await station("n1", {
      addresses: new Map([["away", "127.0.0.1:9"]]),
    });
    n1.peers.start();
    await n1.peers.stop();
  },
);
