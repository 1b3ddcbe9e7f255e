import { describe, expect, it } from 'vitest';
import type {
  SlotHolder,
  SlotReply,
  SlotRequest,
  SlotStore,
} from '../../src/options/slot-store.interface.js';
import { Core, type CoreOptions } from '../support/core.js';

const LIMIT = 3;
const GRACE_MS = 5_000;

function holder(managerId: string, more: Partial<SlotHolder> = {}): SlotHolder {
  return {
    managerId,
    suspect: false,
    idle: false,
    busy: false,
    priority: 0,
    ageMs: 60_000,
    inactiveForMs: 1_000,
    ...more,
  };
}

/** A store of a cluster in which all slots of everybody are taken on other nodes. */
class FullElsewhere implements SlotStore {
  readonly name = 'cluster';
  readonly taken: string[] = [];
  granting = true;
  count = LIMIT;

  constructor(private readonly holders: readonly SlotHolder[]) {}

  attach(): void {}
  release(): void {}
  leave(): void {}

  reserve({ insteadOf, limit }: SlotRequest): SlotReply {
    if (insteadOf !== undefined && this.granting) {
      this.taken.push(insteadOf);
      return { granted: true, count: this.count };
    }
    if (this.count < limit) return { granted: true, count: this.count + 1 };
    return { granted: false, count: this.count, elsewhere: this.holders };
  }
}

async function withHolders(holders: readonly SlotHolder[], options: CoreOptions = {}) {
  const store = new FullElsewhere(holders);
  const core = await Core.start({
    store,
    limits: { managersPerUser: LIMIT },
    cleanup: { graceMs: GRACE_MS },
    ...options,
  });
  return { store, core };
}

describe('at the limit, with all sessions on other nodes', () => {
  it.each<[string, SlotHolder[], string]>([
    ['a suspect one, whatever it is worth', [holder('a'), holder('b', { suspect: true, priority: 9 })], 'b'],
    ['a suspect one, in its grace too', [holder('a'), holder('b', { suspect: true, ageMs: 0 })], 'b'],
    ['the lowest priority', [holder('a', { priority: 1, idle: true }), holder('b')], 'b'],
    [
      'an idle one before one in use',
      [holder('a', { inactiveForMs: 9_000 }), holder('b', { idle: true })],
      'b',
    ],
    [
      'one that is not busy before a busy one',
      [holder('a', { busy: true, inactiveForMs: 9_000 }), holder('b')],
      'b',
    ],
    ['the one active longest ago', [holder('a'), holder('b', { inactiveForMs: 2_000 })], 'b'],
    ['one out of its grace', [holder('a', { ageMs: GRACE_MS - 1, idle: true }), holder('b')], 'b'],
    ['one just out of its grace', [holder('a', { ageMs: GRACE_MS, idle: true }), holder('b')], 'a'],
  ])('the newcomer takes the place of %s', async (_, holders, victim) => {
    for (const order of [holders, [...holders].reverse()]) {
      const { core, store } = await withHolders(order);
      const { result } = await core.admitWithin(50, 'alice');
      expect(result).toMatchObject({ admitted: true, outcome: 'admitted_after_cleanup' });
      expect(store.taken).toEqual([victim]);
      expect(core.reportedOf('admitted')).toMatchObject([{ pressure: 1 }]);
    }
  });

  it.each([
    [true, true],
    [false, false],
  ])(
    'a suspect one costs nothing of the budget, a living one does (suspect: %s)',
    async (suspect, isLeft) => {
      const { core } = await withHolders([holder('a', { suspect })], {
        limits: { managersPerUser: LIMIT },
        cleanup: { graceMs: GRACE_MS, forcedEvictionBurst: 1 },
      });
      const { result } = await core.admitWithin(50, 'alice');
      if (!result.admitted) return expect.unreachable();
      expect(core.cleanup.mayForceEviction(result.manager.user)).toBe(isLeft);
    },
  );

  it('of which none is out of its grace, the newcomer is told when to come back', async () => {
    const { core, store } = await withHolders([holder('a', { ageMs: 1_000 })]);
    const { result } = await core.admitWithin(50, 'alice');
    expect(result).toMatchObject({ admitted: false, reason: 'over_limit' });
    expect(store.taken).toEqual([]);
  });

  it('and a store that changes its mind, the newcomer is refused', async () => {
    const { core, store } = await withHolders([holder('a')]);
    store.granting = false;
    const { result } = await core.admitWithin(50, 'alice');
    expect(result).toMatchObject({ admitted: false, reason: 'over_limit' });
  });

  it('a session that was evicted lately takes the place of the suspect only', async () => {
    for (const isSuspect of [false, true]) {
      const { core, store } = await withHolders([holder('a'), holder('b', { suspect: isSuspect })]);
      const { manager } = core.place({ userId: 'alice', sessionKey: 'tab', openedAgoMs: 60_000 });
      void manager.close({ reason: 'evicted' });
      const { result } = await core.admitWithin(50, 'alice', { sessionKey: 'tab' });
      expect(result.admitted).toBe(isSuspect);
      expect(store.taken).toEqual(isSuspect ? ['b'] : []);
    }
  });

  it('one of this node that costs nothing goes before any of another node', async () => {
    const { core, store } = await withHolders([holder('a', { suspect: true })]);
    const { manager } = core.place({ userId: 'alice', connection: 'closed', openedAgoMs: 60_000 });
    core.registry.observe({
      managerRemoved: () => {
        store.count = LIMIT - 1;
      },
    });
    const { result } = await core.admitWithin(50, 'alice');
    expect(result.admitted).toBe(true);
    expect(manager.isOpen).toBe(false);
    expect(store.taken).toEqual([]);
  });
});

describe('once a drain has begun', () => {
  it('no session of another node is taken over', async () => {
    const { core, store } = await withHolders([holder('a')]);
    // Its probe takes half a second, and it is in its grace period.
    core.place({ userId: 'alice', connection: { answersAfterMs: 500 }, openedAgoMs: 0 });
    const admission = core.admit('alice');
    await core.clock.advance(100);
    core.drain.begin();
    await core.clock.advance(2_000);
    expect((await admission).result).toMatchObject({ admitted: false, reason: 'draining' });
    expect(store.taken).toEqual([]);
  });

  it('a slot that was asked for before is given back', async () => {
    const { core, store } = await withHolders([holder('a')]);
    const released: string[] = [];
    store.release = ((_: string, managerId: string) => released.push(managerId)) as never;
    const reserve = store.reserve.bind(store);
    const asked: string[] = [];
    store.reserve = ((request: SlotRequest) => {
      if (request.insteadOf === undefined) return reserve(request);
      asked.push(request.managerId);
      return new Promise((resolve) => core.clock.setTimeout(() => resolve(reserve(request)), 50));
    }) as never;
    const admission = core.admit('alice');
    await core.clock.advance(20);
    core.drain.begin();
    await core.clock.advance(100);
    expect((await admission).result).toMatchObject({ admitted: false, reason: 'draining' });
    expect(asked).toHaveLength(1);
    expect(released).toEqual(asked);
  });
});

it('a session that was evicted here is the only one, when another node takes the slot', async () => {
  const { core, store } = await withHolders([holder('a'), holder('b')]);
  const { manager } = core.place({ userId: 'alice', openedAgoMs: 60_000 });
  const { result } = await core.admitWithin(1_100, 'alice');
  expect(result).toMatchObject({ admitted: false, reason: 'over_limit' });
  expect(manager.isOpen).toBe(false);
  expect([core.reportedOf('evicted').length, store.taken]).toEqual([1, []]);
});

describe('the pressure of a user', () => {
  it('counts sessions on other nodes', async () => {
    const { core, store } = await withHolders([], { limits: { managersPerUser: 10 } });
    store.count = 7;
    await core.admitWithin(50, 'alice');
    expect(core.reportedOf('admitted')).toMatchObject([{ pressure: 0.8 }]);
    expect([...core.registry.usersUnderPressure].map(({ userId }) => userId)).toEqual(['alice']);
    expect(core.reportedOf('cleanup_finished')).toMatchObject([
      { level: 'aggressive', trigger: 'proactive' },
    ]);
  });
});

it('a newcomer for whom nobody may go, here or elsewhere, is told after one cleanup', async () => {
  const { core } = await withHolders([holder('a', { ageMs: 0 }), holder('b', { ageMs: 0 })]);
  core.place({ userId: 'alice', openedAgoMs: 0 });
  const { result } = await core.admitWithin(1_100, 'alice');
  expect(result).toMatchObject({ admitted: false, reason: 'over_limit' });
  const cleanups = core.reportedOf('cleanup_finished').filter(({ trigger }) => trigger === 'admission');
  expect(cleanups).toHaveLength(1);
});
