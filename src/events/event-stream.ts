import { Injectable } from '@nestjs/common';
import {
  Observable,
  type Observer,
  type Operator,
  Subject,
  type Subscriber,
  type Subscription,
  type TeardownLogic,
} from 'rxjs';
import { Clock } from '../clock/clock.js';
import { failureLine, LineLimiter } from './line-limiter.js';
import type { ReportedEvent, WebSocketManagerEvent } from './websocket-manager-event.js';

/** The one stream that everything is reported to, and that logs, metrics, audit and the application read. */
@Injectable()
export class EventStream {
  private readonly subject = new Subject<WebSocketManagerEvent>();
  /** See {@link GuardedObservable}. */
  readonly events$: Observable<WebSocketManagerEvent>;

  constructor(private readonly clock: Clock) {
    const lines = new LineLimiter(clock);
    this.events$ = new GuardedObservable(
      (error) => {
        const failure = failureLine('A listener of events$ failed', error);
        lines.write({ level: 'error', kind: 'listeners of events$', ...failure });
      },
      (subscriber) => this.subject.subscribe(subscriber),
    );
  }

  report(event: ReportedEvent): void {
    // Nobody listening: an event is not even built up.
    if (!this.subject.observed) return;
    this.subject.next({ ...event, at: this.clock.wallNow() } as WebSocketManagerEvent);
  }

  /** Tells the listeners that nothing more will come. */
  complete(): void {
    this.subject.complete();
  }
}

/**
 * An observable whose listeners cannot end the process.
 *
 * RxJS rethrows what a listener throws from a timer, and drops the promise of an async one: both would be fatal
 * in Node. Here both are told to `onFailure`, behind operators too.
 */
class GuardedObservable<T> extends Observable<T> {
  constructor(
    private readonly onFailure: (error: unknown) => void,
    subscribe?: (subscriber: Subscriber<T>) => TeardownLogic,
  ) {
    super(subscribe);
  }

  override lift<R>(operator?: Operator<T, R>): Observable<R> {
    const lifted = new GuardedObservable<R>(this.onFailure);
    lifted.source = this;
    lifted.operator = operator;
    return lifted;
  }

  override subscribe(
    observerOrNext?: Partial<Observer<T>> | ((value: T) => void) | null,
    error?: ((error: unknown) => void) | null,
    complete?: (() => void) | null,
  ): Subscription {
    // Operators and subjects subscribe with a Subscriber of RxJS' own, which has to be passed as it is.
    if (isSubscriber(observerOrNext)) return super.subscribe(observerOrNext);
    const observer: Partial<Observer<T>> =
      typeof observerOrNext === 'function' || !observerOrNext
        ? {
            ...(observerOrNext ? { next: observerOrNext } : {}),
            ...(error ? { error } : {}),
            ...(complete ? { complete } : {}),
          }
        : observerOrNext;
    return super.subscribe({
      next: (value) => this.guard(() => observer.next?.(value)),
      error: (reason: unknown) => {
        if (observer.error) this.guard(() => observer.error?.(reason));
        else this.onFailure(reason);
      },
      complete: () => this.guard(() => observer.complete?.()),
    });
  }

  private guard(call: () => unknown): void {
    try {
      const result = call();
      if (result instanceof Promise) result.catch(this.onFailure);
    } catch (error) {
      this.onFailure(error);
    }
  }
}

function isSubscriber(observer: unknown): observer is Partial<Observer<never>> {
  return typeof observer === 'object' && observer !== null && 'isStopped' in observer && 'add' in observer;
}
