/** Handle of a timer; only the clock that made it can read it. */
export type TimerHandle = object;

/**
 * Where all time in this package comes from. Durations and deadlines are measured on {@link Clock.now},
 * which never steps; {@link Clock.wallNow} is only for what people read and for credentials that carry a date.
 */
export abstract class Clock {
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
}

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
