import { connect as connectTcp, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { Herd } from '../support/herd.js';
import { type Server, startServer } from '../support/server.js';

/** Promise 2: the probe's time, and as much again as its bound leaves. */
const PROMISED_MS = 1_100;
/**
 * A crowd that asks within one turn is work of the event loop by itself, and it takes twice its time where the application
 * has half of each turn; the rest is for a machine that is busy. With one piece of work in each turn it was 20 times.
 */
const behindCrowdMs = (crowdAloneMs: number) => 3 * crowdAloneMs + PROMISED_MS;
/** Synchronous work of the application in each turn of the event loop: as much as the module's own budget. */
const WORK_MS = 5;

let server: Server;
const herds: Herd[] = [];
const sockets: Socket[] = [];
afterEach(async () => {
  for (const herd of herds.splice(0)) herd.kill();
  for (const socket of sockets.splice(0)) socket.destroy();
  await server.stop();
});

interface Setting {
  readonly store: 'memory' | 'asynchronous';
  readonly limit: number;
  readonly sweepMs?: number;
}

async function start({ store, limit, sweepMs = 30_000 }: Setting): Promise<number> {
  const env = { STORE: store, LIMIT: `${limit}`, SWEEP_MS: `${sweepMs}`, WORK_MS: `${WORK_MS}` };
  server = await startServer(env, { script: process.env.BUSY_SERVER ?? 'test/support/busy-server.mjs' });
  return Number(new URL(server.url).port);
}

function newHerd(): Herd {
  const herd = new Herd(1);
  herds.push(herd);
  return herd;
}

/**
 * A TCP connection that the server has accepted, and that has not asked for its upgrade yet. libuv accepts one connection
 * in each turn of the event loop, so a crowd of new ones waits for the platform, whatever the module does.
 */
class Accepted {
  private readonly socket: Socket;
  private answer = '';
  private isUpgraded = false;
  private onAnswer = () => {};

  constructor(
    private readonly userId: string,
    port: number,
  ) {
    this.socket = connectTcp({ port, host: '127.0.0.1', noDelay: true });
    sockets.push(this.socket);
    this.socket.on('error', () => {});
    this.socket.on('data', (chunk) => {
      if (this.isUpgraded) {
        if (chunk.includes(PING)) this.socket.write(PONG);
        return;
      }
      this.answer += chunk.toString('latin1');
      if (/^HTTP\/1.1 (101.*\r\n\r\n|404.*\})/s.test(this.answer)) this.onAnswer();
    });
  }

  /** An answered request proves that the connection was taken from the accept queue. */
  async ready(): Promise<this> {
    await this.ask('Connection: keep-alive\r\n');
    return this;
  }

  /** Asks for the upgrade. @returns the milliseconds until the answer, which must be 101. */
  async upgrade(): Promise<number> {
    const startedAt = performance.now();
    await this.ask(
      'Upgrade: websocket\r\nConnection: Upgrade\r\n' +
        'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n',
    );
    expect(this.answer).toMatch(/^HTTP\/1.1 101/);
    this.isUpgraded = true;
    return performance.now() - startedAt;
  }

  private async ask(headers: string): Promise<void> {
    this.answer = '';
    const answered = new Promise<void>((resolve) => {
      this.onAnswer = resolve;
    });
    const path = headers.startsWith('Upgrade') ? `/ws?userId=${this.userId}` : '/none';
    this.socket.write(`GET ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\n${headers}\r\n`);
    await answered;
  }
}

const PING = 0x89;
const PONG = Buffer.from([0x8a, 0x80, 0, 0, 0, 0]);

function accepted(userIds: readonly string[], port: number): Promise<Accepted[]> {
  return Promise.all(userIds.map((userId) => new Accepted(userId, port).ready()));
}

/** Connections of a user at its limit, one after the other, while the server is busy. */
async function waits(connections: readonly Accepted[], pauseMs: number): Promise<number[]> {
  const times: number[] = [];
  for (const connection of connections) {
    await sleep(pauseMs);
    times.push(Math.round(await connection.upgrade()));
  }
  console.log(`a user at its limit waited ${times.join(', ')} ms`);
  return times;
}

/** All ask at once. @returns how long the last of them waited. */
async function upgradeAll(connections: readonly Accepted[]): Promise<number> {
  return Math.max(...(await Promise.all(connections.map((connection) => connection.upgrade()))));
}

/** A user at its limit waits no longer than is the crowd's own work on this machine. */
async function comparesWith(crowdAloneMs: number, crowd: readonly Accepted[], port: number): Promise<void> {
  const mine = await accepted(alice(3), port);
  server.signal('SIGUSR2');
  const all = upgradeAll(crowd);
  const times = await waits(mine, 50);
  console.log(`a crowd alone ${Math.round(crowdAloneMs)} ms, beside the work ${Math.round(await all)} ms`);
  expect(Math.max(...times)).toBeLessThan(behindCrowdMs(crowdAloneMs));
}

const users = (count: number, name = 'user') => Array.from({ length: count }, (_, i) => `${name}-${i}`);

const alice = (count: number) => Array.from({ length: count }, () => 'alice');

describe('an application that works for half of each turn', () => {
  it('lets a user at its limit in while 1,000 others connect at theirs', async () => {
    const port = await start({ store: 'memory', limit: 1 });
    for (const first of await accepted([...users(1_000), 'alice'], port)) await first.upgrade();
    const alone = await upgradeAll(await accepted(users(1_000), port));
    await comparesWith(alone, await accepted(users(1_000), port), port);
  });

  it('lets a user at its limit in while 2,000 others connect, with an asynchronous store', async () => {
    const port = await start({ store: 'asynchronous', limit: 1 });
    for (const first of await accepted(['alice'], port)) await first.upgrade();
    const alone = await upgradeAll(await accepted(users(2_000, 'early'), port));
    await comparesWith(alone, await accepted(users(2_000), port), port);
  });

  it.each(['memory', 'asynchronous'] as const)(
    'lets a user at its limit in while 1,000 others are cleaned up (%s)',
    async (store) => {
      const port = await start({ store, limit: 4, sweepMs: 300 });
      for (const first of await accepted(alice(4), port)) await first.upgrade();
      await newHerd().come(port, [...users(1_000), ...users(1_000), ...users(1_000)], 60_000);
      const mine = await accepted(alice(8), port);
      server.signal('SIGUSR2');
      expect(Math.max(...(await waits(mine, 200)))).toBeLessThan(PROMISED_MS);
    },
  );
});
