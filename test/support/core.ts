import { DrainState } from '../../src/admission/drain-state.js';
import { EvictedSessions } from '../../src/admission/evicted-sessions.js';
import {
  type Admitted,
  type Refused,
  WebSocketManagerFactory,
} from '../../src/admission/websocket-manager.factory.js';
import { CircuitBreakerService } from '../../src/cleanup/circuit-breaker.service.js';
import { CleanupService } from '../../src/cleanup/cleanup.service.js';
import { EventStream } from '../../src/events/event-stream.js';
import { NodeCounters } from '../../src/events/node-counters.js';
import type { WebSocketManagerEvent } from '../../src/events/websocket-manager-event.js';
import { LOOKS_PER_INTERVAL } from '../../src/liveness/assessment.js';
import { Heartbeat } from '../../src/liveness/heartbeat.js';
import { StatusKeeper } from '../../src/liveness/status-keeper.js';
import { ZombieDetectorService } from '../../src/liveness/zombie-detector.service.js';
import type { Manager } from '../../src/manager/manager.js';
import { ManagerRegistry } from '../../src/manager/manager-registry.js';
import { resolveOptions } from '../../src/options/resolve-options.js';
import { checkUserContext, type UserContext } from '../../src/options/user-context.js';
import type { WebSocketManagerOptions } from '../../src/options/websocket-manager-options.interface.js';
import { SlotLedger } from '../../src/store/slot-ledger.js';
import { FakeClock, type FakePeer, FakeSocket } from '../../src/testing/index.js';

export type CoreOptions = Partial<WebSocketManagerOptions>;

/** Who somebody is at the moment of asking, with a past that was never lived through. */
export interface Past {
  readonly userId: string;
  readonly openedAgoMs?: number;
  /** Default: as `openedAgoMs`. */
  readonly activeAgoMs?: number;
  /** `none`: no connection (any more). Default: `answers`. */
  readonly connection?: FakePeer | 'none';
  /** For `none`: when the last connection left. Without it, there never was one. */
  readonly leftAgoMs?: number;
  readonly missedPongs?: number;
  readonly sessionKey?: string;
  readonly priority?: number;
  readonly busy?: boolean;
  readonly closeHook?: 'throws' | 'hangs';
}

export interface Placed {
  readonly manager: Manager;
  readonly socket: FakeSocket | undefined;
}

export interface Admission {
  readonly result: Admitted | Refused;
  readonly tookMs: number;
  /** Of the newcomer; undefined when it was refused, or its manager ended before it could attach. */
  readonly socket: FakeSocket | undefined;
}

export interface AdmitOptions extends Omit<UserContext, 'userId'> {
  /** What the newcomer's socket does; `none`: it attaches none. Default: `answers`. */
  readonly connection?: FakePeer | 'none';
}

/** The whole core, as the module wires it, without Nest and on a clock that stands still. */
export class Core {
  readonly options;
  readonly events: EventStream;
  readonly counters = new NodeCounters();
  readonly registry: ManagerRegistry;
  readonly heartbeat: Heartbeat;
  readonly detector: ZombieDetectorService;
  readonly statusKeeper: StatusKeeper;
  readonly breaker: CircuitBreakerService;
  readonly cleanup: CleanupService;
  readonly ledger: SlotLedger;
  readonly drain: DrainState;
  readonly evicted: EvictedSessions;
  readonly factory: WebSocketManagerFactory;
  /** Everything that was reported, oldest first. */
  readonly reported: WebSocketManagerEvent[] = [];
  private placed = 0;

  private constructor(
    options: CoreOptions,
    readonly clock: FakeClock,
  ) {
    this.options = resolveOptions({ authenticate: () => null, ...options });
    this.events = new EventStream(clock);
    this.events.events$.subscribe((event) => this.reported.push(event));
    this.registry = new ManagerRegistry(clock, this.events, this.counters, this.options);
    this.heartbeat = new Heartbeat(clock, this.registry, this.events, this.counters, this.options);
    this.detector = new ZombieDetectorService(
      clock,
      this.registry,
      this.heartbeat,
      this.events,
      this.options,
    );
    this.statusKeeper = new StatusKeeper(clock, this.registry, this.heartbeat, this.options);
    this.breaker = new CircuitBreakerService(clock, this.events, this.registry, this.options);
    this.cleanup = new CleanupService(
      clock,
      this.registry,
      this.detector,
      this.statusKeeper,
      this.breaker,
      this.events,
      this.options,
    );
    this.ledger = new SlotLedger(clock, this.registry, this.events, this.counters, this.options);
    this.drain = new DrainState(this.options);
    this.evicted = new EvictedSessions(clock, this.registry);
    this.factory = new WebSocketManagerFactory(
      clock,
      this.registry,
      this.ledger,
      this.cleanup,
      this.evicted,
      this.drain,
      this.events,
      this.options,
    );
  }

  static async start(options: CoreOptions = {}, clock = new FakeClock()): Promise<Core> {
    const core = new Core(options, clock);
    core.cleanup.start();
    const attached = core.ledger.start();
    await clock.settle();
    await clock.advance(core.options.store ? core.options.storeTimeoutMs : 0);
    await attached;
    clock.setInterval(() => void core.cleanup.sweep(), core.options.cleanup.intervalMs);
    return core;
  }

  /** Managers of a user at this moment. */
  count(userId: string): number {
    return this.registry.user(userId)?.managers.size ?? 0;
  }

  reportedOf<T extends WebSocketManagerEvent['type']>(
    type: T,
  ): Extract<WebSocketManagerEvent, { type: T }>[] {
    return this.reported.filter(
      (event): event is Extract<WebSocketManagerEvent, { type: T }> => event.type === type,
    );
  }

  /** Asks the factory, as the door does, and attaches a socket. The promise settles as the clock is advanced. */
  async admit(
    userId: string,
    { connection = 'answers', ...context }: AdmitOptions = {},
    newcomer?: { isGone(): boolean },
  ): Promise<Admission> {
    const startedAt = this.clock.now();
    const result = await this.factory.admit(checkUserContext({ userId, ...context }), newcomer);
    const tookMs = this.clock.now() - startedAt;
    // The door looks once more, too.
    const attaches = result.admitted && result.manager.isOpen && connection !== 'none';
    if (!attaches) return { result, tookMs, socket: undefined };
    const newest = { priority: context.priority ?? 0, metadata: context.metadata };
    return { result, tookMs, socket: this.attach(result.manager, connection, newest) };
  }

  /** {@link admit}, with the clock advanced by `withinMs`: throws when there is no answer by then. */
  async admitWithin(withinMs: number, userId: string, options?: AdmitOptions): Promise<Admission> {
    let admission: Admission | undefined;
    const asked = this.admit(userId, options).then((answer) => {
      admission = answer;
    });
    await this.clock.advance(withinMs);
    if (!admission) throw new Error(`No answer to ${userId} within ${withinMs} ms`);
    await asked;
    return admission;
  }

  attach(
    manager: Manager,
    peer: FakePeer = 'answers',
    context?: { priority: number; metadata: unknown },
  ): FakeSocket {
    const socket = new FakeSocket(this.clock, peer);
    return socket.bind(manager.attach(socket, undefined, context));
  }

  /** A manager that has been there for a while. Nobody is asked for room, and nothing else happens. */
  place(past: Past): Placed {
    const { connection = 'answers', openedAgoMs = 60_000, activeAgoMs = openedAgoMs } = past;
    const { userId, sessionKey, priority, leftAgoMs } = past;
    const now = this.clock.now();
    const user = this.registry.enter(userId);
    const { managersPerUser } = this.options.limits;
    const context = checkUserContext({ userId, sessionKey, priority });
    user.limit = typeof managersPerUser === 'number' ? managersPerUser : managersPerUser(context);
    const manager = this.registry.add(user, `placed-${++this.placed}`, context, now);
    const socket = connection === 'none' ? undefined : this.attach(manager, connection);
    Object.assign(manager, { createdAt: now - openedAgoMs, lastActivityAt: now - activeAgoMs });
    if (past.busy) manager.beginWork();
    if (past.closeHook) manager.onClose(past.closeHook === 'throws' ? failingHook : hangingHook);
    if (socket) this.agePlaced(socket, past, openedAgoMs, activeAgoMs);
    else if (leftAgoMs !== undefined) Object.assign(manager, { attachments: 1, leftAt: now - leftAgoMs });
    this.registry.touched(manager);
    return { manager, socket };
  }

  placeMany(count: number, past: Past | ((index: number) => Past)): Placed[] {
    return Array.from({ length: count }, (_, i) => this.place(typeof past === 'function' ? past(i) : past));
  }

  /** As the heartbeat would have it by now: pinged where it had been silent for an interval. */
  private agePlaced(socket: FakeSocket, past: Past, openedAgoMs: number, activeAgoMs: number): void {
    const { connection } = socket;
    const now = this.clock.now();
    const lookMs = this.options.heartbeat.intervalMs / LOOKS_PER_INTERVAL;
    const isThere =
      past.connection === undefined || past.connection === 'answers' || typeof past.connection === 'object';
    const { missedPongs = 0 } = past;
    const phase = this.placed % LOOKS_PER_INTERVAL;
    const silentMs = isThere ? Math.min(activeAgoMs, phase * lookMs) : activeAgoMs;
    connection.confirmed = openedAgoMs > 0;
    Object.assign(connection, { openedAt: now - openedAgoMs, lastHeardAt: now - silentMs });
    connection.missedPongs = missedPongs;
    if (missedPongs > 0) {
      connection.quietLooks = LOOKS_PER_INTERVAL * (missedPongs + 1) - 2;
      connection.ping();
      Object.assign(connection, { askedAt: now - missedPongs * this.options.heartbeat.intervalMs });
      return;
    }
    const quietLooks = Math.floor(silentMs / lookMs);
    // One more look would count a missed pong, and those are what `missedPongs` says.
    connection.quietLooks = Math.min(
      quietLooks,
      isThere ? LOOKS_PER_INTERVAL - 2 : 2 * LOOKS_PER_INTERVAL - 4,
    );
    if (connection.quietLooks >= LOOKS_PER_INTERVAL - 1) connection.ping();
  }
}

const failingHook = () => {
  throw new Error('the hook of this session fails');
};
const hangingHook = () => new Promise<never>(() => {});
