/** The messages of KV Connect, written and read by hand, beside protobufjs on `proto/kvconnect.proto`. */

import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { DkvError } from "../errors.ts";
import {
  readAtomicWrite,
  readSnapshotRead,
  readWatch,
  writeAtomicWrite,
  writeSnapshotRead,
  writeWatch,
} from "../kvmessages.ts";
import { encodingNumber } from "../kvvalue.ts";
import { latin1, runs } from "./arbitrary.ts";
import { needs } from "./needs.ts";

async function types() {
  const { default: protobuf } = await import("protobufjs");
  const url = new URL("../proto/kvconnect.proto", import.meta.url);
  const { root } = protobuf.parse(await Deno.readTextFile(url));
  return (name: string) => {
    const type = root.lookupType(`dkv.kvconnect.v1.${name}`);
    return {
      encode: (message: object) =>
        new Uint8Array(type.encode(type.fromObject({ ...message })).finish()),
      decode: (bytes: Uint8Array) =>
        type.toObject(type.decode(bytes), { longs: Number }),
    };
  };
}

function bytesOf(text: string): Uint8Array {
  return Uint8Array.from(text, (unit) => unit.charCodeAt(0));
}

const data = fc.uint8Array({ maxLength: 20 });
const key = latin1(20);
const number = fc.oneof(fc.nat(5), fc.nat(2 ** 31 - 1));

const mutation = fc.record({
  key,
  value: fc.option(fc.record({ data, encoding: fc.nat(3) })),
  type: fc.constantFrom(0, 1, 2, 3, 4, 5, 9),
  expireAtMs: fc.oneof(fc.constant(-1), fc.maxSafeInteger()),
  min: data,
  max: data,
  clamp: fc.boolean(),
});

needs(["read"], "kvmessages: reads what protobufjs writes", async () => {
  const type = await types();
  const ranges = fc.array(
    fc.record({ start: key, end: key, limit: number, reverse: fc.boolean() }),
  );
  fc.assert(
    fc.property(ranges, (ranges) => {
      const bytes = type("SnapshotRead").encode({
        ranges: ranges.map(({ start, end, ...rest }) => ({
          ...rest,
          start: bytesOf(start),
          end: bytesOf(end),
        })),
      });
      assertEquals(readSnapshotRead(bytes), plain(ranges));
    }),
    runs(300),
  );
  const write = fc.record({
    checks: fc.array(fc.record({ key, versionstamp: latin1(10) })),
    mutations: fc.array(mutation, { maxLength: 4 }),
    enqueues: fc.nat(2),
  });
  fc.assert(
    fc.property(write, (write) => {
      const bytes = type("AtomicWrite").encode({
        checks: write.checks.map(({ key, versionstamp }) => ({
          key: bytesOf(key),
          versionstamp: bytesOf(versionstamp),
        })),
        mutations: write.mutations.map((one) => ({
          key: bytesOf(one.key),
          ...(one.value && { value: one.value }),
          mutationType: one.type,
          expireAtMs: one.expireAtMs,
          sumMin: one.min,
          sumMax: one.max,
          sumClamp: one.clamp,
        })),
        enqueues: Array(write.enqueues).fill({ payload: bytesOf("x") }),
      });
      assertEquals(plain(readAtomicWrite(bytes)), plain(write));
    }),
    runs(300),
  );
  fc.assert(
    fc.property(fc.array(key), (keys) => {
      const bytes = type("Watch").encode({
        keys: keys.map((key) => ({ key: bytesOf(key) })),
      });
      assertEquals(readWatch(bytes), keys);
    }),
    runs(100),
  );
});

/** Bytes as numbers: views of a larger buffer are equal to those that are not. */
function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return [...value];
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, one]) => [name, plain(one)]),
  );
}

const entry = fc.record({
  key,
  data,
  encoding: fc.constantFrom("v8" as const, "u64" as const, "bytes" as const),
  versionstamp: latin1(10),
});

function entryMessage({ key, data, encoding, versionstamp }: {
  key: string;
  data: Uint8Array;
  encoding: "v8" | "u64" | "bytes";
  versionstamp: string;
}) {
  return {
    key: bytesOf(key),
    value: data,
    encoding: encodingNumber(encoding),
    versionstamp: bytesOf(versionstamp),
  };
}

needs(["read"], "kvmessages: writes what protobufjs reads", async () => {
  const type = await types();
  /** As protobufjs has a message, whatever it leaves out. */
  const same = (name: string, bytes: Uint8Array, message: object) => {
    const { encode, decode } = type(name);
    assertEquals(plain(decode(bytes)), plain(decode(encode(message))));
  };
  fc.assert(
    fc.property(fc.array(fc.array(entry)), (ranges) => {
      same("SnapshotReadOutput", writeSnapshotRead(ranges), {
        ranges: ranges.map((values) => ({ values: values.map(entryMessage) })),
        readIsStronglyConsistent: true,
        status: 1,
      });
    }),
    runs(200),
  );
  fc.assert(
    fc.property(latin1(10), fc.array(number), (versionstamp, failed) => {
      same("AtomicWriteOutput", writeAtomicWrite({ versionstamp }), {
        status: 1,
        versionstamp: bytesOf(versionstamp),
      });
      const failedChecks = [0, ...failed];
      same("AtomicWriteOutput", writeAtomicWrite({ failedChecks }), {
        status: 2,
        failedChecks,
      });
    }),
    runs(200),
  );
  fc.assert(
    fc.property(fc.array(fc.option(entry)), (entries) => {
      const frame = writeWatch(entries);
      const length = new DataView(frame.buffer).getUint32(0, true);
      assertEquals(length, frame.length - 4);
      same("WatchOutput", frame.subarray(4), {
        status: 1,
        keys: entries.map((one) => ({
          changed: true,
          ...(one && { entryIfChanged: entryMessage(one) }),
        })),
      });
    }),
    runs(200),
  );
});

Deno.test("kvmessages: any bytes are a message or MALFORMED, a later field is passed over", () => {
  const bytes = fc.uint8Array({ maxLength: 40 });
  fc.assert(
    fc.property(bytes, (bytes) => {
      for (const read of [readSnapshotRead, readAtomicWrite, readWatch]) {
        try {
          read(bytes);
        } catch (error) {
          assertEquals(error instanceof DkvError && error.code, "MALFORMED");
        }
      }
    }),
    runs(2000),
  );
  const later = Uint8Array.of(15 << 3, 1);
  assertEquals(readWatch(later), []);
  assertEquals(readSnapshotRead(later), []);
  assertEquals(readAtomicWrite(later).mutations, []);
  // Field 1 as a number.
  assertThrows(() => readWatch(Uint8Array.of(1 << 3, 1)), DkvError);
});
