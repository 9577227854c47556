/**
 * `Promise.withResolvers` for the npm package: Node 20 has none. `bundle.ts` puts it in the place
 * of every use of the real one; nothing global is changed.
 *
 * @module
 */

/** What `Promise.withResolvers` does. */
export function withResolvers<T>(): PromiseWithResolvers<T> {
  let resolve!: PromiseWithResolvers<T>["resolve"];
  let reject!: PromiseWithResolvers<T>["reject"];
  const promise = new Promise<T>((onValue, onError) => {
    resolve = onValue;
    reject = onError;
  });
  return { promise, resolve, reject };
}
