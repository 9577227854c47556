import { assert, assertEquals, assertThrows } from "@std/assert";
import { Buffer } from "node:buffer";
import {
  fromEntry,
  fromOptionalEntry,
  fromPut,
  toKey,
  toPut,
} from "../convert.ts";
import {
  type GeneralCodec,
  PipelineCodec,
  type WirePipelineOperation,
  type WirePipelineResult,
} from "../pipelinecodec.ts";
import { needs } from "./needs.ts";
import { keyValueMethods, randomBytes, randomInteger } from "./codecs.ts";
import { Random } from "./sim/random.ts";

/** The codec that protobufjs makes of the description of the messages, both ways. */
async function reference() {
  const service = await keyValueMethods<{
    Pipeline: {
      requestSerialize(value: unknown): Buffer;
      requestDeserialize(bytes: Buffer): {
        client: Buffer;
        doneBelow: string;
        operations: WirePipelineOperation[];
      };
      responseSerialize(value: unknown): Buffer;
      responseDeserialize(bytes: Buffer): unknown;
    };
  }>();
  return service.Pipeline;
}

/** Counts what is left to the general codec. */
class Counting implements GeneralCodec {
  operations = 0;
  results = 0;
  readonly #general: GeneralCodec;

  constructor(general: GeneralCodec) {
    this.#general = general;
  }

  decode(bytes: Buffer) {
    const request = this.#general.decode(bytes);
    this.operations += request.operations.length;
    return request;
  }

  encode(response: { results: readonly object[] }) {
    this.results += response.results.length;
    return this.#general.encode(response);
  }
}

async function codec() {
  const method = await reference();
  const general = new Counting({
    decode: method.requestDeserialize,
    encode: method.responseSerialize,
  });
  return { method, general, codec: new PipelineCodec(general) };
}

function randomOperation(random: Random): Record<string, unknown> {
  const operation: Record<string, unknown> = {
    id: randomInteger(random),
    sequence: randomInteger(random),
    timeoutMs: randomInteger(random),
  };
  const key = randomBytes(random, 300);
  switch (random.below(6)) {
    case 0:
    case 1: {
      const put: Record<string, unknown> = {
        key,
        value: randomBytes(random, 3000),
      };
      if (random.chance(200)) put["lease"] = "-1";
      if (random.chance(200)) put["returnPrevious"] = true;
      if (random.chance(100)) put["writeId"] = { client: key, sequence: 3 };
      return { ...operation, put };
    }
    case 2: {
      const get: Record<string, unknown> = { key };
      if (random.chance(200)) get["revision"] = randomInteger(random);
      if (random.chance(200)) get["serializable"] = true;
      return { ...operation, get };
    }
    case 3:
      return { ...operation, delete: { key, returnPrevious: true } };
    case 4:
      return { ...operation, transact: { then: [{ get: { key } }] } };
    default:
      return operation;
  }
}

/** The same value for what both codecs give, each in its own types. */
function plain(operation: WirePipelineOperation): unknown {
  const { id, sequence, timeoutMs, put, get } = operation;
  return {
    id: String(id),
    sequence: String(sequence),
    timeoutMs: String(timeoutMs),
    put: put ? plainPut(put) : null,
    get: get
      ? { ...get, key: toKey(get.key), revision: String(get.revision) }
      : null,
    delete: operation.delete ?? null,
    transact: operation.transact ?? null,
  };
}

function plainPut(put: NonNullable<WirePipelineOperation["put"]>): unknown {
  const isPlain = "type" in put;
  const request = isPlain ? put : toPut(put);
  const writeId = isPlain ? null : put.writeId;
  return { ...request, value: [...put.value], writeId };
}

needs(
  ["read", "env"],
  "PipelineCodec reads what protobufjs reads",
  async () => {
    const { method, general, codec: own } = await codec();
    const random = new Random(20261123);
    let count = 0;
    for (let round = 0; round < 300; round++) {
      const operations = Array.from(
        { length: random.below(8) },
        () => randomOperation(random),
      );
      count += operations.length;
      const bytes = method.requestSerialize({
        client: randomBytes(random, 32),
        doneBelow: randomInteger(random),
        operations,
      });
      const expected = method.requestDeserialize(bytes);
      const found = own.decode(bytes);
      assertEquals(found.client, toKey(expected.client));
      assertEquals(String(found.doneBelow), String(expected.doneBelow));
      assertEquals(found.operations.map(plain), expected.operations.map(plain));
    }
    // Neither everything nor nothing took the short way.
    assert(general.operations > count / 5 && general.operations < count * 0.8);
  },
);

needs(
  ["read", "env"],
  "PipelineCodec leaves to protobufjs what says a thing twice",
  async () => {
    const { method, codec: own } = await codec();
    const one = method.requestSerialize({
      operations: [{ id: 1, put: { key: Buffer.from("a") } }],
    });
    const two = method.requestSerialize({
      operations: [{ id: 2, get: { key: Buffer.from("b") } }],
    });
    // The bodies of both operations in one: of a oneof, the last one counts.
    const body = Buffer.concat([one.subarray(2), two.subarray(2)]);
    const bytes = Buffer.concat([Buffer.from([3 << 3 | 2, body.length]), body]);
    const expected = method.requestDeserialize(bytes);
    assertEquals(
      own.decode(bytes).operations.map(plain),
      expected.operations.map(plain),
    );
  },
);

needs(
  ["read", "env"],
  "PipelineCodec leaves large numbers to protobufjs",
  async () => {
    const { method, codec: own } = await codec();
    const id = "9223372036854775807";
    const bytes = method.requestSerialize({
      operations: [{ id, get: { key: Buffer.from("a") } }],
    });
    assertEquals(own.decode(bytes).operations[0]?.id, id);
    const below = method.requestSerialize({ doneBelow: id });
    assertEquals(own.decode(below).doneBelow, id);
  },
);

needs(
  ["read", "env"],
  "PipelineCodec refuses every message that is cut short",
  async () => {
    const { method, codec: own } = await codec();
    const bytes = method.requestSerialize({
      operations: [{ id: 300, put: { key: Buffer.from("k"), value: "vvvv" } }],
    });
    assertEquals(own.decode(bytes).operations.length, 1);
    for (let end = 1; end < bytes.length; end++) {
      assertThrows(() => own.decode(bytes.subarray(0, end)));
    }
    const skipped = Buffer.concat([bytes, Buffer.from([15 << 3, 1])]);
    assertEquals(own.decode(skipped).operations.length, 1, "an unknown field");
  },
);

needs(
  ["read", "env"],
  "PipelineCodec writes what protobufjs reads",
  async () => {
    const { method, general, codec: own } = await codec();
    const random = new Random(7);
    const entry = () => ({
      key: toKey(randomBytes(random, 300)),
      value: randomBytes(random, 3000),
      createRevision: 1 + randomInteger(random),
      modRevision: 1 + randomInteger(random),
      version: 1 + random.below(300),
      lease: random.chance(200) ? 9223372036854775807n : 0n,
    });
    let count = 0;
    for (let round = 0; round < 300; round++) {
      const results = Array.from({ length: random.below(8) }, (): [
        own: WirePipelineResult,
        wire: object,
      ] => {
        const id = random.chance(100) ? "12" : randomInteger(random);
        const revision = 1 + randomInteger(random);
        switch (random.below(4)) {
          case 0: {
            const previous = random.chance(200) ? entry() : null;
            const put = {
              type: "put",
              revision,
              version: 3,
              previous,
            } as const;
            return [{ id, put }, { id, put: fromPut(put) }];
          }
          case 1: {
            const read = random.chance(200) ? null : entry();
            const wire = { entry: fromOptionalEntry(read) };
            return [{ id, get: { entry: read } }, { id, get: wire }];
          }
          case 2: {
            const error = { code: "OVERLOADED", message: "much" };
            return [{ id, error }, { id, error }];
          }
          default: {
            const previous = [fromEntry(entry())];
            const result = { id, delete: { revision, deleted: 1, previous } };
            return [result, result];
          }
        }
      });
      count += results.length;
      const header = { revision: 5, nodeId: "node1", leader: "node2" };
      const found = own.encode({
        header,
        results: results.map(([own]) => own),
      });
      const expected = method.responseSerialize({
        header,
        results: results.map(([, wire]) => wire),
      });
      assertEquals(
        method.responseDeserialize(found),
        method.responseDeserialize(expected),
      );
    }
    assert(general.results > count / 3 && general.results < count * 0.9);
  },
);
