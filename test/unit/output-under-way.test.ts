import { describe, expect, it } from 'vitest';
import type { FakeSocket } from '../../src/testing/index.js';
import { Core } from '../support/core.js';

const INTERVAL = 15_000;
const SECOND = 1_000;
const KIB = 1024;
/** What promise 3 allows for an answer without output under way. */
const PATIENCE = 2 * INTERVAL - INTERVAL / 4;

async function withClient() {
  const core = await Core.start({ limits: { maxBufferedBytes: 100_000 * KIB } });
  const { manager, socket } = core.place({ userId: 'alice', openedAgoMs: 0 });
  await core.clock.advance(60 * SECOND);
  const client = socket as FakeSocket;
  const send = (bytes: number) => client.connection.send('x'.repeat(bytes));
  /** Milliseconds until the connection is proven dead. */
  const diesAfter = async () => {
    const from = core.clock.now();
    while (manager.isOpen && core.clock.now() < from + 300 * SECOND) await core.clock.advance(100);
    return core.clock.now() - from;
  };
  return { core, manager, client, send, diesAfter };
}

describe('a connection with output under way', () => {
  it.each([
    [0, 0],
    [10, 0],
    [160, 10],
    [960, 60],
    [4_000, 60],
  ])('of %i KiB sent after its last byte has %i s more to answer', async (kib, seconds) => {
    const { client, send, diesAfter } = await withClient();
    client.receive();
    client.become('silent');
    if (kib > 0) send(kib * KIB);
    const after = await diesAfter();
    expect(after).toBeGreaterThanOrEqual(PATIENCE + seconds * SECOND);
    expect(after).toBeLessThanOrEqual(3 * INTERVAL + seconds * SECOND + INTERVAL / 4);
  });

  it('keeps that time when a byte comes in that does not say what it has read', async () => {
    const { client, send, diesAfter } = await withClient();
    send(900 * KIB);
    client.become('silent');
    client.receive();
    expect(await diesAfter()).toBeGreaterThanOrEqual(PATIENCE + 56 * SECOND - INTERVAL / 4);
  });

  it('has less of that time the longer it is heard, by 16 KiB for each second', async () => {
    const { core, client, send, diesAfter } = await withClient();
    send(480 * KIB);
    for (let i = 0; i < 30; i++) {
      await core.clock.advance(SECOND);
      client.receive();
    }
    client.become('silent');
    const after = await diesAfter();
    expect(after).toBeLessThanOrEqual(3 * INTERVAL + 2 * (INTERVAL / 4));
  });

  it('has none of that time after a pong: all that was sent before its ping has been read', async () => {
    const { core, client, send, diesAfter } = await withClient();
    send(900 * KIB);
    await core.clock.advance(INTERVAL + INTERVAL / 4);
    expect(client.connection.unreadBytes).toBeLessThan(16 * KIB);
    client.become('silent');
    expect(await diesAfter()).toBeLessThanOrEqual(3 * INTERVAL);
  });

  it('is not proven dead by a kernel that takes nothing for two heartbeats', async () => {
    const { client, send, diesAfter } = await withClient();
    client.become('silent');
    client.isStuck = true;
    send(960 * KIB);
    const after = await diesAfter();
    expect(after).toBeGreaterThanOrEqual(PATIENCE + 60 * SECOND);
    expect(after).toBeLessThanOrEqual(105 * SECOND);
  });
});
