import { Logger } from '@nestjs/common';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { LineLimiter } from '../../src/events/line-limiter.js';
import { FakeClock } from '../../src/testing/index.js';

const WINDOW_MS = 10_000;
const LINES_OF_USER = 10;
const LINES_OF_KIND = 100;

let clock: FakeClock;
let lines: LineLimiter;
let written: string[];

beforeEach(() => {
  clock = new FakeClock();
  lines = new LineLimiter(clock);
  written = [];
  for (const level of ['log', 'warn', 'error'] as const) {
    vi.spyOn(Logger.prototype, level).mockImplementation((text: string) => void written.push(text));
  }
});
afterEach(() => vi.restoreAllMocks());

function write(times: number, userId: string | undefined, kind = 'rejected'): void {
  for (let i = 0; i < times; i++) {
    lines.write({ level: 'warn', kind, userId, text: () => `${kind} ${userId}` });
  }
}

const about = (userId: string) => written.filter((line) => line === `rejected ${userId}`).length;

/** Entries of all maps inside the limiter. */
function entries(): number {
  let count = 0;
  const walk = (value: unknown): void => {
    if (value instanceof Map) {
      count += value.size;
      for (const inner of value.values()) walk(inner);
    } else if (typeof value === 'object' && value !== null && !(value instanceof FakeClock)) {
      for (const inner of Object.values(value)) walk(inner);
    }
  };
  for (const [name, value] of Object.entries(lines)) if (name !== 'timer' && name !== 'logger') walk(value);
  return count;
}

describe('LineLimiter', () => {
  it('writes ten lines of one kind about one user, and the first line about another user', () => {
    write(1_000, 'noisy');
    write(1, 'quiet');
    expect([about('noisy'), about('quiet')]).toEqual([LINES_OF_USER, 1]);
  });

  it('limits lines without a user like those of one user', () => {
    write(30, undefined);
    expect(about('undefined')).toBe(LINES_OF_USER);
  });

  it('limits each kind by itself', () => {
    write(30, 'alice');
    write(30, 'alice', 'evicted');
    expect([about('alice'), written.length]).toEqual([LINES_OF_USER, 2 * LINES_OF_USER]);
  });

  it('writes at most a hundred lines of one kind, whatever the number of user ids', () => {
    for (let i = 0; i < 50_000; i++) write(1, `user-${i}`);
    expect(written).toHaveLength(LINES_OF_KIND);
    expect(entries()).toBeLessThanOrEqual(LINES_OF_KIND + 1);
  });

  it('leaves room for first lines when users with many lines have used their half', () => {
    for (let i = 0; i < 20; i++) write(50, `noisy-${i}`);
    write(1, 'quiet');
    expect(about('quiet')).toBe(1);
    expect(written.length).toBeLessThanOrEqual(LINES_OF_KIND / 2 + 20 + 1);
  });

  it('holds a bounded number of kinds, and limits further kinds together', async () => {
    for (let i = 0; i < 1_000; i++) write(30, undefined, `hook ${i}`);
    expect(entries()).toBeLessThanOrEqual(2 * 101);
    expect(written.length).toBe(101 * LINES_OF_USER);
    await clock.advance(WINDOW_MS);
    expect(written.at(-1)).toBe('... and 26990 more lines of this kind: of further kinds');
  });

  it('reports the number of suppressed lines at the end of the window, once', async () => {
    write(38, 'noisy');
    await clock.advance(WINDOW_MS - 1);
    expect(written).toHaveLength(LINES_OF_USER);
    await clock.advance(1);
    expect(written.slice(LINES_OF_USER)).toEqual(['... and 28 more lines of this kind: rejected']);
    await clock.advance(10 * WINDOW_MS);
    expect(written).toHaveLength(LINES_OF_USER + 1);
  });

  it('keeps no timer and no entry after the window', async () => {
    write(38, 'noisy');
    write(1, 'quiet', 'evicted');
    expect([clock.timerCount, entries() > 0]).toEqual([1, true]);
    await clock.advance(WINDOW_MS);
    expect([clock.timerCount, entries()]).toEqual([0, 0]);
  });

  it('begins a new window with the next line', async () => {
    write(38, 'noisy');
    await clock.advance(WINDOW_MS);
    written.length = 0;
    write(38, 'noisy');
    expect(about('noisy')).toBe(LINES_OF_USER);
  });

  it('reports at a flush what was suppressed, and has nothing left to report', async () => {
    write(38, 'noisy');
    lines.flush();
    expect(written.at(-1)).toBe('... and 28 more lines of this kind: rejected');
    expect([clock.timerCount, entries()]).toEqual([0, 0]);
    written.length = 0;
    lines.flush();
    await clock.advance(10 * WINDOW_MS);
    expect(written).toEqual([]);
  });

  it('does not build lines that it suppresses', () => {
    const text = vi.fn(() => 'x');
    for (let i = 0; i < 50; i++) lines.write({ level: 'log', kind: 'k', userId: 'u', text });
    expect(text).toHaveBeenCalledTimes(LINES_OF_USER);
  });
});
