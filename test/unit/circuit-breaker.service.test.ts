import { describe, expect, it } from 'vitest';
import { Core } from '../support/core.js';

const OPTIONS = { circuitBreaker: { failureThreshold: 2, resetTimeoutMs: 1_000, successThreshold: 2 } };

async function withUsers() {
  const core = await Core.start(OPTIONS);
  const mallory = core.place({ userId: 'mallory' }).manager.user;
  const alice = core.place({ userId: 'alice' }).manager.user;
  const fail = (times: number) => {
    for (let i = 0; i < times; i++) core.breaker.begin(mallory, 100).settle(false);
  };
  return { core, mallory, alice, fail };
}

describe('CircuitBreakerService', () => {
  it('keeps one breaker for each user, and says what changes', async () => {
    const { core, mallory, alice, fail } = await withUsers();
    fail(2);
    expect(core.breaker.stateOf(mallory)).toBe('open');
    expect(core.breaker.stateOf(alice)).toBe('closed');
    expect(core.breaker.count('open')).toBe(1);
    expect(core.reportedOf('breaker_changed')).toMatchObject([
      { userId: 'mallory', from: 'closed', to: 'open' },
    ]);
  });

  it('closes again, and then is gone', async () => {
    const { core, mallory, fail } = await withUsers();
    fail(2);
    await core.clock.advance(1_000);
    expect(core.breaker.stateOf(mallory)).toBe('half-open');
    for (let i = 0; i < 2; i++) core.breaker.begin(mallory, 100).settle(true);
    expect(core.breaker.stateOf(mallory)).toBe('closed');
    expect([...core.breaker.troubled]).toEqual([]);
    const changes = core.reportedOf('breaker_changed').map(({ to }) => to);
    expect(changes).toEqual(['open', 'half-open', 'closed']);
  });

  it('takes an attempt that settles after its deadline for a failure', async () => {
    const { core, mallory, fail } = await withUsers();
    fail(1);
    const attempt = core.breaker.begin(mallory, 100);
    await core.clock.advance(101);
    attempt.settle(true);
    expect(core.breaker.stateOf(mallory)).toBe('open');
  });

  it('counts an attempt once', async () => {
    const { core, mallory } = await withUsers();
    const attempt = core.breaker.begin(mallory, 100);
    for (let i = 0; i < 5; i++) attempt.settle(false);
    expect(core.breaker.stateOf(mallory)).toBe('closed');
  });

  it('ignores the results of an earlier epoch', async () => {
    const { core, mallory, fail } = await withUsers();
    const [early, late] = [core.breaker.begin(mallory, 9_999), core.breaker.begin(mallory, 9_999)];
    fail(2);
    await core.clock.advance(1_000);
    early.settle(true);
    late.settle(false);
    expect(core.breaker.stateOf(mallory)).toBe('half-open');
    const ofHalfOpen = core.breaker.begin(mallory, 9_999);
    core.breaker.begin(mallory, 100).settle(false);
    await core.clock.advance(1_000);
    ofHalfOpen.settle(false);
    expect(core.breaker.stateOf(mallory)).toBe('half-open');
  });

  it('is closed for who is not known', async () => {
    const { core } = await withUsers();
    expect(core.breaker.stateOf(undefined)).toBe('closed');
  });

  it('counts breakers by their state', async () => {
    const { core, fail } = await withUsers();
    fail(1);
    expect([core.breaker.count('open'), core.breaker.count('half-open')]).toEqual([0, 0]);
    fail(1);
    expect([core.breaker.count('open'), core.breaker.count('half-open')]).toEqual([1, 0]);
    await core.clock.advance(1_000);
    expect([core.breaker.count('open'), core.breaker.count('half-open')]).toEqual([0, 1]);
  });

  it('takes an attempt that settles at its deadline as it is', async () => {
    const { core, mallory, fail } = await withUsers();
    fail(1);
    const attempt = core.breaker.begin(mallory, 100);
    await core.clock.advance(100);
    attempt.settle(true);
    fail(1);
    expect(core.breaker.stateOf(mallory)).toBe('closed');
  });

  it('ignores in half-open what began while it was open', async () => {
    const { core, mallory, fail } = await withUsers();
    fail(2);
    const attempt = core.breaker.begin(mallory, 9_999);
    await core.clock.advance(1_000);
    attempt.settle(false);
    expect(core.breaker.stateOf(mallory)).toBe('half-open');
  });

  it('keeps nothing of a breaker that closed', async () => {
    const { core, mallory, fail } = await withUsers();
    fail(2);
    await core.clock.advance(1_000);
    for (let i = 0; i < 2; i++) core.breaker.begin(mallory, 100).settle(true);
    for (const [name, value] of Object.entries(core.breaker))
      if (value instanceof Map) expect(value.size, name).toBe(0);
    fail(2);
    expect(core.reportedOf('breaker_changed').at(-1)).toMatchObject({ from: 'closed', to: 'open' });
  });

  it('keeps nothing of a user who is gone, however late a cleanup of theirs fails', async () => {
    const { core, mallory } = await withUsers();
    const attempt = core.breaker.begin(mallory, 60_000);
    for (const manager of [...mallory.managers]) void manager.close({ reason: 'left' });
    await core.clock.advance(core.options.cleanup.graceMs + 1_000);
    expect(core.registry.user('mallory')).toBeUndefined();
    attempt.settle(false);
    for (const [name, value] of Object.entries(core.breaker))
      if (value instanceof Map) expect(value.size, name).toBe(0);
  });
});
