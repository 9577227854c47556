/**
 * Who is taken in and who may vote: what a leader proposes of its own accord.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { type Comer, invitationOf, joining, promotable } from "../admission.ts";
import { changeConfiguration, simpleConfiguration } from "../members.ts";
import type { Configuration, MemberId } from "../message.ts";

const THREE = simpleConfiguration(["node1", "node2", "node3"]);

function from(member: MemberId, address = ""): Comer {
  return { member, address };
}

Deno.test("admission: a node that lost its disk takes its own old place, and no other", () => {
  assertEquals(joining(THREE, from("node3/7f3a")), {
    addLearners: ["node3/7f3a"],
    remove: ["node3"],
  });
  assertEquals(joining(THREE, from("node3")), null, "it is a member");
  assertEquals(joining(THREE, from("node4/7f3a")), null, "nobody expects it");
  const without = simpleConfiguration(["node1", "node2"]);
  assertEquals(joining(without, from("node3/7f3a")), null, "it was removed");
  const joint = changeConfiguration(THREE, { remove: ["node2"] });
  assertEquals(
    joining(joint, from("node3/7f3a")),
    null,
    "one change at a time",
  );
});

Deno.test("admission: who was invited to listen goes on listening when it comes", () => {
  const invited = "node4/invited";
  const voting = changeConfiguration(THREE, { addLearners: [invited] });
  assertEquals(joining(voting, from("node4/7f3a")), {
    addLearners: ["node4/7f3a"],
    remove: [invited],
  });
  const listening = changeConfiguration(THREE, {
    addLearners: [invited],
    hold: [invited],
  });
  const change = joining(listening, from("node4/7f3a"));
  assertEquals(change, {
    addLearners: ["node4/7f3a"],
    remove: [invited],
    hold: ["node4/7f3a"],
  });
  const come = changeConfiguration(listening, change!);
  assertEquals(come.learners, ["node4/7f3a"]);
  assertEquals(come.learnersHeld, ["node4/7f3a"]);
});

const UNNAMED = "127.0.0.1:54/invited";
const ADDRESS = "127.0.0.1:54";

Deno.test("admission: who is known by its address alone is taken in under the name that it tells", () => {
  const expecting = changeConfiguration(THREE, {
    addLearners: [UNNAMED],
    hold: [UNNAMED],
    places: [{ member: UNNAMED, address: ADDRESS }],
  });
  assertEquals(joining(expecting, from("node4/7f3a")), null, "from nowhere");
  assertEquals(joining(expecting, from("node4/7f3a", "127.0.0.1:55")), null);
  assertEquals(invitationOf(expecting, "localhost:54")?.member, UNNAMED);
  const change = joining(expecting, from("node4/7f3a", "localhost:54"));
  assertEquals(change, {
    addLearners: ["node4/7f3a"],
    remove: [UNNAMED],
    hold: ["node4/7f3a"],
    places: [{
      member: "node4/7f3a",
      address: ADDRESS,
      invitedAs: "127.0.0.1:54",
    }],
  });
  const come = changeConfiguration(expecting, change!);
  assertEquals(come.places, change!.places);
  assertEquals(joining(come, from("node5/aa", ADDRESS)), null, "taken");
  // It loses its disk: still at that place, and still known to clients by the same number.
  const again = joining(come, from("node4/bb"));
  assertEquals(again?.places, [{
    member: "node4/bb",
    address: ADDRESS,
    invitedAs: "127.0.0.1:54",
  }]);
});

Deno.test("admission: an invitation by address is not for who has a place already", () => {
  const moved = changeConfiguration(THREE, {
    addLearners: [UNNAMED],
    places: [{ member: UNNAMED, address: ADDRESS }, {
      member: "node3",
      address: "127.0.0.1:33",
    }],
  });
  assertEquals(joining(moved, from("node3/7f3a", ADDRESS)), {
    addLearners: ["node3/7f3a"],
    remove: ["node3"],
    places: [{ member: "node3/7f3a", address: "127.0.0.1:33" }],
  });
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
