import { Inject, Injectable } from '@nestjs/common';
import { Clock } from '../clock/clock.js';
import { EventStream } from '../events/event-stream.js';
import {
  CLEANUP_LEVELS,
  type CleanupLevel,
  type CleanupOutcome,
  type CleanupTrigger,
} from '../events/vocabulary.js';
import { rulesOf } from '../liveness/assessment.js';
import { StatusKeeper } from '../liveness/status-keeper.js';
import { ZombieDetectorService } from '../liveness/zombie-detector.service.js';
import type { Manager } from '../manager/manager.js';
import { ManagerRegistry } from '../manager/manager-registry.js';
import type { UserRecord } from '../manager/user-record.js';
import { RESOLVED_OPTIONS, type ResolvedOptions } from '../options/websocket-manager-options.interface.js';
import { CircuitBreakerService } from './circuit-breaker.service.js';
import { type CleanupContext, type CleanupReport, CleanupRun } from './cleanup-run.js';
import { type Budget, canSpend, spend, waitForTokenMs } from './eviction-budget.js';
import { type Candidate, candidatesOf, graceLeftMs, levelFor, reaches } from './policy.js';
import { rehearsal } from './rehearsal.js';

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
  /** The user is below the limit, and a suspect is left alone: only dead and disconnected sessions may be evicted. */
  readonly sparesSuspects?: boolean | undefined;
  /** The newcomer has gone: nobody needs to leave any more. */
  readonly isAbandoned: () => boolean;
  /** A probe that was begun for this newcomer already. */
  readonly probe?: Promise<void> | undefined;
}

const LEVELS_WITHOUT_PROBE: readonly CleanupLevel[] = ['conservative', 'moderate'];

/** Users that one sweep cleans up at the same time. */
const SWEEP_CONCURRENCY = 50;

/** Says when somebody has to go, and how far it goes: in the background only the dead, at the limit what is needed. */
@Injectable()
export class CleanupService {
  private readonly context: CleanupContext;
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
    this.context = { clock, registry, detector, events, rules: rulesOf(options) };
    registry.observe({
      remembers: (user) => this.budgets.has(user),
      userForgotten: (user) => this.budgets.delete(user),
    });
  }

  /** Starts to act on what the heartbeat and the clock find. */
  start(): void {
    this.detector.start((connection, signal) =>
      this.endAlone(connection.manager, (run) => run.endDead(connection, signal)),
    );
    this.statusKeeper.start({
      windowOver: (manager) =>
        this.endAlone(manager, (run) => run.evict({ managerId: manager.id, signal: 'inactive' })),
      idleTooLong: (manager, evidence) => void manager.close({ reason: 'idle', evidence }),
      credentialsExpired: (connection) => connection.end({ reason: 'token_expired' }),
    });
  }

  /** The level that the user's pressure asks for, in the background; the caller does not wait. */
  startProactive(user: UserRecord): void {
    const level = levelFor(user, this.options.cleanup);
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
    const report = before
      .then(() => this.runInBackground(user, level, trigger))
      .then(({ run, report }) => {
        // Nobody waits for the application's hooks: one user's slow ones must not hold up a sweep for the others.
        void run.conclude(report);
        return report;
      })
      .catch((error: unknown) => this.reportFailure(user, level, error));
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
    const { run, report } = await this.runInBackground(user, level, 'manual', count);
    return run.conclude(report);
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
    const run = this.begin(user, 'admission');
    const target = user.managers.size - request.needed;
    const isOver = () => user.managers.size <= target || request.isAbandoned();
    const mayTakeLiving = () => request.mayEvictLiving && this.spendBudget(user);
    await this.hearOut(run);
    run.takeDead(isOver);
    for (const level of request.sparesSuspects ? LEVELS_WITHOUT_PROBE : CLEANUP_LEVELS) {
      run.level = level;
      run.takeOverdue();
      if (level === 'aggressive') {
        // An open breaker spares the probe as long as anybody else can go; no living session goes for want of one.
        if (run.isCheap) run.takeExpendable(isOver, mayTakeLiving);
        if (!isOver()) await this.findSuspects(run, request.probe, isOver);
      }
      run.takeExpendable(isOver, mayTakeLiving);
      if (isOver()) break;
    }
    const report = run.report(isOver() ? undefined : this.shortfallOf(user));
    void run.conclude(report);
    return report;
  }

  /** Begins the probe that a newcomer at the limit may need, while it still waits for its turn. */
  startProbe(user: UserRecord): Promise<void> {
    return this.detector.probe(user, 'admission');
  }

  /** Milliseconds until a living session of the user may be asked to leave. */
  forcedEvictionWaitMs(user: UserRecord, limit: number): number {
    const now = this.clock.now();
    const token = waitForTokenMs(this.budgets.get(user), now, this.options.cleanup);
    const tooMany = user.managers.size - limit;
    return Math.max(token, graceLeftMs(this.candidates(user), tooMany, now, this.context.rules));
  }

  /** Whether the user's budget has an eviction of a living session left. */
  mayForceEviction(user: UserRecord): boolean {
    return canSpend(this.budgets.get(user), this.clock.now(), this.options.cleanup);
  }

  /** A living session of the user is asked to leave, here or on another node. */
  noteForcedEviction(user: UserRecord): void {
    this.budgets.set(user, spend(this.budgets.get(user), this.clock.now(), this.options.cleanup));
  }

  /** Whether anybody could have gone whose place costs nothing: dead, absent or suspect. */
  couldHaveFreed(user: UserRecord): boolean {
    return this.candidates(user).some(({ status, suspect }) => status === 'inactive' || suspect);
  }

  /** A user whose sessions are all in use is no failure of the cleanup. */
  private shortfallOf(user: UserRecord): CleanupOutcome {
    return this.couldHaveFreed(user) ? 'nothing_freed' : 'all_protected';
  }

  private begin(user: UserRecord, trigger: CleanupTrigger): CleanupRun {
    const { heartbeat, cleanup } = this.options;
    // What takes longer than all of its own deadlines together went wrong.
    const attempt = this.breaker.begin(user, 4 * heartbeat.probeTimeoutMs + 3 * cleanup.hookTimeoutMs);
    return new CleanupRun(this.context, user, trigger, this.breaker.isOpen(user), attempt);
  }

  private async runInBackground(
    user: UserRecord,
    level: CleanupLevel,
    trigger: CleanupTrigger,
    count = 0,
  ): Promise<{ run: CleanupRun; report: CleanupReport }> {
    await this.clock.yieldIfOverBudget();
    const run = this.begin(user, trigger);
    run.level = level;
    await this.hearOut(run);
    run.takeDead();
    run.takeOverdue();
    if (reaches(level, 'aggressive') && !run.isCheap && user.managers.size > 0) {
      await this.detector.probe(user);
      await this.clock.yieldIfOverBudget();
      await this.hearOut(run);
      run.takeDead();
    }
    // In the background nobody living goes, but for the number that an operator names.
    const target = user.managers.size - count;
    if (level === 'force') {
      run.takeExpendable(
        () => user.managers.size <= target,
        () => true,
      );
    }
    const fellShort = count > 0 && run.evicted.length === 0 && user.managers.size > 0;
    return { run, report: run.report(fellShort ? this.shortfallOf(user) : undefined) };
  }

  /** After a stall of ours, who has answered long ago must not go for being silent: what waits in the sockets is read. */
  private async hearOut(run: CleanupRun): Promise<void> {
    if (run.accusesAnybody) await new Promise<void>((resolve) => this.clock.afterReads(resolve));
  }

  /** Nobody waits for a cleanup in the background: what goes wrong in it is said, and the next one is tried. */
  private reportFailure(user: UserRecord, level: CleanupLevel, error: unknown): CleanupReport {
    this.events.report({ type: 'hook_failed', hook: 'cleanup', error });
    const examined = user.managers.size;
    return { level, examined, evicted: [], freed: 0, durationMs: 0, outcome: 'nothing_freed' };
  }

  /** The end of one manager or connection by itself, outside any cleanup of its user. */
  private endAlone(manager: Manager, end: (run: CleanupRun) => void): void {
    const run = this.begin(manager.user, 'scheduled');
    end(run);
    void run.conclude(run.report());
  }

  /** Probes, unless somebody is a suspect already. A slot that comes free by itself meanwhile is as good. */
  private async findSuspects(
    run: CleanupRun,
    begun: Promise<void> | undefined,
    isOver: () => boolean,
  ): Promise<void> {
    if (!run.hasSuspects) {
      let stopListening = () => {};
      const freed = new Promise<void>((resolve) => {
        stopListening = run.user.onFreed(() => {
          if (isOver()) resolve();
        });
      });
      await Promise.race([begun ?? this.detector.probe(run.user, 'admission'), freed]);
      stopListening();
      // The probes of many users may have ended in the same moment.
      await this.clock.yieldIfOverBudget('admission');
      // One of them may have been heard first of many that are being read.
      await this.hearOut(run);
    }
    run.takeDead(isOver);
  }

  private spendBudget(user: UserRecord): boolean {
    if (!this.mayForceEviction(user)) return false;
    this.noteForcedEviction(user);
    return true;
  }

  private async runSweep(): Promise<void> {
    const startedAt = this.clock.now();
    const users = new Set([...this.registry.usersUnderPressure, ...this.breaker.troubled]);
    const queue = [...users];
    const worker = async () => {
      for (let user = queue.pop(); user; user = queue.pop()) {
        await this.clean(user, levelFor(user, this.options.cleanup) ?? 'conservative', 'scheduled');
      }
    };
    await Promise.all(Array.from({ length: SWEEP_CONCURRENCY }, worker));
    const durationMs = this.clock.now() - startedAt;
    this.events.report({ type: 'sweep_finished', users: users.size, durationMs });
  }

  private rehearse(user: UserRecord, level: CleanupLevel, count: number): CleanupReport {
    const now = this.clock.now();
    const candidates = this.candidates(user);
    const evicted = rehearsal(candidates, level, count, now, this.context.rules);
    const durationMs = this.clock.now() - now;
    return { level, examined: candidates.length, evicted, freed: 0, durationMs, outcome: 'dry_run' };
  }

  private candidates(user: UserRecord): Candidate[] {
    return candidatesOf(user.managers, this.clock.now(), this.context.rules);
  }
}
