import type { IncomingMessage } from 'node:http';
import type { SlotStore } from './slot-store.interface.js';
import type { CheckedUserContext, UserContext } from './user-context.js';

/**
 * Says who is connecting, from the upgrade request, before the handshake is accepted.
 * `null` refuses with 401. May be asynchronous. A throw, a rejection or no answer within
 * `admission.authenticateTimeoutMs` refuses with 500; a Nest 401 or 403 exception refuses with 401.
 */
export type Authenticate = (
  request: IncomingMessage,
) => UserContext | null | undefined | Promise<UserContext | null | undefined>;

/** Which `Origin` headers may connect: everybody, a list, or a function. */
export type AllowedOrigins =
  | '*'
  | 'same-host'
  | readonly (string | RegExp)[]
  | ((origin: string, request: IncomingMessage) => boolean);

/** How many managers a user may have: a number, or a function of who is connecting (tiers). */
export type ManagersPerUser = number | ((context: CheckedUserContext) => number);

export interface LimitOptions {
  /** Managers of one user. A whole number from 1, or a function that returns one. Default: 20. */
  managersPerUser?: ManagersPerUser | undefined;
  /** Connections of one manager; beyond it the oldest is closed with 4509. Default: 5. */
  connectionsPerManager?: number | undefined;
  /**
   * Managers on this node; when full, newcomers are refused with 503. A user may trade a dead or absent session of
   * the same user; nobody living is evicted for want of room on the node. Default: no limit.
   */
  managersPerNode?: number | undefined;
  /** Largest message accepted, in bytes, 1 to 2,147,483,647; larger ones close with 1009. Default: 1 MiB. */
  maxPayloadBytes?: number | undefined;
  /**
   * Bytes waiting to be sent to one connection. More than this for a second, or four times this at once,
   * makes it a slow consumer, closed with 4108. Default: 1 MiB.
   */
  maxBufferedBytes?: number | undefined;
}

export interface CleanupOptions {
  /** Pressure (managers / limit) from which the conservative level runs. Default: 0.60. */
  proactiveThreshold?: number | undefined;
  /** Pressure from which the moderate level runs. Default: 0.65. */
  moderateThreshold?: number | undefined;
  /** Pressure from which the aggressive level runs. Default: 0.70. */
  aggressiveThreshold?: number | undefined;
  /** Milliseconds between scheduled sweeps. Default: 30,000. */
  intervalMs?: number | undefined;
  /** Milliseconds without application traffic, either way, that make a manager idle. Default: 300,000. */
  idleAfterMs?: number | undefined;
  /**
   * Milliseconds in which a new manager is no victim of the force level, and after which one that was created
   * in code and has no connection is inactive. Default: 5,000.
   */
  graceMs?: number | undefined;
  /** Milliseconds that an application hook may take before cleanup goes on without it. Default: 2,000. */
  hookTimeoutMs?: number | undefined;
  /** Milliseconds after which an idle manager is closed (4202) whatever the pressure. Default: off. */
  idleTimeoutMs?: number | undefined;
  /** Evictions of living managers of one user that may happen at once. Default: 5. */
  forcedEvictionBurst?: number | undefined;
  /** Milliseconds until one more of them may happen. Default: 10,000. */
  forcedEvictionRefillMs?: number | undefined;
}

export interface SessionOptions {
  /** Milliseconds that a manager with a session key outlives its last connection. Default: 30,000. */
  resumeWindowMs?: number | undefined;
}

export interface HeartbeatOptions {
  /** Milliseconds between the pings that a silent connection gets. Default: 15,000. */
  intervalMs?: number | undefined;
  /** Unanswered pings in a row that prove a connection dead. Default: 2. */
  missedBeforeZombie?: number | undefined;
  /** Milliseconds that an on-demand probe waits for all of a user's connections together. Default: 1,000. */
  probeTimeoutMs?: number | undefined;
}

export interface CircuitBreakerOptions {
  /** Failed cleanups of one user in a row that open the user's breaker. Default: 5. */
  failureThreshold?: number | undefined;
  /** Milliseconds it is open before it is half-open. Default: 30,000. */
  resetTimeoutMs?: number | undefined;
  /** Successes while half-open that close it. Default: 3. */
  successThreshold?: number | undefined;
}

export interface AdmissionOptions {
  /**
   * How a refusal is told: `http`, `close` (accept, then a close code), or `auto`: `close` for requests with an
   * `Origin` (browsers, which cannot see an HTTP status), `http` for all others. Default: `auto`.
   */
  rejectWith?: 'auto' | 'http' | 'close' | undefined;
  /** Milliseconds that a newcomer may wait for a slot instead of being refused. Default: 0. */
  queueTimeoutMs?: number | undefined;
  /** Which `Origin` headers may connect, for requests that carry one. Default: `same-host`. */
  allowedOrigins?: AllowedOrigins | undefined;
  /** Milliseconds that `authenticate` may take. Default: 5,000. */
  authenticateTimeoutMs?: number | undefined;
}

export interface DrainOptions {
  /** Milliseconds after which a shutdown terminates what is left. Default: 10,000. */
  timeoutMs?: number | undefined;
  /** Milliseconds over which a shutdown spreads its closes. Default: 3,000. */
  spreadMs?: number | undefined;
}

export interface CanaryOptions {
  /** Milliseconds between runs of the canary; 0 switches it off. Default: 60,000. */
  intervalMs?: number | undefined;
}

/**
 * How log lines show user ids. `hash`: the first 12 hexadecimal digits of the id's SHA-256 (of its UTF-8), the same in
 * every process, so that a known id can be searched for (`printf %s ID | sha256sum | cut -c1-12`); ids that can be
 * guessed can be found by trying. `short`: the first 8 characters. `full`: the id, with other characters than
 * printable ASCII escaped.
 */
export type LogUserIds = 'hash' | 'short' | 'full';

/** What `WebSocketManagerModule.forRoot` and the factories of `forRootAsync` take. Durations are milliseconds. */
export interface WebSocketManagerOptions {
  authenticate: Authenticate;
  limits?: LimitOptions | undefined;
  cleanup?: CleanupOptions | undefined;
  session?: SessionOptions | undefined;
  heartbeat?: HeartbeatOptions | undefined;
  circuitBreaker?: CircuitBreakerOptions | undefined;
  admission?: AdmissionOptions | undefined;
  canary?: CanaryOptions | undefined;
  drain?: DrainOptions | undefined;
  /** Where slots are counted. Default: in this process. */
  store?: SlotStore | undefined;
  /** Milliseconds that the store may take over one decision before this node decides alone. Default: 100. */
  storeTimeoutMs?: number | undefined;
  /** How log lines show user ids. Default: `hash`. */
  logUserIds?: LogUserIds | undefined;
  /**
   * Messages go to their handlers by the platform's own way, a pipeline of observables for each socket, instead of
   * by ours, which does the same for less. Default: false, but for an adapter that brings a way of its own.
   */
  useStockMessageHandling?: boolean | undefined;
}

/** What a class given to `forRootAsync` as `useClass` or `useExisting` has to offer. */
export interface WebSocketManagerOptionsFactory {
  createWebSocketManagerOptions(): WebSocketManagerOptions | Promise<WebSocketManagerOptions>;
}

/** The options of a section with their defaults filled in. */
type Filled<T> = { readonly [K in keyof T]-?: Exclude<T[K], undefined> };

/** Every option with its value: defaults filled in, checked. */
export interface ResolvedOptions {
  readonly authenticate: Authenticate;
  readonly limits: Filled<Omit<LimitOptions, 'managersPerNode'>> & {
    readonly managersPerNode: number | undefined;
  };
  readonly cleanup: Filled<Omit<CleanupOptions, 'idleTimeoutMs'>> & {
    readonly idleTimeoutMs: number | undefined;
  };
  readonly session: Filled<SessionOptions>;
  readonly heartbeat: Filled<HeartbeatOptions>;
  readonly circuitBreaker: Filled<CircuitBreakerOptions>;
  readonly admission: Filled<AdmissionOptions>;
  readonly canary: Filled<CanaryOptions>;
  readonly drain: Filled<DrainOptions>;
  readonly store: SlotStore | undefined;
  readonly storeTimeoutMs: number;
  readonly logUserIds: LogUserIds;
  readonly useStockMessageHandling: boolean;
}

/** Token of the options as the application gave them. */
export const MODULE_OPTIONS = Symbol.for('nestjs-websocket-manager:options');

/** Token of the {@link ResolvedOptions}. */
export const RESOLVED_OPTIONS = Symbol.for('nestjs-websocket-manager:resolved-options');
