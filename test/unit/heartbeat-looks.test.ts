import { describe, expect, it } from 'vitest';
import type { FakeSocket } from '../../src/testing/index.js';
import { Core } from '../support/core.js';

const heartbeat = (intervalMs: number, missedBeforeZombie = 2) => ({
  heartbeat: { intervalMs, missedBeforeZombie },
});

/** Advances until the manager of the socket has ended: how long that took, in steps of `stepMs`. */
async function foundAfter(core: Core, socket: FakeSocket, mostMs: number, stepMs = 1): Promise<number> {
  const startedAt = core.clock.now();
  const { manager } = socket.connection;
  while (manager.isOpen && core.clock.now() - startedAt < mostMs) await core.clock.advance(stepMs);
  return manager.isOpen ? Number.POSITIVE_INFINITY : core.clock.now() - startedAt;
}

describe('the first ping', () => {
  it.each([
    [60_000, 2_000],
    [15_000, 2_000],
    [1_000, 750],
    [100, 75],
  ])('comes, with an interval of %d ms, after %d', async (intervalMs, firstMs) => {
    const core = await Core.start(heartbeat(intervalMs));
    const tick = core.heartbeat.tickMs;
    const { socket } = await core.admit('alice');
    await core.clock.advance(firstMs - tick - 1);
    expect(socket?.pings).toBe(0);
    await core.clock.advance(3 * tick + 2);
    expect(socket?.pings).toBe(1);
  });
});

describe('what the heartbeat sees on its way', () => {
  it('is the bytes that wait to be sent, which go with their connection', async () => {
    const core = await Core.start(heartbeat(1_000));
    const [one, two] = core.placeMany(2, { userId: 'alice' });
    Object.assign(one?.socket ?? {}, { bufferedAmount: 70 });
    Object.assign(two?.socket ?? {}, { bufferedAmount: 7 });
    await core.clock.advance(1_000);
    expect(core.registry.bufferedBytes).toBe(77);
    Object.assign(one?.socket ?? {}, { bufferedAmount: 20 });
    await core.clock.advance(1_000);
    expect(core.registry.bufferedBytes).toBe(27);
    void one?.manager.close({ reason: 'left' });
    expect(core.registry.bufferedBytes).toBe(7);
  });

  it('is a backlog that was sent around us', async () => {
    const core = await Core.start({ ...heartbeat(1_000), limits: { maxBufferedBytes: 100 } });
    const { socket } = core.place({ userId: 'alice' });
    Object.assign(socket as FakeSocket, { bufferedAmount: 101 });
    await core.clock.advance(1_600);
    expect(socket?.closeAsked?.code).toBe(4108);
  });

  it('is how long ago it came round last', async () => {
    const core = await Core.start(heartbeat(1_000));
    await core.clock.advance(10 * core.heartbeat.tickMs);
    expect(core.heartbeat.sinceLastTickMs).toBe(0);
    core.detector.stop();
    await core.clock.advance(700);
    expect(core.heartbeat.sinceLastTickMs).toBe(700);
  });
});

describe('a ping that waits in our own queue', () => {
  it('has asked nobody, and is held against nobody', async () => {
    const core = await Core.start(heartbeat(1_000));
    const { socket } = core.place({ userId: 'alice', connection: 'silent', openedAgoMs: 0 });
    if (!socket) return expect.unreachable();
    socket.isStuck = true;
    socket.send('x'.repeat(1_000));
    for (let i = 0; i < 20; i++) {
      await core.clock.advance(1_000);
      socket.bytesQueued--;
    }
    expect(core.count('alice')).toBe(1);
    // Once the peer has taken it, its time runs.
    socket.bytesQueued = 0;
    expect(await foundAfter(core, socket, 3_100, 25)).toBeGreaterThan(1_000);
    expect(core.count('alice')).toBe(0);
  });
});

describe('a tick that comes late', () => {
  it.each([
    // Two ticks, or a tenth of a second where they are shorter.
    [15_000, 230, 0],
    [15_000, 500, 1],
    [1_000, 100, 0],
    [1_000, 140, 1],
  ])(
    'with an interval of %d ms, after a stall of %d, is left out: %d',
    async (intervalMs, stallMs, voids) => {
      const core = await Core.start({ ...heartbeat(intervalMs), cleanup: { intervalMs: 3_600_000 } });
      core.place({ userId: 'alice' });
      // Stops right after a tick.
      await core.clock.advance(Math.ceil(core.heartbeat.tickMs) * 8);
      while (core.heartbeat.sinceLastTickMs > 0) await core.clock.advance(1);
      const before = core.counters.eventLoopVoids;
      await core.clock.stall(stallMs);
      expect(core.counters.eventLoopVoids - before).toBe(voids);
    },
  );
});
