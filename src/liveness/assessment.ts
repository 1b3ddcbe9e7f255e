import type { Evidence, ManagerStatus, ZombieSignal } from '../events/vocabulary.js';
import { SLOWEST_BYTES_PER_SECOND } from '../manager/connection.js';
import type { ResolvedOptions } from '../options/websocket-manager-options.interface.js';

/** A slot is taken before the handshake, which has this long whatever the grace. */
const LEAST_HANDSHAKE_MS = 100;
/** How often a heartbeat interval looks at each connection; see {@link STALLED_LOOKS} and the heartbeat. */
export const LOOKS_PER_INTERVAL = 4;
/** Outgoing bytes that have not moved for two heartbeats. */
export const STALLED_LOOKS = 2 * LOOKS_PER_INTERVAL;
/** A ping is sent at this liveness check of a silent connection; see the heartbeat. */
export const PING_LOOK = LOOKS_PER_INTERVAL - 1;

/** Timers know whole milliseconds only. */
const ROUNDING_MS = 2;
/** A client that reads 16 KiB a second reads less than this in the time that timers are rounded to. */
const LEAST_OUTPUT_BYTES = 32;

/** What is known of a connection, as it is at this moment. Times are monotonic milliseconds. */
export interface ConnectionFacts {
  readonly id: string;
  readonly state: 'open' | 'closing' | 'closed';
  readonly openedAt: number;
  readonly lastHeardAt: number;
  readonly confirmed: boolean;
  readonly missedPongs: number;
  /** Liveness checks in a row, on time, without a new byte; counted only while a ping could be asked. */
  readonly quietLooks: number;
  /** Milliseconds since the oldest ping after the last inbound byte; 0: none was sent. */
  readonly askedForMs: number;
  readonly stalledLooks: number;
  /** The application has sent something since the last inbound byte. */
  readonly hasUnacknowledgedOutput: boolean;
  /** Output that a peer which reads {@link SLOWEST_BYTES_PER_SECOND} may not have read yet. */
  readonly unreadBytes: number;
  readonly suspectedAt: number | undefined;
  readonly detectedBy: string | undefined;
  readonly bufferedBytes: number;
}

/** What is known of a manager, as it is at this moment, and all that any decision about it may rest on. */
export interface ManagerFacts {
  readonly id: string;
  readonly sessionKey: string | undefined;
  readonly priority: number;
  readonly isBusy: boolean;
  readonly createdAt: number;
  readonly lastActivityAt: number;
  readonly leftAt: number | undefined;
  /** Last inbound byte of the connections that have detached; undefined: none has. */
  readonly lastHeardAt: number | undefined;
  readonly neverAttached: boolean;
  readonly connections: readonly ConnectionFacts[];
}

/** The options that an assessment depends on. */
export interface AssessmentRules {
  readonly idleAfterMs: number;
  readonly graceMs: number;
  readonly resumeWindowMs: number;
  readonly missedBeforeZombie: number;
  /** Between two liveness checks of a connection. */
  readonly lookMs: number;
  readonly maxBufferedBytes: number;
}

/** What the facts of a manager mean. */
export interface Assessment {
  readonly manager: ManagerFacts;
  readonly status: ManagerStatus;
  /** Every connection is a suspect or worse, and there is one. */
  readonly suspect: boolean;
  /** A connection that is not proven dead has output of the application under way. */
  readonly hasOutputUnderWay: boolean;
  /** Since when it has no connection; undefined unless `inactive`. */
  readonly inactiveSince: number | undefined;
  readonly silentForMs: number;
}

export function rulesOf(options: ResolvedOptions): AssessmentRules {
  return {
    idleAfterMs: options.cleanup.idleAfterMs,
    graceMs: options.cleanup.graceMs,
    resumeWindowMs: options.session.resumeWindowMs,
    missedBeforeZombie: options.heartbeat.missedBeforeZombie,
    lookMs: options.heartbeat.intervalMs / LOOKS_PER_INTERVAL,
    maxBufferedBytes: options.limits.maxBufferedBytes,
  };
}

/**
 * Returns the evidence that proves the connection dead; undefined while there is none. Neither absence of application
 * traffic nor a missed probe is evidence.
 */
export function proofOf(connection: ConnectionFacts, rules: AssessmentRules): ZombieSignal | undefined {
  if (connection.state !== 'open') return 'closed_socket';
  if (connection.detectedBy !== undefined) return connection.detectedBy;
  const { missedPongs, quietLooks, stalledLooks } = connection;
  const { missedBeforeZombie } = rules;
  if (missedPongs < missedBeforeZombie && stalledLooks < STALLED_LOOKS) return undefined;
  const extension = extensionLooks(connection, rules);
  // A ping counts as missed one check before the next one is sent.
  const answerableLooks = PING_LOOK + missedBeforeZombie * LOOKS_PER_INTERVAL - 1;
  // After an event-loop stall the ping was late, and the checks that follow are not: it has its whole time all the same.
  const answerableMs = (missedBeforeZombie * LOOKS_PER_INTERVAL - 1 + extension) * rules.lookMs - ROUNDING_MS;
  const hadItsTime = quietLooks >= answerableLooks + extension && connection.askedForMs >= answerableMs;
  if (missedPongs >= missedBeforeZombie && hadItsTime) {
    return connection.confirmed ? 'missed_pongs' : 'never_completed';
  }
  // Linux reports a full send buffer as writable only when a third of it, up to 1.3 MiB, is free.
  if (stalledLooks >= STALLED_LOOKS + extension) return 'stalled_output';
  return undefined;
}

/**
 * Liveness checks that output under way adds to the time for an answer: a pong waits behind the data that was sent
 * before the ping, also behind data in kernel buffers, which cannot be observed.
 */
function extensionLooks({ unreadBytes }: ConnectionFacts, { lookMs }: AssessmentRules): number {
  // What a client reads within the rounding of timers does not cost a whole check.
  if (unreadBytes < LEAST_OUTPUT_BYTES) return 0;
  return Math.ceil((unreadBytes / SLOWEST_BYTES_PER_SECOND) * (1_000 / lookMs));
}

function hasOutput({ hasUnacknowledgedOutput, unreadBytes }: ConnectionFacts): boolean {
  return hasUnacknowledgedOutput || unreadBytes >= SLOWEST_BYTES_PER_SECOND;
}

/** Whether a proof rests on silence alone, and so could be our own fault. */
export function restsOnSilence(signal: ZombieSignal): boolean {
  return signal !== 'closed_socket';
}

export function assess(manager: ManagerFacts, now: number, rules: AssessmentRules): Assessment {
  const { connections } = manager;
  const inactiveSince = inactiveSinceOf(manager, rules);
  let dead = 0;
  let suspects = 0;
  let hasOutputUnderWay = false;
  let silentSince = manager.lastHeardAt ?? inactiveSince ?? Number.NEGATIVE_INFINITY;
  for (const connection of connections) {
    const isDead = proofOf(connection, rules) !== undefined;
    if (isDead) dead++;
    else if (hasOutput(connection)) hasOutputUnderWay = true;
    if (isDead || connection.suspectedAt !== undefined) suspects++;
    silentSince = Math.max(silentSince, connection.lastHeardAt);
  }
  const isDead = dead > 0 && dead === connections.length;
  const status = statusOf(manager, now, rules, inactiveSince, isDead);
  return {
    manager,
    status,
    suspect: suspects > 0 && suspects === connections.length,
    hasOutputUnderWay,
    inactiveSince: status === 'inactive' ? inactiveSince : undefined,
    silentForMs: Math.max(0, now - silentSince),
  };
}

/** The resume window: without a session key nobody could find the manager again. */
export function windowOf(manager: ManagerFacts, rules: AssessmentRules): number {
  return manager.sessionKey === undefined ? 0 : rules.resumeWindowMs;
}

export function evidenceOf(
  manager: ManagerFacts,
  signal: string,
  now: number,
  rules: AssessmentRules,
): Evidence {
  return {
    signal,
    silentForMs: Math.round(assess(manager, now, rules).silentForMs),
    inactiveForMs: Math.round(Math.max(0, now - manager.lastActivityAt)),
    missedPongs: Math.max(0, ...manager.connections.map((connection) => connection.missedPongs)),
  };
}

function inactiveSinceOf(manager: ManagerFacts, rules: AssessmentRules): number | undefined {
  if (manager.connections.length > 0) return undefined;
  if (manager.leftAt !== undefined) return manager.leftAt;
  return attachDeadlineOf(manager.createdAt, rules);
}

/** When a manager that nobody attached to becomes inactive. */
export function attachDeadlineOf(createdAt: number, rules: AssessmentRules): number {
  return createdAt + Math.max(rules.graceMs, LEAST_HANDSHAKE_MS);
}

function statusOf(
  manager: ManagerFacts,
  now: number,
  rules: AssessmentRules,
  inactiveSince: number | undefined,
  isDead: boolean,
): ManagerStatus {
  if (inactiveSince !== undefined) return now >= inactiveSince ? 'inactive' : 'unknown';
  if (isDead) return 'zombie';
  if (!manager.connections.some((connection) => connection.confirmed)) return 'unknown';
  return now - manager.lastActivityAt >= rules.idleAfterMs ? 'idle' : 'healthy';
}

/**
 * The score of a manager, from 0 (certainly nobody there) to 1 (certainly in use):
 * zombie 0; unknown 0.5; inactive 0.25 times the share of the resume window that is left; otherwise
 * `use x answers x room`, where
 * `use` falls in a line from 1 (active now) to 0.6 at `idleAfterMs` and 0.4 at twice that, and stays there;
 * `answers` is 1 - missed pongs / `missedBeforeZombie` of the best connection, halved for a suspect;
 * `room` is 1 - half the filled share of `maxBufferedBytes` of that connection.
 */
export function scoreOf(
  { manager, status, suspect, inactiveSince }: Assessment,
  now: number,
  rules: AssessmentRules,
): number {
  if (status === 'zombie') return 0;
  if (status === 'unknown') return 0.5;
  if (status === 'inactive') {
    const window = windowOf(manager, rules);
    if (window === 0) return 0;
    return 0.25 * share(1 - (now - (inactiveSince ?? now)) / window);
  }
  const idleShare = Math.max(0, now - manager.lastActivityAt) / rules.idleAfterMs;
  const use = idleShare < 1 ? 1 - 0.4 * idleShare : Math.max(0.4, 0.6 - 0.2 * (idleShare - 1));
  const best = Math.max(
    ...manager.connections.map((connection) => {
      const answers = share(1 - connection.missedPongs / rules.missedBeforeZombie);
      const room = 1 - 0.5 * share(connection.bufferedBytes / rules.maxBufferedBytes);
      return answers * room;
    }),
  );
  return use * best * (suspect ? 0.5 : 1);
}

function share(value: number): number {
  return Math.min(1, Math.max(0, value));
}
