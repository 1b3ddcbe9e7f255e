import { describe, expect, it } from 'vitest';
import { settleWithin, whenSettled } from '../../src/clock/deadline.js';
import { FakeClock } from '../../src/testing/index.js';

describe('settleWithin', () => {
  it('gives what comes at once, and costs no timer', async () => {
    const clock = new FakeClock();
    const settled = settleWithin(clock, 100, () => 7);
    expect(clock.timerCount).toBe(0);
    expect(await settled).toEqual({ status: 'done', value: 7 });
  });

  it('gives what comes in time, and takes its timer with it', async () => {
    const clock = new FakeClock();
    const settled = settleWithin(
      clock,
      100,
      () => new Promise<string>((resolve) => clock.setTimeout(() => resolve('ok'), 99)),
    );
    await clock.advance(99);
    expect(await settled).toEqual({ status: 'done', value: 'ok' });
    expect(clock.timerCount).toBe(0);
  });

  it('says that it failed, thrown or rejected', async () => {
    const clock = new FakeClock();
    const error = new Error('no');
    const thrown = settleWithin(clock, 100, () => {
      throw error;
    });
    expect(await thrown).toEqual({ status: 'failed', error });
    expect(await settleWithin(clock, 100, () => Promise.reject(error))).toEqual({ status: 'failed', error });
    expect(clock.timerCount).toBe(0);
  });

  it('is late after its time, and not before', async () => {
    const clock = new FakeClock();
    let status: string | undefined;
    void whenSettled(
      settleWithin(clock, 100, () => new Promise(() => {})),
      (settled) => {
        status = settled.status;
      },
    );
    await clock.advance(99);
    expect(status).toBeUndefined();
    await clock.advance(1);
    expect(status).toBe('late');
  });

  it('drops what comes after the deadline, a rejection too', async () => {
    const clock = new FakeClock();
    const settled = settleWithin(
      clock,
      100,
      () => new Promise((_, reject) => clock.setTimeout(() => reject(new Error('late')), 200)),
    );
    await clock.advance(300);
    expect(await settled).toEqual({ status: 'late' });
  });
});
