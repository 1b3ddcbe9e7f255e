import { describe, expect, it } from 'vitest';
import { Core } from '../support/core.js';

async function one(peer: Parameters<Core['place']>[0]['connection'] = 'answers') {
  const core = await Core.start();
  const { manager, socket } = core.place({ userId: 'alice', connection: peer, openedAgoMs: 0 });
  if (!socket) throw new Error('no socket');
  return { core, manager, socket };
}

describe('FakeSocket', () => {
  it('answers a ping after a moment, with bytes', async () => {
    const { core, socket } = await one();
    socket.ping();
    expect(socket.bytesRead).toBe(0);
    await core.clock.advance(1);
    expect(socket.bytesRead).toBeGreaterThan(0);
    expect(socket.connection.lastHeardAt).toBe(core.clock.now());
  });

  it('answers as late as it is told to', async () => {
    const { core, socket } = await one({ answersAfterMs: 300 });
    socket.ping();
    await core.clock.advance(299);
    expect(socket.bytesRead).toBe(0);
    await core.clock.advance(1);
    expect(socket.bytesRead).toBeGreaterThan(0);
  });

  it('answers nothing when silent, and what it finds waiting when it wakes', async () => {
    const { core, socket } = await one('silent');
    socket.ping();
    await core.clock.advance(1_000);
    expect(socket.bytesRead).toBe(0);
    socket.become('answers');
    await core.clock.advance(1);
    expect(socket.bytesRead).toBeGreaterThan(0);
  });

  it('completes the closing handshake when it answers', async () => {
    const { core, manager, socket } = await one();
    const gone = manager.close({ reason: 'terminated_by_admin' });
    expect(socket.state).toBe('closing');
    expect(JSON.parse(socket.sent.at(-1) as string)).toMatchObject({
      event: 'ws:closing',
      data: { code: 4520 },
    });
    await core.clock.advance(1);
    expect(await gone).toBe(true);
    expect(socket.connection.closed).toEqual({ code: 4520, reason: 'terminated_by_admin' });
  });

  it('has to be terminated when it is silent', async () => {
    const { core, manager, socket } = await one('silent');
    const gone = manager.close({ reason: 'terminated_by_admin' });
    await core.clock.advance(1_900);
    expect(socket.state).toBe('closing');
    await core.clock.advance(100);
    expect(await gone).toBe(true);
    expect(socket.terminated).toBe(true);
    expect(socket.connection.closed?.code).toBe(1006);
  });

  it('leaves, and takes its session with it', async () => {
    const { core, manager, socket } = await one();
    socket.receive('{"event":"x"}');
    expect(core.counters.messagesIn).toBe(1);
    socket.leave(1000, 'bye');
    await core.clock.settle();
    expect(manager.endedBy).toBe('left');
    expect(socket.connection.closed).toEqual({ code: 1000, reason: 'bye' });
  });
});
