import { describe, expect, it } from 'vitest';
import type { DetectorOpinion, DetectorView } from '../../src/liveness/connection-detector.interface.js';
import type { Manager } from '../../src/manager/manager.js';
import type { FakePeer, FakeSocket } from '../../src/testing/index.js';
import { Core, type CoreOptions } from '../support/core.js';

const PROBE_MS = 1_000;
const BEAT_MS = 15_000;
/** Beats and sweeps are far away: only what is asked for happens. */
const QUIET: CoreOptions = { heartbeat: { intervalMs: 3_600_000 }, cleanup: { intervalMs: 3_600_000 } };
const LIVE = { userId: 'alice', openedAgoMs: 60_000, activeAgoMs: 2_000 } as const;

async function withPeers(...peers: FakePeer[]) {
  const core = await Core.start(QUIET);
  const placed = peers.map((connection) => core.place({ ...LIVE, connection }));
  const sockets = placed.map(({ socket }) => socket as FakeSocket);
  const managers = placed.map(({ manager }) => manager);
  const { user } = managers[0] as Manager;
  let probedAt: number | undefined;
  const probe = () => {
    void core.detector.probe(user).then(() => {
      probedAt = core.clock.now();
    });
    return core.clock.now();
  };
  const suspects = () => sockets.map(({ connection }) => connection.suspectedAt !== undefined);
  return { core, sockets, managers, user, probe, probedAt: () => probedAt, suspects };
}

describe('a probe', () => {
  it('is over when all have answered', async () => {
    const { core, probe, probedAt, suspects } = await withPeers('answers', { answersAfterMs: 300 });
    const askedAt = probe();
    await core.clock.advance(299);
    expect(probedAt()).toBeUndefined();
    await core.clock.advance(1);
    expect(probedAt()).toBe(askedAt + 300);
    expect(suspects()).toEqual([false, false]);
  });

  it('makes suspects of who has not, after its deadline, and says so once', async () => {
    const { core, managers, sockets, probe, probedAt, suspects } = await withPeers('silent', 'answers');
    const askedAt = probe();
    await core.clock.advance(PROBE_MS);
    expect(probedAt()).toBe(askedAt + PROBE_MS);
    expect(suspects()).toEqual([true, false]);
    expect(core.reportedOf('suspected')).toMatchObject([
      {
        userId: 'alice',
        managerId: managers[0]?.id,
        connectionId: sockets[0]?.connection.id,
        signal: 'missed_probe',
      },
    ]);
    const suspectedAt = sockets[0]?.connection.suspectedAt;
    probe();
    await core.clock.advance(PROBE_MS);
    expect(core.reportedOf('suspected')).toHaveLength(1);
    expect(sockets[0]?.connection.suspectedAt).toBe(suspectedAt);
  });

  it('acquits by any byte, also one that no event tells of', async () => {
    const { core, sockets, probe, suspects } = await withPeers('silent', 'silent');
    probe();
    await core.clock.advance(PROBE_MS - 1);
    sockets[0]?.trickle();
    await core.clock.advance(1);
    expect(suspects()).toEqual([false, true]);
  });

  it('takes no byte for an answer that came before the question', async () => {
    const { core, sockets, probe, suspects } = await withPeers('silent');
    sockets[0]?.trickle();
    probe();
    await core.clock.advance(PROBE_MS);
    expect(suspects()).toEqual([true]);
  });

  it('asks nobody whom we do not read from, or who is on the way out', async () => {
    const { core, sockets, probe, probedAt, suspects } = await withPeers('silent', 'silent', 'closed');
    Object.assign(sockets[0] as FakeSocket, { paused: true });
    sockets[1]?.close(1000, '');
    const askedAt = probe();
    await core.clock.settle();
    expect(probedAt()).toBe(askedAt);
    expect(sockets.map(({ pings }) => pings)).toEqual([0, 0, 0]);
    expect(suspects()).toEqual([false, false, false]);
  });

  it('suspects nobody who was paused, or who left, meanwhile', async () => {
    const { core, sockets, probe, suspects } = await withPeers('silent', 'silent', 'silent');
    probe();
    await core.clock.advance(500);
    Object.assign(sockets[0] as FakeSocket, { paused: true });
    sockets[1]?.leave();
    await core.clock.advance(PROBE_MS);
    expect(suspects()).toEqual([false, false, true]);
  });

  it('gives its time once more when it was our own loop that stood still', async () => {
    const { core, probe, probedAt, suspects } = await withPeers({ answersAfterMs: 2_500 }, 'silent');
    const askedAt = probe();
    await core.clock.settle();
    await core.clock.stall(2 * PROBE_MS);
    expect(probedAt()).toBeUndefined();
    await core.clock.advance(PROBE_MS);
    expect(probedAt()).toBe(askedAt + 3 * PROBE_MS);
    expect(suspects()).toEqual([false, true]);
  });

  it('gives it not for less', async () => {
    const { core, probe, probedAt } = await withPeers('silent');
    const askedAt = probe();
    await core.clock.settle();
    await core.clock.stall(2 * PROBE_MS - 1);
    expect(probedAt()).toBe(askedAt + 2 * PROBE_MS - 1);
  });

  it('leaves nobody listening, and no timer', async () => {
    const { core, sockets, probe } = await withPeers('silent', 'answers', { answersAfterMs: 3_000 });
    // Until nothing is due that comes with time alone.
    await core.clock.advance(10_000);
    const timers = core.clock.timerCount;
    probe();
    await core.clock.advance(PROBE_MS);
    for (const { connection } of sockets) expect(connection.heardListeners).toBeUndefined();
    expect(core.clock.timerCount).toBe(timers);
    await core.clock.advance(PROBE_MS);
    for (const socket of sockets.slice(0, 1)) socket.become('answers');
    await core.clock.advance(3_000);
    probe();
    await core.clock.advance(10);
    expect(core.clock.timerCount).toBeGreaterThan(timers);
    await core.clock.advance(PROBE_MS);
    expect(core.clock.timerCount).toBe(timers);
  });

  it('that has begun is shared by nobody; those that come meanwhile share the next one', async () => {
    const { core, sockets, probe, probedAt } = await withPeers('answers');
    const askedAt = probe();
    await core.clock.advance(10);
    expect(probedAt()).toBe(askedAt + 1);
    for (let i = 0; i < 5; i++) probe();
    await core.clock.advance(29);
    expect(sockets[0]?.pings).toBe(1);
    await core.clock.advance(1);
    expect(sockets[0]?.pings).toBe(2);
    await core.clock.advance(1);
    expect(probedAt()).toBe(askedAt + 41);
    await core.clock.advance(39);
    probe();
    await core.clock.settle();
    expect(sockets[0]?.pings).toBe(3);
  });

  it('asks the user alone', async () => {
    const { core, probe } = await withPeers('answers');
    const { socket } = core.place({ ...LIVE, userId: 'bob' });
    probe();
    await core.clock.advance(PROBE_MS);
    expect(socket?.pings).toBe(0);
  });
});

describe('a suspect', () => {
  const INTERVAL = 15_000;

  /** Probes at once, and returns when the connection was proven dead, in milliseconds after the probe. */
  async function provenAfter(silentForMs: number, more: CoreOptions = {}): Promise<number | undefined> {
    const core = await Core.start({ ...more, cleanup: { intervalMs: 3_600_000 } });
    const { manager, socket } = core.place({ ...LIVE, openedAgoMs: 0 });
    await core.clock.advance(60_000);
    socket?.receive();
    socket?.become('silent');
    await core.clock.advance(silentForMs);
    const askedAt = core.clock.now();
    void core.detector.probe(manager.user);
    while (manager.isOpen && core.clock.now() < askedAt + 200_000) await core.clock.advance(50);
    expect(core.reportedOf('zombie_detected')).toMatchObject([
      { wasSuspect: true, evidence: { signal: 'missed_pongs' }, managerEnds: true },
    ]);
    return core.clock.now() - askedAt;
  }

  it.each([0, 100, 1_000, 3_700, 3_800, 9_000, 14_000])(
    'that fell silent %i ms before the probe is proven dead within the heartbeats that follow, and no sooner',
    async (silentForMs) => {
      const after = await provenAfter(silentForMs);
      expect(after).toBeGreaterThanOrEqual(2 * INTERVAL - INTERVAL / 4 - silentForMs);
      expect(after).toBeLessThanOrEqual(2 * INTERVAL + 100);
    },
  );

  it.each([1, 3])('needs as many unanswered pings as the option says: %i', async (missedBeforeZombie) => {
    const after = await provenAfter(1_000, { heartbeat: { missedBeforeZombie } });
    expect(after).toBeGreaterThanOrEqual(missedBeforeZombie * INTERVAL - INTERVAL / 4 - 1_000);
    expect(after).toBeLessThanOrEqual(missedBeforeZombie * INTERVAL + 100);
  });

  it('that answers within the time of the heartbeat has recovered, however often it is probed', async () => {
    const core = await Core.start({ cleanup: { intervalMs: 3_600_000 } });
    const { manager, socket } = core.place({
      ...LIVE,
      openedAgoMs: 0,
      connection: { answersAfterMs: 26_000 },
    });
    for (let probes = 0; probes < 100; probes++) {
      void core.detector.probe(manager.user);
      await core.clock.advance(2_600);
    }
    expect(manager.isOpen).toBe(true);
    expect(socket?.connection.detached).toBe(false);
    expect(core.reportedOf('recovered').length).toBeGreaterThan(3);
    expect(core.reportedOf('zombie_detected')).toEqual([]);
  });

  it('has its pings counted once, however often it is probed', async () => {
    const core = await Core.start({ cleanup: { intervalMs: 3_600_000 } });
    const { manager, socket } = core.place({ ...LIVE, openedAgoMs: 0 });
    await core.clock.advance(60_000);
    socket?.receive();
    socket?.become('silent');
    const silentSince = core.clock.now();
    while (manager.isOpen && core.clock.now() < silentSince + 200_000) {
      void core.detector.probe(manager.user);
      await core.clock.advance(500);
    }
    const after = core.clock.now() - silentSince;
    expect(after).toBeGreaterThanOrEqual(2 * INTERVAL - INTERVAL / 4);
    expect(after).toBeLessThanOrEqual(2 * INTERVAL + 500);
  });
});

describe('a detector', () => {
  async function withDetector(
    examine: (view: DetectorView) => DetectorOpinion | Promise<DetectorOpinion>,
    options: CoreOptions = {},
  ) {
    const core = await Core.start({ heartbeat: { intervalMs: BEAT_MS }, ...options });
    const views: DetectorView[] = [];
    core.detector.register({
      name: 'signed_out',
      examine: (view) => {
        views.push(view);
        return examine(view);
      },
    });
    return { core, views };
  }

  it('is told what is known', async () => {
    const { core, views } = await withDetector(() => undefined, QUIET);
    const { manager, socket } = core.place({ ...LIVE, sessionKey: 'tab', activeAgoMs: 9_000 });
    Object.assign(socket?.connection ?? {}, { metadata: { tier: 'pro' } });
    Object.assign(socket as FakeSocket, { bufferedAmount: 77 });
    socket?.trickle();
    socket?.connection.lookForBytes();
    Object.assign(socket?.connection ?? {}, { missedPongs: 1 });
    await core.clock.advance(1_000);
    void core.detector.probe(manager.user);
    await core.clock.settle();
    expect(views).toEqual([
      {
        userId: 'alice',
        managerId: manager.id,
        sessionKey: 'tab',
        connectionId: socket?.connection.id,
        metadata: { tier: 'pro' },
        openForMs: 61_000,
        silentForMs: 1_000,
        inactiveForMs: 10_000,
        missedPongs: 1,
        bufferedBytes: 77,
      },
    ]);
  });

  it('is asked again where we did not read for a while', async () => {
    const core = await Core.start({ heartbeat: { intervalMs: 1_000 }, cleanup: { intervalMs: 3_600_000 } });
    let asked = 0;
    core.detector.register({
      name: 'counting',
      examine: () => {
        asked++;
        return undefined;
      },
    });
    const { socket } = core.place({ userId: 'alice' });
    if (!socket) return expect.unreachable();
    const talk = async (ms: number) => {
      for (let i = 0; i < ms / 100; i++) {
        socket.receive();
        await core.clock.advance(100);
      }
    };
    await talk(3_000);
    socket.paused = true;
    await core.clock.advance(10_000);
    socket.paused = false;
    asked = 0;
    await talk(10_000);
    expect(asked).toBeGreaterThanOrEqual(9);
  });

  it('is asked once a beat for every connection', async () => {
    const { core, views } = await withDetector(() => undefined);
    core.placeMany(3, LIVE);
    await core.clock.advance(10 * BEAT_MS);
    expect(views).toHaveLength(30);
  });

  it('that is slow is not asked again meanwhile', async () => {
    const { core, views } = await withDetector(() => new Promise(() => {}), {
      heartbeat: { intervalMs: 1_000, probeTimeoutMs: 2_500 },
    });
    core.place(LIVE);
    await core.clock.advance(6_500);
    expect(views.length).toBeGreaterThanOrEqual(2);
    expect(views.length).toBeLessThanOrEqual(3);
  });

  it('that says dead ends the connection, on its evidence', async () => {
    const { core } = await withDetector(async ({ userId }) => (userId === 'alice' ? 'dead' : undefined));
    const { manager } = core.place(LIVE);
    core.place({ ...LIVE, userId: 'bob' });
    await core.clock.advance(BEAT_MS);
    expect(manager.endedBy).toBe('no_pong');
    expect(core.reportedOf('evicted')).toMatchObject([
      { userId: 'alice', evidence: { signal: 'signed_out' } },
    ]);
    expect(core.count('bob')).toBe(1);
  });

  it('that no longer says so has no opinion any more', async () => {
    let opinion: DetectorOpinion = 'dead';
    const { core } = await withDetector(() => opinion, QUIET);
    const { manager, socket } = core.place(LIVE);
    const signal = async () => {
      void core.detector.probe(manager.user);
      await core.clock.advance(2 * PROBE_MS);
      return core.detector.proofOf((socket as FakeSocket).connection);
    };
    expect(await signal()).toBe('signed_out');
    opinion = undefined;
    expect(await signal()).toBeUndefined();
  });

  it('is believed when it says dead, whatever another one says', async () => {
    const { core } = await withDetector(() => 'alive', QUIET);
    core.detector.register({ name: 'banned', examine: () => 'dead' });
    const { manager, socket } = core.place({ ...LIVE, connection: 'silent' });
    void core.detector.probe(manager.user);
    await core.clock.advance(PROBE_MS);
    expect(core.detector.proofOf((socket as FakeSocket).connection)).toBe('banned');
    expect(core.reportedOf('suspected')).toHaveLength(1);
  });

  it('that says alive acquits who does not answer a probe', async () => {
    const { core } = await withDetector(() => 'alive', QUIET);
    const { manager } = core.place({ ...LIVE, connection: 'silent' });
    void core.detector.probe(manager.user);
    await core.clock.advance(PROBE_MS);
    expect(core.reportedOf('suspected')).toEqual([]);
  });

  it.each<[string, () => never, string]>([
    [
      'throws',
      () => {
        throw new Error('broken');
      },
      'broken',
    ],
    ['rejects', (() => Promise.reject(new Error('broken'))) as never, 'broken'],
    ['hangs', (() => new Promise(() => {})) as never, `no answer within ${PROBE_MS} ms`],
  ])('that %s has no opinion, and is reported by its name', async (_, examine, message) => {
    const { core } = await withDetector(examine, QUIET);
    const { manager } = core.place({ ...LIVE, connection: 'answers' });
    void core.detector.probe(manager.user);
    await core.clock.advance(PROBE_MS);
    expect(core.reportedOf('hook_failed')).toMatchObject([
      { hook: 'detector signed_out', error: { message } },
    ]);
    expect(core.reportedOf('suspected')).toEqual([]);
  });
});

describe("a session's own isAlive", () => {
  async function probed(check: () => boolean | Promise<boolean>, peer: FakePeer) {
    const core = await Core.start(QUIET);
    const { manager, socket } = core.place({ ...LIVE, connection: peer });
    manager.isAlive(check);
    void core.detector.probe(manager.user);
    await core.clock.advance(PROBE_MS);
    return { core, signal: core.detector.proofOf((socket as FakeSocket).connection) };
  }

  it('that says no is proof, whoever answers', async () => {
    expect((await probed(() => false, 'answers')).signal).toBe('is_alive');
  });

  it('that says yes acquits who does not answer', async () => {
    const { core, signal } = await probed(() => true, 'silent');
    expect(signal).toBeUndefined();
    expect(core.reportedOf('suspected')).toEqual([]);
  });

  it('that fails says nothing, and is reported', async () => {
    const { core, signal } = await probed(() => Promise.reject(new Error('broken')), 'silent');
    expect(signal).toBeUndefined();
    expect(core.reportedOf('suspected')).toHaveLength(1);
    expect(core.reportedOf('hook_failed')).toMatchObject([{ hook: 'detector is_alive' }]);
  });

  it('is asked once a beat, and nobody else is', async () => {
    const core = await Core.start({ heartbeat: { intervalMs: BEAT_MS } });
    let asked = 0;
    const { manager } = core.place(LIVE);
    core.placeMany(3, LIVE);
    manager.isAlive(() => {
      asked++;
      return true;
    });
    await core.clock.advance(10 * BEAT_MS);
    expect(asked).toBe(10);
    expect(core.count('alice')).toBe(4);
  });
});
