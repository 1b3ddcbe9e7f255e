import { isThenable } from '../clock/deadline.js';

/**
 * The answer of an application's function that has to answer at once. For a promise it throws a TypeError that
 * names the function; what becomes of that promise no longer matters, and must not end the process.
 */
export function synchronous<T>(answer: T, name: string): T {
  if (!isThenable(answer)) return answer;
  void Promise.allSettled([answer]);
  throw new TypeError(`${name} returned a promise; allowed: an answer at once`);
}
