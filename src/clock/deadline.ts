import type { Clock } from './clock.js';

/** What became of something that had a deadline. */
export type Settled<T> =
  | { readonly status: 'done'; readonly value: T }
  | { readonly status: 'failed'; readonly error: unknown }
  | { readonly status: 'late' };

/**
 * Calls, and waits for the answer until the deadline; never throws. A throw counts like a rejection, an answer
 * after the deadline is dropped. What answers at once is settled at once, and costs neither timer nor turn.
 */
export function settleWithin<T>(
  clock: Clock,
  ms: number,
  call: () => T | PromiseLike<T>,
): Settled<T> | Promise<Settled<T>> {
  let answer: T | PromiseLike<T>;
  try {
    answer = call();
    if (!isThenable(answer)) return { status: 'done', value: answer };
  } catch (error) {
    return { status: 'failed', error };
  }
  // A thenable of somebody else's may throw where a promise cannot.
  const pending = Promise.resolve(answer);
  return new Promise((resolve) => {
    const timer = clock.setTimeout(() => resolve({ status: 'late' }), ms);
    pending.then(
      (value) => {
        clock.clearTimeout(timer);
        resolve({ status: 'done', value });
      },
      (error: unknown) => {
        clock.clearTimeout(timer);
        resolve({ status: 'failed', error });
      },
    );
  });
}

/** Goes on with the value: at once where it is there, or when it has come. */
export function whenSettled<T, R>(value: T | Promise<T>, next: (value: T) => R | Promise<R>): R | Promise<R> {
  return isThenable(value) ? (value as Promise<T>).then(next) : next(value as T);
}

export function isThenable<T>(value: T | PromiseLike<T>): value is PromiseLike<T> {
  return typeof (value as PromiseLike<T> | undefined | null)?.then === 'function';
}
