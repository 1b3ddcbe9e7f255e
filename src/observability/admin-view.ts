import type { Clock } from '../clock/clock.js';
import type { BreakerState, ManagerStatus } from '../events/vocabulary.js';
import type { EvictedEvent } from '../events/websocket-manager-event.js';
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
  /** Present only while the connection is a suspect. */
  readonly suspectSince?: string;
  readonly bufferedBytes: number;
  readonly openedAt: string;
}

/** An eviction, as the operator's API shows one. */
export type EvictionView = Omit<EvictedEvent, 'at' | 'createdAt'> & {
  readonly at: string;
  readonly createdAt: string;
};

/** What every list of the operator's API has beside its entries. */
interface List {
  /** Entries that match, on all pages. */
  readonly total: number;
  /** Pass it as `after` for the next page; null: there is none. */
  readonly next: string | null;
  /** Nodes of a cluster that did not answer in time. */
  readonly unanswered: readonly string[];
}

export interface UserList extends List {
  readonly users: readonly UserView[];
}

export interface EvictionList extends List {
  readonly evictions: readonly EvictionView[];
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

  eviction(event: EvictedEvent): EvictionView {
    const { at, createdAt } = event;
    return { ...event, at: new Date(at).toISOString(), createdAt: new Date(createdAt).toISOString() };
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

  private connection({ id, transport, missedPongs, openedAt, suspectedAt }: Connection): ConnectionView {
    return {
      id,
      state: transport.state,
      missedPongs,
      ...(suspectedAt === undefined ? {} : { suspectSince: this.iso(suspectedAt) }),
      bufferedBytes: transport.bufferedAmount,
      openedAt: this.iso(openedAt),
    };
  }

  private iso(monotonic: number): string {
    return new Date(this.clock.wallNow() - (this.clock.now() - monotonic)).toISOString();
  }
}
