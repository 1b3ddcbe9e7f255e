import { afterEach, describe, expect, it } from 'vitest';
import { FreezableClient } from '../support/freezable-client.js';
import { readMetrics } from '../support/metrics.js';
import { Operator } from '../support/operator.js';
import { type Server, startServer } from '../support/server.js';
import { enter, knock, type Stranger, sleep, until } from '../support/stranger.js';

const PROBE_MS = 500;
/** What is promised is the probe and 100 ms; a machine that is busy with other tests gets this on top. */
const IN_TIME_MS = PROBE_MS + 100 + 150;
const AT_ONCE_MS = 50;
const GRACE_MS = 100;
/** So that the heartbeat, which proves them dead, comes round within the test. */
const HEARTBEAT_MS = 1_000;
/** The time that a freeze may be noticed late, because an answer was just given. */
const JUST_NOW_MS = 100;

let server: Server;
let operator: Operator;
const processes: FreezableClient[] = [];

async function start(env: NodeJS.ProcessEnv = {}): Promise<void> {
  server = await startServer({ WSM_PROBE_TIMEOUT_MS: `${PROBE_MS}`, ...env });
  operator = new Operator(server);
}

afterEach(async () => {
  await Promise.all(processes.splice(0).map((client) => client.kill()));
  await server.stop();
});

const urls = (count: number, query: (i: number) => Record<string, string> = () => ({})): string[] =>
  Array.from({ length: count }, (_, i) => server.socketUrl({ userId: 'alice', ...query(i) }));

async function inOwnProcess(addresses: readonly string[]): Promise<FreezableClient> {
  const client = await FreezableClient.open(addresses);
  processes.push(client);
  return client;
}

/** Live clients, one after the other, so that the first was active least recently. */
async function enterAll(addresses: readonly string[]): Promise<Stranger[]> {
  const clients: Stranger[] = [];
  for (const url of addresses) clients.push(await enter(url));
  return clients;
}

const alive = (clients: readonly Stranger[]) => clients.filter(({ closed }) => closed === undefined).length;

describe('a user at 20/20 whose sessions are all frozen', () => {
  it('lets the 21st in within the probe time and 100 ms', async () => {
    await start({ WSM_HEARTBEAT_INTERVAL_MS: `${HEARTBEAT_MS}` });
    const frozen = await inOwnProcess(urls(20));
    await sleep(PROBE_MS + 100);
    await frozen.freeze();
    const { client, ms } = await knock(server.socketUrl({ userId: 'alice' }));
    expect(client?.session.userId).toBe('alice');
    expect(ms).toBeLessThan(IN_TIME_MS);
    // One suspect made the room; the others stay until the heartbeat has proven them dead.
    await until(async () => (await operator.managersOf('alice')).length === 1, 4_000, 'the frozen to go');
    expect(client?.closed).toBeUndefined();
    expect((await readMetrics(server)).sum('websocket_manager_lockouts_total')).toBe(0);
  });

  it('does so for sessions that froze in the instant after they were asked whether they are there', async () => {
    await start({ WSM_GRACE_MS: '5000' });
    const frozen = await inOwnProcess(urls(20));
    await frozen.freeze();
    await sleep(JUST_NOW_MS);
    const { client, refusal, ms } = await knock(server.socketUrl({ userId: 'alice' }));
    expect(refusal?.body).toBeUndefined();
    expect(client?.session.userId).toBe('alice');
    expect(ms).toBeLessThan(IN_TIME_MS);
  });

  it('lets the newcomer in at once where the heartbeat has proven them dead already', async () => {
    await start({
      WSM_HEARTBEAT_INTERVAL_MS: '200',
      WSM_RESUME_WINDOW_MS: '60000',
      WSM_CLEANUP_INTERVAL_MS: '60000',
    });
    const frozen = await inOwnProcess(urls(20, (i) => ({ sessionKey: `tab-${i}` })));
    await frozen.freeze();
    const inactive = async () =>
      (await operator.user('alice')).managers.filter(({ status }) => status === 'inactive').length;
    await until(async () => (await inactive()) === 20, 3_000, 'the heartbeat to find all');
    const { client, ms } = await knock(server.socketUrl({ userId: 'alice', sessionKey: 'new' }));
    expect(client?.session.joined).toBe(false);
    expect(ms).toBeLessThan(AT_ONCE_MS);
    expect((await operator.user('alice')).managers).toHaveLength(20);
  });
});

describe('a user at 20/20 of whom some are frozen', () => {
  it.each([
    ['long after they were last asked', PROBE_MS + 100],
    ['right after they were asked', 0],
  ])('takes frozen ones, %s, and never a live one', async (_when, pauseMs) => {
    await start({ WSM_GRACE_MS: `${GRACE_MS}`, WSM_HEARTBEAT_INTERVAL_MS: `${HEARTBEAT_MS}` });
    const live = await enterAll(urls(15));
    const frozen = await inOwnProcess(urls(5));
    await sleep(pauseMs);
    await frozen.freeze();
    await sleep(JUST_NOW_MS);
    const { client, ms } = await knock(server.socketUrl({ userId: 'alice' }));
    expect(client?.session.userId).toBe('alice');
    expect(ms).toBeLessThan(IN_TIME_MS);
    await until(async () => (await operator.managersOf('alice')).length === 16, 4_000, 'all frozen to go');
    expect(alive(live)).toBe(15);
    const { evictions } = (await operator.get('evictions').expect(200)).body;
    expect(evictions.map(({ reason }: { reason: string }) => reason)).toEqual(Array(5).fill('no_pong'));
  });
});

describe('a user at 20/20 of whom all are alive', () => {
  it('asks exactly one to leave, the least recently active, and says why before it closes', async () => {
    await start({ WSM_GRACE_MS: `${GRACE_MS}` });
    const live = await enterAll(urls(20));
    for (const client of live) if (client !== live[7]) await client.echo('still here');
    await sleep(GRACE_MS);
    const { client, ms } = await knock(server.socketUrl({ userId: 'alice' }));
    expect(client?.session.userId).toBe('alice');
    expect(ms).toBeLessThan(IN_TIME_MS);
    const victim = live[7] as Stranger;
    expect(await victim.whenClosed()).toEqual({ code: 4510, reason: 'evicted' });
    expect(victim.frames.at(-1)).toEqual({
      event: 'ws:closing',
      data: { code: 4510, reason: 'evicted', retryable: false },
    });
    await sleep(PROBE_MS);
    expect(alive(live)).toBe(19);
    expect(await operator.managersOf('alice')).toHaveLength(20);
  });

  it('asks exactly three to leave for three newcomers in a row', async () => {
    await start({ WSM_GRACE_MS: `${GRACE_MS}` });
    const live = await enterAll(urls(20));
    await sleep(GRACE_MS);
    const answers = await Promise.all(urls(3).map((url) => knock(url)));
    expect(answers.map(({ client }) => client?.session.joined)).toEqual([false, false, false]);
    await sleep(PROBE_MS);
    expect(live.map(({ closed }) => closed?.code)).toEqual([4510, 4510, 4510, ...Array(17).fill(undefined)]);
    expect(await operator.managersOf('alice')).toHaveLength(20);
  });

  it('spares a session that is in the middle of an answer, though others were active more recently', async () => {
    await start({ WSM_GRACE_MS: `${GRACE_MS}`, WSM_MANAGERS_PER_USER: '3' });
    const [busy, ...others] = (await enterAll(urls(3))) as [Stranger, Stranger, Stranger];
    busy.send('ask', { prompt: 'word '.repeat(300) });
    await until(() => busy.of('token').length > 0, 2_000, 'the answer to begin');
    const chatter = setInterval(
      () => others.map((other) => other.socket.readyState === 1 && other.send('echo', 1)),
      2,
    );
    try {
      for (let newcomer = 1; newcomer <= 4; newcomer++) {
        await sleep(GRACE_MS + 30);
        others.push(await enter(server.socketUrl({ userId: 'alice' })));
        await until(() => alive(others) === 2, 2_000, 'one of the others to leave');
      }
    } finally {
      clearInterval(chatter);
    }
    expect(busy.closed).toBeUndefined();
    expect((await operator.user('alice')).managers.filter((manager) => manager.busy)).toHaveLength(1);
  });
});

describe('a session of a user at the limit that lost its network', () => {
  it('is found again by its client within the resume window', async () => {
    await start({ WSM_HEARTBEAT_INTERVAL_MS: '200', WSM_RESUME_WINDOW_MS: '20000' });
    const url = server.socketUrl({ userId: 'alice', sessionKey: 'tab-1' });
    const client = await inOwnProcess([url]);
    await client.freeze();
    const gone = async () => (await operator.user('alice')).managers[0]?.connections.length === 0;
    await until(gone, 3_000, 'the heartbeat to find it');
    client.thaw();
    await until(() => client.of('closed').length === 1, 2_000, 'the client to notice');
    await client.openMore([url]);
    const [before, after] = client.of('message').filter(({ event }) => event === 'session');
    expect(before?.data).toMatchObject({ joined: false });
    expect(after?.data).toEqual({ ...(before?.data as object), joined: true });
  });
});
