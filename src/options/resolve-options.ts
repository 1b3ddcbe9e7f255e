import { printable } from './printable.js';
import type { SlotStore } from './slot-store.interface.js';
import type {
  AllowedOrigins,
  Authenticate,
  ManagersPerUser,
  ResolvedOptions,
  WebSocketManagerOptions,
} from './websocket-manager-options.interface.js';

const MESSAGE_MAX_LENGTH = 2_000;

/** An option that cannot be used. The message names the key, what it got and what is allowed. */
export class WebSocketManagerOptionsError extends Error {
  readonly code = 'WSM_INVALID_OPTION';

  constructor(
    readonly key: string,
    readonly got: unknown,
    readonly allowed: string,
  ) {
    super(
      printable(`WebSocketManagerModule: ${key}: got ${shown(got)}; allowed: ${allowed}`, MESSAGE_MAX_LENGTH),
    );
    this.name = 'WebSocketManagerOptionsError';
  }
}

const MIB = 1024 * 1024;
/** Node's timers hold 31 bits; a longer delay would fire at once. */
const LONGEST_DELAY_MS = 2 ** 31 - 1;
/** `ws` converts `maxPayload` to a signed 32-bit integer: 2^31 becomes negative (no limit), 2^32 + 1 becomes 1 byte. */
const MAX_PAYLOAD_BYTES = 2 ** 31 - 1;

/**
 * Fills in the defaults and checks every value; the only place that knows either.
 * Throws {@link WebSocketManagerOptionsError} for the first value that is wrong, or a key that does not exist.
 */
export function resolveOptions(options: WebSocketManagerOptions): ResolvedOptions {
  const root = new Section('', options);
  const limits = root.section('limits');
  const cleanup = root.section('cleanup');
  const session = root.section('session');
  const heartbeat = root.section('heartbeat');
  const breaker = root.section('circuitBreaker');
  const admission = root.section('admission');
  const canary = root.section('canary');
  const drain = root.section('drain');

  const resolved: ResolvedOptions = {
    authenticate: root.take<Authenticate>(
      'authenticate',
      undefined,
      isFunction,
      'a function (request) => { userId } or null',
    ),
    limits: {
      managersPerUser: limits.take<ManagersPerUser>(
        'managersPerUser',
        20,
        (value) => isWholeFrom(1)(value) || isFunction(value),
        'a whole number from 1, or a function that returns one',
      ),
      connectionsPerManager: limits.whole('connectionsPerManager', 5, 1),
      managersPerNode: limits.optionalWhole('managersPerNode', 1),
      maxPayloadBytes: limits.whole('maxPayloadBytes', MIB, 1, MAX_PAYLOAD_BYTES),
      maxBufferedBytes: limits.whole('maxBufferedBytes', MIB, 1),
    },
    cleanup: {
      proactiveThreshold: cleanup.ratio('proactiveThreshold', 0.6),
      moderateThreshold: cleanup.ratio('moderateThreshold', 0.65),
      aggressiveThreshold: cleanup.ratio('aggressiveThreshold', 0.7),
      intervalMs: cleanup.delay('intervalMs', 30_000, 10),
      idleAfterMs: cleanup.delay('idleAfterMs', 300_000, 1),
      graceMs: cleanup.delay('graceMs', 5_000, 0),
      hookTimeoutMs: cleanup.delay('hookTimeoutMs', 2_000, 1),
      idleTimeoutMs: cleanup.optionalDelay('idleTimeoutMs', 1),
      forcedEvictionBurst: cleanup.whole('forcedEvictionBurst', 5, 1),
      forcedEvictionRefillMs: cleanup.delay('forcedEvictionRefillMs', 10_000, 1),
    },
    session: { resumeWindowMs: session.delay('resumeWindowMs', 30_000, 0) },
    heartbeat: {
      intervalMs: heartbeat.delay('intervalMs', 15_000, 100),
      missedBeforeZombie: heartbeat.whole('missedBeforeZombie', 2, 1),
      probeTimeoutMs: heartbeat.delay('probeTimeoutMs', 1_000, 1),
    },
    circuitBreaker: {
      failureThreshold: breaker.whole('failureThreshold', 5, 1),
      resetTimeoutMs: breaker.delay('resetTimeoutMs', 30_000, 1),
      successThreshold: breaker.whole('successThreshold', 3, 1),
    },
    admission: {
      rejectWith: admission.oneOf('rejectWith', 'auto', ['auto', 'http', 'close']),
      queueTimeoutMs: admission.delay('queueTimeoutMs', 0, 0),
      allowedOrigins: allowedOrigins(admission),
      authenticateTimeoutMs: admission.delay('authenticateTimeoutMs', 5_000, 1),
    },
    canary: { intervalMs: canary.delay('intervalMs', 60_000, 0) },
    drain: {
      timeoutMs: drain.delay('timeoutMs', 10_000, 0),
      spreadMs: drain.delay('spreadMs', 3_000, 0),
    },
    store:
      root.take<SlotStore | null>(
        'store',
        null,
        isStoreOrNothing,
        'a SlotStore: an object with attach, reserve, release and leave',
      ) ?? undefined,
    storeTimeoutMs: root.delay('storeTimeoutMs', 100, 1),
    logUserIds: root.oneOf('logUserIds', 'hash', ['hash', 'short', 'full']),
    useStockMessageHandling: root.take('useStockMessageHandling', false, isBoolean, 'true or false'),
  };
  for (const section of [root, limits, cleanup, session, heartbeat, breaker, admission, canary, drain]) {
    section.refuseUnknownKeys();
  }
  refuseContradictions(resolved, options);
  return resolved;
}

function refuseContradictions({ cleanup, drain }: ResolvedOptions, given: WebSocketManagerOptions): void {
  const { proactiveThreshold, moderateThreshold, aggressiveThreshold } = cleanup;
  if (moderateThreshold < proactiveThreshold) {
    throw new WebSocketManagerOptionsError(
      'cleanup.moderateThreshold',
      moderateThreshold,
      `at least cleanup.proactiveThreshold (${proactiveThreshold})${orDefault(given.cleanup?.moderateThreshold)}`,
    );
  }
  if (aggressiveThreshold < moderateThreshold) {
    throw new WebSocketManagerOptionsError(
      'cleanup.aggressiveThreshold',
      aggressiveThreshold,
      `at least cleanup.moderateThreshold (${moderateThreshold})${orDefault(given.cleanup?.aggressiveThreshold)}`,
    );
  }
  if (drain.spreadMs > drain.timeoutMs) {
    throw new WebSocketManagerOptionsError(
      'drain.spreadMs',
      drain.spreadMs,
      `at most drain.timeoutMs (${drain.timeoutMs})${orDefault(given.drain?.spreadMs)}`,
    );
  }
}

/** For an option that another one contradicts, and that nobody has set. */
function orDefault(given: number | undefined): string {
  return given === undefined ? '; that was the default: set both' : '';
}

/** Where an option stands that is none of these, or how it is written. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  health: 'in the call of forRootAsync itself, beside useFactory',
  metrics: 'in the call of forRootAsync itself, beside useFactory',
  admin: 'in the call of forRootAsync itself, beside useFactory',
  isGlobal: 'in the call of forRootAsync itself, beside useFactory',
  global: 'isGlobal, in the call of forRoot or forRootAsync itself',
};

/** One object of the options, read key by key; knows which keys were asked for. */
class Section {
  private readonly values: Record<string, unknown>;
  private readonly known = new Set<string>();

  constructor(
    private readonly path: string,
    values: unknown,
  ) {
    if (typeof values !== 'object' || values === null || Array.isArray(values)) {
      throw new WebSocketManagerOptionsError(path || 'options', values, 'an object');
    }
    this.values = values as Record<string, unknown>;
  }

  section(key: string): Section {
    this.known.add(key);
    return new Section(this.name(key), this.values[key] ?? {});
  }

  take<T>(key: string, fallback: T | undefined, isRight: (value: unknown) => boolean, allowed: string): T {
    this.known.add(key);
    const value = this.values[key] ?? fallback;
    if (value === fallback && fallback !== undefined) return fallback;
    if (!isRight(value)) throw new WebSocketManagerOptionsError(this.name(key), value, allowed);
    return value as T;
  }

  whole(key: string, fallback: number, least: number, most = Number.MAX_SAFE_INTEGER): number {
    const upTo = most === Number.MAX_SAFE_INTEGER ? '' : ` to ${most}`;
    return this.take(key, fallback, isWholeFrom(least, most), `a whole number from ${least}${upTo}`);
  }

  optionalWhole(key: string, least: number): number | undefined {
    return (
      this.take<number | null>(key, null, isWholeFrom(least), `a whole number from ${least}`) ?? undefined
    );
  }

  delay(key: string, fallback: number, least: number): number {
    return this.take(key, fallback, isDelayFrom(least), delayRule(least));
  }

  optionalDelay(key: string, least: number): number | undefined {
    return this.take<number | null>(key, null, isDelayFrom(least), delayRule(least)) ?? undefined;
  }

  ratio(key: string, fallback: number): number {
    return this.take(key, fallback, isRatio, 'a number above 0 and at most 1');
  }

  oneOf<T extends string>(key: string, fallback: T, choices: readonly T[]): T {
    const isRight = (value: unknown) => choices.includes(value as T);
    return this.take(key, fallback, isRight, choices.map((choice) => `'${choice}'`).join(', '));
  }

  refuseUnknownKeys(): void {
    for (const key of Object.keys(this.values)) {
      if (this.known.has(key)) continue;
      const elsewhere = this.path === '' ? ELSEWHERE[key] : undefined;
      const allowed = elsewhere ?? `no such option; there are ${[...this.known].join(', ')}`;
      throw new WebSocketManagerOptionsError(this.name(key), this.values[key], allowed);
    }
  }

  private name(key: string): string {
    return this.path ? `${this.path}.${key}` : key;
  }
}

const isBoolean = (value: unknown): boolean => typeof value === 'boolean';
const isFunction = (value: unknown): boolean => typeof value === 'function';
const isWholeFrom =
  (least: number, most = Number.MAX_SAFE_INTEGER) =>
  (value: unknown) =>
    Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most;
const isDelayFrom = (least: number) => (value: unknown) =>
  typeof value === 'number' && value >= least && value <= LONGEST_DELAY_MS;
const delayRule = (least: number) => `milliseconds from ${least} to ${LONGEST_DELAY_MS}`;
const isRatio = (value: unknown) => typeof value === 'number' && value > 0 && value <= 1;

const ORIGIN = /^[a-z][a-z0-9+.-]*:\/\/[^/?#\s]+$|^null$/i;

function allowedOrigins(admission: Section): AllowedOrigins {
  const value = admission.take<AllowedOrigins>(
    'allowedOrigins',
    'same-host',
    (given) => given === '*' || given === 'same-host' || isFunction(given) || Array.isArray(given),
    "'same-host', '*', a list of origins (scheme://host[:port]) or RegExps, or a function",
  );
  if (!Array.isArray(value)) return value;
  const wrong = value.findIndex(
    (entry) => !(entry instanceof RegExp || (typeof entry === 'string' && ORIGIN.test(entry))),
  );
  if (wrong < 0) return value;
  throw new WebSocketManagerOptionsError(
    `admission.allowedOrigins[${wrong}]`,
    value[wrong],
    "an origin as browsers send it, scheme://host[:port] with nothing after it, or a RegExp; '*' and 'same-host' stand alone, not in a list",
  );
}

function isStoreOrNothing(value: unknown): boolean {
  const methods = ['attach', 'reserve', 'release', 'leave'] as const;
  return (
    typeof value === 'object' &&
    value !== null &&
    methods.every((method) => typeof (value as Record<string, unknown>)[method] === 'function')
  );
}

/** A value as it can stand in one line of a message, whatever it is. */
function shown(value: unknown): string {
  if (typeof value === 'string')
    return JSON.stringify(value.length > 80 ? `${value.slice(0, 80)}...` : value);
  if (typeof value === 'function') return 'a function';
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (typeof value === 'object' && value !== null) return 'an object';
  return String(value);
}
