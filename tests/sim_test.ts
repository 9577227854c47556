import { assert, assertEquals, assertThrows } from "@std/assert";
import { needs } from "./needs.ts";
import { Clock } from "./sim/clock.ts";
import { History } from "./sim/history.ts";
import { MUTANTS } from "./sim/mutants.ts";
import { Oracle } from "./sim/oracle.ts";
import { FAULTS, planOf } from "./sim/plan.ts";
import { Random } from "./sim/random.ts";
import { commandFor, runSeed } from "./sim/run.ts";
import { Violation } from "./sim/violation.ts";

/** How long the exploring part may take; `deno task sim` explores for longer. */
const EXPLORE_MS = 8000;
const DAY_MS = 24 * 60 * 60 * 1000;

/** Seeds that once showed a defect, or under which a mutant of `sim/mutants.ts` is caught. */
const TELLING: readonly [seed: number, what: string][] = [
  [10, "entries of old terms"],
  [37, "entries on disk before their term"],
  [156, "log time that gained with each change of leader"],
];

function mustPass(seed: number): number {
  const { error, simulatedMs } = runSeed(seed);
  assert(
    error === null,
    `${error?.message}\n${error?.stack}\nagain: ${commandFor(seed)}`,
  );
  return simulatedMs;
}

for (const [seed, what] of TELLING) {
  Deno.test(`sim: seed ${seed}: ${what}`, () => {
    mustPass(seed);
  });
}

Deno.test("sim: seeds of the day", () => {
  // Other seeds each day, so that what nobody thought of is met in the end.
  const first = Math.floor(Date.now() / DAY_MS) * 10_000;
  const startMs = performance.now();
  let seed = first;
  let simulatedMs = 0;
  while (performance.now() - startMs < EXPLORE_MS) {
    simulatedMs += mustPass(seed++);
  }
  console.log(
    `sim: seeds ${first} to ${seed - 1}, ${
      Math.round(simulatedMs / 1000)
    } simulated seconds`,
  );
});

Deno.test("sim: a seed always does the same", () => {
  const seed = 5;
  const [a, b] = [runSeed(seed), runSeed(seed)];
  assertEquals(a.turns, b.turns);
  assertEquals(a.operations, b.operations);
  assertEquals(a.trace(1000), b.trace(1000));
  assert(runSeed(seed + 1).turns !== a.turns);
});

Deno.test("sim: what is taken away from a plan leaves the rest as it is", () => {
  const whole = planOf(7);
  const fewer = planOf(7, { faults: FAULTS, clients: 1 });
  assertEquals(fewer.faults.size, 0);
  assertEquals(
    { ...fewer, faults: whole.faults, clients: whole.clients },
    whole,
  );
});

Deno.test("sim: the clock runs events by time, then in the order they were asked for", () => {
  const clock = new Clock();
  const seen: string[] = [];
  const random = new Random(3);
  const expected: [number, number][] = [];
  for (let i = 0; i < 200; i++) {
    const atMs = random.below(20);
    expected.push([atMs, i]);
    clock.after(atMs, () => seen.push(`${clock.nowMs} ${i}`));
  }
  while (clock.step(30));
  expected.sort(([a, i], [b, j]) => a - b || i - j);
  assertEquals(seen, expected.map(([at, i]) => `${at} ${i}`));
  assertEquals(clock.nowMs, 30);
});

needs(["read"], "sim: every mutant fits the source", () => {
  for (const { name, file, find } of MUTANTS) {
    const source = Deno.readTextFileSync(file);
    assertEquals(source.split(find).length, 2, name);
  }
});

Deno.test("sim: a read of what nobody wrote is refused", () => {
  const history = new History(new Oracle());
  const called = { client: "c1", writeId: null, request: null, callMs: 0 };
  const query = {
    range: { start: "k", end: "k\0" },
    revision: 0,
    isLinearizable: true,
  };
  const first = history.begin({ ...called, query });
  assertThrows(
    () =>
      history.succeeded(first, {
        answer: {
          entries: [{
            key: "k",
            value: new Uint8Array([1]),
            createRevision: 1,
            modRevision: 1,
            version: 1,
            lease: 0n,
          }],
          revision: 0,
        },
      }),
    Violation,
    "read of what was written",
  );
});
