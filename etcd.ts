/**
 * Serves the etcd v3 API (`proto/etcd/`) beside dkv's own, on the same port and the same data: the
 * one place where its services are registered. Used by `node.ts`; docs/etcd.md says what is served.
 *
 * @module
 */

import type * as grpc from "@grpc/grpc-js";
import { loadSync, type PackageDefinition } from "@grpc/proto-loader";
import { checkedDefinition } from "./call.ts";
import { type EtcdContext, etcdContext, type EtcdOptions } from "./etcdcall.ts";
import { kvHandlers } from "./etcdkv.ts";
import { leaseHandlers } from "./etcdlease.ts";
import { watchHandlers } from "./etcdwatch.ts";
import { authHandlers } from "./etcdauth.ts";
import { maintenanceHandlers } from "./etcdmaintenance.ts";
import { electionHandlers, lockHandlers } from "./etcdlock.ts";
import { clusterHandlers } from "./etcdcluster.ts";

/**
 * They import one another by paths relative to themselves: proto-loader looks through a list of
 * directories with a call for which Deno wants `--allow-sys`.
 */
const PROTO_PATHS = ["rpc", "lock", "election"].map((name) =>
  `${import.meta.dirname}/proto/etcd/${name}.proto`
);

/** etcd's services and who answers them. */
const SERVICES: Readonly<
  Record<string, (context: EtcdContext) => grpc.UntypedServiceImplementation>
> = {
  "etcdserverpb.KV": kvHandlers,
  "etcdserverpb.Watch": watchHandlers,
  "etcdserverpb.Lease": leaseHandlers,
  "etcdserverpb.Cluster": clusterHandlers,
  "etcdserverpb.Maintenance": maintenanceHandlers,
  "etcdserverpb.Auth": authHandlers,
  "v3lockpb.Lock": lockHandlers,
  "v3electionpb.Election": electionHandlers,
};

/** etcd's services on one node, ready to be added to its server. */
export class EtcdAdapter {
  readonly #context: EtcdContext;
  /** The definition, for reflection too. */
  readonly definition: PackageDefinition = loadSync(PROTO_PATHS, {
    keepCase: true,
    longs: String,
    enums: String,
    defaults: true,
    oneofs: true,
  });

  constructor(options: EtcdOptions) {
    this.#context = etcdContext(options);
  }

  addTo(server: grpc.Server): void {
    const { requestBytesMax } = this.#context.config.settings;
    for (const [name, handlers] of Object.entries(SERVICES)) {
      const definition = this.definition[name] as grpc.ServiceDefinition;
      server.addService(
        checkedDefinition(definition, () => requestBytesMax),
        handlers(this.#context),
      );
    }
  }
}
