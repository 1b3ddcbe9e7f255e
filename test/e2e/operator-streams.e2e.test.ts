import { afterEach, describe, expect, it } from 'vitest';
import { EventReader, refuseMany, residentMiB } from '../support/event-streams.js';
import { ADMIN_TOKEN, type Server, startServer } from '../support/server.js';
import { enter, until } from '../support/stranger.js';

const MOST_STREAMS = 16;
const AUTHORIZATION = `Bearer ${ADMIN_TOKEN}`;
/** Sixteen readers that stop reading; in a queue without a bound, this many refusals would cost over 100 MiB. */
const REFUSALS = Number(process.env.REFUSALS ?? 6_000);
const WARM_UP = 3_000;
/** 16 x (64 KiB and the buffers of a socket), and the garbage of the handshakes. */
const MOST_GROWTH_MIB = 40;

let server: Server;
const readers: EventReader[] = [];

async function start(env: NodeJS.ProcessEnv = {}): Promise<void> {
  server = await startServer(env);
}

async function open(method?: string): Promise<EventReader> {
  const reader = await EventReader.open(server.url, AUTHORIZATION, undefined, method);
  readers.push(reader);
  return reader;
}

afterEach(async () => {
  for (const reader of readers.splice(0)) reader.close();
  await server.stop();
});

describe('GET api/events', () => {
  it('holds a bounded number of bytes for readers that stop reading, and counts what it drops', async () => {
    await start({ WSM_MANAGERS_PER_NODE: '1' });
    await enter(server.socketUrl({ userId: 'alice' }));
    const url = new URL(server.socketUrl());
    while (readers.length < MOST_STREAMS) (await open()).stopReading();
    expect(await refuseMany(url, WARM_UP, 503)).toBe(WARM_UP);
    const before = residentMiB(server.pid);
    expect(await refuseMany(url, REFUSALS, 503)).toBe(REFUSALS);
    const growth = residentMiB(server.pid) - before;
    console.log(`${REFUSALS} refusals, ${MOST_STREAMS} stalled readers: ${growth.toFixed(1)} MiB more`);
    expect(growth).toBeLessThan(MOST_GROWTH_MIB);
    const [reader] = readers as [EventReader];
    reader.readOn();
    await until(() => reader.of('dropped').length > 0, 5_000, 'the number of dropped events');
    const [dropped] = reader.of('dropped');
    expect(dropped).toEqual({ type: 'dropped', count: expect.any(Number), at: expect.any(Number) });
    const told = reader.of('rejected').length;
    expect(told).toBeGreaterThan(0);
    expect(told + Number(dropped?.count)).toBe(WARM_UP + REFUSALS);
    // It goes on from there.
    expect(await refuseMany(url, 1, 503)).toBe(1);
    await until(() => reader.of('rejected').length > told, 2_000, 'the next event');
  }, 120_000);

  it('is answered with 503 and Retry-After beyond sixteen streams, until one ends', async () => {
    await start();
    while (readers.length < MOST_STREAMS) expect((await open()).status).toBe(200);
    const refused = await open();
    expect(refused.status).toBe(503);
    expect(refused.head).toMatch(/^retry-after: \d+$/im);
    readers[0]?.close();
    await until(async () => (await open()).status === 200, 2_000, 'a stream to be free', 50);
  });

  it('has the headers of server-sent events, and ends at once for HEAD', async () => {
    await start();
    for (const method of ['GET', 'HEAD']) {
      const { head, status } = await open(method);
      expect([method, status]).toEqual([method, 200]);
      const headers = Object.fromEntries(
        head
          .toLowerCase()
          .split('\r\n')
          .slice(1)
          .map((line) => line.split(': ')),
      );
      expect(headers).toMatchObject({
        'content-type': 'text/event-stream',
        connection: 'keep-alive',
        'cache-control': 'private, no-cache, no-store, must-revalidate, max-age=0, no-transform',
        pragma: 'no-cache',
        expires: '0',
        'x-accel-buffering': 'no',
      });
    }
    // Had the stream of a HEAD stayed open, it would count.
    for (let i = 0; i < MOST_STREAMS; i++) expect((await open('HEAD')).status).toBe(200);
  });

  it('ends with the node, also where the reader does not read', async () => {
    await start({ WSM_MANAGERS_PER_NODE: '1', WSM_DRAIN_SPREAD_MS: '0', WSM_DRAIN_TIMEOUT_MS: '1000' });
    await enter(server.socketUrl({ userId: 'alice' }));
    const [reading, stalled] = [await open(), await open()];
    stalled.stopReading();
    await refuseMany(new URL(server.socketUrl()), 6_000, 503);
    const startedAt = performance.now();
    await server.stop('SIGTERM', 6_000);
    expect(performance.now() - startedAt).toBeLessThan(4_000);
    await until(() => reading.isClosed, 1_000, 'the end of the stream');
    expect(reading.of('draining')).toHaveLength(2);
    expect(reading.text).toMatch(/\r\n0\r\n\r\n$/);
  }, 60_000);
});
