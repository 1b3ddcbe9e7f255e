import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { TimerHandle } from '../../src/clock/clock.js';
import { FakeClock } from '../../src/testing/index.js';
import { HistoryClock } from './history-clock.js';

const HISTORIES = Math.min(1_000, Number(process.env.HISTORIES ?? 100));
const SEED = Number(process.env.SEED ?? 20_261_123);

/** Something that will happen, and what it sets going when it does. */
interface Plan {
  readonly what: 'timeout' | 'interval' | 'io' | 'afterReads' | 'promise';
  readonly ms: number;
  readonly next: readonly Plan[];
  /** Stops the timer that was set so many before it. */
  readonly stops: number | undefined;
}

function planOf(generations: number): fc.Arbitrary<Plan> {
  return fc.record({
    what: fc.constantFrom('timeout', 'timeout', 'interval', 'io', 'io', 'afterReads', 'promise'),
    ms: fc.oneof(fc.nat({ max: 6 }), fc.constantFrom(0.5, 1.5, 2.25, 40)),
    next: generations === 1 ? fc.constant([]) : fc.array(planOf(generations - 1), { maxLength: 2 }),
    stops: fc.option(fc.nat({ max: 3 }), { nil: undefined, freq: 4 }),
  });
}

const anyScript = fc.array(
  fc.record({
    plans: fc.array(planOf(3), { maxLength: 4 }),
    pass: fc.constantFrom<('advance' | 'stall' | 'settle')[]>('advance', 'advance', 'stall', 'settle'),
    ms: fc.oneof(fc.nat({ max: 12 }), fc.constantFrom(0.5, 7.5)),
  }),
  { maxLength: 6 },
);

type Script = { plans: readonly Plan[]; pass: 'advance' | 'stall' | 'settle'; ms: number }[];

async function logOf(clock: FakeClock, script: Script): Promise<string[]> {
  const log: string[] = [];
  const handles: TimerHandle[] = [];
  let named = 0;
  const follow = ({ what, ms, next, stops }: Plan): void => {
    const name = ++named;
    let times = 0;
    const happen = () => {
      log.push(`${clock.now()} ${what} ${name}`);
      if (stops !== undefined) clock.clearTimeout(handles.at(-1 - stops));
      // An interval that set more going each time would never come to rest.
      if (times++ === 0) for (const plan of next) follow(plan);
    };
    if (what === 'timeout') handles.push(clock.setTimeout(happen, ms));
    else if (what === 'interval') handles.push(clock.setInterval(happen, ms));
    else if (what === 'promise') void Promise.resolve().then(happen);
    else if (what === 'io') clock.io(happen, ms);
    else clock.afterReads(happen);
  };
  for (const { plans, pass, ms } of script) {
    for (const plan of plans) follow(plan);
    if (pass === 'settle') await clock.settle();
    else await clock[pass](ms);
    log.push(`${clock.now()} ${clock.wallNow()} ${clock.timerCount} left`);
  }
  return log;
}

describe('the clock of the histories', () => {
  it('brings everything in the same order as the fake clock', async () => {
    const property = fc.asyncProperty(anyScript, async (script) => {
      expect(await logOf(new HistoryClock(), script)).toEqual(await logOf(new FakeClock(), script));
    });
    await fc.assert(property, { numRuns: HISTORIES, seed: SEED });
  }, 0);
});
