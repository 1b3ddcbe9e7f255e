import type { IncomingPlan, SessionPlan, Use } from './clients.js';
import { DOWNLOADER, lossDown, PHONE, SATELLITE, stallUp, TRICKLE, TWO_G, tunnel } from './links.js';
import type { Link } from './relay.js';
import { sessionUrl, type World } from './world.js';

const KIB = 1_024;
const MIB = KIB * KIB;
export const LIMITS = [1, 2, 3, 20] as const;
/** How many sessions a user with a limit of 20 has below the limit: from the aggressive threshold up to all. */
const BELOW_TWENTY = { keys: [14], 'no-keys': [16] } as const;
/** The sessions of a user open within this time. */
const OPEN_WITHIN_MS = 8_000;
/** Their uses begin so long after it at most: a thousand downloads at once would only measure the machine. */
const START_WITHIN_MS = 10_000;
/** The first stall begins after all of a user's sessions are open. */
const FIRST_STALL_MS = 15_000;

/** A link, and what sessions do over it. */
export interface Terrain {
  readonly name: string;
  /** Drawn for each user, so that not all of them stall at once. */
  link(offsetMs: number): Link;
  /** In turn, one for each session of a user. */
  readonly uses: readonly Use[];
  readonly answersPingsAfterMs?: number;
  /** A client whose handshake is lost for a minute cannot answer anything. */
  readonly neverAtLimit?: boolean;
}

/** Two thousand sessions share the machine. */
const NOW_AND_THEN = [10_000, 40_000] as const;
const IDLE: Use = { role: 'idle' };
const CHAT: Use = { role: 'chat' };

/** Chats often enough to be heard once within each interval, whatever happens to the pings. */
const CHATTY: Use = { role: 'chat', everyMs: [2_000, 8_000] };

export const TERRAINS: readonly Terrain[] = [
  {
    name: '2g',
    link: () => TWO_G,
    uses: [
      { role: 'download', bytes: 256 * KIB },
      IDLE,
      CHAT,
      { role: 'upload', bytes: 256 * KIB },
      { role: 'push', bytes: 4 * KIB, pushEveryMs: 500 },
    ],
  },
  {
    name: '2g-shared',
    // One phone: all of the user's sessions share what it has.
    link: () => ({ ...TWO_G, shared: true }),
    uses: [IDLE, CHAT, { role: 'download', bytes: 64 * KIB }, IDLE, IDLE, CHAT],
  },
  {
    name: 'satellite',
    link: () => SATELLITE,
    uses: [
      { role: 'download', bytes: MIB, pieces: 64, everyMs: NOW_AND_THEN },
      IDLE,
      CHAT,
      { role: 'upload', bytes: 512 * KIB, everyMs: NOW_AND_THEN },
      { role: 'push', bytes: 2 * KIB, pushEveryMs: 300 },
    ],
  },
  {
    name: 'tunnel',
    link: tunnel,
    uses: [
      IDLE,
      { role: 'download', bytes: 512 * KIB, everyMs: NOW_AND_THEN },
      CHAT,
      { role: 'upload', bytes: 256 * KIB, everyMs: NOW_AND_THEN },
      { role: 'push', bytes: KIB, pushEveryMs: 250 },
    ],
  },
  {
    name: 'full-buffer',
    link: () => DOWNLOADER,
    uses: [
      { role: 'download', bytes: 768 * KIB, everyMs: NOW_AND_THEN },
      IDLE,
      { role: 'download', bytes: MIB, everyMs: NOW_AND_THEN },
      CHAT,
      { role: 'download', bytes: 960 * KIB, pieces: 96, everyMs: NOW_AND_THEN },
      IDLE,
      CHAT,
    ],
  },
  {
    name: 'trickle',
    link: () => TRICKLE,
    uses: [
      { role: 'download', bytes: 960 * KIB },
      { role: 'download', bytes: 512 * KIB, pieces: 128 },
      IDLE,
      CHAT,
      { role: 'push', bytes: 12 * KIB, pushEveryMs: 1_000 },
    ],
  },
  {
    name: 'phone',
    link: () => PHONE,
    answersPingsAfterMs: 2_500,
    uses: [
      IDLE,
      { role: 'download', bytes: 256 * KIB, everyMs: NOW_AND_THEN },
      { role: 'chat', everyMs: [20_000, 40_000] },
      { role: 'upload', bytes: 256 * KIB, everyMs: NOW_AND_THEN },
      { role: 'push', bytes: KIB, pushEveryMs: 500 },
    ],
  },
  {
    name: 'loss-down',
    link: lossDown,
    uses: [CHATTY, { role: 'pingOnly', everyMs: [4_000, 10_000] }],
    neverAtLimit: true,
  },
  {
    name: 'stall-up',
    link: stallUp,
    uses: [
      IDLE,
      { role: 'push', bytes: 8 * KIB, pushEveryMs: 1_000 },
      { role: 'download', bytes: 512 * KIB, everyMs: NOW_AND_THEN },
      CHAT,
    ],
  },
];

export interface FleetUser {
  readonly userId: string;
  readonly isBelow: boolean;
}

/** Adds each combination of link, limit and session keys, below the limit and at it; each is one user. */
export async function addFleet(world: World, random: () => number): Promise<FleetUser[]> {
  const users: FleetUser[] = [];
  for (const terrain of TERRAINS) {
    for (const limit of LIMITS) {
      for (const keyed of [true, false]) {
        const keys = keyed ? 'keys' : 'no-keys';
        const sizes = limit === 20 ? BELOW_TWENTY[keys] : terrain.uses.map(() => limit);
        for (const [rotation, size] of sizes.entries()) {
          // Of the further small users half have keys, so that the machine keeps up.
          if (limit < 20 && rotation % 2 === (keyed ? 1 : 0) && rotation > 1) continue;
          const userId = `${terrain.name}-limit-${limit}-${keys}-below-${rotation}`;
          await addUser(world, { userId, terrain, size, keyed, rotation, random });
          users.push({ userId, isBelow: true });
        }
        if (terrain.neverAtLimit) continue;
        const userId = `${terrain.name}-limit-${limit}-${keys}-at`;
        await addUser(world, { userId, terrain, size: limit, keyed, rotation: 0, random, isAtLimit: true });
        users.push({ userId, isBelow: false });
      }
    }
  }
  return users;
}

interface UserPlan {
  readonly userId: string;
  readonly terrain: Terrain;
  readonly size: number;
  readonly keyed: boolean;
  /** Which use is the first session's: with a limit of 1, each has its turn. */
  readonly rotation: number;
  readonly random: () => number;
  readonly isAtLimit?: boolean;
}

async function addUser(world: World, { userId, terrain, size, keyed, rotation, random, ...rest }: UserPlan) {
  const address = await world.address(terrain.link(Math.round(FIRST_STALL_MS + random() * 25_000)));
  const { uses, answersPingsAfterMs } = terrain;
  const plan = (name: string, use: Use, key?: string): SessionPlan => ({
    ...use,
    name: `${userId}/${name}`,
    userId,
    url: sessionUrl(address, { userId, ...(key ? { sessionKey: key } : {}) }),
    ...(answersPingsAfterMs ? { answersPingsAfterMs } : {}),
  });
  for (let i = 0; i < size; i++) {
    const use = uses[(i + rotation) % uses.length] as Use;
    const opensAfterMs = Math.round(random() * OPEN_WITHIN_MS);
    const startAfterMs = Math.round(random() * START_WITHIN_MS);
    world.add({
      ...plan(`${i}-${use.role}`, use, keyed ? `tab-${i}` : undefined),
      opensAfterMs,
      startAfterMs,
    });
  }
  if (!rest.isAtLimit) return;
  // Every few seconds the budget is spent and the grace period protects, so that some are told to return.
  const everyMs = random() < 0.5 ? ([2_000, 5_000] as const) : ([12_000, 25_000] as const);
  const use = uses[Math.floor(random() * uses.length)] as Use;
  const incoming: IncomingPlan = {
    everyMs,
    firstAfterMs: OPEN_WITHIN_MS + 3_000 + random() * 8_000,
    plan: { ...plan('', use), name: userId, keyed },
  };
  world.addIncoming(incoming);
}
