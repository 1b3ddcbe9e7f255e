/** Handle of a timer; only the clock that made it can read it. */
export type TimerHandle = object;

/**
 * Where all time in this package comes from. Durations and deadlines are measured on {@link Clock.now},
 * which never steps; {@link Clock.wallNow} is only for what people read and for credentials that carry a date.
 */
export abstract class Clock {
  /** When the work of this turn of the event loop began; undefined: none was done in it. */
  private turnBeganAt: number | undefined;
  private readonly waiting: (() => void)[] = [];

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
   * For work that may be much at once, to be asked before each piece of it: everybody else waits for the event loop
   * meanwhile. undefined: go on, this turn has time left; otherwise, when the next piece may be done. First come,
   * first served, one piece a turn.
   */
  breathe(): Promise<void> | undefined {
    const now = this.now();
    if (this.turnBeganAt === undefined) this.beginTurn(now);
    else if (this.waiting.length > 0 || now - this.turnBeganAt >= TURN_MS)
      return new Promise((resolve) => void this.waiting.push(resolve));
    return undefined;
  }

  private beginTurn(now: number): void {
    this.turnBeganAt = now;
    this.afterReads(() => {
      this.turnBeganAt = undefined;
      const next = this.waiting.shift();
      if (!next) return;
      this.beginTurn(this.now());
      next();
    });
  }
}

/** So long may the pieces of one turn take together. */
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
}
