import type { Connection } from '../../src/manager/connection.js';
import type { FakeClock, FakePeer } from '../../src/testing/index.js';
import { type Direction, Link, type LinkBuffers, type LinkConditions } from './link.js';
import type { HistorySocket } from './scripted-socket.js';
import { WireRecord } from './wire-record.js';

/** What a frame costs on the wire beside its payload, and what a masked pong and a close frame cost in all. */
const FRAME_BYTES = 2;
const PONG_BYTES = 6;
const CLOSE_BYTES = 8;
const MASK_BYTES = 4;

const ABNORMAL = 1006;
const GOING_AWAY = 1001;

/**
 * How the application of a peer reads: all that comes, nothing while it still talks, nothing because it is frozen (its
 * kernel acknowledges until the receive buffer is full), or so many KiB a second.
 */
export type Reads = 'all' | 'nothing' | 'frozen' | number;

/** A socket whose peer is at the other end of a link. */
export class LinkedSocket implements HistorySocket {
  state: 'open' | 'closing' | 'closed' = 'open';
  readonly isAttentive = true;
  bytesRead = 0;
  delayMs: number | undefined = undefined;
  changedAt: number;
  expiresAt: number | undefined;
  onMessage = () => {};
  readonly record: WireRecord;
  readonly link: Link;
  private halfAfterMs: number | undefined;
  private reads: Reads = 'all';
  private isFullOfReads = false;
  /** The network between is gone, without a word to either end. */
  private isGone = false;
  private readonly cuts: Record<Direction, boolean> = { down: false, up: false };
  private isPaused = false;
  /** Pings that its application has read, and will answer. */
  private thinking = 0;
  /** Pings that it has read, and will answer when it is no longer frozen. */
  private postponed = 0;
  private bound: Connection | undefined;
  private isTold = false;

  constructor(
    private readonly clock: FakeClock,
    peer: FakePeer,
    halfAfterMs: number | undefined,
    conditions: LinkConditions,
    buffers: LinkBuffers,
    private readonly knowsBytesTaken: boolean,
  ) {
    this.changedAt = clock.now();
    this.record = new WireRecord(this, clock);
    this.link = new Link(clock, conditions, buffers, ({ bytes, frame }) => {
      if (this.isTold || this.state === 'closed') return;
      this.bytesRead += bytes;
      this.record.catchUp();
      if (bytes > 0 && this.bound) this.bound.bytesCame = true;
      frame?.();
    });
    this.become(peer, halfAfterMs);
  }

  get connection(): Connection {
    if (!this.bound) throw new Error('LinkedSocket: bind(manager.attach(socket)) comes first');
    return this.bound;
  }

  bind(connection: Connection): this {
    this.bound = connection;
    return this;
  }

  get paused(): boolean {
    return this.isPaused;
  }

  get bytesWritten(): number {
    return this.link.down.written;
  }

  get bytesQueued(): number {
    if (this.isTold) return 0;
    this.link.down.flow(this.clock.now());
    return this.link.down.queued;
  }

  get bytesTaken(): number | undefined {
    if (!this.knowsBytesTaken) return undefined;
    this.link.down.flow(this.clock.now());
    return this.link.down.taken;
  }

  get bufferedAmount(): number {
    return this.bytesQueued;
  }

  get isStuck(): boolean {
    return this.isFullOfReads;
  }

  get deadSince(): number | undefined {
    if (this.state === 'closed') return this.changedAt;
    if (this.state !== 'open' || this.isPaused) return undefined;
    const isSilent = this.isGone || (this.reads === 'frozen' && !this.mayStillSpeak);
    return isSilent ? Math.max(this.changedAt, this.record.heardAt + 1) : undefined;
  }

  get movedAt(): number | undefined {
    const { down } = this.link;
    down.flow(this.clock.now());
    if (down.unsent === 0) return undefined;
    return this.knowsBytesTaken ? down.movedAt : Math.max(down.completedAt, down.blockedAt);
  }

  answerAt(mark = this.link.down.written + FRAME_BYTES): number {
    const { delayMs } = this;
    if (this.state !== 'open' || delayMs === undefined || this.isGone) return Number.POSITIVE_INFINITY;
    return this.link.answerAt(mark, delayMs);
  }

  change(peer: FakePeer, halfAfterMs?: number): void {
    if (this.state === 'closed') return;
    this.become(peer, halfAfterMs);
    // As a peer that notices that it is back.
    if (this.delayMs !== undefined && this.reads !== 'frozen') this.trickle();
  }

  /** The conditions of the link change. */
  changeLink(conditions: LinkConditions): void {
    this.changedAt = this.clock.now();
    this.link.change(conditions);
  }

  /** Nothing passes in this direction for so long. */
  cutFor(direction: Direction, ms: number): void {
    this.setCut(direction, true);
    this.clock.io(() => this.setCut(direction, false), ms);
  }

  /** Everything passes again, and its application reads all of it. */
  heal(): void {
    this.setCut('down', false);
    this.setCut('up', false);
    this.setReads('all');
    this.changeLink({ downRate: undefined, upRate: undefined, delayMs: 0, jitterMs: [] });
    this.link.hurry();
  }

  setReads(reads: Reads): void {
    this.changedAt = this.clock.now();
    this.reads = reads;
    this.applyReads();
    if (reads === 'frozen') return;
    for (; this.postponed > 0; this.postponed--) this.answer();
  }

  pause(on: boolean): void {
    this.isPaused = on;
    this.changedAt = this.clock.now() + (on ? 0 : 1);
    if (this.bound) this.bound.isCalm = false;
  }

  /** Its application stops reading, or begins again. */
  stick(on: boolean): void {
    this.changedAt = this.clock.now();
    this.isFullOfReads = on;
    this.applyReads();
  }

  receive(text = '{}'): void {
    if (this.isSilenced) return;
    this.upload(Buffer.byteLength(text) + FRAME_BYTES + MASK_BYTES);
  }

  /** One message of the peer. */
  upload(bytes: number): void {
    if (this.isSilenced) return;
    this.link.upload(bytes, () => {
      if (this.state !== 'open') return;
      this.connection.noteReceived();
      this.onMessage();
    });
  }

  /** Bytes that make no whole frame. */
  trickle(bytes = 1): void {
    if (!this.isSilenced) this.link.upload(bytes);
  }

  leave(code = GOING_AWAY): void {
    this.link.upload(CLOSE_BYTES, () => this.finish(code, ''));
  }

  ping(mark?: number): void {
    if (this.state !== 'open') return;
    const { down } = this.link;
    down.flow(this.clock.now());
    this.record.notePing(down.written + FRAME_BYTES, down.underWay);
    this.link.send(FRAME_BYTES, () => this.answer(mark));
  }

  send(data: string): void {
    if (this.state !== 'open') return;
    const bytes = Buffer.byteLength(data) + FRAME_BYTES;
    this.record.noteOutput(bytes, () => this.link.send(bytes));
  }

  close(code: number, reason: string): void {
    if (this.state !== 'open') return;
    this.state = 'closing';
    this.link.send(CLOSE_BYTES, () => {
      if (this.delayMs !== undefined) this.link.upload(CLOSE_BYTES, () => this.finish(code, reason));
    });
  }

  terminate(): void {
    if (this.isTold) return;
    if (this.state === 'open') this.state = 'closing';
    this.clock.io(() => this.finish(ABNORMAL, ''));
  }

  private get isSilenced(): boolean {
    return this.state === 'closed' || this.reads === 'frozen';
  }

  private get mayStillSpeak(): boolean {
    return this.thinking > 0 || this.link.isUploading || this.link.isAnswering;
  }

  private answer(mark?: number): void {
    this.thinking++;
    this.clock.io(() => {
      this.thinking--;
      if (this.state === 'closed' || this.delayMs === undefined) return;
      if (this.reads === 'frozen') {
        this.postponed++;
        return;
      }
      if (this.halfAfterMs !== undefined) this.link.upload(1);
      else this.link.upload(PONG_BYTES, () => this.connection.notePong(mark));
    }, this.delayMs ?? 0);
  }

  private become(peer: FakePeer, halfAfterMs: number | undefined): void {
    this.changedAt = this.clock.now();
    this.halfAfterMs = halfAfterMs;
    if (peer === 'closed') {
      this.state = 'closed';
      this.link.end();
      return;
    }
    if (halfAfterMs !== undefined) this.delayMs = halfAfterMs;
    else if (peer === 'answers') this.delayMs = 0;
    else if (typeof peer === 'object') this.delayMs = peer.answersAfterMs;
    this.isGone = peer === 'silent' && halfAfterMs === undefined;
    this.applyCuts();
  }

  private setCut(direction: Direction, isCut: boolean): void {
    this.changedAt = this.clock.now();
    this.cuts[direction] = isCut;
    this.applyCuts();
  }

  private applyCuts(): void {
    for (const direction of ['down', 'up'] as const)
      this.link.setCut(direction, this.isGone || this.cuts[direction]);
  }

  private applyReads(): void {
    const { reads } = this;
    if (this.isFullOfReads || reads === 'nothing' || reads === 'frozen') this.link.setReads(0);
    else this.link.setReads(reads === 'all' ? Number.POSITIVE_INFINITY : (reads * 1_024) / 1_000);
  }

  private finish(code: number, reason: string): void {
    if (this.isTold) return;
    this.isTold = true;
    this.state = 'closed';
    this.link.end();
    this.bound?.noteClosed(code, reason);
    this.bound?.noteTold();
  }
}
