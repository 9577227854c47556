/**
 * Tests of `unarycodec.ts` against the codec that protobufjs makes of the description of the
 * messages.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { Buffer } from "node:buffer";
import { toKey, type WireGet, type WirePut } from "../convert.ts";
import {
  type GetAnswer,
  getCodec,
  type PutAnswer,
  putCodec,
} from "../unarycodec.ts";
import { needs } from "./needs.ts";
import { keyValueMethods, randomBytes, randomInteger } from "./codecs.ts";
import { Random } from "./sim/random.ts";

const ROUNDS = 400;

interface Method<Request, Answer> {
  requestSerialize(value: unknown): Buffer;
  requestDeserialize(bytes: Buffer): Request;
  responseSerialize(value: Answer): Buffer;
  responseDeserialize(bytes: Buffer): unknown;
}

interface Methods {
  Put: Method<WirePut, PutAnswer>;
  Get: Method<WireGet, GetAnswer>;
}

/** The general codec, and how often it was needed. */
function counted<Request, Answer>(method: Method<Request, Answer>) {
  const counts = { decoded: 0, encoded: 0 };
  const general = {
    decode: (bytes: Buffer) => {
      counts.decoded++;
      return method.requestDeserialize(bytes);
    },
    encode: (answer: Answer) => {
      counts.encoded++;
      return method.responseSerialize(answer);
    },
  };
  return { counts, general };
}

/** Bytes that are mostly a message. */
function damaged(bytes: Buffer, random: Random): Buffer {
  const copy = Buffer.from(bytes);
  if (random.chance(300)) {
    return copy.subarray(0, random.below(copy.length + 1));
  }
  if (copy.length > 0) copy[random.below(copy.length)] = random.below(256);
  return copy;
}

/** What a codec makes of bytes; null if it refuses them. */
function outcome<Request>(decode: () => Request): Request | null {
  try {
    return decode();
  } catch {
    return null;
  }
}

function plainPut(wire: WirePut | null): unknown {
  if (wire === null) return null;
  const lease = String(wire.lease);
  return { ...wire, key: toKey(wire.key), value: [...wire.value], lease };
}

function plainGet(wire: WireGet | null): unknown {
  if (wire === null) return null;
  return { ...wire, key: toKey(wire.key), revision: String(wire.revision) };
}

function randomPut(random: Random): object {
  const put: Record<string, unknown> = {
    key: randomBytes(random, 300),
    value: randomBytes(random, 3000),
  };
  if (random.chance(200)) put["lease"] = "-1";
  if (random.chance(200)) put["returnPrevious"] = true;
  if (random.chance(100)) put["writeId"] = { client: put["key"], sequence: 3 };
  return put;
}

function randomGet(random: Random): object {
  const get: Record<string, unknown> = { key: randomBytes(random, 300) };
  if (random.chance(200)) get["revision"] = randomInteger(random);
  if (random.chance(200)) get["serializable"] = true;
  return get;
}

function randomHeader(random: Random) {
  const nodeId = `node${random.below(10)}é`;
  return { revision: randomInteger(random), nodeId, leader: "" };
}

function randomEntry(random: Random) {
  return {
    key: randomBytes(random, 300),
    value: randomBytes(random, 3000),
    createRevision: randomInteger(random),
    modRevision: randomInteger(random),
    version: randomInteger(random),
    lease: random.chance(300) ? "9223372036854775807" : 0,
  };
}

needs(["read", "env"], "unarycodec: reads what protobufjs reads", async () => {
  const { Put, Get } = await keyValueMethods<Methods>();
  const puts = counted(Put);
  const gets = counted(Get);
  const put = putCodec(puts.general);
  const get = getCodec(gets.general);
  const random = new Random(20261129);
  for (let round = 0; round < ROUNDS; round++) {
    const putBytes = Put.requestSerialize(randomPut(random));
    const getBytes = Get.requestSerialize(randomGet(random));
    assertEquals(
      plainPut(put.decode(putBytes)),
      plainPut(Put.requestDeserialize(putBytes)),
    );
    assertEquals(
      plainGet(get.decode(getBytes)),
      plainGet(Get.requestDeserialize(getBytes)),
    );
  }
  for (const { counts } of [puts, gets]) {
    assert(counts.decoded > 0 && counts.decoded < ROUNDS * 0.6);
  }
});

needs(
  ["read", "env"],
  "unarycodec: refuses and reads damaged bytes as protobufjs does",
  async () => {
    const { Put, Get } = await keyValueMethods<Methods>();
    const put = putCodec(counted(Put).general);
    const get = getCodec(counted(Get).general);
    const random = new Random(7);
    let refused = 0;
    for (let round = 0; round < 5 * ROUNDS; round++) {
      const putBytes = damaged(Put.requestSerialize(randomPut(random)), random);
      const getBytes = damaged(Get.requestSerialize(randomGet(random)), random);
      const expected = outcome(() => Put.requestDeserialize(putBytes));
      if (expected === null) refused++;
      assertEquals(
        plainPut(outcome(() => put.decode(putBytes))),
        plainPut(expected),
      );
      assertEquals(
        plainGet(outcome(() => get.decode(getBytes))),
        plainGet(outcome(() => Get.requestDeserialize(getBytes))),
      );
    }
    assert(refused > 0);
  },
);

needs(
  ["read", "env"],
  "unarycodec: writes what protobufjs writes",
  async () => {
    const { Put, Get } = await keyValueMethods<Methods>();
    const puts = counted(Put);
    const gets = counted(Get);
    const put = putCodec(puts.general);
    const get = getCodec(gets.general);
    const random = new Random(3);
    for (let round = 0; round < ROUNDS; round++) {
      const header = randomHeader(random);
      const putAnswer = {
        header,
        revision: randomInteger(random),
        version: randomInteger(random),
        previous: random.chance(300) ? randomEntry(random) : null,
      };
      const entry = random.chance(800) ? randomEntry(random) : null;
      assertEquals(
        Put.responseDeserialize(Buffer.from(put.encode(putAnswer))),
        Put.responseDeserialize(Put.responseSerialize(putAnswer)),
      );
      assertEquals(
        Get.responseDeserialize(Buffer.from(get.encode({ header, entry }))),
        Get.responseDeserialize(Get.responseSerialize({ header, entry })),
      );
    }
    for (const { counts } of [puts, gets]) {
      assert(counts.encoded > 0 && counts.encoded < ROUNDS * 0.5);
    }
  },
);
