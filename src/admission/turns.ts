import type { Clock, TimerHandle } from '../clock/clock.js';
import { Fifo } from '../clock/due-queue.js';
import type { UserRecord } from '../manager/user-record.js';

/** One thing at a time for each of those that have one, in the order in which they came. */
export class Turns<Owner extends object> {
  /** The end of the last in line. */
  private readonly lines = new Map<Owner, Promise<void>>();

  /** Whether somebody has the turn, or waits for it. */
  isTaken(owner: Owner): boolean {
    return this.lines.has(owner);
  }

  /** Does it when all before are done, whatever came of them. */
  async take<T>(owner: Owner, work: () => Promise<T>): Promise<T> {
    const before = this.lines.get(owner);
    let done = () => {};
    const mine = new Promise<void>((resolve) => {
      done = resolve;
    });
    this.lines.set(owner, mine);
    try {
      if (before) await before;
      return await work();
    } finally {
      if (this.lines.get(owner) === mine) this.lines.delete(owner);
      done();
    }
  }
}

/** Why an incoming connection in a {@link SlotQueue} is woken. `gone`: its client has disconnected. */
export type Wake = 'freed' | 'eviction' | 'expired' | 'gone';

/** An incoming connection that waits for a slot. */
export interface SlotWaiter {
  isGone(): boolean;
  /** Whether a live session may be evicted for it. */
  mayEvict(): boolean;
}

interface Entry extends SlotWaiter {
  wake: ((reason: Wake) => void) | undefined;
}

/** After an eviction that was allowed and freed nothing, the next attempt. */
const RETRY_EVICTION_MS = 100;

/**
 * Incoming connections of one user that wait for a slot, FIFO. Each slot that becomes free wakes one of them, in O(1),
 * and so does the time from which a live session may be evicted. A connection that is woken, and does not use what it
 * was woken for, passes it on.
 */
export class SlotQueue {
  private readonly entries = new Fifo<Entry>();
  /** Connections that wait. */
  private waiting = 0;
  /** Woken, and not settled yet. */
  private woken = 0;
  private timer: TimerHandle | undefined;
  private readonly stopListening: () => void;

  /**
   * @param evictionWaitMs how long until a live session of the user may be evicted
   * @param onEmpty called when the queue is not needed any more
   */
  constructor(
    private readonly clock: Clock,
    user: UserRecord,
    private readonly evictionWaitMs: () => number,
    private readonly onEmpty: () => void,
  ) {
    this.stopListening = user.onFreed(() => this.wakeFirst('freed'));
  }

  /**
   * Waits at the end, or at the front for a connection that was woken in vain. It is in the queue when this returns, so
   * no slot that becomes free afterwards is missed.
   */
  wait(waiter: SlotWaiter, mostMs: number, atFront: boolean): Promise<Wake> {
    return new Promise((resolve) => {
      const entry: Entry = {
        isGone: () => waiter.isGone(),
        mayEvict: () => waiter.mayEvict(),
        wake: (reason) => {
          entry.wake = undefined;
          this.waiting--;
          this.woken++;
          this.clock.clearTimeout(expiry);
          resolve(reason);
        },
      };
      const expiry = this.clock.setTimeout(() => {
        entry.wake?.('expired');
        while (this.entries.size > 0 && !this.entries.first?.wake) this.entries.shift();
      }, mostMs);
      if (atFront) this.entries.unshift(entry);
      else this.entries.push(entry);
      this.waiting++;
      if (!this.timer) this.armEviction(0);
    });
  }

  /** The connection has its answer, or waits again. `passOn`: it did not use the slot that it was woken for. */
  settled(reason: Wake, passOn: boolean): void {
    this.woken--;
    if (passOn && reason === 'freed') this.wakeFirst('freed');
    if (reason === 'eviction') this.armEviction(RETRY_EVICTION_MS);
    if (this.waiting + this.woken > 0) return;
    this.clock.clearTimeout(this.timer);
    this.stopListening();
    this.onEmpty();
  }

  private wakeFirst(reason: Wake): void {
    for (let first = this.entries.shift(); first; first = this.entries.shift()) {
      if (!first.wake) continue;
      const isGone = first.isGone();
      first.wake(isGone ? 'gone' : reason);
      if (!isGone) return;
    }
  }

  private armEviction(leastMs: number): void {
    this.clock.clearTimeout(this.timer);
    this.timer = undefined;
    if (this.waiting === 0) return;
    const ms = Math.max(1, leastMs, Math.ceil(this.evictionWaitMs()));
    this.timer = this.clock.setTimeout(() => this.wakeForEviction(), ms);
  }

  /** The first connection that a live session may be evicted for: others wait for a slot that becomes free. */
  private wakeForEviction(): void {
    this.timer = undefined;
    const passedOver: Entry[] = [];
    let next = this.entries.shift();
    for (; next && !(next.wake && !next.isGone() && next.mayEvict()); next = this.entries.shift()) {
      if (next.wake && next.isGone()) next.wake('gone');
      else if (next.wake) passedOver.push(next);
    }
    for (const entry of passedOver.reverse()) this.entries.unshift(entry);
    if (next) next.wake?.('eviction');
    else this.armEviction(RETRY_EVICTION_MS);
  }
}
