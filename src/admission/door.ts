import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { Inject, Injectable, Logger } from '@nestjs/common';
import { Clock } from '../clock/clock.js';
import { isThenable, settleWithin } from '../clock/deadline.js';
import type { DisconnectReason, EndReason, RejectionReason } from '../events/close-reason.js';
import { EventStream } from '../events/event-stream.js';
import type { Manager } from '../manager/manager.js';
import type { CheckedUserContext, UserContext } from '../options/user-context.js';
import { checkUserContext, InvalidUserContextError } from '../options/user-context.js';
import { RESOLVED_OPTIONS, type ResolvedOptions } from '../options/websocket-manager-options.interface.js';
import { DrainState } from './drain-state.js';
import {
  type ManagedWebSocket,
  managedWebSocketClass,
  type SocketErrorSink,
  STATE,
  type WebSocketLike,
} from './managed-websocket.js';
import { isOriginAllowed } from './origin.js';
import { Refusals } from './refusal.js';
import {
  type Admitted,
  type Newcomer,
  type Refused,
  WebSocketManagerFactory,
} from './websocket-manager.factory.js';
import { WebSocketTransport } from './websocket-transport.js';

type OnUpgraded = (webSocket: WebSocketLike, request: IncomingMessage) => void;
type HandleUpgrade = (request: IncomingMessage, socket: Duplex, head: Buffer, onUpgraded: OnUpgraded) => void;

/** What this package uses of `ws`' WebSocketServer. */
export interface WebSocketServerLike {
  options: {
    WebSocket: new (...args: never[]) => WebSocketLike;
    verifyClient?: VerifyClient | undefined;
  };
  handleUpgrade: HandleUpgrade;
  /** Who is open, for whoever sends to all; undefined where the application wants none kept. */
  clients?: Set<unknown> | undefined;
  emit(event: string, ...args: unknown[]): boolean;
}

type Verdict = (accepted: boolean, ...answer: unknown[]) => void;
/** With one parameter it returns its verdict, with two it calls back. */
type VerifyClient = (info: { readonly req: IncomingMessage }, verdict: Verdict) => unknown;

/** Somebody at the door: all there is of them, so that nothing else has to be made for one who comes in at once. */
class Upgrade implements Newcomer {
  /** For `ws`, which waits for it; there as soon as it has nothing against the handshake. */
  verdict: Verdict | undefined = undefined;
  /** Whose socket it is to be. */
  manager: Manager | undefined = undefined;
  /** What `authenticate` returned; undefined until then. */
  context: CheckedUserContext | undefined = undefined;
  /** It was refused at the start of a drain, while it waited: a later decision about it is ignored. */
  isRefused = false;
  /** What becomes of the socket where it is nobody's. */
  onRefused: ((webSocket: ManagedWebSocket) => void) | undefined = undefined;
  /** The handshake is completed. */
  isCompleted = false;

  constructor(
    readonly server: WebSocketServerLike,
    readonly request: IncomingMessage,
    readonly socket: Duplex,
    /** Tells the platform of a socket that is in. */
    readonly onUpgraded: OnUpgraded,
    readonly startedAt: number,
  ) {}

  /**
   * The peer has disconnected while it waited, or was refused by a drain. A FIN is no event while the stream is not read,
   * only a state of it.
   */
  isGone(): boolean {
    if (this.isRefused) return true;
    const { socket } = this;
    const { _readableState } = socket as Duplex & { _readableState?: { ended?: boolean } };
    return socket.destroyed || !socket.readable || _readableState?.ended === true;
  }
}

type Decision = Admitted | Refused;

interface Refusal {
  readonly reason: RejectionReason;
  readonly userId?: string | undefined;
  readonly retryAfterMs?: number | undefined;
  readonly detail?: string | undefined;
  readonly error?: unknown;
}

/**
 * The only way in. Every upgrade of every gateway's server passes here before its 101, so that no message can be
 * there before the decision is.
 */
@Injectable()
export class Door implements SocketErrorSink {
  private readonly logger = new Logger('WebSocketManager');
  /** Whose handshake `ws` is completing. */
  private completing: Upgrade | undefined;
  /** Pending upgrades that wait for something asynchronous. An upgrade that is decided within its call is never here. */
  private readonly pending = new Set<Upgrade>();

  constructor(
    private readonly clock: Clock,
    private readonly factory: WebSocketManagerFactory,
    private readonly refusals: Refusals,
    private readonly drain: DrainState,
    private readonly events: EventStream,
    @Inject(RESOLVED_OPTIONS) private readonly options: ResolvedOptions,
  ) {
    drain.onBegin(() => this.refusePending());
  }

  /**
   * Puts admission into a server's handshake, where `ws` asks whether it is to be completed: nothing is left then that
   * could be wrong with it, and no place is taken, perhaps from somebody alive, for one that cannot succeed.
   *
   * A server is guarded once, by the first application that gets it from its adapter. A second application that shares
   * it gets the same sockets; they are admitted, counted and drained by the first.
   *
   * @returns false: the server is guarded already
   */
  guard(server: WebSocketServerLike): boolean {
    const guardedBy = (server as Guarded)[GUARDED_BY];
    if (guardedBy) {
      if (guardedBy !== this) this.logger.warn(SHARED_SERVER);
      return false;
    }
    markGuarded(server, this);
    const { options } = server;
    // A second server may be made with the options of the first: a class that is managed already is not wrapped again.
    if (!(options.WebSocket as Guarded)[GUARDED_BY]) {
      options.WebSocket = managedWebSocketClass(options.WebSocket, this);
      markGuarded(options.WebSocket, this);
    }
    const accept = server.handleUpgrade.bind(server);
    let arriving: Upgrade | undefined;
    const onCompleted: OnUpgraded = (webSocket, request) =>
      this.completed(webSocket as ManagedWebSocket, request);
    server.handleUpgrade = (request, socket, head, onUpgraded) => {
      const upgrade = new Upgrade(server, request, socket, onUpgraded, this.clock.now());
      arriving = upgrade;
      try {
        accept(request, socket, head, onCompleted);
      } catch (error) {
        this.fail(upgrade, error);
      } finally {
        arriving = undefined;
      }
    };
    let own = options.verifyClient;
    // `ws` counts the parameters: with two, it waits. It asks within the call, for the one who has just arrived.
    const verifyClient: VerifyClient = (info, verdict) => {
      const upgrade = arriving;
      if (upgrade?.request !== info.req) {
        // Not asked by `ws`: an answer for one is not to be given to another.
        verdict(false, 500);
      } else if (own?.length === 2) {
        // The application's own check first: who does not pass it is not to cost anybody a place either.
        this.verifyFirst(upgrade, own, info, verdict);
      } else if (own && !own(info, verdict)) {
        verdict(false, 401);
      } else {
        this.receive(upgrade, verdict);
      }
    };
    // A gateway may set another check in `afterInit`, or one around its own: in place of that, and not of ours.
    Object.defineProperty(options, 'verifyClient', {
      get: () => (arriving ? verifyClient : own),
      set: (theirs: VerifyClient | undefined) => {
        own = theirs;
      },
      enumerable: true,
      configurable: true,
    });
    return true;
  }

  listenerFailed(event: string, error: unknown): void {
    this.events.report({ type: 'hook_failed', hook: `listener of '${event}'`, error });
  }

  peerFailed(): void {
    // Whatever a peer sends wrong closes its own connection and is worth no line: that would be a way to fill logs.
  }

  /** Asks an application's `verifyClient` that calls back; meanwhile the upgrade is pending. */
  private verifyFirst(
    upgrade: Upgrade,
    own: VerifyClient,
    info: { readonly req: IncomingMessage },
    verdict: Verdict,
  ): void {
    const { socket } = upgrade;
    let isAnswered = false;
    const onClose = () => void this.pending.delete(upgrade);
    const running = own(info, (isVerified, ...answer) => {
      if (isAnswered) return;
      isAnswered = true;
      socket.off('close', onClose);
      this.pending.delete(upgrade);
      if (upgrade.isRefused) return;
      upgrade.verdict = undefined;
      if (isVerified) this.receive(upgrade, verdict);
      else verdict(false, ...answer);
    });
    // An asynchronous one may reject, which would end the process.
    if (isThenable(running)) {
      void Promise.resolve(running).then(undefined, (error: unknown) => {
        if (!isAnswered) socket.destroy();
        this.events.report({ type: 'hook_failed', hook: 'verifyClient', error });
      });
    }
    if (isAnswered) return;
    // It may never call back; the client hangs up sooner or later.
    socket.once('close', onClose);
    upgrade.verdict = verdict;
    this.pending.add(upgrade);
  }

  /** What can be answered at once is answered within the call: most upgrades never wait for anything. */
  private receive(upgrade: Upgrade, verdict: Verdict): void {
    // An answer is given once, however often it is asked for.
    if (upgrade.verdict) return;
    upgrade.verdict = verdict;
    try {
      const context = this.identify(upgrade.request);
      const done = isThenable(context) ? this.decideLater(upgrade, context) : this.decide(upgrade, context);
      if (isThenable(done)) this.waitFor(upgrade, done);
    } catch (error) {
      this.fail(upgrade, error);
    }
  }

  private waitFor(upgrade: Upgrade, done: PromiseLike<void>): void {
    this.pending.add(upgrade);
    done.then(
      () => void this.pending.delete(upgrade),
      (error: unknown) => {
        this.pending.delete(upgrade);
        this.fail(upgrade, error);
      },
    );
  }

  /** A drain begins: pending upgrades are refused now, whatever they wait for. */
  private refusePending(): void {
    for (const upgrade of this.pending) {
      upgrade.isRefused = true;
      try {
        this.refuse(upgrade, { ...this.drainRefusal(), userId: upgrade.context?.userId });
      } catch (error) {
        this.fail(upgrade, error);
      }
    }
    this.pending.clear();
  }

  private drainRefusal(): Refusal {
    return { reason: 'draining', retryAfterMs: this.drain.drawRetryAfterMs() };
  }

  private fail({ socket }: Upgrade, error: unknown): void {
    this.events.report({ type: 'hook_failed', hook: 'upgrade', error });
    socket.destroy();
  }

  private identify(
    request: IncomingMessage,
  ): CheckedUserContext | Refusal | Promise<CheckedUserContext | Refusal> {
    if (this.drain.isDraining) return this.drainRefusal();
    return this.checkOrigin(request) ?? this.authenticate(request);
  }

  private async decideLater(upgrade: Upgrade, context: Promise<CheckedUserContext | Refusal>): Promise<void> {
    await this.decide(upgrade, await context);
  }

  private decide(upgrade: Upgrade, context: CheckedUserContext | Refusal): void | Promise<void> {
    if (upgrade.isRefused) return;
    if ('reason' in context) return this.refuse(upgrade, context);
    upgrade.context = context;
    const decision = this.factory.admit(context, upgrade);
    if (isThenable(decision) || isStale(decision)) return this.answerLater(upgrade, context, decision);
    this.answer(upgrade, context, decision);
  }

  private async answerLater(
    upgrade: Upgrade,
    context: CheckedUserContext,
    decision: Decision | Promise<Decision>,
  ): Promise<void> {
    const first = await decision;
    // A session that was joined may have had to go in the very moment: then it is made anew.
    const last = isStale(first) ? await this.factory.admit(context, upgrade) : first;
    this.answer(upgrade, context, last);
  }

  private answer(upgrade: Upgrade, context: CheckedUserContext, decision: Decision): void {
    if (upgrade.isRefused) {
      if (decision.admitted) closeUnused(decision.manager);
    } else if (decision.admitted) this.letIn(upgrade, decision.manager);
    else this.refuse(upgrade, { ...decision, userId: context.userId });
  }

  private checkOrigin(request: IncomingMessage): Refusal | undefined {
    try {
      if (isOriginAllowed(request, this.options.admission.allowedOrigins)) return undefined;
      return { reason: 'forbidden_origin' };
    } catch (error) {
      this.events.report({ type: 'hook_failed', hook: 'admission.allowedOrigins', error });
      return { reason: 'internal' };
    }
  }

  private authenticate(
    request: IncomingMessage,
  ): CheckedUserContext | Refusal | Promise<CheckedUserContext | Refusal> {
    try {
      const answer: unknown = this.options.authenticate(request);
      return isThenable(answer) ? this.authenticateLater(answer) : this.checkContext(answer);
    } catch (error) {
      return this.notAuthenticated(error);
    }
  }

  private async authenticateLater(answer: PromiseLike<unknown>): Promise<CheckedUserContext | Refusal> {
    const { authenticateTimeoutMs } = this.options.admission;
    const settled = await settleWithin(this.clock, authenticateTimeoutMs, () => answer);
    if (settled.status === 'done') return this.checkContext(settled.value);
    return settled.status === 'late'
      ? this.hookFailure(new Error(`no answer within ${authenticateTimeoutMs} ms`))
      : this.notAuthenticated(settled.error);
  }

  private notAuthenticated(error: unknown): Refusal {
    return isUnauthorized(error) ? { reason: 'unauthenticated' } : this.hookFailure(error);
  }

  private checkContext(value: unknown): CheckedUserContext | Refusal {
    // `null` is how to say it; `token && { userId }` says '' or undefined, and means the same.
    if (!value) return { reason: 'unauthenticated' };
    try {
      const context = checkUserContext(value as UserContext);
      const { expiresAt } = context;
      if (expiresAt === undefined) return context;
      const now = this.clock.wallNow();
      if (expiresAt > now) return context;
      // A JWT's `exp` as it is: seconds, a thousandth of what is meant.
      const hint = expiresAt < now / 100 ? ' in 1970: expiresAt is in milliseconds' : '';
      return { reason: 'unauthenticated', detail: `credentials expired${hint}` };
    } catch (error) {
      if (!(error instanceof InvalidUserContextError) || !error.isClientsFault)
        return this.hookFailure(error);
      return { reason: 'bad_request', detail: error.message };
    }
  }

  private hookFailure(error: unknown): Refusal {
    this.events.report({ type: 'hook_failed', hook: 'authenticate', error });
    return { reason: 'internal' };
  }

  private letIn(upgrade: Upgrade, manager: Manager): void {
    upgrade.manager = manager;
    try {
      this.complete(upgrade);
    } finally {
      // The client went in the very moment: the slot is free again.
      if (!upgrade.isCompleted) closeUnused(manager);
    }
  }

  /** Lets `ws` complete the handshake, which it does within the call, if the client is still there. */
  private complete(upgrade: Upgrade): void {
    const outer = this.completing;
    this.completing = upgrade;
    try {
      upgrade.verdict?.(true);
    } finally {
      // A listener of the server's may have answered for somebody else meanwhile.
      this.completing = outer;
    }
  }

  private completed(webSocket: ManagedWebSocket, request: IncomingMessage): void {
    const upgrade = this.completing;
    if (upgrade?.request !== request) {
      // What nobody has let in is nobody's, and must not stay open.
      webSocket.terminate();
      const error = new Error('a handshake was completed that was not asked about');
      this.events.report({ type: 'hook_failed', hook: 'upgrade', error });
      return;
    }
    this.completing = undefined;
    upgrade.isCompleted = true;
    if (upgrade.manager) this.attach(upgrade, webSocket, upgrade.manager);
    else upgrade.onRefused?.(webSocket);
  }

  /** Gives the socket to its manager, and tells the platform of it, which tells the gateways. */
  private attach(upgrade: Upgrade, webSocket: ManagedWebSocket, manager: Manager): void {
    const { socket, request, onUpgraded, context } = upgrade;
    if (!manager.isOpen) {
      this.hold(upgrade, webSocket, quotaOfUser(manager.userId), reasonToTell(manager.endedBy));
      return;
    }
    const expiresAt = context?.expiresAt;
    const expiry = expiresAt === undefined ? undefined : this.clock.now() + expiresAt - this.clock.wallNow();
    const connection = manager.attach(new WebSocketTransport(webSocket, socket), expiry, context);
    webSocket[STATE].attach(connection, socket);
    try {
      onUpgraded(webSocket, request);
    } catch (error) {
      this.listenerFailed('connection', error);
      connection.end({ reason: 'internal' });
    }
  }

  private refuse(upgrade: Upgrade, { reason, userId, retryAfterMs, detail }: Refusal): void {
    const { request, socket, startedAt } = upgrade;
    if (userId === undefined) {
      // The factory has reported its own refusals.
      const durationMs = this.clock.now() - startedAt;
      this.events.report({
        type: 'rejected',
        reason,
        userId,
        durationMs,
        retryAfterMs,
        lockout: false,
        detail,
      });
    }
    const { remoteAddress } = request.socket;
    const owner = userId === undefined ? quotaOfAddress(remoteAddress) : quotaOfUser(userId);
    if (isToldByClose(reason) && this.tellsByClose(request) && this.refusals.mayHold(owner)) {
      upgrade.onRefused = (webSocket) => this.hold(upgrade, webSocket, owner, reason, retryAfterMs);
      this.complete(upgrade);
    } else {
      this.refusals.answer(socket, reason, retryAfterMs);
    }
  }

  /** Refuses an upgrade whose request cannot be used, before `ws` has seen it. `detail`: for the log. */
  refuseMalformed(socket: Duplex, detail: string): void {
    const reason = 'bad_request';
    const nothing = { userId: undefined, durationMs: 0, retryAfterMs: undefined, lockout: false };
    this.events.report({ type: 'rejected', reason, ...nothing, detail });
    this.refusals.answer(socket, reason);
  }

  /** Refused, but not gone: what the application sends to all clients is not for them. */
  private hold(
    { server }: Upgrade,
    webSocket: ManagedWebSocket,
    owner: string,
    reason: DisconnectReason,
    retryAfterMs?: number,
  ): void {
    server.clients?.delete(webSocket);
    this.refusals.hold(owner, webSocket, reason, retryAfterMs);
  }

  /** A browser cannot see an HTTP status: it is let in, told, and closed. */
  private tellsByClose(request: IncomingMessage): boolean {
    const { rejectWith } = this.options.admission;
    return rejectWith === 'close' || (rejectWith === 'auto' && request.headers.origin !== undefined);
  }
}

/** Keys of the quotas of refused sockets. A prefix for each kind: a user may be named like an address. */
const quotaOfUser = (userId: string): string => `user ${userId}`;
const quotaOfAddress = (address: string | undefined): string => `address ${address ?? 'unknown'}`;

/** Closes a manager that was made for an upgrade that cannot use it: the slot is free again. */
function closeUnused(manager: Manager): void {
  if (manager.neverAttached) void manager.close({ reason: 'left' });
}

/**
 * Marks a server, and a WebSocket class, with the upgrade handler that guards it. A symbol of the registry: two copies
 * of this package agree on it. A class that extends a managed one inherits the mark.
 */
const GUARDED_BY: unique symbol = Symbol.for('nestjs-websocket-manager:guarded-by');
type Guarded = { [GUARDED_BY]?: unknown };

function markGuarded(target: object, by: Door): void {
  Object.defineProperty(target, GUARDED_BY, { value: by });
}

const SHARED_SERVER =
  'A WebSocket server is shared with another application of this process, which guards it: its sockets are admitted, counted and drained there';

function isToldByClose(reason: RejectionReason): reason is RejectionReason & DisconnectReason {
  return reason !== 'forbidden_origin' && reason !== 'bad_request';
}

/** What a client hears whose session ended before its handshake was complete. */
function reasonToTell(endedBy: EndReason | undefined): DisconnectReason {
  return endedBy === undefined || endedBy === 'left' || endedBy === 'inactive' ? 'internal' : endedBy;
}

/** Joined a session that has ended since. */
function isStale(decision: Decision): boolean {
  return decision.admitted && decision.outcome === 'joined' && !decision.manager.isOpen;
}

/** Nest's own way to say no: `UnauthorizedException`, `ForbiddenException`, of whatever copy of Nest. */
function isUnauthorized(error: unknown): boolean {
  try {
    const { getStatus } = (error ?? {}) as { getStatus?: unknown };
    const status: unknown = typeof getStatus === 'function' ? getStatus.call(error) : undefined;
    return status === 401 || status === 403;
  } catch {
    // What the application threw throws in its turn: a failure like any other.
    return false;
  }
}
