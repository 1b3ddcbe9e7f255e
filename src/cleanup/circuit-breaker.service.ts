import { Inject, Injectable } from '@nestjs/common';
import { Clock } from '../clock/clock.js';
import { EventStream } from '../events/event-stream.js';
import type { BreakerState } from '../events/vocabulary.js';
import { ManagerRegistry } from '../manager/manager-registry.js';
import type { UserRecord } from '../manager/user-record.js';
import { RESOLVED_OPTIONS, type ResolvedOptions } from '../options/websocket-manager-options.interface.js';
import { afterFailure, afterSuccess, type Breaker, stateOf } from './circuit-breaker.js';

/** One cleanup whose result the breaker waits for. */
export interface Attempt {
  /** Says how it went; only the first call counts. Too late, it went wrong; after a change of state, it is ignored. */
  settle(wentWell: boolean): void;
}

/**
 * One breaker for each user whose cleanups fail. Open, it spares the expensive part of a cleanup: probes and the
 * application's hooks. It never denies a user a connection, and never touches another user.
 */
@Injectable()
export class CircuitBreakerService {
  private readonly breakers = new Map<UserRecord, Breaker>();
  /** What the listeners were last told; a state that changes with time alone is told when it is next looked at. */
  private readonly reported = new Map<UserRecord, BreakerState>();

  constructor(
    private readonly clock: Clock,
    private readonly events: EventStream,
    private readonly registry: ManagerRegistry,
    @Inject(RESOLVED_OPTIONS) private readonly options: ResolvedOptions,
  ) {
    registry.observe({
      remembers: (user) => this.breakers.has(user),
      userForgotten: (user) => {
        this.breakers.delete(user);
        this.reported.delete(user);
      },
    });
  }

  /** The state of a user's breaker at this moment. */
  stateOf(user: UserRecord | undefined): BreakerState {
    if (!user) return 'closed';
    const state = this.peek(user);
    this.report(user, state);
    return state;
  }

  isOpen(user: UserRecord): boolean {
    return this.stateOf(user) === 'open';
  }

  /** Users whose breaker is not simply closed and empty. */
  get troubled(): IterableIterator<UserRecord> {
    return this.breakers.keys();
  }

  /** Breakers by state; those that closed again do not exist. */
  count(state: BreakerState): number {
    let count = 0;
    for (const user of this.breakers.keys()) if (this.peek(user) === state) count++;
    return count;
  }

  /** A cleanup of the user begins. It has to settle within `deadlineMs`. */
  begin(user: UserRecord, deadlineMs: number): Attempt {
    const began = this.stateOf(user);
    const epoch = this.breakers.get(user)?.openedAt;
    const deadline = this.clock.now() + deadlineMs;
    let settled = false;
    return {
      settle: (wentWell) => {
        if (settled) return;
        settled = true;
        const isCurrent = this.peek(user) === began && this.breakers.get(user)?.openedAt === epoch;
        if (isCurrent) this.record(user, wentWell && this.clock.now() <= deadline);
      },
    };
  }

  private record(user: UserRecord, wentWell: boolean): void {
    // The user may be gone, and forgotten, before a late hook has failed.
    if (this.registry.user(user.userId) !== user) return;
    const after = wentWell ? afterSuccess : afterFailure;
    const breaker = after(this.breakers.get(user), this.clock.now(), this.options.circuitBreaker);
    if (breaker) this.breakers.set(user, breaker);
    else this.breakers.delete(user);
    this.report(user, this.peek(user));
  }

  private peek(user: UserRecord): BreakerState {
    return stateOf(this.breakers.get(user), this.clock.now(), this.options.circuitBreaker);
  }

  private report(user: UserRecord, to: BreakerState): void {
    const from = this.reported.get(user) ?? 'closed';
    if (from === to) return;
    if (to === 'closed') this.reported.delete(user);
    else this.reported.set(user, to);
    this.events.report({ type: 'breaker_changed', userId: user.userId, from, to });
  }
}
