/** etcd's Maintenance service, without a node. */

import { assertEquals, assertGreaterOrEqual } from "@std/assert";
import { clearImmediate, setImmediate } from "node:timers";
import type { EtcdContext } from "../etcdcall.ts";
import { needs } from "./needs.ts";

const PAGES = 50;

async function* pages() {
  const numbers = { createRevision: 2, modRevision: 2, version: 1, lease: 0n };
  for (let at = 0; at < PAGES; at++) {
    const entry = { key: `k${at}`, value: new Uint8Array(8), ...numbers };
    yield { entries: [entry], revision: 2, more: false };
  }
}

needs(
  ["env"],
  "etcdmaintenance: a node goes on with its work while it hashes all keys",
  async () => {
    const { maintenanceHandlers } = await import("../etcdmaintenance.ts");
    const service = { list: pages, replica: { compactRevision: 0 } };
    const handlers = maintenanceHandlers(
      { service, header: () => ({}) } as unknown as EtcdContext,
    );
    let turns = 0;
    let next = setImmediate(function count() {
      turns++;
      next = setImmediate(count);
    });
    const call = { request: { revision: "0" }, getDeadline: () => Infinity };
    const { promise, resolve } = Promise.withResolvers<unknown>();
    const hashKv = handlers["HashKV"] as unknown as (
      call: object,
      callback: (error: unknown, answer: unknown) => void,
    ) => void;
    hashKv(call, (error, answer) => resolve(error ?? answer));
    const answer = await promise as { hash: number; compact_revision: number };
    clearImmediate(next);
    assertEquals(answer.compact_revision, -1);
    assertGreaterOrEqual(turns, PAGES - 1);
  },
);
