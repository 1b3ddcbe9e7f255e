import type { SessionReport } from './clients.js';
import type { Lag, Outcome, ServerEvent } from './world.js';

/** SPEC section 6, promise 2: `probeTimeoutMs` + 100 ms. */
const ADMITTED_WITHIN_MS = 1_100;
/** SPEC section 5: the larger of `graceMs` and `forcedEvictionRefillMs`. */
const LONGEST_RETRY_MS = 10_000;

export interface Case {
  /** Users that never have an incoming connection at the limit. */
  readonly below: ReadonlySet<string>;
  /** Sessions whose client is dead from `at` on, by name. */
  readonly dead?: ReadonlyMap<string, Death>;
}

export interface Death {
  /** Milliseconds since 1970. */
  readonly at: number;
  /** SPEC section 6, promise 4, with what was under way. */
  readonly detectedWithinMs: number;
}

/** Everything in which the outcome differs from the contract, one line each. */
export function violations(outcome: Outcome, { below, dead = new Map() }: Case): string[] {
  const live = outcome.sessions.filter(({ name }) => !dead.has(name));
  const deadManagers = managersOf(outcome.sessions.filter(({ name }) => dead.has(name)));
  return [
    ...live.flatMap((session) => ofSession(session, below, outcome)),
    ...ofEvictions(outcome, below),
    ...outcome.events.flatMap((event) => ofEvent(event, deadManagers, outcome.serverLags)),
    ...[...dead].flatMap(([name, death]) => ofDead(name, death, outcome)),
  ];
}

/** The part of the outcome that concerns some of the users. */
export function outcomeOf(outcome: Outcome, ...userIds: string[]): Outcome {
  return {
    ...outcome,
    sessions: outcome.sessions.filter(({ userId }) => userIds.includes(userId)),
    events: outcome.events.filter(({ userId = '' }) => userIds.includes(userId)),
  };
}

function managersOf(sessions: readonly SessionReport[]): Set<string> {
  return new Set(sessions.flatMap(({ managerId }) => (managerId === undefined ? [] : [managerId])));
}

function ofSession(session: SessionReport, below: ReadonlySet<string>, { events }: Outcome): string[] {
  const { name, userId, closed, openedAt, refusal, isIncoming, isReturn, errors, outstanding } = session;
  const found = errors.map((error) => `${name}: ${error}`);
  if (refusal) {
    const { status, body } = refusal;
    const answer = `refused: ${status} ${JSON.stringify(body)}`;
    if (!isIncoming) found.push(`${name}: ${answer}`);
    else if (isReturn) found.push(`${name}: returned when it was told to, and was ${answer}`);
    else if (status !== 429 || !((body.retryAfterMs ?? Number.NaN) <= LONGEST_RETRY_MS))
      found.push(`${name}: ${answer}`);
    return found;
  }
  if (openedAt === undefined) return [...found, `${name}: was never answered`];
  if (closed) {
    const isEvicted = events.some(
      ({ type, managerId, trigger }) =>
        type === 'evicted' && managerId === session.managerId && trigger === 'admission',
    );
    if (below.has(userId) || !isEvicted) found.push(`${name}: ${describeClose(session, events)}`);
    return found;
  }
  for (const { id, forMs } of outstanding) found.push(`${name}: ${id} has not arrived after ${forMs} ms`);
  return found;
}

/** The close, and all that the server reported about the session. */
function describeClose(
  { closed, openedAt = 0, managerId, notice }: SessionReport,
  events: readonly ServerEvent[],
) {
  const { code, reason, at } = closed as { code: number; reason: string; at: number };
  const evidence = events
    .filter((event) => event.managerId === managerId)
    .map(
      ({ type, at: eventAt, reason: why, trigger, evidence: { signal, silentForMs } = {} as never }) =>
        `${type}@${eventAt - openedAt}${[why, trigger, signal, silentForMs]
          .filter((x) => x !== undefined)
          .map((x) => ` ${x}`)
          .join('')}`,
    );
  return `closed after ${at - openedAt} ms: ${code} ${reason} ${notice?.reason ?? ''} [${evidence.join(', ')}]`;
}

/** At the limit at most one manager is evicted for each incoming connection; below it none. */
function ofEvictions({ events }: Outcome, below: ReadonlySet<string>): string[] {
  const found: string[] = [];
  const sinceAdmission = new Map<string, number>();
  for (const { type, userId = '', trigger, managerId } of events) {
    if (type === 'admitted' || type === 'rejected') sinceAdmission.set(userId, 0);
    if (type !== 'evicted' || trigger !== 'admission') continue;
    if (below.has(userId)) found.push(`${userId}: ${managerId} was evicted below the limit`);
    const evicted = (sinceAdmission.get(userId) ?? 0) + 1;
    sinceAdmission.set(userId, evicted);
    if (evicted > 1) found.push(`${userId}: ${evicted} managers were evicted for one incoming connection`);
  }
  return found;
}

function ofEvent(
  { type, at, userId, managerId = '', evidence, active, durationMs = 0, lockout }: ServerEvent,
  deadManagers: ReadonlySet<string>,
  serverLags: readonly Lag[],
): string[] {
  if (type === 'zombie_detected' && !deadManagers.has(managerId))
    return [`${userId}: a live session was proven dead: ${JSON.stringify(evidence)}`];
  // The node would close nothing in the background, and the run would prove nothing.
  if (type === 'self_preservation' && active) return ['the node was in self-preservation'];
  // What the machine gave to other processes is not the server's.
  const lateMs = lateWithin(serverLags, at - durationMs, at);
  if (type === 'admitted' && durationMs - lateMs > ADMITTED_WITHIN_MS)
    return [`${userId}: admitted after ${Math.round(durationMs)} ms, of which ${lateMs} ms stalled`];
  if (type === 'rejected' && lockout) return [`${userId}: a lockout`];
  return [];
}

function lateWithin(lags: readonly Lag[], from: number, to: number): number {
  return lags.reduce((sum, lag) => sum + Math.max(0, Math.min(lag.to, to) - Math.max(lag.from, from)), 0);
}

/** What the server counted: no lockout, and no zombie beside those that it reported. */
export function metricViolations({ metrics, events }: Outcome): string[] {
  const found: string[] = [];
  const lockouts = metrics.sum('websocket_manager_lockouts_total');
  if (lockouts !== 0) found.push(`lockouts_total ${lockouts}`);
  const zombies = metrics.sum('websocket_manager_zombies_detected_total');
  const reported = events.filter(({ type }) => type === 'zombie_detected').length;
  if (zombies !== reported) found.push(`zombies_detected_total ${zombies}, ${reported} reported`);
  return found;
}

function ofDead(name: string, { at, detectedWithinMs }: Death, { sessions, events }: Outcome): string[] {
  const session = sessions.find((each) => each.name === name);
  if (session?.managerId === undefined) return [`${name}: was never open`];
  const detected = events.find(
    ({ type, managerId, at: eventAt }) =>
      managerId === session.managerId && ['detached', 'evicted'].includes(type) && eventAt > at,
  );
  if (!detected) return [`${name}: dead, and not detected`];
  const tookMs = detected.at - at;
  return tookMs > detectedWithinMs ? [`${name}: dead, and detected after ${tookMs} ms`] : [];
}
