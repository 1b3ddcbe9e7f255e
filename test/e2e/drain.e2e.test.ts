import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { type OnGatewayDisconnect, WebSocketGateway } from '@nestjs/websockets';
import { afterEach, describe, expect, it } from 'vitest';
import { WebSocketManagerModule } from '../../src/index.js';
import { startApp } from '../support/app.js';
import { FreezableClient } from '../support/freezable-client.js';
import { readMetrics } from '../support/metrics.js';
import { ADMIN_TOKEN, type Exit, type Server, startServer } from '../support/server.js';
import { enter, knock, type Stranger, sleep, until } from '../support/stranger.js';

const SPREAD_MS = 800;
const TIMEOUT_MS = 2_000;
/** For the process to end, once everything is closed. */
const EXIT_MS = 1_000;

const cleanUp: (() => unknown)[] = [];
afterEach(async () => {
  for (const undo of cleanUp.splice(0).reverse()) await undo();
});

async function start(spreadMs = SPREAD_MS): Promise<Server> {
  const env = { WSM_DRAIN_SPREAD_MS: `${spreadMs}`, WSM_DRAIN_TIMEOUT_MS: `${TIMEOUT_MS}` };
  const server = await startServer(env);
  cleanUp.push(() => server.stop());
  return server;
}

async function enterMany(server: Server, count: number): Promise<Stranger[]> {
  const userIds = Array.from({ length: count }, (_, i) => `user-${i}`);
  return Promise.all(userIds.map((userId) => enter(server.socketUrl({ userId }))));
}

async function freeze(server: Server): Promise<void> {
  const frozen = await FreezableClient.open([server.socketUrl({ userId: 'frozen' })]);
  cleanUp.push(() => frozen.kill());
  await frozen.freeze();
}

/** Sends SIGTERM, and tells how the process ended and after how long. */
async function terminate(server: Server): Promise<Exit & { ms: number }> {
  const startedAt = performance.now();
  const exit = await server.stop('SIGTERM', TIMEOUT_MS + 5_000);
  return { ...exit, ms: performance.now() - startedAt };
}

function expectPoliteEnd({ code, signal }: Exit): void {
  expect([code, signal]).toEqual(code === 0 ? [0, null] : [null, 'SIGTERM']);
}

function expectGoodbye(client: Stranger): number {
  expect(client.closed).toMatchObject({ code: 1012, reason: 'draining' });
  expect(client.of('ws:closing')).toEqual([
    { code: 1012, reason: 'draining', retryable: true, retryAfterMs: expect.any(Number) },
  ]);
  return (client.of('ws:closing')[0] as { retryAfterMs: number }).retryAfterMs;
}

describe('SIGTERM', () => {
  it('says goodbye to every client over the spread, each with a time of its own to come back', async () => {
    const server = await start();
    const clients = await enterMany(server, 60);
    const sentAt = performance.now();
    const exit = await terminate(server);
    expectPoliteEnd(exit);
    expect(exit.ms).toBeLessThan(SPREAD_MS + EXIT_MS);
    await until(() => clients.every(({ closed }) => closed), 1_000, 'all closes');
    const retries = clients.map(expectGoodbye);
    expect(new Set(retries).size).toBeGreaterThan(40);
    expect(Math.min(...retries)).toBeGreaterThanOrEqual(500);
    const closedAt = clients.map(({ closed }) => (closed?.at ?? 0) - sentAt).toSorted((a, b) => a - b);
    const at = (share: number) => closedAt[Math.floor(share * 59)] as number;
    expect(at(1) - at(0)).toBeGreaterThan(SPREAD_MS * 0.6);
    expect(at(0.5) - at(0)).toBeGreaterThan(SPREAD_MS * 0.2);
    expect(at(0.5) - at(0)).toBeLessThan(SPREAD_MS * 0.8);
  });

  it('refuses newcomers at once, and says so at /health/ready, while it still waits for others', async () => {
    const server = await start();
    await freeze(server);
    const url = server.socketUrl({ userId: 'newcomer' });
    server.signal('SIGTERM');
    await until(() => server.log.includes('Draining'), 1_000, 'the drain to begin');
    const [answers, ready, live, metrics] = await Promise.all([
      Promise.all([knock(url), knock(url)]),
      fetch(`${server.url}/health/ready`),
      fetch(`${server.url}/health/live`),
      readMetrics(server),
    ]);
    for (const { refusal, ms } of answers) {
      expect(ms).toBeLessThan(200);
      expect(refusal?.status).toBe(503);
      expect(refusal?.body).toMatchObject({ reason: 'draining', retryAfterMs: expect.any(Number) });
      expect(Number(refusal?.headers['retry-after'])).toBeGreaterThan(0);
    }
    const [first, second] = answers.map(({ refusal }) => refusal?.body.retryAfterMs);
    expect(first).not.toBe(second);
    expect([ready.status, live.status]).toEqual([503, 200]);
    const { details } = (await ready.json()) as { details: { websocket_managers: unknown } };
    expect(details.websocket_managers).toMatchObject({
      status: 'down',
      reasons: ['draining'],
      draining: true,
    });
    expect(metrics.sum('websocket_manager_draining')).toBe(1);
    expectPoliteEnd(await server.exited);
  });

  it('says goodbye also to those whose turn had not come when the machine was suspended past the end', async () => {
    const server = await start(TIMEOUT_MS);
    const clients = await enterMany(server, 30);
    server.signal('SIGTERM');
    await until(() => server.log.includes('Draining'), 1_000, 'the drain to begin');
    server.signal('SIGSTOP');
    await sleep(TIMEOUT_MS + 200);
    server.signal('SIGCONT');
    expectPoliteEnd(await server.exited);
    await until(() => clients.every(({ closed }) => closed), 1_000, 'all closes');
    for (const client of clients) expectGoodbye(client);
  });

  it('is not held up beyond its time by a client that is frozen', async () => {
    const server = await start();
    await freeze(server);
    const [client] = await enterMany(server, 1);
    const exit = await terminate(server);
    expectPoliteEnd(exit);
    expect(exit.ms).toBeGreaterThan(TIMEOUT_MS - 200);
    expect(exit.ms).toBeLessThan(TIMEOUT_MS + EXIT_MS);
    expect(exit.stdout).toMatch(/Drained 2 connections, 1 of them terminated/);
    expectGoodbye(client as Stranger);
  });

  it('is not held up by a watched stream of events, nor by connections that ask for nothing', async () => {
    const server = await start();
    await fetch(`${server.url}/websocket-managers/api/events`, {
      headers: { authorization: `Bearer ${ADMIN_TOKEN}` },
    });
    const { hostname, port } = new URL(server.url);
    const sockets: Socket[] = ['', 'GET / HTTP/1.1\r\n'].map((text) =>
      connect(Number(port), hostname, function (this: Socket) {
        this.write(text);
      }).on('error', () => {}),
    );
    cleanUp.push(() => {
      for (const socket of sockets) socket.destroy();
    });
    await until(() => sockets.every(({ connecting }) => !connecting), 1_000, 'the connections');
    await sleep(50);
    const exit = await terminate(server);
    expectPoliteEnd(exit);
    expect(exit.ms).toBeLessThan(TIMEOUT_MS + EXIT_MS);
  });

  it('drains an application that has no shutdown hooks too, and then ends it', async () => {
    const server = await startServer({}, { script: 'test/support/bare-server.mjs' });
    cleanUp.push(() => server.stop());
    const clients = await enterMany(server, 5);
    const exit = await terminate(server);
    expect([exit.code, exit.signal]).toEqual([null, 'SIGTERM']);
    clients.forEach(expectGoodbye);
    expect(exit.stdout.match(/The gateway has said goodbye/g)).toHaveLength(5);
    expect(exit.ms).toBeLessThan(200 + 200 + EXIT_MS);
  });
});

/** Whether this machine lets a test make a process PID 1 of a namespace of its own. */
const UNSHARE = ['--user', '--map-root-user', '--pid', '--fork', '--kill-child', '--mount-proc'];
const canUnshare = spawnSync('unshare', [...UNSHARE, 'true']).status === 0;

/** For machines that do not: the kernel ignores a signal that PID 1 sends to itself, and so does this process. */
const AS_IF_PID_1 = `data:text/javascript,const { kill } = process;
process.kill = (pid, signal) => pid === process.pid || kill.call(process, pid, signal);`;

describe('SIGTERM for PID 1', () => {
  it('drains an application that has no shutdown hooks, and the process exits with 143', async () => {
    const script = 'test/support/bare-server.mjs';
    const options = canUnshare
      ? { script, node: 'unshare', nodeArgs: [...UNSHARE, process.execPath] }
      : { script, nodeArgs: ['--import', AS_IF_PID_1] };
    const server = await startServer({}, options);
    cleanUp.push(() => server.stop());
    const clients = await enterMany(server, 5);
    const pid = canUnshare ? childOf(server.pid) : server.pid;
    process.kill(pid, 'SIGTERM');
    const exit = await Promise.race([server.exited, sleep(5_000).then(() => 'still running')]);
    expect(exit).toMatchObject({ code: 143, signal: null });
    clients.forEach(expectGoodbye);
    expect((exit as Exit).stdout.match(/The gateway has said goodbye/g)).toHaveLength(5);
  });
});

function childOf(pid: number): number {
  return Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim());
}

describe('an upgrade that is pending when a drain begins', () => {
  const origin = (url: string) => ({ origin: url.replace(/^ws/, 'http') });
  /** Never answers in time. */
  const authenticate = async () => {
    await sleep(3_000);
    return { userId: 'alice' };
  };

  it('is refused at once with 503, and in a browser with 1012, while authenticate is still running', async () => {
    const { app, url, service, of } = await startApp({
      options: { authenticate, drain: { spreadMs: 0, timeoutMs: 5_000 } },
    });
    const knocking = [knock(`${url}/ws`), knock(`${url}/ws`), knock(`${url}/ws`, origin(url))];
    await sleep(200);
    const startedAt = performance.now();
    const closing = app.close();
    const [first, second, browser] = await Promise.all(knocking);
    for (const answer of [first, second]) {
      expect(answer?.refusal).toMatchObject({ status: 503, body: { reason: 'draining' } });
      expect(answer?.ms).toBeLessThan(1_000);
    }
    expect(await browser?.client?.whenClosed()).toMatchObject({ code: 1012, reason: 'draining' });
    await closing;
    expect(performance.now() - startedAt).toBeLessThan(2_500);
    expect(of('rejected').map(({ reason }) => reason)).toEqual(['draining', 'draining', 'draining']);
    await sleep(3_000);
    expect([service.managersOf('alice'), of('admitted')]).toEqual([[], []]);
  });
});

describe('app.close()', () => {
  const farewells: string[] = [];

  @WebSocketGateway({ path: '/ws' })
  class FarewellGateway implements OnGatewayDisconnect {
    async handleDisconnect(): Promise<void> {
      farewells.push('begun');
      await sleep(300);
      farewells.push('done');
    }
  }

  @Module({
    imports: [
      WebSocketManagerModule.forRoot({
        authenticate: ({ url }) => ({ userId: url ?? '' }),
        drain: { timeoutMs: TIMEOUT_MS, spreadMs: 200 },
        canary: { intervalMs: 0 },
      }),
    ],
    providers: [FarewellGateway],
  })
  class FarewellModule {}

  it('says goodbye as well, and waits for what the gateways do on a disconnect', async () => {
    const app = await NestFactory.create(FarewellModule, { logger: false });
    await app.listen(0, '127.0.0.1');
    const url = (await app.getUrl()).replace(/^http/, 'ws');
    const clients = await Promise.all([1, 2, 3].map((i) => enter(`${url}/ws?${i}`, { bare: true })));
    const startedAt = performance.now();
    await app.close();
    expect(performance.now() - startedAt).toBeLessThan(TIMEOUT_MS);
    expect(farewells.filter((what) => what === 'done')).toHaveLength(3);
    await until(() => clients.every(({ closed }) => closed), 1_000, 'all closes');
    clients.forEach(expectGoodbye);
  });
});
