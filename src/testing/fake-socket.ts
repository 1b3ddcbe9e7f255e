import type { Connection } from '../manager/connection.js';
import type { Transport } from '../manager/transport.interface.js';
import type { FakeClock } from './fake-clock.js';

/**
 * Who is at the other end: somebody that answers, at once or after a while; nobody, and no one told us;
 * or a socket that is closed already, unnoticed.
 */
export type FakePeer = 'answers' | 'silent' | 'closed' | { readonly answersAfterMs: number };

/** How long an answer of a peer that `answers` is under way, in milliseconds. */
const LATENCY_MS = 1;
/** What a frame costs on the wire beside its payload, and a masked pong in all. */
const FRAME_BYTES = 2;
const PONG_BYTES = 6;

const ABNORMAL = 1006;

/**
 * A socket with a scripted peer, on a {@link FakeClock}.
 *
 * @example
 * ```ts
 * const socket = new FakeSocket(clock, 'silent');
 * socket.bind(manager.attach(socket));
 * await clock.advance(45_000); // the heartbeat finds it
 * ```
 */
export class FakeSocket implements Transport {
  state: 'open' | 'closing' | 'closed' = 'open';
  /** It tells its connection of what comes in, as a real one does from its first ping on. */
  readonly isAttentive = true;
  bytesRead = 0;
  bytesWritten = 0;
  bytesQueued = 0;
  bufferedAmount = 0;
  /** Frames handed over for sending. */
  readonly sent: string[] = [];
  /** Pings handed over for sending. */
  pings = 0;
  /** The close that was asked for by our side. */
  closeAsked: { readonly code: number; readonly reason: string } | undefined;
  /** `terminate()` was called while the socket was not closed. */
  terminated = false;
  /** The kernel takes nothing more: what is written from now on stays in our queue. */
  isStuck = false;
  private isPaused = false;
  private peer: FakePeer;
  private unanswered = 0;
  private bound: Connection | undefined;
  private isTold = false;

  constructor(
    private readonly clock: FakeClock,
    peer: FakePeer = 'answers',
  ) {
    this.peer = peer;
    if (peer === 'closed') this.state = 'closed';
  }

  /** Our side does not read. */
  get paused(): boolean {
    return this.isPaused;
  }

  set paused(on: boolean) {
    this.isPaused = on;
    if (this.bound) this.bound.isCalm = false;
  }

  /** The connection that the socket belongs to; set by {@link bind}. */
  get connection(): Connection {
    if (!this.bound) throw new Error('FakeSocket: bind(manager.attach(socket)) comes first');
    return this.bound;
  }

  bind(connection: Connection): this {
    this.bound = connection;
    return this;
  }

  /** Changes the peer. One that answers again answers the pings that it finds waiting. */
  become(peer: FakePeer): void {
    this.peer = peer;
    if (peer === 'closed') this.state = 'closed';
    if (this.answerDelayMs === undefined) return;
    for (; this.unanswered > 0; this.unanswered--) this.answerPing();
    if (this.state === 'closing') this.answerClose();
  }

  /** An application message comes in, now. */
  receive(text = '{}'): void {
    if (this.state !== 'open') return;
    this.read(Buffer.byteLength(text) + PONG_BYTES);
    this.connection.noteReceived();
  }

  /** Bytes come in that make no whole frame yet, now. */
  trickle(bytes = 1): void {
    this.read(bytes);
  }

  /** The peer closes, with the next turn. */
  leave(code = 1001, reason = ''): void {
    this.clock.io(() => this.finish(code, reason));
  }

  ping(mark?: number): void {
    if (this.state !== 'open') return;
    this.pings++;
    this.write(FRAME_BYTES);
    if (this.answerDelayMs === undefined) this.unanswered++;
    else this.answerPing(mark);
  }

  send(data: string): void {
    if (this.state !== 'open') return;
    this.sent.push(data);
    this.write(Buffer.byteLength(data) + FRAME_BYTES);
  }

  close(code: number, reason: string): void {
    if (this.state !== 'open') return;
    this.state = 'closing';
    this.closeAsked = { code, reason };
    this.answerClose();
  }

  terminate(): void {
    if (this.isTold) return;
    this.terminated = true;
    if (this.state === 'open') this.state = 'closing';
    this.clock.io(() => this.finish(ABNORMAL, ''));
  }

  private get answerDelayMs(): number | undefined {
    if (this.peer === 'answers') return LATENCY_MS;
    return typeof this.peer === 'object' ? this.peer.answersAfterMs : undefined;
  }

  private read(bytes: number): void {
    this.bytesRead += bytes;
    if (this.bound) this.bound.bytesCame = true;
  }

  private write(bytes: number): void {
    this.bytesWritten += bytes;
    if (!this.isStuck) return;
    this.bytesQueued += bytes;
    this.bufferedAmount += bytes;
  }

  private answerPing(mark?: number): void {
    this.clock.io(() => {
      if (this.isTold || this.state === 'closed') return;
      if (this.answerDelayMs === undefined) {
        this.unanswered++;
        return;
      }
      this.read(PONG_BYTES);
      this.connection.notePong(mark);
    }, this.answerDelayMs);
  }

  private answerClose(): void {
    const { closeAsked, answerDelayMs } = this;
    if (!closeAsked || answerDelayMs === undefined) return;
    this.clock.io(() => {
      if (this.answerDelayMs === undefined) return;
      this.read(PONG_BYTES + FRAME_BYTES);
      this.finish(closeAsked.code, closeAsked.reason);
    }, answerDelayMs);
  }

  private finish(code: number, reason: string): void {
    if (this.isTold) return;
    this.isTold = true;
    this.state = 'closed';
    this.bytesQueued = 0;
    this.bufferedAmount = 0;
    this.bound?.noteClosed(code, reason);
    this.bound?.noteTold();
  }
}
