import { describe, expect, it } from 'vitest';
import { FakeClock } from '../../src/testing/index.js';
import { Core } from '../support/core.js';
import { ScriptedStore } from '../support/scripted-store.js';

const LIMIT = 3;
const ANSWER_MS = 5;
/** What a call to the store may take. */
const DEADLINE_MS = 100;
/** How long admissions of a user do not wait for the store after it failed one of them. */
const AWAY_MS = 250;
/** The longest back-off of a release that fails. */
const BACK_OFF_MS = 2_000;
/** An unanswered call is reported after the first, and counts as lost after the second. */
const OVERDUE_MS = 10_000;
const LOST_MS = 30_000;
/** Releases in flight: for the node, and for one user. */
const PLACES = 64;
const PLACES_OF_USER = 4;

async function withStore(script: Partial<ScriptedStore> = {}) {
  const clock = new FakeClock();
  const store = Object.assign(new ScriptedStore(clock), { delayMs: ANSWER_MS }, script);
  const core = await Core.start({ store, limits: { managersPerUser: LIMIT } }, clock);
  const calls = (name: string) => store.calls.filter((call) => call === name).length;
  const failures = () =>
    core.reportedOf('store_failed').map(({ operation, error }) => [operation, `${error}`]);
  const measured: [string, number][] = [];
  core.counters.onStoreOperation = (operation, durationMs) => measured.push([operation, durationMs]);
  return { core, clock, store, calls, failures, measured };
}

const request = (userId: string, managerId = 'm') => ({ userId, managerId, limit: LIMIT, priority: 0 });

describe('the name of the store', () => {
  it('is told to health: memory, where nothing else is set', async () => {
    expect((await Core.start()).ledger.name).toBe('memory');
    expect((await withStore()).core.ledger.name).toBe('scripted');
  });
});

describe('a store that answers at once', () => {
  it('has its answer handed on at once; what nobody waited for is not measured', async () => {
    const { core, clock, measured } = await withStore({ delayMs: undefined });
    expect(core.ledger.reserve(request('alice'))).toEqual({ granted: true, count: 1 });
    core.ledger.giveBack(request('alice'));
    await clock.settle();
    expect(measured).toEqual([]);
  });
});

describe('every call', () => {
  it('is measured, by its operation', async () => {
    const { core, clock, measured } = await withStore();
    const { result } = await core.admitWithin(50, 'alice');
    if (!result.admitted) return expect.unreachable();
    void result.manager.close({ reason: 'left' });
    await clock.advance(50);
    void core.ledger.leave();
    await clock.advance(50);
    expect(measured).toEqual([
      ['reserve', ANSWER_MS],
      ['release', ANSWER_MS],
      ['leave', ANSWER_MS],
    ]);
  });

  it.each([
    [false, false],
    [true, false],
    [false, true],
  ])('that fails is reported once, by its operation (throws: %s, late: %s)', async (throws, late) => {
    const { core, clock, store, failures } = await withStore();
    const { result } = await core.admitWithin(50, 'alice');
    if (!result.admitted) return expect.unreachable();
    if (late) store.delayMs = 10 * DEADLINE_MS;
    else Object.assign(store, { failsWith: new Error('away'), throws });
    const reason = late ? `Error: no answer within ${DEADLINE_MS} ms` : 'Error: away';

    void core.ledger.reserve(request('bob'));
    await clock.advance(AWAY_MS);
    expect(failures()).toEqual([['reserve', reason]]);
    void result.manager.close({ reason: 'left' });
    await clock.advance(DEADLINE_MS);
    // No admission waits for a release: a slow one is a success.
    expect(failures().slice(1)).toEqual(late ? [] : [['release', reason]]);
    void core.ledger.leave();
    await clock.advance(DEADLINE_MS);
    expect(failures()).toContainEqual(['leave', reason]);
  });

  it('may fail at the start: that is reported, and the node starts', async () => {
    const { core, failures } = await withStore({ failsWith: new Error('away') });
    expect(failures()).toEqual([['attach', 'Error: away']]);
    expect((await core.admitWithin(50, 'alice')).result.admitted).toBe(true);
  });

  it('that fails after its deadline is reported for that too', async () => {
    const { core, clock, store, failures } = await withStore();
    store.reserve = () =>
      new Promise((_, reject) => clock.setTimeout(() => reject(new Error('gone')), 2 * DEADLINE_MS));
    void core.ledger.reserve(request('alice'));
    await clock.advance(3 * DEADLINE_MS);
    expect(failures()).toEqual([
      ['reserve', `Error: no answer within ${DEADLINE_MS} ms`],
      ['reserve', 'Error: gone'],
    ]);
  });
});

describe('a store that fails', () => {
  it('is asked again for the same user after a quarter of a second, and for other users at once', async () => {
    const { core, clock, store, calls } = await withStore();
    Object.assign(store, { failsWith: new Error('away'), throws: true });
    void core.ledger.reserve(request('alice'));
    await clock.advance(AWAY_MS - 1);
    void core.ledger.reserve(request('alice', 'second'));
    expect(calls('reserve')).toBe(1);
    void core.ledger.reserve(request('bob', 'third'));
    expect(calls('reserve')).toBe(2);
    await clock.advance(1);
    void core.ledger.reserve(request('alice', 'fourth'));
    expect(calls('reserve')).toBe(3);
  });

  it('is stood in for by the count of this node', async () => {
    const { core, store } = await withStore();
    Object.assign(store, { failsWith: new Error('away'), throws: true });
    expect(core.ledger.reserve(request('alice'))).toEqual({ granted: true, count: 1, alone: true });
    core.placeMany(LIMIT - 1, { userId: 'alice' });
    expect(core.ledger.reserve(request('alice'))).toMatchObject({ granted: true, count: LIMIT });
    core.place({ userId: 'alice' });
    expect(core.ledger.reserve(request('alice'))).toMatchObject({
      granted: false,
      count: LIMIT,
      elsewhere: [],
    });
  });

  it('is told later of a manager that was admitted meanwhile, above the limit too', async () => {
    const { core, clock, store } = await withStore({ delayMs: undefined });
    for (let i = 0; i < LIMIT; i++) store.heldBy('alice').add(`elsewhere-${i}`);
    store.failsWith = new Error('away');
    const { result } = await core.admitWithin(50, 'alice');
    if (!result.admitted) return expect.unreachable();
    await clock.advance(1_000);
    store.failsWith = undefined;
    await clock.advance(2 * BACK_OFF_MS);
    expect(store.heldBy('alice')).toContain(result.manager.id);
    expect(core.ledger.isDegraded).toBe(false);
  });

  it('is told nothing of a manager that it was not asked about and that has gone', async () => {
    const { core, clock, store, calls } = await withStore({ delayMs: undefined });
    store.failsWith = new Error('away');
    await core.admitWithin(0, 'alice');
    const { result } = await core.admitWithin(0, 'alice');
    if (!result.admitted) return expect.unreachable();
    void result.manager.close({ reason: 'left' });
    await clock.settle();
    expect([calls('reserve'), calls('release')]).toEqual([1, 0]);
  });

  it.each([
    ['attach', async (core: Core) => core.ledger.start()],
    ['leave', async (core: Core) => core.ledger.leave()],
    ['release', async (core: Core) => core.ledger.giveBack(request('bob', 'other'), true)],
    ['reserve', async (core: Core) => void core.ledger.reserve(request('carol', 'other'))],
  ])('is no longer degraded after any success (%s)', async (_, succeed) => {
    const { core, clock, store } = await withStore();
    Object.assign(store, { failsWith: new Error('away'), throws: true });
    void core.ledger.reserve(request('alice'));
    expect(core.ledger.isDegraded).toBe(true);
    store.failsWith = undefined;
    void succeed(core);
    await clock.advance(20);
    expect(core.ledger.isDegraded).toBe(false);
  });

  it('may not know of who was let in meanwhile: what it grants beyond the limit, it gets back', async () => {
    const { core, clock, store } = await withStore({ delayMs: undefined });
    core.placeMany(LIMIT, { userId: 'alice' });
    expect(core.ledger.reserve(request('alice', 'newcomer'))).toMatchObject({ granted: false, count: LIMIT });
    await clock.settle();
    expect([...store.heldBy('alice')]).toEqual([]);
  });
});

describe('an answer after the deadline', () => {
  it('that is a no gives nothing back', async () => {
    const { core, clock, store, calls } = await withStore();
    for (let i = 0; i < LIMIT; i++) store.heldBy('alice').add(`elsewhere-${i}`);
    store.delayMs = 2 * DEADLINE_MS;
    void core.ledger.reserve(request('alice'));
    await clock.advance(10 * DEADLINE_MS);
    expect(calls('release')).toBe(0);
  });

  it('that grants the first try of an admission that goes on is given back, and its manager has a slot', async () => {
    const { core, clock, store, calls } = await withStore();
    core.placeMany(LIMIT, { userId: 'alice', connection: 'silent' });
    store.reserve = (asked) =>
      new Promise((resolve) =>
        clock.setTimeout(() => {
          store.heldBy('alice').add(asked.managerId);
          resolve({ granted: true, count: LIMIT });
        }, 2 * DEADLINE_MS),
      );
    const asked = core.admit('alice');
    await clock.advance(10 * BACK_OFF_MS);
    const { result } = await asked;
    if (!result.admitted) return expect.unreachable();
    expect(store.heldBy('alice')).toContain(result.manager.id);
    expect(store.heldBy('alice').size).toBe(1);
    expect(calls('release')).toBe(1 + 1);
  });

  it('that grants what a manager holds by now gives nothing back', async () => {
    const { core, clock, store, calls } = await withStore();
    store.delayMs = 2 * DEADLINE_MS;
    expect((await core.admitWithin(DEADLINE_MS, 'alice')).result.admitted).toBe(true);
    await clock.advance(10 * DEADLINE_MS);
    expect(calls('release')).toBe(0);
    expect(store.heldBy('alice').size).toBe(1);
  });
});

describe('a release', () => {
  async function withReleasesToFail(count: number) {
    const setup = await withStore({ delayMs: undefined });
    for (let i = 0; i < count; i++) await setup.core.admit('alice', { connection: 'none' });
    const close = () => {
      for (const manager of [...setup.core.registry.allManagers]) void manager.close({ reason: 'left' });
    };
    return { ...setup, close };
  }

  it('that went well is made once', async () => {
    const { core, clock, calls } = await withStore();
    const { result } = await core.admitWithin(50, 'alice');
    if (!result.admitted) return expect.unreachable();
    void result.manager.close({ reason: 'left' });
    await clock.advance(10 * AWAY_MS);
    expect(calls('release')).toBe(1);
  });

  it.each([true, false])(
    'that failed is repeated with a back-off until it succeeds (throws: %s)',
    async (throws) => {
      const { clock, store, calls, close } = await withReleasesToFail(1);
      Object.assign(store, { failsWith: new Error('away'), throws });
      close();
      const times: number[] = [];
      const startedAt = clock.now();
      for (let seen = 1; clock.now() < startedAt + 20_000; await clock.advance(25)) {
        if (calls('release') > seen) times.push(clock.now() - startedAt);
        seen = calls('release');
      }
      const pauses = times.map((at, i) => at - (times[i - 1] ?? 0));
      for (const [i, pause] of pauses.entries()) {
        const most = Math.min(BACK_OFF_MS, AWAY_MS * 2 ** i);
        expect(pause).toBeGreaterThanOrEqual(most / 2 - 50);
        expect(pause).toBeLessThanOrEqual(most + 50);
      }
      const failed = calls('release');
      store.failsWith = undefined;
      await clock.advance(4 * BACK_OFF_MS);
      expect(calls('release')).toBe(failed + 1);
      expect([...store.heldBy('alice')]).toEqual([]);
    },
  );

  it('that is slow is made once, is no failure, and clears no other', async () => {
    const { core, clock, store, calls, failures, close } = await withReleasesToFail(1);
    store.delayMs = 1.5 * DEADLINE_MS;
    close();
    await clock.advance(20 * DEADLINE_MS);
    expect(calls('release')).toBe(1);
    expect(failures()).toEqual([]);
    expect([...store.heldBy('alice')]).toEqual([]);
    expect(core.ledger.isDegraded).toBe(false);
  });

  it('that is never answered is reported, counts as lost, and is repeated', async () => {
    const { clock, store, calls, failures, close } = await withReleasesToFail(1);
    store.release = () => {
      store.calls.push('release');
      return new Promise(() => {});
    };
    close();
    await clock.advance(OVERDUE_MS + 50);
    expect(failures()).toEqual([['release', expect.stringContaining('no answer within 10')]]);
    await clock.advance(LOST_MS - OVERDUE_MS - 100);
    expect(calls('release')).toBe(1);
    await clock.advance(BACK_OFF_MS);
    expect(calls('release')).toBe(2);
  });

  it('that succeeds after it counted as lost is not repeated', async () => {
    const { core, clock, store, calls, close } = await withReleasesToFail(1);
    store.delayMs = LOST_MS + 60;
    close();
    await clock.advance(2 * LOST_MS + BACK_OFF_MS);
    expect(calls('release')).toBe(1);
    expect(core.ledger.owedBy('alice')).toBe(0);
  });

  it('has one of a bounded number of places, for the node and for each user', async () => {
    const { core, clock, store, calls } = await withStore({ delayMs: undefined });
    const users = Array.from({ length: 100 }, (_, i) => `user-${i}`);
    for (const user of ['alice', ...users])
      for (let i = 0; i < 10; i++) core.ledger.giveBack(request(user, `${user}-${i}`), true);
    expect(calls('release')).toBe(1_010);
    let [open, most] = [0, 0];
    const ofAlice = new Set<string>();
    store.release = (userId, managerId) => {
      if (userId === 'alice') ofAlice.add(managerId);
      most = Math.max(most, ++open, ofAlice.size > PLACES_OF_USER ? Number.POSITIVE_INFINITY : 0);
      return new Promise((resolve) =>
        clock.setTimeout(() => {
          ofAlice.delete(managerId);
          open--;
          resolve();
        }, 10),
      );
    };
    for (const user of ['alice', ...users])
      for (let i = 0; i < 10; i++) core.ledger.giveBack(request(user, `${user}-${i}`), true);
    expect([open, ofAlice.size]).toEqual([PLACES, PLACES_OF_USER]);
    await clock.advance(10 * (1_010 / PLACES + 10));
    expect([open, most]).toEqual([0, PLACES]);
    expect(core.ledger.owedBy('alice')).toBe(0);
  });

  it("of one user that hangs delays no other user's", async () => {
    const { core, clock, store } = await withStore({ delayMs: undefined });
    const released: string[] = [];
    const hanging = new Promise<void>(() => {});
    store.release = (userId) => {
      if (userId !== 'alice') released.push(userId);
      return userId === 'alice' ? hanging : undefined;
    };
    for (let i = 0; i < 10 * PLACES; i++) core.ledger.giveBack(request('alice', `alice-${i}`), true);
    core.ledger.giveBack(request('bob'), true);
    await clock.settle();
    expect(released).toEqual(['bob']);
  });

  it('that fails at once is not repeated without a pause, however many are owed', async () => {
    const { core, clock, store, calls } = await withStore({ failsWith: new Error('away'), throws: true });
    for (let i = 0; i < 10_000; i++) core.ledger.giveBack(request(`user-${i}`, `m-${i}`), true);
    expect(calls('release')).toBe(PLACES);
    await clock.advance(1_000);
    expect(calls('release')).toBeLessThanOrEqual(11 * PLACES);
    Object.assign(store, { failsWith: undefined, delayMs: undefined });
    await clock.advance(2 * BACK_OFF_MS);
    expect([core.ledger.owedBy('user-0'), core.ledger.owedBy('user-9999')]).toEqual([0, 0]);
  });

  it('is owed to nobody once this node has left', async () => {
    const { core, clock, store, calls, close } = await withReleasesToFail(1);
    store.failsWith = new Error('away');
    close();
    await clock.settle();
    store.failsWith = undefined;
    void core.ledger.leave();
    await clock.advance(10 * BACK_OFF_MS);
    expect(calls('leave')).toBe(1);
    expect(calls('release')).toBe(1);
  });

  it('that fails after this node has left is not tried again', async () => {
    const { core, clock, store, calls, close } = await withReleasesToFail(1);
    void core.ledger.leave();
    store.failsWith = new Error('away');
    close();
    await clock.advance(10 * AWAY_MS);
    expect(calls('release')).toBe(1);
  });
});

describe('leave()', () => {
  it('is repeated until it succeeds, and outstanding releases are attempted meanwhile', async () => {
    const { core, clock, store, calls } = await withStore();
    store.failsWith = new Error('away');
    core.ledger.giveBack(request('alice'), true);
    const left = core.ledger.leave(5_000);
    await clock.advance(2_000);
    expect(calls('leave')).toBeGreaterThan(2);
    expect(calls('release')).toBeGreaterThan(1);
    store.failsWith = undefined;
    await clock.advance(2_000);
    await left;
    const made = calls('leave');
    await clock.advance(10_000);
    expect(calls('leave')).toBe(made);
    expect(clock.timerCount).toBe(2);
  });

  it('has a second attempt where the first hangs, and ends with its time', async () => {
    const { core, clock, store, calls, failures } = await withStore();
    store.leave = () => {
      store.calls.push('leave');
      return new Promise(() => {});
    };
    const startedAt = clock.now();
    const left = core.ledger.leave(1_000).then(() => clock.now() - startedAt);
    await clock.advance(2_000);
    expect(await left).toBe(1_000);
    expect(calls('leave')).toBeGreaterThanOrEqual(2);
    expect(failures().length).toBe(calls('leave'));
  });

  it('releases a slot that is granted afterwards', async () => {
    const { core, clock, store } = await withStore();
    store.delayMs = 2 * DEADLINE_MS;
    void core.ledger.reserve(request('alice'));
    store.delayMs = ANSWER_MS;
    void core.ledger.leave();
    await clock.advance(10 * DEADLINE_MS);
    expect([...store.heldBy('alice')]).toEqual([]);
  });
});

describe('an answer that is none', () => {
  const holder = { managerId: 'm', suspect: false, idle: false, busy: false, priority: 0, ageMs: 1 };
  const answers: [unknown, string][] = [
    [undefined, 'got undefined, expected { granted: boolean, count: an integer >= 0 }'],
    [null, 'got null, expected'],
    [true, 'got true, expected'],
    [{ granted: true }, 'got { granted: true }, expected'],
    [{ granted: 1, count: 1 }, 'got { granted: 1, count: 1 }, expected'],
    [{ granted: false, count: Number.NaN }, 'count: NaN }, expected'],
    [{ granted: true, count: -1 }, 'count: -1 }, expected'],
    [{ granted: true, count: 1.5 }, 'count: 1.5 }, expected'],
    [{ granted: false, count: LIMIT - 1 }, `expected granted: true, or a count >= ${LIMIT}`],
    [
      { granted: false, count: LIMIT, elsewhere: 'none' },
      "elsewhere: 'none' }, expected elsewhere: an array",
    ],
    [
      { granted: false, count: LIMIT, elsewhere: [null] },
      'elsewhere: [ null ] }, expected elsewhere: an array',
    ],
    [{ granted: false, count: LIMIT, elsewhere: [holder] }, 'expected elsewhere: an array'],
    [
      { granted: false, count: LIMIT, elsewhere: [{ ...holder, inactiveForMs: Number.NaN }] },
      'expected elsewhere',
    ],
  ];

  it.each(answers)('counts as a failure that names it: %j', async (answer, message) => {
    for (const atOnce of [true, false]) {
      const { core, clock, store, failures } = await withStore();
      store.reserve = () => (atOnce ? answer : Promise.resolve(answer)) as never;
      const admission = await core.admitWithin(DEADLINE_MS, 'alice');
      expect(admission.result.admitted).toBe(true);
      expect(failures()).toEqual([['reserve', expect.stringContaining(`store.reserve: `)]]);
      expect(failures()[0]?.[1]).toContain(message);
      await clock.advance(10);
      expect(core.ledger.isDegraded).toBe(true);
    }
  });

  it('evicts no session, whatever it says of the count', async () => {
    for (const [answer] of answers) {
      const { core, store } = await withStore();
      const placed = core.placeMany(LIMIT - 1, { userId: 'alice' });
      store.reserve = () => Promise.resolve(answer) as never;
      expect((await core.admitWithin(DEADLINE_MS, 'alice')).result.admitted).toBe(true);
      expect(placed.every(({ manager }) => manager.isOpen)).toBe(true);
    }
  });

  it('is not the absence of holders elsewhere', async () => {
    const { core, store } = await withStore();
    store.reserve = () => ({ granted: false, count: LIMIT }) as never;
    expect(await core.ledger.reserve(request('alice'))).toEqual({ granted: false, count: LIMIT });
    expect(core.ledger.isDegraded).toBe(false);
  });
});

describe('what the store may ask of its node', () => {
  it('is who is here', async () => {
    const { core, store } = await withStore();
    const { manager } = core.place({ userId: 'alice' });
    expect(store.host?.countOf('alice')).toBe(1);
    expect(store.host?.countOf('nobody')).toBe(0);
    expect(store.host?.has(manager.id)).toBe(true);
    expect(store.host?.has('nobody')).toBe(false);
  });

  it('is the end of a manager that was taken over, with what is known of it', async () => {
    const { core, clock, store } = await withStore();
    const { manager, socket } = core.place({ userId: 'alice', openedAgoMs: 60_000, activeAgoMs: 9_000 });
    socket?.trickle();
    socket?.connection.lookForBytes();
    await clock.advance(2_000);
    store.host?.evict(manager.id);
    expect(core.reportedOf('evicted')).toMatchObject([
      {
        managerId: manager.id,
        reason: 'evicted',
        evidence: { signal: 'taken_over', silentForMs: 2_000, inactiveForMs: 11_000, missedPongs: 0 },
      },
    ]);
  });

  it('may be the end of one that is gone already', async () => {
    const { store } = await withStore();
    expect(() => store.host?.evict('nobody')).not.toThrow();
  });
});
