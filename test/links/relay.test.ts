import { connect, createServer, type Server, type Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sleep, until } from '../support/stranger.js';
import { type Link, type LinkShape, Relay } from './relay.js';

// The links are only worth something if they are as slow as they say, and let the server feel it.

const KIB = 1_024;
const MIB = KIB * KIB;
/** A busy machine makes a link slower, never faster. */
const MACHINE_MS = 1_500;

const FAST: LinkShape = { bytesPerSecond: 8 * MIB, delayMs: 1, queueBytes: 64 * KIB };

let relay: Relay;
let server: Server;
let port: number;
const accepted: Socket[] = [];
const opened: Socket[] = [];

beforeAll(async () => {
  relay = new Relay();
  server = createServer({ noDelay: true }, (socket) => {
    socket.on('error', () => {});
    accepted.push(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  ({ port } = server.address() as { port: number });
});
afterAll(async () => {
  for (const socket of [...accepted, ...opened]) socket.destroy();
  await relay.close();
  server.close();
});

/** Both ends of one connection over `link`, and what each has received. */
async function pair(link: Link) {
  const known = accepted.length;
  const client = connect(await relay.open(link, port), '127.0.0.1');
  client.setNoDelay(true);
  client.on('error', () => {});
  opened.push(client);
  await until(() => accepted.length > known, 5_000, 'the relay to connect');
  const near = accepted[known] as Socket;
  const received = { client: 0, server: 0, clientEnded: false, serverEnded: false };
  client.on('data', ({ length }) => {
    received.client += length;
  });
  near.on('data', ({ length }) => {
    received.server += length;
  });
  client.on('end', () => {
    received.clientEnded = true;
  });
  near.on('close', () => {
    received.serverEnded = true;
  });
  return { client, near, received };
}

async function msUntil(condition: () => boolean): Promise<number> {
  const startedAt = performance.now();
  await until(condition, 25_000, 'the bytes', 2);
  return performance.now() - startedAt;
}

describe('Relay', () => {
  it('passes bytes at the bandwidth of each direction', async () => {
    const slow = { bytesPerSecond: 100 * KIB, delayMs: 1, queueBytes: 8 * KIB };
    const { client, near, received } = await pair({ down: slow, up: { ...slow, bytesPerSecond: 200 * KIB } });
    near.write(Buffer.alloc(300 * KIB));
    client.write(Buffer.alloc(300 * KIB));
    const [downMs, upMs] = await Promise.all([
      msUntil(() => received.client === 300 * KIB),
      msUntil(() => received.server === 300 * KIB),
    ]);
    expect(downMs).toBeGreaterThan(2_900);
    expect(downMs).toBeLessThan(3_000 + MACHINE_MS);
    expect(upMs).toBeGreaterThan(1_400);
    expect(upMs).toBeLessThan(1_500 + MACHINE_MS);
  });

  it('delays each direction', async () => {
    const { client, near, received } = await pair({
      down: { ...FAST, delayMs: 600 },
      up: { ...FAST, delayMs: 200 },
    });
    near.write('x');
    client.write('x');
    const [downMs, upMs] = await Promise.all([
      msUntil(() => received.client === 1),
      msUntil(() => received.server === 1),
    ]);
    expect(downMs).toBeGreaterThan(595);
    expect(downMs).toBeLessThan(600 + MACHINE_MS);
    expect(upMs).toBeGreaterThan(195);
    expect(upMs).toBeLessThan(200 + MACHINE_MS);
  });

  it('stops reading above its queue, so that the sender feels it', async () => {
    const queueBytes = 16 * KIB;
    const { near } = await pair({ down: { bytesPerSecond: 4 * KIB, delayMs: 10, queueBytes }, up: FAST });
    await relay.report();
    near.write(Buffer.alloc(32 * MIB));
    await sleep(1_500);
    expect(near.writableLength).toBeGreaterThan(0);
    const { mostHeldBytes } = await relay.report();
    // All links of this file share the figure; the largest has a queue of 64 KiB, and a read of at most as much beyond it.
    expect(mostHeldBytes).toBeLessThan(256 * KIB);
    near.destroy();
  });

  it('lets nothing pass during a stall, and loses nothing', async () => {
    const stalls = [{ direction: 'down', everyMs: 60_000, forMs: 2_000, offsetMs: 300 }] as const;
    const { client, near, received } = await pair({ down: FAST, up: FAST, stalls });
    near.write('before');
    await msUntil(() => received.client === 6);
    await sleep(500);
    near.write('within');
    client.write('heard');
    await msUntil(() => received.server === 5);
    await sleep(700);
    expect(received.client).toBe(6);
    await msUntil(() => received.client === 12);
  });

  it('passes nothing over a dead connection, and closes neither end', async () => {
    const { client, near, received } = await pair({ down: FAST, up: FAST, deadAfterMs: 300 });
    await sleep(600);
    near.write('x');
    client.write('x');
    near.end();
    await sleep(700);
    expect(received).toEqual({ client: 0, server: 0, clientEnded: false, serverEnded: false });
  });

  it('passes the end of a connection after its last byte', async () => {
    const { near, received } = await pair({ down: { ...FAST, bytesPerSecond: 64 * KIB }, up: FAST });
    near.end(Buffer.alloc(64 * KIB));
    await msUntil(() => received.clientEnded);
    expect(received.client).toBe(64 * KIB);
  });

  it('lets the connections of a shared link share its bandwidth', async () => {
    const slow = { bytesPerSecond: 100 * KIB, delayMs: 1, queueBytes: 8 * KIB };
    const link = { down: slow, up: FAST, shared: true };
    const first = await pair(link);
    const known = accepted.length;
    const { remotePort } = first.client;
    const second = connect(remotePort as number, '127.0.0.1');
    opened.push(second);
    let received = 0;
    second.on('data', ({ length }) => {
      received += length;
    });
    await until(() => accepted.length > known, 5_000, 'the relay to connect');
    first.near.write(Buffer.alloc(100 * KIB));
    (accepted[known] as Socket).write(Buffer.alloc(100 * KIB));
    const ms = await msUntil(() => first.received.client === 100 * KIB && received === 100 * KIB);
    expect(ms).toBeGreaterThan(1_900);
    expect(ms).toBeLessThan(2_000 + MACHINE_MS);
  });
});
