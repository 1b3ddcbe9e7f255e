import { Fifo } from './due-queue.js';

/** Handle of a timer; only the clock that made it can read it. */
export type TimerHandle = object;

/** What a piece of work is for: an incoming connection that waits for it, or anything else. */
export type WorkPriority = 'admission' | 'background';

/**
 * Where all time in this package comes from. Durations and deadlines are measured on {@link Clock.now},
 * which never steps; {@link Clock.wallNow} is only for what people read and for credentials that carry a date.
 */
export abstract class Clock {
  /** When the work of this turn of the event loop began; undefined: none was done in it. */
  private turnBeganAt: number | undefined;
  private isPieceRunning = false;
  private hasRunBackground = false;
  private readonly admissionQueue = new Fifo<() => void>();
  private readonly backgroundQueue = new Fifo<() => void>();

  /** Monotonic milliseconds, with fractions. The origin has no meaning. */
  abstract now(): number;
  /** Milliseconds since 1970; may step when the machine's clock is set. */
  abstract wallNow(): number;
  abstract setTimeout(callback: () => void, ms: number): TimerHandle;
  abstract clearTimeout(handle: TimerHandle | undefined): void;
  abstract setInterval(callback: () => void, ms: number): TimerHandle;
  abstract clearInterval(handle: TimerHandle | undefined): void;
  /** Calls back once whatever already waits in the sockets has been read: one turn of the event loop. */
  abstract afterReads(callback: () => void): void;

  /**
   * Yields to the event loop when the time budget of this turn is spent; call before each piece of expensive work.
   * undefined: go on; otherwise a promise that resolves when the next piece may be done.
   *
   * Each turn runs pieces until {@link TURN_MS} of work are done: first the admissions that wait, then background
   * work, each FIFO. Background work gets one piece a turn at least, so that admissions cannot starve it.
   */
  yieldIfOverBudget(priority: WorkPriority = 'background'): Promise<void> | undefined {
    if (this.turnBeganAt === undefined) this.beginTurn();
    const isAdmission = priority === 'admission';
    const isBehind = this.admissionQueue.size > 0 || (!isAdmission && this.backgroundQueue.size > 0);
    if (isBehind || this.isPieceRunning || this.isBudgetSpent)
      return new Promise((resolve) =>
        (isAdmission ? this.admissionQueue : this.backgroundQueue).push(resolve),
      );
    this.pieceBegins(isAdmission);
    return undefined;
  }

  /** Calls back when the promises that have just been resolved, and what follows from them at once, have settled. */
  protected afterMicrotasks(callback: () => void): void {
    queueMicrotask(callback);
  }

  private get isBudgetSpent(): boolean {
    return this.turnBeganAt === undefined || this.now() - this.turnBeganAt >= TURN_MS;
  }

  private beginTurn(): void {
    this.turnBeganAt = this.now();
    this.hasRunBackground = false;
    this.afterReads(() => {
      this.turnBeganAt = undefined;
      if (this.admissionQueue.size + this.backgroundQueue.size === 0) return;
      this.beginTurn();
      this.runNext();
    });
  }

  /** A piece is done when all that follows from it without a pause is: only then is it known what it took. */
  private pieceBegins(isAdmission: boolean): void {
    this.isPieceRunning = true;
    if (!isAdmission) this.hasRunBackground = true;
    this.afterMicrotasks(() => {
      this.isPieceRunning = false;
      this.runNext();
    });
  }

  private runNext(): void {
    if (this.isPieceRunning || this.turnBeganAt === undefined) return;
    const isSpent = this.isBudgetSpent;
    const admission = isSpent ? undefined : this.admissionQueue.shift();
    const piece = admission ?? (isSpent && this.hasRunBackground ? undefined : this.backgroundQueue.shift());
    if (!piece) return;
    piece();
    this.pieceBegins(admission !== undefined);
  }
}

/** Milliseconds of work in one turn of the event loop. The rest of a turn belongs to the application. */
const TURN_MS = 5;

/** The clock of the running process. Its timers never keep the process alive. */
export class SystemClock extends Clock {
  now(): number {
    return performance.now();
  }

  wallNow(): number {
    return Date.now();
  }

  setTimeout(callback: () => void, ms: number): TimerHandle {
    return setTimeout(callback, ms).unref();
  }

  clearTimeout(handle: TimerHandle | undefined): void {
    clearTimeout(handle as NodeJS.Timeout | undefined);
  }

  setInterval(callback: () => void, ms: number): TimerHandle {
    return setInterval(callback, ms).unref();
  }

  clearInterval(handle: TimerHandle | undefined): void {
    clearInterval(handle as NodeJS.Timeout | undefined);
  }

  afterReads(callback: () => void): void {
    // Timers, then the poll phase that reads sockets, then immediates: libuv's order.
    setImmediate(callback);
  }

  protected override afterMicrotasks(callback: () => void): void {
    // Node empties the queue of `nextTick` before that of the promises, unless it is within the latter.
    queueMicrotask(() => process.nextTick(callback));
  }
}
