/**
 * Looks at what a round of torture wrote down and says what cannot be: pure, so that a history can
 * be judged again at any time, and the judge himself by `torture_test.ts`.
 *
 * ```text
 *   records ─▶ readRound ─▶ Round ─▶ judge ─▶ violations, counts, steps of the search
 * ```
 *
 * The history is what each node tells of all changes, and the end of it is known (a last write).
 * So of an unknown write it tells whether it took effect, which keeps the search for an order of
 * all operations small.
 *
 * @module
 */

import { assert } from "../../errors.ts";
import {
  checkParts,
  type Operation as Placed,
  REGISTER,
  type RegisterInput,
  type RegisterOutput,
  type Verdict,
} from "../sim/linearizable.ts";
import { BANK, type BankAnswer, type BankRequest } from "./bank.ts";
import {
  ACCOUNTS,
  balanceOf,
  COUNTERS,
  END,
  type Event,
  FIRST_BALANCE,
  type Outcome,
  REGISTERS,
  type Request,
  ROOT,
  type TortureRecord,
  workerOf,
  writesOf,
} from "./record.ts";

/** An operation with all that is known of it. */
export interface Operation {
  readonly op: string;
  readonly request: Request;
  readonly call: number;
  /** `Infinity` if no answer came. */
  return: number;
  /** Null if nobody lived to hear it. */
  outcome: Outcome | null;
}

/** A watch and what it delivered. */
export interface Watch {
  readonly watch: string;
  readonly prefix: string;
  readonly from: number;
  readonly events: Event[];
  /** What its iterator threw. */
  error: string | null;
}

/** A round, as its records tell it. */
export interface Round {
  readonly operations: Map<string, Operation>;
  readonly watches: Map<string, Watch>;
  /** By node. */
  readonly histories: Map<string, Event[]>;
  readonly finals: Extract<TortureRecord, { t: "final" }>[];
  readonly killed: Set<string>;
  /** What was noticed while it ran. */
  readonly seen: Violation[];
}

/** Something that must not be. */
export interface Violation {
  readonly check: string;
  readonly text: string;
  /** Lines for a person. */
  readonly details: readonly string[];
}

/** What a round has come to. */
export interface Judgement {
  readonly violations: readonly Violation[];
  readonly counts: {
    readonly ok: number;
    readonly failed: number;
    readonly unknown: number;
  };
  /** Steps of the search for an order. */
  readonly steps: number;
  readonly events: number;
}

/** Errors that no fault explains: who gets one has met a defect. */
const IMPOSSIBLE_CODES: ReadonlySet<string> = new Set([
  "KEY_EMPTY",
  "KEY_TOO_LARGE",
  "VALUE_TOO_LARGE",
  "REQUEST_TOO_LARGE",
  "RANGE_INVERTED",
  "REVISION_INVALID",
  "REVISION_FUTURE",
  "REVISION_COMPACTED",
  "TOO_MANY_OPERATIONS",
  "DUPLICATE_KEY",
  "SEQUENCE_STALE",
  "MALFORMED",
  "INTERNAL",
  "THROWN",
]);
/** Of each check, so many violations are told one by one. */
const TOLD_MAX = 5;
/** How much of the order that was found is shown. */
const ORDER_SHOWN = 8;
/** Of each object; a check that needs more has not passed. */
const STEPS_MAX = 2_000_000;

/** Puts the records of one round in order. */
export function readRound(records: Iterable<TortureRecord>): Round {
  const round: Round = {
    operations: new Map(),
    watches: new Map(),
    histories: new Map(),
    finals: [],
    killed: new Set(),
    seen: [],
  };
  for (const record of records) addRecord(round, record);
  return round;
}

function addRecord(round: Round, record: TortureRecord): void {
  switch (record.t) {
    case "call":
      round.operations.set(record.op, {
        op: record.op,
        request: record.request,
        call: record.at,
        return: Infinity,
        outcome: null,
      });
      break;
    case "return": {
      const operation = round.operations.get(record.op);
      assert(operation !== undefined, `${record.op} returns without a call`);
      operation.outcome = record.outcome;
      operation.return = record.at;
      break;
    }
    case "watch": {
      const { watch, prefix, from } = record;
      const fields = { watch, prefix, from, events: [], error: null };
      round.watches.set(watch, fields);
      break;
    }
    case "events":
      watchOf(round, record.watch).events.push(...record.events);
      break;
    case "watchEnded":
      watchOf(round, record.watch).error = record.error;
      break;
    case "history": {
      const events = round.histories.get(record.node);
      if (events !== undefined) events.push(...record.events);
      else round.histories.set(record.node, [...record.events]);
      break;
    }
    case "final":
      round.finals.push(record);
      break;
    case "killed":
      round.killed.add(record.worker);
      break;
    case "violation":
      round.seen.push({ check: record.check, text: record.text, details: [] });
      break;
    case "run":
    case "round":
    case "fault":
    case "line":
    case "end":
      break;
  }
}

function watchOf(round: Round, name: string): Watch {
  const watch = round.watches.get(name);
  assert(watch !== undefined, `${name} delivers and was not opened`);
  return watch;
}

/** Runs every check. */
export function judge(round: Round, stepsMax: number = STEPS_MAX): Judgement {
  const [history = []] = round.histories.values();
  const hasHistory = round.histories.size > 0;
  const { violations: found, steps } = hasHistory
    ? explain(round, { effects: new Effects(history), stepsMax })
    : { violations: [], steps: 0 };
  const violations = [
    ...round.seen,
    ...checkErrors(round),
    ...checkHistories(round),
    ...checkRevisions(round),
    ...checkSums(round),
    ...found,
  ];
  const counts = { ok: 0, failed: 0, unknown: 0 };
  for (const { outcome } of round.operations.values()) {
    counts[outcome?.type ?? "unknown"]++;
  }
  return { violations, counts, steps, events: history.length };
}

/** Checks that everything that anybody was told agrees with the history. */
function explain(round: Round, options: SearchOptions): Searched {
  const { effects } = options;
  const registers = checkRegisters(round, options);
  const banks = checkBanks(round, options);
  const violations = [
    ...checkOnce(round, effects),
    ...checkReads(round, effects),
    ...registers.violations,
    ...banks.violations,
    ...checkWatches(round, effects.events),
    ...checkFinals(round, effects),
  ];
  return { violations, steps: registers.steps + banks.steps };
}

/** What is in a history, by what a client knows of it. */
class Effects {
  readonly events: readonly Event[];
  /** By key and value: where a write took effect. */
  readonly #writes = new Map<string, Event[]>();
  /** By key. */
  readonly #deletes = new Map<string, Event[]>();
  readonly #last = new Map<string, Event>();

  constructor(events: readonly Event[]) {
    this.events = events;
    for (const event of events) {
      const [, key, value] = event;
      this.#last.set(key, event);
      if (value === null) append(this.#deletes, key, event);
      else append(this.#writes, `${key}\0${value}`, event);
    }
  }

  /** Where a value was put under a key. */
  of(key: string, value: string): readonly Event[] {
    return this.#writes.get(`${key}\0${value}`) ?? [];
  }

  deletes(key: string): readonly Event[] {
    return this.#deletes.get(key) ?? [];
  }

  last(key: string): Event | undefined {
    return this.#last.get(key);
  }

  /** The revision at which a request took effect, if it did; deletes have no name. */
  revisionOf(request: Request): number | null {
    for (const { key, value } of writesOf(request)) {
      const [event] = value === null ? [] : this.of(key, value);
      if (event !== undefined) return event[0];
    }
    return null;
  }
}

function append(map: Map<string, Event[]>, name: string, event: Event): void {
  const others = map.get(name);
  if (others === undefined) map.set(name, [event]);
  else others.push(event);
}

/** Collects violations of one check, and counts those that nobody would read. */
class Findings {
  readonly #check: string;
  readonly #found: Violation[] = [];
  #more = 0;

  constructor(check: string) {
    this.#check = check;
  }

  add(text: string, ...details: string[]): void {
    if (this.#found.length >= TOLD_MAX) this.#more++;
    else this.#found.push({ check: this.#check, text, details });
  }

  get all(): Violation[] {
    if (this.#more === 0) return this.#found;
    const text = `and ${this.#more} more`;
    return [...this.#found, { check: this.#check, text, details: [] }];
  }
}

// ------------------------------------------------------------------ checks

function checkErrors({ operations }: Round): Violation[] {
  const findings = new Findings("errors are those of faults");
  for (const operation of operations.values()) {
    const { outcome } = operation;
    if (outcome === null || outcome.type === "ok") continue;
    if (IMPOSSIBLE_CODES.has(outcome.code)) {
      findings.add(`${operation.op} got ${outcome.code}`, show(operation));
    }
  }
  return findings.all;
}

/** Every node tells the same; revisions grow; versions count. */
function checkHistories({ histories }: Round): Violation[] {
  const findings = new Findings("the history is one");
  const [first, ...others] = histories;
  if (first === undefined) {
    findings.add("no node has told its history");
    return findings.all;
  }
  const [name, events] = first;
  const versions = new Map<string, number>();
  const keys = new Set<string>();
  let before = 0;
  for (const event of events) {
    const [revision, key, value, version] = event;
    if (revision < before) findings.add(`${eventText(event)} after ${before}`);
    if (revision !== before) keys.clear();
    if (keys.has(key)) findings.add(`${eventText(event)} twice in a revision`);
    keys.add(key);
    before = revision;
    const expected = value === null ? 0 : (versions.get(key) ?? 0) + 1;
    if (version !== expected) {
      findings.add(`${eventText(event)}: expected version ${expected}`);
    }
    if (value === null && !versions.get(key)) {
      findings.add(`${eventText(event)}: there was no such key`);
    }
    versions.set(key, version);
  }
  for (const [other, theirs] of others) {
    const difference = differenceOf(events, theirs);
    if (difference !== null) findings.add(`${name} and ${other} ${difference}`);
  }
  return findings.all;
}

/** Acknowledged: exactly once, where the answer says. Failed: never. Unknown: at most once. */
function checkOnce({ operations }: Round, effects: Effects): Violation[] {
  const findings = new Findings("each write once");
  const asked = new Set<string>();
  const deletes = new Map<
    string,
    { acknowledged: number[]; unknown: number }
  >();
  for (const operation of operations.values()) {
    const { request, outcome } = operation;
    if (request.type === "delete") {
      const known = deletes.get(request.key) ??
        { acknowledged: [], unknown: 0 };
      deletes.set(request.key, known);
      const answer = outcome?.type === "ok" ? outcome.answer : null;
      if (answer?.type === "deleted" && answer.deleted > 0) {
        known.acknowledged.push(answer.revision);
      }
      if (outcome === null || outcome.type === "unknown") known.unknown++;
      continue;
    }
    for (const { key, value } of writesOf(request)) {
      asked.add(`${key}\0${value}`);
    }
    const problem = onceProblem(operation, effects);
    if (problem !== null) findings.add(problem, show(operation));
  }
  for (const event of effects.events) {
    const [, key, value] = event;
    if (value === null) {
      if (!deletes.has(key)) {
        findings.add(`nobody asked for ${eventText(event)}`);
      }
    } else if (!asked.has(`${key}\0${value}`)) {
      findings.add(`nobody asked for ${eventText(event)}`);
    }
  }
  for (const [key, { acknowledged, unknown }] of deletes) {
    const revisions = new Set(
      effects.deletes(key).map(([revision]) => revision),
    );
    for (const revision of acknowledged) {
      if (revisions.delete(revision)) continue;
      findings.add(`the delete of ${key} at ${revision} is not in the history`);
    }
    if (revisions.size > unknown) {
      const where = [...revisions].join(", ");
      findings.add(
        `${key} was deleted at ${where}, which only ${unknown} unknown deletes explain`,
      );
    }
  }
  return findings.all;
}

/** What is wrong with the effects of one write that is no delete. */
function onceProblem(
  { request, outcome }: Operation,
  effects: Effects,
): string | null {
  const writes = writesOf(request);
  if (writes.length === 0) return null;
  const events = writes.map(({ key, value }) => effects.of(key, value ?? ""));
  if (events.some(({ length }) => length > 1)) {
    return `applied twice: ${events.flat().map(eventText).join(", ")}`;
  }
  const found = events.flat();
  const text = found.map(eventText).join(", ");
  if (new Set(found.map(([revision]) => revision)).size > 1) {
    return `a transaction in pieces: ${text}`;
  }
  if (found.length > 0 && found.length < writes.length) {
    return `a part of a transaction: ${text}`;
  }
  if (outcome?.type === "failed" && found.length > 0) {
    return `failed, and had effect: ${text}`;
  }
  if (outcome?.type !== "ok") return null;
  const { answer } = outcome;
  const lost = "succeeded" in answer && !answer.succeeded;
  if (lost) return found.length > 0 ? `lost, and had effect: ${text}` : null;
  const [event] = found;
  if (event === undefined) return "acknowledged, and not in the history";
  if ("revision" in answer && answer.revision !== event[0]) {
    return `acknowledged at ${answer.revision}, in the history as ${text}`;
  }
  const version = "version" in answer && request.type !== "mark"
    ? answer.version
    : event[3];
  if (version !== event[3]) {
    return `acknowledged as version ${version}, in the history as ${text}`;
  }
  return null;
}

/** What an operation was told of the store's revision, and whether it made that revision. */
function revisionOf(
  { outcome }: Operation,
): { told: number; made: boolean; since: boolean } | null {
  if (outcome?.type !== "ok") return null;
  const { answer } = outcome;
  switch (answer.type) {
    case "got":
      return { told: answer.modRevision, made: false, since: false };
    case "put":
      return { told: answer.revision, made: true, since: true };
    case "deleted":
      return { told: answer.revision, made: answer.deleted > 0, since: true };
    case "compared":
    case "transferred":
      return { told: answer.revision, made: answer.succeeded, since: true };
    case "balances": {
      const { revision, accounts } = answer;
      const newest = Math.max(...accounts.map(([, modified]) => modified));
      return revision === 0
        ? { told: newest, made: false, since: false }
        : { told: revision, made: false, since: true };
    }
  }
}

/** What began after an answer has a higher revision than the answer, or the same if it only read. */
function checkRevisions({ operations }: Round): Violation[] {
  const findings = new Findings("revisions follow time");
  const sweep = new Sweep([...operations.values()]);
  let highest = 0;
  let holder: Operation | null = null;
  const floors = new Map<Operation, { floor: number; holder: Operation }>();
  sweep.run((operation) => {
    if (holder !== null) floors.set(operation, { floor: highest, holder });
  }, (operation) => {
    const revision = revisionOf(operation);
    if (revision === null) return;
    const { told, made, since } = revision;
    const before = floors.get(operation);
    if (before !== undefined && since) {
      const least = before.floor + (made ? 1 : 0);
      if (told < least) {
        const text =
          `${operation.op} was told ${told}, expected at least ${least}`;
        findings.add(text, show(before.holder), show(operation));
      }
    }
    if (told > highest) {
      highest = told;
      holder = operation;
    }
  });
  return findings.all;
}

/** Reads of counters, which are too long for a search: what is read was there, and is not old. */
function checkReads({ operations }: Round, effects: Effects): Violation[] {
  const findings = new Findings("reads are fresh");
  const floors = new Map<Operation, number>();
  const newest = new Map<string, number>();
  new Sweep([...operations.values()]).run((operation) => {
    const { request } = operation;
    if ("key" in request) floors.set(operation, newest.get(request.key) ?? 0);
  }, (operation) => {
    const { request, outcome } = operation;
    if (!("key" in request) || outcome?.type !== "ok") return;
    const { answer } = outcome;
    const { key } = request;
    if (answer.type === "got" && answer.value !== "") {
      const events = effects.of(key, answer.value);
      if (!events.some(([revision]) => revision === answer.modRevision)) {
        findings.add(`${operation.op} read what never was`, show(operation));
      }
    }
    if (!key.startsWith(COUNTERS)) return;
    const floor = floors.get(operation) ?? 0;
    const told = answer.type === "got"
      ? answer.modRevision
      : answer.type === "put" ||
          answer.type === "compared" && answer.succeeded
      ? answer.revision
      : 0;
    if (answer.type === "got" && told < floor) {
      findings.add(
        `${operation.op} read ${key} of revision ${told} after ${floor} was known`,
        show(operation),
      );
    }
    if (told > (newest.get(key) ?? 0)) newest.set(key, told);
  });
  return findings.all;
}

/** Calls and returns in the order of time, calls first where they meet. */
class Sweep {
  readonly #moments: { at: number; call: boolean; operation: Operation }[];

  constructor(operations: readonly Operation[]) {
    this.#moments = operations.flatMap((operation) => [
      { at: operation.call, call: true, operation },
      { at: operation.return, call: false, operation },
    ]);
    this.#moments.sort((a, b) => {
      if (a.at !== b.at) return a.at < b.at ? -1 : 1;
      return Number(b.call) - Number(a.call);
    });
  }

  run(
    onCall: (operation: Operation) => void,
    onReturn: (operation: Operation) => void,
  ): void {
    for (const { call, operation } of this.#moments) {
      if (call) onCall(operation);
      else onReturn(operation);
    }
  }
}

/** Nothing is made or lost by transfers. */
function checkSums({ operations }: Round): Violation[] {
  const findings = new Findings("the sum of a bank stays");
  for (const operation of operations.values()) {
    const { outcome } = operation;
    if (outcome?.type !== "ok" || !("accounts" in outcome.answer)) continue;
    const { accounts } = outcome.answer;
    if (accounts.length === 0) continue;
    const sum = accounts.reduce((sum, [value]) => sum + balanceOf(value), 0);
    if (sum !== ACCOUNTS * FIRST_BALANCE) {
      findings.add(`${operation.op} read a sum of ${sum}`, show(operation));
    }
  }
  return findings.all;
}

interface Searched {
  readonly violations: Violation[];
  readonly steps: number;
}

interface SearchOptions {
  readonly effects: Effects;
  readonly stepsMax: number;
}

/** Each key is linearizable. */
function checkRegisters(
  { operations }: Round,
  { effects, stepsMax }: SearchOptions,
): Searched {
  const names = new Map<object, Operation>();
  const placed: Placed<RegisterInput, RegisterOutput>[] = [];
  const keys = new Map<object, string>();
  for (const operation of operations.values()) {
    const { request } = operation;
    if (!("key" in request) || !request.key.startsWith(REGISTERS)) continue;
    const one = toRegister(operation, effects);
    if (one === null) continue;
    placed.push(one);
    names.set(one, operation);
    keys.set(one, request.key);
  }
  const { part, verdict } = checkParts(REGISTER, placed, {
    partOf: (operation) => keys.get(operation) ?? "",
    stepsMax,
  });
  return searched("each key is linearizable", { part, verdict, names });
}

/** An operation as the specification of a register has it; null if it says nothing. */
function toRegister(
  { request, call, return: end, outcome }: Operation,
  effects: Effects,
): Placed<RegisterInput, RegisterOutput> | null {
  if (outcome?.type === "failed") return null;
  const answer = outcome?.type === "ok" ? outcome.answer : null;
  const times = { call, return: answer === null ? Infinity : end };
  switch (request.type) {
    case "get":
      if (answer?.type !== "got") return null;
      return {
        ...times,
        input: { type: "read" },
        output: { type: "value", value: answer.value },
      };
    case "put": {
      if (answer === null && effects.revisionOf(request) === null) return null;
      const previous = answer?.type === "put" ? answer.previous : undefined;
      return {
        ...times,
        input: { type: "write", value: request.value },
        output: answer === null
          ? null
          : previous === undefined
          ? { type: "written" }
          : { type: "value", value: previous },
      };
    }
    case "delete":
      if (answer === null && effects.deletes(request.key).length === 0) {
        return null;
      }
      return {
        ...times,
        input: { type: "write", value: "" },
        output: answer?.type === "deleted"
          ? { type: "value", value: answer.previous }
          : null,
      };
    case "compareAndSet": {
      // What has no answer and is in the history has won; what is not there made no difference.
      if (answer === null && effects.revisionOf(request) === null) return null;
      const succeeded = answer?.type === "compared" ? answer.succeeded : true;
      return {
        ...times,
        input: {
          type: "compareAndSet",
          expected: request.expected,
          value: request.value,
        },
        output: { type: "compared", succeeded },
      };
    }
    default:
      return null;
  }
}

/** Transactions over all accounts of a bank are strictly serializable. */
function checkBanks(
  { operations }: Round,
  { effects, stepsMax }: SearchOptions,
): Searched {
  const names = new Map<object, Operation>();
  const placed: Placed<BankRequest, BankAnswer>[] = [];
  for (const operation of operations.values()) {
    const { request, outcome, call } = operation;
    if (request.type !== "balances" && request.type !== "transfer") continue;
    const answer = outcome?.type === "ok" ? outcome.answer : null;
    let one: Placed<BankRequest, BankAnswer>;
    if (answer?.type === "balances" || answer?.type === "transferred") {
      const end = operation.return;
      one = { call, return: end, input: request, output: answer };
    } else {
      const revision = outcome?.type === "failed"
        ? null
        : effects.revisionOf(request);
      if (revision === null) continue;
      const output = {
        type: "transferred",
        revision,
        succeeded: true,
        accounts: [],
      } as const;
      one = { call, return: Infinity, input: request, output };
    }
    placed.push(one);
    names.set(one, operation);
  }
  const { part, verdict } = checkParts(BANK, placed, {
    partOf: ({ input }) => input.bank,
    stepsMax,
  });
  return searched("transactions are serializable", { part, verdict, names });
}

function searched<Input, Output>(
  check: string,
  { part, verdict, names }: {
    part: string;
    verdict: Verdict<Input, Output>;
    names: ReadonlyMap<object, Operation>;
  },
): Searched {
  switch (verdict.type) {
    case "ok":
      return { violations: [], steps: verdict.steps };
    case "timeout": {
      const text =
        `no order of ${part} was found or excluded within ${verdict.steps} steps`;
      const violations = [{ check, text, details: [] }];
      return { violations, steps: verdict.steps };
    }
    case "illegal": {
      const last = verdict.order.slice(-ORDER_SHOWN);
      const line = (operation: object) => show(names.get(operation)!);
      const details = [
        ...last.map(line),
        `no place for ${line(verdict.stuck)}`,
      ];
      const text = `no order explains ${part}`;
      return { violations: [{ check, text, details }], steps: 0 };
    }
  }
}

/** Each watch delivered exactly the history of its keys from where it began. */
function checkWatches(
  { watches, killed }: Round,
  history: readonly Event[],
): Violation[] {
  const findings = new Findings("watches deliver everything once");
  for (const { watch, prefix, from, events, error } of watches.values()) {
    if (error !== null) findings.add(`${watch} ended: ${error}`);
    const expected = history.filter(([revision, key]) =>
      revision >= from && key.startsWith(prefix)
    );
    const incomplete = killed.has(workerOf(watch));
    const part = incomplete ? expected.slice(0, events.length) : expected;
    const difference = differenceOf(part, events);
    if (difference === null) continue;
    findings.add(
      `the history from ${from} and ${watch} (${prefix}) ${difference}`,
    );
  }
  return findings.all;
}

/** What nodes answer at the end is the end of the history, and counters have counted. */
function checkFinals(
  { finals, operations, histories }: Round,
  effects: Effects,
): Violation[] {
  const findings = new Findings("the end is the end of the history");
  if (histories.size > 0 && effects.last(`${ROOT}${END}`) === undefined) {
    findings.add("the history has no end");
  }
  for (const { node, key, value, version } of finals) {
    const last = effects.last(key);
    if ((last?.[2] ?? "") !== value || (last?.[3] ?? 0) !== version) {
      const text = last === undefined ? "nothing" : eventText(last);
      findings.add(
        `${node} has ${key} = ${value} v${version}, expected ${text}`,
      );
    }
    const counts = { ok: 0, unknown: 0 };
    for (const { request, outcome } of operations.values()) {
      if (!writesOf(request).some((write) => write.key === key)) continue;
      if (outcome === null || outcome.type === "unknown") counts.unknown++;
      else if (outcome.type === "ok") {
        const { answer } = outcome;
        if (!("succeeded" in answer) || answer.succeeded) counts.ok++;
      }
    }
    if (version < counts.ok || version > counts.ok + counts.unknown) {
      findings.add(
        `${node} counts ${version} writes of ${key}: ` +
          `${counts.ok} were acknowledged, ${counts.unknown} are unknown`,
      );
    }
  }
  return findings.all;
}

// ------------------------------------------------------------------ text

/** The first place where two lists of events differ, in words. */
function differenceOf(
  expected: readonly Event[],
  found: readonly Event[],
): string | null {
  const length = Math.max(expected.length, found.length);
  for (let at = 0; at < length; at++) {
    const [one, other] = [expected[at], found[at]];
    if (one !== undefined && other !== undefined && isSame(one, other)) {
      continue;
    }
    const texts = [one, other].map((event) =>
      event === undefined ? "nothing" : eventText(event)
    );
    return `differ at ${at} of ${expected.length} and ${found.length}: ` +
      texts.join(" and ");
  }
  return null;
}

function isSame(a: Event, b: Event): boolean {
  return a.every((field, at) => field === b[at]);
}

function eventText([revision, key, value, version]: Event): string {
  const what = value === null ? "deleted" : `= ${value} v${version}`;
  return `${key} ${what} at ${revision}`;
}

function show({ op, request, call, return: end, outcome }: Operation): string {
  const times = `${call.toFixed(1)} to ${end.toFixed(1)}`;
  const { type, ...fields } = request;
  const answer = outcome === null
    ? "no answer"
    : outcome.type === "ok"
    ? JSON.stringify(outcome.answer)
    : `${outcome.type} ${outcome.code}: ${outcome.message}`;
  return `${op} ${times} ${type} ${JSON.stringify(fields)} → ${answer}`;
}
