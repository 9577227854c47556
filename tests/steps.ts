/**
 * A cluster that many small tests share, as the steps of one: starting processes is what takes time.
 *
 *     clusterSteps("api: …", {}, {
 *       "a put is read on every node": async ({ nodes: [node1] }) => { … },
 *     });
 *
 * Steps run in order and must not depend on each other; each uses keys of its own.
 *
 * @module
 */

import { fail } from "@std/assert";
import { TestCluster, type TestClusterOptions } from "./cluster.ts";
import { CLUSTER_NEEDS, type Need, needs } from "./needs.ts";
import { Rpc } from "./rpc.ts";

/** What a step is given. */
export interface Shared {
  readonly cluster: TestCluster;
  /** A connection to each node, in order. */
  readonly rpcs: readonly [Rpc, ...Rpc[]];
}

export type Steps = Readonly<Record<string, (shared: Shared) => Promise<void>>>;

/** Registers one test that starts a cluster and runs each step on it. */
export function clusterSteps(
  name: string,
  options: TestClusterOptions & {
    readonly needs?: readonly Need[];
    readonly protos?: readonly string[];
  },
  steps: Steps,
): void {
  needs([...CLUSTER_NEEDS, ...options.needs ?? []], name, async (test) => {
    await using cluster = await TestCluster.start(options);
    const protos = options.protos ?? ["kvstore.proto"];
    const rpcs = await Promise.all(
      cluster.addresses.map((address) => Rpc.open(address, protos)),
    );
    let failed = 0;
    for (const [step, run] of Object.entries(steps)) {
      const passed = await test.step({
        name: step,
        fn: () => run({ cluster, rpcs: rpcs as [Rpc, ...Rpc[]] }),
        sanitizeOps: false,
        sanitizeResources: false,
      });
      if (!passed) failed++;
    }
    for (const rpc of rpcs) rpc[Symbol.dispose]();
    if (failed > 0) fail(`${failed} steps failed\n${cluster.output()}`);
  }, { sanitizeOps: false, sanitizeResources: false });
}
