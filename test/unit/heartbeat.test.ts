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

describe('a silent client', () => {
  const cases = [
    [100, 2],
    [1_000, 1],
    [1_000, 2],
    [1_000, 3],
    [3_300, 2],
    [15_000, 1],
    [15_000, 2],
    [60_000, 2],
  ] as const;

  it.each(cases)(
    'is found in at most (missed + 1) x interval: interval %d, missed %d',
    async (intervalMs, missed) => {
      for (let phase = 0; phase < 12; phase++) {
        const core = await Core.start(heartbeat(intervalMs, missed));
        const { socket } = await core.admit('alice');
        if (!socket) return expect.unreachable();
        // Past its first ping, at one of many phases of the beat.
        await core.clock.advance(3_000 + 2 * intervalMs + (phase / 12) * intervalMs);
        socket.receive();
        socket.become('silent');
        const tookMs = await foundAfter(
          core,
          socket,
          (missed + 1) * intervalMs,
          Math.max(1, intervalMs / 100),
        );
        expect(tookMs, `phase ${phase}`).toBeLessThanOrEqual((missed + 1) * intervalMs);
        expect(tookMs, `phase ${phase}`).toBeGreaterThan(missed * intervalMs);
        expect(core.reportedOf('zombie_detected')).toMatchObject([{ evidence: { signal: 'missed_pongs' } }]);
      }
    },
  );

  it.each(cases)(
    'dead on arrival is found in that time too: interval %d, missed %d',
    async (intervalMs, missed) => {
      const core = await Core.start(heartbeat(intervalMs, missed));
      for (let round = 0; round < 8; round++) {
        await core.clock.advance(intervalMs / 7);
        const { socket } = await core.admit('alice', { connection: 'silent' });
        if (!socket) return expect.unreachable();
        const tookMs = await foundAfter(
          core,
          socket,
          (missed + 1) * intervalMs,
          Math.max(1, intervalMs / 100),
        );
        expect(tookMs).toBeLessThanOrEqual((missed + 1) * intervalMs);
      }
      expect(core.reportedOf('zombie_detected')[0]?.evidence.signal).toBe('never_completed');
    },
  );

  it('is pinged first two seconds after it came', async () => {
    const core = await Core.start();
    const { socket } = await core.admit('alice');
    await core.clock.advance(1_900);
    expect(socket?.pings).toBe(0);
    await core.clock.advance(400);
    expect(socket?.pings).toBe(1);
  });

  it('whose socket closed unnoticed goes when it is still so at the second look', async () => {
    const core = await Core.start(heartbeat(1_000));
    const { socket } = core.place({ userId: 'alice' });
    socket?.become('closed');
    await core.clock.advance(550);
    expect(core.count('alice')).toBe(0);
    expect(core.reportedOf('zombie_detected')[0]?.evidence.signal).toBe('closed_socket');
  });

  it.each([
    [true, 1_300],
    [false, 550],
  ])('whose socket closes unnoticed later is found in time: attentive %s', async (isAttentive, mostMs) => {
    for (let phase = 0; phase < 8; phase++) {
      const core = await Core.start(heartbeat(1_000));
      const { socket } = core.place({ userId: 'alice' });
      if (!socket) return expect.unreachable();
      Object.defineProperty(socket, 'isAttentive', { value: isAttentive });
      await core.clock.advance(5_000 + (phase / 8) * 1_000);
      expect(socket.connection.isCalm).toBe(isAttentive);
      socket.become('closed');
      expect(await foundAfter(core, socket, 5_000, 10), `phase ${phase}`).toBeLessThanOrEqual(mostMs);
    }
  });

  it('that we do not read from is not judged', async () => {
    const core = await Core.start(heartbeat(1_000));
    const { socket } = core.place({ userId: 'alice', connection: 'silent' });
    if (socket) socket.paused = true;
    await core.clock.advance(60_000);
    expect(core.count('alice')).toBe(1);
  });

  it('whose output does not move is found in two heartbeats', async () => {
    const core = await Core.start(heartbeat(1_000, 50));
    const { socket } = core.place({ userId: 'alice', connection: 'silent', openedAgoMs: 0 });
    if (!socket) return expect.unreachable();
    socket.isStuck = true;
    socket.send('x'.repeat(1_000));
    const tookMs = await foundAfter(core, socket, 4_000, 10);
    expect(tookMs).toBeGreaterThanOrEqual(2_000);
    expect(tookMs).toBeLessThanOrEqual(2_600);
    expect(core.reportedOf('zombie_detected')[0]?.evidence.signal).toBe('stalled_output');
  });

  it('whose output moves, however slowly, is not', async () => {
    const core = await Core.start(heartbeat(1_000, 50));
    const { socket } = core.place({ userId: 'alice', connection: 'silent', openedAgoMs: 0 });
    if (!socket) return expect.unreachable();
    socket.isStuck = true;
    socket.send('x'.repeat(1_000));
    for (let i = 0; i < 10; i++) {
      await core.clock.advance(1_500);
      socket.bytesQueued--;
    }
    expect(core.count('alice')).toBe(1);
  });

  it('that reads one large message slowly is not: it moves, though no write of it is done', async () => {
    const core = await Core.start(heartbeat(1_000, 50));
    const { socket } = core.place({ userId: 'alice', connection: 'silent', openedAgoMs: 0 });
    if (!socket) return expect.unreachable();
    socket.isStuck = true;
    socket.send('x'.repeat(1_000));
    let bytesTaken = 0;
    Object.defineProperty(socket, 'bytesTaken', { get: () => bytesTaken });
    for (let i = 0; i < 10; i++) {
      await core.clock.advance(1_500);
      bytesTaken++;
    }
    expect(core.count('alice')).toBe(1);
    expect(await foundAfter(core, socket, 4_000, 10)).toBeLessThanOrEqual(2_600);
  });
});

describe('a client that answers', () => {
  it.each([1_000, 15_000])('is pinged once an interval of %d, for ever', async (intervalMs) => {
    const core = await Core.start({ ...heartbeat(intervalMs), limits: { managersPerUser: 100 } });
    const sockets: FakeSocket[] = [];
    for (let i = 0; i < 40; i++) {
      const { socket } = await core.admit('alice');
      if (socket) sockets.push(socket);
      await core.clock.advance(intervalMs / 40);
    }
    await core.clock.advance(2_000 + 2 * intervalMs);
    const before = sockets.map(({ pings }) => pings);
    await core.clock.advance(20 * intervalMs);
    for (const [i, { pings }] of sockets.entries()) {
      expect(pings - (before[i] ?? 0)).toBeGreaterThanOrEqual(19);
      expect(pings - (before[i] ?? 0)).toBeLessThanOrEqual(21);
    }
    expect(core.count('alice')).toBe(40);
    expect(core.reportedOf('zombie_detected')).toEqual([]);
  });

  it('has its pings spread evenly over the interval', async () => {
    const core = await Core.start({ ...heartbeat(15_000), limits: { managersPerUser: 2_000 } });
    const sockets = await Promise.all(Array.from({ length: 1_000 }, () => core.admit('alice')));
    await core.clock.advance(60_000);
    const pings = () => sockets.reduce((sum, { socket }) => sum + (socket?.pings ?? 0), 0);
    const inTicks: number[] = [];
    for (let tick = 0; tick < 150; tick++) {
      const before = pings();
      await core.clock.advance(100);
      inTicks.push(pings() - before);
    }
    const sum = (numbers: number[]) => numbers.reduce((a, b) => a + b, 0);
    expect(sum(inTicks)).toBe(1_000);
    // Twenty times an interval, which would be 50; all together would be 1,000.
    expect(Math.max(...inTicks)).toBeLessThanOrEqual(80);
    // In every quarter a quarter.
    for (const from of [0, 37, 75, 112]) {
      const quarter = sum(inTicks.slice(from, from + 37));
      expect(quarter).toBeGreaterThan(150);
      expect(quarter).toBeLessThan(350);
    }
  });

  it('is looked at closely once an interval, and its socket hardly in between, while all is well', async () => {
    const core = await Core.start(heartbeat(1_000));
    const { socket } = core.place({ userId: 'alice' });
    if (!socket) return expect.unreachable();
    await core.clock.advance(5_000);
    let looks = 0;
    const { bytesRead } = socket;
    let bytes = bytesRead;
    Object.defineProperty(socket, 'bytesRead', {
      get: () => {
        looks++;
        return bytes;
      },
      set: (now: number) => {
        bytes = now;
      },
    });
    await core.clock.advance(10_000);
    const answers = (bytes - bytesRead) / 6;
    expect(answers).toBeGreaterThanOrEqual(9);
    // The look that pings, the one that finds the answer, and the answer itself, which counts up.
    expect(looks).toBeLessThanOrEqual(3 * answers + 3);
  });

  it('is never pinged while it sends', async () => {
    const core = await Core.start(heartbeat(1_000));
    const { socket } = await core.admit('alice');
    for (let i = 0; i < 100; i++) {
      await core.clock.advance(400);
      socket?.receive('{"event":"x"}');
    }
    expect(socket?.pings).toBe(0);
  });

  it('lives by half a frame as well as by a whole one', async () => {
    const core = await Core.start(heartbeat(1_000));
    const { socket } = await core.admit('alice', { connection: 'silent' });
    for (let i = 0; i < 50; i++) {
      await core.clock.advance(400);
      socket?.trickle();
    }
    expect(socket?.pings).toBe(0);
    expect(core.count('alice')).toBe(1);
  });

  it('is not kept alive by what we send', async () => {
    const core = await Core.start(heartbeat(1_000));
    const { manager } = core.place({ userId: 'alice', connection: 'silent' });
    for (let i = 0; i < 10; i++) {
      await core.clock.advance(300);
      manager.send('x', 1);
    }
    expect(core.count('alice')).toBe(0);
  });

  it('keeps its session when it answers as late as it may', async () => {
    const core = await Core.start(heartbeat(1_000));
    core.place({ userId: 'alice', connection: { answersAfterMs: 1_400 } });
    await core.clock.advance(60_000);
    expect(core.count('alice')).toBe(1);
  });
});

describe('a stall of our own', () => {
  it.each([500, 1_000, 2_000, 5_000, 60_000, 600_000])('of %d ms costs nobody', async (stallMs) => {
    const core = await Core.start({ ...heartbeat(1_000), limits: { managersPerUser: 200 } });
    core.placeMany(60, { userId: 'alice' });
    core.placeMany(20, { userId: 'alice', connection: { answersAfterMs: 400 } });
    await core.clock.advance(10_000);
    for (let i = 0; i < 10; i++) {
      await core.clock.stall(stallMs);
      await core.clock.advance(137);
    }
    await core.clock.advance(10_000);
    expect(core.count('alice')).toBe(80);
    expect(core.reportedOf('zombie_detected')).toEqual([]);
    expect(core.counters.eventLoopVoids).toBeGreaterThan(0);
  });

  it('now and then, and a short one, hides nobody for longer than is promised', async () => {
    const core = await Core.start(heartbeat(15_000));
    core.place({ userId: 'alice', connection: 'silent', openedAgoMs: 0 });
    const startedAt = core.clock.now();
    // A tick falls into every stall, and is late by 125 ms.
    await core.clock.advance(200);
    while (core.count('alice') > 0 && core.clock.now() - startedAt < 90_000) {
      await core.clock.stall(300);
      await core.clock.advance(825);
    }
    expect(core.counters.eventLoopVoids).toBeGreaterThan(5);
    expect(core.clock.now() - startedAt).toBeLessThanOrEqual(45_000);
  });

  it('does not hide the dead for ever when every tick is late', async () => {
    const core = await Core.start(heartbeat(1_000));
    core.place({ userId: 'alice' });
    core.place({ userId: 'alice', connection: 'silent' });
    for (let i = 0; i < 200; i++) {
      await core.clock.stall(300);
      await core.clock.advance(1);
    }
    expect(core.count('alice')).toBe(1);
  });

  it.each([1_000, 3_300, 15_000])(
    'is noticed after ten minutes as in the first: interval %d',
    async (intervalMs) => {
      const core = await Core.start({ ...heartbeat(intervalMs), cleanup: { intervalMs: 3_600_000 } });
      await core.clock.advance(600_000);
      const before = core.counters.eventLoopVoids;
      await core.clock.stall(900);
      expect(core.counters.eventLoopVoids - before).toBe(1);
    },
  );

  it('a step of the wall clock is none, and costs nobody', async () => {
    const core = await Core.start(heartbeat(1_000));
    core.placeMany(5, { userId: 'alice' });
    core.clock.setWall(core.clock.wallNow() + 86_400_000);
    await core.clock.advance(5_000);
    core.clock.setWall(0);
    await core.clock.advance(5_000);
    expect(core.count('alice')).toBe(5);
    expect(core.counters.eventLoopVoids).toBe(0);
  });
});

describe('self-preservation', () => {
  const OPTIONS = { ...heartbeat(1_000), limits: { managersPerUser: 1_000 } };

  async function withConnections(count: number) {
    const core = await Core.start(OPTIONS);
    const placed = core.placeMany(count, (i) => ({ userId: `user-${i % 50}` }));
    await core.clock.advance(5_000);
    const freeze = (share: number) => {
      for (const { socket } of placed.slice(0, Math.round(count * share))) socket?.become('silent');
    };
    const thaw = () => {
      for (const { socket } of placed) if (socket?.state === 'open') socket.become('answers');
    };
    return { core, freeze, thaw, placed };
  }

  it('believes no silence when more than half fall silent at once, for at most three beats', async () => {
    const { core, freeze } = await withConnections(200);
    freeze(0.6);
    let startedAt: number | undefined;
    for (let i = 0; i < 200 && !startedAt; i++) {
      await core.clock.advance(25);
      if (core.heartbeat.isSelfPreserving) startedAt = core.clock.now();
    }
    expect(startedAt).toBeDefined();
    expect(core.registry.managerCount).toBe(200);
    while (core.heartbeat.isSelfPreserving) {
      expect(core.registry.managerCount).toBe(200);
      await core.clock.advance(25);
    }
    expect(core.clock.now() - (startedAt ?? 0)).toBeLessThanOrEqual(3_000 + 50);
    await core.clock.advance(5_000);
    expect(core.registry.managerCount).toBe(80);
    expect(core.reportedOf('self_preservation').map(({ active }) => active)).toEqual([true, false]);
  });

  it('costs nobody when it was our fault', async () => {
    const { core, freeze, thaw } = await withConnections(200);
    freeze(1);
    await core.clock.advance(3_500);
    thaw();
    await core.clock.advance(20_000);
    expect(core.registry.managerCount).toBe(200);
  });

  it.each([
    ['half of them', 200, 0.5],
    ['a hundred', 100, 1],
  ])('is not for %s', async (_, count, share) => {
    const { core, freeze } = await withConnections(count);
    freeze(share);
    await core.clock.advance(5_000);
    expect(core.reportedOf('self_preservation')).toEqual([]);
    expect(core.registry.managerCount).toBe(count - count * share);
  });

  it('lets closed sockets go, and newcomers at the limit in', async () => {
    const core = await Core.start({ ...OPTIONS, limits: { managersPerUser: 200 } });
    const placed = core.placeMany(200, { userId: 'alice' });
    await core.clock.advance(5_000);
    for (const { socket } of placed) socket?.become('silent');
    for (let i = 0; i < 200 && !core.heartbeat.isSelfPreserving; i++) await core.clock.advance(25);
    expect(core.heartbeat.isSelfPreserving).toBe(true);
    const { result, tookMs } = await core.admitWithin(1_100, 'alice');
    expect(result.admitted).toBe(true);
    expect(tookMs).toBeLessThanOrEqual(1_100);
    placed[150]?.socket?.become('closed');
    await core.clock.advance(550);
    expect(placed[150]?.manager.isOpen).toBe(false);
    expect(core.count('alice')).toBeGreaterThanOrEqual(198);
  });
});
