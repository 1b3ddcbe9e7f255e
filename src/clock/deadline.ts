import type { Clock, TimerHandle } from './clock.js';

/** What became of something that had a deadline. */
export type Settled<T> =
  | { readonly status: 'done'; readonly value: T }
  | { readonly status: 'failed'; readonly error: unknown }
  | { readonly status: 'late' };

/** Time that may be waited in all, by several calls one after the other. */
export interface TimeBudget {
  /** Milliseconds that are left; what a call waits for is taken off. */
  leftMs: number;
}

/** A deadline is counted in so many parts, each by a timer of its own. */
const PARTS = 4;
/** As {@link settleWithin}'s `parts`: the deadline is a time on the clock, and an event-loop stall is part of it. */
export const STALLS_COUNT = 1;
/** A part whose timer fires later than this had an event-loop stall in it. */
const STALL_MS = 20;
/** Turns of the event loop that read what has arrived before the verdict: clients answer after a turn of their own. */
const READS_BEFORE_VERDICT = 2;

/**
 * Calls, and waits for the answer until the deadline; never throws. A throw counts like a rejection, an answer
 * after the deadline is dropped. What answers at once is settled at once, and costs neither timer nor turn.
 *
 * An answer that has arrived counts, however late this event loop reads it: pending reads are drained before the
 * verdict `late`. An event-loop stall does not count: the deadline is counted in quarters, and each counts for its own
 * length at most, so a stall takes at most a quarter of the time. With a stall in every quarter the wait is still finite.
 *
 * @param limit milliseconds, or a budget that is shared with other calls.
 * @param parts {@link STALLS_COUNT} for a deadline that must hold whatever the event loop does.
 */
export function settleWithin<T>(
  clock: Clock,
  limit: number | TimeBudget,
  call: () => T | PromiseLike<T>,
  parts = PARTS,
): Settled<T> | Promise<Settled<T>> {
  let answer: T | PromiseLike<T>;
  try {
    answer = call();
    if (!isThenable(answer)) return { status: 'done', value: answer };
  } catch (error) {
    return { status: 'failed', error };
  }
  // A thenable of somebody else's may throw where a promise cannot.
  const pending = Promise.resolve(answer);
  return new Promise((resolve) => {
    const budget = typeof limit === 'number' ? { leftMs: limit } : limit;
    const countdown = new Countdown(clock, budget, parts, () => resolve({ status: 'late' }));
    pending.then(
      (value) => {
        countdown.stop();
        resolve({ status: 'done', value });
      },
      (error: unknown) => {
        countdown.stop();
        resolve({ status: 'failed', error });
      },
    );
  });
}

/** Counts a budget down to nothing, and then drains pending reads. */
class Countdown {
  private readonly partMs: number;
  private lengthMs = 0;
  private beganAt = 0;
  private timer: TimerHandle | undefined;

  constructor(
    private readonly clock: Clock,
    private readonly budget: TimeBudget,
    parts: number,
    private readonly onOver: () => void,
  ) {
    // Timers know whole milliseconds only.
    this.partMs = Math.max(1, Math.ceil(budget.leftMs / parts));
    this.beginPart();
  }

  stop(): void {
    if (!this.timer) return;
    this.clock.clearTimeout(this.timer);
    this.timer = undefined;
    this.charge();
  }

  private beginPart(): void {
    this.lengthMs = Math.max(1, Math.min(this.partMs, Math.ceil(this.budget.leftMs)));
    this.beganAt = this.clock.now();
    this.timer = this.clock.setTimeout(() => this.endPart(), this.lengthMs);
  }

  private endPart(): void {
    this.timer = undefined;
    this.charge();
    if (this.budget.leftMs >= 1) this.beginPart();
    else this.drainReads(READS_BEFORE_VERDICT);
  }

  private charge(): void {
    const passedMs = this.clock.now() - this.beganAt;
    const isStall = passedMs - this.lengthMs > STALL_MS;
    this.budget.leftMs = Math.max(0, this.budget.leftMs - (isStall ? this.lengthMs : passedMs));
  }

  private drainReads(turns: number): void {
    if (turns === 0) this.onOver();
    else this.clock.afterReads(() => this.drainReads(turns - 1));
  }
}

/** Goes on with the value: at once where it is there, or when it has come. */
export function whenSettled<T, R>(value: T | Promise<T>, next: (value: T) => R | Promise<R>): R | Promise<R> {
  return isThenable(value) ? (value as Promise<T>).then(next) : next(value as T);
}

export function isThenable<T>(value: T | PromiseLike<T>): value is PromiseLike<T> {
  return typeof (value as PromiseLike<T> | undefined | null)?.then === 'function';
}
