import { afterEach, describe, expect, it } from 'vitest';
import { FreezableClient } from '../support/freezable-client.js';
import { readMetrics } from '../support/metrics.js';
import { Operator } from '../support/operator.js';
import { type Server, startServer } from '../support/server.js';
import { enter, knock, sleep, until } from '../support/stranger.js';

const INTERVAL_MS = 2_000;
const MISSED = 2;
const USERS = 10;
const EACH = 3;

let server: Server;
let operator: Operator;
let client: FreezableClient | undefined;

async function start(env: NodeJS.ProcessEnv = {}): Promise<void> {
  server = await startServer({
    WSM_HEARTBEAT_INTERVAL_MS: `${INTERVAL_MS}`,
    WSM_HEARTBEAT_MISSED: `${MISSED}`,
    WSM_CLEANUP_INTERVAL_MS: '300',
    WSM_RESUME_WINDOW_MS: '60000',
    ...env,
  });
  operator = new Operator(server);
}

afterEach(async () => {
  await client?.kill();
  client = undefined;
  await server.stop();
});

/** With and without a session key, of users without pressure. */
const urls = () =>
  Array.from({ length: USERS * EACH }, (_, i) =>
    server.socketUrl({ userId: `user-${i % USERS}`, ...(i % 2 ? { sessionKey: `tab-${i}` } : {}) }),
  );

const echoes = () => (client as FreezableClient).of('message').filter(({ event }) => event === 'echo');

async function expectAllAnswered(): Promise<void> {
  const before = echoes().length;
  client?.send('echo', 'awake');
  const areAnswered = () => echoes().length - before === USERS * EACH;
  await until(areAnswered, 5_000, 'all of them to be answered');
}

describe('clients whose lid is closed and opened again', () => {
  it('before silence proves anything, keep their connections, each time', async () => {
    await start();
    client = await FreezableClient.open(urls());
    const awake = await enter(server.socketUrl({ userId: 'awake' }));
    for (let i = 0; i < 3; i++) {
      await client.freeze();
      // From a ping of that very moment on, the second one is missed three quarters of an interval after it was sent.
      await sleep((MISSED - 0.5) * INTERVAL_MS);
      client.thaw();
      await expectAllAnswered();
    }
    expect(client.of('closed')).toEqual([]);
    expect(awake.closed).toBeUndefined();
    const metrics = await readMetrics(server);
    expect(metrics.sum('websocket_manager_connections')).toBe(USERS * EACH + 1);
    expect(metrics.sum('websocket_manager_zombies_detected_total')).toBe(0);
  });

  it('after they were taken for dead, find every session that has a key, and as they left it', async () => {
    await start();
    client = await FreezableClient.open(urls().filter((_, i) => i % 2));
    const COUNT = (USERS * EACH) / 2;
    const sessions = () =>
      (client as FreezableClient)
        .of('message')
        .filter(({ event }) => event === 'session')
        .map(({ data }) => data as { managerId: string; joined: boolean });
    const before = sessions();
    expect(before).toHaveLength(COUNT);
    await client.freeze();
    const frozenAt = performance.now();
    const connections = async () => (await readMetrics(server)).sum('websocket_manager_connections');
    await until(async () => (await connections()) === 0, 20_000, 'the heartbeat to find them', 50);
    const foundMs = performance.now() - frozenAt;
    client.thaw();
    await until(() => client?.of('closed').length === COUNT, 5_000, 'the clients to notice');
    const closed = client.of('closed').map(({ socket }) => socket);
    const own = urls().filter((_, i) => i % 2);
    await client.openMore(closed.map((socket) => own[socket] as string));
    expect(sessions().slice(COUNT)).toEqual(
      closed.map((socket) => ({ ...(before[socket] as object), joined: true })),
    );
    console.log(
      `${COUNT} frozen sessions: found after ${Math.round(foundMs)} ms, all found again when thawed`,
    );
    expect(foundMs).toBeLessThan((MISSED + 1) * INTERVAL_MS + 1_000);
  });

  it('at the limit, with a newcomer meanwhile, lose the one place that it needed and no other', async () => {
    await start({ WSM_HEARTBEAT_INTERVAL_MS: '60000', WSM_CLEANUP_INTERVAL_MS: '60000' });
    const LIMIT = 20;
    client = await FreezableClient.open(
      Array.from({ length: LIMIT }, (_, i) => server.socketUrl({ userId: 'alice', sessionKey: `tab-${i}` })),
    );
    // Filling up to the limit has asked all of them in the background; what is still under way must be over.
    await sleep(2_500);
    await client.freeze();
    const { client: newcomer, ms } = await knock(server.socketUrl({ userId: 'alice', sessionKey: 'new' }));
    client.thaw();
    expect(newcomer?.session.userId).toBe('alice');
    expect(ms).toBeLessThan(1_000 + 100 + 250);
    await sleep(3_000);
    // Whether the goodbye gets there before the end does is not ours to say.
    expect(client.of('closed').map(({ code }) => code === 4201 || code === 1006)).toEqual([true]);
    expect(await operator.managersOf('alice')).toHaveLength(LIMIT);
  });
});
