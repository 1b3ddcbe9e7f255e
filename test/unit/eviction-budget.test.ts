import { describe, expect, it } from 'vitest';
import { type Budget, canSpend, spend, tokensAt, waitForTokenMs } from '../../src/cleanup/eviction-budget.js';

const RULES = { forcedEvictionBurst: 5, forcedEvictionRefillMs: 10_000 };

function spent(times: number, now: number): Budget | undefined {
  let budget: Budget | undefined;
  for (let i = 0; i < times; i++) budget = spend(budget, now, RULES);
  return budget;
}

describe('eviction budget', () => {
  it('allows a burst at once, and no more', () => {
    for (let i = 0; i < 5; i++) expect(canSpend(spent(i, 0), 0, RULES)).toBe(true);
    expect(canSpend(spent(5, 0), 0, RULES)).toBe(false);
  });

  it('then allows one in each refill time', () => {
    const empty = spent(5, 0);
    expect(canSpend(empty, 9_999, RULES)).toBe(false);
    expect(canSpend(empty, 10_000, RULES)).toBe(true);
    const again = spend(empty, 10_000, RULES);
    expect(canSpend(again, 19_999, RULES)).toBe(false);
    expect(canSpend(again, 20_000, RULES)).toBe(true);
  });

  it('never holds more than the burst', () => {
    expect(tokensAt(spent(5, 0), 1e9, RULES)).toBe(5);
    expect(tokensAt(undefined, 0, RULES)).toBe(5);
  });

  it('says how long to wait, and keeps its word', () => {
    expect(waitForTokenMs(undefined, 0, RULES)).toBe(0);
    expect(waitForTokenMs(spent(5, 0), 0, RULES)).toBe(10_000);
    expect(waitForTokenMs(spent(5, 0), 4_000, RULES)).toBe(6_000);
    for (let now = 0.1; now < 50; now += 0.37) {
      let budget = spent(5, now);
      for (let round = 0; round < 20; round++) {
        const at = now + round * 3_333.3 + waitForTokenMs(budget, now + round * 3_333.3, RULES);
        expect(canSpend(budget, at, RULES)).toBe(true);
        if (round % 3 === 0) budget = spend(budget, at, RULES);
      }
    }
  });

  it('never asks to wait longer than one refill time', () => {
    for (let times = 0; times <= 5; times++)
      expect(waitForTokenMs(spent(times, 0), 0, RULES)).toBeLessThanOrEqual(10_000);
  });
});
