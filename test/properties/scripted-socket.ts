import type { Connection } from '../../src/manager/connection.js';
import type { Transport } from '../../src/manager/transport.interface.js';
import { type FakeClock, type FakePeer, FakeSocket } from '../../src/testing/index.js';
import { WireRecord } from './wire-record.js';

/** A socket of a history, whose peer does what the history says; and what the judge may know of it. */
export interface HistorySocket extends Transport {
  readonly connection: Connection;
  readonly record: WireRecord;
  /** How long its application takes to answer a ping that it has read; undefined: it never does. */
  readonly delayMs: number | undefined;
  readonly changedAt: number;
  readonly isStuck: boolean;
  /** When its credentials end. */
  expiresAt: number | undefined;
  /** An application message has come in. */
  onMessage: () => void;
  /** No byte can have come in since then; undefined: one may. */
  readonly deadSince: number | undefined;
  /** When the kernel last took a byte of what waits; undefined: nothing waits. */
  readonly movedAt: number | undefined;
  /** When the answer to a ping that was sent now, or is open, arrives if nothing changes; `Infinity`: never. */
  answerAt(mark?: number): number;
  bind(connection: Connection): this;
  change(peer: FakePeer, halfAfterMs?: number): void;
  pause(on: boolean): void;
  stick(on: boolean): void;
  receive(text?: string): void;
  trickle(bytes?: number): void;
  leave(): void;
}

/** Told by the history: when its peer last changed, and since when nobody can have said anything. */
export class ScriptedSocket extends FakeSocket implements HistorySocket {
  /** Answers pings with bytes that make no frame. */
  private halfAfterMs: number | undefined;
  /** How long it takes to answer; undefined: it never does. */
  delayMs: number | undefined;
  changedAt: number;
  /** When its credentials end. */
  expiresAt: number | undefined;
  onMessage = () => {};
  readonly record: WireRecord;
  /** The last time that anything but an answer came in. */
  spokeAt: number;
  private stuckAt = Number.NEGATIVE_INFINITY;
  /** The last time that it was asked and answered at once. */
  private answeredAt = Number.NEGATIVE_INFINITY;

  constructor(
    private readonly time: FakeClock,
    peer: FakePeer,
    halfAfterMs?: number,
  ) {
    super(time, peer);
    this.changedAt = time.now();
    this.spokeAt = time.now();
    const record = new WireRecord(this, time);
    this.record = record;
    let read = 0;
    // The moment of each inbound byte matters, whichever way it comes.
    Object.defineProperty(this, 'bytesRead', {
      get: () => read,
      set: (bytes: number) => {
        read = bytes;
        record.catchUp();
      },
    });
    this.note(peer, halfAfterMs);
  }

  /** Nobody has been there since then; undefined: somebody is, or may be. */
  get deadSince(): number | undefined {
    if (this.state === 'closed') return this.changedAt;
    if (this.state !== 'open' || this.paused || this.delayMs !== undefined) return undefined;
    // What it said in this very instant may still be on its way.
    return Math.max(this.changedAt, this.spokeAt + 1, this.answeredAt + 1);
  }

  get movedAt(): number | undefined {
    return this.isStuck ? this.stuckAt : undefined;
  }

  answerAt(): number {
    if (this.state !== 'open' || this.isStuck || this.delayMs === undefined) return Number.POSITIVE_INFINITY;
    return this.time.now() + this.delayMs;
  }

  change(peer: FakePeer, halfAfterMs?: number): void {
    if (this.state === 'closed') return;
    this.changedAt = this.time.now();
    this.note(peer, halfAfterMs);
    this.become(halfAfterMs === undefined ? peer : 'silent');
    // Who has been asked before is not to wait for the next question.
    const { delayMs } = this;
    if (delayMs !== undefined) this.time.io(() => this.sayUnlessSilent(), delayMs);
  }

  /** We stop reading, or begin again. */
  pause(on: boolean): void {
    this.paused = on;
    // Who was not read when a question was put, in this very instant, was not asked.
    this.changedAt = this.time.now() + (on ? 0 : 1);
  }

  /** The kernel takes nothing more, or everything again. */
  stick(on: boolean): void {
    if (on && !this.isStuck) this.stuckAt = this.time.now();
    this.isStuck = on;
    this.changedAt = this.time.now();
    // Around the application: it is no output of its own.
    if (on) super.send('x');
    else Object.assign(this, { bytesQueued: 0, bufferedAmount: 0 });
  }

  override ping(mark?: number): void {
    if (this.state === 'open') this.record.notePing(this.bytesWritten, 0);
    super.ping(mark);
    // Its answer comes in the same instant, and it may fall silent after that.
    if (this.delayMs === 0 && this.state === 'open') this.answeredAt = this.time.now();
    const asked = this.halfAfterMs;
    if (asked === undefined || this.state !== 'open') return;
    this.time.io(() => this.sayUnlessSilent(), asked);
  }

  override send(data: string): void {
    if (this.state !== 'open') return;
    this.record.noteOutput(Buffer.byteLength(data), () => super.send(data));
  }

  override trickle(bytes = 1): void {
    super.trickle(bytes);
    this.spokeAt = this.time.now();
  }

  override receive(text = '{}'): void {
    if (this.state !== 'open') return;
    super.receive(text);
    this.onMessage();
    this.spokeAt = this.time.now();
  }

  private sayUnlessSilent(): void {
    if (this.delayMs !== undefined && this.state === 'open') this.trickle();
  }

  private note(peer: FakePeer, halfAfterMs: number | undefined): void {
    this.halfAfterMs = halfAfterMs;
    if (halfAfterMs !== undefined) this.delayMs = halfAfterMs;
    else if (peer === 'answers') this.delayMs = 1;
    else this.delayMs = typeof peer === 'object' ? peer.answersAfterMs : undefined;
  }
}
