import { describe, expect, it } from 'vitest';
import { LimitFunctionError, ManagerLimitError, NodeUnavailableError } from '../../src/admission/errors.js';
import type { Refused } from '../../src/admission/websocket-manager.factory.js';
import type { Manager } from '../../src/manager/manager.js';
import { InvalidUserContextError } from '../../src/options/user-context.js';
import { FakeClock, type FakeSocket } from '../../src/testing/index.js';
import { type Admission, type AdmitOptions, Core, type CoreOptions } from '../support/core.js';
import { ScriptedStore } from '../support/scripted-store.js';
import { seeded } from '../support/snapshots.js';

/** An answer that waits for nobody who is silent: a round of pings, and the one before it. */
const SOON_MS = 50;
const LIVE = { userId: 'alice', openedAgoMs: 60_000, activeAgoMs: 1_000 } as const;

/** At the limit, everybody there and in use. */
async function full(options: CoreOptions = {}) {
  const core = await Core.start(options);
  const placed = core.placeMany(20, LIVE);
  return { core, placed };
}

/** With no eviction left for the next refill time. */
async function exhausted(options: CoreOptions = {}) {
  const { core, placed } = await full(options);
  for (let i = 0; i < 5; i++) expect((await core.admitWithin(SOON_MS, 'alice')).result.admitted).toBe(true);
  return { core, placed };
}

function socketOf(manager: Manager | undefined): FakeSocket {
  return manager?.connections[0]?.transport as FakeSocket;
}

function refusal({ result }: Admission): Refused {
  if (result.admitted) throw new Error('admitted');
  return result;
}

/** Comes back exactly as late as the refusal said, `windowMs` after having asked. */
async function comeBack(core: Core, refused: Admission, windowMs: number, options: AdmitOptions = {}) {
  const { retryAfterMs = 0 } = refusal(refused);
  await core.clock.advance(Math.max(0, retryAfterMs - (windowMs - refused.tookMs)));
  return core.admitWithin(SOON_MS, 'alice', options);
}

function watchCount(core: Core, most: number): string[] {
  const broken: string[] = [];
  core.registry.observe({
    managerAdded: ({ user }) => {
      if (user.managers.size > most) broken.push(`${user.userId}: ${user.managers.size}`);
    },
  });
  return broken;
}

describe('below the limit', () => {
  it('admits at once, and reports it', async () => {
    const core = await Core.start();
    const { result, tookMs } = await core.admit('alice', { sessionKey: 'tab-1' });
    expect(result).toMatchObject({ admitted: true, outcome: 'admitted' });
    expect(tookMs).toBe(0);
    expect(core.reportedOf('admitted')).toMatchObject([
      { userId: 'alice', sessionKey: 'tab-1', pressure: 1 / 20 },
    ]);
  });

  it('a second connection of a session joins its manager and takes no slot', async () => {
    const core = await Core.start({ limits: { managersPerUser: 1 } });
    const first = await core.admit('alice', { sessionKey: 'tab-1' });
    const second = await core.admit('alice', { sessionKey: 'tab-1' });
    expect(second.result).toMatchObject({ admitted: true, outcome: 'joined' });
    expect(second.result.admitted && first.result.admitted && second.result.manager).toBe(
      first.result.admitted && first.result.manager,
    );
    expect(core.count('alice')).toBe(1);
  });

  it('the same key of another user is another session', async () => {
    const core = await Core.start();
    await core.admit('alice', { sessionKey: 'tab-1' });
    expect((await core.admit('bob', { sessionKey: 'tab-1' })).result).toMatchObject({ outcome: 'admitted' });
  });

  it('nobody with a connection that answers is ever evicted', async () => {
    const core = await Core.start();
    core.placeMany(19, (i) => ({ userId: 'alice', openedAgoMs: 9e6, activeAgoMs: i * 1e5 }));
    for (let i = 0; i < 50; i++) {
      const { socket } = await core.admitWithin(SOON_MS, 'alice');
      socket?.leave();
      await core.clock.advance(5_000);
    }
    expect(core.reportedOf('evicted')).toEqual([]);
    expect(core.count('alice')).toBe(19);
  });
});

describe('the limit', () => {
  it.each([undefined, 'store'])('is never exceeded by a burst (%s)', async (kind) => {
    const clock = new FakeClock();
    const store = kind ? new ScriptedStore(clock) : undefined;
    const core = await Core.start({ store }, clock);
    const broken = watchCount(core, 20);
    const asked = Promise.all(Array.from({ length: 100 }, () => core.admit('alice')));
    await clock.advance(20_000);
    const results = (await asked).map(({ result }) => result.admitted);
    expect(results.filter(Boolean).length).toBe(20);
    expect(broken).toEqual([]);
    expect(core.count('alice')).toBe(20);
  });

  it('is never exceeded, whatever happens in whatever order', async () => {
    const random = seeded(42);
    for (let round = 0; round < 12; round++) {
      const clock = new FakeClock();
      const store = round % 3 === 0 ? new ScriptedStore(clock) : undefined;
      const limit = 3 + (round % 3);
      const core = await Core.start(
        {
          store,
          limits: { managersPerUser: limit },
          heartbeat: { intervalMs: 1_000, probeTimeoutMs: 200 },
          cleanup: { graceMs: 100, forcedEvictionRefillMs: 500, intervalMs: 2_000 },
          session: { resumeWindowMs: 2_000 },
        },
        clock,
      );
      const broken = watchCount(core, limit);
      const admissions: Promise<Admission>[] = [];
      for (let step = 0; step < 150; step++) {
        const userId = random() < 0.7 ? 'alice' : 'bob';
        const sessionKey = random() < 0.4 ? `tab-${Math.floor(random() * 6)}` : undefined;
        const connection = random() < 0.6 ? 'answers' : random() < 0.5 ? 'silent' : 'none';
        const action = random();
        if (action < 0.5) admissions.push(core.admit(userId, { sessionKey, connection }));
        else if (action < 0.6)
          for (const manager of core.registry.allManagers) manager.connections[0]?.transport.terminate();
        else if (action < 0.65) await clock.stall(random() * 3_000);
        else await clock.advance(Math.floor(random() * 300));
        if (store && random() < 0.1) store.delayMs = Math.floor(random() * 150);
      }
      await clock.advance(30_000);
      await Promise.all(admissions);
      expect(broken, `round ${round}`).toEqual([]);
    }
  });

  it('two that ask for the same new session at once share it', async () => {
    const clock = new FakeClock();
    for (const store of [undefined, new ScriptedStore(clock)]) {
      const core = await Core.start({ store }, clock);
      const asked = Promise.all([
        core.admit('alice', { sessionKey: 'k' }),
        core.admit('alice', { sessionKey: 'k' }),
      ]);
      await clock.advance(100);
      expect((await asked).map(({ result }) => result.admitted && result.outcome)).toEqual([
        'admitted',
        'joined',
      ]);
      expect(core.count('alice')).toBe(1);
    }
  });

  it('may be a function of the user', async () => {
    const core = await Core.start({
      limits: { managersPerUser: ({ metadata }) => (metadata === 'pro' ? 3 : 1) },
      cleanup: { graceMs: 60_000 },
    });
    const admit = async (userId: string, metadata: string) =>
      (await core.admitWithin(1_100, userId, { metadata })).result.admitted;
    expect([await admit('a', 'free'), await admit('a', 'free')]).toEqual([true, false]);
    const pro = [];
    for (let i = 0; i < 4; i++) pro.push(await admit('b', 'pro'));
    expect(pro).toEqual([true, true, true, false]);
  });

  it.each<[string, () => number]>([
    [
      'throws',
      () => {
        throw new Error('no tiers today');
      },
    ],
    ['returns nothing', () => undefined as never],
    ['returns 0', () => 0],
    ['returns 1.5', () => 1.5],
    ['returns NaN', () => Number.NaN],
    ['returns a promise', () => Promise.resolve(3) as never],
  ])('is refused as internal when its function %s', async (_, managersPerUser) => {
    const core = await Core.start({ limits: { managersPerUser } });
    expect((await core.admit('alice')).result).toMatchObject({ admitted: false, reason: 'internal' });
    await expect(core.factory.create({ userId: 'alice' })).rejects.toThrow(LimitFunctionError);
    expect(core.reportedOf('hook_failed')).toMatchObject([{ hook: 'limits.managersPerUser' }, {}]);
  });

  it('may be none at all', async () => {
    const core = await Core.start({ limits: { managersPerUser: () => Number.POSITIVE_INFINITY } });
    for (let i = 0; i < 100; i++) await core.admit('alice');
    expect(core.count('alice')).toBe(100);
  });
});

describe('at the limit', () => {
  it('exactly one goes for each newcomer, and the budget bounds how many', async () => {
    const { core } = await full();
    const results: boolean[] = [];
    for (let i = 0; i < 8; i++) results.push((await core.admitWithin(SOON_MS, 'alice')).result.admitted);
    expect(results).toEqual([true, true, true, true, true, false, false, false]);
    expect(core.reportedOf('evicted')).toHaveLength(5);
    expect(core.reportedOf('evicted')[0]).toMatchObject({
      reason: 'evicted',
      level: 'force',
      trigger: 'admission',
    });
  });

  it('the victim is told so', async () => {
    const { core, placed } = await full();
    await core.admitWithin(SOON_MS, 'alice');
    const victim = placed.find(({ manager }) => !manager.isOpen);
    expect(victim?.socket?.closeAsked).toEqual({ code: 4510, reason: 'evicted' });
    expect(JSON.parse(victim?.socket?.sent[0] ?? '')).toEqual({
      event: 'ws:closing',
      data: { code: 4510, reason: 'evicted', retryable: false },
    });
  });

  it('nobody in use goes while somebody is inactive', async () => {
    const { core, placed } = await full();
    const [first] = placed;
    void first?.manager.close({ reason: 'left' });
    const gone = core.place({ ...LIVE, connection: 'none', leftAgoMs: 2_000, sessionKey: 'gone' });
    await core.admitWithin(0, 'alice');
    expect(gone.manager.endedBy).toBe('inactive');
    expect(core.count('alice')).toBe(20);
    expect(core.reportedOf('evicted')).toHaveLength(1);
  });

  it('nobody in use goes while somebody is idle', async () => {
    const { core, placed } = await full();
    void placed[7]?.manager.close({ reason: 'left' });
    const idle = core.place({ userId: 'alice', openedAgoMs: 900_000, activeAgoMs: 301_000 });
    await core.admitWithin(SOON_MS, 'alice');
    expect(idle.manager.endedBy).toBe('evicted');
    expect(core.reportedOf('evicted')).toMatchObject([{ level: 'aggressive', evidence: { signal: 'idle' } }]);
  });

  it('nobody in use goes for one who left while the probe was under way', async () => {
    const { core, placed } = await full();
    placed[3]?.socket?.become('silent');
    placed[4]?.socket?.become({ answersAfterMs: 900 });
    const asked = core.admit('alice');
    await core.clock.advance(200);
    placed[5]?.socket?.leave();
    await core.clock.settle();
    const { tookMs } = await asked;
    expect(tookMs).toBe(200);
    expect(core.reportedOf('evicted')).toEqual([]);
  });

  it('one of many that are merely slow goes, and the others are found to be alive', async () => {
    const core = await Core.start();
    core.placeMany(20, { ...LIVE, connection: { answersAfterMs: 1_500 } });
    const { result, tookMs } = await core.admitWithin(1_100, 'alice');
    expect(result.admitted).toBe(true);
    expect(tookMs).toBeLessThanOrEqual(1_100);
    await core.clock.advance(60_000);
    expect(core.count('alice')).toBe(20);
    expect(core.reportedOf('evicted')).toHaveLength(1);
    expect(core.reportedOf('recovered').length).toBeGreaterThanOrEqual(19);
  });

  it('a suspect that is known already goes at once', async () => {
    const core = await Core.start();
    core.placeMany(19, LIVE);
    const silent = core.place({ ...LIVE, connection: 'silent' });
    await Promise.all([core.detector.probe(silent.manager.user), core.clock.advance(1_000)]);
    const { tookMs } = await core.admitWithin(0, 'alice');
    expect(tookMs).toBe(0);
    expect(silent.manager.endedBy).toBe('no_pong');
  });

  it('somebody dead is found even when a probe has just been, and no eviction is left', async () => {
    const { core } = await exhausted();
    for (const manager of core.registry.allManagers) {
      socketOf(manager).become('silent');
    }
    const { result, tookMs } = await core.admitWithin(1_100, 'alice');
    expect(result.admitted).toBe(true);
    expect(tookMs).toBeLessThanOrEqual(1_100);
  });

  it('somebody whose own check says that nobody is there goes before anybody in use', async () => {
    const { core, placed } = await full();
    placed[13]?.manager.isAlive(() => false);
    await core.admitWithin(1_100, 'alice');
    expect(placed[13]?.manager.isOpen).toBe(false);
    expect(placed.filter(({ manager }) => !manager.isOpen)).toHaveLength(1);
  });

  it('nobody goes for a newcomer who has gone', async () => {
    const core = await Core.start();
    core.placeMany(20, { ...LIVE, connection: 'silent' });
    let isGone = false;
    const asked = core.admit('alice', {}, { isGone: () => isGone });
    await core.clock.advance(500);
    isGone = true;
    await core.clock.advance(600);
    expect((await asked).result.admitted).toBe(false);
    expect(core.reportedOf('evicted').filter(({ trigger }) => trigger === 'admission')).toEqual([]);
  });

  it('another user notices nothing', async () => {
    const core = await Core.start();
    core.placeMany(20, { userId: 'mallory', connection: 'silent', closeHook: 'hangs' });
    core.placeMany(5, { userId: 'alice' });
    const flood = Promise.all(Array.from({ length: 50 }, () => core.admit('mallory')));
    const { tookMs } = await core.admit('alice');
    expect(tookMs).toBe(0);
    await core.clock.advance(60_000);
    await flood;
    expect(core.reportedOf('evicted').filter(({ userId }) => userId === 'alice')).toEqual([]);
  });
});

describe('retryAfterMs', () => {
  it('is a promise, after the budget is spent', async () => {
    const { core } = await exhausted();
    const refused = await core.admitWithin(SOON_MS, 'alice');
    const { reason, retryAfterMs } = refusal(refused);
    expect(reason).toBe('over_limit');
    expect(retryAfterMs).toBeGreaterThan(0);
    expect(retryAfterMs).toBeLessThanOrEqual(10_000);
    expect((await comeBack(core, refused, SOON_MS)).result.admitted).toBe(true);
  });

  it('is a promise while all are in their grace', async () => {
    const core = await Core.start({ limits: { managersPerUser: 3 } });
    for (let i = 0; i < 3; i++) {
      await core.admit('alice');
      await core.clock.advance(777);
    }
    const refused = await core.admitWithin(SOON_MS, 'alice');
    expect(refusal(refused).retryAfterMs).toBeLessThanOrEqual(5_000 - 3 * 777);
    await core.clock.advance(1_000);
    const early = await core.admitWithin(SOON_MS, 'alice');
    expect((await comeBack(core, early, SOON_MS)).result.admitted).toBe(true);
  });

  it('is kept at any moment, and never more than the larger of grace and refill', async () => {
    const random = seeded(5);
    const core = await Core.start({
      limits: { managersPerUser: 4 },
      cleanup: { graceMs: 3_000, forcedEvictionBurst: 2, forcedEvictionRefillMs: 2_000 },
    });
    let kept = 0;
    for (let round = 0; round < 200; round++) {
      await core.clock.advance(Math.floor(random() * 1_500));
      const options = random() < 0.3 ? { sessionKey: `k${round % 7}` } : {};
      const asked = await core.admitWithin(SOON_MS, 'alice', options);
      if (asked.result.admitted) continue;
      expect(asked.result.retryAfterMs).toBeLessThanOrEqual(3_000);
      const again = await comeBack(core, asked, SOON_MS, options);
      expect(again.result.admitted, `round ${round}`).toBe(true);
      kept++;
    }
    expect(kept).toBeGreaterThan(20);
    expect(core.reportedOf('rejected').filter(({ lockout }) => lockout)).toEqual([]);
  });

  it('create() throws it', async () => {
    const { core } = await exhausted();
    const created = core.factory.create({ userId: 'alice' });
    const caught = created.catch((error: unknown) => error);
    await core.clock.advance(SOON_MS);
    const error = await caught;
    expect(error).toBeInstanceOf(ManagerLimitError);
    expect((error as ManagerLimitError).retryAfterMs).toBeGreaterThan(0);
  });
});

describe('a session that was evicted to make room', () => {
  async function evictedOne() {
    const { core, placed } = await full();
    void placed[0]?.manager.close({ reason: 'left' });
    core.place({ ...LIVE, activeAgoMs: 50_000, sessionKey: 'evicted' });
    await core.admitWithin(SOON_MS, 'alice');
    expect(core.reportedOf('evicted')).toMatchObject([{ sessionKey: 'evicted', reason: 'evicted' }]);
    return core;
  }

  it('does not itself evict a living one for a minute', async () => {
    const core = await evictedOne();
    expect((await core.admitWithin(SOON_MS, 'alice', { sessionKey: 'evicted' })).result.admitted).toBe(false);
    await core.clock.advance(59_900);
    // Nobody kept the first promise up; this is the bar, with a fresh key and without a promise.
    expect((await core.admitWithin(SOON_MS, 'alice', { sessionKey: 'another' })).result.admitted).toBe(true);
  });

  it('is barred for the whole minute when it was promised nothing', async () => {
    const core = await evictedOne();
    await core.clock.advance(59_000);
    expect((await core.admitWithin(SOON_MS, 'alice', { sessionKey: 'evicted' })).result.admitted).toBe(false);
  });

  it('is free after the minute', async () => {
    const core = await evictedOne();
    await core.clock.advance(60_000);
    expect((await core.admitWithin(SOON_MS, 'alice', { sessionKey: 'evicted' })).result.admitted).toBe(true);
  });

  it('is let in when it was promised, the bar notwithstanding', async () => {
    const core = await evictedOne();
    const refused = await core.admitWithin(SOON_MS, 'alice', { sessionKey: 'evicted' });
    expect(refusal(refused).retryAfterMs).toBeLessThanOrEqual(10_000);
    const { result } = await comeBack(core, refused, SOON_MS, { sessionKey: 'evicted' });
    expect(result.admitted).toBe(true);
  });

  it('may take the place of the dead at any time', async () => {
    const core = await evictedOne();
    const [manager] = core.registry.allManagers;
    socketOf(manager).become('closed');
    expect((await core.admitWithin(0, 'alice', { sessionKey: 'evicted' })).result.admitted).toBe(true);
  });

  it('and is back within 30 s is counted as returned', async () => {
    const core = await evictedOne();
    const [manager] = core.registry.allManagers;
    void manager?.close({ reason: 'left' });
    await core.admitWithin(0, 'alice', { sessionKey: 'evicted' });
    expect(core.reportedOf('admitted').at(-1)).toMatchObject({ returned: true });
  });

  it('does not chase the others round in a loop: 21 clients that all come back at once', async () => {
    const core = await Core.start();
    const clients = Array.from({ length: 21 }, (_, i) => `client-${i}`);
    const due = new Map<string, number>(clients.map((key) => [key, core.clock.now()]));
    const startedAt = core.clock.now();
    while (core.clock.now() - startedAt < 600_000) {
      for (const [key, at] of due) {
        if (at > core.clock.now()) continue;
        due.delete(key);
        void core.admit('alice', { sessionKey: key }).then(({ result }) => {
          if (!result.admitted) due.set(key, core.clock.now() + (result.retryAfterMs ?? 0));
          else result.manager.onClose(() => due.set(key, core.clock.now() + 50));
        });
      }
      await core.clock.advance(50);
    }
    const evictions = core.reportedOf('evicted').length;
    expect(evictions).toBeLessThanOrEqual(5 + 600_000 / 10_000);
    expect(core.count('alice')).toBe(20);
  });
});

describe('queueTimeoutMs', () => {
  const QUEUED = { admission: { queueTimeoutMs: 3_000 } };

  it('waits for a place that comes free', async () => {
    const { core, placed } = await exhausted(QUEUED);
    const asked = core.admit('alice');
    await core.clock.advance(1_500);
    placed.find(({ manager }) => manager.isOpen)?.socket?.leave();
    await core.clock.advance(SOON_MS);
    const { result, tookMs } = await asked;
    expect(result.admitted).toBe(true);
    expect(tookMs).toBeLessThanOrEqual(1_500 + SOON_MS);
  });

  it('refuses when none did, in time', async () => {
    const { core } = await exhausted(QUEUED);
    const { result, tookMs } = await core.admitWithin(3_100, 'alice');
    expect(result.admitted).toBe(false);
    expect(tookMs).toBeGreaterThanOrEqual(2_990);
    expect(tookMs).toBeLessThanOrEqual(3_000 + SOON_MS);
  });

  it('lets in when an eviction is allowed again', async () => {
    const { core } = await exhausted({ ...QUEUED, cleanup: { forcedEvictionRefillMs: 2_000 } });
    const { result, tookMs } = await core.admitWithin(2_100, 'alice');
    expect(result.admitted).toBe(true);
    expect(tookMs).toBeLessThanOrEqual(2_000 + SOON_MS);
  });

  it('wakes one connection for each slot that becomes free', async () => {
    const { core, placed } = await exhausted(QUEUED);
    const reserve = core.ledger.reserve.bind(core.ledger);
    let asked = 0;
    core.ledger.reserve = (...args) => {
      asked++;
      return reserve(...args);
    };
    const waiting = Array.from({ length: 50 }, () => core.admit('alice'));
    await core.clock.advance(1_500);
    asked = 0;
    for (const { socket } of placed.filter(({ manager }) => manager.isOpen).slice(0, 3)) socket?.leave();
    await core.clock.settle();
    expect(asked).toBe(3);
    await core.clock.advance(5_000);
    const results = (await Promise.all(waiting)).map(({ result }) => result.admitted);
    expect(results.filter(Boolean)).toHaveLength(3);
    expect(results.slice(0, 3)).toEqual([true, true, true]);
    expect(core.clock.timerCount).toBeLessThan(30);
  });

  it('passes a slot on from a connection that has gone, and from one that joins a session', async () => {
    const { core, placed } = await exhausted(QUEUED);
    let isGone = false;
    const gone = core.admit('alice', {}, { isGone: () => isGone });
    const joining = core.admit('alice', { sessionKey: 'tab' });
    const third = core.admit('alice', { sessionKey: 'tab' });
    const last = core.admit('alice');
    await core.clock.advance(1_500);
    isGone = true;
    const open = placed.filter(({ manager }) => manager.isOpen);
    open[0]?.socket?.leave();
    await core.clock.advance(SOON_MS);
    expect((await gone).result.admitted).toBe(false);
    expect((await joining).result.admitted).toBe(true);
    open[1]?.socket?.leave();
    await core.clock.advance(SOON_MS);
    expect((await third).result).toMatchObject({ outcome: 'joined' });
    expect((await last).result.admitted).toBe(true);
  });

  it('forgets connections whose time is over', async () => {
    const { core } = await exhausted(QUEUED);
    for (let i = 0; i < 40; i++) {
      void core.admit('alice');
      await core.clock.advance(200);
    }
    const queues = (core.factory as unknown as { slotQueues: Map<unknown, { entries: { size: number } }> })
      .slotQueues;
    expect([...queues.values()][0]?.entries.size).toBeLessThanOrEqual(16);
    await core.clock.advance(4_000);
    expect(queues.size).toBe(0);
  });

  it('serves in order', async () => {
    const { core, placed } = await exhausted(QUEUED);
    const order: number[] = [];
    const asked = [0, 1, 2].map((i) =>
      core.admit('alice').then(({ result }) => result.admitted && order.push(i)),
    );
    for (const { socket } of placed.filter(({ manager }) => manager.isOpen).slice(0, 3)) {
      await core.clock.advance(300);
      socket?.leave();
    }
    await core.clock.advance(100);
    await Promise.all(asked);
    expect(order).toEqual([0, 1, 2]);
  });
});

describe('a full node', () => {
  it('refuses strangers, evicts nobody living, and lets a user trade what is dead or absent', async () => {
    const core = await Core.start({ limits: { managersPerNode: 3 } });
    const [first] = core.placeMany(2, LIVE);
    core.place({ ...LIVE, userId: 'bob' });
    const refused = await core.admitWithin(SOON_MS, 'carol');
    expect(refused.result).toMatchObject({ admitted: false, reason: 'try_later' });
    expect(refusal(refused).retryAfterMs).toBeGreaterThan(0);
    expect((await core.admitWithin(SOON_MS, 'alice')).result).toMatchObject({ reason: 'try_later' });
    expect(core.reportedOf('evicted')).toEqual([]);
    // Below the user's limit a suspect is left alone: it may be slow.
    first?.socket?.become('silent');
    expect((await core.admitWithin(1_100, 'alice')).result).toMatchObject({ reason: 'try_later' });
    expect(first?.manager.isOpen).toBe(true);
    first?.socket?.become('closed');
    expect((await core.admitWithin(1_100, 'alice')).result.admitted).toBe(true);
    expect(first?.manager.isOpen).toBe(false);
    expect([core.count('alice'), core.count('bob'), core.registry.managerCount]).toEqual([2, 1, 3]);
    await expect(core.factory.create({ userId: 'carol' })).rejects.toThrow(NodeUnavailableError);
  });

  it('still lets a session be joined', async () => {
    const core = await Core.start({ limits: { managersPerNode: 1 } });
    await core.admit('alice', { sessionKey: 'k' });
    expect((await core.admit('alice', { sessionKey: 'k' })).result).toMatchObject({ outcome: 'joined' });
  });

  it('is not overfilled by many at once while the store thinks', async () => {
    const clock = new FakeClock();
    const core = await Core.start({ store: new ScriptedStore(clock), limits: { managersPerNode: 5 } }, clock);
    const asked = Promise.all(Array.from({ length: 20 }, (_, i) => core.admit(`user-${i}`)));
    await clock.advance(1_000);
    await asked;
    expect(core.registry.managerCount).toBe(5);
  });
});

describe('draining', () => {
  it('gives back a slot that is granted after the drain began', async () => {
    const clock = new FakeClock();
    const store = new ScriptedStore(clock);
    const core = await Core.start({ store }, clock);
    const admission = core.admit('alice');
    await clock.advance(1);
    core.drain.begin();
    await clock.advance(100);
    expect(refusal(await admission).reason).toBe('draining');
    expect(store.calls.filter((call) => call === 'reserve')).toHaveLength(1);
    expect(store.heldBy('alice')).toEqual(new Set());
  });

  it('evicts no session for an incoming connection that it refuses', async () => {
    const clock = new FakeClock();
    const store = new ScriptedStore(clock);
    const core = await Core.start({ store, limits: { managersPerUser: 2 } }, clock);
    const placed = core.placeMany(2, LIVE);
    store.heldBy('alice').add('placed-1').add('placed-2');
    const admission = core.admit('alice');
    await clock.advance(1);
    core.drain.begin();
    await clock.advance(2_000);
    expect(refusal(await admission).reason).toBe('draining');
    expect(placed.every(({ manager }) => manager.isOpen)).toBe(true);
  });

  it('refuses, with a time to come back that is drawn', async () => {
    const core = await Core.start();
    core.drain.begin();
    const refusals = await Promise.all(Array.from({ length: 20 }, () => core.admit('alice')));
    expect(refusals.map(({ result }) => !result.admitted && result.reason)).toEqual(
      new Array(20).fill('draining'),
    );
    expect(new Set(refusals.map((admission) => refusal(admission).retryAfterMs)).size).toBeGreaterThan(5);
    await expect(core.factory.create({ userId: 'alice' })).rejects.toMatchObject({ code: 'WSM_DRAINING' });
  });
});

describe('without any grace', () => {
  it('a newcomer still has the time to attach its connection', async () => {
    const core = await Core.start({ limits: { managersPerUser: 2 }, cleanup: { graceMs: 0 } });
    for (let i = 0; i < 5; i++) {
      const { result, socket } = await core.admitWithin(SOON_MS, 'alice');
      expect(result.admitted).toBe(true);
      expect(socket?.connection.detached).toBe(false);
    }
  });
});

describe('create()', () => {
  it('refuses a context that cannot be used', async () => {
    const core = await Core.start();
    await expect(core.factory.create({ userId: '' })).rejects.toThrow(InvalidUserContextError);
    expect(core.registry.userCount).toBe(0);
  });

  it('what nobody attaches to within the grace goes', async () => {
    const core = await Core.start();
    const manager = await core.factory.create({ userId: 'alice' });
    await core.clock.advance(4_900);
    expect(manager.isOpen).toBe(true);
    await core.clock.advance(400);
    expect(manager.endedBy).toBe('inactive');
  });
});

describe('a store', () => {
  async function withStore(script: Partial<ScriptedStore> = {}) {
    const clock = new FakeClock();
    const store = Object.assign(new ScriptedStore(clock), script);
    const core = await Core.start({ store, limits: { managersPerUser: 3 }, cleanup: { graceMs: 50 } }, clock);
    return { core, clock, store };
  }

  it('that is slow costs no more than its deadline', async () => {
    const { core } = await withStore({ delayMs: 60_000 });
    const { result, tookMs } = await core.admitWithin(200, 'alice');
    expect(result.admitted).toBe(true);
    expect(tookMs).toBeLessThanOrEqual(100);
    expect(core.ledger.isDegraded).toBe(true);
  });

  it.each([true, false])(
    'that fails locks nobody out, and the limit holds here (throws: %s)',
    async (throws) => {
      const { core, clock } = await withStore({ failsWith: new Error('away'), throws });
      const broken = watchCount(core, 3);
      for (let i = 0; i < 6; i++) {
        expect((await core.admitWithin(50, 'alice')).result.admitted).toBe(true);
        await clock.advance(300);
      }
      expect(broken).toEqual([]);
      expect(core.count('alice')).toBe(3);
      expect(core.reportedOf('store_failed').length).toBeGreaterThan(0);
    },
  );

  it.each([true, false])('that is back is not called degraded (at once: %s)', async (atOnce) => {
    const { core, clock, store } = await withStore({ failsWith: new Error('away'), throws: true });
    await core.admitWithin(50, 'alice');
    expect(core.ledger.isDegraded).toBe(true);
    Object.assign(store, { failsWith: undefined, throws: false, delayMs: atOnce ? undefined : 5 });
    await clock.advance(300);
    await core.admitWithin(50, 'alice');
    expect(core.ledger.isDegraded).toBe(false);
  });

  it('that failed for one user is asked for the others, and a crowd of that user does not wait in turn', async () => {
    const { core, clock, store } = await withStore();
    const reserve = store.reserve.bind(store);
    store.reserve = (request) => (request.userId === 'alice' ? new Promise(() => {}) : reserve(request));
    const startedAt = clock.now();
    const crowd = [1, 2, 3].map(() => core.admit('alice').then(() => clock.now() - startedAt));
    await clock.advance(50);
    expect((await core.admitWithin(50, 'bob')).result.admitted).toBe(true);
    expect(store.heldBy('bob').size).toBe(1);
    await clock.advance(300);
    expect(Math.max(...(await Promise.all(crowd)))).toBeLessThanOrEqual(100);
  });

  it('has one time budget for all calls of an admission', async () => {
    const { core, clock, store } = await withStore({ delayMs: 70 });
    core.placeMany(3, { ...LIVE, connection: 'closed' });
    for (let i = 1; i <= 3; i++) store.heldBy('alice').add(`placed-${i}`);
    const startedAt = clock.now();
    const admission = core.admit('alice');
    await clock.advance(1_000);
    const { result, tookMs } = await admission;
    expect(result.admitted).toBe(true);
    expect(clock.now() - startedAt).toBe(1_000);
    expect(tookMs).toBeLessThanOrEqual(100);
  });

  it('that answers during an event-loop stall is not called away', async () => {
    const { core, clock, store } = await withStore({ delayMs: 1 });
    for (let i = 0; i < 3; i++) store.heldBy('alice').add(`elsewhere-${i}`);
    const admission = core.admit('alice');
    await clock.stall(150);
    await clock.advance(50);
    expect(refusal(await admission).reason).toBe('over_limit');
    expect(core.ledger.isDegraded).toBe(false);
    expect(core.reportedOf('store_failed')).toEqual([]);
  });

  it('that has not heard of a release yet costs no second session', async () => {
    const { core, clock, store } = await withStore();
    const placed = core.placeMany(3, LIVE);
    for (let i = 1; i <= 3; i++) store.heldBy('alice').add(`placed-${i}`);
    const release = store.release.bind(store);
    store.release = (user, id) => {
      store.delayMs = 60;
      const answer = release(user, id);
      store.delayMs = 5;
      return answer;
    };
    const { result } = await core.admitWithin(1_000, 'alice');
    expect(result.admitted).toBe(true);
    expect(placed.filter(({ manager }) => manager.isOpen)).toHaveLength(2);
    await clock.advance(1_000);
    expect(store.heldBy('alice').size).toBe(3);
  });

  it('that has not heard of a close costs no session at all', async () => {
    const { core, clock, store } = await withStore();
    const placed = core.placeMany(3, LIVE);
    for (let i = 1; i <= 3; i++) store.heldBy('alice').add(`placed-${i}`);
    const release = store.release.bind(store);
    store.release = async (user, id) => {
      await new Promise<void>((resolve) => void clock.setTimeout(resolve, 60));
      return release(user, id);
    };
    placed[0]?.socket?.leave();
    const { result, tookMs } = await core.admitWithin(1_000, 'alice');
    expect(result.admitted).toBe(true);
    expect(tookMs).toBeLessThanOrEqual(100);
    expect(placed.filter(({ manager }) => manager.isOpen)).toHaveLength(2);
  });

  it.each([0, 4])(
    'that counts above the limit costs one session for each connection (delay: %s)',
    async (delayMs) => {
      const { core, store } = await withStore({ delayMs: delayMs || undefined });
      core.placeMany(3, LIVE);
      for (let i = 1; i <= 3; i++) store.heldBy('alice').add(`placed-${i}`);
      for (let i = 0; i < 10; i++) store.heldBy('alice').add(`elsewhere-${i}`);
      for (let arrivals = 1; arrivals <= 3; arrivals++) {
        const { result } = await core.admitWithin(1_100, 'alice');
        expect(result.admitted).toBe(true);
        expect(core.reportedOf('evicted')).toHaveLength(arrivals);
        expect([core.count('alice'), store.heldBy('alice').size]).toEqual([3, 13]);
      }
    },
  );

  it('that counts above the limit, with no session here or named elsewhere, refuses with a time to return', async () => {
    const { core, store } = await withStore();
    for (let i = 0; i < 30; i++) store.heldBy('alice').add(`elsewhere-${i}`);
    const { retryAfterMs } = refusal(await core.admitWithin(1_100, 'alice'));
    expect(retryAfterMs).toBeGreaterThan(0);
    expect(retryAfterMs).toBeLessThanOrEqual(10_000);
  });

  it('that grants too late gets back what nobody holds, and keeps what somebody does', async () => {
    const { core, clock, store } = await withStore({ delayMs: 150 });
    await clock.advance(300);
    const { result } = await core.admitWithin(120, 'alice');
    if (!result.admitted) return expect.unreachable();
    await clock.advance(100);
    expect([...store.heldBy('alice')]).toEqual([result.manager.id]);

    await clock.advance(300);
    const asked = core.admitWithin(120, 'bob');
    const { result: late } = await asked;
    if (!late.admitted) return expect.unreachable();
    // The release overtakes the grant.
    store.delayMs = 5;
    void late.manager.close({ reason: 'left' });
    await clock.advance(2_000);
    expect([...store.heldBy('bob')]).toEqual([]);
  });

  it('hears of every release in the end, however often it failed', async () => {
    const { core, clock, store } = await withStore();
    const { result } = await core.admitWithin(50, 'alice');
    if (!result.admitted) return expect.unreachable();
    store.failsWith = new Error('away');
    void result.manager.close({ reason: 'left' });
    await clock.advance(3_000);
    expect(store.heldBy('alice').size).toBe(1);
    store.failsWith = undefined;
    await clock.advance(2_000);
    expect(store.heldBy('alice').size).toBe(0);
  });

  it('can have a manager ended that another node took over', async () => {
    const { core, store } = await withStore();
    const { result } = await core.admitWithin(50, 'alice');
    if (!result.admitted) return expect.unreachable();
    expect(store.host?.countOf('alice')).toBe(1);
    expect(store.host?.has(result.manager.id)).toBe(true);
    store.host?.evict(result.manager.id);
    expect(result.manager.endedBy).toBe('evicted');
  });
});

describe('after all clients have gone and the grace is over', () => {
  it.each([
    ['by default', {}],
    ['with a short grace and hooks that hang', { cleanup: { graceMs: 500 } }],
  ])('nothing is left %s', async (_, options: CoreOptions) => {
    const core = await Core.start({
      ...options,
      heartbeat: { intervalMs: 1_000 },
      session: { resumeWindowMs: 1_000 },
    });
    const timers = core.clock.timerCount;
    const placed = [
      ...core.placeMany(10, { ...LIVE, userId: 'mallory', connection: 'silent', closeHook: 'hangs' }),
      ...core.placeMany(10, { ...LIVE, userId: 'mallory', closeHook: 'throws' }),
      ...core.placeMany(20, (i) => ({ ...LIVE, sessionKey: `k${i}` })),
    ];
    const asked = ['alice', 'alice', 'mallory', 'mallory', 'bob'].map((userId) => core.admit(userId));
    await core.clock.advance(3_000);
    const sockets = [
      ...placed.map(({ socket }) => socket),
      ...(await Promise.all(asked)).map(({ socket }) => socket),
    ];
    for (const socket of sockets) socket?.leave();
    await core.clock.advance(60_000);
    expect(core.registry.managerCount).toBe(0);
    expect(core.registry.connectionCount).toBe(0);
    expect(core.registry.userCount).toBe(0);
    expect(core.registry.usersUnderPressure.size).toBe(0);
    expect(core.registry.usersAtLimit.size).toBe(0);
    expect([...core.breaker.troubled]).toEqual([]);
    expect(core.statusKeeper.waiting).toBe(0);
    expect(core.clock.timerCount).toBe(timers);
    for (const part of [core.cleanup, core.evicted, core.factory, core.detector, core.breaker]) {
      for (const [name, value] of Object.entries(part)) {
        if (value instanceof Map || value instanceof Set) expect(value.size, name).toBe(0);
      }
    }
  });
});
