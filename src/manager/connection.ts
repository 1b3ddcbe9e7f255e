import type { TimerHandle } from '../clock/clock.js';
import { settleWithin } from '../clock/deadline.js';
import { type Due, NOT_QUEUED } from '../clock/due-queue.js';
import { CLOSE_REASONS, closingFrame, type DisconnectReason } from '../events/close-reason.js';
import type { Ending, Manager } from './manager.js';
import type { Transport } from './transport.interface.js';

/** Unsent bytes above the limit may stay without moving for this long before the connection is a slow consumer. */
const UNMOVED_MS = 1_000;
const UNMOVED_STEPS = 10;
const UNMOVED_STEP_MS = UNMOVED_MS / UNMOVED_STEPS;
/** With this many times the limit it is one after the first turn in which the socket could be written. */
const MOST_TIMES_LIMIT = 16;
/** The slowest peer that is never taken for dead because its answer waits behind output of ours. */
export const SLOWEST_BYTES_PER_SECOND = 16 * 1024;
/** A peer that would need longer for what it has not read yet gets no more time for it. */
const MOST_UNREAD_BYTES = 60 * SLOWEST_BYTES_PER_SECOND;
/** The close code that `ws` reports for a socket that ended without a close frame. */
const ABNORMAL_CLOSURE = 1006;
/** A mark is one byte of a ping's payload. */
const MOST_MARKS = 255;
/** `stalledLooks` after a byte: the time until the next look is not a whole one, and does not count. */
const HEARD_BETWEEN_LOOKS = -1;
/** A timer later than this indicates an event-loop stall, in which nothing could be written. */
const LATE_MS = 100;

/**
 * One accepted WebSocket of a manager. There is one for every socket: a field that most of them never need has no value
 * to begin with, and so takes no memory.
 */
export class Connection implements Due {
  // Where its liveness stands: the heartbeat writes it, `heard` clears it. First what a look at somebody who is well
  // reads: side by side, since of ten thousand none is in the processor's cache.

  /** Where the wheel keeps it. */
  slot = -1;
  /**
   * When last looked at closely all was well and nothing waited to be sent; nothing has been sent since, and an
   * attentive transport would have told of whatever else has changed.
   */
  isCalm = false;
  /** After so many looks comes one that is close in any case, once an interval. */
  looksToBeat = 1;
  /** An attentive transport has seen bytes come in since the last look. */
  bytesCame = false;
  /** Looks in a row, on time, that found no new byte. */
  quietLooks = 0;
  /** In its slot of the wheel. */
  position = -1;

  dueTick = NOT_QUEUED;
  readonly openedAt: number;
  /** When the last byte was seen; the handshake counts as one. */
  lastHeardAt: number;
  /** Something has come in since the handshake. */
  confirmed = false;
  /** It counts no longer: ended by us, or closed. */
  detached = false;
  /** What the wire said at the end. */
  closed: { readonly code: number; readonly reason: string } | undefined;

  // The rest of where its liveness stands.

  /** `bytesRead` when last looked at. */
  bytesSeen: number;
  /** An event told of new bytes since then. */
  heardSinceLook = false;
  /** Pings in a row that had their time and were not answered. */
  missedPongs = 0;
  /** When the ping that is out was sent. */
  pingedAt: number | undefined = undefined;
  /** When the oldest ping after the last inbound byte was sent; undefined: none was. */
  private askedAt: number | undefined = undefined;
  /** `bytesWritten` when the ping was sent: before the socket has taken that much, nothing was asked. */
  pingMark = 0;
  /** Bytes the kernel had taken when last looked at; undefined: all there were. */
  drainedSeen: number | undefined = undefined;
  /** For how many looks in a row it took no more of what there is. */
  stalledLooks = 0;
  /** The application has sent something since the last inbound byte. */
  hasUnacknowledgedOutput = false;
  /**
   * Output that a peer which reads {@link SLOWEST_BYTES_PER_SECOND} may not have read yet; at most what takes it a minute.
   * An inbound byte does not say how much has been read; the pong to a marked ping does: all that was sent before it.
   */
  unreadBytes = 0;
  /** What of that was sent after the last marked ping; at most one look's output too much. */
  private unreadSincePing = 0;
  /** The mark of that ping, from 1 to {@link MOST_MARKS}; 0: there was none. */
  private mark = 0;
  /** `bytesWritten` at the last close look. */
  private writtenSeen: number;
  /** So many looks its pings have still to be moved forward, that not all of a crowd are pinged together for ever. */
  lead = 0;
  /** It was closing when last looked at. */
  closingSeen = false;
  /** Bytes waiting to be sent when last looked at. */
  bufferedSeen = 0;
  /** Set when a probe was missed; see `suspected`. */
  suspectedAt: number | undefined = undefined;
  /** What the application's own detectors say, until they say something else; bytes prove nothing against it. */
  detectedBy: string | undefined;
  /** Who waits for the next byte: the probes that are under way. */
  heardListeners: ((connection: Connection) => void)[] | undefined;

  /** Its unsent bytes are above the limit, and are watched. */
  private isWatched = false;
  /** It is judged at the end of this turn. */
  private isJudgementDue = false;
  private terminateTimer: TimerHandle | undefined;
  private disconnectHooks: Promise<unknown>[] | undefined;
  private told: { readonly promise: Promise<void>; readonly resolve: () => void } | undefined;

  constructor(
    readonly manager: Manager,
    readonly transport: Transport,
    private readonly sequence: number,
    /** When the credentials end, on the monotonic clock. */
    readonly expiresAt: number | undefined,
    /** As its own token said; the session's follows its newest connection. */
    readonly metadata: unknown,
  ) {
    this.openedAt = manager.registry.clock.now();
    this.lastHeardAt = this.openedAt;
    this.bytesSeen = transport.bytesRead;
    this.writtenSeen = transport.bytesWritten;
  }

  get id(): string {
    return `${this.manager.id}:${this.sequence}`;
  }

  get state(): Transport['state'] {
    return this.transport.state;
  }

  get bufferedBytes(): number {
    return this.transport.bufferedAmount;
  }

  /** Milliseconds since the oldest ping after the last inbound byte; 0: none was sent. */
  get askedForMs(): number {
    return this.askedAt === undefined ? 0 : this.manager.registry.clock.now() - this.askedAt;
  }

  /** The session had a connection before this one. */
  get joined(): boolean {
    return this.sequence > 1;
  }

  /** Sends application data. Dropped when the connection is no longer open: returns whether it was sent. */
  send(data: string): boolean {
    if (this.detached || this.transport.state !== 'open') return false;
    this.noteSent();
    try {
      this.transport.send(data);
    } catch (error) {
      this.noteThrown(error);
      return false;
    }
    this.checkBacklog();
    return true;
  }

  /** By a WebSocket class of the application's own: that is nothing to the other connections. */
  private noteThrown(error: unknown): void {
    this.manager.registry.events.report({ type: 'hook_failed', hook: 'WebSocket', error });
  }

  /** An application message came in. */
  noteReceived(): void {
    const { registry } = this.manager;
    const now = registry.clock.now();
    registry.counters.messagesIn++;
    this.heard(now);
    this.manager.noteActivity(now);
  }

  /** An application message goes out. */
  noteSent(): void {
    this.manager.registry.counters.messagesOut++;
    this.isCalm = false;
    // Bytes that came before the output are no answer to it, even if a liveness check finds them only afterwards.
    if (this.bytesCame && !this.heardSinceLook) this.heard();
    this.hasUnacknowledgedOutput = true;
    this.manager.noteActivity();
  }

  /** Something came in: the peer lives, whatever was suspected. */
  heard(now = this.manager.registry.clock.now()): void {
    const { manager } = this;
    this.lastHeardAt = now;
    this.heardSinceLook = true;
    this.missedPongs = 0;
    this.stalledLooks = HEARD_BETWEEN_LOOKS;
    this.hasUnacknowledgedOutput = false;
    this.pingMark = 0;
    this.askedAt = undefined;
    const wasSuspect = this.suspectedAt;
    this.suspectedAt = undefined;
    if (this.heardListeners) for (const listener of [...this.heardListeners]) listener(this);
    if (wasSuspect !== undefined && !this.detached) {
      manager.registry.events.report({
        type: 'recovered',
        ...manager.identity,
        connectionId: this.id,
        afterMs: now - wasSuspect,
      });
    }
    if (!this.confirmed || manager.status === 'zombie') {
      this.confirmed = true;
      manager.registry.touched(manager);
    }
  }

  /** Calls back at every byte that is heard of, until {@link offHeard}. */
  onHeard(listener: (connection: Connection) => void): void {
    this.heardListeners ??= [];
    this.heardListeners.push(listener);
  }

  offHeard(listener: (connection: Connection) => void): void {
    const rest = this.heardListeners?.filter((other) => other !== listener) ?? [];
    this.heardListeners = rest.length > 0 ? rest : undefined;
  }

  /**
   * The answer to a ping of ours, or to one of the application, or an unsolicited pong.
   * @param mark of the ping that it answers, if that had one
   */
  notePong(mark?: number): void {
    const { clock, counters } = this.manager.registry;
    const now = clock.now();
    if (this.pingedAt !== undefined) {
      counters.onPong?.(now - this.pingedAt);
      this.pingedAt = undefined;
    }
    if (mark !== undefined && mark === this.mark)
      this.unreadBytes = Math.min(this.unreadBytes, this.unreadSincePing);
    this.heard(now);
  }

  ping(): void {
    const { transport } = this;
    this.pingedAt = this.manager.registry.clock.now();
    this.askedAt ??= this.pingedAt;
    // Any pong might come meanwhile: only the one with the mark says that the output before its ping has been read.
    const isMarked = this.unreadBytes >= SLOWEST_BYTES_PER_SECOND;
    if (isMarked) {
      this.mark = (this.mark % MOST_MARKS) + 1;
      this.unreadSincePing = 0;
    }
    const { bytesWritten } = transport;
    try {
      transport.ping(isMarked ? this.mark : undefined);
    } catch (error) {
      this.noteThrown(error);
    }
    // A ping is no output: it must not extend the time for its own answer.
    this.writtenSeen += transport.bytesWritten - bytesWritten;
    // As a rule the kernel has it already.
    this.pingMark = transport.bytesQueued === 0 ? 0 : transport.bytesWritten;
  }

  /**
   * Counts what was sent since the last close look.
   * @param readBytes what the slowest peer has read since then; 0 while nothing comes in, as then the link may stand still.
   */
  noteWritten(readBytes: number): void {
    const { bytesWritten } = this.transport;
    const sent = bytesWritten - this.writtenSeen;
    this.writtenSeen = bytesWritten;
    this.unreadBytes = Math.min(Math.max(0, this.unreadBytes - readBytes) + sent, MOST_UNREAD_BYTES);
    this.unreadSincePing = Math.min(this.unreadSincePing + sent, MOST_UNREAD_BYTES);
  }

  /** A look at the byte counter: whether anything has come in since the last one. Half a frame is life too. */
  lookForBytes(): boolean {
    const { bytesRead } = this.transport;
    if (bytesRead === this.bytesSeen) {
      // What was told after the bytes had been seen, as of a message that had to be inflated, tells of no others.
      this.heardSinceLook = false;
      return false;
    }
    if (!this.heardSinceLook) this.heard();
    this.bytesSeen = bytesRead;
    this.bytesCame = false;
    this.heardSinceLook = false;
    this.quietLooks = 0;
    this.stalledLooks = HEARD_BETWEEN_LOOKS;
    return true;
  }

  /**
   * Called after each send and at close looks. A connection is a slow consumer if its unsent bytes do not move; they are
   * judged after the turn that sent them, never within it: a message, or a burst, that the client reads is delivered.
   */
  checkBacklog(): void {
    const { bufferedAmount } = this.transport;
    const limit = this.manager.registry.options.limits.maxBufferedBytes;
    if (bufferedAmount <= limit || this.isJudgementDue) return;
    if (this.isWatched && bufferedAmount <= MOST_TIMES_LIMIT * limit) return;
    this.isJudgementDue = true;
    const { clock } = this.manager.registry;
    // After a send from a socket's own event the first callback comes without a chance to write; the second has had one.
    clock.afterReads(() => clock.afterReads(() => this.judgeBacklog(limit)));
  }

  private judgeBacklog(limit: number): void {
    this.isJudgementDue = false;
    if (this.transport.bufferedAmount > MOST_TIMES_LIMIT * limit) this.end({ reason: 'slow_consumer' });
    else if (!this.isWatched) this.watchBacklog(limit);
  }

  /**
   * Ends the connection once its unsent bytes have stayed above the limit for a second and the kernel took none. The second
   * is counted in steps: one with an event-loop stall in it is not counted.
   */
  private watchBacklog(limit: number, stepsBefore = 0): void {
    const { bufferedAmount } = this.transport;
    this.isWatched = !this.detached && bufferedAmount > limit;
    if (!this.isWatched) return;
    const { clock } = this.manager.registry;
    const startedAt = clock.now();
    const takenBefore = this.takenBytes;
    clock.setTimeout(() => {
      const wasLate = clock.now() - startedAt > UNMOVED_STEP_MS + LATE_MS;
      // What the peer has read meanwhile is known when the loop has come round to the sockets.
      clock.afterReads(() => {
        const { transport } = this;
        const isUnmoved =
          this.takenBytes === takenBefore &&
          transport.bufferedAmount >= bufferedAmount &&
          transport.isDrained !== true;
        const steps = isUnmoved ? stepsBefore + Number(!wasLate) : 0;
        if (steps === UNMOVED_STEPS) this.end({ reason: 'slow_consumer' });
        else this.watchBacklog(limit, steps);
      });
    }, UNMOVED_STEP_MS);
  }

  /** Bytes that the kernel has taken, also of a write that is half done: Node counts one large message as one write. */
  get takenBytes(): number {
    const { transport } = this;
    return transport.bytesTaken ?? transport.bytesWritten - transport.bytesQueued;
  }

  /** Ends this connection: no longer counted from here on, then the goodbye, then the socket. Idempotent. */
  end(ending: Ending & { readonly reason: DisconnectReason }): void {
    if (this.detached) return;
    if (this.manager.detach(this, ending)) return;
    this.goodbye(ending);
    if (ending.reason === 'no_pong') this.transport.terminate();
  }

  /** Says why, starts the closing handshake, and sees to it that the socket is gone in bounded time. */
  goodbye({ reason, retryAfterMs }: { reason: DisconnectReason; retryAfterMs?: number | undefined }): void {
    try {
      const { code } = CLOSE_REASONS[reason];
      if (this.transport.state === 'open') {
        this.transport.send(closingFrame(code, reason, retryAfterMs));
        this.transport.close(code, reason);
      }
    } catch (error) {
      // The socket is terminated below.
      this.noteThrown(error);
    }
    // A drain has one deadline for all, and terminates what is left itself.
    if (this.closed || this.terminateTimer || reason === 'draining') return;
    const { clock, options } = this.manager.registry;
    this.terminateTimer = clock.setTimeout(() => this.transport.terminate(), options.cleanup.hookTimeoutMs);
  }

  /** The socket is closed. Called by the transport, once, before the application hears of it. */
  noteClosed(code: number, reason: string): void {
    this.closed = { code, reason };
    // A close frame is an inbound byte like any other.
    if (code !== ABNORMAL_CLOSURE && !this.detached) this.lastHeardAt = this.manager.registry.clock.now();
    this.transport.letGo?.();
    if (this.terminateTimer) this.manager.registry.clock.clearTimeout(this.terminateTimer);
    if (!this.detached) this.manager.detach(this, { reason: 'left', code });
  }

  /** The application has been told that the socket is closed; its hooks may still be running. */
  noteTold(): void {
    this.told?.resolve();
  }

  /** A disconnect hook of the application that is running. Must not reject. */
  trackDisconnectHook(hook: Promise<boolean>): void {
    this.disconnectHooks ??= [];
    this.disconnectHooks.push(hook);
  }

  /** The socket is closed, and no disconnect hook of the application is to be waited for. */
  get isGone(): boolean {
    return this.closed !== undefined && this.disconnectHooks === undefined;
  }

  /** Resolves when the socket is closed and the application's disconnect hooks are done: whether all went well. */
  async whenGone(): Promise<boolean> {
    if (!this.closed) {
      this.told ??= deferred();
      await this.told.promise;
    }
    const { clock, options } = this.manager.registry;
    const hooks = this.disconnectHooks;
    if (!hooks) return true;
    const settled = await settleWithin(clock, options.cleanup.hookTimeoutMs, () => Promise.all(hooks));
    return settled.status === 'done' && settled.value.every((ok) => ok === true);
  }
}

function deferred(): { promise: Promise<void>; resolve: () => void } {
  let resolve = () => {};
  const promise = new Promise<void>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}
