/**
 * Every subcommand of etcdctl 3.4 that speaks to a server, and why some are left out. Used by
 * `tests/etcdctl_test.ts`.
 *
 * @module
 */

import type { CommandLike, Group } from "./ctl.ts";

/** Subcommands that are not compared, each with the reason. */
export const LEFT_OUT: Readonly<Record<string, string>> = {
  "check datascale": "a load test of minutes",
  "check perf": "a load test of minutes",
  "completion bash": "speaks to no server",
  "completion fish": "speaks to no server",
  "completion powershell": "speaks to no server",
  "completion zsh": "speaks to no server",
  "help": "speaks to no server",
  "migrate": "reads the files of an etcd 2 store",
  "snapshot restore": "reads a file, and makes one of etcd's own",
  "snapshot status": "reads a file of etcd's own",
  "make-mirror": "has a test of its own",
  "version": "speaks to no server",
};

/** Each on its own: the order of changes is part of the answers. */
function inTurn(...commands: CommandLike[]): Group[] {
  return commands.map((command) => [command]);
}

/** Numbers that only the server itself can know. */
const SIZES: readonly (readonly [RegExp, string])[] = [
  [/\b\d+\.\d+\.\d+\b/g, "VERSION"],
  [/\b\d+(\.\d+)? [kMG]?B\b/g, "SIZE"],
  [
    /"(dbSize|dbSizeInUse|raftTerm|raftIndex|raftAppliedIndex|hash)":\d+/g,
    '"$1":0',
  ],
  [
    /"(RaftTerm|RaftIndex|RaftAppliedIndex|DBSize|DBSizeInUse|Hash)" : \d+/g,
    '"$1" : 0',
  ],
];

function sizeless(text: string): string {
  return SIZES.reduce(
    (rest, [regexp, otherwise]) => rest.replace(regexp, otherwise),
    text,
  );
}

/** `ADDRESS, ID, VERSION, SIZE, true, false, 2, 4, 4, ` and the same as a table. */
function statusless(text: string): string {
  return sizeless(text)
    .replace(/(true|false), (true|false), \d+, \d+, \d+,/g, "$1, $2, N, N, N,")
    .replace(/[-+]{8,}/g, "---")
    .replace(/\| +(true|false) \|(.*)$/gm, "| $1 | …")
    .replace(/ +/g, " ");
}

function tableless(text: string): string {
  return text.replace(/[-+]{8,}/g, "---").replace(/ +/g, " ");
}

function hashless(text: string): string {
  return sizeless(text).replace(/ADDRESS, \d+/g, "ADDRESS, HASH")
    .replace(/\| +\d+ \|/g, "| HASH |").replace(/[-+]{8,}/g, "---")
    .replace(/ +/g, " ");
}

/** Keys, in every form of output. */
const KEYS: readonly Group[] = [
  ...inTurn("put a 1", "put b 2", "put c 3", "put dir/x x", "put dir/y y"),
  ...inTurn(
    "put a 10 --prev-kv",
    { args: "put stdin", input: "from stdin" },
    "put a --ignore-lease 11",
    "put b --ignore-value",
    "put a 12 -w json",
    "put b 20 --prev-kv -w fields",
  ),
  [
    "put missing --ignore-value",
    "put a --ignore-value 3",
    { args: ["put", "", "x"] },
  ],
  ["put c 30 --lease=123", "put c 30 --lease=zz", "put", "get"],
  [{ args: ["put", "--", "-dash", "-value"] }],
  [
    "get a",
    "get missing",
    "get a c",
    "get a --print-value-only",
    "get dir/ --prefix",
    "get --prefix dir/ --keys-only",
    "get b --from-key",
    "get b --from-key --limit=2",
    { args: ["get", "", "--prefix"] },
    { args: ["get", "", "--from-key"] },
    { args: ["get", "", "--prefix", "--limit=1", "-w", "json"] },
    "get a --hex",
    "get a --hex --print-value-only",
    "get dir/ --prefix -w json",
    "get dir/ --prefix -w fields",
    "get dir/ --prefix -w simple",
    "get dir/ --prefix -w table",
    "get a --consistency=s",
    "get a --consistency=l",
    "get a --consistency=x",
    "get a --rev=1000000",
    "get a --prefix --from-key",
    "get a z --prefix",
    "get z a",
  ],
  [
    ...["ASCEND", "DESCEND"].flatMap((order) =>
      ["CREATE", "KEY", "MODIFY", "VALUE", "VERSION"].map((target) => ({
        args: ["get", "", "--prefix", `--order=${order}`, `--sort-by=${target}`]
          .concat("-w", "json"),
      }))
    ),
    "get a --order=X",
    "get a --sort-by=X",
  ],
];

const DELETES: readonly Group[] = [
  ...inTurn("put d1 1", "put d2 2", "put d3 3", "put e1 1", "put z1 1"),
  ...inTurn("put z2 2", "del d1", "del missing"),
  ["del --prefix d --prev-kv"],
  ["del e1 e2 -w json"],
  ["del z --from-key --prev-kv -w fields"],
  ["del z a", "del", "del a b --prefix"],
];

function txn(input: string, ...args: string[]): Group {
  return [{ args: ["txn", ...args], input }];
}

const TRANSACTIONS: readonly Group[] = [
  txn('mod("a") > "0"\n\nput a txn\nget a\n\nput b never\n\n'),
  txn('val("a") = "txn"\nver("a") > "0"\n\nget a\ndel b\n\n\n', "-w", "json"),
  txn('create("a") = "0"\n\nput a 0\n\nget a\nput b again\n\n', "-w", "fields"),
  txn('val("a") < "x"\n\nput q 1\n\n\n', "-i"),
  txn("\nput a 1\nput a 2\n\n\n"),
  txn("nonsense\n\n\n\n"),
  txn("\nnonsense\n\n\n"),
];

/** `$rev` is the revision before the changes that are watched. */
const WATCHES: readonly Group[] = [
  [{ args: "get w -w json", capture: ["rev", /"revision":(\d+)/] }],
  ["put w/1 one"],
  ["put w/1 two"],
  ["put w/2 three"],
  ["del w/1"],
  [
    { args: "watch w/ --prefix --rev=$rev", untilLines: 12 },
    { args: "watch w/1 --rev=$rev", untilLines: 9 },
    { args: "watch w/1 w/3 --rev=$rev --prev-kv", untilLines: 16 },
    { args: "watch w/ --prefix --rev=$rev -w json", untilLines: 1 },
    { args: "watch w/ --prefix --rev=$rev -w fields", untilLines: 32 },
    {
      args: "watch -i",
      input: "watch w/ --prefix --rev=$rev\n",
      untilLines: 12,
    },
    {
      args: ["watch", "w/2", "--rev=$rev", "--", "sh", "-c"].concat(
        "echo $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE",
      ),
      untilLines: 4,
    },
    { args: "watch" },
  ],
];

const LEASES: readonly Group[] = [
  [{ args: "lease grant 300", capture: ["lease", /lease (\w+) granted/] }],
  ...inTurn("put l1 1 --lease=$lease", "put l2 2 --lease=$lease"),
  [
    "lease timetolive $lease",
    "lease timetolive $lease --keys",
    {
      args: "lease timetolive $lease --keys -w json",
      // In the order of a hash table.
      normalise: (text) => text.replace(/"bD[EI]="/g, '"KEY"'),
    },
    "lease timetolive 123abc",
    "lease keep-alive --once $lease",
    "lease keep-alive --once $lease -w json",
    "lease keep-alive --once 123abc",
    { args: "lease keep-alive $lease", untilLines: 1 },
    "lease list",
    "lease list -w json",
    "get l --prefix",
    { args: "get l1 -w json" },
    { args: "get l1 -w fields" },
  ],
  ["lease revoke $lease", "lease revoke 123abc", "lease revoke zz"],
  ["get l --prefix", "lease list", "lease grant", "lease grant x"],
  ["lease grant 9999999999"],
  [{ args: "lease grant 5 -w json", capture: ["lease", /"id":(\d+)/] }],
];

const COORDINATION: readonly Group[] = [
  [{ args: "lock m echo held" }],
  [{ args: "lock m --ttl=20 echo again" }],
  [{ args: "lock m", untilLines: 1 }],
  [{ args: "elect e me", untilLines: 2 }],
  ["get m --prefix --keys-only", "get e --prefix --keys-only"],
];

const MAINTENANCE: readonly Group[] = [
  [
    "alarm list",
    "alarm disarm",
    "defrag",
    "endpoint health",
    {
      args: "endpoint health -w json",
      normalise: (text) => text.replace(/"took":"[^"]*"/, "took"),
    },
    { args: "endpoint status", normalise: statusless },
    { args: "endpoint status -w json", normalise: sizeless },
    { args: "endpoint status -w table", normalise: statusless },
    { args: "endpoint status -w fields", normalise: sizeless },
    { args: "endpoint hashkv", normalise: hashless },
    { args: "endpoint hashkv -w json", normalise: hashless },
    { args: "endpoint hashkv -w table", normalise: hashless },
    { args: "endpoint hashkv --rev=1000000" },
  ],
  ["snapshot save $dir/snapshot.db", "snapshot save"],
  [{ args: "get a -w json", capture: ["rev", /"revision":(\d+)/] }],
  ["compaction $rev"],
  ["compaction $rev", "compaction 1000000", "compaction 1", "compaction"],
  ["get a --rev=1", { args: "watch a --rev=1", untilLines: 1 }],
  ["put a compacted"],
  [{ args: "get a -w json", capture: ["rev", /"revision":(\d+)/] }],
  ["compaction $rev --physical"],
  ["get a --rev=$rev", "get a -w json"],
];

/**
 * Who is there, what is refused, and a learner that never comes: it is added, moves and is removed. What
 * follows when one does come has tests of its own.
 */
const MEMBERS: readonly Group[] = [
  [
    { args: "member list", capture: ["member", /^(\w+),/] },
    "member list -w json",
    "member list -w fields",
    { args: "member list -w table", normalise: tableless },
  ],
  // Changes of members that meet each other make etcd wait in vain.
  ...inTurn(
    "member remove 1234",
    "member update 1234 --peer-urls=http://127.0.0.1:1",
    "member promote 1234",
    "member promote $member",
    "move-leader 1234",
    "move-leader $member",
    "member remove zz",
    "member add",
    "member add x --peer-urls=nonsense",
    "member update $member --peer-urls=nonsense",
    {
      args: "member add x --learner --peer-urls=http://127.0.0.1:9",
      capture: ["added", /^Member +(\w+) added/],
    },
    "member list",
    "member promote $added",
    "member update $member --peer-urls=http://127.0.0.1:9",
    // Afterwards etcd's list calls it no learner any more.
    "member update $added --peer-urls=http://127.0.0.1:10",
    "member remove $added",
    "member remove $added",
    "member update $member --peer-urls=http://127.0.0.1:11",
    "member list",
  ),
];

/**
 * Users and roles without authentication. There is no user `root`, so that nothing switches it on:
 * see `etcd_users_test.ts`.
 */
const AUTHENTICATION: readonly Group[] = [
  [
    "user list",
    "role list",
    "user get nobody",
    "role get nobody",
    "user delete nobody",
    "role delete nobody",
    "user grant-role nobody norole",
    "user revoke-role nobody norole",
    "role grant-permission norole read a",
    "role revoke-permission norole a",
    { args: "user passwd nobody --interactive=false", input: "x\n" },
    "auth enable",
    "auth disable",
    "--user=nobody:x get a",
  ],
  ...inTurn(
    "user add ann:secret",
    "user add ann:again",
    "user add :x",
    "user add",
    { args: "user add bob --interactive=false", input: "secret\n" },
    "user add nil --no-password",
    "user add zoë:x -w json",
    "user list",
    "user list -w json",
    { args: "user passwd ann --interactive=false", input: "new\n" },
    "role add reader",
    "role add reader",
    "role add writer -w json",
    "role add",
    { args: ["role", "add", ""] },
    "role list",
    "role list -w fields",
  ),
  ...inTurn(
    "role grant-permission reader read a",
    "role grant-permission reader read b c",
    "role grant-permission reader write b c",
    "role grant-permission reader --prefix read dir/",
    "role grant-permission reader --from-key readwrite x",
    {
      args: "role grant-permission reader --prefix readwrite".split(" ").concat(
        "",
      ),
    },
    "role grant-permission reader fly a",
    "role grant-permission norole read a",
    "role get reader",
    "role get reader -w json",
    "role get reader -w fields",
    "role revoke-permission reader a",
    "role revoke-permission reader a",
    "role revoke-permission reader b",
    "role revoke-permission reader b c",
    "role revoke-permission reader --prefix dir/",
    "role revoke-permission reader x --from-key",
    "role get reader",
  ),
  ...inTurn(
    "user grant-role ann norole",
    "user grant-role ann writer",
    "user grant-role ann reader",
    "user grant-role ann reader",
    "user grant-role bob reader",
    "user grant-role bob root",
    "user grant-role",
    "user get ann",
    "user get ann --detail",
    "user get ann -w json",
    "user get bob",
    "role delete reader",
    "user get ann",
    "user revoke-role ann reader",
    "user revoke-role ann writer",
    "user revoke-role bob root -w json",
    "auth enable",
    "role add root",
    "role get root",
    "auth enable -w json",
    "auth disable",
    "user delete bob",
    "user delete bob",
    "user delete nil -w json",
    "role delete root",
    "user list",
    "role list",
  ),
];

/** All commands; one group is done before the next begins. */
export const COMMANDS: readonly Group[] = [
  ...KEYS,
  ...DELETES,
  ...TRANSACTIONS,
  ...WATCHES,
  ...LEASES,
  ...COORDINATION,
  ...MAINTENANCE,
  ...MEMBERS,
  ...AUTHENTICATION,
];
