/**
 * Several `Peers` in one process, over real sockets. Times are shortened; nothing sleeps for a while
 * to see what happens, everything waits for what must happen.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import {
  assert,
  assertEquals,
  assertGreater,
  assertLess,
  assertLessOrEqual,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { DkvError, type ErrorCode } from "../errors.ts";
import {
  encodeFrame,
  encodeSnapshotChunk,
  type Hello,
  type SnapshotChunk,
} from "../frame.ts";
import type { PeersOptions } from "../peers.ts";
import { type Need, needs } from "./needs.ts";
import { Proxy } from "./proxy.ts";

import {
  append,
  assertFails,
  bind,
  cluster,
  connected,
  frameOf,
  hangingSnapshot,
  heartbeat,
  hello,
  helloOf,
  messages,
  random,
  rawCall,
  rounds,
  silentServer,
  SNAPSHOT,
  snapshotMessage,
  snapshotOf,
  type Station,
  station,
  TestSink,
  turns,
  until,
} from "./stations.ts";

const NEEDS: readonly Need[] = ["net", "env"];
const KIB = 1024;
const MIB = 1024 * KIB;
/** Fails a test that would wait for ever. */
const PATIENCE_MS = 10_000;

/** A test with real sockets. */
function check(name: string, fn: () => Promise<void>): void {
  needs(NEEDS, name, fn);
}

// ---------------------------------------------------------------- order, batches, window

check(
  "peers: what is sent in one turn arrives in order, as one batch",
  async () => {
    await using nodes = await cluster(3);
    const [n1, n2, n3] = nodes.all;
    await connected(n1, n2, n3);
    // Asked when members are listed, of whom one may be this node under an earlier name.
    assertEquals(["n1", "nobody"].map((id) => n1.peers.connected(id)), [
      false,
      false,
    ]);
    for (let i = 1; i <= 500; i++) n1.peers.send("n2", "g", heartbeat(i));
    n1.peers.send("n3", "h", heartbeat(1));
    n1.peers.flush();
    await until(() => messages(n2).length === 500, "all messages at n2");
    await until(() => messages(n3).length === 1, "the message at n3");
    assertEquals(rounds(n2), Array.from({ length: 500 }, (_, i) => i + 1));
    assertEquals(n2.received.length, 1);
    assertEquals(n2.received[0]?.from, "n1");
    assertEquals(messages(n3), [{ group: "h", message: heartbeat(1) }]);
    await until(() => n1.peers.bytesInFlight("n2") === 0, "acknowledged");
  },
);

check(
  "peers: without a flush messages leave at the end of the turn",
  async () => {
    await using nodes = await cluster(2);
    const [n1, n2] = nodes.all;
    await connected(n1, n2);
    n1.peers.send("n2", "g", heartbeat(1));
    n1.peers.send("n2", "g", heartbeat(2));
    await until(() => messages(n2).length === 2, "both messages");
    assertEquals(n2.received.length, 1);
  },
);

check(
  "peers: frames have a bounded size, a larger message travels alone",
  async () => {
    await using nodes = await cluster(2);
    const [n1, n2] = nodes.all;
    await connected(n1, n2);
    const sizes = [400, 400, 400, 3000, 1, 1].map((kib) => kib * KIB);
    for (const size of sizes) n1.peers.send("n2", "g", append(size));
    n1.peers.flush();
    await until(() => messages(n2).length === sizes.length, "all messages");
    assertEquals(n2.received.map(({ envelopes }) => envelopes.length), [
      2,
      1,
      1,
      2,
    ]);
  },
);

check(
  "peers: a peer that never acknowledges costs a bounded window",
  async () => {
    await using silent = await silentServer();
    const limits = { peerUnackedBytesMax: 1 * MIB, peerSilenceMsMax: 300 };
    await using nodes = await cluster(2, {
      limits,
      extra: { mute: silent.address },
    });
    const [n1, n2] = nodes.all;
    await connected(n1, n2);
    await until(() => n1.peers.connected("mute"), "the mute node's welcome");
    let sent = 0;
    while (n1.unreachable.length === 0) {
      assertLess(sent++, 100);
      n1.peers.send("mute", "g", append(64 * KIB));
      n1.peers.flush();
      assertLessOrEqual(n1.peers.bytesInFlight("mute"), 1 * MIB);
    }
    assertEquals(n1.unreachable, ["mute"]);
    assertEquals(sent, 15 + 1);
    // Nobody else waits for it.
    n1.peers.send("n2", "g", heartbeat(1));
    await until(() => messages(n2).length === 1, "the message at n2");
    await until(
      () => n1.logs.some(({ text }) => text.includes("no answer for")),
      "the silence noticed",
    );
    const hellos = silent.hellos();
    await until(() => silent.hellos() > hellos, "another dial");
  },
);

check("peers: unacknowledged messages are bounded in number too", async () => {
  await using silent = await silentServer();
  await using nodes = await cluster(1, {
    limits: { peerQueueMessagesMax: 10 },
    extra: { mute: silent.address },
  });
  const [n1] = nodes.all;
  await until(() => n1.peers.connected("mute"), "the mute node's welcome");
  for (let i = 0; i < 25; i++) n1.peers.send("mute", "g", heartbeat(i));
  assertEquals(n1.unreachable, [], "nothing is reported from within send");
  n1.peers.flush();
  assertEquals(n1.unreachable, ["mute"]);
  await until(() => silent.messages() === 10, "what had room");
});

check(
  "peers: a message larger than the window travels when nothing else does",
  async () => {
    await using nodes = await cluster(2, {
      limits: { peerUnackedBytesMax: 64 * KIB },
    });
    const [n1, n2] = nodes.all;
    await connected(n1, n2);
    await until(() => n1.peers.bytesInFlight("n2") === 0, "pings acknowledged");
    n1.peers.send("n2", "g", append(1 * MIB));
    n1.peers.send("n2", "g", heartbeat(1));
    await until(() => messages(n2).length === 1, "the large message");
    assertEquals(messages(n2)[0]?.message.type, "append");
    assertEquals(n1.unreachable, ["n2"]);
  },
);

// ---------------------------------------------------------------- loss and return

check("peers: a node that dials is dialled back at once", async () => {
  const bound = await bind();
  await using nodes = await cluster(1, {
    extra: { n9: `127.0.0.1:${bound.port}` },
    // Without the other's dial, the next try would come after the test's patience.
    limits: {
      peerBackoffMsMin: 10 * PATIENCE_MS,
      peerBackoffMsMax: 10 * PATIENCE_MS,
    },
  });
  const [n1] = nodes.all;
  // Until its service is added, the server answers but does not know the method.
  await until(() => n1.logs.length === 1, "the first dial's failure");
  await using late = await station("n9", {
    bound,
    addresses: new Map([["n1", `127.0.0.1:${n1.port}`]]),
  });
  late.peers.start();
  await connected(n1, late);
});

check(
  "peers: a node that is away is told of once, and only when it stays away",
  async () => {
    const bound = await bind();
    const address = `127.0.0.1:${bound.port}`;
    bound.server.forceShutdown();
    const quietMs = 300;
    await using n1 = await station("n1", {
      addresses: new Map([["n2", address]]),
      limits: { peerBackoffMsMax: 50, peerQuietMs: quietMs },
    });
    const startMs = performance.now();
    n1.peers.start();
    await until(() => n1.logs.length > 0, "a failure");
    const warnings = () => n1.logs.filter(({ level }) => level === "warn");
    await until(() => warnings().length > 0, "the warning");
    assert(performance.now() - startMs >= quietMs, "the warning came too soon");
    const before = n1.logs.length;
    const dials = n1.logs.filter(({ level }) => level === "debug").length;
    assert(dials >= 2, `${dials} dials before the warning`);
    await until(
      () => performance.now() - startMs > 3 * quietMs,
      "more failures of the same kind",
    );
    assertEquals(n1.logs.length, before);
    assertEquals(warnings().map(({ text }) => text), [
      "no connection to n2: nobody listens there",
    ]);
  },
);

check(
  "peers: a connection that hangs is given up and dialled again",
  async () => {
    const bound = await bind();
    await using proxy = new Proxy(`127.0.0.1:${bound.port}`);
    await using n1 = await station("n1", {
      addresses: new Map([["n2", proxy.address]]),
      limits: { peerSilenceMsMax: 300, peerHandshakeMsMax: 300 },
    });
    await using n2 = await station("n2", {
      bound,
      addresses: new Map([["n1", `127.0.0.1:${n1.port}`]]),
    });
    n1.peers.start();
    await until(() => n1.peers.connected("n2"), "the first connection");
    proxy.pause("back");
    await until(() => !n1.peers.connected("n2"), "the silence noticed");
    assertEquals(n1.unreachable, ["n2"]);
    assertStringIncludes(n1.logs.at(-1)?.text ?? "", "no answer for");
    await until(
      () => n1.logs.at(-1)?.text.includes("no welcome for") ?? false,
      "a dial that hangs",
    );
    proxy.resume("back");
    await until(() => n1.peers.connected("n2"), "the second connection");
    n1.peers.send("n2", "g", heartbeat(7));
    await until(() => rounds(n2).includes(7), "a message after the pause");
  },
);

check(
  "peers: a newer stream of the same node replaces the older one",
  async () => {
    await using nodes = await cluster(1, { extra: { n2: "127.0.0.1:9" } });
    const [n1] = nodes.all;
    await using first = await rawCall(n1.port, "Exchange");
    first.write(encodeFrame({ type: "hello", hello: helloOf("n2") }));
    await until(() => first.replies.length === 1, "the first welcome");
    await using second = await rawCall(n1.port, "Exchange");
    second.write(encodeFrame({ type: "hello", hello: helloOf("n2") }));
    const { code, details } = await first.status;
    assertEquals(code, 14);
    assertStringIncludes(details, "newer stream");
    second.write(frameOf(heartbeat(3)));
    await until(() => messages(n1).length === 1, "a message on the second");
  },
);

// ---------------------------------------------------------------- who and where

check(
  "peers: a node that moves is dialled at its new place once its connection has ended",
  async () => {
    await using nodes = await cluster(2);
    const [n1, n2] = nodes.all;
    await connected(n1, n2);
    const bound = await bind();
    n1.peers.place(new Map([["n2", `127.0.0.1:${bound.port}`]]));
    n1.peers.send("n2", "g", heartbeat(1));
    await until(() => messages(n2).length === 1, "the old connection is used");
    await n2.stop();
    await until(() => !n1.peers.connected("n2"), "the end of it");
    await using moved = await station("n2", {
      bound,
      addresses: new Map([["n1", `127.0.0.1:${n1.port}`]]),
    });
    await until(() => n1.peers.connected("n2"), "the new place");
    n1.peers.send("n2", "g", heartbeat(2));
    await until(() => messages(moved).length === 1, "a message there");
  },
);

check(
  "peers: a node that comes from elsewhere is dialled there, for its known place is dead",
  async () => {
    await using n1 = await station("n1", {
      addresses: new Map([["n2", "127.0.0.1:9"]]),
    });
    n1.peers.start();
    await using n2 = await station("n2", {
      addresses: new Map([["n1", `127.0.0.1:${n1.port}`]]),
    });
    n2.peers.start();
    await connected(n1, n2);
  },
);

check("peers: nobody is dialled where this node may not go", async () => {
  const told: string[] = [];
  await using n1 = await station("n1", {
    addresses: new Map([["n2", "127.0.0.1:9"]]),
    mayReach: (address) => told.push(address) < 0,
  });
  n1.peers.start();
  await using n2 = await station("n2", {
    addresses: new Map([["n1", `127.0.0.1:${n1.port}`]]),
  });
  n2.peers.start();
  await until(() => n2.peers.connected("n1"), "the way that is open");
  assertEquals(told, [`127.0.0.1:${n2.port}`]);
  n1.peers.place(new Map([["n2", `127.0.0.1:${n2.port}`]]));
  await connected(n1, n2);
});

check("peers: a node has parted when its last stream has ended", async () => {
  const parted: string[] = [];
  await using n1 = await station("n1", {
    addresses: new Map([["n2", "127.0.0.1:9"]]),
    onParted: (nodeId) => parted.push(nodeId),
  });
  await using first = await rawCall(n1.port, "Exchange");
  first.write(hello("n2"));
  await until(() => first.replies.length === 1, "the first welcome");
  await using second = await rawCall(n1.port, "Exchange");
  second.write(hello("n2"));
  await first.status;
  assertEquals(parted, [], "there is a newer one");
  second.end();
  await until(() => parted.length > 0, "the end of the second");
  assertEquals(parted, ["n2"]);
});

check(
  "peers: streams of a node that is no more end; an invited one is welcome before it is known",
  async () => {
    await using n1 = await station("n1", {
      addresses: new Map([["n2", "127.0.0.1:9"]]),
      invites: ({ address }) => address === "n7:1",
    });
    n1.peers.start();
    await using known = await rawCall(n1.port, "Exchange");
    known.write(hello("n2"));
    await until(() => known.replies.length === 1, "the known node's welcome");
    await using stranger = await rawCall(n1.port, "Exchange");
    stranger.write(hello("n8"));
    assertStringIncludes((await stranger.status).details, 'refuses "n8"');
    await using invited = await rawCall(n1.port, "Exchange");
    invited.write(hello("n7"));
    await until(
      () => invited.replies.length === 1,
      "the invited one's welcome",
    );
    assert(!n1.peers.knows("n7"));
    n1.peers.place(new Map([["n7", "127.0.0.1:9"]]));
    assertStringIncludes((await known.status).details, "not a node of this");
    invited.write(frameOf(heartbeat(3)));
    await until(() => messages(n1).length === 1, "a message of the new one");
    assertEquals(n1.received[0]?.from, "n7");
  },
);

// ---------------------------------------------------------------- who may talk

const REFUSALS: readonly [
  string,
  Partial<PeersOptions["identity"]>,
  string,
][] = [
  ["cluster name", { clusterName: "other" }, "cluster"],
  ["fingerprint", { fingerprint: "other" }, "fingerprint"],
  ["cluster id", { clusterId: () => "two" }, "cluster id"],
  ["data directory", { incarnation: "" }, "data directory"],
];

for (const [name, changed, text] of REFUSALS) {
  check(
    `peers: a node with another ${name} is refused, with the reason on both sides`,
    async () => {
      await using nodes = await cluster(2, {
        identities: { n1: { clusterId: () => "one" }, n2: changed },
      });
      const [n1, n2] = nodes.all;
      const reasons = (node: Station) =>
        node.logs.filter(({ level }) => level === "error");
      // Each side has logged what it found and what the other answered.
      await until(
        () => reasons(n1).length > 0 && reasons(n2).length > 0,
        "both logs",
      );
      for (const { text: line } of [...reasons(n1), ...reasons(n2)]) {
        assertStringIncludes(line, text);
        assertStringIncludes(line, "n1");
        assertStringIncludes(line, "n2");
      }
      assert(!n1.peers.connected("n2") && !n2.peers.connected("n1"));
    },
  );
}

check(
  "peers: the node decides about a new data directory, and the refusal is logged once",
  async () => {
    let asked = 0;
    await using nodes = await cluster(2, {
      admit: (self, { incarnation }) => {
        if (self !== "n1") return null;
        asked++;
        return `its data directory is new: ${incarnation}`;
      },
    });
    const [n1, n2] = nodes.all;
    await until(() => asked > 10, "many tries");
    await until(() => n2.logs.length > 0, "a log at n2");
    const refusals = (node: Station) =>
      node.logs.filter(({ text }) =>
        text.includes("directory is new: n2-disk")
      );
    // As the one that dials and as the one that is dialled.
    assertLessOrEqual(refusals(n1).length, 2);
    assertLessOrEqual(refusals(n2).length, 2);
    assertGreater(refusals(n1).length, 0);
    assertGreater(refusals(n2).length, 0);
  },
);

check(
  "peers: an address where another node answers is refused on both sides",
  async () => {
    await using n3 = await station("n3", {
      addresses: new Map([["n1", "127.0.0.1:9"]]),
    });
    await using n1 = await station("n1", {
      addresses: new Map([["n2", `127.0.0.1:${n3.port}`]]),
    });
    n1.peers.start();
    const text = 'n1 refuses "n3": expected "n2"';
    await until(
      () => n1.logs.some((log) => log.text.includes(text)),
      "n1's log",
    );
    await until(
      () => n3.logs.some((log) => log.text.includes(text)),
      "n3's log",
    );
    assert(!n1.peers.connected("n2"));
  },
);

const STRANGERS: readonly [string, Partial<Hello>, string][] = [
  ["an unknown node", { nodeId: "n7" }, 'n1 refuses "n7": expected "n2"'],
  ["the node's own id", { nodeId: "n1" }, "claims to be this node"],
  ["another protocol", { protocolVersion: 9 }, "speaks version 9"],
];

for (const [name, changed, text] of STRANGERS) {
  check(`peers: ${name} is refused with a status`, async () => {
    await using nodes = await cluster(1, { extra: { n2: "127.0.0.1:9" } });
    const [n1] = nodes.all;
    await using call = await rawCall(n1.port, "Exchange");
    call.write(encodeFrame({ type: "hello", hello: helloOf("n2", changed) }));
    const status = await call.status;
    assertEquals(status.code, 9);
    assertEquals(status.metadata.get("dkv-code"), ["IDENTITY_MISMATCH"]);
    assertStringIncludes(status.details, text);
  });
}

// ---------------------------------------------------------------- malformed

const MALFORMED: readonly [string, Uint8Array[], string][] = [
  ["garbage", [hello("n9"), Uint8Array.of(255, 255)], "Frame"],
  ["no hello", [frameOf(heartbeat(1))], "not a hello"],
  ["two hellos", [hello("n9"), hello("n9")], "second hello"],
  ["garbage first", [Uint8Array.of(1)], "Frame"],
];

for (const [name, frames, text] of MALFORMED) {
  check(`peers: ${name} ends the stream and disturbs nobody else`, async () => {
    await using nodes = await cluster(2, { extra: { n9: "127.0.0.1:9" } });
    const [n1, n2] = nodes.all;
    await connected(n1, n2);
    await using call = await rawCall(n1.port, "Exchange");
    for (const bytes of frames) call.write(bytes);
    const status = await call.status;
    assertEquals(status.code, 3);
    assertEquals(status.metadata.get("dkv-code"), ["MALFORMED"]);
    assertStringIncludes(status.details, text);
    assert(n1.logs.some(({ level }) => level === "warn"));
    n2.peers.send("n1", "g", heartbeat(4));
    await until(() => rounds(n1).includes(4), "a message of n2");
  });
}

check(
  "peers: streams that say nothing are ended, and bounded in number",
  async () => {
    await using nodes = await cluster(1, {
      extra: { n2: "127.0.0.1:9" },
      limits: { peerHandshakesMax: 2, peerHandshakeMsMax: 300 },
    });
    const [n1] = nodes.all;
    await using a = await rawCall(n1.port, "Exchange");
    await using b = await rawCall(n1.port, "Exchange");
    await using c = await rawCall(n1.port, "InstallSnapshot");
    const codes = (await Promise.all([a.status, b.status, c.status]))
      .map(({ metadata }) => metadata.get("dkv-code")[0]);
    assertEquals(codes.filter((code) => code === "OVERLOADED").length, 1);
  },
);

// ---------------------------------------------------------------- snapshots

check("peers: a snapshot arrives whole, then its message", async () => {
  const sinks: TestSink[] = [];
  await using nodes = await cluster(2, {
    snapshotSink: (_from, snapshot) => {
      assertEquals(snapshot, {
        group: "g",
        meta: SNAPSHOT.meta,
        bytes: 5 * MIB + 7,
      });
      const sink = new TestSink();
      sinks.push(sink);
      return sink;
    },
  });
  const [n1, n2] = nodes.all;
  await connected(n1, n2);
  const content = random(5 * MIB + 7);
  const sending = n1.peers.sendSnapshot("n2", snapshotOf(content, 100_001));
  await until(() => sinks.length === 1, "the sink");
  n1.peers.send("n2", "g", heartbeat(1));
  await sending;
  const [sink] = sinks;
  assertEquals(sink?.end, "finished");
  assert(Buffer.from(content).equals(Buffer.concat(sink?.written ?? [])));
  await until(() => messages(n2).length === 2, "both messages");
  assertEquals(
    messages(n2).filter(({ message }) => message.type === "snapshot"),
    [
      { group: "g", message: SNAPSHOT },
    ],
  );
  // And again: nothing of the first is left.
  await n1.peers.sendSnapshot("n2", snapshotOf(content, 4 * MIB));
  assertEquals(sinks[1]?.end, "finished");
});

check("peers: the message of a snapshot waits for the sink", async () => {
  const gate = Promise.withResolvers<void>();
  const sink = new TestSink({ finish: gate.promise });
  await using nodes = await cluster(2, { snapshotSink: () => sink });
  const [n1, n2] = nodes.all;
  const sending = n1.peers.sendSnapshot("n2", snapshotOf(random(1000), 100));
  await until(() => sink.finishing, "finish");
  await connected(n1, n2);
  n1.peers.send("n2", "g", heartbeat(1));
  await until(() => messages(n2).length === 1, "a message meanwhile");
  assertEquals(rounds(n2), [1]);
  gate.resolve();
  await sending;
  assertEquals(messages(n2).length, 2);
});

check("peers: an empty snapshot is a snapshot", async () => {
  const sink = new TestSink();
  await using nodes = await cluster(2, { snapshotSink: () => sink });
  const [n1, n2] = nodes.all;
  await n1.peers.sendSnapshot("n2", snapshotOf(random(0), 1));
  assertEquals(sink.end, "finished");
  assertEquals(messages(n2).length, 1);
});

check(
  "peers: the sender never runs further ahead than the window",
  async () => {
    const gate = Promise.withResolvers<void>();
    const sink = new TestSink({ write: gate.promise });
    await using nodes = await cluster(2, { snapshotSink: () => sink });
    const [n1] = nodes.all;
    let read = 0;
    const content = random(8 * MIB);
    const snapshot = snapshotOf(content, 256 * KIB, (bytes) => read += bytes);
    const sending = n1.peers.sendSnapshot("n2", snapshot);
    // The window, and the piece that waits for room.
    await until(() => read === 4 * MIB + 256 * KIB, "a full window");
    await until(() => sink.writing, "the first write");
    await turns(100);
    assertEquals(read, 4 * MIB + 256 * KIB);
    gate.resolve();
    await sending;
    assertEquals(read, 8 * MIB);
  },
);

check("peers: one snapshot at a time to one node", async () => {
  const gate = Promise.withResolvers<void>();
  const sink = new TestSink({ finish: gate.promise });
  await using nodes = await cluster(2, { snapshotSink: () => sink });
  const [n1] = nodes.all;
  const first = n1.peers.sendSnapshot("n2", snapshotOf(random(10), 10));
  await assertFails(
    n1.peers.sendSnapshot("n2", snapshotOf(random(10), 10)),
    { code: "OVERLOADED", text: "on its way to n2" },
  );
  gate.resolve();
  await first;
});

check("peers: a snapshot that stalls is given up on both sides", async () => {
  const gate = Promise.withResolvers<void>();
  const sink = new TestSink({ write: gate.promise });
  await using nodes = await cluster(2, {
    snapshotSink: () => sink,
    limits: { snapshotStallMsMax: 300 },
  });
  const [n1, n2] = nodes.all;
  await assertFails(
    n1.peers.sendSnapshot("n2", hangingSnapshot(1000)),
    { code: "DEADLINE_EXCEEDED", text: "0 of 1000 bytes" },
  );
  gate.resolve();
  await until(() => sink.end === "aborted", "the abort");
  assertEquals(messages(n2), []);
});

check("peers: a source that hangs is given up", async () => {
  const sink = new TestSink();
  await using nodes = await cluster(2, {
    snapshotSink: () => sink,
    limits: { snapshotStallMsMax: 200 },
  });
  const [n1] = nodes.all;
  await assertFails(n1.peers.sendSnapshot("n2", hangingSnapshot(10)), {
    code: "DEADLINE_EXCEEDED",
    text: "of 10 bytes",
  });
  await until(() => sink.end === "aborted", "the abort");
});

check("peers: a snapshot can be given up by its sender", async () => {
  const gate = Promise.withResolvers<void>();
  const sink = new TestSink({ write: gate.promise });
  await using nodes = await cluster(2, { snapshotSink: () => sink });
  const [n1, n2] = nodes.all;
  const controller = new AbortController();
  const sending = n1.peers.sendSnapshot("n2", {
    ...hangingSnapshot(1000),
    signal: controller.signal,
  });
  const failed = assertFails(sending, { code: "CANCELLED", text: "given up" });
  await until(() => sink.writing, "the first write");
  controller.abort();
  await failed;
  gate.resolve();
  await until(() => sink.end === "aborted", "the abort");
  assertEquals(messages(n2), []);
});

check("peers: a refused snapshot says why, with its code", async () => {
  await using nodes = await cluster(2, {
    snapshotSink: () => {
      throw new DkvError("DISK_FULL", "No room for 10 bytes, only 3 are free");
    },
  });
  const [n1] = nodes.all;
  const sending = n1.peers.sendSnapshot("n2", snapshotOf(random(10), 10));
  await assertFails(sending, { code: "DISK_FULL", text: "only 3 are free" });
});

check("peers: a sink that fails ends the transfer", async () => {
  const sink = new TestSink({ write: Promise.reject(new Error("EIO")) });
  await using nodes = await cluster(2, { snapshotSink: () => sink });
  const [n1, n2] = nodes.all;
  const sending = n1.peers.sendSnapshot("n2", snapshotOf(random(10), 10));
  await assertFails(sending, { code: "INTERNAL", text: "EIO" });
  await until(() => sink.end === "aborted", "the abort");
  assertEquals(messages(n2), []);
});

check(
  "peers: a source of another size than announced is an error",
  async () => {
    for (const bytes of [9, 11]) {
      const sink = new TestSink();
      await using nodes = await cluster(2, { snapshotSink: () => sink });
      const [n1, n2] = nodes.all;
      const snapshot = { ...snapshotOf(random(10), 10), bytes };
      await assertRejects(
        () => n1.peers.sendSnapshot("n2", snapshot),
        DkvError,
      );
      await until(() => sink.end === "aborted", "the abort");
      assertEquals(messages(n2), []);
    }
  },
);

check("peers: a snapshot to a node that is away is refused", async () => {
  await using nodes = await cluster(1, { extra: { n2: "127.0.0.1:9" } });
  const [n1] = nodes.all;
  const sending = n1.peers.sendSnapshot("n2", snapshotOf(random(10), 10));
  await assertFails(sending, { code: "UNREACHABLE", text: "" });
});

const HEADER: SnapshotChunk = {
  type: "header",
  hello: helloOf("n2"),
  group: "g",
  message: snapshotMessage(),
  bytes: 4,
};
const DATA: SnapshotChunk = {
  type: "data",
  offset: 0,
  data: Uint8Array.of(1, 2, 3, 4),
};
const BAD_TRANSFERS: readonly [string, readonly SnapshotChunk[], ErrorCode][] =
  [
    ["a wrong checksum", [HEADER, DATA, {
      type: "end",
      sha256: new Uint8Array(32),
    }], "DATA_CORRUPT"],
    [
      "missing bytes",
      [HEADER, { type: "end", sha256: new Uint8Array(32) }],
      "MALFORMED",
    ],
    ["bytes twice", [HEADER, DATA, DATA], "MALFORMED"],
    ["a gap", [HEADER, { ...DATA, offset: 1 } as SnapshotChunk], "MALFORMED"],
    ["two headers", [HEADER, HEADER], "MALFORMED"],
    ["no header", [DATA], "MALFORMED"],
    ["an early end", [HEADER], "MALFORMED"],
    [
      "another cluster",
      [{
        ...HEADER,
        hello: helloOf("n2", { clusterName: "x" }),
      } as SnapshotChunk],
      "IDENTITY_MISMATCH",
    ],
  ];

for (const [name, chunks, code] of BAD_TRANSFERS) {
  check(
    `peers: a snapshot with ${name} is refused and its sink aborted`,
    async () => {
      const sinks: TestSink[] = [];
      await using nodes = await cluster(1, {
        extra: { n2: "127.0.0.1:9" },
        snapshotSink: () => {
          const sink = new TestSink();
          sinks.push(sink);
          return sink;
        },
      });
      const [n1] = nodes.all;
      await using call = await rawCall(n1.port, "InstallSnapshot");
      for (const chunk of chunks) call.write(encodeSnapshotChunk(chunk));
      if (name === "an early end") call.end();
      const status = await call.status;
      assertEquals(status.metadata.get("dkv-code"), [code]);
      for (const sink of sinks) {
        await until(() => sink.end === "aborted", "the abort");
      }
      assertEquals(messages(n1), []);
    },
  );
}

check("peers: a newer snapshot of the same node ends the older", async () => {
  const sinks: TestSink[] = [];
  await using nodes = await cluster(1, {
    extra: { n2: "127.0.0.1:9" },
    snapshotSink: () => {
      const sink = new TestSink();
      sinks.push(sink);
      return sink;
    },
  });
  const [n1] = nodes.all;
  await using first = await rawCall(n1.port, "InstallSnapshot");
  first.write(encodeSnapshotChunk(HEADER));
  await until(() => sinks.length === 1, "the first sink");
  await using second = await rawCall(n1.port, "InstallSnapshot");
  second.write(encodeSnapshotChunk(HEADER));
  assertEquals((await first.status).metadata.get("dkv-code"), ["CANCELLED"]);
  await until(() => sinks.length === 2, "the second sink");
  assertEquals(sinks.map(({ end }) => end), ["aborted", null]);
});
