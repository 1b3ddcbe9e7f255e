import { readdirSync } from 'node:fs';
import { connect } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import WebSocket from 'ws';
import { heapUsed, WITH_HEAP_REPORT } from '../support/heap.js';
import { readMetrics } from '../support/metrics.js';
import { Operator } from '../support/operator.js';
import { type Server, startServer } from '../support/server.js';
import { sleep, until } from '../support/stranger.js';

const WAVES = 10;
const WARM_UP_WAVES = 3;
const OF_EACH_KIND = 200;
/** Handshakes under way at one time: more would only wait in the kernel's queue. */
const AT_ONCE = 200;
const LIMIT = 5;
const GRACE_MS = 300;

/** After warming up: what a connection may leave behind, on the average. */
const HEAP_BYTES_EACH = 100;
/** Somebody who came; called when the wave goes, in whichever way it goes. */
type Leave = () => void;
interface Place {
  readonly wave: number;
  readonly i: number;
}

let server: Server;
beforeAll(async () => {
  const env = {
    WSM_MANAGERS_PER_USER: `${LIMIT}`,
    WSM_GRACE_MS: `${GRACE_MS}`,
    WSM_RESUME_WINDOW_MS: '500',
    WSM_HEARTBEAT_INTERVAL_MS: '500',
    WSM_PROBE_TIMEOUT_MS: '200',
    WSM_CLEANUP_INTERVAL_MS: '500',
    WSM_FORCED_EVICTION_REFILL_MS: '200',
  };
  server = await startServer(env, { nodeArgs: WITH_HEAP_REPORT });
});
afterAll(() => server.stop());

/** Each wave comes from an address of its own, or the machine would run out of ports that are not in TIME_WAIT. */
const addressOf = ({ wave }: Place) => `127.0.0.${2 + wave}`;

/** Asks for a WebSocket; resolves when the answer is there, whatever it is. */
function ask(place: Place, query: Record<string, string>, headers = {}): Promise<WebSocket> {
  const localAddress = addressOf(place);
  const socket = new WebSocket(server.socketUrl(query), { localAddress, headers, perMessageDeflate: false });
  return new Promise((resolve) => {
    socket.on('error', () => {});
    for (const event of ['open', 'close']) socket.once(event, () => resolve(socket));
  });
}

/** Writes `text` on a TCP connection; resolves when there is an answer, or the connection is closed. */
function write(place: Place, text: string): Promise<Leave> {
  const { hostname, port } = new URL(server.url);
  const socket = connect({ port: Number(port), host: hostname, localAddress: addressOf(place) });
  socket.on('error', () => {});
  socket.write(text);
  return new Promise((resolve) => {
    for (const event of ['data', 'close']) socket.once(event, () => resolve(() => socket.destroy()));
  });
}

const handshake = (query: string, ...lines: string[]): string =>
  [
    `GET /ws?${query} HTTP/1.1`,
    `Host: ${new URL(server.url).host}`,
    'Upgrade: websocket',
    'Connection: Upgrade',
    'Sec-WebSocket-Version: 13',
    ...lines,
    '\r\n',
  ].join('\r\n');
const KEY = 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==';

/** A frame with reserved bits set: a breach of the protocol. */
const GARBAGE = '\xff\xff\xff\xff';

const ownUser = ({ wave, i }: Place) => `user-${wave}-${i}`;

const KINDS: Record<string, (place: Place) => Promise<Leave>> = {
  'closes politely': async (place) => {
    const socket = await ask(place, { userId: ownUser(place) });
    return () => socket.close(1000);
  },
  'closes politely, with a session to come back to': async (place) => {
    const socket = await ask(place, { userId: ownUser(place), sessionKey: `tab-${place.i % 50}` });
    return () => socket.close(1000);
  },
  'is cut off': async (place) => {
    const socket = await ask(place, { userId: `cut-${place.i % 80}`, sessionKey: `tab-${place.i}` });
    return () => socket.terminate();
  },
  'never answers, and is cut off': (place) => write(place, handshake(`userId=half-${place.i}`, KEY)),
  'leaves before it is answered': async (place) => {
    const leave = write(place, handshake(`userId=hasty-${place.i % 20}`, KEY));
    if (place.i % 2) setImmediate(() => void leave.then((now) => now()));
    return leave;
  },
  'breaks the protocol': async (place) => {
    const leave = await write(place, `${handshake(`userId=rude-${place.i}`, KEY)}${GARBAGE}`);
    return leave;
  },
  'is nobody': async (place) => {
    const socket = await ask(place, {});
    return () => socket.terminate();
  },
  'is nobody in a browser': async (place) => {
    const socket = await ask(place, {}, { origin: server.url });
    return () => (place.i % 2 ? socket.terminate() : socket.close());
  },
  'has an impossible name': async (place) => {
    const socket = await ask(place, { userId: `x\n${place.i}` });
    return () => socket.terminate();
  },
  'cannot shake hands': (place) => write(place, handshake(`userId=odd-${place.i}`, 'Sec-WebSocket-Key: no')),
  'is one too many': async (place) => {
    const socket = await ask(place, { userId: `popular-${place.i % 10}` });
    return () => socket.close();
  },
};

async function comeAndGo(wave: number): Promise<void> {
  const kinds = Object.values(KINDS);
  const places = Array.from({ length: OF_EACH_KIND }, (_, i) => i);
  const waiting = places.flatMap((i) => kinds.map((come) => () => come({ wave, i })));
  const leave: Leave[] = [];
  const open = async () => {
    for (let next = waiting.pop(); next; next = waiting.pop()) leave.push(await next());
  };
  await Promise.all(Array.from({ length: AT_ONCE }, open));
  for (const go of leave) go();
}

/**
 * Refused while all sessions are in their grace period, and admitted after it. In the waves neither is certain: on a
 * busy machine the sessions of a user may all be out of their grace, or miss the probe.
 */
async function refusedThenAdmitted(): Promise<void> {
  const connect = () => ask({ wave: 0, i: 0 }, { userId: 'patient' });
  const sockets = await Promise.all(Array.from({ length: LIMIT + 3 }, connect));
  await sleep(2 * GRACE_MS);
  sockets.push(await connect());
  for (const socket of sockets) socket.terminate();
}

const openFiles = () => readdirSync(`/proc/${server.pid}/fd`).length;

async function sum(name: string, labels = {}): Promise<number> {
  return (await readMetrics(server)).sum(`websocket_manager_${name}`, labels);
}

async function whenEmpty(): Promise<void> {
  const left = async () => {
    const names = ['users', 'managers', 'connections', 'buffered_bytes'];
    return Promise.all(names.map((name) => sum(name)));
  };
  await until(async () => (await left()).every((count) => count === 0), 10_000, 'all to be gone', 100);
}

describe('after 20,000 connections that came and went in every way', () => {
  it('nothing is left', { timeout: 240_000 }, async () => {
    const perWave = OF_EACH_KIND * Object.keys(KINDS).length;
    expect(WAVES * perWave).toBeGreaterThanOrEqual(20_000);
    await readMetrics(server);
    const filesBefore = openFiles();
    for (let wave = 0; wave < WARM_UP_WAVES; wave++) await comeAndGo(wave);
    await whenEmpty();
    await refusedThenAdmitted();
    await whenEmpty();
    const heapBefore = await heapUsed(server);
    for (let wave = WARM_UP_WAVES; wave < WAVES; wave++) await comeAndGo(wave);
    await whenEmpty();

    const { body } = await new Operator(server).get('overview').expect(200);
    // On a busy machine most clients may have been silent at once: self-preservation then has its three beats.
    const reasons = (body.reasons as string[]).filter((reason) => reason !== 'self-preservation');
    expect(reasons).toEqual([]);
    expect(body).toMatchObject({ managers: 0, users: 0, usersAtLimit: 0, connections: 0 });
    expect(body.byStatus).toEqual({ healthy: 0, idle: 0, zombie: 0, inactive: 0, unknown: 0 });
    await until(
      () => openFiles() <= filesBefore + 1,
      5_000,
      `only ${filesBefore} open files to be left`,
      100,
    );
    const leftByEach = ((await heapUsed(server)) - heapBefore) / ((WAVES - WARM_UP_WAVES) * perWave);
    expect(leftByEach).toBeLessThan(HEAP_BYTES_EACH);

    // They did come, in every way.
    expect(await sum('admissions_total')).toBeGreaterThan(0.8 * WAVES * perWave);
    expect(await sum('evictions_total', { reason: 'evicted' })).toBeGreaterThan(0);
    for (const reason of ['over_limit', 'unauthenticated', 'bad_request']) {
      expect(await sum('rejections_total', { reason })).toBeGreaterThan(0);
    }
    expect(await sum('lockouts_total')).toBe(0);
    expect(server.log).not.toMatch(/ ERROR /);
  });
});
