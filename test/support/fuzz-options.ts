import type { SeededRandom } from './seeded-random.js';

/** Every key that there is, and some that there are not. */
const SECTIONS: Readonly<Record<string, readonly string[]>> = {
  limits: [
    'managersPerUser',
    'connectionsPerManager',
    'managersPerNode',
    'maxPayloadBytes',
    'maxBufferedBytes',
  ],
  cleanup: [
    'proactiveThreshold',
    'moderateThreshold',
    'aggressiveThreshold',
    'intervalMs',
    'idleAfterMs',
    'graceMs',
    'hookTimeoutMs',
    'idleTimeoutMs',
    'forcedEvictionBurst',
    'forcedEvictionRefillMs',
  ],
  session: ['resumeWindowMs'],
  heartbeat: ['intervalMs', 'missedBeforeZombie', 'probeTimeoutMs'],
  circuitBreaker: ['failureThreshold', 'resetTimeoutMs', 'successThreshold'],
  admission: ['rejectWith', 'queueTimeoutMs', 'allowedOrigins', 'authenticateTimeoutMs'],
  canary: ['intervalMs'],
  drain: ['timeoutMs', 'spreadMs'],
};

const NUMBERS = [
  0,
  -0,
  1,
  2,
  0.5,
  0.7,
  1.5,
  20,
  100,
  5_000,
  30_000,
  -1,
  Number.NaN,
  Number.POSITIVE_INFINITY,
  Number.NEGATIVE_INFINITY,
  Number.EPSILON,
  Number.MAX_SAFE_INTEGER,
  Number.MAX_VALUE,
  2 ** 31 - 1,
  2 ** 31,
  2 ** 53,
];

/** Whatever a caller could put where a value is expected. */
export function anyValue(random: SeededRandom, depth = 0): unknown {
  return random.pick<() => unknown>([
    () => random.pick(NUMBERS),
    () => random.pick(NUMBERS),
    () => random.next() * 10 ** random.below(12),
    () => random.text(),
    () => random.text(200),
    () => random.pick(['auto', 'http', 'close', '*', 'same-host', 'null', 'https://a.example', '20']),
    () =>
      random.pick([undefined, null, true, false, 10n, Symbol(random.text()), new Date(0), /x/g, new Map()]),
    () => random.pick([() => 1, () => null, async () => 1, class {}]),
    () => Object.create(null),
    () => new Array(random.below(4)),
    () => (depth > 2 ? [] : Array.from({ length: random.below(4) }, () => anyValue(random, depth + 1))),
    () => (depth > 2 ? {} : { [random.text() || 'x']: anyValue(random, depth + 1) }),
    () => random.pick([{ attach() {}, reserve() {}, release() {}, leave() {} }, { attach: 1 }]),
  ])();
}

/** Options of which most are right, and some are anything. */
export function fuzzedOptions(random: SeededRandom): unknown {
  if (random.chance(0.01)) return anyValue(random);
  const options: Record<string, unknown> = random.chance(0.95) ? { authenticate: () => null } : {};
  for (const [name, keys] of Object.entries(SECTIONS)) {
    if (random.chance(0.7)) continue;
    if (random.chance(0.05)) {
      options[name] = anyValue(random);
      continue;
    }
    const section: Record<string, unknown> = {};
    for (const key of keys) if (random.chance(0.2)) section[key] = anyValue(random);
    if (random.chance(0.05)) section[random.text()] = anyValue(random);
    options[name] = section;
  }
  if (random.chance(0.05)) options[random.text()] = anyValue(random);
  if (random.chance(0.05)) options.store = anyValue(random);
  if (random.chance(0.05)) options.storeTimeoutMs = anyValue(random);
  return options;
}

/** An environment as a shell could hand it over: every value a text. */
export function fuzzedEnvironment(
  random: SeededRandom,
  variables: readonly string[],
): Record<string, string> {
  const values = ['', '0', '1', '20', '0.5', '1e3', '0x10', ' 5 ', '-1', 'true', 'false', 'demo', 'jwt'];
  const more = ['auto', 'close', '*', 'same-host', 'https://a.example,https://b.example', '127.0.0.1', '::1'];
  const environment: Record<string, string> = { PATH: '/usr/bin' };
  for (let i = random.below(8); i > 0; i--) {
    const name = random.chance(0.95) ? random.pick(variables) : `WSM_${random.text()}`;
    environment[name] = random.chance(0.6) ? random.pick([...values, ...more]) : random.text(40);
  }
  return environment;
}
