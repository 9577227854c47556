/** Linearizable reads: answered after an index that was confirmed after they came, or told why not. */

import { assert, assertEquals, assertThrows } from "@std/assert";
import { DkvError } from "../errors.ts";
import { Queries } from "../queries.ts";

class Fixture {
  readonly queries: Queries;
  readonly told: string[] = [];

  constructor(queriesMax = 100, firstId = 40) {
    this.queries = new Queries({ queriesMax, firstId });
  }

  add(name: string, deadlineTick = 100): void {
    this.queries.add(
      (error) => this.told.push(`${name} ${error?.code ?? "ready"}`),
      deadlineTick,
    );
  }
}

Deno.test("queries: wait for the confirmed index to be applied", () => {
  const fixture = new Fixture();
  const { queries, told } = fixture;
  fixture.add("a");
  const id = queries.start(1);
  queries.applied(1000);
  assertEquals(told, []);
  queries.confirm(id, 10);
  queries.applied(9);
  assertEquals(told, []);
  queries.applied(10);
  assertEquals(told, ["a ready"]);
  assertEquals(queries.size, 0);
});

Deno.test("queries: a read that came after its round began waits for the next (raft-pitfalls R2)", () => {
  const fixture = new Fixture();
  const { queries, told } = fixture;
  fixture.add("early");
  const first = queries.start(1);
  fixture.add("late");
  queries.confirm(first, 5);
  queries.applied(5);
  assertEquals(told, ["early ready"]);
  assertEquals(queries.waiting, 1);
  const second = queries.start(2);
  assert(second > first);
  queries.confirm(second, 5);
  queries.applied(5);
  assertEquals(told, ["early ready", "late ready"]);
});

Deno.test("queries: an answer to a round that was lost confirms nothing (raft-pitfalls R2)", () => {
  const fixture = new Fixture();
  const { queries, told } = fixture;
  fixture.add("a");
  const first = queries.start(1);
  queries.lose(first);
  assertEquals(queries.waiting, 1);
  queries.confirm(first, 5);
  queries.applied(5);
  assertEquals(told, []);
  const second = queries.start(2);
  queries.confirm(second, 7);
  queries.confirm(second, 5);
  queries.applied(6);
  assertEquals(told, []);
  queries.applied(7);
  assertEquals(told, ["a ready"]);
});

Deno.test("queries: rounds without an answer are asked again, under a new id", () => {
  const fixture = new Fixture();
  fixture.add("old");
  const first = fixture.queries.start(1);
  fixture.add("new");
  const second = fixture.queries.start(8);
  fixture.queries.loseBefore(8);
  assertEquals(fixture.queries.waiting, 1);
  const third = fixture.queries.start(9);
  assertEquals(new Set([first, second, third, 40]).size, 4);
  fixture.queries.confirm(second, 1);
  fixture.queries.confirm(third, 1);
  fixture.queries.applied(1);
  assertEquals(fixture.told, ["new ready", "old ready"]);
});

Deno.test("queries: give up at their deadline wherever they are, once", () => {
  const fixture = new Fixture();
  const { queries, told } = fixture;
  fixture.add("confirmed", 5);
  queries.confirm(queries.start(1), 10);
  fixture.add("asked", 5);
  const asked = queries.start(2);
  fixture.add("waiting", 5);
  fixture.add("patient", 6);
  queries.expire(4);
  assertEquals(told, []);
  queries.expire(5);
  assertEquals([...told].sort(), [
    "asked NO_LEADER",
    "confirmed NO_LEADER",
    "waiting NO_LEADER",
  ]);
  queries.confirm(asked, 10);
  queries.applied(10);
  assertEquals(told.length, 3);
  assertEquals(queries.size, 1);
});

Deno.test("queries: are bounded, and free their places", () => {
  const fixture = new Fixture(2);
  fixture.add("a");
  fixture.add("b");
  const error = assertThrows(() => fixture.add("c"), DkvError);
  assertEquals(error.code, "OVERLOADED");
  assert(error.message.includes("2, at most 2"), error.message);
  fixture.queries.confirm(fixture.queries.start(1), 1);
  fixture.queries.applied(1);
  fixture.add("c");
});

Deno.test("queries: the end of the node ends all of them", () => {
  const fixture = new Fixture();
  fixture.add("confirmed");
  fixture.queries.confirm(fixture.queries.start(1), 10);
  fixture.add("asked");
  fixture.queries.start(1);
  fixture.add("waiting");
  fixture.queries.close();
  assertEquals([...fixture.told].sort(), [
    "asked SHUTTING_DOWN",
    "confirmed SHUTTING_DOWN",
    "waiting SHUTTING_DOWN",
  ]);
  assertEquals(fixture.queries.size, 0);
});
