import { describe, expect, it } from 'vitest';
import { FakeSocket } from '../../src/testing/index.js';
import { Core, type CoreOptions } from '../support/core.js';

const IDLE_MS = 60_000;
/** How late something due may be noticed: a bucket of the queue, whatever the heartbeat's tick. */
const LATE_MS = 50;

const start = (cleanup: CoreOptions['cleanup'] = {}) =>
  Core.start({ heartbeat: { intervalMs: 15_000 }, cleanup: { idleAfterMs: IDLE_MS, ...cleanup } });

describe('the status of a manager', () => {
  it('is kept true as time goes by', async () => {
    const core = await start();
    const { result, socket } = await core.admit('alice', { sessionKey: 'tab' });
    if (!result.admitted || !socket) return expect.unreachable();
    const { manager } = result;
    expect(manager.status).toBe('unknown');
    socket.receive();
    expect(manager.status).toBe('healthy');
    await core.clock.advance(IDLE_MS - 1);
    expect(manager.status).toBe('healthy');
    await core.clock.advance(1 + LATE_MS);
    expect(manager.status).toBe('idle');
    socket.receive();
    expect(manager.status).toBe('healthy');
    socket.leave();
    await core.clock.settle();
    expect(manager.status).toBe('inactive');
    expect(core.registry.statusCounts).toEqual({ healthy: 0, idle: 0, zombie: 0, inactive: 1, unknown: 0 });
  });

  it('is idle only after the last message, however often that moves', async () => {
    const core = await start();
    const { result, socket } = await core.admit('alice');
    if (!result.admitted || !socket) return expect.unreachable();
    for (let i = 0; i < 5; i++) {
      socket.receive();
      await core.clock.advance(IDLE_MS - 1_000);
      expect(result.manager.status).toBe('healthy');
    }
    await core.clock.advance(1_000 + LATE_MS);
    expect(result.manager.status).toBe('idle');
  });
});

describe('idleTimeoutMs', () => {
  it.each([10_000, IDLE_MS, 100_000])(
    'closes who is idle for %d ms, and not before',
    async (idleTimeoutMs) => {
      const core = await start({ idleTimeoutMs });
      const { result, socket } = await core.admit('alice', { sessionKey: 'tab' });
      if (!result.admitted || !socket) return expect.unreachable();
      await core.clock.advance(5_000);
      socket.receive();
      await core.clock.advance(idleTimeoutMs - 1);
      expect(result.manager.isOpen).toBe(true);
      await core.clock.advance(1 + LATE_MS);
      expect(result.manager.endedBy).toBe('idle');
      expect(socket.closeAsked?.code).toBe(4202);
      const [{ evidence } = { evidence: undefined }] = core.reportedOf('evicted');
      expect(evidence?.signal).toBe('idle');
      expect(evidence?.inactiveForMs).toBeGreaterThanOrEqual(idleTimeoutMs);
      expect(evidence?.inactiveForMs).toBeLessThanOrEqual(idleTimeoutMs + LATE_MS);
    },
  );

  it('closes nobody who is busy, until that is over', async () => {
    const core = await start({ idleTimeoutMs: 10_000 });
    const { result } = await core.admit('alice');
    if (!result.admitted) return expect.unreachable();
    const done = result.manager.beginWork();
    await core.clock.advance(45_000);
    expect(result.manager.isOpen).toBe(true);
    done();
    await core.clock.advance(LATE_MS);
    expect(result.manager.endedBy).toBe('idle');
  });

  it('is nothing to a session without a connection, which has its window', async () => {
    const core = await start({ idleTimeoutMs: 10_000 });
    const { result, socket } = await core.admit('alice', { sessionKey: 'tab' });
    if (!result.admitted || !socket) return expect.unreachable();
    await core.clock.advance(5_000);
    socket.leave();
    await core.clock.advance(29_999);
    expect(result.manager.isOpen).toBe(true);
    await core.clock.advance(1 + LATE_MS);
    expect(result.manager.endedBy).toBe('inactive');
  });

  it('closes nobody where it is off', async () => {
    const core = await start();
    const { result } = await core.admit('alice');
    await core.clock.advance(3 * IDLE_MS);
    expect(result.admitted && result.manager.isOpen).toBe(true);
  });
});

describe('a session that nobody attaches to', () => {
  it.each([
    [5_000, 5_000],
    // The handshake has its time whatever the grace.
    [0, 100],
  ])('within a grace of %d ms goes after %d', async (graceMs, goesAfterMs) => {
    const core = await start({ graceMs });
    const { result } = await core.admit('alice', { sessionKey: 'tab', connection: 'none' });
    if (!result.admitted) return expect.unreachable();
    const { manager } = result;
    await core.clock.advance(goesAfterMs - 1);
    expect(manager.status).toBe('unknown');
    // With a key it is inactive from then on, for its window.
    await core.clock.advance(1 + LATE_MS);
    expect(manager.status).toBe('inactive');
    await core.clock.advance(30_000 - LATE_MS - 2);
    expect(manager.isOpen).toBe(true);
    await core.clock.advance(2 + LATE_MS);
    expect(manager.endedBy).toBe('inactive');
  });
});

describe('credentials', () => {
  const expiring = async () => {
    const core = await start();
    const { manager, socket } = core.place({ userId: 'alice', sessionKey: 'tab', activeAgoMs: 1_000 });
    const expiring = new FakeSocket(core.clock);
    const other = manager.attach(expiring, core.clock.now() + 20_000);
    expiring.bind(other);
    return { core, manager, socket, other };
  };

  it('that end close their connection with 4106, and no other one', async () => {
    const { core, manager, other, socket } = await expiring();
    await core.clock.advance(19_999);
    expect(other.detached).toBe(false);
    await core.clock.advance(1 + LATE_MS);
    expect(other.detached).toBe(true);
    expect(core.reportedOf('detached')).toMatchObject([{ reason: 'token_expired' }]);
    expect(manager.isOpen).toBe(true);
    expect(socket?.closeAsked).toBeUndefined();
  });

  it('of who has gone are waited for no longer', async () => {
    const { core, manager } = await expiring();
    const before = core.statusKeeper.waiting;
    for (const connection of [...manager.connections]) connection.end({ reason: 'internal' });
    void manager.close({ reason: 'left' });
    expect(before).toBe(2);
    expect(core.statusKeeper.waiting).toBe(0);
  });
});
