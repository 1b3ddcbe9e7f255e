import { Inject, Injectable } from '@nestjs/common';
import { CircuitBreakerService } from '../cleanup/circuit-breaker.service.js';
import { CleanupService } from '../cleanup/cleanup.service.js';
import { Clock, type TimerHandle } from '../clock/clock.js';
import { EventStream } from '../events/event-stream.js';
import { NodeCounters } from '../events/node-counters.js';
import { CLEANUP_LEVELS, type CleanupLevel } from '../events/vocabulary.js';
import type { EvictedEvent } from '../events/websocket-manager-event.js';
import { Heartbeat } from '../liveness/heartbeat.js';
import { StatusKeeper } from '../liveness/status-keeper.js';
import { ZombieDetectorService } from '../liveness/zombie-detector.service.js';
import type { Connection } from '../manager/connection.js';
import type { Manager } from '../manager/manager.js';
import { ManagerRegistry } from '../manager/manager-registry.js';
import type { Transport } from '../manager/transport.interface.js';
import { checkUserContext } from '../options/user-context.js';
import { RESOLVED_OPTIONS, type ResolvedOptions } from '../options/websocket-manager-options.interface.js';
import { SlotLedger } from '../store/slot-ledger.js';
import { DrainState } from './drain-state.js';
import { EvictedSessions } from './evicted-sessions.js';
import { WebSocketManagerFactory } from './websocket-manager.factory.js';

const CANARY_USER = 'canary';
const CANARY_LIMIT = 5;
/** Neither the first nor the last: an order that is wrong ends somebody else. */
const VICTIM = 2;

export interface CanaryResult {
  readonly ok: boolean;
  /** What went wrong, by level; empty when all is well. */
  readonly failures: readonly string[];
  /** Milliseconds since 1970. */
  readonly at: number;
}

/**
 * Tries the promise on itself: a synthetic user at the limit, in memory and out of everybody's sight, for whom
 * every cleanup level has to make room, so that the rare path is run every minute and cannot rot.
 */
@Injectable()
export class Canary {
  private timer: TimerHandle | undefined;
  private running: Promise<CanaryResult> | undefined;
  private result: CanaryResult | undefined;

  constructor(
    private readonly clock: Clock,
    @Inject(RESOLVED_OPTIONS) private readonly options: ResolvedOptions,
  ) {}

  /** Of the last run; undefined before the first one, or when the canary is off. */
  get lastResult(): CanaryResult | undefined {
    return this.result;
  }

  start(): void {
    const { intervalMs } = this.options.canary;
    if (intervalMs === 0) return;
    this.timer = this.clock.setInterval(() => void this.run(), intervalMs);
    void this.run();
  }

  stop(): void {
    this.clock.clearInterval(this.timer);
    this.timer = undefined;
  }

  /** Runs every level once. A run under way is joined. */
  run(): Promise<CanaryResult> {
    this.running ??= this.tryLevels().finally(() => {
      this.running = undefined;
    });
    return this.running;
  }

  private async tryLevels(): Promise<CanaryResult> {
    const failures: string[] = [];
    for (const level of CLEANUP_LEVELS) {
      try {
        const failure = await new CanaryTrial(this.clock, this.options).run(level);
        if (failure) failures.push(`${level}: ${failure}`);
      } catch (error) {
        failures.push(`${level}: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
    this.result = { ok: failures.length === 0, failures, at: this.clock.wallNow() };
    return this.result;
  }
}

/** One user, full, in a core of its own: the same classes as everybody's, with nothing else in them. */
class CanaryTrial {
  private readonly registry: ManagerRegistry;
  private readonly factory: WebSocketManagerFactory;
  private readonly events: EventStream;

  constructor(
    private readonly clock: Clock,
    options: ResolvedOptions,
  ) {
    const own = trialOptions(options);
    const counters = new NodeCounters();
    this.events = new EventStream(clock);
    this.registry = new ManagerRegistry(clock, this.events, counters, own);
    const heartbeat = new Heartbeat(clock, this.registry, this.events, counters, own);
    const detector = new ZombieDetectorService(clock, this.registry, heartbeat, this.events, own);
    const keeper = new StatusKeeper(clock, this.registry, heartbeat, own);
    const breaker = new CircuitBreakerService(clock, this.events, this.registry, own);
    const cleanup = new CleanupService(clock, this.registry, detector, keeper, breaker, this.events, own);
    const ledger = new SlotLedger(clock, this.registry, this.events, counters, own);
    const evicted = new EvictedSessions(clock, this.registry);
    const drain = new DrainState(own);
    this.factory = new WebSocketManagerFactory(
      clock,
      this.registry,
      ledger,
      cleanup,
      evicted,
      drain,
      this.events,
      own,
    );
    void ledger.start();
  }

  /** @returns what went wrong. */
  async run(level: CleanupLevel): Promise<string | undefined> {
    const managers: Manager[] = [];
    for (let i = 0; i < CANARY_LIMIT; i++) {
      // Only a session with a key can be without a connection and still be there.
      managers.push(await this.admit(level === 'moderate' && i === VICTIM ? 'left' : undefined));
    }
    const victim = this.prepare(level, managers);
    const evictions: EvictedEvent[] = [];
    const subscription = this.events.events$.subscribe((event) => {
      if (event.type === 'evicted') evictions.push(event);
    });
    try {
      const newcomer = await this.factory.admit(checkUserContext({ userId: CANARY_USER }));
      if (!newcomer.admitted) return `refused with ${newcomer.reason}`;
      const [first, ...others] = evictions;
      if (others.length > 0) return `${evictions.length} sessions ended for one newcomer`;
      if (first?.managerId !== victim.id) return 'the wrong session ended';
      if (first.level !== level) return `ended at the level ${first.level}`;
      return undefined;
    } finally {
      subscription.unsubscribe();
      for (const manager of [...this.registry.allManagers]) void manager.close({ reason: 'left' });
    }
  }

  private async admit(sessionKey: string | undefined): Promise<Manager> {
    const manager = await this.factory.create({ userId: CANARY_USER, sessionKey });
    const transport = new CanaryTransport(this.clock);
    transport.connection = manager.attach(transport);
    transport.connection.noteReceived();
    return manager;
  }

  /** Makes one of the sessions the one that this level, and none before it, can take. */
  private prepare(level: CleanupLevel, managers: Manager[]): Manager {
    const victim = managers[VICTIM] as Manager;
    const transport = victim.connections[0]?.transport as CanaryTransport;
    switch (level) {
      case 'conservative':
        // A socket that closed without anybody noticing.
        transport.state = 'closed';
        break;
      case 'moderate':
        victim.connections[0]?.end({ reason: 'internal' });
        break;
      case 'aggressive':
        transport.answers = false;
        break;
      case 'force':
        // Equal in all but that it was active longest ago.
        victim.lastActivityAt = victim.createdAt - 1;
        break;
    }
    return victim;
  }
}

/** The node's own options, but for what belongs to the application or would get in the way of the trial. */
function trialOptions(options: ResolvedOptions): ResolvedOptions {
  return {
    ...options,
    store: undefined,
    limits: { ...options.limits, managersPerUser: CANARY_LIMIT, managersPerNode: undefined },
    cleanup: {
      ...options.cleanup,
      graceMs: 0,
      idleAfterMs: Math.max(60_000, options.cleanup.idleAfterMs),
      // No background cleanup may do what the level under trial is to do.
      proactiveThreshold: 2,
      moderateThreshold: 2,
      aggressiveThreshold: 2,
    },
    session: { resumeWindowMs: Math.max(1_000, options.session.resumeWindowMs) },
    admission: { ...options.admission, queueTimeoutMs: 0 },
  };
}

/** A peer in memory. */
class CanaryTransport implements Transport {
  state: 'open' | 'closing' | 'closed' = 'open';
  answers = true;
  bytesRead = 1;
  connection: Connection | undefined;
  readonly paused = false;
  readonly bytesWritten = 0;
  readonly bytesQueued = 0;
  readonly bufferedAmount = 0;

  constructor(private readonly clock: Clock) {}

  get isOpen(): boolean {
    return this.state === 'open';
  }

  ping(): void {
    if (!this.answers) return;
    this.bytesRead += 2;
    this.clock.afterReads(() => this.connection?.notePong());
  }

  send(): void {
    // Nobody reads what a canary is told.
  }

  close(code: number, reason: string): void {
    this.finish(code, reason);
  }

  terminate(): void {
    this.finish(1006, '');
  }

  private finish(code: number, reason: string): void {
    if (this.connection?.closed) return;
    this.state = 'closed';
    this.connection?.noteClosed(code, reason);
    this.connection?.noteTold();
  }
}
