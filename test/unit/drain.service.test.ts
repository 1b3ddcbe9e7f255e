import { describe, expect, it } from 'vitest';
import { DrainService } from '../../src/admission/drain.service.js';
import type { GatewayHooks } from '../../src/admission/gateway-hooks.js';
import type { Refusals } from '../../src/admission/refusal.js';
import { FakeClock, type FakeSocket } from '../../src/testing/index.js';
import { Core } from '../support/core.js';
import { ScriptedStore } from '../support/scripted-store.js';

interface Setup {
  readonly spreadMs?: number;
  readonly timeoutMs?: number;
  /** What else is waited for. */
  readonly hooksDone?: Promise<void>;
  readonly refusedGone?: Promise<void>;
}

async function setup({ spreadMs = 1_000, timeoutMs = 5_000, hooksDone, refusedGone }: Setup = {}) {
  const clock = new FakeClock();
  const store = new ScriptedStore(clock);
  const core = await Core.start({ store, drain: { spreadMs, timeoutMs } }, clock);
  const drain = new DrainService(
    clock,
    core.registry,
    core.ledger,
    { whenDisconnected: async () => hooksDone } as GatewayHooks,
    { whenHeldAreGone: async () => refusedGone } as Refusals,
    core.drain,
    core.events,
    core.options,
  );
  let drainedAt: number | undefined;
  const startedAt = clock.now();
  const start = () => {
    void drain.drain().then(() => {
      drainedAt = clock.now() - startedAt;
    });
    return clock.settle();
  };
  return { core, clock, store, drain, start, drainedAt: () => drainedAt };
}

const placeMany = (core: Core, count: number) =>
  core
    .placeMany(count, (i) => ({ userId: `user-${i}`, openedAgoMs: 60_000 }))
    .map(({ socket }) => socket as FakeSocket);
const closed = (sockets: readonly FakeSocket[]) => sockets.filter(({ closeAsked }) => closeAsked).length;

describe('a drain', () => {
  it('is said once, with how many there are', async () => {
    const { core, drain } = await setup();
    placeMany(core, 3);
    drain.begin();
    drain.begin();
    expect(core.drain.isDraining).toBe(true);
    expect(core.reportedOf('draining')).toMatchObject([{ phase: 'started', connections: 3, terminated: 0 }]);
  });

  it('tells every connection, each with a time of its own, sessions of several connections too', async () => {
    const { core, clock, start, drainedAt } = await setup();
    const { manager, socket } = core.place({ userId: 'alice', sessionKey: 'tab', openedAgoMs: 60_000 });
    const sockets = [socket as FakeSocket, ...Array.from({ length: 3 }, () => core.attach(manager))];
    await start();
    await clock.advance(1_000);
    const told = sockets.map(({ sent }) => JSON.parse(sent[0] ?? '') as { data: { retryAfterMs: number } });
    for (const { data } of told) expect(data).toMatchObject({ code: 1012, reason: 'draining' });
    expect(new Set(told.map(({ data }) => data.retryAfterMs)).size).toBeGreaterThan(1);
    expect(sockets.map(({ closeAsked }) => closeAsked?.code)).toEqual([1012, 1012, 1012, 1012]);
    expect(manager.endedBy).toBe('draining');
    expect(drainedAt()).toBeLessThan(50);
  });

  it.each([
    // Ten, one each tenth of the spread.
    [10, 1_000, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 100],
    // Waves are not closer than 20 ms.
    [200, 100, [40, 80, 120, 160, 200], 20],
    [7, 60, [3, 6, 7], 20],
    [5, 0, [5], 20],
    [5, 10, [5], 20],
  ])('of %d sessions is spread over %d ms', async (count, spreadMs, waves, everyMs) => {
    const { core, clock, start } = await setup({ spreadMs });
    const sockets = placeMany(core, count);
    await start();
    for (const expected of waves) {
      expect(closed(sockets)).toBe(expected);
      await clock.advance(everyMs);
    }
    expect(core.registry.managerCount).toBe(0);
  });

  it('has no order that a client could find itself in', async () => {
    const first = new Set<number>();
    for (let i = 0; i < 60; i++) {
      const { core, start } = await setup();
      const sockets = placeMany(core, 4);
      await start();
      first.add(sockets.findIndex(({ closeAsked }) => closeAsked));
    }
    expect([...first].sort()).toEqual([0, 1, 2, 3]);
  });

  it('cuts off what is left at its end, says how many, and then leaves the store', async () => {
    const { core, clock, store, start, drainedAt } = await setup({ spreadMs: 100, timeoutMs: 2_000 });
    const sockets = placeMany(core, 4);
    sockets[1]?.become('silent');
    await start();
    await clock.advance(1_999);
    expect(sockets.map(({ terminated }) => terminated)).toEqual([false, false, false, false]);
    expect(store.calls).not.toContain('leave');
    await clock.advance(10);
    expect(sockets.map(({ terminated }) => terminated)).toEqual([false, true, false, false]);
    expect(store.calls).toContain('leave');
    expect(drainedAt()).toBe(2_005);
    expect(core.reportedOf('draining')[1]).toMatchObject({
      phase: 'finished',
      connections: 4,
      terminated: 1,
    });
  });

  it('tells the store again until it succeeds, within its time', async () => {
    const { core, clock, store, start, drainedAt } = await setup();
    const sockets = placeMany(core, 2);
    for (const socket of sockets) socket.become('answers');
    store.failsWith = new Error('away');
    await start();
    await clock.advance(3_000);
    expect(store.calls.filter((call) => call === 'leave').length).toBeGreaterThan(1);
    expect(drainedAt()).toBeUndefined();
    store.failsWith = undefined;
    await clock.advance(2_000);
    expect(drainedAt()).toBeLessThan(5_000);
  });

  it('has time for a second attempt where the closes have taken all of it', async () => {
    const { core, clock, store, start, drainedAt } = await setup({ hooksDone: new Promise(() => {}) });
    placeMany(core, 2);
    let attempts = 0;
    store.leave = async () => {
      if (++attempts === 1) throw new Error('away');
    };
    await start();
    await clock.advance(6_001);
    expect([attempts, core.reportedOf('store_failed').length]).toEqual([2, 1]);
    expect(drainedAt()).toBeLessThanOrEqual(6_000);
  });

  it('counts who was cut off before its end for want of an answer', async () => {
    const { core, clock, start, drainedAt } = await setup({ spreadMs: 100, timeoutMs: 2_000 });
    const sockets = placeMany(core, 3);
    sockets[1]?.become('silent');
    await start();
    await clock.advance(500);
    sockets[1]?.terminate();
    await clock.advance(10);
    expect(drainedAt()).toBeLessThan(600);
    expect(core.reportedOf('draining')[1]).toMatchObject({ connections: 3, terminated: 1 });
  });

  it.each([
    ['disconnect hooks of the application', 'hooksDone'],
    ['refused clients that are held', 'refusedGone'],
  ])('waits for %s', async (_, what) => {
    let settle = () => {};
    const done = new Promise<void>((resolve) => {
      settle = resolve;
    });
    const { core, clock, start, drainedAt } = await setup({ [what]: done });
    placeMany(core, 2);
    await start();
    await clock.advance(1_500);
    expect(drainedAt()).toBeUndefined();
    settle();
    await clock.advance(10);
    expect(drainedAt()).toBeLessThanOrEqual(1_510);
  });

  it('is one, however often it is asked for', async () => {
    const { core, clock, drain } = await setup();
    placeMany(core, 2);
    expect(drain.drain()).toBe(drain.drain());
    await clock.advance(2_000);
    expect(core.reportedOf('draining')).toHaveLength(2);
  });

  it('of nobody is over at once', async () => {
    const { clock, start, drainedAt } = await setup();
    await start();
    await clock.advance(10);
    expect(drainedAt()).toBeLessThanOrEqual(5);
  });
});
