import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { SessionPlan, Use } from './clients.js';
import { metricViolations, outcomeOf, violations } from './judge.js';
import { DOWNLOADER, TRICKLE } from './links.js';
import { type Outcome, sessionUrl, World } from './world.js';

// Each of these uses was seen to close live sessions below the limit: by a second missed probe, by pongs that wait
// behind data in the kernel's buffers, or by a bound on unsent bytes that was checked within the turn of the send.

const KIB = 1_024;
/** Longer than two sweeps, and than the heartbeat takes to prove a connection dead. */
const SECONDS = 65;
const FINISH_MS = 100_000;
const HOOK_MS = SECONDS * 1_000 + FINISH_MS + 30_000;

let world: World;
let outcome: Outcome;
afterAll(() => world?.close());

/** What the judge finds about one user, that is always below the limit. */
function violationsOf(userId: string): string[] {
  return violations(outcomeOf(outcome, userId), { below: new Set([userId]) });
}

function session(
  address: string,
  userId: string,
  index: number,
  use: Use & Partial<SessionPlan>,
): SessionPlan {
  const { atConnectBytes } = use;
  const query = { userId, ...(atConnectBytes ? { atConnect: `${atConnectBytes}` } : {}) };
  return { name: `${userId}/${index}`, userId, url: sessionUrl(address, query), ...use } as SessionPlan;
}

const times = <T>(count: number, make: (index: number) => T): T[] =>
  Array.from({ length: count }, (_, i) => make(i));

describe('the reference application, and clients that answer pings after 2.5 s', () => {
  beforeAll(async () => {
    world = await World.start({ script: 'dist/main.js' });
    const address = await world.address();
    const idle: Use = { role: 'idle' };
    world.add(...times(14, (i) => session(address, 'fourteen', i, { ...idle, answersPingsAfterMs: 2_500 })));
    outcome = await world.run(SECONDS, { finishWithinMs: FINISH_MS });
    await world.close();
  }, HOOK_MS);

  it('keeps all of 14 sessions at a limit of 20', () => {
    expect(violationsOf('fourteen')).toEqual([]);
  });

  it('counts no zombie and no lockout', () => {
    expect(outcome.metrics.sum('websocket_manager_zombies_detected_total')).toBe(0);
    expect(outcome.metrics.sum('websocket_manager_lockouts_total')).toBe(0);
  });
});

describe('the reference application at a limit of 1', () => {
  beforeAll(async () => {
    world = await World.start({ script: 'dist/main.js', env: { WSM_MANAGERS_PER_USER: '1' } });
    const address = await world.address();
    const slow = { answersPingsAfterMs: 2_500 };
    world.add(
      session(address, 'idle', 0, { role: 'idle', ...slow }),
      session(address, 'chat', 0, { role: 'chat', everyMs: [20_000, 30_000], ...slow }),
    );
    outcome = await world.run(SECONDS, { finishWithinMs: FINISH_MS });
    await world.close();
  }, HOOK_MS);

  it.each(['idle', 'chat'])(
    'keeps the only session of a client that answers pings after 2.5 s (%s)',
    (userId) => {
      expect(violationsOf(userId)).toEqual([]);
    },
  );

  it('counts no zombie and no lockout', () => {
    expect(outcome.metrics.sum('websocket_manager_zombies_detected_total')).toBe(0);
    expect(outcome.metrics.sum('websocket_manager_lockouts_total')).toBe(0);
  });
});

describe('the defaults, and clients that read slowly without a pause', () => {
  const AT_CONNECT = 10;

  beforeAll(async () => {
    world = await World.start();
    const [direct, reader, trickle] = await Promise.all([
      world.address(),
      world.address(DOWNLOADER),
      world.address(TRICKLE),
    ]);
    const MIB = KIB * KIB;
    for (let i = 0; i < AT_CONNECT; i++) {
      const opensAfterMs = i * 2_000;
      const use = { role: 'idle', atConnectBytes: 768 * KIB, opensAfterMs } as const;
      world.add(session(reader, `at-connect-${i}-limit-1`, 0, use));
    }
    world.add(
      session(reader, 'fourteen-one-downloads', 0, { role: 'download', bytes: MIB }),
      ...times(13, (i) => session(direct, 'fourteen-one-downloads', i + 1, { role: 'idle' })),
      session(trickle, 'kernel-limit-1', 0, { role: 'download', bytes: 768 * KIB }),
      session(direct, 'burst-limit-1', 0, { role: 'download', bytes: 450 * 10 * KIB, pieces: 450 }),
      session(direct, 'large-limit-1', 0, { role: 'download', bytes: 5 * MIB }),
      session(reader, 'slow-burst-limit-1', 0, { role: 'download', bytes: 450 * 10 * KIB, pieces: 450 }),
      session(reader, 'slow-large-limit-1', 0, { role: 'download', bytes: 5 * MIB }),
    );
    outcome = await world.run(SECONDS, { finishWithinMs: FINISH_MS });
    await world.close();
  }, HOOK_MS);

  const downloadsOf = (userId: string) =>
    outcomeOf(outcome, userId).sessions.map(({ downloads }) => downloads);

  it('delivers 768 KiB at connect to each client that reads 200 KiB/s at a limit of 1', () => {
    const userIds = times(AT_CONNECT, (i) => `at-connect-${i}-limit-1`);
    expect(userIds.flatMap(violationsOf)).toEqual([]);
    expect(userIds.flatMap(downloadsOf)).toEqual(userIds.map(() => 1));
  });

  it('keeps all of 14 sessions at a limit of 20, while one downloads 1 MiB at 200 KiB/s', () => {
    expect(violationsOf('fourteen-one-downloads')).toEqual([]);
    expect(downloadsOf('fourteen-one-downloads')[0]).toBeGreaterThanOrEqual(4);
  });

  it('keeps a session with 48 s of data in the kernel', () => {
    expect(violationsOf('kernel-limit-1')).toEqual([]);
    expect(downloadsOf('kernel-limit-1')[0]).toBeGreaterThanOrEqual(1);
  });

  it.each(['burst', 'large'])('delivers a %s of more than 4 MiB to a client that reads fast', (use) => {
    expect(violationsOf(`${use}-limit-1`)).toEqual([]);
    expect(downloadsOf(`${use}-limit-1`)[0]).toBeGreaterThanOrEqual(10);
  });

  it.each(['burst', 'large'])('delivers a %s of more than 4 MiB to a client that reads 200 KiB/s', (use) => {
    expect(violationsOf(`slow-${use}-limit-1`)).toEqual([]);
    expect(downloadsOf(`slow-${use}-limit-1`)[0]).toBeGreaterThanOrEqual(2);
  });

  it('counts no zombie and no lockout', () => {
    expect(metricViolations(outcome)).toEqual([]);
  });
});

describe('a heartbeat of one second, and clients that read all the time', () => {
  beforeAll(async () => {
    world = await World.start({
      env: { LINKS_OPTIONS: JSON.stringify({ heartbeat: { intervalMs: 1_000 } }) },
    });
    const reader = await world.address(DOWNLOADER);
    world.add(
      session(reader, 'one-limit-1', 0, { role: 'download', bytes: 768 * KIB, everyMs: [0, 100] }),
      ...times(14, (i) =>
        session(reader, 'fourteen', i, { role: 'download', bytes: 960 * KIB, everyMs: [0, 100] }),
      ),
    );
    outcome = await world.run(30, { finishWithinMs: FINISH_MS });
    await world.close();
  }, HOOK_MS);

  it.each(['one-limit-1', 'fourteen'])('closes none of them (%s)', (userId) => {
    expect(violationsOf(userId)).toEqual([]);
    for (const { downloads } of outcomeOf(outcome, userId).sessions)
      expect(downloads).toBeGreaterThanOrEqual(5);
  });

  it('counts no zombie and no lockout', () => {
    expect(metricViolations(outcome)).toEqual([]);
  });
});
