import { isIP } from 'node:net';
import { printable } from '../options/printable.js';
import { resolveOptions, WebSocketManagerOptionsError } from '../options/resolve-options.js';
import type { WebSocketManagerOptions } from '../options/websocket-manager-options.interface.js';

/** The environment of the reference application, checked. */
export interface Environment {
  readonly PORT: number;
  readonly HOST: string;
  readonly WSM_AUTH: 'demo' | 'jwt';
  readonly WSM_JWT_SECRET: string | undefined;
  readonly WSM_ADMIN_TOKEN: string | undefined;
  /** The module's options as far as the environment sets them; what it leaves out has the module's default. */
  readonly options: Omit<WebSocketManagerOptions, 'authenticate'>;
}

const MESSAGE_MAX_LENGTH = 2_000;

/** A variable that cannot be used. */
export class EnvironmentError extends Error {
  constructor(variable: string, got: string | undefined, allowed: string) {
    const value = got === undefined ? 'nothing' : JSON.stringify(got.slice(0, 80));
    super(printable(`${variable}: got ${value}; allowed: ${allowed}`, MESSAGE_MAX_LENGTH));
    this.name = 'EnvironmentError';
  }
}

/** Which variable sets which option. */
const OPTION_OF: Readonly<Record<string, string>> = {
  WSM_MANAGERS_PER_USER: 'limits.managersPerUser',
  WSM_MANAGERS_PER_NODE: 'limits.managersPerNode',
  WSM_CONNECTIONS_PER_MANAGER: 'limits.connectionsPerManager',
  WSM_MAX_PAYLOAD_BYTES: 'limits.maxPayloadBytes',
  WSM_MAX_BUFFERED_BYTES: 'limits.maxBufferedBytes',
  WSM_PROACTIVE_THRESHOLD: 'cleanup.proactiveThreshold',
  WSM_MODERATE_THRESHOLD: 'cleanup.moderateThreshold',
  WSM_AGGRESSIVE_THRESHOLD: 'cleanup.aggressiveThreshold',
  WSM_CLEANUP_INTERVAL_MS: 'cleanup.intervalMs',
  WSM_IDLE_AFTER_MS: 'cleanup.idleAfterMs',
  WSM_GRACE_MS: 'cleanup.graceMs',
  WSM_FORCED_EVICTION_BURST: 'cleanup.forcedEvictionBurst',
  WSM_FORCED_EVICTION_REFILL_MS: 'cleanup.forcedEvictionRefillMs',
  WSM_RESUME_WINDOW_MS: 'session.resumeWindowMs',
  WSM_HEARTBEAT_INTERVAL_MS: 'heartbeat.intervalMs',
  WSM_HEARTBEAT_MISSED: 'heartbeat.missedBeforeZombie',
  WSM_PROBE_TIMEOUT_MS: 'heartbeat.probeTimeoutMs',
  WSM_BREAKER_FAILURE_THRESHOLD: 'circuitBreaker.failureThreshold',
  WSM_BREAKER_RESET_TIMEOUT_MS: 'circuitBreaker.resetTimeoutMs',
  WSM_REJECT_WITH: 'admission.rejectWith',
  WSM_QUEUE_TIMEOUT_MS: 'admission.queueTimeoutMs',
  WSM_ALLOWED_ORIGINS: 'admission.allowedOrigins',
  WSM_DRAIN_TIMEOUT_MS: 'drain.timeoutMs',
  WSM_DRAIN_SPREAD_MS: 'drain.spreadMs',
};

const OTHER_VARIABLES = [
  'WSM_AUTH',
  'WSM_DEMO_ANYWHERE',
  'WSM_JWT_SECRET',
  'WSM_ADMIN_TOKEN',
  'WSM_REDIS_URL',
] as const;

/** Checks the environment; for `ConfigModule.forRoot({ validate })`. Throws {@link EnvironmentError}. */
export function validateEnvironment(raw: Record<string, unknown>): Environment & Record<string, unknown> {
  // An empty variable counts as one that is not set: so do shells, compose files and .env files.
  const read = (name: string): string | undefined =>
    raw[name] === '' ? undefined : (raw[name] as string | undefined);
  refuseUnknown(Object.keys(raw));
  const HOST = read('HOST') ?? '127.0.0.1';
  const WSM_AUTH = oneOf('WSM_AUTH', read('WSM_AUTH') ?? 'demo', ['demo', 'jwt']);
  const mayDemoAnywhere = oneOf('WSM_DEMO_ANYWHERE', read('WSM_DEMO_ANYWHERE') ?? 'false', ['true', 'false']);
  if (WSM_AUTH === 'demo' && mayDemoAnywhere === 'false' && !isLoopback(HOST)) {
    const allowed =
      'a loopback address while WSM_AUTH is demo (everybody is believed), unless WSM_DEMO_ANYWHERE is true';
    throw new EnvironmentError('HOST', HOST, allowed);
  }
  const WSM_JWT_SECRET = read('WSM_JWT_SECRET');
  if (WSM_AUTH === 'jwt' && WSM_JWT_SECRET === undefined) {
    throw new EnvironmentError('WSM_JWT_SECRET', undefined, 'the HS256 secret, while WSM_AUTH is jwt');
  }
  if (read('WSM_REDIS_URL') !== undefined) {
    throw new EnvironmentError('WSM_REDIS_URL', '...', 'nothing: this version counts slots in memory only');
  }
  return {
    ...raw,
    PORT: portFrom(read('PORT') ?? '3000'),
    HOST,
    WSM_AUTH,
    WSM_JWT_SECRET,
    WSM_ADMIN_TOKEN: read('WSM_ADMIN_TOKEN'),
    options: optionsFrom(read),
  };
}

function optionsFrom(read: (name: string) => string | undefined): Environment['options'] {
  const options: Record<string, Record<string, unknown>> = {};
  for (const [variable, path] of Object.entries(OPTION_OF)) {
    const text = read(variable);
    if (text === undefined) continue;
    const [section, key] = path.split('.') as [string, string];
    options[section] ??= {};
    options[section][key] = parsed(variable, text);
  }
  try {
    // The module checks ranges and contradictions; here it only has to be said which variable was meant.
    resolveOptions({ ...options, authenticate: () => null });
  } catch (error) {
    if (!(error instanceof WebSocketManagerOptionsError)) throw error;
    // An entry of a list is named with its place in it.
    const [key, place] = error.key.split('[');
    const variable = Object.keys(OPTION_OF).find((name) => OPTION_OF[name] === key);
    if (variable === undefined) throw error;
    const got = place ? String(error.got) : (read(variable) ?? `${String(error.got)} (default)`);
    throw new EnvironmentError(variable, got, error.allowed);
  }
  return options;
}

function parsed(variable: string, text: string): unknown {
  if (variable === 'WSM_REJECT_WITH') return text;
  if (variable === 'WSM_ALLOWED_ORIGINS') {
    return text === '*' || text === 'same-host' ? text : text.split(',').map((origin) => origin.trim());
  }
  const value = Number(text);
  if (text.trim() === '' || Number.isNaN(value)) throw new EnvironmentError(variable, text, 'a number');
  return value;
}

/** A misspelt variable would otherwise be a setting that silently does nothing. */
function refuseUnknown(names: string[]): void {
  const known: readonly string[] = [...Object.keys(OPTION_OF), ...OTHER_VARIABLES];
  for (const name of names) {
    if (name.startsWith('WSM_') && !known.includes(name)) {
      throw new EnvironmentError(name, 'a value', `no such variable; there are ${known.join(', ')}`);
    }
  }
}

function oneOf<T extends string>(variable: string, value: string, choices: readonly T[]): T {
  if (!choices.includes(value as T)) throw new EnvironmentError(variable, value, choices.join(', '));
  return value as T;
}

function portFrom(text: string): number {
  const port = Number(text);
  if (!/^\d+$/.test(text) || port > 65_535)
    throw new EnvironmentError('PORT', text, 'a whole number from 0 to 65535');
  return port;
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}
