import { connect } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { readMetrics } from '../support/metrics.js';
import { Operator } from '../support/operator.js';
import { clientFrame } from '../support/raw-peer.js';
import { handshake } from '../support/raw-socket.js';
import { type Server, startServer } from '../support/server.js';
import { enter, sleep, until } from '../support/stranger.js';

let server: Server;
let isOver = false;
afterEach(async () => {
  isOver = true;
  await server.stop();
});

/** Alice's connection, that nobody reads for now, and how many bytes wait for it in the server. */
async function openReader() {
  const operator = new Operator(server);
  const { hostname, port } = new URL(server.url);
  const reader = connect(Number(port), hostname);
  reader.on('error', () => {});
  reader.write(handshake('/ws?userId=alice'));
  await new Promise((resolve) => reader.once('data', resolve));
  reader.pause();
  const backlog = async () => {
    const { body } = await operator.get('users/alice').expect(200);
    return (body.managers[0]?.connections[0]?.bufferedBytes ?? 0) as number;
  };
  return { reader, backlog };
}

describe('a client of a user under pressure, whose answer takes long to be read', () => {
  it('is not proven dead by questions that still wait behind it in our own queue', async () => {
    isOver = false;
    server = await startServer({
      WSM_CLEANUP_INTERVAL_MS: '300',
      WSM_PROBE_TIMEOUT_MS: '300',
      WSM_MAX_BUFFERED_BYTES: `${64 * 2 ** 20}`,
    });
    const { reader, backlog } = await openReader();
    const backsUp = async () => {
      reader.write(clientFrame(0x1, JSON.stringify({ event: 'echo', data: 'x'.repeat(500_000) })));
      return (await backlog()) > 8 * 2 ** 20;
    };
    await until(backsUp, 20_000, 'the answer to back up', 5);
    // It reads all the time, some megabytes a second, and says nothing.
    const read = async () => {
      while (!isOver && !reader.destroyed) {
        reader.read(65_536);
        await sleep(30);
      }
    };
    void read();
    const others = await Promise.all(
      Array.from({ length: 14 }, () => enter(server.socketUrl({ userId: 'alice' }))),
    );
    const before = await backlog();
    await sleep(2_500);
    const after = await backlog();
    console.log(`backlog ${before} -> ${after}`);
    expect(reader.destroyed).toBe(false);
    expect((await readMetrics(server)).sum('websocket_manager_zombies_detected_total')).toBe(0);
    expect(after).toBeGreaterThan(0);
    expect(after).toBeLessThan(before);
    expect(others.filter(({ closed }) => closed)).toEqual([]);
    reader.destroy();
  });
});

describe('a client that reads one large answer slowly', () => {
  it('is not given up for its output, which moves, though Node has it as one write', async () => {
    isOver = false;
    // Eight looks are 800 ms.
    server = await startServer({
      WSM_HEARTBEAT_INTERVAL_MS: '400',
      WSM_HEARTBEAT_MISSED: '50',
      WSM_MAX_PAYLOAD_BYTES: `${64 * 2 ** 20}`,
      WSM_MAX_BUFFERED_BYTES: `${64 * 2 ** 20}`,
    });
    const { reader, backlog } = await openReader();
    reader.write(clientFrame(0x1, JSON.stringify({ event: 'echo', data: 'x'.repeat(30_000_000) })));
    await until(async () => (await backlog()) > 25_000_000, 10_000, 'the answer');
    const before = await backlog();
    for (let i = 0; i < 250; i++) {
      reader.read(65_536);
      await sleep(10);
    }
    expect(reader.destroyed).toBe(false);
    // The write is not done: of all that waits nothing is gone, as Node counts it.
    expect(await backlog()).toBeGreaterThanOrEqual(before);
    expect((await readMetrics(server)).sum('websocket_manager_zombies_detected_total')).toBe(0);
    reader.destroy();
  });
});
