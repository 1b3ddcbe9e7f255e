import { SignJWT } from 'jose';
import { afterEach, describe, expect, it } from 'vitest';
import { readMetrics } from '../support/metrics.js';
import { Operator } from '../support/operator.js';
import { type Server, startServer } from '../support/server.js';
import { enter, type Stranger, sleep } from '../support/stranger.js';

const SECRET = 'a secret of the tests, which is long enough for HS256';
const HOUR_MS = 3_600_000;

/** At every SIGWINCH the wall clock is set: an hour on, back, an hour behind, back. The monotonic clock runs on. */
const STEPPED = `data:text/javascript,${encodeURIComponent(`
  const { now } = Date;
  const steps = [${HOUR_MS}, 0, -${HOUR_MS}, 0];
  let step = 0;
  let offset = 0;
  const RealDate = Date;
  globalThis.Date = class Date extends RealDate {
    constructor(...parts) { if (parts.length > 0) super(...parts); else super(now() + offset); }
    static now() { return now() + offset; }
  };
  process.on('SIGWINCH', () => {
    offset = steps[step++ % steps.length];
    console.log('clock set', offset);
  });
`)}`;

let server: Server;
afterEach(() => server.stop());

const token = (sub: string, livesMs: number) =>
  new SignJWT({ sub, exp: Math.floor((Date.now() + livesMs) / 1_000) })
    .setProtectedHeader({ alg: 'HS256' })
    .sign(new TextEncoder().encode(SECRET));

describe('a wall clock that is set an hour on and back, and an hour back and on', () => {
  it('drops nobody, and ends credentials when they end', { timeout: 60_000 }, async () => {
    server = await startServer(
      {
        WSM_AUTH: 'jwt',
        WSM_JWT_SECRET: SECRET,
        WSM_HEARTBEAT_INTERVAL_MS: '500',
        WSM_CLEANUP_INTERVAL_MS: '300',
        WSM_PROBE_TIMEOUT_MS: '300',
        WSM_RESUME_WINDOW_MS: '60000',
      },
      { nodeArgs: ['--import', STEPPED] },
    );
    const operator = new Operator(server);
    const come = async (sub: string, livesMs: number, sessionKey?: string): Promise<Stranger> => {
      const query = { access_token: await token(sub, livesMs), ...(sessionKey && { sessionKey }) };
      return enter(server.socketUrl(query));
    };
    const clients: Stranger[] = [];
    for (let i = 0; i < 17; i++) clients.push(await come('alice', 1.5 * HOUR_MS));
    for (let i = 0; i < 30; i++) clients.push(await come(`other-${i}`, 1.5 * HOUR_MS));
    const left = await come('bob', 1.5 * HOUR_MS, 'tab-1');
    left.socket.close();
    await left.whenClosed();
    const livesMs = 9_000;
    const endsAt = performance.now() + Math.floor((Date.now() + livesMs) / 1_000) * 1_000 - Date.now();
    const shortLived = await come('carol', livesMs);

    for (const offset of [HOUR_MS, 0, -HOUR_MS, 0]) {
      server.signal('SIGWINCH');
      await sleep(1_700);
      expect(server.log).toContain(`clock set ${offset}`);
      expect(shortLived.closed).toBeUndefined();
      // Whoever comes at this hour is let in; what the operator sees has the server's own time.
      clients.push(await come(`at-${offset}-${clients.length}`, 1.5 * HOUR_MS));
      const { body } = await operator.get('users/alice').expect(200);
      const { createdAt } = body.managers[0];
      expect(Math.abs(Date.parse(createdAt) - Date.now() - offset)).toBeLessThan(20_000);
    }
    expect((await shortLived.whenClosed(5_000)).code).toBe(4106);
    expect(Math.abs((shortLived.closed?.at ?? 0) - endsAt)).toBeLessThan(1_000);
    expect(clients.flatMap(({ closed }) => closed ?? [])).toEqual([]);
    // The session that was left is still there to come back to.
    expect(await operator.managersOf('bob')).toHaveLength(1);
    const metrics = await readMetrics(server);
    expect(metrics.sum('websocket_manager_zombies_detected_total')).toBe(0);
    expect(metrics.sum('websocket_manager_evictions_total')).toBe(0);
    expect(metrics.sum('websocket_manager_connections')).toBe(clients.length);
    await Promise.all(clients.map((client, i) => client.echo(`still here ${i}`)));
  });
});
