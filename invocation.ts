/**
 * One run of a command: its arguments, where it prints, and its way to the cluster. Used by every
 * module of the command line.
 *
 * @module
 */

import type { Client } from "./client.ts";
import { type Arguments, EXIT } from "./arguments.ts";
import { note, type Output, variable } from "./terminal.ts";

const DEFAULT_ENDPOINTS = "127.0.0.1:50051,127.0.0.1:50052,127.0.0.1:50053";

/** What a command is given. */
export interface Invocation {
  readonly args: Arguments;
  readonly out: Output;
}

/** What does a command; resolves with the exit code. */
export type Run = (invocation: Invocation) => Promise<number>;

/** The nodes to talk to, as they were written. */
export function endpointsOf(args: Arguments): string {
  return args.text("endpoints") ?? (variable("DKV_ENDPOINTS") ||
    DEFAULT_ENDPOINTS);
}

/**
 * Connects to the cluster. `timeoutMs` is for commands that should outlast an election; whoever says
 * `--timeout` knows better.
 */
export async function connectTo(
  args: Arguments,
  { timeoutMs }: { timeoutMs?: number } = {},
): Promise<Client> {
  const ownMs = args.duration("timeout") ?? timeoutMs;
  // Loaded only here: it reads the environment, and help needs none of it.
  const { connect } = await import("./client.ts");
  return await connect(
    endpointsOf(args),
    ownMs === undefined ? {} : { timeoutMs: ownMs },
  );
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
