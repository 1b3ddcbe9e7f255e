import { afterEach, describe, expect, it } from 'vitest';
import { readMetrics } from '../support/metrics.js';
import { Operator } from '../support/operator.js';
import { type Server, startServer } from '../support/server.js';
import { knock, sleep, until } from '../support/stranger.js';

const LIMIT = 20;
const CLIENTS = LIMIT + 1;
const STORM_MS = 60_000;
/** The defaults, of which this test changes none. */
const BURST = 5;
const REFILL_MS = 10_000;
const MOST_EVICTIONS = BURST + STORM_MS / REFILL_MS;

const servers: Server[] = [];
afterEach(async () => {
  await Promise.all(servers.splice(0).map((server) => server.stop()));
});

interface Storm {
  readonly evictions: number;
  readonly refusals: number;
  readonly most: number;
  readonly least: number;
  readonly unexpected: readonly unknown[];
  /** Who came back when told to, and was refused again; and where there was no need to be told. */
  readonly broken: readonly string[];
  readonly lockouts: number;
  readonly served: number;
}

/** Twenty-one clients; who is closed comes back in the same instant, who is told to wait does so. */
async function storm(queryOf: (client: number) => Record<string, string>): Promise<Storm> {
  const server = await startServer();
  servers.push(server);
  const operator = new Operator(server);
  const endsAt = performance.now() + STORM_MS;
  const isOver = () => performance.now() > endsAt;
  let [evictions, refusals, served] = [0, 0, 0];
  const unexpected: unknown[] = [];
  const broken: string[] = [];
  const live = async (client: number) => {
    let waited: number | undefined;
    while (!isOver()) {
      const { client: session, refusal } = await knock(server.socketUrl(queryOf(client)));
      if (refusal) {
        refusals++;
        const { reason, retryAfterMs = 0 } = refusal.body;
        if (reason !== 'over_limit' || retryAfterMs > REFILL_MS) unexpected.push(refusal.body);
        if (waited !== undefined) broken.push(`client ${client} waited ${waited} ms`);
        waited = retryAfterMs;
        await sleep(Math.min(retryAfterMs, Math.max(0, endsAt - performance.now())) + 2);
        continue;
      }
      waited = undefined;
      served++;
      await until(() => session?.closed !== undefined || isOver(), STORM_MS, 'the end', 5);
      const code = session?.closed?.code;
      if (code === 4510) evictions++;
      else if (code !== undefined) unexpected.push(code);
    }
  };
  const counts: number[] = [];
  const watch = async () => {
    await sleep(1_000);
    while (!isOver()) {
      counts.push((await operator.managersOf('alice')).length);
      await sleep(100);
    }
  };
  await Promise.all([...Array.from({ length: CLIENTS }, (_, client) => live(client)), watch()]);
  const metrics = await readMetrics(server);
  return {
    evictions,
    refusals,
    served,
    unexpected,
    broken,
    most: Math.max(...counts),
    least: Math.min(...counts),
    lockouts: metrics.sum('websocket_manager_lockouts_total'),
  };
}

describe('twenty-one clients of one user that reconnect at once whenever they are closed, for a minute', () => {
  it('do not evict each other in a loop, and are let in when they were told', async () => {
    const [withoutKeys, withKeys] = await Promise.all([
      storm(() => ({ userId: 'alice' })),
      storm((client) => ({ userId: 'alice', sessionKey: `tab-${client}` })),
    ]);
    for (const [what, seen] of Object.entries({ withoutKeys, withKeys })) {
      console.log(`reconnect storm ${what}: ${JSON.stringify(seen)}; at most ${MOST_EVICTIONS} evictions`);
      expect({ what, ...seen }).toMatchObject({ what, unexpected: [], broken: [], most: LIMIT, lockouts: 0 });
      expect(seen.least).toBeGreaterThanOrEqual(LIMIT - 1);
      expect(seen.evictions).toBeGreaterThan(0);
      expect(seen.evictions).toBeLessThanOrEqual(MOST_EVICTIONS);
    }
  });
});
