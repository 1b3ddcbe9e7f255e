import { afterEach, describe, expect, it } from 'vitest';
import { readMetrics } from '../support/metrics.js';
import { Operator } from '../support/operator.js';
import { type Server, startServer } from '../support/server.js';
import { enter, type Stranger, sleep, until } from '../support/stranger.js';

const INTERVAL_MS = 1_000;
const LIMIT = 20;

/** SIGWINCH, of which nobody else makes anything, keeps the event loop busy for three heartbeats. */
const BLOCKABLE = `data:text/javascript,${encodeURIComponent(`
  process.on('SIGWINCH', () => {
    const endsAt = performance.now() + ${3 * INTERVAL_MS};
    while (performance.now() < endsAt);
  });
`)}`;

let server: Server;
let operator: Operator;

async function start(env: NodeJS.ProcessEnv = {}): Promise<void> {
  server = await startServer(
    { WSM_HEARTBEAT_INTERVAL_MS: `${INTERVAL_MS}`, WSM_PROBE_TIMEOUT_MS: '300', ...env },
    { nodeArgs: ['--import', BLOCKABLE] },
  );
  operator = new Operator(server);
}

afterEach(() => server.stop());

/** So many that the node may take a general silence for its own fault, and so few that it may not. */
const MANY = 110;
const FEW = 20;

/** One user under pressure, who is probed in the background, and others without. */
async function fillUp(others: number): Promise<Stranger[]> {
  const names = [
    ...Array(LIMIT - 1).fill('alice'),
    ...Array.from({ length: others }, (_, i) => `other-${i}`),
  ];
  return Promise.all(names.map((userId) => enter(server.socketUrl({ userId }))));
}

async function expectNobodyLost(clients: Stranger[]): Promise<void> {
  expect(clients.filter(({ closed }) => closed).map(({ closed }) => closed)).toEqual([]);
  const metrics = await readMetrics(server);
  expect(metrics.sum('websocket_manager_connections')).toBe(clients.length);
  expect(metrics.sum('websocket_manager_zombies_detected_total')).toBe(0);
  expect(metrics.sum('websocket_manager_evictions_total')).toBe(0);
  expect(metrics.sum('websocket_manager_event_loop_voids_total')).toBeGreaterThan(0);
  await Promise.all(clients.map((client, i) => client.echo(`still here ${i}`)));
}

describe('a server whose event loop is blocked for three heartbeats', () => {
  it.each([MANY, FEW])('drops nobody alive of %i, not the first time and not the third', async (others) => {
    await start({ WSM_CLEANUP_INTERVAL_MS: '200' });
    const clients = await fillUp(others);
    for (let i = 0; i < 3; i++) {
      server.signal('SIGWINCH');
      await sleep(3 * INTERVAL_MS + 400);
    }
    await sleep(3 * INTERVAL_MS);
    await expectNobodyLost(clients);
  });

  it('lets a newcomer in at the limit afterwards, at the cost of one', async () => {
    await start({ WSM_GRACE_MS: '100' });
    const clients = await Promise.all(
      Array.from({ length: LIMIT }, () => enter(server.socketUrl({ userId: 'alice' }))),
    );
    await sleep(200);
    server.signal('SIGWINCH');
    await sleep(50);
    // They knock while nobody is listening.
    await Promise.all([1, 2].map(() => enter(server.socketUrl({ userId: 'alice' }))));
    await sleep(1_000);
    const closed = clients.flatMap((client) => client.closed ?? []);
    expect(closed.map(({ code }) => code)).toEqual([4510, 4510]);
    expect(await operator.managersOf('alice')).toHaveLength(LIMIT);
  });

  it('takes nobody for a slow consumer who reads as fast as it is let', async () => {
    const limit = 2 * 2 ** 20;
    await start({ WSM_MAX_BUFFERED_BYTES: `${limit}` });
    const client = await enter(server.socketUrl({ userId: 'alice' }));
    client.socket.pause();
    const buffered = async () => {
      const { body } = await operator.get('users/alice').expect(200);
      return body.managers[0].connections[0].bufferedBytes as number;
    };
    // The kernels on the way take megabytes: until they are full, nothing waits in the server.
    const backsUp = async () => {
      client.send('echo', 'x'.repeat(250_000));
      return (await buffered()) > limit;
    };
    await until(backsUp, 10_000, 'the output to back up', 1);
    server.signal('SIGWINCH');
    await sleep(5);
    client.socket.resume();
    await sleep(3 * INTERVAL_MS + 1_500);
    expect(client.closed).toBeUndefined();
    await client.echo('still here');
  });
});

describe('a server that is stopped for thirty seconds, and goes on', () => {
  const STOPPED_MS = 30_000;

  it.each([MANY, FEW])('drops nobody alive of %i', async (others) => {
    await start({ WSM_CLEANUP_INTERVAL_MS: '200' });
    const clients = await fillUp(others);
    await sleep(INTERVAL_MS);
    server.signal('SIGSTOP');
    await sleep(STOPPED_MS);
    server.signal('SIGCONT');
    await sleep(4 * INTERVAL_MS);
    await expectNobodyLost(clients);
  });
});
