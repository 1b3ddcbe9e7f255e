import { describe, expect, it } from 'vitest';
import { resolveOptions, WebSocketManagerOptionsError } from '../../src/options/resolve-options.js';
import type { WebSocketManagerOptions } from '../../src/options/websocket-manager-options.interface.js';

const authenticate = () => null;

/** `{ a: { b: value } }` for `a.b`. */
function optionsWith(key: string, value: unknown): WebSocketManagerOptions {
  const [section, name] = key.split('.') as [string, string?];
  return {
    authenticate,
    [section]: name === undefined ? value : { [name]: value },
  } as WebSocketManagerOptions;
}

function resolved(key: string, value: unknown): unknown {
  const [section, name] = key.split('.') as [string, string?];
  const all = resolveOptions(optionsWith(key, value)) as unknown as Record<string, Record<string, unknown>>;
  return name === undefined ? all[section] : all[section]?.[name];
}

const WHOLE_FROM_1 = [
  'limits.managersPerUser',
  'limits.connectionsPerManager',
  'limits.managersPerNode',
  'limits.maxPayloadBytes',
  'limits.maxBufferedBytes',
  'cleanup.forcedEvictionBurst',
  'heartbeat.missedBeforeZombie',
  'circuitBreaker.failureThreshold',
  'circuitBreaker.successThreshold',
];
const RATIOS = ['cleanup.proactiveThreshold', 'cleanup.moderateThreshold', 'cleanup.aggressiveThreshold'];
const DELAYS: [string, number][] = [
  ['cleanup.intervalMs', 10],
  ['cleanup.idleAfterMs', 1],
  ['cleanup.graceMs', 0],
  ['cleanup.hookTimeoutMs', 1],
  ['cleanup.idleTimeoutMs', 1],
  ['cleanup.forcedEvictionRefillMs', 1],
  ['session.resumeWindowMs', 0],
  ['heartbeat.intervalMs', 100],
  ['heartbeat.probeTimeoutMs', 1],
  ['circuitBreaker.resetTimeoutMs', 1],
  ['admission.queueTimeoutMs', 0],
  ['admission.authenticateTimeoutMs', 1],
  ['canary.intervalMs', 0],
  ['drain.timeoutMs', 0],
  ['drain.spreadMs', 0],
];
const SECTIONS = [
  'limits',
  'cleanup',
  'session',
  'heartbeat',
  'circuitBreaker',
  'admission',
  'canary',
  'drain',
];

const WRONG: [key: string, value: unknown, shown: string, allowed: string][] = [
  ...WHOLE_FROM_1.flatMap((key) =>
    [0, -1, 1.5, Number.NaN, '20'].map((value): [string, unknown, string, string] => [
      key,
      value,
      typeof value === 'string' ? '"20"' : String(value),
      'a whole number from 1',
    ]),
  ),
  ...RATIOS.flatMap((key) =>
    [0, -0.1, 1.01, Number.NaN, '0.5'].map((value): [string, unknown, string, string] => [
      key,
      value,
      typeof value === 'string' ? '"0.5"' : String(value),
      'at most 1',
    ]),
  ),
  ...DELAYS.flatMap(([key, least]) =>
    [least - 1, 2 ** 31, Number.POSITIVE_INFINITY, Number.NaN, '5s', new Date(0)].map(
      (value): [string, unknown, string, string] => [
        key,
        value,
        typeof value === 'string' ? '"5s"' : typeof value === 'object' ? 'an object' : String(value),
        `milliseconds from ${least} to 2147483647`,
      ],
    ),
  ),
  ...SECTIONS.map((key): [string, unknown, string, string] => [key, 7, '7', 'an object']),
  ...SECTIONS.map((key): [string, unknown, string, string] => [key, [], 'an array of 0', 'an object']),
  ...SECTIONS.map((key): [string, unknown, string, string] => [`${key}.surprise`, 1, '1', 'no such option']),
  ['surprise', true, 'true', 'no such option; there are limits, cleanup'],
  ['authenticate', undefined, 'undefined', 'a function'],
  ['authenticate', 'me', '"me"', 'a function'],
  ['admission.rejectWith', 'tcp', '"tcp"', "'auto', 'http', 'close'"],
  ['admission.allowedOrigins', 'example.org', '"example.org"', "'same-host', '*', a list of origins"],
  ['health', true, 'true', 'in the call of forRootAsync itself'],
  ['global', false, 'false', 'isGlobal, in the call of forRoot'],
  ['limits.health', true, 'true', 'no such option'],
  ['store', {}, 'an object', 'attach, reserve, release and leave'],
  ['store', 'redis', '"redis"', 'a SlotStore'],
  ['limits.maxPayloadBytes', 2 ** 31, '2147483648', 'a whole number from 1 to 2147483647'],
  ['limits.maxPayloadBytes', 2 ** 32 + 1, '4294967297', 'a whole number from 1 to 2147483647'],
  ['limits.maxPayloadBytes', Number.POSITIVE_INFINITY, 'Infinity', 'a whole number from 1 to 2147483647'],
  ['logUserIds', 'md5', '"md5"', "'hash', 'short', 'full'"],
  ['logUserIds', true, 'true', "'hash', 'short', 'full'"],
  ['storeTimeoutMs', 0, '0', 'milliseconds from 1'],
  ['useStockMessageHandling', 'yes', '"yes"', 'true or false'],
  ['cleanup.moderateThreshold', 0.5, '0.5', 'at least cleanup.proactiveThreshold (0.6)'],
  ['cleanup.aggressiveThreshold', 0.64, '0.64', 'at least cleanup.moderateThreshold (0.65)'],
  ['drain.spreadMs', 10_001, '10001', 'at most drain.timeoutMs (10000)'],
];

describe('resolveOptions', () => {
  it.each(['https://a.example/path', 'https://a.example/', 'a.example', '*', 7])(
    'names the entry of a list of origins that is none: %s',
    (origin) => {
      const allowedOrigins = ['https://a.example', /b/, origin as string];
      expect(() => resolveOptions({ authenticate, admission: { allowedOrigins } })).toThrow(
        `admission.allowedOrigins[2]: got ${JSON.stringify(origin)}; allowed: an origin`,
      );
    },
  );

  it.each<[Partial<WebSocketManagerOptions>, RegExp]>([
    [
      { drain: { timeoutMs: 1_000 } },
      /drain\.spreadMs: got 3000; .* \(1000\); that was the default: set both$/,
    ],
    [
      { cleanup: { proactiveThreshold: 0.9 } },
      /moderateThreshold: got 0.65; .* \(0.9\); that was the default/,
    ],
    [
      { cleanup: { moderateThreshold: 0.8 } },
      /aggressiveThreshold: got 0.7; .* \(0.8\); that was the default/,
    ],
    [{ drain: { timeoutMs: 1_000, spreadMs: 1_001 } }, /drain.timeoutMs \(1000\)$/],
  ])('says of a contradiction whether the default is a part of it: %o', (given, message) => {
    expect(() => resolveOptions({ authenticate, ...given })).toThrow(message);
  });

  it.each(WRONG)('refuses %s: %s', (key, value, shown, allowed) => {
    let error: unknown;
    try {
      resolveOptions(optionsWith(key, value));
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(WebSocketManagerOptionsError);
    const { message } = error as Error;
    expect(message).toContain(` ${key}: `);
    expect(message).toContain(`got ${shown};`);
    expect(message).toContain(allowed);
  });

  it('has the defaults that it promises', () => {
    expect(resolveOptions({ authenticate })).toEqual({
      authenticate,
      limits: {
        managersPerUser: 20,
        connectionsPerManager: 5,
        managersPerNode: undefined,
        maxPayloadBytes: 1_048_576,
        maxBufferedBytes: 1_048_576,
      },
      cleanup: {
        proactiveThreshold: 0.6,
        moderateThreshold: 0.65,
        aggressiveThreshold: 0.7,
        intervalMs: 30_000,
        idleAfterMs: 300_000,
        graceMs: 5_000,
        hookTimeoutMs: 2_000,
        idleTimeoutMs: undefined,
        forcedEvictionBurst: 5,
        forcedEvictionRefillMs: 10_000,
      },
      session: { resumeWindowMs: 30_000 },
      heartbeat: { intervalMs: 15_000, missedBeforeZombie: 2, probeTimeoutMs: 1_000 },
      circuitBreaker: { failureThreshold: 5, resetTimeoutMs: 30_000, successThreshold: 3 },
      admission: {
        rejectWith: 'auto',
        queueTimeoutMs: 0,
        allowedOrigins: 'same-host',
        authenticateTimeoutMs: 5_000,
      },
      canary: { intervalMs: 60_000 },
      drain: { timeoutMs: 10_000, spreadMs: 3_000 },
      store: undefined,
      storeTimeoutMs: 100,
      logUserIds: 'hash',
      useStockMessageHandling: false,
    });
  });

  it.each([...WHOLE_FROM_1.map((key): [string, number] => [key, 1]), ...DELAYS])(
    'takes the least of %s: %d',
    (key, least) => {
      // A drain that takes no time cannot spread anything over it.
      const options = key === 'drain.timeoutMs' ? undefined : resolved(key, least);
      if (options !== undefined) expect(options).toBe(least);
      else
        expect(resolveOptions({ authenticate, drain: { timeoutMs: 0, spreadMs: 0 } }).drain.timeoutMs).toBe(
          0,
        );
    },
  );

  it.each<[string, unknown]>([
    ['limits.managersPerUser', () => 3],
    ['admission.allowedOrigins', '*'],
    ['admission.allowedOrigins', ['https://a.example', 'https://a.example:8443', /\.example$/, 'null']],
    ['admission.allowedOrigins', () => true],
    ['cleanup.aggressiveThreshold', 1],
    ['limits.maxPayloadBytes', 2 ** 31 - 1],
    ['limits.maxBufferedBytes', 2 ** 40],
    ['logUserIds', 'short'],
    ['logUserIds', 'full'],
  ])('takes %s', (key, value) => {
    expect(resolved(key, value)).toBe(value);
  });

  it('takes an undefined for left out', () => {
    const options = resolveOptions({
      authenticate,
      limits: { managersPerNode: undefined },
      store: undefined,
    });
    expect(options.limits.managersPerNode).toBeUndefined();
    expect(options.store).toBeUndefined();
  });

  it('does not show more of a value than belongs into a log', () => {
    const wrong = () => resolveOptions(optionsWith('admission.rejectWith', 'x'.repeat(5_000)));
    expect(wrong).toThrow(/^.{1,200}$/);
  });
});
