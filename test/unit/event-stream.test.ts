import { Logger } from '@nestjs/common';
import { filter, map, share, toArray } from 'rxjs';
import { afterEach, beforeEach, describe, expect, it, type MockInstance, vi } from 'vitest';
import { EventStream } from '../../src/events/event-stream.js';
import { FakeClock } from '../../src/testing/index.js';

const EVENT = { type: 'sweep_finished', users: 1, durationMs: 2 } as const;

describe('EventStream', () => {
  let stream: EventStream;
  let logged: MockInstance;
  let fatal: unknown[];
  const note = (error: unknown) => fatal.push(error);

  beforeEach(() => {
    stream = new EventStream(new FakeClock({ wallStartAt: 1_234 }));
    logged = vi.spyOn(Logger.prototype, 'error').mockImplementation(() => {});
    fatal = [];
    process.on('uncaughtException', note);
    process.on('unhandledRejection', note);
  });

  afterEach(async () => {
    // RxJS rethrows from a timer.
    await new Promise((resolve) => setTimeout(resolve, 5));
    process.off('uncaughtException', note);
    process.off('unhandledRejection', note);
    logged.mockRestore();
    expect(fatal).toEqual([]);
  });

  it('tells every listener, with the time', () => {
    const seen: unknown[] = [];
    stream.events$.subscribe((event) => seen.push(event));
    stream.events$.subscribe({ next: (event) => seen.push(event) });
    stream.report(EVENT);
    expect(seen).toEqual([
      { ...EVENT, at: 1_234 },
      { ...EVENT, at: 1_234 },
    ]);
  });

  it('survives a listener that throws, and tells the others', () => {
    const seen: unknown[] = [];
    stream.events$.subscribe(() => {
      throw new Error('listener');
    });
    stream.events$.subscribe((event) => seen.push(event));
    stream.report(EVENT);
    stream.report(EVENT);
    expect(seen).toHaveLength(2);
    expect(logged).toHaveBeenCalledTimes(2);
  });

  it('survives an async listener that rejects', async () => {
    stream.events$.subscribe(async () => {
      throw new Error('listener');
    });
    stream.report(EVENT);
    await new Promise((resolve) => setImmediate(resolve));
    expect(logged).toHaveBeenCalledTimes(1);
  });

  it('survives both behind operators', async () => {
    const piped = stream.events$.pipe(
      filter(({ type }) => type === 'sweep_finished'),
      map((event) => event.at),
      share(),
    );
    piped.subscribe(() => {
      throw new Error('sync');
    });
    piped.subscribe(async () => {
      throw new Error('async');
    });
    stream.report(EVENT);
    await new Promise((resolve) => setImmediate(resolve));
    expect(logged).toHaveBeenCalledTimes(2);
  });

  it('survives an operator that throws, with nobody to hear of the error', () => {
    stream.events$
      .pipe(
        map(() => {
          throw new Error('operator');
        }),
      )
      .subscribe(() => {});
    stream.report(EVENT);
    expect(logged).toHaveBeenCalledTimes(1);
  });

  it('tells the end, and survives a listener that throws at it', () => {
    const all: unknown[][] = [];
    stream.events$.pipe(toArray()).subscribe((events) => all.push(events));
    stream.events$.subscribe({
      complete: () => {
        throw new Error('complete');
      },
    });
    stream.report(EVENT);
    stream.complete();
    expect(all).toHaveLength(1);
    expect(all[0]).toHaveLength(1);
  });

  it('tells no one who has left', () => {
    const seen: unknown[] = [];
    const subscription = stream.events$.subscribe((event) => seen.push(event));
    subscription.unsubscribe();
    stream.report(EVENT);
    expect(seen).toEqual([]);
  });
});
