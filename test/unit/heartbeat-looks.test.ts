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
    [60_000, 1_500, 2_250],
    [16_000, 1_333, 2_000],
    [15_000, 1_500, 2_250],
    [13_000, 1_300, 1_950],
    // Nearly half a tick late, and none is later.
    [11_420, 1_713, 2_284],
    [9_000, 1_350, 1_800],
    [5_000, 1_750, 2_000],
    [1_000, 700, 750],
    [100, 50, 75],
  ])('comes, with an interval of %d ms, after %d to %d', async (intervalMs, fromMs, toMs) => {
    const core = await Core.start(heartbeat(intervalMs));
    // Whenever it comes between two ticks.
    for (const share of [0.1, 0.5, 0.9]) {
      while (core.heartbeat.sinceLastTickMs > 0) await core.clock.advance(1);
      await core.clock.advance(Math.round(share * core.heartbeat.tickMs));
      const { socket } = await core.admit('alice');
      await core.clock.advance(fromMs - 2);
      expect(socket?.pings).toBe(0);
      await core.clock.advance(toMs - fromMs + 4);
      expect(socket?.pings).toBe(1);
    }
  });
});

describe('a slot with many connections', () => {
  const MANY = 3_000;
  const limits = { managersPerUser: MANY };

  it('is looked at in pieces, and what comes in meanwhile is read between them', async () => {
    const core = await Core.start({ ...heartbeat(15_000), limits });
    const placed = core.placeMany(MANY, { userId: 'alice', openedAgoMs: 0 });
    const pingsInTurn: number[] = [];
    let isNewTurn = true;
    for (const { socket } of placed) {
      if (!socket) return expect.unreachable();
      const ping = socket.ping.bind(socket);
      socket.ping = () => {
        if (isNewTurn) {
          isNewTurn = false;
          pingsInTurn.push(0);
          core.clock.afterReads(() => {
            isNewTurn = true;
          });
        }
        pingsInTurn.push((pingsInTurn.pop() ?? 0) + 1);
        ping();
      };
    }
    await core.clock.advance(15_000);
    expect(pingsInTurn.reduce((a, b) => a + b, 0)).toBe(MANY);
    // A fifth of them each time, which is more than are asked at once.
    expect(Math.max(...pingsInTurn)).toBe(250);
    expect(placed.filter(({ socket }) => socket?.pings === 1)).toHaveLength(MANY);
  });

  it('leaves nobody out where the next one is due before the last piece', async () => {
    const core = await Core.start({ ...heartbeat(1_000), limits });
    const placed = core.placeMany(MANY, { userId: 'alice', openedAgoMs: 0 });
    // Late, but not so late that it does not count: two slots come up at once.
    for (let i = 0; i < 100; i++) await core.clock.stall(core.heartbeat.tickMs + 90);
    const pings = placed.map(({ socket }) => socket?.pings ?? 0);
    expect(Math.min(...pings)).toBeGreaterThan(5);
    expect(Math.max(...pings) - Math.min(...pings)).toBeLessThanOrEqual(1);
  });

  it('ends nobody before all of it have been looked at, which may show that the fault is ours', async () => {
    const core = await Core.start({ ...heartbeat(160, 1), limits });
    core.placeMany(MANY, { userId: 'alice', connection: 'silent', openedAgoMs: 0 });
    await core.clock.advance(400);
    expect(core.reportedOf('self_preservation')).toMatchObject([
      { active: true, silent: MANY, connections: MANY },
    ]);
    expect(core.count('alice')).toBe(MANY);
  });

  it('is let go with the heartbeat', async () => {
    const core = await Core.start({ ...heartbeat(15_000), limits });
    const placed = core.placeMany(MANY, { userId: 'alice', openedAgoMs: 0 });
    const asked = () => placed.filter(({ socket }) => socket?.pings === 1).length;
    const { socket } = placed[0] ?? {};
    if (!socket) return expect.unreachable();
    const ping = socket.ping.bind(socket);
    let askedInTime = 0;
    socket.ping = () => {
      ping();
      core.detector.stop();
      core.clock.afterReads(() => {
        askedInTime = asked();
      });
    };
    await core.clock.advance(15_000);
    expect(askedInTime).toBeGreaterThan(0);
    expect(asked()).toBe(askedInTime);
  });

  it('does not look at who has ended before its piece', async () => {
    const core = await Core.start({ ...heartbeat(15_000), limits });
    const placed = core.placeMany(MANY, { userId: 'alice', openedAgoMs: 0 });
    const [{ socket: first, manager: one } = {}, ...others] = placed;
    const slot = first?.connection.slot;
    const inLastPiece = others.filter(({ socket }) => {
      const { connection } = socket ?? {};
      return connection?.slot === slot && (connection?.position ?? 0) >= 500;
    });
    expect(inLastPiece.length).toBeGreaterThan(50);
    if (!first || !one) return expect.unreachable();
    const ping = first.ping.bind(first);
    let looks = 0;
    first.ping = () => {
      ping();
      for (const { manager, socket } of inLastPiece) {
        void manager.close({ reason: 'left' });
        Object.defineProperty(socket, 'paused', {
          get: () => {
            looks++;
            return false;
          },
        });
        Object.defineProperty(socket, 'state', { get: () => 'open', set: () => undefined });
      }
    };
    await core.clock.advance(15_000);
    expect(first.pings).toBe(1);
    expect(looks).toBe(0);
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
    Object.assign(socket as FakeSocket, { isStuck: true });
    socket?.send('x'.repeat(101));
    await core.clock.advance(400);
    expect(socket?.closeAsked).toBeUndefined();
    await core.clock.advance(1_200);
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
    expect(await foundAfter(core, socket, 3_550, 25)).toBeGreaterThan(1_000);
    expect(core.count('alice')).toBe(0);
  });
});

describe('a tick that comes late', () => {
  it.each([
    // A tick and a tenth of a second.
    [15_000, 840, 0],
    [15_000, 860, 1],
    [1_000, 140, 0],
    [1_000, 160, 1],
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
