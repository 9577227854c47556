/**
 * Every way to get `config/nodes.json` wrong, with the line it ends in.
 *
 * @module
 */

import {
  assert,
  assertEquals,
  assertMatch,
  assertNotEquals,
  assertThrows,
} from "@std/assert";
import {
  type Config,
  defaultSettings,
  fingerprint,
  isAddress,
  isSameAddress,
  LIMITS,
  nodeOf,
  parseConfig,
  readConfig,
  SETTINGS,
} from "../config.ts";
import { DkvError } from "../errors.ts";
import { needs, tempDir } from "./needs.ts";

const PATH = "config/nodes.json";

function nodes(count: number): { id: string; address: string }[] {
  return Array.from({ length: count }, (_, at) => ({
    id: `node${at + 1}`,
    address: `127.0.0.1:${50051 + at}`,
  }));
}

/** A good file with one part replaced. */
function file(part: Record<string, unknown> = {}): string {
  return JSON.stringify({ cluster: "dkv", nodes: nodes(3), ...part });
}

function parse(part: Record<string, unknown> = {}): Config {
  return parseConfig(file(part), PATH);
}

/** The line a text ends in. */
function lineOf(text: string): string {
  const error = assertThrows(() => parseConfig(text, PATH), DkvError);
  assertEquals(error.code, "CONFIG_INVALID");
  assertEquals(error.message.includes("\n"), false);
  return error.message;
}

/** Checks many parts, each with the line it ends in (after the path). */
function assertLines(cases: [Record<string, unknown>, string][]): void {
  for (const [part, line] of cases) {
    assertEquals(lineOf(file(part)), `${PATH}: ${line}`);
  }
}

Deno.test("config: a good file gives nodes, settings and no notice", () => {
  const config = parse({ settings: { tickMs: 20, requestTimeoutMs: 1000 } });
  assertEquals(config.cluster, "dkv");
  assertEquals(config.nodes[1], {
    id: "node2",
    address: "127.0.0.1:50052",
    host: "127.0.0.1",
    port: 50052,
    http: null,
  });
  assertEquals(config.settings, {
    ...defaultSettings(),
    tickMs: 20,
    requestTimeoutMs: 1000,
  });
  assertEquals(config.notices, []);
});

Deno.test("config: hosts may be names and IPv6 addresses in brackets", () => {
  const config = parse({
    nodes: [{ id: "a", address: "db-1.example.org:1" }, {
      id: "b",
      address: "[fe80::1]:65535",
    }, { id: "c", address: "localhost:7" }],
  });
  assertEquals(config.nodes.map((node) => [node.host, node.port]), [
    ["db-1.example.org", 1],
    ["fe80::1", 65535],
    ["localhost", 7],
  ]);
});

Deno.test("config: what is not JSON is refused in one line", () => {
  assertMatch(lineOf(""), /^config\/nodes\.json: not JSON: /);
  assertMatch(
    lineOf('{\n  "cluster": x\n}'),
    /^config\/nodes\.json: not JSON: /,
  );
  assertEquals(parseConfig(`\uFEFF${file()}`, PATH).cluster, "dkv");
});

Deno.test("config: what is not an object of known fields is refused", () => {
  assertEquals(lineOf("[]"), `${PATH}: expected an object, found []`);
  assertEquals(lineOf("null"), `${PATH}: expected an object, found null`);
  assertEquals(lineOf("{}"), `${PATH}: cluster: missing`);
  assertEquals(lineOf('{"cluster": "dkv"}'), `${PATH}: nodes: missing`);
  assertLines([
    [
      { nods: [] },
      "nods: unknown field, known: cluster, nodes, settings, kvConnect",
    ],
    [
      { nodes: [{ id: "a", address: "h:1", port: 1 }] },
      "nodes[0].port: unknown field, known: id, address, http",
    ],
    [{ nodes: [{ id: "a" }] }, "nodes[0].address: missing"],
    [{ nodes: ["a"] }, 'nodes[0]: expected an object, found "a"'],
    [{ settings: [] }, "settings: expected an object, found []"],
    [{ settings: null }, "settings: expected an object, found null"],
  ]);
  assertMatch(
    lineOf(file({ settings: { tickMillis: 50 } })),
    /: settings\.tickMillis: unknown field, known: tickMs, /,
  );
  assertMatch(
    lineOf(file({ settings: { "a\nb": 50 } })),
    /: settings\."a\\nb": unknown field, /,
  );
});

Deno.test("config: __proto__ and constructor are unknown fields at every level", () => {
  for (const name of ["__proto__", "constructor"]) {
    const field = `"${name}": {"tickMs": 20}`;
    const good = file().slice(0, -1);
    assertMatch(lineOf(`${good}, ${field}}`), new RegExp(`: ${name}: unknown`));
    assertMatch(
      lineOf(`${good}, "settings": {${field}}}`),
      new RegExp(`: settings\\.${name}: unknown`),
    );
    assertMatch(
      lineOf(
        `{"cluster": "c", "nodes": [{"id": "a", "address": "h:1", ${field}}]}`,
      ),
      new RegExp(`: nodes\\[0\\]\\.${name}: unknown`),
    );
  }
});

Deno.test("config: names are short and of few characters", () => {
  const long = "a".repeat(LIMITS.nameCharactersMax + 1);
  const rule =
    "is not a name, expected a letter or a digit and then any of a-z 0-9 . _ -";
  assertLines([
    [{ cluster: 5 }, "cluster: expected a text, found 5"],
    [{ cluster: "" }, `cluster: "" ${rule}`],
    [{ cluster: "Dkv" }, `cluster: "Dkv" ${rule}`],
    [{ cluster: long }, "cluster: 65 characters, expected 1 to 64"],
    [{ nodes: [{ id: "..", address: "h:1" }] }, `nodes[0].id: ".." ${rule}`],
    [{ nodes: [{ id: "a/b", address: "h:1" }] }, `nodes[0].id: "a/b" ${rule}`],
    [
      { nodes: [{ id: "a\nb", address: "h:1" }] },
      `nodes[0].id: "a\\nb" ${rule}`,
    ],
    [
      { nodes: [{ id: 1, address: "h:1" }] },
      "nodes[0].id: expected a text, found 1",
    ],
    [
      { nodes: [{ id: long, address: "h:1" }] },
      "nodes[0].id: 65 characters, expected 1 to 64",
    ],
  ]);
  assertEquals(parse({ cluster: long.slice(1) }).cluster.length, 64);
});

Deno.test("config: the list of nodes has 1 to 7", () => {
  assertLines([
    [{ nodes: {} }, "nodes: expected a list, found {}"],
    [{ nodes: [] }, "nodes: empty, expected at least 1"],
    [{ nodes: nodes(8) }, "nodes: 8, expected at most 7"],
  ]);
  assertEquals(parse({ nodes: nodes(7) }).nodes.length, 7);
});

Deno.test("config: duplicate ids and addresses are refused", () => {
  const pair = (a: string, b: string) => ({
    nodes: [{ id: "a", address: a }, { id: "b", address: b }],
  });
  assertLines([
    [
      { nodes: [{ id: "a", address: "h:1" }, { id: "a", address: "h:2" }] },
      'nodes[1].id: "a" is already nodes[0].id',
    ],
    [pair("h:1", "h:1"), 'nodes[1].address: "h:1" is already nodes[0].address'],
    [
      pair("h:1", "H:01"),
      'nodes[1].address: "H:01" is already nodes[0].address',
    ],
    [
      pair("localhost:1", "127.0.0.1:1"),
      'nodes[1].address: "127.0.0.1:1" is already nodes[0].address',
    ],
    [
      pair("127.0.0.1:1", "[::1]:1"),
      'nodes[1].address: "[::1]:1" is already nodes[0].address',
    ],
  ]);
});

Deno.test("config: unusable addresses are refused", () => {
  const cases: [unknown, string][] = [
    [50051, "expected a text, found 50051"],
    ["localhost", '"localhost" has no port, expected host:port'],
    [":50051", '":50051" has no host, expected host:port'],
    ["h:", 'port "" is not a number, expected 1 to 65535'],
    ["h:http", 'port "http" is not a number, expected 1 to 65535'],
    ["h:-1", 'port "-1" is not a number, expected 1 to 65535'],
    ["h:1.5", 'port "1.5" is not a number, expected 1 to 65535'],
    ["h:0x10", 'port "0x10" is not a number, expected 1 to 65535'],
    ["h:0", "port 0 is out of range, expected 1 to 65535"],
    ["h:65536", "port 65536 is out of range, expected 1 to 65535"],
    ["h:70000", "port 70000 is out of range, expected 1 to 65535"],
    ["0.0.0.0:1", '"0.0.0.0" is no address that other nodes can reach'],
    ["[::]:1", '"[::]" is no address that other nodes can reach'],
  ];
  for (const [address, line] of cases) {
    assertEquals(
      lineOf(file({ nodes: [{ id: "a", address }] })),
      `${PATH}: nodes[0].address: ${line}`,
    );
  }
  for (const host of ["a b", "::1", "http://h", "h/", "-h", "h,g", "é"]) {
    assertMatch(
      lineOf(file({ nodes: [{ id: "a", address: `${host}:1` }] })),
      /: nodes\[0\]\.address: ".+" is not a host, expected a name, an IPv4/,
    );
  }
});

Deno.test("config: every setting has bounds and its default lies within", () => {
  for (
    const [name, { default: fallback, min, max }] of Object.entries(SETTINGS)
  ) {
    assertEquals(min <= fallback && fallback <= max, true, name);
    for (
      const [value, line] of [
        [min - 1, `${min - 1} is out of range, expected ${min} to ${max}`],
        [max + 1, `${max + 1} is out of range, expected ${min} to ${max}`],
        [min + 0.5, `expected a whole number, found ${min + 0.5}`],
        ["5", 'expected a whole number, found "5"'],
        [null, "expected a whole number, found null"],
      ]
    ) {
      assertLines([[
        { settings: { [name]: value } },
        `settings.${name}: ${line}`,
      ]]);
    }
  }
  assertEquals(parse({ settings: {} }).settings, defaultSettings());
  assertEquals(parse().settings, defaultSettings());
});

Deno.test("config: settings that contradict each other are refused", () => {
  const cases: [Record<string, number>, RegExp][] = [
    [
      { heartbeatTicks: 3 },
      /: settings\.electionTicksMin: 10 is too small, expected at least 12: 4 times/,
    ],
    [
      { requestTimeoutMs: 1999 },
      /: settings\.requestTimeoutMs: 1999 is too small, expected at least 2000: 4 times/,
    ],
  ];
  for (const [settings, line] of cases) {
    assertMatch(lineOf(file({ settings })), line);
  }
  parse({ settings: { electionTicksMin: 8, requestTimeoutMs: 1600 } });
});

Deno.test("config: a leader that died is replaced well within two seconds by default", () => {
  const { tickMs, electionTicksMin } = defaultSettings();
  // A round that ends without a winner included.
  assertEquals(4 * electionTicksMin * tickMs <= 2000, true);
});

Deno.test("config: even and single node counts are said", () => {
  const notices = (count: number) => parse({ nodes: nodes(count) }).notices;
  assertEquals(notices(1), [
    "1 node tolerates no failure: while it is down, nothing is served",
  ]);
  assertEquals(notices(2), [
    "2 nodes tolerate no failure, as 1 does; 3 would tolerate 1 failure",
  ]);
  assertEquals(notices(4), [
    "4 nodes tolerate 1 failure, as 3 do; 5 would tolerate 2 failures",
  ]);
  assertEquals(notices(6), [
    "6 nodes tolerate 2 failures, as 5 do; 7 would tolerate 3 failures",
  ]);
  for (const count of [3, 5, 7]) assertEquals(notices(count), []);
});

Deno.test("config: an id that is not in the list is refused with those that are", () => {
  const config = parse();
  assertEquals(nodeOf(config, "node3").port, 50053);
  const error = assertThrows(() => nodeOf(config, "node4"), DkvError);
  assertEquals(error.code, "CONFIG_INVALID");
  assertEquals(
    error.message,
    `${PATH}: nodes: no node has the id "node4", known: node1, node2, node3`,
  );
});

Deno.test("config: the fingerprint is the cluster's name and its ids, not its addresses", () => {
  const ids = ["node1", "node2", "node3"];
  const three = fingerprint("dkv", ids);
  assertMatch(three, /^[0-9a-f]{64}$/);
  assertEquals(fingerprint("dkv", ids.toReversed()), three);
  assertNotEquals(fingerprint("other", ids), three);
  assertNotEquals(fingerprint("dkv", ids.slice(1)), three);
});

Deno.test("config: addresses outside of the file are held to the same rules", () => {
  for (const good of ["127.0.0.1:1", "[::1]:65535", "a-b.example:50051"]) {
    assert(isAddress(good), good);
  }
  for (
    const bad of ["", "host", ":1", "h:0", "h:65536", "0.0.0.0:1", "a b:1"]
  ) {
    assert(!isAddress(bad), bad);
  }
  assert(isSameAddress("localhost:1", "127.0.0.1:1"));
  assert(isSameAddress("Host.:1", "host:1"));
  assert(!isSameAddress("host:1", "host:2"));
  assert(!isSameAddress("", "host:2"));
});

Deno.test("config: limits fit into each other", () => {
  const requestBytesMax = SETTINGS.requestBytesMax;
  const fits: [string, number, number][] = [
    [
      "a largest key and value in the smallest request",
      LIMITS.keyBytesMax + LIMITS.valueBytesMax,
      requestBytesMax.min,
    ],
    [
      "an append with the largest entry in a frame",
      LIMITS.appendBytesMax + LIMITS.batchBytesMax + requestBytesMax.max,
      LIMITS.peerFrameBytesMax,
    ],
    ["a frame in flight", LIMITS.peerFrameBytesMax, LIMITS.peerUnackedBytesMax],
    [
      "a snapshot chunk in a frame",
      LIMITS.snapshotChunkBytes,
      LIMITS.peerFrameBytesMax,
    ],
    [
      "the uncommitted tail in the log",
      LIMITS.uncommittedBytesMax,
      LIMITS.logBytesMax,
    ],
    [
      "the largest request in a pipeline",
      requestBytesMax.max,
      LIMITS.pipelineInFlightBytesMax,
    ],
    [
      "a pipeline in the pending writes",
      LIMITS.pipelineInFlightBytesMax,
      LIMITS.pendingProposalBytesMax,
    ],
    [
      "a page of a list in a response",
      LIMITS.listPageBytes + requestBytesMax.min,
      LIMITS.responseBytesMax,
    ],
  ];
  for (const [what, inner, outer] of fits) {
    assertEquals(inner <= outer, true, `${what}: ${inner} and ${outer}`);
  }
});

needs(["read"], "config: the file in the repository is good", () => {
  const path = decodeURIComponent(
    new URL("../config/nodes.json", import.meta.url).pathname,
  );
  const config = readConfig(path);
  assertEquals(config.nodes.map((node) => `${node.id} ${node.address}`), [
    "node1 127.0.0.1:50051",
    "node2 127.0.0.1:50052",
    "node3 127.0.0.1:50053",
  ]);
  assertEquals(config.settings, defaultSettings());
});

needs(
  ["read", "write"],
  "config: files that cannot be read are refused",
  async () => {
    await using dir = await tempDir();
    const line = (path: string) => {
      const error = assertThrows(() => readConfig(path), DkvError);
      assertEquals(error.code, "CONFIG_INVALID");
      return error.message;
    };
    assertEquals(
      line(`${dir.path}/none.json`),
      `${dir.path}/none.json: no such file`,
    );
    assertEquals(line(dir.path), `${dir.path}: is a directory`);
    const large = `${dir.path}/large.json`;
    await Deno.writeTextFile(large, " ".repeat(LIMITS.configBytesMax + 1));
    assertEquals(line(large), `${large}: 65537 bytes, at most 65536`);
  },
);
