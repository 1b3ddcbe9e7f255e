import { readdirSync } from 'node:fs';
import { connect } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { readMetrics } from '../support/metrics.js';
import { Operator } from '../support/operator.js';
import { RawPeer } from '../support/raw-peer.js';
import { ADMIN_TOKEN, type Server, startServer } from '../support/server.js';
import { knock, sleep, until } from '../support/stranger.js';

let server: Server;
let operator: Operator;
const leftovers: { destroy(): void }[] = [];

async function start(env: NodeJS.ProcessEnv = {}): Promise<void> {
  server = await startServer(env);
  operator = new Operator(server);
}

afterEach(async () => {
  for (const socket of leftovers.splice(0)) socket.destroy();
  await server.stop();
});

async function peerOf(userId: string): Promise<RawPeer> {
  const peer = new RawPeer(server.socketUrl({ userId }));
  leftovers.push(peer);
  await until(() => peer.opcodes.length > 0, 2_000, 'the session frame');
  return peer;
}

async function bufferedFor(userId: string): Promise<number> {
  const { body } = await operator.get(`users/${userId}`).expect(200);
  const [manager] = (body as { managers: { connections: { bufferedBytes: number }[] }[] }).managers;
  return manager?.connections[0]?.bufferedBytes ?? 0;
}

const openFiles = () => readdirSync(`/proc/${server.pid}/fd`).length;

/** What the operator is told of while it happens. */
async function listen(): Promise<() => string> {
  const abort = new AbortController();
  leftovers.push({ destroy: () => abort.abort() });
  const headers = { authorization: `Bearer ${ADMIN_TOKEN}` };
  const { body } = await fetch(`${server.url}/websocket-managers/api/events`, {
    headers,
    signal: abort.signal,
  });
  let text = '';
  const read = async () => {
    for await (const chunk of body ?? []) text += Buffer.from(chunk).toString();
  };
  read().catch(() => {});
  return () => text;
}

const CHUNK = 'x'.repeat(100_000);

/** Has so much echoed that it cannot all be on the way. */
async function fillOutput(peer: RawPeer, userId: string, bytes: number): Promise<void> {
  peer.allow(0);
  const isFull = async () => {
    for (let i = 0; i < 5; i++) peer.send('echo', CHUNK);
    return (await bufferedFor(userId)) > bytes;
  };
  await until(isFull, 10_000, 'the output to back up', 20);
}

/** Reads one byte a second, until the test is over. */
function readSlowly(peer: RawPeer): void {
  const timer = setInterval(() => peer.allow(1), 1_000);
  leftovers.push({ destroy: () => clearInterval(timer) });
}

describe('a peer that reads one byte a second', () => {
  it('and answers the pings that it finds so is never ended', { timeout: 60_000 }, async () => {
    await start({ WSM_HEARTBEAT_INTERVAL_MS: '4000', WSM_CLEANUP_INTERVAL_MS: '500' });
    const peer = await peerOf('alice');
    peer.allow(0);
    readSlowly(peer);
    await sleep(22_000);
    expect(peer.isClosed).toBe(false);
    expect(peer.opcodes.filter((opcode) => opcode === 9).length).toBeGreaterThanOrEqual(4);
    expect(peer.bytes).toBeLessThan(1_000);
    const metrics = await readMetrics(server);
    expect(metrics.sum('websocket_manager_zombies_detected_total')).toBe(0);
    expect(metrics.sum('websocket_manager_connections')).toBe(1);
  });

  it('and keeps sending pongs is never ended for output that stands still', async () => {
    const intervalMs = 1_000;
    await start({ WSM_HEARTBEAT_INTERVAL_MS: `${intervalMs}`, WSM_MAX_BUFFERED_BYTES: `${64 * 2 ** 20}` });
    const peer = await peerOf('alice');
    await fillOutput(peer, 'alice', 2 ** 20);
    readSlowly(peer);
    // Life once a beat: no byte is missing for as long as it takes to be asked.
    const pongs = setInterval(() => peer.pong(), 0.75 * intervalMs);
    leftovers.push({ destroy: () => clearInterval(pongs) });
    await sleep(10 * intervalMs);
    expect(await bufferedFor('alice')).toBeGreaterThan(2 ** 20);
    expect(peer.isClosed).toBe(false);
    expect((await readMetrics(server)).sum('websocket_manager_zombies_detected_total')).toBe(0);
  });
});

describe('a peer that never reads', () => {
  it('is a slow consumer, told 4108, and no zombie', async () => {
    await start({ WSM_MAX_BUFFERED_BYTES: `${2 ** 20}` });
    const peer = await peerOf('alice');
    const other = await knock(server.socketUrl({ userId: 'bob' }));
    const happenings = await listen();
    const files = openFiles();
    peer.allow(0);
    const isGone = async () => {
      for (let i = 0; i < 5; i++) peer.send('echo', CHUNK);
      return (await operator.managersOf('alice')).length === 0;
    };
    await until(isGone, 15_000, 'the session to be ended', 20);
    expect(happenings()).toMatch(/"type":"detached"[^\n]*"reason":"slow_consumer"/);
    // The bookkeeping comes first; the socket itself goes in bounded time too, though nobody closes its other end.
    await until(() => openFiles() < files, 5_000, 'its socket to be closed');
    await other.client?.echo('meanwhile');
    const metrics = await readMetrics(server);
    expect(metrics.sum('websocket_manager_zombies_detected_total')).toBe(0);
    expect(metrics.sum('websocket_manager_buffered_bytes')).toBe(0);
  });
});

describe('handshakes that never end', () => {
  const HALVES = [
    'GET /ws?userId=mallory HTTP/1.1\r\n',
    'GET /ws?userId=mallory HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgr',
    'GET /ws?userId=mal',
    '',
  ];
  const MANY = 1_000;

  /** Of others, one after the other: the median and the 99th percentile. */
  async function handshakes(): Promise<[p50: number, p99: number]> {
    const times: number[] = [];
    for (let i = 0; i < 200; i++) {
      const { client, refusal, ms } = await knock(server.socketUrl({ userId: `other-${i % 5}` }));
      expect(refusal).toBeUndefined();
      times.push(ms);
      client?.socket.close();
      await client?.whenClosed();
    }
    times.sort((a, b) => a - b);
    return [times[100] as number, times[198] as number];
  }

  it('cost no slot, and nobody else the wait', async () => {
    await start({ WSM_MANAGERS_PER_NODE: '20' });
    await handshakes();
    const [p50Alone, p99Alone] = await handshakes();
    const { hostname, port } = new URL(server.url);
    const connected: Promise<unknown>[] = [];
    for (let i = 0; i < MANY; i++) {
      const socket = connect(Number(port), hostname);
      leftovers.push(socket);
      socket.on('error', () => {});
      connected.push(new Promise((resolve) => socket.once('connect', resolve)));
      socket.write(HALVES[i % HALVES.length] as string);
    }
    await Promise.all(connected);
    const trickle = setInterval(() => {
      for (const socket of leftovers)
        if ('write' in socket) (socket as never as RawWriter).write('X-A: b\r\n');
    }, 500);
    leftovers.push({ destroy: () => clearInterval(trickle) });
    const [p50, p99] = await handshakes();
    expect(await operator.managersOf('mallory')).toEqual([]);
    console.log(
      `handshakes alone: p50 ${p50Alone.toFixed(1)} ms, p99 ${p99Alone.toFixed(1)} ms; beside ${MANY} half ` +
        `handshakes: p50 ${p50.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms`,
    );
    expect(p50).toBeLessThan(Math.max(50, 10 * p50Alone));
    expect(p99).toBeLessThan(Math.max(500, 15 * p99Alone));
    expect((await readMetrics(server)).sum('websocket_manager_rejections_total')).toBe(0);
  });
});

interface RawWriter {
  write(text: string): void;
}
