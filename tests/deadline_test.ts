/** What a client hears when time runs out: before its own deadline, and never more than is known. */

import {
  assert,
  assertEquals,
  assertGreater,
  assertLess,
  assertStringIncludes,
} from "@std/assert";
import { LIMITS } from "../config.ts";
import { eventually } from "./cluster.ts";
import { bytes } from "./load.ts";
import { type Refusal, refused, type Rpc } from "./rpc.ts";
import { clusterSteps } from "./steps.ts";

const key = bytes("deadline/key");
const value = bytes("value");

/** The refusal of a call, which must come before the client's own deadline. */
async function inTime(
  rpc: Rpc,
  call: { method: string; request: object; timeoutMs: number },
): Promise<Refusal> {
  const start = performance.now();
  const { method, request, timeoutMs } = call;
  const refusal = await refused(rpc.call(method, request, { timeoutMs }));
  assertLess(performance.now() - start, timeoutMs, refusal.message);
  return refusal;
}

clusterSteps("deadlines", {}, {
  "a write that was proposed and cannot commit has an unknown outcome": async (
    { cluster, rpcs },
  ) => {
    const leader = await cluster.leader();
    const rpc = rpcs[cluster.ids.indexOf(leader)]!;
    const others = cluster.ids.filter((id) => id !== leader);
    await rpc.call("KeyValue.Put", { key, value });
    for (const id of others) cluster.freeze(id);
    try {
      // The leader does not know yet that it is alone.
      const timeoutMs = 450;
      const write = { method: "KeyValue.Put", timeoutMs };
      const refusals = await Promise.all([
        inTime(rpc, { ...write, request: { key, value } }),
        inTime(rpc, { ...write, request: { key, value: bytes("2") } }),
        inTime(rpc, {
          method: "KeyValue.Transact",
          timeoutMs,
          request: { then: [{ delete: { key } }] },
        }),
      ]);
      for (const { code, message, status } of refusals) {
        assertEquals(code, "OUTCOME_UNKNOWN", message);
        assertEquals(status, 2);
        assertStringIncludes(message, "may or may not");
      }

      // By now it has stepped down: nothing is proposed any more.
      await eventually("the leader steps down", async () => {
        const { role } = await cluster.status(leader);
        return role !== "leader";
      });
      const late = { method: "KeyValue.Put", request: { key, value } };
      const refusal = await inTime(rpc, { ...late, timeoutMs: 600 });
      assertEquals(refusal.code, "NO_LEADER", refusal.message);
      assertEquals(refusal.status, 14);
      assertStringIncludes(refusal.message, "Nothing was changed");

      const read = await inTime(rpc, {
        method: "KeyValue.Get",
        request: { key },
        timeoutMs: 600,
      });
      assertEquals(read.code, "NO_LEADER", read.message);
      const { entry } = await rpc.call<{ entry: { version: string } }>(
        "KeyValue.Get",
        { key, serializable: true },
      );
      assertEquals(entry.version, "1");
    } finally {
      for (const id of others) cluster.thaw(id);
    }
    await eventually("the cluster serves again", async () => {
      await rpc.call("KeyValue.Put", { key, value }, { timeoutMs: 1000 });
      return true;
    });
  },

  "a write that a follower forwarded to a frozen leader has an unknown outcome":
    async ({ cluster, rpcs }) => {
      const leader = await cluster.leader();
      const [follower = ""] = await cluster.followers();
      const rpc = rpcs[cluster.ids.indexOf(follower)]!;
      cluster.freeze(leader);
      try {
        const refusal = await inTime(rpc, {
          method: "KeyValue.Put",
          request: { key, value },
          timeoutMs: 400,
        });
        assertEquals(refusal.code, "OUTCOME_UNKNOWN", refusal.message);
        // With more time the write goes through the next leader instead, once.
        const before = await rpc.call<{ version: string }>(
          "KeyValue.Put",
          { key: bytes("deadline/patient"), value },
          { timeoutMs: 8000 },
        );
        assertEquals(before.version, "1");
      } finally {
        cluster.thaw(leader);
      }
      await cluster.leader();
      await cluster.agreed();
      const { entry } = await rpc.call<{ entry: { version: string } }>(
        "KeyValue.Get",
        { key: bytes("deadline/patient") },
      );
      assertEquals(entry.version, "1");
    },

  "a pipeline whose writes cannot commit holds no more bytes than it may":
    async ({ cluster, rpcs }) => {
      const leader = await cluster.leader();
      const rpc = rpcs[cluster.ids.indexOf(leader)]!;
      const others = cluster.ids.filter((id) => id !== leader);
      const stream = rpc.duplex<{
        results: {
          id: string;
          put?: object;
          error?: { code: string; message: string };
        }[];
      }>("KeyValue.Pipeline");
      for (const id of others) cluster.freeze(id);
      const count = 24;
      const big = new Uint8Array(LIMITS.valueBytesMax);
      for (let id = 0; id < count; id++) {
        const put = { key: bytes(`deadline/big/${id % 2}`), value: big };
        stream.send({ operations: [{ id, timeoutMs: 30_000, put }] });
      }
      const held = Math.floor(
        LIMITS.pipelineInFlightBytesMax / big.length + 1,
      );
      // All that cannot be held are refused while nothing is done: later ones would find room again.
      let overloaded = 0;
      while (overloaded < count - held) {
        for (const { error } of (await stream.expect()).results) {
          assertEquals(error?.code, "OVERLOADED");
          const max = String(LIMITS.pipelineInFlightBytesMax);
          assertStringIncludes(error?.message ?? "", max);
          overloaded++;
        }
      }
      for (const id of others) cluster.thaw(id);
      // What was taken is done once the others are back.
      let done = 0;
      while (done + overloaded < count) {
        for (const { put, error } of (await stream.expect(30_000)).results) {
          if (put) done++;
          else if (error?.code === "OVERLOADED") overloaded++;
          else throw new Error(`${error?.code}: ${error?.message}`);
        }
      }
      assertGreater(done, 8);
      assert(done <= held);
      stream.cancel();
      await cluster.agreed();
    },
});
