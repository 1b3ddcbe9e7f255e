import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SeededRandom } from '../support/seeded-random.js';
import type { SessionPlan, Use } from './clients.js';
import { addFleet, type FleetUser, LIMITS, TERRAINS } from './fleet.js';
import { type Death, metricViolations, outcomeOf, violations } from './judge.js';
import { DOWNLOADER, FAST } from './links.js';
import type { Link } from './relay.js';
import { type Outcome, sessionUrl, World } from './world.js';

const SECONDS = Number(process.env.LINK_SECONDS ?? 90);
const SEED = Number(process.env.LINK_SEED ?? Date.now() % 1_000_000);
/** Of the run, the relay's own timers may be late for this share. */
const MOST_LATE_SHARE = 0.3;
const FINISH_MS = 120_000;
const HOOK_MS = SECONDS * 1_000 + FINISH_MS + 60_000;
const KIB = 1_024;

const DEAD_AFTER_MS = 10_000;
/** SPEC section 6, promise 4: `(missedBeforeZombie + 1) x intervalMs`. */
const DETECTED_WITHIN_MS = 45_000;
/** ... plus up to a minute where output was under way. */
const MORE_WITH_OUTPUT_MS = 60_000;
/** The last of the dead has to be detected by then. */
const LEAST_SECONDS = 125;
/** The machine runs server, relay and clients at once. */
const MACHINE_MS = 2_000;

let world: World;
let outcome: Outcome;
let users: readonly FleetUser[];
const deaths = new Map<string, Death>();

interface DeadPlan {
  readonly name: string;
  readonly use: Use;
  readonly link: Link;
  /** The server has sent what the client has not read, or goes on sending. */
  readonly hasOutputUnderWay: boolean;
}

const dying = (link: Link, deadDirection: 'both' | 'up' = 'both'): Link => ({
  ...link,
  deadAfterMs: DEAD_AFTER_MS,
  deadDirection,
});

const DEAD: readonly DeadPlan[] = [
  { name: 'silent', use: { role: 'idle' }, link: dying(FAST), hasOutputUnderWay: false },
  { name: 'not-heard', use: { role: 'idle' }, link: dying(FAST, 'up'), hasOutputUnderWay: false },
  {
    name: 'receives-pushes',
    use: { role: 'push', bytes: KIB, pushEveryMs: 500 },
    link: dying(FAST),
    hasOutputUnderWay: true,
  },
  {
    name: 'downloads',
    use: { role: 'download', bytes: 320 * KIB, everyMs: [0, 100] },
    link: dying(DOWNLOADER),
    hasOutputUnderWay: true,
  },
];

/** Sessions whose client dies: alone at a limit of 1, and among 13 live ones at a limit of 20. */
async function addDead(): Promise<void> {
  const live = await world.address(FAST);
  for (const keyed of [true, false]) {
    for (const limit of [1, 20]) {
      for (const { name, use, link } of DEAD) {
        const userId = `dead-${name}-limit-${limit}-${keyed ? 'keys' : 'no-keys'}`;
        const plan = (each: string, address: string, its: Use): SessionPlan => ({
          ...its,
          name: `${userId}/${each}`,
          userId,
          url: sessionUrl(address, { userId, ...(keyed ? { sessionKey: each } : {}) }),
        });
        world.add({ ...plan('dead', await world.address(link), use), dies: true });
        if (limit === 1) continue;
        for (let i = 0; i < 13; i++) world.add(plan(`live-${i}`, live, { role: i % 2 ? 'idle' : 'chat' }));
      }
    }
  }
}

function noteDeaths(): void {
  for (const { name, requestedAt } of outcome.sessions) {
    const dead = DEAD.find((each) => name.startsWith(`dead-${each.name}-`) && name.endsWith('/dead'));
    if (!dead) continue;
    const moreMs = dead.hasOutputUnderWay ? MORE_WITH_OUTPUT_MS : 0;
    const detectedWithinMs = DETECTED_WITHIN_MS + moreMs + MACHINE_MS;
    deaths.set(name, { at: requestedAt + DEAD_AFTER_MS, detectedWithinMs });
  }
  const detectedWithinMs = DETECTED_WITHIN_MS + MACHINE_MS;
  for (const { name } of outcome.sessions)
    if (name.includes('/frozen')) deaths.set(name, { at: outcome.frozenAt, detectedWithinMs });
}

const FROZEN = 3;

/** A process that is frozen: the kernel still acknowledges what the server sends. */
async function addFrozen(): Promise<void> {
  const address = await world.address();
  const link = await world.address(FAST);
  const plan = (userId: string, name: string, its: Use, at = address): SessionPlan => ({
    ...its,
    name: `${userId}/${name}`,
    userId,
    url: sessionUrl(at, { userId }),
  });
  world.addFrozen(plan('frozen-limit-1', 'frozen', { role: 'idle' }));
  for (const userId of ['frozen-below-limit-20', 'frozen-at-limit-20']) {
    for (let i = 0; i < FROZEN; i++) world.addFrozen(plan(userId, `frozen-${i}`, { role: 'idle' }));
    for (let i = FROZEN; i < 20; i++)
      world.add(plan(userId, `live-${i}`, { role: i % 2 ? 'idle' : 'chat' }, link));
  }
  // They arrive after the freeze, and find that the frozen sessions miss the probe.
  world.addIncoming({
    firstAfterMs: 30_000,
    everyMs: [3_000, 4_000],
    times: FROZEN,
    plan: plan('frozen-at-limit-20', '', { role: 'chat' }, link),
  });
}

const NEAR_USERS = 35;

/**
 * Users on fast links. Without them more than half of the node's connections miss a probe within one interval, and the
 * node takes that for a fault of its own: it would close nothing in the background, and the run would prove nothing.
 */
async function addNear(): Promise<void> {
  const address = await world.address();
  for (let user = 0; user < NEAR_USERS; user++) {
    const userId = `near-limit-20-${user}`;
    for (let i = 0; i < 20; i++) {
      const role = i % 4 === 0 ? 'chat' : 'idle';
      const opensAfterMs = (user * 20 + i) * 10;
      world.add({ role, name: `${userId}/${i}`, userId, url: sessionUrl(address, { userId }), opensAfterMs });
    }
  }
}

beforeAll(async () => {
  world = await World.start();
  const random = new SeededRandom(SEED);
  users = await addFleet(world, () => random.next());
  await addDead();
  await addFrozen();
  await addNear();
  console.log(`${users.length} users, ${world.size} sessions, ${SECONDS} s, LINK_SEED=${SEED}`);
  outcome = await world.run(SECONDS, { finishWithinMs: FINISH_MS, leastSeconds: LEAST_SECONDS });
  noteDeaths();
  await world.close();
  describeRun();
  demandTimelyRelay();
}, HOOK_MS);
afterAll(() => world?.close());

function describeRun(): void {
  const { sessions, events, relay, clientLags, serverLags, metrics } = outcome;
  const count = (type: string) => events.filter((event) => event.type === type).length;
  const most = (values: readonly number[]) => values.reduce((a, b) => Math.max(a, b), 0);
  const received = sessions.reduce((sum, { bytes }) => sum + bytes, 0);
  const refused = sessions.filter(({ refusal }) => refusal).length;
  const incoming = sessions.filter(({ isIncoming }) => isIncoming).length;
  const admission = most(
    events.filter(({ type }) => type === 'admitted').map(({ durationMs = 0 }) => durationMs),
  );
  console.log(
    [
      `${incoming} incoming connections at the limit, ${refused} told when to return`,
      `${(received / KIB / KIB).toFixed(0)} MiB received, ${sessions.reduce((sum, { downloads }) => sum + downloads, 0)} downloads`,
      `suspected ${count('suspected')}, recovered ${count('recovered')}, evicted ${count('evicted')}, zombies ${count('zombie_detected')}`,
      `slowest admission ${admission.toFixed(0)} ms; late ticks ${metrics.sum('websocket_manager_event_loop_voids_total')}`,
      `server: ${serverLags.length} late timers, at most ${most(serverLags.map(({ from, to }) => to - from))} ms`,
      `relay: ${relay.lags.length} late timers, at most ${most(relay.lags)} ms; clients: ${clientLags.length}, at most ${most(clientLags)} ms`,
    ].join('\n'),
  );
}

/** Links that are slower than they say prove nothing about the server. */
function demandTimelyRelay(): void {
  const lateMs = outcome.relay.lags.reduce((sum, ms) => sum + ms, 0);
  const share = lateMs / (SECONDS * 1_000);
  if (share > MOST_LATE_SHARE) {
    const seconds = (lateMs / 1_000).toFixed(0);
    throw new Error(
      `The machine was too busy for these links: the relay's timers were late for ${seconds} s`,
    );
  }
}

function violationsOf(...userIds: string[]): string[] {
  const below = new Set(users.filter(({ isBelow }) => isBelow).map(({ userId }) => userId));
  const own = new Map([...deaths].filter(([name]) => userIds.includes(name.split('/')[0] ?? '')));
  return violations(outcomeOf(outcome, ...userIds), { below, dead: own });
}

const idsOf = (prefix: string, isBelow: boolean) =>
  users
    .filter((user) => user.userId.startsWith(prefix) && user.isBelow === isBelow)
    .map(({ userId }) => userId);

describe.each(TERRAINS.map(({ name }) => name))('%s, below the limit', (name) => {
  it.each(LIMITS)('of %i: no session is closed, and each message arrives whole', (limit) => {
    const ids = idsOf(`${name}-limit-${limit}-`, true);
    expect(ids.length).toBeGreaterThan(0);
    expect(violationsOf(...ids)).toEqual([]);
  });
});

const AT_LIMIT = TERRAINS.filter(({ neverAtLimit }) => !neverAtLimit).map(({ name }) => name);

describe.each(AT_LIMIT)('%s, at the limit', (name) => {
  it.each(LIMITS)(
    'of %i: an incoming connection costs one session at most, or is told when to return',
    (limit) => {
      const ids = idsOf(`${name}-limit-${limit}-`, false);
      expect(ids).toHaveLength(2);
      const incoming = outcomeOf(outcome, ...ids).sessions.filter(({ isIncoming }) => isIncoming);
      expect(incoming.filter(({ openedAt }) => openedAt).length).toBeGreaterThan(0);
      expect(violationsOf(...ids)).toEqual([]);
    },
  );
});

describe('dead clients', () => {
  it.each(DEAD.map(({ name }) => name))(
    'are detected in time, and live sessions of the same user stay (%s)',
    (name) => {
      const ids = [...new Set(outcome.sessions.map(({ userId }) => userId))].filter((id) =>
        id.startsWith(`dead-${name}-`),
      );
      expect(ids).toHaveLength(4);
      expect(violationsOf(...ids)).toEqual([]);
      expect([...deaths.keys()].filter((key) => key.startsWith(`dead-${name}-`))).toHaveLength(4);
    },
  );

  it.each(['frozen-limit-1', 'frozen-below-limit-20'])(
    'are detected in time when their process is frozen (%s)',
    (id) => {
      expect(violationsOf(id)).toEqual([]);
    },
  );

  it('make room at the limit, before any live session', () => {
    expect(violationsOf('frozen-at-limit-20')).toEqual([]);
    const live = outcomeOf(outcome, 'frozen-at-limit-20').sessions.filter(({ name }) => !deaths.has(name));
    expect(live.filter(({ openedAt }) => openedAt)).toHaveLength(20);
    expect(live.filter(({ closed }) => closed)).toEqual([]);
  });
});

describe('the node', () => {
  it('closes no session of a user on a fast link, at the limit and without incoming connections', () => {
    expect(violationsOf(...Array.from({ length: NEAR_USERS }, (_, user) => `near-limit-20-${user}`))).toEqual(
      [],
    );
  });

  it('counts no lockout, no zombie but the dead clients, and was never in self-preservation', () => {
    expect(metricViolations(outcome)).toEqual([]);
    const { events, metrics } = outcome;
    expect(events.filter(({ type, active }) => type === 'self_preservation' && active)).toEqual([]);
    expect(metrics.sum('websocket_manager_zombies_detected_total')).toBeLessThanOrEqual(deaths.size);
  });
});
