import { Clock, SystemClock, type TimerHandle } from '../clock/clock.js';

// Bound at load: a test that replaces the global timers must not stop this clock.
const nextTurn = setImmediate;

/** Rounds of the same instant after which a test is taken to be in an endless loop. */
const MOST_TURNS = 10_000;

interface Task {
  at: number;
  readonly order: number;
  readonly callback: () => void;
  /** For an interval. */
  readonly periodMs: number | undefined;
  cancelled: boolean;
  queued: boolean;
}

/** Where a {@link FakeClock} begins. */
export interface FakeClockOptions {
  /** The monotonic time at the start, in milliseconds. Default: 1,000,000. */
  startAt?: number;
  /** The wall clock at the start, in milliseconds since 1970. Default: 2024-01-01T00:00:00Z. */
  wallStartAt?: number;
}

/**
 * A clock that stands still until it is told to go on. Time, timers and arriving bytes come in the order that Node
 * has them: timers, then what was read from the network, then {@link afterReads}; promises settle in between.
 * A delay is cut to whole milliseconds and is never shorter than one, as Node's timers are.
 * As a provider of an application it passes by itself from the moment the application is closed.
 *
 * @example
 * ```ts
 * const clock = new FakeClock();
 * clock.setTimeout(() => console.log('half a minute'), 30_000);
 * await clock.advance(30_000);
 * ```
 */
export class FakeClock extends Clock {
  private time: number;
  private wallOffset: number;
  private ordered = 0;
  private readonly timers = new TaskHeap();
  private readonly reads = new TaskHeap();
  private afterReadsQueue: (() => void)[] = [];
  private isTurning = false;
  private stopRunning: (() => void) | undefined;

  constructor({ startAt = 1_000_000, wallStartAt = Date.UTC(2024, 0, 1) }: FakeClockOptions = {}) {
    super();
    this.time = startAt;
    this.wallOffset = wallStartAt - startAt;
  }

  now(): number {
    return this.time;
  }

  wallNow(): number {
    return this.time + this.wallOffset;
  }

  /** Sets the wall clock, as an operator or NTP would. The monotonic time does not notice. */
  setWall(wallMs: number): void {
    this.wallOffset = wallMs - this.time;
  }

  setTimeout(callback: () => void, ms: number): TimerHandle {
    return this.addTimer(callback, ms, false);
  }

  clearTimeout(handle: TimerHandle | undefined): void {
    if (handle) this.timers.cancel(handle as Task);
  }

  setInterval(callback: () => void, ms: number): TimerHandle {
    return this.addTimer(callback, ms, true);
  }

  clearInterval(handle: TimerHandle | undefined): void {
    this.clearTimeout(handle);
  }

  afterReads(callback: () => void): void {
    this.afterReadsQueue.push(callback);
  }

  /** Bytes arrive from the network in `ms`; 0: with the next turn of the event loop. */
  io(callback: () => void, ms = 0): void {
    const at = this.time + Math.max(0, ms);
    this.reads.push({
      at,
      order: this.ordered++,
      callback,
      periodMs: undefined,
      cancelled: false,
      queued: false,
    });
  }

  /** Timeouts and intervals that wait. */
  get timerCount(): number {
    return this.timers.size;
  }

  /** Lets `ms` pass: everything due happens at its own time, in order, and promises settle after each. */
  advance(ms: number): Promise<void> {
    return this.advanceTo(this.time + ms);
  }

  /** Lets time pass until `time`; see {@link advance}. */
  async advanceTo(time: number): Promise<void> {
    if (time < this.time) throw new RangeError(`FakeClock: ${time} is over; it is ${this.time}`);
    await this.exclusively(async () => {
      await this.turnUntilQuiet();
      for (let next = this.nextAt(); next <= time; next = this.nextAt()) {
        this.time = Math.max(this.time, next);
        await this.turnUntilQuiet();
      }
      this.time = time;
    });
  }

  /** Lets what is due at this instant happen, and promises settle. */
  settle(): Promise<void> {
    return this.advance(0);
  }

  /**
   * The event loop stands still for `ms`, as under a long computation or a suspended machine. Then, as in Node:
   * the timers that are overdue, an interval once however often it was missed; then what arrived meanwhile.
   */
  async stall(ms: number): Promise<void> {
    await this.exclusively(async () => {
      this.time += ms;
      await this.turnUntilQuiet();
    });
  }

  /** Lets time pass as it really does, until what it returns is called. */
  run(): () => void {
    const real = new SystemClock();
    let last = real.now();
    const interval = real.setInterval(() => {
      if (this.isTurning) return;
      const now = real.now();
      const elapsed = now - last;
      last = now;
      void this.advance(elapsed);
    }, 1);
    return () => real.clearInterval(interval);
  }

  /** Called by Nest: a shutdown waits for its clients, and nobody is left who would advance the clock. */
  onModuleDestroy(): void {
    this.stopRunning ??= this.run();
  }

  /** Called by Nest. */
  onApplicationShutdown(): void {
    this.stopRunning?.();
    this.stopRunning = undefined;
  }

  private addTimer(callback: () => void, ms: number, repeats: boolean): TimerHandle {
    const periodMs = ms >= 1 ? Math.trunc(ms) : 1;
    const task: Task = {
      at: this.time + periodMs,
      order: this.ordered++,
      callback,
      periodMs: repeats ? periodMs : undefined,
      cancelled: false,
      queued: false,
    };
    this.timers.push(task);
    return task;
  }

  private nextAt(): number {
    const ahead = Math.min(this.timers.firstAt, this.reads.firstAt);
    return this.afterReadsQueue.length > 0 ? this.time : ahead;
  }

  private async exclusively(work: () => Promise<void>): Promise<void> {
    if (this.isTurning) throw new Error('FakeClock: it is moving already; await the call before');
    this.isTurning = true;
    try {
      await work();
    } finally {
      this.isTurning = false;
    }
  }

  private async turnUntilQuiet(): Promise<void> {
    await promisesSettled();
    for (let turns = 0; this.nextAt() <= this.time; turns++) {
      if (turns === MOST_TURNS) throw new Error(`FakeClock: no end of what is due at ${this.time}`);
      await this.turn();
    }
  }

  /** One turn of the event loop. What it brings up anew waits for the next one. */
  private async turn(): Promise<void> {
    for (const task of this.timers.takeDue(this.time)) {
      if (task.cancelled) continue;
      if (task.periodMs !== undefined) {
        task.at = this.time + task.periodMs;
        this.timers.push(task);
      }
      task.callback();
      await promisesSettled();
    }
    for (const { callback } of this.reads.takeDue(this.time)) {
      callback();
      await promisesSettled();
    }
    const callbacks = this.afterReadsQueue;
    this.afterReadsQueue = [];
    for (const callback of callbacks) {
      callback();
      await promisesSettled();
    }
  }
}

/** Microtasks are all done before the real event loop turns; that takes a microsecond, and no time of ours. */
function promisesSettled(): Promise<void> {
  return new Promise((resolve) => {
    nextTurn(resolve);
  });
}

/** A binary heap: the earliest first, and of the same time the one that was there first. */
class TaskHeap {
  private readonly tasks: Task[] = [];
  private cancelledCount = 0;

  get size(): number {
    return this.tasks.length - this.cancelledCount;
  }

  get firstAt(): number {
    this.dropCancelled();
    return this.tasks[0]?.at ?? Number.POSITIVE_INFINITY;
  }

  push(task: Task): void {
    const { tasks } = this;
    task.queued = true;
    let child = tasks.push(task) - 1;
    while (child > 0) {
      const parent = (child - 1) >> 1;
      if (isBefore(tasks[parent] as Task, task)) break;
      tasks[child] = tasks[parent] as Task;
      child = parent;
    }
    tasks[child] = task;
  }

  cancel(task: Task): void {
    if (task.cancelled) return;
    task.cancelled = true;
    if (task.queued) this.cancelledCount++;
  }

  takeDue(now: number): Task[] {
    const due: Task[] = [];
    while (this.firstAt <= now) due.push(this.pop());
    return due;
  }

  private dropCancelled(): void {
    while (this.tasks[0]?.cancelled) {
      this.pop();
      this.cancelledCount--;
    }
  }

  private pop(): Task {
    const { tasks } = this;
    const first = tasks[0] as Task;
    first.queued = false;
    const last = tasks.pop() as Task;
    if (tasks.length === 0) return first;
    let parent = 0;
    for (;;) {
      let child = 2 * parent + 1;
      if (child >= tasks.length) break;
      if (child + 1 < tasks.length && isBefore(tasks[child + 1] as Task, tasks[child] as Task)) child++;
      if (isBefore(last, tasks[child] as Task)) break;
      tasks[parent] = tasks[child] as Task;
      parent = child;
    }
    tasks[parent] = last;
    return first;
  }
}

function isBefore(a: Task, b: Task): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}
