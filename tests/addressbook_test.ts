/**
 * Where others are: what the configuration of the cluster says counts more than the file.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { AddressBook } from "../addressbook.ts";
import { parseConfig } from "../config.ts";
import type { Hello } from "../frame.ts";
import {
  changeConfiguration,
  MEMBERS_MAX,
  simpleConfiguration,
} from "../members.ts";

const FILE = ["node1", "node2", "node3", "node9"].map((id) => ({
  id,
  address: `127.0.0.1:${id.slice(4)}`,
}));
const { nodes } = parseConfig(
  JSON.stringify({ cluster: "dkv", nodes: FILE }),
  "nodes.json",
);
const THREE = simpleConfiguration(["node1", "node2", "node3"]);
const UNNAMED = "127.0.0.1:4/invited";
/** Somebody is expected from port 4. */
const EXPECTING = changeConfiguration(THREE, {
  addLearners: [UNNAMED],
  places: [{ member: UNNAMED, address: "127.0.0.1:4" }],
});

function hello(nodeId: string, changes: Partial<Hello> = {}): Hello {
  return {
    protocolVersion: 1,
    clusterName: "dkv",
    fingerprint: "",
    clusterId: "",
    nodeId,
    memberId: `${nodeId}/7f3a`,
    incarnation: "7f3a",
    softwareVersion: "",
    address: "127.0.0.1:4",
    ...changes,
  };
}

function entries(book: AddressBook, ...of: Parameters<AddressBook["others"]>) {
  return Object.fromEntries(
    [...book.others(...of)].map(([id, address]) => [id, address.slice(-2)])
      .sort(),
  );
}

Deno.test("addressbook: others are where the cluster was told, or else where the file says", () => {
  const book = new AddressBook("node1", nodes);
  assertEquals(entries(book, [THREE]), {
    node2: ":2",
    node3: ":3",
    node9: ":9",
  });
  const moved = changeConfiguration(THREE, {
    addLearners: ["node4/aa"],
    places: [
      { member: "node1", address: "127.0.0.1:6" },
      { member: "node2", address: "127.0.0.1:7" },
      { member: "node4/aa", address: "127.0.0.1:4" },
    ],
  });
  assertEquals(entries(book, [THREE, moved]), {
    node2: ":7",
    node3: ":3",
    node4: ":4",
    node9: ":9",
  });
  assertEquals(book.addressOf(moved, "node4/aa"), "127.0.0.1:4");
  assertEquals(book.addressOf(THREE, "node4/aa"), undefined);
});

Deno.test("addressbook: who leaves is reached until it is agreed on", () => {
  const book = new AddressBook("node1", nodes);
  const grown = changeConfiguration(THREE, {
    addLearners: ["node4/aa"],
    places: [{ member: "node4/aa", address: "127.0.0.1:4" }],
  });
  const without = changeConfiguration(grown, { remove: ["node4/aa"] });
  assertEquals(entries(book, [grown, without])["node4"], ":4");
  assertEquals(entries(book, [without, without])["node4"], undefined);
});

Deno.test("addressbook: a node of the file yields its address to a member that is there", () => {
  const book = new AddressBook("node1", nodes);
  const moved = changeConfiguration(THREE, {
    places: [{ member: "node2", address: "localhost:9" }],
  });
  assertEquals(entries(book, [moved]), { node2: ":9", node3: ":3" });
});

Deno.test("addressbook: who was invited by address is dialled under the name that it tells", () => {
  const book = new AddressBook("node1", nodes);
  const before = { node2: ":2", node3: ":3", node9: ":9" };
  assertEquals(entries(book, [EXPECTING]), before, "nobody has come");
  const comer = hello("node4", { address: "localhost:4" });
  assert(book.isInvited(EXPECTING, comer));
  assert(book.welcome(EXPECTING, comer));
  assert(!book.welcome(EXPECTING, comer), "it is no news");
  assertEquals(entries(book, [EXPECTING]), { ...before, node4: ":4" });
  // Somebody else comes from there: there is one place.
  assert(book.welcome(EXPECTING, hello("node5")));
  assertEquals(entries(book, [EXPECTING]), { ...before, node5: ":4" });
  assertEquals(entries(book, [THREE]), before, "the invitation is withdrawn");
  assertEquals(entries(book, [EXPECTING]), before, "and was forgotten");
});

Deno.test("addressbook: nobody is invited but who joins, from that address", () => {
  const book = new AddressBook("node1", nodes);
  for (
    const stranger of [
      hello("node4", { address: "127.0.0.1:5" }),
      hello("node4", { address: "" }),
      hello("node4", { memberId: "node4" }),
    ]
  ) {
    assert(!book.isInvited(EXPECTING, stranger));
    assert(!book.welcome(EXPECTING, stranger));
  }
  assert(!book.isInvited(THREE, hello("node4")));
  // Invited by name: no other name may take its place.
  const named = changeConfiguration(THREE, {
    addLearners: ["node9/invited"],
    places: [{ member: "node9/invited", address: "127.0.0.1:4" }],
  });
  assert(!book.isInvited(named, hello("node4")));
});

Deno.test("addressbook: a stranger is dialled until it is gone, or the configuration has it", () => {
  const book = new AddressBook("node1", nodes);
  const before = { node2: ":2", node3: ":3", node9: ":9" };
  const stranger = hello("node4");
  assert(book.meet(stranger));
  assert(!book.meet(stranger), "it is no news");
  assertEquals(entries(book, [THREE]), { ...before, node4: ":4" });
  assert(book.part("node4"));
  assert(!book.part("node4"));
  assertEquals(entries(book, [THREE]), before);
  assert(book.meet(stranger));
  const grown = changeConfiguration(THREE, {
    addLearners: ["node4/7f3a"],
    places: [{ member: "node4/7f3a", address: "127.0.0.1:5" }],
  });
  assertEquals(entries(book, [grown])["node4"], ":5");
  assert(!book.part("node4"), "it was forgotten");
});

Deno.test("addressbook: there are no more strangers than members", () => {
  const book = new AddressBook("node1", nodes);
  for (let i = 0; i < MEMBERS_MAX; i++) assert(book.meet(hello(`far${i}`)));
  assert(!book.meet(hello("far")));
  assert(book.part("far0"));
  assert(book.meet(hello("far")));
});
