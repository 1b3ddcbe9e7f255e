import { Injectable } from '@nestjs/common';
import { Clock } from '../clock/clock.js';
import type { Manager } from '../manager/manager.js';
import { ManagerRegistry } from '../manager/manager-registry.js';
import type { UserRecord } from '../manager/user-record.js';

/** A session evicted to make room does not evict a living one for so long. */
const BARRED_MS = 60_000;
/** Evicted, and back within this time: perhaps it should not have been. */
const RETURNED_MS = 30_000;
/** Of one user; the oldest are forgotten for who brings a new key with every connection. */
const MOST_KEPT = 1_000;

interface EvictedSession {
  readonly at: number;
  /** Evicted while alive. */
  readonly barred: boolean;
  /** It was told to come back then; the promise is kept, the bar notwithstanding. */
  promisedAt: number | undefined;
}

/** Remembers which sessions were evicted lately, by their keys; one without a key cannot be told from a new one. */
@Injectable()
export class EvictedSessions {
  private readonly byUser = new Map<UserRecord, Map<string, EvictedSession>>();

  constructor(
    private readonly clock: Clock,
    registry: ManagerRegistry,
  ) {
    registry.observe({
      managerRemoved: (manager) => this.note(manager),
      remembers: (user) => this.byUser.has(user),
      userForgotten: (user) => this.byUser.delete(user),
    });
  }

  /** The session was evicted less than 30 s ago. */
  isReturning(user: UserRecord, sessionKey: string | undefined): boolean {
    const session = this.find(user, sessionKey);
    return session !== undefined && this.clock.now() - session.at < RETURNED_MS;
  }

  /** Whether living sessions may be asked to leave for this one. */
  mayEvictLiving(user: UserRecord, sessionKey: string | undefined): boolean {
    const session = this.find(user, sessionKey);
    if (!session?.barred) return true;
    const now = this.clock.now();
    return now - session.at >= BARRED_MS || (session.promisedAt !== undefined && now >= session.promisedAt);
  }

  /** The session is refused and told to come back in so many milliseconds. */
  notePromise(user: UserRecord, sessionKey: string | undefined, retryAfterMs: number): void {
    const session = this.find(user, sessionKey);
    if (session) session.promisedAt ??= this.clock.now() + retryAfterMs;
  }

  private find(user: UserRecord, sessionKey: string | undefined): EvictedSession | undefined {
    return sessionKey === undefined ? undefined : this.byUser.get(user)?.get(sessionKey);
  }

  private note({ user, sessionKey, endedBy }: Manager): void {
    const isEviction = endedBy === 'evicted' || endedBy === 'no_pong' || endedBy === 'inactive';
    if (sessionKey === undefined || !isEviction) return;
    const now = this.clock.now();
    const sessions = this.byUser.get(user) ?? new Map<string, EvictedSession>();
    this.byUser.set(user, sessions);
    // Oldest first: what has lost its meaning is at the front.
    for (const [key, { at }] of sessions) {
      if (now - at < BARRED_MS && sessions.size < MOST_KEPT) break;
      sessions.delete(key);
    }
    sessions.delete(sessionKey);
    sessions.set(sessionKey, { at: now, barred: endedBy === 'evicted', promisedAt: undefined });
  }
}
