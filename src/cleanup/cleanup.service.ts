import { Inject, Injectable } from '@nestjs/common';
import { Clock } from '../clock/clock.js';
import { EventStream } from '../events/event-stream.js';
import {
  CLEANUP_LEVELS,
  type CleanupLevel,
  type CleanupOutcome,
  type CleanupTrigger,
  type Evidence,
} from '../events/vocabulary.js';
import type { Eviction } from '../events/websocket-manager-event.js';
import { type AssessmentRules, evidenceOf, rulesOf, snapshotOf } from '../liveness/assessment.js';
import { StatusKeeper } from '../liveness/status-keeper.js';
import { ZombieDetectorService } from '../liveness/zombie-detector.service.js';
import type { Connection } from '../manager/connection.js';
import type { Manager } from '../manager/manager.js';
import { ManagerRegistry } from '../manager/manager-registry.js';
import type { UserRecord } from '../manager/user-record.js';
import { RESOLVED_OPTIONS, type ResolvedOptions } from '../options/websocket-manager-options.interface.js';
import { type Attempt, CircuitBreakerService } from './circuit-breaker.service.js';
import { type Budget, canSpend, spend, waitForTokenMs } from './eviction-budget.js';
import { type Choice, candidatesOf, expendable, graceLeftMs, levelFor, overdue, reaches } from './policy.js';

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

/** What an operator asks for. */
export interface ManualCleanup {
  readonly level: CleanupLevel;
  /** For `force`: how many living sessions to end. */
  readonly count?: number;
  /** Only say what would go. */
  readonly dryRun?: boolean;
}

/** What a newcomer at the limit needs. */
export interface RoomRequest {
  readonly needed: number;
  /** Whether living sessions may be asked to leave for this newcomer. */
  readonly mayEvictLiving: boolean;
  /** The newcomer has gone: nobody needs to leave any more. */
  readonly isAbandoned: () => boolean;
  /** A probe that was begun for this newcomer already. */
  readonly probe?: Promise<void> | undefined;
}

/** Users that one sweep cleans up at the same time. */
const SWEEP_CONCURRENCY = 50;

/** Ends what has to go: in the background only the dead, at the limit as many of the living as are needed. */
@Injectable()
export class CleanupService {
  private readonly rules: AssessmentRules;
  private readonly running = new Map<UserRecord, { level: CleanupLevel; report: Promise<CleanupReport> }>();
  private readonly budgets = new Map<UserRecord, Budget>();
  private sweeping: Promise<void> | undefined;

  constructor(
    private readonly clock: Clock,
    private readonly registry: ManagerRegistry,
    private readonly detector: ZombieDetectorService,
    private readonly statusKeeper: StatusKeeper,
    private readonly breaker: CircuitBreakerService,
    private readonly events: EventStream,
    @Inject(RESOLVED_OPTIONS) private readonly options: ResolvedOptions,
  ) {
    this.rules = rulesOf(options);
    registry.observe({ userForgotten: (user) => this.budgets.delete(user) });
  }

  /** Starts to act on what the heartbeat and the clock find. */
  start(): void {
    this.detector.start((connection, signal) => this.endProven(connection, signal));
    this.statusKeeper.start({
      windowOver: (manager, evidence) => this.endDue(manager, evidence),
      idleTooLong: (manager, evidence) => void manager.close({ reason: 'idle', evidence }),
      credentialsExpired: (connection) => connection.end({ reason: 'token_expired' }),
    });
  }

  /** The level that the user's pressure asks for, in the background; the caller does not wait. */
  startProactive(user: UserRecord): void {
    const level = levelFor(user.pressure, this.options.cleanup);
    if (level) void this.clean(user, level, 'proactive');
  }

  /**
   * Cleans up one user as in the background: only who is dead, absent or proven dead goes. One at a time for each
   * user; a call during a run of the same or a higher level joins it.
   */
  clean(user: UserRecord, level: CleanupLevel, trigger: CleanupTrigger): Promise<CleanupReport> {
    const current = this.running.get(user);
    if (current && reaches(current.level, level)) return current.report;
    const before = current?.report ?? Promise.resolve();
    const report = before.then(() => this.runInBackground(user, level, trigger));
    const entry = { level, report };
    this.running.set(user, entry);
    void report.finally(() => {
      if (this.running.get(user) === entry) this.running.delete(user);
    });
    return report;
  }

  /** An operator's cleanup; resolves when the application's hooks are done too. */
  async cleanManually(
    user: UserRecord,
    { level, count = 0, dryRun = false }: ManualCleanup,
  ): Promise<CleanupReport> {
    if (dryRun) return this.rehearse(user, level, count);
    return this.runInBackground(user, level, 'manual', count);
  }

  /** Looks after everybody under pressure, or whose cleanups fail. A sweep under way is joined. */
  sweep(): Promise<void> {
    this.sweeping ??= this.runSweep().finally(() => {
      this.sweeping = undefined;
    });
    return this.sweeping;
  }

  /**
   * Frees `needed` slots of a user at the limit, level by level, and stops as soon as they are free. Nobody waits
   * for application hooks. Whether it was enough is for the caller to see.
   */
  async makeRoom(user: UserRecord, request: RoomRequest): Promise<CleanupReport> {
    const run = new CleanupRun(this.clock, user, 'admission', this.breaker.isOpen(user));
    run.attempt = this.breaker.begin(user, this.attemptDeadlineMs);
    const target = user.managers.size - request.needed;
    const isOver = () => user.managers.size <= target || request.isAbandoned();
    for (const level of CLEANUP_LEVELS) {
      run.level = level;
      this.takeDead(run, isOver);
      this.takeOverdue(run);
      if (isOver()) break;
      if (level === 'aggressive' && !run.isCheap && !this.hasSuspects(user)) {
        await this.probeUntil(user, request.probe, isOver);
      }
      this.takeDead(run, isOver);
      this.takeExpendable(run, isOver, request);
      if (isOver()) break;
    }
    // An open breaker saves the probe, but nobody is refused for want of one.
    if (run.isCheap && !isOver()) {
      await this.probeUntil(user, request.probe, isOver);
      run.level = 'aggressive';
      this.takeDead(run, isOver);
      this.takeExpendable(run, isOver, request);
    }
    const somethingHadToGo = user.managers.size > target && !request.isAbandoned();
    const report = run.report(somethingHadToGo ? 'nothing_freed' : undefined);
    void this.conclude(run, report);
    return report;
  }

  /** Begins the probe that a newcomer at the limit may need, while it still waits for its turn. */
  startProbe(user: UserRecord): Promise<void> | undefined {
    return this.breaker.isOpen(user) ? undefined : this.detector.probe(user);
  }

  /** Milliseconds until a living session of the user may be asked to leave. */
  forcedEvictionWaitMs(user: UserRecord): number {
    const now = this.clock.now();
    const token = waitForTokenMs(this.budgets.get(user), now, this.options.cleanup);
    return Math.max(token, graceLeftMs(this.candidates(user), now, this.rules));
  }

  /** Whether anybody could have gone whose place costs nothing: dead, absent or suspect. */
  couldHaveFreed(user: UserRecord): boolean {
    return this.candidates(user).some(
      ({ status, suspect }) => status === 'inactive' || status === 'zombie' || suspect,
    );
  }

  private async runInBackground(
    user: UserRecord,
    level: CleanupLevel,
    trigger: CleanupTrigger,
    count = 0,
  ): Promise<CleanupReport> {
    const run = new CleanupRun(this.clock, user, trigger, this.breaker.isOpen(user));
    run.attempt = this.breaker.begin(user, this.attemptDeadlineMs);
    run.level = level;
    this.takeDead(run);
    this.takeOverdue(run);
    if (reaches(level, 'aggressive') && !run.isCheap) await this.probeAndConfirm(run);
    if (level === 'force' && trigger === 'manual') this.takeLeastValuable(run, count);
    const shortfall = level === 'force' && run.evicted.length < count;
    return this.conclude(run, run.report(shortfall ? 'nothing_freed' : undefined));
  }

  private async probeAndConfirm(run: CleanupRun): Promise<void> {
    await this.detector.probe(run.user);
    if (!this.hasSuspects(run.user)) {
      this.takeDead(run);
      return;
    }
    await this.detector.confirmSuspects(run.user);
    this.takeDead(run);
  }

  /** Waits for the hooks' results, tells the breaker, and reports. */
  private async conclude(run: CleanupRun, report: CleanupReport): Promise<CleanupReport> {
    const results = await Promise.all(run.endings);
    const hooksWentWell = results.every(Boolean);
    run.attempt?.settle(hooksWentWell && report.outcome !== 'nothing_freed');
    const outcome: CleanupOutcome = hooksWentWell ? report.outcome : 'hooks_failed';
    const { level, examined, freed, durationMs } = report;
    const { trigger, user } = run;
    this.events.report({
      type: 'cleanup_finished',
      userId: user.userId,
      level,
      trigger,
      outcome,
      examined,
      freed,
      durationMs,
    });
    return { ...report, outcome };
  }

  private async runSweep(): Promise<void> {
    const startedAt = this.clock.now();
    const users = new Set([...this.registry.usersUnderPressure, ...this.breaker.troubled]);
    const queue = [...users];
    const worker = async () => {
      for (let user = queue.pop(); user; user = queue.pop()) {
        await this.clean(user, levelFor(user.pressure, this.options.cleanup) ?? 'conservative', 'scheduled');
      }
    };
    await Promise.all(Array.from({ length: Math.min(SWEEP_CONCURRENCY, queue.length) }, worker));
    this.events.report({
      type: 'sweep_finished',
      users: users.size,
      durationMs: this.clock.now() - startedAt,
    });
  }

  /** Says what {@link cleanManually} would do on the evidence in hand, and does nothing. */
  private rehearse(user: UserRecord, level: CleanupLevel, count: number): CleanupReport {
    const now = this.clock.now();
    const candidates = this.candidates(user);
    const dead = candidates.filter(({ status }) => status === 'zombie');
    const choices: Choice[] = [
      ...dead.map(
        ({ manager }): Choice => ({ managerId: manager.id, signal: 'missed_pongs', living: false }),
      ),
      ...overdue(candidates, level, now, this.rules),
    ];
    if (level === 'force') {
      const rest = candidates.filter(
        ({ manager }) => !choices.some(({ managerId }) => managerId === manager.id),
      );
      choices.push(...expendable(rest, 'force', now, this.rules).slice(0, count));
    }
    const evicted = choices.flatMap(({ managerId, signal }): Eviction[] => {
      const manager = this.registry.manager(managerId);
      return manager
        ? [{ managerId, reason: reasonOf(signal), evidence: this.evidence(manager, signal) }]
        : [];
    });
    return {
      level,
      examined: candidates.length,
      evicted,
      freed: 0,
      durationMs: this.clock.now() - now,
      outcome: 'dry_run',
    };
  }

  /**
   * Ends every connection that is proven dead at this moment. What is not to be believed in the background goes for
   * a newcomer only, longest silent first, as far as it is needed.
   */
  private takeDead(run: CleanupRun, isOver = () => true): void {
    const dead = [...run.user.managers].flatMap((manager) =>
      manager.connections.flatMap((connection) => {
        const signal = this.detector.proofOf(connection);
        return signal === undefined ? [] : [{ connection, signal, isRipe: this.isRipe(connection, signal) }];
      }),
    );
    const doubtful = dead
      .filter(({ isRipe }) => !isRipe)
      .sort((a, b) => a.connection.lastHeardAt - b.connection.lastHeardAt);
    for (const { connection, signal } of dead.filter(({ isRipe }) => isRipe))
      this.endDead(connection, signal, run);
    for (const { connection, signal } of doubtful) {
      if (isOver()) return;
      this.endDead(connection, signal, run);
    }
  }

  /** Nobody waits in the background: a closing handshake may take its moment, and silence may be our own fault. */
  private isRipe({ transport, liveness }: Connection, signal: string): boolean {
    if (transport.state === 'closing' && !liveness.closingSeen) return false;
    return this.detector.isCredible(signal);
  }

  private takeOverdue(run: CleanupRun): void {
    for (const choice of overdue(this.candidates(run.user), run.level, this.clock.now(), this.rules)) {
      this.evict(run, choice);
    }
  }

  private takeExpendable(run: CleanupRun, isOver: () => boolean, { mayEvictLiving }: RoomRequest): void {
    const { cleanup } = this.options;
    const now = this.clock.now();
    for (const choice of expendable(this.candidates(run.user), run.level, now, this.rules)) {
      if (isOver()) return;
      if (choice.living) {
        const budget = this.budgets.get(run.user);
        if (!mayEvictLiving || !canSpend(budget, now, cleanup)) return;
        this.budgets.set(run.user, spend(budget, now, cleanup));
      }
      this.evict(run, choice);
    }
  }

  private takeLeastValuable(run: CleanupRun, count: number): void {
    const choices = expendable(this.candidates(run.user), 'force', this.clock.now(), this.rules);
    for (const choice of choices.slice(0, count)) this.evict(run, choice);
  }

  private evict(run: CleanupRun, { managerId, signal }: Choice): void {
    const manager = this.registry.manager(managerId);
    if (!manager) return;
    const evidence = this.evidence(manager, signal);
    const reason = reasonOf(signal);
    if (reason === 'no_pong')
      for (const connection of manager.connections) this.reportZombie(connection, evidence);
    run.note({ managerId, reason, evidence });
    run.endings.push(manager.close({ reason, evidence, ...run.account }));
  }

  /** With a session key, and inside its window, the manager stays; otherwise it ends with its last connection. */
  private endDead(connection: Connection, signal: string, run: CleanupRun): void {
    const { manager } = connection;
    const evidence = this.evidence(manager, signal);
    this.reportZombie(connection, evidence);
    connection.end({ reason: 'no_pong', evidence, ...run.account });
    if (manager.isOpen) return;
    run.note({ managerId: manager.id, reason: 'no_pong', evidence });
    run.endings.push(manager.close({ reason: 'no_pong' }));
  }

  /** The heartbeat's finding: a cleanup of one connection. */
  private endProven(connection: Connection, signal: string): void {
    this.endAlone(connection.manager, (run) => this.endDead(connection, signal, run));
  }

  private endDue(manager: Manager, evidence: Evidence): void {
    this.endAlone(manager, (run) => {
      run.note({ managerId: manager.id, reason: 'inactive', evidence });
      run.endings.push(manager.close({ reason: 'inactive', evidence, ...run.account }));
    });
  }

  private endAlone(manager: Manager, end: (run: CleanupRun) => void): void {
    const { user } = manager;
    const run = new CleanupRun(this.clock, user, 'scheduled', this.breaker.isOpen(user));
    run.attempt = this.breaker.begin(user, this.attemptDeadlineMs);
    end(run);
    void this.conclude(run, run.report());
  }

  private reportZombie(connection: Connection, evidence: Evidence): void {
    this.events.report({
      type: 'zombie_detected',
      ...connection.manager.identity,
      connectionId: connection.id,
      evidence,
      wasSuspect: connection.liveness.suspectedAt !== undefined,
    });
  }

  /** A slot that comes free by itself meanwhile is as good as one that the probe frees. */
  private async probeUntil(
    user: UserRecord,
    begun: Promise<void> | undefined,
    isOver: () => boolean,
  ): Promise<void> {
    let stopListening = () => {};
    const freed = new Promise<void>((resolve) => {
      stopListening = user.onFreed(() => {
        if (isOver()) resolve();
      });
    });
    await Promise.race([begun ?? this.detector.probe(user), freed]);
    stopListening();
  }

  private hasSuspects(user: UserRecord): boolean {
    for (const manager of user.managers) {
      for (const connection of manager.connections) {
        // A byte that nobody has looked at yet acquits.
        connection.lookForBytes();
      }
    }
    return this.candidates(user).some(({ suspect }) => suspect);
  }

  private candidates(user: UserRecord) {
    return candidatesOf([...user.managers].map(snapshotOf), this.clock.now(), this.rules);
  }

  private evidence(manager: Manager, signal: string): Evidence {
    return evidenceOf(snapshotOf(manager), signal, this.clock.now(), this.rules);
  }

  /** A cleanup that takes longer than all of its own deadlines together went wrong. */
  private get attemptDeadlineMs(): number {
    const { heartbeat, cleanup } = this.options;
    return 4 * heartbeat.probeTimeoutMs + 3 * cleanup.hookTimeoutMs;
  }
}

function reasonOf(signal: Choice['signal']): 'inactive' | 'no_pong' | 'evicted' {
  if (signal === 'inactive') return 'inactive';
  return signal === 'missed_pongs' ? 'no_pong' : 'evicted';
}

/** One cleanup under way. */
class CleanupRun {
  level: CleanupLevel = 'conservative';
  attempt: Attempt | undefined;
  readonly evicted: Eviction[] = [];
  /** Of every manager that was ended: whether the application's hooks went well. */
  readonly endings: Promise<boolean>[] = [];
  private readonly startedAt: number;
  private readonly examined: number;

  constructor(
    private readonly clock: Clock,
    readonly user: UserRecord,
    readonly trigger: CleanupTrigger,
    /** The breaker is open: no probe, no hooks. */
    readonly isCheap: boolean,
  ) {
    this.startedAt = clock.now();
    this.examined = user.managers.size;
  }

  /** What every ending of this run carries. */
  get account(): { level: CleanupLevel; trigger: CleanupTrigger; withoutHooks: boolean } {
    return { level: this.level, trigger: this.trigger, withoutHooks: this.isCheap };
  }

  note(eviction: Eviction): void {
    this.evicted.push(eviction);
  }

  report(outcome?: CleanupOutcome): CleanupReport {
    return {
      level: this.level,
      examined: this.examined,
      evicted: this.evicted,
      freed: this.evicted.length,
      durationMs: this.clock.now() - this.startedAt,
      outcome: outcome ?? (this.evicted.length > 0 ? 'freed' : 'nothing_to_do'),
    };
  }
}
