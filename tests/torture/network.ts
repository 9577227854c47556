/**
 * The network between the nodes of a `TestCluster` with proxies, one direction of one pair at a
 * time. Used by `nemesis.ts`.
 *
 * ```text
 *   what node1 says to node2:  forward on the connection that node1 made,
 *                              back on the one that node2 made
 * ```
 *
 * @module
 */

import type { TestCluster } from "../cluster.ts";
import type { Direction, Proxy } from "../proxy.ts";

/** From one node to another. */
export type Way = readonly [from: string, to: string];

/** What a {@linkcode TestCluster} with `proxied` can do to its links. */
export class Network {
  readonly #cluster: TestCluster;

  constructor(cluster: TestCluster) {
    this.#cluster = cluster;
  }

  /** Every ordered pair. */
  get ways(): Way[] {
    const { ids } = this.#cluster;
    return ids.flatMap((from) =>
      ids.filter((to) => to !== from).map((to): Way => [from, to])
    );
  }

  /** Lets nothing through. Connections stay, and know nothing of it. */
  cut(ways: readonly Way[]): void {
    this.#each(ways, (proxy, direction) => proxy.pause(direction));
  }

  /** Lets through again what was held back, late as it is. */
  mend(ways: readonly Way[]): void {
    this.#each(ways, (proxy, direction) => proxy.resume(direction));
  }

  delay(ways: readonly Way[], delayMs: () => number): void {
    this.#each(ways, (proxy, direction) => proxy.delay(delayMs(), direction));
  }

  /** Ends the connections of these pairs, and what is on its way on them. */
  drop(ways: readonly Way[]): void {
    this.#each(ways, (proxy) => proxy.drop());
  }

  /** As it was. */
  heal(): void {
    const all = this.ways;
    this.mend(all);
    this.delay(all, () => 0);
  }

  #each(
    ways: readonly Way[],
    act: (proxy: Proxy, direction: Direction) => void,
  ): void {
    for (const [from, to] of ways) {
      act(this.#cluster.proxy(from, to), "forward");
      act(this.#cluster.proxy(to, from), "back");
    }
  }
}

/** Both directions of each pair that has one node in each of two groups. */
export function between(
  left: readonly string[],
  right: readonly string[],
): Way[] {
  return left.flatMap((a) =>
    right.flatMap((b): Way[] => a === b ? [] : [[a, b], [b, a]])
  );
}
