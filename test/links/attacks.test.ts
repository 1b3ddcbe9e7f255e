import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { SessionPlan, Use } from './clients.js';
import { metricViolations, outcomeOf, violations } from './judge.js';
import { DOWNLOADER, FAST, readerOf, TRICKLE, TWO_G, tunnel } from './links.js';
import type { Link } from './relay.js';
import { type Outcome, sessionUrl, World, type WorldOptions } from './world.js';

// Uses that are hard to tell from a dead client, all of them within promise 3 of SPEC section 6.

const KIB = 1_024;
const MIB = KIB * KIB;
const SECONDS = 130;
const FINISH_MS = 120_000;
const HOOK_MS = SECONDS * 1_000 + FINISH_MS + 60_000;
const LEAST_KEY_BITS = 2_048;

interface Attack {
  readonly name: string;
  readonly use: Use & Partial<SessionPlan>;
  /** Default: directly. */
  readonly link?: Link;
  /** Default: 1. */
  readonly sessions?: number;
  /** Default: as many as there are sessions. */
  readonly limit?: number;
  /** Downloads that each session has received at the end, at least. */
  readonly downloads?: number;
}

const fourteen = { sessions: 14, limit: 20 };

const DEFAULTS: readonly Attack[] = [
  {
    // The last byte from the client comes early, and most of the download is read after it.
    name: 'says something at the beginning of a long download and then nothing',
    use: { role: 'download', bytes: 960 * KIB, saysAfterMs: 1_000 },
    link: TRICKLE,
    downloads: 2,
  },
  {
    name: 'reads 960 KiB at 16 KiB/s again and again, without a pause',
    use: { role: 'download', bytes: 960 * KIB, pieces: 60, everyMs: [0, 50] },
    link: TRICKLE,
    downloads: 2,
  },
  {
    name: 'reads a message of 3 MiB at 64 KiB/s, which the kernel holds',
    use: { role: 'download', bytes: 3 * MIB },
    link: readerOf(64 * KIB),
    downloads: 2,
  },
  {
    name: 'reads a message of 3 MiB at 80 KiB/s',
    use: { role: 'download', bytes: 3 * MIB },
    link: readerOf(80 * KIB),
    downloads: 1,
  },
  {
    name: 'reads a message of 3 MiB at 128 KiB/s',
    use: { role: 'download', bytes: 3 * MIB },
    link: readerOf(128 * KIB),
    downloads: 1,
  },
  {
    name: 'reads 3 MiB in 1,024 messages of one turn at 100 KiB/s',
    use: { role: 'download', bytes: 3 * MIB, pieces: 1_024 },
    link: readerOf(100 * KIB),
    downloads: 2,
  },
  {
    name: 'reads a message of 15 MiB as fast as it can',
    use: { role: 'download', bytes: 15 * MIB, everyMs: [5_000, 10_000] },
    downloads: 5,
  },
  {
    name: 'stops reading for 20 s, again and again, while it receives 8 KiB/s',
    use: {
      role: 'push',
      bytes: 2 * KIB,
      pushEveryMs: 250,
      pausesReading: { everyMs: 26_000, forMs: 20_000 },
    },
    link: DOWNLOADER,
  },
  {
    name: 'stops reading for 20 s in the middle of each download',
    use: { role: 'download', bytes: 900 * KIB, pausesReading: { everyMs: 22_000, forMs: 20_000 } },
    link: DOWNLOADER,
    downloads: 2,
  },
  {
    name: 'sends pings and answers none',
    use: { role: 'pingOnly', everyMs: [9_000, 12_000], answersPingsAfterMs: 1_000_000 },
  },
  {
    name: 'uploads 900 KiB at 30 KiB/s, again and again',
    use: { role: 'upload', bytes: 900 * KIB, everyMs: [0, 100] },
    link: TWO_G,
  },
  {
    name: 'uploads 900 KiB through a tunnel',
    use: { role: 'upload', bytes: 900 * KIB, everyMs: [0, 100] },
    link: tunnel(3_000),
  },
  {
    name: 'receives 28 KiB/s over a link of 30 KiB/s',
    use: { role: 'push', bytes: 7 * KIB, pushEveryMs: 250 },
    link: TWO_G,
  },
  { name: 'answers each ping after 25.5 s', use: { role: 'idle', answersPingsAfterMs: 25_500 } },
  {
    name: 'answers each ping after 25.5 s (14 of 20)',
    use: { role: 'idle', answersPingsAfterMs: 25_500 },
    ...fourteen,
  },
  {
    name: 'downloads 640 KiB at 16 KiB/s and answers pings after 20 s',
    use: { role: 'download', bytes: 640 * KIB, answersPingsAfterMs: 20_000 },
    link: TRICKLE,
    downloads: 2,
  },
  {
    name: 'downloads 960 KiB at 16 KiB/s and answers pings after 25 s',
    use: { role: 'download', bytes: 960 * KIB, answersPingsAfterMs: 25_000 },
    link: TRICKLE,
    downloads: 2,
  },
  {
    name: 'downloads 960 KiB at 16 KiB/s through a tunnel of 25 s',
    use: { role: 'download', bytes: 960 * KIB, everyMs: [0, 50] },
    link: { ...TRICKLE, stalls: [{ direction: 'both', everyMs: 85_000, forMs: 25_000, offsetMs: 30_000 }] },
    downloads: 1,
  },
  {
    name: 'downloads 200 KiB at 16 KiB/s, asked for just before a tunnel of 25 s',
    use: { role: 'download', bytes: 200 * KIB, everyMs: [0, 50] },
    link: { ...TRICKLE, stalls: [{ direction: 'both', everyMs: 40_000, forMs: 25_000, offsetMs: 1_000 }] },
    downloads: 2,
  },
];

const COMPRESSED: readonly Attack[] = [
  {
    name: 'reads 640 KiB that do not compress, compressed, at 16 KiB/s',
    use: { role: 'download', bytes: 640 * KIB, random: true, deflate: true },
    link: TRICKLE,
    downloads: 2,
  },
  {
    name: 'reads 640 KiB in 64 compressed messages at 16 KiB/s',
    use: { role: 'download', bytes: 640 * KIB, pieces: 64, random: true, deflate: true },
    link: TRICKLE,
    downloads: 2,
  },
  {
    name: 'reads 4 MiB that compress to nothing',
    use: { role: 'download', bytes: 4 * MIB, deflate: true, everyMs: [2_000, 4_000] },
    link: FAST,
    downloads: 5,
  },
  {
    name: 'reads 450 compressed messages of 10 KiB of one turn',
    use: {
      role: 'download',
      bytes: 4_500 * KIB,
      pieces: 450,
      random: true,
      deflate: true,
      everyMs: [2_000, 4_000],
    },
    downloads: 5,
  },
];

const TLS: readonly Attack[] = [
  {
    name: 'reads 960 KiB over TLS at 16 KiB/s',
    use: { role: 'download', bytes: 960 * KIB, saysAfterMs: 1_000, rejectUnauthorized: false },
    link: TRICKLE,
    downloads: 2,
  },
  {
    name: 'reads 1 MiB over TLS at 200 KiB/s',
    use: { role: 'download', bytes: MIB, rejectUnauthorized: false },
    link: DOWNLOADER,
    downloads: 5,
  },
  {
    name: 'chats over TLS in a tunnel',
    use: { role: 'chat', rejectUnauthorized: false },
    link: tunnel(2_000),
  },
];

/** Within `missedBeforeZombie` x `intervalMs` less a quarter: 1.75 s. */
const FAST_HEARTBEAT: readonly Attack[] = [
  { name: 'answers each ping after 1.6 s', use: { role: 'idle', answersPingsAfterMs: 1_600 } },
  {
    name: 'answers each ping after 1.6 s (14 of 20)',
    use: { role: 'idle', answersPingsAfterMs: 1_600 },
    ...fourteen,
  },
  {
    name: 'reads 960 KiB at 16 KiB/s, with a ping each second',
    use: { role: 'download', bytes: 960 * KIB, saysAfterMs: 1_000 },
    link: TRICKLE,
    downloads: 1,
  },
];

interface Run {
  readonly name: string;
  readonly attacks: readonly Attack[];
  readonly options: WorldOptions;
  readonly isTls?: boolean;
}

const RUNS: readonly Run[] = [
  { name: 'the defaults', attacks: DEFAULTS, options: {} },
  {
    name: 'perMessageDeflate',
    attacks: COMPRESSED,
    options: { env: { LINKS_WS_OPTIONS: JSON.stringify({ perMessageDeflate: true }) } },
  },
  { name: 'a TLS terminator', attacks: TLS, options: {}, isTls: true },
  {
    name: 'a heartbeat of one second',
    attacks: FAST_HEARTBEAT,
    options: { env: { LINKS_OPTIONS: JSON.stringify({ heartbeat: { intervalMs: 1_000 } }) } },
  },
];

/** A key and a certificate for this run. */
function selfSigned(): { key: string; cert: string } {
  const directory = mkdtempSync(join(tmpdir(), 'links-'));
  try {
    const [key, cert] = [join(directory, 'key.pem'), join(directory, 'cert.pem')];
    const request = [
      'req',
      '-x509',
      '-newkey',
      `rsa:${LEAST_KEY_BITS}`,
      '-nodes',
      '-days',
      '2',
      '-subj',
      '/CN=localhost',
    ];
    execFileSync('openssl', [...request, '-keyout', key, '-out', cert], { stdio: 'pipe' });
    return { key: readFileSync(key, 'utf8'), cert: readFileSync(cert, 'utf8') };
  } finally {
    rmSync(directory, { recursive: true });
  }
}

const worlds: World[] = [];
const outcomes = new Map<string, Outcome>();

const userIdOf = ({ name, sessions = 1, limit = sessions }: Attack) =>
  `${name.replaceAll(/[^\w]+/g, '-')}-limit-${limit}`;

async function prepare({ attacks, options, isTls }: Run): Promise<void> {
  const world = await World.start(options);
  worlds.push(world);
  const tls = isTls ? { tls: selfSigned() } : {};
  for (const attack of attacks) {
    const { link, use, sessions = 1 } = attack;
    const userId = userIdOf(attack);
    const address = await world.address(link && { ...link, ...tls }, isTls ? 'wss' : 'ws');
    for (let i = 0; i < sessions; i++)
      world.add({
        ...use,
        name: `${userId}/${i}`,
        userId,
        url: sessionUrl(address, { userId }),
      } as SessionPlan);
  }
}

beforeAll(async () => {
  for (const run of RUNS) await prepare(run);
  await Promise.all(
    RUNS.map(async ({ name }, i) => {
      outcomes.set(name, await (worlds[i] as World).run(SECONDS, { finishWithinMs: FINISH_MS }));
    }),
  );
}, HOOK_MS);
afterAll(() => Promise.all(worlds.map((world) => world.close())));

describe.each(RUNS)('with $name, a client', ({ name: run, attacks }) => {
  it.each(attacks)('that $name is never closed', (attack) => {
    const userId = userIdOf(attack);
    const outcome = outcomeOf(outcomes.get(run) as Outcome, userId);
    expect(outcome.sessions).toHaveLength(attack.sessions ?? 1);
    expect(violations(outcome, { below: new Set([userId]) })).toEqual([]);
    for (const { downloads } of outcome.sessions)
      expect(downloads).toBeGreaterThanOrEqual(attack.downloads ?? 0);
  });

  it('counts as no zombie', () => {
    const outcome = outcomes.get(run) as Outcome;
    expect(metricViolations(outcome)).toEqual([]);
    expect(outcome.metrics.sum('websocket_manager_zombies_detected_total')).toBe(0);
  });
});
