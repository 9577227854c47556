import { assert, assertEquals, assertThrows } from "@std/assert";
import { DkvError } from "../errors.ts";
import {
  changeConfiguration,
  committedIndex,
  ConfigurationHistory,
  hasQuorum,
  isJoint,
  leaveJoint,
  MEMBERS_MAX,
  membersOf,
  placeOf,
  simpleConfiguration,
  voteResult,
} from "../members.ts";
import type {
  Configuration,
  ConfigurationChange,
  MemberId,
} from "../message.ts";

const abc = simpleConfiguration(["c", "a", "b"], ["l"]);

/** {b c d} and {a b c} must agree. */
const joint: Configuration = {
  voters: ["b", "c", "d"],
  votersOutgoing: ["a", "b", "c"],
  learners: [],
  learnersNext: ["a"],
};

function matches(text: string): (id: MemberId) => number {
  const of = new Map(
    text.split(" ").map((part) => {
      const [id = "", index] = part.split("=");
      return [id, Number(index)];
    }),
  );
  return (id) => of.get(id) ?? 0;
}

function votes(text: string): Map<MemberId, boolean> {
  return new Map(
    text.split(" ").filter(Boolean).map((v) => [v[1]!, v[0] === "+"]),
  );
}

Deno.test("committedIndex is what more than half have", () => {
  for (
    const [voters, text, expected] of [
      ["a", "a=5", 5],
      ["a b", "a=5 b=3", 3],
      ["a b c", "a=5 b=3 c=1", 3],
      ["a b c", "a=5 b=5 c=1", 5],
      ["a b c", "a=5", 0],
      ["a b c d", "a=9 b=8 c=2 d=1", 2],
      ["a b c d e", "a=9 b=8 c=7 d=1 e=1", 7],
    ] as const
  ) {
    const configuration = simpleConfiguration(voters.split(" "));
    assertEquals(committedIndex(configuration, matches(text)), expected, text);
  }
});

Deno.test("committedIndex against counting by hand", () => {
  for (let seed = 0; seed < 2000; seed += 1) {
    const count = 1 + seed % 7;
    const voters = Array.from({ length: count }, (_, i) => `${i}`);
    const match = voters.map((_, i) => (seed * (i + 3) * 7919) % 11);
    let expected = 0;
    for (let index = 0; index <= 10; index += 1) {
      if (match.filter((m) => m >= index).length * 2 > count) expected = index;
    }
    const configuration = simpleConfiguration(voters);
    const actual = committedIndex(configuration, (id) => match[Number(id)]!);
    assertEquals(actual, expected, `${match}`);
  }
});

Deno.test("committedIndex of a joint configuration needs both halves", () => {
  assertEquals(committedIndex(joint, matches("b=5 d=5 a=2 c=2")), 2);
  assertEquals(committedIndex(joint, matches("a=5 b=5 c=1 d=1")), 1);
  assertEquals(committedIndex(joint, matches("b=5 c=5")), 5);
});

Deno.test("learners are in no majority", () => {
  assertEquals(committedIndex(abc, matches("a=5 l=5")), 0);
  assertEquals(voteResult(abc, votes("+a +l")), "pending");
});

Deno.test("voteResult is won, lost or pending", () => {
  assertEquals(voteResult(abc, votes("+a")), "pending");
  assertEquals(voteResult(abc, votes("+a -b")), "pending");
  assertEquals(voteResult(abc, votes("+a +b")), "won");
  assertEquals(voteResult(abc, votes("-a -b")), "lost");
  assertEquals(voteResult(joint, votes("+b +d")), "pending");
  assertEquals(voteResult(joint, votes("+b +d -a -c")), "lost");
  assertEquals(voteResult(joint, votes("+b +c")), "won");
});

Deno.test("hasQuorum asks for both halves", () => {
  assert(hasQuorum(joint, (id) => "bc".includes(id)));
  assert(!hasQuorum(joint, (id) => "bd".includes(id)));
});

Deno.test("changeConfiguration of learners alone is not joint", () => {
  const next = changeConfiguration(abc, { addLearners: ["m"], remove: ["l"] });
  assertEquals(next, simpleConfiguration(["a", "b", "c"], ["m"]));
});

Deno.test("changeConfiguration of voters is joint, and leaveJoint ends it", () => {
  const change = { promote: ["l"], remove: ["a"], demote: ["b"] };
  const next = changeConfiguration(abc, change);
  assertEquals(next, {
    voters: ["c", "l"],
    votersOutgoing: ["a", "b", "c"],
    learners: [],
    learnersNext: ["b"],
  });
  assert(isJoint(next));
  assertEquals(membersOf(next), ["a", "b", "c", "l"]);
  assertEquals(leaveJoint(next), simpleConfiguration(["c", "l"], ["b"]));
});

Deno.test("changeConfiguration refuses what makes no sense (M6)", () => {
  const refused: [ConfigurationChange, RegExp][] = [
    [{}, /empty/],
    [{ remove: ["a", "b", "c"] }, /leaves no voter/],
    [{ remove: ["a", "b"], demote: ["c"] }, /leaves no voter/],
    [{ remove: ["x"] }, /x is not a member/],
    [{ promote: ["a"] }, /a is not a learner/],
    [{ demote: ["l"] }, /l is not a voter/],
    [{ addLearners: ["a"] }, /a is a member already/],
    [{ addLearners: ["x", "x"] }, /twice/],
    [{ promote: ["l"], remove: ["l"] }, /twice/],
    [
      { addLearners: Array.from({ length: MEMBERS_MAX }, (_, i) => `n${i}`) },
      /at most 64/,
    ],
  ];
  for (const [change, reason] of refused) {
    const error = assertThrows(
      () => changeConfiguration(abc, change),
      DkvError,
    );
    assertEquals(error.code, "MEMBERSHIP_REFUSED");
    assert(reason.test(error.message), error.message);
  }
});

Deno.test("places come and go with their members, and stay through a joint configuration", () => {
  const at = (member: MemberId, address: string) => ({ member, address });
  const moved = changeConfiguration(abc, {
    places: [at("l", "h:4"), at("b", "h:2")],
  });
  assertEquals(moved, { ...abc, places: [at("b", "h:2"), at("l", "h:4")] });
  assertEquals(placeOf(moved, "b"), at("b", "h:2"));
  assertEquals(placeOf(moved, "a"), undefined);
  const replaced = changeConfiguration(moved, {
    addLearners: ["n"],
    remove: ["b"],
    places: [at("n", "h:2"), at("l", "h:5")],
  });
  // Who leaves must still be reached until that is agreed on.
  const places = [at("b", "h:2"), at("l", "h:5"), at("n", "h:2")];
  assertEquals(replaced.places, places);
  assertEquals(leaveJoint(replaced).places, places.slice(1));
  const none = changeConfiguration(leaveJoint(replaced), {
    remove: ["l", "n"],
  });
  assertEquals(none, simpleConfiguration(["a", "c"]));
});

Deno.test("places that make no sense are refused", () => {
  const current = changeConfiguration(abc, {
    places: [{ member: "a", address: "h:1" }],
  });
  const refused: [ConfigurationChange, RegExp][] = [
    [{ places: [{ member: "b", address: "h:1" }] }, /a is at h:1/],
    [{ places: [{ member: "b", address: "H.:1" }] }, /a is at H.:1/],
    [{ places: [{ member: "x", address: "h:2" }] }, /x is not a member/],
    [
      { remove: ["b"], places: [{ member: "b", address: "h:2" }] },
      /b is not a member/,
    ],
    [
      {
        places: [
          { member: "b", address: "h:2" },
          { member: "b", address: "h:3" },
        ],
      },
      /twice/,
    ],
    [
      {
        places: [
          { member: "b", address: "h:2" },
          { member: "c", address: "h:2" },
        ],
      },
      /b is at h:2/,
    ],
  ];
  for (const [change, reason] of refused) {
    const error = assertThrows(
      () => changeConfiguration(current, change),
      DkvError,
    );
    assert(reason.test(error.message), error.message);
  }
});

Deno.test("ConfigurationHistory brings back what a truncation uncovers", () => {
  const history = new ConfigurationHistory({ index: 0, configuration: abc });
  history.push({ index: 5, configuration: joint });
  history.push({ index: 6, configuration: leaveJoint(joint) });
  assert(!history.truncate(7));
  assert(history.truncate(6));
  assertEquals(history.latest.index, 5);
  history.committed(5);
  assertThrows(() => history.truncate(5), Error, "committed configuration");
});

Deno.test("mayCampaign holds until the own removal is committed (M2)", () => {
  const history = new ConfigurationHistory({ index: 2, configuration: joint });
  const configuration = simpleConfiguration(["b", "c", "d"]);
  history.push({ index: 6, configuration });
  assert(history.mayCampaign("a"));
  history.committed(5);
  assert(history.mayCampaign("a"));
  history.committed(6);
  assert(!history.mayCampaign("a"));
  assert(history.mayCampaign("b"));
});
