import { assertEquals } from "@std/assert";
import { CatchUps } from "../catchup.ts";

Deno.test("CatchUps keep the log from the oldest snapshot on that somebody still needs", () => {
  const catchUps = new CatchUps();
  const matches = new Map([["b", 40], ["c", 40]]);
  const allow = (target: number, tick = 1) =>
    catchUps.allow(target, { matchOf: (member) => matches.get(member), tick });
  assertEquals(allow(200), 200);
  catchUps.begin("b", { index: 100, tick: 1 });
  catchUps.begin("c", { index: 150, tick: 1 });
  assertEquals(allow(200), 100);
  assertEquals(allow(90), 90, "nothing is dropped that would have been kept");
  matches.set("b", 160);
  assertEquals(allow(200), 100, "installed, and not yet level");
  matches.set("b", 200);
  assertEquals(allow(200), 150);
  assertEquals(allow(300), 150, "level once is level");
  matches.delete("c");
  assertEquals(allow(300), 300, "no member any more");
});

Deno.test("CatchUps give up on a member after a while, and all with the leadership", () => {
  const catchUps = new CatchUps();
  const allow = (tick: number) =>
    catchUps.allow(200, { matchOf: () => 40, tick });
  catchUps.begin("b", { index: 100, tick: 10 });
  assertEquals([allow(11), allow(1210), allow(1211)], [100, 100, 200]);
  catchUps.begin("b", { index: 100, tick: 10 });
  catchUps.begin("b", { index: 120, tick: 20 });
  assertEquals(allow(21), 120, "a newer snapshot takes the place of the older");
  catchUps.clear();
  assertEquals(allow(21), 200);
});
