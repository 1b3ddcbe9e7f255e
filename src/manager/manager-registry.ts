import { Inject, Injectable } from '@nestjs/common';
import { Clock } from '../clock/clock.js';
import { DueQueue, NOT_QUEUED } from '../clock/due-queue.js';
import { EventStream } from '../events/event-stream.js';
import { NodeCounters } from '../events/node-counters.js';
import type { ManagerStatus } from '../events/vocabulary.js';
import type { CheckedUserContext } from '../options/user-context.js';
import { RESOLVED_OPTIONS, type ResolvedOptions } from '../options/websocket-manager-options.interface.js';
import type { Connection } from './connection.js';
import { Manager } from './manager.js';
import { UserRecord } from './user-record.js';

/** What the other rooms want to hear of, at once and in the same turn. None of it may throw. */
export interface RegistryObserver {
  connectionAdded?: (connection: Connection) => void;
  connectionRemoved?: (connection: Connection) => void;
  managerAdded?: (manager: Manager) => void;
  managerRemoved?: (manager: Manager) => void;
  /** Something changed that the manager's status follows from. */
  managerTouched?: (manager: Manager) => void;
  /** Whether something is kept for the user that has to outlive the last manager. */
  remembers?: (user: UserRecord) => boolean;
  /** Nothing is left of the user: whatever is kept for it can go. */
  userForgotten?: (user: UserRecord) => void;
}

type Listeners = { readonly [Name in keyof RegistryObserver]-?: NonNullable<RegistryObserver[Name]>[] };

/** How close to its time a forgotten user's record goes; nothing depends on it. */
const FORGET_GRANULARITY_MS = 100;

/** Who is here: managers by id, users by id, and the few users who need attention. */
@Injectable()
export class ManagerRegistry {
  private readonly managers = new Map<string, Manager>();
  private readonly users = new Map<string, UserRecord>();
  private readonly pressured = new Set<UserRecord>();
  /** The same for users whose limit is so small that no threshold applies: all users, where the limit is one. */
  private readonly pressuredSmall = new Set<UserRecord>();
  private readonly full = new Set<UserRecord>();
  private readonly byStatus: Record<ManagerStatus, number> = {
    healthy: 0,
    idle: 0,
    zombie: 0,
    inactive: 0,
    unknown: 0,
  };
  /** By what they want to hear of: most of them hear of little, and each newcomer tells all of them. */
  private readonly listeners: Listeners = {
    connectionAdded: [],
    connectionRemoved: [],
    managerAdded: [],
    managerRemoved: [],
    managerTouched: [],
    remembers: [],
    userForgotten: [],
  };
  private readonly unused: DueQueue<UserRecord>;
  private openConnections = 0;
  private buffered = 0;

  constructor(
    readonly clock: Clock,
    readonly events: EventStream,
    readonly counters: NodeCounters,
    @Inject(RESOLVED_OPTIONS) readonly options: ResolvedOptions,
  ) {
    this.unused = new DueQueue(FORGET_GRANULARITY_MS, clock.now());
  }

  observe(observer: RegistryObserver): void {
    for (const name of Object.keys(this.listeners) as (keyof Listeners)[]) {
      const listener = observer[name];
      if (listener) (this.listeners[name] as unknown[]).push(listener);
    }
  }

  get managerCount(): number {
    return this.managers.size;
  }

  get userCount(): number {
    return this.users.size;
  }

  get connectionCount(): number {
    return this.openConnections;
  }

  /** Bytes waiting to be sent on all connections, as the heartbeat last saw them. */
  get bufferedBytes(): number {
    return this.buffered;
  }

  /** For the heartbeat. */
  noteBuffered(connection: Connection, bytes: number): void {
    this.buffered += bytes - connection.bufferedSeen;
    connection.bufferedSeen = bytes;
  }

  /** Managers by the status they were last assessed to have. */
  get statusCounts(): Readonly<Record<ManagerStatus, number>> {
    return this.byStatus;
  }

  /** Users to whom the thresholds apply and that are at or above the first one: a handful of all. */
  get usersUnderPressure(): ReadonlySet<UserRecord> {
    return this.pressured;
  }

  /** All users at or above the first threshold, also those with a limit too small for cleanup by pressure. */
  *usersAbovePressure(): IterableIterator<UserRecord> {
    yield* this.pressured;
    yield* this.pressuredSmall;
  }

  get usersAtLimit(): ReadonlySet<UserRecord> {
    return this.full;
  }

  get allManagers(): IterableIterator<Manager> {
    return this.managers.values();
  }

  get allUsers(): IterableIterator<UserRecord> {
    return this.users.values();
  }

  manager(managerId: string): Manager | undefined {
    return this.managers.get(managerId);
  }

  user(userId: string): UserRecord | undefined {
    return this.users.get(userId);
  }

  /** The user's record, made if there is none. */
  enter(userId: string): UserRecord {
    let user = this.users.get(userId);
    if (!user) {
      user = new UserRecord(userId);
      this.users.set(userId, user);
    }
    this.unused.cancel(user);
    return user;
  }

  /** Makes a manager for a slot that was granted to `managerId`. */
  add(user: UserRecord, managerId: string, context: CheckedUserContext, now: number): Manager {
    const manager = new Manager(this, user, managerId, context, now);
    this.managers.set(manager.id, manager);
    user.add(manager);
    this.byStatus[manager.status]++;
    this.pressureChanged(user);
    for (const listener of this.listeners.managerAdded) listener(manager);
    return manager;
  }

  /** For {@link Manager.close}: the slot is free from here on. */
  remove(manager: Manager): void {
    if (!this.managers.delete(manager.id)) return;
    manager.user.remove(manager);
    this.byStatus[manager.status]--;
    this.pressureChanged(manager.user);
    for (const listener of this.listeners.managerRemoved) listener(manager);
    this.forgetIfUnused(manager.user);
  }

  /** For whoever assesses. */
  setStatus(manager: Manager, status: ManagerStatus): void {
    if (manager.status === status || !manager.isOpen) return;
    this.byStatus[manager.status]--;
    this.byStatus[status]++;
    manager.status = status;
  }

  /** The user's limit or count changed: sorts the user among those under pressure, or not. */
  pressureChanged(user: UserRecord): void {
    const { pressure } = user;
    const isPressured = pressure >= this.options.cleanup.proactiveThreshold;
    toggle(this.pressured, user, isPressured && user.hasThresholds);
    toggle(this.pressuredSmall, user, isPressured && !user.hasThresholds);
    toggle(this.full, user, pressure >= 1);
  }

  touched(manager: Manager): void {
    if (!manager.isOpen) return;
    for (const listener of this.listeners.managerTouched) listener(manager);
  }

  connectionAdded(connection: Connection): void {
    this.openConnections++;
    for (const listener of this.listeners.connectionAdded) listener(connection);
  }

  connectionRemoved(connection: Connection): void {
    this.openConnections--;
    this.noteBuffered(connection, 0);
    for (const listener of this.listeners.connectionRemoved) listener(connection);
  }

  /** What is kept for a user outlives the last manager by the grace, so that a reload changes nothing. */
  forgetIfUnused(user: UserRecord): void {
    // A sweep that looks after who is remembered does not make the time begin anew; coming back does.
    if (!user.isUnused || user.dueTick !== NOT_QUEUED) return;
    if (this.isRemembered(user)) this.unused.schedule(user, this.clock.now() + this.options.cleanup.graceMs);
    else this.forget(user);
  }

  forgetUnused(now: number): void {
    this.unused.advance(now, (user) => {
      if (user.isUnused) this.forget(user);
    });
  }

  private isRemembered(user: UserRecord): boolean {
    return this.listeners.remembers.some((remembers) => remembers(user));
  }

  private forget(user: UserRecord): void {
    if (this.users.get(user.userId) !== user) return;
    this.users.delete(user.userId);
    this.unused.cancel(user);
    toggle(this.pressured, user, false);
    toggle(this.pressuredSmall, user, false);
    toggle(this.full, user, false);
    for (const listener of this.listeners.userForgotten) listener(user);
  }
}

function toggle<T>(set: Set<T>, item: T, isIn: boolean): void {
  if (isIn) set.add(item);
  else set.delete(item);
}
