import { describe, expect, it } from 'vitest';
import { FakeClock } from '../../src/testing/index.js';

describe('FakeClock', () => {
  it('fires timers in order, each at its own time', async () => {
    const clock = new FakeClock({ startAt: 0 });
    const seen: string[] = [];
    clock.setTimeout(() => seen.push(`b@${clock.now()}`), 20);
    clock.setTimeout(() => seen.push(`a@${clock.now()}`), 10);
    clock.setInterval(() => seen.push(`i@${clock.now()}`), 8);
    await clock.advance(20);
    expect(seen).toEqual(['i@8', 'a@10', 'i@16', 'b@20']);
    expect(clock.now()).toBe(20);
  });

  it('lets promises settle between events, as deep as they are', async () => {
    const clock = new FakeClock();
    const seen: string[] = [];
    clock.setTimeout(async () => {
      for (let i = 0; i < 100; i++) await Promise.resolve();
      seen.push('first');
    }, 10);
    clock.setTimeout(() => seen.push('second'), 10);
    await clock.advance(10);
    expect(seen).toEqual(['first', 'second']);
  });

  it('cuts a delay to whole milliseconds, and makes none shorter than one', async () => {
    const clock = new FakeClock({ startAt: 0 });
    const seen: number[] = [];
    clock.setTimeout(() => seen.push(clock.now()), 0);
    clock.setTimeout(() => seen.push(clock.now()), 2.9);
    await clock.advance(5);
    expect(seen).toEqual([1, 2]);
  });

  it('never fires what was cleared, an interval from within itself included', async () => {
    const clock = new FakeClock();
    let fired = 0;
    clock.clearTimeout(clock.setTimeout(() => fired++, 5));
    const interval = clock.setInterval(() => {
      fired++;
      clock.clearInterval(interval);
    }, 5);
    const [first, second] = [0, 1].map(() =>
      clock.setTimeout(() => {
        fired++;
        clock.clearTimeout(second);
      }, 7),
    );
    clock.clearTimeout(undefined);
    expect(clock.timerCount).toBe(3);
    await clock.advance(100);
    expect(first).toBeDefined();
    expect(fired).toBe(2);
    expect(clock.timerCount).toBe(0);
  });

  it('has libuv’s order at one instant: timers, then reads, then what waits for the reads', async () => {
    const clock = new FakeClock();
    const seen: string[] = [];
    clock.io(() => seen.push('read'), 10);
    clock.setTimeout(() => {
      seen.push('timer');
      clock.afterReads(() => seen.push('after'));
    }, 10);
    await clock.advance(10);
    expect(seen).toEqual(['timer', 'read', 'after']);
  });

  it('stalls as an event loop does: overdue timers once, then what arrived, then what waits for it', async () => {
    const clock = new FakeClock({ startAt: 0 });
    const seen: string[] = [];
    clock.setInterval(() => {
      seen.push(`interval@${clock.now()}`);
      clock.afterReads(() => seen.push('after'));
    }, 100);
    clock.io(() => seen.push('read'), 5);
    clock.setTimeout(() => seen.push('timeout'), 550);
    await clock.stall(1_000);
    expect(seen).toEqual(['interval@1000', 'timeout', 'read', 'after']);
    await clock.advance(99);
    expect(seen).toHaveLength(4);
    await clock.advance(1);
    expect(seen.slice(4)).toEqual(['interval@1100', 'after']);
  });

  it('has a wall clock that can be set, which moves no timer', async () => {
    const clock = new FakeClock({ wallStartAt: 5_000 });
    let fired = false;
    clock.setTimeout(() => {
      fired = true;
    }, 100);
    clock.setWall(9_000_000);
    await clock.advance(99);
    expect(fired).toBe(false);
    expect(clock.wallNow()).toBe(9_000_099);
    clock.setWall(0);
    await clock.advance(1);
    expect(fired).toBe(true);
    expect(clock.wallNow()).toBe(1);
  });

  it('says so when it is moved twice at once, or backwards', async () => {
    const clock = new FakeClock({ startAt: 50 });
    const moving = clock.advance(10);
    await expect(clock.advance(10)).rejects.toThrow('already');
    await moving;
    await expect(clock.advanceTo(10)).rejects.toThrow('over');
  });
});
