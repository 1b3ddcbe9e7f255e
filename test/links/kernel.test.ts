import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sleep } from '../support/stranger.js';
import type { Use } from './clients.js';
import { metricViolations, outcomeOf, violations } from './judge.js';
import { KernelLink, whyNoKernelLinks } from './kernel-link.js';
import { type Outcome, sessionUrl, World } from './world.js';

// The most important links once more, made by the kernel: real TCP on both sides, with dropped packets,
// retransmissions, their back-off, and send buffers that the kernel sizes by itself.

const KIB = 1_024;
const SECONDS = 110;
const FINISH_MS = 90_000;
const HOOK_MS = SECONDS * 1_000 + FINISH_MS + 60_000;
/** Up again before the last retransmission that comes within promise 3. */
const TUNNEL_MS = 25_000;
const TUNNELS_AT_MS = [15_000, 55_000];

const why = whyNoKernelLinks();
if (why !== undefined) console.warn(`The links of the kernel are not tested: ${why}`);

interface Case {
  readonly name: string;
  readonly kibPerSecond: number;
  readonly delayMs: number;
  readonly hasTunnels: boolean;
  readonly uses: readonly Use[];
}

const CASES: readonly Case[] = [
  {
    name: '2G',
    kibPerSecond: 30,
    delayMs: 400,
    hasTunnels: false,
    uses: [
      { role: 'download', bytes: 96 * KIB, everyMs: [5_000, 10_000] },
      { role: 'idle' },
      { role: 'chat' },
    ],
  },
  {
    name: 'a tunnel of 25 s',
    kibPerSecond: 1_024,
    delayMs: 40,
    hasTunnels: true,
    uses: [{ role: 'idle' }, { role: 'chat' }, { role: 'push', bytes: KIB, pushEveryMs: 1_000 }],
  },
  {
    name: 'downloads through a full buffer',
    kibPerSecond: 200,
    delayMs: 10,
    hasTunnels: false,
    uses: [{ role: 'download', bytes: 768 * KIB, everyMs: [500, 3_000] }, { role: 'idle' }, { role: 'chat' }],
  },
];

/** One link for each limit: its sessions share it. */
const LIMITS = [
  { limit: 1, sessions: 1 },
  { limit: 20, sessions: 14 },
] as const;

describe.runIf(why === undefined)('links of the kernel', () => {
  const links: KernelLink[] = [];
  const worlds: World[] = [];
  const outcomes = new Map<string, Outcome>();

  const userIdOf = ({ name }: Case, limit: number) => `${name.replaceAll(' ', '-')}-limit-${limit}`;

  interface Run {
    readonly userId: string;
    readonly hasTunnels: boolean;
    readonly link: KernelLink;
    readonly world: World;
  }

  async function prepare(each: Case, limit: number, sessions: number): Promise<Run> {
    const link = KernelLink.make(each);
    links.push(link);
    const world = await World.start({ env: { HOST: '0.0.0.0' }, clients: link.clients });
    worlds.push(world);
    const userId = userIdOf(each, limit);
    const { port } = new URL(world.server.url);
    const url = sessionUrl(`ws://${link.address}:${port}/ws`, { userId });
    for (let i = 0; i < sessions; i++) {
      const use = each.uses[i % each.uses.length] as Use;
      world.add({ ...use, name: `${userId}/${i}-${use.role}`, userId, url });
    }
    return { userId, hasTunnels: each.hasTunnels, link, world };
  }

  async function play({ userId, hasTunnels, link, world }: Run): Promise<void> {
    const running = world.run(SECONDS, { finishWithinMs: FINISH_MS });
    if (hasTunnels) await passTunnels(link);
    outcomes.set(userId, await running);
  }

  async function passTunnels(link: KernelLink): Promise<void> {
    const startedAt = Date.now();
    for (const at of TUNNELS_AT_MS) {
      await sleep(startedAt + at - Date.now());
      link.down();
      await sleep(TUNNEL_MS);
      link.up();
    }
  }

  beforeAll(async () => {
    const runs: Run[] = [];
    for (const each of CASES) {
      for (const { limit, sessions } of LIMITS) runs.push(await prepare(each, limit, sessions));
    }
    await Promise.all(runs.map(play));
    console.log(`links of the kernel: ${links[0]?.kind}`);
  }, HOOK_MS);
  afterAll(async () => {
    await Promise.all(worlds.map((world) => world.close()));
    await Promise.all(links.map((link) => link.close()));
  });

  describe.each(CASES)('$name', (each) => {
    it.each(LIMITS)('closes no session ($sessions at a limit of $limit)', ({ limit, sessions }) => {
      const userId = userIdOf(each, limit);
      const outcome = outcomes.get(userId) as Outcome;
      expect(outcomeOf(outcome, userId).sessions).toHaveLength(sessions);
      expect(violations(outcome, { below: new Set([userId]) })).toEqual([]);
      expect(metricViolations(outcome)).toEqual([]);
      expect(outcome.metrics.sum('websocket_manager_zombies_detected_total')).toBe(0);
    });
  });
});
