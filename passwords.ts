/**
 * Hashes passwords, at the node that takes them: neither the log nor any disk sees one in the clear.
 * Used by `service.ts`.
 *
 * A hash is text with everything that is needed to check a password: `$scrypt$ln=15,r=8,p=1$SALT$HASH`.
 *
 * @module
 */

import { randomBytes, scrypt } from "node:crypto";
import { LIMITS } from "./config.ts";
import { DkvError } from "./errors.ts";

/** log2 of the number of rounds: with blocks of this size 32 MiB, about as slow as etcd's bcrypt. */
const COST_LOG2 = 15;
const BLOCK_SIZE = 8;
const MEMORY_BYTES_MAX = 64 * 1024 * 1024;
const SALT_BYTES = 16;
const HASH_BYTES = 32;

/** Hashes one after the other, off the event loop: whoever adds many users holds up nobody else. */
export class Passwords {
  #last: Promise<unknown> = Promise.resolve();
  #waiting = 0;

  /** @throws {DkvError} OVERLOADED if too many wait. */
  async hash(password: string): Promise<string> {
    if (this.#waiting >= LIMITS.passwordsMax) {
      throw new DkvError(
        "OVERLOADED",
        `Too many passwords wait to be hashed: ${this.#waiting}, at most ${LIMITS.passwordsMax}`,
      );
    }
    this.#waiting++;
    const hash = this.#last.then(() => hashNow(password));
    this.#last = hash.catch(() => {});
    try {
      return await hash;
    } finally {
      this.#waiting--;
    }
  }
}

function hashNow(password: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const salt = randomBytes(SALT_BYTES);
  const cost = { N: 2 ** COST_LOG2, r: BLOCK_SIZE, p: 1 };
  scrypt(
    password,
    salt,
    HASH_BYTES,
    { ...cost, maxmem: MEMORY_BYTES_MAX },
    (error, hash) => {
      if (error) return reject(error);
      resolve(
        `$scrypt$ln=${COST_LOG2},r=${cost.r},p=${cost.p}$${
          salt.toString("base64")
        }$${hash.toString("base64")}`,
      );
    },
  );
  return promise;
}
