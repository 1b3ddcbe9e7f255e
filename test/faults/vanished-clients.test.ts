import { afterEach, describe, expect, it } from 'vitest';
import { FreezableClient } from '../support/freezable-client.js';
import { type Hosts, startHosts } from '../support/hosts.js';
import { Metrics } from '../support/metrics.js';
import { Operator, type UserView } from '../support/operator.js';
import { type Server, startServer } from '../support/server.js';
import { knock, until } from '../support/stranger.js';

const LIMIT = 20;
const keys = Array.from({ length: LIMIT }, (_, i) => `tab-${i}`);

describe('a client process of 20 sessions that is killed with SIGKILL', () => {
  let server: Server;
  afterEach(() => server.stop());

  it('has its slots free at once, long before a heartbeat could say so', async () => {
    server = await startServer({ WSM_HEARTBEAT_INTERVAL_MS: '60000' });
    const operator = new Operator(server);
    const client = await FreezableClient.open(keys.map(() => server.socketUrl({ userId: 'alice' })));
    expect(await operator.managersOf('alice')).toHaveLength(LIMIT);
    await client.kill();
    const killedAt = performance.now();
    const isEmpty = async () => (await operator.managersOf('alice')).length === 0;
    await until(isEmpty, 1_000, 'the slots to be free');
    console.log(`20 sessions of a killed process: gone after ${Math.round(performance.now() - killedAt)} ms`);
    const again = await Promise.all(keys.map(() => knock(server.socketUrl({ userId: 'alice' }))));
    expect(again.filter(({ refusal }) => refusal)).toEqual([]);
  });

  it('leaves sessions to come back to, of which a newcomer takes one without a probe', async () => {
    server = await startServer({ WSM_HEARTBEAT_INTERVAL_MS: '60000', WSM_PROBE_TIMEOUT_MS: '5000' });
    const operator = new Operator(server);
    const urls = keys.map((sessionKey) => server.socketUrl({ userId: 'alice', sessionKey }));
    const client = await FreezableClient.open(urls);
    await client.kill();
    const areLeft = async () =>
      (await operator.user('alice')).managers.every(({ status }) => status === 'inactive');
    await until(areLeft, 1_000, 'the sessions to be inactive');
    const newcomer = await knock(server.socketUrl({ userId: 'alice', sessionKey: 'new' }));
    expect(newcomer.refusal).toBeUndefined();
    expect(newcomer.ms).toBeLessThan(500);
    const { managers } = await operator.user('alice');
    expect(managers).toHaveLength(LIMIT);
    const waiting = managers.find(({ status }) => status === 'inactive');
    const back = await knock(
      server.socketUrl({ userId: 'alice', sessionKey: waiting?.sessionKey as string }),
    );
    expect(back.client?.session).toMatchObject({ joined: true, managerId: waiting?.id });
  });
});

describe('a host that vanishes without a FIN', () => {
  let hosts: Hosts;
  afterEach(() => hosts.close());

  const start = async (env: NodeJS.ProcessEnv, queries: Record<string, string>[]) => {
    hosts = await startHosts(env);
    const { statuses } = await hosts.far.open(queries.map((query) => hosts.urlFromAfar(query)));
    expect(statuses).toEqual(queries.map(() => 101));
  };
  const user = async (userId: string): Promise<UserView> => {
    const { text } = await hosts.near.get(`${hosts.server.url}/websocket-managers/api/users/${userId}`);
    return JSON.parse(text) as UserView;
  };
  const metrics = async () => new Metrics((await hosts.near.get(`${hosts.server.url}/metrics`)).text);

  it('is found by the heartbeat within (missed + 1) intervals, and costs nobody else anything', async () => {
    const intervalMs = 1_000;
    const env = { WSM_HEARTBEAT_INTERVAL_MS: `${intervalMs}`, WSM_HEARTBEAT_MISSED: '2' };
    await start(env, [{ userId: 'alice' }, { userId: 'alice' }, { userId: 'carol' }]);
    await hosts.near.open([hosts.server.socketUrl({ userId: 'bob' })]);
    hosts.vanish();
    const vanishedAt = performance.now();
    const isGone = async () => {
      const [alice, carol] = await Promise.all([user('alice'), user('carol')]);
      return alice.managers.length + carol.managers.length === 0;
    };
    await until(isGone, 10_000, 'the vanished to be found');
    const ms = performance.now() - vanishedAt;
    console.log(
      `vanished host (${hosts.how}): found by the heartbeat (${intervalMs} ms) after ${Math.round(ms)} ms`,
    );
    expect(ms).toBeLessThan(3 * intervalMs + 250);
    expect((await user('bob')).managers).toHaveLength(1);
    expect((await metrics()).sum('websocket_manager_zombies_detected_total')).toBe(3);
  });

  it('is found by a newcomer at the limit within the probe time and 100 ms', async () => {
    const probeMs = 500;
    const env = { WSM_HEARTBEAT_INTERVAL_MS: '60000', WSM_PROBE_TIMEOUT_MS: `${probeMs}` };
    await start(
      env,
      keys.map((sessionKey) => ({ userId: 'alice', sessionKey })),
    );
    hosts.vanish();
    const { status, ms } = await hosts.near.knock(
      hosts.server.socketUrl({ userId: 'alice', sessionKey: 'new' }),
    );
    console.log(
      `vanished host (${hosts.how}): newcomer at 20/20 in after ${Math.round(ms)} ms (probe ${probeMs} ms)`,
    );
    expect(status).toBe(101);
    expect(ms).toBeLessThan(probeMs + 100 + 50);
    expect((await user('alice')).managers.length).toBeLessThanOrEqual(LIMIT);
    expect((await metrics()).sum('websocket_manager_lockouts_total')).toBe(0);
  });
});
