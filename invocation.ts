/**
 * One run of a command: its arguments, where it prints, and its way to the cluster. Used by every
 * module of the command line.
 *
 * @module
 */

import { parseEndpoints } from "./addresses.ts";
import type { Client } from "./client.ts";
import { type Arguments, EXIT, UsageError } from "./arguments.ts";
import { DkvError } from "./errors.ts";
import { note, type Output, type Stop, variable } from "./terminal.ts";

const DEFAULT_ENDPOINTS = "127.0.0.1:50051,127.0.0.1:50052,127.0.0.1:50053";

/** What a command is given. */
export interface Invocation {
  readonly args: Arguments;
  readonly out: Output;
}

/** What does a command; resolves with the exit code. */
export type Run = (invocation: Invocation) => Promise<number>;

/**
 * The nodes to talk to.
 *
 * @throws {UsageError} if that can be no list of addresses.
 */
export function endpointsOf(args: Arguments): string[] {
  const given = args.text("endpoints");
  const text = given ?? (variable("DKV_ENDPOINTS") || DEFAULT_ENDPOINTS);
  try {
    return parseEndpoints(text);
  } catch (error) {
    if (!(error instanceof DkvError)) throw error;
    const source = given === undefined ? "DKV_ENDPOINTS" : "--endpoints";
    throw new UsageError(`${source}: ${error.message}`);
  }
}

/**
 * Connects to the cluster. `timeoutMs` is for commands that should outlast an election; whoever says
 * `--timeout` knows better. A command that catches signals passes its `stop`, which ends the wait.
 */
export async function connectTo(
  args: Arguments,
  { timeoutMs, stop }: { timeoutMs?: number; stop?: Stop } = {},
): Promise<Client> {
  const ownMs = args.duration("timeout") ?? timeoutMs;
  // Loaded only here: it reads the environment, and help needs none of it.
  const { connect } = await import("./client.ts");
  return await connect(endpointsOf(args), {
    ...(ownMs === undefined ? {} : { timeoutMs: ownMs }),
    ...(stop === undefined ? {} : { signal: stop.signal }),
  });
}

/** Prints one result: as text, or with `--json` as an object. */
export async function print(
  { args, out }: Invocation,
  result: { readonly json: object; readonly text: string | Uint8Array },
): Promise<void> {
  if (args.flag("json")) return await out.line(JSON.stringify(result.json));
  await out.write(result.text);
  if (typeof result.text === "string") await out.write("\n");
}

/** What a command that was told to stop ends with, as a shell has it. */
export function exitOf(signal: Deno.Signal): number {
  return signal === "SIGINT" ? EXIT.interrupted : EXIT.terminated;
}

/** Says that something was not found. */
export function missing(text: string): number {
  note(`dkv: ${text}`);
  return EXIT.notFound;
}
