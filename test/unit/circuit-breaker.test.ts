import { describe, expect, it } from 'vitest';
import { afterFailure, afterSuccess, type Breaker, stateOf } from '../../src/cleanup/circuit-breaker.js';

const RULES = { failureThreshold: 3, resetTimeoutMs: 1_000, successThreshold: 2 };

/** Plays `f`ailures and `s`uccesses, and passes over a reset time at `.`. */
function play(script: string): { breaker: Breaker | undefined; now: number } {
  let breaker: Breaker | undefined;
  let now = 0;
  for (const step of script) {
    if (step === '.') now += RULES.resetTimeoutMs;
    else breaker = (step === 'f' ? afterFailure : afterSuccess)(breaker, now, RULES);
  }
  return { breaker, now };
}

describe('breaker', () => {
  it.each([
    ['', 'closed'],
    ['ff', 'closed'],
    ['ffsff', 'closed'],
    ['fff', 'open'],
    ['fffs', 'open'],
    ['fffssss', 'open'],
    ['ffff', 'open'],
    ['fff.', 'half-open'],
    ['fff.s', 'half-open'],
    ['fff.ss', 'closed'],
    ['fff.f', 'open'],
    ['fff.sf', 'open'],
    ['fff.sf.s', 'half-open'],
    ['fff.sf.ss', 'closed'],
    ['fff.ssff', 'closed'],
    ['fff.ssfff', 'open'],
  ])('after %j is %s', (script, state) => {
    const { breaker, now } = play(script);
    expect(stateOf(breaker, now, RULES)).toBe(state);
  });

  it('is open for exactly its reset time', () => {
    const { breaker } = play('fff');
    expect(stateOf(breaker, 999, RULES)).toBe('open');
    expect(stateOf(breaker, 1_000, RULES)).toBe('half-open');
  });

  it('is not held open by failures of cleanups that began before', () => {
    const { breaker } = play('fff');
    const later = afterFailure(breaker, 999, RULES);
    expect(stateOf(later, 1_000, RULES)).toBe('half-open');
  });

  it('leaves nothing behind when it closes', () => {
    expect(play('fff.ss').breaker).toBeUndefined();
    expect(play('ffs').breaker).toBeUndefined();
  });

  it('closes from any past, once the cause is gone', () => {
    for (let past = 0; past < 2 ** 12; past++) {
      const script = past.toString(3).replaceAll('0', 'f').replaceAll('1', 's').replaceAll('2', '.');
      const { breaker, now } = play(`${script}.ss`);
      expect(stateOf(breaker, now, RULES), script).toBe('closed');
    }
  });
});
