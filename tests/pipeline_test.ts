/** One stream of operations on a lone replica in memory: what is answered, how, and what it holds. */

import { assert, assertEquals } from "@std/assert";
import { Buffer } from "node:buffer";
import { EventEmitter } from "node:events";
import { setImmediate } from "node:timers";
import { type Context, type DuplexStream, toError } from "../call.ts";
import { defaultSettings, LIMITS } from "../config.ts";
import { Disk } from "../disk.ts";
import { Group } from "../group.ts";
import { simpleConfiguration } from "../members.ts";
import { servePipeline } from "../pipeline.ts";
import type {
  WirePipelineOperation,
  WirePipelineResponse,
  WirePipelineResult,
} from "../pipelinecodec.ts";
import { Service } from "../service.ts";

/** A client's end of a stream; the node's turns are its own to run. */
class Fixture {
  readonly responses: WirePipelineResponse[] = [];
  readonly group: Group;
  readonly #call: EventEmitter;
  #sequence = 0;
  #lastId = 0;

  constructor() {
    const settings = defaultSettings();
    this.group = new Group({
      id: "default",
      member: "n1",
      disk: new Disk({
        path: ":memory:",
        bootstrap: simpleConfiguration(["n1"]),
      }),
      settings,
      seed: 1,
      origin: 1,
      clusterId: "c",
      outputs: {
        send: () => {},
        wake: () => {},
        remind: () => {},
        shipSnapshot: () => {},
        installSnapshot: () => {},
        writeRefusal: () => null,
        diskExhausted: () => false,
        log: () => {},
      },
    });
    for (let at = 0; this.group.core.role !== "leader"; at++) {
      assert(at < 100, "it does not lead");
      this.group.tick();
      this.group.turn();
    }
    this.#call = Object.assign(new EventEmitter(), {
      cancelled: false,
      write: (response: WirePipelineResponse) => this.responses.push(response),
      end: () => {},
    });
    const onDefect = (error: unknown) => {
      throw error;
    };
    const context = {
      service: new Service(this.group, settings),
      header: () => ({ revision: 0, nodeId: "n1", leader: "n1" }),
      toError: (error: unknown) => toError(error, { onDefect, log: () => {} }),
    };
    servePipeline(
      this.#call as unknown as DuplexStream,
      context as unknown as Context,
    );
  }

  /** What is not said of an operation is its next id and the next sequence of the client. */
  say(operations: readonly Partial<WirePipelineOperation>[]): void {
    this.#call.emit("data", {
      client: "c",
      doneBelow: Math.max(0, this.#sequence - 2000),
      operations: operations.map((operation) => ({
        id: ++this.#lastId,
        sequence: ++this.#sequence,
        timeoutMs: 0,
        ...operation,
      })),
    });
  }

  /** Runs turns until so many answers are there. */
  async answers(count: number): Promise<WirePipelineResult[]> {
    const before = this.responses.length;
    const answers = () =>
      this.responses.slice(before).flatMap(({ results }) => results);
    for (let at = 0; answers().length < count; at++) {
      assert(at < 100, `${answers().length} answers came, not ${count}`);
      this.group.turn();
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    return answers();
  }
}

function put(key: string, bytes = 1): Partial<WirePipelineOperation> {
  const value = new Uint8Array(bytes);
  return {
    put: { type: "put", key, value, lease: 0n, returnPrevious: false },
  };
}

/** What became of an operation, in a word. */
function outcome(result: WirePipelineResult): string {
  const [kind] = (["put", "get", "delete", "transact"] as const)
    .filter((kind) => result[kind] !== undefined);
  return `${result.id} ${result.error?.code ?? kind}`;
}

const key = Buffer.from("a");
const wirePut = {
  key,
  value: new Uint8Array(1),
  lease: "0",
  returnPrevious: true,
  writeId: null,
};

Deno.test("pipeline: each operation of a message is answered for itself", async () => {
  const fixture = new Fixture();
  const get = { key: "a", revision: 0, serializable: false };
  const reading = { compares: [], then: [{ get }], else: [], writeId: null };
  const writing = { ...reading, then: [{ put: wirePut }] };
  const writeId = { client: key, sequence: 1, doneBelow: 0 };
  fixture.say([
    put("a"),
    { put: wirePut },
    { put: { ...wirePut, writeId } },
    { put: null },
    put("a", LIMITS.valueBytesMax + 1),
    { ...put("a"), sequence: "9007199254740993" },
    { delete: { key, returnPrevious: false, writeId: null } },
    { transact: writing },
    { transact: reading, sequence: 0 },
    { get },
  ]);
  const answers = await fixture.answers(10);
  assertEquals(answers.map(outcome).sort(), [
    "1 put",
    "10 get",
    "2 put",
    "3 MALFORMED",
    "4 MALFORMED",
    "5 VALUE_TOO_LARGE",
    "6 MALFORMED",
    "7 delete",
    "8 transact",
    "9 transact",
  ]);
  const [first, second] = answers.filter(({ put }) => put !== undefined);
  assertEquals([first?.put?.version, first?.put?.previous], [1, null]);
  assertEquals(second?.put?.previous?.modRevision, first?.put?.revision);
});

Deno.test("pipeline: a sequence that belonged to another kind of write is stale", async () => {
  const fixture = new Fixture();
  fixture.say([{ ...put("a"), sequence: 1 }]);
  fixture.say([{ ...put("a"), sequence: 1 }]);
  const remove = { key, returnPrevious: false, writeId: null };
  fixture.say([{ delete: remove, sequence: 1 }]);
  const answers = await fixture.answers(3);
  assertEquals(answers.map(outcome), ["1 put", "2 put", "3 SEQUENCE_STALE"]);
  assertEquals(answers[1]?.put, answers[0]?.put);
});

Deno.test("pipeline: what is answered, well or badly, frees what it held", async () => {
  const fixture = new Fixture();
  const { pipelineInFlightMax, pipelineInFlightBytesMax } = LIMITS;
  const bytes = LIMITS.valueBytesMax;
  const large = Math.floor(pipelineInFlightBytesMax / bytes) - 1;
  for (let round = 0; round < 4; round++) {
    const many = pipelineInFlightMax - large;
    const tooLong = "k".repeat(LIMITS.keyBytesMax + 1);
    const small = round % 2 === 0 ? put(tooLong) : put(`key ${round}`);
    fixture.say([
      ...Array.from({ length: large }, () => put("large", bytes)),
      ...Array.from({ length: many - 2000 }, () => small),
    ]);
    const answers = await fixture.answers(large + many - 2000);
    const overloaded = answers.filter(({ error }) =>
      error?.code === "OVERLOADED"
    );
    assertEquals(overloaded, [], `round ${round}`);
  }
});

Deno.test("pipeline: an answer leaves before what the turn that made it sets up for later", async () => {
  const fixture = new Fixture();
  fixture.say([put("a")]);
  const { revision } = fixture.group.store;
  while (fixture.group.store.revision === revision) fixture.group.turn();
  // As node.ts goes on with the rest of a turn, which may wait for the disk.
  const isAnswered = await new Promise((resolve) =>
    setImmediate(() => resolve(fixture.responses.length === 1))
  );
  assert(isAnswered);
});
