import { type Due, NOT_QUEUED } from '../clock/due-queue.js';
import type { Manager } from './manager.js';
import { OneOrMany } from './one-or-many.js';

/** With fewer slots than this, one or two sessions are above every threshold, and pressure says nothing. */
const LEAST_SLOTS_FOR_THRESHOLDS = 4;

/** What is known of one user on this node: the managers, and nothing that could drift from them. */
export class UserRecord implements Due {
  dueTick = NOT_QUEUED;
  /** Oldest first. Its size is the number of managers; there is no other count. */
  readonly managers = new OneOrMany<Manager>();
  /** The limit that the last admission was decided by; undefined before the first. */
  limit: number | undefined;
  /** Managers of the user everywhere, as the store last said; undefined where only this node counts. */
  countEverywhere: number | undefined;
  /** Admissions under way: the record is not forgotten meanwhile. */
  admissions = 0;
  /** Cleanups that have not come to their end, the application's hooks included: nor during those. */
  cleanups = 0;
  private sessions: Map<string, Manager> | undefined;
  private freedListeners: Set<() => void> | undefined;

  constructor(readonly userId: string) {}

  /** Managers / limit. */
  get pressure(): number {
    return Math.max(this.managers.size, this.countEverywhere ?? 0) / (this.limit ?? Number.POSITIVE_INFINITY);
  }

  /** Whether the thresholds of cleanup apply to the user's limit. */
  get hasThresholds(): boolean {
    return (this.limit ?? 0) >= LEAST_SLOTS_FOR_THRESHOLDS;
  }

  get isUnused(): boolean {
    return this.managers.size === 0 && this.admissions === 0 && this.cleanups === 0;
  }

  session(sessionKey: string | undefined): Manager | undefined {
    return sessionKey === undefined ? undefined : this.sessions?.get(sessionKey);
  }

  /** For the registry. */
  add(manager: Manager): void {
    this.managers.add(manager);
    if (manager.sessionKey === undefined) return;
    this.sessions ??= new Map();
    this.sessions.set(manager.sessionKey, manager);
  }

  /** For the registry. */
  remove(manager: Manager): void {
    this.managers.delete(manager);
    if (manager.sessionKey !== undefined) this.sessions?.delete(manager.sessionKey);
    for (const listener of this.freedListeners ?? []) listener();
  }

  /** Calls back whenever a manager of the user has ended, until the returned function is called. */
  onFreed(listener: () => void): () => void {
    this.freedListeners ??= new Set();
    this.freedListeners.add(listener);
    return () => {
      this.freedListeners?.delete(listener);
      if (this.freedListeners?.size === 0) this.freedListeners = undefined;
    };
  }
}
