import fc from 'fast-check';
import type { SlotStore } from '../../src/options/slot-store.interface.js';
import type { ManagersPerUser } from '../../src/options/websocket-manager-options.interface.js';
import type { CoreOptions } from '../support/core.js';

/** The options of one history, flat. Durations in milliseconds. */
export interface Setting {
  readonly limit: number;
  readonly connections: number;
  /** `maxBufferedBytes`. */
  readonly buffered: number;
  readonly perNode: number | undefined;
  readonly interval: number;
  readonly missed: number;
  readonly probe: number;
  readonly sweep: number;
  readonly idle: number;
  readonly idleTimeout: number | undefined;
  readonly grace: number;
  readonly hook: number;
  readonly burst: number;
  readonly refill: number;
  readonly window: number;
  readonly queue: number;
  readonly thresholds: readonly [number, number, number];
  readonly failures: number;
  readonly reset: number;
  readonly successes: number;
  /** The limit is a function of who is connecting, and changes, and fails. */
  readonly tiers: boolean;
  readonly drainTimeout: number;
  readonly drainSpread: number;
  /** No action waits for longer: a tick costs a history as much as any. */
  readonly longestWait: number;
}

export const DEFAULTS: Setting = {
  limit: 20,
  connections: 5,
  buffered: 1_048_576,
  perNode: undefined,
  interval: 15_000,
  missed: 2,
  probe: 1_000,
  sweep: 30_000,
  idle: 300_000,
  idleTimeout: undefined,
  grace: 5_000,
  hook: 2_000,
  burst: 5,
  refill: 10_000,
  window: 30_000,
  queue: 0,
  thresholds: [0.6, 0.65, 0.7],
  failures: 5,
  reset: 30_000,
  successes: 3,
  tiers: false,
  drainTimeout: 10_000,
  drainSpread: 3_000,
  longestWait: 75_000,
};

export function optionsOf(
  setting: Setting,
  store: SlotStore,
  managersPerUser: ManagersPerUser = setting.limit,
): CoreOptions {
  const [proactiveThreshold, moderateThreshold, aggressiveThreshold] = setting.thresholds;
  return {
    store,
    limits: {
      managersPerUser,
      connectionsPerManager: setting.connections,
      maxBufferedBytes: setting.buffered,
      ...(setting.perNode === undefined ? {} : { managersPerNode: setting.perNode }),
    },
    heartbeat: {
      intervalMs: setting.interval,
      missedBeforeZombie: setting.missed,
      probeTimeoutMs: setting.probe,
    },
    cleanup: {
      proactiveThreshold,
      moderateThreshold,
      aggressiveThreshold,
      intervalMs: setting.sweep,
      idleAfterMs: setting.idle,
      graceMs: setting.grace,
      hookTimeoutMs: setting.hook,
      forcedEvictionBurst: setting.burst,
      forcedEvictionRefillMs: setting.refill,
      ...(setting.idleTimeout === undefined ? {} : { idleTimeoutMs: setting.idleTimeout }),
    },
    session: { resumeWindowMs: setting.window },
    circuitBreaker: {
      failureThreshold: setting.failures,
      resetTimeoutMs: setting.reset,
      successThreshold: setting.successes,
    },
    admission: { queueTimeoutMs: setting.queue },
    drain: { timeoutMs: setting.drainTimeout, spreadMs: setting.drainSpread },
  };
}

/** Mostly not there at all. */
export function oneIn<T>(times: number, arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> {
  return fc.oneof({ weight: times - 1, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary });
}

const KIB = 1_024;

/** Limits are mostly small, so that a short history comes to them; sizes have a test of their own. */
const limit = fc.oneof(
  { weight: 8, arbitrary: fc.integer({ min: 1, max: 5 }) },
  { weight: 2, arbitrary: fc.integer({ min: 6, max: 20 }) },
);

/** A beat of 400 ms has 16 ticks, one of 15 s has 128, and the ticks are what a history costs. */
const interval = fc.oneof(
  { weight: 14, arbitrary: fc.constant(400) },
  { weight: 4, arbitrary: fc.constant(1_000) },
  { weight: 1, arbitrary: fc.constant(3_300) },
  { weight: 1, arbitrary: fc.constant(15_000) },
);

/** Durations are shares of the heartbeat, so that no history needs many beats to come to all of them. */
const scaled = fc
  .record({
    limit,
    connections: fc.integer({ min: 1, max: 3 }),
    buffered: fc.constantFrom(16 * KIB, 256 * KIB, DEFAULTS.buffered, DEFAULTS.buffered),
    perNode: oneIn(12, fc.integer({ min: 2, max: 8 })),
    interval,
    missed: fc.integer({ min: 1, max: 3 }),
    probe: fc.constantFrom(50, 200, 1_000),
    sweep: fc.constantFrom(0.5, 2, 5),
    idle: fc.constantFrom(0.25, 2, 20),
    idleTimeout: oneIn(6, fc.constantFrom(0.5, 4)),
    grace: fc.constantFrom(0, 0.1, 0.5, 2),
    hook: fc.constantFrom(0.1, 0.5, 2),
    burst: fc.integer({ min: 1, max: 5 }),
    refill: fc.constantFrom(0.1, 1, 3),
    window: fc.constantFrom(0, 0.5, 2, 4),
    queue: fc.constantFrom(0, 0, 0, 0.3, 2),
    thresholds: fc.constantFrom<Setting['thresholds']>(
      DEFAULTS.thresholds,
      [0.2, 0.2, 0.2],
      [0.3, 0.5, 1],
      [1, 1, 1],
    ),
    failures: fc.integer({ min: 1, max: 5 }),
    reset: fc.constantFrom(0.5, 2, 6),
    successes: fc.integer({ min: 1, max: 3 }),
    tiers: oneIn(5, fc.constant(true)),
    drainTimeout: fc.constantFrom(0.5, 2, 5),
    drainSpread: fc.constantFrom(0, 0.1, 0.5),
  })
  .map((shares): Setting => {
    const of = (share: number, least = 1) => Math.max(least, Math.round(share * shares.interval));
    return {
      ...shares,
      sweep: of(shares.sweep, 10),
      idle: of(shares.idle),
      idleTimeout: shares.idleTimeout === undefined ? undefined : of(shares.idleTimeout),
      grace: of(shares.grace, 0),
      hook: of(shares.hook),
      refill: of(shares.refill),
      window: of(shares.window, 0),
      queue: of(shares.queue, 0),
      reset: of(shares.reset),
      tiers: shares.tiers === true,
      drainTimeout: of(shares.drainTimeout),
      drainSpread: of(shares.drainSpread, 0),
      longestWait: 5 * shares.interval,
    };
  });

/** The defaults, or nearly: on a slow link it is seconds that matter. */
export const anySlowSetting: fc.Arbitrary<Setting> = fc
  .record({
    limit: fc.constantFrom(1, 1, 2, 3, 4, 5, 20),
    connections: fc.constantFrom(5, 1),
    buffered: fc.constantFrom(DEFAULTS.buffered, DEFAULTS.buffered, 64 * KIB),
    interval: fc.constantFrom(15_000, 15_000, 15_000, 5_000, 1_000),
    missed: fc.constantFrom(2, 2, 2, 1, 3),
    grace: fc.constantFrom(5_000, 0),
    burst: fc.constantFrom(5, 1),
    refill: fc.constantFrom(10_000, 1_000),
    window: fc.constantFrom(30_000, 0),
    queue: fc.constantFrom(0, 0, 0, 3_000),
    sweep: fc.constantFrom(30_000, 5_000),
    idle: fc.constantFrom(300_000, 20_000),
  })
  .map((differences): Setting => ({ ...DEFAULTS, ...differences }));

export const anySetting: fc.Arbitrary<Setting> = fc.oneof(
  { weight: 29, arbitrary: scaled },
  { weight: 1, arbitrary: limit.map((most): Setting => ({ ...DEFAULTS, limit: most })) },
);

/** A span of time told by what it is measured against, so that it falls on the deadlines and just beside them. */
export interface Moment {
  readonly of:
    | 'ms'
    | 'probe'
    | 'interval'
    | 'grace'
    | 'refill'
    | 'window'
    | 'idle'
    | 'hook'
    | 'sweep'
    | 'reset';
  readonly times: number;
  readonly plus: number;
}

export function msOf({ of, times, plus }: Moment, setting: Setting): number {
  return Math.max(0, Math.round(times * (of === 'ms' ? 1 : setting[of])) + plus);
}

export const anyMoment: fc.Arbitrary<Moment> = fc.oneof(
  fc.record({
    of: fc.constant('ms' as const),
    times: fc.integer({ min: 1, max: 300 }),
    plus: fc.constant(0),
  }),
  fc.record({
    of: fc.constantFrom<Moment['of'][]>(
      'probe',
      'interval',
      'grace',
      'refill',
      'window',
      'idle',
      'hook',
      'sweep',
      'reset',
    ),
    times: fc.constantFrom(1, 1, 0.25, 0.5, 0.75, 2),
    plus: fc.constantFrom(0, -1, 1, 2),
  }),
);
