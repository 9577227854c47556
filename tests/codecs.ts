/**
 * What tests of hand-written codecs need: the methods as protobufjs makes them of the description of
 * the messages, and random fields.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import type { Random } from "./sim/random.ts";

/** `kvstore.v1.KeyValue` by its methods, of whose types the caller knows. */
export async function keyValueMethods<Methods>(): Promise<Methods> {
  const { loadSync } = await import("@grpc/proto-loader");
  const definition = loadSync("proto/kvstore.proto", {
    longs: String,
    enums: String,
    defaults: true,
  });
  return definition["kvstore.v1.KeyValue"] as unknown as Methods;
}

export function randomBytes(random: Random, lengthMax: number): Buffer {
  const bytes = Buffer.alloc(random.below(lengthMax + 1));
  for (let at = 0; at < bytes.length; at++) bytes[at] = random.below(256);
  return bytes;
}

/** Below 2^53, of any length in bits. */
export function randomInteger(random: Random): number {
  return Math.floor(random.below(2 ** 30) / 2 ** 30 * 2 ** random.below(54));
}
