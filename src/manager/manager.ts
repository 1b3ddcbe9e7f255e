import { settleWithin } from '../clock/deadline.js';
import { type Due, NOT_QUEUED } from '../clock/due-queue.js';
import type { EndReason } from '../events/close-reason.js';
import type { CleanupLevel, CleanupTrigger, Evidence, ManagerStatus } from '../events/vocabulary.js';
import type { CheckedUserContext } from '../options/user-context.js';
import { Connection } from './connection.js';
import type { ManagerRegistry } from './manager-registry.js';
import type { Transport } from './transport.interface.js';
import type { UserRecord } from './user-record.js';

/** Why a connection or a manager ends, and on whose account. */
export interface Ending {
  readonly reason: EndReason;
  /** Close code from the wire, where the peer closed. */
  readonly code?: number;
  /** Present where we chose to end it: it is then reported as an eviction. */
  readonly evidence?: Evidence | undefined;
  readonly level?: CleanupLevel | undefined;
  readonly trigger?: CleanupTrigger | undefined;
  /** Told to the client. */
  readonly retryAfterMs?: number | undefined;
  /** The user's breaker is open: the application's close hooks are not called. */
  readonly withoutHooks?: boolean;
}

const NONE: readonly Connection[] = [];
/** The end of nearly all: nobody waited for it, and nothing was to be waited for. */
const WENT_WELL = Promise.resolve(true);

/** An application's hook for the end of a manager. */
export type CloseHook = (reason: EndReason) => unknown;

/**
 * The isolated holder of one session of one user: its connections, its activity, its outgoing messages.
 * It occupies one slot from the moment it is made until the moment it is condemned.
 */
export class Manager implements Due {
  dueTick = NOT_QUEUED;
  /** Last application message, either way; monotonic. */
  lastActivityAt: number;
  /** Open connections, oldest first; a new list whenever it changes. */
  connections: readonly Connection[] = NONE;
  /** As last assessed; written by the registry only. */
  status: ManagerStatus = 'unknown';
  /** Since when it has no connection; undefined while it has one, or before the first. */
  leftAt: number | undefined;
  /** Last inbound byte of the connections that have detached; undefined: none has. */
  lastHeardAt: number | undefined;
  /** Set when it ended. */
  endedBy: EndReason | undefined;
  readonly sessionKey: string | undefined;
  /** As the newest connection's token said, also after that connection has detached. */
  priority: number;
  /** As the newest connection's token said, also after that connection has detached. */
  metadata: unknown;
  private attachments = 0;
  private work = 0;
  private closeHooks: CloseHook[] | undefined;
  private aliveCheck: (() => boolean | Promise<boolean>) | undefined;
  private ending: Promise<boolean> | undefined;
  private settleEnding: ((wentWell: boolean) => void) | undefined;

  constructor(
    readonly registry: ManagerRegistry,
    readonly user: UserRecord,
    /** Random, and so unguessable. */
    readonly id: string,
    context: CheckedUserContext,
    /** Monotonic. */
    readonly createdAt: number,
  ) {
    this.lastActivityAt = createdAt;
    this.sessionKey = context.sessionKey;
    this.priority = context.priority;
    this.metadata = context.metadata;
  }

  get userId(): string {
    return this.user.userId;
  }

  /** What every event about this manager carries. */
  get identity(): { userId: string; managerId: string; sessionKey: string | undefined } {
    return { userId: this.user.userId, managerId: this.id, sessionKey: this.sessionKey };
  }

  /** Whether it still holds its slot. */
  get isOpen(): boolean {
    return this.endedBy === undefined;
  }

  /** A handler of it is running, a stream is open, or the application said so with {@link busy}. */
  get isBusy(): boolean {
    return this.work > 0;
  }

  /** Busy with one thing, and nothing else. */
  get hasOneWork(): boolean {
    return this.work === 1;
  }

  /** No connection has ever been attached. */
  get neverAttached(): boolean {
    return this.attachments === 0;
  }

  /**
   * Sends `{"event", "data"}` to every open connection of the session, serialised once.
   * @returns to how many it went; 0 means that nobody was there.
   */
  send(event: string, data: unknown): number {
    return this.sendFrame(JSON.stringify({ event, data }));
  }

  /** Sends a frame that is serialised already. */
  sendFrame(frame: string): number {
    let sent = 0;
    for (const connection of this.connections) if (connection.send(frame)) sent++;
    return sent;
  }

  /** Runs `work` and counts the session as busy meanwhile: the last to be asked to leave. */
  async busy<T>(work: () => T | Promise<T>): Promise<T> {
    this.workBegins();
    try {
      return await work();
    } finally {
      this.workEnds();
    }
  }

  /** Counts the session as busy until the returned function is called. */
  beginWork(): () => void {
    this.workBegins();
    let open = true;
    return () => {
      if (open) this.workEnds();
      open = false;
    };
  }

  /** For the adapter: each has to be matched by one {@link workEnds}. */
  workBegins(): void {
    this.work++;
  }

  workEnds(): void {
    this.work--;
  }

  /**
   * Registers a hook for the end of this session, whatever the reason. It may be asynchronous; it has
   * `cleanup.hookTimeoutMs`, and the slot is free before it is called.
   */
  onClose(hook: CloseHook): void {
    this.closeHooks ??= [];
    this.closeHooks.push(hook);
  }

  /**
   * Registers the session's own check: `false` says that nobody is there. It is asked once a heartbeat and by
   * probes; a throw or no answer in time counts as no opinion.
   */
  isAlive(check: () => boolean | Promise<boolean>): void {
    this.aliveCheck = check;
  }

  /** The check registered with {@link isAlive}. */
  get ownAliveCheck(): (() => boolean | Promise<boolean>) | undefined {
    return this.aliveCheck;
  }

  /**
   * Takes an accepted socket. With `limits.connectionsPerManager` open already, the oldest is superseded.
   * @param expiresAt when the connection's credentials end, on the monotonic clock.
   * @param context what the connection's own token said: the session takes `priority` and `metadata` from it.
   */
  attach(
    transport: Transport,
    expiresAt?: number,
    context?: Pick<CheckedUserContext, 'priority' | 'metadata'>,
  ): Connection {
    if (!this.isOpen) throw new Error(`Manager ${this.id} has ended (${this.endedBy})`);
    if (context) {
      this.priority = context.priority;
      // A session that was made in code keeps its metadata when its first connection brings none.
      if (context.metadata !== undefined || !this.neverAttached) this.metadata = context.metadata;
    }
    const connection = new Connection(this, transport, ++this.attachments, expiresAt, this.metadata);
    this.leftAt = undefined;
    // Not `push`, which keeps room for sixteen more.
    this.connections = this.connections.concat(connection);
    this.registry.connectionAdded(connection);
    const { events, options } = this.registry;
    if (events.hears('attached')) {
      events.report({ type: 'attached', ...this.identity, connectionId: connection.id });
    }
    if (this.connections.length > options.limits.connectionsPerManager) {
      this.connections[0]?.end({ reason: 'superseded' });
    }
    return connection;
  }

  /**
   * A connection no longer counts. With the last one the session ends, or its resume window begins.
   * @returns whether the session ended, and with it took care of the connection's goodbye.
   */
  detach(connection: Connection, ending: Ending): boolean {
    if (!this.connections.includes(connection)) return true;
    const isLast = this.connections.length === 1;
    if (isLast && this.sessionKey === undefined) {
      void this.close(ending);
      return true;
    }
    this.connections = isLast ? NONE : this.connections.filter((other) => other !== connection);
    this.dropConnection(connection, ending, false);
    if (isLast) this.leftAt = this.registry.clock.now();
    this.registry.touched(this);
    return false;
  }

  noteActivity(now = this.registry.clock.now()): void {
    this.lastActivityAt = now;
    if (this.status === 'idle') this.registry.touched(this);
  }

  /**
   * Ends the session; the only way to. The slot is free when this returns; the promise tells, later, whether the
   * application's hooks went well. A second call changes nothing and gives the same promise.
   */
  close(ending: Ending): Promise<boolean> {
    if (!this.isOpen) return this.whenEnded();
    // Before anybody hears of it: whoever does may call this again.
    this.endedBy = ending.reason;
    this.registry.remove(this);
    this.reportEviction(ending);
    const gone = this.finish(ending);
    if (gone === true && !this.ending) this.ending = WENT_WELL;
    else void Promise.resolve(gone).then((wentWell) => this.settleEnding?.(wentWell));
    return this.whenEnded();
  }

  private whenEnded(): Promise<boolean> {
    this.ending ??= new Promise((resolve) => {
      this.settleEnding = resolve;
    });
    return this.ending;
  }

  private reportEviction({ reason, evidence, level, trigger }: Ending): void {
    if (!evidence) return;
    const { clock, events } = this.registry;
    const createdAt = clock.wallNow() - (clock.now() - this.createdAt);
    events.report({
      type: 'evicted',
      ...this.identity,
      managerId: this.id,
      reason,
      evidence,
      level,
      trigger,
      createdAt,
    });
  }

  /** @returns whether the application's hooks went well: at once, where none has to be waited for. */
  private finish(ending: Ending): true | Promise<boolean> {
    const { connections } = this;
    this.connections = NONE;
    const { reason } = ending;
    for (const connection of connections) this.dropConnection(connection, ending, true);
    // Whoever is still connected has not left, whatever the caller says, and must not stay open unaccounted for.
    const told = reason === 'left' || reason === 'inactive' ? 'internal' : reason;
    for (const connection of connections) {
      if (!connection.closed) connection.goodbye({ reason: told, retryAfterMs: ending.retryAfterMs });
    }
    const hooks = ending.withoutHooks ? undefined : this.closeHooks;
    if (!hooks && connections.every(({ isGone }) => isGone)) return true;
    return this.waitForTheEnd(ending, connections, hooks);
  }

  private async waitForTheEnd(
    ending: Ending,
    connections: readonly Connection[],
    hooks: readonly CloseHook[] | undefined,
  ): Promise<boolean> {
    const { reason } = ending;
    const hooksWentWell = hooks ? await this.runHooks(hooks, reason) : true;
    if (reason === 'no_pong') for (const connection of connections) connection.transport.terminate();
    if (ending.withoutHooks) return true;
    const allGone = await Promise.all(connections.map((connection) => connection.whenGone()));
    return hooksWentWell && allGone.every(Boolean);
  }

  private async runHooks(hooks: readonly CloseHook[], reason: EndReason): Promise<boolean> {
    const { clock, events, options } = this.registry;
    const results = await Promise.all(
      hooks.map((hook) => settleWithin(clock, options.cleanup.hookTimeoutMs, () => hook(reason))),
    );
    for (const result of results) {
      if (result.status === 'done') continue;
      const error =
        result.status === 'late'
          ? new Error(`no answer within ${options.cleanup.hookTimeoutMs} ms`)
          : result.error;
      events.report({ type: 'hook_failed', hook: 'manager.onClose', error });
    }
    return results.every((result) => result.status === 'done');
  }

  private dropConnection(connection: Connection, ending: Ending, managerEnded: boolean): void {
    connection.detached = true;
    this.lastHeardAt = Math.max(this.lastHeardAt ?? connection.lastHeardAt, connection.lastHeardAt);
    this.registry.connectionRemoved(connection);
    const { events } = this.registry;
    if (!events.hears('detached')) return;
    events.report({
      type: 'detached',
      ...this.identity,
      connectionId: connection.id,
      reason: ending.reason,
      code: ending.code,
      managerEnded,
    });
  }
}
