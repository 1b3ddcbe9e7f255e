import { describe, expect, it } from 'vitest';
import { EnvironmentError, validateEnvironment } from '../../src/reference-app/environment.js';
import { runToExit, startServer } from '../support/server.js';

/** A variable, a value that it cannot have, and a part of what is said to be allowed. */
const WRONG: [variable: string, value: string, allowed: string][] = [
  ['PORT', 'http', 'a whole number from 0 to 65535'],
  ['PORT', '65536', 'a whole number from 0 to 65535'],
  ['PORT', '-1', 'a whole number from 0 to 65535'],
  ['HOST', '0.0.0.0', 'a loopback address'],
  ['HOST', 'example.com', 'a loopback address'],
  ['HOST', '::', 'a loopback address'],
  ['WSM_AUTH', 'none', 'demo, jwt'],
  ['WSM_DEMO_ANYWHERE', 'yes', 'true, false'],
  ['WSM_MANAGERS_PER_USER', '0', '1'],
  ['WSM_MANAGERS_PER_USER', 'many', 'a number'],
  ['WSM_MANAGERS_PER_USER', '2.5', 'a whole number'],
  ['WSM_MANAGERS_PER_NODE', '0', 'a whole number'],
  ['WSM_CONNECTIONS_PER_MANAGER', '0', 'a whole number'],
  ['WSM_PROACTIVE_THRESHOLD', '1.5', 'above 0 and at most 1'],
  ['WSM_MODERATE_THRESHOLD', '0.1', 'at least'],
  ['WSM_AGGRESSIVE_THRESHOLD', '-1', 'above 0 and at most 1'],
  ['WSM_CLEANUP_INTERVAL_MS', '0', 'milliseconds from 10'],
  ['WSM_IDLE_AFTER_MS', '0', 'milliseconds from 1'],
  ['WSM_GRACE_MS', '-1', 'milliseconds from'],
  ['WSM_RESUME_WINDOW_MS', '3e9', 'milliseconds from'],
  ['WSM_FORCED_EVICTION_BURST', '0', 'a whole number from 1'],
  ['WSM_FORCED_EVICTION_REFILL_MS', '0', 'milliseconds from 1'],
  ['WSM_HEARTBEAT_INTERVAL_MS', '50', 'milliseconds from 100'],
  ['WSM_HEARTBEAT_MISSED', '0', 'a whole number from 1'],
  ['WSM_PROBE_TIMEOUT_MS', '1s', 'a number'],
  ['WSM_BREAKER_FAILURE_THRESHOLD', '0', 'a whole number from 1'],
  ['WSM_BREAKER_RESET_TIMEOUT_MS', '0', 'milliseconds from 1'],
  ['WSM_REJECT_WITH', 'tears', 'http'],
  ['WSM_QUEUE_TIMEOUT_MS', 'Infinity', 'milliseconds from'],
  ['WSM_ALLOWED_ORIGINS', 'example.com', 'an origin as browsers send it'],
  ['WSM_MAX_PAYLOAD_BYTES', '0', 'a whole number from 1 to 2147483647'],
  ['WSM_MAX_PAYLOAD_BYTES', '2147483648', 'a whole number from 1 to 2147483647'],
  ['WSM_MAX_BUFFERED_BYTES', '0', 'a whole number from 1'],
  ['WSM_DRAIN_TIMEOUT_MS', '-1', 'milliseconds from 0'],
  ['WSM_DRAIN_SPREAD_MS', '60000', 'at most'],
  ['WSM_MANAGER_PER_USER', '20', 'no such variable; there are WSM_MANAGERS_PER_USER'],
];

/** Of each kind one with which a process is started. */
const STARTED = [
  'PORT',
  'HOST',
  'WSM_AUTH',
  'WSM_MANAGERS_PER_USER',
  'WSM_DRAIN_SPREAD_MS',
  'WSM_MANAGER_PER_USER',
];

async function complaintAbout(env: NodeJS.ProcessEnv): Promise<string> {
  const { code, stderr, stdout } = await runToExit({ PORT: '0', ...env });
  expect([code, stderr.trimEnd().split('\n').length, stdout]).toEqual([1, 1, '']);
  return stderr.trimEnd();
}

function expectComplaint(line: string, [variable, value, allowed]: (typeof WRONG)[number]): void {
  const shown = allowed.startsWith('no such') ? 'a value' : value;
  expect(line).toMatch(new RegExp(`^${variable}: got "?${shown.replaceAll('.', '\\.')}"?; allowed: `));
  expect(line).toContain(allowed);
  expect(line).not.toContain('\n');
}

describe('the environment', () => {
  it.each(WRONG)('cannot have %s=%s, and the message says which, what and what is allowed', (...wrong) => {
    const [variable, value] = wrong;
    let complaint: unknown;
    try {
      validateEnvironment({ [variable]: value });
    } catch (error) {
      complaint = error;
    }
    expect(complaint).toBeInstanceOf(EnvironmentError);
    expectComplaint((complaint as EnvironmentError).message, wrong);
  });

  it('stops the start at such a value, with that one line and nothing else', async () => {
    const started = STARTED.map(
      (name) => WRONG.find(([variable]) => variable === name) as (typeof WRONG)[number],
    );
    await Promise.all(
      started.map(async (wrong) => expectComplaint(await complaintAbout({ [wrong[0]]: wrong[1] }), wrong)),
    );
  });

  it('stops the start where a secret is missing, without a word of what is secret', async () => {
    expect(await complaintAbout({ WSM_AUTH: 'jwt' })).toMatch(/^WSM_JWT_SECRET: got nothing; allowed: /);
    const redis = await complaintAbout({ WSM_REDIS_URL: 'redis://user:password@example.com' });
    expect(redis).toMatch(/^WSM_REDIS_URL: /);
    expect(redis).not.toContain('password');
  });

  it('may open the demo to everybody, if that is said in so many words', async () => {
    const server = await startServer({ HOST: '0.0.0.0', WSM_DEMO_ANYWHERE: 'true' });
    await server.stop();
    const guarded = await startServer({ HOST: '0.0.0.0', WSM_AUTH: 'jwt', WSM_JWT_SECRET: 'secret' });
    await guarded.stop();
  });

  it('counts an empty variable as one that is not set', async () => {
    const server = await startServer({ WSM_MANAGERS_PER_USER: '', WSM_AUTH: '', WSM_REJECT_WITH: '' });
    await server.stop();
  });

  it('without an admin token has one made, and printed once', async () => {
    const server = await startServer({ WSM_ADMIN_TOKEN: '' });
    const [, token = '', ...others] =
      /WSM_ADMIN_TOKEN is not set; for this run it is (\S+)/.exec(server.log) ?? [];
    expect(others).toEqual([]);
    expect(token.length).toBeGreaterThanOrEqual(32);
    expect(server.log.split(token)).toHaveLength(2);
    const headers = { authorization: `Bearer ${token}` };
    const { status } = await fetch(`${server.url}/websocket-managers/api/overview`, { headers });
    expect(status).toBe(200);
    await server.stop();
  });
});
