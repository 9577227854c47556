/**
 * Who is taken in and who may vote: what a leader proposes of its own accord.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { joining, promotable } from "../admission.ts";
import { changeConfiguration, simpleConfiguration } from "../members.ts";
import type { Configuration, MemberId } from "../message.ts";

const THREE = simpleConfiguration(["node1", "node2", "node3"]);

Deno.test("admission: a node that lost its disk takes its own old place, and no other", () => {
  assertEquals(joining(THREE, "node3/7f3a"), {
    addLearners: ["node3/7f3a"],
    remove: ["node3"],
  });
  assertEquals(joining(THREE, "node3"), null, "it is a member");
  assertEquals(joining(THREE, "node4/7f3a"), null, "nobody expects it");
  const without = simpleConfiguration(["node1", "node2"]);
  assertEquals(joining(without, "node3/7f3a"), null, "it was removed");
  const joint = changeConfiguration(THREE, { remove: ["node2"] });
  assertEquals(joining(joint, "node3/7f3a"), null, "one change at a time");
});

Deno.test("admission: who was invited to listen goes on listening when it comes", () => {
  const invited = "node4/invited";
  const voting = changeConfiguration(THREE, { addLearners: [invited] });
  assertEquals(joining(voting, "node4/7f3a"), {
    addLearners: ["node4/7f3a"],
    remove: [invited],
  });
  const listening = changeConfiguration(THREE, {
    addLearners: [invited],
    hold: [invited],
  });
  const change = joining(listening, "node4/7f3a");
  assertEquals(change, {
    addLearners: ["node4/7f3a"],
    remove: [invited],
    hold: ["node4/7f3a"],
  });
  const come = changeConfiguration(listening, change!);
  assertEquals(come.learners, ["node4/7f3a"]);
  assertEquals(come.learnersHeld, ["node4/7f3a"]);
});

/** Which learners of the configuration are promoted when they have received so many of 5000 entries. */
function promoted(configuration: Configuration, match: number): MemberId[] {
  const one = { match, state: "replicate", active: true } as const;
  return promotable(
    {
      configuration,
      lastIndex: 5000,
      progress: () =>
        new Map(
          configuration.learners.map((id) => [id, { ...one, next: match }]),
        ),
    } as unknown as Parameters<typeof promotable>[0],
  );
}

Deno.test("admission: a learner votes when it has caught up, has come and is not held back", () => {
  const learner = changeConfiguration(THREE, { addLearners: ["node4/7f3a"] });
  assertEquals(promoted(learner, 5000), ["node4/7f3a"]);
  assertEquals(promoted(learner, 10), []);
  const invited = changeConfiguration(THREE, {
    addLearners: ["node4/invited"],
  });
  assertEquals(promoted(invited, 5000), []);
  const held = changeConfiguration(THREE, {
    addLearners: ["node4/7f3a"],
    hold: ["node4/7f3a"],
  });
  assertEquals(promoted(held, 5000), []);
  const byName = changeConfiguration(held, { promote: ["node4/7f3a"] });
  assertEquals(byName.voters, ["node1", "node2", "node3", "node4/7f3a"]);
  assertEquals(byName.learnersHeld, undefined);
});
