/** Writes on their way: every one is settled once, and submitted again only if it is certainly lost. */

import { assert, assertEquals, assertThrows } from "@std/assert";
import { decodeCommand, type Request, type UserChange } from "../batch.ts";
import { DkvError, type ErrorCode } from "../errors.ts";
import { growsStore, Proposals } from "../proposals.ts";
import type { Result } from "../results.ts";

const DONE: Result = { type: "done" };
const BYTES = 10;

function put(key: string, valueBytes: number = BYTES): Request {
  return {
    type: "put",
    key,
    value: new Uint8Array(valueBytes),
    lease: 0n,
    returnPrevious: false,
  };
}

class Fixture {
  readonly proposals: Proposals;
  /** What each write was told, by its key; more than one answer is an error. */
  readonly told = new Map<string, string>();

  constructor(options: { proposalsMax?: number; bytesMax?: number } = {}) {
    this.proposals = new Proposals({
      origin: 7,
      proposalsMax: 100,
      bytesMax: 10_000,
      commandBytesMax: 1000,
      ...options,
    });
  }

  add(key: string, options: { deadlineTick?: number; bytes?: number } = {}) {
    const waiter = {
      writeId: null,
      settle: (outcome: Result | DkvError) => {
        assert(!this.told.has(key), `${key} was told twice`);
        const text = outcome instanceof DkvError ? outcome.code : outcome.type;
        this.told.set(key, text);
      },
    };
    this.proposals.add(put(key, options.bytes), {
      waiter,
      deadlineTick: options.deadlineTick ?? 100,
    });
  }

  /** Submits what is queued. */
  submit(term: number, tick = 0): string[] {
    const next = this.proposals.next(Infinity);
    this.proposals.submitted(next, { term, tick });
    return next.map(({ data }) => keyOf(data));
  }
}

function keyOf(data: Uint8Array): string {
  const { request } = decodeCommand(data);
  assert(request.type === "put");
  return request.key;
}

function assertRefuses(run: () => void, code: ErrorCode, says: RegExp): void {
  const error = assertThrows(run, DkvError);
  assertEquals(error.code, code);
  assert(says.test(error.message), error.message);
}

Deno.test("proposals: are submitted in order, up to some bytes, at least one", () => {
  const fixture = new Fixture();
  for (const key of ["a", "b", "c"]) fixture.add(key);
  const { proposals } = fixture;
  const [first] = proposals.next(1);
  assertEquals(proposals.next(1).length, 1);
  assertEquals(proposals.next(2 * (first?.data.length ?? 0)).length, 2);
  assertEquals(proposals.queued, 3);
  assertEquals(fixture.submit(1), ["a", "b", "c"]);
  assertEquals(proposals.queued, 0);
  assertEquals(proposals.size, 3);
});

Deno.test("proposals: carry their origin and rising ids", () => {
  const fixture = new Fixture();
  fixture.add("a");
  fixture.add("b");
  const commands = fixture.proposals.next(Infinity)
    .map(({ data }) => decodeCommand(data));
  assertEquals(commands.map(({ origin, id }) => [origin, id]), [[7, 1], [
    7,
    2,
  ]]);
});

Deno.test("proposals: are settled once; a late answer is ignored", () => {
  const fixture = new Fixture();
  fixture.add("a", { deadlineTick: 5 });
  fixture.submit(1);
  fixture.proposals.settle(1, DONE);
  fixture.proposals.settle(1, DONE);
  fixture.proposals.expire(5);
  fixture.proposals.close();
  assertEquals(fixture.told.get("a"), "done");
  assertEquals(fixture.proposals.size, 0);
});

Deno.test("proposals: everything below the oldest that waits is settled", () => {
  const fixture = new Fixture();
  assertEquals(fixture.proposals.settledBelow, 1);
  for (const key of ["a", "b", "c"]) fixture.add(key);
  fixture.submit(1);
  fixture.proposals.settle(2, DONE);
  assertEquals(fixture.proposals.settledBelow, 1);
  fixture.proposals.settle(1, DONE);
  assertEquals(fixture.proposals.settledBelow, 3);
  fixture.proposals.settle(3, DONE);
  assertEquals(fixture.proposals.settledBelow, 4);
});

Deno.test("proposals: what was submitted and not confirmed in time has an unknown outcome", () => {
  const fixture = new Fixture();
  fixture.add("submitted", { deadlineTick: 5 });
  fixture.submit(1);
  fixture.add("queued", { deadlineTick: 5 });
  fixture.add("later", { deadlineTick: 6 });
  fixture.proposals.expire(4);
  assertEquals(fixture.told.size, 0);
  fixture.proposals.expire(5);
  assertEquals(fixture.told.get("submitted"), "OUTCOME_UNKNOWN");
  assertEquals(fixture.told.get("queued"), "NO_LEADER");
  assertEquals(fixture.told.has("later"), false);
  assertEquals(fixture.submit(1), ["later"]);
});

Deno.test("proposals: an entry of a later term brings back what it outran, before the rest", () => {
  const fixture = new Fixture();
  for (const key of ["a", "b"]) fixture.add(key);
  fixture.submit(2);
  fixture.add("c");
  fixture.submit(3);
  fixture.add("d");
  fixture.proposals.settle(1, DONE);
  // An entry of its own term says nothing.
  fixture.proposals.requeueBefore(2);
  assertEquals(fixture.proposals.queued, 1);
  fixture.proposals.requeueBefore(3);
  assertEquals(fixture.submit(3), ["b", "d"]);
});

Deno.test("proposals: only what its leader has not answered for long is sent again", () => {
  const fixture = new Fixture();
  fixture.add("old");
  fixture.submit(2, 1);
  fixture.add("new");
  fixture.submit(2, 9);
  fixture.add("elsewhere");
  fixture.submit(1, 1);
  const again = (bytesMax: number) =>
    fixture.proposals.unanswered(2, { before: 9, bytesMax })
      .map(({ data }) => keyOf(data));
  assertEquals(again(Infinity), ["old"]);
  assertEquals(again(1), ["old"]);
  fixture.proposals.settle(1, DONE);
  assertEquals(again(Infinity), []);
});

Deno.test("proposals: are bounded in number and in bytes, and free what they held", () => {
  const few = new Fixture({ proposalsMax: 2 });
  few.add("a");
  few.add("b");
  assertRefuses(() => few.add("c"), "OVERLOADED", /2, at most 2/);
  few.submit(1);
  few.proposals.settle(1, DONE);
  few.add("c");

  const small = new Fixture({ bytesMax: 700 });
  small.add("a", { bytes: 600 });
  assertRefuses(() => small.add("b", { bytes: 200 }), "OVERLOADED", /700/);
  assertRefuses(
    () => small.add("b", { bytes: 1000 }),
    "REQUEST_TOO_LARGE",
    /at most 1000/,
  );
  small.proposals.expire(100);
  small.add("b", { bytes: 600 });
});

Deno.test("proposals: a snapshot in their place leaves what was submitted unknown", () => {
  const fixture = new Fixture();
  fixture.add("submitted");
  fixture.submit(1);
  fixture.add("queued");
  fixture.proposals.settleSubmittedUnknown();
  assertEquals(fixture.told.get("submitted"), "OUTCOME_UNKNOWN");
  assertEquals(fixture.submit(2), ["queued"]);
});

Deno.test("proposals: the end of the node tells what is known", () => {
  const fixture = new Fixture();
  fixture.add("submitted");
  fixture.submit(1);
  fixture.add("queued");
  fixture.proposals.close();
  assertEquals(fixture.told.get("submitted"), "OUTCOME_UNKNOWN");
  assertEquals(fixture.told.get("queued"), "SHUTTING_DOWN");
  assertEquals([fixture.proposals.size, fixture.proposals.queued], [0, 0]);
});

function users(change: UserChange): Request {
  return { type: "changeUsers", change };
}

Deno.test("proposals: a full disk refuses what grows, and nothing that frees", () => {
  const range = { start: "a", end: null };
  const grows: [Request, boolean][] = [
    [put("a"), true],
    [{ type: "transact", compares: [], then: [], else: [] }, true],
    [{ type: "grant", lease: 0n, ttlMs: 1000 }, true],
    [{ type: "delete", range, returnPrevious: false }, false],
    [{ type: "revoke", lease: 1n }, false],
    [{ type: "keepAlive", lease: 1n }, false],
    [{ type: "compact", revision: 1 }, false],
    [{ type: "identify", clusterId: "x" }, false],
    [users({ type: "addRole", role: "r" }), true],
    [users({ type: "grantRole", user: "u", role: "r" }), true],
    [users({ type: "deleteRole", role: "r" }), false],
    [users({ type: "revokeRole", user: "u", role: "r" }), false],
  ];
  for (const [request, expected] of grows) {
    assertEquals(growsStore(request), expected, request.type);
  }
});
