import { assert, assertEquals, assertThrows } from "@std/assert";
import { Inflights, Progress } from "../progress.ts";

const limits = { messagesMax: 2, bytesMax: 100 };

function probing(next: number): Progress {
  return new Progress(next, { limits, silentTicks: 0 });
}

/** Agrees with the leader up to `match`. */
function replicating(match: number): Progress {
  const progress = probing(match + 1);
  progress.acknowledged(match);
  return progress;
}

Deno.test("Inflights settles in order and counts bytes", () => {
  const inflights = new Inflights();
  for (let index = 1; index <= 100; index += 1) inflights.add(index, 10);
  inflights.settle(40);
  assertEquals([inflights.count, inflights.bytes], [60, 600]);
  inflights.settle(39);
  assertEquals(inflights.count, 60);
  assertThrows(() => inflights.add(100, 1), Error, "not after 100");
  inflights.settle(1000);
  assertEquals([inflights.count, inflights.bytes], [0, 0]);
});

Deno.test("Progress probes with one append at a time", () => {
  const progress = probing(5);
  assertEquals(progress.due(9, 4), "entries");
  progress.sent(9, { bytes: 50, commit: 4 });
  assertEquals(progress.next, 5);
  assertEquals(progress.due(9, 4), "nothing");
  progress.tick();
  progress.answered(9);
  assertEquals(progress.due(9, 4), "entries");
});

Deno.test("Progress sends ahead of acknowledgements, up to the limits (F1)", () => {
  const progress = replicating(4);
  assertEquals(progress.state, "replicate");
  progress.sent(5, { bytes: 10, commit: 4 });
  progress.sent(6, { bytes: 10, commit: 4 });
  assert(progress.isFull);
  assertEquals(progress.due(9, 4), "nothing");
  progress.acknowledged(5);
  assertEquals(progress.due(9, 4), "entries");
  progress.sent(7, { bytes: 1000, commit: 4 });
  progress.acknowledged(6);
  assert(progress.isFull, "One large append fills the window by bytes");
});

Deno.test("Progress finds out by an empty append what a full window hides (F1)", () => {
  const progress = replicating(4);
  progress.sent(5, { bytes: 60, commit: 4 });
  progress.sent(6, { bytes: 60, commit: 4 });
  progress.answered(9);
  assertEquals(progress.due(9, 4), "nothing", "An append has just been sent");
  progress.tick();
  progress.answered(9);
  assertEquals(progress.due(9, 4), "empty");
  progress.sent(6, { bytes: 0, commit: 4 });
  assert(progress.rejected(6, 4));
  assertEquals([progress.state, progress.next], ["probe", 5]);
});

Deno.test("Progress tells the commit index once", () => {
  const progress = replicating(4);
  assertEquals(progress.due(4, 3), "empty");
  progress.sent(4, { bytes: 0, commit: 3 });
  assertEquals(progress.due(4, 3), "nothing");
  assertEquals(progress.due(4, 4), "empty");
  progress.sent(4, { bytes: 0, commit: 9 });
  assertEquals(progress.due(4, 9), "nothing", "It has no more to commit");
});

Deno.test("Progress ignores a rejection that was overtaken (S9)", () => {
  const progress = replicating(4);
  progress.sent(7, { bytes: 10, commit: 4 });
  progress.acknowledged(7);
  assert(!progress.rejected(5, 2));
  assertEquals([progress.state, progress.match, progress.next], [
    "replicate",
    7,
    8,
  ]);
  const probe = probing(9);
  assert(!probe.rejected(5, 2), "Not the probe that is under way");
  assertEquals(probe.next, 9);
});

Deno.test("Progress keeps next above match whatever the order of replies (S10)", () => {
  for (let seed = 1; seed < 500; seed += 1) {
    const progress = probing(20);
    let dice = seed;
    for (let i = 0; i < 40; i += 1) {
      dice = (Math.imul(dice, 1103515245) + 12345) >>> 1;
      const index = dice % 20;
      const kind = (dice >> 8) % 6;
      if (kind === 0) progress.acknowledged(index);
      else if (kind === 1) progress.rejected(index, dice % 7);
      else if (kind === 2) progress.becomeProbe();
      else if (kind === 3) progress.becomeSnapshot();
      else if (kind === 4) progress.snapshotSent(index, index % 2 === 0);
      else if (progress.due(20, 10) !== "nothing") {
        const last = Math.max(progress.next - 1, Math.min(20, index));
        progress.sent(last, { bytes: 1, commit: 10 });
      }
      progress.assertInvariants();
    }
  }
});

Deno.test("Progress waits for a snapshot, then for a sign of life", () => {
  const progress = probing(3);
  progress.becomeSnapshot();
  assertEquals(progress.due(9, 9), "nothing");
  progress.snapshotSent(7, true);
  assertEquals([progress.state, progress.next], ["probe", 8]);
  assertEquals(progress.due(9, 9), "nothing");
  progress.tick();
  progress.answered(9);
  assertEquals(progress.due(9, 9), "entries");
  progress.becomeSnapshot();
  progress.snapshotSent(8, false);
  assertEquals(progress.next, 1);
});

Deno.test("Progress leaves the snapshot state when it arrives before the report", () => {
  const progress = probing(3);
  progress.becomeSnapshot();
  assert(progress.acknowledged(7));
  assertEquals(progress.state, "snapshot");
  progress.caughtUp();
  assertEquals([progress.state, progress.next], ["replicate", 8]);
  progress.snapshotSent(7, true);
  assertEquals(progress.state, "replicate");
});
