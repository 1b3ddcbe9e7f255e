import { Inject, Injectable } from '@nestjs/common';
import { Clock } from '../clock/clock.js';
import { type Due, DueQueue } from '../clock/due-queue.js';
import type { Evidence } from '../events/vocabulary.js';
import type { Connection } from '../manager/connection.js';
import type { Manager } from '../manager/manager.js';
import { ManagerRegistry } from '../manager/manager-registry.js';
import { RESOLVED_OPTIONS, type ResolvedOptions } from '../options/websocket-manager-options.interface.js';
import {
  type AssessmentRules,
  assess,
  attachDeadlineOf,
  evidenceOf,
  type ManagerFacts,
  rulesOf,
  windowOf,
} from './assessment.js';
import { Heartbeat } from './heartbeat.js';

/** How late something due may be noticed. */
const GRANULARITY_MS = 50;

/** What comes with time alone. */
export interface ExpiryListener {
  /** Nobody came back within the resume window, or nobody ever came. */
  windowOver(manager: Manager): void;
  /** Idle for `cleanup.idleTimeoutMs`. */
  idleTooLong(manager: Manager, evidence: Evidence): void;
  /** The connection's credentials ended. */
  credentialsExpired(connection: Connection): void;
}

/**
 * Keeps every manager's status true, and notices what is due, without ever walking all of them: a change is
 * assessed when it happens, and what only time changes waits in a queue. Activity moves nothing in that queue;
 * a manager that comes up too early is put down again.
 */
@Injectable()
export class StatusKeeper {
  private readonly rules: AssessmentRules;
  private readonly managers: DueQueue<Manager>;
  private readonly expiries: DueQueue<Connection>;
  private listener: ExpiryListener | undefined;

  constructor(
    private readonly clock: Clock,
    private readonly registry: ManagerRegistry,
    private readonly heartbeat: Heartbeat,
    @Inject(RESOLVED_OPTIONS) private readonly options: ResolvedOptions,
  ) {
    this.rules = rulesOf(options);
    this.managers = new DueQueue(GRANULARITY_MS, clock.now());
    this.expiries = new DueQueue(GRANULARITY_MS, clock.now());
    registry.observe({
      // Of one without a connection nothing is known yet.
      managerAdded: (manager) =>
        this.put(this.managers, manager, attachDeadlineOf(manager.createdAt, this.rules)),
      managerTouched: (manager) => this.assess(manager),
      managerRemoved: (manager) => this.managers.cancel(manager),
      connectionAdded: (connection) => {
        if (connection.expiresAt !== undefined) this.put(this.expiries, connection, connection.expiresAt);
        // A new one makes nothing known of a manager of which nothing was; it comes up when it would have, unattached.
        if (connection.manager.status !== 'unknown') this.assess(connection.manager);
      },
      connectionRemoved: (connection) => this.expiries.cancel(connection),
    });
    heartbeat.onTick((now) => this.advance(now));
  }

  start(listener: ExpiryListener): void {
    this.listener = listener;
  }

  /** Works off what is due. */
  advance(now: number): void {
    this.managers.advance(now, (manager) => this.comeUp(manager, now));
    this.expiries.advance(now, (connection) => this.listener?.credentialsExpired(connection));
    this.registry.forgetUnused(now);
    const { nextTickAt } = this.heartbeat;
    for (const queue of [this.managers, this.expiries]) {
      const next = queue.nextDue(nextTickAt);
      if (next !== undefined) this.heartbeat.wakeBy(next);
    }
  }

  /** Things waiting for their time. */
  get waiting(): number {
    return this.managers.size + this.expiries.size;
  }

  private put<T extends Due>(queue: DueQueue<T>, item: T, at: number): void {
    this.heartbeat.wakeBy(queue.schedule(item, at));
  }

  private comeUp(manager: Manager, now: number): void {
    const { status, inactiveSince } = assess(manager, now, this.rules);
    const { idleTimeoutMs } = this.options.cleanup;
    if (inactiveSince !== undefined && now >= inactiveSince + windowOf(manager, this.rules)) {
      this.registry.setStatus(manager, status);
      this.listener?.windowOver(manager);
    } else if (
      idleTimeoutMs !== undefined &&
      manager.connections.length > 0 &&
      !manager.isBusy &&
      now - manager.lastActivityAt >= idleTimeoutMs
    ) {
      this.listener?.idleTooLong(manager, evidenceOf(manager, 'idle', now, this.rules));
    } else {
      this.assess(manager);
    }
  }

  private assess(manager: Manager): void {
    if (!manager.isOpen) return;
    const now = this.clock.now();
    const { status, inactiveSince } = assess(manager, now, this.rules);
    this.registry.setStatus(manager, status);
    const next = this.nextChange(manager, now, inactiveSince);
    if (next === undefined) this.managers.cancel(manager);
    else this.put(this.managers, manager, next);
  }

  /** When time alone will change something about the manager. */
  private nextChange(
    manager: ManagerFacts,
    now: number,
    inactiveSince: number | undefined,
  ): number | undefined {
    const { idleAfterMs, idleTimeoutMs } = this.options.cleanup;
    if (inactiveSince !== undefined) {
      return inactiveSince + windowOf(manager, this.rules);
    }
    if (manager.connections.length === 0) return attachDeadlineOf(manager.createdAt, this.rules);
    const idleAt = manager.lastActivityAt + idleAfterMs;
    const tooLongAt =
      idleTimeoutMs === undefined
        ? Number.POSITIVE_INFINITY
        : Math.max(now + GRANULARITY_MS, manager.lastActivityAt + idleTimeoutMs);
    const next = idleAt > now ? Math.min(idleAt, tooLongAt) : tooLongAt;
    return Number.isFinite(next) ? next : undefined;
  }
}
