import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { Inject, Injectable } from '@nestjs/common';
import { Clock } from '../clock/clock.js';
import { isThenable, settleWithin, whenSettled } from '../clock/deadline.js';
import type { DisconnectReason, EndReason, RejectionReason } from '../events/close-reason.js';
import { EventStream } from '../events/event-stream.js';
import type { Manager } from '../manager/manager.js';
import type { CheckedUserContext, UserContext } from '../options/user-context.js';
import { checkUserContext, InvalidUserContextError } from '../options/user-context.js';
import { RESOLVED_OPTIONS, type ResolvedOptions } from '../options/websocket-manager-options.interface.js';
import { DrainState } from './drain-state.js';
import {
  CONNECTION,
  type ManagedWebSocket,
  managedWebSocketClass,
  type SocketErrorSink,
  type WebSocketLike,
  WebSocketTransport,
} from './managed-websocket.js';
import { isOriginAllowed } from './origin.js';
import { Refusals } from './refusal.js';
import { type Admitted, WebSocketManagerFactory } from './websocket-manager.factory.js';

type OnUpgraded = (webSocket: WebSocketLike, request: IncomingMessage) => void;
type HandleUpgrade = (request: IncomingMessage, socket: Duplex, head: Buffer, onUpgraded: OnUpgraded) => void;

/** What this package uses of `ws`' WebSocketServer. */
export interface WebSocketServerLike {
  options: {
    WebSocket: new (...args: never[]) => WebSocketLike;
    verifyClient?: VerifyClient | undefined;
  };
  handleUpgrade: HandleUpgrade;
  emit(event: string, ...args: unknown[]): boolean;
}

type Verdict = (accepted: boolean, ...answer: unknown[]) => void;
/** With one parameter it returns its verdict, with two it calls back. */
type VerifyClient = (info: { readonly req: IncomingMessage }, verdict: Verdict) => unknown;

interface Upgrade {
  readonly request: IncomingMessage;
  readonly socket: Duplex;
  /** Accepts the handshake. */
  readonly complete: (onUpgraded: OnUpgraded) => void;
  readonly startedAt: number;
}

interface Refusal {
  readonly reason: RejectionReason;
  readonly userId?: string | undefined;
  readonly retryAfterMs?: number | undefined;
  readonly detail?: string | undefined;
  readonly error?: unknown;
}

/** A handshake that `ws` is looking at. */
interface UnderWay {
  readonly socket: Duplex;
  readonly onUpgraded: OnUpgraded;
  readonly startedAt: number;
  /** What is to be done with it once it is completed. */
  completed: OnUpgraded | undefined;
}

/**
 * The only way in. Every upgrade of every gateway's server passes here before its 101, so that no message can be
 * there before the decision is.
 */
@Injectable()
export class Door implements SocketErrorSink {
  constructor(
    private readonly clock: Clock,
    private readonly factory: WebSocketManagerFactory,
    private readonly refusals: Refusals,
    private readonly drain: DrainState,
    private readonly events: EventStream,
    @Inject(RESOLVED_OPTIONS) private readonly options: ResolvedOptions,
  ) {}

  /**
   * Puts admission into a server's handshake, where `ws` asks whether it is to be completed: nothing is left then that
   * could be wrong with it, and no place is taken, perhaps from somebody alive, for one that cannot succeed.
   */
  guard(server: WebSocketServerLike): void {
    const { options } = server;
    options.WebSocket = managedWebSocketClass(options.WebSocket, this);
    const accept = server.handleUpgrade.bind(server);
    const underWay = new WeakMap<IncomingMessage, UnderWay>();
    server.handleUpgrade = (request, socket, head, onUpgraded) => {
      const upgrade: UnderWay = { socket, onUpgraded, startedAt: this.clock.now(), completed: undefined };
      underWay.set(request, upgrade);
      try {
        accept(request, socket, head, (webSocket) => upgrade.completed?.(webSocket, request));
      } catch (error) {
        this.fail(socket, error);
      }
    };
    const { verifyClient } = options;
    options.verifyClient = verifiedBy(verifyClient, (request, verdict) => {
      const upgrade = underWay.get(request);
      // An answer is given once, however often it is asked for.
      if (!upgrade || !underWay.delete(request)) return;
      const { socket, startedAt, onUpgraded } = upgrade;
      const complete = (then: OnUpgraded) => {
        upgrade.completed = then;
        verdict(true);
      };
      this.receive({ request, socket, complete, startedAt }, onUpgraded);
    });
  }

  listenerFailed(event: string, error: unknown): void {
    this.events.report({ type: 'hook_failed', hook: `listener of '${event}'`, error });
  }

  peerFailed(): void {
    // Whatever a peer sends wrong closes its own connection and is worth no line: that would be a way to fill logs.
  }

  /** What can be answered at once is answered within the call: most upgrades never wait for anything. */
  private receive(upgrade: Upgrade, onUpgraded: OnUpgraded): void {
    const fail = (error: unknown) => this.fail(upgrade.socket, error);
    try {
      const done = whenSettled(this.identify(upgrade.request), (context) =>
        'reason' in context ? this.refuse(upgrade, context) : this.admit(upgrade, context, onUpgraded),
      );
      if (isThenable(done)) done.then(undefined, fail);
    } catch (error) {
      fail(error);
    }
  }

  private fail(socket: Duplex, error: unknown): void {
    this.events.report({ type: 'hook_failed', hook: 'upgrade', error });
    socket.destroy();
  }

  private identify(
    request: IncomingMessage,
  ): CheckedUserContext | Refusal | Promise<CheckedUserContext | Refusal> {
    if (this.drain.isDraining) return { reason: 'draining', retryAfterMs: this.drain.drawRetryAfterMs() };
    return this.checkOrigin(request) ?? this.authenticate(request);
  }

  private admit(upgrade: Upgrade, context: CheckedUserContext, onUpgraded: OnUpgraded): void | Promise<void> {
    const newcomer = { isGone: () => hasLeft(upgrade.socket) };
    return whenSettled(this.factory.admit(context, newcomer), (admission) => {
      // A session that was joined may have had to go in the very moment: then it is made anew.
      const isStale = admission.admitted && admission.outcome === 'joined' && !admission.manager.isOpen;
      return whenSettled(isStale ? this.factory.admit(context, newcomer) : admission, (last) => {
        if (last.admitted) this.letIn(upgrade, last, context, onUpgraded);
        else this.refuse(upgrade, { ...last, userId: context.userId });
      });
    });
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
    const { authenticateTimeoutMs } = this.options.admission;
    return whenSettled(
      settleWithin(this.clock, authenticateTimeoutMs, () => this.options.authenticate(request)),
      (settled) => {
        if (settled.status === 'done') return this.checkContext(settled.value);
        if (settled.status === 'late') {
          return this.hookFailure(new Error(`no answer within ${authenticateTimeoutMs} ms`));
        }
        return isUnauthorized(settled.error)
          ? { reason: 'unauthenticated' }
          : this.hookFailure(settled.error);
      },
    );
  }

  private checkContext(value: unknown): CheckedUserContext | Refusal {
    if (value === null || value === undefined) return { reason: 'unauthenticated' };
    try {
      const context = checkUserContext(value as UserContext);
      const isExpired = context.expiresAt !== undefined && context.expiresAt <= this.clock.wallNow();
      return isExpired ? { reason: 'unauthenticated', detail: 'credentials expired' } : context;
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

  private letIn(
    { socket, complete }: Upgrade,
    { manager }: Admitted,
    { expiresAt }: CheckedUserContext,
    onUpgraded: OnUpgraded,
  ): void {
    let isAnswered = false;
    // A handshake that fails after all gives its slot back.
    const giveBack = () => {
      if (manager.neverAttached) void manager.close({ reason: 'left' });
    };
    try {
      complete((webSocket, request) => {
        isAnswered = true;
        socket.off('close', giveBack);
        this.attach(manager, webSocket as ManagedWebSocket, socket, expiresAt);
        this.announce(webSocket as ManagedWebSocket, request, onUpgraded);
      });
    } finally {
      // The server's own `verifyClient` is thinking, or has refused, or has thrown.
      if (!isAnswered) {
        socket.once('close', giveBack);
        if (socket.destroyed) giveBack();
      }
    }
  }

  private attach(
    manager: Manager,
    webSocket: ManagedWebSocket,
    socket: Duplex,
    expiresAt: number | undefined,
  ): void {
    if (!manager.isOpen) {
      this.refusals.hold(manager.userId, webSocket, reasonToTell(manager.endedBy));
      return;
    }
    const expiry = expiresAt === undefined ? undefined : this.clock.now() + expiresAt - this.clock.wallNow();
    webSocket.writeTo(socket);
    webSocket[CONNECTION] = manager.attach(new WebSocketTransport(webSocket, socket), expiry);
  }

  /** Tells the platform of it, which tells the gateways. */
  private announce(webSocket: ManagedWebSocket, request: IncomingMessage, onUpgraded: OnUpgraded): void {
    const connection = webSocket[CONNECTION];
    if (!connection) return;
    try {
      onUpgraded(webSocket, request);
    } catch (error) {
      this.listenerFailed('connection', error);
      connection.end({ reason: 'internal' });
    }
  }

  private refuse(upgrade: Upgrade, { reason, userId, retryAfterMs, detail }: Refusal): void {
    const { request, socket, complete, startedAt } = upgrade;
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
    const owner = userId ?? `address ${request.socket.remoteAddress ?? 'unknown'}`;
    if (isToldByClose(reason) && this.tellsByClose(request) && this.refusals.mayHold(owner)) {
      complete((webSocket) => this.refusals.hold(owner, webSocket as ManagedWebSocket, reason, retryAfterMs));
    } else {
      this.refusals.answer(socket, reason, retryAfterMs);
    }
  }

  /** A browser cannot see an HTTP status: it is let in, told, and closed. */
  private tellsByClose(request: IncomingMessage): boolean {
    const { rejectWith } = this.options.admission;
    return rejectWith === 'close' || (rejectWith === 'auto' && request.headers.origin !== undefined);
  }
}

function isToldByClose(reason: RejectionReason): reason is RejectionReason & DisconnectReason {
  return reason !== 'forbidden_origin' && reason !== 'bad_request';
}

/** What a client hears whose session ended before its handshake was complete. */
function reasonToTell(endedBy: EndReason | undefined): DisconnectReason {
  return endedBy === undefined || endedBy === 'left' || endedBy === 'inactive' ? 'internal' : endedBy;
}

/** The application's own check first: who does not pass it is not to cost anybody a place either. */
function verifiedBy(
  own: VerifyClient | undefined,
  admit: (request: IncomingMessage, verdict: Verdict) => void,
): VerifyClient {
  // `ws` counts the parameters: with two, it waits.
  return (info, verdict) => {
    if (!own) return admit(info.req, verdict);
    if (own.length === 2) {
      own(info, (accepted, ...answer) => (accepted ? admit(info.req, verdict) : verdict(false, ...answer)));
    } else if (own(info, verdict)) admit(info.req, verdict);
    else verdict(false, 401);
    return undefined;
  };
}

/** The peer has hung up while it waited. A FIN is not an event while nobody reads, only a state of the stream. */
function hasLeft(socket: Duplex): boolean {
  const { _readableState } = socket as Duplex & { _readableState?: { ended?: boolean } };
  return socket.destroyed || !socket.readable || _readableState?.ended === true;
}

/** Nest's own way to say no: `UnauthorizedException`, `ForbiddenException`, of whatever copy of Nest. */
function isUnauthorized(error: unknown): boolean {
  const { getStatus } = (error ?? {}) as { getStatus?: unknown };
  if (typeof getStatus !== 'function') return false;
  const status: unknown = getStatus.call(error);
  return status === 401 || status === 403;
}
