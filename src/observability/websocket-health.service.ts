import { Inject, Injectable } from '@nestjs/common';
import { Canary } from '../admission/canary.js';
import { DrainState } from '../admission/drain-state.js';
import { CircuitBreakerService } from '../cleanup/circuit-breaker.service.js';
import { CleanupScheduler } from '../cleanup/cleanup-scheduler.js';
import type { ManagerStatus } from '../events/vocabulary.js';
import { Heartbeat } from '../liveness/heartbeat.js';
import { ManagerRegistry } from '../manager/manager-registry.js';
import { importOptional } from '../options/import-optional.js';
import { RESOLVED_OPTIONS, type ResolvedOptions } from '../options/websocket-manager-options.interface.js';
import { SlotLedger } from '../store/slot-ledger.js';

/** After this many of its periods without a sign of it, the heartbeat or the sweep counts as stalled. */
const STALLED_PERIODS = 3;
/** ... but not before so many milliseconds: short periods are missed for lesser reasons. */
const STALLED_LEAST_MS = 10_000;

/** Why a node is `down` (the first four) or `degraded` (the others). A canary's reason goes on with what it missed. */
export type WebSocketHealthReason =
  | 'draining'
  | 'node full'
  | 'heartbeat stalled'
  | 'sweep stalled'
  | 'store away'
  | 'open breakers'
  | 'self-preservation'
  | `canary: ${string}`;

/** What a health check tells of this node. */
export interface WebSocketHealthDetail {
  readonly status: 'up' | 'degraded' | 'down';
  /** Why it is not simply `up`. */
  readonly reasons: readonly WebSocketHealthReason[];
  readonly managers: number;
  readonly users: number;
  readonly usersAtLimit: number;
  readonly connections: number;
  readonly byStatus: Readonly<Record<ManagerStatus, number>>;
  readonly zombies: number;
  readonly openBreakers: number;
  readonly lastSweepAgoMs: number;
  readonly selfPreservation: boolean;
  readonly canary: 'ok' | 'failing' | 'off';
  readonly store: { readonly name: string; readonly status: 'up' | 'degraded' };
  readonly draining: boolean;
}

/** The same for Terminus, in the words that the version of it knows that is installed. */
export interface WebSocketHealthIndication extends Omit<WebSocketHealthDetail, 'status'> {
  // biome-ignore lint/suspicious/noExplicitAny: Terminus 11 would not take the type of a `status` that may be `degraded`
  readonly status: any;
  /** Instead of the status, where Terminus has no `degraded`. */
  readonly degraded?: true;
}

/**
 * The Terminus indicator. `down` only for what takes this node out of service: draining, full, heartbeat or sweep
 * stalled. A user at the limit is no ill health; a store that is away, an open breaker or a failing canary is
 * `degraded`, which Terminus answers with 200.
 *
 * @example
 * ```ts
 * this.health.check([() => this.webSockets.isHealthy('websocket_managers')]);
 * ```
 */
@Injectable()
export class WebSocketHealthService {
  /** Terminus 11 has no `degraded` and would drop the whole entry. */
  private knowsDegraded: Promise<boolean> | undefined;

  constructor(
    private readonly registry: ManagerRegistry,
    private readonly heartbeat: Heartbeat,
    private readonly scheduler: CleanupScheduler,
    private readonly breaker: CircuitBreakerService,
    private readonly ledger: SlotLedger,
    private readonly canary: Canary,
    private readonly drain: DrainState,
    @Inject(RESOLVED_OPTIONS) private readonly options: ResolvedOptions,
  ) {}

  async isHealthy<Key extends string = 'websocket_managers'>(
    key: Key = 'websocket_managers' as Key,
  ): Promise<Record<Key, WebSocketHealthIndication>> {
    const detail = this.detail();
    this.knowsDegraded ??= terminusKnowsDegraded();
    const isHidden = detail.status === 'degraded' && !(await this.knowsDegraded);
    return { [key]: isHidden ? { ...detail, status: 'up', degraded: true } : detail } as Record<
      Key,
      WebSocketHealthIndication
    >;
  }

  detail(): WebSocketHealthDetail {
    const down = this.reasonsDown();
    const degraded = this.reasonsDegraded();
    const { statusCounts } = this.registry;
    return {
      status: down.length > 0 ? 'down' : degraded.length > 0 ? 'degraded' : 'up',
      reasons: [...down, ...degraded],
      managers: this.registry.managerCount,
      users: this.registry.userCount,
      usersAtLimit: this.registry.usersAtLimit.size,
      connections: this.registry.connectionCount,
      byStatus: { ...statusCounts },
      zombies: statusCounts.zombie,
      openBreakers: this.breaker.count('open'),
      lastSweepAgoMs: Math.round(this.scheduler.sinceLastSweepMs),
      selfPreservation: this.heartbeat.isSelfPreserving,
      canary: this.canaryState(),
      store: { name: this.ledger.name, status: this.ledger.isDegraded ? 'degraded' : 'up' },
      draining: this.drain.isDraining,
    };
  }

  private reasonsDown(): WebSocketHealthReason[] {
    const { limits, heartbeat, cleanup } = this.options;
    const reasons: WebSocketHealthReason[] = [];
    if (this.drain.isDraining) reasons.push('draining');
    if (limits.managersPerNode !== undefined && this.registry.managerCount >= limits.managersPerNode) {
      reasons.push('node full');
    }
    if (isStalled(this.heartbeat.sinceLastTickMs, heartbeat.intervalMs)) reasons.push('heartbeat stalled');
    if (isStalled(this.scheduler.sinceLastSweepMs, cleanup.intervalMs)) reasons.push('sweep stalled');
    return reasons;
  }

  private reasonsDegraded(): WebSocketHealthReason[] {
    const reasons: WebSocketHealthReason[] = [];
    if (this.ledger.isDegraded) reasons.push('store away');
    if (this.breaker.count('open') > 0) reasons.push('open breakers');
    if (this.heartbeat.isSelfPreserving) reasons.push('self-preservation');
    const failures = this.canary.lastResult?.failures ?? [];
    reasons.push(...failures.map((failure) => `canary: ${failure}` as const));
    return reasons;
  }

  private canaryState(): 'ok' | 'failing' | 'off' {
    if (this.options.canary.intervalMs === 0) return 'off';
    return (this.canary.lastResult?.ok ?? true) ? 'ok' : 'failing';
  }
}

function isStalled(sinceMs: number, periodMs: number): boolean {
  return sinceMs > Math.max(STALLED_LEAST_MS, STALLED_PERIODS * periodMs);
}

async function terminusKnowsDegraded(): Promise<boolean> {
  const terminus = await importOptional(() => import('@nestjs/terminus'), '@nestjs/terminus');
  return (
    terminus === undefined || 'degraded' in new terminus.HealthIndicatorService().check('websocket_managers')
  );
}
