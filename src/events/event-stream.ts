import { Injectable, Logger } from '@nestjs/common';
import { Observable, type Observer, type Operator, Subject, type Subscription } from 'rxjs';
import { Clock } from '../clock/clock.js';
import type { ReportedEvent, WebSocketManagerEvent } from './websocket-manager-event.js';

/** The one stream that everything is reported to, and that logs, metrics, audit and the application read. */
@Injectable()
export class EventStream {
  private readonly subject = new Subject<WebSocketManagerEvent>();
  /** See {@link GuardedObservable}. */
  readonly events$: Observable<WebSocketManagerEvent> = new GuardedObservable((subscriber) =>
    this.subject.subscribe(subscriber),
  );

  constructor(private readonly clock: Clock) {}

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

const logger = new Logger('WebSocketManagerEvents');

/**
 * An observable whose listeners cannot end the process.
 *
 * RxJS rethrows what a listener throws from a timer, and drops the promise of an async one: both would be fatal
 * in Node. Here both end in a log line, behind operators too.
 */
class GuardedObservable<T> extends Observable<T> {
  override lift<R>(operator?: Operator<T, R>): Observable<R> {
    const lifted = new GuardedObservable<R>();
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
      next: (value) => guarded(() => observer.next?.(value)),
      error: (reason: unknown) => {
        if (observer.error) guarded(() => observer.error?.(reason));
        else logListenerFailure(reason);
      },
      complete: () => guarded(() => observer.complete?.()),
    });
  }
}

function isSubscriber(observer: unknown): observer is Partial<Observer<never>> {
  return typeof observer === 'object' && observer !== null && 'isStopped' in observer && 'add' in observer;
}

function guarded(call: () => unknown): void {
  try {
    const result = call();
    if (result instanceof Promise) result.catch(logListenerFailure);
  } catch (error) {
    logListenerFailure(error);
  }
}

function logListenerFailure(error: unknown): void {
  logger.error(`A listener of events$ failed: ${error instanceof Error ? error.stack : String(error)}`);
}
