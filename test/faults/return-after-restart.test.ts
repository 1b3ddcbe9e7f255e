import { afterEach, describe, expect, it } from 'vitest';
import { Herd } from '../support/herd.js';
import { readMetrics } from '../support/metrics.js';
import { type Server, startServer } from '../support/server.js';
import { sleep } from '../support/stranger.js';

const CLIENTS = 5_000;
const ALL_IN_MS = 45_000;
const LIVE_WITHIN_MS = 2_000;

let server: Server;
let herd: Herd;
afterEach(async () => {
  herd.kill();
  await server.stop();
});

/** Asks `/health/live` again and again until told to stop. */
function watchLiveness(url: string): { stop(): Promise<number[]> } {
  let isOver = false;
  const times: number[] = [];
  const watch = async () => {
    while (!isOver) {
      const startedAt = performance.now();
      const { status } = await fetch(`${url}/health/live`, { signal: AbortSignal.timeout(10_000) });
      expect(status).toBe(200);
      times.push(performance.now() - startedAt);
      await sleep(20);
    }
    return times;
  };
  const done = watch();
  return {
    stop: () => {
      isOver = true;
      return done;
    },
  };
}

describe('5,000 clients that come back together after the server was killed and started again', () => {
  it('are all in, in bounded time, while the server still says that it lives', async () => {
    herd = new Herd();
    // 250 users at their limit.
    const users = Array.from({ length: CLIENTS }, (_, i) => `user-${i % 250}`);
    server = await startServer({ WSM_HEARTBEAT_INTERVAL_MS: '2000' });
    const port = Number(new URL(server.url).port);
    const first = await herd.come(port, users, ALL_IN_MS);
    expect(first.in).toBe(CLIENTS);
    await server.stop('SIGKILL');
    await herd.whenAllLost();

    server = await startServer({ PORT: `${port}`, WSM_HEARTBEAT_INTERVAL_MS: '2000' });
    const liveness = watchLiveness(server.url);
    const startedAt = performance.now();
    const back = await herd.come(port, users, ALL_IN_MS);
    const tookMs = performance.now() - startedAt;
    const duringMs = Math.max(...(await liveness.stop()));
    console.log(
      `${CLIENTS} clients back: all in after ${Math.round(tookMs)} ms, slowest handshake ${Math.round(back.slowestMs)} ms, ` +
        `${back.refusals} refused, ${back.errors} tried again; /health/live at most ${Math.round(duringMs)} ms`,
    );
    expect(back).toMatchObject({ in: CLIENTS, refusals: 0 });
    // What the listen queue has no room for tries again after 1, 2, 4, 8 and 16 s, as TCP does.
    expect(back.slowestMs).toBeLessThan(35_000);
    expect(duringMs).toBeLessThan(LIVE_WITHIN_MS);
    // Three heartbeats later they are all still there, though they were all pinged.
    await sleep(6_500);
    const metrics = await readMetrics(server);
    expect(metrics.sum('websocket_manager_connections')).toBe(CLIENTS);
    expect(metrics.sum('websocket_manager_users_at_limit')).toBe(250);
    expect(metrics.sum('websocket_manager_evictions_total')).toBe(0);
    expect(metrics.sum('websocket_manager_zombies_detected_total')).toBe(0);
    expect(metrics.sum('websocket_manager_lockouts_total')).toBe(0);
  });
});
