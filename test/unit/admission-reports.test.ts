import { afterEach, describe, expect, it, vi } from 'vitest';
import { Canary } from '../../src/admission/canary.js';
import { CleanupRun } from '../../src/cleanup/cleanup-run.js';
import type { RejectedEvent } from '../../src/events/websocket-manager-event.js';
import { ZombieDetectorService } from '../../src/liveness/zombie-detector.service.js';
import { resolveOptions } from '../../src/options/resolve-options.js';
import { checkUserContext } from '../../src/options/user-context.js';
import { FakeClock } from '../../src/testing/index.js';
import { Core } from '../support/core.js';
import { ScriptedStore } from '../support/scripted-store.js';

const LIVE = { userId: 'alice', openedAgoMs: 60_000, activeAgoMs: 1_000 } as const;

afterEach(() => {
  vi.restoreAllMocks();
});

const rejected = (core: Core): RejectedEvent[] => core.reportedOf('rejected');

describe('who is refused', () => {
  it('for being one too many is reported, with how long it took and when to come back', async () => {
    const core = await Core.start({ limits: { managersPerUser: 1 } });
    core.place({ ...LIVE, openedAgoMs: 1_000, connection: { answersAfterMs: 300 } });
    const { result } = await core.admitWithin(500, 'alice');
    expect(result).toEqual({ admitted: false, reason: 'over_limit', retryAfterMs: 3_700 });
    expect(rejected(core)).toMatchObject([
      {
        ...{ reason: 'over_limit', userId: 'alice', durationMs: 300, retryAfterMs: 3_700 },
        ...{ lockout: false, detail: undefined },
      },
    ]);
    expect(core.reportedOf('hook_failed')).toEqual([]);
  });

  it('for want of a limit is reported, and so is the function that failed', async () => {
    const error = new Error('directory away');
    const managersPerUser = () => {
      throw error;
    };
    const core = await Core.start({ limits: { managersPerUser } });
    const { result } = await core.admit('alice');
    expect(result).toMatchObject({ reason: 'internal', error: { code: 'WSM_LIMIT_FUNCTION', cause: error } });
    expect(rejected(core)).toMatchObject([
      {
        ...{ reason: 'internal', userId: 'alice', retryAfterMs: undefined, lockout: false, durationMs: 0 },
        detail: 'limits.managersPerUser: directory away',
      },
    ]);
    expect(core.reportedOf('hook_failed')).toMatchObject([
      { hook: 'limits.managersPerUser', error: { cause: error } },
    ]);
    await expect(core.factory.create({ userId: 'alice' })).rejects.toThrow('directory away');
  });

  it('by a full node is told a time that is drawn around five seconds', async () => {
    const core = await Core.start({ limits: { managersPerNode: 1 } });
    core.place(LIVE);
    for (let i = 0; i < 200; i++) await core.admit(`user-${i}`);
    const times = rejected(core).map(({ retryAfterMs }) => retryAfterMs as number);
    expect(Math.min(...times)).toBeGreaterThanOrEqual(2_500);
    expect(Math.min(...times)).toBeLessThan(3_500);
    expect(Math.max(...times)).toBeLessThanOrEqual(7_500);
    expect(Math.max(...times)).toBeGreaterThan(6_500);
    expect(times.every(Number.isInteger)).toBe(true);
    expect(rejected(core)[0]).toMatchObject({ reason: 'try_later', userId: 'user-0', lockout: false });
    await expect(core.factory.create({ userId: 'bob' })).rejects.toMatchObject({ code: 'WSM_NODE_FULL' });
  });

  it('by a node that drains is told a time of twice the spread', async () => {
    const core = await Core.start({ drain: { spreadMs: 3_000 } });
    core.drain.begin();
    for (let i = 0; i < 200; i++) await core.admit('alice');
    const times = rejected(core).map(({ retryAfterMs }) => retryAfterMs as number);
    expect(Math.min(...times)).toBeGreaterThanOrEqual(500);
    expect(Math.min(...times)).toBeLessThan(1_500);
    expect(Math.max(...times)).toBeLessThanOrEqual(6_500);
    expect(Math.max(...times)).toBeGreaterThan(5_500);
    expect(times.every(Number.isInteger)).toBe(true);
  });

  it('by a node that drains at once is told a second or so', async () => {
    const core = await Core.start({ drain: { spreadMs: 0 } });
    core.drain.begin();
    const times = Array.from({ length: 200 }, () => core.drain.drawRetryAfterMs());
    expect(Math.max(...times)).toBeLessThanOrEqual(1_500);
    expect(Math.max(...times)).toBeGreaterThan(1_200);
  });

  it('although somebody could have gone is called a lockout, but not one who has left', async () => {
    vi.spyOn(CleanupRun.prototype, 'takeExpendable').mockReturnValue();
    for (const isGone of [false, true]) {
      const core = await Core.start({ limits: { managersPerUser: 1 } });
      core.place({ ...LIVE, connection: 'none', leftAgoMs: 1, sessionKey: 'left' });
      const asked = core.admit('alice', {}, { isGone: () => isGone });
      await core.clock.advance(1_000);
      expect((await asked).result.admitted).toBe(false);
      expect(rejected(core)).toMatchObject([{ reason: 'over_limit', lockout: !isGone }]);
    }
  });

  it('and was evicted lately comes back no sooner than the next eviction is due', async () => {
    const core = await Core.start({ limits: { managersPerUser: 1 } });
    const { manager } = core.place({ ...LIVE, sessionKey: 'tab' });
    void manager.close({ reason: 'evicted' });
    core.place(LIVE);
    const { result } = await core.admitWithin(50, 'alice', { sessionKey: 'tab' });
    expect(result).toMatchObject({ reason: 'over_limit', retryAfterMs: 10_000 });
  });
});

describe('who is let in', () => {
  it('is reported with what it took, and whose session it joined', async () => {
    const core = await Core.start({ limits: { managersPerUser: 2 } });
    core.place({ ...LIVE, connection: 'silent' });
    core.place({ ...LIVE, sessionKey: 'tab' });
    await core.admitWithin(2_000, 'alice');
    await core.admit('alice', { sessionKey: 'tab' });
    expect(core.reportedOf('admitted')).toMatchObject([
      { outcome: 'admitted_after_cleanup', durationMs: 1_000, returned: false, pressure: 1 },
      { outcome: 'joined', durationMs: 0, returned: false, pressure: 1, sessionKey: 'tab' },
    ]);
  });
});

describe('a slot that the store grants too late', () => {
  async function withSlowStore() {
    const clock = new FakeClock();
    const store = new ScriptedStore(clock);
    store.delayMs = 50;
    const core = await Core.start({ store, limits: { managersPerNode: 1 } }, clock);
    return { core, clock, store };
  }

  it.each([
    ['the node drains by now', 'draining', (core: Core) => core.drain.begin()],
    ['the node is full by now', 'try_later', (core: Core) => core.place({ ...LIVE, userId: 'bob' })],
  ])('because %s is given back', async (_, reason, meanwhile) => {
    const { core, clock, store } = await withSlowStore();
    const asked = core.admit('alice');
    await clock.advance(20);
    meanwhile(core);
    await clock.advance(1_000);
    expect((await asked).result).toMatchObject({ admitted: false, reason });
    expect([...store.heldBy('alice')]).toEqual([]);
    expect(core.count('alice')).toBe(0);
  });
});

describe('an admission that has nothing to wait for', () => {
  it('is answered within the call', async () => {
    const core = await Core.start();
    expect(core.factory.admit(checkUserContext({ userId: 'alice' }))).toMatchObject({ admitted: true });
  });
});

describe('admissions of one user', () => {
  it('are served one at a time, whenever they come', async () => {
    const clock = new FakeClock();
    const store = new ScriptedStore(clock);
    store.delayMs = 10;
    const core = await Core.start({ store }, clock);
    let underWay = 0;
    let most = 0;
    const reserve = store.reserve.bind(store);
    store.reserve = async (request) => {
      most = Math.max(most, ++underWay);
      const reply = await reserve(request);
      underWay--;
      return reply;
    };
    const asked = [core.admit('alice'), core.admit('alice')];
    await clock.advance(15);
    asked.push(core.admit('alice'), core.admit('alice'));
    await clock.advance(100);
    expect((await Promise.all(asked)).map(({ result }) => result.admitted)).toEqual([true, true, true, true]);
    expect(most).toBe(1);
  });
});

describe('two newcomers at once', () => {
  it('share what a probe costs: the second does not wait for one of its own', async () => {
    const core = await Core.start({ limits: { managersPerUser: 2 } });
    core.placeMany(2, { ...LIVE, connection: 'silent' });
    const asked = [core.admit('alice'), core.admit('alice')];
    await core.clock.advance(1_100);
    const answers = await Promise.all(asked);
    expect(answers.map(({ result }) => result.admitted)).toEqual([true, true]);
    expect(Math.max(...answers.map(({ tookMs }) => tookMs))).toBeLessThanOrEqual(1_100);
  });

  it('below the limit ask nobody anything', async () => {
    const clock = new FakeClock();
    const store = new ScriptedStore(clock);
    const core = await Core.start({ store, limits: { managersPerUser: 10 } }, clock);
    const { socket } = core.place({ ...LIVE, connection: 'answers' });
    const asked = Promise.all([core.admit('alice'), core.admit('alice'), core.admit('alice')]);
    await clock.advance(100);
    await asked;
    expect(socket?.pings).toBe(0);
  });
});

describe('the canary says what it found', () => {
  async function failures(): Promise<readonly string[]> {
    const clock = new FakeClock();
    const run = new Canary(clock, resolveOptions({ authenticate: () => null })).run();
    await clock.advance(10_000);
    return (await run).failures;
  }

  it('and leaves nothing to wait for, from the moment that it says so', async () => {
    const clock = new FakeClock();
    const canary = new Canary(clock, resolveOptions({ authenticate: () => null }));
    void canary.run();
    for (let i = 0; i < 30 && !canary.lastResult; i++) await clock.advance(100);
    expect(canary.lastResult?.ok).toBe(true);
    expect(clock.timerCount).toBe(0);
  });

  it('nobody went', async () => {
    vi.spyOn(CleanupRun.prototype, 'evict').mockReturnValue();
    vi.spyOn(CleanupRun.prototype, 'takeDead').mockReturnValue();
    expect(await failures()).toEqual([
      'conservative: refused with over_limit',
      'moderate: refused with over_limit',
      'aggressive: refused with over_limit',
      'force: refused with over_limit',
    ]);
  });

  it('too many went', async () => {
    const { takeExpendable } = CleanupRun.prototype;
    vi.spyOn(CleanupRun.prototype, 'takeExpendable').mockImplementation(function (this: CleanupRun, _, may) {
      takeExpendable.call(this, () => false, may);
    });
    expect(await failures()).toContain('force: 5 sessions ended for one newcomer');
  });

  it('somebody else went', async () => {
    vi.spyOn(CleanupRun.prototype, 'takeExpendable').mockImplementation(function (this: CleanupRun) {
      const [last] = [...this.candidates].reverse();
      if (this.level === 'force' && last)
        this.evict({ managerId: last.manager.id, signal: 'least_valuable' });
    });
    expect(await failures()).toContain('force: the wrong session ended');
  });

  it('the right one went, but not at the right level', async () => {
    vi.spyOn(ZombieDetectorService.prototype, 'probe').mockResolvedValue();
    vi.spyOn(CleanupRun.prototype, 'takeDead').mockReturnValue();
    const found = await failures();
    expect(found).toContainEqual(
      expect.stringMatching(/^conservative: ended at the level (aggressive|force)$/),
    );
  });
});
