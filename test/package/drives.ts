import { once } from 'node:events';
import { createServer } from 'node:http';
import { type AddressInfo, connect as connectTcp } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, vi } from 'vitest';
import { type Client, connect, refusal } from '../support/client.js';
import { EventReader, refuseMany, residentMiB } from '../support/event-streams.js';
import { type Exit, type Server, startServer } from '../support/server.js';
import { get } from './support/http.js';

export type Major = 11 | 12;

/** An application of examples/applications, and how it is driven: with the same expectations on both majors of Nest. */
export type Drive = readonly [title: string, drive: (applications: Applications) => Promise<void>];

/** Starts the applications of one workspace with one Node. Whatever is still running in the end is killed. */
export class Applications {
  private readonly servers: Server[] = [];

  constructor(
    readonly major: Major,
    private readonly cwd: string,
    private readonly node: string,
  ) {}

  async start(script: string, env: NodeJS.ProcessEnv = {}): Promise<Server> {
    const server = await startServer(env, { cwd: this.cwd, node: this.node, script: `dist/${script}` });
    this.servers.push(server);
    return server;
  }

  async stopAll(): Promise<void> {
    await Promise.all(this.servers.map((server) => server.stop('SIGKILL')));
  }
}

const DRAINING = { code: 1012, reason: 'draining' };

/** How every application ends: who is there is told and closed with 1012, and the process goes by the signal. */
export async function expectPoliteEnd(
  server: Server,
  url = server.socketUrl({ userId: 'last' }),
): Promise<Exit> {
  const client = await connect(url);
  server.signal('SIGTERM');
  await expectDrained(client);
  const exit = await server.exited;
  expect(exit.signal).toBe('SIGTERM');
  return exit;
}

async function expectDrained(client: Client): Promise<void> {
  expect(await client.closed()).toEqual(DRAINING);
  expect(client.received.at(-1)).toEqual({
    event: 'ws:closing',
    data: { ...DRAINING, retryable: true, retryAfterMs: expect.any(Number) },
  });
}

/** Sends, and returns the next frame. */
async function ask(client: Client, event: string, data?: unknown): Promise<unknown> {
  client.send(event, data);
  return client.next();
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** One request to a Nest microservice over TCP, as its own client writes it. */
async function askMicroservice(port: number, pattern: string, data: unknown): Promise<unknown> {
  const socket = connectTcp(port, '127.0.0.1');
  try {
    const packet = JSON.stringify({ pattern, data, id: '1' });
    socket.write(`${packet.length}#${packet}`);
    const [answer] = await once(socket, 'data');
    return JSON.parse(String(answer).replace(/^\d+#/, '')).response;
  } finally {
    socket.destroy();
  }
}

/** Who comes in, who does not, and how each of them is told. */
async function theDoor(server: Server): Promise<void> {
  const url = (userId: string, sessionKey?: string) =>
    server.socketUrl({ userId, ...(sessionKey === undefined ? {} : { sessionKey }) });
  expect(await get(`${server.url}/hello`)).toEqual({ status: 200, body: { hello: 'world' } });
  const [first, second] = [await connect(url('alice')), await connect(url('alice'))];
  expect([await first.echo(1), await second.echo({ two: 2 })]).toEqual([1, { two: 2 }]);
  expect(await refusal(url('alice'))).toMatchObject({
    status: 429,
    body: { statusCode: 429, reason: 'over_limit', retryAfterMs: expect.any(Number) },
  });
  const inABrowser = await connect(url('alice'), { origin: server.url });
  expect(await inABrowser.closed()).toEqual({ code: 4129, reason: 'over_limit' });
  expect((await refusal(url('alice'), { origin: 'http://elsewhere.test' })).status).toBe(403);
  const nobody = { status: 401, body: { reason: 'unauthenticated' } };
  expect(await refusal(server.socketUrl())).toMatchObject(nobody);
  // Two tabs of one session are one session.
  for (const tab of ['a', 'a', 'b']) expect(await (await connect(url('bob', tab))).echo(tab)).toBe(tab);
  await first.leave();
  expect(await (await connect(url('alice'))).echo('in again')).toBe('in again');
  expect((await refusal(server.socketUrl({ userId: 'alice' }, '/nowhere'))).status).toBe(404);
}

async function onPlatform(applications: Applications, script: string): Promise<void> {
  const server = await applications.start(script);
  await theDoor(server);
  await operatorStreams(server);
  expectQuiet(await expectPoliteEnd(server));
}

const OPERATOR = 'Bearer operator';
/** In a queue without a bound, so many refusals would cost eight readers that do not read over 60 MiB. */
const REFUSALS = 6_000;
const MOST_GROWTH_MIB = 40;

/** Lists of the operator's API, and its stream for readers that stop reading, on either platform. */
async function operatorStreams(server: Server): Promise<void> {
  const api = `${server.url}/websocket-managers/api`;
  const asked = (path: string) => get(`${api}/${path}`, { authorization: OPERATOR });
  expect((await get(`${api}/users`)).status).toBe(403);
  expect(await asked('users?limit=1')).toMatchObject({
    status: 200,
    body: { users: [{ userId: 'alice' }], total: 2, next: expect.any(String), unanswered: [] },
  });
  expect(await asked('users?limits=1')).toMatchObject({
    status: 400,
    body: { message: 'query: got "limits"; allowed: minPressure, limit, after' },
  });
  expect((await EventReader.open(server.url, 'Bearer wrong')).status).toBe(403);
  const readers: EventReader[] = [];
  const fillers: Client[] = [];
  try {
    while (readers.length < 8) readers.push(await EventReader.open(server.url, OPERATOR));
    const [reader] = readers as [EventReader];
    expect([reader.status, reader.head.toLowerCase()]).toEqual([
      200,
      expect.stringContaining('content-type: text/event-stream'),
    ]);
    const userIds = Array.from({ length: 4 }, (_, i) => `filler-${i}`);
    for (const userId of userIds) fillers.push(await connect(server.socketUrl({ userId })));
    await vi.waitFor(() => expect(reader.of('admitted')).toHaveLength(userIds.length));
    for (const stalled of readers) stalled.stopReading();
    const url = new URL(server.socketUrl());
    await refuseMany(url, 1_000, 503);
    const before = residentMiB(server.pid);
    expect(await refuseMany(url, REFUSALS, 503)).toBe(REFUSALS);
    expect(residentMiB(server.pid) - before).toBeLessThan(MOST_GROWTH_MIB);
    reader.readOn();
    await vi.waitFor(() => expect(reader.of('dropped').length).toBeGreaterThan(0), { timeout: 5_000 });
    const told = reader.of('rejected').length + Number(reader.of('dropped')[0]?.count);
    expect(told).toBe(1_000 + REFUSALS);
  } finally {
    for (const reader of readers) reader.close();
    for (const filler of fillers) await filler.leave();
  }
}

/** Node 22.12 still says of a `require` of an ES module that it is experimental. */
const OF_NODE_22_12 =
  /^\(node:\d+\) ExperimentalWarning: CommonJS module .*\nSupport for loading ES Module .*\n\(Use `node .*\n/m;

/** It has said nothing on standard error: no warning of Node's, no error of Nest's. */
export function expectQuiet({ stderr }: Exit): void {
  expect(stderr.replace(OF_NODE_22_12, '')).toBe('');
}

async function hybrid(applications: Applications): Promise<void> {
  const [gatewayPort, microservicePort] = [await freePort(), await freePort()];
  const server = await applications.start('hybrid.js', {
    GATEWAY_PORT: `${gatewayPort}`,
    MICROSERVICE_PORT: `${microservicePort}`,
  });
  const feed = (userId: string) => `ws://127.0.0.1:${gatewayPort}/feed?userId=${userId}`;
  expect(await askMicroservice(microservicePort, 'sum', [1, 2, 3])).toBe(6);
  const own = await connect(feed('alice'));
  expect(await ask(own, 'echo', 1)).toEqual({ event: 'fed', data: 1 });
  const shared = await connect(server.socketUrl({ userId: 'alice' }));
  expect(await shared.echo(2)).toBe(2);
  // One count of a user, whatever the port.
  expect((await refusal(feed('alice'))).status).toBe(429);
  expect((await refusal(server.socketUrl({ userId: 'alice' }))).status).toBe(429);
  expect((await refusal(`ws://127.0.0.1:${gatewayPort}/feed`)).status).toBe(401);
  expectQuiet(await expectPoliteEnd(server, feed('bob')));
  await expectDrained(own);
  await expectDrained(shared);
}

async function onePath(applications: Applications): Promise<void> {
  const server = await applications.start('one-path.js');
  const url = server.socketUrl({ userId: 'alice' });
  const [client, other] = [await connect(url), await connect(url)];
  expect(await ask(client, 'first', 1)).toEqual({ event: 'first', data: 1 });
  expect(await ask(client, 'second', 2)).toEqual({ event: 'second', data: 2 });
  client.send('both');
  const both = [await client.next(), await client.next()].map(({ event, data }) => `${event} ${data}`);
  expect(both.toSorted()).toEqual(['both first', 'both second']);
  // A socket of two gateways is one session: the second came in, and only the third does not.
  expect((await refusal(url)).status).toBe(429);
  await other.leave();
  const lines = ['first connected', 'first disconnected', 'second connected', 'second disconnected'];
  const expected = [lines[0], ...lines, lines[2]].toSorted();
  await vi.waitFor(async () => expect((await get(`${server.url}/log`)).body.toSorted()).toEqual(expected));
  expectQuiet(await expectPoliteEnd(server));
}

async function requestScoped(applications: Applications): Promise<void> {
  const { major } = applications;
  const server = await applications.start('request-scoped.js');
  const [alice, bob] = [
    await connect(server.socketUrl({ userId: 'alice' })),
    await connect(server.socketUrl({ userId: 'bob' })),
  ];
  const counted = async (client: Client) => {
    client.send('echo', 'x');
    return ((await client.next()) as unknown as { messages: number | null }).messages;
  };
  const counts = [await counted(alice), await counted(alice), await counted(bob)];
  expect(counts).toEqual(major === 12 ? [1, 2, 1] : [null, null, null]);
  const stock = await applications.start('request-scoped.js', { WAY: 'platform' });
  const stockClient = await connect(stock.socketUrl());
  expect(await counted(stockClient)).toBe(counts[0]);
  await alice.leave(4000, 'bye');
  await vi.waitFor(async () => {
    const { body } = await get(`${server.url}/told`);
    expect(body).toEqual(['connected', 'connected', 'disconnected 4000 bye']);
  });
  expectQuiet(await expectPoliteEnd(server));
}

async function globals(applications: Applications): Promise<void> {
  const server = await applications.start('globals.js');
  const status = async (path: string, headers?: Record<string, string>) =>
    (await get(server.url + path, headers)).status;
  expect(await status('/api/hello')).toBe(200);
  expect(await get(`${server.url}/api/hello`, { 'x-banned': 'yes' })).toEqual({
    status: 403,
    body: { filtered: 403 },
  });
  expect([await status('/api/health'), await status('/api/health/live'), await status('/health')]).toEqual([
    200, 200, 404,
  ]);
  const overview = '/api/websocket-managers/api/overview';
  expect([await status(overview), await status(overview, { authorization: 'Bearer operator' })]).toEqual([
    403, 200,
  ]);
  expect((await refusal(server.socketUrl())).status).toBe(401);
  // Which of them a message meets differs between the majors, and is the platform's own affair.
  const stock = await applications.start('globals.js', { WAY: 'platform' });
  const conversation = async ({ socketUrl }: { socketUrl: string }) => {
    const client = await connect(socketUrl);
    // One by one: what is refused overtakes what is not.
    for (const data of ['first', 'refuse me', 'last']) await ask(client, 'echo', data);
    await client.leave();
    return client.received;
  };
  const ours = await conversation({ socketUrl: server.socketUrl({ userId: 'alice' }) });
  expect(ours).toEqual(await conversation({ socketUrl: stock.socketUrl() }));
  const { stdout } = await expectPoliteEnd(server);
  stock.signal('SIGTERM');
  const { stdout: stockOut } = await stock.exited;
  expect(callsOnMessages(stdout)).toEqual(callsOnMessages(stockOut));
}

/** What the application counted of its global guard, pipe and interceptor, but for HTTP. */
function callsOnMessages(stdout: string): Record<string, number> {
  const counted: Record<string, number> = JSON.parse(/^calls (.*)$/m.exec(stdout)?.[1] ?? '');
  return Object.fromEntries(Object.entries(counted).filter(([name]) => name.startsWith('ws ')));
}

async function upgradeListener(applications: Applications): Promise<void> {
  for (const WHEN of ['before', 'after']) {
    const server = await applications.start('upgrade-listener.js', { WHEN });
    const other = await connect(server.socketUrl({}, '/other'));
    other.webSocket.send('theirs');
    expect(await other.next()).toEqual({ event: 'other', data: 'theirs' });
    await theDoorBeside(server);
    // Longer than an upgrade that nobody wants may stay open.
    await sleep(600);
    expect(other.isOpen).toBe(true);
    expectQuiet(await expectPoliteEnd(server));
    expect((await other.closed()).code).toBe(1001);
  }
}

async function theDoorBeside(server: Server): Promise<void> {
  const url = server.socketUrl({ userId: 'alice' });
  for (const data of [1, 2]) expect(await (await connect(url)).echo(data)).toBe(data);
  expect((await refusal(url)).status).toBe(429);
  expect((await refusal(server.socketUrl())).status).toBe(401);
  await expect(connect(server.socketUrl({ userId: 'alice' }, '/nobodys'))).rejects.toThrow('hang up');
}

async function neighboursOn(applications: Applications): Promise<void> {
  const server = await applications.start('neighbours.js');
  await expectLimitOfTwo(server);
  await expectHealth(server);
  await expectSchedule(server);
  await expectMetrics(server);
  expectQuiet(await expectPoliteEnd(server));
}

async function neighboursAlone(applications: Applications): Promise<void> {
  const checks: Record<string, (server: Server) => Promise<void>> = {
    config: expectLimitOfTwo,
    schedule: expectSchedule,
    terminus: expectHealth,
    'prom-client': expectMetrics,
    none: expectLimitOfTwo,
  };
  for (const [HAS, check] of Object.entries(checks)) {
    const server = await applications.start('neighbours.js', { HAS });
    await check(server);
    expectQuiet(await expectPoliteEnd(server));
  }
}

async function expectLimitOfTwo(server: Server): Promise<void> {
  const url = server.socketUrl({ userId: 'alice' });
  for (const data of [1, 2]) expect(await (await connect(url)).echo(data)).toBe(data);
  expect((await refusal(url)).status).toBe(429);
}

async function expectHealth(server: Server): Promise<void> {
  expect(await get(`${server.url}/my-health`)).toMatchObject({
    status: 200,
    body: { status: 'ok', details: { database: { status: 'up' }, websockets: { status: 'up' } } },
  });
  for (const path of ['/health', '/health/live', '/health/ready']) {
    expect(await get(server.url + path)).toMatchObject({ status: 200, body: { status: 'ok' } });
  }
}

/** Our sweep is among the application's intervals, and each of those runs once. */
async function expectSchedule(server: Server): Promise<void> {
  const TICK_MS = 200;
  const look = async () => (await get(`${server.url}/schedule`)).body;
  const startedAt = performance.now();
  const before = await look();
  expect(before.intervals.toSorted()).toEqual(['tick', 'websocket-manager:sweep']);
  expect(before.isSwept).toBe(true);
  await sleep(5 * TICK_MS);
  const ticks = (await look()).ticks - before.ticks;
  expect(ticks).toBeGreaterThan(0);
  expect(ticks).toBeLessThanOrEqual((performance.now() - startedAt) / TICK_MS + 1);
}

async function expectMetrics(server: Server): Promise<void> {
  const client = await connect(server.socketUrl({ userId: 'carol' }));
  await client.echo(1);
  const { body } = await get(`${server.url}/metrics`);
  expect(body).toContain('orders_total 3');
  expect(body).toContain('process_cpu_seconds_total');
  expect(body).toMatch(/^websocket_manager_connections [1-9]/m);
  await client.leave();
}

const INTERNAL = { code: 1011, reason: 'internal' };

async function hooksThatFail(applications: Applications): Promise<void> {
  const server = await applications.start('hooks.js');
  const url = (userId: string) => server.socketUrl({ userId });
  const unaffected = await connect(url('unaffected'));
  expect(await refusal(url('authenticates-and-throws'))).toMatchObject({
    status: 500,
    body: { reason: 'internal' },
  });
  for (const userId of ['connects-and-throws', 'connects-and-rejects']) {
    const client = await connect(url(userId));
    expect(await client.closed()).toEqual(INTERNAL);
    expect(client.received).toEqual([{ event: 'ws:closing', data: { ...INTERNAL, retryable: true } }]);
  }
  for (const userId of ['leaves-and-throws', 'leaves-and-rejects', 'leaves']) {
    const client = await connect(url(userId));
    await client.echo(userId);
    await client.leave(4001, `I am ${userId}`);
  }
  const cut = await connect(url('is-cut-off'));
  cut.webSocket.terminate();
  const examined = await connect(url('examined'));
  await vi.waitFor(async () =>
    expect((await get(`${server.url}/told`)).body).toEqual({
      'connects-and-throws': [1011, 'internal'],
      'connects-and-rejects': [1011, 'internal'],
      'leaves-and-throws': [4001, 'I am leaves-and-throws'],
      'leaves-and-rejects': [4001, 'I am leaves-and-rejects'],
      leaves: [4001, 'I am leaves'],
      'is-cut-off': [1006, ''],
    }),
  );
  // The detector is asked once in a heartbeat.
  await vi.waitFor(() => expect(server.log).toContain('detector'), { timeout: 3_000 });
  expect([await unaffected.echo(1), await examined.echo(2)]).toEqual([1, 2]);
  await expectPoliteEnd(server);
}

async function leaving(applications: Applications): Promise<void> {
  for (const SHUTDOWN_HOOKS of ['on', 'off']) {
    const server = await applications.start('leaving.js', { SHUTDOWN_HOOKS });
    const clients = await Promise.all(
      ['alice', 'bob', 'carol'].map((userId) => connect(server.socketUrl({ userId }))),
    );
    expect((await get(`${server.url}/health/ready`)).status).toBe(200);
    server.signal('SIGTERM');
    await Promise.all(clients.map(expectDrained));
    // Their hooks still run, and the server with them.
    expect(await refusal(server.socketUrl({ userId: 'dave' }))).toMatchObject({
      status: 503,
      body: { reason: 'draining' },
    });
    expect((await get(`${server.url}/health/ready`)).status).toBe(503);
    const exit = await server.exited;
    expect(exit.signal).toBe('SIGTERM');
    expect(exit.stdout.match(/written down: 1012 draining/g)).toHaveLength(3);
  }
}

/** An ES module that imports the package, and a CommonJS file that requires it. */
async function twoFormats(applications: Applications): Promise<void> {
  const server = await applications.start('two-formats.mjs');
  const { body } = await get(`${server.url}/different`);
  expect(body.names).toBeGreaterThan(20);
  expect(body).toMatchObject({ different: [], differentTesting: [] });
  const client = await connect(server.socketUrl({ userId: 'alice' }));
  client.send('who');
  expect(await client.next()).toEqual({ event: 'who', data: ['alice', 1] });
  expectQuiet(await expectPoliteEnd(server));
}

export const DRIVES: readonly Drive[] = [
  ['Express', (applications) => onPlatform(applications, 'express.js')],
  ['Fastify', (applications) => onPlatform(applications, 'fastify.js')],
  ['a hybrid application, with a gateway on a port of its own', hybrid],
  ['several gateways on one path', onePath],
  ['a request-scoped gateway (Nest 11 itself makes one for all clients)', requestScoped],
  ['a global prefix, global guards, pipes, interceptors and filters', globals],
  ['another upgrade listener, before ours or after', upgradeListener],
  ['Terminus, Schedule, prom-client and ConfigModule in use', neighboursOn],
  ['each of those alone in use, and none of them', neighboursAlone],
  ['hooks that throw or reject, and what they are told of a close', hooksThatFail],
  ['shutdown', leaving],
  ['ES modules and CommonJS in one process', twoFormats],
];
