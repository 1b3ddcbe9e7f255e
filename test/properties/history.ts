import fc from 'fast-check';
import { CLEANUP_LEVELS, type CleanupLevel } from '../../src/events/vocabulary.js';
import type { LinkBuffers } from './link.js';
import type { Reads } from './linked-socket.js';
import { anyMoment, anySetting, anySlowSetting, type Moment, oneIn, type Setting } from './setting.js';

/** Who is at the other end; `half`: bytes come back that never make a frame. */
export type Peer = 'answers' | 'silent' | 'closed' | { readonly after: Moment; readonly half?: boolean };
/** Rates in KiB per second, undefined: not limited. The delay is that of one way. */
export interface LinkOfHistory {
  readonly downRate: number | undefined;
  readonly upRate: number | undefined;
  readonly delay: Moment;
  readonly jitterMs: readonly number[];
}

export interface AttachedLink extends LinkOfHistory, LinkBuffers {
  /** Whether the transport can tell how much of a write the kernel has taken. */
  readonly knowsBytesTaken: boolean;
}

export type Hook = 'throws' | 'rejects' | 'hangs' | 'slow';
export type Check = 'alive' | 'dead' | 'throws' | 'hangs' | 'late';

/** `Infinity` is a limit, too. */
export type LimitAnswer = number | 'throws' | 'a promise' | 'a rejection' | 'a word' | 'nothing';

/** Managers, and their sockets, are named by a number: counted through as often as is needed. */
export type Action =
  | {
      readonly do: 'arrive';
      readonly user: number;
      readonly count: number;
      readonly key: number | undefined;
      readonly priority: number;
      readonly peer: Peer;
      readonly hook: Hook | undefined;
      readonly check: Check | undefined;
      /** Attaches its socket; otherwise nobody ever comes for the place. */
      readonly attaches: boolean;
      /** Its handshake takes so long. */
      readonly attachesAfter?: Moment | undefined;
      /** Once refused, it comes back exactly when it was told to. */
      readonly comesBack: boolean;
      /** It is gone again before it was served. */
      readonly goneAfter: Moment | undefined;
      /** When its credentials end. */
      readonly expires?: Moment | undefined;
      /** Its socket has a link; otherwise everything passes at once. */
      readonly link?: AttachedLink | undefined;
    }
  | { readonly do: 'link'; readonly who: number; readonly link: LinkOfHistory }
  | { readonly do: 'cut'; readonly who: number; readonly way: 'down' | 'up' | 'both'; readonly for: Moment }
  | { readonly do: 'read'; readonly who: number; readonly reads: Reads }
  /** So many messages of so many bytes in one turn. */
  | { readonly do: 'download'; readonly who: number; readonly bytes: number; readonly times: number }
  /** A message of the peer, or bytes that make none. */
  | { readonly do: 'upload'; readonly who: number; readonly bytes: number; readonly whole: boolean }
  /** A small message, again and again, and busy meanwhile. */
  | {
      readonly do: 'stream';
      readonly who: number;
      readonly bytes: number;
      readonly every: Moment;
      readonly times: number;
    }
  | { readonly do: 'talk'; readonly who: number; readonly out: boolean }
  | { readonly do: 'trickle'; readonly who: number }
  | { readonly do: 'become'; readonly who: number; readonly peer: Peer }
  | { readonly do: 'all become'; readonly user: number; readonly peer: Peer }
  | { readonly do: 'leave'; readonly who: number }
  | { readonly do: 'all leave'; readonly user: number }
  | { readonly do: 'busy'; readonly who: number; readonly on: boolean }
  | { readonly do: 'pause'; readonly who: number; readonly on: boolean }
  | { readonly do: 'stick'; readonly who: number; readonly on: boolean }
  | { readonly do: 'check'; readonly who: number; readonly check: Check }
  | { readonly do: 'end'; readonly who: number }
  | {
      readonly do: 'clean';
      readonly user: number;
      readonly level: CleanupLevel;
      readonly count: number;
      readonly dryRun: boolean;
    }
  | { readonly do: 'wait'; readonly for: Moment }
  | { readonly do: 'stall'; readonly for: Moment }
  | { readonly do: 'wall'; readonly by: number }
  /** What the function that says a user's limit says from now on. */
  | { readonly do: 'limit'; readonly user: number; readonly becomes: LimitAnswer };

export interface History {
  readonly setting: Setting;
  readonly actions: readonly Action[];
  /** The node begins to drain, and this happens meanwhile; undefined: it never does. */
  readonly whileDraining?: readonly Action[] | undefined;
}

export const USERS = ['alice', 'bob', 'carol'] as const;

const someone = fc.nat({ max: 30 });
const anyUser = fc.constantFrom(0, 0, 0, 0, 1, 1, 2);
const anyPeer: fc.Arbitrary<Peer> = fc.oneof(
  { weight: 6, arbitrary: fc.constant('answers' as const) },
  { weight: 4, arbitrary: fc.constant('silent' as const) },
  { weight: 1, arbitrary: fc.constant('closed' as const) },
  { weight: 3, arbitrary: fc.record({ after: anyMoment, half: fc.boolean() }) },
);
const anyCheck = fc.constantFrom<Check[]>('alive', 'dead', 'throws', 'hangs', 'late');

const KIB = 1_024;
const MIB = KIB * KIB;

const anyRate = fc.constantFrom<(number | undefined)[]>(2, 8, 15, 17, 17, 30, 64, 200, 1_000, undefined);
const seconds = (times: number): Moment => ({ of: 'ms', times: times * 1_000, plus: 0 });
const anyDelay: fc.Arbitrary<Moment> = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(...[0, 0.02, 0.4, 0.8, 1.5, 5, 12, 30].map(seconds)) },
  { weight: 2, arbitrary: anyMoment },
);
const linkOfHistory = {
  downRate: anyRate,
  upRate: anyRate,
  delay: anyDelay,
  jitterMs: fc.oneof(
    fc.constant<number[]>([]),
    fc.array(fc.constantFrom(0, 1, 5, 40, 300, 2_000), { minLength: 1, maxLength: 4 }),
  ),
};
const anyLink: fc.Arbitrary<LinkOfHistory> = fc.record(linkOfHistory);
const anyAttachedLink: fc.Arbitrary<AttachedLink> = fc.record({
  ...linkOfHistory,
  sendBuffer: fc.constantFrom(16 * KIB, 128 * KIB, 600 * KIB, 960 * KIB, 2.5 * MIB, 4 * MIB),
  receiveBuffer: fc.constantFrom(16 * KIB, 64 * KIB, 512 * KIB, 6 * MIB),
  knowsBytesTaken: fc.constantFrom(true, true, true, false),
});
const anyReads = fc.constantFrom<Reads[]>('all', 'all', 'nothing', 'frozen', 4, 16, 20, 100);
const anySpan: fc.Arbitrary<Moment> = fc.oneof(
  fc.constantFrom(...[1, 2, 5, 10, 20, 25, 26, 40, 60, 90].map(seconds)),
  anyMoment,
);

/** What sessions do with their links. */
const anyTraffic: fc.Arbitrary<Action> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant('download' as const),
      who: someone,
      bytes: fc.constantFrom(KIB, 10 * KIB, 64 * KIB, 256 * KIB, 900 * KIB, 2 * MIB, 8 * MIB),
      times: fc.constantFrom(1, 1, 1, 3, 45),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('upload' as const),
      who: someone,
      bytes: fc.constantFrom(1, 100, KIB, 20 * KIB, 300 * KIB),
      whole: fc.boolean(),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('stream' as const),
      who: someone,
      bytes: fc.constantFrom(20, 200, 4 * KIB),
      every: anyMoment,
      times: fc.constantFrom(3, 10, 40),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('link' as const), who: someone, link: anyLink }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('cut' as const),
      who: someone,
      way: fc.constantFrom('down', 'up', 'both', 'both'),
      for: anySpan,
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('read' as const), who: someone, reads: anyReads }) },
);

const arrive: fc.Arbitrary<Extract<Action, { do: 'arrive' }>> = fc.record({
  do: fc.constant('arrive' as const),
  user: anyUser,
  count: fc.constantFrom(1, 1, 1, 1, 2, 3, 7),
  key: oneIn(2, fc.nat({ max: 5 })),
  priority: fc.constantFrom(0, 0, 0, 1, -1),
  peer: anyPeer,
  hook: oneIn(4, fc.constantFrom<Hook[]>('throws', 'rejects', 'hangs', 'slow')),
  check: oneIn(8, anyCheck),
  attaches: fc.constantFrom(true, true, true, true, true, true, false),
  attachesAfter: oneIn(10, anyMoment),
  comesBack: fc.boolean(),
  goneAfter: oneIn(10, anyMoment),
  expires: oneIn(12, anyMoment),
  link: oneIn(4, anyAttachedLink),
});

/** Arrivals and waits are most of it: without them nothing comes to its deadline. */
export const anyAction: fc.Arbitrary<Action> = fc.oneof(
  { weight: 30, arbitrary: arrive },
  { weight: 24, arbitrary: fc.record({ do: fc.constant('wait' as const), for: anyMoment }) },
  { weight: 8, arbitrary: anyTraffic },
  { weight: 6, arbitrary: fc.record({ do: fc.constant('talk' as const), who: someone, out: fc.boolean() }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('trickle' as const), who: someone }) },
  { weight: 7, arbitrary: fc.record({ do: fc.constant('become' as const), who: someone, peer: anyPeer }) },
  {
    weight: 5,
    arbitrary: fc.record({ do: fc.constant('all become' as const), user: anyUser, peer: anyPeer }),
  },
  { weight: 6, arbitrary: fc.record({ do: fc.constant('leave' as const), who: someone }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('all leave' as const), user: anyUser }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('busy' as const), who: someone, on: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('pause' as const), who: someone, on: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('stick' as const), who: someone, on: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('check' as const), who: someone, check: anyCheck }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('end' as const), who: someone }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('clean' as const),
      user: anyUser,
      level: fc.constantFrom(...CLEANUP_LEVELS),
      count: fc.nat({ max: 2 }),
      dryRun: fc.boolean(),
    }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('stall' as const), for: anyMoment }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('wall' as const), by: fc.constantFrom(-3_600_000, 3_600_000) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('limit' as const),
      user: anyUser,
      becomes: fc.oneof(
        { weight: 6, arbitrary: fc.integer({ min: 1, max: 6 }) },
        {
          weight: 1,
          arbitrary: fc.constantFrom<LimitAnswer[]>(0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY),
        },
        {
          weight: 1,
          arbitrary: fc.constantFrom<LimitAnswer[]>(
            'throws',
            'a promise',
            'a rejection',
            'a word',
            'nothing',
          ),
        },
      ),
    }),
  },
);

export const anyHistory: fc.Arbitrary<History> = fc.record({
  setting: anySetting,
  actions: fc.array(anyAction, { maxLength: 60, size: 'max' }),
  whileDraining: oneIn(8, fc.array(anyAction, { maxLength: 8, size: 'max' })),
});

/** Nearly all of them behind links, with peers that are there. */
const arriveSlowly: fc.Arbitrary<Action> = fc
  .record({
    arrival: arrive,
    peer: fc.oneof(
      { weight: 5, arbitrary: fc.constant('answers' as const) },
      { weight: 1, arbitrary: anyPeer },
    ),
    link: fc.option(anyAttachedLink, { nil: undefined, freq: 8 }),
    count: fc.constantFrom(1, 1, 2, 4),
  })
  .map(({ arrival, ...differences }) => ({
    ...arrival,
    ...differences,
    user: arrival.user === 2 ? 1 : 0,
    check: undefined,
    attaches: true,
    attachesAfter: undefined,
    expires: undefined,
  }));

const anySlowAction: fc.Arbitrary<Action> = fc.oneof(
  { weight: 14, arbitrary: arriveSlowly },
  { weight: 18, arbitrary: anyTraffic },
  { weight: 18, arbitrary: fc.record({ do: fc.constant('wait' as const), for: anySpan }) },
  { weight: 8, arbitrary: anyAction.filter((action) => action.do !== 'arrive') },
);

/** Sessions behind slow links for minutes, with intervals and limits as applications have them. */
export const anySlowHistory: fc.Arbitrary<History> = fc.record({
  setting: anySlowSetting,
  actions: fc.array(anySlowAction, { maxLength: 40, size: 'max' }),
});

/** As it can be read, one action a line. */
export function told({ setting, actions, whileDraining }: History): string {
  const drain = whileDraining ? ['  drain:', ...whileDraining.map(actionTold)] : [];
  return [JSON.stringify(setting), ...actions.map(actionTold), ...drain].join('\n');
}

function actionTold({ do: what, ...rest }: Action): string {
  const details = Object.entries(rest)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => `${key} ${shown(key, value)}`);
  return `  ${what}: ${details.join(', ')}`;
}

function shown(key: string, value: unknown): string {
  if (key === 'user') return USERS[value as number] ?? String(value);
  if (isMoment(value)) return momentShown(value);
  if (key === 'link') {
    const parts = Object.entries(value as LinkOfHistory);
    return `{${parts.map(([name, part]) => `${name} ${shown(name, part)}`).join(', ')}}`;
  }
  if (typeof value === 'object' && value !== null && 'after' in value) {
    const { after, half } = value as Exclude<Peer, string>;
    return `${half ? 'half-answers' : 'answers'} after ${momentShown(after)}`;
  }
  return String(value);
}

function momentShown({ of, times, plus }: Moment): string {
  const sign = plus < 0 ? '-' : '+';
  return `${times}${of === 'ms' ? ' ms' : ` x ${of}`}${plus === 0 ? '' : ` ${sign} ${Math.abs(plus)} ms`}`;
}

function isMoment(value: unknown): value is Moment {
  return typeof value === 'object' && value !== null && 'times' in value;
}

/** What is left when everything that it does not need to fail is taken out. */
export async function shortened(
  history: History,
  complaintOf: (history: History) => Promise<string | undefined>,
  withinMs: number,
): Promise<History> {
  const until = performance.now() + withinMs;
  const { whileDraining, ...withoutDrain } = history;
  let shortest: History = (await complaintOf(withoutDrain)) ? withoutDrain : history;
  for (const part of ['actions', 'whileDraining'] as const) {
    for (let size = 16; size >= 1; size = Math.floor(size / 2)) {
      const { length } = shortest[part] ?? [];
      for (let from = length - 1; from >= 0 && performance.now() < until; from -= size) {
        const rest = shortest[part]?.filter((_, i) => i > from || i <= from - size);
        const shorter = { ...shortest, [part]: rest };
        if (await complaintOf(shorter)) shortest = shorter;
      }
    }
  }
  return shortest;
}
