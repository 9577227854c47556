/**
 * What both tasks of the bench do around their work: options, usage, exit codes. Used by `main.ts`
 * and `growth.ts`.
 *
 * @module
 */

import { DkvError } from "../errors.ts";
import { taskArgs } from "../launch.ts";
import { type Cleanup, withCleanup } from "./cleanup.ts";
import { BadOption } from "./options.ts";

/** A task: null for options means that only its usage was asked for. */
export interface Task<Options> {
  readonly usage: string;
  readonly optionsOf: (args: readonly string[]) => Options | null;
  readonly run: (options: Options, cleanup: Cleanup) => Promise<number>;
}

/** Runs a task with the arguments of this process and resolves with its exit code. */
export async function runTask<Options>(
  { usage, optionsOf, run }: Task<Options>,
): Promise<number> {
  try {
    const options = optionsOf(taskArgs(Deno.args));
    if (options === null) {
      console.log(usage);
      return 0;
    }
    return await withCleanup((cleanup) => run(options, cleanup));
  } catch (error) {
    if (error instanceof BadOption) {
      console.error(`${error.message}\n\n${usage}`);
      return 2;
    }
    // What a person can do something about is told in words alone.
    console.error(error instanceof DkvError ? error.message : error);
    return 1;
  }
}
