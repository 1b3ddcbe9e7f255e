import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { describe, expect, it } from 'vitest';
import { SystemClock } from '../../src/clock/clock.js';
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

/** What answers after `ms`, as something that is read from a socket. */
function readAfter(clock: FakeClock, ms: number) {
  return () => new Promise<string>((resolve) => clock.io(() => resolve('read'), ms));
}

describe('an event-loop stall', () => {
  it('does not decide about an answer that has arrived in it', async () => {
    const clock = new FakeClock();
    const settled = settleWithin(clock, 100, readAfter(clock, 1));
    await clock.stall(150);
    expect(await settled).toEqual({ status: 'done', value: 'read' });
    expect(clock.timerCount).toBe(0);
  });

  it('takes no more than a quarter of the time, whenever it comes', async () => {
    for (const before of [0, 30, 60, 90]) {
      const clock = new FakeClock();
      let status: string | undefined;
      void whenSettled(
        settleWithin(clock, 100, () => new Promise(() => {})),
        (settled) => {
          status = settled.status;
        },
      );
      await clock.advance(before);
      await clock.stall(5_000);
      const quartersLeft = 3 - Math.floor(before / 25);
      await clock.advance(Math.max(0, 25 * quartersLeft - 1));
      if (quartersLeft > 0) expect(status).toBeUndefined();
      await clock.advance(1);
      expect(status).toBe('late');
    }
  });

  it('in every quarter does not extend the wait for ever', async () => {
    const clock = new FakeClock();
    let status: string | undefined;
    void whenSettled(
      settleWithin(clock, 100, () => new Promise(() => {})),
      (settled) => {
        status = settled.status;
      },
    );
    for (let i = 0; i < 4; i++) await clock.stall(1_000);
    expect(status).toBe('late');
  });

  it('counts an answer that is there when the time is over, and what its client does in a turn of its own', async () => {
    const clock = new FakeClock();
    const settled = settleWithin(
      clock,
      100,
      () => new Promise<string>((resolve) => clock.io(() => clock.afterReads(() => resolve('read')), 100)),
    );
    await clock.advance(100);
    expect(await settled).toEqual({ status: 'done', value: 'read' });
  });
});

describe('a budget', () => {
  it('is shared by the calls that wait one after the other', async () => {
    const clock = new FakeClock();
    const budget = { leftMs: 100 };
    const first = settleWithin(clock, budget, readAfter(clock, 60));
    await clock.advance(60);
    expect((await first).status).toBe('done');
    expect(budget.leftMs).toBe(40);
    let status: string | undefined;
    void whenSettled(settleWithin(clock, budget, readAfter(clock, 60)), (settled) => {
      status = settled.status;
    });
    await clock.advance(39);
    expect(status).toBeUndefined();
    await clock.advance(1);
    expect([status, budget.leftMs]).toEqual(['late', 0]);
  });
});

describe('with a server behind a socket', () => {
  it.each([0, 5, 60, 95])(
    '150 ms of synchronous work after %d ms lose no answer of 1 ms',
    async (afterMs) => {
      const server = createServer((socket) => {
        socket.on('data', () => setTimeout(() => socket.write('yes'), 1));
      }).listen(0, '127.0.0.1');
      await once(server, 'listening');
      const socket = connect((server.address() as AddressInfo).port, '127.0.0.1');
      await once(socket, 'connect');
      const ask = () => {
        socket.write('may I?');
        return once(socket, 'data').then(String);
      };
      // The server shares this event loop, so it has its time between two stalls.
      const settled = settleWithin(new SystemClock(), 100, ask);
      setTimeout(block, afterMs, 150);
      setTimeout(block, afterMs + 10, 150);
      expect(await settled).toEqual({ status: 'done', value: 'yes' });
      socket.destroy();
      server.close();
    },
  );
});

function block(ms: number): void {
  const until = performance.now() + ms;
  while (performance.now() < until);
}
