import { describe, expect, it } from 'vitest';
import { FakeClock } from '../../src/testing/index.js';
import { Core } from '../support/core.js';
import { ScriptedStore } from '../support/scripted-store.js';

const LIMIT = 3;
const ANSWER_MS = 5;
/** What a call to the store may take. */
const DEADLINE_MS = 100;
/** How long a store that failed is left alone, and how often a release is tried again. */
const AWAY_MS = 250;

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
    expect(failures().slice(1)).toEqual([['release', reason]]);
    void core.ledger.leave();
    await clock.advance(DEADLINE_MS);
    expect(failures().at(-1)).toEqual(['leave', reason]);
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

describe('a store that is away', () => {
  it('is asked again after a quarter of a second, and not before', async () => {
    const { core, clock, store, calls } = await withStore();
    Object.assign(store, { failsWith: new Error('away'), throws: true });
    void core.ledger.reserve(request('alice'));
    await clock.advance(AWAY_MS - 1);
    void core.ledger.reserve(request('alice'));
    expect(calls('reserve')).toBe(1);
    await clock.advance(1);
    void core.ledger.reserve(request('alice'));
    expect(calls('reserve')).toBe(2);
  });

  it('is stood in for by the count of this node', async () => {
    const { core, store } = await withStore();
    Object.assign(store, { failsWith: new Error('away'), throws: true });
    expect(core.ledger.reserve(request('alice'))).toEqual({ granted: true, count: 1 });
    core.placeMany(LIMIT - 1, { userId: 'alice' });
    expect(core.ledger.reserve(request('alice'))).toEqual({ granted: true, count: LIMIT });
    core.place({ userId: 'alice' });
    expect(core.ledger.reserve(request('alice'))).toEqual({ granted: false, count: LIMIT, elsewhere: [] });
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

  it.each([true, false])('that failed is tried again until it went well (throws: %s)', async (throws) => {
    const { clock, store, calls, close } = await withReleasesToFail(1);
    Object.assign(store, { failsWith: new Error('away'), throws });
    close();
    await clock.advance(4 * AWAY_MS);
    expect(calls('release')).toBe(5);
    store.failsWith = undefined;
    await clock.advance(10 * AWAY_MS);
    expect(calls('release')).toBe(6);
    expect([...store.heldBy('alice')]).toEqual([]);
  });

  it('waits for the next try with all others that failed', async () => {
    const { clock, store, calls, close } = await withReleasesToFail(LIMIT);
    const timers = clock.timerCount;
    store.failsWith = new Error('away');
    close();
    await clock.settle();
    expect(clock.timerCount - timers).toBe(1);
    store.failsWith = undefined;
    await clock.advance(AWAY_MS);
    expect(calls('release')).toBe(2 * LIMIT);
    expect([...store.heldBy('alice')]).toEqual([]);
  });

  it('is owed to nobody once this node has left', async () => {
    const { core, clock, store, calls, close } = await withReleasesToFail(1);
    store.failsWith = new Error('away');
    close();
    await clock.settle();
    void core.ledger.leave();
    await clock.advance(10 * AWAY_MS);
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
