import { assert, assertEquals } from "@std/assert";
import {
  check,
  checkParts,
  type Operation,
  REGISTER,
  type RegisterInput,
  type RegisterOutput,
  type Specification,
} from "./sim/linearizable.ts";
import { Random } from "./sim/random.ts";

type Op = Operation<RegisterInput, RegisterOutput>;

function read(call: number, end: number, value: string): Op {
  return {
    call,
    return: end,
    input: { type: "read" },
    output: { type: "value", value },
  };
}

function write(call: number, end: number, value: string): Op {
  return {
    call,
    return: end,
    input: { type: "write", value },
    output: end === Infinity ? null : { type: "written" },
  };
}

function compareAndSet(
  [call, end]: [number, number],
  [expected, value]: [string, string],
  succeeded: boolean | null,
): Op {
  return {
    call,
    return: end,
    input: { type: "compareAndSet", expected, value },
    output: succeeded === null ? null : { type: "compared", succeeded },
  };
}

const GOOD: Record<string, Op[]> = {
  "nothing happened": [],
  "one after the other": [write(0, 1, "a"), read(2, 3, "a")],
  "a read beside a write sees the old or the new": [
    write(0, 10, "a"),
    read(1, 2, ""),
    read(3, 4, "a"),
  ],
  "intervals are closed: a call at the moment of a return is beside it": [
    write(0, 5, "a"),
    read(5, 6, ""),
  ],
  "writes beside each other take either order": [
    write(0, 10, "a"),
    write(0, 10, "b"),
    read(11, 12, "a"),
  ],
  "an unknown write that took effect late": [
    write(0, Infinity, "a"),
    read(1, 2, ""),
    write(3, 4, "b"),
    read(5, 6, "b"),
    read(7, 8, "a"),
  ],
  "an unknown write that never took effect": [
    write(0, Infinity, "a"),
    write(3, 4, "b"),
    read(5, 6, "b"),
  ],
  "compare-and-set, won and lost": [
    write(0, 1, "a"),
    compareAndSet([2, 9], ["a", "b"], true),
    compareAndSet([2, 9], ["a", "c"], false),
    read(10, 11, "b"),
  ],
  "an unknown compare-and-set": [
    write(0, 1, "a"),
    compareAndSet([2, Infinity], ["a", "b"], null),
    read(3, 4, "a"),
    read(5, 6, "b"),
  ],
  "a write that answers what was there": [
    write(0, 1, "a"),
    { ...write(2, 3, "b"), output: { type: "value", value: "a" } },
  ],
};

const BAD: Record<string, Op[]> = {
  "stale read": [write(0, 1, "a"), write(2, 3, "b"), read(4, 5, "a")],
  "lost write": [write(0, 1, "a"), read(2, 3, "")],
  "read from nowhere": [read(0, 1, "x")],
  "two reads in different orders": [
    write(0, 10, "a"),
    write(0, 10, "b"),
    read(11, 12, "a"),
    read(13, 14, "b"),
  ],
  "going back beside a write": [
    write(0, 10, "a"),
    read(1, 2, "a"),
    read(3, 4, ""),
  ],
  "split brain: both sides win": [
    write(0, 1, "a"),
    compareAndSet([2, 9], ["a", "b"], true),
    compareAndSet([2, 9], ["a", "c"], true),
  ],
  "split brain: each side reads its own": [
    write(0, 1, "a"),
    write(2, 3, "b"),
    write(2, 3, "c"),
    read(4, 5, "b"),
    read(6, 7, "c"),
  ],
  "an unknown write that took effect and was undone": [
    write(0, Infinity, "a"),
    read(1, 2, "a"),
    read(3, 4, ""),
  ],
  "an unknown write before its call": [
    read(0, 1, "a"),
    write(2, Infinity, "a"),
  ],
  "a failed compare-and-set that should have won": [
    write(0, 1, "a"),
    compareAndSet([2, 3], ["a", "b"], false),
  ],
  "a write that answers something else than what was there": [
    write(0, 1, "a"),
    { ...write(2, 3, "b"), output: { type: "value", value: "" } },
  ],
};

for (const [name, history] of Object.entries(GOOD)) {
  Deno.test(`linearizable: ${name}`, () => {
    assertEquals(check(REGISTER, history).type, "ok");
  });
}

for (const [name, history] of Object.entries(BAD)) {
  Deno.test(`linearizable: refuses ${name}`, () => {
    const verdict = check(REGISTER, history);
    assert(verdict.type === "illegal", verdict.type);
    assert(history.includes(verdict.stuck));
    assert(!verdict.order.includes(verdict.stuck));
  });
}

/** A counter that answers its revision: it must never go down. */
const REVISION: Specification<"write" | "read", number> = {
  initial: "0",
  step(state, input, output) {
    const next = Number(state) + (input === "write" ? 1 : 0);
    return output === next ? String(next) : null;
  },
};

Deno.test("linearizable: refuses a revision that goes down", () => {
  const history = [
    { call: 0, return: 1, input: "write", output: 1 },
    { call: 2, return: 3, input: "write", output: 2 },
    { call: 4, return: 5, input: "read", output: 2 },
    { call: 6, return: 7, input: "read", output: 1 },
  ] as const;
  assertEquals(check(REVISION, history.slice(0, 3)).type, "ok");
  const verdict = check(REVISION, history);
  assert(verdict.type === "illegal");
  assertEquals(verdict.stuck, history[3]);
});

Deno.test("linearizable: parts are judged by themselves", () => {
  const left = [write(0, 1, "a"), read(2, 3, "a")];
  const right = [write(0, 1, "b"), read(2, 3, "")];
  const partOf = (operation: Op) => left.includes(operation) ? "left" : "right";
  assertEquals(checkParts(REGISTER, left, { partOf }).verdict.type, "ok");
  const { part, verdict } = checkParts(REGISTER, [...left, ...right], {
    partOf,
  });
  assertEquals([part, verdict.type], ["right", "illegal"]);
});

Deno.test("linearizable: running out of steps is no pass", () => {
  const history = Array.from(
    { length: 30 },
    (_, i) => write(i, Infinity, `v${i}`),
  );
  history.push(read(100, 101, "nowhere"));
  assertEquals(check(REGISTER, history, 1000).type, "timeout");
});

Deno.test("linearizable: agrees with trying every order", () => {
  const random = new Random(1);
  const counts = { ok: 0, illegal: 0 };
  for (let round = 0; round < 2000; round++) {
    const history = Array.from({ length: random.between(1, 6) }, () => {
      const call = random.below(12);
      const end = call + random.between(0, 6);
      const value = random.pick(["", "a", "b"]);
      switch (random.below(4)) {
        case 0:
          return write(call, end, value);
        case 1:
          return write(call, Infinity, value);
        case 2:
          return compareAndSet([call, end], [
            value,
            random.pick(["a", "b"]),
          ], random.chance(1, 2));
        default:
          return read(call, end, value);
      }
    });
    const verdict = check(REGISTER, history).type;
    assert(verdict !== "timeout");
    counts[verdict]++;
    assertEquals(verdict === "ok", hasOrder(history, ""), `round ${round}`);
  }
  assert(counts.ok > 200 && counts.illegal > 200, JSON.stringify(counts));
});

/** Every order, without any cleverness. */
function hasOrder(rest: readonly Op[], state: string): boolean {
  if (rest.length === 0) return true;
  return rest.some((first) => {
    if (rest.some((other) => other.return < first.call)) return false;
    const next = REGISTER.step(state, first.input, first.output);
    return next !== null && hasOrder(rest.filter((op) => op !== first), next);
  });
}
