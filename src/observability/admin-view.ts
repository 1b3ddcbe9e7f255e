import type { Clock } from '../clock/clock.js';
import type { BreakerState, ManagerStatus } from '../events/vocabulary.js';
import { type AssessmentRules, assess, scoreOf } from '../liveness/assessment.js';
import type { Connection } from '../manager/connection.js';
import type { Manager } from '../manager/manager.js';
import type { UserRecord } from '../manager/user-record.js';

/** A user, as the operator's API shows one. Times in ISO 8601. */
export interface UserView {
  readonly userId: string;
  /** null: no limit, or none known yet. */
  readonly limit: number | null;
  readonly pressure: number;
  readonly breaker: BreakerState;
  readonly managers: readonly ManagerView[];
}

export interface ManagerView {
  readonly id: string;
  readonly sessionKey: string | null;
  readonly status: ManagerStatus;
  readonly score: number;
  readonly busy: boolean;
  readonly priority: number;
  readonly createdAt: string;
  readonly lastActivityAt: string;
  readonly connections: readonly ConnectionView[];
}

export interface ConnectionView {
  readonly id: string;
  readonly state: 'open' | 'closing' | 'closed';
  readonly missedPongs: number;
  readonly bufferedBytes: number;
  readonly openedAt: string;
}

/** Turns what is held into what is shown. */
export class AdminViews {
  constructor(
    private readonly clock: Clock,
    private readonly rules: AssessmentRules,
  ) {}

  user(user: UserRecord, limit: number, breaker: BreakerState): UserView {
    return {
      userId: user.userId,
      limit: Number.isFinite(limit) ? limit : null,
      pressure: Number.isFinite(limit) ? user.managers.size / limit : 0,
      breaker,
      managers: [...user.managers].map((manager) => this.manager(manager)),
    };
  }

  private manager(manager: Manager): ManagerView {
    const now = this.clock.now();
    const assessment = assess(manager, now, this.rules);
    return {
      id: manager.id,
      sessionKey: manager.sessionKey ?? null,
      status: assessment.status,
      score: Math.round(scoreOf(assessment, now, this.rules) * 1_000) / 1_000,
      busy: manager.isBusy,
      priority: manager.priority,
      createdAt: this.iso(manager.createdAt),
      lastActivityAt: this.iso(manager.lastActivityAt),
      connections: manager.connections.map((connection) => this.connection(connection)),
    };
  }

  private connection({ id, transport, missedPongs, openedAt }: Connection): ConnectionView {
    return {
      id,
      state: transport.state,
      missedPongs,
      bufferedBytes: transport.bufferedAmount,
      openedAt: this.iso(openedAt),
    };
  }

  private iso(monotonic: number): string {
    return new Date(this.clock.wallNow() - (this.clock.now() - monotonic)).toISOString();
  }
}
