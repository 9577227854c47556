/**
 * What a bank of `record.ts` does when nothing happens at the same time, for the search of
 * `sim/linearizable.ts`: accounts that are read all at once and written two at a time, with the
 * revisions that the store says. All accounts are one object, so this is strict serializability of
 * whole transactions. Used by `judge.ts`.
 *
 * A state is `revision;value@revision;value@revision…`: the highest revision that any operation so
 * far was told, and each account with that of its last change. Nearly every answer names its
 * revision, so few orders are possible, and the search is short.
 *
 * @module
 */

import { assert, unreachable } from "../../errors.ts";
import type { Specification } from "../sim/linearizable.ts";
import { type Account, ACCOUNTS, type Answer, type Request } from "./record.ts";

/** What may be asked of a bank. */
export type BankRequest = Extract<
  Request,
  { type: "balances" } | { type: "transfer" }
>;

/** What may be answered. Of a transfer whose answer is lost, the history tells the revision. */
export type BankAnswer = Extract<
  Answer,
  { type: "balances" } | { type: "transferred" }
>;

interface State {
  readonly revision: number;
  readonly accounts: readonly Account[];
}

/** All accounts of one bank. */
export const BANK: Specification<BankRequest, BankAnswer> = {
  initial: toText({
    revision: 0,
    accounts: Array.from({ length: ACCOUNTS }, () => ["", 0]),
  }),
  step(text, request, answer) {
    const state = fromText(text);
    switch (request.type) {
      case "balances":
        assert(answer.type === "balances", answer.type);
        return read(state, answer);
      case "transfer":
        assert(answer.type === "transferred", answer.type);
        return transfer(state, request, answer);
      default:
        return unreachable(request);
    }
  },
};

function read(
  state: State,
  { revision, accounts }: Pick<BankAnswer, "revision" | "accounts">,
): string | null {
  const older = revision !== 0 && revision < state.revision;
  if (older || !isSame(state.accounts, accounts)) return null;
  return toText({
    revision: Math.max(revision, state.revision),
    accounts: state.accounts,
  });
}

function transfer(
  state: State,
  request: Extract<BankRequest, { type: "transfer" }>,
  answer: Extract<BankAnswer, { type: "transferred" }>,
): string | null {
  const holds = request.accounts.every((account, at) =>
    state.accounts[account]?.[1] === request.modRevisions[at]
  );
  if (holds !== answer.succeeded) return null;
  if (!holds) return read(state, answer);
  const { revision } = answer;
  if (revision <= state.revision) return null;
  const accounts = [...state.accounts];
  for (const [at, account] of request.accounts.entries()) {
    accounts[account] = [request.values[at]!, revision];
  }
  return toText({ revision, accounts });
}

function isSame(a: readonly Account[], b: readonly Account[]): boolean {
  return a.length === b.length &&
    a.every(([value, revision], at) =>
      b[at]![0] === value && b[at]![1] === revision
    );
}

function toText({ revision, accounts }: State): string {
  return [revision, ...accounts.map((account) => account.join("@"))].join(";");
}

function fromText(text: string): State {
  const [revision = "", ...accounts] = text.split(";");
  return {
    revision: Number(revision),
    accounts: accounts.map((account) => {
      const [value = "", modRevision = ""] = account.split("@");
      return [value, Number(modRevision)];
    }),
  };
}
