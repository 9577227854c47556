/**
 * `deno task pressure`: clients and peers that do not keep up get everything later, and cost the
 * nodes no memory. A task of its own, since it writes hundreds of megabytes.
 *
 * @module
 */

import { assert, assertEquals, assertGreater, assertLess } from "@std/assert";
import { LIMITS } from "../config.ts";
import type { TestCluster } from "./cluster.ts";
import { bytes } from "./load.ts";
import { Proxy } from "./proxy.ts";
import { Rpc } from "./rpc.ts";
import { clusterSteps } from "./steps.ts";

const MIB = 1024 * 1024;
const VALUE_BYTES = 512 * 1024;
/** What is there before, what is written while clients are slow, and while a peer is. */
const COUNTS = { warm: 112, slow: 208, peer: 96 };
/** What a node's memory may vary by; what is written would not fit. */
const GROWTH_BYTES_MAX = { slow: 72 * MIB, peer: 36 * MIB };
/** Answers that a pipeline is asked for. */
const GETS = 200;
const IN_FLIGHT = 8;

/** Resident memory of a node; null where the system does not tell. */
async function memoryOf(
  cluster: TestCluster,
  id: string,
): Promise<number | null> {
  const path = `/proc/${cluster.node(id).pid}/status`;
  // A process of its own may read what a test may not.
  const { stdout, success } = await new Deno.Command("deno", {
    args: ["eval", `console.log(Deno.readTextFileSync("${path}"))`],
    stderr: "null",
  }).output();
  if (!success) return null;
  const [, kib] = /VmRSS:\s+(\d+) kB/.exec(new TextDecoder().decode(stdout)) ??
    [];
  return kib === undefined ? null : Number(kib) * 1024;
}

function assertSteady({ id, before, after, max }: {
  id: string;
  max: number;
  before: number | null;
  after: number | null;
}): void {
  if (before === null || after === null) return;
  const sizes = [before, after].map((size) => `${Math.round(size / MIB)} MiB`);
  const text = `${id} grew from ${sizes.join(" to ")}`;
  assertLess(after - before, max, text);
}

/** Puts large values, a few at a time. */
async function write(
  rpc: Rpc,
  prefix: keyof typeof COUNTS,
): Promise<void> {
  const value = new Uint8Array(VALUE_BYTES).fill(120);
  let next = 0;
  const writer = async () => {
    while (next < COUNTS[prefix]) {
      const key = bytes(`${prefix}/${next++}`);
      await rpc.call("KeyValue.Put", { key, value }, { timeoutMs: 20_000 });
    }
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, writer));
}

interface WatchAnswer {
  readonly created?: object;
  readonly events?: {
    readonly events: { readonly entry: { readonly modRevision: string } }[];
  };
}

interface PipelineAnswer {
  readonly results: {
    readonly get?: object;
    readonly error?: { readonly code: string };
  }[];
}

clusterSteps("pressure", {}, {
  "clients that stop reading": async ({ cluster, rpcs }) => {
    const leader = await cluster.leader();
    const at = cluster.ids.findIndex((id) => id !== leader);
    const id = cluster.ids[at]!;
    const writer = rpcs[cluster.ids.indexOf(leader)]!;
    // Everybody has had this much before, so what grows now is not a first time.
    await write(writer, "warm");
    await cluster.agreed();
    const before = await memoryOf(cluster, id);

    await using proxy = new Proxy(cluster.address(id));
    const clients = await Promise.all(
      Array.from({ length: 3 }, () => Rpc.open(proxy.address)),
    );
    const [watching, listing, piping] = clients as [Rpc, Rpc, Rpc];
    const watch = watching.duplex<WatchAnswer>("KeyValue.Watch");
    watch.send({
      create: {
        watchId: 1,
        range: { start: bytes("slow/"), end: bytes("slow0") },
      },
    });
    await watch.expect();
    const list = listing.list<{ entries: object[] }>("KeyValue.List", {
      range: { start: bytes("warm/"), end: bytes("warm0") },
    });
    let listed = (await list.expect()).entries.length;
    const pipeline = piping.duplex<PipelineAnswer>("KeyValue.Pipeline");
    pipeline.send({ operations: [{ id: 0, get: { key: bytes("warm/0") } }] });
    await pipeline.expect();
    proxy.pause("back");
    pipeline.send({
      operations: Array.from({ length: GETS }, (_, at) => ({
        id: at + 1,
        get: {
          key: bytes(`warm/${at % COUNTS.warm}`),
          serializable: at % 2 === 0,
        },
      })),
    });
    await write(writer, "slow");
    await cluster.agreed();
    const after = await memoryOf(cluster, id);
    assertSteady({ id, before, after, max: GROWTH_BYTES_MAX.slow });

    proxy.resume();
    const start = performance.now();
    const revisions: number[] = [];
    while (revisions.length < COUNTS.slow) {
      const { events } = await watch.expect();
      for (const { entry } of events?.events ?? []) {
        revisions.push(Number(entry.modRevision));
      }
    }
    for (let i = 1; i < COUNTS.slow; i++) {
      assertEquals(revisions[i], revisions[i - 1]! + 1, "each change once");
    }
    for (const { entries } of await list.all()) listed += entries.length;
    assertEquals(listed, COUNTS.warm);
    let answered = 0;
    let refused = 0;
    while (answered + refused < GETS) {
      for (const { get, error } of (await pipeline.expect()).results) {
        if (get) answered++;
        else {
          assertEquals(error?.code, "OVERLOADED");
          refused++;
        }
      }
    }
    assert(answered * VALUE_BYTES <= 1.5 * LIMITS.pipelineInFlightBytesMax);
    assertGreater(answered * VALUE_BYTES, LIMITS.pipelineInFlightBytesMax / 2);
    assertLess(performance.now() - start, 20_000, "they catch up");
    for (const client of clients) client[Symbol.dispose]();
  },

  "a peer that stands still": async ({ cluster, rpcs }) => {
    const leader = await cluster.leader();
    const [frozen = ""] = await cluster.followers();
    const rpc = rpcs[cluster.ids.indexOf(leader)]!;
    const before = await memoryOf(cluster, leader);
    cluster.freeze(frozen);
    await write(rpc, "peer");
    const start = performance.now();
    await rpc.call("KeyValue.Put", { key: bytes("others"), value: bytes("1") });
    assertLess(performance.now() - start, 1000, "others are served");
    const after = await memoryOf(cluster, leader);
    cluster.thaw(frozen);
    const max = GROWTH_BYTES_MAX.peer;
    assertSteady({ id: leader, before, after, max });
    await cluster.agreed();
    assertEquals(cluster.running(), [...cluster.ids]);
  },
});
