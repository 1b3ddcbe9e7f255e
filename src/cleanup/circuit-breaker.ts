import type { BreakerState } from '../events/vocabulary.js';

/** A breaker that has seen a failure. There is none for a user whose cleanups go well. */
export interface Breaker {
  readonly failures: number;
  readonly successes: number;
  /** When it opened last; undefined while it is closed. */
  readonly openedAt: number | undefined;
}

export interface BreakerRules {
  readonly failureThreshold: number;
  readonly resetTimeoutMs: number;
  readonly successThreshold: number;
}

/** A comparison with the clock: there is no timer that could be lost, and so no state to hang in. */
export function stateOf(breaker: Breaker | undefined, now: number, rules: BreakerRules): BreakerState {
  if (breaker?.openedAt === undefined) return 'closed';
  return now - breaker.openedAt < rules.resetTimeoutMs ? 'open' : 'half-open';
}

export function afterFailure(breaker: Breaker | undefined, now: number, rules: BreakerRules): Breaker {
  const failures = (breaker?.failures ?? 0) + 1;
  const state = stateOf(breaker, now, rules);
  if (state === 'open' && breaker) return breaker;
  // Half-open, it has had its failures already: one more opens it again.
  if (failures >= rules.failureThreshold) return { failures, successes: 0, openedAt: now };
  return { failures, successes: 0, openedAt: undefined };
}

/** undefined: closed, and nothing left to remember. */
export function afterSuccess(
  breaker: Breaker | undefined,
  now: number,
  rules: BreakerRules,
): Breaker | undefined {
  const state = stateOf(breaker, now, rules);
  if (!breaker || state === 'closed') return undefined;
  if (state === 'open') return breaker;
  const successes = breaker.successes + 1;
  return successes >= rules.successThreshold ? undefined : { ...breaker, successes };
}
