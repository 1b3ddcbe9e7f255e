import request from 'supertest';
import { afterEach, describe, expect, it } from 'vitest';
import { FreezableClient } from '../support/freezable-client.js';
import { type Metrics, readMetrics } from '../support/metrics.js';
import { Operator } from '../support/operator.js';
import { type Server, startServer } from '../support/server.js';
import { enter, knock, sleep, until } from '../support/stranger.js';

let server: Server;

async function start(env: NodeJS.ProcessEnv = {}): Promise<void> {
  server = await startServer(env);
}

afterEach(() => server.stop());

const urlOf = (userId: string, sessionKey?: string) =>
  server.socketUrl({ userId, ...(sessionKey === undefined ? {} : { sessionKey }) });

const get = (path: string) => request(server.url).get(path);

describe('health', () => {
  it('tells of everything at /health, and of nothing but being there at /health/live', async () => {
    await start();
    await enter(urlOf('alice', 'tab-1'));
    const detail = {
      status: 'up',
      reasons: [],
      managers: 1,
      users: 1,
      usersAtLimit: 0,
      connections: 1,
      zombies: 0,
      openBreakers: 0,
      lastSweepAgoMs: expect.any(Number),
      selfPreservation: false,
      canary: 'ok',
      store: { name: 'memory', status: 'up' },
      draining: false,
    };
    const everything = await get('/health').expect(200);
    expect(everything.body.status).toBe('ok');
    expect(everything.body.details.websocket_managers).toMatchObject(detail);
    const { byStatus } = everything.body.details.websocket_managers;
    expect(Object.keys(byStatus).sort()).toEqual(['healthy', 'idle', 'inactive', 'unknown', 'zombie']);
    const ready = await get('/health/ready').expect(200);
    expect(ready.body.details.websocket_managers).toMatchObject(detail);
    await get('/health/live').expect(200, { status: 'ok' });
  });

  it('does not take a user at the limit for ill health', async () => {
    await start({ WSM_MANAGERS_PER_USER: '2' });
    await enter(urlOf('alice'));
    await enter(urlOf('alice'));
    await knock(urlOf('alice'));
    const { body } = await get('/health').expect(200);
    expect(body.details.websocket_managers).toMatchObject({ status: 'up', usersAtLimit: 1 });
    await get('/health/ready').expect(200);
    await get('/health/live').expect(200);
  });

  it('is not ready while the node is full, and ready again when it is not', async () => {
    await start({ WSM_MANAGERS_PER_NODE: '2' });
    const first = await enter(urlOf('alice'));
    await enter(urlOf('bob'));
    const { body } = await get('/health/ready').expect(503);
    expect(body.details.websocket_managers).toMatchObject({ status: 'down', reasons: ['node full'] });
    await get('/health').expect(503);
    await get('/health/live').expect(200);
    const { refusal } = await knock(urlOf('carol'));
    expect(refusal?.status).toBe(503);
    expect(refusal?.body).toMatchObject({ reason: 'try_later', retryAfterMs: expect.any(Number) });
    expect(refusal?.headers['retry-after']).toMatch(/^\d+$/);
    first.socket.close();
    await until(async () => (await get('/health/ready')).status === 200, 2_000, 'readiness');
    await enter(urlOf('carol'));
  });
});

/** Every metric and its labels. */
const METRICS: Readonly<Record<string, readonly string[]>> = {
  managers: ['status'],
  users: [],
  users_at_limit: [],
  connections: [],
  admissions_total: ['outcome'],
  rejections_total: ['reason'],
  admission_duration_seconds: [],
  cleanups_total: ['level', 'outcome', 'trigger'],
  cleanup_duration_seconds: ['level'],
  cleanup_last_success_timestamp_seconds: [],
  evictions_total: ['level', 'reason'],
  zombies_detected_total: ['signal'],
  zombie_suspects_total: ['verdict'],
  evicted_returned_total: [],
  lockouts_prevented_total: [],
  lockouts_total: [],
  canary_ok: [],
  self_preservation: [],
  circuit_breakers: ['state'],
  circuit_breaker_transitions_total: ['to'],
  messages_total: ['direction'],
  buffered_bytes: [],
  pong_latency_seconds: [],
  event_loop_voids_total: [],
  draining: [],
  store_operation_duration_seconds: ['operation'],
  store_errors_total: ['operation'],
  hook_failures_total: ['hook'],
};
/** What nothing that a stranger does brings about. */
const UNSEEN = ['circuit_breaker_transitions_total', 'store_errors_total', 'hook_failures_total'];

function labelsOf(metrics: Metrics, family: string): string[] {
  const names = [family, `${family}_bucket`, `${family}_sum`, `${family}_count`];
  const samples = metrics.samples.filter(({ name }) => names.includes(name));
  const labels = samples.flatMap((sample) => Object.keys(sample.labels));
  return [...new Set(labels)].filter((label) => label !== 'le').sort();
}

describe('metrics', () => {
  it('have exactly the agreed names and labels, and none of them names a user', async () => {
    await start({
      WSM_MANAGERS_PER_USER: '3',
      WSM_GRACE_MS: '50',
      WSM_PROBE_TIMEOUT_MS: '150',
      WSM_HEARTBEAT_INTERVAL_MS: '200',
      WSM_FORCED_EVICTION_BURST: '1',
    });
    const tabs = [1, 2, 3].map((i) => urlOf('alice-in-metrics', `tab-${i}`));
    // An incoming connection takes the place of a suspect; the suspect of another user is left to the heartbeat.
    const frozen = await FreezableClient.open([...tabs, urlOf('bob-in-metrics')]);
    await sleep(200);
    await frozen.freeze();
    const operator = new Operator(server);
    await operator.post('users/bob-in-metrics/cleanup', { level: 'aggressive' }).expect(200);
    const newcomer = await enter(urlOf('alice-in-metrics', 'new'));
    await newcomer.echo('hello');
    for (let i = 0; i < 5; i++) await knock(urlOf('alice-in-metrics'));
    await knock(server.socketUrl());
    await sleep(800);
    await frozen.kill();

    const metrics = await readMetrics(server);
    const families = [...metrics.types.keys()].filter((name) => name.startsWith('websocket_manager_'));
    expect(families.sort()).toEqual(
      Object.keys(METRICS)
        .map((name) => `websocket_manager_${name}`)
        .sort(),
    );
    for (const [name, labels] of Object.entries(METRICS)) {
      const seen = labelsOf(metrics, `websocket_manager_${name}`);
      expect([name, seen]).toEqual([name, UNSEEN.includes(name) ? [] : [...labels]]);
    }
    expect(metrics.text).not.toContain('alice-in-metrics');
    const sum = (name: string, labels = {}) => metrics.sum(`websocket_manager_${name}`, labels);
    expect(sum('lockouts_total')).toBe(0);
    expect(sum('lockouts_prevented_total')).toBeGreaterThan(0);
    expect(sum('canary_ok')).toBe(1);
    expect(sum('rejections_total', { reason: 'unauthenticated' })).toBe(1);
    expect(sum('rejections_total', { reason: 'over_limit' })).toBeGreaterThan(0);
    expect(sum('messages_total', { direction: 'in' })).toBe(1);
    const outcomes = metrics.samples.filter(({ name }) => name === 'websocket_manager_admissions_total');
    expect(outcomes.map(({ labels }) => labels.outcome)).toEqual(
      expect.arrayContaining(['admitted', 'admitted_after_cleanup', 'rejected']),
    );
  });
});

describe('the log', () => {
  // The first 12 digits of SHA-256 of `alice` are 2bd806c97f0e.
  const ofManager = () => server.lines.filter((line) => line.includes('[WebSocketManager]'));

  it('has one line for each refusal and each eviction, with its reason', async () => {
    await start({ WSM_MANAGERS_PER_USER: '1', WSM_GRACE_MS: '50', WSM_FORCED_EVICTION_BURST: '1' });
    await enter(urlOf('alice'));
    await sleep(60);
    await enter(urlOf('alice'));
    await sleep(60);
    await knock(urlOf('alice'));
    await knock(server.socketUrl());
    await knock(urlOf('alice'), { origin: 'https://elsewhere.example' });
    await until(() => ofManager().length >= 4, 1_000, 'the lines');
    expect(ofManager()).toEqual([
      expect.stringMatching(/Evicted manager [\w-]{22} of user 2bd806c97f0e: evicted, level force/),
      expect.stringMatching(/Rejected user 2bd806c97f0e: over_limit, retry after \d+ ms/),
      expect.stringMatching(/Rejected somebody: unauthenticated/),
      expect.stringMatching(/Rejected somebody: forbidden_origin/),
    ]);
  });

  it('is not flooded by a flood of refusals, and has nothing of their requests', async () => {
    await start();
    const secret = 'a-very-secret-token';
    const flood = async () => {
      for (let i = 0; i < 50; i++) {
        const url = server.socketUrl({ access_token: secret, note: 'from-the-query' });
        const { refusal } = await knock(url, { headers: { authorization: `Bearer ${secret}` } });
        expect(refusal?.status).toBe(401);
      }
    };
    await Promise.all(Array.from({ length: 10 }, flood));
    const metrics = await readMetrics(server);
    expect(metrics.sum('websocket_manager_rejections_total', { reason: 'unauthenticated' })).toBe(500);
    expect(ofManager().length).toBeGreaterThan(0);
    expect(ofManager().length).toBeLessThanOrEqual(20);
    expect(server.log).not.toContain(secret);
    expect(server.log).not.toContain('from-the-query');
  });

  it('has the refusal of a user also where another user is refused all the time, and what it left out', async () => {
    await start({ WSM_MANAGERS_PER_NODE: '1' });
    await enter(urlOf('alice'));
    for (let i = 0; i < 38; i++) await knock(urlOf('noisy'));
    await knock(urlOf('quiet'));
    await until(() => ofManager().length >= 11, 1_000, 'the lines');
    expect(ofManager().filter((line) => line.includes('Rejected user'))).toHaveLength(11);
    expect(new Set(ofManager().map((line) => /user \w{12}/.exec(line)?.[0])).size).toBe(2);
    const { stdout } = await server.stop('SIGTERM');
    expect(stdout).toMatch(
      /WARN \[WebSocketManager\] ... and 28 more lines of this kind: rejected try_later/,
    );
  });

  it('has what it left out also where SIGTERM ends an application without shutdown hooks', async () => {
    server = await startServer({ LOGGER: 'on' }, { script: 'test/support/bare-server.mjs' });
    for (let i = 0; i < 38; i++) await knock(server.socketUrl());
    const { signal, stdout } = await server.stop('SIGTERM');
    expect(signal).toBe('SIGTERM');
    expect(stdout).toMatch(/... and 28 more lines of this kind: rejected unauthenticated/);
  });

  it('has no line that a user id has forged, and no whole id', async () => {
    await start({ WSM_MANAGERS_PER_USER: '1', WSM_GRACE_MS: '20000' });
    const before = server.lines.length;
    const ids = [
      'x\n[Nest] forged',
      'x\u001b[2Jforged',
      'x\u2028forged',
      'x\u202eforged',
      'forged@example.com',
    ];
    const answers = await Promise.all(ids.map((id) => knock(urlOf(id))));
    expect(answers.map(({ refusal }) => refusal?.status)).toEqual([
      400,
      400,
      undefined,
      undefined,
      undefined,
    ]);
    for (const id of ids.slice(2)) expect((await knock(urlOf(id))).refusal?.status).toBe(429);
    await until(() => server.lines.length >= before + 5, 1_000, 'the lines');
    const lines = server.lines.slice(before);
    expect(lines).toHaveLength(5);
    for (const line of lines)
      expect(line).toMatch(/^\[Nest\] \d+ .* WARN \[WebSocketManager\] [\x20-\x7e]*$/);
    expect(server.log).not.toContain('forged@example.com');
  });
});
