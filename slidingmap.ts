/**
 * A map whose keys are numbers that come rising and leave in about the order in which they came:
 * what is on its way and not answered. Used by `proposals.ts`, `queries.ts`, `sessions.ts` and
 * `requests.ts`.
 *
 * A `Map` does the same at a high price. After so many deletions V8 gives it a new table, to which
 * the old one refers. Once one of these tables is in the old generation it keeps alive all that come
 * after it, with everything that was ever in them, until the whole heap is collected: each small
 * collection has to copy what left the map long ago.
 *
 * @module
 */

/** With fewer places than this, holes do not matter. */
const PLACES_MIN = 64;

/**
 * See the module. Two arrays in the order of the keys, in which a value that leaves leaves a hole:
 *
 *     keys     3  4  5  6  7  8          get(5) looks at 5 - 3 places behind the first
 *     values   ·  d  ·  f  g  h
 *                 start          end
 *
 * They have at most about twice as many places as there were ever values at once.
 */
export class SlidingMap<Value> {
  readonly #keys: number[] = [];
  readonly #values: (Value | undefined)[] = [];
  /** The first place with a value, if there is one. */
  #start = 0;
  #end = 0;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** The least key; undefined if there is none. */
  get first(): number | undefined {
    return this.#size === 0 ? undefined : this.#keys[this.#start];
  }

  get(key: number): Value | undefined {
    const at = this.#find(key);
    return this.#keys[at] === key ? this.#values[at] : undefined;
  }

  /** Fast for a key above all others. */
  set(key: number, value: Value): void {
    let at = this.#find(key);
    if (at < this.#end && this.#keys[at] !== key) {
      this.#keys.splice(at, 0, key);
      this.#values.splice(at, 0, undefined);
      this.#end++;
    } else if (at === this.#end) {
      if (at === this.#keys.length) this.#closeHoles();
      at = this.#end++;
      this.#keys[at] = key;
    }
    if (this.#values[at] === undefined) this.#size++;
    this.#values[at] = value;
  }

  delete(key: number): void {
    const at = this.#find(key);
    if (at < this.#end && this.#keys[at] === key) this.#leaveHole(at);
  }

  /** Deletes all with a key below this one. */
  deleteBelow(key: number): void {
    while (this.#size > 0 && this.#keys[this.#start]! < key) {
      this.#leaveHole(this.#start);
    }
  }

  clear(): void {
    this.deleteBelow(Infinity);
  }

  /** In the order of the keys. */
  values(): Value[] {
    const values: Value[] = [];
    this.forEach((value) => values.push(value));
    return values;
  }

  /** In the order of the keys. */
  forEach(visit: (value: Value, key: number) => void): void {
    for (let at = this.#start; at < this.#end; at++) {
      const value = this.#values[at];
      if (value !== undefined) visit(value, this.#keys[at]!);
    }
  }

  /** The first place whose key is not below this one. */
  #find(key: number): number {
    const keys = this.#keys;
    let low = this.#start;
    let high = this.#end;
    if (low === high || key > keys[high - 1]!) return high;
    // Without gaps and closed holes it is here.
    const likely = low + key - keys[low]!;
    if (likely >= low && likely < high && keys[likely] === key) return likely;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (keys[middle]! < key) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #leaveHole(at: number): void {
    if (this.#values[at] === undefined) return;
    this.#values[at] = undefined;
    this.#size--;
    if (this.#size === 0) this.#start = this.#end = 0;
    else while (this.#values[this.#start] === undefined) this.#start++;
  }

  /** Makes room at the end, if there are as many holes as values. */
  #closeHoles(): void {
    const places = this.#end;
    if (places < PLACES_MIN || this.#size > places / 2) return;
    let to = 0;
    for (let at = this.#start; at < places; at++) {
      const value = this.#values[at];
      if (value === undefined) continue;
      this.#keys[to] = this.#keys[at]!;
      this.#values[to++] = value;
    }
    this.#values.fill(undefined, to);
    this.#start = 0;
    this.#end = to;
  }
}
