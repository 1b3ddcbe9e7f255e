import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import WebSocket from 'ws';
import { Herd } from '../support/herd.js';
import { type Server, startServer } from '../support/server.js';

/** Promise 2: the probe's time, and as much again as its bound leaves. */
const PROMISED_MS = 1_100;
/** Synchronous work of the application in each turn of the event loop: as much as the module's own budget. */
const WORK_MS = 5;

let server: Server;
const herds: Herd[] = [];
afterEach(async () => {
  for (const herd of herds.splice(0)) herd.kill();
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

/** Milliseconds until the connection is open; it stays open until the server is stopped. */
async function connect(userId: string): Promise<number> {
  const startedAt = performance.now();
  const socket = new WebSocket(server.socketUrl({ userId }));
  socket.on('error', () => {});
  await new Promise<void>((resolve, reject) => {
    socket.once('open', resolve);
    socket.once('close', (code) => reject(new Error(`closed with ${code}`)));
  });
  return performance.now() - startedAt;
}

/** Connections of a user at its limit, one after the other, while the server is busy. */
async function waits(count: number, pauseMs: number): Promise<number[]> {
  const times: number[] = [];
  for (let i = 0; i < count; i++) {
    await sleep(pauseMs);
    times.push(Math.round(await connect('alice')));
  }
  console.log(`a user at its limit waited ${times.join(', ')} ms`);
  return times;
}

const users = (count: number) => Array.from({ length: count }, (_, i) => `user-${i}`);

describe('an application that works for half of each turn', () => {
  it('lets a user at its limit in while 1,000 others connect at theirs', async () => {
    const port = await start({ store: 'memory', limit: 1 });
    await connect('alice');
    await newHerd().come(port, users(1_000), 30_000);
    server.signal('SIGUSR2');
    const crowd = newHerd().come(port, users(1_000), 60_000);
    expect(Math.max(...(await waits(3, 150)))).toBeLessThan(PROMISED_MS);
    await crowd;
  });

  it('lets a user at its limit in while 2,000 others connect, with an asynchronous store', async () => {
    const port = await start({ store: 'asynchronous', limit: 1 });
    await connect('alice');
    server.signal('SIGUSR2');
    const crowd = newHerd().come(port, users(2_000), 60_000);
    expect(Math.max(...(await waits(3, 150)))).toBeLessThan(PROMISED_MS);
    await crowd;
  });

  it.each(['memory', 'asynchronous'] as const)(
    'lets a user at its limit in while 1,000 others are cleaned up (%s)',
    async (store) => {
      const port = await start({ store, limit: 4, sweepMs: 300 });
      for (let i = 0; i < 4; i++) await connect('alice');
      await newHerd().come(port, [...users(1_000), ...users(1_000), ...users(1_000)], 60_000);
      server.signal('SIGUSR2');
      expect(Math.max(...(await waits(8, 200)))).toBeLessThan(PROMISED_MS);
    },
  );
});
