/** Pages and changes as this codec writes them say what protobufjs would have said. */

import { assertEquals } from "@std/assert";
import type { Buffer } from "node:buffer";
import type { StoredEntry } from "../batch.ts";
import { fromEntry } from "../convert.ts";
import { encodeChanges, encodePage } from "../streamcodec.ts";
import type { WatchEvent } from "../store.ts";
import { needs } from "./needs.ts";
import { keyValueMethods, randomBytes } from "./codecs.ts";
import { Random } from "./sim/random.ts";

interface Method {
  responseSerialize(value: unknown): Buffer;
  responseDeserialize(bytes: Buffer): unknown;
}

function entryOf(random: Random): StoredEntry {
  const isSmall = random.chance(500);
  return {
    key: randomBytes(random, isSmall ? 10 : 300).toString("latin1"),
    value: randomBytes(random, isSmall ? 10 : 40_000),
    createRevision: random.below(2 ** 30),
    modRevision: Number.MAX_SAFE_INTEGER - random.below(1000),
    version: random.below(300),
    lease: random.chance(300) ? 2n ** 63n - 1n - BigInt(random.below(9)) : 0n,
  };
}

function eventOf(random: Random): WatchEvent {
  return {
    ...entryOf(random),
    type: random.chance(300) ? "delete" : "put",
    previousPosition: 0,
    previous: random.chance(300) ? entryOf(random) : null,
  };
}

function headerOf(random: Random) {
  return {
    revision: 1 + random.below(2 ** 30),
    nodeId: "node1",
    leader: random.chance(300) ? "" : "node2",
  };
}

needs(["read", "env"], "streamcodec: pages of every kind", async () => {
  const { List } = await keyValueMethods<{ List: Method; Watch: Method }>();
  const random = new Random(3);
  for (let round = 0; round < 60; round++) {
    const page = {
      header: headerOf(random),
      revision: random.below(2 ** 30),
      entries: Array.from({ length: random.below(20) }, () => entryOf(random)),
      more: random.chance(500),
    };
    const wire = { ...page, entries: page.entries.map(fromEntry) };
    assertEquals(
      List.responseDeserialize(encodePage(page)),
      List.responseDeserialize(List.responseSerialize(wire)),
    );
  }
});

needs(["read", "env"], "streamcodec: changes of every kind", async () => {
  const { Watch } = await keyValueMethods<{ List: Method; Watch: Method }>();
  const random = new Random(4);
  const ids = ["0", "1", "9007199254740993", "9223372036854775807", "-1"];
  for (let round = 0; round < 60; round++) {
    const header = headerOf(random);
    const watchId = ids[round % ids.length] ?? "";
    const events = Array.from(
      { length: random.below(20) },
      () => eventOf(random),
    );
    const throughRevision = random.below(2 ** 30);
    const wire = events.map((event) => ({
      kind: event.type === "put" ? "PUT" : "DELETE",
      entry: fromEntry(event),
      previous: event.previous && fromEntry(event.previous),
    }));
    assertEquals(
      Watch.responseDeserialize(
        encodeChanges({ header, watchId, events, throughRevision }),
      ),
      Watch.responseDeserialize(Watch.responseSerialize({
        header,
        watchId,
        events: { events: wire, throughRevision },
      })),
    );
  }
});
