/**
 * KV Connect spoken by hand: what no client sends, because its own limits are in the way or it has no
 * word for it. protobufjs makes the messages from `proto/kvconnect.proto`. Used by
 * `kvconnect_test.ts`.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import type { Root } from "protobufjs";

const MESSAGES = {
  snapshot_read: ["SnapshotRead", "SnapshotReadOutput"],
  atomic_write: ["AtomicWrite", "AtomicWriteOutput"],
  watch: ["Watch", null],
} as const;

/** What came back. */
export interface WireAnswer {
  readonly status: number;
  /** Of an answer that is not 200. */
  readonly text: string;
  /** Of one that is: numbers are numbers, enums their names, bytes base64. */
  readonly message: Readonly<Record<string, unknown>>;
}

/** A database on one node, or behind a balancer. */
export class Wire {
  readonly #root: Root;
  readonly #url: string;
  readonly #headers: Readonly<Record<string, string>>;

  private constructor(
    root: Root,
    { url, headers }: { url: string; headers: Record<string, string> },
  ) {
    this.#root = root;
    this.#url = url;
    this.#headers = headers;
  }

  /** Exchanges the access token for one of the data path. */
  static async open(url: string, accessToken: string): Promise<Wire> {
    const { default: protobuf } = await import("protobufjs");
    const path = new URL("../../proto/kvconnect.proto", import.meta.url);
    const { root } = protobuf.parse(await Deno.readTextFile(path));
    const response = await fetch(url, {
      method: "POST",
      headers: { authorization: `Bearer ${accessToken}` },
      body: '{"supportedVersions":[3]}',
    });
    const text = await response.text();
    assertEquals(response.status, 200, text);
    const { token, databaseId } = JSON.parse(text);
    const headers = {
      authorization: `Bearer ${token}`,
      "x-denokv-version": "3",
      "x-denokv-database-id": databaseId,
    };
    return new Wire(root, { url: `${url}/v2`, headers });
  }

  /** Makes a call. Of a body without end nothing is read. */
  async call(
    method: keyof typeof MESSAGES,
    request: Record<string, unknown>,
  ): Promise<WireAnswer> {
    const [input, output] = MESSAGES[method];
    const Input = this.#root.lookupType(`dkv.kvconnect.v1.${input}`);
    const body = Input.encode(Input.fromObject(request)).finish();
    const response = await fetch(`${this.#url}/${method}`, {
      method: "POST",
      headers: this.#headers,
      body: new Uint8Array(body),
    });
    const { status } = response;
    if (status !== 200) {
      return { status, text: await response.text(), message: {} };
    }
    if (output === null) {
      await response.body?.cancel();
      return { status, text: "", message: {} };
    }
    const Output = this.#root.lookupType(`dkv.kvconnect.v1.${output}`);
    const message = Output.toObject(Output.decode(await response.bytes()), {
      enums: String,
      longs: Number,
      bytes: String,
      arrays: true,
    });
    return { status, text: "", message };
  }
}
