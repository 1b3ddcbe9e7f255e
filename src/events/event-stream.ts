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
import { isThenable } from '../clock/deadline.js';
import { failureLine, LineLimiter } from './line-limiter.js';
import type { ReportedEvent, WebSocketManagerEvent } from './websocket-manager-event.js';

type EventType = WebSocketManagerEvent['type'];
type EventOf<T extends EventType> = Extract<WebSocketManagerEvent, { type: T }>;

/** The one stream that everything is reported to, and that logs, metrics, audit and the application read. */
@Injectable()
export class EventStream {
  private readonly subject = new Subject<WebSocketManagerEvent>();
  private readonly listeners = new Map<EventType, ((event: never) => void)[]>();
  private readonly onFailure: (error: unknown) => void;
  /** All log lines of the application, its listeners' failures included, share one limiter. */
  readonly lines: LineLimiter;
  /** Set by who counts the failures of listeners: an event of them would go to the listener that has failed. */
  onListenerFailed: (() => void) | undefined;
  /** See {@link GuardedObservable}. */
  readonly events$: Observable<WebSocketManagerEvent>;

  constructor(private readonly clock: Clock) {
    this.lines = new LineLimiter(clock);
    this.onFailure = (error) => {
      const text = () => failureLine('A listener of events$ failed', error);
      this.lines.write({ level: 'error', kind: 'listeners of events$', text });
      this.onListenerFailed?.();
    };
    this.events$ = new GuardedObservable(this.onFailure, (subscriber) => this.subject.subscribe(subscriber));
  }

  /** For the listeners of our own: by type, so that what nobody wants to hear of costs next to nothing. */
  listen<T extends EventType>(types: readonly T[], listener: (event: EventOf<T>) => void): void {
    for (const type of types) this.listeners.set(type, [...(this.listeners.get(type) ?? []), listener]);
  }

  /** Whether anybody listens; for who would make up an event for every connection. */
  hears(type: EventType): boolean {
    return this.subject.observed || this.listeners.has(type);
  }

  report(event: ReportedEvent): void {
    if (!this.hears(event.type)) return;
    const listeners = this.listeners.get(event.type);
    const complete = { ...event, at: this.clock.wallNow() } as WebSocketManagerEvent;
    for (const listener of listeners ?? []) this.tell(listener, complete);
    if (this.subject.observed) this.subject.next(complete);
  }

  /** Tells the listeners that nothing more will come. */
  complete(): void {
    this.subject.complete();
  }

  private tell(listener: (event: never) => void, event: WebSocketManagerEvent): void {
    try {
      listener(event as never);
    } catch (error) {
      this.onFailure(error);
    }
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
      // Of whatever realm: under Jest, Node's own promises are not of the test's.
      if (isThenable(result)) result.then(undefined, this.onFailure);
    } catch (error) {
      this.onFailure(error);
    }
  }
}

function isSubscriber(observer: unknown): observer is Partial<Observer<never>> {
  return typeof observer === 'object' && observer !== null && 'isStopped' in observer && 'add' in observer;
}
