import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { DrainSignals } from '../../src/admission/drain-signals.js';

const settled = () => new Promise((resolve) => setImmediate(resolve));

let kill: ReturnType<typeof vi.spyOn>;
let exit: ReturnType<typeof vi.spyOn>;
const used: DrainSignals[] = [];

beforeEach(() => {
  kill = vi.spyOn(process, 'kill').mockReturnValue(true);
  exit = vi.spyOn(process, 'exit').mockImplementation((() => {}) as never);
});
afterEach(async () => {
  await settled();
  exit.mockRestore();
  kill.mockRestore();
  for (const signals of used.splice(0)) signals.unregister();
  expect(process.listenerCount('SIGTERM')).toBe(0);
});

function register(drain: () => Promise<void>): DrainSignals {
  const signals = new DrainSignals();
  used.push(signals);
  signals.register(drain);
  return signals;
}

describe('SIGTERM, where the application does not listen', () => {
  it('drains every application of the process, and then does what it does', async () => {
    let finish = () => {};
    const first = vi.fn(
      () =>
        new Promise<void>((resolve) => {
          finish = resolve;
        }),
    );
    const second = vi.fn(() => Promise.reject(new Error('store away')));
    register(first);
    register(second);
    expect(process.listenerCount('SIGTERM')).toBe(1);
    process.emit('SIGTERM');
    await settled();
    expect([first, second].map(({ mock }) => mock.calls.length)).toEqual([1, 1]);
    expect(kill).not.toHaveBeenCalled();
    finish();
    await settled();
    expect(kill).toHaveBeenCalledWith(process.pid, 'SIGTERM');
    expect(process.listenerCount('SIGTERM')).toBe(0);
  });

  it('exits with 143 where the signal does not end the process, as for PID 1', async () => {
    register(async () => {});
    process.emit('SIGTERM');
    await settled();
    await settled();
    expect(exit.mock.calls).toEqual([[143]]);
    expect(kill.mock.invocationCallOrder[0]).toBeLessThan(exit.mock.invocationCallOrder[0] as number);
  });

  it('does not exit where a listener was added during the drain', async () => {
    const theirs = vi.fn();
    register(async () => void process.on('SIGTERM', theirs));
    process.emit('SIGTERM');
    await settled();
    await settled();
    process.off('SIGTERM', theirs);
    expect(kill).toHaveBeenCalledWith(process.pid, 'SIGTERM');
    expect(exit).not.toHaveBeenCalled();
  });

  it('is heard again by an application that is started afterwards', async () => {
    register(async () => {});
    process.emit('SIGTERM');
    await settled();
    const drain = vi.fn(async () => {});
    register(drain);
    process.emit('SIGTERM');
    await settled();
    expect(drain).toHaveBeenCalledOnce();
  });

  it('is left to whoever else listens', async () => {
    const theirs = vi.fn();
    process.on('SIGTERM', theirs);
    const drain = vi.fn(async () => {});
    register(drain);
    process.emit('SIGTERM');
    await settled();
    process.off('SIGTERM', theirs);
    expect(theirs).toHaveBeenCalledOnce();
    expect(drain).not.toHaveBeenCalled();
    expect(kill).not.toHaveBeenCalled();
  });

  it('is listened to while any application is there, and no longer', async () => {
    const gone = vi.fn(async () => {});
    const stays = vi.fn(async () => {});
    const signals = register(gone);
    const other = register(stays);
    signals.unregister();
    expect(process.listenerCount('SIGTERM')).toBe(1);
    process.emit('SIGTERM');
    await settled();
    expect(gone).not.toHaveBeenCalled();
    expect(stays).toHaveBeenCalledOnce();
    register(gone);
    other.unregister();
    new DrainSignals().unregister();
    expect(process.listenerCount('SIGTERM')).toBe(1);
  });
});
