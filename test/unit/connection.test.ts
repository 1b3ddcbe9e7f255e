import { describe, expect, it } from 'vitest';
import { Core } from '../support/core.js';

const fail = () => {
  throw new Error('broken');
};

describe('a WebSocket class of the application that throws', () => {
  it.each(['send', 'close'])(
    'at %s keeps no session from its end, and no other from its own',
    async (method) => {
      const core = await Core.start();
      const { manager, socket } = core.place({ userId: 'alice' });
      const { manager: other, socket: sound } = core.place({ userId: 'alice' });
      if (!socket || !sound) return expect.unreachable();
      Object.assign(socket, { [method]: fail });
      const ended = manager.close({ reason: 'terminated_by_admin' });
      const otherEnded = other.close({ reason: 'terminated_by_admin' });
      expect(core.count('alice')).toBe(0);
      expect(core.reportedOf('hook_failed')).toMatchObject([
        { hook: 'WebSocket', error: { message: 'broken' } },
      ]);
      expect(sound.closeAsked?.code).toBe(4520);
      await core.clock.advance(2_001);
      expect([socket.terminated, sound.terminated]).toEqual([true, false]);
      expect(await Promise.all([ended, otherEnded])).toEqual([true, true]);
    },
  );

  it('at ping keeps nobody else from being asked, and no newcomer out', async () => {
    const core = await Core.start({ limits: { managersPerUser: 2 } });
    const { socket } = core.place({ userId: 'alice', openedAgoMs: 60_000 });
    const { socket: sound } = core.place({ userId: 'alice', openedAgoMs: 60_000 });
    if (!socket || !sound) return expect.unreachable();
    Object.assign(socket, { ping: fail });
    await core.clock.advance(16_000);
    expect(sound.pings).toBeGreaterThan(0);
    expect(core.reportedOf('hook_failed')[0]).toMatchObject({
      hook: 'WebSocket',
      error: { message: 'broken' },
    });
    expect((await core.admitWithin(1_100, 'alice')).result.admitted).toBe(true);
  });

  it('at send keeps no other connection from what all are sent', async () => {
    const core = await Core.start();
    const { manager, socket } = core.place({ userId: 'alice', sessionKey: 'tab' });
    const sound = core.attach(manager);
    if (!socket) return expect.unreachable();
    Object.assign(socket, { send: fail });
    expect(manager.send('news', 1)).toBe(1);
    expect(sound.sent).toEqual(['{"event":"news","data":1}']);
    expect(core.reportedOf('hook_failed')).toMatchObject([{ hook: 'WebSocket' }]);
  });
});

describe('a byte that comes in', () => {
  it('acquits a suspect, also after a message of which was told later than its bytes were seen', async () => {
    const core = await Core.start();
    const { socket } = core.place({ userId: 'alice' });
    if (!socket) return expect.unreachable();
    const { connection } = socket;
    socket.trickle();
    expect(connection.lookForBytes()).toBe(true);
    connection.heard();
    expect(connection.lookForBytes()).toBe(false);
    connection.suspectedAt = core.clock.now();
    socket.trickle();
    expect([connection.lookForBytes(), connection.suspectedAt]).toEqual([true, undefined]);
  });
});

describe('a connection that is closing while its place is needed', () => {
  it('leaves its session, and is cut off where it never comes to its end', async () => {
    const core = await Core.start({ limits: { managersPerUser: 1, connectionsPerManager: 1 } });
    const { manager, socket } = core.place({ userId: 'alice', sessionKey: 'tab', connection: 'silent' });
    if (!socket) return expect.unreachable();
    socket.state = 'closing';
    expect((await core.admitWithin(100, 'alice')).result.admitted).toBe(true);
    expect([socket.connection.detached, manager.connections, socket.terminated]).toEqual([true, [], false]);
    await core.clock.advance(2_001);
    expect(socket.terminated).toBe(true);
  });
});

describe('a backlog above the limit', () => {
  const LIMITS = { limits: { maxBufferedBytes: 1_000 } };

  it.each([1_000, 1_150, 1_400, 3_000])(
    'that a stall of ours, of %d ms, gave nobody the time to read, costs nobody',
    async (stallMs) => {
      const core = await Core.start(LIMITS);
      const { manager, socket } = core.place({ userId: 'alice' });
      if (!socket) return expect.unreachable();
      socket.isStuck = true;
      manager.send('news', 'x'.repeat(2_000));
      // It reads at once; what it has read is known as soon as the loop comes round.
      core.clock.io(() => Object.assign(socket, { isStuck: false, bufferedAmount: 0, bytesQueued: 0 }), 1);
      await core.clock.stall(stallMs);
      await core.clock.advance(5_000);
      expect(core.count('alice')).toBe(1);
    },
  );

  it.each([1_001, 15_900])(
    'of %i bytes is judged neither within the turn that sent it nor before a second',
    async (bytes) => {
      const core = await Core.start(LIMITS);
      const { manager, socket } = core.place({ userId: 'alice' });
      if (!socket) return expect.unreachable();
      socket.isStuck = true;
      for (let i = 0; i < 10; i++) socket.connection.send('x'.repeat(bytes / 10));
      expect(manager.isOpen).toBe(true);
      await core.clock.advance(900);
      expect(manager.isOpen).toBe(true);
    },
  );

  it('of more than sixteen times the limit ends its connection after the turn, whenever it comes to that', async () => {
    for (const before of [0, 2_000]) {
      const core = await Core.start(LIMITS);
      const { manager, socket } = core.place({ userId: 'alice' });
      if (!socket) return expect.unreachable();
      socket.isStuck = true;
      if (before > 0) socket.connection.send('x'.repeat(before));
      await core.clock.advance(300);
      socket.connection.send('x'.repeat(16_001));
      expect(manager.isOpen).toBe(true);
      await core.clock.settle();
      expect(core.reportedOf('detached')).toMatchObject([{ reason: 'slow_consumer' }]);
    }
  });

  it('of more than sixteen times the limit that is written by the end of the turn costs nothing', async () => {
    const core = await Core.start(LIMITS);
    const { manager, socket } = core.place({ userId: 'alice' });
    if (!socket) return expect.unreachable();
    socket.isStuck = true;
    socket.connection.send('x'.repeat(1_000_000));
    core.clock.io(() => Object.assign(socket, { isStuck: false, bufferedAmount: 0, bytesQueued: 0 }));
    await core.clock.advance(3_000);
    expect(manager.isOpen).toBe(true);
  });

  it('that the kernel takes from, a little every second, may stay', async () => {
    const core = await Core.start(LIMITS);
    const { manager, socket } = core.place({ userId: 'alice' });
    if (!socket) return expect.unreachable();
    socket.isStuck = true;
    socket.connection.send('x'.repeat(10_000));
    for (let i = 0; i < 20; i++) {
      await core.clock.advance(900);
      // The application goes on sending: what counts is that the kernel takes some of it.
      socket.connection.send('x'.repeat(100));
      socket.bytesQueued -= 1;
      socket.bufferedAmount -= 1;
      expect(manager.isOpen).toBe(true);
    }
    await core.clock.advance(2_001);
    expect(core.reportedOf('detached')).toMatchObject([{ reason: 'slow_consumer' }]);
  });

  it('that is still there a second later, of which we stood still for none, ends its connection', async () => {
    const core = await Core.start(LIMITS);
    const { manager, socket } = core.place({ userId: 'alice' });
    if (!socket) return expect.unreachable();
    socket.isStuck = true;
    manager.send('news', 'x'.repeat(2_000));
    await core.clock.stall(1_400);
    expect(core.count('alice')).toBe(1);
    await core.clock.advance(1_001);
    expect(core.count('alice')).toBe(0);
    expect(core.reportedOf('detached')).toMatchObject([{ reason: 'slow_consumer' }]);
  });
});
