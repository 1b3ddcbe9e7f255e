import type { TimerHandle } from '../../src/clock/clock.js';
import { FakeClock } from '../../src/testing/index.js';

/** Rounds of the same instant after which a history is taken to be in an endless loop. */
const MOST_TURNS = 10_000;

interface Task {
  at: number;
  /** Of the same time, the one that was there first; an interval stays as old as it is. */
  readonly order: number;
  readonly callback: () => void;
  /** For an interval. */
  readonly periodMs: number | undefined;
  cancelled: boolean;
}

/**
 * The fake clock, for many histories. It keeps the same order, which `history-clock.test.ts` compares; but where that
 * one lets the real event loop turn after every callback, this one only lets the promises settle.
 */
export class HistoryClock extends FakeClock {
  private instant = super.now();
  private wall = super.wallNow() - super.now();
  private readonly timeouts = new Tasks();
  private readonly arrivals = new Tasks();
  private afterwards: (() => void)[] = [];
  private isMoving = false;
  private made = 0;

  override now(): number {
    return this.instant;
  }

  override wallNow(): number {
    return this.instant + this.wall;
  }

  override setWall(wallMs: number): void {
    this.wall = wallMs - this.instant;
  }

  override setTimeout(callback: () => void, ms: number): TimerHandle {
    return this.addTimeout(callback, ms, false);
  }

  override setInterval(callback: () => void, ms: number): TimerHandle {
    return this.addTimeout(callback, ms, true);
  }

  override clearTimeout(handle: TimerHandle | undefined): void {
    if (handle) this.timeouts.cancel(handle as Task);
  }

  override clearInterval(handle: TimerHandle | undefined): void {
    this.clearTimeout(handle);
  }

  override afterReads(callback: () => void): void {
    this.afterwards.push(callback);
  }

  override io(callback: () => void, ms = 0): void {
    this.arrivals.add({
      at: this.instant + Math.max(0, ms),
      order: this.made++,
      callback,
      periodMs: undefined,
      cancelled: false,
    });
  }

  override get timerCount(): number {
    return this.timeouts.count;
  }

  override async advanceTo(time: number): Promise<void> {
    await this.moving(async () => {
      await callersPromisesSettled();
      await this.turnUntilNothingIsDue();
      for (let next = this.next; next <= time; next = this.next) {
        this.instant = Math.max(this.instant, next);
        await this.turnUntilNothingIsDue();
      }
      this.instant = time;
    });
  }

  override advance(ms: number): Promise<void> {
    return this.advanceTo(this.instant + ms);
  }

  override async stall(ms: number): Promise<void> {
    await this.moving(async () => {
      this.instant += ms;
      await callersPromisesSettled();
      await this.turnUntilNothingIsDue();
    });
  }

  private addTimeout(callback: () => void, ms: number, repeats: boolean): Task {
    const periodMs = ms >= 1 ? Math.trunc(ms) : 1;
    const task: Task = {
      at: this.instant + periodMs,
      order: this.made++,
      callback,
      periodMs: repeats ? periodMs : undefined,
      cancelled: false,
    };
    this.timeouts.add(task);
    return task;
  }

  private get next(): number {
    if (this.afterwards.length > 0) return this.instant;
    return Math.min(this.timeouts.firstAt, this.arrivals.firstAt);
  }

  private async moving(move: () => Promise<void>): Promise<void> {
    if (this.isMoving) throw new Error('it is moving already; await the call before');
    this.isMoving = true;
    try {
      await move();
    } finally {
      this.isMoving = false;
    }
  }

  private async turnUntilNothingIsDue(): Promise<void> {
    const { timeouts, arrivals } = this;
    for (let turns = 0; this.next <= this.instant; turns++) {
      if (turns === MOST_TURNS) throw new Error(`no end of what is due at ${this.instant}`);
      // What comes up meanwhile waits for the next turn, and each of these sees to it in its own way: no timer is
      // shorter than a millisecond, and arrivals are counted before the first of them is let in.
      for (let due = timeouts.takeDue(this.instant); due; due = timeouts.takeDue(this.instant)) {
        if (due.periodMs !== undefined) {
          due.at = this.instant + due.periodMs;
          timeouts.add(due);
        }
        due.callback();
        await promisesSettled();
      }
      for (let left = arrivals.countDue(this.instant); left > 0; left--) {
        arrivals.takeDue(this.instant)?.callback();
        await promisesSettled();
      }
      const callbacks = this.afterwards;
      if (callbacks.length === 0) continue;
      this.afterwards = [];
      for (const callback of callbacks) {
        callback();
        await promisesSettled();
      }
    }
  }
}

// Bound at load: a test that replaces it must not stop this clock.
const { nextTick } = process;

/** Called from within a promise's continuation, Node comes to its next tick when all other promises have settled. */
function promisesSettled(): Promise<void> {
  return new Promise((resolve) => {
    nextTick(resolve);
  });
}

/** Whoever sets the clock going may do so from outside of any promise. */
async function callersPromisesSettled(): Promise<void> {
  await null;
  await promisesSettled();
}

/** The next one last. */
class Tasks {
  private readonly waiting: Task[] = [];
  /** Not cancelled. */
  count = 0;

  get firstAt(): number {
    const { waiting } = this;
    while (waiting.at(-1)?.cancelled) waiting.pop();
    return waiting.at(-1)?.at ?? Number.POSITIVE_INFINITY;
  }

  add(task: Task): void {
    const { waiting } = this;
    let before = waiting.length;
    while (before > 0 && isBefore(waiting[before - 1] as Task, task)) before--;
    waiting.splice(before, 0, task);
    this.count++;
  }

  cancel(task: Task): void {
    if (task.cancelled) return;
    task.cancelled = true;
    if (this.waiting.includes(task)) this.count--;
  }

  countDue(now: number): number {
    return this.waiting.reduce((count, { at }) => (at <= now ? count + 1 : count), 0);
  }

  takeDue(now: number): Task | undefined {
    if (this.firstAt > now) return undefined;
    this.count--;
    return this.waiting.pop();
  }
}

function isBefore(a: Task, b: Task): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}
