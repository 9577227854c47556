/**
 * The `Pipeline` stream: batches of operations in, batches of answers out, in any order. What is
 * settled in one event-loop turn leaves as one message. Used by `grpc.ts`.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import type { WriteId } from "./batch.ts";
import { LIMITS } from "./config.ts";
import {
  checkWriteId,
  fromDelete,
  fromOptionalEntry,
  fromPut,
  fromTransact,
  toDelete,
  toInteger,
  toKey,
  toPut,
  toTransact,
  type WireDelete,
  type WireGet,
  type WireInteger,
  type WirePut,
  type WireTransact,
} from "./convert.ts";
import { DkvError } from "./errors.ts";
import {
  type Context,
  type DuplexStream,
  fromError,
  toReadOptions,
  toStatus,
  Unreadable,
} from "./call.ts";

interface WirePipelineRequest {
  client: Parameters<typeof toKey>[0];
  doneBelow: WireInteger;
  operations: WirePipelineOperation[];
}

interface WirePipelineOperation {
  id: WireInteger;
  sequence: WireInteger;
  timeoutMs: WireInteger;
  put?: WirePut | null;
  get?: WireGet | null;
  delete?: WireDelete | null;
  transact?: WireTransact | null;
}

/** Who sends, for the operations of one request. */
interface Sender {
  readonly client: string;
  readonly doneBelow: number;
}

/** Serves one stream. */
export function servePipeline(call: DuplexStream, context: Context): void {
  let inFlight = 0;
  let ended = false;
  let results: Record<string, unknown>[] = [];

  const flush = () => {
    const batch = results;
    results = [];
    inFlight -= batch.length;
    if (call.cancelled) return;
    call.write({ header: context.header(), results: batch });
    if (ended && inFlight === 0) call.end();
  };
  const answer = (result: Record<string, unknown>) => {
    if (results.length === 0) setImmediate(flush);
    results.push(result);
  };

  call.on("data", (request: WirePipelineRequest | Unreadable) => {
    if (request instanceof Unreadable) {
      call.emit("error", toStatus(request.error));
      return;
    }
    let sender: Sender;
    try {
      sender = {
        client: toKey(request.client),
        doneBelow: toInteger(request.doneBelow, "done_below"),
      };
    } catch (error) {
      call.emit("error", toStatus(context.toError(error)));
      return;
    }
    for (const operation of request.operations) {
      const { id } = operation;
      const fail = (error: unknown) =>
        answer({ id, error: fromError(context.toError(error)) });
      const waiting = inFlight++;
      if (waiting >= LIMITS.pipelineInFlightMax) {
        fail(overloaded(waiting));
        continue;
      }
      run(operation, sender, context).then(
        (result) => answer({ id, ...result }),
        fail,
      );
    }
  });
  call.on("end", () => {
    ended = true;
    if (inFlight === 0) call.end();
  });
  call.on("error", () => {}); // The client vanished; what it sent is settled all the same.
}

async function run(
  operation: WirePipelineOperation,
  sender: Sender,
  { service }: Context,
): Promise<Record<string, unknown>> {
  const timeoutMs = toInteger(operation.timeoutMs, "timeout_ms");
  const options = { timeoutMs: timeoutMs === 0 ? null : timeoutMs };
  if (operation.get) {
    const { key, ...wire } = operation.get;
    const entry = await service.get(toKey(key), {
      ...options,
      ...toReadOptions(wire),
    });
    return { get: { entry: fromOptionalEntry(entry) } };
  }
  const writeId = toPipelineWriteId(operation, sender);
  if (operation.put) {
    const result = await service.put(toPut(operation.put), {
      ...options,
      writeId,
    });
    return { put: fromPut(result) };
  }
  if (operation.delete) {
    const result = await service.delete(toDelete(operation.delete), {
      ...options,
      writeId,
    });
    return { delete: fromDelete(result) };
  }
  if (operation.transact) {
    const result = await service.transact(toTransact(operation.transact), {
      ...options,
      writeId,
    });
    return { transact: fromTransact(result) };
  }
  throw new DkvError("MALFORMED", `The operation ${operation.id} is empty`);
}

function toPipelineWriteId(
  operation: WirePipelineOperation,
  sender: Sender,
): WriteId | null {
  const sequence = toInteger(operation.sequence, "sequence");
  return sequence === 0 ? null : checkWriteId({ ...sender, sequence });
}

function overloaded(waiting: number): DkvError {
  return new DkvError(
    "OVERLOADED",
    `Too many operations wait on this stream: ${waiting}, at most ${LIMITS.pipelineInFlightMax}`,
  );
}
