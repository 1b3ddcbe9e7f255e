import { describe, expect, it } from 'vitest';
import { settleWithin } from '../../src/clock/deadline.js';
import { FakeClock } from '../../src/testing/index.js';
import { Core } from '../support/core.js';

/** Histories that once broke a promise; each by the promise that it broke. */
describe('at the limit', () => {
  it('a probe ends in time though somebody else vouches for all who do not answer', async () => {
    const core = await Core.start({ limits: { managersPerUser: 3 } });
    for (let i = 0; i < 3; i++) {
      const { manager } = core.place({ userId: 'alice', openedAgoMs: 60_000, connection: 'silent' });
      manager.isAlive(async () => {
        await new Promise<void>((resolve) => void core.clock.setTimeout(resolve, 50));
        return true;
      });
    }
    const { result, tookMs } = await core.admitWithin(1_200, 'alice');
    expect(result.admitted).toBe(true);
    expect(tookMs).toBeLessThanOrEqual(1_100);
    await core.clock.advance(60_000);
    expect(core.reportedOf('sweep_finished').length).toBeGreaterThan(0);
  });

  it('a session that loses its connection during the probe goes before anybody living', async () => {
    for (const isBudgetSpent of [false, true]) {
      const core = await Core.start({
        limits: { managersPerUser: 3 },
        cleanup: { forcedEvictionBurst: 1, forcedEvictionRefillMs: 60_000 },
      });
      // The third answers late, so that a probe takes its time.
      const placed = [50_000, 20_000, 10_000].map((activeAgoMs, i) =>
        core.place({
          userId: 'alice',
          sessionKey: 'abc'[i] as string,
          openedAgoMs: 60_000,
          activeAgoMs,
          connection: i === 2 ? { answersAfterMs: 700 } : 'answers',
        }),
      );
      if (isBudgetSpent) await core.admitWithin(1_200, 'alice');
      // No answer to an earlier question is on its way any more.
      await core.clock.advance(3_000);
      const before = core.reportedOf('evicted').length;
      const asked = core.admit('alice');
      await core.clock.advance(300);
      placed[1]?.socket?.leave();
      await core.clock.advance(1_200);
      expect((await asked).result).toMatchObject({ admitted: true });
      expect(core.reportedOf('rejected').filter(({ lockout }) => lockout)).toEqual([]);
      const evicted = core.reportedOf('evicted').slice(before);
      expect(evicted.map(({ reason, sessionKey }) => [reason, sessionKey])).toEqual([['inactive', 'b']]);
      expect(placed[0]?.manager.isOpen).toBe(!isBudgetSpent);
    }
  });

  it('where the limit was lowered, a newcomer costs one session, and is in', async () => {
    const core = await Core.start({
      limits: { managersPerUser: ({ metadata }) => (metadata === 'free' ? 5 : 20) },
    });
    core.placeMany(20, { userId: 'alice', openedAgoMs: 60_000 });
    const { result } = await core.admitWithin(1_200, 'alice', { metadata: 'free' });
    expect(result.admitted).toBe(true);
    expect(core.count('alice')).toBe(20);
    expect(core.reportedOf('evicted')).toHaveLength(1);
  });

  it('an open breaker does not let a living session go where a frozen one could', async () => {
    const core = await Core.start({
      limits: { managersPerUser: 4 },
      circuitBreaker: { failureThreshold: 1 },
    });
    const failing = core.place({ userId: 'alice', openedAgoMs: 60_000, closeHook: 'throws' });
    failing.socket?.become('closed');
    const cleaned = core.cleanup.cleanManually(failing.manager.user, { level: 'conservative' });
    await core.clock.advance(100);
    await cleaned;
    expect(core.breaker.stateOf(failing.manager.user)).toBe('open');
    const live = core.place({ userId: 'alice', openedAgoMs: 60_000, activeAgoMs: 9_000 });
    core.placeMany(3, { userId: 'alice', openedAgoMs: 60_000, activeAgoMs: 1_000, connection: 'silent' });
    const { result } = await core.admitWithin(1_200, 'alice');
    expect(result.admitted).toBe(true);
    expect(live.manager.isOpen).toBe(true);
  });

  it('a house full of sessions in use opens no breaker', async () => {
    const core = await Core.start({
      limits: { managersPerUser: 2 },
      circuitBreaker: { failureThreshold: 1 },
    });
    for (let i = 0; i < 2; i++) await core.admit('alice');
    for (let i = 0; i < 5; i++) {
      const { result } = await core.admitWithin(100, 'alice');
      expect(result).toMatchObject({ admitted: false, reason: 'over_limit' });
    }
    expect(core.breaker.stateOf(core.registry.user('alice'))).toBe('closed');
    expect(core.reportedOf('cleanup_finished').at(-1)).toMatchObject({ outcome: 'all_protected' });
  });

  it('who waits in the queue holds nobody else up', async () => {
    const core = await Core.start({
      limits: { managersPerUser: 2 },
      admission: { queueTimeoutMs: 8_000 },
    });
    core.place({ userId: 'alice', openedAgoMs: 60_000, activeAgoMs: 50_000, sessionKey: 'evicted' });
    core.place({ userId: 'alice', openedAgoMs: 60_000 });
    await core.admitWithin(1_200, 'alice');
    await core.clock.advance(6_000);
    const barred = core.admit('alice', { sessionKey: 'evicted' });
    await core.clock.advance(100);
    const fresh = await core.admitWithin(1_200, 'alice');
    expect(fresh.result.admitted).toBe(true);
    await core.clock.advance(20_000);
    await barred;
  });
});

describe('the end of a session', () => {
  it('calls its hooks once, whoever ends it again while it ends', async () => {
    const core = await Core.start();
    const { manager } = core.place({ userId: 'alice', openedAgoMs: 60_000 });
    let calls = 0;
    manager.onClose(() => {
      calls++;
      void manager.close({ reason: 'evicted' });
    });
    core.events.events$.subscribe((event) => {
      if (event.type === 'detached') void manager.close({ reason: 'terminated_by_admin' });
    });
    void manager.close({ reason: 'idle' });
    await core.clock.advance(5_000);
    expect(calls).toBe(1);
  });

  it('leaves no socket open, whatever reason it is given', async () => {
    const core = await Core.start();
    const { manager, socket } = core.place({ userId: 'alice', openedAgoMs: 60_000 });
    void manager.close({ reason: 'left' });
    await core.clock.advance(5_000);
    expect(socket?.state).toBe('closed');
  });
});

describe('a thenable', () => {
  it('that throws counts as a rejection', async () => {
    const thrown = new Error('then throws');
    const thenable = {
      // biome-ignore lint/suspicious/noThenProperty: that is what this is about
      then() {
        throw thrown;
      },
    };
    const settled = await settleWithin(new FakeClock(), 1_000, () => thenable as PromiseLike<void>);
    expect(settled).toEqual({ status: 'failed', error: thrown });
  });
});
