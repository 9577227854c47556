/**
 * The differential fuzzer of the etcd API: that it hears every difference and finds a short sequence
 * that shows it; and a few seconds of it. `deno task etcd:diff` runs longer.
 */

import {
  assert,
  assertEquals,
  assertGreater,
  assertLessOrEqual,
  assertStringIncludes,
} from "@std/assert";
import { TestCluster } from "./cluster.ts";
import type { Answer, Connection } from "./etcd/connection.ts";
import type { Said } from "./etcd/play.ts";
import { Etcd, programTest } from "./etcd/program.ts";

/** Sequences, and requests in each, that a test has time for. */
const SLICE = { first: 0, sequences: 12, requests: 50, differencesMax: 1 };
const SEED = 20_261_123;

programTest(
  ["etcd"],
  "etcd_diff: dkv answers as etcd does, seed by seed",
  async () => {
    const { compareServers, describe } = await import("./etcd/diff.ts");
    const { Pair } = await import("./etcd/pair.ts");
    await using etcd = await Etcd.start();
    await using cluster = await TestCluster.start({ nodes: 1 });
    using pair = new Pair(etcd.address, cluster.address("node1"));
    const { found, sequences } = await compareServers(pair, {
      ...SLICE,
      seed: SEED,
    });
    assertEquals(
      found.length,
      0,
      `seed ${SEED}\n${found.map(describe).join("\n")}`,
    );
    assertEquals(sequences, SLICE.sequences);
  },
);

programTest(
  ["etcd"],
  "etcd_diff: finds an etcd with another limit, and shows it in a few requests",
  async () => {
    const { compareServers } = await import("./etcd/diff.ts");
    const { Pair } = await import("./etcd/pair.ts");
    await using etcd = await Etcd.start();
    await using other = await Etcd.start({ args: ["--max-txn-ops=3"] });
    using pair = new Pair(etcd.address, other.address);
    const { found: [found] } = await compareServers(pair, {
      ...SLICE,
      sequences: 100,
      seed: 1,
      shrinkAttempts: 40,
    });
    assert(found !== undefined, "no difference was found");
    assertLessOrEqual(found.steps.length, 4);
    assertEquals(found.steps.at(-1)?.call, "KV.Txn");
    assertStringIncludes(
      JSON.stringify(found.differences[0]),
      "too many operations in txn request",
    );
  },
);

programTest(
  ["etcd"],
  "etcd_diff: hears a change of any field of any answer",
  async () => {
    const { Connection } = await import("./etcd/connection.ts");
    const { Player } = await import("./etcd/play.ts");
    const { generate } = await import("./etcd/generate.ts");
    await using etcd = await Etcd.start();
    using player = new Player(new Connection(etcd.address));
    let heard = 0;
    for (let sequence = 0; sequence < 4; sequence++) {
      const said = await player.play(
        generate({ seed: 3, sequence, requests: 50 }),
      );
      assertEquals(await differ(said, said), 0);
      for (const [at, one] of said.entries()) {
        for (const outcome of changed(one.outcome, "")) {
          assertGreater(
            await differ(said, said.with(at, { ...one, outcome })),
            0,
            `${one.call} ${JSON.stringify(outcome)}`,
          );
          heard++;
        }
      }
    }
    assertGreater(heard, 1000);
  },
);

async function differ(
  left: readonly Said[],
  right: readonly Said[],
): Promise<number> {
  const { differences, HeaderIds } = await import("./etcd/compare.ts");
  return differences(left, right, [new HeaderIds(), new HeaderIds()]).length;
}

/** Where a change may pass: see KNOWN_DIFFERENCES. */
const PASSES_REGEXP =
  /^\.answer\.header\.(cluster_id|member_id|raft_term)$|\.TTL$|^\.answer\.ID$|\.keys/;

/** A value with one of its leaves changed, for each leaf that must not change unheard. */
function* changed(value: unknown, path: string): Generator<unknown> {
  if (typeof value === "object" && value !== null) {
    for (const [name, inner] of Object.entries(value)) {
      for (const other of changed(inner, `${path}.${name}`)) {
        yield Array.isArray(value)
          ? value.with(Number(name), other)
          : { ...value, [name]: other };
      }
    }
    if (Array.isArray(value) && value.length > 0) yield value.slice(1);
  } else if (!PASSES_REGEXP.test(path)) {
    yield typeof value === "boolean" ? !value : `${value}0`;
  }
}

programTest(
  ["etcd"],
  "etcd_diff: what is too big for one watch response comes in fragments",
  async () => {
    const { Connection } = await import("./etcd/connection.ts");
    await using etcd = await Etcd.start();
    await using cluster = await TestCluster.start({ nodes: 1 });
    using left = new Connection(etcd.address);
    using right = new Connection(cluster.address("node1"));
    const value = new Uint8Array(BIG_VALUE_BYTES);
    for (const connection of [left, right]) {
      for (let at = 0; at < BIG_VALUES; at++) {
        await connection.ask("KV.Put", { key: new Uint8Array([at]), value });
      }
    }
    for (const connection of [left, right]) {
      const responses = await watchBigValues(connection);
      const events = responses.flatMap(({ events }) => events as unknown[]);
      assertEquals(events.length, BIG_VALUES, connection.address);
      for (const { events } of responses) {
        assertLessOrEqual((events as unknown[]).length, 1, connection.address);
      }
    }
  },
);

/** Two of them are more than a response may have. */
const BIG_VALUE_BYTES = 1_200_000;
const BIG_VALUES = 3;

/** Watches from the beginning until every value is there. */
async function watchBigValues(
  connection: Connection,
): Promise<readonly Answer[]> {
  const responses: Answer[] = [];
  const done = Promise.withResolvers<void>();
  const stream = connection.duplex("Watch.Watch", {
    onAnswer: (answer) => {
      if (answer["created"] === true) return;
      responses.push(answer);
      const count = responses.flatMap(({ events }) => events as unknown[]);
      if (count.length >= BIG_VALUES) done.resolve();
    },
    onEnd: (outcome) => done.reject(new Error(JSON.stringify(outcome))),
  });
  const zero = new Uint8Array(1);
  stream.send({
    create_request: {
      key: zero,
      range_end: zero,
      start_revision: 1,
      fragment: true,
    },
  });
  await done.promise;
  stream.cancel();
  return responses;
}
