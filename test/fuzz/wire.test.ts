import { readdirSync } from 'node:fs';
import { connect } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import WebSocket from 'ws';
import { cases, random } from '../support/fuzz-plan.js';
import {
  fuzzedHttpRequest,
  fuzzedMessage,
  fuzzedUpgrade,
  hostileFrame,
  oddFrame,
} from '../support/fuzz-wire.js';
import { HEAP_REPORT, heapUsed, WITH_HEAP_REPORT } from '../support/heap.js';
import { readMetrics } from '../support/metrics.js';
import { handshake } from '../support/raw-socket.js';
import { ADMIN_TOKEN, type Server, startServer } from '../support/server.js';
import { enter, until } from '../support/stranger.js';

const AT_ONCE = 64;
/** Each is a source address: from one alone the machine would run out of ports. */
const ADDRESSES = 20;
/** A newcomer who hangs up at once is not let in, so some patience is needed; others may go when they have spoken. */
const PATIENCE_MS = 50;
const LET_GO_MS = 15_000;
const MOST_LOG_BYTES = 1_000_000;
/** What was compiled and cached meanwhile; of tens of thousands of inputs, none may leave a kilobyte. */
const MOST_HEAP_GROWTH = 15 * 2 ** 20;

let server: Server;
let filesBefore: number;
let heapBefore: number;
const openFiles = () => readdirSync(`/proc/${server.pid}/fd`).length;

beforeAll(async () => {
  server = await startServer(
    {
      WSM_MANAGERS_PER_USER: '1',
      WSM_GRACE_MS: '200',
      WSM_RESUME_WINDOW_MS: '300',
      WSM_PROBE_TIMEOUT_MS: '100',
      WSM_HEARTBEAT_INTERVAL_MS: '500',
      WSM_CLEANUP_INTERVAL_MS: '300',
      WSM_MAX_PAYLOAD_BYTES: '100000',
    },
    { nodeArgs: WITH_HEAP_REPORT },
  );
  await readMetrics(server);
  heapBefore = await heapUsed(server);
  filesBefore = openFiles();
});
afterAll(() => server.stop());

let sent = 0;

/**
 * Sends bytes on a connection of their own, and hangs up after a while: over when enough is said, or it is closed.
 * Who is not let go for that within a bound is an error.
 */
function deliver(
  parts: readonly Buffer[],
  hangUpMs: number,
  isEnough: (said: Buffer) => boolean = () => false,
): Promise<void> {
  const { hostname, port } = new URL(server.url);
  const localAddress = `127.0.2.${1 + (sent++ % ADDRESSES)}`;
  const socket = connect({ port: Number(port), host: hostname, localAddress });
  let said = Buffer.alloc(0);
  return new Promise((resolve, reject) => {
    const hangUp = setTimeout(() => socket.end(), hangUpMs);
    const late = setTimeout(() => {
      reject(
        new Error(`not let go: ${Buffer.concat(parts).toString('latin1')}; said: ${said.toString('latin1')}`),
      );
      socket.destroy();
    }, LET_GO_MS);
    socket.on('error', () => {});
    socket.on('close', () => {
      clearTimeout(hangUp);
      clearTimeout(late);
      resolve();
    });
    socket.on('data', (chunk) => {
      said = Buffer.concat([said, chunk]);
      if (isEnough(said)) socket.destroy();
    });
    for (const part of parts) socket.write(part);
  });
}

/** So many, a few at a time. */
async function each(count: number, deliverOne: (i: number) => Promise<unknown>): Promise<void> {
  let next = 0;
  const work = async () => {
    while (next < count) await deliverOne(next++);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
}

const LINE = () =>
  new RegExp(
    `^\\[Nest\\] ${server.pid} {2}- [\\d/]+, [\\d:]+ [AP]M +(LOG|WARN|ERROR) \\[[A-Za-z]+\\] [\\x20-\\x7e]*$`,
  );

/** It lives, says nothing that it did not mean to say, and holds nothing that it did not hold before. */
async function expectUnharmed(): Promise<void> {
  expect((await fetch(`${server.url}/health/live`)).status).toBe(200);
  const client = await enter(server.socketUrl({ userId: 'a-good-one' }));
  await client.echo('all is well');
  client.socket.close();
  await client.whenClosed();
  const left = async () => {
    const metrics = await readMetrics(server);
    return ['users', 'managers', 'connections', 'buffered_bytes'].map((name) =>
      metrics.sum(`websocket_manager_${name}`),
    );
  };
  await until(async () => (await left()).every((count) => count === 0), 10_000, 'all to be gone', 100);
  await until(() => openFiles() <= filesBefore + 3, 5_000, 'the files to be closed', 50);
  const grownBy = (await heapUsed(server)) - heapBefore;
  console.log(`fuzz: the heap has grown by ${(grownBy / 2 ** 20).toFixed(1)} MiB since the start`);
  expect(grownBy).toBeLessThan(MOST_HEAP_GROWTH);
  const line = LINE();
  expect(server.lines.filter((text) => !line.test(text) && !HEAP_REPORT.test(text)).slice(0, 5)).toEqual([]);
  expect(server.log.length).toBeLessThan(MOST_LOG_BYTES);
  expect(server.lines.filter((text) => /ERROR|Unhandled|Warning/.test(text)).slice(0, 5)).toEqual([]);
}

describe('one reference server, whatever is sent to it', () => {
  it('survives upgrade requests', async () => {
    const values = random.fork('upgrades');
    const count = cases(0.08);
    let letIn = 0;
    let refused = 0;
    await each(count, () =>
      deliver([fuzzedUpgrade(values)], PATIENCE_MS, (said) => {
        if (said.includes('HTTP/1.1 101')) letIn++;
        else refused++;
        return true;
      }),
    );
    console.log(`fuzz: ${count} upgrade requests, ${letIn} let in, ${refused} refused in words`);
    expect(letIn).toBeGreaterThan(count / 100);
    expect(refused).toBeGreaterThan(count / 100);
    await expectUnharmed();
  });

  it('survives frames', async () => {
    const values = random.fork('frames');
    const count = cases(0.15);
    let frames = 0;
    await each(Math.ceil(count / 6), async (i) => {
      const parts: Buffer[] = [Buffer.from(handshake(`/ws?userId=framer-${i}`))];
      for (let odd = values.below(10); odd > 0; odd--) parts.push(...oddFrame(values));
      parts.push(hostileFrame(values));
      frames += parts.length - 1;
      await deliver(parts, PATIENCE_MS);
    });
    console.log(`fuzz: ${frames} frames`);
    expect(frames).toBeGreaterThan(0.9 * count);
    await expectUnharmed();
  });

  it('survives messages, and keeps those who sent them', async () => {
    const values = random.fork('messages');
    const count = cases(0.2);
    const clients = await Promise.all(
      Array.from({ length: 20 }, (_, i) => enter(server.socketUrl({ userId: `talker-${i}` }))),
    );
    const batch = 200;
    for (let done = 0; done < count; done += batch * clients.length) {
      for (const { socket } of clients) for (let i = 0; i < batch; i++) socket.send(fuzzedMessage(values));
      await Promise.all(clients.map((client) => client.echo(`after ${done}`, 30_000)));
      for (const { frames } of clients) frames.length = 0;
    }
    console.log(`fuzz: ${count} messages`);
    expect(clients.filter(({ closed }) => closed)).toEqual([]);
    for (const { socket } of clients) socket.terminate();
    expect(clients.every(({ socket }) => socket.readyState !== WebSocket.OPEN)).toBe(true);
    await expectUnharmed();
  });

  it('survives requests to the operators API', async () => {
    const values = random.fork('admin');
    const count = cases(0.07);
    const statuses = new Map<string, number>();
    await each(count, () =>
      deliver([fuzzedHttpRequest(values, ADMIN_TOKEN)], 0, (said) => {
        const status = /^HTTP\/1\.1 (\d{3})/.exec(said.toString('latin1'))?.[1];
        if (status === undefined) return false;
        statuses.set(status, (statuses.get(status) ?? 0) + 1);
        return true;
      }),
    );
    const seen = Object.fromEntries([...statuses].sort());
    console.log(`fuzz: ${count} requests to the operator's API: ${JSON.stringify(seen)}`);
    expect(statuses.get('200')).toBeGreaterThan(count / 100);
    expect([...statuses.keys()].filter((status) => status.startsWith('5'))).toEqual([]);
    await expectUnharmed();
  });
});
