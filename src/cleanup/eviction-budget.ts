/** What is left of a user's budget at a time. A token bucket: full at first, and again when nobody draws on it. */
export interface Budget {
  readonly tokens: number;
  readonly at: number;
}

export interface BudgetRules {
  readonly forcedEvictionBurst: number;
  readonly forcedEvictionRefillMs: number;
}

/** Tokens at `now`; a user without a budget has all of them. */
export function tokensAt(budget: Budget | undefined, now: number, rules: BudgetRules): number {
  if (!budget) return rules.forcedEvictionBurst;
  const refilled = budget.tokens + (now - budget.at) / rules.forcedEvictionRefillMs;
  return Math.min(rules.forcedEvictionBurst, refilled);
}

/** Milliseconds until one whole token is there. */
export function waitForTokenMs(budget: Budget | undefined, now: number, rules: BudgetRules): number {
  return Math.max(0, (1 - tokensAt(budget, now, rules)) * rules.forcedEvictionRefillMs);
}

/** One token less. Ask {@link canSpend} first. */
export function spend(budget: Budget | undefined, now: number, rules: BudgetRules): Budget {
  return { tokens: Math.max(0, tokensAt(budget, now, rules) - 1), at: now };
}

/** Rounding of the clock must not hold back who waited exactly as long as it was told to. */
const EPSILON = 1e-6;

export function canSpend(budget: Budget | undefined, now: number, rules: BudgetRules): boolean {
  return tokensAt(budget, now, rules) >= 1 - EPSILON;
}
