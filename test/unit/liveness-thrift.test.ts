import 'reflect-metadata';
import { describe, expect, it, vi } from 'vitest';
import { assess, scoreOf } from '../../src/liveness/assessment.js';
import {
  CONNECTION_DETECTOR_METADATA,
  WebSocketDetector,
} from '../../src/liveness/connection-detector.interface.js';
import type { FakeSocket } from '../../src/testing/index.js';
import { Core, type CoreOptions, type Past } from '../support/core.js';
import { aConnection, aManager, NOW, RULES } from '../support/snapshots.js';

const LIVE = { userId: 'alice', openedAgoMs: 60_000, activeAgoMs: 1_000 } as const;
const QUIET: CoreOptions = { heartbeat: { intervalMs: 3_600_000 }, cleanup: { intervalMs: 3_600_000 } };
const heartbeat = (intervalMs: number, missedBeforeZombie = 2): CoreOptions => ({
  heartbeat: { intervalMs, missedBeforeZombie },
  cleanup: { intervalMs: 3_600_000 },
});

describe('what only time changes', () => {
  async function assessmentsOf(past: Past, ms: number, cleanup: CoreOptions['cleanup'] = {}) {
    const core = await Core.start({ cleanup: { intervalMs: 3_600_000, ...cleanup } });
    const { manager } = core.place(past);
    const assessed = vi.spyOn(core.registry, 'setStatus');
    await core.clock.advance(ms);
    return { core, manager, times: assessed.mock.calls.length };
  }

  it('is not looked for meanwhile: a session in its window', async () => {
    const { manager, times } = await assessmentsOf(
      { ...LIVE, connection: 'none', leftAgoMs: 0, sessionKey: 'tab' },
      29_000,
    );
    expect(manager.isOpen).toBe(true);
    expect(times).toBe(0);
  });

  it('is not looked for meanwhile: who will be idle, and then too long', async () => {
    const { manager, times } = await assessmentsOf(LIVE, 250_000, { idleTimeoutMs: 600_000 });
    expect(manager.isOpen).toBe(true);
    expect(times).toBeLessThanOrEqual(2);
  });

  it('is nothing any more for who is idle already', async () => {
    const { core, manager } = await assessmentsOf(LIVE, 400_000);
    expect(manager.status).toBe('idle');
    expect(core.statusKeeper.waiting).toBe(0);
  });
});

describe('a session that nobody came to', () => {
  it.each([
    ['with a key, has its window, however short the idle time-out', 'tab', 30_000],
    ['without one, goes with the grace', undefined, 0],
  ])('%s', async (_, sessionKey, windowMs) => {
    const core = await Core.start({ cleanup: { graceMs: 5_000, idleTimeoutMs: 1_000 } });
    const { result } = await core.admit('alice', { sessionKey, connection: 'none' });
    if (!result.admitted) return expect.unreachable();
    await core.clock.advance(4_999 + windowMs);
    expect(result.manager.isOpen).toBe(true);
    await core.clock.advance(301);
    expect(result.manager.endedBy).toBe('inactive');
  });
});

describe('a socket that is', () => {
  const foundAfter = async (shut: (socket: FakeSocket) => void) => {
    const core = await Core.start(heartbeat(1_000));
    const { manager, socket } = core.place({ ...LIVE, activeAgoMs: 0 });
    shut(socket as FakeSocket);
    const startedAt = core.clock.now();
    while (manager.isOpen) await core.clock.advance(1);
    return core.clock.now() - startedAt;
  };

  it('closed is found at the first look', async () => {
    expect(await foundAfter((socket) => socket.become('closed'))).toBeLessThanOrEqual(250);
  });

  it('closing has until the second', async () => {
    const tookMs = await foundAfter((socket) => {
      socket.become('silent');
      socket.close(1000, '');
    });
    expect(tookMs).toBeGreaterThan(250);
    expect(tookMs).toBeLessThanOrEqual(500);
  });
});

describe('a silent client', () => {
  it('is pinged once for every pong that it misses', async () => {
    const core = await Core.start(heartbeat(1_000, 3));
    const { manager, socket } = core.place({ ...LIVE, activeAgoMs: 0, connection: 'silent' });
    await core.clock.advance(6_000);
    expect(manager.endedBy).toBe('no_pong');
    expect(socket?.pings).toBe(3);
  });
});

describe('ticks that come late', () => {
  it('are left out three times in a row, then one counts; when all is well none is left out', async () => {
    const core = await Core.start(heartbeat(1_000));
    for (const voids of [1, 2, 3, 3, 4, 5, 6, 6]) {
      await core.clock.stall(400);
      expect(core.counters.eventLoopVoids).toBe(voids);
    }
    await core.clock.advance(60_000);
    expect(core.counters.eventLoopVoids).toBe(6);
  });
});

describe('a session that a listener ends during a look', () => {
  it('leaves no bytes behind in the sum of what waits', async () => {
    const core = await Core.start(heartbeat(1_000));
    const { manager, socket } = core.place({ ...LIVE, connection: 'silent' });
    Object.assign(socket?.connection ?? {}, { suspectedAt: core.clock.now() });
    Object.assign(socket ?? {}, { bufferedAmount: 50 });
    core.events.events$.subscribe((event) => {
      if (event.type === 'recovered') void manager.close({ reason: 'left' });
    });
    socket?.trickle();
    await core.clock.advance(300);
    expect(manager.isOpen).toBe(false);
    expect(core.registry.bufferedBytes).toBe(0);
  });
});

describe('a suspect of whom bytes wait unread', () => {
  it('is acquitted before anybody goes for a newcomer', async () => {
    const core = await Core.start(QUIET);
    const { manager, socket } = core.place({ ...LIVE, connection: 'silent' });
    void core.detector.probe(manager.user);
    await core.clock.advance(1_000);
    socket?.trickle();
    void core.cleanup.makeRoom(manager.user, { needed: 1, mayEvictLiving: false, isAbandoned: () => false });
    await core.clock.settle();
    expect(manager.isOpen).toBe(true);
    expect(core.reportedOf('recovered')).toHaveLength(1);
  });
});

describe('two questions in the same instant', () => {
  it('are two: the second is asked a moment later', async () => {
    const core = await Core.start(QUIET);
    const { manager, socket } = core.place(LIVE);
    void core.detector.probe(manager.user);
    void core.detector.probe(manager.user);
    await core.clock.advance(39);
    expect(socket?.pings).toBe(1);
    await core.clock.advance(1);
    expect(socket?.pings).toBe(2);
  });
});

describe('detectors that differ', () => {
  it.each([[['dead', 'alive']], [['alive', 'dead']]] as const)(
    'are believed in what they say of death: %j',
    async (opinions) => {
      const core = await Core.start(QUIET);
      for (const opinion of opinions) core.detector.register({ name: opinion, examine: () => opinion });
      const { manager } = core.place({ ...LIVE, connection: 'silent' });
      void core.detector.probe(manager.user);
      await core.clock.advance(1_000);
      expect(core.reportedOf('suspected')).toHaveLength(1);
    },
  );

  it.each([100, 500, 1_000, 15_000])('are asked once a beat of %d ms', async (intervalMs) => {
    const core = await Core.start(heartbeat(intervalMs));
    let asked = 0;
    core.detector.register({
      name: 'counting',
      examine: () => {
        asked++;
        return undefined;
      },
    });
    core.place(LIVE);
    await core.clock.advance(20 * intervalMs);
    expect(asked).toBeGreaterThanOrEqual(19);
    expect(asked).toBeLessThanOrEqual(21);
  });
});

describe('the score', () => {
  it('is none for the dead, whatever their numbers', () => {
    const connections = [aConnection({ state: 'closed' })];
    expect(scoreOf(assess(aManager({ connections }), NOW, RULES), NOW, RULES)).toBe(0);
  });

  it('falls with what waits to be sent', () => {
    const connections = [aConnection({ bufferedBytes: RULES.maxBufferedBytes / 2 })];
    expect(scoreOf(assess(aManager({ connections }), NOW, RULES), NOW, RULES)).toBeCloseTo(0.75, 10);
  });
});

describe('@WebSocketDetector()', () => {
  it('marks a provider', () => {
    @WebSocketDetector()
    class Marked {}
    expect(Reflect.getMetadata('nestjs-websocket-manager:connection-detector', Marked)).toBe(true);
    expect(CONNECTION_DETECTOR_METADATA).toBe('nestjs-websocket-manager:connection-detector');
  });
});

describe('a crowd that falls silent to a probe', () => {
  it('counts as silent once, by the probe or by the heartbeat', async () => {
    const core = await Core.start({ ...heartbeat(15_000), limits: { managersPerUser: 1_000 } });
    const placed = core.placeMany(200, { ...LIVE, activeAgoMs: 0 });
    const silent = placed.slice(0, 70);
    for (const { socket } of silent) socket?.become('silent');
    const [first] = placed;
    for (let i = 0; i < 4; i++) {
      void core.detector.probe(first?.manager.user as never);
      await core.clock.advance(2_000);
    }
    await core.clock.advance(6_000);
    // Seventy of two hundred, however often they were asked.
    expect(core.reportedOf('self_preservation')).toEqual([]);
    expect(core.reportedOf('suspected')).toHaveLength(70);
  });
});
