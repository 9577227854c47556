/**
 * The standard health service (`proto/health.proto`). Used by `grpc.ts`.
 *
 * The package grpc-health-check would do, but it cannot be imported under a node's permissions: it
 * looks for its .proto file with a call for which Deno wants `--allow-sys`.
 *
 * @module
 */

import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import type { ServerStream, Wire } from "./call.ts";
import { LIMITS } from "./config.ts";

const PROTO_PATH = `${import.meta.dirname}/proto/health.proto`;

/** What a health check answers. */
export type ServingStatus = "SERVING" | "NOT_SERVING";

/** The health of a node's services, all of them alike. */
export class Health {
  readonly #services: ReadonlySet<string>;
  readonly #watchers = new Set<ServerStream>();
  #status: ServingStatus = "NOT_SERVING";

  /** `services` are full names; the empty name stands for the node. */
  constructor(services: readonly string[]) {
    this.#services = new Set(["", ...services]);
  }

  addTo(server: grpc.Server): void {
    const proto = loadSync(PROTO_PATH, { enums: String, defaults: true });
    const definition = proto["grpc.health.v1.Health"] as grpc.ServiceDefinition;
    server.addService(definition, {
      Check: (
        call: grpc.ServerUnaryCall<Wire, Wire>,
        callback: grpc.sendUnaryData<Wire>,
      ) => {
        const { service } = call.request;
        if (this.#services.has(service)) {
          return callback(null, { status: this.#status });
        }
        callback({
          code: grpc.status.NOT_FOUND,
          details: `No service ${JSON.stringify(service)}`,
        });
      },
      Watch: (call: ServerStream) => this.#watch(call),
    });
  }

  set status(status: ServingStatus) {
    if (this.#status === status) return;
    this.#status = status;
    for (const call of this.#watchers) call.write({ status });
  }

  #watch(call: ServerStream): void {
    if (!this.#services.has(call.request.service)) {
      // As the protocol wants: the call stays open, the service may appear.
      call.write({ status: "SERVICE_UNKNOWN" });
      return;
    }
    if (this.#watchers.size >= LIMITS.concurrentStreamsMax) {
      call.emit("error", {
        code: grpc.status.RESOURCE_EXHAUSTED,
        details: `Too many health watches: ${this.#watchers.size}`,
      });
      return;
    }
    this.#watchers.add(call);
    call.on("cancelled", () => this.#watchers.delete(call));
    call.on("error", () => this.#watchers.delete(call));
    call.write({ status: this.#status });
  }
}
