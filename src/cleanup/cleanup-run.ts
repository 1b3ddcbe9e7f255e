import type { Clock } from '../clock/clock.js';
import type { EventStream } from '../events/event-stream.js';
import type { CleanupLevel, CleanupOutcome, CleanupTrigger, Evidence } from '../events/vocabulary.js';
import type { Eviction } from '../events/websocket-manager-event.js';
import { type AssessmentRules, evidenceOf } from '../liveness/assessment.js';
import type { ZombieDetectorService } from '../liveness/zombie-detector.service.js';
import type { Connection } from '../manager/connection.js';
import type { Manager } from '../manager/manager.js';
import type { ManagerRegistry } from '../manager/manager-registry.js';
import type { UserRecord } from '../manager/user-record.js';
import type { Attempt } from './circuit-breaker.service.js';
import { type Candidate, type Choice, candidatesOf, expendable, overdue } from './policy.js';

/** What a cleanup did. */
export interface CleanupReport {
  readonly level: CleanupLevel;
  /** Managers looked at. */
  readonly examined: number;
  readonly evicted: readonly Eviction[];
  /** Slots that are free now and were not before. */
  readonly freed: number;
  readonly durationMs: number;
  readonly outcome: CleanupOutcome;
}

/** What a cleanup needs of its node. */
export interface CleanupContext {
  readonly clock: Clock;
  readonly registry: ManagerRegistry;
  readonly detector: ZombieDetectorService;
  readonly events: EventStream;
  readonly rules: AssessmentRules;
}

/** A connection with nobody at its end, and what proves it. */
interface Dead {
  readonly connection: Connection;
  readonly signal: string;
}

/** One cleanup of one user, under way: takes what its level gives it, and keeps account. */
export class CleanupRun {
  level: CleanupLevel = 'conservative';
  readonly evicted: Eviction[] = [];
  /** Of every manager that was ended: whether the application's hooks went well. */
  private readonly endings: Promise<boolean>[] = [];
  private readonly startedAt: number;
  private readonly examined: number;

  constructor(
    private readonly context: CleanupContext,
    readonly user: UserRecord,
    readonly trigger: CleanupTrigger,
    /** The breaker is open: no probe, no hooks. */
    readonly isCheap: boolean,
    private readonly attempt: Attempt,
  ) {
    this.startedAt = context.clock.now();
    this.examined = user.managers.size;
    user.cleanups++;
  }

  /** The user's managers, as they are now. */
  get candidates(): Candidate[] {
    const { clock, rules } = this.context;
    return candidatesOf(this.user.managers, clock.now(), rules);
  }

  /** Whether anybody is a suspect. Ask after {@link takeDead}, which looks for bytes that acquit. */
  get hasSuspects(): boolean {
    return this.candidates.some(({ suspect }) => suspect);
  }

  /** Whether any connection is a suspect or worse, whatever the others of its session are. */
  get accusesAnybody(): boolean {
    const { detector } = this.context;
    for (const manager of this.user.managers) {
      for (const connection of manager.connections)
        if (detector.proofOf(connection) !== undefined || connection.suspectedAt !== undefined) return true;
    }
    return false;
  }

  /**
   * Ends every connection that is proven dead at this moment. What is not to be believed in the background goes for
   * a newcomer only, longest silent first, as far as it is needed.
   */
  takeDead(isOver = () => true): void {
    const { detector } = this.context;
    const ripe: Dead[] = [];
    const doubtful: Dead[] = [];
    for (const manager of this.user.managers) {
      for (const connection of manager.connections) {
        const signal = detector.proofOf(connection);
        if (signal === undefined) continue;
        const group = this.isRipe(connection, signal) ? ripe : doubtful;
        group.push({ connection, signal });
      }
    }
    for (const { connection, signal } of ripe) this.endDead(connection, signal);
    doubtful.sort((a, b) => a.connection.lastHeardAt - b.connection.lastHeardAt);
    for (const { connection, signal } of doubtful) {
      if (isOver()) return;
      this.endDead(connection, signal);
      // With a session key no slot is free yet: the session is disconnected now, and is the next candidate.
      if (connection.manager.connections.length === 0) return;
    }
  }

  /** Ends the sessions that nobody came back to, by the measure of the level. */
  takeOverdue(): void {
    const { clock, rules } = this.context;
    const absent = [...this.user.managers].filter(({ connections }) => connections.length === 0);
    const candidates = candidatesOf(absent, clock.now(), rules);
    for (const choice of overdue(candidates, this.level, clock.now(), rules)) this.evict(choice);
  }

  /** Gives up, one by one, what the level has beyond that; a living session only if `mayTakeLiving` agrees. */
  takeExpendable(isOver: () => boolean, mayTakeLiving: () => boolean): void {
    const { clock, rules } = this.context;
    for (const choice of expendable(this.candidates, this.level, clock.now(), rules)) {
      if (isOver() || (choice.living && !mayTakeLiving())) return;
      this.evict(choice);
    }
  }

  /** With a session key, and inside its window, the manager stays; otherwise it ends with its last connection. */
  endDead(connection: Connection, signal: string): void {
    const { manager } = connection;
    if (isLeaving(connection)) {
      // Its client is on the way out by itself: a newcomer need not wait for that, and nobody was evicted.
      const isTakenCareOf = manager.detach(connection, { reason: 'left' });
      // Nothing is said to who is closing, but a peer that never comes to its end is cut off.
      if (!isTakenCareOf) connection.goodbye({ reason: 'internal' });
      return;
    }
    const evidence = this.evidence(manager, signal);
    this.reportZombie(connection, evidence);
    connection.end({ reason: 'no_pong', evidence, ...this.account });
    if (manager.isOpen) return;
    this.note({ managerId: manager.id, reason: 'no_pong', evidence }, manager.close({ reason: 'no_pong' }));
  }

  evict({ managerId, signal }: Pick<Choice, 'managerId' | 'signal'>): void {
    const manager = this.context.registry.manager(managerId);
    if (!manager) return;
    const evidence = this.evidence(manager, signal);
    const reason = reasonOf(signal);
    this.note({ managerId, reason, evidence }, manager.close({ reason, evidence, ...this.account }));
  }

  report(outcome?: CleanupOutcome): CleanupReport {
    return {
      level: this.level,
      examined: this.examined,
      evicted: this.evicted,
      freed: this.evicted.length,
      durationMs: this.context.clock.now() - this.startedAt,
      outcome: outcome ?? (this.evicted.length > 0 ? 'freed' : 'nothing_to_do'),
    };
  }

  /** Waits for the application's hooks, tells the breaker, and says what happened. */
  async conclude(report: CleanupReport): Promise<CleanupReport> {
    const hooksWentWell = (await Promise.all(this.endings)).every(Boolean);
    this.user.cleanups--;
    this.attempt.settle(hooksWentWell && report.outcome !== 'nothing_freed');
    const outcome: CleanupOutcome = hooksWentWell ? report.outcome : 'hooks_failed';
    const { level, examined, freed, durationMs } = report;
    this.context.events.report({
      type: 'cleanup_finished',
      userId: this.user.userId,
      level,
      trigger: this.trigger,
      outcome,
      examined,
      freed,
      durationMs,
    });
    this.context.registry.forgetIfUnused(this.user);
    return { ...report, outcome };
  }

  /** Nobody waits in the background: a closing handshake may take its moment, and silence may be our own fault. */
  private isRipe(connection: Connection, signal: string): boolean {
    return !isLeaving(connection) && this.context.detector.isCredible(signal);
  }

  private note(eviction: Eviction, ending: Promise<boolean>): void {
    this.evicted.push(eviction);
    this.endings.push(ending);
  }

  private reportZombie(connection: Connection, evidence: Evidence): void {
    this.context.events.report({
      type: 'zombie_detected',
      ...connection.manager.identity,
      connectionId: connection.id,
      evidence,
      wasSuspect: connection.suspectedAt !== undefined,
      managerEnds: endsWithItsConnection(connection.manager),
    });
  }

  private evidence(manager: Manager, signal: string): Evidence {
    return evidenceOf(manager, signal, this.context.clock.now(), this.context.rules);
  }

  /** What every ending of this run carries. */
  private get account(): { level: CleanupLevel; trigger: CleanupTrigger; withoutHooks: boolean } {
    return { level: this.level, trigger: this.trigger, withoutHooks: this.isCheap };
  }
}

/** In a closing handshake, and not for long. */
function isLeaving({ transport, closingSeen }: Connection): boolean {
  return transport.state === 'closing' && !closingSeen;
}

/** Whether the session ends with its one connection; with a session key its resume window begins instead. */
function endsWithItsConnection({ connections, sessionKey }: Manager): boolean {
  return connections.length === 1 && sessionKey === undefined;
}

/** The reason token that the evidence of a choice leads to. */
export function reasonOf(signal: Choice['signal']): 'inactive' | 'no_pong' | 'evicted' {
  if (signal === 'inactive') return 'inactive';
  return signal === 'missed_probe' ? 'no_pong' : 'evicted';
}
