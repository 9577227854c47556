/**
 * dkv: a distributed key-value store for TypeScript programs. A client for it, and a node to run
 * inside a program.
 *
 * ```ts
 * import { connect } from "@dkv/dkv";
 *
 * await using kv = await connect("127.0.0.1:50051,127.0.0.1:50052,127.0.0.1:50053");
 * await kv.put("greeting", "hello");
 * const entry = await kv.get("greeting");
 * console.log(entry?.text(), entry?.version, entry?.modRevision);
 * ```
 *
 * @module
 */

import {
  type Config,
  nodeOf,
  parseConfig,
  readConfig,
  type Settings,
} from "./config.ts";

export * from "./client.ts";
export type { Settings } from "./config.ts";

/** Which node of which cluster to start, and where. */
export type StartNodeOptions =
  & {
    /** Which of the nodes this is. */
    readonly id: string;
    /** Where it keeps its data; made if absent. */
    readonly directory: string;
    /** Come back as a new member, with an empty directory, after the old disk was lost. */
    readonly rejoin?: boolean;
    /** Takes each line that the node has to say. Default: nobody. */
    readonly log?: (line: string) => void;
  }
  & (
    | {
      /** The path of a configuration file. */
      readonly config: string;
    }
    | {
      /** All nodes of the cluster, the same on each of them. */
      readonly nodes: readonly {
        readonly id: string;
        readonly address: string;
      }[];
      /** The name of the cluster. Default: dkv. */
      readonly cluster?: string;
      /** Instead of the default settings. */
      readonly settings?: Partial<Settings>;
    }
  );

/** A node that runs in this program. */
export interface RunningNode extends AsyncDisposable {
  /** Its id in the configuration. */
  readonly id: string;
  /** Where it listens. */
  readonly address: string;
  /** Resolves when the node has ended: with undefined after `stop`, with the reason if it failed. */
  readonly ended: Promise<unknown>;
  /** Hands leadership over, ends what waits, makes everything durable. */
  stop(): Promise<void>;
}

/**
 * Starts a node inside this program.
 *
 * ```ts
 * import { connect, startNode } from "@dkv/dkv";
 *
 * const nodes = [{ id: "node1", address: "127.0.0.1:50051" }];
 * await using node = await startNode({ nodes, id: "node1", directory: "data/node1" });
 * await using kv = await connect(node.address);
 * await kv.put("greeting", "hello");
 * ```
 *
 * It needs to read and write its directory, to read its own modules and packages, `--allow-net` for
 * the addresses of all nodes, and `--allow-env` for what grpc-js reads.
 *
 * @throws {DkvError} CONFIG_INVALID, IDENTITY_MISMATCH, DATA_CORRUPT, RUNTIME_UNSUPPORTED
 */
export async function startNode(
  options: StartNodeOptions,
): Promise<RunningNode> {
  const { id, directory, rejoin = false, log = () => {} } = options;
  const config = configOf(options);
  const { address } = nodeOf(config, id);
  // Loaded only here: a program that is only a client needs none of it, nor its permissions.
  const { Node } = await import("./node.ts");
  const { Logger } = await import("./metrics.ts");
  const logger = new Logger({ node: id, sink: log });
  const node = await Node.start({ config, id, directory, rejoin, logger });
  const stop = () => node.stop();
  return {
    id,
    address,
    ended: node.ended,
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

function configOf(options: StartNodeOptions): Config {
  if ("config" in options) return readConfig(options.config);
  const { cluster = "dkv", nodes, settings = {} } = options;
  const text = JSON.stringify({ cluster, nodes, settings });
  return parseConfig(text, "startNode");
}
