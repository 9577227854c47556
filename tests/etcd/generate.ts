/**
 * Random sequences for the differential fuzzer: every call and every option, few keys and few
 * values, so that requests meet each other. Used by `diff.ts`.
 *
 * @module
 */

import { Random } from "../sim/random.ts";
import {
  type Call,
  covers,
  isUserCall,
  KEYS,
  type Request,
  type Step,
} from "./steps.ts";
import { USER_CALLS, userRequest } from "./users.ts";

/** etcd's default for operations in a transaction. */
const TXN_OPERATIONS_MAX = 128;
const TXN_DEPTH_MAX = 3;

/** After all keys. */
const AFTER_KEYS = "\xff\xff";
const VALUES: readonly string[] = ["", "1", "2", "10", "all"];
/** Each with its own time to live, so that their order by time left is clear. */
const LEASE_TTLS: Readonly<Record<string, number>> = {
  "1001": 4000,
  "1002": 3000,
  "1003": 1000,
  "9223372036854775807": 2000,
};
const LEASES: readonly string[] = Object.keys(LEASE_TTLS);
const MISSING_LEASE = "777";
/** Past etcd's longest. */
const TTL_TOO_LARGE = 9_000_000_001;
const SORT_ORDERS = ["NONE", "ASCEND", "DESCEND"];
const SORT_TARGETS = ["KEY", "VERSION", "CREATE", "MOD", "VALUE"];
const COMPARE_RESULTS = ["EQUAL", "GREATER", "LESS", "NOT_EQUAL"];

/** How often each call is made, in shares. */
const CALLS: readonly (readonly [Call, number])[] = [
  ["KV.Range", 26],
  ["KV.Put", 24],
  ["KV.DeleteRange", 8],
  ["KV.Txn", 18],
  ["KV.Compact", 1],
  ["Lease.LeaseGrant", 4],
  ["Lease.LeaseRevoke", 2],
  ["Lease.LeaseKeepAlive", 2],
  ["Lease.LeaseTimeToLive", 4],
  ["Lease.LeaseLeases", 2],
  ["Watch.create", 8],
  ["Watch.cancel", 2],
  ["Watch.progress", 1],
  ...USER_CALLS,
];
/** How many sequences have watches: etcd takes up to 100 ms until it delivers from the past. */
const WATCHED_PERMILLE = 150;
/** How many sequences have users and roles: a password costs a server as much as fifty other calls. */
const USERS_PERMILLE = 200;

/** The sequence with a number, of a seed. */
export function generate(
  { seed, sequence, requests }: {
    seed: number;
    sequence: number;
    requests: number;
  },
): Step[] {
  const generator = new Generator(new Random(seed, `sequence ${sequence}`));
  return Array.from({ length: requests }, () => generator.step());
}

class Generator {
  readonly #random: Random;
  readonly #calls: typeof CALLS;
  readonly #shares: number;

  constructor(random: Random) {
    this.#random = random;
    const isWatched = random.chance(WATCHED_PERMILLE);
    const hasUsers = random.chance(USERS_PERMILLE);
    this.#calls = CALLS.filter(([call]) =>
      (isWatched || !call.startsWith("Watch.")) &&
      (hasUsers || !isUserCall(call))
    );
    this.#shares = this.#calls.reduce((sum, [, share]) => sum + share, 0);
  }

  step(): Step {
    const call = this.#call();
    return { call, request: this.#request(call) };
  }

  #call(): Call {
    let at = this.#random.below(this.#shares);
    for (const [call, share] of this.#calls) {
      at -= share;
      if (at < 0) return call;
    }
    return "KV.Range";
  }

  #request(call: Call): Request {
    if (isUserCall(call)) return userRequest(this.#random, call);
    switch (call) {
      case "KV.Range":
        return this.#range();
      case "KV.Put":
        return this.#put();
      case "KV.DeleteRange":
        return this.#deleteRange();
      case "KV.Txn":
        return this.#topTxn();
      case "KV.Compact":
        return { revision: this.#compactRevision(), ...this.#flag("physical") };
      case "Lease.LeaseGrant":
        return this.#grant();
      case "Lease.LeaseRevoke":
      case "Lease.LeaseKeepAlive":
        return { ID: this.#lease() };
      case "Lease.LeaseTimeToLive":
        return { ID: this.#lease(), ...this.#flag("keys") };
      case "Watch.create":
        return this.#watch();
      case "Watch.cancel":
        return { watch_id: this.#random.below(8) };
      case "Lease.LeaseLeases":
      case "Watch.progress":
        return {};
    }
  }

  #range(): Request {
    const request: Request = { ...this.#keys() };
    const random = this.#random;
    if (random.chance(300)) request["limit"] = random.between(-1, 6);
    if (random.chance(350)) request["revision"] = this.#revision();
    if (random.chance(400)) {
      request["sort_order"] = random.pick(SORT_ORDERS);
      request["sort_target"] = random.pick(SORT_TARGETS);
    }
    const bounds = ["min_mod_revision", "max_mod_revision"]
      .concat("min_create_revision", "max_create_revision");
    for (const field of bounds) {
      if (random.chance(60)) request[field] = this.#revision();
    }
    return {
      ...request,
      ...this.#flag("serializable", 200),
      ...this.#flag("keys_only", 150),
      ...this.#flag("count_only", 100),
    };
  }

  #put(): Request {
    const random = this.#random;
    const request: Request = { key: this.#key() };
    const ignoresValue = random.chance(120);
    if (!ignoresValue || random.chance(100)) {
      request["value"] = random.pick(VALUES);
    }
    const ignoresLease = random.chance(120);
    if (random.chance(ignoresLease ? 100 : 250)) {
      request["lease"] = this.#lease();
    }
    if (ignoresValue) request["ignore_value"] = true;
    if (ignoresLease) request["ignore_lease"] = true;
    return { ...request, ...this.#flag("prev_kv", 300) };
  }

  #deleteRange(): Request {
    return { ...this.#keys(), ...this.#flag("prev_kv", 400) };
  }

  #topTxn(): Request {
    if (this.#random.chance(10)) return this.#largeTxn();
    for (;;) {
      const txn = this.#txn(1);
      // See KNOWN_DIFFERENCES.
      if (!deletesNestedPuts(txn)) return txn;
    }
  }

  #txn(depth: number): Request {
    const random = this.#random;
    const operations = () =>
      list(random.below(depth === 1 ? 5 : 3), () => this.#operation(depth));
    return {
      compare: list(random.below(4), () => this.#compare()),
      success: operations(),
      failure: operations(),
    };
  }

  /** At and beyond the limit, in one of its three lists. */
  #largeTxn(): Request {
    const count = TXN_OPERATIONS_MAX + this.#random.below(2);
    const ranges = list(count, () => ({ request_range: { key: "a" } }));
    const equal = list(count, () => ({ key: "a", target: "VERSION" }));
    return this.#random.pick<Request>([
      { success: ranges },
      { failure: ranges },
      { compare: equal },
    ]);
  }

  #operation(depth: number): Request {
    const random = this.#random;
    if (random.chance(8)) return {};
    if (depth < TXN_DEPTH_MAX && random.chance(150)) {
      return { request_txn: this.#txn(depth + 1) };
    }
    switch (random.below(3)) {
      case 0:
        return { request_range: this.#range() };
      case 1:
        return { request_put: this.#put() };
      default: {
        const request = this.#deleteRange();
        // etcd overlooks that such a range overlaps a put of the same transaction.
        if (request["range_end"] === "\0") request["range_end"] = AFTER_KEYS;
        return { request_delete_range: request };
      }
    }
  }

  #compare(): Request {
    const random = this.#random;
    const keys = random.chance(300) ? this.#keys() : { key: this.#key() };
    const unions: readonly Request[] = [
      { version: random.below(4) },
      { create_revision: this.#revision() },
      { mod_revision: this.#revision() },
      { value: random.pick(VALUES) },
      { lease: random.chance(500) ? "0" : this.#lease() },
    ];
    const at = random.below(unions.length);
    // Now and then nothing to compare with, or what does not fit the target.
    const union = random.chance(40)
      ? {}
      : random.chance(30)
      ? random.pick(unions)
      : unions[at];
    return {
      ...keys,
      result: random.pick(COMPARE_RESULTS),
      target: ["VERSION", "CREATE", "MOD", "VALUE", "LEASE"][at] ?? "VERSION",
      ...union,
    };
  }

  #grant(): Request {
    const random = this.#random;
    if (random.chance(60)) return { TTL: TTL_TOO_LARGE, ID: this.#lease() };
    if (random.chance(60)) return { TTL: 5000, ID: "0" };
    const ID = random.pick(LEASES);
    return { TTL: LEASE_TTLS[ID] ?? 0, ID };
  }

  #watch(): Request {
    const random = this.#random;
    const request: Request = this.#keys();
    const isSilent = random.chance(30);
    if (isSilent) {
      // What never delivers cannot be waited for, so it does not begin in the past.
      request["filters"] = ["NOPUT", "NODELETE"];
    } else if (random.chance(200)) {
      request["filters"] = [random.pick(["NOPUT", "NODELETE"])];
    }
    if (!isSilent && random.chance(500)) {
      request["start_revision"] = this.#watchRevision();
    }
    if (random.chance(300)) request["watch_id"] = random.below(8);
    return {
      ...request,
      ...this.#flag("prev_kv", 400),
      ...this.#flag("fragment", 200),
      ...this.#flag("progress_notify", 100),
    };
  }

  /** A key or a range in one of its forms, backwards and empty ones too. */
  #keys(): { key: string; range_end?: string } {
    const random = this.#random;
    const key = this.#key();
    switch (random.below(8)) {
      case 0:
      case 1:
      case 2:
        return { key };
      case 3:
        return { key, range_end: "\0" };
      case 4:
        return { key: "\0", range_end: "\0" };
      case 5:
        return { key, range_end: prefixEnd(key) };
      default:
        return { key, range_end: this.#key() };
    }
  }

  #key(): string {
    return this.#random.chance(12) ? "" : this.#random.pick(KEYS);
  }

  #lease(): string {
    return this.#random.chance(100)
      ? this.#random.pick([MISSING_LEASE, "0"])
      : this.#random.pick(LEASES);
  }

  #revision(): string {
    const random = this.#random;
    switch (random.below(8)) {
      case 0:
        return `compacted${signed(random.between(-1, 1))}`;
      case 1:
        return `current+${random.between(1, 3)}`;
      case 2:
        return random.pick(["-1", "0", "1"]);
      case 3:
        return `start+${random.below(20)}`;
      default:
        return `current-${random.below(8)}`;
    }
  }

  #watchRevision(): string {
    const random = this.#random;
    return random.chance(150)
      ? `compacted${signed(random.between(-1, 1))}`
      : random.chance(300)
      ? `current+${random.between(1, 6)}`
      : `current-${random.below(10)}`;
  }

  #compactRevision(): string {
    const random = this.#random;
    return random.chance(200)
      ? random.pick(["0", "-1", "compacted-1", "compacted", "current+1"])
      : `current-${random.below(6)}`;
  }

  #flag(field: string, permille = 300): Request {
    return this.#random.chance(permille) ? { [field]: true } : {};
  }
}

/** True if a nested transaction may delete what one before it, in the same list, may put. */
function deletesNestedPuts(txn: Request): boolean {
  return ["success", "failure"].some((branch) => {
    const nested = operationsOf(txn, branch).flatMap(({ request_txn }) =>
      request_txn === undefined ? [] : [request_txn as Request]
    );
    const writes = nested.map((one) => ({
      puts: within(one, "request_put"),
      deletes: within(one, "request_delete_range"),
    }));
    return nested.some(deletesNestedPuts) ||
      writes.some(({ deletes }, at) =>
        writes.slice(0, at).some(({ puts }) =>
          puts.some((put) =>
            deletes.some(({ key, range_end }) =>
              covers(String(key), String(range_end ?? ""), String(put["key"]))
            )
          )
        )
      );
  });
}

/** Operations of one kind, in both branches and at any depth. */
function within(txn: Request, kind: string): Request[] {
  return ["success", "failure"].flatMap((branch) => operationsOf(txn, branch))
    .flatMap((operation) => {
      const nested = operation["request_txn"] as Request | undefined;
      if (nested !== undefined) return within(nested, kind);
      const found = operation[kind] as Request | undefined;
      return found === undefined ? [] : [found];
    });
}

function operationsOf(txn: Request, branch: string): Request[] {
  return (txn[branch] ?? []) as Request[];
}

function list<T>(length: number, make: () => T): T[] {
  return Array.from({ length }, make);
}

function signed(value: number): string {
  return value < 0 ? String(value) : `+${value}`;
}

/** The end of all keys that begin with this one; as etcd's clients compute it. */
function prefixEnd(prefix: string): string {
  for (let at = prefix.length - 1; at >= 0; at--) {
    const code = prefix.charCodeAt(at);
    if (code < 0xff) {
      return prefix.slice(0, at) + String.fromCharCode(code + 1);
    }
  }
  return "\0";
}
