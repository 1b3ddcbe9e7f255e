import type { Clock } from './clock.js';

/** What became of something that had a deadline. */
export type Settled<T> =
  | { readonly status: 'done'; readonly value: T }
  | { readonly status: 'failed'; readonly error: unknown }
  | { readonly status: 'late' };

/**
 * Calls, and waits for the answer until the deadline; never throws. A throw counts like a rejection, an answer
 * after the deadline is dropped. What answers at once costs no timer.
 */
export async function settleWithin<T>(
  clock: Clock,
  ms: number,
  call: () => T | PromiseLike<T>,
): Promise<Settled<T>> {
  let answer: T | PromiseLike<T>;
  try {
    answer = call();
  } catch (error) {
    return { status: 'failed', error };
  }
  if (!isThenable(answer)) return { status: 'done', value: answer };
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

export function isThenable<T>(value: T | PromiseLike<T>): value is PromiseLike<T> {
  return typeof (value as PromiseLike<T> | undefined | null)?.then === 'function';
}
