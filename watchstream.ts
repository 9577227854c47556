/**
 * The `Watch` stream: several watches of one client. Used by `grpc.ts`.
 *
 * @module
 */

import {
  type Context,
  type DuplexStream,
  fromError,
  toStatus,
  Unreadable,
  WatchOutlet,
} from "./call.ts";
import { LIMITS } from "./config.ts";
import {
  toInteger,
  toTarget,
  type WireInteger,
  type WireTarget,
} from "./convert.ts";
import { DkvError } from "./errors.ts";
import type { WatchEvent } from "./store.ts";
import type { Watch } from "./watch.ts";

interface WireCreateWatch extends WireTarget {
  watchId: WireInteger;
  fromRevision: WireInteger;
  withPrevious: boolean;
  noPuts: boolean;
  noDeletes: boolean;
}

interface WireWatchRequest {
  create?: WireCreateWatch | null;
  cancel?: { watchId: WireInteger } | null;
}

/** Beside its key and value, what an event costs on the wire, roughly. */
const EVENT_OVERHEAD_BYTES = 40;

/** Serves one stream. */
export function serveWatch(call: DuplexStream, context: Context): void {
  const stream = new WatchStream(call, context);
  call.on("data", (request: WireWatchRequest | Unreadable) => {
    if (request instanceof Unreadable) return stream.fail(request.error);
    if (request.create) stream.create(request.create);
    else if (request.cancel) stream.cancel(String(request.cancel.watchId));
    else {
      const text = "The watch request is empty: expected create or cancel";
      stream.fail(new DkvError("MALFORMED", text));
    }
  });
  call.on("end", () => {
    stream.stop();
    call.end();
  });
  call.on("cancelled", () => stream.stop());
  call.on("error", () => stream.stop());
}

/** The watches of one stream, by the ids that the client chose. */
class WatchStream {
  readonly #call: DuplexStream;
  readonly #context: Context;
  readonly #outlet: WatchOutlet;
  readonly #watches = new Map<string, Watch>();

  constructor(call: DuplexStream, context: Context) {
    this.#call = call;
    this.#context = context;
    this.#outlet = new WatchOutlet(call, {
      isWatching: () => this.#watches.size > 0,
      onRoom: () => context.service.resumeWatches(),
    });
  }

  create(wire: WireCreateWatch): void {
    const watchId = String(wire.watchId);
    const refusal = this.#refusal(watchId);
    if (refusal !== null) {
      return this.#cancelled(watchId, { error: fromError(refusal) });
    }
    // Holds the id: the client may cancel the watch before it is open.
    const opening = { fromRevision: 0, stop: () => {}, progress: () => null };
    this.#watches.set(watchId, opening);
    const isOpening = () => this.#watches.get(watchId) === opening;
    this.#open(wire, isOpening).catch((error) => {
      if (!isOpening()) return;
      this.#watches.delete(watchId);
      const { toError } = this.#context;
      this.#cancelled(watchId, { error: fromError(toError(error)) });
    });
  }

  /** Opens a watch when the leader has confirmed that this node is not behind. */
  async #open(wire: WireCreateWatch, isOpening: () => boolean): Promise<void> {
    const { service } = this.#context;
    const watchId = String(wire.watchId);
    const range = toTarget(wire);
    const fromRevision = toInteger(wire.fromRevision, "from_revision");
    await service.watchable({ range, fromRevision, timeoutMs: null });
    if (!isOpening()) return;
    const watch = service.watch({
      range,
      fromRevision,
      withPrevious: wire.withPrevious,
      noPuts: wire.noPuts,
      noDeletes: wire.noDeletes,
      hasRoom: () => this.#outlet.hasRoom(),
      deliver: (events, through) => this.#deliver(watchId, { events, through }),
      cancel: (error, compactRevision) => {
        this.#watches.delete(watchId);
        this.#cancelled(watchId, { error: fromError(error), compactRevision });
      },
    });
    this.#watches.set(watchId, watch);
    this.#write(watchId, { created: { fromRevision: watch.fromRevision } });
  }

  cancel(watchId: string): void {
    const watch = this.#watches.get(watchId);
    if (watch === undefined) return; // It ended already; the client will read why.
    watch.stop();
    this.#watches.delete(watchId);
    this.#cancelled(watchId, {});
  }

  /** Ends all of them: the stream has ended. */
  stop(): void {
    for (const watch of this.#watches.values()) watch.stop();
    this.#watches.clear();
    this.#outlet.close();
  }

  /** Ends the stream: what came cannot be told to one of the watches. */
  fail(error: DkvError): void {
    this.stop();
    this.#call.emit("error", toStatus(error));
  }

  #refusal(watchId: string): DkvError | null {
    if (this.#watches.has(watchId)) {
      return new DkvError(
        "MALFORMED",
        `The watch id ${watchId} is in use on this stream`,
      );
    }
    const max = LIMITS.watchersPerStreamMax;
    if (this.#watches.size < max) return null;
    return new DkvError(
      "OVERLOADED",
      `Too many watches on this stream: ${this.#watches.size}, at most ${max}`,
    );
  }

  #deliver(
    watchId: string,
    { events, through }: { events: readonly WatchEvent[]; through: number },
  ): boolean {
    if (!this.#outlet.hasRoom()) return false;
    let bytes = 0;
    for (const { key, value } of events) {
      bytes += key.length + value.length + EVENT_OVERHEAD_BYTES;
    }
    this.#write(watchId, { events, throughRevision: through }, bytes);
    return true;
  }

  #cancelled(watchId: string, cancelled: Record<string, unknown>): void {
    this.#write(watchId, { cancelled });
  }

  #write(watchId: string, response: Record<string, unknown>, bytes = 0): void {
    this.#outlet.write(
      { header: this.#context.header(), watchId, ...response },
      bytes + EVENT_OVERHEAD_BYTES,
    );
  }
}
