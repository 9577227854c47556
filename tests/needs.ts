/**
 * Tests that need permissions. Plain `deno test` grants none: such a test is then registered as
 * ignored, and its name says what it needs, so nothing is ever asked for at a prompt.
 *
 * A module that touches the environment or the disk while it is imported (grpc-js does) must be
 * imported inside the test's function, or this guard comes too late:
 *
 *     needs(["env"], "grpc: maps a code", async () => {
 *       const grpc = await import("@grpc/grpc-js");
 *
 * Used by every test that is not pure.
 *
 * @module
 */

import { unreachable } from "../errors.ts";

/** What grpc-js and its companions read; `ENVIRONMENT` in launch.ts must hold all of them. */
const GRPC_VARIABLE = "GRPC_NODE_VERBOSITY";

/** Where tests keep what they write: inside the checkout, never committed, see {@linkcode tempDir}. */
const TEMP_ROOT = ".tmp";

/**
 * One thing a test needs, as `deno task test` grants it:
 * - `read`: the checkout;
 * - `write`: what the checkout ignores (see {@linkcode tempDir});
 * - `net`: 127.0.0.1, any port;
 * - `env`: the variables that grpc-js reads;
 * - `run`: the `deno` on the PATH;
 * - `mount`: the system's `mount` and `umount`, for tests with small file systems;
 * - `script`: the system's `script`, for tests with a terminal;
 * - `node`: Node, for tests with clients that run there.
 */
export type Need =
  | "read"
  | "write"
  | "net"
  | "env"
  | "run"
  | "mount"
  | "node"
  | "script";

/** What a test with real nodes needs. */
export const CLUSTER_NEEDS: readonly Need[] = [
  "read",
  "write",
  "net",
  "env",
  "run",
];

/** What a test with a node, a server or a client inside its own process needs. */
export const NODE_NEEDS: readonly Need[] = ["read", "write", "net", "env"];

/** Options of {@linkcode Deno.test} that a test may set beside its name and function. */
export type NeedsOptions = Omit<Deno.TestDefinition, "name" | "fn">;

/** Registers a test that runs only if everything it needs was granted. */
export function needs(
  wanted: readonly Need[],
  name: string,
  fn: Deno.TestDefinition["fn"],
  options: NeedsOptions = {},
): void {
  const missing = wanted.filter((need) => !granted(need));
  if (missing.length === 0) {
    Deno.test({ ...options, name, fn });
    return;
  }
  const flags = missing.map((need) =>
    `--allow-${["mount", "node", "script"].includes(need) ? "run" : need}`
  );
  const reason = [...new Set(flags)].join(", ");
  Deno.test({
    ...options,
    name: `${name} (ignored: needs ${reason})`,
    fn,
    ignore: true,
  });
}

/** True if everything was granted; asks nobody. */
export function has(wanted: readonly Need[]): boolean {
  return wanted.every(granted);
}

/** A directory of its own for one test, removed when its scope is left. */
export interface TempDir extends AsyncDisposable {
  /** Absolute. */
  readonly path: string;
}

/** Makes a {@linkcode TempDir}: `await using dir = await tempDir();`. Needs `read` and `write`. */
export async function tempDir(): Promise<TempDir> {
  const root = decodeURIComponent(
    new URL(`../${TEMP_ROOT}`, import.meta.url).pathname,
  );
  await Deno.mkdir(root, { recursive: true });
  const path = await Deno.makeTempDir({ dir: root });
  return {
    path,
    async [Symbol.asyncDispose]() {
      await Deno.remove(path, { recursive: true });
    },
  };
}

function granted(need: Need): boolean {
  return descriptors(need).every((descriptor) =>
    Deno.permissions.querySync(descriptor).state === "granted"
  );
}

function descriptors(need: Need): Deno.PermissionDescriptor[] {
  const checkout = decodeURIComponent(new URL("..", import.meta.url).pathname);
  switch (need) {
    case "read":
      return [{ name: "read", path: checkout }];
    case "write":
      return [{ name: "write", path: `${checkout}${TEMP_ROOT}` }];
    case "net":
      return [{ name: "net", host: "127.0.0.1" }];
    case "env":
      return [{ name: "env", variable: GRPC_VARIABLE }];
    case "run":
      return [{ name: "run", command: "deno" }];
    case "node":
      return [{ name: "run", command: "node" }];
    case "script":
      return [{ name: "run", command: "script" }];
    case "mount":
      return [{ name: "run", command: "mount" }, {
        name: "run",
        command: "umount",
      }];
    default:
      unreachable(need);
  }
}
