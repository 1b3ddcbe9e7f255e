import { connect, type Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { FreezableClient } from '../support/freezable-client.js';
import { readMetrics } from '../support/metrics.js';
import { Operator } from '../support/operator.js';
import { type Server, startServer } from '../support/server.js';
import { enter, type Stranger, sleep, until } from '../support/stranger.js';

const INTERVAL_MS = 300;
const MISSED = 2;
/** (missed + 1) intervals are promised; the rest is for the way there and back on a busy machine. */
const FOUND_WITHIN_MS = (MISSED + 1) * INTERVAL_MS + 150;

let server: Server;
let operator: Operator;
const processes: FreezableClient[] = [];
const sockets: Socket[] = [];

async function start(env: NodeJS.ProcessEnv = {}): Promise<void> {
  server = await startServer({
    WSM_HEARTBEAT_INTERVAL_MS: `${INTERVAL_MS}`,
    WSM_HEARTBEAT_MISSED: `${MISSED}`,
    ...env,
  });
  operator = new Operator(server);
}

afterEach(async () => {
  await Promise.all(processes.splice(0).map((client) => client.kill()));
  for (const socket of sockets.splice(0)) socket.destroy();
  await server.stop();
});

async function inOwnProcess(...queries: Record<string, string>[]): Promise<FreezableClient> {
  const client = await FreezableClient.open(queries.map((query) => server.socketUrl(query)));
  processes.push(client);
  return client;
}

/** A TCP socket that has asked for the upgrade, and will not say another word. */
async function halfOpen(userId: string, reads: boolean): Promise<{ socket: Socket; text: () => string }> {
  const { hostname, port } = new URL(server.url);
  const socket = connect(Number(port), hostname);
  sockets.push(socket);
  let text = '';
  if (reads) {
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1');
    });
  }
  socket.on('error', () => {});
  const head = [
    `GET /ws?userId=${userId} HTTP/1.1`,
    `Host: ${hostname}:${port}`,
    'Upgrade: websocket',
    'Connection: Upgrade',
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
    'Sec-WebSocket-Version: 13',
  ];
  socket.write(`${head.join('\r\n')}\r\n\r\n`);
  await until(async () => (await operator.managersOf(userId)).length === 1, 2_000, 'the upgrade');
  return { socket, text: () => text };
}

/** How long it takes until the user has no manager any more. */
async function timeUntilGone(userId: string): Promise<number> {
  const startedAt = performance.now();
  const isGone = async () => (await operator.managersOf(userId)).length === 0;
  await until(isGone, 5_000, `the session of ${userId} to be ended`, 10);
  return performance.now() - startedAt;
}

describe('a client that falls silent', () => {
  it.each([0, 0.4, 0.8])(
    'is found within (missed + 1) intervals, %f of one after its last message',
    async (share) => {
      await start();
      const client = await inOwnProcess({ userId: 'alice' });
      await sleep(2 * INTERVAL_MS);
      client.send('echo', 'last words');
      await until(() => client.of('message').length === 2, 1_000, 'the echo');
      await sleep(share * INTERVAL_MS);
      await client.freeze();
      expect(await timeUntilGone('alice')).toBeLessThan(FOUND_WITHIN_MS);
      const { body } = await operator.get('evictions').expect(200);
      expect(body.evictions).toMatchObject([
        { userId: 'alice', reason: 'no_pong', evidence: { signal: 'missed_pongs' } },
      ]);
    },
  );

  it('is found as soon when it was dead on arrival, and never read its handshake', async () => {
    await start();
    await halfOpen('ghost', false);
    expect(await timeUntilGone('ghost')).toBeLessThan(FOUND_WITHIN_MS);
    const metrics = await readMetrics(server);
    expect(metrics.sum('websocket_manager_zombies_detected_total', { signal: 'never_completed' })).toBe(1);
  });

  it('is found as soon when it completes the handshake, reads on and never answers a ping', async () => {
    await start();
    const { socket, text } = await halfOpen('mute', true);
    expect(await timeUntilGone('mute')).toBeLessThan(FOUND_WITHIN_MS);
    await until(() => socket.destroyed, 1_000, 'the socket to be closed by the server');
    expect(text()).toMatch(/^HTTP\/1\.1 101 /);
    expect(text()).toContain('"reason":"no_pong"');
  });

  it('leaves, with a session key, an inactive manager, whose window then ends', async () => {
    await start({ WSM_RESUME_WINDOW_MS: '800' });
    const client = await inOwnProcess({ userId: 'alice', sessionKey: 'tab-1' });
    await client.freeze();
    const manager = async () => (await operator.user('alice')).managers[0];
    await until(async () => (await manager())?.status === 'inactive', FOUND_WITHIN_MS, 'the verdict');
    expect((await manager())?.connections).toEqual([]);
    const inWindowMs = await timeUntilGone('alice');
    expect(inWindowMs).toBeGreaterThan(600);
    expect(inWindowMs).toBeLessThan(1_100);
    const { body } = await operator.get('evictions').expect(200);
    expect(body.evictions).toMatchObject([{ userId: 'alice', sessionKey: 'tab-1', reason: 'inactive' }]);
  });
});

describe('below the limit', () => {
  it('a client that answers pings is never ended, however long it says nothing else', async () => {
    await start({
      WSM_IDLE_AFTER_MS: '200',
      WSM_CLEANUP_INTERVAL_MS: '100',
      WSM_MANAGERS_PER_USER: '4',
      WSM_PROBE_TIMEOUT_MS: '100',
    });
    const clients: Stranger[] = [];
    while (clients.length < 3) clients.push(await enter(server.socketUrl({ userId: 'alice' })));
    await sleep(2_000);
    const { managers } = await operator.user('alice');
    expect(managers.map(({ status }) => status)).toEqual(['idle', 'idle', 'idle']);
    expect(clients.map(({ closed }) => closed)).toEqual([undefined, undefined, undefined]);
    const metrics = await readMetrics(server);
    const swept = { level: 'aggressive', trigger: 'scheduled' };
    expect(metrics.sum('websocket_manager_cleanups_total', swept)).toBeGreaterThan(5);
    expect(metrics.sum('websocket_manager_evictions_total')).toBe(0);
  });

  it('a client that answers slowly, but answers, is suspected and never ended', async () => {
    await start({
      WSM_CLEANUP_INTERVAL_MS: '100',
      WSM_MANAGERS_PER_USER: '4',
      WSM_PROBE_TIMEOUT_MS: '250',
    });
    const clients: Stranger[] = [];
    while (clients.length < 3) {
      clients.push(await enter(server.socketUrl({ userId: 'alice' }), { answersPingsAfterMs: 400 }));
    }
    await sleep(3_000);
    expect(clients.map(({ closed }) => closed)).toEqual([undefined, undefined, undefined]);
    const verdicts = await readMetrics(server);
    const suspects = 'websocket_manager_zombie_suspects_total';
    expect(verdicts.sum(suspects, { verdict: 'recovered' })).toBeGreaterThan(0);
    expect(verdicts.sum(suspects, { verdict: 'confirmed' })).toBe(0);
  });
});

describe('the heartbeat', () => {
  it('asks nobody who is talking', async () => {
    await start();
    const talking = await enter(server.socketUrl({ userId: 'alice' }));
    const silent = await enter(server.socketUrl({ userId: 'bob' }));
    const chatter = setInterval(() => talking.send('echo', 'and another thing'), 20);
    await sleep(2_000);
    clearInterval(chatter);
    expect(talking.pings).toBe(0);
    expect(silent.pings).toBeGreaterThanOrEqual(4);
    expect(silent.pings).toBeLessThanOrEqual(Math.ceil(2_000 / INTERVAL_MS) + 1);
  });

  it('blames nobody for a time in which the server itself stood still', async () => {
    await start({ WSM_CLEANUP_INTERVAL_MS: '100', WSM_PROBE_TIMEOUT_MS: '200' });
    const clients: Stranger[] = [];
    for (let i = 0; i < 18; i++) clients.push(await enter(server.socketUrl({ userId: 'alice' })));
    for (let i = 0; i < 30; i++) clients.push(await enter(server.socketUrl({ userId: `other-${i}` })));
    await sleep(INTERVAL_MS);
    server.signal('SIGSTOP');
    await sleep(3_000);
    server.signal('SIGCONT');
    await sleep(5 * INTERVAL_MS);
    expect(clients.filter(({ closed }) => closed)).toEqual([]);
    const metrics = await readMetrics(server);
    expect(metrics.sum('websocket_manager_event_loop_voids_total')).toBeGreaterThan(0);
    expect(metrics.sum('websocket_manager_zombies_detected_total')).toBe(0);
    expect(metrics.sum('websocket_manager_connections')).toBe(48);
  });
});
