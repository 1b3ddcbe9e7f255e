import { describe, expect, it } from 'vitest';
import { Clock, SystemClock, type WorkPriority } from '../../src/clock/clock.js';
import { Fifo } from '../../src/clock/due-queue.js';
import { FakeClock } from '../../src/testing/index.js';

const BUDGET_MS = 5;

function block(ms: number): void {
  const until = performance.now() + ms;
  while (performance.now() < until);
}

/** Pieces of `ms` each, and the number of the turn of the event loop that each was done in. */
class Pieces {
  readonly done: string[] = [];
  readonly turns = new Map<string, number>();
  private turn = 0;
  private isOver = false;

  constructor(private readonly clock: Clock) {
    const next = () => {
      this.turn++;
      if (!this.isOver) setImmediate(next);
    };
    setImmediate(next);
  }

  async add(name: string, ms: number, priority?: WorkPriority): Promise<void> {
    await this.clock.yieldIfOverBudget(priority);
    this.done.push(name);
    this.turns.set(name, this.turn);
    block(ms);
  }

  end(): void {
    this.isOver = true;
  }
}

describe('yieldIfOverBudget', () => {
  it('does several pieces a turn, as long as the budget is not spent', async () => {
    const pieces = new Pieces(new SystemClock());
    const names = Array.from({ length: 60 }, (_, i) => `piece-${i}`);
    await Promise.all(names.map((name) => pieces.add(name, 1)));
    pieces.end();
    expect(pieces.done).toEqual(names);
    const turns = new Set(pieces.turns.values()).size;
    // A turn that was interrupted has fewer pieces; one piece a turn would be 60.
    expect(turns).toBeGreaterThanOrEqual(60 / (BUDGET_MS + 2));
    expect(turns).toBeLessThanOrEqual(30);
  });

  it('does not count the work of others between two turns', async () => {
    const clock = new SystemClock();
    const pieces = new Pieces(clock);
    let isOver = false;
    const application = () => {
      block(BUDGET_MS);
      if (!isOver) setImmediate(application);
    };
    setImmediate(application);
    await Promise.all(Array.from({ length: 60 }, (_, i) => pieces.add(`piece-${i}`, 0.5)));
    isOver = true;
    pieces.end();
    expect(new Set(pieces.turns.values()).size).toBeLessThanOrEqual(20);
  });

  it('lets admissions go before background work, FIFO', async () => {
    const pieces = new Pieces(new SystemClock());
    const all = [
      pieces.add('first', BUDGET_MS + 1),
      pieces.add('background-1', 1),
      pieces.add('background-2', 1),
      pieces.add('admission-1', 1, 'admission'),
      pieces.add('admission-2', 1, 'admission'),
    ];
    await Promise.all(all);
    pieces.end();
    expect(pieces.done).toEqual(['first', 'admission-1', 'admission-2', 'background-1', 'background-2']);
  });

  it('does one piece of background work a turn, however many admissions wait', async () => {
    const pieces = new Pieces(new SystemClock());
    const all = [pieces.add('first', BUDGET_MS + 1)];
    for (let i = 0; i < 20; i++) all.push(pieces.add(`admission-${i}`, BUDGET_MS + 1, 'admission'));
    for (let i = 0; i < 5; i++) all.push(pieces.add(`background-${i}`, 0.1));
    await Promise.all(all);
    pieces.end();
    const order = pieces.done.slice(1, 11);
    expect(order).toEqual([0, 1, 2, 3, 4].flatMap((i) => [`admission-${i}`, `background-${i}`]));
  });

  it('resumes all that wait on a clock whose time stands still', async () => {
    const clock = new FakeClock();
    const seen: number[] = [];
    clock.yieldIfOverBudget();
    Object.assign(clock, { turnBeganAt: clock.now() - BUDGET_MS });
    for (let i = 0; i < 100; i++) void clock.yieldIfOverBudget()?.then(() => seen.push(i));
    expect(seen).toEqual([]);
    await clock.settle();
    expect(seen).toEqual(Array.from({ length: 100 }, (_, i) => i));
    expect(clock.yieldIfOverBudget()).toBeUndefined();
  });
});

describe('Fifo', () => {
  it('gives back in order what was put in, and what was put before all others first', () => {
    const fifo = new Fifo<number>();
    const expected: number[] = [];
    for (let i = 0; i < 10_000; i++) {
      fifo.push(i);
      expected.push(i);
      if (i % 3 === 0) expect(fifo.shift()).toBe(expected.shift());
      if (i % 7 === 0) {
        fifo.unshift(-i);
        expected.unshift(-i);
      }
      expect(fifo.first).toBe(expected[0]);
      expect(fifo.size).toBe(expected.length);
    }
    while (expected.length > 0) expect(fifo.shift()).toBe(expected.shift());
    expect([fifo.size, fifo.shift(), fifo.first]).toEqual([0, undefined, undefined]);
  });
});
